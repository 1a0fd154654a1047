"""Random convolutional networks as spatial systems."""

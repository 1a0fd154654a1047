"""The one-dimensional chain of a bias-free network of two slopes, at real width and depth."""

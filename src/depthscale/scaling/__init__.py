"""Scaling analysis: arrays in, exponents out; knows nothing of networks."""

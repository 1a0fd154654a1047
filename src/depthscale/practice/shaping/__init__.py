"""Activations that keep two inputs apart: choose them for a depth and a width, put them on models.

``shape`` chooses, ``Shaped`` is its answer. A network may be shaped by the slope of a leaky ReLU
(tailored activations, 2203.08120), by affine maps around a smooth activation (the same, and deep
kernel shaping, 2110.01765), or by the scale of residual branches.
"""

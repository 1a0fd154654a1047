"""The layers that several claims share."""

from __future__ import annotations

import math
from functools import cache

from depthscale.theory.activation import activation as named
from depthscale.theory.gaussian import expectation
from depthscale.theory.meanfield import MeanField

LIMITS = "2310.12079"
COVARIANCE = "2206.02768"
TAILORED = "2203.08120"


@cache
def critical(
    activation: str, length: float, drop: float = 0.0, masks: str = "independent"
) -> MeanField:
    """The layer with ``chi_1 = 1`` at this settled length, without dropout; then with it.

    ``sigma_w^2 = 1/E phi'^2`` and ``sigma_b^2 = q - sigma_w^2 E phi^2``.
    """
    phi = named(activation)
    slope = expectation(lambda u: phi.derivative(u) ** 2, length, phi.shape)
    square = expectation(lambda u: phi(u) ** 2, length, phi.shape)
    weight = 1 / float(slope)
    bias = length - weight * float(square)
    return MeanField(phi, math.sqrt(weight), math.sqrt(bias), drop=drop, masks=masks)


RELU = MeanField(named("relu"), math.sqrt(2))
"""The unshaped network of 2310.12079."""

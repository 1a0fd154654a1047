"""What the claims of 1912.09132 share: its networks, and how a claim of it is written."""

from __future__ import annotations

import math
from functools import cache, partial

from depthscale.papers.claims import Claim, Verdict
from depthscale.theory.activation import activation as named
from depthscale.theory.meanfield import MeanField

PAPER = "1912.09132"

VARIANCES = {
    "identity": (0.5, 0.1),
    "relu": (1.0, 0.1),
    "tanh": (1.4, 0.1),
    "hardtanh": (1.4, 0.1),
}
"""``sigma_w^2`` and ``sigma_b^2`` of figures 2 to 5."""

NAMES = {"identity": "linear", "relu": "ReLU", "tanh": "tanh", "hardtanh": "hard tanh"}
KEEPS = (0.6, 0.7, 0.8, 0.9, 1.0)
"""The paper's rho, the probability that a unit is kept."""

DEPTH = 200
"""Layers of figures 2 to 5 whose gradients are shown."""

SMALLEST = 1e-37
"""Published values below this are float32 underflow."""

claim = partial(Claim, PAPER)
number = partial(Claim.number, PAPER)


def verdict_if(true: bool) -> Verdict:
    """The verdict on a statement that is no number."""
    return "confirmed" if true else "refuted"


@cache
def field(activation: str, rho: float) -> MeanField:
    """The network of figures 2 to 5."""
    weight, bias = VARIANCES[activation]
    return MeanField(named(activation), math.sqrt(weight), math.sqrt(bias), drop=round(1 - rho, 12))


@cache
def log_factors(activation: str, rho: float) -> tuple[float, float]:
    """``ln chi_1`` and ``ln chi_2`` at the fixed point."""
    return factors(field(activation, rho))


def factors(network: MeanField) -> tuple[float, float]:
    """``ln chi_1`` and ``ln chi_2`` of any network whose pair settles."""
    length = float(network.q)
    pair = network.gradient_pair_factor_at(length, float(network.eps), length)
    return math.log(float(network.gradient_factor)), math.log(float(pair))

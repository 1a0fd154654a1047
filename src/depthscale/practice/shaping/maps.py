"""Misalignment by layer at infinite width, and the layer that reaches a target at a given depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from depthscale.theory.functions.function import Activation
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.universal.hermite import expand

Step = Callable[[float], float]

_TERMS = 96  # Hermite coefficients tried before the quadrature


def bend_of(below: float, above: float = 1.0) -> float:
    """``(above - below)^2/(above^2 + below^2)``, in [0, 2]: how far two slopes bend a line."""
    return (above - below) ** 2 / (above**2 + below**2)


def slope_of(bend: float) -> float:
    """The slope in [-1, 1], beside 1, of which this is the bend."""
    return (1 - bend) / (1 + math.sqrt(bend * (2 - bend)))


def two_slopes(bend: float) -> Step:
    """``eps' = eps - (bend/pi) (sin theta - theta cos theta)``, ``theta = arccos(1 - eps)``.

    The map of a layer of leaky ReLU without biases; of a residual layer ``sqrt(1 - s^2) h + s W
    phi(h)`` with ``s^2`` times the bend of its activation.
    """
    weight = bend / math.pi

    def step(eps: float) -> float:
        return max(0.0, eps - weight * _lag(2 * math.asin(math.sqrt(eps / 2))))

    return step


def _lag(theta: float) -> float:
    """``sin(theta) - theta cos(theta)`` without cancellation; numpy and scipy are slow on one."""
    if theta > 0.25:
        return math.sin(theta) - theta * math.cos(theta)
    x = theta * theta
    series = 1 / 3 - x * (1 / 30 - x * (1 / 840 - x * (1 / 45360 - x / 3991680)))
    return theta * x * series


def step_of(psi: Activation, skip: float = 0.0) -> Step:
    """The map of ``skip h + sqrt(1 - skip^2) W psi(h)``, ``E psi^2 = 1``, at length 1.

    From Hermite coefficients where they fall off fast enough, else from the Gaussian quadrature.
    """
    branch = (1 - skip) * (1 + skip)
    powers = _powers(psi)
    if powers is None:
        layer = MeanField(psi, sigma_w=1.0)
        plain = _by_quadrature(layer)
    else:
        plain = _by_powers(powers)
    if not skip:
        return plain
    return lambda eps: skip * skip * eps + branch * plain(eps)


def path(step: Step, depth: int, eps0: float) -> Array:
    """``eps`` after 0, 1, ..., ``depth`` layers."""
    states = [eps0]
    for _ in range(depth):
        states.append(step(states[-1]))
    return np.array(states)


def quadratic(method: str, amount: float) -> Step:
    """The map with the slope or curvature of a method and no powers of ``c`` beyond the second.

    What the transformed activations come to when they are nearly linear.
    """
    if method == "tat":
        return lambda eps: eps - amount / 2 * eps * eps
    return lambda eps: eps + (amount - 1) * eps * (1 - eps)


@lru_cache(maxsize=64)
def _powers(psi: Activation) -> Array | None:
    """``c_k^2/E psi^2``, None where 96 of them leave out more than rounding."""
    if psi.breaks or psi.cusps:
        return None
    coefficients, square = expand(psi, 1.0, _TERMS)
    powers = coefficients**2 / square
    return powers if powers[-8:].max() < 1e-18 else None


def _by_powers(powers: Array) -> Step:
    order = np.arange(len(powers))

    def step(eps: float) -> float:
        if eps < 0.5:
            return float(-(powers @ np.expm1(order * math.log1p(-eps))))
        return float(powers @ (1 - (1 - eps) ** order))

    return step


def _by_quadrature(layer: MeanField) -> Step:
    return lambda eps: float(layer.gap_map(eps, 1.0))

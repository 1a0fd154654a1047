"""Closed forms of the Gaussian moments, for the activations that have them.

Each class gives, for one activation ``f`` and Gaussian pairs with variances ``q1, q2`` and
correlation ``1 - eps``, the gap ``E[(f(u) - f(v))^2]/2`` and the same of ``f'``, in forms that keep
their relative accuracy as ``eps -> 0`` at equal variances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special

from depthscale.theory.gaussian import Array


class ClosedForm(Protocol):
    """What a closed form provides; arguments are arrays that broadcast."""

    def second_moment(self, q: Array) -> Array:
        """``E[f(u)^2]``."""
        ...

    def slope_moment(self, q: Array) -> Array:
        """``E[f'(u)^2]``."""
        ...

    def length_slope(self, q: Array) -> Array:
        """``d E[f(u)^2]/dq``."""
        ...

    def gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        """``E[(f(u) - f(v))^2]/2``."""
        ...

    def slope_gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        """``E[(f'(u) - f'(v))^2]/2``."""
        ...


def _angle(eps: Array) -> Array:
    """``arccos(1 - eps)`` without cancellation."""
    return 2 * np.arcsin(np.sqrt(eps / 2))


@dataclass(frozen=True)
class TwoSlopes:
    r"""``f(x) = below x`` for ``x < 0``, ``above x`` for ``x > 0``: the ReLU family.

    With ``k = (below^2 + above^2)/2``, ``m = (above - below)/2`` and ``theta = arccos(1 - eps)``
    (the arc-cosine kernel of Cho and Saul, 2009):
    ``gap = k q eps - (2 m^2 q/pi) (sin theta - theta cos theta)``.
    """

    below: float
    above: float

    @property
    def _square(self) -> float:
        return (self.below**2 + self.above**2) / 2

    @property
    def _kink(self) -> float:
        return (self.above - self.below) ** 2 / 4

    def second_moment(self, q: Array) -> Array:
        return self._square * q

    def slope_moment(self, q: Array) -> Array:
        return np.full_like(q, self._square)

    def length_slope(self, q: Array) -> Array:
        return np.full_like(q, self._square)

    def gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        theta = _angle(eps)
        # sin(theta) - theta cos(theta) = theta^2 j_1(theta), a spherical Bessel function
        bend = theta * theta * special.spherical_jn(1, theta)
        aligned = np.sqrt(q1 * q2) * (self._square * eps - (2 / math.pi) * self._kink * bend)
        return np.asarray(aligned + self._square * (np.sqrt(q1) - np.sqrt(q2)) ** 2 / 2)

    def slope_gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        return (2 / math.pi) * self._kink * _angle(eps) + 0 * (q1 + q2)


@dataclass(frozen=True)
class Erf:
    """``E[erf u erf v] = (2/pi) arcsin(2 p/sqrt((1 + 2 q1)(1 + 2 q2)))`` (Williams, 1997)."""

    def second_moment(self, q: Array) -> Array:
        # arcsin(2q/(1+2q)) = arctan(2q/sqrt(1+4q)), which keeps its digits at large q
        return (2 / math.pi) * np.arctan2(2 * q, np.sqrt(1 + 4 * q))

    def slope_moment(self, q: Array) -> Array:
        return (4 / math.pi) / np.sqrt(1 + 4 * q)

    def length_slope(self, q: Array) -> Array:
        return (4 / math.pi) / ((1 + 2 * q) * np.sqrt(1 + 4 * q))

    def gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        root = np.sqrt(q1 * q2)
        p = root * (1 - eps)
        # the cosine of arcsin(2p/sqrt((1 + 2 q1)(1 + 2 q2))) is this over the same square root
        rest = np.sqrt(1 + 2 * (q1 + q2) + 4 * root * root * eps * (2 - eps))
        half = np.zeros(np.broadcast(q1, q2, eps).shape)
        for q in (q1, q2):
            side = np.sqrt(1 + 4 * q)
            # sine and cosine of a - c, a = arcsin(2q/(1 + 2q)), c the arcsine above
            sine = 2 * (q * rest - p * side)
            # at equal variances q^2 rest^2 - p^2 side^2 = q^2 eps (2 - eps) (1 + 2q)^2
            stable = 2 * q * q * eps * (2 - eps) * (1 + 2 * q) ** 2 / (q * rest + np.abs(p) * side)
            sine = np.where((q1 == q2) & (p > 0), stable, sine)
            half = half + np.arctan2(sine, side * rest + 4 * q * p)
        return half / math.pi

    def slope_gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        root = np.sqrt(q1 * q2)
        excess = 4 * root * root * eps * (2 - eps)
        base = 1 + 2 * (q1 + q2)
        both = 1 / np.sqrt(base + excess)
        single = (1 / np.sqrt(1 + 4 * q1) + 1 / np.sqrt(1 + 4 * q2)) / 2
        aligned = excess / (
            np.sqrt(base) * np.sqrt(base + excess) * (np.sqrt(base) + np.sqrt(base + excess))
        )
        return np.asarray((4 / math.pi) * np.where(q1 == q2, aligned, single - both))


@dataclass(frozen=True)
class Wave:
    """Sine (odd) or cosine: ``E[sin u sin v] = exp(-(q1 + q2)/2) sinh p``, cosine ``cosh p``."""

    odd: bool

    def second_moment(self, q: Array) -> Array:
        return -np.expm1(-2 * q) / 2 if self.odd else (1 + np.exp(-2 * q)) / 2

    def slope_moment(self, q: Array) -> Array:
        return Wave(not self.odd).second_moment(q)

    def length_slope(self, q: Array) -> Array:
        return np.asarray(np.exp(-2 * q) if self.odd else -np.exp(-2 * q))

    def gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        # E(u - v)^2/2 and half the sum of variances
        apart = (np.sqrt(q1) - np.sqrt(q2)) ** 2 / 2 + np.sqrt(q1 * q2) * eps
        total = q1 + q2
        sign = 1 if self.odd else -1
        mixed = np.exp(apart - total) - (np.exp(-2 * q1) + np.exp(-2 * q2)) / 2
        aligned = -np.exp(apart - total) * np.expm1(-apart)
        echo = np.where(q1 == q2, aligned, mixed)
        return np.asarray((-np.expm1(-apart) + sign * echo) / 2)

    def slope_gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        return Wave(not self.odd).gap(q1, q2, eps)

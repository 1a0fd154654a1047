"""Closed forms of the Gaussian moments, for the activations that have them.

Each class gives, for one activation ``f`` and Gaussian pairs with variances ``q1, q2`` and
correlation ``1 - eps``, the gap ``E[(f(u) - f(v))^2]/2`` and the same of ``f'``, in forms that keep
their relative accuracy as ``eps -> 0`` at equal variances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
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
        root = np.sqrt(q1) * np.sqrt(q2)
        aligned = root * (self._square * eps - (2 / math.pi) * self._kink * bend)
        return np.asarray(aligned + self._square * (np.sqrt(q1) - np.sqrt(q2)) ** 2 / 2)

    def slope_gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        shape = np.broadcast_shapes(np.shape(q1), np.shape(q2), np.shape(eps))
        return np.full(shape, (2 / math.pi) * self._kink * _angle(eps))


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
        p = np.sqrt(q1) * np.sqrt(q2) * (1 - eps)
        # the cosine of arcsin(2p/sqrt((1 + 2 q1)(1 + 2 q2))) is this over the same square root
        rest = np.hypot(np.sqrt(1 + 2 * (q1 + q2)), _across(q1, q2, eps))
        half = np.zeros(np.broadcast(q1, q2, eps).shape)
        for q in (q1, q2):
            # sine and cosine of a - c, a = arcsin(2q/(1 + 2q)), c the arcsine above
            side = np.sqrt(1 + 4 * q)
            sin_a, cos_a = 2 * q / (1 + 2 * q), side / (1 + 2 * q)
            sine = sin_a * rest - 2 * cos_a * p
            # at equal variances q^2 rest^2 - p^2 side^2 = q^2 eps (2 - eps) (1 + 2q)^2
            both = (rest + np.abs(1 - eps) * side) / (1 + 2 * q)
            sine = np.where((q1 == q2) & (eps < 1), 2 * q * (eps * (2 - eps)) / both, sine)
            half = half + np.arctan2(sine, cos_a * rest + 2 * sin_a * p)
        return half / math.pi

    def slope_gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        across, base = _across(q1, q2, eps), np.sqrt(1 + 2 * (q1 + q2))
        rest = np.hypot(base, across)
        single = (1 / np.sqrt(1 + 4 * q1) + 1 / np.sqrt(1 + 4 * q2)) / 2
        aligned = (across / base) * (across / rest) / (base + rest)
        return np.asarray((4 / math.pi) * np.where(q1 == q2, aligned, single - 1 / rest))


def _across(q1: Array, q2: Array, eps: Array) -> Array:
    """``2 sqrt(q1 q2) sin theta`` for the correlation ``cos theta = 1 - eps``."""
    return np.asarray(2 * np.sqrt(q1) * np.sqrt(q2) * np.sqrt(eps * (2 - eps)))


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
        apart = (np.sqrt(q1) - np.sqrt(q2)) ** 2 / 2 + np.sqrt(q1) * np.sqrt(q2) * eps
        total = q1 + q2
        sign = 1 if self.odd else -1
        mixed = np.exp(apart - total) - (np.exp(-2 * q1) + np.exp(-2 * q2)) / 2
        aligned = -np.exp(apart - total) * np.expm1(-apart)
        echo = np.where(q1 == q2, aligned, mixed)
        return np.asarray((-np.expm1(-apart) + sign * echo) / 2)

    def slope_gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        return Wave(not self.odd).gap(q1, q2, eps)


@dataclass(frozen=True)
class Power:
    r"""``f(x) = above x^a`` for ``x > 0``, ``below (-x)^a`` for ``x < 0``, ``a > -1/2``.

    ``E[f(u) f(v)]`` at unit variances solves a hypergeometric equation in ``z = eps/2``, and the
    connection formula at aligned inputs splits it into a regular and a singular solution,

        gap = -(P/2) m (2F1(-a, -a; 1/2 - a; z) - 1)
              + C (P - X cos(pi a)) eps^(a + 1/2) 2F1(1/2, 1/2; a + 3/2; z),

    with ``P = above^2 + below^2``, ``X = 2 above below``, ``m = E|u|^(2a)`` and the ``C`` of
    ``Singularity.gap_coefficient``. Beyond ``eps = 1`` the pair ``u, -v`` is taken, which swaps
    ``P`` and ``X``. At half-integer ``a`` the poles of the two terms cancel into a logarithm; there
    the gap, analytic in ``a``, is its mean over a circle around the pole.
    """

    exponent: float
    below: float
    above: float

    @property
    def _squares(self) -> float:
        return self.below**2 + self.above**2

    @property
    def _mixed(self) -> float:
        return 2 * self.below * self.above

    @property
    def _derivative(self) -> Power:
        a = self.exponent
        return Power(a - 1, -a * self.below, a * self.above)

    def second_moment(self, q: Array) -> Array:
        if self.exponent <= -0.5:
            return np.full_like(q, math.inf)
        unit = float(_absolute_moment(self.exponent))
        return np.asarray(self._squares / 2 * unit * q**self.exponent)

    def slope_moment(self, q: Array) -> Array:
        return self._derivative.second_moment(q)

    def length_slope(self, q: Array) -> Array:
        return np.asarray(self.exponent * self.second_moment(q) / q)

    def gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        if self.exponent <= -0.5:
            return np.full(np.broadcast(q1, q2, eps).shape, math.inf)
        half = self.exponent / 2
        apart = self._squares / 4 * float(_absolute_moment(self.exponent))
        aligned = q1**half * q2**half * self._unit_gap(eps)
        return np.asarray(aligned + apart * (q1**half - q2**half) ** 2)

    def slope_gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        return self._derivative.gap(q1, q2, eps)

    def _unit_gap(self, eps: Array) -> Array:
        """The gap at unit variances."""
        out = np.empty(eps.shape)
        near = eps <= 1
        out[near] = _power_gap(self.exponent, eps[near], self._squares, self._mixed)
        opposite = (self.above - self.below) ** 2 / 2 * float(_absolute_moment(self.exponent))
        rest = _power_gap(self.exponent, 2 - eps[~near], self._mixed, self._squares)
        out[~near] = opposite + rest
        return out


def _absolute_moment(a: ArrayLike) -> NDArray[Any]:
    """``E|u|^(2a)`` of a standard normal ``u``."""
    return np.asarray(2 ** np.asarray(a) * special.gamma(np.add(a, 0.5)) / math.sqrt(math.pi))


def _power_gap(a: float, eps: Array, squares: float, mixed: float) -> Array:
    """The gap of ``Power`` for ``eps`` in [0, 1], with its ``P`` and ``X``."""
    small = np.maximum(eps, 1e-300)
    out = np.empty(eps.shape)
    pole = max(0.5, round(a - 0.5) + 0.5)
    # eps^a varies on 1/log(1/eps): the circle stays within three times that
    radius = np.minimum(0.2, 3 / (1 - np.log(small)))
    close = np.abs(a - pole) < radius / 4
    if not close.all():
        out[~close] = _two_solutions(np.asarray(a), small[~close], squares, mixed)
    if close.any():
        # n nodes leave (1/4)^n of the distance to the pole and 3^n/n! of eps^a
        turn = np.exp(1j * math.pi * (np.arange(_CIRCLE) + 0.5) / _CIRCLE)[:, None]
        step = radius[close] * turn
        values = _two_solutions(pole + step, small[close], squares, mixed)
        out[close] = np.mean(np.real(values * step / (step + (pole - a))), axis=0)
    return np.where(eps > 0, out, 0.0)


_CIRCLE = 13
"""Nodes on the upper half of the circle; the lower half is their complex conjugate."""


def _two_solutions(a: NDArray[Any], eps: Array, squares: float, mixed: float) -> NDArray[Any]:
    """The two terms of ``Power``'s gap for complex ``a`` away from half-integers."""
    z = eps / 2
    regular = _hypergeometric_rest(-a, -a, 0.5 - a, z)
    singular = 1 + _hypergeometric_rest(0.5, 0.5, a + 1.5, z)
    cosine = np.cos(math.pi * a)
    constant = special.gamma(a + 1) ** 3 / (cosine * special.gamma(2 * a + 2))
    constant = constant * 2 ** (2 * a + 1) / (2 * math.pi * math.sqrt(2))
    weight = (squares - mixed * cosine) * constant
    return np.asarray(
        weight * np.exp((a + 0.5) * np.log(eps)) * singular
        - squares / 2 * _absolute_moment(a) * regular
    )


def _hypergeometric_rest(a: ArrayLike, b: ArrayLike, c: NDArray[Any], z: Array) -> NDArray[Any]:
    """``2F1(a, b; c; z) - 1`` for ``0 <= z <= 1/2`` by its series, which keeps small values."""
    term = np.asarray(np.multiply(a, b) / c * z)
    total = term.copy()
    for n in range(1, 200):
        term = term * (np.add(a, n) * np.add(b, n) / ((c + n) * (n + 1)) * z)
        total += term
        if np.all(np.abs(term) <= 1e-18 * np.abs(total)):
            break
    return total

"""Gaussian moments of an activation: closed forms where they exist, the quadrature elsewhere."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.theory.functions.closed import ClosedForm
from depthscale.theory.functions.cusps import mean_squared_slopes, squared_slopes
from depthscale.theory.functions.function import Activation
from depthscale.theory.gaussian import REACH, Array, expectation, gap, pair_expectation

TAIL = 4e-18
"""Probability beyond ``REACH`` standard deviations on one side."""


@cache
def _rise(nodes: int) -> tuple[Array, Array]:
    """Gauss-Legendre in v, eps' = eps v^4: the gap of the slopes rises like a power of eps'."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    v = (x + 1) / 2
    return v**4, 2 * w * v**3


@dataclass(frozen=True)
class Kernel:
    """The moments that every map of the theory is made of.

    ``u, v`` are a centred Gaussian pair with variances ``q1, q2`` and correlation ``1 - eps``.

    Parameters
    ----------
    activation:
        Must not jump in value (its slope moment would be infinite): ``InputError`` with the
        reason otherwise.
    quadrature:
        Use the quadrature even where a closed form exists, to check one by the other.
    """

    activation: Activation
    quadrature: bool = False

    def __post_init__(self) -> None:
        if self.activation.why_no_theory:
            raise InputError(self.activation.why_no_theory)

    @property
    def _closed(self) -> ClosedForm | None:
        return None if self.quadrature else self.activation.closed

    def second_moment(self, q: ArrayLike) -> Array:
        """``E[f(u)^2]``."""
        q = np.asarray(q, dtype=float)
        if self._closed:
            return self._closed.second_moment(q)
        f = self.activation.function
        return expectation(lambda x: f(x) ** 2, q, self.activation.shape)

    def watch_tails(self, q: float) -> None:
        """Warn when more than 1e-9 of ``E[f^2]`` may lie beyond the reach of the quadrature."""
        if self._closed:
            return
        ends = REACH * np.sqrt(q) * np.array([-1.0, 1.0])
        with np.errstate(over="ignore"):
            beyond = TAIL * float(np.sum(self.activation(ends) ** 2))
        if beyond > 1e-9 * float(self.second_moment(q)):
            warnings.warn(
                f"{self.activation.name} has too much of its moments beyond {REACH:g} standard"
                f" deviations, where they are cut off: at q = {q:.4g} they are not reliable",
                RuntimeWarning,
                stacklevel=3,
            )

    def slope_moment(self, q: ArrayLike) -> Array:
        """``E[f'(u)^2]``."""
        q = np.asarray(q, dtype=float)
        if self._closed:
            return self._closed.slope_moment(q)
        degree = self.activation.degree
        if degree is None or not np.all(q > 0):
            return self._slope_moment(q)
        return np.asarray(self._unit_slope_moment * q ** (degree - 1))

    @cached_property
    def _unit_slope_moment(self) -> float:
        """At length 1, which serves a homogeneous function at every length."""
        return float(self._slope_moment(np.array(1.0)))

    def _slope_moment(self, q: Array) -> Array:
        a = self.activation
        steep = [c for c in a.cusps if c.exponent < 1]
        if not steep:
            return expectation(lambda x: a.slope(x) ** 2, q, a.shape)
        # next to a cusp off 0, float64 has no numbers left: its own square is integrated exactly
        rest = expectation(lambda x: a.slope(x) ** 2 - squared_slopes(steep, x), q, a.shape)
        return np.asarray(rest + mean_squared_slopes(steep, q))

    def curvature_moment(self, q: ArrayLike) -> Array:
        """``E[f''(u)^2]`` of the regular part (infinite as a whole when ``f`` has kinks).

        ``inf`` for cusps of exponent 3/2 or less.
        """
        if any(c.exponent <= 1.5 for c in self.activation.cusps):
            return np.full(np.shape(q), np.inf)
        curvature = self.activation.curvature
        return expectation(lambda x: curvature(x) ** 2, q, self.activation.shape)

    def length_slope(self, q: ArrayLike) -> Array:
        """``d E[f(u)^2]/dq = E[u f(u) f'(u)]/q``, kinks included."""
        q = np.asarray(q, dtype=float)
        if self._closed:
            return self._closed.length_slope(q)
        f, slope = self.activation.function, self.activation.slope
        weighted = expectation(lambda x: x * f(x) * slope(x), q, self.activation.shape)
        return np.asarray(weighted / q)

    def gap(self, q1: ArrayLike, eps: ArrayLike, q2: ArrayLike | None = None) -> Array:
        """``E[(f(u) - f(v))^2]/2``."""
        q1, q2, eps = np.broadcast_arrays(
            *(np.asarray(x, float) for x in (q1, q1 if q2 is None else q2, eps))
        )
        if self._closed:
            return np.asarray(self._closed.gap(q1, q2, eps))
        a = self.activation
        return gap(a.function, q1, eps, a.shape, q2=q2, derivative=a.slope)

    def slope_gap(self, q1: ArrayLike, eps: ArrayLike, q2: ArrayLike | None = None) -> Array:
        """``E[(f'(u) - f'(v))^2]/2``."""
        q1, q2, eps = np.broadcast_arrays(
            *(np.asarray(x, float) for x in (q1, q1 if q2 is None else q2, eps))
        )
        if self._closed:
            return np.asarray(self._closed.slope_gap(q1, q2, eps))
        a = self.activation
        if min((c.exponent for c in a.cusps), default=1.0) < 0.85:
            # f'(u) f'(v) is less singular than f'(u)^2, which one variable integrates better
            slope = a.slope
            both = pair_expectation(lambda u, v: slope(u) * slope(v), q1, q2, eps, a.shape)
            single = (self.slope_moment(q1) + self.slope_moment(q2)) / 2
            return np.where((eps == 0) & (q1 == q2), 0.0, single - both)
        return gap(a.slope, q1, eps, a.shape, q2=q2, derivative=a.curvature)

    def deficit(self, q: ArrayLike, eps: ArrayLike, nodes: int = 20) -> Array:
        """What the gap lacks to its tangent, ``q eps E[f'^2] - E[(f(u) - f(v))^2]/2 >= 0``.

        Where it is small against the gap it is not subtracted but computed as ``q`` times the
        integral of the gap of the slopes from 0 to ``eps``, and so keeps its digits; 4 ``nodes``
        are good for the leading power and some four digits.
        """
        length, gap_eps = np.broadcast_arrays(np.asarray(q, float), np.asarray(eps, float))
        tangent = length * gap_eps * self.slope_moment(length)
        result = np.asarray(tangent - self.gap(length, gap_eps))
        small = result < 1e-3 * tangent
        if small.any():
            length, gap_eps = length[small], gap_eps[small]
            fractions, shares = _rise(nodes)
            rise = self.slope_gap(length[:, None], gap_eps[:, None] * fractions)
            result[small] = length * gap_eps * (rise @ shares)
        return result

    def pair_moment(self, q1: ArrayLike, eps: ArrayLike, q2: ArrayLike | None = None) -> Array:
        """``E[f(u) f(v)]``; of lengths that differ by a factor 1e6, as an integral of its own."""
        q1, q2, eps = np.broadcast_arrays(
            *(np.asarray(x, float) for x in (q1, q1 if q2 is None else q2, eps))
        )
        degree = self.activation.degree
        if degree is not None and np.all(q1 > 0) and np.all(q2 > 0):
            one = np.ones_like(q1)
            unit = self.second_moment(one) - self.gap(one, eps, one)
            return np.asarray(q1 ** (degree / 2) * q2 ** (degree / 2) * unit)
        both = (self.second_moment(q1) + self.second_moment(q2)) / 2
        moment = np.asarray(both - self.gap(q1, eps, q2))
        far = np.maximum(q1, q2) / 1e6 > np.minimum(q1, q2)  # the difference would lose digits
        far &= (q1 > 0) & (q2 > 0)
        if far.any():
            f = self.activation.function
            moment[far] = pair_expectation(
                lambda u, v: f(u) * f(v), q1[far], q2[far], eps[far], self.activation.shape
            )
        return moment

    def slope_pair_moment(
        self, q1: ArrayLike, eps: ArrayLike, q2: ArrayLike | None = None
    ) -> Array:
        """``E[f'(u) f'(v)]``."""
        both = self.slope_moment(q1) + self.slope_moment(q1 if q2 is None else q2)
        return both / 2 - self.slope_gap(q1, eps, q2)

"""Gaussian moments of an activation: closed forms where they exist, the quadrature elsewhere."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.theory.closed import ClosedForm
from depthscale.theory.function import Activation
from depthscale.theory.gaussian import REACH, Array, expectation, gap

TAIL = 4e-18
"""Probability beyond ``REACH`` standard deviations on one side."""


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
        slope = self.activation.slope
        return expectation(lambda x: slope(x) ** 2, q, self.activation.shape)

    def curvature_moment(self, q: ArrayLike) -> Array:
        """``E[f''(u)^2]`` of the regular part (infinite as a whole when ``f`` has kinks)."""
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
        return gap(a.slope, q1, eps, a.shape, q2=q2, derivative=a.curvature)

    def pair_moment(self, q1: ArrayLike, eps: ArrayLike, q2: ArrayLike | None = None) -> Array:
        """``E[f(u) f(v)]``."""
        both = self.second_moment(q1) + self.second_moment(q1 if q2 is None else q2)
        return both / 2 - self.gap(q1, eps, q2)

    def slope_pair_moment(
        self, q1: ArrayLike, eps: ArrayLike, q2: ArrayLike | None = None
    ) -> Array:
        """``E[f'(u) f'(v)]``."""
        both = self.slope_moment(q1) + self.slope_moment(q1 if q2 is None else q2)
        return both / 2 - self.slope_gap(q1, eps, q2)

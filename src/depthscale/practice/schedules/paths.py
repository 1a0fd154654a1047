"""What schedules that were followed are worth: losses of their paths, and partial derivatives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from depthscale.practice.schedules.recursion import Recursion, Sensitivity, Steps
from depthscale.theory.gaussian import Array

ROUNDING = 1e-28  # variance of equal numbers of order 1
CLOSE = 1e-5  # of a misalignment: smaller differences follow the slope and are not subtracted
MET = 1e-11  # the same, below which the two paths have one slope


@dataclass
class Partials:
    """Partial derivatives of a loss by what a path consists of; see ``Recursion.adjoint``."""

    x: Array
    h: Array
    q: Array
    eps: Array

    @classmethod
    def zero(cls, steps: Steps) -> Partials:
        """No dependence yet."""
        return cls(*(np.zeros_like(a) for a in (steps.x, steps.h, steps.q, steps.eps)))


class Path:
    """Schedules ``x`` (N, L) followed from 0 and, where ``eps0`` is given, from there too.

    Losses are those of ``objectives``: less is better, logarithms of noise and signal to noise.
    """

    def __init__(self, recursion: Recursion, x: Array, eps0: float | None = None) -> None:
        self.recursion = recursion
        self.steps = recursion.follow(x, (0.0,) if eps0 is None else (0.0, eps0))

    # Losses --------------------------------------------------------------------------------------

    def loss(self, name: str) -> Array:
        """One number for each schedule, shape (N,)."""
        losses = {
            "signal": self._signal, "noise": self._noise, "exposure": self._exposure,
            "snr": self._snr, "gradient": self._gradient,
        }  # fmt: skip
        with np.errstate(divide="ignore"):
            return np.asarray(losses[name]())

    @property
    def _eps(self) -> Array:
        return self.steps.eps[..., 0]

    @cached_property
    def _log_slopes(self) -> Array:
        """Of the first path, shape (D, N)."""
        return np.asarray(np.log(self.recursion.slopes(_only(self.steps, self._eps))[..., 0]))

    def _signal(self) -> Array:
        return -np.asarray(self._log_slopes.sum(axis=0))

    def _noise(self) -> Array:
        return np.asarray(np.log(self._eps[-1]))

    def _exposure(self) -> Array:
        return -np.asarray(self._eps[1:].sum(axis=0))

    def _gradient(self) -> Array:
        spread = self.recursion.factors(self.steps)[0].var(axis=0)
        return np.where(spread < ROUNDING, 0.0, spread)

    def _snr(self) -> Array:
        """``log eps_D - log(e_D - eps_D)``; by slopes where the difference would lose digits."""
        gap, switch, after = self._closing
        start = np.log(np.take_along_axis(gap, switch[None], axis=0)[0])
        slopes = np.where(after, self._slopes_between(gap, after), 0.0) if after.any() else 0 * gap
        return np.asarray(self._noise() - start - slopes.sum(axis=0))

    @cached_property
    def _closing(self) -> tuple[Array, NDArray[np.int_], NDArray[np.bool_]]:
        """``e_l - eps_l``, where it is last subtracted, and which layers it follows slopes in."""
        gap = self.steps.eps[..., 1] - self._eps
        close = gap < CLOSE * self._eps
        switch = np.where(close.any(axis=0), close.argmax(axis=0), len(gap) - 1)
        return gap, switch, np.arange(len(gap) - 1)[:, None] >= switch

    def _slopes_between(self, gap: Array, after: NDArray[np.bool_]) -> Array:
        """Log slopes half way between the paths where that differs from those of the first."""
        slopes = self._log_slopes
        apart = np.flatnonzero((after & (gap[:-1] > MET * self._eps[:-1])).any(axis=1))
        if not apart.size:
            return slopes
        layers = slice(int(apart[0]), int(apart[-1]) + 1)
        middle = _only(self.steps, self._eps + np.maximum(gap, 0.0) / 2)
        slopes = slopes.copy()
        slopes[layers] = np.log(self.recursion.slopes(middle, layers)[..., 0])
        return slopes

    # Their partial derivatives -------------------------------------------------------------------

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """Derivatives of every layer."""
        return self.recursion.sensitivity(self.steps)

    def add(self, to: Partials, name: str, weight: float) -> None:
        """Add those of ``weight`` times a loss."""
        if name == "signal":
            self._add_slopes(to, np.full(self.steps.h.shape, weight))
        elif name == "noise":
            to.eps[-1, :, 0] += weight / self._eps[-1]
        elif name == "exposure":
            to.eps[1:, :, 0] -= weight
        elif name == "gradient":
            log, by_h, by_q = self.recursion.factors(self.steps)
            off = 2 * weight * (log - log.mean(axis=0)) / len(log)
            to.h += off * by_h
            to.q += off * by_q
        else:
            gap, switch, after = self._closing
            to.eps[-1, :, 0] += weight / self._eps[-1]
            rows = np.arange(len(switch))
            to.eps[switch, rows, 1] -= weight / gap[switch, rows]
            to.eps[switch, rows, 0] += weight / gap[switch, rows]
            self._add_slopes(to, np.where(after, weight, 0.0))

    def _add_slopes(self, to: Partials, weight: Array) -> None:
        """Those of ``-sum weight log slope``."""
        on = self.sensitivity
        to.eps[:-1, :, 0] -= weight * on.log_slope_eps[..., 0]
        to.h += weight / (1 - self.steps.h)
        to.q -= weight * on.log_slope_q[..., 0]


def _only(steps: Steps, eps: Array) -> Steps:
    """The same lengths with one path, ``eps`` of shape (D + 1, N)."""
    return replace(steps, eps=eps[..., None])

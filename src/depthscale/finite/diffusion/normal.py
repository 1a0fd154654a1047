"""A law that is normal, or a point: what wide networks have whose limit is deterministic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from depthscale.finite.diffusion.equation import IDENTITY, Reading, Timed
from depthscale.finite.diffusion.law import Estimate, Law
from depthscale.theory.gaussian import Array

NODES = 64

DIRECT = {
    "rho": Reading(
        IDENTITY.of, IDENTITY.inverse, IDENTITY.slope, True, "correlation of the two signals"
    ),
    "eps": Reading(
        of=lambda u, t: 1 - u,
        inverse=lambda x, t: 1 - x,
        slope=lambda u, t: -np.ones_like(u),
        increasing=False,
        text="misalignment, one minus the correlation",
    ),
}
"""The readings of ``u = rho``."""


@dataclass(frozen=True)
class NormalLaw(Law):
    """``u ~ N(centre, spread^2)`` at every time; a spread of 0 is a certain value.

    Attributes
    ----------
    centre, spread, spread_error:
        Shape (T,): mean and standard deviation of ``u``, and the error of the latter.
    """

    times: Array
    readings: Mapping[str, Reading]
    centre: Array
    spread: Array
    spread_error: Array
    solver: str

    def expectation(self, of: Timed) -> Estimate:
        """``E of(u, t)`` by Gauss and Hermite."""
        return self._with_error(lambda spread: self._moments(of, spread)[0])

    def _deviation(self, of: Timed) -> Estimate:
        return self._with_error(lambda spread: self._moments(of, spread)[1])

    def _moments(self, of: Timed, spread: Array) -> tuple[Array, Array]:
        x, weights = np.polynomial.hermite_e.hermegauss(NODES)
        share = weights / weights.sum()
        places = self.centre[:, None] + spread[:, None] * x
        values = np.array([of(u, float(t)) for u, t in zip(places, self.times, strict=True)])
        mean = values @ share
        return mean, np.sqrt((values - mean[:, None]) ** 2 @ share)

    def _with_error(self, of: Callable[[Array], Array]) -> Estimate:
        best, other = of(self.spread), of(self.spread + self.spread_error)
        return Estimate(best, np.abs(best - other))

    def _quantiles(self, levels: Array) -> tuple[Array, Array]:
        from scipy.special import ndtri

        best, other = (
            self.centre[:, None] + spread[:, None] * ndtri(levels)
            for spread in (self.spread, self.spread + self.spread_error)
        )
        return best, other

    def _below(self, index: int, u: Array) -> Estimate:
        from scipy.special import ndtr

        away = u - self.centre[index]
        if self.spread[index] == 0:
            return Estimate(np.where(away >= 0, 1.0, 0.0), np.zeros(u.shape))
        best = ndtr(away / self.spread[index])
        other = ndtr(away / (self.spread[index] + self.spread_error[index]))
        return Estimate(best, np.abs(best - other))

    def _density(self, index: int, u: Array) -> Array:
        away, spread = u - self.centre[index], self.spread[index]
        if spread == 0:
            return np.where(away == 0, np.inf, 0.0)
        return np.asarray(np.exp(-((away / spread) ** 2) / 2) / (spread * np.sqrt(2 * np.pi)))

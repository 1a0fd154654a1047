"""The output correlation of a shaped layer over networks of real width, from the best engine."""

from __future__ import annotations

from dataclasses import dataclass

from depthscale.finite.bands import CorrelationBand, correlation_band
from depthscale.finite.diffusion.law import LEVELS
from depthscale.practice.shaping.families import Layer
from depthscale.theory.activation import Activation, activation


@dataclass(frozen=True)
class Networks:
    """Networks of one width and depth and the statistic of their output that is asked for.

    ``networks`` and ``seed`` are of what has to be sampled.
    """

    width: int
    depth: int
    eps0: float
    quantile: float | None
    networks: int
    seed: int

    def band(self, psi: Activation, skip: float, seed: int, every: bool = True) -> CorrelationBand:
        """Quantiles by layer; without ``every`` only the one asked for."""
        asked = () if self.quantile is None else (self.quantile,)
        levels = sorted({*LEVELS, *asked}) if every or not asked else asked
        return correlation_band(
            psi,
            self.width,
            self.depth,
            self.eps0,
            sigma_w=1.0,
            sigma_b=0.0,
            q0=1.0,
            skip=skip,
            levels=levels,
            networks=self.networks,
            seed=seed,
        )

    def read(self, band: CorrelationBand, layer: int = -1) -> tuple[float, float]:
        """The statistic at a layer, and its error."""
        if self.quantile is None:
            mean = band.law.mean("rho")
            return float(mean.value[layer]), float(mean.error[layer])
        column = int(abs(band.levels - self.quantile).argmin())
        return float(band.rho[layer, column]), float(band.rho_error[layer, column])

    def statistic(self, layer: Layer) -> float:
        """Of the output of networks of these layers."""
        return self.read(self.band(layer.psi, layer.skip, self.seed, every=False))[0]

    def linear(self, residual: bool) -> float:
        """Of a network without nonlinearity; a residual one then hands its inputs on."""
        band = self.band(activation("identity"), 0.0, self.seed, every=False)
        return self.read(band, 0 if residual else -1)[0]

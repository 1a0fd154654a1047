"""The output correlation of a shaped layer over networks of real width, from the best engine."""

from __future__ import annotations

from dataclasses import dataclass

from depthscale.finite.band import CorrelationBand
from depthscale.finite.bands import LEAST_WIDTH, correlation_band
from depthscale.finite.chain.density import chain_density
from depthscale.finite.chain.plan import Route
from depthscale.finite.diffusion.law import LEVELS, Law
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

    def band(self, psi: Activation, skip: float, seed: int) -> CorrelationBand:
        """Quantiles by layer, the one asked for among them."""
        asked = () if self.quantile is None else (self.quantile,)
        return correlation_band(
            psi,
            self.width,
            self.depth,
            self.eps0,
            sigma_w=1.0,
            sigma_b=0.0,
            q0=1.0,
            skip=skip,
            levels=sorted({*LEVELS, *asked}),
            networks=self.networks,
            seed=seed,
        )

    def read(self, law: Law, index: int = -1) -> tuple[float, float]:
        """The statistic at one of the layers of a law, and its error."""
        if self.quantile is None:
            found = law.mean("rho")
            return float(found.value[index]), float(found.error[index])
        found = law.quantiles([self.quantile], "rho")
        return float(found.value[index, 0]), float(found.error[index, 0])

    def statistic(self, layer: Layer) -> float:
        """Of the output of networks of these layers."""
        return self.read(self._law(layer.psi, layer.skip, self.depth))[0]

    def linear(self, residual: bool) -> float:
        """Of a network without nonlinearity; a residual one then hands its inputs on."""
        law = self._law(activation("identity"), 0.0, 0 if residual else self.depth)
        return self.read(law, 0 if residual else -1)[0]

    def _law(self, psi: Activation, skip: float, layer: int) -> Law:
        """The law up to a layer, which comes last or alone: the band's own, at less cost."""
        if skip == 0 and psi.degree == 1 and self.width >= LEAST_WIDTH:
            route = Route.of(psi, [self.width] * (self.depth + 1), self.eps0, "drawn")
            return chain_density(route, [layer])
        return self.band(psi, skip, self.seed).law

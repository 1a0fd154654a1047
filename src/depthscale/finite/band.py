"""What a band of correlations is: quantiles by layer, where they come from, and their referee."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthscale.finite.diffusion.law import Law
from depthscale.theory.gaussian import Array

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Referee:
    """Exact networks against a band.

    Attributes
    ----------
    layers, distance:
        Where, and the Kolmogorov-Smirnov distance of ``networks`` exact networks there.
    noise:
        The distance that as many networks of the band's own law keep below 19 times out of 20.
    """

    layers: tuple[int, ...]
    distance: tuple[float, ...]
    noise: float
    networks: int

    def __str__(self) -> str:
        pairs = zip(self.layers, self.distance, strict=True)
        found = ", ".join(f"{d:.4f} at layer {layer}" for layer, d in pairs)
        return f"distance to {self.networks} exact networks: {found} (noise {self.noise:.4f})"


@dataclass(frozen=True)
class CorrelationBand:
    """Quantiles of the correlation of a pair over random networks, layer by layer.

    Attributes
    ----------
    layers, levels:
        Layers 0 to L; probabilities.
    rho, rho_error:
        Quantiles of the correlation, shape (layers, levels), and the error of each: of the grid
        and of the expansion in 1/n, or one standard error of samples.
    eps, eps_error:
        ``1 - rho`` of the same, without cancellation: ``eps[:, k]`` belongs to ``rho[:, k]`` and
        falls along the levels.
    widths, activation, sigma_w, sigma_b, drop, q0, eps0, start, measured:
        What was asked for; ``measured`` as in ``correlation_band``.
    engine, why:
        What computed it, and why that, in a sentence.
    law:
        The distribution at every layer, for other questions.
    referee:
        The comparison with exact networks, where it was asked for.
    """

    layers: NDArray[np.int64]
    levels: Array
    rho: Array
    rho_error: Array
    eps: Array
    eps_error: Array
    widths: tuple[int, ...]
    activation: str
    sigma_w: float
    sigma_b: float
    drop: float
    q0: float
    eps0: float
    start: str
    measured: bool
    engine: str
    why: str
    law: Law = field(repr=False)
    referee: Referee | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain: dict[str, Any] = {
            name: getattr(self, name).tolist()
            for name in ("layers", "levels", "rho", "rho_error", "eps", "eps_error")
        }
        for name in _SETTINGS:
            plain[name] = getattr(self, name)
        plain["widths"] = list(self.widths)
        if self.referee is not None:
            plain["referee"] = {
                "layers": list(self.referee.layers),
                "distance": list(self.referee.distance),
                "noise": self.referee.noise,
                "networks": self.referee.networks,
            }
        return plain

    def to_xarray(self) -> xarray.Dataset:
        """The quantiles with dimensions ``layer`` and ``level``."""
        import xarray

        texts = {
            "rho": "quantile of the correlation of the pair",
            "rho_error": "its error",
            "eps": "one minus the quantile of the correlation",
            "eps_error": "its error",
        }
        variables = {
            name: (("layer", "level"), getattr(self, name), {"long_name": text, "units": "1"})
            for name, text in texts.items()
        }
        attributes = {name: getattr(self, name) for name in _SETTINGS}
        attributes["measured"] = int(self.measured)
        return xarray.Dataset(
            variables,
            coords={
                "layer": self.layers,
                "level": self.levels,
                "width": ("layer", list(self.widths)),
            },
            attrs={**attributes, "referee": str(self.referee or "")},
        )

    def __str__(self) -> str:
        """A table of a dozen layers at most."""
        few = sorted({*np.linspace(0, len(self.layers) - 1, 11).round().astype(int).tolist()})
        sizes = sorted(set(self.widths))
        width = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        what = "cosine of the units" if self.measured else "correlation of their covariance"
        lines = [
            f"{self.activation}, width {width}, depth {len(self.widths) - 1}, 1 - rho = "
            f"{self.eps0:g} at layer 0 ({self.start}): {what}",
            f"engine {self.engine}: {self.why}",
            "layer  " + "".join(f"{100 * p:>12g} %" for p in self.levels),
        ]
        for k in few:
            lines.append(
                f"{self.layers[k]:>5}  " + "".join(f"{_short(x):>14}" for x in self.eps[k])
            )
        lines.append(f"largest error of a quantile: {self.rho_error.max():.1g}")
        if self.referee is not None:
            lines.append(str(self.referee))
        return "\n".join(lines)


_SETTINGS = (
    "activation",
    "sigma_w",
    "sigma_b",
    "drop",
    "q0",
    "eps0",
    "start",
    "measured",
    "engine",
    "why",
)


def _short(eps: float) -> str:
    """A correlation, or how far it is from 1 where four digits would not show that."""
    return f"1 - {eps:.3g}" if eps < 1e-3 else f"{1 - eps:.4f}"

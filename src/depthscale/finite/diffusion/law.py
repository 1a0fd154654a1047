r"""The law of a network's signal at given times: means, quantiles, distribution, with their errors.

A ``Law`` answers the same questions whether it came from a density on grids, with numerical errors,
or from sampled paths, with statistical ones. Everything is asked for by the name of a reading (see
``equation``); nothing asked for is computed before.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.finite.diffusion.equation import Reading, Timed
from depthscale.finite.diffusion.grid import Grid
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_numbers

if TYPE_CHECKING:
    import xarray

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles that are given when none are asked for."""


class Estimate(NamedTuple):
    """A value and its error: one standard error of samples, or the estimated error of a grid."""

    value: Array
    error: Array


class Law(ABC):
    """The distribution of the signal at every one of ``times``.

    Attributes
    ----------
    times:
        Shape (T,): the unit is that of the equation (``t = l/n``), or layers for a chain.
    readings:
        What can be read off, by name; the first one is the default.
    solver:
        What computed it and how, in a few words.
    """

    times: Array
    readings: Mapping[str, Reading]
    solver: str

    @property
    def escaped(self) -> Estimate:
        """Probability that the signal has exploded by each time, shape (T,); 0 for most laws.

        Quantiles count what has exploded as ``u = +inf``; means and deviations are those of the
        networks that have not.
        """
        return Estimate(np.zeros(self.times.size), np.zeros(self.times.size))

    @abstractmethod
    def expectation(self, of: Timed) -> Estimate:
        """``E of(u, t)``, shape (T,)."""

    @abstractmethod
    def _deviation(self, of: Timed) -> Estimate:
        """Standard deviation of ``of(u, t)``, shape (T,)."""

    @abstractmethod
    def _quantiles(self, levels: Array) -> tuple[Array, Array]:
        """Two arrays (T, levels) of quantiles of ``u``: the best, and one that tells its error."""

    @abstractmethod
    def _below(self, index: int, u: Array) -> Estimate:
        """``P(coordinate <= u)`` at one time, of the shape of ``u``."""

    @abstractmethod
    def _density(self, index: int, u: Array) -> Array:
        """Probability density of the coordinate at one time."""

    def reading(self, name: str | None = None) -> Reading:
        """A reading by its name, or the first one; ``InputError`` with the names that exist."""
        if name is None:
            return next(iter(self.readings.values()))
        if name not in self.readings:
            names = ", ".join(self.readings)
            raise InputError(f"reading {name!r} is unknown; expected one of {names}")
        return self.readings[name]

    def mean(self, reading: str | None = None) -> Estimate:
        """Mean of a reading, shape (T,)."""
        return self.expectation(self.reading(reading).of)

    def sd(self, reading: str | None = None) -> Estimate:
        """Standard deviation of a reading, shape (T,)."""
        return self._deviation(self.reading(reading).of)

    def quantiles(self, levels: ArrayLike = LEVELS, reading: str | None = None) -> Estimate:
        """Quantiles of a reading, shape (T, levels).

        Raises
        ------
        InputError
            Levels outside (0, 1), or none.
        """
        asked = as_numbers("levels", levels).ravel()
        if not asked.size or not np.all((asked > 0) & (asked < 1)):
            raise InputError(f"levels are {levels!r}; expected probabilities inside (0, 1)")
        how = self.reading(reading)
        best, other = self._quantiles(asked if how.increasing else 1 - asked)
        pairs = list(zip(best, other, self.times, strict=True))
        values = np.array([how.of(u, t) for u, _, t in pairs])
        others = np.array([how.of(v, t) for _, v, t in pairs])
        with np.errstate(invalid="ignore"):
            return Estimate(values, np.where(values == others, 0.0, np.abs(values - others)))

    def cdf(self, x: ArrayLike, reading: str | None = None) -> Estimate:
        """``P(reading <= x)`` for every time and every ``x``, shape (T, x)."""
        how, points = self.reading(reading), as_numbers("x", x).ravel()
        rows = []
        for index, t in enumerate(self.times):
            u = how.inverse(points, float(t))
            if how.increasing:
                rows.append(self._below(index, u))
            else:
                value, error = self._under(index, u)
                rows.append(Estimate(1 - value, error))
        return Estimate(np.array([v for v, _ in rows]), np.array([e for _, e in rows]))

    def pdf(self, x: ArrayLike, reading: str | None = None) -> Array:
        """Probability density of a reading at every time and ``x``, shape (T, x)."""
        how, points = self.reading(reading), as_numbers("x", x).ravel()
        rows = []
        for index, t in enumerate(self.times):
            u = how.inverse(points, float(t))
            inside = np.isfinite(u)
            row = np.zeros(points.size)
            slope = np.abs(how.slope(u[inside], float(t)))
            row[inside] = self._density(index, u[inside]) / slope
            rows.append(row)
        return np.array(rows)

    def distance(self, samples: ArrayLike, index: int, reading: str | None = None) -> float:
        """Kolmogorov-Smirnov distance of samples of a reading to this law at one time.

        Samples of the law itself are nearer than ``1.358/sqrt(N)`` with probability 95 %.
        """
        x = as_numbers("samples", samples).ravel()
        if not x.size or np.isnan(x).any():
            raise InputError("samples are empty or hold NaN: expected numbers")
        u = self.reading(reading).inverse(x, float(self.times[index]))
        places, counts = np.unique(u, return_counts=True)
        steps = np.append(0, np.cumsum(counts)) / x.size
        at, under = self._below(index, places).value, self._under(index, places).value
        return float(max(np.abs(steps[1:] - at).max(), np.abs(under - steps[:-1]).max()))

    def _under(self, index: int, u: Array) -> Estimate:
        """``P(coordinate < u)``: less than ``_below`` where a law has points of its own."""
        value, error = self._below(index, np.minimum(np.nextafter(u, -np.inf), 1e300))
        first = np.isneginf(u)
        return Estimate(np.where(first, 0.0, value), np.where(first, 0.0, error))

    def to_dict(self, reading: str, levels: Sequence[float] = LEVELS) -> dict[str, Any]:
        """Mean, deviation and quantiles of a reading as plain lists, with their errors."""
        mean, sd = self.mean(reading), self.sd(reading)
        quantiles = self.quantiles(levels, reading)
        return {
            "times": self.times.tolist(),
            "mean": mean.value.tolist(),
            "mean_error": mean.error.tolist(),
            "sd": sd.value.tolist(),
            "sd_error": sd.error.tolist(),
            "levels": [float(p) for p in levels],
            "quantiles": quantiles.value.tolist(),
            "quantile_errors": quantiles.error.tolist(),
        }

    def to_xarray(self, levels: Sequence[float] = LEVELS) -> xarray.Dataset:
        """Every reading with dimensions ``time`` and ``level``, and the escaped probability."""
        import xarray

        variables: dict[str, Any] = {"escaped": ("time", self.escaped.value)}
        for name, how in self.readings.items():
            label = {"long_name": how.text, "units": "1"}
            mean, sd, marks = self.mean(name), self.sd(name), self.quantiles(levels, name)
            variables[f"{name}_mean"] = ("time", mean.value, label)
            variables[f"{name}_mean_error"] = ("time", mean.error, label)
            variables[f"{name}_sd"] = ("time", sd.value, label)
            variables[f"{name}_quantiles"] = (("time", "level"), marks.value, label)
            variables[f"{name}_quantile_errors"] = (("time", "level"), marks.error, label)
        return xarray.Dataset(
            variables,
            coords={"time": self.times, "level": list(levels)},
            attrs={"solver": self.solver},
        )


@dataclass(frozen=True)
class DensityLaw(Law):
    """A law on grids, without noise: one grid a time, and one with cells of twice the width.

    What is asked for is computed on both and extrapolated, ``(4 fine - coarse)/3``, since the
    error of both is proportional to the square of the cell; the difference of the extrapolated
    value to the fine one is given as the error, which is on the safe side.

    Attributes
    ----------
    fine, coarse:
        Shape (T,).
    explodes:
        Whether what is missing on the grids has exploded.
    """

    times: Array
    readings: Mapping[str, Reading]
    fine: tuple[Grid, ...]
    coarse: tuple[Grid, ...]
    solver: str
    explodes: bool = False

    @property
    def escaped(self) -> Estimate:
        """What is missing on the grids."""
        if not self.explodes:
            return super().escaped
        return self._extrapolated(lambda grid, _: 1 - grid.total)

    def expectation(self, of: Timed) -> Estimate:
        """``E of(u, t)``, shape (T,); what the ends of the grids add counts as error."""

        def at_ends(grid: Grid, t: float) -> float:
            return grid.at_ends(of(grid.u, t))

        value, error = self._extrapolated(lambda grid, t: grid.expectation(of(grid.u, t)))
        return Estimate(value, error + self._on_fine(at_ends))

    def _deviation(self, of: Timed) -> Estimate:
        def square(grid: Grid, t: float) -> Array:
            values = of(grid.u, t)
            return np.asarray((values - grid.expectation(values)) ** 2)

        def deviation(grid: Grid, t: float) -> float:
            if grid.u.size == 1:
                return 0.0
            return math.sqrt(grid.expectation(square(grid, t)))

        def at_ends(grid: Grid, t: float) -> float:
            sd = deviation(grid, t)
            return grid.at_ends(square(grid, t)) / (2 * sd) if sd > 0 else 0.0

        value, error = self._extrapolated(deviation)
        return Estimate(value, error + self._on_fine(at_ends))

    def _on_fine(self, of: Callable[[Grid, float], float]) -> Array:
        return np.array([of(g, float(t)) for g, t in zip(self.fine, self.times, strict=True)])

    def _extrapolated(self, of: Callable[[Grid, float], float]) -> Estimate:
        fine = self._on_fine(of)
        coarse = np.array([of(g, float(t)) for g, t in zip(self.coarse, self.times, strict=True)])
        apart = np.subtract(fine, coarse, out=np.zeros_like(fine), where=fine != coarse)
        return Estimate(fine + apart / 3, np.abs(apart) / 3)

    def _quantiles(self, levels: Array) -> tuple[Array, Array]:
        fine = np.array([grid.quantiles(levels) for grid in self.fine])
        coarse = np.array([grid.quantiles(levels) for grid in self.coarse])
        both = np.isfinite(fine) & np.isfinite(coarse)
        best = fine.copy()
        best[both] = (4 * fine[both] - coarse[both]) / 3
        return best, fine

    def _below(self, index: int, u: Array) -> Estimate:
        fine, coarse = self.fine[index].below(u), self.coarse[index].below(u)
        return Estimate(np.clip((4 * fine - coarse) / 3, 0.0, 1.0), np.abs(fine - coarse) / 3)

    def _density(self, index: int, u: Array) -> Array:
        fine, coarse = self.fine[index].density(u), self.coarse[index].density(u)
        return np.maximum((4 * fine - coarse) / 3, 0.0) if self.fine[index].u.size > 1 else fine


@dataclass(frozen=True)
class SampleLaw(Law):
    """A law known from independent paths.

    Attributes
    ----------
    u:
        The coordinate, shape (T, paths).
    explodes:
        Whether ``u = inf`` is a path that has exploded; else it is a value like any other, as the
        ``artanh`` of the correlation of two signals that have become one line.
    """

    times: Array
    readings: Mapping[str, Reading]
    u: Array
    solver: str
    explodes: bool = True

    @property
    def escaped(self) -> Estimate:
        """The share of paths that have exploded."""
        if not self.explodes:
            return super().escaped
        gone = np.isposinf(self.u).mean(axis=1)
        return Estimate(gone, np.sqrt(gone * (1 - gone) / self.u.shape[1]))

    def expectation(self, of: Timed) -> Estimate:
        """``E of(u, t)`` over the paths that have not exploded, shape (T,); NaN without any."""
        with np.errstate(invalid="ignore"):  # the mean of inf and -inf
            rows = [
                (x.mean(), _sd(x) / np.sqrt(x.size)) if x.size else (math.nan,) * 2
                for x in self._values(of)
            ]
        return Estimate(np.array([m for m, _ in rows]), np.array([e for _, e in rows]))

    def _deviation(self, of: Timed) -> Estimate:
        rows = []
        for x in self._values(of):
            sd = _sd(x) if x.size else math.nan
            # a deviation of 0 or beyond float64 is what it is
            error = (x - x.mean()) ** 2 / (2 * sd) if 0 < sd < math.inf else np.full(1, sd)
            rows.append((sd, _sd(error) / np.sqrt(max(x.size, 1))))
        return Estimate(np.array([s for s, _ in rows]), np.array([e for _, e in rows]))

    def _values(self, of: Timed) -> list[Array]:
        """The values of what has not exploded, one array a time."""
        kept = [u[~np.isposinf(u)] if self.explodes else u for u in self.u]
        return [of(u, float(t)) for u, t in zip(kept, self.times, strict=True)]

    def _quantiles(self, levels: Array) -> tuple[Array, Array]:
        """Order statistics, and those one standard error of the level away from the median."""
        ordered = np.sort(self.u, axis=1)
        count = ordered.shape[1]
        away = levels + np.where(levels < 0.5, 1, -1) * np.sqrt(levels * (1 - levels) / count)

        def at(where: Array) -> Array:
            index = np.clip(np.ceil(where * count).astype(int) - 1, 0, count - 1)
            return ordered[:, index]

        return at(levels), at(away)

    def _below(self, index: int, u: Array) -> Estimate:
        ordered = np.sort(self.u[index])
        value = np.searchsorted(ordered, u, side="right") / ordered.size
        return Estimate(value, np.sqrt(value * (1 - value) / ordered.size))

    def _density(self, index: int, u: Array) -> Array:
        """A Gaussian kernel estimate with Silverman's width."""
        x = self.u[index][np.isfinite(self.u[index])]
        if not x.size:
            return np.zeros(u.shape)
        quartiles = np.quantile(x, [0.25, 0.75])
        spread = min(float(x.std()), float(quartiles[1] - quartiles[0]) / 1.349)
        width = 0.9 * spread * x.size**-0.2
        if width == 0:
            return np.where(u == x[0], np.inf, 0.0)
        edges = np.linspace(x.min() - 4 * width, x.max() + 4 * width, 2049)
        counts, _ = np.histogram(x, edges)
        centres = (edges[1:] + edges[:-1]) / 2
        kernel = np.exp(-(((u[:, None] - centres) / width) ** 2) / 2)
        return np.asarray(kernel @ counts / (x.size * width * np.sqrt(2 * np.pi)))


def _sd(x: Array) -> float:
    """Standard deviation, 0 of equal values and NaN where some others are infinite."""
    if x.min() == x.max():
        return 0.0
    return float(x.std()) if np.all(np.isfinite(x)) else math.nan

"""What a run of a lattice answers with: every realisation's own values, depth by depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthscale.answers import InputError
from depthscale.finite.columns import Array
from depthscale.finite.lattice.observe import NAMES, OBSERVABLES
from depthscale.theory.records import as_number, whole

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Effective:
    """Effective exponents with standard errors, at the geometric means of pairs of depths."""

    depth: Array
    value: Array
    error: Array


@dataclass(frozen=True)
class LatticeRun:
    """Realisations of a random convolutional network, of which each is one draw of all its weights.

    Attributes:
        values: ``[realisation, depth, observable]``.
        depths: layers that were measured, 0 the start.
        names: the observables, see ``OBSERVABLES``.
        sites: number of positions.
        about: settings of the lattice and of the run.
    """

    values: Array = field(repr=False)
    depths: NDArray[np.int64]
    sites: int
    about: Mapping[str, Any]
    names: tuple[str, ...] = NAMES

    @property
    def realisations(self) -> int:
        """How many."""
        return len(self.values)

    def of(self, name: str) -> Array:
        """Every realisation's own values of one observable, ``[realisation, depth]``.

        Raises:
            InputError: no such observable.
        """
        if name not in self.names:
            raise InputError(f"observable {name!r}: expected one of {', '.join(self.names)}")
        return self.values[..., self.names.index(name)]

    def mean(self, name: str = "rho") -> Array:
        """Means over the realisations in which it exists, ``[depth]``."""
        values, exists = self._existing(name)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(values.sum(0) / exists.sum(0))

    def sd(self, name: str = "rho") -> Array:
        """Standard deviations between realisations, ``[depth]``; NaN where fewer than two exist."""
        values, exists = self._existing(name)
        count = exists.sum(0)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            off = np.where(exists, values - values.sum(0) / count, 0.0)
            return np.asarray(
                np.sqrt(np.square(off).sum(0) / np.where(count > 1, count - 1, np.nan))
            )

    def sem(self, name: str = "rho") -> Array:
        """Standard errors of the means, ``[depth]``."""
        return np.asarray(self.sd(name) / np.sqrt(self._existing(name)[1].sum(0)))

    def survival(self) -> Array:
        """Share of realisations with any active position, ``[depth]``: P(t) of spreading.

        Of those whose values have stayed in the range of floats.
        """
        values, exists = self._existing("active")
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((values > 0).sum(0) / exists.sum(0))

    def active_sites(self) -> Array:
        """Active positions, ``[realisation, depth]``; their mean is N(t) of spreading."""
        return self.of("active") * self.sites

    def effective_exponent(self, name: str = "rho", ratio: float = 2.0) -> Effective:
        """Local slopes ``-d ln mean/d ln depth`` between depths at least ``ratio`` apart.

        Errors are standard ones over whole realisations, whose depths are correlated: that of the
        mean of ``(x_2/m_2 - x_1/m_1)/ln(l_2/l_1)``, which the slope is to first order.

        Raises:
            InputError: a ratio that is not above 1, or no such observable.
        """
        if not as_number("ratio", ratio) > 1:
            raise InputError(f"ratio = {ratio}: expected a number above 1")
        values, depths = self.of(name), self.depths.astype(float)
        rows = []
        with np.errstate(all="ignore"):
            for k in np.flatnonzero(depths > 0).tolist():
                later = np.flatnonzero(depths >= ratio * depths[k] * (1 - 1e-12))
                both = values[:, [k, later[0]]] if len(later) else values[:0, :2]
                both = both[~np.isnan(both).any(axis=1)]
                if len(both) == 0 or not (both.mean(0) > 0).all():
                    continue
                first, last = depths[k], depths[later[0]]
                means, span = both.mean(0), np.log(last / first)
                parts = (both[:, 0] / means[0] - both[:, 1] / means[1]) / span
                error = parts.std(ddof=1) / np.sqrt(len(both)) if len(both) > 1 else np.nan
                rows.append((np.sqrt(first * last), -np.log(means[1] / means[0]) / span, error))
        found = np.array(rows).reshape(-1, 3).T
        return Effective(*found)

    def lyapunov(self, first: int = 0) -> tuple[float, float]:
        """Growth of ``ln |d|`` a layer from depth ``first`` to the last one, and its error.

        The largest Lyapunov exponent where the difference stays infinitesimal: start with a
        misalignment such as 1e-200.

        Raises:
            InputError: ``first`` was not measured, or is the last depth.
        """
        layers = self.depths.tolist()
        if first not in layers[:-1]:
            raise InputError(f"first = {first!r}: expected a depth that was measured, not the last")
        logs = self.of("log_difference")
        growth = (logs[:, -1] - logs[:, layers.index(first)]) / (2 * (layers[-1] - first))
        growth = growth[np.isfinite(growth)]
        if not len(growth):
            return math.nan, math.nan
        error = growth.std(ddof=1) / math.sqrt(len(growth)) if len(growth) > 1 else math.nan
        return float(growth.mean()), float(error)

    def blocks(self, count: int, name: str = "rho") -> Array:
        """Means over ``count`` groups of whole realisations, ``[group, depth]``.

        Raises:
            InputError: fewer realisations than groups.
        """
        count = whole("count", count, 1, "groups")
        if count > self.realisations:
            raise InputError(
                f"{count} groups of {self.realisations} realisations; expected at most as many"
            )
        parts = np.array_split(self.of(name), count)
        return np.stack([part.mean(0) for part in parts])

    def to_xarray(self) -> xarray.Dataset:
        """All values by name, with dimensions realisation and depth."""
        import xarray as xr

        dims = ("realisation", "depth")
        data = {
            name: (dims, self.of(name), {"long_name": OBSERVABLES[name]}) for name in self.names
        }
        attributes = {k: v for k, v in self.about.items() if v is not None}
        for key, value in attributes.items():
            if isinstance(value, bool | tuple):
                attributes[key] = str(value)
        coordinates = {"realisation": np.arange(self.realisations), "depth": self.depths}
        return xr.Dataset(data, coordinates, attributes)

    def table(self, names: Sequence[str] = ("rho",)) -> pandas.DataFrame:
        """Long form, one row for each realisation and depth, as ``collapse`` takes it.

        Columns are depth, sigma_w, size, realisation and the observables. The start is left out:
        powers of the depth have no value there.
        """
        import pandas as pd

        behind = self.depths > 0
        depths, rows = self.depths[behind], self.realisations
        count = len(depths) * rows
        frame = {
            "depth": np.tile(depths, rows),
            "sigma_w": np.full(count, self.about["sigma_w"]),
            "size": np.full(count, self.about["size"][0]),
            "realisation": np.repeat(np.arange(rows), len(depths)),
        }
        return pd.DataFrame(frame | {name: self.of(name)[:, behind].ravel() for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Means, errors and scatter by depth as plain lists; None where a number does not exist."""
        record: dict[str, Any] = {"settings": dict(self.about), "realisations": self.realisations}
        record["depth"] = self.depths.tolist()
        for name in ("rho", "log_rho", "local", "active", "inhomogeneity"):
            record[name] = _numbers(self.mean(name))
            record[f"{name}_error"] = _numbers(self.sem(name))
        with np.errstate(invalid="ignore", divide="ignore"):
            record["relative_sd"] = _numbers(self.sd("rho") / self.mean("rho"))
        record["rho_median"] = _numbers(np.median(self.of("rho"), axis=0))
        found = self.effective_exponent()
        record["effective_exponent"] = {
            "depth": _numbers(found.depth),
            "value": _numbers(found.value),
            "error": _numbers(found.error),
        }
        if self.about["start"] == "site":
            record["survival"] = _numbers(self.survival())
            share = self.survival()
            with np.errstate(divide="ignore", invalid="ignore"):
                count = self._existing("active")[1].sum(0)
                record["survival_error"] = _numbers(np.sqrt(share * (1 - share) / count))
            record["active_sites"] = _numbers(self.mean("active") * self.sites)
            record["active_sites_error"] = _numbers(self.sem("active") * self.sites)
            record["spread"] = _numbers(self.mean("spread"))
            record["spread_error"] = _numbers(self.sem("spread"))
        return record

    def plot(self, target: str | Path | None = None) -> Figure:
        """Draw it; write .svg, .png or .pdf where a target is given."""
        from depthscale.report.lattices import plot_lattices

        return plot_lattices([self.to_dict()], target)

    def __str__(self) -> str:
        from depthscale.report.lattice_summaries import render_lattice

        return render_lattice(self.to_dict())

    def _existing(self, name: str) -> tuple[Array, NDArray[np.bool_]]:
        values = self.of(name)
        exists = ~np.isnan(values)
        return np.where(exists, values, 0.0), exists


def _numbers(values: Array) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]

"""What a run of a lattice answers with: every realisation's own values, depth by depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthscale.answers import InputError
from depthscale.finite.columns import Array
from depthscale.finite.lattice.observe import NAMES, OBSERVABLES
from depthscale.theory.records import whole

if TYPE_CHECKING:
    import pandas
    import xarray


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
            return np.asarray(np.sqrt(np.square(off).sum(0) / np.where(count > 1, count - 1, np.nan)))

    def sem(self, name: str = "rho") -> Array:
        """Standard errors of the means, ``[depth]``."""
        return np.asarray(self.sd(name) / np.sqrt(self._existing(name)[1].sum(0)))

    def survival(self) -> Array:
        """Share of realisations with any active position, ``[depth]``: P(t) of spreading."""
        return np.asarray((self.of("active") > 0).mean(0))

    def active_sites(self) -> Array:
        """Active positions, ``[realisation, depth]``; their mean is N(t) of spreading."""
        return self.of("active") * self.sites

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

    def table(self, names: tuple[str, ...] = ("rho",)) -> pandas.DataFrame:
        """Long form: depth, sigma_w, size, realisation and the observables, one row a value."""
        import pandas as pd

        layers, rows = len(self.depths), self.realisations
        frame = {
            "depth": np.tile(self.depths, rows),
            "sigma_w": np.full(layers * rows, self.about["sigma_w"]),
            "size": np.full(layers * rows, self.about["size"][0]),
            "realisation": np.repeat(np.arange(rows), layers),
        }
        return pd.DataFrame(frame | {name: self.of(name).ravel() for name in names})

    def _existing(self, name: str) -> tuple[Array, NDArray[np.bool_]]:
        values = self.of(name)
        exists = ~np.isnan(values)
        return np.where(exists, values, 0.0), exists

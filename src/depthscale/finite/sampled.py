"""What a run of an ensemble answers with: statistics over networks, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.finite.columns import Array
from depthscale.finite.observe import OBSERVABLES, Signed
from depthscale.finite.signed import plain
from depthscale.finite.streaming import Tally

if TYPE_CHECKING:
    import xarray

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
MOMENTS = (
    "count",
    "mean",
    "sem",
    "log_abs_mean",
    "mean_log",
    "sem_mean_log",
    "var_log",
    "sem_var_log",
)


@dataclass(frozen=True)
class Sampled:
    """Statistics of random networks.

    Observables are those of ``OBSERVABLES``; cells are ``[input or pair, layer or hop]``. A network
    in which a quantity does not exist (a dead one has no ``eps``) is left out of its statistics.

    Attributes:
        tally: moments and quantile sketches.
        trajectories: where they were kept, every network's values as ``(sign, log_abs)``, each
            ``[net, *cell]``.
        widths: units of the L + 1 layers.
        inputs: number of inputs.
        pairs: the pairs of inputs that were followed.
        to_start: whether ``delta`` reaches layer 0.
        about: activation, loss, seed and how it was computed.
    """

    tally: Tally = field(repr=False)
    trajectories: Mapping[str, Signed] | None = field(repr=False)
    widths: tuple[int, ...]
    inputs: int
    pairs: tuple[tuple[int, int], ...]
    to_start: bool
    about: Mapping[str, Any]

    @property
    def nets(self) -> int:
        """Number of networks."""
        return self.tally.nets

    @property
    def depth(self) -> int:
        """Number of weight layers."""
        return len(self.widths) - 1

    @property
    def names(self) -> tuple[str, ...]:
        """The observables that were followed."""
        return tuple(name for name in OBSERVABLES if name in self.tally.shapes)

    def statistic(self, name: str, statistic: str) -> Array:
        """One statistic of one observable over the networks, an array of its cells.

        Args:
            name: an observable.
            statistic: "count" (networks in which it exists), "mean" and its standard error "sem",
                "log_abs_mean" (finite where the mean overflows), "mean_log" and "var_log" of the
                logarithm of the absolute value with "sem_mean_log" and "sem_var_log", or a quantile
                "q05", "q25", "median", "q75", "q95" (within 0.5 % of an order statistic).

        Raises:
            InputError: a name that is not there.
        """
        self._check(name)
        if statistic in QUANTILES:
            return self.tally.sketch(name).quantile(QUANTILES[statistic])
        if statistic not in MOMENTS:
            raise InputError(
                f"statistic is {statistic!r}; expected one of {', '.join([*MOMENTS, *QUANTILES])}"
            )
        return np.asarray(getattr(self.tally.moments(name), statistic), dtype=float)

    def mean(self, name: str) -> Array:
        """Means over the networks, see ``statistic``."""
        return self.statistic(name, "mean")

    def sem(self, name: str) -> Array:
        """Standard errors of the means, see ``statistic``."""
        return self.statistic(name, "sem")

    def values(self, name: str) -> Array:
        """Every network's own values ``[net, *cell]``; NaN where the quantity does not exist.

        Raises:
            InputError: they were not kept.
        """
        self._check(name)
        if self.trajectories is None:
            raise InputError("the networks' own values were not kept: run with keep=True")
        return plain(*self.trajectories[name])

    def lyapunov(self, first: int = 0, pair: int = 0) -> tuple[Quantity, Quantity]:
        """Growth of a small difference of two signals, ``ln |h_a - h_b|`` a layer, and its error.

        Mean over the networks of ``ln(|d^L|/|d^first|)/(L - first)``. It is the largest Lyapunov
        exponent of the layers' products where the difference stays infinitesimal: start with a
        small ``eps``, equal masks, and leave out the first layers, in which the direction turns.

        Args:
            first: layer to start from.
            pair: which of the pairs.

        Returns:
            ``Undefined`` with the reason where differences are not small at the end, or without
            the networks' own values.
        """
        if self.trajectories is None:
            raise InputError("the networks' own values were not kept: run with keep=True")
        if not 0 <= first < self.depth:
            raise InputError(f"first = {first}: expected a layer from 0 to {self.depth - 1}")
        eps = self.statistic("eps", "q95")[pair, -1]
        if not eps < 1e-6:
            reason = (
                f"the two signals are not close at the end (misalignment {eps:.3g}): start from a"
                " smaller eps, with masks='shared' or without dropout"
            )
            return Undefined(reason), Undefined(reason)
        sign, log = self.trajectories["separation"]
        there = (sign[:, pair, first] == 1) & (sign[:, pair, -1] == 1)
        growth = (log[there, pair, -1] - log[there, pair, first]) / 2 / (self.depth - first)
        if len(growth) < 2:
            reason = f"only {len(growth)} networks have a difference that lasts to the end"
            return Undefined(reason), Undefined(reason)
        return float(growth.mean()), float(growth.std(ddof=1) / np.sqrt(len(growth)))

    def to_xarray(self) -> xarray.Dataset:
        """All statistics as a Dataset: dimensions ``statistic`` and the observable's cells.

        With ``keep=True`` also every network's values, as ``<name>_net``.
        """
        import xarray

        statistics = [*MOMENTS, *QUANTILES]
        variables: dict[str, Any] = {}
        for name in self.names:
            about = OBSERVABLES[name]
            dims = self._dims(name)
            units = {"long_name": about.text, "units": "1"}
            values = np.array([self.statistic(name, statistic) for statistic in statistics])
            variables[name] = (("statistic", *dims), values, units)
            if self.trajectories is not None:
                variables[f"{name}_net"] = (("net", *dims), self.values(name), units)
        coordinates: dict[str, Any] = {
            "statistic": statistics,
            "layer": np.arange(self.depth + 1),
            "width": ("layer", list(self.widths)),
            "hop": np.arange(self.depth),
            "input": np.arange(self.inputs),
            "pair": np.arange(len(self.pairs)),
            "first": ("pair", [a for a, _ in self.pairs]),
            "second": ("pair", [b for _, b in self.pairs]),
        }
        if "delta_aa" in self.names:
            coordinates["delta_layer"] = np.arange(0 if self.to_start else 1, self.depth + 1)
        if self.trajectories is not None:
            coordinates["net"] = np.arange(self.nets)
        return xarray.Dataset(
            variables, coords=coordinates, attrs={**self.about, "nets": self.nets}
        )

    def _dims(self, name: str) -> tuple[str, str]:
        cell, along = OBSERVABLES[name].dims
        return cell, "delta_layer" if name.startswith("delta") else along

    def _check(self, name: str) -> None:
        if name not in self.tally.shapes:
            raise InputError(f"{name!r} was not followed: there is {', '.join(self.names)}")

    def __str__(self) -> str:
        """Medians with the 5 to 95 % band, at both ends of each observable."""
        about = ", ".join(f"{key} {value}" for key, value in self.about.items() if value != "")
        lines = [f"{self.nets} random networks of depth {self.depth}: {about}"]
        for name in self.names:
            low, middle, high = (self.statistic(name, s)[0] for s in ("q05", "median", "q95"))
            ends = [
                f"{middle[k]:.4g} ({low[k]:.4g} to {high[k]:.4g})" for k in sorted({0, -1}, key=abs)
            ]
            lines.append(f"{name:>18}  {' -> '.join(ends):<60}  {OBSERVABLES[name].text}")
        return "\n".join(lines)

    def __getitem__(self, name: str) -> xarray.DataArray:
        """One observable as a DataArray."""
        self._check(name)
        return self.to_xarray()[name]

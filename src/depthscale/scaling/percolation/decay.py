"""How activity decays on a periodic lattice that is full of it at first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.scaling.percolation.automata import Automaton, edge
from depthscale.scaling.percolation.blocks import Times, counts, realised, whole_times
from depthscale.scaling.percolation.coins import BITS
from depthscale.scaling.percolation.dense import (
    AT_ONCE,
    MOST_BLOCKS,
    Observed,
    Start,
    histories,
    same_steps,
)
from depthscale.theory.gaussian import Array
from depthscale.theory.records import whole

if TYPE_CHECKING:
    import xarray

_MOST_SITES = 2**26
"""Sites of a lattice: 64 realisations of them and their random bits take 2 GB."""


@dataclass(frozen=True)
class Decay:
    """Densities of every realisation.

    Attributes
    ----------
    automaton, length:
        The model and the edge of its lattice.
    times:
        Steps, ``[time]``.
    density:
        Of what is observed, a site, ``[realisation, time]``.
    observed:
        ``"active"`` sites or ``"walls"`` between active and inactive ones.
    start, seed:
        The state at time 0 and the seed.
    weather:
        The other model of disorder in time. 64 realisations share it, so that errors are those of
        ``blocks(64)``.
    """

    automaton: Automaton
    length: int
    times: Times
    density: Array = field(repr=False)
    observed: Observed
    start: Start
    seed: int
    weather: Automaton | None = None

    @property
    def realisations(self) -> int:
        """How many."""
        return len(self.density)

    @property
    def mean(self) -> Array:
        """Over realisations, ``[time]``."""
        return np.asarray(self.density.mean(axis=0))

    @property
    def error(self) -> Array:
        """Standard error of the mean, ``[time]``; errors at different times are correlated."""
        if self.realisations < 2:
            return np.full(len(self.times), np.nan)
        return np.asarray(self.density.std(axis=0, ddof=1) / math.sqrt(self.realisations))

    def blocks(self, size: int) -> Decay:
        """The same with means of ``size`` realisations in place of realisations.

        Raises
        ------
        InputError
            A size that does not divide the number of realisations.
        """
        size = whole("size", size, 1, "realisations")
        if self.realisations % size:
            raise InputError(
                f"size = {size} does not divide {self.realisations} realisations; expected one that"
                " does"
            )
        means = self.density.reshape(-1, size, len(self.times)).mean(axis=1)
        return replace(self, density=means)

    def table(self) -> dict[str, Array]:
        """One row for each realisation and time: columns ``t, L, p, rho, realisation``."""
        return joined([self])

    def to_xarray(self) -> xarray.Dataset:
        """The densities with dimensions ``realisation`` and ``time``."""
        import xarray

        text = {"long_name": f"density of {self.observed}", "units": "1"}
        return xarray.Dataset(
            {"density": (("realisation", "time"), self.density, text)},
            coords={"time": ("time", self.times, {"units": "steps"})},
            attrs={
                "model": self.automaton.name,
                "chances": self.automaton.chances,
                "length": self.length,
                "start": self.start,
                "seed": self.seed,
                **({} if self.weather is None else {"weather": self.weather.chances}),
            },
        )

    def __str__(self) -> str:
        """The mean density at a dozen times at most."""
        few = np.unique(np.linspace(0, len(self.times) - 1, 12).round().astype(int))
        other = "" if self.weather is None else f" or {self.weather.p:g}, the same for all sites"
        lines = [
            f"{self.automaton.name}, p = {self.automaton.p:g}{other}, L = {self.length},"
            f" {self.realisations} realisations from a {self.start} lattice",
            f"{'time':>10}  density of {self.observed}",
        ]
        lines += [f"{self.times[k]:>10}  {self.mean[k]:.6g} +- {self.error[k]:.2g}" for k in few]
        return "\n".join(lines)


def decay(
    automaton: Automaton,
    length: int,
    times: ArrayLike,
    realisations: int = 64,
    seed: int = 0,
    *,
    start: Start = "full",
    observed: Observed = "active",
    weather: Automaton | None = None,
    workers: int = 1,
    progress: bool | None = None,
) -> Decay:
    """Simulate ``automaton`` on a periodic lattice of edge ``length``.

    Realisations come in blocks of 64, block k from the seed sequence ``(seed, k)``: fewer
    realisations are the first of more, and workers change nothing. Runs at other ``p`` or lengths
    need seeds of their own to be independent.

    Parameters
    ----------
    automaton:
        As of ``directed_percolation`` or ``domany_kinzel``.
    length:
        Sites along an edge, at least 2.
    times:
        Whole steps at which the density is kept, ascending; 0 is the start.
    realisations, seed:
        How many, and a whole number.
    start:
        ``"full"``: every site active; ``"half"``: each with probability 1/2.
    observed:
        ``"active"`` sites, or in 1+1 dimensions ``"walls"``: neighbours that differ.
    weather:
        Another model on the same lattice, for disorder in time: with probability 1/2 a step follows
        it instead, all sites at once, and so do all 64 realisations of a block, whose mean
        (``blocks(64)``) is then one realisation of the weather.
    workers:
        Processes.
    progress:
        Whether to show it; None: on a terminal.

    Raises
    ------
    InputError
        Times out of order, a lattice of more than 2^26 sites, walls in 2+1 dimensions, numbers
        that are none.

    Examples
    --------
    >>> from depthscale.scaling.percolation import decay, directed_percolation
    >>> run = decay(directed_percolation(), 1024, [1, 16, 256], realisations=64, seed=1)
    >>> run.density.shape
    (64, 3)
    >>> (run.mean * run.times**0.159464).round(1).tolist()  # flat: the critical decay
    [0.9, 0.9, 0.9]
    """
    if not isinstance(automaton, Automaton):
        raise InputError(
            f"automaton is {automaton!r}; expected a model such as directed_percolation()"
        )
    length, steps = edge(length), whole_times(times)
    realisations, seed, workers = counts(realisations, seed, workers)
    if start not in get_args(Start) or observed not in get_args(Observed):
        raise InputError(
            f"start = {start!r}, observed = {observed!r}: expected one of"
            f" {', '.join(get_args(Start))} and one of {', '.join(get_args(Observed))}"
        )
    if observed == "walls" and automaton.dimension != 1:
        raise InputError("walls are counted in 1+1 dimensions only; observe 'active' sites")
    if weather is not None:
        _check_weather(automaton, weather)
    sites = automaton.sites(length)
    if sites > _MOST_SITES:
        raise InputError(f"length = {length}: {sites:.3g} sites; expected at most {_MOST_SITES}")
    density = realised(
        partial(
            histories,
            automaton=automaton,
            length=length,
            times=steps,
            start=start,
            observed=observed,
            weather=weather,
        ),
        BITS,
        realisations,
        seed,
        together=max(1, min(MOST_BLOCKS, AT_ONCE // sites)),
        workers=workers,
        progress=progress,
        label="Realisations",
    )
    return Decay(automaton, length, steps, density, observed, start, seed, weather)


def _check_weather(automaton: Automaton, weather: Automaton) -> None:
    """Two models whose steps can take turns."""
    alike = isinstance(weather, Automaton) and weather.lattice == automaton.lattice
    if not alike or not same_steps(automaton.chances, weather.chances):
        raise InputError(
            f"weather is {weather!r}; expected a model of the same lattice as {automaton.name}"
            " whose chances are equal, and 0, for the same numbers of active parents"
        )


def joined(runs: Sequence[Decay]) -> dict[str, Array]:
    """Long-form columns ``t, L, p, rho, realisation`` of several runs, for a collapse.

    ``p`` is the chance with one active parent; realisations are numbered through all runs.

    Raises
    ------
    InputError
        No run at all.
    """
    if not runs:
        raise InputError("no run was given; expected at least one")
    columns: dict[str, list[Array]] = {name: [] for name in ("t", "L", "p", "rho", "realisation")}
    first = 0
    for run in runs:
        number, times = run.density.shape
        columns["t"].append(np.tile(run.times.astype(float), number))
        columns["L"].append(np.full(number * times, float(run.length)))
        columns["p"].append(np.full(number * times, run.automaton.p))
        columns["rho"].append(run.density.ravel())
        columns["realisation"].append(np.repeat(np.arange(first, first + number), times))
        first += number
    return {name: np.concatenate(parts) for name, parts in columns.items()}

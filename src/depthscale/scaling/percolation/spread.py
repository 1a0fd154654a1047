"""How activity spreads from one site of an empty lattice, which is as large as need be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import SFC64, Generator, SeedSequence
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError
from depthscale.scaling.percolation.automata import Automaton
from depthscale.scaling.percolation.blocks import Times, counts, realised, whole_times
from depthscale.theory.gaussian import Array

if TYPE_CHECKING:
    import xarray

BLOCK = 512
"""Realisations that are followed together. A part of what a seed means."""

_MOST_ACTIVE = 2**25
"""Active sites of a block: sorting them and their children takes 1.5 GB."""


@dataclass(frozen=True)
class Spread:
    """Activity of every realisation.

    Attributes
    ----------
    automaton, seed:
        The model and the seed.
    times:
        Steps, ``[time]``.
    number:
        Active sites, ``[realisation, time]``.
    square:
        Sum over active sites of their squared distance from the first, in lattice spacings.
    """

    automaton: Automaton
    times: Times
    number: Array = field(repr=False)
    square: Array = field(repr=False)
    seed: int

    @property
    def realisations(self) -> int:
        """How many."""
        return len(self.number)

    @property
    def survival(self) -> tuple[Array, Array]:
        """Share of realisations with activity, ``P ~ t^-delta``, and its standard error."""
        return _mean(self.number > 0)

    @property
    def activity(self) -> tuple[Array, Array]:
        """Mean number of active sites, dead realisations included, ``N ~ t^theta``, its error."""
        return _mean(self.number)

    @property
    def distance(self) -> tuple[Array, Array]:
        """Mean square distance of active sites, ``R^2 ~ t^(2/z)``, its error; NaN where none is.

        A ratio of two means; its error is that of ``square - R^2 number``.
        """
        total = self.number.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(total > 0, self.square.sum(axis=0) / total, np.nan)
            rest = (self.square - ratio * self.number).std(axis=0)
            error = rest * math.sqrt(self.realisations) / total
        return ratio, np.where(total > 0, error, np.nan)

    def table(self) -> dict[str, Array]:
        """One row for each realisation and time: ``t, p, alive, N, square, realisation``."""
        number, times = self.number.shape
        return {
            "t": np.tile(self.times.astype(float), number),
            "p": np.full(number * times, self.automaton.p),
            "alive": (self.number > 0).ravel().astype(float),
            "N": self.number.ravel(),
            "square": self.square.ravel(),
            "realisation": np.repeat(np.arange(number), times),
        }

    def to_xarray(self) -> xarray.Dataset:
        """Both quantities with dimensions ``realisation`` and ``time``."""
        import xarray

        dims = ("realisation", "time")
        return xarray.Dataset(
            {
                "number": (dims, self.number, {"long_name": "active sites", "units": "1"}),
                "square": (
                    dims,
                    self.square,
                    {"long_name": "sum of squared distances", "units": "spacing^2"},
                ),
            },
            coords={"time": ("time", self.times, {"units": "steps"})},
            attrs={
                "model": self.automaton.name,
                "chances": self.automaton.chances,
                "seed": self.seed,
            },
        )

    def __str__(self) -> str:
        """Survival, number and distance at a dozen times at most."""
        few = np.unique(np.linspace(0, len(self.times) - 1, 12).round().astype(int))
        columns = [self.survival, self.activity, self.distance]
        lines = [
            f"{self.automaton.name}, p = {self.automaton.p:g}, {self.realisations} realisations"
            " from one site",
            f"{'time':>10}  {'survival':>22}  {'active sites':>22}  {'square distance':>22}",
        ]
        for k in few:
            texts = [f"{value[k]:.5g} +- {error[k]:.2g}" for value, error in columns]
            lines.append(f"{self.times[k]:>10}  " + "  ".join(f"{text:>22}" for text in texts))
        return "\n".join(lines)


def spread(
    automaton: Automaton,
    times: ArrayLike,
    realisations: int = BLOCK,
    seed: int = 0,
    *,
    workers: int = 1,
    progress: bool | None = None,
) -> Spread:
    """Follow ``automaton`` from a single active site of an infinite lattice.

    Active sites are kept as a sorted list, so that the work is that of the activity and not of its
    light cone. Realisations come in blocks of 512, block k from the seed sequence ``(seed, k)``.

    Parameters
    ----------
    automaton:
        As of ``directed_percolation`` or ``domany_kinzel``.
    times:
        Whole steps, ascending; 0 is the start.
    realisations, seed:
        How many, and a whole number.
    workers:
        Processes.
    progress:
        Whether to show it; None: on a terminal.

    Raises
    ------
    InputError
        Times out of order, more than 3e7 active sites in a block, numbers that are none.

    Examples
    --------
    >>> from depthscale.scaling.percolation import directed_percolation, spread
    >>> run = spread(directed_percolation(1.0), [0, 10], realisations=2)
    >>> run.number.tolist()  # all of the light cone
    [[1.0, 11.0], [1.0, 11.0]]
    """
    if not isinstance(automaton, Automaton):
        raise InputError(
            f"automaton is {automaton!r}; expected a model such as directed_percolation()"
        )
    steps = whole_times(times)
    realisations, seed, workers = counts(realisations, seed, workers)
    if BLOCK * (float(steps[-1]) + 1) ** automaton.dimension > 2.0**62:
        raise InputError(f"the last of times is {steps[-1]}: places do not fit into 64 bits")
    found = realised(
        partial(_blocks, automaton=automaton, times=steps),
        BLOCK,
        realisations,
        seed,
        together=1,
        workers=workers,
        progress=progress,
        label="Realisations",
    )
    return Spread(automaton, steps, found[:, 0], found[:, 1], seed)


def _blocks(seeds: Sequence[SeedSequence], automaton: Automaton, times: Times) -> Array:
    return np.concatenate([_block(seed, automaton, times) for seed in seeds])


def _block(seed: SeedSequence, automaton: Automaton, times: Times) -> Array:
    """Numbers and squares of one block, ``[realisation, 2, time]``.

    A site is one whole number: its realisation, then its place in a box that the light cone just
    fills at the last time.
    """
    generator = Generator(SFC64(seed))
    box = (int(times[-1]) + 1,) * automaton.dimension
    cells = math.prod(box)
    strides = [box[0] ** k for k in range(automaton.dimension)][::-1]
    # children lie where parents do, mirrored, which changes no distance
    shifts = [int(np.dot(offset, strides)) for offset in automaton.geometry.offsets]
    chances = np.array([0.0, *automaton.chances])
    sites = np.arange(BLOCK) * cells
    found = np.zeros((BLOCK, 2, len(times)))
    time = 0
    for k, until in enumerate(times.tolist()):
        while time < until and sites.size:
            sites = _next(sites, shifts, chances, generator)
            time += 1
        if not sites.size:
            break
        realisation, place = np.divmod(sites, cells)
        squares = _squares(np.stack(np.unravel_index(place, box)), time, automaton)
        found[:, 0, k] = np.bincount(realisation, minlength=BLOCK)
        found[:, 1, k] = np.bincount(realisation, weights=squares, minlength=BLOCK)
    return found


def _next(
    sites: NDArray[np.int64], shifts: Sequence[int], chances: Array, generator: Generator
) -> NDArray[np.int64]:
    """The active sites of the next step, in ascending order."""
    if sites.size > _MOST_ACTIVE:
        raise InputError(
            f"more than {_MOST_ACTIVE} active sites in {BLOCK} realisations: this is far above the"
            " threshold; ask for earlier times, or for decay on a periodic lattice"
        )
    children = np.concatenate([sites + shift for shift in shifts])
    children.sort()
    first = np.flatnonzero(np.diff(children, prepend=-1))
    parents = np.diff(first, append=children.size)
    return children[first[generator.random(first.size) < chances[parents]]]


def _squares(places: NDArray[np.int64], time: int, automaton: Automaton) -> Array:
    """Squared distances, ``[site]``: the mean offset of each step is no displacement."""
    drift = np.mean(automaton.geometry.offsets, axis=0) * time
    away = places - drift[:, None]
    return np.asarray(np.einsum("is,ij,js->s", away, np.array(automaton.geometry.metric), away))


def _mean(values: Array | NDArray[np.bool_]) -> tuple[Array, Array]:
    mean = np.asarray(values.mean(axis=0))
    return mean, np.asarray(values.std(axis=0) / math.sqrt(len(values)))

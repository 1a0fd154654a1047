"""The contact process on a complete graph: mean-field directed percolation of finite size.

Each of ``n`` active sites of ``N`` becomes inactive at rate 1 and activates a site chosen at random
at rate ``rate``: a birth-death process, whose master equation is solved to rounding. At the
critical rate 1 its density obeys ``rho = N^-1/2 F(t/N^1/2)``, for its noise is the root of the
density.
"""

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
from depthscale.scaling.percolation.blocks import counts, realised
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number, as_numbers, whole

if TYPE_CHECKING:
    import xarray

BLOCK = 256
"""Realisations that are simulated together. A part of what a seed means."""

_NODES = 28
"""Of the contour in the upper half plane: it converges as ``2.85^-nodes``, to 2e-13."""

_AGREEMENT = 1e-10
"""Of two contours, below which the one with more nodes is taken."""

_JUMPS, _TERMS = 64, 150
"""Mean number of jumps that are summed at a time, and of terms of their Poisson law, to 1e-18."""

_FEW = 2000
"""Jumps that are sooner summed than a contour is tried."""

_NOTHING = 1e-18
"""Probability of states that are left out."""

_MOST_SITES = 10**6


@dataclass(frozen=True)
class ContactProcess:
    """The process with this rate of activation on so many sites.

    Parameters
    ----------
    rate:
        Of activation by each active site, > 0; 1 is critical in the limit of many sites.
    sites:
        ``N``, at least 1, at most 1e6.

    Raises
    ------
    InputError
        A rate that is not positive and finite, a number of sites out of range.

    Examples
    --------
    >>> process = ContactProcess(rate=1.0, sites=10_000)
    >>> process.density([10.0]).round(3)  # 1/(1 + t) in the limit of many sites
    array([0.091])
    """

    rate: float
    sites: int

    def __post_init__(self) -> None:
        rate = as_number("rate", self.rate)
        if not (math.isfinite(rate) and rate > 0):
            raise InputError(f"rate is {self.rate!r}; expected a positive number")
        sites = whole("sites", self.sites, 1)
        if sites > _MOST_SITES:
            raise InputError(f"sites = {sites}: expected at most {_MOST_SITES}")
        object.__setattr__(self, "rate", rate)
        object.__setattr__(self, "sites", sites)

    def probabilities(self, times: ArrayLike, active: int | None = None) -> Array:
        """Probability of n active sites, ``[time, n]``, n = 0 .. N; absolute error about 1e-10.

        From ``active`` active sites at time 0; None: all. Takes seconds at N = 1e4.

        Raises
        ------
        InputError
            Times out of order, negative or infinite, a number of active sites that is none of
            1 .. N.
        """
        steps = _ascending(times)
        state = np.zeros(self.sites)
        state[self._first(active) - 1] = 1.0
        found = np.empty((len(steps), self.sites + 1))
        for row, duration in zip(found, np.diff(steps, prepend=0.0), strict=True):
            state = self._later(state, duration)
            row[1:], row[0] = state, max(1 - state.sum(), 0.0)
        return found

    def density(self, times: ArrayLike, active: int | None = None) -> Array:
        """Mean share of active sites, ``[time]``; arguments as of ``probabilities``."""
        shares = np.arange(self.sites + 1) / self.sites
        return np.asarray(self.probabilities(times, active) @ shares)

    def survival(self, times: ArrayLike, active: int | None = None) -> Array:
        """Probability that some site is active, ``[time]``; arguments as of ``probabilities``."""
        return np.asarray(1 - self.probabilities(times, active)[:, 0])

    def _first(self, active: int | None) -> int:
        first = self.sites if active is None else whole("active", active, 1, "sites")
        if first > self.sites:
            raise InputError(f"active = {first} of {self.sites} sites; expected at most all")
        return first

    def _rates(self, number: NDArray[np.int64]) -> tuple[Array, Array]:
        """Of activation and of inactivation, with so many active sites."""
        return self.rate * number * (1 - number / self.sites), number.astype(float)

    def _later(self, state: Array, duration: float) -> Array:
        """Probabilities of 1 .. N active sites after some time.

        A contour does it at once unless the state travels far against its width in that time, which
        two contours tell by their difference; then jump after jump is summed.
        """
        if self._jump_rate(1, self.sites) * duration > _FEW:
            rough, fine = (self._contour(state, duration, n) for n in (_NODES - 4, _NODES))
            if np.abs(fine - rough).max() < _AGREEMENT:
                return np.clip(fine, 0, 1)
        while duration > 0:
            state, duration = self._some_jumps(state, duration)
        return state

    def _jump_rate(self, low: int, high: int) -> float:
        """The largest rate at which low .. high active sites are left."""
        up, down = self._rates(np.arange(low, high + 1))
        return float((up + down).max())

    def _contour(self, state: Array, duration: float, nodes: int) -> Array:
        """``e^(Qt) = int e^(zt) (z - Q)^-1 dz/(2 pi i)`` along a parabola, tridiagonal systems all.

        Nodes of Weideman and Trefethen, Math. Comp. 76 (2007) 1341.
        """
        from scipy.linalg import solve_banded

        up, down = self._rates(np.arange(1, self.sites + 1))
        bands = np.zeros((3, self.sites), dtype=complex)
        bands[0, 1:], bands[2, :-1] = -down[1:], -up[:-1]
        step, size = 3 / nodes, math.pi * nodes / 12
        total = np.zeros(self.sites)
        for k in range(nodes):
            bend = 1 + 1j * step * (k + 0.5)
            place = size * bend**2
            bands[1] = place / duration + up + down
            weight = np.exp(place) * 2 * size * bend * step / (math.pi * duration)
            total += (weight * solve_banded((1, 1), bands, state)).real
        return total

    def _some_jumps(self, state: Array, duration: float) -> tuple[Array, float]:
        """Uniformisation over a part of the time: the state then, and the time that is left.

        ``e^(Qt) = sum_k Poisson(k; rate t) (1 + Q/rate)^k``; all terms are positive.
        """
        likely = np.flatnonzero(state > _NOTHING)
        later = np.zeros_like(state)
        if not likely.size:
            return later, 0.0
        low, high = max(likely[0] - _TERMS, 0), min(likely[-1] + _TERMS + 1, self.sites)
        rate = self._jump_rate(low + 1, high)
        part = min(duration, _JUMPS / rate)
        up, down = (rates / rate for rates in self._rates(np.arange(low + 1, high + 1)))
        stay = 1 - up - down
        term = state[low:high]
        weight = math.exp(-rate * part)
        total = weight * term
        for k in range(1, _TERMS):
            next_term = stay * term
            next_term[1:] += (up * term)[:-1]
            next_term[:-1] += (down * term)[1:]
            term = next_term
            weight *= rate * part / k
            total += weight * term
        later[low:high] = total
        return later, duration - part


@dataclass(frozen=True)
class ContactRun:
    """Simulated densities of every realisation, ``[realisation, time]``."""

    process: ContactProcess
    times: Array
    density: Array = field(repr=False)
    seed: int

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
        """Standard error of the mean, ``[time]``."""
        return np.asarray(self.density.std(axis=0) / math.sqrt(self.realisations))

    def table(self) -> dict[str, Array]:
        """One row for each realisation and time: ``t, N, rate, rho, realisation``."""
        number, times = self.density.shape
        return {
            "t": np.tile(self.times, number),
            "N": np.full(number * times, float(self.process.sites)),
            "rate": np.full(number * times, self.process.rate),
            "rho": self.density.ravel(),
            "realisation": np.repeat(np.arange(number), times),
        }

    def to_xarray(self) -> xarray.Dataset:
        """The densities with dimensions ``realisation`` and ``time``."""
        import xarray

        text = {"long_name": "density of active sites", "units": "1"}
        return xarray.Dataset(
            {"density": (("realisation", "time"), self.density, text)},
            coords={"time": ("time", self.times, {"units": "lifetimes of an active site"})},
            attrs={"rate": self.process.rate, "sites": self.process.sites, "seed": self.seed},
        )


def contact(
    process: ContactProcess,
    times: ArrayLike,
    realisations: int = BLOCK,
    seed: int = 0,
    *,
    active: int | None = None,
    workers: int = 1,
    progress: bool | None = None,
) -> ContactRun:
    """Simulate the process event by event, exactly.

    Parameters
    ----------
    process:
        Rate and sites.
    times:
        Ascending, in lifetimes of an active site.
    realisations, seed:
        How many, in blocks of 256, and a whole number.
    active:
        Active sites at time 0; None: all.
    workers, progress:
        Processes; whether to show the progress, None: on a terminal.

    Raises
    ------
    InputError
        Times out of order or negative, numbers that are none.

    Examples
    --------
    >>> run = contact(ContactProcess(rate=1.0, sites=100), [1.0, 10.0], realisations=256)
    >>> run.mean.round(1)
    array([0.5, 0.1])
    """
    if not isinstance(process, ContactProcess):
        raise InputError(f"process is {process!r}; expected a ContactProcess")
    steps = _ascending(times)
    realisations, seed, workers = counts(realisations, seed, workers)
    density = realised(
        partial(_blocks, process=process, times=steps, first=process._first(active)),
        BLOCK,
        realisations,
        seed,
        together=1,
        workers=workers,
        progress=progress,
        label="Realisations",
    )
    return ContactRun(process, steps, density, seed)


def _blocks(
    seeds: Sequence[SeedSequence], process: ContactProcess, times: Array, first: int
) -> Array:
    return np.concatenate([_block(seed, process, times, first) for seed in seeds])


def _block(seed: SeedSequence, process: ContactProcess, times: Array, first: int) -> Array:
    """Densities of one block, ``[realisation, time]``.

    The process has no memory: at each time that is kept, all waiting times begin anew.
    """
    generator = Generator(SFC64(seed))
    number = np.full(BLOCK, first)
    found = np.zeros((BLOCK, len(times)))
    for k, (time, before) in enumerate(zip(times, np.append(0.0, times), strict=False)):
        left = np.full(BLOCK, time - before)
        busy = np.flatnonzero(number)
        while busy.size:
            up, down = process._rates(number[busy])
            left[busy] -= generator.standard_exponential(busy.size) / (up + down)
            in_time = left[busy] > 0
            rises = generator.random(busy.size) * (up + down) < up
            number[busy] += np.where(in_time, np.where(rises, 1, -1), 0)
            busy = busy[in_time & (number[busy] > 0)]
        found[:, k] = number / process.sites
    return found


def _ascending(times: ArrayLike) -> Array:
    values = np.atleast_1d(as_numbers("times", times))
    if values.ndim != 1 or not values.size or not np.all(np.isfinite(values) & (values >= 0)):
        raise InputError(f"times is {times!r}; expected finite numbers, 0 or more")
    if np.any(np.diff(values) <= 0):
        raise InputError(f"times is {times!r}; expected them in ascending order, each once")
    return values

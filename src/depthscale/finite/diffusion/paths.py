r"""Independent paths of a one-dimensional diffusion, at the times that are asked for.

Without ``steps`` every path moves from one recorded time to the next by one draw from the exact
law of that move (see ``transition``): one normal number and a few table look-ups a time, and no
error of a time step. With ``steps`` paths follow the Strang splitting

    u <- F_(h/2)(F_(h/2)(u) + s sqrt(h) xi),      F_h the flow of the drift,

of weak order 2 and strong order 1, whose flows are tabulated once; two halves that meet are one
look-up. No step leaves the range of ``u``, so nothing is clamped. The state is float64, normals are
float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from depthscale.answers import InputError
from depthscale.finite.diffusion.equation import Equation
from depthscale.finite.diffusion.flow import Schedule
from depthscale.finite.diffusion.law import SampleLaw
from depthscale.finite.diffusion.programs import Program, Room, Splitting, exact_moves
from depthscale.finite.draws import Draws
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_numbers

BLOCK = 1 << 15
"""Paths that move together: their state and the tables stay in a processor's cache."""

STRETCH = 4 * BLOCK
"""Paths of one stream of random numbers."""

EXPLOSIVE_STEPS = 256
"""Steps up to the last time where paths can explode and none are asked for."""

TOLERANCE = 1e-5
"""Of the tables of exact moves, in standard deviations."""

_ENTRY_STEPS = 64


@dataclass(frozen=True)
class PathPlan:
    """Everything about an ensemble of paths but the random numbers; ``draw`` as often as wanted.

    Attributes
    ----------
    equation:
        Its readings are those of the law.
    times:
        Shape (T,).
    solver:
        How paths move, with the estimated error of the tables.
    program:
        The tables.
    """

    equation: Equation
    times: Array
    solver: str
    program: Program

    def draw(self, paths: int = 100_000, seed: int = 0) -> SampleLaw:
        """Independent paths; the first k of many are those of ``paths=k``, on any threads.

        Raises
        ------
        InputError
            Numbers of paths or seeds out of range.
        """
        count, root = whole("paths", paths, 2), whole("seed", seed, 0)
        u = torch.empty(self.times.size, count, dtype=torch.float64)

        def work(indices: range) -> None:
            room = Room(BLOCK)
            for index in indices:
                stream = np.random.SeedSequence(root, spawn_key=(index,))
                draws = Draws(stream, torch.device("cpu"))
                for start in range(index * STRETCH, min(count, (index + 1) * STRETCH), BLOCK):
                    self._block(draws, room, u[:, start : start + BLOCK])

        over_stretches(work, count)
        return SampleLaw(self.times, self.equation.readings, u.numpy(), self.solver)

    def _block(self, draws: Draws, room: Room, out: Tensor) -> None:
        """The next block of a stream, of which the first paths are wanted."""
        if out.shape[1] == BLOCK:
            self.program.run(draws.normals, room, out)
            return
        block = torch.empty(self.times.size, BLOCK, dtype=torch.float64)
        self.program.run(draws.normals, room, block)
        out.copy_(block[:, : out.shape[1]])


def over_stretches(work: Callable[[range], None], paths: int) -> None:
    """Share out the stretches of an ensemble among the threads that torch may use."""
    count = math.ceil(paths / STRETCH)
    workers = min(count, torch.get_num_threads())
    shares = [range(first, count, workers) for first in range(workers)]
    if workers == 1:
        work(shares[0])
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, shares))


def plan(
    equation: Equation,
    start: float,
    times: ArrayLike,
    *,
    steps: int | None = None,
    tolerance: float = TOLERANCE,
) -> PathPlan:
    """Tables for paths of an equation, without drawing any (see ``sample``).

    ``tolerance``, in [1e-7, 1e-3], is for the tables of exact moves, in standard deviations; their
    polynomials in ``xi`` become shorter with it.
    """
    if not 1e-7 <= tolerance <= 1e-3:
        raise InputError(f"tolerance is {tolerance!r}; expected a number in [1e-7, 1e-3]")
    asked = checked_times(times)
    u0 = checked_start(equation, start)
    explosive = math.isfinite(equation.explodes_at)
    if steps is None and not explosive:
        exact, error = exact_moves(equation, u0, asked, tolerance)
        solver = f"paths, exact moves between the times (tables within {error:.0e} of a deviation)"
        return PathPlan(equation, asked, solver, exact)
    number = EXPLOSIVE_STEPS if steps is None else whole("steps", steps, 1)
    splitting = Splitting.of(equation, schedule(equation, u0, asked, number))
    solver = f"paths, Strang splitting in {number} steps"
    return PathPlan(equation, asked, solver, splitting)


def sample(
    equation: Equation,
    start: float,
    times: ArrayLike,
    *,
    paths: int = 100_000,
    seed: int = 0,
    steps: int | None = None,
) -> SampleLaw:
    """Independent paths of ``du = drift(u) dt + s dB``, recorded at given times.

    Parameters
    ----------
    equation:
        What is sampled.
    start:
        ``u`` at time 0, or ``inf`` or ``-inf`` where the equation has an entrance there.
    times:
        Shape (T,), increasing, positive.
    paths:
        How many, at least 2.
    seed:
        A whole number, at least 0.
    steps:
        None: exact moves from time to time (256 splitting steps where paths can explode). A number:
        splitting steps up to the last time, at least one between two recorded ones, and from
        infinity 64 that grow with time up to the first one.

    Raises
    ------
    InputError
        With what was given and what is expected.

    Examples
    --------
    >>> from depthscale.finite.diffusion.shaped import ShapedReLU
    >>> law = sample(ShapedReLU(0.0, -1.0), np.arctanh(0.3), [0.25, 0.5], paths=1000)
    >>> law.u.shape
    (2, 1000)
    """
    return plan(equation, start, times, steps=steps).draw(paths, seed)


def checked_times(times: ArrayLike) -> Array:
    """Increasing positive times, shape (T,)."""
    asked = as_numbers("times", times)
    if asked.ndim > 1 or asked.size == 0:
        raise InputError(f"times have shape {asked.shape}; expected one or more times in a row")
    asked = asked.ravel()
    steps = np.diff(asked, prepend=0.0)
    if not (np.all(np.isfinite(asked)) and np.all(steps > 0)):
        raise InputError(
            f"times are {times!r}; expected increasing positive finite numbers: at t = 0 every path"
            " is at its start"
        )
    return asked


def checked_start(equation: Equation, start: float) -> float:
    """A start that does not explode at once."""
    u0 = float(as_numbers("start", start))
    if math.isnan(u0) or (math.isinf(u0) and u0 != equation.enters_at):
        raise InputError(
            f"start is {u0:g}; expected a number, or {equation.enters_at} where that is an entrance"
        )
    if u0 >= equation.explodes_at and math.isfinite(equation.explodes_at):
        raise InputError(
            f"start is {u0:g}, where this equation explodes at once; expected less than"
            f" {equation.explodes_at:g}"
        )
    return u0


def whole(name: str, value: int, least: int) -> int:
    """A whole number that is not too small."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is {value!r}; expected a whole number of at least {least}")
    return int(value)


def schedule(equation: Equation, start: float, times: Array, steps: int) -> Schedule:
    """So many splitting steps up to the last time, shared out by the lengths of the gaps."""
    counts = np.ceil(steps * np.diff(times, prepend=0.0) / times[-1] - 1e-9).astype(int)
    if math.isinf(start):
        counts[0] = max(int(counts[0]), _ENTRY_STEPS)
    return Schedule.of(equation, start, times, counts)

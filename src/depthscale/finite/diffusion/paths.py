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
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from torch import Tensor

from depthscale.answers import InputError
from depthscale.finite.diffusion.equation import Equation
from depthscale.finite.diffusion.flow import Flow, Schedule
from depthscale.finite.diffusion.law import SampleLaw
from depthscale.finite.diffusion.transition import SCORES, Moves, moves, quantiles, spread
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

_CELLS = 1 << 13
_LONGEST = 50.0
_ENTRY_STEPS = 64
_GONE = 1e300

Fill = Callable[[Tensor], Tensor]
"""Fills a float32 tensor with independent standard normal numbers."""


class Room:
    """Arrays to work in, for as many paths as move together; they are kept from block to block."""

    def __init__(self, size: int) -> None:
        self.xi, self.rise, self.term = torch.empty(3, size)
        self.place = torch.empty(size, dtype=torch.int32)
        self.state, self.value, self.slope = torch.empty(3, size, dtype=torch.float64)


class Program(Protocol):
    """What one block of paths does between the recorded times."""

    def run(self, fill: Fill, room: Room, out: Tensor) -> None:
        """Write ``u`` of all paths of a block at every time to ``out``, (T, paths), float64."""


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

        def stretch(index: int) -> None:
            stream = np.random.SeedSequence(root, spawn_key=(index,))
            draws, room = Draws(stream, torch.device("cpu")), Room(BLOCK)
            for start in range(index * STRETCH, min(count, (index + 1) * STRETCH), BLOCK):
                piece = u[:, start : start + BLOCK]
                if piece.shape[1] == BLOCK:
                    self.program.run(draws.normals, room, piece)
                else:
                    block = torch.empty(self.times.size, BLOCK, dtype=torch.float64)
                    self.program.run(draws.normals, room, block)
                    piece.copy_(block[:, : piece.shape[1]])

        over_stretches(stretch, count)
        return SampleLaw(self.times, self.equation.readings, u.numpy(), self.solver)


def over_stretches(work: Callable[[int], None], paths: int) -> None:
    """Do every stretch of an ensemble on the threads that torch may use."""
    count = math.ceil(paths / STRETCH)
    workers = min(count, torch.get_num_threads())
    if workers == 1:
        for index in range(count):
            work(index)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(count)))


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
        exact, error = _exact(equation, u0, asked, tolerance)
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
        ``u`` at time 0, or ``inf`` where the equation has an entrance there.
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


# Exact moves --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExactMoves:
    """Moves from recorded time to recorded time.

    Attributes
    ----------
    centre, slope, rest:
        The first time's law: ``u = centre + slope xi + rest[xi]``, ``rest`` on even scores.
    low, cell:
        From then on the state is counted in cells of the tables, ``u = low + cell * state``.
    stages:
        For every later time its moves, each the coefficients of a polynomial in ``xi`` that is
        added to the state, one tensor [cell] a power and the highest power first.
    """

    centre: float
    slope: float
    rest: Tensor
    low: float
    cell: float
    stages: tuple[tuple[tuple[Tensor, ...], ...], ...]

    def run(self, fill: Fill, room: Room, out: Tensor) -> None:
        """See ``Program``."""
        xi, rise, term, place, state = room.xi, room.rise, room.term, room.place, room.state
        fill(xi)
        torch.add(_CELLS / 2, xi, alpha=_CELLS / float(SCORES[-1] - SCORES[0]), out=rise)
        torch.index_select(self.rest, 0, place.copy_(rise), out=rise)
        out[0].copy_(rise.add_(xi, alpha=self.slope)).add_(self.centre)
        if self.stages:
            torch.sub(out[0], self.low, out=state).mul_(1 / self.cell)
        for row, stage in zip(out[1:], self.stages, strict=True):
            for first, *others in stage:
                fill(xi)
                place.copy_(state).clamp_(0, _CELLS - 1)
                torch.index_select(first, 0, place, out=rise)
                for other in others:
                    torch.index_select(other, 0, place, out=term)
                    torch.addcmul(term, rise, xi, out=rise)
                state.add_(rise)
            torch.add(self.low, state, alpha=self.cell, out=row)


def _exact(
    equation: Equation, start: float, times: Array, tolerance: float
) -> tuple[ExactMoves, float]:
    """The tables of exact moves, and their estimated error."""
    law = quantiles(equation, start, times, tolerance)
    low, high = float(law.ends[:, 0].min()), float(law.ends[:, 1].max())
    cell = (high - low) / _CELLS
    middles = low + cell * (np.arange(_CELLS) + 0.5)
    gaps, group = np.unique(np.diff(times).round(12), return_inverse=True)
    errors, stages = [float(law.error.max())], []
    for index, gap in enumerate(gaps):
        members = np.flatnonzero(group == index)
        table, count = _moves(equation, float(gap), law.u[members], law.ends[members], tolerance)
        errors.append(table.error)
        curves = CubicSpline(table.u, table.coefficients.T)(middles).T / cell
        stages.append(count * (torch.tensor(curves[::-1].copy(), dtype=torch.float32).unbind(),))
    scores = SCORES[0] + (SCORES[-1] - SCORES[0]) * (np.arange(_CELLS) + 0.5) / _CELLS
    first, centre = law.u[0], float(law.u[0][SCORES.size // 2])
    slope = float((first[160] - first[120]) / (SCORES[160] - SCORES[120]))
    rest = torch.tensor(spread(first, scores) - centre - slope * scores)
    program = ExactMoves(
        centre=centre,
        slope=slope,
        rest=rest.float(),
        low=low,
        cell=cell,
        stages=tuple(stages[index] for index in group),
    )
    return program, max(errors)


def _moves(
    equation: Equation, gap: float, u: Array, ends: Array, tolerance: float
) -> tuple[Moves, int]:
    """Moves across a gap, in as many equal ones as make their series short."""
    count = 1
    table = moves(equation, gap, u, ends, tolerance)
    while table.error > _LONGEST * tolerance and count < 64:
        count *= 2
        table = moves(equation, gap / count, u, ends, tolerance)
    return table, count


# Splitting ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Glide:
    """A flow of the drift as a table, linear between even nodes; float64 state in cells."""

    values: Tensor
    slopes: Tensor

    @staticmethod
    def of(flow: Flow, duration: float, low: float, cell: float) -> Glide:
        """The flow after a duration, on ``_CELLS`` cells."""
        nodes = low + cell * np.arange(_CELLS + 1)
        values = (flow.of(duration)(nodes) - low) / cell
        gone = ~np.isfinite(values)
        values[gone] = _GONE
        slopes = np.where(gone[1:], 0.0, np.diff(values))
        return Glide(torch.from_numpy(values[:-1]), torch.from_numpy(slopes))

    def move(self, state: Tensor, place: Tensor, value: Tensor, slope: Tensor) -> None:
        """Let the state flow; the other tensors are room to work."""
        torch.clamp(state, 0, _CELLS - 1, out=value)
        place.copy_(value)
        state.sub_(place)
        torch.index_select(self.values, 0, place, out=value)
        torch.index_select(self.slopes, 0, place, out=slope)
        torch.addcmul(value, slope, state, out=state)


@dataclass(frozen=True)
class Splitting:
    """Strang steps; the state is counted in cells of the tables.

    Attributes
    ----------
    low, cell:
        ``u = low + cell * state``.
    mean, sd:
        Of the state before the first step.
    kicks, glides:
        The noise of every step, and the flow before it.
    records, last:
        The steps that end at recorded times, and the half flow from there.
    """

    low: float
    cell: float
    mean: float
    sd: float
    kicks: tuple[float, ...]
    glides: tuple[Glide, ...]
    records: tuple[int, ...]
    last: tuple[Glide, ...]

    @staticmethod
    def of(equation: Equation, steps: Schedule) -> Splitting:
        """The tables of the steps of a schedule."""
        low, high = steps.domain(equation)
        flow = Flow(equation, low, high, steps.durations)
        cell = (high - low) / _CELLS
        made = {d: Glide.of(flow, d, low, cell) for d in set(steps.durations.tolist())}
        last = (steps.steps[np.array(steps.records) - 1] / 2).tolist()
        return Splitting(
            low=low,
            cell=cell,
            mean=(steps.mean - low) / cell,
            sd=math.sqrt(steps.variance) / cell,
            kicks=tuple((equation.noise * np.sqrt(steps.steps) / cell).tolist()),
            glides=tuple(made[d] for d in steps.between),
            records=steps.records,
            last=tuple(made[d] for d in last),
        )

    def run(self, fill: Fill, room: Room, out: Tensor) -> None:
        """See ``Program``."""
        xi, place, state, value, slope = room.xi, room.place, room.state, room.value, room.slope
        state.fill_(self.mean)
        if self.sd > 0:
            state.add_(fill(xi), alpha=self.sd)
        rows = dict(zip(self.records, zip(out, self.last, strict=True), strict=True))
        for step, (kick, glide) in enumerate(zip(self.kicks, self.glides, strict=True), start=1):
            glide.move(state, place, value, slope)
            state.add_(fill(xi), alpha=kick)
            if step in rows:
                row, half = rows[step]
                row.copy_(state)
                half.move(row, place, value, slope)
                gone = row >= _GONE / 2
                row.mul_(self.cell).add_(self.low)
                row[gone] = math.inf

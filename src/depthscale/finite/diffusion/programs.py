"""What a block of paths does between the recorded times: exact moves, or splitting steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from depthscale.finite.diffusion.equation import Equation
from depthscale.finite.diffusion.flow import Flow, Schedule
from depthscale.finite.diffusion.transition import SCORES, Moves, moves, quantiles, spread
from depthscale.theory.gaussian import Array

_CELLS = 1 << 13
"""Of a table: 32 kB, which a processor's innermost cache holds."""

_LONGEST = 50.0
"""Tolerances that the series of one move may leave out; a gap is divided until it does."""

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


def exact_moves(
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
    count = max(1, math.ceil(gap * equation.noise**2 / 2))
    table = moves(equation, gap / count, u, ends, tolerance)
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
        nodes = np.asarray(low + cell * np.arange(_CELLS + 1), dtype=float)
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

"""The flow of a drift after given durations, and the splitting steps that use it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

from depthscale.answers import InputError
from depthscale.finite.diffusion.equation import Equation
from depthscale.theory.gaussian import Array

REACH = 9.0
"""Standard deviations that are followed: what lies beyond has probability 1e-19."""

_NODE, _STIFF = 0.02, 1e7
_ENTRY = 1e-4


class Flow:
    """The solution ``F_h(u)`` of ``du/dt = drift(u)`` after every one of some durations.

    Parameters
    ----------
    equation:
        Its drift.
    lo, hi:
        Where it is tabulated; beyond it goes on linearly, which is exact for linear drifts and
        where a strong drift has made the start forgotten.
    durations:
        Shape (D,), positive.
    """

    def __init__(self, equation: Equation, lo: float, hi: float, durations: Array) -> None:
        lo, hi = calm(equation, lo, hi, float(durations.min()))
        self.nodes = np.linspace(lo, hi, max(64, math.ceil((hi - lo) / _NODE)))
        self._durations = np.unique(durations)
        self._made: dict[float, Callable[[Array], Array]] = {}
        self._values = _solve(equation, self.nodes, self._durations)

    def row(self, duration: float) -> Array:
        """``F_h`` on the nodes."""
        return np.asarray(self._values[np.searchsorted(self._durations, duration)])

    def of(self, duration: float) -> Callable[[Array], Array]:
        """``F_h`` as a function: a cubic spline, linear beyond the nodes; ``inf`` if exploded."""
        if duration not in self._made:
            self._made[duration] = _curve(self.nodes, self.row(duration))
        return self._made[duration]


def _solve(equation: Equation, u: Array, durations: Array) -> Array:
    """``F_h(u)`` for increasing durations, shape (durations, u); ``inf`` for what has exploded."""
    edge = equation.explodes_at
    if math.isinf(edge):
        return _integrate(equation, equation.drift, u, durations)
    # w = exp(-rate (u - edge)) passes through an explosion at a constant speed
    near = equation.drift(np.array([edge - 1e-3, edge]))
    rate = float(np.log(near[1] / near[0])) / 1e-3

    def speed(w: Array) -> Array:
        alive = np.maximum(w, 1.0)
        return np.asarray(-rate * alive * equation.drift(edge - np.log(alive) / rate))

    w = _integrate(equation, speed, np.exp(rate * (edge - u)), durations)
    return np.where(w > 1, edge - np.log(np.maximum(w, 1.0)) / rate, np.inf)


def _integrate(
    equation: Equation, speed: Callable[[Array], Array], start: Array, durations: Array
) -> Array:
    solution = solve_ivp(
        lambda _, v: speed(v),
        (0.0, float(durations[-1])),
        start,
        method="LSODA",
        t_eval=durations,
        rtol=1e-9,
        atol=1e-10,
        lband=0,
        uband=0,
    )
    if not solution.success:
        raise InputError(
            f"the drift of {type(equation).__name__} could not be followed ({solution.message});"
            " expected a drift that is finite and continuous"
        )
    return np.asarray(solution.y.T)


def _curve(nodes: Array, values: Array) -> Callable[[Array], Array]:
    alive = np.isfinite(values)
    nodes, values, whole = nodes[alive], values[alive], bool(alive.all())
    spline = CubicSpline(nodes, values)
    slopes = spline(nodes[[0, -1]], 1)

    def flow(u: Array) -> Array:
        inside = np.clip(u, nodes[0], nodes[-1])
        beyond = np.where(u < nodes[0], slopes[0], slopes[1])
        result = np.asarray(spline(inside) + beyond * (u - inside))
        return result if whole else np.where(u > nodes[-1], np.inf, result)

    return flow


def calm(equation: Equation, lo: float, hi: float, duration: float) -> tuple[float, float]:
    """The part of ``[lo, hi]`` where the drift is not so strong that starts are forgotten."""
    u = np.linspace(lo, hi, 2049)
    with np.errstate(over="ignore", invalid="ignore"):
        gentle = np.abs(equation.drift(u)) * duration < _STIFF
    if not gentle.any():
        raise InputError(
            f"the drift of {type(equation).__name__} is above {_STIFF / duration:.1g} from u ="
            f" {lo:g} to {hi:g}; expected a start from which the equation moves gradually"
        )
    return float(u[gentle][0]), float(u[gentle][-1])


def domain(equation: Equation, lo: float, hi: float, duration: float) -> tuple[float, float]:
    """Where paths from ``[lo, hi]`` go: with the drift, and ``REACH`` deviations around it."""
    away, top = REACH * equation.noise * math.sqrt(duration), equation.explodes_at
    ends, time = np.array([lo, hi]), np.array([duration])
    for outer in (0.0, away):
        # first the drift alone, which may carry a start far away, then the noise around it
        low, high = calm(equation, ends.min() - outer, min(ends.max() + outer, top), duration)
        moved = _solve(equation, np.clip([*ends, low, high], low, high), time)[0]
        ends = np.array([low, high, *ends, *moved[np.isfinite(moved)]])
    return float(ends.min()), float(min(ends.max(), top))


@dataclass(frozen=True)
class Schedule:
    """Strang steps from a start through every recorded time.

    Attributes
    ----------
    steps:
        Lengths, shape (M,).
    records:
        For every time the number of steps after which it is reached, shape (T,).
    mean, variance:
        Of ``u`` before the first step, where it is normal or certain.
    """

    steps: Array
    records: tuple[int, ...]
    mean: float
    variance: float

    @staticmethod
    def of(equation: Equation, start: float, times: Array, counts: Array) -> Schedule:
        """``counts[k]`` even steps up to time k; from infinity the first ones grow with time.

        The law soon after a start at infinity is that of ``Equation.entry`` at 1e-4 of the first
        time, and what it is off there is forgotten as ``1/t``.
        """
        gaps = np.diff(times, prepend=0.0)
        pieces = [np.full(int(n), gap / n) for n, gap in zip(counts, gaps, strict=True)]
        mean, variance = start, 0.0
        if math.isinf(start):
            first = _ENTRY * min(float(times[0]), 1 / equation.noise**2)
            mean, variance = equation.entry(first)
            if float(equation.drift(np.array(mean))) * start > 0:
                raise InputError(
                    f"start is {start:g}, which is no entrance of {type(equation).__name__}: its"
                    f" paths from infinity come from {-start:g}; give that, or a finite start"
                )
            pieces[0] = np.diff(np.geomspace(first, times[0], int(counts[0]) + 1))
        records = np.cumsum([piece.size for piece in pieces])
        return Schedule(np.concatenate(pieces), tuple(records.tolist()), mean, variance)

    @cached_property
    def between(self) -> list[float]:
        """Durations of the flows before every noise, which join two halves, shape (M,)."""
        before = np.concatenate([[0.0], self.steps[:-1]])
        return list(((before + self.steps) / 2).tolist())

    @property
    def durations(self) -> Array:
        """Of all flows: those between noises and the halves up to the recorded times."""
        last = self.steps[np.array(self.records) - 1] / 2
        return np.concatenate([self.between, last])

    def domain(self, equation: Equation) -> tuple[float, float]:
        """Where paths go."""
        total, first = float(self.steps.sum()), float(self.steps.min())
        if self.variance == 0:
            return domain(equation, self.mean, self.mean, total)
        # what comes from infinity has left it long before the noise can be large
        early = REACH * math.sqrt(self.variance + equation.noise**2 * first)
        low, high = domain(equation, self.mean, self.mean, total)
        return min(low, self.mean - early), max(high, self.mean + early)

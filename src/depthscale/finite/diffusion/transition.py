r"""The exact law of one move of a diffusion, tabulated: ``u' = Q(u, xi)`` with ``xi ~ N(0, 1)``.

``Q(u, .)`` is the quantile function of where a path that is at ``u`` is a time ``step`` later, read
at the level of ``xi``. Drawing ``xi`` anew for every recorded time gives paths whose joint law at
these times is that of the equation, however far apart they are: no time step remains.

It is computed without noise. A Strang step, half a flow of the drift, Gaussian noise, half a flow,
is a Gaussian kernel between points that lie in the middle of the flow, so the trapezoidal rule on
an even grid integrates chains of steps to all digits (its error is ``exp(-2 (pi sd/spacing)^2)``),
tails included. What remains is the even-order error in the number of steps, which is extrapolated
away: the number is doubled until the answer stays (order 2, then 4; derived here).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.special import ndtr, ndtri

from depthscale.answers import InputError
from depthscale.finite.diffusion.equation import Equation
from depthscale.theory.gaussian import Array

SPACING = 0.7
"""Nodes in standard deviations of one step: the trapezoidal rule errs by 1e-17."""

REACH = 9.0
"""Standard deviations that are followed: what lies beyond has probability 1e-19."""

SCORES = np.linspace(-7.0, 7.0, 281)
"""The normal scores at which a law is kept; the generator's normals end at 6.7."""

_FLOW_NODE, _STIFF, _MOST_DOUBLINGS = 0.02, 1e7, 7


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
        lo, hi = _gentle(equation, lo, hi, float(durations.min()))
        self.nodes = np.linspace(lo, hi, max(64, math.ceil((hi - lo) / _FLOW_NODE)))
        self.durations, back = np.unique(durations, return_inverse=True)
        self._index = {float(d): int(i) for d, i in zip(durations, back.ravel(), strict=True)}
        edge = equation.explodes_at
        solution = solve_ivp(
            lambda _, u: equation.drift(np.minimum(u, edge)),
            (0.0, float(self.durations[-1])),
            self.nodes,
            method="LSODA",
            t_eval=self.durations,
            rtol=1e-10,
            atol=1e-11,
            lband=0,
            uband=0,
        )
        if not solution.success:
            raise InputError(
                f"the drift of {type(equation).__name__} could not be followed from u = {lo:g} to"
                f" {hi:g} ({solution.message}); expected a drift that is finite and continuous"
            )
        self.values = np.where(solution.y.T >= edge, np.inf, solution.y.T)

    def row(self, duration: float) -> Array:
        """``F_h`` on the nodes."""
        return np.asarray(self.values[self._index[float(duration)]])

    @lru_cache(maxsize=512)  # noqa: B019 - lives as long as the flow it belongs to
    def of(self, duration: float) -> Callable[[Array], Array]:
        """``F_h`` as a function; a cubic spline, linear beyond the nodes."""
        nodes, values = self.nodes, self.row(duration)
        spline = CubicSpline(nodes, values)
        slopes = spline(nodes[[0, -1]], 1)

        def flow(u: Array) -> Array:
            inside = np.clip(u, nodes[0], nodes[-1])
            beyond = np.where(u < nodes[0], slopes[0], slopes[1])
            return np.asarray(spline(inside) + beyond * (u - inside))

        return flow


def _gentle(equation: Equation, lo: float, hi: float, duration: float) -> tuple[float, float]:
    """The part of ``[lo, hi]`` where the drift is not so strong that starts are forgotten."""
    u = np.linspace(lo, hi, 2049)
    with np.errstate(over="ignore", invalid="ignore"):
        calm = np.abs(equation.drift(u)) * duration < _STIFF
    if not calm.any():
        raise InputError(
            f"the drift of {type(equation).__name__} is above {_STIFF / duration:.1g} from u ="
            f" {lo:g} to {hi:g}; expected a start from which the equation moves gradually"
        )
    return float(u[calm][0]), float(u[calm][-1])


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
        Of ``u`` before the first step.
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
        pieces = [np.full(n, gap / n) for n, gap in zip(counts, gaps, strict=True)]
        mean, variance = start, 0.0
        if math.isinf(start):
            first = 1e-4 * min(times[0], 1 / equation.noise**2)
            mean, variance = equation.entry(first)
            pieces[0] = np.diff(np.geomspace(first, times[0], int(counts[0]) + 1))
        steps = np.concatenate(pieces)
        records = np.cumsum([piece.size for piece in pieces])
        return Schedule(steps, tuple(int(r) for r in records), float(mean), float(variance))

    @property
    def flows(self) -> Array:
        """Durations of the flows before, between and after the noises, shape (M + 1,)."""
        ends = np.concatenate([[0.0], self.steps, [0.0]])
        return np.asarray((ends[1:] + ends[:-1]) / 2)

    def domain(self, equation: Equation) -> tuple[float, float]:
        """Where paths go: by the drift alone and ``REACH`` deviations of all noise around it."""
        total, ends = float(self.steps.sum()), []
        spread = REACH * equation.noise * math.sqrt(total)
        early = REACH * math.sqrt(self.variance + equation.noise**2 * self.steps[0])
        lowest, highest = self.mean - spread, self.mean + spread
        if self.variance > 0:
            highest = self.mean + early
        lowest, highest = _gentle(equation, lowest, highest, float(self.steps.min()))
        corners = np.array([lowest, self.mean, highest])
        moved = Flow(equation, lowest, highest, np.array([total])).of(total)(corners)
        ends = [*corners, *moved[np.isfinite(moved)]]
        if self.variance > 0:
            ends += [moved[1] - spread, moved[1] + spread]
        return min(ends), max(ends)


def _kernel(mean: Array, sd: float, nodes: Array, spacing: float) -> Array:
    """Probabilities around even nodes of normals about ``mean``, shape (mean, nodes)."""
    gap = (nodes - mean[:, None]) / sd
    return np.asarray(np.exp(-0.5 * gap * gap) * (spacing / (sd * math.sqrt(2 * math.pi))))


def _scores(p: Array, mean: Array, sd: float, nodes: Array) -> Array:
    """Normal scores of ``P(mean_j + sd xi <= node)`` for weights ``p``, shape (rows, nodes)."""
    gap = (nodes - mean[:, None]) / sd
    below, above = p @ ndtr(gap), p @ ndtr(-gap)
    with np.errstate(divide="ignore"):
        return np.where(below < above, ndtri(below), -ndtri(above))


def _inverse(scores: Array, nodes: Array, wanted: Array) -> Array:
    """The node values at which increasing rows of ``scores`` are ``wanted``: local quintics."""
    rows, count = scores.shape
    index = np.array([np.searchsorted(row, wanted) for row in scores])
    first = np.clip(index - 3, 0, count - 6)[..., None] + np.arange(6)
    x = scores[np.arange(rows)[:, None, None], first]
    y = nodes[first].copy()
    for width in range(1, 6):
        left, right = x[..., : 6 - width], x[..., width:]
        at = wanted[None, :, None]
        y = ((at - left) * y[..., 1:] - (at - right) * y[..., :-1]) / (right - left)
    return np.asarray(y[..., 0])


def laws(schedule: Schedule, flow: Flow, noise: float) -> tuple[Array, list[tuple[float, float]]]:
    """Quantiles of ``u`` at ``SCORES`` at every recorded time, (T, scores), and the ends passed.

    Ends: the least and the greatest node with a probability above 1e-18, for every time.
    """
    steps, durations = schedule.steps, schedule.flows
    sd = math.sqrt(schedule.variance)
    nodes, p = np.array([schedule.mean]), np.ones(1)
    if sd > 0:
        spacing = SPACING * min(sd, noise * math.sqrt(steps[0]))
        nodes = schedule.mean + spacing * np.arange(-int(REACH * sd / spacing), 0.5 + REACH * sd / spacing)
        p = _kernel(np.array([schedule.mean]), sd, nodes, spacing)[0]
    rows, ends = [], []
    for k, step in enumerate(steps):
        mean, sd = flow.of(float(durations[k]))(nodes), noise * math.sqrt(step)
        following = steps[min(k + 1, steps.size - 1)]
        spacing = SPACING * noise * math.sqrt(min(step, following))
        low, high = float(mean.min()) - REACH * sd, float(mean.max()) + REACH * sd
        next_nodes = low + spacing * np.arange(math.ceil((high - low) / spacing) + 1)
        if k + 1 in schedule.records:
            out = flow.of(float(step / 2))
            score = _scores(p[None], mean, sd, next_nodes)[0]
            kept = np.abs(score) < 8.3
            rows.append(out(_inverse(score[kept][None], next_nodes[kept], SCORES)[0]))
        p = p @ _kernel(mean, sd, next_nodes, spacing)
        kept = np.flatnonzero(p > 1e-18)
        nodes, p = next_nodes[kept[0] : kept[-1] + 1], p[kept[0] : kept[-1] + 1]
        if k + 1 in schedule.records:
            reach = out(nodes[[0, -1]])
            ends.append((float(reach[0]), float(reach[-1])))
    return np.array(rows), ends

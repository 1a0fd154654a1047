r"""The exact law of one move of a diffusion, tabulated: ``u' = Q(u, xi)`` with ``xi ~ N(0, 1)``.

``Q(u, .)`` is the quantile function of where a path that is at ``u`` is one gap of time later, read
at the level of ``xi``. Drawing ``xi`` anew for every recorded time gives paths whose joint law at
these times is that of the equation, however far apart they are: no time step remains.

It is computed without noise. A Strang step, half a flow of the drift, Gaussian noise, half a flow,
is a Gaussian kernel between points that lie in the middle of the flow, so the trapezoidal rule on
an even grid integrates chains of steps to all digits (it errs by ``exp(-2 (pi sd/spacing)^2)``),
tails included. What remains is an error in even powers of the step, which Romberg's scheme removes
(derived here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import ndtr, ndtri

from depthscale.finite.diffusion.equation import Equation
from depthscale.finite.diffusion.flow import REACH, Flow, Schedule, domain
from depthscale.theory.gaussian import Array

SPACING = 0.7
"""Nodes in standard deviations of one step: the trapezoidal rule errs by 1e-17."""

SCORES = np.linspace(-7.0, 7.0, 281)
"""The normal scores at which a law is kept; the normals that are drawn end at 6.7."""

WEIGHTS = np.exp(-(SCORES**2) / 2) * (SCORES[1] - SCORES[0]) / math.sqrt(2 * math.pi)
"""The mean of a function of ``xi ~ N(0, 1)`` that is given at ``SCORES``."""

_LEVELS, _DEGREES, _RULE, _NODE = 6, 7, 16, 0.1
_GONE = 1e-18


@dataclass(frozen=True)
class Quantiles:
    """Where paths are at every recorded time.

    Attributes
    ----------
    u:
        At ``SCORES``, shape (T, scores).
    ends:
        What has all but 1e-18 of the probability, shape (T, 2).
    error:
        Root mean square of the last correction over the standard deviation, shape (T,).
    """

    u: Array
    ends: Array
    error: Array


def quantiles(equation: Equation, start: float, times: Array, tolerance: float) -> Quantiles:
    """The law at every time after a certain start, or after infinity."""
    base = _counts(equation, np.diff(times, prepend=0.0))
    if math.isinf(start):
        base[0] = max(base[0], 12)
    schedules = [Schedule.of(equation, start, times, base * 2**level) for level in range(_LEVELS)]
    reach = schedules[0].domain(equation)
    columns: list[Array] = []
    for level, schedule in enumerate(schedules):
        if level % 3 == 0:
            durations = [one.durations for one in schedules[level : level + 3]]
            flow = Flow(equation, *reach, np.concatenate(durations))
        u, ends = _laws(schedule, flow, equation.noise)
        columns, change = _romberg(columns, u)
        error = np.sqrt(change**2 @ WEIGHTS) / _sd(columns[-1])
        if level > 1 and error.max() < tolerance:
            break
    return Quantiles(columns[-1], ends, error)


def _sd(u: Array) -> Array:
    """Standard deviation of laws given at ``SCORES``."""
    return np.asarray(np.sqrt((u - (u @ WEIGHTS)[:, None]) ** 2 @ WEIGHTS))


def _counts(equation: Equation, gaps: Array) -> Array:
    """Steps of the coarsest level: none is longer than the noise takes to move ``u`` by 1/2."""
    return np.maximum(2, np.ceil(4 * gaps * (1 + equation.noise**2 / 4))).astype(int)


def _romberg(row: list[Array], value: Array) -> tuple[list[Array], Array]:
    """The next row of Romberg's scheme for steps halved again, and its last correction."""
    following, change = [value], np.full(value.shape, np.inf)
    for order, previous in enumerate(row[:3], start=1):
        change = (following[-1] - previous) / (4**order - 1)
        following.append(following[-1] + change)
    return following, change


def _kernel(mean: Array, sd: float, nodes: Array, spacing: float) -> Array:
    """Probabilities around even nodes of normals about ``mean``, shape (mean, nodes)."""
    gap = (nodes - mean[:, None]) / sd
    return np.asarray(np.exp(-0.5 * gap * gap) * (spacing / (sd * math.sqrt(2 * math.pi))))


def _scores(p: Array, mean: Array, sd: float, nodes: Array) -> Array:
    """Normal scores of ``P(mean_j + sd xi <= node)`` for weights ``p``, shape (rows, nodes)."""
    gap = (nodes - mean[:, None]) / sd
    below, above = p @ ndtr(gap), p @ ndtr(-gap)
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(below < above, ndtri(below), -ndtri(above)))


def _inverse(scores: Array, nodes: Array, wanted: Array) -> Array:
    """The node values at which increasing rows of ``scores`` are ``wanted``: local quintics."""
    rows, count = scores.shape
    index = np.array([np.searchsorted(row, wanted) for row in scores])
    first = np.clip(index - 3, 0, count - 6)[..., None] + np.arange(6)
    x = scores[np.arange(rows)[:, None, None], first]
    y = nodes[first]
    for width in range(1, 6):
        left, right = x[..., : 6 - width], x[..., width:]
        at = wanted[None, :, None]
        y = ((at - left) * y[..., 1:] - (at - right) * y[..., :-1]) / (right - left)
    return np.asarray(y[..., 0])


def _even(low: float, high: float, spacing: float) -> Array:
    return np.asarray(low + spacing * np.arange(math.ceil((high - low) / spacing) + 1))


def _laws(schedule: Schedule, flow: Flow, noise: float) -> tuple[Array, Array]:
    """Quantiles at ``SCORES`` and ends at every recorded time, for these steps."""
    steps, between, sd = schedule.steps, schedule.between, math.sqrt(schedule.variance)
    nodes, p = np.array([schedule.mean]), np.ones(1)
    if sd > 0:
        spacing = SPACING * min(sd, noise * math.sqrt(steps[0]))
        nodes = _even(schedule.mean - REACH * sd, schedule.mean + REACH * sd, spacing)
        p = _kernel(np.array([schedule.mean]), sd, nodes, spacing)[0]
    rows, ends = [], []
    for k, step in enumerate(steps):
        mean, sd = flow.of(between[k])(nodes), noise * math.sqrt(step)
        following = steps[min(k + 1, steps.size - 1)]
        spacing = SPACING * noise * math.sqrt(min(step, following))
        # a wall of strong drift folds many nodes onto one: only what moves on is kept
        fresh = _even(float(mean.min()) - REACH * sd, float(mean.max()) + REACH * sd, spacing)
        moved = p @ _kernel(mean, sd, fresh, spacing)
        kept = np.flatnonzero(moved > _GONE)
        inside = slice(kept[0], kept[-1] + 1)
        if k + 1 in schedule.records:
            out = flow.of(step / 2)
            score = _scores(p[None], mean, sd, fresh[inside])
            rows.append(out(_inverse(score, fresh[inside], SCORES)[0]))
            ends.append(out(fresh[inside][[0, -1]]))
        nodes, p = fresh[inside], moved[inside]
    return np.array(rows), np.array(ends)


@dataclass(frozen=True)
class Moves:
    r"""``u' = u + sum_k c_k(u) xi^k`` for one gap of time, its coefficients on even nodes.

    The series of the quantile map in Hermite polynomials is cut where the rest is small, and the
    variance of the rest is given to the linear term: mean and variance of every move are exact.

    Attributes
    ----------
    u:
        Nodes, shape (N,).
    coefficients:
        Shape (degree + 1, N).
    error:
        Root mean square of what is left out and of the last correction, over the standard
        deviation of the move, averaged over where the paths are.
    """

    u: Array
    coefficients: Array
    error: float


def moves(equation: Equation, gap: float, u: Array, ends: Array, tolerance: float) -> Moves:
    """One gap, for paths whose laws before it are ``u`` at ``SCORES``, shape (laws, scores)."""
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    nodes = np.linspace(low, high, max(8, math.ceil((high - low) / _NODE)))
    share = np.mean([np.gradient(ndtr(np.interp(nodes, row, SCORES))) for row in u], axis=0)
    share = np.maximum(share, 0.0) / share.sum()
    noise = equation.noise
    base = int(_counts(equation, np.array([gap]))[0])
    steps = gap / (base * 2.0 ** np.arange(_LEVELS))
    reach = domain(equation, low, high, gap)
    flow = Flow(equation, *reach, np.concatenate([steps, steps / 2]))
    x, rule = np.polynomial.hermite_e.hermegauss(_RULE)
    rule = rule / rule.sum()
    columns: list[Array] = []
    for level, step in enumerate(steps):
        value = _conditional(flow, noise, step, base << level, nodes, reach, x)
        columns, change = _romberg(columns, value)
        if level > 1:
            off = float(share @ (change**2 @ rule)) / (noise**2 * gap)
            if off < tolerance**2:
                break
    powers = np.arange(_RULE)
    norm = np.sqrt([math.factorial(k) for k in powers])
    basis = np.polynomial.hermite_e.hermevander(x, _RULE - 1) / norm
    series = ((columns[-1] - nodes[:, None]) * rule) @ basis
    left = np.cumsum((share @ series**2)[::-1])[::-1] / (noise**2 * gap)
    degree = next(k for k in powers if k == _DEGREES or left[k + 1] < (30 * tolerance) ** 2)
    kept = series[:, : degree + 1].copy()
    kept[:, 1] = np.sqrt(kept[:, 1] ** 2 + (series[:, degree + 1 :] ** 2).sum(axis=1))
    kept /= norm[: degree + 1]
    plain = np.array([np.polynomial.hermite_e.herme2poly(row) for row in _padded(kept)])
    return Moves(nodes, plain.T, math.sqrt(off + left[degree + 1]))


def _padded(rows: Array) -> Array:
    """Rows whose last entry is not exactly zero, which ``herme2poly`` would trim."""
    result = rows.copy()
    result[:, -1] += np.where(result[:, -1] == 0, 1e-300, 0.0)
    return result


def _conditional(
    flow: Flow,
    noise: float,
    step: float,
    count: int,
    u: Array,
    reach: tuple[float, float],
    x: Array,
) -> Array:
    """Quantiles at the scores ``x`` after ``count >= 2`` steps from each ``u``, (u, x)."""
    half, full, sd = flow.of(step / 2), flow.of(step), noise * math.sqrt(step)
    nodes = _even(*reach, SPACING * sd)
    mean = full(nodes)
    p = _kernel(half(u), sd, nodes, SPACING * sd)
    if count > 2:
        kernel = _kernel(mean, sd, nodes, SPACING * sd)
        for _ in range(count - 2):
            p = p @ kernel
    return half(_inverse(_scores(p, mean, sd, nodes), nodes, x))


def spread(u: Array, scores: Array) -> Array:
    """A law given at ``SCORES``, at other scores."""
    return np.asarray(CubicSpline(SCORES, u)(scores))

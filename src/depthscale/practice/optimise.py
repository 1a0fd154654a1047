r"""The dropout schedule that is best for one objective within a budget.

Linear objectives fill the sites with the largest coefficients; the paper's surrogate is concave in
the fields, so that saturated schedules ``{floor, cap}`` with at most one partial site are best
(2605.21648): both exactly. All others are followed through the exact recursion: projected gradient
steps with derivatives by backward recursion, from the best of many starts, and then exchanges of
rate between two sites until none helps. Such an optimum is a local one; ``Certificate`` says how
good it is. Beyond some 200 sites both are cut short, so that a thousand sites take .3 to 3 s: there
``exposure`` and ``gradient`` improve on every profile but do not converge, which the certificate's
residual tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from depthscale.answers import InputError, Quantity
from depthscale.practice.objectives import (
    SENSE,
    Landscape,
    Objective,
    check,
)
from depthscale.practice.schedule import PROFILES, Budget, Schedule, filled, profile
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

PERMUTATIONS = 1000
STEEPEST = 1e6  # derivatives beyond this (a kink's, at a rate of 0) are cut off
ROUNDING = 1e-9  # relative gain that counts as none
SHARES = (1.0, 0.5, 0.25, 0.1, 0.02, 0.003)


@dataclass(frozen=True)
class Certificate:
    """How good a schedule is for its objective and budget.

    ``exact``: a global optimum by theory (linear, or concave over the budget). ``kkt_residual``:
    half of what a derivative at a site that could give exceeds one at a site that could take by,
    over the median size of the derivatives at the uniform schedule (0 where stationary).
    ``budget_violation``: of the mean, or of a bound. ``at_cap, at_floor, partial``: sites.
    ``best_exchange``: relative gain of the best exchange of rate between two sites that was tried.
    """

    exact: bool
    kkt_residual: float
    budget_violation: float
    at_cap: int
    at_floor: int
    partial: int
    best_exchange: float

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        return {**vars(self)}


@dataclass(frozen=True)
class Comparison:
    """One objective of a schedule, of a uniform one, the mirrored and randomly permuted ones.

    ``best_random`` is the best of 1,000 permutations, for this objective; ``surrogate`` what the
    paper puts in its place, of the schedule and of the uniform one.
    """

    schedule: Quantity
    uniform: Quantity
    mirrored: Quantity
    best_random: Quantity
    more_is_better: bool
    surrogate: tuple[float, float] | None = None


@dataclass(frozen=True)
class Evaluation:
    """Every objective of one schedule."""

    schedule: Schedule
    objectives: dict[str, Comparison]


@dataclass(frozen=True)
class Optimum(Evaluation):
    """The best schedule found for an objective; ``gain`` is that of its loss over uniform.

    ``gain`` is relative to the size of the loss at the uniform schedule (see
    ``Landscape.losses``: logarithms for some); ``helps`` whether it exceeds rounding.
    """

    objective: str
    budget: Budget
    certificate: Certificate
    gain: float

    @property
    def helps(self) -> bool:
        """Whether the schedule is better than the uniform one by more than rounding."""
        return self.gain > ROUNDING


def evaluate_schedule(
    network: MeanField,
    schedule: Schedule,
    eps0: float = 0.5,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Evaluation:
    """Every objective of a given schedule, beside uniform, mirrored and permuted ones.

    Raises
    ------
    InputError
        A network that ``Landscape`` does not take.

    Examples
    --------
    >>> relu = MeanField("relu", sigma_w=2**0.5)
    >>> found = evaluate_schedule(relu, Schedule([0.2, 0.2, 0.2, 0, 0, 0]))
    >>> round(found.objectives["signal"].schedule, 6)
    2.168835
    """
    x = np.array(schedule.rates)
    scene = Landscape(network, x.size, schedule.mean, max(schedule.rates), eps0)
    return Evaluation(schedule, _compare(scene, x, None, permutations, seed))


def optimise_schedule(
    network: MeanField,
    depth: int,
    budget: Budget,
    objective: Objective = "noise",
    eps0: float = 0.5,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> Optimum:
    """The schedule of ``depth`` sites within ``budget`` that is best for ``objective``.

    Parameters
    ----------
    network:
        Independent masks, no residual branch; its own ``drop`` is not used.
    depth:
        Number of sites, from 1.
    objective:
        A name of ``SENSE``; weights ``{name: weight}``; or a function of schedules (N, L) that
        returns N numbers of which less is better.
    eps0:
        Misalignment of the pair of ``snr``.
    seed:
        Of the random starts and permutations.

    Raises
    ------
    InputError
        An objective or argument that is unknown or out of range.

    Examples
    --------
    >>> relu = MeanField("relu", sigma_w=2**0.5)
    >>> optimise_schedule(relu, 6, Budget(mean=0.1, cap=0.2), "signal").schedule.rates
    (0.0, 0.0, 0.0, 0.2, 0.2, 0.2)
    """
    for name in [objective] if isinstance(objective, str) else _names(objective):
        check(name)
    mean = budget.mean_at(depth)
    scene = Landscape(network, depth, mean, budget.cap, eps0, budget.of)
    uniform = np.full(depth, mean)
    exact = _exact(scene, budget, objective)
    x = uniform if exact is None else exact
    best_exchange = 0.0
    if exact is None and budget.floor < mean < budget.cap and depth > 1:
        x = _descend(scene, budget, objective, _starts(budget, depth, seed))
        for _ in range(3):
            x, best_exchange = _exchange(scene, budget, objective, x)
            if depth > 200:
                break
            before, x = x, _descend(scene, budget, objective, x[None])
            if np.array_equal(before, x):
                break
        x = _snapped(scene, budget, objective, x)
    losses = scene.losses(objective, np.stack([x, uniform]))
    if not losses[0] < losses[1] and exact is None:
        x, losses[0] = uniform, losses[1]
    gain = (
        float((losses[1] - losses[0]) / max(abs(losses[1]), 1e-12))
        if np.isfinite(losses[1])
        else 0.0
    )
    rates = x if budget.of == "drop" else scene.recursion.follow(x[None], (0.0,)).drop[:, 0]
    certificate = _certificate(scene, budget, objective, x, exact is not None, best_exchange)
    return Optimum(
        Schedule(tuple(rates.tolist())),
        _compare(scene, x, objective, permutations, seed),
        objective if isinstance(objective, str) else _title(objective),
        budget,
        certificate,
        gain,
    )


def _names(objective: Objective) -> list[str]:
    """Names that an objective is made of."""
    if callable(objective):
        return []
    if not isinstance(objective, Mapping):
        raise InputError(
            f"objective is {objective!r}; expected a name, {{name: weight}} or a function"
        )
    return list(objective)


def _title(objective: Objective) -> str:
    return "user" if callable(objective) else "mix"


def _exact(scene: Landscape, budget: Budget, objective: Objective) -> Array | None:
    """The optimum where theory tells it: linear objectives, and the concave surrogate."""
    if not isinstance(objective, str):
        return None
    weights = budget.weights_at(scene.depth)
    value = scene.linear(objective)
    if value is None and (objective != "xi" or budget.weights is not None):
        return None
    per_unit = -np.arange(scene.depth) if value is None else value / weights
    x = np.full(scene.depth, budget.floor)
    left = (scene.mean - budget.floor) * float(weights.sum())
    for site in np.argsort(-per_unit, kind="stable"):
        x[site] += min(budget.cap - budget.floor, max(left, 0.0) / weights[site])
        left -= (x[site] - budget.floor) * weights[site]
    return _at_bounds(x, budget)


def _at_bounds(x: Array, budget: Budget) -> Array:
    """Sites within rounding of a bound put onto it."""
    near = 1e-12 * budget.cap
    x = np.where(x > budget.cap - near, budget.cap, x)
    return np.where(x < budget.floor + near, budget.floor, x)


def _snapped(scene: Landscape, budget: Budget, objective: Objective, x: Array) -> Array:
    """The same without rounding at the bounds, unless that makes it worse."""
    clean = _at_bounds(x, budget)
    losses = scene.losses(objective, np.stack([clean, x]))
    return clean if losses[0] <= losses[1] and budget.violation(clean) < 1e-13 else x


def _starts(budget: Budget, depth: int, seed: int) -> Array:
    """Profiles, saturated blocks at up to 24 places, saturated ends, and random ones."""
    mean, cap, rng = budget.mean_at(depth), budget.cap, np.random.default_rng(seed)
    rows = [
        np.array(profile(name, depth, mean, cap).rates) for name in PROFILES if name != "random"
    ]
    block = filled(depth, mean - budget.floor, cap - budget.floor) + budget.floor
    active = int(np.count_nonzero(block > budget.floor))
    for shift in np.unique(np.linspace(0, depth - active, 24).round().astype(int)):
        rows += [
            np.roll(block, shift),
            np.roll(block[:active][::-1].tolist() + block[active:].tolist(), shift),
        ]
    ends = np.stack([np.arange(depth), np.arange(depth)[::-1]], axis=1).ravel()[:depth]
    rows.append(budget.floor + filled(depth, mean - budget.floor, cap - budget.floor, ends))
    rows += [rng.permutation(block) for _ in range(8)]
    # some of each, so that no start sits where a derivative is infinite
    return budget.project(np.array([*rows, *(0.9 * row + 0.1 * mean for row in rows[:13])]))


def _descend(scene: Landscape, budget: Budget, objective: Objective, starts: Array) -> Array:
    """Projected gradient steps of Barzilai and Borwein's size, kept where they are downhill."""
    f = scene.losses(objective, starts)
    best = np.argsort(f, kind="stable")[: 10 if scene.depth <= 100 else 4]
    x, f = starts[best], f[best]
    g = np.clip(scene.gradients(objective, x), -STEEPEST, STEEPEST)
    size = 0.3 * budget.cap / np.maximum(abs(g).max(axis=1), 1e-300)
    for _ in range(int(np.clip(8000 / scene.depth, 6, 200))):
        y = budget.project(x - size[:, None] * g)
        step = y - x
        if not np.any(abs(step).max(axis=1) > 1e-12):
            break
        new, slope = scene.losses_and_gradients(objective, y)
        good, slope = new < f, np.clip(slope, -STEEPEST, STEEPEST)
        bend = (step * (slope - g)).sum(axis=1)
        longer = np.where(bend > 0, (step**2).sum(axis=1) / np.where(bend > 0, bend, 1.0), 4 * size)
        size = np.where(good, np.clip(longer, size / 100, size * 100), size / 5)
        x, g = np.where(good[:, None], y, x), np.where(good[:, None], slope, g)
        f = np.where(good, new, f)
    return np.asarray(x[np.argmin(f)])


def _exchange(
    scene: Landscape, budget: Budget, objective: Objective, x: Array
) -> tuple[Array, float]:
    """Move rate between two sites while that helps; also the relative gain of the last best move.

    All pairs of up to 24 sites, else those of the sites whose derivatives promise most.
    """
    weights, few = budget.weights_at(scene.depth), scene.depth <= 24
    gain = 0.0
    for _ in range(60 if few else 12 if scene.depth <= 200 else 2):
        moved = _moves(scene, budget, objective, x, weights)
        if not len(moved):
            return x, 0.0
        losses = scene.losses(objective, np.concatenate([x[None], moved]))
        best = int(np.argmin(losses[1:]))
        gain = float((losses[0] - losses[1 + best]) / max(abs(float(losses[0])), 1e-12))
        if gain <= 1e-13:
            return x, max(gain, 0.0)
        x = moved[best]
    return x, gain


def _moves(
    scene: Landscape, budget: Budget, objective: Objective, x: Array, weights: Array
) -> Array:
    """Schedules that differ from ``x`` by what one site gives to another."""
    give, take = (x - budget.floor) * weights, (budget.cap - x) * weights
    givers, takers = np.flatnonzero(give > 1e-15), np.flatnonzero(take > 1e-15)
    most = 24 if scene.depth <= 200 else 8
    if scene.depth > 24:
        slope = scene.gradients(objective, x[None])[0] / weights
        givers = givers[np.argsort(-slope[givers], kind="stable")[:most]]
        takers = takers[np.argsort(slope[takers], kind="stable")[:most]]
    i, j = (a.ravel() for a in np.meshgrid(givers, takers, indexing="ij"))
    i, j = i[i != j], j[i != j]
    room = np.minimum(give[i], take[j])
    shares = SHARES if scene.depth <= 200 else (1.0, 0.1)
    amounts = [share * room for share in shares]
    swap = (x[i] - x[j]) * weights[i]
    amounts.append(np.where((swap > 0) & (swap < room), swap, room / 3))
    moved = np.tile(x, (len(amounts), len(i), 1))
    rows = np.arange(len(i))
    for sheet, amount in zip(moved, amounts, strict=True):
        sheet[rows, i] = np.maximum(sheet[rows, i] - amount / weights[i], budget.floor)
        sheet[rows, j] = np.minimum(sheet[rows, j] + amount / weights[j], budget.cap)
    return moved.reshape(-1, scene.depth)


def _certificate(
    scene: Landscape,
    budget: Budget,
    objective: Objective,
    x: Array,
    exact: bool,
    best_exchange: float,
) -> Certificate:
    near = 1e-10 * max(budget.cap, 1e-300)
    up, down = x > budget.floor + near, x < budget.cap - near
    residual = 0.0
    if up.any() and down.any():
        both = scene.gradients(objective, np.stack([x, np.full(x.size, scene.mean)]))
        slope, uniform = np.clip(both, -STEEPEST, STEEPEST) / budget.weights_at(x.size)
        excess = max(0.0, float(slope[up].max() - slope[down].min()) / 2)
        residual = excess / max(float(np.median(abs(uniform))), 1e-12)
    return Certificate(
        exact,
        residual,
        budget.violation(x),
        int((~down).sum()),
        int((~up & down).sum()),
        int((up & down).sum()),
        best_exchange,
    )


def _compare(
    scene: Landscape, x: Array, objective: Objective | None, permutations: int, seed: int
) -> dict[str, Comparison]:
    """Every objective of a schedule and of those it is held against."""
    rng = np.random.default_rng(seed)
    uniform = np.full(scene.depth, scene.mean)
    shuffled = rng.permuted(np.tile(x, (permutations, 1)), axis=1)
    rows = np.minimum(np.concatenate([[x, uniform, x[::-1]], shuffled]), scene.cap)
    found = {}
    names = [n for n in SENSE if scene.lawful or n not in ("xi", "reach")]
    for name, values in scene.table(rows, names).items():
        sign = SENSE[name]
        order = values[3:] if permutations else values[:1]
        random = sign * float(np.max(sign * order))
        beside = scene.surrogate(name, rows[:2]) if scene.lawful else None
        own, same, back, best = (scene.quantity(name, float(v)) for v in (*values[:3], random))
        pair = None if beside is None else (float(beside[0]), float(beside[1]))
        found[name] = Comparison(own, same, back, best, sign > 0, pair)
    if objective is not None and not isinstance(objective, str):
        values = scene.losses(objective, rows)
        random = float(np.min(values[3:])) if permutations else float(values[0])
        own, same, back = values[:3].tolist()
        found[_title(objective)] = Comparison(own, same, back, random, False)
    return found

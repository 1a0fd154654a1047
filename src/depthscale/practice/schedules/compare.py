"""Every objective of a schedule beside those of the uniform, mirrored and permuted ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depthscale.answers import Quantity
from depthscale.practice.schedule import Budget, Schedule
from depthscale.practice.schedules.objectives import SENSE, Landscape, Objective, quantity
from depthscale.theory.gaussian import Array

PERMUTATIONS = 1000
MANY = 100_000  # rates of all permutations, beyond which the best are found roughly first


@dataclass(frozen=True)
class Comparison:
    """One objective of a schedule, of a uniform one, the mirrored and randomly permuted ones.

    ``best_random`` is the best of 1,000 permutations, for this objective; ``surrogate`` what the
    paper puts in its place, of the schedule and of the uniform one. Where sites weigh differently,
    the mirrored and permuted schedules are the nearest ones to these that meet the budget.
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


def compare(
    scene: Landscape,
    x: Array,
    objective: Objective | None = None,
    budget: Budget | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Every objective of a schedule, and a mix or a function of the user's, with its rivals."""
    uniform, shuffled = np.full(scene.depth, scene.mean), _shuffled(x, permutations, seed)
    rivals = np.concatenate([x[::-1][None], shuffled])
    if budget is not None and len(set(budget.weights or ())) > 1:
        rivals = budget.project(rivals)
    named = np.minimum(np.concatenate([[x, uniform], rivals[:1]]), scene.cap)
    shuffled = np.minimum(rivals[1:] if permutations else x[None], scene.cap)
    own, orders = scene.table(named, scene.names), _best_of(scene, shuffled)
    found = {}
    for name, values in own.items():
        beside = scene.surrogate(name, named[:2])
        first, same, back = (quantity(name, float(v)) for v in values)
        best = quantity(name, orders[name])
        pair = None if beside is None else (float(beside[0]), float(beside[1]))
        found[name] = Comparison(first, same, back, best, SENSE[name] > 0, pair)
    if objective is not None and not isinstance(objective, str):
        first, same, back = scene.losses(objective, named).tolist()
        least = float(scene.losses(objective, shuffled).min())
        found[title(objective)] = Comparison(first, same, back, least, False)
    return found


def title(objective: Objective) -> str:
    """Name of an objective in tables."""
    if isinstance(objective, str):
        return objective
    return "user" if callable(objective) else "mix"


def _shuffled(x: Array, permutations: int, seed: int) -> Array:
    return np.random.default_rng(seed).permuted(np.tile(x, (permutations, 1)), axis=1)


def _best_of(scene: Landscape, rows: Array) -> dict[str, float]:
    """The best value of each objective; of many long schedules, of those that roughly are best."""
    if rows.size > MANY:
        table = scene.rough().table(rows, scene.names)
        best = [int(np.argmax(SENSE[name] * values)) for name, values in table.items()]
        rows = rows[best]
    exact = scene.table(rows, scene.names)
    return {n: float(SENSE[n] * np.max(SENSE[n] * values)) for n, values in exact.items()}

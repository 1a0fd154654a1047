r"""Optima that are known to be global, and why.

- An objective that is linear in the schedule fills the sites with the largest coefficients per
  weight: a fractional knapsack.
- The surrogate ``sum_l D(x_l)`` is concave and the same for all sites, so that some optimum is an
  extreme point of the budget: sites at the floor or the cap, and at most one between. With ``C``
  the part of the budget above the floor in units of ``cap - floor``, ``S`` the sites at the cap and
  ``f`` the fraction of the partial one, ``w(S) + f w_p = C``; its cost grows with ``|S|`` and, by
  less than one site, with ``f``. So ``|S|`` is one less than the fewest sites that hold ``C``, and
  among those ``f`` is least. For sites of few weights, counts of each weight are all tried.
- A variance that is zero cannot be less: for ``gradient``, rates that give all layers one factor.
"""

from __future__ import annotations

import numpy as np

from depthscale.practice.schedule import Budget
from depthscale.practice.schedules.objectives import Landscape, Objective
from depthscale.theory.gaussian import Array

MOST_COUNTS = 2**20  # ways to choose how many sites of each weight are saturated
LEVELS, ROUNDS = 64, 4  # growth factors that are tried at a time, and times

ALIKE = 1e-12  # relative field of a unit of rate at two sites

LINEAR = "global: the objective is linear in the schedule"
CONCAVE = "global: the surrogate is concave and all saturated schedules were compared"
LEVEL = "global: the variance is zero"


def known_optimum(scene: Landscape, budget: Budget, objective: Objective) -> tuple[Array, str]:
    """The optimum and why it is one; no proof (``""``) where there is only a good start.

    Of an objective that has neither, the uniform schedule.
    """
    none = np.full(scene.depth, scene.mean), ""
    if not isinstance(objective, str):
        return none
    value = scene.linear(objective)
    if value is not None:
        return budget.maximise(value), LINEAR
    if objective == "xi":
        x, proof = saturated(scene, budget)
        # Where a rate makes other fields at other sites, they are not alike; the rates are a start.
        return x, proof if np.ptp(scene.paper.share) <= ALIKE else ""
    if objective == "gradient":
        x = none[0]
        if scene.losses("gradient", x[None])[0] > 0:
            x = budget.project(levelled(scene, budget))
        return x, LEVEL if scene.losses("gradient", x[None])[0] == 0 else ""
    return none


def at_bounds(x: Array, budget: Budget) -> Array:
    """Sites within rounding of a bound put onto it."""
    near = 1e-12 * budget.cap
    x = np.where(x > budget.cap - near, budget.cap, x)
    return np.where(x < budget.floor + near, budget.floor, x)


def saturated(scene: Landscape, budget: Budget) -> tuple[Array, str]:
    """The fewest saturated sites, from the front within each weight, and whether that is proven."""
    weights = budget.weights_at(scene.depth)
    if scene.mean >= budget.cap or scene.mean <= budget.floor or budget.weights is None:
        return budget.maximise(-np.arange(scene.depth) * weights), CONCAVE
    heavy = budget.maximise((weights - 1e-9 * np.arange(scene.depth)) * weights)
    held = (scene.mean - budget.floor) / (budget.cap - budget.floor) * float(weights.sum())
    kinds, counts = np.unique(weights, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the most frequent weight last: it follows
    kinds, counts = kinds[order], counts[order]
    if np.prod(counts[:-1] + 1.0) > MOST_COUNTS:
        return heavy, ""
    heaviest = np.cumsum(np.sort(weights)[::-1])
    whole = int(np.searchsorted(heaviest, held * (1 - 1e-12)))  # saturated besides the partial one
    axes = np.meshgrid(*(np.arange(n + 1) for n in counts[:-1]), indexing="ij")
    tried = np.stack([a.ravel() for a in axes], axis=1) if axes else np.zeros((1, 0), dtype=int)
    tried = np.hstack([tried, whole - tried.sum(axis=1, keepdims=True)])
    tried = tried[(tried[:, -1] >= 0) & (tried[:, -1] <= counts[-1])]
    fraction = (held - tried @ kinds)[:, None] / kinds
    allowed = (tried < counts) & (fraction > -1e-12) & (fraction <= 1 + 1e-12)
    best, partial = np.unravel_index(np.argmin(np.where(allowed, fraction, np.inf)), fraction.shape)
    x = np.full(scene.depth, budget.floor)
    for kind, count in zip(kinds, tried[best], strict=True):
        x[np.flatnonzero(weights == kind)[:count]] = budget.cap
    place = np.flatnonzero((weights == kinds[partial]) & (x == budget.floor))[0]
    share = min(max(float(fraction[best, partial]), 0.0), 1.0)
    x[place] += share * (budget.cap - budget.floor)
    return at_bounds(x, budget), CONCAVE


def levelled(scene: Landscape, budget: Budget) -> Array:
    """Rates that give every layer one growth factor, as far as the bounds allow.

    At the factor ``c`` and the length that a layer meets, ``1/rho = (c - skip^2)/(sigma_w^2 M)``;
    the factor that meets the budget is bracketed again and again.
    """
    ends = np.full((2, scene.depth), [[budget.floor], [budget.cap]])
    steps = scene.recursion.follow(ends, (0.0,))
    log = scene.recursion.factors(steps)[0]
    low, high = float(log.min()), float(log.max())
    weights, x = budget.weights_at(scene.depth), ends
    share = weights / weights.sum()
    for _ in range(ROUNDS):
        levels = np.linspace(low, high, LEVELS)
        x = _at_levels(scene, budget, levels)
        above = int(np.clip(np.searchsorted(x @ share, scene.mean), 1, LEVELS - 1))
        low, high, x = levels[above - 1], levels[above], x[above - 1 : above + 1]
    below, over = x @ share
    part = (scene.mean - below) / (over - below) if over > below else 0.0
    return np.asarray(x[0] + part * (x[1] - x[0]))


def _at_levels(scene: Landscape, budget: Budget, levels: Array) -> Array:
    """Rates (N, L) that give every layer one of N logarithms of its factor."""
    on, layers = scene.recursion, scene.recursion.layers
    q, rows, sites = np.full(levels.size, on.q0), np.zeros((len(layers), levels.size)), layers.sites
    with_site = np.isin(np.arange(len(layers)), sites)
    for k in range(len(layers)):
        scales = on.scales(q, k)
        h = np.zeros(levels.size)
        if with_site[k]:
            branch = np.maximum(np.exp(levels) - layers.skip[k], 1e-300)
            rate = np.clip(1 - scales.slope_moment / branch, 0.0, 1.0)
            x = rate if on.kind == "drop" else scales.field(rate)
            rows[k] = np.clip(x, budget.floor, budget.cap)
            h = scales.field(rows[k]) if on.kind == "drop" else rows[k]
        if not on.free:
            q = np.clip(scales.clean / (1 - h), on.table.low, on.table.high)
    return layers.gathered(rows)

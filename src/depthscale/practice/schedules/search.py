"""Local search for the schedule of the least loss: from many starts, downhill, then exchanges.

Steps are those of Barzilai and Borwein along the projected gradient, kept where they are downhill;
an exchange moves rate from one site to another, which gets out of the corners that saturated
schedules sit in.
"""

from __future__ import annotations

import numpy as np

from depthscale.practice.schedule import PROFILES, Budget, filled, profile
from depthscale.practice.schedules.objectives import Landscape, Objective
from depthscale.theory.gaussian import Array

STEEPEST = 1e6  # derivatives beyond this (a kink's, at a rate of 0) are cut off
SHARES = (1.0, 0.5, 0.25, 0.1, 0.02, 0.003)
DEEP = 200  # sites beyond which every step is dear
AHEAD = (0, 1, 2, 3, 4, 5, 6, 8)  # sites in front of the evenly spread ones
STEPS, FEW_STEPS = 200, 60


def search(
    scene: Landscape, budget: Budget, objective: Objective, start: Array, seed: int
) -> tuple[Array, float]:
    """The best schedule found, and the relative gain of the best exchange that was left."""
    starts = np.concatenate([start[None], _starts(budget, scene.depth, seed)])
    x, left = _descend(scene, budget, objective, starts), 0.0
    for _ in range(3):
        x, left = _exchange(scene, budget, objective, x)
        before, x = x, _descend(scene, budget, objective, x[None])
        if np.array_equal(before, x):
            break
    return x, left


def _starts(budget: Budget, depth: int, seed: int) -> Array:
    """Profiles, saturated blocks at up to 24 places, saturated ends, random and even ones."""
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
    for ahead in AHEAD:
        even = _evenly(budget, depth, min(ahead, depth))
        rows += [even, even[::-1]]
    # some of each, so that no start sits where a derivative is infinite
    return budget.project(np.array([*rows, *(0.9 * row + 0.1 * mean for row in rows[:13])]))


def _evenly(budget: Budget, depth: int, ahead: int) -> Array:
    """``ahead`` saturated sites in front, then as many as the mean asks for, evenly spread.

    Where noise relaxes within some layers, this is what keeps it high throughout.
    """
    density = (budget.mean_at(depth) - budget.floor) / max(budget.cap - budget.floor, 1e-300)
    turns = np.diff(np.floor(np.arange(depth - ahead + 1) * density + 1e-9)) > 0
    chosen = np.concatenate([np.arange(ahead), ahead + np.flatnonzero(turns)])
    order = np.concatenate([chosen, np.setdiff1d(np.arange(depth), chosen)])
    mean, level = budget.mean_at(depth) - budget.floor, budget.cap - budget.floor
    return budget.floor + filled(depth, mean, level, order)


def _descend(scene: Landscape, budget: Budget, objective: Objective, starts: Array) -> Array:
    """Projected gradient steps of Barzilai and Borwein's size, kept where they are downhill."""
    deep = scene.depth > DEEP
    quick = scene.rough() if deep and len(starts) > 4 else scene
    f = quick.losses(objective, starts)
    x = starts[np.argsort(f, kind="stable")[: 4 if deep else 10]]
    f, g = scene.losses_and_gradients(objective, x)
    g = np.clip(g, -STEEPEST, STEEPEST)
    size = 0.3 * budget.cap / np.maximum(abs(g).max(axis=1), 1e-300)
    for _ in range(FEW_STEPS if deep else STEPS):
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
    for _ in range(60 if few else 12 if scene.depth <= DEEP else 2):
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
    most = 24 if scene.depth <= DEEP else 8
    if scene.depth > 24:
        slope = scene.gradients(objective, x[None])[0] / weights
        givers = givers[np.argsort(-slope[givers], kind="stable")[:most]]
        takers = takers[np.argsort(slope[takers], kind="stable")[:most]]
    i, j = (a.ravel() for a in np.meshgrid(givers, takers, indexing="ij"))
    i, j = i[i != j], j[i != j]
    room = np.minimum(give[i], take[j])
    shares = SHARES if scene.depth <= DEEP else (1.0, 0.1)
    amounts = [share * room for share in shares]
    swap = (x[i] - x[j]) * weights[i]
    amounts.append(np.where((swap > 0) & (swap < room), swap, room / 3))
    moved = np.tile(x, (len(amounts), len(i), 1))
    rows = np.arange(len(i))
    for sheet, amount in zip(moved, amounts, strict=True):
        sheet[rows, i] = np.maximum(sheet[rows, i] - amount / weights[i], budget.floor)
        sheet[rows, j] = np.minimum(sheet[rows, j] + amount / weights[j], budget.cap)
    return moved.reshape(-1, scene.depth)

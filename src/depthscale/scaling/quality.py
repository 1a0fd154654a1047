r"""How well curves fall onto each other by Houdayer and Hartmann's measure, which needs no curve.

Every scaled point is compared with a straight line through its neighbours on the other curves,

    S = (1/N) sum_i (y_i - Y_i)^2 / (dy_i^2 + dY_i^2),

over the N points that have neighbours on both sides. ``Y_i`` is a weighted sum of the neighbours,
so that the terms are linear in what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthscale.scaling.bases import Array
from depthscale.scaling.fit import Fit

AROUND = 8
"""Neighbours of a point in the plane of two arguments, which has no order."""

FLAT = 1e-10
"""Of the neighbours' spread, what keeps a line defined that goes through one place."""

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Pairs:
    """Points and their neighbours: ``point[k]`` has the neighbour ``other[k]``."""

    point: Rows
    other: Rows


@dataclass(frozen=True)
class Terms:
    """What S is the mean square of.

    Attributes
    ----------
    point:
        The points that have neighbours, [N].
    residual:
        ``(y - Y)/sqrt(dy^2 + dY^2)`` of those, [N].
    pairs, weight:
        ``Y = sum weight y[other]`` over the pairs of a point.
    spread:
        ``sqrt(dy^2 + dY^2)``, [N].
    """

    point: Rows
    residual: Array
    pairs: Pairs
    weight: Array
    spread: Array

    @property
    def quality(self) -> float:
        """S, which is about 1 where curves collapse within their errors."""
        return float(np.mean(self.residual**2)) if self.residual.size else np.inf


class Quality:
    """S of the points of a fit at any parameters."""

    def __init__(self, fit: Fit) -> None:
        self.fit, self.points = fit, fit.problem.points
        self.labels = self.points.columns[self.points.size]

    def terms(self, free: Array, pairs: Pairs | None = None) -> Terms | None:
        """The terms at these parameters, with their own neighbours or those of another place.

        None where the form has no value or no point has neighbours.
        """
        with np.errstate(all="ignore"):
            found = self.fit.problem.scaled(free)
            size = found.prefactor
            places = self._places(list(found.arguments))
            y, error = self.points.y / size, self.points.error / np.abs(size)
            if not all(np.isfinite(part).all() for part in (places, y, error)):
                return None
        if pairs is None:
            pairs = self._pairs(places)
        return _terms(places, y, error, pairs) if pairs.point.size else None

    def _places(self, arguments: list[Array]) -> Array:
        """Where the points are, [argument, n]; two arguments on the scales of the fit."""
        if len(arguments) == 1:
            return arguments[0][None]
        kept = zip(self.fit.basis.warps, arguments, self.fit.trial.warped, strict=True)
        return np.stack([warp.again(x, like) for warp, x, like in kept])

    def _pairs(self, places: Array) -> Pairs:
        found = _along(places[0], self.labels) if len(places) == 1 else _near(places, self.labels)
        listed = list(found)
        empty = np.empty(0, dtype=np.intp)
        return Pairs(
            np.concatenate([empty, *(point for point, _ in listed)]),
            np.concatenate([empty, *(other for _, other in listed)]),
        )


def _along(x: Array, labels: Array) -> Iterator[tuple[Rows, Rows]]:
    """The two points of every other curve between which a point lies."""
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if len(own) < 2:
            continue
        own = own[np.argsort(x[own], kind="stable")]
        line = x[own]
        inside = np.flatnonzero((labels != label) & (x >= line[0]) & (x <= line[-1]))
        place = np.clip(np.searchsorted(line, x[inside], side="right"), 1, len(line) - 1)
        yield inside, own[place - 1]
        yield inside, own[place]


def _near(places: Array, labels: Array) -> Iterator[tuple[Rows, Rows]]:
    """The nearest points of other sizes, where they lie around a point."""
    from scipy.spatial import cKDTree

    for label in np.unique(labels):
        own, others = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        if len(others) < AROUND:
            continue
        _, nearest = cKDTree(places[:, others].T).query(places[:, own].T, AROUND)
        around = others[nearest]
        there = places[:, around]
        at = places[:, own]
        within = ((there.min(axis=2) <= at) & (at <= there.max(axis=2))).all(axis=0)
        yield np.repeat(own[within], AROUND), around[within].ravel()


def _terms(places: Array, y: Array, error: Array, pairs: Pairs) -> Terms:
    """Straight lines (planes) through the neighbours, weighted by their errors."""
    n, point, other = len(y), pairs.point, pairs.other
    certain = 1 / error[other] ** 2
    total = np.bincount(point, certain, n)
    used = np.flatnonzero(total > 0)
    design = [np.ones(len(point))]
    for x in places:
        step = x[other] - x[point]
        wide = np.sqrt(np.bincount(point, certain * step**2, n) / np.maximum(total, 1e-300))
        design.append(step / np.where(wide > 0, wide, 1.0)[point])
    share = certain / total[point]
    normal = np.array(
        [[np.bincount(point, share * a * b, n)[used] for a in design] for b in design]
    ).transpose(2, 0, 1)
    normal[:, range(1, len(design)), range(1, len(design))] += FLAT
    height = np.linalg.inv(normal)[:, 0]
    of_point = np.empty(n, dtype=np.intp)
    of_point[used] = np.arange(len(used))
    weight = share * np.einsum("kd,dk->k", height[of_point[point]], np.array(design))
    line = np.bincount(point, weight * y[other], n)[used]
    uncertain = np.bincount(point, (weight * error[other]) ** 2, n)[used]
    spread = np.sqrt(error[used] ** 2 + uncertain)
    return Terms(used, (y[used] - line) / spread, pairs, weight, spread)


def minimised(quality: Quality, start: Array, unit: Array) -> Array | None:
    """The parameters of least S next to a start; places that lose half of the terms are out."""
    from scipy.optimize import minimize

    first = quality.terms(start)
    if first is None:
        return None
    least = len(first.residual) / 2

    def cost(z: Array) -> float:
        found = quality.terms(start + z * unit)
        if found is None or len(found.residual) < least:
            return np.inf
        return found.quality

    place = np.zeros(len(start))
    for width in (2.0, 0.5):
        simplex = np.concatenate([place[None], place + width * np.eye(len(start))])
        found = minimize(
            cost,
            place,
            method="Nelder-Mead",
            options={
                "initial_simplex": simplex,
                "maxfev": 150 * len(start),
                "xatol": 0.01,
                "fatol": 1e-5,
            },
        )
        place = np.asarray(found.x)
    return np.asarray(start + place * unit)


def propagated(quality: Quality, best: Array, unit: Array) -> tuple[Array, Array]:
    """Standard errors from the noise of the points, and the distances at which S rises by 1.

    Near its least, ``N S = |r|^2`` with ``r`` linear in y: a parameter moves with the noise by
    ``-(J'J)^-1 J' dr/dy`` with ``J = dr/dtheta`` for the neighbours at hand. Derived here.
    """
    here = quality.terms(best)
    if here is None:
        return np.full((2, len(best)), np.nan)[0], np.full(len(best), np.nan)
    columns = []
    for k in range(len(best)):
        step = np.zeros(len(best))
        step[k] = 0.1 * unit[k]
        up, down = quality.terms(best + step, here.pairs), quality.terms(best - step, here.pairs)
        if up is None or down is None:
            return np.full(len(best), np.nan), np.full(len(best), np.nan)
        columns.append((up.residual - down.residual) / (2 * step[k]))
    jacobian = np.stack(columns, axis=1)
    pull = np.linalg.pinv(jacobian)
    scale = quality.fit.problem.scaled(best).prefactor
    response = -_backwards(here, pull, len(scale)) / scale
    noise = np.sqrt(np.diag(quality.points.noise(response)))
    if not quality.points.errors_known:
        noise = noise * np.sqrt(here.quality)
    rise = np.sqrt(len(here.residual) * (pull**2).sum(axis=1))
    return noise, rise


def _backwards(here: Terms, pull: Array, n: int) -> Array:
    """``pull @ dr/dy`` for the scaled ``y``, [parameter, n]."""
    out = np.zeros((len(pull), n))
    of_point = np.full(n, -1)
    of_point[here.point] = np.arange(len(here.point))
    k = of_point[here.pairs.point]
    for row, along in zip(out, pull / here.spread, strict=True):
        row[here.point] += along
        row -= np.bincount(here.pairs.other, along[k] * here.weight, n)
    return out

"""Families of master curves: which are tried, which count, and how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from depthscale.scaling.bases import Array, Basis, Warp
from depthscale.scaling.fit import ROUGH, Fit, Problem, solve

SIZES = (5, 6, 7, 8, 10, 12, 14, 17, 20, 24)
SIZES_OF_TWO = (4, 5, 6, 8, 10, 13)
"""Coefficients along an argument that are tried, where there is one and where there are two."""

DECADES = 1.0
"""Spread of a positive argument from which on a logarithmic scale is tried."""

IRRELEVANT = 12.0
"""Difference of the criterion at which a curve no longer counts: a weight of exp(-6)."""


def families(problem: Problem, free: Array) -> Iterator[list[Basis]]:
    """Families of bases that are tried, each by ascending size."""
    arguments = problem.scaled(free).arguments
    most = len(problem.y) // 3
    scales = [_scales(x) for x in arguments]
    sizes = SIZES if len(arguments) == 1 else SIZES_OF_TWO
    least = least_size(len(arguments))
    for kind in ("spline", "polynomial"):
        for choice in _choices(scales, kind):
            yield [
                basis
                for m in sizes
                if (basis := Basis(kind, choice, (m,) * len(choice))).size <= max(most, least)
            ]


def least_size(arguments: int) -> int:
    """Coefficients of the smallest curve."""
    return SIZES[0] if arguments == 1 else SIZES_OF_TWO[0] ** 2


def _scales(x: Array) -> list[str]:
    wide = x.min() > 0 and math.log10(x.max() / x.min()) > DECADES
    return ["log", "asinh"] if wide else ["asinh", "linear"]


def _choices(scales: Sequence[Sequence[str]], kind: str) -> list[tuple[Warp, ...]]:
    if kind == "polynomial":  # on the first scale only: it is the alternative to knots
        return [tuple(Warp(s[0]) for s in scales)]
    return [tuple(Warp(s[min(k, len(s) - 1)]) for s in scales) for k in range(2)]


def coarse(problem: Problem, free: Array) -> Basis:
    """A basis for the first search."""
    scales = [_scales(x)[0] for x in problem.scaled(free).arguments]
    size = 8 if len(scales) == 1 else 5
    return Basis("spline", tuple(map(Warp, scales)), (size,) * len(scales))


def best_fits(problem: Problem, start: Array) -> list[Fit]:
    """Fits with every family and size that count, the best first (by the criterion).

    Sizes go up until two in a row are worse than the best of their family.
    """
    found: list[Fit] = []
    place = start
    for bases in families(problem, start):
        own: list[Fit] = []
        worse = 0
        for basis in bases:
            fit = solve(problem, basis, place, tolerance=ROUGH)
            if fit is None or fit.dof <= 0:
                continue
            if own and fit.criterion > min(f.criterion for f in own):
                worse += 1
            else:
                worse, place = 0, fit.free
            own.append(fit)
            if worse == 2:
                break
        found += own
    least = min((fit.criterion for fit in found), default=math.inf)
    kept = [fit for fit in found if fit.criterion < least + IRRELEVANT]
    fine = [solve(problem, fit.basis, fit.free) or fit for fit in kept]
    return sorted(fine, key=lambda fit: fit.criterion)


def weights(fits: Sequence[Fit]) -> NDArray[np.float64]:
    """Of the curves by their criterion, of sum 1."""
    found = np.array([fit.criterion for fit in fits])
    raw = np.exp(-(found - found.min()) / 2)
    return np.asarray(raw / raw.sum())

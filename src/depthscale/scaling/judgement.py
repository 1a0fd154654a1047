"""What speaks against a collapse, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from depthscale.scaling.bases import Array
from depthscale.scaling.fit import Fit, solve
from depthscale.scaling.windows import Window

UNLIKELY = 0.01
"""A chance below which something is told as wrong."""

FEW = 30
"""Realisations below which an error from them is rough."""

LOOSE = 3.0
"""Growth of an error under a correction to scaling from which on it is told."""

TIED = 0.98
"""Correlation of two parameters that the data hardly tell apart."""

LITTLE = 0.5
"""Overlap of the curves below which a collapse says little."""

ELSEWHERE = 9.0
"""Difference of chi-square, in its scale, up to which another solution is told."""


class Evidence(NamedTuple):
    """All that is known of a fit when it is judged; see ``collapse``."""

    fit: Fit
    places: Sequence[Fit]
    reduced: float
    chance: float | None
    scale: float
    covariance: Array
    spread: Array
    stability: Sequence[Window]
    effective: Sequence[Window]
    corrected: Sequence[Window]
    at_edge: Mapping[str, float]
    drawn: Array
    asked: int


def warnings_of(found: Evidence) -> Iterator[str]:
    """The warnings, the gravest first."""
    yield from _goodness(found)
    yield from _drifts(found)
    yield from _edges(found)
    yield from _overlap(found)
    yield from _degeneracy(found)
    yield from _others(found)
    yield from _data(found)


def _goodness(found: Evidence) -> Iterator[str]:
    if found.chance is None:
        return
    if found.chance < UNLIKELY:
        yield (
            f"the points do not fall onto one curve within their errors: reduced chi-square"
            f" {found.reduced:.3g}, chance {found.chance:.1g}; errors below are scaled by"
            f" {found.scale:.3g}. Leave small sizes out, narrow the window, or add a correction"
            " such as (1 + a*L^-omega)"
        )
    elif found.chance > 1 - UNLIKELY / 10:
        yield (
            f"the points lie closer to the curve than their errors allow: reduced chi-square"
            f" {found.reduced:.3g}; the errors are too large, or the points are correlated: give"
            " realisations or a covariance"
        )


def _drifts(found: Evidence) -> Iterator[str]:
    told = [w for w in found.stability if w.p_value is not None]
    if told:
        worst = min(told, key=lambda w: w.p_value or 0.0)
        if (worst.p_value or 0.0) * len(told) < UNLIKELY:
            name = max(worst.shifts, key=lambda n: abs(worst.shifts[n]))
            all_of_it = dict(zip(found.fit.problem.names, found.fit.free.tolist(), strict=True))
            yield (
                f"not stable: {name} is {all_of_it[name]:.4g} from all points and"
                f" {worst.values[name]:.4g} with {worst.what}, {abs(worst.shifts[name]):.1f}"
                f" standard errors of the difference apart (chance {worst.p_value:.1g}); the errors"
                " do not hold that drift, whatever chi-square says"
            )
    drift = _trend(found)
    if drift is not None:
        yield drift
    yield from _corrections(found)


def _corrections(found: Evidence) -> Iterator[str]:
    """A correction that the points ask for, or one that they cannot exclude."""
    told = [w for w in found.corrected if w.p_value is not None]
    if not told:
        return
    names = found.fit.problem.names
    best = min(told, key=lambda w: w.p_value or 0.0)
    if (best.p_value or 0.0) * len(told) < UNLIKELY:
        name = max(names, key=lambda n: abs(best.shifts[n]), default=None)
        becomes = (
            "chi-square falls"
            if name is None
            else f"{name} becomes {best.values[name]:.4g} +- {best.errors[name]:.2g}"
        )
        yield (
            f"a correction to scaling is needed: {best.what} {becomes} (chance {best.p_value:.1g}"
            " without)"
        )
        return
    own = dict(zip(names, np.sqrt(np.diag(found.covariance)).tolist(), strict=True))
    roles = found.fit.problem.form.roles
    worst = {
        n: max(w.errors[n] for w in told) / own[n]
        for n in names
        if 0 < own[n] < np.inf and roles[n].kind != "amplitude"
    }
    if not worst or max(worst.values()) < LOOSE:
        return
    name = max(worst, key=lambda n: worst[n])
    growth = f"up to {worst[name]:.0f}-fold" if np.isfinite(worst[name]) else "beyond all bounds"
    yield (
        "the errors hold for this form without further corrections to scaling, which the points can"
        " hardly exclude: with one that falls like a power of size from 1/2 to 2, the error of"
        f" {name} grows {growth}"
    )


def _trend(found: Evidence) -> str | None:
    """A parameter whose effective values move with size."""
    from scipy.stats import chi2

    if len(found.effective) < 2:
        return None
    first, last = found.effective[0], found.effective[-1]
    own = [w.p_value for w in (first, last) if w.p_value is not None]
    if not own or min(own) >= UNLIKELY:  # both agree with all points: moved along a valley
        return None
    chances = {}
    for name in found.fit.problem.names:
        error = np.hypot(first.errors[name], last.errors[name])
        if set(first.sizes).isdisjoint(last.sizes) and error > 0:
            chances[name] = float(
                chi2.sf(((last.values[name] - first.values[name]) / error) ** 2, 1)
            )
    if not chances:
        return None
    name = min(chances, key=lambda n: chances[n])
    if chances[name] * len(chances) >= UNLIKELY:
        return None
    return (
        f"the effective {name} moves with size, from {first.values[name]:.4g} ({first.what}) to"
        f" {last.values[name]:.4g} ({last.what}), chance {chances[name]:.1g}: extrapolate, or add a"
        " correction"
    )


def _edges(found: Evidence) -> Iterator[str]:
    for name, value in found.at_edge.items():
        yield f"{name} ran into its limit and is held there, at {value:g}: the best is beyond"
    problem = found.fit.problem
    for name, value in zip(problem.names, found.fit.free.tolist(), strict=True):
        role = problem.form.roles[name]
        if role.kind != "shift":
            continue
        column = np.unique(problem.points.columns[role.variable])
        if not column[0] <= value <= column[-1]:
            yield (
                f"{name} = {value:.5g} is outside of the data, {role.variable} from {column[0]:g}"
                f" to {column[-1]:g}: an extrapolation; measure around it"
            )
        elif len(column) > 2 and not column[1] <= value <= column[-2]:
            yield (
                f"{name} = {value:.5g} is at the edge of the data, {role.variable} from"
                f" {column[0]:g} to {column[-1]:g}: measure on both sides of it"
            )


def _overlap(found: Evidence) -> Iterator[str]:
    share = found.fit.overlap
    if share < LITTLE:
        yield (
            f"the curves hardly overlap: {share:.0%} of the points lie where another size has some,"
            " so that any curve fits; measure a wider range at the large or small sizes"
        )


def _degeneracy(found: Evidence) -> Iterator[str]:
    names, covariance = found.fit.problem.names, found.covariance
    if not names:
        return
    if not np.isfinite(covariance).all() or not (np.diag(covariance) > 0).all():
        yield "the points do not settle all parameters: hold some of them with fixed="
        return
    size = np.sqrt(np.diag(covariance))
    correlation = np.abs(covariance / np.outer(size, size)) - np.eye(len(names))
    if len(names) > 1 and correlation.max() > TIED:
        a, b = np.unravel_index(int(correlation.argmax()), correlation.shape)
        yield (
            f"{names[a]} and {names[b]} are hardly told apart (correlation"
            f" {correlation[a, b]:.3f}): hold one with fixed=, and take intervals from profile="
        )
    between = np.sqrt(np.diag(found.spread) / np.diag(covariance))
    if between.max() > np.sqrt(0.5):
        name = names[int(between.argmax())]
        yield (
            f"{name} depends on the family of curves as much as on the noise: more points along the"
            " curve would settle it"
        )


def _others(found: Evidence) -> Iterator[str]:
    fit = found.fit
    if not fit.converged:
        yield "the search did not come to rest: give start= or hold parameters with fixed="
    same = [place for place in found.places if place.problem.names == fit.problem.names]
    if not same:
        return
    size = np.sqrt(np.abs(np.diag(found.covariance)))
    names, best = fit.problem.names, min(place.chi2 for place in same)
    allowed = ELSEWHERE * max(fit.problem.dilution, found.scale**2, 1e-300)
    for place in same:
        far = np.abs(place.free - fit.free) > 10 * size
        if not far.any() or place.chi2 - best >= allowed or place.overlap < LITTLE:
            continue
        there = solve(fit.problem, fit.basis, place.free)  # the coarse curve may be too coarse
        if there is None or there.chi2 - fit.chi2 >= allowed:
            continue
        if (np.abs(there.free - fit.free) > 10 * size).any() and there.overlap >= LITTLE:
            told = ", ".join(f"{n} = {v:.4g}" for n, v in zip(names, there.free, strict=True))
            yield f"another solution fits almost as well: {told}; give start= to choose"
            return


def _data(found: Evidence) -> Iterator[str]:
    points = found.fit.problem.points
    if not points.errors_known:
        yield (
            "no errors were given: all points count alike, and their scatter about the curve is"
            " taken as their error, so that chi-square cannot speak against the form"
        )
    if points.groups and points.counts.min() < FEW:
        least = points.counts.min()
        yield f"{least:.0f} realisations only: errors from so few are rough"
    if len(points.sizes) == 2:
        yield "two system sizes only: corrections to scaling cannot be seen"
    if len(found.drawn) < 0.95 * found.asked:
        yield f"{found.asked - len(found.drawn)} of {found.asked} resamples could not be fitted"
    if points.left_out:
        yield f"{points.left_out} cells of the grid hold no number and were left out"

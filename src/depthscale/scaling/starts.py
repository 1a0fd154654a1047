"""Where a collapse is looked for: starts spread over what the parameters can be, the best polished.

Exponents are looked for between ``EXPONENTS``, shifts within the range of the variable that they
shift, amplitudes between ``AMPLITUDES``; or around what the caller gave.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from depthscale.answers import InputError
from depthscale.scaling.bases import Array
from depthscale.scaling.fit import Fit, Problem, coarse, solve

EXPONENTS = (-1.5, 2.5)
AMPLITUDES = (-0.8, 0.8)
SPREAD = 256
"""Starts that are tried; those that are polished:"""
POLISHED = 8
ENOUGH = 0.5
"""Overlap below which a collapse is not one, as long as there is another."""


def search(problem: Problem, given: Mapping[str, float], seed: int) -> tuple[Fit, list[Fit]]:
    """The best fit with a coarse curve, and all that were polished.

    Raises
    ------
    InputError
        Where the form has no value at any start.
    """
    if not problem.names:
        return _only(problem)
    places = _places(problem, given, seed)
    scored = []
    for place in places:
        with np.errstate(all="ignore"):
            found = problem.scaled(place)
            finite = np.isfinite(found.prefactor).all() and np.isfinite(found.arguments).all()
        trial = problem.at(place, coarse(problem, place)) if finite else None
        if trial is not None:
            there = Fit(problem, coarse(problem, place), place, trial, False)
            scored.append((there.overlap < ENOUGH, there.chi2, place))
    scored.sort(key=lambda row: row[:2])
    first = places[0] if given else None
    chosen = [place for *_, place in scored[:POLISHED]]
    if first is not None and any(place is first for *_, place in scored):
        chosen = [first, *[place for place in chosen if place is not first]]
    fits = [fit for place in chosen if (fit := solve(problem, coarse(problem, place), place))]
    if not fits:
        raise InputError(
            f"the form {problem.form} has no value at any of {len(places)} starts; give start= near"
            " the solution, and check that bases of powers are positive"
        )
    fits.sort(key=lambda fit: (fit.overlap < ENOUGH, fit.chi2))
    return fits[0], fits


def _only(problem: Problem) -> tuple[Fit, list[Fit]]:
    fit = solve(problem, coarse(problem, np.empty(0)), np.empty(0))
    if fit is None:
        raise InputError(f"the form {problem.form} has no value at the fixed parameters")
    return fit, [fit]


def _places(problem: Problem, given: Mapping[str, float], seed: int) -> list[Array]:
    """Starts: the given one, then others about it or over the whole range."""
    from scipy.stats.qmc import Sobol

    low, high, centre = (np.empty(len(problem.names)) for _ in range(3))
    for k, name in enumerate(problem.names):
        low[k], high[k] = _range(problem, name)
        centre[k] = (low[k] + high[k]) / 2
        if name in given:
            half = (high[k] - low[k]) / 4
            centre[k] = given[name]
            low[k], high[k] = given[name] - half, given[name] + half
    share = Sobol(len(problem.names), rng=np.random.default_rng(seed)).random(SPREAD)
    return [centre, *(low + share * (high - low))]


def _range(problem: Problem, name: str) -> tuple[float, float]:
    role = problem.form.roles[name]
    if role.kind == "shift":
        column = problem.points.columns[role.variable]
        return float(column.min()), float(column.max())
    return EXPONENTS if role.kind == "exponent" else AMPLITUDES

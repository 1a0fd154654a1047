"""Where a collapse is looked for: starts spread over what the parameters can be, the best polished.

Exponents are looked for between ``EXPONENTS``, shifts within the range of the variable that they
shift, amplitudes between ``AMPLITUDES`` of their unit; or around what the caller gave.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from depthscale.answers import InputError
from depthscale.scaling.bases import Array, Basis, Warp
from depthscale.scaling.families import DECADES, coarse
from depthscale.scaling.fit import ROUGH, Fit, Problem, overlap, solve

EXPONENTS = (-1.5, 2.5)
AMPLITUDES = (-0.8, 0.8)
SPREAD = 128
SPREAD_NEAR = 32
"""Starts that are tried, without and with a given one; those that are polished:"""
POLISHED = 5
POOR = 2.0
"""Reduced chi-square near a given start from which on it is looked everywhere as well."""
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
    chosen = _best(problem, places)
    if given and not any(place is places[0] for place in chosen):
        chosen.append(places[0])
    fits = [
        fit
        for place in chosen
        if (fit := solve(problem, coarse(problem, place), place, tolerance=ROUGH))
    ]
    if not fits:
        raise InputError(
            f"the form {problem.form} has no value at any of {len(places)} starts; give start= near"
            " the solution, and check that bases of powers are positive"
        )
    if given and problem.errors_known and min(fit.chi2 / max(fit.dof, 1.0) for fit in fits) > POOR:
        fits += search(problem, {}, seed)[1]  # a start this wrong is no wish
    fits.sort(key=lambda fit: (fit.overlap < ENOUGH, fit.cost))
    return fits[0], fits


def _best(problem: Problem, places: list[Array]) -> list[Array]:
    """The places of least chi-square with a coarse curve, those with overlapping curves first."""
    with np.errstate(all="ignore"):
        found = [problem.scaled(place) for place in places]
        prefactor = np.stack([one.prefactor for one in found])
        warped = [
            _squeezed(np.stack([one.arguments[k] for one in found]))
            for k in range(len(found[0].arguments))
        ]
        there = np.isfinite(prefactor).all(axis=1) & (prefactor != 0).any(axis=1)
        for u in warped:
            there &= np.isfinite(u).all(axis=1)
    kept = np.flatnonzero(there)
    if not kept.size:
        return []
    warped = [u[kept] for u in warped]
    chi2 = _coarse_chi2(problem, prefactor[kept], warped)
    order = np.argsort(chi2)
    labels = problem.points.columns[problem.points.size]
    apart: list[int] = []
    together: list[int] = []
    for k in order:
        share = overlap([u[k] for u in warped], labels)
        (together if share >= ENOUGH else apart).append(int(k))
        if len(together) == POLISHED:
            break
    return [places[kept[k]] for k in (together + apart)[:POLISHED]]


def _squeezed(x: Array) -> Array:
    """Scaling variables [start, n] put into [0, 1], on the scale that a coarse curve takes."""
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    wide = (low > 0) & (high > low * 10**DECADES)
    bent = np.where(wide, np.log(x), np.arcsinh(2 * x / np.abs(x).mean(axis=1, keepdims=True)))
    low, high = bent.min(axis=1, keepdims=True), bent.max(axis=1, keepdims=True)
    return np.asarray((bent - low) / (high - low))


def _coarse_chi2(problem: Problem, prefactor: Array, warped: list[Array]) -> Array:
    """Chi-square of the best coarse curve at every start, errors taken as uncorrelated."""
    size = 8 if len(warped) == 1 else 5
    basis = Basis("spline", (Warp("linear"),) * len(warped), (size,) * len(warped))
    design, _ = basis.design([u.reshape(-1) for u in warped])
    weight = prefactor / problem.points.error
    white = weight[..., None] * design.reshape(*prefactor.shape, -1)
    y = problem.points.y / problem.points.error
    normal = np.einsum("sni,snj->sij", white, white)
    level = np.trace(normal, axis1=1, axis2=2)[:, None, None] / basis.size
    normal += 1e-9 * level * np.eye(basis.size)
    along = np.einsum("sni,n->si", white, y)
    best = np.linalg.solve(normal, along[..., None])[..., 0]
    return np.asarray(y @ y - (along * best).sum(axis=1))


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
    count = SPREAD if len(given) < len(problem.names) else SPREAD_NEAR
    share = Sobol(len(problem.names), rng=np.random.default_rng(seed)).random(count)
    return [centre, *(low + share * (high - low))]


def _range(problem: Problem, name: str) -> tuple[float, float]:
    role = problem.form.roles[name]
    if role.kind == "shift":
        column = problem.points.columns[role.variable]
        return float(column.min()), float(column.max())
    if role.kind == "exponent":
        return EXPONENTS
    unit = float(problem.units[problem.names.index(name)])
    return AMPLITUDES[0] * unit, AMPLITUDES[1] * unit

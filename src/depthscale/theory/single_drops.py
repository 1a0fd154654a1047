r"""What one jump of the misalignment leaves: ``T(J) = E integral y_t^k dt`` from ``y_0 = J``.

With ``phi = p u - a e^(beta u)``, ``p < 0``, and time in units of ``2/s^2``,

    T'' + phi' T' = -e^(k u),   T(-inf) = 0,   T' = e^(-phi) integral_u^inf e^(k v + phi(v)) dv,

the solution that stays finite from infinity. ``T ~ J^min(k, |p|)`` at small ``J``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number, as_numbers

_PANEL = 0.1
"""Length in ``log y`` of the panels: the slope of ``log T'`` changes by ``beta`` over 1."""

_MOST = 100_000
"""Panels: some 200 MB."""

_REACH = 40.0
"""``min(k, |p|) (log J - start)``, ``e^-40`` of ``T(J)`` is left out below the start."""


def visit(order: float, power: float, bend: float, beta: float, sizes: ArrayLike) -> Array:
    """``T`` times ``s^2/2`` at jumps of these sizes, any shape, 0 where there is none.

    Raises
    ------
    InputError
        ``power >= 0``, or so close to 0 that what a jump starts takes over 100,000 panels; no
        positive order, or numbers out of range.
    """
    k, jump = as_number("order", order), as_numbers("sizes", sizes)
    power, bend, beta = (
        as_number(*pair) for pair in (("power", power), ("bend", bend), ("beta", beta))
    )
    if not (0 < k < math.inf and -math.inf < power < 0 < bend < math.inf and 0 < beta <= 1):
        raise InputError(
            f"order, p, a, beta = {k}, {power}, {bend}, {beta}: expected k > 0 > p, a > 0 and beta"
            " in (0, 1]"
        )
    if not np.all((jump >= 0) & (jump < 1e100)):
        raise InputError(f"sizes are {sizes!r}; expected numbers from 0 to 1e100")
    there = jump > 1e-100
    if not np.any(there):
        return np.zeros(jump.shape)
    u = np.log(jump[there])
    slow = min(k, -power)
    start = min(float(u.min()), -math.log(bend) / beta) - _REACH / slow
    if float(u.max()) - start > _MOST * _PANEL:
        raise InputError(
            f"order, p = {k}, {power}: what a jump starts lasts for {_REACH / slow:.3g} in log y;"
            f" expected {_MOST * _PANEL:g} at most"
        )
    edges = np.linspace(start, float(u.max()), math.ceil((float(u.max()) - start) / _PANEL) + 1)
    x, w = np.polynomial.legendre.leggauss(8)
    half = np.diff(edges)[:, None] / 2
    slopes = _slope(edges[:-1, None] + half * (1 + x), k, power, bend, beta)
    total = np.concatenate([[0.0], np.cumsum((half * w * slopes).sum(axis=1))])
    result = np.zeros(jump.shape)
    panel = np.clip(np.searchsorted(edges, u) - 1, 0, len(edges) - 2)
    part = (u - edges[panel])[:, None] / 2
    inside = _slope(edges[panel][:, None] + part * (1 + x), k, power, bend, beta)
    result[there] = total[panel] + (part * w * inside).sum(axis=1)
    return result


def _slope(u: Array, k: float, power: float, bend: float, beta: float) -> Array:
    """``T'``: ``e^(k u) integral_0^inf exp((k + p) w - a e^(beta u) (e^(beta w) - 1)) dw``.

    By panels in ``w`` up to where nothing is left; far below the bend (all of ``u`` small) the
    integral reaches up to it, so that they follow ``log a e^(beta u)``.
    """
    steep = bend * np.exp(beta * u)
    reach = np.log1p(80 * (1 + abs(k + power) / beta) / steep) / beta
    if k + power < 0:
        reach = np.minimum(reach, 80 / (-k - power))
    edges = np.linspace(0, 1, 33)
    x, w = np.polynomial.legendre.leggauss(12)
    shares = (edges[:-1, None] + np.diff(edges)[:, None] / 2 * (1 + x)).ravel()
    weights = (np.diff(edges)[:, None] / 2 * w).ravel()
    away = reach[..., None] * shares
    with np.errstate(over="ignore"):
        log = (k + power) * away - steep[..., None] * np.expm1(beta * away)
        inner = reach * (np.exp(log) @ weights)
        return np.asarray(np.exp(k * u) * inner)

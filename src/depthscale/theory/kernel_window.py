r"""The tangent kernel near the critical line in closed form: what deep networks tell apart.

A pair that starts ``rho_0`` apart obeys ``d eps/dl = t eps - a eps^kappa``, ``kappa = 1 + beta``,
and its tangent kernel ``dTheta/dl = q + (t - kappa a eps^beta) Theta``; for one input with itself
``eps = 0``. Both integrate, and the ratio of the two depends on

    X = beta a L rho_0^beta,      x = beta t L                       (L hops, detuning t = chi - 1)

alone: with ``m = 1 + 1/beta`` and ``v(s) = 1 + X (e^(s x) - 1)/x``

    1 - Theta_off/Theta_diag = int_0^1 w(s) [1 - (v(s)/v(1))^m] ds,    w(s) ~ e^((1 - s) x/beta).

On the critical line, ``x = 0``:

    Theta_off/Theta_diag = [(1 + X)^(m + 1) - 1] / [(m + 1) X (1 + X)^m],

from 1 at small X, where the kernel is constant and nothing is told apart, to ``1/(m + 1)`` at large
X, where all pairs are told apart alike: 1/3 for smooth activations (m = 2, ``X = kappa L rho_0`` of
2307.02284), 1/4 for kinked ones (m = 3, ``X = a L sqrt(rho_0)/2``).

This takes ``K_ab = q`` for every pair. With ``K_ab = q (1 - eps)`` the bracket loses
``(v(s)/v(1))^m eps(s)`` more: on the critical line ``rho_0 (1 + X/2)/(1 + X)^m``, which is all
there is at small X, where the network is linear. (Derived here.)
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Undefined
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import CRITICAL, MeanField
from depthscale.theory.records import as_number, as_numbers, together

__all__ = ["far_deficit", "reach", "window_deficit", "window_ratio"]


def window_ratio(X: ArrayLike, kappa: float = 2.0, x: float = 0.0, rho0: ArrayLike = 0.0) -> Array:
    """``Theta_off/Theta_diag`` of the module, between 0 and 1.

    Parameters
    ----------
    X:
        ``beta a L rho_0^beta``, at least 0: depth in units of what the pair needs to align.
    kappa:
        Power of the map, in (1, 2]: 2 smooth, 3/2 kinked, between for cusps.
    x:
        ``beta t L``, the detuning in units of the depth: below 0 ordered, above it chaotic.
    rho0:
        The misalignment at layer 0, in [0, 2], for the part of K; 0 leaves it out.

    With ``rho0`` it is good to 1.2 % for ``rho_0 <= .1`` and ``L >= 100`` in both classes, without
    it to 3 to 4 % for smooth and to 1.3 % for kinked activations (tanh, erf, sin; ReLU, hardtanh).
    Off the critical line ``|t|`` has to be small as well: the next order is ``t`` itself.

    Raises
    ------
    InputError
        Out of range.

    Examples
    --------
    >>> window_ratio([0, 1, 10, 1e6]).round(4).tolist()
    [1.0, 0.5833, 0.3664, 0.3333]
    >>> window_ratio(1e6, kappa=1.5).round(4).tolist()
    0.25
    """
    return np.asarray(1 - window_deficit(X, kappa, x, rho0))


def window_deficit(
    X: ArrayLike, kappa: float = 2.0, x: float = 0.0, rho0: ArrayLike = 0.0
) -> Array:
    """``1 - Theta_off/Theta_diag``, to full relative accuracy at small X; see ``window_ratio``."""
    stretch = as_numbers("X", X)
    if not np.all(stretch >= 0):
        raise InputError("X has to be at least 0: beta a L rho_0^beta, of nonnegative numbers")
    kappa, x = as_number("kappa", kappa), as_number("x", x)
    if not 1 < kappa <= 2:
        raise InputError(f"kappa is {kappa!r}; expected a power above 1 and at most 2")
    if not math.isfinite(x):
        raise InputError(f"x is {x!r}; expected a number, beta t L")
    apart = as_numbers("rho0", rho0)
    if not np.all((apart >= 0) & (apart <= 2)):
        raise InputError("rho0 has to be a misalignment, from 0 to 2")
    stretch, apart = together(X=np.minimum(stretch, 1e100), rho0=apart)
    beta = kappa - 1
    s, weights = _rule()
    weights = weights * np.exp((1 - s) * x / beta - max(x / beta, 0.0))
    lost = _lost(stretch[..., None], s, x)
    with np.errstate(divide="ignore"):  # at s = 0 in the limit of large X
        told = -np.expm1((1 + 1 / beta) * np.log1p(-lost))
    if np.any(apart):
        # eps(s)/rho_0 = (e^(-s x) v(s))^(-1/beta)
        grown = np.exp(-s * x) + stretch[..., None] * _grown(s, x)
        told = told + (1 - told) * apart[..., None] * grown ** (-1 / beta)
    return np.asarray(told @ (weights / weights.sum()))


def _grown(s: Array, x: float) -> Array:
    """``(1 - e^(-s x))/x``."""
    return s if abs(x) < 1e-12 else np.asarray(-np.expm1(-s * x) / x)


def _lost(X: Array, s: Array, x: float) -> Array:
    """``1 - v(s)/v(1)``, without overflow for either sign of x."""
    if abs(x) < 1e-12:
        return np.asarray(X * (1 - s) / (1 + X))
    later = -np.expm1(-(1 - s) * x) / x if x > 0 else np.exp(s * x) * np.expm1((1 - s) * x) / x
    first, all_of_it = (math.exp(-x), -math.expm1(-x) / x) if x > 0 else (1.0, math.expm1(x) / x)
    return np.asarray(np.minimum(X * later / (first + X * all_of_it), 1.0))


@cache
def _rule() -> tuple[Array, Array]:
    """Gauss-Legendre on [0, 1] in panels that shrink towards both ends, down to 2^-40."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = 0.5 ** np.arange(40, 0, -1)
    edges = np.concatenate([[0.0], half, (1 - half)[::-1][1:], [1.0]])
    middle, size = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    points = middle[:, None] + size[:, None] * nodes
    return points.ravel(), (size[:, None] * weights).ravel()


def far_deficit(X: float, x: float, kappa: float = 2.0) -> float:
    r"""The leading form of ``window_deficit`` far off the critical line, ``|x| >> 1``.

    Chaotic, ``x >> 1``: ``1 - (1/beta) e^(-x/beta)`` for every pair: what one input learns says
    nothing about another. Ordered, ``y = -x >> 1``:

        m X/(y + X) e^(-y) J,   J = (1/beta) int_0^y e^(-u/beta) (e^u - 1) du,

    that is ``J = y - 1`` for smooth activations and ``J = 1`` for kinked ones: a difference that
    shrinks exponentially with depth, and that all of training has to go through.

    Relative corrections are of order ``x/(X e^x)`` and ``e^-x`` of the chaotic ratio, and
    ``X/((X + y) y)`` of the ordered deficit (smooth; exponentially small for kinked ones); ``X``
    above 0. ``InputError`` at ``x = 0`` or out of range.

    Examples
    --------
    >>> round(far_deficit(5.0, -10.0), 6), round(float(window_deficit(5.0, x=-10.0)), 6)
    (0.000272, 0.000267)
    """
    power, x, X = as_number("kappa", kappa), as_number("x", x), as_number("X", X)
    if not (1 < power <= 2 and X > 0 and x != 0 and math.isfinite(x)):
        raise InputError(
            f"X = {X:g}, x = {x:g}, kappa = {power:g}: expected X above 0, x other than 0 and kappa"
            " in (1, 2]"
        )
    beta = power - 1
    if x > 0:
        return 1 - math.exp(-x / beta) / beta
    y, rest = -x, 1 / beta - 1
    grown = y if rest == 0 else -math.expm1(-rest * y) / rest
    inner = grown / beta + math.expm1(-y / beta)
    return (1 + 1 / beta) * X / (y + X) * math.exp(-y) * inner


def reach(layer: MeanField) -> tuple[float, float, float] | Undefined:
    """``(beta a, beta, t)`` of a layer: ``X = beta a L rho_0^beta`` and ``x = beta t L``.

    ``Undefined`` with the reason where the map has no curvature or no settled length.
    """
    settled: Any = layer.settled
    if isinstance(settled, Undefined):
        return settled
    kind, chi = layer.universality, layer.chi
    if isinstance(kind.kappa, Undefined):
        return kind.kappa
    if isinstance(kind.amplitude, Undefined):
        return kind.amplitude
    beta = float(kind.kappa) - 1
    if not 0 < beta <= 1 or kind.map_singularity == "logarithmic":
        return Undefined(
            f"the map of {layer.activation.name} is {kind.map_singularity} near alignment: the"
            " window is stated for eps' = chi eps - a eps^kappa with kappa above 1"
        )
    detuning = float(chi) - 1
    return beta * float(kind.amplitude), beta, 0.0 if abs(detuning) < CRITICAL else detuning

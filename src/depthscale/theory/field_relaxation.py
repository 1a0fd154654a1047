r"""The slowest rate of ``du = (s^2/2) phi'(u) dt + s dB``, ``phi = p u - a e^(beta u) - b e^-u``.

In units of ``s^2/2`` the Fokker-Planck operator is similar to the Schroedinger operator

    -d^2/du^2 + W,   W = phi'^2/4 + phi''/2,

whose ground state ``e^(phi/2)`` has eigenvalue 0. ``W`` is entire and its walls are exponentials of
exponentials, so that a grid of sinc functions converges like ``e^(-c/step)``.
"""

from __future__ import annotations

import math

import numpy as np

from depthscale.answers import InputError
from depthscale.theory.stationary import StationaryLaw

_STEP = 0.12
"""Of the grid: the states are analytic for ``|Im u| < pi/2``, ``e^(-pi^2/(2 step))`` is left."""

_SHARE = 0.35
"""Step in deviations of the law, where it is narrow."""

_WALL = 45.0
"""Height of ``b e^-u/2`` and ``a e^(beta u)/2`` behind which a state is ``e^-45``."""

_LARGEST = 3000


def lowest_rate(power: float, bend: float, beta: float, push: float) -> float:
    """The first eigenvalue above 0, in units of ``s^2/2``; without a push in closed form.

    Raises
    ------
    InputError
        A law too narrow or a field too small for the grid.
    """
    if push == 0:
        return _without_field(power, beta)
    law = StationaryLaw(power, bend, beta, push)
    top, width = law.top
    reach = 13 * min(width, 1.0)  # a wide law ends at its walls
    left = min(math.log(push / (2 * _WALL)), top - reach)
    right = max(math.log(2 * _WALL / bend) / beta, top + reach)
    step = min(_STEP, _SHARE * width)
    count = math.ceil((right - left) / step) + 1
    if count > _LARGEST:
        raise InputError(
            f"push = {push:g}, bend = {bend:g}: {count} points for log y from {left:.4g} to"
            f" {right:.4g}; expected at most {_LARGEST}. Take the limit of small or large field"
        )
    return _second(np.linspace(left, right, count), power, bend, beta, push)


def _without_field(power: float, beta: float) -> float:
    """A bound state if there is one, else where the continuum begins."""
    if power < -2:
        return -power - 1
    if power > 2 * beta:
        return beta * (power - beta)
    return power**2 / 4


def _second(
    u: np.ndarray[tuple[int], np.dtype[np.float64]],
    power: float,
    bend: float,
    beta: float,
    push: float,
) -> float:
    """Second eigenvalue on this grid (Colbert and Miller, 1992)."""
    from scipy.linalg import eigh

    up, down = bend * beta * np.exp(beta * u), push * np.exp(-u)
    wall = (power - up + down) ** 2 / 4 - (beta * up + down) / 2
    step, count = float(u[1] - u[0]), len(u)
    apart = np.arange(count)
    with np.errstate(divide="ignore"):
        row = 2 * (-1.0) ** apart / apart**2
    row[0] = math.pi**2 / 3
    matrix = row[np.abs(apart[:, None] - apart)] / step**2
    matrix[apart, apart] += np.minimum(wall, 1e12)
    return float(eigh(matrix, eigvals_only=True, subset_by_index=[0, 1])[1])

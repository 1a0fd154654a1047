"""All layers of a recursion at once: Newton's method, with a bidiagonal system for each step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from depthscale.theory.gaussian import Array

Map = Callable[[Array], tuple[Array, Array]]
"""States before layers to those after, and the slopes."""

NEWTON, LAST = 60, 1e-9  # iterations, and the relative step whose square is below rounding


def scan(factor: Array, source: Array, start: Array) -> Array:
    """``y_0 = start``, ``y_(k+1) = factor_k y_k + source_k`` along the first axis, (n + 1, ...)."""
    from scipy.linalg.lapack import dtbtrs

    rows = np.concatenate([start[None], source])
    right = np.ascontiguousarray(np.moveaxis(rows, 0, -1))
    band = np.zeros((right.size, 2))
    band[:, 0] = 1
    # the last entry of each run stays 0, so that runs do not meet
    band.reshape(*right.shape, 2)[..., :-1, 1] = -np.moveaxis(factor, 0, -1)
    solved, _ = dtbtrs(band.T, right.reshape(-1, 1), uplo="L", overwrite_b=True)
    return np.moveaxis(solved.reshape(right.shape), -1, 0)


def newton(
    layer: Callable[[Array], tuple[Array, Array]],
    start: float,
    guess: Array,
    low: float,
    high: float,
) -> Array | None:
    """States (D + 1, N) that ``layer`` maps onto one another, from ``start`` on; or None."""
    state = guess.copy()
    state[0] = start
    for _ in range(NEWTON):
        value, slope = layer(state[:-1])
        step = scan(slope, value - state[1:], np.zeros_like(state[0]))
        moved = np.clip(state + step, low, high)
        if not np.all(np.isfinite(moved)):
            return None
        size = abs(moved - state)
        state = moved
        if np.all(size <= LAST * state + 1e-300):
            return state
    return None

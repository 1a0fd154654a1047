"""How sure parameters are: resampled measurements, and the likelihood along one parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from depthscale.progress import progress_bar
from depthscale.scaling.bases import Array
from depthscale.scaling.fit import Fit, solve

REACH = 12
"""Growths by a half of the distance at which a limit of the likelihood is looked for."""


def resampled(fit: Fit, number: int, seed: int) -> Array:
    """Parameters fitted to ``number`` resamples, [resample, free]; fewer where fits failed.

    Realisations are drawn with replacement, whole; without them, noise of the stated errors is put
    on the fitted curve. Every fit starts from the best one, with its family of curves.
    """
    problem, points = fit.problem, fit.problem.points
    if points.groups:

        def draw(generator: np.random.Generator) -> Array:
            return points.resampled(generator)
    else:
        n = len(points)
        middle = points.y - _colour(fit, fit.trial.residual[:n])

        def draw(generator: np.random.Generator) -> Array:
            return middle + _colour(fit, fit.error_scale * generator.standard_normal(n))

    found = list(_refitted(fit, draw, number, seed))
    return np.array(found).reshape(len(found), len(problem.names))


def _refitted(
    fit: Fit, draw: Callable[[np.random.Generator], Array], number: int, seed: int
) -> Iterator[Array]:
    children = np.random.SeedSequence(seed).spawn(number)
    with progress_bar("resampling", number) as advance:
        for child in children:
            again = solve(
                fit.problem.with_y(draw(np.random.default_rng(child))), fit.basis, fit.free
            )
            if again is not None:
                yield again.free
            advance()


def _colour(fit: Fit, white: Array) -> Array:
    """Noise of the stated errors out of white noise."""
    points = fit.problem.points
    if points.covariance is not None:
        return np.asarray(np.linalg.cholesky(points.covariance) @ white)
    return points.error * white


def profile(fit: Fit, k: int, rise: float, error: float) -> tuple[float, float]:
    """Where chi-square has risen by ``rise`` on both sides along parameter ``k``, others following.

    NaN where it does not within ``1.5^REACH`` errors.
    """
    found = [_limit(fit, k, sign * error, fit.chi2 + rise) for sign in (-1, 1)]
    return found[0], found[1]


def _limit(fit: Fit, k: int, step: float, target: float) -> float:
    from scipy.optimize import brentq

    name, others = fit.problem.names[k], np.delete(fit.free, k)
    if not math.isfinite(step) or step == 0 or not math.isfinite(target):
        return math.nan

    def above(distance: float) -> float:
        held = fit.problem.holding(**{name: float(fit.free[k] + distance * step)})
        held.y = fit.problem.y
        again = solve(held, fit.basis, others)
        return math.inf if again is None else again.chi2 - target

    if not above(0.0) < 0:
        return math.nan
    far = 1.0
    for _ in range(REACH):
        if (value := above(far)) > 0:
            break
        far *= 1.5
    else:
        return math.nan
    if not math.isfinite(value):
        return math.nan
    return float(fit.free[k] + step * brentq(above, 0.0, far, xtol=1e-3))

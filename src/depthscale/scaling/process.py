r"""The evidence of a scaling form whose master curve is a Gaussian process.

For ``y = P F(X) + noise`` with ``F`` a straight line of unknown slope and height plus a process of
covariance ``a^2 exp(-(u - u')^2/(2 l^2))`` on the scale ``u`` of the fit, ``y`` is normal with the
covariance ``V + A A'``, where ``A`` has the columns ``P phi_j sqrt(s_j)``: eigenfunctions of a box
around the data and the spectral density of the process there. This is exact up to what a box of
three lengths ``l`` cuts off and costs ``n m^2`` for ``m`` functions, not ``n^3``.

Source: Harada 2011 (the evidence), Solin and Sarkka 2020 (the functions).
"""

from __future__ import annotations

import math

import numpy as np

from depthscale.scaling.bases import Array
from depthscale.scaling.fit import Fit

MODES, MODES_OF_TWO = 32, 12
"""Functions along an argument, where there is one and where there are two."""

MARGIN, REACH = 1.2, 3.2
"""Half width of the box over that of the data: at least, and in lengths of the process."""

LENGTHS = (0.06, 3.0)
"""Of the process, with the data within [0, 1]; shorter ones need more functions."""

SIZES = (1e-3, 1e3)
"""Of the process, in units of the curve."""

LINE = 10.0
"""Prior deviation of height and slope of the line, in units of the curve."""


class Evidence:
    """Minus the logarithm of the evidence, over parameters and the logarithms of the others.

    The place is ``[theta, ln a, ln l of every argument]``, and ``ln sigma`` of the noise last where
    errors are unknown.
    """

    def __init__(self, fit: Fit) -> None:
        self.fit, self.problem = fit, fit.problem
        size = fit.problem.scaled(fit.free).prefactor
        self.level = float(np.sqrt(np.mean((fit.problem.points.y / size) ** 2))) or 1.0
        self.count = len(fit.free)
        self.arguments = len(fit.basis.warps)

    def start(self) -> Array:
        """The fit, with the best of a few lengths and sizes."""
        noise = [] if self.problem.errors_known else [math.log(max(self.fit.error_scale, 1e-300))]
        grid = [
            np.array([*self.fit.free, math.log(a), *[math.log(length)] * self.arguments, *noise])
            for a in (0.1, 0.3, 1.0)
            for length in (0.1, 0.2, 0.4, 0.8)
        ]
        return min(grid, key=self)

    def bounds(self) -> list[tuple[float | None, float | None]]:
        """Of every entry of the place."""
        kept: list[tuple[float | None, float | None]] = [(None, None)] * self.count
        kept.append((math.log(SIZES[0]), math.log(SIZES[1])))
        kept += [(math.log(LENGTHS[0]), math.log(LENGTHS[1]))] * self.arguments
        return kept if self.problem.errors_known else [*kept, (None, None)]

    def __call__(self, place: Array) -> float:
        """Minus the logarithm of the evidence, up to what the errors alone give."""
        found = self._solved(place)
        return math.inf if found is None else found[0]

    def pull(self, place: Array) -> Array | None:
        """The derivative in ``y``, [n]."""
        found = self._solved(place)
        return None if found is None else found[1]

    def _solved(self, place: Array) -> tuple[float, Array] | None:
        from scipy.linalg import LinAlgError, cho_factor, cho_solve

        with np.errstate(all="ignore"):
            columns = self._columns(place)
        if columns is None:
            return None
        sigma = 1.0 if self.problem.errors_known else math.exp(place[-1])
        white, y = self.problem.whiten(columns) / sigma, self.problem.y / sigma
        if not np.isfinite(white).all():
            return None
        inner = white.T @ white + np.eye(white.shape[1])
        try:
            factor = cho_factor(inner)
        except LinAlgError:
            return None
        left = y - white @ cho_solve(factor, white.T @ y)
        turned = float(y @ left) / 2 + float(np.log(np.diag(factor[0])).sum())
        turned += len(y) * math.log(sigma)
        return turned, self.problem.unwhiten(left[:, None])[:, 0] / sigma

    def _columns(self, place: Array) -> Array | None:
        """``A``, the functions times their prior deviations and the prefactor, [n, m]."""
        p = self.count
        found = self.problem.scaled(place[:p])
        kept = zip(self.fit.basis.warps, found.arguments, self.fit.trial.warped, strict=True)
        scales = [warp.again(x, like) for warp, x, like in kept]
        if not all(np.isfinite(u).all() for u in scales) or not np.isfinite(found.prefactor).all():
            return None
        modes = MODES if self.arguments == 1 else MODES_OF_TWO
        lengths = np.exp(place[p + 1 : p + 1 + self.arguments])
        process = _functions(scales[0], lengths[0], modes)
        if self.arguments == 2:
            other = _functions(scales[1], lengths[1], modes)
            process = (process[:, :, None] * other[:, None, :]).reshape(len(other), -1)
        line = np.stack([np.ones_like(scales[0]), *(u - 0.5 for u in scales)], axis=1)
        columns = np.concatenate([math.exp(place[p]) * process, LINE * line], axis=1)
        return np.asarray(self.level * found.prefactor[:, None] * columns)


def _functions(u: Array, length: float, modes: int) -> Array:
    """Columns whose products sum to ``exp(-(u - u')^2/(2 length^2))`` for u in [0, 1]."""
    half = 0.5 * math.hypot(MARGIN, REACH * length / 0.5)
    frequency = math.pi * np.arange(1, modes + 1) / (2 * half)
    density = math.sqrt(2 * math.pi) * length * np.exp(-((length * frequency) ** 2) / 2)
    return np.asarray(np.sqrt(density / half) * np.sin((u[:, None] - 0.5 + half) * frequency))


def maximised(evidence: Evidence, unit: Array) -> tuple[Array, bool]:
    """The place of the largest evidence and whether the search came to rest."""
    from scipy.optimize import minimize

    start = evidence.start()
    units = _units(evidence, unit)
    origin = start.copy()
    bounds = [
        tuple(None if end is None else (end - origin[k]) / units[k] for end in pair)
        for k, pair in enumerate(evidence.bounds())
    ]

    def cost(z: Array) -> float:
        value = evidence(origin + z * units)
        return value if math.isfinite(value) else 1e10

    found = minimize(
        cost,
        np.zeros(len(start)),
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 60, "ftol": 1e-10, "gtol": 1e-3, "eps": 1e-4},
    )
    return np.asarray(origin + found.x * units), bool(found.success)


def _units(evidence: Evidence, unit: Array) -> Array:
    return np.concatenate([unit, np.full(len(evidence.bounds()) - len(unit), 0.3)])


def curvature(evidence: Evidence, best: Array, unit: Array) -> Array:
    """Covariance of the parameters, [theta, theta]; NaN where the evidence has no maximum.

    The inverse of the Hessian where points are independent or their covariance is known. With
    realisations the noise that they show is carried through, ``H^-1 M S M' H^-1`` with the mixed
    derivative ``M`` in place and y, since the evidence took the points as independent.
    """
    units = _units(evidence, unit)
    free = [
        k
        for k, (low, high) in enumerate(evidence.bounds())
        if (low is None or best[k] > low + 1e-6) and (high is None or best[k] < high - 1e-6)
    ]
    steps = 0.2 * units
    p, nothing = evidence.count, np.full((evidence.count,) * 2, np.nan)
    slopes: list[Array] = []
    hessian = np.empty((len(free), len(free)))
    middle = evidence(best)
    for a, k in enumerate(free):
        for b, j in enumerate(free[: a + 1]):
            hessian[a, b] = hessian[b, a] = _second(evidence, best, steps, k, j, middle)
        up, down = (evidence.pull(best + s * steps[k] * _axis(k, len(best))) for s in (1, -1))
        if up is None or down is None:
            return nothing
        slopes.append((up - down) / (2 * steps[k]))
    scale = np.outer(units[free], units[free])
    if not np.isfinite(hessian).all():
        return nothing
    values = np.linalg.eigvalsh(hessian * scale)
    if not values[0] > 1e-9 * values[-1]:
        return nothing
    inverse = np.linalg.inv(hessian * scale) * scale
    points = evidence.problem.points
    if points.groups:
        inverse = points.noise(inverse @ np.array(slopes))
    return np.asarray(inverse[:p, :p])


def _axis(k: int, n: int) -> Array:
    return np.asarray(np.eye(n)[k])


def _second(evidence: Evidence, best: Array, steps: Array, k: int, j: int, middle: float) -> float:
    one, other = steps[k] * _axis(k, len(best)), steps[j] * _axis(j, len(best))
    if k == j:
        rise = evidence(best + one) - 2 * middle + evidence(best - one)
        return float(rise / steps[k] ** 2)
    corners = (
        evidence(best + one + other)
        - evidence(best + one - other)
        - evidence(best - one + other)
        + evidence(best - one - other)
    )
    return float(corners / (4 * steps[k] * steps[j]))

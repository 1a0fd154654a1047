r"""A scaling form fitted as it stands, with its master curve eliminated.

For ``y = P(theta) F(X(theta))`` with ``F = sum_k c_k B_k`` and ``W`` the whitening of the errors,
the residual at the best coefficients is a projection,

    r(theta) = (1 - Q Q^T) W y,     Q R = W diag(P) B(X),

(variable projection), whose derivative to first order in ``r`` is ``-(1 - Q Q^T) dA c`` (Kaufman).
Levenberg and Marquardt's method does the rest; ``y`` is never scaled, so that its errors stay those
of the measurement. Source: Golub and Pereyra 1973, Kaufman 1975.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from depthscale.scaling.bases import RIDGE, Array, Basis, Warped
from depthscale.scaling.form import Form
from depthscale.scaling.points import Points
from depthscale.scaling.program import Evaluated

STEPS = 60
"""Evaluations of a fit, at most."""

ALIKE = 1e-9
"""Of the strongest direction, at which one of the parameters is told apart by rounding alone."""

FEWEST = 4.5
"""Degrees of freedom of an error that are assumed at least; at 4 its square has no variance."""

LARGEST = 1e100
"""Of a prefactor over an error, beyond which a place is taken as impossible."""

FAR = {"exponent": 20.0, "amplitude": 1e3, "shift": math.inf}
"""Sizes at which a parameter that no point settles is held, by a square in the cost that does not
count in chi-square or in errors: exponents are numbers of order one, amplitudes of their unit."""

FINE, ROUGH = 1e-9, 1e-5
"""Relative tolerance of a fit, and of those that only choose the family of curves."""

WIDE = 100.0
"""Ranges of a variable that no shift is known to be within, if its error is as large."""

FAINT = 1e-5
"""Of the size of ``y``, the noise that parameters are held against where errors are unknown."""


@dataclass(frozen=True)
class Trial:
    """What a place ``theta`` gives: whitened residuals and their derivatives.

    Attributes
    ----------
    residual, jacobian:
        [row] and [row, free parameter]; the first n rows are the points, the others hold what no
        point settles.
    coefficients, warped:
        Of the curve, and its scales.
    span:
        Orthonormal columns, the first n rows of which span the curves, [n + ..., coefficient].
    """

    residual: Array
    jacobian: Array
    coefficients: Array
    warped: tuple[Warped, ...]
    span: Array


@dataclass(frozen=True)
class Fit:
    """The best parameters with one family of curves.

    Attributes
    ----------
    problem, basis:
        What was fitted.
    free:
        Values of the free parameters.
    trial:
        Residuals and derivatives there.
    converged:
        Whether the search came to rest.
    """

    problem: Problem
    basis: Basis
    free: Array
    trial: Trial = field(repr=False)
    converged: bool

    @property
    def chi2(self) -> float:
        """Sum of squares of the whitened residuals."""
        residual = self.trial.residual[: len(self.problem.y)]
        return float(residual @ residual)

    @property
    def cost(self) -> float:
        """What is least: chi-square, and what holds parameters that no point settles."""
        return float(self.trial.residual @ self.trial.residual)

    @property
    def spent(self) -> float:
        """Free parameters, and coefficients as far as the points settle them."""
        return float(self.free.size + (self.trial.span[: len(self.problem.y)] ** 2).sum())

    @property
    def dof(self) -> float:
        """Degrees of freedom."""
        return len(self.problem.y) - self.spent

    @property
    def criterion(self) -> float:
        """Akaike's or Schwarz's criterion; with the error scale fitted where errors are unknown.

        Akaike's (with Hurvich's term for unknown errors) is the default: no family holds the true
        curve, so that the data should decide how much of it is told. Over 200 draws like directed
        percolation with a correction, the fewer coefficients of Schwarz's made parameters scatter
        more, by 1 to 6 %, and stated less.
        """
        n, k = len(self.problem.y), self.spent
        known = self.problem.errors_known
        cost = self.chi2 if known else n * math.log(max(self.chi2, 1e-300) / n)
        cost /= self.problem.dilution
        if self.problem.criterion == "bic":
            return cost + math.log(n) * k
        return cost + 2 * k + (0 if known else 2 * k * (k + 1) / max(n - k - 1, 1e-3))

    @property
    def jacobian(self) -> Array:
        """Derivatives of the whitened residuals with the curve following, [n, free]."""
        return self.trial.jacobian[: len(self.problem.y)]

    @cached_property
    def response(self) -> Array:
        """``d theta/dy``, [free, n]: the noise that a parameter inherits."""
        unit, scaled = self._scaled_jacobian
        backwards = np.linalg.pinv(scaled, rcond=ALIKE) / unit[:, None]
        return np.asarray(-self.problem.unwhiten(np.asarray(backwards.T)).T)

    @property
    def _scaled_jacobian(self) -> tuple[Array, Array]:
        """The length of every column of the Jacobian, and its columns over it: free of units."""
        length = np.linalg.norm(self.jacobian, axis=0)
        unit = np.where(length > 0, length, 1.0)
        return unit, self.jacobian / unit

    @cached_property
    def unsettled(self) -> NDArray[np.bool_]:
        """Which parameters could be anything, alone or together with others, [free]."""
        _, scaled = self._scaled_jacobian
        if not scaled.size:
            return np.zeros(scaled.shape[1], dtype=bool)
        _, strength, along = np.linalg.svd(scaled, full_matrices=False)
        idle = along[strength <= ALIKE * strength[0]]
        return np.asarray((np.abs(idle) > 1e-3).any(axis=0))

    @property
    def covariance(self) -> Array:
        """Of the free parameters, from the errors of the points as they are stated.

        Where errors are unknown their scale is that of the residuals. Infinite for what the points
        do not settle.
        """
        covariance = self.problem.points.noise(self.response) * self.error_scale**2
        with np.errstate(invalid="ignore"):
            beyond = self.unsettled | (np.sqrt(np.diag(covariance)) > self.problem.far)
        covariance[beyond, beyond] = math.inf
        return covariance

    @property
    def error_scale(self) -> float:
        """1, or the root of the reduced chi-square where errors are unknown."""
        if self.problem.errors_known:
            return 1.0
        return math.sqrt(self.chi2 / self.dof) if self.dof > 0 else math.nan

    @cached_property
    def overlap(self) -> float:
        """Share of the points whose scaling variables lie within the range of other curves'."""
        points = self.problem.points
        return overlap([bent.u for bent in self.trial.warped], points.columns[points.size])

    @cached_property
    def chi2_expected(self) -> tuple[float, float]:
        """Mean and variance of chi-square if the form holds.

        ``dof`` and ``2 dof`` for errors that are stated; for realisations, whose points are
        correlated, ``tr(M S)`` and ``2 tr(M S M S)`` with the covariance ``S`` of the whitened
        means and the projection ``M`` on what a fit leaves. Errors from few realisations scatter,
        and a square over a squared error is larger on average and more so at times: Fisher's F.
        """
        points = self.problem.points
        if not points.groups:
            return self.dof, 2 * self.dof
        stretch, wider = _of_estimated_errors(points.counts)
        noise = points.sample_covariance() / np.outer(points.error, points.error)
        noise *= np.sqrt(np.outer(stretch, stretch))
        n = len(self.problem.y)
        tangent, _ = np.linalg.qr(np.concatenate([self.trial.span[:n], self.jacobian], axis=1))
        left = noise - tangent @ (tangent.T @ noise)
        return float(np.trace(left)), 2 * wider * float((left * left.T).sum())

    def curve(self, *x: Array) -> Array:
        """``F`` at scaling variables within the range of the data (held constant outside)."""
        warps = zip(self.basis.warps, x, self.trial.warped, strict=True)
        design, _ = self.basis.design([warp.again(values, at) for warp, values, at in warps])
        return np.asarray(design @ self.trial.coefficients)


def _of_estimated_errors(counts: Array) -> tuple[Array, float]:
    """What ``(y - mean)^2/error^2`` is larger by on average, [n], and its variance over 2.

    ``f/(f - 2)`` and, besides its square, ``(f - 1)/(f - 4)`` for ``f`` degrees of freedom.
    """
    f = np.maximum(counts - 1, FEWEST)
    return f / (f - 2), float(np.mean((f - 1) / (f - 4)))


def overlap(warped: Sequence[Array], labels: Array) -> float:
    """Share of the points [n] whose scaling variables all lie within the range of other curves'."""
    inside = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = labels == label
        among = np.ones(own.sum(), dtype=bool)
        for u in warped:
            among &= (u[own] >= u[~own].min()) & (u[own] <= u[~own].max())
        inside[own] = among
    return float(inside.mean())


class Problem:
    """The points, the form and which of its parameters are free.

    Parameters
    ----------
    points, form:
        What is fitted with what.
    fixed:
        Values of parameters that are not fitted.
    """

    def __init__(self, points: Points, form: Form, fixed: Mapping[str, float] | None = None):
        self.points, self.form = points, form
        self.fixed = dict(fixed or {})
        self.names = tuple(n for n in form.parameters if n not in self.fixed)
        self.errors_known = points.errors_known
        self.criterion = "aic"
        self.dilution = 1.0
        """What the noise along a curve is larger by than that of one point, where correlated; times
        what chi-square is too large by."""
        self._evaluated = form.bind({name: points.columns[name] for name in form.variables})
        self._place = [form.parameters.index(name) for name in self.names]
        self._values = np.array([self.fixed.get(name, math.nan) for name in form.parameters])
        self.units = self._units()
        roles = [form.roles[name] for name in self.names]
        reach = self.units * [FAR[role.kind] for role in roles]
        self._hold = self._noise() / reach
        self.far = np.array(
            [
                at if math.isfinite(at) else WIDE * float(np.ptp(points.columns[role.variable]))
                for role, at in zip(roles, reach.tolist(), strict=True)
            ]
        )
        """Errors beyond which a parameter is not settled."""
        self._whitening: Array | None = None
        if points.covariance is not None:
            self._whitening = np.linalg.inv(np.linalg.cholesky(points.covariance))
        self.y = self.whiten(points.y)

    def _noise(self) -> float:
        """Of a whitened residual: 1, or little of ``y`` where errors, and so its unit, are open."""
        if self.errors_known:
            return 1.0
        return FAINT * float(np.sqrt(np.mean(self.points.y**2))) or 1.0

    def _units(self) -> Array:
        """Of every free parameter: 1, or the amplitude that changes the form by its own size.

        At the middle of the shifts, without the other amplitudes and with exponents of 1/2.
        """
        roles = [self.form.roles[name] for name in self.names]
        start = {"exponent": 0.5, "amplitude": 0.0}
        middle = {name: float(column.mean()) for name, column in self.points.columns.items()}
        place = np.array([middle.get(r.variable, start.get(r.kind, 0.0)) for r in roles])
        with np.errstate(all="ignore"):
            found = self.scaled(place)
            change = [np.abs(found.d_prefactor).max(axis=1) / np.abs(found.prefactor).max()]
            for x, dx in zip(found.arguments, found.d_arguments, strict=True):
                change.append(np.abs(dx).max(axis=1) / np.abs(x).max())
            unit = 1 / np.max(change, axis=0)[self._place]
        amplitude = np.array([role.kind == "amplitude" for role in roles], dtype=bool)
        return np.where(amplitude & np.isfinite(unit) & (unit > 0), unit, 1.0)

    def whiten(self, values: Array) -> Array:
        """In units of the errors, along the first axis."""
        if self._whitening is not None:
            return self._whitening @ values
        return values / (self.points.error if values.ndim == 1 else self.points.error[:, None])

    def unwhiten(self, rows: Array) -> Array:
        """The transpose of ``whiten``, on [n, k]."""
        if self._whitening is not None:
            return self._whitening.T @ rows
        return rows / self.points.error[:, None]

    def with_y(self, y: Array) -> Problem:
        """The same problem with other measurements."""
        other = object.__new__(Problem)
        other.__dict__.update(self.__dict__)
        other.y = self.whiten(y)
        return other

    def holding(self, **fixed: float) -> Problem:
        """The same problem with more parameters held."""
        other = Problem(self.points, self.form, {**self.fixed, **fixed})
        other.criterion, other.dilution = self.criterion, self.dilution
        return other

    def values(self, free: Array) -> Array:
        """All parameters in the order of the form."""
        values = self._values.copy()
        values[self._place] = free
        return values

    def scaled(self, free: Array) -> Evaluated:
        """Prefactor and arguments of the form at these parameters."""
        return self._evaluated(self.values(free))

    def at(self, free: Array, basis: Basis) -> Trial | None:
        """Residuals and derivatives; None where the form has no value there."""
        with np.errstate(all="ignore"):
            found = self.scaled(free)
        if not (np.isfinite(found.prefactor).all() and np.isfinite(found.arguments).all()):
            return None
        warped = []
        for warp, x, dx in zip(
            basis.warps, found.arguments, found.d_arguments[:, self._place], strict=True
        ):
            bent = warp(x, dx)
            if bent is None or not np.isfinite(bent.u).all():
                return None
            warped.append(bent)
        return self._solved(free, basis, found.prefactor, found.d_prefactor[self._place], warped)

    def _solved(
        self,
        free: Array,
        basis: Basis,
        prefactor: Array,
        d_prefactor: Array,
        warped: list[Warped],
    ) -> Trial | None:
        design, slopes = basis.design([w.u for w in warped])
        white = self.whiten(prefactor[:, None] * design)
        n, m = white.shape
        if not np.isfinite(white).all() or not np.abs(white).max() < LARGEST:
            return None
        scale = math.sqrt(RIDGE * float((white * white).sum()) / m)
        if not scale > 0:
            return None
        rough = basis.smoothness()
        q, r = np.linalg.qr(np.concatenate([white, scale * rough]))
        target = np.concatenate([self.y, np.zeros(len(rough))])
        along = q.T @ target
        try:
            coefficients = np.linalg.solve(r, along)
        except np.linalg.LinAlgError:
            return None
        height = design @ coefficients
        moved = d_prefactor * height
        for slope, bent in zip(slopes, warped, strict=True):
            moved = moved + prefactor * (slope @ coefficients) * bent.du
        pushed = np.zeros((len(target), len(moved)))
        pushed[:n] = self.whiten(moved.T)
        jacobian = q @ (q.T @ pushed) - pushed
        if not np.isfinite(jacobian).all():
            return None
        return Trial(
            np.concatenate([target - q @ along, self._hold * free]),
            np.concatenate([jacobian, np.diag(self._hold)]),
            coefficients,
            tuple(warped),
            q,
        )


def solve(
    problem: Problem, basis: Basis, start: Array, steps: int = STEPS, tolerance: float = FINE
) -> Fit | None:
    """The best parameters next to a start; None where the form has no value at the start.

    It comes to rest where a step changes chi-square or the parameters by less than ``tolerance``.
    """
    from scipy.optimize import leastsq

    first = problem.at(start, basis)
    if first is None:
        return None
    if not start.size:
        return Fit(problem, basis, start, first, True)
    kept: dict[bytes, Trial | None] = {start.tobytes(): first}
    wall = 1e3 * np.abs(first.residual).max() + 1e3

    def trial(free: Array) -> Trial | None:
        key = free.tobytes()
        if key not in kept:
            kept[key] = problem.at(free, basis)
        return kept[key]

    def residual(free: Array) -> Array:
        found = trial(free)
        return np.full(len(first.residual), wall) if found is None else found.residual

    def jacobian(free: Array) -> Array:
        found = trial(free)
        return np.zeros_like(first.jacobian) if found is None else found.jacobian

    end, *_, code = leastsq(
        residual,
        start.copy(),
        Dfun=jacobian,
        full_output=True,
        maxfev=steps,
        ftol=tolerance,
        xtol=tolerance,
        factor=10.0,
    )
    there = trial(np.asarray(end, dtype=float))
    if there is None or not np.isfinite(there.residual).all():
        return None
    return Fit(problem, basis, np.asarray(end, dtype=float), there, code in (1, 2, 3, 4))

"""``collapse``: parameters of a scaling form, how sure they are, and whether to believe them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.scaling.bases import Array
from depthscale.scaling.families import best_fits, least_size, weights
from depthscale.scaling.fit import ROUGH, Fit, Problem, solve
from depthscale.scaling.form import Form
from depthscale.scaling.judgement import UNLIKELY, Evidence, warnings_of
from depthscale.scaling.points import Points, as_points
from depthscale.scaling.starts import search
from depthscale.scaling.tables import names_of
from depthscale.scaling.uncertainty import profile as limits_of
from depthscale.scaling.uncertainty import resampled
from depthscale.scaling.windows import Window, corrected, effective, stability
from depthscale.theory.records import as_number, whole

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

RESAMPLES = 200

CRITERIA = ("aic", "bic")

DISTINCT, CLOSE_SECOND, NOTABLE = 3.0, 12.0, 1e-2
"""Two coarse solutions are others if so many errors apart; one is tried again if its chi-square is
so close to the least; and taken if it is then lower by so much."""


class Estimate(NamedTuple):
    """A parameter, its standard error, and the ends of its 68 % interval."""

    value: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class Collapse:
    """What a scaling form found in data; prints itself.

    Attributes
    ----------
    form, points:
        What was fitted to what.
    parameters:
        By name; those that were held have an error of 0.
    correlation:
        Of the free parameters, in the order of ``names``.
    names:
        The free parameters.
    fit, fits, weights:
        The best fit, those with other families of curves that count, and their weights.
    reduced_chi2, dof, p_value:
        Chi-square over its mean if the form holds (the degrees of freedom for uncorrelated points),
        that mean, and the chance of a larger one; of unknown errors 1 and no chance.
    error_scale:
        What stated errors were multiplied with, for a bad chi-square, or for unknown errors.
    method:
        How the errors came about.
    stability, effective, corrected:
        Fits of parts of the points, of a few neighbouring sizes each, and of all points with a
        correction to scaling added, see ``windows``.
    warnings:
        What speaks against the result, in plain words.
    resamples:
        Parameters of every resample, [resample, free].
    checks:
        Parameters by other methods, where they were asked for.
    seconds:
        Processor time.
    """

    form: Form
    points: Points = field(repr=False)
    parameters: Mapping[str, Estimate]
    correlation: Array = field(repr=False)
    names: tuple[str, ...]
    fit: Fit = field(repr=False)
    fits: tuple[Fit, ...] = field(repr=False)
    weights: Array = field(repr=False)
    reduced_chi2: float
    dof: float
    p_value: float | None
    error_scale: float
    method: str
    stability: tuple[Window, ...] = field(repr=False)
    effective: tuple[Window, ...] = field(repr=False)
    corrected: tuple[Window, ...] = field(repr=False)
    warnings: tuple[str, ...]
    resamples: Array = field(repr=False)
    checks: Mapping[str, Any] = field(repr=False)
    seconds: float

    def __str__(self) -> str:
        """The terminal report: plain text of at most 100 columns."""
        from depthscale.report.collapse_summaries import render_collapse

        return render_collapse(self.to_dict())

    def __getitem__(self, name: str) -> Estimate:
        return self.parameters[name]

    @property
    def stable(self) -> bool:
        """Whether the points fall onto one curve and no part of them says otherwise.

        At a chance of ``UNLIKELY`` for chi-square and, in all, for the windows.
        """
        if self.p_value is not None and self.p_value < UNLIKELY:
            return False
        windows = [w.p_value for w in self.stability if w.p_value is not None]
        return not windows or min(windows) * len(windows) >= UNLIKELY

    def scaled(self) -> tuple[tuple[Array, ...], Array, Array]:
        """Scaling variables, and ``y`` and its error over the prefactor: what collapses, [n]."""
        found = self.form.evaluate(self.points.columns, self.values)
        size = found.prefactor
        return tuple(found.arguments), self.points.y / size, self.points.error / np.abs(size)

    @property
    def values(self) -> Array:
        """All parameters, in the order of the form."""
        return np.array([self.parameters[name].value for name in self.form.parameters])

    def plot(self, target: str | Path | None = None) -> Figure:
        """Data, collapse, residuals and stability; written to ``target`` where it is given."""
        from depthscale.report.collapse import plot_collapse

        return plot_collapse(self, target)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        from depthscale.scaling.export import as_record

        return as_record(self)

    def to_xarray(self) -> xarray.Dataset:
        """The points with their scaled place and residual, and the parameters."""
        from depthscale.scaling.export import as_dataset

        return as_dataset(self)


def collapse(
    data: Any,
    form: str | Form,
    *,
    y: str,
    x: str,
    size: str,
    error: str | ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    realisation: str | None = None,
    start: Mapping[str, float] | None = None,
    fixed: Mapping[str, float] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    window: Mapping[str, tuple[float, float]] | None = None,
    criterion: str = "aic",
    resamples: int | None = None,
    profile: bool = False,
    checks: bool = False,
    seed: int = 0,
) -> Collapse:
    """Find the parameters with which data fall onto one curve.

    The form is fitted to ``y`` as measured, its master curve taken from several families (cubic
    splines on several scales, polynomials) of several sizes, and eliminated from the fit;
    parameters are averages over the families by AIC or BIC, and their errors hold what these differ
    by.

    Parameters
    ----------
    data:
        Long form: a pandas DataFrame, a mapping of columns, records, or an xarray Dataset; ragged
        grids are welcome. See ``as_points``.
    form:
        As ``"L^-c2 * F((T - Tc) * L^c1)"``, see ``Form.parse``; one or two arguments, any factors
        such as ``(1 + a * L^-omega)``.
    y, x, size:
        Names of the columns of what was measured, the control variable, and what labels the curves.
    error, covariance, realisation:
        Where the uncertainty comes from, one of them: standard errors (a column or an array), a
        covariance of the rows, or the column that tells realisations apart. Without any all points
        count alike.
    start, fixed, bounds:
        By parameter: where to begin, what to hold, and limits. A parameter that ends at a limit is
        held there and told.
    window:
        By column, the range of rows that are used.
    criterion:
        ``"aic"`` or ``"bic"``: by what curves are weighed, see ``Fit.criterion``.
    resamples:
        Fits to resampled measurements, for the errors; default 200 for realisations, else 0, which
        takes them from the curvature of chi-square.
    profile:
        Take 68 % intervals where chi-square rises by 1 with the other parameters following.
    checks:
        Also find the parameters by Houdayer and Hartmann's measure and by a Gaussian process.
    seed:
        Of starts and resamples.

    Raises
    ------
    InputError
        Data, columns or errors that cannot be used (see ``as_points``), a form that cannot be read,
        unknown names of parameters, more parameters than the points can tell.

    Source: variable projection (Golub and Pereyra 1973); finite-size scaling (Fisher and Barber
    1972). Derived here: the variance of window shifts with correlated points.

    Examples
    --------
    >>> L, T = np.repeat([8.0, 16.0, 32.0], 9), np.tile(np.linspace(0.8, 1.2, 9), 3)
    >>> m = L**-0.5 / np.cosh((T - 1) * L / 4)
    >>> found = collapse({"T": T, "L": L, "m": m, "e": 0.01 * m}, "L^-b * F((T - Tc) * L^a)",
    ...                  y="m", x="T", size="L", error="e")
    >>> [f"{found[name].value:.1f}" for name in ("a", "b", "Tc")]
    ['1.0', '0.5', '1.0']
    """
    began = time.process_time()
    seed = whole("seed", seed, 0)
    points, parsed = _read(data, form, y, x, size, error, covariance, realisation, window)
    held = _named(parsed, fixed, "fixed")
    begin = {n: v for n, v in _named(parsed, start, "start").items() if n not in held}
    limits = _limits(parsed, bounds)
    problem = Problem(points, parsed, held)
    if criterion not in CRITERIA:
        raise InputError(f"criterion is {criterion!r}; expected one of {', '.join(CRITERIA)}")
    problem.criterion = criterion
    _check_count(problem)
    fits, places, at_edge = _within(problem, begin, limits, seed)
    fit, share = fits[0], weights(fits)
    reduced, mean, chance = _goodness(fit)
    scale = _scale(fit, reduced, chance)
    number = (RESAMPLES if points.groups else 0) if resamples is None else _count(resamples)
    drawn = resampled(fit, number, seed) if number else np.empty((0, len(fit.problem.names)))
    middle, spread, statistical = _averaged(fits, share, drawn, scale)
    estimates, method = _estimates(fit, middle, spread, statistical, drawn, scale, profile)
    parts = stability(fit, scale)
    local, longer = effective(fit, scale), corrected(fit, scale)
    total = statistical + spread
    evidence = Evidence(
        fit=fit,
        places=places,
        reduced=reduced,
        chance=chance,
        scale=scale,
        covariance=total,
        spread=spread,
        stability=parts,
        effective=local,
        corrected=longer,
        at_edge=at_edge,
        drawn=drawn,
        asked=number,
    )
    from depthscale.scaling.cross_checks import cross_checks

    return Collapse(
        form=parsed,
        points=points,
        parameters={
            name: estimates[name] if name in estimates else _held(fit.problem.fixed[name])
            for name in parsed.parameters
        },
        correlation=_correlation(total),
        names=fit.problem.names,
        fit=fit,
        fits=tuple(fits),
        weights=share,
        reduced_chi2=reduced,
        dof=mean,
        p_value=chance,
        error_scale=scale,
        method=method,
        stability=parts,
        effective=local,
        corrected=longer,
        warnings=tuple(warnings_of(evidence)),
        resamples=drawn,
        checks=cross_checks(fit) if checks else {},
        seconds=time.process_time() - began,
    )


def _read(
    data: Any,
    form: str | Form,
    y: str,
    x: str,
    size: str,
    error: Any,
    covariance: Any,
    realisation: str | None,
    window: Mapping[str, tuple[float, float]] | None,
) -> tuple[Points, Form]:
    for name in (y, x, size):
        if not isinstance(name, str):
            raise InputError(f"{name!r} is no name of a column")
    _check_mapping("window", window)
    others = {name for name in (y, error, realisation) if isinstance(name, str)}
    columns = [name for name in names_of(data) if name not in others]
    parsed = form if isinstance(form, Form) else Form.parse(form, columns, y)
    extra = [*parsed.variables, *(window or {})]
    points = as_points(
        data,
        y=y,
        x=x,
        size=size,
        variables=extra,
        error=error,
        covariance=covariance,
        realisation=realisation,
    )
    if points.sizes[0] <= 0:
        raise InputError(
            f"{size} goes down to {points.sizes[0]:g}; expected sizes above 0, since powers of them"
            " have no value there"
        )
    for name, bounds in (window or {}).items():
        low, high = _pair(f"window of {name}", bounds)
        column = points.columns[name]
        points = points.select((column >= low) & (column <= high))
        if len(points.sizes) < 2:
            raise InputError(
                f"the window {name} from {low:g} to {high:g} keeps {len(points)} points of"
                f" {len(points.sizes)} sizes; expected two sizes at least"
            )
    return points, parsed


def _named(form: Form, given: Mapping[str, float] | None, what: str) -> dict[str, float]:
    _check_mapping(what, given)
    found = {}
    for name, value in (given or {}).items():
        if name not in form.parameters:
            raise InputError(
                f"{what} names {name!r}; the parameters of {form} are {', '.join(form.parameters)}"
            )
        number = as_number(f"{name} of {what}", value)
        if not math.isfinite(number):
            raise InputError(f"{what} gives {name} = {value!r}; expected a finite number")
        found[name] = number
    return found


def _check_mapping(what: str, given: Any) -> None:
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"{what} is {given!r}; expected a mapping of names")


def _pair(what: str, bounds: Any) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in bounds)
    except (TypeError, ValueError):
        raise InputError(f"{what} is {bounds!r}; expected two numbers") from None
    if not low < high:
        raise InputError(f"{what} is from {low:g} to {high:g}; expected the lower one first")
    return low, high


def _limits(
    form: Form, bounds: Mapping[str, tuple[float, float]] | None
) -> dict[str, tuple[float, float]]:
    _check_mapping("bounds", bounds)
    for name in bounds or {}:
        _named(form, {name: 0.0}, "bounds")
    return {name: _pair(f"bounds of {name}", pair) for name, pair in (bounds or {}).items()}


def _count(value: Any) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or not 0 <= value <= 10**6
    ):
        raise InputError(f"resamples is {value!r}; expected a whole number up to a million, or 0")
    if value == 1:
        raise InputError("one resample has no spread; expected 0 or some hundred")
    return int(value)


def _check_count(problem: Problem) -> None:
    least = len(problem.names) + least_size(len(problem.form.arguments)) + 1
    if len(problem.y) < least:
        raise InputError(
            f"{len(problem.y)} points for {len(problem.names)} parameters and a curve; expected at"
            f" least {least}"
        )


def _within(
    problem: Problem,
    start: Mapping[str, float],
    limits: Mapping[str, tuple[float, float]],
    seed: int,
) -> tuple[list[Fit], list[Fit], dict[str, float]]:
    """Fits of all families, the polished starts, and parameters that ran into a limit."""
    at_edge: dict[str, float] = {}
    while True:
        first, places = search(problem, start, seed)
        problem.dilution = _dilution(first)
        fits = best_fits(problem, first.free)
        if fits and (better := _better(fits[0], places)) is not None:
            fits = best_fits(problem, better)
        fits = _honest(fits)
        if not fits:
            raise InputError(
                f"no curve with a parameter less than the {len(problem.y)} points could be fitted;"
                " give more points or hold parameters with fixed="
            )
        beyond = {
            name: min(max(value, limits[name][0]), limits[name][1])
            for name, value in zip(problem.names, fits[0].free.tolist(), strict=True)
            if name in limits and not limits[name][0] <= value <= limits[name][1]
        }
        if not beyond:
            return fits, places, at_edge
        at_edge.update(beyond)
        problem = problem.holding(**beyond)
        start = {n: v for n, v in zip(first.problem.names, first.free, strict=True)
                 if n in problem.names}  # fmt: skip


def _honest(fits: list[Fit]) -> list[Fit]:
    """The fits, chosen anew where chi-square is bad: stated errors too small buy too many knots."""
    if not fits:
        return fits
    reduced, _, chance = _goodness(fits[0])
    if chance is None or not chance < UNLIKELY:
        return fits
    fits[0].problem.dilution *= max(1.0, reduced)
    return best_fits(fits[0].problem, fits[0].free)


def _better(best: Fit, places: Sequence[Fit]) -> Array | None:
    """Where another of the coarse solutions leads lower, with the curve that was chosen."""
    size = np.sqrt(np.maximum(np.diag(best.covariance), 0))
    found, least = None, best.cost - NOTABLE * best.error_scale**2
    close = CLOSE_SECOND * best.problem.dilution * places[0].error_scale ** 2
    for place in places:
        near = np.abs(place.free - best.free) <= DISTINCT * size
        if near.all() or place.cost > places[0].cost + close:
            continue
        again = solve(best.problem, best.basis, place.free, tolerance=ROUGH)
        if again is not None and again.cost < least:
            found, least = again.free, again.cost
    return found


def _dilution(fit: Fit) -> float:
    """Noise along a smooth curve over that of a point: above 1 where points are correlated."""
    points = fit.problem.points
    if not points.groups:
        return 1.0
    span = fit.trial.span[: len(points)]
    along = np.diag(points.noise(span.T / points.error))
    return max(1.0, float(along.sum() / (span**2).sum()))


def _goodness(fit: Fit) -> tuple[float, float, float | None]:
    """Reduced chi-square, its mean and the chance of a larger one (Satterthwaite's chi-square)."""
    from scipy.stats import chi2

    mean, variance = fit.chi2_expected
    if not fit.problem.errors_known:
        return 1.0, mean, None
    if not mean > 0:
        return math.nan, mean, None
    unit = variance / (2 * mean)
    return fit.chi2 / mean, mean, float(chi2.sf(fit.chi2 / unit, mean / unit))


def _scale(fit: Fit, reduced: float, chance: float | None) -> float:
    if chance is None:
        return fit.error_scale
    return math.sqrt(reduced) if chance < UNLIKELY else 1.0


def _averaged(
    fits: Sequence[Fit], share: Array, drawn: Array, scale: float
) -> tuple[Array, Array, Array]:
    """Parameters, covariance between the families of curves, and that of the noise."""
    values = np.array([fit.free for fit in fits])
    middle = share @ values
    apart = values - middle
    spread = (share[:, None] * apart).T @ apart
    if len(drawn) > 1:
        statistical = np.atleast_2d(np.cov(drawn.T)) * _widened(fits[0], scale) ** 2
    else:
        unit = [fit.covariance / max(fit.error_scale, 1e-300) ** 2 for fit in fits]
        statistical = np.einsum("k,kij->ij", share, unit) * scale**2
    return middle, spread, statistical


def _widened(fit: Fit, scale: float) -> float:
    """``scale`` over that of the noise which resamples have already."""
    return scale / max(fit.error_scale, 1e-300)


def _estimates(
    fit: Fit,
    middle: Array,
    spread: Array,
    statistical: Array,
    drawn: Array,
    scale: float,
    profiled: bool,
) -> tuple[dict[str, Estimate], str]:
    """Values, errors and intervals by name, and how they came about."""
    errors = np.sqrt(np.diag(spread) + np.diag(statistical))
    low, high = middle - errors, middle + errors
    method = "curvature of chi-square"
    if len(drawn) > 1:
        whole = fit.problem.points.groups
        method = (
            f"{len(drawn)} resamples of {'whole realisations' if whole else 'the stated noise'}"
        )
        sides = np.abs(np.quantile(drawn, [0.16, 0.84], axis=0) - np.median(drawn, axis=0))
        sides *= _widened(fit, scale)
        low, high = (
            middle - np.hypot(sides[0], np.sqrt(np.diag(spread))),
            middle + np.hypot(sides[1], np.sqrt(np.diag(spread))),
        )
    if profiled:
        method = "profile of chi-square"
        rises = _rises(fit, scale)
        for k, error in enumerate(errors):
            ends = limits_of(fit, k, rises[k], error)
            between = math.sqrt(spread[k, k])
            low[k] = middle[k] - math.hypot(fit.free[k] - ends[0], between)
            high[k] = middle[k] + math.hypot(ends[1] - fit.free[k], between)
    names = fit.problem.names
    rows = zip(middle.tolist(), errors.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: Estimate(*row) for name, row in zip(names, rows, strict=True)}, method


def _rises(fit: Fit, scale: float) -> Array:
    """Rise of chi-square at one standard error: 1, or more where points are correlated."""
    plain = np.linalg.pinv(fit.jacobian.T @ fit.jacobian)
    unit = np.diag(fit.covariance) / max(fit.error_scale, 1e-300) ** 2
    return np.asarray(unit / np.diag(plain) * scale**2)


def _held(value: float) -> Estimate:
    return Estimate(value, 0.0, value, value)


def _correlation(covariance: Array) -> Array:
    size = np.sqrt(np.diag(covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(covariance / np.outer(size, size))

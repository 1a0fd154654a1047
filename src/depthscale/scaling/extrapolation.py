"""Limits of measured sequences as x grows, averaged over the forms that they may approach it by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.scaling.curves import (
    Curve,
    Fitted,
    checked_omega,
    fit_curve,
    logarithmic_approach,
    polynomial,
    power_approach,
)
from depthscale.scaling.series import Series, series
from depthscale.theory.records import as_number, with_reasons

FORMS = {
    "constant": "limit",
    "power": "limit + B x^-omega",
    "logarithmic": "limit + B/log(x/x0), x0 the smallest x over e",
    "1/x": "limit + B/x",
    "1/x, 1/x^2": "limit + B/x + C/x^2",
}
"""Approaches that are tried, by name."""

CRITERIA = ("bic", "aic")

_APART = 3.0
"""Standard errors between two forms that both hold, from which their limits contradict."""

_COUNTS = 0.25
"""Weight of the forms that contradict the best from which nothing is decided: odds of 3 to 1."""


class Approach(NamedTuple):
    """One form: its limit with the half width of a 68.3 % interval, fit and weight.

    ``weight`` is 0 for one that the points rule out, or that was left out: see ``extrapolate``.
    ``stuck`` where its omega is as slow as was searched, so that its limit is open.
    """

    form: str
    limit: float
    error: float
    chi2: float
    dof: int
    p_value: Quantity
    criterion: float
    weight: float
    omega: float | None
    stuck: bool


@dataclass(frozen=True)
class Extrapolation:
    """The limit at infinite x, or the reason why the points do not tell it.

    ``error``: half width of a 68.3 % interval, from the fits and from what they differ by
    (``between``). ``last``: the value at the largest x. ``approaches`` by falling weight.
    """

    limit: Quantity
    error: Quantity
    between: float
    last: float
    approaches: tuple[Approach, ...]
    window: tuple[float, float]
    points: int
    criterion: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; a quantity that does not exist is None, with its reason."""
        rows = [
            {**a._asdict(), "p_value": a.p_value if isinstance(a.p_value, float) else None}
            for a in self.approaches
        ]
        record = {
            "limit": self.limit,
            "error": self.error,
            "between": self.between,
            "last": self.last,
            "approaches": rows,
            "window": list(self.window),
            "points": self.points,
            "criterion": self.criterion,
        }
        return with_reasons(record)

    def __str__(self) -> str:
        from depthscale.report.exponent_summaries import render_extrapolation

        return render_extrapolation(self.to_dict())


def extrapolate(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    error: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    realisations: ArrayLike | None = None,
    samples: int | None = None,
    forms: Sequence[str] | str | None = None,
    omega: float | None = None,
    window: tuple[float, float] | None = None,
    criterion: str = "bic",
    level: float = 0.001,
) -> Extrapolation:
    """The limit of y as x grows, as an average over the forms that describe the points.

    A form of k parameters weighs ``exp(-criterion/2)``, with ``chi2 + k log n`` (BIC) or ``chi2 +
    2 k`` (AIC). The variance of the average is ``sum_i w_i (error_i^2 + (limit_i - limit)^2)``:
    what the forms differ by is part of it. Left out is the form "power" with a fitted omega where
    the constant does as well (omega then means nothing), and where omega is as slow as was
    searched.

    Parameters
    ----------
    x, y, error, covariance, realisations, samples:
        As for ``effective_exponent``; y may have any sign.
    forms:
        Some of ``FORMS``, or the name of one. Default: all for which there are more points than
        parameters.
    omega:
        Of the form "power", above 0; default: fitted, from .05 to 5.
    window:
        Smallest and largest x to use, default all.
    criterion:
        "bic" or "aic".
    level:
        A form is ruled out where a chi2 as large is less probable than this.

    Returns
    -------
    Extrapolation
        Its ``limit`` is ``Undefined`` where no form describes the points, where forms of a quarter
        of all weight contradict the best by three errors or have an open end, or where the error
        exceeds all that the points vary by and their own errors.

    Raises
    ------
    InputError
        With what was given and what is expected.

    Examples
    --------
    >>> x = np.geomspace(10, 1000, 9)
    >>> found = extrapolate(x, 0.16 + 0.3 / x, error=np.full(9, 1e-4))
    >>> found.approaches[0].form, round(float(found.limit), 4)
    ('1/x', 0.16)
    """
    points = series(
        x, y, error=error, covariance=covariance, realisations=realisations, samples=samples
    ).within(window)
    if criterion not in CRITERIA:
        raise InputError(f"criterion is {criterion!r}; expected one of {', '.join(CRITERIA)}")
    level = as_number("level", level)
    if not 0 <= level < 1:
        raise InputError(f"level is {level:g}; expected a probability, below 1")
    fits = [fit_curve(points, curve) for curve in _curves(points, forms, omega)]
    weighed = _weighed(fits, criterion, level)
    approaches = _closed(weighed)
    limit, spread, between = _average(approaches)
    why = _undecided(points, weighed, spread, level)
    return Extrapolation(
        limit=Undefined(why) if why else limit,
        error=Undefined(why) if why else spread,
        between=between,
        last=float(points.y[-1]),
        approaches=approaches,
        window=(float(points.x[0]), float(points.x[-1])),
        points=len(points),
        criterion=criterion,
    )


def _curves(points: Series, forms: Sequence[str] | str | None, omega: float | None) -> list[Curve]:
    if not isinstance(forms, str | Sequence | None):
        raise InputError(f"forms are {forms!r}; expected a list of names")
    asked = list(FORMS) if forms is None else [forms] if isinstance(forms, str) else list(forms)
    unknown = [form for form in asked if form not in FORMS]
    if unknown or not asked:
        names = ", ".join(f'"{form}"' for form in FORMS)
        raise InputError(f"forms are {forms!r}; expected some of {names}")
    if omega is not None:
        if "power" not in asked:
            raise InputError('omega is a power of the form "power"; leave it out')
        omega = checked_omega(omega, points.x)
    scale = float(np.exp(np.log(points.x).mean()))
    curves = {
        "constant": polynomial(0),
        "power": power_approach(omega),
        "logarithmic": logarithmic_approach(float(points.x[0]) / math.e / scale),
        "1/x": polynomial(1),
        "1/x, 1/x^2": polynomial(2),
    }
    fitting = [curves[form] for form in asked if curves[form].parameters < len(points)]
    if not fitting:
        raise InputError(
            f"{len(points)} points for {', '.join(asked)}; expected more points than parameters"
        )
    return fitting


def _weighed(fits: list[Fitted], criterion: str, level: float) -> tuple[Approach, ...]:
    """Forms by falling weight; open ones still have theirs."""
    found = [_approach(fit, criterion) for fit in fits]
    constant = next((a.criterion for a in found if a.form == "constant"), math.inf)

    def holds(a: Approach) -> bool:
        likely = not isinstance(a.p_value, float) or a.p_value >= level
        return likely and (a.omega is None or a.criterion < constant)

    least = min((a.criterion for a in found if holds(a)), default=0.0)
    heights = [math.exp((least - a.criterion) / 2) if holds(a) else 0.0 for a in found]
    total = sum(heights) or 1.0
    weighed = [a._replace(weight=h / total) for a, h in zip(found, heights, strict=True)]
    return tuple(sorted(weighed, key=lambda a: (-a.weight, a.criterion)))


def _approach(fit: Fitted, criterion: str) -> Approach:
    """One form, without its weight."""
    free = "omega" in fit.curve.nonlinear
    return Approach(
        form=fit.curve.name,
        limit=fit.value("limit"),
        error=fit.error("limit"),
        chi2=fit.solution.chi2,
        dof=fit.solution.dof,
        p_value=fit.solution.p_value,
        criterion=fit.bic if criterion == "bic" else fit.solution.chi2 + 2 * fit.curve.parameters,
        weight=0.0,
        omega=fit.value("omega") if free else None,
        stuck=bool(fit.stuck) and fit.value("omega") < 1,
    )


def _contradicting(approaches: tuple[Approach, ...]) -> list[Approach]:
    """Forms that hold with another limit than the best of those with one, or with an open one."""
    closed = [a for a in approaches if a.weight > 0 and not a.stuck]
    rest = [a for a in approaches if a.weight > 0 and a.stuck]
    if closed:
        lead = closed[0]
        rest += [
            a
            for a in closed[1:]
            if abs(a.limit - lead.limit) > _APART * math.hypot(a.error, lead.error)
        ]
    return rest


def _closed(approaches: tuple[Approach, ...]) -> tuple[Approach, ...]:
    """Without the open forms."""
    total = sum(a.weight for a in approaches if not a.stuck) or 1.0
    kept = [a._replace(weight=0.0 if a.stuck else a.weight / total) for a in approaches]
    return tuple(sorted(kept, key=lambda a: (-a.weight, a.criterion)))


def _average(approaches: tuple[Approach, ...]) -> tuple[float, float, float]:
    """Limit, its error, and the part of it that the forms differ by."""
    weights = np.array([a.weight for a in approaches])
    limits = np.array([a.limit for a in approaches])
    errors = np.array([a.error for a in approaches])
    if not weights.any():
        return math.nan, math.nan, math.nan
    limit = float(weights @ limits)
    between = float(weights @ (limits - limit) ** 2)
    within = float(weights @ errors**2)
    return limit, math.sqrt(within + between), math.sqrt(between)


def _undecided(points: Series, weighed: tuple[Approach, ...], spread: float, level: float) -> str:
    """Why the points do not tell their limit, or nothing."""
    if not any(a.weight for a in weighed):
        return f"no form describes the points: all are less probable than {level:g}"
    against = _contradicting(weighed)
    if sum(a.weight for a in against) >= _COUNTS:
        other = max(against, key=lambda a: a.weight)
        if other.stuck:
            return (
                f'the form "{other.form}" holds with omega = {other.omega:.2g}, as slow as was'
                " searched: how far it still goes is open"
            )
        lead = next(a for a in weighed if not a.stuck)
        return (
            f'"{lead.form}" gives {lead.limit:.4g} +- {lead.error:.2g} and "{other.form}"'
            f" {other.limit:.4g} +- {other.error:.2g}, and the points allow both"
        )
    varies = float(np.ptp(points.y))
    if spread > varies + 2 * float(points.errors.max()):
        return (
            f"its error, {spread:.2g}, exceeds all that the points vary by ({varies:.2g}): take"
            " larger x or smaller errors"
        )
    return ""

"""Other ways to the same parameters: without any curve, and with one drawn from a process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from depthscale.scaling.bases import Array
from depthscale.scaling.export import number_or_none
from depthscale.scaling.fit import Fit
from depthscale.scaling.process import Evidence, curvature, maximised
from depthscale.scaling.quality import Quality, minimised, propagated

METHODS = {
    "houdayer_hartmann": "Houdayer and Hartmann",
    "gaussian_process": "Gaussian process",
}


@dataclass(frozen=True)
class CrossCheck:
    """Parameters by one other method; prints itself.

    Attributes
    ----------
    method:
        A key of ``METHODS``.
    values, errors:
        Of the free parameters; NaN where the method settles nothing.
    measure:
        S, which is about 1 for a collapse within errors, or the logarithm of the evidence up to a
        constant of the data.
    terms:
        How many points the measure holds.
    rises:
        Distances at which S rises by 1, the usual errors; empty for the process.
    """

    method: str
    values: Mapping[str, float]
    errors: Mapping[str, float]
    measure: float
    terms: int
    rises: Mapping[str, float]

    def __str__(self) -> str:
        from depthscale.report.collapse_summaries import bracketed

        shown = ", ".join(
            f"{name} {bracketed(row['value'], row['error'])}"
            for name, row in self.to_dict()["parameters"].items()
        )
        what = "S" if self.rises else "log evidence"
        return f"{METHODS[self.method]}: {shown}; {what} {self.measure:.4g} of {self.terms} points"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: numbers that do not exist are None."""
        parameters: dict[str, Any] = {}
        for name, value in self.values.items():
            row = {"value": number_or_none(value), "error": number_or_none(self.errors[name])}
            if name in self.rises:
                row["error_by_rise"] = number_or_none(self.rises[name])
            parameters[name] = row
        return {
            "method": self.method,
            "parameters": parameters,
            "measure": number_or_none(self.measure),
            "terms": self.terms,
        }


def cross_checks(fit: Fit) -> dict[str, CrossCheck]:
    """Parameters by every other method, started at a fit."""
    if not fit.free.size:
        return {}
    return {check.method: check for check in (houdayer_hartmann(fit), gaussian_process(fit))}


def houdayer_hartmann(fit: Fit) -> CrossCheck:
    """Parameters at which points lie closest to the lines between points of other curves.

    ``S = (1/N) sum (y_i - Y_i)^2/(dy_i^2 + dY_i^2)``, see ``quality``, for one argument as in the
    source; for two the line is a plane through the nearest points of other sizes. ``errors`` carry
    the noise of the points through to the minimum. ``rises`` are where S rises by 1, as is usual:
    since S is a mean, chi-square rises by N there, and these are larger by about ``sqrt(N)``.
    Straight lines cut the corners of a curve and neighbours change in steps: over 60 draws of a set
    like directed percolation, 1 % noise, parameters were off by .4 to .5 of ``errors`` on average
    and scattered by 1.2 to 1.3 of them. A check, not an estimate to prefer.

    Source: Houdayer and Hartmann 2004, eqs. of the appendix; the errors are derived here.

    Examples
    --------
    >>> from depthscale.scaling.collapse import collapse
    >>> L, T = np.repeat([8.0, 16.0, 32.0], 15), np.tile(np.linspace(0.9, 1.1, 15), 3)
    >>> m = L**-0.5 / (1 + np.exp((T - 1) * L))
    >>> found = collapse({"T": T, "L": L, "m": m, "e": 0.02 * m}, "L^-b * F((T - Tc)*L^a)",
    ...                  y="m", x="T", size="L", error="e")
    >>> check = houdayer_hartmann(found.fit)
    >>> bool(abs(check.values["b"] - 0.5) < 3 * check.errors["b"])
    True
    """
    quality, unit = Quality(fit), _unit(fit)
    best = minimised(quality, fit.free, unit)
    here = None if best is None else quality.terms(best)
    if best is None or here is None:
        nothing = np.full(len(unit), math.nan)
        return _check(fit, "houdayer_hartmann", nothing, nothing, math.nan, 0, nothing)
    errors, rises = propagated(quality, best, unit)
    return _check(fit, "houdayer_hartmann", best, errors, here.quality, len(here.residual), rises)


def gaussian_process(fit: Fit) -> CrossCheck:
    """Parameters of the largest evidence, where the curve is a Gaussian process; see ``process``.

    Parameters, size and length of the process (and the noise, where errors are unknown) are found
    together; ``errors`` are those of the Hessian, with realisations of the noise that these show.

    Source: Harada 2011; here for ``y`` as measured, and on the scale of the fit's curve.

    Examples
    --------
    >>> from depthscale.scaling.collapse import collapse
    >>> L, T = np.repeat([8.0, 16.0, 32.0], 15), np.tile(np.linspace(0.9, 1.1, 15), 3)
    >>> m = L**-0.5 / (1 + np.exp((T - 1) * L))
    >>> found = collapse({"T": T, "L": L, "m": m, "e": 0.02 * m}, "L^-b * F((T - Tc)*L^a)",
    ...                  y="m", x="T", size="L", error="e")
    >>> check = gaussian_process(found.fit)
    >>> bool(abs(check.values["b"] - 0.5) < 3 * check.errors["b"])
    True
    """
    evidence, unit = Evidence(fit), _unit(fit)
    best, rested = maximised(evidence, unit)
    p = len(unit)
    errors = np.full(p, math.nan)
    if rested:
        with np.errstate(invalid="ignore"):
            errors = np.sqrt(np.diag(curvature(evidence, best, unit)))
    measure = -evidence(best)
    return _check(fit, "gaussian_process", best[:p], errors, measure, len(fit.problem.y), None)


def _unit(fit: Fit) -> Array:
    """A step of every parameter: its error, where the fit has one."""
    errors = np.sqrt(np.abs(np.diag(fit.covariance)))
    usual = 0.1 * np.maximum(np.abs(fit.free), 0.1)
    return np.where(np.isfinite(errors) & (errors > 0), errors, usual)


def _check(
    fit: Fit,
    method: str,
    values: Array,
    errors: Array,
    measure: float,
    terms: int,
    rises: Array | None,
) -> CrossCheck:
    names = fit.problem.names

    def named(numbers: Array | None) -> dict[str, float]:
        return {} if numbers is None else dict(zip(names, numbers.tolist(), strict=True))

    return CrossCheck(method, named(values), named(errors), float(measure), terms, named(rises))

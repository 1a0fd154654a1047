"""A collapse as plain numbers and as a Dataset."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.scaling.windows import free_name

if TYPE_CHECKING:
    import xarray

    from depthscale.scaling.collapse import Collapse
    from depthscale.scaling.windows import Window


def as_record(found: Collapse) -> dict[str, Any]:
    """Ready for JSON: numbers that do not exist are None."""
    points = found.points
    return {
        "form": found.form.text,
        "function": found.form.function,
        "parameters": {
            name: {k: number_or_none(v) for k, v in estimate._asdict().items()}
            for name, estimate in found.parameters.items()
        },
        "free": list(found.names),
        "correlation": [[number_or_none(v) for v in row] for row in found.correlation.tolist()],
        "reduced_chi2": number_or_none(found.reduced_chi2),
        "dof": number_or_none(found.dof),
        "p_value": None if found.p_value is None else number_or_none(found.p_value),
        "error_scale": number_or_none(found.error_scale),
        "errors_from": found.method,
        "points": len(points),
        "sizes": points.sizes.tolist(),
        "size": points.size,
        "x": points.x,
        "y": points.name,
        "realisations": points.realisations,
        "overlap": found.fit.overlap,
        "curve": str(found.fit.basis),
        "curves": [
            {
                "curve": str(fit.basis),
                "weight": float(w),
                fit.problem.criterion: number_or_none(fit.criterion),
            }
            for fit, w in zip(found.fits, found.weights, strict=True)
        ],
        "stability": [_window(w) for w in found.stability],
        "effective": [_window(w) for w in found.effective],
        "corrected": [_window(w) for w in found.corrected],
        "checks": {name: check.to_dict() for name, check in found.checks.items()},
        "warnings": list(found.warnings),
        "seconds": found.seconds,
    }


def _window(window: Window) -> dict[str, Any]:
    return {
        "window": window.what,
        "points": window.points,
        "sizes": list(window.sizes),
        "parameters": {
            name: {
                "value": number_or_none(window.values[name]),
                "error": number_or_none(window.errors[name]),
                "shift": number_or_none(window.shifts[name]),
            }
            for name in window.values
        },
        "reduced_chi2": number_or_none(window.reduced_chi2),
        "p_value": window.p_value,
    }


def number_or_none(value: float) -> float | None:
    """A number for JSON, which has no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None


def as_dataset(found: Collapse) -> xarray.Dataset:
    """Points along ``point``, parameters along ``parameter``; columns keep their names.

    What is added gives way with a ``_`` at its end where a column has its name. What a file of this
    kind takes in no name is written out: ``|`` for ``/``, ``sigma`` for the Greek letter.
    """
    import xarray

    points = found.points
    names: list[str] = []
    for name in (*points.columns, points.name):
        names.append(free_name(_storable(name), names))
    point, parameter = (free_name(name, names) for name in ("point", "parameter"))
    arguments, scaled, error = found.scaled()
    residual = found.fit.trial.residual[: len(points)]
    along = {
        "error": (points.error, "standard error"),
        "scaled": (scaled, "measured over the prefactor"),
        "scaled_error": (error, "its standard error"),
        "residual": (residual, "measured minus fitted, in (whitened) standard errors"),
    }
    for k, argument in enumerate(arguments):
        text = f"scaling variable {found.form.arguments_text[k]}"
        along[f"argument_{k + 1}"] = (argument, text)
    held: dict[str, Any] = {names[-1]: (point, points.y, {"long_name": "measured"})}
    for name, (values, text) in along.items():
        held[free_name(name, names)] = (point, values, {"long_name": text})
    estimates = list(found.parameters.values())
    for name in ("value", "error", "low", "high"):
        values = np.array([getattr(estimate, name) for estimate in estimates])
        held[free_name(f"parameter_{name}", names)] = (parameter, values)
    columns = zip(names, points.columns.values(), strict=False)
    return xarray.Dataset(
        held,
        coords={
            **{name: (point, column) for name, column in columns},
            parameter: list(found.parameters),
        },
        attrs={"form": found.form.text, "reduced_chi2": found.reduced_chi2},
    )


def _storable(name: str) -> str:
    letters = (
        letter if letter.isascii() else unicodedata.name(letter, "_").split()[-1].lower()
        for letter in name.replace("/", "|")
        if unicodedata.category(letter)[0] != "C"
    )
    return "".join(letters).strip() or "_"

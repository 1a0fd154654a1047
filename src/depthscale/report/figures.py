"""The three figures of an audit: length, misalignment and gradient, theory against measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from depthscale.report.curves import Curve, Figure, Ribbon
from depthscale.report.words import number

if TYPE_CHECKING:
    from depthscale.practice.audit import Audit

WIDE_LENGTH_RANGE = 20.0  # above this ratio of largest to smallest, a length needs a log axis


def audit_figures(audit: Audit) -> tuple[Figure, Figure, Figure]:
    """Return the figures of misalignment, length and gradient of an audit, in that order."""
    return misalignment_figure(audit), length_figure(audit), gradient_figure(audit)


def misalignment_figure(audit: Audit) -> Figure:
    """Return the figure of eps: real pairs, and one input under two dropout masks."""
    measured = audit.measurement
    eps = rows(measured.eps)
    error = rows(measured.eps_error)[0]
    places = np.arange(eps.shape[1])
    curves = [
        Curve("two inputs", places, eps[0], "measured", eps[0] - 2 * error, eps[0] + 2 * error)
    ]
    ribbons = [*_repeats(eps, "measured")]
    if measured.eps_masks is not None:
        masks = rows(measured.eps_masks)
        curves.append(Curve("two masks", places, masks[0], "masks"))
        ribbons += _repeats(masks, "masks")
    curves += _theory_curves(audit, "eps", "theory")
    curves += _theory_curves(audit, "eps_masks", "theory, masks", dashed=True)
    ribbons += [*_theory_bands(audit, "eps"), *_theory_bands(audit, "eps_masks")]
    values = [curve.values for curve in curves]
    return Figure(
        key="eps",
        title="Misalignment of two inputs, layer by layer",
        description=_sentence(audit, "Misalignment ε of two inputs", eps[0], "eps"),
        axis="misalignment ε",
        log=True,
        count=eps.shape[1],
        curves=tuple(curves),
        ribbons=tuple(ribbons),
        # The level of unrelated signals is worth its place only where the curves come near it.
        rule=(1.0, "ε = 1: unrelated") if np.nanmax(np.concatenate(values)) > 0.2 else None,
    )


def length_figure(audit: Audit) -> Figure:
    """Return the figure of the length q; a log axis only where q changes a lot."""
    length = rows(audit.measurement.length)
    places = np.arange(length.shape[1])
    curves = [Curve("measured", places, length[0], "measured")]
    curves += _theory_curves(audit, "length", "theory")
    positive = length[np.isfinite(length) & (length > 0.0)]
    wide = positive.size > 0 and positive.max() / positive.min() > WIDE_LENGTH_RANGE
    return Figure(
        key="length",
        title="Length of the signal",
        description=_sentence(audit, "Length q, the mean square of a layer", length[0], "length"),
        axis="length q",
        log=bool(wide),
        count=length.shape[1],
        curves=tuple(curves),
        ribbons=(*_repeats(length, "measured"), *_theory_bands(audit, "length")),
    )


def gradient_figure(audit: Audit) -> Figure:
    """Return the figure of the squared gradient norm that reaches each layer."""
    gradient = rows(audit.measurement.gradient)
    places = np.arange(gradient.shape[1])
    curves = [Curve("measured", places, gradient[0], "measured")]
    curves += _theory_curves(audit, "gradient", "theory")
    what = "Squared gradient norm of the loss at a layer"
    return Figure(
        key="gradient",
        title="Gradient that reaches each layer",
        description=_sentence(audit, what, gradient[0], "gradient"),
        axis="squared gradient norm",
        log=True,
        count=gradient.shape[1],
        curves=tuple(curves),
        ribbons=(*_repeats(gradient, "measured"), *_theory_bands(audit, "gradient")),
    )


def rows(values: np.ndarray) -> np.ndarray:
    """Return a measurement as [repeat, layer], also where it came without a repeat axis."""
    return np.atleast_2d(np.asarray(values, dtype=float))


def _repeats(values: np.ndarray, tone: str) -> tuple[Ribbon, ...]:
    """Return the spread over re-initialisations: 5-95 %, the whole range of fewer than five."""
    if values.shape[0] < 2:
        return ()
    ends = (0.05, 0.95) if values.shape[0] >= 5 else (0.0, 1.0)
    low, high = np.quantile(values, ends, axis=0)
    return (Ribbon(np.arange(values.shape[1]), low, high, tone),)


def _theory_curves(audit: Audit, field: str, name: str, *, dashed: bool = False) -> list[Curve]:
    values = getattr(audit.theory, field) if audit.theory is not None else None
    if audit.theory is None or values is None:
        return []
    places = np.asarray(audit.theory.layers)
    return [Curve(name, places, np.asarray(values, dtype=float), "theory", dashed=dashed)]


def _theory_bands(audit: Audit, field: str) -> list[Ribbon]:
    if audit.theory is None or field not in audit.theory.bands:
        return []
    low, high = audit.theory.bands[field]
    return [Ribbon(np.asarray(audit.theory.layers), low, high, "theory")]


def _sentence(audit: Audit, what: str, values: np.ndarray, field: str) -> str:
    """Say in one or two sentences what the figure shows, for those who do not see it."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return f"{what}: no finite value was measured."
    text = (
        f"{what}, measured from layer 0 to {values.size - 1}: it goes from {number(values[0])} "
        f"to {number(values[-1])}, between {number(known.min())} and {number(known.max())}."
    )
    predicted = getattr(audit.theory, field) if audit.theory is not None else None
    if predicted is not None:
        text += f" Theory predicts {number(predicted[0])} to {number(predicted[-1])}."
    return f"{text} Every value is in the table of layers."

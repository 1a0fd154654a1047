"""The table of layers: which columns an audit fills, and what stands in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.report.figures import rows
from depthscale.report.words import clean, is_number, number, percent

if TYPE_CHECKING:
    from depthscale.practice.audit import Audit


@dataclass(frozen=True)
class Column:
    """One column: ``texts`` are shown, ``values`` sort (None last); ``numeric`` aligns right."""

    key: str
    group: str
    title: str
    texts: tuple[str, ...]
    values: tuple[Any, ...]
    numeric: bool


def layer_columns(audit: Audit) -> list[Column]:
    """Return the columns of the table of layers; a column that would be empty is left out."""
    measured = audit.measurement
    layers = measured.layers
    has_bias = any(layer.sigma_b for layer in layers)
    eps_error = rows(measured.eps_error)[0]
    candidates = [
        _numbers("index", "Layer", "#", [layer.index for layer in layers]),
        _texts("name", "Layer", "name", [layer.name for layer in layers]),
        _texts("kind", "Layer", "kind", [layer.kind for layer in layers]),
        _numbers("width", "Layer", "width", [layer.width for layer in layers]),
        _texts("activation", "Layer", "activation", [layer.activation for layer in layers]),
        _numbers("drop", "Layer", "drop", [layer.drop or None for layer in layers]),
        _numbers("sigma_w", "Layer", "σ_w", [layer.sigma_w for layer in layers]),
        _numbers(
            "sigma_b", "Layer", "σ_b", [layer.sigma_b if has_bias else None for layer in layers]
        ),
        _numbers("length", "Length q", "measured", rows(measured.length)[0]),
        _numbers("length_theory", "Length q", "theory", _theory(audit, "length")),
        _numbers("eps", "Misalignment ε", "two inputs", rows(measured.eps)[0]),
        _numbers("eps_error", "Misalignment ε", "±", eps_error, digits=2),
        _numbers("eps_theory", "Misalignment ε", "theory", _theory(audit, "eps")),
        _numbers("masks", "Misalignment ε", "two masks", _row(measured.eps_masks, audit)),
        _numbers("masks_theory", "Misalignment ε", "theory, masks", _theory(audit, "eps_masks")),
        _numbers("gradient", "Gradient", "norm²", rows(measured.gradient)[0]),
        _numbers("gradient_theory", "Gradient", "theory", _theory(audit, "gradient")),
        _numbers("gradient_eps", "Gradient", "misalignment", rows(measured.gradient_eps)[0]),
        _numbers("gradient_eps_theory", "Gradient", "theory, mis.", _theory(audit, "gradient_eps")),
        _numbers("dead", "Units", "dead", rows(measured.dead)[0], write=percent),
        _numbers("saturated", "Units", "saturated", rows(measured.saturated)[0], write=percent),
        _numbers("zero", "Units", "zero inputs", _positive(measured.zero), write=percent),
    ]
    return [column for column in candidates if any(value is not None for value in column.values)]


def layer_flags(audit: Audit) -> dict[int, tuple[str, bool]]:
    """Return for each row that a finding names: the anchor of the worst one, is it a problem."""
    flags: dict[int, tuple[str, bool]] = {}
    names = [layer.name for layer in audit.measurement.layers]
    for position, finding in enumerate(audit.verdict.findings):
        if finding.layer not in names:
            continue
        row, problem = names.index(finding.layer), finding.severity == "problem"
        if row not in flags or (problem and not flags[row][1]):
            flags[row] = (f"finding-{position + 1}", problem)
    return flags


def _numbers(
    key: str,
    group: str,
    title: str,
    values: Sequence[Any] | np.ndarray,
    *,
    digits: int = 3,
    write: Callable[[Any], str] | None = None,
) -> Column:
    known = tuple(float(value) if is_number(value) else None for value in values)
    texts = tuple((write(value) if write else number(value, digits)) for value in values)
    return Column(key, group, title, texts, known, numeric=True)


def _texts(key: str, group: str, title: str, values: Sequence[str | None]) -> Column:
    texts = tuple("–" if value is None else clean(value) for value in values)
    return Column(key, group, title, texts, tuple(values), numeric=False)


def _row(values: np.ndarray | None, audit: Audit) -> np.ndarray:
    if values is None:
        return np.full(len(audit.measurement.layers), np.nan)
    row: np.ndarray = rows(values)[0]
    return row


def _theory(audit: Audit, field: str) -> np.ndarray:
    """Return a predicted curve on all layers, NaN where theory does not reach."""
    spread = np.full(len(audit.measurement.layers), np.nan)
    values = getattr(audit.theory, field) if audit.theory is not None else None
    if audit.theory is not None and values is not None:
        spread[list(audit.theory.layers)] = values
    return spread


def _positive(values: np.ndarray) -> np.ndarray:
    """Return the row of a fraction that is hardly ever there: missing where it is all zero."""
    row: np.ndarray = rows(values)[0]
    return row if np.nansum(row) > 0.0 else np.full(row.size, np.nan)

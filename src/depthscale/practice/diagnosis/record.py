"""An audit as plain data for other programs: stable JSON, and a labelled Dataset."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.answers import Undefined
from depthscale.practice.diagnosis.growth import Band

if TYPE_CHECKING:
    import xarray as xr

    from depthscale.practice.audit import Audit
    from depthscale.practice.diagnosis.prediction import Theory

SCHEMA = "depthscale.audit/1"

CURVES = {
    "length": ("mean-square pre-activation q", "1"),
    "eps": ("misalignment of input pairs, 1 - cosine", "1"),
    "eps_error": ("standard error of eps over the pairs", "1"),
    "eps_masks": ("misalignment of one input under two dropout masks", "1"),
    "gradient": ("squared norm of dE/dh, mean over the inputs", "energy^2"),
    "gradient_eps": ("misalignment of the gradients of a pair", "1"),
    "dead": ("fraction of units that are zero for every input", "1"),
    "saturated": ("fraction of units on the flat part of the activation", "1"),
    "zero": ("fraction of inputs whose vector is zero", "1"),
}
PREDICTED = ("length", "eps", "eps_masks", "gradient", "gradient_eps", "survival")


def audit_record(audit: Audit) -> dict[str, Any]:
    """Everything an audit holds as JSON-ready data.

    Keys: ``schema``, ``name``, ``healthy``, ``verdict`` (the sentence), ``findings``,
    ``headlines``, ``layers`` (one object per measured layer), ``measurement`` (arrays
    ``[repeat][layer]``), ``theory`` (curves over ``theory.layers``, or null with
    ``theory_reason``), ``advice``, ``provenance`` and ``reasons``. What is undefined, infinite or
    NaN is null, and ``reasons`` says why, under the dotted key of the number or of its list.
    Keys may be added within schema 1; none is renamed, removed or given another meaning.
    """
    data, verdict = audit.measurement, audit.verdict
    record = {
        "schema": SCHEMA,
        "name": audit.name,
        "healthy": verdict.healthy,
        "verdict": verdict.sentence,
        "findings": [dict(vars(found)) for found in verdict.findings],
        "headlines": [dict(vars(line)) for line in verdict.headlines],
        "layers": [dict(vars(layer)) for layer in data.layers],
        "measurement": {
            **{name: getattr(data, name) for name in CURVES},
            "mode": data.mode,
            "batch": data.batch,
            "pairs": data.pairs,
            "passes": data.passes,
            "nonfinite_at": data.nonfinite_at,
            "notes": data.notes,
        },
        "theory": None if audit.theory is None else _theory_record(audit.theory),
        "theory_reason": audit.theory_reason,
        "advice": None if audit.advice is None else dict(vars(audit.advice)),
        "provenance": audit.provenance,
    }
    reasons: dict[str, str] = {}
    plain = {key: _plain(value, key, reasons) for key, value in record.items()}
    return {**plain, "reasons": reasons}


def _theory_record(theory: Theory) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(theory, name) for name in PREDICTED}
    record["layers"] = theory.layers
    record["slope"] = theory.slope
    record["gradient_factor"] = theory.gradient_factor
    record["bands"] = {
        name: {"low": low, "high": high} for name, (low, high) in theory.bands.items()
    }
    record["band_nets"] = theory.band_nets
    record["eps_engine"] = theory.eps_engine
    state = theory.representative
    record["representative"] = None if state is None else state.to_dict()
    record["notes"] = theory.notes
    return record


def _plain(value: Any, path: str, reasons: dict[str, str]) -> Any:
    """Return plain data, noting under ``path`` why a number is null."""
    if isinstance(value, Undefined):
        reasons[path] = value.reason
        return None
    if isinstance(value, Band):
        return _plain(dict(vars(value)), path, reasons)
    if isinstance(value, dict):
        nested = value.get("reasons")
        if isinstance(nested, dict):
            reasons.update({f"{path}.{key}": why for key, why in nested.items()})
            value = {key: part for key, part in value.items() if key != "reasons"}
        return {str(key): _plain(part, f"{path}.{key}", reasons) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), path, reasons)
    if isinstance(value, list | tuple):
        parts: list[Any] = []
        for index, part in enumerate(value):
            nested_path = path if isinstance(part, float | int | list) else f"{path}.{index}"
            parts.append(_plain(part, nested_path, reasons))
        return parts
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        reasons.setdefault(path, _why(value, path))
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _why(value: float, path: str) -> str:
    if math.isinf(value):
        return "infinite: no bound can be given" if path.startswith("headlines") else "infinite"
    if path.endswith((".dead", ".saturated")):
        return "null where no activation follows the layer"
    if path.endswith((".gradient", ".gradient_eps")):
        return "null where the loss sends no gradient, or a vector is zero"
    return "null where it could not be measured (a zero or not finite vector)"


def audit_dataset(audit: Audit) -> xr.Dataset:
    """The curves over ``layer`` (and ``repeat``), the predicted ones as ``theory_...``.

    Layers outside the recognised chain are NaN in the predicted curves and in the ends of the
    finite-width bands (``band_..._low``, ``band_..._high``). Provenance is in ``attrs``, as JSON
    text where it is not a single number or word, so that the Dataset can be written to netCDF.
    """
    dataset = audit.measurement.to_xarray()
    for name, (words, unit) in CURVES.items():
        if name in dataset:
            dataset[name].attrs.update(long_name=words, units=unit)
    count = len(audit.measurement.layers)
    for name, values in _predicted(audit.theory).items():
        assert audit.theory is not None
        column = np.full(count, math.nan)
        column[list(audit.theory.layers)] = values
        curve = name.removeprefix("theory_").removeprefix("band_").rsplit("_", 1)[0]
        unit = "energy^2" if curve == "gradient" or name == "theory_gradient" else "1"
        words = f"{name.replace('_', ' ')} (infinite width)" if "theory" in name else name
        dataset[name] = ("layer", column, {"long_name": words.replace("_", " "), "units": unit})
    dataset.attrs.update(
        schema=SCHEMA,
        name=audit.name,
        verdict=audit.verdict.sentence,
        healthy=int(audit.verdict.healthy),
        theory_reason=audit.theory_reason or "",
        provenance=json.dumps(_plain(audit.provenance, "provenance", {}), ensure_ascii=False),
    )
    return dataset


def _predicted(theory: Theory | None) -> dict[str, np.ndarray]:
    if theory is None:
        return {}
    curves = {
        f"theory_{name}": getattr(theory, name)
        for name in PREDICTED
        if getattr(theory, name) is not None
    }
    for name, (low, high) in theory.bands.items():
        curves[f"band_{name}_low"], curves[f"band_{name}_high"] = low, high
    return curves

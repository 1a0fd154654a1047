"""The page of an audit: one HTML file that needs no network, no server and no other file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.answers import InputError, Undefined
from depthscale.files import whole
from depthscale.report.curves import Figure, draw, has_lost
from depthscale.report.figures import audit_figures, rows
from depthscale.report.gauges import gauge, survival_strip
from depthscale.report.layers import layer_columns, layer_flags
from depthscale.report.words import (
    audit_facts,
    audit_state,
    clean,
    clean_lines,
    evidence_facts,
    findings_with_fixes,
    interval,
    is_number,
    label,
    number,
    plural,
)

if TYPE_CHECKING:
    from depthscale.practice.audit import Audit
    from depthscale.practice.diagnosis.verdict import Finding, Headline

CAPTIONS = {
    "eps": "ε is 1 − the cosine between the pre-activations of two inputs: 0 where a layer cannot "
    "tell them apart, 1 where they are unrelated.",
    "length": "q is the mean square of a pre-activation. A steady length alone does not tell "
    "order from chaos.",
    "gradient": "Squared norm of the gradient of the loss at each layer, mean over the inputs. "
    "A straight slope is exponential growth or decay.",
}
MASKS_CAPTION = (
    " Triangles: one and the same input under two dropout masks. Where both curves meet, the "
    "noise of dropout has drowned the input."
)
READOUTS = {
    "eps": "eps eps_theory masks masks_theory",
    "length": "length length_theory",
    "gradient": "gradient gradient_theory",
}


# Each figure is drawn for the widths it is shown at, so that its text keeps its size.
DRAWINGS = {
    "eps": {"for-wide": (1040, 360), "for-middle": (680, 340), "for-narrow": (360, 300)},
    "length": {"for-wide for-middle": (560, 320), "for-narrow": (360, 300)},
    "gradient": {"for-wide for-middle": (560, 320), "for-narrow": (360, 300)},
}
LONG_SENTENCE = 150  # characters: a longer verdict is set in smaller type


def write_page(audit: Audit, path: str | Path) -> None:
    """Write the page of an audit to ``path``, whole or not at all.

    The page is UTF-8, asks the network for nothing and forbids itself to by its content security
    policy. Missing folders are made. Raises InputError where ``path`` cannot be written.

    >>> audit.to_html("report.html")  # doctest: +SKIP
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} is a folder: give the name of a file, such as report.html")
    text = page(audit)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as beside:
            beside.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write the page to {target}: {reason}") from error


def page(audit: Audit) -> str:
    """Return the page of an audit as HTML text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    style = _asset("page.css") + _asset("curves.css")
    script = _asset("page.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["prose"] = prose
    template = environment.from_string(_asset("audit.html.j2"))
    return template.render(
        style=Markup(style),  # our own files, and the policy admits nothing but their hashes
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        **_view(audit),
    )


def prose(text: str) -> Any:
    """Return a sentence as safe HTML, set as a printer would: symbols, powers of ten, code.

    >>> str(prose("sigma_w^2 < 1e-07, see `fc`"))
    'σ<sub>w</sub><sup>2</sup> &lt; 1×10<sup>−7</sup>, see <code>fc</code>'
    """
    from markupsafe import Markup, escape

    marked = str(escape(text))  # first of all: what follows only adds our own tags
    for pattern, replacement in PRINTED:
        marked = re.sub(pattern, replacement, marked)
    return Markup(marked)


def _power(found: re.Match[str]) -> str:
    return f"{found[1]}×10<sup>{str(int(found[2])).replace('-', '−')}</sup>"


def _scale(found: re.Match[str]) -> str:
    return f"σ<sub>{found[1]}</sub>" + ("<sup>2</sup>" if found[2] else "")


PRINTED: tuple[tuple[str, Any], ...] = (
    (r"`([^`]+)`", r"<code>\1</code>"),
    (r"\b(depthscale\.\w+\([^()]*\))", r"<code>\1</code>"),
    (r"(?:σ|sigma)_([wb])\b(\^2|²)?", _scale),
    (r"\b(\d+(?:\.\d+)?)e([+-]\d+)\b", _power),
)


def _asset(name: str) -> str:
    return files("depthscale.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _view(audit: Audit) -> dict[str, Any]:
    """Return all that the template shows, as plain text, numbers and finished drawings."""
    columns = layer_columns(audit)
    figures = audit_figures(audit)
    return {
        "name": clean(audit.name),
        "verdict": audit.verdict,
        "state": audit_state(audit),
        "sentence": clean(audit.verdict.sentence),
        "long": len(audit.verdict.sentence) > LONG_SENTENCE,
        "facts": audit_facts(audit),
        "fixes": _fixes(audit),
        "reach": _reach(audit),
        "cards": [_card(headline, audit) for headline in audit.verdict.headlines],
        "figures": _figures(audit, figures),
        "keys": _keys(audit, figures),
        "theory_reason": clean(audit.theory_reason) if audit.theory_reason else None,
        "notes": _notes(audit),
        "findings": _findings(audit),
        "columns": columns,
        "groups": _groups(columns),
        "layer_count": len(audit.measurement.layers),
        "flags": layer_flags(audit),
        "provenance": _provenance(audit.provenance),
        "summary": _summary(audit.provenance),
    }


def _fixes(audit: Audit) -> str:
    """Return the words of the link from the verdict to the fixes, empty where there are none."""
    pairs = findings_with_fixes(audit)
    count = sum(bool(finding.fix_values) and twin is None for finding, twin in pairs)
    return {0: "", 1: "Go to the fix"}.get(count, f"Go to the {count} fixes")


def _reach(audit: Audit) -> dict[str, Any] | None:
    """Return the strip of surviving signal, with the depth scale against the depth in words."""
    from markupsafe import Markup

    theory = audit.theory
    if theory is None:
        return None
    survival = np.asarray(theory.survival, dtype=float)
    if survival.size < 2 or not np.isfinite(survival).all():
        return None
    scale = theory.representative.depth_scale.correlation if theory.representative else None
    if scale is None or isinstance(scale, Undefined):
        words, place = clean(scale.reason) if scale is not None else "not known", None
    else:
        words, place = f"{number(scale)} layers", float(scale)
    return {
        "strip": Markup(survival_strip(survival, place)),
        "scale": words,
        "measurable": place is not None,
        "marked": place is not None and place < survival.size,
        "depth": plural(survival.size, "layer"),
        "left": _share(float(survival[-1])),
    }


def _share(value: float) -> str:
    """Write a surviving share as a percentage down to .1 %, as a power of ten below."""
    if value >= 0.001:
        return f"{number(100 * value, 2)}\N{NO-BREAK SPACE}%"
    return number(value, 2)


def _card(headline: Headline, audit: Audit) -> dict[str, Any]:
    from markupsafe import Markup

    band, predicted = headline.band, headline.predicted
    card: dict[str, Any] = {
        "label": clean(headline.label),
        "unit": clean(headline.unit),
        "value": None,
        "reason": clean(headline.reason),
        "basis": clean(headline.basis),
        "theory": number(predicted) if is_number(predicted) else None,
        # Where the whole model has no theory, the note over the figures says why, once.
        "theory_reason": (
            clean(predicted.reason) if audit.theory and isinstance(predicted, Undefined) else ""
        ),
        "gauge": Markup(gauge(headline)),
    }
    if band is not None:
        card["value"] = number(band.value)
        card["interval"] = interval(band.low, band.high)
        card["level"] = f"{100 * band.level:.0f} %"
    return card


def _figures(audit: Audit, figures: Sequence[Figure]) -> list[dict[str, Any]]:
    from markupsafe import Markup

    views = []
    for figure in figures:
        caption = CAPTIONS[figure.key]
        if figure.key == "eps" and audit.measurement.eps_masks is not None:
            caption += MASKS_CAPTION
        views.append(
            {
                "key": figure.key,
                "title": figure.title,
                "caption": caption,
                "readout": READOUTS[figure.key],
                "drawings": [
                    (places, Markup(draw(figure, *size, uid=f"{figure.key}-{k}")))
                    for k, (places, size) in enumerate(DRAWINGS[figure.key].items())
                ],
            }
        )
    return views


def _keys(audit: Audit, figures: Sequence[Figure]) -> list[tuple[str, str]]:
    """Return what the marks of the figures mean: (kind of mark, words)."""
    keys = [("measured", "measured")]
    if any(has_lost(figure) for figure in figures):
        keys.append(("lost", "below the axis"))
    repeats = rows(audit.measurement.length).shape[0]
    if repeats > 1:
        share = "5–95 % of" if repeats >= 5 else "range of"
        keys.append(("spread", f"{share} {repeats} initialisations"))
    if audit.measurement.eps_masks is not None:
        keys.append(("masks", "one input, two masks"))
    if audit.theory is not None:
        keys.append(("theory", "theory, infinite width"))
        if audit.theory.eps_masks is not None:
            keys.append(("theory-masks", "theory, two masks"))
        if audit.theory.bands:
            words = f"90 % of random networks of these widths ({audit.theory.band_nets} drawn)"
            keys.append(("noise", words))
    return keys


def _notes(audit: Audit) -> list[str]:
    notes = list(audit.theory.notes) if audit.theory is not None else []
    return [clean(note) for note in (*notes, *audit.measurement.notes)]


def _findings(audit: Audit) -> list[dict[str, Any]]:
    pairs = findings_with_fixes(audit)
    ids = {id(finding): f"finding-{k + 1}" for k, (finding, _) in enumerate(pairs)}
    numbers = {layer.name: layer.index for layer in audit.measurement.layers}
    views = []
    for finding, twin in pairs:
        view = _finding(finding, ids[id(finding)])
        view["number"] = numbers.get(finding.layer or "")
        view["same_as"] = None if twin is None else (ids[id(twin)], _title(twin))
        views.append(view)
    return views


def _title(finding: Finding) -> str:
    return clean(finding.code).replace("_", " ")


def _finding(finding: Finding, anchor: str) -> dict[str, Any]:
    scale = finding.predicted_depth_scale
    code = "\n".join(f"{key} = {_literal(value)}" for key, value in finding.fix_values.items())
    return {
        "id": anchor,
        "title": _title(finding).capitalize(),
        "problem": finding.severity == "problem",
        "severity": clean(finding.severity),
        "layer": clean(finding.layer) if finding.layer is not None else None,
        "summary": clean(finding.summary),
        "evidence": evidence_facts(finding.evidence),
        "scale": number(scale) if is_number(scale) else None,
        "depth": finding.depth,
        "fix": clean(finding.fix),
        "code": code,
    }


def _literal(value: float | str) -> str:
    """Return a value of a fix as it is typed in code, every digit kept."""
    return json.dumps(clean(value)) if isinstance(value, str) else repr(float(value))


def _groups(columns: list[Any]) -> list[tuple[str, int]]:
    """Return the headings over neighbouring columns with how many columns each spans."""
    groups: list[tuple[str, int]] = []
    for column in columns:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    return groups


def _provenance(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    for key, value in provenance.items():
        if key in ("model", "notes"):  # shown elsewhere
            continue
        if isinstance(value, Mapping):
            words = ", ".join(f"{clean(name)} {clean(item)}" for name, item in value.items())
        elif isinstance(value, (list, tuple)):
            words = ", ".join(clean(item) for item in value)
        else:
            words = f"{value:,}" if isinstance(value, int) else clean(value)
            words = f"{number(value)} s" if key == "seconds" else words
        facts.append((label(key).capitalize(), words))
    return facts


def _summary(provenance: Mapping[str, Any]) -> list[str]:
    model = provenance.get("model", ())
    lines = model if isinstance(model, (list, tuple)) else [model]
    return [line for text in lines for line in clean_lines(text)]

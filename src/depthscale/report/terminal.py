"""Reports in plain text of at most 100 columns, readable without colour."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.answers import Undefined
from depthscale.report.layers import Column, layer_columns, layer_flags
from depthscale.report.summaries import render_critical, render_phase, render_theory
from depthscale.report.words import (
    ascii_only,
    audit_facts,
    audit_state,
    clean,
    evidence_facts,
    findings_with_fixes,
    interval,
    is_number,
    plain_number,
    plain_powers,
    plural,
    shorten,
)

if TYPE_CHECKING:
    from depthscale.practice.audit import Audit
    from depthscale.practice.diagnosis.verdict import Finding, Headline

__all__ = ["ascii_only", "render", "render_critical", "render_phase", "render_theory", "sparkline"]

BARS = "▁▂▃▄▅▆▇█"
FEW_LAYERS = 16  # up to this many layers the table shows every one
TITLES = {
    "index": "#", "name": "layer", "width": "width", "drop": "drop", "length": "length q",
    "eps": "eps", "eps_error": "±", "eps_theory": "theory", "masks": "2 masks",
    "gradient": "gradient²", "gradient_theory": "theory", "saturated": "satur.", "dead": "dead",
}  # fmt: skip
STYLES = {"bold": "1", "red": "1;31", "green": "1;32", "yellow": "1;33", "dim": "2"}


def render(audit: Audit, width: int = 100, *, colour: bool = False) -> str:
    """Return the report of an audit for a terminal.

    Verdict, the three numbers, curves over the layers, a table of layers (a selection of a deep
    model), findings with their fixes. No line is longer than ``width`` columns (60 to 100).
    With ``colour`` the states carry ANSI colours, which say nothing that the text does not.
    """
    width = min(max(width, 60), 100)
    paint = _painter(colour)
    blocks = [
        _head(audit, width, paint),
        _headlines(audit, width),
        _reach(audit, width),
        _curves(audit, width),
        _table(audit, width, paint),
        *(_finding(*pair, width, paint) for pair in findings_with_fixes(audit)),
        _foot(audit, width, paint),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def sparkline(values: Sequence[float] | np.ndarray, low: float, high: float, width: int) -> str:
    """Return one row of bars for a curve between ``low`` and ``high``; a gap where it is not.

    >>> sparkline([0.0, 0.5, 1.0], 0.0, 1.0, 3)
    '▁▅█'
    """
    curve = np.asarray(values, dtype=float)
    count = min(width, curve.size)
    edges = np.linspace(0, curve.size, count + 1).round().astype(int)
    bars = []
    for start, stop in pairwise(edges):
        part = curve[start:stop]
        part = part[np.isfinite(part)]
        if part.size == 0:
            bars.append(" ")
            continue
        share = (float(part.mean()) - low) / (high - low) if high > low else 0.5
        bars.append(BARS[min(max(int(share * len(BARS)), 0), len(BARS) - 1)])
    return "".join(bars)


def _painter(colour: bool) -> Any:
    def paint(text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if colour else text

    return paint


def _wrap(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ) or [first.rstrip()]


def _head(audit: Audit, width: int, paint: Any) -> list[str]:
    good = audit.verdict.healthy
    mark = "✓" if good else "✗"
    return [
        *_wrap(" · ".join(["depthscale audit", shorten(clean(audit.name), 60)]), width),
        *_wrap(" · ".join(audit_facts(audit)), width),
        "─" * width,
        paint(f"{mark} {audit_state(audit).upper()}", "green" if good else "red"),
        *(paint(line, "bold") for line in _wrap(clean(audit.verdict.sentence), width)),
    ]


def _headlines(audit: Audit, width: int) -> list[str]:
    headlines = audit.verdict.headlines
    room = min(
        max((len(clean(headline.label)) for headline in headlines), default=0), width // 2 + 8
    )
    return [line for headline in headlines for line in _headline(headline, room, width)]


def _headline(headline: Headline, room: int, width: int) -> list[str]:
    name = f"{shorten(clean(headline.label), room):<{room}}  "
    band, predicted = headline.band, headline.predicted
    if band is None:
        text = f"not measurable: {clean(headline.reason)}"
    else:
        text = f"{plain_number(band.value)}  ({plain_powers(interval(band.low, band.high))})"
    if is_number(predicted):
        text += f"  theory {plain_number(predicted)}"
    return _wrap(text, width, name, " " * len(name))


def _reach(audit: Audit, width: int) -> list[str]:
    """Return the surviving signal over depth as one row, and the depth scale against the depth."""
    theory = audit.theory
    if theory is None:
        reason = clean(audit.theory_reason or "no chain was recognised")
        return _wrap(f"No theory is drawn: {reason.rstrip('.')}.", width)
    survival = np.asarray(theory.survival, dtype=float)
    scale = theory.representative.depth_scale.correlation if theory.representative else None
    words = (
        f"depth scale {plain_number(scale)} layers" if is_number(scale) else "depth scale not known"
    )
    if isinstance(scale, Undefined):
        words = f"depth scale: {clean(scale.reason)}"
    text = f"{words}; the network has {plural(survival.size, 'layer')}"
    strip = sparkline(survival, 0.0, 1.0, width - 20)
    return [f"signal left, theory {strip}", *_wrap(text, width, " " * 20, " " * 20)]


def _curves(audit: Audit, width: int) -> list[str]:
    """Return the curves of measurement and theory as rows of bars on one logarithmic scale."""
    columns = {column.key: column for column in layer_columns(audit)}
    lines: list[str] = []
    for title, keys in (
        ("misalignment eps", ("eps", "eps_theory")),
        ("  same input, 2 masks", ("masks", "masks_theory")),
        ("gradient, squared", ("gradient", "gradient_theory")),
    ):
        found = [columns[key] for key in keys if key in columns]
        curves = [_logarithm(column.values) for column in found]
        known = np.concatenate(curves) if curves else np.array([])
        known = known[np.isfinite(known)]
        if known.size == 0:
            continue
        # Less than a factor 2 is drawn as the small change that it is.
        middle, reach = (known.max() + known.min()) / 2, max(np.ptp(known), np.log(2.0)) / 2
        lines.append(f"{title}, layer 0 to {len(audit.measurement.layers) - 1}, log scale")
        for column, curve in zip(found, curves, strict=True):
            who = "theory" if column.key.endswith("theory") else "measured"
            bars = sparkline(curve, middle - reach, middle + reach, width - 34)
            first, last = (plain_number(column.values[k], 2) for k in (0, -1))
            lines.append(f"  {who:<9}{first:>10} {bars} {last}")
    return lines


def _logarithm(values: Sequence[Any]) -> np.ndarray:
    numbers = np.array([value if value is not None else np.nan for value in values], dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(numbers > 0.0, numbers, np.nan))
    return np.asarray(logs)


def _table(audit: Audit, width: int, paint: Any) -> list[str]:
    columns = [
        replace(column, texts=tuple(plain_powers(text) for text in column.texts))
        for column in layer_columns(audit)
        if column.key in TITLES
    ]
    flags = layer_flags(audit)
    picked = _selection(len(audit.measurement.layers), sorted(flags))
    columns = _fitting(columns, picked, width)
    lines = [_row([TITLES[column.key] for column in columns], columns, picked)]
    for k in picked:
        flag = {True: "✗", False: "▲", None: ""}[flags[k][1] if k in flags else None]
        lines.append(f"{_row([column.texts[k] for column in columns], columns, picked)} {flag}")
    count = len(audit.measurement.layers)
    if len(picked) < count:
        lines.append(
            paint(f"{len(picked)} of {count} layers; the page and to_dict() have all", "dim")
        )
    return [line.rstrip() for line in lines]


def _selection(count: int, important: Sequence[int]) -> list[int]:
    """Return the layers to show: the ends, those that a finding names, and even steps between."""
    if count <= FEW_LAYERS:
        return list(range(count))
    even = np.linspace(0, count - 1, 8).round().astype(int)
    return sorted({0, 1, count - 2, count - 1, *important[:6], *(int(k) for k in even)})


def _fitting(columns: list[Column], picked: Sequence[int], width: int) -> list[Column]:
    """Drop columns, the least telling first, until a row fits."""
    kept = list(columns)
    for key in ("dead", "saturated", "width", "drop", "eps_error", "masks", "length"):
        if sum(_width(column, picked) + 2 for column in kept) <= width:
            break
        kept = [column for column in kept if column.key != key]
    return kept


def _width(column: Column, picked: Sequence[int]) -> int:
    widest = max(len(column.texts[k]) for k in picked)
    widest = min(widest, 24) if column.key == "name" else widest
    return max(widest, len(TITLES[column.key]))


def _row(texts: Sequence[str], columns: Sequence[Column], picked: Sequence[int]) -> str:
    cells = []
    for text, column in zip(texts, columns, strict=True):
        room = _width(column, picked)
        cells.append(f"{shorten(text, room):<{room}}" if not column.numeric else f"{text:>{room}}")
    return "  ".join(cells)


def _finding(finding: Finding, same_as: Finding | None, width: int, paint: Any) -> list[str]:
    problem = finding.severity == "problem"
    where = f" at layer {shorten(clean(finding.layer), 40)}" if finding.layer is not None else ""
    mark, style = ("✗", "red") if problem else ("▲", "yellow")
    head = f"{mark} {clean(finding.severity)}: {_title(finding)}{where}"
    lines = [paint(line, style) for line in _wrap(head, width, "", "  ")]
    lines += _wrap(clean(finding.summary), width, "  ", "  ")
    facts = [f"{name} {plain_powers(text)}" for name, text in evidence_facts(finding.evidence)]
    if is_number(finding.predicted_depth_scale):
        depth = f" of {plural(finding.depth, 'layer')}" if finding.depth else " layers"
        facts.append(f"predicted depth scale {plain_number(finding.predicted_depth_scale)}{depth}")
    if facts:
        lines += _wrap("; ".join(facts), width, "  evidence: ", "            ")
    if same_as is not None:
        text = f"the same as for {_title(same_as)}"
    else:
        text = " ".join(part for part in (clean(finding.fix), _fix_values(finding)) if part)
    if text:
        lines += [paint(line, "green") for line in _wrap(text, width, "  fix: ", "       ")]
    return lines


def _title(finding: Finding) -> str:
    return clean(finding.code).replace("_", " ")


def _fix_values(finding: Finding) -> str:
    """Return the numbers of a fix that its sentence does not tell already."""
    values = [
        f"{clean(key)} = {float(value):.6g}"
        for key, value in finding.fix_values.items()
        if is_number(value) and value and f"{float(value):.4g}" not in finding.fix
    ]
    return f"[{', '.join(values)}]" if values else ""


def _foot(audit: Audit, width: int, paint: Any) -> list[str]:
    facts = audit.provenance
    parts = []
    if "passes" in facts:
        parts.append(f"{clean(facts['passes'])} forward-backward passes")
    if is_number(facts.get("seconds")):
        parts.append(f"{plain_number(facts['seconds'], 2)} s")
    if "seed" in facts:
        parts.append(f"seed {clean(facts['seed'])}")
    versions = facts.get("versions", {})
    parts += [f"{clean(k)} {clean(v)}" for k, v in list(versions.items())[:3]]
    return [paint(shorten(" · ".join(parts), width), "dim")] if parts else []

"""What measured exponents leave of the universality classes, in plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from depthscale.report.exponent_summaries import with_error
from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.words import clean, percent, plain_number

NAME = 12
CLASS = 35
CELL = 14
MOST_COLUMNS = 3
RULED_OUT = 5
"""Classes that are shown although they are ruled out."""


def render_identification(record: Mapping[str, Any]) -> str:
    """Return the answer of ``depthscale identify`` for a reader."""
    lines = wrap("Universality class of ", _listed(record["measured"]))
    lines.append("─" * WIDTH)
    lines += wrap(f"{record['verdict'].upper()}: ", clean(record["sentence"]))
    if record["windows"]:
        lines += ["", *_windows(record["windows"])]
    if record["ranking"]:
        lines += ["", *_table(record)]
    lines += _separating(record["separating"], record["measured"])
    lines += _derived(record["derived"])
    if record["warnings"]:
        lines.append("")
    for warning in record["warnings"]:
        lines += wrap("note: ", clean(warning))
    return "\n".join([*lines, *_sources(record)])


def _listed(measured: Mapping[str, Any]) -> str:
    return ", ".join(f"{n} = {with_error(m['value'], m['error'])}" for n, m in measured.items())


def _table(record: Mapping[str, Any]) -> list[str]:
    """Classes that are left and the nearest of the others; in brackets, how far in errors."""
    names = list(record["measured"])[:MOST_COLUMNS]
    left = [row for row in record["ranking"] if row["allowed"]]
    out = [row for row in record["ranking"] if not row["allowed"]]
    head = f"  {'class':<{CLASS}}{'chance':>10}{'weight':>8}  "
    lines = [(head + "".join(f"{name:<{CELL}}" for name in names)).rstrip()]
    for row in left + out[:RULED_OUT]:
        cells = "".join(f"{_cell(row['exponents'].get(name)):<{CELL}}" for name in names)
        mark = ">" if row["label"] in record["allowed"] else "+" if row["allowed"] else " "
        weight = percent(row["weight"]) if left else "–"
        p_value = plain_number(row["p_value"], 2) if row["p_value"] > 1e-99 else "0"
        lines.append(
            f"{mark} {row['label'][: CLASS - 1]:<{CLASS}}{p_value:>10}{weight:>8}  {cells}".rstrip()
        )
    rest = len(out) - RULED_OUT
    notes = ["> is left" if record["allowed"] else "none is left"]
    if any(row["allowed"] and row["label"] not in record["allowed"] for row in left):
        notes.append("+ fits these exponents, but not those of all windows that count")
    if rest > 0:
        notes.append(f"{rest} more are ruled out")
    if len(record["measured"]) > MOST_COLUMNS:
        notes.append(f"of {len(record['measured'])} exponents, {MOST_COLUMNS} are shown")
    lines += wrap(
        "  ", f"{'; '.join(notes)}; in brackets: measured minus predicted, in errors of both"
    )  # fmt: skip
    return lines


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    pull = found["pull"]
    text = f"{pull:+.1f}" if abs(pull) < 10 else f"{pull:+.0f}" if abs(pull) < 1000 else ">999"
    return f"{found['predicted']:.4g} ({text})"


def _windows(windows: list[Mapping[str, Any]]) -> list[str]:
    lines = [f"  {'window':<14}what it leaves by itself"]
    for window in windows:
        left = ", ".join(window["allowed"]) or window["verdict"]
        lines += wrap(f"  {window['window'][:13]:<14}", f"{left}; {_listed(window['measured'])}")
    return lines


def _separating(rows: list[Mapping[str, Any]], measured: Mapping[str, Any]) -> list[str]:
    if not rows:
        return []
    lines = ["", "To tell them apart"]
    for row in rows:
        pair = f"{row['one']} or {row['other']}: "
        if row["exponent"] is None:
            lines += wrap("  ", f"{pair}no exponent that both state differs by enough")
            continue
        one, other = (f"{value:.4g}" for value in row["values"])
        has = "" if row["now"] is None else f" (now {plain_number(row['now'], 2)})"
        lines += wrap(
            "  ",
            f"{pair}measure {row['exponent']}, {one} or {other}, to"
            f" ±{plain_number(row['accuracy'], 2)}{has}",
        )
    return lines


def _derived(found: Mapping[str, Any]) -> list[str]:
    if not found:
        return []
    text = ", ".join(
        f"{name} = {with_error(d['value'], d['error'])} ({d['relation']})"
        for name, d in found.items()
    )
    return ["", *wrap(f"{'from these':<{NAME}}", f"{text}; no evidence of their own")]


def _sources(record: Mapping[str, Any]) -> list[str]:
    """Source and note of the classes that are left."""
    rows = [row for row in record["ranking"] if row["label"] in record["allowed"]]
    lines = []
    for row in rows[:3]:
        lines += ["", *wrap("", f"{row['label']}: {clean(row['source'])}")]
        if row["note"]:
            lines += wrap("  ", clean(row["note"]))
    return lines

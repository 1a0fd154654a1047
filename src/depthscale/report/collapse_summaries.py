"""What a collapse found, in plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.words import clean, plain_number

NAME = 16
CELL = 20
MOST = 4
"""Parameters that a table of windows has room for."""


def render_collapse(payload: Mapping[str, Any]) -> str:
    """Return the answer of ``depthscale collapse`` for a reader."""
    title = f"Collapse of {clean(payload['y'])}: {clean(payload['form'])}"
    lines = [*wrap("", title), "─" * WIDTH, *_data(payload), ""]
    for warning in payload["warnings"]:
        lines += wrap("▲ ", clean(warning))
    if payload["warnings"]:
        lines.append("")
    lines += _parameters(payload)
    lines += ["", *_goodness(payload)]
    lines += _tables(payload)
    lines += _checks(payload["checks"])
    return "\n".join(lines)


def _data(payload: Mapping[str, Any]) -> list[str]:
    sizes = ", ".join(f"{size:g}" for size in payload["sizes"])
    drawn = f" from {payload['realisations']:,} realisations" if payload["realisations"] else ""
    text = f"{payload['points']} points{drawn}; {clean(payload['size'])} = {sizes}"
    return wrap(f"{'data':<{NAME}}", text)


def _parameters(payload: Mapping[str, Any]) -> list[str]:
    lines = [f"{'parameter':<{NAME}}{'value':>14}{'error':>12}   68 % interval"]
    free = payload["free"]
    for name, row in payload["parameters"].items():
        value = plain_number(row["value"], 6)
        if name not in free:
            lines.append(f"{clean(name):<{NAME}}{value:>14}{'held':>12}")
            continue
        low, high = (plain_number(row[end], 6) for end in ("low", "high"))
        error = plain_number(row["error"], 2)
        lines.append(f"{clean(name):<{NAME}}{value:>14}{error:>12}   {low} to {high}")
    return lines


def _goodness(payload: Mapping[str, Any]) -> list[str]:
    lines = wrap(f"{'errors from':<{NAME}}", payload["errors_from"])
    if payload["p_value"] is None:
        text = "unknown: the errors of the points were not given"
    else:
        text = (
            f"{plain_number(payload['reduced_chi2'], 3)} for"
            f" {plain_number(payload['dof'], 4)} degrees of freedom, chance of a larger one"
            f" {plain_number(payload['p_value'], 2)}"
        )
    lines += wrap(f"{'chi2, reduced':<{NAME}}", text)
    others = len(payload["curves"]) - 1
    share = payload["curves"][0]["weight"]
    weight = f" (weight {share:.0%} among {others + 1})" if others else ""
    lines += wrap(f"{'master curve':<{NAME}}", payload["curve"] + weight)
    return [*lines, *wrap(f"{'overlap':<{NAME}}", _overlap(payload["overlap"]))]


def _overlap(share: float) -> str:
    return f"{share:.0%} of the points lie where another size has some"


def _tables(payload: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for key, title in (
        ("stability", "without some points (in brackets: shift in standard errors of the shift)"),
        ("effective", "from neighbouring sizes"),
        ("corrected", "with a correction to scaling that was not asked for"),
    ):
        if payload[key]:
            lines += ["", title, *_table(payload, payload[key])]
    return lines


def _table(payload: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = payload["free"][:MOST]
    wide = max(NAME, *(len(row["window"]) + 2 for row in rows), 8)
    wide = min(wide, WIDTH - CELL * len(names))
    heads = "".join(f"{clean(name):>{CELL}}" for name in names)
    lines = [f"{'':<{wide}}{heads}".rstrip()]
    for row in [{"window": "all points", "parameters": _own(payload)}, *rows]:
        cells = "".join(f"{_cell(row['parameters'][name]):>{CELL}}" for name in names)
        lines.append(f"{clean(row['window'])[: wide - 1]:<{wide}}{cells}")
    return lines


def _own(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict(payload["parameters"][name]) for name in payload["free"]}


def _cell(value: Mapping[str, Any]) -> str:
    text = bracketed(value["value"], value["error"])
    shift = value.get("shift")
    full = text if shift is None else f"{text} [{shift:+.1f}]"
    return full if len(full) < CELL else text


def bracketed(value: float | None, error: float | None) -> str:
    """A number with its error in units of its last digits.

    >>> bracketed(0.15946, 0.0031), bracketed(1.8, 0.25), bracketed(1234.0, 56.0)
    ('0.1595(31)', '1.80(25)', '1234(56)')
    """
    from math import floor, log10

    if value is None or error is None:
        return "–"
    if not error > 0:
        return plain_number(value, 5)
    if error > 1e3 * max(abs(value), 1e-9):
        return "undetermined"
    digits = max(0, 1 - floor(log10(error)))
    if digits > 9 or error >= 1e4:
        return f"{value:.4g} ± {error:.1g}"
    shown = round(error * 10**digits)
    return f"{value:.{digits}f}({shown})"


def _checks(checks: Mapping[str, Any]) -> list[str]:
    if not checks:
        return []
    lines = ["", "by other methods"]
    for name, check in checks.items():
        found = ", ".join(
            f"{clean(n)} {bracketed(row['value'], row['error'])}"
            for n, row in check["parameters"].items()
        )
        lines += wrap(f"  {name:<{NAME + 8}}", found)
    return lines

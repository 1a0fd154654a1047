"""Fitted exponents and limits in plain text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.words import clean, is_number, plain_number

NAME = 13
MOST_ROWS = 24

FORMULAS = {
    None: "y = A x^-e",
    "power": "y = A x^-e (1 + a x^-omega)",
    "logarithmic": "y = A x^-e log(x/x0)^b",
}
SYMBOLS = {
    "exponent": "exponent e",
    "amplitude": "amplitude A",
    "correction": "a",
    "omega": "omega",
    "log_power": "b",
    "reference": "x0",
}


def with_error(value: float | None, error: float | None) -> str:
    """A value to two digits of its error.

    >>> with_error(0.159464, 0.0123), with_error(0.16, 0.0), with_error(-12.3, 5.0)
    ('0.159 ± 0.012', '0.16', '-12.3 ± 5.0')
    """
    if not is_number(value):
        return "undefined"
    if not is_number(error) or not error:
        return f"{value:.6g}"
    assert value is not None
    assert error is not None
    places = 1 - math.floor(math.log10(error))
    if not -3 <= places <= 9:
        return f"{plain_number(value, 6)} ± {plain_number(error, 2)}"
    places = max(places, 0)
    return f"{value:.{places}f} ± {error:.{places}f}"


def render_power_law(record: Mapping[str, Any]) -> str:
    """A fitted power law: parameters, how well it holds, its stability, warnings."""
    low, high = record["window"]
    lines = [FORMULAS[record["correction"]], "─" * WIDTH]
    for name, row in record["parameters"].items():
        given = "" if row["error"] else " (given)"
        lines.append(f"{SYMBOLS[name]:<{NAME}}{with_error(row['value'], row['error'])}{given}")
    lines.append(f"{'points':<{NAME}}{record['points']}, x from {low:g} to {high:g}")
    lines += wrap(f"{'fit':<{NAME}}", _goodness(record))
    if len(record["bic"]) > 1:
        own = record["bic"][record["correction"] or "none"]
        others = ", ".join(
            f"{'plain power law' if name == 'none' else name} {value - own:+.1f}"
            for name, value in record["bic"].items()
            if name != (record["correction"] or "none")
        )
        lines += wrap(f"{'other forms':<{NAME}}", f"BIC relative to this one: {others}")
    lines += _stability(record)
    for warning in record["warnings"]:
        lines += wrap("warning: ", clean(warning))
    return "\n".join(lines)


def _goodness(record: Mapping[str, Any]) -> str:
    text = f"chi2 = {record['chi2']:.4g} on {record['dof']} degrees of freedom"
    if is_number(record["p_value"]):
        return f"{text}, probability {plain_number(record['p_value'], 2)}"
    return f"{text}; {record['reasons']['p_value']}"


def _stability(record: Mapping[str, Any]) -> list[str]:
    if not record["stability"]:
        return []
    lines = ["", f"{'x from':>10}{'to':>10}   {'exponent':<22}{'drift':<22}in its errors"]
    for cut in record["stability"]:
        lines.append(
            f"{cut['smallest']:>10.4g}{cut['largest']:>10.4g}   "
            f"{with_error(cut['value'], cut['error']):<22}"
            f"{with_error(cut['drift'], cut['drift_error']):<22}{cut['sigmas']:+.1f}"
        )
    if is_number(record["drift_p"]):
        lines += wrap(
            "", f"a drift as large as the largest of these has probability"
            f" {plain_number(record['drift_p'], 2)} where the form holds",
        )  # fmt: skip
    return [*lines, ""]


def render_effective(record: Mapping[str, Any]) -> str:
    """Local exponents, one row a window; of many, an even choice."""
    count = len(record["x"])
    rows = list(range(count))
    if count > MOST_ROWS:
        rows = sorted({round(k * (count - 1) / (MOST_ROWS - 1)) for k in range(MOST_ROWS)})
    low = min(v - e for v, e in zip(record["value"], record["error"], strict=True))
    high = max(v + e for v, e in zip(record["value"], record["error"], strict=True))
    lines = [
        f"Effective exponent -d log y/d log x, windows of ratio {record['ratio']:g}"
        f" ({record['method']})",
        "─" * WIDTH,
        f"{'x':>12}   {'exponent':<24}{low:.4g} to {high:.4g}",
    ]
    for k in rows:
        value, error = record["value"][k], record["error"][k]
        lines.append(
            f"{record['x'][k]:>12.5g}   {with_error(value, error):<24}"
            f"{_bar(value, error, low, high, WIDTH - 39)}".rstrip()
        )
    lines += wrap("", "Neighbouring windows share points: their errors are correlated.")
    return "\n".join(lines)


def _bar(value: float, error: float, low: float, high: float, room: int) -> str:
    """The interval of one value on a line."""
    span = (high - low) or 1.0
    left, middle, right = (
        round((v - low) / span * (room - 1)) for v in (value - error, value, value + error)
    )
    marks = [" "] * room
    marks[left : right + 1] = "─" * (right + 1 - left)
    marks[middle] = "█"
    return "".join(marks)


def render_extrapolation(record: Mapping[str, Any]) -> str:
    """A limit and the forms that it was averaged over."""
    low, high = record["window"]
    lines = [f"Limit at infinite x, from {record['points']} points at {low:g} to {high:g}"]
    lines.append("─" * WIDTH)
    if is_number(record["limit"]):
        lines.append(f"{'limit':<{NAME}}{with_error(record['limit'], record['error'])}")
        lines.append(
            f"{'':<{NAME}}of which {plain_number(record['between'], 2)} is what the forms differ by"
        )
    else:
        lines += wrap(f"{'limit':<{NAME}}", f"undefined: {record['reasons']['limit']}")
    lines.append(f"{'last value':<{NAME}}{record['last']:.6g}")
    lines += ["", f"{'approach':<16}{'limit':<26}{'omega':>8}{'chi2/dof':>14}{'weight':>10}"]
    for row in record["approaches"]:
        omega = "" if row["omega"] is None else f"{row['omega']:.2f}"
        fit = f"{row['chi2']:.3g}/{row['dof']}"
        mark = "  as slow as was searched" if row["stuck"] else ""
        lines.append(
            f"{row['form']:<16}{with_error(row['limit'], row['error']):<26}{omega:>8}{fit:>14}"
            f"{row['weight']:>10.3f}{mark}"
        )
    return "\n".join(lines)

"""A plan of depth, bias and width in plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.words import clean, plain_number

NAME = 14
ROWS = 9
HEADLINES = {
    "inside": "inside the window of the data",
    "too shallow": "too shallow for these data: their inputs stay nearly the same",
    "too deep": "too deep for these data: all of their pairs are told apart alike",
    "too narrow": "inside the window of the data, but too deep for this width",
    "choose": "one of a line: give a depth or sigma_b",
    "no window": "no window",
}


def render_plan(payload: Mapping[str, Any]) -> str:
    """Return the answer of ``depthscale plan`` for a reader."""
    data = payload["data"]
    lines = [f"{clean(payload['activation'])} for {clean(data['name'])}", "─" * WIDTH]
    lines += wrap(f"{'verdict':<{NAME}}", HEADLINES[payload["verdict"]])
    if payload["reason"]:
        lines += wrap(f"{'because':<{NAME}}", clean(payload["reason"]))
    lines += wrap(f"{'data':<{NAME}}", _data(data))
    if payload["window"] is not None:
        lines += wrap(f"{'window':<{NAME}}", _window(payload["window"]))
    if payload["depth"] is not None:
        lines += ["", *_chosen(payload)]
    if payload["line"]:
        lines += ["", *_line(payload["line"])]
    for note in payload["notes"]:
        lines += ["", *wrap("note: ", clean(note))]
    return "\n".join(lines)


def _data(data: Mapping[str, Any]) -> str:
    text = (
        f"{data['examples']} examples; 1 - cos of a pair {plain_number(data['median'])} (median),"
        f" {plain_number(data['low'])} to {plain_number(data['high'])} (5 to 95 %), to the nearest"
        f" neighbour {plain_number(data['nearest'])}"
    )
    if data["duplicates"]:
        text += f"; {data['duplicates']} pairs coincide"
    return text


def _window(window: Mapping[str, Any]) -> str:
    return (
        f"stretch {_ends(window['low'], window['high'])}, best {plain_number(window['best'])},"
        f" measured on {clean(window['source'])}: accuracy within {window['loss']:g} of the best"
        f" after {plain_number(window['steps'])} steps of kernel regression"
        if window["repeats"] or "scaled" in window["source"]
        else f"stretch {_ends(window['low'], window['high'])}, {clean(window['source'])}"
    )


def _chosen(payload: Mapping[str, Any]) -> list[str]:
    reasons = payload["reasons"]
    lines = wrap(
        f"{'initialise':<{NAME}}",
        f"sigma_w = {payload['sigma_w']:.6g}, sigma_b = {payload['sigma_b']:.6g}",
    )
    lines += wrap(
        f"{'depth':<{NAME}}",
        f"{payload['depth']} hops: stretch {plain_number(payload['stretch'])}, X ="
        f" {plain_number(payload['X'])} for the median pair",
    )
    for name, text in (("depth_window", "depths here"), ("sigma_b_window", "sigma_b here")):
        ends = payload[name]
        told = clean(reasons.get(name, "")) if ends is None else _ends(*ends)
        lines += wrap(f"{text:<{NAME}}", told)
    lines += wrap(f"{'width':<{NAME}}", _width(payload))
    check = payload["check"]
    if check is None:
        return [*lines, *wrap(f"{'check':<{NAME}}", clean(reasons.get("check", "")))]
    low, high = check["interval"]
    return lines + wrap(
        f"{'check':<{NAME}}",
        f"infinitely wide, trained for {plain_number(check['steps'])} steps on half of"
        f" {payload['data']['examples']} examples: accuracy {check['accuracy']:.3f}"
        f" ({low:.3f} to {high:.3f}), condition {plain_number(check['condition'])}",
    )


def _width(payload: Mapping[str, Any]) -> str:
    share = f"{payload['deviation']:g}"
    if payload["width_spread"] is None:
        return clean(payload["reasons"].get("width", ""))
    spread = f"{payload['width_spread']} for networks to differ by no more from one another"
    if payload["width"] is None:
        return f"{spread} than {share}; the mean is not moved to first order"
    return f"{payload['width']} units for the mean within {share}; {spread}"


def _line(points: Sequence[Mapping[str, Any]]) -> list[str]:
    count = len(points)
    picked = sorted({round(k * (count - 1) / max(ROWS - 1, 1)) for k in range(min(ROWS, count))})
    lines = [f"{'sigma_b':>10}{'sigma_w':>12}{'depths':>24}"]
    for k in picked:
        point = points[k]
        ends = _ends(point["shallowest"], point["deepest"])
        lines.append(f"{point['sigma_b']:>10.4g}{point['sigma_w']:>12.6g}{ends:>24}")
    return lines


def _ends(low: float | None, high: float | None) -> str:
    """A range, whose upper end may be open.

    >>> _ends(0, 31), _ends(2.5, None)
    ('up to 31', '2.50 and more')
    """
    if high is None:
        return f"{plain_number(low)} and more"
    if not low:
        return f"up to {plain_number(high)}"
    return f"{plain_number(low)} to {plain_number(high)}"

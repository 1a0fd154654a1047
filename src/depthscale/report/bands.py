"""How correlations spread over networks of a width, layer by layer, in plain text."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.words import clean, is_number, plain_number

NAME = 12
CELL = 10
LEAST_STRIP = 16
ROWS = 12
NARROW = 0.15
"""Share of all rows below which the last one is too narrow to be seen on a linear scale."""
OUTER, INNER, MIDDLE = "░", "▓", "█"

PARAMETERS = {
    "slope": "slope of the leaky ReLU below 0",
    "gain": "factor of the activation, or scale of the weights in its place",
    "input_scale": "a of psi(x) = c (phi(a x + b) + d)",
    "input_shift": "b",
    "output_scale": "c, factor of the activation",
    "output_shift": "d",
    "skip": "factor of the identity",
    "branch": "factor of the branch",
}


def render_band(payload: Mapping[str, Any]) -> str:
    """Return the answer of ``depthscale band`` for a reader."""
    lines = [f"Correlation of two signals in {_network(payload)}", "─" * WIDTH]
    what = "cosine of the units" if payload["measured"] else "correlation of their covariance"
    lines += wrap(f"{'start':<{NAME}}", f"1 - rho = {payload['eps0']:g} ({payload['start']})")
    lines += wrap(f"{'law of':<{NAME}}", f"rho, {what}, over random networks")
    lines += wrap(f"{'engine':<{NAME}}", f"{payload['engine']}: {clean(payload['why'])}")
    lines += ["", *band_table(payload)]
    worst = max((v for row in payload["rho_error"] for v in row if v is not None), default=0.0)
    lines += ["", f"largest error of a quantile: {plain_number(worst, 1)}"]
    return "\n".join([*lines, *_referee(payload.get("referee"))])


def _network(payload: Mapping[str, Any]) -> str:
    widths = sorted(set(payload["widths"]))
    width = f"{widths[0]}" if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
    parts = [f"{clean(payload['activation'])}, width {width}, depth {payload['depth']}"]
    for name in ("sigma_w", "sigma_b", "drop", "skip"):
        value = payload.get(name)
        if value:
            parts.append(f"{name} = {value:.4g}")
    return ", ".join(parts)


def band_table(payload: Mapping[str, Any]) -> list[str]:
    """Quantiles of a dozen layers, and each row drawn: outer and inner range, and the median."""
    picked = _picked(len(payload["layers"]))
    levels, eps = payload["levels"], payload["eps"]
    room = WIDTH - 7 - CELL * len(levels) - 2
    rows = {k: [1 - x for x in eps[k]] for k in picked}
    low, high = _ends(rows.values())
    stretched = max(rows[picked[-1]]) - min(rows[picked[-1]]) < NARROW * (high - low)
    if stretched:
        rows = {k: [_artanh(x) for x in eps[k]] for k in picked}
    left, right = _ends(rows.values())
    head = "layer  " + "".join(f"{f'{100 * p:g} %':>{CELL}}" for p in levels)
    if room >= LEAST_STRIP:
        head += f"  {plain_number(low, 2)} to {plain_number(high, 2)}"
        head += ", scale of artanh rho" if stretched else ""
    lines = [head]
    for k in picked:
        line = f"{payload['layers'][k]:>5}  " + "".join(f"{_short(x):>{CELL}}" for x in eps[k])
        if room >= LEAST_STRIP:
            line += "  " + _strip(rows[k], left, right, room)
        lines.append(line.rstrip())
    return lines


def _artanh(eps: float) -> float:
    """``artanh(1 - eps)``, cut off at 1e-300 of either end."""
    near, far = max(eps, 1e-300), max(2 - eps, 1e-300)
    return (math.log(far) - math.log(near)) / 2


def _picked(count: int) -> list[int]:
    return sorted({*np.linspace(0, count - 1, min(count, ROWS)).round().astype(int).tolist()})


def _ends(rows: Collection[Sequence[float]]) -> tuple[float, float]:
    low, high = min(map(min, rows)), max(map(max, rows))
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def _strip(row: Sequence[float], low: float, high: float, room: int) -> str:
    """A row of marks between ``low`` and ``high``."""
    place = [round((x - low) / (high - low) * (room - 1)) for x in row]
    marks = [" "] * room
    count = len(place)
    for k in range(count // 2):
        mark = INNER if k == count // 2 - 1 and count > 3 else OUTER
        marks[place[k] : place[-1 - k] + 1] = mark * (place[-1 - k] + 1 - place[k])
    if count % 2:
        marks[place[count // 2]] = MIDDLE
    return "".join(marks)


def _short(eps: float) -> str:
    """A correlation, or how far it is from 1 where four digits would not show that.

    >>> _short(0.25), _short(2e-6)
    ('0.7500', '1-2.0e-6')
    """
    return f"1-{plain_number(eps, 2)}" if 0 < eps < 1e-3 else f"{1 - eps:.4f}"


def _referee(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    pairs = zip(found["layers"], found["distance"], strict=True)
    text = ", ".join(f"{d:.4f} at layer {layer}" for layer, d in pairs)
    return wrap(
        f"{'referee':<{NAME}}",
        f"distance of the distributions to {found['networks']:,} exact networks: {text}; as many of"
        f" the band's own law stay below {found['noise']:.4f} in 95 % of cases",
    )


def render_shape(payload: Mapping[str, Any]) -> str:
    """Return the answer of ``depthscale shape`` for a reader."""
    width = payload["width"]
    size = "infinite width" if width is None else f"width {width}"
    name, method = clean(payload["activation"]), payload["method"]
    lines = [f"{name} shaped for depth {payload['depth']}, {size} ({method})", "─" * WIDTH]
    skip = payload["skip"]
    branch = "" if not skip else "h + " if skip == 1 else f"{skip:.6g} h + "
    lines += wrap(f"{'layer':<{NAME}}", f"h' = {branch}W psi(h), weights N(0, 1/fan_in), no biases")
    for key, value in payload["parameters"].items():
        lines += wrap(f"{key:<{NAME}}{plain_number(value, 6):>10}  ", PARAMETERS.get(key, ""))
    lines += wrap(f"{'target':<{NAME}}", _target(payload))
    if payload["band"] is None:
        lines += ["", *_mean_field(payload)]
    else:
        lines += wrap(
            f"{'engine':<{NAME}}", f"{payload['band']['engine']}: {payload['band']['why']}"
        )
        lines += ["", *band_table(payload["band"])]
    for note in payload["notes"]:
        lines += ["", *wrap("note: ", clean(note))]
    lines += ["", *payload["code"].splitlines()]
    if is_number(payload["slope"]) and method == "slope":
        lines += wrap("# or ", f"nn.LeakyReLU({payload['slope']:.6g}) behind weights of standard"
                      f" deviation {payload['gain']:.6g}/sqrt(fan_in), biases 0")  # fmt: skip
    return "\n".join(lines)


def _target(payload: Mapping[str, Any]) -> str:
    what = "correlation of the outputs"
    if payload["quantile"] is not None:
        what = f"{100 * payload['quantile']:g} % quantile of the {what}"
    elif payload["width"] is not None:
        what = f"mean {what}"
    return (
        f"{what} = {payload['target']:g} (reached {plain_number(payload['reached'], 6)}), from"
        f" {1 - payload['eps0']:g}"
    )


def _mean_field(payload: Mapping[str, Any]) -> list[str]:
    picked = _picked(len(payload["eps"]))
    low, high = min(payload["correlation"]), max(payload["correlation"])
    room = WIDTH - 7 - CELL - 2
    lines = [f"layer  {'rho':>{CELL}}"]
    for k in picked:
        rho = payload["correlation"][k]
        share = (rho - low) / (high - low) if high > low else 1.0
        bar = "█" * max(1, round(share * room))
        lines.append(f"{k:>5}  {_short(payload['eps'][k]):>{CELL}}  {bar}")
    return lines

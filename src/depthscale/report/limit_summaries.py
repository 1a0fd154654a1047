"""What the stochastic limits say about a network, in plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.terminal import sparkline
from depthscale.report.words import clean, is_number, plain_number

NAME = 18
STRIP = 60

CLOCK = {"residual": "layer/depth"}
START = {
    "rho0": "two inputs of correlation {}",
    "eps0": "two inputs of misalignment {}",
    "v0": "one input of mean square {}",
    "y0": "y = {}",
    "x0": "x = y^-beta = {}",
}
MEANINGS = {
    "rho_infinite_width": "correlation at infinite width, for slopes 1 + c/sqrt(depth)",
    "log_length_mean": "mean of log(V/V0), the length of one input, which is normal",
    "log_length_variance": "its variance",
    "log_length": "of log(V/V0), the length of one input",
    "aligns": "probability that the two end aligned, and not opposite",
    "late_log_eps_drift": "drift of log eps per unit of t, once it is small",
    "late_log_eps_variance": "its variance per unit of t",
    "explosion_probability": "that the length has exploded by the last time",
    "ever_explodes": "probability that it ever does",
    "mean_inverse_length": "mean of 1/V at the last time",
    "x_mean": "mean of x = y^-beta at the last time, in closed form",
    "x_variance": "its variance",
    "late_log_y_drift": "drift of log y per unit of t near alignment, theta + lam",
    "A": "curvature",
    "beta": "power of the curvature: 1 smooth, 1/2 kinked",
    "s2": "variance of log y per unit of t",
    "lam": "drift of log y that finite width adds",
    "kap": "lam + s2/2, the growth of the mean of y",
    "theta": "detuning, n (chi - 1)",
    "H": "dropout field, n^(1 + 1/beta) h",
    "entrance": "of q_t at t -> 0, from a start at infinity",
    "jump_rate": "single drops per unit of t",
    "bending": "(c+ - c-)^2, all that the correlation knows of the slopes",
    "b": "(3/4 f''^2 + f''')/a^2: the length explodes where it is above 0",
    "growth": "of the mean square, d log q/dt",
}


def render_limit(payload: Mapping[str, Any], densities: Mapping[str, Any]) -> str:
    """Return the answer of ``depthscale limit`` for a reader.

    ``densities`` holds ``edges`` of cells, [cell + 1], and the ``shares`` in them, [time, cell].
    """
    lines = [clean(payload["title"]), "─" * WIDTH]
    lines += wrap(f"{'start':<{NAME}}", _start(payload["start"]))
    lines += wrap(f"{'law of':<{NAME}}", f"{payload['reading']}, {payload['meaning']}")
    lines += ["", *_table(payload)]
    lines += [*_matrix(payload), "", *_strips(payload, densities)]
    constants = {k: v for k, v in payload["constants"].items() if k in MEANINGS}
    for title, found in (("constants", constants), ("exactly", payload["exact"])):
        lines += ["", title, *_facts(title, found, payload["reasons"])]
    lines += ["", *wrap(f"{'solver':<{NAME}}", payload["solver"])]
    for note in payload["notes"]:
        lines += wrap(f"{'note':<{NAME}}", clean(note))
    return "\n".join(lines)


def _start(start: Mapping[str, Any]) -> str:
    if "covariance" in start:
        rows = "; ".join(", ".join(f"{value:g}" for value in row) for row in start["covariance"])
        return f"inputs of mean products {rows}"
    if start.get("x0") == 0:
        return "infinitely many widths ago: any misalignment of order one, y = infinity"
    return ", ".join(START[name].format(f"{value:g}") for name, value in start.items())


def _table(payload: Mapping[str, Any]) -> list[str]:
    levels = list(payload["quantiles"])
    clock = CLOCK.get(payload["kind"], "depth/width")
    heads = ["mean", "sd", *(f"{100 * float(level):g} %" for level in levels)]
    exploding = any(row["exploded"] > 0 for row in payload["times"])
    if exploding:
        heads.append("exploded")
    lines = [f"{clock:<12}" + "".join(f"{head:>11}" for head in heads)]
    for row in payload["times"]:
        values = [row["mean"], row["sd"], *row["quantiles"].values()]
        values += [row["exploded"]] if exploding else []
        cells = "".join(f"{plain_number(value, 5):>11}" for value in values)
        lines.append(f"{row['time']:<12g}{cells}")
    return [*lines, *_errors(payload)]


def _errors(payload: Mapping[str, Any]) -> list[str]:
    """What the numbers are worth, and why some are missing."""
    errors = payload["errors"]
    known = [v for v in (errors["mean"], errors["sd"], *errors["quantiles"].values()) if v]
    lines = []
    if known:
        words = f"largest error at the last time ({payload['errors_are']})"
        lines.append(f"{words}: {plain_number(max(known), 2)}")
    reasons = payload["reasons"]
    why = [v for k, v in reasons.items() if k.split(".")[0] in ("mean", "sd", "quantiles")]
    return [*lines, *(line for text in dict.fromkeys(why) for line in wrap("–: ", clean(text)))]


def _matrix(payload: Mapping[str, Any]) -> list[str]:
    """Mean correlations of three inputs and more."""
    rows = payload.get("correlation", [])
    if len(rows) < 3:
        return []
    heads = "".join(f"{k:>9}" for k in range(1, len(rows) + 1))
    lines = ["", f"{'mean rho':<{NAME}}{heads}"]
    for k, row in enumerate(rows, 1):
        lines.append(f"{k:>{NAME - 2}}  " + "".join(f"{value:>9.4f}" for value in row))
    return lines


def _strips(payload: Mapping[str, Any], densities: Mapping[str, Any]) -> list[str]:
    """The density at every time as a row of bars, each on a scale of its own."""
    edges = densities["edges"]
    if edges[0] == edges[-1]:
        return ["all of it in one place" if payload["sd"] == 0 else "too narrow to be drawn"]
    low, high = (plain_number(edge, 3) for edge in (edges[0], edges[-1]))
    lines = [f"density of {payload['reading']} from {low} to {high}"]
    for row, shares in zip(payload["times"], densities["shares"], strict=True):
        values = np.asarray(shares)
        bars = sparkline(values, 0.0, float(values.max()), STRIP)
        lines.append(f"  t = {row['time']:<{NAME - 6}g}{bars}".rstrip())
    return lines


def _facts(title: str, found: Mapping[str, Any], reasons: Mapping[str, str]) -> list[str]:
    prefix = "exact" if title == "exactly" else "constants"
    lines = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            text = ", ".join(f"{key} = {plain_number(v, 6)}" for key, v in value.items())
            lines += wrap(f"  {name:<{NAME + 4}}", text)
        elif is_number(value):
            meaning = MEANINGS.get(name, "")
            lines += wrap(f"  {name:<{NAME + 4}}{plain_number(value, 6):>12}  ", meaning)
        elif f"{prefix}.{name}" in reasons:
            lines += wrap(f"  {name:<{NAME + 4}}{'undefined':>12}  ", reasons[f"{prefix}.{name}"])
    return lines

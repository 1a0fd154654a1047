"""What a dropout schedule is worth, in plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from depthscale.practice.schedule import Schedule
from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.words import clean, plain_number

MEANINGS = {
    "signal": "small difference lost, -log slopes",
    "noise": "two passes of one input, output",
    "exposure": "the same, sum over all layers",
    "snr": "two inputs' difference over noise",
    "xi": "surrogate: depth scale, in layers",
    "rank-flow": "surrogate: rank lost there (v1)",
    "reach": "surrogate: how far it acts (v2)",
    "gradient": "variance of log gradient growth",
}


def render_schedule(payload: Mapping[str, Any]) -> str:
    """Return the answer of ``depthscale schedule`` for a reader."""
    title = (
        f"{clean(payload['activation'])}, sigma_w = {payload['sigma_w']:.6g}, sigma_b ="
        f" {payload['sigma_b']:.6g}, {payload['depth']} sites, mean rate {payload['mean_rate']:.4g}"
    )
    best = "objective" in payload
    head = f"Dropout schedule, best for {payload['objective']}" if best else "Dropout schedule"
    lines = [
        *textwrap.wrap(f"{head}: {title}", WIDTH),
        "─" * WIDTH,
        str(Schedule(tuple(payload["rates"]))),
        "",
    ]
    lines += _table(payload["objectives"])
    for name, reason in payload["reasons"].items():
        lines += wrap(f"{name.removeprefix('objectives.')}: ", clean(reason))
    return "\n".join([*lines, "", *(_worth(payload) if best else [])]).rstrip()


def _table(objectives: Mapping[str, Mapping[str, Any]]) -> list[str]:
    form = "{:<10}{:<5}{:>11}{:>11}{:>11}{:>12}  {}"
    lines = [
        form.format("objective", "", "this one", "uniform", "mirrored", "best random", "").rstrip()
    ]
    for name, row in objectives.items():
        cells = [
            plain_number(row[k], 4) for k in ("schedule", "uniform", "mirrored", "best_random")
        ]
        better = "more" if row["more_is_better"] else "less"
        lines.append(form.format(name, better, *cells, MEANINGS.get(name, "")).rstrip())
    return [
        *lines,
        "more, less: what is better; best random: of 1,000 permutations, for each objective",
    ]


def _worth(payload: Mapping[str, Any]) -> list[str]:
    """What the schedule buys, and how sure that is."""
    name, found = payload["objective"], payload["certificate"]
    row = payload["objectives"].get(name)
    if not payload["helps"]:
        text = "no benefit expected: the uniform schedule is as good, within rounding"
    else:
        values = (plain_number(row[k], 4) for k in ("uniform", "schedule"))
        text = f"{name} goes from {{}} (uniform) to {{}}".format(*values)
        worse = [
            other
            for other, one in payload["objectives"].items()
            if None not in (one["schedule"], one["uniform"])
            and (one["schedule"] < one["uniform"] - 1e-9 * abs(one["uniform"]))
            == one["more_is_better"]
            and abs(one["schedule"] - one["uniform"]) > 1e-9 * abs(one["uniform"])
        ]
        text += f"; worse than uniform: {', '.join(worse)}" if worse else "; nothing gets worse"
    lines = wrap(f"{'worth':<14}", text)
    text = (
        f"{found['proof']}; KKT residual {found['kkt_residual']:.1e}, budget off by"
        f" {found['budget_violation']:.1e}; {found['at_cap']} sites at the cap,"
        f" {found['at_floor']} at the floor, {found['partial']} between"
    )
    lines += wrap(f"{'certificate':<14}", text)
    advice = (
        "a tuned uniform rate is the control that matters: compare with uniform at 2x and 3x too"
    )
    return [*lines, *wrap(f"{'note':<14}", advice)]

"""What a dropout schedule does to a real model, in plain text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depthscale.practice.dropping.advise import STUDENT
from depthscale.report.schedules import MEANINGS
from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.words import clean, plain_number

ARMS = {"schedule": "this one", "uniform": "uniform", "mirrored": "mirrored", "present": "as it is"}
BAR, LONGEST = 24, 44


def render_model_schedule(payload: Mapping[str, Any], path: Path | None = None) -> str:
    """Return the answer of ``depthscale schedule MODEL`` for a reader."""
    lines = [
        f"Dropout schedule for {clean(payload['model'])}, best for {payload['objective']}",
        "─" * WIDTH,
        *_sites(payload["sites"]),
    ]
    for site in payload["left"]:
        reason = clean(site["reason"]) or f"of kind {site['kind']}"
        lines += wrap("left as it is: ", f"{clean(site['name'])}, {reason}")
    lines += ["", *_predicted(payload), "", *_observed(payload), ""]
    return "\n".join([*lines, *_worth(payload), "", *_use(payload, path)])


def _sites(sites: list[Mapping[str, Any]]) -> list[str]:
    most = max(site["rate"] for site in sites)
    width = min(max(len(clean(site["name"])) for site in sites), LONGEST)
    lines = [f"{'site':<{width}}  {'kind':<10}  {'now':>5}  {'then':>6}"]
    for site in sites:
        name = clean(site["name"])
        name = name if len(name) <= width else "..." + name[3 - width :]
        bar = "#" * round(BAR * site["rate"] / most) if most else ""
        rates = f"{plain_number(site['now']):>5}  {plain_number(site['rate']):>6}"
        lines.append(f"{name:<{width}}  {site['kind']:<10}  {rates}  {bar}".rstrip())
    return lines


def _predicted(payload: Mapping[str, Any]) -> list[str]:
    meanings = MEANINGS | {"signal": payload["signal"]["predicted"]}
    arms = ("schedule", "uniform", "mirrored", "best_random")
    form = "{:<10}{:<6}" + "{:>12}" * len(arms) + "  {}"
    lines = [form.format("predicted", "", "this one", "uniform", "mirrored", "best random", "")]
    for name, row in payload["objectives"].items():
        better = "more" if row["more_is_better"] else "less"
        cells = [plain_number(row[arm], 4) for arm in arms]
        lines.append(form.format(name, better, *cells, meanings[name]))
    return [line.rstrip() for line in lines]


def _observed(payload: Mapping[str, Any]) -> list[str]:
    arms, signal = payload["observed"], payload["signal"]
    shown = [arm for arm in ARMS if arm in arms]
    form = "{:<16}" + "{:>18}" * len(shown)
    lines = [form.format("measured", *(ARMS[arm] for arm in shown))]
    for name in arms["schedule"]:
        cells = (_effect(arms[arm][name]) for arm in shown)
        lines.append(form.format(_label(payload, name), *cells))
    if signal["predicted"] != signal["observed"]:
        both = f"{signal['observed']}; the signal predicted is another: {signal['predicted']}"
        lines += wrap(f"{_label(payload, 'signal')}: ", both)
    return lines


def _label(payload: Mapping[str, Any], name: str) -> str:
    """Name of a measured objective; of its own where the prediction is of another quantity."""
    signal = payload["signal"]
    return "contrast lost" if name == "signal" and len(set(signal.values())) > 1 else name


def _effect(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return "none"
    return f"{plain_number(one['value'])} ± {plain_number(one['error'], 1)}"


def _worth(payload: Mapping[str, Any]) -> list[str]:
    notes = "".join(f"; {clean(note)}" for note in payload["notes"])
    place = f"at layer {clean(payload['readout'])}, the last before the first output"
    basis = (
        f"{payload['basis']}; measured on {clean(payload['data'])} {place}, in train mode, at the"
        f" weights that the model has{notes}"
    )
    advice = (
        "this is about signals, not about accuracy; what it buys in training has to be tried, with"
        " a uniform rate tuned at 1x, 2x and 3x as the control that matters"
    )
    rows = (("worth", _verdict(payload)), ("basis", basis), ("note", advice))
    return [line for head, words in rows for line in wrap(f"{head:<8}", words)]


def _verdict(payload: Mapping[str, Any]) -> str:
    name, verdict = payload["objective"], payload["verdict"]
    row = payload["objectives"][name]
    if verdict is None:
        same, own = plain_number(row["uniform"], 4), plain_number(row["schedule"], 4)
        nothing = "no benefit expected: " if row["uniform"] == row["schedule"] else ""
        return f"{nothing}{name} goes from {same} (uniform) to {own}, as predicted; not measurable"
    seen = payload["observed"]
    before, after = (_effect(seen[arm][name]) for arm in ("uniform", "schedule"))
    what = _label(payload, name)
    text = f"{what} was measured to go from {before} (the same mean everywhere) to {after}"
    gain = _effect(payload["gain"])
    if verdict == "worse":
        return f"worse than uniform, do not use it: {text}, a gain of {gain}; the prediction failed"
    if verdict == "not told apart":
        return f"no benefit expected: {text}, a gain of {gain}, which is within chance"
    worse = [_label(payload, one) for one in seen["schedule"] if _is_worse(payload, one)]
    if worse:
        return f"{text}; worse than uniform: {', '.join(worse)}"
    return f"{text}; nothing else was seen to get worse"


def _is_worse(payload: Mapping[str, Any], name: str) -> bool:
    """Whether the schedule does worse than uniform in an objective, by more than chance."""
    own, same = (payload["observed"][arm][name] for arm in ("schedule", "uniform"))
    if None in (own["value"], same["value"]):
        return False
    loss = same["value"] - own["value"]
    loss *= 1 if payload["objectives"][name]["more_is_better"] else -1
    return bool(loss > STUDENT * math.hypot(own["error"], same["error"]))


def _use(payload: Mapping[str, Any], path: Path | None) -> list[str]:
    """Code to paste, in ASCII, so that odd characters survive any terminal."""
    lines = [
        "to use it",
        "  from depthscale import apply_schedule, dropout_sites",
        "  dropout_sites(model, inputs)",
    ]
    if path is not None:
        return [*lines, f"  apply_schedule(model, {str(path)!a})"]
    return [
        *lines,
        "  rates = {",
        *(f"      {name!a}: {rate:.6g}," for name, rate in payload["apply"].items()),
        "  }",
        "  apply_schedule(model, rates)",
    ]

"""What a dropout schedule does to a real model, in plain text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depthscale.report.schedules import MEANINGS
from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.words import clean, plain_number

ARMS = {"schedule": "this one", "uniform": "uniform", "mirrored": "mirrored", "present": "as it is"}
BAR = 24


def render_model_schedule(payload: Mapping[str, Any], path: Path | None = None) -> str:
    """Return the answer of ``depthscale schedule MODEL`` for a reader."""
    sites = payload["sites"]
    lines = [
        f"Dropout schedule for {clean(payload['model'])}, best for {payload['objective']}",
        "─" * WIDTH,
        *_sites(sites),
        "",
    ]
    for site in payload["left"]:
        reason = clean(site["reason"]) or "of another kind"
        lines += wrap(f"{'left as it is':<14}", f"{clean(site['name'])}: {reason}")
    lines += [*_table(payload["objectives"]), "", *_worth(payload), "", *_paste(payload, path)]
    return "\n".join(lines)


def _sites(sites: list[Mapping[str, Any]]) -> list[str]:
    most = max(site["rate"] for site in sites)
    width = min(max(len(clean(site["name"])) for site in sites), 46)
    lines = [f"{'site':<{width}}  {'kind':<10}  {'now':>5}  {'then':>5}"]
    for site in sites:
        name = clean(site["name"])
        name = name if len(name) <= width else "..." + name[3 - width :]
        bar = "#" * round(BAR * site["rate"] / most) if most else ""
        now = plain_number(site["now"])
        rates = f"{now:>5}  {plain_number(site['rate']):>5}"
        lines.append(f"{name:<{width}}  {site['kind']:<10}  {rates}  {bar}".rstrip())
    return lines


def _table(objectives: Mapping[str, Mapping[str, Any]]) -> list[str]:
    arms = [arm for arm in ARMS if arm in next(iter(objectives.values()))["observed"]]
    form = "{:<10}{:<6}" + "{:>19}" * len(arms)
    lines = [form.format("measured", "", *(ARMS[arm] for arm in arms))]
    for name, row in objectives.items():
        cells = [_effect(row["observed"][arm]) for arm in arms]
        lines.append(form.format(name, "more" if row["more_is_better"] else "less", *cells))
    meanings = "; ".join(f"{name}: {MEANINGS[name]}" for name in objectives)
    return [*lines, *wrap("", f"more, less: what is better. {meanings}")]


def _effect(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return "none"
    error = one["error"]
    return f"{plain_number(one['value'])} ± {plain_number(error, 1)}"


def _worth(payload: Mapping[str, Any]) -> list[str]:
    name = payload["objective"]
    row, gain = payload["objectives"][name], payload["gain"]
    observed = row["observed"]
    if payload["helps"]:
        text = (
            f"{name} goes from {_effect(observed['uniform'])} with the same mean everywhere to"
            f" {_effect(observed['schedule'])}"
        )
    else:
        text = (
            f"no benefit expected: {name} with the same mean everywhere is"
            f" {_effect(observed['uniform'])}, with this schedule {_effect(observed['schedule'])},"
            f" a difference of {_effect(gain)} in its favour"
        )
    basis = (
        "the model as it stands, run in train mode on the data (" + clean(payload["data"]) + "):"
        " each site alone, then the arms of the table with other masks; to first order in the rates"
        f" {name} was predicted to be {plain_number(row['schedule'])} (uniform"
        f" {plain_number(row['uniform'])}, the best of 1,000 permutations"
        f" {plain_number(row['best_random'])})"
    )
    return [*wrap(f"{'worth':<8}", text), *wrap(f"{'basis':<8}", basis)]


def _paste(payload: Mapping[str, Any], path: Path | None) -> list[str]:
    if path is None:
        rates = ", ".join(f"{site['name']!r}: {site['rate']:.6g}" for site in payload["sites"])
        return [
            "to use it",
            "  import depthscale",
            "  depthscale.dropout_sites(model, inputs)",
            f"  rates = {{{clean(rates)}}}",
            "  depthscale.apply_schedule(model, rates.values(), rates.keys())",
        ]
    return [
        "to use it",
        "  import depthscale",
        "  depthscale.dropout_sites(model, inputs)",
        f"  depthscale.apply_schedule(model, {clean(str(path))!r})",
    ]

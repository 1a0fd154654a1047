"""What a trial of dropout schedules found: a table, and figures with paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.answers import InputError
from depthscale.practice.trials.runner import METRICS, MOMENTS, Results
from depthscale.practice.trials.statistics import (
    ALPHA,
    LEVEL,
    Difference,
    best_dose,
    bootstrap,
    reference,
    relative_difference,
    seeds_needed,
)
from depthscale.report.canvas import COLOURS, GUIDE, finish, look, page, style
from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.words import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from depthscale.theory.gaussian import Array

Target = str | Path | None

TITLES = {
    ("cross_entropy", "final"): "test cross-entropy, last epoch",
    ("cross_entropy", "selected"): "test cross-entropy, selected epoch",
    ("accuracy", "selected"): "test accuracy, selected epoch",
}
SWEPT = ("none", "uniform 2x", "step", "step-late")
"""Arms of the sweeps that are drawn, against uniform."""

# Text --------------------------------------------------------------------------------------------


def render_trial(results: Results, differences: Sequence[Difference]) -> str:
    """Return the answer of ``depthscale trial`` for a reader."""
    trial = results.trial
    lines = wrap(
        "",
        f"{trial.data}: {trial.train} examples to learn from, {trial.validation} to select the"
        f" epoch by, {trial.test} to test on; {trial.epochs} epochs of {trial.optimiser} from"
        f" {trial.learning_rate:g} ({trial.decay}), batches of {trial.batch}",
    )
    for cell in trial.cells:
        lines += ["", *_table(results, cell.name, [d for d in differences if d.cell == cell.name])]
    text = (
        f"brackets: {100 * LEVEL:.0f} % intervals over seeds of the difference within a seed"
        " (bootstrap, or Student's below 15 seeds), not widened for their number; *:"
        f" p < {ALPHA:g} by Wilcoxon's signed ranks and Holm's rule over the family of"
        f" {len(differences)} comparisons (arms, both moments, baselines, {', '.join(METRICS)})"
        f"{_unreachable(differences)}. The selected epoch is that of the least validation"
        " cross-entropy"
    ).replace("_", " ")
    return "\n".join([*lines, "", *wrap(f"{'note':<6}", text)])


def _unreachable(differences: Sequence[Difference]) -> str:
    """How many seeds it takes, where no difference could be significant with so few."""
    if not differences:
        return ""
    most, needed = max(one.seeds for one in differences), seeds_needed(len(differences))
    return "" if most >= needed else f", out of reach with {most} seeds: it takes at least {needed}"


def _table(results: Results, cell: str, differences: list[Difference]) -> list[str]:
    arms, lost = results.trial.cell(cell).arms, results.diverged(cell)
    against = reference(results, cell)
    over = "" if against is None else f"over {clean(against)}"
    form = "{:<14}{:>7} {:<25}{:>7} {:<25}{:>6} {:>6}"
    lines = [f"{clean(cell)}, {len(results.seeds(cell))} seeds", "─" * WIDTH]
    lines.append(form.format("", "final", "", "chosen", "", "acc.", "calib.").rstrip())
    lines.append(form.format("arm", "loss", over, "loss", over, "%", "%"))
    for arm in arms:
        if arm.name in lost:
            seeds = f"seed{'s' * (len(lost[arm.name]) > 1)} {', '.join(map(str, lost[arm.name]))}"
            lines += wrap(f"{clean(arm.name):<14} ", f"diverged with {seeds}; left out")
            continue
        cells: list[str] = []
        for moment in MOMENTS:
            loss = results.values(cell, arm.name, "cross_entropy", moment).mean()
            mine = [d for d in differences if (d.arm, d.moment) == (arm.name, moment)]
            cells += [f"{loss:.4f}", _told(mine, against)]
        rest = (results.values(cell, arm.name, m, "selected") for m in METRICS[1:3])
        cells += [f"{100 * values.mean():.2f}" for values in rest]
        lines.append(form.format(clean(arm.name), *cells).rstrip())
    if against not in (None, "uniform"):
        first = "the first arm that did not diverge" if lost else "the first arm"
        why = "uniform diverged" if "uniform" in lost else "there is no uniform"
        lines += wrap("", f"over {against}: {first}, as {why}")
    doses = [f"{dose} ({m})" for m in MOMENTS if (dose := best_dose(results, cell, m))]
    if doses:
        lines += wrap("", f"best rate for all sites, by validation: {', '.join(doses)}")
    for arm in arms:
        if len(arm.names) > 1:
            lines += wrap("", f"{arm.name} is also: {', '.join(arm.names[1:])}")
    return lines


def _told(differences: Sequence[Difference], baseline: str | None) -> str:
    for one in differences:
        if (one.baseline, one.metric) == (baseline, "cross_entropy") and one.relative:
            value, low, high = (100 * x for x in one.relative)
            star = "*" if one.p_holm < ALPHA else ""
            return f"{value:+.1f} % [{low:+.1f}, {high:+.1f}]{star}"
    return ""


# Figures -----------------------------------------------------------------------------------------


def plot_arms(results: Results, cell: str, differences: Sequence[Difference],
              target: Target = None) -> Figure:  # fmt: skip
    """Every arm against the reference: final and selected cross-entropy, selected accuracy.

    Points are means over seeds, bars their paired 95 % intervals; filled where the p-value holds
    after Holm's rule. The dashed line is the best dose of one rate. Arms that diverged have a
    dotted line without a point.

    Raises
    ------
    InputError
        Every arm diverged.
    """
    against = reference(results, cell)
    if against is None:
        raise InputError(f"every arm of {cell} diverged; try a lower learning rate")
    with style():
        arms = [name for name in results.finite(cell) if name != against]
        loss = {name: results.values(cell, name, "cross_entropy").mean() for name in arms}
        order = sorted(arms, key=lambda name: -loss[name])
        names = [*order, *(f"{name} (diverged)" for name in results.diverged(cell))]
        figure = page((9.6, 1.4 + 0.24 * len(names)))
        panels = figure.subplots(1, len(TITLES), sharey=True)
        for axes, ((metric, moment), title) in zip(panels, TITLES.items(), strict=True):
            mine = {
                d.arm: d
                for d in differences
                if (d.cell, d.metric, d.moment, d.baseline) == (cell, metric, moment, against)
            }
            _forest(axes, [mine[name] for name in order])
            for place in range(len(order), len(names)):
                axes.axhline(place, color=GUIDE, linestyle=":", linewidth=1)
            axes.set_title(title)
            unit = "points" if metric == "accuracy" else "%"
            words = f"over {clean(against)} ({unit})"
            if dose := best_dose(results, cell, moment):
                at = 0.0 if dose == against else 100 * _effect(mine[dose])[0]
                axes.axvline(at, color=GUIDE, linestyle="--", linewidth=1)
                words += f"\ndashed: best dose, {dose}"
            axes.set_xlabel(words)
        panels[0].set_yticks(range(len(names)), [clean(name) for name in names])
        for face, words in (
            ("black", f"p < {ALPHA:g} after Holm's rule{_unreachable(differences)}"),
            ("white", "not so"),
        ):
            how: dict[str, Any] = {"linestyle": "", "color": "black", "markersize": 5}
            panels[0].plot([], [], "o", markerfacecolor=face, label=words, **how)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return finish(figure, target)


def _effect(one: Difference) -> tuple[float, float, float]:
    return one.difference if one.relative is None else one.relative


def _forest(axes: Axes, rows: Sequence[Difference]) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    for place, one in enumerate(rows):
        value, low, high = (100 * x for x in _effect(one))
        colour = COLOURS[1] if "late" in one.arm else COLOURS[0]
        colour = GUIDE if one.arm.startswith(("none", "uniform")) else colour
        colour = COLOURS[2] if one.arm.startswith(("random", "block")) else colour
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
        face = colour if one.p_holm < ALPHA else "white"
        axes.plot(value, place, "o", color=colour, markerfacecolor=face, markersize=5)
    axes.tick_params(axis="y", length=0)


def plot_places(results: Results, cell: str, target: Target = None) -> Figure:
    """A block of one rate slid from the input to the output: cross-entropy at both moments."""
    trial = results.trial.cell(cell)
    places = [n for arm in trial.arms for n in arm.names if n.startswith("block ")]
    places = sorted(places, key=lambda name: int(name.split()[1]))
    first = np.arange(1.0, len(places) + 1)
    with style():
        figure = page((7.2, 3.2))
        panels = figure.subplots(1, 2)
        for axes, moment in zip(panels, ("final", "selected"), strict=True):
            values = np.array([results.values(cell, n, "cross_entropy", moment) for n in places])
            axes.plot(first, values, color="#dcdcd8", linewidth=0.7, zorder=1)
            _with_bars(axes, first, values, look(0))
            for name, dashes in (("none", ":"), ("uniform", "-"), ("uniform 2x", "--")):
                level = results.values(cell, name, "cross_entropy", moment).mean()
                axes.axhline(level, color=GUIDE, linestyle=dashes, linewidth=1, label=name)
            axes.set_title(TITLES["cross_entropy", moment])
            axes.set_xticks(first, [_span(trial.arm(name).rates) for name in places])
            axes.set_xlim(0.8, len(places) + 0.2)
            axes.set_xlabel("layers with dropout")
        panels[0].set_ylabel("cross-entropy (nats)")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3)
        return finish(figure, target)


def _span(rates: Sequence[float]) -> str:
    dropped = [k + 1 for k, rate in enumerate(rates) if rate > 0]
    return f"{dropped[0]} to {dropped[-1]}"


def _with_bars(axes: Axes, x: Array, values: Array, how: dict[str, Any]) -> None:
    """Means over seeds of ``values`` [point, seed] and their 95 % intervals."""
    mean, low, high = bootstrap(lambda w: w @ values.T, values.shape[1])
    axes.errorbar(x, mean, yerr=[mean - low, high - mean], capsize=2, zorder=3, **how)


def plot_sweeps(sweeps: dict[str, Results], target: Target = None) -> Figure:
    """Cross-entropy over that of uniform in every cell of every sweep, at both moments."""
    with style():
        figure = page((9.6, 4.8))
        widths = [len(results.trial.cells) for results in sweeps.values()]
        grid = figure.subplots(
            2, len(sweeps), squeeze=False, width_ratios=widths, sharex="col", sharey="row"
        )
        for column, (name, results) in zip(grid.T, sweeps.items(), strict=True):
            names = [cell.name for cell in results.trial.cells]
            for axes, moment in zip(column, ("final", "selected"), strict=True):
                for k, arm in enumerate(SWEPT):
                    _swept(axes, results, names, arm, moment, k)
                axes.axhline(0, color="black", linewidth=0.8)
                axes.set_yscale("symlog", linthresh=10)  # a dose too many costs a factor
            column[0].set_title(name)
            labels = [clean(cell.removeprefix(f"{name} ").removeprefix("mean ")) for cell in names]
            column[1].set_xticks(range(len(names)), labels)
            column[1].set_xlabel("mean rate" if name == "budget" else name)
        grid[0, 0].set_ylabel("cross-entropy over uniform\nlast epoch (%)")
        grid[1, 0].set_ylabel("cross-entropy over uniform\nselected epoch (%)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(SWEPT))
        return finish(figure, target)


def _swept(
    axes: Axes, results: Results, cells: Sequence[str], arm: str, moment: str, index: int
) -> None:
    effects = []
    there = [any(arm in a.names for a in results.trial.cell(cell).arms) for cell in cells]
    for cell in np.array(cells)[there].tolist():
        a = results.values(cell, arm, "cross_entropy", moment)
        b = results.values(cell, "uniform", "cross_entropy", moment)
        effects.append([100 * x for x in bootstrap(relative_difference(a, b), len(a))])
    value, low, high = np.transpose(effects)
    x = np.flatnonzero(there) + 0.13 * (index - (len(SWEPT) - 1) / 2)
    how = {"linestyle": "", "capsize": 2, "label": arm, **look(index)}
    axes.errorbar(x, value, yerr=[value - low, high - value], **how)


def plot_ranking(
    rankings: Mapping[str, Mapping[str, tuple[float, float, float]]], target: Target = None
) -> Figure:
    """How well each objective ranks schedules: value and ends of an interval, at both moments."""
    names = list(rankings["final"])
    order = sorted(names, key=lambda name: rankings["final"][name][0])
    with style():
        figure = page((5.4, 3.0))
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=0.8)
        for k, (moment, found) in enumerate(rankings.items()):
            for place, name in enumerate(order):
                value, low, high = found[name]
                at = place + 0.12 * (1 - 2 * k)
                axes.plot([low, high], [at, at], color=COLOURS[k], linewidth=1.6)
                words = f"{'last' if moment == 'final' else moment} epoch"
                how: dict[str, Any] = {"linestyle": "", **look(k)}
                axes.plot(value, at, label=words if place == 0 else None, **how)
        axes.set_yticks(range(len(order)), order)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(-1.05, 1.05)
        axes.set_xlabel("rank correlation with test loss (1: right order)")
        figure.legend(loc="outside lower center", ncols=2)
        return finish(figure, target)

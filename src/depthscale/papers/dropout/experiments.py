"""Claims that need trained networks: the MLP of the paper, on Fashion-MNIST in place of CIFAR-10.

A claim of a direction is confirmed if the 95 % interval excludes 0 on the stated side, refuted if
on the other one, else undecided; one of a range besides has to meet it, and is refuted if it does
not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from depthscale.papers.claims import Claim, Verdict
from depthscale.papers.dropout.common import claim
from depthscale.papers.dropout.trials import (
    BRANCHED,
    HF_VIT,
    MLP,
    RESNET,
    SWEPT,
    VIT,
    Runs,
    command_of,
)
from depthscale.practice.dropping.blocks import BRANCHES
from depthscale.practice.schedules.objectives import SENSE, Landscape
from depthscale.practice.trials.plans import mean_field
from depthscale.practice.trials.runner import Results
from depthscale.practice.trials.statistics import (
    Difference,
    best_dose,
    bootstrap,
    compare,
    relative_difference,
)
from depthscale.theory.gaussian import Array

EARLY = ("step", "big-step", "linear", "cosine", "step 2x")
PAIRS = tuple((name, f"{name}-late") for name in ("step", "big-step", "linear", "cosine"))
BLOCKS = ("block 1", "block 2", "block 3", "block 4")
SAME_BUDGET = (
    "uniform", *(name for pair in PAIRS for name in pair), "block 2", "block 3",
)  # fmt: skip
"""Fixed schedules of one mean rate, which the objectives are to rank."""

DRAWN = {
    MLP: (MLP, "trials.svg"),
    VIT: ("both", "vit.svg"),
    HF_VIT: (HF_VIT, "hf-vit.svg"),
    RESNET: (RESNET, "resnet.svg"),
}
"""Trials whose arms are drawn against uniform: the cell, and the file of the figure."""

PLACE = "mean place"
LATE_IN_TRAINING = {"final": "at the last epoch", "selected": "at the selected epoch"}


class Effect(NamedTuple):
    """Relative difference of two arms' mean cross-entropies, and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = (100 * x for x in self)
        return f"{value:+.1f} % [{low:+.1f}, {high:+.1f}]"


# Claims ------------------------------------------------------------------------------------------


def trained(runs: Runs | None = None) -> list[Claim]:
    """Every claim on trained networks; "not tested" where there are no runs."""
    runs = Runs() if runs is None else runs
    results = runs.results(MLP)
    claims = _untested() if results is None else _mlp(results)
    return [*claims, *_sweeps(runs), *_transformers(runs), *_stochastic_depth(runs)]


def _where(results: Results) -> str:
    return f"experiments (MLP, Fashion-MNIST, {len(results.seeds(MLP))} paired seeds)"


def _untested() -> list[Claim]:
    statement = "early dropout lowers the final cross-entropy of a ReLU MLP by 18-35 %"
    return [claim("both", "experiments", statement, "not tested", note="there are no runs")]


def _mlp(results: Results) -> list[Claim]:
    return [
        _reduction(results, "final", (0.18, 0.35)),
        _reduction(results, "selected", (0.014, 0.025)),
        *(_mirrors(results, moment) for moment in LATE_IN_TRAINING),
        _block(results),
        *(_double_dose(results, moment) for moment in LATE_IN_TRAINING),
        *(_tuned(results, moment) for moment in LATE_IN_TRAINING),
        *_rankings(results),
    ]


def effect(results: Results, arm: str, other: str, moment: str, cell: str = MLP) -> Effect:
    """An arm over another one: relative difference of mean test cross-entropies."""
    a, b = (results.values(cell, name, "cross_entropy", moment) for name in (arm, other))
    return Effect(*(float(x) for x in bootstrap(relative_difference(a, b), len(a))))


def _reduction(results: Results, moment: str, stated: tuple[float, float]) -> Claim:
    found = effect(results, "step", "uniform", moment)
    low, high = stated
    others = ", ".join(
        f"{name} {effect(results, name, 'uniform', moment)}"
        for name in ("big-step", "linear", "cosine", "none")
    )
    return _lowered(
        _where(results),
        f"early dropout (step) lowers the cross-entropy by {100 * low:g}-{100 * high:g} % against"
        f" the same mean rate everywhere, {LATE_IN_TRAINING[moment]}",
        stated,
        found,
        f"ours {found}; the paper's is CIFAR-10 and its best epoch that of the test loss, ours is"
        f" Fashion-MNIST and a validation part selects. Others over uniform: {others}",
    )


def _lowered(
    where: str, statement: str, stated: tuple[float, float], found: Effect, note: str
) -> Claim:
    """A claim that something falls by a share within a range."""
    low, high = stated
    meets = -high <= found.high and found.low <= -low
    verdict: Verdict = "refuted" if not meets else "confirmed" if found.high < 0 else "undecided"
    return claim(
        "both",
        where,
        statement,
        verdict,
        stated=-(low + high) / 2,
        ours=found.value,
        tolerance=(high - low) / 2,
        why="half the stated range, which our interval has to meet without holding 0",
        note=note,
    )


def falls(effects: Iterable[Effect]) -> Verdict:
    """The verdict on all of some effects being below 0."""
    found = list(effects)
    if all(one.high < 0 for one in found):
        return "confirmed"
    return "refuted" if any(one.low > 0 for one in found) else "undecided"


def rises(effects: Iterable[Effect]) -> Verdict:
    """The verdict on all of some effects being above 0."""
    return falls(Effect(-one.value, -one.high, -one.low) for one in effects)


def _mirrors(results: Results, moment: str) -> Claim:
    effects = {early: effect(results, early, late, moment) for early, late in PAIRS}
    return claim(
        "both",
        _where(results),
        f"every early profile has a lower test loss than its mirror, {LATE_IN_TRAINING[moment]}",
        falls(effects.values()),
        ours=effects["step"].value,
        note="early over late: " + ", ".join(f"{name} {one}" for name, one in effects.items()),
    )


def _block(results: Results) -> Claim:
    steps, selected = (
        [effect(results, later, earlier, moment) for earlier, later in pairwise(BLOCKS)]
        for moment in LATE_IN_TRAINING
    )
    whole = effect(results, BLOCKS[-1], BLOCKS[0], "final")
    return claim(
        "both",
        _where(results),
        "a block of p = 0.2 on three of six layers raises the final loss with every step from front"
        " to back",
        rises(steps),
        ours=whole.value,
        note=f"last place over first {whole} (the paper's table: 3.62 over 1.82), step by step"
        f" {', '.join(map(str, steps))}; at the selected epoch {', '.join(map(str, selected))}",
    )


def _double_dose(results: Results, moment: str) -> Claim:
    """In the paper's table uniform 2x is ahead at the last epoch, and behind at the best one."""
    found = effect(results, "uniform 2x", "step", moment)
    ahead = moment == "final"
    return claim(
        "both",
        _where(results),
        f"uniform dropout of twice the rate has a {'lower' if ahead else 'higher'} loss than early"
        f" dropout (step), {LATE_IN_TRAINING[moment]}",
        falls([found]) if ahead else rises([found]),
        ours=found.value,
        note=f"uniform 2x over step {found}, over big-step"
        f" {effect(results, 'uniform 2x', 'big-step', moment)}; step 2x over uniform 2x"
        f" {effect(results, 'step 2x', 'uniform 2x', moment)}. In the paper's table uniform 2x is"
        " ahead at the last epoch (1.682 to 1.826) and behind at the best one (1.666 to 1.654)",
    )


def _tuned(results: Results, moment: str) -> Claim:
    """The control that matters: the best of each kind, both chosen by validation."""
    dose = best_dose(results, MLP, moment)
    assert dose is not None  # of the five that the trial has
    losses = {
        name: results.values(MLP, name, "cross_entropy", moment, "validation").mean()
        for name in EARLY
    }
    early = min(losses, key=lambda name: float(losses[name]))
    found = effect(results, early, dose, moment)
    a, b = (results.values(MLP, name, "accuracy", moment) for name in (early, dose))
    points = 100 * float((a - b).mean())
    return claim(
        "ours",
        _where(results),
        "the best early profile has a lower loss than the best uniform dose, both chosen by"
        f" validation loss, {LATE_IN_TRAINING[moment]}",
        falls([found]),
        ours=found.value,
        note=f"{early} over {dose} {found}, accuracy {points:+.2f} points; the uniform rates tried"
        " are 0, 0.1, 0.15, 0.2 and 0.3",
    )


# Which objective predicts ------------------------------------------------------------------------


def ranking(results: Results, moment: str) -> dict[str, Effect]:
    """Spearman's correlation of each objective with what the schedules of one mean rate achieve.

    1 where the objective's order is that of the mean test cross-entropies; intervals over seeds.
    Objectives that cannot tell the schedules apart have the value 0. Beside them, as a control, the
    mean place of the noise alone (``PLACE``), the earlier the better.
    """
    cell = results.trial.cell(MLP)
    rates = np.array([cell.arm(name).rates for name in SAME_BUDGET])
    scene = Landscape(mean_field(cell.sizes), rates.shape[1], 0.1, float(rates.max()))
    losses = np.array([results.values(MLP, name, "cross_entropy", moment) for name in SAME_BUDGET])
    worth = {name: sense * scene.values(name, rates) for name, sense in SENSE.items()}
    worth[PLACE] = -(rates @ np.arange(rates.shape[1])) / rates.sum(axis=1)
    seeds = losses.shape[1]
    return {
        name: Effect(*(float(x) for x in bootstrap(_spearman(values, losses), seeds)))
        for name, values in worth.items()
    }


def _spearman(worth: Array, losses: Array) -> Callable[[Array], Array]:
    """Of what each schedule is worth, and minus its mean loss over weighted seeds."""
    ranks = rankdata(np.round(worth, 9))
    ranks = ranks - ranks.mean()
    size = np.sqrt(np.sum(ranks**2))

    def correlation(w: Array) -> Array:
        order = rankdata(-(w @ losses.T), axis=1)
        order -= order.mean(axis=1, keepdims=True)
        spread = size * np.sqrt(np.sum(order**2, axis=1))
        return np.asarray((order @ ranks) / np.where(spread > 0, spread, 1.0))

    return correlation


def _rankings(results: Results) -> list[Claim]:
    final, selected = (ranking(results, moment) for moment in LATE_IN_TRAINING)
    stated = (
        ("xi", "the surrogate depth scale"),
        ("rank-flow", "rank flow"),
        ("reach", "regularization reach"),
        ("noise", "the exact readout noise"),
        ("exposure", "the exact exposure"),
        ("signal", "the exact preservation of signals"),
    )
    claims = [
        claim(
            "ours",
            _where(results),
            f"{words} tells which of {len(SAME_BUDGET)} schedules of one mean rate trains best"
            " (rank correlation with the final loss above 0.8)",
            rises([Effect(*(x - 0.8 for x in final[name]))]),
            ours=final[name].value,
            note=f"Spearman's correlation, 1 is the right order: {_plain(final[name])} at the last"
            f" epoch, {_plain(selected[name])} at the selected one; how early the noise comes, by"
            f" its mean place alone, {_plain(final[PLACE])} and {_plain(selected[PLACE])}",
        )
        for name, words in stated
    ]
    early, signal = ("noise", "exposure", "reach", "rank-flow"), ("signal", "snr", "xi")
    apart = min(final[name].low for name in early) - max(final[name].high for name in signal)
    behind = min(final[name].low for name in signal) - max(final[name].high for name in early)
    listed = "; ".join(f"{n} {_plain(final[n])}, {_plain(selected[n])}" for n in final)
    claims.append(
        claim(
            "ours",
            _where(results),
            "objectives that reward early dropout (noise, exposure, reach, rank flow) rank the"
            " schedules better than those that keep signals (signal, signal to noise, surrogate"
            " depth scale)",
            "confirmed" if apart > 0 else "refuted" if behind > 0 else "undecided",
            ours=apart,
            note="our number is the gap between the intervals of the two groups. Correlations at"
            f" the last and the selected epoch: {listed}",
        )
    )
    return claims


def _plain(one: Effect) -> str:
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


# Sweeps ------------------------------------------------------------------------------------------


def _sweeps(runs: Runs) -> list[Claim]:
    claims = []
    for name in SWEPT:
        results = runs.results(name)
        if results is not None:
            claims.append(_sweep(name, results))
    return claims


def _sweep(name: str, results: Results) -> Claim:
    cells = [cell.name for cell in results.trial.cells]
    final, selected, double = (
        {cell: effect(results, arm, "uniform", moment, cell) for cell in cells}
        for arm, moment in (("step", "final"), ("step", "selected"), ("uniform 2x", "selected"))
    )
    holds = [cell for cell in cells if final[cell].high < 0]
    verdict = falls(final.values())
    seeds = len(results.seeds(cells[0]))
    return claim(
        "both" if name in ("budget", "width") else "ours",
        f"experiments (sweeps, {results.trial.epochs} epochs)",
        f"early dropout (step) has a lower final loss than uniform in the whole sweep of {name}",
        "confirmed in a window" if verdict != "confirmed" and holds else verdict,
        note=f"{seeds} seeds, step over uniform at the last epoch; at the selected epoch; uniform"
        " 2x over uniform there: "
        + "; ".join(f"{cell} {final[cell]}, {selected[cell]}, {double[cell]}" for cell in cells),
    )


# Networks with residual branches -----------------------------------------------------------------


def _transformers(runs: Runs) -> list[Claim]:
    return [*_paper_vit(runs.results(VIT)), _hf_vit(runs.results(HF_VIT))]


def _paper_vit(results: Results | None) -> list[Claim]:
    statement = "early dropout lowers the final loss of vision transformers by 4-7 %"
    full = "depthscale trial --network vit --size paper --data cifar-100 --device cuda"
    if results is None:
        return [claim("both", "experiments (ViT)", statement, "not tested", note=full)]
    where = f"experiments (small ViT, Fashion-MNIST, {len(results.seeds('both'))} paired seeds)"
    linear = effect(results, "linear", "uniform", "final", "both")
    mirrored = {cell: effect(results, "step", "step-late", "final", cell) for cell in BRANCHES}
    return [
        _lowered(
            where,
            statement,
            (0.04, 0.07),
            linear,
            "linear over uniform; the paper's are larger, on CIFAR, of 75 epochs (the command for"
            f" these: {full}). {_over_uniform(results, 'both')}",
        ),
        claim(
            "both",
            where,
            "dropping early helps in the attention branch, in the MLP branch and in both",
            falls(mirrored.values()),
            ours=mirrored["both"].value,
            note="step over its mirror, last epoch: "
            + ", ".join(f"{cell} {one}" for cell, one in mirrored.items()),
        ),
    ]


def _hf_vit(results: Results | None) -> Claim:
    statement = "early dropout (step) has a lower final loss than its mirror in a Hugging Face ViT"
    if results is None:
        where = "experiments (Hugging Face ViT)"
        return claim("ours", where, statement, "not tested", note=command_of(HF_VIT))
    step, linear = (
        effect(results, early, f"{early}-late", "final", HF_VIT) for early in ("step", "linear")
    )
    seeds = len(results.seeds(HF_VIT))
    return claim(
        "ours",
        f"experiments (small Hugging Face ViT, Fashion-MNIST, {seeds} paired seeds)",
        statement,
        falls([step]),
        ours=step.value,
        note=f"step over its mirror {step}, linear over its {linear}, last epoch."
        f" {_over_uniform(results, HF_VIT)}",
    )


def _over_uniform(results: Results, cell: str) -> str:
    """The arms of ``BRANCHED`` over uniform, in words."""
    final, selected = (
        {arm: effect(results, arm, "uniform", moment, cell) for arm in BRANCHED}
        for moment in LATE_IN_TRAINING
    )
    listed = "; ".join(f"{arm} {final[arm]}, {selected[arm]}" for arm in final if arm != "uniform")
    return f"Over uniform at the last and the selected epoch: {listed}"


def _stochastic_depth(runs: Runs) -> list[Claim]:
    results = runs.results(RESNET)
    if results is None:
        return []
    rule = effect(results, "linear-late", "linear", "final", RESNET)
    return [
        claim(
            "ours",
            f"experiments (residual CNN, {len(results.seeds(RESNET))} paired seeds)",
            "stochastic depth that rises with depth, the rule of timm, has a higher final loss than"
            " its mirror",
            rises([rule]),
            ours=rule.value,
            note=f"linear-late over linear {rule}. {_over_uniform(results, RESNET)}",
        )
    ]


# Figures -----------------------------------------------------------------------------------------


def comparisons(results: Results) -> tuple[Difference, ...]:
    """Every comparison of a trial, with Holm's rule over all of them."""
    return compare(results)


def _arms(results: Results, cell: str, path: Any) -> Any:
    from depthscale.report.trials import plot_arms

    return plot_arms(results, cell, comparisons(results), path)


def trained_figures(runs: Runs | None = None) -> dict[str, Callable[[Any], Any]]:
    """Figures of the trained networks by file name, those for which there are runs."""
    from depthscale.report.trials import plot_places, plot_ranking, plot_sweeps

    runs = Runs() if runs is None else runs
    found: dict[str, Callable[[Any], Any]] = {}
    for name, (cell, file) in DRAWN.items():
        if (one := runs.results(name)) is not None:
            found[file] = partial(_arms, one, cell)
    if (results := runs.results(MLP)) is not None:
        found["places.svg"] = lambda path: plot_places(results, MLP, path)
        found["objectives.svg"] = lambda path: plot_ranking(
            {moment: ranking(results, moment) for moment in LATE_IN_TRAINING}, path
        )
    sweeps = {name: runs.results(name) for name in (*SWEPT, VIT)}
    known = {name: results for name, results in sweeps.items() if results is not None}
    if known:
        found["sweeps.svg"] = lambda path: plot_sweeps(known, path)
    return found

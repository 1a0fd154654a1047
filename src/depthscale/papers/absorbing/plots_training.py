"""The figures on training: the kernel's window, and finite networks in and out of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depthscale.papers.absorbing.runs import Runs
from depthscale.papers.absorbing.training import (
    KINKED,
    SMOOTH,
    line_reach,
    line_scores,
    phase_scores,
)
from depthscale.papers.absorbing.training_runs import (
    BRIGHTER,
    DETUNINGS,
    HOPS,
    STEPS,
    WIDTHS,
    at_reaches,
    brightened,
    descent,
)
from depthscale.report.canvas import COLOURS, GUIDE, MARKERS, finish, page, sequence, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def kernel_window(runs: Runs, target: Path | None = None) -> Figure:
    """Accuracy of kernel regression: one curve a class, one window for any data."""
    with style():
        figure = page((8.8, 3.5))
        left, right = figure.subplots(1, 2)
        for group, colour, letter in (
            (SMOOTH, COLOURS[0], r"\kappa L"),
            (KINKED, COLOURS[1], "aL/2"),
        ):
            for k, (name, bias) in enumerate(group):
                scan = at_reaches(runs, name, bias)
                left.plot(
                    scan.reach, scan.accuracy.mean(axis=1), color=colour, marker=MARKERS[k],
                    linewidth=0.8, label=rf"{name}, $\sigma_b$ = {bias:g} (${letter}$)",
                )  # fmt: skip
        left.set_xlabel(r"stretch $\beta a L$: $\kappa L$ if smooth, $aL/2$ if kinked")
        left.set_title("critical networks, infinitely wide")
        left.legend(loc="lower left")
        for k, brighter in enumerate(BRIGHTER):
            window, rho = brightened(runs, brighter)
            right.plot(
                window.stretches * rho, window.accuracy, color=sequence(len(BRIGHTER))[k],
                marker=MARKERS[k], label=rf"median $\rho_0$ = {rho:.2g}",
            )  # fmt: skip
        right.set_xlabel(r"$X = \kappa L \rho_0$ of the median pair")
        right.set_title("digits, brightened until they nearly coincide")
        right.legend(loc="lower left")
        for axes in (left, right):
            _scored(axes, f"test accuracy, {STEPS:g} steps")
            axes.set_xscale("log")
        return finish(figure, target)


def trained_networks(runs: Runs, target: Path | None = None) -> Figure:
    """Finite tanh networks off and along the critical line, and their approach to the kernel."""
    with style():
        figure = page((10.2, 3.4))
        off, along, width = figure.subplots(1, 3)
        scores = phase_scores(runs)
        for k, row in enumerate(scores):
            off.plot(DETUNINGS, row, color=COLOURS[k], marker=MARKERS[k], label=f"{HOPS[k]} hops")
        off.axvline(0, color=GUIDE, linestyle=":", linewidth=1)
        off.set_xlabel(r"$\sigma_w$ less its critical value")
        off.set_title("off the critical line: necessary")
        off.legend(loc="lower center")
        for k, (brighter, name) in enumerate(((0.0, "digits"), (BRIGHTER[-1], "100 times closer"))):
            along.plot(
                line_reach(), line_scores(runs, brighter), color=COLOURS[k], marker=MARKERS[k],
                label=name,
            )  # fmt: skip
        along.set_xscale("log")
        along.set_xlabel(rf"$\kappa L$, $L$ = {HOPS[1]}")
        along.set_title("along it: not sufficient")
        along.legend(loc="lower center")
        widths = np.array(WIDTHS[: 2 if runs.quick else 3])
        found = [descent(runs, int(n)) for n in widths]
        width.plot(
            widths, [d.network for d in found], color=COLOURS[0], marker="o", label="networks"
        )
        width.axhline(found[0].kernel, color=COLOURS[1], label="kernel")
        width.set_xscale("log", base=2)
        width.set_xticks(widths, [str(n) for n in widths])
        width.set_xlabel("width")
        width.set_title(f"gradient descent, {HOPS[1]} hops")
        width.legend(loc="lower right")
        for axes in (off, along, width):
            _scored(axes, "test accuracy")
        return finish(figure, target)


def _scored(axes: Axes, label: str) -> None:
    axes.set_ylim(0, 1.02)
    axes.set_ylabel(label)

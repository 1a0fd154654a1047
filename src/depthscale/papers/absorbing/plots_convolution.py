"""Figures of convolutional networks: exponents by window, decays, and their controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.finite.lattice.result import LatticeRun
from depthscale.papers.absorbing import convolution, weather
from depthscale.papers.absorbing.runs import Runs
from depthscale.report.canvas import (
    COLOURS,
    GUIDE,
    MARKERS,
    few_ticks,
    finish,
    free_corner,
    page,
    sequence,
    style,
)
from depthscale.scaling.collapse import Collapse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Windows = Sequence[tuple[tuple[int, int], Collapse]]

SIZE = (9.6, 3.5)
DELTA, EFFECTIVE = r"$\delta$", r"$-d\,\ln\rho\,/\,d\,\ln l$"


def windows(runs: Runs, target: Path) -> Figure:
    """Exponents by window of depth: shared weights, and percolation with weather and without."""
    ranges = convolution.windows_of(runs, convolution.WINDOWS)
    kinds = (
        ("networks, shared weights", [(w, convolution.collapsed(runs, w)) for w in ranges]),
        ("percolation with weather", weather.by_window(runs, True)),
        ("percolation without", weather.by_window(runs, False)),
    )
    with style():
        figure = page(SIZE)
        for axes, name, known, text in zip(
            figure.subplots(1, 2),
            ("delta", "b"),
            (convolution.DELTA, convolution.INVERSE_NU),
            (DELTA, r"$1/\nu_\parallel$"),
            strict=True,
        ):
            axes.axhline(known, color=GUIDE, lw=0.8, ls="--", label="directed percolation")
            for k, (label, found) in enumerate(kinds):
                _by_window(axes, found, name, k, label)
            axes.set_xticks(range(len(ranges)), [f"{low} to {high}" for low, high in ranges])
            axes.set_xlim(-0.4, len(ranges) - 0.6)
            axes.set_xlabel("window of depth, or of time")
            axes.set_ylabel(text)
            axes.set_title(f"{text} by window")
            _hold(axes, [c[name].value for _, found in kinds for _, c in found], known)
        _legend(figure.axes[0], (0.5, 0.3))
        return finish(figure, target)


def _by_window(axes: Axes, found: Windows, name: str, index: int, label: str) -> None:
    places = np.arange(len(found)) + 0.09 * (index - 1)
    values, errors = np.array([(c[name].value, c[name].error) for _, c in found]).T
    axes.errorbar(
        places,
        values,
        np.where(np.isfinite(errors), errors, 0.0),
        fmt=MARKERS[index] + "-",
        color=COLOURS[index],
        lw=1,
        label=label,
    )


def _hold(axes: Axes, values: Sequence[float], known: float) -> None:
    """Limits that show the values: errors without bound do not set them."""
    shown = np.array([x for x in values if np.isfinite(x)] + [known, 0.0])
    low, high = shown.min(), shown.max()
    room = 0.35 * max(high - low, 0.1)
    axes.set_ylim(low - room * (low < 0), high + room)


def decays(runs: Runs, target: Path) -> Figure:
    """Shared weights: decays, their effective exponents, and the width of ``ln rho``."""
    with style():
        figure = page((10.4, 3.5))
        left, middle, right = figure.subplots(1, 3)
        found = convolution.shared(runs)
        _decays(left, found)
        left.set_title("shared weights, ring of 256")
        _effective(middle, found, "slopes", convolution.DELTA, "directed percolation")
        _broadening(right, runs)
        return finish(figure, target)


def local(runs: Runs, target: Path) -> Figure:
    """Locally connected: decays, their effective exponents, and the collapse of a late window."""
    with style():
        figure = page((10.4, 3.5))
        left, middle, right = figure.subplots(1, 3)
        found = convolution.local(runs)
        _decays(left, found)
        left.set_title(f"own weights, ring of {found[0].sites:,}")
        _effective(middle, found, "slopes", 1.15, "multiplicative noise")
        ranges = convolution.windows_of(runs, convolution.LOCAL_WINDOWS)
        _collapse(right, convolution.collapsed(runs, ranges[-1], "local"), ranges[-1])
        return finish(figure, target)


def plane(runs: Runs, target: Path) -> Figure:
    """Two dimensions: effective exponents with shared weights and with their own."""
    with style():
        figure = page((9.6, 3.5))
        known = {
            "shared": (convolution.DELTA_2D, "directed percolation"),
            "local": (1.0, "mean field"),
        }
        for axes, (sharing, (value, text)) in zip(
            figure.subplots(1, 2), known.items(), strict=True
        ):
            found = convolution.plane(runs, sharing)
            edge = round(found[0].sites ** 0.5)
            words = "shared" if sharing == "shared" else "own"
            _effective(axes, found, f"{words} weights, {edge} x {edge}", value, text)
        return finish(figure, target)


def _decays(axes: Axes, found: Sequence[LatticeRun]) -> None:
    x, y = [], []
    for run, colour in zip(found, sequence(len(found)), strict=True):
        mean, error = run.mean(), run.sem()
        shown = (run.depths > 0) & np.isfinite(mean) & (mean > 0)
        depths, mean, error = run.depths[shown], mean[shown], error[shown]
        axes.plot(depths, mean, color=colour, lw=1.2, label=_sigma(run))
        low = np.maximum(mean - np.nan_to_num(error), mean / 10)  # a log axis has no 0
        axes.fill_between(depths, low, mean + np.nan_to_num(error), color=colour, alpha=0.2, lw=0)
        x.append(depths)
        y.append(mean)
    _logs(axes)
    axes.set_xlabel("layer $l$")
    axes.set_ylabel(r"mean $\rho$")
    few_ticks(axes.xaxis)
    few_ticks(axes.yaxis)
    corner: Any = free_corner(axes, np.concatenate(x), np.concatenate(y), (0.5, 0.45))
    axes.legend(
        title=r"$\sigma_w$", ncols=2, loc=" ".join(corner), alignment="left", fontsize=7,
        handlelength=1.2, columnspacing=0.8,
    )  # fmt: skip


def _effective(axes: Axes, found: Sequence[LatticeRun], what: str, known: float, text: str) -> None:
    """Of pairs of depths a factor of two apart."""
    values = []
    for run, colour in zip(found, sequence(len(found)), strict=True):
        local_ = run.effective_exponent()
        shown = np.isfinite(local_.value) & (local_.depth > 0)
        axes.errorbar(
            local_.depth[shown],
            local_.value[shown],
            np.nan_to_num(local_.error[shown]),
            color=colour,
            lw=1,
            elinewidth=0.5,
            label=_sigma(run),
        )
        values.append(local_.value[shown])
    axes.axhline(known, color="black", lw=0.9, ls="--")
    low, high = np.quantile(np.concatenate([*values, [known]]), [0.02, 0.9])
    low, high = min(low, -0.1 * known), max(high, 1.3 * known)
    axes.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
    axes.set_xscale("log")
    few_ticks(axes.xaxis)
    axes.set_xlabel("layer $l$")
    axes.set_ylabel(EFFECTIVE)
    axes.set_title(f"{what}; dashed: {text}")
    axes.legend(
        title=r"$\sigma_w$", ncols=3, loc="upper left", alignment="left", fontsize=7,
        handlelength=1.2, columnspacing=0.8,
    )  # fmt: skip


def _broadening(axes: Axes, runs: Runs) -> None:
    depths, width, error = convolution.broadening(runs)
    shown = np.isfinite(width) & (width > 0)
    axes.errorbar(depths[shown], width[shown], error[shown], fmt="o-", color=COLOURS[1], lw=1)
    _logs(axes)
    axes.set_xlabel("layer $l$")
    axes.set_ylabel(r"sd of $\ln\rho$ between networks")
    sigma = convolution.nearest(convolution.shared(runs), 1.90).about["sigma_w"]
    axes.set_title(rf"they drift apart, $\sigma_w$ = {sigma:g}")
    few_ticks(axes.xaxis)
    few_ticks(axes.yaxis)


def _collapse(axes: Axes, found: Collapse, window: tuple[int, int]) -> None:
    (x,), y, error = found.scaled()
    depths = found.points.columns["depth"]
    own = np.unique(depths)
    for depth, colour in zip(own, sequence(len(own)), strict=True):
        one = (depths == depth) & (y > 0)
        axes.errorbar(
            x[one], y[one], np.minimum(error[one], 0.9 * y[one]), color=colour, fmt=".", ms=3,
            elinewidth=0.6, label=f"{depth:.0f}" if depth in own[[0, -1]] else None,
        )  # fmt: skip
    axes.set_yscale("log")
    few_ticks(axes.yaxis)
    axes.set_xlabel(r"$(\sigma_w-\sigma_{wc})\,l^{1/\nu_\parallel}$")
    axes.set_ylabel(r"$\rho\,l^{\delta}$")
    delta = found["delta"]
    axes.set_title(rf"layers {window[0]} to {window[1]}: $\delta$ = {delta.value:.2f}"
                   f"({delta.error:.2f})")  # fmt: skip
    corner: Any = free_corner(axes, x[y > 0], y[y > 0], (0.3, 0.25))
    axes.legend(title="layer", loc=" ".join(corner), alignment="left")


def _legend(axes: Axes, size: tuple[float, float]) -> None:
    """In the corner with the fewest ends of bars."""
    ends = [
        np.asarray(line.get_xydata(), dtype=float)
        for line in axes.get_lines()
        if line.get_transform() == axes.transData
    ]
    points = np.concatenate(ends) if ends else np.empty((0, 2))
    corner: Any = free_corner(axes, points[:, 0], points[:, 1], size)
    axes.legend(loc=" ".join(corner))


def _logs(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")


def _sigma(run: LatticeRun) -> str:
    return f"{run.about['sigma_w']:g}"

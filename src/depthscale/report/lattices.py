"""Figures of random convolutional networks: decay and its effective exponent, or spreading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.report.canvas import GUIDE, few_ticks, finish, page, sequence, style
from depthscale.report.words import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIRECTED_PERCOLATION = {1: 0.159464, 2: 0.4505}
"""Its decay exponent delta in 1+1 dimensions (Jensen 1999) and in 2+1 (Voigt and Ziff 1997)."""
MOST_NAMED = 8


def plot_lattices(runs: Sequence[Mapping[str, Any]], target: str | Path | None = None) -> Figure:
    """Draw runs that differ in sigma_w.

    Args:
        runs: ``to_dict()`` of each.
        target: file, or None.
    """
    spreading = "survival" in runs[0]
    with style():
        figure = page((9.6, 3.2) if spreading else (7.6, 3.2))
        panels = figure.subplots(1, 3 if spreading else 2)
        (_spreading if spreading else _decay)(panels, runs)
        figure.suptitle(_title(runs[0]), fontsize="medium")
    return finish(figure, target)


def _decay(panels: Sequence[Axes], runs: Sequence[Mapping[str, Any]]) -> None:
    left, right = panels
    for run, colour in zip(runs, sequence(len(runs)), strict=True):
        _curve(left, run, "rho", colour, f"{run['settings']['sigma_w']:.4g}")
        found = run["effective_exponent"]
        x, y, error = (_floats(found[name]) for name in ("depth", "value", "error"))
        right.plot(x, y, color=colour)
        right.fill_between(x, y - error, y + error, color=colour, alpha=0.2, linewidth=0)
    left.set(xlabel="layer $l$", ylabel=r"order parameter $\rho$")
    _logarithmic(left)
    left.legend(title=r"$\sigma_w$", loc="best", **_entries(left))
    axes = len(runs[0]["settings"]["size"])
    right.axhline(
        DIRECTED_PERCOLATION[axes], color=GUIDE, linewidth=0.8, linestyle="--",
        label=f"directed percolation in {axes}+1",
    )  # fmt: skip
    right.legend(loc="best")
    if any(run["effective_exponent"]["depth"] for run in runs):
        right.set_xscale("log")
    right.set(xlabel="layer $l$", ylabel=r"$-\mathrm{d}\,\ln\rho\,/\,\mathrm{d}\,\ln l$")


def _spreading(panels: Sequence[Axes], runs: Sequence[Mapping[str, Any]]) -> None:
    for run, colour in zip(runs, sequence(len(runs)), strict=True):
        label = f"{run['settings']['sigma_w']:.4g}"
        for axes, name in zip(panels, ("survival", "active_sites", "spread"), strict=True):
            _curve(axes, run, name, colour, label)
    labels = ("surviving share $P$", "active sites $N$", "mean square distance $R^2$")
    for axes, label in zip(panels, labels, strict=True):
        axes.set(xlabel="layer $l$", ylabel=label)
        _logarithmic(axes)
    panels[0].legend(title=r"$\sigma_w$", loc="best", **_entries(panels[0]))


def _curve(axes: Axes, run: Mapping[str, Any], name: str, colour: Any, label: str) -> None:
    """A mean by depth behind the start, with a band of one standard error where there is one."""
    x, y = _floats(run["depth"]), _floats(run[name])
    shown = (x > 0) & (y > 0)
    marker = "o" if np.count_nonzero(shown) == 1 else ""
    axes.plot(x[shown], y[shown], color=colour, label=label, marker=marker)
    if f"{name}_error" in run:
        error = _floats(run[f"{name}_error"])
        low = np.maximum(y - error, y / 10)
        axes.fill_between(
            x[shown], low[shown], (y + error)[shown], color=colour, alpha=0.2, linewidth=0
        )


def _logarithmic(axes: Axes) -> None:
    """Logarithmic axes, where there is anything to show on them."""
    if any(np.size(line.get_xdata()) for line in axes.lines):
        axes.set(xscale="log", yscale="log")
        few_ticks(axes.yaxis)


def _entries(axes: Axes) -> dict[str, Any]:
    """Handles and names of a legend, of which a few stand for many."""
    handles, names = axes.get_legend_handles_labels()
    step = -(-len(names) // MOST_NAMED)
    return {"handles": handles[::step], "labels": names[::step], "title_fontsize": 8}


def _floats(values: Sequence[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _title(run: Mapping[str, Any]) -> str:
    about = run["settings"]
    size = r" $\times$ ".join(map(str, about["size"]))
    sharing = about["sharing"]
    shared = sharing if isinstance(sharing, str) else f"sharing {sharing}"
    return (
        f"{clean(about['activation'])}, {size} sites, {about['channels']} channels, kernel"
        f" {about['kernel']}, {shared} weights, $\\sigma_b$ = {about['sigma_b']:g}"
    )

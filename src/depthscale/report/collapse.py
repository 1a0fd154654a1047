"""The figure of a collapse: data, master curve, residuals, and what leaving points out does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.report.canvas import COLOURS, GUIDE, MARKERS, finish, page, sequence, style
from depthscale.report.words import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from depthscale.scaling.collapse import Collapse

MOST_NAMED = 8
"""Curves that a legend names; of more the first, the last and some between."""


def plot_collapse(found: Collapse, target: str | Path | None = None) -> Figure:
    """Data, collapse, residuals and stability of every free parameter.

    Args:
        found: the answer of ``collapse``.
        target: file, or None.
    """
    names = found.names[:4]
    with style():
        figure = page((9.4, 4.6 + 1.5 * bool(names)))
        grid = figure.add_gridspec(3, 6, height_ratios=(2.4, 1.0, 1.5))
        data, scaled = figure.add_subplot(grid[0:2, 0:3]), figure.add_subplot(grid[0, 3:6])
        left = figure.add_subplot(grid[1, 3:6], sharex=scaled)
        _data(data, found)
        _scaled(scaled, left, found)
        if names:
            room = grid[2, :].subgridspec(1, len(names))
            for k, name in enumerate(names):
                _stability(figure.add_subplot(room[k]), found, name, k == 0)
        figure.suptitle(clean(found.form.text), fontsize="medium")
    return finish(figure, target)


def _curves(found: Collapse) -> list[tuple[float, Any, Any]]:
    """Size, rows and colour of every curve."""
    labels = found.points.columns[found.points.size]
    sizes = found.points.sizes
    return [(s, labels == s, c) for s, c in zip(sizes, sequence(len(sizes)), strict=True)]


def _named(found: Collapse) -> set[float]:
    sizes = found.points.sizes
    picked = np.unique(np.linspace(0, len(sizes) - 1, min(MOST_NAMED, len(sizes))).astype(int))
    return set(sizes[picked].tolist())


def _data(axes: Axes, found: Collapse) -> None:
    points = found.points
    x = points.columns[points.x]
    named = _named(found)
    for k, (size, rows, colour) in enumerate(_curves(found)):
        order = np.argsort(x[rows])
        axes.errorbar(
            x[rows][order],
            points.y[rows][order],
            points.error[rows][order] if points.errors_known else None,
            color=colour,
            marker=MARKERS[k % len(MARKERS)],
            markersize=3,
            linewidth=0.6,
            elinewidth=0.8,
            label=f"{clean(points.size)} = {size:g}" if size in named else None,
        )
    axes.set(xlabel=clean(points.x), ylabel=clean(points.name), title="data")
    _wide(axes, "y", points.y)
    _wide(axes, "x", x)
    axes.legend(loc="best", handlelength=1.2)


def _scaled(axes: Axes, below: Axes, found: Collapse) -> None:
    arguments, y, error = found.scaled()
    x = arguments[0]
    residual = found.fit.trial.residual[: len(y)]
    for k, (_, rows, colour) in enumerate(_curves(found)):
        how: dict[str, Any] = {"color": colour, "marker": MARKERS[k % len(MARKERS)]}
        axes.errorbar(
            x[rows],
            y[rows],
            error[rows] if found.points.errors_known else None,
            linestyle="none",
            markersize=3,
            elinewidth=0.8,
            **how,
        )
        below.plot(x[rows], residual[rows], linestyle="none", markersize=2.5, **how)
    if len(arguments) == 1:
        _curve(axes, found, x)
    below.axhline(0, color=GUIDE, linewidth=0.8)
    power = clean(found.form.prefactor_text)
    name = clean(found.points.name)
    axes.set(ylabel=name if power == "1" else f"{name} / ({power})", title="collapse")
    below.set(xlabel=clean(found.form.arguments_text[0]), ylabel="residual / error")
    axes.tick_params(labelbottom=False)
    _wide(axes, "y", y)
    if _wide(axes, "x", x):
        below.set_xscale("log")


def _curve(axes: Axes, found: Collapse, x: np.ndarray) -> None:
    """The master curve at the parameters of the best fit."""
    place = found.fit.problem.scaled(found.fit.free).arguments[0]
    wide = place.min() > 0 and place.max() > 10 * place.min()
    line = np.geomspace if wide else np.linspace
    at = line(place.min(), place.max(), 300)
    axes.plot(at, found.fit.curve(at), color=COLOURS[-1], linewidth=0.9, zorder=0)


def _wide(axes: Axes, which: str, values: np.ndarray) -> bool:
    """A logarithmic axis for positive numbers over more than a decade."""
    wide = bool(values.min() > 0 and values.max() > 10 * values.min())
    if wide:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    return wide


def _stability(axes: Axes, found: Collapse, name: str, labelled: bool) -> None:
    own = found.parameters[name]
    windows = [*found.stability, *found.corrected]
    if np.isfinite([own.low, own.high]).all():
        axes.axvspan(own.low, own.high, color=COLOURS[5], alpha=0.3, linewidth=0)
    axes.axvline(own.value, color=COLOURS[0], linewidth=1)
    drawn = list(enumerate(windows))
    groups = (
        (COLOURS[0], "o", [(k, w) for k, w in drawn if k < len(found.stability)]),
        (COLOURS[1], "s", [(k, w) for k, w in drawn if k >= len(found.stability)]),
    )
    for colour, marker, rows in groups:
        axes.errorbar(
            [w.values[name] for _, w in rows],
            [-k for k, _ in rows],
            xerr=np.nan_to_num([w.errors[name] for _, w in rows], posinf=0.0),
            linestyle="none",
            color=colour,
            marker=marker,
            markersize=3,
            elinewidth=0.9,
        )
    error = own.error if np.isfinite(own.error) else abs(own.value)
    reach = [error, *(abs(w.values[name] - own.value) for w in windows)]
    errors = sorted(w.errors[name] for w in windows if np.isfinite(w.errors[name])) or [error]
    half = 1.2 * max(*reach, errors[len(errors) // 2], 2 * error, 1e-12 * abs(own.value), 1e-300)
    axes.set(xlim=(own.value - half, own.value + half), ylim=(-len(windows) + 0.4, 0.6))
    axes.set_yticks([-k for k, _ in drawn], [clean(w.what) if labelled else "" for w in windows])
    axes.tick_params(axis="y", labelsize=7, length=0)
    axes.set_title(clean(name))
    axes.locator_params(axis="x", nbins=4)

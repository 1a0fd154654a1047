"""Figures of the stochastic limits: laws at given times, quantiles over time or over layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.report.canvas import COLOURS, GUIDE, finish, page, sequence, style
from depthscale.report.words import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "rho": r"correlation $\rho$",
    "eps": r"misalignment $\varepsilon = 1 - \rho$",
    "log_eps": r"$\log \varepsilon$",
    "z": r"$z = \mathrm{artanh}\,\rho$",
    "V": "mean square $V$",
    "log_V": r"$\log V$",
    "log_q": r"$\log q_t$",
    "q": "$q_t$",
    "log_y": r"$\log y$",
    "y": "$y$",
    "x": r"$x = y^{-\beta}$",
}
TALLEST = 6
"""The highest density drawn, in those of a flat law over the drawn range."""


def plot_limit(
    payload: Mapping[str, Any],
    densities: Mapping[str, Any],
    fan: Sequence[Mapping[str, Any]],
    target: str | Path | None = None,
) -> Figure:
    """Densities of the reading at the times asked for, and its quantiles until the last of them.

    Args:
        payload: the answer of ``depthscale limit``.
        densities: ``x``, [point], and ``density``, [time, point].
        fan: rows of ``time`` and ``quantiles`` by level.
        target: file, or None.
    """
    name = LABELS.get(payload["reading"], payload["reading"])
    with style():
        figure = page((7.6, 3.2))
        left, right = figure.subplots(1, 2)
        _densities(left, payload, densities)
        left.set(xlabel=name, ylabel="probability density")
        clock = "layer/depth" if payload["kind"] == "residual" else "depth/width"
        times = [row["time"] for row in fan]
        rows = [[_number(v) for v in row["quantiles"].values()] for row in fan]
        levels = [float(level) for level in payload["quantiles"]]
        draw_fan(right, np.array(times), levels, np.array(rows))
        right.set(xlabel=f"{clock} $t$", ylabel=name, xlim=(0, None))
        right.legend(loc="best")
        figure.suptitle(payload["title"], fontsize="medium")
    return finish(figure, target)


def plot_band(payload: Mapping[str, Any], target: str | Path | None = None) -> Figure:
    """Quantiles of the correlation by layer.

    Args:
        payload: the answer of ``depthscale band``.
        target: file, or None.
    """
    with style():
        figure = page((4.8, 3.2))
        _band(figure.subplots(), payload)
        figure.suptitle(_network(payload), fontsize="medium")
    return finish(figure, target)


def plot_shape(payload: Mapping[str, Any], target: str | Path | None = None) -> Figure:
    """The band of a shaped network, with infinite width and the target beside it.

    Args:
        payload: the answer of ``depthscale shape``.
        target: file, or None.
    """
    with style():
        figure = page((6.0, 3.2))
        axes = figure.subplots()
        axes.axhline(payload["target"], color=GUIDE, linewidth=0.8, linestyle=":", label="target")
        layers = range(len(payload["correlation"]))
        axes.plot(layers, payload["correlation"], color=COLOURS[1], linestyle="--",
            label="infinite width")  # fmt: skip
        if payload["band"] is not None:
            band = payload["band"]
            draw_fan(axes, np.array(band["layers"]), band["levels"], np.array(band["rho"]))
        axes.set(xlabel="layer", ylabel=LABELS["rho"], xlim=(0, payload["depth"]))
        figure.legend(loc="outside right upper")
        width = "infinite width" if payload["width"] is None else f"width {payload['width']}"
        title = f"{clean(payload['activation'])}, method {payload['method']}, {width}"
        figure.suptitle(title, fontsize="medium")
    return finish(figure, target)


def _band(axes: Axes, payload: Mapping[str, Any]) -> None:
    quantiles = np.array(payload["rho"])
    draw_fan(axes, np.array(payload["layers"]), payload["levels"], quantiles)
    axes.set(xlabel="layer", ylabel=LABELS["rho"], xlim=(0, payload["depth"]))
    axes.legend(loc="best")


def _network(payload: Mapping[str, Any]) -> str:
    widths = sorted({payload["widths"][0], payload["widths"][-1]})
    return f"{clean(payload['activation'])}, width {' to '.join(map(str, widths))}"


def _densities(axes: Axes, payload: Mapping[str, Any], densities: Mapping[str, Any]) -> None:
    x = np.array(densities["x"])
    times = [row["time"] for row in payload["times"]]
    top = 0.0
    for time, row, colour in zip(times, densities["density"], sequence(len(times)), strict=True):
        if x[0] == x[-1]:
            axes.axvline(x[0], color=colour, label=f"$t = {time:g}$")
            continue
        values = np.array(row)
        axes.plot(x, values, color=colour, label=f"$t = {time:g}$")
        top = max(top, float(values.max()))
    if top > 0:
        axes.set_ylim(0, 1.06 * min(top, TALLEST / (x[-1] - x[0])))
    axes.legend(loc="best")


def draw_fan(
    axes: Axes, x: np.ndarray, levels: Sequence[float], quantiles: np.ndarray, colour: str = ""
) -> None:
    """Quantiles ``[x, level]`` as bands between levels that mirror each other, and lines."""
    colour = colour or COLOURS[0]
    count = len(levels)
    for k in range(count // 2):
        share = levels[-1 - k] - levels[k]
        axes.fill_between(
            x, quantiles[:, k], quantiles[:, -1 - k], color=colour, linewidth=0,
            alpha=0.15 + 0.2 * k / max(count // 2, 1), label=f"{100 * share:g} %",
        )  # fmt: skip
    if count % 2:
        middle = quantiles[:, count // 2]
        axes.plot(x, middle, color=colour, label=_line(levels[count // 2]))
    else:
        axes.plot(x, quantiles[:, 0], color=GUIDE, linewidth=0.6)


def _line(level: float) -> str:
    return "median" if level == 0.5 else f"{100 * level:g} % quantile"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else np.nan

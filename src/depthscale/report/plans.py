"""The figure of a plan: where the data's kernel learns, and the depths this leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.answers import InputError
from depthscale.report.canvas import COLOURS, GUIDE, PALE, finish, page, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED = COLOURS[:2]


def plot_plan(payload: Mapping[str, Any], target: str | Path | None = None) -> Figure:
    """Draw accuracy by stretch with the window, and depth by bias along the critical line.

    Raises
    ------
    InputError
        There is no window to draw, with the reason.
    """
    if payload["window"] is None:
        raise InputError(f"there is no plan to draw: {payload['reason']}")
    measured, line = bool(payload["window"]["accuracy"]), len(payload["line"]) > 1
    panels = [draw for draw, there in ((_accuracy, measured), (_depths, line)) if there]
    panels = panels or [_depths]
    with style():
        figure = page((4.2 * len(panels), 3.2))
        for axes, draw in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            draw(axes, payload)
        return finish(figure, target)


def _accuracy(axes: Axes, payload: Mapping[str, Any]) -> None:
    window = payload["window"]
    x, y = np.array(window["stretches"]), np.array(window["accuracy"])
    low, high = max(window["low"], x[0]), window["high"] or x[-1]
    axes.axvspan(low, high, color=PALE, alpha=0.5, linewidth=0)
    axes.plot(x, y, color=BLUE, marker="o", markersize=3)
    axes.axhline(y.max() - window["loss"], color=GUIDE, linestyle=":", linewidth=1)
    if payload["stretch"] is not None:
        axes.axvline(payload["stretch"], color=RED, linewidth=1.2)
        axes.annotate(
            f" {payload['depth']} hops", (payload["stretch"], 0.03), color=RED, fontsize=8,
            xycoords=("data", "axes fraction"),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    axes.set_xlabel(r"stretch $\beta a L$")
    axes.set_ylabel("accuracy of the kernel")
    axes.set_title(f"the window of {_short(payload['data']['name'])}")


def _depths(axes: Axes, payload: Mapping[str, Any]) -> None:
    line = payload["line"] or [
        {"sigma_b": payload["sigma_b"], "shallowest": 1.0, "deepest": None}
        if payload["depth_window"] is None
        else {
            "sigma_b": payload["sigma_b"],
            "shallowest": payload["depth_window"][0],
            "deepest": payload["depth_window"][1],
        }
    ]
    bias = np.array([point["sigma_b"] for point in line])
    top = 1e5
    low = np.array([max(point["shallowest"], 1.0) for point in line])
    high = np.array([top if p["deepest"] is None else max(p["deepest"], 1.0) for p in line])
    if len(line) > 1:
        order = np.argsort(bias)
        axes.fill_between(bias[order], low[order], high[order], color=PALE, alpha=0.5, linewidth=0)
        for ends, name in ((low, "shallowest"), (high, "deepest")):
            axes.plot(bias[order], ends[order], color=GUIDE, linewidth=1)
            axes.annotate(
                name, (bias[order][len(order) // 3], ends[order][len(order) // 3]), fontsize=8,
                xytext=(4, 4), textcoords="offset points", color=GUIDE,
            )  # fmt: skip
        axes.set_xscale("log")
    else:
        axes.vlines(bias, low, high, color=GUIDE, linewidth=3)
    if payload["depth"] is not None:
        axes.plot([payload["sigma_b"]], [payload["depth"]], "o", color=RED, markersize=6)
    axes.set_yscale("log")
    axes.set_xlabel(r"$\sigma_b$ on the critical line")
    axes.set_ylabel("hops")
    axes.set_title(f"depths for {payload['activation']}")


def _short(name: str) -> str:
    return name if len(name) < 32 else name[:29] + "..."

"""The figure of a simulation: bands of random networks, layer by layer, against theory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.report.canvas import COLOURS, GUIDE, few_ticks, finish, page, style
from depthscale.report.words import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN = 250 * math.log(10)  # logarithms beyond are drawn as such, before float64 ends
POINTS = 16  # means with their errors
FEW_DECADES = (1.3, 2.6)  # of data, where powers of ten alone would be too few ticks
CROWDED = 200  # layers from which lines are thin
SHOWN = 40.0  # decades that an axis spans below its top, where values underflow


def plot_simulation(payload: Mapping[str, Any], target: str | Path | None = None) -> Figure:
    """Length, misalignment and, where there are any, gradients of a pair, against theory.

    Bands are 5 to 95 % of the networks and lines their medians, points are means with standard
    errors; of ``grad_ab``, which has both signs, the line is the geometric mean of its size and the
    band one standard deviation of the logarithm about it. Black lines are theory, first order
    as far as it is reliable.

    Args:
        payload: what ``depthscale simulate --json`` prints.
        target: a file (.svg, .png or .pdf), or None.

    Raises:
        InputError: an unknown file type.
    """
    backward = payload["grad_aa"] is not None
    with style():
        figure = page((8.2, 8.2 if backward else 4.0))
        grid = figure.subplots(1 + backward, 2, squeeze=False)
        _lengths(grid[0, 0], payload)
        _misalignments(grid[0, 1], payload)
        if backward:
            _gradients(grid[1, 0], payload)
            _products(grid[1, 1], payload)
        figure.suptitle(_title(payload["settings"]), fontsize="medium")
    return finish(figure, target)


def _title(settings: Mapping[str, Any]) -> str:
    least, most = min(settings["widths"]), max(settings["widths"])
    drop = np.atleast_1d(settings["drop"])
    parts = [
        clean(settings["activation"]),
        rf"$\sigma_w = {settings['sigma_w']:.4g}$",
        rf"$\sigma_b = {settings['sigma_b']:.4g}$",
        f"drop {drop[0]:g}" if drop.size == 1 else f"drop {drop.min():g} to {drop.max():g}",
        f"width {least}" if least == most else f"widths {least} to {most}",
        f"{settings['nets']} networks",
    ]
    if settings["loss"]:
        parts.append(f"{settings['loss']} loss")
    return ", ".join(parts)


# Panels -------------------------------------------------------------------------------------------


def _lengths(axes: Axes, payload: Mapping[str, Any]) -> None:
    panel = _Panel(axes, "layer", "length $q$ of the first input")
    panel.sampled(payload["q"], COLOURS[0])
    _forward_theory(panel, payload["theory"], "q")
    panel.done()


def _misalignments(axes: Axes, payload: Mapping[str, Any]) -> None:
    panel = _Panel(axes, "layer", r"misalignment $\varepsilon$")
    panel.sampled(payload["eps"], COLOURS[0])
    _forward_theory(panel, payload["theory"], "eps")
    panel.done()


def _forward_theory(panel: _Panel, theory: Mapping[str, Any], name: str) -> None:
    if theory["infinite_width"]:
        panel.line(_log(theory["infinite_width"][name]), "infinite width", color="black")
    if theory["first_order"]:
        order = _log(theory["first_order"][name]["mean"])
        order[~np.array(theory["first_order"]["reliable"])] = np.nan
        panel.line(order, "mean, first order", color="black", linestyle="--")


def _gradients(axes: Axes, payload: Mapping[str, Any]) -> None:
    panel = _Panel(axes, "hop", r"$|\partial E_a/\partial W|^2$")
    panel.sampled(payload["grad_aa"], COLOURS[2])
    _backward_theory(panel, payload["theory"], "grad_aa")
    panel.done()


def _products(axes: Axes, payload: Mapping[str, Any]) -> None:
    panel = _Panel(axes, "hop", r"$\partial E_a/\partial W \cdot \partial E_b/\partial W$")
    panel.sampled(payload["grad_ab_abs"], COLOURS[4], "sum of sizes", points=False)
    signed = payload["grad_ab"]
    log, half = _array(signed["mean_log"]), np.sqrt(_array(signed["var_log"]))
    panel.band(log - half, log + half, COLOURS[3], "size, ± s.d. of its log")
    panel.line(log, "size, geometric mean", color=COLOURS[3])
    _backward_theory(panel, payload["theory"], "grad_ab")
    floor = payload["theory"]["noise_floor"]
    if floor:
        rms = _array(floor["grad_ab"]["log_rms"])
        panel.line(rms, "noise floor, rms", color=GUIDE, linestyle=":")
    panel.done()


def _backward_theory(panel: _Panel, theory: Mapping[str, Any], name: str) -> None:
    what = "mean, " if name == "grad_aa" else "|mean|, "
    same = theory["tied"] and theory["tied"] == theory["gia"]
    for key, text, dashes in (("tied", "tied", "-"), ("gia", "GIA", "--")):
        if theory[key] and not (same and key == "gia"):
            log = _array(theory[key][name]["log_abs_mean"])
            label = f"{what}{'theory' if same else text}"
            panel.line(log, label, color="black", linestyle=dashes)


class _Panel:
    """Curves in natural logarithms, drawn on a logarithmic axis as long as floats reach."""

    def __init__(self, axes: Axes, along: str, name: str) -> None:
        self.axes, self.name = axes, name
        self._bands: list[tuple[np.ndarray, np.ndarray, str, str]] = []
        self._lines: list[tuple[np.ndarray, str, dict[str, Any]]] = []
        self._points: list[tuple[np.ndarray, np.ndarray, str]] = []
        axes.set_xlabel("layer" if along == "layer" else "weights, from layer $l$ to $l + 1$")

    def sampled(
        self, record: Mapping[str, Any], colour: str, name: str = "", *, points: bool = True
    ) -> None:
        low, high = (_array(record[f"log_{key}"]) for key in ("q05", "q95"))
        low[_array(record["q05"]) == 0] = -np.inf
        prefix = f"{name}, " if name else ""
        self.band(low, high, colour, f"{prefix}5 – 95 %")
        self.line(_array(record["log_median"]), f"{prefix}median", color=colour)
        if points:
            mean, error = _array(record["log_abs_mean"]), _array(record["log_sem"])
            self._points.append((mean, error - mean, colour))

    def band(self, low: np.ndarray, high: np.ndarray, colour: str, label: str) -> None:
        self._bands.append((low, high, colour, label))

    def line(self, log: np.ndarray, label: str, **how: Any) -> None:
        if np.isfinite(log).any():
            self._lines.append((log, label, how))

    def done(self) -> None:
        """Draw everything, now that the range is known."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        values = [edge for low, high, *_ in self._bands for edge in (low, high)]
        values += [log for log, *_ in self._lines]
        known = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.array([])
        if known.size == 0:
            self.axes.text(0.5, 0.5, "no value exists", transform=self.axes.transAxes, ha="center")
            self.axes.set_ylabel(self.name)
            return
        far = bool(np.abs(known).max() > PLAIN)
        wide = far or float(np.ptp(known)) > math.log(5.0)
        self._draw(far, float(known.min()))
        self.axes.set_ylabel(rf"$\log_{{10}}$ of {self.name}" if far else self.name)
        if wide and not far:
            self.axes.set_yscale("log")
            top = float(known.max())
            if np.ptp(known) > SHOWN * math.log(10):
                self.axes.set_ylim(bottom=math.exp(top - SHOWN * math.log(10)))
            few_ticks(self.axes.yaxis)
            if FEW_DECADES[0] < np.ptp(known) / math.log(10) < FEW_DECADES[1]:
                self.axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        elif not far:
            self.axes.ticklabel_format(axis="y", useOffset=False)
        self.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
        self.axes.legend(ncols=2, handlelength=1.4, columnspacing=1.2, **below)

    def _draw(self, far: bool, lowest: float) -> None:
        def shown(log: np.ndarray) -> np.ndarray:
            with np.errstate(under="ignore"):
                return log / math.log(10) if far else np.exp(log)

        for low, high, colour, label in self._bands:
            x = np.arange(low.size)
            low = np.where(low == -np.inf, lowest, low)  # some networks are at 0
            self.axes.fill_between(
                x, shown(low), shown(high), color=colour, alpha=0.22, linewidth=0, label=label
            )
        for log, label, how in self._lines:
            marker = "." if log.size == 1 else ""
            thin: dict[str, Any] = {"linewidth": 0.7} if log.size > CROWDED else {}
            self.axes.plot(shown(log), label=label, marker=marker, zorder=2, **thin, **how)
        for mean, relative, colour in self._points:
            at = np.unique(np.linspace(0, mean.size - 1, min(mean.size, POINTS)).round())
            k = at.astype(int)
            y, error = shown(mean[k]), np.exp(np.minimum(np.nan_to_num(relative[k], nan=-99.0), 0))
            error = error / math.log(10) if far else error * y
            self.axes.errorbar(
                k, y, error, color=colour, marker="o", markersize=3, linestyle="",
                linewidth=1, label="mean ± s.e.", zorder=3,
            )  # fmt: skip


def _array(values: Sequence[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _log(values: Sequence[Any]) -> np.ndarray:
    numbers = _array(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(np.where(numbers > 0, numbers, np.nan)))

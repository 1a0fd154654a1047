"""Figures on dropout as the conjugate field: networks as points, laws without fit as lines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depthscale.papers.absorbing.field_networks import (
    SLOPES,
    SMEARED,
    SMEARED_FIELDS,
    Settled,
    critical,
    falling,
    response,
    smeared,
    theta_of,
    widths,
)
from depthscale.papers.absorbing.runs import Runs
from depthscale.report.canvas import COLOURS, GUIDE, MARKERS, finish, page, style
from depthscale.theory.field_response import FieldResponse
from depthscale.theory.gaussian import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSES = {"smooth": ("tanh", "sin"), "kinked": ("hardtanh", "relu")}
MEAN, MEDIAN = COLOURS[:2]
FIELD = r"scaled field $B = a^{1/\beta}\,2H/s^2$,  $H = h\,n^{1+1/\beta}$"


def field_collapse(runs: Runs, target: Path) -> Figure:
    """Mean and median over decades of the field, two widths of two activations of each class."""
    with style():
        figure = page((8.8, 6.6))
        for axes, (title, names) in zip(figure.subplots(2, 2), CLASSES.items(), strict=True):
            for place, (one, name) in enumerate(zip(axes, names, strict=True)):
                _collapsed(one, runs, name)
                one.set_title(f"{name} ({title}), $p$ = {response(name).power():.3f}")
                if place == 0:
                    one.set_ylabel(r"$z = a^{1/\beta} n^{1/\beta}(1-\rho)$")
        for one in figure.axes[2:]:
            one.set_xlabel(FIELD)
        figure.axes[0].legend(loc="upper left")
        return finish(figure, target)


def _collapsed(axes: Axes, runs: Runs, name: str) -> None:
    own = response(name)
    fields = np.geomspace(3e-4, 40, 80)
    _lines(axes, own, 0.0, fields)
    wide = (fields * own.field_unit / own.curvature) ** (1 / (1 + own.beta)) / own.unit
    axes.plot(fields, wide, ":", color=GUIDE, label="infinite width")
    for place, width in enumerate(widths(runs)):
        sets = critical(runs, name, width)
        _points(axes, sets, np.array([s.scaled_field for s in sets]), MARKERS[place], width)
    axes.set_xscale("log")
    axes.set_yscale("log")


def _lines(axes: Axes, own: FieldResponse, theta: float, fields: Array) -> None:
    scaled = fields * own.field_unit
    mean = [float(own.mean(theta, h)) / own.unit for h in scaled]
    median = [own.median(theta, h) / own.unit for h in scaled]
    axes.plot(fields, mean, color=MEAN, label="mean, law")
    axes.plot(fields, median, color=MEDIAN, label="median, law")


def _points(axes: Axes, sets: list[Settled], x: Array, marker: str, width: int) -> None:
    """Means with one standard error, medians."""
    unit = sets[0].response.unit
    found = [s.moment(1.0) for s in sets]
    axes.errorbar(
        x,
        [m.value / unit for m in found],
        [m.error / unit for m in found],
        fmt=marker,
        color=MEAN,
        label=f"mean, $n$ = {width}",
    )
    medians = [math.exp(float(np.median(s.log_y))) / unit for s in sets]
    axes.plot(x, medians, marker, color=MEDIAN, label=f"median, $n$ = {width}")


def response_exponents(runs: Runs, target: Path) -> Figure:
    """Slopes over small fields by p, and by the order of the moment."""
    from depthscale.papers.absorbing.field import ORDERS, median_slope, slope

    with style():
        figure = page((9.0, 3.8))
        left, right = figure.subplots(1, 2)
        powers = np.linspace(-2.6, 1.6, 300)
        left.plot(powers, np.minimum(np.abs(powers), 1), color=MEAN, label="mean, limit")
        left.plot([-2.6, 0], [1, 1], "--", color=MEDIAN, label="median, limit")
        for place, (name, power) in enumerate(SLOPES):
            sets = falling(runs, name, power)
            (mean, theory), (median, typical) = slope(sets, 1.0), median_slope(sets)
            at = power + (0.06 if name == "hardtanh" else -0.06 if name == "relu" else 0.0)
            told = {"label": name} if name not in [n for n, _ in SLOPES[:place]] else {}
            marker = MARKERS[("tanh", "hardtanh", "relu").index(name)]
            left.errorbar(at, mean.value, mean.error, fmt=marker, color=MEAN, **told)
            left.errorbar(at, median.value, median.error, fmt=marker, color=MEDIAN)
            for value in (theory, typical):
                left.plot(at, value, "_", color="black", markersize=12, zorder=0)
        for beta, name in ((1.0, "smooth"), (0.5, "kinked")):
            left.axhline(1 / (1 + beta), color=GUIDE, linewidth=0.8, linestyle=":")
            left.annotate(f"infinite width, {name}", (-2.6, 1 / (1 + beta)), va="bottom")
        left.set_xlabel(r"$p = 2(\theta+\lambda)/s^2$")
        left.set_ylabel(r"response exponent, $B = 10^{-3}\ldots10^{-1}$")
        left.set_ylim(0, 1.1)
        left.legend(loc="lower left", title="bars: exact law there", alignment="left")
        orders = np.linspace(0, 2.1, 100)
        for place, (name, power) in enumerate((SLOPES[0], SLOPES[2], SLOPES[4])):
            sets, colour = falling(runs, name, power), COLOURS[place + 2]
            found = [slope(sets, k) for k in ORDERS]
            right.errorbar(
                ORDERS,
                [m.value for m, _ in found],
                [m.error for m, _ in found],
                fmt=MARKERS[place],
                color=colour,
                label=f"{name}, $p$ = {power:g}",
            )
            right.plot(orders[1:], [slope(sets, k)[1] for k in orders[1:]], color=colour)
            right.plot(orders, np.minimum(orders, -power), ":", color=colour)
        right.set_xlabel(r"order $k$ of the moment $E\,y^k$")
        right.set_title("lines: exact law, dotted: limit of small fields")
        right.legend(loc="upper left")
        return finish(figure, target)


def smeared_transition(runs: Runs, target: Path) -> Figure:
    """Across the transition at two fields, and the depth scale by the field."""
    with style():
        figure = page((9.6, 3.6))
        *both, depth = figure.subplots(1, 3)
        for axes, name in zip(both, SMEARED, strict=True):
            own = response(name)
            for field, colour in zip(SMEARED_FIELDS, COLOURS[2:], strict=False):
                _smeared(axes, runs, own, name, field, colour)
            theta = np.linspace(-own.lam + 0.05, 7, 60)
            still = [float(own.mean(t)) / own.unit for t in theta]
            axes.plot(theta, still, color="black", linewidth=1, label="mean, no field")
            axes.axvline(-own.lam, color=GUIDE, linestyle=":", linewidth=1)
            axes.set_yscale("log")
            axes.set_ylim(1e-4, 3)
            axes.set_title(f"{name}, $n$ = {widths(runs)[0]}")
            axes.set_xlabel(r"$\theta = n\,t$")
        both[0].set_ylabel(r"$z = a^{1/\beta} n^{1/\beta}(1-\rho)$")
        both[0].legend(loc="upper left", fontsize=7)
        _depths(depth)
        return finish(figure, target)


def _smeared(
    axes: Axes, runs: Runs, own: FieldResponse, name: str, field: float, colour: str
) -> None:
    sets = smeared(runs, name, field)
    thetas = [s.limit.equation.detuning for s in sets]
    line = np.linspace(-4.5, 7, 60)
    scaled = field * own.field_unit
    mean = [float(own.mean(t, scaled)) / own.unit for t in line]
    axes.plot(line, mean, color=colour, label=f"mean, $B$ = {field:g}")
    axes.plot(line, [own.median(t, scaled) / own.unit for t in line], "--", color=colour)
    found = [s.moment(1.0) for s in sets]
    axes.errorbar(
        thetas,
        [m.value / own.unit for m in found],
        [m.error / own.unit for m in found],
        fmt="o",
        color=colour,
    )
    medians = [math.exp(float(np.median(s.log_y))) / own.unit for s in sets]
    axes.plot(thetas, medians, "o", color=colour, markerfacecolor="white", label="median")


def _depths(axes: Axes) -> None:
    own = response("tanh")
    fields = np.geomspace(1e-8, 1e3, 60)
    for place, power in enumerate((-3.0, -1.0, 0.0)):  # even in p where smooth
        theta = theta_of("tanh", power)
        depth = [float(own.relaxation(theta, b * own.field_unit)) for b in fields]
        axes.plot(fields, depth, color=COLOURS[place], label=f"$p$ = {power:g}")
    scaled = fields * own.field_unit
    wide = 1 / (2 * np.sqrt(own.curvature * scaled))
    axes.plot(fields, wide, ":", color=GUIDE, label="infinite width")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.005, 50)
    axes.set_xlabel("scaled field $B$")
    axes.set_title(r"depth scale of tanh networks, $\xi/n$")
    axes.legend(loc="lower left")

"""Figures of the controls: directed percolation collapsed, and what tells other classes from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depthscale.papers.absorbing import control_models, controls
from depthscale.papers.absorbing.runs import Runs
from depthscale.report.canvas import (
    COLOURS,
    GUIDE,
    MARKERS,
    few_ticks,
    finish,
    page,
    plain_log,
    style,
)
from depthscale.theory.gaussian import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def percolation(runs: Runs, target: Path) -> Figure:
    """Densities about the threshold, their collapse, and the exponents by window."""
    with style():
        figure = page((9.6, 3.2))
        left, middle, right = figure.subplots(1, 3)
        _densities(left, runs)
        _collapse(middle, runs)
        _windows(right, runs)
        return finish(figure, target)


def _densities(axes: Axes, runs: Runs) -> None:
    for k, run in enumerate(control_models.decays(runs)):
        offset = control_models.OFFSETS[k]
        axes.plot(
            run.times,
            run.mean * run.times**controls.DELTA,
            color=_shade(k),
            label=f"{1e3 * offset:+g}" if offset else "0",
        )
    axes.set_xscale("log")
    plain_log(axes)
    axes.set_xlabel("time $t$")
    axes.set_ylabel(r"$\rho\,t^{\delta}$, $\delta = 0.1595$")
    axes.legend(title=r"$10^3 (p-p_c)$", ncols=2, loc="lower left", alignment="left")
    axes.set_title("bond directed percolation in 1+1")


def _collapse(axes: Axes, runs: Runs) -> None:
    found = controls.collapsed(runs, controls.CORRECTED, control_models.EARLIEST)
    value = {name: one.value for name, one in found.parameters.items()}
    for k, run in enumerate(control_models.decays(runs)):
        late = 1 / run.times
        x = (run.automaton.p - value["pc"]) * run.times ** value["b"] * (1 + value["c"] * late)
        scale = run.times ** -value["delta"] * (1 + value["a"] * late)
        axes.errorbar(
            x, run.mean / scale, run.error / scale, color=_shade(k), fmt=".", markersize=3, lw=0.8
        )
    plain_log(axes)
    axes.set_xlabel(r"$(p-p_c)\,t^{1/\nu_\parallel}$ with corrections")
    axes.set_ylabel(r"$\rho\,t^{\delta}$ with corrections")
    axes.set_title(
        rf"$\delta$ = {value['delta']:.4f}({found['delta'].error:.4f}),"
        rf" $1/\nu_\parallel$ = {value['b']:.3f}({found['b'].error:.3f})"
    )


def _windows(axes: Axes, runs: Runs) -> None:
    firsts = np.array([8, 16, 32, 64])
    known = {"delta": controls.DELTA, "b": controls.INVERSE_NU}
    forms = ((controls.PLAIN, "plain"), (controls.CORRECTED, "corrected"))
    for j, (name, text) in enumerate((("delta", r"$\delta$"), ("b", r"$1/\nu_\parallel$"))):
        for k, (form, word) in enumerate(forms):
            fits = [controls.collapsed(runs, form, int(first))[name] for first in firsts]
            ratio = np.array([[one.value, one.error] for one in fits]).T / known[name]
            axes.errorbar(
                firsts * 1.05 ** (2 * j + k - 1.5),
                ratio[0],
                ratio[1],
                color=COLOURS[j],
                fmt=MARKERS[j] + "-",
                markerfacecolor=COLOURS[j] if k else "white",
                lw=1,
                label=f"{text}, {word}",
            )
    axes.axhline(1, color=GUIDE, lw=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(firsts, [str(first) for first in firsts])
    axes.set_xlabel("first step of the window")
    axes.set_ylabel("exponent / known value")
    axes.legend(loc="best")
    axes.set_title("with and without corrections")


def classes(runs: Runs, target: Path) -> Figure:
    """Survival in two classes, decay in 2+1, and the mean-field law of finite size."""
    with style():
        figure = page((9.6, 3.2))
        left, middle, right = figure.subplots(1, 3)
        _survival(left, runs)
        _plane(middle, runs)
        _contact(right, runs)
        return finish(figure, target)


def _survival(axes: Axes, runs: Runs) -> None:
    kinds = ((False, "directed percolation", controls.DELTA), (True, "compact", 0.5))
    for k, (compact, words, exponent) in enumerate(kinds):
        run = control_models.spreads(runs, compact)
        survival, error = run.survival
        axes.errorbar(
            run.times, survival, error, color=COLOURS[k], fmt=MARKERS[k], markersize=3, label=words
        )
        _guide(axes, run.times.astype(float), survival, -exponent, f"$t^{{-{exponent:.3g}}}$")
    axes.set_xlabel("time $t$")
    axes.set_ylabel("survival from one site")
    axes.legend(loc="lower left")
    axes.set_title("positive and negative control")


def _plane(axes: Axes, runs: Runs) -> None:
    run, found = control_models.plane(runs), controls.plane_exponent(runs)
    axes.errorbar(run.times, run.mean, run.error, color=COLOURS[2], fmt="^", markersize=3)
    _guide(
        axes, run.times.astype(float), run.mean, -controls.DELTA_2D, f"$t^{{-{controls.DELTA_2D}}}$"
    )
    axes.set_xlabel("time $t$")
    axes.set_ylabel(r"density $\rho$")
    axes.set_title(rf"2+1 dimensions: $\delta$ = {found.value:.4f}({found.error:.4f})")


def _contact(axes: Axes, runs: Runs) -> None:
    for k, one in enumerate(control_models.contacts(runs)):
        root = math.sqrt(one.sites)
        axes.plot(
            one.times / root, one.density * root, color=COLOURS[k], label=f"$N$ = {one.sites}"
        )
    axes.set_xscale("log")
    plain_log(axes)
    few_ticks(axes.xaxis)
    axes.set_xlabel(r"$t/\sqrt{N}$")
    axes.set_ylabel(r"$\rho\,\sqrt{N}$")
    axes.legend(loc="lower left")
    axes.set_title("contact process, complete graph")


def _guide(axes: Axes, x: Array, y: Array, slope: float, text: str) -> None:
    """A power law above the later points."""
    x, y = x[x >= 8], y[x >= 8]
    line = 1.25 * y[-1] * (x / x[-1]) ** slope
    axes.plot(x, line, color=GUIDE, lw=0.8, ls="--")
    axes.annotate(text, (x[-1], line[-1]), (3, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    plain_log(axes)


def _shade(index: int) -> tuple[float, float, float, float]:
    """From blue below the threshold over grey to red above."""
    from matplotlib import colormaps

    place = index / (len(control_models.OFFSETS) - 1)
    return colormaps["coolwarm"](place) if abs(place - 0.5) > 0.01 else (0.0, 0.0, 0.0, 1.0)

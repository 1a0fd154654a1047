"""The figures on fully connected networks: theory as lines, exact maps and networks as points."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depthscale.papers.absorbing import mlp_data as data
from depthscale.papers.absorbing.mlp_data import transition
from depthscale.papers.absorbing.runs import Runs
from depthscale.report.canvas import (
    COLOURS,
    GUIDE,
    MARKERS,
    PALE,
    few_ticks,
    finish,
    look,
    page,
    sequence,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEPTH_IN_WIDTHS = r"depth in widths, $l/n$"
BLUE, RED, GREEN, PINK = COLOURS[:4]


def collapse(runs: Runs, target: Path) -> Figure:
    """Maps of eight activations on the curve of their class, and how they come to it."""
    with style():
        figure = page((9.6, 3.6))
        curve, approach = figure.subplots(1, 2)
        depth = data.depths(runs)[-1]
        x = np.linspace(-4.4, 4.4, 200)
        smooth = transition("tanh").scaling_in_detuning(x)
        kinked = transition("hardtanh").scaling_in_detuning(x)
        curve.plot(x, smooth, color="black", lw=1, label=r"smooth: $x/(1-e^{-x})$")
        curve.plot(x, kinked, "--", color=GUIDE, lw=1, label="kinked: its own")
        for k, name in enumerate((*data.ANALYTIC, *data.KINKED)):
            z = data.scaled_by_detuning(name, depth)
            filled = name in data.ANALYTIC
            curve.plot(
                data.X, z, ls="", **look(k), mfc=None if filled else "white", ms=4, label=name
            )
        curve.set_xlabel(r"$x=\gamma\,(\sigma_w-\sigma_{wc})\,l$")
        curve.set_ylabel(r"$(\beta A\,l)^{1/\beta}\,\rho$")
        curve.set_title(f"exact maps, $l$ = {depth}, nothing fitted")
        curve.set_yscale("log")
        curve.legend(ncols=2, loc="upper left", fontsize=7)
        _approach(approach)
        return finish(figure, target)


def _approach(axes: Axes) -> None:
    """Distance from the curve at criticality by depth."""
    layers = np.unique(np.geomspace(20, data.FAR[1], 60).astype(int))
    for k, name in enumerate(("tanh", "sin", "sigmoid", *data.CURVED)):
        own = transition(name)
        path = data.exact_path(name, float(own.sigma_w), data.FAR[1])[layers]
        off = np.abs(float(own.curvature) * layers * path - 1)
        dashes = "--" if name in data.CURVED else "-"
        axes.plot(layers, off, dashes, color=COLOURS[k], label=name)
    for values, text in (
        (8 * layers**-0.5, r"$l^{-1/2}$"),
        (0.25 * np.log(layers) / layers, r"$\log(l)/l$"),
    ):
        axes.plot(layers, values, ":", color=GUIDE, lw=1)
        axes.annotate(
            text,
            (layers[-1], values[-1]),
            xytext=(3, 0),
            textcoords="offset points",
            color=GUIDE,
            va="center",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(5e-5, 3)
    axes.set_xlabel("layers $l$")
    axes.set_ylabel(r"$|\kappa\,l\,\rho-1|$ at criticality")
    axes.set_title("corrections: logarithmic, or slower where curvature jumps")
    axes.legend(loc="lower left")


def sizes(runs: Runs, target: Path) -> Figure:
    """Finite-size scaling at criticality, and decay at the critical point of the own width."""
    with style():
        figure = page((9.6, 3.6))
        scaled, late = figure.subplots(1, 2)
        own = transition("tanh")
        kappa = float(own.curvature)
        s = np.geomspace(0.03, 2.3, 80)
        scaled.plot(s, 1 / s, ":", color=GUIDE, lw=1, label="infinite width")
        scaled.plot(s, kappa * own.scaling_in_size(s), color="black", lw=1, label="closed form")
        colours = sequence(len(data.widths(runs)))
        for k, n in enumerate(data.widths(runs)):
            sample = data.sized(runs, n)
            shown = sample.s > 0.03
            y = kappa * sample.y[shown]
            error = 2 * y.std(axis=1) / math.sqrt(y.shape[1])
            scaled.errorbar(
                sample.s[shown],
                y.mean(axis=1),
                error,
                ls="",
                marker=MARKERS[k],
                color=colours[k],
                ms=3,
                elinewidth=0.7,
                label=f"networks, $n$ = {n}",
            )
        scaled.set_ylabel(r"mean of $\kappa\,n\,\rho$")
        scaled.set_title(r"at $\sigma_{wc}$ of infinite width")
        _late(late, runs)
        for axes in (scaled, late):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel(DEPTH_IN_WIDTHS)
            axes.legend(loc="lower left")
        return finish(figure, target)


def _late(axes: Axes, runs: Runs) -> None:
    """At the boundary of the own width, and at that of infinite width."""
    own = transition("tanh")
    kappa, lam = float(own.curvature), float(own.lam)
    times = np.array(data.late_times(runs))
    s = np.geomspace(0.2, 18, 60)
    own_law = [float(own.scaling(-lam * t, t)) / t for t in s]
    axes.plot(s, own_law, color=BLUE, label=r"closed form at $\sigma_{wc}(n)$")
    axes.plot(s, kappa * own.scaling_in_size(s), "--", color=RED, label=r"at $\sigma_{wc}$")
    level = np.sqrt(float(own.variance) / (2 * np.pi * s))
    axes.plot(s, level, ":", color=GUIDE, lw=1, label=r"$\sqrt{s^2/(2\pi\,l/n)}$")
    for critical, colour, marker in ((True, BLUE, "o"), (False, RED, "s")):
        y = kappa * data.late(runs, critical)
        mean, error = y.mean(axis=1), 2 * y.std(axis=1) / math.sqrt(y.shape[1])
        axes.errorbar(times, mean, error, ls="", color=colour, marker=marker)
    axes.set_ylim(1e-4, 10)
    axes.set_ylabel(r"mean of $\kappa\,n\,\rho$")
    axes.set_title(f"networks of tanh, $n$ = {data.LATE_WIDTH}: from $l^{{-1}}$ to $l^{{-1/2}}$")


def apart(runs: Runs, target: Path) -> Figure:
    """Mean, median and survivors, and where critical decay ends."""
    with style():
        figure = page((9.6, 3.6))
        three, ends = figure.subplots(1, 2)
        n, above = 256, 1.0
        kappa = float(transition("tanh").curvature)
        s = np.geomspace(0.1, 2.2, 25)
        law = data.limit_law(tuple(s.tolist()))
        survivors = law.survivors(above)
        sample = data.sized(runs, n)
        shown = sample.s > 0.1
        times, y = sample.s[shown], sample.y[shown]
        alive = y > above
        few = alive.sum(axis=1) > 0
        among = np.where(alive, y, 0).sum(axis=1)[few] / alive.sum(axis=1)[few]
        for name, colour, marker, line, at, points in (
            ("survivors, $n\\rho>1$", GREEN, "^", survivors.mean.value, times[few], among),
            ("mean", BLUE, "o", law.mean.value, times, y.mean(axis=1)),
            ("median", RED, "s", law.quantile(0.5).value, times, np.median(y, axis=1)),
        ):
            three.plot(s, kappa * line, color=colour, label=name)
            three.plot(at, kappa * points, ls="", color=colour, marker=marker, ms=3)
        three.set_xscale("log")
        three.set_yscale("log")
        three.set_xlabel(DEPTH_IN_WIDTHS)
        three.set_ylabel(r"$\kappa\,n\,\rho$")
        three.set_title(f"laws, and networks of tanh, $n$ = {n}")
        share = three.twinx()
        share.fill_between(s, survivors.share.value, color=PALE, alpha=0.5, lw=0)
        share.set_ylim(0, 4)
        share.set_yticks([0, 0.5, 1])
        share.set_ylabel("share of survivors (grey)", loc="bottom")
        share.set_zorder(0)
        three.set_zorder(1)
        three.patch.set_visible(False)
        three.legend(loc="upper right")
        _ends(ends, runs)
        return finish(figure, target)


def _ends(axes: Axes, runs: Runs) -> None:
    """Layers or steps at which critical decay ends."""
    widths = np.array(data.widths(runs))
    found = [
        data.cutoff(data.sized(runs, n), np.arange(data.sized(runs, n).y.shape[1])) for n in widths
    ]
    axes.plot(widths, found, ls="", color=BLUE, marker="o", label="networks of tanh: median")
    axes.plot(widths, found[-1] * widths / widths[-1], color=BLUE, lw=1, label=r"$n^{1}$")
    sites = np.array(data.SITES)
    contacts = [data.contact(runs, n) for n in data.SITES]
    steps = [float(np.interp(-0.5, -c.ratio, c.steps)) for c in contacts]
    axes.plot(sites, steps, ls="", color=RED, marker="s", label="mean-field contact process: mean")
    axes.plot(sites, 4 * np.sqrt(sites), "--", color=RED, lw=1, label=r"$n^{1/2}$")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("width $n$, or number of sites")
    axes.set_ylabel("depth at which critical decay ends")
    axes.set_title("noise proportional to the order parameter, or to its root")
    axes.legend(loc="upper left")


def boundary(runs: Runs, target: Path) -> Figure:
    """The boundary by width, the exponent by width, and networks too narrow for chaos."""
    with style():
        figure = page((10.4, 3.5))
        where, size, narrow = figure.subplots(1, 3)
        own = transition("tanh")
        inverse = np.linspace(1e-4, 1 / 12, 30)
        widths = np.round(1 / inverse).astype(int)
        roots = [float(own.boundary(int(n))) for n in widths]
        first = [float(own.boundary(int(n), first_order=True)) for n in widths]
        where.plot(1 / widths, roots, color=BLUE, label=r"$\log\chi+L_1/n=0$, solved")
        where.plot(1 / widths, first, "--", color=RED, label=r"$\sigma_{wc}-L_1/(\gamma n)$")
        found = [data.boundary(runs, "tanh", n) for n in data.boundary_widths(runs)]
        where.errorbar(
            [1 / b.n for b in found],
            [b.sigma_w for b in found],
            [3 * b.error for b in found],
            ls="",
            color="black",
            marker="o",
            label="networks of tanh",
        )
        where.set_xlabel("$1/n$")
        where.set_ylabel(r"boundary $\sigma_{wc}(n)$")
        where.set_title("where the exponent changes sign")
        where.legend(loc="upper left")
        for k, name in enumerate(("tanh", "hardtanh")):
            measured = [data.exponent(runs, name, n) for n in data.EXPONENT_WIDTHS]
            size.errorbar(
                [1 / e.n for e in measured],
                [float(e.n * e.value[0]) for e in measured],
                [3 * float(e.n * e.error[0]) for e in measured],
                ls="",
                **look(k),
                label=name,
            )
            size.axhline(float(transition(name).lam), color=COLOURS[k], lw=1)
        size.set_xlim(0)
        size.set_xlabel("$1/n$")
        size.set_ylabel(r"$n$ times the exponent")
        size.set_title(r"at $\sigma_{wc}$ of infinite width; lines: $L_1$")
        size.legend(loc="center right")
        narrow.axhline(0, color=GUIDE, lw=0.8)
        for k, n in enumerate(data.NARROW):
            followed = data.narrow(runs, n)
            narrow.errorbar(
                followed.sigma_w,
                followed.value,
                3 * followed.error,
                color=COLOURS[k],
                marker=MARKERS[k],
                label=f"$n$ = {n}",
            )
        narrow.set_ylim(-0.4, 0.5)
        narrow.set_xscale("log")
        few_ticks(narrow.xaxis)
        narrow.set_xlabel(r"$\sigma_w$")
        narrow.set_ylabel("exponent a layer")
        narrow.set_title("narrow networks of tanh")
        narrow.legend(loc="upper left")
        return finish(figure, target)

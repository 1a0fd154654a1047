"""The figures: laws as lines, exact networks as grey histograms, thin paths or points."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.unshaped import Unshaped
from depthscale.papers.judging import mean_of, share_of
from depthscale.papers.limits import dropout, explosion, residual, shaped, shaping, smooth, unshaped
from depthscale.papers.limits.common import RELU
from depthscale.papers.limits.runs import Runs
from depthscale.report.canvas import (
    COLOURS,
    GUIDE,
    MARKERS,
    PALE,
    finish,
    page,
    plain_log,
    sequence,
    style,
)
from depthscale.theory.gaussian import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEPTH_IN_WIDTHS = r"$t$ = depth/width"
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
BLUE, RED, GREEN = COLOURS[:3]
DRAWN = 12
"""Networks whose paths are drawn."""

GAP_LAYERS = tuple(range(1, 101, 3))


def paths(runs: Runs, target: Path) -> Figure:
    """Correlations by depth and their laws, with shaping and without."""
    with style():
        figure = page((9.6, 5.6))
        above, below = figure.subplots(2, 2, height_ratios=(1.25, 1))
        _shaped_paths(above[0], runs)
        _unshaped_paths(above[1], runs)
        rho = np.linspace(-0.999, 0.999, 400)
        for k, colour in enumerate((BLUE, RED)):
            time = shaped.TIMES[k]
            _histogram(below[0], 1 - shaped.networks(runs).eps[k], (-1, 1), 50, colour)
            below[0].plot(
                rho, shaped.law().pdf(rho, "rho")[k], color=colour, label=f"$t$ = {time:g}"
            )
            eps = np.log10(shaped.unshaped(runs).eps[k])
            _histogram(below[1], eps, (-5, -0.8), 50, colour)
            log = np.linspace(-5, -0.8, 300)
            pdf = shaped.chained().pdf(math.log(10) * log, "log_eps")[k] * math.log(10)
            below[1].plot(log, pdf, color=colour, label=f"$t$ = {time:g}")
        below[0].set_xlabel(r"correlation $\rho$")
        below[0].set_ylabel("probability density")
        below[1].set_xlabel(r"$\log_{10}(1-\rho)$")
        below[0].legend(title="law of the equation", loc="upper left", alignment="left")
        below[1].legend(title="law of the chain", loc="upper left", alignment="left")
        for axes in below:
            axes.set_ylim(0)
        return finish(figure, target)


def _shaped_paths(axes: Axes, runs: Runs) -> None:
    start = shaped.SHAPED.start(rho=shaped.RHO0)
    times = np.linspace(0, 0.5, 16)[1:]
    law = density(shaped.SHAPED, start, times, tolerance=1e-4)
    marks = law.quantiles(LEVELS, "rho").value
    _band(axes, np.append(0, times), np.vstack([np.full(5, shaped.RHO0), marks]), BLUE)
    layers = tuple(range(shaped.WIDTH // 2 + 1))
    nets = runs.pairs(shaped.SHAPED.layer(shaped.WIDTH), shaped.WIDTH, layers, 0.7, DRAWN)
    axes.plot(np.array(layers) / shaped.WIDTH, 1 - nets.eps[:, :DRAWN], color="black", lw=0.4)
    axes.set_title(rf"shaped ReLU, slopes $1$ and $1-n^{{-1/2}}$, $n$ = {shaped.WIDTH}")
    axes.set_ylabel(r"correlation $\rho$")
    axes.set_xlabel(DEPTH_IN_WIDTHS)
    axes.set_ylim(-1, 1.02)
    axes.set_xlim(0, 0.5)


def _unshaped_paths(axes: Axes, runs: Runs) -> None:
    layers = tuple(range(shaped.WIDTH // 2 + 1))
    law = shaped.chained(layers[1:])
    times = np.array(layers) / shaped.WIDTH
    marks = law.quantiles(LEVELS, "eps").value
    _band(axes, times, np.vstack([np.full(5, 0.7), marks]), RED)
    nets = runs.pairs(RELU, shaped.WIDTH, layers, 0.7, DRAWN)
    axes.plot(times, nets.eps[:, :DRAWN], color="black", linewidth=0.4)
    axes.set_title(f"unshaped ReLU, $n$ = {shaped.WIDTH}")
    axes.set_ylabel(r"misalignment $1-\rho$")
    axes.set_yscale("log")
    axes.set_xlabel(DEPTH_IN_WIDTHS)
    axes.set_xlim(0, 0.5)
    axes.set_ylim(1e-4, 1)


def equality(runs: Runs, target: Path) -> Figure:
    """Residual and shaped networks: convergence in depth, and fluctuations."""
    with style():
        figure = page((8.4, 3.5))
        left, right = figure.subplots(1, 2)
        depths = np.array(residual.DEPTHS)
        for k, (name, network) in enumerate(residual.SERIES.items()):
            off = np.abs(residual.off(network))
            left.plot(depths, off, color=COLOURS[k], marker=MARKERS[k], label=name)
        for power, text, at in ((0.5, r"$d^{-1/2}$", 0.12), (1.0, r"$d^{-1}$", 0.006)):
            guide = at * depths**-power
            left.plot(depths, guide, ":", color=GUIDE, linewidth=1)
            left.annotate(
                text,
                (depths[-1], guide[-1]),
                xytext=(3, 0),
                color=GUIDE,
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        left.set_xscale("log", base=2)
        left.xaxis.set_major_formatter("{x:g}")
        left.set_yscale("log")
        left.set_ylim(1e-5, 0.5)
        left.set_xlabel("depth $d$")
        left.set_ylabel(r"distance of $\rho$ from the limit at $t=1$")
        left.set_title("infinite width")
        left.legend(loc="upper right")
        _scatters(right, runs)
        return finish(figure, target)


def _scatters(axes: Axes, runs: Runs) -> None:
    own = [depth for _, depth in residual.RESIDUAL_NETS]
    flat = [float(residual.constant(runs, depth).value) for depth in own]
    growing = float(shaped.SYMMETRIC.fluctuation(1.0, rho0=shaped.RHO0)[0])
    depths = np.geomspace(6, 48, 50)
    axes.plot(own, flat, color=BLUE)
    axes.plot(depths, growing * np.sqrt(depths), color=GREEN)
    for k, network, sizes, name in (
        (0, residual.RESIDUAL, residual.RESIDUAL_NETS, "residual networks"),
        (2, shaped.SYMMETRIC, residual.SHAPED_NETS, "shaped networks"),
    ):
        found = [residual.scatter(runs, network, *size) for size in sizes]
        axes.errorbar(
            [s.depth for s in found],
            [s.found.value * math.sqrt(s.width) for s in found],
            [3 * s.found.error * math.sqrt(s.width) for s in found],
            color=COLOURS[k],
            marker=MARKERS[k],
            linestyle="",
            label=f"{name}, $n$ = {sizes[0][0]}",
        )
    axes.set_xscale("log", base=2)
    plain_log(axes)
    axes.set_ylim(0.5, 10)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("depth $d$")
    axes.set_ylabel(r"$\sqrt{n}$ times the deviation of $\rho$")
    axes.set_title(r"finite width, $t=1$")
    axes.legend(loc="upper left")


def drift(runs: Runs, target: Path) -> Figure:
    """The equation of unshaped networks with and without its drift, and its entrance."""
    with style():
        figure = page((9.6, 3.4))
        mean, law, entrance = figure.subplots(1, 3)
        forms = ((True, "with $2q\\,dt$", BLUE, "-"), (False, "without", RED, "--"))
        time = np.linspace(0, unshaped.TIME, 60)
        for form, name, colour, dashes in forms:
            moments = unshaped.equation(form).inverse_moments(time, unshaped.X0)
            mean.plot(time, moments.mean, color=colour, linestyle=dashes, label=name)
        quarters = np.arange(1, 5) * unshaped.TIME / 4
        for k, width in enumerate(unshaped.WIDTHS):
            found = [mean_of(np.exp(-u / 2)) for u in unshaped.log_y(runs, width)]
            values, errors = np.array(found).T
            mean.errorbar(
                quarters,
                values,
                3 * errors,
                color=COLOURS[k + 2],
                marker=MARKERS[k],
                linestyle="",
                markersize=3.5,
                label=f"$n$ = {width}",
            )
        mean.set_xlabel(DEPTH_IN_WIDTHS)
        mean.set_title(f"from $y^{{-1/2}}$ = {unshaped.X0:g}; marks: networks")
        mean.set_ylabel("mean of $y^{-1/2}$")
        mean.legend()
        log = np.linspace(-5, 6, 300)
        shift = 2 * math.log(unshaped.TIME)
        width = unshaped.WIDTHS[-1]
        _histogram(law, unshaped.log_y(runs, width)[-1] + shift, (-6, 6), 60, PALE)
        for form, name, colour, dashes in forms:
            pdf = unshaped.law(form).pdf(log, "log_q")[0]
            law.plot(log, pdf, color=colour, linestyle=dashes, label=name)
        law.set_xlabel(r"$\log q_t$ at $t=0.5$")
        law.set_ylabel("probability density")
        law.set_title(f"grey: networks, $n$ = {width}")
        law.set_xlim(-5, 5)
        _entrance(entrance)
        return finish(figure, target)


def _entrance(axes: Axes) -> None:
    width = unshaped.WIDTHS[-1]
    times = np.geomspace(0.005, 0.5, 33)
    law = density(Unshaped(unshaped.equation()), math.inf, times, tolerance=1e-4)
    _band(axes, times, law.quantiles(LEVELS, "q").value, BLUE)
    layers = np.unique((times[times > 0.008] * width).astype(int))
    marks = unshaped.chain_at(width, tuple(layers.tolist())).quantiles([0.05, 0.5, 0.95], "eps")
    for row, dashes in zip(marks.value.T, ("--", "-", "--"), strict=True):
        label = f"networks, $n$ = {width}, 5, 50, 95 %" if dashes == "-" else None
        axes.plot(
            layers / width,
            layers**2 * row,
            color="black",
            linestyle=dashes,
            linewidth=0.9,
            label=label,
        )
    axes.plot([0.003, 0.005], [4.5 * math.pi**2] * 2, color=GUIDE, linestyle=":")
    axes.annotate(
        r"$9\pi^2/2$",
        (0.004, 4.5 * math.pi**2),
        xytext=(0, 4),
        color=GUIDE,
        textcoords="offset points",
        fontsize=8,
    )
    axes.set_yscale("log")
    axes.set_xlim(0.003, 0.5)
    axes.set_xscale("log")
    axes.set_ylim(2, 500)
    axes.set_xlabel(DEPTH_IN_WIDTHS)
    axes.set_ylabel(r"$q_t = \ell^2(1-\rho)$")
    axes.set_title(r"blue: the limit, from $\rho=0$")
    axes.legend(loc="upper left")


def feedback(runs: Runs, target: Path) -> Figure:
    """tanh and hard tanh: lengths feed back into the scatter."""
    with style():
        figure = page((8.4, 3.2))
        grid = figure.subplots(1, 2, sharey=True)
        for axes, (key, name) in zip(grid, smooth.NAMES.items(), strict=True):
            samples = smooth.log_y(runs, key)
            _histogram(axes, samples, (-10, 2), 60, PALE)
            u = np.linspace(-9, 1.5, 300)
            for whole, colour, dashes, words in (
                (True, BLUE, "-", "lengths feeding back"),
                (False, RED, "--", "scatter of slopes alone"),
            ):
                pdf = smooth.law(key, whole).pdf(u, "log_y")[0]
                axes.plot(u, pdf, color=colour, linestyle=dashes, label=words)
            axes.set_title(f"{name}, $q$ = {smooth.LENGTH:g}")
            power = {1.0: "n", 0.5: "n^2"}[smooth.limit(key).beta]
            axes.set_xlabel(rf"$\log\,{power}(1-\rho)$ at $t$ = {smooth.TIME:g}")
            axes.set_xlim(-9, 1.5)
        grid[0].set_ylabel("probability density")
        grid[0].legend(title=f"grey: networks, $n$ = {smooth.WIDTH}", loc="upper left")
        grid[0].set_ylim(0, 0.46)
        return finish(figure, target)


def explosions(runs: Runs, target: Path) -> Figure:
    """Probability of explosion by depth, and the law at which stable norms settle."""
    with style():
        figure = page((8.4, 3.3))
        left, right = figure.subplots(1, 2)
        times = np.linspace(0, 1.5, 41)
        for k, case in enumerate(explosion.CURVES):
            law = case.explosion(1.0, times)
            left.plot(times, law, color=COLOURS[k], label=f"$b = {case.b:g}$", zorder=3 - k)
            found = np.array([share_of(hit) for hit in explosion.exploded(runs, case)])
            left.errorbar(
                explosion.TIMES,
                found[:, 0],
                3 * found[:, 1],
                color=COLOURS[k],
                marker=MARKERS[k],
                linestyle="",
                capsize=2,
            )
            if case.b > 0:
                ever = case.ever_explodes(1.0)
                left.plot([1.3, 1.5], [ever, ever], ":", color=COLOURS[k])
                left.annotate(
                    "ever",
                    (1.3, ever),
                    xytext=(0, 3),
                    textcoords="offset points",
                    fontsize=8,
                    color=COLOURS[k],
                )
        left.set_xlabel(DEPTH_IN_WIDTHS)
        left.set_ylabel("probability that the norm has exploded")
        left.set_title(f"lines: law; marks: networks, $n$ = {explosion.WIDTH}")
        left.legend(loc="upper left")
        v = np.linspace(1e-3, 3, 300)
        _histogram(right, explosion.stable(runs), (0, 3), 50, PALE)
        right.plot(
            v,
            explosion.stationary_pdf(v),
            color=BLUE,
            label=f"Gamma law, $b = {explosion.STABLE.b:g}$",
        )
        right.set_xlabel("$V$, mean square of the signal")
        right.set_ylabel("probability density")
        right.set_title(f"tanh networks at $t$ = {explosion.STABLE_TIME:g}")
        right.legend()
        right.set_xlim(0, 3)
        return finish(figure, target)


def noises(runs: Runs, target: Path) -> Figure:
    """Gaussian noise is a drift, Bernoulli masks are jumps; where both settle."""
    with style():
        figure = page((9.6, 3.3))
        grid = figure.subplots(1, 3, sharey=True)
        u = np.linspace(-4.5, 3.5, 300)
        drifting, jumping = dropout.drift_law(), dropout.jumps(runs)
        titles = {
            "gaussian": f"Gaussian noise, $t$ = {dropout.TIMES[0]:g}",
            "independent": f"Bernoulli masks, $t$ = {dropout.TIMES[0]:g}",
        }
        for axes, (masks, title) in zip(grid, titles.items(), strict=False):
            _histogram(axes, dropout.log_y(runs, masks)[0], (-5, 4), 60, PALE)
            axes.plot(u, drifting.pdf(u, "log_y")[0], color=BLUE, label="field as a drift")
            if masks == "independent":
                axes.plot(u, jumping.pdf(u, "log_y")[0], color=RED, label="single drops")
            axes.set_title(title)
        _histogram(grid[2], dropout.log_y(runs, "gaussian")[1], (-5, 4), 60, PALE)
        grid[2].plot(u, dropout.stationary().pdf(u), color=GREEN, label="stationary law")
        grid[2].set_title(f"Gaussian noise, $t$ = {dropout.TIMES[1]:g}")
        for axes in grid:
            axes.set_xlabel(r"$\log\,n(1-\rho)$")
            axes.legend(loc="upper left")
            axes.set_xlim(-4.5, 3.5)
            axes.set_ylim(0, 0.46)
        grid[0].set_ylabel("probability density")
        return finish(figure, target)


def width_gap(runs: Runs, target: Path) -> Figure:
    """A slope tailored at infinite width, at real widths; and slopes for the width."""
    with style():
        figure = page((9.6, 3.4))
        left, right = figure.subplots(1, 2, sharey=True)
        shades = sequence(len(shaping.GAP))
        slope = shaping.slope_of(shaping.tailored())
        for width, colour in zip(shaping.GAP, shades, strict=True):
            _corridor(left, slope, width, colour, f"$n$ = {width}")
        for width, colour in zip(runs.sampled(shaping.SAMPLED), shades, strict=False):
            own = shaping.slope_of(shaping.for_width(width))
            _corridor(right, own, width, colour, f"$n$ = {width}, slope {own:.3f}")
            found = np.quantile(shaping.networks(runs, shaping.for_width(width), width), 0.05)
            right.plot(shaping.DEPTH, found, color=colour, marker="o", clip_on=False)
        for axes in (left, right):
            axes.axhline(shaping.TARGET, color="black", linestyle=":", linewidth=0.9)
            axes.set_xlabel("layer")
            axes.set_xlim(0, shaping.DEPTH)
            axes.set_ylim(-0.3, 1.0)
            axes.legend(loc="lower right")
        left.set_ylabel(r"correlation $\rho$: median, 5 to 95 %")
        left.set_title(f"slope {slope:.3f}, target {shaping.TARGET:g} at infinite width")
        right.set_title(
            rf"slopes for 95 % of networks above {shaping.TARGET:g}; $\bullet$ networks"
        )
        return finish(figure, target)


def _corridor(axes: Axes, slope: float, width: int, colour: Any, label: str) -> None:
    marks = shaping.law(slope, width, GAP_LAYERS).quantiles([0.05, 0.5, 0.95], "rho").value
    axes.fill_between(GAP_LAYERS, marks[:, 0], marks[:, 2], color=colour, alpha=0.18, linewidth=0)
    axes.plot(GAP_LAYERS, marks[:, 0], color=colour, linewidth=0.8)
    axes.plot(GAP_LAYERS, marks[:, 2], color=colour, linewidth=0.8)
    axes.plot(GAP_LAYERS, marks[:, 1], color=colour, linewidth=1.8, label=label)


def _band(axes: Axes, x: Array, marks: Array, colour: str) -> None:
    """Ninety and fifty per cent of a law, and its median."""
    axes.fill_between(x, marks[:, 0], marks[:, 4], color=colour, alpha=0.16, linewidth=0)
    axes.fill_between(x, marks[:, 1], marks[:, 3], color=colour, alpha=0.22, linewidth=0)
    axes.plot(x, marks[:, 2], color=colour)


def _histogram(
    axes: Axes, samples: Array, ends: tuple[float, float], bins: int, colour: str
) -> None:
    """Of networks, normalised by all of them."""
    counts, edges = np.histogram(samples, bins, ends)
    heights = counts / (samples.size * (edges[1] - edges[0]))
    axes.stairs(heights, edges, fill=True, color=colour, alpha=1.0 if colour == PALE else 0.25)


FIGURES: dict[str, Callable[[Runs, Path], Any]] = {
    "paths.svg": paths,
    "residual.svg": equality,
    "drift.svg": drift,
    "smooth.svg": feedback,
    "explosion.svg": explosions,
    "dropout.svg": noises,
    "width-gap.svg": width_gap,
}


def figures(runs: Runs) -> dict[str, Callable[[Path], Any]]:
    """Every figure by the name of its file."""
    return {name: partial(draw, runs) for name, draw in FIGURES.items()}

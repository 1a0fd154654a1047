"""The figures of 1912.09132 with our values on the authors', and one of the mechanisms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.papers.gradients import mechanisms, speed, training
from depthscale.papers.gradients.common import DEPTH, KEEPS, NAMES, factors, log_factors
from depthscale.papers.gradients.linear import PUBLISHED_NETS, exact, seen
from depthscale.papers.gradients.mechanisms import floor, readout, responding, tanh
from depthscale.papers.gradients.metrics import curve, rate
from depthscale.papers.gradients.published import curves, spreads
from depthscale.papers.gradients.runs import NARROW, WIDTHS, Runs
from depthscale.papers.gradients.spread import (
    EVERY,
    NORMAL_SQUARE,
    sampled,
    visible,
)
from depthscale.report.canvas import (
    COLOURS,
    GUIDE,
    MARKERS,
    finish,
    page,
    plain_log,
    sequence,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYER = "layer from the input"
DOTS: dict[str, Any] = {"linestyle": "", "markersize": 3.2, "markerfacecolor": "none"}
BACK = "layers from the loss"
LIMITS = {"relu": (1e-46, 1e2), "tanh": (1e-22, 1e6), "hardtanh": (1e-6, 1e28)}


def figure_two(runs: Runs, target: Path) -> Figure:
    """Linear networks: both metrics against the exact theory."""
    with style():
        figure = page((9.6, 3.4))
        single, pair, top = figure.subplots(1, 3)
        shades = sequence(len(KEEPS))
        for rho, colour in _kept(runs, shades):
            one, both = exact(rho)
            _line(single, one, colour, f"{rho:g}")
            _published(single, "2", "identity", rho, "g_aa", colour)
            if rho == 1:
                continue
            for axes in (pair, top):
                _line(axes, both[1:], colour, f"{rho:g}", first=1)
                _published(axes, "2", "identity", rho, "g_ab", colour)
                mean = np.abs(runs.linear(rho)["g_ab"].mean)
                axes.plot(np.arange(1, DEPTH), mean[1:], color=colour, linewidth=0.7, alpha=0.8)
        nets = runs.linear(0.9)["g_ab"].nets
        for axes, name, limits in (
            (single, r"$g_{aa}$", (1e-46, 1e3)),
            (pair, r"$|g_{ab}|$", (1e-62, 1e3)),
            (top, r"$|g_{ab}|$", (1e-9, 1)),
        ):
            _log(axes, name, limits)
        top.set_xlim(150, 201)
        single.set_title("one input")
        pair.set_title("two inputs")
        top.set_title("two inputs, the last 50 layers")
        _keys(
            figure,
            shades,
            [
                ("line", "exact mean"),
                ("thin", f"mean of {nets} networks"),
                ("o", f"published mean of {PUBLISHED_NETS}"),
            ],
        )
        return finish(figure, target)


def figure_three(runs: Runs, target: Path) -> Figure:
    """Nonlinear networks: both metrics against chi_1, and published over ours."""
    names = [name for name in NAMES if name != "identity"]
    with style():
        figure = page((9.6, 5.2))
        grid = figure.subplots(2, 3, height_ratios=(1.6, 1), sharex=True, squeeze=False)
        shades = sequence(len(KEEPS))
        for (above, below), name in zip(grid.T, names, strict=True):
            for rho, colour in _kept(runs, shades):
                run = runs.classifier(name, rho)
                for metric, marker, dashes in (("g_aa", "o", "-"), ("g_ab_abs", "s", "--")):
                    _line(above, run[metric].mean[:DEPTH], colour, None, dashes)
                    _published(above, "3", name, rho, metric, colour, marker)
                theirs = curve(name, rho, "g_aa")
                ratio = theirs.values / run["g_aa"].mean[theirs.layers]
                below.plot(theirs.layers, ratio, color=colour, linewidth=0.9)
                layers = np.array([20.0, 180.0])
                middle = np.log(run["g_ab_abs"].mean[100]) - np.log(50)
                guide = np.exp(middle - (layers - 100) * log_factors(name, rho)[0])
                above.plot(layers, guide, ":", color=GUIDE, linewidth=1)
            noisiest = runs.classifier(name, 0.6)["g_aa"]
            error = np.hypot(noisiest.error(200), noisiest.error())[:DEPTH]
            below.fill_between(np.arange(DEPTH), 1 - error, 1 + error, color="#e3e3e0", zorder=0)
            _log(above, "gradient metric", LIMITS[name])
            above.set_xlabel("")
            plain_log(below)
            below.set_ylim(0.3, 3.3)
            below.set_xlabel(LAYER)
            above.set_title(NAMES[name])
        for axes in grid[:, 1:].flat:
            axes.set_ylabel("")
        grid[1, 0].set_ylabel("published/ours")
        _keys(
            figure,
            shades,
            [
                ("line", r"$g_{aa}$, ours"),
                ("dashed", r"mean $|g_a g_b|$, ours"),
                ("o", r"$g_{aa}$, published"),
                ("s", r"mean $|g_a g_b|$, published"),
                ("dotted", r"slope $\ln\chi_1$"),
            ],
        )
        return finish(figure, target)


def figure_four(runs: Runs, target: Path) -> Figure:
    """Variance against mean, and what is left when the mean squared is divided out."""
    with style():
        figure = page((9.6, 6.0))
        above, below = figure.subplots(2, 3, squeeze=False)
        for axes, metric, name in (
            (above[0], "g_aa", r"$g_{aa}$"),
            (above[1], "g_ab_abs", r"mean $|g_a g_b|$"),
            (above[2], "g_ab", r"$g_{ab}$"),
        ):
            _spread(axes, runs, metric)
            axes.set_title(name)
        above[0].set_ylabel("variance")
        above[0].legend(handlelength=0.8, loc="upper left")
        _walk(below[0], runs)
        _width(below[1], runs)
        _sample_mean(below[2], runs)
        return finish(figure, target)


def _spread(axes: Axes, runs: Runs, metric: str) -> None:
    means = []
    for index, activation in enumerate(NAMES):
        colour = COLOURS[index]
        for rho in runs.keeps:
            if metric == "g_ab" and rho == 1:
                continue
            run = sampled(runs, activation, rho)[metric]
            deep = EVERY[EVERY > 0]
            axes.plot(
                np.abs(run.mean[deep]),
                run.deviation[deep] ** 2,
                color=colour,
                linewidth=0.7,
                alpha=0.7,
                label=NAMES[activation] if rho == 0.6 else None,
            )
            theirs = visible(spreads()[activation, NARROW, rho, metric])
            axes.plot(np.abs(theirs.mean), theirs.variance, MARKERS[index], color=colour, **DOTS)
            means.append(np.abs(theirs.mean))
    ends = np.array([1e-46, 1e26])
    axes.plot(ends, ends**2 * 1e4, ":", color=GUIDE)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("|mean|")
    _few(axes)


def _walk(axes: Axes, runs: Runs) -> None:
    """V/m^2 against Var ln g: one curve for everything log-normal."""
    for index, activation in enumerate(NAMES):
        x, y = [], []
        for rho in runs.keeps:
            run = sampled(runs, activation, rho)["g_aa"]
            x.append(run.var_log[EVERY[::2]])
            y.append((run.deviation / run.mean)[EVERY[::2]] ** 2)
        axes.plot(
            np.concatenate(x),
            np.concatenate(y),
            MARKERS[index],
            color=COLOURS[index],
            label=NAMES[activation],
            **DOTS,
        )
    line = np.geomspace(0.02, 6, 60)
    axes.plot(line, np.expm1(line), color=GUIDE, linewidth=1, label=r"$e^x - 1$")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.015, 100)
    axes.set_xlabel(r"Var $\ln g_{aa}$")
    axes.set_ylabel(r"$V/m^2$")
    axes.set_title("one log-normal curve, ours")
    axes.legend(handlelength=0.8, loc="upper left")


def _width(axes: Axes, runs: Runs) -> None:
    shades = sequence(len(WIDTHS))
    for width, colour in zip(WIDTHS, shades, strict=True):
        theirs = spreads()["tanh", width, 0.9, "g_aa"]
        depth = (DEPTH - theirs.layers) / width
        ratio = theirs.variance / theirs.mean**2
        axes.plot(depth, ratio, "o", color=colour, label=f"n = {width}", **DOTS)
        if width in runs.widths:
            ours = np.expm1(sampled(runs, "tanh", 0.9, width)["g_aa"].var_log[:DEPTH:4])
            axes.plot((DEPTH - np.arange(0, DEPTH, 4)) / width, ours, color=colour, linewidth=0.8)
    line = np.geomspace(0.01, 2.2, 60)
    law = rate("tanh", 0.9).rate
    axes.plot(line, np.expm1(law * line), color=GUIDE, linewidth=1, label=rf"$e^{{{law:.2f}x}}-1$")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.03, 1e4)
    axes.set_xlim(0.01, 2.5)
    axes.set_xlabel(r"layers to the loss over width, $k/n$")
    axes.set_title(r"$V/m^2$, published; $e^{\mathrm{Var\,ln}\,g}-1$, ours")
    axes.legend(handlelength=0.8, loc="upper left")


def _sample_mean(axes: Axes, runs: Runs) -> None:
    """Distribution of V/(m^2 N) of g_ab: that of one over a squared normal number."""
    from scipy.stats import norm

    published, ours = [], []
    inner = EVERY[(EVERY > 0) & (EVERY < DEPTH - 40)]
    for activation, rho in runs.dropped:
        theirs = visible(spreads()[activation, NARROW, rho, "g_ab"])
        deep = theirs.layers > 0
        published.append((theirs.variance / theirs.mean**2 / theirs.nets)[deep])
        run = sampled(runs, activation, rho)["g_ab"]
        ours.append((run.deviation[inner] / run.mean[inner]) ** 2 / run.nets)
    for values, colour, name in (
        (np.concatenate(published), COLOURS[1], "published, N = 100"),
        (np.concatenate(ours), COLOURS[0], "ours, other N"),
    ):
        ordered = np.sort(values)
        axes.step(ordered, np.linspace(0, 1, len(ordered)), color=colour, label=name, linewidth=1)
    line = np.geomspace(1e-2, 1e4, 100)
    axes.plot(line, 2 * norm.sf(line**-0.5), color=GUIDE, linewidth=1, label=r"$1/z^2$, $z$ normal")
    axes.axvline(1 / NORMAL_SQUARE, color=GUIDE, linewidth=0.7, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlim(1e-2, 1e4)
    axes.set_xlabel(r"$V/(m^2 N)$ of $g_{ab}$, $N$ networks")
    axes.set_ylabel("share of layers below")
    axes.set_title("a mean that is only scatter")
    axes.legend(handlelength=1, loc="lower right")


def figure_mechanisms(runs: Runs, target: Path) -> Figure:
    """The absolute value, the noise floor and the tied response, one panel each."""
    with style():
        figure = page((9.8, 3.5))
        first, second, third = figure.subplots(1, 3)
        _absolute(first, runs)
        _floor(second, runs)
        _response(third, runs)
        for axes in (first, second, third):
            axes.set_yscale("log")
            axes.set_xlabel(BACK)
        return finish(figure, target)


def _absolute(axes: Axes, runs: Runs) -> None:
    run = readout(runs, mechanisms.WIDE)
    hops = np.arange(mechanisms.DEPTH)
    single, pair = factors(tanh())
    for values, index, name in (
        (run.aa, 6, r"E $G_{aa}$"),
        (run.ab_abs, 0, r"E $\sum|g_a g_b|$"),
        (run.ab, 1, r"|E $G_{ab}$|"),
    ):
        axes.plot(hops, np.abs(values.mean(0)), color=COLOURS[index], label=name)
    error = run.ab.std(0, ddof=1) / len(run.ab) ** 0.5
    axes.plot(hops, error, ":", color=COLOURS[1], linewidth=1, label="its standard error")
    start = run.ab.mean(0)[3]
    near = hops[3:31]
    axes.plot(near, start * np.exp(pair * (near - 3)) * 0.5, "--", color=GUIDE, linewidth=1)
    axes.text(13, 2e-4, r"slope $\ln\chi_2$", color=GUIDE, fontsize="small", ha="right")
    axes.plot(hops[3:], 0.16 * np.exp(single * hops[3:]), "--", color=GUIDE, linewidth=1)
    axes.text(26, 0.14, r"slope $\ln\chi_1$", color=GUIDE, fontsize="small")
    axes.set_ylim(1e-4, 20)
    axes.set_ylabel("relative to the loss")
    axes.set_title(f"1  absolute value (tanh, n = {mechanisms.WIDE})")
    axes.legend(handlelength=1.4, loc="upper left", ncols=2, columnspacing=0.8)


def _floor(axes: Axes, runs: Runs) -> None:
    hops = np.arange(1, mechanisms.DEPTH + 1)
    shades = sequence(len(mechanisms.WIDTHS))
    for width, colour in zip(mechanisms.WIDTHS, shades, strict=True):
        for tied, dashes in ((True, "-"), (False, ":")):
            cosine = readout(runs, width, tied).cosine
            size = np.sqrt(np.square(cosine).mean(0))[: len(hops)]
            label = f"n = {width}" if tied else None
            axes.plot(hops[: len(size)], size, dashes, color=colour, label=label)
        law = floor(width)
        axes.plot([law.crossover, hops[-1]], [law.cosine] * 2, color=GUIDE, linewidth=0.8)
    single, pair = factors(tanh())
    near = np.arange(1, 17)
    axes.plot(near, 0.5 * np.exp((pair - single) * near), "--", color=GUIDE, linewidth=1)
    axes.text(16, 0.0145, r"slope $\ln(\chi_2/\chi_1)$", color=GUIDE, fontsize="small")
    axes.plot([], [], ":", color=GUIDE, label="untied weights")
    axes.plot([], [], color=GUIDE, linewidth=0.8, label="law of the floor")
    axes.set_ylim(0.012, 1.3)
    axes.set_ylabel(r"rms $\cos(\delta_a, \delta_b)$")
    axes.set_title("2  noise floor (tanh)")
    axes.legend(handlelength=1.4, loc="upper right")


def _response(axes: Axes, runs: Runs) -> None:
    hops = np.arange(mechanisms.RESPONSE_DEPTH)
    for loss, index, name in (
        ("quadratic", 1, "ReLU, wide quadratic loss"),
        ("readout", 0, "ReLU, readout"),
    ):
        values = responding(runs, loss).ab
        mean, error = values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5
        kept = mean > 3 * error
        kept[int(np.argmin(kept)) or len(kept) :] = False
        colour = COLOURS[index]
        axes.errorbar(
            hops[kept], mean[kept], 2 * error[kept], fmt="o", color=colour, label=name, **DOTS
        )
        theory = mechanisms.expected(mechanisms.relu(), loss, len(hops))[1]  # type: ignore[arg-type]
        axes.plot(hops, theory, color=colour, linewidth=1)
    for tied, dashes, name in ((True, "-", "linear, tied"), (False, ":", "linear, untied")):
        values = mechanisms.linear_response(0.6, tied)
        axes.plot(hops, values, dashes, color=COLOURS[2], label=f"{name} (exact)")
    axes.set_ylim(1e-8, 1e5)
    axes.set_ylabel(r"E $G_{ab}$ over E $G_{aa}$ at the loss")
    axes.set_title("3  tied response")
    axes.legend(handlelength=1.4, loc="upper right")


def figure_training(runs: Runs, target: Path) -> Figure:
    """The authors' trainable lengths against the depth scales, and training speeds."""
    keeps = (1.0, 0.99, 0.98, 0.95)
    with style():
        figure = page((9.8, 5.6))
        grid = figure.subplots(2, 3, squeeze=False)
        panels = [*grid[0], grid[1, 0]]
        for axes, rho in zip(panels, keeps, strict=True):
            _lengths(axes, rho)
        panels[0].legend(handlelength=1.2, loc="upper right", fontsize=7)
        for axes in panels[1:]:
            points = [line for line in axes.get_lines() if line.get_marker() != "None"]
            axes.legend(handles=points, handlelength=1.2, loc="upper right", fontsize=7)
        for axes in grid[:, 0]:
            axes.set_ylabel("depth")
        _errors(grid[1, 1])
        _speeds(grid[1, 2], runs)
        return finish(figure, target)


def _lengths(axes: Axes, rho: float) -> None:
    mine = [h for h in training.halves() if h.rho == rho]
    names = list(dict.fromkeys(h.panel for h in mine))
    for index, name in enumerate(names):
        points = [(h.variance, h.depth) for h in mine if h.panel == name and np.isfinite(h.depth)]
        axes.plot(
            *zip(*points, strict=True),
            MARKERS[index],
            color=COLOURS[6],
            label=f"panel {name}",
            **DOTS,
        )
    axes.set_yscale("log")
    one = [h for h in mine if h.panel == names[0]]
    for form, index, dashes in (
        ("12 xi1", 1, "-"),
        ("6 xi2", 2, ":"),
        ("min(12 xi1, 8 xi2)", 0, "--"),
    ):
        axes.plot(
            [h.variance for h in one],
            [training.FORMS[form](h) for h in one],
            dashes,
            color=COLOURS[index],
            label=form.replace("xi1", r"$\xi_1$").replace("xi2", r"$\xi_2$"),
        )
    axes.set_ylim(15, 2000)
    axes.set_xlabel(r"$\sigma_w^2$")
    axes.set_title(rf"accuracy half-way, $\rho$ = {rho:g}")


def _errors(axes: Axes) -> None:
    forms = list(training.FORMS)
    for offset, dropout, colour, name in (
        (-0.2, False, COLOURS[5], "without dropout"),
        (0.2, True, COLOURS[1], "with dropout"),
    ):
        sizes = [training.rms(training.log_errors(form, dropout)) for form in forms]
        axes.barh(np.arange(len(forms)) + offset, sizes, 0.36, color=colour, label=name)
    labels = [form.replace("xi1", r"$\xi_1$").replace("xi2", r"$\xi_2$") for form in forms]
    labels = [label.replace(", ", ",\n") for label in labels]
    axes.set_yticks(np.arange(len(forms)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 0.9)
    axes.set_xlabel("rms error of ln depth")
    axes.set_title("which form predicts")
    axes.legend(handlelength=1, loc="lower right")


def _speeds(axes: Axes, runs: Runs) -> None:
    """Published and own, ours times one factor, on one constant over the kernel's contrast."""
    size = np.exp(speed.published_logs(speed.ISOMETRIC).mean())
    scale = speed.published_over_own(runs)
    line = np.arange(10, speed.DEEPEST + 1)
    for index, rho in enumerate(speed.RHOS):
        depths, products, spreads_ = speed.speeds(rho)
        colour, marker = COLOURS[index], MARKERS[index]
        label = rf"$\rho$ = {rho:g}, published"
        axes.errorbar(
            depths, products, products * spreads_, fmt=marker, color=colour, label=label, **DOTS
        )
        depths, products = speed.own_speeds(runs, rho)
        axes.plot(depths, products * scale, "x", color=colour, markersize=3.5, alpha=0.8)
        law = speed.contrasts(rho, speed.ISOMETRIC, speed.PUBLISHED_FIRST)
        axes.plot(line, size / law[line - 1], color=colour, linewidth=1)
    axes.plot([], [], "x", color=GUIDE, markersize=3.5, label=f"ours, times {scale:.1f}")
    axes.plot([], [], color=GUIDE, linewidth=1, label="one constant over $D$")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.008, 30)
    axes.set_xlabel("depth")
    axes.set_ylabel(r"steps $\times$ learning rate")
    axes.set_title("training to accuracy 0.25")
    axes.legend(handlelength=0.8, loc="upper left", fontsize=7)


def _kept(runs: Runs, shades: list[Any]) -> list[tuple[float, Any]]:
    """The rho that were sampled with their colours."""
    return [(rho, colour) for rho, colour in zip(KEEPS, shades, strict=True) if rho in runs.keeps]


def _line(
    axes: Axes, values: Any, colour: Any, label: str | None, dashes: str = "-", first: int = 0
) -> None:
    axes.plot(
        np.arange(first, first + len(values)),
        values,
        dashes,
        color=colour,
        label=label,
        linewidth=1.1,
    )


def _published(
    axes: Axes, figure: str, name: str, rho: float, metric: str, colour: Any, marker: str = "o"
) -> None:
    shown = seen(curves()[figure, name, rho, metric])
    keep = (shown.layers % 10 == 0) | (shown.layers > 180) & (metric == "g_ab")
    axes.plot(shown.layers[keep], np.abs(shown.values[keep]), marker, color=colour, **DOTS)


def _log(axes: Axes, name: str, limits: tuple[float, float]) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    axes.set_xlabel(LAYER)
    axes.set_ylabel(name)
    _few(axes)


def _few(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(numticks=6))
            axis.set_minor_locator(NullLocator())


def _keys(figure: Figure, shades: list[Any], kinds: list[tuple[str, str]]) -> None:
    """One legend below: colours are rho, and what lines and markers are."""
    from matplotlib.lines import Line2D

    looks: dict[str, dict[str, Any]] = {
        "line": {},
        "thin": {"linewidth": 0.7},
        "dashed": {"linestyle": "--"},
        "dotted": {"linestyle": ":"},
        "o": {"marker": "o", **DOTS},
        "s": {"marker": "s", **DOTS},
    }
    handles = [Line2D([], [], color=c, linewidth=2) for c in shades]
    names = [rf"$\rho$ = {rho:g}" for rho in KEEPS]
    handles += [Line2D([], [], color=GUIDE, **looks[kind]) for kind, _ in kinds]
    names += [name for _, name in kinds]
    figure.legend(handles, names, loc="outside lower center", ncols=5, columnspacing=1.2)


def figures(runs: Runs) -> dict[str, Any]:
    """Every figure by its file name, as a function that writes it to a path."""
    draws = {
        "linear.svg": figure_two,
        "metrics.svg": figure_three,
        "spread.svg": figure_four,
        "mechanisms.svg": figure_mechanisms,
        "training.svg": figure_training,
    }
    return {name: _bound(draw, runs) for name, draw in draws.items()}


def _bound(draw: Any, runs: Runs) -> Any:
    return lambda path: draw(runs, path)

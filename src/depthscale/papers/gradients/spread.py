"""Claims on the variance of gradient metrics against their mean: what the exponent 2 is made of."""

from __future__ import annotations

import math

import numpy as np

from depthscale.papers.claims import Claim
from depthscale.papers.gradients.common import DEPTH, KEEPS, NAMES, claim, log_factors, number
from depthscale.papers.gradients.metrics import rate
from depthscale.papers.gradients.published import Spread, spreads
from depthscale.papers.gradients.runs import NARROW, WIDTHS, Moments, Runs
from depthscale.theory.gaussian import Array

WHERE = "figures 4 and 5: variance against mean"
SMALL = 1e-18
"""Published means below this have variances that are float32 underflow."""

CRITICAL = ("tanh", 0.7)
"""The setting whose mean hardly changes: ln chi_1 = 0.003."""

EVERY = np.arange(0, DEPTH, 10)
"""The layers of figures 4 and 5."""

NORMAL_SQUARE = 0.4549
"""Median of the square of a standard normal number."""


def figures_four_and_five(runs: Runs) -> list[Claim]:
    """The exponent, where it comes from, and where there is none."""
    return [
        *(_exponent(runs, metric) for metric in ("g_aa", "g_ab_abs")),
        _signed(runs),
        _log_normal(runs),
        _growth(runs),
        _critical(runs),
        _widths(),
        _collapse(runs),
    ]


def sampled(runs: Runs, activation: str, rho: float, width: int = NARROW) -> dict[str, Moments]:
    """As in figure 4: linear networks have the loss of figure 2."""
    if activation == "identity":
        return runs.linear(rho)
    return runs.classifier(activation, rho, width)


def visible(spread: Spread) -> Spread:
    """Without float32 underflow."""
    keep = np.abs(spread.mean) > SMALL
    return Spread(spread.layers[keep], spread.mean[keep], spread.variance[keep], spread.nets)


def _exponent(runs: Runs, metric: str) -> Claim:
    theirs, ours = {}, {}
    for activation in NAMES:
        shown = [visible(spreads()[activation, NARROW, rho, metric]) for rho in KEEPS]
        theirs[activation] = _power([(s.mean, s.variance) for s in shown])
        found = [sampled(runs, activation, rho)[metric] for rho in runs.keeps]
        ours[activation] = _power([(m.mean[EVERY], m.deviation[EVERY] ** 2) for m in found])
    worst = max([*theirs.values(), *ours.values()], key=lambda s: abs(s - 2))
    listed = ", ".join(f"{NAMES[a]} {theirs[a]:.3f} and {ours[a]:.3f}" for a in NAMES)
    shown_as = {"g_aa": "g_aa", "g_ab_abs": "mean |g_a g_b|"}[metric]
    return number(
        "both",
        WHERE,
        f"the variance of {shown_as} grows like its mean squared: exponent over all rho and layers,"
        " the one farthest from 2 of four published and four sampled",
        2.0,
        worst,
        0.1,
        "V/m^2 changes by a factor 10 to 100 with depth while m changes by 10 to 70 decades",
        f"width {NARROW}; published and sampled: {listed}. That it is near 2 says that the means"
        " range over many more decades than V/m^2 does",
        agreed="confirmed in a window",
    )


def _power(points: list[tuple[Array, Array]]) -> float:
    mean, variance = (np.log(np.concatenate(x)) for x in zip(*points, strict=True))
    return float(np.polyfit(mean, variance, 1)[0])


def _signed(runs: Runs) -> Claim:
    theirs, ours, sizes = [], [], []
    for activation, rho in runs.dropped:  # without dropout pairs coalesce: their mean is no scatter
        spread = visible(spreads()[activation, NARROW, rho, "g_ab"])
        theirs.append(spread.variance / spread.mean**2 / spread.nets)
        run = sampled(runs, activation, rho)["g_ab"]
        sizes.append(run.nets)
        # the layer of the inputs is left out: they are orthogonal, and g_ab is 0 there
        deep = EVERY[(EVERY > 0) & (EVERY < DEPTH - 40)]
        ours.append((run.deviation[deep] / run.mean[deep]) ** 2 / run.nets)
    medians = [float(np.median(np.concatenate(x))) for x in (theirs, ours)]
    scatter = 1 / NORMAL_SQUARE
    return claim(
        "both",
        WHERE,
        "the variance of g_ab grows like its mean squared",
        "refuted" if all(scatter / 2 < x < 2 * scatter for x in medians) else "confirmed",
        ours=medians[0],
        note="our number is the median of V/(m^2 N) for N networks in the published data (N = 100):"
        f" it is {scatter:.2f} if m is nothing but the scatter of a mean over N; in our networks,"
        f" N = {min(sizes)} or {max(sizes)}, it is {medians[1]:.2f}. The exponent 2 is that of a"
        " sample mean, m^2 = V z^2/N: with ten times the networks the line moves by ten.",
    )


def _log_normal(runs: Runs) -> Claim:
    offs = []
    for activation, rho in runs.settings:
        run = sampled(runs, activation, rho)["g_aa"]
        near = EVERY[run.var_log[EVERY] < 0.5]
        ratio = np.log1p((run.deviation[near] / run.mean[near]) ** 2) / run.var_log[near]
        offs.append(float(np.mean(ratio)))
    return number(
        "ours",
        WHERE,
        "g_aa is log-normal: ln(1 + V/m^2) over Var ln g_aa, mean over settings",
        1.0,
        float(np.mean(offs)),
        0.1,
        "the sample variance of some hundred log-normal numbers is more often too small",
        f"+- {np.std(offs, ddof=1) / math.sqrt(len(offs)):.3f}; where Var ln g_aa < 0.5. Beyond,"
        " the sample's mean and variance rest on its few largest networks and V/m^2 comes out too"
        " small, in the published data as well: there, use Var ln g_aa",
    )


def _growth(runs: Runs) -> Claim:
    ratios, errors = [], []
    for activation, rho in runs.settings:
        if activation == "identity":
            continue  # with their loss gradients are no walk in the last layers
        run = sampled(runs, activation, rho)["g_aa"]
        low, high = 20, DEPTH - 20
        expected = rate(activation, rho).rate * (high - low) / NARROW
        ratios.append((run.var_log[low] - run.var_log[high]) / expected)
        errors.append(math.sqrt(2 / run.nets))
    mean, error = float(np.mean(ratios)), float(np.mean(errors)) / math.sqrt(len(ratios))
    return number(
        "ours",
        WHERE,
        "Var ln g_aa grows by rate/n a layer: measured over the law, mean over settings",
        1.0,
        mean,
        max(0.1, 4 * error),
        "the next order in depth/width, 0.4 here, and sampling",
        f"+- {error:.3f}, n = {NARROW}; so V/m^2 = exp(rate k/n) - 1, k layers below the loss. The"
        f" rate is {rate('tanh', 0.9).rate:.2f} for tanh at rho = 0.9, 6/rho - 1 for ReLU and"
        " 3/rho - 1 for linear networks",
    )


def _critical(runs: Runs) -> Claim:
    run = sampled(runs, *CRITICAL)["g_aa"]
    theirs = visible(spreads()[(CRITICAL[0], NARROW, CRITICAL[1], "g_aa")])
    grown = [
        (x.max() / x.min(), y.max() / y.min())
        for x, y in (
            (theirs.mean, theirs.variance / theirs.mean**2),
            (run.mean[EVERY], (run.deviation[EVERY] / run.mean[EVERY]) ** 2),
        )
    ]
    (mean, ratio), (our_mean, our_ratio) = grown
    power = _power([(theirs.mean, theirs.variance)])
    return claim(
        "both",
        WHERE,
        "the exponent 2 is universal: all curves of different activations and rho collapse on it",
        "confirmed in a window" if abs(power - 2) > 0.5 else "confirmed",
        stated=2.0,
        ours=power,
        note=f"our number is the exponent of the authors' own {NAMES[CRITICAL[0]]} at rho ="
        f" {CRITICAL[1]:g}, where ln chi_1 = {log_factors(*CRITICAL)[0]:.3f}: their mean changes by"
        f" a factor {mean:.1f} and V/m^2 by {ratio:.0f} (ours {our_mean:.1f} and {our_ratio:.0f})."
        " Their notebook leaves this curve out of figure 4, width 100 out of figure 5, and g_ab at"
        " rho = 1. There is a line only where the mean changes exponentially",
    )


def _widths() -> Claim:
    log_rate = rate("tanh", 0.9).rate
    found, listed = [], []
    for width in WIDTHS[1:]:
        spread = spreads()["tanh", width, 0.9, "g_aa"]
        hops = DEPTH - spread.layers
        near = log_rate * hops / width < 1
        ratio = np.log1p(spread.variance / spread.mean**2)[near] / (log_rate * hops / width)[near]
        found.append(float(np.mean(ratio)))
        last = math.log1p(spread.variance[0] / spread.mean[0] ** 2)
        listed.append(f"{last:.2f} and {log_rate * hops[0] / width:.2f} at n = {width}")
    return number(
        "ours",
        WHERE,
        "V/m^2 falls with width like exp(rate k/n) - 1 in the published data of figure 5: ln(1 +"
        " V/m^2) over the law, mean of four widths",
        1.0,
        float(np.mean(found)),
        0.25,
        "100 networks know V to a third",
        f"where the law is below 1; at layer 0, published and law: {'; '.join(listed)}. The curves"
        " of figure 5 collapse only because the axes span 30 decades",
    )


def _collapse(runs: Runs) -> Claim:
    law, low, high = rate("tanh", 0.9).rate, 20, DEPTH - 20
    ratios = {}
    for width in runs.widths:
        run = sampled(runs, "tanh", 0.9, width)["g_aa"]
        grown = run.var_log[low] - run.var_log[high]
        ratios[width] = float(grown / (law * (high - low) / width))
    listed = ", ".join(f"{ratio:.3f} at n = {width}" for width, ratio in ratios.items())
    wide = [ratio for width, ratio in ratios.items() if width > WIDTHS[0]]
    return number(
        "ours",
        WHERE,
        "Var ln g_aa of networks of different widths is one function of k/n, rate k/n: measured"
        " over the law, mean of the widths above 100",
        1.0,
        float(np.mean(wide)),
        0.1,
        "some hundred networks of each width",
        f"tanh, rho = 0.9: {listed}. At n = 100 k/n reaches 2, beyond the first order",
    )

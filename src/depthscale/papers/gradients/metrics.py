"""Claims on the gradient metrics of nonlinear networks: one depth scale or two."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from depthscale.papers.claims import Claim
from depthscale.papers.gradients.common import (
    DEPTH,
    KEEPS,
    NAMES,
    claim,
    field,
    log_factors,
    number,
    verdict_if,
)
from depthscale.papers.gradients.linear import seen
from depthscale.papers.gradients.published import Curve, curves
from depthscale.papers.gradients.runs import CLASSES, WIDTH, Runs
from depthscale.theory.activation import activation as named
from depthscale.theory.gaussian import Array
from depthscale.theory.gradient_laws import LogNormalRate, log_normal_rate
from depthscale.theory.gradients import predict_gradients
from depthscale.theory.meanfield import MeanField

WHERE = "figure 3: one depth scale for one input and for two"
PUBLISHED_NETS = 200
SETTINGS = tuple((activation, rho) for activation in NAMES for rho in KEEPS)
DEEP = (20, 180)
"""Layers between which depth scales are read: away from inputs and loss."""


def figure_three(runs: Runs) -> list[Claim]:
    """Which loss, which scales, and what the absolute value does."""
    return [
        _loss(runs),
        *(_sizes(runs, metric) for metric in ("g_aa", "g_ab_abs")),
        *(_scale(metric) for metric in ("g_aa", "g_ab_abs")),
        _logarithms(runs),
        _means(runs),
    ]


def curve(activation: str, rho: float, metric: str) -> Curve:
    """As published, without float32 underflow."""
    return seen(curves()["3", activation, rho, metric])


def rate(activation: str, rho: float) -> LogNormalRate:
    """Of the spread of ``ln g_aa``."""
    found = log_normal_rate(field(activation, rho))
    assert isinstance(found, LogNormalRate)
    return found


@cache
def independent(activation: str, rho: float) -> tuple[Array, Array]:
    """``g_aa`` and ``g_ab`` by layer at infinite width, for unit gradients at the outputs."""
    network = field(activation, rho)
    first = MeanField(named("identity"), network.sigma_w, network.sigma_b)
    widths = [WIDTH] * (DEPTH + 1) + [CLASSES]
    found = predict_gradients(
        [first] + [network] * DEPTH, widths, eps=1.0, loss="linear", tied=False
    )
    sizes = found.weights * CLASSES
    return found.grad_aa / sizes, found.grad_ab / sizes


def _loss(runs: Runs) -> Claim:
    ratios, wide = [], []
    for activation, rho in runs.settings:
        theirs = curve(activation, rho, "g_aa").values[-1]
        ratios.append(math.log(theirs / runs.classifier(activation, rho)["g_aa"].mean[DEPTH - 1]))
        network = field(activation, rho)
        signal = (float(network.q) - network.sigma_b**2) / network.sigma_w**2
        wide.append(math.log(4 * float(network.q) * signal / theirs))
    low, high = (f"{math.exp(f(wide)):.0f}" for f in (min, max))
    return number(
        "ours",
        WHERE,
        f"the published curves are those of softmax cross-entropy of {CLASSES} outputs with two"
        " different labels: log of published over sampled g_aa of layer 199, mean over curves",
        0.0,
        float(np.mean(ratios)),
        0.05,
        "g_aa there depends by a few per cent on the biases of the outputs, of which nothing is"
        " known",
        f"the squared norm of a wide output, the loss of figure 2, would give {low} to {high} times"
        " the published values, and g_ab of the other sign. Inputs: two fixed Gaussian vectors of"
        " length 1, unmasked; the last of the 200 layers is masked",
    )


def _sizes(runs: Runs, metric: str) -> Claim:
    scores, ratios = [], []
    for activation, rho in runs.settings:
        theirs, ours = curve(activation, rho, metric), runs.classifier(activation, rho)[metric]
        off = np.log(theirs.values / ours.mean[theirs.layers])
        error = np.hypot(ours.error(PUBLISHED_NETS), ours.error())[theirs.layers]
        scores.append(float(np.sqrt(np.mean((off / error) ** 2))))
        ratios.append(np.abs(off))
    ends = [np.log10(np.abs(curve(*s, metric).values)) for s in runs.settings]
    low, high = min(x.min() for x in ends), max(x.max() for x in ends)
    return number(
        "ours",
        WHERE,
        f"the published {_shown(metric)} are reproduced in absolute size, at all layers of all"
        " activations and rho: median of |ln(published/sampled)|",
        0.0,
        float(np.median(np.concatenate(ratios))),
        0.1,
        "one standard error of such means, 2 % at the loss and 20 % at the inputs",
        f"no parameter is fitted; the values span 10^{low:.0f} to 10^{high:.0f}. In standard errors"
        f" of log-normal means over {PUBLISHED_NETS} and {_nets(runs)} networks the rms is"
        f" {np.sqrt(np.mean(np.square(scores))):.1f}: a few per cent, most of them of ReLU, are"
        " more than sampling",
    )


def _nets(runs: Runs) -> int:
    return runs.classifier(*runs.settings[0])["g_aa"].nets


def slope(layers: Array, logs: Array) -> float:
    """Growth per layer towards the input, of a line through the layers of ``DEEP``."""
    deep = (layers >= DEEP[0]) & (layers <= DEEP[1])
    return -float(np.polyfit(layers[deep], logs[deep], 1)[0])


def _slope_error(activation: str, rho: float, layers: Array) -> float:
    """Of a line through means over the published networks, log-normal walks.

    Of the largest variance, at the far end; a fitted line has 6/5 of the error of its end points.
    """
    span = float(min(DEEP[1], layers.max()) - max(DEEP[0], layers.min()))
    variance = math.expm1(rate(activation, rho).rate * span / WIDTH) / PUBLISHED_NETS
    return math.sqrt(1.2 * variance) / span


def _scale(metric: str) -> Claim:
    offs, scores = {}, []
    for activation, rho in SETTINGS:
        theirs = curve(activation, rho, metric)
        found = slope(theirs.layers, np.log(theirs.values))
        offs[activation, rho] = found - log_factors(activation, rho)[0]
        scores.append(offs[activation, rho] / _slope_error(activation, rho, theirs.layers))
    worst = max(offs, key=lambda s: abs(offs[s]))
    return number(
        "both",
        WHERE,
        f"{_shown(metric)} follows chi_1^(L-l): rate per layer of the published curve minus"
        " ln chi_1, the worst of 20",
        0.0,
        offs[worst],
        0.005,
        "a twentieth of the least distance of ln chi_1 and ln chi_2 under dropout",
        f"layers {DEEP[0]} to {DEEP[1]}; worst for {NAMES[worst[0]]} at rho = {worst[1]:g}; rms"
        f" {np.sqrt(np.mean(np.square(list(offs.values())))):.4f}, in standard errors"
        f" {np.sqrt(np.mean(np.square(scores))):.1f}. ln chi_1 runs from"
        f" {min(log_factors(*s)[0] for s in SETTINGS):.3f} to"
        f" {max(log_factors(*s)[0] for s in SETTINGS):.3f}, ln chi_2 from"
        f" {min(log_factors(*s)[1] for s in SETTINGS if s[1] < 1):.3f} to"
        f" {max(log_factors(*s)[1] for s in SETTINGS if s[1] < 1):.3f} for rho < 1",
    )


def _logarithms(runs: Runs) -> Claim:
    scores, walks = [], []
    for activation, rho in runs.settings:
        run, law = runs.classifier(activation, rho)["g_aa"], rate(activation, rho)
        assert isinstance(law.drift, float)
        low, high = DEEP
        span = high - low
        grown = run.mean_log[low] - run.mean_log[high]
        expected = span * (math.log(law.gradient_factor) + law.drift / WIDTH)
        variance = law.rate * span / WIDTH
        scores.append((grown - expected) / math.sqrt(variance / run.nets))
        walks.append((run.var_log[low] - run.var_log[high]) / variance)
    return number(
        "ours",
        WHERE,
        "a typical g_aa decays faster than the mean, E ln g_aa by ln chi_1 + drift/n a layer: rms"
        " deviation from the law in standard errors, all settings",
        1.0,
        float(np.sqrt(np.mean(np.square(scores)))),
        0.6,
        "four standard errors of an rms of 20 numbers are 0.63",
        f"n = {WIDTH}; the drift is -1 to -4.5, so that the median network is a factor up to"
        f" {math.exp(4.5 * 0.2):.1f} below the mean at layer 0. Var ln g_aa grows by rate/n a"
        f" layer: measured over law {np.mean(walks):.3f} +- {_sem(walks):.3f}",
    )


def _means(runs: Runs) -> Claim:
    places: list[float] = []
    listed: dict[str, int] = {}
    for activation, rho in runs.dropped:
        run = runs.classifier(activation, rho)["g_ab"]
        single, pair = log_factors(activation, rho)
        error = run.deviation / math.sqrt(run.nets) / np.abs(run.mean)
        lost = np.flatnonzero(error[:DEPTH] > 0.25)
        layers = np.arange(lost[-1] + 1, DEPTH)
        if len(layers) < 3:
            continue
        ours, limit = (
            -float(np.polyfit(layers, np.log(np.abs(values[layers])), 1)[0])
            for values in (run.mean, independent(activation, rho)[1])
        )
        places.append((ours - limit) / (single - pair))
        listed[activation] = max(listed.get(activation, 0), len(layers))
    place = float(np.mean(places))
    return claim(
        "both",
        WHERE,
        "the lengths that gradients of one input and of a pair of inputs travel back have one depth"
        " scale, that of chi_1",
        "confirmed in a window" if abs(place) < 0.3 else verdict_if(abs(place - 1) < 0.3),
        ours=place,
        note="true of mean |g_a g_b|, see above, whose signs do not cancel, and not of E g_ab: our"
        " number is where the rate of E g_ab lies between the predictions with chi_2 (0) and chi_1"
        f" (1), +- {_sem(places):.3f} over {len(places)} settings with rho < 1, in the last"
        f" {max(listed.values())} layers at most, where the mean of our networks exceeds four"
        " errors. Below those, a mean over networks is scatter",
    )


def _shown(metric: str) -> str:
    return {"g_aa": "g_aa", "g_ab_abs": "mean |g_a g_b|"}[metric]


def _sem(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))

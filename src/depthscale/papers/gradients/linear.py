"""Claims on linear networks: the exact computation, and what 100 networks can show of it."""

from __future__ import annotations

from functools import cache

import numpy as np

from depthscale.papers.claims import Claim
from depthscale.papers.gradients.common import (
    DEPTH,
    KEEPS,
    SMALLEST,
    claim,
    field,
    log_factors,
    number,
)
from depthscale.papers.gradients.published import Curve, curves
from depthscale.papers.gradients.runs import NARROW, WIDTH, Runs, inputs
from depthscale.theory.activation import activation as named
from depthscale.theory.gaussian import Array
from depthscale.theory.gradients import predict_gradients
from depthscale.theory.linear import linear_moments
from depthscale.theory.meanfield import MeanField

WHERE = "figure 2: exact computation on linear networks"
PUBLISHED_NETS = 100


def stated(rho: float) -> tuple[Array, Array]:
    """The paper's ``g_aa`` and ``g_ab`` by layer, for ``E = |h^L|^2`` at the fixed point.

    ``g_aa^l = 4 (q/rho)^2 chi^k (rho + chi + ... + chi^k)`` with ``chi = sigma_w^2/rho`` and
    ``g_ab^l = 4 p^2 sigma_w^(2k) (1 + r + ... + r^k)`` with ``r = sigma_w^2/rho^2``,
    ``k = L - 1 - l``.
    """
    network = field("identity", rho)
    weight, q = network.sigma_w**2, float(network.q)
    p = q * (1 - float(network.eps))
    hops = np.arange(DEPTH)[::-1]
    powers = np.arange(DEPTH)
    single = np.cumsum((weight / rho) ** powers) - 1 + rho
    pair = np.cumsum((weight / rho**2) ** powers)
    return (
        np.asarray(4 * (q / rho) ** 2 * (weight / rho) ** hops * single[hops]),
        np.asarray(4 * p**2 * weight**hops * pair[hops]),
    )


@cache
def exact(rho: float, width: int = NARROW) -> tuple[Array, Array]:
    """``E g_aa`` and ``E g_ab`` at finite width, for the orthogonal inputs of length 1."""
    found = linear_moments(_layers(rho), [width] * (DEPTH + 1), eps=1.0).gradient
    return 4 * found[:, 0, 0] / width**2, 4 * found[:, 0, 1] / width**2


def figure_two(runs: Runs) -> list[Claim]:
    """The formulas, and both metrics against them."""
    return [_formula(), _finite_width(), _settings(), _single(runs), *_pair(runs), _decay()]


def _layers(rho: float) -> list[MeanField]:
    network = field("identity", rho)
    first = MeanField(named("identity"), network.sigma_w, network.sigma_b)
    return [first] + [network] * (DEPTH - 1)


def _formula() -> Claim:
    worst = 0.0
    for rho in KEEPS:
        length, eps = inputs(field("identity", rho))
        found = predict_gradients(
            _layers(rho), [1] * (DEPTH + 1), q1=length, q2=length, eps=max(eps, 0.0)
        )
        for ours, theirs in zip((found.grad_aa, found.grad_ab), stated(rho), strict=True):
            # the inputs are not masked: hop 0 is not at the fixed point of the others
            worst = max(worst, float(np.abs(4 * ours / theirs - 1)[1:].max()))
    return number(
        "both",
        WHERE,
        "the sums for g_aa and g_ab of linear dropout networks are exact in the limit of large"
        " width: largest relative difference to the recursion with tied weights",
        0.0,
        worst,
        1e-9,
        "rounding over 200 layers",
        f"rho {', '.join(f'{rho:g}' for rho in KEEPS)}, at the fixed point of lengths and"
        " covariances; the sums do hold the response of the loss to the weights that gradients"
        " meet again, which the independence assumption leaves out",
    )


def _finite_width() -> Claim:
    off = {n: max(_off(rho, n) for rho in KEEPS) for n in (NARROW, WIDTH)}
    return number(
        "ours",
        WHERE,
        f"finite width changes both means like 1/n: largest relative difference in the upper"
        f" half of the layers at n = {NARROW} over that at n = {WIDTH}",
        WIDTH / NARROW,
        off[NARROW] / off[WIDTH],
        0.05,
        "the next order is relatively of the size of the first, a few per cent",
        f"from the exact moments of networks of finite width: {off[NARROW]:.2g} and"
        f" {off[WIDTH]:.2g}",
    )


def _off(rho: float, width: int) -> float:
    pairs = zip(exact(rho, width), stated(rho), strict=True)
    late = slice(DEPTH // 2, None)  # by then nothing is left of the start
    return max(float(np.abs(ours / theirs - 1)[late].max()) for ours, theirs in pairs)


def _settings() -> Claim:
    ratios = [_curve(rho, "g_aa").values[-1] / exact(rho)[0][-1] for rho in KEEPS]
    return number(
        "ours",
        WHERE,
        "the published g_aa of the last layer is that of the loss |h|^2 of an output as wide as"
        " the network, without a factor 1/2: ratio to the exact value, mean over rho",
        1.0,
        float(np.mean(ratios)),
        0.05,
        "100 networks, 12 % each, and five values of rho",
        f"the linear curves in the authors' file are means over {PUBLISHED_NETS} networks of width"
        f" {NARROW}, the ones of figure 4, value for value; the caption has width 1000. The wanted"
        " output is 0 and the inputs are two Gaussian vectors of length 1",
    )


def _single(runs: Runs) -> Claim:
    scores, curves_used = [], []
    for rho in runs.keeps:
        curve = seen(_curve(rho, "g_aa"))
        theory, run = exact(rho)[0][curve.layers], runs.linear(rho)["g_aa"]
        error = run.error(PUBLISHED_NETS)[curve.layers]
        scores.append(float(np.sqrt(np.mean((np.log(curve.values / theory) / error) ** 2))))
        curves_used.append(f"{scores[-1]:.2f} at rho = {rho:g}")
    return number(
        "both",
        WHERE,
        "g_aa agrees with simulations over all layers: rms over layers and rho of the published"
        " deviation from the exact value, in standard errors of 100 networks",
        1.0,
        float(np.sqrt(np.mean(np.square(scores)))),
        1.0,
        "neighbouring layers share their fluctuation, so five curves are few independent numbers",
        f"by curve: {', '.join(curves_used)}; over up to 40 decades",
    )


def _pair(runs: Runs) -> list[Claim]:
    theirs, ours, ends = [], [], []
    for rho in runs.keeps:
        if rho == 1:
            continue
        curve, run = _curve(rho, "g_ab"), runs.linear(rho)["g_ab"]
        theory = exact(rho)[1]
        keep = (curve.layers > 0) & (np.abs(curve.values) > SMALLEST)
        layers = curve.layers[keep]
        scatter = run.deviation[layers] / PUBLISHED_NETS**0.5
        theirs.append((curve.values[keep] - theory[layers]) / scatter)
        ours.append((run.mean - theory)[1:] / run.deviation[1:] * run.nets**0.5)
        ends.append((rho, *resolved(runs, rho)))
    medians = [float(np.median(np.abs(np.concatenate(x)))) for x in (theirs, ours)]
    largest = float(np.abs(np.concatenate(ours)).max())
    nets = runs.linear(runs.keeps[0])["g_ab"].nets
    listed = ", ".join(f"{few} and {many} at rho = {rho:g}" for rho, few, many in ends)
    return [
        claim(
            "both",
            WHERE,
            "the theory fails to predict g_ab, except in the last few layers",
            "refuted" if largest < 5 else "confirmed",
            ours=largest,
            note="our number is the largest deviation of our mean from the exact one over all"
            f" layers and rho < 1, in standard errors of {nets} networks; the median is"
            f" {medians[1]:.2f}. What fails is the average: single networks scatter about E g_ab by"
            " far more than its size, because that scatter follows chi_1 and the mean does not",
        ),
        number(
            "ours",
            WHERE,
            "the published g_ab are E g_ab plus the scatter of a mean over 100 networks: median of"
            " |deviation| in standard errors",
            0.674,
            medians[0],
            0.35,
            "0.674 for a normal law; less where the scatter rests on rare networks, and layers"
            " fluctuate together",
            "standard errors from our networks",
        ),
        claim(
            "ours",
            WHERE,
            "the last layers, in which theory and simulations agree, are those in which the mean"
            " exceeds its error",
            "confirmed",
            note=f"number of layers from the loss with E g_ab above three standard errors of"
            f" {PUBLISHED_NETS} and of {nets} networks: {listed}. A layer more costs a factor"
            " (chi_1/chi_2)^2 in networks",
        ),
    ]


def resolved(runs: Runs, rho: float) -> tuple[int, int]:
    """Layers from the loss whose mean of 100, and of our networks, is above three errors."""
    run, theory = runs.linear(rho)["g_ab"], exact(rho)[1]
    counts = []
    for nets in (PUBLISHED_NETS, run.nets):
        lost = theory < 3 * run.deviation / nets**0.5
        counts.append(DEPTH - 1 - int(np.flatnonzero(lost)[-1]))
    return counts[0], counts[1]


def _decay() -> Claim:
    slopes, listed = [], []
    for rho in KEEPS[:-1]:
        curve = seen(_curve(rho, "g_ab"))
        deep = (curve.layers >= 20) & (curve.layers <= 150)
        # one or two layers of a mean of random sign are near 0: their median slope is robust
        slope = -_robust_slope(curve.layers[deep], np.log(np.abs(curve.values[deep])))
        slopes.append(slope - log_factors("identity", rho)[0])
        listed.append(f"{slope:.4f} against {log_factors('identity', rho)[0]:.4f} at {rho:g}")
    worst = max(slopes, key=abs)
    return claim(
        "both",
        WHERE,
        "g_ab does not follow chi_1^(L-l) either (panel d)",
        "refuted" if abs(worst) < 0.02 else "confirmed",
        ours=worst,
        note="our number is the rate per layer of the published |g_ab|, layers 20 to 150, minus"
        f" ln chi_1, for the worst rho; both by rho: {'; '.join(listed)}. The published means are"
        " scatter there, and this is how scatter decays; their amplitude and sign are random",
    )


def _robust_slope(x: Array, y: Array) -> float:
    """Median of the slopes of all pairs of points (Theil and Sen)."""
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def _curve(rho: float, metric: str) -> Curve:
    return curves()["2", "identity", rho, metric]


def seen(curve: Curve) -> Curve:
    """Without float32 underflow."""
    keep = np.abs(curve.values) > SMALLEST
    return Curve(curve.layers[keep], curve.values[keep])

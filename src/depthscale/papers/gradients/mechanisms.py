"""Why one depth scale appears: three mechanisms, switched on one at a time.

1. The absolute value. The signs of ``g_a g_b`` cancel, which makes ``E g_ab`` decay with chi_2;
   ``mean |g_a g_b|`` cannot cancel and follows chi_1 at any width.
2. The noise floor. The product of two gradients in a single network of finite width is never
   smaller than chance makes it: its size follows chi_1 below the floor, tied weights or not.
3. The tied response. Where the loss responds to the whole output (``E = |h|^2/2`` of a wide one),
   gradients meet the weights again that the signal has passed. In linear and ReLU networks that
   response decays like chi_1, and ``E g_ab`` itself with ``max(chi_1^2, chi_2)``.

The loss of 1 and 2 is a readout independent of the network, which excludes 3.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from depthscale.papers.claims import Claim
from depthscale.papers.gradients.common import factors, field, number
from depthscale.papers.gradients.runs import PairRun, Runs, inputs
from depthscale.theory.activation import activation as named
from depthscale.theory.gaussian import Array
from depthscale.theory.gradient_laws import NoiseFloor, noise_floor
from depthscale.theory.gradients import Loss, predict_gradients
from depthscale.theory.linear import linear_moments
from depthscale.theory.meanfield import MeanField

WHERE = "three mechanisms behind one depth scale"
DEPTH = 60
WIDTHS = (250, 1000, 4000)
WIDE = WIDTHS[-1]
DEEP = 30
"""Layers from the loss at which every width is on its floor."""

RESPONSE_DEPTH, RESPONSE_WIDTH = 40, 1000
RESAMPLES = 200


class Fit(NamedTuple):
    """A rate per layer with its standard error."""

    rate: float
    error: float

    def __str__(self) -> str:
        return f"{self.rate:.4f} +- {self.error:.4f}"


@cache
def tanh() -> MeanField:
    """Slightly chaotic, with dropout: chi_1 = 1.026, chi_2 = 0.806."""
    return MeanField(named("tanh"), math.sqrt(1.7), math.sqrt(0.05), drop=0.1)


@cache
def relu() -> MeanField:
    """ReLU on its critical line: chi_1 = 1."""
    return MeanField(named("relu"), math.sqrt(1.8), drop=0.1)


def readout(runs: Runs, width: int, tied: bool = True) -> PairRun:
    """Mechanisms 1 and 2: tanh with a readout that is independent of the network."""
    return runs.pairs(tanh(), "readout", width, tied, DEPTH)


def responding(runs: Runs, loss: str) -> PairRun:
    """Mechanism 3: critical ReLU with a wide quadratic loss, or a readout as the control."""
    return runs.pairs(relu(), loss, RESPONSE_WIDTH, True, RESPONSE_DEPTH)


def three_mechanisms(runs: Runs) -> list[Claim]:
    """Each with its control."""
    return [
        *_absolute(runs),
        *_floor(runs),
        _linear_response(),
        *_relu_response(runs),
    ]


def floor(width: int) -> NoiseFloor:
    """The law for ``tanh()``."""
    found = noise_floor(tanh(), width)
    assert isinstance(found, NoiseFloor)
    return found


def fitted(values: Array, low: int, high: int, seed: int = 1) -> Fit:
    """Rate per layer of a mean over networks, by a line from ``low`` to ``high``; bootstrapped.

    Args:
        values: ``[net, layer from the loss]``.
        low, high: first and last layer of the fit, from the loss.
        seed: of the resampling of networks.
    """
    nets, layers = len(values), np.arange(low, high + 1)
    draws = np.random.default_rng(seed).multinomial(nets, np.full(nets, 1 / nets), RESAMPLES)
    means = np.vstack([values.mean(0), draws @ values / nets])[:, layers]
    with np.errstate(invalid="ignore"):
        slopes = np.polyfit(layers, np.log(means).T, 1)[0]
    return Fit(float(slopes[0]), float(np.nanstd(slopes[1:])))


def expected(network: MeanField, loss: Loss, depth: int, tied: bool = True) -> tuple[Array, Array]:
    """``g_aa`` and ``g_ab`` at infinite width, from the loss downwards, relative to the first."""
    length, eps = inputs(network)
    first = MeanField(named("identity"), network.sigma_w, network.sigma_b)
    found = predict_gradients(
        [first] + [network] * (depth - 1),
        [1] * (depth + 1),
        q1=length,
        q2=length,
        eps=eps,
        loss=loss,
        tied=tied,
    )
    aa, ab = found.grad_aa[::-1], found.grad_ab[::-1]
    return aa / aa[0], ab / aa[0]


def _absolute(runs: Runs) -> list[Claim]:
    run, (single, pair) = readout(runs, WIDE), factors(tanh())
    low, high = 5, round(floor(WIDE).crossover) - 4
    signed, absolute = (fitted(values, low, high) for values in (run.ab, run.ab_abs))
    where = f"layers {low} to {high} from the loss, above the floor, width {WIDE}"
    distance = single - pair
    return [
        number(
            "ours",
            WHERE,
            "mechanism 1, absolute value off: E g_ab has the rate ln chi_2",
            pair,
            signed.rate,
            max(4 * signed.error, 0.02 * distance),
            "four standard errors, or a fiftieth of the distance to ln chi_1",
            f"+- {signed.error:.4f}; tanh, sigma_w^2 = 1.7, sigma_b^2 = 0.05, rho = 0.9, {where}",
        ),
        number(
            "ours",
            WHERE,
            "mechanism 1, absolute value on: mean |g_a g_b| has the rate ln chi_1",
            single,
            absolute.rate,
            max(4 * absolute.error, 0.05 * distance),
            "four standard errors, or a twentieth of the distance to ln chi_2: the law of the two"
            " gradients settles as their correlation goes",
            f"+- {absolute.error:.4f}; the same networks and layers. ln chi_2 = {pair:.4f}",
        ),
    ]


def _floor(runs: Runs) -> list[Claim]:
    claims, single = [], factors(tanh())[0]
    measured = {
        (width, tied): _cosine(readout(runs, width, tied).cosine[:, DEEP:])
        for width in WIDTHS
        for tied in (True, False)
    }
    for tied, how in ((True, "tied"), (False, "independent weights backwards")):
        ratios = {n: measured[n, tied].rate / floor(n).cosine for n in WIDTHS}
        worst = max(WIDTHS, key=lambda n: abs(ratios[n] - 1))
        listed = ", ".join(f"{measured[n, tied]} at n = {n}" for n in WIDTHS)
        claims.append(
            number(
                "ours",
                WHERE,
                f"mechanism 2, {how}: rms cosine of the gradients of two inputs deep below the"
                " loss over sqrt(beta/(n (chi_1^2 - chi_2^2))), the worst width",
                1.0,
                ratios[worst],
                max(0.05, 4 * measured[worst, tied].error / measured[worst, tied].rate),
                "four standard errors; corrections are of relative order 1/n",
                f"layers {DEEP} to {DEPTH - 1}: {listed}; law "
                + ", ".join(f"{floor(n).cosine:.4f}" for n in WIDTHS),
            )
        )
    rates = []
    for width in WIDTHS[:2]:
        values = readout(runs, width).ab[:, DEEP:] ** 2
        rates.append(fitted(values, 0, DEPTH - DEEP - 1))
    halves = [Fit(fit.rate / 2, fit.error / 2) for fit in rates]
    listed = ", ".join(f"{fit} at n = {n}" for fit, n in zip(halves, WIDTHS, strict=False))
    claims.append(
        number(
            "ours",
            WHERE,
            "mechanism 2 without an absolute value in a network: rms g_ab over networks has the"
            f" rate ln chi_1 below the floor, n = {WIDTHS[1]}",
            single,
            halves[1].rate,
            max(4 * halves[1].error, 0.01),
            "four standard errors",
            f"{listed}; ln chi_2 = {factors(tanh())[1]:.4f}. Its square has heavier tails than"
            " g_aa, and grows by the spread of a log-normal walk on top, of order 1/n",
        )
    )
    return claims


def _cosine(cosines: Array) -> Fit:
    """Root mean square over networks and layers, with the standard error over networks."""
    squares = np.square(cosines).mean(1)
    mean, error = squares.mean(), squares.std(ddof=1) / math.sqrt(len(squares))
    return Fit(math.sqrt(mean), error / (2 * math.sqrt(mean)))


def linear_response(rho: float, tied: bool) -> Array:
    """Exact ``E g_ab`` of the linear networks of figure 2, from the loss downwards."""
    network = field("identity", rho)
    length, eps = inputs(network)
    first = MeanField(named("identity"), network.sigma_w, network.sigma_b)
    found = linear_moments(
        [first] + [network] * (RESPONSE_DEPTH - 1),
        [RESPONSE_WIDTH] * (RESPONSE_DEPTH + 1),
        q1=length,
        q2=length,
        eps=max(eps, 0.0),
    )
    values = (found.gradient if tied else found.gradient_untied)[::-1, 0, 1]
    return np.asarray(values / found.gradient[-1, 0, 0])


def _linear_response() -> Claim:
    rho = 0.6
    single, pair = factors(field("identity", rho))
    rates = {
        tied: float(np.diff(np.log(linear_response(rho, tied)))[-8:-4].mean())
        for tied in (True, False)
    }
    return number(
        "ours",
        WHERE,
        f"mechanism 3, linear networks of figure 2 at rho = {rho:g}: E g_ab has the rate"
        " 2 ln chi_1, not ln chi_2",
        2 * single,
        rates[True],
        0.01,
        "layers 32 to 36 from the loss, where the other term is e^-10 of this one; 1/n",
        f"exact at n = {RESPONSE_WIDTH}; with independent weights backwards {rates[False]:.4f},"
        f" which is ln chi_2 = {pair:.4f}. So the paper's own formula has a pair that outlives"
        f" chi_2 where chi_1^2 > chi_2, rho <= 0.7 in figure 2",
    )


def _relu_response(runs: Runs) -> list[Claim]:
    single, pair = factors(relu())
    claims = []
    cases: tuple[tuple[Loss, tuple[int, int], str], ...] = (
        ("quadratic", (4, 12), "mechanism 3 on (wide quadratic loss), critical ReLU: E g_ab does"),
        ("readout", (1, 6), "mechanism 3 off (readout), critical ReLU: E g_ab decays and does"),
    )
    for loss, (low, high), words in cases:
        fit = fitted(responding(runs, loss).ab, low, high)
        theory = np.log(expected(relu(), loss, RESPONSE_DEPTH)[1])[low : high + 1]
        limit = float(np.polyfit(np.arange(low, high + 1), theory, 1)[0])
        claims.append(
            number(
                "ours",
                WHERE,
                f"{words} as the theory says, rate per layer",
                limit,
                fit.rate,
                max(4 * fit.error, 0.02),
                "four standard errors",
                f"+- {fit.error:.4f}; sigma_w^2 = 1.8, rho = 0.9, layers {low} to {high} from the"
                f" loss, above the floor, n = {RESPONSE_WIDTH}; ln chi_1 = {single:.4f}, ln chi_2 ="
                f" {pair:.4f}",
            )
        )
    return claims

"""Claims on shaped ReLU networks: the covariance equation against exact networks."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from depthscale.finite.chain.density import chain_density
from depthscale.finite.chain.plan import Route
from depthscale.finite.diffusion.covariance import sample_covariance
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.law import DensityLaw
from depthscale.finite.diffusion.shaped import ShapedReLU
from depthscale.papers.claims import Claim
from depthscale.papers.judging import Measured, listed, mean_of, measured, near, sd_of, verdict_if
from depthscale.papers.limits.common import COVARIANCE, RELU
from depthscale.papers.limits.runs import Networks, Runs
from depthscale.theory.gaussian import Array

WHERE = "shaped ReLU networks: the covariance equation"
SHAPED = ShapedReLU(0.0, -1.0)
SYMMETRIC = ShapedReLU(0.5, -0.5)
RHO0 = 0.3
WIDTH = 200
TIMES = (0.25, 0.5)
NETS = 40_000
GRAM = ((1.0, 0.3, 0.0), (0.3, 1.0, 0.3), (0.0, 0.3, 1.0))


def shaped_networks(runs: Runs) -> list[Claim]:
    """The law, its moments, lengths, the approach in n, several inputs, and the unshaped ones."""
    return [
        _law(runs),
        *_moments(runs),
        *_lengths(runs),
        *_approach(),
        *_inputs(runs),
        _degenerate(runs),
    ]


@cache
def law() -> DensityLaw:
    """Of the correlation at ``TIMES``, slopes ``1`` and ``1 - 1/sqrt n``."""
    return density(SHAPED, SHAPED.start(rho=RHO0), TIMES, tolerance=1e-5)


def networks(runs: Runs) -> Networks:
    """Shaped ones at ``TIMES``."""
    layers = tuple(round(t * WIDTH) for t in TIMES)
    return runs.pairs(SHAPED.layer(WIDTH), WIDTH, layers, 1 - RHO0, NETS)


def unshaped(runs: Runs) -> Networks:
    """ReLU networks of the same width and depths from the same correlation."""
    layers = tuple(round(t * WIDTH) for t in TIMES)
    return runs.pairs(RELU, WIDTH, layers, 1 - RHO0, NETS // 10)


@cache
def chained(layers: tuple[int, ...] = tuple(round(t * WIDTH) for t in TIMES)) -> DensityLaw:
    """Of unshaped networks, by the chain."""
    route = Route.of("relu", [WIDTH] * (max(layers) + 1), 1 - RHO0, start="pinned")
    return chain_density(route, list(layers))


def _law(runs: Runs) -> Claim:
    found = networks(runs)
    apart = [law().distance(1 - eps, k, "rho") for k, eps in enumerate(found.eps)]
    return near(
        COVARIANCE,
        "both",
        WHERE,
        f"the equation closely matches the distribution of the correlation of finite networks:"
        f" Kolmogorov-Smirnov distance at n = {WIDTH}, the larger of t = 0.25 and 0.5",
        max(apart),
        found.nets,
        0.01,
        "the noise of 40,000 networks, 0.0068, and 1/(2n) for what finite width adds",
        f"slopes 1 and 1 - 1/sqrt n, rho_0 = {RHO0}; by time {listed(np.array(apart), 2)}",
    )


def _moments(runs: Runs) -> list[Claim]:
    rho = 1 - networks(runs).eps[-1]
    cases = (
        ("mean", mean_of(rho), law().mean("rho").value[-1]),
        ("standard deviation", sd_of(rho), law().sd("rho").value[-1]),
    )
    return [
        measured(
            COVARIANCE,
            "ours",
            WHERE,
            f"{name} of the correlation at t = 0.5",
            theory,
            found,
            0.02,
            "the bend is (1 + 1/sqrt n) times that of the limit, which moves the mean by 0.0035",
            f"n = {WIDTH}, {rho.size} networks",
        )
        for name, found, theory in cases
    ]


def _lengths(runs: Runs) -> list[Claim]:
    log = np.log(networks(runs).length[-1])
    expected = SHAPED.log_length(TIMES[-1])
    variance = sd_of(log)
    cases = (
        ("mean", mean_of(log), expected.mean, 0.03),
        (
            "variance",
            Measured(variance.value**2, 2 * variance.value * variance.error),
            expected.variance,
            0.06,
        ),
    )
    return [
        measured(
            COVARIANCE,
            "both",
            WHERE,
            f"the squared norm is log-normal, log V ~ N(-t, 2t): {name} of log V at t = 0.5",
            theory,
            found,
            resolution,
            "terms of relative order 1/n and three standard errors of 40,000 networks",
            f"n = {WIDTH}, {log.size} networks; skewness of log V"
            f" {float(np.mean(((log - log.mean()) / log.std()) ** 3)):.3f}",
        )
        for name, found, theory, resolution in cases
    ]


def excess(shaped: ShapedReLU, width: int) -> float:
    """Mean correlation at t = 0.5 by the chain at this width, less that of the limit."""
    up, down = (1 + c / math.sqrt(width) for c in (shaped.c_plus, shaped.c_minus))
    route = Route.of(
        f"shaped_relu({down!r}, {up!r})", [width] * (width // 2 + 1), 1 - RHO0, start="pinned"
    )
    mean = chain_density(route, [width // 2]).mean("rho").value[0]
    return float(mean - law().mean("rho").value[-1])


def _approach() -> list[Claim]:
    widths = (64, 192, 512)
    slow, fast = (np.array([excess(s, n) for n in widths]) for s in (SHAPED, SYMMETRIC))
    powers = np.array([[n ** (-k / 2) for k in (1, 2, 3)] for n in widths])
    first, second, _ = np.linalg.solve(powers, slow)
    told = (
        "mean correlation at t = 0.5 by the chain at n = 64, 192 and 512, less the limit's:"
        f" {listed(slow, 3)} and, with opposite c, {listed(fast, 3)}"
    )
    return [
        Claim.number(
            COVARIANCE,
            "ours",
            WHERE,
            "slopes 1 and 1 - 1/sqrt n approach the limit as slowly as 1/sqrt n, since their bend"
            " is (1 + 1/sqrt n + ..) Dc^2/n: coefficient in the mean correlation at t = 0.5",
            _by_bending(),
            first,
            0.05 * _by_bending(),
            "the fit leaves out terms of order 1/n^2",
            f"stated is d(E rho)/d(Dc^2); {told}; the next coefficient, of 1/n, is {second:.3f}",
        ),
        Claim.number(
            COVARIANCE,
            "ours",
            WHERE,
            "slopes 1 + c/sqrt n and 1 - c/sqrt n approach it like 1/n: order between n = 192 and"
            " 512",
            1.0,
            math.log(fast[1] / fast[2]) / math.log(widths[2] / widths[1]),
            0.05,
            "terms of order 1/n^(3/2), which are absent by symmetry, and 1/n^2",
            told,
        ),
    ]


def _by_bending() -> float:
    """Derivative of the limit's mean correlation at t = 0.5 by ``Dc^2``."""
    step = 0.05
    means = []
    for bending in (1 - step, 1 + step):
        bent = ShapedReLU(math.sqrt(bending), 0.0)
        means.append(
            float(
                density(bent, bent.start(rho=RHO0), TIMES[-1:], tolerance=1e-5).mean("rho").value[0]
            )
        )
    return (means[1] - means[0]) / (2 * step)


def _inputs(runs: Runs) -> list[Claim]:
    width, depth = 100, 50
    nets = runs.inputs(SHAPED.layer(width), width, depth, GRAM, 20_000)
    theory = sample_covariance(SHAPED, GRAM, [depth / width], runs.count(40_000), seed=3)
    rho = theory.correlations[0]
    limit = np.array([rho[:, 0, 1], rho[:, 0, 2], rho[:, 1, 2]])
    (ours, error), (wanted, own) = _together(nets), _together(limit)
    apart = theory.correlation(0, 2).distance(nets[1], 0, "rho")
    both = 1 / (1 / nets.shape[1] + 1 / limit.shape[1])
    return [
        near(
            COVARIANCE,
            "both",
            WHERE,
            "of three inputs too: Kolmogorov-Smirnov distance of the correlation of the two that"
            " start at rho = 0, n = 100, t = 0.5",
            apart,
            int(both),
            0.02,
            "noise of both samples and 1/n",
            f"{nets.shape[1]} networks against {limit.shape[1]} paths of the matrix equation, which"
            f" count as {int(both)} networks; rho_0 = 0.3, 0, 0.3",
        ),
        measured(
            COVARIANCE,
            "both",
            WHERE,
            "the equation has the joint law of several inputs: correlation coefficient, over"
            " networks, of rho_12 and rho_23",
            wanted,
            Measured(ours, math.hypot(error, own)),
            0.05,
            "noise of both samples, 1/sqrt N each, and 1/n",
            f"that of independent pairs is 0; {nets.shape[1]} networks at n = {width},"
            f" {limit.shape[1]} paths",
        ),
    ]


def _together(rho: Array) -> Measured:
    """Correlation coefficient of the first and the last pair."""
    value = float(np.corrcoef(rho[0], rho[2])[0, 1])
    return Measured(value, 1 / math.sqrt(rho.shape[1]))


def _degenerate(runs: Runs) -> Claim:
    plain, kept = unshaped(runs), networks(runs)
    low = float(np.quantile(1 - plain.eps[-1], 0.05))
    high = float(np.quantile(1 - kept.eps[-1], 0.95))
    return Claim(
        COVARIANCE,
        "both",
        WHERE,
        "without shaping the correlations of deep networks degenerate, with it they keep a law of"
        " their own",
        verdict_if(low > 0.95 > high),
        ours=low,
        note=f"our number is the correlation that 95 % of {plain.nets} unshaped ReLU networks"
        f" exceed at n = {WIDTH}, t = 0.5, from rho_0 = {RHO0}; 95 % of shaped ones are below"
        f" {high:.3f}"
        f" and 5 % below {float(np.quantile(1 - kept.eps[-1], 0.05)):.3f}. The rule: the first"
        " above 0.95 and the second below it",
    )

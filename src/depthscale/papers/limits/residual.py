"""Claims on residual networks: the shaped network that equals them, and what differs."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from depthscale.finite.diffusion.law import Estimate
from depthscale.finite.diffusion.residual import ResidualReLU
from depthscale.finite.diffusion.shaped import ShapedReLU
from depthscale.papers.claims import Claim
from depthscale.papers.judging import Measured, listed, measured, sd_of, verdict_if
from depthscale.papers.limits.common import LIMITS
from depthscale.papers.limits.runs import Runs
from depthscale.papers.limits.shaped import RHO0, SHAPED, SYMMETRIC
from depthscale.theory.activation import activation as named
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

WHERE = "theorem: residual networks equal shaped ones"
DEPTHS = (16, 64, 256)
RESIDUAL = ResidualReLU(1.0)
SERIES: dict[str, ResidualReLU | ShapedReLU] = {
    "residual": RESIDUAL,
    "shaped, slopes $1$ and $1 - d^{-1/2}$": SHAPED,
    r"shaped, slopes $1 \pm d^{-1/2}/2$": SYMMETRIC,
}
STATED = {(1.0, 0.0): 0.141348, (1.0, 0.3): 0.382947, (2.0, 0.0): 0.253859, (2.0, 0.3): 0.451690}
"""The correlation at t = 1, by ``Dc^2`` and the correlation at t = 0."""

RESIDUAL_NETS = ((64, 16), (64, 64), (64, 256))
SHAPED_NETS = ((256, 8), (256, 16), (256, 32))
"""Width and depth."""


def residual_networks(runs: Runs) -> list[Claim]:
    """The equality, its convergence in depth, and the fluctuations of both."""
    return [
        _equal(),
        *_values(),
        *_orders(),
        *_fluctuations(runs),
        _smooth(),
    ]


@cache
def at_depth(network: ResidualReLU | ShapedReLU, depth: int, rho0: float) -> float:
    """The correlation behind ``depth`` layers at infinite width."""
    return _behind(network.layer(depth), depth, rho0)


def _behind(layer: MeanField, depth: int, rho0: float) -> float:
    first, second, eps = 1.0, 1.0, 1 - rho0
    for _ in range(depth):
        first, second, eps = (float(x) for x in layer.pair_map(first, second, eps))
        if layer.scale_free:
            first = second = 1.0
    return 1 - eps


def off(network: ResidualReLU | ShapedReLU) -> Array:
    """What networks of ``DEPTHS`` are off their common limit at t = 1, from rho = 0.3."""
    limit = float(SHAPED.mean_field(1.0, rho0=RHO0).rho[0])
    return np.array([at_depth(network, depth, RHO0) - limit for depth in DEPTHS])


def _extrapolated(network: ResidualReLU | ShapedReLU, rho0: float) -> float:
    """At infinite depth, from three depths of errors in whole powers of 1/d."""
    values = [at_depth(network, depth, rho0) for depth in (64, 128, 256)]
    first = [2 * b - a for a, b in pairwise(values)]
    return (4 * first[1] - first[0]) / 3


def _equal() -> Claim:
    worst = 0.0
    for sigma2 in (0.5, 2.0):
        residual = ResidualReLU(sigma2)
        half = math.sqrt(sigma2) / 2
        for rho0 in (-0.5, 0.3, 0.9):
            apart = _extrapolated(residual, rho0) - _extrapolated(ShapedReLU(half, -half), rho0)
            worst = max(worst, abs(apart))
    return Claim.number(
        LIMITS,
        "both",
        WHERE,
        "residual networks with branches over sqrt d and shaped ReLU networks at rate d^-1/2 have"
        " one limit in depth: largest difference of their correlations at t = 1",
        0.0,
        worst,
        1e-7,
        "both are extrapolated from depths 64, 128 and 256, which leaves terms of order 1/d^3",
        "infinite width, from the layers' own maps; sigma^2 = 0.5 and 2 of the branches, rho_0 ="
        " -0.5, 0.3, 0.9; the shaped network has Dc^2 = sigma^2 (r_+ - r_-)^2",
    )


def _values() -> list[Claim]:
    claims = []
    for (bending, rho0), stated in STATED.items():
        claims.append(
            Claim.number(
                LIMITS,
                "ours",
                WHERE,
                f"correlation at t = 1 from rho_0 = {rho0:g} at Dc^2 = {bending:g}",
                stated,
                float(ShapedReLU(math.sqrt(bending), 0.0).mean_field(1.0, rho0=rho0).rho[0]),
                5e-7,
                "half a unit of the last digit",
                "by the equation rho' = nu(rho); residual networks of 64 to 256 layers,"
                f" extrapolated, give {_extrapolated(ResidualReLU(bending), rho0):.8f}",
            )
        )
    return claims


def _orders() -> list[Claim]:
    claims = []
    words = ("residual", "shaped with slopes 1 and 1 - 1/sqrt d", "shaped with opposite c")
    for text, network, order in zip(words, SERIES.values(), (1.0, 0.5, 1.0), strict=True):
        apart = off(network)
        found = math.log(apart[-2] / apart[-1]) / math.log(DEPTHS[-1] / DEPTHS[-2])
        claims.append(
            Claim.number(
                LIMITS,
                "ours",
                WHERE,
                f"order in 1/d of the approach to the common limit: {text}",
                order,
                found,
                0.06,
                "the next order at d = 64 and 256",
                f"off by {listed(apart, 3)} at d = {', '.join(map(str, DEPTHS))}, from rho_0 ="
                f" {RHO0}",
            )
        )
    return claims


class Scatter(NamedTuple):
    """Standard deviation of the correlation at t = 1 over networks of one size."""

    width: int
    depth: int
    found: Measured


def scatter(runs: Runs, network: ResidualReLU | ShapedReLU, width: int, depth: int) -> Scatter:
    """Networks that start at exactly rho = 0.3."""
    nets = runs.pairs(network.layer(depth), width, (depth,), 1 - RHO0, 20_000)
    return Scatter(width, depth, sd_of(1 - nets.eps[0]))


@cache
def _constant(depth: int, paths: int) -> Estimate:
    return RESIDUAL.fluctuation(depth, RHO0, paths=paths, seed=1)


def constant(runs: Runs, depth: int) -> Estimate:
    """``sqrt n`` times the deviation of the correlation of wide residual networks at t = 1."""
    return _constant(depth, runs.count(200_000))


def _fluctuations(runs: Runs) -> list[Claim]:
    claims = []
    for width, depth in RESIDUAL_NETS:
        theory = constant(runs, depth)
        found = scatter(runs, RESIDUAL, width, depth).found
        claims.append(
            _scaled(
                f"the correlation of residual networks scatters by a constant over sqrt n whatever"
                f" the depth: n = {width}, d = {depth}, times sqrt n",
                float(theory.value),
                found,
                math.sqrt(width),
                "the constant is that of large width at this depth, by Monte Carlo over paths of"
                f" one unit, error {float(theory.error):.1g}",
            )
        )
    theory_of = float(SYMMETRIC.fluctuation(1.0, rho0=RHO0)[0])
    for width, depth in SHAPED_NETS:
        found = scatter(runs, SYMMETRIC, width, depth).found
        claims.append(
            _scaled(
                f"that of shaped networks by a constant times sqrt(d/n), so that they need d << n:"
                f" n = {width}, d = {depth}, times sqrt(n/d)",
                theory_of,
                found,
                math.sqrt(width / depth),
                "the constant is that of small noise about rho' = nu(rho)",
            )
        )
    return claims


def _scaled(statement: str, stated: float, found: Measured, factor: float, note: str) -> Claim:
    return measured(
        LIMITS,
        "ours",
        WHERE,
        statement,
        stated,
        Measured(found.value * factor, found.error * factor),
        0.06,
        "terms of relative order 1/d, d/n and 1/n, each a few per cent, and three errors of 1/2 %",
        note,
    )


def smooth_pair(depth: int) -> tuple[float, float]:
    """The correlation at t = 1 from 0.3: residual tanh networks, and shaped tanh networks."""
    residual = MeanField(named("tanh"), 1 / math.sqrt(depth), skip=1.0)
    # s tanh(x/s) with s^2 = d, in the variable x/s
    shaped, first, second, eps = MeanField(named("tanh"), 1.0), 1 / depth, 1 / depth, 1 - RHO0
    for _ in range(depth):
        first, second, eps = (float(x) for x in shaped.pair_map(first, second, eps))
    return _behind(residual, depth, RHO0), 1 - eps


def _smooth() -> Claim:
    (half, shorter), (residual, shaped) = (smooth_pair(depth) for depth in (64, 128))
    apart, change = residual - shaped, residual - shaped - (half - shorter)
    return Claim(
        LIMITS,
        "ours",
        WHERE,
        "the equality is one of two slopes: residual and shaped tanh networks differ at t = 1",
        verdict_if(abs(apart) > 10 * abs(change)),
        ours=apart,
        note=f"from rho_0 = {RHO0} at infinite width and d = 128: residual {residual:.5f}, shaped"
        f" {shaped:.5f}; phi''(0) = 0 leaves the correlation of the shaped one as it is, while the"
        " branch of the residual one sees tanh at signals of order one. The rule: ten times as far"
        f" apart as their distance changes from d = 64 to 128, {change:.1g}",
    )

"""Claims on dropout in these limits: the field, its stationary law, Gaussian against Bernoulli."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy.stats import geninvgauss

from depthscale.finite.diffusion.alignment_paths import Jumps, sample_unshaped
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.law import DensityLaw, SampleLaw
from depthscale.finite.diffusion.unshaped import Unshaped
from depthscale.papers.claims import Claim
from depthscale.papers.judging import Measured, measured, near, sd_of, verdict_if
from depthscale.papers.limits.common import LIMITS, critical
from depthscale.papers.limits.runs import Runs
from depthscale.theory.activation import activation as named
from depthscale.theory.diffusion import (
    ScaledLimit,
    StationaryLaw,
    plateau_variance,
    stochastic_limit,
)
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

WHERE = "dropout in the equation of unshaped networks"
WIDTH = 128
OMEGA = 1.0
"""``n^2 p``: drops per width squared."""

MASKS = {"gaussian": "Gaussian noise", "independent": "Bernoulli masks"}
TIMES = (1.0, 3.0)
NETS = 20_000
PLATEAU = (512, 0.003)
"""Width and drop of ReLU networks."""


def dropped_networks(runs: Runs) -> list[Claim]:
    """The stationary law, the two noises against drift and jumps, kinked networks, plateaus."""
    return [
        _inverse_gaussian(),
        _settled(runs),
        *_noises(runs),
        _kinked(),
        *_plateaus(runs),
    ]


def layer(masks: str) -> MeanField:
    """tanh at ``q = 0.5`` with ``p = omega/n^2``."""
    return critical("tanh", 0.5, OMEGA / WIDTH**2, masks)


@cache
def scaled(masks: str) -> ScaledLimit:
    """Its equation at this width."""
    return stochastic_limit(layer(masks)).at_width(WIDTH)


def log_y(runs: Runs, masks: str) -> Array:
    """``log n (1 - rho)`` of networks from y = 1 at ``TIMES``, of Bernoulli masks at the first."""
    layers = tuple(round(t * WIDTH) for t in TIMES[: 2 if masks == "gaussian" else 1])
    found = runs.pairs(layer(masks), WIDTH, layers, 1 / WIDTH, NETS, 0.5)
    return np.asarray(np.log(WIDTH * found.eps))


@cache
def drift_law() -> DensityLaw:
    """The equation with the field as a drift."""
    return density(Unshaped(scaled("gaussian").equation), 0.0, TIMES, tolerance=1e-5)


@cache
def jump_law(paths: int) -> SampleLaw:
    """The equation with single drops in place of the field."""
    own = scaled("independent")
    assert own.drops is not None
    return sample_unshaped(own.equation, 0.0, TIMES, jumps=Jumps.of(own.drops), paths=paths, seed=7)


def jumps(runs: Runs) -> SampleLaw:
    """With so many paths that their noise does not count."""
    return jump_law(runs.count(400_000))


def stationary(masks: str = "gaussian") -> StationaryLaw:
    """At which the equation with the field settles."""
    law = scaled(masks).equation.stationary
    assert isinstance(law, StationaryLaw)
    return law


def _inverse_gaussian() -> Claim:
    law = stationary()
    scale = math.sqrt(law.push / law.bend)
    theirs = geninvgauss(law.power, 2 * math.sqrt(law.bend * law.push), scale=scale)
    y = np.geomspace(1e-2, 30, 60)
    apart = float(np.abs(law.cdf(np.log(y)) - theirs.cdf(y)).max())
    return Claim.number(
        LIMITS,
        "ours",
        WHERE,
        "with a field smooth networks settle at a generalised inverse Gaussian law of y: largest"
        " difference of the distribution function to scipy's",
        0.0,
        apart,
        1e-7,
        "scipy integrates its density numerically",
        f"tanh, n^2 p = {OMEGA:g}: E log y = {law.mean:.6f}, Var log y = {law.variance:.6f}",
    )


def _settled(runs: Runs) -> Claim:
    samples = np.sort(log_y(runs, "gaussian")[-1])
    below = stationary().cdf(samples)
    steps = np.arange(samples.size + 1) / samples.size
    apart = max(float(np.max(steps[1:] - below)), float(np.max(below - steps[:-1])))
    return near(
        LIMITS,
        "ours",
        WHERE,
        f"networks with Gaussian noise have that law at t = {TIMES[-1]:g}: Kolmogorov-Smirnov"
        " distance",
        apart,
        samples.size,
        0.025,
        "noise of 20,000 networks, 0.0096, what is left of the start, and 1/n",
        f"tanh at q = 0.5, n = {WIDTH}, tau^2 n^2 = {OMEGA:g}, from y = 1",
    )


def _noises(runs: Runs) -> list[Claim]:
    claims = []
    cases = (
        ("gaussian", "the equation with the field as a drift", drift_law()),
        ("independent", "the equation with the field as a drift", drift_law()),
        ("independent", "the jump-diffusion of single drops", jumps(runs)),
    )
    for masks, words, law in cases:
        samples = log_y(runs, masks)[0]
        own = scaled(masks)
        told = f"tanh at q = 0.5, n = {WIDTH}, from y = 1, H = {own.equation.field:.3f}"
        if own.drops is not None:
            told += f", {own.drops.rate:.3g} drops per unit of t of mean size {own.drops.mean:.3f}"
        claims.append(
            near(
                LIMITS,
                "ours",
                WHERE,
                f"{words} has the law of networks with {MASKS[masks]}, n^2 p = {OMEGA:g}, t = 1:"
                " Kolmogorov-Smirnov distance of log y",
                law.distance(samples, 0, "log_y"),
                samples.size,
                0.025,
                "noise of 20,000 networks, 0.0096, and 2/n",
                told,
            )
        )
    return claims


def _kinked() -> Claim:
    width = 256
    field = MeanField(named("relu"), math.sqrt(2), drop=1 / width**3)
    own = stochastic_limit(field).at_width(width)
    assert own.drops is not None
    none = math.exp(-own.drops.rate)
    return Claim(
        LIMITS,
        "ours",
        WHERE,
        "kinked networks at p of order n^-3, where the field would count, drop almost surely"
        " nothing",
        verdict_if(none > 0.95),
        ours=none,
        note=f"our number is the probability of no drop up to t = 1 in ReLU networks with p ="
        f" n^-3, n = {width}, H = {own.equation.field:.3f}: {own.drops.rate:.3g} drops are"
        " expected, 2/n of them. The rule: above 0.95. The field is the mean of rare large jumps",
    )


def plateau(masks: str) -> MeanField:
    """ReLU networks at a fixed rate of dropout."""
    return MeanField(named("relu"), math.sqrt(2), drop=PLATEAU[1], masks=masks)


def _plateaus(runs: Runs) -> list[Claim]:
    width, drop = PLATEAU
    claims = []
    for masks, words in MASKS.items():
        own = plateau(masks)
        nets = runs.pairs(own, width, (80,), float(own.eps), 10_000)
        scatter = sd_of(np.log(nets.eps[0]))
        found = Measured(scatter.value**2, 2 * scatter.value * scatter.error)
        stated = plateau_variance(own, width)
        assert isinstance(stated, float)
        claims.append(
            measured(
                LIMITS,
                "ours",
                WHERE,
                f"Var log(1 - rho) = s^2 xi/(2n) at the plateau of ReLU networks with {words}",
                stated,
                found,
                0.12 * stated,
                "terms of relative order sqrt(eps*) and 1/n, and three standard errors of 1.5 %",
                f"p = {drop}, n = {width}, 80 layers from the plateau eps* = {float(own.eps):.4f}",
            )
        )
    return claims

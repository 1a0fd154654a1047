"""Claims on other unshaped networks: the feedback of lengths, and detuning."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np

from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.law import DensityLaw
from depthscale.finite.diffusion.unshaped import Unshaped
from depthscale.papers.claims import Claim
from depthscale.papers.judging import mean_of, measured, near, sd_of
from depthscale.papers.limits.common import LIMITS, critical
from depthscale.papers.limits.runs import Runs
from depthscale.theory.activation import activation as named
from depthscale.theory.diffusion import StochasticLimit, stochastic_limit
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

WHERE = "the same equation for other activations"
NAMES = {"tanh": "tanh", "hardtanh": "hard tanh"}
LENGTH = 0.5
WIDTH = 256
TIME = 0.5
Y0 = 0.05
NETS = 20_000
ACCURACY = 1e-5
"""Of distribution functions, far below what networks can tell."""

DETUNED_WIDTH = 128
THETAS = (-2.0, 2.0)


def other_networks(runs: Runs) -> list[Claim]:
    """Two activations, each with and without the feedback, and tanh off critical."""
    claims = []
    for activation in NAMES:
        claims += _feedback(runs, activation)
    return claims + [_detuned(runs, theta) for theta in THETAS]


@cache
def limit(activation: str) -> StochasticLimit:
    """At ``q = 0.5``."""
    return stochastic_limit(critical(activation, LENGTH))


@cache
def law(activation: str, feedback: bool = True) -> DensityLaw:
    """At t = 0.5; without ``feedback`` units scatter in their slopes alone, ``lam = -v/2``."""
    equation = limit(activation).equation()
    if not feedback:
        direct = limit(activation).variance_parts["slopes"]
        equation = replace(equation, variance=direct, lam=-direct / 2)
    return density(Unshaped(equation), math.log(Y0), [TIME], tolerance=ACCURACY)


def log_y(runs: Runs, activation: str) -> Array:
    """``log n^(1/beta) (1 - rho)`` of networks at t = 0.5."""
    own = limit(activation)
    scale = own.at_width(WIDTH).scale
    found = runs.pairs(own.layer, WIDTH, (round(TIME * WIDTH),), Y0 / scale, NETS, LENGTH)
    return np.asarray(np.log(scale * found.eps[0]))


def _feedback(runs: Runs, activation: str) -> list[Claim]:
    samples, own = log_y(runs, activation), limit(activation)
    name = NAMES[activation]
    direct = own.variance_parts["slopes"]
    setting = (
        f"{name} at q = {LENGTH}, y_0 = {Y0}, n = {WIDTH}, t = {TIME}; beta = {own.beta:g}, A ="
        f" {own.curvature:.5f}, s^2 = {own.variance:.4f}, lam = {own.lam:.4f}"
    )
    theory, other = law(activation), law(activation, feedback=False)
    return [
        near(
            LIMITS,
            "ours",
            WHERE,
            f"the law of log y of {name} networks: Kolmogorov-Smirnov distance",
            theory.distance(samples, 0, "log_y"),
            samples.size,
            0.02,
            "noise of 20,000 networks, 0.0096, and some 1/n for lengths that settle first",
            setting,
        ),
        measured(
            LIMITS,
            "ours",
            WHERE,
            f"mean of log y of {name} networks",
            float(theory.mean("log_y").value[0]),
            mean_of(samples),
            0.06,
            "a twentieth of a standard deviation",
            setting,
        ),
        measured(
            LIMITS,
            "ours",
            WHERE,
            f"standard deviation of log y of {name} networks, lengths feeding back",
            float(theory.sd("log_y").value[0]),
            sd_of(samples),
            0.05,
            "less than half of what the feedback adds, and 1/n",
            setting,
        ),
        measured(
            LIMITS,
            "ours",
            WHERE,
            f"the scatter of slopes alone, v_zeta, explains the standard deviation for {name}",
            float(other.sd("log_y").value[0]),
            sd_of(samples),
            0.05,
            "as for the whole of s^2",
            f"v_zeta = {direct:.4f} of s^2 = {own.variance:.4f}",
        ),
    ]


def detuned(theta: float) -> MeanField:
    """tanh with ``chi_1 = 1 + theta/n`` to first order, by its weights."""
    layer = critical("tanh", LENGTH)
    scale = math.sqrt(1 + theta / DETUNED_WIDTH)
    chi = float(MeanField(named("tanh"), layer.sigma_w * scale, layer.sigma_b).chi)
    # the length moves too: one secant step on chi
    scale = 1 + (scale - 1) * (theta / DETUNED_WIDTH) / (chi - 1)
    return MeanField(named("tanh"), layer.sigma_w * scale, layer.sigma_b)


def _detuned(runs: Runs, theta: float) -> Claim:
    layer = detuned(theta)
    scaled = stochastic_limit(layer).at_width(DETUNED_WIDTH)
    nets = runs.pairs(
        layer, DETUNED_WIDTH, (DETUNED_WIDTH,), 1 / DETUNED_WIDTH, NETS, float(layer.q)
    )
    samples = np.log(DETUNED_WIDTH * nets.eps[0])
    theory = density(Unshaped(scaled.equation), 0.0, [1.0], tolerance=ACCURACY)
    critical_law = density(
        Unshaped(replace(scaled.equation, detuning=0.0)), 0.0, [1.0], tolerance=ACCURACY
    )
    return near(
        LIMITS,
        "ours",
        WHERE,
        f"detuning adds theta = n (chi_1 - 1) to the drift: theta = {scaled.equation.detuning:.3f},"
        f" tanh at n = {DETUNED_WIDTH}, t = 1, Kolmogorov-Smirnov distance of log y",
        theory.distance(samples, 0, "log_y"),
        samples.size,
        0.025,
        "noise of 20,000 networks, 0.0096, and 2/n",
        f"y_0 = 1; {critical_law.distance(samples, 0, 'log_y'):.2g} to the equation without theta",
    )

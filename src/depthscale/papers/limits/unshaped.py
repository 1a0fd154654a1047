"""Claims on unshaped ReLU networks: the equation of ``q_t`` and what it leaves out."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np

from depthscale.finite.chain.density import chain_density
from depthscale.finite.chain.plan import Route
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.law import DensityLaw
from depthscale.finite.diffusion.unshaped import Unshaped
from depthscale.papers.claims import Claim
from depthscale.papers.judging import Measured, listed, mean_of, measured, near
from depthscale.papers.limits.common import LIMITS, RELU
from depthscale.papers.limits.runs import Networks, Runs
from depthscale.theory.diffusion import AlignmentEquation, stochastic_limit
from depthscale.theory.gaussian import Array

WHERE = "theorem: the equation of unshaped networks"
X0 = 0.3
"""``1/sqrt y`` at the start, small misalignment at any width: no trace of earlier layers."""

TIME = 0.5
TIMES = (0.25, 0.5)
WIDTHS = (64, 128, 256)
NETS = {64: 100_000, 128: 60_000, 256: 30_000}
CHAINED = 20_000


@cache
def equation(drift: bool = True) -> AlignmentEquation:
    """That of ReLU; without ``drift`` the form that lacks ``+ 2q dt``, ``kap = 0``."""
    own = stochastic_limit(RELU).equation()
    return own if drift else replace(own, lam=-own.variance / 2)


def unshaped_networks(runs: Runs) -> list[Claim]:
    """The drift term, the entrance, closed moments, the approach in n, the chain."""
    return [
        *_constants(),
        *_drift(runs),
        *_densities(runs),
        _entrance(),
        _early(),
        _moments(),
        *_from_afar(runs),
        *_chains(runs),
    ]


@cache
def law(drift: bool = True) -> DensityLaw:
    """At t = 0.5 from ``X0``."""
    return density(Unshaped(equation(drift)), -2 * math.log(X0), [TIME], tolerance=1e-5)


@cache
def entered() -> DensityLaw:
    """At ``TIMES`` from infinity."""
    return density(Unshaped(equation()), math.inf, TIMES)


def log_y(runs: Runs, width: int) -> Array:
    """``log n^2 (1 - rho)`` of networks from ``X0`` at four times up to 0.5, ``[time, net]``."""
    layers = tuple(round(k * TIME * width / 4) for k in range(1, 5))
    nets = runs.pairs(RELU, width, layers, X0**-2 / width**2, NETS[width])
    return np.asarray(np.log(nets.eps) + 2 * math.log(width))


def _constants() -> list[Claim]:
    own = equation()
    return [
        Claim.number(
            LIMITS,
            "both",
            WHERE,
            f"dq = 2q (1 - c sqrt q)/t dt + .. + 2 sqrt2 q dB: {name} of ReLU networks from their"
            " finite-width map",
            stated,
            ours,
            1e-9,
            "rounding",
            "curvature and moments of one layer, expanded at alignment; the dots are the term that"
            " the next claims are about",
        )
        for name, stated, ours in (
            ("c", math.sqrt(2) / (3 * math.pi), own.curvature / 2),
            ("the noise", 2 * math.sqrt(2), own.noise),
        )
    ]


def _drift(runs: Runs) -> list[Claim]:
    found = {n: mean_of(np.exp(-log_y(runs, n)[-1] / 2)) for n in WIDTHS}
    at_limit = _to_infinity(found)
    told = ", ".join(f"{m.value:.4f}({m.error:.4f}) at n = {n}" for n, m in found.items())
    note = f"networks from 1/sqrt y = {X0}: {told}; a straight line in 1/n"
    claims = []
    for drift, words in (
        (True, "with the term + 2q dt the equation has the mean of 1/sqrt y at t = 0.5"),
        (False, "the form without + 2q dt, as it is quoted, has the mean of 1/sqrt y at t = 0.5"),
    ):
        stated = float(equation(drift).inverse_moments(TIME, X0).mean)
        claims.append(
            measured(
                LIMITS,
                "ours",
                WHERE,
                words,
                stated,
                at_limit,
                0.06,
                "a tenth of what the two forms differ by",
                note,
            )
        )
    return claims


def _to_infinity(found: dict[int, Measured]) -> Measured:
    """A line in 1/n through the means, weighted by their errors, at 1/n = 0."""
    inverse = np.array([1 / n for n in found])
    values, errors = np.array(list(found.values())).T
    design = np.column_stack([np.ones_like(inverse), inverse]) / errors[:, None]
    spread = np.linalg.inv(design.T @ design)
    value = (spread @ design.T @ (values / errors))[0]
    return Measured(float(value), math.sqrt(spread[0, 0]))


def _densities(runs: Runs) -> list[Claim]:
    width = WIDTHS[-1]
    samples = log_y(runs, width)[-1]
    return [
        near(
            LIMITS,
            "ours",
            WHERE,
            f"the law of log q at t = 0.5, {words}: Kolmogorov-Smirnov distance of networks of"
            f" n = {width}",
            law(drift).distance(samples, 0, "log_y"),
            samples.size,
            0.02,
            "log y moves by some 4/n of its drift, 1.5 % of a standard deviation, and noise",
            f"all start at 1/sqrt y = {X0}; medians of log y: networks"
            f" {float(np.median(samples)):.3f}, equation"
            f" {float(law(drift).quantiles([0.5], 'log_y').value[0, 0]):.3f}",
        )
        for drift, words in ((True, "with + 2q dt"), (False, "without it"))
    ]


def _entrance() -> Claim:
    # 1/sqrt eps grows by A/2 a layer, and by (3/2)(A/2)/l from the next order of the map
    eps, far = 1.0, 4000
    at: dict[int, float] = {}
    for layer in range(1, far + 1):
        eps = float(RELU.gap_map(eps, q=1.0))
        if layer in (far // 2, far):
            at[layer] = 1 / math.sqrt(eps)
    slope = (at[far] - at[far // 2]) / (far / 2 + 1.5 * math.log(2))
    return Claim.number(
        LIMITS,
        "ours",
        WHERE,
        "q_t starts at q_0 = (A beta)^(-1/beta) = 9 pi^2/2: from the map at infinite width",
        4.5 * math.pi**2,
        slope**-2,
        0.005,
        "terms of relative order log(l)^2/l^2",
        f"the growth of 1/sqrt(1 - rho) per layer between {far // 2} and {far} layers, less its own"
        f" correction 1.5 log l; l^2 (1 - rho) itself is {far**2 * eps:.3f} at l = {far} and"
        f" {_early_product():.1f} at l = 100. (A^(-1/beta), without beta, would be"
        f" {float(equation().curvature ** -2):.1f})",
    )


def _early_product() -> float:
    eps = 1.0
    for _ in range(100):
        eps = float(RELU.gap_map(eps, q=1.0))
    return 1e4 * eps


def _early() -> Claim:
    time = 1e-3
    sd = float(density(Unshaped(equation()), math.inf, [time]).sd("log_q").value[0])
    return Claim.number(
        LIMITS,
        "ours",
        WHERE,
        "Var log q_t = s^2 t/3 soon after the start: ratio at t = 0.001",
        1.0,
        sd**2 / float(equation().early_variance(time)),
        2e-3,
        "relative terms of order s^2 t",
        "density from infinity",
    )


def _moments() -> Claim:
    exact = equation().inverse_moments(TIMES)
    mean, sd = entered().mean("x"), entered().sd("x")
    apart = max(
        float(np.abs(mean.value / exact.mean - 1).max()),
        float(np.abs(sd.value / np.sqrt(exact.variance) - 1).max()),
    )
    return Claim.number(
        LIMITS,
        "ours",
        WHERE,
        "closed moments of 1/sqrt y, E = (A/4)(e^(2t) - 1), against the density: largest relative"
        " difference of mean and standard deviation at t = 0.25 and 0.5",
        0.0,
        apart,
        1e-4,
        "the density's own error in the tail of 1/sqrt y",
        f"means {listed(exact.mean, 6)}, standard deviations {listed(np.sqrt(exact.variance), 6)};"
        f" E log q {listed(entered().mean('log_q').value, 6)}, its deviation"
        f" {listed(entered().sd('log_q').value, 6)}",
    )


def chained(width: int) -> DensityLaw:
    """By the chain at real width, from rho = 0, at ``TIMES``."""
    return chain_at(width, tuple(round(t * width) for t in TIMES))


@cache
def chain_at(width: int, layers: tuple[int, ...]) -> DensityLaw:
    """The same at any layers."""
    route = Route.of("relu", [width] * (max(layers) + 1), 1.0, start="pinned")
    return chain_density(route, list(layers))


def shift(width: int) -> float:
    """By how many layers networks from rho = 0 are ahead of the limit, in the mean at t = 0.25.

    ``(A/4)(e^(2(t + shift/n)) - 1)`` is their mean of ``1/(n sqrt eps)``.
    """
    mean = float(chained(width).expectation(_inverse_root).value[0]) / width
    ahead = math.log1p(4 * mean / equation().curvature) / 2 - TIMES[0]
    return width * ahead


def _inverse_root(z: Array, layer: float) -> Array:
    """``1/sqrt(1 - tanh z)``."""
    return np.asarray(np.exp(np.logaddexp(0.0, 2 * z) / 2) / math.sqrt(2))


def _from_afar(runs: Runs) -> list[Claim]:
    widths = (64, 128, 256, 512)
    shifts = np.array([shift(n) for n in widths])
    logs = np.log(widths)
    terms = np.column_stack([logs, np.ones(4), logs**2 / widths, logs / widths])
    slope = float(np.linalg.solve(terms, shifts)[0])
    limit = float(equation().inverse_moments(TIMES[0]).mean)
    width = WIDTHS[-1]
    eps = _from_zero(runs, width).eps[0]
    found = mean_of(1 / (width * np.sqrt(eps)))
    return [
        measured(
            LIMITS,
            "ours",
            WHERE,
            f"networks from rho = 0 have the limit's mean of 1/(n sqrt(1 - rho)) at n = {width},"
            " t = 0.25",
            limit,
            found,
            0.05 * limit,
            "5 %, a few times 1/n",
            f"networks: {found.value:.5f}({found.error:.5f}), {found.value / limit - 1:+.0%}. The"
            " limit exists, the approach is slow: the next claim",
        ),
        Claim.number(
            LIMITS,
            "ours",
            WHERE,
            "the approach from rho = 0 is as slow as log(n)/n: the layers by which networks are"
            " ahead grow by 1.5 for a factor e in n",
            1.5,
            slope,
            0.1,
            "the fit, log n, 1, log(n)^2/n and log(n)/n, leaves out terms of order 1/n",
            "by the chain, from the mean of 1/(n sqrt(1 - rho)) at t = 0.25:"
            f" {listed(shifts)} layers at n = {', '.join(map(str, widths))}; at infinite width 1.5"
            " log l + 4.39",
        ),
    ]


def _from_zero(runs: Runs, width: int) -> Networks:
    layers = tuple(round(t * width) for t in TIMES)
    return runs.pairs(RELU, width, layers, 1.0, CHAINED)


def _chains(runs: Runs) -> list[Claim]:
    claims = []
    for width in WIDTHS:
        found = _from_zero(runs, width)
        apart = [chained(width).distance(eps, k, "eps") for k, eps in enumerate(found.eps)]
        limit = entered().distance(np.log(found.eps[1]) + 2 * math.log(width), 1, "log_y")
        claims.append(
            near(
                LIMITS,
                "ours",
                WHERE,
                f"the chain of correlations at real width and depth has the law of networks: n ="
                f" {width}, Kolmogorov-Smirnov distance, the larger of t = 0.25 and 0.5",
                max(apart),
                found.nets,
                0.017,
                "noise of 20,000 networks, 0.0096, and 1/(2n)",
                f"from rho = 0; by time {listed(np.array(apart), 2)}; the limit itself is"
                f" {limit:.2g} away at t = 0.5",
            )
        )
    return claims

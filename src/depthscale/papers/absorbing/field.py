"""Claims on dropout as the conjugate field of finite networks: response, scaling, single drops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from depthscale.papers.absorbing.field_networks import (
    SLOPE_FIELDS,
    SLOPES,
    SMEARED,
    SMEARED_FIELDS,
    Dropped,
    Settled,
    critical,
    dropped,
    falling,
    response,
    smeared,
    theta_of,
    widths,
)
from depthscale.papers.absorbing.runs import Runs
from depthscale.papers.claims import Claim
from depthscale.papers.judging import Measured, listed, mean_of, measured, near
from depthscale.theory.gaussian import Array

PAPER, UNIVERSALITY = "2307.02284", "2605.21648"
WHERE = "dropout as the conjugate field"

SMALLEST = 1e-16
"""``B`` at which the exact law is held against its limit."""

CLOSE = 0.12
"""Resolution of a mean: terms of relative order ``1/n`` times ``s^2`` and of ``eps^beta``."""

ORDERS = (0.25, 0.5, 1.0, 2.0)
DROPPED = (("relu", 0), ("relu", 1), ("hardtanh", 0), ("tanh", 0))
"""Activations with single drops, and which of the widths."""


def field_response_claims(runs: Runs) -> list[Claim]:
    """Scaling function, response exponents, many exponents at once, smearing, single drops."""
    claims = _exact()
    for name in ("tanh", "sin", "hardtanh", "relu"):
        claims += _collapse(name, critical(runs, name, widths(runs)[-1]))
    for name, power in SLOPES:
        claims += _slopes(name, power, falling(runs, name, power))
    claims += _many(falling(runs, *SLOPES[0]))
    claims.append(_linear(falling(runs, *SLOPES[-1])))
    for name in SMEARED:
        sets = [s for b in SMEARED_FIELDS for s in smeared(runs, name, b)]
        claims.append(_below(sets, f"{name} networks across the smeared transition"))
    for name, place in DROPPED:
        if place < len(widths(runs)):
            width = widths(runs)[place]
            claims += _single(name, width, dropped(runs, name, width))
    return claims


# The exact law ------------------------------------------------------------------------------------


def _exact() -> list[Claim]:
    """What follows from the stationary law alone."""
    claims = []
    for name in ("tanh", "relu"):
        own = response(name)
        found = own.effective_exponent(1.0, 0.0, SMALLEST * own.field_unit)
        stated = own.response_exponent("mean")
        claims.append(
            Claim.number(
                PAPER,
                "ours",
                WHERE,
                f"at finite width E eps ~ h^(2 |lam|/s^2) for {name} at chi = 1, not h^(1/kappa)",
                stated,
                float(found),
                0.01,
                "the next power is smaller by B^min(P, 1 - P), below .01 here",
                f"slope of the exact law at B = {SMALLEST:g}; 1/kappa = {1 / (1 + own.beta):.4g}",
            )
        )
    own = response("tanh")
    theta = theta_of("tanh", -0.5)
    fields = np.geomspace(1e-6, 1e3, 10)
    off = [float(own.mean(theta, h)) / math.sqrt(h / own.curvature) - 1 for h in fields]
    claims.append(
        Claim.number(
            PAPER,
            "ours",
            WHERE,
            "at theta + lam = -s^2/4 smooth networks of any width have the mean of infinite width,"
            " E eps = (h/A)^(1/2), at every field: largest relative difference",
            0.0,
            max(map(abs, off)),
            1e-9,
            "rounding: K_p+1/K_p = 1 at p = -1/2",
        )
    )
    return claims


# Scaling functions --------------------------------------------------------------------------------


def _collapse(name: str, sets: Sequence[Settled]) -> list[Claim]:
    """The law, its median and its mean at ``theta = 0``, over fields, nothing fitted."""
    width, own = sets[0].width, response(name)
    fields = f"B = {listed(np.array([s.scaled_field for s in sets]), 2)}"
    told = f"n = {width}, {fields}, p = {own.power():.4f}, {_nets(sets)} networks"
    what = f"{name} networks with a field at chi = 1"
    strong = [s for s in sets if s.scaled_field > 0.05]
    return [
        near(
            PAPER,
            "ours",
            WHERE,
            f"{what} have the law of log y that is known in closed form: Kolmogorov-Smirnov"
            " distance of their ranks in it",
            _distance(sets),
            _nets(sets),
            0.06,
            "2/n and the noise of some 600 networks",
            told,
        ),
        _below(sets, what),
        measured(
            PAPER,
            "ours",
            WHERE,
            f"{what}: E y over that of theory, mean over the fields from B = 0.1 on",
            1.0,
            _ratio(strong),
            CLOSE,
            "terms of order s^2/n and eps^beta",
            told,
        ),
    ]


def _below(sets: Sequence[Settled], what: str) -> Claim:
    return measured(
        PAPER,
        "ours",
        WHERE,
        f"{what}: share of the networks below the median that theory gives",
        0.5,
        mean_of(np.concatenate([s.below_median for s in sets])),
        0.05,
        "terms of order s^2/n and eps^beta move the median by a tenth of the scatter at most",
        f"n = {sets[0].width}, {len(sets)} settings, {_nets(sets)} networks",
    )


def _nets(sets: Sequence[Settled]) -> int:
    return sum(s.log_y.shape[1] for s in sets)


def _distance(sets: Sequence[Settled]) -> float:
    ranks = np.sort(np.concatenate([s.ranks.ravel() for s in sets]))
    steps = np.arange(ranks.size + 1) / ranks.size
    return max(float(np.max(steps[1:] - ranks)), float(np.max(ranks - steps[:-1])))


def _ratio(sets: Sequence[Settled]) -> Measured:
    """Mean of ``E y`` over theory; each setting weighs the same."""
    found = [(s.moment(1.0), s.expected(1.0)) for s in sets]
    value = sum(m.value / g for m, g in found) / len(found)
    error = math.sqrt(sum((m.error / g) ** 2 for m, g in found)) / len(found)
    return Measured(value, error)


# Response exponents -------------------------------------------------------------------------------


def slope(sets: Sequence[Settled], order: float) -> tuple[Measured, float]:
    """``d log E y^order/d log H`` over these fields, and that of theory by the same weights.

    Weights are those of theory: those of heavy-tailed samples favour the ones that lack the tail.
    """
    x = np.log([s.limit.equation.field for s in sets])
    weights = np.array([s.log_y.shape[1] / _spread(s, order) for s in sets])
    lever = _lever(x, weights)
    found = [s.moment(order) for s in sets]
    relative = np.array([m.error / m.value for m in found])
    value = float(lever @ np.log([m.value for m in found]))
    theory = float(lever @ np.log([s.expected(order) for s in sets]))
    return Measured(value, float(np.sqrt(lever**2 @ relative**2))), theory


def _spread(one: Settled, order: float) -> float:
    """Relative variance of ``y^order``."""
    return one.expected(2 * order) / one.expected(order) ** 2 - 1


def _lever(x: Array, weights: Array) -> Array:
    """What a weighted regression on ``x`` multiplies values with."""
    centred = x - np.average(x, weights=weights)
    return np.asarray(weights * centred / (weights @ centred**2))


def median_slope(sets: Sequence[Settled]) -> tuple[Measured, float]:
    """The same of the median, whose error is that of the share below it."""
    x = np.log([s.limit.equation.field for s in sets])
    lever = _lever(x, np.array([float(s.log_y.shape[1]) for s in sets]))
    medians = [float(np.median(s.log_y)) for s in sets]
    errors = np.array([_median_error(s, m) for s, m in zip(sets, medians, strict=True)])
    theory = float(lever @ [float(s.law.quantile(0.5)) for s in sets])
    return Measured(float(lever @ medians), float(np.sqrt(lever**2 @ errors**2))), theory


def _median_error(one: Settled, median: float) -> float:
    shares = (one.log_y < median).mean(axis=0)
    return float(shares.std() / math.sqrt(shares.size) / one.law.pdf(median))


def _slopes(name: str, power: float, sets: Sequence[Settled]) -> list[Claim]:
    own = response(name)
    (mean, theory), (median, typical) = slope(sets, 1.0), median_slope(sets)
    wide = 1 / (1 + own.beta)
    told = (
        f"n = {sets[0].width}, B = {listed(np.array(list(SLOPE_FIELDS)), 2)}, {_nets(sets)}"
        f" networks; the limit B -> 0 is {own.response_exponent('mean', theta_of(name, power)):.4g}"
    )
    claims = [
        measured(
            PAPER,
            "ours",
            WHERE,
            f"response exponent of the mean, {name} networks at p = {power:g}, over two decades of"
            " small fields, by the exact law there",
            theory,
            mean,
            0.12,
            "three standard errors of some .03, and terms of order 1/n",
            told,
        ),
        measured(
            PAPER,
            "ours",
            WHERE,
            f"response exponent of the median, {name} networks at p = {power:g}, likewise",
            typical,
            median,
            0.12,
            "three standard errors of some .03, and terms of order 1/n",
            "for p < 0 the limit B -> 0 is 1 whatever p",
        ),
    ]
    if abs(theory - wide) > 0.1:
        claims.append(
            measured(
                UNIVERSALITY,
                "both",
                WHERE,
                f"eps* ~ h^(1/kappa) holds for the mean of {name} networks below the crossover,"
                f" p = {power:g}",
                wide,
                mean,
                0.05,
                "what one would call the same exponent",
                "true at infinite width, and at finite width for h above n^-(1 + 1/beta)",
            )
        )
    return claims


def _many(sets: Sequence[Settled]) -> list[Claim]:
    claims = []
    for order in ORDERS:
        found, theory = slope(sets, order)
        limit = min(order, -sets[0].power)
        claims.append(
            measured(
                PAPER,
                "ours",
                WHERE,
                f"multiscaling: exponent of E y^{order:g} of relu networks over two decades of"
                " small fields, by the exact law there",
                theory,
                found,
                0.12 * max(order, 1.0),
                "three standard errors, and terms of order 1/n",
                f"the limit B -> 0 is min(k, |p|) = {limit:.3g}; one scale would make it"
                f" {order * 2 / 3:.3g}",
            )
        )
    return claims


def _linear(sets: Sequence[Settled]) -> Claim:
    """The susceptibility where it is finite."""
    least = sets[0]
    equation = least.limit.equation
    found = least.moment(1.0)
    stated = float(response(least.name).susceptibility(equation.detuning))
    return measured(
        PAPER,
        "ours",
        WHERE,
        "for p < -1 the mean responds linearly, d E eps/dh = n/|theta + kap|: tanh networks, per n",
        stated,
        Measured(found.value / equation.field, found.error / equation.field),
        CLOSE * stated,
        "terms of order s^2/n, and of B^(|p| - 1)",
        f"n = {least.width}, p = {least.power:.3f}, B = {least.scaled_field:.2g}; infinite width:"
        f" {1 / abs(equation.detuning):.4g}",
    )


# Single drops -------------------------------------------------------------------------------------


def _single(name: str, width: int, one: Dropped) -> list[Claim]:
    told = f"n = {width}, p = {one.drop:.3g}, {2 * width**2 * one.drop:.2g} drops per unit of t"
    ratio = Measured(one.found.value / one.expected, one.found.error / one.expected)
    claims = [
        measured(
            PAPER,
            "ours",
            WHERE,
            f"mean misalignment of {name} networks with rare Bernoulli drops over what one drop"
            " leaves behind, times their rate",
            1.0,
            ratio,
            0.25,
            "drops that meet the trace of others, some 10 %, and 1/sqrt(n) from large ones",
            told,
        ),
        measured(
            UNIVERSALITY,
            "both",
            WHERE,
            f"Bernoulli masks and Gaussian noise of the same field act alike: mean misalignment of"
            f" {name} networks with the former over the law of the latter",
            1.0,
            Measured(one.found.value / one.drift, one.found.error / one.drift),
            0.1,
            "what one would call the same",
            f"{told}; true at infinite width, and at finite width above h ~ n^-(1 + beta)",
        ),
    ]
    if name == "relu":
        own = response(name)
        stated = 4 / (own.curvature * math.sqrt(2 * math.pi)) * math.sqrt(width)
        claims.append(
            measured(
                PAPER,
                "ours",
                WHERE,
                "d E eps/dp of relu networks with rare drops is 4 sqrt(n)/(A sqrt(2 pi)): the noise"
                " of finite width does not change it",
                stated,
                Measured(one.found.value / one.drop, one.found.error / one.drop),
                0.25 * stated,
                "as above",
                told,
            )
        )
    return claims

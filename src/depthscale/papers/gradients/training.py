"""Claims on training, held against the authors' own measurements; nothing is trained here."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from depthscale.papers.claims import Claim
from depthscale.papers.gradients.common import claim, factors, number, verdict_if
from depthscale.papers.gradients.published import Panel, panels, training_steps
from depthscale.papers.gradients.runs import Runs
from depthscale.theory.activation import activation as named
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

SPEED = "figure 6: training speed"
LENGTH = "figure 7: trainable length"
CHANCE = 0.1
SHALLOW = (20, 80)
"""Depths between which the dependence of the speed on depth is read."""


class Half(NamedTuple):
    """The depth at which training accuracy has fallen half-way, and the depth scales there."""

    panel: str
    rho: float
    variance: float
    depth: float
    xi1: float
    xi2: float


FORMS: dict[str, Callable[[Half], float]] = {
    "12 xi1": lambda h: 12 * h.xi1,
    "6 xi2": lambda h: 6 * h.xi2,
    "8 xi2": lambda h: 8 * h.xi2,
    "12 xi2": lambda h: 12 * h.xi2,
    "min(12 xi1, 8 xi2)": lambda h: min(12 * h.xi1, 8 * h.xi2),
}
"""Formulas for the trainable length."""


def figures_six_and_seven(runs: Runs) -> list[Claim]:
    """Figures 6 and 7."""
    return [*_speed(), _retrained(), *_length()]


# Figure 6 ----------------------------------------------------------------------------------------


@cache
def speeds(rho: float) -> tuple[Array, Array, Array]:
    """Depths, ``steps * learning rate`` of small rates, and its spread over them in logarithm."""
    depths, products, spreads = [], [], []
    for (keep, depth), (rates, steps) in training_steps().items():
        if keep != rho:
            continue
        small = (steps > 60) & (rates < rates[steps.argmin()])  # the branch of too few steps
        logs = np.log(rates[small] * steps[small])
        depths.append(depth)
        products.append(math.exp(logs.mean()))
        spreads.append(float(logs.std(ddof=1)))
    return np.array(depths, dtype=float), np.array(products), np.array(spreads)


def speed_exponent(rho: float, low: float, high: float) -> tuple[float, float]:
    """Power of depth in ``steps * learning rate``, and its standard error."""
    depths, products, _ = speeds(rho)
    keep = (depths >= low) & (depths <= high)
    fit, covariance = np.polyfit(np.log(depths[keep]), np.log(products[keep]), 1, cov=True)
    return float(fit[0]), math.sqrt(float(covariance[0, 0]))


def _speed() -> list[Claim]:
    free, error = speed_exponent(1.0, 0, math.inf)
    claims = [
        number(
            "both",
            SPEED,
            "without dropout steps are a function of learning rate times depth, tau(eta L): power"
            " of depth in tau eta, depth 50 to 400",
            -1.0,
            free,
            0.1,
            "four standard errors of the fit",
            f"+- {error:.3f}, published data, learning rates below the best one. Every layer"
            " contributes its gradient, none of which has decayed at criticality",
        )
    ]
    found = {rho: speed_exponent(rho, *SHALLOW) for rho in (0.99, 0.98)}
    longest = {rho: speeds(rho) for rho in found}
    listed = ", ".join(f"{e:.2f} +- {d:.2f} at rho = {r:g}" for r, (e, d) in found.items())
    slow = ", ".join(
        f"{p[-1] / p.min():.1f} times at depth {d[-1]:.0f} for rho = {r:g}"
        for r, (d, p, _) in longest.items()
    )
    claims.append(
        number(
            "both",
            SPEED,
            "with dropout steps are a function of the learning rate alone: power of depth in tau"
            f" eta, depths {SHALLOW[0]} to {SHALLOW[1]}, mean of rho = 0.99 and 0.98",
            0.0,
            float(np.mean([e for e, _ in found.values()])),
            0.25,
            "a quarter of the difference to no dropout",
            f"published data: {listed}. Deeper networks are slower still: {slow} than the fastest"
            " depth. Layers farther than a depth scale from the loss do not help",
            agreed="confirmed in a window",
        )
    )
    return claims


def _retrained() -> Claim:
    return claim(
        "both",
        SPEED,
        "the same from training of our own",
        "not tested",
        note="a point is a network of 50 to 400 layers, trained on MNIST at 15 learning rates or"
        " more; the numbers above are the authors' measurements",
    )


# Figure 7 ----------------------------------------------------------------------------------------


@cache
def halves() -> tuple[Half, ...]:
    """All of figure 7; ``depth`` is infinite where accuracy stays up as far as it was measured."""
    found = []
    for panel in panels():
        for column, variance in enumerate(panel.variances):
            network = _network(panel.rho, float(variance))
            one, two = (1 / abs(x) for x in factors(network))
            depth = half_depth(panel, column)
            found.append(Half(panel.name, panel.rho, float(variance), depth, one, two))
    return tuple(found)


def half_depth(panel: Panel, column: int) -> float:
    """Where accuracy first falls half-way from that of the two shallowest networks to chance."""
    accuracy = panel.accuracy[:, column]
    known = np.isfinite(accuracy)
    depths, accuracy = panel.depths[known], accuracy[known]
    level = (accuracy[:2].max() + CHANCE) / 2
    below = np.flatnonzero(accuracy < level)
    if not below.size or below[0] == 0:
        return math.inf
    last = below[0] - 1
    share = (accuracy[last] - level) / (accuracy[last] - accuracy[last + 1])
    return float(depths[last] + share * (depths[last + 1] - depths[last]))


def log_errors(form: str, dropout: bool | None = None) -> Array:
    """``ln`` of measured over predicted, where accuracy falls within the measured depths."""
    return np.array(
        [
            math.log(h.depth / FORMS[form](h))
            for h in halves()
            if math.isfinite(h.depth) and (dropout is None or (h.rho < 1) == dropout)
        ]
    )


def rms(errors: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(errors**2)))


@cache
def _network(rho: float, variance: float) -> MeanField:
    return MeanField(named("tanh"), math.sqrt(variance), math.sqrt(0.05), drop=round(1 - rho, 12))


def _length() -> list[Claim]:
    cases = (("without dropout", False), ("with dropout", True))
    claims = []
    for words, dropout in cases:
        errors = {form: rms(log_errors(form, dropout)) for form in FORMS}
        better = errors["12 xi1"] < errors["6 xi2"]
        verdict = verdict_if(better)
        listed = ", ".join(f"{form} {error:.2f}" for form, error in errors.items())
        ratio = math.exp(float(np.median(log_errors("12 xi1", dropout))))
        claims.append(
            claim(
                "both",
                LENGTH,
                f"12 xi1 is a better trainable length than 6 xi2 ({words})",
                verdict,
                ours=errors["12 xi1"],
                note="our number is the rms error of ln L by 12 xi1, by 6 xi2 it is"
                f" {errors['6 xi2']:.2f}, over {len(log_errors('12 xi1', dropout))} published"
                " columns, L the depth at which training accuracy has fallen half-way to chance."
                f" All forms: {listed}; median of L/(12 xi1) {ratio:.2f}",
            )
        )
    errors = {form: rms(log_errors(form)) for form in FORMS}
    best = min(errors, key=lambda form: errors[form])
    fitted = {form: float(np.std(log_errors(form))) for form in ("12 xi1", "6 xi2", best)}
    claims += [
        claim(
            "both",
            LENGTH,
            "12 xi1 describes the trainable length of deep dropout networks in general",
            "confirmed in a window" if best == "12 xi1" else "refuted",
            ours=errors["12 xi1"],
            note=f"our number is its rms error of ln L over all panels, that of 6 xi2 is"
            f" {errors['6 xi2']:.2f}. Where chi_1 = 1 it predicts any depth, while dropout keeps L"
            f" finite: {_worst()}",
        ),
        claim(
            "ours",
            LENGTH,
            "min(12 xi1, 8 xi2) is the best of the five forms over all panels",
            "confirmed" if best == "min(12 xi1, 8 xi2)" else "refuted",
            ours=errors[best],
            note=f"rms errors of ln L: {', '.join(f'{f} {e:.2f}' for f, e in errors.items())}; with"
            " the best common factor on each "
            + ", ".join(f"{f} {e:.2f}" for f, e in fitted.items())
            + f". {_open()} columns whose accuracy stays up to the last depth are left out",
        ),
    ]
    return claims


def _worst() -> str:
    known = [h for h in halves() if math.isfinite(h.depth) and h.rho < 1]
    far = min(known, key=lambda h: h.depth / h.xi1)
    return (
        f"at rho = {far.rho:g}, sigma_w^2 = {far.variance:g}, xi1 = {far.xi1:.0f} and xi2 ="
        f" {far.xi2:.1f}, L = {far.depth:.0f}"
    )


def _open() -> int:
    return sum(math.isinf(h.depth) for h in halves())

"""Claims on training: its speed, and the trainable length by the authors' own measurements."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from depthscale.papers.claims import Claim
from depthscale.papers.gradients.common import claim, factors, verdict_if
from depthscale.papers.gradients.published import Panel, panels
from depthscale.papers.gradients.runs import Runs
from depthscale.papers.gradients.speed import figure_six
from depthscale.theory.activation import activation as named
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

LENGTH = "figure 7: trainable length"
CHANCE = 0.1


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
    return [*figure_six(runs), *_length()]


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

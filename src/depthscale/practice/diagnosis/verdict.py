"""The verdict of an audit: one sentence, the findings behind it, and three numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from depthscale.answers import Quantity, Undefined
from depthscale.practice.diagnosis.findings import ORDER, Case, Finding, text
from depthscale.practice.diagnosis.growth import Band, exponential, growth, over_repeats, student
from depthscale.practice.diagnosis.rules import RULES, not_finite

if TYPE_CHECKING:
    from depthscale.practice.advice import Advice
    from depthscale.practice.diagnosis.prediction import Theory
    from depthscale.practice.probe.measure import Measurement

__all__ = ["Finding", "Headline", "Verdict", "headlines", "judge"]


@dataclass(frozen=True)
class Headline:
    """One of the three numbers that an audit opens with, as measured and as predicted.

    ``key`` is "misalignment_end" (eps of input pairs at the last layer, 0 = indistinguishable,
    1 = unrelated), "misalignment_growth" (factor of eps per layer, forwards) or "gradient_growth"
    (factor of the squared gradient norm per layer, backwards). ``band`` is the measured value with
    its 95 % interval (None, with the ``reason``, where it cannot be measured) and ``basis`` says
    what the interval ranges over; ``predicted`` is the theory's value for the recognised chain,
    Undefined with the reason elsewhere.
    """

    key: str
    label: str
    unit: str
    band: Band | None
    predicted: Quantity
    basis: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """The answer of an audit in one sentence, the findings behind it, and whether it is healthy.

    ``healthy`` is true when no finding is a "problem"; warnings do not change it.
    """

    sentence: str
    findings: tuple[Finding, ...]
    headlines: tuple[Headline, ...]
    healthy: bool


def judge(
    measurement: Measurement,
    theory: Theory | None,
    *,
    theory_reason: str | None = None,
    advice: Advice | None = None,
) -> Verdict:
    """Judge a measured model, against theory where there is one.

    The rules and their thresholds are those of ``depthscale.practice.diagnosis.rules``.

    Args:
        measurement: what was measured; findings rest on row 0, the model as given.
        theory: the predicted curves of the recognised chain, or None.
        theory_reason: why there are none.
        advice: the critical initialisation for the model's activation and drop, for the fixes.

    Returns:
        One sentence, the findings (problems first, causes before symptoms) and three numbers.

    >>> verdict = judge(measurement, theory, advice=advice)  # doctest: +SKIP
    >>> verdict.healthy, [finding.code for finding in verdict.findings]  # doctest: +SKIP
    (False, ['chaotic', 'gradient_exploding'])
    """
    case = Case(measurement, theory, theory_reason, advice)
    findings = not_finite(case) or _distinct(finding for rule in RULES for finding in rule(case))
    findings.sort(key=lambda found: (found.severity != "problem", ORDER.index(found.code)))
    healthy = all(found.severity != "problem" for found in findings)
    sentence = _sentence(case, findings, healthy)
    return Verdict(sentence, tuple(findings), headlines(case), healthy)


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once: a layer of zero weights shows both forwards and backwards."""
    return list({(found.code, found.layer): found for found in findings}.values())


def _sentence(case: Case, findings: list[Finding], healthy: bool) -> str:
    """What happens and where, then the change; for a healthy network what holds it up."""
    if not healthy:
        return f"{findings[0].summary}; {findings[0].fix}."
    telling = [found for found in findings if found.code not in ("no_theory", "off_theory")]
    if telling:
        return f"Trainable with a caution: {_lower(telling[0].summary)}; {telling[0].fix}."
    eps = case.measurement.eps[0, case.places]
    rise = case.gradient_growth()
    if rise is not None:
        back = f"the gradient {_change(rise.total / 2)} on the way back"
    else:
        back = "how the gradient changes on the way back was not measured"
    plural = "" if case.depth == 1 else "s"
    ending = "" if case.theory is not None else " (measured only: no theory is drawn)"
    return (
        f"Healthy: inputs can still be told apart after {case.depth} layer{plural} (misalignment "
        f"{text(eps[0])} at the first, {text(eps[-1])} at the last) and {back}{ending}."
    )


def _change(nats: float) -> str:
    """What happens to the norm of the gradient, whose logarithm changes by ``nats``."""
    if abs(nats) < math.log(2.0):
        return f"keeps its norm (a factor {text(math.exp(nats), 2)})"
    word = "grows" if nats > 0 else "shrinks"
    return f"{word} only {text(math.exp(abs(nats)), 2)}-fold"


def _lower(summary: str) -> str:
    """Start with a small letter unless the first word is a name or a number."""
    return summary[0].lower() + summary[1:] if summary[:1].isalpha() else summary


def headlines(case: Case) -> tuple[Headline, ...]:
    """Return the three numbers that an audit opens with."""
    data, theory, hops = case.measurement, case.theory, len(case.inner) - 1
    none = Undefined(case.theory_reason or "no theory is drawn for this model")
    end, basis = _end(case)
    ahead = _rate_band(data.eps[:, case.inner])
    back = _rate_band(data.gradient[:, case.inner][:, ::-1])
    steps = "the steps between the layers of one network"
    if _repeats(case):
        steps = f"{_repeats(case)} initialisations"
    silent = "it is zero, not finite, or there are too few layers"
    return (
        Headline(
            "misalignment_end",
            "Misalignment of input pairs at the last layer",
            "1 - cosine",
            end,
            none if theory is None else _known(float(theory.eps[-1])),
            basis,
            "" if end else silent,
        ),
        Headline(
            "misalignment_growth",
            "Growth of the misalignment per layer, forwards",
            "factor per layer",
            ahead,
            none if theory is None else _predicted_misalignment(theory, hops),
            steps,
            "" if ahead else silent,
        ),
        Headline(
            "gradient_growth",
            "Growth of the squared gradient norm per layer, backwards",
            "factor per layer",
            back,
            none if theory is None else _predicted_gradient(theory, hops),
            steps,
            "" if back else silent,
        ),
    )


def _repeats(case: Case) -> int:
    """Number of fresh initialisations that were measured, 0 where there are too few for a mean."""
    fresh = case.measurement.eps.shape[0] - 1
    return fresh if fresh > 1 else 0


def _end(case: Case) -> tuple[Band | None, str]:
    data, last = case.measurement, case.places[-1]
    if _repeats(case):
        band = over_repeats(list(data.eps[1:, last]))
        return _usable(band), f"{_repeats(case)} initialisations"
    value, quantile = float(data.eps[0, last]), student(max(data.pairs - 1, 1))
    half = quantile * float(data.eps_error[0, last])
    band = Band(value, max(value - half, 0.0), min(value + half, 2.0))
    return _usable(band), f"{data.pairs} pairs of inputs, one network"


def _usable(band: Band) -> Band | None:
    return band if math.isfinite(float(band.value)) else None


def _rate_band(values: np.ndarray) -> Band | None:
    """Return the factor per layer: from the steps of one network, or from fresh initialisations."""
    rows = values[1:] if len(values) > 2 else values[:1]
    rises = [growth(row) for row in rows]
    known = [rise for rise in rises if rise is not None]
    if not known:
        return None
    if len(known) == 1:
        return known[0].factor
    mean = over_repeats([float(rise.rate.value) for rise in known])
    low, high = (exponential(float(side)) for side in (mean.low, mean.high))
    return Band(math.exp(float(mean.value)), low, high)


def _predicted_misalignment(theory: Theory, hops: int) -> Quantity:
    rise = growth(theory.eps[: hops + 1])
    if rise is None:
        return Undefined("the predicted misalignment is zero")
    return math.exp(float(rise.rate.value))


def _predicted_gradient(theory: Theory, hops: int) -> Quantity:
    if theory.gradient is None:
        return Undefined("no gradient curve is predicted for this chain")
    return _known(math.exp(float(np.log(theory.gradient_factor[:hops]).mean())))


def _known(value: float) -> Quantity:
    return value if math.isfinite(value) else Undefined("the prediction is not finite")

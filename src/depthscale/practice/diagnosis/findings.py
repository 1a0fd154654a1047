"""What an audit can find, the evidence that goes with it, and the numbers of the remedy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.answers import Quantity, Undefined
from depthscale.practice.diagnosis.growth import Growth, growth

if TYPE_CHECKING:
    from depthscale.practice.advice import Advice
    from depthscale.practice.diagnosis.prediction import Theory
    from depthscale.practice.probe.measure import Measurement

Values = dict[str, float | str]

# What to tell first: what stops everything, then causes, then their symptoms.
ORDER = (
    "not_finite",
    "dead",
    "chaotic",
    "dropout_limited",
    "ordered",
    "signal_lost",
    "gradient_exploding",
    "gradient_vanishing",
    "saturated",
    "zero_weights",
    "length_drift",
    "off_theory",
    "no_theory",
)


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found.

    ``code`` is stable for programs, one of ``ORDER``; ``severity`` is "problem" (the model is not
    healthy) or "warning" (worth knowing). ``layer`` names where; ``evidence`` holds the numbers
    that it rests on; ``predicted_depth_scale`` (layers, None where theory has none) stands against
    the ``depth`` of the model; ``fix`` is one clause that starts with a verb and ``fix_values`` its
    numbers.
    """

    code: str
    severity: str
    layer: str | None
    summary: str
    evidence: dict[str, float | str] = field(default_factory=dict)
    predicted_depth_scale: float | None = None
    depth: int = 0
    fix: str = ""
    fix_values: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What the rules look at: measurement, theory and advice. Row 0 is the model as given."""

    measurement: Measurement
    theory: Theory | None
    theory_reason: str | None = None
    advice: Advice | None = None

    @property
    def names(self) -> list[str]:
        """Names of the measured layers."""
        return [layer.name for layer in self.measurement.layers]

    @property
    def depth(self) -> int:
        """Layers with weights of the chain, or of the model where there is no chain."""
        return sum(self.measurement.layers[place].kind != "block" for place in self.places)

    @property
    def places(self) -> list[int]:
        """Positions in the measurement that the chain, or else the model, consists of."""
        if self.theory:
            return list(self.theory.layers)
        return list(range(len(self.measurement.layers)))

    @property
    def length(self) -> np.ndarray:
        """Measured length at each measured layer."""
        row: np.ndarray = self.measurement.length[0]
        return row

    @property
    def inner(self) -> list[int]:
        """The places without the last one where there are others enough.

        A readout has a scale of its own, which says nothing about the growth per layer.
        """
        return self.places[:-1] if len(self.places) > 3 else self.places

    @property
    def critical_already(self) -> bool:
        """Whether the weights have the recommended scales, to 5 % in sigma_w and sigma_b."""
        if self.theory is None or self.theory.representative is None or self.advice is None:
            return False
        state, advice = self.theory.representative, self.advice
        same_w = abs(state.sigma_w - advice.sigma_w) < 0.05 * advice.sigma_w
        return same_w and abs(state.sigma_b - advice.sigma_b) <= 0.05 * advice.sigma_b

    def gradient_growth(self) -> Growth | None:
        """Growth of the squared gradient norm, backwards, over the inner layers."""
        return growth(self.measurement.gradient[0, self.inner][::-1])

    def scale(self, which: str) -> float | None:
        """Return the theory's depth scale in layers, None where there is none."""
        if self.theory is None or self.theory.representative is None:
            return None
        value: Quantity = getattr(self.theory.representative.depth_scale, which)
        return None if isinstance(value, Undefined) else float(value)

    def finding(
        self, code: str, problem: bool, place: int | None, summary: str, **rest: Any
    ) -> Finding:
        """Build a finding about the measured layer at ``place``."""
        layer = None if place is None else self.names[place]
        severity = "problem" if problem else "warning"
        return Finding(code, severity, layer, summary, depth=self.depth, **rest)


def signal_evidence(case: Case) -> Values:
    """Misalignment of the pairs at both ends, and of one input under two masks."""
    eps = case.measurement.eps[0]
    first, last = case.places[0], case.places[-1]
    values: Values = {"eps_first": float(eps[first]), "eps_last": float(eps[last])}
    if case.measurement.eps_masks is not None:
        values["eps_masks_last"] = float(case.measurement.eps_masks[0, last])
    return finite(values)


def phase_evidence(case: Case, factor: float) -> Values:
    """The slope of the misalignment map, and the scales that set it."""
    theory = case.theory
    if theory is None or theory.representative is None:
        return {}
    state = theory.representative
    values: Values = {
        "slope_per_layer": factor,
        "sigma_w": float(state.sigma_w),
        "sigma_b": float(state.sigma_b),
        "activation": state.activation.name,
    }
    if not isinstance(state.chi, Undefined):
        values["chi"] = float(state.chi)
    return finite(values)


def gradient_evidence(case: Case, rise: Growth) -> Values:
    """The measured gradient factor per layer with its interval, and the predicted one."""
    factor = rise.factor
    values: Values = {
        "factor_per_layer": float(factor.value),
        "factor_per_layer_low": float(factor.low),
        "factor_per_layer_high": float(factor.high),
        "total_log": rise.total,
    }
    if case.theory is not None:
        predicted = np.log(case.theory.gradient_factor[: len(case.inner) - 1])
        values["predicted_factor_per_layer"] = math.exp(float(predicted.mean()))
        values["predicted_total_log"] = float(predicted.sum())
    return finite(values)


def finite(values: Values) -> Values:
    """Leave out what is not a finite number or text."""
    return {k: v for k, v in values.items() if isinstance(v, str) or math.isfinite(v)}


def init_values(case: Case) -> Values:
    """The numbers of the recommended initialisation, empty where there is none."""
    advice = case.advice
    if advice is None or case.critical_already:
        return {}
    return {
        "sigma_w": advice.sigma_w,
        "sigma_b": advice.sigma_b,
        "activation": advice.activation,
        "drop": advice.drop,
        "convention": advice.convention,
    }


def init_fix(case: Case) -> str:
    """The recommended initialisation as a clause that starts with a verb."""
    advice = case.advice
    if advice is None:
        return "bring every layer to its critical scale, or add normalisation or residual paths"
    if case.critical_already:
        return "use fewer layers or add residual paths: the weights are at their critical scale"
    clause = (
        f"set sigma_w = {text(advice.sigma_w, 4)} and sigma_b = {text(advice.sigma_b, 4)} in the "
        "hidden layers, as depthscale.critical_init_(model, inputs) does"
    )
    if not advice.exists:
        clause += f" (the best there is: {advice.reason})"
    return clause


def init_hint(case: Case, joint: str = ", or ") -> str:
    """The recommended initialisation as the continuation of a clause, empty where there is none."""
    return joint + init_fix(case) if case.advice else ""


def gradient_fix(case: Case, rate: float) -> tuple[str, Values]:
    """The remedy of a gradient that grows by ``exp(rate)`` a layer, with its numbers."""
    if case.advice is not None:
        return init_fix(case), init_values(case)
    scale = math.exp(-rate / 2)
    trace = case.measurement.trace
    if trace is not None and any(event.kind == "norm" for event in trace.events):
        # Behind a normalisation the size of the weights has no effect on the signal.
        return (
            "add residual paths (scaled down where there are some already) or use fewer layers",
            {},
        )
    return (
        f"multiply the weights of every layer (in residual branches, of the last one) by about "
        f"{text(scale)}, which undoes the measured factor, or add normalisation",
        {"weight_factor": scale},
    )


def log(value: float) -> float:
    """Logarithm that takes anything from a vanished quantity up without complaint."""
    return math.log(max(float(value), 1e-300))


def text(value: float, digits: int = 3) -> str:
    """A number for a sentence: few digits, powers of ten only where they are needed.

    >>> text(1.3104), text(4.6e6), text(0.0)
    ('1.31', '4.6e+06', '0')
    """
    return f"{value:.{digits}g}"

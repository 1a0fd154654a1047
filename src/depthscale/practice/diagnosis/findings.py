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
    from depthscale.practice.probe.events import Event
    from depthscale.practice.probe.measure import Measurement
    from depthscale.theory.meanfield import MeanField

Values = dict[str, float | str]

# Minus the logarithm of the share of the contrast between inputs that is left where it is lost (see
# ``rules``), and where it is zero for a float.
SIGNAL_LOST = 8.0
NOTHING_LEFT = 600.0

# Below this eps is rounding. Single precision keeps vectors to u = 2^-24 of their size and a sum of
# n products to about u sqrt(n), so eps = |a/|a| - b/|b||^2/2 is uncertain by u^2 n: 1e-13 for n of
# some dozens, and rounding errors of wider layers partly repeat in both inputs. 8 eps(float32)^2.
ROUNDING = 1e-13

# What to tell first: what stops everything, then causes, then their symptoms.
ORDER = (
    "not_finite",
    "dead",
    "chaotic",
    "dropout_limited",
    "ordered",
    "signal_lost",
    "no_gradient",
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
        """Whether the weights have the recommended scales: 5 % at the median layer, 25 % at each.

        The last hop, into the readout, is left out where there are others. A quarter is four
        deviations of the estimate of sigma_b from 128 biases.
        """
        if self.theory is None or self.theory.representative is None or self.advice is None:
            return False
        hops = self.theory.fields[:-1] or self.theory.fields
        return self._advised(self.theory.representative, 0.05) and all(
            self._advised(hop, 0.25) for hop in hops
        )

    def _advised(self, state: MeanField, tolerance: float) -> bool:
        advice = self.advice
        assert advice is not None
        same_w = abs(state.sigma_w - advice.sigma_w) < tolerance * advice.sigma_w
        return same_w and abs(state.sigma_b - advice.sigma_b) <= tolerance * advice.sigma_b

    def has(self, kind: str) -> bool:
        """Whether an operation of this kind was seen in the model."""
        trace = self.measurement.trace
        return trace is not None and any(event.kind == kind for event in trace.events)

    @property
    def merges(self) -> int:
        """Number of sums of two signals in the model: the ends of its residual branches."""
        trace = self.measurement.trace
        if trace is None:
            return 0
        return sum(event.name == "add" and len(set(event.parents)) == 2 for event in trace.events)

    @property
    def blackout(self) -> Event | None:
        """The first dropout of the model that drops everything in the measured mode."""
        trace = self.measurement.trace
        events = () if trace is None else trace.events
        return next((e for e in events if e.kind == "drop" and e.drop >= 1.0), None)

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
    if case.advice is None or case.critical_already:
        return {}
    return _scales(case.advice)


def _scales(advice: Advice) -> Values:
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
    return _set_scales(case, advice)


def _set_scales(case: Case, advice: Advice) -> str:
    clause = (
        f"set sigma_w = {text(advice.sigma_w, 4)} and sigma_b = {text(advice.sigma_b, 4)} in the "
        "hidden layers"
    )
    obstacle = getattr(case.advice, "obstacle", None)
    if obstacle:
        clause += f" by hand (depthscale.critical_init_ does not apply: {obstacle})"
    else:
        clause += ", as depthscale.critical_init_(model, inputs) does"
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
    branches = case.merges
    if branches and rate > 0:
        # A branch of relative size s adds s^2 of the gradient, so n of them multiply it by
        # (1 + s^2)^n, which s^2 = 1/n keeps at e.
        scale = branches**-0.5
        return (
            f"multiply the output of each of the {branches} residual branches by about "
            f"1/sqrt({branches}) = {text(scale)}, or add normalisation",
            {"branch_factor": scale},
        )
    if branches:
        return "let the shortcuts pass unchanged from end to end, or add normalisation", {}
    return (
        f"multiply the weights of every layer by about {text(scale)}, which undoes the measured "
        "factor, or add normalisation",
        {"weight_factor": scale},
    )


def layer_fix(case: Case, place: int) -> tuple[str, Values]:
    """The remedy where one layer, at ``place``, is what differs."""
    layer = case.measurement.layers[place]
    usual = [other.sigma_w for other in case.measurement.layers if other.sigma_w]
    middle = float(np.median(usual)) if usual else 0.0
    if layer.sigma_w is None or middle / 3 < layer.sigma_w < 3 * middle:
        # The weights are like the others: it is something between the two layers.
        clause = f"look for a factor, a saturated or a blocking operation before {layer.name!r}"
        return clause + init_hint(case), init_values(case)
    clause = (
        f"give the weights of layer {layer.name!r} (sigma_w = {text(layer.sigma_w)}) the scale of "
        f"the others ({text(middle)})"
    )
    values: Values = {"layer_sigma_w": layer.sigma_w, "usual_sigma_w": middle}
    return clause + init_hint(case), values | init_values(case)


def dropout_limited(case: Case, drop: float, gone: bool, index: int) -> Finding:
    """The masks outweigh the input from the ``index``-th layer of the chain on."""
    scale = case.scale("correlation")
    limit = case.advice.max_drop if case.advice else Undefined("no advice was asked for")
    values = init_values(case)
    fix = f"lower the drop probability from {text(drop)}"
    retune = "" if case.critical_already else init_hint(case, " and retune: ")
    if not isinstance(limit, Undefined):
        # The scales that go with the new drop, not with the one that is to be given up.
        retuned = _advice_at(case, float(limit))
        values = _scales(retuned) | {"max_drop": float(limit)}
        fix += f" to at most {text(float(limit))} for {case.depth} layers"
        retune = f" and retune: {_set_scales(case, retuned)}"
    return case.finding(
        "dropout_limited",
        gone,
        _place(case, index),
        f"Dropout limits the depth: at drop {text(drop)} the masks outweigh the input from "
        f"{_where(case, index)}",
        evidence=signal_evidence(case) | {"drop": drop},
        predicted_depth_scale=scale,
        fix=fix + retune,
        fix_values=values,
    )


def _advice_at(case: Case, drop: float) -> Advice:
    """The recommended initialisation at another drop."""
    from depthscale.practice.advice import advise

    assert case.advice is not None
    state = None if case.theory is None else case.theory.representative
    function = case.advice.activation if state is None else state.activation
    return advise(function, drop=drop, convention=case.advice.convention)


def chaotic(case: Case, strong: bool, apart: int | None) -> Finding:
    """Similar inputs are driven apart; from the layer ``apart`` on they have little in common."""
    factor = _slope(case)
    until = (
        "" if apart is None else f" until, from {_where(case, apart)}, they have little in common"
    )
    steady = ", although the length of its signal is steady" if _steady_length(case) else ""
    return case.finding(
        "chaotic",
        strong,
        _place(case, apart),
        f"The network is chaotic: it drives similar inputs apart by a factor {text(factor)} a "
        f"layer{until}{steady}",
        evidence=signal_evidence(case) | phase_evidence(case, factor),
        predicted_depth_scale=case.scale("correlation"),
        fix=init_fix(case),
        fix_values=init_values(case),
    )


def ordered(case: Case, strong: bool, lost: int | None) -> Finding:
    """Inputs become the same, from the layer ``lost`` of the chain on."""
    factor = _slope(case)
    until = "" if lost is None else f" until, from {_where(case, lost)}, all of them look the same"
    return case.finding(
        "ordered",
        strong,
        _place(case, lost),
        f"The network is ordered: it shrinks the difference between inputs to {text(factor)} of it "
        f"a layer{until}",
        evidence=signal_evidence(case) | phase_evidence(case, factor),
        predicted_depth_scale=case.scale("correlation"),
        fix=init_fix(case),
        fix_values=init_values(case),
    )


def signal_lost(
    case: Case, gone: bool, index: int, left: float, remedy: tuple[str, Values] | None = None
) -> Finding:
    """The contrast of inputs fades: ``left`` is minus its logarithm at the end."""
    fix, values = remedy or (init_fix(case), init_values(case))
    place = _place(case, index)
    assert place is not None
    scale = case.scale("correlation")
    word = "lost" if gone else "nearly lost"
    rest = "nothing" if left > NOTHING_LEFT else f"only {text(math.exp(-left))}"
    return case.finding(
        "signal_lost",
        gone,
        place,
        f"The difference between inputs is {word} from {_where(case, index)}: at the end "
        f"{rest} of it is left",
        evidence=signal_evidence(case)
        | {"survival": math.exp(-left), "threshold": math.exp(-SIGNAL_LOST)},
        predicted_depth_scale=scale,
        fix=fix,
        fix_values=values,
    )


def _slope(case: Case) -> float:
    """The slope of the misalignment map at the typical layer."""
    return 1.0 if case.theory is None else float(np.median(case.theory.slope))


def _where(case: Case, index: int) -> str:
    """The index-th layer of the chain in words."""
    kinds = [case.measurement.layers[place].kind for place in case.places[: index + 1]]
    number = sum(kind != "block" for kind in kinds)
    return f"layer {case.names[case.places[index]]!r} on ({number} of {case.depth})"


def _place(case: Case, index: int | None) -> int | None:
    """Return the measured layer of the index-th layer of the chain."""
    return None if index is None else case.places[index]


def _steady_length(case: Case) -> bool:
    lengths = case.length[case.inner][1:]
    return len(lengths) > 2 and bool(lengths.min() > 0 and lengths.max() < 3 * lengths.min())


def departures(case: Case) -> dict[str, int]:
    """Curves that leave the theory's band for good, with the layer index at which they do.

    A random network is outside its 90 % band at a tenth of the layers, and at many layers
    together, since it is a random walk. So a curve counts as apart only where it is further from
    the middle of the band than twice the band's half-width, in the logarithm, at most layers: for a
    log-normal law and a band from n networks a chance of ``2 P(T_{n-1} > 2 t_{0.95,n-1})`` at any
    one layer, 0.15 % for 64 networks and 0.7 % for 8. The half-width is taken to be at least 0.15
    (the noise of some dozens of input pairs and the approximations of convolution borders).
    """
    theory = case.theory
    if theory is None:
        return {}
    measured = {"length": case.measurement.length, "misalignment": case.measurement.eps}
    apart = {}
    for name, values in measured.items():
        band = theory.bands.get("eps" if name == "misalignment" else name)
        if band is None:
            continue
        outside = _outside(values[0, list(theory.layers)], band)
        if outside[1:].mean() > 0.5:
            apart[name] = int(np.argmax(outside))
    return apart


def ends_apart(case: Case) -> bool:
    """Whether the misalignment at the last layer is not what theory says, by twice its band."""
    theory = case.theory
    if theory is None or "eps" not in theory.bands:
        return False
    ends = tuple(np.maximum(side[-1:], ROUNDING) for side in theory.bands["eps"])
    measured = np.maximum(case.measurement.eps[0, [theory.layers[-1]]], ROUNDING)
    return bool(_outside(measured, (ends[0], ends[1]))[0])


def _outside(measured: np.ndarray, band: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    low, high = (np.log(np.maximum(side, 1e-300)) for side in band)
    centre, half = (low + high) / 2, np.maximum((high - low) / 2, 0.15)
    usable = np.isfinite(measured) & (measured >= ROUNDING) & np.isfinite(centre)
    logs = np.log(np.where(usable, measured, 1.0))
    outside: np.ndarray = usable & (np.abs(logs - centre) > 2 * half)
    return outside


def log(value: float) -> float:
    """Logarithm that takes anything from a vanished quantity up without complaint."""
    return math.log(max(float(value), 1e-300))


def text(value: float, digits: int = 3) -> str:
    """A number for a sentence: few digits, powers of ten only where they are needed.

    >>> text(1.3104), text(4.6e6), text(0.0)
    ('1.31', '4.6e+06', '0')
    """
    return f"{value:.{digits}g}"

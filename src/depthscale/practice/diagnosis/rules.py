"""The rules by which an audit judges: pure functions of measurement and theory.

The thresholds, in units of the depth scales of theory:

- **Signal.** Two inputs can be told apart at a layer as long as the misalignment of a pair still
  depends on how similar the pair was at the start. That contrast ``S`` (``Theory.survival``;
  without a theory the measured ``eps_l / eps_0``) falls as ``exp(-l/xi)`` in the ordered phase
  (every pair becomes equal), in chaos (every pair becomes unrelated) and with dropout (every pair
  becomes as different as two masks make it). Networks train up to a depth of about 6 xi
  (1611.01232); the cells of figure 7 of 1912.09132 put the half-way point at 8 xi. So
  ``S < exp(-6)`` is a warning and ``S < exp(-8)`` a problem. Those are depths for SGD at one
  learning rate; an adaptive optimiser with a well-chosen rate goes some way further.
- **Gradient.** Its squared norm changes by ``exp(l/xi_grad)``. The same cells put the trainable
  depth at 12 xi_grad, a factor exp(12) in the squared norm, 400 in the norm; exp(6) is a warning.
  The measured rate must also differ from zero by its 95 % interval, and a network that stays inside
  the finite-width band of a theory without such a drift is told to be wider, not re-initialised.
- **Cause.** Chaotic or ordered: the product over the layers of the slope of the misalignment map
  exceeds exp(6) or falls below exp(-6), or the signal is lost and it has passed exp(+-2).
- **Dead units.** Once the inputs are nearly aligned a ReLU unit is on or off for all of them, so in
  deep healthy networks up to half of the units are dead on a batch. A warning needs 60 % and three
  binomial deviations above a half; a problem needs 99 %.
- Without a theory only what is beyond doubt is reported: the collapse of the pairs must be steady
  over the depth, and decorrelation is not judged at all, since what to hold it against is unknown.
"""

from __future__ import annotations

import math

import numpy as np

from depthscale.answers import Undefined
from depthscale.practice.diagnosis.findings import (
    Case,
    Finding,
    Values,
    gradient_evidence,
    gradient_fix,
    init_fix,
    init_hint,
    init_values,
    log,
    phase_evidence,
    signal_evidence,
    text,
)
from depthscale.practice.diagnosis.growth import growth

LITTLE_LEFT, SIGNAL_FADING, SIGNAL_LOST = 2.0, 6.0, 8.0
GRADIENT_DRIFTS, GRADIENT_LOST = 6.0, 12.0
PHASE_CERTAIN, PHASE_LIKELY = 6.0, 2.0
DEAD_MANY, DEAD_ALL = 0.6, 0.99
SATURATED_MANY, SATURATED_ALL = 0.75, 0.95
LENGTH_DRIFTS = 12.0


def not_finite(case: Case) -> list[Finding]:
    """Return the finding of a NaN or infinity; with one, no other rule makes sense."""
    at = case.measurement.nonfinite_at
    if at is None:
        return []
    place = case.names.index(at) if at in case.names else None
    before = "" if not place else f" (length {text(case.length[place - 1])} one layer before)"
    return [
        case.finding(
            "not_finite",
            True,
            place,
            f"The signal is no longer finite at layer {at!r}{before}",
            evidence={"layer": at},
            fix="look for an overflow there: a smaller sigma_w, or a wider number format"
            + init_hint(case),
            fix_values=init_values(case),
        )
    ]


def _dead(case: Case) -> list[Finding]:
    silent = np.flatnonzero(case.measurement.zero[0] >= 1.0)
    if len(silent):
        return [_silent(case, int(silent[0]))]
    fraction = np.nan_to_num(case.measurement.dead[0])
    widths = np.array([layer.width for layer in case.measurement.layers])
    limits = np.maximum(DEAD_MANY, 0.5 + 1.5 / np.sqrt(np.maximum(widths, 1)))
    many = np.flatnonzero(fraction >= np.minimum(limits, DEAD_ALL))
    if len(many) == 0:
        return []
    worst = int(many[np.argmax(fraction[many])])
    share = float(fraction[worst])
    return [
        case.finding(
            "dead",
            share >= DEAD_ALL,
            worst,
            f"{share:.0%} of the units after layer {case.names[worst]!r} are zero for every input",
            evidence={"dead_fraction": share, "layers_affected": float(len(many))},
            fix="keep the biases at zero or above and the weights at their critical scale"
            + init_hint(case),
            fix_values=init_values(case),
        )
    ]


def _silent(case: Case, place: int) -> Finding:
    if case.measurement.layers[place].sigma_w == 0.0:
        return _zero_weights(case, place)
    return case.finding(
        "dead",
        True,
        place,
        f"No signal passes layer {case.names[place]!r}: its output is zero for every input",
        evidence={"inputs_at_zero": float(case.measurement.zero[0, place])},
        fix="re-initialise the layers before it" + init_hint(case),
        fix_values=init_values(case),
    )


def _zero_weights(case: Case, place: int) -> Finding:
    return case.finding(
        "zero_weights",
        False,
        place,
        f"Layer {case.names[place]!r} has zero weights: until it has moved no gradient reaches "
        "the layers before it, so theirs cannot be judged",
        evidence={"sigma_w": 0.0},
        fix="ignore this if it is meant (a zero-initialised readout or branch), else give it "
        "weights of scale 1/sqrt(fan_in)",
    )


def _propagation(case: Case) -> list[Finding]:
    """Chaotic, ordered, dropout-limited, and the loss of the signal that goes with each."""
    if case.theory is None or departures(case):
        return _collapse(case)
    theory, survival = case.theory, case.theory.survival
    left = -log(survival[-1])
    fading = _first_below(survival, SIGNAL_FADING)
    drift = float(np.log(theory.slope).sum())
    gone, faded = left > SIGNAL_LOST, fading is not None
    phase = (faded and abs(drift) > PHASE_LIKELY) or abs(drift) > PHASE_CERTAIN
    strong = gone or abs(drift) > GRADIENT_LOST
    findings = []
    if fading is not None and _dropout_limits(case):
        findings.append(_dropout_limited(case, theory.drop, gone, fading))
    elif phase and drift > 0:
        findings.append(_chaotic(case, strong, _first_below(survival, LITTLE_LEFT)))
    elif phase:
        findings.append(_ordered(case, strong, fading))
    if fading is not None:
        remedy = (findings[0].fix, findings[0].fix_values) if findings else None
        findings.append(_signal_lost(case, gone, fading, left, remedy))
    return findings


def _dropout_limits(case: Case) -> bool:
    theory, advice = case.theory, case.advice
    if theory is None or theory.drop == 0.0:
        return False
    limit = advice.max_drop if advice else Undefined("no advice was asked for")
    if isinstance(limit, Undefined):
        return abs(float(np.log(theory.slope).sum())) < PHASE_CERTAIN
    return theory.drop > limit


def _dropout_limited(case: Case, drop: float, gone: bool, index: int) -> Finding:
    scale = case.scale("correlation")
    limit = case.advice.max_drop if case.advice else Undefined("no advice was asked for")
    values: Values = {}
    fix = f"lower the drop probability from {text(drop)}"
    if not isinstance(limit, Undefined):
        values["max_drop"] = float(limit)
        fix += f" to at most {text(float(limit))} for {case.depth} layers"
    return case.finding(
        "dropout_limited",
        gone,
        _place(case, index),
        f"Dropout limits the depth: at drop {text(drop)} the masks outweigh the input from "
        f"{_where(case, index)}",
        evidence=signal_evidence(case) | {"drop": drop},
        predicted_depth_scale=scale,
        fix=fix + ("" if case.critical_already else init_hint(case, " and retune: ")),
        fix_values=values | init_values(case),
    )


def _chaotic(case: Case, strong: bool, apart: int | None) -> Finding:
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


def _ordered(case: Case, strong: bool, lost: int | None) -> Finding:
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


def _signal_lost(
    case: Case, gone: bool, index: int, left: float, remedy: tuple[str, Values] | None = None
) -> Finding:
    fix, values = remedy or (init_fix(case), init_values(case))
    place = _place(case, index)
    assert place is not None
    scale = case.scale("correlation")
    word = "lost" if gone else "nearly lost"
    return case.finding(
        "signal_lost",
        gone,
        place,
        f"The difference between inputs is {word} from {_where(case, index)}: at the end only "
        f"{text(math.exp(-left))} of it is left",
        evidence=signal_evidence(case)
        | {"survival": math.exp(-left), "threshold": math.exp(-SIGNAL_LOST)},
        predicted_depth_scale=scale,
        fix=fix,
        fix_values=values,
    )


def _collapse(case: Case) -> list[Finding]:
    """Without a theory: a collapse of the pairs that is steady over the depth and beyond doubt."""
    eps = case.measurement.eps[0, case.places]
    rise = growth(eps)
    if rise is None or rise.total > -SIGNAL_FADING or not rise.rate.high < 0.0:
        return []
    half = growth(eps[len(eps) // 2 :])
    if half is None or half.total > rise.total / 4:
        return []
    survival = np.where(np.isfinite(eps), eps, np.inf) / eps[rise.first]
    index = _first_below(survival, SIGNAL_FADING)
    if index is None:
        return []
    left = -log(survival[-1])
    return [_signal_lost(case, left > SIGNAL_LOST, index, left)]


def _gradient(case: Case) -> list[Finding]:
    values = case.measurement.gradient[0, case.places]
    known = np.flatnonzero(np.isfinite(values))
    if len(known) and values[known[-1]] > 0 and values[known[0]] == 0.0:
        return [_zero_gradient(case, values)]
    if np.isinf(values).any():
        return [_overflowing_gradient(case, int(np.flatnonzero(np.isinf(values))[-1]))]
    rise = case.gradient_growth()
    if rise is None or abs(rise.total) < GRADIENT_DRIFTS or not rise.significant:
        return []
    up, lost = rise.total > 0, abs(rise.total) > GRADIENT_LOST
    noise = _width_noise(case)
    doing = ("explodes" if up else "vanishes") if lost else ("grows" if up else "shrinks")
    factor = math.exp(float(rise.rate.value))
    place = case.places[0]
    summary = (
        f"The gradient {doing}: its squared norm changes by "
        f"{text(factor)} a layer on the way back, {text(math.exp(min(rise.total, 700.0)))}-fold "
        f"from layer {case.names[case.inner[-1]]!r} to {case.names[place]!r}"
    )
    if noise:
        summary += ", as random networks of this width and depth do"
        fix = "make the layers wider: the drift of a critical network is depth / width"
        values_fix: Values = {}
    else:
        fix, values_fix = gradient_fix(case, float(rise.rate.value))
    return [
        case.finding(
            "gradient_exploding" if up else "gradient_vanishing",
            lost and not noise,
            place,
            summary,
            evidence=gradient_evidence(case, rise),
            predicted_depth_scale=case.scale("gradient"),
            fix=fix,
            fix_values=values_fix,
        )
    ]


def _zero_gradient(case: Case, values: np.ndarray) -> Finding:
    index = int(np.flatnonzero(values > 0)[0])
    place = case.places[index]
    layers = case.measurement.layers
    empty = [p for p in case.places[1 : index + 1] if layers[p].sigma_w == 0.0]
    if empty:
        return _zero_weights(case, empty[-1])
    return case.finding(
        "gradient_vanishing",
        True,
        place,
        f"No gradient reaches the layers before {case.names[place]!r}: it is exactly zero there",
        evidence={"first_layer_with_gradient": case.names[place]},
        fix="look for dead units, a detached tensor or an underflow there" + init_hint(case),
        fix_values=init_values(case),
    )


def _overflowing_gradient(case: Case, index: int) -> Finding:
    return case.finding(
        "gradient_exploding",
        True,
        case.places[index],
        f"The gradient overflows on its way back, at layer {case.names[case.places[index]]!r}",
        predicted_depth_scale=case.scale("gradient"),
        fix="use a wider number format or a scaled loss" + init_hint(case),
        fix_values=init_values(case),
    )


def _width_noise(case: Case) -> bool:
    """Whether the drift is that of finite width: inside the band of a theory without drift."""
    theory = case.theory
    if theory is None or "gradient" not in theory.bands:
        return False
    low, high = theory.bands["gradient"]
    measured = case.measurement.gradient[0, theory.layers[0]]
    predicted = float(np.log(theory.gradient_factor[: len(case.inner) - 1]).sum())
    return bool(low[0] <= measured <= high[0]) and abs(predicted) < GRADIENT_DRIFTS


def _saturated(case: Case) -> list[Finding]:
    fraction = np.nan_to_num(case.measurement.saturated[0])
    many = np.flatnonzero(fraction >= SATURATED_MANY)
    if len(many) == 0:
        return []
    worst = int(many[np.argmax(fraction[many])])
    share = float(fraction[worst])
    return [
        case.finding(
            "saturated",
            share >= SATURATED_ALL,
            worst,
            f"{share:.0%} of the units after layer {case.names[worst]!r} sit on the flat part of "
            f"their activation (length {text(case.length[worst])})",
            evidence={
                "saturated_fraction": share,
                "length": float(case.length[worst]),
                "layers_affected": float(len(many)),
            },
            fix=init_fix(case),
            fix_values=init_values(case),
        )
    ]


def _length_drift(case: Case) -> list[Finding]:
    rise = growth(case.length[case.inner])
    if rise is None or abs(rise.total) < LENGTH_DRIFTS or not rise.significant:
        return []
    word = "explodes" if rise.total > 0 else "dies out"
    factor = math.exp(float(rise.rate.value))
    return [
        case.finding(
            "length_drift",
            False,
            case.inner[rise.last],
            f"The length of the signal {word}: it changes by a factor {text(factor)} a layer, "
            f"{text(math.exp(min(rise.total, 700.0)))}-fold over the depth",
            evidence={"length_factor_per_layer": factor, "length_factor_total_log": rise.total},
            predicted_depth_scale=case.scale("length"),
            fix=init_fix(case),
            fix_values=init_values(case),
        )
    ]


def _off_theory(case: Case) -> list[Finding]:
    apart = departures(case)
    if not apart or any(found.severity == "problem" for found in _dead(case)):
        return []
    what = " and ".join(apart)
    return [
        case.finding(
            "off_theory",
            False,
            case.places[min(apart.values())],
            f"The measured {what} leaves the band of random networks with these scales, so the "
            "verdict rests on the measurement alone: these weights are not those of a fresh "
            "independent initialisation (a trained or specially built model)",
            evidence={f"{name}_leaves_at": case.names[case.places[k]] for name, k in apart.items()},
            fix="audit the model before training, or with reinit=k, to compare it with theory",
        )
    ]


def _no_theory(case: Case) -> list[Finding]:
    if case.theory is not None:
        return []
    reason = case.theory_reason or "no chain of weights, activation and dropout was recognised"
    return [
        case.finding(
            "no_theory",
            False,
            None,
            f"No theory is drawn: {reason}",
            fix="read the measured curves; the verdict reports only what is beyond doubt in them",
        )
    ]


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


def _first_below(survival: np.ndarray, nats: float) -> int | None:
    """Return the first layer from which on the survival stays below ``exp(-nats)``."""
    above = np.flatnonzero(~(survival < math.exp(-nats)))
    first = int(above[-1]) + 1 if len(above) else 0
    return first if first < len(survival) else None


def _steady_length(case: Case) -> bool:
    lengths = case.length[case.inner][1:]
    return len(lengths) > 2 and bool(lengths.min() > 0 and lengths.max() < 3 * lengths.min())


def departures(case: Case) -> dict[str, int]:
    """Curves that leave the theory's band for good, with the layer index at which they do.

    A random network is outside its 5-95 % band at a tenth of the layers, and at many layers
    together, since it is a random walk. So a curve counts as apart only where it is further from
    the middle of the band than twice the band's half-width, in the logarithm, at most layers: for a
    normal law a chance of 0.1 % at any one layer. The half-width is taken to be at least 0.15 (the
    noise of some dozens of input pairs and the approximations of convolution borders).
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


def _outside(measured: np.ndarray, band: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    low, high = (np.log(np.maximum(side, 1e-300)) for side in band)
    centre, half = (low + high) / 2, np.maximum((high - low) / 2, 0.15)
    usable = np.isfinite(measured) & (measured > 1e-13) & np.isfinite(centre)
    logs = np.log(np.where(usable, measured, 1.0))
    outside: np.ndarray = usable & (np.abs(logs - centre) > 2 * half)
    return outside


RULES = (
    _dead,
    _propagation,
    _gradient,
    _saturated,
    _length_drift,
    _off_theory,
    _no_theory,
)

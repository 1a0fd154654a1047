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
  To be called a rate, the measured one must differ from zero by its 95 % interval. A change of
  level by exp(12) that lasts to the end of the walk (``growth.lasting_shift``) is a problem without
  that, named after the layer of its largest step: one bad layer is no rate. A network that stays
  inside the finite-width band of a theory without such a drift is told to be wider, not
  re-initialised.
- **No gradient.** Where none reaches any layer, or it is exactly zero at all, that is a problem;
  also where more than half of the layers with weights get none. Fewer are a warning where the first
  layer is among them (a frozen part under ``torch.no_grad``). Elsewhere they stay a note of the
  measurement: a head that the loss does not look at, or a signal that is written to in place.
  Parameters that want no gradient are no obstacle to the gradients of signals.
- **Cause.** Chaotic or ordered: the product over the layers of the slope of the misalignment map
  exceeds exp(6) or falls below exp(-6), or the signal is lost and it has passed exp(+-2). Theory
  may only say so while the measured curves keep to it, at most layers and at the last one; else the
  measurement alone is judged.
- **Dead units.** Once the inputs are nearly aligned a ReLU unit is on or off for all of them, so in
  deep healthy networks up to half of the units are dead on a batch. A warning needs 60 % and three
  binomial deviations above a half (of units: channels of a convolution); a problem needs 99 %.
- Without a theory only what is beyond doubt is reported: the collapse of the pairs must be steady
  over the depth down to the rounding floor, or a fall by exp(8) that lasts over at least two more
  layers. Decorrelation is not judged at all, since what to hold it against is unknown.
"""

from __future__ import annotations

import math

import numpy as np

from depthscale.answers import Undefined
from depthscale.practice.diagnosis.findings import (
    ROUNDING,
    SIGNAL_LOST,
    Case,
    Finding,
    Values,
    chaotic,
    departures,
    dropout_limited,
    ends_apart,
    gradient_evidence,
    gradient_fix,
    init_fix,
    init_hint,
    init_values,
    layer_fix,
    log,
    ordered,
    signal_evidence,
    signal_lost,
    text,
)
from depthscale.practice.diagnosis.growth import exponential, growth, lasting_shift

LITTLE_LEFT, SIGNAL_FADING = 2.0, 6.0
GRADIENT_DRIFTS, GRADIENT_LOST = 6.0, 12.0
PHASE_CERTAIN, PHASE_LIKELY = 6.0, 2.0
DEAD_MANY, DEAD_ALL = 0.6, 0.99
SATURATED_MANY, SATURATED_ALL = 0.75, 0.95
LENGTH_DRIFTS = 12.0

# How the measurement begins a note that says why no gradient came back at all.
NO_GRADIENT_NOTES = ("the backward pass fails", "the loss does not depend")


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


def _everything_dropped(case: Case) -> list[Finding]:
    """A dropout that leaves nothing, on the only way through the model or in a branch of it."""
    event = case.blackout
    if event is None:
        return []
    layers = case.measurement.layers
    place = next((k for k, layer in enumerate(layers) if layer.drop >= 1.0), None)
    where = f"at {event.module!r}" if event.module else f"by `{event.name}`"
    behind = "" if place is None else f", behind layer {case.names[place]!r}"
    return [
        case.finding(
            "dropout_limited",
            case.merges == 0,
            place,
            f"Everything is dropped {where}{behind} (drop {text(event.drop)}): no signal of the "
            "input and no gradient passes",
            evidence={"drop": event.drop},
            fix="lower that drop probability below 1",
        )
    ]


def _blocked(case: Case) -> bool:
    """Whether silence and missing gradients are the work of a dropout that leaves nothing."""
    return case.blackout is not None and case.merges == 0


def _dead(case: Case) -> list[Finding]:
    if _blocked(case):
        return []
    found, own = _silent_layers(case)
    if own is not None:
        return [*found, _silent(case, own)]
    fraction = np.nan_to_num(case.measurement.dead[0])
    # After a silent layer every unit is zero: the layer has been reported, or its cause has.
    fraction[case.measurement.zero[0] >= 1.0] = 0.0
    limits = np.maximum(DEAD_MANY, 0.5 + 1.5 / np.sqrt(np.maximum(_units(case), 1)))
    many = np.flatnonzero(fraction >= np.minimum(limits, DEAD_ALL))
    if len(many) == 0:
        return found
    worst = int(many[np.argmax(fraction[many])])
    share = float(fraction[worst])
    return [
        *found,
        case.finding(
            "dead",
            share >= DEAD_ALL,
            worst,
            f"{share:.0%} of the units after layer {case.names[worst]!r} are zero for every input",
            evidence={"dead_fraction": share, "layers_affected": float(len(many))},
            fix="keep the biases at zero or above and the weights at their critical scale"
            + init_hint(case),
            fix_values=init_values(case),
        ),
    ]


def _silent_layers(case: Case) -> tuple[list[Finding], int | None]:
    """The first layer silent because its weights are zero, and the first for no such reason.

    Layers that follow a zero-weight layer in one silent run are silent because of it.
    """
    silent = case.measurement.zero[0] >= 1.0
    found: list[Finding] = []
    excused = False
    for place in np.flatnonzero(silent):
        if place == 0 or not silent[place - 1]:
            excused = False
        if case.measurement.layers[place].sigma_w == 0.0:
            excused = True
            found = found or [_zero_weights(case, int(place))]
        elif not excused:
            return found, int(place)
    return found, None


def _units(case: Case) -> np.ndarray:
    """Number of units that the fractions of each layer are over: rows of the weights.

    The width of a layer counts positions too, which are no further units.
    """
    layers, trace = case.measurement.layers, case.measurement.trace
    units = np.array([layer.width for layer in layers], dtype=float)
    rows = [] if trace is None else [e.weight.rows for e in trace.weights if e.weight is not None]
    plain = [k for k, layer in enumerate(layers) if layer.kind not in ("block", "fused")]
    if len(rows) == len(plain):
        units[plain] = rows
    return units


def _silent(case: Case, place: int) -> Finding:
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
    zero = _no_weights_at_all(case)
    if zero:
        names = f"{case.names[zero[0]]!r} to {case.names[zero[-1]]!r}"
        return case.finding(
            "zero_weights",
            True,
            zero[0],
            f"All weights of the hidden layers are zero ({len(zero)} layers, {names}): neither the "
            "input nor a gradient passes them, so the model cannot train",
            evidence={"sigma_w": 0.0, "layers_affected": float(len(zero))},
            fix="draw their weights at random, of scale 1/sqrt(fan_in)" + init_hint(case),
            fix_values=init_values(case),
        )
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


def _no_weights_at_all(case: Case) -> list[int]:
    """The layers of zero weights where those are all but at most the last one, two at least.

    A single one is left by its own gradient, and beside a shortcut zero branches are no obstacle.
    """
    layers = case.measurement.layers
    weighty = [k for k, layer in enumerate(layers) if layer.kind != "block"]
    zero = [k for k in weighty if layers[k].sigma_w == 0.0]
    return zero if len(zero) > 1 and set(weighty[:-1]) <= set(zero) and not case.merges else []


def _propagation(case: Case) -> list[Finding]:
    """Chaotic, ordered, dropout-limited, and the loss of the signal that goes with each."""
    if _blocked(case):
        return []
    if case.theory is None or departures(case) or ends_apart(case):
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
        findings.append(dropout_limited(case, theory.drop, gone, fading))
    elif phase and drift > 0:
        findings.append(chaotic(case, strong, _first_below(survival, LITTLE_LEFT)))
    elif phase:
        findings.append(ordered(case, strong, fading))
    if fading is not None:
        remedy = (findings[0].fix, findings[0].fix_values) if findings else None
        findings.append(signal_lost(case, gone, fading, left, remedy))
    return findings


def _dropout_limits(case: Case) -> bool:
    theory, advice = case.theory, case.advice
    if theory is None or theory.drop == 0.0:
        return False
    limit = advice.max_drop if advice else Undefined("no advice was asked for")
    if isinstance(limit, Undefined):
        return abs(float(np.log(theory.slope).sum())) < PHASE_CERTAIN
    return theory.drop > limit


def _collapse(case: Case) -> list[Finding]:
    """Without a theory: a collapse of the pairs that is steady over the depth and beyond doubt."""
    eps = case.measurement.eps[0, case.places]
    floored = np.flatnonzero(eps <= ROUNDING)
    above = eps[: floored[0] + 1] if len(floored) and eps[0] > ROUNDING else eps
    rise = growth(above)
    if rise is None or rise.total > -SIGNAL_FADING or not rise.rate.high < 0.0:
        return _lasting_collapse(case)
    half = growth(above[len(above) // 2 :])
    if half is None or half.total > rise.total / 4:
        return _lasting_collapse(case)
    survival = np.where(np.isfinite(eps), eps, np.inf) / eps[rise.first]
    index = _first_below(survival, SIGNAL_FADING)
    if index is None:
        return []
    left = -log(survival[-1])
    return [signal_lost(case, left > SIGNAL_LOST, index, left)]


def _lasting_collapse(case: Case) -> list[Finding]:
    """A fall of the misalignment at one place from which it does not recover."""
    eps = case.measurement.eps[0, case.inner]
    # Two layers must follow: a pooled or class-token output alone says nothing about the layers.
    shift = lasting_shift(np.where(eps >= 0, np.maximum(eps, ROUNDING), eps), after=2)
    if shift is None or shift.total > -SIGNAL_LOST:
        return []
    place = case.inner[shift.after]
    fix, values = layer_fix(case, place)
    return [
        case.finding(
            "signal_lost",
            True,
            place,
            f"The difference between inputs is lost at layer {case.names[place]!r}: the "
            f"misalignment falls from {text(eps[shift.before])} to {text(eps[shift.after])} there "
            "and does not recover",
            evidence=signal_evidence(case)
            | {"lasting_log": shift.total, "threshold_log": -SIGNAL_LOST},
            predicted_depth_scale=case.scale("correlation"),
            fix=fix,
            fix_values=values,
        )
    ]


def _no_gradient(case: Case) -> list[Finding]:
    """No gradient where one belongs: none at all, exactly zero at all, or missing at layers."""
    measured = [k for k, length in enumerate(case.length) if math.isfinite(length)]
    values = case.measurement.gradient[0, measured]
    if len(measured) == 0 or _blocked(case):
        return []
    if np.all(values == 0.0):
        what = "The gradient is exactly zero at every layer"
        fix = "replace the operation behind the last layer that passes none (a sign, a rounding, a "
        return [_gradient_stop(case, True, None, what, fix + "dead or saturated activation)")]
    weighty = [k for k in measured if case.measurement.layers[k].kind != "block"]
    missing = [k for k in weighty if math.isnan(case.measurement.gradient[0, k])]
    if not missing:
        return []
    reasons = [note for note in case.measurement.notes if note.startswith(NO_GRADIENT_NOTES)]
    why = f" ({reasons[0]})" if reasons else ""
    fix = "look for a detach, torch.no_grad, or an operation without a derivative"
    if np.all(np.isnan(values)):
        what = f"No gradient reaches any layer{why}"
        fix = fix + " between the layers and the output" if not why else "repair that: " + fix
        return [_gradient_stop(case, True, None, what, fix)]
    problem = len(missing) > len(weighty) / 2
    if not problem and missing[0] != weighty[0]:
        return []
    first = case.names[missing[0]]
    what = f"No gradient reaches {len(missing)} of {len(weighty)} layers (first {first!r})"
    fix += " behind them, unless they are frozen on purpose"
    return [_gradient_stop(case, problem, missing[0], what, fix)]


def _gradient_stop(case: Case, problem: bool, place: int | None, what: str, fix: str) -> Finding:
    got = case.measurement.gradient[0] > 0
    evidence: Values = {"layers_with_gradient": float(got.sum()), "layers": float(len(got))}
    return case.finding("no_gradient", problem, place, what, evidence=evidence, fix=fix)


def _gradient(case: Case) -> list[Finding]:
    if _blocked(case):
        return []
    values = case.measurement.gradient[0, case.places]
    known = np.flatnonzero(np.isfinite(values))
    if len(known) and values[known[-1]] > 0 and values[known[0]] == 0.0:
        return [_zero_gradient(case, values)]
    if np.isinf(values).any():
        return [_overflowing_gradient(case, int(np.flatnonzero(np.isinf(values))[-1]))]
    rise = case.gradient_growth()
    if rise is None or abs(rise.total) < GRADIENT_DRIFTS or not rise.significant:
        return _lasting_gradient(case)
    up, lost = rise.total > 0, abs(rise.total) > GRADIENT_LOST
    noise = _width_noise(case)
    doing = ("explodes" if up else "vanishes") if lost else ("grows" if up else "shrinks")
    factor = math.exp(float(rise.rate.value))
    place = case.places[0]
    summary = (
        f"The gradient {doing}: its squared norm changes by "
        f"{text(factor)} a layer on the way back, {text(exponential(rise.total))}-fold "
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


def _lasting_gradient(case: Case) -> list[Finding]:
    """A change of the gradient at one place that no layer further back makes good."""
    inner = case.inner[::-1]
    # Behind a normalisation the gradient of a layer goes as 1/length, which its weights make up
    # for. So one layer at either end, such as the first one on large raw inputs, is not judged.
    least = 2 if case.has("norm") else 1
    values = case.measurement.gradient[0, inner]
    shift = lasting_shift(values, before=least, after=least)
    if shift is None or abs(shift.total) < GRADIENT_LOST or _width_noise(case):
        return []
    up, place = shift.total > 0, inner[shift.before]
    fix, values_fix = layer_fix(case, place)
    return [
        case.finding(
            "gradient_exploding" if up else "gradient_vanishing",
            True,
            place,
            f"The gradient {'explodes' if up else 'vanishes'} at layer {case.names[place]!r}: its "
            f"squared norm changes from {text(values[shift.before])} to "
            f"{text(values[shift.after])} before it and does not recover",
            evidence={"lasting_log": shift.total, "threshold_log": GRADIENT_LOST},
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
            f"{text(exponential(rise.total))}-fold over the depth",
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


def _first_below(survival: np.ndarray, nats: float) -> int | None:
    """Return the first layer from which on the survival stays below ``exp(-nats)``."""
    above = np.flatnonzero(~(survival < math.exp(-nats)))
    first = int(above[-1]) + 1 if len(above) else 0
    return first if first < len(survival) else None


RULES = (
    _everything_dropped,
    _dead,
    _propagation,
    _no_gradient,
    _gradient,
    _saturated,
    _length_drift,
    _off_theory,
    _no_theory,
)

"""Which universality classes measured exponents allow, and what would tell them apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Undefined
from depthscale.scaling.classes import (
    UNIVERSALITY,
    ExponentClass,
    Prediction,
    quantity_of,
    split_quantity,
)
from depthscale.scaling.series import Array, checked_covariance
from depthscale.theory.records import as_number

VERDICTS = {
    "identified": "one class is left, by at least two exponents",
    "compatible": "one class is left, but by a single exponent",
    "cannot tell apart": "several classes are left",
    "none of these": "every class is ruled out",
    "depends on the window": "no class holds in the last two windows",
    "not comparable": "no class states any of the exponents",
}

ANYWHERE = 3.0
"""Width of the range in which an exponent may lie that a class does not state."""

SIGMAS = 3.0
"""Standard errors by which a measurement has to tell two classes apart."""

_RELATIONS = (("delta", "beta", "nu_par"), ("z", "nu_par", "nu_perp"))
_GREATEST = 1e6


class Measurement(NamedTuple):
    """Exponents [k] by name and their covariance [k, k]."""

    names: tuple[str, ...]
    values: Array
    covariance: Array

    @property
    def errors(self) -> Array:
        """Standard errors [k]."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))


class Rank(NamedTuple):
    """A class against the measurement.

    ``compared``: the exponents that it states; ``predicted`` and ``uncertainty`` of each; ``pulls``
    their differences to it over the errors of both. ``weight``: posterior probability among the
    classes with equal odds before, an exponent that it does not state being anywhere in a range of
    3.
    """

    member: ExponentClass
    chi2: float
    dof: int
    p_value: float
    weight: float
    compared: tuple[str, ...]
    missing: tuple[str, ...]
    predicted: tuple[float, ...]
    uncertainty: tuple[float, ...]
    pulls: tuple[float, ...]
    allowed: bool

    @property
    def label(self) -> str:
        """Name and dimension of the class."""
        return self.member.label


class Separation(NamedTuple):
    """What would tell two classes apart: an exponent, and its standard error for 3 of them.

    ``exponent`` is None, and so is the rest, where no exponent that both state does.
    """

    one: str
    other: str
    exponent: str | None
    values: tuple[float, float] | None
    accuracy: float | None
    now: float | None


class WindowVerdict(NamedTuple):
    """What one window says by itself."""

    label: str
    verdict: str
    allowed: tuple[str, ...]
    measured: Measurement


class Derived(NamedTuple):
    """An exponent that follows from measured ones by a scaling relation."""

    value: float
    error: float
    relation: str


@dataclass(frozen=True)
class Identification:
    """Classes by how well they fit measured exponents.

    ``verdict`` is one of ``VERDICTS`` and ``sentence`` says it in words. ``ranking``: classes that
    state a measured exponent, first those that are allowed, by weight. ``allowed``: labels of the
    classes that ``verdict`` leaves. ``separating``: what would tell the best of them from each
    other one. ``derived``: what follows by scaling relations; it is no evidence of its own.
    ``windows``: the verdict of each, where several were given. ``dropped``: exponents that no class
    states; ``silent``: classes that state none of those measured.
    """

    verdict: str
    sentence: str
    allowed: tuple[str, ...]
    ranking: tuple[Rank, ...]
    separating: tuple[Separation, ...]
    measured: Measurement
    derived: Mapping[str, Derived]
    level: float
    dimension: int | None
    windows: tuple[WindowVerdict, ...]
    warnings: tuple[str, ...]
    silent: tuple[str, ...]

    @property
    def best(self) -> Rank | None:
        """The first of the ranking."""
        return self.ranking[0] if self.ranking else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "allowed": list(self.allowed),
            "ranking": [_row(rank) for rank in self.ranking],
            "separating": [_separation(s) for s in self.separating],
            "measured": _measured(self.measured),
            "correlation": _correlation(self.measured).tolist(),
            "derived": {name: d._asdict() for name, d in self.derived.items()},
            "level": self.level,
            "dimension": self.dimension,
            "windows": [
                {
                    "window": w.label,
                    "verdict": w.verdict,
                    "allowed": list(w.allowed),
                    "measured": _measured(w.measured),
                }
                for w in self.windows
            ],
            "warnings": list(self.warnings),
            "silent": list(self.silent),
        }

    def __str__(self) -> str:
        from depthscale.report.identify_summaries import render_identification

        return render_identification(self.to_dict())


def identify(
    exponents: Mapping[str, Any] | None = None,
    covariance: ArrayLike | None = None,
    *,
    dimension: int | None = None,
    level: float = 0.01,
    windows: Mapping[str, Any] | Sequence[tuple[str, Any]] | None = None,
    classes: Iterable[ExponentClass] = UNIVERSALITY,
) -> Identification:
    """Rank universality classes by measured exponents; the answer may be "none of these".

    For each class ``chi2 = r^T (C + T)^-1 r`` over the exponents that it states: ``r`` their
    differences to the class, ``C`` their covariance and ``T`` that of the class's own numbers. A
    class is left where so large a chi2 is as probable as ``level``. One class by two exponents is
    an identification; one by a single exponent is not, since classes beyond the table share it.

    Parameters
    ----------
    exponents:
        Name to (value, standard error), or to the value with a covariance. Names are those of
        ``EXPONENTS`` and quotients of them, such as "1/nu_par" or "beta/nu_perp". Default: those of
        the last window.
    covariance:
        Of the exponents in their order, [k, k].
    dimension:
        Of space, 0 for none: keeps its classes and those of mean field. Default: all.
    level:
        Probability at which the right class is ruled out, in (0, 1).
    windows:
        Label to exponents, or to (exponents, covariance), from the smallest scales to the largest.
        A class counts only if it holds in the last two: one that holds in an intermediate window
        alone is passed through, not reached.
    classes:
        Those to compare.

    Raises
    ------
    InputError
        With what was given and what is expected.

    Examples
    --------
    >>> found = identify({"delta": (0.16, 0.01), "z": (1.58, 0.02)})
    >>> found.verdict, found.ranking[0].label
    ('identified', 'directed percolation 1+1')
    >>> identify({"delta": (0.16, 0.01), "z": (1.2, 0.02)}).verdict
    'none of these'
    """
    level = as_number("level", level)
    if not 0 < level < 1:
        raise InputError(f"level is {level:g}; expected a probability inside (0, 1)")
    parts = _windows(windows)
    if exponents is None:
        if not parts:
            raise InputError("no exponents were given; expected a name and (value, error) of some")
        measured = parts[-1][1]
    else:
        measured = measurement(exponents, covariance)
    members = _members(classes, dimension)
    ranking, silent = rank(measured, members, level)
    verdict = _verdict(ranking)
    allowed = tuple(r.label for r in ranking if r.allowed)
    seen = tuple(_window_verdict(label, part, members, level) for label, part in parts)
    warnings = _unused(measured, members)
    if len(seen) > 1:
        verdict, allowed, notes = _settled(verdict, allowed, seen)
        warnings += notes
    found = Identification(
        verdict=verdict,
        sentence="",
        allowed=allowed,
        ranking=ranking,
        separating=_separating(ranking, allowed, measured, members),
        measured=measured,
        derived=_derived(measured),
        level=level,
        dimension=dimension,
        windows=seen,
        warnings=tuple(warnings),
        silent=silent,
    )
    return replace(found, sentence=_sentence(found))


# Input -------------------------------------------------------------------------------------------


def measurement(exponents: Mapping[str, Any], covariance: ArrayLike | None = None) -> Measurement:
    """Measured exponents, checked: see ``identify``."""
    if not isinstance(exponents, Mapping) or not exponents:
        raise InputError(
            f"exponents are {exponents!r}; expected a mapping of names to (value, error)"
        )
    names: list[str] = []
    values: list[float] = []
    errors: list[float | None] = []
    for name, given in exponents.items():
        quantity = quantity_of(name)
        if quantity in names:
            raise InputError(f"{name!r} is given twice (it is {quantity}); expected it once")
        value, error = _pair(name, given)
        names.append(quantity)
        values.append(value)
        errors.append(error)
    if covariance is not None:
        if any(error is not None for error in errors):
            raise InputError("errors and a covariance were both given; expected one of them")
        matrix = checked_covariance(covariance, len(names))
    else:
        lacking = [name for name, error in zip(exponents, errors, strict=True) if error is None]
        if lacking:
            raise InputError(
                f"{lacking[0]} has no error; without one nothing is ruled out. Give (value, error),"
                " or a covariance"
            )
        matrix = np.diag([float(error or 0.0) ** 2 for error in errors])
    return Measurement(tuple(names), np.array(values), matrix)


def _pair(name: str, given: Any) -> tuple[float, float | None]:
    """Value and error, the second None where a number stands alone."""
    if isinstance(given, str):
        raise InputError(f"{name} is {given!r}; expected a number or (value, error)")
    try:
        parts = list(given)
    except TypeError:
        parts = [given]
    if len(parts) not in (1, 2):
        raise InputError(f"{name} is {given!r}; expected (value, error)")
    numbers = [as_number(name, part) for part in parts]
    if not math.isfinite(numbers[0]) or abs(numbers[0]) > _GREATEST:
        raise InputError(f"{name} is {numbers[0]}; expected a finite number, at most {_GREATEST:g}")
    if len(numbers) == 1:
        return numbers[0], None
    if not 0 < numbers[1] < _GREATEST:
        raise InputError(f"{name} has the error {numbers[1]:g}; expected a number above 0")
    return numbers[0], numbers[1]


def _windows(
    windows: Mapping[str, Any] | Sequence[tuple[str, Any]] | None,
) -> list[tuple[str, Measurement]]:
    if windows is None:
        return []
    pairs = list(windows.items()) if isinstance(windows, Mapping) else list(windows)
    found = []
    for pair in pairs:
        try:
            label, given = pair
        except (TypeError, ValueError):
            raise InputError(f"a window is {pair!r}; expected (label, exponents)") from None
        exponents, covariance = given if isinstance(given, tuple) else (given, None)
        found.append((str(label), measurement(exponents, covariance)))
    if len(found) == 1:
        raise InputError("one window was given; whether a claim lasts takes at least two")
    return found


def _members(classes: Iterable[ExponentClass], dimension: int | None) -> list[ExponentClass]:
    members = list(classes)
    if dimension is None:
        return members
    if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 0:
        raise InputError(f"dimension is {dimension!r}; expected a whole number, at least 0")
    kept = [c for c in members if c.dimension in (dimension, None)]
    if not any(c.dimension == dimension for c in kept) and dimension < 4:
        known = sorted({c.dimension for c in members if c.dimension is not None})
        raise InputError(f"no class is of dimension {dimension}; the table has {known}")
    return kept


# Ranking -----------------------------------------------------------------------------------------


def rank(
    measured: Measurement, members: Sequence[ExponentClass], level: float
) -> tuple[tuple[Rank, ...], tuple[str, ...]]:
    """Classes against a measurement, and the labels of those that state nothing of it."""
    found: list[tuple[Rank, float]] = []
    silent = []
    for member in members:
        one = _against(measured, member, level)
        if one is None:
            silent.append(member.label)
        else:
            found.append(one)
    if not found:
        return (), tuple(silent)
    top = max(weight for _, weight in found)
    total = sum(math.exp(weight - top) for _, weight in found)
    weighed = [
        (r._replace(weight=math.exp(weight - top) / total), weight) for r, weight in found
    ]
    weighed.sort(key=lambda pair: (not pair[0].allowed, -pair[1]))
    return tuple(r for r, _ in weighed), tuple(silent)


def _against(
    measured: Measurement, member: ExponentClass, level: float
) -> tuple[Rank, float] | None:
    """A class and the logarithm of its weight; None where it states nothing."""
    from scipy.stats import chi2 as chi_square

    stated: list[tuple[str, Prediction]] = []
    for name in measured.names:
        prediction = member.predict(name)
        if not isinstance(prediction, Undefined):
            stated.append((name, prediction))
    if not stated:
        return None
    names = tuple(name for name, _ in stated)
    joint = member.predict(*names)
    assert isinstance(joint, Prediction)
    index = [measured.names.index(name) for name in names]
    rest = measured.values[index] - joint.values
    spread = measured.covariance[np.ix_(index, index)] + joint.covariance
    scale = np.sqrt(np.diag(spread))
    lower = np.linalg.cholesky(spread / np.outer(scale, scale))
    white = np.linalg.solve(lower, rest / scale)
    chi2 = float(white @ white)
    height = -chi2 / 2 - float(np.log(np.diag(lower) * scale).sum())
    height -= len(names) / 2 * math.log(2 * math.pi)
    missing = tuple(name for name in measured.names if name not in names)
    height -= len(missing) * math.log(ANYWHERE)
    p_value = float(chi_square.sf(chi2, len(names)))
    found = Rank(
        member=member,
        chi2=chi2,
        dof=len(names),
        p_value=p_value,
        weight=0.0,
        compared=names,
        missing=missing,
        predicted=tuple(joint.values.tolist()),
        uncertainty=tuple(np.sqrt(np.diag(joint.covariance)).tolist()),
        pulls=tuple((rest / scale).tolist()),
        allowed=p_value >= level,
    )
    return found, height


def _verdict(ranking: tuple[Rank, ...]) -> str:
    if not ranking:
        return "not comparable"
    allowed = [r for r in ranking if r.allowed]
    if not allowed:
        return "none of these"
    if len(allowed) > 1:
        return "cannot tell apart"
    return "identified" if allowed[0].dof > 1 else "compatible"


def _unused(measured: Measurement, members: Sequence[ExponentClass]) -> list[str]:
    """Exponents that no class states."""
    return [
        f"no class in question states {name}; it is not compared"
        for name in measured.names
        if not any(member.states(name) for member in members)
    ]


# Windows -----------------------------------------------------------------------------------------


def _window_verdict(
    label: str, part: Measurement, members: Sequence[ExponentClass], level: float
) -> WindowVerdict:
    ranking, _ = rank(part, members, level)
    allowed = tuple(r.label for r in ranking if r.allowed)
    return WindowVerdict(label, _verdict(ranking), allowed, part)


def _settled(
    verdict: str, allowed: tuple[str, ...], seen: tuple[WindowVerdict, ...]
) -> tuple[str, tuple[str, ...], list[str]]:
    """The verdict that lasts: by classes that hold in the last two windows."""
    last, before = seen[-1], seen[-2]
    lasting = tuple(
        label for label in allowed if label in last.allowed and label in before.allowed
    )
    notes = []
    early = [w for w in seen[:-2] if lasting and not set(lasting) & set(w.allowed)]
    if early:
        names = ", ".join(w.label for w in early)
        notes.append(f"corrections to scaling: the classes that are left do not hold on {names}")
    passing: dict[str, list[str]] = {}
    for window in seen:
        for label in window.allowed:
            if label not in lasting:
                passing.setdefault(label, []).append(window.label)
    for label, where in passing.items():
        notes.append(f"{label} holds only on {', '.join(where)}: passed through, not reached")
    notes += _drifts(seen)
    if lasting == allowed:
        return verdict, allowed, notes
    if not lasting:
        held = verdict != "none of these" or any(w.allowed for w in seen)
        return ("depends on the window" if held else verdict), (), notes
    return ("identified" if len(lasting) == 1 else "cannot tell apart"), lasting, notes


def _drifts(seen: tuple[WindowVerdict, ...]) -> list[str]:
    """Exponents that still change in the last step."""
    one, two = seen[-2].measured, seen[-1].measured
    notes = []
    for name in two.names:
        if name not in one.names:
            continue
        i, j = one.names.index(name), two.names.index(name)
        change = float(two.values[j] - one.values[i])
        error = math.hypot(float(one.errors[i]), float(two.errors[j]))
        if abs(change) > SIGMAS * error:
            notes.append(
                f"{name} still drifts: {one.values[i]:.4g} on {seen[-2].label},"
                f" {two.values[j]:.4g} on {seen[-1].label}, {abs(change) / error:.1f} errors of"
                " independent windows"
            )
    return notes


# What would tell them apart ----------------------------------------------------------------------


def _separating(
    ranking: tuple[Rank, ...],
    allowed: tuple[str, ...],
    measured: Measurement,
    members: Sequence[ExponentClass],
) -> tuple[Separation, ...]:
    left = [r.member for r in ranking if r.label in allowed]
    if len(left) < 2:
        return ()
    return tuple(separation(left[0], other, measured) for other in left[1:])


def separation(
    one: ExponentClass, other: ExponentClass, measured: Measurement | None = None
) -> Separation:
    """The exponent that tells two classes apart at the largest relative error, and that error.

    A standard error s suffices where ``|a - b| >= 3 sqrt(s^2 + u_a^2 + u_b^2)``, with the
    uncertainties of both classes.
    """
    from depthscale.scaling.classes import EXPONENTS

    best: tuple[float, str, tuple[float, float], float] | None = None
    for name in EXPONENTS:
        here, there = one.predict(name), other.predict(name)
        if isinstance(here, Undefined) or isinstance(there, Undefined):
            continue
        a, b = float(here.values[0]), float(there.values[0])
        square = ((a - b) / SIGMAS) ** 2 - float(here.covariance[0, 0] + there.covariance[0, 0])
        if square <= 0:
            continue
        accuracy = math.sqrt(square)
        relative = accuracy / max(abs(a), abs(b))
        if best is None or relative > best[0] + 1e-12:
            best = (relative, name, (a, b), accuracy)
    if best is None:
        return Separation(one.label, other.label, None, None, None, None)
    _, name, values, accuracy = best
    now = None
    if measured is not None and name in measured.names:
        now = float(measured.errors[measured.names.index(name)])
    return Separation(one.label, other.label, name, values, accuracy, now)


def _derived(measured: Measurement) -> dict[str, Derived]:
    """Exponents that follow from two measured ones, with the covariance of these."""
    place = {name: k for k, name in enumerate(measured.names)}
    expressed = {name: (float(measured.values[k]), _unit(k, len(place))) for name, k in place.items()}
    for name, k in place.items():
        one, two = split_quantity(name)
        if one == "1" and two not in expressed and measured.values[k] != 0:
            value = 1 / float(measured.values[k])
            expressed[two] = (value, -(value**2) * _unit(k, len(place)))
    found: dict[str, Derived] = {}
    for name, (value, slope) in expressed.items():
        if name not in place:
            found[name] = _with_error(value, slope, measured, f"1/(1/{name})")
    for _ in _RELATIONS:
        for top, one, two in _RELATIONS:
            missing = [name for name in (top, one, two) if name not in expressed]
            if len(missing) != 1:
                continue
            new = _third(missing[0], (top, one, two), expressed)
            if new is not None:
                expressed[missing[0]] = new[0]
                found[missing[0]] = _with_error(*new[0], measured, new[1])
    return found


def _third(
    missing: str, names: tuple[str, str, str], known: Mapping[str, tuple[float, Array]]
) -> tuple[tuple[float, Array], str] | None:
    """The third of ``top = one/two``, its derivative, and the relation in words."""
    top, one, two = names
    if missing == one:
        (a, da), (b, db) = known[top], known[two]
        return (a * b, a * db + b * da), f"{top} {two}"
    divisor = two if missing == top else top
    (a, da), (b, db) = known[one], known[divisor]
    if b == 0:
        return None
    return (a / b, da / b - a / b**2 * db), f"{one}/{divisor}"


def _unit(k: int, count: int) -> Array:
    unit = np.zeros(count)
    unit[k] = 1.0
    return unit


def _with_error(value: float, slope: Array, measured: Measurement, relation: str) -> Derived:
    return Derived(value, math.sqrt(float(slope @ measured.covariance @ slope)), relation)


# Words -------------------------------------------------------------------------------------------


def _sentence(found: Identification) -> str:
    """The verdict in one sentence, with the class or classes that it is about."""
    names = ", ".join(found.allowed)
    best = found.best
    if found.verdict == "identified":
        return f"{names}, by {best.dof if best else 0} exponents"
    if found.verdict == "compatible":
        name = best.compared[0] if best else ""
        return (
            f"{names} alone is left, but {name} by itself identifies no class: classes beyond the"
            " table may share it; measure another exponent"
        )
    if found.verdict == "cannot tell apart":
        return f"{len(found.allowed)} classes are left: {names}"
    if found.verdict == "depends on the window":
        held = dict.fromkeys(label for w in found.windows for label in w.allowed)
        what = f" ({', '.join(held)} in some)" if held else ""
        return f"no class holds in the last two windows{what}: the exponents have not settled"
    if found.verdict == "none of these" and best is not None:
        near = min(found.ranking, key=lambda r: -r.p_value)
        return (
            f"the nearest, {near.label}, has probability {near.p_value:.2g}, below"
            f" {found.level:g}"
        )
    return f"no class states {', '.join(found.measured.names)}"


def _row(r: Rank) -> dict[str, Any]:
    exponents = {
        name: {"predicted": value, "uncertainty": error, "pull": pull}
        for name, value, error, pull in zip(
            r.compared, r.predicted, r.uncertainty, r.pulls, strict=True
        )
    }
    return {
        "class": r.member.name,
        "dimension": r.member.dimension,
        "label": r.label,
        "allowed": r.allowed,
        "chi2": r.chi2,
        "dof": r.dof,
        "p_value": r.p_value,
        "weight": r.weight,
        "exponents": exponents,
        "missing": list(r.missing),
        "source": r.member.source,
        "note": r.member.note,
    }


def _separation(s: Separation) -> dict[str, Any]:
    record = s._asdict()
    record["values"] = None if s.values is None else list(s.values)
    return record


def _measured(m: Measurement) -> dict[str, Any]:
    return {
        name: {"value": float(value), "error": float(error)}
        for name, value, error in zip(m.names, m.values, m.errors, strict=True)
    }


def _correlation(m: Measurement) -> Array:
    return np.asarray(m.covariance / np.outer(m.errors, m.errors))

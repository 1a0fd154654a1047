"""Which universality classes measured exponents allow, and what would tell them apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.scaling.classes import UNIVERSALITY, ExponentClass
from depthscale.scaling.measurement import Derived, Measurement, derived, measurement
from depthscale.scaling.ranking import SIGMAS, Rank, Separation, rank, separation
from depthscale.scaling.series import Array
from depthscale.theory.records import as_number, whole

VERDICTS = {
    "identified": "one class is left, by at least two exponents",
    "compatible": "one class is left, but by a single exponent",
    "cannot tell apart": "several classes are left",
    "none of these": "every class is ruled out",
    "depends on the window": "no class holds in the last two windows",
    "not comparable": "no class states any of the exponents",
}


class WindowVerdict(NamedTuple):
    """What one window says by itself."""

    label: str
    verdict: str
    allowed: tuple[str, ...]
    measured: Measurement


@dataclass(frozen=True)
class Identification:
    """Classes by how well they fit measured exponents.

    ``verdict`` is one of ``VERDICTS`` and ``sentence`` says it in words. ``ranking``: classes that
    state a measured exponent, first those that are allowed, by weight. ``allowed``: labels of the
    classes that ``verdict`` leaves. ``separating``: what would tell the best of them from each
    other one. ``derived``: what follows by scaling relations; it is no evidence of its own.
    ``windows``: the verdict of each, where several were given. ``warnings`` in plain language;
    ``silent``: classes that state none of the measured exponents, or have no such decay.
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
        verdict, allowed, notes = _settled(ranking, seen)
        warnings += notes
    warnings += _dimensions(ranking, allowed, dimension)
    found = Identification(
        verdict=verdict,
        sentence="",
        allowed=allowed,
        ranking=ranking,
        separating=_separating(ranking, allowed, measured),
        measured=measured,
        derived=derived(measured),
        level=level,
        dimension=dimension,
        windows=seen,
        warnings=tuple(warnings),
        silent=silent,
    )
    return replace(found, sentence=_sentence(found))


def _windows(
    windows: Mapping[str, Any] | Sequence[tuple[str, Any]] | None,
) -> list[tuple[str, Measurement]]:
    if windows is None:
        return []
    if not isinstance(windows, Mapping | Sequence):
        raise InputError(f"windows are {windows!r}; expected labels with exponents")
    pairs = list(windows.items()) if isinstance(windows, Mapping) else list(windows)
    found = []
    for pair in pairs:
        try:
            label, given = pair
        except (TypeError, ValueError):
            raise InputError(f"a window is {pair!r}; expected (label, exponents)") from None
        exponents, covariance, *more = given if isinstance(given, tuple) else (given, None)
        if more:
            raise InputError(f"window {label} holds more than (exponents, covariance)")
        found.append((str(label), measurement(exponents, covariance)))
    if len(found) == 1:
        raise InputError("one window was given; whether a claim lasts takes at least two")
    return found


def _members(classes: Iterable[ExponentClass], dimension: int | None) -> list[ExponentClass]:
    members = list(classes)
    if dimension is None:
        return members
    dimension = whole("dimension", dimension, 0)
    kept = [c for c in members if c.dimension in (dimension, None)]
    if not any(c.dimension == dimension for c in kept) and dimension < 4:
        known = sorted({c.dimension for c in members if c.dimension is not None})
        raise InputError(f"no class is of dimension {dimension}; the table has {known}")
    return kept


def _verdict(ranking: tuple[Rank, ...]) -> str:
    if not ranking:
        return "not comparable"
    allowed = [r for r in ranking if r.allowed]
    return _left(allowed) if allowed else "none of these"


def _left(allowed: Sequence[Rank]) -> str:
    """The verdict where classes are left."""
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
    ranking: tuple[Rank, ...], seen: tuple[WindowVerdict, ...]
) -> tuple[str, tuple[str, ...], list[str]]:
    """Verdict, classes that last (they hold in the last two windows as well), and notes."""
    reached = set(seen[-1].allowed) & set(seen[-2].allowed)
    lasting = [r for r in ranking if r.allowed and r.label in reached]
    labels = tuple(r.label for r in lasting)
    notes = _passing(seen, labels)
    early = [w.label for w in seen[:-2] if labels and not set(labels) & set(w.allowed)]
    if early:
        notes.append(
            f"corrections to scaling: what is left does not hold on {', '.join(early)} yet"
        )
    notes += _drifts(seen)
    if lasting:
        return _left(lasting), labels, notes
    if any(w.allowed for w in seen) or any(r.allowed for r in ranking):
        return "depends on the window", (), notes
    return "none of these" if ranking else "not comparable", (), notes


def _passing(seen: tuple[WindowVerdict, ...], lasting: tuple[str, ...]) -> list[str]:
    """Classes that hold in some windows alone."""
    where: dict[str, list[str]] = {}
    for window in seen:
        for label in window.allowed:
            if label not in lasting:
                where.setdefault(label, []).append(window.label)
    return [
        f"{label} holds on {', '.join(names)} alone: "
        + (
            "one window is not enough, it has to last"
            if names == [seen[-1].label]
            else "passed through, not reached"
        )
        for label, names in where.items()
    ]


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


def _dimensions(
    ranking: tuple[Rank, ...], allowed: tuple[str, ...], dimension: int | None
) -> list[str]:
    """Say that the dimension would help where it was not given."""
    left = {r.member.dimension for r in ranking if r.label in allowed}
    if dimension is None and len(left - {None}) > 1:
        return ["the classes that are left differ in the dimension of space; tell it"]
    return []


# What would tell them apart ----------------------------------------------------------------------


def _separating(
    ranking: tuple[Rank, ...],
    allowed: tuple[str, ...],
    measured: Measurement,
) -> tuple[Separation, ...]:
    left = [r.member for r in ranking if r.label in allowed]
    if len(left) < 2:
        return ()
    return tuple(separation(left[0], other, measured) for other in left[1:])


# Words -------------------------------------------------------------------------------------------


def _sentence(found: Identification) -> str:
    """The verdict in one sentence, with the class or classes that it is about."""
    names = ", ".join(found.allowed)
    best = next((r for r in found.ranking if r.label in found.allowed), found.best)
    if found.verdict == "identified" and best is not None:
        return f"{names}, by {best.dof} exponents"
    if found.verdict == "compatible" and best is not None:
        return (
            f"{names} alone is left, but {best.compared[0]} by itself identifies no class: classes"
            " beyond the table may share it; measure another exponent"
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
            f"the nearest, {near.label}, has probability {near.p_value:.2g}, below {found.level:g}"
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
        "source": r.member.source(*r.compared),
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

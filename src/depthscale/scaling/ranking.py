"""Universality classes ranked by a measurement, and what would tell two of them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from depthscale.answers import Undefined
from depthscale.scaling.class_records import EXPONENTS, ExponentClass, Prediction, exponents_in
from depthscale.scaling.measurement import Measurement

ANYWHERE = 3.0
"""Width of the range in which an exponent may lie that a class does not state."""

SIGMAS = 3.0
"""Standard errors by which a measurement has to tell two classes apart."""


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


def rank(
    measured: Measurement, members: Sequence[ExponentClass], level: float
) -> tuple[tuple[Rank, ...], tuple[str, ...]]:
    """Classes against a measurement, and the labels of those that it cannot be compared with."""
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
    weighed = [(r._replace(weight=math.exp(weight - top) / total), weight) for r, weight in found]
    weighed.sort(key=lambda pair: (not pair[0].allowed, -pair[1]))
    return tuple(r for r, _ in weighed), tuple(silent)


def _against(
    measured: Measurement, member: ExponentClass, level: float
) -> tuple[Rank, float] | None:
    """A class and the logarithm of its weight; None where it states nothing."""
    from scipy.stats import chi2 as chi_square

    if not member.decays and any("delta" in exponents_in(name) for name in measured.names):
        return None  # where there is no such decay, one that was measured cannot be it
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


def separation(
    one: ExponentClass, other: ExponentClass, measured: Measurement | None = None
) -> Separation:
    """The exponent that tells two classes apart at the largest relative error, and that error.

    A standard error s suffices where ``|a - b| >= 3 sqrt(s^2 + u_a^2 + u_b^2)``, with the
    uncertainties of both classes.
    """
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

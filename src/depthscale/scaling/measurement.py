"""Measured exponents: their names, errors and covariance, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.scaling.class_records import exponents_in, quantity_of, split_quantity
from depthscale.scaling.series import Array, checked_covariance
from depthscale.theory.records import as_number

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


class Derived(NamedTuple):
    """An exponent that follows from measured ones by a scaling relation."""

    value: float
    error: float
    relation: str


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
        twice = next((other for other in names if _same(other, quantity)), None)
        if twice is not None:
            raise InputError(
                f"{name!r} says the same as {twice!r}, which was given before; expected it once"
            )
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


def _same(one: str, other: str) -> bool:
    """Whether two quantities are one exponent and, perhaps, its inverse."""
    parts = [set(exponents_in(name)) for name in (one, other)]
    return one == other or (parts[0] == parts[1] and len(parts[0]) == 1)


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


def derived(measured: Measurement) -> dict[str, Derived]:
    """Exponents that follow from two measured ones, with the covariance of these."""
    place = {name: k for k, name in enumerate(measured.names)}
    expressed = {
        name: (float(measured.values[k]), _unit(k, len(place))) for name, k in place.items()
    }
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

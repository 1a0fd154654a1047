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
_LEAST = 1e-12
_SIGMAS = 3.0
"""Errors that a divisor has to be away from 0."""


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
    if numbers[1] < _LEAST:
        raise InputError(f"{name} has the error {numbers[1]:g}; expected at least {_LEAST:g}")
    return numbers[0], numbers[1]


def derived(measured: Measurement) -> dict[str, Derived]:
    """Exponents that follow from two measured ones, with the covariance of these.

    None is divided by an exponent that is less than 3 of its errors away from 0.
    """
    count = len(measured.names)
    known = {
        name: (float(value), np.eye(count)[k])
        for k, (name, value) in enumerate(zip(measured.names, measured.values, strict=True))
    }
    found: dict[str, Derived] = {}

    def add(name: str, new: tuple[float, Array], relation: str) -> None:
        known[name] = new
        found[name] = Derived(new[0], _error(new[1], measured), relation)

    for name in measured.names:
        one, two = split_quantity(name)
        if one == "1" and _divides(known[name], measured):
            add(two, _quotient((1.0, np.zeros(count)), known[name]), f"1/(1/{two})")
    for _ in _RELATIONS:
        for top, one, two in _RELATIONS:
            missing = [name for name in (top, one, two) if name not in known]
            if missing == [one]:
                add(one, _product(known[top], known[two]), f"{top} {two}")
            elif len(missing) == 1:
                divisor = two if missing == [top] else top
                if _divides(known[divisor], measured):
                    quotient = _quotient(known[one], known[divisor])
                    add(missing[0], quotient, f"{one}/{divisor}")
    return found


def _divides(known: tuple[float, Array], measured: Measurement) -> bool:
    """Whether it is so far from 0 that a quotient by it has an error to first order."""
    return abs(known[0]) > _SIGMAS * _error(known[1], measured)


def _product(one: tuple[float, Array], two: tuple[float, Array]) -> tuple[float, Array]:
    return one[0] * two[0], one[0] * two[1] + two[0] * one[1]


def _quotient(one: tuple[float, Array], two: tuple[float, Array]) -> tuple[float, Array]:
    value = one[0] / two[0]
    return value, (one[1] - value * two[1]) / two[0]


def _error(slope: Array, measured: Measurement) -> float:
    return math.sqrt(max(float(slope @ measured.covariance @ slope), 0.0))

"""What a universality class is here: exponents, what follows from them, and their names.

The conventions are those of Hinrichsen (2000, Adv. Phys. 49, 815): an order parameter that vanishes
as ``tau^beta``, lengths that grow as ``tau^-nu_perp`` and times as ``tau^-nu_par``. ``delta`` is
the decay of the order parameter at criticality, ``beta/nu_par``, and not the response exponent of
equilibrium; that is ``field`` here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from depthscale.answers import InputError, Undefined
from depthscale.scaling.series import Array

EXPONENTS = {
    "beta": "order parameter ~ tau^beta, at a distance tau from criticality",
    "nu_perp": "correlation length ~ tau^-nu_perp",
    "nu_par": "correlation time (depth) ~ tau^-nu_par",
    "delta": "order parameter ~ t^-delta at criticality, from a homogeneous start",
    "z": "time ~ length^z at criticality",
    "theta": "activity from one seed ~ t^theta at criticality (initial slip)",
    "survival": "probability to survive from one seed ~ t^-survival at criticality",
    "field": "order parameter ~ h^field at criticality, in a conjugate field (dropout) h",
    "cutoff": "criticality ends after ~ N^cutoff, in a system of N units (a layer's width)",
}
"""What each exponent is the power of."""

ALIASES = {
    "nu_parallel": "nu_par",
    "nu_perpendicular": "nu_perp",
    "nu": "nu_perp",
    "slip": "theta",
}

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_QUOTIENT = re.compile(rf"\s*([A-Za-z_]\w*|{_NUMBER})\s*(?:/\s*([A-Za-z_]\w*|{_NUMBER}))?\s*")

# delta = beta/nu_par and so on: exponent, numerator, denominator
_RATIOS = (("delta", "beta", "nu_par"), ("z", "nu_par", "nu_perp"))


class Exponent(NamedTuple):
    """A value, its standard uncertainty (0 where exact), and where both come from."""

    value: float
    uncertainty: float
    source: str


class Prediction(NamedTuple):
    """What a class says of some quantities: values [k], their covariance [k, k]."""

    values: Array
    covariance: Array


@dataclass(frozen=True)
class ExponentClass:
    """A universality class.

    ``dimension`` counts space alone, 0 for systems without it and None for mean field, which holds
    above an upper critical dimension. ``exponents`` are those that are stated; ``predict`` makes
    others from them. ``note`` is what a reader should know of it. ``hyperscaling`` names the
    relation of ``theta``: "absorbing" ``theta = d/z - delta - survival``, "dynamical" ``theta =
    d/z - 2 survival - 1``, or "" where none holds. ``decays`` is False where the order parameter
    has no power law in time at criticality, so that ``delta`` is not ``beta/nu_par``;
    ``equilibrium`` where time is not a dimension of the transition.
    """

    name: str
    dimension: int | None
    exponents: Mapping[str, Exponent]
    note: str = ""
    hyperscaling: str = ""
    aliases: tuple[str, ...] = ()
    decays: bool = True
    equilibrium: bool = False

    @property
    def label(self) -> str:
        """Name and dimension, as a reader calls it."""
        if not self.dimension:
            return self.name
        return f"{self.name} {self.dimension}{'D' if self.equilibrium else '+1'}"

    def source(self, *quantities: str) -> str:
        """Sources of what these quantities are made of, once each; default: of all exponents."""
        used = set(self.exponents)
        if quantities:
            parts = [self._expressions[name] for q in quantities for name in exponents_in(q)]
            by = np.abs([slope for _, slope in parts]).sum(axis=0)
            used = {n for n, size in zip(self.exponents, by, strict=True) if size > 0}
        return "; ".join(dict.fromkeys(e.source for n, e in self.exponents.items() if n in used))

    @cached_property
    def _expressions(self) -> dict[str, tuple[float, Array]]:
        """Value and derivative by the stated exponents, of all exponents that follow."""
        names = list(self.exponents)
        unit = np.eye(len(names))
        known = {n: (self.exponents[n].value, unit[k]) for k, n in enumerate(names)}
        ratios = _RATIOS if self.decays else _RATIOS[1:]
        for _ in ratios:
            for top, one, two in ratios:
                _complete(known, top, one, two)
        if self.dimension and "z" in known:
            value, slope = known["z"]
            known.setdefault("cutoff", (value / self.dimension, slope / self.dimension))
        return known

    def states(self, quantity: str) -> bool:
        """Whether it says anything of a quantity, as ``quantity_of`` reads it."""
        return all(name in self._expressions for name in exponents_in(quantity))

    def predict(self, *quantities: str) -> Prediction | Undefined:
        """Values of exponents, of ``1/nu_par`` or ``beta/nu_perp``, and their covariance.

        Exponents that are not stated follow from ``delta = beta/nu_par``, ``z = nu_par/nu_perp``
        and, in d dimensions, ``cutoff = z/d``. ``Undefined`` where one does not follow or is
        infinite.

        Examples
        --------
        >>> from depthscale.scaling.classes import exponent_class
        >>> exponent_class("directed percolation", 1).predict("1/nu_par").values.round(6).tolist()
        [0.576752]
        """
        values, slopes = [], []
        for quantity in quantities:
            found = self._quotient(quantity)
            if isinstance(found, Undefined):
                return found
            values.append(found[0])
            slopes.append(found[1])
        jacobian = np.array(slopes)
        spread = np.diag([e.uncertainty**2 for e in self.exponents.values()])
        return Prediction(np.array(values), jacobian @ spread @ jacobian.T)

    def _quotient(self, quantity: str) -> tuple[float, Array] | Undefined:
        nothing = np.zeros(len(self.exponents))
        parts = []
        for part in split_quantity(quantity):
            if part in EXPONENTS and part not in self._expressions:
                return Undefined(f"{self.label} does not state {part}")
            parts.append(self._expressions[part] if part in EXPONENTS else (float(part), nothing))
        (one, up), (two, down) = parts
        if two == 0:
            return Undefined(f"{quantity} is infinite in {self.label}")
        return one / two, up / two - one / two**2 * down

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "class": self.name,
            "dimension": self.dimension,
            "exponents": {name: e._asdict() for name, e in self.exponents.items()},
            "note": self.note,
        }


def _complete(known: dict[str, tuple[float, Array]], top: str, one: str, two: str) -> None:
    """Add the third of ``top = one/two`` where two of them are known."""
    missing = [name for name in (top, one, two) if name not in known]
    if len(missing) != 1:
        return
    if missing[0] == one:
        (a, da), (b, db) = known[top], known[two]
        known[one] = (a * b, a * db + b * da)
        return
    (a, da), (b, db) = known[one], known[two if missing[0] == top else top]
    if b != 0:
        known[missing[0]] = (a / b, da / b - a / b**2 * db)


def split_quantity(text: str) -> tuple[str, str]:
    """Numerator and denominator of ``"beta"``, ``"1/nu_par"``, ``"beta/nu_perp"``, ``"2/z"``.

    Each the name of an exponent or a number. ``InputError`` for anything else.
    """
    match = _QUOTIENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(
            f"{text!r} is no exponent; expected one of {', '.join(EXPONENTS)}, or a quotient such"
            " as 1/nu_par or beta/nu_perp"
        )
    parts = tuple(ALIASES.get(part, part) for part in (match[1], match[2] or "1"))
    names = [part for part in parts if re.match(r"[A-Za-z_]", part)]
    for name in names:
        if name not in EXPONENTS:
            meanings = "; ".join(f"{n} ({what})" for n, what in EXPONENTS.items())
            raise InputError(f"there is no exponent {name!r}; expected one of: {meanings}")
    if not names or len(set(parts)) < 2 or any(p not in names and float(p) == 0 for p in parts):
        raise InputError(f"{text!r} is no exponent; expected one such as delta or 1/nu_par")
    return parts[0], parts[1]


def quantity_of(text: str) -> str:
    """The one spelling of a quantity.

    >>> quantity_of(" 1 / nu_parallel"), quantity_of("delta"), quantity_of("nu_par/nu_perp")
    ('1/nu_par', 'delta', 'z')
    """
    one, two = split_quantity(text)
    for top, above, below in _RATIOS:
        if (one, two) == (above, below):
            return top
    return one if two == "1" else f"{one}/{two}"


def exponents_in(quantity: str) -> list[str]:
    """The exponents that a quantity is made of.

    >>> exponents_in("1/nu_par"), exponents_in("beta/nu_perp")
    (['nu_par'], ['beta', 'nu_perp'])
    """
    return [part for part in split_quantity(quantity) if part in EXPONENTS]

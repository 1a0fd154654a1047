r"""The stationary law of ``log y``: density ``exp(p u - a e^(beta u) - b e^-u)/Z`` in ``u``.

For ``beta = 1`` it is the generalised inverse Gaussian law of ``y``, ``y ~ sqrt(b/a)
geninvgauss(p, 2 sqrt(a b))``; for ``b = 0`` ``y^beta`` and for ``a = 0`` ``1/y`` has a gamma law.
The logarithm of the density is concave in ``u`` and its pieces are entire, so that Gauss-Legendre
panels that follow its slope integrate it to rounding, for every ``beta`` alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number, as_numbers

_DROP = 60.0
"""Fall of the log density below its top at which it counts as nothing."""

_FARTHEST = 700.0
"""``|log|`` of the numbers that are left to float64."""

_NARROWEST = 1e-6
"""Deviation below which the terms of the log density, of size 1e12, lose it to rounding."""

_NODES = 24
_RULE = np.polynomial.legendre.leggauss(_NODES)
_NEGLIGIBLE = 1e-18  # curvature of the log density below which it is a straight line


class _Panels(NamedTuple):
    """Edges [panel + 1], nodes and weighted densities [panel, node], the log of what they sum to.

    The densities are relative to the top of the density, which ``log_mass`` puts back.
    """

    edges: Array
    nodes: Array
    masses: Array
    log_mass: float


@dataclass(frozen=True)
class StationaryLaw:
    """The law of ``u = log y`` with density ``exp(power u - bend e^(beta u) - push e^-u)/Z``.

    Parameters
    ----------
    power, bend, beta, push:
        ``p``, ``a >= 0``, ``beta`` in (0, 1] and ``b >= 0``; ``b = 0`` needs ``p > 0``, ``a = 0``
        needs ``p < 0``.

    Raises
    ------
    InputError
        Parameters for which the density has no finite integral; from what is asked for later, a
        law that is too far or too narrow for float64.

    Examples
    --------
    >>> gamma = StationaryLaw(power=3.0, bend=2.0, beta=1.0, push=0.0)  # y ~ Gamma(3)/2
    >>> round(float(gamma.moment(1)), 12)
    1.5
    """

    power: float
    bend: float
    beta: float
    push: float

    def __post_init__(self) -> None:
        for name in ("power", "bend", "beta", "push"):
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        numbers = (self.power, self.bend, self.beta, self.push)
        if not (all(map(math.isfinite, numbers)) and 0 < self.beta <= 1):
            raise InputError(f"power, bend, beta, push = {numbers}: expected beta in (0, 1]")
        if self.bend < 0 or self.push < 0:
            raise InputError(f"bend = {self.bend:g}, push = {self.push:g}: expected both >= 0")
        if not self._integrable(self.power):
            raise InputError(
                f"power = {self.power:g}, bend = {self.bend:g}, push = {self.push:g}: the density"
                " has no finite integral; push = 0 needs power > 0 and bend = 0 power < 0"
            )

    def _integrable(self, power: float) -> bool:
        return (self.push > 0 or power > 0) and (self.bend > 0 or power < 0)

    def _log_density(self, u: Array, power: float) -> Array:
        """Without the constant."""
        with np.errstate(over="ignore"):
            value = power * u
            if self.bend:
                value = value - self.bend * np.exp(self.beta * u)
            if self.push:
                value = value - self.push * np.exp(-u)
        return np.asarray(value)

    def _slopes(self, u: float, power: float) -> tuple[float, float]:
        """First derivative of the log density and minus the second."""
        bend = self.bend * self.beta * _exp(self.beta * u)
        push = self.push * _exp(-u)
        return power - bend + push, self.beta * bend + push

    def _top(self, power: float) -> float:
        """Where the density is largest."""
        from scipy.optimize import brentq

        low = high = 0.0
        reach = 1.0
        while self._slopes(low, power)[0] < 0 and low > -_FARTHEST:
            low, reach = low - reach, 2 * reach
        reach = 1.0
        while self._slopes(high, power)[0] > 0 and self.beta * high < _FARTHEST:
            high, reach = high + reach, 2 * reach
        if self._slopes(low, power)[0] < 0 or self._slopes(high, power)[0] > 0:
            raise InputError(f"{self}: y^beta or 1/y leaves float64 where this law lies")
        if low == high:
            return low
        return float(brentq(lambda u: self._slopes(u, power)[0], low, high, xtol=1e-12))

    def _panels(self, power: float) -> _Panels:
        top = self._top(power)
        width = 1 / max(math.sqrt(self._slopes(top, power)[1]), 1e-300)
        if width < _NARROWEST * max(abs(top), 1.0):
            raise InputError(
                f"{self}: log y scatters by {width:.3g} about {top:.9g}, too little for float64 to"
                " integrate over; take it as normal of this deviation"
            )
        left, right = (self._edges(top, power, side) for side in (-1.0, 1.0))
        edges = np.array([*left[::-1], top, *right])
        x, w = _RULE
        half = np.diff(edges)[:, None] / 2
        nodes = edges[:-1, None] + half * (1 + x)
        peak = float(self._log_density(np.array(top), power))
        masses = half * w * np.exp(self._log_density(nodes, power) - peak)
        return _Panels(edges, nodes, masses, peak + math.log(masses.sum()))

    def _edges(self, top: float, power: float, side: float) -> list[float]:
        """Panel ends from the top outwards: the log density changes by some units in each.

        A panel is longer than 4 only where the density is a pure exponential to rounding.
        """
        peak = float(self._log_density(np.array(top), power))
        place, found = top, []
        width = 1 / max(math.sqrt(self._slopes(top, power)[1]), 1.0)
        while float(self._log_density(np.array(place), power)) > peak - _DROP:
            width *= 1.5
            while not self._fits(place, place + side * width, power):
                width /= 2
            place += side * width
            found.append(place)
        return found

    def _fits(self, start: float, end: float, power: float) -> bool:
        slope, curve = self._slopes(end, power)
        width = abs(end - start)
        straight = max(curve, self._slopes(start, power)[1]) < _NEGLIGIBLE
        return (abs(slope) + math.sqrt(curve)) * width <= 3 and (width <= 4 or straight)

    @cached_property
    def _own(self) -> _Panels:
        return self._panels(self.power)

    @cached_property
    def _shares(self) -> Array:
        """Probability of each panel."""
        sums = self._own.masses.sum(axis=1)
        return np.asarray(sums / sums.sum())

    @property
    def top(self) -> tuple[float, float]:
        """``log y`` where the density is largest, and its deviation by the curvature there."""
        place = self._top(self.power)
        return place, 1 / math.sqrt(max(self._slopes(place, self.power)[1], 1e-300))

    def pdf(self, log_y: ArrayLike) -> Array:
        """Density of ``log y`` at ``log_y``, any shape."""
        u = np.asarray(log_y, dtype=float)
        there = np.isfinite(u)
        value = np.exp(self._log_density(np.where(there, u, 0.0), self.power) - self._own.log_mass)
        return np.where(there, value, 0.0)

    def cdf(self, log_y: ArrayLike) -> Array:
        """Probability below ``log_y``, any shape; absolute error about 1e-14."""
        u = np.asarray(log_y, dtype=float)
        edges = self._own.edges
        inside = np.clip(u, edges[0], edges[-1])
        panel = np.clip(np.searchsorted(edges, inside) - 1, 0, len(edges) - 2)
        before = np.concatenate([[0.0], np.cumsum(self._shares)])[panel]
        x, w = _RULE
        half = (inside - edges[panel])[..., None] / 2
        part = (half * w * self.pdf(edges[panel][..., None] + half * (1 + x))).sum(axis=-1)
        return np.asarray(np.clip(before + part, 0.0, 1.0))

    def quantile(self, probability: ArrayLike) -> Array:
        """``log y`` below which this share of the law lies, ``0 < probability < 1``, any shape.

        Raises
        ------
        InputError
            A probability out of range.
        """
        from scipy.optimize.elementwise import find_root

        share = as_numbers("probability", probability)
        if not np.all((share > 0) & (share < 1)):
            raise InputError(f"probability is {probability!r}; expected numbers inside (0, 1)")
        ends = self._own.edges[[0, -1]]
        low, high = (np.full(share.shape, end) for end in ends)
        solved = find_root(lambda u, goal: self.cdf(u) - goal, (low, high), args=(share,))
        return np.asarray(solved.x)

    @property
    def mean(self) -> float:
        """``E log y``."""
        own = self._own
        return float((own.masses * own.nodes).sum() / own.masses.sum())

    @property
    def variance(self) -> float:
        """``Var log y``."""
        own = self._own
        return float((own.masses * (own.nodes - self.mean) ** 2).sum() / own.masses.sum())

    def moment(self, order: float) -> Quantity:
        """``E y^order``, for any real order; ``Undefined`` where it is infinite."""
        power = self.power + as_number("order", order)
        if not math.isfinite(power):
            raise InputError(f"order is {order!r}; expected a finite number")
        if not self._integrable(power):
            tail = "large" if self.bend == 0 else "small"
            return Undefined(f"E y^{order:g} is infinite: the law has a power tail at {tail} y")
        try:
            return math.exp(self._panels(power).log_mass - self._own.log_mass)
        except OverflowError:
            return Undefined(f"E y^{order:g} is beyond float64")


def _exp(x: float) -> float:
    """``exp`` that ends at the largest float's neighbourhood instead of an error."""
    return math.exp(min(x, _FARTHEST))

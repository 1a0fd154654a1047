"""The misalignment map near alignment, power by power.

The gap ``E[(f(u) - f(v))^2]/2`` at equal variances ``q`` is ``q eps E[f'^2]`` minus a deficit that
every singular place of ``f`` and the curvature in between contribute to:

    deficit = sum_i B_i eps^(alpha_i + 1/2) + q^2 E[f''^2] eps^2/2 - q^3 E[f'''^2] eps^3/6 + ...

``B_i = -Singularity.gap_coefficient``. The smallest power above 1 is kappa, so kappa =
min(2, alpha + 1/2): 3/2 for a kink, between 1 and 3/2 for a cusp ``|x|^alpha`` with 1/2 < alpha <
1, 2 for everything whose slope is Lipschitz. The next power is the first correction to scaling.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import Quantity, Undefined
from depthscale.theory.functions.detect import difference
from depthscale.theory.functions.function import Activation
from depthscale.theory.functions.singularity import Singularity
from depthscale.theory.gaussian import Array, expectation, pair_expectation
from depthscale.theory.kernel import Kernel


class Term(NamedTuple):
    """``coefficient eps^power`` of the deficit, times ``log(1/eps)`` if ``logarithmic``."""

    power: float
    coefficient: float
    logarithmic: bool = False

    def at(self, eps: ArrayLike) -> Array:
        """Its value."""
        x = np.asarray(eps, dtype=float)
        value = self.coefficient * x**self.power
        return np.asarray(value * self._log(x) if self.logarithmic else value)

    def slope_at(self, eps: ArrayLike) -> Array:
        """Its derivative."""
        x = np.asarray(eps, dtype=float)
        growth = self.coefficient * x ** (self.power - 1)
        return np.asarray(
            growth * (self.power * self._log(x) - 1 if self.logarithmic else self.power)
        )

    @staticmethod
    def _log(x: Array) -> Array:
        """``log(1/eps)``, and 0 at 0, where a positive power of eps multiplies it."""
        return np.asarray(-np.log(np.where(x > 0, x, 1.0)))


@dataclass(frozen=True)
class UniversalityClass:
    """The class of the map near alignment, ``eps' = h + chi eps - amplitude eps^kappa``.

    ``map_singularity`` is ``"smooth"`` (kappa 2, amplitude ``sigma_w^2 q E[phi''^2]/2``),
    ``"kinked"`` (kappa 3/2, amplitude ``(sqrt 2/(3 pi)) sigma_w^2 sum_i jump_i^2
    exp(-x_i^2/(2q))``), ``"cusped"`` (kappa = alpha + 1/2 between 1 and 2), ``"logarithmic"``
    (kappa 2 with ``log(1/eps)``, alpha = 3/2), ``"linear"`` (no curvature), or, with an infinite
    slope at alignment, ``"divergent"`` (a cusp with alpha <= 1/2) and ``"jump"``: there kappa =
    alpha + 1/2 <= 1, ``eps' = h - amplitude eps^kappa`` with a negative amplitude, always chaotic.
    Name, kappa and amplitude are those of one term, the leading one at this length.
    All amplitudes count the cross noise moment and, where the length still changes, ``q/q'``.
    ``length_family`` says separately how the length behaves: ``"stable"``, ``"scale-free"``,
    ``"marginal"`` (critical only as q -> 0, where the length falls as a power of depth: tanh
    without bias), ``"vanishing"``, ``"diverging"`` (or cycling) or ``"none"``.
    """

    map_singularity: str
    kappa: Quantity
    amplitude: Quantity
    length_family: str


def map_singularity(activation: Activation) -> tuple[str, float | None]:
    """The name of the activation's strongest singularity and its kappa; None for a linear one.

    At a length where what this singularity contributes is lost, the map has another name: see
    ``name_of``.
    """
    places = activation.singularities
    strongest = min(places, key=lambda p: p.exponent, default=None)
    if strongest is None or strongest.exponent > 1.5:
        return ("smooth", 2.0) if _bends(activation) else ("linear", None)
    term = Term(strongest.power, 1.0, strongest.logarithmic)
    return singularity_of(term, activation), strongest.power


def _bends(activation: Activation) -> bool:
    """Whether there is curvature anywhere within [-40, 40]."""
    near = np.geomspace(1e-4, 40.0, 60)
    marks = {0.0, *(activation.centres or ()), *activation.breaks}
    x = np.concatenate([mark + side * near for mark in marks for side in (-1.0, 1.0)])
    x = x[np.abs(x) <= 40]
    return bool(np.any(np.abs(activation.second_derivative(x)) > activation.curvature_error))


def singularity_of(term: Term, activation: Activation) -> str:
    """What a deficit with this leading term is called: see ``UniversalityClass``."""
    if term.power >= 2:
        return "logarithmic" if term.logarithmic and term.power == 2 else "smooth"
    if term.power > 1:
        return "kinked" if term.power == 1.5 and activation.kinks else "cusped"
    return "jump" if term.power == 0.5 and activation.jumps else "divergent"


def name_of(terms: tuple[Term, ...], activation: Activation) -> str:
    """What the map is called at the length that ``terms`` belong to: by their leading one.

    ``"linear"`` without any.
    """
    return singularity_of(terms[0], activation) if terms else "linear"


def classify(kernel: Kernel, q: float, weight: float, family: str) -> UniversalityClass:
    """The class at length ``q``; ``weight`` is what the gap is multiplied with in the map.

    Name, kappa and amplitude are those of the leading term at this length: see ``deficit_terms``
    for the singularities that count.
    """
    terms = deficit_terms(kernel, q)
    name = name_of(terms, kernel.activation)
    if not terms:
        return UniversalityClass(name, _FLAT, 0.0, family)
    return UniversalityClass(name, terms[0].power, weight * terms[0].coefficient, family)


_FLAT = Undefined("the map is linear: it has no curvature")


def classify_unequal(kernel: Kernel, q1: float, q2: float, weight: float) -> UniversalityClass:
    """The class of a masked-against-clean pair, whose two lengths differ.

    Only a singularity at 0 is met by both at once: there ``(x/sqrt(q))^alpha`` sees two unit
    variances, and the amplitude is that of ``q = 1`` times ``(q1 q2)^(alpha/2)``. Others are passed
    one after the other, and the map is smooth there.
    """
    activation = kernel.activation
    steep = [s for s in activation.singularities if s.exponent <= 1.5]
    at_zero = [s for s in steep if s.place == 0]
    if at_zero:
        alpha = at_zero[0].exponent
        unit = -sum(s.gap_coefficient(1.0) for s in at_zero if s.exponent == alpha)
        term = Term(at_zero[0].power, unit, at_zero[0].logarithmic)
        amplitude = weight * q1 ** (alpha / 2) * q2 ** (alpha / 2) * unit
        name = singularity_of(term, activation)
        return UniversalityClass(name, term.power, amplitude, "stable")
    if steep or any(c.place for c in activation.cusps):
        why = "masked and clean input meet the kinks apart: smooth below (1 - sqrt(q2/q1))^2"
        return UniversalityClass("smooth", 2.0, Undefined(why), "stable")
    bend = activation.curvature
    both = float(pair_expectation(lambda u, v: bend(u) * bend(v), q1, q2, 0.0, activation.shape))
    if abs(both) <= activation.curvature_error**2:
        return UniversalityClass("linear", _FLAT, 0.0, "stable")
    return UniversalityClass("smooth", 2.0, weight * q1 * q2 * both / 2, "stable")


LOST = 1e-14
"""Share of the slope's size ``q E[f'^2]`` below which a singularity does not count."""


def deficit_terms(kernel: Kernel, q: float) -> tuple[Term, ...]:
    """Leading term of the gap's deficit and the next that is known, by ascending power.

    Empty for a linear function. Singularities of equal power are added up, those at one place also
    contribute their product (``Singularity.cross_coefficient``). With kinks the ``eps^2`` term
    carries what the curvature between them and at them gives, and a kink at ``x`` adds
    ``(1 - x^2/q)/20`` of its own leading term at ``eps^(5/2)``. Next to a cusp with exponent below
    3/2, or between 3/2 and 2 at the place of a kink, the ``eps^2`` term has no elementary form:
    only powers below it are given.

    What counts is judged at this length: a power below 2 whose coefficient is below 1e-14 of the
    slope's size ``q E[f'^2]`` (a kink many standard deviations out) is left out, as are terms below
    1e-14 of the largest and curvature within the rounding of differences.

    Parameters
    ----------
    kernel:
        Of an activation with a finite slope moment.
    q:
        Length, above 0.
    """
    activation = kernel.activation
    lost = LOST * q * float(kernel.slope_moment(q))
    places = [
        s for s in activation.singularities if s.exponent > 1.5 or abs(s.gap_coefficient(q)) > lost
    ]
    powers = _singular_powers(places, q)
    known = 2.0 if (2.0, True) in powers else math.inf
    if _hides_the_square(places):
        known = math.nextafter(2.0, 0.0)
    elif math.isinf(known):
        far = tuple(c for c in activation.cusps if c not in places)
        square, error = _square(kernel, q, places, far)
        powers[2.0, False] = square if abs(square) > error else 0.0
        if 0 < abs(square) <= error:
            known = 2.0
        elif not far and all(s.exponent > 2.5 for s in places):
            powers[3.0, False] = -(q**3) / 6 * _third_moment(activation, q)
    terms: list[Term] = []
    for (power, logarithmic), value in sorted(powers.items()):
        least = 1e-14 * max((abs(term.coefficient) for term in terms), default=0.0)
        if power <= known and abs(value) > least:
            terms.append(Term(power, value, logarithmic))
    return tuple(terms[:2])


def _singular_powers(places: list[Singularity], q: float) -> dict[tuple[float, bool], float]:
    """Coefficients by power and whether it has a logarithm: what the singularities contribute."""
    powers: dict[tuple[float, bool], float] = {}

    def add(power: float, coefficient: float, logarithmic: bool = False) -> None:
        key = (power, logarithmic)
        powers[key] = powers.get(key, 0.0) + coefficient

    for place in places:
        leading = -place.gap_coefficient(q)
        add(place.power, leading, place.logarithmic)
        if place.exponent == 1:
            add(place.power + 1, leading * (1 - place.place**2 / q) / 20)
    for one, two in itertools.combinations(places, 2):
        # products of whole powers are what the curvature on both sides of a kink gives
        whole = one.exponent.is_integer() and two.exponent.is_integer()
        if one.place == two.place and not whole:
            power = (one.exponent + two.exponent + 1) / 2
            add(power, -one.cross_coefficient(two, q), float(power).is_integer())
    return powers


def _hides_the_square(places: list[Singularity]) -> bool:
    """Whether the ``eps^2`` term cannot be had: see ``deficit_terms``."""
    kinks = {s.place for s in places if s.exponent == 1}
    cusps = [s for s in places if not s.exponent.is_integer()]
    return any(s.exponent < 1.5 or (s.exponent < 2 and s.place in kinks) for s in cusps)


def _square(
    kernel: Kernel, q: float, places: list[Singularity], far: tuple[Singularity, ...]
) -> tuple[float, float]:
    """Coefficient of ``eps^2``, and its error where the curvature is made of differences.

    ``q^2/2`` times ``E[f''^2]`` without its infinite part: kinks enter by what they meet on both
    sides. Cusps in ``far`` do not count, and neither does the curvature right next to them.
    """
    activation = kernel.activation
    total = float(_curvature_off(activation, q, far) if far else kernel.curvature_moment(q))
    noise = activation.curvature_error
    error = noise * (2 * math.sqrt(total) + noise)
    for kink in places:
        if kink.exponent == 1:
            sides = activation.second_derivative(np.nextafter(kink.place, [-math.inf, math.inf]))
            density = math.exp(-(kink.place**2) / (2 * q)) / math.sqrt(2 * math.pi * q)
            jump = kink.above + kink.below
            total += 2 * jump * density * float(np.mean(sides))
            error += 2 * abs(jump) * density * noise
    return q**2 / 2 * total, q**2 / 2 * error


def _curvature_off(activation: Activation, q: float, cusps: tuple[Singularity, ...]) -> Array:
    """``E[f''^2]`` without the neighbourhood of cusps, where it is infinite.

    A tenth of the way to those beyond seven standard deviations, where a share of 1e-9 lies, and
    0.001 of one standard deviation around those that do not count because they are faint.
    """
    sigma = math.sqrt(q)

    def square(x: Array) -> Array:
        near = np.zeros(x.shape, dtype=bool)
        for place in {c.place for c in cusps}:
            room = 0.1 * abs(place) if abs(place) > 7 * sigma else 1e-3 * sigma
            near |= np.abs(x - place) < room
        return np.asarray(np.where(near, 0.0, activation.curvature(x)) ** 2)

    return expectation(square, np.array(q), activation.shape)


def _third_moment(activation: Activation, q: float) -> float:
    """``E[f'''^2]``, as the slope moment of ``f''``; cusps have exponents above 5/2."""
    cusps = tuple(
        Singularity(x, a - 2, a * (a - 1) * below, a * (a - 1) * above)
        for x, a, below, above in activation.cusps
    )
    third = difference(activation.curvature, activation.breaks, activation.scale, cusps)
    bend = dataclasses.replace(
        activation,
        function=activation.curvature,
        slope=third,
        cusps=cusps,
        closed=None,
        degree=None,
        parity=None,
    )
    return float(Kernel(bend).slope_moment(q))

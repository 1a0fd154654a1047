r"""The constants of the alignment equation, for any activation near its critical point.

Near alignment a layer of ``n`` units multiplies the misalignment by an average over its units,

    eps'/eps = sigma_w^2 mean[phi'(u)^2 (w + r x)^2] - r'^2,     u = sqrt(q) x,

where ``w`` is the difference of the two signals in its own unit, normal and independent of ``u``,
``r x`` the part of it that only stretches, and ``q`` the length. The mean, ``r`` and ``q`` scatter
by ``n^-1/2``; ``q`` and ``r`` forget by a factor ``chi_q = V'`` a layer, the slope of the length
map. With the slope ``X(q) = sigma_w^2 E phi'^2`` of the misalignment map, ``m_k = E phi'^k``,
``P = E[phi^2 phi'^2]``, ``g = X'/X``, ``u^2 = v_q/(1 - chi_q^2)`` n times the variance of ``q``,

    v    = 3 m_4/m_2^2 - 1           v_q = sigma_w^4 Var phi^2      c = sigma_w^2 (P/m_2 - E phi^2)
    s^2  = v + 2 G c + G^2 v_q                                      G = g/(1 - chi_q)
    lam  = -v/2 + g V'' u^2/(2 (1 - chi_q)) + (X''/X - g^2) u^2/2 + 2 g sigma_w^4 P/(X - chi_q^2).

The scatter of the length feeds back through ``g``: a long signal meets another slope. Derivatives
in ``q`` are moments, ``E[f He_2]/(2q)`` and ``E[f He_4]/(4q^2)``, which need none of ``phi`` beyond
the slope and hold for kinked activations. A scale-free activation without bias has no ``g`` but a
length that never settles, and ``eps`` is measured against it:

    s^2 = 4M,   lam = -M,   M = m_4/m_2^2 = 2 (s_+^4 + s_-^4)/(s_+^2 + s_-^2)^2.

(Derived here. ``finite_width`` at ``eps -> 0`` is an independent derivation.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.theory.activation import Activation
from depthscale.theory.alignment_equation import AlignmentEquation, InverseMoments
from depthscale.theory.gaussian import Array, nodes
from depthscale.theory.limit_constants import NEAR, constants, distance
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number
from depthscale.theory.stationary import StationaryLaw

__all__ = [
    "AlignmentEquation",
    "Drops",
    "InverseMoments",
    "ScaledLimit",
    "StationaryLaw",
    "StochasticLimit",
    "plateau_variance",
    "stochastic_limit",
]

_SHARE = 0.05
"""What counts as small in the notes: a share of ``s^2``, of the width or of the misalignment."""

_LOUD = 0.2
"""The variance of log eps that one layer may add before a note tells of it."""


@dataclass(frozen=True)
class Drops:
    """Bernoulli dropout at a width where single drops count: jumps of ``y`` in place of the field.

    Units on which the masks of the two inputs disagree, ``2 n^2 p`` of them per unit of ``t`` for
    independent masks; each adds ``unit phi(u)^2`` to ``y``, ``u ~ N(0, q)``. ``rate * mean`` is the
    field ``H``: take one or the other.

    Attributes
    ----------
    rate:
        Jumps per unit of ``t = l/n``.
    activation, q, unit:
        The jump is ``unit phi(u)^2``, ``unit = n^(1/beta - 1) sigma_w^2/(2 q')`` for small p.
    sizes, weights:
        A rule for the mean over one jump, ``E f = weights @ f(sizes)``, both [node].
    """

    rate: float
    activation: Activation
    q: float
    unit: float
    sizes: Array = field(repr=False)
    weights: Array = field(repr=False)

    def size(self, z: ArrayLike) -> Array:
        """The jump of ``y`` at a unit whose input is ``sqrt(q) z``; standard normal ``z`` draw."""
        signal = self.activation(math.sqrt(self.q) * np.asarray(z, dtype=float))
        return np.asarray(self.unit * signal**2)

    @property
    def mean(self) -> float:
        """Mean size of a jump."""
        return float(self.weights @ self.sizes)

    @property
    def mean_square(self) -> float:
        """Mean square size of a jump."""
        return float(self.weights @ self.sizes**2)


@dataclass(frozen=True)
class ScaledLimit:
    """The equation of one layer at width ``n``, with its own detuning and dropout.

    Attributes
    ----------
    equation:
        With ``theta = n (chi_1 - 1)`` and ``H = h n^(1 + 1/beta)``.
    scale:
        ``y = scale * eps``, ``scale = n^(1/beta)``.
    drops:
        The jumps that stand in place of ``H`` for Bernoulli masks; None where the noise is a drift.
    notes:
        Where the scaling is weak at this width.
    """

    equation: AlignmentEquation
    scale: float
    drops: Drops | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StochasticLimit:
    """The constants of a critical layer: what width does to alignment, per unit of ``t = l/n``.

    The equation is the limit of large ``n`` at fixed ``t``; from misalignments of order one it is
    reached slowly, with ``log(n)/n`` in ``t``; from small ones with ``1/n``.

    Attributes
    ----------
    layer:
        The layer.
    q:
        Its settled length; for a scale-free layer any.
    curvature, beta:
        ``A`` and ``beta = kappa - 1`` of ``eps' = chi eps - A eps^kappa``; a linear network has
        ``A = 0`` (and ``beta`` 1).
    variance, lam:
        ``s^2`` and ``lam``.
    variance_parts, lam_parts:
        The terms that they are sums of, by their source: ``slopes`` (units differ in slope),
        ``length`` (the length scatters), ``slopes and length`` (both at once), ``bend`` (the mean
        slope at a scattered length), ``stretch`` (what stretches and does not separate).
    length_memory:
        Layers over which the length forgets, ``1/(1 - chi_q)``; 0 for a scale-free layer.
    length_variance:
        ``n Var q/q^2``; 0 for a scale-free layer, where it does not matter.
    """

    layer: MeanField
    q: float
    curvature: float
    beta: float
    variance: float
    lam: float
    variance_parts: Mapping[str, float] = field(repr=False)
    lam_parts: Mapping[str, float] = field(repr=False)
    length_memory: float = 0.0
    length_variance: float = 0.0

    @property
    def kap(self) -> float:
        """``lam + s^2/2``."""
        return self.lam + self.variance / 2

    def equation(self, detuning: float = 0.0, field: float = 0.0) -> AlignmentEquation:
        """The equation at ``theta = detuning`` and ``H = field``; ``InputError`` out of range."""
        return AlignmentEquation(
            self.curvature, self.beta, self.variance, self.lam, detuning, field
        )

    def at_width(self, n: int) -> ScaledLimit:
        """The equation at width ``n`` with the layer's own detuning and dropout.

        Raises
        ------
        InputError
            ``n`` that is no whole number of at least 1.
        """
        width = _width(n)
        scale = width ** (1 / self.beta)
        detuning, push = distance(self.layer)
        equation = self.equation(width * detuning, width * scale * push)
        drops = _drops(self, width)
        return ScaledLimit(equation, scale, drops, tuple(_notes(self, width, equation, drops)))


def stochastic_limit(layer: MeanField) -> StochasticLimit:
    """The constants ``A, beta, s^2, lam`` of a layer near its critical point.

    Parameters
    ----------
    layer:
        Any activation with theory; ``skip=0``; near criticality: detuning and dropout field at
        most 0.1. The terms of ``s^2`` and ``lam`` hold at its own slope ``X``, the equation as far
        as ``X`` is near 1. Masks shared by both inputs count at any rate; others, whose field has
        to be small, to first order.

    Raises
    ------
    InputError
        Where there is no such equation, with the reason and what still works: no settled length
        (tanh at ``sigma_b = 0``), a bias on a scale-free activation, far from critical, a jump in
        value, slopes without a fourth moment, a logarithm in the map, a residual branch, or noise
        that leaves the two inputs with two lengths or does not average out within a layer.

    Source: derived here; A of 2605.21648.

    Examples
    --------
    >>> relu = stochastic_limit(MeanField("relu", 2**0.5))
    >>> round(relu.curvature, 6), relu.beta, round(relu.variance, 12), round(relu.lam, 12)
    (0.300105, 0.5, 8.0, -2.0)
    """
    if not isinstance(layer, MeanField):
        raise InputError(
            f"stochastic_limit got {type(layer).__name__} {layer!r}; expected a MeanField, such as"
            " MeanField('relu', sigma_w=2**0.5)"
        )
    found = constants(layer)
    return StochasticLimit(
        layer=layer,
        variance=sum(found.variance_parts.values()),
        lam=sum(found.lam_parts.values()),
        **found._asdict(),
    )


def plateau_variance(layer: MeanField, n: int) -> Quantity:
    r"""``Var log eps`` over networks of large width ``n`` at the layer's plateau ``eps*``.

        (s^2 + B)/(2 r n),   r = 1 - d eps'/d eps at eps*,   B = jumps,

    for a layer at fixed dropout, or in the chaotic phase. At ``chi = 1`` ``1/r`` is
    ``xi = 1/(2 sqrt(A h))`` (smooth) or ``2/(3 A^(2/3) h^(1/3))`` (kinked). Bernoulli masks add the
    scatter of the number of drops, ``B = A sigma_w^2 E phi^4/(2 q E phi^2)`` or, for ReLU, ``3
    A^(4/3) h^(-1/3)``; for Gaussian noise and dropped weights ``B = 0``.

    The leading order in ``h`` and ``1/n``. The next is about ``eps*^beta`` of it (1 % for ReLU
    and tanh, 9 % for hard tanh at ``drop = 1e-3``); ``finite_width`` started at the plateau has it.

    Returns
    -------
    ``Undefined`` where there is no plateau (no field and ``chi <= 1``), or where the variance comes
    out above 1: the law is then not normal.

    Raises
    ------
    InputError
        As ``stochastic_limit``.
    """
    limit, width = stochastic_limit(layer), _width(n)
    if limit.curvature == 0:
        return Undefined("without curvature there is no plateau near alignment")
    law = layer.law()
    plateau, rate = law.order_parameter, law.one_minus_slope
    if isinstance(plateau, Undefined) or isinstance(rate, Undefined):
        return plateau if isinstance(plateau, Undefined) else rate
    if plateau == 0:
        return Undefined("no plateau: without a field and with chi <= 1 the pair aligns")
    jumps = _jump_noise(_drops(limit, width), plateau * width ** (1 / limit.beta))
    result = (limit.variance + jumps) / (2 * rate * width)
    if result > 1:
        return Undefined(
            f"the variance of log eps would be {result:.3g}: at n = {width} the law is not normal;"
            " take that of the equation, stochastic_limit(layer).at_width(n)"
        )
    return result


def _width(n: int) -> int:
    number = as_number("n", n)
    if not 1 <= number < math.inf or number != int(number):
        raise InputError(f"n is {n!r}; expected a width, a whole number of at least 1")
    return int(number)


# Dropout at a width -------------------------------------------------------------------------------


def _drops(limit: StochasticLimit, n: int) -> Drops | None:
    """Jumps of ``y`` where Bernoulli masks of the two inputs disagree."""
    layer = limit.layer
    noise, drop = layer.noise, layer.drop
    if drop == 0 or noise.kind != "units" or noise.fieldless:
        return None
    q, keep = limit.q, 1 - drop
    after = float(layer.length_map(q))
    unit = n ** (1 / limit.beta - 1) * layer.sigma_w**2 / (2 * after * keep**2)
    x, weights = nodes(q, layer.activation.shape)
    rate = float(n) ** 2 * 2 * (1 - noise.overlap) * drop * keep
    return Drops(rate, layer.activation, q, unit, unit * layer.activation(x) ** 2, weights)


def _jump_noise(drops: Drops | None, y: float) -> float:
    """What jumps add to ``s^2`` at ``y``."""
    return drops.rate * (math.sqrt(drops.mean_square) / y) ** 2 if drops else 0.0


# Where the scaling is weak ------------------------------------------------------------------------


def _notes(
    limit: StochasticLimit, n: int, equation: AlignmentEquation, drops: Drops | None
) -> Iterator[str]:
    """Where the equation of this layer is weak at width ``n``, or more than is needed."""
    if limit.variance > _LOUD * n:
        yield (
            f"one layer of {n} units scatters log eps by {math.sqrt(limit.variance / n):.2g}: the"
            " equation takes that as small"
        )
    shift = abs(equation.detuning) / n
    if shift > _SHARE:
        yield f"detuning t = {equation.detuning / n:.3g}: the equation is off by about that share"
    if limit.length_memory > _SHARE * n:
        yield (
            f"the length forgets within {limit.length_memory:.3g} layers, which n = {n} does not"
            " make short: its feedback is not yet that of the constants"
        )
    if limit.length_variance > _SHARE * n:
        yield (
            f"the length scatters by {math.sqrt(limit.length_variance / n):.2g} of itself: the"
            " constants take that as small"
        )
    steep = [c.exponent for c in limit.layer.activation.cusps if c.exponent < 1]
    if steep:
        yield (
            f"a cusp |x - x0|^{min(steep):g}: s^2 and lam are approached only as"
            f" eps^{2 * min(steep) - 1.5:.2g}, far from them at any usual width"
        )
    law = equation.stationary
    if isinstance(law, Undefined):
        return
    low, middle = law.quantile([0.05, 0.5])
    if math.exp(middle) > NEAR * n ** (1 / limit.beta):
        level = math.exp(middle) / n ** (1 / limit.beta)
        yield f"the plateau, eps = {level:.3g}, is not near alignment"
    if law.variance < _SHARE**2:
        yield (
            f"theta or H is large: log eps scatters by {math.sqrt(law.variance):.2g} about its"
            " plateau, which plateau_variance gives as well"
        )
    if drops is None:
        return
    if drops.rate < _SHARE:
        yield (
            f"{drops.rate:.2g} drops per unit of t: almost surely none, and H is the mean of rare"
            " large jumps that most networks never meet"
        )
        return
    jumps = _jump_noise(drops, math.exp(low)) / limit.variance
    if jumps < _SHARE:
        yield (
            f"{drops.rate:.3g} drops per unit of t add at most {jumps:.2g} of s^2: the field H"
            " alone is enough"
        )
    else:
        yield (
            f"{drops.rate:.3g} drops per unit of t are no drift (at small y they add {jumps:.2g} of"
            " s^2): take the jumps in place of H"
        )

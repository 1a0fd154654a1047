"""The backward recursion of ``gradients``: its moments, hop by hop, and its arithmetic.

See there for the formulas and symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError
from depthscale.theory.activation import Activation
from depthscale.theory.gaussian import Array, Shape, expectation, pair_expectation
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import Trajectory

Loss = Literal["quadratic", "readout", "linear"]

PAIRS = ((0, 0), (1, 1), (0, 1))
"""The three inner products ``aa, bb, ab``, in this order throughout."""


class FourthMoments(NamedTuple):
    """``E[D_1^4], E[D_2^4], E[D_1^2 D_2^2]`` of a layer's noise."""

    first: float
    second: float
    cross: float


def fourth_moments(field: MeanField) -> FourthMoments:
    """Fourth moments of a layer's noise, as the sources of gradients and their noise see it.

    With ``v = drop/(1 - drop)`` and overlap ``r``: ``E[D^4] = (1 + v)^3`` for masks, ``1 + 6 v +
    3 v^2`` for Gaussian noise; across, ``r E[D^4] + (1 - r) (1 + v)^2`` and
    ``1 + 2 v + 4 r v + (1 + 2 r^2) v^2``. Dropped weights average out in every unit and leave
    products of second moments.

    Parameters
    ----------
    field:
        The layer; only its ``drop`` and ``masks`` matter.

    Raises
    ------
    InputError
        Noise on layers (stochastic depth), where one draw serves all units.

    Examples
    --------
    >>> fourth_moments(MeanField("relu", 1.0, drop=0.5))
    FourthMoments(first=8.0, second=8.0, cross=4.0)
    """
    noise, second = field.noise, field.moments
    if field.drop == 0:
        return FourthMoments(1.0, 1.0, 1.0)
    v, r = second.first - 1, noise.overlap
    if noise.kind == "layers":
        raise InputError(
            f"masks is {field.masks!r} with drop = {field.drop:g}: one draw serves a whole layer,"
            " so that gradients do not average over it and products of layers do not factorise;"
            " expected noise on units or weights"
        )
    if noise.kind == "weights":
        return FourthMoments(second.first**2, second.second**2, second.first * second.second)
    if noise.kind == "gaussian":
        one = 1 + 6 * v + 3 * v**2
        return FourthMoments(one, one, 1 + 2 * v + 4 * r * v + (1 + 2 * r**2) * v**2)
    one = (1 + v) ** 3
    if noise.clean:
        return FourthMoments(one, 1.0, 1 + v)
    return FourthMoments(one, one, r * one + (1 - r) * (1 + v) ** 2)


class HopMoments(NamedTuple):
    """What the recursion needs of each hop; rows ``aa, bb, ab``, those of the response ``a, b``."""

    factor: Array  # of S, [3, hop]
    signal: Array  # E[D D] E[phi phi], [3, hop]
    source: Array  # E[D^2 D^2] E[psi psi], [3, hop]
    response: Array  # of R, [2, hop]

    @classmethod
    def of(
        cls, layers: Sequence[MeanField], path: Trajectory, ratios: Array, responsive: bool
    ) -> HopMoments:
        """At the lengths of ``path``; ``ratios`` are the widths above over those below.

        Without a mean response its source is left 0, and its factors too.
        """
        hops = len(layers)
        made = cls(*(np.zeros((rows, hops)) for rows in (3, 3, 3, 2)))
        for field in dict.fromkeys(layers):
            at = np.array([hop for hop, layer in enumerate(layers) if layer == field])
            a, b, eps = path.q1[at], path.q2[at], path.eps[at]
            kernel, noise = field.kernel, np.array(field.moments[:3])[:, None]
            slopes = [kernel.slope_moment(a), kernel.slope_moment(b)]
            slopes.append(kernel.slope_pair_moment(a, eps, b))
            values = [kernel.second_moment(a), kernel.second_moment(b)]
            values.append(kernel.pair_moment(a, eps, b))
            weight = field.sigma_w**2 * ratios[at]
            made.factor[:, at] = field.skip**2 + weight * noise * np.array(slopes)
            made.signal[:, at] = noise * np.array(values)
            if responsive:
                fourth = np.array(fourth_moments(field))[:, None]
                made.source[:, at] = fourth * _source_moments(field.activation, a, b, eps)
                rise = np.array([kernel.length_slope(a), kernel.length_slope(b)])
                made.response[:, at] = field.skip**2 + weight * noise[:2] * rise
        return made


def _source(a: Activation) -> Callable[[Array], Array]:
    """``psi = phi phi'``, through which the response enters the gradient below."""
    function, slope = a.function, a.slope
    return lambda x: function(x) * slope(x)


def _source_moments(a: Activation, q1: Array, q2: Array, eps: Array) -> Array:
    """``E[psi_a^2], E[psi_b^2], E[psi_a psi_b]``."""
    psi = _source(a)

    def squared(x: Array) -> Array:
        return psi(x) ** 2

    both = pair_expectation(lambda u, v: psi(u) * psi(v), q1, q2, eps, a.shape)
    return np.array([expectation(squared, q1, a.shape), expectation(squared, q2, a.shape), both])


def _source_pair(
    one: Activation, other: Activation, q1: ArrayLike, q2: ArrayLike, eps: ArrayLike
) -> Array:
    """``E[psi_one(u) psi_other(v)]``."""
    f, g = _source(one), _source(other)
    shape = one.shape if one is other else _joint(one.shape, other.shape)
    return pair_expectation(lambda u, v: f(u) * g(v), q1, q2, eps, shape)


def _joint(one: Shape, other: Shape) -> Shape:
    """A shape that serves both functions."""
    return Shape(
        tuple(sorted({*one.breaks, *other.breaks})),
        min(one.scale, other.scale),
        tuple(sorted({*one.centres, *other.centres})),
        one.symmetric and other.symmetric,
        max(one.density, other.density),
        one.cusped or other.cusped,
    )


@dataclass(frozen=True)
class Signed:
    """A number as its sign and the logarithm of its size: deep networks leave float64."""

    sign: float
    log: float

    @classmethod
    def of(cls, value: float) -> Signed:
        """The number ``value``."""
        size = abs(float(value))
        return cls(math.copysign(1.0, value), math.log(size)) if size else cls(0.0, -math.inf)

    def __mul__(self, other: Signed) -> Signed:
        return Signed(self.sign * other.sign, self.log + other.log)

    def __add__(self, other: Signed) -> Signed:
        top = max(self.log, other.log)
        if top == -math.inf:
            return self
        total = self.sign * math.exp(self.log - top) + other.sign * math.exp(other.log - top)
        rest = Signed.of(total)
        return Signed(rest.sign, rest.log + top)


class Backwards(NamedTuple):
    """``S`` (rows aa, bb, ab) and ``R`` (rows a, b) of every layer, the first one first."""

    backprop: list[list[Signed]]
    response: list[list[Signed]]


def run_backwards(
    layers: Sequence[MeanField],
    path: Trajectory,
    moments: HopMoments,
    ratios: Array,
    loss: Loss,
    responsive: bool,
) -> Backwards:
    """From the loss down to the start."""
    backprop = [[Signed.of(x) for x in _top(layers[-1], path, loss)]]
    response = [[Signed.of(float(responsive))] * 2]
    residual = _Residual(layers, path)
    pulls: list[list[Signed]] = []
    for hop in reversed(range(len(layers))):
        field, last = layers[hop], response[-1]
        pull = [Signed.of(field.sigma_w**2 * ratios[hop]) * r for r in last]
        carried = residual.carried(hop, pulls) if responsive and field.skip else {}
        below = []
        for row, (i, j) in enumerate(PAIRS):
            s = Signed.of(moments.factor[row, hop]) * backprop[-1][row]
            if responsive:
                s += pull[i] * pull[j] * Signed.of(moments.source[row, hop])
            if responsive and field.skip:
                for first, second in ((i, j), (j, i)):
                    weight = Signed.of(field.skip * field.moments[second]) * pull[second]
                    s += weight * carried[first, second]
            below.append(s)
        backprop.append(below)
        response.append([Signed.of(moments.response[k, hop]) * last[k] for k in range(2)])
        pulls.append([Signed.of(field.moments[k]) * pull[k] for k in range(2)])
    return Backwards(backprop[::-1], response[::-1])


def _top(last: MeanField, path: Trajectory, loss: Loss) -> tuple[float, float, float]:
    """``S`` at the last layer."""
    a, b, eps = (float(x[-1]) for x in (path.q1, path.q2, path.eps))
    if loss == "linear":
        return 1.0, 1.0, 1.0
    if loss == "quadratic":
        return a, b, (1 - eps) * math.sqrt(a) * math.sqrt(b)
    slopes = last.kernel.slope_moment
    return float(slopes(a)), float(slopes(b)), float(last.kernel.slope_pair_moment(a, eps, b))


@dataclass(frozen=True)
class _Residual:
    """Correlations of a unit with itself in the layers above, along the residual branch.

    ``h^k = P h^l + ...`` with ``P`` the product of the skips between, and the rest independent.
    """

    layers: Sequence[MeanField]
    path: Trajectory

    @property
    def lengths(self) -> tuple[Array, Array]:
        """Of both inputs, by layer."""
        return self.path.q1, self.path.q2

    @cached_property
    def _growth(self) -> Array:
        """``ln q^(l+1)/(skip^2 q^l)`` of both inputs, [2, hop]; ``inf`` without a residual branch.

        From the variance that the hop adds, not from the difference of two lengths.
        """
        growth = np.full((2, len(self.layers)), np.inf)
        for hop, field in enumerate(self.layers):
            for k in range(2) if field.skip else ():
                q = self.lengths[k][hop]
                branch = field.sigma_w**2 * field.moments[k] * field.kernel.second_moment(q)
                growth[k, hop] = np.log1p((branch + field.sigma_b**2) / (field.skip**2 * q))
        return growth

    @cached_property
    def _alike(self) -> bool:
        """Whether both inputs have the same lengths and noise."""
        noise = all(field.moments.first == field.moments.second for field in self.layers)
        return noise and bool(np.all(self.path.q1 == self.path.q2))

    def carried(self, hop: int, pulls: list[list[Signed]]) -> dict[tuple[int, int], Signed]:
        """``<delta_first psi(h_second)>`` by ``(first, second)``, see ``_carried``."""
        same, cross = (self._carried(hop, 0, second, pulls) for second in range(2))
        if self._alike:
            return {(0, 0): same, (1, 1): same, (0, 1): cross, (1, 0): cross}
        return {
            (0, 0): same,
            (0, 1): cross,
            (1, 1): self._carried(hop, 1, 1, pulls),
            (1, 0): self._carried(hop, 1, 0, pulls),
        }

    def _carried(self, hop: int, first: int, second: int, pulls: list[list[Signed]]) -> Signed:
        """``<delta_first psi(h_second)>``, ``delta`` above the hop and ``h`` below it.

        In the mean, given the pre-activations, ``delta^(l+1) = sum_k P A_k E[D^2] psi(h^k) +
        P h^L`` with the pulls ``A_k E[D^2]`` of the hops above, which come topmost first.
        """
        hops = len(self.layers)
        skips = [field.skip for field in self.layers]
        # the first hop above without a residual branch is the last that is correlated
        reach = next((k for k in range(hop + 1, hops) if skips[k] == 0), hops)
        levels = np.arange(hop + 1, min(reach + 1, hops))
        lengths, below = self.lengths[first], float(self.lengths[second][hop])
        start = 0.0 if first == second else float(self.path.eps[hop])
        # 1 - correlation of h_first^k with h_first^hop, then with h_second^hop
        lost = -np.expm1(-np.cumsum(self._growth[first, hop:]) / 2)
        eps = np.clip(start + lost - start * lost, 0.0, 2.0)
        moments = self._source_pairs(levels, hop, lengths, below, eps)
        total, kept = Signed.of(0.0), Signed.of(1.0)
        for level, moment in zip(levels, moments, strict=True):
            total += kept * pulls[hops - 1 - level][first] * Signed.of(moment)
            kept *= Signed.of(skips[level])
        if reach == hops:
            shared = (1 - float(eps[-1])) * math.sqrt(float(lengths[-1])) * math.sqrt(below)
            slope = float(self.layers[hop].kernel.length_slope(below))  # E[h psi]/q
            total += kept * Signed.of(shared * slope)
        return total

    def _source_pairs(
        self, levels: NDArray[np.int64], hop: int, lengths: Array, below: float, eps: Array
    ) -> Array:
        """``E[psi(h^k) psi(h^hop)]`` for the layers ``k`` in ``levels``."""
        moments = np.empty(len(levels))
        activations = [self.layers[k].activation for k in levels]
        for above in dict.fromkeys(activations):
            at = np.array([i for i, other in enumerate(activations) if other is above])
            moments[at] = _source_pair(
                above, self.layers[hop].activation, lengths[levels[at]], below, eps[at]
            )
        return moments

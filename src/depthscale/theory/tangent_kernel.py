r"""The kernels of infinitely wide networks at any depth: of their signals, and of their training.

``h' = skip h + W phi(h) + b`` starts from ``h^0`` of covariance ``K_0``. A gradient step on the
normal numbers that weights and biases are made of, ``W = sigma_w w/sqrt(fan_in)`` and ``b = sigma_b
beta``, moves the output on one input by the tangent kernel times the error on another:

    K'     = skip^2 K + B,                       B = sigma_w^2 E[phi(u) phi(v)] + sigma_b^2
    Theta' = B + (skip^2 + sigma_w^2 E[phi'(u) phi'(v)]) Theta,        Theta_0 = K_0

(1806.07572). ``Theta_0 = K_0`` says that ``h^0`` comes out of a linear layer that is trained too.
Deep networks make both kernels nearly equal for all pairs, so what is carried is how far they are
from that: ``V = (K_aa + K_bb)/2 - K_ab`` as the misalignment eps, and likewise

    U  = (Theta_aa + Theta_bb)/2 - Theta_ab
    U' = sigma_w^2 E[(phi(u) - phi(v))^2]/2 + X_ab U + S (Theta_aa + Theta_bb)/2
         + (X_aa - X_bb)(Theta_aa - Theta_bb)/4

with the slopes ``X = skip^2 + sigma_w^2 E[phi' phi']`` and ``S = sigma_w^2 E[(phi'(u) -
phi'(v))^2]/2``: at equal lengths a sum of positive terms, so that both kernels keep their relative
accuracy however close to one another all inputs have become. (Derived here.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Undefined
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_numbers, together, whole

if TYPE_CHECKING:
    from scipy.interpolate import BSpline

__all__ = ["KernelTable", "TangentKernel", "tangent_kernel"]

TINY = 1e-300
"""Below this a misalignment counts as this, and its logarithm stays finite."""

STEP = 0.05
"""Between nodes of a table in ``z = artanh(1 - eps)``: quintic splines are good to some 1e-11."""

LEAST, MOST = -12.0, 17.0
"""Range of z that is tabulated: eps from ``2 - 1e-10`` to 3e-15, below which the maps are powers.

The quadrature loses the slopes next to a kink off 0 from 1e-17 on, where float64 is too coarse."""


@dataclass(frozen=True, eq=False)
class TangentKernel:
    """Both kernels of pairs of inputs behind some hops; all arrays have the shape of the pairs.

    Attributes
    ----------
    depth:
        Hops.
    q1, q2, eps:
        Lengths ``K_aa``, ``K_bb`` and ``1 - K_ab/sqrt(K_aa K_bb)``.
    log_theta1, log_theta2:
        ``ln Theta_aa`` and ``ln Theta_bb``, which grow without end in the chaotic phase.
    theta_eps:
        ``1 - Theta_ab/sqrt(Theta_aa Theta_bb)``, to the relative accuracy of the maps where
        lengths are equal, however small.
    """

    depth: int
    q1: Array
    q2: Array
    eps: Array
    log_theta1: Array
    log_theta2: Array
    theta_eps: Array

    @property
    def signal(self) -> Array:
        """``K_ab``, the kernel of the signals (NNGP)."""
        return np.asarray(np.sqrt(self.q1 * self.q2) * (1 - self.eps))

    @property
    def ratio(self) -> Array:
        """``Theta_ab/sqrt(Theta_aa Theta_bb)``: off the diagonal over the diagonal."""
        return np.asarray(1 - self.theta_eps)

    @property
    def theta(self) -> Array:
        """``Theta_ab``; ``inf`` where float64 ends."""
        with np.errstate(over="ignore"):
            size = np.exp((self.log_theta1 + self.log_theta2) / 2)
        return np.asarray(size * self.ratio)


def tangent_kernel(
    layer: MeanField,
    depth: int,
    eps: ArrayLike,
    q1: ArrayLike | None = None,
    q2: ArrayLike | None = None,
) -> TangentKernel:
    """Both kernels by the recursion itself, for any lengths.

    It takes two Gaussian integrals a pair and hop; where all lengths are the settled one,
    ``KernelTable`` is as good to some 1e-9 and does a matrix of pairs in a moment.

    Parameters
    ----------
    layer:
        Of every hop; without dropout, ``skip`` as you like.
    depth:
        Hops, 0 or more.
    eps:
        ``1 - correlation`` of the pairs at layer 0, in [0, 2].
    q1, q2:
        Lengths at layer 0, above 0; default the settled length, ``q2`` as ``q1``.

    Raises
    ------
    InputError
        Numbers out of range, dropout, lengths that do not settle and are not given, or that leave
        float64.

    Examples
    --------
    Deep ReLU networks tend to a ratio of 1/4 for every pair.

    >>> relu = MeanField("relu", sigma_w=2**0.5)
    >>> [round(float(tangent_kernel(relu, depth, 0.5).ratio), 3) for depth in (0, 10, 100, 1000)]
    [0.5, 0.373, 0.278, 0.254]
    """
    check_layer(layer)
    depth = whole("depth", depth, 0, "hops")
    gaps = checked_gaps(eps)
    if q1 is None:
        q1 = settled_length(layer)
    lengths = [checked_lengths(q) for q in (q1, q1 if q2 is None else q2)]
    first, second, apart_ = together(q1=lengths[0], q2=lengths[1], eps=gaps)
    state = (np.array(first), np.array(second), np.array(apart_))
    theta1, theta2 = state[0].copy(), state[1].copy()
    apart = (np.sqrt(state[0]) - np.sqrt(state[1])) ** 2 / 2
    apart = apart + np.sqrt(state[0] * state[1]) * state[2]
    scale = np.zeros_like(theta1)  # the logarithm of what the three are multiples of
    for hop in range(1, depth + 1):
        with np.errstate(over="ignore", invalid="ignore"):
            terms = _Hop.of(layer, *state, np.exp(-scale))
            theta1, theta2, apart = terms.next(theta1, theta2, apart)
            state = layer.pair_map(*state)
        finite = np.isfinite(state[0]) & np.isfinite(state[1])
        if not np.all(finite & (np.minimum(state[0], state[1]) > 0)):
            raise InputError(
                f"the length leaves the range of float64 at layer {hop}; follow fewer layers, or"
                " weights that keep the length"
            )
        size = np.maximum(theta1, theta2)
        theta1, theta2, apart = theta1 / size, theta2 / size, apart / size
        scale = scale + np.log(size)
    unequal = (np.sqrt(theta1) - np.sqrt(theta2)) ** 2 / 2
    theta_eps = (apart - unequal) / np.sqrt(theta1 * theta2)
    return TangentKernel(
        depth, *state, scale + np.log(theta1), scale + np.log(theta2), np.maximum(theta_eps, 0.0)
    )


@dataclass(frozen=True)
class _Hop:
    """What one hop adds to the tangent kernel and multiplies it with, for a pair."""

    fresh1: Array
    fresh2: Array
    fresh_apart: Array
    slope1: Array
    slope2: Array
    slopes_apart: Array

    @classmethod
    def of(cls, layer: MeanField, q1: Array, q2: Array, eps: Array, unit: Array) -> _Hop:
        """With the fresh terms in units of ``1/unit``."""
        kernel, weight, bias = layer.kernel, layer.sigma_w**2, layer.sigma_b**2
        skip = layer.skip**2
        return cls(
            unit * (weight * kernel.second_moment(q1) + bias),
            unit * (weight * kernel.second_moment(q2) + bias),
            unit * weight * kernel.gap(q1, eps, q2),
            skip + weight * kernel.slope_moment(q1),
            skip + weight * kernel.slope_moment(q2),
            weight * kernel.slope_gap(q1, eps, q2),
        )

    def next(self, theta1: Array, theta2: Array, apart: Array) -> tuple[Array, Array, Array]:
        """``Theta_aa'``, ``Theta_bb'`` and ``U'``."""
        slope = (self.slope1 + self.slope2) / 2 - self.slopes_apart
        after = self.fresh_apart + slope * apart + self.slopes_apart * (theta1 + theta2) / 2
        after = after + (self.slope1 - self.slope2) * (theta1 - theta2) / 4
        return self.fresh1 + self.slope1 * theta1, self.fresh2 + self.slope2 * theta2, after


@dataclass(frozen=True, eq=False)
class KernelTable:
    """The kernels of inputs of the settled length, as functions of their misalignment alone.

    The two maps of a layer are tabulated once; a depth takes as many evaluations of splines as it
    has hops, at the nodes, whatever the number of pairs.

    Parameters
    ----------
    layer:
        A ``MeanField`` without dropout whose length settles.

    Raises
    ------
    InputError
        Dropout, or no settled length, with the reason.

    Examples
    --------
    >>> table = KernelTable(MeanField("erf", 1.2336725058390206, 0.3))
    >>> table.at(100, [[0.0, 0.1], [0.1, 0.0]]).ratio.round(4).tolist()
    [[1.0, 0.4405], [0.4405, 1.0]]
    """

    layer: MeanField
    q: float = field(init=False)
    _known: dict[int, tuple[float, BSpline]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        check_layer(self.layer)
        object.__setattr__(self, "q", settled_length(self.layer))

    @cached_property
    def _maps(self) -> tuple[BSpline, BSpline]:
        """``ln(E[(phi(u) - phi(v))^2]/(2 eps))`` and ``ln(E[(phi'(u) - phi'(v))^2]/2)``, by z."""
        from scipy.interpolate import make_interp_spline

        z = np.arange(LEAST, MOST + STEP / 2, STEP)
        eps = np.exp(_log_eps(z))
        lengths = np.full_like(eps, self.q)
        gap = self.layer.kernel.gap(lengths, eps) / eps
        slopes = np.maximum(self.layer.kernel.slope_gap(lengths, eps), TINY)
        return tuple(make_interp_spline(z, np.log(x), k=5) for x in (gap, slopes))

    def at(self, depth: int, eps: ArrayLike) -> TangentKernel:
        """Both kernels behind ``depth`` hops of pairs that are ``eps`` apart at layer 0.

        ``InputError`` for numbers out of range.
        """
        depth = whole("depth", depth, 0, "hops")
        gaps = checked_gaps(eps)
        if depth not in self._known:
            self._known[depth] = self._behind(depth)
        log_theta, spline = self._known[depth]
        z = np.clip(_z(np.log(np.maximum(gaps, TINY))), LEAST, None)
        inside = np.minimum(z, MOST)
        # pairs beyond the table stay powers of eps: what is linear, and what bends
        values = spline(inside) - 2 * (z - inside)[..., None] * np.array([1.0, self._beta])
        final, theta = (np.where(gaps == 0, 0.0, np.exp(values[..., k])) for k in (0, 1))
        q = np.full_like(gaps, self.q)
        logs = np.full_like(gaps, log_theta)
        return TangentKernel(depth, q, q, np.minimum(final, 2.0), logs, logs, theta)

    def _behind(self, depth: int) -> tuple[float, BSpline]:
        """``ln Theta_aa``, and a spline of ``ln eps`` and ``ln theta_eps`` by the first z."""
        from scipy.interpolate import make_interp_spline

        layer, nodes = self.layer, np.arange(LEAST, MOST + STEP / 2, STEP)
        weight, skip = layer.sigma_w**2, layer.skip**2
        fresh = float(weight * layer.kernel.second_moment(self.q)) + layer.sigma_b**2
        slope = skip + float(weight * layer.kernel.slope_moment(self.q))
        log_eps = _log_eps(nodes)
        apart, log_theta = np.exp(log_eps), math.log(self.q)
        for _ in range(depth):
            gap, slopes = self._steps(log_eps)
            before = log_theta
            log_theta = float(np.logaddexp(math.log(fresh), math.log(slope) + before))
            kept, new = math.exp(before - log_theta), math.exp(-log_theta)
            apart = new * weight * gap + kept * ((slope - weight * slopes) * apart)
            apart = apart + kept * weight * slopes
            eps = (skip * self.q * np.exp(log_eps) + weight * gap) / self.q
            log_eps = np.log(np.clip(eps, TINY, 2 - 1e-15))
        both = np.stack([log_eps, np.log(np.maximum(apart, TINY))], axis=-1)
        return log_theta, make_interp_spline(nodes, both, k=5)

    def _steps(self, log_eps: Array) -> tuple[Array, Array]:
        """The two gaps of one layer; beyond the table they go on as the powers that they are."""
        z = np.maximum(_z(log_eps), LEAST)
        inside = np.minimum(z, MOST)
        gap, slopes = self._maps
        return (
            np.exp(gap(inside) + log_eps),
            np.exp(slopes(inside) - 2 * self._beta * (z - inside)),
        )

    @property
    def _beta(self) -> float:
        """The power of eps by which slopes differ near alignment, ``kappa - 1``."""
        kappa = self.layer.universality.kappa
        return 1.0 if isinstance(kappa, Undefined) else float(kappa) - 1


def _z(log_eps: Array) -> Array:
    """``artanh(1 - eps)``."""
    rest = np.maximum(2 - np.exp(log_eps), 1e-16)
    return np.asarray((np.log(rest) - log_eps) / 2)


def _log_eps(z: Array) -> Array:
    """``ln eps``, ``eps = 2/(1 + e^(2z))``."""
    return np.asarray(math.log(2) - np.logaddexp(0.0, 2 * z))


def check_layer(layer: Any) -> None:
    """``InputError`` where the layer has no tangent kernel of this kind."""
    if not isinstance(layer, MeanField):
        raise InputError(
            f"a kernel is one of a layer, got {type(layer).__name__} {layer!r}; expected a"
            " MeanField, such as MeanField('relu', sigma_w=2**0.5)"
        )
    if layer.drop > 0:
        raise InputError(
            f"drop = {layer.drop:g}: expected 0. The masks of a step differ from those of the next,"
            " and no one kernel describes training with dropout"
        )


def settled_length(layer: MeanField) -> float:
    """The length of inputs that the layer keeps; ``InputError`` with the reason otherwise."""
    settled = layer.settled
    length = layer.q
    if isinstance(settled, Undefined) or isinstance(length, Undefined):
        reason = settled.reason if isinstance(settled, Undefined) else str(length)
        raise InputError(
            f"{layer.activation.name} keeps no length here: {reason}; give lengths to"
            " tangent_kernel, or take a critical_point"
        )
    return float(length)


def checked_gaps(eps: ArrayLike) -> Array:
    """Misalignments as an array; ``InputError`` out of [0, 2]."""
    gaps = as_numbers("eps", eps)
    if not gaps.size:
        raise InputError("eps is empty; expected 1 - correlation of pairs, from 0 to 2")
    if not np.all((gaps >= 0) & (gaps <= 2)):
        bad = gaps[~((gaps >= 0) & (gaps <= 2))].ravel()[0]
        raise InputError(f"eps holds {bad:g}; expected 1 - correlation of pairs, from 0 to 2")
    return gaps


def checked_lengths(q: ArrayLike) -> Array:
    """Lengths as an array; ``InputError`` where one is not a positive number."""
    lengths = as_numbers("q", q)
    if not (np.all(lengths > 0) and np.all(np.isfinite(lengths))):
        raise InputError(f"lengths are {lengths.ravel()[:4].tolist()}; expected positive numbers")
    return lengths

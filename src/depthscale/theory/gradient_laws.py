r"""Two laws of gradients at finite width, to leading order in 1/n.

**Noise floor.** The gradients of two inputs lose their correlation as ``(chi_2/chi_1)^k``, but the
inner product of two vectors of ``n`` units is never smaller than chance makes it. With
``delta_a = D_a phi'_a V_a`` and ``V = W^T delta`` Gaussian,

    E T^2 <- chi_2^2 E T^2 + (beta/n) |delta_a|^2 |delta_b|^2,    T = delta_a . delta_b,
    beta = sigma_w^4 E[D_a^2 D_b^2] E[phi'_a^2 phi'_b^2],

so that the root mean square of the cosine stops at ``sqrt(beta/(n (chi_1^2 - chi_2^2)))``.

**Log-normal norms.** One hop multiplies ``|delta|^2`` by a mean over units, ``(sigma_w^2/n)
sum_j D_j^2 phi'_j^2 z_j^2``, whose logarithm fluctuates by ``O(1/sqrt(n))`` and follows the
fluctuating length ``q``. Over ``k`` hops both sum up: ``ln |delta|^2`` is Gaussian with a variance
``rate k/n`` and a mean shifted by ``drift k/n`` from ``k ln chi_1``.

Neither is stated in 1912.09132, whose measured variance/mean exponent 2 and common depth scale
follow from them; both are derived here and tested against sampled networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.theory.gaussian import Array, expectation, pair_expectation
from depthscale.theory.gradient_recursion import fourth_moments
from depthscale.theory.meanfield import CRITICAL, MeanField
from depthscale.theory.records import as_number, with_reasons

__all__ = ["LogNormalRate", "NoiseFloor", "log_normal_rate", "noise_floor"]


@dataclass(frozen=True)
class NoiseFloor:
    """Where the correlation of two inputs' gradients ends in a network of finite width.

    Attributes
    ----------
    width:
        Units a layer, ``n``.
    gradient_factor, pair_factor:
        ``chi_1`` (geometric mean of the two inputs) and ``chi_2`` at the fixed point.
    beta:
        ``sigma_w^4 E[D_a^2 D_b^2] E[phi'_a^2 phi'_b^2]``.
    cosine:
        Root mean square over networks of ``cos(delta_a, delta_b)`` at the floor.
    crossover:
        Layers from the loss down after which ``(chi_2/chi_1)^k``, the mean cosine of gradients
        that are equal at the loss, has sunk to the floor. Below, ``|G_ab|`` of a network scales by
        ``chi_1`` a layer, not by ``chi_2``.
    """

    width: float
    gradient_factor: float
    pair_factor: float
    beta: float
    cosine: float
    crossover: float

    def __str__(self) -> str:
        return (
            f"At width {self.width:g} the cosine of two inputs' gradients sinks from 1 to"
            f" {self.cosine:.4g} (rms) over {self.crossover:.1f} layers: below, the size of their"
            f" product scales by chi_1 = {self.gradient_factor:.6g} a layer instead of"
            f" chi_2 = {self.pair_factor:.6g}"
        )


def noise_floor(field: MeanField, width: float) -> NoiseFloor | Undefined:
    r"""The root mean square cosine of a pair's gradients deep below the loss.

    ``sqrt(beta/(n (chi_1^2 - chi_2^2)))``, reached at
    ``k = ln[n (chi_1^2 - chi_2^2)/beta]/(2 ln(chi_1/chi_2))``, for a pair at its fixed point.

    Parameters
    ----------
    field:
        The network: every hop the same, without a residual branch.
    width:
        Units a layer, at least 1. The corrections are of relative order 1/width, and of the order
        of the squared floor itself.

    Returns
    -------
    ``Undefined`` with the reason where the pair does not settle, where its gradients stay as
    correlated as they are (``chi_2 = chi_1``), where the floor is no smaller than 1, for residual
    branches (a unit's gradient is then correlated with its pre-activations, which the law does not
    follow) and noise on whole layers.

    Raises
    ------
    InputError
        A width below 1, or no number.

    Examples
    --------
    >>> field = MeanField("tanh", sigma_w=1.7**0.5, sigma_b=0.05**0.5, drop=0.1)
    >>> floor = noise_floor(field, 1024)
    >>> round(floor.cosine, 4), round(floor.crossover, 1)
    (0.0514, 12.3)
    >>> print(noise_floor(MeanField("tanh", 1.0, 0.3), 1024))
    undefined (chi_2 = chi_1: the gradients of the pair stay as correlated as they are at the loss)
    """
    n = as_number("width", width)
    if not 1 <= n < math.inf:
        raise InputError(f"width is {width!r}; expected a number of units, at least 1")
    reason = _why_not(field)
    lengths, eps = field.settled, field.eps
    if reason is None and isinstance(lengths, Undefined):
        reason = lengths.reason
    if reason is None and isinstance(eps, Undefined):
        reason = eps.reason
    if reason is not None:
        return Undefined(reason)
    assert not isinstance(lengths, Undefined)
    a, b, eps = *lengths, float(eps)
    moments, weight, kernel = field.moments, field.sigma_w**2, field.kernel
    single = weight * math.sqrt(
        moments.first * moments.second * float(kernel.slope_moment(a) * kernel.slope_moment(b))
    )
    pair = float(field.gradient_pair_factor_at(a, eps, b))
    if single - abs(pair) <= CRITICAL * single:
        return Undefined(
            "chi_2 = chi_1: the gradients of the pair stay as correlated as they are at the loss"
        )
    slope = field.activation.slope

    def squares(u: Array, v: Array) -> Array:
        return (slope(u) * slope(v)) ** 2

    spread = float(pair_expectation(squares, a, b, eps, field.activation.shape))
    beta = weight**2 * fourth_moments(field).cross * spread
    square = beta / (n * (single - pair) * (single + pair))
    if square >= 1:
        return Undefined(
            f"the floor sqrt({square:.3g}) is not below 1: width {n:g} is too small for the law"
        )
    crossover = 0.0 if pair == 0 else math.log(square) / (2 * math.log(abs(pair) / single))
    return NoiseFloor(n, single, pair, beta, math.sqrt(square), crossover)


@dataclass(frozen=True)
class LogNormalRate:
    """Growth with depth over width of the spread of ``ln |dE/dh|^2``.

    Over ``k`` hops of width ``n``, ``ln |delta^l|^2 - ln |delta^(l+k)|^2`` has variance ``rate
    k/n`` and mean ``k ln chi_1 + drift k/n``. The weights' gradient of a hop has the same rates
    where lengths settle, as ``|x|^2`` only adds a scatter that does not grow.

    Attributes
    ----------
    gradient_factor:
        ``chi_1``.
    backward:
        ``3 E[D^4] E[phi'^4]/(E[D^2] E[phi'^2])^2 - 1``, the rate at fixed lengths.
    lengths:
        ``a^2 v/(1 - chi_q)^2``, what fluctuating lengths add; ``a = d ln chi_1/dq``,
        ``v = sigma_w^4 Var(D^2 phi^2)``.
    coupling:
        ``2 a c/(1 - chi_q)``, ``c = sigma_w^2 Cov(D^2 phi^2, D^2 phi'^2)/E[D^2 phi'^2]``: the same
        units make lengths and gradients.
    length_shift:
        ``v (d chi_q/dq)/(2 (1 - chi_q^2) (1 - chi_q))``: the mean length is ``q + length_shift/n``.
    drift:
        ``-backward/2 + a length_shift + v (d^2 ln chi_1/dq^2)/(2 (1 - chi_q^2)) + tying``, for a
        loss without mean response.
    tying:
        The part of ``drift`` that exists because backpropagation uses the forward weights, see
        ``log_normal_rate``; 0 for weights drawn anew.
    """

    gradient_factor: float
    backward: float
    lengths: float
    coupling: float
    length_shift: Quantity
    drift: Quantity
    tying: Quantity

    @property
    def rate(self) -> float:
        """``backward + lengths + coupling``: ``Var ln |delta|^2 = rate k/n``."""
        return self.backward + self.lengths + self.coupling

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: undefined numbers are null, with their reasons."""
        return with_reasons({**vars(self), "rate": self.rate})

    def __str__(self) -> str:
        drift = self.drift
        mean = f"undefined ({drift.reason})" if isinstance(drift, Undefined) else f"{drift:.6g}"
        return (
            f"Var ln |delta|^2 = {self.rate:.6g} k/n over k hops of width n (at fixed lengths"
            f" {self.backward:.6g}), mean shift times n/k: {mean}"
        )


def log_normal_rate(field: MeanField) -> LogNormalRate | Undefined:
    r"""How fast ``ln |dE/dh|^2`` of one input spreads with depth over width.

    The drift's share of tied weights: ``V = W^T delta`` is not independent of the forward pass
    along ``x``. Its component there has the mean square ``1 + w`` of an independent one, where
    ``w`` is, one hop after the other downwards,

        w <- (chi_q^2/chi_1) w + E[y^2 phi'^2]/(E[y^2] E[phi'^2]) - 1,    y = W x,

    and ``E |delta|^2`` changes by the factor ``1 + (w/n) E[D^4] E[phi^2 phi'^2]/(E[D^2]^2 E[phi^2]
    E[phi'^2])``.

    Parameters
    ----------
    field:
        The network: every hop the same, without a residual branch; noise of the first input.

    Returns
    -------
    ``Undefined`` with the reason where the length does not settle or is marginal, where
    ``E[phi'^4]`` is infinite, for residual branches and for noise on whole layers. A scale-free
    network has ``ln chi_1`` independent of the length, and a rate. ``drift`` is ``Undefined`` with
    dropped weights, whose effect on the mean at order 1/n is not derived.

    Examples
    --------
    >>> rate = log_normal_rate(MeanField("tanh", sigma_w=1.7**0.5, sigma_b=0.05**0.5, drop=0.1))
    >>> round(rate.rate, 6), round(rate.backward, 4), round(rate.drift, 4), round(rate.tying, 4)
    (4.640764, 3.6333, -1.962, -0.4322)
    >>> round(log_normal_rate(MeanField("relu", sigma_w=1.4, drop=0.5)).rate, 9)  # 6/rho - 1
    11.0
    """
    reason = _why_not(field)
    steep = [c.exponent for c in field.activation.cusps if c.exponent <= 0.75]
    if reason is None and steep:
        reason = f"E[phi'^4] of {field.activation.name} is infinite: cusp |x|^{min(steep):g}"
    lengths = field.settled
    if reason is None and isinstance(lengths, Undefined):
        reason = lengths.reason
    if reason is not None:
        return Undefined(reason)
    assert not isinstance(lengths, Undefined)
    if float(field.kernel.slope_moment(lengths[0])) == 0:
        return Undefined(f"{field.activation.name} has slope 0: there is no gradient")
    point = _Point.of(field, lengths[0])
    relative = point.fourth * point.slope4 / (point.second * point.slope2) ** 2
    backward = 3 * relative - 1
    if field.scale_free:
        # |phi'| keeps its law at any length and y phi' = phi: no source for w
        nowhere = Undefined("scale-free network: lengths have no fixed point")
        means = _unless_weights(field, nowhere, -backward / 2, 0.0)
        return LogNormalRate(point.chi1, backward, 0.0, 0.0, *means)
    if abs(point.chi_q) >= 1 - CRITICAL:
        return Undefined(
            f"the length is marginal, chi_q = {point.chi_q:.6g}: its fluctuations do not settle"
        )
    stays = 1 - point.chi_q
    tying = _tying(point)
    shift = point.bend * point.spread / (2 * (1 - point.chi_q**2) * stays)
    free = -backward / 2 + point.log_slope * shift
    free += point.log_curvature * point.spread / (2 * (1 - point.chi_q**2))
    drift = tying if isinstance(tying, Undefined) else free + tying
    return LogNormalRate(
        point.chi1,
        backward,
        point.log_slope**2 * point.spread / stays**2,
        2 * point.log_slope * point.covariance / stays,
        *_unless_weights(field, shift, drift, tying),
    )


def _why_not(field: MeanField) -> str | None:
    """Why a network is outside both laws, or None."""
    if field.activation.why_no_theory:
        return field.activation.why_no_theory
    if field.skip:
        return (
            "a residual branch keeps a unit's gradient correlated with its own pre-activations,"
            " which this law does not follow"
        )
    try:
        fourth_moments(field)
    except InputError as error:
        return str(error)
    return None


def _unless_weights(field: MeanField, *means: Quantity) -> tuple[Quantity, ...]:
    if field.noise.kind == "weights" and field.drop > 0:
        return (Undefined("shifts of means with dropped weights are not derived"),) * len(means)
    return means


@dataclass(frozen=True)
class _Point:
    """Moments of a network at its settled length; derivatives are those by ``q``."""

    q: float
    own: float  # variance of y = W x, the length without the bias
    second: float  # E[D^2]
    fourth: float  # E[D^4]
    chi1: float
    chi_q: float
    value2: float  # E[phi^2]
    slope2: float
    slope4: float
    both: float  # E[phi^2 phi'^2]
    weighed: float  # E[h^2 phi'^2]
    spread: float  # v, n times the variance that a hop adds to the length
    covariance: float  # c
    bend: float  # d chi_q/dq
    log_slope: float  # of ln chi_1
    log_curvature: float

    @classmethod
    def of(cls, field: MeanField, q: float) -> _Point:
        f, slope, shape = field.activation.function, field.activation.slope, field.activation.shape

        def mean(g: Callable[[Array], Array]) -> float:
            return float(expectation(g, q, shape))

        def squared(x: Array) -> Array:
            return slope(x) ** 2

        # d/dq E F(u) = E[F He_2(u/sqrt q)]/(2q), twice: E[F He_4]/(4 q^2); no derivative of F
        def he2(x: Array) -> Array:
            return (x * x / q - 1) / (2 * q)

        def he4(x: Array) -> Array:
            return ((x * x / q) ** 2 - 6 * x * x / q + 3) / (4 * q * q)

        weight, second, fourth = field.sigma_w**2, field.moments.first, fourth_moments(field).first
        value2, slope2 = float(field.kernel.second_moment(q)), float(field.kernel.slope_moment(q))
        both = mean(lambda x: (f(x) * slope(x)) ** 2)
        chi_q = float(field.length_slope(q))
        spread = weight**2 * (fourth * mean(lambda x: f(x) ** 4) - (second * value2) ** 2)
        log_slope = mean(lambda x: squared(x) * he2(x)) / slope2
        return cls(
            q=q,
            own=q - field.sigma_b**2,
            second=second,
            fourth=fourth,
            chi1=weight * second * slope2,
            chi_q=chi_q,
            value2=value2,
            slope2=slope2,
            slope4=mean(lambda x: slope(x) ** 4),
            both=both,
            weighed=mean(lambda x: (x * slope(x)) ** 2),
            spread=spread,
            covariance=weight * (fourth * both / (second * slope2) - second * value2),
            bend=weight * second * mean(lambda x: f(x) ** 2 * he4(x)),
            log_slope=log_slope,
            log_curvature=mean(lambda x: squared(x) * he4(x)) / slope2 - log_slope**2,
        )


def _tying(point: _Point) -> Quantity:
    """The settled ``w`` times its weight, see ``log_normal_rate``."""
    keeps = point.chi_q**2 / point.chi1
    if keeps >= 1:
        return Undefined(
            f"chi_q^2/chi_1 = {keeps:.6g} is not below 1: the weights' memory of the forward pass"
            " does not settle"
        )
    # y given h is N(h own/q, own (1 - own/q))
    share = point.own / point.q
    source = share * point.weighed / (point.q * point.slope2) + 1 - share - 1
    along = point.fourth * point.both / (point.second**2 * point.value2 * point.slope2)
    return source / (1 - keeps) * along

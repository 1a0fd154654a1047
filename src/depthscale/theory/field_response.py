r"""Dropout as the conjugate field of a finite network: the response, and how it scales.

With ``t = l/n``, ``y = n^(1/beta) eps``, ``theta = n (chi_1 - 1)`` and ``H = h n^(1 + 1/beta)`` the
misalignment of a wide network settles, with a field, at the law

    p(log y) ~ exp(p log y - a y^beta - b/y),   p = 2 (theta + lam)/s^2,  a = 2A/(beta s^2),
                                                b = 2H/s^2.

So ``eps* = n^(-1/beta) G(theta, H)`` for every statistic, and in ``z = a^(1/beta) y`` and ``B =
a^(1/beta) b`` all networks of one ``beta`` share one function of ``p`` and ``B``. Large ``B`` is
infinite width, ``eps* = (h/A)^(1/kappa)``, ``kappa = 1 + beta``. For small ``B`` (``|p| = P``)

    p < 0   E y^k ~ b^min(k, P),     every quantile ~ b,
    p = 0   E y^k ~ 1/log(1/b),      the quantile of share q ~ b^(1 - q),
    p > 0   E y^k - E y_0^k ~ b^min(1, p).

The exponent of the mean is no longer ``1/kappa`` but twice the Lyapunov exponent over the noise: it
varies along the phase boundary, moments do not scale with one another, and within ``P < 1``, that
is ``|theta + lam| < s^2/2``, the susceptibility at zero field is infinite on both sides of the
transition. Derived here; kappa, h and A of 2605.21648.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import exp1, gammainc, gammaincinv, gammaln

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.theory.alignment_equation import AlignmentEquation
from depthscale.theory.diffusion import Drops, StochasticLimit, stochastic_limit
from depthscale.theory.field_relaxation import lowest_rate
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number, whole
from depthscale.theory.single_drops import visit
from depthscale.theory.stationary import StationaryLaw
from depthscale.theory.universal.relations import exponents

Statistic = float | Literal["mean", "median"]
"""Order of a moment of ``y``, or a name."""

_LEVEL = 1e-9
"""Distance of ``p`` or an order from where two powers meet, within which they do."""


@dataclass(frozen=True)
class SmallField:
    """A statistic at small field: ``offset + amplitude H^exponent log(scale/H)^logarithms``.

    The leading term beyond ``offset``, its value at ``H = 0``. The next one is smaller by a power
    of ``H`` that vanishes where ``exponent`` changes its formula.
    """

    offset: float
    amplitude: float
    exponent: float
    logarithms: int = 0
    scale: float = 1.0

    def __call__(self, field: float) -> float:
        """Its value at ``H = field``, positive and well below ``scale``."""
        number = as_number("field", field)
        if not 0 < number < math.inf or (self.logarithms and number >= self.scale):
            most = f" below {self.scale:.3g}" if self.logarithms else ""
            raise InputError(f"field is {field!r}; expected a positive number{most}")
        power = self.amplitude * number**self.exponent
        return float(self.offset + power * math.log(self.scale / number) ** self.logarithms)


@dataclass(frozen=True)
class FieldResponse:
    """How ``y = n^(1/beta) eps`` answers to ``theta = n t`` and ``H = h n^(1 + 1/beta)``.

    Everywhere ``detuning`` is ``theta`` and ``field`` is ``H``: the layer's own distance from its
    critical point and its field, in the units of the width. Statistics are those of networks: one
    misalignment of each.

    Attributes
    ----------
    curvature, beta, variance, lam:
        ``A > 0``, ``beta`` in (0, 1], ``s^2 > 0`` and ``lam`` of the alignment equation.

    Examples
    --------
    >>> relu = field_response(MeanField("relu", 2**0.5))
    >>> relu.response_exponent("mean"), relu.response_exponent("median"), relu.power()
    (0.5, 1.0, -0.5)
    >>> print(f"{relu.mean(field=1.0):.4f} {relu.median(field=1.0):.4f}")
    4.3570 0.7550
    """

    curvature: float
    beta: float
    variance: float
    lam: float

    def __post_init__(self) -> None:
        equation = AlignmentEquation(self.curvature, self.beta, self.variance, self.lam)
        for name in ("curvature", "beta", "variance", "lam"):
            object.__setattr__(self, name, getattr(equation, name))
        if self.curvature == 0:
            raise InputError("curvature is 0: without it nothing bounds the response to a field")

    # The scaling function -------------------------------------------------------------------------

    def equation(self, detuning: float = 0.0, field: float = 0.0) -> AlignmentEquation:
        """The equation there; ``InputError`` out of range."""
        return AlignmentEquation(
            self.curvature, self.beta, self.variance, self.lam, detuning, field
        )

    def law(self, detuning: float = 0.0, field: float = 0.0) -> StationaryLaw | Undefined:
        """The law of ``log y``; ``Undefined`` where all mass goes to alignment."""
        return self.equation(detuning, field).stationary

    def moment(self, order: float, detuning: float = 0.0, field: float = 0.0) -> Quantity:
        """``E y^order``, 0 for a positive order where the absorbing state takes all mass."""
        law, order = self.law(detuning, field), as_number("order", order)
        if isinstance(law, Undefined):
            return 0.0 if order > 0 else law
        return law.moment(order)

    def mean(self, detuning: float = 0.0, field: float = 0.0) -> Quantity:
        """``E y``."""
        return self.moment(1.0, detuning, field)

    def quantile(self, share: float, detuning: float = 0.0, field: float = 0.0) -> float:
        """``y`` below which this share of the networks lies, 0 in the absorbing state."""
        law, q = self.law(detuning, field), _share(share)
        return 0.0 if isinstance(law, Undefined) else math.exp(float(law.quantile(q)))

    def median(self, detuning: float = 0.0, field: float = 0.0) -> float:
        """What half of the networks exceed."""
        return self.quantile(0.5, detuning, field)

    def power(self, detuning: float = 0.0) -> float:
        """``p = 2 (theta + lam)/s^2``; exactly ``-1/2`` for scale-free layers."""
        return 2 * self.equation(detuning).late_rate / self.variance

    @property
    def scaled_curvature(self) -> float:
        """``a = 2A/(beta s^2)``."""
        return 2 * self.curvature / (self.beta * self.variance)

    @property
    def unit(self) -> float:
        """``a^(-1/beta)``, the ``y`` at which width and curvature meet: ``z = y/unit``."""
        return math.pow(self.scaled_curvature, -1 / self.beta)

    @property
    def field_unit(self) -> float:
        """``H`` at which ``B = 1``: ``s^2 unit/2``."""
        return self.variance * self.unit / 2

    def crossover(self, n: int) -> float:
        """Field ``h`` at which ``B = 1`` at width ``n``: ``field_unit n^-(1 + 1/beta)``.

        Far above it the network answers as an infinite one, far below as a finite one. This is for
        noise that is a drift. Bernoulli masks act by single drops below ``h ~ n^-(1 + beta)``,
        which is far above it for kinked activations.
        """
        return self.field_unit * math.pow(whole("n", n, 1), -(1 + 1 / self.beta))

    def effective_exponent(self, order: float, detuning: float, field: float) -> Quantity:
        """``d log E y^order / d log H`` at ``H > 0``: ``b (E y^-1 - E y^(order-1)/E y^order)``."""
        order = as_number("order", order)
        terms = [self.moment(k, detuning, field) for k in (-1.0, order - 1, order)]
        for term in terms:
            if isinstance(term, Undefined):
                return term
        inverse, below, own = map(float, terms)
        if own == 0:
            return Undefined("without a field there is no logarithm of it")
        return 2 * field / self.variance * (inverse - below / own)

    # Small fields ---------------------------------------------------------------------------------

    def moment_at_small_field(self, order: float, detuning: float = 0.0) -> SmallField:
        r"""``E y^order`` as ``H -> 0``, with its amplitude, for ``order > 0``.

        With ``M(s) = Gamma(s/beta) a^(-s/beta)/beta``, the mass of ``e^(s u - a e^(beta u))``:

            p < 0, k < P   b^k Gamma(P - k)/Gamma(P)
            p < 0, k > P   b^P M(k - P)/Gamma(P)          (k = P: b^P L/Gamma(P))
            p = 0          M(k)/L
            0 < p < 1      m_k (1 + b^p Gamma(1 - p)/(p M(p))),   m_k = M(p + k)/M(p)
            p > 1          m_k (1 + b [m_-1 - m_(k-1)/m_k])       (p = 1: (L + 1)/M(1) for m_-1)

        and ``L = -log(a^(1/beta) b) - (1 + 1/beta) C``, ``C = .577`` Euler's constant.

        Raises
        ------
        InputError
            An order that is not positive.
        """
        k, p = as_number("order", order), self.power(detuning)
        if not 0 < k < math.inf:
            raise InputError(f"order is {order!r}; expected a positive number")
        unit = 2 / self.variance
        if abs(p) < _LEVEL:
            return SmallField(0.0, self._mass(k), 0.0, -1, self._log_scale)
        if p > 0:
            return self._active(k, p)
        size = -p
        if abs(k - size) < _LEVEL:
            return SmallField(0.0, unit**size / math.gamma(size), size, 1, self._log_scale)
        if k < size:
            ratio = math.exp(gammaln(size - k) - gammaln(size))
            return SmallField(0.0, unit**k * ratio, k)
        return SmallField(0.0, unit**size * self._mass(k - size) / math.gamma(size), size)

    def _active(self, k: float, p: float) -> SmallField:
        still, unit = self._mass(p + k) / self._mass(p), 2 / self.variance
        if abs(p - 1) < _LEVEL:
            less = self._mass(1) * self._mass(k) / self._mass(1 + k)
            scale = self._log_scale * math.exp(1 - less)
            return SmallField(still, still * unit / self._mass(p), 1.0, 1, scale)
        if p < 1:
            gain = unit**p * math.gamma(1 - p) / (p * self._mass(p))
            return SmallField(still, still * gain, p)
        gain = self._mass(p - 1) / self._mass(p) - self._mass(p + k - 1) / self._mass(p + k)
        return SmallField(still, still * unit * gain, 1.0)

    def quantile_at_small_field(self, share: float, detuning: float = 0.0) -> SmallField:
        """The quantile as ``H -> 0``: linear for ``p < 0``, ``H^(1 - share)`` at ``p = 0``.

        For ``p < 0`` ``b/y`` has a gamma law of shape ``P``; at ``p = 0`` ``log y`` is uniform
        between ``log b`` and ``-log(a)/beta``, both moved inwards by Euler's constant; for
        ``p > 0`` the law of ``H = 0`` is gamma in ``a y^beta`` and gives way like its moments.
        """
        q, p, a = _share(share), self.power(detuning), self.scaled_curvature
        unit = 2 / self.variance
        if abs(p) < _LEVEL:
            low = math.log(unit) + np.euler_gamma
            high = -(math.log(a) + np.euler_gamma) / self.beta
            return SmallField(0.0, math.exp((1 - q) * low + q * high), 1 - q)
        if p < 0:
            return SmallField(0.0, unit / float(gammaincinv(-p, 1 - q)), 1.0)
        x = float(gammaincinv(p / self.beta, q))
        still = (x / a) ** (1 / self.beta)
        # by how much less than q lies below, over the density of log y there
        density = math.exp(p * math.log(still) - x) / self._mass(p)
        if abs(p - 1) < _LEVEL:
            scale = self._log_scale * math.exp(1 - float(exp1(x)) / (self.beta * (1 - q)))
            gain = unit * (1 - q) / (self._mass(p) * density)
            return SmallField(still, still * gain, 1.0, 1, scale)
        if p < 1:
            less = unit**p * math.gamma(1 - p) / (p * self._mass(p)) * (1 - q)
            return SmallField(still, still * less / density, p)
        inverse = self._mass(p - 1) / self._mass(p)
        less = unit * inverse * (float(gammainc((p - 1) / self.beta, x)) - q)
        return SmallField(still, still * less / density, 1.0)

    @property
    def _log_scale(self) -> float:
        """``H e^L``."""
        return self.field_unit * math.exp(-np.euler_gamma * (1 + 1 / self.beta))

    def _mass(self, s: float) -> float:
        """``M(s)``."""
        a = self.scaled_curvature
        return math.exp(gammaln(s / self.beta) - s / self.beta * math.log(a)) / self.beta

    def at_small_field(self, statistic: Statistic, detuning: float = 0.0) -> SmallField:
        """The leading response of ``"mean"``, ``"median"`` or a moment, by its order."""
        if statistic == "median":
            return self.quantile_at_small_field(0.5, detuning)
        if isinstance(statistic, str) and statistic != "mean":
            raise InputError(
                f"statistic is {statistic!r}; expected 'mean', 'median' or the order of a moment"
            )
        order = 1.0 if isinstance(statistic, str) else statistic
        return self.moment_at_small_field(order, detuning)

    def response_exponent(self, statistic: Statistic, detuning: float = 0.0) -> float:
        """Power of ``H`` with which the statistic leaves its value at zero field."""
        return self.at_small_field(statistic, detuning).exponent

    def amplitude(self, statistic: Statistic, detuning: float = 0.0) -> float:
        """What multiplies that power, and the logarithm where there is one."""
        return self.at_small_field(statistic, detuning).amplitude

    def susceptibility(self, detuning: float = 0.0) -> Quantity:
        """``d E y/dH`` at ``H = 0``; in networks ``d E eps/dh`` is ``n`` times that.

        ``1/|theta + kap|`` for ``p < -1``; ``Undefined``, infinite, for ``|p| <= 1``.
        """
        low, high = self.infinite_susceptibility
        detuning = as_number("detuning", detuning)
        if low - _LEVEL <= detuning <= high + _LEVEL:
            return Undefined(
                f"infinite: E y grows by H^{self.response_exponent('mean', detuning):.4g} or"
                f" logarithmically, for every theta from {low:.4g} to {high:.4g}"
            )
        return self.amplitude("mean", detuning)

    @property
    def infinite_susceptibility(self) -> tuple[float, float]:
        """``theta`` from ``-lam - s^2/2`` to ``-lam + s^2/2``, where ``|p| <= 1``."""
        return -self.lam - self.variance / 2, -self.lam + self.variance / 2

    # Depth ----------------------------------------------------------------------------------------

    def rate(self, detuning: float = 0.0, field: float = 0.0) -> float:
        """Slowest relaxation rate of the law, per unit of ``t = l/n``.

        The spectral gap of the equation's Fokker-Planck operator. As ``H -> 0`` it ends at
        ``(s^2/2) p^2/4``, where a continuum begins, at ``|theta + kap|`` for ``p < -2`` and at
        ``(s^2/2) beta (p - beta)`` for ``p > 2 beta``; as ``H -> infinity`` at ``kappa A^(1/kappa)
        H^(beta/kappa)``, that of infinite width.
        """
        equation = self.equation(detuning, field)
        power, push = self.power(detuning), 2 * equation.field / self.variance
        return self.variance / 2 * lowest_rate(power, self.scaled_curvature, self.beta, push)

    def relaxation(self, detuning: float = 0.0, field: float = 0.0) -> Quantity:
        """Depth scale in widths, ``1/rate``; ``xi = n`` times it."""
        rate = self.rate(detuning, field)
        if rate == 0:
            return Undefined("critical without a field: alignment is not exponential in depth")
        return 1 / rate

    # Single drops ---------------------------------------------------------------------------------

    def drop_response(self, drops: Drops, order: float = 1.0, detuning: float = 0.0) -> Quantity:
        """``E y^order`` where drops are so rare that one is forgotten before the next comes.

        ``rate E T(J)``, ``T(J)`` the mean of the integral of ``y^order`` over ``t`` behind a jump
        to ``J``: linear in the drop rate for every order and every ``p < 0``, other than for noise
        that is a drift. ``Undefined`` for ``p >= 0``, where nothing is forgotten.
        """
        power = self.power(detuning)
        if power >= 0:
            return Undefined(f"p = {power:g} >= 0: what one drop starts does not end")
        integrals = visit(order, power, self.scaled_curvature, self.beta, drops.sizes)
        return float(drops.rate * (drops.weights @ integrals) * 2 / self.variance)

    # What it joins --------------------------------------------------------------------------------

    @property
    def exponents(self) -> dict[str, tuple[float, float]]:
        """Exponents of infinite width (2605.21648) and of finite width at ``theta = 0``.

        ``delta``: ``E eps ~ h^(1/delta)``; ``delta_typical``: that of the median; ``nu_rho``: depth
        scale ``~ h^-nu_rho``, which finite width ends; ``crossover``: ``h ~ n^-crossover`` between
        the two.
        """
        wide = exponents(1 + self.beta)
        crossover = 1 + 1 / self.beta
        mean, median = (self.response_exponent(s) for s in ("mean", "median"))
        active = self.power() >= -_LEVEL
        deltas = [math.inf if active else 1 / power for power in (mean, median)]
        return {
            "delta": (wide["delta"], deltas[0]),
            "delta_typical": (wide["delta"], deltas[1]),
            "nu_rho": (wide["nu_rho"], 0.0),
            "crossover": (crossover, crossover),
        }


def field_response(layer: MeanField | StochasticLimit) -> FieldResponse:
    """The response of a layer's networks to dropout, from the constants of its equation.

    Parameters
    ----------
    layer:
        Critical or nearly so, or its ``stochastic_limit``. Its own detuning and dropout do not
        enter; ``stochastic_limit(layer).at_width(n)`` has them in the units used here.

    Raises
    ------
    InputError
        What ``stochastic_limit`` refuses, and linear networks.

    Source: derived here.

    Examples
    --------
    >>> tanh = field_response(MeanField("tanh", 1.395584, 0.3))
    >>> print(f"{tanh.response_exponent('mean'):.3f} {tanh.crossover(128):.2e}")
    0.873 1.18e-03
    """
    limit = layer if isinstance(layer, StochasticLimit) else stochastic_limit(layer)
    return FieldResponse(limit.curvature, limit.beta, limit.variance, limit.lam)


def _share(share: float) -> float:
    number = as_number("share", share)
    if not 0 < number < 1:
        raise InputError(f"share is {share!r}; expected a number inside (0, 1)")
    return number

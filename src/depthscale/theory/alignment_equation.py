r"""The alignment of two signals in a wide and deep critical network, as a stochastic equation.

With the depth in widths, ``t = l/n``, and the misalignment in the unit that width leaves it,
``y = n^(1/beta) (1 - rho)``,

    d log y = [theta + lam - A y^beta + H/y] dt + s dB,    started from y = infinity or any y_0 > 0,

with ``beta = kappa - 1`` of the map ``eps' = h + (1 + t) eps - A eps^kappa``: 1 for smooth
activations, 1/2 for kinked ones. ``theta = n (chi_1 - 1)``, ``H = h n^(1 + 1/beta)``; ``lam`` and
``s^2`` come from the chance of finite width (see ``diffusion``). Any misalignment of order one is
``y = infinity`` for a wide network, and the equation comes down from there at once. The
``q_t = l^(1/beta) (1 - rho) = t^(1/beta) y`` of arXiv 2310.12079 obeys

    dq = q [(1/beta - A q^beta)/t + theta + kap] dt + s q dB + H t^(1/beta) dt,   kap = lam + s^2/2,

whose singularity at ``t = 0`` is one of this coordinate. (The form without ``kap`` that is often
quoted leaves out what the noise itself adds to the mean. Derived here.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.theory.divided import exponential_integral
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number, as_numbers
from depthscale.theory.stationary import StationaryLaw


@dataclass(frozen=True)
class InverseMoments:
    """Mean and variance of ``x = y^-beta``, each of the shape of the times."""

    mean: Array
    variance: Array


@dataclass(frozen=True)
class AlignmentEquation:
    """``d log y = [theta + lam - A y^beta + H/y] dt + s dB``, ``y = n^(1/beta) (1 - rho)``.

    Parameters
    ----------
    curvature:
        ``A >= 0``; 0 is the linear network.
    beta:
        Power of the bend, in (0, 1]: 1 smooth, 1/2 kinked, ``alpha - 1/2`` for a cusp.
    variance:
        ``s^2 > 0`` per unit of ``t = l/n``.
    lam, detuning:
        ``lam`` and ``theta``; only their sum counts.
    field:
        ``H >= 0``.

    Raises
    ------
    InputError
        Values out of range.

    Examples
    --------
    >>> relu = AlignmentEquation(curvature=2 * 2**0.5 / (3 * np.pi), beta=0.5, variance=8.0, lam=-2)
    >>> print(f"{relu.kap:g} {relu.entrance:.4f}")
    2 44.4132
    >>> relu.inverse_moments([0.25, 0.5]).mean.round(6)
    array([0.048671, 0.128916])
    """

    curvature: float
    beta: float
    variance: float
    lam: float
    detuning: float = 0.0
    field: float = 0.0

    def __post_init__(self) -> None:
        for name, low, closed, high, meaning in (
            ("curvature", 0.0, True, math.inf, "A >= 0"),
            ("beta", 0.0, False, 1.0, "a power in (0, 1]"),
            ("variance", 0.0, False, math.inf, "s^2 > 0"),
            ("lam", -math.inf, False, math.inf, "a finite number"),
            ("detuning", -math.inf, False, math.inf, "a finite number"),
            ("field", 0.0, True, math.inf, "H >= 0"),
        ):
            value = getattr(self, name)
            number = as_number(name, value)
            inside = low < number < high or (closed and number == low)
            if not (inside or (name == "beta" and number == high)):
                raise InputError(f"{name} is {value!r}; expected {meaning}")
            object.__setattr__(self, name, number)

    @property
    def noise(self) -> float:
        """``s``."""
        return math.sqrt(self.variance)

    @property
    def kap(self) -> float:
        """``lam + s^2/2``: the growth of ``E y`` where ``A``, ``theta`` and ``H`` are 0."""
        return self.lam + self.variance / 2

    @property
    def late_rate(self) -> float:
        """``theta + lam``: drift of ``log y`` near alignment; that of ``log(1 - rho)`` is /n."""
        return self.detuning + self.lam

    def drift(self, log_y: ArrayLike) -> Array:
        """``E d(log y)/dt`` at ``log y``, any shape (``-inf`` or ``inf`` beyond float64)."""
        u = np.asarray(log_y, dtype=float)
        with np.errstate(over="ignore", invalid="ignore"):
            bend = self.curvature * np.exp(self.beta * u) if self.curvature else 0.0
            push = self.field * np.exp(-u) if self.field else 0.0
            return np.asarray(self.late_rate - bend + push + np.zeros_like(u))

    @property
    def entrance(self) -> Quantity:
        """``q_0 = (A beta)^(-1/beta)``, the limit of ``q_t = t^(1/beta) y`` as ``t -> 0``.

        Without field, detuning or noise ``x = y^-beta`` is ``A beta t``; all three are slower.
        ``Undefined`` for the linear network, which never comes down from infinity.
        """
        if self.curvature == 0:
            return Undefined("A = 0: without curvature y does not come down from infinity")
        try:
            return math.pow(self.curvature * self.beta, -1 / self.beta)
        except OverflowError:
            return Undefined(f"A = {self.curvature:g}: (A beta)^(-1/beta) is beyond float64")

    def early_variance(self, time: ArrayLike) -> Array:
        """``Var log y = s^2 t/3 + O(t^2)`` soon after a start at infinity.

        The equation ``dx = [A beta + ..] dt - beta s x dB`` forgets its early noise as ``x ~ t``
        grows: ``Var x/(E x)^2 = beta^2 s^2 t^3/(3 t^2)``.
        """
        return np.asarray(self.variance * _times(time) / 3)

    def inverse_moments(self, time: ArrayLike, x0: float = 0.0) -> InverseMoments:
        r"""Mean and variance of ``x = y^-beta`` after ``x0``, where there is no field.

        ``x`` is linear, ``dx = [A beta + m x] dt - beta s x dB``, so with ``e[..]`` for nested
        integrals of exponentials (see ``exponential_integral``), ``c = A beta``,
        ``m = beta^2 s^2/2 - beta (theta + lam)`` and ``m_2 = 2 m + beta^2 s^2``,

            E x   = x_0 e^(m t) + c e[0, m]
            Var x = beta^2 s^2 (x_0^2 e[2m, m_2] + 2 x_0 c e[m, 2m, m_2] + 2 c^2 e[0, m, 2m, m_2]).

        Every term is positive: nothing cancels at small ``t`` or where rates vanish or meet.

        Parameters
        ----------
        time:
            ``t >= 0``, any shape.
        x0:
            ``y_0^-beta >= 0``; 0 starts at infinity.

        Raises
        ------
        InputError
            A field, which makes ``x`` nonlinear; times or start out of range.

        Source: derived here; for ReLU ``E x = (A/4) (e^(2t) - 1)``.
        """
        if self.field:
            raise InputError(
                f"field is {self.field:g}; expected 0: with a field y^-beta has no closed moments."
                " Take the density or paths of the equation, or its stationary law"
            )
        t, start = _times(time), as_number("x0", x0)
        if not 0 <= start <= 1e150:
            raise InputError(
                f"x0 is {x0!r}; expected y^-beta from 0, a start at infinity, to 1e150"
            )
        noise = self.beta**2 * self.variance
        m = noise / 2 - self.beta * self.late_rate
        square, source = 2 * m + noise, self.curvature * self.beta
        with np.errstate(over="ignore"):
            mean = source * exponential_integral([0, m], t)
            variance = 2 * source**2 * exponential_integral([0, m, 2 * m, square], t)
            if start:
                mean = mean + start * np.exp(m * t)
                mixed = exponential_integral([m, 2 * m, square], t)
                alone = exponential_integral([2 * m, square], t)
                variance = variance + 2 * start * source * mixed + start**2 * alone
            return InverseMoments(mean, noise * variance)

    @cached_property
    def stationary(self) -> StationaryLaw | Undefined:
        r"""The law that ``log y`` settles at, or where it goes instead.

            p(log y) ~ exp(p log y - a y^beta - b/y),
            p = 2 (theta + lam)/s^2,   a = 2A/(beta s^2),   b = 2H/s^2.

        With a field it exists (with ``A = 0`` only for ``theta + lam < 0``), without one only for
        ``theta + lam > 0``: where that is not so, all mass goes to alignment.
        """
        if self.field == 0 and self.late_rate <= 0:
            return Undefined(
                f"without a field and with theta + lam = {self.late_rate:g} <= 0 all mass goes to"
                " alignment: log y drifts to -infinity"
            )
        if self.curvature == 0 and self.late_rate >= 0:
            return Undefined(
                f"without curvature and with theta + lam = {self.late_rate:g} >= 0 nothing holds y:"
                " log y drifts to infinity"
            )
        scale = 2 / self.variance
        return StationaryLaw(
            power=scale * self.late_rate,
            bend=scale * self.curvature / self.beta,
            beta=self.beta,
            push=scale * self.field,
        )


def _times(time: ArrayLike) -> Array:
    t = as_numbers("time", time)
    if not np.all((t >= 0) & (t < math.inf)):
        raise InputError(f"time is {time!r}; expected finite t = l/n >= 0")
    return t

r"""Shaped ReLU networks: slopes ``1 + c/sqrt n`` at width n and depth ``l = n t``.

The Gram matrix of the signals of m inputs, ``V^ab = (c/n) <phi^a, phi^b>``, obeys

    dV = b dt + Sigma^(1/2) dB,   b^ab = nu(rho^ab) sqrt(V^aa V^bb),
    Sigma^ab,cd = V^ac V^bd + V^ad V^bc,
    nu(rho) = (Dc^2/2 pi) (sin theta - theta cos theta),   rho = cos theta,   Dc = c_+ - c_-,

(2206.02768, theorem 3.2). Two inputs close: with ``z = artanh rho`` and Ito's formula

    dz = [nu/(1 - rho^2) + tanh(z)/2] dt + dB.

With equal slopes the network is linear, and ``z`` is the signed distance of a Brownian motion of
the hyperbolic plane from a geodesic: ``V^12/sqrt(det V) = sinh z``. What follows from that is
exact (derived here).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.finite.diffusion.covariance import CovarianceLimit, checked_times
from depthscale.finite.diffusion.equation import (
    CORRELATION,
    Entry,
    Equation,
    Reading,
    start_of_correlation,
)
from depthscale.theory.activation import activation
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number, as_numbers

_FARTHEST = 330.0
"""The ``|z|`` up to which ``cosh(z)^2`` and the bend of the angle are floats."""

_SERIES = [(-1) ** (k + 1) * 2 * k / math.factorial(2 * k + 1) for k in range(1, 12)]
"""``sin x - x cos x = x^3 sum_k _SERIES[k] x^(2k)``; all digits for x <= 1."""


def bend(theta: Array) -> Array:
    """``sin theta - theta cos theta`` on [0, pi], of full relative accuracy."""
    square = theta * theta
    small = theta * square * np.polynomial.polynomial.polyval(square, _SERIES)
    return np.where(theta < 1, small, np.sin(theta) - theta * np.cos(theta))


class Normal(NamedTuple):
    """A normal law."""

    mean: float
    variance: float


class Alignment(NamedTuple):
    """The correlation of two signals in an infinitely wide network, at each time asked for."""

    rho: Array
    eps: Array


@dataclass(frozen=True)
class ShapedReLU(Equation, CovarianceLimit):
    """Two inputs of a shaped ReLU network, and through ``sample_covariance`` any number.

    The coordinate is ``u = z = artanh rho``, the time ``t = l/n``.

    Parameters
    ----------
    c_plus, c_minus:
        The activation has slope ``1 + c_plus/sqrt n`` above 0 and ``1 + c_minus/sqrt n`` below.
        Only their difference matters to the limit.

    Raises
    ------
    InputError
        Numbers that are not finite, or larger than 1e6.

    Examples
    --------
    >>> shaped = ShapedReLU(0.0, -1.0)
    >>> shaped.mean_field(times=1.0, rho0=0.3).rho.round(6)
    array([0.382947])
    """

    c_plus: float
    c_minus: float

    def __post_init__(self) -> None:
        for name in ("c_plus", "c_minus"):
            value = as_number(name, getattr(self, name))
            if not abs(value) <= 1e6:
                raise InputError(f"{name} is {value!r}; expected a number of size at most 1e6")
            object.__setattr__(self, name, value)

    @property
    def bending(self) -> float:
        """``Dc^2 = (c_+ - c_-)^2``: all that the limit knows of the slopes."""
        return (self.c_plus - self.c_minus) ** 2

    # The equation --------------------------------------------------------------------------------

    @property
    def noise(self) -> float:
        """1."""
        return 1.0

    @property
    def readings(self) -> Mapping[str, Reading]:
        """``rho``, ``eps``, ``log_eps`` and ``z``."""
        return CORRELATION

    def nu(self, rho: ArrayLike) -> Array:
        """``nu(rho)``: drift of the correlation in an infinitely wide network."""
        place = as_numbers("rho", rho)
        if not np.all(np.abs(place) <= 1):
            raise InputError(f"rho = {rho!r}: expected correlations in [-1, 1]")
        return self.bending / (2 * math.pi) * bend(np.arccos(place))

    def drift(self, u: Array) -> Array:
        """``nu/(1 - rho^2) + tanh(z)/2``; relative error of each part 1e-14 for |z| <= 330.

        Beyond, the first part stays as it is there: below 1e-130 or above 1e270 times ``Dc^2``.
        """
        away = np.minimum(np.abs(u), _FARTHEST)
        angle = 2 * np.arctan(np.exp(-away))
        positive = u >= 0
        # theta = pi - angle where rho < 0, whose cosine and sine need no subtraction
        opposed = 1 / np.cosh(away) + (math.pi - angle) * np.tanh(away)
        bent = np.where(positive, bend(angle), opposed) * np.cosh(away) ** 2
        return np.asarray(self.bending / (2 * math.pi) * bent + np.tanh(u) / 2)

    @property
    def enters_at(self) -> float:
        """``-inf``: opposite inputs."""
        return -math.inf

    def entry(self, time: float) -> Entry:
        """The law of ``z`` soon after opposite inputs, ``z = -inf``, if the slopes differ.

        ``w = e^(2z)`` obeys ``dw = [Dc^2/4 + w + O(w^(3/2))] dt + 2 w dB``, so that to first order

            E z = log(Dc^2 t/4)/2 - t/12,   Var z = t/3         (derived here).

        Raises
        ------
        InputError
            Equal slopes: opposite inputs stay opposite. A time that is not above 0.
        """
        time = as_number("time", time)
        if not time > 0:
            raise InputError(f"time = {time}: expected a time above 0, after the start")
        if self.bending == 0:
            return super().entry(time)
        return Entry(math.log(self.bending * time / 4) / 2 - time / 12, time / 3)

    def start(self, rho: float | None = None, eps: float | None = None) -> float:
        """``z`` of a start given as correlation or, near alignment, as misalignment.

        Opposite inputs are a start like any other if the slopes differ: ``-inf``, an entrance.

        Raises
        ------
        InputError
            What ``start_of_correlation`` refuses.
        """
        rho = None if rho is None else as_number("rho", rho)
        eps = None if eps is None else as_number("eps", eps)
        if self.bending > 0 and (rho, eps) in ((-1, None), (None, 2)):
            return -math.inf
        return start_of_correlation(rho, eps)

    # m inputs ------------------------------------------------------------------------------------

    def drift_of(self, v: Array) -> Array:
        """``b^ab = nu(rho^ab) sqrt(V^aa V^bb)`` of matrices ``V[a, b, ...]``."""
        drift = np.zeros_like(v)
        size = np.sqrt(np.einsum("aa...->a...", v))
        for a, b in combinations(range(len(v)), 2):
            scale = size[a] * size[b]
            rho = np.divide(v[a, b], scale, out=np.ones_like(scale), where=scale > 0)
            angle = np.arccos(np.clip(rho, -1.0, 1.0))
            drift[a, b] = drift[b, a] = self.bending / (2 * math.pi) * scale * bend(angle)
        return drift

    def flow(self, v: Array, time: float) -> Array:
        """``V' = b(V)`` for a short time, of order 2, keeping V positive semidefinite.

        ``b = (Dc^2/4) (K - V)`` with the positive definite ``K^ab = E|x_a x_b|``; steps no longer
        than ``4/Dc^2`` are convex combinations of such matrices.
        """
        if self.bending == 0:
            return v
        parts = max(1, math.ceil(self.bending * time / 2))
        step = time / parts
        for _ in range(parts):
            there = v + step * self.drift_of(v)
            v = (v + there + step * self.drift_of(there)) / 2
        return v

    # Exact facts ---------------------------------------------------------------------------------

    def log_length(self, time: float) -> Normal:
        """``log(V^aa_t/V^aa_0) ~ N(-t, 2t)`` of one input, whatever the slopes."""
        passed = float(checked_times(time)[0])
        return Normal(-passed, 2 * passed)

    @property
    def late(self) -> Normal:
        """Mean and variance, per unit of t, of ``log eps`` once eps is small: -1 and 4."""
        return Normal(-1.0, 4.0)

    def aligns(self, rho: float) -> float:
        """Probability that two signals end aligned, ``rho -> 1``, and not opposite.

        1 if the slopes differ. In a linear network the angle ``arccos rho`` is a martingale, so
        that it is ``1 - arccos(rho)/pi`` (derived here).
        """
        start = as_number("rho", rho)
        if not -1 <= start <= 1:
            raise InputError(f"rho = {rho}: expected a correlation in [-1, 1]")
        return 1.0 if self.bending > 0 else 1 - math.acos(start) / math.pi

    # Infinite width ------------------------------------------------------------------------------

    def mean_field(
        self, times: ArrayLike, rho0: float | None = None, eps0: float | None = None
    ) -> Alignment:
        """``rho' = nu(rho)``: slopes ``1 + c/sqrt d``, depth d much below the width, ``t = l/d``.

        Lengths stay as they are. ``log eps`` is integrated, by Dormand and Prince's method of order
        8, to a relative error of about 1e-11.

        Parameters
        ----------
        times:
            Ascending, at least 0.
        rho0, eps0:
            The start, one of the two; ``rho0 = -1`` is allowed, equal signals (1) stay equal.
        """
        return self._wide(times, rho0, eps0)[0]

    def fluctuation(
        self, times: ArrayLike, rho0: float | None = None, eps0: float | None = None
    ) -> Array:
        """``sqrt(n/d)`` times the standard deviation of the correlation of networks with d << n.

        ``v' = 2 nu'(rho) v + (1 - rho^2)^2`` along ``mean_field``, ``nu' = -(Dc^2/2 pi) theta``
        (small noise; derived here). Parameters as there.
        """
        return self._wide(times, rho0, eps0)[1]

    def _wide(
        self, times: ArrayLike, rho0: float | None, eps0: float | None
    ) -> tuple[Alignment, Array]:
        from scipy.integrate import solve_ivp

        t = checked_times(times)
        if (rho0 is None) == (eps0 is None):
            raise InputError("give the start as rho0 or as eps0 = 1 - rho0, one of the two")
        eps = 1 - as_number("rho0", rho0) if eps0 is None else as_number("eps0", eps0)
        if not 0 <= eps <= 2:
            raise InputError(f"the start has 1 - rho = {eps}: expected a value in [0, 2]")
        if eps == 0 or t[-1] == 0:
            return Alignment(np.full(t.size, 1 - eps), np.full(t.size, eps)), np.zeros(t.size)

        def rate(_: float, state: Array) -> Array:
            here = min(math.exp(state[0]), 2.0)
            angle = 2 * math.asin(math.sqrt(here / 2))
            front = self.bending / (2 * math.pi)
            fall = -front * float(bend(np.array(angle))) / here
            direct = (here * (2 - here)) ** 2
            return np.array([fall, direct - 2 * front * angle * state[1]])

        path = solve_ivp(
            rate, (0.0, float(t[-1])), [math.log(eps), 0.0], "DOP853", t, rtol=1e-12, atol=1e-13
        )
        found = np.exp(path.y[0])
        return Alignment(1 - found, found), np.sqrt(path.y[1])

    def layer(self, rate: float) -> MeanField:
        """A layer of the network itself: slopes ``1 + c/sqrt(rate)``, weights that keep lengths.

        Correlations of d such layers at infinite width are off from ``mean_field`` by order 1/d if
        ``c_plus = -c_minus``, else by order ``d^(-1/2)``.

        Parameters
        ----------
        rate:
            The width n for the stochastic limit, the depth d for the deterministic one.

        Examples
        --------
        >>> from depthscale.theory.meanfield import propagate
        >>> for shaped in (ShapedReLU(0.0, -1.0), ShapedReLU(0.5, -0.5)):
        ...     path = propagate([shaped.layer(64)] * 64, 1.0, 1.0, 0.7)
        ...     print(f"{1 - path.eps[-1]:.4f}")
        0.3930
        0.3828
        """
        number = as_number("rate", rate)
        if not 0 < number < math.inf:
            raise InputError(f"rate = {rate!r}: expected the width or the depth, above 0")
        up, down = (1 + c / math.sqrt(number) for c in (self.c_plus, self.c_minus))
        if up == down == 0:
            raise InputError(f"both slopes are 0 at rate {number:g}: expected another rate")
        phi = activation(f"shaped_relu({down!r}, {up!r})")
        return MeanField(phi, math.sqrt(2 / (up**2 + down**2)))


@dataclass(frozen=True)
class LinearPair:
    """Exact laws of two inputs of a linear network (equal slopes) of depth ``n t``.

    Parameters
    ----------
    z0:
        ``artanh rho`` at the start.
    time:
        ``t = l/n > 0``.

    Raises
    ------
    InputError
        ``|z0|`` above 150 or a time above 200, where moments leave float64, or a time not above 0.

    Source: derived here from McKean's heat kernel of the hyperbolic plane.
    """

    z0: float
    time: float

    def __post_init__(self) -> None:
        for name in ("z0", "time"):
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        if not abs(self.z0) <= 150:
            raise InputError(f"z0 = {self.z0}: expected an artanh of the correlation within 150")
        if not 0 < self.time <= 200:
            raise InputError(f"time = {self.time}: expected a time above 0, at most 200")

    @property
    def mean_sinh(self) -> float:
        """``E sinh z = e^t sinh z0``, where ``sinh z = rho/sqrt(1 - rho^2)``."""
        return math.exp(self.time) * math.sinh(self.z0)

    @property
    def mean_square_sinh(self) -> float:
        """``E sinh^2 z = [e^(3t) (3 sinh^2 z0 + 1) - 1]/3``."""
        grown = math.exp(3 * self.time) * math.sinh(self.z0) ** 2
        return grown + math.expm1(3 * self.time) / 3

    def pdf(self, z: ArrayLike) -> Array:
        r"""Density of ``z``.

            p(z) = cosh z sqrt2 e^(-t/8) (2 pi t)^(-3/2)
                   int_|z - z0|^inf r e^(-r^2/2t) 4 K(m)/sqrt(cosh r + cosh(z + z0)) dr,
            1 - m = 2 cosh z cosh z0/(cosh r + cosh(z + z0)),

        ``K`` the complete elliptic integral: the heat kernel integrated along the geodesic. By 80
        nodes of Gauss and Laguerre in ``r^2/2t``; 0 beyond ``|z - z0| = 300``, where less than
        e^-100 lies.
        """
        from scipy.special import ellipkm1, roots_laguerre

        asked = as_numbers("z", z)[..., None]
        place = np.clip(asked, self.z0 - 300, self.z0 + 300)
        node, weight = roots_laguerre(80)
        apart = (place - self.z0) ** 2
        far = np.cosh(np.sqrt(apart + 2 * self.time * node)) + np.cosh(place + self.z0)
        beside = 2 * np.cosh(place) * math.cosh(self.z0)
        inner = (4 * ellipkm1(beside / far) / np.sqrt(far)) @ weight
        front = math.sqrt(2) * math.exp(-self.time / 8) / (2 * math.pi) ** 1.5
        fall = np.exp(-apart[..., 0] / (2 * self.time)) / math.sqrt(self.time)
        density = front * fall * np.cosh(place[..., 0]) * inner
        return np.where(place[..., 0] == asked[..., 0], density, 0.0)

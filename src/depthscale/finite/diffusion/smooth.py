r"""Shaped smooth networks: ``phi_s(x) = s phi(x/s)``, ``s = a sqrt n``, at depth ``l = n t``.

With ``phi(0) = 0``, ``phi'(0) = 1`` and derivatives at 0, the Gram matrix of m inputs obeys the
equation of ``shaped`` with the drift (2206.02768, theorem 3.9)

    b^ab = a^-2 { phi''^2/4 [V^aa V^bb + V^ab (2 V^ab - 3)] + phi'''/2 V^ab (V^aa + V^bb - 2) }.

One input closes:

    dV = b V (V - 1) dt + sqrt2 V dB,     b = (3/4 phi''^2 + phi''')/a^2.

Its solution is explicit (derived here): with ``G = exp(sqrt2 B - (b + 1) t)``

    V_t = G_t/(1/V_0 - b int_0^t G ds),

so that it explodes, with positive probability, if and only if ``b > 0``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Undefined
from depthscale.finite.diffusion.covariance import LENGTH, CovarianceLimit, checked_times
from depthscale.finite.diffusion.equation import Equation, Reading
from depthscale.theory.activation import activation
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number, as_numbers

if TYPE_CHECKING:
    from depthscale.theory.functions.function import Activation

_INSTANT = 1e7
"""``b V`` from which what is left to infinity, ``1/(b V)``, counts as no time."""

_TINY = np.finfo(float).tiny

_LARGEST = 200.0
"""The largest ``b V0`` whose law of explosion is inverted; beyond, it is nearly a step in time."""

_NODES = (32, 128)
"""Fewest and most nodes of Talbot's contour; rounding grows as ``e^(0.17 nodes)``."""


class Gamma(NamedTuple):
    """A gamma law: density proportional to ``x^(shape - 1) e^(-rate x)``."""

    shape: float
    rate: float


@dataclass(frozen=True)
class ShapedSmooth(Equation, CovarianceLimit):
    """One input of a shaped smooth network, and through ``sample_covariance`` any number.

    The coordinate is ``u = log V``, the time ``t = l/n``.

    Parameters
    ----------
    second, third:
        ``phi''(0)`` and ``phi'''(0)``, of an activation with ``phi(0) = 0`` and ``phi'(0) = 1``.
    a:
        The activation is used at scale ``s = a sqrt n``, a > 0.

    Raises
    ------
    InputError
        Numbers that are not finite or larger than 1e6, or ``a`` below 1e-6.

    Examples
    --------
    >>> round(ShapedSmooth.of("tanh", a=1.0).b, 9)
    -2.0
    >>> ShapedSmooth(second=0.0, third=1.0, a=1.0).explosion(1.0, [0.5, 1.0]).round(4)
    array([0.0266, 0.1418])
    """

    second: float
    third: float
    a: float

    def __post_init__(self) -> None:
        for name in ("second", "third", "a"):
            value = as_number(name, getattr(self, name))
            if not abs(value) <= 1e6 or (name == "a" and value < 1e-6):
                kind = "a finite number, from 1e-6 to 1e6" if name == "a" else "a finite number"
                raise InputError(f"{name} is {value!r}; expected {kind}")
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, activation_: Any, a: float) -> Self:
        """The limit of an activation, from its own derivatives at 0.

        Parameters
        ----------
        activation_:
            Anything that ``activation()`` accepts, smooth at 0.
        a:
            See the class.

        Raises
        ------
        InputError
            An activation with a break at 0, ``phi(0) != 0`` or ``phi'(0) != 1``, with the reason.
        """
        phi = activation(activation_)
        if any(place == 0 for place in (*phi.breaks, *phi.jumps)):
            raise InputError(
                f"activation {phi} has a break at 0, so that it keeps its kink at any scale:"
                " expected a smooth one; take ShapedReLU for two slopes that meet at 0"
            )
        value, slope = float(phi(0.0)), float(phi.derivative(0.0))
        if abs(value) > 1e-9 or abs(slope - 1) > 1e-7:
            raise InputError(
                f"activation {phi} has phi(0) = {value:.6g} and phi'(0) = {slope:.6g}: expected 0"
                " and 1, without which s phi(x/s) does not approach the identity; shift and scale"
                " it, for example lambda x: (f(x) - f(0))/f'(0)"
            )
        return cls(float(phi.second_derivative(0.0)), _third(phi), a)

    @property
    def b(self) -> float:
        """``(3/4 phi''^2 + phi''')/a^2``: the length explodes if and only if it is above 0."""
        return (0.75 * self.second**2 + self.third) / self.a**2

    # The equation of one input -------------------------------------------------------------------

    @property
    def noise(self) -> float:
        """``sqrt 2``."""
        return math.sqrt(2)

    @property
    def readings(self) -> Mapping[str, Reading]:
        """``V`` and ``log_V``."""
        return LENGTH

    def drift(self, u: Array) -> Array:
        """``b (V - 1) - 1`` of ``log V``."""
        with np.errstate(over="ignore"):
            return np.asarray(self.b * np.expm1(u) - 1)

    @property
    def explodes_at(self) -> float:
        """The ``log V`` from which infinity is ``1/(b V) = 1e-7`` away; ``inf`` for b <= 0."""
        return math.log(_INSTANT / self.b) if self.b > 0 else math.inf

    def start(self, v0: float) -> float:
        """``log V_0`` of a mean square above 0."""
        value = as_number("v0", v0)
        if not 0 < value < math.inf:
            raise InputError(f"v0 = {v0!r}: expected a finite mean square above 0")
        return math.log(value)

    def explosion(self, v0: float, times: ArrayLike) -> Array:
        r"""Probability of having exploded by each time, without sampling.

        ``P(b V_0 int_0^t G ds > 1)``. The Laplace transform of the time of explosion solves
        Kummer's equation: with ``x = b V_0`` and ``kappa (kappa - 1 - b) = lambda``,

            E e^(-lambda tau) = Gamma(kappa - b)/Gamma(2 kappa - b) x^kappa e^(-x)
                                M(kappa - b, 2 kappa - b, x),

        which is inverted on Talbot's contour (derived here; absolute error below 1e-10).

        Parameters
        ----------
        v0:
            ``V_0 > 0``.
        times:
            At least 0; ``inf`` gives the probability that it ever explodes.

        Raises
        ------
        InputError
            Numbers out of range, or ``b V_0`` above 200: little is random then, and V follows
            ``V' = b V (V - 1)``, which explodes at ``t = -log(1 - 1/V_0)/b`` if ``V_0 > 1``.
        """
        start, t = math.exp(self.start(v0)), np.atleast_1d(as_numbers("times", times))
        if not np.all(t >= 0):
            raise InputError(f"times are {times!r}; expected times of at least 0")
        if self.b <= 0:
            return np.zeros(t.shape)
        x = self.b * start
        if x > _LARGEST:
            when = (
                f"explode near t = {-math.log1p(-1 / start) / self.b:.3g}"
                if start > 1
                else "shrink"
            )
            raise InputError(
                f"b V0 = {x:g}: expected at most {_LARGEST:g}; beyond, little is random: without"
                f" noise it would {when}, and it explodes at all with probability"
                f" {self.ever_explodes(v0):.3g}; take the density of this equation for its law"
            )
        found = np.full(t.shape, self.ever_explodes(v0))
        inside = np.isfinite(t)
        found[inside] = [_by(float(time), self.b, x) for time in t[inside]]
        return found

    def ever_explodes(self, v0: float) -> float:
        """``P(b + 1, b V_0)``, the regularised lower incomplete gamma function; 0 for b <= 0.

        By reversal of time ``int_0^t G`` has the law of ``Y_t``, ``dY = (1 - b Y) dt + sqrt2 Y dB``
        from 0, and ``1/Y`` settles at a gamma law of shape ``b + 1`` (derived here).
        """
        from scipy.special import gammainc

        start = math.exp(self.start(v0))
        return float(gammainc(self.b + 1, self.b * start)) if self.b > 0 else 0.0

    @property
    def stationary(self) -> Gamma | Undefined:
        """The law at which V settles: ``Gamma(|b| - 1, rate |b|)`` for ``b < -1``."""
        if self.b < -1:
            return Gamma(-self.b - 1, -self.b)
        if self.b > 0:
            return Undefined(f"b = {self.b:g} > 0: V goes to 0 or explodes")
        return Undefined(f"b = {self.b:g}, not below -1: fluctuations take V to 0")

    def mean_inverse(self, v0: float, time: float) -> float | Undefined:
        """``E 1/V = e^(kt)/V_0 - b (e^(kt) - 1)/k``, ``k = b + 2``, for ``b <= 0``.

        ``1/V`` is linear: ``d(1/V) = [k/V - b] dt - sqrt2/V dB``.
        """
        start = math.exp(self.start(v0))
        if self.b > 0:
            return Undefined(f"b = {self.b:g} > 0: 1/V ends at 0, where V explodes")
        k, time = self.b + 2, float(checked_times(time)[0])
        if k * time > 700:
            return Undefined(f"E 1/V = e^{k * time:.4g} is beyond float64")
        return math.exp(k * time) / start - self.b * (math.expm1(k * time) / k if k else time)

    # m inputs ------------------------------------------------------------------------------------

    def drift_of(self, v: Array) -> Array:
        """``b^ab`` of matrices ``V[a, b, ...]``."""
        length = np.einsum("aa...->a...", v)
        squares = length[:, None] * length[None] + v * (2 * v - 3)
        sums = v * (length[:, None] + length[None] - 2)
        return np.asarray((self.second**2 / 4 * squares + self.third / 2 * sums) / self.a**2)

    def flow(self, v: Array, time: float) -> Array:
        """``V' = b(V)`` for a short time, keeping V positive semidefinite; ``inf`` if it explodes.

        The lengths follow ``V' = b V (V - 1)`` exactly. Correlations follow, with
        ``w = phi''^2/4a^2``,

            rho' = w [sqrt(V^aa V^bb) (1 + 2 rho^2) - (3/2) (V^aa + V^bb) rho],

        whose linear part is taken exactly, as a congruence, and the rest, which is positive
        definite, by Heun's method of order 2.
        """
        length = np.einsum("aa...->a...", v)
        b, w = self.b, self.second**2 / (4 * self.a**2)
        # V' = V/room and int V dt = -log(room)/b for b > 0, with e^(bt) drawn out for b < 0
        fall = math.exp(-abs(b) * time)
        if b > 0:
            room, free = 1 + length * math.expm1(-b * time), 0.0
            gone = room <= 0
            there = length * fall / np.where(gone, 1.0, room)
        else:
            room, free = fall - length * math.expm1(b * time), time
            gone = np.zeros(length.shape, dtype=bool)
            there = length / np.maximum(room, _TINY)
        room = np.where(gone, 1.0, np.maximum(room, _TINY))
        if w == 0:
            scale = np.sqrt(np.divide(there, length, where=length > 0, out=np.zeros_like(length)))
            new = v * (scale[:, None] * scale[None])
        else:
            total = free - np.log(room) / b if b else length * time  # int V dt
            new = self._correlations(v, length, there, total, w, time)
        return np.where(np.any(gone, axis=0), np.inf, new)

    def _correlations(
        self, v: Array, length: Array, there: Array, total: Array, w: float, time: float
    ) -> Array:
        """The new V, from ``s_a s_b rho^ab``, ``s = exp(3/2 w int V dt)``."""
        root = np.sqrt(length)
        scale = root[:, None] * root[None]
        rho = np.divide(v, scale, where=scale > 0, out=np.ones_like(v))
        stretch = np.exp(1.5 * w * np.minimum(total, 200 / w))
        both = stretch[:, None] * stretch[None]
        end = np.sqrt(there)
        grown = end[:, None] * end[None]
        first = w * scale * (1 + 2 * rho**2)
        guess = (rho + time * first) / both
        second = w * grown * both * (1 + 2 * np.clip(guess, -1, 1) ** 2)
        mixed = rho + time / 2 * (first + second)
        norm = 1 / np.sqrt(np.einsum("aa...->a...", mixed))
        return np.asarray(mixed * (norm[:, None] * norm[None]) * grown)

    def layer(self, rate: float) -> MeanField:
        """A layer of the network itself for a polynomial ``x + phi'' x^2/2 + phi''' x^3/6``.

        Parameters
        ----------
        rate:
            The width n for the stochastic limit, the depth d for the deterministic one.
        """
        number = as_number("rate", rate)
        if not 0 < number < math.inf:
            raise InputError(f"rate = {rate!r}: expected the width or the depth, above 0")
        s2 = self.a**2 * number
        curved, cubic = self.second / (2 * math.sqrt(s2)), self.third / (6 * s2)
        square = 1 + 3 * curved**2 + 6 * cubic + 15 * cubic**2
        phi = activation(f"polynomial(0, 1, {curved!r}, {cubic!r})")
        return MeanField(phi, 1 / math.sqrt(square))


def _third(phi: Activation) -> float:
    """``phi'''(0)`` from symmetric differences of ``phi''``, extrapolated."""
    steps = 0.02 * 0.5 ** np.arange(4)
    row = (phi.second_derivative(steps) - phi.second_derivative(-steps)) / (2 * steps)
    for order in range(1, 4):
        row = row[1:] + (row[1:] - row[:-1]) / (4**order - 1)
    return float(row[0])


def _by(time: float, b: float, x: float) -> float:
    """Probability of an explosion by ``time``: the transform over lambda on Talbot's contour.

    Midpoint rule on ``z = N (0.5017 w cot(0.6407 w) - 0.6122 + 0.2645i w)``, the constants of
    Trefethen, Weideman and Schmelzer (BIT 46, 2006); one half of it, for conjugate values.
    """
    from scipy.special import polygamma

    if time == 0:
        return 0.0
    # the narrower the law of log int G, the more nodes
    width = math.sqrt(min(2 * time / 3, float(polygamma(1, b + 1))))
    nodes = 2 * min(max(math.ceil(3.2 / width), _NODES[0] // 2), _NODES[1] // 2)
    w = (np.arange(nodes // 2) + 0.5) * 2 * math.pi / nodes
    turn = 0.6407 * w
    z = nodes * (0.5017 * w / np.tan(turn) - 0.6122 + 0.2645j * w)
    slope = 0.5017 * (1 / np.tan(turn) - turn / np.sin(turn) ** 2) + 0.2645j
    terms = np.exp(z) / z * slope * _transform(z / time, b, x)
    return min(max(2 * float(np.sum(terms).imag), 0.0), 1.0)


def _transform(rate: Array, b: float, x: float) -> Array:
    """``E e^(-rate tau)`` for complex rates, by Kummer's series, whose terms do not alternate."""
    from scipy.special import loggamma

    kappa = ((1 + b) + np.sqrt((1 + b) ** 2 + 4 * rate)) / 2
    upper, lower = kappa - b, 2 * kappa - b
    term = np.full_like(kappa, math.exp(-x))
    total, k = term.copy(), 0
    while k < x or np.any(np.abs(term) > 1e-17 * np.abs(total)):
        term *= (upper + k) / (lower + k) * (x / (k + 1))
        total += term
        k += 1
    return np.asarray(np.exp(loggamma(upper) - loggamma(lower) + kappa * math.log(x)) * total)

r"""One layer of a network of two slopes: its correlation, and how that scatters at width n.

``phi(x) = plus max(x, 0) + minus min(x, 0)`` without bias does not care about lengths, so the
correlation ``rho`` of a pair is a Markov chain by itself. Given the covariance of one layer, its n
units are independent Gaussian pairs ``(g_1, g_2)`` and the next correlation is the cosine of the
``phi(g)``. The coordinate is ``z = artanh rho = log cot(theta/2)``, ``theta = arccos rho``.

**Nothing cancels.** With ``phi(x) = a x + b |x|`` and the independent ``u = (g_1 + g_2)/2`` and
``v = (g_1 - g_2)/2``, the half sum and half difference of the activations are

    |u| > |v|:   s = (a + b sgn u) u,   t = (a + b sgn u) v
    |u| < |v|:   s = a u + b |v|,       t = a v + b sgn(v) u

so every even moment of ``s, t`` is a sum of positive integrals over an angle, each of them of a
trigonometric polynomial of degree 6 at most, that a Gauss rule does to rounding. Near alignment
``t`` is small and near opposition ``s`` may be, but each is measured in its own unit. No series
and no tables are needed, from ``1 - |rho| = 1e-290`` on one side to that on the other.

**The step.** Let ``S, T, W`` be the means over the n units of ``s^2/E s^2, t^2/E t^2`` and
``s t/sqrt(E s^2 E t^2)``. The next correlation is, exactly,

    sinh z' = sinh(z_0 + r)/sqrt(1 - W^2/(S T)),   r = log(S/T)/2,   z_0 = artanh f,

with ``f = E phi(g_1) phi(g_2)``. ``step`` expands its moments in 1/n (derived here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.theory.activation import activation
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number

FARTHEST = 330.0
"""Beyond this ``|z|`` a step only depends on z by a shift; squares of e^-z leave float64 at 350."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_RADIAL = {2: 2.0, 4: 8.0, 6: 48.0}
"""``E r^k`` of a Gaussian pair of radius r."""


class UnitMoments(NamedTuple):
    """Moments ``K_ij = E[phi(g_1)^i phi(g_2)^j]`` of one unit, for ``E phi^2 = 1``.

    ``f = K11`` is the next correlation at infinite width; ``eps = 1 - f`` and ``coeps = 1 + f``
    have their full relative accuracy.
    """

    f: Array
    eps: Array
    coeps: Array
    k22: Array
    k31: Array
    k40: Array

    @property
    def drift(self) -> Array:
        """``n E[rho' - f]``, to leading order: ``(f/4)(3 K40 + K22) - K31``."""
        return self.f / 4 * (3 * self.k40 + self.k22) - self.k31

    @property
    def variance(self) -> Array:
        """``n Var rho'``, to leading order: ``K22 (1 + f^2/2) + f^2 K40/2 - 2 f K31``.

        It cancels near alignment; ``Step.variance`` of z, which is this over ``(1 - f^2)^2``, does
        not.
        """
        square = self.f**2
        return self.k22 * (1 + square / 2) + square * self.k40 / 2 - 2 * self.f * self.k31


class Step(NamedTuple):
    """Moments of ``z'`` behind n units: ``z_0``, and the coefficients of ``1/n`` and ``1/n^2``.

    ``mean = z_0 + m_1/n + m_2/n^2``, ``variance = v_1/n + v_2/n^2``, third cumulant ``c_2/n^2``;
    the fourth cumulant is of order ``1/n^3``. Beyond that order the tails of the two series are
    taken as geometric with the ratio ``v_2/(v_1 n)``, as if some units did not count: exact for
    ``1/(n - 2)``, the variance of an identity's ``z'``, and four times closer than nothing near
    alignment.
    """

    z0: Array
    m1: Array
    m2: Array
    v1: Array
    v2: Array
    c2: Array

    def ratio(self, n: float) -> Array:
        """``v_2/(v_1 n)`` within [0, 1/2]: above a tenth or so the expansion is a poor one."""
        some = self.v1 > 0
        ratio = np.divide(self.v2, self.v1 * n, out=np.zeros_like(self.v1), where=some)
        return np.clip(ratio, 0.0, 0.5)

    def mean(self, n: float) -> Array:
        """``E z'`` to order 1/n^2."""
        return np.asarray(self.z0 + self.m1 / n + self.m2 / n**2 / (1 - self.ratio(n)))

    def variance(self, n: float) -> Array:
        """``Var z'`` to order 1/n^2; not below ``v_1/(2 n)`` where n is too small for the order."""
        variance = self.v1 / n + self.v2 / n**2 / (1 - self.ratio(n))
        return np.maximum(variance, self.v1 / (2 * n))

    def skewness(self, n: float) -> Array:
        """``c_2/(sqrt(n) v_1^1.5)``, or over the variance where that is far above ``v_1/n``."""
        variance = np.maximum(self.v1 / n, self.variance(n) / 4)
        some = variance > 0
        return np.divide(self.c2 / n**2, variance**1.5, out=np.zeros_like(variance), where=some)


@dataclass(frozen=True)
class PiecewiseLinear:
    """A bias-free activation of two slopes, scaled to ``E phi(g)^2 = 1``.

    Parameters
    ----------
    plus, minus:
        Slopes above and below 0; only their ratio matters. (1, 0) is ReLU, (1, -1) the absolute
        value, (1, 1) the identity.

    Raises
    ------
    InputError
        Slopes that are no finite numbers, or both 0.

    Examples
    --------
    >>> relu = PiecewiseLinear(1, 0)
    >>> step = relu.step(0.0)  # orthogonal inputs
    >>> f"{np.tanh(step.z0):.6f} {step.mean(256) - step.z0:+.6f} {step.variance(256)**0.5:.6f}"
    '0.318310 +0.001894 0.051582'
    """

    plus: float
    minus: float

    def __post_init__(self) -> None:
        for name in ("plus", "minus"):
            number = as_number(name, getattr(self, name))
            if not math.isfinite(number):
                raise InputError(f"{name} = {number}: expected a finite slope")
            object.__setattr__(self, name, number)
        if self.plus == self.minus == 0:
            raise InputError("both slopes are 0: expected at least one that lets signals through")

    @classmethod
    def of(cls, spec: Any) -> Self:
        """From anything that ``activation()`` accepts.

        Raises
        ------
        InputError
            An activation that is not made of two slopes that meet in (0, 0).
        """
        phi = activation(spec)
        if phi.degree != 1:
            raise InputError(
                f"{phi.name} is not made of two slopes that meet at 0: expected relu, leaky_relu,"
                " shaped_relu, abs, identity or the like; other activations are sampled with"
                " Ensemble"
            )
        plus, below = phi(np.array([1.0, -1.0]))
        return cls(float(plus), -float(below))

    @property
    def _parts(self) -> tuple[float, float]:
        """``a`` and ``b`` of ``phi(x) = a x + b |x|``, scaled."""
        a, b = (self.plus + self.minus) / 2, (self.plus - self.minus) / 2
        size = math.hypot(a, b)
        return a / size, b / size

    @property
    def noise(self) -> float:
        """``M = 2 (1 + alpha^4)/(1 + alpha^2)^2``: ``Var log eps`` grows by ``4 M/n`` a layer.

        This is near alignment; 1 for the identity and the absolute value, 2 for ReLU.
        """
        a, b = self._parts
        return 1 + 4 * a**2 * b**2

    def moments(self, z: ArrayLike) -> UnitMoments:
        """Moments of one unit at any ``z = artanh rho``, infinite ones included."""
        units = _units(*self._parts, z)
        s2, t2 = units.s2, units.t2
        s4, t4 = units.mean(4, 0) * s2**2, units.mean(0, 4) * t2**2
        mixed = units.mean(2, 2) * s2 * t2
        return UnitMoments(
            s2 - t2, 2 * t2, 2 * s2, s4 - 2 * mixed + t4, s4 - t4, s4 + 6 * mixed + t4
        )

    def step(self, z: ArrayLike) -> Step:
        r"""Moments of the next ``z'`` at any finite ``z``, exact to order ``1/n^2``.

        With ``p = s^2 - 1, q = t^2 - 1, w = s t`` of one unit (in their own units) and the
        expansion of the module's ``z'`` to fourth order in their means. To leading order

            m_1 = -(Var p - Var q)/4 + tanh(z_0) Var w/2,   v_1 = Var(p - q)/4.
        """
        near = np.clip(np.asarray(z, dtype=float), -FARTHEST, FARTHEST)
        units = _units(*self._parts, near)
        shift = np.asarray(z, dtype=float) - near
        z0 = (np.log(units.s2) - np.log(units.t2)) / 2
        z0 = z0 + np.where(np.abs(z0) > FARTHEST - 30, np.sign(z0) * np.abs(shift), 0.0)
        return Step(z0, *_expansion(units, np.tanh(z0), np.cosh(np.clip(z0, -300, 300)) ** -2.0))


class _Units(NamedTuple):
    """``E s^2, E t^2`` of one unit; by angle the squares over these, and weights."""

    s2: Array  # [...]
    t2: Array
    sums: Array  # [..., node]
    gaps: Array
    weight: Array

    def mean(self, i: int, j: int) -> Array:
        """``E s^i t^j/(E s^2)^(i/2) (E t^2)^(j/2)`` for even ``i`` and ``j``, up to degree 6."""
        product = self.weight
        for factor in (self.sums,) * (i // 2) + (self.gaps,) * (j // 2):
            product = product * factor
        return np.asarray(_RADIAL[i + j] * product.sum(axis=-1))

    @property
    def contrast(self) -> Array:
        """Variance of ``s^2 - t^2``, each in its own unit, as a sum of squares."""
        return np.asarray(_RADIAL[4] * (self.weight * (self.sums - self.gaps) ** 2).sum(axis=-1))


def _units(a: float, b: float, z: ArrayLike) -> _Units:
    """The rule over the angle of ``(u, v)``, each in units of its deviation.

    The three pieces are ``|u| > |v|`` with u above 0 and below, and ``|u| < |v|``, whose two halves
    have the same even moments.
    """
    z = np.asarray(z, dtype=float)[..., None]
    with np.errstate(over="ignore"):
        half = np.arctan(np.exp(-z))  # theta/2
        rest = np.arctan(np.exp(z))
        cos, sin = 1 / np.sqrt(1 + np.exp(-2 * z)), 1 / np.sqrt(1 + np.exp(2 * z))
    place = (1 + _NODES) / 2
    inner, outer = rest * place, half * _NODES
    s = cos * np.cos(inner), a * cos * np.sin(outer) + b * sin * np.cos(outer)
    t = sin * np.sin(inner), a * sin * np.cos(outer) + b * cos * np.sin(outer)
    share = rest * _WEIGHTS / (2 * math.pi), half * _WEIGHTS / math.pi
    squares = [
        np.concatenate([((a + b) * x) ** 2, ((a - b) * x) ** 2, y**2], -1) for x, y in (s, t)
    ]
    weight = np.concatenate([share[0], share[0], share[1]], axis=-1)
    means = [_RADIAL[2] * np.sum(weight * x, axis=-1) for x in squares]
    sums, gaps = (
        np.divide(x, mean[..., None], out=np.zeros_like(x), where=mean[..., None] > 0)
        for x, mean in zip(squares, means, strict=True)
    )
    return _Units(means[0], means[1], sums, gaps, weight)


def _expansion(units: _Units, tanh: Array, sech2: Array) -> tuple[Array, ...]:
    """``m_1, m_2, v_1, v_2, c_2`` of ``z'``.

    To fourth order in the means ``P, Q, W`` of ``p, q, w``, with ``d = P - Q``,

        z' - z_0 = log((1 + P)/(1 + Q))/2 + (k/2) tanh(z_0 + r) + k^2 (3 tanh - tanh^3)/8,
        k = W^2 (1 - P - Q + P^2 + P Q + Q^2),

    and ``E XY = c_xy/n``, ``E XYZ = c_xyz/n^2``, ``E X Y Z V = (three pairings)/n^2``.
    """
    m40, m22, m04 = units.mean(4, 0), units.mean(2, 2), units.mean(0, 4)
    pp, pq, qq, ww = m40 - 1, m22 - 1, m04 - 1, m22
    ppp = units.mean(6, 0) - 3 * m40 + 2
    ppq = units.mean(4, 2) - m40 - 2 * m22 + 2
    pqq = units.mean(2, 4) - m04 - 2 * m22 + 2
    qqq = units.mean(0, 6) - 3 * m04 + 2
    pww, qww = units.mean(4, 2) - m22, units.mean(2, 4) - m22
    dd, dp, dq = units.contrast, pp - pq, pq - qq

    m1 = -(pp - qq) / 4 + tanh * ww / 2
    m2 = (ppp - qqq) / 6 - 3 * (pp**2 - qq**2) / 8
    m2 = m2 + (-tanh * (pww + qww) + sech2 * (pww - qww) / 2) / 2
    m2 = m2 + ww * (tanh * (pp + pq + qq) - 3 * sech2 * (pp - qq) / 4 - tanh * sech2 * dd / 4) / 2
    m2 = m2 + 3 * ww**2 * (3 * tanh - tanh**3) / 8

    v1 = dd / 4
    # 2 E d1 d2, with d1 = d/2 and d2 = -(P^2 - Q^2)/4 + tanh W^2/2
    first = -(ppp - ppq - pqq + qqq) / 4 + tanh * (pww - qww) / 2
    # E d2^2
    square = (3 * pp**2 - 2 * (pp * qq + 2 * pq**2) + 3 * qq**2) / 16
    square = square - tanh * ww * (pp - qq) / 4 + 3 * tanh**2 * ww**2 / 4
    # 2 E d1 d3, with d3 = (P^3 - Q^3)/6 + W^2 (-tanh (P + Q) + sech2 d/2)/2
    third = (dp * pp - dq * qq) / 2 + ww * (-tanh * (pp - qq) + sech2 * dd / 2) / 2
    v2 = first + square + third - m1**2

    cubes = ppp - 3 * ppq + 3 * pqq - qqq
    # E d1^2 d2 less what belongs to the mean: P^2 - Q^2 pairs with d twice
    bend = -(dp**2 - dq**2) / 8
    c2 = cubes / 8 + 3 * bend
    return m1, m2, v1, v2, c2

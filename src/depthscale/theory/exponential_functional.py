r"""The mean logarithm of the integral of a geometric Brownian motion, and what follows from it.

    I_t = int_0^t exp(m u + sigma W_u) du,      G(t) = d/dt E log I_t.

The alignment equation is solved by such integrals (see ``transition``). In the time
``t = 4 t'/sigma^2`` and with ``nu = 2 m/sigma^2`` the integral is ``4/sigma^2`` times Yor's
``A^(nu)``, whose law at an exponential time of rate ``p`` is ``Beta(1, a)/(2 Gamma(b))``,
``a, b = (lambda +- nu)/2``, ``lambda = sqrt(2 p + nu^2)`` (M. Yor, Adv. Appl. Prob. 24 (1992) 509).
The mean of its logarithm is a sum of digamma functions, so that for ``t' > 0``

    G(t') = inverse Laplace transform of  -psi(1 + a(p)) - psi(b(p)),

which behaves as ``1/t'`` at small times. (The last step is derived here.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number, as_numbers, whole

_POINTS = 26
"""Points of the contour: eight digits in double precision; with more, rounding costs as much."""


def log_integral_growth(
    drift: float, variance: float, time: ArrayLike, derivative: int = 0
) -> Array:
    r"""``G = d/dt E log int_0^t exp(m u + sigma W_u) du``, or a derivative of it in ``t``.

    To eight digits at any time: ``1/t + m/2 + sigma^2/12 + O(t)`` early; late it goes to ``m``
    for ``m > 0``, falls as ``sigma/sqrt(2 pi t)`` for ``m = 0`` and as
    ``t^(-3/2) exp(-m^2 t/(2 sigma^2))`` for ``-sigma^2 < m < 0``.

    Parameters
    ----------
    drift, variance:
        ``m`` and ``sigma^2 > 0``.
    time:
        ``t > 0``, any shape.
    derivative:
        How often it is differentiated, 0 or more.

    Raises
    ------
    InputError
        Numbers out of range.

    Examples
    --------
    >>> late = log_integral_growth(0.0, 4.0, 1e8)
    >>> round(float(late / np.sqrt(4.0 / (2 * np.pi * 1e8))), 3)
    1.0
    """
    times = _YorTime.of(drift, variance, time)
    order, nu = whole("derivative", derivative, 0), times.nu
    # the rightmost singularity in p: poles of psi(b) at 0 for nu > 0 and of psi(1 + a) at
    # 2 + 2 nu for nu < -2; else the branch point of lambda
    edge = 0.0 if nu > 0 else 2 + 2 * nu if nu < -2 else -(nu**2) / 2
    return times.inverse(lambda p: p**order, edge) / times.unit ** (1 + order)


def log_integral(drift: float, variance: float, time: ArrayLike) -> Array:
    r"""``E log int_0^t exp(m u + sigma W_u) du`` to eight digits; see ``log_integral_growth``.

    Examples
    --------
    >>> float(log_integral(0.0, 1e-12, 2.0).round(6)), round(math.log(2), 6)
    (0.693147, 0.693147)
    """
    times = _YorTime.of(drift, variance, time)
    found = times.inverse(lambda p: 1 / p, 0.0)
    return np.asarray(found - np.euler_gamma - math.log(2) + math.log(times.unit))


class _YorTime(NamedTuple):
    """Times ``t = unit t'``, and ``nu``."""

    scaled: Array
    unit: float
    nu: float

    @classmethod
    def of(cls, drift: float, variance: float, time: ArrayLike) -> _YorTime:
        m, square = as_number("drift", drift), as_number("variance", variance)
        if not (math.isfinite(m) and 0 < square < math.inf):
            raise InputError(
                f"drift {drift!r}, variance {variance!r}; expected a finite number and a positive"
                " one"
            )
        t = as_numbers("time", time)
        if not np.all((t > 0) & (t < math.inf)):
            raise InputError(f"time is {time!r}; expected finite times above 0")
        return cls(t * square / 4, 4 / square, 2 * m / square)

    def inverse(self, factor: Callable[[Array], Array], edge: float) -> Array:
        """Of ``-factor(p) (psi(1 + a) + psi(b))``, whose singularities have ``p <= edge``."""
        place, weight = _contour()
        p = place / self.scaled[..., None] + edge
        large = (np.sqrt(2 * p + self.nu**2) + abs(self.nu)) / 2
        small = p / (2 * large)  # a b = p/2: the smaller one without cancellation
        a, b = (large, small) if self.nu >= 0 else (small, large)
        image = -(_digamma(1 + a) + _digamma(b)) * factor(p)
        total = (weight * image).sum(axis=-1).real
        with np.errstate(under="ignore", over="ignore"):
            return np.asarray(np.exp(edge * self.scaled) * total / self.scaled)


def _digamma(z: Array) -> Array:
    from scipy.special import digamma

    return np.asarray(digamma(z))


def _contour() -> tuple[Array, Array]:
    """Places ``p t`` and weights of Talbot's contour around the negative axis.

    Source: the parameters of J. A. C. Weideman, SIAM J. Numer. Anal. 44 (2006) 2342.
    """
    theta = np.pi * (2 * np.arange(_POINTS) + 1 - _POINTS) / _POINTS
    theta = theta[theta > 0]  # the other half is the conjugate
    cot = 1 / np.tan(0.6407 * theta)
    place = _POINTS * (-0.4814 + 0.6122 * theta * cot + 0.2645j * theta)
    slope = 0.6122 * (cot - 0.6407 * theta / np.sin(0.6407 * theta) ** 2) + 0.2645j
    weight = 2 * np.exp(place) * slope / 1j
    return place, weight

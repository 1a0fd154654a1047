r"""Unshaped networks of both classes: the alignment equation for the solvers, entrance included.

    du = [theta + lam - A e^(beta u) + H e^-u] dt + s dB,     u = log y,  y = n^(1/beta) (1 - rho),

see ``theory.alignment_equation`` for its constants. Its law is read in any of the coordinates that
are in use: ``log q_t = u + log(t)/beta`` of arXiv 2310.12079, which is finite at an entrance from
infinity, ``y`` itself, ``x = y^-beta``, or the correlation at a given width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from depthscale.answers import InputError, Undefined
from depthscale.finite.diffusion.equation import IDENTITY, Entry, Equation, Reading, Timed
from depthscale.theory.diffusion import AlignmentEquation
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number


@dataclass(frozen=True)
class Unshaped(Equation):
    """The alignment equation in ``u = log y``.

    Parameters
    ----------
    equation:
        Its constants.
    scale:
        ``n^(1/beta)``, as ``ScaledLimit.scale`` gives it: the readings ``eps`` and ``rho`` exist
        then. They are those of the limit, which knows of no end at ``eps = 2``.

    Raises
    ------
    InputError
        A scale that is not positive.

    Examples
    --------
    >>> from depthscale.finite.diffusion.density import density
    >>> relu = AlignmentEquation(curvature=2 * 2**0.5 / (3 * np.pi), beta=0.5, variance=8.0, lam=-2)
    >>> law = density(Unshaped(relu), np.inf, [0.25, 0.5])
    >>> print(law.mean("log_q").value.round(4), law.mean("x").value.round(6))
    [3.4562 3.1112] [0.048671 0.128916]
    """

    equation: AlignmentEquation
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < as_number("scale", self.scale) < math.inf:
            raise InputError(f"scale is {self.scale!r}; expected n^(1/beta) > 0, or None")

    @property
    def noise(self) -> float:
        """``s``."""
        return self.equation.noise

    def drift(self, u: Array) -> Array:
        """``theta + lam - A e^(beta u) + H e^-u``."""
        return self.equation.drift(u)

    def entry(self, time: float) -> Entry:
        r"""Mean and variance of ``u`` at a small ``t`` after ``y = infinity``.

        With ``v = log(q_t/q_0)`` and ``mu = theta + lam`` the equation is

            dv = [(1 - e^(beta v))/(beta t) + mu + (H/q_0) t^(1/beta) e^-v] dt + s dB,

        whose moments are series in ``t``:

            E v   = (mu/2 - beta s^2/12) t + (beta^3 s^4/480 - beta mu^2/24) t^2
                    + H t^(1 + 1/beta)/(q_0 (2 + 1/beta)) + ...
            Var v = s^2 t/3 + (beta^2 s^4/360 - beta mu s^2/12) t^2 + ...

        Skewness is ``-(sqrt(27)/15) beta s sqrt(t)``. (Derived here.)

        Raises
        ------
        InputError
            A linear network, which does not come down from infinity.
        """
        law, t = self.equation, time
        entrance = law.entrance
        if isinstance(entrance, Undefined):
            raise InputError(f"no start at infinity: {entrance}; give a finite start")
        beta, variance, mu = law.beta, law.variance, law.late_rate
        mean = (mu / 2 - beta * variance / 12) * t
        mean += beta * (beta**2 * variance**2 / 480 - mu**2 / 24) * t**2
        mean += law.field * t ** (1 + 1 / beta) / (entrance * (2 + 1 / beta))
        spread = variance * t / 3
        spread += beta * variance * (beta * variance / 360 - mu / 12) * t**2
        return Entry(math.log(entrance) - math.log(t) / beta + mean, spread)

    @cached_property
    def readings(self) -> Mapping[str, Reading]:
        """``log_q``, ``q``, ``log_y``, ``y``, ``x``, and with a scale ``log_eps, eps, rho``."""
        beta, scale = self.equation.beta, self.scale
        known = {
            "log_q": Reading(
                of=lambda u, t: u + np.log(t) / beta,
                inverse=lambda x, t: x - np.log(t) / beta,
                slope=IDENTITY.slope,
                increasing=True,
                text="log of q_t = t^(1/beta) y",
            ),
            "q": _power(1.0, lambda t: t ** (1 / beta), "q_t = t^(1/beta) y"),
            "log_y": Reading(
                of=IDENTITY.of,
                inverse=IDENTITY.inverse,
                slope=IDENTITY.slope,
                increasing=True,
                text="log of y = n^(1/beta) (1 - rho)",
            ),
            "y": _power(1.0, lambda t: 1.0, "y = n^(1/beta) (1 - rho)"),
            "x": _power(-beta, lambda t: 1.0, "x = y^-beta"),
        }
        if scale is None:
            return known
        shift = math.log(scale)
        known["log_eps"] = Reading(
            of=lambda u, t: u - shift,
            inverse=lambda x, t: x + shift,
            slope=IDENTITY.slope,
            increasing=True,
            text="logarithm of the misalignment",
        )
        known["eps"] = eps = _power(
            1.0, lambda t: 1 / scale, "misalignment, one minus the correlation"
        )
        known["rho"] = Reading(
            of=lambda u, t: 1 - eps.of(u, t),
            inverse=lambda x, t: eps.inverse(1 - x, t),
            slope=lambda u, t: -eps.slope(u, t),
            increasing=False,
            text="correlation of the two signals",
        )
        return known


def _power(power: float, factor: Callable[[float], float], text: str) -> Reading:
    """The reading ``factor(t) e^(power u)``."""

    def of(u: Array, t: float) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(factor(t) * np.exp(power * u))

    def inverse(x: Array, t: float) -> Array:
        """``+-inf``, whichever ``x = 0`` is, for ``x <= 0``."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.maximum(x, 0.0) / factor(t)) / power)

    slope: Timed = lambda u, t: power * of(u, t)  # noqa: E731
    return Reading(of, inverse, slope, power > 0, text)

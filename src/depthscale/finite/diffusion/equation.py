r"""A one-dimensional diffusion in the coordinate that makes its noise constant.

Every limit of this room that follows two inputs is

    du = drift(u) dt + s dB,

with ``u = artanh rho`` for shaped networks and ``u = log y`` for unshaped ones. What people ask for
are readings of ``u``: the correlation, the misalignment, ``log q_t``. A reading grows or falls with
``u``, so quantiles pass through it, and it never needs a difference of nearly equal numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from depthscale.answers import InputError
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number

Timed = Callable[[Array, float], Array]
"""A function of ``u`` and the time at which it is read."""


@dataclass(frozen=True)
class Reading:
    """A strictly monotone function of the coordinate ``u``.

    Attributes
    ----------
    of, inverse:
        ``x = of(u, t)`` and ``u = inverse(x, t)``, which is ``+-inf`` for ``x`` out of range.
    slope:
        ``dx/du`` at ``(u, t)``; negative everywhere where ``increasing`` is False.
    increasing:
        Whether ``x`` grows with ``u``.
    text:
        What it is, for tables and figures.
    """

    of: Timed
    inverse: Timed
    slope: Timed
    increasing: bool
    text: str


class Entry(NamedTuple):
    """Mean and variance of ``u`` soon after a start at infinity, where its law is near normal."""

    mean: float
    variance: float


class Equation(ABC):
    """``du = drift(u) dt + noise dB``, homogeneous in time.

    A subclass names its readings, the first one being what is answered when none is asked for.
    """

    @property
    @abstractmethod
    def noise(self) -> float:
        """The constant ``s > 0``, per square root of the unit of time."""

    @property
    @abstractmethod
    def readings(self) -> Mapping[str, Reading]:
        """What can be read off, by name."""

    @abstractmethod
    def drift(self, u: Array) -> Array:
        """``E du/dt`` at ``u``, any shape."""

    def entry(self, time: float) -> Entry:
        """The law of ``u`` at a small ``time > 0`` after a start at ``enters_at``.

        Raises
        ------
        InputError
            Where infinity is no entrance of this equation.
        """
        raise InputError(
            f"{type(self).__name__} has no entrance at infinity: give a finite start"
            f" (asked for the law at t = {time:g} after it)"
        )

    @property
    def enters_at(self) -> float:
        """The infinity that ``entry`` starts from."""
        return np.inf

    @property
    def explodes_at(self) -> float:
        """The ``u`` from which infinity is reached in no time, or ``inf`` where it never is."""
        return np.inf

    def reading(self, name: str | None = None) -> Reading:
        """A reading by its name, or the first one; ``InputError`` with the names that exist."""
        known = self.readings
        if name is None:
            return next(iter(known.values()))
        if name not in known:
            raise InputError(f"reading {name!r} is unknown; expected one of {', '.join(known)}")
        return known[name]


IDENTITY = Reading(
    of=lambda u, t: u,
    inverse=lambda x, t: x,
    slope=lambda u, t: np.ones_like(u),
    increasing=True,
    text="the coordinate itself",
)


def _sech2(u: Array) -> Array:
    """``1 - tanh(u)^2`` without overflow or cancellation."""
    fall = np.exp(-2 * np.abs(u))
    return np.asarray(4 * fall / (1 + fall) ** 2)


def _misalignment(u: Array) -> Array:
    """``1 - tanh u = 2/(1 + e^(2u))``."""
    return np.asarray(2 * np.exp(-np.logaddexp(0.0, 2 * u)))


def _from_correlation(rho: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.arctanh(np.clip(rho, -1.0, 1.0)))


def _from_misalignment(eps: Array) -> Array:
    """``artanh(1 - eps) = log((2 - eps)/eps)/2``."""
    inside = np.clip(eps, 0.0, 2.0)
    with np.errstate(divide="ignore"):
        return np.asarray((np.log(2 - inside) - np.log(inside)) / 2)


CORRELATION = {
    "rho": Reading(
        of=lambda u, t: np.tanh(u),
        inverse=lambda x, t: _from_correlation(x),
        slope=lambda u, t: _sech2(u),
        increasing=True,
        text="correlation of the two signals",
    ),
    "eps": Reading(
        of=lambda u, t: _misalignment(u),
        inverse=lambda x, t: _from_misalignment(x),
        slope=lambda u, t: -_sech2(u),
        increasing=False,
        text="misalignment, one minus the correlation",
    ),
    "log_eps": Reading(
        of=lambda u, t: np.log(2.0) - np.logaddexp(0.0, 2 * u),
        inverse=lambda x, t: _from_misalignment(np.exp(x)),
        slope=lambda u, t: -2 / (1 + np.exp(-2 * u)),
        increasing=False,
        text="logarithm of the misalignment",
    ),
    "z": Reading(
        of=IDENTITY.of,
        inverse=IDENTITY.inverse,
        slope=IDENTITY.slope,
        increasing=True,
        text="artanh of the correlation",
    ),
}
"""The readings of ``u = artanh rho``."""


def start_of_correlation(rho: float | None = None, eps: float | None = None) -> float:
    """``u = artanh rho`` of a start given as correlation or, near alignment, as misalignment.

    Raises
    ------
    InputError
        Not exactly one of the two, a correlation outside [-1, 1] or at its ends, where the two
        signals stay as they are, or a misalignment outside (0, 2).
    """
    if (rho is None) == (eps is None):
        raise InputError("give the start as rho or as eps = 1 - rho, one of the two")
    if rho is not None:
        rho = as_number("rho", rho)
        if not -1 <= rho <= 1:
            raise InputError(f"rho = {rho}: expected a correlation in [-1, 1]")
        if abs(rho) == 1:
            raise InputError(
                f"rho = {rho:g}: two such signals are one line and its law is a point; expected a"
                " correlation inside (-1, 1), or eps for a start very near 1"
            )
        return float(np.arctanh(rho))
    assert eps is not None
    eps = as_number("eps", eps)
    if not 0 < eps < 2:
        raise InputError(f"eps = {eps}: expected a misalignment 1 - rho inside (0, 2)")
    return float(_from_misalignment(np.array(eps)))

r"""Where the cells of a moving grid end, at every time: ahead of the law's tails."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from depthscale.answers import InputError
from depthscale.finite.diffusion.equation import Equation
from depthscale.theory.gaussian import Array

_APART = 0.01
"""The difference of ``log t`` from which the rates of the ends are taken."""

_AHEAD = 0.7
"""How long, in ``log t``, an end is at the place of explosion before the law comes near."""

_FARTHEST = 1e15
"""A distance of the ends from the centre that is called infinity."""


class Start(NamedTuple):
    """A normal law at a small time."""

    time: float
    mean: float
    sd: float


class Ends(NamedTuple):
    """The two ends of the grid and how fast they move, per unit of ``log t``."""

    low: float
    high: float
    low_rate: float
    high_rate: float


class Frame:
    r"""The ends of the grid at every time: where the law's tails are negligible.

    For weak noise ``P(u_t near x) ~ exp(-S(x, t)/s^2)`` and a level line of ``S`` moves with
    ``x' = drift + dS/dx``. With ``S`` a parabola around the flow ``c' = drift(c)`` the line ``k``
    standard deviations away obeys

        x' = drift(x) +- s^2 k^2/(2 |x - c|),

    exact for a linear drift, ``|x - c|^2 = k^2 s^2 t`` for none. Elsewhere the parabola is an
    approximation: the march looks at what has reached the ends, and ``k`` is raised (see
    ``density``). An end that comes to ``explodes_at`` stays there and absorbs; since it would come
    in a sudden run, it is set there shortly before.

    Parameters
    ----------
    start:
        The law at the beginning.
    last:
        The last time.
    below, above:
        ``k`` for the two ends.
    """

    def __init__(
        self, equation: Equation, start: Start, last: float, below: float, above: float
    ) -> None:
        self._equation, self._below, self._above = equation, below, above
        self._top, self._origin = equation.explodes_at, start.mean
        self._exact = 1e-4 * start.sd
        begin, end = math.log(start.time), math.log(last)
        state = np.array([0.0, math.log(below * start.sd), math.log(above * start.sd)])
        self._free_span, self._free_path, came = self._path(self._free, (begin, end), state)
        self.absorbs_from = math.inf
        if came:
            self.absorbs_from = max(begin, self._free_span[1] - _AHEAD)
            state = self._free_path(self.absorbs_from)[:2]
            self._held_span, self._held_path, _ = self._path(
                self._held, (self.absorbs_from, end), state
            )

    def _path(
        self, rate: Callable[[float, Array], Array], span: tuple[float, float], state: Array
    ) -> tuple[tuple[float, float], Callable[[float], Array], bool]:
        """The times spanned, the state at any of them, and whether the upper end came to the top.

        Raises
        ------
        InputError
            An end that runs to infinity, or a drift that is no number.
        """
        from scipy.integrate import solve_ivp

        def comes(log_time: float, state: Array) -> float:
            high = self._origin + state[0] + math.exp(min(state[-1], 700.0))
            return float(high - self._top) if state.size == 3 and math.isfinite(self._top) else -1.0

        comes.terminal = True  # type: ignore[attr-defined]
        if comes(span[0], state) >= 0:
            return span, lambda _: state, True
        path = solve_ivp(
            rate,
            span,
            state,
            method="LSODA",
            dense_output=True,
            events=comes,
            rtol=1e-8,
            atol=np.array([self._exact, 1e-6, 1e-6])[: state.size],
        )
        if path.status == -1:
            raise self._lost(float(path.t[-1]))
        return (span[0], float(path.t[-1])), path.sol, path.status == 1

    @staticmethod
    def _lost(log_time: float) -> InputError:
        return InputError(
            f"at t = {math.exp(log_time):.3g} the law reaches infinity, or its drift is no number:"
            " expected a drift that is finite everywhere, and where infinity is reached an equation"
            " that says so (explodes_at)"
        )

    def _slow(self, centre: float) -> float:
        """Keeps the centre from passing the place of explosion."""
        return min(max(self._top - centre, 0.0), 1.0)

    def _rates(self, log_time: float, centre: float, gaps: Array) -> tuple[float, Array]:
        """Of the centre and of the two ends ``centre + gaps``, per unit of ``log t``."""
        time, noise = math.exp(log_time), self._equation.noise
        with np.errstate(over="ignore"):
            drift = self._equation.drift(np.append(centre, centre + gaps))
        if not np.all(np.abs(drift) < math.inf) or np.abs(gaps).max() > _FARTHEST:
            raise self._lost(log_time)
        reach = np.array([self._below, self._above])[: gaps.size]
        spread = noise**2 * reach**2 / (2 * gaps)
        return time * float(drift[0]) * self._slow(centre), time * (drift[1:] + spread)

    def _free(self, log_time: float, state: Array) -> Array:
        gaps = np.exp(np.minimum(state[1:], 700.0)) * np.array([-1.0, 1.0])
        centre, ends = self._rates(log_time, self._origin + float(state[0]), gaps)
        return np.append(centre, (ends - centre) / gaps)

    def _held(self, log_time: float, state: Array) -> Array:
        gap = -np.exp(np.minimum(state[1:], 700.0))
        centre, end = self._rates(log_time, self._origin + float(state[0]), gap)
        return np.append(centre, (end - centre) / gap)

    def at(self, log_time: float, absorbing: bool) -> Ends:
        """The ends at a time; ``absorbing`` tells which side of ``absorbs_from`` is meant.

        Any rate near the true one will do, since ``Motion`` follows it exactly; a difference of
        positions keeps still where a stiff drift would make much of their last digits.
        """
        earliest, latest = self._held_span if absorbing else self._free_span
        before = max(log_time - _APART, earliest)
        after = min(log_time + _APART, latest)
        low, high = self._positions(log_time, absorbing)
        first, last = self._positions(before, absorbing), self._positions(after, absorbing)
        low_rate, high_rate = (last - first) / (after - before)
        return Ends(float(low), float(high), float(low_rate), float(high_rate))

    def _positions(self, log_time: float, absorbing: bool) -> Array:
        state = (self._held_path if absorbing else self._free_path)(log_time)
        low = self._origin + (state[0] - math.exp(state[1]))
        high = self._top if absorbing else self._origin + (state[0] + math.exp(state[2]))
        return np.array([low, high])

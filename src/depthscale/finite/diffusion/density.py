r"""The law of a one-dimensional limit from its Fokker-Planck equation, without noise.

The equation is solved in the coordinate of constant noise on cells that move with the law (see
``moving``), twice: on N cells, and on N/2 cells of twice the width in steps of twice the length.
Both err by the square of the width and by the fourth power of the step, so their difference tells
the error, and extrapolation removes most of it (see ``law.DensityLaw``). N is the number of cells
that the tolerance needs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.finite.diffusion.equation import Equation
from depthscale.finite.diffusion.frame import Frame, Start
from depthscale.finite.diffusion.grid import Grid
from depthscale.finite.diffusion.law import DensityLaw
from depthscale.finite.diffusion.moving import March, Snapshot, explore, refine
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number, as_numbers

_REACH = 8.0
"""Standard deviations from the middle to the ends of the grid, at first."""

_WIDER = 1.3
"""How much more of them is tried when something has come to the ends."""

_WIDEST = 100.0
"""From here on a grid that still does not hold the tails is taken as it is."""

_EARLIER = 64
"""The march begins at least this many times before the first time asked for."""

_BENT = 1e-4
"""The skewness and excess that the law may have where the march begins as a normal one.

With what the noise adds later they fall as ``t^(-3/2)``, after an entrance as ``t^-5``.
"""

_BENT_AT_ENTRANCE = 1e-2

_TURNED = 0.05
"""The relative change of the law's width by the drift until then."""

_RESOLVED = 1e-9
"""The narrowest law, relative to where it is, whose cells float64 tells apart."""

_FIRST_CELLS = 512
_MOST_CELLS = 2**15


def density(
    equation: Equation, start: float, times: ArrayLike, *, tolerance: float = 1e-6
) -> DensityLaw:
    r"""The law of ``du = drift(u) dt + s dB`` at given times after a certain start.

    Parameters
    ----------
    equation:
        What is solved.
    start:
        ``u`` at time 0: a number below ``explodes_at``, or ``enters_at`` where the equation has an
        entrance there.
    times:
        Shape (T,), increasing, positive.
    tolerance:
        The largest error of the distribution function ``P(u <= x)`` on the finer grid, in
        [1e-9, 1e-2]. Answers are extrapolated and err by far less (1e-9 is usual at the default);
        the law's own error is of this size. It is kept unless that takes more than 32768 cells.

    Returns
    -------
    DensityLaw
        With ``escaped`` where the equation explodes.

    Raises
    ------
    InputError
        A start, times or a tolerance outside these ranges; a law too narrow for float64.

    Notes
    -----
    Positive, and of total probability 1 less what has exploded. The march begins with the normal
    law of the equation's Gaussian closure, at a time so early that what it leaves out is forgotten
    by the first time asked for.
    """
    asked = _checked_times(times)
    u0 = _checked_start(equation, start)
    accuracy = as_number("tolerance", tolerance)
    if not 1e-9 <= accuracy <= 1e-2:
        raise InputError(f"tolerance is {tolerance!r}; expected a number from 1e-9 to 1e-2")
    begin = _begin(equation, u0, float(asked[0]))
    cells, frame = _FIRST_CELLS, _Wide(equation, begin, float(asked[-1]))
    while True:
        coarse, fine = frame.solve(asked, cells, accuracy)
        error = _difference(fine, coarse.laws)
        if error <= accuracy or cells == _MOST_CELLS:
            break
        growth = min(1.1 * math.sqrt(error / accuracy), 8.0)
        cells = min(4 * math.ceil(cells * growth / 4), _MOST_CELLS)
    return DensityLaw(
        times=asked,
        readings=equation.readings,
        fine=tuple(_grid(law) for law in fine),
        coarse=tuple(_grid(law) for law in coarse.laws),
        solver=f"density on {cells} and {cells // 2} moving cells, {len(coarse.steps)} steps",
        explodes=math.isfinite(equation.explodes_at),
    )


def _checked_times(times: ArrayLike) -> Array:
    asked = as_numbers("times", times)
    if asked.ndim > 1 or asked.size == 0:
        raise InputError(f"times have shape {asked.shape}; expected one or more times in a row")
    asked = asked.ravel()
    if not np.all(np.isfinite(asked) & (asked > 0)):
        raise InputError(
            f"times are {times!r}; expected positive finite numbers: at t = 0 the law is the start"
        )
    if not np.all(np.diff(asked) > 0):
        raise InputError(f"times are {times!r}; expected increasing ones, each of them once")
    return asked


def _checked_start(equation: Equation, start: float) -> float:
    u0 = as_number("start", start)
    if math.isnan(u0) or (math.isinf(u0) and u0 != equation.enters_at):
        raise InputError(
            f"start is {start!r}; expected a number, or {equation.enters_at} where infinity enters"
        )
    top = equation.explodes_at
    if math.isfinite(top) and u0 >= top:
        raise InputError(
            f"start is {u0:g}, where this equation explodes at once; expected less than {top:g}"
        )
    return u0


class _Wide:
    """A frame that is made wider for good when something comes to its ends."""

    def __init__(self, equation: Equation, start: Start, last: float) -> None:
        self._equation, self._start, self._last = equation, start, last
        self._below = self._above = _REACH

    def solve(
        self, times: Array, cells: int, tolerance: float
    ) -> tuple[March, tuple[Snapshot, ...]]:
        """The march on half the cells, and the laws on all of them."""
        while True:
            frame = Frame(self._equation, self._start, self._last, self._below, self._above)
            march = explore(self._equation, frame, self._start, times, cells // 2, tolerance)
            held = max(march.below, march.above) <= tolerance / 1000
            if held or max(self._below, self._above) > _WIDEST:
                return march, refine(self._equation, self._start, march)
            self._below *= _WIDER if march.below > tolerance / 1000 else 1.0
            self._above *= _WIDER if march.above > tolerance / 1000 else 1.0


def _difference(fine: tuple[Snapshot, ...], coarse: tuple[Snapshot, ...]) -> float:
    """The estimated error of the finer distribution functions, the largest of all."""
    pairs = zip(fine, coarse, strict=True)
    return max(float(np.abs(np.cumsum(f.p)[1::2] - np.cumsum(c.p)).max()) / 3 for f, c in pairs)


def _grid(law: Snapshot) -> Grid:
    """Without the negative rounding that the time step leaves in the tails."""
    p = np.maximum(law.p, 0.0)
    return Grid(law.u, p * (law.p.sum() / p.sum()))


class _Moments(NamedTuple):
    """Coefficients of the drift in the Hermite polynomials of a normal law.

    ``first``, ``second``, ``third`` are ``E[drift He_k]/(k! sd)``: per unit of time, by how much
    the law shifts and is stretched, and at which rates skewness and excess arise.
    """

    mean: float
    first: float
    second: float
    third: float


def _moments(equation: Equation, mean: float, sd: float) -> _Moments:
    x, weight = np.polynomial.hermite_e.hermegauss(12)
    weight = weight / weight.sum()
    drift = equation.drift(mean + sd * x)
    first, second, third = x, (x**2 - 1) / 2, (x**3 - 3 * x) / 6
    return _Moments(
        float(weight @ drift), *(float(weight @ (drift * he)) / sd for he in (first, second, third))
    )


def _closure(equation: Equation, start: float, time: float) -> Start:
    """The normal law that the Gaussian closure has at a small time, by Runge and Kutta's rule.

    ``m' = E drift``, ``v' = s^2 + 2 Cov(u, drift)`` under ``N(m, v)``.
    """
    noise = equation.noise

    def slope(state: Array) -> Array:
        mean, variance = state
        at = _moments(equation, mean, math.sqrt(variance))
        return np.array([at.mean, noise**2 + 2 * at.first * variance])

    count = 8
    h = time / count
    drift = float(equation.drift(np.array([start]))[0])
    state = np.array([start + drift * h * 1e-6, noise**2 * h * 1e-6])
    h = (time - h * 1e-6) / count
    for _ in range(count):
        a = slope(state)
        b = slope(state + h / 2 * a)
        c = slope(state + h / 2 * b)
        d = slope(state + h * c)
        state = state + h / 6 * (a + 2 * b + 2 * c + d)
    return Start(time, float(state[0]), math.sqrt(state[1]))


def _begin(equation: Equation, start: float, first: float) -> Start:
    """A time at which the law is normal as nearly as matters, and that law.

    It is at most ``1/_EARLIER`` of the first time asked for, over which the noise covers what is
    left of the difference to a normal law.
    """
    time = first / _EARLIER
    law = _normal(equation, start, time)
    while law is None:
        time /= 4
        if time < 1e-60 * first:
            raise InputError(
                f"start is {start:g}, where the drift is no number or too steep to begin with;"
                " expected one that is smooth there"
            )
        law = _normal(equation, start, time)
    if not law.sd > _RESOLVED * abs(law.mean):
        raise InputError(
            f"at t = {time:g}, where this begins, the law around u = {law.mean:g} is narrower than"
            f" float64 tells apart; the first time asked for is {first:g}: ask for later ones"
        )
    return law


def _normal(equation: Equation, start: float, time: float) -> Start | None:
    """The normal law at a time, or None where the drift has already bent it."""
    if math.isinf(start):
        return _entered(equation, time)
    free = Start(time, start, equation.noise * math.sqrt(time))
    if not _certain(equation, free):
        return None
    law = _closure(equation, start, time)
    return law if _certain(equation, law) else None


def _certain(equation: Equation, law: Start) -> bool:
    """Whether the drift has changed a law little since it was a point."""
    at = _moments(equation, law.mean, law.sd)
    bent = max(abs(at.second), abs(at.third)) * law.time
    return bent <= _BENT and abs(at.first) * law.time <= _TURNED


def _entered(equation: Equation, time: float) -> Start | None:
    """The law after an entrance, where it is nearly normal and obeys its own equation.

    Per unit of ``log t`` its mean has to move by the mean drift, and its variance to grow by what
    drift and noise make.
    """
    apart = 0.01
    entry = equation.entry(time)
    before, after = equation.entry(time * math.exp(-apart)), equation.entry(time * math.exp(apart))
    if min(entry.variance, before.variance) <= 0:
        return None
    law = Start(time, entry.mean, math.sqrt(entry.variance))
    at = _moments(equation, law.mean, law.sd)
    bent = max(abs(at.second), abs(at.third)) * time
    moved = (after.mean - before.mean) / (2 * apart) - at.mean * time
    grown = (after.variance - before.variance) / (2 * apart)
    grown -= (equation.noise**2 + 2 * at.first * entry.variance) * time
    off = max(bent, abs(moved) / law.sd, abs(grown) / entry.variance)
    return law if off <= _BENT_AT_ENTRANCE else None

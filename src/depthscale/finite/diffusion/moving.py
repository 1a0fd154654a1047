r"""Finite volumes on a grid that moves and grows with the law, in logarithmic time.

A law that starts at a point, or at infinity, is narrow at first and travels many of its own widths.
So the cells move: their ends ``[low(t), high(t)]`` follow the drift's flow and the spread of the
noise, and between them the faces are evenly spaced. In ``theta = log t`` a point start and an
entrance from infinity look the same at every scale, hence steps of equal length serve all times.

The probabilities ``p_i`` of the moving cells obey ``dp/dtheta = t G(t) p``, where ``G`` exchanges
neighbours only. Through a face where the drift relative to it is ``v`` goes, per unit of time,

    up:  (D/h^2) [f(x) + x] p_i,    down:  (D/h^2) [f(x) - x] p_(i+1),    x = v h/(2D),  D = s^2/2.

``f(x) = x coth x`` is the flux of Scharfetter and Gummel (1969), whose stationary laws are exact on
the nodes but which diffuses by ``x^2/3`` too much. ``f = (1 + x^8)^(1/8)`` does not, so that means
and variances of linear drifts are exact, and needs fewer cells wherever the law travels over them
(2.5 times fewer where it explodes). Both are at least ``|x|``: rates are positive and what leaves a
cell enters another. ``G`` generates a Markov chain, whatever the width of the cells; the error is
of order ``h^2``. Time is advanced by the five-stage SDIRK method of order 4 of Hairer and Wanner,
Solving Ordinary Differential Equations II, Table IV.6.5: L-stable, every stage one tridiagonal
solve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from depthscale.answers import InputError
from depthscale.finite.diffusion.equation import Equation
from depthscale.finite.diffusion.frame import Ends, Frame, Start
from depthscale.finite.diffusion.grid import Grid
from depthscale.theory.gaussian import Array

_GAMMA = 0.25
_STAGES = (
    (),
    (1 / 2,),
    (17 / 50, -1 / 25),
    (371 / 1360, -137 / 2720, 15 / 544),
    (25 / 24, -49 / 48, 125 / 16, -85 / 12),
)
_PLACES = (1 / 4, 3 / 4, 11 / 20, 1 / 2, 1.0)
_ERROR = (-3 / 16, -27 / 32, 25 / 32, 0.0, 1 / 4)
"""Weights of the order-4 solution less those of the embedded one of order 3."""

_LONGEST = 1.0
_SHORTEST = 1e-9
"""The longest step in ``log t``, and one that is not gone below."""


@dataclass(frozen=True)
class Motion:
    """The grid during one step: its ends follow cubics in ``log t``, evaluated exactly."""

    begin: float
    end: float
    first: Ends
    last: Ends
    absorbing: bool

    @classmethod
    def of(cls, frame: Frame, begin: float, end: float) -> Motion:
        """The motion of a frame between two times, ``absorbs_from`` not being inside."""
        absorbing = begin >= frame.absorbs_from
        return cls(begin, end, frame.at(begin, absorbing), frame.at(end, absorbing), absorbing)

    @property
    def length(self) -> float:
        """The step in ``log t``."""
        return self.end - self.begin

    def at(self, place: float) -> Ends:
        """The ends at a fraction of the step."""
        x, back = place, 1 - place
        fall, rise = (1 + 2 * x) * back**2, (3 - 2 * x) * x**2
        turn = 6 * x * back / self.length

        def end(a: float, b: float, a_rate: float, b_rate: float) -> tuple[float, float]:
            value = a * fall + b * rise + self.length * x * back * (a_rate * back - b_rate * x)
            slope = turn * (b - a) + a_rate * back * (1 - 3 * x) + b_rate * x * (3 * x - 2)
            return value, slope

        first, last = self.first, self.last
        low, low_rate = end(first.low, last.low, first.low_rate, last.low_rate)
        high, high_rate = end(first.high, last.high, first.high_rate, last.high_rate)
        return Ends(low, high, low_rate, high_rate)


def nodes(ends: Ends, cells: int) -> Array:
    """The middles of the cells."""
    return ends.low + (ends.high - ends.low) * (np.arange(cells) + 0.5) / cells


def rates(
    equation: Equation, time: float, ends: Ends, cells: int, absorbing: bool
) -> tuple[Array, Array, float]:
    """Rates per unit of ``log t``: up and down between neighbours, and out of the last cell.

    Returns
    -------
    up, down:
        Shape (cells - 1,): from cell i to i + 1, and from i + 1 to i.
    out:
        What the upper end absorbs, of the last cell.
    """
    place = np.arange(1, cells + 1) / cells
    width = (ends.high - ends.low) / cells
    drift = equation.drift(ends.low + (ends.high - ends.low) * place)
    along = time * drift - (ends.low_rate + (ends.high_rate - ends.low_rate) * place)
    diffusion = time * equation.noise**2 / 2
    half = along * (width / (2 * diffusion))  # half the cell's Peclet number, v h/D
    half[-1] /= 2  # the end is half a cell from the last node
    both = _limited(half)
    scale = diffusion / width**2
    up, down = scale * (both + half), scale * (both - half)
    return up[:-1], down[:-1], 2 * float(up[-1]) if absorbing else 0.0


def _limited(x: Array) -> Array:
    """``(1 + x^8)^(1/8)``, not below ``|x|`` and without overflow."""
    size = np.abs(x)
    big = np.maximum(size, 1.0)
    power = np.square(np.minimum(size, 1.0) / big)
    power = np.square(np.square(power)) + 1.0
    return np.asarray(np.maximum(big * np.sqrt(np.sqrt(np.sqrt(power))), size))


def step(
    equation: Equation, motion: Motion, p: Array, begin: float = 0.0, end: float = 1.0
) -> tuple[Array, Array]:
    """The probabilities after one step, and their estimated error, both of shape (cells,).

    ``begin`` and ``end`` are fractions of the motion.
    """
    from scipy.linalg.lapack import dgtsv

    slopes: list[Array] = []
    length = motion.length * (end - begin)
    scale = _GAMMA * length
    solved = p
    for part, weights in zip(_PLACES, _STAGES, strict=True):
        place = begin + part * (end - begin)
        time = math.exp(motion.begin + place * motion.length)
        up, down, out = rates(equation, time, motion.at(place), p.size, motion.absorbing)
        diagonal = np.ones(p.size)
        diagonal[:-1] += scale * up
        diagonal[1:] += scale * down
        diagonal[-1] += scale * out
        known = _added(p, length, weights, slopes)
        *_, solved, _ = dgtsv(
            -scale * up,
            diagonal,
            -scale * down,
            known,
            overwrite_dl=1,
            overwrite_d=1,
            overwrite_du=1,
        )
        if not motion.absorbing:
            solved *= known.sum() / solved.sum()  # equal but for rounding, where rates are large
        slopes.append((solved - known) / scale)
    return solved, _added(np.zeros(p.size), length, _ERROR, slopes)


def _added(p: Array, length: float, weights: Sequence[float], slopes: Sequence[Array]) -> Array:
    total = p.copy()
    for weight, slope in zip(weights, slopes, strict=True):
        total += (length * weight) * slope
    return total


class Snapshot(NamedTuple):
    """Nodes and probabilities at one time."""

    u: Array
    p: Array


@dataclass(frozen=True)
class March:
    """The laws at the times asked for, and the steps that led there.

    Attributes
    ----------
    laws:
        One a time.
    steps, asked:
        The steps taken, and whether a law is asked for after each.
    below, above:
        What would lie in a fiftieth of the grid at the density of each end, the most after any
        step; 0 for an absorbing end.
    """

    laws: tuple[Snapshot, ...]
    steps: tuple[Motion, ...]
    asked: tuple[bool, ...]
    below: float
    above: float


def begin(start: Start, ends: Ends, cells: int) -> Array:
    """Probabilities of the cells of a normal law; its tails belong to the outermost cells."""
    from scipy.special import ndtr

    faces = ends.low + (ends.high - ends.low) * np.arange(1, cells) / cells
    x = (faces - start.mean) / start.sd
    below = np.concatenate([[0.0], ndtr(x), [1.0]])
    above = np.concatenate([[1.0], ndtr(-x), [0.0]])
    return np.asarray(np.where(below[1:] < 0.5, np.diff(below), -np.diff(above)))


def moved(p: Array, old: Ends, new: Ends) -> Array:
    """The probabilities of other cells, which cover the old ones.

    The distribution function is interpolated by monotone cubics: the total stays and so does the
    sign.
    """
    faces = new.low + (new.high - new.low) * np.arange(1, p.size) / p.size
    below = Grid(nodes(old, p.size), p).below(faces)
    return np.diff(below, prepend=0.0, append=p.sum())


def explore(
    equation: Equation, frame: Frame, start: Start, times: Array, cells: int, tolerance: float
) -> March:
    """Through all times in steps that each err by at most ``tolerance`` in the distribution."""
    asked_for = np.log(times).tolist()
    marks = sorted({*asked_for, frame.absorbs_from} - {math.inf})
    now, length = math.log(start.time), 0.1
    p = begin(start, frame.at(now, now >= frame.absorbs_from), cells)
    laws: list[Snapshot] = []
    steps: list[Motion] = []
    asked: list[bool] = []
    below = above = 0.0
    for mark in marks:
        while now < mark:
            count = math.ceil((mark - now) / length - 1e-9)
            target = mark if count <= 1 else now + (mark - now) / count
            motion = Motion.of(frame, now, target)
            after, error = step(equation, motion, p)
            off = float(np.abs(np.cumsum(error)).max())
            if math.isnan(off) or motion.length < _SHORTEST:
                raise InputError(
                    f"at t = {math.exp(now):.6g} no step is short enough: the drift is too steep"
                    " where the law is, or no number; expected a smooth one"
                )
            if off <= tolerance:
                now, p = target, after
                steps.append(motion)
                asked.append(target in asked_for)
                below = max(below, float(p[0]) * cells / 50)
                if not motion.absorbing:
                    above = max(above, float(p[-1]) * cells / 50)
            change = 0.9 * (tolerance / max(off, 1e-30)) ** 0.25
            length = min(motion.length * min(max(change, 0.2), 3.0), _LONGEST)
        if mark in asked_for:
            laws.append(Snapshot(nodes(steps[-1].last, cells), p))
        if mark == frame.absorbs_from and steps:
            p = moved(p, steps[-1].last, frame.at(mark, True))
    return March(tuple(laws), tuple(steps), tuple(asked), below, above)


def refine(equation: Equation, start: Start, march: March) -> tuple[Snapshot, ...]:
    """The same march on twice the cells, in steps of half the length."""
    last, cells = march.steps[0], 2 * march.laws[0].p.size
    p = begin(start, last.first, cells)
    laws = []
    for motion, asked in zip(march.steps, march.asked, strict=True):
        if motion.absorbing != last.absorbing:
            p = moved(p, last.last, motion.first)
        for part in (0.0, 0.5):
            p, _ = step(equation, motion, p, part, part + 0.5)
        if asked:
            laws.append(Snapshot(nodes(motion.last, cells), p))
        last = motion
    return tuple(laws)

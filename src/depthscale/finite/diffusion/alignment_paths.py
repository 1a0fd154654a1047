r"""Paths of the alignment equation, with a dropout field or with the jumps of single drops.

In ``x = y^-beta`` one step is, from both ends inwards, half the field (or the jumps) and half the
curvature, around the noise that is exact in ``log y``:

    y <- y + H h/2,    x <- x + A beta h/2,    x <- x exp(-beta [(theta + lam) h + s sqrt(h) xi]).

Every part is exact and keeps ``x > 0``; the whole is symmetric, so its weak order is 2. It starts
from infinity at ``x = 0``. Jumps of a step are a compound Poisson number, drawn exactly, in place
of the flow of the field, which changes nothing about the order (derived here).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError
from depthscale.finite.diffusion.law import SampleLaw
from depthscale.finite.diffusion.paths import (
    BLOCK,
    STRETCH,
    checked_start,
    checked_times,
    over_stretches,
    whole,
)
from depthscale.finite.diffusion.unshaped import Unshaped
from depthscale.finite.draws import Draws
from depthscale.theory.diffusion import AlignmentEquation, Drops
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number

STEPS = 64
"""Steps per unit of time, or per unit of ``s^2 t/4`` where that is more, if none are asked for."""

Sizes = Callable[[np.random.Generator, int], Array]
"""Draws so many sizes of jumps."""


@dataclass(frozen=True)
class Jumps:
    """Jumps of ``y`` by independent positive sizes, at random times of a constant rate.

    Attributes
    ----------
    rate:
        Jumps per unit of time.
    draw:
        ``draw(generator, count)`` gives the sizes of so many jumps.

    Raises
    ------
    InputError
        A rate that is negative or not finite.
    """

    rate: float
    draw: Sizes

    def __post_init__(self) -> None:
        if not 0 <= as_number("rate", self.rate) < math.inf:
            raise InputError(f"rate is {self.rate!r}; expected jumps per unit of time, at least 0")

    @staticmethod
    def of(drops: Drops) -> Jumps:
        """The jumps of Bernoulli dropout (``ScaledLimit.drops``)."""
        return Jumps(drops.rate, lambda stream, count: drops.size(stream.standard_normal(count)))

    def total(
        self, stream: np.random.Generator, time: float, paths: int
    ) -> tuple[NDArray[np.intp], Array]:
        """Which paths jump within a time, and by how much in all."""
        counts = stream.poisson(self.rate * time, paths)
        hit = np.flatnonzero(counts)
        often = counts[hit]
        owner = np.repeat(np.arange(hit.size), often)
        sizes = self.draw(stream, owner.size)
        total = np.bincount(owner, weights=sizes, minlength=hit.size)
        return hit, np.asarray(total, dtype=float)


def sample_unshaped(
    equation: AlignmentEquation | Unshaped,
    start: float,
    times: ArrayLike,
    *,
    jumps: Jumps | None = None,
    paths: int = 100_000,
    seed: int = 0,
    steps: int | None = None,
) -> SampleLaw:
    """Independent paths of the alignment equation by the positive splitting.

    Parameters
    ----------
    equation:
        Constants, or ``Unshaped`` of them with a scale for the readings ``eps`` and ``rho``.
    start:
        ``u = log y`` at time 0; ``inf`` where there is curvature.
    times:
        Shape (T,), increasing, positive.
    jumps:
        In place of the field ``H`` of the equation, which is then left out.
    paths, seed:
        How many, at least 2, and a whole number of at least 0; the first k of many paths are those
        of ``paths=k``.
    steps:
        Up to the last time, at least one between two recorded ones; None: see ``STEPS``.

    Raises
    ------
    InputError
        With what was given and what is expected.

    Examples
    --------
    >>> relu = AlignmentEquation(curvature=2 * 2**0.5 / (3 * np.pi), beta=0.5, variance=8.0, lam=-2)
    >>> law = sample_unshaped(relu, np.inf, [0.25, 0.5], paths=1000)
    >>> law.u.shape
    (2, 1000)
    """
    readable = equation if isinstance(equation, Unshaped) else Unshaped(equation)
    constants = readable.equation if jumps is None else replace(readable.equation, field=0.0)
    asked, u0 = checked_times(times), checked_start(readable, start)
    if u0 == math.inf and constants.curvature == 0:
        raise InputError(f"no start at infinity: {constants.entrance}; give a finite start")
    if u0 == -math.inf:
        raise InputError("start is -inf: two equal signals; expected log y, or inf")
    count, root = whole("paths", paths, 2), whole("seed", seed, 0)
    last = float(asked[-1])
    usual = math.ceil(STEPS * last * max(1.0, constants.variance / 4))
    number = usual if steps is None else whole("steps", steps, 1)
    gaps = np.diff(asked, prepend=0.0)
    counts = np.ceil(number * gaps / last - 1e-9).astype(int)
    u = np.empty((asked.size, count))

    def work(indices: range) -> None:
        for index in indices:
            stretch(index)

    def stretch(index: int) -> None:
        first, second = np.random.SeedSequence(root, spawn_key=(index,)).spawn(2)
        draws = Draws(first, torch.device("cpu"))
        stream = np.random.Generator(np.random.SFC64(second))
        for begin in range(index * STRETCH, min(count, (index + 1) * STRETCH), BLOCK):
            block = _Block(constants, jumps, u0, draws, stream)
            for row, gap, steps_here in zip(u, gaps, counts, strict=True):
                block.advance(float(gap / steps_here), int(steps_here))
                row[begin : begin + BLOCK] = block.log_y[: count - begin]

    over_stretches(work, count)
    what = "jumps" if jumps is not None else "paths"
    solver = f"{what}, positive splitting in {number} steps"
    return SampleLaw(asked, readable.readings, u, solver)


class _Block:
    """Paths that move together, in ``x = y^-beta``."""

    def __init__(
        self,
        equation: AlignmentEquation,
        jumps: Jumps | None,
        start: float,
        draws: Draws,
        stream: np.random.Generator,
    ) -> None:
        self._equation, self._jumps = equation, jumps
        self._draws, self._stream = draws, stream
        self._x = torch.full((BLOCK,), math.exp(-equation.beta * start), dtype=torch.float64)
        self._factor = torch.empty(BLOCK, dtype=torch.float64)
        self._xi = torch.empty(BLOCK)

    @property
    def log_y(self) -> Array:
        """``u`` of every path."""
        with np.errstate(divide="ignore"):
            return np.asarray(-np.log(self._x.numpy()) / self._equation.beta)

    def advance(self, step: float, count: int) -> None:
        """So many steps; half steps that meet inside are done as one."""
        law, x = self._equation, self._x
        beta, bend = law.beta, law.curvature * law.beta * step / 2
        drift, noise = -beta * law.late_rate * step, -beta * law.noise * math.sqrt(step)
        self._push(step / 2)
        for k in range(count):
            x.add_(bend)
            factor = self._factor.copy_(self._draws.normals(self._xi))
            x.mul_(factor.mul_(noise).add_(drift).exp_()).add_(bend)
            self._push(step if k + 1 < count else step / 2)

    def _push(self, time: float) -> None:
        """What drives signals apart: the field, or the jumps within a time."""
        law, x = self._equation, self._x
        if self._jumps is not None:
            hit, size = self._jumps.total(self._stream, time, BLOCK)
            values = x.numpy()
            values[hit] = _raised(values[hit], size, law.beta)
        elif law.field:
            grown = self._factor.copy_(x).pow_(1 / law.beta).mul_(law.field * time).add_(1)
            x.mul_(grown.pow_(-law.beta))


def _raised(x: Array, by: Array, beta: float) -> Array:
    """``(y + by)^-beta`` for ``x = y^-beta``."""
    return np.asarray(x * (1 + by * x ** (1 / beta)) ** -beta)

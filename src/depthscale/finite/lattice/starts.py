"""What two inputs of a lattice look like at layer 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from depthscale.answers import InputError
from depthscale.finite.columns import Array
from depthscale.finite.draws import Draws
from depthscale.finite.ensemble import Pair
from depthscale.finite.lattice.grid import Grid
from depthscale.theory.records import as_number, as_numbers

FAINT = 2.0**-40
"""Largest difference below which it is carried times a power of two."""


class Start(Protocol):
    """Fills layer 0 of a block."""

    def fill(self, state: Tensor, draws: Draws, grid: Grid, first: int) -> Array:
        """Write ``(h, 2^shift d)`` into ``[net, channel, 2, n]`` and return shift, ``[net]``.

        ``first`` is the number of the block's first realisation.
        """

    def check(self, realisations: int) -> None:
        """``InputError`` where there are not so many."""

    @property
    def settings(self) -> list[Any]:
        """What tells it from others."""


@dataclass(frozen=True)
class Drawn:
    """Gaussian values of mean square ``q``, independent at every position; misalignment ``eps``."""

    q: float
    eps: float

    def fill(self, state: Tensor, draws: Draws, grid: Grid, first: int) -> Array:
        """See ``Start``."""
        (along, step), (_, across) = Pair(self.eps, self.q, self.q, "drawn").coordinates
        shift = _shift(max(abs(step), abs(across)))
        normals = draws.normals(torch.empty_like(state))
        state[:, :, 0] = normals[:, :, 0] * along
        state[:, :, 1] = normals[:, :, 0] * math.ldexp(step, shift)
        state[:, :, 1] += normals[:, :, 1] * math.ldexp(across, shift)
        return np.full(len(state), shift)

    def check(self, realisations: int) -> None:
        """See ``Start``."""

    @property
    def settings(self) -> list[Any]:
        """See ``Start``."""
        return ["drawn", self.q, self.eps]


@dataclass(frozen=True)
class Site:
    """Equal inputs but for the channels of the middle position, drawn anew for the second."""

    q: float

    def fill(self, state: Tensor, draws: Draws, grid: Grid, first: int) -> Array:
        """See ``Start``."""
        normals = draws.normals(torch.empty_like(state)).mul_(math.sqrt(self.q))
        place = grid.middle
        state[:, :, 0] = normals[:, :, 0]
        state[:, :, 1] = 0
        state[:, :, 1, place] = normals[:, :, 1, place] - normals[:, :, 0, place]
        return np.zeros(len(state), dtype=int)

    def check(self, realisations: int) -> None:
        """See ``Start``."""

    @property
    def settings(self) -> list[Any]:
        """See ``Start``."""
        return ["site", self.q]


@dataclass(frozen=True)
class Given:
    """Two inputs of the caller, the second one as it is or as its difference.

    Attributes:
        first, difference: ``[channel, n]``, or ``[realisation, channel, n]``.
    """

    first: Array
    difference: Array

    def fill(self, state: Tensor, draws: Draws, grid: Grid, first: int) -> Array:
        """See ``Start``."""
        own = [
            np.broadcast_to(part, (len(state), *part.shape)) if part.ndim == 2
            else part[first : first + len(state)] for part in (self.first, self.difference)
        ]  # fmt: skip
        own = [_filled(part, len(state)) for part in own]
        largest = np.abs(own[1]).max(axis=(1, 2))
        shift = np.array([_shift(value) for value in largest.tolist()])
        state[:, :, 0] = torch.from_numpy(own[0])
        state[:, :, 1] = torch.from_numpy(np.ldexp(own[1], shift[:, None, None]))
        return shift

    def check(self, realisations: int) -> None:
        """See ``Start``."""
        if self.first.ndim == 3 and len(self.first) != realisations:
            raise InputError(
                f"inputs of {len(self.first)} realisations, and {realisations} are asked for;"
                " expected as many, or one pair for all"
            )

    @property
    def settings(self) -> list[Any]:
        """See ``Start``."""
        return ["given", self.first.tobytes().hex(), self.difference.tobytes().hex()]


def _filled(values: Array, count: int) -> Array:
    """As many realisations as a block has: the rest of the last block repeats and is cut off."""
    return values.copy() if len(values) == count else np.resize(values, (count, *values.shape[1:]))


def _shift(largest: float) -> int:
    """Power of two that brings a faint difference to order one."""
    return -math.frexp(largest)[1] if 0 < largest < FAINT else 0


def as_start(start: Any, q0: float, channels: int, grid: Grid) -> Start:
    """A start from what the caller gave.

    Args:
        start: "independent", "site", a misalignment in [0, 2], or two arrays ``(h_1, h_2)`` of
            shape ``[channels, *size]`` or ``[realisations, channels, *size]``.
        q0: mean square of drawn values.
        channels: of the lattice.
        grid: its positions.

    Raises:
        InputError: anything else.
    """
    expected = "'independent', 'site', a misalignment in [0, 2] or a pair of arrays (h1, h2)"
    if isinstance(start, str):
        if start == "independent":
            return Drawn(q0, 1.0)
        if start == "site":
            return Site(q0)
        raise InputError(f"start = {start!r}: expected {expected}")
    if isinstance(start, tuple | list) and len(start) == 2:
        return _given(start, channels, grid)
    if isinstance(start, Pair):
        raise InputError(f"start is a Pair: give its misalignment, {start.eps}, and q0")
    try:
        eps = as_number("start", start)
    except InputError:
        raise InputError(f"start is {start!r}; expected {expected}") from None
    if not 0 <= eps <= 2:
        raise InputError(f"start = {eps}: expected {expected}")
    return Drawn(q0, eps)


def _given(start: Any, channels: int, grid: Grid) -> Given:
    first, second = (as_numbers(f"input {k}", part) for k, part in enumerate(start, 1))
    shape = (channels, *grid.shape)
    if (
        first.shape != second.shape
        or first.shape[-len(shape) :] != shape
        or first.ndim > len(shape) + 1
    ):
        raise InputError(
            f"inputs of shapes {first.shape} and {second.shape}: expected both"
            f" {shape}, or with the realisations before it"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("the inputs hold values that are not finite; expected numbers")
    flat = (*first.shape[: first.ndim - len(shape) + 1], grid.sites)
    return Given(first.reshape(flat), (second - first).reshape(flat))

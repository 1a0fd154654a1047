"""Positions on a ring or a torus, the patches that a kernel sees there, and groups of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from depthscale.finite.columns import Array
from depthscale.finite.lattice.programs import Program, copying


@dataclass(frozen=True)
class Grid:
    """A periodic lattice in one or two dimensions.

    A kernel of k sites reaches from ``x - (k - 1)//2`` to ``x + k//2`` along every axis: it is
    centred where k is odd, as ``torch.nn.Conv1d(padding="same", padding_mode="circular")`` is.

    Attributes:
        shape: positions along every axis.
        kernel: sites k along every axis.
    """

    shape: tuple[int, ...]
    kernel: int

    @property
    def sites(self) -> int:
        """Number of positions n."""
        return math.prod(self.shape)

    @property
    def reach(self) -> int:
        """Sites of a patch."""
        return int(self.kernel ** len(self.shape))

    @property
    def padded(self) -> tuple[int, ...]:
        """Shape with the sites that a kernel sees beyond the ends."""
        return tuple(length + self.kernel - 1 for length in self.shape)

    def inner(self, padded: Tensor) -> Tensor:
        """The positions themselves within ``[..., *padded]``."""
        for axis, length in zip(range(-len(self.shape), 0), self.shape, strict=True):
            padded = padded.narrow(axis, self._left, length)
        return padded

    def wrapping(self, padded: Tensor) -> Program:
        """What fills the sites beyond the ends of ``[..., *padded]`` from the other end."""
        left, right = self._left, self.kernel - 1 - self._left
        calls: Program = []
        for axis, length in zip(range(-len(self.shape), 0), self.shape, strict=True):
            for place, source, count in ((0, length, left), (left + length, left, right)):
                if count:
                    ends, inside = (padded.narrow(axis, k, count) for k in (place, source))
                    calls.append(copying(inside, ends))
        return calls

    def patches(self, padded: Tensor, block: tuple[int, ...]) -> Tensor:
        """What the kernel sees, as a view of ``[net, channel, 2, *padded]``.

        Args:
            padded: wrapped.
            block: sites of a group along every axis.

        Returns:
            ``[net, *group, channel, *offset, 2, *site]``, site within its group.
        """
        axes = len(self.shape)
        view = padded
        for axis, length in zip(range(3, 3 + axes), self.shape, strict=True):
            view = view.unfold(axis, length, 1)  # the offset stays, positions go last
        for axis, length in enumerate(block, 3 + axes):
            view = view.unfold(axis, length, length)  # groups stay, sites go last
        offsets = range(3, 3 + axes)
        groups, inside = range(3 + axes, 3 + 2 * axes), range(3 + 2 * axes, 3 + 3 * axes)
        return view.permute(0, *groups, 1, *offsets, 2, *inside)

    def ungrouped(self, values: Tensor) -> Tensor:
        """View ``[net, *group, channel, 2, *site]`` as ``[net, channel, 2, (group, site)...]``."""
        axes = len(self.shape)
        places = [k for axis in range(axes) for k in (1 + axis, 3 + axes + axis)]
        return values.permute(0, 1 + axes, 2 + axes, *places)

    def sums(self, values: Tensor) -> Tensor:
        """Sums over the patch of every position, of ``[..., *shape]``."""
        for axis in range(-len(self.shape), 0):
            parts = [values.roll(self._left - r, axis) for r in range(self.kernel)]
            values = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        return values

    @cached_property
    def distances(self) -> Array:
        """Squared distances from the middle position, the shorter way round: ``[n]``."""
        squares = np.zeros(self.shape)
        for axis, length in enumerate(self.shape):
            away = np.abs(np.arange(length) - length // 2)
            square = np.minimum(away, length - away) ** 2.0
            squares += square.reshape([-1 if k == axis else 1 for k in range(len(self.shape))])
        return squares.reshape(-1)

    @property
    def middle(self) -> int:
        """The position, counted along the flattened shape, that distances are measured from."""
        return int(np.ravel_multi_index([length // 2 for length in self.shape], self.shape))

    @property
    def _left(self) -> int:
        return (self.kernel - 1) // 2

"""Random numbers of one block of networks, from its own counter-based seed.

A block has a forward and a backward stream. The forward one can be set back to any earlier point,
so that a stretch of layers can be drawn a second time instead of being kept in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Normals that are made together, at most: larger work arrays would leave a processor's cache.
PIECE = 1 << 18
HALF_STEP, PI_STEP = np.float32(2.0**-32), np.float32(math.pi * 2.0**-31)


class Draws:
    """A stream of random numbers on a device.

    On the CPU normals are float32 by Box and Muller's method from the bits of SFC64, through
    numpy's vectorised logarithm, sine and cosine (431 against torch's 293 million a second in
    ``benchmarks/ensemble.py``); they end at 6.7 standard deviations. On other devices they are
    torch's.

    Args:
        seed: of this stream.
        device: where the numbers are wanted.
    """

    def __init__(self, seed: np.random.SeedSequence, device: torch.device) -> None:
        self._bits = np.random.SFC64(seed)
        self._small = np.random.Generator(self._bits)
        self._device = device
        self._remote: torch.Generator | None = None
        if device.type != "cpu":
            low, high = (int(word) for word in seed.generate_state(2, np.uint32))
            self._remote = torch.Generator(device).manual_seed((high << 32 | low) >> 1)
        self._normals = np.empty(PIECE, np.float32)
        self._radius, self._angle = np.empty((2, PIECE // 2), np.float32)

    @property
    def state(self) -> tuple[Any, Tensor | None]:
        """Where the stream stands; assign it to go back there."""
        return self._bits.state, None if self._remote is None else self._remote.get_state()

    @state.setter
    def state(self, value: tuple[Any, Tensor | None]) -> None:
        self._bits.state, remote = value
        if self._remote is not None and remote is not None:
            self._remote.set_state(remote)

    def normals(self, out: Tensor) -> Tensor:
        """Fill a contiguous tensor with independent standard normal numbers."""
        if self._remote is not None:
            return out.normal_(generator=self._remote)
        # numpy throughout: its calls cost less, and its functions are vectorised
        values = out.numpy().reshape(-1)
        for start in range(0, len(values), PIECE):
            piece = values[start : start + PIECE]
            if piece.dtype == np.float32:
                self._fill(piece)
            else:
                piece[...] = self._fill(self._normals[: len(piece)])
        return out

    def few(self, *shape: int) -> NDArray[np.float64]:
        """Some more independent standard normal numbers, on the host."""
        return self._small.standard_normal(shape)

    def _fill(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """``sqrt(-2 ln u) cos(v)`` and ``sqrt(-2 ln u) sin(v)``, u in (0, 1], v in [-pi, pi)."""
        half = (len(values) + 1) // 2
        bits = self._bits.random_raw(half).view(np.int32)
        radius, angle, rest = self._radius[:half], self._angle[:half], len(values) - half
        np.copyto(radius, bits[:half], casting="unsafe")
        np.abs(radius, out=radius)
        radius *= HALF_STEP * 2
        radius += HALF_STEP / 2
        np.log(radius, out=radius)
        radius *= np.float32(-2)
        np.sqrt(radius, out=radius)
        np.copyto(angle, bits[half:], casting="unsafe")
        angle *= PI_STEP
        np.cos(angle, out=values[:half])
        np.sin(angle[:rest], out=values[half:])
        values[:half] *= radius
        values[half:] *= radius[:rest]
        return values

    def uniforms(self, *shape: int) -> Tensor:
        """Independent numbers, uniform in [0, 1), float64."""
        if self._remote is not None:
            out = torch.empty(shape, device=self._device, dtype=torch.float64)
            return out.uniform_(generator=self._remote)
        return torch.from_numpy(self._small.random(shape))

    def counts(self, total: int, chances: Sequence[float], nets: int) -> NDArray[np.int64]:
        """How many of ``total`` units fall into each category: ``[category, net]``, multinomial."""
        return np.ascontiguousarray(self._small.multinomial(total, chances, size=nets).T)

"""Noise on the signals of sampled networks: masks, or how many units survive them.

Units of a plain layer are exchangeable; those of given inputs and of residual branches are not. So
Bernoulli masks of a pair need no draw a unit: how many units both inputs keep, or only one, is
multinomial, and which units these are does not matter; they are taken in a row. The law is the
same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthscale.finite.columns import Chain, column
from depthscale.finite.draws import Draws
from depthscale.theory.meanfield import MeanField


@dataclass(frozen=True)
class Survivors:
    """Masks of units in an order in which each input keeps those of one row.

    Attributes:
        pieces: ``(columns, units, mask)``, masks ``[net, unit]`` of those units that some network
            does not keep.
    """

    pieces: tuple[tuple[int | slice, slice, Tensor], ...]

    def apply_(self, chain: Chain, vectors: Tensor) -> None:
        """Mask columns ``[column, net, unit]`` in place."""
        for columns, units, mask in self.pieces:
            vectors[columns, :, units].mul_(mask)


@dataclass(frozen=True)
class Factors:
    """Any factors ``[column or 1, net, unit or 1]``, as columns."""

    columns: Tensor

    def apply_(self, chain: Chain, vectors: Tensor) -> None:
        """Multiply columns ``[column, net, unit]`` in place."""
        chain.multiply_(self.columns, vectors)


Noise = Survivors | Factors


def gain(layer: MeanField) -> float:
    """``1/rho`` where masks are 0 or 1 and it is the same for all inputs, else 1."""
    alike = layer.noise.kind == "units" and not layer.noise.clean
    return 1 / (1 - layer.drop) if alike else 1.0


def draw_noise(
    draws: Draws, layer: MeanField, chain: Chain, like: Tensor, *, exchangeable: bool
) -> Noise | None:
    """Noise of one layer but for its ``gain``; None where there is none.

    With more than two inputs, ``overlap(r)`` lets every input take a common draw with probability
    ``sqrt(r)``, so that each pair shares it with probability r, and ``"clean"`` masks the first.

    Args:
        draws: the stream.
        layer: whose ``drop`` and ``masks``.
        chain: of the inputs.
        like: a tensor ``[net, unit]`` of what is masked; one unit for noise on a whole layer.
        exchangeable: whether the order of the units carries no meaning.
    """
    noise, drop, inputs = layer.noise, layer.drop, len(chain)
    nets, width = like.shape
    if drop == 0:
        return None
    if noise.kind == "units" and not noise.clean and exchangeable:
        if noise.overlap == 1 or inputs == 1:
            kept = draws.counts(width, (1 - drop, drop), nets)
            return _in_rows(kept[:1], chain, like)
        if inputs == 2:
            both = (1 - drop) * (1 - drop * (1 - noise.overlap))
            one = (1 - drop) * drop * (1 - noise.overlap)
            kept = draws.counts(width, (one, both, one, max(0.0, 1 - both - 2 * one)), nets)
            return _in_rows(kept[:3], chain, like)
    if noise.kind == "gaussian":
        drawn = draws.normals(like.new_empty(inputs + 1, nets, width))
        drawn[1:].mul_(math.sqrt(1 - noise.overlap)).add_(drawn[0], alpha=math.sqrt(noise.overlap))
        factors = drawn[1:].mul_(math.sqrt(drop / (1 - drop))).add_(1)
    else:
        shared = noise.clean or noise.overlap == 1
        masks = draws.uniforms(1 if shared else inputs, nets, width) >= drop
        if 0 < noise.overlap < 1:
            common = draws.uniforms(nets, width) >= drop
            taken = draws.uniforms(inputs, nets, width) < math.sqrt(noise.overlap)
            masks = torch.where(taken, common, masks)
        factors = masks.to(like.dtype).div_(gain(layer) * (1 - drop))
        if noise.clean:
            clean = factors.new_ones(inputs - 1, nets, width)
            factors = torch.cat([factors, clean])
    if len(factors) == 1:
        return Factors(factors)
    return Factors(chain.differences_(factors))


def _in_rows(kept: NDArray[np.int64], chain: Chain, like: Tensor) -> Noise:
    """Masks from how many units of each kind there are, ``[kind, net]``.

    Either all that are kept, or what the first input keeps alone, both keep, the second alone.
    """
    width = like.shape[1]
    ends = kept.cumsum(0)
    if len(kept) == 1:
        first = int(ends.min())
        return Survivors(((slice(None), slice(first, None), _below(ends[0], first, width, like)),))
    if chain.steps:
        one, start, two = (_below(end, 0, width, like) for end in (ends[1], ends[0], ends[2]))
        return Factors(chain.differences_(torch.stack([one, two.sub_(start)])))
    first, second, last = int(ends[1].min()), int(ends[2].min()), int(ends[0].max())
    return Survivors(
        (
            (0, slice(first, None), _below(ends[1], first, width, like)),
            (1, slice(second, None), _below(ends[2], second, width, like)),
            (1, slice(0, last), _below(ends[0], 0, last, like).neg_().add_(1)),
        )
    )


def _below(limits: NDArray[np.int64], first: int, last: int, like: Tensor) -> Tensor:
    """1 where the number of a unit, from ``first``, is below the limit, else 0: ``[net, unit]``."""
    units = _numbers(like.shape[1], like.dtype, like.device)[first:last]
    return torch.sub(column(limits.astype(float), like), units).clamp_(0, 1)


@lru_cache(maxsize=16)
def _numbers(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(width, device=device, dtype=dtype)

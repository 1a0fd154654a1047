"""Noise on the signals of sampled networks: masks, or how many units survive them.

Units of a plain layer are exchangeable. So Bernoulli masks of a pair need no draw a unit: how many
units both inputs keep, or only one, is multinomial, and which units these are does not matter; they
are taken in a row. The law is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthscale.finite.columns import Chain
from depthscale.finite.draws import Draws
from depthscale.theory.meanfield import MeanField


@dataclass(frozen=True)
class Survivors:
    """Masks in order: units that every input keeps, then those of one input only, then none.

    Attributes:
        first: first unit, over all networks, that some input does not keep.
        columns: the masks from there on, 0 or 1, as columns.
    """

    first: int
    columns: Tensor

    def apply_(self, chain: Chain, vectors: Tensor) -> None:
        """Mask columns ``[column, net, unit]`` in place."""
        end = self.first + self.columns.shape[2]
        chain.multiply_(self.columns, vectors[:, :, self.first : end])


@dataclass(frozen=True)
class Factors:
    """Any factors ``[column or 1, net, unit or 1]``, as columns."""

    columns: Tensor

    def apply_(self, chain: Chain, vectors: Tensor) -> None:
        """Multiply columns ``[column, net, unit]`` in place."""
        chain.multiply_(self.columns, vectors)


def gain(layer: MeanField) -> float:
    """``1/rho`` where masks are 0 or 1 and it is the same for all inputs, else 1."""
    alike = layer.noise.kind == "units" and not layer.noise.clean
    return 1 / (1 - layer.drop) if alike else 1.0


def draw_noise(
    draws: Draws, layer: MeanField, chain: Chain, like: Tensor, *, exchangeable: bool
) -> Survivors | Factors | None:
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
            return _in_order(kept[:1], chain, width, like)
        if inputs == 2:
            both = (1 - drop) * (1 - drop * (1 - noise.overlap))
            one = (1 - drop) * drop * (1 - noise.overlap)
            kept = draws.counts(width, (both, one, one, max(0.0, 1 - both - 2 * one)), nets)
            return _in_order(kept[:3], chain, width, like)
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


def _in_order(kept: NDArray[np.int64], chain: Chain, width: int, like: Tensor) -> Survivors:
    """Masks of units in a row, from how many of each kind there are, ``[kind, net]``."""
    first = int(kept[0].min())
    kind = np.float32 if like.dtype == torch.float32 else np.float64
    ends = torch.from_numpy(kept.cumsum(0).astype(kind)[:, :, None]).to(like.device)
    units = torch.arange(first, width, device=like.device, dtype=like.dtype)
    below = torch.sub(ends, units).clamp_(0, 1)  # 1 where unit < end
    if len(kept) == 1:
        return Survivors(first, below)
    # both, first only, second only: the first input keeps all below end 1, the second those below
    # end 0 and those from end 1 to end 2
    below[2].add_(below[0]).sub_(below[1])
    return Survivors(first, chain.differences_(below[1:]))

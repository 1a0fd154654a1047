r"""One layer of a random convolutional network, drawn and applied to two inputs.

``h'[i, x] = sum_{j, r} W[i, j, r] phi(h[j, x + r]) + b[i]`` with ``W ~ N(0, sigma_w^2/(c k^d))`` and
``b ~ N(0, sigma_b^2)``, the same for both inputs and new in every layer.

Where weights are shared, by all positions or by groups of them, they are drawn and applied. Where
every position has its own, they are not needed: given the layer below, the pair ``(h', d')`` of a
position and a channel is Gaussian, independent of all others, with covariance

    C_aa = sigma_w^2/(c k^d) sum_{j, r} a^2 + sigma_b^2,   C_ae and C_ee without bias

over the patch of the position, ``a = phi(h)`` and ``e = phi(h + d) - phi(h)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from depthscale.finite.columns import Workspace
from depthscale.finite.draws import Draws
from depthscale.finite.lattice.grid import Grid


class Layer(Protocol):
    """Draws a new layer at every call."""

    def apply(self, padded: Tensor, out: Tensor, draws: Draws, space: Workspace) -> None:
        """Send ``(a, e)`` of a block, ``[net, channel, 2, *padded]``, to ``(h', d')``.

        ``out`` is ``[net, channel, 2, n]``.
        """


@dataclass(frozen=True)
class Grouped:
    """Weights and biases shared within groups of ``block`` neighbouring sites along every axis.

    One group is the whole lattice where they are shared by all.
    """

    grid: Grid
    channels: int
    block: tuple[int, ...]
    sigma_w: float
    sigma_b: float

    def apply(self, padded: Tensor, out: Tensor, draws: Draws, space: Workspace) -> None:
        """See ``Layer``: one matrix product for each network and group, the bias as a row of it."""
        nets, c, dtype = padded.shape[0], self.channels, padded.dtype
        groups = math.prod(n // m for n, m in zip(self.grid.shape, self.block, strict=True))
        sites, rows = math.prod(self.block), c * self.grid.reach
        weights = space.take("weights", dtype, nets * groups, c, rows + 1)
        draws.normals(weights)
        weights[..., :-1] *= self.sigma_w / math.sqrt(rows)
        weights[..., -1] *= self.sigma_b
        seen = space.take("seen", dtype, nets * groups, rows + 1, 2 * sites)
        view = self.grid.patches(padded, self.block)
        seen[:, :rows].view(view.shape).copy_(view)
        seen[:, rows, :sites] = 1
        seen[:, rows, sites:] = 0
        if groups == 1:
            torch.bmm(weights, seen, out=out.view(nets, c, 2 * sites))
            return
        made = space.take("made", dtype, nets * groups, c, 2 * sites)
        torch.bmm(weights, seen, out=made)
        counts = [n // m for n, m in zip(self.grid.shape, self.block, strict=True)]
        view = self.grid.ungrouped(made.view(nets, *counts, c, 2, *self.block))
        out.view(view.shape).copy_(view)


@dataclass(frozen=True)
class Local:
    """Weights and biases of its own at every position; sampled without building them."""

    grid: Grid
    channels: int
    sigma_w: float
    sigma_b: float

    def apply(self, padded: Tensor, out: Tensor, draws: Draws, space: Workspace) -> None:
        """See ``Layer``."""
        a, e = self.grid.inner(padded).double().unbind(2)  # squares leave single precision
        nets, c, n = padded.shape[0], self.channels, self.grid.sites
        products = space.take("products", torch.float64, 3, nets, *self.grid.shape)
        for k, (left, right) in enumerate(((a, a), (a, e), (e, e))):
            torch.sum(left * right, dim=1, out=products[k])
        scale = self.sigma_w**2 / (c * self.grid.reach)
        aa, ae, ee = self.grid.sums(products).mul_(scale).view(3, nets, n)
        aa += self.sigma_b**2
        along = torch.where(aa > 0, ae / aa, 0.0)
        across = (ee - along * ae).clamp_(min=0).sqrt_()
        normals = draws.normals(space.take("normals", padded.dtype, nets, c, 2, n))
        first, second = normals.unbind(2)
        h, d = out.unbind(2)
        torch.mul(first, aa.sqrt().to(h.dtype)[:, None], out=h)
        torch.mul(h, along.to(h.dtype)[:, None], out=d)
        d.addcmul_(second, across.to(h.dtype)[:, None])


@dataclass(frozen=True)
class Mixed:
    """``W_x = sqrt(1 - s) W_shared + sqrt(s) W_x``, biases alike: the sum of two layers."""

    shared: Grouped
    local: Local

    def apply(self, padded: Tensor, out: Tensor, draws: Draws, space: Workspace) -> None:
        """See ``Layer``."""
        self.shared.apply(padded, out, draws, space)
        more = space.take("more", out.dtype, *out.shape)
        self.local.apply(padded, more, draws, space)
        out += more

r"""One layer of a random convolutional network, drawn and applied to two inputs.

``h'[i, x] = sum_{j, r} W[i, j, r] phi(h[j, x + r]) + b[i]`` with ``W ~ N(0, sigma_w^2/(c k^d))``
and ``b ~ N(0, sigma_b^2)``, the same for both inputs and new in every layer.

Where weights are shared, by all positions or by groups of them, they are drawn and applied. Where
every position has its own, they are not needed: given the layer below, the pair ``(h', d')`` of a
position and a channel is Gaussian, independent of all others, with covariance

    C_aa = sigma_w^2/(c k^d) sum_{j, r} a^2 + sigma_b^2,   C_ae and C_ee without bias

over the patch of the position, ``a = phi(h)`` and ``e = phi(h + d) - phi(h)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from depthscale.finite.columns import Workspace
from depthscale.finite.draws import Draws
from depthscale.finite.lattice.grid import Grid
from depthscale.finite.lattice.programs import Program, call, copying


class Layer(Protocol):
    """A new layer, every time its program is carried out."""

    def program(self, padded: Tensor, out: Tensor, draws: Draws, space: Workspace) -> Program:
        """What sends ``(a, e)`` of a block, ``[net, channel, 2, *padded]``, to ``(h', d')``.

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

    def program(self, padded: Tensor, out: Tensor, draws: Draws, space: Workspace) -> Program:
        """See ``Layer``: one matrix product for each network and group, the bias as a row of it."""
        nets, c, dtype = padded.shape[0], self.channels, padded.dtype
        counts = [n // m for n, m in zip(self.grid.shape, self.block, strict=True)]
        groups, sites, rows = math.prod(counts), math.prod(self.block), c * self.grid.reach
        weights = space.take("weights", dtype, nets * groups, c, rows + 1)
        scales = torch.full((rows + 1,), self.sigma_w / math.sqrt(rows), dtype=dtype)
        scales[-1] = self.sigma_b
        scales = scales.to(out.device).expand_as(weights)
        seen = space.take("seen", dtype, nets * groups, rows + 1, 2 * sites)
        seen[:, rows, :sites] = 1
        seen[:, rows, sites:] = 0
        view = self.grid.patches(padded, self.block)
        program: Program = [
            partial(draws.normals, weights),
            call("multiply", weights, scales, out=weights),
            copying(view, seen[:, :rows].view(view.shape)),
        ]
        if groups == 1:
            made = out.view(nets, c, 2 * sites)
            return [*program, partial(torch.bmm, weights, seen, out=made)]
        made = space.take("made", dtype, nets * groups, c, 2 * sites)
        view = self.grid.ungrouped(made.view(nets, *counts, c, 2, *self.block))
        move = copying(view, out.view(view.shape))
        return [*program, partial(torch.bmm, weights, seen, out=made), move]


@dataclass(frozen=True)
class Local:
    """Weights and biases of its own at every position; sampled without building them."""

    grid: Grid
    channels: int
    sigma_w: float
    sigma_b: float

    def program(self, padded: Tensor, out: Tensor, draws: Draws, space: Workspace) -> Program:
        """See ``Layer``."""
        return [partial(self._apply, self.grid.inner(padded), out, draws, space)]

    def _apply(self, values: Tensor, out: Tensor, draws: Draws, space: Workspace) -> None:
        a, e = values.double().unbind(2)  # squares leave single precision
        nets, c, n = values.shape[0], self.channels, self.grid.sites
        products = space.take("products", torch.float64, 3, nets, *self.grid.shape)
        for k, (left, right) in enumerate(((a, a), (a, e), (e, e))):
            torch.sum(left * right, dim=1, out=products[k])
        scale = self.sigma_w**2 / (c * self.grid.reach)
        aa, ae, ee = self.grid.sums(products).mul_(scale).view(3, nets, n)
        aa += self.sigma_b**2
        along = torch.where(aa > 0, ae / aa, 0.0)
        across = (ee - along * ae).clamp_(min=0).sqrt_()
        normals = draws.normals(space.take("normals", out.dtype, nets, c, 2, n))
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

    def program(self, padded: Tensor, out: Tensor, draws: Draws, space: Workspace) -> Program:
        """See ``Layer``."""
        more = space.take("more", out.dtype, *out.shape)
        return [
            *self.shared.program(padded, out, draws, space),
            *self.local.program(padded, more, draws, space),
            call("add", out, more, out=out),
        ]


def make_layer(
    sharing: str | int | float, grid: Grid, channels: int, sigma_w: float, sigma_b: float
) -> Layer:
    """The layers of a lattice.

    Args:
        sharing: "shared", "local", sites m of a group along every axis, or the fraction s.
        grid, channels: of the lattice.
        sigma_w, sigma_b: standard deviations.
    """
    if sharing == "shared":
        return Grouped(grid, channels, grid.shape, sigma_w, sigma_b)
    if sharing == "local":
        return Local(grid, channels, sigma_w, sigma_b)
    if isinstance(sharing, int):
        return Grouped(grid, channels, (sharing,) * len(grid.shape), sigma_w, sigma_b)
    own, common = math.sqrt(float(sharing)), math.sqrt(1 - float(sharing))
    return Mixed(
        Grouped(grid, channels, grid.shape, common * sigma_w, common * sigma_b),
        Local(grid, channels, own * sigma_w, own * sigma_b),
    )

"""A block of realisations of a lattice, sent from layer to layer and measured on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from depthscale.finite.columns import Array, Workspace
from depthscale.finite.draws import Draws
from depthscale.finite.lattice.grid import Grid
from depthscale.finite.lattice.layers import Layer
from depthscale.finite.lattice.observe import NAMES, observe
from depthscale.finite.lattice.starts import FAINT, Start
from depthscale.finite.lattice.steps import Steps
from depthscale.theory.activation import Activation

CHECKED = 4
"""Layers from one look at the size of the differences to the next."""
MOST = 120
"""Powers of two that a difference is multiplied by at once: single precision ends at 127."""
PLAIN = 2.0**-30
"""Largest difference above which it is carried as it is again."""


@dataclass(frozen=True)
class Network:
    """What a block is sent through.

    Attributes:
        activation: phi.
        layer: draws and applies weights.
        grid, channels: of the lattice.
        least: smallest pre-activation that matters, see ``Steps``.
        drop: probability dropped.
        independent: whether the two inputs meet masks of their own.
        threshold: of activity.
    """

    activation: Activation
    layer: Layer
    grid: Grid
    channels: int
    least: float
    drop: float
    independent: bool
    threshold: float

    @property
    def masked_apart(self) -> bool:
        """Whether dropout keeps the two inputs from coming close."""
        return self.drop > 0 and self.independent


def run_block(
    network: Network,
    start: Start,
    depths: Sequence[int],
    nets: int,
    first: int,
    seed: np.random.SeedSequence,
    space: Workspace,
    dtype: torch.dtype,
) -> Array:
    """Observables of a block, ``[net, depth, observable]``.

    Args:
        network: what the inputs are sent through.
        start: layer 0.
        depths: layers that are measured, ascending; 0 is the start.
        nets: realisations.
        first: number of the first one.
        seed: of all that is drawn.
        space: its memory, on the device.
        dtype: of the pre-activations.
    """
    grid, draws = network.grid, Draws(seed, space.device)
    state = space.take("state", dtype, nets, network.channels, 2, grid.sites)
    padded = space.take("padded", dtype, nets, network.channels, 2, *grid.padded)
    steps = Steps(network.activation, network.least, space)
    shift = start.fill(state, draws, grid, first)
    if network.masked_apart:
        shift = _plain(state, shift)
    found = np.empty((nets, len(depths), len(NAMES)))
    done = 0
    for k, depth in enumerate(depths):
        for layer in range(done, depth):
            if layer % CHECKED == 0 and not network.masked_apart:
                shift = _rescaled(state, shift)
            _activate(network, steps, state, shift, padded, draws)
            grid.wrap_(padded)
            network.layer.apply(padded, state, draws, space)
        done = depth
        found[:, k] = observe(state, shift, grid, network.threshold)
    return found


def _activate(
    network: Network, steps: Steps, state: Tensor, shift: Array, padded: Tensor, draws: Draws
) -> None:
    """Write phi of both inputs, and masks on them, into the lattice with its rim."""
    shape = (*state.shape[:3], *network.grid.shape)
    h, d = state.view(shape).unbind(2)
    a, e = network.grid.inner(padded).unbind(2)
    faint = np.flatnonzero(shift)
    if len(faint) == len(shift):
        steps.linear(h, d, a, e)
    else:
        steps.both(h, d, a, e)
        if len(faint):
            chosen = torch.from_numpy(faint).to(state.device)
            low, high = torch.empty_like(h[chosen]), torch.empty_like(h[chosen])
            steps.linear(h[chosen], d[chosen], low, high)
            e[chosen] = high
    if network.drop > 0:
        _mask(network, a, e, shift, draws)


def _mask(network: Network, a: Tensor, e: Tensor, shift: Array, draws: Draws) -> None:
    """Dropout: ``a`` becomes ``D_1 a`` and ``e`` becomes ``D_2 (a + e) - D_1 a``."""
    kept = 1 - network.drop
    first = (draws.uniforms(*a.shape) < kept).to(a.dtype).div_(kept)
    if network.independent:
        second = (draws.uniforms(*a.shape) < kept).to(a.dtype).div_(kept)
        e.mul_(second).addcmul_(second - first, a)
    else:
        e.mul_(first)
    a.mul_(first)


def _rescaled(state: Tensor, shift: Array) -> Array:
    """Carry differences that have become faint times a power of two, others as they are."""
    d = state[:, :, 1]
    largest = d.abs().amax((1, 2)).double().cpu().numpy()
    plain = np.ldexp(largest, -shift)
    target = np.where((shift > 0) & (plain > PLAIN), 0, shift)
    faint = (largest > 0) & np.where(shift > 0, largest < FAINT, plain < FAINT)
    target = np.where(faint, shift - np.frexp(largest)[1], target)
    high = (shift > 0) & (target == shift) & (largest > 1 / FAINT)
    target = np.where(high, np.maximum(shift - np.frexp(largest)[1], 0), target)
    target = np.minimum(target, shift + MOST)
    if np.any(target != shift):
        powers = np.ldexp(1.0, target - shift)
        d *= torch.from_numpy(powers).to(d)[:, None, None]
    return target


def _plain(state: Tensor, shift: Array) -> Array:
    """Carry all differences as they are."""
    if shift.any():
        powers = torch.from_numpy(np.ldexp(1.0, -shift)).to(state.device)
        state[:, :, 1] = state[:, :, 1].double().mul_(powers[:, None, None])
    return np.zeros_like(shift)

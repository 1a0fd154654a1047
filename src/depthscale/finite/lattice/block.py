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
from depthscale.finite.lattice.layers import make_layer
from depthscale.finite.lattice.observe import NAMES, observe
from depthscale.finite.lattice.programs import Program
from depthscale.finite.lattice.starts import FAINT, Start
from depthscale.finite.lattice.steps import Steps
from depthscale.theory.activation import Activation

CHECKED = 8
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
        sigma_w, sigma_b: standard deviations.
        sharing: who shares weights, see ``layers``.
        grid, channels: of the lattice.
        drop: probability dropped.
        independent: whether the two inputs meet masks of their own.
        threshold: of activity.
    """

    activation: Activation
    sigma_w: float
    sigma_b: float
    sharing: str | int | float
    grid: Grid
    channels: int
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
    steps = Steps(network.activation, network.sigma_w, network.sigma_b, space)
    weights, biases = network.sigma_w * steps.gain * steps.stretch, network.sigma_b * steps.stretch
    layers = make_layer(network.sharing, grid, network.channels, weights, biases)
    state = space.take("state", dtype, nets, network.channels, 2, grid.sites)
    padded = space.take("padded", dtype, nets, network.channels, 2, *grid.padded)
    shift = start.fill(state, draws, grid, first)
    if network.masked_apart:
        shift = _plain(state, shift)
    values = _views(state, padded, grid)
    wrap = grid.wrapping(padded)
    move = layers.program(padded, state, draws, space)
    begin = Steps.plain(network.activation, space)
    rules = {id(rule): rule.program(*values) for rule in (begin, steps)}
    found = np.empty((nets, len(depths), len(NAMES)))
    done, stretch = 0, 1.0
    for k, depth in enumerate(depths):
        for layer in range(done, depth):
            # the rule of later layers may not hold for values of any size
            rule = steps if layer else begin
            if layer % CHECKED == 0 and not network.masked_apart:
                shift = _rescaled(state, shift)
            _activate(rule, rules[id(rule)], values, shift)
            if layer == 0:
                padded /= steps.gain
            if network.drop > 0:
                _mask(network, *values[2:], draws)
            for call in (*wrap, *move):
                call()
            stretch = steps.stretch
        done = depth
        found[:, k] = observe(state, shift, stretch, grid, network.threshold)
    return found


def _views(state: Tensor, padded: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``h, d, a, e``, each ``[net, channel, *shape]``."""
    h, d = state.view(*state.shape[:3], *grid.shape).unbind(2)
    a, e = grid.inner(padded).unbind(2)
    return h, d, a, e


def _activate(
    steps: Steps, program: Program, values: tuple[Tensor, Tensor, Tensor, Tensor], shift: Array
) -> None:
    """Write the activations of both inputs."""
    faint = np.flatnonzero(shift)
    if len(faint) == len(shift):
        steps.linear(*values)
        return
    for call in program:
        call()
    if len(faint):
        h, d, _, e = values
        chosen = torch.from_numpy(faint).to(h.device)
        low, high = torch.empty_like(h[chosen]), torch.empty_like(h[chosen])
        steps.linear(h[chosen], d[chosen], low, high)
        e[chosen] = high


def _mask(network: Network, a: Tensor, e: Tensor, draws: Draws) -> None:
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
    largest = torch.maximum(d.amax((1, 2)), -d.amin((1, 2))).double().cpu().numpy()
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

"""One block of random networks, forwards and backwards.

Nothing is kept of a network but its inner products, layer by layer. The backward pass needs the
forward one once more, unit by unit: what fits into memory is kept, and the rest is drawn again from
the same stream, stretch by stretch, so that memory does not grow with depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from depthscale.finite.columns import (
    Array,
    Chain,
    Factor,
    Workspace,
    combine,
    column,
    dots,
    factorise,
)
from depthscale.finite.draws import Draws
from depthscale.finite.hops import Weights
from depthscale.finite.losses import Loss
from depthscale.finite.noise import Factors, Survivors, draw_noise, gain
from depthscale.finite.pointwise import LINEAR_BELOW, Pointwise
from depthscale.theory.activation import Activation
from depthscale.theory.meanfield import MeanField

# Lengths of scale-free networks and of gradients are brought back to 1 by a power of two when they
# leave this range; their logarithms are kept.
WIDEST = {torch.float64: 2.0**100, torch.float32: 2.0**25}


@dataclass(frozen=True)
class Architecture:
    """A chain of layers: ``h^{l+1} = skip h^l + W D phi(h^l) + b``.

    Attributes:
        layers: one for each of the L hops.
        widths: units of the L + 1 pre-activations.
        weights: what ``W`` is.
        output: the activation that a readout sees.
    """

    layers: tuple[MeanField, ...]
    widths: tuple[int, ...]
    weights: type[Weights]
    output: Activation

    @property
    def depth(self) -> int:
        """Number of hops."""
        return len(self.layers)

    @property
    def scale_free(self) -> bool:
        """Whether ``phi(c x) = c phi(x)`` in every layer."""
        return all(layer.activation.scale_free for layer in self.layers)


@dataclass(frozen=True)
class Start:
    """The vectors that stand at layer 0.

    Attributes:
        chain: how they are carried.
        columns: either of every network alike, ``[column, unit]``, or in coordinates of random
            directions, ``[direction, column]``.
        kind: "given": the columns are the vectors; "drawn": the directions are Gaussian in every
            unit, as behind a random layer; "pinned": they are also orthonormal, so that all inner
            products are exactly the given ones.
    """

    chain: Chain
    columns: Array
    kind: str

    def vectors(self, draws: Draws, out: Tensor) -> Tensor:
        """Fill the columns ``[column, net, unit]`` of a block."""
        if self.kind == "given":
            return out.copy_(torch.from_numpy(self.columns)[:, None])
        drawn = draws.normals(out.new_empty(len(self.columns), *out.shape[1:]))
        weights = np.repeat(self.columns[:, :, None], out.shape[1], axis=2)
        if self.kind == "pinned":
            factor = factorise(drawn, Workspace(out.device, out.dtype), "start")
            mix = np.einsum("ijr,jkr->ikr", factor.mix, weights) * math.sqrt(out.shape[2])
            return combine(factor.raw, mix, out, upper=True)
        return combine(drawn, weights, out, upper=True)


@dataclass
class Trace:
    """What is kept of a block: coordinates ``[direction, column, net]`` of vectors, true up to the
    factor ``exp(log)``, and logarithms ``[net]``.

    Attributes:
        chain: of the columns.
        h, h_log: pre-activations of each layer.
        x, x_log: activations of each hop, with noise; the bias is one more unit.
        bias: its value in the first column, ``[net]``.
        delta, above, delta_log: ``dE/dh`` of each layer, last layer first, and the same behind the
            noise on the whole layer.
        x_abs, delta_abs: sums of ``|x_a x_b|`` and ``|delta_a delta_b|``, ``[input, input, net]``.
        units: named averages over units of each hop, ``[input, net]``.
    """

    chain: Chain
    h: list[Array] = field(default_factory=list)
    h_log: list[Array] = field(default_factory=list)
    x: list[Array] = field(default_factory=list)
    x_log: list[Array] = field(default_factory=list)
    bias: list[Array] = field(default_factory=list)
    x_abs: list[Array] = field(default_factory=list)
    units: dict[str, list[Array]] = field(default_factory=dict)
    delta: list[Array] = field(default_factory=list)
    above: list[Array] = field(default_factory=list)
    delta_log: list[Array] = field(default_factory=list)
    delta_abs: list[Array] = field(default_factory=list)


@dataclass(frozen=True)
class _Hop:
    """What the backward pass needs of one hop; ``below`` and ``above`` are chains of columns."""

    weights: Weights
    slopes: Tensor | None
    on_layer: Survivors | Factors | None
    skip: float
    below: Chain
    above: Chain
    units: int
    biased: bool


@dataclass(frozen=True)
class _State:
    """Where the forward pass stands.

    Attributes:
        h: vectors, carried in ``chain``.
        chain: that of the block, or, where no two vectors of any network are close, every vector as
            it is, which costs less.
        coordinates: in the chain of the block.
        log: logarithm of the scale, ``[net]``.
    """

    h: Tensor
    chain: Chain
    coordinates: Array
    log: Array


class Block:
    """Some networks of one architecture that are computed together.

    Args:
        architecture: the layers.
        start: the inputs.
        nets: number of networks.
        seed: of this block.
        space: memory, which blocks of one shape share.
        stretch: number of hops of which the backward pass keeps the units at a time.
        absolute: whether sums of absolute products are wanted.
        statistics: whether averages over units are.
        to_start: whether the backward pass goes on to layer 0.
    """

    def __init__(
        self,
        architecture: Architecture,
        start: Start,
        nets: int,
        seed: np.random.SeedSequence,
        space: Workspace,
        *,
        stretch: int,
        absolute: bool = False,
        statistics: bool = False,
        to_start: bool = False,
    ) -> None:
        self.architecture, self.start, self.nets, self.space = architecture, start, nets, space
        self.stretch, self.absolute, self.statistics = stretch, absolute, statistics
        self.to_start, self._turn = to_start, False
        forward, backward = seed.spawn(2)
        self.forward_draws = Draws(forward, space.device)
        self.backward_draws = Draws(backward, space.device)
        self.chain = start.chain
        # units are carried as they are only where that is simple
        self._recasts = architecture.weights.recasts and not any(
            layer.skip or layer.noise.kind == "layers" for layer in architecture.layers
        )
        self.biased = any(layer.sigma_b > 0 for layer in architecture.layers)
        self.pointwise = [Pointwise(layer.activation) for layer in architecture.layers]

    def run(self, loss: Loss | None) -> Trace:
        """Send the inputs through, and gradients back where there is a loss."""
        trace = Trace(self.chain)
        depth = self.architecture.depth
        marks = []
        state = self._begin(trace)
        for first in range(0, depth, self.stretch):
            last = min(first + self.stretch, depth)
            if loss is not None and last < depth:
                marks.append((first, last, self._copied(state), self.forward_draws.state))
            kept = loss is not None and last == depth
            hops, state = self._forward(state, first, last, kept, trace)
        if loss is None:
            return trace
        delta, log = self._loss_gradient(loss, state)
        delta, log = self._backward(delta, log, hops, loss.copies, trace, bottom=not marks)
        for first, last, mark, stream in reversed(marks):
            self.forward_draws.state = stream
            hops, _ = self._forward(mark, first, last, True, None)
            delta, log = self._backward(delta, log, hops, loss.copies, trace, bottom=first == 0)
        return trace

    # Forwards ------------------------------------------------------------------------------------

    def _begin(self, trace: Trace) -> _State:
        shape = (len(self.chain), self.nets, self.architecture.widths[0])
        h = self.start.vectors(self.forward_draws, self.space.take("start", *shape))
        state = self._measured(h, self.chain, np.zeros(self.nets))
        self._note(trace, state)
        return state

    def _copied(self, state: _State) -> _State:
        return replace(state, h=state.h.clone())

    def _forward(
        self, state: _State, first: int, last: int, kept: bool, trace: Trace | None
    ) -> tuple[list[_Hop], _State]:
        hops = []
        for index in range(first, last):
            place = index - first if kept else -1
            hop, state = self._hop(state, index, place, kept, trace)
            hops.append(hop)
            if trace is not None:
                self._note(trace, state)
        return hops, state

    def _note(self, trace: Trace, state: _State) -> None:
        trace.h.append(state.coordinates)
        trace.h_log.append(state.log)

    def _hop(
        self, state: _State, index: int, place: int, kept: bool, trace: Trace | None
    ) -> tuple[_Hop, _State]:
        layer, kind = self.architecture.layers[index], self.architecture.weights
        below, above = self.architecture.widths[index : index + 2]
        take, draws, inputs, chain = (
            self.space.take,
            self.forward_draws,
            len(self.chain),
            state.chain,
        )
        carried = take("carried", *state.h.shape).copy_(state.h) if layer.skip else None

        biased = layer.sigma_b > 0 and kind.bias_as_unit
        x = take(("x", place), inputs, self.nets, below + biased)
        signal = x[:, :, :below]
        slopes = take(("slopes", place), inputs, self.nets, below) if kept else None
        squares = np.square(state.coordinates).sum(0) / below
        self.pointwise[index].columns(chain, state.h, squares, signal, slopes)
        if trace is not None and self.statistics:
            self._note_units(trace, signal, chain)
        on_layer = self._apply_noise(index, chain, signal, slopes)

        sigma = layer.sigma_w / math.sqrt(below) * gain(layer)
        bias = biased * layer.sigma_b / sigma * np.exp(-state.log)
        if biased:  # one more unit below, which always fires
            last = x[:, :, below]
            last.copy_(column(bias, x)[:, 0])
            if chain.steps:
                last[chain.tied] = 0
        factor = factorise(x, self.space, ("basis", place))
        if not biased and chain.steps:
            mend_dead(x, factor, chain)
        coordinates = chain.recast(factor.coordinates, self.chain)
        if trace is not None:
            trace.x.append(coordinates * gain(layer))
            trace.x_log.append(state.log)
            trace.bias.append(bias * gain(layer))
            if self.absolute:
                trace.x_abs.append(self._absolute(signal, chain, 1) * gain(layer) ** 2)

        weights = kind(sigma, self.space, place)
        upper = self._chain_for(index + 1, coordinates * sigma)
        out = take(("h", index % 2), inputs, self.nets, above)
        h = weights.forward(draws, x, factor, self.chain.recast(coordinates, upper), out)
        if layer.sigma_b > 0 and not biased:
            spread = layer.sigma_b * np.exp(-state.log)
            noise = draws.normals(torch.empty_like(h[0])).mul_(column(spread, h))
            h[upper.roots] += noise
        if on_layer is not None:
            on_layer.apply_(self.chain, h)
        if carried is not None:
            h.add_(carried, alpha=layer.skip)
        hop = _Hop(weights, slopes, on_layer, layer.skip, chain, upper, below, biased)
        return hop, self._measured(h, upper, state.log)

    def _apply_noise(
        self, index: int, chain: Chain, signal: Tensor, slopes: Tensor | None
    ) -> Survivors | Factors | None:
        """Multiply by noise on units; return noise on the whole layer, which comes later."""
        layer, draws = self.architecture.layers[index], self.forward_draws
        if layer.noise.kind == "layers":
            return draw_noise(draws, layer, chain, signal[0, :, :1], exchangeable=False)
        # with a residual branch a unit is the same one from layer to layer
        before = self.architecture.layers[max(index - 1, 0)]
        plain = layer.skip == 0 and before.skip == 0
        noise = draw_noise(draws, layer, chain, signal[0], exchangeable=plain)
        if noise is not None:
            noise.apply_(chain, signal)
            if slopes is not None:
                noise.apply_(chain, slopes)
        return None

    def _chain_for(self, index: int, coordinates: Array) -> Chain:
        """How the vectors of a layer are carried, from the coordinates that they will have."""
        layers = self.architecture.layers
        if not self._recasts:
            return self.chain
        phi = layers[index].activation if index < len(layers) else self.architecture.output
        limit = LINEAR_BELOW[self.space.dtype] * min(1.0, phi.scale)
        tied = self.chain.tied
        if tied and np.square(coordinates[:, tied]).sum(0).min() < limit**2:
            return self.chain
        return self.chain.apart

    def _measured(self, h: Tensor, chain: Chain, log: Array) -> _State:
        """The state with these vectors, brought back to a length of 1 where that is allowed."""
        coordinates = chain.recast(factorise(h, self.space, "unused").coordinates, self.chain)
        if self.architecture.scale_free:
            size = np.sqrt(np.square(coordinates).sum(0).max(0) / h.shape[2])
            coordinates, log = _rescaled(h, coordinates, log, size, only_down=self.biased)
        return _State(h, chain, coordinates, log)

    def _absolute(self, columns: Tensor, chain: Chain, copies: int) -> Array:
        """Sums of ``|a_i b_i|`` over units, for all pairs of vectors."""
        inputs = len(chain)
        total = np.zeros((inputs, inputs, self.nets))
        for copy in range(copies):
            vectors = columns[copy * inputs : (copy + 1) * inputs].clone()
            vectors = chain.absolute_(vectors).abs_()
            total += dots(vectors, vectors)
        return total[np.ix_(chain.places, chain.places)]

    def _note_units(self, trace: Trace, signal: Tensor, chain: Chain) -> None:
        vectors = chain.absolute_(signal.clone()).double()
        for name, values in (
            ("activation_mean", vectors),
            ("activation_square", vectors.square()),
            ("zero_share", (vectors == 0).double()),
        ):
            trace.units.setdefault(name, []).append(
                values.mean(-1).cpu().numpy()[self.chain.places]
            )

    # Backwards -----------------------------------------------------------------------------------

    def _loss_gradient(self, loss: Loss, state: _State) -> tuple[Tensor, Array]:
        h = state.h
        if not loss.scaling and np.any(state.log != 0):
            h = h * column(np.exp(state.log), h)
        phi = Pointwise(self.architecture.output)
        delta = loss.gradient(self.backward_draws, state.chain, h, phi)
        return delta, loss.degree * state.log

    def _backward(
        self,
        delta: Tensor,
        log: Array,
        hops: Sequence[_Hop],
        copies: int,
        trace: Trace,
        *,
        bottom: bool,
    ) -> tuple[Tensor, Array]:
        columns = copies * len(self.chain)
        for index in reversed(range(len(hops))):
            hop = hops[index]
            coordinates, log = self._note_delta(trace, delta, hop.above, log)
            above = delta
            if hop.on_layer is not None:
                above = delta.clone()
                for copy in torch.split(above, len(self.chain)):
                    hop.on_layer.apply_(self.chain, copy)
                coordinates = factorise(above, self.space, "unused").coordinates
            trace.above.append(hop.above.recast(coordinates, self.chain))
            if self.absolute:
                trace.delta_abs.append(self._absolute(above, hop.above, copies))
            if bottom and index == 0 and not self.to_start:
                return delta, log
            assert hop.slopes is not None
            self._turn = not self._turn  # delta stands in the other one
            out = self.space.take(("delta", self._turn), columns, self.nets, hop.units + hop.biased)
            recast = partial(hop.above.recast, other=hop.below)
            hop.weights.backward(self.backward_draws, above, coordinates, recast, out)
            through = out[:, :, : hop.units]
            for copy in torch.split(through, len(self.chain)):
                hop.below.multiply_(hop.slopes, copy)
            if hop.skip:
                through.add_(delta, alpha=hop.skip)
            delta = through
        if bottom:
            _, log = self._note_delta(trace, delta, hops[0].below, log)
        return delta, log

    def _note_delta(
        self, trace: Trace, delta: Tensor, chain: Chain, log: Array
    ) -> tuple[Array, Array]:
        """Coordinates of a gradient in its own chain, after bringing its length back to 1."""
        coordinates = factorise(delta, self.space, "unused").coordinates
        size = np.sqrt(np.square(coordinates).sum(0).max(0) / delta.shape[2])
        coordinates, log = _rescaled(delta, coordinates, log, size)
        trace.delta.append(chain.recast(coordinates, self.chain))
        trace.delta_log.append(log)
        return coordinates, log


def _rescaled(
    vectors: Tensor, coordinates: Array, log: Array, size: Array, *, only_down: bool = False
) -> tuple[Array, Array]:
    """Multiply networks whose vectors have left the range by a power of two, in place."""
    widest = WIDEST[vectors.dtype]
    away = size > widest
    if not only_down:
        away |= (size < 1 / widest) & (size > 0)
    away &= np.isfinite(size)
    if not away.any():
        return coordinates, log
    exponent = np.where(away, -np.frexp(size)[1], 0)
    power = np.ldexp(1.0, exponent)
    vectors *= column(power, vectors)
    return coordinates * power, log - exponent * math.log(2)


def mend_dead(columns: Tensor, factor: Factor, chain: Chain) -> None:
    """Give vectors that are exactly zero, as those of a dead network, coordinates that say so."""
    coordinates = factor.coordinates
    whole = np.einsum("jkr,kv->jvr", coordinates, chain.paths)
    sizes = np.square(whole).sum(0)
    limit = (64 * torch.finfo(columns.dtype).eps) ** 2 * np.square(coordinates).sum(0).max(0)
    for vector, net in np.argwhere((sizes > 0) & (sizes <= limit)).tolist():
        weights = torch.from_numpy(chain.paths[:, vector]).to(columns)
        parent = chain.parents[vector]
        if parent >= 0 and not bool((weights[:, None] * columns[:, net]).sum(0).any()):
            coordinates[:, vector, net] = -whole[:, parent, net]

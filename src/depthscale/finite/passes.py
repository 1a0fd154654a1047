"""One block of random networks, forwards and backwards.

Nothing is kept of a network but its inner products, layer by layer. The backward pass needs the
forward one once more, unit by unit: what fits into memory is kept, and the rest is drawn again from
the same stream, stretch by stretch, so that memory does not grow with depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthscale.finite.columns import (
    Array,
    Chain,
    Workspace,
    column,
    combine,
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

# Lengths that leave this range, up or down, are brought back by a power of two and the logarithm is
# kept, where the activation only multiplies there: scale-free ones everywhere, many others far from
# and close to zero. Elsewhere a length below the square of its inverse counts as zero.
WIDEST = {torch.float64: 2.0**100, torch.float32: 2.0**25}
# Share of a square below which activations are measured without the bias beside them.
HIDDEN = 1e-5

# Root mean square difference of two vectors that counts as none.
FAINT = {torch.float64: 1e-150, torch.float32: 1e-16}


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

    def multiplies(self, x: float) -> bool:
        """Whether ``phi(2 x) = 2 phi(x)`` at a large or small ``+-x``, on its scale, in all layers.

        Far from zero and close to it this is so for any ``c`` in place of 2: ReLU and GELU double
        large numbers, tanh and GELU small ones, as far as digits go.
        """
        for phi in self._functions:
            one, two = (phi(scale * np.array([-x, x])) for scale in (1.0, 2.0))
            if not np.all(np.abs(two - 2 * one) <= 1e-10 * x):
                return False
        return not any(phi.jumps for phi in self._functions)

    @property
    def scale_free(self) -> bool:
        """Whether ``phi(c x) = c phi(x)`` in every layer."""
        return all(phi.scale_free for phi in self._functions)

    @property
    def _functions(self) -> set[Activation]:
        return {self.output, *(layer.activation for layer in self.layers)}


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
        widest = WIDEST[space.dtype]
        unbiased = all(layer.sigma_b == 0 for layer in architecture.layers)
        self._range = _Range(
            down=architecture.multiplies(widest),
            up=unbiased and architecture.multiplies(1 / widest),
            home=1.0 if architecture.scale_free else widest,
        )
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
        dead = None if biased else mend_dead(x, factor.coordinates, chain)
        coordinates = chain.recast(factor.coordinates, self.chain)
        if trace is not None:
            alone, left = self._without_bias(signal, chain, coordinates, bias)
            trace.x.append(alone * gain(layer))
            trace.x_log.append(state.log)
            trace.bias.append(left * gain(layer))
            if self.absolute:
                trace.x_abs.append(self._absolute(signal, chain, 1) * gain(layer) ** 2)

        weights = kind(sigma, self.space, place)
        upper = self._chain_for(index + 1, coordinates * sigma)
        out = take(("h", index % 2), inputs, self.nets, above)
        h = weights.forward(draws, x, factor, self.chain.recast(coordinates, upper), out)
        if dead is not None:
            keep_dead(h, dead, upper)
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
        own = factorise(h, self.space, "unused").coordinates
        mend_dead(h, own, chain)
        coordinates = chain.recast(own, self.chain)
        size = np.sqrt(np.square(coordinates).sum(0).max(0) / h.shape[2])
        coordinates, log = _rescaled(h, coordinates, log, size, self._range)
        if not self._range.up:
            gone = (size < WIDEST[h.dtype] ** -2) & (size > 0)
            if gone.any():
                h[:, torch.from_numpy(gone).to(h.device)] = 0
                coordinates = np.where(gone, 0.0, coordinates)
        faint = np.square(coordinates).sum(0) / h.shape[2] < FAINT[h.dtype] ** 2
        faint[self.chain.roots] = False
        if faint.any() and coordinates[:, faint].any():
            # equal from here on: the square of such a difference has lost its digits
            if chain.steps:
                h[torch.from_numpy(faint).to(h.device)] = 0
            coordinates = np.where(faint, 0.0, coordinates)
        return _State(h, chain, coordinates, log)

    def _without_bias(
        self, signal: Tensor, chain: Chain, both: Array, bias: Array
    ) -> tuple[Array, Array]:
        """Coordinates of activations and the bias, which is left out where it would hide them."""
        if not bias.any():
            return both, bias
        squares = np.square(np.einsum("jkr,kv->jvr", both, self.chain.paths)).sum(0)
        hidden = np.flatnonzero(np.any(squares - bias**2 < HIDDEN * squares, axis=0))
        if not hidden.size:
            return both, bias
        where = torch.from_numpy(hidden).to(signal.device)
        columns = signal[:, where]
        alone = factorise(columns, self.space, "unused").coordinates
        mend_dead(columns, alone, chain)
        signal[:, where] = columns
        both, bias = both.copy(), bias.copy()
        both[:, :, hidden], bias[hidden] = 0, 0
        both[: len(alone), :, hidden] = chain.recast(alone, self.chain)
        return both, bias

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
            coordinates, dead, log = self._note_delta(trace, delta, hop.above, log)
            above = delta
            if hop.on_layer is not None:
                above = delta.clone()
                for copy in _copies(above, copies):
                    hop.on_layer.apply_(self.chain, copy)
                coordinates, dead = self._coordinates(above, self.chain)
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
            for copy, gone in zip(_copies(through, copies), np.split(dead, copies), strict=True):
                keep_dead(copy, gone, hop.below)
                hop.below.multiply_(hop.slopes, copy)
            if hop.skip:
                through.add_(delta, alpha=hop.skip)
            delta = through
        if bottom:
            *_, log = self._note_delta(trace, delta, hops[0].below, log)
        return delta, log

    def _coordinates(self, delta: Tensor, chain: Chain) -> tuple[Array, NDArray[np.bool_]]:
        """Of gradients in their own chain, and which have died; those become zero."""
        coordinates = factorise(delta, self.space, "unused").coordinates
        inputs = len(chain)
        dead = [
            mend_dead(copy, coordinates[:, k * inputs : (k + 1) * inputs], chain)
            for k, copy in enumerate(_copies(delta, len(delta) // inputs))
        ]
        return coordinates, np.concatenate(dead)

    def _note_delta(
        self, trace: Trace, delta: Tensor, chain: Chain, log: Array
    ) -> tuple[Array, NDArray[np.bool_], Array]:
        """Of gradients in their own chain, after bringing their length back to 1."""
        coordinates, dead = self._coordinates(delta, chain)
        size = np.sqrt(np.square(coordinates).sum(0).max(0) / delta.shape[2])
        coordinates, log = _rescaled(delta, coordinates, log, size, _Range())
        trace.delta.append(chain.recast(coordinates, self.chain))
        trace.delta_log.append(log)
        return coordinates, dead, log


def _copies(columns: Tensor, count: int) -> Sequence[Tensor]:
    """Gradients of every output by themselves."""
    return [columns] if count == 1 else torch.chunk(columns, count)


@dataclass(frozen=True)
class _Range:
    """Whether large lengths may be brought down and small ones up: to ``home`` or its inverse."""

    down: bool = True
    up: bool = True
    home: float = 1.0


def _rescaled(
    vectors: Tensor, coordinates: Array, log: Array, size: Array, allowed: _Range
) -> tuple[Array, Array]:
    """Multiply networks whose vectors have left the range by a power of two, in place."""
    most = WIDEST[vectors.dtype] * allowed.home
    if size.max() <= most and size.min() >= 1 / most:
        return coordinates, log
    with np.errstate(invalid="ignore"):
        large = allowed.down & (size > most) & np.isfinite(size)
        small = allowed.up & (size < 1 / most) & (size > 0)
    home = round(math.log2(allowed.home))
    exponent = np.where(large, home, 0) - np.where(small, home, 0)
    exponent = np.where(large | small, exponent - np.frexp(size)[1], 0)
    if not exponent.any():
        return coordinates, log
    power = np.ldexp(1.0, exponent)
    vectors *= column(power, vectors)
    return coordinates * power, log - exponent * math.log(2)


def mend_dead(columns: Tensor, coordinates: Array, chain: Chain) -> NDArray[np.bool_]:
    """Make zero, in place, vectors of which only the rounding of larger columns is left.

    Those of a dead network, or of an input whose layer or units are all dropped: columns that
    cancel, to be followed as exactly nothing.

    Args:
        columns: ``[column, net, unit]``.
        coordinates: in an orthonormal basis, ``[direction, column, net]``.
        chain: of the columns.

    Returns:
        Which vectors are zero, ``[column, net]``.
    """
    if not chain.steps:
        return np.asarray(np.all(coordinates == 0, axis=0))
    whole, largest = coordinates.copy(), np.square(coordinates).sum(0)
    for own, parent in chain.steps:
        whole[:, own] += whole[:, parent]
        largest[own] = np.maximum(largest[own], largest[parent])
    limit = (64 * torch.finfo(columns.dtype).eps) ** 2
    dead = np.asarray(np.square(whole).sum(0) <= limit * largest)
    for vector, nets in _where(dead, chain):
        whole[:, vector, nets] = 0
        coordinates[:, vector, nets] = -whole[:, chain.parents[vector], nets]
    keep_dead(columns, dead, chain)
    return dead


def keep_dead(columns: Tensor, dead: NDArray[np.bool_], chain: Chain) -> None:
    """Make columns of vectors that are known to be zero cancel to the last digit."""
    for vector, nets in _where(dead, chain):
        where = torch.from_numpy(nets).to(columns.device)
        path = np.flatnonzero(chain.paths[:, chain.parents[vector]]).tolist()
        columns[vector, where] = -columns[path][:, where].sum(0)


def _where(dead: NDArray[np.bool_], chain: Chain) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Dead vectors that are differences from others, and in which networks."""
    for vector in np.flatnonzero(dead.any(axis=1)).tolist() if chain.steps else ():
        if chain.parents[vector] >= 0:
            yield vector, np.flatnonzero(dead[vector])

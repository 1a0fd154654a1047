"""One block of random networks, forwards and backwards.

Nothing is kept of a network but its inner products, layer by layer. The backward pass needs the
forward one once more, unit by unit: what fits into memory is kept, and the rest is drawn again from
the same stream, stretch by stretch, so that memory does not grow with depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthscale.finite.architecture import Architecture, Carried, Start, Trace
from depthscale.finite.columns import (
    INDEPENDENT,
    Array,
    Chain,
    Factor,
    Workspace,
    column,
    dots,
    factorise,
)
from depthscale.finite.draws import Draws
from depthscale.finite.hops import Weights
from depthscale.finite.losses import Loss
from depthscale.finite.noise import Noise, draw_noise, gain
from depthscale.finite.pointwise import LINEAR_BELOW, Pointwise
from depthscale.finite.upkeep import (
    FAINT,
    PLAIN,
    WIDE,
    WIDEST,
    Precision,
    Range,
    keep_dead,
    mend_dead,
    plain_lengths,
)

# Share of a square below which activations are measured without the bias beside them.
HIDDEN = 1e-5


class _Hop(NamedTuple):
    """What the backward pass needs of one hop; ``below`` and ``above`` are chains of columns."""

    weights: Weights
    slopes: Tensor | None
    on_layer: Noise | None
    skip: float
    below: Chain
    above: Chain
    units: int
    dtype: torch.dtype


class _State(NamedTuple):
    """Where the forward pass stands.

    Attributes:
        h: vectors, carried in ``chain``.
        chain: that of the block, or, where no two vectors of any network are close, every vector as
            it is, which costs less.
        known: their coordinates.
        log: logarithm of the scale, ``[net]``.
    """

    h: Tensor
    chain: Chain
    known: Carried
    log: Array


class Block:
    """Some networks of one architecture that are computed together.

    Args:
        architecture: the layers.
        start: the inputs.
        nets: number of networks.
        seed: of this block.
        space: memory, which blocks of one shape share.
        precision: of the units.
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
        precision: Precision,
        *,
        stretch: int,
        absolute: bool = False,
        statistics: bool = False,
        to_start: bool = False,
    ) -> None:
        self.architecture, self.start, self.nets, self.space = architecture, start, nets, space
        self.precision = precision
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
        self._unscaled = np.zeros(nets)
        self._biases: dict[tuple[float, Chain], tuple[Array, Array]] = {}
        self._range = _range(architecture, precision)
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
        units, close = self.architecture.widths[0], self.precision.close
        factor = self.start.factor(self.space, units)
        chain, dtype = self._carriage(0, factor, self.chain, close, 1 / math.sqrt(units))
        out = self.space.take("start", dtype, len(self.chain), self.nets, units)
        h = self.start.vectors(self.forward_draws, chain, out)
        if self.start.kind == "drawn" or chain.steps or not self._range.holds(factor, units):
            state = self._measured(h, chain, self._unscaled)
        else:
            known = Carried(self.chain, factor.coordinates.repeat(self.nets, 2))
            state = _State(h, chain, known, self._unscaled)
        self._note(trace, state)
        return state

    def _copied(self, state: _State) -> _State:
        return state._replace(h=state.h.clone())

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
        trace.h.append(state.known)
        trace.h_log.append(state.log)

    def _hop(
        self, state: _State, index: int, place: int, kept: bool, trace: Trace | None
    ) -> tuple[_Hop, _State]:
        layer, kind = self.architecture.layers[index], self.architecture.weights
        below, above = self.architecture.widths[index : index + 2]
        draws, take, inputs = self.forward_draws, self.space.take, len(self.chain)
        chain, dtype = state.chain, state.h.dtype
        carried = take("carried", dtype, *state.h.shape).copy_(state.h) if layer.skip else None

        x = state.h  # in place where nobody asks for h again
        if kept or chain.steps:
            x = take(("x", place), dtype, inputs, self.nets, below)
        slopes = take(("slopes", place), dtype, inputs, self.nets, below) if kept else None
        squares = np.square(state.known.coordinates).sum(0) / below if chain.steps else None
        self.pointwise[index].columns(chain, state.h, squares, x, slopes)
        if trace is not None and self.statistics:
            self._note_units(trace, x, chain)
        on_layer = self._apply_noise(index, chain, x, slopes)

        sigma = layer.sigma_w / math.sqrt(below) * gain(layer)
        biased = layer.sigma_b > 0 and kind.bias_as_unit
        bias, beside = self._unscaled, None
        if biased:
            bias, beside = self._bias(layer.sigma_b / sigma, state)
        factor = factorise(x, self.space, ("basis", place), beside)
        dead = None
        if not (biased or factor.regular):
            dead = mend_dead(x, factor.coordinates, chain)
        if trace is not None:
            known, left = self._without_bias(x, factor, chain, bias)
            trace.x.append(known)
            trace.x_log.append(state.log)
            trace.bias.append(left)
            if self.absolute:
                trace.x_abs.append(self._absolute(x, chain, 1))

        weights = kind(sigma, self.space, place)
        upper, upper_dtype = self._carriage(index + 1, factor, chain, dtype, sigma)
        out = take(("h", index % 2), upper_dtype, inputs, self.nets, above)
        h = weights.forward(draws, x, factor, chain.recast(factor.coordinates, upper), out)
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
        hop = _Hop(weights, slopes, on_layer, layer.skip, chain, upper, below, dtype)
        return hop, self._measured(h, upper, state.log)

    def _bias(self, value: float, state: _State) -> tuple[Array, Array]:
        """Of one more unit below that always fires: ``[net]``, and of all columns."""
        key = value, state.chain
        found = self._biases.get(key)
        if found is None or state.log is not self._unscaled:
            bias = value * np.exp(-state.log)
            beside = np.zeros((len(state.chain), self.nets))
            beside[state.chain.roots] = bias
            found = bias, beside
            if state.log is self._unscaled:
                self._biases[key] = found
        return found

    def _apply_noise(
        self, index: int, chain: Chain, signal: Tensor, slopes: Tensor | None
    ) -> Noise | None:
        """Multiply by noise on units; return noise on the whole layer, which comes later."""
        layer, draws = self.architecture.layers[index], self.forward_draws
        if layer.drop == 0:
            return None
        if layer.noise.kind == "layers":
            return draw_noise(draws, layer, chain, signal[0, :, :1], exchangeable=False)
        # given inputs are what they are, unit by unit; with a residual branch a unit is the same
        # one from layer to layer
        before = self.architecture.layers[max(index - 1, 0)]
        plain = layer.skip == 0 and before.skip == 0 and (index > 0 or self.start.kind != "given")
        noise = draw_noise(draws, layer, chain, signal[0], exchangeable=plain)
        if noise is not None:
            noise.apply_(chain, signal)
            if slopes is not None:
                noise.apply_(chain, slopes)
        return None

    def _carriage(
        self, index: int, factor: Factor, chain: Chain, dtype: torch.dtype, sigma: float
    ) -> tuple[Chain, torch.dtype]:
        """How the vectors of a layer are carried, and in which precision, given those below it."""
        close, apart = self.precision.close, self.precision.apart
        if not self._recasts:
            return self.chain, close
        independent = factor.regular and not chain.steps
        if self.precision.mixed and self.architecture.widths[index] >= WIDE:
            squares, low, high = factor.squares, factor.least, factor.most
            if chain.steps:
                squares = np.square(chain.recast(factor.coordinates, chain.apart)).sum(0)
                low, high = squares.min(), squares.max()
            shortest, longest = plain_lengths(self.architecture.activation(index))
            plain = low * sigma**2 >= shortest**2 and high * sigma**2 <= longest**2
            surely = independent and dtype == apart
            if plain and (surely or factor.least_share(squares) > 2 * INDEPENDENT[apart]):
                return self.chain.apart, apart
        tied = self.chain.tied
        if independent or not tied:
            return self.chain.apart, close
        phi = self.architecture.activation(index)
        limit = LINEAR_BELOW[close] * min(1.0, phi.scale) / sigma
        differences = chain.recast(factor.coordinates, self.chain)[:, tied]
        if np.square(differences).sum(0).min() < limit**2:
            return self.chain, close
        return self.chain.apart, close

    def _measured(self, h: Tensor, chain: Chain, log: Array) -> _State:
        """The state with these vectors, brought back to a length of 1 where that is allowed."""
        factor, units = factorise(h, self.space, "unused"), h.shape[2]
        own = factor.coordinates
        if factor.regular and not chain.steps and self._range.holds(factor, units):
            return _State(h, chain, Carried(chain, own), log)
        mend_dead(h, own, chain)
        coordinates = chain.recast(own, self.chain)
        size = np.sqrt(np.square(coordinates).sum(0).max(0) / units)
        coordinates, log = self._range.apply_(h, coordinates, log, size)
        if not self._range.up:
            gone = (size < WIDEST[self.precision.close] ** -2) & (size > 0)
            if gone.any():
                h[:, torch.from_numpy(gone).to(h.device)] = 0
                coordinates = np.where(gone, 0.0, coordinates)
        faint = np.square(coordinates).sum(0) / units < FAINT[h.dtype] ** 2
        faint[self.chain.roots] = False
        if faint.any() and coordinates[:, faint].any():
            # equal from here on: the square of such a difference has lost its digits
            if chain.steps:
                h[torch.from_numpy(faint).to(h.device)] = 0
            coordinates = np.where(faint, 0.0, coordinates)
        return _State(h, chain, Carried(self.chain, coordinates), log)

    def _without_bias(
        self, x: Tensor, factor: Factor, chain: Chain, bias: Array
    ) -> tuple[Carried, Array]:
        """Activations and the bias beside them, which is left out where it would hide them."""
        both = factor.coordinates
        if not chain.steps and factor.least * (1 - HIDDEN) >= bias.max() ** 2:
            return Carried(chain, both), bias
        squares = np.square(np.einsum("jkr,kv->jvr", both, chain.paths)).sum(0)
        hidden = np.flatnonzero(np.any(squares - bias**2 < HIDDEN * squares, axis=0))
        if not hidden.size:
            return Carried(chain, both), bias
        where = torch.from_numpy(hidden).to(x.device)
        columns = x[:, where]
        alone = factorise(columns, self.space, "unused").coordinates
        mend_dead(columns, alone, chain)
        x[:, where] = columns
        both, bias = both.copy(), bias.copy()
        both[:, :, hidden], bias[hidden] = 0, 0
        both[: len(alone), :, hidden] = alone
        return Carried(chain, both), bias

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
        log = loss.degree * state.log
        if delta.dtype != h.dtype:
            peak = delta.abs().amax((0, 2)).cpu().numpy()
            exponent = np.where(np.isfinite(peak) & (peak > 0), np.frexp(peak)[1], 0)
            delta = delta.mul_(column(np.ldexp(1.0, -exponent), delta)).to(h.dtype)
            log = log + exponent * math.log(2)
        return delta, log

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
                factor = factorise(above, self.space, "unused")
                coordinates, dead = factor.coordinates, self._mended(above, factor, self.chain)
            trace.above.append(Carried(hop.above, coordinates))
            if self.absolute:
                trace.delta_abs.append(self._absolute(above, hop.above, copies))
            if bottom and index == 0 and not self.to_start:
                return delta, log
            assert hop.slopes is not None
            self._turn = not self._turn  # delta stands in the other one
            out = self.space.take(("delta", self._turn), hop.dtype, columns, self.nets, hop.units)
            recast = partial(hop.above.recast, other=hop.below)
            hop.weights.backward(self.backward_draws, above, coordinates, recast, out)
            for k, copy in enumerate(_copies(out, copies)):
                if dead is not None:
                    keep_dead(copy, np.split(dead, copies)[k], hop.below)
                hop.below.multiply_(hop.slopes, copy)
            if hop.skip:
                out.add_(delta, alpha=hop.skip)
            delta = out
        if bottom:
            *_, log = self._note_delta(trace, delta, hops[0].below, log)
        return delta, log

    def _note_delta(
        self, trace: Trace, delta: Tensor, chain: Chain, log: Array
    ) -> tuple[Array, NDArray[np.bool_] | None, Array]:
        """Coordinates of gradients, after bringing their length back to 1, and which have died."""
        factor, units = factorise(delta, self.space, "unused"), delta.shape[2]
        allowed = Range(
            WIDEST[self.precision.apart]
        )  # the narrower one: the next layer may need it
        dead = self._mended(delta, factor, chain)
        coordinates = factor.coordinates
        if not allowed.holds(factor, units):
            size = np.sqrt(np.square(coordinates).sum(0).max(0) / units)
            coordinates, log = allowed.apply_(delta, coordinates, log, size)
        trace.delta.append(Carried(chain, coordinates))
        trace.delta_log.append(log)
        return coordinates, dead, log

    def _mended(self, delta: Tensor, factor: Factor, chain: Chain) -> NDArray[np.bool_] | None:
        """Which gradients have died; they become zero. None where none has."""
        if factor.regular:
            return None
        inputs = len(chain)
        dead = [
            mend_dead(copy, factor.coordinates[:, k * inputs : (k + 1) * inputs], chain)
            for k, copy in enumerate(_copies(delta, len(delta) // inputs))
        ]
        return np.concatenate(dead)


def _range(architecture: Architecture, precision: Precision) -> Range:
    """The lengths that pre-activations may have."""
    widest, home = WIDEST[precision.close], 1.0
    if not architecture.scale_free:
        home = widest
    elif precision.mixed:
        widest = PLAIN
    unbiased = all(layer.sigma_b == 0 for layer in architecture.layers)
    return Range(
        widest * home,
        home,
        down=architecture.multiplies(widest),
        up=unbiased and architecture.multiplies(1 / widest),
    )


def _copies(columns: Tensor, count: int) -> Sequence[Tensor]:
    """Gradients of every output by themselves."""
    return [columns] if count == 1 else torch.chunk(columns, count)

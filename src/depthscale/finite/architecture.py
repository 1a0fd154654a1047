"""What goes into a block of random networks, and what is kept of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from depthscale.finite.columns import (
    Array,
    Chain,
    Factor,
    Workspace,
    combine,
    factorise,
    orthogonal,
    together,
)
from depthscale.finite.draws import Draws
from depthscale.finite.hops import Weights
from depthscale.theory.activation import Activation
from depthscale.theory.meanfield import MeanField


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

    def activation(self, index: int) -> Activation:
        """That of the pre-activations of one layer; of the last one, the readout's."""
        return self.layers[index].activation if index < len(self.layers) else self.output

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

    def factor(self, space: Workspace, units: int) -> Factor:
        """What the columns are on average, and exactly so unless they are drawn; of one network."""
        if self.kind == "given":
            given = torch.from_numpy(self.columns).to(space.device)
            return factorise(given[:, None], space, "start")
        return orthogonal((), None, self.columns[:, :, None] * math.sqrt(units))

    def vectors(self, draws: Draws, chain: Chain, out: Tensor) -> Tensor:
        """Fill the columns ``[column, net, unit]`` of a block, in some chain."""
        if self.kind == "given":
            columns = self.chain.recast(self.columns, chain)
            return out.copy_(torch.from_numpy(columns)[:, None])
        drawn = draws.normals(out.new_empty(len(self.columns), *out.shape[1:]))
        weights = self.chain.recast(self.columns[:, :, None].repeat(out.shape[1], 2), chain)
        if self.kind == "pinned":
            factor = factorise(drawn, Workspace(out.device), "start")
            weights = np.einsum("ijr,jkr->ikr", factor.mix, weights) * math.sqrt(out.shape[2])
            drawn = together(factor.raw)
        return combine(drawn, weights, out, upper=True)


class Carried(NamedTuple):
    """Vectors of one layer.

    Attributes:
        chain: of their columns.
        coordinates: in some orthonormal basis, ``[direction, column, net]``.
    """

    chain: Chain
    coordinates: Array


@dataclass
class Trace:
    """What is kept of a block: vectors, true up to the factor ``exp(log)``, logarithms ``[net]``.

    Attributes:
        chain: of the inputs; vectors come in this chain, or every one as it is.
        h, h_log: pre-activations of each layer.
        x, x_log: activations of each hop, with noise but for its ``gain``; the bias is one more
            unit.
        bias: its value in the first column, ``[net]``, over the same ``gain``.
        delta, above, delta_log: ``dE/dh`` of each layer, last layer first, and the same behind the
            noise on the whole layer.
        x_abs, delta_abs: sums of ``|x_a x_b|`` and ``|delta_a delta_b|``, ``[input, input, net]``,
            the former over the square of ``gain``.
        units: named averages over units of each hop, ``[input, net]``.
    """

    chain: Chain
    h: list[Carried] = field(default_factory=list)
    h_log: list[Array] = field(default_factory=list)
    x: list[Carried] = field(default_factory=list)
    x_log: list[Array] = field(default_factory=list)
    bias: list[Array] = field(default_factory=list)
    x_abs: list[Array] = field(default_factory=list)
    units: dict[str, list[Array]] = field(default_factory=dict)
    delta: list[Carried] = field(default_factory=list)
    above: list[Carried] = field(default_factory=list)
    delta_log: list[Array] = field(default_factory=list)
    delta_abs: list[Array] = field(default_factory=list)

"""From the trace of a block to its observables, as signs and logarithms of their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthscale.finite.architecture import Architecture, Carried, Trace
from depthscale.finite.columns import Array
from depthscale.finite.noise import gain
from depthscale.finite.signed import signed_log

Signed = tuple[Array, Array]


class Observable(NamedTuple):
    """What an observable is: its dimensions behind ``net``, and in words."""

    dims: tuple[str, str]
    text: str
    positive: bool = True


OBSERVABLES = {
    "q": Observable(("input", "layer"), "mean square pre-activation |h|^2/n"),
    "eps": Observable(("pair", "layer"), "one minus the cosine of two pre-activations"),
    "separation": Observable(("pair", "layer"), "mean square difference |h_a - h_b|^2/n"),
    "activation_mean": Observable(
        ("input", "hop"), "mean of phi(h) over units, before noise", False
    ),
    "activation_square": Observable(("input", "hop"), "mean square of phi(h), before noise"),
    "zero_share": Observable(
        ("input", "hop"), "share of units with phi(h) = 0 as computed, before noise"
    ),
    "delta_aa": Observable(("input", "layer"), "squared norm of dE/dh"),
    "delta_eps": Observable(("pair", "layer"), "one minus the cosine of dE_a/dh and dE_b/dh"),
    "grad_aa": Observable(("input", "hop"), "squared norm of dE_a/dW"),
    "grad_ab": Observable(("pair", "hop"), "inner product of dE_a/dW and dE_b/dW", False),
    "grad_ab_abs": Observable(("pair", "hop"), "sum of |dE_a/dw dE_b/dw| over the weights w"),
    "grad_cos": Observable(("pair", "hop"), "cosine of dE_a/dW and dE_b/dW", False),
    "ntk_aa": Observable(
        ("input", "total"), "tangent kernel, sum of (dE/dw)^2 over standard normal parameters w"
    ),
    "ntk_ab": Observable(
        ("pair", "total"), "tangent kernel, sum of dE_a/dw dE_b/dw over parameters", False
    ),
}

ALWAYS = ("q", "eps", "separation")
BACKWARD = ("delta_aa", "delta_eps", "grad_aa", "grad_ab", "grad_cos")


@dataclass(frozen=True)
class Watch:
    """What of a trace becomes observables.

    Attributes:
        pairs: the pairs of inputs that are followed.
        absolute: whether sums of absolute values are observed.
        tangent: whether the neural tangent kernel is: the inner product of gradients by ``w`` and
            ``b`` in ``W = sigma_w/sqrt(n) w`` and ``sigma_b b``, so that a gradient by weights
            enters with ``sigma_w^2/n``, one by biases with ``sigma_b^2``.
    """

    pairs: tuple[tuple[int, int], ...]
    absolute: bool
    tangent: bool

    def observables(self, trace: Trace, architecture: Architecture) -> dict[str, Signed]:
        """Every observable as ``(sign, log_abs)``, each ``[net, *its dims]``."""
        forward = _Family(trace, trace.h, trace.h_log)
        widths = np.array(architecture.widths)
        found = {
            "q": forward.squares(np.log(widths)),
            "eps": forward.misalignments(self.pairs),
            "separation": forward.separations(self.pairs, np.log(widths)),
        }
        for name, values in trace.units.items():
            power = {"activation_mean": 1, "activation_square": 2, "zero_share": 0}[name]
            sign, log = signed_log(np.array(values))
            found[name] = _by_net(sign, log + power * np.array(trace.x_log)[:, None])
        if trace.above:
            found |= self._gradients(trace, architecture)
        return found

    def _gradients(self, trace: Trace, architecture: Architecture) -> dict[str, Signed]:
        delta = _Family(trace, trace.delta[::-1], trace.delta_log[::-1])
        depth = architecture.depth
        above = _Family(trace, trace.above[::-1], trace.delta_log[:depth][::-1])
        below = _Family(trace, trace.x, trace.x_log)
        gains = np.array([gain(layer) for layer in architecture.layers])[:, None]
        below.log = below.log + np.log(gains)
        found = {
            "delta_aa": delta.squares(),
            "delta_eps": delta.misalignments(self.pairs),
        }
        first, second = self._ends
        inputs = len(trace.chain)
        cells = np.r_[:inputs, first], np.r_[:inputs, second]  # every input, then the pairs
        deltas = above.products(*cells)
        signals = below.products(*cells) - np.array(trace.bias)[:, None] ** 2
        np.maximum(signals[:, :inputs], 0.0, out=signals[:, :inputs])
        log = 2 * (above.log + below.log)[:, None]
        sign, size = signed_log(deltas * signals)
        size += log
        found["grad_aa"] = _by_net(sign[:, :inputs], size[:, :inputs])
        found["grad_ab"] = _by_net(sign[:, inputs:], size[:, inputs:])
        norms = np.sqrt(deltas[:, :inputs] * signals[:, :inputs])
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines = deltas[:, inputs:] * signals[:, inputs:]
            cosines /= norms[:, first] * norms[:, second]
        found["grad_cos"] = _by_net(*signed_log(cosines))
        if self.absolute:
            sums = np.array([d[first, second] for d in trace.delta_abs[::-1]])
            sums *= np.array([x[first, second] for x in trace.x_abs])
            sign_abs, size_abs = signed_log(sums)
            found["grad_ab_abs"] = _by_net(sign_abs, size_abs + log)
        if self.tangent:
            layers = architecture.layers
            fan = np.array(
                [y.sigma_w**2 / n for y, n in zip(layers, architecture.widths, strict=False)]
            )
            bias = np.array([layer.sigma_b**2 for layer in layers])
            signals *= np.exp(2 * below.log)[:, None]
            parts = deltas * (fan[:, None, None] * signals + bias[:, None, None])
            sign, size = (v[None] for v in _scaled_sum(parts, 2 * above.log))
            found["ntk_aa"] = _by_net(sign[:, :inputs], size[:, :inputs])
            found["ntk_ab"] = _by_net(sign[:, inputs:], size[:, inputs:])
        return found

    @property
    def _ends(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and second inputs of the pairs."""
        first, second = np.array(self.pairs, dtype=int).reshape(-1, 2).T
        return first, second


def _scaled_sum(parts: Array, log: Array) -> Signed:
    """``sum_l parts_l exp(log_l)`` of ``parts [layer, cell, net]``, as sign and logarithm."""
    top = log.max(axis=0)
    sign, size = signed_log(np.einsum("lcr,lr->cr", parts, np.exp(log - top)))
    return sign, size + top


class _Family:
    """Vectors of all layers in their coordinates.

    Args:
        trace: for the chain.
        carried: of each layer; columns are those of a number of copies of the inputs.
        log: ``[layer][net]``, of their scale.
    """

    def __init__(self, trace: Trace, carried: Sequence[Carried], log: Sequence[Array]) -> None:
        directions = max(len(layer.coordinates) for layer in carried)
        stacked = np.zeros((len(carried), directions, *carried[0].coordinates.shape[1:]))
        for layer, known in zip(stacked, carried, strict=True):
            layer[: len(known.coordinates)] = known.coordinates
        other = [k for k, known in enumerate(carried) if known.chain.parents != trace.chain.parents]
        if other:
            stacked[other] = trace.chain.apart.recast(stacked[other], trace.chain)
        inputs = len(trace.chain)
        layers, directions, columns, nets = stacked.shape
        # [layer, direction, copy, column, net] -> [layer, direction of any copy, column, net]
        split = stacked.reshape(layers, directions, columns // inputs, inputs, nets)
        self.columns = split.reshape(layers, -1, inputs, nets)
        self.chain = trace.chain
        vectors = self.chain.recast(self.columns, self.chain.apart)
        self.vectors = vectors[:, :, self.chain.places]
        self.log = np.array(log)

    def squares(self, log_units: Array | float = 0.0) -> Signed:
        """``|v|^2/n`` of every vector."""
        sign, size = signed_log(np.square(self.vectors).sum(1))
        size += 2 * self.log[:, None] - np.asarray(log_units).reshape(-1, 1, 1)
        return _by_net(sign, size)

    def products(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Array:
        """Inner products of pairs of vectors, ``[layer, pair, net]``, without the scale."""
        left, right = self.vectors[:, :, first], self.vectors[:, :, second]
        return np.asarray((left * right).sum(1))

    def _differences(self, pairs: Sequence[tuple[int, int]]) -> Array:
        """``second - first``, summed along the chain: exact for a vector and its parent."""
        result = np.zeros((*self.columns.shape[:2], len(pairs), self.columns.shape[-1]))
        sums = self.chain.sums
        for k, (first, second) in enumerate(pairs):
            path = sums[:, second] - sums[:, first]
            for column in np.flatnonzero(path):
                result[:, :, k] += path[column] * self.columns[:, :, column]
        return result

    def separations(self, pairs: Sequence[tuple[int, int]], log_units: Array) -> Signed:
        """``|v_a - v_b|^2/n``."""
        sign, size = signed_log(np.square(self._differences(pairs)).sum(1))
        return _by_net(sign, size + 2 * self.log[:, None] - log_units.reshape(-1, 1, 1))

    def misalignments(self, pairs: Sequence[tuple[int, int]]) -> Signed:
        """``1 - cos = |a/|a| - b/|b||^2/2`` without cancellation; NaN where a vector is zero.

        With ``b = a + d``: ``a/|a| - b/|b| = a (1/|a| - 1/|b|) - d/|b|``, and the difference in
        brackets is ``(2 a.d + d.d)/((|a| + |b|) |a| |b|)``.
        """
        first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
        a, d = self.vectors[:, :, first], self._differences(pairs)
        sizes = np.sqrt(np.square(self.vectors).sum(1))
        size_a, size_b = sizes[:, first], sizes[:, second]
        with np.errstate(divide="ignore", invalid="ignore"):
            tilt = (2 * a + d) / size_a[:, None] * (d / size_b[:, None])
            tilt = tilt.sum(1) / (size_a + size_b)
            gap = a * tilt[:, None] - d / size_b[:, None]
            eps = np.square(gap).sum(1) / 2
        return _by_net(*signed_log(np.where((size_a > 0) & (size_b > 0), eps, np.nan)))


def _by_net(sign: Array, log: Array) -> Signed:
    """From ``[layer, cell, net]`` to ``[net, cell, layer]``; what is not finite does not exist."""
    log = np.where(sign == 0, -np.inf, log)
    sign = np.where(np.isnan(log) | (log == np.inf), np.nan, sign)
    return np.ascontiguousarray(sign.transpose(2, 1, 0)), np.ascontiguousarray(
        log.transpose(2, 1, 0)
    )

"""Random networks with ordinary weights: the slow reference for the sampler.

Nothing here is clever on purpose. Two inputs go through Gaussian matrices one after the other, the
chain rule goes back through the same matrices, and ``eps`` is read from the two vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from depthscale.answers import InputError
from depthscale.finite.ensemble import (
    Array,
    PairEnsemble,
    checked,
    empty_record,
    net_seeds,
    starting_pair,
)

if TYPE_CHECKING:
    from depthscale.theory.meanfield import MeanField


def explicit_pairs(
    layers: Sequence[MeanField],
    widths: Sequence[int],
    q1: float,
    q2: float,
    eps: float,
    *,
    nets: int = 64,
    seed: int = 0,
    start: str = "drawn",
    weights: Sequence[Sequence[Array]] | None = None,
) -> PairEnsemble:
    """Build random networks with all their weights and send a pair through, both ways.

    Same arguments, same law and same record as
    :func:`~depthscale.finite.ensemble.sample_pairs`, at O(width^2) a layer; all the weights of one
    network are in memory at a time. ``eps`` is a difference of two stored vectors here, so its
    relative error is about ``1e-16 / sqrt(eps)`` a layer.

    Args:
        weights: ``weights[net][hop]`` of shape (width above, width below), standard normal, to be
            scaled by ``sigma_w / sqrt(n)``; drawn from the seed where not given. Several
            architectures can so share their networks, which saves nearly all of the time.

    Raises:
        InputError: with what was given and what is expected.

    Example:
        >>> from depthscale.theory.meanfield import MeanField
        >>> explicit_pairs([MeanField("tanh", sigma_w=1.2)] * 3, [50] * 4, 1.0, 1.0, 0.1).nets
        64
    """
    widths = checked(layers, widths, q1, q2, eps, nets, seed, start)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    if weights is not None and any([w.shape for w in net] != shapes for net in weights[:nets]):
        raise InputError(f"weights: expected matrices of the shapes {shapes} for every network")
    record = empty_record(widths, nets, seed, "explicit")
    for net, net_seed in enumerate(net_seeds(seed, nets)):
        # Not the sampler's generator: the two must not share their randomness in a comparison.
        stream = np.random.Generator(np.random.SFC64(net_seed))
        drawn = [stream.standard_normal(s) for s in shapes] if weights is None else weights[net]
        normal = stream.standard_normal((2, 1, widths[0]))
        mean, half = starting_pair(normal, q1, q2, eps, start)[:, 0]
        _run(stream, layers, drawn, [mean + half, mean - half], record, net)
    record.gradient[:] /= record.gradient[:, -1:]
    return record


def _run(
    stream: np.random.Generator,
    layers: Sequence[MeanField],
    weights: Sequence[Array],
    h: list[Array],
    record: PairEnsemble,
    net: int,
) -> None:
    """One network forwards and backwards; ``W = scale weights``, without a scaled copy of them."""
    scales = [layer.sigma_w / np.sqrt(w.shape[1]) for layer, w in zip(layers, weights, strict=True)]
    slopes = []
    _note_forward(record, net, 0, h)
    for index, (layer, w, scale) in enumerate(zip(layers, weights, scales, strict=True)):
        masks = _masks(stream, layer, w.shape[1])
        phi = layer.activation
        x = [mask * phi(v) for mask, v in zip(masks, h, strict=True)]
        slopes.append([mask * phi.derivative(v) for mask, v in zip(masks, h, strict=True)])
        bias = layer.sigma_b * stream.standard_normal(w.shape[0])
        h = [scale * (w @ v) + bias for v in x]
        _note_forward(record, net, index + 1, h)
    readout = stream.standard_normal(len(h[0]))
    delta = [readout, readout]
    _note_backward(record, net, len(layers), delta)
    for index in reversed(range(len(layers))):
        back = [scales[index] * (weights[index].T @ v) for v in delta]
        delta = [slope * v for slope, v in zip(slopes[index], back, strict=True)]
        _note_backward(record, net, index, delta)


def _masks(stream: np.random.Generator, layer: MeanField, width: int) -> list[Array]:
    """``mask/rho`` for the first and for the second input."""

    def mask() -> Array:
        return (stream.random(width) >= layer.drop) / (1 - layer.drop)

    if layer.masks == "shared":
        return [mask()] * 2
    if layer.masks == "clean":
        return [mask(), np.ones(width)]
    return [mask(), mask()]


def misalignment(a: Array, b: Array) -> float:
    """``1 - cos`` of two vectors as ``|a/|a| - b/|b||^2 / 2``; NaN when one of them is zero."""
    sizes = np.sqrt(a @ a), np.sqrt(b @ b)
    if min(sizes) == 0:
        return np.nan
    gap = a / sizes[0] - b / sizes[1]
    return float(gap @ gap / 2)


def _note_forward(record: PairEnsemble, net: int, layer: int, h: list[Array]) -> None:
    record.lengths[:, net, layer] = [v @ v / v.size for v in h]
    record.eps[net, layer] = misalignment(*h)


def _note_backward(record: PairEnsemble, net: int, layer: int, delta: list[Array]) -> None:
    record.gradient[net, layer] = delta[0] @ delta[0]
    record.gradient_eps[net, layer] = misalignment(*delta)

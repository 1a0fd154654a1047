"""Random networks with ordinary weights: the slow reference for the sampler.

Nothing here is clever on purpose. Two inputs go through Gaussian matrices one after the other, the
chain rule goes back through the same matrices, and ``eps`` is read from the two vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from depthscale.answers import InputError
from depthscale.finite.columns import Array
from depthscale.finite.ensemble import Pair, check_layers, whole
from depthscale.finite.pairs import PairEnsemble

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
    :func:`~depthscale.finite.ensemble.sample_pairs`, at O(width^2) a layer, and dropped weights
    (DropConnect) too; all the weights of one network are in memory at a time (three times where
    weights are dropped). ``eps`` is a difference of two stored vectors here, so its
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
    pair = Pair(eps, q1, q2, start)
    widths = check_layers(layers, widths, pinned=start == "pinned")
    nets, seed = whole("nets", nets, 1), whole("seed", seed, 0)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    if weights is not None and any([w.shape for w in net] != shapes for net in weights[:nets]):
        raise InputError(f"weights: expected matrices of the shapes {shapes} for every network")
    empty = (np.empty((nets, len(widths))) for _ in range(3))
    record = PairEnsemble(np.empty((2, nets, len(widths))), *empty, widths, seed, "explicit")
    for net, net_seed in enumerate(np.random.SeedSequence(seed).spawn(nets)):
        # Not the sampler's generator: the two must not share their randomness in a comparison.
        stream = np.random.Generator(np.random.PCG64(net_seed))
        drawn = [stream.standard_normal(s) for s in shapes] if weights is None else weights[net]
        directions = stream.standard_normal((2, widths[0]))
        if start == "pinned":
            directions = np.linalg.qr(directions.T)[0].T * np.sqrt(widths[0])
        first, step = pair.coordinates.T @ directions
        _run(stream, layers, drawn, [first, first + step], record, net)
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
    slopes, matrices, on_layers = [], [], []
    _note_forward(record, net, 0, h)
    for index, (layer, w, scale) in enumerate(zip(layers, weights, scales, strict=True)):
        on_units, on_weights, on_layer = _noise(stream, layer, w.shape)
        phi = layer.activation
        x = [d * phi(v) for d, v in zip(on_units, h, strict=True)]
        slopes.append([d * phi.derivative(v) for d, v in zip(on_units, h, strict=True)])
        matrices.append([w if d is None else d * w for d in on_weights])
        on_layers.append(on_layer)
        bias = layer.sigma_b * stream.standard_normal(w.shape[0])
        branch = [scale * (m @ v) + bias for m, v in zip(matrices[-1], x, strict=True)]
        h = [
            layer.skip * v + d * b if layer.skip else d * b
            for v, d, b in zip(h, on_layer, branch, strict=True)
        ]
        _note_forward(record, net, index + 1, h)
    readout = stream.standard_normal(len(h[0]))
    delta = [readout, readout]
    _note_backward(record, net, len(layers), delta)
    for index in reversed(range(len(layers))):
        for k in range(2):
            back = scales[index] * (matrices[index][k].T @ (on_layers[index][k] * delta[k]))
            through = slopes[index][k] * back
            skip = layers[index].skip
            delta[k] = skip * delta[k] + through if skip else through
        _note_backward(record, net, index, delta)


def _noise(
    stream: np.random.Generator, layer: MeanField, shape: tuple[int, int]
) -> tuple[list[Array], list[Array | None], list[Array]]:
    """Factors of mean 1 on the units below, on the weights and on the layer; each of 2 inputs."""
    idle = [np.ones(1)] * 2
    kind = layer.noise.kind
    if kind == "gaussian":
        return _gaussian(stream, layer, shape[1]), [None, None], idle
    if kind == "units":
        return _masks(stream, layer, (shape[1],)), [None, None], idle
    if kind == "weights":
        return idle, [*_masks(stream, layer, shape)], idle
    return idle, [None, None], _masks(stream, layer, (1,))


def _masks(stream: np.random.Generator, layer: MeanField, shape: tuple[int, ...]) -> list[Array]:
    """``mask/rho`` for the first and for the second input."""

    def mask() -> Array:
        return (stream.random(shape) >= layer.drop) / (1 - layer.drop)

    first, overlap = mask(), layer.noise.overlap
    if layer.noise.clean:
        return [first, np.ones(shape)]
    if overlap == 1:
        return [first, first]
    second = mask()
    if overlap > 0:
        second = np.where(stream.random(shape) < overlap, first, second)
    return [first, second]


def _gaussian(stream: np.random.Generator, layer: MeanField, width: int) -> list[Array]:
    """``1 + N(0, drop/(1 - drop))`` for both inputs, of correlation ``overlap``."""
    first, other = stream.standard_normal((2, width))
    second = layer.noise.overlap * first + np.sqrt(1 - layer.noise.overlap**2) * other
    spread = np.sqrt(layer.drop / (1 - layer.drop))
    return [1 + spread * first, 1 + spread * second]


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

"""Random networks with ordinary weights: the slow referees of the sampler.

Nothing here is clever on purpose. ``explicit_networks`` builds every matrix, bias and mask, sends
vectors through them and leaves gradients to torch's autograd; ``explicit_pairs`` does so in numpy
for a pair, with the chain rule written out. ``eps`` is read from two stored vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor
from torch.nn import functional

from depthscale.answers import InputError
from depthscale.finite.columns import Array
from depthscale.finite.ensemble import ALL_PAIRS, Ensemble, Pair
from depthscale.finite.pairs import PairEnsemble
from depthscale.theory.activation import Activation
from depthscale.theory.arguments import checked_widths
from depthscale.theory.records import as_numbers, whole

if TYPE_CHECKING:
    from depthscale.theory.meanfield import MeanField

BATCH = 1 << 20  # numbers in the weights of a batch of networks and their gradients


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
    widths = checked_widths(layers, widths)
    pair.check_units(widths[0])
    nets, seed = whole("nets", nets, 1), whole("seed", seed, 0)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    if weights is not None and any([w.shape for w in net] != shapes for net in weights[:nets]):
        raise InputError(f"weights: expected matrices of the shapes {shapes} for every network")
    lengths, rest = (np.empty((k, nets, len(widths))) for k in (2, 3))
    record = PairEnsemble(lengths, rest[0], rest[1], rest[2], widths, seed, "explicit")
    for net, net_seed in enumerate(np.random.SeedSequence(seed).spawn(nets)):
        # Not the sampler's generator: the two must not share their randomness in a comparison.
        stream = np.random.Generator(np.random.PCG64(net_seed))
        drawn = [stream.standard_normal(s) for s in shapes] if weights is None else weights[net]
        directions = stream.standard_normal((2, widths[0]))
        if start == "pinned":
            q, r = np.linalg.qr(directions.T)  # Haar only with these signs
            directions = (q * np.sign(np.diag(r))).T * np.sqrt(widths[0])
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


def explicit_networks(
    networks: Ensemble | tuple[Sequence[MeanField], Sequence[int]],
    inputs: Pair | ArrayLike,
    nets: int,
    *,
    seed: int = 0,
    loss: str | Callable[[Tensor], Tensor] | None = None,
    labels: Sequence[int] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    to_start: bool = False,
) -> dict[str, Array]:
    """Every observable of random networks with weights, from vectors and autograd's gradients.

    The law of ``Ensemble.forward`` and ``backward`` at O(width^2) a layer: matrices ``W``, drawn or
    Haar, with biases, noise and branches; ``dE_a/dW`` is a matrix for each input, and the tangent
    kernel is made of gradients by the standard normal numbers ``w, b`` in ``W = sigma_w/sqrt(n) w``
    and ``sigma_b b``. Float64 throughout, and no scale is taken out: it ends where floats do, and
    ``eps`` has a relative error of about ``1e-16 / sqrt(eps)`` a layer.

    Args:
        networks: an ``Ensemble``, or one ``MeanField`` a hop and the widths, as for
            ``Ensemble.of``; dropped weights too.
        inputs, loss, labels, pairs: as for ``Ensemble.backward``; no loss, no gradients.
        nets: number of networks.
        seed: a whole number, at least 0; another stream than the sampler's.
        to_start: whether ``delta`` reaches layer 0.

    Returns:
        By the names of ``OBSERVABLES``, values ``[net, input or pair, layer or hop]`` as
        ``Sampled.values`` has them; NaN where one does not exist.

    Raises:
        InputError: with what was given and what is expected.

    Example:
        >>> networks = Ensemble("relu", sigma_w=1.4, width=[3, 8, 8, 2], depth=3)
        >>> result = explicit_networks(networks, Pair(eps=0.5), nets=10, loss="quadratic")
        >>> result["eps"].shape, result["grad_aa"].shape, result["ntk_ab"].shape
        ((10, 1, 4), (10, 2, 3), (10, 1, 1))
    """
    if isinstance(networks, Ensemble):
        if not networks.tied:
            raise InputError("tied=False has no weights to build: expected tied=True")
        layers, widths, output = networks.layers, networks.widths, networks.output
    else:
        layers, widths = tuple(networks[0]), checked_widths(*networks)
        output = layers[-1].activation
    nets, seed = whole("nets", nets, 1), whole("seed", seed, 0)
    orthogonal = isinstance(networks, Ensemble) and networks.weights == "orthogonal"
    vectors = inputs if isinstance(inputs, Pair) else torch.tensor(as_numbers("inputs", inputs))
    count = 2 if isinstance(vectors, Pair) else len(vectors)
    if pairs is None:
        every = list(combinations(range(count), 2))
        pairs = every if count <= ALL_PAIRS else [(0, k) for k in range(1, count)]
    numbers = sum(n * m for n, m in zip(widths[1:], widths[:-1], strict=True))
    size = max(1, min(nets, BATCH // (numbers * (count + 4))))
    found = []
    for batch_seed in np.random.SeedSequence(seed).spawn(-(-nets // size)):
        stream = Generator().manual_seed(int(batch_seed.generate_state(1, np.uint64)[0] >> 1))
        start = _start(stream, vectors, size, widths[0])
        batch = _signals(stream, layers, widths, orthogonal, start)
        values = _of_signals(batch, pairs)
        if loss is not None:
            losses = _losses(stream, loss, labels, batch.h[-1], output)
            values |= _of_gradients(batch, losses, pairs, to_start)
        found.append({name: value.detach().numpy() for name, value in values.items()})
    return {name: np.concatenate([part[name] for part in found])[:nets] for name in found[0]}


@dataclass
class _Batch:
    """Some networks, and the tensors that autograd is asked about; one a layer or hop.

    Attributes:
        h: pre-activations ``[net, input, unit]``.
        x: activations before noise.
        matrices: ``W``, ``[net, unit above, unit below]``.
        weights, biases: the same and the biases in standard normal numbers.
    """

    h: list[Tensor]
    x: list[Tensor] = field(default_factory=list)
    matrices: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    biases: list[Tensor] = field(default_factory=list)


def _normal(stream: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=stream, dtype=torch.float64)


def _haar(stream: Generator, nets: int, order: int, count: int) -> Tensor:
    """Columns of Haar matrices: ``Q`` of ``QR``, with the signs that make the diagonal of R > 0."""
    q, r = torch.linalg.qr(_normal(stream, nets, order, count))
    return torch.mul(q, torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[:, None, :])


def _start(stream: Generator, inputs: Pair | Tensor, nets: int, width: int) -> Tensor:
    """The vectors of layer 0, ``[net, input, unit]``."""
    if isinstance(inputs, Tensor):
        if inputs.ndim != 2 or inputs.shape[1] != width:
            raise InputError(f"inputs have shape {tuple(inputs.shape)}: expected [input, {width}]")
        return inputs.expand(nets, -1, -1).clone()
    if inputs.start == "pinned":
        z = math.sqrt(width) * _haar(stream, nets, width, 2).mT
    else:
        z = _normal(stream, nets, 2, width)
    across = math.sqrt(inputs.eps * (2 - inputs.eps))
    first = math.sqrt(inputs.q1) * z[:, 0]
    second = math.sqrt(inputs.q2) * ((1 - inputs.eps) * z[:, 0] + across * z[:, 1])
    return torch.stack([first, second], 1)


def _signals(
    stream: Generator,
    layers: Sequence[MeanField],
    widths: Sequence[int],
    orthogonal: bool,
    start: Tensor,
) -> _Batch:
    """``h' = skip h + D_layer [(D_weights W) D_units phi(h) + b]``."""
    h = start.requires_grad_()
    nets, inputs = h.shape[:2]
    batch = _Batch([h])
    for layer, below, above in zip(layers, widths, widths[1:], strict=False):
        if orthogonal:
            order = max(below, above)
            weights = math.sqrt(order) * _haar(stream, nets, order, order)[:, :above, :below]
        else:
            weights = _normal(stream, nets, above, below)
        weights = weights.clone().requires_grad_()
        biases = _normal(stream, nets, 1, above).requires_grad_()
        matrix = layer.sigma_w / math.sqrt(below) * weights
        x = _apply(layer.activation, h)
        if layer.noise.kind == "weights":
            masked = _factors(stream, layer, nets, inputs, above, below) * matrix[:, None]
            branch = (masked @ x[..., None])[..., 0]
        elif layer.noise.kind == "layers":
            branch = x @ matrix.mT
        else:
            branch = (_factors(stream, layer, nets, inputs, below) * x) @ matrix.mT
        branch = branch + layer.sigma_b * biases
        if layer.noise.kind == "layers":
            branch = _factors(stream, layer, nets, inputs, 1) * branch
        h = layer.skip * h + branch if layer.skip else branch
        batch.h.append(h)
        batch.x.append(x)
        batch.matrices.append(matrix)
        batch.weights.append(weights)
        batch.biases.append(biases)
    return batch


def _factors(stream: Generator, layer: MeanField, nets: int, inputs: int, *what: int) -> Tensor:
    """Noise of mean 1, ``[net, input, *what]``: every input's own draw, or a common one.

    Two inputs' draws are correlated by ``overlap``, since each takes the common mask with
    probability ``sqrt(overlap)``, or adds the common normal number with that variance.
    """
    drop, overlap = layer.drop, layer.noise.overlap
    own, common = (nets, inputs, *what), (nets, 1, *what)
    if layer.noise.kind == "gaussian":
        normal = math.sqrt(1 - overlap) * _normal(stream, *own)
        normal = normal + math.sqrt(overlap) * _normal(stream, *common)
        return 1 + math.sqrt(drop / (1 - drop)) * normal
    takes = torch.rand(own, generator=stream, dtype=torch.float64) < math.sqrt(overlap)
    kept_own = torch.rand(own, generator=stream, dtype=torch.float64) >= drop
    kept_common = torch.rand(common, generator=stream, dtype=torch.float64) >= drop
    factors = torch.where(takes, kept_common, kept_own).double() / (1 - drop)
    if layer.noise.clean:
        factors[:, 1:] = 1
    return factors


_IN_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "abs": torch.abs,
    "hardtanh": functional.hardtanh,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sin": torch.sin,
    "sigmoid": torch.sigmoid,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "elu": functional.elu,
}


class _Elementwise(torch.autograd.Function):
    """Any other activation: its own value and derivative."""

    @staticmethod
    def forward(context: Any, x: Tensor, phi: Activation) -> Tensor:
        """``phi(x)``."""
        context.slope = torch.from_numpy(np.array(phi.derivative(x.detach().numpy())))
        return torch.from_numpy(np.array(phi(x.detach().numpy())))

    @staticmethod
    def backward(context: Any, above: Tensor) -> tuple[Tensor, None]:
        """``phi'(x)`` times what comes from above."""
        return above * context.slope, None


def _apply(phi: Activation, x: Tensor) -> Tensor:
    if phi.name in _IN_TORCH:
        return _IN_TORCH[phi.name](x)
    values: Tensor = _Elementwise.apply(x, phi)  # type: ignore[no-untyped-call]
    return values


def _losses(
    stream: Generator,
    loss: str | Callable[[Tensor], Tensor],
    labels: Sequence[int] | None,
    h: Tensor,
    output: Activation,
) -> list[Tensor]:
    """``E [net, input]``; several where inner products of gradients are summed over outputs."""
    if loss == "quadratic":
        return [(h**2).sum(-1) / 2]
    if loss in ("linear", "readout"):
        readout = _normal(stream, len(h), 1, h.shape[2])
        return [(readout * (h if loss == "linear" else _apply(output, h))).sum(-1)]
    if loss == "outputs":
        return list(h.unbind(-1))
    if loss == "cross_entropy" and labels is not None and len(labels) == h.shape[1]:
        wanted = [h[:, a, int(label)] for a, label in enumerate(labels)]
        return [torch.logsumexp(h, -1) - torch.stack(wanted, 1)]
    if callable(loss):
        return [loss(h)]
    raise InputError(
        f"loss is {loss!r} with labels {labels}: expected quadratic, readout, linear, outputs,"
        " cross_entropy with one label an input, or a function of the outputs"
    )


def _of_signals(batch: _Batch, pairs: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """Everything about the forward pass."""
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    return {
        "q": _stack([(h**2).mean(-1) for h in batch.h]),
        "eps": _stack([_misalignments(h[:, first], h[:, second]) for h in batch.h]),
        "separation": _stack([((h[:, first] - h[:, second]) ** 2).mean(-1) for h in batch.h]),
        "activation_mean": _stack([x.mean(-1) for x in batch.x]),
        "activation_square": _stack([(x**2).mean(-1) for x in batch.x]),
        "zero_share": _stack([(x == 0).double().mean(-1) for x in batch.x]),
    }


def _of_gradients(
    batch: _Batch, losses: Sequence[Tensor], pairs: Sequence[tuple[int, int]], to_start: bool
) -> dict[str, Tensor]:
    """Everything about the gradients ``dE_a/d.``, of every input by itself."""
    inputs, depth = batch.h[0].shape[1], len(batch.matrices)
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    asked = [*batch.h, *batch.matrices, *batch.weights, *batch.biases]
    delta: list[list[Tensor]] = [[] for _ in batch.h]
    squares, products, sizes = ([0 * batch.h[0][:, :1, 0]] * depth for _ in range(3))
    kernel_aa = kernel_ab = squares[0]
    for values in losses:
        each = [
            torch.autograd.grad(
                values[:, a].sum(), asked, retain_graph=True, materialize_grads=True
            )
            for a in range(inputs)
        ]
        for layer in range(depth + 1):
            delta[layer].append(torch.stack([each[a][layer][:, a] for a in range(inputs)], 1))
        for k in range(depth + 1, len(asked)):
            # [net, input, parameter]
            slopes = torch.stack([each[a][k].flatten(1) for a in range(inputs)], 1)
            square = (slopes**2).sum(-1)
            product = slopes[:, first] * slopes[:, second]
            hop = k - depth - 1
            if hop < depth:
                squares[hop] = squares[hop] + square
                products[hop] = products[hop] + product.sum(-1)
                sizes[hop] = sizes[hop] + product.abs().sum(-1)
            else:
                kernel_aa, kernel_ab = kernel_aa + square, kernel_ab + product.sum(-1)
    ends = [torch.cat(parts, -1) for parts in delta[0 if to_start else 1 :]]
    norms = [torch.sqrt(square[:, first] * square[:, second]) for square in squares]
    return {
        "delta_aa": _stack([(d**2).sum(-1) for d in ends]),
        "delta_eps": _stack([_misalignments(d[:, first], d[:, second]) for d in ends]),
        "grad_aa": _stack(squares),
        "grad_ab": _stack(products),
        "grad_ab_abs": _stack(sizes),
        "grad_cos": _stack([p / norm for p, norm in zip(products, norms, strict=True)]),
        "ntk_aa": kernel_aa[..., None],
        "ntk_ab": kernel_ab[..., None],
    }


def _stack(values: Sequence[Tensor]) -> Tensor:
    """From ``[net, cell]`` a layer to ``[net, cell, layer]``."""
    return torch.stack(list(values), -1)


def _misalignments(a: Tensor, b: Tensor) -> Tensor:
    """``1 - cos`` as ``|a/|a| - b/|b||^2/2``; NaN where one of them is zero."""
    gap = functional.normalize(a, dim=-1, eps=0) - functional.normalize(b, dim=-1, eps=0)
    return torch.sum(gap**2, -1) / 2

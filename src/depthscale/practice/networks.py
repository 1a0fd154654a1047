"""The networks of the experiments on dropout schedules: MLP, two ViTs, a residual CNN.

Each is built from a seed alone: torch's global generators are left as they were. Each drops at
places that ``dropout_sites`` finds, at the rate ``drop`` until a schedule is applied.
"""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import nn

from depthscale.answers import InputError
from depthscale.practice.network_parts import (
    ResidualBlock,
    ResidualNetwork,
    TransformerBlock,
    VisionTransformer,
)
from depthscale.practice.probe.operations import named_activation
from depthscale.practice.probe.state import check_seed


def build(
    name: str, input_shape: Sequence[int], classes: int, seed: int = 0, **sizes: Any
) -> nn.Module:
    """Return a network of ``NETWORKS`` on the CPU, in train mode; logits are [example, class].

    Args:
        name: "mlp", "vit", "hf-vit" or "resnet".
        input_shape: of one example; (channels, height, width) for all but the MLP, which flattens.
        classes: number of logits, at least 2.
        seed: of all weights; nothing else is drawn from, and no global generator is touched.
        sizes: the keyword arguments of the builder, such as ``depth=4``, ``drop=0.1``.

    Raises:
        InputError: an unknown name or size, a size out of its range, sizes that do not fit each
            other, or "hf-vit" without transformers.

    Example:
        >>> build("mlp", (1, 8, 8), classes=10, depth=2, width=32)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r}; expected one of {', '.join(NETWORKS)}")
    shape = _checked_shape(input_shape)
    _check_whole(classes=classes)
    if classes < 2:
        raise InputError(f"classes is {classes}; a network that classifies takes at least 2")
    check_seed(seed)
    builder = NETWORKS[name]
    _check_names(name, builder, sizes)
    with _seeded(seed):
        return builder(shape, classes, **sizes)


def mlp(
    input_shape: Sequence[int],
    classes: int,
    *,
    depth: int = 6,
    width: int = 256,
    activation: str | nn.Module = "relu",
    sigma_w: float = math.sqrt(1.98),
    sigma_b: float = math.sqrt(0.02),
    drop: float = 0.0,
) -> nn.Sequential:
    """``depth`` times Linear, activation, Dropout, and a readout; flattens its input.

    Weights are N(0, sigma_w^2/fan_in), biases N(0, sigma_b^2), by default those of 2605.21648,
    in the readout too. ``activation`` is a name of torch ("relu", "tanh", "gelu", ...) or a module,
    of which every layer gets a copy. Draws from torch's generator: call it through ``build``.
    """
    _check_whole(depth=depth, width=width)
    _check_rate(drop)
    for key, sigma in {"sigma_w": sigma_w, "sigma_b": sigma_b}.items():
        if not (isinstance(sigma, int | float) and math.isfinite(sigma) and sigma >= 0):
            raise InputError(f"{key} is {sigma!r}; expected a standard deviation, at least 0")
    act = _activation(activation)
    widths = [math.prod(input_shape), *[width] * depth]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        layers += [_gaussian(fan_in, fan_out, sigma_w, sigma_b), copy.deepcopy(act)]
        layers += [nn.Dropout(drop)]
    return nn.Sequential(*layers, _gaussian(widths[-1], classes, sigma_w, sigma_b))


def vit(
    input_shape: Sequence[int],
    classes: int,
    *,
    dim: int = 128,
    depth: int = 10,
    heads: int = 16,
    patch: int = 4,
    ratio: int = 4,
    drop: float = 0.0,
) -> VisionTransformer:
    """A pre-norm vision transformer in plain torch; its defaults are those of 2605.21648.

    ``patch`` divides height and width, ``heads`` divides ``dim``; the MLP of a block is ``ratio``
    times as wide as ``dim``. Four sites a block: attention weights, after the projection of
    attention, after the activation of the MLP and after the MLP.
    """
    channels, height, width = _image(input_shape, patch)
    _check_whole(dim=dim, depth=depth, heads=heads, patch=patch, ratio=ratio)
    _check_rate(drop)
    _check_heads(dim, heads)
    places = (height // patch) * (width // patch)
    embedding = nn.Conv2d(channels, dim, patch, stride=patch)
    blocks = [TransformerBlock(dim, heads, ratio * dim, drop) for _ in range(depth)]
    return VisionTransformer(embedding, places, blocks, classes)


def hf_vit(
    input_shape: Sequence[int],
    classes: int,
    *,
    dim: int = 128,
    depth: int = 10,
    heads: int = 16,
    patch: int = 4,
    ratio: int = 4,
    drop: float = 0.0,
) -> nn.Module:
    """The ViT of Hugging Face transformers from a config, random weights; it returns logits alone.

    It is a ``ViTForImageClassification``: the names of its modules and of its state are the same.
    Sites: the embeddings, and in each block the attention weights and one shared dropout, which
    acts both after the projection of attention and after the MLP. ``drop`` is the rate of all.
    """
    channels, height, width = _image(input_shape, patch)
    _check_whole(dim=dim, depth=depth, heads=heads, patch=patch, ratio=ratio)
    _check_rate(drop)
    _check_heads(dim, heads)
    transformers = _transformers()
    config = transformers.ViTConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=ratio * dim,
        image_size=height if height == width else (height, width),
        patch_size=patch,
        num_channels=channels,
        num_labels=classes,
        hidden_dropout_prob=drop,
        attention_probs_dropout_prob=drop,
    )
    model: nn.Module = _hf_class()(config)
    return model.train()


def resnet(
    input_shape: Sequence[int],
    classes: int,
    *,
    blocks: Sequence[int] = (3, 3, 3),
    channels: Sequence[int] = (16, 32, 64),
    stride: int = 1,
    norm: str = "group",
    groups: int = 4,
    drop: float = 0.0,
) -> ResidualNetwork:
    """A residual CNN with stochastic depth: each block's branch is left out at the rate ``drop``.

    One entry of ``blocks`` and ``channels`` a stage; from the second on, a stage halves height and
    width. Identity branches hold no weights (averages of 2 x 2 pixels, channels filled with
    zeros), so that a block whose branch is left out is the identity. ``stride`` is that of the
    first convolution, ``norm`` "group" (of ``groups`` groups) or "batch".
    """
    listed = all(isinstance(sizes, Sequence) and len(sizes) > 0 for sizes in (blocks, channels))
    if not listed or len(blocks) != len(channels):
        raise InputError(
            f"blocks are {blocks!r} and channels {channels!r}; expected one of each for every stage"
        )
    _check_whole(stride=stride, groups=groups)
    for stage, (count, width) in enumerate(zip(blocks, channels, strict=True), start=1):
        _check_whole(**{f"blocks of stage {stage}": count, f"channels of stage {stage}": width})
    _check_rate(drop)
    make = _norm(norm, groups, channels)
    inside, height, width = _image(input_shape, 1)
    if min(height, width) < stride * 2 ** (len(blocks) - 1):
        raise InputError(
            f"pictures of {height} x {width} are too small for a stride of {stride} and "
            f"{len(blocks)} stages, which halve them {len(blocks) - 1} times; give fewer stages"
        )
    if any(after < before for before, after in pairwise(channels)):
        raise InputError(f"channels are {tuple(channels)}; expected a sequence that never falls")
    stem = nn.Conv2d(inside, channels[0], 3, stride=stride, padding=1, bias=False)
    body: list[ResidualBlock] = []
    before = channels[0]
    for stage, (count, width) in enumerate(zip(blocks, channels, strict=True)):
        for place in range(count):
            body.append(ResidualBlock(before, width, 1 + (stage > 0 and place == 0), make, drop))
            before = width
    return ResidualNetwork(stem, body, make(before), nn.Linear(before, classes))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "vit": vit,
    "hf-vit": hf_vit,
    "resnet": resnet,
}


def _transformers() -> Any:
    """The module, untyped: whether it is installed shall not matter to a type checker."""
    if find_spec("transformers") is None:
        raise InputError(
            "the network hf-vit takes transformers: pip install depthscale[transformers]"
        )
    return import_module("transformers")


@functools.cache
def _hf_class() -> Any:
    """The classifier of transformers, but for what it returns."""

    class LogitsOfViT(_transformers().ViTForImageClassification):  # type: ignore[misc]
        """It returns the logits alone, which a training loop for any torch model takes."""

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = super().forward(pixel_values).logits
            return logits

    return LogitsOfViT


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw all weights from one seed, on the CPU; put its generator back."""
    # torch.manual_seed would seed those of the accelerators too, which fork_rng then leaves so.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield


def _gaussian(fan_in: int, fan_out: int, sigma_w: float, sigma_b: float) -> nn.Linear:
    # By way of the meta device, which draws no numbers that are thrown away.
    linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
    nn.init.normal_(linear.weight, std=sigma_w / math.sqrt(fan_in))
    nn.init.normal_(linear.bias, std=sigma_b)
    return linear


def _activation(activation: str | nn.Module) -> nn.Module:
    if isinstance(activation, nn.Module):
        return activation
    try:
        made = named_activation(activation, (), {}) if isinstance(activation, str) else None
    except TypeError:  # a name that means nothing without parameters, such as "threshold"
        made = None
    if made is None or not isinstance(made[0], nn.Module):
        raise InputError(
            f"unknown activation {activation!r}; expected a name such as 'relu', 'tanh' or 'gelu', "
            "or a torch module"
        )
    return made[0]


def _norm(norm: str, groups: int, channels: Sequence[int]) -> Callable[[int], nn.Module]:
    if norm == "batch":
        return nn.BatchNorm2d
    if norm != "group":
        raise InputError(f"unknown norm {norm!r}; expected 'group' or 'batch'")
    if any(width % groups for width in channels):
        raise InputError(f"groups is {groups}; it must divide the channels {tuple(channels)}")
    return functools.partial(nn.GroupNorm, groups)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if not sizes or not all(isinstance(size, Integral) and size >= 1 for size in sizes):
        raise InputError(
            f"the shape of an example is {shape!r}; expected whole numbers, at least 1, such as "
            "(1, 28, 28)"
        )
    return tuple(int(size) for size in sizes)


def _image(shape: Sequence[int], patch: int) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise InputError(
            f"an example has shape {tuple(shape)}; expected (channels, height, width); reshape the "
            "data, as DataSet.reshape((1, 28, 28)) does"
        )
    _check_whole(patch=patch)
    channels, height, width = shape
    if height % patch or width % patch:
        raise InputError(f"patch is {patch}; it must divide the picture of {height} x {width}")
    return channels, height, width


def _check_names(name: str, builder: Callable[..., nn.Module], sizes: dict[str, Any]) -> None:
    known = [*inspect.signature(builder).parameters][2:]
    for key in sizes:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise InputError(
                f"unknown size {key!r} of the network {name}; "
                + (f"did you mean {close[0]!r}? " if close else "")
                + f"It takes {', '.join(known)}"
            )


def _check_whole(**sizes: Any) -> None:
    for key, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
            raise InputError(f"{key} is {size!r}; expected a whole number, at least 1")


def _check_rate(drop: Any) -> None:
    if isinstance(drop, bool) or not isinstance(drop, int | float) or not 0.0 <= drop < 1.0:
        raise InputError(f"drop is {drop!r}; expected the probability dropped, in [0, 1)")


def _check_heads(dim: int, heads: int) -> None:
    if dim % heads:
        raise InputError(f"dim is {dim} and heads {heads}; heads must divide dim")

"""Awkward models, each with inputs that fit: everything that looks at models runs over them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

WIDTH = 16
FEATURES = 6
CLASSES = 4
BATCH = 8


@dataclass(frozen=True)
class Specimen:
    """A model, inputs for it, and what the introspection should make of it.

    ``layers`` are the names measured, in order; ``theory`` says whether a chain is recognised and
    ``reason`` holds words of the answer where it is not; ``drops`` whether training draws masks.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    layers: tuple[str, ...]
    theory: bool
    reason: str = ""
    drops: bool = False


def features(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(BATCH, FEATURES, generator=torch.Generator().manual_seed(5)).to(dtype)


def images() -> torch.Tensor:
    return torch.randn(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(6))


def tokens() -> torch.Tensor:
    return torch.randint(0, 11, (BATCH, 5), generator=torch.Generator().manual_seed(7))


def sequence() -> torch.Tensor:
    return torch.randn(BATCH, 5, WIDTH, generator=torch.Generator().manual_seed(8))


def plain_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, WIDTH),
        nn.Tanh(),
        nn.Linear(WIDTH, WIDTH),
        nn.Tanh(),
        nn.Dropout(0.2),
        nn.Linear(WIDTH, CLASSES),
    )


class FunctionalMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(F.tanh(self.first(x)), 0.25, self.training)
        x = F.leaky_relu(self.second(x), 0.2).view(len(x), -1)
        return self.head(F.dropout(x, p=0.1, training=self.training))


class RawMLP(nn.Module):
    """Weights without modules: matrix products, a bias added by hand, addmm as in HF Conv1D."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(FEATURES, WIDTH) / FEATURES**0.5)
        self.b1 = nn.Parameter(0.1 * torch.randn(WIDTH))
        self.w2 = nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH**0.5)
        self.b2 = nn.Parameter(torch.zeros(WIDTH))
        self.w3 = nn.Parameter(torch.randn(CLASSES, WIDTH) / WIDTH**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x @ self.w1 + self.b1
        h = torch.addmm(self.b2, h * torch.sigmoid(1.5 * h), self.w2)
        return h.sin().matmul(self.w3.t())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, WIDTH)
        self.fc2 = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(F.gelu(self.fc1(x)))


class ResidualMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(FEATURES, WIDTH)
        self.blocks = nn.ModuleList([Residual() for _ in range(2)])
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def batch_norm_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def conv_chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1, stride=2, bias=False),
        nn.ELU(),
        nn.Dropout2d(0.1),
        nn.Conv2d(12, 8, 3, padding=1, groups=2),
        nn.Hardtanh(),
        nn.Flatten(),
        nn.Linear(8 * 16, CLASSES),
    )


class SharedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(FEATURES, WIDTH)
        self.fc1 = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.stem(x))
        return self.fc1(torch.tanh(self.fc1(x)))


class TupleOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        hidden = torch.tanh(self.body(x))
        return self.head(hidden), {"hidden": hidden}


@dataclass
class Answer:
    logits: torch.Tensor
    count: int


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(FEATURES, WIDTH)
        self.right = nn.Linear(3, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, a: torch.Tensor, b: torch.Tensor, scale: float = 1.0) -> Answer:
        return Answer(self.head(torch.relu(self.left(a) + scale * self.right(b))), 1)


class Swish(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


def swish_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, WIDTH), Swish(), nn.Linear(WIDTH, WIDTH), Swish(), nn.Linear(WIDTH, 2)
    )


class HandMadeSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class OpaqueSquare(nn.Module):
    """Leaves torch for a moment: its operations cannot be seen, only tried."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return HandMadeSquare.apply(x)


def opaque_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, WIDTH), OpaqueSquare(), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
    )


def in_place_mlp() -> nn.Module:
    return nn.Sequential(
        nn.ReLU(inplace=True),
        nn.Linear(FEATURES, WIDTH),
        nn.Dropout(0.1, inplace=True),
        nn.ReLU(inplace=True),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(inplace=True),
        nn.Linear(WIDTH, CLASSES),
    )


def frozen_mlp() -> nn.Module:
    return plain_mlp().requires_grad_(False)


def half_mlp() -> nn.Module:
    return plain_mlp().to(torch.bfloat16)


def compiled_mlp() -> nn.Module:
    return _compiled(plain_mlp())


def partly_compiled_mlp() -> nn.Module:
    return nn.Sequential(_compiled(nn.Linear(FEATURES, WIDTH)), nn.Tanh(), nn.Linear(WIDTH, 2))


def _compiled(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # inside the compiler's own import
        return torch.compile(model)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 24, dropout=0.1, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on nested tensors; not what is tried here
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def time_first_transformer() -> nn.Module:
    return nn.Sequential(Swap(), nn.TransformerEncoderLayer(WIDTH, 2, 24, dropout=0.0), Swap())


class Swap(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class TokenModel(nn.Module):
    """Integer inputs and an embedding that changes its own weights while running."""

    def __init__(self, *, frozen: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, WIDTH, max_norm=1.0)
        self.fc = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, 11, bias=False)
        if frozen:
            self.requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.out(F.gelu(self.fc(self.embed(ids)), approximate="tanh"))}


class FrozenBackbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(FEATURES, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = torch.relu(self.backbone(x))
        return self.head(x)


class Stateful(nn.Module):
    """Keeps all kinds of memory of being called."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(FEATURES, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.calls = 0
        self.history: list[Any] = []
        self.cache: dict[str, Any] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.fc(x))
        self.calls += 1
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        self.history.append(h)
        self.cache["last"] = h
        self.latest = h
        noise = torch.rand(len(h), 1) if self.training else 1.0
        return self.head(torch.relu(h) * noise)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(FEATURES, 2 * WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.wide(x).chunk(2, dim=-1)
        return self.head(value * torch.sigmoid(gate))


class StochasticDepth(nn.Module):
    """A residual network that skips branches at random, with a mask made by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(FEATURES, WIDTH)
        self.branch = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        branch = torch.tanh(self.branch(x))
        if self.training:
            branch = branch * x.new_empty(len(x), 1).bernoulli_(0.8) / 0.8
        return x + branch


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, WIDTH)
        self.second = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(checkpoint(lambda t: torch.tanh(self.first(t)), x, use_reentrant=False))


def weight_norm_mlp() -> nn.Module:
    norm = nn.utils.parametrizations.weight_norm
    return nn.Sequential(norm(nn.Linear(FEATURES, WIDTH)), nn.PReLU(), norm(nn.Linear(WIDTH, 3)))


def hugging_face_vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"intermediate_size": 48, "image_size": 16, "patch_size": 8, "num_labels": CLASSES}
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    return ViTForImageClassification(ViTConfig(**settings, **sizes, **rates))


def big_images() -> dict[str, torch.Tensor]:
    pixels = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(9))
    return {"pixel_values": pixels}


def two_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return features(), torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(10))


_MLP = ("0", "2", "5")
_ATTENTION = ("attention.in_proj", "attention.out_proj")
_ENCODER = ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")

ZOO: tuple[Specimen, ...] = (
    Specimen("plain_mlp", plain_mlp, features, _MLP, True, drops=True),
    Specimen(
        "functional_mlp", FunctionalMLP, features, ("first", "second", "head"), True, drops=True
    ),
    Specimen("raw_mlp", RawMLP, features, ("w1", "w2", "w3"), True),
    Specimen(
        "residual_mlp",
        ResidualMLP,
        features,
        (
            "stem",
            "blocks.0.fc1",
            "blocks.0.fc2",
            "blocks.0",
            "blocks.1.fc1",
            "blocks.1.fc2",
            "blocks.1",
            "head",
        ),
        False,
        "a residual branch",
    ),
    Specimen("batch_norm_cnn", batch_norm_cnn, images, ("0", "3", "8"), False, "normalises"),
    Specimen("conv_chain", conv_chain, images, ("0", "2", "5", "8"), True, drops=True),
    Specimen("shared_layer", SharedLayer, features, ("stem", "fc1", "fc1 (call 2)"), True),
    Specimen("tuple_output", TupleOutput, features, ("body", "head"), True),
    Specimen("two_inputs", TwoInputs, two_inputs, ("left", "right", "head"), False, "adds"),
    Specimen("swish_mlp", swish_mlp, features, ("0", "2", "4"), True),
    Specimen("opaque_mlp", opaque_mlp, features, ("0", "2", "3"), True),
    Specimen("in_place_mlp", in_place_mlp, features, ("1", "4", "6"), True, drops=True),
    Specimen("frozen_mlp", frozen_mlp, features, _MLP, True, drops=True),
    Specimen("half_mlp", half_mlp, lambda: features(torch.bfloat16), _MLP, True, drops=True),
    Specimen("compiled_mlp", compiled_mlp, features, _MLP, True, drops=True),
    Specimen("partly_compiled_mlp", partly_compiled_mlp, features, ("0", "2"), True),
    Specimen("attention", Attention, sequence, _ATTENTION, False, "", drops=True),
    Specimen(
        "transformer",
        transformer,
        sequence,
        tuple(
            name
            for block in range(2)
            for name in (*(f"layers.{block}.{part}" for part in _ENCODER), f"layers.{block}")
        ),
        False,
        "",
        drops=True,
    ),
    Specimen(
        "time_first_transformer",
        time_first_transformer,
        sequence,
        (*(f"1.{part}" for part in _ENCODER), "1"),
        False,
    ),
    Specimen("recurrent", Recurrent, sequence, ("lstm", "head"), False, "", drops=True),
    Specimen("token_model", TokenModel, tokens, ("fc", "out"), True),
    Specimen("frozen_tokens", lambda: TokenModel(frozen=True), tokens, ("fc", "out"), True),
    Specimen("frozen_backbone", FrozenBackbone, features, ("backbone", "head"), True),
    Specimen("stateful", Stateful, features, ("fc", "head"), False, "", drops=True),
    Specimen("gated", Gated, features, ("wide", "head"), False, "combines"),
    Specimen("stochastic_depth", StochasticDepth, features, ("stem", "branch"), True, drops=True),
    Specimen("checkpointed", Checkpointed, features, ("first", "second"), True),
    Specimen("weight_norm_mlp", weight_norm_mlp, features, ("0", "2"), True),
    Specimen("one_layer", lambda: nn.Linear(FEATURES, 3), features, ("Linear",), False, "only one"),
    Specimen(
        "width_one",
        lambda: nn.Sequential(nn.Linear(FEATURES, 1), nn.Tanh(), nn.Linear(1, 1)),
        features,
        ("0", "2"),
        True,
    ),
    Specimen(
        "hugging_face_vit",
        hugging_face_vit,
        big_images,
        (),  # fourteen and more names, of the library's making
        False,
        "",
        drops=True,
    ),
)

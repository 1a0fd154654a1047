"""Models that drop in awkward ways, with the places at which they do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from depthscale import insert_sites

WIDTH = 16


@dataclass(frozen=True)
class Dropping:
    """A model, its input, and what is known: (site, how, calls) in order of execution."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    sites: tuple[tuple[str, str, int], ...]
    kinds: tuple[str, ...] = ()


def vectors() -> tuple[torch.Tensor]:
    return (torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(1)),)


def sequences() -> tuple[torch.Tensor]:
    return (torch.randn(4, 6, WIDTH, generator=torch.Generator().manual_seed(2)),)


def pictures() -> tuple[torch.Tensor]:
    return (torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(3)),)


def words() -> tuple[torch.Tensor]:
    return (torch.arange(24).reshape(4, 6),)


class Shared(nn.Module):
    """One dropout module, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.second(self.drop(self.first(x))))


class Functional(nn.Module):
    """Rates that are constants of the code; one of them gone in eval mode, all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.last = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = F.dropout(torch.tanh(layer(x)), 0.2, self.training)
        if self.training:
            x = torch.dropout(x, 0.1, train=True)
        return self.last(x)


class Held(nn.Module):
    """Functional dropout at rates that attributes hold, one of them 0 and then skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.dropout = 0.1
        self.input_dropout = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.input_dropout > 0:
            x = F.dropout(x, self.input_dropout, self.training)
        return F.dropout(self.linear(x), p=self.dropout, training=self.training)


class Blocks(nn.Module):
    """Two blocks of one class, functional inside, around modules that drop as well."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(FunctionalBlock() for _ in range(2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(F.dropout(x, 0.05, self.training))


class FunctionalBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.15))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + F.dropout(self.inner(x), 0.25, training=self.training)


class DotProduct(nn.Module):
    """``dropout_p`` of scaled_dot_product_attention: a constant, and one of an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.p_drop = 0.2
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.scaled_dot_product_attention(x, x, x, dropout_p=0.1 if self.training else 0.0)
        x = self.mix(x)
        p = self.p_drop if self.training else 0.0
        x = F.scaled_dot_product_attention(x, x, x, None, p)
        return F.scaled_dot_product_attention(x, x, x)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]


class DropPath(nn.Module):
    """The one of timm, in short."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.drop_prob or not self.training:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)


class StochasticDepth(nn.Module):
    """The one of torchvision, in short."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p, self.mode = p, mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0.0:
            return x
        size = [len(x) if self.mode == "row" else 1] + [1] * (x.ndim - 1)
        noise = torch.empty(size, dtype=x.dtype).bernoulli_(1.0 - self.p)
        return x * noise.div_(1.0 - self.p)


class PathBlock(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.branch = nn.Linear(WIDTH, WIDTH)
        self.drop_path = DropPath(rate) if rate > 0 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop_path(torch.tanh(self.branch(x)))


class DepthBlock(nn.Module):
    def __init__(self, rate: float, mode: str) -> None:
        super().__init__()
        self.branch = nn.Linear(WIDTH, WIDTH)
        self.stochastic_depth = StochasticDepth(rate, mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.stochastic_depth(torch.tanh(self.branch(x)))


class StochasticDepthBlock(nn.Module):
    """A branch, what drops inside of it, and the chance that it is skipped as a whole."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.branch = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Dropout(0.15))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.branch(x)
        if self.training and self.p > 0:
            branch = branch * torch.bernoulli(torch.ones(len(x), 1), 1 - self.p) / (1 - self.p)
        return x + branch


class Recomputed(nn.Module):
    """Blocks, functional and not, under activation checkpointing."""

    def __init__(self, reentrant: bool = False) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.blocks = nn.ModuleList(FunctionalBlock() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


class RecomputedInside(nn.Module):
    """Functional dropout in a function that the module itself checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def inside(x: torch.Tensor) -> torch.Tensor:
            return F.dropout(self.linear(x), 0.3, self.training)

        return checkpoint(inside, x, use_reentrant=False)


class HandMade(nn.Module):
    """A mask of the model's own making."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.empty_like(x).bernoulli_(0.7) if self.training else x


class LockedDropout(nn.Module):
    """One mask for all places of a sequence."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        return x * x.new_empty(len(x), 1, x.shape[-1]).bernoulli_(1 - self.p) / (1 - self.p)


class Hidden(nn.Module):
    """A part that is scripted, so that its dropout cannot be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.1)
        self.part = torch.jit.script(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(self.drop(x))


class OfConfig(nn.Module):
    """A rate that all layers read from one object, which is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"dropout": 0.1}
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = nn.functional.dropout(layer(x), self.config["dropout"], self.training)
        return x


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, dropout=0.2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


class UnderAutocast(nn.Module):
    """Half precision inside of forward: a module, a function, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1)
        self.attention = SelfAttention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = F.dropout(self.drop(self.linear(x)), 0.2, self.training)
            return self.attention(x)


class Bare(nn.Module):
    """Activations of every spelling, and nothing that drops."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(5))
        self.act, self.own = nn.GELU(), Swish()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.layers[0](x))
        x = F.relu(self.layers[1](x))
        x = self.own(self.layers[2](x))
        x = torch.relu(self.act(self.layers[3](x)))
        return torch.sigmoid(self.layers[4](x))


class Swish(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


class BareBlock(nn.Module):
    """A functional activation and dropout of its own, after another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + F.dropout(self.second(torch.tanh(self.first(x))), 0.25, self.training)


class RecomputedBare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(BareBlock() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x


def inserted(model: nn.Module, inputs: tuple[Any, ...], **options: Any) -> nn.Module:
    """The model with inserted sites, and rates that they have from then on."""
    sites = insert_sites(model, *inputs, **options).sites
    for place, site in enumerate(sites):
        setattr(model.get_submodule(site.module), str(site.attribute), 0.11 + 0.01 * place)
    return model


def nested() -> nn.Module:
    def part(rate: float) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sequential(nn.ReLU(), nn.Dropout(rate)))

    return nn.Sequential(nn.Sequential(part(0.1), part(0.2)), nn.Dropout(0.0), nn.Linear(WIDTH, 4))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Dropout2d(0.2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Dropout2d(0.1)
    )


def alpha() -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(WIDTH, WIDTH)
    )


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 24, dropout=0.1, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on nested tensors; not what is tried here
        return nn.TransformerEncoder(layer, 2)


def compiled() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.compile(nested(), backend="eager")  # type: ignore[return-value]


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=8,
        patch_size=4,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.2,
    )
    return ViTForImageClassification(config)


def vit_eager() -> nn.Module:
    model = vit()
    model.set_attn_implementation("eager")
    return model


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=32,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    return BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 32}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, use_cache=False))


def distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertModel

    sizes = {"dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": 32}
    return DistilBertModel(DistilBertConfig(**sizes, max_position_embeddings=16))


def checkpointed_vit() -> nn.Module:
    model = vit()
    for layer in model.vit.layers:  # what the method of transformers does, in any version
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    return model


def _attributes(*names: str, calls: int = 1) -> tuple[tuple[str, str, int], ...]:
    return tuple((name, "attribute", calls) for name in names)


def _layers(stem: str, *names: str) -> tuple[tuple[str, str, int], ...]:
    return _attributes(*(f"{stem}.{layer}.{name}" for layer in range(2) for name in names))


VIT = (
    *_attributes("vit.embeddings.dropout"),
    *(
        site
        for layer in range(2)
        for site in (
            (f"vit.layers.{layer}.attention.attention_dropout", "attribute", 1),
            (f"vit.layers.{layer}.dropout", "attribute", 2),
        )
    ),
)
BLOCKS = tuple(
    site
    for block in range(2)
    for site in (
        (f"blocks.{block}.inner.1", "attribute", 1),
        (f"blocks.{block}.dropout()", "interception", 1),
    )
)

DROPPING = [
    Dropping("shared module", Shared, vectors, _attributes("drop", calls=2)),
    Dropping(
        "functional",
        Functional,
        vectors,
        (
            ("dropout()", "interception", 1),
            ("dropout()#2", "interception", 1),
            ("dropout()#3", "interception", 1),
            ("dropout()#4", "interception", 1),
            ("last", "attribute", 1),
        ),
        ("mlp",) * 5,
    ),
    Dropping("held by attributes", Held, vectors, _attributes("input_dropout", "dropout")),
    Dropping("functional blocks", Blocks, vectors, (("dropout()", "interception", 1), *BLOCKS)),
    Dropping(
        "rate of a config",
        OfConfig,
        vectors,
        (("dropout()", "interception", 1), ("dropout()#2", "interception", 1)),
    ),
    Dropping("nested Sequential", nested, vectors, _attributes("0.0.1.1", "0.1.1.1", "1")),
    Dropping("compiled", compiled, vectors, _attributes("0.0.1.1", "0.1.1.1", "1")),
    Dropping(
        "bfloat16",
        lambda: Blocks().bfloat16(),
        lambda: (vectors()[0].bfloat16(),),
        (("dropout()", "interception", 1), *BLOCKS),
    ),
    Dropping(
        "half",
        lambda: nested().half(),
        lambda: (vectors()[0].half(),),
        _attributes("0.0.1.1", "0.1.1.1", "1"),
    ),
    Dropping("Dropout2d", convolutions, pictures, _attributes("1", "4")),
    Dropping("AlphaDropout", alpha, vectors, _attributes("2")),
    Dropping(
        "dot-product attention",
        DotProduct,
        sequences,
        (("scaled_dot_product_attention()", "interception", 1), ("p_drop", "attribute", 1)),
        ("attention", "attention"),
    ),
    Dropping(
        "MultiheadAttention",
        SelfAttention,
        sequences,
        _attributes("attention.dropout"),
        ("attention",),
    ),
    Dropping(
        "TransformerEncoder",
        transformer,
        sequences,
        _layers("layers", "self_attn.dropout", "dropout1", "dropout", "dropout2"),
        ("attention", "projection", "mlp", "mlp") * 2,
    ),
    Dropping(
        "DropPath and an Identity",
        lambda: nn.Sequential(*(PathBlock(rate) for rate in (0.0, 0.1, 0.2))),
        vectors,
        (("0.drop_path", "none", 1), *_attributes("1.drop_path", "2.drop_path")),
        ("path",) * 3,
    ),
    Dropping(
        "StochasticDepth",
        lambda: nn.Sequential(DepthBlock(0.1, "row"), DepthBlock(0.2, "batch")),
        vectors,
        _attributes("0.stochastic_depth", "1.stochastic_depth"),
        ("path", "path"),
    ),
    Dropping(
        "blocks named like a path",
        lambda: nn.Sequential(StochasticDepthBlock(0.1), StochasticDepthBlock(0.0)),
        vectors,
        _attributes("0.branch.2", "0.p", "1.branch.2", "1.p"),
        ("mlp", "path", "mlp", "path"),
    ),
    Dropping("no dropout", lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()), vectors, ()),
    Dropping("checkpointed", Recomputed, vectors, BLOCKS),
    Dropping("checkpointed inside", RecomputedInside, vectors, (("dropout()", "none", 1),)),
    Dropping("mask made by hand", HandMade, vectors, (("bernoulli()", "none", 1),)),
    Dropping(
        "class of the model's own",
        lambda: nn.Sequential(LockedDropout(0.1), nn.Linear(WIDTH, WIDTH), LockedDropout(0.0)),
        sequences,
        _attributes("0.p", "2.p"),
    ),
    Dropping("LSTM", Recurrent, sequences, _attributes("lstm")),
    Dropping("ViT", vit, pictures, VIT, ("embedding", *("attention", "projection") * 2)),
    Dropping(
        "ViT, attention in parts",
        vit_eager,
        pictures,
        VIT,
        ("embedding", *("attention", "projection") * 2),
    ),
    Dropping("ViT, checkpointed", checkpointed_vit, pictures, VIT),
    Dropping(
        "BERT",
        bert,
        words,
        (
            *_attributes("bert.embeddings.dropout"),
            *_layers(
                "bert.encoder.layer",
                "attention.self.dropout",
                "attention.output.dropout",
                "output.dropout",
            ),
            *_attributes("dropout"),
        ),
        ("embedding", *("attention", "projection", "mlp") * 2, "mlp"),
    ),
    Dropping(
        "GPT-2",
        gpt2,
        words,
        (
            *_attributes("transformer.drop"),
            *_layers("transformer.h", "attn.attn_dropout", "attn.resid_dropout", "mlp.dropout"),
        ),
        ("embedding", *("attention", "projection", "mlp") * 2),
    ),
    Dropping(
        "DistilBERT",
        distilbert,
        words,
        (
            *_attributes("embeddings.dropout"),
            *_layers("transformer.layer", "attention.dropout", "ffn.dropout"),
        ),
        ("embedding", *("attention", "mlp") * 2),
    ),
    Dropping(
        "autocast inside",
        UnderAutocast,
        sequences,
        (
            *_attributes("drop"),
            ("dropout()", "interception", 1),
            *_attributes("attention.attention.dropout"),
        ),
    ),
    Dropping(
        "inserted after activations",
        lambda: inserted(Bare(), vectors()),
        vectors,
        (
            *_attributes("act.inserted_dropout", calls=2),
            *_attributes("inserted_dropout_relu", "own.inserted_dropout", "inserted_dropout_relu2"),
        ),
    ),
    Dropping(
        "inserted, compiled",
        lambda: torch.compile(inserted(Bare(), vectors()), backend="eager"),  # type: ignore[arg-type,return-value]
        vectors,
        (
            *_attributes("act.inserted_dropout", calls=2),
            *_attributes("inserted_dropout_relu", "own.inserted_dropout", "inserted_dropout_relu2"),
        ),
    ),
    Dropping(
        "inserted, checkpointed",
        lambda: inserted(RecomputedBare(), vectors()),
        vectors,
        tuple(
            site
            for block in range(2)
            for site in (
                (f"blocks.{block}.inserted_dropout_tanh", "attribute", 1),
                (f"blocks.{block}.dropout()", "interception", 1),
            )
        ),
    ),
    Dropping(
        "inserted after an LSTM",
        lambda: inserted(Recurrent(), sequences(), after=nn.LSTM),
        sequences,
        _attributes("lstm", "lstm.inserted_dropout"),
    ),
    Dropping(
        "inserted in a ViT",
        lambda: inserted(vit(), pictures()),
        pictures,
        (
            VIT[0],
            *VIT[1:3],
            *_attributes("vit.layers.0.mlp.activation_fn.inserted_dropout"),
            *VIT[3:],
            *_attributes("vit.layers.1.mlp.activation_fn.inserted_dropout"),
        ),
    ),
]

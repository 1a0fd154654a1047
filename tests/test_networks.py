"""The networks of the experiments: seeded, as large as stated, dropping where they are said to."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import depthscale as ds
from depthscale.answers import InputError
from depthscale.practice.data import digits
from depthscale.practice.dropping.blocks import BRANCHES, block_numbers, by_block, by_kind, spread
from depthscale.practice.network_parts import DropPath, ResidualBlock, SelfAttention
from depthscale.practice.networks import NETWORKS, build
from depthscale.practice.schedule import Schedule
from depthscale.practice.training import train
from dropping_zoo import bert, gpt2, pictures, sequences, transformer, vit, words

SHAPE = (1, 8, 8)
TINY: dict[str, dict[str, Any]] = {
    "mlp": {"depth": 3, "width": 16},
    "vit": {"dim": 16, "depth": 2, "heads": 2, "patch": 4},
    "hf-vit": {"dim": 16, "depth": 2, "heads": 2, "patch": 4},
    "resnet": {"blocks": (1, 2), "channels": (8, 16)},
}
VIT_KINDS = ("attention", "projection", "mlp", "mlp")


@pytest.fixture(params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def images(count: int = 6, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))


def tiny(name: str, seed: int = 0, **sizes: Any) -> nn.Module:
    return build(name, SHAPE, 10, seed, **{**TINY[name], **sizes})


def numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Building ----------------------------------------------------------------------------------------


def test_logits_of_every_example(name):
    model = tiny(name)
    assert model.training
    out = model(images())
    assert isinstance(out, torch.Tensor)
    assert out.shape == (6, 10)


def test_the_global_generator_is_left_alone(name):
    before = torch.get_rng_state()
    tiny(name, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_gives_one_network(name):
    first, again, other = tiny(name, 3), tiny(name, 3), tiny(name, 4)
    weights = [*first.state_dict().values()]
    assert all(map(torch.equal, weights, again.state_dict().values()))
    assert not all(map(torch.equal, weights, other.state_dict().values()))


def test_a_seed_stands_above_the_defaults_of_torch(name):
    weights = [*tiny(name).state_dict().values()]
    with torch.device("meta"):
        built = [*tiny(name).state_dict().values()]
    assert all(map(torch.equal, weights, built))


def test_drop_rates_change_no_weight(name):
    plain, dropping = tiny(name), tiny(name, drop=0.3)
    same = map(torch.equal, plain.state_dict().values(), dropping.state_dict().values())
    assert all(same)
    plain.eval(), dropping.eval()
    assert torch.equal(plain(images()), dropping(images()))


def test_copies_are_networks(name):
    model = tiny(name).eval()
    assert torch.equal(copy.deepcopy(model)(images()), model(images()))


def test_every_weight_learns(name):
    model = tiny(name)
    F.cross_entropy(model(images()), torch.arange(6)).backward()
    still = [key for key, weight in model.named_parameters() if not weight.grad.any()]
    assert still == []


@pytest.mark.parametrize("network", ["vit", "hf-vit", "resnet"])
def test_other_pictures(network):
    sizes = {**TINY[network], "drop": 0.1}
    model = build(network, (3, 12, 8), 7, **sizes)
    assert model(images(2, (3, 12, 8))).shape == (2, 7)


# The MLP -----------------------------------------------------------------------------------------


def test_mlp_of_the_paper():
    model = build("mlp", (3, 32, 32), 10)
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linears] == [3072, *[256] * 6]
    for layer in linears[:6]:  # 256 biases scatter by 4.4 %, 65,536 weights by 0.3 %
        scale = layer.weight.detach().square().mean() * layer.in_features
        assert float(scale) == pytest.approx(1.98, rel=0.02)
        assert float(layer.bias.detach().square().mean()) == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize(
    ("activation", "kind"),
    [("relu", nn.ReLU), ("tanh", nn.Tanh), ("gelu", nn.GELU), (nn.Softplus(2.0), nn.Softplus)],
)
def test_mlp_drops_after_the_activation(activation, kind):
    model = tiny("mlp", activation=activation)
    body = [type(layer) for layer in model]
    assert body == [nn.Flatten, *[nn.Linear, kind, nn.Dropout] * 3, nn.Linear]
    assert len({id(layer) for layer in model}) == len(body)  # a copy for every layer


def test_mlp_scales():
    model = tiny("mlp", sigma_w=3.0, sigma_b=0.0, width=400)
    assert float(model[4].weight.detach().std() * math.sqrt(400)) == pytest.approx(3.0, rel=0.02)
    assert not model[4].bias.any()


def test_mlp_is_a_chain_that_the_audit_holds_against_theory():
    model = build("mlp", SHAPE, 10, activation="tanh", width=64)
    assert ds.audit(model, images(64), band_nets=0).theory is not None


# Vision transformers -----------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["vit", "hf-vit"])
def test_size_of_the_vit_of_the_paper(network):
    # by hand: patches, class token, positions, blocks (two norms, qkv, projection, MLP), norm, head
    block = 2 * 256 + 3 * 128 * 129 + 128 * 129 + 512 * 129 + 128 * 513
    expected = 128 * 49 + 128 + 65 * 128 + 10 * block + 256 + 100 * 129
    assert numbers(build(network, (3, 32, 32), 100)) == expected


def test_attention_as_written_down():
    layer = SelfAttention(6, heads=2, drop=0.0)
    tokens = images(3, (4, 6))
    query, key, value = layer.mix(tokens).split(6, dim=-1)
    parts = []
    for head in (slice(0, 3), slice(3, 6)):
        scores = query[..., head] @ key[..., head].transpose(1, 2) / math.sqrt(3)
        parts.append(scores.softmax(dim=-1) @ value[..., head])
    assert torch.allclose(layer(tokens), layer.project(torch.cat(parts, dim=-1)), atol=1e-6)


def test_attention_drops_weights_in_train_mode_alone():
    layer = SelfAttention(4, heads=1, drop=0.999999)
    layer.project.bias.data.zero_()
    assert not layer(images(2, (3, 4))).any()
    assert layer.eval()(images(2, (3, 4))).any()


def test_hf_vit_is_that_of_transformers():
    from transformers import ViTForImageClassification

    model = tiny("hf-vit").eval()
    plain = ViTForImageClassification(model.config).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(images()).logits, model(images()))


def test_hf_vit_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr("depthscale.practice.networks.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install depthscale\[transformers\]"):
        tiny("hf-vit")


# The residual network ----------------------------------------------------------------------------


def test_a_branch_left_out_leaves_the_identity():
    block = ResidualBlock(4, 4, 1, lambda width: nn.GroupNorm(2, width), drop=0.5)
    signal = images(64, (4, 6, 6))
    out = block(signal)
    whole = 2 * block.eval()(signal) - signal  # what is left is scaled by 1/(1 - 0.5)
    left_out = torch.tensor([torch.equal(a, b) for a, b in zip(out, signal, strict=True)])
    assert 16 <= int(left_out.sum()) <= 48
    assert torch.allclose(out[~left_out], whole[~left_out], atol=1e-5)


def test_identity_branch_of_a_stage():
    block = ResidualBlock(2, 5, 2, nn.BatchNorm2d, drop=0.0)
    block.second.weight.data.zero_()
    signal = images(2, (2, 5, 7))
    out = block(signal)
    assert out.shape == (2, 5, 3, 4)
    assert torch.allclose(out[:, :2, :2, :3], F.avg_pool2d(signal, 2))
    assert torch.equal(out[:, :2, 2, 3], signal[:, :, 4, 6])  # the corner by itself
    assert not out[:, 2:].any()


def test_paths_keep_the_mean():
    path = DropPath(0.3)
    out = path(torch.ones(4000, 2, 3))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert torch.equal(out.amin(dim=(1, 2)), out.amax(dim=(1, 2)))  # whole examples
    assert float(out.mean()) == pytest.approx(1.0, abs=5 * math.sqrt(0.3 / 0.7 / 4000))
    assert torch.equal(path.eval()(out), out)


def test_norms_of_the_residual_network():
    kinds = {type(part) for part in tiny("resnet", norm="batch").modules()}
    assert nn.BatchNorm2d in kinds
    assert nn.GroupNorm not in kinds
    assert nn.GroupNorm in {type(part) for part in tiny("resnet").modules()}


# Sites -------------------------------------------------------------------------------------------

EXPECTED: dict[str, list[tuple[str, str, int | None]]] = {
    "mlp": [(place, "mlp", block) for block, place in enumerate(("3", "6", "9"))],
    "vit": [
        (f"blocks.{block}.{place}", kind, block)
        for block in range(2)
        for place, kind in zip(
            ("attention.drop", "attention.drop_projection", "drop_hidden", "drop_mlp"),
            VIT_KINDS,
            strict=True,
        )
    ],
    "hf-vit": [
        ("vit.embeddings.dropout", "embedding", None),
        *(
            (f"vit.layers.{block}.{place}", kind, block)
            for block in range(2)
            for place, kind in (
                ("attention.attention_dropout", "attention"),
                ("dropout", "projection"),
            )
        ),
    ],
    "resnet": [(f"blocks.{block}.drop_path", "path", block) for block in range(3)],
}


@pytest.mark.parametrize("drop", [0.0, 0.1])
def test_sites_in_order_of_depth(name, drop):
    sites = ds.dropout_sites(tiny(name, drop=drop), images())
    blocks = block_numbers(sites)
    found = [(site.name, site.kind, block) for site, block in zip(sites, blocks, strict=True)]
    assert found == EXPECTED[name]
    assert all(site.how == "attribute" and site.rate == drop for site in sites)


def test_a_schedule_over_blocks_drops_as_it_says(name):
    model = tiny(name)
    sites = ds.dropout_sites(model, images())
    count = len(by_block(sites))
    rates = spread([0.0] * (count - 1) + [0.4], sites)
    still = model(images())
    assert torch.equal(model(images()), still)
    with ds.apply_schedule(model, rates):
        assert not torch.equal(model(images()), still)
        applied = [site.rate for site in ds.dropout_sites(model, images())]
    assert torch.equal(model(images()), still)
    assert applied == rates


def test_sites_of_the_vit_of_the_paper():
    sites = ds.dropout_sites(build("vit", (3, 32, 32), 100), images(2, (3, 32, 32)))
    assert [site.kind for site in sites] == [*VIT_KINDS * 10]
    assert [len(block) for block in by_block(sites)] == [4] * 10


def test_sites_by_kind_and_block():
    sites = ds.dropout_sites(tiny("vit"), images())
    kinds = by_kind(sites)
    assert [*kinds] == ["attention", "projection", "mlp"]
    assert [len(members) for members in kinds.values()] == [2, 2, 4]
    assert [site for block in by_block(sites) for site in block] == [*sites]
    assert [tuple(site.kind for site in block) for block in by_block(sites)] == [VIT_KINDS] * 2


MODELS = {
    "ViT": (vit, pictures, [None, 0, 0, 1, 1]),
    "BERT": (bert, words, [None, 0, 0, 0, 1, 1, 1, None]),
    "GPT-2": (gpt2, words, [None, 0, 0, 0, 1, 1, 1]),
    "TransformerEncoder": (transformer, sequences, [0, 0, 0, 0, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("model", MODELS)
def test_blocks_of_models_that_people_use(model):
    make, inputs, expected = MODELS[model]
    sites = ds.dropout_sites(make(), *inputs())
    assert [*block_numbers(sites)] == expected
    rates = spread(Schedule([0.2, 0.3]), sites)
    assert rates == [0.0 if block is None else (0.2, 0.3)[block] for block in expected]


# Blocks, from names ------------------------------------------------------------------------------


def named(*paths: str, kind: str = "mlp", rate: float | None = 0.1) -> list[ds.DropoutSite]:
    return [ds.DropoutSite(path, kind, rate, 1, "attribute", path, "p") for path in paths]


@pytest.mark.parametrize(
    ("paths", "blocks"),
    [
        (["blocks.0.attn", "blocks.0.mlp.1", "blocks.0.mlp.4", "blocks.7.attn"], [0, 0, 0, 1]),
        (["model.0.layers.0", "model.0.layers.1", "model.1"], [0, 0, 1]),
        (["net.0.embed", "net.0.layers.3", "net.0.layers.2"], [None, 0, 1]),
        (["encoder.layer_0.a", "encoder.layer_10.a", "encoder.layer_9.a"], [0, 1, 2]),
        (["encoder.0", "encoder.1", "decoder.0", "decoder.1"], [0, 1, 2, 3]),
        (["blocks.0.dropout1", "blocks.0.dropout2", "head"], [0, 0, None]),
        (["5"], [0]),
        (["10", "2", "10"], [0, 1, 0]),
    ],
)
def test_blocks_from_paths(paths, blocks):
    assert [*block_numbers(named(*paths))] == blocks


def test_blocks_that_cannot_be_told():
    with pytest.raises(InputError, match="no number in their paths; give the block of each"):
        block_numbers(named("encoder.drop", "dropout1", ""))
    with pytest.raises(InputError, match="no number differs between them"):
        block_numbers(named("features.3", "classifier.1"))
    with pytest.raises(InputError, match="no sites"):
        block_numbers([])
    sites = named("encoder.drop", "dropout1", "", "head")
    assert spread([0.1, 0.2], sites, blocks=[0, 1, 1, None]) == [0.1, 0.2, 0.2, 0.0]


# Spreading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (None, [0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1]),
        (BRANCHES["both"], [0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1]),
        (BRANCHES["attention"], [0.2, 0.2, 0.0, 0.0, 0.1, 0.1, 0.0, 0.0]),
        (BRANCHES["mlp"], [0.0, 0.0, 0.2, 0.2, 0.0, 0.0, 0.1, 0.1]),
        ("projection", [0.0, 0.2, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0]),
    ],
)
def test_branches_of_a_vit(kinds, expected):
    sites = ds.dropout_sites(tiny("vit"), images())
    assert spread([0.2, 0.1], sites, kinds) == expected


def test_what_other_sites_get():
    sites = [*named("embed", rate=0.05), *named("layers.0", "layers.1"), *named("head", rate=0.3)]
    assert spread([0.2, 0.4], sites) == [0.0, 0.2, 0.4, 0.0]
    assert spread([0.2, 0.4], sites, others=0.1) == [0.1, 0.2, 0.4, 0.1]
    assert spread([0.2, 0.4], sites, others=None) == [0.05, 0.2, 0.4, 0.3]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([0.1], {}, "1 rates for 2 blocks, which start at layers.0, layers.1; give one"),
        ([0.1] * 3, {}, "3 rates for 2 blocks"),
        ([0.1, 1.0], {}, "rate of site 2 is 1"),
        ([], {}, "expected one for each"),
        ([0.1, 0.2], {"kinds": "attn"}, "kind 'attn'; expected one of mlp"),
        ([0.1, 0.2], {"kinds": []}, "no kinds were chosen"),
        ([0.1, 0.2], {"others": -0.1}, "expected a probability"),
        ([0.1, 0.2], {"others": None}, "site 'head' cannot keep its rate"),
        ([0.1, 0.2], {"blocks": [0, 1]}, "2 blocks for 3 sites"),
        ([0.1, 0.2], {"blocks": [0, 2, None]}, "numbers from 0 on"),
    ],
)
def test_what_cannot_be_spread(given, options, message):
    sites = [*named("layers.0", "layers.1"), *named("head", rate=None)]
    with pytest.raises(InputError, match=message):
        spread(given, sites, **options)


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "sizes", "message"),
    [
        ("cnn", {}, "unknown network 'cnn'; expected one of mlp, vit, hf-vit, resnet"),
        ("mlp", {"widht": 3}, "did you mean 'width'"),
        ("vit", {"width": 3}, "It takes dim, depth, heads, patch, ratio, drop"),
        ("mlp", {"depth": 0}, "depth is 0; expected a whole number"),
        ("mlp", {"width": 2.5}, "width is 2.5"),
        ("mlp", {"activation": "sine"}, "unknown activation 'sine'"),
        ("mlp", {"activation": "sin"}, "unknown activation 'sin'"),
        ("mlp", {"activation": "threshold"}, "unknown activation 'threshold'"),
        ("mlp", {"activation": None}, "unknown activation None"),
        ("mlp", {"sigma_w": -1.0}, "sigma_w is -1.0"),
        ("mlp", {"sigma_b": math.inf}, "sigma_b is inf"),
        ("mlp", {"drop": 1.0}, "drop is 1.0"),
        ("vit", {"heads": 3}, "heads must divide dim"),
        ("hf-vit", {"heads": 3}, "heads must divide dim"),
        ("vit", {"patch": 3}, "patch is 3; it must divide the picture of 8 x 8"),
        ("hf-vit", {"patch": 0}, "patch is 0"),
        ("resnet", {"blocks": (1, 1), "channels": (8,)}, "one of each for every stage"),
        ("resnet", {"blocks": (), "channels": ()}, "one of each for every stage"),
        ("resnet", {"blocks": 9}, "blocks are 9 and channels"),
        ("resnet", {"blocks": (1, 0), "channels": (8, 8)}, "blocks of stage 2 is 0"),
        ("resnet", {"channels": (16, 8), "blocks": (1, 1)}, "never falls"),
        ("resnet", {"groups": 3}, "groups is 3; it must divide"),
        ("resnet", {"norm": "layer"}, "unknown norm 'layer'"),
        ("resnet", {"stride": 8}, "pictures of 8 x 8 are too small"),
    ],
)
def test_sizes_that_cannot_be(network, sizes, message):
    with pytest.raises(InputError, match=message):
        build(network, SHAPE, 10, **sizes)


@pytest.mark.parametrize("network", ["vit", "hf-vit", "resnet"])
def test_examples_that_are_no_pictures(network):
    with pytest.raises(InputError, match="reshape the data"):
        build(network, (64,), 10)


@pytest.mark.parametrize("shape", [(0, 8), (), 64, (8.0, 8.0), "64"])
def test_shapes_that_cannot_be(shape):
    with pytest.raises(InputError, match="the shape of an example is"):
        build("mlp", shape, 10)


def test_classes_and_seed():
    with pytest.raises(InputError, match="at least 2"):
        build("mlp", SHAPE, 1)
    with pytest.raises(InputError, match=r"classes is 2\.0"):
        build("mlp", SHAPE, 2.0)
    with pytest.raises(InputError, match="seed"):
        build("mlp", SHAPE, 10, seed=-1)


def test_numbers_of_numpy():
    shape, classes = np.array([1, 8, 8]), np.int64(10)
    model = build("vit", [*shape], classes, dim=np.int64(16), depth=1, heads=2)
    assert model(images()).shape == (6, 10)


# Training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "sizes", "rate", "least"),
    [
        ("mlp", {"depth": 3, "width": 64}, 3e-3, 0.9),
        ("vit", {"dim": 32, "depth": 2, "heads": 4, "patch": 2, "ratio": 2}, 5e-3, 0.7),
        # transformers begins with weights of 0.02, whose signal has to grow first
        ("hf-vit", {"dim": 32, "depth": 2, "heads": 4, "patch": 2, "ratio": 2}, 5e-3, 0.4),
        ("resnet", {"blocks": (1, 1), "channels": (16, 32)}, 5e-3, 0.8),
    ],
)
def test_digits_are_learnt(network, sizes, rate, least):
    train_set, test_set = digits().reshape(SHAPE).split(seed=0)
    model = build(network, SHAPE, 10, **sizes, drop=0.05)
    run = train(model, train_set, test_set, steps=150, batch=64, learning_rate=rate)
    assert run.test.accuracy.value > least, run.test.accuracy

"""Dropout put into models that have none: where, at which rates, and without a trace once gone."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import depthscale as ds
from depthscale.answers import InputError
from dropping_zoo import (
    WIDTH,
    Bare,
    RecomputedBare,
    Recurrent,
    bert,
    nested,
    sequences,
    transformer,
    vectors,
    vit,
)
from test_dropping import draws, outputs, same


@pytest.fixture(autouse=True)
def _seeded_and_quiet() -> Iterator[None]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*a Tensor that is not a leaf", module="torch")
        yield
    torch._dynamo.reset()


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 4))


def test_hidden_activations_of_every_spelling() -> None:
    model = Bare()
    found = ds.insert_sites(model, *vectors())
    assert [(site.name, site.kind, site.rate, site.calls) for site in found.sites] == [
        ("act.inserted_dropout", "mlp", 0.0, 2),
        ("inserted_dropout_relu", "mlp", 0.0, 1),
        ("own.inserted_dropout", "mlp", 0.0, 1),
        ("inserted_dropout_relu2", "mlp", 0.0, 1),
    ]
    assert found.left_out == {"sigmoid()": "no weights come after it: it belongs to the output"}
    with ds.apply_schedule(model, [0.1, 0.2, 0.3, 0.4]):
        assert draws(model, vectors()).rates == [0.1, 0.2, 0.3, 0.1, 0.4]


@pytest.mark.parametrize("kind", ["elements", "channels", "alpha"])
def test_insertion_is_exactly_dropout_at_that_place(kind: str) -> None:
    """Outputs and gradients are those of a model that was written with dropout modules."""
    parts = {"elements": nn.Dropout, "channels": nn.Dropout1d, "alpha": nn.AlphaDropout}
    layers = [nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 4)]
    written = nn.Sequential(*layers[:2], parts[kind](0.3), layers[2])
    model = copy.deepcopy(nn.Sequential(*layers))
    ds.insert_sites(model, *sequences(), kind=kind)
    ds.apply_schedule(model, [0.3])
    results = []
    for run in (written, model):
        torch.manual_seed(3)
        out = run(*sequences())
        out.square().sum().backward()
        results.append([out.detach(), *(parameter.grad for parameter in run.parameters())])
    assert same(*results)


@pytest.mark.parametrize("build", [Bare, mlp, vit, bert, Recurrent])
def test_nothing_is_left_once_it_is_removed(build: Any) -> None:
    from dropping_zoo import pictures, words

    inputs = {vit: pictures, bert: words, Recurrent: sequences}.get(build, vectors)()
    model = build()
    ds.dropout_sites(model, *inputs)
    known = ds.dropout_sites(model, *inputs)
    held = [copy.copy(vars(module)) for module in model.modules()]
    hooks = [
        {name: dict(value) for name, value in vars(m).items() if "hooks" in name and value}
        for m in model.modules()
    ]
    keys, before = list(model.state_dict()), outputs(model, inputs)
    names = [name for name, _ in model.named_modules()]
    state = torch.get_rng_state()
    after = nn.LSTM if build is Recurrent else "activation"
    with ds.insert_sites(model, *inputs, after=after) as found:
        assert found.sites
        assert list(model.state_dict()) == keys
        assert [name for name, _ in model.named_modules()] == names
        assert same(outputs(model, inputs), before)
        model.load_state_dict(model.state_dict())
        assert torch.equal(torch.get_rng_state(), state)
    found.remove()
    assert [vars(module) for module in model.modules()] == held
    assert hooks == [
        {name: dict(value) for name, value in vars(m).items() if "hooks" in name and value}
        for m in model.modules()
    ]
    assert same(outputs(model, inputs), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert ds.dropout_sites(model, *inputs) == known


def test_named_modules_wildcards_and_classes() -> None:
    def names(**options: Any) -> list[str]:
        with ds.insert_sites(transformer(), *sequences(), **options) as found:
            return [site.name.removesuffix(".inserted_dropout") for site in found.sites]

    assert names(after="layers.*.linear1") == ["layers.0.linear1", "layers.1.linear1"]
    assert names(after=nn.LayerNorm, beside_dropout=True)[:2] == [
        "layers.0.norm1",
        "layers.0.norm2",
    ]
    assert names(after=["layers.1.norm2", nn.TransformerEncoderLayer]) == [
        "layers.0", "layers.1.norm2", "layers.1",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"layers.0.self_attn: the model has dropout next to it"):
        names(after="*.self_attn")
    assert names(after="*.self_attn", beside_dropout=True) == [
        "layers.0.self_attn",
        "layers.1.self_attn",
    ]


def test_places_that_are_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
            self.unused = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(x)
            x = F.relu(self.layers[0](x), inplace=True)
            x = x * torch.sigmoid(self.layers[1](x))
            return F.dropout(torch.tanh(self.layers[2](x)).flatten(1), 0.1, self.training)

    model = Odd()
    with pytest.raises(InputError) as refused:
        ds.insert_sites(model, *vectors())
    for line in (
        "  relu(): no weights come before it",
        "  relu()#2: it works in place",
        "  sigmoid(): it gates another signal",
        "  tanh(): no weights come after it",
    ):
        assert line in str(refused.value)
    assert not model._forward_hooks
    with pytest.raises(InputError, match=r"0.0.1.0: the model has dropout next to it"):
        ds.insert_sites(nested(), *vectors())
    assert len(ds.insert_sites(nested(), *vectors(), beside_dropout=True).sites) == 2
    with pytest.raises(InputError, match="1: it is dropout itself"):
        ds.insert_sites(nested(), *vectors(), after=["1"])
    with pytest.raises(InputError, match="unused: it did not run"):
        ds.insert_sites(model, *vectors(), after="unused")
    with pytest.raises(InputError, match=r"no module 'layer.0'; it has 'layers.0'"):
        ds.insert_sites(model, *vectors(), after="layer.0")
    with pytest.raises(InputError, match="no module 'LSTM'"):
        ds.insert_sites(model, *vectors(), after=nn.LSTM)
    with pytest.raises(InputError, match="after is 3"):
        ds.insert_sites(model, *vectors(), after=[3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="names nothing"):
        ds.insert_sites(model, *vectors(), after=[])
    with pytest.raises(InputError, match="kind is 'gaussian'; expected elements"):
        ds.insert_sites(model, *vectors(), kind="gaussian")
    with pytest.raises(InputError, match="cannot run these inputs"):
        ds.insert_sites(model, torch.randn(3, 2))
    with pytest.raises(InputError, match="calls no activation that is known"):
        ds.insert_sites(nn.Sequential(nn.Linear(WIDTH, 4)), *vectors())
    with pytest.raises(InputError, match=r"expected a torch.nn.Module"):
        ds.insert_sites(nn.Linear, *vectors())  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [3, None, nn.ReLU(), [3]])
def test_places_of_a_wrong_type(after: Any) -> None:
    with pytest.raises(InputError, match=r"after is (3|None|ReLU\(\)); expected 'activation', the"):
        ds.insert_sites(mlp(), *vectors(), after=after)
    with pytest.raises(InputError, match=r"kind is \['alpha'\]; expected elements"):
        ds.insert_sites(mlp(), *vectors(), kind=["alpha"])  # type: ignore[arg-type]


def test_an_input_may_be_called_model() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = mlp()

        def forward(self, model: torch.Tensor) -> torch.Tensor:
            return self.layers(model)

    assert len(ds.insert_sites(Named(), model=vectors()[0]).sites) == 1


def test_twice_scheduled_and_in_the_wrong_order() -> None:
    model = mlp()
    found = ds.insert_sites(model, *vectors())
    with pytest.raises(InputError, match="1: dropout was inserted after it before"):
        ds.insert_sites(model, *vectors())
    applied = ds.apply_schedule(model, [0.3])
    with pytest.raises(InputError, match="is scheduled"):
        ds.insert_sites(model, *vectors(), after="0")
    with pytest.raises(InputError, match="is scheduled"):
        found.remove()
    applied.remove()
    also = ds.insert_sites(model, *vectors(), after="0", beside_dropout=True)
    assert [site.name for site in ds.dropout_sites(model, *vectors())] == [
        "0.inserted_dropout", "1.inserted_dropout",
    ]  # fmt: skip
    also.remove()
    found.remove()
    with pytest.raises(InputError, match="call dropout_sites"):
        ds.apply_schedule(model, [0.3])
    bare = Bare()
    ds.insert_sites(bare, *vectors())
    with pytest.raises(InputError, match=r"relu\(\): dropout was inserted"):
        ds.insert_sites(bare, *vectors(), beside_dropout=True)


def test_a_saved_schedule_asks_for_the_sites_first(tmp_path: Any) -> None:
    model = Bare()
    ds.insert_sites(model, *vectors())
    with ds.apply_schedule(model, [0.1, 0.2, 0.3, 0.4]) as applied:
        applied.save(tmp_path / "rates.json")
    fresh = Bare()
    with pytest.raises(InputError, match="call insert_sites"):
        ds.apply_schedule(fresh, tmp_path / "rates.json")
    ds.insert_sites(fresh, *vectors())
    with ds.apply_schedule(fresh, tmp_path / "rates.json"):
        assert draws(fresh, vectors()).rates == [0.1, 0.2, 0.3, 0.1, 0.4]


def test_own_functional_dropout_is_not_confused_with_what_was_inserted() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.second(F.relu(self.first(F.dropout(x, 0.5, self.training))))
            return F.dropout(x, 0.25, self.training)

    model = Both()
    ds.insert_sites(model, *vectors())
    sites = ds.dropout_sites(model, *vectors())
    assert [site.name for site in sites] == ["dropout()", "inserted_dropout_relu", "dropout()#2"]
    for rates in ([0.1, 0.2, 0.3], [0.4, 0.0, 0.6]):
        with ds.apply_schedule(model, rates):
            assert draws(model, vectors()).rates == [rate for rate in rates if rate]
    assert draws(model, vectors()).rates == [0.5, 0.25]


def test_gradients_under_checkpointing_are_those_without() -> None:
    """The second run, in the backward pass, drops what the first one dropped."""
    model = RecomputedBare()
    x = vectors()[0].requires_grad_()
    ds.insert_sites(model, x)
    gradients = []
    with ds.apply_schedule(model, [0.5, 0.6, 0.4, 0.3]):
        for run in (model, nn.Sequential(*model.blocks)):
            model.zero_grad()
            torch.manual_seed(5)
            run(x).square().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert same(*gradients)


def zeros(model: Any, x: torch.Tensor) -> float:
    return float((model(x) == 0).double().mean())


class Wide(nn.Module):
    """A positive signal, so that every zero is a dropped one."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.first, self.act, self.last = (
            nn.Linear(1, 1),
            nn.Softplus(),
            nn.Linear(1, 1, bias=False),
        )
        self.functional = functional

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(F.softplus(x) if self.functional else self.act(x))


@pytest.mark.parametrize("functional", [False, True])
def test_compiled_before_and_after(functional: bool) -> None:
    """Shares of 100,000 draws err by 0.0016; five of these are allowed."""
    x = torch.ones(100_000, 1)
    model = Wide(functional).train()
    compiled = torch.compile(model, backend="eager")
    assert zeros(compiled, x) == 0.0
    found = ds.insert_sites(compiled, x[:2])
    with ds.apply_schedule(compiled, [0.3]) as applied:
        assert zeros(compiled, x) == pytest.approx(0.3, abs=0.008)
        applied.set([0.6])
        assert zeros(compiled, x) == pytest.approx(0.6, abs=0.008)
        compiled.eval()
        assert zeros(compiled, x) == 0.0
        compiled.train()
    found.remove()
    assert zeros(compiled, x) == 0.0


def test_two_compiled_models_of_one_class() -> None:
    x = torch.ones(100_000, 1)
    plain, other = (Wide(False).train() for _ in range(2))
    first = torch.compile(plain, backend="eager")
    assert zeros(first, x) == 0.0
    ds.insert_sites(other, x[:2])
    ds.apply_schedule(other, [0.3])
    assert zeros(torch.compile(other, backend="eager"), x) == pytest.approx(0.3, abs=0.008)
    assert zeros(first, x) == 0.0


def test_inserted_after_a_module_stays_one_graph() -> None:
    model = Wide(False).train()
    ds.insert_sites(model, torch.ones(2, 1))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with ds.apply_schedule(compiled, [0.3]):
        assert zeros(compiled, torch.ones(100_000, 1)) == pytest.approx(0.3, abs=0.008)


def test_half_precision_and_autocast() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        model = mlp().to(dtype)
        x = vectors()[0].to(dtype)
        ds.insert_sites(model, x)
        with ds.apply_schedule(model, [0.3]):
            assert draws(model, (x,)).rates == [0.3]
            assert model(x).dtype == dtype
    model = Bare()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ds.insert_sites(model, *vectors())
        with ds.apply_schedule(model, [0.1, 0.2, 0.3, 0.4]):
            assert draws(model, vectors()).rates == [0.1, 0.2, 0.3, 0.1, 0.4]

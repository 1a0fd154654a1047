"""What introspection makes of models: layers in order, activations, dropout, chains and reasons."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from depthscale.answers import InputError
from depthscale.practice.probe.pointwise import probe
from depthscale.practice.probe.sites import Chain, recognise_chain, sites_of
from depthscale.practice.probe.trace import trace_model
from zoo import (
    FEATURES,
    WIDTH,
    ZOO,
    FrozenBackbone,
    Specimen,
    StochasticDepth,
    features,
    plain_mlp,
)


@pytest.fixture(params=ZOO, ids=lambda specimen: specimen.name)
def specimen(request: pytest.FixtureRequest) -> Specimen:
    torch.manual_seed(0)
    return request.param


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_zoo_layers_and_chains(specimen: Specimen, mode: str) -> None:
    model = specimen.build()
    trace = trace_model(model, specimen.inputs(), mode=mode)
    sites = sites_of(trace, model)
    names = tuple(site.layer.name for site in sites)
    assert len(set(names)) == len(names)
    if specimen.layers:
        assert names == specimen.layers
    assert [site.layer.index for site in sites] == list(range(len(sites)))
    chain = recognise_chain(trace, model)
    if specimen.theory:
        assert isinstance(chain, Chain), chain
        assert [names[place] for place in chain.layers] == [
            name for name in names if name in {names[i] for i in chain.layers}
        ]
        assert len(chain.widths) == len(chain.layers) == len(chain.hops) + 1
        for hop in chain.hops:
            assert hop.drop == 0.0 or mode == "train"
            assert probe(hop.activation, "") is not None
    else:
        assert isinstance(chain, str)
        assert specimen.reason in chain
    if mode == "train":
        assert trace.stochastic == specimen.drops


def test_sigma_and_drop_of_a_chain() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(FEATURES, 400), nn.Tanh(), nn.Dropout(0.3), nn.Linear(400, 500), nn.GELU()
    )
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=1.7 / layer.in_features**0.5)
            nn.init.normal_(layer.bias, std=0.4)
    chain = recognise_chain(trace_model(model, features()), model)
    assert isinstance(chain, Chain)
    (hop,) = chain.hops
    weight, bias = model[3].weight.detach().double(), model[3].bias.detach().double()
    assert hop.sigma_w == pytest.approx(float((400 * weight.square().mean()).sqrt()), rel=1e-12)
    assert hop.sigma_b == pytest.approx(float(bias.square().mean().sqrt()), rel=1e-12)
    # 200,000 weights: their scale is known to 1/sqrt(400,000) = 0.16 %, here six errors.
    assert hop.sigma_w == pytest.approx(1.7, rel=0.01)
    assert (hop.drop, hop.activation_name, hop.fan_in, hop.width) == (0.3, "tanh", 400, 500)
    assert recognise_chain(trace_model(model, features(), mode="eval")).hops[0].drop == 0.0


def test_conv_fan_in() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, (3, 5), groups=2), nn.ReLU(), nn.ConvTranspose2d(8, 4, 4, stride=2)
    )
    trace = trace_model(model, torch.randn(2, 4, 8, 8))
    uses = [event.weight for event in trace.weights]
    assert [(use.kind, use.fan_in, use.rows) for use in uses] == [
        ("conv", 2 * 15, 8),
        ("conv_transpose", 8 * 16 // 4, 4),
    ]
    assert recognise_chain(trace, model) == (
        "`2` is of kind conv_transpose, for which no theory is drawn"
    )


class _Functional(nn.Module):
    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.between(self.first(x)))


@pytest.mark.parametrize(
    ("between", "truth"),
    [
        (lambda h: h * torch.sigmoid(1.702 * h), lambda z: z * torch.sigmoid(1.702 * z)),
        (lambda h: torch.where(h > 0, h, 0.1 * h), lambda z: F.leaky_relu(z, 0.1)),
        (lambda h: torch.maximum(h, torch.zeros_like(h)), torch.relu),
        (lambda h: torch.where(h > 0, h, h.new_zeros(h.shape)), torch.relu),
        (lambda h: h.clamp(min=0), torch.relu),
        (lambda h: 1 - 2 / (1 + (2 * h).exp()), torch.tanh),
        (lambda h: h.tanh_().mul_(2.0), lambda z: 2 * torch.tanh(z)),
        (lambda h: (h * 0.5).view(-1, WIDTH).relu(), lambda z: 0.5 * torch.relu(z)),
        (lambda h: torch.special.erf(h.double()).float(), torch.erf),
        (lambda h: torch.special.xlog1py(h, h.abs()), lambda z: z * torch.log1p(z.abs())),
        (lambda h: F.gelu(h).square(), lambda z: F.gelu(z) ** 2),
        (lambda h: h**3, lambda z: z**3),
        (lambda h: h, lambda z: z),
    ],
)
def test_composed_activations(
    between: Callable[[torch.Tensor], torch.Tensor], truth: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    model = _Functional(between)
    chain = recognise_chain(trace_model(model, features()), model)
    assert isinstance(chain, Chain), chain
    z = torch.linspace(-3, 3, 61, dtype=torch.float64)
    torch.testing.assert_close(chain.hops[0].activation(z.clone()), truth(z), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("between", "words"),
    [
        (lambda h: torch.softmax(h, -1), "attends"),
        (lambda h: torch.cumsum(h, -1), "mixes units"),
        (lambda h: h / h.norm(dim=-1, keepdim=True), "normalisation"),
        (lambda h: F.layer_norm(h, (WIDTH,)), "normalises"),
        (lambda h: h * torch.arange(1.0, WIDTH + 1), "differ from unit to unit"),
        (lambda h: h * torch.rand_like(h), "custom noise"),
        (lambda h: F.alpha_dropout(torch.selu(h), 0.1, training=True), "alpha dropout"),
        (lambda h: torch.tanh(F.dropout(h, 0.1)), "dropout acts before"),
        (lambda h: torch.tanh(F.dropout(torch.tanh(h), 0.1)), "two activations"),
        (lambda h: F.rrelu(h, training=True), "custom noise"),
    ],
)
def test_reasons(between: Callable[[torch.Tensor], torch.Tensor], words: str) -> None:
    model = _Functional(between)
    reason = recognise_chain(trace_model(model, features()), model)
    assert isinstance(reason, str)
    assert words in reason


def test_dropout_before_a_homogeneous_activation_commutes() -> None:
    model = _Functional(lambda h: torch.relu(F.dropout(h, 0.25)))
    chain = recognise_chain(trace_model(model, features()), model)
    assert isinstance(chain, Chain)
    assert chain.hops[0].drop == 0.25


def test_a_long_enough_run_is_taken_and_the_rest_named() -> None:
    body: list[nn.Module] = []
    for _ in range(4):
        body += [nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    chain = recognise_chain(trace_model(model, torch.randn(2, 3, 6, 6)), model)
    assert isinstance(chain, Chain)
    assert chain.layers == (0, 1, 2, 3)
    assert any("left out of the theory: `10`" in note and "pools" in note for note in chain.notes)


def test_trained_looking_weights_are_noted() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    assert recognise_chain(trace_model(model, torch.randn(4, 64))).notes == ()
    with torch.no_grad():
        model[2].weight += 0.1 * torch.ones(64, 1) @ torch.randn(1, 64)
    (note,) = recognise_chain(trace_model(model, torch.randn(4, 64))).notes
    assert "first `2`" in note


def test_gradient_reason() -> None:
    torch.manual_seed(0)
    chain = recognise_chain(trace_model(StochasticDepth(), features(), mode="eval"))
    assert isinstance(chain, Chain)
    assert chain.gradient_reason == "the output of `stem` also feeds another operation (`add`)"
    chain = recognise_chain(trace_model(FrozenBackbone(), features()))
    assert chain.gradient_reason == "what follows `backbone` runs under torch.no_grad"
    detached = _Functional(lambda h: torch.tanh(h).detach())
    chain = recognise_chain(trace_model(detached, features()))
    assert chain.gradient_reason == "gradients are stopped after `first` (detach)"


def test_activation_behind_batch_norm() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    sites = sites_of(trace_model(model, torch.randn(2, 3, 8, 8)), model)
    assert [site.layer.activation for site in sites] == ["relu", None]
    assert sites[0].activation_key == "1|batch_norm|1"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda: (plain_mlp, features()), "instance|Module"),
        (lambda: (nn.Linear, features()), "give an instance, not the class"),
        (lambda: (plain_mlp(), torch.randn(1, FEATURES)), "holds 1 example"),
        (lambda: (plain_mlp(), torch.ones(4, FEATURES)), "all 4 examples .* identical"),
        (lambda: (plain_mlp(), torch.full((4, FEATURES), torch.nan)), "24 NaN or infinite"),
        (lambda: (plain_mlp(), torch.randn(4, 9)), r"\(4, 9\) float32\); it failed in `0`.*shapes"),
        (lambda: (plain_mlp(), torch.tensor(1.0)), "no batch dimension"),
        (lambda: (plain_mlp(), "digits"), "hold no tensor"),
        (lambda: (plain_mlp(), {"x": features(), "y": features()}), "Sequential cannot run"),
        (lambda: (nn.LazyLinear(3), features()), "lazy parameters"),
        (lambda: (plain_mlp().to("meta"), features()), "meta device"),
    ],
)
def test_bad_input_is_answered(
    spoil: Callable[[], tuple[nn.Module, torch.Tensor]], words: str
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Lazy modules are a new feature")
        model, inputs = spoil()
    with pytest.raises(InputError, match=words):
        trace_model(model, inputs)


def test_bad_weights_are_named() -> None:
    model = plain_mlp()
    with torch.no_grad():
        model[2].weight[1, 3] = torch.inf
    with pytest.raises(InputError, match=r"2\.weight \(1 of 256\)"):
        trace_model(model, features())


def test_script_modules_say_what_cannot_be_seen() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is on its way out
        scripted = torch.jit.script(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()))
    with pytest.raises(InputError, match="ScriptModule hides its operations"):
        trace_model(scripted, torch.randn(4, WIDTH))
    model = nn.Sequential(nn.Linear(FEATURES, WIDTH), scripted, nn.Linear(WIDTH, 2))
    trace = trace_model(model, features())
    assert [event.module for event in trace.weights] == ["0", "2"]
    assert trace.unresolved == ("`1` (ScriptModule)",)
    assert "does not come from the input in a way that can be seen" in recognise_chain(trace, model)


def test_data_parallel_is_unwrapped() -> None:
    trace = trace_model(nn.DataParallel(plain_mlp()), features())
    assert [event.module for event in trace.weights] == ["0", "2", "5"]
    assert "data-parallel" in trace.notes[0]


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_padding_at_the_edges_passes_for_convolutions(mode: str) -> None:
    convolutions = [nn.Conv2d(4, 4, 3, padding=1, padding_mode=mode) for _ in range(3)]
    model = nn.Sequential(*(m for c in convolutions for m in (c, nn.Tanh())))
    chain = recognise_chain(trace_model(model, torch.randn(2, 4, 6, 6)), model)
    assert isinstance(chain, Chain), chain
    assert [hop.activation_name.lower() for hop in chain.hops] == ["tanh", "tanh"]


class _Widened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(12, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(F.pad(torch.tanh(self.first(x)), (0, 4)))


@pytest.mark.parametrize("shape", [(3, 8), (3, 5, 8)])
def test_padded_features_stop_the_chain(shape: tuple[int, ...]) -> None:
    model = _Widened()
    chain = recognise_chain(trace_model(model, torch.randn(shape)), model)
    assert isinstance(chain, str)
    assert "`pad`" in chain

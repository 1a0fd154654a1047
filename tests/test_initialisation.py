"""Critical initialisation: reference values, laws of every activation, and real networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from depthscale.answers import InputError, Undefined
from depthscale.practice.advice import advise
from depthscale.practice.audit import audit
from depthscale.practice.diagnosis.growth import growth
from depthscale.practice.initialisation import critical_init_
from depthscale.practice.probe.measure import measure
from depthscale.theory.meanfield import MeanField

WIDTH = 300


def mlp(
    activation: type[nn.Module] | Any,
    depth: int = 10,
    *,
    drop: float = 0.0,
    bias: bool = True,
    width: int = WIDTH,
) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Linear(20, width, bias=bias)]
    for _ in range(depth - 2):
        modules += [activation(), nn.Dropout(drop), nn.Linear(width, width, bias=bias)]
    return nn.Sequential(*modules, activation(), nn.Dropout(drop), nn.Linear(width, 5, bias=bias))


def batch(size: int = 64, features: int = 20, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(size, features, generator=torch.Generator().manual_seed(3))


# sigma_w^2, sigma_b^2 of the critical point: published values and ours.
@pytest.mark.parametrize(
    ("name", "weight", "bias"),
    [
        ("tanh", 1.7609546396, 0.05),
        ("erf", 1.375839007, 0.05),
        ("relu", 2.0, 0.0),
        ("leaky_relu(0.2)", 2 / 1.04, 0.0),
        ("abs", 1.0, 0.0),
        ("identity", 1.0, 0.0),
    ],
)
def test_reference_critical_points(name: str, weight: float, bias: float):
    advice = advise(name)
    assert advice.exists
    assert advice.sigma_w**2 == pytest.approx(weight, rel=1e-9)
    assert advice.sigma_b**2 == pytest.approx(bias, abs=1e-15)
    # With dropout the line of a constant gradient is exactly (1 - drop) times it, at the same q.
    dropped = advise(name, drop=0.2)
    assert dropped.sigma_w**2 == pytest.approx(0.8 * weight, rel=1e-9)
    assert dropped.q == pytest.approx(advice.q, rel=1e-9)


NAMES = [
    "tanh",
    "erf",
    "sin",
    "softsign",
    "hardtanh",
    "relu",
    "leaky_relu(0.2)",
    "abs",
    "identity",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "hardswish",
    "relu6",
    "sigmoid",
    "hardsigmoid",
    "softplus",
    "softshrink",
    "tanhshrink",
    "polynomial(0,1,0.3)",
]


@pytest.mark.parametrize("drop", [0.0, 0.1])
@pytest.mark.parametrize("name", NAMES)
def test_advice_is_a_stable_critical_point_or_says_why_not(name: str, drop: float):
    advice = advise(name, drop=drop)
    state = MeanField(
        name, sigma_w=advice.sigma_w, sigma_b=advice.sigma_b, drop=drop, start=advice.q
    )
    assert float(state.gradient_factor_at(advice.q)) == pytest.approx(1.0, rel=1e-9)
    if not advice.exists:
        assert advice.reason
        assert isinstance(advice.depth_scale, Undefined)
        return
    assert float(state.length_map(advice.q)) == pytest.approx(advice.q, rel=1e-7)
    assert abs(float(state.length_slope(advice.q))) < 1 + 1e-9


def test_the_largest_drop_leaves_five_depth_scales():
    for name in ("tanh", "relu", "gelu"):
        limit = advise(name, drop=0.3, depth=40).max_drop
        assert float(advise(name, drop=float(limit)).depth_scale) == pytest.approx(8.0, rel=1e-6)
    assert isinstance(advise("softplus", drop=0.3, depth=40).max_drop, Undefined)


def test_the_forward_convention_makes_the_slope_one():
    advice = advise("tanh", drop=0.1, convention="forward")
    state = MeanField("tanh", advice.sigma_w, advice.sigma_b, 0.1)
    assert float(state.chi) == pytest.approx(1.0, rel=1e-9)
    assert float(state.gradient_factor) == pytest.approx(1 / 0.9, rel=1e-9)


def test_advice_refuses_what_has_no_answer():
    with pytest.raises(InputError, match="jumps in value"):
        advise("sign")
    with pytest.raises(InputError, match="forward"):
        advise("tanh", convention="backward")  # type: ignore[arg-type]
    with pytest.raises(InputError):
        advise("tahn")


class Custom(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.7 * x) + 0.1 * x


ACTIVATIONS: dict[str, Any] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.3),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "mish": nn.Mish,
    "softsign": nn.Softsign,
    "hardtanh": nn.Hardtanh,
    "softplus": nn.Softplus,
    "custom": Custom,
}


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_networks_keep_the_length_that_is_reported_and_their_gradient(name: str, orthogonal: bool):
    model = mlp(ACTIVATIONS[name])
    report = critical_init_(model, batch(), orthogonal=orthogonal, seed=11)
    found = measure(model, batch(), seed=0)
    expected = np.array([layer.q for layer in report.layers])
    # ln q of width 300 walks by about sqrt(5/300) = 0.13 a layer where the length map is marginal
    # (scale-free activations), so 0.4 over the 9 hidden layers: 4 deviations are a factor e^1.6.
    # Those with a stable length stay within 0.3; the bound below is for all.
    ratio = np.log(found.length[0, :-1] / expected[:-1])
    assert np.abs(ratio[:2]).max() < 0.5
    assert np.abs(ratio).max() < 1.6
    # The gradient: drift -kap l/(2n) = -0.1 and walk sqrt(kap l/n), kap <= 6: 0.4; 4 deviations.
    rise = growth(found.gradient[0, :-1][::-1])
    assert rise is not None
    assert abs(rise.total) < 1.8


@pytest.mark.parametrize("scale", [1e-3, 1.0, 250.0])
def test_the_first_layer_takes_the_scale_of_the_data(scale: float):
    model = mlp(nn.Tanh, 4)
    inputs = batch(scale=scale)
    report = critical_init_(model, inputs, seed=5)
    first = model[0](inputs).detach()
    # 300 units over 64 inputs of 20 features, all with the same weights: ln q is known to
    # sqrt(2/300) = 0.08 for one input and no better on average over inputs; 4 deviations.
    assert math.log(float(first.square().mean()) / report.layers[0].q) == pytest.approx(0, abs=0.33)
    assert report.layers[0].q == pytest.approx(0.5700478816, rel=1e-9)


def test_dropout_is_read_from_the_model_or_overridden():
    model = mlp(nn.ReLU, 4, drop=0.25)
    assert critical_init_(model, seed=0).layers[1].sigma_w == pytest.approx(math.sqrt(1.5))
    assert critical_init_(model, drop=0.0, seed=0).layers[1].sigma_w == pytest.approx(math.sqrt(2))
    report = critical_init_(model, drop=0.25, convention="forward", sigma_b=0.3, seed=0)
    assert report.layers[1].sigma_w == pytest.approx(math.sqrt(2))
    assert report.layers[1].sigma_b == 0.3
    measured = measure(model, batch())
    assert measured.layers[1].sigma_b == pytest.approx(0.3, rel=0.2)  # 300 draws: 4 % each


def test_mixed_activations_each_get_their_own_scale():
    model = mlp(nn.Tanh, 4)
    model[4], model[7] = nn.ReLU(), nn.GELU()
    report = critical_init_(model, batch(), seed=0)
    layers = report.layers
    for layer, before in zip(layers[1:-1], layers, strict=False):
        state = MeanField(str(layer.activation), layer.sigma_w, layer.sigma_b)
        assert float(state.gradient_factor_at(before.q)) == pytest.approx(1.0, rel=1e-9)
        assert float(state.length_map(before.q)) == pytest.approx(layer.q, rel=1e-9)


def test_without_biases_the_gradient_is_kept_while_the_length_falls():
    model = mlp(nn.Tanh, 12, bias=False)
    report = critical_init_(model, batch(), seed=2)
    lengths = [layer.q for layer in report.layers[:-1]]
    assert lengths == sorted(lengths, reverse=True)
    assert all(layer.sigma_b == 0 for layer in report.layers)
    assert any("without biases" in note for note in report.notes)


def test_gaussian_and_orthogonal_weights_have_the_reported_scale():
    model = mlp(nn.ReLU, 4, width=WIDTH)
    for orthogonal in (False, True):
        report = critical_init_(model, seed=4, orthogonal=orthogonal)
        for layer in report.layers:
            weight = model.get_submodule(layer.name).weight.detach()
            scale = math.sqrt(weight.shape[1] * float(weight.square().mean()))
            # sum W^2 of an orthogonal matrix is exact; 1,500 Gaussian entries know it to 2 %.
            assert scale == pytest.approx(layer.sigma_w, rel=1e-5 if orthogonal else 0.08)
            if orthogonal and weight.shape[0] <= weight.shape[1]:
                gram = weight @ weight.T / layer.sigma_w**2
                assert torch.allclose(gram, torch.eye(len(gram)), atol=1e-5)
            elif orthogonal:
                gram = weight.T @ weight * (weight.shape[1] / weight.shape[0]) / layer.sigma_w**2
                assert torch.allclose(gram, torch.eye(len(gram)), atol=1e-5)


def conv_net(kernel: int = 3, bias: bool = True, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 32, kernel, padding="same", bias=bias),
        nn.Tanh(),
        nn.Conv2d(32, 64, kernel, padding="same", bias=bias, groups=groups),
        nn.Tanh(),
        nn.Conv2d(64, 32, kernel, padding="same", bias=bias, groups=groups),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(32 * 144, 5),
    )


@pytest.mark.parametrize("groups", [1, 4])
def test_convolutions_gaussian_and_delta_orthogonal(groups: int):
    inputs = torch.randn(16, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    model = conv_net(groups=groups)
    critical_init_(model, inputs, seed=0)
    found = measure(model, inputs)
    # The border of 12 x 12 images misses up to a third of its inputs: lengths fall below q = 0.57,
    # and channels (32 at the least) add sqrt(2/32) = 0.25 of noise.
    assert np.all(np.abs(np.log(found.length[0, :3] / 0.57)) < 1.0)
    report = critical_init_(model, inputs, seed=0, orthogonal=True)
    assert [layer.method for layer in report.layers] == ["delta-orthogonal"] * 3 + ["orthogonal"]
    weight = model[2].weight
    assert torch.count_nonzero(weight).item() <= weight.shape[0] * weight.shape[1]
    middle = weight[:, :, 1, 1].reshape(groups, 64 // groups, 32 // groups)
    gram = torch.einsum("gij,gik->gjk", middle, middle) / report.layers[1].sigma_w ** 2 / 2
    assert torch.allclose(gram, torch.eye(32 // groups).expand_as(gram), atol=1e-5)


def test_even_kernels_are_orthogonal_on_the_whole_fan_in():
    model = conv_net(kernel=2, bias=False)
    inputs = torch.randn(4, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="even"):  # torch remarks on "same" padding of even kernels
        report = critical_init_(model, inputs, seed=0, orthogonal=True)
    flat = model[4].weight.flatten(1)
    gram = flat @ flat.T / report.layers[2].sigma_w ** 2
    assert torch.allclose(gram, torch.eye(32), atol=1e-5)
    assert report.layers[2].method == "orthogonal"


def test_transposed_convolutions_stay_gaussian_and_pooling_is_noted():
    model = nn.Sequential(
        nn.ConvTranspose1d(4, 16, 4, 2), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(16, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip
    inputs = torch.randn(8, 4, 9, generator=torch.Generator().manual_seed(0))
    model(inputs)
    report = critical_init_(model, inputs, orthogonal=True, seed=0)
    assert [layer.method for layer in report.layers] == [
        "gaussian",
        "delta-orthogonal",
        "orthogonal",
    ]
    assert any("pooling" in note for note in report.notes)
    assert any("ransposed" in note for note in report.notes)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(20, 40)
        self.second = nn.Linear(40, 40)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(40, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(F.gelu(self.first(x)), 0.1, self.training)
        return self.head(F.gelu(self.second(x)))


def test_functional_models_and_what_is_left_alone():
    model = Functional()
    before = model.unused.weight.clone()
    report = critical_init_(model, batch(), seed=0)
    assert [(layer.name, layer.role) for layer in report.layers] == [
        ("first", "first"),
        ("second", "hidden"),
        ("head", "last"),
    ]
    assert report.layers[1].drop == pytest.approx(0.1)
    assert report.untouched == (("unused", "Linear outside the chain"),)
    assert torch.equal(model.unused.weight, before)
    assert "left alone: unused" in str(report)
    assert report.to_dict()["layers"][0]["name"] == "first"


def test_draws_depend_on_the_seed_alone_and_keep_mode_type_and_gradients():
    first, second = mlp(nn.Tanh, 4), mlp(nn.Tanh, 4).double().eval()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    critical_init_(first, batch(), seed=9)
    assert torch.equal(torch.get_rng_state(), state)
    critical_init_(second, batch().double(), seed=9)
    assert second[0].weight.dtype == torch.float64
    assert not second.training
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(one.double(), two, rtol=1e-6, atol=1e-7)
        assert one.requires_grad
        assert one.grad is None
    torch.manual_seed(4)
    critical_init_(first, batch())
    drawn = first[0].weight.clone()
    torch.manual_seed(4)
    critical_init_(first, batch())
    assert torch.equal(first[0].weight, drawn)


def test_shared_frozen_and_embedded_layers():
    shared = nn.Linear(30, 30)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), shared, nn.Tanh(), shared, nn.Tanh())
    report = critical_init_(model, batch(), seed=0)
    assert len(report.layers) == 2
    assert any("shares its weights" in note for note in report.notes)

    frozen = mlp(nn.ReLU, 6, width=30)
    frozen[0].requires_grad_(False)
    with pytest.raises(InputError, match="frozen"):
        critical_init_(frozen, batch(), seed=0)

    words = nn.Sequential(nn.Embedding(7, 20), nn.Flatten(), nn.Linear(60, 30), nn.ReLU(),
                          nn.Linear(30, 3))  # fmt: skip
    tokens = torch.randint(0, 7, (16, 3), generator=torch.Generator().manual_seed(0))
    report = critical_init_(words, tokens, seed=0)
    assert [layer.role for layer in report.layers] == ["first", "last"]
    assert report.untouched == (("0", "Embedding outside the chain"),)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(20, 20)
        self.branch = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20))
        self.head = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.branch(x))


def test_models_that_are_no_chain_are_refused_untouched():
    model = Residual()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(InputError, match="residual"):
        critical_init_(model, batch())
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    with pytest.raises(InputError, match="fewer than two"):
        critical_init_(nn.Linear(20, 3), batch())


@pytest.mark.parametrize(
    ("model", "inputs", "settings", "words"),
    [
        (mlp(nn.Tanh, 3), batch(), {"drop": 1.0}, "drop"),
        (mlp(nn.Tanh, 3), batch(), {"sigma_b": -1.0}, "sigma_b"),
        (mlp(nn.Tanh, 3), batch(), {"convention": "both"}, "convention"),
        (nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)), None, {}, "give inputs"),
        (nn.Sequential(nn.ReLU()), None, {}, "no parameters"),
        ("not a model", None, {}, "nn.Module"),
        (mlp(nn.Tanh, 3), batch(features=7), {}, "7"),
    ],
)
def test_bad_input(model: Any, inputs: Any, settings: dict[str, Any], words: str):
    with pytest.raises(InputError, match=words):
        critical_init_(model, inputs, **settings)


def test_hard_steps_are_refused_with_the_reason():
    class Step(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sign(x)

    with pytest.raises(InputError, match="jumps in value"):
        critical_init_(mlp(Step, 4, width=20), batch())


class Tied(nn.Module):
    """One layer called again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(20, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(6):
            x = torch.tanh(self.layer(x))
        return x


def stem() -> nn.Module:
    return nn.Sequential(nn.Linear(20, WIDTH), nn.LayerNorm(WIDTH), *mlp(nn.Tanh, 12)[1:])


def parametrised() -> nn.Module:
    model = mlp(nn.Tanh, 6)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.utils.parametrizations.weight_norm(layer)
    return model


def frozen() -> nn.Module:
    return mlp(nn.Tanh, 6).requires_grad_(False)


def half_a_step() -> nn.Module:
    model = mlp(nn.Tanh, 12)
    model[1] = Step()
    return model


class Step(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, 1.0, -1.0) + 0.1 * x


OBSTACLES: list[tuple[Any, str]] = [
    (stem, "normalises"),
    (parametrised, "made from"),
    (Tied, "share the weights of one layer, layer"),
    (frozen, "it is frozen"),
    (lambda: mlp(nn.Tanh), ""),
    (lambda: mlp(nn.ReLU, drop=0.1), ""),
    (half_a_step, "jumps in value"),
]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(("build", "said"), OBSTACLES)
def test_an_audit_knows_whether_its_fix_would_be_refused(build: Any, said: str, mode: str):
    torch.manual_seed(0)
    model = build()
    advice = audit(model, batch(), mode=mode, band_nets=0).advice
    assert advice is not None
    refusal = None
    try:
        critical_init_(model, batch())
    except InputError as error:
        refusal = str(error)
    assert (refusal is None) == (advice.obstacle is None) == (not said)
    if refusal is not None:
        assert refusal.startswith(str(advice.obstacle))
        assert said in str(advice.obstacle)
        assert "critical_init_" not in str(advice.obstacle)


def test_the_layer_behind_tied_calls_is_set_too():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.tied, self.last = (
                nn.Linear(20, 64),
                nn.Linear(64, 64),
                nn.Linear(64, 5),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.tanh(self.first(x))
            for _ in range(4):
                x = torch.tanh(self.tied(x))
            return self.last(x)

    report = critical_init_(Net(), batch(), seed=0)
    assert [layer.name for layer in report.layers] == ["first", "tied", "last"]
    assert report.untouched == ()


def test_alpha_dropout_is_an_obstacle_in_both_modes():
    model = nn.Sequential(nn.Linear(20, 64), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(64, 64))
    with pytest.raises(InputError, match="alpha dropout"):
        critical_init_(model, batch())
    advice = audit(model, batch(), mode="eval", band_nets=0).advice
    assert advice is not None
    assert "alpha dropout" in str(advice.obstacle)


@pytest.mark.parametrize("seed", [2**63, -1, 0.5])
def test_seeds_out_of_range_are_refused(seed: Any):
    with pytest.raises(InputError, match=r"below 2\*\*63"):
        critical_init_(mlp(nn.Tanh), batch(), seed=seed)

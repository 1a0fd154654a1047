"""Statistics of layers against computation by hand, and models left exactly as they were."""

from __future__ import annotations

import random
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from depthscale.answers import InputError
from depthscale.practice.probe.measure import Measurement, measure
from depthscale.practice.probe.state import preserved, seed_everything
from depthscale.practice.probe.weights import redraw
from zoo import (
    BATCH,
    CLASSES,
    FEATURES,
    WIDTH,
    ZOO,
    FrozenBackbone,
    Specimen,
    Stateful,
    TokenModel,
    features,
    frozen_mlp,
    half_mlp,
    images,
    plain_mlp,
    sequence,
    time_first_transformer,
    tokens,
)


def mlp(depth: int = 4, width: int = 32, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(width, width, dtype=dtype)
        nn.init.normal_(linear.weight, std=1.5 / width**0.5)
        nn.init.normal_(linear.bias, std=0.3)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, 5, dtype=dtype))


def batch(size: int = 9, width: int = 32, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(4), dtype=dtype)


def by_hand(model: nn.Sequential, x: torch.Tensor, energy: Any) -> dict[str, list[float]]:
    """Pre-activations and their gradients, each statistic spelt out example by example."""
    signals, h = [], x
    for module in model:
        h = module(h)
        if isinstance(module, nn.Linear):
            signals.append(h)
    gradients = torch.autograd.grad(energy(h), signals)
    found: dict[str, list[float]] = {key: [] for key in ("length", "eps", "gradient", "grad_eps")}
    for signal, gradient in zip(signals, gradients, strict=True):
        a, g = signal.detach().double(), gradient.double()
        found["length"].append(float(a.square().mean()))
        found["gradient"].append(float(g.square().sum(dim=1).mean()))
        for key, rows in (("eps", a), ("grad_eps", g)):
            unit = rows / rows.norm(dim=1, keepdim=True)
            pairs = [float((unit[i] - unit[i + 1]).square().sum() / 2) for i in range(len(a) - 1)]
            found[key].append(float(np.mean(pairs)))
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("inplace", [False, True])
def test_against_hand_computation(dtype: torch.dtype, inplace: bool) -> None:
    model, x = mlp(dtype=dtype), batch(dtype=dtype)
    if inplace:
        model = nn.Sequential(*(nn.ReLU(inplace=True) if i % 2 else m for i, m in enumerate(model)))
    reader = torch.randn(5, generator=torch.Generator().manual_seed(6), dtype=dtype)

    def energy(out: torch.Tensor) -> torch.Tensor:
        return (torch.sin(out) @ reader).sum()

    measured = measure(model, x, loss=energy)
    plain = nn.Sequential(*(nn.ReLU() if isinstance(m, nn.ReLU) else m for m in model))
    truth = by_hand(plain, x, energy)
    # The same float operations happen in both; only the order of float64 sums differs.
    for key, found in (
        ("length", measured.length),
        ("eps", measured.eps),
        ("gradient", measured.gradient),
        ("grad_eps", measured.gradient_eps),
    ):
        np.testing.assert_allclose(found[0], truth[key], rtol=1e-12, atol=1e-14)
    assert measured.eps_masks is None
    assert measured.passes == 2


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-8])
def test_eps_of_nearly_equal_inputs_keeps_its_digits(distance: float) -> None:
    model = mlp(depth=0, width=20)
    x = batch(2, 20)
    x[1] = x[0] + distance * x[1]
    measured = measure(model, x)
    with mpmath.workdps(40):
        weight, bias = model[0].weight.tolist(), model[0].bias.tolist()
        h = [
            [mpmath.fdot(row, example) + b for row, b in zip(weight, bias, strict=True)]
            for example in x.tolist()
        ]
        norms = [mpmath.sqrt(mpmath.fdot(v, v)) for v in h]
        truth = 1 - mpmath.fdot(h[0], h[1]) / (norms[0] * norms[1])
    # h is rounded to 1.1e-16; its difference, of relative size `distance`, keeps the rest.
    # At distance 1e-8, where eps is 1e-16, 1 - c by subtraction would have no digit left.
    assert measured.eps[0, 0] == pytest.approx(float(truth), rel=4e-15 / distance)


def test_equal_and_zero_vectors_are_numbers() -> None:
    model = nn.Sequential(nn.Linear(3, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))
    x = torch.tensor([[1.0, 2, 3], [1, 2, 3], [0, 0, 0], [0, 0, 0], [3, 2, 1]])
    measured = measure(model, x)
    signal = measure(model, x[:2] + torch.tensor([[0.0], [1.0]]))
    assert signal.zero[0, 0] == 0.0
    assert measured.zero[0, 0] == pytest.approx(2 / 5)
    # pairs: equal 0, lonely zero 1, both zero 0, lonely zero 1
    assert measured.eps[0, 0] == pytest.approx(0.5)
    assert np.isfinite(measured.eps).all()


def test_same_input_under_two_masks() -> None:
    """A linear network: masks leave the correlation rho = 1 - drop after one hop (exactly)."""
    torch.manual_seed(0)
    drop, width = 0.3, 800
    model = nn.Sequential(nn.Linear(10, width), nn.Dropout(drop), nn.Linear(width, width))
    for layer in (model[0], model[2]):
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.zeros_(layer.bias)
    measured = measure(model, torch.randn(40, 10), pairs=40)
    assert measured.eps_masks is not None
    assert measured.eps_masks[0, 0] == 0.0
    # One correlation of width 800 scatters by (1 - rho^2)/sqrt(800) = .018 from the weights and as
    # much from the masks: .1 is four of those, and the mean of 40 inputs scatters less.
    assert measured.eps_masks[0, 1] == pytest.approx(drop, abs=0.1)
    assert measure(model, torch.randn(40, 10), mode="eval").eps_masks is None
    assert measured.layers[0].drop == drop


def test_readout_is_the_same_for_all_and_has_unit_norm() -> None:
    torch.manual_seed(0)
    measured = measure(nn.Sequential(nn.Linear(6, 2000), nn.Identity()), torch.randn(5, 6))
    assert measured.gradient_eps[0, -1] == pytest.approx(0.0, abs=1e-14)
    # |r|^2 is chi^2 of 2000 over 2000: 1 +- 0.032; six errors.
    assert measured.gradient[0, -1] == pytest.approx(1.0, abs=0.2)


def test_cross_entropy_and_targets() -> None:
    model, x = mlp(), batch()
    targets = torch.arange(9) % 5
    truth = by_hand(model, x, lambda out: F.cross_entropy(out, targets, reduction="sum"))
    measured = measure(model, x, targets=targets.numpy())
    np.testing.assert_allclose(measured.gradient[0], truth["gradient"], rtol=1e-12)
    mean = measure(model, x, targets=targets, loss=F.cross_entropy)
    np.testing.assert_allclose(81 * mean.gradient[0], truth["gradient"], rtol=1e-12)
    with pytest.raises(InputError, match="expected 9 along the first"):
        measure(model, x, targets=targets[:3])
    with pytest.raises(InputError, match="give loss="):
        measure(model, x, targets=torch.randn(9, 2))
    with pytest.raises(InputError, match="loss fails with ValueError: no"):
        measure(model, x, loss=_refuse)


def _refuse(_: torch.Tensor) -> torch.Tensor:
    raise ValueError("no")


def test_dead_and_saturated_units() -> None:
    model = nn.Sequential(
        nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 2)
    )
    with torch.no_grad():
        model[0].bias[:3] = -1e3
        model[2].weight.zero_()
        model[2].bias.copy_(torch.tensor([0.0] * 6 + [5.0] * 4))
    measured = measure(model, torch.randn(6, 4))
    assert measured.dead[0, 0] >= 0.3
    assert measured.saturated[0, 0] == 0.0  # a ReLU that is off is not saturated
    assert measured.dead[0, 1] == pytest.approx(0.6)
    assert measured.saturated[0, 1] == pytest.approx(0.4)
    assert np.isnan(measured.dead[0, 2])


def test_dead_channels_of_a_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    with torch.no_grad():
        model[1].bias[:2] = -1e3
    assert measure(model, images()).dead[0, 0] == pytest.approx(0.25)


def test_first_nonfinite_layer_is_found() -> None:
    model = mlp(depth=6, dtype=torch.float32)
    for i in (1, 3, 5, 7, 9, 11):
        model[i] = nn.Identity()
    with torch.no_grad():
        for linear in model[::2]:
            linear.weight *= 1e8
    measured = measure(model, batch(dtype=torch.float32))
    # Each layer multiplies by 1e8: float32 ends at 3e38, in the fifth.
    assert measured.nonfinite_at == "8"
    assert np.isfinite(measured.length[0, :4]).all()
    assert measure(mlp(), batch()).nonfinite_at is None


def test_tiny_gradients_do_not_underflow() -> None:
    model = mlp(depth=50)
    with torch.no_grad():
        for linear in model[::2]:
            linear.weight *= 1e-4
            linear.bias.zero_()
    measured = measure(model, batch())
    # |g|^2 passes 1e-308 in float64; |g| itself does not, so directions are still known.
    ratios = measured.gradient[0, 20:30] / measured.gradient[0, 21:31]
    assert np.all((ratios > 1e-9) & (ratios < 1e-6))
    assert np.isfinite(measured.gradient_eps).all()


@pytest.mark.parametrize("form", ["float", "numpy", "double"])
def test_inputs_are_matched_to_the_model(form: str) -> None:
    x = features()
    given = {"float": x, "numpy": x.numpy(), "double": x.double()}[form]
    measured = measure(plain_mlp(), given)
    assert any("cast" in note for note in measured.notes) == (form == "double")
    torch.testing.assert_close(x, features(), rtol=0, atol=0)


def test_inputs_changed_in_place_are_copies() -> None:
    x = features()
    measure(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(FEATURES, 3)), x)
    assert torch.equal(x, features())


def test_batch_in_the_second_dimension_inside() -> None:
    """[time, batch, features] inside the model: rows of the statistics are still examples."""
    torch.manual_seed(0)
    model = time_first_transformer()
    first, second = sequence(), torch.cat([sequence()[:2], sequence()[:6]])
    assert measure(model, first).eps[0, 0] > 0.1
    outer = measure(model, second, pairs=1)
    assert outer.eps[0, 0] == pytest.approx(measure(model, first, pairs=1).eps[0, 0], rel=1e-6)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_callers_without_gradients(context: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    reference = measure(plain_mlp(), features())
    with context():
        torch.manual_seed(0)
        model = plain_mlp()
        measured = measure(model, features())
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(measured.gradient, reference.gradient)


def test_frozen_and_half_models_agree_with_the_plain_one() -> None:
    results = []
    for build in (plain_mlp, frozen_mlp, half_mlp):
        torch.manual_seed(0)
        results.append(measure(build(), features(), mode="eval"))
    np.testing.assert_array_equal(results[0].gradient, results[1].gradient)
    # bfloat16 has 8 bits: a percent or two.
    np.testing.assert_allclose(results[2].gradient, results[0].gradient, rtol=0.05)
    np.testing.assert_allclose(results[2].eps, results[0].eps, rtol=0.05)
    assert "bfloat16 rounds" in results[2].notes[-1]


def test_layers_without_gradient_are_named() -> None:
    measured = measure(FrozenBackbone(), features())
    assert np.isnan(measured.gradient[0, 0])
    assert np.isfinite(measured.gradient[0, 1])
    assert "the loss sends no gradient to: `backbone`" in measured.notes


def test_a_backward_pass_that_fails_is_quoted() -> None:
    spoils = nn.Sequential(nn.Linear(FEATURES, 8), nn.Sigmoid(), nn.ReLU(inplace=True))
    spoils.append(nn.Linear(8, 2))
    measured = measure(spoils, features())
    assert np.isfinite(measured.eps).all()
    assert np.isnan(measured.gradient).all()
    assert any("modified by an inplace operation" in note for note in measured.notes)


def test_reinit_repeats_this_initialisation() -> None:
    model, x = mlp(width=64), batch(width=64)
    with torch.no_grad():
        model[-1].bias.zero_()
    plain, repeated = measure(model, x), measure(model, x, reinit=3)
    assert repeated.length.shape == (4, 5)
    assert repeated.passes == 5
    np.testing.assert_array_equal(repeated.length[0], plain.length[0])
    np.testing.assert_array_equal(measure(model, x, reinit=3).eps, repeated.eps)
    assert len(set(repeated.eps[:, -1])) == 4
    # tanh at sigma_w = 1.5: lengths stay near their fixed point; width 64 scatters by about 15 %.
    np.testing.assert_allclose(repeated.length[1:, :4], plain.length[:, :4].repeat(3, 0), rtol=0.8)


def test_redraw_keeps_the_law() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(300, 400, generator=generator) * 2 - 1
    drawn = redraw(uniform, generator)
    assert not torch.equal(drawn, uniform)
    # 120,000 entries of a bounded law: scale to 0.3 %, correlation to 0.3 %, five errors each.
    assert float(drawn.square().mean()) == pytest.approx(1 / 3, rel=0.015)
    assert abs(float((drawn * uniform).mean())) < 5 / 3 / 120_000**0.5
    assert float(drawn.abs().max()) <= 1.0
    ones = torch.ones(7)
    assert torch.equal(redraw(ones, generator), ones)
    orthogonal = 1.3 * torch.linalg.qr(torch.randn(64, 64, generator=generator))[0][:48]
    again = redraw(orthogonal, generator)
    torch.testing.assert_close(again @ again.T, 1.69 * torch.eye(48), rtol=1e-5, atol=1e-5)
    assert (again - orthogonal).abs().max() > 0.1


def test_two_runs_are_equal_and_seeds_differ() -> None:
    model = plain_mlp()
    first, second, other = (measure(model, features(), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.eps_masks, second.eps_masks)
    np.testing.assert_array_equal(first.gradient, second.gradient)
    assert not np.array_equal(first.eps_masks, other.eps_masks)


def test_cost_in_passes() -> None:
    model = plain_mlp()
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    assert measure(model, features()).passes == len(calls) == 2
    handle.remove()


def test_standard_error_counts_shared_inputs() -> None:
    measured = measure(mlp(), batch(40), pairs=30)
    assert measured.pairs == 30
    assert np.all(measured.eps_error > 0)
    assert np.isnan(measure(mlp(), batch(2)).eps_error).all()


def test_models_that_refuse_a_doubled_batch() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(FEATURES, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(self.fc(x.view(BATCH, FEATURES)), 0.1, self.training)

    measured = measure(Fixed(), features())
    assert measured.eps_masks is None
    assert any("only takes batches of this size" in note for note in measured.notes)


def test_indices_are_not_doubled() -> None:
    class GraphNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(FEATURES, 4)

        def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
            h = F.dropout(self.fc(x), 0.1, self.training)
            return h.index_add(0, edges[0], h[edges[1]])

    measured = measure(GraphNet(), (features(), torch.randint(0, BATCH, (2, 30))))
    assert measured.eps_masks is None
    assert any("was not doubled" in note for note in measured.notes)


@pytest.mark.parametrize("frozen", [False, True])
def test_last_state_of_an_lstm(frozen: bool) -> None:
    class LastState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(WIDTH, 8, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[1][0][-1])

    measured = measure(LastState().requires_grad_(not frozen), sequence())
    assert [layer.kind for layer in measured.layers] == ["fused", "linear"]
    assert measured.trace is not None
    assert measured.trace.weights[0].parents  # it is known where the head's input comes from
    assert np.isfinite(measured.gradient[0, 1])


def test_vmap_is_opaque() -> None:
    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(FEATURES, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.vmap(self.fc)(x))

    measured = measure(Mapped(), features())
    assert [layer.name for layer in measured.layers] == ["head"]
    assert any("vmap" in note for note in measured.notes)


def test_to_xarray() -> None:
    measured = measure(plain_mlp(), features(), reinit=1)
    grid = measured.to_xarray()
    assert dict(grid.sizes) == {"repeat": 2, "layer": 3}
    assert list(grid.layer.values) == ["0", "2", "5"]
    np.testing.assert_array_equal(grid.eps.values, measured.eps)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pairs": 0}, "pairs"),
        ({"reinit": -1}, "reinit"),
        ({"seed": -1}, "seed"),
        ({"mode": "test"}, "mode"),
        ({"loss": 3}, "loss must be callable"),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        measure(plain_mlp(), features(), **settings)


def test_no_weight_layer() -> None:
    with pytest.raises(InputError, match="no weight layer ran in Sequential"):
        measure(nn.Sequential(nn.Flatten(), nn.Tanh()), features())


# A model is left exactly as it was ---------------------------------------------------------------


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything about a model and the random streams that a measurement could change."""
    found: dict[str, Any] = {"numpy": str(np.random.get_state())}  # noqa: NPY002
    found["torch"] = torch.get_rng_state().tolist()
    found["python"] = random.getstate()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[name] = (id(tensor), tensor.requires_grad, tensor.dtype, tensor.device, bits(tensor))
        found[f"{name}.grad"] = (id(tensor.grad), bits(tensor.grad))
    for path, module in model.named_modules():
        attributes = {
            key: list(value.items()) if isinstance(value, dict) else list(value)
            for key, value in vars(module).items()
            if isinstance(value, dict | list | set)
        }
        found[f"{path}: attributes"] = {
            key: [str(item) for item in value] for key, value in attributes.items()
        }
        found[f"{path}: names"] = list(vars(module))
        found[f"{path}: plain"] = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, bool | int | float | str)
        }
    return found


def bits(tensor: torch.Tensor | None) -> bytes | None:
    if tensor is None:
        return None
    return bytes(tensor.detach().clone().flatten().view(torch.uint8).numpy())


def with_history(specimen: Specimen) -> nn.Module:
    """A specimen in the middle of training: mixed modes, gradients, one frozen parameter."""
    torch.manual_seed(0)
    model = specimen.build()
    modules = list(model.modules())
    modules[-1].train(not modules[-1].training)
    parameters = list(model.parameters())
    for parameter in parameters[::2]:
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    if len(parameters) > 2:
        parameters[1].requires_grad_(False)
    return model


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_zoo_is_left_exactly_as_it_was(specimen: Specimen, mode: str) -> None:
    model = with_history(specimen)
    inputs = specimen.inputs()
    before = fingerprint(model)
    measured = measure(model, inputs, mode=mode, reinit=int(mode == "train"))
    assert fingerprint(model) == before
    check_sanity(measured, specimen, mode)


def check_sanity(measured: Measurement, specimen: Specimen, mode: str) -> None:
    if specimen.layers:
        assert tuple(layer.name for layer in measured.layers) == specimen.layers
    assert (measured.eps_masks is not None) == (specimen.drops and mode == "train")
    assert measured.nonfinite_at is None
    assert np.all(measured.length >= 0)
    # eps of two vectors lies in [0, 2].
    assert np.all((measured.eps >= 0) & (measured.eps <= 2 + 1e-9))
    assert np.nanmin(measured.gradient) >= 0
    if specimen.name not in ("frozen_backbone", "one_layer"):
        assert np.isfinite(measured.gradient).all(), measured.notes


class Breaks(nn.Module):
    """Raises in the n-th call, in the middle of everything."""

    def __init__(self, error: type[BaseException], after: int) -> None:
        super().__init__()
        self.error, self.after, self.calls = error, after, [0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls[0] += 1
        if self.calls[0] > self.after:
            raise self.error("in the middle")
        return x


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_model_is_restored_after_an_error(error: type[BaseException], after: int) -> None:
    model = nn.Sequential(
        Stateful(), nn.BatchNorm1d(CLASSES), nn.Linear(CLASSES, 4), Breaks(error, after)
    )
    model[1].eval()
    before = fingerprint(model)
    expected = InputError if error is RuntimeError else error
    with pytest.raises(expected, match="in the middle"):
        measure(model, features())
    assert fingerprint(model) == before
    assert torch.overrides._len_torch_function_stack() == 0


def test_weights_changed_by_the_forward_pass_come_back() -> None:
    torch.manual_seed(0)
    model = TokenModel()
    before = bits(model.embed.weight)
    version = model.fc.weight._version
    measure(model, tokens())
    assert bits(model.embed.weight) == before
    assert model.fc.weight._version == version  # graphs that the caller holds stay valid
    model(tokens())
    assert bits(model.embed.weight) != before  # max_norm does change it


def test_preserved_keeps_identity_of_buffers() -> None:
    model = Stateful()
    held = model.mean
    with preserved(model):
        model(features())
        assert model.mean is not held
        model.fc.weight.data = torch.zeros(2, 2)
        model.norm.running_mean.fill_(torch.nan)
        model.extra = 3
    assert model.mean is held
    assert model.calls == 0
    assert model.history == []
    assert not hasattr(model, "extra")
    assert model.fc.weight.shape == (WIDTH, FEATURES)
    assert bool((model.norm.running_mean == 0).all())


class Hoarder(nn.Module):
    """Holds, and changes in place, what no buffer or parameter is."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(FEATURES, WIDTH)
        self.out = nn.Linear(WIDTH, 3)
        self.own = torch.Generator().manual_seed(7)
        self.kept = {"more": [np.random.default_rng(7), np.random.RandomState(7)]}
        self.last = (random.Random(7),)
        self.tensors = [torch.zeros(2), {"deep": torch.zeros(2)}]
        self.nested = [[1, [2]], deque([3], maxlen=2)]
        self.array = np.zeros(2)
        self.arrays = (np.zeros(2), np.array([None, [4]], dtype=object))
        self.sparse = [torch.eye(2).to_sparse()]
        self.plain = [nn.BatchNorm1d(WIDTH)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(x.shape, generator=self.own)
        noise = noise + self.kept["more"][0].normal() + self.kept["more"][1].normal()
        noise = noise + self.last[0].random()
        self.tensors[0] += 1
        self.tensors[1]["deep"] += 1
        self.nested[0][1].append(5)
        self.nested[1].extend([6, 7])
        self.array += 1
        self.arrays[0][0] = np.nan
        self.arrays[1][1].append(8)
        self.arrays[1][0] = "new"
        self.sparse[0].mul_(2)
        return self.out(torch.relu(self.plain[0](self.fc(x + 0.1 * noise))))

    def inside(self) -> tuple[bytes | str, ...]:
        states = [self.own.get_state().tolist(), self.kept["more"][0].bit_generator.state]
        legacy = self.kept["more"][1].get_state()[1].tolist()
        plain = self.plain[0]
        return tuple(
            map(
                str,
                (states, legacy, self.last[0].getstate(), self.tensors, self.nested, self.array,
                 self.arrays, self.sparse[0].to_dense(), plain.running_mean, plain.training),
            )
        )  # fmt: skip


def test_what_modules_hold_comes_back() -> None:
    model = Hoarder()
    model.plain[0].eval()
    before = model.inside()
    found = measure(model, features(), seed=3)
    assert model.inside() == before
    assert found.eps_masks is not None
    model(features())
    changed = [old != new for old, new in zip(before, model.inside(), strict=True)]
    assert changed == [True] * 8 + [False] * 2  # its frozen batch norm never changes


class OwnNoise(nn.Module):
    """A dropout of its own, drawn from a generator that the module holds."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.source = source
        self.torch_stream = torch.Generator().manual_seed(1)
        self.numpy_stream = np.random.default_rng(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.source == "torch":
            noise = torch.rand(x.shape, generator=self.torch_stream)
        elif self.source == "numpy":
            noise = torch.as_tensor(self.numpy_stream.random(x.shape), dtype=x.dtype)
        else:
            noise = torch.as_tensor(np.random.random_sample(x.shape), dtype=x.dtype)  # noqa: NPY002
        return self.layers(x * (noise > 0.3))


@pytest.mark.parametrize("source", ["torch", "numpy", "numpy global"])
def test_noise_of_any_stream_is_seeded_and_seen(source: str) -> None:
    model = OwnNoise(source)
    first = measure(model, features(), seed=1)
    model.torch_stream.manual_seed(99)
    model.numpy_stream.random(5)
    again = measure(model, features(), seed=1)
    other = measure(model, features(), seed=2)
    assert first.eps_masks is not None
    assert first.eps_masks.min() > 0.01
    assert np.array_equal(first.eps, again.eps)
    assert not np.array_equal(first.eps, other.eps)


def test_a_held_generator_does_not_repeat_the_global_stream() -> None:
    model = OwnNoise("torch")
    with preserved(model):
        seed_everything(model, 5)
        own = torch.rand(8, generator=model.torch_stream)
        assert not torch.equal(own, torch.rand(8))
        torch.manual_seed(5)
        plain = torch.rand(8)
        seed_everything(model, 5)
        assert torch.equal(plain, torch.rand(8))
    model.torch_stream = torch.default_generator
    with preserved(model):
        seed_everything(model, 5)
        assert torch.equal(plain, torch.rand(8))


@pytest.mark.parametrize("seed", [2**63, 2**64, -1, 1.5])
def test_seeds_out_of_range_are_refused(seed: Any) -> None:
    with pytest.raises(InputError, match=r"below 2\*\*63"):
        measure(nn.Linear(FEATURES, 3), features(), seed=seed)


def test_the_largest_seed_will_do() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Dropout(0.1), nn.Linear(WIDTH, 3))
    assert np.isfinite(measure(model, features(), seed=2**63 - 1, reinit=1).length).all()


@pytest.fixture(autouse=True)
def _no_new_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_batch_norm_does_not_cancel_the_readout() -> None:
    """Its backward pass takes the mean over the batch out of the gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 3))
    measured = measure(model, torch.randn(64, 16))
    # Var(h) = 1/3 of weights and 1/48 of biases each in U(+-1/4): the norm multiplies squared
    # gradients by about 1/var(h) = 3; the readout by 16 weights^2 / 3 outputs of mean 1/48.
    assert 0.1 < measured.gradient[0, 0] / measured.gradient[0, 1] < 10
    assert measured.gradient_eps[0, 1] == pytest.approx(0.0, abs=1e-14)

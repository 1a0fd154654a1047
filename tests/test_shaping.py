"""Shaping: maps against forty digits and explicit networks, modules, and models left as found."""

from __future__ import annotations

import copy
import json
import math
import pickle
import warnings

import mpmath as mp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from depthscale.answers import InputError, Undefined
from depthscale.finite.bands import correlation_band
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.practice.shaping.shape import shape
from depthscale.practice.shaping.transform import amount_of, solve
from depthscale.theory.activation import activation
from depthscale.theory.functions.affine import affine
from depthscale.theory.kernel import Kernel


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(module)


SMOOTH = ["tanh", "gelu", "silu", "softplus", "erf", "sigmoid", "mish", "softsign", "elu", "sin"]


def leaky_correlation(slope: float, depth: int, start: float = 0.0) -> mp.mpf:
    """Forty digits of the arc-cosine recursion."""
    with mp.workdps(40):
        weight = (1 - mp.mpf(slope)) ** 2 / (1 + mp.mpf(slope) ** 2) / mp.pi
        c = mp.mpf(start)
        for _ in range(depth):
            c += weight * (mp.sqrt(1 - c * c) - c * mp.acos(c))
        return c


# Slopes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "slope"), [(20, 0.18138), (50, 0.43052), (100, 0.57044)])
def test_slopes_of_the_tailored_activation_transformation(depth, slope):
    shaped = shape("relu", depth)
    assert shaped.method == "slope"
    assert float(shaped.slope) == pytest.approx(slope, abs=5e-6)  # the digits that are known
    assert shaped.reached == pytest.approx(0.9, abs=1e-12)


@pytest.mark.parametrize(
    ("depth", "target", "eps0"),
    [(1, 0.2, 1.0), (7, 0.5, 1.0), (40, 0.95, 0.5), (300, 0.9, 1.7), (25, 0.3, 0.7 + 1e-6)],
)
def test_the_slope_reaches_the_target_in_forty_digits(depth, target, eps0):
    """The recursion contracts, so rounding of 1e-16 a layer stays below 1e-13."""
    shaped = shape("leaky_relu(0.2)", depth, target=target, eps0=eps0)
    exact = leaky_correlation(float(shaped.slope), depth, 1 - eps0)
    assert abs(float(exact) - target) < 1e-12
    assert shaped.correlation[-1] == pytest.approx(float(exact), abs=1e-12)


def test_the_slope_of_a_deep_network_follows_the_shortcut():
    """``(1 - a)^2/(1 + a^2) = pi I/L`` with I the integral of d rho/(sqrt(1 - rho^2) - rho arccos).

    The map is the Euler scheme of its flow, so the shortcut errs by O(1/L): the error times L
    settles. The integral is computed here.
    """
    integral = float(mp.quad(lambda c: 1 / (mp.sqrt(1 - c * c) - c * mp.acos(c)), [0, 0.5, 0.9]))
    assert integral == pytest.approx(4.50994, abs=5e-6)
    depths = (250, 500, 1000, 2000)
    errors = [L * (L * shape("relu", L).amount / (math.pi * integral) - 1) for L in depths]
    assert abs(errors[-1]) < 5
    # the next order is log(L)/L^2: differences of L error halve at least
    assert abs(errors[3] - errors[2]) < abs(errors[1] - errors[0])
    assert abs(errors[3] - errors[2]) < 0.02 * abs(errors[3])


def test_a_negative_slope_reaches_what_relu_cannot():
    with pytest.raises(InputError, match=r"out of reach.*from 0 to 0\.4937.*lowest_slope"):
        shape("relu", 2, target=0.7)
    shaped = shape("relu", 2, target=0.7, lowest_slope=-1.0)
    assert -1 < float(shaped.slope) < 0
    assert float(leaky_correlation(float(shaped.slope), 2)) == pytest.approx(0.7, abs=1e-13)


def test_a_target_that_is_the_start_is_a_linear_network():
    shaped = shape("relu", 9, target=0.25, eps0=0.75)
    assert shaped.slope == 1.0
    assert "linear" in shaped.notes[0]
    assert shaped.gain == 1.0
    assert np.all(shaped.eps == 0.75)


# Transforms --------------------------------------------------------------------------------------


def conditions(psi, moments=120):
    """Q, Q', C(0), C'(1), C''(1) by a Gauss-Hermite rule: another quadrature, other formulas."""
    z, w = np.polynomial.hermite_e.hermegauss(moments)
    w = w / w.sum()
    f, d, s = psi(z), psi.derivative(z), psi.second_derivative(z)
    return w @ f**2, w @ (f * d * z), (w @ f) ** 2, w @ d**2, w @ s**2


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("method", ["tat", "dks"])
def test_transforms_meet_their_four_conditions(name, method):
    amount = 1.01 if method == "dks" else 0.01
    base = activation(name)
    transform = solve(base, method, amount)
    assert transform is not None
    psi = transform.of(base)
    assert amount_of(method, base, transform) == pytest.approx(amount, abs=1e-9)
    # the breaks of elu and softsign cost the rule without panels its digits
    tolerance = 1e-3 if base.breaks else 1e-8
    length, slope, at_zero, at_one, curvature = conditions(psi)
    assert length == pytest.approx(1, abs=tolerance)
    assert slope == pytest.approx(1, abs=tolerance)
    if method == "dks":
        assert at_zero == pytest.approx(0, abs=tolerance**2)
        assert at_one == pytest.approx(amount, abs=tolerance)
    else:
        assert at_one == pytest.approx(1, abs=tolerance)
        assert curvature == pytest.approx(amount, abs=tolerance)


@pytest.mark.parametrize("name", ["tanh", "softsign", "elu", "gelu"])
def test_transforms_exist_for_very_deep_networks(name):
    """Beside a break the solution shrinks towards it, below any grid."""
    for method, excess in (("dks", 4e-5), ("tat", 3e-5)):
        amount = 1 + excess if method == "dks" else excess
        transform = solve(activation(name), method, amount)
        assert transform is not None
        found = amount_of(method, activation(name), transform)
        assert found - amount == pytest.approx(0, abs=1e-4 * excess)


@pytest.mark.parametrize(
    ("name", "depth", "target", "eps0", "method"),
    [
        ("tanh", 30, 0.9, 1.0, "tat"),
        ("gelu", 30, 0.4, 1.3, "tat"),
        ("tanh", 1, 0.2, 1.0, "tat"),
        ("silu", 60, 0.5, 0.1, "dks"),
        ("erf", 20, -0.2, 1.6, "dks"),
        ("elu", 15, 0.5, 1.0, "tat"),
        ("tanh", 20, 0.6, 0.2, "residual"),
        ("gelu", 40, 0.6, 1.0, "residual"),
        ("relu6", 12, 0.6, 1.0, "residual"),
        ("relu", 64, 0.5, 1.0, "residual"),
    ],
)
def test_the_mean_field_of_the_layer_arrives_at_the_target(name, depth, target, eps0, method):
    """Hermite series or a closed form inside, the general length and gap maps outside."""
    shaped = shape(name, depth, target=target, eps0=eps0, method=method)
    path = shaped.mean_field.trajectory(depth, q0=1.0, eps0=eps0)
    assert path.eps[-1] == pytest.approx(1 - target, abs=1e-9)
    assert np.allclose(path.eps, shaped.eps, rtol=1e-8, atol=1e-10)
    if shaped.skip != 1:
        assert np.allclose(path.q1, 1, atol=1e-9)


def test_the_method_follows_from_the_activation_and_the_direction():
    assert shape("prelu", 10, target=0.5).method == "slope"
    assert shape("tanh", 10, target=0.5).method == "tat"
    assert shape("tanh", 10, target=0.5, eps0=0.2).method == "dks"


def test_an_affine_map_of_an_activation_keeps_its_moments():
    """The shape of the quadrature moves along: kinks, cusps and scales, mirrored or not."""
    for name in ("tanh", "leaky_relu(0.3)", "hardswish", "power(0.8, -0.5)"):
        base = activation(name)
        for a, b in ((0.7, 0.4), (-1.3, 0.2)):
            psi = affine(base, a, b, 2.0, -0.3)
            x = np.linspace(-3, 3, 7)
            assert np.allclose(psi(x), 2 * (base(a * x + b) - 0.3))
            h = 1e-6
            slope = (psi(x + h) - psi(x - h)) / (2 * h)
            assert np.allclose(psi.derivative(x), slope, rtol=1e-5, atol=1e-5)
            # E psi^2 by a fine trapezoid, whose error at a kink or cusp is below 1e-5
            z = np.linspace(-9, 9, 400_001)
            weight = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
            assert float(Kernel(psi).second_moment(1.0)) == pytest.approx(
                float(psi(z) ** 2 @ weight), rel=1e-5
            )
    twice = affine(activation("relu"), -2.0, 0.0, 3.0, 0.0)
    assert float(twice.closed.second_moment(np.array(1.0))) == pytest.approx(18.0)


# Explicit networks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "method", "target", "eps0"),
    [("relu", "slope", 0.7, 1.0), ("gelu", "tat", 0.6, 1.0), ("tanh", "dks", 0.5, 0.1),
     ("relu", "residual", 0.6, 1.0)],
)  # fmt: skip
def test_wide_torch_networks_arrive_at_the_target(name, method, target, eps0):
    """Ten networks of width 700 and depth 6 with weights of their own.

    Finite width shifts the mean by O(L/n) = .009 and scatters one network by about sqrt(L/n) =
    .09, ten by .03: four of these standard errors, measured, and the shift are allowed.
    """
    depth, width = 6, 700
    shaped = shape(name, depth, target=target, eps0=eps0, method=method)
    psi = shaped.module()
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(10):
        pair = torch.randn(2, width, generator=generator)
        c = 1 - eps0
        h = torch.stack([pair[0], c * pair[0] + math.sqrt(1 - c * c) * pair[1]])
        for _ in range(depth):
            weights = torch.randn(width, width, generator=generator) / math.sqrt(width)
            h = shaped.skip * h + psi(h) @ weights.T
        found.append(float(F.cosine_similarity(h[0], h[1], dim=0)))
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    assert abs(np.mean(found) - target) < 4 * error + depth / width


# Real widths -------------------------------------------------------------------------------------


def exact_outputs(shaped, networks, seed):
    """Output correlations of exact networks of the shaped layers."""
    layers = [shaped.mean_field] * shaped.depth
    nets = Ensemble.of(layers, [shaped.width] * (shaped.depth + 1))
    pair = Pair(shaped.eps0, start="drawn")
    found = nets.forward(pair, networks, seed, keep=True, progress=False)
    return 1 - found.values("eps")[:, 0, -1]


@pytest.mark.parametrize(("quantile", "target"), [(0.05, 0.6), (0.95, 0.9)])
def test_a_network_keeps_the_target_with_the_probability_asked_for(quantile, target):
    """Share of 4000 exact networks below: four standard errors, and .004 for the chain's own law.

    Each case passes wrongly or fails wrongly with probability 6e-5. Mean field has another slope.
    """
    shaped = shape("relu", 24, 48, target, quantile=quantile)
    assert shaped.band.engine == "chain"
    below = float(np.mean(exact_outputs(shaped, 4000, 11) < target))
    error = math.sqrt(quantile * (1 - quantile) / 4000)
    assert abs(below - quantile) < 4 * error + 0.004
    assert shaped.reached == pytest.approx(target, abs=1e-4)
    column = list(shaped.band.levels).index(quantile)
    assert shaped.band.rho[-1, column] == pytest.approx(target, abs=1e-4)
    assert abs(float(shaped.slope) - float(shape("relu", 24, target=target).slope)) > 0.02


def test_the_mean_at_a_width_is_that_of_exact_networks():
    shaped = shape("relu", 24, 48, 0.85)
    found = exact_outputs(shaped, 4000, 12)
    assert abs(found.mean() - 0.85) < 4 * found.std() / math.sqrt(4000)
    assert "engine chain" in shaped.notes[-1]


def test_widths_lead_to_the_mean_field():
    """The mean differs by O(L/n) from that of mean field, and so does the amount."""
    depth, amount = 10, shape("relu", 10, target=0.7).amount
    gaps = [abs(shape("relu", depth, n, 0.7).amount / amount - 1) for n in (250, 1000)]
    assert gaps[0] < 2 * depth / 250
    assert gaps[1] == pytest.approx(gaps[0] / 4, rel=0.1)  # next order: L/n = .04 of it


@pytest.mark.parametrize(
    ("name", "method", "target", "eps0", "quantile"),
    [("tanh", "tat", 0.6, 1.0, None), ("silu", "dks", 0.5, 0.2, None),
     ("relu", "residual", 0.2, 1.0, 0.25)],
)  # fmt: skip
def test_sampled_widths_hold_for_other_networks(name, method, target, eps0, quantile):
    """Two samples, of the search and of the test: five of their joint standard errors."""
    shaped = shape(
        name, 8, 32, target, quantile=quantile, method=method, eps0=eps0, networks=800, seed=3
    )
    assert shaped.band.engine == "ensemble"
    found = exact_outputs(shaped, 2000, 13)
    joint = math.sqrt(1 / 800 + 1 / 2000)
    if quantile is None:
        assert abs(found.mean() - target) < 5 * found.std() * joint
    else:
        spread = math.sqrt(quantile * (1 - quantile))
        assert abs(np.mean(found < target) - quantile) < 5 * spread * joint
    assert "engine ensemble" in shaped.notes[-1]


def test_a_band_of_a_residual_network_needs_its_weights():
    with pytest.raises(InputError, match=r"skip = 1\.0.*give one"):
        correlation_band("relu", 32, 4, 1.0, skip=1.0)


def test_a_quantile_may_lie_below_the_start_and_a_linear_network_beyond_the_target():
    shaped = shape("relu", 20, 32, 0.3, quantile=0.05, eps0=0.5)
    assert shaped.reached == pytest.approx(0.3, abs=1e-4)
    with pytest.raises(InputError, match=r"linear network is beyond.*fewer layers or more units"):
        shape("relu", 60, 32, 0.9, quantile=0.95)
    with pytest.raises(InputError, match=r"0\.05 quantiles from .* more layers"):
        shape("relu", 3, 32, 0.9, quantile=0.05)


# Modules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    ["relu", "tanh", "gelu_tanh", "softplus(2)", "celu(2)", nn.Mish(), torch.erf, F.silu,
     nn.GELU("tanh")],
)  # fmt: skip
def test_modules_compute_the_activation_of_the_theory(spec):
    shaped = shape(spec, 30, target=0.6)
    module = shaped.module()
    x = torch.linspace(-6, 6, 501, dtype=torch.float64, requires_grad=True)
    expected = torch.from_numpy(shaped.activation(x.detach().numpy()))
    assert torch.allclose(module(x), expected, atol=1e-12)
    module(x).sum().backward()
    slope = shaped.activation.derivative(x.detach().numpy())
    assert np.allclose(x.grad[x != 0], slope[x.detach().numpy() != 0], atol=1e-11)
    for other in (
        scripted(module),
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
    ):
        assert torch.equal(other(x), module(x))
    assert not module.state_dict()
    assert torch.allclose(shaped.module(sigma_w=2.0)(x), expected / 2, atol=1e-12)
    assert module(x.float()).dtype == torch.float32


def test_a_module_of_ones_own_is_shaped_and_replaced():
    class Mine(nn.Module):
        def forward(self, x):
            return torch.tanh(x) + 0.1 * x

    shaped = shape(Mine(), 20, target=0.5)
    model = nn.Sequential(nn.Linear(4, 4), Mine(), nn.Linear(4, 4), nn.Tanh())
    with shaped.apply(model) as applied:
        assert applied.replaced == ("1",)
        x = torch.linspace(-2, 2, 9, dtype=torch.float64)
        assert np.allclose(model[1](x), shaped.activation(x.numpy()))
    assert isinstance(model[1], Mine)


def test_what_is_no_torch_function_has_no_module():
    shaped = shape(lambda x: np.arctan(x), 20, target=0.5, eps0=0.3, method="residual")
    with pytest.raises(InputError, match=r"nn\.Module"):
        shaped.module()
    with pytest.raises(InputError, match="sigma_w"):
        shape("relu", 20).module(sigma_w=0.0)


# Models ------------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """Modules, one of them shared, functions, in place and not, and a nested module that calls."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Linear(8, 8)

        def forward(self, x):
            return torch.relu(self.weight(x))

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.act = nn.ReLU()
        self.inner = self.Inner()
        self.tail = nn.Sequential(nn.Linear(8, 8), self.act, nn.Linear(8, 8), nn.LeakyReLU(0.1))
        self.gate = nn.Sigmoid()

    def forward(self, x, phi=None):
        phi = phi or {}
        relu = phi.get("relu", F.relu)
        h = relu(self.first(x))
        h = self.second(h)
        if phi:
            h = relu(h)
            inner = relu(self.inner.weight(h))
        else:
            h.relu_()
            inner = self.inner(h)
        h = phi.get("act", self.act)(inner)
        h = phi.get("act", self.act)(self.tail[0](h))
        h = phi.get("act", self.tail[3])(self.tail[2](h))
        return h * self.gate(x)


def test_a_model_is_shaped_everywhere_and_restored_bit_for_bit():
    torch.manual_seed(0)
    model, x = Mixed(), torch.randn(5, 8)
    before, keys = model(x), list(model.state_dict())
    modules = list(model.modules())
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in modules]
    shaped = shape("relu", 50)
    psi = shaped.module()
    with shaped.apply(model, x) as applied:
        assert applied.replaced == ("act", "tail.1", "tail.3", "relu()", "inner.relu()")
        assert model.act is model.tail[1]  # what was shared stays shared
        assert torch.equal(model(x), Mixed.forward(model, x, {"relu": psi, "act": psi}))
        assert list(model.state_dict()) == keys
        copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
        shaped_output = model(x)
        model.eval()
    assert torch.equal(copied(x), shaped_output)
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert hooks == [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in modules]
    assert not model.act.training  # the mode set meanwhile
    assert torch.equal(model(x), before)
    assert not torch.equal(shaped_output, before)
    applied.remove()  # again: nothing
    assert torch.equal(model(x), before)


def test_functions_are_found_only_with_inputs_and_paths_can_be_left():
    model, x = Mixed(), torch.randn(2, 8)
    shaped = shape("relu", 50)
    with shaped.apply(model) as applied:
        assert applied.replaced == ("act", "tail.1", "tail.3")
    with shaped.apply(model, x, leave=["tail.*", "inner"]) as applied:
        assert applied.replaced == ("act", "relu()")
        assert set(applied.left_out) == {"tail.1", "tail.3", "inner.relu()"}
    with shaped.apply(model, of="leaky_relu") as applied:
        assert applied.replaced == ("tail.3",)
    with shaped.apply(model, of=nn.ReLU) as applied:
        assert applied.replaced == ("act", "tail.1")


def test_shaped_layers_stay_shaped_once():
    """Neither shaped activations nor what is inside of them are found again."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    shaped = shape("tanh", 20, target=0.5)
    applied = shaped.apply(model)
    with pytest.raises(InputError, match=r"no activation tanh.*Transformed"):
        shaped.apply(model, torch.randn(2, 3))
    applied.remove()
    assert type(model[1]) is nn.Tanh


@pytest.mark.parametrize("as_module", [False, True])
def test_a_transformer_layer_leaves_its_fast_path(as_module):
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="relu", batch_first=True).eval()
    if as_module:
        layer.activation = nn.ReLU()
    x = torch.randn(2, 3, 8)
    shaped = shape("relu", 20)
    with torch.no_grad():
        before = layer(x)
        with shaped.apply(layer, x) as applied:
            assert applied.replaced == (("activation",) if as_module else ("relu()",))
            after = layer(x)
            psi = shaped.module()
            h = x + layer.self_attn(*[layer.norm1(x)] * 3)[0] if layer.norm_first else None
            if h is None:
                h = layer.norm1(x + layer.self_attn(x, x, x)[0])
                h = layer.norm2(h + layer.linear2(psi(layer.linear1(h))))
        assert torch.allclose(after, h, atol=1e-6)
        assert torch.equal(layer(x), before)


def test_a_model_that_cannot_be_shaped_is_refused():
    shaped = shape("relu", 20)
    with pytest.raises(InputError, match=r"holds Tanh.*example inputs"):
        shaped.apply(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    with pytest.raises(InputError, match="itself the activation"):
        shaped.apply(nn.ReLU())
    with pytest.raises(InputError, match="expected a torch"):
        shaped.apply("model")
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(InputError, match="matches no module"):
        shaped.apply(model, leave="head")
    with pytest.raises(InputError, match="of is"):
        shaped.apply(model, of=[3])
    with pytest.raises(InputError, match="ScriptModule"):
        shaped.apply(scripted(model))
    with pytest.raises(InputError, match="identity branch"):
        shape("tanh", 20, target=0.5, eps0=0.2, method="residual").apply(model)
    assert type(model[1]) is nn.ReLU


# Answers -----------------------------------------------------------------------------------------


def test_the_record_prints_itself_and_is_json():
    shaped = shape("gelu", 40, target=0.7)
    text = str(shaped)
    assert "C''(1) =" in text
    assert "40: 0.7000" in text
    assert "mean square 1" in text
    record = json.loads(json.dumps(shaped.to_dict()))
    assert record["slope"] is None
    assert "transform" in record["reasons"]["slope"]
    assert record["correlation"][-1] == pytest.approx(0.7)
    assert isinstance(shaped.slope, Undefined)
    banded = shape("relu", 12, 64, 0.5, quantile=0.1)
    assert "10.0%" in str(banded)
    assert json.loads(json.dumps(banded.to_dict()))["band"]["engine"] == "chain"
    plain = json.loads(json.dumps(shape("relu", 40).to_dict()))
    assert plain["reasons"] == {}
    assert plain["gain"] == pytest.approx(math.sqrt(2 / (1 + plain["slope"] ** 2)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"target": 1.0}, "never become equal"),
        ({"target": 1.5}, "correlation in"),
        ({"target": math.nan}, "correlation in"),
        ({"target": "0.9"}, "expected a number"),
        ({"eps0": 0.0}, "stay equal"),
        ({"eps0": 2.5}, "eps0 is 2.5"),
        ({"eps0": math.nan}, "eps0 is nan"),
        ({"depth": 0}, "depth is 0"),
        ({"depth": 2.5}, "whole number"),
        ({"depth": math.inf}, "whole number"),
        ({"width": 1}, "at least 2"),
        ({"quantile": 0.05}, "without a width"),
        ({"quantile": 1.0, "width": 64}, "probability"),
        ({"method": "magic"}, "slope, tat, dks, residual"),
        ({"lowest_slope": 1.0}, "lowest_slope"),
        ({"target": -0.5}, "out of reach"),
        ({"target": 1 - 1e-12}, "more layers"),
        ({"activation": "identity"}, "linear"),
        ({"activation": "sign"}, "jumps"),
        ({"activation": "rleu"}, "did you mean"),
        ({"activation": "relu6"}, "residual"),
        ({"activation": "relu6", "method": "tat"}, "jumps"),
        ({"activation": "relu6", "method": "dks", "eps0": 0.2, "target": 0.3}, "no transform"),
        ({"activation": "relu", "method": "tat"}, "two slopes"),
        ({"activation": "tanh", "method": "slope"}, "two slopes"),
        ({"activation": "tanh", "method": "dks"}, "out of reach"),
        ({"activation": "tanh", "method": "tat", "target": -0.5}, "only lets correlations rise"),
        ({"activation": "tanh", "target": 0.0}, "only a linear network"),
    ],
)
def test_bad_questions_are_answered_with_a_reason(arguments, says):
    with pytest.raises(InputError, match=says):
        shape(**{"activation": "relu", "depth": 10, **arguments})

"""Networks without weights against networks with weights and autograd: one law, both ways."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from depthscale.answers import InputError
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.finite.explicit import explicit_networks, explicit_pairs
from depthscale.finite.sampled import Sampled
from depthscale.theory.activation import activation
from depthscale.theory.meanfield import MeanField

# One comparison in a thousand runs of the suite may fail by chance if its seeds were changed
# (Bonferroni over cases, and in each over its Kolmogorov-Smirnov tests); they are fixed, so none
# does.
FAMILY_ERROR = 1e-3
NETS = 1500

SIX = np.random.default_rng(7).standard_normal((6, 12))
THREE = SIX[:3]
ALIKE = SIX[0] + 0.4 * SIX  # at angles for which it matters what masks have in common
# 0 and 1 are equal, 2 differs from them in the sixth digit, 3 is twice 0, 4 and 5 are others.
CLOSE = np.array(
    [SIX[0], SIX[0], SIX[0] + 1e-6 * SIX[1], 2 * SIX[0], SIX[3], SIX[4] + 1e-4 * SIX[5]]
)


def quartic(outputs: torch.Tensor) -> torch.Tensor:
    """A loss that torch differentiates: ``sum_i h_i^4/4 + h_1 h_2``."""
    return (outputs**4).sum(-1) / 4 + outputs[..., 0] * outputs[..., 1]


# An activation that only numpy knows.
BUMP = activation(
    lambda x: x * np.exp(-0.5 * x * x),
    derivative=lambda x: (1 - x * x) * np.exp(-0.5 * x * x),
    breaks=(),
    cusps=(),
    name="bump",
)


@dataclass(frozen=True)
class Case:
    """An architecture, its inputs and a loss."""

    name: str
    networks: Ensemble
    inputs: Any
    loss: Any
    how: dict[str, Any] = field(default_factory=dict)
    labels: tuple[int, ...] | None = None


TANH = {"activation": "tanh", "sigma_w": 1.5, "sigma_b": 0.3}
RELU = {"activation": "relu", "sigma_w": 1.4}
MIXED = [
    MeanField("relu", sigma_w=1.7, sigma_b=0.5, drop=0.3),
    MeanField("tanh", sigma_w=0.9, skip=0.6),
    MeanField("erf", sigma_w=2.0, drop=0.2, masks="clean"),
    MeanField("hardtanh", sigma_w=1.1, sigma_b=1.0, drop=0.5, masks="shared"),
    MeanField("sigmoid", sigma_w=2.5, drop=0.3, masks="layers(0.4)"),
    MeanField(BUMP, sigma_w=1.5, drop=0.2, masks="gaussian"),
]
CASES = [
    Case(
        "one input, tanh, quadratic",
        Ensemble(**TANH, width=[12, 20, 30, 15, 18], depth=4, drop=0.1),
        SIX[:1],
        "quadratic",
    ),
    Case(
        "uneven inputs, masks of their own",
        Ensemble(**TANH, width=[4, 9, 8, 6], depth=3, drop=[0.3, 0.2, 0.2]),
        np.array([[1.0, 0.0, 0.0, 0.2], [2.0, 0.0, -0.3, 0.1]]),
        "quadratic",
    ),
    Case(
        "uneven inputs, shared masks",
        Ensemble(**TANH, width=[4, 9, 8, 6], depth=3, drop=[0.3, 0.2, 0.2], masks="shared"),
        np.array([[1.0, 0.0, 0.0, 0.2], [2.0, 0.0, -0.3, 0.1]]),
        "quadratic",
    ),
    Case(
        "two inputs, single precision where wide",
        Ensemble(**TANH, width=[12, 40, 36, 48, 33], depth=4, drop=0.1),
        SIX[:2],
        "quadratic",
    ),
    Case(
        "pinned pair, relu, readout",
        Ensemble(**RELU, width=[16, 25, 30, 15, 20], depth=4, drop=0.2),
        Pair(0.7, 1.0, 2.0),
        "readout",
    ),
    Case(
        "pinned pair before an activation",
        Ensemble.of([MeanField("relu", sigma_w=1.4, sigma_b=0.2, drop=0.2)] * 3, [4, 9, 8, 6]),
        Pair(0.4),
        "quadratic",
    ),
    Case(
        "drawn pair, erf, shared masks",
        Ensemble("erf", 1.3, 0.2, width=[20, 25, 15, 18], depth=3, drop=0.3, masks="shared"),
        Pair(0.2, 0.5, 0.5, start="drawn"),
        "linear",
    ),
    Case(
        "linear network, deep",
        Ensemble("identity", 0.95, width=[12, *[14] * 9], depth=9, drop=0.1),
        SIX[:2],
        "quadratic",
    ),
    Case(
        "three inputs, tanh, cross-entropy",
        Ensemble(**TANH, width=[12, 30, 20, 25, 4], depth=4, drop=0.15),
        THREE,
        "cross_entropy",
        labels=(0, 2, 2),
    ),
    Case(
        "three inputs, relu, cross-entropy",
        Ensemble(**RELU, sigma_b=0.1, width=[12, 20, 20, 20, 20, 5], depth=5, drop=0.2),
        3 * THREE,
        "cross_entropy",
        labels=(4, 0, 1),
    ),
    Case(
        "three inputs, silu, outputs",
        Ensemble("silu", 1.8, 0.5, width=[12, 20, 25, 3], depth=3, drop=0.1),
        THREE,
        "outputs",
    ),
    Case(
        "six inputs, gelu, outputs",
        Ensemble("gelu", 1.6, 0.4, width=[12, 15, 20, 4], depth=3, drop=0.1),
        SIX,
        "outputs",
    ),
    Case(
        "six inputs, relu, readout",
        Ensemble(**RELU, width=[12, 20, 15, 18], depth=3, drop=0.2),
        ALIKE,
        "readout",
    ),
    Case(
        "six inputs, sin, user loss, gaussian noise",
        Ensemble("sin", 1.6, 0.3, width=[12, 20, 25, 6], depth=3, drop=0.2, masks="gaussian(0.6)"),
        ALIKE,
        quartic,
    ),
    Case(
        "close and equal inputs, tanh, shared masks",
        Ensemble(**TANH, width=[12, 20, 25, 20, 10], depth=4, drop=0.2, masks="shared"),
        CLOSE,
        "quadratic",
        {"pairs": [(0, 2), (0, 1), (3, 4), (2, 1)]},
    ),
    Case(
        "close and equal inputs, relu, no masks",
        Ensemble(**RELU, sigma_b=0.2, width=[12, 20, 25, 10], depth=3),
        CLOSE[:4],
        "quadratic",
        {"pairs": [(0, 2), (0, 1), (2, 3)]},
    ),
    Case(
        "equal inputs, masks of their own",
        Ensemble("hardtanh", 1.4, 0.3, width=[12, 20, 25, 10], depth=3, drop=0.2),
        CLOSE[[0, 1, 2]],
        "readout",
    ),
    Case(
        "more inputs than units",
        Ensemble(**TANH, width=[12, 3, 1, 2, 4, 3], depth=5, drop=0.2),
        THREE,
        "quadratic",
        {"engine": "weightless"},
    ),
    Case(
        "six inputs, relu, more than units",
        Ensemble(**RELU, sigma_b=0.3, width=[12, 5, 3, 4, 2], depth=4, drop=0.2),
        SIX,
        "outputs",
        {"engine": "weightless"},
    ),
    Case(
        "one unit, no bias",
        Ensemble("tanh", 2.0, width=[12, 1, 2, 1, 3], depth=4),
        SIX[:2],
        "linear",
        {"engine": "weightless"},
    ),
    Case(
        "built weights",
        Ensemble(**TANH, width=[12, 8, 10, 6], depth=3, drop=0.2),
        THREE,
        "quadratic",
        {"engine": "explicit"},
    ),
    Case(
        "single precision",
        Ensemble(**TANH, width=[12, 20, 25, 18], depth=3, drop=0.1),
        THREE,
        "quadratic",
        {"precision": "single"},
    ),
    Case(
        "dropped inputs",
        Ensemble(**RELU, sigma_b=0.2, width=[12, 20, 25, 6], depth=3, drop=[0.4, 0.0, 0.3]),
        THREE,
        "quadratic",
    ),
    Case(
        "overlapping masks, residual",
        Ensemble(**TANH, width=[12, 14, 14, 14], depth=3, drop=0.3, masks="overlap(0.4)", skip=0.8),
        ALIKE[:3],
        "readout",
    ),
    Case(
        "residual, independent masks, pair",
        Ensemble(**RELU, width=[12, 14, 14, 14, 14], depth=4, drop=0.3, skip=1.0),
        SIX[:2],
        "quadratic",
    ),
    Case(
        "one masked, two clean",
        Ensemble(**RELU, sigma_b=0.3, width=[12, 14, 20, 10], depth=3, drop=0.3, masks="clean"),
        ALIKE[:3],
        "quadratic",
    ),
    Case(
        "gaussian noise",
        Ensemble("softplus", 1.3, 0.2, width=[12, 14, 20, 3], depth=3, drop=0.3, masks="gaussian"),
        ALIKE[:3],
        "outputs",
    ),
    Case(
        "dropped layers",
        Ensemble(
            **TANH, width=[12, 12, 12, 12, 12], depth=4, drop=0.3, masks="layers(0.5)", skip=0.8
        ),
        ALIKE[:3],
        "quadratic",
    ),
    Case(
        "dropped layers, no way around",
        Ensemble(**RELU, sigma_b=0.4, width=[12, 15, 9, 14], depth=3, drop=0.2, masks="layers"),
        SIX,
        "outputs",
    ),
    Case(
        "every layer its own",
        Ensemble.of(MIXED, [12, 14, 14, 10, 15, 9, 8]),
        THREE,
        "readout",
    ),
    Case(
        "orthogonal, square",
        Ensemble(**TANH, width=12, depth=4, weights="orthogonal"),
        SIX[:2],
        "quadratic",
    ),
    Case(
        "orthogonal, relu, masks, cross-entropy",
        Ensemble(**RELU, width=[12, 20, 8, 14, 5], depth=4, drop=0.2, weights="orthogonal"),
        THREE,
        "cross_entropy",
        labels=(3, 3, 0),
    ),
    Case(
        "orthogonal, six inputs, residual",
        Ensemble("erf", 1.5, 0.3, width=[12, 10, 10, 10], depth=3, skip=0.7, weights="orthogonal"),
        CLOSE,
        "outputs",
        {"pairs": [(0, 2), (0, 1), (3, 4), (2, 1)]},
    ),
    Case(
        "orthogonal, more inputs than units",
        Ensemble(**TANH, width=[12, 3, 2, 4, 2], depth=4, drop=0.2, weights="orthogonal"),
        THREE,
        "quadratic",
    ),
    Case(
        "orthogonal, dropped layers",
        Ensemble(
            **TANH,
            width=[12, 9, 9, 6],
            depth=3,
            drop=0.3,
            masks="layers(0.5)",
            weights="orthogonal",
        ),
        SIX[:2],
        "linear",
    ),
]


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def sampled(case: Case, nets: int = NETS, seed: int = 1) -> Sampled:
    labels = {} if case.labels is None else {"labels": case.labels}
    return case.networks.backward(
        case.loss,
        case.inputs,
        nets,
        seed,
        keep=True,
        observe=("absolute", "units", "ntk"),
        progress=False,
        **case.how,
        **labels,
    )


def without_weights(case: Case) -> dict[str, np.ndarray]:
    result = sampled(case)
    return {name: result.values(name) for name in result.names}


@cache
def with_weights(name: str, seed: int = 2) -> dict[str, np.ndarray]:
    case = named(name)
    return explicit_networks(
        case.networks,
        case.inputs,
        NETS,
        seed=seed,
        loss=case.loss,
        labels=case.labels,
        pairs=case.how.get("pairs"),
    )


def statistics(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One number a network: every observable in two cells at three layers, and some jointly.

    Where a quantity does not exist it counts as -1, so that how often is compared too. Rounding
    must not tell the two apart where a number is one of a few, such as the cosine of two vectors of
    one unit: absolute errors of cosines are cut off, and of all numbers ten digits are kept.
    """
    floor = {"eps": 1e-20, "delta_eps": 1e-18, "separation": 1e-20, "grad_cos": 1e-10}
    found = {}
    for name, each in values.items():
        cells, layers = each.shape[1:]
        for cell in sorted({0, cells - 1}) if cells else ():
            for layer in sorted({min(1, layers - 1), layers // 2, layers - 1, 0}):
                here = each[:, cell, layer]
                if name == "grad_ab":
                    here = np.where(abs(values["grad_cos"][:, cell, layer]) < 1e-10, 0, here)
                found[f"{name}[{cell}, {layer}]"] = np.where(
                    abs(here) < floor.get(name, 0), 0, here
                )
    q, gradient, kernel = values["q"], values["grad_aa"], values["ntk_aa"]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found["gradient and length"] = gradient[:, 0, 0] * q[:, 0, -1]
        found["gradient at two layers"] = gradient[:, 0, 0] / gradient[:, 0, -1]
        found["gradient of two inputs"] = gradient[:, 0, 0] / gradient[:, -1, 0]
        found["length of two inputs"] = q[:, 0, -1] / q[:, -1, -1]
        found["kernel and length"] = kernel[:, -1, 0] / q[:, -1, -1]
        if values["eps"].shape[1]:
            eps = values["eps"]
            found["misalignment and gradients"] = values["grad_cos"][:, -1, 0] + eps[:, -1, -1]
        if values["eps"].shape[1] > 1:
            found["two pairs"] = (eps[:, 0, -1] - eps[:, -1, -1]).round(10)
    return {key: _ten_digits(value) for key, value in found.items()}


def _ten_digits(values: np.ndarray) -> np.ndarray:
    known = np.where(np.isfinite(values), values, -1.0)
    size = 10.0 ** np.floor(np.log10(np.maximum(abs(known), 1e-290)))
    return np.round(known / size, 9) * size


def p_values(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> dict[str, float]:
    """Of the Kolmogorov-Smirnov test; where nothing fluctuates, 0 or none."""
    a, b = statistics(left), statistics(right)
    assert set(a) == set(b)
    found = {}
    for key in a:
        if all(np.ptp(values) <= 1e-6 * abs(values).max() for values in (a[key], b[key])):
            if not np.allclose(a[key], b[key], rtol=1e-6, atol=0):
                found[key] = 0.0
        else:
            found[key] = float(stats.ks_2samp(a[key], b[key], method="asymp").pvalue)
    return found


def threshold(p: dict[str, float]) -> float:
    return FAMILY_ERROR / len(CASES) / len(p)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_law_is_that_of_explicit_weights(case):
    p = p_values(without_weights(case), with_weights(case.name))
    assert len(p) > 20
    assert min(p.values()) > threshold(p), sorted(p.items(), key=lambda item: item[1])[:5]


def changed(networks: Ensemble, widths=None, weights=None, tied=True, **changes) -> Ensemble:
    """Another architecture: every layer, the widths or the weights are not what they were."""
    layers = [replace(layer, **changes) for layer in networks.layers]
    return Ensemble.of(
        layers, widths or networks.widths, weights=weights or networks.weights, tied=tied
    )


@pytest.mark.parametrize(
    ("name", "changes", "caught_by"),
    [
        ("linear network, deep", {"tied": False}, "grad_aa[0, 0]"),
        ("one input, tanh, quadratic", {"tied": False}, "grad_aa[0, 0]"),
        ("pinned pair, relu, readout", {"masks": "shared"}, "eps[0, 4]"),
        ("six inputs, relu, readout", {"masks": "overlap(0.5)"}, "grad_cos[14, 1]"),
        ("six inputs, relu, readout", {"drop": 0.0}, "grad_aa[0, 0]"),
        ("dropped inputs", {"drop": 0.0}, "q[0, 1]"),
        ("overlapping masks, residual", {"masks": "independent"}, "grad_cos[0, 1]"),
        ("six inputs, sin, user loss, gaussian noise", {"masks": "gaussian"}, "eps[14, 2]"),
        ("gaussian noise", {"masks": "independent"}, "grad_cos[2, 1]"),
        ("one masked, two clean", {"masks": "shared"}, "q[2, 3]"),
        ("dropped layers", {"masks": "independent"}, "q[0, 4]"),
        ("dropped layers", {"masks": "layers"}, "grad_cos[2, 3]"),
        ("orthogonal, square", {"weights": "gaussian"}, "q[0, 4]"),
        ("orthogonal, more inputs than units", {"weights": "gaussian"}, "q[2, 4]"),
        ("three inputs, tanh, cross-entropy", {"sigma_b": 0.0}, "ntk_ab[0, 0]"),
        ("residual, independent masks, pair", {"skip": 0.0}, "delta_aa[0, 0]"),
        ("six inputs, gelu, outputs", {"widths": [12, 60, 80, 4]}, "q[0, 1]"),
        ("more inputs than units", {"widths": [12, 3, 2, 2, 4, 3]}, "eps[0, 3]"),
    ],
)
def test_another_law_is_refused(name, changes, caught_by):
    """Negative controls: the comparison above has the power to refuse."""
    case = named(name)
    other = replace(case, networks=changed(case.networks, **changes))
    p = p_values(without_weights(other), with_weights(name))
    assert p[caught_by] < threshold(p), sorted(p.items(), key=lambda item: item[1])[:5]


def test_another_label_and_another_loss_are_refused():
    case = named("three inputs, tanh, cross-entropy")
    p = p_values(without_weights(replace(case, labels=(0, 1, 2))), with_weights(case.name))
    assert p["grad_cos[2, 0]"] < threshold(p)
    case = named("six inputs, relu, readout")
    p = p_values(without_weights(replace(case, loss="linear")), with_weights(case.name))
    assert p["delta_aa[0, 0]"] < threshold(p)


@pytest.mark.parametrize(
    "masks",
    [
        "independent",
        "shared",
        "clean",
        "overlap(0.4)",
        "gaussian(0.6)",
        "layers(0.5)",
        "dropconnect",
        "dropconnect(0.6)",
    ],
)
def test_the_referees_agree(masks):
    """Autograd in torch against the chain rule in numpy, for every noise, dropped weights too.

    Fails by chance in one of 1,000 seeds of the eight (Bonferroni).
    """
    layer = MeanField("tanh", sigma_w=1.6, sigma_b=0.3, drop=0.3, masks=masks, skip=0.5)
    layers, widths, pair = [layer] * 3, [5] * 4, Pair(0.3, 1.0, 2.0)
    pairs = explicit_pairs(layers, widths, 1.0, 2.0, 0.3, nets=800, seed=1, start="pinned")
    both = explicit_networks((layers, widths), pair, 800, seed=2, loss="linear", to_start=True)
    delta = both["delta_aa"][:, 0] / both["delta_aa"][:, 0, -1:]
    compared = [
        (pairs.lengths[0], both["q"][:, 0]),
        (pairs.lengths[1], both["q"][:, 1]),
        (pairs.eps, both["eps"][:, 0]),
        (pairs.gradient, delta),
        (pairs.gradient_eps, both["delta_eps"][:, 0]),
        (pairs.gradient * pairs.lengths[1][:, -1:], delta * both["q"][:, 1, -1:]),
    ]
    p = []
    for left, right in compared:
        for layer_index in range(4):
            a, b = _ten_digits(left[:, layer_index]), _ten_digits(right[:, layer_index])
            if np.ptp(a) > 1e-9:
                p.append(stats.ks_2samp(a, b, method="asymp").pvalue)
    assert len(p) > 14
    assert min(p) > 1e-3 / 8 / len(p), p


# What holds in every single network -------------------------------------------------------------


def both(networks, inputs, nets, loss, **how):
    """Every observable of every network: without weights, and with them."""
    result = networks.backward(
        loss,
        inputs,
        nets,
        3,
        keep=True,
        observe=("absolute", "units", "ntk"),
        engine="weightless",
        **how,
    )
    yield {name: result.values(name) for name in result.names}
    yield explicit_networks(networks, inputs, nets, seed=4, loss=loss, **how)


def test_names_and_shapes_are_the_same():
    networks = Ensemble(**TANH, width=[12, 5, 4, 3], depth=3, drop=0.1)
    for inputs in (SIX[:1], THREE, SIX):
        for to_start in (False, True):
            left, right = both(networks, inputs, 4, "quadratic", to_start=to_start)
            assert {k: v.shape for k, v in left.items()} == {k: v.shape for k, v in right.items()}
    nine = np.concatenate([SIX, THREE])
    left, right = both(networks, nine, 4, "quadratic")
    assert left["grad_ab"].shape == right["grad_ab"].shape == (4, 8, 3)
    forward = explicit_networks(networks, THREE, 4)
    assert set(forward) == set(networks.forward(THREE, 4, observe=["units"]).names)


@pytest.mark.parametrize("inputs", [SIX[:2], SIX], ids=["two", "six"])
def test_orthogonal_linear_networks_are_the_same_in_every_draw(inputs):
    """Lengths, angles and gradients of a Haar network without activation do not fluctuate.

    Square layers, ``s = sigma_w``: ``|h^l|^2 = s^{2l} |x|^2``; for all k = n outputs ``tr J J^T``
    behind layer l is ``n s^{2(L - l)}``, so that ``G^l_ab = n s^{2(L - 1)} x_a . x_b``. A wider
    layer stretches by ``s^2 n'/n``, of a narrower one an output is left with ``s^2``.
    """
    s, n, depth = 1.3, 12, 4
    square = Ensemble("identity", s, width=n, depth=depth, weights="orthogonal")
    lengths = np.square(inputs).sum(1)
    inner = (inputs @ inputs.T)[np.triu_indices(len(inputs), 1)]
    for found in both(square, inputs, 5, "outputs"):
        q = lengths[:, None] / n * s ** (2 * np.arange(depth + 1))
        np.testing.assert_allclose(found["q"], np.tile(q, (5, 1, 1)), rtol=1e-11)
        np.testing.assert_allclose(found["eps"], found["eps"][:, :, :1].repeat(5, 2), rtol=1e-9)
        delta = n * s ** (2 * np.arange(depth)[::-1])
        np.testing.assert_allclose(
            found["delta_aa"], np.broadcast_to(delta, found["delta_aa"].shape)
        )
        gradient = n * s ** (2 * depth - 2) * inner[:, None]
        np.testing.assert_allclose(
            found["grad_ab"], np.broadcast_to(gradient, found["grad_ab"].shape), atol=1e-10
        )
        kernel = depth * s ** (2 * depth) * inner[:, None]
        np.testing.assert_allclose(
            found["ntk_ab"], np.broadcast_to(kernel, (5, *kernel.shape)), atol=1e-10
        )
    uneven = Ensemble("identity", s, width=[12, 20, 20, 5], depth=3, weights="orthogonal")
    for found in both(uneven, inputs, 5, "outputs"):
        expected = np.tile(lengths * s**2 * (20 / 12) / 20, (5, 1))
        np.testing.assert_allclose(found["q"][:, :, 1], expected)
        np.testing.assert_allclose(found["q"][:, :, 2], s**2 * expected)
        np.testing.assert_allclose(found["delta_aa"][:, :, 1], 5 * s**2)


def test_the_kernel_of_one_layer_is_known():
    """``h = sigma_w/sqrt(n) w x + sigma_b b``: every output has ``sigma_w^2 x.y/n + sigma_b^2``."""
    inner = (THREE @ THREE.T)[np.triu_indices(3, 1)]
    for weights in ("gaussian", "orthogonal"):
        networks = Ensemble("tanh", 1.3, 0.7, width=[12, 5], depth=1, weights=weights)
        for found in both(networks, THREE, 3, "outputs"):
            expected = 5 * (1.3**2 * inner / 12 + 0.7**2)
            np.testing.assert_allclose(found["ntk_ab"][:, :, 0], np.tile(expected, (3, 1)))


@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_the_kernel_is_made_of_the_gradients(weights):
    """Without biases ``K_ab = sum_l sigma_w^2/n_l G^l_ab``, whatever the noise."""
    for masks in ("independent", "gaussian", "layers"):
        networks = Ensemble(
            "relu", 1.4, width=[12, 9, 15, 4], depth=3, drop=0.2, masks=masks, weights=weights
        )
        fan = 1.4**2 / np.array(networks.widths[:-1])
        for found in both(networks, THREE, 20, "quadratic"):
            for cell in ("aa", "ab"):
                expected = (found[f"grad_{cell}"] * fan).sum(-1)
                size = (found["grad_aa"] * fan).sum((1, 2))[:, None]
                error = abs(found[f"ntk_{cell}"][:, :, 0] - expected)
                assert np.all(error <= 1e-12 * size)


@pytest.mark.parametrize(
    "case", [c for c in CASES if "single" not in c.name], ids=lambda case: case.name
)
def test_inner_products_are_those_of_vectors(case):
    """Gram matrices of gradients and kernels have no negative eigenvalues, and
    ``|G_ab| <= sum |dE_a dE_b| <= sqrt(G_aa G_bb)``."""
    result = sampled(replace(case, how={**case.how, "pairs": None}), nets=30)
    inputs = result.inputs
    rows, columns = np.triu_indices(inputs, 1)
    for name in ("grad", "ntk"):
        diagonal, upper = result.values(f"{name}_aa"), result.values(f"{name}_ab")
        gram = np.zeros((*diagonal.shape[::2], inputs, inputs))
        gram[..., np.arange(inputs), np.arange(inputs)] = diagonal.transpose(0, 2, 1)
        gram[..., rows, columns] = gram[..., columns, rows] = upper.transpose(0, 2, 1)
        values = np.linalg.eigvalsh(gram)
        assert np.all(values[..., 0] >= -1e-12 * values[..., -1])
    inner, size = result.values("grad_ab"), result.values("grad_ab_abs")
    squares = result.values("grad_aa")
    most = np.sqrt(squares[:, rows] * squares[:, columns])
    slack = 1e-12 * squares.max(1, keepdims=True)
    assert np.all(abs(inner) <= size + slack)
    assert np.all(size <= most * (1 + 1e-12) + slack)


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_equal_inputs_stay_equal(extra, weights):
    """Bit for bit without weights, through masks that they share and in gradients."""
    inputs = np.concatenate([SIX[[0, 0]], SIX[1 : 1 + extra]])
    networks = Ensemble(
        **TANH, width=[12, 9, 14, 5], depth=3, drop=0.3, masks="shared", weights=weights
    )
    found_by = both(networks, inputs, 20, "quadratic", pairs=[(0, 1), (1, 0)])
    for found, exactly in zip(found_by, (0, 1e-28), strict=True):
        for name in ("eps", "separation", "delta_eps"):
            np.testing.assert_allclose(found[name], 0, atol=exactly)
        np.testing.assert_allclose(found["grad_cos"], 1)
        for product, square in (("grad_ab", "grad_aa"), ("ntk_ab", "ntk_aa")):
            np.testing.assert_allclose(found[product], found[square][:, :2])


def test_the_order_of_a_pair_does_not_matter():
    networks = Ensemble(**TANH, width=[12, 9, 14, 5], depth=3, drop=0.3)
    for found in both(networks, CLOSE, 20, "outputs", pairs=[(2, 0), (0, 2), (4, 3), (3, 4)]):
        for name, values in found.items():
            if values.shape[1] == 4:
                np.testing.assert_allclose(values[:, ::2], values[:, 1::2], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("inputs", [THREE, SIX], ids=["three", "six"])
def test_where_gradients_start(inputs):
    networks = Ensemble(**TANH, width=[12, 9, 14, 5], depth=3, drop=0.3)
    for found in both(networks, inputs, 20, "quadratic"):
        np.testing.assert_allclose(found["delta_aa"][..., -1], 5 * found["q"][..., -1])
        np.testing.assert_allclose(found["delta_eps"][..., -1], found["eps"][..., -1], rtol=1e-9)
    for found in both(networks, inputs, 20, "outputs"):
        np.testing.assert_allclose(found["delta_aa"][..., -1], 5)
        np.testing.assert_allclose(found["delta_eps"][..., -1], 0, atol=1e-15)
    for found in both(networks, inputs, 20, "linear"):
        np.testing.assert_allclose(found["delta_eps"][..., -1], 0, atol=1e-28)


@pytest.mark.parametrize(
    ("networks", "inputs"),
    [
        (Ensemble("relu", 1.4, 0.4, [12, 15, 9, 14], 3, drop=0.3, masks="layers"), THREE),
        (Ensemble("relu", 1.4, 0.4, [12, 15, 9, 14], 3, drop=0.3, masks="layers"), SIX),
        (Ensemble("relu", 1.4, 0.4, [12, 3, 2, 3], 3, drop=0.4), SIX),
        (Ensemble("relu", 1.4, 0.0, [12, 4, 3, 4], 3, drop=0.4, masks="clean"), SIX[:2]),
        (Ensemble("tanh", 1.4, 0.3, 12, 3, drop=0.3, masks="layers", weights="orthogonal"), THREE),
    ],
    ids=["layers, three", "layers, six", "units, six", "units, pair", "orthogonal"],
)
@pytest.mark.parametrize("loss", ["quadratic", "outputs"])
def test_a_dead_input_is_exactly_dead(networks, inputs, loss):
    """Where an input's layer or all of its units are dropped nothing is left, not even rounding.

    And then nothing that is relative to it exists. Every input is as often dead as with weights
    (within five standard errors of the difference, for up to 100 numbers: by chance 1 in 10,000).
    """
    nets = 600
    left, right = both(networks, inputs, nets, loss)
    dead = {}
    for side, found in (("without", left), ("with", right)):
        for name in ("q", "delta_aa", "grad_aa", "ntk_aa"):
            alive = found[name][found[name] != 0]
            assert alive.min() > 1e-26 * np.median(alive), name
            dead[side, name] = (found[name] == 0).mean(0)
        first, second = np.triu_indices(len(inputs), 1)
        for name, of in (("eps", "q"), ("grad_cos", "grad_aa")):
            lost = (found[of][:, first] == 0) | (found[of][:, second] == 0)
            np.testing.assert_array_equal(np.isnan(found[name]), lost, err_msg=name)
    for name in ("q", "delta_aa", "grad_aa", "ntk_aa"):
        a, b = dead["without", name], dead["with", name]
        error = np.sqrt((a * (1 - a) + b * (1 - b)) / nets)
        assert np.all(abs(a - b) <= 5 * error + 3 / nets), name
    assert dead["with", "delta_aa"].max() > 0.05


@pytest.mark.parametrize("count", [3, 6])
def test_small_inputs_are_not_lost_beside_the_bias(count):
    """``|dE_a/dW^0|^2 = |dE_a/dh^1|^2 |x_a|^2`` where the bias is 1e9 times as large, and for 0."""
    inputs = SIX[:count] * np.array([1, 0, 1e-9, 1, 1e-6, 1])[:count, None]
    networks = Ensemble(**TANH, width=[12, 9, 14, 5], depth=3)
    for found in both(networks, inputs, 20, "quadratic"):
        expected = found["delta_aa"][:, :, 0] * np.square(inputs).sum(1)
        np.testing.assert_allclose(found["grad_aa"][:, :, 0], expected, rtol=1e-6)
        lost = np.array([1 in pair for pair in np.transpose(np.triu_indices(count, 1))])
        np.testing.assert_array_equal(np.isnan(found["grad_cos"][:, :, 0]), np.tile(lost, (20, 1)))
        np.testing.assert_array_equal(found["grad_ab_abs"][:, lost, 0], 0)


@pytest.mark.parametrize(
    "case", [c for c in CASES if len(c.networks.layers) > 2], ids=lambda case: case.name
)
def test_what_is_drawn_again_is_the_same(case):
    """A backward pass that keeps one hop at a time, bit for bit but for the order of sums."""
    job = case.networks._job(case.loss, case.inputs, 5, labels=case.labels, **case.how)
    parts = [
        replace(job, plan=replace(job.plan, nets=20, stretch=stretch)).blocks(range(1))[0]
        for stretch in (1, 2, len(case.networks.layers))
    ]
    for name, (sign, size) in parts[-1].items():
        for other in parts[:-1]:
            np.testing.assert_array_equal(other[name][0], sign, err_msg=name)
            np.testing.assert_allclose(other[name][1], size, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"networks": Ensemble("tanh", 1.0, width=12, depth=2, tied=False)}, "tied=True"),
        ({"loss": "hinge"}, "'hinge'.*expected quadratic"),
        ({"loss": "cross_entropy", "labels": (0,)}, "one label an input"),
        ({"inputs": SIX[:, :3]}, r"shape \(6, 3\): expected \[input, 12\]"),
        ({"nets": 0}, "nets = 0"),
        ({"networks": ([MeanField("tanh", sigma_w=1.0)], [12])}, "1 widths for 1 hops"),
    ],
)
def test_bad_input_is_explained(given, message):
    usual = {
        "networks": Ensemble("tanh", 1.0, width=12, depth=2),
        "inputs": THREE,
        "nets": 2,
        "loss": "quadratic",
    }
    with pytest.raises(InputError, match=message):
        explicit_networks(**(usual | given))

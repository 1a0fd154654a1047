"""Networks without weights against networks with weights and autograd: one law, forward and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from depthscale.answers import InputError
from depthscale.finite import passes
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.finite.explicit import explicit_networks, explicit_pairs
from depthscale.finite.observe import OBSERVABLES
from depthscale.finite.sampled import Sampled
from depthscale.theory.meanfield import MeanField

# One comparison in a thousand runs of the suite may fail by chance if its seeds were changed
# (Bonferroni over cases, and in each over its Kolmogorov-Smirnov tests); they are fixed, so none
# does.
FAMILY_ERROR = 1e-3
NETS = 1500

SIX = np.random.default_rng(7).standard_normal((6, 12))
THREE = SIX[:3]
# 0 and 1 are equal, 2 differs from them in the sixth digit, 3 is twice 0, 4 and 5 are others.
CLOSE = np.array(
    [SIX[0], SIX[0], SIX[0] + 1e-6 * SIX[1], 2 * SIX[0], SIX[3], SIX[4] + 1e-4 * SIX[5]]
)


def quartic(outputs: torch.Tensor) -> torch.Tensor:
    """A loss that torch differentiates: ``sum_i h_i^4/4 + h_1 h_2``."""
    return (outputs**4).sum(-1) / 4 + outputs[..., 0] * outputs[..., 1]


def bump(x: np.ndarray) -> np.ndarray:
    """An activation that only numpy knows."""
    return x * np.exp(-0.5 * x * x)


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
    MeanField(bump, sigma_w=1.5, drop=0.2, masks="gaussian"),
]
CASES = [
    Case(
        "one input, tanh, quadratic",
        Ensemble(**TANH, width=[12, 20, 30, 15, 18], depth=4, drop=0.1),
        SIX[:1],
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
        100 * THREE,
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
        SIX,
        "readout",
    ),
    Case(
        "six inputs, sin, user loss, gaussian noise",
        Ensemble("sin", 1.6, 0.3, width=[12, 20, 25, 6], depth=3, drop=0.2, masks="gaussian(0.6)"),
        SIX,
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
        Ensemble(
            **TANH, width=[12, 14, 14, 14], depth=3, drop=0.3, masks="overlap(0.4)", skip=0.8
        ),
        THREE,
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
        THREE,
        "quadratic",
    ),
    Case(
        "gaussian noise",
        Ensemble("softplus", 1.3, 0.2, width=[12, 14, 20, 3], depth=3, drop=0.3, masks="gaussian"),
        THREE,
        "outputs",
    ),
    Case(
        "dropped layers",
        Ensemble(
            **TANH, width=[12, 12, 12, 12, 12], depth=4, drop=0.3, masks="layers(0.5)", skip=0.8
        ),
        THREE,
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
    floor = {"eps": 1e-24, "delta_eps": 1e-24, "separation": 1e-24, "grad_cos": 1e-10}
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
    with np.errstate(divide="ignore", invalid="ignore"):
        found["gradient and length"] = gradient[:, 0, 0] * q[:, 0, -1]
        found["gradient at two layers"] = gradient[:, 0, 0] / gradient[:, 0, -1]
        found["gradient of two inputs"] = gradient[:, 0, 0] / gradient[:, -1, 0]
        found["length of two inputs"] = q[:, 0, -1] / q[:, -1, -1]
        found["kernel and length"] = kernel[:, -1, 0] / q[:, -1, -1]
        if values["eps"].shape[1]:
            eps = values["eps"]
            found["misalignment and gradients"] = values["grad_cos"][:, -1, 0] + eps[:, -1, -1]
            found["two pairs"] = (eps[:, 0, -1] - eps[:, -1, -1]).round(10)
    return {key: _ten_digits(value) for key, value in found.items()}


def _ten_digits(values: np.ndarray) -> np.ndarray:
    known = np.where(np.isfinite(values), values, -1.0)
    size = 10.0 ** np.floor(np.log10(np.where(known == 0, 1, abs(known))))
    return np.round(known / size, 9) * size


def p_values(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> dict[str, float]:
    """Of the Kolmogorov-Smirnov test; numbers that are the same in every network must agree."""
    a, b = statistics(left), statistics(right)
    assert set(a) == set(b)
    found = {}
    for key in a:
        if np.ptp(b[key]) <= 1e-9 * abs(b[key]).max():
            np.testing.assert_allclose(a[key], b[key], rtol=1e-6, err_msg=key)
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

"""The chain of three numbers against exact networks.

Kolmogorov-Smirnov distances are held against ``1.95 sqrt(1/N + 1/M)``, which two samples of the
same law pass with probability 1/1000: 18 such comparisons, with fixed seeds.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from depthscale.answers import InputError
from depthscale.finite.chain.covariance import covariance_paths, why_not
from depthscale.finite.chain.density import chain_density
from depthscale.finite.chain.plan import Route
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.theory.activation import activation
from depthscale.theory.criticality import critical_point
from depthscale.theory.meanfield import MeanField


def exact_z(layer: MeanField, widths: list[int], pair: Pair, nets: int, seed: int) -> np.ndarray:
    """``artanh`` of the measured cosine of exact networks, ``[net, layer]``."""
    ensemble = Ensemble.of([layer] * (len(widths) - 1), widths)
    eps = ensemble.forward(pair, nets, seed, keep=True, progress=False).values("eps")[:, 0]
    with np.errstate(divide="ignore"):
        return (np.log(2 - eps) - np.log(eps)) / 2


def chance(*sizes: int) -> float:
    """The distance that samples of these sizes pass once in a thousand times."""
    return 1.95 * np.sqrt(sum(1 / size for size in sizes))


def critical(name: str, q: float) -> MeanField:
    point = critical_point(name, q=q)
    return MeanField(activation(name), float(point.sigma_w), float(point.sigma_b))


COVARIANCES = [
    (critical("tanh", 0.5), 0.5, 1.0, 64),
    (critical("hardtanh", 0.5), 0.5, 1e-6, 64),
    (MeanField(activation("erf"), 1.2, 0.3), None, 1.0, 64),
    (MeanField(activation("tanh"), 1.7, 0.3, drop=0.2), None, 0.0, 128),
    (MeanField(activation("relu"), 1.0, drop=0.2), 1.0, 1.0, 256),
]


@pytest.mark.parametrize("case", COVARIANCES, ids=lambda case: case[0].activation.name)
def test_three_numbers_follow_exact_networks(case):
    layer, q, eps, n = case
    q = float(layer.q) if q is None else q
    nets, depth = 512_000 // n // 2, 16
    widths = [n] * (depth + 1)
    law = covariance_paths(layer, widths, eps, q, paths=16_000, seed=6)
    z = exact_z(layer, widths, Pair(eps, q, q, "drawn"), nets, 9)
    distances = [law.distance(z[:, k], k, "z") for k in (1, 4, depth)]
    assert max(distances) < chance(nets, 16_000) + 0.004, distances


def test_three_numbers_of_two_slopes_are_the_chain():
    widths = [64] * 21
    layer = MeanField(activation("leaky_relu(0.3)"), 1.0)
    paths = covariance_paths(layer, widths, 1.0, 1.0, paths=16_000)
    law = chain_density(Route.of("leaky_relu(0.3)", widths, 1.0, "drawn"))
    assert max(law.distance(paths.u[k], k, "z") for k in (0, 3, 20)) < chance(16_000) + 0.004


@pytest.mark.parametrize(
    ("layer", "q", "n", "reason"),
    [
        (MeanField(activation("relu"), 1.4, 0.3), 1.0, 64, "lengths|settle"),
        (MeanField(activation("tanh"), 1.7, 0.3), 0.01, 64, "away from"),
        (MeanField(activation("tanh"), 1.7, 0.3, drop=0.001), None, 64, "few units"),
        (MeanField(activation("tanh"), 1.7, 0.3, drop=0.1, masks="clean"), None, 64, "masks"),
        (MeanField(activation("step"), 1.0, 0.3), 1.0, 64, "jumps"),
    ],
)
def test_what_three_numbers_do_not_hold_for_has_a_reason(layer, q, n, reason):
    q = float(layer.q) if q is None else q
    assert re.search(reason, why_not(layer, q, [n] * 3))
    with pytest.raises(InputError, match="Ensemble"):
        covariance_paths(layer, [n] * 3, 1.0, q, paths=10)


def test_no_paths_depend_on_how_many_there_are():
    layer = MeanField(activation("tanh"), 1.7, 0.3)
    widths, q = [40] * 5, float(layer.q)
    many = covariance_paths(layer, widths, 0.5, q, paths=17_000, seed=1).u
    few = covariance_paths(layer, widths, 0.5, q, paths=5, seed=1).u
    np.testing.assert_array_equal(many[:, :5], few)


def test_equal_inputs_stay_equal_without_dropout():
    layer = MeanField(activation("tanh"), 1.7, 0.3)
    law = covariance_paths(layer, [40] * 4, 0.0, float(layer.q), paths=5)
    np.testing.assert_array_equal(law.quantiles([0.5], "eps").value, 0)


def test_near_alignment_all_is_a_shift():
    """The law of ``log eps`` of a smooth layer without a field does not see where it starts."""
    layer = critical("tanh", 0.5)
    near, nearer = (
        covariance_paths(layer, [64] * 5, eps, 0.5, paths=4, seed=2).u for eps in (1e-60, 1e-300)
    )
    # both the digits of z = 345 and the orders of e^-60 that are left out
    np.testing.assert_allclose(nearer - near, 120 * np.log(10), atol=1e-10)


def test_opposite_inputs_of_an_odd_network_stay_opposite():
    layer = MeanField(activation("tanh"), 1.5)
    law = covariance_paths(layer, [64] * 4, 2.0, float(layer.q), paths=3)
    np.testing.assert_array_equal(law.quantiles([0.5], "eps").value, 2)
    # as nearly opposite as float64 has it
    near = covariance_paths(layer, [64] * 4, 2 - 4.5e-16, float(layer.q), paths=3)
    assert np.all(near.quantiles([0.5], "rho").value < -1 + 1e-13)

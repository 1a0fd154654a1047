"""Measured Lyapunov exponents against the pair sampler, weights that were built, and theory.

Comparisons of samples allow four standard errors, which one seed in 16,000 passes by chance; all
seeds are fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from depthscale.answers import InputError, Undefined
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.finite.lyapunov import lyapunov_exponent, measured_boundary
from depthscale.theory.meanfield import MeanField
from depthscale.theory.transition import absorbing_transition

TANH = MeanField("tanh", 1.45, 0.3)


def test_exponent_is_that_of_close_pairs_in_the_sampler():
    n, depth = 24, 60
    found = lyapunov_exponent(TANH, n, layers=100, nets=256, seed=3)
    q = float(TANH.q)
    run = Ensemble.of([TANH] * depth, [n] * (depth + 1)).forward(
        Pair(1e-40, q, q, "drawn"), 1200, 4, keep=True, observe=(), progress=False
    )
    value, error = run.lyapunov(first=20)
    apart = abs(found.value[0] - 2 * float(value))
    assert apart < 4 * math.hypot(found.error[0], 2 * float(error))


def test_exponent_is_that_of_products_of_built_matrices():
    n, nets, depth, settle = 12, 600, 60, 15
    draws = np.random.default_rng(8)
    h = draws.normal(size=(nets, n)) * math.sqrt(float(TANH.q))
    tangent = draws.normal(size=(nets, n))
    total = np.zeros(nets)
    for step in range(depth + settle):
        weights = draws.normal(size=(nets, n, n)) * TANH.sigma_w / math.sqrt(n)
        tangent = np.einsum("kij,kj->ki", weights, tangent / np.cosh(h) ** 2)
        h = np.einsum("kij,kj->ki", weights, np.tanh(h)) + TANH.sigma_b * draws.normal(size=h.shape)
        size = np.square(tangent).sum(axis=1)
        tangent /= np.sqrt(size)[:, None]
        total += np.log(size) if step >= settle else 0
    explicit = total / depth
    found = lyapunov_exponent(TANH, n, layers=100, nets=256, seed=5)
    error = math.hypot(found.error[0], explicit.std() / math.sqrt(nets))
    assert abs(found.value[0] - explicit.mean()) < 4 * error


@pytest.mark.parametrize("name", ["tanh", "hardtanh"])
def test_wide_networks_have_the_exponent_of_theory(name):
    own = absorbing_transition(name, sigma_b=0.3)
    n = 200
    found = lyapunov_exponent(own.network(), n, layers=100, nets=256, seed=1)
    # the next order, 15 for tanh at most by a line through narrower networks, over n^2
    allowed = 4 * found.error[0] + 20 / n**3
    assert abs(found.value[0] - own.lyapunov(own.sigma_w, n)) < allowed
    assert found.gain[0] > 20


def test_same_seed_same_networks_however_many():
    few = lyapunov_exponent(TANH, 16, layers=5, nets=64, seed=2)
    assert few.value == lyapunov_exponent(TANH, 16, layers=5, nets=64, seed=2).value
    assert few.value != lyapunov_exponent(TANH, 16, layers=5, nets=64, seed=3).value


def test_weights_share_their_random_numbers():
    found = lyapunov_exponent(TANH, 32, [1.45, 1.46], layers=30, nets=128, seed=6)
    difference = math.sqrt(
        found.covariance[0, 0] + found.covariance[1, 1] - 2 * found.covariance[0, 1]
    )
    assert difference < found.error[0] / 5


def test_boundary_is_that_of_theory():
    own = absorbing_transition("tanh", sigma_b=0.3)
    found = measured_boundary("tanh", 0.3, 64, layers=100, nets=128, seed=7)
    # the exact root leaves out lam/n^2 of the exponent, over its slope
    allowed = 4 * found.error + 2 / (64**2 * found.slope)
    assert abs(found.sigma_w - own.boundary(64)) < allowed
    assert found.slope == pytest.approx(own.gamma, rel=0.2)
    assert found.error < 0.002


def test_narrow_networks_of_tanh_have_no_chaotic_phase():
    found = measured_boundary("tanh", 0.3, 6, layers=60, nets=64, seed=0)
    assert isinstance(found, Undefined)
    assert "sign" in found.reason


def test_no_transition_no_boundary():
    assert isinstance(measured_boundary("tanh", 0.0, 64), Undefined)
    assert isinstance(measured_boundary("relu", 0.0, 64), Undefined)


def test_a_dead_layer_is_told():
    with pytest.raises(InputError, match="no slope"):
        lyapunov_exponent(MeanField("hardtanh", 4.0, 0.3), 2, layers=50, nets=64)


@pytest.mark.parametrize(
    "layer",
    [
        MeanField("relu", 1.4),
        MeanField("tanh", 1.4, 0.3, drop=0.1),
        MeanField("tanh", 1.4, skip=1.0),
    ],
)
def test_layers_without_such_an_exponent_are_refused(layer):
    with pytest.raises(InputError):
        lyapunov_exponent(layer, 16, layers=2, nets=2)


@pytest.mark.parametrize(
    "how", [{"n": 0}, {"n": 2.5}, {"n": 8, "nets": 1}, {"n": 8, "layers": 0}, {"n": 8, "seed": -1}]
)
def test_bad_numbers_are_refused(how):
    with pytest.raises(InputError):
        lyapunov_exponent(TANH, **{"layers": 2, "nets": 2, **how})
    with pytest.raises(InputError):
        lyapunov_exponent(TANH, 8, [], layers=2, nets=2)
    with pytest.raises(InputError):
        lyapunov_exponent(TANH, 8, "wide", layers=2, nets=2)
    with pytest.raises(InputError, match="MeanField"):
        lyapunov_exponent("tanh", 8, layers=2, nets=2)


@pytest.mark.parametrize(
    "how", [{"n": 0}, {"n": "wide"}, {"nets": 0}, {"nets": "many"}, {"layers": 0}, {"seed": -1}]
)
def test_a_boundary_of_bad_numbers_is_refused_and_not_undefined(how):
    with pytest.raises(InputError):
        measured_boundary("tanh", 0.3, **{"n": 40, "layers": 2, "nets": 2, **how})

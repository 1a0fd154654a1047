"""Gram matrices of m inputs: drift, orders without noise, exact moments, bad input."""

import math
from itertools import product

import numpy as np
import pytest
import sympy
from scipy.integrate import solve_ivp

from depthscale import InputError
from depthscale.finite.diffusion import covariance
from depthscale.finite.diffusion.covariance import linear_moments, sample_covariance
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.shaped import ShapedReLU
from depthscale.finite.diffusion.smooth import ShapedSmooth

LINEAR, KINKED, SMOOTH = ShapedReLU(1.0, 1.0), ShapedReLU(1.0, -1.0), ShapedSmooth(1.0, -1.2, 0.7)
TWO = np.array([[1.0, 0.3], [0.3, 2.0]])
THREE = np.array([[1, 0.3, 0.1], [0.3, 2, -0.4], [0.1, -0.4, 0.5]])

# The drift ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [KINKED, SMOOTH, ShapedSmooth(0.0, 1.0, 1.0)])
def test_the_drift_is_that_of_a_wide_layer(limit):
    # n (V' - V) of two inputs of unequal lengths through one layer, from its maps
    n, q, rho = 1e6, np.array([1.0, 2.0]), 0.3
    layer, cross = limit.layer(n), 0.3 * math.sqrt(2)
    q1, q2, eps = layer.pair_map(*q, 1 - rho)
    v = np.array([[q[0], cross], [cross, q[1]]])
    moved = np.array([q1 - q[0], math.sqrt(q1 * q2) * (1 - eps) - cross, q2 - q[1]]) * n
    drift = limit.drift_of(v)
    assert moved == pytest.approx(drift[[0, 0, 1], [0, 1, 1]], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("limit", [KINKED, SMOOTH, ShapedSmooth(0.7, 1.0, 1.0)])
def test_the_flow_of_the_drift_is_of_order_two(limit):
    def off(time: float) -> float:
        exact = solve_ivp(
            lambda _, y: limit.drift_of(y.reshape(3, 3)).ravel(),
            (0, time),
            THREE.ravel(),
            "DOP853",
            rtol=1e-12,
            atol=1e-14,
        ).y[:, -1]
        return float(np.abs(limit.flow(THREE, time) - exact.reshape(3, 3)).max())

    # one step: error of order time^3, a factor of 8
    assert off(0.02) / off(0.01) == pytest.approx(8, rel=0.15)


@pytest.mark.parametrize("limit", [KINKED, ShapedReLU(0.0, 30.0), SMOOTH])
@pytest.mark.parametrize("time", [0.01, 1.0])
def test_the_flow_keeps_matrices_positive(limit, time):
    draws = np.random.default_rng(3)
    x = draws.standard_normal((500, 4, 2))  # of rank 2
    v = np.einsum("pac,pbc->abp", x, x)
    lowest = np.linalg.eigvalsh(limit.flow(v, time).transpose(2, 0, 1))[:, 0]
    assert np.all(lowest >= -1e-13 * np.einsum("aap->p", v))


# Orders of convergence, without noise ------------------------------------------------------------


class Nodes:
    """In place of random numbers: all points of a product of four rules of Gauss and Hermite."""

    x, w = np.polynomial.hermite_e.hermegauss(9)
    points = np.array(list(product(x, repeat=4))).T
    weights = np.prod(np.array(list(product(w / w.sum(), repeat=4))), axis=1)

    def __init__(self):
        self.rows = iter(self.points)

    def standard_normal(self, count: int) -> np.ndarray:
        assert count == self.weights.size
        return next(self.rows).copy()


def one_step(limit, step: float) -> np.ndarray:
    """V after a step of the sampler, for every node of its four normal numbers."""
    v = limit.flow(np.repeat(TWO[:, :, None], Nodes.weights.size, axis=2), step / 2)
    v = covariance._spread(covariance.root(v), step, Nodes())
    return limit.flow(v, step / 2)


def test_the_noise_is_of_weak_order_two():
    # of order 2 if one step is off by step^3
    def off(step: float) -> np.ndarray:
        v = one_step(LINEAR, step)
        mean, second = linear_moments(TWO, step)
        found = np.einsum("abp,cdp,p->abcd", v, v, Nodes.weights)
        means = np.einsum("abp,p->ab", v, Nodes.weights)
        return np.append(
            (found - second)[[0, 1, 0, 0], [1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]],
            (means - mean)[1, 1],
        )

    assert off(0.01) / off(0.005) == pytest.approx(np.full(5, 8), rel=0.05)


@pytest.mark.parametrize("power", [1, 2])
def test_a_whole_step_is_of_weak_order_two(power):
    # E rho^k = f + step Lf + step^2 L^2 f/2 + ..., with the generator of two inputs
    rho, start = sympy.symbols("rho"), 0.3 / math.sqrt(2)
    nu = sympy.Rational(4) / (2 * sympy.pi) * (sympy.sqrt(1 - rho**2) - rho * sympy.acos(rho))

    def generator(f):
        first = (nu - rho * (1 - rho**2) / 2) * sympy.diff(f, rho)
        return first + (1 - rho**2) ** 2 / 2 * sympy.diff(f, rho, 2)

    series = [rho**power]
    for _ in range(3):
        series.append(generator(series[-1]))
    f = [float(g.subs(rho, start)) for g in series]

    def off(step: float) -> float:
        v = one_step(KINKED, step)
        found = (v[0, 1] / np.sqrt(v[0, 0] * v[1, 1])) ** power @ Nodes.weights
        return float(found - f[0] - step * f[1] - step**2 / 2 * f[2] - step**3 / 6 * f[3])

    assert off(0.002) / off(0.001) == pytest.approx(8, rel=0.08)


# Exact laws --------------------------------------------------------------------------------------


def test_linear_moments_are_those_of_many_small_wishart_steps():
    # V <- L (Wishart_N/N) L^T: x -> x + (sum x - x)/N for the three pairings, N = 1/dt
    _, found = linear_moments(THREE, 0.5)
    pairs = np.einsum("ab,cd->abcd", THREE, THREE)
    n = 20_000
    for _ in range(n // 2):
        pairs = pairs + (np.einsum("acbd->abcd", pairs) + np.einsum("adbc->abcd", pairs)) / n
    assert found == pytest.approx(pairs, rel=1e-4, abs=1e-4)


def test_paths_of_three_inputs_have_the_exact_moments():
    paths = 60_000
    v = sample_covariance(LINEAR, THREE, [0.4], paths, seed=7).covariances[0]
    mean, second = linear_moments(THREE, 0.4)
    products = np.einsum("pab,pcd->pabcd", v, v)
    for found, exact in ((v, mean), (products, second)):
        error = found.std(axis=0) / math.sqrt(paths)
        # 6 + 21 different numbers, one beyond 4.5 standard errors in 5000 such tests
        assert np.max(np.abs(found.mean(axis=0) - exact) / error) < 4.5
    # log det V is normal: every column of the triangular factor is log-normal
    logs = np.linalg.slogdet(v)[1] - np.linalg.slogdet(THREE)[1]
    assert logs.mean() == pytest.approx(-6 * 0.4, abs=4.5 * math.sqrt(6 * 0.4 / paths))
    assert logs.var() == pytest.approx(6 * 0.4, rel=4.5 * math.sqrt(2 / paths))


def test_single_inputs_of_kinked_networks_are_log_normal():
    law = sample_covariance(ShapedReLU(0.0, -1.0), [[2.0]], [0.5, 1.0], 40_000, seed=2, steps=2)
    lengths = law.length(0)
    assert lengths.mean("log_V").value == pytest.approx(
        math.log(2) - law.times, abs=4 * math.sqrt(2 / 40_000)
    )
    assert lengths.sd("log_V").value == pytest.approx(np.sqrt(2 * law.times), rel=0.02)


def test_pairs_of_three_inputs_follow_the_equation_of_two():
    shaped, paths = ShapedReLU(0.0, -1.0), 20_000
    law = sample_covariance(shaped, THREE, [0.25, 0.5], paths, seed=8)
    rho = law.correlations
    for a, b in ((0, 1), (1, 2)):
        start = THREE[a, b] / math.sqrt(THREE[a, a] * THREE[b, b])
        exact = density(shaped, shaped.start(rho=start), law.times, tolerance=1e-4)
        for index in range(2):
            # samples of the law itself are within this with probability 99.9 %
            assert exact.distance(rho[index, :, a, b], index) < 1.95 / math.sqrt(paths)
    mean = law.correlation(1, 0).mean()
    assert mean.value == pytest.approx(rho[:, :, 0, 1].mean(axis=1), abs=1e-12)


def test_moments_are_asked_for_at_times():
    for time, why in ((-1.0, "times"), ("a", "times"), (1e3, "beyond float64")):
        with pytest.raises(InputError, match=why):
            linear_moments(TWO, time)


# What paths look like ----------------------------------------------------------------------------


def test_path_i_is_the_same_however_many_are_asked_for():
    few = sample_covariance(KINKED, THREE, [0.1, 0.3], 10, seed=5, steps=6)
    many = sample_covariance(KINKED, THREE, [0.1, 0.3], covariance.BLOCK + 3, seed=5, steps=6)
    other = sample_covariance(KINKED, THREE, [0.1, 0.3], 10, seed=6, steps=6)
    assert np.array_equal(few.covariances, many.covariances[:, :10])
    assert not np.any(np.isclose(few.covariances, other.covariances))
    assert len(np.unique(many.covariances[1, :, 0, 0])) == covariance.BLOCK + 3


def test_matrices_stay_positive_and_symmetric():
    draws = np.random.default_rng(1)
    x = draws.standard_normal((5, 5))
    for limit in (KINKED, SMOOTH):
        v = sample_covariance(limit, x @ x.T / 5, [0.5, 3.0], 2000, seed=1, steps=12).covariances
        assert np.array_equal(v, v.transpose(0, 1, 3, 2))
        assert np.all(np.linalg.eigvalsh(v)[..., 0] >= -1e-14 * np.trace(v, axis1=2, axis2=3))


def test_equal_inputs_stay_equal_and_opposite_ones_part():
    v0 = np.array([[1, 1, -2], [1, 1, -2], [-2, -2, 4.0]])
    law = sample_covariance(KINKED, v0, [0.5], 2000, seed=1)
    rho = law.correlations[0]
    assert np.all(rho[:, 0, 1] > 1 - 1e-12)
    assert np.all(rho[:, 0, 2] > -1 + 1e-6)
    # the same numbers for both of the equal ones
    assert rho[:, 0, 2] == pytest.approx(rho[:, 1, 2], abs=1e-7)
    assert law.correlation(0, 1).mean().value[0] > 1 - 1e-12
    # linear networks keep what is dependent
    ahead = sample_covariance(LINEAR, v0, [0.5], 100, seed=1).covariances[0]
    assert np.linalg.matrix_rank(ahead, tol=1e-6).tolist() == [1] * 100


def test_time_zero_is_the_start():
    law = sample_covariance(SMOOTH, TWO, [0.0, 0.1], 3, seed=0)
    assert np.array_equal(law.covariances[0], np.repeat(TWO[None], 3, axis=0))
    assert sample_covariance(SMOOTH, TWO, [0.0], 3, seed=0).covariances.shape == (1, 3, 2, 2)


def test_explosions_are_told():
    limit, v0 = ShapedSmooth(0.0, 1.0, 1.0), np.array([[1.0, 0.2], [0.2, 2.0]])
    law = sample_covariance(limit, v0, [0.3, 0.8], 20_000, seed=3)
    assert np.all(law.exploded[1] | ~law.exploded[0])
    # what has exploded is at least what each input does alone, at most their sum
    alone = [limit.explosion(v, law.times) for v in (1.0, 2.0)]
    share = law.exploded.mean(axis=1)
    assert np.all(share > alone[1] - 0.012)
    assert np.all(share < alone[0] + alone[1] + 0.012)
    gone = law.exploded[1]
    assert np.all(np.isinf(law.covariances[1, gone]))
    assert np.all(np.isnan(law.correlations[1, gone]))
    pair = law.correlation(0, 1)
    assert pair.escaped.value == pytest.approx(share)
    assert pair.mean().value[1] == pytest.approx(law.correlations[1, ~gone, 0, 1].mean())
    assert law.length(1).escaped.value == pytest.approx(share)
    assert np.all(np.isfinite(law.mean.value))


def test_lengths_that_leave_float64_are_named():
    """``V ~ e^-t``: at t = 1000 it is 0 in float64, and correlations would be 0/0."""
    with pytest.raises(InputError, match=r"at t = 1000 .* earlier times"):
        sample_covariance(LINEAR, TWO, [1.0, 1000.0], 10, seed=0, steps=20)


def test_the_law_goes_into_a_dataset():
    data = sample_covariance(KINKED, TWO, [0.1, 0.2], 7, seed=0).to_xarray()
    assert dict(data.sizes) == {"time": 2, "path": 7, "input": 2, "other": 2}
    assert float(data.correlation.sel(time=0.2).max()) <= 1


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("v0", "why"),
    [
        ([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]], "eigenvalue -0.8"),
        # a correlation of 10, of signals of very different lengths
        ([[1, 1e-6], [1e-6, 1e-14]], "eigenvalue -9"),
        ([[1, 2], [2, 1]], "eigenvalue -1"),
        ([[1, 0.2], [0.3, 1]], "symmetric"),
        ([[1, math.nan], [math.nan, 1]], r"v0\[0, 1\] = nan"),
        ([[1, 0], [0, 0]], r"v0\[1, 1\] = 0"),
        ([[1, 0], [0, -1]], r"v0\[1, 1\] = -1"),
        ([1, 2], "square matrix"),
        ([[1, 0, 0], [0, 1, 0]], "square matrix"),
        ("V", "expected numbers"),
    ],
)
def test_matrices_are_checked(v0, why):
    with pytest.raises(InputError, match=why):
        sample_covariance(KINKED, v0, [0.5], 10, seed=0)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"times": [0.5, 0.2]}, "times"),
        ({"times": []}, "times"),
        ({"paths": 0}, "paths"),
        ({"paths": 2.5}, "paths"),
        ({"seed": -1}, "seed"),
        ({"steps": 0}, "steps"),
    ],
)
def test_other_arguments_are_checked(bad, why):
    with pytest.raises(InputError, match=why):
        sample_covariance(KINKED, TWO, **{"times": [0.5], "paths": 10, "seed": 0, **bad})


def test_inputs_are_called_by_number():
    law = sample_covariance(KINKED, TWO, [0.1], 3, seed=0)
    for pair in ((0, 0), (0, 2), (-1, 0), (0.5, 1), ("a", 1)):
        with pytest.raises(InputError, match="input"):
            law.correlation(*pair)


def test_a_name_is_no_limit():
    with pytest.raises(InputError, match="expected a ShapedReLU"):
        sample_covariance("relu", [[1.0]], [0.5], 10, 0)

"""Shaped smooth networks: derivatives, the law of explosion by several methods, stationary laws."""

import math

import mpmath
import numpy as np
import pytest
from scipy import stats
from scipy.special import gammainc

from depthscale import Ensemble, InputError, Pair
from depthscale.answers import Undefined
from depthscale.finite.diffusion.covariance import sample_covariance
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.smooth import ShapedSmooth

EXPLOSIVE = ShapedSmooth(0.0, 1.0, 1.0)  # b = 1


# From an activation ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phi", "second", "third"),
    [
        ("tanh", 0.0, -2.0),
        ("sin", 0.0, -1.0),
        ("polynomial(0, 1, 0.5, -0.125)", 1.0, -0.75),
        # 2 softplus(x) - 2 log 2 and 4 sigmoid(x) - 2: derivatives of the logistic function
        (lambda x: 2 * np.logaddexp(0, x) - 2 * math.log(2), 0.5, 0.0),
        (lambda x: np.expm1(x), 1.0, 1.0),
        (lambda x: x + 0.3 * x**2 * np.exp(-(x**2)), 0.6, 0.0),
    ],
)
def test_derivatives_at_zero(phi, second, third):
    found = ShapedSmooth.of(phi, 0.7)
    # curvatures of callables are differences
    assert (found.second, found.third) == pytest.approx((second, third), abs=2e-5)
    assert found.b == pytest.approx((0.75 * second**2 + third) / 0.49, abs=2e-4)


@pytest.mark.parametrize(
    ("phi", "why"),
    [
        ("relu", "break at 0"),
        ("leaky_relu(0.2)", "break at 0"),
        ("elu", "break at 0"),
        ("sigmoid", "phi\\(0\\) = 0.5"),
        ("gelu", "phi'\\(0\\) = 0.5"),
        ("cos", "expected 0 and 1"),
    ],
)
def test_what_is_no_smooth_identity_is_refused(phi, why):
    with pytest.raises(InputError, match=why):
        ShapedSmooth.of(np.cos if phi == "cos" else phi, 1.0)


@pytest.mark.parametrize(
    "bad", [(0, 0, 0), (0, 0, -1), (0, 1, 1e-200), (math.nan, 0, 1), (0, math.inf, 1)]
)
def test_parameters_are_checked(bad):
    with pytest.raises(InputError, match="expected a finite number"):
        ShapedSmooth(*bad)


@pytest.mark.parametrize("limit", [ShapedSmooth(1.0, -0.75, 0.7), ShapedSmooth(0.4, 1.0, 1.3)])
def test_the_drift_is_that_of_a_wide_layer(limit):
    # n (V' - V) of one layer is b V (V - 1) + O(1/n)
    v, n = np.array([0.3, 1.0, 2.5]), 1e6
    moved = n * (limit.layer(n).length_map(v) - v)
    assert moved == pytest.approx(limit.b * v * (v - 1), rel=1e-4, abs=5e-5)
    # the same of log V, with Ito's -1
    assert limit.drift(np.log(v)) == pytest.approx(limit.b * (v - 1) - 1)


# Explosion ---------------------------------------------------------------------------------------


def kummer(time: float, b: float, x: float) -> float:
    """mpmath's own inversion of mpmath's own Kummer function, the sign of its argument turned."""

    def transform(rate):
        kappa = ((1 + b) + mpmath.sqrt((1 + b) ** 2 + 4 * rate)) / 2
        front = mpmath.gamma(kappa - b) / mpmath.gamma(2 * kappa - b) * mpmath.mpf(x) ** kappa
        return front * mpmath.hyp1f1(kappa, 2 * kappa - b, -x) / rate

    return float(mpmath.invertlaplace(transform, time, method="talbot", degree=80))


@pytest.mark.parametrize(
    ("b", "v0", "time"),
    [(1, 1, 0.5), (1, 1, 20), (0.01, 1, 100), (5, 4, 0.1), (5, 0.4, 0.4), (1, 60, 0.02)],
)
def test_the_law_of_explosion_against_mpmath(b, v0, time):
    with mpmath.workdps(80):
        expected = kummer(time, b, b * v0)
    found = ShapedSmooth(0.0, b, 1.0).explosion(v0, time)[0]
    assert found == pytest.approx(expected, abs=1e-10)


def test_the_law_of_explosion_against_a_density_and_paths():
    times = [0.5, 1.0]
    exact = EXPLOSIVE.explosion(1.0, times)
    solved = density(EXPLOSIVE, EXPLOSIVE.start(1.0), times, tolerance=1e-3).escaped
    # a flow of order 2 in the step, and 4 standard errors
    paths = 100_000
    share = sample_covariance(EXPLOSIVE, [[1.0]], times, paths, seed=3).exploded.mean(axis=1)
    assert solved.value == pytest.approx(exact, abs=1e-3)
    assert share == pytest.approx(exact, abs=4 * math.sqrt(0.12 / paths))
    assert exact == pytest.approx([0.0265723, 0.1418315], abs=1e-7)


def test_the_law_of_explosion_against_its_closed_form():
    # int G by the trapezoidal rule on paths of a Brownian motion
    draws, paths, steps, time = np.random.default_rng(1), 40_000, 128, 0.8
    b, v0, h = 1.5, 0.9, time / steps
    moves = math.sqrt(2 * h) * draws.standard_normal((steps, paths)) - (b + 1) * h
    g = np.exp(np.cumsum(moves, axis=0))
    integral = h * (0.5 + g[:-1].sum(axis=0) + g[-1] / 2)
    share = np.mean(b * v0 * integral > 1)
    exact = ShapedSmooth(0.0, b, 1.0).explosion(v0, time)[0]
    assert share == pytest.approx(exact, abs=4 * math.sqrt(exact / paths))


def test_whether_it_ever_explodes():
    assert EXPLOSIVE.ever_explodes(1.0) == pytest.approx(1 - 2 / math.e)
    limit = ShapedSmooth(1.0, 0.5, 0.8)
    late = limit.explosion(0.7, [200.0, math.inf])
    assert late == pytest.approx([gammainc(limit.b + 1, limit.b * 0.7)] * 2, abs=1e-10)
    grown = limit.explosion(0.7, np.linspace(0, 4, 30))
    assert grown[0] == 0
    assert np.all(np.diff(grown) >= -1e-12)


def test_only_above_zero_it_explodes():
    stable = ShapedSmooth.of("tanh", 1.0)
    assert stable.explosion(50.0, [1.0, math.inf]).tolist() == [0, 0]
    assert stable.ever_explodes(50.0) == 0
    assert stable.explodes_at == math.inf
    assert math.isfinite(EXPLOSIVE.explodes_at)


def test_explosions_that_are_nearly_certain_are_named():
    with pytest.raises(InputError, match=r"explode near t = 0.001, .* with probability 1;"):
        EXPLOSIVE.explosion(1000.0, 0.1)
    # b V0 is large here too, but V' = b V (V - 1) shrinks
    with pytest.raises(InputError, match=r"would shrink, .* with probability 1.65e-86;"):
        ShapedSmooth(0.0, 1000.0, 1.0).explosion(0.5, 0.1)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="v0"):
            EXPLOSIVE.explosion(bad, 0.1)
    with pytest.raises(InputError, match="times"):
        EXPLOSIVE.explosion(1.0, -1.0)


# What settles ------------------------------------------------------------------------------------


def test_the_stationary_law_is_gamma():
    limit = ShapedSmooth(0.5, -3.0, 0.9)
    shape, rate = limit.stationary
    law = density(limit, limit.start(2.0), [12.0], tolerance=1e-4)
    v = np.array([0.05, 0.3, 0.7, 1.5])
    expected = stats.gamma(shape, scale=1 / rate).cdf(v)
    assert law.cdf(v, "V").value[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("third", "why"), [(1.0, "explodes"), (-0.5, "to 0"), (-1.0, "to 0")])
def test_otherwise_nothing_settles(third, why):
    found = ShapedSmooth(0.0, third, 1.0).stationary
    assert isinstance(found, Undefined)
    assert why in found.reason


@pytest.mark.parametrize("b", [-3.0, -2.0, -0.4, 0.0])
def test_the_mean_of_the_inverse_length(b):
    limit = ShapedSmooth(0.0, b, 1.0)
    law = density(limit, limit.start(1.7), [0.4])
    found = law.expectation(lambda u, t: np.exp(-u)).value[0]
    assert found == pytest.approx(limit.mean_inverse(1.7, 0.4), rel=1e-5)


def test_the_mean_of_the_inverse_length_needs_one_that_stays():
    assert isinstance(EXPLOSIVE.mean_inverse(1.0, 0.5), Undefined)


# Exact networks ----------------------------------------------------------------------------------


def test_two_inputs_of_networks_follow_the_limit():
    limit, width, layers, nets = ShapedSmooth(1.0, -0.75, 0.7), 200, 100, 1000
    networks = Ensemble.of([limit.layer(width)] * layers, [width] * (layers + 1))
    result = networks.forward(Pair(eps=0.8), nets=nets, seed=2, keep=True)
    rho = 1 - result.values("eps")[..., -1].ravel()
    law = sample_covariance(limit, [[1, 0.2], [0.2, 1]], [0.5], 40_000, seed=1)
    predicted, scatter = law.correlation(0, 1).mean(), law.correlation(0, 1).sd()
    # 4 standard errors, and corrections of relative order 1/n
    error = rho.std() / math.sqrt(nets)
    assert rho.mean() == pytest.approx(predicted.value[0], abs=4 * error + 0.01)
    assert rho.std() == pytest.approx(scatter.value[0], rel=4 / math.sqrt(2 * nets) + 0.01)


# Ends of the parameters --------------------------------------------------------------------------


def test_a_strong_pull_is_the_flow_of_its_fixed_point():
    """b = -2e6: V' = b V (V - 1) is at 1 at once, and e^(-bt) is beyond float64 on the way."""
    limit = ShapedSmooth.of("tanh", 1e-3)
    v = limit.flow(np.array([[0.3, 0.1], [0.1, 2.0]]), 0.1)
    assert np.diag(v) == pytest.approx([1, 1], rel=1e-12)
    assert v[0, 1] == pytest.approx(0.1 / math.sqrt(0.6), rel=1e-12)


def test_the_mean_of_the_inverse_length_ends_where_float64_does():
    limit = ShapedSmooth(0.0, -1.0, 1.0)
    assert "beyond float64" in limit.mean_inverse(1.0, 1e3).reason
    with pytest.raises(InputError, match="times"):
        limit.mean_inverse(1.0, -1.0)


def test_a_law_that_has_all_exploded_is_told_without_means():
    law = sample_covariance(ShapedSmooth(0.0, 1.0, 0.1), [[50.0]], [0.5], 10, seed=0)
    assert np.all(law.exploded)
    assert np.all(np.isnan(law.mean.value))
    length = law.length(0)
    assert length.escaped.value.tolist() == [1.0]
    assert np.isnan(length.mean().value[0])
    assert np.isnan(length.sd().value[0])
    assert np.isposinf(length.quantiles([0.5]).value[0, 0])

"""The absorbing transition: constants, closed laws and boundary, against independent derivations.

Closed forms are held against the density of the equation, which knows nothing of them, against
mpmath's inversion of the same transform at 22 digits, and against a Monte Carlo integral.
"""

from __future__ import annotations

import json
import math

import mpmath
import numpy as np
import pytest

from depthscale.answers import InputError, Undefined
from depthscale.finite.diffusion.solve import limit_law
from depthscale.finite.finite_size import FiniteSizeLaw
from depthscale.theory.exponential_functional import log_integral, log_integral_growth
from depthscale.theory.finite_width import finite_width
from depthscale.theory.meanfield import MeanField
from depthscale.theory.transition import absorbing_transition

CASES = [("tanh", 0.3), ("hardtanh", 0.3)]


# The integral of a geometric Brownian motion ------------------------------------------------------


@pytest.mark.parametrize(
    ("drift", "variance"), [(-1.85, 4.25), (0.0, 4.0), (2.0, 4.25), (-7.0, 4.0)]
)
def test_growth_of_the_mean_logarithm_inverts_its_transform(drift, variance):
    def reference(time):
        unit, nu = mpmath.mpf(4) / variance, mpmath.mpf(2) * drift / variance
        edge = max(nu, -2 - nu, 0) ** 2 / 2

        def image(p):
            root = mpmath.sqrt(2 * (p + edge))
            return -mpmath.digamma(1 + (root + nu) / 2) - mpmath.digamma((root - nu) / 2)

        value = mpmath.invertlaplace(image, time / unit, method="talbot", degree=20)
        return float(mpmath.exp((edge - nu**2 / 2) * time / unit) * value / unit)

    times = np.array([1e-3, 1.0, 30.0])
    with mpmath.workdps(22):
        exact = [reference(t) for t in times]
    np.testing.assert_allclose(log_integral_growth(drift, variance, times), exact, rtol=3e-8)


def test_growth_is_the_slope_of_the_mean_logarithm():
    times, step = np.array([0.05, 0.5, 5.0]), 1e-3
    for drift, variance in ((-1.0, 4.0), (0.0, 1.0), (1.5, 2.0)):
        for k, of in enumerate((log_integral, log_integral_growth)):
            up, down = (of(drift, variance, times * (1 + s)) for s in (step, -step))
            slope = log_integral_growth(drift, variance, times, k)
            # differences of order step^2, and eight digits over step
            np.testing.assert_allclose((up - down) / (2 * step * times), slope, rtol=3e-4)


def test_mean_logarithm_is_that_of_simulated_integrals():
    drift, variance, time, paths, steps = -1.0, 3.0, 1.0, 4000, 400
    draws = np.random.default_rng(5)
    increments = drift * time / steps + math.sqrt(variance * time / steps) * draws.normal(
        size=(steps, paths)
    )
    walk = np.vstack([np.zeros(paths), np.cumsum(increments, axis=0)])
    logs = np.log(np.trapezoid(np.exp(walk), dx=time / steps, axis=0))
    # 4 standard errors, passed by chance once in 16,000 seeds; the rule's own error is 1/steps
    allowed = 4 * logs.std() / math.sqrt(paths) + variance * time / steps
    assert abs(logs.mean() - float(log_integral(drift, variance, time))) < allowed


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_integrals_refuse_what_is_no_time(bad):
    with pytest.raises(InputError, match="time"):
        log_integral_growth(0.0, 1.0, bad)
    with pytest.raises(InputError, match="variance"):
        log_integral(0.0, -1.0, 1.0)


# Constants ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sigma_b", "numbers"),
    [
        # a derivation with other formulas and finite differences, to their digits
        ("tanh", 0.05, (1.122539, 0.153692, 0.025457, 0.3324, -1.211, 3.604, 0.305)),
        ("tanh", 0.3, (1.395584, 0.763475, 0.233498, 0.6044, -1.854, 4.250, 0.573)),
        ("erf", 0.3, (1.233673, 0.688771, 0.252674, 0.7288, -1.885, 4.238, 0.589)),
    ],
)
def test_constants_are_those_of_another_derivation(name, sigma_b, numbers):
    own = absorbing_transition(name, sigma_b=sigma_b)
    found = (own.sigma_w, own.q, own.curvature, own.gamma, own.lam, own.variance, own.mu)
    last_digit = np.array([1e-6, 1e-6, 1e-6, 1e-4, 1e-3, 1e-3, 1e-3])
    np.testing.assert_array_less(np.abs(np.subtract(found, numbers)), 0.51 * last_digit)


@pytest.mark.parametrize(("name", "sigma_b"), CASES)
def test_gamma_is_the_slope_of_chi(name, sigma_b):
    own, step = absorbing_transition(name, sigma_b=sigma_b), 1e-5
    up, down = (float(own.network(own.sigma_w + s).chi) for s in (step, -step))
    assert (up - down) / (2 * step) == pytest.approx(own.gamma, rel=1e-6)


def test_exponent_is_that_of_first_order_in_width():
    own = absorbing_transition("tanh", sigma_b=0.3)
    n, weights = 1000, own.sigma_w + 0.02
    layers = [own.network(weights)] * 160
    q = float(own.network(weights).q)
    record = finite_width(layers, [n] * 161, q1=q, q2=q, eps=1e-60)
    growth = float(np.diff(record.log_eps_mean)[-1])
    assert growth == pytest.approx(own.lyapunov(weights, n), abs=1e-9)


# Laws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sigma_b", "detuning"),
    [("tanh", 0.3, -2.0), ("hardtanh", 0.3, 1.0), ("relu", 0.0, 0.0)],
)
def test_closed_means_are_those_of_the_density(name, sigma_b, detuning):
    own = absorbing_transition(name, sigma_b=sigma_b)
    s = np.array([0.2, 1.5])
    law = limit_law(own.equation(detuning), np.inf, s)
    beta = own.map_beta
    scale = (beta * own.curvature * s) ** (1 / beta)
    mean, log = law.mean("y"), law.mean("log_y")
    np.testing.assert_allclose(own.scaling(detuning * s, s) / scale, mean.value, rtol=3e-6)
    typical = own.scaling(detuning * s, s, "log_mean") / scale
    np.testing.assert_allclose(np.log(typical), log.value, atol=1e-6)


@pytest.mark.parametrize(("name", "sigma_b"), CASES)
def test_small_widths_in_depth_begin_with_mu(name, sigma_b):
    own, s = absorbing_transition(name, sigma_b=sigma_b), 1e-4
    assert (1 - float(own.scaling(0.0, s))) / s == pytest.approx(own.mu, rel=2e-3)


@pytest.mark.parametrize(("name", "sigma_b"), CASES)
def test_without_width_the_law_is_that_of_the_flow(name, sigma_b):
    own = absorbing_transition(name, sigma_b=sigma_b)
    x = np.array([-5.0, -0.5, 0.0, 0.5, 5.0])
    # F = z (1 + O(s)), with a coefficient of the order of s^2
    np.testing.assert_allclose(own.scaling(x, 1e-5), own.scaling_in_detuning(x), rtol=5e-4)
    np.testing.assert_allclose(own.scaling(x, 1e-7), own.scaling_in_detuning(x), rtol=1e-5)
    # d z/d log l = z [1/beta + x - z^beta/beta] of the flow itself, with x ~ l
    step = 1e-5
    up, down = (own.scaling_in_detuning(x * math.exp(s)) for s in (step, -step))
    z, beta = own.scaling_in_detuning(x), own.map_beta
    slope = z * (1 / beta + x - z**beta / beta)
    np.testing.assert_allclose((up - down) / (2 * step), slope, atol=1e-8)


def test_scaling_in_detuning_does_not_overflow():
    own = absorbing_transition("tanh", sigma_b=0.3)
    ends = own.scaling_in_detuning([-1e4, -800.0, 800.0, 1e300])
    assert ends[0] == 0
    assert 0 <= ends[1] < 1e-300
    np.testing.assert_allclose(ends[2:], [800.0, 1e300])


def test_at_the_boundary_of_its_own_width_a_network_decays_as_a_root():
    own = absorbing_transition("tanh", sigma_b=0.3)
    s = 1e6
    found = float(own.scaling(-own.lam * s, s)) / s
    assert found == pytest.approx(math.sqrt(own.variance / (2 * math.pi * s)), rel=1e-2)


def test_exponents_of_both_classes():
    smooth = absorbing_transition("tanh", sigma_b=0.3).exponents
    kinked = absorbing_transition("hardtanh", sigma_b=0.3).exponents
    assert (smooth.beta, smooth.nu_par, smooth.delta, smooth.nu_n) == (1, 1, 1, 1)
    assert (kinked.beta, kinked.delta) == (2, 2)


# The boundary ------------------------------------------------------------------------------------


def test_boundary_is_where_the_exponent_vanishes():
    own = absorbing_transition("tanh", sigma_b=0.3)
    for n in (16, 64, 1000):
        assert own.lyapunov(own.boundary(n), n) == pytest.approx(0, abs=1e-10)
    # the expansion lacks terms of the order of its own square
    shift = [own.boundary(n) - own.boundary(n, first_order=True) for n in (1000, 2000)]
    assert shift[0] / shift[1] == pytest.approx(4, rel=0.05)
    assert own.boundary(math.inf) == own.sigma_w


def test_boundary_is_undefined_where_an_expansion_is_of_no_use():
    own = absorbing_transition("tanh", sigma_b=0.3)
    assert isinstance(own.boundary(8), Undefined)
    for n in (0, 2.5, -3, math.nan, "4"):
        with pytest.raises(InputError):
            own.boundary(n)


# What does not exist -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sigma_b"), [("tanh", 0.0), ("softplus", 0.3), ("relu", 0.3)])
def test_no_transition_comes_with_a_reason(name, sigma_b):
    own = absorbing_transition(name, sigma_b=sigma_b)
    assert isinstance(own.sigma_w, Undefined)
    assert isinstance(own.boundary(64), Undefined)
    assert isinstance(own.exponents, Undefined)
    assert "undefined" in str(own)
    with pytest.raises(InputError):
        own.scaling_in_size(1.0)
    with pytest.raises(InputError):
        own.network()


def test_scale_free_networks_are_critical_at_any_weights():
    own = absorbing_transition("relu", sigma_b=0.0)
    assert isinstance(own.gamma, Undefined)
    assert isinstance(own.boundary(64), Undefined)
    assert own.lam == pytest.approx(-2)
    assert own.mu == pytest.approx(0, abs=1e-12)


def test_record_goes_to_json_with_reasons():
    record = json.loads(json.dumps(absorbing_transition("relu", sigma_b=0.0).to_dict()))
    assert record["gamma"] is None
    assert "scale-free" in record["reasons"]["gamma"]


def test_bad_input_says_what_was_expected():
    with pytest.raises(InputError, match="exactly one"):
        absorbing_transition("tanh")
    with pytest.raises(InputError, match="exactly one"):
        absorbing_transition("tanh", sigma_b=0.1, q=1.0)
    own = absorbing_transition("tanh", sigma_b=0.3)
    for s in (0.0, -1.0, math.nan, [1.0, math.inf]):
        with pytest.raises(InputError):
            own.scaling_in_size(s)
    with pytest.raises(InputError, match="statistic"):
        own.scaling_in_size(1.0, "median")
    with pytest.raises(InputError, match="closed form"):
        absorbing_transition("power(0.8)", q=1.0).scaling_in_size(1.0)


# The law at finite width -------------------------------------------------------------------------


def test_survivors_carry_their_share_of_the_mean():
    own = absorbing_transition("tanh", sigma_b=0.3)
    found = FiniteSizeLaw(own, (0.5, 2.0))
    np.testing.assert_allclose(found.mean.value, own.scaling_in_size([0.5, 2.0]), rtol=1e-6)
    everyone = found.survivors(1e-12)
    np.testing.assert_allclose(everyone.share.value, 1, atol=1e-9)
    np.testing.assert_allclose(everyone.mean.value, found.mean.value, rtol=1e-5)
    median = found.quantile(0.5).value
    half = found.survivors(median)
    np.testing.assert_allclose(half.share.value, 0.5, atol=1e-6)
    # by a rule on the density itself
    u = np.linspace(np.log(median[1]), 8, 20_001)
    density = found.law.pdf(u, "log_y")[1]
    above = np.trapezoid(np.exp(u) * density, u) / np.trapezoid(density, u)
    assert half.mean.value[1] == pytest.approx(above, rel=1e-4)
    assert np.all(found.log_mean.value < found.mean.value)


def test_shapes_and_numbers_that_are_none_are_told():
    own = absorbing_transition("tanh", sigma_b=0.3)
    with pytest.raises(InputError, match="shapes"):
        own.scaling([1.0, 2.0], [1.0, 2.0, 3.0])
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match="finite"):
            own.scaling_in_detuning([0.0, bad])
    for transition, s in ((own, ("a",)), ("tanh", (1.0,))):
        with pytest.raises(InputError):
            FiniteSizeLaw(transition, s)


def test_survivors_need_a_threshold():
    found = FiniteSizeLaw(absorbing_transition("tanh", sigma_b=0.3), (0.5,))
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="threshold"):
            found.survivors(bad)
    for shape in ("all", [1.0, 2.0]):
        with pytest.raises(InputError):
            found.survivors(shape)


def test_layers_of_a_transition_keep_their_length():
    own = absorbing_transition("tanh", q=0.5)
    assert isinstance(own.layer, MeanField)
    assert own.q == pytest.approx(0.5)
    assert own.layer.chi == pytest.approx(1, abs=1e-10)

"""The response to a dropout field against quadrature, other spectra, densities and paths."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import quad, simpson
from scipy.linalg import eigh_tridiagonal

from depthscale.answers import InputError, Undefined
from depthscale.finite.diffusion.solve import limit_law
from depthscale.theory.criticality import critical_point
from depthscale.theory.diffusion import stochastic_limit
from depthscale.theory.field_relaxation import lowest_rate
from depthscale.theory.field_response import FieldResponse, field_response
from depthscale.theory.laws import Law
from depthscale.theory.meanfield import MeanField
from depthscale.theory.single_drops import visit

RELU = field_response(MeanField("relu", 2**0.5))
TANH = field_response(MeanField("tanh", 1.395584, 0.3))
CUSP = FieldResponse(curvature=0.4, beta=0.75, variance=3.0, lam=-1.0)
BOTH = pytest.mark.parametrize("own", [RELU, TANH], ids=["relu", "tanh"])
ALL = pytest.mark.parametrize("own", [RELU, TANH, CUSP], ids=["relu", "tanh", "cusp"])
POWERS = (-2.5, -1.0, -0.5, -0.25, 0.0, 0.4, 1.0, 1.7)


def theta(own: FieldResponse, power: float) -> float:
    """The detuning of this ``p``."""
    return power * own.variance / 2 - own.lam


def mass(own: FieldResponse, power: float, field: float, upper: float | None = None) -> mp.mpf:
    """``integral exp(power u - a e^(beta u) - b e^-u) du`` by mpmath."""
    a, b = own.scaled_curvature, 2 * field / own.variance

    def density(u: mp.mpf) -> mp.mpf:
        return mp.exp(power * u - a * mp.exp(own.beta * u) - b * mp.exp(-u))

    low, high = math.log(b) - 6, math.log(400 / a) / own.beta
    ends = list(np.linspace(low, high if upper is None else upper, 12))
    return mp.quad(density, ends)


# The scaling function ----------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("power", [-1.3, 0.0])
def test_moments_and_quantiles_are_those_of_quadrature(own, power):
    field, at = 0.02, theta(own, power)
    total = mass(own, power, field)
    for order in (0.5, 1.0, -1.0):
        exact = float(mass(own, power + order, field) / total)
        assert own.moment(order, at, field) == pytest.approx(exact, rel=1e-9)
    for share in (0.3,):
        below = mass(own, power, field, math.log(own.quantile(share, at, field))) / total
        assert float(below) == pytest.approx(share, abs=1e-8)


def test_one_function_of_two_variables_for_a_class():
    """Networks of one beta at the same p and B differ by their units alone."""
    point = critical_point("hardtanh", 0.3)
    other = field_response(MeanField("hardtanh", float(point.sigma_w), 0.3))
    ones = (RELU, other)
    means = [own.mean(theta(own, -0.3), 0.2 * own.field_unit) / own.unit for own in ones]
    assert means[0] == pytest.approx(means[1], rel=1e-9)


@BOTH
def test_large_fields_are_infinite_width(own):
    """E y approaches (H/A)^(1/kappa), and with a detuning the root of the equation of state."""
    field = 1e9
    wide = Law.leading(1 + own.beta, own.curvature, 0.0, field).field_scale
    # variance s^2/(2 r) of log y, r = kappa A^(1/kappa) H^(beta/kappa), and lam against r
    rate = (1 + own.beta) * own.curvature * wide**own.beta
    assert own.mean(0.0, field) == pytest.approx(wide, rel=4 * own.variance / rate)
    assert own.median(0.0, field) == pytest.approx(wide, rel=4 * own.variance / rate)
    assert own.effective_exponent(1.0, 0.0, field) == pytest.approx(1 / (1 + own.beta), abs=1e-3)
    assert own.rate(0.0, field) == pytest.approx(rate, rel=4 * own.variance / rate)


def test_smooth_networks_have_the_mean_of_infinite_width_at_one_detuning():
    at = theta(TANH, -0.5)
    for field in (1e-8, 1e-3, 1.0, 1e4):
        assert TANH.mean(at, field) == pytest.approx(math.sqrt(field / TANH.curvature), rel=1e-11)


@ALL
def test_effective_exponent_is_the_slope(own):
    at, field, step = theta(own, -0.7), 0.05, 1e-4
    for order in (0.5, 1.0, 2.0):
        ends = [own.moment(order, at, field * math.exp(s)) for s in (-step, step)]
        slope = math.log(ends[1] / ends[0]) / (2 * step)
        assert own.effective_exponent(order, at, field) == pytest.approx(slope, abs=1e-7)


# Small fields ------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("statistic", ["mean", "median", 0.25, 2.0])
def test_limits_of_small_fields(own, power, statistic):
    """Amplitudes too: the rest vanishes by a power of B of at least 1/4 (1/2 for quantiles)."""
    at, small = theta(own, power), own.at_small_field(statistic, theta(own, power))
    for field in (1e-6, 1e-8):
        if statistic == "median":
            exact = own.median(at, field)
        else:
            exact = own.moment(1.0 if statistic == "mean" else statistic, at, field)
        predicted, found = small(field) - small.offset, exact - small.offset
        assert found == pytest.approx(predicted, rel=4 * field**0.25, abs=1e-12 * small.offset)


def test_the_exponent_is_twice_lyapunov_over_noise():
    assert RELU.response_exponent("mean") == pytest.approx(0.5, abs=1e-12)
    assert TANH.response_exponent("mean") == pytest.approx(-2 * TANH.lam / TANH.variance)
    assert [TANH.response_exponent(k, theta(TANH, -1.5)) for k in (0.5, 1.0, 1.5, 4.0)] == (
        pytest.approx([0.5, 1.0, 1.5, 1.5])
    )
    assert TANH.response_exponent("median", theta(TANH, -1.5)) == 1.0
    assert TANH.response_exponent("mean", theta(TANH, 0.3)) == pytest.approx(0.3)
    assert RELU.exponents["delta"] == pytest.approx((1.5, 2.0))
    assert TANH.exponents["nu_rho"] == (0.5, 0.0)


@BOTH
def test_quantiles_scale_each_by_its_own_power_at_the_finite_critical_point(own):
    at = -own.lam
    for share in (0.3, 0.5):
        fields = (1e-14, 1e-12)
        ends = [math.log(own.quantile(share, at, field)) for field in fields]
        slope = (ends[1] - ends[0]) / math.log(fields[1] / fields[0])
        assert slope == pytest.approx(1 - share, abs=3e-3)


@ALL
def test_susceptibility_is_the_slope_at_zero_field_where_it_is_finite(own):
    low, high = own.infinite_susceptibility
    assert (own.power(low), own.power(high)) == pytest.approx((-1, 1))
    for at in (low - own.variance, high + own.variance):  # |p| = 3
        field = 1e-6
        slope = (own.mean(at, field) - own.mean(at, 0.0)) / field
        assert own.susceptibility(at) == pytest.approx(slope, rel=1e-3)
    assert own.susceptibility(low - 1.0) == pytest.approx(1.0)  # 1/|theta + kap|
    for at in (low, -own.lam, high):
        assert isinstance(own.susceptibility(at), Undefined)


def test_without_a_field_the_absorbing_state_takes_all():
    assert TANH.mean() == TANH.median() == 0.0
    assert isinstance(TANH.law(), Undefined)
    assert isinstance(TANH.moment(-1.0), Undefined)
    assert isinstance(TANH.effective_exponent(1.0, 0.0, 0.0), Undefined)


# Depth -------------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize(("power", "push"), [(-3.0, 1e-3), (-0.5, 1e-2), (0.0, 1.0), (1.5, 1e-4)])
def test_gap_by_finite_differences(own, power, push):
    """A second grid, of differences: their error is step^2 times fourth derivatives."""
    a, beta = own.scaled_curvature, own.beta
    u = np.linspace(math.log(push / 80), math.log(80 / a) / beta, 12_000)
    step = u[1] - u[0]
    up, down = a * beta * np.exp(beta * u), push * np.exp(-u)
    wall = (power - up + down) ** 2 / 4 - (beta * up + down) / 2
    rungs = np.full(u.size - 1, -1 / step**2)
    found = eigh_tridiagonal(
        wall + 2 / step**2, rungs, eigvals_only=True, select="i", select_range=(0, 1)
    )
    assert lowest_rate(power, a, beta, push) == pytest.approx(found[1], rel=1e-4, abs=1e-5)


@ALL
def test_gap_without_a_field_is_approached(own):
    """By pi^2/L^2 to a continuum, ``L = log 1/B``, and by a power to bound states."""
    for power in (-3.0, -1.0, 0.5, 3.0):
        at = theta(own, power)
        still = own.rate(at, 0.0)
        for field in (1e-20, 1e-60):
            excess = (own.rate(at, field) - still) / (own.variance / 2)
            length = math.log(own.field_unit / field)
            bound = power < -2 or power > 2 * own.beta
            if bound:
                assert -1e-6 < excess < 1e-3
            else:  # the walls move the ends of the box by some units of log y
                assert (math.pi / (length + 8)) ** 2 < excess < (math.pi / (length - 8)) ** 2
    assert isinstance(own.relaxation(-own.lam), Undefined)


@pytest.mark.parametrize("own", [RELU], ids=["relu"])
def test_densities_relax_at_this_rate(own):
    """Deviations of E log y between late times; the next mode is gone by then to 1 %."""
    field = 0.3 * own.field_unit
    relaxation = own.relaxation(0.0, field)
    times = relaxation * np.array([3.0, 4.5])
    law = limit_law(own.equation(0.0, field), math.log(own.unit) + 3, times)
    off = law.mean("log_y").value - own.law(0.0, field).mean
    rate = math.log(off[0] / off[1]) / (times[1] - times[0])
    assert rate == pytest.approx(1 / relaxation, rel=0.02)


# Single drops ------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize(("power", "order"), [(-0.5, 1.0), (-1.5, 1.0), (-0.5, 0.25), (-3.0, 2.0)])
def test_a_visit_by_nested_quadrature(own, power, order):
    a, beta = own.scaled_curvature, own.beta

    def inner(u: float) -> float:
        def f(w: float) -> float:
            return math.exp((order + power) * w - a * math.exp(beta * u) * math.expm1(beta * w))

        end = math.log1p(700 / (a * math.exp(beta * u))) / beta
        points = [end * x for x in (0.25, 0.5, 0.75, 0.9)]
        return math.exp(order * u) * quad(f, 0, end, points=points, limit=200, epsabs=0)[0]

    low = math.log(3.0) - 35 / min(order, -power)
    exact = quad(inner, low, math.log(3.0), limit=200, epsrel=1e-9)[0]
    assert float(visit(order, power, a, beta, 3.0)) == pytest.approx(exact, rel=1e-6)


def test_a_visit_is_the_integral_over_paths():
    """The density of the equation from one jump, integrated over ``t = x^2``; 1 % lies beyond."""
    jump, x = 5.0, np.linspace(0.0, 4.0, 25)
    law = limit_law(RELU.equation(), math.log(jump), x[1:] ** 2)
    means = np.concatenate([[jump], law.mean("y").value])
    total = float(simpson(means * 2 * x, x=x))
    ours = float(visit(1.0, -0.5, RELU.scaled_curvature, 0.5, jump)) * 2 / RELU.variance
    assert ours == pytest.approx(total, rel=0.02)


def test_single_drops_of_relu_are_those_of_infinite_width():
    n, drop = 128, 1e-8
    limit = stochastic_limit(MeanField("relu", 2**0.5, drop=drop)).at_width(n)
    found = RELU.drop_response(limit.drops) / limit.scale
    stated = 4 * drop * math.sqrt(n) / (RELU.curvature * math.sqrt(2 * math.pi))
    assert found == pytest.approx(stated, rel=1e-5)
    assert isinstance(RELU.drop_response(limit.drops, 1.0, 2.0), Undefined)


def test_single_drops_below_minus_one_respond_like_the_drift():
    """Small jumps where the mean is linear: rate * J/|theta + kap| whatever the sizes."""
    at = theta(TANH, -3.0)
    small = float(visit(1.0, -3.0, TANH.scaled_curvature, 1.0, 1e-4)) * 2 / TANH.variance
    assert small / 1e-4 == pytest.approx(TANH.susceptibility(at), rel=1e-3)


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda: field_response("relu"),
        lambda: FieldResponse(0.0, 1.0, 1.0, -1.0),
        lambda: FieldResponse(math.nan, 1.0, 1.0, -1.0),
        lambda: TANH.mean(math.nan, 1.0),
        lambda: TANH.mean(0.0, -1.0),
        lambda: TANH.moment(math.nan, 0.0, 1.0),
        lambda: TANH.moment("one", 0.0, 1.0),
        lambda: TANH.quantile(1.0, 0.0, 1.0),
        lambda: TANH.at_small_field("mode"),
        lambda: TANH.moment_at_small_field(-1.0),
        lambda: TANH.moment_at_small_field(0.0),
        lambda: TANH.quantile_at_small_field(0.0),
        lambda: TANH.at_small_field("mean", 2.0)(0.0),
        lambda: TANH.at_small_field("mean", -TANH.lam)(1e6),
        lambda: TANH.crossover(0),
        lambda: TANH.crossover(2.5),
        lambda: TANH.rate(0.0, math.inf),
        lambda: visit(1.0, 0.5, 1.0, 1.0, 1.0),
        lambda: visit(1.0, -0.5, 1.0, 1.0, [-1.0]),
        lambda: visit(1.0, -0.5, 1.0, 1.0, math.inf),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(InputError):
        call()


def test_nothing_dropped_leaves_nothing():
    assert float(visit(1.0, -0.5, 1.0, 1.0, 0.0)) == 0.0
    assert visit(1.0, -0.5, 1.0, 1.0, [0.0, 1.0])[1] > 0


def test_what_single_drops_leave_takes_numbers_in_range():
    for power, bend, beta in (
        (0.0, 1.0, 1.0),
        (-math.inf, 1.0, 1.0),
        (-1.0, math.inf, 1.0),
        (-1.0, 1.0, 0.0),
        (-1.0, 1.0, math.nan),
        (-1e-9, 1.0, 1.0),
    ):
        with pytest.raises(InputError):
            visit(1.0, power, bend, beta, [1.0])
    with pytest.raises(InputError):
        field_response(MeanField("relu", 2**0.5)).susceptibility("a")

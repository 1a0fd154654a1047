"""Unshaped networks: the entrance, closed moments, stationary laws, readings."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from depthscale.answers import InputError
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.unshaped import Unshaped
from depthscale.theory.diffusion import AlignmentEquation

RELU = {"curvature": 2 * 2**0.5 / (3 * np.pi), "beta": 0.5, "variance": 8.0, "lam": -2.0}
TANH = {"curvature": 0.13686, "beta": 1.0, "variance": 3.9036, "lam": -1.6098}
CUSP = {"curvature": 0.4, "beta": 0.75, "variance": 2.0, "lam": -0.3, "detuning": 0.7}


def equation(constants: dict, **more: float) -> Unshaped:
    return Unshaped(AlignmentEquation(**{**constants, **more}))


@pytest.mark.parametrize("constants", [RELU, TANH, CUSP], ids=["relu", "tanh", "cusp"])
@pytest.mark.parametrize("start", [math.inf, 2.0])
def test_inverse_moments_are_the_closed_ones(constants, start):
    how = equation(constants)
    law = density(how, start, [0.01, 0.25, 0.5])
    exact = how.equation.inverse_moments(law.times, math.exp(-how.equation.beta * start))
    assert law.mean("x").value == pytest.approx(exact.mean, rel=1e-6)
    assert law.sd("x").value ** 2 == pytest.approx(exact.variance, rel=1e-6)


def test_the_relu_limit():
    """Mean and deviation of x as (A/4)(e^(2t) - 1) gives them; log q to the digits known."""
    law = density(equation(RELU), math.inf, [0.25, 0.5])
    assert law.mean("x").value == pytest.approx(RELU["curvature"] / 4 * np.expm1(2 * law.times))
    assert law.sd("x").value == pytest.approx([0.022633, 0.097565], abs=1e-6)
    assert law.mean().value == pytest.approx([3.4562, 3.1112], abs=1e-4)
    assert law.sd().value == pytest.approx([0.8428, 1.2264], abs=1e-4)


@pytest.mark.parametrize("times", [[1e-10], [1e-6, 1e-2]], ids=["one", "decades"])
def test_early_laws(times):
    how = equation(RELU)
    law = density(how, math.inf, times)
    exact = how.equation.inverse_moments(law.times)
    assert law.mean("x").value == pytest.approx(exact.mean, rel=1e-8)
    assert law.sd("x").value == pytest.approx(np.sqrt(exact.variance), rel=1e-6)


@pytest.mark.parametrize(
    ("constants", "field"), [(RELU, 30.0), (TANH, 0.0), (CUSP, 3.0)], ids=["relu", "tanh", "cusp"]
)
def test_the_series_of_the_entrance_err_by_its_next_order(constants, field):
    """``t^3`` without field, at least ``t^(2 + 1/beta)`` with one: halving t takes off 1/8."""
    how = equation(constants, field=field)
    times = np.array([0.01, 0.02, 0.04])
    law = density(how, math.inf, times)
    series = [how.entry(t) for t in times]
    mean = np.abs(law.mean("log_y").value - [e.mean for e in series])
    variance = np.abs(law.sd("log_y").value ** 2 - [e.variance for e in series])
    for off in (mean, variance):
        assert np.all(off[:-1] <= off[1:] / 6 + 1e-7)
        assert off[0] < 1e-4 * series[0].variance


def test_a_far_start_is_an_entrance():
    how = equation(RELU)
    entered = density(how, math.inf, [0.5], tolerance=1e-5).quantiles().value
    far = density(how, 30.0, [0.5], tolerance=1e-5).quantiles().value  # x = 3e-7 later
    # The tolerance of the distribution over its density at 5 % and 95 %, 0.1/1.23.
    assert far == pytest.approx(entered, abs=1.2e-4)


def test_a_smooth_network_settles_at_a_generalised_inverse_gaussian():
    how = equation(TANH, field=10.0)
    law = density(how, math.inf, [40.0], tolerance=1e-5)
    two = 2 / TANH["variance"]
    a, b = two * TANH["curvature"], two * 10.0
    settled = stats.geninvgauss(two * TANH["lam"], 2 * math.sqrt(a * b), scale=math.sqrt(b / a))
    assert law.mean("y").value[0] == pytest.approx(settled.mean(), rel=1e-5)
    assert law.sd("y").value[0] == pytest.approx(settled.std(), rel=1e-5)
    levels = [0.01, 0.25, 0.5, 0.75, 0.99]
    assert law.quantiles(levels, "y").value[0] == pytest.approx(settled.ppf(levels), rel=1e-5)


@pytest.mark.parametrize("field", [0.5, 1e5])
def test_a_kinked_network_settles_at_its_stationary_law(field):
    """``exp(p u - a e^(beta u) - b e^-u)`` by adaptive quadrature."""
    law = density(equation(RELU, field=field), 3.0, [60.0], tolerance=1e-5)
    two = 2 / RELU["variance"]
    power, a, b = two * RELU["lam"], two * RELU["curvature"] / 0.5, two * field

    def log_density(u: float) -> float:
        return power * u - a * math.exp(u / 2) - b * math.exp(-u)

    top = max(log_density(u) for u in np.linspace(-10, 20, 3001))

    def moment(k: int) -> float:
        f = lambda u: u**k * math.exp(log_density(u) - top)  # noqa: E731
        return integrate.quad(f, -12, 22, epsabs=1e-13, epsrel=1e-11, limit=400)[0]

    mean = moment(1) / moment(0)
    sd = math.sqrt(moment(2) / moment(0) - mean**2)
    assert law.mean("log_y").value[0] == pytest.approx(mean, abs=1e-5 * sd)
    assert law.sd("log_y").value[0] == pytest.approx(sd, rel=1e-5)


def test_a_mean_that_lies_in_the_tails_says_so():
    """At t = 60 ``E x`` is made by 17 deviations: the grid has not got it, and the error tells."""
    law = density(equation(RELU), math.inf, [60.0], tolerance=1e-4)
    value, error = law.mean("x")
    assert error[0] > 0.2 * value[0]
    assert law.mean().error[0] < 1e-2


def test_readings_are_what_they_say():
    how = Unshaped(AlignmentEquation(**RELU), scale=100.0**2)
    u, t = np.linspace(-3, 3, 7), 0.3
    y = np.exp(u)
    expected = {
        "log_q": u + 2 * math.log(t),
        "q": t**2 * y,
        "log_y": u,
        "y": y,
        "x": 1 / np.sqrt(y),
        "log_eps": np.log(y / 1e4),
        "eps": y / 1e4,
        "rho": 1 - y / 1e4,
    }
    assert list(how.readings) == list(expected)
    for name, reading in how.readings.items():
        assert reading.of(u, t) == pytest.approx(expected[name], rel=1e-12)
        assert reading.inverse(reading.of(u, t), t) == pytest.approx(u, abs=1e-9)
        slope = (reading.of(u + 1e-4, t) - reading.of(u - 1e-4, t)) / 2e-4
        assert reading.slope(u, t) == pytest.approx(slope, rel=1e-5)
        assert np.all((slope > 0) == reading.increasing)
    assert how.readings["q"].inverse(np.array([-1.0, 0.0]), t).tolist() == [-math.inf, -math.inf]
    assert how.readings["x"].inverse(np.array([-1.0]), t).tolist() == [math.inf]


def test_what_is_refused():
    with pytest.raises(InputError, match=r"no start at infinity.*give a finite start"):
        density(equation(RELU, curvature=0.0), math.inf, [1.0])
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="expected n"):
            Unshaped(AlignmentEquation(**RELU), scale)

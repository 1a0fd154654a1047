"""One layer of two slopes against fifty digits, exact laws of chi squares, and brute force."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import digamma, polygamma
from scipy.stats import binom
from scipy.stats import t as student

from depthscale.answers import InputError
from depthscale.theory.finite_width import finite_width
from depthscale.theory.meanfield import MeanField
from depthscale.theory.piecewise import PiecewiseLinear

SLOPES = [(1, 0), (1, -1), (1, 1), (1, 0.57), (1, 2), (0, 1), (1, 0.983), (-1, 0.2), (1, 1 + 1e-7)]
PLACES = [-40.0, -18.0, -9.0, -3.0, -1.0, -0.1, 0.0, 0.1, 0.5, 1.0, 3.0, 9.0, 14.0, 18.0, 40.0]


def arc_cosine(theta) -> tuple:
    """``J11, J22, J31`` of two ReLUs (Cho and Saul, 2009), for ``E g^2 = 1``."""
    s, c, rest = mpmath.sin(theta), mpmath.cos(theta), mpmath.pi - theta
    return tuple(
        value / (2 * mpmath.pi)
        for value in (
            s + rest * c,
            3 * s * c + rest * (1 + 2 * c**2),
            s * (2 + c**2) + 3 * rest * c,
        )
    )


def precise(plus, minus, z) -> dict:
    """Moments from the arc-cosine kernels, with digits to spare for their cancellation."""
    with mpmath.workdps(150):
        p, m = mpmath.mpf(plus), mpmath.mpf(minus)
        theta = 2 * mpmath.atan(mpmath.exp(-mpmath.mpf(z)))
        same, other = arc_cosine(theta), arc_cosine(mpmath.pi - theta)
        n = (p**2 + m**2) / 2
        f = ((p**2 + m**2) * same[0] - 2 * p * m * other[0]) / n
        k22 = ((p**4 + m**4) * same[1] + 2 * p**2 * m**2 * other[1]) / n**2
        k31 = ((p**4 + m**4) * same[2] - (p**3 * m + p * m**3) * other[2]) / n**2
        k40 = 3 * (p**4 + m**4) / (2 * n**2)
        drift = f / 4 * (3 * k40 + k22) - k31
        variance = k22 * (1 + f**2 / 2) + f**2 * k40 / 2 - 2 * f * k31
        found = {"f": f, "eps": 1 - f, "coeps": 1 + f, "k22": k22, "k31": k31, "k40": k40}
        found["z0"] = mpmath.atanh(f)
        found["v1"] = variance / (1 - f**2) ** 2
        found["m1"] = drift / (1 - f**2) + f * found["v1"]
        return {name: float(mpmath.re(value)) for name, value in found.items()}


@pytest.mark.parametrize("slopes", SLOPES)
def test_moments_keep_their_digits_at_any_correlation(slopes):
    phi = PiecewiseLinear(*slopes)
    units, step = phi.moments(PLACES), phi.step(PLACES)
    found = {**units._asdict(), "z0": step.z0, "m1": step.m1, "v1": step.v1}
    for k, z in enumerate(PLACES):
        for name, value in precise(*slopes, z).items():
            # eps and coeps to rounding of themselves; the rest is of order 1 or passes through 0
            floor = 0.0 if name in ("eps", "coeps") else 1e-14
            assert found[name][k] == pytest.approx(value, rel=1e-14, abs=floor), (name, z)


def test_first_order_of_the_correlation_agrees_with_that_of_its_coordinate():
    """``Var z = Var rho/(1 - f^2)^2`` and Ito's term, where nothing cancels."""
    phi, z = PiecewiseLinear(1, 0.3), np.linspace(-1.5, 1.5, 7)
    units, step = phi.moments(z), phi.step(z)
    slope = 1 / (units.eps * units.coeps)
    np.testing.assert_allclose(step.v1, units.variance * slope**2, rtol=1e-12)
    np.testing.assert_allclose(
        step.m1, units.drift * slope + units.f * units.variance * slope**2, atol=1e-13
    )


@pytest.mark.parametrize("n", [64, 256, 1024])
def test_identity_has_the_law_of_a_sample_correlation(n):
    """At ``rho = 0``, ``sinh z' sqrt(n - 1)`` is Student's t with n - 1 degrees of freedom."""

    def moment(k: int) -> float:
        law = student(n - 1)
        return quad(lambda x: np.arcsinh(x / np.sqrt(n - 1)) ** k * law.pdf(x), -60, 60, limit=400)[
            0
        ]

    step = PiecewiseLinear(1, 1).step(0.0)
    assert step.mean(n) == pytest.approx(0, abs=1e-15)
    # the next order is some 10/n^3
    assert float(step.variance(n)) == pytest.approx(moment(2), abs=20 / n**3)
    assert float(step.v1 / n + step.v2 / n**2) == pytest.approx(moment(2), abs=20 / n**3)


def near_alignment(n: int) -> tuple[float, float]:
    """Mean and variance of ``z' - z``: ``log(chi2_N/chi2_(N-1))/2``, N of n units above 0."""
    count = np.arange(3, n + 1)
    weight = binom.pmf(count, n, 0.5)
    weight /= weight.sum()
    mean = (digamma(count / 2) - digamma((count - 1) / 2)) / 2
    variance = (polygamma(1, count / 2) + polygamma(1, (count - 1) / 2)) / 4
    total = float(weight @ mean)
    return total, float(weight @ (variance + mean**2)) - total**2


def test_relu_near_alignment_is_a_ratio_of_chi_squares_to_third_order():
    step = PiecewiseLinear(1, 0).step(20.0)
    plain, resummed = [], []
    for n in (64, 128, 256):
        mean, variance = near_alignment(n)
        plain.append((mean - step.m1 / n - step.m2 / n**2, variance - step.v1 / n - step.v2 / n**2))
        resummed.append((mean - (step.mean(n) - step.z0), variance - step.variance(n)))
    # what is left falls as 1/n^3, by 8 at each doubling but for a further 1/n
    ratios = np.array(plain[:-1]) / np.array(plain[1:])
    assert np.all((ratios > 7.5) & (ratios < 9.5))
    assert np.all(np.abs(resummed) < np.abs(plain))


def next_z(phi: PiecewiseLinear, z: float, n: int, nets: int, seed: int) -> np.ndarray:
    """Brute force: ``artanh`` of the cosine of n activations, from the definition."""
    rng = np.random.default_rng(seed)
    rho = np.tanh(z)
    found = []
    for _ in range(nets // 20_000):
        g, h = rng.standard_normal((2, 20_000, n))
        h = rho * g + np.sqrt(1 - rho**2) * h
        a, b = (phi.plus * np.maximum(x, 0) + phi.minus * np.minimum(x, 0) for x in (g, h))
        cos = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
        found.append(np.arctanh(cos))
    return np.concatenate(found)


@pytest.mark.parametrize(("slopes", "z"), [((1, 0), 0.0), ((1, -1), 0.7), ((1, 0.57), 1.0)])
def test_three_moments_of_a_layer_by_brute_force(slopes, z):
    """Five standard errors: six comparisons fail by chance less than once in 10^5 runs."""
    n, nets = 64, 200_000
    phi = PiecewiseLinear(*slopes)
    drawn, step = next_z(phi, z, n, nets, 1), phi.step(z)
    sd = drawn.std()
    # orders beyond 1/n^2: 30/n^3, and 30/n of the skewness itself over n
    assert drawn.mean() == pytest.approx(float(step.mean(n)), abs=5 * sd / nets**0.5 + 30 / n**3)
    assert drawn.var() / step.variance(n) == pytest.approx(1, abs=5 * (2.3 / nets) ** 0.5 + 0.004)
    skewness = ((drawn - drawn.mean()) ** 3).mean() / sd**3
    assert skewness == pytest.approx(float(step.skewness(n)), abs=5 * (8 / nets) ** 0.5 + 0.012)


@pytest.mark.parametrize("slopes", [(1, 0), (1, 0.57), (1, -1)])
@pytest.mark.parametrize("z", [-0.5, 0.3, 2.0, 10.0])
def test_first_order_is_that_of_the_general_expansion(slopes, z):
    """``finite_width`` at a next layer so wide that its own scatter vanishes."""
    n = 10**6
    layer = MeanField(f"shaped_relu({slopes[1]}, {slopes[0]})", 1.0)
    eps = 2 / (1 + np.exp(2 * z))
    record = finite_width([layer], [n, 10**15], eps=eps, start="drawn")
    step = PiecewiseLinear(*slopes).step(z)
    after, slope = record.eps[1], -1 / (2 - record.eps[1])  # dz/d log eps
    variance = record.log_eps_var[1] * n
    assert variance * slope**2 == pytest.approx(float(step.v1), rel=1e-6)
    drift = (record.log_eps_mean[1] - np.log(after)) * n
    bend = -after / (2 - after) ** 2
    assert drift * slope + bend * variance / 2 == pytest.approx(float(step.m1), abs=1e-6)


def test_slopes_may_be_scaled_swapped_and_read_off():
    z = np.linspace(-2, 4, 9)
    one, other = PiecewiseLinear(1, 0.3).step(z), PiecewiseLinear(-0.6, -2).step(z)
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    assert PiecewiseLinear.of("leaky_relu(0.2)") == PiecewiseLinear(1, 0.2)
    assert PiecewiseLinear.of("abs") == PiecewiseLinear(1, -1)
    assert PiecewiseLinear(1, 0).noise == pytest.approx(2)
    far = PiecewiseLinear(1, 0).step([300.0, 700.0])
    np.testing.assert_allclose(far.z0, [300, 700], rtol=1e-15)
    np.testing.assert_allclose(far.v1, 2, rtol=1e-14)


@pytest.mark.parametrize("slopes", [(0, 0), (np.nan, 1), (np.inf, 1), ("1", 1)])
def test_slopes_that_carry_nothing_are_refused(slopes):
    with pytest.raises(InputError):
        PiecewiseLinear(*slopes)


def test_other_activations_are_refused():
    with pytest.raises(InputError, match="two slopes"):
        PiecewiseLinear.of("tanh")

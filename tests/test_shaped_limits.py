"""Shaped and residual ReLU networks: the equation of two inputs, exact laws, exact networks."""

import math

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import digamma, polygamma

from depthscale import Ensemble, InputError, Pair
from depthscale.finite.diffusion.covariance import sample_covariance
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.residual import ResidualReLU, equivalence, residual_of
from depthscale.finite.diffusion.shaped import LinearPair, ShapedReLU
from depthscale.theory.meanfield import MeanField

SHAPED = ShapedReLU(0.0, -1.0)


def last_misalignment(ensemble: Ensemble, eps: float, nets: int, seed: int, start: str = "pinned"):
    result = ensemble.forward(Pair(eps=eps, start=start), nets=nets, seed=seed, keep=True)
    return result.values("eps")[..., -1].ravel()


# The equation ------------------------------------------------------------------------------------


def exact_parts(z: float, bending: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """``nu/(1 - rho^2)`` and ``tanh(z)/2`` in 600 digits, straight from their definitions."""
    with mpmath.workdps(600):
        rho = mpmath.tanh(mpmath.mpf(z))
        theta = mpmath.acos(rho)
        nu = bending / (2 * mpmath.pi) * (mpmath.sqrt(1 - rho**2) - rho * theta)
        return nu / (1 - rho**2), rho / 2


@pytest.mark.parametrize("bending", [1.0, 9.0])
def test_the_drift_has_14_digits_everywhere(bending):
    grid = np.concatenate([np.linspace(-330, 330, 25), np.linspace(-3, 3, 41), [1e-9, 0.61, 0.62]])
    found = ShapedReLU(math.sqrt(bending), 0.0).drift(grid)
    for z, value in zip(grid, found, strict=True):
        parts = exact_parts(float(z), bending)
        allowed = 1e-14 * sum(abs(p) for p in parts)
        assert abs(mpmath.mpf(value) - sum(parts)) <= allowed, z


def test_the_drift_of_the_correlation_is_that_of_a_wide_layer():
    # n (rho' - rho) of a layer of slopes 1 +- c/sqrt n is nu + O(1/n) where the linear part is 1
    shaped, n = ShapedReLU(1.5, -1.5), 1e6
    eps = np.array([1e-4, 0.3, 1.0, 1.7, 2.0])
    moved = n * (eps - shaped.layer(n).gap_map(eps))
    assert moved == pytest.approx(shaped.nu(1 - eps), rel=2e-5, abs=1e-9)


def test_only_the_difference_of_the_slopes_matters():
    z = np.linspace(-5, 5, 11)
    assert ShapedReLU(3.0, 1.0).drift(z) == pytest.approx(ShapedReLU(-1.0, 1.0).drift(z))


def test_the_drift_has_an_end_on_both_sides():
    """Far out z drifts at 1/2, in the end at ``t = 1000`` or behind a misalignment of 1e-300."""
    for shaped in (SHAPED, ShapedReLU(1.0, 1.0), ShapedReLU(1e6, 0.0)):
        assert shaped.drift(np.array([331.0, 400.0, 1e4, math.inf])).tolist() == [0.5] * 4
        assert np.all(np.isfinite(shaped.drift(np.array([-331.0, -1e4, -math.inf]))))
    assert ShapedReLU(1.0, 1.0).drift(np.array([-1e4])).tolist() == [-0.5]


@pytest.mark.parametrize("bad", [(math.nan, 0), (0, math.inf), ("1", 0), (1e7, 0)])
def test_slopes_have_to_be_numbers(bad):
    with pytest.raises(InputError, match=r"c_(plus|minus)"):
        ShapedReLU(*bad)


def test_both_slopes_may_not_be_zero():
    with pytest.raises(InputError, match="both slopes"):
        ShapedReLU(-2.0, -2.0).layer(4)


# Linear networks: exact --------------------------------------------------------------------------

Z = np.linspace(-14, 15, 2901)
STEP = Z[1] - Z[0]


@pytest.mark.parametrize(("z0", "time"), [(0.3, 0.5), (-1.2, 0.05), (2.0, 1.5)])
def test_the_linear_law_has_its_moments(z0, time):
    # sums over an even grid of a smooth density are exact to rounding
    law = LinearPair(z0, time)
    p = law.pdf(Z) * STEP
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert p @ np.sinh(Z) == pytest.approx(law.mean_sinh, abs=1e-9)
    if time < 1:
        assert p @ np.sinh(Z) ** 2 == pytest.approx(law.mean_square_sinh, rel=1e-8)
    # the angle between the two is a martingale
    assert p @ np.arctan(np.exp(-Z)) == pytest.approx(math.atan(math.exp(-z0)), abs=1e-12)


def test_the_linear_law_is_a_semigroup():
    first = LinearPair(0.4, 0.3).pdf(Z[::5]) * STEP * 5
    ends = np.array([-1.0, 0.2, 1.5])
    then = np.array([LinearPair(float(z), 0.2).pdf(ends) for z in Z[::5]])
    expected = LinearPair(0.4, 0.5).pdf(ends)
    assert first @ then == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("bad", [("a", 1), (0, "b"), (math.nan, 1), (200, 1), (0, 0), (0, 1e3)])
def test_linear_laws_are_those_of_numbers(bad):
    with pytest.raises(InputError, match=r"z0|time"):
        LinearPair(*bad)


def test_the_linear_law_ends_in_zeros():
    law = LinearPair(100.0, 150.0)
    assert law.pdf([-1e4, 1e4, -300.0]).tolist() == [0.0] * 3
    # far from 0 it is a Brownian motion with drift 1/2
    z = 100 + 75 + 12 * np.array([-2.0, 0.0, 2.0])
    expected = np.exp(-((z - 175) ** 2) / 300) / math.sqrt(300 * math.pi)
    assert law.pdf(z) == pytest.approx(expected, rel=1e-9)


def test_the_density_solver_meets_the_linear_law():
    law, exact = density(ShapedReLU(1.0, 1.0), 0.3, [0.5]), LinearPair(0.3, 0.5)
    points = [-1.0, 0.0, 0.7, 2.0]
    below = [quad(lambda z: float(exact.pdf(z)), -9, end, epsabs=1e-11)[0] for end in points]
    assert law.cdf(points, "z").value[0] == pytest.approx(below, abs=1e-6)


def test_linear_pairs_align_or_oppose():
    linear = ShapedReLU(2.0, 2.0)
    assert linear.aligns(0.0) == 0.5
    law = LinearPair(math.atanh(0.6), 100.0)
    z = np.linspace(-200, 200, 8001)
    aligned = law.pdf(z) @ np.where(z == 0, 0.5, z > 0) * (z[1] - z[0])
    # what is not yet decided falls as e^(-t/8)
    assert aligned == pytest.approx(linear.aligns(0.6), abs=math.exp(-100 / 8))
    assert SHAPED.aligns(-0.9) == 1.0


def test_the_late_law_of_the_misalignment():
    law = density(SHAPED, 25.0, [2.0, 4.0])
    mean, variance = law.mean("log_eps").value, law.sd("log_eps").value ** 2
    assert mean == pytest.approx(math.log(2) - 50 + SHAPED.late.mean * law.times, rel=1e-7)
    assert variance == pytest.approx(SHAPED.late.variance * law.times, rel=1e-5)


# Opposite inputs ---------------------------------------------------------------------------------


def test_opposite_inputs_set_out():
    assert SHAPED.start(rho=-1.0) == -math.inf
    assert SHAPED.start(eps=0.7) == pytest.approx(math.atanh(0.3))
    time, paths = 0.01, 20_000
    law = sample_covariance(SHAPED, [[1, -1], [-1, 1]], [time], paths, seed=4, steps=16)
    z, entry = law.correlation(0, 1), SHAPED.entry(time)
    # 4 standard errors and the orders t^(3/2) left out
    assert z.mean("z").value[0] == pytest.approx(entry.mean, abs=4 * z.mean("z").error[0] + 2e-3)
    assert z.sd("z").value[0] == pytest.approx(math.sqrt(entry.variance), rel=0.03)


def test_opposite_inputs_of_a_linear_network_stay():
    with pytest.raises(InputError, match="one line"):
        ShapedReLU(1.0, 1.0).start(rho=-1.0)
    with pytest.raises(InputError, match="entrance"):
        ShapedReLU(1.0, 1.0).entry(0.1)
    with pytest.raises(InputError, match="time"):
        SHAPED.entry(0.0)
    with pytest.raises(InputError, match="correlations"):
        SHAPED.nu(1.5)
    for bad in ({"rho": "a"}, {"eps": "a"}, {"rho": [0.1, 0.2]}, {"rho": 1.5}, {"eps": 0.0}, {}):
        with pytest.raises(InputError, match=r"rho|eps"):
            SHAPED.start(**bad)


# Infinite width ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rho0", [-1.0, 0.0, 0.3])
@pytest.mark.parametrize("bending", [1.0, 2.0])
def test_the_deterministic_limit_takes_its_time(rho0, bending):
    # t = int d rho/nu, whatever the solver
    shaped = ShapedReLU(0.0, math.sqrt(bending))
    times = np.array([0.2, 1.0, 8.0])
    rho = shaped.mean_field(times, rho0=rho0).rho
    needed = [quad(lambda r: 1 / float(shaped.nu(r)), rho0, end, epsrel=1e-11)[0] for end in rho]
    assert needed == pytest.approx(times, rel=1e-8)


def test_near_alignment_the_deterministic_limit_keeps_its_digits():
    # eps' = -k eps^(3/2), k = Dc^2 sqrt2/(3 pi): eps^(-1/2) grows by k t/2
    found = SHAPED.mean_field([3.0], eps0=1e-16).eps[0]
    k = math.sqrt(2) / (3 * math.pi)
    assert found == pytest.approx((1e8 + k * 3 / 2) ** -2, rel=1e-10)
    assert SHAPED.mean_field([0.0, 1.0], rho0=1.0).eps.tolist() == [0.0, 0.0]
    assert SHAPED.mean_field([0.0], eps0=0.4).eps.tolist() == [0.4]


def followed(layer: MeanField, depth: int, eps: float) -> float:
    state = np.array(eps)
    for _ in range(depth):
        state = layer.pair_map(1.0, 1.0, state)[2]
    return float(state)


@pytest.mark.parametrize(
    ("network", "order"),
    [
        (ShapedReLU(0.0, -1.0), 0.5),
        (ShapedReLU(0.5, -0.5), 1.0),
        (ResidualReLU(1.0, 1.0, 0.0), 1.0),
        (ResidualReLU(2.0, 0.9, -0.1), 1.0),
    ],
)
def test_networks_of_depth_d_approach_it(network, order):
    limit = network.mean_field([1.0], rho0=0.3).eps[0]
    off = [abs(followed(network.layer(d), d, 0.7) - limit) for d in (64, 256)]
    assert math.log(off[0] / off[1], 4) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("bad", [{}, {"rho0": 0.1, "eps0": 0.9}, {"rho0": 1.2}, {"eps0": -0.1}])
def test_starts_of_the_deterministic_limit_are_checked(bad):
    with pytest.raises(InputError, match="start"):
        SHAPED.mean_field([1.0], **bad)


def test_times_are_checked():
    for times in ([1.0, 0.5], [-1.0], [math.nan], []):
        with pytest.raises(InputError, match="times"):
            SHAPED.mean_field(times, rho0=0.1)


def test_the_scatter_of_shallow_shaped_networks_is_that_of_small_noise():
    # sum over the noise of every moment times what it does to the end, by finite differences
    end, parts = 1.0, 200
    clock = (np.arange(parts) + 0.5) * end / parts
    rho = SHAPED.mean_field(clock, rho0=0.3).rho
    lever = [
        np.diff([SHAPED.mean_field([end - s], rho0=r + h).rho[0] for h in (-1e-4, 1e-4)])[0] / 2e-4
        for s, r in zip(clock, rho, strict=True)
    ]
    variance = np.sum((np.array(lever) * (1 - rho**2)) ** 2) * end / parts
    found = SHAPED.fluctuation([end], rho0=0.3)[0]
    assert found == pytest.approx(math.sqrt(variance), rel=1e-5)


# Residual networks -------------------------------------------------------------------------------


def test_what_equals_what_and_back():
    residual = ResidualReLU(2.0, 0.9, -0.2)
    shaped = residual.equivalent_shaped()
    assert shaped.bending == pytest.approx(2.0 * 1.1**2)
    back = residual_of(shaped, 2.0)
    assert (back.slope_plus, back.slope_minus) == pytest.approx((0.9, -0.2))
    assert residual_of(shaped, 0.5).bending == pytest.approx(shaped.bending)
    told = str(equivalence(residual))
    assert "Dc^2 = 2.42" in told
    assert f"exp({residual.growth:g} t)" in told
    assert equivalence(SHAPED).residual == ResidualReLU(1.0, 0.0, -1.0)


def test_lengths_of_residual_networks_grow():
    residual = ResidualReLU(2.0, 0.9, -0.2)
    layer, q, depth = residual.layer(4000), 1.0, 4000
    for _ in range(depth):
        q = float(layer.length_map(q))
    assert math.log(q) == pytest.approx(residual.growth, rel=1e-3)


def test_nothing_else_is_equivalent():
    with pytest.raises(InputError, match="two slopes that meet at 0"):
        equivalence("tanh")
    with pytest.raises(InputError, match="identity"):
        residual_of(ShapedReLU(0.0, 0.0))
    for bad in ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, math.nan, 0.0)):
        with pytest.raises(InputError, match="expected"):
            ResidualReLU(*bad)


def test_linear_residual_networks_scatter_as_products_of_matrices_do():
    # a layer 1 + s W, s^2 = sigma^2/d, adds (1 - rho^2)^2 (2 s^2 + s^4)/(1 + s^2)^2/n to Var rho
    depth, rho, s2 = 8, 0.3, 1.5 / 8
    found = ResidualReLU(1.5, 1.0, 1.0).fluctuation(depth, rho)
    expected = (1 - rho**2) * math.sqrt(depth * (2 * s2 + s2**2)) / (1 + s2)
    assert float(found.value) == pytest.approx(expected, abs=4 * float(found.error))


@pytest.mark.parametrize("start", ["pinned", "drawn"])
def test_residual_networks_scatter_as_predicted(start):
    # sqrt n SD against exact networks; 1/n corrections are 1 % at n = 64
    residual, depth, width, nets = ResidualReLU(1.0, 1.0, 0.0), 8, 64, 8000
    networks = Ensemble.of([residual.layer(depth)] * depth, [width] * (depth + 1))
    eps = last_misalignment(networks, 0.7, nets, 5, start)
    apart = (eps - eps.mean()) ** 2
    sd, error = math.sqrt(apart.mean()), apart.std() / math.sqrt(nets) / (2 * eps.std())
    predicted = residual.fluctuation(depth, 0.3, start=start)
    allowed = 4 * math.hypot(error * math.sqrt(width), float(predicted.error))
    assert math.sqrt(width) * sd == pytest.approx(float(predicted.value), abs=allowed + 0.012)


def test_fluctuations_are_checked():
    residual = ResidualReLU(1.0)
    for bad in (
        {"rho0": 1.0},
        {"start": "free"},
        {"layers": -1},
        {"paths": 0},
        {"paths": "many"},
        {"seed": -1},
        {"seed": "a"},
        {"layers": math.inf},
    ):
        with pytest.raises(InputError, match="expected"):
            residual.fluctuation(8, **{"rho0": 0.1, **bad})
    assert float(residual.fluctuation(8, 0.1, layers=0, paths=1000).value) < 1e-12


# Exact networks at real width --------------------------------------------------------------------


def test_networks_of_width_200_follow_the_stochastic_limit():
    # the law's own samples pass at 1.63/sqrt(nets) with probability 99 %; 40 000 such networks are
    # within 0.0053 of it, of which their noise explains all
    width, layers, nets = 200, 50, 2500
    networks = Ensemble.of([SHAPED.layer(width)] * layers, [width] * (layers + 1))
    rho = 1 - last_misalignment(networks, 0.7, nets, seed=11)
    law = density(SHAPED, SHAPED.start(rho=0.3), [layers / width], tolerance=1e-5)
    assert law.distance(rho, 0) <= 1.63 / math.sqrt(nets) + 0.005


def test_log_lengths_are_normal():
    # one input of a linear network: log |h|^2 is a sum of log chi^2_n, mean -1/n, variance 2/n
    normal = SHAPED.log_length(0.5)
    n, layers = 4000, 2000
    mean = layers * (digamma(n / 2) + math.log(2 / n))
    assert (mean, layers * polygamma(1, n / 2)) == pytest.approx(normal, rel=1e-3)

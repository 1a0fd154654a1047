"""The chain against exact networks, exact laws, and itself by other means.

Kolmogorov-Smirnov distances are held against ``1.95/sqrt(N)``, which N draws of the right law pass
with probability 1/1000: some 45 such comparisons, with fixed seeds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import digamma, polygamma
from scipy.stats import binom, norm
from scipy.stats import t as student

from depthscale.answers import InputError
from depthscale.finite.chain.density import chain_density
from depthscale.finite.chain.paths import chain_paths, measure
from depthscale.finite.chain.plan import Route
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.theory.activation import activation
from depthscale.theory.meanfield import MeanField


def exact_z(layer: MeanField, widths: list[int], pair: Pair, nets: int, seed: int) -> np.ndarray:
    """``artanh`` of the measured cosine of exact networks, ``[net, layer]``."""
    ensemble = Ensemble.of([layer] * (len(widths) - 1), widths)
    eps = ensemble.forward(pair, nets, seed, keep=True, progress=False).values("eps")[:, 0]
    return (np.log(2 - eps) - np.log(eps)) / 2


def chance(*sizes: int) -> float:
    """The distance that is passed once in a thousand times, of one sample or of two."""
    return 1.95 * np.sqrt(sum(1 / size for size in sizes))


# Against exact networks --------------------------------------------------------------------------

CASES = [
    ("relu", 64, 32, 1.0, "drawn", 4000),
    ("leaky_relu(0.57)", 64, 32, 1.0, "drawn", 4000),
    ("shaped_relu(0.983, 1)", 64, 24, 0.7, "drawn", 4000),
    ("leaky_relu(0.57)", 128, 16, 1.0, "drawn", 5000),
    ("relu", 256, 16, 1.0, "drawn", 3000),
    ("relu", 64, 4, 1.0, "pinned", 10000),
    ("leaky_relu(0.2)", 32, 4, 1.9, "drawn", 10000),
    ("abs", 32, 8, 0.5, "drawn", 4000),
]


@pytest.mark.parametrize(("name", "n", "depth", "eps", "start", "nets"), CASES)
def test_law_is_that_of_exact_networks(name, n, depth, eps, start, nets):
    layer, widths = MeanField(activation(name), 1.0), [n] * (depth + 1)
    z = exact_z(layer, widths, Pair(eps, start=start), nets, seed=11)
    layers = [1, depth // 2, depth]
    law = chain_density(Route.of(name, widths, eps, start), layers)
    distances = [law.distance(z[:, layer], k, "z") for k, layer in enumerate(layers)]
    # what the chain leaves out is below .002 from n = 32 on
    assert max(distances) < chance(nets) + 0.002, distances


def test_each_layer_may_have_a_width_of_its_own():
    widths = [48, 20, 200, 64, 30]
    z = exact_z(
        MeanField(activation("leaky_relu(0.5)"), 1.0), widths, Pair(0.6, start="drawn"), 8000, 3
    )
    law = chain_density(Route.of("leaky_relu(0.5)", widths, 0.6, "drawn"))
    assert max(law.distance(z[:, k], k, "z") for k in range(5)) < chance(8000) + 0.002


def test_inputs_are_followed_by_a_linear_hop():
    networks = Ensemble("relu", 1.0, width=50, depth=3)
    eps = networks.forward(Pair(0.8), 8000, 5, keep=True, progress=False).values("eps")[:, 0]
    law = chain_density(Route.of("relu", [50] * 4, 0.8, "inputs"))
    np.testing.assert_allclose(law.mean("eps").value[0], 0.8, rtol=1e-12)
    assert max(law.distance(eps[:, k], k, "eps") for k in (1, 2, 3)) < chance(8000) + 0.002


def test_mean_of_the_inverse_root_of_the_misalignment():
    """``E[1/(n sqrt(eps))]`` of ReLU, whose heavy tail the order 1/n^2 decides."""
    n, layers = 64, [16, 32]
    widths = [n] * 33
    z = exact_z(MeanField(activation("relu"), 1.0), widths, Pair(1.0, start="drawn"), 5000, 2)
    x = np.sqrt((1 + np.exp(2 * z[:, layers])) / 2) / n
    law = chain_density(Route.of("relu", widths, 1.0, "drawn"), layers)
    found = law.expectation(lambda u, t: np.sqrt((1 + np.exp(2 * u)) / 2) / n)
    np.testing.assert_array_less(found.error, 1e-4)
    standard = x.std(axis=0) / np.sqrt(len(x))
    assert np.all(np.abs(found.value - x.mean(axis=0)) < 3.5 * standard)


# Against closed laws and tables ------------------------------------------------------------------


def test_first_measured_cosine_is_a_sample_correlation():
    """``r sqrt((n-1)/(1-r^2))`` is Student's t at rho = 0; the gamma kernel has its variance."""
    n = 64
    law = chain_density(Route.of("relu", [n, n], 1.0, "drawn"), [0])
    r = np.linspace(-0.4, 0.4, 81)
    expected = student(n - 1).cdf(r * np.sqrt((n - 1) / (1 - r**2)))
    # kurtosis 2/n of z', which a normal law lacks: He_3 phi k/24 is .0007 at most
    assert np.max(np.abs(law.cdf(r, "rho").value[0] - expected)) < 1e-3
    drawn = np.tanh(measure(np.zeros(40_000), n, (1, 2)))
    expected = np.sort(student(n - 1).cdf(drawn * np.sqrt((n - 1) / (1 - drawn**2))))
    assert np.max(np.abs(expected - np.arange(40_000) / 40_000)) < chance(40_000)


def test_deep_relu_from_near_alignment_is_a_sum_of_chi_squares():
    n, depth = 128, 200
    count = np.arange(3, n + 1)
    weight = binom.pmf(count, n, 0.5)
    mean = (digamma(count / 2) - digamma((count - 1) / 2)) / 2
    variance = (polygamma(1, count / 2) + polygamma(1, (count - 1) / 2)) / 4 + mean**2
    mean, variance = weight @ mean, weight @ variance - (weight @ mean) ** 2
    law = chain_density(
        Route.of("relu", [n] * (depth + 1), 1e-30, "drawn"), [depth], measured=False
    )
    start = (np.log(2) - np.log(1e-30)) / 2
    # orders left out: 5/n^3 and 10/n^3 a layer behind the geometric tail
    assert law.mean("z").value[0] - start == pytest.approx(depth * mean, abs=5 * depth / n**3)
    assert law.sd("z").value[0] ** 2 == pytest.approx(depth * variance, abs=15 * depth / n**3)
    quantile = law.quantiles([0.05, 0.95], "z").value[0]
    normal = start + depth * mean + norm.ppf([0.05, 0.95]) * np.sqrt(depth * variance)
    np.testing.assert_allclose(quantile, normal, atol=0.003)


@pytest.mark.parametrize(
    ("n", "table"),
    [(64, (0.519, 0.967, 0.999)), (256, (0.723, 0.922, 0.984)), (1024, (0.820, 0.906, 0.955))],
)
def test_band_of_a_slope_that_infinite_width_tunes_to_nine_tenths(n, table):
    """TAT's slope for 100 layers and .9 (2203.08120); the table is of an independent chain."""
    law = chain_density(Route.of("leaky_relu(0.57044)", [n] * 101, 1.0, "drawn"), [100])
    np.testing.assert_allclose(law.quantiles([0.05, 0.5, 0.95]).value[0], table, atol=0.004)


def test_infinite_width_is_the_mean_field_map():
    law = chain_density(Route.of("leaky_relu(0.57044)", [10**7] * 101, 1.0, "drawn"), [100])
    layer, eps = MeanField(activation("leaky_relu(0.57044)"), 1.0), 1.0
    for _ in range(100):
        eps = float(layer.gap_map(eps))
    assert law.mean("eps").value[0] == pytest.approx(eps, rel=2e-5)


# Against itself ----------------------------------------------------------------------------------


def test_grid_converges_and_its_error_is_honest():
    route = Route.of("relu", [64] * 21, 1.0, "drawn")
    best = chain_density(route, nodes=12).quantiles(reading="z")
    for nodes, bound in ((2.5, 2e-4), (5.0, 2e-5)):
        found = chain_density(route, nodes=nodes).quantiles(reading="z")
        off = np.abs(found.value - best.value)
        assert off.max() < bound
        assert np.all(off < 4 * found.error + 1e-5)


@pytest.mark.parametrize("measured", [True, False])
def test_paths_follow_the_density(measured):
    route = Route.of("leaky_relu(0.1)", [40] * 25, 1.0, "drawn")
    law = chain_density(route, [1, 6, 24], measured=measured)
    paths = chain_paths(route, [1, 6, 24], paths=20_000, seed=4, measured=measured)
    distances = [law.distance(paths.u[k], k, "z") for k in range(3)]
    # the fourth cumulants of the two kernels differ, by 1/n of a normal's
    assert max(distances) < chance(20_000) + 0.002


def test_paths_are_those_of_their_seed():
    route = Route.of("relu", [30] * 6, 0.5, "pinned")
    many = chain_paths(route, paths=20_000, seed=1).u
    np.testing.assert_array_equal(many[:, :7], chain_paths(route, paths=7, seed=1).u)
    np.testing.assert_array_equal(many[[5]], chain_paths(route, [5], paths=20_000, seed=1).u)
    assert not np.array_equal(many[5, :7], chain_paths(route, [5], paths=7, seed=2).u[0])


@pytest.mark.parametrize(
    ("name", "eps", "last"),
    [("relu", 0.0, 0.0), ("identity", 2.0, 2.0), ("abs", 2.0, 0.0), ("identity", 0.0, 0.0)],
)
def test_lines_that_coincide_stay_certain(name, eps, last):
    route = Route.of(name, [16] * 4, eps, "drawn")
    for law in (chain_density(route), chain_paths(route, paths=3)):
        np.testing.assert_array_equal(law.quantiles([0.1, 0.9], "eps").value[0], eps)
        np.testing.assert_array_equal(law.quantiles([0.1, 0.9], "eps").value[-1], last)


def test_opposite_inputs_of_relu_share_no_unit():
    """``phi(g) phi(-g) = 0``: the next covariance is exactly diagonal, then it is a start at 0."""
    opposite = chain_density(Route.of("relu", [64] * 6, 2.0, "drawn"), [5], measured=False)
    orthogonal = chain_density(Route.of("relu", [64] * 5, 1.0, "drawn"), [4], measured=False)
    np.testing.assert_allclose(
        opposite.quantiles().value, orthogonal.quantiles().value, rtol=0, atol=1e-5
    )


def test_second_order_is_worth_its_place():
    """Near n = 16 the normal chain of first order is off by more than the second order's rest."""
    nets, widths = 6000, [24] * 17
    layer, pair = MeanField(activation("leaky_relu(0.1)"), 1.0), Pair(1.0, start="drawn")
    z = exact_z(layer, widths, pair, nets, 8)
    route = Route.of("leaky_relu(0.1)", widths, 1.0, "drawn")
    second = chain_density(route, [16]).distance(z[:, 16], 0, "z")
    first = chain_density(replace(route, order=1), [16]).distance(z[:, 16], 0, "z")
    assert second < chance(nets) + 0.003
    assert first > second


# Ends of the range -------------------------------------------------------------------------------


def test_very_different_widths_share_a_grid_of_bounded_size():
    """A layer of 1e6 units between layers of 16 hands its correlation on as an infinite one does.

    Its own scatter is 1e-3 of theirs: the law is that of layers of 16 with the map of ReLU between.
    """
    wide = chain_density(Route.of("relu", [16, 10**6, 16], 1.0, "drawn"), [2])
    wider = chain_density(Route.of("relu", [16, 10**4, 16], 1.0, "drawn"), [2])
    apart = np.abs(wide.quantiles(reading="z").value - wider.quantiles(reading="z").value)
    # the mean moves by 1/n = 1e-4, errors of both grids are below 1e-3
    assert apart.max() < 2e-3


def test_a_width_that_scatters_nothing_is_refused():
    with pytest.raises(InputError, match="infinite width"):
        chain_density(Route.of("relu", [10**12] * 5, 1.0, "drawn"))


def test_points_of_a_law_count_from_where_they_are():
    """A certain ``rho = 1`` is ``eps <= 0`` with probability 1, and at no distance from itself."""
    route = Route.of("relu", [16] * 4, 0.0, "drawn")
    for law in (chain_density(route), chain_paths(route, paths=3)):
        np.testing.assert_array_equal(law.cdf([0.0, 1.0], "eps").value[-1], [1, 1])
        np.testing.assert_array_equal(law.cdf([0.5, 1.0], "rho").value[-1], [0, 1])
        for name, place in (("eps", 0.0), ("rho", 1.0), ("z", np.inf)):
            assert law.distance([place] * 5, -1, name) == 0
        assert law.distance([0.5], -1, "eps") == 1
        assert law.sd("eps").value[-1] == 0
    with pytest.raises(InputError, match="samples"):
        law.distance([], 0)
    with pytest.raises(InputError, match="levels"):
        law.quantiles([])
    assert chain_density(route).sd("z").value[-1] == 0


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        {"widths": [64]},
        {"widths": 64},
        {"widths": [64, 1]},
        {"widths": [64, 2.5]},
        {"eps0": -0.1},
        {"eps0": np.nan},
        {"start": "elsewhere"},
        {"phi": "tanh"},
    ],
)
def test_networks_that_are_none_are_refused(broken):
    with pytest.raises(InputError):
        Route.of(**({"phi": "relu", "widths": [64] * 3, "eps0": 1.0} | broken))


def test_layers_and_numbers_out_of_range_are_refused():
    route = Route.of("relu", [64] * 3, 1.0)
    for layers in ([], [3], [-1], [0.5], ["a"], [np.nan], 3):
        with pytest.raises(InputError):
            chain_density(route, layers)
    for nodes in (0, -1, 1e5, "a"):
        with pytest.raises(InputError, match="nodes"):
            chain_density(route, nodes=nodes)
    for wrong in ({"paths": 0}, {"paths": "a"}, {"paths": np.nan}, {"paths": 5, "seed": -1}):
        with pytest.raises(InputError):
            chain_paths(route, **wrong)

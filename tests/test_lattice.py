"""Lattices against ordinary convolutions with explicit weights, closed forms and mean-field theory.

Kolmogorov-Smirnov distances of two samples of N are held against ``1.95 sqrt(2/N)``, which samples
of one law pass with probability 999/1000: eight such comparisons, with fixed seeds.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from depthscale.answers import InputError
from depthscale.finite.columns import Workspace
from depthscale.finite.draws import Draws
from depthscale.finite.lattice import lattice as lattices
from depthscale.finite.lattice import run as runs
from depthscale.finite.lattice.grid import Grid
from depthscale.finite.lattice.lattice import Lattice
from depthscale.finite.lattice.layers import Grouped
from depthscale.finite.lattice.observe import NAMES, observe
from depthscale.finite.lattice.result import LatticeRun
from depthscale.finite.lattice.steps import NEAR, Steps
from depthscale.theory.activation import activation
from depthscale.theory.meanfield import MeanField

CPU = torch.device("cpu")


def convolution(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Circular convolution of ``[channel, *shape]`` by shifting it, weights ``[i, j, *offset]``."""
    kernel, axes = weights.shape[2], tuple(range(1, x.ndim))
    out = np.zeros((len(weights), *x.shape[1:]))
    for offset in itertools.product(range(kernel), repeat=x.ndim - 1):
        moved = np.roll(x, [(kernel - 1) // 2 - r for r in offset], axis=axes)
        out += np.tensordot(weights[(slice(None), slice(None), *offset)], moved, 1)
    return out


def pearson_gap(u: np.ndarray, v: np.ndarray) -> float:
    return float(1 - np.corrcoef(u.ravel(), v.ravel())[0, 1])


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 4 realisations, where few are asked for: a block is carried out whole."""
    monkeypatch.setitem(lattices.MOST, "cpu", 4)


# One layer with the same weights -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "kernel", "block"),
    [
        ((12,), 3, (12,)),
        ((12,), 4, (12,)),
        ((12,), 3, (4,)),
        ((3,), 3, (3,)),
        ((1,), 1, (1,)),
        ((6, 8), 3, (6, 8)),
        ((6, 8), 2, (2, 2)),
        ((6, 8), 5, (3, 4)),
    ],
)
def test_layer_is_the_convolution_with_its_weights(shape, kernel, block):
    grid, c, nets, space = Grid(shape, kernel), 3, 2, Workspace(CPU)
    generator = torch.Generator().manual_seed(0)
    padded = torch.randn(nets, c, 2, *grid.padded, dtype=torch.float64, generator=generator)
    out = torch.empty(nets, c, 2, grid.sites, dtype=torch.float64)
    layer = Grouped(grid, c, block, 1.3, 0.4)
    draws = Draws(np.random.SeedSequence(1), CPU)
    for call in (*grid.wrapping(padded), *layer.program(padded, out, draws, space)):
        call()
    counts = [n // m for n, m in zip(shape, block, strict=True)]
    rows = c * grid.reach
    drawn = space.take("weights", torch.float64, nets * int(np.prod(counts)), c, rows + 1)
    drawn = drawn.view(nets, *counts, c, rows + 1).numpy()
    for net, vector in itertools.product(range(nets), range(2)):
        x = grid.inner(padded)[net, :, vector].numpy()
        found = out[net, :, vector].view(c, *shape).numpy()
        for group in np.ndindex(*counts):
            weights = drawn[(net, *group)]
            expected = convolution(x, weights[:, :-1].reshape(c, c, *[kernel] * len(shape)))
            if vector == 0:
                expected += weights[:, -1].reshape(c, *[1] * len(shape))
            place = tuple(slice(k * m, (k + 1) * m) for k, m in zip(group, block, strict=True))
            np.testing.assert_allclose(
                found[(slice(None), *place)], expected[(slice(None), *place)], atol=1e-12
            )


def test_odd_kernels_are_centred_as_those_of_torch():
    x, weights = np.random.default_rng(0).normal(size=(2, 7)), np.ones((1, 2, 3))
    layer = torch.nn.Conv1d(2, 1, 3, padding="same", padding_mode="circular", bias=False)
    with torch.no_grad():
        layer.weight.fill_(1)
        expected = layer(torch.from_numpy(x).float()[None])[0].numpy()
    np.testing.assert_allclose(convolution(x, weights), expected, atol=1e-6)


# The activation of two inputs --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma_b", [0.0, 0.3])
def test_differences_of_tanh_keep_their_own_digits(dtype, sigma_b):
    """Against ``sinh(d)/(cosh(h) cosh(h + d))`` in long double: both rules, d over 30 decades.

    In the series ``1 - tanh tanh`` carries the rounding of two values near 1, and where it gives
    way to a subtraction, at a difference ``NEAR``, that errs by a rounding over ``NEAR`` of this.
    """
    generator = np.random.default_rng(0)
    h = generator.uniform(-3.5, 3.5, 20_000)
    d = 10 ** generator.uniform(-30, 0.3, h.size) * generator.choice([-1, 1], h.size)
    steps = Steps(activation("tanh"), 1.0, sigma_b, Workspace(CPU))
    assert steps.logistic == (sigma_b > 0)
    h, d = (torch.from_numpy(x).to(dtype) * steps.stretch for x in (h, d))
    a, e = torch.empty_like(h), torch.empty_like(h)
    for call in steps.program(h, d, a, e):
        call()
    h, d = (x.double().numpy().astype(np.longdouble) / steps.stretch for x in (h, d))
    expected = np.sinh(d) / (np.cosh(h) * np.cosh(h + d))
    bound = (4 + 1 / NEAR[dtype]) * torch.finfo(dtype).eps / (1 - np.tanh(h) * np.tanh(h + d))
    found = steps.gain * e.double().numpy()
    assert np.all(abs(found - expected) < bound * abs(expected))
    np.testing.assert_allclose(steps.gain * a.double().numpy(), np.tanh(h).astype(float), atol=1e-6)


@pytest.mark.parametrize("name", ["sin", "erf", "relu", "leaky_relu(0.3)", "hardtanh", "gelu"])
def test_small_differences_follow_the_slope(name):
    phi, generator = activation(name), np.random.default_rng(1)
    h = torch.from_numpy(generator.uniform(-2, 2, 4000)).float()
    d = torch.from_numpy(10 ** generator.uniform(-30, -4, 4000)).float()
    a, e = torch.empty_like(h), torch.empty_like(h)
    for call in Steps(phi, 1.0, 0.3, Workspace(CPU)).program(h, d, a, e):
        call()
    middle = (h.double() + d.double() / 2).numpy()
    expected = phi.slope(middle) * d.double().numpy()
    met = [abs(middle - place) < 1e-3 for place in phi.breaks]
    clear = ~np.any(met, axis=0) if met else np.ones(h.shape, bool)
    # the middle is rounded by 1e-7, and phi'' is of order 1
    assert np.all(abs(e.double().numpy() - expected)[clear] < 1e-6 * abs(d.double().numpy()[clear]))


def test_breaks_between_two_inputs_are_seen():
    h, d = torch.tensor([-1e-3, 1e-3, -1.0, 2.0]), torch.tensor([2e-3, -3e-3, 0.5, 1e-12])
    a, e = torch.empty_like(h), torch.empty_like(h)
    for call in Steps(activation("relu"), 1.0, 0.0, Workspace(CPU)).program(h, d, a, e):
        call()
    np.testing.assert_allclose(e.numpy(), [1e-3, -1e-3, 0.0, 1e-12], rtol=1e-4)


# Whole networks in law ---------------------------------------------------------------------------


def explicit_gap(lattice: Lattice, depth: int, generator: np.random.Generator) -> float:
    """rho of one network with explicit weights at every position, in plain numpy."""
    grid, c = lattice.grid, lattice.channels
    x = np.sqrt(lattice.q) * generator.normal(size=(2, c, grid.sites))
    index = np.arange(grid.sites).reshape(grid.shape)
    axes, left = tuple(range(index.ndim)), (grid.kernel - 1) // 2
    offsets = itertools.product(range(grid.kernel), repeat=index.ndim)
    seen = np.stack([np.roll(index, [left - r for r in o], axes).ravel() for o in offsets])
    for _ in range(depth):
        x = lattice.activation(x)
        if lattice.drop:
            x = x * (generator.random(x.shape) >= lattice.drop) / (1 - lattice.drop)
        weights, biases = explicit_weights(lattice, generator)
        x = np.einsum("ijrs,vjrs->vis", weights, x[:, :, seen]) / np.sqrt(c * grid.reach)
        x = lattice.sigma_w * x + lattice.sigma_b * biases
    return pearson_gap(*x)


def explicit_weights(lattice: Lattice, generator: np.random.Generator):
    """Standard normal ``[i, j, offset, site]`` and ``[i, site]``, shared as they are to be."""
    shape, c, reach = lattice.grid.shape, lattice.channels, lattice.grid.reach

    def drawn(*block: int) -> tuple[np.ndarray, np.ndarray]:
        counts = [n // m for n, m in zip(shape, block, strict=True)]
        group = np.arange(np.prod(counts)).reshape(counts)
        for axis, m in enumerate(block):
            group = group.repeat(m, axis)
        found = generator.normal(size=(c, c * reach + 1, np.prod(counts)))[..., group.ravel()]
        return found[:, :-1].reshape(c, c, reach, -1), found[:, -1]

    one = (1,) * len(shape)
    if isinstance(lattice.sharing, float):
        own, common = np.sqrt(lattice.sharing), np.sqrt(1 - lattice.sharing)
        return [common * x + own * y for x, y in zip(drawn(*shape), drawn(*one), strict=True)]
    blocks = {"shared": shape, "local": one}
    return drawn(*blocks.get(lattice.sharing, (lattice.sharing,) * len(shape)))


CASES = {
    "shared": {},
    "local": {"sharing": "local"},
    "groups": {"sharing": 4},
    "mixed": {"sharing": 0.4},
    "torus": {"size": (4, 4)},
    "local torus": {"size": (4, 4), "sharing": "local"},
    "dropout": {"drop": 0.2},
    "relu": {"activation": "relu", "sigma_w": 1.3, "kernel": 2},
}


@pytest.mark.parametrize("name", CASES)
def test_networks_have_the_law_of_explicit_ones(name):
    settings = {"activation": "tanh", "sigma_w": 2.0, "sigma_b": 0.3, "channels": 2, "size": 8}
    lattice, nets = Lattice(**(settings | CASES[name])), 250
    generator = np.random.default_rng(5)
    expected = [explicit_gap(lattice, 4, generator) for _ in range(nets)]
    found = lattice.run(4, nets, seed=7, record=[4]).of("rho")[:, 0]
    assert ks_2samp(found, expected).statistic < 1.95 * np.sqrt(2 / nets)


@pytest.mark.usefixtures("small_blocks")
def test_wide_lattices_follow_mean_field_theory():
    """Deviations fall as 1/c: 4000 channels of 4 sites leave 1e-3; what is drawn, 1/sqrt(16000)."""
    layer = MeanField("tanh", 1.5, 0.3)
    lattice = Lattice("tanh", 1.5, 0.3, channels=4000, size=4, sharing="local")
    found = lattice.run(6, 12, 0.3, seed=2, record=range(7))
    eps, q = 0.3, layer.q
    for mean, sem in zip(found.mean(), found.sem(), strict=True):
        assert mean == pytest.approx(eps, abs=4 * sem + 2e-3 * eps)
        eps = float(layer.gap_map(eps))
    assert q == pytest.approx(lattice.q)


# Precision ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("sharing", ["shared", "local", 16, 0.5])
@pytest.mark.parametrize("name", ["tanh", "erf", "relu"])
def test_rho_is_followed_far_below_the_precision_of_values(name, sharing):
    """An infinitesimal difference grows alike wherever it starts: from 1e-16, 1e-60 and 1e-300."""
    lattice = Lattice(name, 1.5, 0.3, size=32, sharing=sharing)
    found = [
        lattice.run(60, 3, eps, seed=4, record=[0, 1, 9, 30, 60], precision="double").of("log_rho")
        for eps in (1e-16, 1e-60, 1e-300)
    ]
    growth = [values - values[:, :1] for values in found]
    # the second order of the first is as large as its difference, 1e-8 times e^(12/2) at most
    np.testing.assert_allclose(growth[0], growth[1], atol=1e-4)
    np.testing.assert_allclose(growth[1], growth[2], atol=1e-9)
    # single precision: what 1e-7 of a value grows to in 9 layers, by less than 1.5 each
    single = lattice.run(9, 3, 1e-60, seed=4, record=[0, 1, 9]).of("log_rho")
    np.testing.assert_allclose(single, found[1][:, :3], atol=1e-4)


@pytest.mark.usefixtures("small_blocks")
def test_single_precision_follows_double():
    for start in ("independent", "site", 1e-3):
        lattice = Lattice("tanh", 1.78, 0.3, size=64)
        both = [
            lattice.run(12, 4, start, seed=3, record=[1, 4, 12], precision=kind).of("log_rho")
            for kind in ("single", "double")
        ]
        # an error of 1e-7 grows by less than a factor 1.78 a layer
        np.testing.assert_allclose(*both, atol=2e-4)


@pytest.mark.usefixtures("small_blocks")
def test_equal_inputs_stay_equal():
    x = np.random.default_rng(0).normal(size=(3, 16))
    for sharing, drop in (("shared", 0.0), ("local", 0.0), (0.5, 0.3), (4, 0.3)):
        lattice = Lattice("tanh", 3.0, 0.3, 3, 3, 16, sharing, drop, masks="shared")
        found = lattice.run(20, 3, (x, x))
        assert not found.of("rho").any()
        assert not found.of("active").any()
        assert np.all(found.of("log_rho") == -np.inf)
        assert not found.survival().any()


@pytest.mark.usefixtures("small_blocks")
def test_dropout_keeps_equal_inputs_apart():
    x = np.random.default_rng(0).normal(size=(5, 16))
    found = Lattice("tanh", 1.2, 0.3, size=16, drop=0.1).run(5, 3, (x, x), record=[0, 1, 5])
    assert not found.of("rho")[:, 0].any()
    assert np.all(found.of("rho")[:, 1:] > 1e-4)


# What is measured --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9,), (3, 5)])
def test_observables_are_what_they_say(shape):
    grid, generator = Grid(shape, 3), np.random.default_rng(3)
    h, d = generator.normal(size=(2, 4, *shape)) + 1.5, 0.3 * generator.normal(size=(2, 4, *shape))
    d[..., 0] *= 1e-3
    state = torch.from_numpy(np.stack([h, d], 2).reshape(2, 4, 2, -1))
    shift = np.array([0, 3])
    state[1, :, 1] *= 8
    found = dict(zip(NAMES, observe(2 * state, shift, 2.0, grid, 1e-3).T, strict=True))
    for net in range(2):
        first, second = h[net], h[net] + d[net]
        z = (d[net] ** 2).sum(0) / (first**2 + second**2).sum(0)
        steps = sum(((first - np.roll(first, -1, 1 + k)) ** 2).mean() for k in range(len(shape)))
        active = z.ravel() > 1e-3
        expected = {
            "rho": pearson_gap(first, second),
            "log_rho": np.log(pearson_gap(first, second)),
            "local": z.mean(),
            "log_local": np.log(z).mean(),
            "active": active.mean(),
            "log_difference": np.log((d[net] ** 2).mean()),
            "inhomogeneity": steps / (2 * len(shape) * first.var()),
            "spread": grid.distances[active].mean(),
        }
        for name, value in expected.items():
            assert found[name][net] == pytest.approx(value, rel=1e-9), name


@pytest.mark.usefixtures("small_blocks")
def test_opposite_inputs_have_rho_two():
    x = np.random.default_rng(0).normal(size=(5, 16))
    found = Lattice("tanh", 1.5, 0.0, size=16).run(3, 2, (x, -x), precision="double")
    np.testing.assert_allclose(found.of("rho"), 2.0, rtol=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_one_site_spreads_within_its_cone():
    lattice = Lattice("tanh", 2.5, 0.3, size=41, threshold=1e-9)
    found = lattice.run(15, 40, "site", record=range(16), seed=1)
    t = np.arange(16)
    assert np.all(found.active_sites() <= 2 * t + 1 + 1e-9)
    assert np.all(np.nan_to_num(found.of("spread")) <= t**2 + 1e-9)
    assert np.all(found.active_sites()[:, 0] == 1)
    assert np.all(found.of("spread")[:, 0] == 0)
    assert found.survival()[-1] > 0.5
    torus = Lattice("tanh", 2.5, 0.3, size=(9, 9), threshold=1e-9)
    found = torus.run(3, 5, "site", record=range(4), seed=1)
    assert np.all(found.active_sites() <= (2 * np.arange(4) + 1) ** 2 + 1e-9)


@pytest.mark.usefixtures("small_blocks")
def test_result_tells_means_errors_and_tables():
    found = Lattice("tanh", 1.8, 0.3, size=16).run(8, 10, seed=1, record=[0, 2, 8])
    rho = found.of("rho")
    np.testing.assert_allclose(found.mean(), rho.mean(0))
    np.testing.assert_allclose(found.sem(), rho.std(0, ddof=1) / np.sqrt(10))
    np.testing.assert_allclose(found.blocks(5).mean(0), rho.mean(0))
    frame = found.table()
    assert list(frame.columns) == ["depth", "sigma_w", "size", "realisation", "rho"]
    assert len(frame) == 20
    chosen = frame[(frame.realisation == 3) & (frame.depth == 2)]
    assert chosen.rho.item() == rho[3, 1]
    dataset = found.to_xarray()
    np.testing.assert_array_equal(dataset.rho.sel(depth=8), rho[:, 2])
    assert dataset.attrs["sigma_w"] == 1.8
    assert "rho" in str(found)
    with pytest.raises(InputError, match="observable"):
        found.of("rhoo")
    with pytest.raises(InputError, match="ratio"):
        found.effective_exponent(ratio=1)
    with pytest.raises(InputError, match="first"):
        found.lyapunov(8)
    with pytest.raises(InputError, match="groups"):
        found.blocks(11)
    alone = Lattice("tanh", 1.8, 0.3, size=16).run(2, 1)
    assert np.isnan(alone.sem()).all()


def test_effective_exponents_of_a_power_law():
    """``3 l^-.4`` times a factor of each realisation has no error, times one of each depth has."""
    depths, generator = np.array([0, 1, 2, 4, 8, 16]), np.random.default_rng(0)
    law = 3.0 * np.array([1, *depths[1:]]) ** -0.4
    values = np.zeros((4000, 6, len(NAMES)))
    values[..., 0] = law * generator.exponential(size=(4000, 1))
    found = LatticeRun(values, depths, 8, {"sigma_w": 1.0, "size": (8,)}).effective_exponent()
    np.testing.assert_allclose(found.depth, np.sqrt([2, 8, 32, 128]))
    np.testing.assert_allclose(found.value, 0.4)
    assert found.error.max() < 1e-12
    values[..., 0] = law * generator.exponential(size=(4000, 6))
    found = LatticeRun(values, depths, 8, {"sigma_w": 1.0, "size": (8,)}).effective_exponent()
    np.testing.assert_allclose(found.error, np.sqrt(2 / 4000) / np.log(2), rtol=0.05)
    assert np.all(abs(found.value - 0.4) < 4 * found.error)


def test_lyapunov_exponent_of_a_linear_network_is_exact():
    """One channel, one site: ``ln |d|`` grows by the mean of ln |sigma_w N(0, 1)|, -.635 at 1."""
    found = Lattice("identity", 1.0, 0.0, 1, 1, 1).run(200, 128, 1e-100, seed=1, record=[0, 200])
    value, error = found.lyapunov()
    exact = -(np.euler_gamma + np.log(2)) / 2
    assert abs(value - exact) < 4 * error
    assert error == pytest.approx(np.pi / np.sqrt(8) / np.sqrt(200 * 128), rel=0.25)


# Runs --------------------------------------------------------------------------------------------

SMALL = Lattice("tanh", 1.8, 0.3, channels=4, size=1024)  # blocks of 20


def test_realisations_do_not_depend_on_their_number_or_on_processes():
    many = SMALL.run(6, 50, seed=3, record=[6]).values
    np.testing.assert_array_equal(many[:7], SMALL.run(6, 7, seed=3, record=[6]).values)
    np.testing.assert_array_equal(many, SMALL.run(6, 50, seed=3, record=[6], workers=2).values)
    assert not np.array_equal(many, SMALL.run(6, 50, seed=4, record=[6]).values)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    full = SMALL.run(5, 55, seed=1).values
    block, calls = runs.Job.block, []

    def stopped(job, number, space):
        calls.append(number)
        if number == 2:
            raise KeyboardInterrupt
        return block(job, number, space)

    monkeypatch.setattr(runs.Job, "block", stopped)
    with pytest.raises(KeyboardInterrupt):
        SMALL.run(5, 55, seed=1, checkpoint=path)
    monkeypatch.setattr(runs.Job, "block", block)
    resumed = SMALL.run(5, 55, seed=1, checkpoint=path).values
    np.testing.assert_array_equal(resumed, full)
    np.testing.assert_array_equal(SMALL.run(5, 30, seed=1, checkpoint=path).values, full[:30])
    assert calls == [0, 1, 2]
    for other in (
        lambda: SMALL.run(5, 55, seed=2, checkpoint=path),
        lambda: SMALL.run(6, 55, seed=1, checkpoint=path),
        lambda: SMALL.run(5, 55, 0.1, seed=1, checkpoint=path),
        lambda: Lattice("tanh", 1.9, 0.3, channels=4, size=1024).run(5, 55, 1, checkpoint=path),
    ):
        with pytest.raises(InputError, match="another lattice"):
            other()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="no saved run"):
        SMALL.run(5, 55, seed=1, checkpoint=path)


def test_inputs_of_every_realisation_are_its_own():
    generator = np.random.default_rng(0)
    lattice = Lattice("tanh", 1.5, 0.3, channels=4, size=1024)
    first, second = generator.normal(size=(2, 25, 4, 1024))
    found = lattice.run(1, 25, (first, second), record=[0]).of("rho")[:, 0]
    expected = [pearson_gap(u, v) for u, v in zip(first, second, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(InputError, match="realisations"):
        lattice.run(1, 24, (first, second))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("channels", [1, 3])
def test_the_smallest_lattices_run(channels):
    for size, kernel in ((1, 1), (2, 2), (3, 1), ((1, 1), 1), ((2, 3), 2)):
        for sharing in ("shared", "local", 0.5):
            found = Lattice("tanh", 1.5, 0.3, channels, kernel, size, sharing).run(3, 4)
            assert np.isfinite(found.of("local")).all()


def test_networks_that_leave_the_range_of_floats_are_not_counted_as_dead():
    lattice = Lattice(lambda x: x**3, 3.0, size=8)
    found = lattice.run(60, 4, "site", q0=10.0, record=[0, 60])
    for name in ("rho", "local", "active"):
        assert np.isnan(found.of(name)[:, -1]).all()
    assert np.isnan(found.survival()[-1])
    assert found.survival()[0] == 1
    assert found.to_dict()["active_sites"][-1] is None


def test_layers_to_record_may_be_a_number_of_numpy():
    lattice = Lattice("tanh", 1.5, size=8)
    assert np.array_equal(lattice.run(20, 1, record=np.array(3)).depths, [0, 1, 4, 20])


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        {"sigma_w": 0},
        {"sigma_w": np.nan},
        {"sigma_w": "much"},
        {"sigma_b": -1},
        {"sigma_b": np.inf},
        {"channels": 0},
        {"channels": 2.5},
        {"kernel": 0},
        {"kernel": 33},
        {"size": 0},
        {"size": ()},
        {"size": (4, 4, 4)},
        {"size": "big"},
        {"sharing": "some"},
        {"sharing": True},
        {"sharing": 5},
        {"sharing": -0.5},
        {"sharing": 1.5},
        {"sharing": np.nan},
        {"sharing": np.inf},
        {"drop": 1},
        {"drop": np.nan},
        {"masks": "odd"},
        {"threshold": 0},
        {"activation": "tanhh"},
    ],
)
def test_lattices_that_are_none_are_refused(broken):
    with pytest.raises(InputError):
        Lattice(**({"activation": "tanh", "sigma_w": 1.5, "size": 32} | broken))


@pytest.mark.parametrize(
    "broken",
    [
        {"depth": 0},
        {"depth": 2.5},
        {"realisations": 0},
        {"start": "elsewhere"},
        {"start": 3.0},
        {"start": np.nan},
        {"start": None},
        {"start": (np.zeros((5, 32)), np.zeros((5, 31)))},
        {"start": (np.full((5, 32), np.nan), np.zeros((5, 32)))},
        {"start": (["a"], ["b"])},
        {"start": (np.zeros((2, 2, 5, 32)), np.ones((2, 2, 5, 32)))},
        {"checkpoint": "no such folder/run.npz"},
        {"checkpoint": 3},
        {"seed": -1},
        {"record": []},
        {"record": [9]},
        {"record": 0},
        {"record": "all"},
        {"q0": 0},
        {"precision": "half"},
        {"device": "abacus"},
        {"workers": 0},
    ],
)
def test_runs_that_are_none_are_refused(broken):
    with pytest.raises(InputError):
        Lattice("tanh", 1.5, size=32).run(**({"depth": 8, "realisations": 2} | broken))


def test_fingerprint_tells_lattices_apart():
    jobs = [
        Lattice("tanh", 1.5, 0.3, size=32)._job(4, 2, start, 0, 3, None, "single", "cpu")
        for start in ("independent", "site", 0.5, (np.zeros((5, 32)), np.ones((5, 32))))
    ]
    jobs.append(replace(jobs[0], seed=1))
    assert len({job.fingerprint for job in jobs}) == 5

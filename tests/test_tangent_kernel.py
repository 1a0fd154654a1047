"""Kernels of infinitely wide networks against closed forms, wide networks and themselves."""

from __future__ import annotations

import math
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
import torch

from depthscale.answers import InputError, Undefined
from depthscale.theory.criticality import critical_point
from depthscale.theory.gradients import predict_gradients
from depthscale.theory.kernel_window import far_deficit, reach, window_deficit, window_ratio
from depthscale.theory.meanfield import MeanField
from depthscale.theory.tangent_kernel import KernelTable, tangent_kernel

GAPS = np.array([1e-14, 1e-6, 1e-3, 0.05, 0.5, 1.0, 1.7])


def critical(name: str, sigma_b: float = 0.3) -> MeanField:
    point = critical_point(name, sigma_b=sigma_b)
    return MeanField(name, float(point.sigma_w), sigma_b, start=float(point.q))


# Against closed forms in forty digits -------------------------------------------------------------


def arcsine(c, q, weight, bias):
    """erf: ``K'`` and the slope of it in K (Williams 1998)."""
    k = q * c
    new = weight * 2 / mp.pi * mp.asin(2 * k / (1 + 2 * q)) + bias
    return new, weight * 4 / mp.pi / mp.sqrt((1 + 2 * q) ** 2 - 4 * k**2)


def arccosine(c, q, weight, bias):
    """ReLU (Cho and Saul 2009)."""
    angle = mp.acos(c)
    new = weight * q / (2 * mp.pi) * (mp.sin(angle) + (mp.pi - angle) * c) + bias
    return new, weight * (mp.pi - angle) / (2 * mp.pi)


def exact(form, depth, eps, q, sigma_w, sigma_b):
    """``(eps_L, theta_eps)`` of a pair of equal lengths, by subtraction in many digits."""
    weight, bias = mp.mpf(sigma_w) ** 2, mp.mpf(sigma_b) ** 2
    q, c = mp.mpf(q), 1 - mp.mpf(eps)
    both, one = q * c, q
    for _ in range(depth):
        pair, slope = form(c, q, weight, bias)
        single, own = form(mp.mpf(1), q, weight, bias)
        both, one = pair + slope * both, single + own * one
        q, c = single, pair / single
    return float(1 - c), float(1 - both / one)


@pytest.mark.parametrize(
    ("name", "form", "sigma_w", "sigma_b"),
    [("erf", arcsine, 1.2, 0.4), ("relu", arccosine, 1.3, 0.2), ("relu", arccosine, 2**0.5, 0.0)],
)
def test_both_kernels_are_the_closed_ones(name, form, sigma_w, sigma_b):
    layer = MeanField(name, sigma_w, sigma_b)
    found = tangent_kernel(layer, 12, GAPS, 0.8)
    with mp.workdps(40):
        pairs = [exact(form, 12, eps, 0.8, sigma_w, sigma_b) for eps in GAPS]
    # a dozen layers, each to some ten roundings; the closed gap at 1e-14 to 1e-8 of its size
    np.testing.assert_allclose(found.eps, [p[0] for p in pairs], rtol=3e-7)
    np.testing.assert_allclose(found.theta_eps, [p[1] for p in pairs], rtol=3e-7)
    np.testing.assert_allclose(found.theta_eps[2:], [p[1] for p in pairs[2:]], rtol=1e-11)


# Against gradients --------------------------------------------------------------------------------


def test_it_is_the_sum_of_gradients_over_hops():
    """Weights count ``sigma_w^2/n`` times the gradient theory's own ``G_ab``, without biases."""
    layers, n = [MeanField("tanh", 1.4)] * 6, 1000
    theory = predict_gradients(layers, [n] * 7, q1=0.9, q2=0.5, eps=0.3, loss="linear")
    kernel = tangent_kernel(layers[0], 6, 0.3, 0.9, 0.5)
    hops = np.sum(theory.grad_ab) * 1.4**2 / n**2
    first = theory.backprop_ab[0] * math.sqrt(0.9 * 0.5) * 0.7  # Theta_0 = K_0
    assert float(kernel.theta) == pytest.approx(hops + first, rel=1e-9)


def test_it_is_that_of_wide_networks_with_weights():
    """Ten networks of 500 units; each scatters by some ``sqrt(depth/width)`` = 8 %."""
    layer, depth, width, nets = MeanField("tanh", 1.5, 0.4, skip=0.0), 3, 500, 10
    x = torch.tensor([[1.0, 0.5, -0.2], [0.3, -0.9, 0.8]], dtype=torch.float64)
    gram = (x @ x.T / 3).numpy()
    eps = 1 - gram[0, 1] / math.sqrt(gram[0, 0] * gram[1, 1])
    sums = np.array([_empirical(layer, depth, width, x, seed) for seed in range(nets)])
    found = tangent_kernel(layer, depth, eps, gram[0, 0], gram[1, 1])
    expected = [float(found.theta), math.exp(found.log_theta1), math.exp(found.log_theta2)]
    error = sums.std(axis=0, ddof=1) / math.sqrt(nets)
    # four standard errors, three comparisons (one in 1,500), and 1/width of bias
    assert np.all(np.abs(sums.mean(axis=0) - expected) < 4 * error + 0.005 * np.abs(expected))


def _empirical(layer, depth, width, x, seed):
    """``sum over parameters of df(x_a) df(x_b)`` of one output."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [x.shape[1], *[width] * depth, 1]

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    weights = [drawn(b, a) for a, b in pairwise(sizes)]
    biases = [drawn(b) for b in sizes[2:]]
    h = x @ weights[0].T / math.sqrt(x.shape[1])
    for w, b in zip(weights[1:], biases, strict=True):
        h = layer.sigma_w / math.sqrt(w.shape[1]) * torch.tanh(h) @ w.T + layer.sigma_b * b
    one, two = (
        torch.cat(
            [g.ravel() for g in torch.autograd.grad(y, [*weights, *biases], retain_graph=True)]
        )
        for y in (h[0, 0], h[1, 0])
    )
    return float(one @ two), float(one @ one), float(two @ two)


# Tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["erf", "tanh", "hardtanh"])
@pytest.mark.parametrize("depth", [0, 1, 30])
def test_the_table_is_the_recursion(name, depth):
    layer = critical(name)
    one, many = tangent_kernel(layer, depth, GAPS), KernelTable(layer).at(depth, GAPS)
    # quintic splines of step .05; next to a kink the recursion's own quadrature is good to 1e-8
    np.testing.assert_allclose(many.theta_eps, one.theta_eps, rtol=1e-7)
    np.testing.assert_allclose(many.eps, one.eps, rtol=1e-7)
    np.testing.assert_allclose(many.log_theta1, one.log_theta1, rtol=1e-12, atol=1e-12)


def test_equal_and_nearly_equal_inputs():
    table = KernelTable(critical("relu", 0.0))
    found = table.at(50, [0.0, 1e-20, 1e-40, 2.0])
    assert found.theta_eps[0] == found.eps[0] == 0
    # far below alignment both are powers of eps: eps itself, and its root
    np.testing.assert_allclose(found.eps[1:3], [1e-20, 1e-40], rtol=1e-5)
    assert found.theta_eps[1] / found.theta_eps[2] == pytest.approx(1e10, rel=1e-4)


def test_the_ordered_phase_keeps_its_digits():
    """Differences shrink by the slope a layer: at 500 hops 1e-22 of the kernel are left."""
    layer = MeanField("erf", critical("erf").sigma_w - 0.1, 0.3)
    table, slope = KernelTable(layer), float(layer.chi)
    near, far = table.at(400, [0.01, 0.3]), table.at(500, [0.01, 0.3])
    decay = far.theta_eps / near.theta_eps
    np.testing.assert_allclose(decay, slope**100 * 1.25, rtol=0.03)  # L e^(tL): 500/400
    assert np.all(far.theta_eps < 1e-15)


def test_the_chaotic_phase_does_not_overflow():
    found = KernelTable(MeanField("erf", 10.0, 0.3)).at(800, [0.0, 0.5])
    assert np.all(found.log_theta1 > 700)
    np.testing.assert_allclose(found.ratio, [1, 0], atol=1e-12)
    assert found.theta[0] == math.inf


def test_a_residual_branch_only_adds_its_slope():
    layer = MeanField("identity", 0.5, skip=1.0)
    found = tangent_kernel(layer, 4, 0.3, 1.0)
    # K' = 1.25 K, Theta' = .25 K + 1.25 Theta, for every pair alike
    theta, k = 1.0, 1.0
    for _ in range(4):
        theta, k = 0.25 * k + 1.25 * theta, 1.25 * k
    assert float(found.theta) == pytest.approx(0.7 * theta, rel=1e-12)


# Closed window ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kappa", "m"), [(2.0, 2), (1.5, 3), (1.25, 5)])
def test_the_window_on_the_line_is_its_closed_form(kappa, m):
    X = np.array([0.1, 1.0, 30.0, 1e4])
    closed = ((1 + X) ** (m + 1) - 1) / ((m + 1) * X * (1 + X) ** m)
    np.testing.assert_allclose(window_ratio(X, kappa), closed, rtol=1e-12)
    own = 0.2 * (1 + X / 2) / (1 + X) ** m
    np.testing.assert_allclose(window_ratio(X, kappa, rho0=0.2), closed - own, rtol=1e-11)
    # and to first order at small X, which the closed form loses
    np.testing.assert_allclose(window_deficit(1e-14, kappa), m / 2 * 1e-14, rtol=1e-10)
    assert float(window_ratio(1e300, kappa)) == pytest.approx(1 / (m + 1))


@pytest.mark.parametrize("kappa", [2.0, 1.5])
@pytest.mark.parametrize("x", [-3.0, -0.5, 0.7, 4.0])
def test_the_window_off_the_line_solves_its_equations(kappa, x):
    from scipy.integrate import solve_ivp

    beta, X = kappa - 1, 2.0
    t, a, rho = x / beta, X / beta, 1.0  # L = 1, q = 1

    def slope(_, state):
        eps, off, on = state
        return [
            t * eps - a * eps**kappa,
            1 - eps * 0.1 + (t - kappa * a * eps**beta) * off,
            1 + t * on,
        ]

    end = solve_ivp(slope, (0, 1), [rho, 0.0, 0.0], rtol=1e-11, atol=1e-13).y[:, -1]
    assert float(window_ratio(X, kappa, x, rho0=0.1)) == pytest.approx(end[1] / end[2], rel=1e-8)


@pytest.mark.parametrize(("name", "sigma_b"), [("tanh", 0.3), ("sin", 0.3), ("relu", 0.0)])
def test_deep_critical_networks_have_the_closed_window(name, sigma_b):
    """The next order of the map and of 1/L: 1.2 % at 100 hops, and halved or so at 400."""
    table = KernelTable(critical(name, sigma_b))
    stretch, beta, detuning = reach(table.layer)
    rho = np.array([0.1, 0.01, 1e-3])
    errors = []
    for depth in (100, 400):
        closed = window_ratio(stretch * depth * rho**beta, 1 + beta, rho0=rho)
        errors.append(np.abs(table.at(depth, rho).ratio / closed - 1).max())
    assert detuning == 0
    assert errors[0] < 0.015
    assert errors[1] < 0.008


def test_near_the_line_it_follows_the_detuning():
    """``x = t L`` of order 1 at 500 hops: t is .003, and corrections are some 10 t."""
    base = critical("erf")
    rho = np.array([0.03, 0.003])
    for shift in (-0.004, 0.004):
        layer = MeanField("erf", base.sigma_w + shift, 0.3)
        stretch, _, t = reach(layer)
        found = KernelTable(layer).at(500, rho).ratio
        closed = window_ratio(stretch * 500 * rho, 2.0, t * 500, rho0=rho)
        assert abs(t * 500) > 1
        np.testing.assert_allclose(found, closed, rtol=0.03)


@pytest.mark.parametrize("kappa", [2.0, 1.5])
def test_far_off_the_line_the_leading_forms_are_left(kappa):
    for X, x in ((5.0, -20.0), (50.0, -200.0)):
        exact = float(window_deficit(X, kappa, x))
        # smooth: pairs that have not yet aligned count for a share X/(y + X) of 1/y
        assert far_deficit(X, x, kappa) == pytest.approx(exact, rel=X / (X - x) / -x)
    chaotic = 1 - float(window_deficit(50.0, kappa, 8.0))
    assert 1 - far_deficit(50.0, 8.0, kappa) == pytest.approx(chaotic, rel=0.01)


# Bad input ----------------------------------------------------------------------------------------


def test_what_has_no_kernel_says_so():
    with pytest.raises(InputError, match="dropout"):
        KernelTable(MeanField("tanh", 1.4, 0.3, drop=0.1))
    with pytest.raises(InputError, match="keeps no length"):
        KernelTable(MeanField("relu", 2.0))
    with pytest.raises(InputError, match="MeanField"):
        tangent_kernel("relu", 3, 0.1)
    layer = critical("erf")
    for wrong in (-0.1, 2.1, math.nan, "a", True, []):
        with pytest.raises(InputError):
            tangent_kernel(layer, 3, wrong)
        with pytest.raises(InputError):
            KernelTable(layer).at(3, wrong)
    for depth in (-1, 1.5, math.nan, "a"):
        with pytest.raises(InputError):
            tangent_kernel(layer, depth, 0.1)
    with pytest.raises(InputError, match="positive"):
        tangent_kernel(layer, 3, 0.1, 0.0)
    with pytest.raises(InputError, match="shapes"):
        tangent_kernel(layer, 3, 0.1, [1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="range"):
        tangent_kernel(MeanField("relu", 100.0), 1000, 0.1, 1.0)


def test_windows_out_of_range_are_refused():
    for broken in ({"X": -1}, {"X": math.nan}, {"kappa": 1.0}, {"kappa": 2.5}, {"x": math.inf}):
        with pytest.raises(InputError):
            window_ratio(**({"X": 1.0} | broken))
    with pytest.raises(InputError, match="misalignment"):
        window_ratio(1.0, rho0=3.0)
    for broken in ((1.0, 0.0), (0.0, 1.0), (1.0, math.nan)):
        with pytest.raises(InputError):
            far_deficit(*broken)


def test_maps_without_curvature_have_no_reach():
    for name in ("identity", "step"):
        assert isinstance(reach(MeanField(name, 1.0)), Undefined)

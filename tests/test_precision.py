"""Mixed precision: the networks of a seed are those of double precision, up to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.finite.pointwise import Pointwise
from depthscale.theory.activation import activation

DEPTH, NETS, WIDTH = 30, 24, 120

# An inner product in single precision errs by about 1e-7 of the squares, so an eps of .01, the
# least that is followed in single precision, by 1e-5, and thirty layers of that by 3e-4 at most:
# errors of different layers are independent, and no layer here enlarges one of the layer before.
ROUNDING = 3e-4

NETWORKS = {
    "ordered": Ensemble("tanh", 1.3, 0.2, WIDTH, DEPTH),
    "dropout": Ensemble("tanh", 1.3, 0.2, WIDTH, DEPTH, drop=0.1),
    "shared masks": Ensemble("relu", 1.4, 0.1, WIDTH, DEPTH, drop=0.1, masks="shared"),
    "chaos": Ensemble("tanh", 2.5, 0.1, WIDTH, DEPTH),
    "growing": Ensemble("relu", 8.0, 0.0, WIDTH, DEPTH, drop=0.05),
    "decaying": Ensemble("relu", 0.5, 0.0, WIDTH, DEPTH),
    "decaying to linear": Ensemble("tanh", 0.5, 0.0, WIDTH, DEPTH),
    "smooth": Ensemble("gelu", 1.5, 0.2, WIDTH, DEPTH),
    "untied": Ensemble("erf", 1.5, 0.2, WIDTH, DEPTH, tied=False),
    "saturated": Ensemble("tanh", 30.0, 0.0, WIDTH, 6),
    "far out": Ensemble("sigmoid", 100.0, 0.0, WIDTH, 6),
    "nearly constant": Ensemble("cos", 1e-3, 0.0, WIDTH, 6),
    "beside a constant": Ensemble(lambda x: 1 + 1e-4 * np.tanh(x), 1.0, 0.0, WIDTH, 6),
    "nearly linear": Ensemble("sigmoid", 0.01, 0.0, WIDTH, 6),
    "high power": Ensemble(lambda x: x**7, 0.2, 0.0, WIDTH, 2),
}


def both(networks: Ensemble, inputs, loss="quadratic", **how):
    return [
        networks.backward(loss, inputs, NETS, seed=1, keep=True, precision=precision, **how)
        for precision in ("mixed", "double")
    ]


def deviation(one, two, name: str) -> float:
    """Largest relative difference of the values of any network."""
    (sign_one, log_one), (sign_two, log_two) = (r.trajectories[name] for r in (one, two))
    np.testing.assert_array_equal(sign_one, sign_two)
    there = sign_one != 0
    return float(np.abs(np.expm1(log_one[there] - log_two[there])).max())


@pytest.mark.parametrize("eps", [0.5, 1e-3, 1e-20])
@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_precision_follows_the_networks_of_double_precision(name, eps):
    one, two = both(NETWORKS[name], Pair(eps))
    for observable in ("q", "eps", "delta_aa", "grad_aa", "grad_ab_abs"):
        assert deviation(one, two, observable) < ROUNDING, observable


@pytest.mark.parametrize("name", ["dropout", "ordered"])
@pytest.mark.parametrize("inputs", [1, 3, 4, 5, 7])
def test_of_several_inputs(inputs, name):
    """Also where one precision takes inner products and the other orthogonal matrices."""
    vectors = np.random.default_rng(2).standard_normal((inputs, WIDTH))
    one, two = both(NETWORKS[name], vectors, "readout")
    for observable in ("q", "delta_aa", "grad_aa", *(("eps", "delta_eps") * (inputs > 1))):
        assert 0 < deviation(one, two, observable) < ROUNDING, observable


LOSSES = {
    "tiny": lambda h: 1e-30 * h.square().sum(-1),
    "huge": lambda h: 1e25 * h.square().sum(-1),
    "tiny in most networks": lambda h: torch.exp(-h.square().sum(-1) / 2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_beyond_single_precision(name):
    one, two = both(Ensemble("tanh", 1.5, 0.2, WIDTH, 3), Pair(0.5), LOSSES[name])
    for observable in ("delta_aa", "grad_aa", "delta_eps"):
        assert deviation(one, two, observable) < ROUNDING, observable


@pytest.mark.parametrize(("name", "rate"), [("tanh", 2), ("sigmoid", 1)])
def test_slopes_far_out_keep_their_digits(name, rate):
    """``rate^2/(4 cosh(rate x/2)^2)``, of which ``1 - tanh^2`` leaves nothing beyond 19."""
    x = torch.linspace(-300, 300, 601, dtype=torch.float64)
    slopes, values = torch.empty_like(x), torch.empty_like(x)
    pointwise = Pointwise(activation(name))
    pointwise.values(x, values)
    pointwise.slopes(x, values, slopes)
    exact = rate**2 / 4 / np.cosh(rate * x.numpy() / 2) ** 2
    np.testing.assert_allclose(slopes.numpy(), exact, rtol=1e-13)


def test_a_difference_is_followed_in_double_precision_until_it_is_large():
    """From eps = 1e-6 to order 1 in chaos: bit for bit as in double precision at first."""
    one, two = both(Ensemble("tanh", 3.0, 0.1, WIDTH, DEPTH), Pair(1e-6))
    close = np.flatnonzero((two.values("eps") < 5e-3).all(axis=(0, 1)))
    far = np.flatnonzero((two.values("eps") > 3e-2).all(axis=(0, 1)))
    assert close.size > 5
    assert far.size > 5
    same = one.values("eps") == two.values("eps")
    assert same[:, :, close].all()
    assert not same[:, :, far[1:]].all(axis=(0, 1)).any()


def test_a_pinned_start_is_told_exactly():
    run = NETWORKS["dropout"].forward(Pair(0.3, q1=2.0, q2=0.5), NETS, keep=True)
    np.testing.assert_allclose(run.values("q")[:, :, 0], [[2.0, 0.5]] * NETS, rtol=1e-14)
    np.testing.assert_allclose(run.values("eps")[:, 0, 0], 0.3, rtol=1e-13)


def test_gradients_that_vanish_on_their_way_to_single_precision():
    """Inputs coalesce: gradients fall to 1e-26 before they reach layers where inputs are apart."""
    networks = Ensemble("identity", 0.5**0.5, 0.1**0.5, WIDTH, 180)
    one, two = both(networks, Pair(1.0))
    assert two.mean("delta_aa")[0, 1] < 1e-35
    for observable in ("eps", "delta_aa", "grad_aa", "grad_ab_abs"):
        assert deviation(one, two, observable) < ROUNDING, observable


def test_lengths_beyond_single_precision():
    """sigma_w = 1e12: numbers of 1e12 and more in every layer, whose squares float32 has not."""
    networks = Ensemble("relu", 1e12, 0.0, WIDTH, 8)
    one, two = both(networks, Pair(0.5))
    assert deviation(one, two, "q") < ROUNDING
    assert deviation(one, two, "grad_aa") < ROUNDING

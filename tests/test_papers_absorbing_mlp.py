"""The claims on fully connected networks: that they run, are whole, and that rules have teeth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from depthscale.papers.absorbing import mlp, mlp_data
from depthscale.papers.absorbing.runs import Runs

QUICK = Runs(quick=True)


def test_exact_paths_are_those_of_the_map():
    own = mlp_data.transition("tanh")
    eps = 1.0
    for _ in range(30):
        eps = float(own.layer.gap_map(eps))
    path = mlp_data.exact_path("tanh", own.sigma_w, 30)
    assert path[-1] == pytest.approx(eps, rel=1e-6)


def test_analytic_activations_come_to_the_curve_and_kinked_ones_do_not():
    for name in ("tanh", "cos"):
        near, far = (np.abs(mlp_data.off_curve(name, depth)).max() for depth in (150, 1500))
        # log(l)/l falls by 6.9, for corrections that have not changed their sign on the way
        assert far < near / 2 < 0.1
    smooth = mlp_data.transition("tanh").scaling_in_detuning(mlp_data.X)
    kinked = mlp_data.scaled_by_detuning("hardtanh", 500)
    assert np.abs(kinked / smooth - 1).max() > 0.2


def test_control_ends_at_the_root_of_its_size():
    steps = [
        float(np.interp(-0.5, -c.ratio, c.steps))
        for c in (mlp_data.contact(QUICK, sites) for sites in (64, 1024))
    ]
    # 400 realisations know the mean to 5 %, and so the step to some 5 %
    assert math.log(steps[1] / steps[0]) / math.log(16) == pytest.approx(0.5, abs=0.08)


def test_deterministic_claims_hold():
    claims = [*mlp._exponents(), *mlp._corrections(QUICK), mlp._other_class()]
    assert all(claim.verdict == "confirmed" for claim in claims), claims


def test_claims_of_few_networks_are_whole():
    claims = [
        *mlp._lyapunov(QUICK),
        mlp._no_chaos(QUICK),
        *mlp._cutoffs(QUICK),
    ]
    assert all(claim.paper == mlp.PAPER and claim.statement for claim in claims)
    assert {claim.verdict for claim in claims} <= {"confirmed", "undecided"}
    assert all("nan" not in str(claim) for claim in claims)


def test_a_line_in_one_over_n_is_taken_to_infinity():
    from depthscale.papers.judging import Measured

    found = mlp._to_infinity({n: Measured(2 + 3 / n, 0.1) for n in (10, 20, 40)})
    assert found.value == pytest.approx(2)
    power = mlp._power((10, 100), np.log([5.0, 50.0]), np.array([0.1, 0.1]))
    assert power.value == pytest.approx(1)
    assert power.error == pytest.approx(math.sqrt(0.02) / math.log(10))

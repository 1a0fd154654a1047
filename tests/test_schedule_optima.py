"""Optimal schedules: against every schedule of a grid, at a thousand sites, with unequal sites."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from depthscale.answers import InputError
from depthscale.practice.schedule import Budget, Schedule, profile
from depthscale.practice.schedules.exact import CONCAVE, LEVEL, LINEAR, known_optimum
from depthscale.practice.schedules.objectives import SENSE, Landscape
from depthscale.practice.schedules.optimise import evaluate_schedule, optimise_network
from depthscale.practice.schedules.recursion import Recursion
from depthscale.theory.criticality import critical_point
from depthscale.theory.meanfield import MeanField

RELU = MeanField("relu", sigma_w=2**0.5)
BIAS = 0.1**0.5
NETWORKS = {
    "relu": RELU,
    "tanh": MeanField("tanh", float(critical_point("tanh", sigma_b=BIAS).sigma_w), BIAS),
    "hardtanh": MeanField(
        "hardtanh", float(critical_point("hardtanh", sigma_b=BIAS).sigma_w), BIAS
    ),
}
TANH = NETWORKS["tanh"]
FRONT, BACK = [0.2] * 3 + [0.0] * 3, [0.0] * 3 + [0.2] * 3
BUDGET = Budget(mean=0.1, cap=0.2)
GRIDS = {  # budgets, levels from the floor to the cap, and levels above the floor in the mean
    "half": (BUDGET, 5, 2),
    "quarter": (Budget(mean=0.05, cap=0.2), 5, 1),
    "floor": (Budget(mean=0.08, cap=0.2, floor=0.04), 5, 1),
}
ROUNDING = 1e-12  # of the losses, of order 1: the table's error, the same for all schedules


def grid_of(depth: int, budget: Budget, levels: int, mean: int) -> np.ndarray:
    """Every schedule of the grid that has the budget's mean."""
    rows = np.zeros((1, 0), dtype=int)
    for site in range(depth):
        rows = np.hstack(
            [np.repeat(rows, levels, axis=0), np.tile(np.arange(levels), len(rows))[:, None]]
        )
        left = mean * depth - rows.sum(axis=1)
        rows = rows[(left >= 0) & (left <= (depth - site - 1) * (levels - 1))]
    return budget.floor + rows * (budget.cap - budget.floor) / (levels - 1)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_schedule_of_the_grid_is_better(name, grid):
    network, (budget, levels, mean) = NETWORKS[name], GRIDS[grid]
    for depth in range(1, 9):
        scene = Landscape(network, depth, budget.mean, budget.cap)
        rows = grid_of(depth, budget, levels, mean)
        for objective in SENSE:
            found = optimise_network(network, depth, budget, objective, permutations=0)
            losses = scene.losses(objective, np.array([found.schedule.rates, *rows]))
            assert losses[0] <= losses[1:].min() + ROUNDING, (depth, objective)
            assert found.certificate.kkt_residual < 1e-6
            assert found.certificate.budget_violation < 1e-15


def test_size_of_the_grid():
    assert len(grid_of(6, *GRIDS["half"])) == 1751
    assert len(grid_of(8, *GRIDS["half"])) == 38_165


def test_what_each_objective_picks():
    front, back = tuple(FRONT), tuple(BACK)
    picks = {"signal": back, "noise": front, "exposure": front, "xi": front, "reach": front}
    for objective, rates in {**picks, "rank-flow": front}.items():
        found = optimise_network(RELU, 6, BUDGET, objective, permutations=0)
        assert found.schedule.rates == pytest.approx(rates, abs=1e-12), objective
        assert found.helps
        assert found.certificate.partial == 0
    assert not optimise_network(RELU, 6, BUDGET, "gradient", permutations=0).helps


def test_mix_and_function_of_the_user():
    own = optimise_network(RELU, 5, BUDGET, lambda x: (x * np.arange(5)).sum(axis=1))
    assert own.schedule.rates == pytest.approx((0.2, 0.2, 0.1, 0, 0), abs=1e-9)
    assert own.objectives["user"].schedule == pytest.approx(0.4)
    for weights, rates in (({"signal": 1, "noise": 1e-6}, BACK), ({"noise": 1.0}, FRONT)):
        found = optimise_network(RELU, 6, BUDGET, weights, permutations=10)
        assert found.schedule.rates == pytest.approx(rates, abs=1e-9)
    with pytest.raises(InputError, match="gave shape"):
        optimise_network(RELU, 5, BUDGET, lambda x: x)


# A thousand sites --------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["signal", "noise", "exposure", "snr", "gradient"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_thousand_sites(name, objective):
    found = optimise_network(NETWORKS[name], 1000, BUDGET, objective)
    assert found.certificate.budget_violation < 1e-14
    assert found.certificate.kkt_residual < 1e-6
    assert found.certificate.proof.startswith("global" if objective == "gradient" else "local")
    one, sign = found.objectives[objective], SENSE[objective]
    rivals = [one.uniform, one.mirrored, one.best_random]
    assert sign * one.schedule >= max(sign * v for v in rivals)


@pytest.mark.parametrize("name", NETWORKS)
def test_exposure_drops_at_every_other_site(name):
    # noise relaxes within some sites: a block in front to raise it, none where it has no time left
    rates = optimise_network(NETWORKS[name], 400, BUDGET, "exposure", permutations=0).schedule
    sites = np.array(rates.rates)
    assert np.array_equal(sites[20:380:2], sites[20:380:2] * 0 + sites[20])
    assert sites[20] + sites[21] == pytest.approx(0.2)
    assert sites[:3] == pytest.approx(0.2)
    assert sites[-3:] == pytest.approx(0.0)
    scene = Landscape(NETWORKS[name], 400, 0.1, 0.2)
    profiles = [profile(n, 400, 0.1, 0.2).rates for n in ("uniform", "step", "linear")]
    values = scene.values("exposure", [rates.rates, *profiles])
    assert values[0] > values[1:].max()


@pytest.mark.parametrize("name", ["tanh", "hardtanh"])
def test_rates_that_level_the_gradient(name):
    budget = Budget(mean=0.1, cap=0.2)
    for depth in (5, 80):
        scene = Landscape(NETWORKS[name], depth, 0.1, 0.2)
        x, proof = known_optimum(scene, budget, "gradient")
        assert proof == LEVEL
        log = scene.recursion.factors(scene.recursion.follow(x[None], (0.0,)))[0]
        assert np.ptp(log) < 1e-13
        assert np.ptp(x) > 1e-3
        assert budget.violation(x) < 1e-15
    # a cap that is in the way: no proof, and the search takes over
    tight = optimise_network(NETWORKS[name], 6, Budget(mean=0.1, cap=0.1001), "gradient")
    assert tight.certificate.kkt_residual < 1e-6


# Budgets of other kinds --------------------------------------------------------------------------


def test_a_budget_of_fields_is_met_by_the_fields():
    found = optimise_network(TANH, 6, Budget(mean=0.1, cap=0.2, of="field"), "exposure")
    rates = np.array([found.schedule.rates])
    h = Recursion(TANH, 6, 0.5).follow(rates, (0.0,)).h[:, 0]
    assert h == pytest.approx([0.2, 0.2, 0.2, 0, 0, 0], abs=1e-12)
    assert rates.max() > 0.2


@pytest.mark.parametrize("mean", [0.0, 0.2])
def test_a_budget_of_one_schedule(mean):
    found = optimise_network(RELU, 4, Budget(mean=mean, cap=0.2), "noise", permutations=3)
    assert found.schedule.rates == (mean,) * 4
    assert not found.helps


def extreme_points(budget: Budget, depth: int) -> np.ndarray:
    """Schedules with all sites but one at the floor or the cap."""
    weights, rows = budget.weights_at(depth), []
    total = budget.mean_at(depth) * weights.sum()
    for site in range(depth):
        for others in itertools.product([budget.floor, budget.cap], repeat=depth - 1):
            row = np.insert(np.array(others), site, 0.0)
            row[site] = (total - row @ weights) / weights[site]
            if budget.floor - 1e-12 <= row[site] <= budget.cap + 1e-12:
                rows.append(np.clip(row, budget.floor, budget.cap))
    return np.array(rows)


@pytest.mark.parametrize("trial", range(6))
def test_sites_of_unequal_weight(trial):
    rng = np.random.default_rng(trial)
    depth = int(rng.integers(3, 8))
    weights = rng.choice([1, 2, 5.5], depth) if trial % 2 else rng.uniform(0.5, 3, depth)
    floor, mean = float(rng.choice([0, 0.03])), float(rng.uniform(0.05, 0.25))
    budget = Budget(mean=mean, cap=0.3, floor=floor, weights=tuple(weights))
    network = list(NETWORKS.values())[trial % 3]
    scene = Landscape(network, depth, mean, 0.3)
    rivals = np.vstack([extreme_points(budget, depth), budget.project(rng.random((200, depth)))])
    for objective in SENSE:
        found = optimise_network(network, depth, budget, objective, permutations=100)
        losses = scene.losses(objective, np.array([found.schedule.rates, *rivals]))
        assert losses[0] <= losses[1:].min() + ROUNDING, objective
        assert found.certificate.budget_violation < 1e-14
        assert found.certificate.kkt_residual < 1e-6 or objective == "xi"
        proof = {"xi": CONCAVE, "reach": LINEAR, "rank-flow": LINEAR}
        assert found.certificate.proof == proof.get(objective, found.certificate.proof)
        one, sign = found.objectives[objective], SENSE[objective]
        for rival in (one.mirrored, one.best_random):  # they meet the budget, so none is better
            assert sign * rival <= sign * one.schedule + 1e-10


def test_weights_that_are_too_many_to_enumerate():
    weights = tuple(np.random.default_rng(0).uniform(0.5, 3, 40))
    found = optimise_network(RELU, 40, Budget(mean=0.1, cap=0.2, weights=weights), "xi")
    certificate = found.certificate
    assert not certificate.exact
    assert certificate.partial <= 1
    assert certificate.budget_violation < 1e-14
    # no schedule does with fewer sites than those that the heaviest ones take
    fewest = np.searchsorted(np.cumsum(sorted(weights, reverse=True)), sum(weights) / 2)
    scene = Landscape(RELU, 40, 0.1, 0.2)
    bound = 40 / (fewest * scene.paper.decay(np.array(0.2))[0])
    assert 0.97 * bound < found.objectives["xi"].schedule <= bound


def test_three_kinds_of_sites_in_a_deep_network():
    weights = (1.0, 3.0, 4.0) * 100
    budget = Budget(total=60.0, cap=0.2, weights=weights)
    found = optimise_network(RELU, 300, budget, "xi", permutations=20)
    assert found.certificate.proof == CONCAVE
    # 60 of 0.2 x 4 a site: 75 of the heaviest, and no partial one
    assert found.schedule.rates == tuple(0.2 if k % 3 == 2 and k < 225 else 0.0 for k in range(300))


def test_sites_that_a_rate_does_not_treat_alike_have_no_proof():
    """Off the fixed point a unit of rate makes more field early: where to put it matters to xi."""
    found = optimise_network(TANH, 6, Budget(mean=0.1, cap=0.2), "xi", q0=3.0, permutations=0)
    assert not found.certificate.exact
    late = evaluate_schedule(TANH, Schedule([0, 0, 0, 0.2, 0.2, 0.2]), q0=3.0, permutations=0)
    assert found.objectives["xi"].schedule >= late.objectives["xi"].schedule * (1 - 1e-9)


@pytest.mark.parametrize("budget", [Budget(mean=0.2, cap=0.2), Budget(mean=0.0, cap=0.2)])
def test_a_budget_that_one_schedule_meets_is_solved(budget):
    found = optimise_network(RELU, 4, budget, "exposure", permutations=0)
    assert found.certificate.exact
    assert "one schedule alone" in found.certificate.proof

"""Every network through a trial: small and paper settings fit the data, one epoch runs through."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from depthscale.practice.dropping.blocks import BRANCHES, by_block
from depthscale.practice.dropping.sites import dropout_sites
from depthscale.practice.networks import NETWORKS, build
from depthscale.practice.trials.plans import FITTED, SIZES, TRAINING, plan
from depthscale.practice.trials.runner import read_results, run_trial
from depthscale.practice.trials.trial import Trial, one_run

TINY = {"train": 60, "validation": 30, "test": 30, "epochs": 1, "batch": 20}
SHAPES = {
    "digits": (1, 8, 8),
    "fashion-mnist": (1, 28, 28),
    "cifar-10": (3, 32, 32),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> str:
    return request.param


def tiny(network: str, *arms: str) -> Trial:
    return plan(network, "digits", arms=arms or ("none", "uniform", "step"), **TINY)


def test_settings_of_every_network():
    assert {*SIZES} == {*TRAINING} == {*NETWORKS}
    assert {name for sizes in FITTED.values() for name in sizes} <= {*NETWORKS}


@pytest.mark.parametrize("size", ["small", "paper"])
@pytest.mark.parametrize("data", SHAPES)
def test_a_rate_for_every_block(network, data, size):
    cell = plan(network, data, size).cells[0]
    shape = SHAPES[data]
    model = build(network, shape, 10, **cell.sizes)
    blocks = by_block(dropout_sites(model, torch.zeros(2, *shape)))
    assert {len(arm.rates) for arm in cell.arms} == {len(blocks)}


def test_one_epoch_of_every_network(network, tmp_path):
    path = tmp_path / "runs.jsonl"
    results = run_trial(tiny(network), [0, 1], path, progress=False)
    assert len(results.runs) == 6
    assert read_results(path).runs == results.runs
    for seed in (0, 1):
        arms = [run for (_, _, place), run in results.runs.items() if place == seed]
        assert len({run["initial"] for run in arms}) == 1
        assert len({run["final"]["test"]["cross_entropy"] for run in arms}) == 3


def test_a_run_depends_on_its_seed_alone(network):
    trial = tiny(network)
    cell = trial.cells[0]
    first, again, other = (one_run(trial, cell, cell.arm("step"), seed) for seed in (0, 0, 1))
    assert first["final"] == again["final"]
    assert first["final"] != other["final"]


@pytest.mark.parametrize("branch", BRANCHES)
def test_branches_of_a_vit(branch):
    trial = tiny("vit")
    cell = replace(trial.cells[0], kinds=BRANCHES[branch])
    whole = one_run(trial, replace(cell, kinds=None), cell.arm("step"), 0)["final"]
    assert (one_run(trial, cell, cell.arm("step"), 0)["final"] == whole) == (branch == "both")


def test_kinds_count_where_a_block_has_one_site():
    trial = tiny("resnet")
    cell = replace(trial.cells[0], kinds=("path",))
    step = cell.arm("step")
    whole = one_run(trial, replace(cell, kinds=None), step, 0)["final"]
    assert one_run(trial, cell, step, 0)["final"] == whole
    with pytest.raises(ValueError, match="no site in a block is of kind 'mlp'"):
        one_run(trial, replace(cell, kinds=("mlp",)), step, 0)

"""The claims on training, in their quick setting: they are made, and from what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from depthscale.papers.absorbing import plots_training, training
from depthscale.papers.absorbing.runs import Runs
from depthscale.papers.absorbing.training_runs import (
    at_reaches,
    halves,
    off_critical,
    pixels,
    stretch,
    table,
    trained,
)

QUICK = Runs(quick=True)


@pytest.fixture(scope="module")
def claims():
    return training.training_window(QUICK)


def test_every_claim_says_where_it_comes_from(claims):
    assert len(claims) >= 20
    for claim in claims:
        assert claim.paper == "2307.02284"
        assert claim.where.startswith("training")
        assert claim.ours is not None
        assert str(claim)
    assert {claim.version for claim in claims} == {"v2", "ours"}


def test_claims_that_need_no_sampling_are_final(claims):
    """The closed forms do not depend on the setting."""
    by_words = {claim.statement: claim for claim in claims}
    without, with_own, kinked = list(by_words.values())[:3]
    assert without.verdict == "refuted"
    assert with_own.verdict == kinked.verdict == "confirmed"
    assert with_own.ours < without.ours


def test_both_sides_of_the_boundary_fail(claims):
    found = next(c for c in claims if "necessary: at L = 128" in c.statement)
    assert found.verdict == "confirmed"
    # 100 test digits of ten classes: chance is .1, four standard errors .12
    assert off_critical(QUICK, 0.1).accuracy.mean() < 0.22
    assert off_critical(QUICK, -0.1).accuracy.mean() > 0.8


def test_halves_share_no_example():
    first, second = halves(QUICK, pixels(), 3)
    rows = {tuple(x.tolist()) for x in first.inputs} & {tuple(x.tolist()) for x in second.inputs}
    assert not rows
    assert len(first) == len(second) == 100


def test_depths_meet_their_reach():
    found = at_reaches(QUICK, "tanh", 0.3)
    wanted = np.array([0.3, 1.0, 3.0, 10.0])
    assert np.all(np.abs(found.reach - wanted) <= stretch("tanh", 0.3) / 2 + 1e-12)


def test_networks_start_where_the_kernel_says():
    """The first layer of a trained network hands cosines on at the settled length."""
    kernels = table("tanh", 0.3)
    assert kernels.q == pytest.approx(0.763475, rel=1e-5)
    assert math.isfinite(trained(QUICK, 0.3, 4).train.loss)


def test_figures_are_drawn(tmp_path):
    for draw in (plots_training.kernel_window, plots_training.trained_networks):
        path = tmp_path / f"{draw.__name__}.svg"
        draw(QUICK, path)
        assert path.stat().st_size > 10_000

"""How the claims on the field read networks: estimators on draws of the law itself, one small run.

Draws of the exact law stand for networks: three standard errors, fixed seeds, so that a right
estimator fails once in 370 times for each of the four numbers.
"""

from __future__ import annotations

import numpy as np
import pytest

from depthscale.papers.absorbing import field
from depthscale.papers.absorbing.field_networks import Settled, layer, response, settled, theta_of
from depthscale.papers.absorbing.runs import Runs
from depthscale.theory.diffusion import stochastic_limit


@pytest.fixture(scope="module")
def drawn():
    """The law at three small fields, as if from networks."""
    own, sets, random = response("relu"), [], np.random.default_rng(5)
    for scaled in (1e-3, 1e-2, 1e-1):
        net = layer("relu", 64, 0.0, scaled * own.field_unit)
        limit = stochastic_limit(net).at_width(64)
        share = random.uniform(1e-9, 1 - 1e-9, (1, 4000))
        log_y = limit.equation.stationary.quantile(share)
        sets.append(Settled("relu", 64, own, limit, log_y))
    return sets


def test_slopes_of_draws_are_those_of_the_law(drawn):
    for found, theory in (field.slope(drawn, 0.5), field.median_slope(drawn)):
        assert abs(found.value - theory) < 3 * found.error
        assert 0 < found.error < 0.05


def test_ratios_and_ranks_of_draws(drawn):
    ratio = field._ratio(drawn[2:])
    assert abs(ratio.value - 1) < 3 * ratio.error
    assert field._distance(drawn) < 1.95 / np.sqrt(12_000)  # once in a thousand


def test_layers_have_the_distance_and_field_asked_for():
    own, width = response("tanh"), 64
    theta, goal = theta_of("tanh", -0.5), 0.1 * own.field_unit
    found = stochastic_limit(layer("tanh", width, theta, goal)).at_width(width).equation
    assert found.detuning == pytest.approx(theta, rel=1e-6)
    assert found.field == pytest.approx(goal, rel=0.02)


def test_a_small_run_settles():
    one = settled(Runs(quick=True), "relu", 16, 0.1, 0.0, 1.0)
    assert one.log_y.shape[0] == 9
    assert np.all(np.isfinite(one.log_y))
    assert one.scaled_field == pytest.approx(0.1, rel=0.02)


def test_what_follows_from_the_law_alone_is_confirmed():
    assert {claim.verdict for claim in field._exact()} == {"confirmed"}

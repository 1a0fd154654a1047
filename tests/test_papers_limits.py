"""Claims on stochastic limits: how they are judged, and our numbers by other routes."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import gammainc

from depthscale.finite.diffusion.law import SampleLaw
from depthscale.finite.explicit import explicit_pairs
from depthscale.papers import __main__ as papers
from depthscale.papers import judging, limits
from depthscale.papers.judging import Measured, measured, near
from depthscale.papers.limits import (
    common,
    dropout,
    explosion,
    residual,
    runs,
    shaped,
    shaping,
    smooth,
    solvers,
    unshaped,
)

QUICK = limits.Runs(quick=True)
PAPERS = {common.LIMITS, common.COVARIANCE, common.TAILORED}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder that the command writes, and the verdicts, both of one run."""
    out = tmp_path_factory.mktemp("limits")
    return out, papers.reproduce("limits", out, quick=True)


@pytest.fixture(scope="module")
def verdicts(written):
    return written[1]


def found(verdicts, text):
    (claim,) = [c for c in verdicts.claims if text in c.statement]
    return claim


# How claims are judged ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (1.05, 0.01, "confirmed"),  # 1.02 .. 1.08, all within 0.1 of 1
        (1.08, 0.01, "undecided"),  # 1.05 .. 1.11
        (1.00, 0.05, "undecided"),  # the right number, but too few networks to say so
        (1.12, 0.01, "undecided"),
        (1.14, 0.01, "refuted"),  # 1.11 .. 1.17
    ],
)
def test_a_mean_is_judged_with_its_whole_interval(value, error, verdict):
    claim = measured(
        common.LIMITS, "ours", "", "x is 1", 1.0, Measured(value, error), 0.1, "a tenth"
    )
    assert claim.verdict == verdict
    assert f"{error:.2g}" in claim.note


@pytest.mark.parametrize(
    ("distance", "samples", "verdict"),
    [
        (0.009, 40_000, "confirmed"),
        (0.009, 400, "undecided"),  # noise 0.068 hides what is asked
        (0.015, 40_000, "undecided"),
        (0.017, 40_000, "refuted"),  # more than 0.01 and noise 0.0068
    ],
)
def test_a_distance_is_judged_with_its_noise(distance, samples, verdict):
    claim = near(common.LIMITS, "ours", "", "near", distance, samples, 0.01, "a hundredth")
    assert claim.verdict == verdict


def test_the_noise_of_a_distance_is_that_of_samples():
    """A uniform law against its own samples: 5 % above, binomial in 2000 trials."""
    draws = np.sort(np.random.default_rng(1).random((2000, 400)), axis=1)
    steps = np.arange(401) / 400
    apart = np.maximum((steps[1:] - draws).max(1), (draws - steps[:-1]).max(1))
    share = (apart > judging.NOISE / 20).mean()
    assert share == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))


def test_means_deviations_and_shares_have_their_errors():
    draws = np.random.default_rng(2).uniform(0, 12**0.5, size=(4000, 250))
    for function, true in ((judging.mean_of, 3**0.5), (judging.sd_of, 1.0)):
        pairs = np.array([function(row) for row in draws])
        # the error of an error over 4000 trials is 1 %
        assert pairs[:, 0].std() == pytest.approx(pairs[:, 1].mean(), rel=0.05), function
        assert pairs[:, 0].mean() == pytest.approx(true, abs=0.02)
    hits = draws < 0.1 * 12**0.5
    pairs = np.array([judging.share_of(row) for row in hits])
    assert pairs[:, 0].std() == pytest.approx(pairs[:, 1].mean(), rel=0.05)
    assert judging.share_of(np.zeros(100, dtype=bool)) == Measured(0.0, 0.01)


# Networks ----------------------------------------------------------------------------------------


def test_sampled_networks_are_those_of_explicit_weights():
    """Shaped ReLU: mean and deviation of the correlation, 2000 and 300 networks."""
    layer, width, depth = shaped.SHAPED.layer(30), 30, 10
    ours = runs._pairs(layer, width, (depth,), 0.7, 2000, 1.0, 1).eps[0]
    weights = explicit_pairs(
        [layer] * depth, [width] * (depth + 1), 1.0, 1.0, 0.7, nets=300, seed=3
    )
    theirs = weights.eps[:, -1]
    # explicit pairs are drawn, not pinned: one layer of scatter more, 1/depth of the variance
    error = math.hypot(ours.std() / 2000**0.5, theirs.std() / 300**0.5)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * error)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05 + 4 / math.sqrt(600))


def test_networks_do_not_depend_on_the_number_of_processes():
    layer = shaped.SHAPED.layer(30)
    one, two = (runs._pairs(layer, 30, (5,), 0.7, 300, 1.0, k) for k in (1, 2))
    assert np.array_equal(one.eps, two.eps)
    assert np.array_equal(one.length, two.length)


def test_inputs_have_the_covariance_that_was_asked_for():
    """Layer 1 of wide networks: correlations 0.3, 0, 0.3 with deviation (1 - rho^2)/sqrt n."""
    rho = QUICK.inputs(shaped.SHAPED.layer(400), 400, 1, shaped.GRAM, 20_000)
    assert rho.mean(axis=1) == pytest.approx([0.3, 0.0, 0.3], abs=4 * 0.05 / math.sqrt(200))
    assert rho.std(axis=1) == pytest.approx(
        np.array([0.91, 1.0, 0.91]) / 20, rel=4 / math.sqrt(2 * 200)
    )


# Our numbers by other routes ---------------------------------------------------------------------


def test_the_equation_with_its_drift_by_hand():
    """x = 1/sqrt y is linear: dx = (A/2 + m x) dt - sqrt2 x dB, m = 1 - lam/2."""
    slope = math.sqrt(2) / (3 * math.pi)
    for drift, rate in ((True, 2.0), (False, 3.0)):
        grown = math.exp(rate * 0.5)
        mean = 0.3 * grown + slope * (grown - 1) / rate
        assert unshaped.equation(drift).inverse_moments(0.5, 0.3).mean == pytest.approx(mean)
        assert unshaped.law(drift).mean("x").value[0] == pytest.approx(mean, rel=1e-5)


def test_the_shift_in_depth_of_infinitely_wide_networks():
    """1/sqrt eps of the map, in units of its growth a layer, is l + 1.5 log l + 4.39."""
    eps, ahead = 1.0, []
    for layer in range(1, 801):
        eps = float(common.RELU.gap_map(eps, q=1.0))
        if layer in (200, 400, 800):
            grown = 2 / (unshaped.equation().curvature * math.sqrt(eps))
            ahead.append(grown - layer - 1.5 * math.log(layer))
    assert ahead[-1] == pytest.approx(4.39, abs=0.05)
    first, second = (abs(b - a) for a, b in pairwise(ahead))
    assert second < 0.7 * first


def test_explosions_of_the_explicit_solution():
    """V = G/(1/V_0 - b int G) by sums over a fine grid, 20,000 paths."""
    draws = np.random.default_rng(4)
    steps, step = 400, 1 / 400
    noise = draws.normal(scale=math.sqrt(2 * step), size=(20_000, steps))
    log = np.cumsum(noise - 2 * step, axis=1)
    before = np.hstack([np.zeros((20_000, 1)), log[:, :-1]])
    integral = np.cumsum((np.exp(before) + np.exp(log)) * step / 2, axis=1)
    for time in (0.5, 1.0):
        share = (integral[:, round(time * steps) - 1] > 1).mean()
        exact = float(explosion.CUBIC.explosion(1.0, [time])[0])
        assert share == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000) + 1e-3)
    assert explosion.CUBIC.ever_explodes(1.0) == pytest.approx(gammainc(2, 1))


def test_the_critical_layer_is_critical():
    for activation in smooth.NAMES:
        layer = common.critical(activation, 0.5)
        assert float(layer.q) == pytest.approx(0.5, rel=1e-9)
        assert float(layer.chi) == pytest.approx(1.0, rel=1e-9)
    for theta in smooth.THETAS:
        chi = float(smooth.detuned(theta).chi)
        assert smooth.DETUNED_WIDTH * (chi - 1) == pytest.approx(theta, abs=0.03)


def test_residual_networks_of_infinite_width_are_two_lines_of_recursion():
    """q' = q + q/2d and c' = c + E phi phi/d by the arc-cosine formula, d = 64."""
    q, rho = 1.0, 0.3
    for _ in range(64):
        angle = math.acos(rho)
        product = (math.sin(angle) + (math.pi - angle) * rho) / (2 * math.pi)
        rho = (rho + product / 64) / (1 + 1 / 128)
        q *= 1 + 1 / 128
    assert residual.at_depth(residual.RESIDUAL, 64, 0.3) == pytest.approx(rho, rel=1e-10)


def test_tailored_slopes_by_iterating_their_map():
    slope = shaping.slope_of(shaping.tailored(20))
    rho = 0.0
    for _ in range(20):
        angle = math.acos(rho)
        bend = (1 - slope) ** 2 / (1 + slope**2) / math.pi
        rho += bend * (math.sin(angle) - angle * rho)
    assert rho == pytest.approx(shaping.TARGET, rel=1e-9)


def test_paths_of_one_noise_converge_at_the_order_of_their_scheme():
    errors = solvers.strong_errors(4000)
    assert np.log2(errors[:-1] / errors[1:]) == pytest.approx([1, 1], abs=0.25)


# Verdicts ----------------------------------------------------------------------------------------


def test_every_claim_is_whole(verdicts):
    for claim in verdicts.claims:
        assert claim.paper in PAPERS
        assert claim.statement
        assert claim.verdict == "confirmed" or claim.note, claim.statement
    statements = [claim.statement for claim in verdicts.claims]
    assert len(set(statements)) == len(statements)
    assert all(len(line) <= 101 for line in str(verdicts).splitlines())


def test_a_few_networks_decide_little_and_what_is_exact_is_decided(verdicts):
    assert verdicts.counts["undecided"] > 15
    for text in (
        "have one limit in depth",
        "starts at q_0",
        "closed moments",
        "as slowly as 1/sqrt n",
        "as slow as log(n)/n",
        "generalised inverse Gaussian",
        "almost surely",
        "hyperbolic heat kernel",
    ):
        assert found(verdicts, text).verdict == "confirmed", text


def test_the_form_without_its_drift_is_refuted_even_by_few_networks(verdicts):
    assert found(verdicts, "the form without").verdict == "refuted"
    assert found(verdicts, "the law of log q at t = 0.5, without it").verdict == "refuted"


def test_bernoulli_is_no_drift(verdicts):
    law = dropout.jumps(QUICK)
    assert isinstance(law, SampleLaw)
    drift = found(verdicts, "drift has the law of networks with Bernoulli")
    jump = found(verdicts, "jump-diffusion of single drops")
    assert drift.verdict == "refuted"
    assert jump.ours < drift.ours


def test_the_tailored_slope_holds_in_a_window(verdicts):
    claim = found(verdicts, "the slope that is tailored")
    assert claim.verdict == "confirmed in a window"
    assert claim.ours < 0.5


# The command -------------------------------------------------------------------------------------


def test_claims_and_figures_are_written(written):
    out, verdicts = written
    assert verdicts.title == limits.TITLE
    assert {p.name for p in out.iterdir()} == {"claims.json", *limits.figures(QUICK)}
    record = json.loads((out / "claims.json").read_text())
    assert record["command"].endswith("limits --quick")
    assert record["counts"] == verdicts.counts
    for path in out.glob("*.svg"):
        assert path.stat().st_size < 300_000

"""Claims of 1912.09132: the authors' numbers as data, ours by other routes, and the verdicts."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch

from depthscale.finite.explicit import explicit_pairs
from depthscale.papers import __main__ as papers
from depthscale.papers import gradients
from depthscale.papers.claims import joined
from depthscale.papers.gradients import (
    linear,
    mechanisms,
    metrics,
    published,
    runs,
    speed,
    spread,
    steps,
)
from depthscale.papers.gradients import training as trained
from depthscale.papers.gradients.common import KEEPS, VARIANCES, factors, field, log_factors
from depthscale.theory.meanfield import MeanField

QUICK = gradients.Runs(quick=True)


@pytest.fixture(scope="module")
def verdicts():
    return joined(gradients.TITLE, [group(QUICK) for _, group in gradients.GROUPS])


def found(verdicts, text):
    (claim,) = [c for c in verdicts.claims if text in c.statement]
    return claim


# The authors' numbers ----------------------------------------------------------------------------


def test_a_few_published_numbers():
    """Read off the authors' files: data/gradient_lis/tanh_r9aa_s.csv, linear_n5_r6ab_g.csv in
    gradient_li, univer/tanh_n5_r9aa_st.csv, heatmap_r98_s3_l2, step/tanh2_orth_r98."""
    curve = published.curves()["3", "tanh", 0.9, "g_aa"]
    assert curve.layers[[0, -1]].tolist() == [0, 199]
    assert curve.values[[0, -1]] == pytest.approx([8.86e-14, 2.75e-4], rel=2e-3)
    assert published.curves()["2", "identity", 0.6, "g_ab"].values[-1] == pytest.approx(0.1567)
    wide = published.spreads()["tanh", 900, 0.9, "g_aa"]
    assert (wide.variance / wide.mean**2)[0] == pytest.approx(1.5517, rel=1e-3)
    panel = next(p for p in published.panels() if p.name == "f")
    assert (panel.rho, panel.accuracy[0, 0], len(panel.depths)) == (0.98, 0.933, 25)
    rates, steps = published.training_steps()[0.98, 10]
    assert steps[rates.argmax()] == 44


def test_published_tables_are_whole():
    assert len(published.curves()) == 2 * 5 + 3 * 20
    assert len(published.spreads()) == 3 * (20 + 4)
    for curve in published.curves().values():
        assert np.all(np.diff(curve.layers) > 0)
        assert np.all(np.isfinite(curve.values))
    for panel in published.panels():
        known = panel.accuracy[np.isfinite(panel.accuracy)]
        assert known.size > 0.85 * panel.accuracy.size
        assert np.all((known >= 0) & (known <= 1))


# Our numbers by other routes ---------------------------------------------------------------------


@pytest.mark.parametrize("rho", KEEPS)
def test_the_stated_sums_are_the_last_layers_by_hand(rho):
    """Last two layers of E = |h|^2, from E[g g'] = 4 E[h h'] E[x x'] and one step back."""
    single, pair = linear.stated(rho)
    q, p = 0.1 / (1 - 0.5 / rho), 0.1 / (1 - 0.5)
    assert single[-1] == pytest.approx(4 * q * q / rho)
    assert pair[-1] == pytest.approx(4 * p * p)
    # dE/dh below is x W^T W h: the weights that are met again add the second terms
    assert single[-2] == pytest.approx(4 * (q / rho) * (0.5 / rho) * q * (1 + 0.5 / rho**2))
    assert pair[-2] == pytest.approx(4 * p * 0.5 * p * (1 + 0.5 / rho**2))


def test_inputs_start_at_the_fixed_point():
    for network in (mechanisms.tanh(), mechanisms.relu(), field("identity", 0.7)):
        length, eps = runs.inputs(network)
        first = MeanField("identity", network.sigma_w, network.sigma_b)
        q, _, gap = (float(x) for x in first.pair_map(length, length, eps))
        assert gap == pytest.approx(float(network.eps))
        assert q == pytest.approx(1.0 if network.scale_free else float(network.q))


def test_the_sampler_agrees_with_explicit_weights_on_the_noise_floor():
    """Deep below the loss with ordinary weights in torch, the law in between: three routes."""
    width, depth = 64, 30
    explicit = explicit_pairs(
        [mechanisms.tanh()] * depth, [width] * (depth + 1), 0.65, 0.65, 0.6, nets=300, seed=5
    )
    cosine = np.sqrt(np.square(1 - explicit.gradient_eps[:, :10]).mean())
    # 300 networks, about three independent layers of ten: 3 %; the law is good to 1/n
    assert cosine == pytest.approx(mechanisms.floor(width).cosine, rel=0.12)


def test_a_rate_is_found_again_with_its_error():
    draws = np.random.default_rng(2).normal(size=(400, 1))
    layers = np.arange(20)
    values = np.exp(-0.3 * layers + 0.5 * draws)
    fit = mechanisms.fitted(values, 2, 15)
    assert fit.rate == pytest.approx(-0.3, abs=1e-9)  # one factor for all layers of a network
    noisy = values * (1 + np.random.default_rng(3).normal(size=values.shape))
    fit = mechanisms.fitted(noisy, 2, 15)
    assert abs(fit.rate + 0.3) < 4 * fit.error < 0.1


def test_half_depth_interpolates_and_is_open_where_accuracy_stays():
    depths = np.array([10.0, 20.0, 30.0, 40.0])
    accuracy = np.array([[0.9, 0.9], [0.9, 0.9], [0.3, 0.8], [0.1, 0.7]])
    panel = published.Panel("x", "", 1.0, "", 1, depths, np.array([1.0, 2.0]), accuracy)
    # half-way from 0.9 to 0.1 is 0.5, two thirds of the way from 0.9 to 0.3
    assert trained.half_depth(panel, 0) == pytest.approx(20 + 10 * 2 / 3)
    assert math.isinf(trained.half_depth(panel, 1))


def test_depth_scales_and_half_depth_of_a_known_column():
    """tanh, sigma_b^2 = 0.05: xi1 = 64, xi2 = 10.5 at rho = 0.98, sigma_w^2 = 1.8."""
    (half,) = [h for h in trained.halves() if (h.panel, h.variance) == ("f", 1.8)]
    assert (half.xi1, half.xi2) == (pytest.approx(63.85, abs=0.01), pytest.approx(10.53, abs=0.01))
    assert half.depth == pytest.approx(105, abs=0.5)


# Figure 6 trained anew ---------------------------------------------------------------------------


def layer_by_layer(network, inputs, generator):
    """Signals into every layer and the outputs before the last tanh, by plain operations."""
    signals = [inputs]
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        signal = torch.tanh(signals[-1] @ weight + bias)
        mask = torch.empty_like(signal).bernoulli_(network.rho, generator=generator)
        signals.append(signal * mask / network.rho)
    return signals, signals[-1] @ network.weights[-1]


@pytest.mark.parametrize("rho", [0.7, 1.0])
def test_a_step_goes_down_the_gradient_of_autograd(rho):
    start = steps.Network.drawn([64, 30, 30, 30, 10], rho, 5)
    images = steps.digits().draw(20)
    moved = start.copy(3)
    moved.descend(images.inputs, images.targets, 0.1)
    parameters = [x.requires_grad_() for x in start.weights + start.biases]
    top = layer_by_layer(start, images.inputs, torch.Generator().manual_seed(3))[1]
    logits = torch.tanh(top) + start.biases[-1]
    gradients = torch.autograd.grad(
        torch.nn.functional.cross_entropy(logits, images.targets), parameters
    )
    for old, new, slope in zip(parameters, moved.weights + moved.biases, gradients, strict=True):
        assert slope.norm() > 1e-3
        torch.testing.assert_close(new - old.detach(), -0.1 * slope, rtol=1e-3, atol=2e-7)


@pytest.mark.parametrize(("below", "above"), [(12, 12), (12, 40), (40, 12)])
def test_orthogonal_weights_keep_the_mean_square(below, above):
    turn = steps.orthogonal(below, above, torch.Generator().manual_seed(1)).double()
    gram = turn @ turn.T if below < above else turn.T @ turn
    torch.testing.assert_close(
        gram, torch.eye(min(below, above)).double() * max(1.0, above / below), rtol=0, atol=1e-5
    )
    # entries of mean square 1/below
    assert float(turn.square().mean()) == pytest.approx(1 / below, rel=1e-5)


class Scripted:
    """Improves by a tenth from one measurement of accuracy to the next."""

    def __init__(self, first):
        self.now = first - 0.1
        self.moves = 0

    def accuracy(self, _):
        self.now += 0.1
        return self.now

    def descend(self, *_):
        self.moves += 1


def test_steps_are_interpolated_between_measurements():
    network = Scripted(0.11)
    # 0.11, 0.21, 0.31 after 0, 8, 16 steps: 0.25 after 8 + 8 * 0.4
    assert steps.steps_taken(network, 0.1, 0) == pytest.approx(11.2)
    assert network.moves == 16
    assert steps.steps_taken(Scripted(0.3), 0.1, 0) == 0
    assert steps.steps_taken(Scripted(-9.0), 0.1, 0) == math.inf


def test_a_trained_network_is_slower_at_smaller_rates_and_drawn_again_alike():
    rates, taken = steps.trained(0.98, 20, 24, 1)
    assert np.all(np.diff(rates) > 0)
    assert np.all(taken[:2] > steps.MANY)
    assert set(rates) <= set(published.training_steps()[0.98, 20][0])
    # one seed at all rates: steps * rate is a property of the network, but for noise of batches
    assert np.ptp(speed.slow_products(rates, taken, steps.MANY)) < 0.5
    again = steps.trained.__wrapped__(0.98, 20, 24, 1)
    assert again.steps.tolist() == taken.tolist()


def test_a_network_that_knows_many_digits_untrained_is_left_out(monkeypatch):
    monkeypatch.setattr(steps, "LUCKY", 0.0)
    assert steps.trained.__wrapped__(0.98, 20, 24, 1).steps.size == 0


def test_a_power_of_depth_is_found_again():
    rates = np.geomspace(1e-4, 1e-1, 13)
    for power in (-1.0, 0.0):
        depths, products = [], []
        for depth in (20, 40, 80, 160):
            taken = 5 * depth**power / rates
            taken[-2:] = 1000  # beyond the best rate
            logs = speed.slow_products(rates, taken, 60)
            depths.append(depth)
            products.append(math.exp(logs.mean()))
        assert speed.exponent(np.array(depths), np.array(products))[0] == pytest.approx(power)


@pytest.mark.parametrize("rho", [0.8, 1.0])
def test_the_tangent_kernel_of_random_networks_is_the_predicted_one(rho, monkeypatch):
    """Explicit gradients of ten outputs before their tanh, under masks of their own."""
    monkeypatch.setattr(steps, "WEIGHT_VARIANCE", 1.3)
    monkeypatch.setattr(steps, "BIAS_VARIANCE", 0.1)
    width, depth, cosine = 300, 5, 0.6
    ones = torch.tensor([[1.0, 1.0], [cosine, math.sqrt(1 - cosine**2)]])
    found = []
    for seed in range(6):
        network = steps.Network.drawn([100, *[width] * (depth - 1), 10], rho, seed)
        plane = steps.orthogonal(100, 2, torch.Generator().manual_seed(seed)) * 10
        pair = torch.stack([plane[:, 0], ones[1] @ plane.T])
        for weight in network.weights:
            weight.requires_grad_()
        slopes = []
        for image, masks in zip(pair, (1, 2), strict=True):
            generator = torch.Generator().manual_seed(masks)
            top = layer_by_layer(network, image[None], generator)[1][0]
            slopes.append([torch.autograd.grad(t, network.weights, retain_graph=True) for t in top])
        found += [
            sum(float((a * b).sum()) for a, b in zip(one, other, strict=True)) / width
            for one, other in zip(*slopes, strict=True)
        ]
    theory = speed.kernels(rho, (1.3, 0.1), depth, 100 / width, np.array([cosine]))[-1, 0]
    # six networks of width 300: 2 %
    assert np.mean(found) == pytest.approx(theory, rel=0.06)


def test_cosines_are_those_of_the_digits():
    inputs, labels = steps.digits().inputs.double(), steps.digits().targets
    inputs = inputs / inputs.norm(dim=1, keepdim=True)
    cosines = inputs @ inputs.T
    same = labels[:, None] == labels
    own = torch.eye(len(labels), dtype=torch.bool)
    means = [float(cosines[which].mean()) for which in (same & ~own, ~same)]
    assert means == pytest.approx(speed.COSINES, abs=0.001)


def test_published_speeds_name_their_variances(verdicts):
    claim = found(verdicts, "contrast of the tangent kernel")
    assert claim.verdict == "confirmed"
    assert 0.2 < claim.ours < 0.5
    # neither a more isometric nor a less isometric critical point does better
    for other in ((1.0, 1e-6), (1.189, 1e-3), (1.986, 0.1)):
        assert np.std(speed.published_logs(other)) > 1.5 * claim.ours


def test_our_own_training_is_judged(verdicts):
    mine = [c for c in verdicts.claims if "training of our own" in c.statement]
    assert [c.stated for c in mine] == [-1.0, 0.0, 0.0]
    assert "not tested" not in {c.verdict for c in verdicts.claims}


# Verdicts ----------------------------------------------------------------------------------------


def test_every_claim_is_whole(verdicts):
    for claim in verdicts.claims:
        assert claim.paper == "1912.09132"
        assert claim.statement
        assert claim.verdict == "confirmed" or claim.note, claim.statement
    statements = [claim.statement for claim in verdicts.claims]
    assert len(set(statements)) == len(statements)
    assert all(len(line) <= 101 for line in str(verdicts).splitlines())


def test_the_stated_formula_is_exact_and_what_fails_is_the_average(verdicts):
    assert found(verdicts, "are exact in the limit").verdict == "confirmed"
    assert found(verdicts, "fails to predict g_ab").verdict == "refuted"
    assert found(verdicts, "g_ab does not follow chi_1").verdict == "refuted"


def test_the_published_loss_is_cross_entropy(verdicts):
    """One sampled value at the last layer: g_aa = |p - y|^2 chi_1 q_x/n of ten logits."""
    assert found(verdicts, "softmax cross-entropy").verdict == "confirmed"
    weight, bias = VARIANCES["identity"]
    q = bias / (1 - weight)
    logits = np.random.default_rng(1).normal(0, math.sqrt(q), (20000, 10))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    square = np.square(p - np.eye(10)[0]).sum(1).mean()
    theirs = published.curves()["3", "identity", 1.0, "g_aa"].values[-1]
    # 200 networks, sqrt(2/200) = 1 % and as much for the width of ten outputs
    assert theirs == pytest.approx(square * weight * q / 1000, rel=0.05)


def test_one_depth_scale_is_that_of_the_absolute_value(verdicts):
    shared = found(verdicts, "have one depth scale")
    assert shared.verdict == "confirmed in a window"
    assert shared.ours == pytest.approx(0.0, abs=0.3)
    assert found(verdicts, "mean |g_a g_b| follows chi_1").verdict == "confirmed"


def test_mechanisms_are_confirmed_one_by_one(verdicts):
    mine = [c for c in verdicts.claims if c.where == mechanisms.WHERE]
    assert len(mine) == 8
    assert {c.verdict for c in mine} == {"confirmed"}
    single, pair = factors(mechanisms.tanh())
    off = found(verdicts, "absolute value off")
    assert abs(off.ours - pair) < 0.1 * (single - pair)


def test_the_exponent_of_signed_products_is_that_of_a_sample_mean(verdicts):
    assert found(verdicts, "variance of g_ab grows").verdict == "refuted"
    # by the authors' numbers alone: median of z^-2 is 2.2 for any law that is normal
    values = [
        spread.visible(published.spreads()[name, 500, rho, "g_ab"])
        for name in VARIANCES
        for rho in KEEPS[:-1]
    ]
    ratios = np.concatenate([s.variance / s.mean**2 / s.nets for s in values])
    assert 1.2 < np.median(ratios) < 4.0


def test_published_slopes_are_those_of_one_depth_scale_only_with_the_absolute_value():
    """ReLU at rho = 0.8: ln chi_1 = -0.470, ln chi_2 = -0.935."""
    single, pair = log_factors("relu", 0.8)
    assert (single, pair) == (pytest.approx(math.log(0.625)), pytest.approx(-0.93479, abs=1e-5))
    curve = metrics.curve("relu", 0.8, "g_ab_abs")
    assert metrics.slope(curve.layers, np.log(curve.values)) == pytest.approx(single, abs=0.003)


def test_trainable_lengths(verdicts):
    assert found(verdicts, "6 xi2 (without dropout)").verdict == "confirmed"
    assert found(verdicts, "6 xi2 (with dropout)").verdict == "refuted"
    assert found(verdicts, "min(12 xi1, 8 xi2) is the best").verdict == "confirmed"
    free = found(verdicts, "without dropout steps are a function")
    assert free.ours == pytest.approx(-1.0, abs=0.05)


# The command -------------------------------------------------------------------------------------


def test_claims_and_figures_are_written(tmp_path, capsys, verdicts):
    assert papers.main(["gradients", "--quick", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{verdicts}\n"
    assert {p.name for p in tmp_path.iterdir()} == {"claims.json", *gradients.figures(QUICK)}
    record = json.loads((tmp_path / "claims.json").read_text())
    assert record["command"].endswith("gradients --quick")
    assert record["counts"] == verdicts.counts
    assert record["runs"]["networks"]["figure 3"] >= 16
    assert "torch" in record["versions"]
    for path in tmp_path.glob("*.svg"):
        assert path.stat().st_size < 300_000


def test_net_numbers_are_whole_blocks():
    full = partial(gradients.Runs(quick=False)._blocks, 1000)
    for width in (250, 1000, 4000):
        assert full(width) % runs.WORKERS == 0
        assert full(width) * runs._block(width) >= 1000

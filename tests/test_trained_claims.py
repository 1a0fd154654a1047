"""Claims on trained networks: verdicts on made-up runs of known truth, and the real runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from depthscale.answers import InputError
from depthscale.papers import __main__ as papers
from depthscale.papers.dropout import experiments, trials
from depthscale.papers.dropout.experiments import SAME_BUDGET, trained
from depthscale.papers.dropout.trials import TRIALS, Runs, planned
from depthscale.practice.trials import runner
from depthscale.practice.trials.plans import plan
from depthscale.practice.trials.runner import read_results

SEEDS = 6


@pytest.fixture(scope="module")
def trial():
    return plan(size="paper")


def written(path, trial, loss, selected=None, noise=1e-3) -> None:
    """A file of runs whose losses are given by arm, times a factor and noise by seed."""
    rng = np.random.default_rng(0)
    lines = [runner._header(trial, "made up")]
    for seed in range(SEEDS):
        common = 1 + 0.2 * rng.normal()
        for cell in trial.cells:
            for arm in cell.arms:
                record = {"cell": cell.name, "arm": arm.name, "seed": seed}
                for moment, rule in (("final", loss), ("selected", selected or loss)):
                    value = rule(cell, arm) * common * (1 + noise * rng.normal())
                    marks = {"cross_entropy": value, "accuracy": 0.5, "calibration_error": 0.1}
                    record[moment] = {"train": marks, "validation": marks, "test": marks}
                lines.append(record)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def early_is_better(cell, arm):
    """Less by a quarter for step than for uniform, more the later the noise comes."""
    rates = np.array(arm.rates)
    where = float(rates @ np.linspace(-1, 1, rates.size)) / max(float(rates.sum()), 1e-12)
    return {"none": 1.5, "uniform 2x": 0.9, "uniform 3x": 1.1}.get(arm.name, 1 + where * 0.25 / 0.6)


def claims_of(folder):
    trials._read.cache_clear()
    return trained(Runs(folder))


def found(claims, *words):
    (one,) = [c for c in claims if all(w in c.statement for w in words)]
    return one


@pytest.fixture(scope="module")
def claims(tmp_path_factory, trial):
    folder = tmp_path_factory.mktemp("runs")
    written(folder / "mlp.jsonl", trial, early_is_better)
    return claims_of(folder)


class TestVerdicts:
    def test_size_and_direction(self, claims):
        one = found(claims, "by 18-35 %")
        assert (one.verdict, one.ours) == ("confirmed", pytest.approx(-0.25, abs=0.005))
        assert found(claims, "by 1.4-2.5 %").verdict == "refuted"
        assert found(claims, "its mirror", "last epoch").verdict == "confirmed"
        assert found(claims, "a block of p = 0.2").verdict == "confirmed"
        assert found(claims, "a block of p = 0.2").ours == pytest.approx(1.25 / 0.75 - 1, abs=0.01)

    def test_controls(self, claims):
        assert found(claims, "uniform dropout of twice the rate", "last").verdict == "refuted"
        assert found(claims, "best early profile", "last").verdict == "confirmed"

    def test_objectives(self, claims):
        assert found(claims, "regularization reach tells").verdict == "confirmed"
        assert found(claims, "readout noise tells").verdict == "confirmed"
        assert found(claims, "preservation of signals tells").verdict == "refuted"

    def test_what_is_not_so_is_refuted(self, tmp_path, trial):
        written(tmp_path / "mlp.jsonl", trial, lambda cell, arm: 2 - early_is_better(cell, arm))
        claims = claims_of(tmp_path)
        for words in ("by 18-35 %", "by 1.4-2.5 %", "a block of p = 0.2", "reach tells"):
            assert found(claims, words).verdict == "refuted", words
        assert found(claims, "preservation of signals tells").verdict == "confirmed"

    def test_noise_alone_confirms_nothing(self, tmp_path, trial):
        written(tmp_path / "mlp.jsonl", trial, lambda cell, arm: 1.0)
        verdicts = {c.verdict for c in claims_of(tmp_path) if "experiments (MLP" in c.where}
        assert verdicts <= {"refuted", "undecided"}

    def test_loud_noise_decides_nothing(self, tmp_path, trial):
        """No effect, and intervals of some 10 %: they meet the stated ranges, and hold 0."""
        written(tmp_path / "mlp.jsonl", trial, lambda cell, arm: 1.0, noise=0.15)
        claims = claims_of(tmp_path)
        assert found(claims, "lowers the cross-entropy by 1.4-2.5 %").verdict == "undecided"
        assert found(claims, "twice the rate has a lower loss").verdict == "undecided"

    def test_sweeps(self, tmp_path):
        for name, cells in (("width", ("width 64",)), ("depth", ())):

            def loss(cell, arm, cells=cells):
                return 1.0 if cell.name in cells else early_is_better(cell, arm)

            written(tmp_path / f"{name}.jsonl", plan(size="paper", sweep=name), loss)
        claims = claims_of(tmp_path)
        assert found(claims, "sweep of width").verdict == "confirmed in a window"
        assert found(claims, "sweep of depth").verdict == "confirmed"
        drawn = experiments.trained_figures(Runs(tmp_path))
        assert set(drawn) == {"sweeps.svg"}
        drawn["sweeps.svg"](tmp_path / "sweeps.svg")
        assert "cross-entropy over uniform" in (tmp_path / "sweeps.svg").read_text()

    def test_both_vits(self, tmp_path):
        for name in ("component", "hf-vit"):
            written(tmp_path / f"{name}.jsonl", planned(name), early_is_better)
        claims = claims_of(tmp_path)
        assert found(claims, "vision transformers by 4-7 %").verdict == "refuted"  # by far more
        assert found(claims, "attention branch").verdict == "confirmed"
        one = found(claims, "its mirror in a Hugging Face ViT")
        assert (one.version, one.verdict) == ("ours", "confirmed")
        assert one.ours == pytest.approx(0.75 / 1.25 - 1, abs=0.01)
        assert "Over uniform at the last and the selected epoch: none +" in one.note
        drawn = experiments.trained_figures(Runs(tmp_path))
        assert set(drawn) == {"sweeps.svg", "vit.svg", "hf-vit.svg"}
        for name in ("vit.svg", "hf-vit.svg"):
            drawn[name](tmp_path / name)
            assert "over uniform (%)" in (tmp_path / name).read_text()
        flipped = lambda cell, arm: 2 - early_is_better(cell, arm)  # noqa: E731
        written(tmp_path / "hf-vit.jsonl", planned("hf-vit"), flipped)
        assert found(claims_of(tmp_path), "Hugging Face ViT").verdict == "refuted"

    def test_one_vit_without_the_other(self, tmp_path):
        written(tmp_path / "hf-vit.jsonl", planned("hf-vit"), early_is_better)
        claims = claims_of(tmp_path)
        assert found(claims, "vision transformers by 4-7 %").verdict == "not tested"
        assert found(claims, "Hugging Face ViT").verdict == "confirmed"
        assert set(experiments.trained_figures(Runs(tmp_path))) == {"hf-vit.svg"}

    def test_without_runs_nothing_is_tested(self, tmp_path):
        claims = claims_of(tmp_path)
        assert {c.verdict for c in claims} == {"not tested"}
        needs = found(claims, "Hugging Face ViT").note
        assert needs.startswith("depthscale trial --size small --network hf-vit --arms")
        assert experiments.trained_figures(Runs(tmp_path)) == {}
        assert Runs(tmp_path).provenance() == {}


def test_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(2)
    worth, losses = rng.normal(size=7).round(1), rng.normal(size=(7, 5))
    weights = rng.dirichlet(np.ones(5), size=4)
    ours = experiments._spearman(worth, losses)(weights)
    for value, w in zip(ours, weights, strict=True):
        assert value == pytest.approx(scipy.stats.spearmanr(worth, -(losses @ w)).statistic)


def test_schedules_that_are_ranked_have_one_budget(trial):
    rates = [trial.cells[0].arm(name).rates for name in SAME_BUDGET]
    assert np.mean(rates, axis=1) == pytest.approx(np.full(len(SAME_BUDGET), 0.1))
    assert len({tuple(r) for r in rates}) == len(rates)


def test_retrain_runs_every_trial_and_uses_it(tmp_path, monkeypatch):
    def tiny(size, **what):
        made = plan("mlp", "digits", arms=["none", "uniform", "step"], **what)
        cells = tuple(replace(c, sizes={**c.sizes, "width": 4}) for c in made.cells[:1])
        return replace(made, cells=cells, train=60, validation=20, test=30, epochs=1)

    monkeypatch.setattr(trials, "plan", tiny)
    monkeypatch.setattr(trials, "TRIALS", {"width": ({"sweep": "width"}, 3)})
    runs = trials.retrain(tmp_path / "runs", workers=1)
    results = runs.results("width")
    assert results is not None
    assert results.seeds("width 64") == (0, 1, 2)
    assert runs.provenance()["width"]["seeds"] == 3
    trials._read.cache_clear()


def test_retrain_takes_a_folder_and_the_paper(tmp_path, capsys):
    assert papers.main(["dropout", "--retrain"]) == 2
    assert "--retrain takes --out" in capsys.readouterr().err
    with pytest.raises(InputError, match="the others train"):
        papers.reproduce("gradients", tmp_path, retrain=True)


def test_quick_is_refused_where_no_networks_are_drawn(tmp_path, capsys):
    assert papers.main(["dropout", "--quick", "--out", str(tmp_path / "new")]) == 2
    assert "--quick is for the papers whose networks are random" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module", params=list(TRIALS))
def results(request):
    trials._read.cache_clear()
    found = trials._read(None, request.param)
    assert found is not None
    return request.param, found


class TestCommittedRuns:
    """The runs that come with the package are what their header says."""

    def test_settings_are_those_of_the_plan(self, results):
        name, found = results
        _, seeds = TRIALS[name]
        assert found.trial == planned(name)
        for cell in found.trial.cells:
            assert found.seeds(cell.name) == tuple(range(seeds))

    def test_arms_of_a_seed_start_alike(self, results):
        _, found = results
        first: dict = {}
        for (cell, arm, seed), run in found.runs.items():
            assert first.setdefault((cell, seed), run["initial"]) == run["initial"]
            rates = found.trial.cell(cell).arm(arm).rates_at(seed)
            assert tuple(run["rates"]) == rates
            assert not run["diverged"]
            assert len(run["curve"]) == found.trial.epochs

    def test_the_selected_epoch_is_that_of_the_least_validation_loss(self, results):
        _, found = results
        for run in found.runs.values():
            chosen = run["selected"]["epoch"]
            assert run["curve"][chosen - 1] == min(run["curve"])
            loss = run["selected"]["validation"]["cross_entropy"]
            assert loss == pytest.approx(run["curve"][chosen - 1], abs=6e-6)


def test_files_of_runs_read_back(tmp_path, trial):
    written(tmp_path / "mlp.jsonl", trial, early_is_better)
    assert read_results(tmp_path / "mlp.jsonl").seeds("mlp") == tuple(range(SEEDS))

"""Schedules: budgets, the exact recursion against the maps, optima against exhaustive search."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from depthscale import cli
from depthscale.answers import InputError
from depthscale.commands.schedules import OBJECTIVES
from depthscale.practice.optimise import optimise_schedule
from depthscale.practice.schedule import PROFILES, Budget, Schedule, profile
from depthscale.practice.schedules.objectives import SENSE, Landscape
from depthscale.practice.schedules.optimise import evaluate_schedule
from depthscale.practice.schedules.recursion import Recursion
from depthscale.theory.criticality import critical_point
from depthscale.theory.meanfield import MeanField
from depthscale.theory.universal.reach import (
    reach_ratio,
    regularization_reach,
    surrogate_depth_scale,
)

RELU = MeanField("relu", sigma_w=2**0.5)
TANH = MeanField("tanh", float(critical_point("tanh", sigma_b=0.1**0.5).sigma_w), 0.1**0.5)
NETWORKS = {
    "relu": RELU,
    "tanh": TANH,
    "relu, bias": MeanField("relu", 1.1, 0.3),
    "gelu": MeanField("gelu", 1.1, 0.5),
    "hardtanh, chaotic": MeanField("hardtanh", 1.5, 0.2),
}
FRONT, UNIFORM, BACK = [0.2] * 3 + [0.0] * 3, [0.1] * 6, [0.0] * 3 + [0.2] * 3
BUDGET = Budget(mean=0.1, cap=0.2)
AS_TEXT = Schedule([0.1]).to_json().replace("0.1", '"0.1"')


# Values ------------------------------------------------------------------------------------------


def test_values_of_six_layers():
    # derived with an independent recursion, all digits that were written down
    stated = {
        "signal": (2.168834913, 1.844329510, 1.213121033),
        "noise": (0.233487544, 0.334991000, 0.422555426),
        "exposure": (1.810751399, 1.459053614, 0.960859650),
        "snr": (0.155802712, 0.137812155, 0.142882040),
    }
    found = Landscape(RELU, 6, 0.1, 0.2).table([FRONT, UNIFORM, BACK])
    for name, values in stated.items():
        assert found[name] == pytest.approx(values, abs=1e-9), name


def test_surrogate_depth_scales_of_profiles():
    names = ("uniform", "step", "big-step", "linear")
    rates = [profile(name, 6, 0.1).rates for name in names]
    xi = Landscape(RELU, 6, 0.1, 0.3).values("xi", rates)
    assert xi == pytest.approx([3.2042483, 5.0864271, 6.6651051, 3.7278129], abs=1e-5)
    law = RELU.law().at(detuning=0.0, dropout_field=0.0)
    assert xi == pytest.approx([surrogate_depth_scale(law, row) for row in rates], rel=1e-12)


def test_reach_of_deep_networks_is_that_of_the_continuum():
    # sum over layers against the integral: the first Euler-Maclaurin term is of order 1/L
    scene = Landscape(RELU, 20_000, 1e-12, 3e-12)
    tau = scene.depth / scene.paper.depth_scale
    for fraction, cap in ((1 / 2, 2e-12), (1 / 3, 3e-12)):
        front = np.zeros(scene.depth)
        front[: round(scene.depth * fraction)] = cap
        uniform = np.full(scene.depth, front.mean())
        ratio = np.divide(*scene.values("reach", np.stack([front, uniform])))
        assert ratio == pytest.approx(float(reach_ratio(tau, fraction)), rel=3e-4)
    scene = Landscape(RELU, 6, 0.1, 0.2)
    expected = regularization_reach(FRONT, scene.paper.depth_scale)
    assert scene.values("reach", [FRONT])[0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", NETWORKS)
def test_recursion_is_that_of_the_maps(name):
    # the table is exact to 1e-12 of a map; twelve layers keep that to 1e-10
    network, rng = NETWORKS[name], np.random.default_rng(1)
    rates = rng.uniform(0, 0.3, 12) * (rng.random(12) < 0.7)
    recursion = Recursion(network, 12, 0.3)
    steps = recursion.follow(rates[None], (0.0, 0.5, 1.0))
    slopes, factors = recursion.slopes(steps), recursion.factors(steps)[0]
    q, eps = np.full(3, recursion.q0), np.array([0.0, 0.5, 1.0])
    for layer, rate in enumerate(rates):
        one = replace(network, drop=rate)
        assert slopes[layer, 0] == pytest.approx(one.gap_slope(q, q, eps), rel=1e-9)
        factor = float(np.log(one.gradient_factor_at(q[0])))
        assert factors[layer, 0] == pytest.approx(factor, abs=1e-10)
        field = one.pair_map(q, q, 0.0)[2][0]
        q, _, eps = one.pair_map(q, q, eps)
        q = np.full(3, recursion.q0) if network.scale_free else q
        assert steps.h[layer, 0] == pytest.approx(field, rel=1e-10, abs=1e-15)
        assert steps.eps[layer + 1, 0] == pytest.approx(eps, rel=1e-10, abs=1e-15)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_faded_signals_follow_the_slopes(name):
    # next to where the difference of two paths still has five digits, both agree to those
    scene = Landscape(NETWORKS[name], 45, 0.1, 0.1)
    x = np.full((1, 45), 0.1)
    eps = scene.recursion.follow(x, (0.0, 0.5)).eps[-1, 0]
    plain = (eps[1] - eps[0]) / eps[0]
    assert 1e-12 < plain < 1e-3
    assert scene.values("snr", x)[0] == pytest.approx(plain, rel=1e-14 / plain + 1e-5)
    assert 0 < Landscape(NETWORKS[name], 1000, 0.1, 0.1).values("snr", [[0.1] * 1000])[0] < 1e-60


@pytest.mark.parametrize("of", ["drop", "field"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_finite_differences(name, of):
    rng = np.random.default_rng(2)
    for depth in (1, 2, 7, 60):
        scene = Landscape(NETWORKS[name], depth, 0.1, 0.3, kind=of)
        x, along = rng.uniform(0.05, 0.25, (2, depth)), rng.normal(size=(2, depth))
        for objective in (*SENSE, {"signal": 1.0, "noise": 2.0, "snr": 0.5}):
            up, down = (scene.losses(objective, x + s * 1e-5 * along) for s in (1, -1))
            exact = scene.gradients(objective, x)
            # third derivatives times 1e-10, and rounding of the losses over 2e-5
            size = np.linalg.norm(exact, axis=1) * np.linalg.norm(along, axis=1) + 1
            assert np.all(abs((up - down) / 2e-5 - (exact * along).sum(1)) < 3e-6 * size), objective


def test_evaluation_of_a_given_schedule():
    found = evaluate_schedule(RELU, Schedule(FRONT))
    signal = found.objectives["signal"]
    values = (signal.schedule, signal.uniform, signal.mirrored)
    assert values == pytest.approx((2.168834913, 1.844329510, 1.213121033), abs=1e-9)
    # among 1,000 permutations of twenty orders is the best one
    assert signal.best_random == pytest.approx(1.213121033, abs=1e-9)
    none = evaluate_schedule(RELU, Schedule([0.0, 0.0]), permutations=2).objectives
    assert not none["snr"].schedule
    assert "no noise" in none["snr"].schedule.reason


# Schedules and budgets ---------------------------------------------------------------------------


def test_orders_of_a_schedule():
    schedule = Schedule([0.3, 0.1, 0.0, 0.2])
    assert schedule.mirrored().mirrored() == schedule
    assert sorted(schedule.permuted(3).rates) == sorted(schedule.rates)
    assert schedule.permuted(3) == schedule.permuted(3)
    assert schedule.scaled(2).mean == pytest.approx(2 * schedule.mean)
    assert Schedule.from_json(schedule.to_json()) == schedule


def test_rates_move_and_the_names_of_sites_stay(tmp_path):
    names = ("block.0.drop", "\x1b[31m", "long." * 10 + "end")
    schedule = Schedule([0.3, 0.1, 0.0], names)
    for other in (schedule.mirrored(), schedule.permuted(1), schedule.scaled(0.5)):
        assert other.sites == names
    assert schedule.mirrored().rates == (0.0, 0.1, 0.3)
    schedule.save(tmp_path / "a.json")
    assert Schedule.load(str(tmp_path / "a.json")) == schedule
    assert [line[:32].rstrip() for line in str(schedule).splitlines()] == [
        "block.0.drop", r"\x1b[31m", "....long.long.long.long.long.end",
    ]  # fmt: skip


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize(("depth", "cap"), [(1, 0.2), (5, 0.12), (6, 0.3), (100, 0.15)])
def test_profiles_meet_their_budget(name, depth, cap):
    schedule = profile(name, depth, 0.1, cap)
    assert schedule.mean == pytest.approx(0.1, abs=1e-15)
    assert max(schedule.rates) <= cap
    if name + "-late" in PROFILES:
        assert profile(name + "-late", depth, 0.1, cap) == schedule.mirrored()


def test_timm_is_a_line_from_zero():
    assert profile("timm", 6, 0.05).rates == pytest.approx(np.linspace(0, 0.1, 6), abs=1e-15)


def test_projection_is_the_nearest_schedule_of_the_budget():
    rng = np.random.default_rng(0)
    budget = Budget(mean=0.1, cap=0.2, floor=0.02, weights=(1.0, 2.0, 0.5, 1.0, 3.0))
    far = rng.normal(0.1, 0.2, (20, 5))
    near = budget.project(far)
    others = budget.project(rng.normal(0.1, 0.2, (200, 5)))
    assert max(budget.violation(row) for row in near) < 1e-15
    for point, row in zip(far, near, strict=True):  # obtuse to every other schedule
        assert np.all((others - row) @ (point - row) < 1e-12)


def test_projection_leaves_sites_off_that_are_off():
    # noise of 1e-15 would hide what decays below it in an ordered network
    budget, front = Budget(mean=0.1, cap=0.2), np.repeat([0.2, 0.0], 500)
    assert np.array_equal(budget.project(front), front)
    ordered = MeanField("relu", 1.1, 0.3)
    found = optimise_schedule(ordered, 1000, budget, "noise", permutations=0)
    assert found.schedule.rates == tuple(front)
    assert found.objectives["noise"].schedule < 1e-100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule([0.1, 1.0]), r"site 2 is 1; expected a probability in \[0, 1\)"),
        (lambda: Schedule([-0.1]), "site 1 is -0.1"),
        (lambda: Schedule([]), "expected one for each site"),
        (lambda: Schedule([0.6]).scaled(2), "site 1 is 1.2"),
        (lambda: Schedule([0.1], "a"), "expected the names of 1 sites"),
        (lambda: Schedule([0.1, 0.2], ["a"]), "1 sites for 2 rates"),
        (lambda: Schedule([0.1, 0.2], ["a", "a"]), "'a' is named more than once"),
        (lambda: Schedule([0.1], [None]), "a site is named None; expected a text"),
        (lambda: Budget(mean=0.3, cap=0.2), "the nearest is the mean 0.2"),
        (lambda: Budget(mean=0.1, cap=0.2, floor=0.15), "the nearest is the mean 0.15"),
        (lambda: Budget(cap=0.2), "give one of them"),
        (lambda: Budget(mean=0.1, cap=1.0), "cap < 1"),
        (lambda: Budget(total=5, cap=0.5).mean_at(4), r"nearest is the mean 0.5 \(total 2\)"),
        (lambda: Budget(mean=0.1, weights=(1.0, 0.0)), "one positive number"),
        (lambda: Budget(mean=0.1, weights=(1.0, 1.0)).project([0.1]), "weighs 2 sites, not 1"),
        (lambda: Budget(mean=0.1, of="noise"), "expected 'drop' or 'field'"),
        (lambda: profile("steps", 6, 0.1), "expected uniform, step"),
        (lambda: profile("step", 0, 0.1), "whole number of sites"),
        (lambda: optimise_schedule(RELU, 2.5, BUDGET), "whole number of sites"),
        (lambda: optimise_schedule(RELU, 2, BUDGET, 3), "expected a name"),
        (lambda: Schedule.from_json("[0.1]"), "no schedule"),
        (lambda: Schedule.from_json("{"), "must be JSON"),
        (lambda: Schedule.from_json('{"format": "depthscale-schedule"}'), "version is None"),
        (lambda: Schedule.from_json(AS_TEXT), "expected a list of numbers"),
        (lambda: optimise_schedule(RELU, 6, BUDGET, "speed"), "expected signal, noise"),
        (lambda: optimise_schedule(RELU, 6, BUDGET, {}), "finite weight"),
        (lambda: Landscape(replace(RELU, masks="shared"), 6, 0.1, 0.2), "independent masks"),
        (lambda: Landscape(MeanField("power(0.75)", 1.0), 6, 0.1, 0.2), "cusp"),
        (lambda: Landscape(MeanField("relu", 1.41, 0.1), 50, 0.1, 0.5), "lengths would run"),
        (lambda: Landscape(RELU, 0, 0.1, 0.2), "1 to 20000 sites"),
        (lambda: Landscape(RELU, 6, 0.1, 0.2).values("noise", [[0.1]]), r"expected \(N, 6\)"),
        (lambda: Landscape(RELU, 2, 0.1, 0.2).values("noise", [[0.3, 0]]), r"outside \[0, 0.2\]"),
    ],
)  # fmt: skip
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


# The command -------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def command(line: str) -> tuple[int, str, str]:
        code = cli.main(["schedule", *line.split()])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def test_command_prints_the_optimum(run, tmp_path):
    for objective in OBJECTIVES:
        line = f"--activation relu --depth 6 --mean .1 --cap .2 --objective {objective} --json"
        code, out, _ = run(line)
        found = json.loads(out)
        best = optimise_schedule(RELU, 6, BUDGET, objective, permutations=0)
        assert code == 0
        assert found["rates"] == pytest.approx(best.schedule.rates, abs=1e-9)
        assert set(found["objectives"]) == set(SENSE) == set(OBJECTIVES)
        assert {"schedule", "uniform", "mirrored", "best_random"} <= set(found["objectives"]["xi"])
        assert found["certificate"]["budget_violation"] < 1e-9
        assert found["helps"] == (objective != "gradient")
    code, out, err = run("--activation tanh --objective snr --save best.json")
    saved = Schedule.from_json((tmp_path / "best.json").read_text())
    assert (code, err) == (0, "wrote best.json\n")
    best = optimise_schedule(TANH, 6, BUDGET, "snr", permutations=0)
    assert saved.rates == pytest.approx(best.schedule.rates, abs=1e-6)


def test_command_evaluates(run):
    code, out, _ = run("--evaluate .2,.2,.2,0,0,0 --json")
    found = json.loads(out)
    assert code == 0
    assert found["objectives"]["signal"]["schedule"] == pytest.approx(2.168834913, abs=1e-9)
    assert found["objectives"]["signal"]["surrogate"]["schedule"] == pytest.approx(6 / 5.0864271)
    assert "certificate" not in found
    found = json.loads(run("--evaluate 0,0 --json")[1])
    assert found["objectives"]["snr"]["schedule"] is None
    assert "no noise" in found["reasons"]["objectives.snr"]


def test_command_takes_budgets_and_mixes(run):
    line = "--objective noise:1,signal:.5 --weights 1,1,2,2 --total .6 --cap .3 --floor .01 --json"
    found = json.loads(run(line)[1])
    budget = Budget(total=0.6, cap=0.3, floor=0.01, weights=(1.0, 1.0, 2.0, 2.0))
    best = optimise_schedule(RELU, 4, budget, {"noise": 1.0, "signal": 0.5}, permutations=0)
    assert found["rates"] == pytest.approx(best.schedule.rates, abs=1e-9)
    assert np.dot(found["rates"], found["weights"]) == pytest.approx(0.6, abs=1e-12)
    assert found["mix"] == {"noise": 1.0, "signal": 0.5}
    assert found["objectives"]["mix"]["schedule"] == pytest.approx(
        best.objectives["mix"].schedule, abs=1e-9
    )
    assert (found["mean"], found["total"], found["floor"]) == (None, 0.6, 0.01)
    assert min(found["rates"]) >= 0.01
    found = json.loads(run("--activation tanh --of field --objective exposure --json")[1])
    assert found["of"] == "field"
    assert found["mean_rate"] > 0.1
    assert found["cap"] == 0.2
    text = run("--activation tanh --of field --objective noise:1,signal:2 --floor .02")[1]
    assert max(len(row) for row in text.splitlines()) <= 100
    assert "mix goes from" in text


def test_command_for_a_reader(run):
    _, out, _ = run("--objective signal")
    assert "signal goes from 1.844 (uniform) to 1.213" in out
    assert "6  0.2  ####" in out
    assert max(len(line) for line in out.splitlines()) <= 100
    assert "no benefit expected" in run("--objective gradient")[1]
    assert "objective" in run("--evaluate 0,0")[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--mean .3 --cap .2", "the nearest is the mean 0.2"),
        ("--evaluate .2,1.5", "site 2 is 1.5"),
        ("--evaluate .2,x", "finite number"),
        ("--evaluate .2,.1 --depth 2", "leave --depth out"),
        ("--depth 2000", "at most 1000"),
        ("--objective speed", "invalid choice"),
        ("--objective noise:1,signal", "with its weight"),
        ("--objective noise:1,noise:2", "each objective once"),
        ("--mean .1 --total .6", "not allowed with"),
        ("--total 9 --cap .2", "nearest is the mean 0.2"),
        ("--floor .2 --mean .1", "the nearest is the mean 0.2"),
        ("--weights 1,0", "one positive number"),
        ("--weights 1,2 --depth 3", "weighs 2 sites, not 3"),
        ("--evaluate .2,.1 --floor 0", "leave --floor out"),
        ("--evaluate .2,.1 --weights 1,2", "leave --weights out"),
        ("--activation softplus", "no critical point"),
        ("--save best.csv", "expected .json"),
        ("--eps0 0", "misalignment in"),
    ],
)
def test_command_refuses(run, line, message):
    code, _, err = run(line)
    assert code == 2
    assert message in err

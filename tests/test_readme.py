"""The README says what is true now: its Python runs, its numbers hold, its map names every file."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

import depthscale as ds
from depthscale.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile("\n".join(blocks), "README.md", "exec"), {})
    assert (tmp_path / "report.html").exists()


def test_numbers_of_the_mean_field():
    field = ds.MeanField("tanh", sigma_w=1.7, sigma_b=0.3, drop=0.1)
    comment = re.search(r"correlation  # ([\d., ]+) layers", TEXT).group(1)
    values = (field.q, field.eps, field.chi, field.depth_scale.correlation)
    assert comment == ", ".join(f"{value:.2f}" for value in values)


def test_numbers_of_the_laws():
    record = ds.universality("hardtanh", sigma_b=0.1**0.5, drop=1e-3)
    stated = re.search(r"record.kappa, record.amplitude  # ([\d.]+), ([\d.]+)", TEXT).groups()
    assert stated == (f"{record.kappa:g}", f"{record.amplitude:.4f}")
    stated = re.search(r"record.eps.relative_error  # (.*)", TEXT).group(1).split(", ")
    law = record.eps
    values = (f"{law.exact:.5f}", f"{law.leading_order:.5f}", f"{law.relative_error:.5f}")
    assert tuple(stated) == values
    leaves = ds.universality("gelu", sigma_b=0.1, drop=0.1).transient.leaves_after
    assert f"leaves_after  # {leaves:.0f} layers" in TEXT


def test_screen_of_a_class_is_what_the_command_prints(capsys):
    screen = re.search(r"```\n\$ depthscale (universality [^\n]*)\n(.*?)```", TEXT, re.DOTALL)
    assert main(screen.group(1).split()) == 0
    assert capsys.readouterr().out == screen.group(2)


def test_headline_of_a_simulation_is_what_the_command_prints(capsys):
    screen = re.search(r"```\n\$ depthscale (simulate [^\n]*)\n\.\.\.\n(.*?)```", TEXT, re.DOTALL)
    assert main(screen.group(1).split()) == 0
    assert screen.group(2) in capsys.readouterr().out


def test_screen_of_a_band_is_what_the_command_prints(capsys):
    screen = re.search(r"```\n\$ depthscale (band [^\n]*)\n(.*?)```", TEXT, re.DOTALL)
    assert main(shlex.split(screen.group(1))) == 0
    assert capsys.readouterr().out == screen.group(2)


def test_screens_of_transitions_are_what_the_commands_print(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    section = TEXT.split("## Transitions, and exponents to trust")[1].split("\n## ")[0]
    blocks = re.findall(r"```\n(\$ .*?)```", section, re.DOTALL)
    screens = [s for block in blocks for s in re.split(r"^\$ depthscale ", block, flags=re.M) if s]
    assert len(screens) == 3
    for screen in screens:
        command, shown = screen.split("\n", 1)
        main(shlex.split(command))
        printed = capsys.readouterr().out
        for part in re.split(r"^\.\.\.\n", shown, flags=re.M):
            assert part.strip("\n") in printed


def test_windows_of_convolutional_networks_are_those_that_were_reproduced():
    claims = json.loads((ROOT / "reproduced" / "absorbing" / "claims.json").read_text())["claims"]
    text = " ".join(TEXT.split())
    for window in ("20 to 200", "80 to 800"):
        start = f"shared weights, depths {window}: delta"
        (claim,) = (c for c in claims if c["statement"].startswith(start))
        error = float(re.search(r"one standard error of ours is ([\d.]+)", claim["note"]).group(1))
        assert f"{window}: " in text
        assert f"{claim['ours']:.3f} ± {error:.3f}" in text


def test_numbers_of_transitions():
    tanh = ds.absorbing_transition("tanh", sigma_b=0.3)
    stated = re.search(r"tanh.boundary\(64\), tanh.mu  # ([\d.]+), ([\d.]+), ([\d.]+):", TEXT)
    values = (f"{tanh.sigma_w:.4f}", f"{tanh.boundary(64):.4f}", f"{tanh.mu:.3f}")
    assert stated.groups() == values
    small, large = tanh.scaling_in_size([0.5, 2.0])
    assert f"scaling_in_size([0.5, 2.0])  # {small:.2f}, {large:.3f}:" in TEXT
    response = ds.field_response(tanh.layer).response_exponent("mean")
    assert f'response_exponent("mean")  # {response:.3f}:' in TEXT
    low, high = ds.plan_depth("digits", "tanh", depth=60).sigma_b_window
    assert f"sigma_b_window  # {low:.3g} to {high:.3g}:" in TEXT


def test_numbers_of_real_width():
    slope = ds.shape("relu", depth=100, target=0.9).slope
    assert f"A leaky ReLU of slope {slope:.5f} brings" in TEXT
    limit = ds.stochastic_limit(ds.MeanField("relu", sigma_w=2**0.5))
    stated = re.search(r"limit.curvature, limit.variance, limit.lam  # (.*)", TEXT).group(1)
    assert stated == f"{limit.curvature:.4f}, {limit.variance:g}, {limit.lam:g}"
    stated = re.search(r"inverse_moments\(0.5\).mean  # ([\d.]+):", TEXT).group(1)
    assert stated == f"{limit.equation().inverse_moments(0.5).mean:.4f}"


@pytest.mark.parametrize(
    ("paper", "stated"),
    [
        ("dropout", "claims of the paper"),
        ("gradients", "claims on gradients"),
        ("limits", "claims on limits"),
        ("absorbing", "claims on transitions"),
    ],
)
def test_verdicts_are_those_that_were_reproduced(paper, stated):
    counts = json.loads((ROOT / "reproduced" / paper / "claims.json").read_text())["counts"]
    total = sum(counts.values())
    text = " ".join(TEXT.split())
    told = text.split(f"[{total} {stated}]")[1][:250]
    for verdict, count in counts.items():
        assert f"{count} {verdict}" in told, verdict


def test_speeds_are_those_that_were_measured():
    rows = json.loads((ROOT / "benchmarks" / "results" / "ensemble.json").read_text())["rows"]
    row = next(row for row in rows if row.get("width") == 1024 and "required" in row)
    text = " ".join(TEXT.split())
    ms, times = row["ms"], row["times the default's"]
    assert f"takes {ms['mixed']:.2f} ms, {ms['double']:.2f} ms in double precision" in text
    for precision, words in (("double", "in double precision"), ("single", "in single precision")):
        by_hand, autograd = (times[f"{peer}, {precision}"] for peer in ("by hand", "autograd"))
        assert f"{by_hand:,.0f} and {autograd:,.0f} times less than these {words}" in text
    forward = next(row for row in rows if row.get("passes") == "forward")  # by default, no dropout
    assert (forward["precision"], forward["drop"]) == ("mixed", 0.0)
    assert f"Forwards, {forward['of_own_bound']:.0%}".replace("%", " %") in text


def test_speeds_of_the_limits_are_those_that_were_measured():
    results = ROOT / "benchmarks" / "results"
    rows = json.loads((results / "limits.json").read_text())["rows"]
    text = " ".join(TEXT.split())

    def ratios(times, error):
        found = {
            row["peer"]: row
            for row in rows
            if (row.get("times"), row.get("weak_error")) == (times, error)
        }
        return (f"{found[peer]['ratio']:.0f}" for peer in ("torchsde", "diffrax")), found

    (torchsde, diffrax), found = ratios(1, 1e-4)
    assert f"takes {found['diffrax']['ours_ns']:.1f} ns at a weak error of 1e-4" in text
    assert f"{torchsde} times less than with torchsde and {diffrax} times less than" in text
    (torchsde, diffrax), _ = ratios(1, 1e-3)
    assert f"at an error of 1e-3, {torchsde} and {diffrax} times" in text
    (torchsde, diffrax), _ = ratios(8, 1e-4)
    assert f"an error of 1e-4, {torchsde} and {diffrax} times" in text
    density = next(row for row in rows if row["what"] == "density")
    networks = next(row for row in rows if row["what"] == "networks")
    assert f"takes {density['seconds']:.2f} s and errs by {density['quantile_error']:.0e}" in (
        text.replace("4e-8", "4e-08")
    )
    assert f"exact networks need {networks['seconds_for_1e-3']:,.0f} s" in text
    shaping = json.loads((results / "shaping.json").read_text())
    low, high = shaping["ratios_dks_over_us"]
    assert f"to {shaping['least_agreeing_digits']:.1f} digits or more" in text
    assert f"take {low:.0f} to {high:.0f} times less" in text


NAMES = (
    "theory|critical|phase|universality|law|simulate|limit|band|shape|schedule|plan|collapse|"
    "identify|lattice"
)
COMMANDS = rf"\| `depthscale ((?:{NAMES}) [^`]*)` \|"


# Those of a reader's own model.py are run in tests of their commands.
@pytest.mark.parametrize("command", [c for c in re.findall(COMMANDS, TEXT) if ".py" not in c])
def test_commands_of_the_table_run(command, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main([*shlex.split(command), "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")


def test_map_names_every_file():
    map_ = TEXT.split("## Map of the house")[1].split("## Limits")[0]
    for path in (ROOT / "src" / "depthscale").rglob("*.py"):
        room = path.relative_to(ROOT / "src" / "depthscale").parts
        own = len(room) < 3 and room[0] not in ("report", "commands")
        named = path.name if own else f"{room[-2]}/"
        if path.name not in ("__init__.py", "__main__.py"):
            assert named in map_, path


def test_effects_of_training_are_those_of_the_runs():
    from depthscale.papers.dropout.experiments import effect
    from depthscale.papers.dropout.trials import Runs
    from depthscale.practice.trials.statistics import best_dose

    results = Runs().results("mlp")
    assert len(results.seeds("mlp")) == 20
    rows = dict(re.findall(r"^\| .*\((step|big-step|step-late)\) \| (.*) \|$", TEXT, re.MULTILINE))
    rows["uniform 2x"] = re.search(r"^\| twice the rate everywhere \| (.*) \|$", TEXT, re.M).group(
        1
    )
    rows["none"] = re.search(r"^\| no dropout \| (.*) \|$", TEXT, re.MULTILINE).group(1)
    assert len(rows) == 5
    for arm, row in rows.items():
        found = (effect(results, arm, "uniform", moment) for moment in ("final", "selected"))
        assert row == " | ".join(map(str, found))
    tuned = [
        str(effect(results, "big-step", best_dose(results, "mlp", moment), moment))
        for moment in ("final", "selected")
    ]
    text = " ".join(TEXT.split())
    assert f"by {tuned[0]} at the last epoch and {tuned[1]} at the chosen one" in text
    dose = best_dose(results, "mlp", "selected")
    a, b = (results.values("mlp", arm, "accuracy", "selected") for arm in ("big-step", dose))
    assert f"which is {100 * (a - b).mean():.2f} points of accuracy there" in text
    swept = Runs().results("budget")
    assert f"after {swept.trial.epochs} epochs, 5 or 6 seeds" in text
    told = text.split("It depends on the setting")[1].split("In small networks")[0]
    for sweep, cells in (
        ("budget", ("mean 0.02", "mean 0.05", "mean 0.1", "mean 0.2")),
        ("width", ("width 1024",)),
        ("depth", ("depth 12",)),
    ):
        for cell in cells:
            found = effect(Runs().results(sweep), "step", "uniform", "final", cell)
            assert f"{100 * found.value:+.1f} " in told, cell


@pytest.mark.parametrize(
    ("words", "name", "cell"),
    [
        ("vision transformer", "component", "both"),
        ("the same in Hugging Face's code", "hf-vit", "hf-vit"),
        ("residual CNN, stochastic depth", "resnet", "resnet"),
    ],
)
def test_effects_of_branches_are_those_of_the_runs(words, name, cell):
    from depthscale.papers.dropout.experiments import effect
    from depthscale.papers.dropout.trials import Runs

    results = Runs().results(name)
    row = re.search(rf"^\| {words} \| (.*) \|$", TEXT, re.MULTILINE).group(1)
    arms = ("step", "step-late", "uniform 2x")
    assert row == " | ".join(str(effect(results, arm, "uniform", "final", cell)) for arm in arms)
    assert len(results.seeds(cell)) == 6
    none = 100 * effect(results, "none", "uniform", "final", cell).value
    told = TEXT.split("late dropout is little better than none (")[1].split(" %)")[0].split(", ")
    assert f"{none:+.1f}" in told

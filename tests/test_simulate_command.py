"""The command that samples networks: its JSON is the library's, beside the theory, without gaps."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.finite.sampled import Sampled
from depthscale.report.simulation_summaries import headline
from depthscale.report.simulations import plot_simulation
from depthscale.theory.finite_width import finite_width
from depthscale.theory.gradients import predict_gradients
from depthscale.theory.meanfield import MeanField, propagate

TANH = "simulate --activation tanh --sigma-w 1.4 --sigma-b 0.3"
SMALL = f"{TANH} --drop 0.1 --width 48 --depth 5 --nets 60"
OBSERVED = ("q", "eps", "grad_aa", "grad_ab", "grad_ab_abs")
# A statistic of so many errors is off by chance in one of 2e6 normal comparisons.
ERRORS = 5


@pytest.fixture
def answer(run):
    """Run the command with --json; return the one object of a good answer."""

    def command(line: str) -> dict:
        def refuse(constant: str):
            raise AssertionError(f"{constant} is not JSON")

        code, out, err = run(f"{line} --json")
        assert (code, err) == (0, "")
        return json.loads(out, parse_constant=refuse)

    return command


def gaps(value, path=""):
    """The dotted keys of all nulls, or of the lists that hold them."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from gaps(inner, f"{path}.{key}" if path else key)
    elif value is None or (isinstance(value, list) and None in value):
        yield path


class TestContract:
    def test_is_the_library_to_the_last_digit(self, answer):
        found = answer(f"{SMALL} --eps0 0.3 --q0 2 --seed 7 --backward --loss readout")
        networks = Ensemble("tanh", 1.4, 0.3, width=48, depth=5, drop=0.1)
        result = networks.backward("readout", Pair(0.3, q1=2, q2=2), nets=60, seed=7)
        for name in OBSERVED:
            for key in ("mean", "sem", "mean_log", "var_log", "sem_mean_log", "q05", "median"):
                expected = result.statistic(name, key)[0]
                assert found[name][key] == [x if math.isfinite(x) else None for x in expected]
            assert found[name]["count"] == result.statistic(name, "count")[0].tolist()

    def test_shapes_and_settings(self, answer):
        found = answer(f"{SMALL} --backward --masks independent")
        assert found["layer"] == list(range(6))
        assert found["hop"] == list(range(5))
        for name in OBSERVED:
            for key, values in found[name].items():
                assert len(values) == (6 if name in ("q", "eps") else 5), (name, key)
        assert found["eps"]["mean"][0] == pytest.approx(0.5, rel=1e-12)  # pinned
        assert found["q"]["mean"][0] == pytest.approx(1.0, rel=1e-12)
        assert found["dead"] == [0] * 6
        settings = found["settings"]
        assert settings["widths"] == [48] * 6
        assert (settings["loss"], settings["nets"], settings["seed"]) == ("quadratic", 60, 0)
        assert found["engine"] in ("weightless", "explicit")
        assert "weights are cheaper" in found["engine_reason"]
        assert found["seconds"] > 0

    def test_theory_is_the_library_to_the_last_digit(self, answer):
        found = answer(f"{SMALL} --backward")["theory"]
        networks = Ensemble("tanh", 1.4, 0.3, width=48, depth=5, drop=0.1)
        path = propagate(networks.layers, 1.0, 1.0, 0.5)
        assert found["infinite_width"] == {"q": path.q1.tolist(), "eps": path.eps.tolist()}
        order = finite_width(networks.layers, networks.widths, eps=0.5)
        assert found["first_order"]["q"]["mean"] == order.q_mean[0].tolist()
        assert found["first_order"]["eps"]["mean"] == order.eps_mean.tolist()
        assert found["first_order"]["eps"]["var_log"] == order.log_eps_var.tolist()
        for key, tied in (("tied", True), ("gia", False)):
            theory = predict_gradients(networks.layers, networks.widths, eps=0.5, tied=tied)
            for name in ("grad_aa", "grad_ab"):
                assert found[key][name]["mean"] == getattr(theory, name).tolist()

    def test_without_gradients_they_are_null_with_the_way_to_them(self, answer):
        found = answer(SMALL)
        for name in ("grad_aa", "grad_ab", "grad_ab_abs"):
            assert found[name] is None
            assert "--backward" in found["reasons"][name]
        assert found["theory"]["tied"] is found["theory"]["gia"] is None
        assert found["settings"]["loss"] is None
        assert set(found["q"]) == set(found["eps"])

    @pytest.mark.parametrize(
        "options",
        [
            "--activation tanh --sigma-w 1.4 --nets 1 --backward --ntk",
            "--activation relu --sigma-w 1.4 --width 90 --drop 0.9999 --nets 9 --backward --ntk",
            "--activation relu --sigma-w 1e40 --width 16 --nets 8 --backward --ntk",
            "--activation gelu --sigma-w 1e50 --width 16 --nets 8 --backward",
            "--activation tanh --sigma-w 1e-60 --width 128 --nets 8 --backward",
            "--activation sign --sigma-w 1 --width 16 --nets 8 --backward",
            "--activation power(0.6) --sigma-w 1 --nets 8 --masks gaussian --drop .1 --backward",
            "--activation tanh --sigma-w 1 --nets 8 --skip 0.5 --drop 0.1 --backward",
            "--activation tanh --sigma-w 1 --nets 8 --masks layers --skip 1 --drop 0.5 --backward",
            "--activation tanh --sigma-w 1 --nets 8 --weights orthogonal --backward",
            "--activation tanh --sigma-w 1 --nets 8 --untied --loss readout --backward",
            "--activation tanh --sigma-w 2 --nets 9 --backward --masks clean --drop 0.2",
            "--activation elu --sigma-w 1 --nets 9 --backward --loss linear",
            "--activation tanh --sigma-w 1 --nets 8 --eps0 0 --masks shared --drop 0.1 --backward",
            "--activation tanh --sigma-w 1 --nets 8 --eps0 2 --backward",
            "--activation tanh --sigma-w 1 --nets 8 --eps0 1e-30 --precision single --backward",
            "--activation relu --sigma-w 1 --nets 8 --drop 0,.2,0,.4 --masks shared --backward",
            "--activation tanh --sigma-w 1 --nets 8 --width 3 --engine explicit --backward",
        ],
    )
    def test_every_null_has_a_reason_and_every_screen_fits(self, answer, run, options):
        line = f"simulate --depth 5 {options}"
        found = answer(line)
        reasons = found.pop("reasons")
        for path in gaps(found):
            parts = path.split(".")
            heads = [".".join(parts[:k]) for k in range(1, len(parts) + 1)]
            assert path == "settings.loss" or any(reasons.get(head) for head in heads), path
        assert all(reasons.values())
        code, out, err = run(f"{line} --plot run.svg")
        assert (code, err) == (0, "wrote run.svg\n")
        assert max(len(row) for row in out.splitlines()) <= 100
        assert "nan" not in out

    def test_widths_by_layer_and_a_single_hop(self, answer):
        found = answer(
            "simulate --activation relu --sigma-w 1.4 --widths 8,16,4 --nets 9 --backward"
        )
        assert found["settings"]["depth"] == 2
        assert len(found["grad_aa"]["mean"]) == 2
        found = answer("simulate --activation relu --sigma-w 1.4 --depth 1 --nets 9 --backward")
        assert len(found["grad_aa"]["mean"]) == 1
        assert found["reasons"]["theory.noise_floor"] == "there is no hidden layer"


class TestTheory:
    """Sampled means lie within their errors of theory; errors of theory are of order 1/width."""

    def test_means(self, answer):
        found = answer(f"{TANH} --drop 0.1 --width 400 --depth 6 --nets 2000 --backward --ntk")
        theory = found["theory"]
        for name in ("q", "eps"):
            mean, sem = (np.array(found[name][key]) for key in ("mean", "sem"))
            order = np.array(theory["first_order"][name]["mean"])
            slack = np.abs(order - theory["infinite_width"][name])  # the next order is smaller
            assert (np.abs(mean - order) <= ERRORS * sem + slack + 1e-12).all()
        pairs = [
            (found[n]["mean"], found[n]["sem"], theory["tied"][n]["mean"]) for n in OBSERVED[2:4]
        ]
        pairs += [
            ([found[n]["mean"]], [found[n]["sem"]], [theory["tied"][n]])
            for n in ("ntk_aa", "ntk_ab")
        ]
        for mean, sem, expected in pairs:
            # corrections of relative order depth/width
            assert np.array(mean) == pytest.approx(
                np.array(expected), abs=ERRORS * max(sem), rel=0.02
            )
        # and the independence assumption is off by what it leaves out
        free = np.array(theory["gia"]["grad_aa"]["mean"])
        assert (np.array(found["grad_aa"]["mean"])[:-1] > 1.2 * free[:-1]).all()

    def test_outputs_are_what_a_random_readout_is_in_the_mean(self, answer):
        line = "simulate --activation tanh --sigma-w 1.4 --sigma-b 0.3 --depth 3 --backward --ntk"
        found = answer(f"{line} --widths 80,80,80,5 --loss outputs --nets 1500")
        linear = answer(f"{line} --widths 80,80,80,5 --loss linear --nets 4")
        assert found["theory"]["tied"] == linear["theory"]["tied"]
        for name in ("grad_aa", "grad_ab"):
            mean, sem = (np.array(found[name][key]) for key in ("mean", "sem"))
            expected = np.array(found["theory"]["tied"][name]["mean"])
            assert (np.abs(mean - expected) <= ERRORS * sem + 0.03 * np.abs(expected)).all()
        expected = found["theory"]["tied"]["ntk_aa"]
        assert abs(found["ntk_aa"]["mean"] / expected - 1) < 0.03

    @pytest.mark.parametrize("untied", ["", " --untied"])
    def test_logarithms_of_gradients(self, answer, untied):
        # The law is that of the mean over many hops; near the loss it leaves out the scatter of
        # one layer, of order 1/width in the variance: 2/200 here and there.
        found = answer(
            f"{TANH} --drop .1 --width 200 --depth 20 --nets 1500 --loss readout --backward{untied}"
        )
        law, sampled = found["theory"]["log_normal"]["grad_aa"], found["grad_aa"]
        for key in ("mean_log", "var_log"):
            off = np.abs(np.array(sampled[key]) - np.array(law[key]))
            assert (off <= ERRORS * np.array(sampled[f"sem_{key}"]) + 0.05).all()
        # which the mean at large width is far from, by the drift: half the variance and more
        wide = found["theory"]["gia"]["grad_aa"]["log_abs_mean"][0]
        assert wide - sampled["mean_log"][0] > ERRORS * sampled["sem_mean_log"][0]

    def test_noise_floor(self, answer):
        found = answer(
            f"{TANH} --drop 0.1 --width 400 --depth 20 --nets 1500 --backward --loss readout"
        )
        floor = found["theory"]["noise_floor"]
        assert floor["crossover"] < 12
        mean, sem = (np.array(found["grad_ab"][key]) for key in ("mean", "sem"))
        rms = np.sqrt(mean**2 + found["settings"]["nets"] * sem**2)
        ratio = rms / np.exp(floor["grad_ab"]["log_rms"])
        # ten hops and more below the crossing the squared mean is less than 1 % of the floor; sizes
        # of gradients fluctuate on their own, by depth/width in the variance of the logarithm
        assert ratio[:5] == pytest.approx(1, rel=0.15)

    def test_long_signals_and_deep_chaos_are_told_in_logarithms(self, answer):
        found = answer(
            "simulate --activation relu --sigma-w 1e12 --width 30 --depth 24 --nets 40 --backward"
        )
        q = found["q"]
        assert q["mean"][-1] is q["sem"][-1] is q["median"][-1] is None
        # every layer multiplies the length by sigma_w^2/2 in the mean, the first by sigma_w^2
        expected = 24 * math.log(1e24) - 23 * math.log(2)
        relative = math.exp(q["log_sem"][-1] - q["log_abs_mean"][-1])
        assert abs(q["log_abs_mean"][-1] - expected) < ERRORS * relative
        assert q["log_median"][-1] == pytest.approx(q["mean_log"][-1], abs=1)
        assert "log_abs_mean has its logarithm" in found["reasons"]["q.mean"]
        # 10^308.25 is the largest number: layer 13 is expected to reach 10^308.4
        assert re.match("layer 1[34] to 24", found["reasons"]["q.mean"])
        assert "beyond the range" in found["reasons"]["q.mean"]
        # the theory of a scale-free network goes on: only ratios of lengths matter
        wide = found["theory"]["infinite_width"]
        assert wide["q"][12] == pytest.approx(1e24**12 / 2**11, rel=1e-12)
        assert wide["q"][13:] == [None] * 12
        assert found["reasons"]["theory.infinite_width.q"].startswith("layer 13 to 24")
        same = propagate(Ensemble("relu", 1.0, depth=24).layers, 1.0, 1.0, 0.5).eps
        assert wide["eps"] == pytest.approx(same, rel=1e-10)

    def test_theory_ends_where_a_length_does(self, answer):
        wide = answer("simulate --activation gelu --sigma-w 1e20 --width 30 --depth 9 --nets 8")
        reason = wide["reasons"]["theory.infinite_width.eps"]
        assert reason == wide["reasons"]["theory.infinite_width.q"]
        assert reason.startswith("layer 8 to 9: the length leaves")
        # far out gelu is relu, whose map is the same at any length
        eps = wide["theory"]["infinite_width"]["eps"][2:8]
        relu = propagate([MeanField("relu", 1.0)] * 5, 1.0, 1.0, eps[0]).eps
        assert eps == pytest.approx(relu, rel=1e-10)
        assert wide["theory"]["infinite_width"]["q"][7] > 1e270

    def test_dead_networks_are_counted(self, answer, run):
        line = (
            "simulate --activation relu --sigma-w 1.4 --width 90 --drop 0.9999 --depth 4 --nets 20"
        )
        found = answer(line)
        assert found["dead"] == [0, 0, 20, 20, 20]
        assert found["eps"]["mean"][2:] == [None] * 3
        assert found["eps"]["count"] == [20, 20, 0, 0, 0]
        assert found["reasons"]["eps.mean"].startswith("layer 2 to 4: a signal is exactly 0")
        assert found["q"]["mean"][2:] == [0.0] * 3
        assert "All 20 networks are dead from layer 2 on" in run(line)[1]


class TestScreen:
    def test_says_what_finite_width_does(self, answer, run):
        line = f"{TANH} --drop 0.1 --depth 20 --nets 200 --backward --loss readout"
        text = headline(answer(line))
        assert text.startswith("At layer 20 eps is 0.5")
        assert "infinite width (0.577" in text
        assert "scatters by a factor 1.9" in text
        assert "(theory 1.8)" in text
        assert "noise from about 8 layers below the loss on" in text
        code, out, err = run(line)
        assert (code, err) == (0, "")  # no bar: this is no terminal
        assert text in " ".join(out.split())
        assert "engine: 2 vectors" in out
        assert "networks in" in out
        assert len(out.splitlines()) <= 40

    def test_a_shift_that_is_seen_and_one_that_is_not(self, answer):
        line = "simulate --activation tanh --sigma-w 1.4 --sigma-b 0.3 --drop 0.05 --width 40"
        seen = headline(answer(f"{line} --depth 4 --nets 40000"))
        assert "% above infinite width (0.502; first order in 1/width 0.508)" in seen
        assert "within its error" in headline(answer(f"{line} --depth 4 --nets 20"))

    def test_one_network_has_no_scatter(self, answer):
        text = headline(answer(f"{TANH} --width 40 --depth 4 --nets 1 --backward"))
        assert "±" not in text
        assert "typical" not in text

    def test_some_die(self, run):
        out = run("simulate --activation relu --sigma-w 1.4 --width 5 --depth 12 --nets 300")[1]
        assert "of 300 networks (" in out
        assert "dead" in out

    def test_signals_that_sink_are_not_dead(self, run):
        out = run("simulate --activation tanh --sigma-w 1e-30 --width 20 --depth 8 --nets 20")[1]
        assert "dead" not in out.split("─\n")[1].split("\n\n")[0]
        assert "float64" in out

    def test_the_kernel(self, run):
        out = run(f"{SMALL} --backward --ntk")[1]
        assert "tangent kernel: of the first input" in out
        assert "(theory " in out

    def test_plain_ascii_where_the_terminal_shows_no_more(self):
        process = subprocess.run(
            [sys.executable, "-m", "depthscale", *f"{SMALL} --backward".split()],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert (process.returncode, process.stderr) == (0, b"")
        assert process.stdout.isascii()
        assert b"?" not in process.stdout

    def test_what_the_users_file_prints_stays_out_of_the_json(self, run):
        Path("act.py").write_text(
            "import numpy as np\nprint('from the file')\ndef double(x): return 2 * np.tanh(x)\n"
        )
        line = "simulate --activation act.py:double --sigma-w 0.7 --depth 3 --width 20 --nets 9"
        code, out, err = run(f"{line} --json")
        assert code == 0
        assert json.loads(out)["settings"]["activation"] == "double"
        assert "from the file" in err


class TestFiles:
    def test_netcdf_has_everything(self, run, answer):
        line = f"{SMALL} --backward --seed 9007199254740993"
        found = answer(line)
        code, _, err = run(f"{line} --save run.nc")
        assert (code, err) == (0, "wrote run.nc\n")
        with xr.open_dataset("run.nc", engine="scipy") as data:
            assert data.q.sel(statistic="mean", input=0).values.tolist() == found["q"]["mean"]
            assert data.q.sizes["input"] == 2
            theory = found["theory"]
            assert data.theory_infinite_width_eps.values.tolist() == theory["infinite_width"]["eps"]
            assert (
                data.theory_tied_grad_aa_mean.values.tolist() == theory["tied"]["grad_aa"]["mean"]
            )
            assert data.attrs["seed"] == "9007199254740993"  # netCDF 3 has no such number
            assert json.loads(data.attrs["settings"]) == found["settings"]
        assert os.listdir() == ["run.nc"]

    def test_zarr(self, run, answer):
        pytest.importorskip("zarr")
        found = answer(f"{SMALL} --backward")
        for _ in range(2):  # the second time it takes the place of the first
            code, _, err = run(f"{SMALL} --backward --save run.zarr")
            assert (code, err) == (0, "wrote run.zarr\n")
        with xr.open_zarr("run.zarr") as data:
            assert (
                data.eps.sel(statistic="median", pair=0).values.tolist() == found["eps"]["median"]
            )
            assert data.attrs["made_by"] == "depthscale simulate"
        assert os.listdir() == ["run.zarr"]

    def test_a_foreign_folder_is_left_alone(self, run):
        Path("mine.zarr").mkdir()
        Path("mine.zarr/thesis.txt").write_text("years of work")
        code, _, err = run(f"{SMALL} --save mine.zarr")
        assert code == 2
        assert "did not write" in err
        assert Path("mine.zarr/thesis.txt").exists()
        Path("file.zarr").touch()
        assert "is a file" in run(f"{SMALL} --save file.zarr")[2]

    def test_without_zarr_it_says_how_to_get_it(self, run, monkeypatch):
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *a: None if name == "zarr" else find(name, *a)
        )
        code, _, err = run(f"{SMALL} --save run.zarr")
        assert code == 2
        assert "pip install depthscale[zarr]" in err

    def test_csv_has_a_row_for_each_layer(self, run, answer):
        found = answer(f"{SMALL} --backward")
        run(f"{SMALL} --backward --save run.csv")
        rows = list(csv.DictReader(Path("run.csv").read_text().splitlines()))
        assert [float(row["eps_mean"]) for row in rows] == found["eps"]["mean"]
        assert [float(row["grad_aa_sem"]) for row in rows[:-1]] == found["grad_aa"]["sem"]
        assert rows[-1]["grad_aa_sem"] == ""
        expected = found["theory"]["first_order"]["q"]["mean"]
        assert [float(row["theory_first_order_q_mean"]) for row in rows] == expected

    def test_a_file_is_whole_or_not_there(self, run, monkeypatch):
        Path("run.csv").write_text("kept")

        def fails(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("depthscale.commands.simulation_files._write_table", fails)
        code, _, err = run(f"{SMALL} --save run.csv")
        assert code == 2
        assert "run.csv cannot be written: No space left on device" in err
        assert Path("run.csv").read_text() == "kept"
        assert os.listdir() == ["run.csv"]

    def test_plot(self, run, answer):
        run(f"{SMALL} --backward --plot run.svg")
        drawn = Path("run.svg").read_text()
        for text in ("5 – 95 %", "infinite width", "mean, first order", "mean, GIA", "noise floor"):
            assert text in drawn
        assert len(plot_simulation(answer(f"{SMALL} --backward")).axes) == 4
        figure = plot_simulation(answer(SMALL))
        assert len(figure.axes) == 2
        band = figure.axes[1].collections[0].get_paths()[0].vertices
        found = answer(SMALL)["eps"]
        assert band[:, 1].max() == pytest.approx(max(found["q95"]))
        assert band[:, 1].min() == pytest.approx(min(found["q05"]))

    def test_an_axis_that_floats_do_not_reach_is_of_logarithms(self, answer):
        figure = plot_simulation(
            answer("simulate --activation relu --sigma-w 1e12 --width 8 --depth 24 --nets 9")
        )
        assert "log" in figure.axes[0].get_ylabel()
        assert figure.axes[0].get_ylim()[1] > 500


class TestCheckpoint:
    line = f"{SMALL} --backward --nets 3000 --checkpoint run.npz"

    def test_goes_on_to_the_same_numbers(self, answer):
        short = answer(self.line.replace("3000", "1500"))
        resumed = answer(self.line)
        assert (short["resumed"], resumed["resumed"]) == (False, True)
        whole = answer(self.line.replace(" --checkpoint run.npz", ""))
        for name in OBSERVED:
            assert resumed[name] == whole[name]

    @pytest.mark.parametrize(
        ("options", "there", "said"),
        [
            ("", False, "with --checkpoint FILE a run can be stopped"),
            (" --checkpoint run.npz", False, "run.npz was not written yet"),
            (" --checkpoint run.npz", True, "is in run.npz: give the same command again"),
        ],
    )
    def test_stopping_says_how_to_go_on(self, run, monkeypatch, options, there, said):
        def stopped(*_, **__):
            if there:
                Path("run.npz").touch()
            raise KeyboardInterrupt

        monkeypatch.setattr(Ensemble, "_run", stopped)
        code, out, err = run(SMALL + options)
        assert (code, out) == (130, "")
        assert err.startswith("depthscale: interrupted; ")
        assert said in err

    def test_ctrl_c(self, tmp_path):
        line = f"{TANH} --nets 100000000 --checkpoint run.npz"
        process = subprocess.Popen(
            [sys.executable, "-c", _WATCHED, *line.split()],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stderr.readline() == "sampling\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        assert "give the same command again" in err
        assert (tmp_path / "run.npz").exists()

    def test_of_another_run_is_refused(self, answer, run):
        answer(self.line)
        code, _, err = run(f"{self.line} --seed 1")
        assert code == 2
        assert "another network, inputs, loss, seed" in err


# Tells when sampling begins: imports take longer than any fixed sleep on a loaded machine.
_WATCHED = """
import sys
from depthscale.cli import main
from depthscale.finite import ensemble

def watched(job, *rest, run=ensemble.run, **options):
    print("sampling", file=sys.stderr, flush=True)
    return run(job, *rest, **options)

ensemble.run = watched
sys.exit(main(sys.argv[1:]))
"""

BAD = [
    ("--width 1", "the inputs have 1 unit; expected a width of at least 2"),
    ("--widths 1,4", "the inputs have 1 unit"),
    ("--widths 3", "--widths: expected at least 2 widths"),
    ("--widths 3,4 --depth 4", "--widths gives 2 layers; expected 5 for --depth 4"),
    ("--widths 3,4 --width 3", "--width: not allowed with argument --widths"),
    ("--depth 0", "--depth: expected a whole number of at least 1"),
    ("--depth 30000", "expected at most 20000 layers"),
    ("--nets 0", "--nets: expected a whole number of at least 1"),
    ("--eps0 2.5", "--eps0: expected 1 - correlation, from 0 to 2, got '2.5'"),
    ("--q0 0", "--q0: expected a length above 0"),
    ("--width 10000000000", "GiB of memory"),
    ("--memory 0.001", "0.001 GiB may be used"),
    ("--memory 0", "--memory: expected GiB of memory, above 0"),
    ("--backward --loss mse", "--loss: invalid choice: 'mse'"),
    ("--loss readout", "--loss is about gradients; give --backward"),
    ("--untied", "--untied is about gradients; give --backward"),
    ("--ntk", "--ntk is about gradients; give --backward"),
    ("--backward --untied --engine explicit", "take --engine weightless"),
    ("--backward --untied --weights orthogonal", "--untied is there for Gaussian weights"),
    ("--masks dropconnect --drop 0.1", "masked inputs of its own"),
    ("--masks sharde", "masks is 'sharde'"),
    ("--drop 1", "drop is 1.0; expected a number in [0, 1)"),
    ("--drop 0.1,0.2", "2 drop rates for depth 30"),
    ("--drop 0.1,x", "--drop: expected a finite number, got 'x'"),
    ("--skip 1 --widths 10,20,30", "equal widths on its two sides, not 20 and 30"),
    ("--sigma-w 0", "sigma_w is 0.0"),
    ("--seed -1", "--seed: expected a whole number"),
    ("--workers 0", "--workers: expected a whole number of at least 1"),
    ("--device gpu", "device is 'gpu'"),
    ("--engine fast", "--engine: invalid choice"),
    ("--save run.txt", "expected .nc, .zarr, .csv"),
    ("--save nowhere/run.nc", "there is no folder nowhere"),
    ("--save nowhere/run.zarr", "there is no folder nowhere"),
    ("--plot run.jpg", "expected .svg, .png, .pdf"),
    ("--checkpoint nowhere/run.npz", "there is no folder nowhere"),
    ("--checkpoint .", "is a folder"),
]


@pytest.mark.parametrize(("options", "said"), BAD)
def test_bad_input_is_one_line(run, monkeypatch, options, said):
    monkeypatch.setattr("depthscale.finite.ensemble.run", lambda *_, **__: pytest.fail("it ran"))
    code, out, err = run(f"simulate --activation tanh --sigma-w 1.4 {options}")
    assert (code, out) == (2, "")
    assert err.startswith("depthscale: error: ")
    assert err.count("\n") == 1
    assert said in err


def test_memory_of_the_user_reaches_the_sampler(run, monkeypatch):
    given = {}

    def watched(self, *args, run=Ensemble._run, **options) -> Sampled:
        given.update(options)
        return run(self, *args, **options)

    monkeypatch.setattr(Ensemble, "_run", watched)
    run(f"{SMALL} --memory 0.5 --precision single --engine explicit --workers 1")
    assert given["memory"] == 2**29
    assert (given["precision"], given["engine"]) == ("single", "explicit")

"""The commands of real width: limits, bands, shapes, held against other methods and each other."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import gammainc
from torch import nn

import depthscale as ds
from depthscale import cli
from depthscale.commands.limit_kinds import KINDS
from depthscale.finite.bands import correlation_band
from depthscale.report.words import ascii_only
from depthscale.theory.meanfield import MeanField

RELU = "limit shaped-relu --c-plus 0 --c-minus -1 --rho0 .3"
RESIDUAL = "limit residual --rho0 .3 --width 64 --paths 1000"
TANH = "limit unshaped --activation tanh --sigma-b .3"


def assert_close(one: dict, other: dict, sigmas: float = 4.5) -> None:
    """Mean, deviation and quantiles agree within their errors, of which there are some ten.

    At 4.5 standard errors one of ten normal numbers is further off in 1 of 15,000 runs; quantiles
    of paths err by a little more than their neighbouring order statistics tell.
    """
    for name in ("mean", "sd"):
        error = math.hypot(one["errors"][name], other["errors"][name])
        assert abs(one[name] - other[name]) < sigmas * error, name
    for level, value in one["quantiles"].items():
        error = math.hypot(one["errors"]["quantiles"][level], other["errors"]["quantiles"][level])
        assert abs(value - other["quantiles"][level]) < sigmas * error, level


class TestLimit:
    def test_density_of_a_pair_is_that_of_sampled_matrices(self, answer):
        code, density = answer(f"{RELU} --time .5")
        assert code == 0
        assert density["reading"] == "rho"
        matrix = "limit shaped-relu --c-plus 0 --c-minus -1 --covariance 1,.3;.3,1 --time .5"
        _, paths = answer(f"{matrix} --paths 20000")
        assert "paths" in paths["solver"]
        assert_close(density, paths)

    def test_the_last_time_stands_at_the_top_whether_one_is_asked_for_or_several(self, answer):
        _, alone = answer(f"{RESIDUAL} --time .5")
        _, both = answer(f"{RESIDUAL} --time .5,.25")
        assert [row["time"] for row in both["times"]] == [0.25, 0.5]
        for found in (alone, both):
            last = found["times"][-1]
            for name in ("time", "mean", "sd", "quantiles", "errors", "exploded"):
                assert found[name] == last[name]
        assert alone["mean"] == pytest.approx(both["mean"], rel=1e-10)
        assert list(alone["quantiles"]) == ["0.05", "0.25", "0.5", "0.75", "0.95"]

    def test_levels_and_readings(self, answer):
        _, rho = answer(f"{RESIDUAL} --time .5 --level .9,.1")
        _, eps = answer(f"{RESIDUAL} --time .5 --level .9,.1 --reading eps")
        assert list(rho["quantiles"]) == ["0.1", "0.9"]
        # eps falls with rho: its 10 % quantile is 1 minus the 90 % quantile of rho, to rounding
        for low, high in (("0.1", "0.9"), ("0.9", "0.1")):
            assert eps["quantiles"][low] == pytest.approx(1 - rho["quantiles"][high], abs=1e-12)

    def test_moments_of_x_are_the_closed_ones(self, answer):
        _, found = answer("limit unshaped --activation relu --time .25,.5 --reading x")
        for row in found["times"]:
            # E x = (A/4)(e^(2t) - 1) for ReLU
            closed = found["constants"]["A"] / 4 * math.expm1(2 * row["time"])
            assert row["exact"]["x_mean"] == pytest.approx(closed, rel=1e-12)
            assert row["mean"] == pytest.approx(closed, rel=1e-5)
            assert row["sd"] == pytest.approx(math.sqrt(row["exact"]["x_variance"]), rel=1e-5)
        _, other = answer("limit unshaped --activation relu --time .5 --solver paths --paths 9")
        assert other["reading"] == "log_q"
        # entrance: q_0 = (A/2)^-2 = 9 pi^2/2
        assert found["constants"]["entrance"] == pytest.approx(4.5 * math.pi**2, rel=1e-12)

    def test_starts_are_one_start(self, answer):
        starts = [
            answer(f"{TANH} {start} --time .5 --solver paths --paths 50")[1]["mean"]
            for start in ("--y0 20", "--x0 .05", "--width 100 --eps0 .2")
        ]
        assert starts == pytest.approx([starts[0]] * 3, rel=1e-9)  # the same paths

    def test_a_real_layer_is_told_by_its_own_detuning_and_field(self, answer):
        line = f"{TANH} --width 256 --drop 1e-5 --time 1"
        _, noise = answer(f"{line} --masks gaussian --solver paths --paths 9")
        _, field = answer(f"{line} --solver density")
        _, jumps = answer(f"{line} --paths 20000")
        # noise of one variance: p/(1 - p) against p (1 - p) of independent masks
        assert noise["constants"]["H"] == pytest.approx(field["constants"]["H"], rel=1e-4)
        # the masks of two inputs disagree at 2 p (1 - p) of the units
        assert jumps["constants"]["jump_rate"] == pytest.approx(2 * 256**2 * 1e-5, rel=1e-4)
        assert "jumps" in jumps["solver"]
        assert field["constants"]["jump_rate"] is None
        # Of one mean, jumps leave more networks without any: log_q is lower.
        apart = field["mean"] - jumps["mean"]
        assert apart > 10 * jumps["errors"]["mean"]
        assert jumps["exact"]["stationary"] is None
        assert "jumps" in jumps["reasons"]["exact.stationary"]

    def test_the_stationary_law_is_reached(self, answer):
        _, found = answer(f"{TANH} --field 2 --theta -.5 --time 6 --reading log_y")
        settled = found["exact"]["stationary"]
        # what is left of the start falls as exp(-gap t), below 1e-3 here
        assert found["mean"] == pytest.approx(settled["log_y_mean"], abs=2e-3)
        assert found["sd"] ** 2 == pytest.approx(settled["log_y_variance"], abs=2e-3)

    def test_a_linear_network_has_a_normal_law(self, answer):
        _, found = answer("limit unshaped --activation identity --y0 1 --time .5 --reading log_y")
        # products of chi-squares: log y = lam t + s B, s^2 = 4, lam = -1
        assert found["mean"] == pytest.approx(-0.5, abs=1e-6)
        assert found["sd"] == pytest.approx(math.sqrt(2), abs=1e-6)

    def test_opposite_inputs_are_an_entrance(self, answer):
        _, density = answer("limit shaped-relu --rho0 -1 --time .5")
        line = "limit shaped-relu --covariance 1,-1;-1,1 --time .5 --paths 20000"
        assert_close(density, answer(line)[1])

    def test_explosion_is_answered_by_its_law(self, answer, run):
        line = "limit shaped-smooth --second 1 --third .25 --time .5"
        code, found = answer(f"{line} --level .5,.99")
        assert code == 0
        assert found["exploded"] == pytest.approx(found["exact"]["explosion_probability"], abs=1e-5)
        assert found["exact"]["ever_explodes"] == pytest.approx(gammainc(2, 1), rel=1e-12)
        assert found["mean"] is None
        assert "no mean" in found["reasons"]["mean"]
        assert found["quantiles"]["0.99"] is None
        assert "exploded" in found["reasons"]["quantiles.0.99"]
        out = run(f"{line} --solver paths --paths 2000")[1]
        assert "exploded" in out
        assert "take its quantiles, or log_V" in " ".join(out.split())

    def test_a_stable_length_settles(self, answer):
        # tanh at a = 1/2 has b = -8: Gamma of shape 7 and rate 8
        _, found = answer("limit shaped-smooth --activation tanh --a .5 --time 3")
        assert found["constants"]["b"] == pytest.approx(-8, rel=1e-12)
        assert found["exact"]["stationary"] == pytest.approx({"shape": 7, "rate": 8}, rel=1e-12)
        # the slowest mode falls as exp(-7 t)
        assert found["mean"] == pytest.approx(7 / 8, abs=1e-5)
        assert found["sd"] == pytest.approx(math.sqrt(7) / 8, abs=1e-5)

    def test_residual_networks(self, answer, run):
        _, wide = answer("limit residual --rho0 .3 --time 1")
        assert wide["mean"] == pytest.approx(0.382947, abs=1e-6)  # published to six digits
        assert set(wide["quantiles"].values()) == {wide["mean"]}
        assert wide["sd"] == 0
        at = {
            n: answer(f"limit residual --rho0 .3 --time 1 --width {n} --paths 5000")[1]
            for n in (100, 400)
        }
        # 1/sqrt(n) of the same paths
        assert at[100]["sd"] == pytest.approx(2 * at[400]["sd"], rel=1e-12)
        # about .8/sqrt n; 5000 paths and the depth of 64 leave some per cent
        assert at[400]["sd"] == pytest.approx(0.8 / 20, rel=0.1)
        assert "equals a shaped network of slopes 1 + 1/sqrt(d) and 1" in " ".join(at[100]["notes"])
        assert "all of it in one place" in run("limit residual --rho0 .3 --time 1")[1]

    def test_several_inputs(self, answer, run):
        line = "limit shaped-relu --covariance 1,.3,0;.3,1,.3;0,.3,1 --time .5 --paths 5000"
        _, first = answer(line)
        _, far = answer(f"{line} --pair 1,3")
        assert np.array(far["covariance"]).shape == (3, 3)
        for found, (a, b) in ((first, (0, 1)), (far, (0, 2))):
            assert found["mean"] == pytest.approx(found["correlation"][a][b], abs=1e-9)
        assert first["covariance"] == far["covariance"]
        assert "mean rho" in run(line)[1]

    def test_files(self, run, answer):
        import xarray

        line = f"{RELU} --time .25,.5"
        code, _, err = run(f"{line} --save law.nc --plot law.svg")
        assert (code, err) == (0, "wrote law.nc\nwrote law.svg\n")
        with xarray.open_dataset("law.nc", engine="scipy") as saved:
            assert set(saved.dims) == {"time", "level"}
            _, found = answer(line)
            assert float(saved["rho_mean"][-1]) == found["mean"]
            assert json.loads(saved.attrs["constants"])["bending"] == 1
        assert "artanh" not in Path("law.svg").read_text()
        assert "Shaped ReLU" in Path("law.svg").read_text()

    @pytest.mark.parametrize(
        "line",
        [
            f"{RELU} --time .25,.5",
            f"{TANH} --width 256 --drop 1e-4 --time .5 --reading log_eps --paths 2000",
            "limit residual --eps0 1e-3 --time 1 --width 64 --paths 1000",
            "limit shaped-smooth --second 1 --third -.75 --a .7 --rho0 .2 --time .5 --paths 2000",
        ],
    )
    def test_the_screen(self, run, line):
        code, out, err = run(line)
        assert (code, err) == (0, "")
        assert max(len(row) for row in out.splitlines()) <= 100
        assert len(out.splitlines()) <= 45
        for part in ("start", "law of", "mean", "95 %", "density of", "constants", "solver"):
            assert part in out
        assert ascii_only(out).isascii()


class TestBand:
    def test_json_is_the_library_to_the_last_digit(self, answer):
        code, found = answer("band --activation relu --width 64 --depth 12 --eps0 1")
        band = correlation_band("relu", 64, 12, 1.0)
        assert code == 0
        assert found["rho"] == band.rho.tolist()
        assert found["eps"] == band.eps.tolist()
        assert (found["engine"], found["why"]) == (band.engine, band.why)
        assert list(found["quantiles"].values()) == found["rho"][-1]
        assert list(found["quantiles"]) == ["0.05", "0.25", "0.5", "0.75", "0.95"]

    def test_engines_agree_and_the_referee_says_so(self, answer, run):
        line = "band --activation relu --width 64 --depth 12"
        _, chain = answer(f"{line} --referee --networks 2000")
        _, exact = answer(f"{line} --engine ensemble --networks 2000 --seed 5")
        # the 1e-5 quantile of Kolmogorov's distance is 2.5/sqrt(N); .01 is left to the chain
        assert max(chain["referee"]["distance"]) < 2.5 / math.sqrt(2000) + 0.01
        for level in range(5):
            error = 5 * exact["rho_error"][-1][level] + 0.005
            assert abs(chain["rho"][-1][level] - exact["rho"][-1][level]) < error
        assert "exact networks" in " ".join(run(f"{line} --referee --networks 100")[1].split())

    def test_files_and_screen(self, run):
        line = "band --activation leaky_relu(.5) --widths 64,48,32,64 --save b.csv --plot b.svg"
        code, out, err = run(line)
        assert (code, err) == (0, "wrote b.csv\nwrote b.svg\n")
        assert "width 32 to 64, depth 3" in out
        assert max(len(row) for row in out.splitlines()) <= 100
        assert len(Path("b.csv").read_text().splitlines()) == 1 + 4 * 5
        run("band --activation relu --width 64 --depth 3 --save b.nc")
        assert Path("b.nc").exists()
        assert "correlation" in Path("b.svg").read_text()

    def test_a_row_of_marks_holds_its_quantiles(self, run):
        out = run("band --activation relu --width 32 --depth 4 --level .1,.5,.9")[1]
        rows = [row for row in out.splitlines() if row.lstrip()[:1] in "01234" and "█" in row]
        assert len(rows) == 5
        places = [row.index("█") for row in rows]
        assert places == sorted(places)  # the median of critical ReLU rises


class TestShape:
    def test_the_slope_of_infinite_width_is_that_of_the_exact_map(self, answer):
        code, found = answer("shape --depth 100 --target .9")
        assert code == 0
        assert found["slope"] == pytest.approx(0.57044, abs=5e-6)  # published to five digits
        layer = MeanField(f"leaky_relu({found['slope']!r})", found["gain"])
        assert layer.trajectory(100, eps0=1.0).eps[-1] == pytest.approx(0.1, rel=1e-9)
        assert found["band"] is None

    def test_a_quantile_is_that_of_the_band(self, answer):
        line = "shape --depth 20 --width 64 --target .8 --quantile .75"
        _, found = answer(line)
        assert found["band"]["quantiles"]["0.75"] == pytest.approx(0.8, abs=1e-6)
        # the same from the other command, with the gain as weight scale
        band = f"band --activation leaky_relu({found['slope']!r}) --width 64 --depth 20"
        _, same = answer(f"{band} --sigma-w {found['gain']!r}")
        assert same["quantiles"]["0.75"] == pytest.approx(0.8, abs=1e-6)

    def test_the_code_sets_it(self, answer, run):
        line = "shape --depth 3 --width 64 --target .5"
        _, found = answer(line)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        inputs = torch.randn(4, 8)
        hidden = model[0](inputs).detach()
        names = {"model": model, "inputs": inputs}
        exec(found["code"], names)
        after = found["gain"] * nn.functional.leaky_relu(hidden, found["slope"])
        shown = {}
        model[2].register_forward_hook(lambda _, given, out: shown.update(given=given[0]))
        model(inputs)
        assert torch.allclose(shown["given"], after, atol=1e-5)  # float32
        assert found["code"] in run(line)[1]

    def test_other_methods_have_no_slope(self, answer, run):
        line = "shape --activation tanh --depth 10 --target .6"
        code, found = answer(f"{line} --plot s.svg")
        assert code == 0
        assert found["slope"] is None
        assert "tat" in found["reasons"]["slope"]
        assert Path("s.svg").exists()
        assert "input_scale" in run(line)[1]


BAD = [
    ("limit", "required: KIND"),
    ("limit nothing --time 1", "invalid choice: 'nothing'"),
    (f"{RELU} --time 0", "at time 0 the law is the start"),
    (f"{RELU} --time .5,-1", "expected times above 0"),
    (f"{RELU} --time nan", "expected a finite number"),
    (f"{RELU} --time .5 --level 1.2", "expected a probability"),
    (f"{RELU} --time .5 --reading log_q", "expected one of rho, eps, log_eps, z"),
    (f"{RELU} --time .5 --solver magic", "invalid choice: 'magic'"),
    (f"{RELU} --time .5 --plot law.bmp", "expected .svg, .png, .pdf"),
    (f"{RELU} --time .5 --save law.csv", "expected .nc"),
    ("limit shaped-relu --rho0 1.5 --time 1", "expected a correlation, from -1 to 1"),
    ("limit shaped-relu --rho0 nan --time 1", "expected a finite number"),
    ("limit shaped-relu --rho0 1 --time 1", "its law is a point"),
    ("limit shaped-relu --time 1", "give the start: --rho0"),
    ("limit shaped-relu --c-minus nan --rho0 0 --time 1", "expected a finite number"),
    ("limit shaped-relu --covariance 1,.9,-.9;.9,1,.9;-.9,.9,1 --time 1", "the eigenvalue -0.8"),
    ("limit shaped-relu --covariance 1,.3;.2,1 --time 1", "expected a symmetric matrix"),
    ("limit shaped-relu --covariance 1,.3;1 --time 1", "expected a square matrix"),
    ("limit shaped-relu --covariance 1,.3;.3,1 --pair 1,3 --time 1", "inputs from 1 to 2"),
    ("limit shaped-relu --covariance 1,.3;.3,1 --pair 1,1 --time 1", "two different inputs"),
    ("limit shaped-relu --covariance 1,0;0,1 --time 1 --solver density", "take paths"),
    ("limit shaped-smooth --time 1", "give --activation"),
    ("limit shaped-smooth --second 1 --time 1", "--second and --third go together"),
    ("limit shaped-smooth --activation relu --time 1", "has a break at 0"),
    ("limit shaped-smooth --activation tanh --a 0 --time 1", "from 1e-6 to 1e6"),
    ("limit residual --rho0 0 --variance 0 --time 1", "variance is 0"),
    ("limit unshaped --activation relu --sigma-b .1 --time 1", "depthscale simulate samples"),
    ("limit unshaped --activation tanh --time 1", "depthscale simulate samples"),
    ("limit unshaped --activation sign --time 1", "jumps in value"),
    ("limit unshaped --activation nope --time 1", "unknown activation 'nope'"),
    (f"{TANH} --time 1 --drop .01", "give its --width"),
    (f"{TANH} --time 1 --eps0 .1", "give its --width"),
    (f"{TANH} --time 1 --width 64 --eps0 0", "stay equal"),
    (f"{TANH} --time 1 --width 64 --drop .01 --theta 1", "leave --theta out"),
    (f"{TANH} --time 1 --reading rho", "expected one of log_q"),
    (f"{TANH} --time 1 --field -1", "field"),
    ("band --activation relu --width 64", "give --depth"),
    ("band --activation relu --width 1 --depth 3", "width"),
    ("band --activation relu --widths 64,64 --depth 3", "2 widths for depth 3"),
    ("band --activation tanh --width 64 --depth 3", "give sigma_b or the length q0"),
    ("band --activation relu --width 64 --depth 3 --engine magic", "expected one of chain"),
    ("band --activation relu --width 64 --depth 3 --eps0 3", "from 0 to 2"),
    ("band --activation relu --width 64 --depth 30000", "at most 20000"),
    ("shape --depth 10 --target 1", "target is 1"),
    ("shape --depth 10 --target 2", "expected a correlation"),
    ("shape --depth 10 --target .9 --quantile .5", "give --width"),
    ("shape --depth 3 --target .99", "out of reach"),
    ("shape --activation relu --depth 10 --method tat", "use method='slope'"),
]


class TestBadInput:
    @pytest.mark.parametrize(("line", "said"), BAD, ids=[line for line, _ in BAD])
    def test_one_clear_line_and_exit_code_2(self, run, line, said):
        code, out, err = run(line)
        assert (code, out) == (2, "")
        assert err.startswith("depthscale: error: ")
        assert err.count("\n") == 1
        assert said in err


class TestHelp:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_has_examples_that_parse(self, run, capsys, kind):
        with pytest.raises(SystemExit) as ended:
            run(f"limit {kind} --help")
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert max(len(line) for line in text.splitlines()) <= 100
        assert "the JSON: see depthscale limit --help" in text
        lines = [line.split("    ")[0].strip() for line in KINDS[kind].examples.splitlines()]
        lines = [line for line in lines if line.startswith("depthscale limit ")]
        assert len(lines) >= 2
        for line in lines:
            words = [word.strip('"') for word in line.split()[1:]]
            assert cli._parser().parse_args(words).kind == kind

    def test_json_before_the_kind(self, run):
        code, out, _ = run("limit --json residual --rho0 .3 --time 1")
        assert code == 0
        assert json.loads(out)["kind"] == "residual"


def test_public_names_are_the_ones_that_the_readme_tells():
    equation = ds.stochastic_limit(ds.MeanField("relu", 2**0.5)).equation()
    assert isinstance(equation, ds.AlignmentEquation)
    assert isinstance(ds.correlation_band("relu", 32, 2, 1.0), ds.CorrelationBand)
    assert isinstance(ds.shape("relu", 10, target=0.5), ds.Shaped)

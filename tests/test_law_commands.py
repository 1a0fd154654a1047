"""The commands of the scaling laws: what they print is the theory, and what it is worth."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from depthscale.theory.criticality import critical_point
from depthscale.theory.meanfield import MeanField
from depthscale.theory.universal.alignment import Alignment
from depthscale.theory.universal.record import universality

NETWORKS = [
    "tanh --sigma-b 0.3 --drop 0.0001",
    "hardtanh --sigma-b 0.3 --drop 0.001",
    "relu --drop 0.000001",
    "tanh --sigma-b 0.3 --drop 0.01 --keep-weights",
    "gelu --q 4 --drop 0.001",
    "erf --sigma-b 0.2 --drop 0.05 --detuning -0.1",
    "tanh --sigma-b 0.3 --drop 0.05 --masks overlap(0.5)",
]


def network(found: dict, name: str) -> MeanField:
    """The network that an answer is about, made of nothing but its printed parameters."""
    start = 1.0 if found["q"] is None else found["q"]
    return MeanField(
        name, found["sigma_w"], found["sigma_b"], found["drop"], found["masks"], start=start
    )


class TestUniversality:
    def test_json_is_the_library_to_the_last_digit(self, answer):
        code, found = answer("universality tanh --sigma-b 0.3 --drop 0.0001")
        record = universality("tanh", sigma_b=0.3, drop=0.0001)
        assert code == 0
        reasons = found.pop("reasons")
        same = json.loads(json.dumps(record.to_dict()))
        assert reasons.items() >= same.pop("reasons", {}).items()
        assert found == same
        assert found["map_singularity"] == "smooth"
        assert found["exponents"] == record.exponents
        assert found["metric_factors"]["eps"] == found["amplitude"]  # a^(1/(kappa - 1)), kappa 2
        assert found["critical"]["sigma_w"] == critical_point("tanh", 0.3, drop=0.0001).sigma_w

    @pytest.mark.parametrize("name", ["tanh", "hardtanh"])
    def test_the_two_amplitudes_agree_within_their_errors(self, answer, name):
        _, found = answer(f"universality {name} --sigma-b 0.3")
        tail = found["hermite"]
        key = "smooth_amplitude" if found["kappa"] == 2 else "gap_coefficient"
        error = abs(tail[f"{key}_error"] / tail[key]) + 1e-12  # rounding of the quadrature
        assert found["amplitude_from_hermite"] == pytest.approx(found["amplitude"], rel=error)

    def test_the_class_of_a_function_from_a_file(self, answer):
        Path("act.py").write_text("import numpy as np\ndef double(x): return 2 * np.tanh(x)\n")
        _, mine = answer("universality act.py:double --q 1")
        _, same = answer("universality tanh --q 1")
        # The class and its amplitude do not depend on the scale of f. Its derivatives are found
        # numerically: about eight digits of the second one.
        assert mine["kappa"] == same["kappa"]
        assert mine["amplitude"] == pytest.approx(same["amplitude"], rel=1e-6)

    def test_fits_reach_the_exponents_of_the_class(self, answer):
        _, found = answer("universality relu --fit")
        fits = found["exponent_fits"]["asymptotic"]
        limits = {**found["exponents"], "1/delta": 1 / found["exponents"]["delta"]}
        assert set(fits) <= set(limits)
        assert len(fits) == 7
        for name, fit in fits.items():
            assert fit["theory"] == limits[name]
            assert abs(fit["value"] - limits[name]) <= fit["error"] < 1e-3

    def test_the_screen_with_and_without_fits(self, run):
        code, out, _ = run("universality hardtanh --sigma-b 0.3 --drop 0.001 --fit")
        assert code == 0
        for part in ("kink at -1, kink at 1", "measured, asymptotic", "±", "dE/dL = H + T E"):
            assert part in out
        assert len(out.splitlines()) <= 45  # one page
        assert "measured" not in run("universality hardtanh --sigma-b 0.3")[1]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ("gelu --drop 0.1", "looks critical for"),
            ("sign", "jumps in value"),
            ("identity", "no curvature"),
            ("tanh", "take sigma_b > 0"),
            ("power(0.5) --q 1", "always chaotic"),
        ],
    )
    def test_no_law_is_exit_code_1_with_class_and_reason(self, run, answer, options, said):
        code, out, err = run(f"universality {options}")
        assert (code, err) == (1, "")
        assert said in " ".join(out.split())
        assert max(len(line) for line in out.splitlines()) <= 100
        code, found = answer(f"universality {options}")
        assert code == 1
        assert found["map_singularity"] in out

    @pytest.mark.parametrize("name", ["relu", "tanh --sigma-b 0.3", "sign", "gelu --drop 0.1"])
    def test_every_null_has_a_reason(self, answer, name):
        _, found = answer(f"universality {name}")
        for key in ("rounding", "transient", "correction"):
            assert (found[key] is None) == bool(found["reasons"].get(key))
        _, found = answer(f"law {name}")
        for key, value in found["exponents"].items():
            assert (value is None) == bool(found["reasons"].get(f"exponents.{key}"))

    def test_plot_of_the_collapse(self, run):
        code, _, err = run("universality relu --plot collapse.svg")
        assert (code, err) == (0, "wrote collapse.svg\n")
        assert "relu" in Path("collapse.svg").read_text()
        code, _, err = run("universality sign --plot none.svg")
        assert code == 1
        assert err.startswith("depthscale: no plot: sign ")
        assert not Path("none.svg").exists()


class TestLaw:
    @pytest.mark.parametrize("line", NETWORKS)
    def test_the_exact_numbers_are_a_fixed_point_and_its_relaxation(self, answer, line):
        code, found = answer(f"law {line}")
        assert code == 0
        field = network(found, line.split()[0])
        eps = found["eps"]
        # gap_map is good to 1e-12 relative; the fixed point magnifies that by 1/(1 - slope)
        slope = float(field.gap_slope(field.start, field.start, eps))
        assert float(field.gap_map(eps)) == pytest.approx(eps, rel=1e-10)
        assert found["depth_scale"] == pytest.approx(-1 / math.log(slope), rel=1e-9)
        assert found["susceptibility"] == pytest.approx(1 / (1 - slope), rel=1e-9)

    @pytest.mark.parametrize("line", NETWORKS)
    def test_errors_are_those_of_the_numbers_beside_them(self, answer, line):
        _, found = answer(f"law {line}")
        for exact, leading, error in (
            ("eps", "leading_order", "relative_error"),
            ("depth_scale", "depth_scale_leading_order", "depth_scale_relative_error"),
        ):
            off = abs(found[leading] - found[exact]) / found[exact]
            assert found[error] == pytest.approx(off, rel=1e-12)
            assert (found["warning"] is not None) or off <= 0.1
        worst = max(found["relative_error"], found["depth_scale_relative_error"])
        assert (found["warning"] is None) == (worst <= 0.1)

    def test_leading_order_solves_the_equation_of_state(self, answer):
        for line in NETWORKS:
            _, found = answer(f"law {line}")
            m, t, h = found["leading_order"], found["detuning"], found["dropout_field"]
            deficit = found["amplitude"] * m ** found["kappa"]
            # h = a m^kappa - t m, each term to rounding
            assert deficit - t * m == pytest.approx(h, rel=1e-12)

    def test_corrections_gain_an_order(self, answer):
        # Over a factor 100 in drop the leading error of tanh falls like h^(1/2), tenfold, and that
        # of the corrected law like h, a hundredfold; the next orders leave 20 % on either.
        off = {}
        for drop in (1e-4, 1e-6):
            _, found = answer(f"law tanh --sigma-b 0.3 --drop {drop:f}")
            off[drop] = found["relative_error"], abs(found["corrected"] / found["eps"] - 1)
        leading, corrected = (b / a for a, b in zip(off[1e-6], off[1e-4], strict=True))
        assert leading == pytest.approx(10, rel=0.2)
        assert corrected == pytest.approx(100, rel=0.2)

    def test_the_susceptibility_is_the_response_to_a_field(self, answer):
        _, found = answer("law tanh --sigma-b 0.3 --drop 0.001")
        alignment = Alignment("tanh", found["q"])
        fields = found["dropout_field"] * np.array([1 - 1e-4, 1 + 1e-4])
        below, above = alignment.fixed_point(0.0, fields)
        # central difference: second order, 1e-8; the tabulated map is good to 1e-10/1e-4
        response = (above - below) / (fields[1] - fields[0])
        assert found["susceptibility"] == pytest.approx(response, rel=1e-5)

    def test_retuned_and_kept_weights(self, answer):
        critical = critical_point("tanh", sigma_b=0.3).sigma_w
        _, kept = answer("law tanh --sigma-b 0.3 --drop 0.05 --keep-weights")
        assert kept["sigma_w"] == critical
        assert kept["detuning"] < 0
        _, tuned = answer("law tanh --sigma-b 0.3 --drop 0.05 --detuning 0.02")
        assert tuned["sigma_w"] > critical
        assert tuned["detuning"] == pytest.approx(0.02, rel=1e-10)
        _, at = answer("law tanh --sigma-b 0.3 --drop 0.05")
        assert at["detuning"] == 0

    def test_regimes_follow_the_scaled_detuning(self, answer):
        for detuning, word in (
            (-0.2, "ordered"),
            (-0.005, "field"),
            (0, "critical"),
            (0.2, "chao"),
        ):
            _, found = answer(f"law tanh --sigma-b 0.3 --drop 0.001 --detuning {detuning}")
            assert found["regime"].startswith(word)
            assert np.sign(found["scaled_detuning"]) == np.sign(detuning)
        _, found = answer("law tanh --sigma-b 0.3 --drop 0")
        assert found["regime"].startswith("critical, no field")
        assert found["depth_scale"] is None
        assert "power of depth" in found["reasons"]["depth_scale"]

    def test_path(self, answer, run):
        line = "law tanh --sigma-b 0.3 --drop 0.01 --depth 12 --eps0 0.4"
        _, found = answer(line)
        field = network(found, "tanh")
        path = found["path"]
        assert path["exact"] == pytest.approx(field.trajectory(12, eps0=0.4).eps, rel=1e-12)
        assert path["depth"] == list(range(13))
        for name, corrected in (("leading_order", False), ("corrected", True)):
            by_law = field.law(corrected).eps_at(np.arange(13), 0.4)
            assert path[name] == pytest.approx(by_law, rel=1e-9)
        worst = np.abs(np.array(path["leading_order"]) / path["exact"] - 1).max()
        assert (path["warning"] is None) == (worst <= 0.1)
        assert f"{100 * worst:.0f} %" in path["warning"]
        assert path["warning"][:40] in run(line)[1]
        run(f"{line} --save path.csv")
        rows = list(csv.DictReader(Path("path.csv").read_text().splitlines()))
        assert [float(row["exact"]) for row in rows] == path["exact"]

    def test_a_law_that_leaves_its_range_is_null_with_the_reason(self, answer):
        # At eps = 2 the cubic term of tanh outweighs the square one: the expansion diverges.
        _, found = answer("law tanh --sigma-b 0.3 --drop 0.0001 --depth 9 --eps0 2")
        assert found["path"]["corrected"] is None
        assert "does not lead to its fixed point" in found["path"]["reasons"]["corrected"]
        assert max(found["path"]["exact"]) <= 2

    def test_a_range_is_even_in_the_logarithm(self, answer, run):
        code, found = answer("law hardtanh --sigma-b 0.3 --drop 1e-6:1e-2:5 --save law.csv")
        assert code == 0
        drops = [row["drop"] for row in found["table"]]
        assert drops == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
        rows = list(csv.DictReader(Path("law.csv").read_text().splitlines()))
        assert [float(row["eps"]) for row in rows] == [row["eps"] for row in found["table"]]
        _, alone = answer("law hardtanh --sigma-b 0.3 --drop 1e-4")
        assert alone["eps"] == pytest.approx(found["table"][2]["eps"], rel=1e-12)
        _, even = answer("law relu --drop 0:0.2:3")
        assert [row["drop"] for row in even["table"]] == pytest.approx([0, 0.1, 0.2])
        assert even["table"][0]["eps"] == 0

    def test_rows_without_a_network(self, answer, run):
        line = "law gelu --q 4 --drop 1e-5:0.3:3"
        code, found = answer(line)
        assert code == 0  # some of them exist
        assert [row["sigma_w"] is None for row in found["table"]] == [False, False, True]
        assert found["table"][2]["eps"] is None
        assert "sigma_b^2" in found["table"][2]["reasons"]["eps"]
        assert "no such network" in run(line)[1]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ("relu --drop 0.01 --detuning 0.1", "no weight makes that 1.1"),
            ("relu --drop 0 --detuning 0.1", "no weight makes that 1.1"),
            ("gelu --drop 0.1", "gelu has no critical point at drop = 0.1"),
            ("sign --drop 0.1", "jumps in value"),
        ],
    )
    def test_no_network_is_exit_code_1_with_the_reason(self, run, answer, options, said):
        code, found = answer(f"law {options}")
        assert code == 1
        assert found["exists"] is False
        assert found["eps"] is found["depth_scale"] is None
        assert said in found["reason"]
        assert found["reasons"]["eps"] == found["reason"]
        code, out, err = run(f"law {options}")
        assert (code, err) == (1, "")
        assert said in " ".join(out.split())

    def test_a_transient_comes_with_the_reason(self, answer, run):
        _, found = answer("law gelu --drop 0.1")
        layers = found["transient"]["leaves_after"]
        assert f"looks critical for {layers:.0f} layers" in run("law gelu --drop 0.1")[1]

    def test_scale_free_detuning_is_that_of_the_noise(self, answer, run):
        # independent masks take the slope from 1 to rho = 1 - drop at any weight: t = -drop
        code, found = answer("law relu --drop 0.1")
        assert code == 0
        assert found["detuning"] == pytest.approx(-0.1, rel=1e-12)
        assert "t = -drop = -0.1, whatever the weights" in found["note"]
        for line in ("law relu --drop 0.1", "law relu --drop 0.1:0.2:2"):
            out = run(line)[1]
            assert "whatever the weights" in " ".join(out.split())
            assert "weights retuned" not in out
        code, asked = answer("law relu --drop 0.1 --detuning 0")
        assert code == 1
        assert asked["reason"] == found["note"]
        assert answer("law relu --drop 0.1 --detuning -0.1")[0] == 0
        assert answer("law relu --drop 0.1 --masks shared --detuning 0")[0] == 0
        assert answer("law tanh --sigma-b 0.3 --drop 0.1")[1]["note"] is None

    def test_without_curvature_the_exit_code_is_that_of_the_class(self, run):
        for line in ("law identity --drop 0.1", "universality identity --drop 0.1"):
            assert run(line)[0] == 1

    def test_a_corrected_path_that_strays_is_told(self, answer):
        _, found = answer("law hardtanh --sigma-b 0.3 --drop 0.05 --depth 20 --eps0 2")
        path = found["path"]
        off = np.abs(np.array(path["corrected"]) / path["exact"] - 1).max()
        assert off > 0.1
        assert f"with corrections is off by up to {100 * off:.2g} %" in path["warning"]

    def test_a_dash_in_a_table_has_a_footnote(self, run):
        out = run("law tanh --sigma-b 0.3 --drop 0.01:0.1:2 --masks clean")[1]
        assert "–: a masked-against-clean pair" in out

    def test_no_law_is_told_beside_the_exact_numbers(self, answer):
        code, found = answer("law tanh --sigma-b 0.3 --drop 0.1 --masks clean")
        assert code == 0
        assert found["eps"] > 0
        assert found["leading_order"] is None
        assert "two lengths" in found["warning"]

    @pytest.mark.parametrize(
        "line",
        [
            "relu --drop 0.1 --depth 20",
            "gelu --q 4 --drop 0.001 --depth 20 --eps0 2",
            "tanh --sigma-b 0.3 --drop 0.001",
            "gelu --q 4 --drop 1e-5:0.01:4",
            "tanh --sigma-b 0.3 --drop 1e-4:0.1:3 --keep-weights",
        ],
    )
    def test_plots(self, run, line):
        code, _, err = run(f"law {line} --plot law.svg")
        assert (code, err) == (0, "wrote law.svg\n")
        drawn = Path("law.svg").read_text()
        assert "dropout field" in drawn
        assert "depth scale" in drawn

    def test_no_field_no_plot(self, run):
        code, _, err = run("law tanh --sigma-b 0.3 --drop 0 --plot law.svg")
        assert code == 0
        assert err == "depthscale: no plot: there is no dropout field, or no law\n"

    def test_screens_fit_and_also_without_unicode(self, run):
        for line in (*NETWORKS, "tanh --sigma-b 0.3", "relu --drop 0.1 --depth 40"):
            code, out, _ = run(f"law {line}")
            assert code == 0
            assert max(len(row) for row in out.splitlines()) <= 100
        process = subprocess.run(
            [sys.executable, "-m", "depthscale", "law", "relu", "--drop", "0.5"],
            capture_output=True,
            env={"PYTHONIOENCODING": "ascii"},
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout.isascii()

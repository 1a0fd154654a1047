"""``depthscale lattice``: its answers against the library, its files, its refusals."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import xarray as xr

from depthscale.finite.lattice.lattice import Lattice
from depthscale.report.lattice_summaries import with_error
from depthscale.report.words import ascii_only

SMALL = "lattice --activation tanh --sigma-b .3 --size 32 --depth 20 --realisations 12"


def test_answer_is_that_of_the_library(answer):
    code, payload = answer(f"{SMALL} --sigma-w 1.8 --seed 3")
    found = Lattice("tanh", 1.8, 0.3, size=32).run(20, 12, seed=3)
    assert code == 0
    (run,) = payload["runs"]
    assert run["depth"] == found.depths.tolist()
    np.testing.assert_array_equal(run["rho"], found.mean())
    np.testing.assert_array_equal(run["rho_error"], found.sem())
    assert run["effective_exponent"]["value"] == found.effective_exponent().value.tolist()
    assert run["settings"]["sigma_w"] == 1.8
    assert "sigma_w = 1.8" in payload["headline"]


def test_json_has_the_documented_names(answer):
    _, payload = answer(f"{SMALL} --sigma-w 1.8 --start spread")
    assert {"headline", "runs", "seconds"} <= set(payload)
    names = {
        "settings", "realisations", "depth", "rho", "rho_error", "log_rho", "relative_sd",
        "rho_median", "active", "active_error", "effective_exponent", "survival", "active_sites",
        "active_sites_error", "spread", "inhomogeneity",
    }  # fmt: skip
    assert names <= set(payload["runs"][0])
    assert payload["runs"][0]["active_sites"][0] == 1


def test_a_range_of_weights_is_saved_in_long_form(run, tmp_path):
    code, _, errors = run(f"{SMALL} --sigma-w 1.6:2:3 --save runs.csv")
    assert code == 0
    assert "wrote runs.csv" in errors
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["sigma_w"] for row in rows} == {"1.6", "1.8", "2.0"}
    assert len({row["realisation"] for row in rows}) == 36
    second = Lattice("tanh", 1.8, 0.3, size=32).run(20, 12, seed=1)
    chosen = [float(r["rho"]) for r in rows if r["realisation"] == "14"]
    np.testing.assert_array_equal(chosen, second.of("rho")[2, 1:])
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())


def test_netcdf_holds_every_network(run, tmp_path):
    for weights, count in (("1.8", 1), ("1.6:2:3", 3)):
        assert run(f"{SMALL} --sigma-w {weights} --save runs.nc")[0] == 0
        with xr.open_dataset(tmp_path / "runs.nc", engine="scipy") as data:
            assert dict(data.sizes)["sigma_w"] == count
            rho = data.rho.sel(sigma_w=1.8).transpose("realisation", "depth").values
        found = Lattice("tanh", 1.8, 0.3, size=32).run(20, 12, seed=count // 2)
        np.testing.assert_array_equal(rho, found.of("rho"))


@pytest.mark.parametrize(
    "options",
    [
        "--sigma-w 1.8",
        "--sigma-w 1.6:2:3",
        "--sigma-w 1.8 --start site",
        "--sigma-w 1.6:2:3 --start site",
        "--sigma-w 1.8 --start 1e-300",
        "--sigma-w 1.8 --start 0",
        "--sigma-w 1.8 --sharing local",
        "--sigma-w 1.8 --sharing 8 --drop .1",
        "--sigma-w 1.8 --sharing .25 --masks shared --drop .1",
        "--sigma-w 1.8 --size 8x8",
        "--sigma-w 1.8 --realisations 1 --depth 1",
    ],
)
def test_screens_and_figures(run, tmp_path, options):
    code, out, _ = run(f"{SMALL} {options} --plot lattice.svg")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    assert "nan" not in out
    ascii_only(out).encode("ascii")
    assert (tmp_path / "lattice.svg").read_text().startswith("<?xml")


def test_a_run_goes_on_from_its_checkpoint(answer, tmp_path):
    line = f"{SMALL} --sigma-w 1.6:2:2 --checkpoint run.npz"
    _, first = answer(line)
    assert (tmp_path / "run-0.npz").exists()
    _, again = answer(line)
    assert again["runs"] == first["runs"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--sigma-w 0", "sigma_w"),
        ("--sigma-w nan", "finite"),
        ("--sigma-w 2:1:3", "MIN below MAX"),
        ("--sigma-w 1.8 --kernel 33", "kernel"),
        ("--sigma-w 1.8 --size 4x4x4", "size"),
        ("--sigma-w 1.8 --size 0", "at least 1"),
        ("--sigma-w 1.8 --sharing some", "shared, local"),
        ("--sigma-w 1.8 --sharing 5", "divisor"),
        ("--sigma-w 1.8 --start there", "misalignment"),
        ("--sigma-w 1.8 --drop 1", "drop"),
        ("--sigma-w 1.8 --save runs.txt", ".csv"),
        ("--sigma-w 1.8 --plot nowhere/a.svg", "no folder"),
        ("--sigma-w 1.8 --device tpu", "cpu or cuda"),
        ("--sigma-w 1.8 --depth 2000000", "at most"),
    ],
)
def test_bad_input_is_told(run, options, words):
    code, out, errors = run(f"{SMALL} {options}")
    assert code == 2
    assert not out
    assert words in errors


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.4823, 0.0371, "0.482(37)"),
        (12.3, 4.0, "12.3(4.0)"),
        (123.0, 40.0, "123(40)"),
        (1.2e-9, 3e-10, "1.20(30)e-09"),
        (0.5, None, "0.500"),
        (None, 0.1, "–"),
        (0.0, 0.0, "0"),
        (-0.25, 0.0123, "-0.250(12)"),
    ],
)
def test_numbers_with_errors(value, error, text):
    assert with_error(value, error) == text

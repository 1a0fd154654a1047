"""``depthscale collapse``: its JSON, its exit codes, and bad input told in a line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from depthscale import cli
from scaling_truth import DP, draw, realisations

FORM = "m = L^-c2 * F((T - Tc)*L^c1)"


def write(path, table) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(table)
        rows.writerows(zip(*(list(column) for column in table.values()), strict=True))


@pytest.fixture
def table():
    data = draw(DP, 0).table
    return {"T": data["T"], "L": data["L"], "m": data["m"], "e": data["error"]}


@pytest.fixture
def collapse(tmp_path, capsys, monkeypatch):
    """Write a table, run the command on it; code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def command(table, *more, form=FORM, source=("--error", "e"), names=("m", "T", "L")):
        if table is not None:
            write(tmp_path / "data.csv", table)
        y, x, size = names
        asked = ["collapse", "data.csv", "--form", form, "--y", y, "--x", x, "--size", size]
        try:
            code = cli.main([*asked, *source, *more])
        except SystemExit as stop:  # argparse
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def strict(text: str):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def changed(table, column, row, value):
    other = {name: list(values) for name, values in table.items()}
    other[column][row] = value
    return other


class TestAnswers:
    def test_json_holds_what_was_asked_for(self, collapse, table):
        code, out, err = collapse(table, "--json", form="L^-c2 * F((T-Tc)*L^c1)")
        assert code == 0
        assert err == ""
        found = strict(out)
        assert {"parameters", "reduced_chi2", "stability", "warnings", "seconds"} <= set(found)
        for name, truth in DP.truth.items():
            row = found["parameters"][name]
            assert abs(row["value"] - truth) < 5 * row["error"]
        assert found["seconds"] > 0
        assert all({"window", "parameters", "p_value"} <= set(w) for w in found["stability"])

    def test_text_files_and_checks(self, collapse, table, tmp_path):
        code, out, err = collapse(table, "--checks", "--save", "a.nc", "--plot", "a.svg")
        assert code == 0
        assert "by other methods" in out
        assert max(map(len, out.splitlines())) <= 100
        assert "wrote a.nc" in err
        for name in ("a.nc", "a.svg"):
            assert (tmp_path / name).stat().st_size > 1000

    def test_options_reach_the_fit(self, collapse, table):
        _, out, _ = collapse(
            table, "--json", "--fix", "Tc=1.8", "--start", "c1=.7", "--bound", "c2=0:.1",
            "--window", "L=64:1024",
        )  # fmt: skip
        found = strict(out)
        assert found["parameters"]["Tc"] == {"value": 1.8, "error": 0, "low": 1.8, "high": 1.8}
        assert found["parameters"]["c2"]["value"] == 0.1
        assert any("ran into its limit" in w for w in found["warnings"])
        assert found["sizes"] == [64, 128, 256, 512, 1024]

    def test_realisations(self, collapse):
        raw = realisations(DP, 0, runs=10).raw
        table = {name: raw[name] for name in ("T", "L", "m", "realisation")}
        source = ("--realisation", "realisation")
        _, out, _ = collapse(table, "--json", "--resamples", "5", source=source)
        found = strict(out)
        assert found["realisations"] == 250
        assert "5 resamples" in found["errors_from"]

    def test_not_stable_is_code_one(self, collapse, table):
        code, out, _ = collapse({**table, "e": table["e"] / 4}, "--json")
        assert code == 1
        assert any("do not fall onto one curve" in w for w in strict(out)["warnings"])

    def test_at_the_edge_of_the_window(self, collapse, table):
        code, out, _ = collapse(table, "--json", "--window", "T=1.806:1.9")
        assert code in (0, 1)
        told = strict(out)["warnings"]
        assert any("outside of the data" in w or "edge of the data" in w for w in told)

    def test_no_overlap_is_told(self, collapse):
        T, L = (g.ravel() for g in np.meshgrid(np.linspace(1, 1.2, 9), [1.0, 1e2, 1e4]))
        table = {"T": T, "L": L, "m": 1 / (T * L), "e": 0.01 / (T * L)}
        _, out, _ = collapse(
            table, "--json", "--start", "a=1", "--bound", "a=.9:1.1", form="F(T*L^a)"
        )
        assert any("hardly overlap" in w for w in strict(out)["warnings"])


class TestBadInput:
    """Code 2, one message on stderr that says what is wrong, nothing on stdout."""

    def refused(self, found, *words):
        code, out, err = found
        assert code == 2
        assert out == ""
        for word in words:
            assert word in err, err
        assert "Traceback" not in err

    @pytest.mark.parametrize("value", ["nan", "", "inf", "word"])
    @pytest.mark.parametrize("column", ["T", "L", "m", "e"])
    def test_values_that_are_no_numbers(self, collapse, table, column, value):
        self.refused(collapse(changed(table, column, 4, value)), column)

    @pytest.mark.parametrize("value", [0, -1])
    def test_errors_that_are_not_above_zero(self, collapse, table, value):
        self.refused(collapse(changed(table, "e", 4, value)), "not above 0", "row")

    def test_columns_that_are_not_there(self, collapse, table):
        self.refused(collapse(table, source=("--error", "sd")), "sd")
        self.refused(collapse(table, names=("m", "temperature", "L")), "temperature")
        self.refused(collapse(table, names=("x", "T", "L"), form="F(T)*L^-a"), "x")

    def test_one_size(self, collapse, table):
        one = {name: column[table["L"] == 32] for name, column in table.items()}
        self.refused(collapse(one), "one system size", "L = 32")

    @pytest.mark.parametrize(
        ("form", "place"),
        [
            ("L^-c2 * F((T - Tc)*L^c1", 9),
            ("L^-c2 * * F(T)", 8),
            ("L^-c2", 5),
            ("F(T) * G(L^a)", 7),
            ("L^-c2 * F(T $ 2)", 12),
            ("L^-c2 * F(1, 2)", 10),
        ],
    )
    def test_formulas_that_do_not_parse(self, collapse, table, form, place):
        found = collapse(table, form=form)
        self.refused(found, form)
        lines = found[2].splitlines()
        written = next(k for k, line in enumerate(lines) if form in line)
        assert lines[written + 1].index("^") - lines[written].index(form) == place

    def test_names_that_are_no_parameters(self, collapse, table):
        for option in (("--fix", "zz=1"), ("--start", "zz=1"), ("--bound", "zz=0:1")):
            self.refused(collapse(table, *option), "zz")
        self.refused(collapse(table, "--window", "zz=0:1"), "zz")

    def test_options_that_are_no_numbers(self, table, collapse):
        for option in (("--fix", "c1=x"), ("--bound", "c1=1"), ("--fix", "c1")):
            self.refused(collapse(table, *option), option[0])
        self.refused(collapse(table, "--resamples", "x"), "--resamples")

    def test_too_few_points(self, collapse, table):
        few = {name: column[::30] for name, column in table.items()}
        self.refused(collapse(few), "points")

    def test_files(self, collapse, table, tmp_path):
        self.refused(collapse(None), "data.csv")
        (tmp_path / "data.csv").write_text("")
        self.refused(collapse(None), "data.csv")
        (tmp_path / "data.csv").write_bytes(bytes(range(256)) * 20)
        self.refused(collapse(None))
        self.refused(collapse(table, "--save", "a.txt"), ".nc")
        self.refused(collapse(table, "--plot", "missing/a.svg"), "missing")

    def test_a_file_cut_in_half(self, collapse, table, tmp_path):
        """Cut within a row, at every place of it: told, or the rows before are whole."""
        write(tmp_path / "data.csv", table)
        text = (tmp_path / "data.csv").read_text()
        row = text.index("\n", len(text) // 2) + 1
        (tmp_path / "data.csv").write_text(text[: row + 4])
        self.refused(collapse(None))


def test_interrupt_leaves_nothing(collapse, table, tmp_path, monkeypatch):
    """Ctrl-C while resampling: its code, no traceback, no half of a file."""
    from depthscale.scaling import uncertainty

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(uncertainty, "solve", interrupted)
    code, out, err = collapse(table, "--json", "--resamples", "50", "--save", "a.nc")
    assert code == 130
    assert out == ""
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]

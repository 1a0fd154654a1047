"""The command that identifies classes: its answers, its codes, what it refuses."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError

import pytest

from depthscale.answers import InputError
from depthscale.commands.identify import COMMANDS, correlation, exponent, window


@pytest.fixture
def ask(capsys):
    """Run the command as the command line does; code and printed text."""

    def command(*words: str) -> tuple[int, str]:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--json", action="store_true")
        COMMANDS["identify"].add_arguments(parser)
        code = COMMANDS["identify"].run(parser.parse_args(list(words)))
        return code, capsys.readouterr().out

    return command


def test_the_decay_of_directed_percolation(ask):
    code, out = ask("--exponent", "delta=.16+-.01", "--json")
    found = json.loads(out)
    assert code == 0
    first = found["ranking"][0]
    assert first["class"] == "directed percolation"
    assert first["dimension"] == 1
    assert first["dof"] == 1
    assert first["p_value"] > 0.9
    assert first["weight"] > 0.9
    assert "Jensen 1999" in first["source"]
    assert first["exponents"]["delta"]["predicted"] == 0.159464
    assert found["verdict"] == "compatible"
    assert found["allowed"] == ["directed percolation 1+1"]
    chances = [row["p_value"] for row in found["ranking"]]
    assert len(chances) > 10


def test_several_exponents_with_a_correlation(ask):
    words = ["--exponent", "delta=.1595(30)", "--exponent", "z=1.58±.02", "--dimension", "1"]
    code, out = ask(*words, "--correlation", "z,delta=.3", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["verdict"] == "identified"
    assert found["measured"]["delta"] == pytest.approx({"value": 0.1595, "error": 0.003})
    assert found["correlation"][0][1] == pytest.approx(0.3)
    assert {row["dimension"] for row in found["ranking"]} == {1, None}
    assert found["derived"] == {}


def test_none_of_these_is_a_finding(ask):
    code, out = ask("--exponent", "delta=.16+-.01", "--exponent", "z=1.2+-.02")
    assert code == 1
    assert "NONE OF THESE" in out
    assert "none is left" in out


def test_what_would_tell_classes_apart(ask):
    code, out = ask("--exponent", "beta=1+-.02", "--exponent", "delta=1.00(2)")
    assert code == 0
    assert "CANNOT TELL APART" in out
    assert "measure cutoff, 0.5 or 1, to ±0.17" in out


def test_windows_that_disagree(ask):
    words = []
    for text in (
        "10-100: delta=.212+-.005, 1/nu_par=.763+-.019",
        "20-200: delta=.161+-.012, 1/nu_par=.548+-.032",
        "40-400: delta=.072+-.007, 1/nu_par=.285+-.021",
    ):
        words += ["--window", text]
    code, out = ask(*words)
    assert code == 1
    assert "DEPENDS ON THE WINDOW" in out
    assert "directed percolation 1+1 holds on 20-200 alone: passed through" in out
    code, out = ask(*words, "--correlation", "delta,1/nu_par=.5", "--json")
    assert [w["window"] for w in json.loads(out)["windows"]] == ["10-100", "20-200", "40-400"]


def test_every_line_fits_the_screen(ask):
    words = [word for name in ("beta=.3", "nu_perp=1.1", "nu_par=1.7", "delta=.2", "z=1.6")
             for word in ("--exponent", f"{name}+-.2")]  # fmt: skip
    _, out = ask(*words)
    assert max(map(len, out.splitlines())) <= 100
    assert "of 5 exponents, 3 are shown" in out


@pytest.mark.parametrize(
    ("text", "value", "error"),
    [
        ("delta=.16+-.01", 0.16, 0.01),
        ("delta = 0.16 +/- 0.01", 0.16, 0.01),
        ("delta=.16±1e-2", 0.16, 0.01),
        ("delta=.16(1)", 0.16, 0.01),
        ("delta=0.159464(6)", 0.159464, 6e-6),
        ("delta=1.5(1.2)", 1.5, 1.2),
        ("delta=12(3)", 12, 3),
        ("delta=-.30(12)", -0.3, 0.12),
        ("delta=1.6(1)e-1", 0.16, 0.01),
        ("delta=1.6e-1+-1.e-2", 0.16, 0.01),
        ("delta=-2+-1", -2, 1),
    ],
)
def test_ways_to_write_an_error(text, value, error):
    found = exponent(text)
    assert found.name == "delta"
    assert (found.value, found.error) == pytest.approx((value, error))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("delta=.16", "no error"),
        ("delta", "NAME=VALUE"),
        ("=.16+-.01", "NAME=VALUE"),
        ("delta=.16+-0", "above 0"),
        ("delta=.16+--.01", "above 0"),
        ("delta=.16(0)", "above 0"),
        ("delta=nan+-.01", "NAME=VALUE"),
        ("delta=.16+-inf", "NAME=VALUE"),
        ("delta=1e999+-1", "above 0"),
        ("delta=.16()", "NAME=VALUE"),
        ("delta=.16+-.01+-.02", "NAME=VALUE"),
    ],
)
def test_what_is_no_exponent(text, words):
    with pytest.raises(ArgumentTypeError, match=words):
        exponent(text)


@pytest.mark.parametrize("text", ["delta,z", "delta=.3", "delta,z=x", "delta,z=1", "a,b,c=.1"])
def test_what_is_no_correlation(text):
    with pytest.raises(ArgumentTypeError, match=r"correlation|NAME,NAME"):
        correlation(text)


@pytest.mark.parametrize("text", ["delta=.1+-.1", ": delta=.1+-.1", "10-100:", "10-100: delta"])
def test_what_is_no_window(text):
    with pytest.raises(ArgumentTypeError, match="NAME=VALUE"):
        window(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "give --exponent"),
        ("--exponent gamma=1+-.1", "expected one of: beta"),
        ("--exponent delta=.1+-.1 --exponent delta=.2+-.1", "given twice"),
        ("--exponent z=1+-.1 --exponent nu_par/nu_perp=2+-.1", "given twice"),
        ("--exponent z=1+-.1 --exponent 1/z=2+-.1", "says the same"),
        ("--exponent delta=.1+-.1 --correlation delta,z=.3", "given together"),
        ("--exponent delta=.1+-.1 --correlation delta,delta=.3", "itself"),
        ("--exponent delta=.1+-.1 --dimension 77 --level .01", ""),
        ("--exponent delta=.1+-.1 --window a:delta=.1+-.1", "at least two"),
    ],
)
def test_bad_input(ask, line, words):
    if not words:  # far above every upper critical dimension: mean field alone
        assert ask(*line.split(), "--json")[0] == 1
        return
    with pytest.raises(InputError, match=words):
        ask(*line.split())


def test_correlations_that_cannot_be(ask):
    words = [w for n in ("delta", "z", "beta") for w in ("--exponent", f"{n}=1+-.1")]
    for pair in ("delta,z=.9", "z,beta=.9", "delta,beta=-.9"):
        words += ["--correlation", pair]
    with pytest.raises(InputError, match="positive definite"):
        ask(*words)
    with pytest.raises(InputError, match="twice"):
        ask(*words, "--correlation", "z,delta=.2")

"""The command ``plan``."""

from __future__ import annotations

import numpy as np
import pytest

from depthscale import commands


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(commands.ROOMS, "plan", ("plan", "the depths that a data set allows"))


def test_json_is_the_plan(answer):
    code, found = answer("plan --activation tanh --data digits --depth 50 --window .5,20")
    assert code == 0
    assert found["verdict"] == "inside"
    assert found["depth"] == 50
    low, high = found["sigma_b_window"]
    assert low < found["sigma_b"] < high
    assert found["depth_window"][0] <= 50 <= found["depth_window"][1]
    assert found["width"] == pytest.approx(found["mu"] * 50 / 0.1, abs=1)
    assert found["window"]["low"] == 0.5
    assert {"sigma_b", "sigma_w", "shallowest", "deepest"} <= set(found["line"][0])


def test_too_deep_is_a_finding(answer):
    code, found = answer("plan --activation relu --data digits --depth 500 --window .5,5")
    assert code == 1
    assert found["verdict"] == "too deep"
    assert found["sigma_b_window"] is None
    assert "sigma_b = 0" in found["reasons"]["sigma_b_window"]


def test_text_and_figure(run):
    code, out, err = run(
        "plan --activation erf --data digits --sigma-b .3 --window .5,20 --plot plan.png"
    )
    assert code == 0
    assert "inside the window" in out
    assert "wrote plan.png" in err
    assert max(map(len, out.splitlines())) <= 100


def test_no_window_and_bad_input(run, tmp_path):
    code, out, _ = run("plan --activation softplus --data digits --window .5,20")
    assert code == 1
    assert "no window" in out
    np.save(tmp_path / "one.npy", np.ones((1, 3)))
    for line, words in (
        ("--activation erf --data normal", "no plan"),
        ("--activation erf --data one.npy --window .5,20", "two at least"),
        ("--activation erf --data digits --window 5", "LOW,HIGH"),
        ("--activation erf --data digits --depth 0", "at least 1"),
        ("--activation nothing --data digits", "nothing"),
    ):
        code, out, err = run(f"plan {line}")
        assert (code, out) == (2, "")
        assert words in err

"""Runs of an ensemble: the same answer on any number of processes, after a stop, beyond floats."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from depthscale.answers import InputError, Undefined
from depthscale.finite import runner
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.finite.plan import break_even
from depthscale.finite.streaming import Tally
from depthscale.theory.linear import linear_moments

SMALL = Ensemble("tanh", sigma_w=1.4, sigma_b=0.2, width=32, depth=6, drop=0.1)
STATISTICS = ("mean", "sem", "mean_log", "var_log", "q05", "median")


def equal(left, right) -> bool:
    return all(
        np.array_equal(left.statistic(name, s), right.statistic(name, s), equal_nan=True)
        for name in left.names
        for s in STATISTICS
    )


def test_the_number_of_processes_does_not_matter():
    one, two = (SMALL.backward("quadratic", Pair(0.4), 1500, seed=3, workers=w) for w in (1, 2))
    assert equal(one, two)
    assert one.nets == two.nets == 1500


def test_functions_without_a_name_reach_other_processes():
    networks = Ensemble(lambda x: np.tanh(x) + 0.1 * x, sigma_w=1.2, width=16, depth=3)

    def loss(outputs: torch.Tensor) -> torch.Tensor:
        return (outputs**4).sum(-1)

    one, two = (networks.backward(loss, Pair(0.4), 600, workers=w) for w in (1, 2))
    assert equal(one, two)


def test_kept_values_are_those_that_are_counted():
    run = SMALL.backward("quadratic", Pair(0.4), 300, keep=True)
    for name in run.names:
        values = run.values(name)
        np.testing.assert_allclose(run.mean(name), values.mean(0), rtol=1e-11, atol=1e-300)
        spread = values.std(0, ddof=1) / np.sqrt(len(values))
        np.testing.assert_allclose(run.sem(name), spread, rtol=1e-6, atol=1e-12)
        exact = np.quantile(values, 0.5, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(run.statistic(name, "median"), exact, rtol=0.0051)


def test_the_backward_pass_may_draw_the_forward_pass_again(monkeypatch):
    """Bit for bit the same whether units are kept or drawn again, stretch by stretch."""
    job = SMALL._job("quadratic", Pair(0.4), 1)
    for stretch in (1, 2, 4):
        short = replace(job, plan=replace(job.plan, stretch=stretch))
        whole, parts = job.blocks(range(2)), short.blocks(range(2))
        for a, b in zip(whole, parts, strict=True):
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])


def test_memory_does_not_grow_with_depth():
    plans = [
        Ensemble("tanh", 1.4, width=1000, depth=depth).plan(Pair(0.4), "quadratic").bytes
        for depth in (1000, 10_000, 100_000)
    ]
    assert plans[0] == plans[1] == plans[2]


# Stopped runs -------------------------------------------------------------------------------------


def test_threads_of_others_change_nothing():
    """Inner products of 20,000 units, which BLAS would share out among its threads."""
    wide = Ensemble("tanh", sigma_w=1.4, sigma_b=0.2, width=20_000, depth=2)
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            results.append(wide.backward("quadratic", Pair(0.4), 8, seed=1, precision="double"))
    assert equal(*results)


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    """Interrupted after two blocks, the run goes on there, and ends bit for bit the same."""
    path = tmp_path / "run.npz"
    whole = SMALL.backward("quadratic", Pair(0.4), 1500, seed=3)
    counted, add = [], Tally.add

    def interrupted(self, block):
        counted.append(1)
        if len(counted) == 3:
            raise KeyboardInterrupt
        add(self, block)

    monkeypatch.setattr(Tally, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SMALL.backward("quadratic", Pair(0.4), 1500, seed=3, checkpoint=path)
    monkeypatch.undo()
    drawn, block = [], runner.Job.block
    monkeypatch.setattr(
        runner.Job, "block", lambda job, k, space: drawn.append(k) or block(job, k, space)
    )
    again = SMALL.backward("quadratic", Pair(0.4), 1500, seed=3, checkpoint=path)
    assert drawn == [2, 3, 4, 5]
    assert equal(whole, again)
    more = SMALL.backward("quadratic", Pair(0.4), 1900, seed=3, checkpoint=path)
    monkeypatch.undo()
    assert equal(more, SMALL.backward("quadratic", Pair(0.4), 1900, seed=3))


def test_a_saved_run_is_not_that_of_inputs_in_another_order(tmp_path):
    a, b = np.random.default_rng(1).standard_normal((2, 32))
    near = b + 1e-9 * np.eye(32)[0]
    path = tmp_path / "run.npz"
    SMALL.forward([a, b, near], 4, checkpoint=path)
    with pytest.raises(InputError, match="saved by a run of another network, inputs"):
        SMALL.forward([a, near, b], 4, checkpoint=path)


def test_a_killed_run_goes_on(tmp_path):
    """SIGKILL in the middle leaves a whole file."""
    path = tmp_path / "run.npz"
    code = f"""
        from depthscale.finite import runner
        from depthscale.finite.ensemble import Ensemble, Pair
        runner.SAVE_EVERY = 0.0
        networks = Ensemble("tanh", sigma_w=1.4, sigma_b=0.2, width=32, depth=6, drop=0.1)
        print("ready", flush=True)
        networks.backward("quadratic", Pair(0.4), 10**7, seed=3, checkpoint={str(path)!r})
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    run.stdout.readline()
    while not path.exists():
        assert run.poll() is None
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    done = int(np.load(path)["done"]) * SMALL.plan(Pair(0.4), "quadratic").nets
    again = SMALL.backward("quadratic", Pair(0.4), done + 10, seed=3, checkpoint=path)
    assert equal(again, SMALL.backward("quadratic", Pair(0.4), done + 10, seed=3))


def test_a_saved_run_of_something_else_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    SMALL.forward(Pair(0.4), 300, checkpoint=path)
    with pytest.raises(InputError, match="another network"):
        SMALL.forward(Pair(0.5), 300, checkpoint=path)
    with pytest.raises(InputError, match="another network"):
        SMALL.forward(Pair(0.4), 300, seed=1, checkpoint=path)
    with pytest.raises(InputError, match=r"holds .* networks already"):
        SMALL.forward(Pair(0.4), 10, checkpoint=path)
    with pytest.raises(InputError, match="without the networks' own values"):
        SMALL.forward(Pair(0.4), 300, checkpoint=path, keep=True)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="no saved run"):
        SMALL.forward(Pair(0.4), 300, checkpoint=path)


# Numbers beyond the range of floats ---------------------------------------------------------------


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize(
    ("name", "sigma_w", "sigma_b"),
    [
        ("relu", 5.0, 0.0),
        ("relu", 5.0, 0.3),
        ("gelu", 5.0, 0.0),
        ("relu", 0.3, 0.0),
        ("tanh", 0.3, 0.0),
    ],
)
def test_lengths_beyond_floats_are_answered_in_logarithms(name, sigma_w, sigma_b, precision):
    """ln q = depth ln(chi) + O(depth/n): lengths of e^+-1000 and gradients of twice that.

    The mean logarithm of the squared length of ReLU falls 5/(2n) a layer short of ln(sigma_w^2/2)
    at leading order (variance of a layer 5/n); at n = 64 the next order is 1/n^2. 128 networks of
    variance 500 x 5/64: standard error .55.
    """
    depth = 500
    networks = Ensemble(name, sigma_w, sigma_b, width=64, depth=depth)
    run = networks.backward("quadratic", Pair(0.5), 128, precision=precision)
    log_q = run.statistic("q", "mean_log")[0, -1]
    share, rate = (1.0, 2.0) if name == "tanh" else (0.5, 5.0)
    expected = depth * (np.log(share * sigma_w**2) - rate / 128)
    assert log_q == pytest.approx(expected, abs=5 * np.sqrt(depth * rate / 64 / 128) + 2)
    assert run.statistic("q", "count")[0, -1] == 128
    gradient = run.statistic("grad_aa", "mean_log")[0, 0]
    assert np.isfinite(gradient)
    assert np.sign(gradient) == np.sign(expected)
    assert np.isfinite(run.statistic("grad_aa", "log_abs_mean")[0, 0])
    if expected > 0:
        assert np.isinf(run.mean("q")[0, -1])


def test_both_precisions_draw_the_same_networks():
    """Equal normals, so equal networks but for 24-bit arithmetic over six layers."""
    double, single = (
        SMALL.backward("quadratic", Pair(1e-12), 64, precision=p, keep=True)
        for p in ("double", "single")
    )
    for name in ("q", "eps", "grad_aa"):
        np.testing.assert_allclose(single.values(name), double.values(name), rtol=2e-3)


def test_dead_networks_are_counted():
    """So much dropout that nothing survives: lengths are 0, misalignments do not exist."""
    networks = Ensemble("tanh", 1.2, width=8, depth=4, drop=1 - 1e-9)
    run = networks.backward("quadratic", Pair(0.5), 20)
    assert np.array_equal(run.mean("q")[0, 2:], np.zeros(3))
    assert np.array_equal(run.statistic("eps", "count")[0], [20, 20, 0, 0, 0])
    assert np.isnan(run.mean("eps")[0, 2:]).all()


def test_lyapunov_exponent_of_a_linear_network():
    """E ln(|d'|/|d|) = (psi(n/2) - ln(n/2))/2 + ln sigma_w for Gaussian matrices, exactly.

    200 networks of 20 layers; within 4.5 standard errors, which fails in 1 of 100,000 seeds.
    """
    from scipy.special import digamma

    networks = Ensemble("identity", 1.3, width=12, depth=20)
    growth, error = networks.forward(Pair(1e-20), 200, keep=True).lyapunov()
    exact = (digamma(6) - np.log(6)) / 2 + np.log(1.3)
    assert abs(float(growth) - exact) < 4.5 * float(error)
    apart = networks.forward(Pair(0.5), 20, keep=True).lyapunov()
    assert isinstance(apart[0], Undefined)


# Exact moments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "tied"), [("weightless", True), ("weightless", False), ("explicit", True)]
)
def test_gradients_of_linear_networks_have_their_exact_means(engine, tied):
    """E G_ab of linear dropout networks, tied and untied, at widths 12, 8, 16, 12.

    Four inner products at three hops within 4.5 standard errors of 20,000 networks: fails by chance
    in 1 of 10,000 seeds. The two laws are 10 and more standard errors apart.
    """
    networks = Ensemble("identity", 0.95, width=[12, 8, 16, 12], depth=3, drop=0.2, tied=tied)
    run = networks.backward("quadratic", Pair(0.4), 20_000, seed=5, engine=engine)
    exact = linear_moments(networks.layers, networks.widths, eps=0.4)
    expected = exact.gradient if tied else exact.gradient_untied
    other = exact.gradient_untied if tied else exact.gradient
    for name, entry in (("grad_aa", (0, 0)), ("grad_ab", (0, 1))):
        mean, error = run.mean(name)[0], run.sem(name)[0]
        assert np.all(np.abs(mean - expected[:, *entry]) < 4.5 * error)
        assert abs(mean[0] - other[0, *entry]) > 10 * error[0]


def test_the_planner_picks_by_the_number_of_inputs():
    wide = Ensemble("tanh", 1.2, width=128, depth=2)
    many = int(break_even(128)) + 1
    vectors = np.random.default_rng(0).standard_normal((many, 128))
    assert wide.plan(vectors).weights.__name__ == "Explicit"
    assert wide.plan(vectors[:2]).weights.__name__ == "Weightless"
    assert str(many) in wide.plan(vectors).reason
    untied = Ensemble("tanh", 1.2, width=128, depth=2, tied=False)
    assert untied.plan(vectors).weights.__name__ == "Untied"


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, "depth = 0: expected a whole number of weight layers, at least 1"),
        ({"depth": 2.5}, "depth = 2.5"),
        ({"width": 0}, "whole numbers"),
        ({"width": [4, 4]}, "2 widths for 3 hops"),
        ({"drop": 1.0}, "drop is 1.0"),
        (
            {"drop": [0.1]},
            "1 drop rates for depth 3: expected one number, or one for each of the 2",
        ),
        ({"sigma_w": 0.0}, "sigma_w is 0.0"),
        ({"activation": "tahn"}, "did you mean tanh"),
        ({"masks": "dropconnect", "drop": 0.1}, "explicit_pairs"),
        ({"weights": "sparse"}, "gaussian or orthogonal"),
        ({"weights": "orthogonal", "tied": False}, "tied=False"),
        ({"skip": 1.0, "width": [4, 4, 5, 4]}, "expected equal"),
    ],
)
def test_bad_architectures_are_explained(changes, message):
    given = {"activation": "tanh", "sigma_w": 1.2, "width": 8, "depth": 3}
    with pytest.raises(InputError, match=message):
        Ensemble(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nets": 0}, "nets = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"workers": 0}, "workers = 0"),
        ({"inputs": [[1.0, 2.0]]}, r"inputs have shape \(1, 2\)"),
        ({"inputs": [[np.nan] * 8]}, "NaN or infinite"),
        ({"inputs": "pair"}, "expected numbers"),
        ({"loss": "mse"}, "loss is 'mse'; expected one of quadratic"),
        ({"loss": None}, "call forward"),
        ({"loss": "cross_entropy"}, "takes labels, one for each of the 2 inputs; none given"),
        ({"loss": "cross_entropy", "labels": [0, 8]}, "from 0 to 7"),
        ({"loss": lambda outputs: outputs.sum()}, "one number for each net and input"),
        ({"loss": lambda outputs: torch.zeros(outputs.shape[:2])}, "has no gradient"),
        ({"engine": "fast"}, "auto, weightless, explicit"),
        ({"precision": "half"}, "one of mixed, double, single"),
        ({"device": "tpu"}, "expected cpu or cuda"),
        ({"observe": ["chi"]}, "absolute, units, ntk"),
        ({"pairs": [(0, 2)]}, "from 0 to 1"),
        ({"memory": 30_000_000, "keep": True, "nets": 10**7}, "nets=.* fits"),
        ({"memory": 2 * 10**8, "workers": 10**4}, "workers=.* fits"),
    ],
)
def test_bad_runs_are_explained(changes, message):
    networks = Ensemble("tanh", 1.2, width=8, depth=3)
    given = {"loss": "quadratic", "inputs": Pair(0.4), "nets": 4}
    with pytest.raises(InputError, match=message):
        networks.backward(**(given | changes))


def test_too_much_memory_is_refused_with_what_fits():
    huge = Ensemble("tanh", 1.2, width=10**10, depth=3)
    with pytest.raises(InputError, match=r"GiB may be used; layers of ([\d,]+) units fit") as error:
        huge.forward(Pair(0.4), 1)
    fits = int(str(error.value).split("layers of ")[1].split(" units")[0].replace(",", ""))
    plan = Ensemble("tanh", 1.2, width=fits, depth=3).plan(Pair(0.4))
    assert plan.bytes < 0.8 * 2**40


@pytest.mark.parametrize(
    "changes", [{"eps": 2.1}, {"eps": -0.1}, {"q1": 0.0}, {"q2": np.inf}, {"start": "fixed"}]
)
def test_bad_pairs_are_explained(changes):
    with pytest.raises(InputError, match="expected"):
        Pair(**({"eps": 0.5} | changes))


def test_results_become_a_dataset():
    run = SMALL.backward(
        "quadratic", Pair(0.4), 40, keep=True, observe=("absolute", "units", "ntk")
    )
    data = run.to_xarray()
    assert dict(data.sizes) | {"statistic": 0} == {
        "statistic": 0, "input": 2, "pair": 1, "layer": 7, "hop": 6, "delta_layer": 6, "total": 1,
        "net": 40,
    }  # fmt: skip
    np.testing.assert_array_equal(data.eps.sel(statistic="mean"), run.mean("eps"))
    np.testing.assert_array_equal(data.eps_net, run.values("eps"))
    assert all(data[name].attrs["long_name"] for name in run.names)
    assert data.attrs["nets"] == 40
    with pytest.raises(InputError, match="was not followed"):
        SMALL.forward(Pair(0.4), 4).mean("grad_aa")
    with pytest.raises(InputError, match="statistic is 'mode'"):
        run.statistic("q", "mode")
    with pytest.raises(InputError, match="keep=True"):
        SMALL.forward(Pair(0.4), 4).values("q")


@pytest.mark.parametrize("precision", ["double", "single"])
def test_pairs_that_become_equal_leave_single_inputs_alone(precision):
    """Linear, without masks: eps falls to e^-150, below what single precision squares.

    Var ln G_aa of 512 networks against that of one input alone, within 4.5 standard errors of both:
    fails in 1 of 100,000 seeds.
    """
    networks = Ensemble("identity", 0.5**0.5, 0.1**0.5, width=100, depth=220)
    pair = networks.backward("quadratic", Pair(1.0), 512, precision=precision)
    one = networks.backward("quadratic", [[1.0] * 100], 512, seed=1, precision=precision)
    values, errors = (
        [run.statistic("grad_aa", s)[0, 0] for run in (pair, one)]
        for s in ("var_log", "sem_var_log")
    )
    assert abs(values[0] - values[1]) < 4.5 * np.hypot(*errors)

"""Kernel regression, the window of a data set, and the plans that follow from it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from depthscale.answers import InputError, Undefined
from depthscale.practice.data import DataSet, digits
from depthscale.practice.data_window import (
    DataWindow,
    data_window,
    distances,
    spread_gaps,
    standard_window,
)
from depthscale.practice.kernel_regression import (
    cosine_gaps,
    kernel_accuracy,
    kernel_regression,
    network_regression,
)
from depthscale.practice.plan_depth import plan_depth
from depthscale.theory.criticality import critical_point
from depthscale.theory.diffusion import stochastic_limit
from depthscale.theory.kernel_window import window_deficit
from depthscale.theory.meanfield import MeanField
from depthscale.theory.tangent_kernel import KernelTable

WINDOW = (0.5, 20.0)


def critical(name: str, sigma_b: float = 0.3) -> MeanField:
    point = critical_point(name, sigma_b=sigma_b)
    return MeanField(name, float(point.sigma_w), sigma_b, start=float(point.q))


def pair(size: int = 60) -> tuple[DataSet, DataSet]:
    drawn = digits().draw(2 * size, seed=1)
    return drawn.take(torch.arange(size)), drawn.take(torch.arange(size, 2 * size))


def kernel_of(
    depth: int, name: str = "erf"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    train, test = pair()
    table = KernelTable(critical(name))
    gaps = [
        table.at(depth, cosine_gaps(part.inputs, train.inputs, same=part is train)).theta_eps
        for part in (train, test)
    ]
    return *gaps, train.targets.numpy(), test.targets.numpy()


# Kernel regression --------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_it_is_the_solution_of_the_plain_equations(ridge):
    gaps, far, y, z = kernel_of(20)
    found = kernel_regression(gaps, far, y, z, ridge=ridge)
    K = 1 - gaps + ridge * np.eye(len(y))
    names = np.unique(y)
    weights = np.linalg.solve(K, (y[:, None] == names) - 1 / names.size)
    outputs = (1 - far) @ weights
    missed = outputs - ((z[:, None] == names) - 1 / names.size)
    assert found.error == pytest.approx(np.mean(np.sum(missed**2, axis=1)), rel=1e-9)
    assert found.accuracy.value == np.mean(names[outputs.argmax(axis=1)] == z)
    assert found.condition == pytest.approx(np.linalg.cond(K), rel=1e-8)
    values = np.linalg.eigvalsh(K)
    assert found.effective == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-9)
    assert str(found).startswith("trained to the end")


def test_steps_are_those_of_gradient_descent():
    gaps, far, y, z = kernel_of(20)
    names, K = np.unique(y), 1 - gaps
    wanted = (y[:, None] == names) - 1 / names.size
    weights = np.zeros_like(wanted)
    for _ in range(50):
        weights -= (K @ weights - wanted) / np.linalg.eigvalsh(K)[-1]
    missed = (1 - far) @ weights - ((z[:, None] == names) - 1 / names.size)
    found = kernel_regression(gaps, far, y, z, steps=50)
    assert found.error == pytest.approx(np.mean(np.sum(missed**2, axis=1)), rel=1e-9)
    assert found.accuracy.value == kernel_accuracy(gaps, far, y, z, 50)
    long = kernel_regression(gaps, far, y, z, steps=1e9)
    end = kernel_regression(gaps, far, y, z)
    assert long.error == pytest.approx(end.error, rel=1e-6)


def test_condition_and_solution_survive_where_float64_does_not():
    """Scaling all gaps by 1e-18 leaves the interpolation as it is and divides the condition.

    ``K = 1 1^T - s D``: to first order in s its solution does not depend on s.
    """
    gaps, far, y, z = kernel_of(20)
    small = [kernel_regression(s * gaps, s * far, y, z) for s in (1e-6, 1e-18)]
    assert small[1].error == pytest.approx(small[0].error, rel=1e-4)
    assert small[1].accuracy == small[0].accuracy
    ratio = float(small[1].condition) / float(small[0].condition)
    assert ratio == pytest.approx(1e12, rel=1e-4)
    assert float(small[1].condition) > 1e18


def test_duplicates_have_no_condition_number():
    gaps, far, y, z = kernel_of(20)
    gaps[1], gaps[:, 1] = gaps[0], gaps[:, 0]
    gaps[0, 1] = gaps[1, 0] = gaps[1, 1] = 0
    found = kernel_regression(gaps, far, y, z)
    assert isinstance(found.condition, Undefined)
    assert 0 <= found.accuracy.value <= 1
    assert "undefined" in str(found)


def test_networks_learn_the_digits_and_lose_them_too_deep():
    table, (train, test) = KernelTable(critical("erf")), pair(150)
    good = network_regression(table, 10, train, test)
    chaotic = network_regression(MeanField("erf", 1.6, 0.3), 100, train, test)
    readout = network_regression(table, 10, train, test, kernel="nngp")
    # 150 test digits: three standard errors of .9 are .07; chance is .1
    assert good.accuracy.value > 0.85
    assert readout.accuracy.value > 0.85
    assert chaotic.accuracy.value < 0.3


def test_cosines_keep_their_digits():
    x = np.array([[3.0, 4.0], [3.0, 4.0 + 1e-9], [-3.0, -4.0], [0.0, 1e-200]])
    gaps = cosine_gaps(x, x)
    assert gaps[0, 1] == pytest.approx((0.6e-9 / 5) ** 2 / 2, rel=1e-6)
    assert gaps[0, 2] == pytest.approx(2, abs=1e-15)
    assert gaps[0, 3] == pytest.approx(0.2)
    assert np.all(np.diag(cosine_gaps(x, x, same=True)) == 0)


@pytest.mark.parametrize(
    "broken", [[[0.0, 0.0], [1.0, 2.0]], [1.0, 2.0], [[math.nan, 1.0]], "a", []]
)
def test_inputs_without_direction_are_refused(broken):
    with pytest.raises(InputError):
        cosine_gaps(broken, [[1.0, 2.0]])


def test_regressions_of_the_wrong_kind_are_refused():
    gaps, far, y, z = kernel_of(1)
    for wrong in ({"ridge": -1}, {"ridge": math.nan}, {"steps": 0}, {"steps": math.nan}):
        with pytest.raises(InputError):
            kernel_regression(gaps, far, y, z, **wrong)
    for parts in ((gaps[:5], far, y, z), (gaps, far[:, :5], y, z), (gaps, far, y * 0, z)):
        with pytest.raises(InputError):
            kernel_regression(*parts)
    with pytest.raises(InputError, match="NaN"):
        kernel_regression(gaps * math.nan, far, y, z)
    train, test = pair()
    with pytest.raises(InputError, match="kernel"):
        network_regression(critical("erf"), 3, train, test, kernel="both")
    with pytest.raises(InputError, match="targets"):
        network_regression(critical("erf"), 3, train, DataSet(test.inputs, None, "unlabelled"))


# Windows ------------------------------------------------------------------------------------------


def brightened(by: float) -> DataSet:
    values, labels = load_digits(return_X_y=True)
    return DataSet(torch.from_numpy(values + by).float(), torch.from_numpy(labels), "digits")


def test_the_kernel_of_the_class_is_the_closed_window():
    gaps = np.array([[0.0, 1e-6], [0.3, 2.0]])
    found = spread_gaps(gaps, 7.0, 1.5)
    exact = window_deficit(7 * gaps**0.5, 1.5, rho0=gaps)
    np.testing.assert_allclose(found, exact, rtol=2e-5)
    assert np.all(spread_gaps(np.zeros((2, 2)), 1.0) == 0)


def test_close_data_have_one_window_of_the_product():
    """Digits nine times closer need nine times the stretch, to a step of the scan.

    At the lower end accuracy changes by .01 a step and is known to .01: two steps.
    """
    ends = []
    for by in (20.0, 70.0):
        data = brightened(by)
        window = data_window(data, repeats=1)
        ends.append(np.array([window.low, window.high]) * distances(data).median)
    assert distances(brightened(20.0)).median > 5 * distances(brightened(70.0)).median
    off = np.abs(np.log(ends[0] / ends[1]))
    assert np.all(off < np.array([2, 1]) * math.log(10) / 4)


def test_distances_of_the_digits():
    found = distances(digits())
    assert found.nearest < found.low < found.median < found.high
    assert found.classes_apart > 0
    assert found.duplicates == found.opposites == 0


# Plans --------------------------------------------------------------------------------------------


def test_depth_and_bias_are_each_others_window():
    by_bias = plan_depth("digits", "tanh", sigma_b=0.3, window=WINDOW)
    kappa = critical("tanh").universality.amplitude
    assert by_bias.depth_window == (math.ceil(0.5 / kappa), math.floor(20 / kappa))
    for depth, verdict in ((1, "too shallow"), (20, "inside"), (100, "too deep")):
        assert (
            plan_depth("digits", "tanh", sigma_b=0.3, depth=depth, window=WINDOW).verdict == verdict
        )
    by_depth = plan_depth("digits", "tanh", depth=40, window=WINDOW)
    low, high = by_depth.sigma_b_window
    assert low < float(by_depth.sigma_b) < high
    assert by_depth.verdict == "inside"
    for bias, wanted in ((low, 0.5), (high, 20.0)):
        # between points of the line, six a decade, it is interpolated
        assert 40 * critical("tanh", bias).universality.amplitude == pytest.approx(wanted, rel=0.03)


def test_width_is_that_of_the_finite_width_law():
    plan = plan_depth("digits", "tanh", sigma_b=0.3, depth=50, window=WINDOW, deviation=0.05)
    limit = stochastic_limit(critical("tanh"))
    mu = -(limit.lam / 2 + limit.variance / 12)
    assert plan.mu == pytest.approx(mu)
    assert mu == pytest.approx(0.573, abs=1e-3)
    assert plan.width == math.ceil(mu * 50 / 0.05)
    narrow = plan_depth("digits", "tanh", sigma_b=0.3, depth=50, window=WINDOW, width=50)
    assert narrow.verdict == "too narrow"
    assert narrow.depth_window[1] == math.floor(0.1 * 50 / mu)
    relu = plan_depth("digits", "relu", depth=10, window=WINDOW)
    assert isinstance(relu.width, Undefined)
    assert relu.mu == 0
    assert relu.width_spread == math.ceil(8 * 10 / 0.03)


def test_mean_of_kinked_networks_moves_as_mu_says():
    """E eps of hardtanh networks against infinite width: ``1 - mu L/n`` at small ``L/n``.

    2,000 networks: one standard error is ``s sqrt(L/(3n))/sqrt(2000)`` = .005; corrections of
    order ``(L/n)^2`` and of the short depth are some .03.
    """
    from depthscale.finite.ensemble import Ensemble, Pair

    layer, n, depth = critical("hardtanh"), 200, 50
    limit = stochastic_limit(layer)
    mu = -(limit.lam / 2 + (2 - limit.beta) * limit.variance / 12)
    run = Ensemble.of([layer] * depth, [n] * (depth + 1)).forward(
        Pair(0.5, float(layer.q), float(layer.q), "drawn"), 2000, 5, keep=True, progress=False
    )
    found = run.values("eps")[:, 0, -1].mean()
    wide = 0.5
    for _ in range(depth):
        wide = float(layer.gap_map(wide))
    assert 1 - found / wide == pytest.approx(mu * depth / n, abs=0.05)
    assert mu * depth / n > 0.1


def test_a_measured_plan_prints_itself_and_is_json(tmp_path):
    plan = plan_depth(digits(), "erf", depth=30)
    assert plan.verdict == "inside"
    assert isinstance(plan.window, DataWindow)
    assert plan.check.accuracy.value > plan.window.accuracy.max() - 0.06  # 250 test digits
    record = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    assert record["depth"] == 30
    assert record["depth_window"][0] <= 30 <= record["depth_window"][1]
    assert "inside the window" in str(plan)
    plan.plot(tmp_path / "plan.svg")
    assert (tmp_path / "plan.svg").stat().st_size > 5000


def test_the_choice_along_the_line():
    plan = plan_depth("digits", "erf", window=WINDOW)
    assert plan.verdict == "choose"
    biases = [point.sigma_b for point in plan.line]
    assert biases == sorted(biases)
    assert np.all(np.diff([point.deepest for point in plan.line]) < 0)
    assert isinstance(plan.depth_window, Undefined)
    json.dumps(plan.to_dict(), allow_nan=False)


def test_data_without_labels_borrow_a_window():
    inputs = digits().inputs.numpy()
    plan = plan_depth(inputs, "erf", sigma_b=0.3)
    low, high, best = standard_window(2.0)
    assert plan.window.low == pytest.approx(low / distances(digits()).median, rel=0.05)
    assert low < best < high
    assert "labels" in plan.notes[0]
    assert isinstance(plan.check, Undefined)


def test_what_has_no_window_says_why():
    same = np.tile([1.0, 2.0, 3.0], (5, 1))
    opposite = np.array([[1.0, 2.0], [-1.0, -2.0]])
    cases = [
        (same, "erf", {}, "coincide"),
        (opposite, "erf", {}, "opposite"),
        ("digits", "softplus", {}, "sigma_b"),
        ("digits", "identity", {}, "linear"),
        ("digits", "step", {}, "step"),
        ("digits", "relu", {"sigma_b": 0.3}, "scale-free"),
    ]
    for data, name, more, words in cases:
        plan = plan_depth(data, name, window=WINDOW, **more)
        assert plan.verdict == "no window"
        assert words in plan.reason, plan.reason
        assert isinstance(plan.depth_window, Undefined)
        assert plan.reason[:20] in str(plan).replace("\n              ", " ")
        json.dumps(plan.to_dict(), allow_nan=False)
        with pytest.raises(InputError, match="no plan"):
            plan.plot()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"data": "nowhere.npy"}, "does not exist"),
        ({"data": None}, "expected a DataSet"),
        ({"data": [[1.0, math.nan], [1.0, 2.0]]}, "NaN"),
        ({"data": [[1.0, 2.0]]}, "two at least"),
        ({"data": [[0.0, 0.0], [1.0, 2.0]]}, "zeros"),
        ({"depth": 0}, "depth"),
        ({"depth": 2.5}, "depth"),
        ({"width": 0}, "width"),
        ({"sigma_b": -1.0}, "sigma_b"),
        ({"sigma_b": math.nan}, "sigma_b"),
        ({"deviation": 0}, "deviation"),
        ({"window": (2.0, 1.0)}, "window"),
        ({"window": (math.nan, 1.0)}, "window"),
        ({"loss": 2.0, "window": None}, "loss"),
        ({"steps": 0, "window": None}, "steps"),
    ],
)
def test_bad_input_is_refused(broken, words):
    with pytest.raises(InputError, match=words):
        plan_depth(**({"data": "digits", "activation": "erf", "window": WINDOW} | broken))

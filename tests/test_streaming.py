"""Streaming statistics against numpy on the whole sample, and the laws of merging and restoring."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from scipy import special, stats

from depthscale.answers import InputError
from depthscale.finite.signed import signed_log
from depthscale.finite.streaming import Moments, Tally
from signed_blocks import BLOCK, P, sketch_of

RESULTS = (
    "count",
    "zeros",
    "mean",
    "sem",
    "log_abs_mean",
    "log_sem",
    "mean_log",
    "sem_mean_log",
    "var_log",
    "sem_var_log",
)


def results(moments: Moments) -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(moments, name)) for name in RESULTS}


def moments_of(sign: np.ndarray, log_abs: np.ndarray) -> Moments:
    moments = Moments(np.shape(sign)[1:])
    moments.add(sign, log_abs)
    return moments


def made_up_block(seed: int, nets: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Ordinary values with gaps and zeros, values in the far range, and a scalar a net."""
    rng = np.random.default_rng([seed, nets])
    holes = rng.normal(size=(nets, 3, 2))
    holes[rng.random(holes.shape) < 0.2] = np.nan
    holes[rng.random(holes.shape) < 0.2] = 0
    far = np.sign(rng.normal(size=(nets, 4))), rng.normal(size=(nets, 4)) * 2000
    return {
        "holes": signed_log(holes),
        "far": far,
        "scalar": signed_log(rng.exponential(size=nets)),
    }


def assert_same_state(a: Tally, b: Tally) -> None:
    first, second = a.state(), b.state()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype, name
        assert value.shape == second[name].shape, name
        assert value.tobytes() == second[name].tobytes(), name


def assert_same_results(a: Tally, b: Tally) -> None:
    assert (a.nets, a.shapes) == (b.nets, b.shapes)
    for name in a.shapes:
        first, second = results(a.moments(name)), results(b.moments(name))
        for key, value in first.items():
            assert value.tobytes() == second[key].tobytes(), (name, key)
        for x, y in zip(
            a.sketch(name).signed_quantile(P), b.sketch(name).signed_quantile(P), strict=True
        ):
            assert x.tobytes() == y.tobytes(), name


def saved_and_loaded(tally: Tally) -> Tally:
    file = io.BytesIO()
    np.savez(file, **tally.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return Tally.from_state(arrays)


# Moments against the whole sample


@pytest.mark.parametrize("blocks", [1, 7, 300])
def test_moments_are_those_of_the_whole_sample(blocks: int) -> None:
    x = np.random.default_rng(blocks).normal(size=(300, 5)) + np.arange(5)
    x[::7, 1] = 0
    moments = Moments((5,))
    for part in np.array_split(x, blocks):
        moments.add(*signed_log(part))
    # Rounding of the logarithms (|log x| < 10) and of sums of 300 terms; m4 is the most sensitive.
    close = {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), **close)
    np.testing.assert_allclose(moments.sem, stats.sem(x, axis=0), **close)
    np.testing.assert_allclose(moments.log_abs_mean, np.log(np.abs(x.mean(axis=0))), **close)
    for cell in range(5):
        logs = np.log(np.abs(x[x[:, cell] != 0, cell]))
        n = len(logs)
        var, m4 = logs.var(ddof=1), stats.moment(logs, 4)
        assert moments.count[cell] == 300
        assert moments.zeros[cell] == 300 - n
        np.testing.assert_allclose(moments.mean_log[cell], logs.mean(), **close)
        np.testing.assert_allclose(moments.var_log[cell], var, **close)
        np.testing.assert_allclose(moments.sem_mean_log[cell], stats.sem(logs), **close)
        expected = np.sqrt((m4 - (n - 3) / (n - 1) * var**2) / n)
        np.testing.assert_allclose(moments.sem_var_log[cell], expected, **close)


def test_a_far_offset_costs_no_digits_of_the_variance() -> None:
    # log|x| = 5000 + u: one ulp of 5000 is 1e-12, which is all that may be lost of u of order one.
    u = np.random.default_rng(0).normal(size=(1000, 1))
    moments = Moments((1,))
    for part in np.split(5000 + u, 50):
        moments.add(np.ones_like(part), part)
    np.testing.assert_allclose(moments.var_log, u.var(ddof=1), rtol=1e-11)
    m4, var = stats.moment(u[:, 0], 4), u.var(ddof=1)
    np.testing.assert_allclose(
        moments.sem_var_log, np.sqrt((m4 - 997 / 999 * var**2) / 1000), rtol=1e-10
    )


def test_standard_errors_are_the_scatter_over_repetitions() -> None:
    # 4000 repetitions know a scatter to 1/sqrt(8000) = 1.1 %: five of these. The mean square of
    # sem_var_log overstates the variance by O(1/n), 3 % at n = 40 for the skewed law.
    rng = np.random.default_rng(1)
    logs = special.log1p(rng.exponential(size=(40, 4000)))
    moments = moments_of(np.ones_like(logs), logs)
    for value, error, bias in (
        (moments.mean, moments.sem, 0),
        (moments.mean_log, moments.sem_mean_log, 0),
        (moments.var_log, moments.sem_var_log, 0.03),
    ):
        assert np.sqrt(np.mean(error**2)) / value.std() == pytest.approx(1, abs=0.06 + bias)


def test_means_beyond_the_range_of_floats() -> None:
    sign = np.array([[1.0, -1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 0.0, np.nan]])
    log_abs = np.array([[5000.0, -5000.0, 300.0], [5001.0, -5001.0, 300.0], [4999.0, 0, 0]])
    moments = moments_of(sign, log_abs)
    assert moments.mean.tolist() == [np.inf, 0, 0]
    assert np.signbit(moments.mean).tolist() == [False, True, False]
    scaled = np.array([1, np.e, -np.exp(-1)])
    assert moments.log_abs_mean[0] == pytest.approx(5000 + np.log(scaled.mean()), abs=2e-12)
    assert moments.log_sem[0] == pytest.approx(5000 + np.log(stats.sem(scaled)), abs=2e-12)
    assert moments.sem[0] == np.inf
    assert moments.log_abs_mean[1] == pytest.approx(-5000 + np.log((1 + np.exp(-1)) / 3), abs=2e-12)
    assert moments.log_abs_mean[2] == -np.inf
    assert moments.sem[2] == pytest.approx(np.exp(300))
    assert moments.mean_log.tolist() == [5000, -5000.5, 300]


def test_what_few_nets_do_not_determine_is_nan() -> None:
    sign = np.array([[np.nan, 0, 1, 1, 1], [np.nan, 0, np.nan, 0, 1]])
    moments = moments_of(sign, np.where(sign == 1, 2.0, np.nan))
    nothing, zeros, one, one_and_zero, two = range(5)
    found = results(moments)
    missing = {name for name in RESULTS if np.isnan(found[name][nothing])}
    assert missing == set(RESULTS) - {"count", "zeros"}
    assert [found[name][zeros] for name in ("count", "zeros", "mean", "sem")] == [2, 2, 0, 0]
    assert found["log_abs_mean"][zeros] == -np.inf
    assert np.isnan([found[name][zeros] for name in ("mean_log", "var_log", "sem_var_log")]).all()
    assert [found[name][one] for name in ("count", "mean_log")] == [1, 2]
    errors = ("sem", "log_sem", "sem_mean_log", "var_log", "sem_var_log")
    assert np.isnan([found[name][one] for name in errors]).all()
    assert found["mean"][one_and_zero] == found["sem"][one_and_zero] == pytest.approx(np.exp(2) / 2)
    assert [found[name][two] for name in errors] == [0, -np.inf, 0, 0, 0]
    empty = results(Moments((2,)))
    assert all(np.isnan(empty[name]).all() for name in missing)


@given(BLOCK)
def test_moments_merge_in_any_grouping(block: np.ndarray) -> None:
    whole = moments_of(*block)
    parts = [moments_of(*part) for part in np.array_split(block, 3, axis=1)]
    left, right, swapped = (Moments(whole.count.shape) for _ in range(3))
    for part in parts:
        left.merge(part)
    a, b, c = parts
    b.merge(c)
    for part in (a, b):
        right.merge(part)
    for part in (b, a):
        swapped.merge(part)
    # Rounding of means relative to R = max |x|, and of n powers of logarithms.
    size = np.max(np.abs(block[1]), axis=0, initial=1, where=np.isfinite(block[1]))
    bound = 1e-13 * (1 + whole.count) * np.stack([size**k for k in (1, 2, 3, 4)])
    for merged in (left, right, swapped):
        assert (merged.count == whole.count).all()
        assert (merged.zeros == whole.zeros).all()
        assert (merged._kept[2] == whole._kept[2]).all()
        np.testing.assert_allclose(merged._kept[3:5], whole._kept[3:5], rtol=1e-12, atol=1e-13)
        assert (np.abs(merged._kept[5:] - whole._kept[5:]) <= bound).all()


# The tally


@pytest.mark.parametrize("cut", [1, 3, 16, 64, 65, 200])
def test_results_depend_on_the_nets_not_on_the_blocks(cut: int) -> None:
    whole, cut_up = Tally(), Tally()
    block = made_up_block(0, 200)
    whole.add(block)
    for start in range(0, 200, cut):
        part = slice(start, start + cut)
        cut_up.add({name: (s[part], size[part]) for name, (s, size) in block.items()})
        cut_up.moments("holes"), cut_up.sketch("far").quantile(0.5)  # a look changes nothing
    assert_same_state(whole, cut_up)
    assert_same_results(whole, cut_up)


@pytest.mark.parametrize("saves", [[], [0], [2], [0, 1, 5, 6, 9]])
def test_a_restored_tally_goes_on_bit_for_bit(saves: list[int]) -> None:
    straight, interrupted = Tally(), Tally()
    for seed in range(10):
        block = made_up_block(seed, 7 + 11 * seed)
        straight.add(block)
        if seed in saves:
            restored = saved_and_loaded(interrupted)
            assert_same_state(restored, interrupted)
            interrupted = restored
        interrupted.add(block)
    assert_same_results(straight, interrupted)
    assert_same_state(straight, interrupted)


def test_a_tally_agrees_with_its_parts() -> None:
    tally, blocks = Tally(), [made_up_block(seed, 30) for seed in range(5)]
    for block in blocks:
        tally.add(dict(reversed(block.items())))
    assert tally.nets == 150
    assert tally.shapes == {"far": (4,), "holes": (3, 2), "scalar": ()}
    for name, shape in tally.shapes.items():
        pair = [np.concatenate([block[name][k] for block in blocks]) for k in (0, 1)]
        expected = results(moments_of(*pair))
        for key, value in results(tally.moments(name)).items():
            assert value.shape == shape
            np.testing.assert_allclose(value, expected[key], rtol=1e-11, atol=1e-13, err_msg=key)
        quantiles = tally.sketch(name).quantile(P)
        assert quantiles.tobytes() == sketch_of(*pair).quantile(P).tobytes()


def test_tallies_merge() -> None:
    blocks = [made_up_block(seed, 50) for seed in range(3)]
    whole, merged = Tally(), Tally()
    for block in blocks:
        whole.add(block)
        part = Tally()
        part.add(block)
        kept = {key: value.tobytes() for key, value in part.state().items()}
        merged.merge(part)
        merged.merge(Tally())
        assert {key: value.tobytes() for key, value in part.state().items()} == kept
    assert merged.nets == whole.nets == 150
    for name in whole.shapes:
        expected = results(whole.moments(name))
        for key, value in results(merged.moments(name)).items():
            np.testing.assert_allclose(value, expected[key], rtol=1e-11, atol=1e-13, err_msg=key)
        assert merged.sketch(name).quantile(P).tobytes() == whole.sketch(name).quantile(P).tobytes()


def test_the_state_is_of_plain_arrays() -> None:
    tally = Tally(alpha=0.01)
    assert_same_state(saved_and_loaded(tally), tally)
    tally.add(made_up_block(0, 100))
    state = tally.state()
    assert all(type(value) is np.ndarray and not value.dtype.hasobject for value in state.values())
    kept = {name: value.copy() for name, value in state.items()}
    tally.add(made_up_block(1, 100))
    assert all(value.tobytes() == kept[name].tobytes() for name, value in state.items())
    assert saved_and_loaded(tally).sketch("far").alpha == 0.01


# What is refused


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({}, "at least one"),
        ({"eps": (np.ones(3), np.ones(4))}, r"eps: sign has shape \(3,\) and log_abs \(4,\)"),
        ({"eps": (1.0, 0.0)}, "number of nets"),
        ({"a": (np.ones(3), np.ones(3)), "b": (np.ones(2), np.ones(2))}, r"\[2, 3\]"),
        ({"a": (np.ones(2), np.ones(2)), "b": ([1, 2], [0, 0])}, "b: 2.0 is no sign"),
        ({"eps": ([1, -1], [0, np.inf])}, "eps: a nonzero value has log_abs = inf"),
        ({"eps": ([1, 1], [0, np.nan])}, "log_abs = nan"),
        ({"eps": ([1, 1], [0, 2e6])}, "within"),
    ],
)
def test_bad_blocks_are_refused_and_leave_no_trace(block: dict, message: str) -> None:
    tally = Tally()
    with pytest.raises(InputError, match=message):
        tally.add(block)
    assert_same_state(tally, Tally())


def test_what_does_not_fit_is_refused() -> None:
    tally, other, coarse = Tally(), Tally(), Tally(alpha=0.1)
    for one, shape in ((tally, (3, 2)), (other, (3, 4)), (coarse, (3, 2))):
        one.add({"eps": (np.ones(shape), np.ones(shape))})
    kept = tally.state()
    with pytest.raises(InputError, match=r"\(2,\)"):
        tally.add({"eps": (np.ones(3), np.ones(3))})
    with pytest.raises(InputError, match="eps"):
        tally.add({"slope": (np.ones((3, 2)), np.ones((3, 2)))})
    for misfit in (other, coarse):
        with pytest.raises(InputError, match="cannot join"):
            tally.merge(misfit)
        with pytest.raises(InputError, match="cannot join"):
            tally.sketch("eps").merge(misfit.sketch("eps"))
    with pytest.raises(InputError, match="cannot join"):
        tally.moments("eps").merge(other.moments("eps"))
    with pytest.raises(InputError, match="eps"):
        tally.moments("slope")
    with pytest.raises(InputError, match="probability"):
        tally.sketch("eps").quantile([0.5, np.nan])
    with pytest.raises(InputError, match="alpha"):
        Tally(alpha=0)
    assert all(value.tobytes() == kept[name].tobytes() for name, value in tally.state().items())


def test_spellings_of_zero_and_absence_are_one() -> None:
    states = set()
    for sign, log_abs in (
        ([0, np.nan], [-np.inf, np.nan]),
        ([-0.0, np.nan], [7, 7]),
        ([1, np.nan], [-np.inf, 0]),
    ):
        tally = Tally()
        tally.add({"eps": (sign, log_abs)})
        tally.add({"eps": (np.empty(0), np.empty(0))})
        moments, sketch = tally.moments("eps"), tally.sketch("eps")
        assert (moments.count, moments.zeros) == (1, 1)
        assert sketch.quantile(0.5) == 0
        states.add(moments._kept.tobytes())
    assert len(states) == 1

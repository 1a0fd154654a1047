"""Quantiles against sorting the whole sample, and the laws of merging; signed logarithms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthscale.finite import sketch as sketches
from depthscale.finite.signed import plain, signed_log
from depthscale.finite.sketch import QuantileSketch
from signed_blocks import BLOCK, P, sketch_of


def order_statistics(sign: np.ndarray, log_abs: np.ndarray, p: float) -> tuple[float, float]:
    """The p-quantile of one cell by sorting; a value is ordered by (sign, sign log_abs)."""
    there = ~np.isnan(sign)
    values = sorted(
        (s, s * size if s else 0) for s, size in zip(sign[there], log_abs[there], strict=True)
    )
    s, signed_size = values[max(int(np.ceil(p * len(values))) - 1, 0)]
    return s, s * signed_size if s else -np.inf


@given(BLOCK, st.sampled_from([0.001, 0.005, 0.3]))
def test_quantiles_are_order_statistics_within_alpha(block: np.ndarray, alpha: float) -> None:
    sign, log_abs = block
    sketch = sketch_of(sign, log_abs, alpha)
    got_sign, got_log = sketch.signed_quantile(P)
    for cell in range(sign.shape[1]):
        if np.isnan(sign[:, cell]).all():
            assert np.isnan(got_sign[:, cell]).all()
            assert np.isnan(got_log[:, cell]).all()
            continue
        for k, p in enumerate(P):
            s, size = order_statistics(sign[:, cell], log_abs[:, cell], p)
            assert got_sign[k, cell] == s
            if s == 0:
                assert got_log[k, cell] == -np.inf
            else:  # 1e-11: a logarithm of 6000 is itself rounded to 1e-12
                assert abs(np.expm1(got_log[k, cell] - size)) <= alpha + 1e-11


@given(
    st.lists(
        st.one_of(
            st.just(0.0),
            st.floats(-1e300, 1e300, allow_subnormal=False),
            st.integers(-5, 5).map(float),
        ),
        min_size=1,
        max_size=200,
    )
)
def test_quantiles_are_those_of_numpy(values: list[float]) -> None:
    x = np.array(values)
    expected = np.quantile(x, P, method="inverted_cdf")
    got = sketch_of(*signed_log(x)).quantile(P)
    assert (np.abs(got - expected) <= (0.005 + 1e-12) * np.abs(expected)).all()


def test_quantiles_over_many_cells_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small windows and a short memory, so that all ways into the counts are taken.
    monkeypatch.setattr(sketches, "WINDOW", 100)
    monkeypatch.setattr(sketches, "PENDING", 500)
    rng = np.random.default_rng(3)
    x = rng.standard_t(3, size=(900, 4, 3)) * np.exp(10 * np.arange(12.0)).reshape(4, 3)
    x[:, 0, 0] = 0
    x[rng.random(x.shape) < 0.05] = np.nan
    sketch = QuantileSketch((4, 3))
    for part in np.split(x, 45):
        sketch.add(*signed_log(part))
        sketch.quantile(0.5)  # a look changes nothing
    got = sketch.quantile(P)
    assert got.shape == (len(P), 4, 3)
    for cell in np.ndindex(4, 3):
        there = x[:, *cell][~np.isnan(x[:, *cell])]
        expected = np.quantile(there, P, method="inverted_cdf")
        np.testing.assert_allclose(got[:, *cell], expected, rtol=0.005 + 1e-12)
    assert (sketch.quantile(0.25) == got[3]).all()
    assert (sketch.quantile(P.reshape(2, 5)) == got.reshape(2, 5, 4, 3)).all()


def test_quantiles_beyond_the_range_of_floats() -> None:
    sketch = sketch_of(np.array([-1, -1, 1, 1]), np.array([5000, -5000, -5000, 5000]))
    assert sketch.quantile([0, 0.5, 0.75, 1]).tolist() == [-np.inf, 0, 0, np.inf]
    sign, log_abs = sketch.signed_quantile([0, 0.5, 0.75, 1])
    assert sign.tolist() == [-1, -1, 1, 1]
    np.testing.assert_allclose(log_abs, [5000, -5000, -5000, 5000], rtol=0, atol=0.00502)


@given(BLOCK, BLOCK)
def test_sketches_merge_exactly(one: np.ndarray, other: np.ndarray) -> None:
    cells = min(one.shape[2], other.shape[2])
    parts = [block[:, :, :cells] for block in (one, other)]
    whole = sketch_of(*np.concatenate(parts, axis=1))
    for order in (1, -1):
        merged = QuantileSketch((cells,))
        for part in parts[::order]:
            merged.merge(sketch_of(*part))
        for mine, expected in zip(merged.buckets(), whole.buckets(), strict=True):
            assert np.array_equal(mine, expected)


def test_memory_is_bounded_by_the_buckets() -> None:
    rng = np.random.default_rng(5)
    sketch = QuantileSketch((20,))
    sizes = []
    for _ in range(2):
        for _ in range(100):
            sketch.add(np.ones((200, 20)), rng.uniform(0, 100, size=(200, 20)))
        sizes.append(len(sketch.buckets()[0]))
    # A logarithm of 100 spans 10 000 buckets of 0.01 (20 000 nets leave some of them empty).
    assert sizes[0] <= sizes[1] <= 20 * 10_001
    assert sum(map(len, sketch._pending)) <= max(sketches.PENDING, 2 * sizes[1])


@given(BLOCK)
def test_a_sketch_is_its_buckets(block: np.ndarray) -> None:
    whole = sketch_of(*block)
    again = QuantileSketch.of_buckets(whole.shape, whole.alpha, *whole.buckets())
    for cell in range(whole.shape[0]):
        part = QuantileSketch.of_buckets((), whole.alpha, *whole.buckets(slice(cell, cell + 1)))
        for mine, expected in zip(part.signed_quantile(P), whole.signed_quantile(P), strict=True):
            assert np.array_equal(mine, expected[:, cell], equal_nan=True)
    again.merge(whole)
    keys, counts = whole.buckets()
    assert np.array_equal(again.buckets(), (keys, 2 * counts))


@given(st.lists(st.one_of(st.floats(allow_infinity=False), st.just(0.0))))
def test_signed_logs_come_back(values: list[float]) -> None:
    x = np.array(values)
    # The logarithm of 1e300, 700, is rounded to 1e-13.
    np.testing.assert_allclose(plain(*signed_log(x)), x, rtol=2e-13, atol=1e-320)

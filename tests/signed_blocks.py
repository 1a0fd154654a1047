"""Blocks of numbers as ``(sign, log_abs)``, for tests that hold for any."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from depthscale.finite.sketch import QuantileSketch

P = np.array([0, 0.01, 0.1, 0.25, 1 / 3, 0.5, 0.75, 0.9, 0.999, 1])

# (sign, log_abs) of one value: absent, zero, ordinary or beyond the range of floats.
VALUE = st.one_of(
    st.just((np.nan, np.nan)),
    st.just((0.0, -np.inf)),
    st.tuples(st.sampled_from([-1.0, 1.0]), st.floats(-10, 10)),
    st.tuples(st.sampled_from([-1.0, 1.0]), st.floats(-6000, 6000)),
)
BLOCK = st.integers(1, 4).flatmap(
    lambda cells: st.lists(
        st.lists(VALUE, min_size=cells, max_size=cells), min_size=0, max_size=40
    ).map(lambda rows: np.moveaxis(np.array(rows).reshape(len(rows), cells, 2), 2, 0))
)


def sketch_of(sign: np.ndarray, log_abs: np.ndarray, alpha: float = 0.005) -> QuantileSketch:
    sketch = QuantileSketch(np.shape(sign)[1:], alpha)
    sketch.add(sign, log_abs)
    return sketch

"""Quantiles of numbers that are seen once: counts in logarithmic buckets (DDSketch)."""

from __future__ import annotations

from math import atanh, log1p, prod
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.finite.signed import Array, Counts, Shape, canonical, plain, put, rows

ALPHAS = (1e-3, 0.5)
WINDOW = 1 << 12  # buckets of either sign that a cell counts densely: e^+-20 at the usual accuracy
DENSE = 1 << 24  # such counts in all, at most
PENDING = 1 << 18  # keys that a sketch gathers, at least, before it sorts them in
OFFSET = 1 << 30  # sets the ranks of buckets, of either sign, apart from zero's
BELOW = -(1 << 31)  # any rank


class QuantileSketch:
    """Quantiles to a relative accuracy ``alpha``, per cell, from counts in logarithmic buckets.

    ``|x|`` falls into bucket ``k = ceil(log|x| / log gamma)``, where ``gamma`` is
    ``(1 + alpha) / (1 - alpha)``. The bucket answers ``(1 - alpha) gamma^k``, which is within
    ``alpha |x|`` of all its members. Zeros are counted apart, negative values have their own
    buckets. Counts add: a merged sketch is exactly the sketch of all nets, in any order.

    A window of buckets around the first block's medians is counted densely, which is fast, in at
    most 64 MiB. What falls outside goes into a sorted list of buckets in use, 16 bytes each. Where
    a bucket is counted has no influence on results.

    Source: Masson, Rim & Lee, DDSketch, PVLDB 12 (2019) 2195, section 2; no buckets are collapsed.

    >>> from depthscale.finite.signed import signed_log
    >>> sketch = QuantileSketch(())
    >>> sketch.add(*signed_log(np.arange(-10.0, 1001.0)))
    >>> bool(abs(sketch.quantile(0.5) - 495) <= 0.005 * 495)
    True
    """

    def __init__(self, shape: Shape, alpha: float = 0.005) -> None:
        if not ALPHAS[0] <= alpha <= ALPHAS[1]:
            raise InputError(f"alpha = {alpha} is not a relative accuracy within {ALPHAS}")
        self.shape, self.alpha = shape, float(alpha)
        self._log_gamma = 2 * atanh(alpha)
        cells = prod(shape)
        # A key is the zero of its cell + a rank, and ranks order the buckets of a cell by value.
        self._zeros = np.arange(cells + 1, dtype=np.int64) << 32
        self._store(np.empty(0, np.int64), np.empty(0, np.int64))
        self._pending: list[Counts] = []
        # Columns by value, zero in the middle, from where bucket k is the (k - low)-th; the last
        # column takes all that falls outside, and isn't read. Half the cache that int64 would need.
        self._window = min(WINDOW, DENSE // (2 * cells + 1))
        self._dense = np.zeros((cells, 2 * self._window + 2), np.int32)
        self._low: Array | None = None

    @classmethod
    def of_buckets(cls, shape: Shape, alpha: float, keys: Counts, counts: Counts) -> Self:
        """The sketch that has these ``buckets``."""
        sketch = cls(shape, alpha)
        sketch._store(keys, counts)
        return sketch

    def _store(self, keys: Counts, counts: Counts) -> None:
        self._keys, self._counts = keys, counts
        self._room = max(PENDING, 2 * len(keys))  # two keys take the memory of a key and a count

    def add(self, sign: ArrayLike, log_abs: ArrayLike) -> None:
        """Take in a block ``[net, *cell]``; ``InputError`` if it isn't one of signs and sizes."""
        self.absorb(*canonical(*rows(sign, log_abs, self.shape)))

    def absorb(self, sign: Array, log_abs: Array) -> None:
        """Take in a block ``[net, cell]`` that is ``canonical``, the cells in one row."""
        if not len(sign):
            return
        bucket = np.ceil(log_abs / self._log_gamma)
        if self._low is None:
            self._low = self._lowest(bucket)
        zero, absent, column = sign == 0, np.isnan(sign), bucket - self._low
        outside = ~((column > 0) & (column <= self._window) | zero)
        put(column, zero, 0)
        column *= sign
        put(column, outside, self._window + 1)
        cells, columns = self._dense.shape
        column += columns * np.arange(cells) + self._window
        np.add.at(self._dense.reshape(-1), column.astype(np.int64).ravel(), np.int32(1))
        net, cell = np.nonzero(outside & ~absent)
        if len(net):
            rank = sign[net, cell] * (bucket[net, cell] + OFFSET)
            self._pending.append(self._zeros[cell] + rank.astype(np.int64))
            self._room -= len(net)
            if self._room < 0:
                self._compress()

    def _lowest(self, bucket: Array) -> Array:
        """Lower ends of windows about the medians over the nets; any integers would do."""
        finite = np.isfinite(bucket)
        middle = np.maximum(np.count_nonzero(finite, axis=0) - 1, 0) // 2
        ordered = np.sort(np.where(finite, bucket, np.inf), axis=0)
        median = np.take_along_axis(ordered, middle[None], axis=0)[0]
        return np.where(np.isfinite(median), median, 0) - self._window // 2

    def merge(self, other: QuantileSketch) -> None:
        """Take in all nets of ``other``, a sketch of the same cells and accuracy."""
        ours, theirs = (self.shape, self.alpha), (other.shape, other.alpha)
        if ours != theirs:
            raise InputError(f"a sketch of cells and alpha {theirs} cannot join one of {ours}")
        self._compress()
        self._store(*_joined(self._keys, self._counts, *other.buckets()))

    def _compress(self) -> None:
        if self._pending:
            new = np.unique_counts(np.concatenate(self._pending))
            self._pending = []
            self._store(*_joined(self._keys, self._counts, *new))

    def buckets(self, cells: slice = slice(None)) -> tuple[Counts, Counts]:
        """Keys and counts of the buckets in use, sorted; the first of ``cells`` becomes cell 0.

        All that a sketch has counted: ``QuantileSketch.of_buckets`` makes one of them again. The
        key of bucket k of cell c is ``c 2^32 + sign (k + 2^30)``.
        """
        self._compress()
        start, stop, _ = cells.indices(len(self._dense))
        listed = slice(*np.searchsorted(self._keys, self._zeros[[start, stop]] + BELOW))
        keys, counts = self._keys[listed] - self._zeros[start], self._counts[listed]
        if self._low is None:
            return keys, counts
        cell, column = np.nonzero(self._dense[cells, :-1])
        rank = column - self._window
        rank += np.sign(rank) * (self._low[cells].astype(np.int64)[cell] + OFFSET)
        number = self._dense[cells][cell, column].astype(np.int64)
        return _joined(keys, counts, self._zeros[cell] + rank, number)

    def signed_quantile(self, p: ArrayLike) -> tuple[Array, Array]:
        """Quantiles as ``(sign, log_abs)``, two arrays ``[*p, *cell]``: never out of range.

        The p-quantile of n values is the ``ceil(p n)``-th smallest (the smallest for p = 0),
        numpy's ``inverted_cdf``. NaN where the quantity existed in no net. Raises ``InputError``
        for a p outside [0, 1].
        """
        p = np.asarray(p, float)
        if not ((p >= 0) & (p <= 1)).all():
            raise InputError(f"p = {p} is not a probability within [0, 1]")
        keys, counts = self.buckets()
        up_to = np.cumsum(counts)
        before = np.append(0, up_to)[np.searchsorted(keys, self._zeros + BELOW)]
        n = np.diff(before)
        order = np.clip(np.ceil(p.reshape(-1, 1) * n), 1, n).astype(np.int64)
        # A key more, for a last cell without any.
        rank = np.append(keys, 0)[np.searchsorted(up_to, before[:-1] + order)] - self._zeros[:-1]
        log_abs = (np.abs(rank) - OFFSET) * self._log_gamma + log1p(-self.alpha)
        sign = np.where(n > 0, np.sign(rank), np.nan)
        log_abs = np.where(sign == 0, -np.inf, np.where(n > 0, log_abs, np.nan))
        return sign.reshape(p.shape + self.shape), log_abs.reshape(p.shape + self.shape)

    def quantile(self, p: ArrayLike) -> Array:
        """Quantiles ``[*p, *cell]``, each within ``alpha |x|`` of an order statistic x.

        Infinite or zero beyond the range of floats, where ``signed_quantile`` has the answer.
        """
        return plain(*self.signed_quantile(p))


def _joined(keys: Counts, counts: Counts, *more: Counts) -> tuple[Counts, Counts]:
    keys, counts = (np.concatenate(pair) for pair in zip((keys, counts), more, strict=True))
    order = np.argsort(keys, kind="stable")  # timsort: linear in time for two sorted runs
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=BELOW))
    return keys[first], np.add.reduceat(counts[order], first)

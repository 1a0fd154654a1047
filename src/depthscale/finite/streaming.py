"""Statistics of an ensemble that is sampled block by block and never kept.

Every observable comes as a pair of arrays ``[net, *cell]``: ``sign`` (-1, 0, 1, or NaN where the
quantity does not exist in that net) and ``log_abs``, the logarithm of its size, because a deep
chaotic network reaches ``e^5000``. ``Moments`` keeps means and variances, ``QuantileSketch`` the
distribution, ``Tally`` both for all observables of a sampler. Memory does not grow with the nets.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import atanh, log1p, prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Shape = tuple[int, ...]

MAX_LOG = 1e6  # of |log_abs|: the bucket numbers of the finest sketch then fit in 30 bits
ALPHAS = (1e-3, 0.5)
CHUNK = 64  # nets that a tally absorbs at a time: enough to make light of the cost of a merge
WINDOW = 1 << 12  # buckets of either sign that a cell counts densely: e^+-20 at the usual accuracy
DENSE = 1 << 24  # such counts in all, at most
PENDING = 1 << 18  # keys that a sketch gathers, at least, before it sorts them in
OFFSET = 1 << 30  # sets the ranks of buckets, of either sign, apart from zero's
BELOW = -(1 << 31)  # any rank


def signed_log(values: ArrayLike) -> tuple[Array, Array]:
    """``(sign, log|x|)`` of plain values of any shape; NaN means that the value does not exist.

    >>> np.array(signed_log([-1.0, 0.0, np.nan])).tolist()
    [[-1.0, 0.0, nan], [0.0, -inf, nan]]
    """
    x = np.asarray(values, float)
    with np.errstate(divide="ignore"):
        return np.sign(x), np.log(np.abs(x))


def plain(sign: ArrayLike, log_abs: ArrayLike) -> Array:
    """``sign exp(log_abs)``, the inverse of ``signed_log``: infinite or zero where floats end.

    >>> plain([-1.0, 0.0, 1.0], [0.0, -np.inf, 5000.0]).tolist()
    [-1.0, 0.0, inf]
    """
    s = np.asarray(sign, float)
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(s * np.exp(np.where(s == 0, -np.inf, log_abs)))


def _rows(sign: ArrayLike, log_abs: ArrayLike, shape: Shape, of: str = "") -> tuple[Array, Array]:
    """A block ``[net, *shape]`` as ``[net, cell]``."""
    s, size = np.asarray(sign, float), np.asarray(log_abs, float)
    if s.shape != size.shape or not s.ndim or s.shape[1:] != shape:
        raise InputError(
            f"{of}sign has shape {s.shape} and log_abs {size.shape}; expected is a number of nets "
            f"followed by {shape} for both"
        )
    return s.reshape(len(s), prod(shape)), size.reshape(len(s), prod(shape))


def _canonical(s: Array, size: Array, of: str = "") -> tuple[Array, Array]:
    """A checked pair, with one spelling of zero, (0, -inf), and one of absence, (NaN, NaN)."""
    nonzero, in_range = np.abs(s) == 1, np.abs(size) <= MAX_LOG
    if nonzero.all() and in_range.all():
        return s, size
    absent = np.isnan(s)
    wrong = ~(nonzero | absent | (s == 0))
    if wrong.any():
        raise InputError(
            f"{of}{s[wrong][0]} is no sign: give -1, 0, 1, or NaN where the quantity does not exist"
        )
    nonzero &= size != -np.inf
    wrong = nonzero & ~in_range
    if wrong.any():
        raise InputError(
            f"{of}a nonzero value has log_abs = {size[wrong][0]}: give a number within "
            f"+-{MAX_LOG:g}, or the sign 0 for zero, or NaN where the quantity does not exist"
        )
    rest = np.where(absent, np.nan, 0)
    return np.where(nonzero, s, rest), np.where(nonzero, size, rest - np.inf)


def _centre(x: Array, missing: NDArray[np.bool_], count: Counts) -> Array:
    """Mean over the nets, of which some are missing; in place, x becomes its deviation from it.

    In place throughout, because new arrays of this size cost more than the arithmetic.
    """
    _put(x, missing, 0)
    mean: Array = x.sum(axis=0) / np.maximum(count, 1)
    x -= mean
    _put(x, missing, 0)
    return mean


def _put(x: Array, where: NDArray[np.bool_], value: float) -> None:
    if where.any():
        np.putmask(x, where, value)


def _finite(reference: Array) -> Array:
    return np.where(reference > -np.inf, reference, 0)


class Moments:
    """Means and variances of a value ``x`` and of ``log|x|``, per cell, over the nets seen so far.

    Kept are the numbers of nets where x exists and where it is zero; ``mean(x) / R`` and
    ``sum (x - mean)^2 / R^2`` with the running maximum ``R`` of ``|x|``, so that nothing overflows;
    and of ``log|x|`` over nonzero x the mean and the sums of the second, third and fourth powers of
    deviations from it. Two sets merge by the pairwise formulas of Chan, Golub & LeVeque (COMPSTAT
    1982) and Pebay (Sandia report SAND2008-6212, 2008). All results have the shape ``[*cell]``.
    What the nets do not determine (no net; one net for a variance) is NaN.

    >>> moments = Moments(())
    >>> moments.add([1, 1, 0, np.nan], [5000.0, 5000.0, 0.0, 0.0])
    >>> int(moments.count), int(moments.zeros), float(moments.mean), float(moments.mean_log)
    (3, 1, inf, 5000.0)
    >>> bool(np.isclose(moments.log_abs_mean, 5000 + np.log(2 / 3)))
    True
    """

    def __init__(self, shape: Shape) -> None:
        # Rows: counts of nets and of zeros; log R, mean / R and sum of squares / R^2; mean and
        # sums of second, third and fourth powers of the logarithms. Replaced, never written into.
        self._kept = np.zeros((9, *shape))
        self._kept[2] = -np.inf

    def add(self, sign: ArrayLike, log_abs: ArrayLike) -> None:
        """Take in a block ``[net, *cell]``; ``InputError`` if it isn't one of signs and sizes."""
        self._absorb(*_canonical(*_rows(sign, log_abs, self._kept.shape[1:])))

    def _absorb(self, sign: Array, log_abs: Array) -> None:
        absent, no_log = np.isnan(sign), ~(log_abs > -np.inf)
        count, logs = (len(sign) - np.count_nonzero(gaps, axis=0) for gaps in (absent, no_log))
        d = log_abs.copy()
        _put(d, no_log, -np.inf)
        reference = d.max(axis=0, initial=-np.inf)
        with np.errstate(under="ignore"):
            x = d - _finite(reference)
            # Far below rounding either way, but an exponential that underflows is slow.
            np.exp(np.maximum(x, -700, out=x), out=x)
            x *= sign
            rows = [count, count - logs, reference, _centre(x, absent, count)]
            x *= x
            rows += [x.sum(0), _centre(d, no_log, logs)]
            d2 = d * d
            rows.append(d2.sum(0))
            d *= d2
            d2 *= d2
            rows += [d.sum(0), d2.sum(0)]
        block = Moments(())
        block._kept = np.array(rows, float).reshape(self._kept.shape)
        self.merge(block)

    def merge(self, other: Moments) -> None:
        """Take in all nets of ``other``; any order and grouping gives the same up to rounding."""
        if self._kept.shape != other._kept.shape:
            ours, theirs = self._kept.shape[1:], other._kept.shape[1:]
            raise InputError(f"moments of cells {theirs} cannot join those of cells {ours}")
        with np.errstate(under="ignore"):
            values, logs = self._merged_values(other), self._merged_logs(other)
        self._kept = np.array([*(self._kept[:2] + other._kept[:2]), *values, *logs])

    def _merged_values(self, other: Moments) -> list[Array]:
        (na, _, ra, ma, sa), (nb, _, rb, mb, sb) = self._kept[:5], other._kept[:5]
        top = np.maximum(ra, rb)
        a, b = np.exp(ra - _finite(top)), np.exp(rb - _finite(top))
        q = nb / np.maximum(na + nb, 1)
        step = mb * b - ma * a
        return [top, ma * a + step * q, sa * a**2 + sb * b**2 + step**2 * na * q]

    def _merged_logs(self, other: Moments) -> list[Array]:
        (ma, a2, a3, a4), (mb, b2, b3, b4) = self._kept[5:], other._kept[5:]
        na, nb = self._nonzero, other._nonzero
        p, q = na / np.maximum(na + nb, 1), nb / np.maximum(na + nb, 1)
        step = mb - ma
        between = step**2 * na * q
        return [
            ma + step * q,
            a2 + b2 + between,
            a3 + b3 + 3 * step * (p * b2 - q * a2) + between * step * (p - q),
            (a4 + b4 + between * step**2 * (p**2 - p * q + q**2))
            + (6 * step**2 * (p**2 * b2 + q**2 * a2) + 4 * step * (p * b3 - q * a3)),
        ]

    @property
    def count(self) -> Counts:
        """Nets in which x exists."""
        return np.asarray(self._kept[0], np.int64)

    @property
    def zeros(self) -> Counts:
        """Nets in which x is zero: they count for the mean, but have no logarithm."""
        return np.asarray(self._kept[1], np.int64)

    @property
    def _nonzero(self) -> Counts:
        return self.count - self.zeros

    @property
    def log_abs_mean(self) -> Array:
        """``log|mean|``, finite also where the mean is beyond the range of floats."""
        with np.errstate(divide="ignore"):
            return np.where(self.count > 0, np.log(np.abs(self._kept[3])) + self._kept[2], np.nan)

    @property
    def mean(self) -> Array:
        """Mean over the nets where x exists, of the right sign even where it is +-inf or +-0."""
        return plain(np.where(self.count > 0, np.sign(self._kept[3]), np.nan), self.log_abs_mean)

    @property
    def log_sem(self) -> Array:
        """Logarithm of ``sem``, finite also where ``sem`` is beyond the range of floats."""
        n = self.count
        square = self._kept[4] / np.maximum(n - 1, 1) / np.maximum(n, 1)
        with np.errstate(divide="ignore"):
            return np.where(n > 1, np.log(square) / 2 + self._kept[2], np.nan)

    @property
    def sem(self) -> Array:
        """Standard error of the mean, ``sqrt(var(x) / count)``."""
        return plain(1.0, self.log_sem)

    @property
    def mean_log(self) -> Array:
        """Mean of ``log|x|`` over the nonzero values."""
        return np.where(self._nonzero > 0, self._kept[5], np.nan)

    @property
    def var_log(self) -> Array:
        """Unbiased variance of ``log|x|`` over the nonzero values."""
        n = self._nonzero
        return np.where(n > 1, self._kept[6] / np.maximum(n - 1, 1), np.nan)

    @property
    def sem_mean_log(self) -> Array:
        """Standard error of ``mean_log``, ``sqrt(var_log / n)`` with n nonzero values."""
        return np.sqrt(self.var_log / np.maximum(self._nonzero, 1))

    @property
    def sem_var_log(self) -> Array:
        """Standard error of ``var_log``: ``sqrt((m4 - (n - 3) / (n - 1) var_log^2) / n)``.

        The exact variance of a sample variance, with the fourth central moment ``m4`` and the
        variance put in (Mood, Graybill & Boes, Introduction to the Theory of Statistics, VI.2).
        """
        n = np.maximum(self._nonzero, 2)
        square: Array = (self._kept[8] / n - (n - 3) / (n - 1) * self.var_log**2) / n
        return np.sqrt(np.maximum(square, 0))


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

    def _store(self, keys: Counts, counts: Counts) -> None:
        self._keys, self._counts = keys, counts
        self._room = max(PENDING, 2 * len(keys))  # two keys take the memory of a key and a count

    def add(self, sign: ArrayLike, log_abs: ArrayLike) -> None:
        """Take in a block ``[net, *cell]``; ``InputError`` if it isn't one of signs and sizes."""
        self._absorb(*_canonical(*_rows(sign, log_abs, self.shape)))

    def _absorb(self, sign: Array, log_abs: Array) -> None:
        if not len(sign):
            return
        bucket = np.ceil(log_abs / self._log_gamma)
        if self._low is None:
            self._low = self._lowest(bucket)
        zero, absent, column = sign == 0, np.isnan(sign), bucket - self._low
        outside = ~((column > 0) & (column <= self._window) | zero)
        _put(column, zero, 0)
        column *= sign
        _put(column, outside, self._window + 1)
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
        self._store(*_joined(self._keys, self._counts, *other._buckets()))

    def _compress(self) -> None:
        if self._pending:
            new = np.unique_counts(np.concatenate(self._pending))
            self._pending = []
            self._store(*_joined(self._keys, self._counts, *new))

    def _buckets(self, cells: slice = slice(None)) -> tuple[Counts, Counts]:
        """Keys and counts of the buckets in use, sorted; the first of ``cells`` becomes cell 0."""
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
        keys, counts = self._buckets()
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


class Tally:
    """Moments and quantiles of every observable of a sampler, fed block by block.

    The observables lie side by side as one row of cells, and nets are absorbed ``CHUNK`` at a time:
    results depend, to the last bit, on the nets and their order alone, not on how they were cut
    into blocks nor on when the tally was looked at, saved or restored.

    >>> tally = Tally()
    >>> for seed in range(4):
    ...     x = np.random.default_rng(seed).lognormal(size=(16, 3))
    ...     tally.add({"eps": signed_log(x), "slope": (np.ones(16), 5000 + x[:, 0])})
    >>> tally.nets, tally.moments("eps").mean.shape, tally.sketch("eps").quantile([0.1, 0.9]).shape
    (64, (3,), (2, 3))
    >>> again = Tally.from_state(tally.state())
    >>> bool(again.moments("slope").log_abs_mean == tally.moments("slope").log_abs_mean)
    True
    """

    def __init__(self, alpha: float = 0.005) -> None:
        self.nets = 0
        self._start({}, alpha)

    def _start(self, shapes: Mapping[str, Shape], alpha: float) -> None:
        self.shapes = dict(sorted(shapes.items()))
        stops = np.cumsum([prod(shape) for shape in self.shapes.values()], dtype=int).tolist()
        starts = [0, *stops]
        self._places = dict(zip(self.shapes, map(slice, starts, stops), strict=True))
        self._moments = Moments((starts[-1],))
        self._sketch = QuantileSketch((starts[-1],), alpha)
        self._chunk, self._filled = np.empty((2, CHUNK, starts[-1])), 0

    @property
    def _pending(self) -> Array:
        return self._chunk[:, : self._filled]

    def add(self, block: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> None:
        """Take in a block: for every observable ``(sign, log_abs)``, each ``[net, *cell]``.

        The first block fixes names and shapes. Raises ``InputError``, and takes in nothing, if
        they differ later or if a sign or a size is no such thing.
        """
        shapes = {name: np.shape(block[name][0])[1:] for name in sorted(block)}
        if not shapes or (self.shapes and shapes != self.shapes):
            expected = self.shapes or "at least one"
            raise InputError(f"observables and cells {shapes} given, {expected} expected")
        rows = [_rows(*block[name], shape, f"{name}: ") for name, shape in shapes.items()]
        nets = {len(sign) for sign, _ in rows}
        if len(nets) > 1:
            raise InputError(f"a block has one number of nets, this one has {sorted(nets)}")
        try:
            signs, sizes = zip(*rows, strict=True)
            sign, log_abs = _canonical(np.hstack(signs), np.hstack(sizes))
        except InputError:
            for name, pair in zip(shapes, rows, strict=True):
                _canonical(*pair, f"{name}: ")
            raise
        if not self.shapes:
            self._start(shapes, self._sketch.alpha)
        self._absorb(sign, log_abs)
        self.nets += nets.pop()

    def _absorb(self, sign: Array, log_abs: Array) -> None:
        while len(sign):
            room = slice(self._filled, min(self._filled + len(sign), CHUNK))
            taken = room.stop - room.start
            self._chunk[0, room], self._chunk[1, room] = sign[:taken], log_abs[:taken]
            sign, log_abs, self._filled = sign[taken:], log_abs[taken:], room.stop
            if self._filled == CHUNK:
                self._moments._absorb(*self._chunk)
                self._sketch._absorb(*self._chunk)
                self._filled = 0

    def merge(self, other: Tally) -> None:
        """Take in all nets of ``other``, a tally of the same observables and accuracy.

        In any order and grouping the same: quantiles exactly, moments up to rounding.
        """
        ours = (self.shapes or other.shapes, self._sketch.alpha)
        theirs = (other.shapes or self.shapes, other._sketch.alpha)
        if ours != theirs:
            raise InputError(f"a tally of cells and alpha {theirs} cannot join one of {ours}")
        if not other.shapes:
            return
        if not self.shapes:
            self._start(*theirs)
        self._sketch.merge(other._sketch)
        self._moments.merge(other._moments)
        self._absorb(*other._pending)
        self.nets += other.nets

    def _place(self, name: str) -> tuple[slice, Shape]:
        if name not in self.shapes:
            raise InputError(f"no observable {name!r} among {list(self.shapes)}")
        return self._places[name], self.shapes[name]

    def moments(self, name: str) -> Moments:
        """Moments of an observable over all nets so far, a copy."""
        place, shape = self._place(name)
        part = Moments(shape)
        part._kept = self._moments._kept[:, place].reshape(9, *shape)
        part._absorb(*self._pending[:, :, place])
        return part

    def sketch(self, name: str) -> QuantileSketch:
        """Quantiles of an observable over all nets so far, a copy."""
        place, shape = self._place(name)
        part = QuantileSketch(shape, self._sketch.alpha)
        part._store(*self._sketch._buckets(place))
        part._absorb(*self._pending[:, :, place])
        return part

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything kept, as plain arrays for ``np.savez``; none is of objects."""
        keys, counts = self._sketch._buckets()
        return {
            "names": np.array(list(self.shapes), str),
            **{f"shape.{k}": np.array(shape, int) for k, shape in enumerate(self.shapes.values())},
            "alpha": np.array(self._sketch.alpha),
            "nets": np.array(self.nets),
            "moments": self._moments._kept,
            "keys": keys,
            "counts": counts,
            "pending": self._pending.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """The tally whose ``state`` this is, or a loaded ``.npz`` of it, bit for bit."""
        tally = cls()
        names = state["names"].tolist()
        shapes = [tuple(state[f"shape.{k}"].tolist()) for k in range(len(names))]
        tally._start(dict(zip(names, shapes, strict=True)), float(state["alpha"]))
        tally.nets = int(state["nets"])
        tally._moments._kept = state["moments"]
        tally._sketch._store(state["keys"], state["counts"])
        tally._absorb(*state["pending"])
        return tally

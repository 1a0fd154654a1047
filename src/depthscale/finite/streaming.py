"""Statistics of an ensemble that is sampled block by block and never kept.

Every observable comes as a pair of arrays ``[net, *cell]``, ``sign`` and ``log_abs`` (see
``signed``). ``Moments`` keeps means and variances, ``QuantileSketch`` the distribution, ``Tally``
both for all observables of a sampler. Memory does not grow with the nets.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError
from depthscale.finite.signed import Array, Counts, Shape, canonical, plain, put, rows
from depthscale.finite.sketch import QuantileSketch

CHUNK = 64  # nets that a tally absorbs at a time: enough to make light of the cost of a merge


def _centre(x: Array, missing: NDArray[np.bool_], count: Counts) -> Array:
    """Mean over the nets, of which some are missing; in place, x becomes its deviation from it.

    In place throughout, because new arrays of this size cost more than the arithmetic.
    """
    put(x, missing, 0)
    mean: Array = x.sum(axis=0) / np.maximum(count, 1)
    x -= mean
    put(x, missing, 0)
    return mean


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
        self._absorb(*canonical(*rows(sign, log_abs, self._kept.shape[1:])))

    def _absorb(self, sign: Array, log_abs: Array) -> None:
        absent, no_log = np.isnan(sign), ~(log_abs > -np.inf)
        count, logs = (len(sign) - np.count_nonzero(gaps, axis=0) for gaps in (absent, no_log))
        d = log_abs.copy()
        put(d, no_log, -np.inf)
        reference = d.max(axis=0, initial=-np.inf)
        with np.errstate(under="ignore"):
            x = d - _finite(reference)
            # Far below rounding either way, but an exponential that underflows is slow.
            np.exp(np.maximum(x, -700, out=x), out=x)
            x *= sign
            parts = [count, count - logs, reference, _centre(x, absent, count)]
            x *= x
            parts += [x.sum(0), _centre(d, no_log, logs)]
            d2 = d * d
            parts.append(d2.sum(0))
            d *= d2
            d2 *= d2
            parts += [d.sum(0), d2.sum(0)]
        block = Moments(())
        block._kept = np.array(parts, float).reshape(self._kept.shape)
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


class Tally:
    """Moments and quantiles of every observable of a sampler, fed block by block.

    The observables lie side by side as one row of cells, and nets are absorbed ``CHUNK`` at a time:
    results depend, to the last bit, on the nets and their order alone, not on how they were cut
    into blocks nor on when the tally was looked at, saved or restored.

    >>> from depthscale.finite.signed import signed_log
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
        pairs = [rows(*block[name], shape, f"{name}: ") for name, shape in shapes.items()]
        nets = {len(sign) for sign, _ in pairs}
        if len(nets) > 1:
            raise InputError(f"a block has one number of nets, this one has {sorted(nets)}")
        try:
            signs, sizes = zip(*pairs, strict=True)
            sign, log_abs = canonical(np.hstack(signs), np.hstack(sizes))
        except InputError:
            for name, pair in zip(shapes, pairs, strict=True):
                canonical(*pair, f"{name}: ")
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
                self._sketch.absorb(*self._chunk)
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
        part = QuantileSketch.of_buckets(shape, self._sketch.alpha, *self._sketch.buckets(place))
        part.absorb(*self._pending[:, :, place])
        return part

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything kept, as plain arrays for ``np.savez``; none is of objects."""
        keys, counts = self._sketch.buckets()
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
        kept = tally._sketch
        tally._sketch = kept.of_buckets(kept.shape, kept.alpha, state["keys"], state["counts"])
        tally._absorb(*state["pending"])
        return tally

"""Numbers of any size, as pairs of arrays: ``sign`` (-1, 0, 1) and ``log_abs``.

A deep chaotic network reaches ``e^5000``, so that every observable is kept as its sign and the
logarithm of its size. The sign NaN says that the quantity does not exist.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Shape = tuple[int, ...]

MAX_LOG = 1e6  # of |log_abs|: the bucket numbers of the finest sketch then fit in 30 bits


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


def rows(sign: ArrayLike, log_abs: ArrayLike, shape: Shape, of: str = "") -> tuple[Array, Array]:
    """A block ``[net, *shape]`` as ``[net, cell]``."""
    s, size = np.asarray(sign, float), np.asarray(log_abs, float)
    if s.shape != size.shape or not s.ndim or s.shape[1:] != shape:
        raise InputError(
            f"{of}sign has shape {s.shape} and log_abs {size.shape}; expected is a number of nets "
            f"followed by {shape} for both"
        )
    return s.reshape(len(s), prod(shape)), size.reshape(len(s), prod(shape))


def canonical(s: Array, size: Array, of: str = "") -> tuple[Array, Array]:
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


def put(x: Array, where: NDArray[np.bool_], value: float) -> None:
    """Set ``x`` to ``value`` where told, in place; at no cost where it is nowhere."""
    if where.any():
        np.putmask(x, where, value)

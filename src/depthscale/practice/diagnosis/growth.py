"""Measured growth rates over the depth, with the uncertainty that a random network has."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Band:
    """A number, or one number per layer, with the interval that goes with it.

    ``low`` and ``high`` have the shape of ``value``; ``level`` is the share of draws (of inputs,
    layers or initialisations, as the place that uses it says) that the interval is meant to hold.
    """

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    level: float = 0.95


@dataclass(frozen=True)
class Growth:
    """Mean growth of the logarithm of a positive quantity per layer.

    ``rate`` is the logarithm of the factor per layer (95 % interval), ``total`` the logarithm of
    the factor over all ``hops``, ``first`` and ``last`` the positions it was taken between.
    ``significant`` is true when the interval of the rate excludes 0.
    """

    rate: Band
    total: float
    hops: int
    first: int
    last: int

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval of the rate excludes zero."""
        return bool(self.rate.low > 0.0 or self.rate.high < 0.0)

    @property
    def factor(self) -> Band:
        """The factor per layer, ``exp(rate)``, with its interval (0 to infinity: no bound)."""
        value, low, high = (
            exponential(float(side)) for side in (self.rate.value, self.rate.low, self.rate.high)
        )
        return Band(value, low, high, self.rate.level)


@dataclass(frozen=True)
class Shift:
    """A change of level that lasts, on a walk over the layers.

    ``total`` is the logarithm of the change; the largest single step of it leads from position
    ``before`` to position ``after`` of the walk.
    """

    total: float
    before: int
    after: int


def growth(values: np.ndarray) -> Growth | None:
    """Growth rate per layer of positive values along the depth of one network.

    In a random network the logarithm of a length, misalignment or gradient is a *random walk* over
    the layers (``Var ln G = kap k / n`` after k layers of width n), so the steps, not the values,
    are independent. The rate is therefore the mean step, ``ln(v_last / v_first) / hops``, and its
    standard error the scatter of the steps over ``sqrt(hops)`` (Student's t, 95 %). A straight line
    through the logarithms would claim far too small an error, since it takes the values for
    independent. Where measurement noise dominates, neighbouring steps are anticorrelated and this
    interval is too wide, never too narrow.

    Args:
        values: one number per layer; entries that are not positive and finite are left out.

    Returns:
        ``None`` with fewer than two usable layers. With one step there is no scatter to judge
        from: the interval is infinite.

    Source: log-normal law of gradients at finite width, from the moments of one layer.

    >>> round(float(growth(np.array([1.0, 2.0, 4.0, 8.0])).factor.value), 12)
    2.0
    """
    usable = np.flatnonzero(np.isfinite(values) & (values > 0))
    if len(usable) < 2:
        return None
    first, last = int(usable[0]), int(usable[-1])
    hops = last - first
    logs = np.log(values[usable])
    gaps = np.diff(usable)
    total = float(logs[-1] - logs[0])
    rate = total / hops
    steps = len(gaps)
    if steps == 1:
        return Growth(Band(rate, -math.inf, math.inf), total, hops, first, last)
    # A step over a gap of g layers has g times the variance of a single one.
    scatter = np.sum((np.diff(logs) - rate * gaps) ** 2 / gaps) / (steps - 1)
    half = student(steps - 1) * math.sqrt(scatter / hops)
    return Growth(Band(rate, rate - half, rate + half), total, hops, first, last)


def lasting_shift(values: np.ndarray, *, before: int = 1, after: int = 1) -> Shift | None:
    """The largest change of level of positive values along a walk that is never made good again.

    The walk is cut in two wherever at least ``before`` and ``after`` values lie on either side. A
    fall counts from the median of the first part down to the *largest* value of the second; a rise
    from the largest of the first up to the *smallest* of the second. What recovers later does
    not count then, nor do layers of several kinds whose levels alternate, nor side branches of low
    level before a main path of higher level. Unlike a rate, one step is enough for it.

    Args:
        values: one number per layer; entries that are not positive and finite are left out.

    Returns:
        ``None`` where no cut leaves a lasting change.

    >>> lasting_shift(np.array([1.0, 1.0, 1e-9, 1e-9])).after
    2
    """
    usable = np.flatnonzero(np.isfinite(values) & (values > 0))
    logs = np.log(values[usable])
    best = 0.0
    for cut in range(before, len(logs) - after + 1):
        first, second = logs[:cut], logs[cut:]
        fall = min(float(second.max() - np.median(first)), 0.0)
        rise = max(float(second.min() - first.max()), 0.0)
        best = max(best, fall, rise, key=abs)
    if best == 0.0:
        return None
    steps = np.diff(logs) * math.copysign(1.0, best)
    place = int(np.argmax(steps))
    return Shift(best, int(usable[place]), int(usable[place + 1]))


def exponential(value: float) -> float:
    """``exp(value)``, infinite where a float cannot hold it."""
    return math.exp(value) if value < 709.0 else math.inf


def over_repeats(rates: list[float], level: float = 0.95) -> Band:
    """Mean of a rate over independent initialisations with its interval (Student's t)."""
    values = np.asarray(rates, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return Band(mean, -math.inf, math.inf, level)
    half = student(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Band(mean, mean - half, mean + half, level)


def student(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))

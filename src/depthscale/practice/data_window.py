r"""Which depths suit a data set: how far its inputs lie apart, and how a kernel learns from them.

On the critical line the tangent kernel of any network of one universality class depends on the
stretch ``s = beta a L`` and the data's own cosine distances ``rho_0`` alone, ``X = s rho_0^beta``
(``theory.kernel_window``). Where the kernel trains well in a given number of steps is therefore a
property of the data: a window of s, that every activation of the class translates into depths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import numpy as np

from depthscale.answers import InputError
from depthscale.practice.data import DataSet
from depthscale.practice.kernel_regression import cosine_gaps, kernel_accuracy
from depthscale.theory.gaussian import Array
from depthscale.theory.kernel_window import window_deficit
from depthscale.theory.records import as_number, whole

__all__ = ["DataWindow", "Distances", "data_window", "distances", "spread_gaps"]

EXAMPLES = 500
"""Examples that are looked at, at most: half of them learned from, half scored."""

STRETCHES = np.geomspace(1e-2, 1e4, 25)
"""``X`` of the median pair that are tried: four a decade."""

SAME = 1e-12
"""Cosine distances below this are those of duplicates: float32 inputs resolve 1e-14."""


@dataclass(frozen=True)
class Distances:
    """Cosine distances ``rho_0 = 1 - cos`` between the examples of a data set.

    Attributes
    ----------
    name, examples:
        The data, and how many of them were looked at.
    nearest, low, median, high:
        Median distance of an example to its nearest neighbour; the 5, 50 and 95 % quantiles of all
        pairs.
    classes_apart:
        Median over pairs of unlike label less that of like label, 0 without labels.
    duplicates, opposites:
        Pairs that coincide (below 1e-12) or point in opposite directions (above ``2 - 1e-12``).
    """

    name: str
    examples: int
    nearest: float
    low: float
    median: float
    high: float
    classes_apart: float
    duplicates: int
    opposites: int


@dataclass(frozen=True)
class DataWindow:
    """Stretches ``s = beta a L`` at which the kernel of a class trains well on a data set.

    Attributes
    ----------
    kappa:
        Power of the map, which names the class.
    low, high:
        Ends of the window; ``low`` is 0 where even the linear network is within ``loss`` of the
        best, ``high`` is ``inf`` where the deepest that was tried is.
    best:
        Where accuracy is highest.
    stretches, accuracy:
        What was tried, [stretch], mean accuracy over ``repeats`` draws.
    error:
        One standard error of the best accuracy.
    steps, loss, repeats:
        Gradient steps; by how much accuracy may fall below the best; draws of the data.
    source:
        What it was measured on.
    """

    kappa: float
    low: float
    high: float
    best: float
    stretches: Array = field(repr=False)
    accuracy: Array = field(repr=False)
    error: float
    steps: float
    loss: float
    repeats: int
    source: str


def distances(data: DataSet, seed: int = 0, examples: int = EXAMPLES) -> Distances:
    """How far examples lie apart; ``InputError`` for fewer than two, or one without direction.

    Examples
    --------
    >>> from depthscale.practice.data import digits
    >>> round(distances(digits()).median, 2)
    0.52
    """
    found, gaps = _gaps_of(data, seed, examples)
    pairs = np.triu_indices(len(gaps), 1)
    flat = gaps[pairs]
    apart = 0.0
    if found.targets is not None:
        labels = found.targets.numpy()
        like = labels[pairs[0]] == labels[pairs[1]]
        if like.any() and not like.all():
            apart = float(np.median(flat[~like]) - np.median(flat[like]))
    nearest = np.median((gaps + 4 * np.eye(len(gaps))).min(axis=1))
    low, median, high = np.quantile(flat, [0.05, 0.5, 0.95])
    return Distances(
        data.name,
        len(gaps),
        float(nearest),
        float(low),
        float(median),
        float(high),
        apart,
        int((flat < SAME).sum()),
        int((flat > 2 - SAME).sum()),
    )


def data_window(
    data: DataSet,
    kappa: float = 2.0,
    *,
    steps: float = 1000.0,
    loss: float = 0.02,
    repeats: int = 3,
    seed: int = 0,
) -> DataWindow:
    """Measure the window of a data set with labels, by regression with the kernel of the class.

    At every stretch half of the (at most 500) examples are learned by ``steps`` of gradient descent
    and the others scored. Small stretches fail because training is slow: the kernel is nearly
    constant. Large ones fail because it tells all pairs apart alike. The window is where accuracy
    is within ``loss`` of the best, without interruption.

    Parameters
    ----------
    data:
        With labels of at least two classes.
    kappa:
        Power of the map, in (1, 2]: 2 smooth, 3/2 kinked.
    steps:
        Of gradient descent at the rate of the largest eigenvalue; ``math.inf``: to the end, which
        asks for no speed and leaves the lower end open.
    loss:
        In (0, 1).
    repeats, seed:
        Draws of examples.

    Raises
    ------
    InputError
        No labels, one class, or numbers out of range.
    """
    loss, steps = as_number("loss", loss), as_number("steps", steps)
    if not 0 < loss < 1 or not steps > 0:
        raise InputError(
            f"loss = {loss:g}, steps = {steps:g}: expected a loss in (0, 1), steps > 0"
        )
    repeats = whole("repeats", repeats, 1, "draws")
    if data.targets is None:
        raise InputError(f"{data.name} has no labels, and no window can be measured on it")
    beta = as_number("kappa", kappa) - 1
    unit = distances(data, seed).median ** -beta
    if not math.isfinite(unit):
        raise InputError(f"half of the pairs of {data.name} coincide: it has no typical distance")
    stretches = STRETCHES * unit
    scores = np.array([_scores(data, kappa, stretches, steps, seed + k) for k in range(repeats)])
    accuracy = scores.mean(axis=0)
    best = int(accuracy.argmax())
    total = repeats * (min(len(data), EXAMPLES) // 2)
    error = math.sqrt(max(accuracy[best] * (1 - accuracy[best]), 1 / total) / total)
    level = accuracy[best] - loss
    low = _crossing(stretches, accuracy, level, best, -1)
    high = _crossing(stretches, accuracy, level, best, 1)
    return DataWindow(
        float(kappa), low, high, float(stretches[best]), stretches, accuracy, error, steps, loss,
        repeats, data.name,
    )  # fmt: skip


def _scores(data: DataSet, kappa: float, stretches: Array, steps: float, seed: int) -> list[float]:
    found, gaps = _gaps_of(data, seed, EXAMPLES)
    assert found.targets is not None
    labels, half = found.targets.numpy(), len(gaps) // 2
    scores = []
    for stretch in stretches:
        apart = spread_gaps(gaps, float(stretch), kappa)
        parts = apart[:half, :half], apart[half:, :half]
        scores.append(kernel_accuracy(*parts, labels[:half], labels[half:], steps))
    return scores


def spread_gaps(gaps: Array, stretch: float, kappa: float = 2.0) -> Array:
    """``1 - Theta_off/Theta_diag`` of the class at this stretch, for pairs so far apart."""
    nodes, logs = _class_table(float(stretch), float(kappa))
    found = np.exp(np.interp(np.log(np.clip(gaps, SAME, 2.0)), nodes, logs))
    return np.where(gaps > 0, found, 0.0)


@lru_cache(512)
def _class_table(stretch: float, kappa: float) -> tuple[Array, Array]:
    """``ln(1 - Theta_off/Theta_diag)`` of the class by ``ln rho_0``, good to 1e-5 in between."""
    from scipy.interpolate import make_interp_spline

    nodes = np.linspace(math.log(SAME), math.log(2.0), 240)
    rho = np.minimum(np.exp(nodes), 2.0)
    values = window_deficit(stretch * rho ** (kappa - 1), kappa, rho0=rho)
    fine = np.linspace(nodes[0], nodes[-1], 4000)
    return fine, np.asarray(make_interp_spline(nodes, np.log(values), k=5)(fine))


def _crossing(x: Array, y: Array, level: float, start: int, step: int) -> float:
    """Where ``y`` first falls below ``level`` on one side of ``start``, on a logarithmic scale."""
    k = start
    while 0 <= k + step < len(y):
        if y[k + step] < level:
            share = (y[k] - level) / (y[k] - y[k + step])
            return float(x[k] * (x[k + step] / x[k]) ** share)
        k += step
    return 0.0 if step < 0 else math.inf


def _gaps_of(data: Any, seed: int, examples: int) -> tuple[DataSet, Array]:
    if not isinstance(data, DataSet):
        raise InputError(f"data is a {type(data).__name__}; expected a DataSet")
    if len(data) < 2:
        raise InputError(f"{data.name} has {len(data)} examples; distances take two at least")
    found = data.draw(min(examples, len(data)), seed)
    return found, cosine_gaps(found.inputs.numpy(), found.inputs.numpy(), same=True)


@cache
def standard_window(
    kappa: float, steps: float = 1000.0, loss: float = 0.02
) -> tuple[float, float, float]:
    """``X`` of the median pair at the ends and at the best place, measured on the digits.

    For data without labels, on which no window can be measured.
    """
    from depthscale.practice.data import digits

    data = digits()
    found = data_window(data, kappa, steps=steps, loss=loss)
    unit = distances(data).median ** (kappa - 1)
    return found.low * unit, found.high * unit, found.best * unit

"""Effective exponents: local slopes in the logarithm, and how their errors hang together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError
from depthscale.scaling.series import Array, Series, one_sigma, series
from depthscale.theory.records import as_number

if TYPE_CHECKING:
    from depthscale.scaling.extrapolation import Extrapolation

METHODS = ("regression", "pairs")


@dataclass(frozen=True)
class EffectiveExponent:
    """Local exponents by place.

    ``x`` [m]: geometric mean of the weights of each window; ``value`` [m]; ``error`` [m], half
    widths of 68.3 % intervals; ``covariance`` [m, m]; ``window`` [m, 2]: smallest and largest x
    that a value was made of; ``degrees`` of freedom of the covariance, infinite where it is known.
    Windows overlap, so that neighbours are correlated even where the points are not.
    """

    x: Array
    value: Array
    error: Array
    covariance: Array
    window: Array
    ratio: float
    method: str
    degrees: float

    def apart(self) -> EffectiveExponent:
        """Only windows that share no interval, from the largest x downwards."""
        kept: list[int] = []
        lowest = math.inf
        for k in range(self.x.size - 1, -1, -1):
            if self.window[k, 1] <= lowest * (1 + 1e-12):
                kept.append(k)
                lowest = self.window[k, 0]
        index = np.array(kept[::-1])
        return EffectiveExponent(
            self.x[index],
            self.value[index],
            self.error[index],
            self.covariance[np.ix_(index, index)],
            self.window[index],
            self.ratio,
            self.method,
            self.degrees,
        )

    def extrapolate(self, **options: Any) -> Extrapolation:
        """Its limit at infinite x, from windows that share no interval: see ``extrapolate``."""
        from depthscale.scaling.extrapolation import extrapolate

        own = self.apart()
        samples = None if math.isinf(self.degrees) else int(self.degrees) + 1
        return extrapolate(own.x, own.value, covariance=own.covariance, samples=samples, **options)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "x": self.x.tolist(),
            "value": self.value.tolist(),
            "error": self.error.tolist(),
            "window": self.window.tolist(),
            "covariance": self.covariance.tolist(),
            "ratio": self.ratio,
            "method": self.method,
        }

    def __str__(self) -> str:
        from depthscale.report.exponent_summaries import render_effective

        return render_effective(self.to_dict())


def effective_exponent(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    error: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    realisations: ArrayLike | None = None,
    samples: int | None = None,
    ratio: float = 2.0,
    method: str = "regression",
) -> EffectiveExponent:
    """The local exponent ``-d log y/d log x`` of a decay, window by window.

    "regression" fits a straight line to the logarithms of all points of ``[x_i, ratio x_i]``,
    weighted by their own errors; "pairs" takes ``x_i`` and the first point from ``ratio x_i`` on.
    Both are linear in ``log y``: with D the matrix that makes them, ``D Cov(log y) D^T`` is their
    covariance, which includes that points of one trajectory move together. From raw realisations
    it is the jackknife's.

    Parameters
    ----------
    x:
        Places [n], above 0.
    y:
        Values [n], above 0; with ``realisations`` their mean, and left out.
    error, covariance, realisations, samples:
        One of: independent standard errors [n]; the covariance [n, n] of y, from ``samples``
        realisations where it was estimated; or raw values [r, n].
    ratio:
        Largest over smallest x of a window, above 1.
    method:
        "regression" or "pairs".

    Raises
    ------
    InputError
        With what was given and what is expected.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 4.0, 8.0])
    >>> local = effective_exponent(x, 3 * x**-0.5, error=0.01 * x**-0.5)
    >>> local.value.round(12).tolist(), local.x.round(3).tolist()
    ([0.5, 0.5, 0.5], [1.414, 2.828, 5.657])
    """
    points = series(
        x, y, error=error, covariance=covariance, realisations=realisations, samples=samples
    )
    ratio = as_number("ratio", ratio)
    if not 1 < ratio < math.inf:
        raise InputError(f"ratio is {ratio:g}; expected a number above 1")
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if np.any(points.y <= 0):
        bad = points.x[points.y <= 0][0]
        raise InputError(f"y is not above 0 at x = {bad:g}; leave out what has no logarithm")
    groups = _windows(points.x, ratio, method)
    if not groups:
        raise InputError(
            f"no window of ratio {ratio:g} holds two points that reach across it; x goes from"
            f" {points.x[0]:g} to {points.x[-1]:g}"
        )
    logs, matrix = points.logarithm
    maker, places = _maker(points, np.diag(matrix), groups)
    spread = maker @ matrix @ maker.T
    return EffectiveExponent(
        x=places,
        value=maker @ logs,
        error=np.sqrt(np.diag(spread)) * one_sigma(points.degrees),
        covariance=spread,
        window=np.array([points.x[[group[0], group[-1]]] for group in groups]),
        ratio=ratio,
        method=method,
        degrees=points.degrees,
    )


def _windows(x: Array, ratio: float, method: str) -> list[NDArray[np.intp]]:
    """Indices of the points of every window, none a part of the one before."""
    near = 1 + 1e-9
    groups: list[NDArray[np.intp]] = []
    for first in range(x.size - 1):
        if method == "pairs":
            reach = np.flatnonzero(x * near >= ratio * x[first])
            if reach.size:
                groups.append(np.array([first, reach[0]]))
            continue
        inside = np.flatnonzero((x >= x[first]) & (x <= ratio * x[first] * near))
        if inside.size >= 2 and (not groups or inside[-1] > groups[-1][-1]):
            groups.append(inside)
    return groups


def _maker(points: Series, variance: Array, groups: list[NDArray[np.intp]]) -> tuple[Array, Array]:
    """The matrix [m, n] that makes exponents from ``log y``, and their places [m]."""
    maker = np.zeros((len(groups), len(points)))
    places = np.zeros(len(groups))
    logs = np.log(points.x)
    for k, group in enumerate(groups):
        weight = 1 / variance[group]
        weight = weight / weight.sum()
        middle = float(weight @ logs[group])
        lever = weight * (logs[group] - middle)
        maker[k, group] = -lever / float(lever @ (logs[group] - middle))
        places[k] = math.exp(middle if group.size > 2 else float(logs[group].mean()))
    return maker, places

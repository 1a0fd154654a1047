r"""Families of master curves: linear in their coefficients, on a warped scaling variable.

A curve is ``F(x) = sum_k c_k B_k(u)`` with ``u(x)`` in [0, 1] over the data at hand,

    linear   u ~ x,        asinh   u ~ arsinh(x/s), s half the mean of |x|,        log   u ~ ln x,

so that knots are dense where curves cross and sparse in their tails. Several arguments take the
tensor product. All derivatives in ``x`` follow the moving ends and the scale ``s``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RIDGE = 1e-9
"""Weight of the smoothness that settles coefficients which no point reaches."""


class Warped(NamedTuple):
    """``u`` and its derivatives in the parameters, with what repeats the map elsewhere.

    Attributes
    ----------
    u, du:
        [n] and [parameter, n].
    low, high, scale:
        Ends of the warped variable before it is put into [0, 1], and ``s``.
    """

    u: Array
    du: Array
    low: float
    high: float
    scale: float


@dataclass(frozen=True)
class Warp:
    """One of ``linear``, ``asinh`` and ``log``."""

    kind: str

    def __call__(self, x: Array, dx: Array) -> Warped | None:
        """Warp ``x`` [n], whose derivatives are ``dx`` [parameter, n]; None where it cannot be."""
        scale, bent, slope = 1.0, x, dx
        if self.kind == "asinh":
            scale = float(np.abs(x).mean()) / 2
            if not scale > 0:
                return None
            ratio = x / scale
            drift = (np.sign(x) * dx).mean(axis=1) / (2 * scale)
            bent = np.arcsinh(ratio)
            slope = (dx / scale - ratio * drift[:, None]) / np.sqrt(1 + ratio * ratio)
        elif self.kind == "log":
            if not x.min() > 0:
                return None
            bent, slope = np.log(x), dx / x
        first, last = int(bent.argmin()), int(bent.argmax())
        low, high = float(bent[first]), float(bent[last])
        if not high > low:
            return None
        u = (bent - low) / (high - low)
        start, end = slope[:, first, None], slope[:, last, None]
        du = (slope - start - u * (end - start)) / (high - low)
        return Warped(u, du, low, high, scale)

    def again(self, x: Array, like: Warped) -> Array:
        """The same map of other ``x``."""
        bent = x
        if self.kind == "asinh":
            bent = np.arcsinh(x / like.scale)
        elif self.kind == "log":
            bent = np.log(x)
        return (bent - like.low) / (like.high - like.low)


@dataclass(frozen=True)
class Basis:
    """A family of curves of one or two arguments.

    Attributes
    ----------
    kind:
        ``"spline"``, cubic with even knots in ``u``, or ``"polynomial"``, in Chebyshev's form.
    warps:
        One for each argument.
    sizes:
        Functions along each argument, at least 4.
    """

    kind: str
    warps: tuple[Warp, ...]
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many coefficients."""
        return int(np.prod(self.sizes))

    def __str__(self) -> str:
        along = " x ".join(map(str, self.sizes))
        scales = " and ".join(dict.fromkeys(warp.kind for warp in self.warps))
        return f"{self.kind} of {along} coefficients on a scale {scales}"

    def design(self, places: list[Array]) -> tuple[Array, list[Array]]:
        """Values [n, size] at ``u`` of every argument, and the derivative in each of these."""
        parts = [_along(self.kind, u, m) for u, m in zip(places, self.sizes, strict=True)]
        if len(parts) == 1:
            return parts[0][0], [parts[0][1]]
        (first, slope_1), (second, slope_2) = parts
        return _rows(first, second), [_rows(slope_1, second), _rows(first, slope_2)]

    def smoothness(self) -> Array:
        """Rows whose sum of squares is the roughness of the coefficients, [row, size]."""
        rough = [_rough(self.kind, m) for m in self.sizes]
        if len(rough) == 1:
            return rough[0]
        eyes = [np.eye(m) for m in self.sizes]
        return np.concatenate([np.kron(rough[0], eyes[1]), np.kron(eyes[0], rough[1])])


def _rows(a: Array, b: Array) -> Array:
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)


def _along(kind: str, u: Array, size: int) -> tuple[Array, Array]:
    return _spline(u, size) if kind == "spline" else _chebyshev(u, size)


def _spline(u: Array, size: int) -> tuple[Array, Array]:
    """Cardinal cubic splines of ``size - 3`` even pieces and their derivatives, [n, size]."""
    pieces = size - 3
    scaled = np.clip(u, 0, 1) * pieces
    piece = np.minimum(scaled.astype(int), pieces - 1)
    t = scaled - piece
    s, t2 = 1 - t, t * t
    t3 = t2 * t
    weights = (s**3, 3 * t3 - 6 * t2 + 4, 3 * (t + t2 - t3) + 1, t3)
    slopes = (-(s**2), 3 * t2 - 4 * t, 1 + 2 * t - 3 * t2, t2)
    place = np.arange(0, len(u) * size, size) + piece
    values, derivatives = np.zeros((2, len(u) * size))
    for k in range(4):
        values[place + k] = weights[k] / 6
        derivatives[place + k] = slopes[k] * (pieces / 2)
    return values.reshape(-1, size), derivatives.reshape(-1, size)


def _chebyshev(u: Array, size: int) -> tuple[Array, Array]:
    """``T_k(2u - 1)`` and derivatives ``2k U_(k-1)``, [n, size]."""
    x = 2 * np.clip(u, 0, 1) - 1
    values, second = np.empty((2, size, len(u)))
    values[0], values[1], second[0], second[1] = 1, x, 1, 2 * x
    for k in range(2, size):
        values[k] = 2 * x * values[k - 1] - values[k - 2]
        second[k] = 2 * x * second[k - 1] - second[k - 2]
    slopes = np.zeros_like(values)
    slopes[1:] = 2 * np.arange(1, size)[:, None] * second[:-1]
    return values.T, slopes.T


@cache
def _rough(kind: str, size: int) -> Array:
    if kind == "spline":
        return np.diff(np.eye(size), n=2, axis=0)
    return np.diag(np.arange(size, dtype=float) ** 2)

r"""The moments of one activation as polynomials, from which all derivatives of a layer come.

``G = E[(phi(u) - phi(v))^2]/2 = eps P`` with ``P`` a polynomial in ``log q`` and ``s = sqrt(eps)``,
in which it is analytic for smooth and for kinked activations. (Of kinks off zero it is only
infinitely differentiable at ``s = 0``, so that they take more nodes.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.polynomial import chebyshev

from depthscale.theory.activation import Activation
from depthscale.theory.gaussian import Array
from depthscale.theory.kernel import Kernel

Series = Literal["gap", "tangent", "tangent_s", "gap_y", "tangent_y"]
"""``P``, the tangent ``P + s P_s/2 = dG/deps``, and their derivatives by ``s`` and ``y``."""

ROOT_NODES, NODES_OFF_ZERO = 26, 56
FEW = 100  # numbers below which a cosine is faster than a recursion over the degrees
PART = 4096  # lengths at a time, so that the coefficients of all of them stay in the cache


@dataclass(frozen=True)
class Table:
    """Chebyshev coefficients: of degree in ``y`` by degree in ``2 s - 1``, and of the moments.

    ``y`` in [-1, 1] stands for ``log q`` from ``log low`` to ``log high``; ``moments`` has the
    columns ``V = E[phi^2]``, ``M = E[phi'^2]`` and their derivatives by ``y``.
    """

    series: dict[Series, Array]
    moments: Array
    low: float
    high: float

    @classmethod
    def of(cls, activation: Activation, low: float, high: float) -> Table:
        """Tabulate an activation between two lengths, at one of them where they are equal."""
        kernel, span = Kernel(activation), float(np.log(high / low))
        off_zero = bool(activation.kinks) and not activation.scale_free
        s = (chebyshev.chebpts1(NODES_OFF_ZERO if off_zero else ROOT_NODES) + 1) / 2
        y = chebyshev.chebpts1(8 + int(np.ceil(6 * span)) if span else 1)
        q = np.sqrt(low * high) * np.exp(span / 2 * y)
        to_y = np.linalg.inv(chebyshev.chebvander(y, y.size - 1))
        to_s = np.linalg.inv(chebyshev.chebvander(2 * s - 1, s.size - 1))
        p = to_y @ (kernel.gap(q[:, None], s**2) / s**2) @ to_s.T
        half_slope = chebyshev.chebval(2 * s - 1, (p @ _slope(s.size)).T)  # dP/ds over 2
        tangent = p + (half_slope * s) @ to_s.T
        to_slope = _slope(y.size).T
        moments = to_y @ np.stack([kernel.second_moment(q), kernel.slope_moment(q)], axis=1)
        series: dict[Series, Array] = {
            "gap": p,
            "tangent": tangent,
            "tangent_s": tangent @ _slope(s.size) * 2,
            "gap_y": to_slope @ p,
            "tangent_y": to_slope @ tangent,
        }
        return cls(series, np.hstack([moments, to_slope @ moments]), low, high)

    def cut(self, error: float) -> Table:
        """The same without the terms that are below ``error`` of the largest."""
        sizes = abs(self.series["tangent"])
        kept = sizes > error * sizes.max()
        rows = int(np.flatnonzero(kept.any(axis=1))[-1]) + 1
        columns = int(np.flatnonzero(kept.any(axis=0))[-1]) + 1
        series = {name: c[:rows, :columns] for name, c in self.series.items()}
        return replace(self, series=series, moments=self.moments[:rows])

    def basis(self, q: Array) -> Array:
        """Polynomials in the length at ``q``, in a first axis."""
        if len(self.moments) == 1:
            return np.ones((1, *q.shape))
        y = (2 * np.log(q) - np.log(self.low * self.high)) / np.log(self.high / self.low)
        return basis(np.clip(y, -1.0, 1.0), len(self.moments))

    def moments_at(self, q: Array) -> tuple[Array, Array, Array, Array]:
        """``V, M`` and their derivatives by ``q``."""
        v, m, v_y, m_y = np.tensordot(self.moments.T, self.basis(q), axes=1)
        if len(self.moments) == 1:
            return v, m, 0 * v, 0 * v
        scale = self.y_slope(q)
        return v, m, v_y * scale, m_y * scale

    def y_slope(self, q: Array) -> Array:
        """``dy/dq``; 0 where there is one length."""
        return 2 / np.log(self.high / self.low) / q if self.high > self.low else 0 * q

    def at(self, names: tuple[Series, ...], q: Array, s: Array) -> list[Array]:
        """Some of the series at lengths ``q`` of a shape S and roots ``s`` of shape (K, *S)."""
        flat, roots = q.ravel(), 2 * s.reshape(len(s), -1) - 1
        found = [np.empty(roots.shape) for _ in names]
        for start in range(0, flat.size, PART):
            part = slice(start, start + PART)
            polynomials = None if len(self.moments) == 1 else self.basis(flat[part])
            for name, values in zip(names, found, strict=True):
                c = self.series[name]
                terms = c[0] if polynomials is None else c.T @ polynomials
                values[:, part] = summed(terms, roots[:, part])
        return [values.reshape(s.shape) for values in found]


def _slope(count: int) -> Array:
    """Matrix from the coefficients of a series (from the left) to those of its derivative."""
    matrix = np.zeros((count, count))
    for degree in range(1, count):
        slope: Any = chebyshev.chebder(np.eye(count)[degree])
        matrix[degree, : slope.size] = slope
    return matrix


def basis(x: Array, count: int) -> Array:
    """Chebyshev polynomials 0 to ``count - 1`` in a first axis."""
    if x.size < FEW:
        return np.asarray(np.cos(np.multiply.outer(np.arange(count), np.arccos(x))))
    terms = np.empty((count, *x.shape))
    terms[0] = 1
    if count > 1:
        terms[1], twice = x, 2 * x
    for k in range(2, count):
        np.multiply(twice, terms[k - 1], out=terms[k])
        terms[k] -= terms[k - 2]
    return terms


def summed(c: Array, x: Array) -> Array:
    """``sum_k c_k T_k(x)`` with ``c`` of shape (J,) or (J, *trailing axes of x)."""
    if x.size < FEW:
        terms = basis(x, len(c))
        if c.ndim == 1:
            return np.asarray(np.tensordot(c, terms, axes=1))
        wide = c.reshape(len(c), *(1,) * (x.ndim - c.ndim + 1), *c.shape[1:])
        return np.asarray((wide * terms).sum(axis=0))
    twice, last, before = 2 * x, np.zeros(x.shape), np.zeros(x.shape)
    for k in range(len(c) - 1, 0, -1):  # Clenshaw's recursion
        following = twice * last
        following -= before
        following += c[k]
        before, last = last, following
    last *= x
    last -= before
    last += c[0]
    return last

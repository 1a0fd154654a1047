"""Probabilities of evenly spaced cells, and what is asked of them between the nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depthscale.theory.gaussian import Array


@dataclass(frozen=True)
class Grid:
    """Probabilities of the cells around evenly spaced nodes; a single node is a certain value.

    Attributes
    ----------
    u:
        Nodes, shape (N,), increasing.
    p:
        Probability of each cell, shape (N,); they sum to 1 less what has escaped.
    """

    u: Array
    p: Array

    @property
    def total(self) -> float:
        """What has not escaped."""
        return float(self.p.sum())

    def expectation(self, values: Array) -> float:
        """Mean of a function given by its values on the nodes, of what has not escaped."""
        return float(self.p @ values) / self.total

    def at_ends(self, values: Array) -> float:
        """How much of the mean of a function's size comes from the outer fiftieths of the grid.

        Where that is not little, the mean is one of tails that the grid does not hold.
        """
        if self.u.size == 1:
            return 0.0
        edge = -(-self.u.size // 50)
        parts = self.p * np.abs(values)
        return float(parts[:edge].sum() + parts[-edge:].sum()) / self.total

    def _faces(self) -> tuple[Array, Array, Array]:
        """Faces, the distribution there and its slope, limited so that the cubic is monotone."""
        step = self.u[1] - self.u[0]
        faces = np.append(self.u - step / 2, self.u[-1] + step / 2)
        below = np.append(0.0, np.cumsum(self.p))
        padded = np.pad(self.p, 2)
        inner = 7 * (padded[1:-2] + padded[2:-1]) - (padded[:-3] + padded[3:])
        least = 3 * np.minimum(padded[1:-2], padded[2:-1])
        return faces, below, np.clip(inner / 12, 0.0, least) / step

    def below(self, u: Array) -> Array:
        """``P(coordinate <= u)``."""
        if self.u.size == 1:
            return np.where(u >= self.u[0], self.total, 0.0)
        faces, below, slope = self._faces()
        cell = np.clip(np.searchsorted(faces, u, side="right") - 1, 0, self.u.size - 1)
        width = faces[1] - faces[0]
        place = np.clip((u - faces[cell]) / width, 0.0, 1.0)
        rise = width * slope
        return _monotone(place, below[cell], below[cell + 1], rise[cell], rise[cell + 1])

    def quantiles(self, levels: Array) -> Array:
        """The ``u`` below which the probability is ``levels``; ``inf`` beyond what is left."""
        if self.u.size == 1:
            return np.where(levels <= self.total, self.u[0], np.inf)
        faces, below, slope = self._faces()
        cell = np.clip(np.searchsorted(below, levels, side="left") - 1, 0, self.u.size - 1)
        width = faces[1] - faces[0]
        rise = width * slope
        ends = below[cell], below[cell + 1], rise[cell], rise[cell + 1]
        low, high = np.zeros(levels.shape), np.ones(levels.shape)
        place = np.full(levels.shape, 0.5)
        for _ in range(60):  # Newton's steps, halving where one leaves the bracket
            excess = _monotone(place, *ends) - levels
            low, high = np.where(excess < 0, place, low), np.where(excess < 0, high, place)
            with np.errstate(divide="ignore", invalid="ignore"):
                move = np.nan_to_num(excess / _monotone_slope(place, *ends), nan=0.0)
            if np.max(np.abs(move)) < 1e-13:
                break
            after = place - move
            place = np.where((after >= low) & (after <= high), after, (low + high) / 2)
        return np.where(levels <= below[-1], faces[cell] + width * place, np.inf)

    def density(self, u: Array) -> Array:
        """Probability density at ``u``: the cells' own, interpolated linearly."""
        if self.u.size == 1:
            return np.where(u == self.u[0], np.inf, 0.0)
        step = self.u[1] - self.u[0]
        return np.asarray(np.interp(u, self.u, self.p / step, left=0.0, right=0.0))


def _monotone(place: Array, low: Array, high: Array, at_low: Array, at_high: Array) -> Array:
    """Hermite's cubic on [0, 1] through two values with two slopes."""
    back = 1 - place
    ends = low * (1 + 2 * place) * back**2 + high * (3 - 2 * place) * place**2
    return np.asarray(ends + place * back * (at_low * back - at_high * place))


def _monotone_slope(place: Array, low: Array, high: Array, at_low: Array, at_high: Array) -> Array:
    """The derivative of ``_monotone``."""
    back = 1 - place
    ends = 6 * place * back * (high - low)
    return np.asarray(ends + at_low * back * (1 - 3 * place) + at_high * place * (3 * place - 2))

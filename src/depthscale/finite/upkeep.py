"""What keeps vectors in order: their precision, their scale, and those that are zero."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthscale.finite.columns import Array, Chain, Factor, column
from depthscale.theory.activation import Activation

# Lengths that leave this range, up or down, are brought back by a power of two and the logarithm is
# kept, where the activation only multiplies there: scale-free ones everywhere, many others far from
# and close to zero. Elsewhere a length below the square of its inverse counts as zero.
WIDEST = {torch.float64: 2.0**100, torch.float32: 2.0**25}
# Root mean square difference of two vectors that counts as none.
FAINT = {torch.float64: 1e-150, torch.float32: 1e-16}
# Lengths up to which, and down to the inverse of which, vectors that are far from each other are
# kept in single precision, in mixed precision and before scale-free activations.
PLAIN = 2.0**10
# Units from which on they are: narrow layers turn any vectors into nearly dependent ones now and
# then, and cost nothing.
WIDE = 32


@dataclass(frozen=True)
class Precision:
    """Of units; normal numbers have 24 bits in any case.

    Attributes:
        close: where some vectors of the block are carried as differences, or may come close.
        apart: where no vector is close to the span of others: inner products err there by 1e-7 in
            single precision, at random.
    """

    close: torch.dtype
    apart: torch.dtype

    @property
    def mixed(self) -> bool:
        """Whether it depends on the vectors."""
        return self.close != self.apart


PRECISIONS = {
    "mixed": Precision(torch.float64, torch.float32),
    "double": Precision(torch.float64, torch.float64),
    "single": Precision(torch.float32, torch.float32),
}


@lru_cache(maxsize=64)
def plain_lengths(phi: Activation) -> tuple[float, float]:
    """Shortest and longest root mean square of pre-activations that single precision is enough for.

    So that what tells two inputs apart is not lost where values are rounded, an activation that is
    not scale-free must change by 3 % of its largest value over twice such a length, and its slope
    not at all or by .1 %; and so that it is not lost where slopes vanish, lengths end at 4. The
    octaves from 1/32 to 4 are tried. ``(inf, 0)`` where there are none.
    """
    if phi.scale_free:
        return 1 / PLAIN, PLAIN
    found = []
    for length in 2.0 ** np.arange(-5, 3):
        x = length * np.linspace(-2, 2, 9)
        with np.errstate(all="ignore"):
            values, slopes = phi(x), phi.slope(x)
            spread = np.ptp(values) / np.abs(values).max()
            bend = np.ptp(slopes) / np.abs(slopes).max()
        if spread >= 0.03 and not 1e-12 < bend < 1e-3:
            found.append(float(length))
        elif found:
            break
    return (found[0], found[-1]) if found else (math.inf, 0.0)


@dataclass(frozen=True)
class Range:
    """The lengths ``|v|/sqrt(n)`` that vectors may have, and what is done about others.

    Attributes:
        widest: from its inverse to this they are left alone.
        home: to this or to its inverse they are brought otherwise.
        down: whether large ones may be brought down.
        up: whether small ones may be brought up.
    """

    widest: float
    home: float = 1.0
    down: bool = True
    up: bool = True

    def holds(self, factor: Factor, units: int) -> bool:
        """Whether all columns are left alone."""
        most = self.widest * self.widest
        return factor.most <= most * units and factor.least * most >= units

    def apply_(
        self, vectors: Tensor, coordinates: Array, log: Array, size: Array
    ) -> tuple[Array, Array]:
        """Multiply networks whose vectors have left it by a power of two, in place.

        Args:
            vectors: columns ``[column, net, unit]``.
            coordinates: theirs.
            log: logarithm of their scale, ``[net]``.
            size: the largest length of each network, ``[net]``.

        Returns:
            The new coordinates and logarithms.
        """
        with np.errstate(invalid="ignore"):
            large = self.down & (size > self.widest) & np.isfinite(size)
            small = self.up & (size < 1 / self.widest) & (size > 0)
        home = round(math.log2(self.home))
        exponent = np.where(large, home, 0) - np.where(small, home, 0)
        exponent = np.where(large | small, exponent - np.frexp(size)[1], 0)
        if not exponent.any():
            return coordinates, log
        power = np.ldexp(1.0, exponent)
        vectors *= column(power, vectors)
        return coordinates * power, log - exponent * math.log(2)


def mend_dead(columns: Tensor, coordinates: Array, chain: Chain) -> NDArray[np.bool_]:
    """Make zero, in place, vectors of which only the rounding of larger columns is left.

    Those of a dead network, or of an input whose layer or units are all dropped: columns that
    cancel, to be followed as exactly nothing.

    Args:
        columns: ``[column, net, unit]``.
        coordinates: in an orthonormal basis, ``[direction, column, net]``.
        chain: of the columns.

    Returns:
        Which vectors are zero, ``[column, net]``.
    """
    if not chain.steps:
        return np.asarray(np.all(coordinates == 0, axis=0))
    whole, largest = coordinates.copy(), np.square(coordinates).sum(0)
    for own, parent in chain.steps:
        whole[:, own] += whole[:, parent]
        largest[own] = np.maximum(largest[own], largest[parent])
    limit = (64 * torch.finfo(columns.dtype).eps) ** 2
    dead = np.asarray(np.square(whole).sum(0) <= limit * largest)
    for vector, nets in _where(dead, chain):
        whole[:, vector, nets] = 0
        coordinates[:, vector, nets] = -whole[:, chain.parents[vector], nets]
    keep_dead(columns, dead, chain)
    return dead


def keep_dead(columns: Tensor, dead: NDArray[np.bool_], chain: Chain) -> None:
    """Make columns of vectors that are known to be zero cancel to the last digit."""
    for vector, nets in _where(dead, chain):
        where = torch.from_numpy(nets).to(columns.device)
        path = np.flatnonzero(chain.paths[:, chain.parents[vector]]).tolist()
        columns[vector, where] = -columns[path][:, where].sum(0)


def _where(dead: NDArray[np.bool_], chain: Chain) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Dead vectors that are differences from others, and in which networks."""
    for vector in np.flatnonzero(dead.any(axis=1)).tolist() if chain.steps else ():
        if chain.parents[vector] >= 0:
            yield vector, np.flatnonzero(dead[vector])

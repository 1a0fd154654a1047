"""Arithmetic of vectors that may agree in all their digits.

Several vectors of one layer are carried as a chain of differences: the first one as it is, every
other one as its difference from a parent, an earlier vector close to it. Arrays are ``[column, net,
unit]``. Weights act on all columns alike, so a difference of any size is followed with its own
relative precision, and ``eps = 1 - cos`` keeps its digits where two vectors agree in all of theirs.

Units live in tensors, on any device and in either precision. What is one number a network, such as
an inner product, is float64 in numpy on the host: there it costs least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

# Up to here loops over vectors are faster than LAPACK and matrix products.
FEW = 4


class Workspace:
    """Tensors that are used again and again, by name: fresh memory costs more than arithmetic."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._held: dict[object, Tensor] = {}

    def take(self, name: object, *shape: int) -> Tensor:
        """A tensor of this shape with any content, the same memory each time for one name."""
        size = int(np.prod(shape))
        held = self._held.get(name)
        if held is None or len(held) < size:
            held = self._held[name] = torch.empty(size, device=self.device, dtype=self.dtype)
        return held[:size].view(shape)


@dataclass(frozen=True)
class Chain:
    """Which column is the difference from which.

    Attributes:
        parents: ``parents[k] < k`` of column k, -1 for a vector as it is.
        order: the input that column k belongs to.
    """

    parents: tuple[int, ...]
    order: tuple[int, ...]

    @classmethod
    def star(cls, count: int) -> Chain:
        """Every vector as its difference from the first."""
        return cls((-1, *[0] * (count - 1)), tuple(range(count)))

    @classmethod
    def nearest(cls, squares: Array) -> Chain:
        """The tree that joins every vector to the nearest one before it, the first one first.

        Args:
            squares: squared distances, ``[vector, vector]``.
        """
        count = len(squares)
        order, parents = [0], [-1]
        near, joint = squares[0].copy(), np.zeros(count, dtype=int)
        near[0] = np.inf
        for _ in range(count - 1):
            new = int(near.argmin())
            parents.append(order.index(int(joint[new])))
            order.append(new)
            closer = squares[new] < near
            joint[closer] = new
            near = np.where(closer, squares[new], near)
            near[order] = np.inf
        return cls(tuple(parents), tuple(order))

    def __len__(self) -> int:
        return len(self.parents)

    @cached_property
    def steps(self) -> tuple[tuple[slice, slice], ...]:
        """``(columns, parents)`` in an order in which parents come first; roots are left out."""
        if set(self.parents[1:]) == {0}:
            return ((slice(1, None), slice(0, 1)),)
        pairs = [(k, p) for k, p in enumerate(self.parents) if p >= 0]
        return tuple((slice(k, k + 1), slice(p, p + 1)) for k, p in pairs)

    def absolute_(self, columns: Tensor) -> Tensor:
        """The vectors themselves, written over their columns."""
        for own, parent in self.steps:
            columns[own] += columns[parent]
        return columns

    def differences_(self, vectors: Tensor) -> Tensor:
        """The columns of vectors, written over them."""
        for own, parent in reversed(self.steps):
            vectors[own] -= vectors[parent]
        return vectors

    def multiply_(self, left: Tensor, right: Tensor) -> Tensor:
        """Unit-by-unit products ``(l + dl)(r + dr) - l r = (l + dl) dr + dl r``, over ``right``.

        A ``left`` of one column is the same vector for all.
        """
        if len(left) == 1:
            return right.mul_(left)
        if self.parents == (-1, 0):
            right[1].mul_(left[0] + left[1]).addcmul_(left[1], right[0])
            right[0].mul_(left[0])
            return right
        whole_left, whole_right = self.absolute_(left.clone()), self.absolute_(right.clone())
        right *= whole_left
        for own, parent in self.steps:
            right[own].addcmul_(left[own], whole_right[parent])
        return right

    @cached_property
    def paths(self) -> Array:
        """``[column, column]``, 1 where the vector of the second is a sum that has the first."""
        result = np.eye(len(self))
        for k, parent in enumerate(self.parents):
            if parent >= 0:
                result[:, k] += result[:, parent]
        return result

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """The column of each input."""
        return np.argsort(self.order)

    @cached_property
    def sums(self) -> Array:
        """``[column, input]``, 1 where the input's vector is a sum that has the column."""
        return np.ascontiguousarray(self.paths[:, self.places])


@dataclass(frozen=True)
class Factor:
    """``x_k = sum_j basis_j / norm_j coordinates[j, k]``: an orthogonal basis and coordinates.

    Shapes: ``basis [direction][net, unit]``, ``norms [direction, net]``, ``coordinates
    [direction, column, net]``. A direction that does not exist has norm 0, as its coordinates are.
    """

    basis: Sequence[Tensor] | Tensor
    norms: Array
    coordinates: Array


def dot(left: Tensor, right: Tensor) -> Array:
    """Inner products over units, on the host."""
    if left.device.type == "cpu":
        return np.asarray(np.vecdot(left.numpy(), right.numpy()), dtype=float)
    return (left * right).sum(-1, dtype=torch.float64).cpu().numpy()


def dots(left: Sequence[Tensor] | Tensor, right: Sequence[Tensor] | Tensor) -> Array:
    """All inner products of two families, ``[left, right, net]``, on the host."""
    if max(len(left), len(right)) <= FEW:
        return np.array([[dot(a, b) for b in right] for a in left])
    product = torch.matmul(together(left).transpose(0, 1), together(right).permute(1, 2, 0))
    return np.ascontiguousarray(product.double().cpu().numpy().transpose(1, 2, 0))


def together(vectors: Sequence[Tensor] | Tensor) -> Tensor:
    """Vectors as one array."""
    return vectors if isinstance(vectors, Tensor) else torch.stack(list(vectors))


def inverse(values: Array) -> Array:
    """``1/values``, and 0 where there is nothing."""
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def combine(
    vectors: Sequence[Tensor] | Tensor,
    coefficients: Array,
    out: Tensor,
    *,
    upper: bool = False,
    add: bool = False,
) -> Tensor:
    """``sum_j vectors_j coefficients[j, k]`` for every k, into ``out [k, net, unit]``.

    Args:
        vectors: ``[j, net, unit]``.
        coefficients: ``[j, k, net]``.
        out: to be filled.
        upper: coefficients are 0 where ``j > k`` (less work).
        add: add to what stands in ``out``.
    """
    weights = torch.from_numpy(np.ascontiguousarray(coefficients)).to(out.device, out.dtype)
    count = len(out)
    if max(len(vectors), count) > FEW:
        product = torch.matmul(weights.permute(2, 1, 0), together(vectors).transpose(0, 1))
        product = product.transpose(0, 1)
        return out.add_(product) if add else out.copy_(product)
    weights = weights.unsqueeze(-1)
    for k in range(count):
        for j in range(min(k + 1, len(vectors)) if upper else len(vectors)):
            if add or j > 0:
                out[k].addcmul_(vectors[j], weights[j, k])
            else:
                torch.mul(vectors[0], weights[0, k], out=out[k])
    return out


def orthogonal(columns: Tensor, space: Workspace, name: object) -> Factor:
    """Orthogonal basis and coordinates of some columns, each exact relative to its own size.

    Gram-Schmidt up to ``FEW`` columns, Householder's QR beyond. Gram-Schmidt is run twice where the
    first run took nine tenths of a square away, which is enough for orthogonality to rounding; what
    the second run takes half away of lies in the span of the earlier ones and gets norm 0.

    Args:
        columns: ``[column, net, unit]``.
        space: where the basis is put.
        name: of its place there.
    """
    if len(columns) > FEW:
        return _householder(columns)
    count, nets, units = columns.shape
    coordinates = np.zeros((count, count, nets))
    basis, squares = [columns[0]], [dot(columns[0], columns[0])]
    coordinates[0, 0] = np.sqrt(squares[0])
    for k in range(1, count):
        rest = columns[k]
        out = space.take((name, k), nets, units)
        for run in range(2):
            taken = np.zeros(nets)
            for j in range(k):
                along = dot(basis[j], rest)
                slope = along * inverse(squares[j])
                coordinates[j, k] += slope * coordinates[j, j]
                taken += slope * along
                rest = torch.addcmul(rest, basis[j], _column(slope, rest), value=-1, out=out)
            left = dot(rest, rest)
            if run == 0 and np.all(left > 0.1 * taken):
                break
        else:
            gone = left <= taken / 3
            left[gone] = 0
            rest[torch.from_numpy(gone).to(rest.device)] = 0
        basis.append(rest)
        squares.append(left)
        coordinates[k, k] = np.sqrt(left)
    norms = np.diagonal(coordinates, axis1=0, axis2=1).T
    return Factor(basis, norms, coordinates)


def _column(values: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, like.dtype)[:, None]


def _householder(columns: Tensor) -> Factor:
    q, r = torch.linalg.qr(columns.permute(1, 2, 0).double())
    coordinates = np.ascontiguousarray(r.cpu().numpy().transpose(1, 2, 0))
    norms = np.ones((q.shape[2], q.shape[0]))
    return Factor(q.permute(2, 0, 1).to(columns.dtype), norms, coordinates)

"""Arithmetic of vectors that may agree in all their digits.

Several vectors of one layer are carried as a chain of differences: the first one as it is, every
other one as its difference from a parent, an earlier vector close to it. Arrays are ``[column, net,
unit]``. Weights act on all columns alike, so a difference of any size is followed with its own
relative precision, and ``eps = 1 - cos`` keeps its digits where two vectors agree in all of theirs.

Units live in tensors, on any device and in either precision. What is one number a network, such as
an inner product, is float64 in numpy on the host: there it costs least.
"""

from __future__ import annotations

import math
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

# Share of its square that a column must have outside the span of earlier ones for inner products to
# be enough: what is left of it keeps 11 digits, 5 in single precision.
INDEPENDENT = {torch.float64: 1e-5, torch.float32: 1e-2}


class Workspace:
    """Tensors that are used again and again, by name: fresh memory costs more than arithmetic."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held: dict[tuple[object, torch.dtype], Tensor] = {}
        self._views: dict[tuple[object, torch.dtype, tuple[int, ...]], Tensor] = {}

    def take(self, name: object, dtype: torch.dtype, *shape: int) -> Tensor:
        """A tensor of this shape with any content, the same memory each time for one name."""
        view = self._views.get((name, dtype, shape))
        if view is None:
            size = math.prod(shape)
            held = self._held.get((name, dtype))
            if held is None or len(held) < size:
                held = torch.empty(size, device=self.device, dtype=dtype)
                self._views = {k: v for k, v in self._views.items() if k[:2] != (name, dtype)}
                self._held[name, dtype] = held
            view = self._views[name, dtype, shape] = held[:size].view(shape)
        return view


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

    @cached_property
    def apart(self) -> Chain:
        """The same vectors, every one as it is."""
        return Chain((-1,) * len(self), self.order)

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
        if self.parents[0] < 0 and set(self.parents[1:]) == {0}:
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

        A ``left`` of one column is the same vector for all. Both products are rounded before they
        are added, so that those that cancel leave nothing.
        """
        if left.shape[0] == 1 or not self.steps:
            return right.mul_(left)
        if self.parents == (-1, 0):
            right[1].mul_(left[0] + left[1]).add_(left[1] * right[0])
            right[0].mul_(left[0])
            return right
        whole_left, whole_right = self.absolute_(left.clone()), self.absolute_(right.clone())
        right *= whole_left
        for own, parent in self.steps:
            right[own].add_(left[own] * whole_right[parent])
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
    def roots(self) -> list[int]:
        """Columns that are vectors as they are."""
        return [k for k, parent in enumerate(self.parents) if parent < 0]

    @cached_property
    def tied(self) -> list[int]:
        """Columns that are differences."""
        return [k for k, parent in enumerate(self.parents) if parent >= 0]

    def recast(self, coordinates: Array, other: Chain) -> Array:
        """Coordinates ``[..., copy * column, net]`` of the same vectors in another chain."""
        if other is self or other.parents == self.parents:
            return coordinates
        *lead, _, nets = coordinates.shape
        result = coordinates.copy().reshape(*lead, -1, len(self), nets)
        for own, parent in self.steps:
            result[..., own, :] += result[..., parent, :]
        for own, parent in reversed(other.steps):
            result[..., own, :] -= result[..., parent, :]
        return result.reshape(coordinates.shape)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """The column of each input."""
        return np.argsort(self.order)

    @cached_property
    def sums(self) -> Array:
        """``[column, input]``, 1 where the input's vector is a sum that has the column."""
        return np.ascontiguousarray(self.paths[:, self.places])


@dataclass(eq=False)
class Factor:
    """An orthonormal basis of some vectors and their coordinates in it.

    ``x_k = sum_j basis_j coordinates[j, k]`` with ``basis_j = sum_i raw_i mix[i, j]``.

    Attributes:
        raw: vectors ``[i][net, unit]`` that span the same space, the columns themselves where these
            are not nearly dependent.
        extra: their values at one more unit, ``[i, net]``, where there is one.
        coordinates: ``[direction, column, net]``, upper triangular.
        sizes: ``[direction, net]`` where the raw vectors are orthogonal, of these lengths; None
            where they are the columns. A direction that does not exist has 0, and so has ``mix``.
        squares: of the lengths of the columns, ``[column, net]``.
        least, most: of ``squares``.
    """

    raw: Sequence[Tensor] | Tensor
    extra: Array | None
    coordinates: Array
    sizes: Array | None
    squares: Array
    least: float
    most: float

    @property
    def regular(self) -> bool:
        """Whether every column has a share of its own, ``INDEPENDENT``, outside earlier ones."""
        return self.sizes is None

    @cached_property
    def mix(self) -> Array:
        """``[i, direction, net]``."""
        if self.sizes is None:
            return _inverse(self.coordinates)
        return np.eye(len(self.sizes))[:, :, None] * inverse(self.sizes)

    def onto(self, vectors: Tensor, extra: Array | None) -> Array:
        """Inner products of ``raw`` with other vectors and their extra values: ``[i, k, net]``."""
        result = dots(self.raw, vectors)
        if self.extra is not None and extra is not None:
            result += self.extra[:, None] * extra
        return result

    def least_share(self, squares: Array) -> float:
        """Least share of its square that a vector has outside the span of earlier ones.

        Args:
            squares: of the vectors, ``[column, net]``.
        """
        if len(self.coordinates) < len(squares):
            return 0.0
        own = np.square(np.diagonal(self.coordinates)).T
        return float((own * inverse(squares)).min())


def on_host(tensor: Tensor) -> bool:
    """Whether numpy can work on it, whose calls and functions cost less there than torch's."""
    return tensor.device.type == "cpu"


def dot(left: Tensor, right: Tensor) -> Array:
    """Inner products over units, on the host."""
    if on_host(left):
        return np.asarray(np.vecdot(left.numpy(), right.numpy()), dtype=float)
    return (left * right).sum(-1, dtype=torch.float64).cpu().numpy()


def dots(left: Sequence[Tensor] | Tensor, right: Tensor) -> Array:
    """All inner products of two families, ``[left, right, net]``, on the host."""
    if max(_count(left), _count(right)) > FEW:
        product = torch.matmul(together(left).transpose(0, 1), right.permute(1, 2, 0))
        return np.ascontiguousarray(product.double().cpu().numpy().transpose(1, 2, 0))
    if isinstance(left, Tensor) and on_host(left):
        product = np.vecdot(left.numpy()[:, None], right.numpy())
        return np.asarray(product, dtype=float)
    return np.stack([dot(vector, right) for vector in left])


def gram(columns: Tensor) -> Array:
    """Inner products of a few columns, ``[column, column, net]``; of use above the diagonal."""
    count = columns.shape[0]
    if count > 2 or not on_host(columns):
        return dots(columns, columns)
    values = columns.numpy()
    result = np.zeros((count, count, values.shape[1]))
    result.reshape(count * count, -1)[:: count + 1] = np.vecdot(values, values)
    if count == 2:
        result[0, 1] = np.vecdot(values[0], values[1])
    return result


def _count(vectors: Sequence[Tensor] | Tensor) -> int:
    # torch's own len() costs a microsecond
    return vectors.shape[0] if isinstance(vectors, Tensor) else len(vectors)


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
        upper: coefficients are 0 where ``j > k`` (less work where this goes term by term).
        add: add to what stands in ``out``.
    """
    terms, count, nets = coefficients.shape
    many = max(terms, count) > FEW
    if on_host(out) and not many:
        # numpy takes vectors as they lie, [j, net, unit], for matrices net by net
        target = out.numpy().transpose(1, 0, 2)
        mixing = np.ascontiguousarray(coefficients.transpose(2, 1, 0), target.dtype)
        sources = together(vectors).numpy().transpose(1, 0, 2)
        if add:
            target += np.matmul(mixing, sources)
        else:
            np.matmul(mixing, sources, out=target)
        return out
    if many:
        weights = column(coefficients, out)[..., 0].permute(2, 1, 0)
        product = torch.matmul(weights, together(vectors).transpose(0, 1)).transpose(0, 1)
        return out.add_(product) if add else out.copy_(product)
    given = vectors.unbind() if isinstance(vectors, Tensor) else vectors
    flat = column(coefficients.reshape(-1, nets), out).unbind()
    for k, row in enumerate(out.unbind()):
        for j in range(min(k + 1, terms) if upper else terms):
            if add or j > 0:
                row.addcmul_(given[j], flat[j * count + k])
            else:
                torch.mul(given[0], flat[k], out=row)
    return out


def factorise(
    columns: Tensor, space: Workspace, name: object, extra: Array | None = None
) -> Factor:
    """Orthonormal basis and coordinates of some columns, each exact relative to its own size.

    From inner products (Cholesky) where no column is nearly dependent on earlier ones. Else by
    Gram-Schmidt, run twice, which is enough for orthogonality to rounding: what the second run
    takes half away of lies in the span of the earlier ones and counts as zero. Or by Householder,
    for more than ``FEW`` columns.

    Args:
        columns: ``[column, net, unit]``.
        space: where a basis is put.
        name: of its place there.
        extra: values at one more unit, ``[column, net]``.
    """
    many = columns.shape[0] > FEW
    if columns.shape[0] > columns.shape[2]:
        return _householder(columns, extra) if many else _gram_schmidt(columns, space, name, extra)
    products = gram(columns)
    if extra is not None:
        products += extra[:, None] * extra
    squares = products.reshape(len(products) ** 2, -1)[:: len(products) + 1]
    low, high = squares.min(), squares.max()
    if low > 0:
        cholesky = _cholesky_of_many if many else _cholesky
        triangular = cholesky(products, squares, INDEPENDENT[columns.dtype])
        if triangular is not None:
            return Factor(columns, extra, triangular, None, squares, low, high)
    return _householder(columns, extra) if many else _gram_schmidt(columns, space, name, extra)


def _cholesky(products: Array, squares: Array, least: float) -> Array | None:
    """Upper triangular ``T`` with ``T^T T = products``; None where a pivot has lost its digits.

    Args:
        products: ``[column, column, net]``.
        squares: its diagonal, above 0.
        least: share of a square that is to be left.
    """
    result = np.zeros(products.shape)
    for k, square in enumerate(squares):
        left = square
        for j in range(k):
            along = products[j, k]
            for i in range(j):
                along = along - result[i, j] * result[i, k]
            share = np.divide(along, result[j, j], out=result[j, k])
            left = left - share * share
        if k and not (left > least * square).all():
            return None
        np.sqrt(left, out=result[k, k])
    return result


def _cholesky_of_many(products: Array, squares: Array, least: float) -> Array | None:
    """The same by LAPACK."""
    matrices = torch.from_numpy(np.ascontiguousarray(products.transpose(2, 0, 1)))
    lower, failed = torch.linalg.cholesky_ex(matrices)
    if failed.any():
        return None
    result = np.ascontiguousarray(lower.numpy().transpose(2, 1, 0))
    pivots = np.square(np.diagonal(result)).T
    return result if (pivots > least * squares).all() else None


def _inverse(upper: Array) -> Array:
    """Of upper triangular matrices ``[row, column, net]``."""
    if len(upper) > FEW:
        matrices = torch.from_numpy(np.ascontiguousarray(upper.transpose(2, 0, 1)))
        unit = torch.eye(len(upper), dtype=matrices.dtype)
        inverses = torch.linalg.solve_triangular(matrices, unit, upper=True)
        return np.ascontiguousarray(inverses.numpy().transpose(1, 2, 0))
    result = np.zeros_like(upper)
    for k in range(len(upper)):
        result[k, k] = 1 / upper[k, k]
        for j in reversed(range(k)):
            above = sum(upper[j, i] * result[i, k] for i in range(j + 1, k + 1))
            result[j, k] = -above * result[j, j]
    return result


def _gram_schmidt(columns: Tensor, space: Workspace, name: object, extra: Array | None) -> Factor:
    count, nets, units = columns.shape
    coordinates = np.zeros((count, count, nets))
    beside = np.zeros((count, nets)) if extra is None else extra.copy()
    raw, squares = [columns[0]], [dot(columns[0], columns[0]) + beside[0] ** 2]
    for k in range(count):
        if k:
            rest = columns[k]
            out = space.take((name, k), columns.dtype, nets, units)
            for _ in range(2):
                taken = np.zeros(nets)
                for j in range(k):
                    along = dot(raw[j], rest) + beside[j] * beside[k]
                    slope = along * inverse(squares[j])
                    coordinates[j, k] += slope * coordinates[j, j]
                    taken += slope**2 * squares[j]
                    rest = torch.addcmul(rest, raw[j], column(slope, rest), value=-1, out=out)
                    beside[k] -= slope * beside[j]
                left = dot(rest, rest) + beside[k] ** 2
            gone = left <= taken / 3
            left[gone] = 0
            rest[torch.from_numpy(gone).to(rest.device)] = 0
            beside[k, gone] = 0
            raw.append(rest)
            squares.append(left)
        coordinates[k, k] = np.sqrt(squares[k])
    extra = None if extra is None else beside
    return orthogonal(raw, extra, coordinates, np.sqrt(squares))


def _householder(columns: Tensor, extra: Array | None) -> Factor:
    vectors = columns.permute(1, 2, 0).double()
    if extra is not None:
        last = torch.from_numpy(np.ascontiguousarray(extra.T)).to(columns.device)
        vectors = torch.cat([vectors, last[:, None]], dim=1)
    q, r = torch.linalg.qr(vectors)
    # signs as Gram-Schmidt has them, so that one stream gives one network by any route
    signs = torch.where(r.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0)
    q, r = q * signs[:, None], r * signs[:, :, None]
    coordinates = np.ascontiguousarray(r.cpu().numpy().transpose(1, 2, 0))
    basis = q.permute(2, 0, 1)
    if extra is not None:
        extra = np.ascontiguousarray(basis[:, :, -1].cpu().numpy())
        basis = basis[:, :, :-1]
    return orthogonal(basis.to(columns.dtype), extra, coordinates)


def orthogonal(
    raw: Sequence[Tensor] | Tensor,
    extra: Array | None,
    coordinates: Array,
    sizes: Array | None = None,
) -> Factor:
    """A factor of orthogonal vectors, of length 1 where no ``sizes`` are given."""
    squares = np.square(coordinates).sum(0)
    if sizes is None:
        sizes = np.ones(coordinates[:, 0].shape)
    return Factor(raw, extra, coordinates, sizes, squares, squares.min(), squares.max())


def column(values: Array, like: Tensor) -> Tensor:
    """One number a network, ``[..., net]``, to go with ``[..., net, unit]``."""
    kind = np.float32 if like.dtype == torch.float32 else np.float64
    held = torch.from_numpy(np.ascontiguousarray(values, kind)[..., None])
    return held if on_host(like) else held.to(like.device)

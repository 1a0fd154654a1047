"""What the weights of one layer do, forwards and backwards, with and without the weights.

Given the layer below, the units of the next layer are independent: with ``B`` an orthonormal basis
of the span of the inputs ``X = B T`` of the layer,

    Z = W B  has independent N(0, sigma^2) entries,   W X = Z T,   sigma = sigma_w/sqrt(n),

and ``W (I - B B^T)`` is independent of everything that the forward pass has seen, and of all layers
above. So the backward pass, given the forward one, is

    W^T Delta = B Z^T Delta + (I - B B^T) U,

the rows of ``U`` being independent ``N(0, sigma^2 Delta^T Delta)``. This costs O(width m^2) a layer
for m inputs where weights cost O(width^2 m), and it is the exact law at any width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthscale.finite.columns import (
    FEW,
    Array,
    Factor,
    Workspace,
    column,
    combine,
    dot,
    dots,
    inverse,
)
from depthscale.finite.draws import Draws

Recast = Callable[[Array], Array]


class Weights(ABC):
    """One random matrix for each network of a block; forwards once, then backwards.

    Args:
        sigma: standard deviation of one weight.
        space: where arrays are put.
        name: of their place there.
    """

    #: Whether a bias is one more unit below that always fires, ``extra`` of the factor.
    bias_as_unit = True
    #: Whether the chain of the columns may change from below to above.
    recasts = False

    def __init__(self, sigma: float, space: Workspace, name: object) -> None:
        self.sigma, self.space, self.name = sigma, space, name

    @abstractmethod
    def forward(
        self, draws: Draws, x: Tensor, factor: Factor, coordinates: Array, out: Tensor
    ) -> Tensor:
        """``W x`` for all columns, into ``out [column, net, unit above]``.

        Args:
            draws: the forward stream.
            x: columns ``[column, net, unit below]``.
            factor: their orthonormal basis.
            coordinates: of what ``W`` is wanted of, in that basis: ``x``, or its vectors in another
                chain.
            out: filled with it.
        """

    @abstractmethod
    def backward(
        self, draws: Draws, delta: Tensor, coordinates: Array, recast: Recast, out: Tensor
    ) -> Tensor:
        """``W^T delta`` for all columns, into ``out [column, net, unit below]``.

        Args:
            draws: the backward stream.
            delta: columns ``[column, net, unit above]``.
            coordinates: of ``delta`` in an orthonormal basis, ``[direction, column, net]``.
            recast: from coordinates in the chain of ``delta`` to the chain that is wanted.
            out: filled with it.
        """


class Weightless(Weights):
    """Gaussian weights that are never built."""

    recasts = True

    def forward(
        self, draws: Draws, x: Tensor, factor: Factor, coordinates: Array, out: Tensor
    ) -> Tensor:
        """See ``Weights``."""
        self._factor = factor
        shape = (len(factor.coordinates), *out.shape[1:])
        response = self.space.take(("response", self.name), out.dtype, *shape)
        self._response = draws.normals(response)
        return combine(self._response, coordinates * self.sigma, out, upper=True)

    def backward(
        self, draws: Draws, delta: Tensor, coordinates: Array, recast: Recast, out: Tensor
    ) -> Tensor:
        """See ``Weights``."""
        spread = recast(coordinates) * self.sigma
        shape = (len(coordinates), *out.shape[1:])
        fresh = draws.normals(self.space.take("fresh", out.dtype, *shape))
        combine(fresh, spread, out, upper=True)
        factor = self._factor
        beside = None if factor.extra is None else draws.few(len(coordinates), out.shape[1])
        unseen = _product(factor.mix.swapaxes(0, 1), factor.onto(fresh, beside))
        seen = recast(dots(self._response, delta)) * self.sigma - _product(unseen, spread)
        return combine(factor.raw, _product(factor.mix, seen), out, add=True)


def _product(left: Array, right: Array) -> Array:
    """Matrix products ``[row, column, net]``, net by net."""
    if max(len(left), *right.shape[:2]) > FEW:
        return np.asarray(np.einsum("ijr,jkr->ikr", left, right, optimize=True))
    return np.asarray((left[:, :, None] * right[None]).sum(1))


class Untied(Weightless):
    """The backward pass through other weights than the forward pass: gradient independence."""

    def backward(
        self, draws: Draws, delta: Tensor, coordinates: Array, recast: Recast, out: Tensor
    ) -> Tensor:
        """See ``Weights``."""
        shape = (len(coordinates), *out.shape[1:])
        fresh = draws.normals(self.space.take("fresh", out.dtype, *shape))
        return combine(fresh, recast(coordinates) * self.sigma, out, upper=True)


class Explicit(Weights):
    """Gaussian weights that are built: cheaper where there are about as many inputs as units."""

    bias_as_unit = False

    def forward(
        self, draws: Draws, x: Tensor, factor: Factor, coordinates: Array, out: Tensor
    ) -> Tensor:
        """See ``Weights``."""
        shape = (out.shape[1], out.shape[2], x.shape[2])
        self._weights = draws.normals(self.space.take(("weights", self.name), x.dtype, *shape))
        product = torch.matmul(x.transpose(0, 1), self._weights.mT)
        return torch.mul(product.transpose(0, 1), self.sigma, out=out)

    def backward(
        self, draws: Draws, delta: Tensor, coordinates: Array, recast: Recast, out: Tensor
    ) -> Tensor:
        """See ``Weights``."""
        product = torch.matmul(delta.transpose(0, 1), self._weights)
        return torch.mul(product.transpose(0, 1), self.sigma, out=out)


class Orthogonal(Weights):
    """Haar-orthogonal weights that are never built, square or with orthonormal rows or columns.

    With ``N = max(n, n')`` the weights are ``s`` times the leading ``n' x n`` block of a Haar
    matrix ``O`` of order N, ``s = sigma sqrt(N)``, so that the mean length is that of Gaussian
    weights. ``O B = Y`` is a uniform orthonormal frame, and given it

        O^T Delta = B Y^T Delta + F C,   (I - Y Y^T) Delta = P C,

    with ``P`` orthonormal and ``F`` a uniform frame in the complement of ``B``, where vectors are
    padded with zeros to N units. For ``O = Y B^T + Y' K B'^T`` with ``K`` Haar on the complements
    and independent of ``Y``, and ``F = B' K^T Y'^T P`` is such a frame.
    """

    bias_as_unit = False

    def forward(
        self, draws: Draws, x: Tensor, factor: Factor, coordinates: Array, out: Tensor
    ) -> Tensor:
        """See ``Weights``."""
        order = max(x.shape[2], out.shape[2])
        self._scale = self.sigma * math.sqrt(order)
        shape = (len(factor.coordinates), *x.shape[1:])
        basis = combine(factor.raw, factor.mix, x.new_empty(shape), upper=True)
        self._basis = _padded(basis, order)
        there = np.diagonal(factor.mix, axis1=0, axis2=1).T > 0
        self._frame = _uniform(draws, self._basis, there)
        seen = self._frame[:, :, : out.shape[2]]
        return combine(seen, coordinates * self._scale, out, upper=True)

    def backward(
        self, draws: Draws, delta: Tensor, coordinates: Array, recast: Recast, out: Tensor
    ) -> Tensor:
        """See ``Weights``."""
        width, order = out.shape[2], self._frame.shape[2]
        _, unseen, seen = frame(_padded(delta, order), self._frame)
        there = np.diagonal(unseen, axis1=0, axis2=1).T > 0
        fresh = _uniform(
            draws, delta.new_empty(len(delta), out.shape[1], order), there, self._basis
        )
        combine(self._basis[:, :, :width], seen * self._scale, out)
        return combine(fresh[:, :, :width], unseen * self._scale, out, upper=True, add=True)


def frame(vectors: Tensor, against: Tensor | None = None) -> tuple[Tensor, Array, Array]:
    """Gram-Schmidt, run twice: ``v_k = sum_j against_j seen[j, k] + basis_j coordinates[j, k]``.

    A vector of which the second run takes more than half away lies in the span of the others: zero.

    Args:
        vectors: ``[column, net, unit]``.
        against: orthonormal or zero, ``[direction, net, unit]``.

    Returns:
        The orthonormal basis, ``coordinates [column, column, net]`` and ``seen [direction, column,
        net]``.
    """
    count, nets = vectors.shape[:2]
    fixed = vectors[:0] if against is None else against
    known = torch.cat([fixed, torch.zeros_like(vectors)])
    start = len(fixed)
    coordinates = np.zeros((start + count, count, nets))
    for k in range(count):
        rest, before = vectors[k], np.zeros(nets)
        size = np.sqrt(dot(rest, rest))
        for _ in range(2 if start + k else 0):
            before = size
            along = torch.einsum("jrn,rn->jr", known[: start + k], rest)
            coordinates[: start + k, k] += along.double().cpu().numpy()
            rest = rest - torch.einsum("jr,jrn->rn", along, known[: start + k])
            size = np.sqrt(dot(rest, rest))
        size = np.where(size < before / 2, 0.0, size)
        coordinates[start + k, k] = size
        torch.mul(rest, column(inverse(size), rest), out=known[start + k])
    return known[start:], coordinates[start:], coordinates[:start]


def _uniform(
    draws: Draws, like: Tensor, there: NDArray[np.bool_], against: Tensor | None = None
) -> Tensor:
    """A uniform orthonormal frame, in the complement of another, of the directions that exist."""
    normals = draws.normals(torch.empty_like(like, memory_format=torch.contiguous_format))
    return frame(normals.mul_(column(there.astype(float), like)), against)[0]


def _padded(vectors: Tensor, units: int) -> Tensor:
    return torch.nn.functional.pad(vectors, (0, units - vectors.shape[-1]))

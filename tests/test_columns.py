"""Vectors carried as differences: products, bases and cosines keep the digits of what is small."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthscale.finite.architecture import Carried, Trace
from depthscale.finite.columns import (
    FEW,
    Chain,
    Workspace,
    combine,
    dots,
    factorise,
)
from depthscale.finite.observe import _Family
from depthscale.finite.upkeep import mend_dead

CHAINS = {
    "one": Chain((-1,), (0,)),
    "pair": Chain.star(2),
    "star": Chain.star(4),
    "line": Chain((-1, 0, 1, 2), (0, 1, 2, 3)),
    "tree": Chain((-1, 0, 0, 2, 1), (0, 3, 1, 2, 4)),
}


def space() -> Workspace:
    return Workspace(torch.device("cpu"))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("name", CHAINS)
def test_absolute_and_differences_are_inverse(name):
    chain = CHAINS[name]
    columns = normal(len(chain), 3, 7)
    vectors = chain.absolute_(columns.clone())
    expected = np.einsum("krn,kv->vrn", columns.numpy(), chain.paths)
    np.testing.assert_allclose(vectors.numpy(), expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(chain.differences_(vectors).numpy(), columns.numpy(), atol=1e-14)


@pytest.mark.parametrize("name", CHAINS)
def test_products_of_vectors_that_agree_in_all_digits(name):
    """Differences of 1e-20: relative precision in every column, by the product rule."""
    chain = CHAINS[name]
    left, right = normal(len(chain), 2, 5), normal(len(chain), 2, 5, seed=1)
    left[1:] *= 1e-20
    right[1:] *= 1e-20
    result = chain.multiply_(left.clone(), right.clone()).numpy()
    whole = {
        k: [[[mp.mpf(float(x)) for x in row] for row in v] for v in source.numpy()]
        for k, source in (("l", left), ("r", right))
    }
    mp.mp.dps = 60
    for k, parent in enumerate(chain.parents):
        for net in range(2):
            for unit in range(5):

                def vector(side, column, net=net, unit=unit):
                    total = mp.mpf(0)
                    while column >= 0:
                        total += whole[side][column][net][unit]
                        column = chain.parents[column]
                    return total

                exact = vector("l", k) * vector("r", k)
                if parent >= 0:
                    exact -= vector("l", parent) * vector("r", parent)
                assert abs(result[k, net, unit] - exact) <= 1e-14 * abs(exact)


def test_nearest_chain_joins_close_vectors():
    """Two far groups of close vectors: only one step of the tree is long."""
    rng = np.random.default_rng(2)
    groups = rng.standard_normal((2, 30))
    vectors = np.concatenate([g + 1e-9 * rng.standard_normal((3, 30)) for g in groups])[
        [0, 3, 1, 4, 2, 5]
    ]
    squares = np.square(vectors[:, None] - vectors).sum(-1)
    np.fill_diagonal(squares, np.inf)
    chain = Chain.nearest(squares)
    assert chain.order[0] == 0
    assert sorted(chain.order) == list(range(6))
    steps = [squares[chain.order[k], chain.order[p]] for k, p in enumerate(chain.parents) if k]
    assert sum(step > 1e-6 for step in steps) == 1


def orthonormal(factor) -> np.ndarray:
    raw = torch.stack(list(factor.raw)).double().numpy()
    return np.einsum("irn,ijr->jrn", raw, factor.mix)


@pytest.mark.parametrize("count", [1, 2, 3, FEW, FEW + 1, 12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_orthogonal_bases(count, dtype):
    """X = B T and B^T B = 1, relative to every column's own size, tiny columns included."""
    sizes = 10.0 ** -np.arange(count)
    columns = (normal(count, 4, 40) * torch.from_numpy(sizes)[:, None, None]).to(dtype)
    factor = factorise(columns, space(), "basis")
    basis = orthonormal(factor)
    tolerance = 50 * torch.finfo(dtype).eps
    back = np.einsum("jrn,jkr->krn", basis, factor.coordinates)
    scale = sizes[:, None, None]
    np.testing.assert_allclose(back / scale, columns.double().numpy() / scale, atol=tolerance * 4)
    gram = np.einsum("irn,jrn->ijr", basis, basis)
    np.testing.assert_allclose(gram, np.eye(count)[..., None] * np.ones(4), atol=tolerance)


def test_orthogonal_basis_of_dependent_vectors():
    """A vector in the span of earlier ones leaves norm 0, or the direction of its rounding."""
    a, b, c = normal(3, 3, 30)
    columns = torch.stack([a, a + 1e-9 * b, 3 * a, c])
    factor = factorise(columns, space(), "basis")
    back = np.einsum("jrn,jkr->krn", orthonormal(factor), factor.coordinates)
    np.testing.assert_allclose(back, columns.numpy(), atol=1e-14)
    sizes = np.diagonal(factor.coordinates, axis1=0, axis2=1).T
    assert np.all(sizes[[0, 1, 3]] > 0)
    assert np.all(sizes[2] < 1e-14)


def test_more_vectors_than_units():
    columns = normal(7, 2, 3)
    factor = factorise(columns, space(), "basis")
    assert len(factor.coordinates) == 3
    back = np.einsum("jrn,jkr->krn", orthonormal(factor), factor.coordinates)
    np.testing.assert_allclose(back, columns.numpy(), atol=1e-14)


@pytest.mark.parametrize(("left", "right"), [(2, 2), (3, 4), (6, 2), (7, 9)])
def test_products_and_combinations_by_loops_and_by_matrices(left, right):
    a, b = normal(left, 3, 20), normal(right, 3, 20, seed=1)
    expected = np.einsum("irn,jrn->ijr", a.numpy(), b.numpy())
    np.testing.assert_allclose(dots(a, b), expected, rtol=1e-12, atol=1e-13)
    weights = np.random.default_rng(3).standard_normal((left, right, 3))
    expected = np.einsum("irn,ijr->jrn", a.numpy(), weights)
    out = combine(a, weights, torch.empty_like(b)).numpy().copy()
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-13)
    added = combine(a, weights, torch.ones_like(b), add=True).numpy()
    np.testing.assert_allclose(added, expected + 1, rtol=1e-12, atol=1e-13)


def misalignments(columns: np.ndarray) -> np.ndarray:
    """Of the pair, through a basis, as the sampler reads it: ``[net]``."""
    trace = Trace(Chain.star(2))
    factor = factorise(torch.from_numpy(columns), space(), "basis")
    carried = Carried(trace.chain, factor.coordinates)
    family = _Family(trace, [carried], [np.zeros(columns.shape[1])])
    sign, log = family.misalignments([(0, 1)])
    return np.asarray(sign * np.exp(log))[:, 0, 0]


@settings(max_examples=60, deadline=None)
@given(st.floats(-40, 0), st.floats(-3, 3), st.integers(0, 1000))
def test_misalignment_against_fifty_digits(power, stretch, seed):
    """``1 - cos`` of a and a + d for d of any size, against 50-digit arithmetic, to 1e-10.

    Where d points along a up to 1e-3 the cosine is 1e-6 closer to 1 than |d| says, and six digits
    are lost: d is drawn at random, so this is rare, and allowed for by the angle.
    """
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(12) * 10.0**stretch
    d = rng.standard_normal(12) * 10.0 ** (stretch + power)
    mp.mp.dps = 120
    va = [mp.mpf(float(x)) for x in a]
    vb = [x + mp.mpf(float(y)) for x, y in zip(va, d, strict=True)]
    inner = sum(x * y for x, y in zip(va, vb, strict=True))
    sizes = mp.sqrt(sum(x * x for x in va) * sum(x * x for x in vb))
    exact = float(1 - inner / sizes)
    assert misalignments(np.stack([a, d])[:, None])[0] == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("extra", [0, 5])
def test_dead_vectors_are_exactly_nothing(extra):
    """b = a + d = 0 up to rounding, in half of the networks: columns and coordinates cancel."""
    columns = normal(2 + extra, 4, 11)
    columns[1, :2] = -columns[0, :2] * (1 + 4e-16)
    alive = columns[1, 2:].clone()
    chain = Chain.star(2 + extra)
    coordinates = factorise(columns, space(), "basis").coordinates
    dead = mend_dead(columns, coordinates, chain)
    np.testing.assert_array_equal(
        dead, [[k == 1 and r < 2 for r in range(4)] for k in range(2 + extra)]
    )
    np.testing.assert_array_equal(coordinates[:, 1, :2], -coordinates[:, 0, :2])
    np.testing.assert_array_equal(columns[1, :2], -columns[0, :2])
    np.testing.assert_array_equal(columns[1, 2:], alive)


def test_products_with_nothing_are_nothing():
    """Masks that leave nothing of an input, in a chain: no rounding of the others is left."""
    chain = Chain.star(3)
    vectors, masks = normal(3, 4, 11), normal(3, 4, 11, seed=1)
    vectors[1], masks[0] = 0, 0
    columns = chain.multiply_(chain.differences_(masks), chain.differences_(vectors))
    np.testing.assert_array_equal(chain.absolute_(columns)[:2], 0)


def test_workspace_gives_the_same_memory_by_name():
    memory = space()
    double, single = torch.float64, torch.float32
    first = memory.take("a", double, 3, 4)
    assert memory.take("a", double, 2, 5).data_ptr() == first.data_ptr()
    assert memory.take("b", double, 2, 5).data_ptr() != first.data_ptr()
    assert memory.take("a", single, 3, 4).dtype == single
    assert memory.take("a", double, 30, 5).shape == (30, 5)

r"""The chain by paths: every network's own correlation, layer by layer.

One layer draws ``z' = mean + sd (a g + b (g^2 - 1))`` with a standard normal ``g``: the exact mean,
variance and skewness of the step, with ``a^2 + 2 b^2 = 1`` and ``6 b - 4 b^3 = skewness``. The law
at one layer is had without noise from ``density``; paths are for what joins layers, such as the
first one at which a correlation is passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from depthscale.finite.chain.density import checked_layers, spread_of
from depthscale.finite.chain.plan import Hop, Route, Scatter
from depthscale.finite.diffusion.equation import CORRELATION
from depthscale.finite.diffusion.law import SampleLaw
from depthscale.theory.gaussian import Array
from depthscale.theory.piecewise import FARTHEST
from depthscale.theory.records import whole

BLOCK = 1 << 14
"""Paths that share a stream; part of what a seed means."""

_SPACING = 0.02


def chain_paths(
    route: Route,
    layers: Sequence[int] | None = None,
    *,
    paths: int,
    seed: int = 0,
    measured: bool = True,
) -> SampleLaw:
    """Independent paths of the chain.

    Parameters
    ----------
    route, layers, measured:
        See ``chain_density``.
    paths:
        How many, at least 1. The first ones of many are those of fewer.
    seed:
        A whole number, at least 0. The paths do not depend on the layers that are asked for.

    Returns
    -------
    SampleLaw
        ``u`` is ``artanh`` of the correlation, shape (layers, paths).

    Raises
    ------
    InputError
        Numbers out of range.

    Examples
    --------
    >>> law = chain_paths(Route.of("relu", [64] * 9, 0.5), [0, 8], paths=500)
    >>> bool(law.mean("rho").value[1] > law.mean("rho").value[0])
    True
    """
    asked = checked_layers(route, layers)
    paths, seed = whole("paths", paths, 1), whole("seed", seed, 0)
    u = np.empty((len(asked), paths))
    if route.certain is not None:
        u[:] = np.array(route.certain)[asked, None]
    else:
        tables: dict[Hop, Callable[[Array], Scatter]] = {}
        for start in range(0, paths, BLOCK):
            block = _block(route, asked, measured, (seed, start // BLOCK), tables)
            u[:, start : start + BLOCK] = block[:, : paths - start]
    about = f"{paths} paths of the chain in artanh rho, seed {seed}"
    return SampleLaw(np.array(asked, dtype=float), CORRELATION, u, about, explodes=False)


def _block(
    route: Route,
    asked: Sequence[int],
    measured: bool,
    key: tuple[int, int],
    tables: dict[Hop, Callable[[Array], Scatter]],
) -> Array:
    """A whole block, one row a layer that is asked for."""
    found = np.empty((len(asked), BLOCK))
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, 0))))
    z = np.full(BLOCK, route.z0)

    def through(hop: Hop, z: Array, normal: Array) -> Array:
        if z[0] == z[-1] and np.all(z == z[0]):
            return _moved(hop.scatter(z[:1]), normal)
        if hop not in tables:
            tables[hop] = _table(hop, *spread_of(route))
        return _moved(tables[hop](z), normal)

    for layer in range(max(asked) + 1):
        if layer in asked:
            scatters = measured and route.reading(layer) is not None
            values = measure(z, route.widths[layer], (*key, layer + 1)) if scatters else z
            found[[k for k, here in enumerate(asked) if here == layer]] = values
        hop = route.hop(layer)
        if hop is not None:
            normal = stream.standard_normal(BLOCK)
            first = layer == 0 and route.start == "pinned"
            z = _moved(route.pinned(), normal) if first else through(hop, z, normal)
    return found


def measure(z: Array, units: int, key: tuple[int, ...]) -> Array:
    """``artanh`` of the cosine of Gaussian units whose covariance has the correlation ``tanh z``.

    Exact: by Bartlett's triangle ``[[a, 0], [b, c]]`` of their Gram matrix in the coordinates of
    the sum and the difference, ``a^2 ~ chi2_n, c^2 ~ chi2_(n-1), b ~ N(0, 1)``.
    """
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    total, rest = stream.chisquare(units, z.shape), stream.chisquare(units - 1, z.shape)
    square = stream.standard_normal(z.shape) ** 2
    shift = np.log(total / (square + rest)) / 2
    near = np.clip(z, -FARTHEST, FARTHEST)
    after = np.arcsinh(np.sinh(near + shift) * np.sqrt(1 + square / rest))
    return np.asarray(after + (z - near))


def _moved(scatter: Scatter, normal: Array) -> Array:
    """``z'`` with the three moments; ``b = sqrt 2 sin(arcsin(skewness/sqrt 8)/3)``."""
    angle = np.arcsin(np.clip(scatter.skewness / math.sqrt(8), -1.0, 1.0)) / 3
    lean, bend = np.sqrt(np.cos(2 * angle)), math.sqrt(2) * np.sin(angle)
    return np.asarray(scatter.mean + scatter.sd * (lean * normal + bend * (normal**2 - 1)))


def _table(hop: Hop, low: float, high: float) -> Callable[[Array], Scatter]:
    """The scatter of a hop by cubic splines; outside of their range as it is."""
    from scipy.interpolate import CubicSpline

    nodes = np.linspace(low, high, math.ceil((high - low) / _SPACING) + 1)
    spline = CubicSpline(nodes, np.stack(hop.scatter(nodes), axis=1))

    def scatter(z: Array) -> Scatter:
        mean, sd, skewness = spline(z).T
        outside = (z < low) | (z > high)
        if outside.any():
            mean[outside], sd[outside], skewness[outside] = hop.scatter(z[outside])
        return Scatter(mean, np.maximum(sd, 0.0), skewness)

    return scatter

r"""The law of the chain on a grid: deterministic, and as cheap for a thousand networks as for one.

The densities of successive layers are ``p'(z') = integral K(z' | z) p(z) dz``. All of them are
smooth on the scale of one layer's scatter, and the trapezoidal rule on an even grid in ``z`` then
errs by ``exp(-2 pi^2 (sd/h)^2)``: two nodes a deviation leave nothing, and what is left is
the interpolation between nodes when quantiles are read. The kernel is a gamma law with the mean,
variance and skewness of the step: positive, and its fourth cumulant has the right order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthscale.answers import InputError
from depthscale.finite.chain.plan import Hop, Route, Scatter
from depthscale.finite.diffusion.equation import CORRELATION
from depthscale.finite.diffusion.grid import Grid
from depthscale.finite.diffusion.law import DensityLaw
from depthscale.theory.gaussian import Array
from depthscale.theory.piecewise import PiecewiseLinear, Step
from depthscale.theory.records import as_number, whole

NODES = 2.5
"""Nodes of the fine grid in one standard deviation of the narrowest scatter."""

_REACH = 9.0
_STEEPEST = 1.5
_NEGLIGIBLE = 1e-22
_LOST = 1e-9
_MOST = 40_000
_LARGEST_KERNEL = 4e6
"""Transition probabilities that a kernel may hold: 32 megabytes."""


def chain_density(
    route: Route,
    layers: Sequence[int] | None = None,
    *,
    measured: bool = True,
    nodes: float = NODES,
) -> DensityLaw:
    """The law of the correlation at every layer of a network of two slopes.

    Parameters
    ----------
    route:
        The network; ``Route.of(activation, widths, eps0)``.
    layers:
        Which layers, from 0; default all of them.
    measured:
        Whether the cosine of the units is meant, or the correlation of their covariance (see
        ``plan``).
    nodes:
        Of the fine grid, in a standard deviation of the narrowest layer.

    Returns
    -------
    DensityLaw
        Its times are the layers. Its errors are those of the grid; the expansion in 1/n leaves
        out what is smaller by another ``1/n^3`` a layer, and networks that die (relu: all units
        of a layer below 0, ``2^-n``).

    Raises
    ------
    InputError
        Layers that the network does not have, ``nodes`` outside [1, 100], or layers so wide, from
        1e9 or so, that nothing scatters.

    Examples
    --------
    >>> law = chain_density(Route.of("relu", [256] * 101, 1.0), [100])
    >>> [round(float(rho), 3) for rho in law.quantiles().value[0]]
    [0.988, 0.995, 0.998, 0.999, 1.0]
    """
    asked = checked_layers(route, layers)
    if not 1 <= as_number("nodes", nodes) <= 100:
        raise InputError(f"nodes = {nodes!r}: expected a number from 1 to 100")
    fine, coarse = _run(route, asked, measured, (nodes, nodes / 2))
    points = max(grid.u.size for grid in fine)
    return DensityLaw(
        np.array(asked, dtype=float),
        CORRELATION,
        tuple(fine),
        tuple(coarse),
        f"chain in artanh rho, {points} nodes, moments of a layer to order 1/n^{route.order}",
    )


def checked_layers(route: Route, layers: Sequence[int] | None) -> list[int]:
    """The layers that are asked for; ``InputError`` where the network has none such."""
    if layers is None:
        return list(range(route.depth + 1))
    if not np.size(layers):
        raise InputError("no layers were asked for: expected at least one")
    asked = [whole("layer", layer, 0) for layer in np.atleast_1d(layers).tolist()]
    if max(asked) > route.depth:
        raise InputError(f"layer {max(asked)}: expected layers from 0 to {route.depth}")
    return asked


def _run(
    route: Route, asked: Sequence[int], measured: bool, nodes: Sequence[float]
) -> list[list[Grid]]:
    """One grid for each layer that is asked for, at each fineness."""
    certain = route.certain
    if certain is not None:
        return [[Grid(np.array([certain[layer]]), np.ones(1)) for layer in asked] for _ in nodes]
    wider = 1.0
    while True:
        window = _window(route, wider)
        found = [
            _propagated(route, asked, measured, fineness, max(nodes), window) for fineness in nodes
        ]
        if all(grid.total > 1 - _LOST for grids in found for grid in grids.values()):
            return [[grids[layer] for layer in asked] for grids in found]
        wider *= 1.5


def _propagated(
    route: Route, asked: Sequence[int], measured: bool, nodes: float, finest: float, about: _Window
) -> dict[int, Grid]:
    window = about.grid(nodes, finest)
    found: dict[int, Grid] = {}
    steps: dict[PiecewiseLinear, Step] = {}
    kernels: dict[Hop, Kernel] = {}
    again = Counter(route.hop(k) for k in range(route.depth))
    again.update(route.reading(k) for k in asked)
    state = Grid(np.array([route.z0]), np.ones(1))

    def kernel(hop: Hop) -> Kernel:
        """On the window; kept where another layer needs it too."""
        if hop in kernels:
            return kernels[hop]
        if hop.phi not in steps:
            steps[hop.phi] = hop.phi.step(window)
        found = Kernel.of(hop.behind(steps[hop.phi]), window)
        if again[hop] > 1:
            kernels[hop] = found
        return found

    def through(hop: Hop, state: Grid) -> Grid:
        if state.u.size == 1:
            return _own_grid(hop.scatter(state.u), nodes)
        if state.u.size == window.size and state.u[0] == window[0]:
            return Grid(window, kernel(hop)(state.p))
        return Grid(window, Kernel.of(hop.scatter(state.u), window)(state.p))

    for layer in range(max(asked) + 1):
        if layer in asked:
            reading = route.reading(layer) if measured else None
            found[layer] = _trimmed(state if reading is None else through(reading, state))
        hop = route.hop(layer)
        if hop is not None:
            first = layer == 0 and route.start == "pinned"
            state = _own_grid(route.pinned(), nodes) if first else through(hop, state)
    return found


@dataclass(frozen=True)
class Kernel:
    """The transition probabilities from nodes to a band of the nodes of ``window``.

    Attributes
    ----------
    first:
        Index of the first target of every source, shape (N,); targets outside the window are lost.
    weight:
        Shape (N, band).
    size:
        Number of targets.
    """

    first: NDArray[np.int64]
    weight: Array
    size: int

    @classmethod
    def of(cls, scatter: Scatter, window: Array) -> Kernel:
        """The law of ``scatter`` at the nodes of an even ``window``."""
        step = (window[-1] - window[0]) / (window.size - 1)
        # what is narrower than the grid is as good as a jump
        sd = np.maximum(scatter.sd, 0.6 * step)
        reach = (_REACH + 6 * np.minimum(np.abs(scatter.skewness), _STEEPEST)) * sd
        first = np.floor((scatter.mean - reach - window[0]) / step).astype(np.int64)
        band = min(int(2 * reach.max() / step) + 2, window.size)
        first = np.clip(first, -band, window.size)
        places = window[0] + (first[:, None] + np.arange(band)) * step
        x = (places - scatter.mean[:, None]) / sd[:, None]
        weight = _density(x, scatter.skewness[:, None])
        weight /= weight.sum(axis=1, keepdims=True)
        return cls(first + band, weight, window.size)

    def __call__(self, p: Array) -> Array:
        """Probabilities of the targets from those of the sources."""
        alive = np.flatnonzero(p > _NEGLIGIBLE)
        few = slice(alive[0], alive[-1] + 1)
        weight = self.weight[few]
        band = weight.shape[1]
        index = self.first[few, None] + np.arange(band)
        sums = np.bincount(
            index.ravel(), (p[few, None] * weight).ravel(), minlength=self.size + 2 * band
        )
        return np.asarray(sums[band : band + self.size])


def _density(x: Array, skewness: Array) -> Array:
    """Of a gamma law of mean 0, variance 1 and this skewness, up to a factor.

    ``(1 + y)^(k - 1) e^(-k y)`` with ``y = skewness x/2`` and ``k = 4/skewness^2``.
    """
    skewness = np.clip(skewness, -_STEEPEST, _STEEPEST)
    bent = np.abs(skewness) > 1e-6
    steep = np.where(bent, skewness, 1.0)
    y = np.maximum(steep * x / 2, -1 + 1e-12)
    shape = 4 / steep**2
    logarithm = np.where(bent, (shape - 1) * np.log1p(y) - shape * y, -(x**2) / 2)
    top = logarithm.max(axis=1, keepdims=True)
    return np.asarray(np.exp(logarithm - top))


def _own_grid(scatter: Scatter, nodes: float) -> Grid:
    """The law behind a single ``z`` on a grid of its own."""
    sd = float(scatter.sd[0])
    if sd == 0:
        return Grid(scatter.mean, np.ones(1))
    half = math.ceil((_REACH + 6 * min(abs(float(scatter.skewness[0])), _STEEPEST)) * nodes)
    grid = np.asarray(float(scatter.mean[0]) + np.arange(-half, half + 1) * (sd / nodes), float)
    return Grid(grid, Kernel.of(scatter, grid)(np.ones(1)))


class _Window(NamedTuple):
    """Where the law lies at all layers, and the narrowest and widest scatter about the middle."""

    low: float
    high: float
    sd: float
    widest: float

    def grid(self, nodes: float, finest: float) -> Array:
        """Even, with so many nodes in the narrowest scatter; fewer where the finest has too many.

        All grids are then coarser by the same factor, and still tell their error.
        """
        span = self.high - self.low
        most = math.sqrt(_LARGEST_KERNEL * span / (4 * _REACH * self.widest))
        cells = min(span * finest / self.sd, most, _MOST)
        if self.widest < 0.6 * span / cells:
            raise InputError(
                f"layers this wide scatter artanh rho by {self.widest:.2g}, too little for a grid"
                f" over {span:.3g}: take the infinite width, MeanField"
            )
        count = math.ceil(cells * nodes / finest) + 1
        return np.asarray(self.low + np.arange(count) * ((self.high - self.low) / (count - 1)))


def _window(route: Route, wider: float) -> _Window:
    """From the middle and the ends of the law, layer by layer.

    Ends ``low`` and ``high`` of the law go through the map of a layer as they are, and its scatter
    adds to their distance from the middle as the square root of a sum of squares.
    """
    reach = wider * (_REACH + 1)
    low = middle = high = route.z0
    ends: list[tuple[float, float]] = []
    hops: set[Hop] = set()
    for layer in range(route.depth + 1):
        hop, reading = route.hop(layer), route.reading(layer)
        if low < high:  # what starts from a point has a grid of its own
            hops |= {each for each in (hop, reading) if each is not None}
            ends.append((low, high))
            if reading is not None:
                ends.append(_spread(reading, low, middle, high, reach)[::2])
        if hop is not None:
            low, middle, high = _spread(hop, low, middle, high, reach)
    if not ends:
        return _Window(-1.0, 1.0, 1.0, 1.0)
    first, last = min(low for low, _ in ends), max(high for _, high in ends)
    inside = np.linspace(first, last, 101)[25:76]
    sds = np.array([hop.scatter(inside).sd for hop in hops])
    narrow, wide = float(sds.min()), float(sds.max())
    return _Window(first, last, max(narrow, 1e-3 * wide), wide)


def spread_of(route: Route) -> tuple[float, float]:
    """The ``z`` between which the law lies at all layers behind the first."""
    window = _window(route, 1.0)
    return window.low, window.high


def _spread(
    hop: Hop, low: float, middle: float, high: float, reach: float
) -> tuple[float, float, float]:
    """Ends and middle of the law behind a layer."""
    span = np.concatenate([np.linspace(low, middle, 5), np.linspace(middle, high, 5)[1:]])
    after = hop.scatter(span)
    centre, noise = float(after.mean[4]), reach * float(after.sd.max())
    below, above = centre - float(after.mean.min()), float(after.mean.max()) - centre
    return centre - math.hypot(below, noise), centre, centre + math.hypot(above, noise)


def _trimmed(grid: Grid) -> Grid:
    """Without the nodes that nothing reaches; densities at nodes turned into masses of cells."""
    if grid.u.size == 1:
        return grid
    alive = np.flatnonzero(grid.p > 1e-17)
    few = slice(max(alive[0] - 3, 0), alive[-1] + 4)
    p = np.pad(grid.p[few], 1)
    cells = p[1:-1] + (p[:-2] - 2 * p[1:-1] + p[2:]) / 24
    return replace(grid, u=grid.u[few], p=np.maximum(cells, 0.0))

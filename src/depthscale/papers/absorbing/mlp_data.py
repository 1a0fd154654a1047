"""What the claims on fully connected networks rest on: exact maps, random networks, a control."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.finite.finite_size import FiniteSizeLaw
from depthscale.finite.lyapunov import (
    LyapunovExponent,
    MeasuredBoundary,
    lyapunov_exponent,
    measured_boundary,
)
from depthscale.papers.absorbing.runs import Runs, seed
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.transition import AbsorbingTransition, absorbing_transition

IntArray = NDArray[np.signedinteger[Any]]

SIGMA_B = 0.3
ANALYTIC = ("tanh", "erf", "sin", "cos", "gaussian", "sigmoid")
"""The paper's three, and three more: one that is even, a bump, one with a mean output."""

CURVED = ("softsign", "elu")
"""Smooth as far as the class goes, with a jump in curvature."""

KINKED = ("hardtanh", "relu6")

X = np.array([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0])
"""``gamma (sigma_w - sigma_wc) l`` at which maps are held against the scaling function."""

DEPTHS = (50, 150, 500, 1500)
FAR = (5_000, 20_000)
"""Layers between which exponents and logarithms of the exact map are taken."""

WIDTHS = (64, 128, 256, 512, 1024)
NETS = {64: 12_000, 128: 6_000, 256: 3_000, 512: 800, 1024: 160}
TIMES = (0.2, 0.5, 1.0, 2.0)
"""``l/n`` at which sizes are compared."""

DETUNED = (-3.0, -1.0, 0.0, 1.0, 3.0)
DETUNED_WIDTH, DETUNED_DEPTH, DETUNED_NETS = 256, 128, 250

LATE_WIDTH, LATE_NETS = 64, 3_000
LATE_TIMES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

EXPONENT_WIDTHS = (50, 100, 200)
BOUNDARY_WIDTHS = (12, 16, 32, 64, 128, 256)
NARROW = (8, 12, 16)
"""Widths at which the exponent is followed far into where chaos would be."""
NARROW_WEIGHTS = (1.0, 1.2, 1.5, 1.8, 2.1, 2.4, 2.8, 3.4, 4.2, 5.0)
"""Over the critical ones."""

_KEPT = 2_000_000
"""Networks times layers that are held at a time."""

SITES = (64, 256, 1024, 4096)


@cache
def transition(name: str) -> AbsorbingTransition:
    """That of an activation at ``SIGMA_B``."""
    return absorbing_transition(name, sigma_b=SIGMA_B)


# Infinite width -----------------------------------------------------------------------------------


@cache
def exact_path(name: str, sigma_w: float, depth: int) -> Array:
    """``eps`` after 0, 1, .. layers of the exact map from ``eps = 1``, shape (depth + 1,).

    The map is tabulated at 400 misalignments, with splines that err by 1e-8 between them.
    """
    from scipy.interpolate import CubicSpline

    layer = transition(name).network(sigma_w)
    logs = np.linspace(math.log(1e-13), math.log(1.2), 400)
    grown = CubicSpline(logs, np.log(layer.gap_map(np.exp(logs))) - logs)
    path = [0.0]
    for _ in range(depth):
        path.append(path[-1] + float(grown(path[-1])))
    return np.exp(path)


def scaled_by_detuning(name: str, depth: int, x: Array = X) -> Array:
    """``z = (beta A l)^(1/beta) eps`` of the exact map at each ``x``."""
    own = transition(name)
    gamma, beta = float(own.gamma), float(own.map_beta)
    weights = float(own.sigma_w) + x / (gamma * depth)
    ends = np.array([exact_path(name, float(w), depth)[-1] for w in weights])
    return np.asarray((beta * float(own.curvature) * depth) ** (1 / beta) * ends)


def off_curve(name: str, depth: int) -> Array:
    """``z`` over the scaling function, less 1, at each of ``X``."""
    own = transition(name)
    return np.asarray(scaled_by_detuning(name, depth) / own.scaling_in_detuning(X) - 1)


# Random networks ----------------------------------------------------------------------------------


@cache
def pairs(
    runs: Runs, name: str, sigma_w: float, n: int, layers: tuple[int, ...], nets: int
) -> Array:
    """``eps`` of every network at the layers asked for, from orthogonal signals, [layer, net]."""
    own = transition(name)
    layer, depth = own.network(sigma_w), max(layers)
    networks = Ensemble.of([layer] * depth, [n] * (depth + 1))
    pair = Pair(1.0, float(own.q), float(own.q), "drawn")
    count, most, parts = runs.count(nets), max(_KEPT // depth, 1), []
    for first in range(0, count, most):
        run = networks.forward(
            pair,
            min(most, count - first),
            seed("mlp", name, sigma_w, n, depth, first),
            keep=True,
            observe=(),
            workers=runs.workers,
            progress=False,
        )
        parts.append(run.values("eps")[:, 0, list(layers)].T)
    return np.concatenate(parts, axis=1)


class Sized(NamedTuple):
    """Critical networks of one width.

    ``s`` is their depth in widths, by the misalignment of infinite width, ``1/(A n eps_inf)``,
    which takes its logarithms out; ``y = n eps``, [layer, net].
    """

    n: int
    layers: Array
    s: Array
    y: Array


def cutoff(sample: Sized, networks: IntArray) -> float:
    """Layers at which the median of these networks is half of ``eps`` at infinite width."""
    curvature = float(transition("tanh").curvature)
    ratio = curvature * sample.s * np.median(sample.y[:, networks], axis=1)
    first = int(np.flatnonzero(ratio < 0.5)[0])
    logs = np.log(sample.layers[first - 1 : first + 1])
    return float(np.exp(np.interp(-0.5, -ratio[first - 1 : first + 1], logs)))


def widths(runs: Runs) -> tuple[int, ...]:
    """Those that are sampled."""
    return WIDTHS[:3:2] if runs.quick else WIDTHS


def depths(runs: Runs) -> tuple[int, ...]:
    """Those at which maps are held against the scaling function."""
    return DEPTHS[:3] if runs.quick else DEPTHS


def detuned_names(runs: Runs) -> tuple[str, ...]:
    """Activations of which detuned networks are sampled."""
    return ANALYTIC[::4] if runs.quick else ANALYTIC


def detunings(runs: Runs) -> tuple[float, ...]:
    """Theirs."""
    return DETUNED[1::2] if runs.quick else DETUNED


def late_times(runs: Runs) -> tuple[float, ...]:
    """``l/n`` at which late decay is followed."""
    return LATE_TIMES[:5] if runs.quick else LATE_TIMES


def boundary_widths(runs: Runs) -> tuple[int, ...]:
    """Those whose boundary is measured."""
    return (64,) if runs.quick else BOUNDARY_WIDTHS


@cache
def sized(runs: Runs, n: int) -> Sized:
    """Networks of tanh at the critical point of infinite width, at 60 layers up to 2n."""
    own = transition("tanh")
    curvature, weights = float(own.curvature), float(own.sigma_w)
    wanted = {round(t * n) for t in TIMES}
    spread = {round(x) for x in np.geomspace(8, 2 * n, 56)}
    layers = tuple(sorted(wanted | spread))
    eps = pairs(runs, "tanh", weights, n, layers, NETS[n])
    at_infinity = exact_path("tanh", weights, max(layers))[list(layers)]
    return Sized(n, np.array(layers), 1 / (curvature * n * at_infinity), n * eps)


@cache
def limit_law(times: tuple[float, ...], detuning: float = 0.0) -> FiniteSizeLaw:
    """The law of tanh."""
    return FiniteSizeLaw(transition("tanh"), times, detuning)


@cache
def late(runs: Runs, critical: bool) -> Array:
    """``y = n eps`` at late times of narrow tanh networks, [time, net].

    At the boundary of their own width, or at that of infinite width.
    """
    n = LATE_WIDTH
    weights = boundary(runs, "tanh", n).sigma_w if critical else float(transition("tanh").sigma_w)
    layers = tuple(round(t * n) for t in late_times(runs))
    return n * pairs(runs, "tanh", weights, n, layers, LATE_NETS)


class Cell(NamedTuple):
    """Mean of ``eps`` over that of infinite width, its error, and that of ``F(x, s)``."""

    found: float
    error: float
    law: float


@cache
def detuned(runs: Runs, name: str) -> tuple[Cell, ...]:
    """Networks at each detuning."""
    own = transition(name)
    n, depth = DETUNED_WIDTH, DETUNED_DEPTH
    cells = []
    for x in detunings(runs):
        weights = float(own.sigma_w) + x / (float(own.gamma) * depth)
        eps = pairs(runs, name, weights, n, (depth,), DETUNED_NETS)[0]
        scale = exact_path(name, weights, depth)[-1]
        law = float(own.scaling(x, depth / n) / own.scaling_in_detuning(x))
        error = float(eps.std() / math.sqrt(eps.size))
        cells.append(Cell(float(eps.mean() / scale), error / scale, law))
    return tuple(cells)


# Lyapunov exponents -------------------------------------------------------------------------------


def _followed(runs: Runs) -> int:
    """Layers that are averaged over."""
    return 60 if runs.quick else 300


@cache
def exponent(runs: Runs, name: str, n: int) -> LyapunovExponent:
    """At the critical point of infinite width."""
    layer: MeanField = transition(name).network()
    nets = runs.count(2048, 64)
    followed = _followed(runs)
    return lyapunov_exponent(layer, n, layers=followed, nets=nets, seed=seed("exponent", name, n))


@cache
def narrow(runs: Runs, n: int) -> LyapunovExponent:
    """Of tanh at ``NARROW_WEIGHTS`` times the critical weights."""
    own = transition("tanh")
    weights = float(own.sigma_w) * np.array(NARROW_WEIGHTS)
    nets = runs.count(512, 64)
    return lyapunov_exponent(
        own.network(), n, weights, layers=_followed(runs), nets=nets, seed=seed("narrow", n)
    )


@cache
def boundary(runs: Runs, name: str, n: int) -> MeasuredBoundary:
    """Where the exponent of networks changes sign."""
    nets = runs.count(1536 if n <= 64 else 256, 64)
    found = measured_boundary(
        name, SIGMA_B, n, layers=_followed(runs), nets=nets, seed=seed("boundary", name, n)
    )
    assert isinstance(found, MeasuredBoundary), found
    return found


# A control: mean-field directed percolation ------------------------------------------------------


class Contact(NamedTuple):
    """Sites of which a share is active: the mean of ``rho`` over that of infinitely many."""

    sites: int
    steps: IntArray
    ratio: Array


@cache
def contact(runs: Runs, sites: int) -> Contact:
    """Critical mean-field directed percolation.

    ``I' ~ Binomial(N, 1 - exp(-I/N))`` from all sites active: ``rho' = rho - rho^2/2 + ..``, the
    map of smooth networks, with noise ``sqrt(rho/N)``.
    """
    stream = np.random.default_rng(seed("contact", sites))
    active = np.full(runs.count(20_000, 400), sites)
    steps = round(8 * math.sqrt(sites))
    rho, ratio = 1.0, []
    for _ in range(steps):
        active = stream.binomial(sites, -np.expm1(-active / sites))
        rho = -math.expm1(-rho)
        ratio.append(active.mean() / (sites * rho))
    return Contact(sites, np.arange(1, steps + 1), np.array(ratio))

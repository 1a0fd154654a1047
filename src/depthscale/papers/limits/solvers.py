"""Claims on our own solvers: the density against exact laws, orders of convergence of paths."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from depthscale.finite.diffusion.alignment_paths import sample_unshaped
from depthscale.finite.diffusion.covariance import STEPS, sample_covariance
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.law import DensityLaw
from depthscale.finite.diffusion.paths import plan, sample
from depthscale.finite.diffusion.programs import Room
from depthscale.finite.diffusion.shaped import LinearPair, ShapedReLU
from depthscale.finite.diffusion.unshaped import Unshaped
from depthscale.papers.claims import Claim
from depthscale.papers.judging import Measured, listed, measured, near
from depthscale.papers.limits.common import COVARIANCE
from depthscale.papers.limits.runs import Runs
from depthscale.papers.limits.unshaped import equation
from depthscale.theory.gaussian import Array

WHERE = "the solvers that the other claims rest on"
BENT = ShapedReLU(3.0, 0.0)
"""Strongly bent, so that few steps err visibly."""

PATHS = 4_000_000
FINEST = 256


def our_solvers(runs: Runs) -> list[Claim]:
    """Density, exact moves, weak and strong orders."""
    return [
        *_densities(),
        _exact_moves(runs),
        _strong(runs),
        _coupled_weak(runs),
        _positive(runs),
        *_triangular(runs),
    ]


@cache
def bent_law() -> DensityLaw:
    """Of orthogonal inputs, at t = 1."""
    return density(BENT, 0.0, [1.0], tolerance=1e-5)


def _densities() -> list[Claim]:
    start, time = math.atanh(0.3), 0.5
    exact = LinearPair(start, time)
    law = density(ShapedReLU(0.0, 0.0), start, [time])
    z = np.linspace(-3.0, 4.0, 281)
    apart = float(np.abs(law.pdf(z, "z")[0] - exact.pdf(z)).max())
    sinh = float(law.expectation(lambda u, t: np.sinh(u)).value[0])
    return [
        Claim.number(
            COVARIANCE,
            "ours",
            WHERE,
            "the density equation against the exact density of two inputs of linear networks"
            " (hyperbolic heat kernel): largest difference",
            0.0,
            apart,
            1e-5,
            "interpolation between cells",
            f"rho_0 = 0.3, t = {time}; {law.solver}",
        ),
        Claim.number(
            COVARIANCE,
            "ours",
            WHERE,
            "its error of a mean: E sinh z = e^t sinh z_0 of linear networks",
            exact.mean_sinh,
            sinh,
            1e-5,
            "the tolerance of the density is 1e-6 in probability, and sinh has a long tail",
        ),
    ]


def _exact_moves(runs: Runs) -> Claim:
    paths = sample(BENT, 0.0, [0.5, 1.0], paths=runs.count(PATHS // 10), seed=4)
    return near(
        COVARIANCE,
        "ours",
        WHERE,
        "exact moves between recorded times have the law of the density equation:"
        " Kolmogorov-Smirnov distance at t = 1",
        bent_law().distance(paths.u[1], 0, "z"),
        paths.u.shape[1],
        0.004,
        "twice the noise of 400,000 paths",
        "Dc = 3, from rho = 0, with a stop at t = 0.5",
    )


def _order(
    what: str, off: Array, errors: Array, steps: tuple[int, int], why: str, note: str = ""
) -> Claim:
    """The weak order that two errors, at twice the steps, show."""
    relative = errors / np.abs(off)
    return measured(
        COVARIANCE,
        "ours",
        WHERE,
        f"weak order 2: {what}",
        2.0,
        Measured(math.log2(abs(off[0] / off[1])), float(np.hypot(*relative)) / math.log(2)),
        0.5,
        why,
        f"off by {listed(off, 3)} with {steps[0]} and {steps[1]} steps{note}",
    )


def _positive(runs: Runs) -> Claim:
    steps, count = (2, 4), runs.count(PATHS)
    exact = float(density(Unshaped(equation()), math.inf, [1.0]).mean("log_q").value[0])
    found = [
        sample_unshaped(equation(), math.inf, [1.0], paths=count, seed=2, steps=k).mean("log_q")
        for k in steps
    ]
    return _order(
        "the positive splitting, mean log q of ReLU networks from infinity at t = 1",
        np.array([float(f.value[0]) - exact for f in found]),
        np.array([float(f.error[0]) for f in found]),
        steps,
        "few steps, beyond which noise hides the error",
    )


def _triangular(runs: Runs) -> list[Claim]:
    linear, rho0, steps = ShapedReLU(0.0, 0.0), 0.3, (2, 4)
    gram = [[1.0, rho0], [rho0, 1.0]]
    exact = float(density(linear, math.atanh(rho0), [1.0]).mean("rho").value[0])

    def error(count: int, paths: int) -> Measured:
        law = sample_covariance(linear, gram, [1.0], runs.count(paths), seed=3, steps=count)
        mean = law.correlation(0, 1).mean("rho")
        return Measured(float(mean.value[0]) - exact, float(mean.error[0]))

    off, errors = np.array([error(count, PATHS) for count in steps]).T
    usual = error(STEPS, PATHS // 4)
    return [
        _order(
            "the triangular splitting of the covariance of two inputs, mean correlation in linear"
            " networks at t = 1, at few steps",
            off,
            errors,
            steps,
            "the errors that can be seen at all",
            "; between them the error falls more slowly than as the square of the step",
        ),
        measured(
            COVARIANCE,
            "ours",
            WHERE,
            f"the triangular splitting at its usual {STEPS} steps has the mean correlation of"
            " linear networks at t = 1",
            exact,
            Measured(exact + usual.value, usual.error),
            0.004,
            "less than a hundredth of the standard deviation",
            f"off by {usual.value:.2g}",
        ),
    ]


def coupled(paths: int, counts: tuple[int, ...], seed: int) -> Array:
    """Ends ``z`` at t = 1, ``[count, path]``, of so many steps with one noise, last the finest."""
    finest, stream = counts[-1], torch.Generator().manual_seed(seed)
    noise = torch.randn(finest, paths, generator=stream)
    ends = torch.empty(len(counts), paths, dtype=torch.float64)
    for count, end in zip(counts, ends, strict=True):
        sums = noise.reshape(count, finest // count, paths).sum(1) * math.sqrt(count / finest)
        rows = iter(sums)

        def fill(xi: Tensor, rows: Iterator[Tensor] = rows) -> Tensor:
            return xi.copy_(next(rows))

        plan(BENT, 0.0, [1.0], steps=count).program.run(fill, Room(paths), end[None])
    return ends.numpy()


def strong_errors(paths: int) -> Array:
    """Mean distance of paths of 4, 8 and 16 steps to those of ``FINEST`` with the same noise."""
    ends = coupled(paths, (4, 8, 16, FINEST), 5)
    return np.asarray(np.abs(ends[:-1] - ends[-1]).mean(axis=1))


def _coupled_weak(runs: Runs) -> Claim:
    steps = (4, 8)
    squares = np.tanh(coupled(runs.count(400_000), (*steps, 2 * steps[1]), 3)) ** 2
    apart = squares[:-1] - squares[1:]
    return _order(
        "the Strang splitting, mean square correlation of shaped networks (Dc = 3) at t = 1",
        apart.mean(axis=1),
        apart.std(axis=1) / math.sqrt(apart.shape[1]),
        steps,
        "the next order, and three standard errors",
        ", each against twice as many with the same noise",
    )


def _strong(runs: Runs) -> Claim:
    errors = strong_errors(runs.count(50_000))
    order = math.log2(errors[1] / errors[2])
    return Claim.number(
        COVARIANCE,
        "ours",
        WHERE,
        "strong order of the Strang splitting, from 8 and 16 steps against 256 with the same noise",
        1.0,
        order,
        0.1,
        "the next order at 8 steps; the sampling error is below 0.01",
        f"mean distance of z at t = 1 {listed(errors, 3)} with 4, 8 and 16 steps, Dc = 3",
    )

"""Claims on our own solvers: the density against exact laws, orders of convergence of paths."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from depthscale.finite.diffusion.alignment_paths import sample_unshaped
from depthscale.finite.diffusion.covariance import sample_covariance
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.law import DensityLaw, Estimate
from depthscale.finite.diffusion.paths import plan, sample
from depthscale.finite.diffusion.programs import Room
from depthscale.finite.diffusion.shaped import LinearPair, ShapedReLU
from depthscale.finite.diffusion.unshaped import Unshaped
from depthscale.papers.claims import Claim
from depthscale.papers.limits.common import COVARIANCE, Measured, listed, measured, near
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
        _weak(
            "Strang splitting, mean correlation of shaped networks (Dc = 3) at t = 1",
            lambda steps: sample(
                BENT, 0.0, [1.0], paths=runs.count(PATHS), seed=1, steps=steps
            ).mean("rho"),
            float(bent_law().mean("rho").value[0]),
            (1, 2),
        ),
        _weak(
            "positive splitting, mean log q of ReLU networks from infinity at t = 1",
            lambda steps: sample_unshaped(
                equation(), math.inf, [1.0], paths=runs.count(PATHS), seed=2, steps=steps
            ).mean("log_q"),
            float(density(Unshaped(equation()), math.inf, [1.0]).mean("log_q").value[0]),
            (2, 4),
        ),
        _weak(
            "triangular splitting of the covariance of two inputs, deviation of their correlation"
            " (Dc = 3) at t = 1",
            lambda steps: (
                sample_covariance(
                    BENT, np.eye(2), [1.0], runs.count(PATHS // 4), seed=3, steps=steps
                )
                .correlation(0, 1)
                .sd("rho")
            ),
            float(bent_law().sd("rho").value[0]),
            (2, 4),
        ),
        _strong(runs),
    ]


@cache
def bent_law() -> DensityLaw:
    """Of orthogonal inputs, at t = 1."""
    return density(BENT, 0.0, [1.0])


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


def _weak(
    what: str, answer: Callable[[int], Estimate], exact: float, steps: tuple[int, int]
) -> Claim:
    found = [answer(count) for count in steps]
    off = np.array([float(f.value[0]) - exact for f in found])
    relative = np.array([float(f.error[0]) for f in found]) / np.abs(off)
    order = math.log2(abs(off[0] / off[1]))
    return measured(
        COVARIANCE,
        "ours",
        WHERE,
        f"weak order of the {what}",
        2.0,
        Measured(order, float(np.hypot(*relative)) / math.log(2)),
        0.5,
        "steps of order one, beyond which nothing is left to see",
        f"off by {listed(off, 3)} with {steps[0]} and {steps[1]} steps",
    )


def strong_errors(paths: int, counts: tuple[int, ...] = (4, 8, 16)) -> Array:
    """Mean distance of paths at t = 1 to those of ``FINEST`` steps with the same noise."""
    stream = torch.Generator().manual_seed(5)
    noise = torch.randn(FINEST, paths, generator=stream)
    ends = {}
    for count in (*counts, FINEST):
        sums = noise.reshape(count, FINEST // count, paths).sum(1) * math.sqrt(count / FINEST)
        rows = iter(sums)

        def fill(xi: Tensor, rows: object = rows) -> Tensor:
            return xi.copy_(next(rows))  # type: ignore[call-overload]

        out = torch.empty(1, paths, dtype=torch.float64)
        plan(BENT, 0.0, [1.0], steps=count).program.run(fill, Room(paths), out)
        ends[count] = out[0]
    return np.array([float((ends[count] - ends[FINEST]).abs().mean()) for count in counts])


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

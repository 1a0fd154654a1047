"""Claims on schedules: the surrogate, the exact recursion, rank flow and reach."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from depthscale.papers.claims import Claim
from depthscale.papers.dropout.common import PRINTED, claim, number, relu_map, verdict_if
from depthscale.theory.universal.reach import (
    effective_rank,
    reach_ratio,
    reach_weights,
    surrogate_depth_scale,
)

if TYPE_CHECKING:
    from depthscale.theory.gaussian import Array


def schedules() -> list[Claim]:
    """Surrogate and exact recursion on the same schedules: ReLU, six layers, mean p = 0.1."""
    front, uniform, back = ([0.2] * 3 + [0.0] * 3, [0.1] * 6, [0.0] * 3 + [0.2] * 3)
    grid = np.array(
        [s for s in itertools.product((0, 1, 2, 3, 4), repeat=6) if sum(s) == 12], dtype=float
    )
    grid *= 0.05
    law = relu_map().law(0.0, 0.0)
    surrogate = np.mean(np.cbrt(grid), axis=1)
    exact = {
        name: _exact(np.array([s]))[:, 0]
        for name, s in (("front", front), ("uniform", uniform), ("back", back))
    }
    noise, loss, exposure, rank = _exact(grid)
    xi = [surrogate_depth_scale(law, s) for s in (front, uniform, back)]

    def listed(row: int) -> str:
        return ", ".join(f"{name} {values[row]:.6g}" for name, values in exact.items())

    where = "schedules (ReLU, 6 layers, mean p = 0.1)"
    last = "the recursion is exact to 1e-10"
    return [
        number(
            "both",
            where,
            "by the surrogate the uniform schedule is the worst: its mean h^(1/3) over the worst of"
            f" {len(grid)} schedules",
            1.0,
            0.1 ** (1 / 3) / float(surrogate.max()),
            1e-12,
            "rounding",
        ),
        number(
            "both",
            where,
            "a schedule saturated at h_max = 2 hbar gains (h_max/hbar)^(2/3) in surrogate depth",
            2 ** (2 / 3),
            xi[0] / xi[1],
            1e-12,
            "rounding",
            f"xi_eff: front {xi[0]:.7g}, uniform {xi[1]:.7g}",
        ),
        claim(
            "both",
            where,
            "every permutation of a schedule preserves signals equally well",
            verdict_if(bool(np.ptp([exact["front"][1], exact["back"][1]]) < 1e-10)),
            ours=float(exact["front"][1] - exact["back"][1]),
            note=f"true of the surrogate by construction, not of the exact map: -log of the product"
            f" of slopes from c = 1 is {listed(1)}; our number is front minus back",
        ),
        claim(
            "both",
            where,
            "the uniform schedule preserves signals worst, saturated ones best",
            verdict_if(float(exact["uniform"][1]) >= float(loss.max()) - 1e-10),
            ours=float(exact["uniform"][1]),
            note=f"in the exact recursion the front-loaded schedule is the worst of all"
            f" {len(grid)} ({loss.max():.9g}) and the back-loaded the best ({loss.min():.9g});"
            " uniform (our number) lies between",
        ),
        number(
            "ours",
            where,
            "front-loading leaves the least difference between two passes of one input: eps_6 over"
            " the least of all schedules",
            1.0,
            float(exact["front"][0] / noise.min()),
            1e-9,
            last,
            f"eps_6: {listed(0)}",
        ),
        number(
            "v2",
            where,
            "front-loading regularises most layers: exact exposure sum eps_l over the largest of"
            " all schedules",
            1.0,
            float(exact["front"][2] / exposure.max()),
            1e-9,
            last,
            f"sum of eps_l: {listed(2)}; what the surrogate reach orders, the recursion confirms",
        ),
        _rank_claim(),
        claim(
            "ours",
            where,
            "dropping early, where rank is lost fastest, leaves the highest rank at the output",
            verdict_if(float(exact["front"][3]) >= float(rank.max()) - 1e-9),
            ours=float(exact["front"][3]),
            note=f"effective rank of 64 orthogonal inputs after six layers: {listed(3)}; the rank"
            " at the output is largest for late dropout, so that rank flow is an argument on where"
            " rank is lost and not on what is left of it",
        ),
    ]


def _exact(schedules: Array) -> Array:
    """Rows ``eps_L`` and slope loss from eps = 0, exposure, final rank; one column a schedule."""
    relu = relu_map()
    eps = np.zeros(len(schedules))
    apart = np.ones(len(schedules))
    loss, exposure = np.zeros(len(schedules)), np.zeros(len(schedules))
    for p in schedules.T:
        loss -= np.log((1 - p) * (1 - relu.slope_deficit(eps)))
        eps, apart = relu.step(eps, -p, p), relu.step(apart, -p, p)
        exposure += eps
    rank = 64 / (1 + 63 * (1 - apart) ** 2)
    return np.stack([eps, loss, exposure, rank])


def _rank_claim() -> Claim:
    """Rank lost per layer by a ReLU network without dropout."""
    apart = relu_map().path(1.0, np.arange(13), 0.0, 0.0)
    ranks = [
        effective_rank((1 - e) * np.ones((64, 64)) + e * np.eye(64), 0.0) for e in apart.tolist()
    ]
    lost = -np.diff(np.log(ranks))
    return claim(
        "v1",
        "schedules (ReLU, 6 layers, mean p = 0.1)",
        "the rank of a batch collapses fastest in the first layers",
        verdict_if(bool(np.all(np.diff(lost) < 0))),
        ours=float(lost[:4].sum() / lost.sum()),
        note="our number is the share of the first four of twelve layers in the loss of log rank,"
        " 64 orthogonal inputs",
    )


def reach() -> list[Claim]:
    """Regularization reach, second version."""
    where, claims = "regularization reach", []
    for f, name, value in ((1 / 2, "1/2", 1.420839287), (1 / 3, "1/3", 1.531444553)):
        claims.append(
            number(
                "v2",
                where,
                f"R(1, {name}) of the reach ratio",
                value,
                float(reach_ratio(1.0, f)),
                5e-10,
                PRINTED,
            )
        )
    weights = reach_weights(12, 12.0)
    discrete, smooth = float(weights[:6].mean() / weights.mean()), float(reach_ratio(1.0, 0.5))
    claims.append(
        number(
            "ours",
            where,
            "a network of twelve layers has the ratio of the continuum, tau = 1, f = 1/2",
            smooth,
            discrete,
            smooth * weights[0] / 2 / weights.sum(),
            "first Euler-Maclaurin term of the sum over all layers",
            f"the continuum formula is {smooth / discrete - 1:+.1%} off at twelve layers",
            "confirmed in a window",
        )
    )
    return claims

"""The best dropout schedule of a thousand sites, for every objective.

Required: under 2 s each, with the comparison to 1,000 permutations, and the budget met to 1e-9.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from _record import cpu_seconds, save
from depthscale.practice.schedule import Budget
from depthscale.practice.schedules.objectives import SENSE
from depthscale.practice.schedules.optimise import optimise_schedule
from depthscale.theory.criticality import critical_point
from depthscale.theory.meanfield import MeanField

DEPTH, BUDGET = 1000, Budget(mean=0.1, cap=0.2)


def main() -> None:
    rows: list[dict[str, Any]] = []
    for name in ("relu", "tanh", "hardtanh"):
        network = MeanField(name, sigma_w=math.sqrt(2))
        if name != "relu":
            point = critical_point(name, sigma_b=math.sqrt(0.1))
            network = MeanField(name, sigma_w=point.sigma_w, sigma_b=math.sqrt(0.1))
        for objective in SENSE:
            run = partial(optimise_schedule, network, DEPTH, BUDGET, objective)
            best, seconds = run(), cpu_seconds(run, 2)
            certificate = best.certificate
            rows.append(
                {"activation": name, "objective": objective, "seconds": seconds, "required": 2,
                 "gain_over_uniform": best.gain, "budget_violation": certificate.budget_violation,
                 "kkt_residual": certificate.kkt_residual, "exact": certificate.exact}
            )  # fmt: skip
    save("schedules", rows)


if __name__ == "__main__":
    main()

"""A 200 x 200 phase diagram with all depth scales; the requirement is 10 s on two cores.

Spot checks compare random cells with the one-network class in the same run.
"""

from __future__ import annotations

import resource
import time

import numpy as np

from _record import save
from depthscale.answers import Undefined
from depthscale.theory.meanfield import MeanField
from depthscale.theory.phase import phase_diagram

# largest sigma_w and drop
GRIDS = {
    "tanh": (4.0, 0.0),
    "relu": (2.0, 0.1),
    "gelu": (3.0, 0.0),
    "hardtanh": (4.0, 0.01),
    "softsign": (4.0, 0.05),
    "mish": (3.0, 0.05),
}


def main() -> None:
    rows = []
    for name, (high, drop) in GRIDS.items():
        wall, cpu = time.perf_counter(), time.process_time()
        grid = phase_diagram(name, np.linspace(0.5, high, 200), np.linspace(0, 1, 200), drop)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rng = np.random.default_rng(0)
        worst = 0.0
        for i, j in rng.integers(0, 200, (30, 2)):
            cell = grid.isel(sigma_w=int(i), sigma_b=int(j))
            eps = MeanField(name, float(cell.sigma_w), float(cell.sigma_b), drop).eps
            if not isinstance(eps, Undefined):
                worst = max(worst, abs(float(cell.eps) - eps) / max(eps, 1e-12))
        rows.append(
            {
                "activation": name,
                "drop": drop,
                "wall_s": wall,
                "cpu_s": cpu,
                "worst_eps_error": worst,
            }
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    save("phase_diagram", rows, cells=200 * 200, peak_mib=round(peak))


if __name__ == "__main__":
    main()

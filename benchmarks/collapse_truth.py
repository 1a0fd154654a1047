"""Known truth: bias and coverage of ``collapse`` over seeds, for every kind of set.

    python benchmarks/collapse_truth.py [--seeds 200] [--workers 2] [--only NAME ...]

Each row is a parameter of a set: the bias in units of its scatter over the seeds, its scatter over
its stated error, and how many of the 68 % intervals hold the truth, whose own standard error at 200
seeds is 3.3 %. Seeds are 0, 1, 2, ...; none is left out. ``false_alarms`` is the share of seeds
with a warning that is wrong for a form that is the truth; all warnings are counted below the rows.
Required: a bias below .3 and coverage within 63 to 73 %.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy starts its threads

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import numpy as np  # noqa: E402

from _record import save  # noqa: E402
from depthscale.scaling.collapse import collapse  # noqa: E402
from scaling_truth import (  # noqa: E402
    DP,
    ISING,
    SMEARED,
    Synthetic,
    corrected,
    draw,
    realisations,
)

Case = tuple[Callable[[int], Synthetic], Mapping[str, Any]]


LONG = replace(DP, grid={**DP.grid, "L": np.geomspace(8, 4096, 10).round()})
"""The DP-like law over 2.7 decades of size, where the power of a correction can be told."""

CASES: dict[str, Case] = {
    "dp, corrected, omega held": (lambda seed: draw(corrected(DP, known=True), seed), {}),
    "ising, corrected, omega held": (lambda seed: draw(corrected(ISING, known=True), seed), {}),
    "dp, covariance": (lambda seed: draw(DP, seed, correlation=0.7), {"covariance": True}),
    "dp, wrong start": (lambda seed: draw(DP, seed), {"start": DP.start(1.3, 1.5)}),
    "dp, realisations": (
        lambda seed: realisations(DP, seed, runs=100, correlation=0.7),
        {"realisation": True},
    ),
    "two variables": (lambda seed: draw(SMEARED, seed), {}),
    "ising": (lambda seed: draw(ISING, seed), {}),
    "dp, ragged": (lambda seed: draw(DP, seed, ragged=True), {}),
    "dp": (lambda seed: draw(DP, seed), {}),
    "dp, corrected, omega free": (
        lambda seed: draw(corrected(LONG, a=0.6), seed, noise=0.002),
        {},
    ),
}


def one(name: str, seed: int) -> dict[str, Any]:
    """One fit: per parameter its distance to the truth, its error, and whether it is covered."""
    make, options = CASES[name]
    data, how = make(seed), dict(options)
    table, columns = data.table, data.named()
    if how.pop("realisation", False):
        table, columns = data.raw, data.named("realisation")
    elif how.pop("covariance", False):
        columns = {**data.named(""), "covariance": data.covariance}
    found = collapse(table, data.form, **columns, **how)
    rows = {}
    for parameter, truth in data.truth.items():
        value, error, low, high = found[parameter]
        rows[parameter] = (value - truth, error, low <= truth <= high)
    return {"rows": rows, "warnings": found.warnings, "seconds": found.seconds}


ALARMS = (
    "the points do not fall",
    "the points lie closer",
    "not stable",
    "the effective",
    "a correction to scaling is needed",
    "another solution",
    "the search did not",
)
"""Beginnings of warnings that are wrong where the form is the truth."""


def summary(name: str, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for every parameter of a set."""
    count = len(results)
    false = [any(w.startswith(ALARMS) for w in r["warnings"]) for r in results]
    rows = []
    for parameter in results[0]["rows"]:
        off, error, held = np.array([r["rows"][parameter] for r in results]).T
        scatter = off.std(ddof=1)
        rows.append(
            {
                "set": name,
                "parameter": parameter,
                "seeds": count,
                "bias_in_sd": float(off.mean() / scatter),
                "scatter_over_error": float(scatter / np.median(error)),
                "coverage": float(held.mean()),
                "coverage_error": float(np.sqrt(0.68 * 0.32 / count)),
                "false_alarms": sum(false) / count,
                "seconds": float(np.median([r["seconds"] for r in results])),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(CASES))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    told: dict[str, list[str]] = {}
    with ProcessPoolExecutor(options.workers) as pool:
        for name in options.only or CASES:
            results = list(pool.map(one, [name] * options.seeds, range(options.seeds), chunksize=5))
            rows += summary(name, results)
            heads = [w.split(":")[0][:60] for r in results for w in r["warnings"]]
            told[name] = [f"{heads.count(head)} x {head}" for head in dict.fromkeys(heads)]
            save("collapse_truth", rows, warnings=told, required="bias < .3, coverage .63 to .73")


if __name__ == "__main__":
    main()

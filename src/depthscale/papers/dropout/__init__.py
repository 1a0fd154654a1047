"""Dropout at the edge of chaos, 2605.21648: its claims recomputed, each with a verdict.

Every number comes from the exact maps of this package, but for those of trained networks, whose
runs lie in ``runs`` (see ``experiments``). Version v1 of the paper chooses among equal schedules by
rank flow, v2 by regularization reach; what both state is marked so, and what follows
from the paper's maps without being stated there is marked as ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from depthscale.papers.claims import Claim
from depthscale.papers.dropout.common import tanh_map
from depthscale.papers.dropout.experiments import trained, trained_figures
from depthscale.papers.dropout.laws import (
    collapse_data,
    depth_data,
    depth_scales,
    equation_of_state,
    exponent_data,
    exponents,
    hermite,
)
from depthscale.papers.dropout.maps import limits, masks
from depthscale.papers.dropout.schedules import reach, schedules
from depthscale.papers.dropout.trials import Runs
from depthscale.theory.universal.reach import reach_ratio

TITLE = "Dropout at the edge of chaos (2605.21648)"

GROUPS: tuple[tuple[str, Callable[[], list[Claim]]], ...] = (
    ("critical exponents", exponents),
    ("equation of state", equation_of_state),
    ("depth scales", depth_scales),
    ("Hermite coefficients", hermite),
    ("maps", masks),
    ("limits", limits),
    ("schedules", schedules),
    ("reach", reach),
    ("experiments", trained),
)
"""What is computed, in order, by name."""


def figures(runs: Runs | None = None) -> dict[str, Callable[[Any], Any]]:
    """Every figure by its file name, as a function that writes it to a path."""
    from depthscale.report.laws import (
        plot_collapse,
        plot_collapse_depth,
        plot_exponents,
        plot_hermite,
        plot_reach,
    )
    from depthscale.theory.universal.spectrum import hermite_spectrum

    tau, fractions = np.geomspace(0.2, 20, 81), np.array([1 / 2, 1 / 3])
    ratio = reach_ratio(tau, fractions[:, None])
    spectrum = partial(hermite_spectrum, ["tanh", "relu"], [tanh_map().q, 1.0])
    return {
        "exponents.svg": lambda path: plot_exponents(exponent_data(), path),
        "collapse.svg": lambda path: plot_collapse(collapse_data(), path),
        "collapse-depth.svg": lambda path: plot_collapse_depth(depth_data(), path),
        "hermite.svg": lambda path: plot_hermite(spectrum(), path),
        "reach.svg": lambda path: plot_reach(tau, fractions, ratio, path),
        **trained_figures(runs),
    }

"""How good a schedule is for its objective and budget, and what of that is proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthscale.practice.schedule import Budget
from depthscale.practice.schedules.objectives import Landscape, Objective
from depthscale.practice.schedules.search import STEEPEST
from depthscale.theory.gaussian import Array

Mask = NDArray[np.bool_]

STATIONARY, SETTLED = 1e-3, 1e-9
FLAT = 1e-10  # derivatives that are rounding


@dataclass(frozen=True)
class Certificate:
    """How good a schedule is for its objective and budget.

    ``exact``: a global optimum by theory. ``proof``: why, or what else was shown.
    ``kkt_residual``: half of what a derivative at a site that could give exceeds one at a site that
    could take by (0 where stationary), over their mean or the median size of the derivatives at the
    uniform schedule, whichever is larger. ``budget_violation``: of the mean, or of a bound.
    ``at_cap, at_floor, partial``: sites. ``best_exchange``: relative gain of the best exchange of
    rate between two sites that was tried.
    """

    exact: bool
    proof: str
    kkt_residual: float
    budget_violation: float
    at_cap: int
    at_floor: int
    partial: int
    best_exchange: float

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        return {**vars(self)}


def certify(
    scene: Landscape,
    budget: Budget,
    objective: Objective,
    x: Array,
    proof: str,
    best_exchange: float,
) -> Certificate:
    """The certificate of ``x`` in the numbers that the budget counts."""
    near = 1e-10 * max(budget.cap, 1e-300)
    up, down = x > budget.floor + near, x < budget.cap - near
    residual = _residual(scene, budget, objective, x, up, down)
    return Certificate(
        bool(proof),
        proof or _shown(residual, best_exchange),
        residual,
        budget.violation(x),
        int((~down).sum()),
        int((~up & down).sum()),
        int((up & down).sum()),
        best_exchange,
    )


def _shown(residual: float, best_exchange: float) -> str:
    if residual < STATIONARY and best_exchange > SETTLED:
        return (
            "local: no small change helps; an exchange between two sites that gains"
            f" {best_exchange:.1e} of the loss was left when the search stopped"
        )
    if residual < STATIONARY:
        return "local: no small change helps, nor an exchange between two sites that was tried"
    return f"none: the search stopped at a KKT residual of {residual:.1e}, above {STATIONARY:g}"


def _residual(
    scene: Landscape, budget: Budget, objective: Objective, x: Array, up: Mask, down: Mask
) -> float:
    if not (up.any() and down.any()):
        return 0.0
    both = scene.gradients(objective, np.stack([x, np.full(x.size, scene.mean)]))
    slope, uniform = np.clip(both, -STEEPEST, STEEPEST) / budget.weights_at(x.size)
    most, least = float(slope[up].max()), float(slope[down].min())
    size = max(float(np.median(abs(uniform))), abs(most + least) / 2, FLAT)
    return max(0.0, (most - least) / 2) / size

"""What a plan of depth, bias and width says; ``plan_depth`` makes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from depthscale.answers import Quantity, Undefined
from depthscale.practice.data_window import DataWindow, Distances
from depthscale.practice.kernel_regression import KernelRegression
from depthscale.theory.records import with_reasons

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure


class LinePoint(NamedTuple):
    """One initialisation of the critical line, and the depths that suit the data there."""

    sigma_w: float
    sigma_b: float
    q: float
    stretch: float
    """``beta a``: the stretch of one hop."""
    shallowest: float
    deepest: float


@dataclass(frozen=True)
class DepthPlan:
    """What suits a data set: a window of depths, of biases, a width, and a check.

    Attributes
    ----------
    activation, kappa:
        The activation, and the power of its map: 2 smooth, 3/2 kinked.
    data:
        The distances in the data.
    window:
        The window of stretches, with how it was measured.
    sigma_w, sigma_b, depth:
        The plan: as given, or chosen so that the stretch is the best one. ``Undefined`` where
        neither depth nor bias was given: then ``line`` has the choice.
    stretch, X:
        ``beta a L`` of the plan, and times ``rho_0^beta`` of the median pair.
    verdict:
        "inside", "too shallow", "too deep", "too narrow" (for the width that was given), "choose"
        (neither depth nor bias was given) or "no window".
    depth_window, sigma_b_window:
        Depths for this bias; biases for this depth. Both ends, or ``Undefined``.
    width, width_spread:
        Units for which the mean deviates by no more than ``deviation``; units for which networks
        do so among themselves (one standard deviation).
    mu, deviation:
        The constant of the first, and the share.
    line:
        The critical line.
    check:
        Kernel regression with the activation itself at the plan, ``Undefined`` without labels.
    reason, notes:
        Why there is no window; what else to know.
    """

    activation: str
    kappa: Quantity
    data: Distances
    window: DataWindow | Undefined
    sigma_w: Quantity
    sigma_b: Quantity
    depth: int | Undefined
    stretch: Quantity
    X: Quantity
    verdict: str
    depth_window: tuple[float, float] | Undefined
    sigma_b_window: tuple[float, float] | Undefined
    width: int | Undefined
    width_spread: int | Undefined
    mu: Quantity
    deviation: float
    line: tuple[LinePoint, ...] = field(default=(), repr=False)
    check: KernelRegression | Undefined = field(default=Undefined("not asked for"), repr=False)
    reason: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON: undefined numbers are null with an entry in ``reasons``."""
        record: dict[str, Any] = dict(vars(self))
        record["kind"] = "depth plan"
        record["data"] = dict(vars(self.data))
        if isinstance(self.window, DataWindow):
            own = dict(vars(self.window))
            own["stretches"], own["accuracy"] = (
                [float(v) for v in own[name]] for name in ("stretches", "accuracy")
            )
            record["window"] = own
        if isinstance(record["window"], dict):
            record["window"]["high"] = _finite(record["window"]["high"])
        record["line"] = [
            {name: _finite(value) for name, value in point._asdict().items()} for point in self.line
        ]
        for name in ("depth_window", "sigma_b_window"):
            if isinstance(record[name], tuple):
                record[name] = [_finite(end) for end in record[name]]
        if isinstance(self.check, KernelRegression):
            check = self.check
            record["check"] = {
                "accuracy": check.accuracy.value,
                "interval": list(check.accuracy.interval),
                "error": check.error,
                "condition": check.condition,
                "directions": check.effective,
                "steps": check.steps,
            }
        record["notes"] = list(self.notes)
        return with_reasons(record)

    def __str__(self) -> str:
        """The plan for a reader."""
        from depthscale.report.plan_summaries import render_plan

        return render_plan(self.to_dict())

    def plot(self, target: str | Path | None = None) -> Figure:
        """Draw the data's window and the depths that it allows along the critical line."""
        from depthscale.report.plans import plot_plan

        return plot_plan(self.to_dict(), target)


def _finite(value: float) -> float | None:
    """None for an end that is open."""
    return value if math.isfinite(value) else None

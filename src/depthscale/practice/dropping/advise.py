"""The dropout schedule that is best for a model, what it should do, and what it was seen to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from depthscale.answers import InputError
from depthscale.practice.dropping.budgets import SiteBudgets, site_budgets
from depthscale.practice.dropping.response import (
    MEASURED,
    ResponseLandscape,
    measure_response,
    observe,
)
from depthscale.practice.dropping.sites import DropoutSite, dropout_sites
from depthscale.practice.schedule import Budget, Schedule
from depthscale.theory.gaussian import Array

CHECKS, STUDENT = 8, 2.3646
"""Pairs of masks with which a schedule is measured, and Student's 97.5 % quantile for them."""
PERMUTATIONS = 1000
KINDS = ("attention", "projection", "mlp", "path", "embedding", "other")


@dataclass(frozen=True)
class Effect:
    """A measured number and its standard error; NaN where it does not exist."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Array) -> Effect:
        """By the jackknife: the value of all, then those of all but one."""
        left, count = values[1:], len(values) - 1
        with np.errstate(invalid="ignore"):
            spread = math.sqrt((count - 1) * float(np.mean((left - left.mean()) ** 2)))
        return cls(float(values[0]), spread)

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.error:.1g}"


@dataclass(frozen=True)
class ModelSchedule:
    """A schedule for a model's sites, beside other arms: what is predicted and what was seen.

    The arms are ``schedule``, ``uniform``, ``mirrored`` and ``present`` (the rates that the model
    has). ``predicted[arm][objective]`` is what the measured response of the single sites says,
    there also of ``best_random``, the best of 1,000 permutations in each objective;
    ``observed[arm][objective]`` is what was measured on the model afterwards, with masks that
    played no part in the choice. ``gain`` is the observed advantage over uniform in ``objective``,
    from the same seeds, positive where the schedule is better. ``exact``: by the response no
    schedule within the budgets is better. ``left`` are sites that keep their rates.
    """

    sites: tuple[DropoutSite, ...]
    left: tuple[DropoutSite, ...]
    schedule: Schedule
    objective: str
    budgets: SiteBudgets
    exact: bool
    predicted: Mapping[str, Mapping[str, float]]
    observed: Mapping[str, Mapping[str, Effect]]
    gain: Effect

    @property
    def helps(self) -> bool:
        """Whether the schedule was seen to be better than uniform, beyond chance.

        By 2.365 standard errors: 95 % confidence, two-sided, with the pairs of ``CHECKS``.
        """
        return self.gain.value > STUDENT * self.gain.error

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data; None for what does not exist."""
        arms = ("schedule", "uniform", "mirrored", "best_random")
        return {
            "objective": self.objective,
            "basis": "measured response of each site",
            "rates": list(self.schedule.rates),
            "sites": [
                {"name": s.name, "kind": s.kind, "now": s.rate, "rate": rate, "calls": s.calls}
                for s, rate in zip(self.sites, self.schedule.rates, strict=True)
            ],
            "left": [{"name": s.name, "kind": s.kind, "reason": s.reason} for s in self.left],
            "budgets": [
                {
                    "sites": [self.sites[k].name for k in members],
                    "mean": budget.mean_at(len(members)),
                    "cap": budget.cap,
                    "floor": budget.floor,
                }
                for members, budget in self.budgets.groups
            ],
            "objectives": {
                name: {
                    **{arm: _finite(self.predicted[arm][name]) for arm in arms},
                    "more_is_better": sense > 0,
                    "observed": {
                        arm: {"value": _finite(one[name].value), "error": _finite(one[name].error)}
                        for arm, one in self.observed.items()
                    },
                }
                for name, sense in MEASURED.items()
            },
            "gain": {"value": _finite(self.gain.value), "error": _finite(self.gain.error)},
            "helps": self.helps,
            "certificate": {
                "exact": self.exact,
                "budget_violation": self.budgets.violation(np.array(self.schedule.rates)),
            },
        }


def schedule_model(
    model: nn.Module,
    inputs: Any,
    budget: Budget | None = None,
    objective: str = "noise",
    kinds: Sequence[str] | None = None,
    across_kinds: bool = False,
    seed: int = 0,
    progress: Callable[[int], Callable[[], None]] = lambda total: lambda: None,
) -> ModelSchedule:
    """Choose the rates of a model's dropout sites for one objective, and measure what they do.

    The model runs in train mode at the weights that it has, four times with each site on alone and
    eight times with each arm; it is left as it was.

    Parameters
    ----------
    inputs:
        A batch as ``audit`` takes it, of two different examples at least; a hundred are plenty.
    budget:
        Of the rates of each kind of site by itself (``across_kinds``: of all sites together).
        Default: each keeps the mean rate that it has now (0.1 if nothing drops), with a cap of
        twice that.
    objective:
        One of ``MEASURED``.
    kinds:
        Kinds of sites to schedule, such as ``("mlp", "projection")``; default all.
    progress:
        Called with the number of measurements; returns what is called after each.

    Raises
    ------
    InputError
        A model without sites to schedule, an objective that cannot be measured, a budget in
        fields or of another number of sites, and what ``measure`` refuses.
    """
    if objective not in MEASURED:
        raise InputError(
            f"objective is {objective!r}; a model is measured for {', '.join(MEASURED)}"
        )
    found, sites = _sites(model, inputs, kinds)
    budgets = site_budgets(sites, budget, across_kinds)
    advance = progress(len(sites) + 1)
    response = measure_response(model, inputs, sites, budgets.cap, seed=seed, advance=advance)
    scene = ResponseLandscape(response)
    rates, exact = scene.optimum(objective, budgets)
    arms = _arms(rates, budgets, sites)
    # Other masks than those that the choice was made with, or the choice would flatter itself.
    seen = {
        name: observe(model, inputs, sites, x.tolist(), CHECKS, seed + 1_000_003)
        for name, x in arms.items()
    }
    values = {
        arm: {name: one.objective(name, response.contrast) for name in MEASURED}
        for arm, one in seen.items()
    }
    better = values["schedule"][objective] - values["uniform"][objective]
    return ModelSchedule(
        sites=sites,
        left=tuple(site for site in found if site not in sites),
        schedule=Schedule(tuple(rates.tolist())),
        objective=objective,
        budgets=budgets,
        exact=exact,
        predicted=_predicted(scene, arms, budgets, seed),
        observed={
            arm: {name: Effect.of(v) for name, v in table.items()} for arm, table in values.items()
        },
        gain=Effect.of(MEASURED[objective] * better),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sites(
    model: nn.Module, inputs: Any, kinds: Sequence[str] | None
) -> tuple[tuple[DropoutSite, ...], tuple[DropoutSite, ...]]:
    """All sites of a model, and those that a schedule can be put on."""
    if isinstance(inputs, Mapping):
        found = dropout_sites(model, **inputs)
    else:
        found = dropout_sites(model, *(inputs if isinstance(inputs, tuple) else (inputs,)))
    if kinds is not None:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise InputError(f"kinds are {', '.join(kinds)}; expected some of {', '.join(KINDS)}")
    chosen = tuple(s for s in found if s.how != "none" and (kinds is None or s.kind in kinds))
    if not chosen:
        have = ", ".join(sorted({f"{site.kind} ({site.name})" for site in found})[:4])
        raise InputError(
            f"{type(model).__name__} has no dropout site to schedule"
            + (f" among {have}" if have else "; give it some with insert_sites")
        )
    return found, chosen


def _predicted(
    scene: ResponseLandscape, arms: Mapping[str, Array], budgets: SiteBudgets, seed: int
) -> dict[str, dict[str, float]]:
    """Every objective of every arm, and of the best of many permutations in that objective."""
    found = {
        arm: {name: float(scene.values(name, x[None])[0]) for name in MEASURED}
        for arm, x in arms.items()
    }
    shuffled = budgets.permuted(arms["schedule"], PERMUTATIONS, seed)
    found["best_random"] = {
        name: float(sense * np.max(sense * scene.values(name, shuffled)))
        for name, sense in MEASURED.items()
    }
    return found


def _arms(rates: Array, budgets: SiteBudgets, sites: Sequence[DropoutSite]) -> dict[str, Array]:
    arms = {"schedule": rates, "uniform": budgets.uniform, "mirrored": budgets.mirrored(rates)}
    present = [site.rate for site in sites]
    if None not in present:
        arms["present"] = np.array(present)
    return arms

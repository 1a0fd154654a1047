"""What the rates of a model's sites have in common: a budget for each kind of site, or one for all.

A rate of 0.1 on attention weights and one on the units of an MLP are not the same dose, so that by
default no kind gives to another: each has a budget of its own, and is scheduled over its depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from depthscale.answers import InputError
from depthscale.practice.dropping.sites import DropoutSite
from depthscale.practice.schedule import Budget
from depthscale.theory.gaussian import Array

MEAN = 0.1
"""Mean rate for sites that drop nothing so far."""
ROUNDING = 1e-12


@dataclass(frozen=True)
class SiteBudgets:
    """Groups of sites, by their indices, each with a budget."""

    groups: tuple[tuple[tuple[int, ...], Budget], ...]

    @property
    def size(self) -> int:
        """Number of sites."""
        return sum(len(members) for members, _ in self.groups)

    @property
    def cap(self) -> Array:
        """Largest rate of each site, (L,)."""
        return self._spread([budget.cap for _, budget in self.groups])

    @property
    def uniform(self) -> Array:
        """The mean of its group for each site, (L,)."""
        return self._spread([budget.mean_at(len(members)) for members, budget in self.groups])

    @property
    def weights(self) -> Array:
        """Weight of each site in the mean of its group, (L,)."""
        out = np.empty(self.size)
        for members, budget in self.groups:
            out[list(members)] = budget.weights_at(len(members))
        return out

    def maximise(self, coefficients: Array) -> Array:
        """The rates within all budgets with the largest ``coefficients @ x``, (..., L) each."""
        x = np.empty(coefficients.shape)
        for members, budget in self.groups:
            x[..., members] = budget.maximise(coefficients[..., members])
        return x

    def mirrored(self, x: Array) -> Array:
        """The rates of each group in reverse order, put back into its budget if weights differ."""
        out = x.copy()
        for members, budget in self.groups:
            back = x[list(members)][::-1]
            out[list(members)] = back if budget.violation(back) < ROUNDING else budget.project(back)
        return out

    def permuted(self, x: Array, count: int, seed: int) -> Array:
        """Rates (count, L) in random orders, each group by itself and among sites of one weight."""
        rng, rows = np.random.default_rng(seed), np.tile(x, (count, 1))
        for members, budget in self.groups:
            place, weights = np.array(members), budget.weights_at(len(members))
            for weight in np.unique(weights):
                alike = place[weights == weight]
                rows[:, alike] = rng.permuted(rows[:, alike], axis=1)
        return rows

    def violation(self, x: Array) -> float:
        """How far rates are off any of the budgets."""
        return max(budget.violation(x[list(members)]) for members, budget in self.groups)

    def _spread(self, values: Sequence[float]) -> Array:
        out = np.empty(self.size)
        for (members, _), value in zip(self.groups, values, strict=True):
            out[list(members)] = value
        return out


def site_budgets(
    sites: Sequence[DropoutSite], budget: Budget | None = None, across_kinds: bool = False
) -> SiteBudgets:
    """Budgets of a model's sites: ``budget`` for each kind alone, or for all of them together.

    By default (None) each kind keeps the mean rate that it has (0.1 where nothing drops, and the
    kinds that do not drop stay off where others do), with a cap of twice that.

    Raises
    ------
    InputError
        A budget of fields, which need theory; one that no schedule of these sites meets.
    """
    if not isinstance(budget, Budget | None):
        raise InputError(
            f"budget is {budget!r}; expected a Budget, such as Budget(mean=0.1, cap=0.2)"
        )
    if budget is not None and budget.of == "field":
        raise InputError("a budget of fields needs the theory of a network; give one of rates")
    if budget is not None:
        budget.weights_at(len(sites))  # refuses weights of another number of sites
    kinds = ["all"] * len(sites) if across_kinds else [site.kind for site in sites]
    idle = not any(site.rate for site in sites)
    groups = []
    for kind in dict.fromkeys(kinds):
        members = tuple(k for k, own in enumerate(kinds) if own == kind)
        own = _present([sites[k] for k in members], idle) if budget is None else budget
        if own.weights is not None:
            own = replace(own, weights=tuple(own.weights[k] for k in members))
        own.mean_at(len(members))
        groups.append((members, own))
    return SiteBudgets(tuple(groups))


def _present(sites: Sequence[DropoutSite], idle: bool) -> Budget:
    """The mean rate that sites have now, with a cap of twice that."""
    rates = [site.rate for site in sites if site.rate is not None]
    mean = MEAN if idle else float(f"{math.fsum(rates) / max(len(rates), 1):.12g}")
    return Budget(mean=mean, cap=min(2 * mean, max(mean, 0.99)))

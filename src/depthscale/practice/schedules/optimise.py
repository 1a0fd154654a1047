r"""The dropout schedule that is best for one objective within a budget.

Some optima are known to be global (``exact``). All others are searched for on the exact recursion
(``search``) and are local; ``Certificate`` says how good they are and what was proven.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from depthscale.answers import InputError
from depthscale.practice.schedule import Budget, Schedule
from depthscale.practice.schedules.certificate import Certificate, certify
from depthscale.practice.schedules.compare import PERMUTATIONS, Evaluation, compare, title
from depthscale.practice.schedules.exact import at_bounds, known_optimum
from depthscale.practice.schedules.layers import Network
from depthscale.practice.schedules.objectives import Landscape, Objective, check
from depthscale.practice.schedules.search import search
from depthscale.theory.gaussian import Array

__all__ = ["Evaluation", "Optimum", "evaluate_schedule", "optimise_network"]

ONLY = "global: one schedule alone meets the budget"
ROUNDING = 1e-9  # relative gain that counts as none


@dataclass(frozen=True)
class Optimum(Evaluation):
    """The best schedule found for an objective; ``gain`` is that of its loss over uniform.

    ``gain`` is relative to the size of the loss at the uniform schedule (see
    ``Landscape.losses``: logarithms for some); ``helps`` whether it exceeds rounding.
    """

    objective: str
    budget: Budget
    certificate: Certificate
    gain: float

    @property
    def helps(self) -> bool:
        """Whether the schedule is better than the uniform one by more than rounding."""
        return self.gain > ROUNDING


def evaluate_schedule(
    network: Network,
    schedule: Schedule,
    eps0: float = 0.5,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    q0: float | None = None,
    sites: Sequence[int] | None = None,
) -> Evaluation:
    """Every objective of a given schedule, beside uniform, mirrored and permuted ones.

    Raises
    ------
    InputError
        A network that ``Landscape`` does not take.

    Examples
    --------
    >>> from depthscale.theory.meanfield import MeanField
    >>> relu = MeanField("relu", sigma_w=2**0.5)
    >>> found = evaluate_schedule(relu, Schedule([0.2, 0.2, 0.2, 0, 0, 0]))
    >>> round(found.objectives["signal"].schedule, 6)
    2.168835
    """
    x = np.array(schedule.rates)
    cap = max(schedule.rates)
    scene = Landscape(network, x.size, min(schedule.mean, cap), cap, eps0, "drop", q0, sites)
    return Evaluation(schedule, compare(scene, x, permutations=permutations, seed=seed))


def optimise_network(
    network: Network,
    depth: int,
    budget: Budget,
    objective: Objective = "noise",
    eps0: float = 0.5,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    q0: float | None = None,
    sites: Sequence[int] | None = None,
) -> Optimum:
    """The schedule of ``depth`` sites within ``budget`` that is best for ``objective``.

    Parameters
    ----------
    network:
        One ``MeanField`` for all layers or one for each, of one activation; their own ``drop`` is
        not used. See ``Recursion``.
    depth:
        Number of sites, from 1.
    objective:
        A name of ``SENSE``; weights ``{name: weight}``; or a function of schedules (N, L) that
        returns N numbers of which less is better.
    eps0:
        Misalignment of the pair of ``snr``.
    seed:
        Of the random starts and permutations.
    q0:
        Length of the inputs; by default what the first layer settles at without dropout.
    sites:
        Layers that have a site, counted from 0; by default each.

    Raises
    ------
    InputError
        An objective or argument that is unknown or out of range.

    Examples
    --------
    >>> from depthscale.theory.meanfield import MeanField
    >>> relu = MeanField("relu", sigma_w=2**0.5)
    >>> optimise_network(relu, 6, Budget(mean=0.1, cap=0.2), "signal").schedule.rates
    (0.0, 0.0, 0.0, 0.2, 0.2, 0.2)
    """
    for name in [objective] if isinstance(objective, str) else _names(objective):
        check(name)
    scene = Landscape(network, depth, budget.mean_at(depth), budget.cap, eps0, budget.of, q0, sites)
    x, proof, left = _best(scene, budget, objective, seed)
    drop = x if budget.of == "drop" else _rates(scene, x)
    return Optimum(
        Schedule(tuple(drop.tolist())),
        compare(scene, x, objective, budget, permutations, seed),
        title(objective),
        budget,
        certify(scene, budget, objective, x, proof, left),
        _gain(scene, objective, x),
    )


def _best(
    scene: Landscape, budget: Budget, objective: Objective, seed: int
) -> tuple[Array, str, float]:
    """The best schedule, its proof if there is one, and the best exchange that is left."""
    x, proof = known_optimum(scene, budget, objective)
    uniform, left = np.full(scene.depth, scene.mean), 0.0
    if proof:
        return x, proof, left
    if scene.depth == 1 or not budget.floor < scene.mean < budget.cap:
        return uniform, ONLY, left
    x, left = search(scene, budget, objective, x, seed)
    x = _snapped(scene, budget, objective, x)
    losses = scene.losses(objective, np.stack([x, uniform]))
    return (x if losses[0] < losses[1] else uniform), proof, left


def _snapped(scene: Landscape, budget: Budget, objective: Objective, x: Array) -> Array:
    """The same without rounding at the bounds, unless that makes it worse."""
    clean = at_bounds(x, budget)
    losses = scene.losses(objective, np.stack([clean, x]))
    return clean if losses[0] <= losses[1] and budget.violation(clean) < 1e-13 else x


def _rates(scene: Landscape, fields: Array) -> Array:
    """Rates at the sites of a schedule of fields."""
    on = scene.recursion
    return np.asarray(on.layers.gathered(on.follow(fields[None], (0.0,)).drop)[0])


def _gain(scene: Landscape, objective: Objective, x: Array) -> float:
    own, same = scene.losses(objective, np.stack([x, np.full(x.size, scene.mean)]))
    return float((same - own) / max(abs(same), 1e-12)) if np.isfinite(same) else 0.0


def _names(objective: Objective) -> list[str]:
    """Names that an objective is made of."""
    if callable(objective):
        return []
    if not isinstance(objective, Mapping):
        raise InputError(
            f"objective is {objective!r}; expected a name, {{name: weight}} or a function"
        )
    return list(objective)

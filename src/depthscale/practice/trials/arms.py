"""The arms of a trial: which rates are trained, and under which names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from depthscale.answers import InputError
from depthscale.practice.schedule import Budget, Schedule, filled, profile
from depthscale.practice.schedules.objectives import SENSE
from depthscale.practice.schedules.optimise import optimise_network
from depthscale.theory.meanfield import MeanField

PROFILES = (
    "step", "step-late", "big-step", "big-step-late", "linear", "linear-late", "cosine",
    "cosine-late", "random", "timm",
)  # fmt: skip
DOSES = (1, 1.5, 2, 3)
BEST = "best for "
SAME, ROUNDING = 0.1, 1e-9
"""An optimum whose rates differ by no more of its mean at any site from those of an earlier arm is
that arm: no trial could tell them apart. Other arms are merged if they are equal."""


@dataclass(frozen=True)
class Arm:
    """One schedule that is trained.

    ``names`` are all that it goes by, the first one being that of its runs; ``rates`` one a site
    (or block of sites), from the input; with ``shuffled``, each seed trains a permutation of them.

    >>> Arm(("step",), (0.2, 0.0)).rates_at(seed=3)
    (0.2, 0.0)
    """

    names: tuple[str, ...]
    rates: tuple[float, ...]
    shuffled: bool = False

    @property
    def name(self) -> str:
        """That of its runs."""
        return self.names[0]

    def rates_at(self, seed: int) -> tuple[float, ...]:
        """The rates that a seed trains."""
        schedule = Schedule(self.rates)
        return schedule.permuted(seed).rates if self.shuffled else schedule.rates

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, which ``from_dict`` reads back."""
        return {"names": list(self.names), "rates": list(self.rates), "shuffled": self.shuffled}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Arm:
        """What ``to_dict`` gave."""
        return cls(tuple(record["names"]), tuple(record["rates"]), bool(record["shuffled"]))


def all_arms(depth: int, mean: float, network: MeanField | None = None) -> tuple[Arm, ...]:
    """No dropout, uniform doses, every profile and its mirror, and the best of every objective.

    ``step 2x`` is the step of twice the mean: the rival of a uniform dose of twice the mean at
    that dose. With ``network``, the schedules that ``optimise_network`` finds best for it join in,
    of the same mean and at most twice as much at a site; arms of the same rates are merged.

    Raises
    ------
    InputError
        No sites, or a mean outside ``(0, 1/3)``, where a dose of three times it is a rate.

    Examples
    --------
    >>> [arm.names for arm in all_arms(6, 0.1) if "timm" in arm.names]
    [('linear-late', 'timm')]
    """
    if not 0 < 3 * mean < 1:
        raise InputError(f"the mean rate is {mean!r}; expected above 0 and below 1/3, as three"
            " times as much is tried too")  # fmt: skip
    arms = some_arms(depth, mean, ("none", *map(dose_name, DOSES), "step 2x", *PROFILES))
    if network is not None:
        arms += optima(depth, mean, network)
    return merged(arms)


def some_arms(depth: int, mean: float, names: Sequence[str]) -> list[Arm]:
    """Arms by name: ``none``, ``uniform``, ``uniform 2x``, ``step 2x`` or a profile."""
    return [Arm((name,), _rates(depth, mean, name), name == "random") for name in names]


def _rates(depth: int, mean: float, name: str) -> tuple[float, ...]:
    base, _, dose = name.partition(" ")
    if name == "none":
        return (0.0,) * depth
    if base in ("uniform", "step") and dose in ("", *map(_times, DOSES[1:])):
        return _clean(profile(base, depth, mean * float(dose.removesuffix("x") or 1)))
    if name in PROFILES:
        return _clean(profile("step" if name == "random" else name, depth, mean))
    raise InputError(
        f"unknown arm {name!r}; expected none, uniform, uniform 2x, step 2x, {', '.join(PROFILES)}"
    )


def _clean(schedule: Schedule) -> tuple[float, ...]:
    """Rates without rounding errors, which would only be noise in a file."""
    return tuple(round(rate, 12) for rate in schedule.rates)


def dose_name(dose: float) -> str:
    """Name of a uniform arm of so many times the mean."""
    return "uniform" if dose == 1 else f"uniform {_times(dose)}"


def _times(dose: float) -> str:
    return f"{dose:g}x"


def optima(depth: int, mean: float, network: MeanField) -> list[Arm]:
    """The schedule that is best for each objective, at initialisation."""
    budget = Budget(mean=mean, cap=2 * mean)
    found = []
    for objective in SENSE:
        best = optimise_network(network, depth, budget, objective, permutations=0)
        found.append(Arm((f"{BEST}{objective}",), _clean(best.schedule)))
    return found


def sliding_arms(depth: int, rate: float, length: int) -> list[Arm]:
    """A block of ``length`` sites of one rate at every place, ``block 1`` at the input."""
    places = range(depth - length + 1)
    block = filled(depth, rate * length / depth, rate)
    return [Arm((f"block {k + 1}",), tuple(np.roll(block, k).tolist())) for k in places]


def _alike(arm: Arm) -> float:
    """Largest difference of a rate at which an arm counts as another one."""
    if not arm.name.startswith(BEST):
        return ROUNDING
    return SAME * sum(arm.rates) / len(arm.rates)


def merged(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """Each schedule once, under all its names, by first appearance; shuffled ones stay apart."""
    kept: list[Arm] = []
    for arm in arms:
        for k, other in enumerate(kept):
            apart = np.max(np.abs(np.subtract(arm.rates, other.rates)))
            if arm.shuffled == other.shuffled and apart <= _alike(arm):
                kept[k] = Arm((*other.names, *arm.names), other.rates, other.shuffled)
                break
        else:
            kept.append(arm)
    return tuple(kept)

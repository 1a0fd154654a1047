"""The best dropout schedule, of a network on paper or of a torch model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from depthscale.answers import InputError
from depthscale.practice.schedule import Budget
from depthscale.practice.schedules.objectives import Objective
from depthscale.practice.schedules.optimise import Optimum, optimise_network
from depthscale.theory.meanfield import MeanField

if TYPE_CHECKING:
    from torch import nn

    from depthscale.practice.dropping.advise import ModelSchedule


@overload
def optimise_schedule(
    network: MeanField | Sequence[MeanField],
    over: int,
    budget: Budget,
    objective: Objective = ...,
    **options: Any,
) -> Optimum: ...


@overload
def optimise_schedule(
    network: nn.Module,
    over: Any,
    budget: Budget | None = ...,
    objective: str = ...,
    **options: Any,
) -> ModelSchedule: ...


def optimise_schedule(
    network: Any, over: Any, budget: Budget | None = None, objective: Any = "noise", **options: Any
) -> Any:
    """The rates within a budget that are best for an objective.

    Of a network on paper: ``over`` is the number of sites, and ``options`` are those of
    ``optimise_network`` (``eps0, seed, permutations, q0, sites``). Of a torch model: ``over`` is a
    batch of its inputs, the budget may be left out (each kind of site keeps its mean rate), and
    ``options`` are those of ``schedule_model`` (``kinds, across_kinds, seed, progress``).

    Parameters
    ----------
    network:
        A ``MeanField``, a sequence of them (one for each layer), or a ``torch.nn.Module``.
    objective:
        ``"signal"``, ``"noise"``, ``"exposure"``, ``"snr"``, ``"xi"``, ``"rank-flow"``,
        ``"reach"`` or ``"gradient"``; on paper also weights ``{name: weight}`` or a function of
        schedules (N, L) that returns N numbers of which less is better.

    Raises
    ------
    InputError
        As ``optimise_network`` and ``schedule_model``.

    Examples
    --------
    >>> relu = MeanField("relu", sigma_w=2**0.5)
    >>> optimise_schedule(relu, 6, Budget(mean=0.1, cap=0.2), "signal").schedule.rates
    (0.0, 0.0, 0.0, 0.2, 0.2, 0.2)
    """
    if hasattr(network, "named_modules"):  # without loading torch for a network on paper
        from depthscale.practice.dropping.advise import schedule_model

        return schedule_model(network, over, budget, objective, **options)
    if budget is None:
        raise InputError("a network on paper needs a budget, such as Budget(mean=0.1, cap=0.2)")
    return optimise_network(network, over, budget, objective, **options)

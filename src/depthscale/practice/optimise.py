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


OF_NETWORKS = ("eps0", "seed", "permutations", "q0", "sites")
OF_MODELS = ("kinds", "across_kinds", "seed", "progress")
"""Options beside the network, over, the budget and the objective, of either kind of network."""


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
    network: Any,
    over: Any = None,
    budget: Budget | None = None,
    objective: Any = "noise",
    **options: Any,
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
        No ``over``, an option of the other kind of network or of none, and as ``optimise_network``
        and ``schedule_model``.

    Examples
    --------
    >>> relu = MeanField("relu", sigma_w=2**0.5)
    >>> optimise_schedule(relu, 6, Budget(mean=0.1, cap=0.2), "signal").schedule.rates
    (0.0, 0.0, 0.0, 0.2, 0.2, 0.2)
    """
    if hasattr(network, "named_modules"):  # without loading torch for a network on paper
        from depthscale.practice.dropping.advise import schedule_model

        _check("a torch model", over, "a batch of its inputs", options, OF_MODELS)
        return schedule_model(network, over, budget, objective, **options)
    _check("a network on paper", over, "the number of its sites", options, OF_NETWORKS)
    if budget is None:
        raise InputError("a network on paper needs a budget, such as Budget(mean=0.1, cap=0.2)")
    return optimise_network(network, over, budget, objective, **options)


def _check(
    what: str, over: Any, meaning: str, options: dict[str, Any], known: Sequence[str]
) -> None:
    """InputError for options that such a network does not take, or without what it is over."""
    for name in options:
        if name not in known:
            both = name in (*OF_NETWORKS, *OF_MODELS)
            other = ", which goes with the other kind of network" if both else ""
            raise InputError(
                f"{what} takes no {name!r}{other}; expected over ({meaning}), budget, objective,"
                f" {', '.join(known)}"
            )
    if over is None:
        raise InputError(f"{what} needs {meaning} as the second argument, over")

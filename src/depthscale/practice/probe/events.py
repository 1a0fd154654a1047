"""What one forward pass did: operations, where their inputs came from, and calls of modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from depthscale.practice.probe.weights import WeightUse

Ref = tuple[int, int]
"""One signal: the index of the event that made it, and which of its outputs it is."""


@dataclass(frozen=True)
class Slot:
    """Stands for a traced signal among the recorded arguments of a call."""

    ref: Ref


@dataclass(frozen=True)
class Call:
    """A recorded call that can be run again on other numbers (constants are kept as scalars)."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    in_place: bool


@dataclass(frozen=True)
class Event:
    """One operation of a forward pass.

    ``kind`` is one of the kinds of ``operations``, or "input", "bias" (a parameter added to the
    output of a weight operation), "opaque" (a module whose inside cannot be seen) and "fused" (an
    operation with weights inside, such as an LSTM). ``parents`` are the signals that went in;
    ``key`` names the event in the same way in every run of the model. ``call`` is there when the
    event may act number by number; ``per_unit`` says that its constants differ between units.
    ``rate`` is the probability dropped when training, ``drop`` the one in force in this run.
    ``owners`` names the parameters of a bias, an embedding or a fused operation;
    ``differentiable`` is false under ``torch.no_grad``.
    """

    index: int
    kind: str
    name: str
    module: str
    key: str
    parents: tuple[Ref, ...]
    shape: tuple[int, ...]
    call: Call | None = None
    per_unit: bool = False
    weight: WeightUse | None = None
    sigma_b: float | None = None
    rate: float = 0.0
    drop: float = 0.0
    owners: tuple[str, ...] = ()
    differentiable: bool = True


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module: the events ``first`` to ``last`` ran inside it."""

    path: str
    type_name: str
    number: int
    first: int
    last: int
    source: Ref | None
    output: Ref | None
    leaf: bool
    listed: bool

    @property
    def key(self) -> str:
        """Names the return of this call in the same way in every run of the model."""
        return f"{self.path}|return|{self.number}"


@dataclass(frozen=True)
class Trace:
    """What one forward pass did, in order of execution.

    ``stochastic`` says that the pass drew random numbers; ``unresolved`` lists operations whose
    inside cannot be seen; ``outputs`` are the signals that the model returned.
    """

    events: tuple[Event, ...]
    calls: tuple[ModuleCall, ...]
    outputs: tuple[Ref, ...]
    batch: int
    mode: str
    stochastic: bool
    unresolved: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    model_name: str = ""

    @property
    def weights(self) -> tuple[Event, ...]:
        """The events that multiply by weights, in order."""
        return tuple(event for event in self.events if event.weight is not None)

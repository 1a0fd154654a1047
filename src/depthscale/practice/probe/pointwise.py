"""Activations found in a trace, as modules that stand on their own, and tests of what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from depthscale.practice.probe.events import Call, Event, Ref, Slot
from depthscale.practice.probe.operations import named_activation


class Pointwise(nn.Module):
    """The function of one number that a run of recorded operations computes.

    Type conversions and detachments are skipped, so it can be followed in float64 with gradients
    whatever the type of the model was.
    """

    def __init__(self, source: Ref, events: Sequence[Event], label: str) -> None:
        super().__init__()
        self.source = source
        self.steps = [
            ((event.index, 0), event.kind == "identity", event.call)
            for event in events
            if event.call is not None
        ]
        # Under this name the theory prints an activation that it does not know.
        self.__name__ = label

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the recorded operations to every number of ``x``."""
        values = {self.source: x}
        for ref, passes_on, call in self.steps:
            values[ref] = _signal_of(call, values) if passes_on else _again(call, values)
        return values[ref]

    def extra_repr(self) -> str:
        """Say which activation this is."""
        return self.__name__


def _again(call: Call, values: dict[Ref, torch.Tensor]) -> torch.Tensor:
    def fill(tree: Any) -> Any:
        if isinstance(tree, Slot):
            return values[tree.ref]
        if isinstance(tree, tuple | list) and not isinstance(tree, torch.Size):
            return type(tree)(fill(item) for item in tree)
        return tree

    args = [fill(item) for item in call.args]
    if call.in_place:
        args[0] = args[0].clone()
    out: torch.Tensor = call.function(*args, **{key: fill(v) for key, v in call.kwargs.items()})
    return out


def _signal_of(call: Call, values: dict[Ref, torch.Tensor]) -> torch.Tensor:
    return next(values[item.ref] for item in call.args if isinstance(item, Slot))


@dataclass(frozen=True)
class Acting:
    """What acts number by number on a signal: a function, its label, and its simplest traits.

    ``slope`` is set when the function is ``slope * x``; ``homogeneous`` when f(2x) = 2 f(x);
    ``detached`` when it stops gradients.
    """

    function: Any
    label: str
    slope: float | None = None
    homogeneous: bool = False
    detached: bool = False

    @property
    def does_nothing(self) -> bool:
        """Whether the function is the identity."""
        return self.slope == 1.0

    def then(self, after: Acting) -> Acting:
        """This function followed by another one."""
        if self.does_nothing:
            return after
        if after.does_nothing:
            return self
        both = nn.Sequential(_as_module(self), _as_module(after))
        acting = probe(both, f"{self.label} then {after.label}")
        return acting if acting is not None else self


def _as_module(acting: Acting) -> nn.Module:
    return acting.function if isinstance(acting.function, nn.Module) else _Function(acting.function)


class _Function(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.function(x)
        return out


def acting_of(source: Ref, events: Sequence[Event], label: str | None) -> Acting | None:
    """What a run of pointwise events does to the signal ``source``, None if it mixes units.

    A single known activation comes back as a fresh torch module ("leaky_relu(0.2)"); anything else
    as a ``Pointwise`` under the given label or the names of its operations.
    """
    doing = [event for event in events if event.kind != "identity"]
    detached = any(event.name == "detach" for event in events)
    known = None
    if len(doing) == 1 and doing[0].call is not None:
        known = named_activation(doing[0].name, doing[0].call.args, doing[0].call.kwargs)
    if known is not None:
        function, name = known
    else:
        name = label or ", ".join(dict.fromkeys(event.name for event in doing)) or "identity"
        function = Pointwise(source, events, name)
    return probe(function, name, detached=detached)


def probe(function: Any, label: str, *, detached: bool = False) -> Acting | None:
    """Try a function on numbers: does it treat each one by itself, in any order and shape?"""
    # Fixed, irregular numbers of both signs; no generator, so that no random stream moves.
    numbers = torch.linspace(-4.1, 3.7, 48, dtype=torch.float64).sin() * 3.0
    order = torch.arange(48).flip(0)
    try:
        with torch.no_grad():
            whole = function(numbers.clone())
            trials = [
                (function(numbers[order].clone()), whole[order]),
                (function(numbers[:7].clone()), whole[:7]),
                (function(numbers.reshape(4, 2, 6).clone()), whole.reshape(4, 2, 6)),
            ]
            doubled, line = function(2 * numbers), torch.ones(1, dtype=torch.float64)
            slope = float(function(line))
    # A foreign function may raise anything on numbers that it was not made for: no activation then.
    except Exception:
        return None
    if whole.shape != numbers.shape or not all(_agree(*trial) for trial in trials):
        return None
    proportional = _agree(whole, slope * numbers)
    return Acting(
        function,
        label,
        slope=slope if proportional else None,
        homogeneous=_agree(doubled, 2 * whole),
        detached=detached,
    )


def _agree(left: torch.Tensor, right: torch.Tensor) -> bool:
    # Vectorised and scalar code paths of one function may differ in the last bits of float32.
    return left.shape == right.shape and torch.allclose(
        left.double(), right.double(), rtol=1e-6, atol=1e-9, equal_nan=True
    )

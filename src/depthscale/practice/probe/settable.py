"""Which layers of a model an initialisation can set: the chain that hangs on the inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.modules.conv import _ConvNd

from depthscale.practice.probe.events import Event, Trace
from depthscale.practice.probe.graph import Graph, Path

if TYPE_CHECKING:
    from depthscale.theory.activation import Activation

# A chain must hold this share of the layers with weights, or the rest sets the scale of the signal.
_SHARE = 2 / 3


@dataclass(eq=False)
class Node:
    """One layer of the chain: where it takes its input from, and the scales it is to get.

    ``function`` and ``drop`` act between ``source`` and this layer; ``function`` is None at a first
    layer, which has no ``source``. ``sigma_w``, ``sigma_b`` and ``q`` are for the caller to fill.
    """

    event: Event
    name: str
    module: nn.Module
    source: Node | None
    function: Activation | None
    drop: float
    children: list[Node] = field(default_factory=list)
    sigma_w: float = math.nan
    sigma_b: float = math.nan
    q: float = math.nan

    @property
    def role(self) -> str:
        """ "first", "hidden" or "last" (nothing of the chain follows)."""
        if not self.children:
            return "last"
        return "hidden" if self.source else "first"

    @property
    def biased(self) -> bool:
        """Whether the layer has biases."""
        return getattr(self.module, "bias", None) is not None


@dataclass(frozen=True)
class Settable:
    """The layers that can be set, in order; the others with a reason each; remarks on the way.

    ``obstacle`` says why the model as a whole cannot be set, None where it can.
    """

    nodes: tuple[Node, ...]
    reasons: dict[str, str]
    notes: tuple[str, ...]
    obstacle: str | None


def settable_layers(trace: Trace, model: nn.Module, drop: float | None = None) -> Settable:
    """Find the Linear and Conv layers that hang on the inputs through activations and dropout.

    This is narrower than ``sites.recognise_chain``: theory can describe a chain that starts behind
    a normalisation, or whose weights are parametrised or tied, but nobody can set it by drawing
    weights. ``drop`` replaces the rate of the model's own dropout.

    Raises InputError where an activation cannot be evaluated.
    """
    walk = _Walk(Graph(trace, model), model, drop)
    for event in trace.weights:
        walk.add(event)
    nodes = tuple(walk.nodes)
    return Settable(nodes, walk.reasons, tuple(walk.notes), walk.obstacle())


class _Walk:
    def __init__(self, graph: Graph, model: nn.Module, drop: float | None) -> None:
        self.graph = graph
        self.model = model
        self.drop = drop
        self.nodes: list[Node] = []
        self.made: dict[int, Node] = {}
        self.reasons: dict[str, str] = {}
        self.notes: list[str] = []
        self.tied = ""

    def add(self, event: Event) -> None:
        """Take a weight operation into the chain, or note why it stays out."""
        name = self.graph.names[event.index]
        module = _owner(event, self.model)
        if isinstance(module, str):
            self.reasons[name] = module
            return
        earlier = next((node for node in self.nodes if node.module is module), None)
        if earlier is not None:
            # What follows this call hangs on weights that the first call has set.
            self.made[event.index] = earlier
            self.tied = earlier.name
            self.notes.append(f"{name} shares its weights with an earlier call, which set them")
            return
        path = self._path(event, name)
        source = self.graph.weight_of(path.end)
        if path.obstruction is not None:
            self.reasons[name] = path.obstruction
        elif source is not None and source.index not in self.made:
            before = self.graph.names[source.index]
            self.reasons[name] = f"what feeds it, {before}, was left alone"
        else:
            before_it = None if source is None else self.made[source.index]
            function = None if source is None else _function(path)
            rate = path.rate if self.drop is None or source is None else self.drop
            node = Node(event, name, module, before_it, function, rate)
            self.made[event.index] = node
            self.nodes.append(node)
            if before_it is not None:
                before_it.children.append(node)

    def _path(self, event: Event, name: str) -> Path:
        path = self.graph.walk_back(event.parents[0])
        if path.obstruction is not None and path.kind == "pool":
            self.notes.append(
                f"pooling before {name} changes the length, which is not accounted for"
            )
            path = self.graph.walk_back(event.parents[0], frozenset({"pool"}))
        if path.obstruction is not None and self.graph.name_of(path.end) == "the input":
            # Nothing with weights comes before (an embedding or a normalised input at most).
            path = replace(path, before=None, after=None, rate=0.0, obstruction=None)
        for event in (self.graph.events[ref[0]] for ref in path.visited):
            # In evaluation, where it drops nothing, it is no obstruction to the signal.
            if path.obstruction is None and event.rate > 0 and "alpha" in event.name:
                path.obstruction = f"`{event.module or event.name}` is an alpha dropout"
        return path

    def obstacle(self) -> str | None:
        """Why the layers that were found are too few to set."""
        total = len(self.nodes) + len(self.reasons)
        chained = any(node.source for node in self.nodes)
        if not chained or len(self.nodes) < _SHARE * total:
            why = next(iter(self.reasons.values()), "")
            if not why and self.tied:
                why = f"its calls share the weights of one layer, {self.tied}"
            why = why or "it has fewer than two Linear or Conv layers in a row"
            return f"{type(self.model).__name__} is not a chain that starts at its inputs: {why}"
        return None


def _function(path: Path) -> Activation:
    """The activation on the way between two layers, both sides of a dropout taken together."""
    from depthscale.theory.activation import activation

    acting = path.before.then(path.after) if path.before and path.after else None
    acting = acting or path.before or path.after
    if acting is None:
        return activation("identity")
    return activation(acting.function).renamed(acting.label)


def _owner(event: Event, model: nn.Module) -> nn.Module | str:
    """Return the Linear or Conv module whose own weight an operation uses, or why there is none."""
    use = event.weight
    if use is None or not use.owners or len(event.parents) != 1:
        return "its weights are not one parameter"
    path, _, leaf = use.owners[0].rpartition(".")
    if len(use.owners) > 1 or leaf != "weight":
        made = " and ".join(use.owners[:2])
        return f"its weights are made from {made} (a parametrisation or a raw parameter)"
    module = model.get_submodule(path)
    if not isinstance(module, nn.Linear | _ConvNd):
        return f"it is a {type(module).__name__}, not a Linear or Conv"
    if not module.weight.requires_grad:
        return "it is frozen"
    return module

"""Where a model multiplies by weights, activates and drops: layers to measure, chains, settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from depthscale.answers import some
from depthscale.practice.probe.events import Event, ModuleCall, Ref, Trace
from depthscale.practice.probe.graph import Graph, Path, ancestors

_SHARE_COVERED = 2 / 3
_IRREGULAR = 1.5


@dataclass(frozen=True)
class Layer:
    """One place at which a model is measured: the output of a weight operation or of a block.

    ``index`` is the position in ``Measurement.layers`` (execution order). ``kind`` is "linear",
    "conv", "conv_transpose", "einsum", "fused" (an LSTM, whose inside is not seen) or "block" (the
    output of a child of a Sequential or ModuleList that has several weight operations or a residual
    sum). ``width`` counts the features of one example (channels x height x width of a convolution).
    ``activation`` names what acts on the output, ``drop`` is the probability dropped between it and
    the next weight operation *in the measured mode* (0 in evaluation). ``sigma_w`` and ``sigma_b``
    are estimated from the weights, ``sigma_w^2 = fan_in mean(W^2)`` and ``sigma_b^2 = mean(b^2)``;
    they are ``None`` for blocks, fused operations and weights that the model computes from its
    input. A second call of a shared module is named ``"fc1 (call 2)"``.
    """

    index: int
    name: str
    kind: str
    width: int
    fan_in: int
    activation: str | None
    drop: float
    sigma_w: float | None
    sigma_b: float | None


@dataclass(frozen=True)
class Hop:
    """One layer of the theory: activation, dropout, then the weights of ``target``.

    ``source`` and ``target`` are positions in ``Measurement.layers``. ``activation`` is anything
    that ``depthscale.theory.activation.activation`` accepts (a torch module or function), ``width``
    the number of independent units (rows of the weight: output features or channels) of the target.
    """

    source: int
    target: int
    activation: Any
    activation_name: str
    drop: float
    sigma_w: float
    sigma_b: float
    fan_in: int
    width: int


@dataclass(frozen=True)
class Chain:
    """A run of weight layers, each fed by the one before through activation and dropout alone.

    ``layers`` are positions in ``Measurement.layers`` (one more than ``hops``), ``widths`` the
    number of independent units of each of them. ``gradient_reason`` says why no gradient curve may
    be drawn although the forward one may (an inner layer also feeds something else); ``None``
    when it may. ``notes`` are the approximations made and what the chain leaves out.
    """

    layers: tuple[int, ...]
    widths: tuple[int, ...]
    hops: tuple[Hop, ...]
    notes: tuple[str, ...] = ()
    gradient_reason: str | None = None


@dataclass(frozen=True)
class Site:
    """A layer and how to reach it in a run: the key of the event (or module return) to watch.

    ``activation`` acts on the signal of the event ``activation_key``; ``unit_axis`` is the
    dimension of that signal which tells units (channels, features) apart.
    """

    layer: Layer
    key: str
    ref: Ref
    activation: Any = None
    activation_key: str | None = None
    unit_axis: int = -1


def sites_of(
    trace: Trace, model: nn.Module | None = None, graph: Graph | None = None
) -> tuple[Site, ...]:
    """Everything that a measurement looks at, in order of execution."""
    graph = graph or Graph(trace, model)
    found: list[tuple[int, int, Site]] = []
    for event in trace.events:
        if event.weight is not None or event.kind == "fused":
            end = graph.output_of(event)
            found.append((end.index, 0, _weight_site(graph, event, end)))
    taken = set(graph.names.values())
    for depth, call in enumerate(_blocks(graph)):
        assert call.output is not None  # _blocks keeps calls with an output only
        width = math.prod(trace.events[call.output[0]].shape) // trace.batch
        name = _call_name(call) + (" (output)" if _call_name(call) in taken else "")
        layer = Layer(0, name, "block", width, 0, None, 0.0, None, None)
        found.append((call.last, 1 + depth, Site(layer, call.key, call.output)))
    found.sort(key=lambda item: item[:2])
    return tuple(_numbered(site, index) for index, (_, _, site) in enumerate(found))


def places_before_output(trace: Trace, sites: Sequence[Site]) -> tuple[int, ...]:
    """Which of the sites the first output of the model comes from, in order; the last is nearest.

    An output that comes from none of them is passed over; where all do, every site counts.
    """
    for output in trace.outputs:
        before = ancestors(trace, [output])
        if places := tuple(k for k, site in enumerate(sites) if site.ref[0] in before):
            return places
    return tuple(range(len(sites)))


def _numbered(site: Site, index: int) -> Site:
    return replace(site, layer=replace(site.layer, index=index))


def _weight_site(graph: Graph, event: Event, end: Event) -> Site:
    ref = (end.index, 0)
    acting, place, drop, _ = graph.follow(ref)
    use = event.weight
    width = math.prod(end.shape) // graph.trace.batch
    layer = Layer(
        index=0,
        name=graph.names[event.index],
        kind=use.kind if use is not None else "fused",
        width=width,
        fan_in=use.fan_in if use is not None else 0,
        activation=acting.label if acting is not None else None,
        drop=drop,
        sigma_w=use.sigma_w if use is not None else None,
        sigma_b=(end.sigma_b if end.kind == "bias" else use.sigma_b) if use is not None else None,
    )
    if acting is None:
        return Site(layer, end.key, ref)
    source = graph.events[place[0]]
    channels = layer.kind.startswith("conv") and len(source.shape) == len(end.shape) > 2
    axis = (1 if len(end.shape) > 3 or len(source.shape) > 2 else 0) if channels else -1
    return Site(layer, end.key, ref, acting.function, source.key if place[1] == 0 else None, axis)


def _call_name(call: ModuleCall) -> str:
    return call.path if call.number == 1 else f"{call.path} (call {call.number})"


def _blocks(graph: Graph) -> list[ModuleCall]:
    """Listed modules that hold several weight operations or a residual sum, innermost first."""
    seen: set[Ref] = set()
    blocks = []
    for call in graph.trace.calls:
        if not call.listed or call.output is None or call.output in seen:
            continue
        inside = graph.events[call.first : call.last + 1]
        weights = sum(event.weight is not None for event in inside)
        merges = any(graph.role((event.index, 0)) == "merge" for event in inside)
        own = graph.weight_of(call.output) is None and graph.role(call.output) != "fused"
        if own and (weights >= 2 or (weights == 1 and merges)):
            blocks.append(call)
            seen.add(call.output)
    return blocks


def recognise_chain(trace: Trace, model: nn.Module | None = None) -> Chain | str:
    """The run of weight layers that the theory of plain networks describes, or why there is none.

    A layer belongs to the run when its input is the output of the layer before through shapes, one
    pointwise activation and dropout alone. The longest run is taken; it must cover two thirds of
    the weight layers. ``model`` (the traced one) lets custom activation modules be tried where
    their operations could not be seen.
    """
    graph = Graph(trace, model)
    sites = sites_of(trace, model, graph)
    places = {site.ref: site.layer.index for site in sites if site.layer.kind != "block"}
    weights = [event for event in trace.events if event.weight is not None]
    if len(weights) < 2:
        hidden = f" that can be seen ({', '.join(trace.unresolved)} cannot)"
        return "theory predicts from one weight layer to the next, and this model has only one" + (
            hidden if trace.unresolved else ""
        )
    hops: dict[int, tuple[int, Hop, Path]] = {}
    reasons: dict[int, str] = {}
    for event in weights:
        hop = _hop(graph, event, places)
        if isinstance(hop, str):
            reasons[event.index] = hop
        elif hop is not None:
            hops[event.index] = hop
    run = _longest_run(weights, hops)
    if len(run) < 2 or len(run) < _SHARE_COVERED * len(weights):
        fallback = "no layer takes its input from another weight layer"
        return next(iter(reasons.values()), fallback) + ", for which no theory is drawn"
    return _chain(graph, run, hops, reasons, places)


def _hop(graph: Graph, event: Event, places: dict[Ref, int]) -> tuple[int, Hop, Path] | str | None:
    """The hop that ends at a weight operation, why it is none, or None at the first layer."""
    use, name = event.weight, graph.names[event.index]
    assert use is not None
    end = graph.output_of(event)
    if use.kind not in ("linear", "conv"):
        return f"`{name}` is of kind {use.kind}"
    if not event.parents:
        return f"what feeds `{name}` does not come from the input in a way that can be seen"
    if use.sigma_w is None or len(event.parents) != 1:
        return f"`{name}` takes its weights or bias from the input of the model"
    path = graph.walk_back(event.parents[0])
    if path.obstruction is not None:
        return path.obstruction
    source = graph.weight_of(path.end)
    if source is None:
        return None
    where = f"between `{graph.names[source.index]}` and `{name}`"
    acting = path.before or path.after
    if path.before is not None and path.after is not None:
        return f"there are two activations with a dropout in between {where}"
    if path.dropouts and path.after is not None and not path.after.homogeneous:
        return f"dropout acts before the activation {where}"
    if path.drop >= 1.0:
        return f"everything is dropped {where}"
    hop = Hop(
        source=places[path.end],
        target=places[(end.index, 0)],
        activation=acting.function if acting is not None else _identity(),
        activation_name=acting.label if acting is not None else "identity",
        drop=path.drop,
        sigma_w=use.sigma_w,
        sigma_b=(end.sigma_b if end.kind == "bias" else use.sigma_b) or 0.0,
        fan_in=use.fan_in,
        width=use.rows,
    )
    return source.index, hop, path


def _identity() -> nn.Module:
    return nn.Identity()


def _longest_run(weights: list[Event], hops: dict[int, tuple[int, Hop, Path]]) -> list[int]:
    runs: dict[int, list[int]] = {}
    for event in weights:
        before = hops[event.index][0] if event.index in hops else None
        runs[event.index] = [*(runs[before] if before is not None else []), event.index]
    return max(runs.values(), key=len)


def _chain(
    graph: Graph,
    run: list[int],
    hops: dict[int, tuple[int, Hop, Path]],
    reasons: dict[int, str],
    places: dict[Ref, int],
) -> Chain:
    events = [graph.events[index] for index in run]
    chosen = [hops[index] for index in run[1:]]
    first = graph.output_of(events[0])
    return Chain(
        layers=(places[(first.index, 0)], *(hop.target for _, hop, _ in chosen)),
        widths=tuple(event.weight.rows for event in events if event.weight is not None),
        hops=tuple(hop for _, hop, _ in chosen),
        notes=_chain_notes(graph, events, reasons),
        gradient_reason=_gradient_reason(graph, events, [path for _, _, path in chosen]),
    )


def _chain_notes(graph: Graph, events: list[Event], reasons: dict[int, str]) -> tuple[str, ...]:
    notes = []
    uses = [event.weight for event in events if event.weight is not None]
    if any(use.kind == "conv" for use in uses):
        notes.append(
            "convolutions are treated as spatially uniform: differences between positions and the "
            "padding at the edges are left out"
        )
    if any(
        event.weight is not None and event.weight.kind == "linear" and len(event.shape) > 2
        for event in events
    ):
        notes.append("weights are shared by several positions of an example, treated as alike")
    odd = [
        graph.names[event.index]
        for event, use in zip(events, uses, strict=True)
        if use.irregularity is not None and use.irregularity > _IRREGULAR
    ]
    if odd:
        notes.append(
            f"the weights of {len(odd)} of {len(uses)} layers (first `{odd[0]}`) are far from "
            "independent draws, as after training; the theory is that of random weights of the "
            "same size"
        )
    covered = {event.index for event in events}
    left = [name for i, name in graph.names.items() if i not in covered]
    if left:
        why = next((reason for i, reason in reasons.items() if i not in covered), None)
        shown = some(f"`{name}`" for name in left)
        notes.append(f"left out of the theory: {shown}" + (f" ({why})" if why else ""))
    return tuple(notes)


def _gradient_reason(graph: Graph, events: list[Event], paths: list[Path]) -> str | None:
    """Why gradients of inner layers also come from elsewhere, None if only along the chain."""
    returned = set(graph.trace.outputs)
    for event, path, following in zip(events, paths, events[1:], strict=False):
        end = graph.output_of(event)
        inner = {(end.index, 0), *path.visited}
        allowed = {ref[0] for ref in inner} | {following.index, end.index}
        name = graph.names[event.index]
        if returned & inner:
            return f"the model also returns what comes out of `{name}`"
        for ref in {(event.index, 0), *inner}:
            for user in graph.consumers.get(ref, []):
                if user.index not in allowed:
                    return f"the output of `{name}` also feeds another operation (`{user.name}`)"
        if not all(graph.events[ref[0]].differentiable for ref in inner):
            return f"what follows `{name}` runs under torch.no_grad"
        acting = path.before or path.after
        if acting is not None and acting.detached:
            return f"gradients are stopped after `{name}` (detach)"
    return None

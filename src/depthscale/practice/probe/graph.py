"""The graph of a trace: which signal each operation acts on, and the way between two of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn

from depthscale.practice.probe.events import Event, Ref, Trace
from depthscale.practice.probe.operations import POINTWISE
from depthscale.practice.probe.pointwise import Acting, Pointwise, acting_of, probe

_PASSES = {"shape", "drop", "norm"}


@dataclass
class Path:
    """What lies between the input of an operation and the signal it comes from.

    Walking back from an operation ends at ``end``: the output of a weight operation, an input of
    the model, or the signal at which ``obstruction`` (in words) stands. ``before`` and ``after``
    act before and after the dropout; ``drop`` and ``rate`` combine all dropouts met, in this run
    and in training. ``visited`` are the signals on the way.
    """

    end: Ref
    before: Acting | None = None
    after: Acting | None = None
    drop: float = 0.0
    rate: float = 0.0
    dropouts: int = 0
    obstruction: str | None = None
    kind: str | None = None
    visited: set[Ref] = field(default_factory=set)


class Graph:
    """Relations between the events of one trace (``model`` lets opaque modules be tried)."""

    def __init__(self, trace: Trace, model: nn.Module | None = None) -> None:
        self.trace = trace
        self.events = trace.events
        self.modules = _modules(model)
        self.consumers: dict[Ref, list[Event]] = {}
        self._live = ancestors(trace, trace.outputs) if trace.outputs else None
        for event in self.events:
            # What leads nowhere (a detached copy for a log) uses nothing.
            if self._live is None or event.index in self._live:
                for ref in event.parents:
                    self.consumers.setdefault(ref, []).append(event)
        self._anchors: dict[int, Ref] = {}
        self._groups: dict[Ref, set[int]] = {}
        for event in self.events:
            if (anchor := self._find_anchor(event)) is not None:
                self._anchors[event.index] = anchor
                self._groups.setdefault(anchor, set()).add(event.index)
        self.names = _weight_names(trace)

    def role(self, ref: Ref) -> str:
        """The kind of the event behind a signal; "pointwise" when it is a function of one signal.

        "merge" is arithmetic on two different signals.
        """
        event = self.events[ref[0]]
        if event.index in self._anchors:
            return "pointwise"
        return "merge" if event.kind in POINTWISE and not event.per_unit else event.kind

    def anchor(self, ref: Ref) -> Ref:
        """The signal of which this one is a pointwise function; itself if there is none."""
        return self._anchors.get(ref[0], ref)

    def _find_anchor(self, event: Event) -> Ref | None:
        candidate = event.kind in POINTWISE or event.kind == "other"
        if not candidate or event.call is None or not event.parents:
            return None
        anchors = {self.anchor(parent) for parent in event.parents}
        if len(anchors) != 1:
            return None
        anchor = anchors.pop()
        if event.kind == "other":
            # An unknown function counts as pointwise when it is seen to be.
            inside = {ref for parent in event.parents for ref in self._between(anchor, parent)}
            if probe(Pointwise(anchor, [*self._in_order(inside), event], ""), "") is None:
                return None
        return anchor

    def acting(self, out: Ref) -> Acting | None:
        """What acts pointwise between the anchor of a signal and that signal."""
        source = self.anchor(out)
        steps = self._in_order(self._between(source, out))
        return acting_of(source, steps, self._label(source, out))

    def _in_order(self, refs: set[Ref]) -> list[Event]:
        return [self.events[index] for index in sorted({ref[0] for ref in refs})]

    def _label(self, source: Ref, out: Ref) -> str | None:
        """The class of a module that does exactly this, innermost first."""
        for call in self.trace.calls:
            if call.source == source and call.output == out:
                return call.type_name
        return None

    def walk_back(self, ref: Ref, through: frozenset[str] = frozenset()) -> Path:
        """Follow a signal back to the weight operation (or input) that it comes from.

        Shapes, dropout and pointwise functions are passed, and the kinds in ``through``.
        """
        path = Path(ref)
        while True:
            path.end = ref
            event, role = self.events[ref[0]], self.role(ref)
            if event.weight is not None or role in ("bias", "input"):
                return path
            path.visited.add(ref)
            if role == "pointwise":
                acting, source = self.acting(ref), self.anchor(ref)
                path.visited |= self._between(source, ref)
            elif self._passes_on(event, role, through) and len(event.parents) == 1:
                self._pass(path, event)
                ref = event.parents[0]
                continue
            else:
                acting, source = self._opaque(ref)
            if acting is None:
                path.obstruction, path.kind = self.describe(ref), role
                return path
            if path.dropouts:
                path.before = acting.then(path.before) if path.before else acting
            else:
                path.after = acting.then(path.after) if path.after else acting
            ref = source

    def _passes_on(self, event: Event, role: str, through: frozenset[str]) -> bool:
        return role in ("shape", "drop") or role in through or self._pads_space(event)

    def _pads_space(self, event: Event) -> bool:
        """Whether an event only adds positions at the edges, all of them for convolutions.

        ``Conv2d(padding_mode="circular")`` pads so before it convolves. Padded channels or
        features are another matter: they dilute the signal.
        """
        if event.kind != "pad" or len(event.parents) != 1:
            return False
        users = self.consumers.get((event.index, 0), [])
        convolved = all(u.weight is not None and u.weight.kind == "conv" for u in users)
        return convolved and event.shape[:2] == self.events[event.parents[0][0]].shape[:2]

    def _pass(self, path: Path, event: Event) -> None:
        if event.kind != "drop":
            return
        path.rate = drop_either(path.rate, event.rate)
        if event.drop > 0:
            path.dropouts += 1
            path.drop = drop_either(path.drop, event.drop)
        if event.drop > 0 and "alpha" in event.name:
            path.obstruction = f"`{event.module or event.name}` is an alpha dropout ({event.name})"

    def _between(self, source: Ref, out: Ref) -> set[Ref]:
        found, stack = set(), [out]
        while stack:
            ref = stack.pop()
            if ref != source and ref not in found:
                found.add(ref)
                stack += self.events[ref[0]].parents
        return found

    def _opaque(self, out: Ref) -> tuple[Acting | None, Ref]:
        """Try the module that made a signal as a function of one number."""
        for call in self.trace.calls:
            module = self.modules.get(call.path)
            if call.output != out or call.source is None or module is None:
                continue
            same = self.events[call.source[0]].shape == self.events[out[0]].shape
            if call.leaf and same and not any(True for _ in module.parameters()):
                acting = probe(module, call.type_name)
                if acting is not None:
                    return acting, call.source
        return None, out

    def follow(self, ref: Ref) -> tuple[Acting | None, Ref, float, float]:
        """What acts on a signal next: activation, the signal it acts on, drop and rate after it."""
        found: Acting | None = None
        place, drop, rate = ref, 0.0, 0.0
        while True:
            ends = self._pointwise_ends(ref)
            users = self.consumers.get(ref, [])
            if len(ends) == 1:
                acting = self.acting(ends[0])
                if acting is None or (found is not None and acting.slope is None):
                    break
                if acting.slope is None:
                    found, place = acting, ref
                ref = ends[0]
            elif not ends and len(users) == 1 and users[0].kind == "opaque" and found is None:
                found, place = self._opaque((users[0].index, 0))
                if found is None:
                    break
                ref = (users[0].index, 0)
            elif not ends and len(users) == 1 and users[0].kind in _PASSES:
                if users[0].kind == "norm" and found is not None:
                    break
                drop, rate = drop_either(drop, users[0].drop), drop_either(rate, users[0].rate)
                ref = (users[0].index, 0)
            else:
                break
        return found, place, drop, rate

    def _pointwise_ends(self, source: Ref) -> list[Ref]:
        """Outputs of the pointwise functions of a signal that something else uses."""
        group = self._groups.get(source, set())
        ends = []
        live = group if self._live is None else group & self._live
        for index in sorted(live):
            users = self.consumers.get((index, 0), [])
            if not users or any(user.index not in live for user in users):
                ends.append((index, 0))
        return ends

    def weight_of(self, ref: Ref) -> Event | None:
        """The weight operation whose output (with its bias) a signal is."""
        event = self.events[ref[0]]
        if event.kind == "bias":
            event = self.events[event.parents[0][0]]
        return event if event.weight is not None else None

    def output_of(self, event: Event) -> Event:
        """The event at which a weight operation is complete: itself, or its separate bias."""
        users = self.consumers.get((event.index, 0), [])
        return users[0] if len(users) == 1 and users[0].kind == "bias" else event

    def name_of(self, ref: Ref) -> str:
        """A signal in words: the last weight operation before it, or the input."""
        last = _last_weight(self.trace, ref)
        return f"the output of `{self.names[last]}`" if last is not None else "the input"

    def describe(self, ref: Ref) -> str:
        """Why the theory of plain chains stops at a signal, in words."""
        event, role = self.events[ref[0]], self.role(ref)
        place = f"`{event.module}`" if event.module else "the model"
        if role == "merge":
            return self._describe_merge(event, place)
        if event.per_unit:
            return f"{place} uses constants that differ from unit to unit (`{event.name}`)"
        words = {
            "norm": f"{place} normalises (`{event.name}`)",
            "pool": f"{place} pools (`{event.name}`)",
            "attention": f"{place} attends (`{event.name}`)",
            "embedding": f"{place} looks up an embedding",
            "fused": f"{place} runs a fused operation (`{event.name}`) whose inside cannot be seen",
            "opaque": f"the inside of {place} cannot be seen",
            "random": f"{place} adds or multiplies custom noise (`{event.name}`)",
            "shape": f"{place} joins signals (`{event.name}`)",
        }
        return words.get(role, f"{place} applies `{event.name}`, which mixes units")

    def _describe_merge(self, event: Event, place: str) -> str:
        sides = list(dict.fromkeys(self.name_of(parent) for parent in event.parents))
        if any(self._is_noise(parent) for parent in event.parents):
            return f"{place} multiplies or adds custom noise, whose rate cannot be read"
        both = f"{sides[0]} and {sides[1]}" if len(sides) > 1 else f"two versions of {sides[0]}"
        if event.name in ("mul", "div") and any(map(self._is_statistic, event.parents)):
            return f"{place} scales a signal by a statistic of it (`{event.name}`): a normalisation"
        if event.name in ("add", "sub"):
            nested = self._nested(event.parents)
            return f"{place} adds {both}: {'a residual branch' if nested else 'parallel branches'}"
        return f"{place} combines {both} (`{event.name}`)"

    def _nested(self, refs: tuple[Ref, ...]) -> bool:
        """Whether one of two signals was computed from what the other one is made of."""
        last = [_last_weight(self.trace, ref) for ref in refs]
        return (
            None in last
            or any(
                first in ancestors(self.trace, [ref])
                for first in last
                if first is not None
                for ref, other in zip(refs, last, strict=True)
                if other != first
            )
            or len(set(last)) == 1
        )

    def _is_statistic(self, ref: Ref) -> bool:
        event = self.events[ref[0]]
        if event.kind == "pool" or event.name in ("norm", "vector_norm", "std", "var"):
            return True
        passes = event.kind in (*POINTWISE, "shape")
        return passes and len(event.parents) == 1 and self._is_statistic(event.parents[0])

    def _is_noise(self, ref: Ref) -> bool:
        event = self.events[ref[0]]
        if event.kind == "random":
            return True
        pointwise = event.kind in (*POINTWISE, "shape", "pad", "other")
        return pointwise and bool(event.parents) and all(map(self._is_noise, event.parents))


def drop_either(first: float, second: float) -> float:
    """Probability that at least one of two independent dropouts drops a unit."""
    return first + second - first * second


def ancestors(trace: Trace, refs: Iterable[Ref]) -> set[int]:
    """Events that a set of signals was computed from, with their own."""
    seen: set[int] = set()
    stack = [ref[0] for ref in refs]
    while stack:
        index = stack.pop()
        if index not in seen:
            seen.add(index)
            stack += [parent[0] for parent in trace.events[index].parents]
    return seen


def _last_weight(trace: Trace, ref: Ref) -> int | None:
    """The latest weight operation among those that a signal comes from directly."""
    seen: set[int] = set()
    stack, found = [ref[0]], None
    while stack:
        event = trace.events[stack.pop()]
        if event.index in seen:
            continue
        seen.add(event.index)
        if event.weight is None:
            stack += [parent[0] for parent in event.parents]
        elif found is None or event.index > found:
            found = event.index
    return found


def _modules(model: nn.Module | None) -> dict[str, nn.Module]:
    if model is None:
        return {}
    return {
        ".".join(part for part in name.split(".") if part != "_orig_mod"): module
        for name, module in model.named_modules()
    }


def _weight_names(trace: Trace) -> dict[int, str]:
    """A name for every event with weights: its module, or the parameter where that is clearer."""
    names: dict[int, str] = {}
    calls: dict[str, int] = {}
    for event in trace.events:
        if event.weight is None and event.kind != "fused":
            continue
        name = _weight_name(event) or trace.model_name
        calls[name] = calls.get(name, 0) + 1
        names[event.index] = name if calls[name] == 1 else f"{name} (call {calls[name]})"
    return names


def _weight_name(event: Event) -> str:
    owners = event.weight.owners if event.weight is not None else ()
    prefix = f"{event.module}." if event.module else ""
    if not owners or not owners[0].startswith(prefix):
        return event.module
    local = owners[0].removeprefix(prefix)
    if local in ("weight", "weight_orig", "weight_g", "weight_v") or "parametrizations." in local:
        local = local.partition("parametrizations.")[0].rstrip(".") if "." in local else ""
    else:
        local = local.removesuffix(".weight").removesuffix("_weight")
    return (prefix + local).rstrip(".") if local else event.module

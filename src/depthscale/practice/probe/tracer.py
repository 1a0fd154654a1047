"""Watch a model run: every torch function with where its inputs came from, in which module.

A ``TorchFunctionMode`` sees each torch function, whether a module or plain code called it; hooks
tell in which module it ran; a weak identity map tells which operation made each of its inputs.
"""

from __future__ import annotations

import re
import sys
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from depthscale.answers import InputError
from depthscale.practice.probe.events import Call, Event, ModuleCall, Ref, Slot
from depthscale.practice.probe.feed import Feed, tensors_of
from depthscale.practice.probe.operations import (
    POINTWISE,
    TENSOR_GETTERS,
    argument,
    operation_kind,
    operation_name,
)
from depthscale.practice.probe.weights import WeightUse, bias_of, weight_use

_FUSED = re.compile("lstm|gru|rnn|linear|conv|attention|tensordot|baddbmm|einsum")


@contextmanager
def eager() -> Iterator[None]:
    """Run torch.compile'd parts as plain Python (dynamo is only imported where one exists)."""
    compiles = "torch._dynamo" in sys.modules
    with torch.compiler.set_stance("force_eager") if compiles else nullcontext():
        yield


@cache
def _open_attention() -> Callable[..., Any]:
    """``F.multi_head_attention_forward`` whose inner operations a function mode can see.

    The original hands itself over to the mode as one piece; this one has the same code with that
    hand-over switched off, so that its projections, dropout and products arrive one by one.
    """
    original = nn.functional.multi_head_attention_forward
    scope = {**original.__globals__, "has_torch_function": lambda _: False}
    copy = types.FunctionType(
        original.__code__, scope, original.__name__, original.__defaults__, original.__closure__
    )
    copy.__kwdefaults__ = original.__kwdefaults__
    return copy


@dataclass
class _Frame:
    path: str
    number: int
    first: int
    source: Ref | None


class Tracer(TorchFunctionMode):
    """Records events of one forward pass and hands chosen signals to watchers.

    ``watch`` maps keys (of events or module returns) to functions that get the tensor. With
    ``gradients`` a weight or embedding output that hangs on nothing differentiable (frozen
    weights on integer inputs) becomes the root of a graph, so that gradients of signals exist even
    where no parameter wants one. ``roots`` are the places at which graphs of signals begin, in the
    form that ``torch.autograd.grad`` takes.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        watch: Mapping[str, Callable[[torch.Tensor], None]] | None = None,
        gradients: bool = False,
    ) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.calls: list[ModuleCall] = []
        self.unresolved: list[str] = []
        self.roots: list[Any] = []
        self.watch = dict(watch or {})
        self.describing = watch is None
        self.gradients = gradients
        self.active = False
        self._paths = {id(module): _clean(name) for name, module in model.named_modules()}
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], Ref]] = {}
        self._owners: dict[int, tuple[weakref.ref[torch.Tensor], tuple[str, ...]]] = {}
        self._counts: Counter[str] = Counter()
        self._frames: list[_Frame] = []
        self._failed: str | None = None
        for name, parameter in model.named_parameters():
            self._owners[id(parameter)] = (weakref.ref(parameter), (_clean(name),))

    def run(self, model: nn.Module, feed: Feed) -> Any:
        """Run the model on a feed under this tracer; its own error becomes an InputError."""
        for path, tensor in tensors_of(feed.inputs):
            self._append("input", path or "input", (), [tensor])
        handles = self._hook(model)
        self.active = True
        try:
            with eager(), self:
                return feed.call(model)
        # Whatever a foreign forward raises is the answer to "can it run this input?": quoted.
        except Exception as error:
            where = self._failed
            raise InputError(
                f"{type(model).__name__} cannot run these inputs ({feed})"
                + (f"; it failed in `{where}`" if where else "")
                + f" with {type(error).__name__}: {error}"
            ) from error
        finally:
            self.active = False
            for handle in handles:
                handle.remove()

    def signal(self, tensor: torch.Tensor) -> Ref | None:
        """Which recorded signal a tensor is, None when it does not come from the input."""
        entry = self._known.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one torch function and record it when a signal goes through."""
        kwargs = kwargs or {}
        if not self.active:
            return func(*args, **kwargs)
        if func is nn.functional.multi_head_attention_forward:
            with self:
                return _open_attention()(*args, **kwargs)
        out = func(*args, **kwargs)
        name = operation_name(func)
        if isinstance(out, torch.Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(out):
            # Inside torch.vmap one tensor stands for many; what comes out of it is opaque.
            if self.describing:
                self._unresolve("vmap")
            return out
        if isinstance(out, torch.Tensor):
            if getattr(func, "__name__", "") == "__get__" and name not in TENSOR_GETTERS:
                return out
            return self._record(func, name, args, kwargs, [out], out)
        if isinstance(out, tuple | list):
            tensors = [tensor for _, tensor in tensors_of(out)]
            if type(out) is tuple and tensors and tensors[0] is out[0] and _FUSED.search(name):
                # What a fused operation gives in front is its signal (an LSTM: all its states).
                first = self._record(func, name, args, kwargs, tensors, out[0])
                return (first, *out[1:])
            if tensors:
                self._record(func, name, args, kwargs, tensors, None)
        elif name == "setitem" and isinstance(args[0], torch.Tensor):
            self._record(func, name, args, kwargs, [args[0]], None)
        return out

    def _record(
        self,
        func: Callable[..., Any],
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outputs: list[torch.Tensor],
        single: torch.Tensor | None,
    ) -> Any:
        inputs = [tensor for _, tensor in tensors_of([args, kwargs])]
        refs = {ref: tensor for tensor in inputs if (ref := self.signal(tensor)) is not None}
        kind = operation_kind(name)
        if kind == "constant":
            return single
        if kind == "random" or (name == "rrelu" and _in_training(args, kwargs, 3)):
            self._append("random", name, () if name.endswith("like") else tuple(refs), outputs)
            return single
        use = None
        if kind == "weight":
            use = weight_use(name, args, kwargs, self._is_signal, self.owners)
        if not refs and use is None:
            self._inherit_owner(inputs, outputs)
            return single
        parents = tuple(refs)
        details: dict[str, Any] = {}
        if use is not None:
            details["weight"] = self._describe_weight(use)
        elif kind == "weight":
            kind = "other"
        if kind == "embedding":
            details["owners"] = self._all_owners(inputs)
        if kind == "drop" or name == "scaled_dot_product_attention":
            details["rate"], details["drop"] = _drop_of(name, args, kwargs)
        if kind in POINTWISE or kind == "other":
            kind = self._refine(kind, name, args, inputs, parents, single, details)
            if self.describing and single is not None and _keeps_shape(single, refs):
                details.update(self._callable(func, args, kwargs, single, inputs))
        if self.gradients:
            start = single is not None and kind in ("weight", "embedding", "fused")
            outputs = self._root(outputs, list(refs.values()), start=start)
            single = outputs[0] if single is not None else None
        event = self._append(kind, name, parents, outputs, **details)
        if (watcher := self.watch.get(event.key)) is not None:
            watcher(outputs[0])
        return single

    def _is_signal(self, tensor: Any) -> bool:
        return isinstance(tensor, torch.Tensor) and self.signal(tensor) is not None

    def _refine(
        self,
        kind: str,
        name: str,
        args: tuple[Any, ...],
        inputs: list[torch.Tensor],
        parents: tuple[Ref, ...],
        single: torch.Tensor | None,
        details: dict[str, Any],
    ) -> str:
        """Tell apart what one function name can mean: a bias, a reduction, a fused operation."""
        constants = [tensor for tensor in inputs if not self._is_signal(tensor)]
        if kind == "other":
            if _FUSED.search(name) and any(t.ndim >= 2 and self.owners(t) for t in constants):
                if self.describing:
                    self._unresolve(name)
                details["owners"] = self._all_owners(constants)
                return "fused"
            return kind
        if name == "add" and len(parents) == len(constants) == 1 and self.owners(constants[0]):
            before = self.events[parents[0][0]]
            if before.weight is not None and not before.weight.biased:
                scale = bias_of(before.weight, constants[0], single)
                if scale is not None:
                    details["sigma_b"] = scale
                    details["owners"] = self.owners(constants[0])
                    return "bias"
        # max, min and the like reduce when called with a dimension.
        if single is None or single.numel() < max(tensor.numel() for tensor in inputs):
            return "pool" if kind == "elementwise" else "other"
        return kind

    def _describe_weight(self, use: WeightUse) -> WeightUse:
        if not self.describing:
            return use.stripped()
        return use.described(self.owners(use.tensor), self.owners(use.bias))

    def _callable(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        out: torch.Tensor,
        inputs: list[torch.Tensor],
    ) -> dict[str, Any]:
        """The call with signals as slots, when its constants are the same for all units."""
        constants = [tensor for tensor in inputs if not self._is_signal(tensor)]
        scalars = {id(tensor): _scalar(tensor) for tensor in constants}
        if any(value is None for value in scalars.values()):
            return {"per_unit": True}

        def replace(tree: Any) -> Any:
            if isinstance(tree, torch.Tensor):
                ref = self.signal(tree)
                return scalars[id(tree)] if ref is None else Slot(ref)
            if isinstance(tree, tuple | list) and not isinstance(tree, torch.Size):
                return type(tree)(replace(item) for item in tree)
            return tree

        in_place = bool(args) and args[0] is out
        keywords = {key: replace(value) for key, value in kwargs.items()}
        return {"call": Call(func, tuple(replace(item) for item in args), keywords, in_place)}

    def _root(
        self, outputs: list[torch.Tensor], signals: list[torch.Tensor], *, start: bool
    ) -> list[torch.Tensor]:
        """Note where graphs begin; with ``start`` begin one here if there is none."""
        differentiable = [tensor for tensor in signals if tensor.requires_grad]
        for tensor in differentiable:
            # The model itself may ask for gradients of its input.
            if tensor.grad_fn is None and all(tensor is not root for root in self.roots):
                self.roots.append(tensor)
        if differentiable or not torch.is_grad_enabled():
            return outputs
        grown = [tensor for tensor in outputs if tensor.requires_grad]
        # An edge stays at its place of the graph also when the tensor is changed in place.
        self.roots += [torch.autograd.graph.get_gradient_edge(tensor) for tensor in grown]
        if grown or not start or not outputs[0].is_floating_point():
            return outputs
        root = outputs[0].detach().requires_grad_()
        self.roots.append(root)
        return [root.clone(), *outputs[1:]]

    def _append(
        self,
        kind: str,
        name: str,
        parents: tuple[Ref, ...],
        outputs: list[torch.Tensor],
        **details: Any,
    ) -> Event:
        module = self._frames[-1].path if self._frames else ""
        stem = f"{module}|{name}"
        self._counts[stem] += 1
        index = len(self.events)
        shape = tuple(outputs[0].shape)
        key = f"{stem}|{self._counts[stem]}"
        details["differentiable"] = torch.is_grad_enabled()
        event = Event(index, kind, name, module, key, parents, shape, **details)
        self.events.append(event)
        for slot, tensor in enumerate(outputs):
            self._known[id(tensor)] = (weakref.ref(tensor), (index, slot))
        return event

    def owners(self, tensor: Any) -> tuple[str, ...]:
        """Names of the parameters that a tensor is, or was computed from."""
        entry = self._owners.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else ()

    def _all_owners(self, tensors: list[torch.Tensor]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for tensor in tensors for name in self.owners(tensor)))

    def _inherit_owner(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        if names := self._all_owners(inputs):
            for tensor in outputs:
                if not self.owners(tensor):
                    self._owners[id(tensor)] = (weakref.ref(tensor), names)

    def _unresolve(self, name: str) -> None:
        module = self._frames[-1].path if self._frames else ""
        line = f"`{module}` ({name})" if module else f"`{name}`"
        if line not in self.unresolved:
            self.unresolved.append(line)

    def _hook(self, model: nn.Module) -> list[Any]:
        handles: list[Any] = []
        listed = {
            child
            for parent in model.modules()
            if isinstance(parent, nn.Sequential | nn.ModuleList | nn.ModuleDict)
            for child in parent.children()
        }
        hidden = [m for m in model.modules() if isinstance(m, torch.jit.ScriptModule)]
        inner = {child for script in hidden for child in script.children()}
        for script in hidden:
            # Torch refuses hooks on them, and their operations never pass by here.
            if script not in inner and self.describing:
                self.unresolved.append(f"`{self._paths[id(script)]}` (ScriptModule)")
        for module in model.modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))

            def leave(module: nn.Module, args: Any, output: Any, known: set[Any] = listed) -> None:
                self._leave(module, output, listed=module in known)

            handles.append(module.register_forward_hook(leave, always_call=True))
        return handles

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self.active:
            return
        path = self._paths.get(id(module), type(module).__name__)
        self._counts[path] += 1
        found = [t for _, t in tensors_of([args, kwargs]) if self.signal(t) is not None]
        source = self.signal(found[0]) if found else None
        self._frames.append(_Frame(path, self._counts[path], len(self.events), source))

    def _leave(self, module: nn.Module, output: Any, *, listed: bool) -> None:
        if not self.active or not self._frames:
            return
        frame = self._frames[-1]
        # Torch calls this hook also when forward raised; the innermost module comes first.
        if sys.exc_info()[0] is not None and self._failed is None:
            self._failed = frame.path
        tensor = next((t for _, t in tensors_of(output) if t.is_floating_point()), None)
        leaf = next(module.children(), None) is None
        if tensor is not None and self.signal(tensor) is None and frame.source is not None:
            self._append("opaque", type(module).__name__, (frame.source,), [tensor])
            if self.describing and not (leaf and next(module.parameters(), None) is None):
                self._unresolve(type(module).__name__)
        self._frames.pop()
        ref = self.signal(tensor) if tensor is not None else None
        number, last = frame.number, len(self.events) - 1
        kind = type(module).__name__
        call = ModuleCall(
            frame.path, kind, number, frame.first, last, frame.source, ref, leaf, listed
        )
        self.calls.append(call)
        if tensor is not None and (watcher := self.watch.get(call.key)) is not None:
            self.active = False
            try:
                watcher(tensor)
            finally:
                self.active = True


def _keeps_shape(out: torch.Tensor, refs: Mapping[Ref, torch.Tensor]) -> bool:
    return any(tensor.shape == out.shape for tensor in refs.values())


def _drop_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float]:
    """Probability dropped: the rate in training, and the one in force in this call."""
    if name == "scaled_dot_product_attention":
        rate = float(argument(args, kwargs, 4, "dropout_p", 0.0))
        return rate, rate
    rate = float(argument(args, kwargs, 1, "p", 0.5))
    default = name not in ("alpha_dropout", "feature_alpha_dropout")
    training = argument(args, kwargs, 2, "training", kwargs.get("train", default))
    return rate, rate if training else 0.0


def _in_training(args: tuple[Any, ...], kwargs: dict[str, Any], place: int) -> bool:
    """The training flag of a functional that only then draws random numbers."""
    return bool(args[place] if len(args) > place else kwargs.get("training", False))


def _scalar(tensor: torch.Tensor) -> torch.Tensor | None:
    """A constant as a scalar on the CPU, None when its entries differ."""
    flat = tensor.detach().flatten()
    if flat.numel() == 0 or not bool((flat == flat[0]).all()):
        return None
    return flat[0].cpu().clone()


def _clean(path: str) -> str:
    return ".".join(part for part in path.split(".") if part != "_orig_mod")

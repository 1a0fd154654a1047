"""Watch one forward pass drop: which module, by which function, at which rate, after what."""

from __future__ import annotations

import re
import sys
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from depthscale.answers import InputError
from depthscale.practice.dropping.adapters import (
    DropCall,
    drop_call,
    is_scripted,
    mask_rate,
    running,
    whole_rate,
)
from depthscale.practice.dropping.inserted import inserted
from depthscale.practice.probe.operations import operation_kind, operation_name
from depthscale.practice.probe.tracer import eager

_DRAWS = frozenset({"bernoulli", "rand", "rand_like"})
_HEAD = re.compile(r"(^|[._])(head|classifier|pooler)", re.IGNORECASE)


@dataclass(frozen=True)
class Drop:
    """One time that the model drops, or may do so.

    ``module`` is the path of the innermost module; ``number`` and ``ordinal`` count the calls of
    that module and, within one of them, those of ``operation``. ``operation`` is "" where the
    module as a whole is the site, "identity" for an ``nn.Identity`` in place of a drop, and the
    name of a torch function otherwise; ``call`` is there for functions that take a rate, ``drawn``
    is the rate of a mask that the model draws itself; ``attribute`` is that of inserted dropout.
    """

    module: str
    number: int
    operation: str
    ordinal: int
    kind: str
    call: DropCall | None = None
    drawn: float | None = None
    checkpointed: bool = False
    attribute: str | None = None


class Watch(TorchFunctionMode):
    """Records the drops of one forward pass, in order."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        self.drops: list[Drop] = []
        self.counts: Counter[tuple[str, int, str]] = Counter()
        self._paths = {id(module): path for path, module in modules.items()}
        self._modules = modules
        self._numbers: Counter[int] = Counter()
        self._whole: list[nn.Module] = []
        self._story = _Story()

    def run(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the model once; its own error becomes an InputError."""
        with self._hooked(), self:
            run_once(model, args, kwargs)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one torch function; record it when it drops outside of a module that is a site."""
        kwargs = kwargs or {}
        name = operation_name(func)
        call = drop_call(func, args, kwargs)
        put_in = None if call is None else inserted(sys._getframe(1))
        if put_in is not None:
            path = self._paths.get(id(put_in[0]), "")
            kind = self._story.kind(name, args, path)
            self.drops.append(Drop(path, 0, name, 1, kind, call, attribute=put_in[1]))
        elif not self._whole and (call is not None or name in _DRAWS):
            module, checkpointed = running(sys._getframe(1))
            path = self._paths.get(id(module), "")
            number = self._numbers[id(module)]
            self.counts[path, number, name] += 1
            ordinal = self.counts[path, number, name]
            kind = self._story.kind(name, args, path)
            drawn = mask_rate(name, args, kwargs)
            self.drops.append(Drop(path, number, name, ordinal, kind, call, drawn, checkpointed))
        out = func(*args, **kwargs)
        self._story.follow(name, args, kwargs, out)
        return out

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        handles: list[Any] = []
        for module in self._modules.values():
            if not is_scripted(module):
                handles.append(module.register_forward_pre_hook(self._enter))
                if whole_rate(module) is not None:
                    leave = module.register_forward_hook(
                        self._leave, always_call=True, prepend=True
                    )
                    handles.append(leave)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._numbers[id(module)] += 1
        path, number = self._paths[id(module)], self._numbers[id(module)]
        whole = whole_rate(module)
        if whole is not None:
            if not self._whole:
                kind = whole[1] if whole[1] == "path" else self._story.kind("dropout", args, path)
                self.drops.append(Drop(path, number, "", 1, kind))
            self._whole.append(module)
        elif isinstance(module, nn.Identity) and "drop" in path.rpartition(".")[2].lower():
            kind = "path" if "path" in path else self._story.kind("dropout", args, path)
            self.drops.append(Drop(path, number, "identity", 1, kind))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._whole and self._whole[-1] is module:
            self._whole.pop()


def run_once(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run a model once, without gradients; its own error becomes an InputError."""
    with torch.no_grad(), eager(), warnings.catch_warnings():
        # Checkpoints, for one, warn that nothing here wants a gradient.
        warnings.simplefilter("ignore")
        try:
            model(*args, **kwargs)
        # Whatever a foreign forward raises is the answer to "can it run this?": quoted.
        except Exception as error:
            raise InputError(
                f"{type(model).__name__} cannot run these inputs in train mode: "
                f"{type(error).__name__}: {error}; give what its forward takes"
            ) from error


class _Story:
    """What ran before a drop, from which its kind is told."""

    def __init__(self) -> None:
        self.embedded = False
        self.weighted = False
        self.since_attention: int | None = None
        self._probabilities: dict[int, weakref.ref[torch.Tensor]] = {}

    def kind(self, name: str, args: tuple[Any, ...], path: str) -> str:
        """attention, embedding, projection, mlp or other."""
        if name in ("scaled_dot_product_attention", "multi_head_attention_forward"):
            return "attention"
        if args and isinstance(args[0], torch.Tensor):
            known = self._probabilities.get(id(args[0]))
            if known is not None and known() is args[0]:
                return "attention"
        if "embed" in path.lower() or (self.embedded and not self.weighted):
            return "embedding"
        if _HEAD.search(path) or not self.weighted:
            return "other"
        if self.since_attention is not None and self.since_attention <= 1:
            return "projection"
        return "mlp"

    def follow(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        kind = operation_kind(name)
        if name in ("softmax", "scaled_dot_product_attention"):
            self.since_attention = 0
        elif name == "multi_head_attention_forward":
            self.since_attention, self.weighted = 1, True
        elif kind == "embedding":
            self.embedded = True
        elif kind == "weight" and not name.startswith("conv"):
            given = [*args, *kwargs.values()]
            if any(isinstance(value, nn.Parameter) for value in given):
                self.weighted = True
                if self.since_attention is not None:
                    self.since_attention += 1
        if isinstance(out, torch.Tensor):
            source = args[0] if args else None
            carried = kind == "identity" and id(source) in self._probabilities
            if name == "softmax" or carried:
                self._probabilities[id(out)] = weakref.ref(out)

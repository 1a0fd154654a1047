"""Hooks on a module that change the functions it calls, their rates, or drop what it returns.

Importing this loads the compiler of torch, which takes a second; so it is done where it is needed.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch import nn
from torch.overrides import TorchFunctionMode

from depthscale.practice.dropping.adapters import drop_call, running
from depthscale.practice.dropping.inserted import PREFIX, drop, inserted
from depthscale.practice.probe.operations import operation_name


def guard_hooks() -> None:
    """Have compiled code look for the hooks of modules, whenever they were added.

    By default, torch takes a module without hooks for one that never gets any: neither code
    compiled before, nor a second model of the class, would notice ours. So what was compiled that
    way is compiled anew, once in a process.
    """
    config: Any = torch._dynamo.config
    if config.skip_nnmodule_hook_guards:
        config.skip_nnmodule_hook_guards = False
        torch._dynamo.reset()


guard_hooks()  # here too: unpickling a model with hooks of ours imports this module


class _Entered(threading.local):
    """The modes of the forward passes that run in this thread, innermost last."""

    def __init__(self) -> None:
        self.modes: list[ModuleMode] = []


_ENTERED = _Entered()


class ModuleMode(TorchFunctionMode):
    """Changes the functions that one module calls itself, in one forward."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class _Rates(ModuleMode):
    """Changes the rates of the functions that one module calls itself, in one forward."""

    def __init__(self, module: nn.Module, rates: dict[tuple[str, int], float]) -> None:
        super().__init__(module)
        self.rates = rates
        self.counts: Counter[str] = Counter()

    # Compiled code cannot look up which module is running, so this stays plain Python.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        call = drop_call(func, args, kwargs)
        frame = sys._getframe(1)
        own = call is not None and inserted(frame) is None
        if call is not None and own and running(frame)[0] is self.module:
            self.counts[call.name] += 1
            rate = self.rates.get((call.name, self.counts[call.name]))
            attends = call.name == "scaled_dot_product_attention" and self.module.training
            if rate is not None and (call.acts or attends):
                args, kwargs = call.with_rate(args, kwargs, rate)
        return func(*args, **kwargs)


class _Inserted(ModuleMode):
    """Drops the outputs of some functions that one module calls itself, in one forward."""

    def __init__(self, module: nn.Module, points: dict[tuple[str, int], str], kind: str) -> None:
        super().__init__(module)
        self.points = points
        self.kind = kind
        self.names = {name for name, _ in points}
        self.counts: Counter[str] = Counter()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = operation_name(func)
        if name in self.names and running(sys._getframe(1))[0] is self.module:
            self.counts[name] += 1
            attribute = self.points.get((name, self.counts[name]))
            if attribute is not None:
                return drop(self.module, attribute, self.kind, out)
        return out


class _DropAfter:
    """Forward hook that drops a module's output: a tensor, or the first one of a tuple.

    It holds no module, so that copies of a model stay apart.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (drop(module, PREFIX, self.kind, output[0]), *output[1:])
        return drop(module, PREFIX, self.kind, output)


class _Begin:
    """Forward pre-hook for dropout after functions; holds no module either."""

    def __init__(self, points: dict[tuple[str, int], str], kind: str) -> None:
        self.points = points
        self.kind = kind

    def __call__(self, module: nn.Module, args: Any) -> None:
        begin(module, self.points, self.kind)


class _Enter:
    """Forward pre-hook; holds no module, so that copies of a model stay apart."""

    def __init__(self, rates: dict[tuple[str, int], float]) -> None:
        self.rates = rates

    def __call__(self, module: nn.Module, args: Any) -> None:
        enter(module, self.rates)


class _Leave:
    """Forward hook that ends what the pre-hook began, also after an exception."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        leave(module)


def enter(module: nn.Module, rates: dict[tuple[str, int], float]) -> None:
    """Begin to change the rates of a module's own calls."""
    push(_Rates(module, rates))


def begin(module: nn.Module, points: dict[tuple[str, int], str], kind: str) -> None:
    """Begin to drop the outputs of functions that a module calls itself."""
    push(_Inserted(module, points, kind))


def push(mode: ModuleMode) -> None:
    """Begin what a mode does, until ``leave`` is called for its module."""
    mode.__enter__()  # type: ignore[no-untyped-call]
    _ENTERED.modes.append(mode)


def leave(module: nn.Module) -> None:
    """End it."""
    if _ENTERED.modes and _ENTERED.modes[-1].module is module:
        _ENTERED.modes.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]


def hook_mode(
    module: nn.Module, begin: Callable[[nn.Module, Any], None]
) -> list[Callable[[], None]]:
    """Call ``begin``, which pushes a mode, before each forward of a module, and end it after."""
    guard_hooks()
    first = module.register_forward_pre_hook(begin)
    last = module.register_forward_hook(_Leave(), always_call=True)
    return [first.remove, last.remove]


def hook(module: nn.Module, rates: dict[tuple[str, int], float]) -> list[Callable[[], None]]:
    """Hook the interception onto a module; the functions returned take it off."""
    return hook_mode(module, _Enter(rates))


def hook_functions(
    module: nn.Module, points: dict[tuple[str, int], str], kind: str
) -> list[Callable[[], None]]:
    """Drop the outputs of functions that a module calls; ``points`` name the rates' attributes."""
    return hook_mode(module, _Begin(points, kind))


def hook_output(module: nn.Module, kind: str) -> list[Callable[[], None]]:
    """Drop what a module returns, at the rate in its attribute ``inserted_dropout``."""
    guard_hooks()
    return [module.register_forward_hook(_DropAfter(kind)).remove]

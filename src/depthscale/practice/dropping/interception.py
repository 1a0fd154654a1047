"""Change the rates of the dropout functions that a module calls itself, by hooks on that module.

Importing this loads the compiler of torch, which takes a second; so it is done where it is needed.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from depthscale.practice.dropping.adapters import drop_call, running
from depthscale.practice.dropping.inserted import drop, inserted
from depthscale.practice.probe.operations import operation_name


class _Entered(threading.local):
    """The modes of the forward passes that run in this thread, innermost last."""

    def __init__(self) -> None:
        self.modes: list[_Rates | _Inserted] = []


_ENTERED = _Entered()


class _Rates(TorchFunctionMode):
    """Changes the rates of the functions that one module calls itself, in one forward."""

    def __init__(self, module: nn.Module, rates: dict[tuple[str, int], float]) -> None:
        super().__init__()
        self.module = module
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


class _Inserted(TorchFunctionMode):
    """Drops the outputs of some functions that one module calls itself, in one forward."""

    def __init__(self, module: nn.Module, points: dict[tuple[str, int], str], kind: str) -> None:
        super().__init__()
        self.module = module
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
    _push(_Rates(module, rates))


def begin(module: nn.Module, points: dict[tuple[str, int], str], kind: str) -> None:
    """Begin to drop the outputs of functions that a module calls itself."""
    _push(_Inserted(module, points, kind))


def _push(mode: _Rates | _Inserted) -> None:
    mode.__enter__()  # type: ignore[no-untyped-call]
    _ENTERED.modes.append(mode)


def leave(module: nn.Module) -> None:
    """End it."""
    if _ENTERED.modes and _ENTERED.modes[-1].module is module:
        _ENTERED.modes.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]


def hook(module: nn.Module, rates: dict[tuple[str, int], float]) -> list[Callable[[], None]]:
    """Hook the interception onto a module; the functions returned take it off."""
    first = module.register_forward_pre_hook(_Enter(rates))
    last = module.register_forward_hook(_Leave(), always_call=True)
    return [first.remove, last.remove]


def hook_functions(
    module: nn.Module, points: dict[tuple[str, int], str], kind: str
) -> list[Callable[[], None]]:
    """Drop the outputs of functions that a module calls; ``points`` name the rates' attributes."""
    first = module.register_forward_pre_hook(_Begin(points, kind))
    last = module.register_forward_hook(_Leave(), always_call=True)
    return [first.remove, last.remove]

"""Which attributes of which modules are drop rates, and which torch functions take one."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from depthscale.practice.dropping.inserted import PREFIX
from depthscale.practice.probe.operations import argument, operation_kind, operation_name

_PATH = re.compile("droppath|stochasticdepth")
_PATH_RATES = ("drop_prob", "p", "drop_rate")
_CHECKPOINT = re.compile(r"torch[\\/]utils[\\/]checkpoint\.py$")


@dataclass(frozen=True)
class DropCall:
    """A torch function that drops: where its rate stands, the rate, whether it acts.

    ``place`` and ``keyword`` are the position and the name of the rate among its arguments;
    ``acts`` says that the call drops as far as its other arguments go.
    """

    name: str
    place: int
    keyword: str
    rate: float
    acts: bool

    def with_rate(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], rate: float
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the call with another rate."""
        if len(args) > self.place:
            return (*args[: self.place], rate, *args[self.place + 1 :]), kwargs
        return args, {**kwargs, self.keyword: rate}


def drop_call(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> DropCall | None:
    """What a call of a torch function drops; None for functions that never do."""
    raw = getattr(func, "__name__", "")
    if "drop" not in raw and "attention" not in raw:
        return None  # at once: this is asked for every function that a model calls
    name = operation_name(func)
    if name == "scaled_dot_product_attention":
        place, keyword, default = 4, "dropout_p", 0.0
    elif name == "multi_head_attention_forward":
        place, keyword, default = 10, "dropout_p", 0.0
    elif operation_kind(name) == "drop":
        place, keyword, default = 1, "p", 0.5
    else:
        return None
    given = argument(args, kwargs, place, keyword)
    rate = float(default if given is None else given)
    if name == "scaled_dot_product_attention":
        acts = rate > 0.0
    elif name == "multi_head_attention_forward":
        acts = bool(argument(args, kwargs, 13, "training", True))
    else:
        flag = kwargs.get("train", "alpha" not in name)
        acts = bool(argument(args, kwargs, 2, "training", flag))
    return DropCall(name, place, keyword, rate, acts)


def mask_rate(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """Probability of a zero in a mask that a model draws itself, None where it is not a number."""
    chance = argument(args, kwargs, 1, "p") if name == "bernoulli" else None
    return 1.0 - float(chance) if isinstance(chance, int | float) else None


def is_path(module: nn.Module) -> bool:
    """Whether the class of a module is named like DropPath or StochasticDepth."""
    return bool(_PATH.search(type(module).__name__.lower().replace("_", "")))


def path_rate(module: nn.Module) -> str | None:
    """Name of the attribute with the rate of a DropPath or StochasticDepth module.

    "" for such a module without a known attribute, None for any other module, also for one that
    holds parameters or modules, whose inside is looked at instead.
    """
    inside = next(module.children(), None) or next(iter(module.parameters(recurse=False)), None)
    if not is_path(module) or inside is not None:
        return None
    held = vars(module)
    return next((key for key in _PATH_RATES if key in held and _is_rate(held[key], True)), "")


def whole_rate(module: nn.Module) -> tuple[str, str] | None:
    """Attribute and kind of a module that is one site by itself, whatever runs inside.

    Dropout modules, paths ("" as the attribute when unknown), and recurrent ones of several layers.
    """
    if isinstance(module, _DropoutNd):
        return "p", "other"
    if isinstance(module, nn.RNNBase):
        return ("dropout", "other") if module.num_layers > 1 else None
    path = path_rate(module)
    return None if path is None else (path, "path")


def candidates(modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    """Every (path of a module, attribute) that may be a drop rate."""
    for path, module in modules.items():
        whole = whole_rate(module)
        if whole is not None:
            if whole[0]:
                yield path, whole[0]
            if PREFIX in vars(module):
                yield path, PREFIX
            continue
        drops = "drop" in type(module).__name__.lower() or is_path(module)
        for key, value in vars(module).items():
            named = "drop" in key.lower() or (drops and key == "p")
            if named and _is_rate(value) and not is_scripted(module):
                yield path, key


def attribute_name(module: nn.Module, path: str, attribute: str) -> str:
    """Name of the site whose rate an attribute holds: the path where the module is the site."""
    whole = whole_rate(module)
    own = whole is not None and whole[0] == attribute
    return path if own and path else f"{path}.{attribute}".strip(".")


def _is_rate(value: Any, may_lack: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value is None and may_lack
    return 0.0 <= value < 1.0


_CALL = nn.Module._call_impl.__code__


def running(frame: types.FrameType | None) -> tuple[nn.Module | None, bool]:
    """The innermost module whose forward runs in a frame, and whether a checkpoint lies between."""
    checkpointed = False
    while frame is not None:
        code = frame.f_code
        if code is _CALL:
            module: nn.Module = frame.f_locals["self"]
            return module, checkpointed
        checkpointed = checkpointed or bool(_CHECKPOINT.search(code.co_filename))
        frame = frame.f_back
    return None, checkpointed


def clean_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules by path, without the ``_orig_mod`` of compiled parts; each module once."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        found[".".join(part for part in name.split(".") if part != "_orig_mod")] = module
    return found


def is_scripted(module: nn.Module) -> bool:
    """Whether the inside of a module is hidden from Python."""
    return isinstance(module, torch.jit.ScriptModule)

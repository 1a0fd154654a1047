"""Dropout that was put after a module, or after a function that it calls, and is no module itself.

The rate is a plain attribute of that module, so that ``state_dict`` and ``named_modules`` are those
of before; a forward hook drops at it. Both are copied and pickled along with the module.
"""

from __future__ import annotations

import types
from collections.abc import Callable

import torch
from torch import nn

PREFIX = "inserted_dropout"

KINDS: dict[str, Callable[[torch.Tensor, float, bool], torch.Tensor]] = {
    "elements": torch.dropout,
    "channels": torch.feature_dropout,
    "alpha": torch.alpha_dropout,
}


def drop(module: nn.Module, attribute: str, kind: str, signal: torch.Tensor) -> torch.Tensor:
    """Drop at the rate that an attribute of the module holds, while the module is in train mode.

    At rate 0, torch hands the very same tensor back and draws nothing.
    """
    # Called directly, so that whoever watches torch functions can tell these calls by their frame.
    return KINDS[kind](signal, getattr(module, attribute), module.training)


def inserted(frame: types.FrameType) -> tuple[nn.Module, str] | None:
    """Module and attribute behind a dropout called from this frame, None for the model's own."""
    if frame.f_code is not drop.__code__:
        return None
    return frame.f_locals["module"], frame.f_locals["attribute"]


def attribute_of(operation: str, ordinal: int) -> str:
    """Name of the attribute for dropout after call number ``ordinal`` of a function.

    ``inserted_dropout`` for "", the output of the module; ``inserted_dropout_relu2``, say, else.
    """
    number = str(ordinal) if ordinal > 1 else ""
    return f"{PREFIX}_{operation}{number}" if operation else PREFIX

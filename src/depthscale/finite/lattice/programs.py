"""Calls with all they work on, for what is done to the same memory in every layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthscale.finite.columns import on_host

Program = list[Callable[[], object]]
"""In their order: views are made once, which would cost more than arithmetic in every layer."""


def call(name: str, left: Tensor, right: Tensor | float, out: Tensor) -> Callable[[], object]:
    """A ufunc of numpy on the host, where it costs less, and torch's elsewhere."""
    if not on_host(out):
        return partial(getattr(torch, name), left, right, out=out)
    x = left.numpy()
    y: Any = right.numpy() if isinstance(right, Tensor) else x.dtype.type(right)
    return partial(getattr(np, name), x, y, out=out.numpy())


def copying(source: Tensor, out: Tensor) -> Callable[[], object]:
    """A copy."""
    if not on_host(out):
        return partial(out.copy_, source)
    return partial(np.copyto, out.numpy(), source.numpy())

"""Shaped activations as torch modules: plain numbers, no parameters, nothing in ``state_dict``."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from depthscale.answers import InputError
from depthscale.practice.probe.operations import named_activation
from depthscale.practice.shaping.families import Layer
from depthscale.theory.functions.from_torch import is_torch, spelling
from depthscale.theory.functions.function import Activation
from depthscale.theory.records import as_number


class LeakySlope(nn.Module):
    """``gain x`` for ``x > 0``, ``gain slope x`` below."""

    def __init__(self, slope: float, gain: float) -> None:
        super().__init__()
        self.slope = slope
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Elementwise, any shape."""
        return self.gain * F.leaky_relu(x, self.slope)

    def extra_repr(self) -> str:
        """The two numbers."""
        return f"slope={self.slope:.6g}, gain={self.gain:.6g}"


class Transformed(nn.Module):
    """``output_scale (base(input_scale x + input_shift) + output_shift)``."""

    def __init__(
        self,
        base: nn.Module,
        input_scale: float = 1.0,
        input_shift: float = 0.0,
        output_scale: float = 1.0,
        output_shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.base = base
        self.input_scale = input_scale
        self.input_shift = input_shift
        self.output_scale = output_scale
        self.output_shift = output_shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Elementwise, any shape."""
        inside = self.base(self.input_scale * x + self.input_shift)
        out: torch.Tensor = self.output_scale * (inside + self.output_shift)
        return out

    def extra_repr(self) -> str:
        """The four numbers."""
        return (
            f"input_scale={self.input_scale:.6g}, input_shift={self.input_shift:.6g}, "
            f"output_scale={self.output_scale:.6g}, output_shift={self.output_shift:.6g}"
        )


class Elementwise(nn.Module):
    """A torch function such as ``torch.erf`` as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Elementwise, any shape."""
        return self.function(x)


def build(spec: Any, base: Activation, layer: Layer, sigma_w: float) -> nn.Module:
    """The module of a shaped layer behind weights ``N(0, sigma_w^2/fan_in)``."""
    scale = as_number("sigma_w", sigma_w)
    if not 0 < scale < math.inf:
        raise InputError(f"sigma_w is {sigma_w!r}; expected a positive standard deviation")
    if layer.slope is not None:
        return LeakySlope(layer.slope, layer.gain / scale)
    assert layer.transform is not None  # a layer has a slope or a transform
    numbers = dict(vars(layer.transform))
    numbers["output_scale"] /= scale
    return Transformed(base_module(spec, base), **numbers)


def base_module(spec: Any, base: Activation) -> nn.Module:
    """The activation that was shaped, as a module of its own.

    Raises
    ------
    InputError
        It was given as a function of numpy arrays, or is one that torch does not have.
    """
    if isinstance(spec, nn.Module):
        return copy.deepcopy(spec)
    if is_torch(spec) and spelling(spec) is None:
        return Elementwise(spec)
    match = re.fullmatch(r"(\w+)(?:\((.*)\))?", base.name)
    if match is not None:
        name, numbers = match.groups()
        keywords = {"approximate": "tanh"} if name == "gelu_tanh" else {}
        given = [float(x) for x in (numbers or "").split(",") if x.strip()]
        name = {"gelu_tanh": "gelu", "prelu": "leaky_relu"}.get(name, name)
        if known := named_activation(name, (None, *given), keywords):
            function = known[0]
            return function if isinstance(function, nn.Module) else Elementwise(function)
    raise InputError(
        f"{base.name} is no torch function; give shape() an nn.Module (or a torch function) that"
        " computes it"
    )

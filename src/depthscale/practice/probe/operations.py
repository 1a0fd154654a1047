"""Torch functions by name: what each one does to a signal, and activations as clean modules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_ALIASES = {
    "iadd": "add",
    "radd": "add",
    "isub": "sub",
    "subtract": "sub",
    "imul": "mul",
    "rmul": "mul",
    "multiply": "mul",
    "truediv": "div",
    "itruediv": "div",
    "divide": "div",
    "true_divide": "div",
    "ipow": "pow",
    "negative": "neg",
    "absolute": "abs",
    "clip": "clamp",
    "expit": "sigmoid",
    "native_batch_norm": "batch_norm",
    "native_layer_norm": "layer_norm",
    "native_dropout": "dropout",
}

_KINDS: dict[str, str] = {}


def _register(kind: str, names: str) -> None:
    _KINDS.update(dict.fromkeys(names.split(), kind))


_register("weight", "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d")
_register("weight", "conv_transpose3d convolution matmul mm bmm addmm mv rmatmul einsum")
_register("activation", "relu leaky_relu elu celu selu gelu silu mish softplus softsign tanh")
_register("activation", "sigmoid hardtanh relu6 hardswish hardsigmoid tanhshrink softshrink")
_register("activation", "hardshrink threshold logsigmoid prelu rrelu")
_register("elementwise", "add sub rsub mul div rdiv rtruediv reciprocal neg pow rpow float_power")
_register("elementwise", "abs exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square sin cos tan")
_register(
    "elementwise", "asin acos atan sinh cosh asinh acosh atanh erf erfc erfinv sign sgn floor"
)
_register("elementwise", "ceil round trunc frac clamp clamp_min clamp_max maximum minimum where")
_register("elementwise", "masked_fill heaviside nan_to_num logaddexp atan2 hypot lerp addcmul")
_register("elementwise", "gt lt ge le eq ne logical_and logical_or logical_not and or invert")
_register("elementwise", "max min sinc lgamma digamma i0")
_register("constant", "zeros_like ones_like full_like empty_like new_zeros new_ones new_full")
_register("constant", "new_empty new_tensor")
_register("identity", "to float half double bfloat16 type type_as clone contiguous detach data")
_register("identity", "alias requires_grad cpu cuda")
_register("shape", "view reshape flatten ravel transpose permute t T mT H mH squeeze unsqueeze")
_register(
    "shape", "expand expand_as view_as reshape_as unflatten movedim moveaxis swapaxes swapdims"
)
_register("shape", "chunk split tensor_split unbind getitem narrow select pixel_shuffle")
_register("shape", "pixel_unshuffle channel_shuffle flip roll")
_register("pad", "pad")
_register("drop", "dropout alpha_dropout feature_dropout feature_alpha_dropout dropout1d dropout2d")
_register("drop", "dropout3d")
_register("norm", "batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm")
_register("norm", "normalize")
_register("pool", "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d")
_register("pool", "lp_pool2d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d")
_register("pool", "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d boolean_dispatch")
_register("pool", "fractional_max_pool2d mean sum amax amin logsumexp fn")
_register("attention", "scaled_dot_product_attention softmax")
_register("embedding", "embedding embedding_bag")
_register("random", "bernoulli rand rand_like randn randn_like normal uniform random exponential")
_register("random", "randint randint_like randperm multinomial log_normal geometric cauchy")

POINTWISE = frozenset({"activation", "elementwise", "identity"})
"""Kinds of events that act on each number by itself (as long as one signal goes in)."""

TENSOR_GETTERS = frozenset({"T", "mT", "H", "mH", "data"})
"""Tensor attributes that hand the same signal on under another shape."""


def operation_name(func: Callable[..., Any]) -> str:
    """Name of a torch function without the in-place and operator spelling.

    ``relu_``, ``torch.relu``, ``F.relu`` and ``aten.relu.default`` are all "relu"; ``x += y`` is
    "add"; the getter of ``x.T`` is "T".
    """
    raw = getattr(func, "__name__", "")
    if raw == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "")
    name = raw.split(".")[0].strip("_").removeprefix("special_")
    return _ALIASES.get(name, name)


def operation_kind(name: str) -> str:
    """What an operation does to a signal: "weight", "activation", "drop", ..., or "other"."""
    return _KINDS.get(name, "other")


def argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, default: Any = None
) -> Any:
    """Positional or keyword argument of a recorded call."""
    return args[place] if len(args) > place else kwargs.get(name, default)


_MODULES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "relu": (nn.ReLU, ()),
    "leaky_relu": (nn.LeakyReLU, ("negative_slope",)),
    "elu": (nn.ELU, ("alpha",)),
    "celu": (nn.CELU, ("alpha",)),
    "selu": (nn.SELU, ()),
    "silu": (nn.SiLU, ()),
    "mish": (nn.Mish, ()),
    "softplus": (nn.Softplus, ("beta", "threshold")),
    "softsign": (nn.Softsign, ()),
    "tanh": (nn.Tanh, ()),
    "sigmoid": (nn.Sigmoid, ()),
    "hardtanh": (nn.Hardtanh, ("min_val", "max_val")),
    "relu6": (nn.ReLU6, ()),
    "hardswish": (nn.Hardswish, ()),
    "hardsigmoid": (nn.Hardsigmoid, ()),
    "tanhshrink": (nn.Tanhshrink, ()),
    "softshrink": (nn.Softshrink, ("lambd",)),
    "hardshrink": (nn.Hardshrink, ("lambd",)),
    "threshold": (nn.Threshold, ("threshold", "value")),
    "logsigmoid": (nn.LogSigmoid, ()),
}

_PLAIN_FUNCTIONS = frozenset({"sin", "cos", "erf", "abs", "square", "exp", "atan", "asinh"})


def named_activation(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, str] | None:
    """A fresh module (or torch function) for a call of a known activation, and its label.

    ``F.leaky_relu(x, 0.2, inplace=True)`` becomes ``nn.LeakyReLU(0.2)`` and "leaky_relu(0.2)".
    ``None`` when the call is not a known activation of a single signal.
    """
    if name == "gelu":
        form = argument(args, kwargs, 1, "approximate", "none")
        return nn.GELU(approximate=form), "gelu(tanh)" if form == "tanh" else "gelu"
    if name == "prelu":
        return _prelu(argument(args, kwargs, 1, "weight"))
    if name == "rrelu":
        lower = argument(args, kwargs, 1, "lower", 1 / 8)
        upper = argument(args, kwargs, 2, "upper", 1 / 3)
        slope = (lower + upper) / 2
        return nn.LeakyReLU(slope), f"leaky_relu({slope:.4g})"
    if name in ("clamp", "clamp_min"):
        return _clamp(args, kwargs)
    if name in _PLAIN_FUNCTIONS and len(args) == 1 and not kwargs:
        return getattr(torch, name), name
    if name not in _MODULES:
        return None
    module, parameters = _MODULES[name]
    given = {
        key: value
        for place, key in enumerate(parameters, start=1)
        if (value := argument(args, kwargs, place, key)) is not None
    }
    label = f"{name}({', '.join(f'{float(value):.4g}' for value in given.values())})"
    return module(**given), label if _differs(module, given) else name


def _prelu(weight: Any) -> tuple[nn.Module, str] | None:
    if not isinstance(weight, torch.Tensor) or weight.numel() == 0:
        return None
    slopes = weight.detach().double().flatten()
    if not torch.equal(slopes, slopes[:1].expand_as(slopes)):
        return None
    slope = float(slopes[0])
    return nn.LeakyReLU(slope), f"leaky_relu({slope:.4g})"


def _clamp(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[nn.Module, str] | None:
    low = argument(args, kwargs, 1, "min")
    high = argument(args, kwargs, 2, "max")
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor) or low is None:
        return None
    if high is None:
        return (nn.ReLU(), "relu") if low == 0 else None
    return nn.Hardtanh(low, high), f"hardtanh({low:.4g}, {high:.4g})"


def _differs(module: type[nn.Module], given: dict[str, Any]) -> bool:
    """Whether a parameter of the activation is not the default one of torch."""
    if not given or module is nn.Threshold:
        return bool(given)
    plain = module()
    return any(not math.isclose(getattr(plain, key), value) for key, value in given.items())

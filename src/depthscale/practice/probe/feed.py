"""What goes into a model: inputs of any form as one batch, checked before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from depthscale.answers import InputError


@dataclass(frozen=True)
class Feed:
    """Inputs of one forward call: tensors whose first dimension is the batch, and the rest.

    ``inputs`` is what the caller gave with its tensors checked; ``spread`` says how the model takes
    it: "one" (as a single argument), "positional" (a tuple) or "keywords" (a mapping).
    """

    inputs: Any
    spread: str
    batch: int
    notes: tuple[str, ...] = ()

    @property
    def may_double(self) -> bool:
        """Whether stacking the batch twice keeps its meaning.

        Not with whole numbers that are no batch: indices (edges of a graph) would point at the
        first copy only.
        """
        return all(
            tensor.ndim == 0
            or _batched(tensor, self.batch)
            or tensor.is_floating_point()
            or tensor.dtype == torch.bool
            for _, tensor in tensors_of(self.inputs)
        )

    def doubled(self) -> Feed:
        """The batch stacked twice, so that each input meets two independent dropout masks."""

        def twice(tensor: torch.Tensor) -> torch.Tensor:
            return torch.cat([tensor, tensor]) if _batched(tensor, self.batch) else tensor

        return replace(self, inputs=map_tensors(self.inputs, twice), batch=2 * self.batch)

    def fresh(self) -> Feed:
        """The same with copies of the tensors, which a model may change in place."""
        return replace(self, inputs=map_tensors(self.inputs, torch.clone))

    def call(self, model: Callable[..., Any]) -> Any:
        """Run the model, or a function that takes what it takes, on these inputs."""
        if self.spread == "keywords":
            return model(**self.inputs)
        return model(*self.inputs) if self.spread == "positional" else model(self.inputs)

    def __str__(self) -> str:
        return describe(self.inputs)


def map_tensors(tree: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Apply a function to every tensor of nested tuples, lists and mappings."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: map_tensors(value, function) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(value, function) for value in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map_tensors(value, function) for value in tree)
    return tree


def tensors_of(tree: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a nested structure (also a dataclass or object of tensors) with its path."""
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from tensors_of(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, tuple | list):
        for place, value in enumerate(tree):
            yield from tensors_of(value, f"{path}[{place}]")
    elif hasattr(tree, "__dataclass_fields__"):
        for key in tree.__dataclass_fields__:
            yield from tensors_of(getattr(tree, key, None), f"{path}.{key}" if path else key)


def describe(tree: Any) -> str:
    """Shapes and types in words: ``input: (8, 3, 16, 16) float32``."""
    words = [
        f"{path or 'input'}: {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        for path, tensor in tensors_of(tree)
    ]
    return ", ".join(words) or type(tree).__name__


def describe_inputs(inputs: Any) -> str:
    """``describe`` for what a caller gives, which may hold NumPy arrays."""
    return describe(_to_tensors(inputs))


def prepare_feed(model: nn.Module, inputs: Any) -> Feed:
    """Inputs as tensors on the device of the model, in its float type, and checked.

    Takes a tensor or NumPy array, a tuple or list of them (positional arguments) or a mapping
    (keyword arguments; a single argument when the model takes a dict). The first dimension of each
    is the batch.

    Raises InputError for no tensor, NaN or infinite values (named), a batch of one, inputs of
    different batch size, and a batch of identical examples.
    """
    notes: list[str] = []
    tree = _to_tensors(inputs)
    found = list(tensors_of(tree))
    if not found:
        raise InputError(
            f"inputs hold no tensor (got {type(inputs).__name__}); give a tensor or array of shape "
            "(batch, ...), or a tuple or dict of them"
        )
    batch = _batch_size(found)
    _check_values(found, batch)
    tree = _match_model(model, tree, notes)
    return Feed(tree, _spread(model, tree), batch, tuple(notes))


def _to_tensors(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        # Tensors made under inference_mode cannot enter a graph; a clone made outside of it can.
        return tree.clone() if tree.is_inference() else tree.detach()
    if isinstance(tree, np.ndarray | np.generic):
        return torch.as_tensor(np.asarray(tree))
    if isinstance(tree, Mapping):
        return {key: _to_tensors(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_to_tensors(value) for value in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(_to_tensors(value) for value in tree)
    return tree


def _batch_size(found: list[tuple[str, torch.Tensor]]) -> int:
    shaped = [(path, tensor) for path, tensor in found if tensor.ndim > 0]
    if not shaped:
        raise InputError(
            f"inputs have no batch dimension ({describe(dict(found))}); expected (batch, ...)"
        )
    path, first = shaped[0]
    if len(first) < 2:
        raise InputError(
            f"the input batch holds {len(first)} example ({path or 'input'} has shape "
            f"{tuple(first.shape)}); the audit compares pairs of examples, so give at least 2 "
            "along the first dimension"
        )
    return len(first)


def _check_values(found: list[tuple[str, torch.Tensor]], batch: int) -> None:
    batched = [(path, tensor) for path, tensor in found if _batched(tensor, batch)]
    for path, tensor in found:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = ~torch.isfinite(tensor)
            where = ""
            if _batched(tensor, batch):
                rows = bad.reshape(batch, -1).any(dim=1).nonzero().flatten().tolist()
                where = f", first in example {rows[0]} ({len(rows)} of {batch} examples)"
            raise InputError(
                f"{path or 'the input'} has {int(bad.sum())} NaN or infinite values{where}; "
                "clean or drop those examples"
            )
    if all(bool((tensor == tensor[:1]).all()) for _, tensor in batched):
        raise InputError(
            f"all {batch} examples of the input are identical, so pairs of them say nothing about "
            "how a difference survives; give different examples (the same example under two "
            "dropout masks is measured in any case)"
        )


def _batched(tensor: torch.Tensor, batch: int) -> bool:
    return tensor.ndim > 0 and len(tensor) == batch


def _match_model(model: nn.Module, tree: Any, notes: list[str]) -> Any:
    """Move inputs to the one device of the model and cast floats to its one float type."""
    held: list[torch.Tensor] = [*model.parameters()] or [*model.buffers()]
    devices = {tensor.device for tensor in held}
    dtypes = {tensor.dtype for tensor in held if tensor.is_floating_point()}
    device = devices.pop() if len(devices) == 1 else None
    dtype = dtypes.pop() if len(dtypes) == 1 else None

    def match(tensor: torch.Tensor) -> torch.Tensor:
        wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        if wanted != tensor.dtype:
            short = [str(kind).removeprefix("torch.") for kind in (tensor.dtype, wanted)]
            note = f"inputs were cast from {short[0]} to {short[1]}, the type of the parameters"
            if note not in notes:
                notes.append(note)
        return tensor.to(device=device, dtype=wanted)

    return map_tensors(tree, match)


def _spread(model: nn.Module, tree: Any) -> str:
    """How the model takes the inputs, by trying them on the signature of its forward method."""
    if isinstance(tree, torch.Tensor) or not isinstance(tree, tuple | list | Mapping):
        return "one"
    preferred = "keywords" if isinstance(tree, Mapping) else "positional"
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return preferred
    args: tuple[Any, ...] = () if isinstance(tree, Mapping) else tuple(tree)
    kwargs = dict(tree) if isinstance(tree, Mapping) else {}
    for way, (positional, keywords) in {
        preferred: (args, kwargs),
        "one": ((tree,), {}),
    }.items():
        try:
            signature.bind(*positional, **keywords)
        except TypeError:
            continue
        return way
    return preferred

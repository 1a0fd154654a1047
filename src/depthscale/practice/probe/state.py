"""Leave a model and the random number generators exactly as they were, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


def generators(model: nn.Module) -> list[torch.Generator]:
    """The default generators a forward pass of the model may draw from: CPU and its devices."""
    found = [torch.default_generator]
    for device in {tensor.device for tensor in [*model.parameters(), *model.buffers()]}:
        if device.type == "cuda":
            found.append(torch.cuda.default_generators[device.index or 0])
        elif device.type == "mps":
            found.append(torch.mps._get_default_mps_generator())
    return found


def seed_everything(model: nn.Module, seed: int) -> None:
    """Seed what a forward pass of the model may draw from.

    ``torch.manual_seed`` would also queue a seed for CUDA devices that are not in use, which
    cannot be taken back; so each generator is seeded by itself.
    """
    for generator in generators(model):
        generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the global stream is what a model would use


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Restore the model and every random stream on the way out, also after an exception.

    Restored bit for bit: parameters, buffers and other tensors held by modules, ``.grad`` and
    ``requires_grad``, the mode of every submodule, hooks, and the attributes of every module,
    including the contents of its lists, dicts and sets (call counters, caches). The copy of the
    parameters that this needs is written back only where they changed (an ``nn.Embedding`` with
    ``max_norm`` does that), so autograd graphs of the caller stay valid. Side effects outside the
    model, such as what the caller's own hooks collect, cannot be undone.
    """
    streams = [(generator, generator.get_state()) for generator in generators(model)]
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    modules = [_ModuleState(module) for module in model.modules()]
    tensors = [_TensorState(tensor) for tensor in _tensors(model)]
    try:
        yield
    finally:
        for module in modules:
            module.restore()
        for tensor in tensors:
            tensor.restore()
        for generator, state in streams:
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    """Every tensor that the model holds: parameters, buffers, plain attributes, once each."""
    held = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            held += [value for value in vars(module).values() if isinstance(value, torch.Tensor)]
    return list({id(tensor): tensor for tensor in held}.values())


class _TensorState:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.data = tensor.data
        self.values = tensor.detach().clone()
        self.requires_grad = tensor.requires_grad
        self.is_leaf = tensor.is_leaf
        self.grad = tensor.grad if tensor.is_leaf else None

    def restore(self) -> None:
        tensor = self.tensor
        if tensor.data_ptr() != self.data.data_ptr() or tensor.shape != self.data.shape:
            tensor.data = self.data
        if not _same_bits(tensor.detach(), self.values):
            tensor.data.copy_(self.values)
        if self.is_leaf and tensor.is_leaf:
            if tensor.requires_grad != self.requires_grad:
                tensor.requires_grad_(self.requires_grad)
            if tensor.grad is not self.grad:
                tensor.grad = self.grad


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.is_complex() or left.is_quantized or left.layout != torch.strided:
        return torch.equal(left, right)
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[left.element_size()]
    return torch.equal(left.view(bits), right.view(bits))


class _ModuleState:
    """Attributes of one module, and the contents of its containers one level deep."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.scripted = isinstance(module, torch.jit.ScriptModule)
        self.training = module.training
        self.attributes: dict[str, Any] = {} if self.scripted else dict(vars(module))
        self.contents = {
            key: value.copy()
            for key, value in self.attributes.items()
            if isinstance(value, dict | list | set)
        }

    def restore(self) -> None:
        if self.scripted:
            if self.module.training != self.training:
                self.module.train(self.training)
            return
        now = vars(self.module)
        for key in [key for key in now if key not in self.attributes]:
            del now[key]
        now.update(self.attributes)
        for key, saved in self.contents.items():
            _refill(self.attributes[key], saved)


def _refill(container: Any, saved: Any) -> None:
    """Give a container its old items back in place, so that other references see them too."""
    if isinstance(container, list):
        if len(container) != len(saved) or any(
            now is not then for now, then in zip(container, saved, strict=True)
        ):
            container[:] = saved
    elif isinstance(container, dict):
        if list(container) != list(saved) or any(
            container[key] is not value for key, value in saved.items()
        ):
            container.clear()
            container.update(saved)
    elif container != saved:
        container.clear()
        container.update(saved)

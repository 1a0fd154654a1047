"""Leave a model and the random number generators exactly as they were, whatever happens."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from depthscale.answers import InputError

MOST_SEED = 2**63 - 1  # what torch.Generator.manual_seed and CUDA's generators take

# Most items of a container are of these types; there is nothing in them to look for.
_ATOMS = frozenset({str, int, float, bool, complex, bytes, type(None), torch.dtype, torch.device})


def check_seed(seed: Any) -> None:
    """Raise InputError for what is not a whole number in [0, 2**63)."""
    if not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
        raise InputError(f"seed must be a whole number >= 0 and below 2**63, got {seed!r}")


@dataclass(frozen=True)
class Stream:
    """One random stream that a forward pass may draw from: how to read, set and seed its state."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    seed: Callable[[int], Any]


def streams(model: nn.Module) -> list[Stream]:
    """The random streams a forward pass of the model may draw from.

    The global ones of torch (CPU and the devices of the model), Python and NumPy, then the
    generators that modules hold as attributes, also inside lists, tuples, dicts and deques.
    """
    common, own = _streams(model, _Held(model))
    return common + own


def _streams(model: nn.Module, held: _Held) -> tuple[list[Stream], list[Stream]]:
    """The global streams, and those of generators that modules hold."""
    found: list[Any] = [torch.default_generator]
    for device in {tensor.device for tensor in [*model.parameters(), *model.buffers()]}:
        if device.type == "cuda":
            found.append(torch.cuda.default_generators[device.index or 0])
        elif device.type == "mps":
            found.append(torch.mps._get_default_mps_generator())
    # What random.seed and np.random.seed seed; a module may hold these very objects too.
    found += [random._inst, np.random.mtrand._rand]
    known = {id(generator) for generator in found}
    own = [generator for generator in held.generators if id(generator) not in known]
    return [_stream(generator) for generator in found], [_stream(generator) for generator in own]


def _stream(source: Any) -> Stream:
    if isinstance(source, torch.Generator):
        return Stream(source.get_state, source.set_state, source.manual_seed)
    if isinstance(source, np.random.RandomState):
        return Stream(
            lambda: source.get_state(legacy=False),
            source.set_state,
            lambda seed: source.seed(seed % 2**32),
        )
    if isinstance(source, np.random.Generator | np.random.BitGenerator):
        bits = source.bit_generator if isinstance(source, np.random.Generator) else source

        def write(state: Any) -> None:
            bits.state = state

        return Stream(lambda: bits.state, write, lambda seed: write(type(bits)(seed).state))
    return Stream(source.getstate, source.setstate, source.seed)


def seed_everything(model: nn.Module, seed: int) -> None:
    """Seed what a forward pass of the model may draw from.

    ``torch.manual_seed`` would also queue a seed for CUDA devices that are not in use, which
    cannot be taken back; so each generator is seeded by itself. The global ones get ``seed``, as
    after ``torch.manual_seed(seed)``; those that modules hold get seeds of their own, or they would
    draw the very numbers that the global ones draw.
    """
    common, own = _streams(model, _Held(model))
    for stream in common:
        stream.seed(seed)
    for place, stream in enumerate(own):
        mixed = np.random.SeedSequence([seed, 2, place]).generate_state(1, np.uint64)[0]
        stream.seed(int(mixed) % 2**63)


def same_state(left: Any, right: Any) -> bool:
    """Whether two states of a stream, as its ``read`` gives them, are equal."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return bool(np.array_equal(left, right))
    if isinstance(left, dict):
        return all(same_state(value, right[key]) for key, value in left.items())
    if isinstance(left, tuple) and len(left) < 16:
        return all(same_state(one, other) for one, other in zip(left, right, strict=True))
    return bool(left == right)


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Restore the model and every random stream on the way out, also after an exception.

    Restored bit for bit: parameters, buffers and other tensors and NumPy arrays held by modules,
    ``.grad`` and ``requires_grad``, the mode of every submodule, hooks, generators that modules
    hold, and the attributes of every module, including the contents of lists, tuples, dicts, sets
    and deques, however nested (call counters, caches), and of modules in plain lists. The copy of
    the parameters that this needs is written back only where they changed (an ``nn.Embedding`` with
    ``max_norm`` does that), so autograd graphs of the caller stay valid. Side effects outside the
    model (what the caller's own hooks collect, the inside of other objects that modules hold)
    cannot be undone.
    """
    held = _Held(model)
    common, own = _streams(model, held)
    states = [(stream, stream.read()) for stream in common + own]
    modules = [_ModuleState(module) for module in held.modules]
    contents = [(container, _shallow(container)) for container in held.containers]
    arrays = [(array, array.copy()) for array in held.arrays]
    tensors = [_TensorState(tensor) for tensor in held.tensors]
    try:
        yield
    finally:
        for module in modules:
            module.restore()
        for container, saved in contents:
            _refill(container, saved)
        for tensor in tensors:
            tensor.restore()
        for array, values in arrays:
            if array.tobytes() != values.tobytes():
                array[...] = values
        for stream, state in states:
            stream.write(state)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore the train or eval mode of every submodule on the way out, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            _set_mode(module, training)


def _set_mode(module: nn.Module, training: bool) -> None:
    if module.training == training:
        return
    if isinstance(module, torch.jit.ScriptModule):
        module.train(training)
    else:
        module.training = training  # its own ``train`` might set others along with it


class _Held:
    """What the modules of a model hold, each object once: found by type, never copied here."""

    def __init__(self, model: nn.Module) -> None:
        self.modules: list[nn.Module] = []
        self.containers: list[Any] = []
        self.tensors: list[torch.Tensor] = []
        self.arrays: list[np.ndarray] = []
        self.generators: list[Any] = []
        self._seen: set[int] = set()
        stack: list[Any] = [*model.buffers(), *model.parameters(), *list(model.modules())[::-1]]
        while stack:
            value = stack.pop()
            if type(value) not in _ATOMS and id(value) not in self._seen:
                self._seen.add(id(value))
                stack += self._look(value)

    def _look(self, value: Any) -> list[Any]:
        """Put an object where it belongs, and return what may be inside."""
        if isinstance(value, nn.Module):
            self.modules.append(value)
            scripted = isinstance(value, torch.jit.ScriptModule)
            return [] if scripted else list(vars(value).values())
        if isinstance(value, torch.Tensor):
            self.tensors.append(value)
        elif isinstance(value, np.ndarray):
            if value.flags.writeable:
                self.arrays.append(value)
            return list(value.flat) if value.dtype == object else []
        elif isinstance(value, _GENERATORS):
            self.generators.append(value)
        elif isinstance(value, dict | list | set | deque):
            self.containers.append(value)
            return list(value.values()) if isinstance(value, dict) else list(value)
        elif isinstance(value, tuple):
            return list(value)
        return []


_GENERATORS = (
    torch.Generator,
    np.random.Generator,
    np.random.BitGenerator,
    np.random.RandomState,
    random.Random,
)


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
        if self.values.layout != torch.strided:
            # A sparse tensor has no one place in memory that could be compared and written back.
            tensor.data = self.values
        else:
            self._restore_values()
        if self.is_leaf and tensor.is_leaf:
            if tensor.requires_grad != self.requires_grad:
                tensor.requires_grad_(self.requires_grad)
            if tensor.grad is not self.grad:
                tensor.grad = self.grad

    def _restore_values(self) -> None:
        tensor = self.tensor
        if tensor.data_ptr() != self.data.data_ptr() or tensor.shape != self.data.shape:
            tensor.data = self.data
        if not _same_bits(tensor.detach(), self.values):
            tensor.data.copy_(self.values)


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.is_meta:
        return True
    if left.is_complex() or left.is_quantized:
        return torch.equal(left, right)
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[left.element_size()]
    return torch.equal(left.view(bits), right.view(bits))


class _ModuleState:
    """Mode and attributes of one module; what is inside of them is for others to restore."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.scripted = isinstance(module, torch.jit.ScriptModule)
        self.training = module.training
        self.attributes: dict[str, Any] = {} if self.scripted else dict(vars(module))

    def restore(self) -> None:
        if self.scripted:
            _set_mode(self.module, self.training)
            return
        now = vars(self.module)
        for key in [key for key in now if key not in self.attributes]:
            del now[key]
        now.update(self.attributes)


def _shallow(container: Any) -> Any:
    """The items of a container, without copying them or calling the methods of a subclass."""
    if isinstance(container, dict):
        return dict(container.items())
    return set(container) if isinstance(container, set) else list(container)


def _refill(container: Any, saved: Any) -> None:
    """Give a container its old items back in place, so that other references see them too."""
    if isinstance(container, list | deque):
        if len(container) != len(saved) or any(
            now is not then for now, then in zip(container, saved, strict=True)
        ):
            container.clear()
            container.extend(saved)
    elif isinstance(container, dict):
        if list(container) != list(saved) or any(
            container[key] is not value for key, value in saved.items()
        ):
            container.clear()
            container.update(saved)
    elif container != saved:
        container.clear()
        container.update(saved)

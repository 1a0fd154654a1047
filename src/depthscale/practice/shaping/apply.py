"""Put a shaped activation in place of those of a torch model, and take it off again."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from depthscale.answers import InputError, some
from depthscale.practice.dropping.adapters import clean_modules, is_scripted, running
from depthscale.practice.dropping.interception import ModuleMode, hook_mode, push
from depthscale.practice.dropping.sites import key_of
from depthscale.practice.dropping.watch import run_once
from depthscale.practice.probe.feed import map_tensors
from depthscale.practice.probe.operations import argument, operation_kind, operation_name
from depthscale.practice.probe.state import preserved
from depthscale.practice.reversible import Reversible
from depthscale.practice.shaping.families import slopes_of
from depthscale.practice.shaping.modules import LeakySlope, Transformed

if TYPE_CHECKING:
    from depthscale.practice.shaping.record import Shaped

Of = Iterable[str | type[nn.Module]] | str | type[nn.Module] | None

_FAST_PATH = "activation_relu_or_gelu"  # of a TransformerEncoderLayer, which then skips its modules


class AppliedShape(Reversible):
    """A shaped activation in force on a model, until ``remove()`` or the end of a ``with`` block.

    ``replaced`` names the activations that it stands for: paths of modules, and ``"path.relu()"``
    for functions that a module calls. ``left_out`` says for each activation of the same kind that
    it does not stand for why. ``remove()`` may be called again.
    """

    def __init__(self, replaced: tuple[str, ...], left_out: dict[str, str]) -> None:
        self.replaced = replaced
        self.left_out = left_out
        self.removed = False
        self._undo: list[Callable[[], None]] = []

    def remove(self) -> None:
        """Put the model's own activations back, the very same modules."""
        self.removed = True
        while self._undo:
            self._undo.pop()()


def apply_shape(
    shaped: Shaped,
    model: nn.Module,
    *example_inputs: Any,
    of: Of = None,
    leave: Iterable[str] = (),
    sigma_w: float = 1.0,
) -> AppliedShape:
    """Put a shaped activation in place of those of a model, for good or for a ``with`` block.

    Parameters
    ----------
    shaped:
        What ``shape`` returned.
    model:
        Changed in place. Modules are replaced where their parents hold them (one that is shared
        stays shared); keys of ``state_dict`` stay, since neither holds any.
    example_inputs:
        With them the model runs once, in train mode, and is left as it was, to find the activations
        that it calls as functions (``F.relu``); forward hooks then change those calls. Without
        them only modules are found.
    of:
        Which activations: names (``"relu"``) or classes of modules. Default: relu and leaky relu
        for a function of two slopes, else the activation that was shaped.
    leave:
        Paths of modules that keep theirs, also with wildcards (``"head.*"``).
    sigma_w:
        Of the model's weights, ``N(0, sigma_w^2/fan_in)``: its inverse multiplies the activation.

    Weights and biases are left alone; ``critical_init_`` or your own code sets them. A deep or
    pickled copy keeps the shaped activation, for good. A compiled model compiles once more.

    Raises
    ------
    InputError
        No such activation in the model, ``leave`` that names nothing, a model that is itself an
        activation or is scripted, and a residual layer whose identity branch needs a scale.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a torch.nn.Module to shape, got {type(model).__name__}")
    if shaped.skip not in (0.0, 1.0):
        raise InputError(
            f"the identity branch is to be multiplied by skip = {shaped.skip:.6g}, which no change"
            " of activations does: build the model so, with module()"
        )
    bare = key_of(model)
    if is_scripted(bare):
        raise InputError("a ScriptModule cannot be changed; shape the model before scripting it")
    new = shaped.module(sigma_w)
    names, classes = _kinds(shaped, of)
    kept = _kept(bare, leave)
    search = _Search(bare, names, classes, kept)
    if example_inputs:
        with preserved(bare):
            bare.train()
            fresh = map_tensors(example_inputs, lambda x: x.detach().clone())
            with search:
                run_once(bare, fresh, {})
    if not (search.modules or search.callers):
        raise InputError(_nothing(bare, names, classes, bool(example_inputs), search.left_out))
    calls = tuple(f"{path}.{name}()".lstrip(".") for path, name in dict.fromkeys(search.calls))
    applied = AppliedShape((*(path for path, _, _ in search.modules), *calls), search.left_out)
    try:
        _replace(applied, search.modules, new)
        for caller in search.callers:
            applied._undo += hook_mode(caller, _Begin(names, new))
    except BaseException:
        applied.remove()
        raise
    return applied


def _replace(
    applied: AppliedShape, places: list[tuple[str, nn.Module, str]], new: nn.Module
) -> None:
    import copy

    copies: dict[int, nn.Module] = {}
    for _, parent, name in places:
        old = parent._modules[name]
        assert old is not None  # the search found it there
        if id(old) not in copies:
            copies[id(old)] = copy.deepcopy(new).train(old.training)
        put = copies[id(old)]
        parent._modules[name] = put
        applied._undo.append(_restored(parent, name, old, put))
        if getattr(parent, _FAST_PATH, 0):
            before = getattr(parent, _FAST_PATH)
            setattr(parent, _FAST_PATH, 0)
            applied._undo.append(_reset(parent, before))


def _restored(parent: nn.Module, name: str, old: nn.Module, put: nn.Module) -> Callable[[], None]:
    def undo() -> None:
        parent._modules[name] = old.train(put.training)

    return undo


def _reset(parent: nn.Module, before: Any) -> Callable[[], None]:
    return lambda: setattr(parent, _FAST_PATH, before)


def _kinds(shaped: Shaped, of: Of) -> tuple[frozenset[str], tuple[type[nn.Module], ...]]:
    """Names of operations and classes of modules that are to be replaced."""
    if of is None:
        if slopes_of(shaped.base) is not None:
            return frozenset({"relu", "leaky_relu"}), ()
        spec = shaped.spec
        if isinstance(spec, nn.Module) and not type(spec).__module__.startswith("torch.nn"):
            return frozenset(), (type(spec),)
        return frozenset({shaped.base.name.split("(")[0].removesuffix("_tanh")}), ()
    given = [of] if isinstance(of, str | type) else [*of]
    names = [one for one in given if isinstance(one, str)]
    classes = [one for one in given if isinstance(one, type) and issubclass(one, nn.Module)]
    if not given or len(names) + len(classes) < len(given):
        raise InputError(
            f"of is {of!r}; expected names of activations ('relu') or classes of modules"
        )
    return frozenset(names), tuple(classes)


def _kept(model: nn.Module, leave: Iterable[str]) -> set[str]:
    patterns = [leave] if isinstance(leave, str) else [*leave]
    paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
    kept = set()
    for pattern in patterns:
        found = [path for path in paths if fnmatch.fnmatchcase(path, pattern)]
        if not found:
            raise InputError(f"leave names {pattern!r}, which matches no module of the model")
        kept |= set(found)
    return kept


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


class _Search(TorchFunctionMode):
    """Where a model holds the activations; as a mode, which modules call them as functions."""

    def __init__(
        self,
        model: nn.Module,
        names: frozenset[str],
        classes: tuple[type[nn.Module], ...],
        kept: set[str],
    ) -> None:
        super().__init__()
        self.left_out: dict[str, str] = {}
        self.modules: list[tuple[str, nn.Module, str]] = []
        self.callers: list[nn.Module] = []
        self.calls: list[tuple[str, str]] = []
        self._names = names
        self._kept = kept
        self._paths = {id(module): path for path, module in clean_modules(model).items()}
        self._own = self._hold(model, {_plain(name) for name in names}, classes)

    def _hold(
        self, model: nn.Module, names: set[str], classes: tuple[type[nn.Module], ...]
    ) -> set[int]:
        """Fill ``modules``; what is inside of them or of shaped modules calls for itself."""
        own: set[int] = set()
        for parent in model.modules():
            if isinstance(parent, LeakySlope | Transformed):
                own |= {id(module) for module in parent.modules()}
        for parent in model.modules():
            if id(parent) in own:
                continue
            for name, child in parent._modules.items():
                if child is None or not _is_one(child, names, classes):
                    continue
                path = f"{self._paths[id(parent)]}.{name}".lstrip(".")
                own |= {id(module) for module in child.modules()}
                if path in self._kept:
                    self.left_out[path] = "it is among those to leave"
                elif is_scripted(parent):
                    self.left_out[path] = "it is inside of a scripted module"
                else:
                    self.modules.append((path, parent, name))
        return own

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = operation_name(func)
        if name in self._names:
            module, checkpointed = running(sys._getframe(1))
            if module is None or id(module) not in self._own:
                self._note(module, name, checkpointed)
        return func(*args, **(kwargs or {}))

    def _note(self, module: nn.Module | None, name: str, checkpointed: bool) -> None:
        path = None if module is None else self._paths.get(id(module))
        if module is None or path is None:
            owner = "a function" if module is None else type(module).__name__
            self.left_out[f"{owner}: {name}()"] = "it runs outside of the model's modules"
        elif path in self._kept:
            self.left_out[f"{path}.{name}()"] = "it is among those to leave"
        elif checkpointed:
            self.left_out[f"{path}.{name}()".lstrip(".")] = (
                "it runs in a function that its module checkpoints"
            )
        else:
            self.calls.append((path, name))
            if all(caller is not module for caller in self.callers):
                self.callers.append(module)


def _is_one(module: nn.Module, names: set[str], classes: tuple[type[nn.Module], ...]) -> bool:
    kind = type(module)
    stock = kind.__module__.startswith("torch.nn") and _plain(kind.__name__) in names
    return stock or isinstance(module, classes)


def _nothing(
    model: nn.Module,
    names: frozenset[str],
    classes: tuple[type[nn.Module], ...],
    ran: bool,
    left_out: dict[str, str],
) -> str:
    wanted = ", ".join([*sorted(names), *(one.__name__ for one in classes)])
    if type(model).__module__.startswith("torch.nn") and _plain(type(model).__name__) in {
        _plain(name) for name in names
    }:
        return "the model is itself the activation: use module() in its place"
    text = f"{type(model).__name__} holds no activation {wanted} that can be replaced"
    if left_out:
        text += f" (left out: {some(f'{k}: {v}' for k, v in left_out.items())})"
    others = {
        type(module).__name__
        for module in model.modules()
        if operation_kind(_plain(type(module).__name__)) == "activation"
        or isinstance(module, LeakySlope | Transformed | nn.LeakyReLU)
    }
    if others:
        text += f"; it holds {', '.join(sorted(others))}: name those meant by of="
    if not ran:
        text += "; give example inputs to find activations that are called as functions"
    return text


class _Begin:
    """Forward pre-hook that begins to change a module's calls; holds no part of the model."""

    def __init__(self, names: frozenset[str], new: nn.Module) -> None:
        self.names = names
        self.new = new

    def __call__(self, module: nn.Module, args: Any) -> None:
        push(_Swapped(module, self.names, self.new))


class _Swapped(ModuleMode):
    """Calls the shaped activation where one module calls another as a function."""

    def __init__(self, module: nn.Module, names: frozenset[str], new: nn.Module) -> None:
        super().__init__(module)
        self.names = names
        self.new = new

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = operation_name(func)
        if name not in self.names or running(sys._getframe(1))[0] is not self.module:
            return func(*args, **kwargs)
        signal = argument(args, kwargs, 0, "input")
        place = 2 if name == "leaky_relu" else 1
        in_place = getattr(func, "__name__", "").endswith("_") or (
            bool(argument(args, kwargs, place, "inplace", False)) and name != "gelu"
        )
        return signal.copy_(self.new(signal.clone())) if in_place else self.new(signal)

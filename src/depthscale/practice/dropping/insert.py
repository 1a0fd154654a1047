"""Give a model dropout where it has none, without changing its class or its state_dict."""

from __future__ import annotations

import difflib
import fnmatch
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from depthscale.answers import InputError
from depthscale.practice.dropping.adapters import (
    clean_modules,
    drop_call,
    is_scripted,
    running,
    whole_rate,
)
from depthscale.practice.dropping.apply import is_scheduled
from depthscale.practice.dropping.inserted import KINDS, PREFIX, attribute_of
from depthscale.practice.dropping.sites import (
    DropoutSite,
    dropout_sites,
    key_of,
    known_sites,
    remember,
)
from depthscale.practice.dropping.watch import run_once
from depthscale.practice.probe.feed import map_tensors
from depthscale.practice.probe.operations import operation_kind, operation_name
from depthscale.practice.probe.state import preserved
from depthscale.practice.probe.trace import unwrap
from depthscale.practice.reversible import Reversible

After = str | type[nn.Module] | Iterable[str | type[nn.Module]]

_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu", "multi_head_attention_forward"})
_GATES = frozenset({"sigmoid", "hardsigmoid"})
_CARRIES = frozenset({"identity", "shape", "pool"})


class InsertedSites(Reversible):
    """Dropout that ``insert_sites`` put into a model, until ``remove()`` or the end of a block.

    ``sites`` are its sites, in order of execution; ``left_out`` says for each activation that got
    none why. ``remove()`` leaves the model as it was, and may be called again.
    """

    def __init__(
        self, model: nn.Module, places: Iterable[_Place], kind: str, left_out: dict[str, str]
    ) -> None:
        self.sites: tuple[DropoutSite, ...] = ()
        self.left_out = left_out
        self._model = model
        self._known = known_sites(model)
        self._undo: list[Callable[[], None]] = []
        from depthscale.practice.dropping.interception import hook_functions, hook_output

        modules = clean_modules(key_of(model))
        points: dict[str, dict[tuple[str, int], str]] = {}
        for place in places:
            module, attribute = modules[place.path], place.attribute
            setattr(module, attribute, 0.0)
            self._undo.append(_deletion(module, attribute))
            if place.operation:
                key = place.operation, place.ordinal
                points.setdefault(place.path, {})[key] = attribute
            else:
                self._undo += hook_output(module, kind)
        for path, own in points.items():
            self._undo += hook_functions(modules[path], own, kind)

    def remove(self) -> None:
        """Take the dropout out again; InputError while a schedule is in force on the model."""
        if self._undo and is_scheduled(self._model):
            raise InputError(
                f"{type(self._model).__name__} is scheduled; call remove() on what apply_schedule "
                "returned before the sites go"
            )
        if self._undo:
            remember(self._model, self._known)
        while self._undo:
            self._undo.pop()()


def insert_sites(
    model: nn.Module,
    /,
    *example_inputs: Any,
    after: After = "activation",
    kind: str = "elements",
    beside_dropout: bool = False,
    **example_kwargs: Any,
) -> InsertedSites:
    """Put dropout, at rate 0 until it is scheduled, after each activation of a model.

    The model runs on the example inputs in train mode, and is left as it was. ``after`` is one or
    several of

    - "activation": each hidden activation, be it a module or a function that a module calls. Left
      out, with the reason in ``left_out``: those with no weights before or after them (so that
      neither inputs nor outputs are dropped), sigmoids that gate another signal, functions that
      work in place or in what their module checkpoints, and those next to dropout;
    - the path of a module, also with wildcards ("layers.*.attention"); a class of modules. The
      output of each is dropped, of a tuple the first tensor. One whose output cannot be, and one
      next to dropout, is an error.

    ``kind`` is "elements" (single numbers), "channels" (whole entries of the second dimension) or
    "alpha". ``beside_dropout=True`` inserts also right before or after dropout of the model's own.

    A rate is a plain attribute of the module (``inserted_dropout``, or with the function's name
    behind it), at which forward hooks drop: keys of ``state_dict``, ``named_modules`` and classes
    stay, copies and pickles keep it. ``dropout_sites`` finds these sites and ``apply_schedule``
    sets them like any others; the sites of the whole model are known to it from now on. A module
    with dropout after functions runs in plain Python when compiled. So that compiled code notices,
    ``torch._dynamo.config.skip_nnmodule_hook_guards`` is set to False for the whole process.

    Raises InputError for unknown paths and kinds, what cannot be inserted, a model that has none of
    such places, one that is scheduled, and inputs that the model cannot run.

        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        insert_sites(model, torch.randn(2, 4)).sites
        # (DropoutSite(name="1.inserted_dropout", kind="mlp", rate=0.0, calls=1, ...),)
        apply_schedule(model, [0.1])
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"kind is {kind!r}; expected {', '.join(KINDS)}")
    bare, _ = unwrap(model)
    if is_scheduled(model):
        raise InputError(
            f"{type(model).__name__} is scheduled; call remove() on what apply_schedule returned, "
            "insert the sites, and apply a schedule for all of them"
        )
    modules = clean_modules(bare)
    activations, named = _wanted(modules, after)
    search = _Search(modules, named)
    with preserved(bare):
        bare.train()
        fresh = map_tensors((example_inputs, example_kwargs), lambda x: x.detach().clone())
        search.run(bare, *fresh)
    places, left_out = _sorted_out(search, activations, named, beside_dropout)
    found = InsertedSites(model, places, kind, left_out)
    try:
        names = {(place.path, place.attribute) for place in places}
        sites = dropout_sites(model, *example_inputs, **example_kwargs)
        found.sites = tuple(site for site in sites if (site.module, site.attribute) in names)
    except BaseException:
        found.remove()
        raise
    return found


def _deletion(module: nn.Module, attribute: str) -> Callable[[], None]:
    return lambda: delattr(module, attribute)


def _wanted(modules: dict[str, nn.Module], after: After) -> tuple[bool, list[str]]:
    """Whether activations are wanted, and the paths of the modules that are named."""
    if after == "activation":
        return True, []
    if not isinstance(after, str | type | Iterable):
        raise _no_place(after)
    wanted = [after] if isinstance(after, str | type) else [*after]
    if not wanted:
        raise InputError("after names nothing; expected 'activation', paths or classes of modules")
    paths: list[str] = []
    for one in wanted:
        if isinstance(one, type) and issubclass(one, nn.Module):
            found = [path for path, module in modules.items() if isinstance(module, one) and path]
        elif isinstance(one, str):
            found = [path for path in modules if fnmatch.fnmatchcase(path, one) and path]
        else:
            raise _no_place(one)
        if not found:
            close = difflib.get_close_matches(str(one), modules, n=3) or [*modules][1:4]
            what = one if isinstance(one, str) else one.__name__
            raise InputError(
                f"the model has no module {what!r}; it has {', '.join(map(repr, close))}, ..."
            )
        paths += found
    return False, [*dict.fromkeys(paths)]


def _no_place(given: Any) -> InputError:
    return InputError(
        f"after is {given!r}; expected 'activation', the path of a module ('layers.*' for several),"
        " a class of modules, or a list of these"
    )


@dataclass
class _Place:
    """An output that may be dropped: of a module, or of a function that it calls.

    ``weights`` are the numbers of weight operations before each of its calls; ``obstacle`` is the
    reason why nothing can be inserted, "" where it can; ``beside`` that dropout stands next to it.
    """

    path: str
    operation: str = ""
    ordinal: int = 1
    weights: list[int] = field(default_factory=list)
    obstacle: str = ""
    beside: bool = False

    @property
    def attribute(self) -> str:
        """Where its module holds the rate."""
        return attribute_of(self.operation, self.ordinal)

    @property
    def name(self) -> str:
        """The path of the module, with the function that it calls."""
        if not self.operation:
            return self.path
        call = f"{self.operation}()" + (f"#{self.ordinal}" if self.ordinal > 1 else "")
        return f"{self.path}.{call}" if self.path else call


def _sorted_out(
    search: _Search, activations: bool, named: list[str], beside: bool
) -> tuple[list[_Place], dict[str, str]]:
    """The places that get dropout, and why the others do not; InputError where that is asked."""
    left_out: dict[str, str] = {}
    for place in search.places.values():
        reason = place.obstacle
        if not reason and activations and not min(place.weights):
            reason = "no weights come before it"
        if not reason and activations and max(place.weights) == search.weights:
            reason = "no weights come after it: it belongs to the output"
        if not reason and place.beside and not beside:
            reason = "the model has dropout next to it (beside_dropout=True inserts all the same)"
        if reason:
            left_out[place.name] = reason
    left_out |= {
        path: "it did not run on the example inputs, or is scripted"
        for path in named
        if path not in {place.path for place in search.places.values()}
    }
    chosen = [place for place in search.places.values() if place.name not in left_out]
    if (named and left_out) or not chosen:
        reasons = [f"{name}: {reason}" for name, reason in left_out.items()]
        raise InputError(
            "no dropout can be inserted"
            + ("" if reasons else ": the model calls no activation that is known; name modules")
            + "".join(f"\n  {reason}" for reason in reasons[:5])
            + (f"\n  and {len(reasons) - 5} more" if len(reasons) > 5 else "")
        )
    return chosen, left_out


class _Tensors:
    """A value for each of some tensors, which are not kept alive."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[torch.Tensor], Any]] = {}

    def put(self, tensor: Any, value: Any) -> None:
        if isinstance(tensor, torch.Tensor):
            self._held[id(tensor)] = weakref.ref(tensor), value

    def get(self, tensor: Any) -> Any:
        known = self._held.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None


class _Search(TorchFunctionMode):
    """Follows one forward pass to the places after which dropout can be inserted."""

    def __init__(self, modules: dict[str, nn.Module], named: list[str]) -> None:
        super().__init__()
        self.places: dict[tuple[str, str, int], _Place] = {}
        self.weights = 0
        self._modules = modules
        self._named = set(named)
        self._paths = {id(module): path for path, module in modules.items()}
        self._calls: Counter[tuple[str, str]] = Counter()
        self._active: set[str] = set()
        self._source = _Tensors()  # the place that a signal comes from, without weights in between
        self._dropped = _Tensors()  # whether a signal comes from dropout in the same way

    def run(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with self._hooked(), self:
            run_once(model, args, kwargs)

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        handles = []
        for module in self._modules.values():
            if not is_scripted(module):
                handles.append(module.register_forward_hook(self._leave))
                handles.append(module.register_forward_pre_hook(self._enter))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        path = self._paths[id(module)]
        for key in [key for key in self._calls if key[0] == path]:
            del self._calls[key]

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        path = self._paths[id(module)]
        active = path in self._active
        self._active.discard(path)
        if (active and not self._named) or path in self._named:
            place = self._place(path, "", 1)
            place.obstacle = place.obstacle or _output_obstacle(module, output)
            signal = output[0] if isinstance(output, tuple) and output else output
            place.beside |= bool(self._dropped.get(signal)) or _dropped_args(self._dropped, args)
            self._source.put(signal, place)

    def _place(self, path: str, operation: str, ordinal: int) -> _Place:
        place = self.places.setdefault((path, operation, ordinal), _Place(path, operation, ordinal))
        place.weights.append(self.weights)
        return place

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = operation_name(func)
        kind = operation_kind(name)
        if kind == "weight" or name in _RECURRENT:
            given = [*args, *kwargs.values()]
            held = any(isinstance(value, nn.Parameter) for value in given)
            self.weights += held or name in _RECURRENT
        elif drop_call(func, args, kwargs) is not None:
            self._drop(args, kwargs, out)
        elif kind == "activation" and not self._named:
            self._activation(name, args, out, sys._getframe(1))
        elif kind in _CARRIES and args:
            for known in (self._source, self._dropped):
                known.put(out, known.get(args[0]))
        elif name == "mul":
            for place in map(self._source.get, args):
                if place is not None and place.operation in _GATES:
                    place.obstacle = "it gates another signal"
        return out

    def _drop(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        place = self._source.get(args[0] if args else kwargs.get("input"))
        if place is not None:
            place.beside = True
        self._dropped.put(out, True)

    def _activation(self, name: str, args: tuple[Any, ...], out: Any, frame: Any) -> None:
        module, checkpointed = running(frame)
        path = self._paths.get(id(module))
        if module is None or path is None:
            return
        if path and _is_activation(module):
            self._active.add(path)
            return
        self._calls[path, name] += 1
        place = self._place(path, name, self._calls[path, name])
        if place.attribute in vars(module):
            place.obstacle = "dropout was inserted after it before"
        elif checkpointed:
            place.obstacle = "it runs in a function that its module checkpoints"
        elif args and out is args[0]:
            place.obstacle = "it works in place, so that what it returns may not be used"
        place.beside |= _dropped_args(self._dropped, args)
        self._source.put(out, place)


def _is_activation(module: nn.Module) -> bool:
    """Whether a module that calls an activation is one: it holds no weights and no modules."""
    weights = any(parameter.ndim > 1 for parameter in module.parameters())
    return next(module.children(), None) is None and not weights


def _dropped_args(dropped: _Tensors, args: tuple[Any, ...]) -> bool:
    return bool(args) and bool(dropped.get(args[0]))


def _output_obstacle(module: nn.Module, output: Any) -> str:
    """Why the output of a module cannot be dropped, "" where it can."""
    if PREFIX in vars(module):
        return "dropout was inserted after it before"
    whole = whole_rate(module)
    if whole is not None and not isinstance(module, nn.RNNBase):
        return "it is dropout itself; apply_schedule sets its rate"
    signal = output[0] if type(output) is tuple and output else output
    if not isinstance(signal, torch.Tensor) or not signal.is_floating_point():
        return f"its output is a {type(output).__name__}, not a tensor of real numbers"
    return ""

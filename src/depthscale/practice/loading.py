"""Load a user's model from a module or a file of code, and tell what inputs it takes.

Loading a model means running the user's code, so whatever that code raises is quoted in an
``InputError`` with its file and line.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from depthscale.answers import InputError, some
from depthscale.practice.data import NAMES, DataSet, digits, load, normal

USUAL_NAMES = ("model", "build_model", "make_model", "create_model", "get_model", "build", "Model")
STANDARD_LIBRARY = os.path.dirname(os.__file__)
EXPECTED = "expected package.module:callable or path/to/file.py[:callable]"


@dataclass(frozen=True)
class LoadedModel:
    """A model, the inputs its factory gave along (None when it gave none), and its name."""

    model: nn.Module
    inputs: Any
    name: str


def load_model(target: str, *, seed: int = 0) -> LoadedModel:
    """Return the model that ``package.module:callable`` or ``path/to/file.py[:callable]`` makes.

    The callable takes no arguments and returns a ``torch.nn.Module`` or a pair (module, inputs); a
    module object does as well. A file without a callable is searched for one called ``model``,
    ``build_model``, ``make_model``, ``create_model``, ``get_model``, ``build`` or ``Model``, else
    for the only module or module class that it defines. Torch's global generators are seeded with
    ``seed`` first, so that a random initialisation is reproducible. The current folder, or that of
    the file, is put on ``sys.path``, as Python does for a script.

    Raises:
        InputError: nothing is found under the target, its code fails (quoted with file and line),
            or what it returns is not a model.
    """
    torch.manual_seed(seed)
    model, inputs = _build(load_object(target), target)
    return LoadedModel(model, inputs, target)


def load_object(target: str) -> Any:
    """Return the object that ``package.module:name`` or ``path/to/file.py[:name]`` stands for.

    Raises:
        InputError: as for ``load_model``.
    """
    place, _, attribute = target.rpartition(":")
    if not place or target.endswith(".py"):
        place, attribute = target, ""
    if place.endswith(".py"):
        module = _module_from_file(Path(place))
        return _attribute(module, attribute) if attribute else _search(module, target)
    return _attribute(_module_from_name(place, attribute, target), attribute)


def load_function(target: str) -> Any:
    """Return the activation that ``package.module:name`` or ``path/to/file.py[:name]`` stands for.

    A file without a name has to hold one function, or one ``torch.nn.Module`` object, alone.

    Raises:
        InputError: as for ``load_model``, and where a file holds none or several.
    """
    if not target.endswith(".py"):
        return load_object(target)
    module = _module_from_file(Path(target))
    names = _names(module, module)
    names += [
        name
        for name, value in vars(module).items()
        if isinstance(value, nn.Module) and not name.startswith("_") and name not in names
    ]
    if len(names) == 1:
        return getattr(module, names[0])
    if not names:
        raise InputError(f"{target} defines no function; name what it has, such as {target}:f")
    raise InputError(
        f"{target} holds several functions ({', '.join(names[:8])}); name the function, such as"
        f" {target}:{names[0]}"
    )


def choose_data(
    loaded: LoadedModel, source: str | None, shape: tuple[int, ...] | None, size: int, seed: int
) -> tuple[Any, str]:
    """Return inputs for a model, and in words where they come from.

    ``source`` is the name of a published data set, "normal", a path or None: then the inputs of the
    factory, else the digits for a model whose first layer takes 64 features or one channel, else
    random normals for a model that starts with a Linear. Without ``shape``, digits become 1x8x8
    images for a convolution, other images become vectors for a first Linear that takes all of their
    pixels, and random inputs take the width of a first Linear.

    Raises:
        InputError: no shape can be told from the model, or the data cannot be read.
    """
    if source is None and loaded.inputs is not None:
        return loaded.inputs, "inputs of the model's factory"
    known = shape or _digit_shape(loaded.model)
    if source is None and shape is None and known is not None:
        source = "digits"
    if source == "digits":
        data = digits() if known is None else digits().reshape(known)
    elif source in (None, "normal"):
        data = normal(shape or _linear_shape(loaded.model), size, seed)
    else:
        data = load(str(source), shape=shape)
    first = _first_layer(loaded.model)
    pixels = data.inputs[0].numel()
    if source in NAMES and shape is None and getattr(first, "in_features", None) == pixels:
        data = data.reshape((pixels,))
    if not data.inputs.is_floating_point() and isinstance(first, (nn.Linear, nn.Conv2d)):
        raise InputError(
            f"data: {data.name} holds integers, and the model starts with a "
            f"{type(first).__name__}; save real numbers, scaled as the model expects them (pixels "
            "for instance divided by 255)"
        )
    return fit(data.draw(size, seed), loaded.model).inputs, data.name


def fit(data: DataSet, model: nn.Module) -> DataSet:
    """Return the data on the device of a model, floating inputs in the precision of its weights."""
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    if not weights:
        return data
    dtype = weights[0].dtype if data.inputs.is_floating_point() else data.inputs.dtype
    targets = None if data.targets is None else data.targets.to(weights[0].device)
    return DataSet(data.inputs.to(weights[0].device, dtype), targets, data.name)


def _first_layer(model: nn.Module) -> nn.Module | None:
    """Return the first module that holds weights itself, in the order of registration."""
    for module in model.modules():
        if next(module.parameters(recurse=False), None) is not None:
            return module
    return None


def _digit_shape(model: nn.Module) -> tuple[int, ...] | None:
    """Return the shape that an 8x8 digit takes at the first layer, None where it doesn't fit."""
    first = _first_layer(model)
    if isinstance(first, nn.Linear) and first.in_features == 64:
        return (64,)
    if isinstance(first, nn.Conv2d) and first.in_channels == 1:
        return (1, 8, 8)
    return None


def _linear_shape(model: nn.Module) -> tuple[int, ...]:
    first = _first_layer(model)
    if isinstance(first, nn.Linear) and not isinstance(first, nn.LazyLinear):
        return (first.in_features,)
    kind = "no layer with weights" if first is None else f"a {type(first).__name__} first"
    raise InputError(
        f"the shape of an input cannot be told from this model (it has {kind}); give data "
        "(--data FILE), random inputs of a stated shape (--data normal --shape 3,32,32), or let "
        "the model's factory return (module, inputs)"
    )


def _module_from_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = _near(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        raise InputError(f"there is no file {path}{near}; {EXPECTED}")
    sys.path.insert(0, str(path.resolve().parent))
    name = f"depthscale_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up here
    with _quoted(f"running {path}"):
        spec.loader.exec_module(module)
    return module


def _module_from_name(place: str, attribute: str, target: str) -> ModuleType:
    path = Path(place)
    if path.exists():
        what = "a folder" if path.is_dir() else "not a .py file"
        raise InputError(
            f"{place} is {what}; {EXPECTED}. A model is built by running code: a pickled one is "
            "not loaded, write a .py file that builds it and loads its weights"
        )
    if not attribute:
        raise InputError(f"there is no file {target}, and no callable is named; {EXPECTED}")
    sys.path.insert(0, os.getcwd())
    try:
        with _quoted(f"importing {place}"):
            return importlib.import_module(place)
    except InputError as error:
        missing = getattr(error.__cause__, "name", None) or ""
        absent = isinstance(error.__cause__, ModuleNotFoundError)
        if absent and f"{place}.".startswith(f"{missing}."):
            raise InputError(
                f"there is no module {missing!r} in the current folder or installed; {EXPECTED}"
            ) from error
        raise


def _attribute(module: ModuleType, dotted: str) -> Any:
    found: Any = module
    for name in dotted.split("."):
        if not hasattr(found, name):
            owner = getattr(module, "__file__", None) or module.__name__
            hint = _near(name, dir(found)) or _listed(_names(found, module))
            raise InputError(f"{owner} has no {name!r}{hint}")
        found = getattr(found, name)
    return found


def _names(holder: Any, module: ModuleType) -> list[str]:
    """Return the public callables of a module or class that were not imported from elsewhere."""
    return [
        name
        for name, value in vars(holder).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", None) in (module.__name__, None)
    ]


def _search(module: ModuleType, target: str) -> Any:
    """Find the model in a file whose callable was not named."""
    for name in USUAL_NAMES:
        if callable(getattr(module, name, None)):
            return getattr(module, name)
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    made = {name: value for name, value in public.items() if isinstance(value, nn.Module)}
    classes = {
        name: value
        for name, value in public.items()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__ == module.__name__
    }
    choices = made or classes
    if len(choices) == 1:
        return next(iter(choices.values()))
    if choices:
        raise InputError(
            f"{target} holds several models ({', '.join(choices)}); name one, such as "
            f"{target}:{next(iter(choices))}"
        )
    names = _names(module, module)
    example = f"name the callable that builds it, such as {target}:{names[0] if names else 'build'}"
    raise InputError(
        f"{target} defines no model (no torch.nn.Module, no class of one, nothing called "
        f"{' or '.join(USUAL_NAMES[:2])}){_listed(names)}; {example}"
    )


def _build(found: Any, target: str) -> tuple[nn.Module, Any]:
    """Call the factory, if it is one, and check what it made."""
    made = found
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise InputError(
                f"{target} is a {type(found).__name__}; expected a callable that returns a "
                "torch.nn.Module, or such a module"
            )
        _check_no_arguments(found, target)
        with _quoted(f"calling {target}"):
            made = found()
    inputs = None
    if isinstance(made, tuple) and len(made) == 2:
        made, inputs = made
    if not isinstance(made, nn.Module):
        raise InputError(
            f"{target} returned a {type(made).__name__}; expected a torch.nn.Module or a pair "
            "(module, inputs)"
        )
    return made, inputs


def _check_no_arguments(factory: Callable[..., Any], target: str) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some builtins have none; calling them will tell
        return
    try:
        signature.bind()
    except TypeError as error:
        raise InputError(
            f"{target} takes arguments {signature}; name a callable that takes none, such as a "
            "function that builds the model with the values you want"
        ) from error


def _near(name: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _listed(names: list[str], most: int = 8) -> str:
    return f"; there is {some(names, most)}" if names else ""


@contextlib.contextmanager
def _quoted(doing: str) -> Iterator[None]:
    """Turn whatever a user's code raises into an InputError that quotes it with file and line."""
    try:
        yield
    except (Exception, SystemExit) as error:  # user code may raise anything, or call sys.exit()
        text = " ".join(str(error).split())
        said = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise InputError(f"{doing} failed: {said} ({_where(error)})") from error


def _where(error: BaseException) -> str:
    """Return file and line of the last frame in the user's own code, or else of the error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    place = "no line known"
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        library = file.startswith(STANDARD_LIBRARY) or "site-packages" in file
        if file != __file__ and not library and not file.startswith("<"):
            place = f"{file}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place

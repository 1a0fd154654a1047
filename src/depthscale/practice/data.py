"""Real data for an audit or a small training run: the bundled digits, a file, or random normals."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthscale.answers import InputError, some

NAMES = ("fashion-mnist", "mnist", "digits", "mnist1d", "cifar-10", "cifar-100")
"""The published data sets that ``depthscale.practice.datasets`` loads."""
INPUT_NAMES = ("inputs", "x", "X", "data", "images")
TARGET_NAMES = ("targets", "y", "Y", "labels")


@dataclass(frozen=True)
class DataSet:
    """Examples with their labels, where there are any.

    ``inputs`` is [example, ...], float32 or int64; ``targets`` is None or [example] of class
    numbers (int64); ``name`` says where the data come from.
    """

    inputs: torch.Tensor
    targets: torch.Tensor | None
    name: str

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: torch.Tensor) -> DataSet:
        """Return the examples at ``index``, in that order."""
        targets = None if self.targets is None else self.targets[index]
        return replace(self, inputs=self.inputs[index], targets=targets)

    def draw(self, size: int, seed: int = 0) -> DataSet:
        """Return ``size`` different examples at random, or all of them where there are fewer."""
        if size < 1:
            raise InputError(f"a batch of {size} examples was asked for; it takes at least 1")
        return self.take(self._shuffle(seed)[:size])

    def split(self, test: float = 0.25, seed: int = 0) -> tuple[DataSet, DataSet]:
        """Return a training and a test part that share no example; ``test`` is the share of it."""
        held_out = round(test * len(self))
        if not 0 < held_out < len(self):
            raise InputError(
                f"a test share of {test} leaves one part of the {len(self)} examples empty; "
                "it must lie between 0 and 1"
            )
        order = self._shuffle(seed)
        return self.take(order[held_out:]), self.take(order[:held_out])

    def reshape(self, shape: Sequence[int]) -> DataSet:
        """Return the same examples with ``shape`` each, such as (1, 8, 8) for a convolution."""
        have = tuple(self.inputs.shape[1:])
        if int(np.prod(shape)) != int(np.prod(have)):
            raise InputError(
                f"an example of {self.name} has shape {have}, {int(np.prod(have))} numbers; "
                f"it cannot take the shape {tuple(shape)} of {int(np.prod(shape))} numbers"
            )
        return replace(self, inputs=self.inputs.reshape(-1, *shape))

    def _shuffle(self, seed: int) -> torch.Tensor:
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))


def digits() -> DataSet:
    """Return the 1,797 handwritten 8x8 digits that scikit-learn bundles, as [1797, 64] and labels.

    Standardised by one mean and one standard deviation over all pixels, so that every image keeps
    its own length and the mean square input is 1. (Pixel by pixel it would make random pairs
    orthogonal, and there would be no similarity left for a network to lose.)
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(((pixels - pixels.mean()) / pixels.std()).astype(np.float32))
    return DataSet(inputs, torch.from_numpy(labels.astype(np.int64)), "digits of scikit-learn")


def normal(shape: Sequence[int], size: int, seed: int = 0) -> DataSet:
    """Return ``size`` examples of independent standard normals, each of ``shape``.

    >>> normal((3, 8, 8), size=4).inputs.shape
    torch.Size([4, 3, 8, 8])
    """
    if size < 1 or not shape or any(length < 1 for length in shape):
        raise InputError(
            f"random inputs need a positive batch and shape, got {size} of {tuple(shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    text = "x".join(str(length) for length in shape)
    try:
        inputs = torch.randn((size, *shape), generator=generator)
    except RuntimeError as error:  # the allocator's own
        raise InputError(
            f"{size} examples of shape {text} do not fit into memory; ask for a smaller batch"
        ) from error
    return DataSet(inputs, None, f"random normals of shape {text}")


def from_file(path: str | Path) -> DataSet:
    """Read a data set from an ``.npy``, ``.npz`` or ``.pt`` file without running code in it.

    An ``.npy`` file is the array of inputs [example, ...]. An ``.npz`` or a dictionary in a ``.pt``
    file holds ``inputs`` (or ``x``, ``X``, ``data``, ``images``) and, if there are labels,
    ``targets`` (or ``y``, ``Y``, ``labels``); a ``.pt`` file may also be a tensor or a pair
    (inputs, targets). Values are taken as they are: floating ones as float32, integers as int64,
    nothing is scaled.

    Raises:
        InputError: no such file, a truncated or foreign file, pickled objects, no inputs among the
            arrays, fewer than two dimensions, NaN or infinite values, targets of another length.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], Any]] = {
        ".npy": _read_numpy,
        ".npz": _read_numpy,
        ".pt": _read_torch,
        ".pth": _read_torch,
    }
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(
            f"data: {path} {what}; give 'normal', a .npy, .npz or .pt file, or one of "
            f"{', '.join(NAMES)}"
        )
    if path.suffix not in readers:
        raise InputError(f"data: {path} ends in {path.suffix!r}; expected .npy, .npz or .pt")
    inputs, targets = _pick(readers[path.suffix](path), path)
    return _checked(inputs, targets, path)


def load(
    source: str, *, shape: Sequence[int] | None = None, size: int = 128, seed: int = 0
) -> DataSet:
    """Return the data set that a name stands for: one of ``NAMES``, "normal" or a path.

    ``shape`` is that of one example: required for "normal", a change of shape for the others.
    ``size`` is the number of random examples. "digits" are all of them, as [1797, 64]; of the other
    names it is the training part, and nothing is downloaded.
    """
    if source == "normal":
        if shape is None:
            raise InputError("random normal inputs need the shape of one example, such as 3,32,32")
        return normal(shape, size, seed)
    data = digits() if source == "digits" else _published(source) or from_file(source)
    return data if shape is None else data.reshape(shape)


def _published(name: str) -> DataSet | None:
    if name not in NAMES:
        return None
    from depthscale.practice import datasets  # which imports this module

    return datasets.load(name)[0]


def _read_numpy(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # np.load itself leaves a damaged archive open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, SyntaxError) as error:
        raise InputError(_unreadable(path, error)) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"data: {path} is damaged, or holds objects other than tensors and plain containers, "
            "which could run code and are not loaded; save the tensors alone: "
            "torch.save({'inputs': inputs, 'targets': targets}, path)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    text = str(error)
    if "bject arrays" in text:
        return (
            f"data: {path} holds Python objects, which could run code and are not loaded; "
            "save a plain array of numbers, all examples of one shape"
        )
    if path.stat().st_size == 0:
        return f"data: {path} is empty"
    first = text.splitlines()[0] if text else type(error).__name__
    if "pickle" in first:
        first = "it is not in NumPy's format"
    return f"data: {path} cannot be read, it is damaged or not a {path.suffix} file ({first})"


def _pick(loaded: Any, path: Path) -> tuple[Any, Any]:
    """Find inputs and targets in what a file held."""
    if isinstance(loaded, (np.ndarray, torch.Tensor)):
        return loaded, None
    if isinstance(loaded, Mapping):
        arrays = {str(name): value for name, value in loaded.items()}
        inputs = next((arrays[name] for name in INPUT_NAMES if name in arrays), None)
        if inputs is None and len(arrays) == 1:
            inputs = next(iter(arrays.values()))
        targets = next((arrays[name] for name in TARGET_NAMES if name in arrays), None)
        if inputs is not None:
            return inputs, targets
        listed = some(arrays, 6)
        hint = ""
        if any(name == "weight" or name.endswith(".weight") for name in arrays):
            hint = " (these look like the weights of a model)"
        raise InputError(
            f"data: {path} has no array called 'inputs'; it holds {listed or 'nothing'}{hint}"
        )
    if isinstance(loaded, (tuple, list)) and len(loaded) == 2:
        return loaded[0], loaded[1]
    raise InputError(
        f"data: {path} holds a {type(loaded).__name__}; expected a tensor, a pair "
        "(inputs, targets) or a dictionary with 'inputs'"
    )


def _checked(inputs: Any, targets: Any, path: Path) -> DataSet:
    examples = _tensor(inputs, "inputs", path)
    if examples.ndim < 2 or examples.numel() == 0:
        raise InputError(
            f"data: the inputs in {path} have shape {tuple(examples.shape)}; expected "
            "[example, feature, ...] with at least one example"
        )
    bad = ~torch.isfinite(examples)
    if bad.any():
        first = int(torch.nonzero(bad)[0, 0])
        raise InputError(
            f"data: {int(bad.sum())} of {examples.numel()} values in {path} are NaN or infinite "
            f"as float32, the first in example {first}; remove or replace them"
        )
    if targets is None:
        return DataSet(examples, None, path.name)
    classes = _tensor(targets, "targets", path)
    if classes.ndim != 1 or len(classes) != len(examples) or classes.is_floating_point():
        raise InputError(
            f"data: the targets in {path} have shape {tuple(classes.shape)} and type "
            f"{classes.dtype}; expected one integer for each of the {len(examples)} examples"
        )
    return DataSet(examples, classes, path.name)


def _tensor(values: Any, role: str, path: Path) -> torch.Tensor:
    """Turn an array into a tensor that torch models take: float32 or int64."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiub":
            raise InputError(
                f"data: the {role} in {path} are of type {values.dtype}; expected real numbers"
            )
        kind = np.float32 if values.dtype.kind in "fb" else np.int64
        with np.errstate(over="ignore"):  # what overflows float32 is infinite, and reported as such
            values = torch.from_numpy(np.ascontiguousarray(values, dtype=kind))
    if not isinstance(values, torch.Tensor):
        raise InputError(
            f"data: the {role} in {path} are a {type(values).__name__}; expected an array"
        )
    if values.is_complex() or values.is_quantized or values.layout != torch.strided:
        raise InputError(
            f"data: the {role} in {path} are a {values.dtype} tensor of layout {values.layout}; "
            "expected a dense one of real numbers"
        )
    real = values.is_floating_point() or values.dtype == torch.bool
    return values.detach().to(torch.float32 if real else torch.int64)

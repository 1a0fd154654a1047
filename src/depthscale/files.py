"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from depthscale.answers import InputError


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new name beside ``path``, of the same ending; what is written there then takes its place.

    Who reads ``path`` meanwhile finds what was there before, as it stays after an exception.
    """
    beside = _beside(path)
    try:
        yield beside
        beside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder; a former one goes last."""
    beside, former = _beside(path), _beside(path)
    try:
        yield beside
        if path.is_dir():
            os.replace(path, former)
        os.replace(beside, path)
    finally:
        if former.is_dir() and not path.exists():
            os.replace(former, path)
        for folder in (beside, former):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell a failure to write the file as bad input."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """``whole``, with failures told as bad input."""
    with writing(path), whole(path) as beside:
        yield beside


@contextlib.contextmanager
def saved_run(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of an ``.npz`` file, read without pickle; bad input where it is no such file."""
    from zipfile import BadZipFile

    import numpy as np

    try:
        # opened here: numpy leaves a file open that turns out to be cut
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path} is no saved run: it has been cut, or was written by something else; give"
            " another name, or remove it to start anew"
        ) from error


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.urandom(4).hex()}{path.suffix}")

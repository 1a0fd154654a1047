"""What the commands share: codes, files, streams, JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from depthscale.answers import InputError, Undefined

HEALTHY, FINDINGS = 0, 1

MOST_LAYERS = 20_000  # of a trajectory, followed one by one: some 20 s
PLOTS = (".svg", ".png", ".pdf")


def load_activation(text: str) -> Any:
    """Return the spec of an activation: a name, or a function from a module or a file of code."""
    if ":" not in text and not text.endswith(".py"):
        return text
    from depthscale.practice.loading import load_function

    return load_function(text)


def plain(values: Any) -> Any:
    """Return nested lists with None for what is not finite."""
    if isinstance(values, list):
        return [plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def put(payload: dict[str, Any], key: str, quantity: Any) -> None:
    """Add a quantity to a payload: its value, or null and the reason why there is none."""
    payload[key] = None if isinstance(quantity, Undefined) else quantity
    if isinstance(quantity, Undefined):
        payload.setdefault("reasons", {})[key] = quantity.reason


def check_writable(
    path: Path | None, endings: tuple[str, ...] = (), replaced: bool = False
) -> None:
    """Refuse a path that cannot be written before the work is done, not after.

    ``replaced`` says that a file beside it will take its place, which its folder has to permit.
    """
    if path is None:
        return
    if endings and path.suffix not in endings:
        raise InputError(f"{path} ends in {path.suffix!r}; expected {', '.join(endings)}")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} into")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    if path.exists() and not replaced:
        if not os.access(path, os.W_OK):
            raise InputError(f"{path} cannot be written: no permission")
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"{path} cannot be written: no permission to make files in {path.parent}; give a path"
            " in another folder"
        )


def start_of_pair(options: Any) -> float:
    """The first misalignment of a followed pair; refuse a start without a depth to follow it."""
    for name in ("eps0", "q0"):
        if options.depth is None and getattr(options, name, None) is not None:
            raise InputError(f"--{name} is the start of a pair; give --depth to follow it")
    return 1.0 if options.eps0 is None else float(options.eps0)


def say_written(quiet: bool, *paths: Path | None) -> None:
    """Tell on stderr which files were written."""
    for path in paths:
        if path is not None and not quiet:
            print(f"wrote {path}", file=sys.stderr)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that work is going on, and keep our own output free of it."""
    with contextlib.ExitStack() as stack:
        if sys.stderr.isatty():
            from rich.console import Console

            stack.enter_context(Console(stderr=True).status(f"{what} ..."))
        stack.enter_context(others_to_stderr())
        yield


@contextlib.contextmanager
def others_to_stderr() -> Iterator[None]:
    """Send what the user's code prints to stderr.

    It must not end up among our own output, least of all in the JSON.
    """
    with contextlib.redirect_stdout(sys.stderr), _output_to_stderr():
        yield


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Point file descriptor 1 at stderr: compiled code and child processes write there directly."""
    try:
        kept = os.dup(1)
    except OSError:  # closed from the start: nothing to protect
        yield
        return
    sys.stdout.flush()
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def print_text(text: str) -> None:
    """Print a report, in plain ASCII where the terminal can show no more."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        from depthscale.report.words import ascii_only

        text = ascii_only(text)
    print(text)


def print_json(payload: dict[str, Any], indent: int | None = 2) -> None:
    """Print one object in full precision."""
    print(json.dumps(payload, indent=indent, allow_nan=False))

"""How far a long computation is: one bar on standard error, which goes when it ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol


class Advance(Protocol):
    """Tells a bar that steps are done, and what comes next where its label is to change."""

    def __call__(self, steps: int = 1, label: str | None = None) -> None:
        """Show it."""


@contextlib.contextmanager
def progress_bar(
    label: str, total: int, done: int = 0, shown: bool | None = None
) -> Iterator[Advance]:
    """Show how many of ``total`` steps are done, ``done`` of them from the start.

    ``shown`` says whether to; None: where standard error is a terminal.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda steps=1, label=None: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda steps=1, label=None: bar.update(task, advance=steps, description=label)

"""Carry a trial out on several processes, one line of a file for each run; read such files.

The first line holds the settings, versions and command, every other one a finished run. Runs are
written in their order, so that they do not depend on the number of processes (but for ``seconds``),
and a trial that was stopped goes on after its last whole line; what other processes had finished
ahead of it is done again.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from depthscale.answers import InputError
from depthscale.finite.runner import one_thread
from depthscale.practice import datasets, networks
from depthscale.practice.data import DataSet
from depthscale.practice.trials.trial import Build, Load, Trial, check_size, one_run
from depthscale.progress import progress_bar
from depthscale.theory.gaussian import Array

FORMAT, VERSION = "depthscale-trial", 1
PACKAGES = ("depthscale", "torch", "numpy")

METRICS = ("cross_entropy", "accuracy", "calibration_error", "gap")
"""Of a part, the test part by default; the gap is its cross-entropy minus the training one."""
MOMENTS = ("final", "selected")
PARTS = ("train", "validation", "test")

Key = tuple[str, str, int]
"""Cell, arm and seed of a run."""


@dataclass(frozen=True)
class Results:
    """The runs of a trial."""

    trial: Trial
    header: dict[str, Any]
    runs: dict[Key, dict[str, Any]]

    def seeds(self, cell: str) -> tuple[int, ...]:
        """Seeds that every arm of a cell has been trained with."""
        each = [
            {seed for place, name, seed in self.runs if (place, name) == (cell, arm.name)}
            for arm in self.trial.cell(cell).arms
        ]
        return tuple(sorted(set.intersection(*each)))

    def diverged(self, cell: str) -> dict[str, tuple[int, ...]]:
        """The arms of a cell that diverged, each with those of ``seeds(cell)`` that it did with."""
        found = {
            arm.name: tuple(
                seed for seed in self.seeds(cell) if _lost(self.runs[cell, arm.name, seed])
            )
            for arm in self.trial.cell(cell).arms
        }
        return {name: seeds for name, seeds in found.items() if seeds}

    def finite(self, cell: str) -> tuple[str, ...]:
        """The other arms of a cell, in their order: those that can be compared."""
        lost = self.diverged(cell)
        return tuple(arm.name for arm in self.trial.cell(cell).arms if arm.name not in lost)

    def values(
        self, cell: str, arm: str, metric: str, moment: str = "final", part: str = "test"
    ) -> Array:
        """A metric of each of ``seeds(cell)``; arms by any of their names.

        The gap is ``cross_entropy(part) - cross_entropy(train)``.

        Raises
        ------
        InputError
            An unknown cell, arm, metric, moment or part, the gap of the training part, or a run
            that diverged.
        """
        if metric not in METRICS or moment not in MOMENTS or part not in PARTS:
            raise InputError(
                f"no metric {metric!r} of {part!r} at {moment!r}; expected one of"
                f" {', '.join(METRICS)} of one of {', '.join(PARTS)} at one of {', '.join(MOMENTS)}"
            )
        if (metric, part) == ("gap", "train"):
            raise InputError("the gap is that to the training part; ask for validation or test")
        name = self.trial.cell(cell).arm(arm).name
        runs = {seed: self.runs[cell, name, seed] for seed in self.seeds(cell)}
        if lost := [seed for seed, run in runs.items() if _lost(run)]:
            raise InputError(f"arm {arm!r} of {cell} diverged with the seeds {lost}; leave it out")
        if metric != "gap":
            return np.array([run[moment][part][metric] for run in runs.values()], dtype=float)
        a, b = (self.values(cell, arm, "cross_entropy", moment, p) for p in (part, "train"))
        return a - b

    def rates(self, cell: str, arm: str) -> Array:
        """Rates of each of ``seeds(cell)``, [seed, site]."""
        found = self.trial.cell(cell).arm(arm)
        return np.array([found.rates_at(seed) for seed in self.seeds(cell)])


def _lost(run: dict[str, Any]) -> bool:
    """Whether a run stopped at a loss that was not finite, or ended at one."""
    losses = [run[moment][part]["cross_entropy"] for moment in MOMENTS for part in PARTS]
    return bool(run.get("diverged")) or None in losses


def run_trial(
    trial: Trial,
    seeds: Sequence[int],
    path: Path,
    *,
    workers: int = 1,
    command: str = "",
    progress: bool | None = None,
    build: Build = networks.build,
    load: Load = datasets.load,
) -> Results:
    """Train every arm of every cell with every seed, and write each run to ``path`` in its turn.

    Runs that the file holds already are not repeated; a last line that was cut is.

    Args:
        trial: what.
        seeds: whole numbers; each trains all arms before the next one begins.
        path: a file of one JSON object a line; made where it does not exist.
        workers: processes, one thread each.
        command: told in the header.
        progress: whether to show it; None: on a terminal.
        build: of the networks, as ``networks.build``.
        load: of the data, as ``datasets.load``.

    Raises:
        InputError: a file of other settings or versions, of something else, or that another
            trial is writing to; data with fewer examples than the trial takes.
    """
    header = _header(trial, command)
    tasks = [
        (cell, arm, seed)
        for seed in dict.fromkeys(seeds)
        for cell in trial.cells
        for arm in cell.arms
    ]
    check_size(trial, *load(trial.data))
    with _opened(path) as file:
        results = _resumed(path, file, header)
        left = [t for t in tasks if (t[0].name, t[1].name, t[2]) not in results.runs]
        with progress_bar("Runs", len(tasks), len(tasks) - len(left), progress) as advance:
            job = partial(_job, trial, build, load)
            for record in _in_order(job, left, workers):
                _append(file, record)
                results.runs[record["cell"], record["arm"], record["seed"]] = record
                advance()
    return results


def read_results(path: Path) -> Results:
    """Read what ``run_trial`` wrote, whole lines only; ``InputError`` for anything else."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last end of line was cut
        header, *runs = [json.loads(line) for line in lines]
        if (header["format"], header["version"]) != (FORMAT, VERSION):
            raise InputError(
                f"{path} is of format {header['format']!r}, version {header['version']!r}; this"
                f" program reads {FORMAT!r}, version {VERSION}"
            )
        found = {(run["cell"], run["arm"], run["seed"]): run for run in runs}
        return Results(Trial.from_dict(header["settings"]), header, found)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no trial: expected a JSON object on each line, settings first"
        ) from error


def _header(trial: Trial, command: str) -> dict[str, Any]:
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return {
        "format": FORMAT,
        "version": VERSION,
        "command": command,
        "versions": versions,
        "settings": trial.to_dict(),
    }


def _resumed(path: Path, file: Any, header: dict[str, Any]) -> Results:
    """What an open file holds, cut back to whole lines once it is known to be of this trial."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if not whole and not _line(header).startswith(content):
        raise InputError(f"{path} holds no trial, and is left as it is; give another file")
    if not whole:
        file.truncate(0)
        _append(file, header)
    results = read_results(path)
    for name in ("settings", "versions"):
        if results.header[name] != header[name]:
            raise InputError(
                f"{path} was written with other {name} ({_difference(results.header, header, name)}"
                "); give another file, or the same ones"
            )
    if whole:
        file.truncate(whole)
    return results


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file to append to, which no other process can write a trial to at the same time."""
    try:
        file = path.open("ab")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    with file:
        try:
            import fcntl
        except ImportError:  # not on this system: two trials on one file are the user's care
            yield file
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another trial is writing to {path}; wait, or give another"
            ) from error
        yield file


def _difference(old: dict[str, Any], new: dict[str, Any], name: str) -> str:
    """The first entry that differs, in words."""
    a, b = old[name], new[name]
    key: str = next(k for k in [*a, *b] if a.get(k) != b.get(k))
    if isinstance(a.get(key), dict | list) or isinstance(b.get(key), dict | list):
        return key
    return f"{key} {a.get(key)!r}, not {b.get(key)!r}"


def _append(file: Any, record: dict[str, Any]) -> None:
    """One line, on the disk before anything else happens."""
    file.write(_line(record))
    file.flush()
    os.fsync(file.fileno())


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _job(trial: Trial, build: Build, load: Load, cell: Any, arm: Any, seed: int) -> dict[str, Any]:
    with one_thread():
        return one_run(trial, cell, arm, seed, build, _cached(load))


def _cached(load: Load) -> Load:
    """The same, which reads each data set once in a process.

    Copies of one ``partial`` that reach the process one by one do not compare as equal: they are
    told apart by what they hold.
    """
    given = load if isinstance(load, partial) else partial(load)
    key = given.func, given.args, tuple(sorted(given.keywords.items()))
    return lambda name: _loaded(*key, name)


@lru_cache(maxsize=1)
def _loaded(
    load: Callable[..., tuple[DataSet, DataSet]],
    args: tuple[Any, ...],
    keywords: tuple[tuple[str, Any], ...],
    name: str,
) -> tuple[DataSet, DataSet]:
    return load(*args, name, **dict(keywords))


def _in_order(job: Any, tasks: list[Any], workers: int) -> Iterator[dict[str, Any]]:
    """Records of the runs by their order, as soon as they are there."""
    if workers == 1 or len(tasks) <= 1:
        for task in tasks:
            yield job(*task)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(workers, backend="loky", return_as="generator", inner_max_num_threads=1)
    with warnings.catch_warnings():
        # a process whose memory has grown is replaced between runs
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        yield from parallel(delayed(job)(*task) for task in tasks)

"""The trained networks behind the claims of the dropout paper: what is trained, and the runs.

They lie in ``runs``, a file for each of ``TRIALS``, with its settings, versions and command in its
first line; ``retrain`` makes them anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from depthscale.answers import InputError
from depthscale.practice.trials.plans import plan
from depthscale.practice.trials.runner import Results, read_results, run_trial
from depthscale.practice.trials.statistics import FEWEST
from depthscale.practice.trials.trial import Trial

MLP, VIT, HF_VIT, RESNET = "mlp", "component", "hf-vit", "resnet"
SWEPT = ("budget", "activation", "depth", "width")
BRANCHED = ("none", "uniform", "uniform 2x", "step", "step-late", "linear", "linear-late")
TRIALS: dict[str, tuple[dict[str, Any], int]] = {
    MLP: ({}, 20),
    "budget": ({"sweep": "budget"}, 6),
    "activation": ({"sweep": "activation"}, 6),
    "depth": ({"sweep": "depth"}, 6),
    "width": ({"sweep": "width"}, 5),
    VIT: ({"network": "vit", "size": "small", "sweep": "component"}, 6),
    RESNET: ({"network": "resnet", "size": "small", "arms": BRANCHED}, 6),
    HF_VIT: ({"network": "hf-vit", "size": "small", "arms": BRANCHED}, 6),
}
"""What ``plan`` takes for each file of runs (size "paper" where it says none), and the seeds."""


@dataclass(frozen=True)
class Runs:
    """The trained networks, from ``folder`` or, where that is None, from the package."""

    folder: Path | None = None

    def results(self, name: str) -> Results | None:
        """The runs of a trial; None where there is no file, or fewer than three seeds."""
        results = _read(self.folder, name)
        if results is None:
            return None
        seeds = min(len(results.seeds(cell.name)) for cell in results.trial.cells)
        return results if seeds >= FEWEST else None

    def provenance(self) -> dict[str, Any]:
        """Command, versions and seeds of every file that there is."""
        found = {}
        for name in TRIALS:
            if (results := self.results(name)) is not None:
                seeds = {len(results.seeds(cell.name)) for cell in results.trial.cells}
                header = results.header
                found[name] = {
                    "command": header["command"], "versions": header["versions"],
                    "seeds": min(seeds), "epochs": results.trial.epochs,
                }  # fmt: skip
        return found


@cache
def _read(folder: Path | None, name: str) -> Results | None:
    place = files(__package__).joinpath("runs", f"{name}.jsonl")
    if folder is not None:
        place = folder / f"{name}.jsonl"
    if not place.is_file():
        return None
    with as_file(place) as path:
        return read_results(path)


def retrain(folder: Path, workers: int = 2) -> Runs:
    """Train everything again into ``folder``; hours on two processors, and it can be stopped."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}") from error
    for name, (_, seeds) in TRIALS.items():
        run_trial(
            planned(name),
            range(seeds),
            folder / f"{name}.jsonl",
            workers=workers,
            command=command_of(name),
        )
    _read.cache_clear()
    return Runs(folder)


def planned(name: str) -> Trial:
    """The trial behind a file of runs."""
    what: dict[str, Any] = {"size": "paper"} | TRIALS[name][0]
    return plan(**what)


def command_of(name: str) -> str:
    """The command that makes a file of runs."""
    what, seeds = TRIALS[name]
    words = {"size": "paper"} | what | {"seeds": seeds, "out": f"{name}.jsonl"}
    given = (f"--{key} {_word(value)}" for key, value in words.items())
    return f"depthscale trial {' '.join(given)}"


def _word(value: Any) -> str:
    return str(value) if not isinstance(value, tuple) else f'"{",".join(value)}"'

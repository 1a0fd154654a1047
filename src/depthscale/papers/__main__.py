"""``python -m depthscale.papers PAPER --out DIR``: recompute a paper and judge its claims."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from depthscale.answers import InputError
from depthscale.files import replacing
from depthscale.papers.claims import Claim, Verdicts, joined
from depthscale.progress import progress_bar

PURPOSE = "Recompute a paper and judge its claims."


class Study(NamedTuple):
    """What there is to compute of a paper: groups of claims and figures, by name, in order."""

    title: str
    groups: Sequence[tuple[str, Callable[[], list[Claim]]]]
    figures: Callable[[], dict[str, Callable[[Any], Any]]]
    settings: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the verdicts, write claims and figures, return the exit code: 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m depthscale.papers", description=PURPOSE)
    parser.add_argument(
        "paper",
        choices=STUDIES,
        help="dropout is 2605.21648 (30 s), gradients is 1912.09132, limits is 2310.12079 (6 to 8"
        " min each on two processors) and absorbing is 2307.02284 (20 min)",
    )
    parser.add_argument("--out", type=Path, help="folder for claims and figures; default: none")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few random networks for all but dropout; such verdicts are not to be quoted",
    )
    parser.add_argument(
        "--retrain",
        action="store_true",
        help="train the networks of dropout anew, into OUT/runs (hours), in place of the runs that"
        " come with the package",
    )
    options = parser.parse_args(arguments)
    try:
        verdicts = reproduce(
            options.paper, options.out, quick=options.quick, retrain=options.retrain
        )
    except InputError as error:
        print(f"papers: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("papers: interrupted", file=sys.stderr)
        return 130
    print(verdicts)
    return 0


def reproduce(
    paper: str, out: Path | None = None, *, quick: bool = False, retrain: bool = False
) -> Verdicts:
    """Compute all claims of a paper; with ``out``, write ``claims.json`` and the figures there.

    Raises
    ------
    InputError
        ``out`` cannot be made or written; ``retrain`` without it; ``quick`` of dropout, or
        ``retrain`` of another paper.
    """
    if quick and paper == "dropout":
        raise InputError(
            "--quick is for the papers whose networks are random; those of dropout come trained"
            " with the package: leave it out (30 s without it)"
        )
    if retrain and (out is None or paper != "dropout"):
        raise InputError(
            "--retrain takes --out, where the runs go, and the paper dropout; the others train"
            " their networks every time, or none"
        )
    if out is not None:
        _make(out)
    how: dict[str, Any] = {"quick": True} if quick else {}
    if retrain and out is not None:
        how = {"folder": out / "runs"}
    study = STUDIES[paper](**how)
    drawings = study.figures() if out is not None else {}
    with progress_bar("starting", len(study.groups) + len(drawings)) as advance:
        groups = []
        for name, group in study.groups:
            advance(0, name)
            groups.append(group())
            advance()
        verdicts = joined(study.title, groups)
        if out is None:
            return verdicts
        for name, draw in drawings.items():
            advance(0, name)
            _written(out / name, draw)
            advance()
        given = {"quick": quick, "retrain": retrain}
        flags = "".join(f" --{name}" for name, on in given.items() if on)
        command = f"python -m depthscale.papers {paper}{flags}"
        record = _record(command, study.settings, verdicts)
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        _written(out / "claims.json", lambda path: path.write_text(text, encoding="utf-8"))
    return verdicts


def _dropout(folder: Path | None = None) -> Study:
    from depthscale.papers import dropout
    from depthscale.papers.dropout.experiments import trained
    from depthscale.papers.dropout.trials import Runs, retrain

    runs = Runs() if folder is None else retrain(folder)
    groups = [
        (name, partial(trained, runs) if name == "experiments" else group)
        for name, group in dropout.GROUPS
    ]
    figures = partial(dropout.figures, runs)
    return Study(dropout.TITLE, groups, figures, {"runs": runs.provenance()})


def _gradients(quick: bool = False) -> Study:
    from depthscale.papers import gradients

    runs = gradients.Runs(quick)
    groups = [(name, partial(group, runs)) for name, group in gradients.GROUPS]
    return Study(
        gradients.TITLE, groups, partial(gradients.figures, runs), {"runs": runs.provenance()}
    )


def _limits(quick: bool = False) -> Study:
    from depthscale.papers import limits

    runs = limits.Runs(quick)
    groups = [(name, partial(group, runs)) for name, group in limits.GROUPS]
    return Study(limits.TITLE, groups, partial(limits.figures, runs), {"runs": runs.provenance()})


def _absorbing(quick: bool = False) -> Study:
    from depthscale.papers import absorbing

    runs = absorbing.Runs(quick)
    groups = [(name, partial(group, runs)) for name, group in absorbing.GROUPS]
    return Study(
        absorbing.TITLE, groups, partial(absorbing.figures, runs), {"runs": runs.provenance()}
    )


STUDIES: dict[str, Callable[..., Study]] = {
    "dropout": _dropout,
    "gradients": _gradients,
    "limits": _limits,
    "absorbing": _absorbing,
}
"""Every paper by its name; dropout may have a folder of runs, the others be quick."""


def _record(command: str, settings: dict[str, Any], verdicts: Verdicts) -> dict[str, Any]:
    packages = ["depthscale", "numpy", "scipy", "xarray", "matplotlib"]
    if settings:
        packages.append("torch")
    return {
        "command": command,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        **settings,
        **verdicts.to_dict(),
    }


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made: {error.strerror or error}") from error


def _written(target: Path, write: Callable[[Path], Any]) -> None:
    """Write the file: it appears once it is whole."""
    with replacing(target) as draft:
        write(draft)


if __name__ == "__main__":
    sys.exit(main())

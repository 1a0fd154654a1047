"""The command of trials: train schedules against each other, and tell what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands.output import (
    HEALTHY,
    PLOTS,
    check_writable,
    print_json,
    print_text,
    say_written,
    writing,
)

if TYPE_CHECKING:
    import argparse

FIELDS = ("train", "validation", "test", "epochs", "batch", "optimiser", "learning_rate", "device")


def trial(options: argparse.Namespace) -> int:
    """Run what the file lacks, and print the comparison."""
    from functools import partial

    from depthscale.practice import datasets
    from depthscale.practice.trials.plans import plan
    from depthscale.practice.trials.runner import run_trial
    from depthscale.practice.trials.statistics import FEWEST, compare
    from depthscale.report.trials import plot_arms, render_trial

    check_writable(options.out, (".jsonl",))
    check_writable(options.plot, PLOTS)
    if options.seeds < FEWEST:
        raise InputError(f"--seeds is {options.seeds}; comparing takes at least {FEWEST}")
    if options.plot is not None and options.sweep is not None:
        raise InputError("--plot draws the arms of one network; leave it out of a sweep")
    settings = {name: getattr(options, name) for name in FIELDS}
    settings = {name: value for name, value in settings.items() if value is not None}
    what = plan(
        options.network, options.data, options.size, options.sweep, options.mean, options.arms,
        **settings,
    )  # fmt: skip
    _check_device(what.device, options.workers)
    load = datasets.load
    if options.folder is not None or options.download:
        load = partial(datasets.load, folder=options.folder, download=options.download)
    load(what.data)  # says what is missing before processes start
    try:
        results = run_trial(
            what,
            range(options.seeds),
            options.out,
            workers=options.workers,
            command=_command(options),
            load=load,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("give the same command again to go on") from None
    differences = compare(results)
    if options.plot is not None:
        with writing(options.plot):
            plot_arms(results, what.cells[0].name, differences, options.plot)
    if options.json:
        print_json(_payload(results, differences))
    else:
        print_text(render_trial(results, differences))
    say_written(options.json, options.out, options.plot)
    return HEALTHY


def _payload(results: Any, differences: Any) -> dict[str, Any]:
    from depthscale.practice.trials.statistics import seeds_needed

    return {
        **results.header,
        "seeds": {cell.name: list(results.seeds(cell.name)) for cell in results.trial.cells},
        "diverged": {cell.name: results.diverged(cell.name) for cell in results.trial.cells},
        "family": len(differences),
        "seeds_needed": seeds_needed(len(differences)) if differences else None,
        "differences": [one.to_dict() for one in differences],
    }


def _command(options: argparse.Namespace) -> str:
    """The command line, but for where things are."""
    words = [f"depthscale trial --network {options.network} --data {options.data}"]
    words += [f"--size {options.size} --seeds {options.seeds}"]
    for name in ("sweep", "mean", *FIELDS):
        value = getattr(options, name)
        if value is not None and (name, value) != ("mean", 0.1):
            words.append(f"--{name.replace('_', '-')} {value}")
    if options.arms is not None:
        words.append(f"--arms '{','.join(options.arms)}'")
    return " ".join([*words, f"--workers {options.workers} --out {options.out.name}"])


def _check_device(device: str, workers: int) -> None:
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device!r} cannot be used ({str(error).splitlines()[0]}); try cpu"
        ) from error
    if device != "cpu" and workers > 1:
        raise InputError(f"--workers is {workers}; runs on {device} take one process")

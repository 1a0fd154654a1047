"""The command of trials: train schedules against each other, and tell what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands import Command
from depthscale.commands.options import number, positive, words
from depthscale.commands.output import (
    HEALTHY,
    PLOTS,
    check_writable,
    print_json,
    print_text,
    say_written,
)
from depthscale.files import writing

if TYPE_CHECKING:
    import argparse

FIELDS = ("train", "validation", "test", "epochs", "batch", "optimiser", "learning_rate", "device")
TRIED = ("mlp", "vit", "hf-vit", "resnet")

TRIAL = """\
examples:
  depthscale trial --network mlp --data fashion-mnist --seeds 5 --workers 2 --out trial.jsonl
  depthscale trial --network mlp --data digits --arms "none,uniform,step" --epochs 5 --out few.jsonl
  depthscale trial --size paper --seeds 20 --workers 2 --out mlp.jsonl         (2 hours)
  depthscale trial --size paper --seeds 20 --device cuda --out gpu.jsonl
  depthscale trial --sweep width --seeds 5 --workers 2 --out width.jsonl

Trains the same network with every schedule: none, uniform at 1, 1.5, 2 and 3 times the mean, every
named profile and its mirror, one random permutation for each seed, for the MLP also what theory
finds best for each objective, and a block that slides from the input to the output. Within a seed
all share weights, examples and order of batches; dropout noise is drawn for each by itself.
Prints cross-entropies with paired intervals and p-values, at the last epoch and at the one that a
validation part selects; test examples decide nothing. Mind the uniform rates of other doses: the
best of them is the control that matters.
The file has a line for each run as soon as it ends; the same command goes on where it was stopped.

"""


def _trial_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--network", choices=TRIED, default="mlp", help="default mlp")
    add("--data", default="fashion-mnist", metavar="NAME", help="fashion-mnist (default), mnist, "
        "digits, mnist1d, cifar-10 or cifar-100")  # fmt: skip
    add("--folder", type=Path, help="of the data, looked at first")
    add("--download", action="store_true", help="fetch data that are nowhere")
    add("--size", choices=("small", "paper"), default="small", help="small (default): minutes on "
        "two processors; paper: as 2605.21648")  # fmt: skip
    add("--sweep", choices=("budget", "width", "depth", "place", "activation", "component"),
        help="a few arms at several settings of the MLP; component: in the branches of vit"
    )  # fmt: skip
    add("--mean", type=number, default=0.1, help="mean probability dropped, below 1/3 "
        "(default 0.1)")  # fmt: skip
    add("--arms", type=words, metavar="A,B,...", help="of the arms, by name (default: all); "
        "held against uniform, or else the first")  # fmt: skip
    add("--seeds", type=positive, default=5, help="seeds from 0, at least 3 (default 5); more can "
        "be added to a file later")  # fmt: skip
    for name in ("train", "validation", "test"):
        add(f"--{name}", type=positive, metavar="N", help=f"{name} examples, drawn for each seed")
    add("--epochs", type=positive, metavar="N")
    add("--batch", type=positive, metavar="N", help="examples an update (default 100)")
    add("--optimiser", choices=("adam", "adamw", "sgd"), help="default adamw")
    add(
        "--learning-rate",
        type=number,
        metavar="RATE",
        help="at first, then cosine (default: by network and size; the paper's MLP 1e-4)",
    )
    add("--workers", type=positive, default=1, help="processes (default 1); same results")
    add("--device", help="cpu (default) or cuda")
    add("--out", type=Path, required=True, metavar="FILE", help="one line for each run: .jsonl")
    add("--plot", type=Path, metavar="PATH", help="write the arms with intervals: .svg, .png, .pdf")


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


COMMANDS = {"trial": Command(TRIAL, _trial_arguments, trial)}

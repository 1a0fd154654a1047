"""The command that audits a torch model."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from depthscale.answers import InputError
from depthscale.commands import Command
from depthscale.commands.options import count, positive, seed, shape
from depthscale.commands.output import (
    FINDINGS,
    HEALTHY,
    check_writable,
    print_json,
    print_text,
    working,
)
from depthscale.files import writing

if TYPE_CHECKING:
    import argparse

    from depthscale.practice.audit import Audit

AUDIT = """\
examples:
  depthscale audit                                       the bundled 60-layer tanh example
  depthscale audit model.py --fix --html report.html     a file that defines one model
  depthscale audit package.module:build --data x.npz --reinit 5 --json

The model's code is run: audit only files that you trust. The callable takes no arguments and
returns a torch.nn.Module, or a pair (module, inputs). Nothing on disk is changed; --fix works on
the model in memory and shows what depthscale.critical_init_(model) would do for you.

"""


def _audit_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", nargs="?", help="package.module:callable or file.py[:callable]; none: the example")
    add("--data", help="digits (bundled), normal (random), an .npy, .npz or .pt file, or "
        "fashion-mnist, mnist, mnist1d, cifar-10, cifar-100 where they are installed; "
        "default: the factory's inputs, else what fits the first layer")  # fmt: skip
    add("--shape", type=shape, help="shape of one example, such as 3,32,32")
    add("--batch", type=positive, default=128, help="examples, at most (default 128)")
    add("--pairs", type=positive, default=64, help="pairs of inputs to compare (default 64)")
    add("--mode", choices=("train", "eval"), default="train", help="default train: dropout drops")
    add("--reinit", type=count, default=0, metavar="K", help="repeat over K initialisations")
    add("--seed", type=seed, default=0)
    add("--fix", action="store_true", help="also audit the model after critical_init_")
    add("--html", type=Path, metavar="PATH", help="write a self-contained page "
        "(with --fix also PATH-fixed)")  # fmt: skip


def audit(options: argparse.Namespace) -> int:
    """Audit a model, print the report and write the pages; 1 where it has problems."""
    check_writable(options.html, (".html", ".htm"), replaced=True)
    fixed_page = options.html and options.html.with_stem(f"{options.html.stem}-fixed")
    check_writable(fixed_page if options.fix else None, (".html", ".htm"), replaced=True)
    with working("Auditing"):
        before, after, obstacle = _audits(options)
        pages = [(before, options.html), (after, fixed_page)] if options.html else []
        for result, page in pages:
            if result is not None:
                with writing(page):
                    result.to_html(page)
    if options.json:
        payload = before.to_dict()
        if options.fix:
            payload["after_fix"] = None if after is None else after.to_dict()
            payload["fix_obstacle"] = obstacle
        print_json(payload)
    else:
        _print_audit(before)
        if after is not None:
            print_text("\n\nAfter depthscale.critical_init_(model):\n")
            _print_audit(after)
        elif obstacle:
            print_text(f"\nNot fixed: {obstacle}")
        elif options.fix:
            print_text("\nNothing to fix: the model is healthy as it is.")
    return HEALTHY if before.verdict.healthy else FINDINGS


def _audits(options: argparse.Namespace) -> tuple[Audit, Audit | None, str | None]:
    """Audit the model as it is and, where asked for and needed, after critical initialisation.

    The last is the reason why a model that needs it cannot be initialised.
    """
    from dataclasses import replace

    from depthscale.example import chaotic_mlp
    from depthscale.practice.audit import audit as audit_model
    from depthscale.practice.initialisation import critical_init_
    from depthscale.practice.loading import LoadedModel, choose_data, load_model

    if options.model is None:
        loaded = LoadedModel(chaotic_mlp(seed=options.seed), None, "bundled example")
    else:
        loaded = load_model(options.model, seed=options.seed)
    inputs, source = choose_data(loaded, options.data, options.shape, options.batch, options.seed)

    def run(name: str) -> Audit:
        result = audit_model(
            loaded.model,
            inputs,
            mode=options.mode,
            pairs=options.pairs,
            reinit=options.reinit,
            seed=options.seed,
            name=name,
        )
        return replace(result, provenance={**result.provenance, "data": source})

    before = run(loaded.name)
    if not options.fix or before.verdict.healthy:
        return before, None, None
    try:
        critical_init_(loaded.model, inputs, seed=options.seed)
    except InputError as error:
        return before, None, str(error)
    return before, run(f"{loaded.name} after critical_init_"), None


def _print_audit(result: Audit) -> None:
    from depthscale.report.terminal import render

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    print_text(render(result, width=width, colour=colour))


COMMANDS = {"audit": Command(AUDIT, _audit_arguments, audit)}

"""The command that audits a torch model."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from depthscale.answers import InputError
from depthscale.commands.output import (
    FINDINGS,
    HEALTHY,
    check_writable,
    print_json,
    print_text,
    working,
    writing,
)

if TYPE_CHECKING:
    import argparse

    from depthscale.practice.audit import Audit


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

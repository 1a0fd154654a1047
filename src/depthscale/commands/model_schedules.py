"""The command of dropout schedules for a real model: advice, what it was seen to do, the file."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from depthscale.commands.output import (
    HEALTHY,
    check_writable,
    others_to_stderr,
    print_json,
    print_text,
    say_written,
)
from depthscale.files import replacing
from depthscale.progress import progress_bar

if TYPE_CHECKING:
    import argparse

    from depthscale.practice.schedule import Budget


def schedule_of_model(options: argparse.Namespace, budget: Budget | None) -> int:
    """Print the schedule that is best for a model, and write it where asked."""
    from depthscale.practice.dropping.advise import schedule_model
    from depthscale.practice.loading import choose_data, load_model

    check_writable(options.apply_to, (".json",), replaced=True)
    with others_to_stderr(), ExitStack() as stack:
        loaded = load_model(options.model, seed=options.seed)
        inputs, source = choose_data(
            loaded, options.data, options.shape, options.batch or 128, options.seed
        )
        found = schedule_model(
            loaded.model,
            inputs,
            budget,
            options.objective or "noise",
            kinds=options.kinds,
            across_kinds=options.across_kinds,
            seed=options.seed,
            progress=lambda total: stack.enter_context(progress_bar("Measuring", total)),
        )
    payload = {"model": loaded.name, "data": source, **found.to_dict()}
    if options.apply_to is not None:
        with replacing(options.apply_to) as beside:
            beside.write_text(found.whole.to_json() + "\n", encoding="utf-8")
    if options.json:
        print_json(payload)
    else:
        from depthscale.report.model_schedules import render_model_schedule

        print_text(render_model_schedule(payload, options.apply_to))
    say_written(options.json, options.apply_to)
    return HEALTHY

"""The command of plans: the depth, bias and width that a data set allows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands import Command
from depthscale.commands.options import activation_option, number, positive, seed
from depthscale.commands.output import (
    FINDINGS,
    HEALTHY,
    PLOTS,
    check_writable,
    load_activation,
    print_json,
    print_text,
    say_written,
    working,
)
from depthscale.files import writing

if TYPE_CHECKING:
    import argparse

PLAN = """\
examples:
  depthscale plan --activation tanh --data digits --depth 50
  depthscale plan --activation relu --data digits --json
  depthscale plan --activation erf --sigma-b .3 --data x.npz --plot plan.svg
  depthscale plan --activation tanh --data digits --depth 500 --sigma-b .3 --width 300

A critical network of depth L tells inputs apart by its stretch, L times the curvature that sigma_b
sets, and by how far they lie apart themselves. Too little of it and training is slow, too much and
all pairs look alike. The window in between is measured on the data, by regression with the kernel
of an infinitely wide network; it is then read as depths, biases and a width. Exit code 1 where the
depth is outside or there is no window.

The JSON holds "verdict", "depth_window", "sigma_b_window", "width", "sigma_w", "sigma_b", "depth",
"window", "data", "line" and, for what does not exist, "reasons".

"""


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    activation_option(parser)
    add("--data", required=True, help="digits (bundled), an .npy, .npz or .pt file, or "
        "fashion-mnist, mnist, mnist1d, cifar-10, cifar-100 where they are installed")  # fmt: skip
    add("--depth", type=positive, help="weight layers behind the first")
    add("--sigma-b", type=number, help="bias scale (default: the one that suits the depth)")
    add("--width", type=positive, help="units a layer, if they are given")
    add("--window", type=_window, metavar="LOW,HIGH", help="of the stretch (default: measured)")
    add("--deviation", type=number, default=0.1, metavar="E", help="share by which a finite width "
        "may move the misalignment (default .1)")  # fmt: skip
    add("--steps", type=number, default=1000.0, help="of gradient descent (default 1000)")
    add("--loss", type=number, default=0.02, help="of accuracy, up to the ends of the window "
        "(default .02)")  # fmt: skip
    add("--seed", type=seed, default=0)
    add("--plot", type=Path, metavar="PATH", help="write the window: .svg, .png or .pdf")


def _window(text: str) -> tuple[float, float]:
    """Two numbers between a comma."""
    from argparse import ArgumentTypeError

    parts = [number(part) for part in text.split(",")]
    if len(parts) != 2:
        raise ArgumentTypeError(f"expected LOW,HIGH, got {text!r}")
    return parts[0], parts[1]


def plan(options: argparse.Namespace) -> int:
    """Print the plan and draw it."""
    check_writable(options.plot, PLOTS)
    if options.data == "normal":
        raise InputError("--data is normal: random inputs need no plan; give a data set or a file")
    with working("Measuring the window of the data"):
        from depthscale.practice.plan_depth import plan_depth

        found = plan_depth(
            options.data,
            load_activation(options.activation),
            sigma_b=options.sigma_b,
            depth=options.depth,
            width=options.width,
            window=options.window,
            deviation=options.deviation,
            steps=options.steps,
            loss=options.loss,
            seed=options.seed,
        )
        payload: dict[str, Any] = found.to_dict()
        if options.plot is not None:
            from depthscale.report.plans import plot_plan

            with writing(options.plot):
                plot_plan(payload, options.plot)
    if options.json:
        print_json(payload)
    else:
        from depthscale.report.plan_summaries import render_plan

        print_text(render_plan(payload))
    say_written(options.json, options.plot)
    return HEALTHY if found.verdict in ("inside", "choose") else FINDINGS


COMMANDS = {"plan": Command(PLAN, _plan_arguments, plan)}

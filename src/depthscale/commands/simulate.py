"""The command that samples random networks of finite width and holds them against theory."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands import Command
from depthscale.commands.options import (
    activation_option,
    length,
    masks_option,
    misalignment,
    number,
    positive,
    seed,
)
from depthscale.commands.output import (
    HEALTHY,
    MOST_LAYERS,
    PLOTS,
    check_writable,
    load_activation,
    others_to_stderr,
    print_json,
    print_text,
    say_written,
    working,
)
from depthscale.commands.simulation_files import check_savable, save
from depthscale.files import replacing

if TYPE_CHECKING:
    from depthscale.finite.ensemble import Ensemble, Pair
    from depthscale.finite.sampled import Sampled

DEPTH = 30
NO_UNITS = (
    "with dropped weights every unit has masked inputs of its own, which the sampler does not"
    " follow (independent has the same limit of large width)"
)

SIMULATE = """\
examples:
  depthscale simulate --activation tanh --sigma-w 1.4 --sigma-b 0.3 --drop 0.05
  depthscale simulate --activation relu --sigma-w 1.4142 --backward --loss readout --json
  depthscale simulate --activation tanh --sigma-w 1.3 --width 100 --depth 50 --plot run.svg
  depthscale simulate --activation erf --sigma-w 2 --nets 20000 --checkpoint run.npz    (resumes)

Draws random networks of finite width, exactly in distribution, and sends two inputs of mean square
q0 and misalignment eps0 through each: layer 0 are the inputs, layer l the pre-activations behind l
weight matrices. With --backward the gradients of a loss at the last layer come back through the
same weights, which is where 1912.09132 assumes independence (GIA).

The JSON holds by layer q (of the first input) and eps, and by hop, entry l for the weights between
layers l and l + 1 and summed over all of them, grad_aa (the first input's squared gradient),
grad_ab (the product of both inputs' gradients) and grad_ab_abs (of their sizes, weight by weight).
Each is an object with mean, sem, mean_log, var_log, ...; theory stands beside them under "theory",
and "reasons" says why a value is null. Where a mean leaves float64, log_abs_mean has its logarithm.

"""


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    activation_option(parser)
    add("--sigma-w", type=number, required=True, help="weight scale, above 0")
    add("--sigma-b", type=number, default=0.0, help="bias scale (default 0)")
    add("--drop", type=_rates, default="0", metavar="RATE", help="probability dropped in hidden "
        "layers, or one for each of them, separated by commas (default 0)")  # fmt: skip
    masks_option(parser, dropconnect=NO_UNITS)
    add("--skip", type=number, default=0.0, help="residual branch h' = SKIP h + ... (default 0)")
    add("--weights", choices=("gaussian", "orthogonal"), default="gaussian")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--width", type=positive, default=256, help="units a layer (default 256)")
    size.add_argument("--widths", type=_sizes, metavar="N0,N1,...",
        help="or those of every layer, the inputs first")  # fmt: skip
    add("--depth", type=positive, help="weight layers, at most 20000 (default 30, or as --widths)")
    add("--eps0", type=misalignment, default=0.5, help="misalignment of the inputs (default 0.5)")
    add("--q0", type=length, default=1.0, help="mean square of both inputs (default 1)")
    add("--nets", type=positive, default=256, help="number of networks (default 256)")
    add("--seed", type=seed, default=0)
    add("--backward", action="store_true", help="also send gradients back")
    add("--loss", choices=("quadratic", "readout", "linear", "outputs"), help="with --backward: "
        "|h|^2/2 (default), v.phi(h), v.h with random v, or every output by itself")  # fmt: skip
    add("--untied", action="store_true", help="with --backward: send gradients back through "
        "weights of their own")  # fmt: skip
    add("--ntk", action="store_true", help="with --backward: also the neural tangent kernel")
    add("--precision", choices=("mixed", "double", "single"), default="mixed", help="of the units; "
        "mixed (default): single but where inputs are close to each other")  # fmt: skip
    add("--engine", choices=("auto", "weightless", "explicit"), default="auto",
        help="default auto: the faster one")  # fmt: skip
    add("--workers", type=positive, default=1, help="processes (default 1); same results")
    add("--device", default="cpu", help="cpu (default) or cuda")
    add("--memory", type=_memory, metavar="GB", help="GiB of memory that may be used (default: four"
        " fifths of what is free)")  # fmt: skip
    add("--checkpoint", type=Path, metavar="FILE", help="save the run there now and then, and go on"
        " from there")  # fmt: skip
    add("--save", type=Path, metavar="PATH", help="write all statistics: .nc (netCDF) or "
        ".zarr; or those by layer: .csv")  # fmt: skip
    add("--plot", type=Path, metavar="PATH", help="write the curves: .svg, .png or .pdf")


def _rates(text: str) -> float | list[float]:
    rates = [number(part.strip()) for part in text.split(",")]
    return rates if len(rates) > 1 else rates[0]


def _sizes(text: str) -> list[int]:
    sizes = [positive(part.strip()) for part in text.split(",")]
    if len(sizes) < 2:
        raise argparse.ArgumentTypeError(f"expected at least 2 widths, got {text!r}")
    return sizes


def _memory(text: str) -> float:
    if number(text) <= 0:
        raise argparse.ArgumentTypeError(f"expected GiB of memory, above 0, got {text!r}")
    return number(text)


def simulate(options: argparse.Namespace) -> int:
    """Sample networks, print their statistics beside the theory, save them and draw them."""
    from depthscale.commands.simulation_records import simulation_record

    _check(options)
    with others_to_stderr():
        networks, pair = _networks(options)
        result, run = _sampled(networks, pair, options)
    with working("Integrating the theory"):
        payload = simulation_record(networks, pair, result, _settings(networks, options), run)
        if options.save is not None:
            save(result, payload, options.save)
        if options.plot is not None:
            from depthscale.report.simulations import plot_simulation

            with replacing(options.plot) as beside:
                plot_simulation(payload, beside)
    if options.json:
        print_json(payload, indent=None)
    else:
        from depthscale.report.simulation_summaries import render_simulation

        print_text(render_simulation(payload))
    say_written(options.json, options.save, options.plot)
    return HEALTHY


def _check(options: argparse.Namespace) -> None:
    """Refuse what the parser cannot see, before anything heavy is imported."""
    for name, given in (
        ("loss", options.loss is not None),
        ("untied", options.untied),
        ("ntk", options.ntk),
    ):
        if given and not options.backward:
            raise InputError(f"--{name} is about gradients; give --backward to send them back")
    if options.untied and options.weights != "gaussian":
        raise InputError("--untied is there for Gaussian weights; leave --weights out")
    if options.untied and options.engine == "explicit":
        raise InputError(
            "--engine explicit sends gradients back through the weights themselves; for --untied"
            " take --engine weightless"
        )
    widths = options.widths
    if options.depth is None:
        options.depth = DEPTH if widths is None else len(widths) - 1
    if widths is not None and len(widths) != options.depth + 1:
        raise InputError(
            f"--widths gives {len(widths)} layers; expected {options.depth + 1} for --depth"
            f" {options.depth}, the inputs first"
        )
    if options.depth > MOST_LAYERS:
        raise InputError(f"--depth is {options.depth}; expected at most {MOST_LAYERS} layers")
    first = options.width if widths is None else widths[0]
    if first < 2:
        raise InputError(
            f"the inputs have {first} unit; expected a width of at least 2, since one unit has no"
            " room for two inputs at an angle"
        )
    check_writable(options.plot, PLOTS, replaced=True)
    check_writable(options.checkpoint, replaced=True)
    check_savable(options.save)


def _networks(options: argparse.Namespace) -> tuple[Ensemble, Pair]:
    from depthscale.finite.ensemble import Ensemble, Pair

    networks = Ensemble(
        load_activation(options.activation),
        sigma_w=options.sigma_w,
        sigma_b=options.sigma_b,
        width=options.width if options.widths is None else options.widths,
        depth=options.depth,
        drop=options.drop,
        masks=options.masks,
        skip=options.skip,
        weights=options.weights,
        tied=not options.untied,
    )
    return networks, Pair(options.eps0, q1=options.q0, q2=options.q0)


def _sampled(
    networks: Ensemble, pair: Pair, options: argparse.Namespace
) -> tuple[Sampled, dict[str, Any]]:
    """The statistics, and how they were computed."""
    loss = _loss(options)
    how: dict[str, Any] = {
        "precision": options.precision,
        "engine": options.engine,
        "device": options.device,
    }
    if loss is not None:
        how["observe"] = ("absolute", "ntk") if options.ntk else ("absolute",)
    plan = networks.plan(pair, loss, **how)
    how["workers"] = options.workers
    how["checkpoint"] = options.checkpoint
    how["memory"] = None if options.memory is None else int(options.memory * 2**30)
    resumed = options.checkpoint is not None and options.checkpoint.exists()
    started = time.perf_counter()
    try:
        if loss is None:
            result = networks.forward(pair, options.nets, options.seed, **how)
        else:
            result = networks.backward(loss, pair, options.nets, options.seed, **how)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_resume(options)) from None
    seconds = time.perf_counter() - started
    run = {"engine": result.about["engine"], "engine_reason": plan.reason, "seconds": seconds}
    return result, {**run, "resumed": resumed, "workers": options.workers}


def _loss(options: argparse.Namespace) -> str | None:
    return (options.loss or "quadratic") if options.backward else None


def _how_to_resume(options: argparse.Namespace) -> str:
    if options.checkpoint is None:
        return "nothing was kept; with --checkpoint FILE a run can be stopped and gone on with"
    if not options.checkpoint.exists():
        return f"{options.checkpoint} was not written yet: the run starts anew"
    return f"the run so far is in {options.checkpoint}: give the same command again to go on"


def _settings(networks: Ensemble, options: argparse.Namespace) -> dict[str, Any]:
    names = ("sigma_w", "sigma_b", "drop", "masks", "skip", "weights")
    return {
        "activation": networks.output.name,
        **{name: getattr(options, name) for name in names},
        "tied": networks.tied,
        "widths": list(networks.widths),
        "depth": networks.depth,
        **{name: getattr(options, name) for name in ("eps0", "q0", "nets", "seed", "backward")},
        "loss": _loss(options),
        "precision": options.precision,
        "device": options.device,
    }


COMMANDS = {"simulate": Command(SIMULATE, _simulate_arguments, simulate)}

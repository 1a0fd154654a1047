"""The command that samples random networks of finite width and holds them against theory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands.output import (
    HEALTHY,
    MOST_LAYERS,
    PLOTS,
    check_writable,
    load_activation,
    others_to_stderr,
    print_json,
    print_text,
    replacing,
    say_written,
    working,
)
from depthscale.commands.simulation_files import check_savable, save

if TYPE_CHECKING:
    import argparse

    from depthscale.finite.ensemble import Ensemble, Pair
    from depthscale.finite.sampled import Sampled

DEPTH = 30


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

"""The command of the stochastic limits: the law of a network whose depth is a part of its width."""

from __future__ import annotations

from argparse import SUPPRESS, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands import Command
from depthscale.commands.limit_kinds import KINDS
from depthscale.commands.options import positive, probabilities, seed, times
from depthscale.commands.output import (
    HEALTHY,
    PLOTS,
    check_writable,
    print_json,
    print_text,
    say_written,
    working,
)
from depthscale.files import writing

if TYPE_CHECKING:
    import argparse

LEVELS = "0.05,0.25,0.5,0.75,0.95"
MOST_PATHS = 10_000_000

LIMIT = """\
examples:
  depthscale limit shaped-relu --c-plus 0 --c-minus -1 --rho0 .3 --time .5
  depthscale limit shaped-smooth --activation tanh --a 1 --time .5
  depthscale limit residual --rho0 .3 --time 1 --width 256
  depthscale limit unshaped --activation relu --time .25,.5 --plot law.svg

The options of a kind: depthscale limit KIND --help.

Prints the law of two signals (or of one) in a random network of depth t widths: mean, standard
deviation and quantiles of a reading such as their correlation, from the density of its stochastic
equation, without noise, or from sampled paths.

The JSON holds mean, sd, quantiles (an object of level -> value) and exact facts at the last time
asked for, "times" the same for every time, in a list, also where there is one, and beside them
"reading", "start", "constants", "solver", "errors" (one standard error of paths, or an estimate
for a density) and "reasons" for what is null. Where networks explode, "exploded" is the probability
of it, means are those of the others, and quantiles beyond are null.

"""


def _limit_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, kind in KINDS.items():
        own = kinds.add_parser(
            name,
            help=kind.purpose,
            description=f"{kind.purpose[0].upper()}{kind.purpose[1:]}.",
            epilog=kind.examples + "exit codes and the JSON: see depthscale limit --help",
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        kind.add_arguments(own)
        _shared_arguments(own)


def _shared_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--time", type=times, required=True, metavar="T[,T...]", help="depth over width, above 0 "
        "(residual: layer over depth)")  # fmt: skip
    add("--reading", metavar="NAME", help="what is told about, see below")
    add("--level", type=probabilities, default=LEVELS, metavar="P[,P...]",
        help=f"levels of the quantiles (default {LEVELS})")  # fmt: skip
    add("--solver", choices=("density", "paths"), help="default: density where there is one")
    add("--paths", type=positive, default=100_000, help="of sampled paths (default 100000)")
    add("--seed", type=seed, default=0)
    add("--save", type=Path, metavar="PATH", help="write all readings: .nc (netCDF)")
    add("--plot", type=Path, metavar="PATH", help="write the densities at the times and the "
        "quantiles until then: .svg, .png or .pdf")  # fmt: skip
    # absent where it was given before KIND
    add("--json", action="store_true", default=SUPPRESS, help="print one JSON object")


def limit(options: argparse.Namespace) -> int:
    """Print the law of a limit at the times asked for, save it and draw it."""
    check_writable(options.save, (".nc",))
    check_writable(options.plot, PLOTS)
    if options.paths > MOST_PATHS:
        raise InputError(f"--paths is {options.paths:,}; expected at most {MOST_PATHS:,}")
    with working("Solving the equation"):
        from depthscale.commands.limit_records import answer, fan, solved

        question = KINDS[options.kind].question(options)
        found = solved(question, options, options.time)
        payload = answer(question, found, options)
        if options.save is not None:
            with writing(options.save):
                _save(payload, found.dataset(options.level), options.save)
        densities = found.densities()
        if options.plot is not None:
            from depthscale.report.limits import plot_limit

            with writing(options.plot):
                sampled = payload["errors_are"] == "standard errors"
                rows = fan(question, options, sampled)
                plot_limit(payload, densities, rows, options.plot)
    if options.json:
        print_json(payload)
    else:
        from depthscale.report.limit_summaries import render_limit

        print_text(render_limit(payload, densities))
    say_written(options.json, options.save, options.plot)
    return HEALTHY


def _save(payload: dict[str, Any], dataset: Any, path: Path) -> None:
    """Write the readings with what they are of; netCDF 3 takes numbers and texts."""
    import json

    about = {name: payload[name] for name in ("kind", "start", "constants", "solver")}
    texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in about.items()}
    dataset.assign_attrs(texts).to_netcdf(path, engine="scipy")


COMMANDS = {"limit": Command(LIMIT, _limit_arguments, limit)}

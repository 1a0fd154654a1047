"""The ``depthscale`` command: its options, its help, its errors and exit codes.

Only argparse is imported at start; what needs numpy or torch waits for the command that runs
(``depthscale.commands``), so that ``--help`` is immediate.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from depthscale.answers import InputError

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141

INDEPENDENT = "independent"
ACTIVATIONS = 'tanh, relu, gelu, "leaky_relu(0.2)", ...; or module:function, file.py:function'
TRIED = ("mlp", "vit", "hf-vit", "resnet")
OBJECTIVES = ("signal", "noise", "exposure", "snr", "xi", "rank-flow", "reach", "gradient")

_MASKS = {
    "independent": "independent",
    "shared": "shared",
    "overlap": "overlap(R)",
    "gaussian": "gaussian[(R)]",
    "dropconnect": "dropconnect[(R)]",
    "clean": "clean (the second input meets none)",
    "layers": "layers[(R)] (whole layers)",
}
_NO_BRANCH = "dropping whole layers needs a residual branch, which has no critical point here"
_UNEVEN = "it makes two lengths, and this takes noise that meets both inputs alike"
_BIAS = "a phase diagram takes noise that meets both inputs alike and spares the bias"
_NO_MASKS = {  # by command: what it does not take, and why
    "critical": {"clean": _UNEVEN, "layers": _NO_BRANCH},
    "phase": {"clean": _UNEVEN, "layers": _BIAS},
    "universality": {"layers": _NO_BRANCH},
    "law": {"layers": _NO_BRANCH},
    "simulate": {
        "dropconnect": "with dropped weights every unit has masked inputs of its own, which the"
        " sampler does not follow (independent has the same limit of large width)"
    },
}

EXIT_CODES = """\
exit codes:
  0  healthy, or an answer    1  findings, or no such point    2  bad input    130  interrupted"""

TOP = """\
examples:
  depthscale audit                                       the bundled 60-layer example
  depthscale audit model.py:build --data digits --html report.html
  depthscale theory --activation tanh --sigma-w 1.409 --sigma-b 0.3162 --drop 0.0001
  depthscale critical --activation gelu --q 4 --json
  depthscale phase --activation tanh --sigma-w 0.5:3:26 --sigma-b 0:1:21 --plot phase.svg
  depthscale universality tanh --sigma-b 0.3162
  depthscale law relu --drop 0.1 --depth 20
  depthscale simulate --activation tanh --sigma-w 1.4 --sigma-b 0.3 --backward
  depthscale schedule --activation relu --depth 6 --mean 0.1 --cap 0.2 --objective reach
  depthscale trial --network mlp --data fashion-mnist --seeds 5 --workers 2 --out trial.jsonl

"""

AUDIT = """\
examples:
  depthscale audit                                       the bundled 60-layer tanh example
  depthscale audit model.py --fix --html report.html     a file that defines one model
  depthscale audit package.module:build --data x.npz --reinit 5 --json

The model's code is run: audit only files that you trust. The callable takes no arguments and
returns a torch.nn.Module, or a pair (module, inputs). Nothing on disk is changed; --fix works on
the model in memory and shows what depthscale.critical_init_(model) would do for you.

"""

THEORY = """\
examples:
  depthscale theory --activation tanh --sigma-w 1.409 --sigma-b 0.3162 --drop 0.0001 --json
  depthscale theory --activation "leaky_relu(0.2)" --sigma-w 1.39 --depth 40
  depthscale theory --activation activations.py:shifted --sigma-w 1.2     (runs that file)

sigma_w and sigma_b are standard deviations: weights are N(0, sigma_w^2 / fan_in), biases
N(0, sigma_b^2). drop is the probability dropped. With --masks layers the whole branch with its bias
is dropped at once; with --skip 1 this is stochastic depth.

"""

CRITICAL = """\
examples:
  depthscale critical --activation tanh --sigma-b 0.3162
  depthscale critical --activation gelu --q 6 --drop 0.01 --json
  depthscale critical --activation tanh --sigma-b 0.3162 --depth 50     (drop that 50 layers bear)

Exit code 1 where there is no critical point; the reason is printed.

"""

PHASE = """\
examples:
  depthscale phase --activation tanh --plot phase.svg
  depthscale phase --activation erf --sigma-w 1:2:50 --sigma-b 0:0.5:50 --save phase.nc
  depthscale phase --activation relu --drop 0:0.3:4 --sigma-b 0.1:1:10 --json
  depthscale phase --activation tanh --sigma-b 0.3 --drop 0:0.3:31 --plot drop.svg

A range is MIN:MAX:N, evenly spaced with both ends included, or one number. --plot draws the plane
of the two axes with several values; with three, a row for each of up to four drops. In the JSON,
null marks what does not exist or is infinite; the variable "phase" is an index into the names under
attributes.phases. An activation without a slope, such as sign, has no phase diagram: exit code 2.

"""

UNIVERSALITY = """\
examples:
  depthscale universality tanh --sigma-b 0.3162
  depthscale universality hardtanh --sigma-b 0.3162 --drop 0.001 --json
  depthscale universality gelu --q 4 --fit --plot collapse.svg
  depthscale universality activations.py:shifted --q 1     (runs that file)

Prints how one layer bends near alignment, eps' = h + (1 + t) eps - a eps^kappa: the power kappa and
the amplitude a by two derivations, the exponents that follow, and the metric factors that bring all
networks of the class onto one equation; with --drop also how far its laws are off there.
Exit code 1 where no network obeys them; the class and the reason are printed.

"""

LAW = """\
examples:
  depthscale law tanh --sigma-b 0.3162 --drop 0.0001 --json
  depthscale law tanh --sigma-b 0.3162 --drop 0.01 --keep-weights --depth 40
  depthscale law relu --drop 1e-6:0.3:12 --plot law.svg --save law.csv

The misalignment eps* that pairs of inputs settle at, and the depth scale, from the exact map, by
the leading scaling law of the class, and by the law with its first corrections.
A range of drops is MIN:MAX:N, of at most 500 rates, spaced evenly in the logarithm where MIN > 0,
else evenly. Exit code 1 where no such network or no law exists; the reason is printed.

"""

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

SCHEDULE = """\
examples:
  depthscale schedule --activation relu --depth 6 --mean 0.1 --cap 0.2 --objective signal
  depthscale schedule --activation tanh --depth 100 --objective snr --save schedule.json
  depthscale schedule --evaluate 0.2,0.2,0.2,0,0,0 --json
  depthscale schedule --objective noise:1,signal:0.5 --weights 1,1,2,2 --total 0.6 --cap 0.3
  depthscale schedule --activation tanh --of field --mean 0.1 --floor 0.02
  depthscale schedule model.py:build --data digits --objective noise --apply-to schedule.json

One dropout rate for each site, of a given mean, that is best for one objective; and what it is
worth in all of them, beside the uniform, the mirrored and 1,000 permuted schedules.
xi, rank-flow and reach are surrogates of 2605.21648 (rank-flow: version 1, reach: version 2); the
others follow the exact map from layer to layer, and contradict them on what keeps signals.
  signal     less  loss of a small difference between inputs, -log of the product of slopes
  noise      less  misalignment of two passes of one input at the output
  exposure   more  that misalignment, summed over all layers
  snr        more  what a pair at EPS0 keeps over the noise, relative to the noise
  xi         more  depth scale from the mean of 1 - slope
  rank-flow  more  dropout where rank is lost without it
  reach      more  dropout whose effect reaches far
  gradient   less  variance over the layers of the log of the gradient's growth

Of a MODEL (its code is run: only files that you trust) every kind of site keeps the mean rate that
it has, or gets --mean. A plain chain of layers is optimised by the exact recursion of its weights;
any other model by what each site was measured to do alone, for signal, noise, exposure or snr. The
advice is then measured on the data. --apply-to writes what depthscale.apply_schedule(model, PATH)
puts on a model of the same build; the model on disk is not touched.

"""

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


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors go the way of all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        import depthscale

        print(f"depthscale {depthscale.__version__}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        _open_closed_streams()
        parser = _parser()
        options = parser.parse_args(arguments)
        if options.command is None:
            parser.print_help(sys.stderr)
            return BAD_INPUT
        code = _carried_out(options)
        sys.stdout.flush()
    except InputError as error:
        print(f"depthscale: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as stop:  # with a hint from commands that can go on
        print("; ".join(["depthscale: interrupted", *map(str, stop.args)]), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has gone, as in `depthscale phase --json | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:  # a full disk, say, under the redirected output
        print(f"depthscale: error: the answer cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD_INPUT
    return code


def _carried_out(options: argparse.Namespace) -> int:
    """Run the command; code of the user's that ends the program is an error, not an answer."""
    from depthscale import commands

    try:
        code: int = getattr(commands, options.command)(options)
    except SystemExit as error:
        code_of = getattr(options, "activation", None) or getattr(options, "model", None)
        raise InputError(
            f"{code_of} cannot be used: it raised SystemExit({error.code!r}); take the exit() out"
        ) from error
    return code


def _open_closed_streams() -> None:
    """Give a process that was started without stdout or stderr a place to write to."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for the rest of the process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="depthscale",
        description="How far a signal survives in a deep network, and how to change it.",
        epilog=TOP + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _audit_parser(
        _command(commands, "audit", "hold a torch model against theory, say what to change", AUDIT)
    )
    _theory_parser(
        _command(commands, "theory", "fixed points and depth scales of one initialisation", THEORY)
    )
    _critical_parser(
        _command(commands, "critical", "the initialisation at the edge of chaos", CRITICAL)
    )
    _phase_parser(
        _command(commands, "phase", "phases and depth scales over sigma_w, sigma_b and drop", PHASE)
    )
    _universality_parser(
        _command(
            commands,
            "universality",
            "universality class and exponents of an activation",
            UNIVERSALITY,
        )
    )
    _law_parser(
        _command(commands, "law", "scaling laws with dropout, held against the exact map", LAW)
    )
    _simulate_parser(
        _command(
            commands, "simulate", "random networks of finite width, held against theory", SIMULATE
        )
    )
    _schedule_parser(
        _command(commands, "schedule", "dropout rates over depth: the best for a purpose", SCHEDULE)
    )
    _trial_parser(
        _command(commands, "trial", "train dropout schedules against each other, by seed", TRIAL)
    )
    return parser


def _command(
    commands: argparse._SubParsersAction[_Parser], name: str, purpose: str, examples: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=examples + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "--json", action="store_true", help="print one JSON object, full precision"
    )
    return command


def _audit_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", nargs="?", help="package.module:callable or file.py[:callable]; none: the example")
    add("--data", help="digits (bundled), normal (random), an .npy, .npz or .pt file, or "
        "fashion-mnist, mnist, mnist1d, cifar-10, cifar-100 where they are installed; "
        "default: the factory's inputs, else what fits the first layer")  # fmt: skip
    add("--shape", type=_shape, help="shape of one example, such as 3,32,32")
    add("--batch", type=_positive, default=128, help="examples, at most (default 128)")
    add("--pairs", type=_positive, default=64, help="pairs of inputs to compare (default 64)")
    add("--mode", choices=("train", "eval"), default="train", help="default train: dropout drops")
    add("--reinit", type=_count, default=0, metavar="K", help="repeat over K initialisations")
    add("--seed", type=_seed, default=0)
    add("--fix", action="store_true", help="also audit the model after critical_init_")
    add("--html", type=Path, metavar="PATH", help="write a self-contained page "
        "(with --fix also PATH-fixed)")  # fmt: skip


def _theory_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _activation_option(parser)
    add("--sigma-w", type=_number, required=True, help="weight scale, above 0")
    add("--sigma-b", type=_number, default=0.0, help="bias scale (default 0)")
    add("--drop", type=_number, default=0.0, help="probability dropped, in [0, 1) (default 0)")
    _masks_option(parser)
    add("--skip", type=_number, default=0.0, help="residual branch h' = SKIP h + ... (default 0)")
    _depth_options(parser)
    add("--q0", type=_length, help="with --depth: its first length (default: the fixed point)")


def _critical_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _activation_option(parser)
    _place_options(parser)
    add("--drop", type=_number, default=0.0, help="probability dropped, in [0, 1) (default 0)")
    _masks_option(parser, "critical")
    add("--convention", choices=("forward", "gradient"), default="forward",
        help="what is tuned to 1: the slope chi of the correlation map, or the growth of the "
        "squared gradient")  # fmt: skip
    add("--depth", type=_positive, help="also the largest drop whose depth scale reaches that far")


def _phase_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _activation_option(parser)
    add(
        "--sigma-w",
        type=_range,
        default="0.5:3:26",
        metavar="RANGE",
        help="weight scale (default 0.5:3:26)",
    )
    add("--sigma-b", type=_range, default="0:1:21", metavar="RANGE",
        help="bias scale (default 0:1:21)")  # fmt: skip
    add("--drop", type=_range, default="0", metavar="RANGE",
        help="probability dropped (default 0)")  # fmt: skip
    _masks_option(parser, "phase")
    add("--save", type=Path, metavar="PATH", help="write the grid: .nc (netCDF) or .csv")
    add("--plot", type=Path, metavar="PATH", help="write the diagram: .svg, .png or .pdf")


def _universality_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("activation", metavar="ACTIVATION", help=ACTIVATIONS)
    _place_options(parser)
    add("--drop", type=_number, default=0.0, help="probability dropped, in [0, 1) (default 0)")
    _masks_option(parser, "universality")
    _keep_weights_option(parser)
    add("--fit", action="store_true", help="also fit the exponents to the exact map (some seconds)")
    add("--plot", type=Path, metavar="PATH", help="write the collapse: .svg, .png or .pdf")


def _law_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("activation", metavar="ACTIVATION", help=ACTIVATIONS)
    _place_options(parser)
    add("--drop", type=_range, default="1e-6:0.1:6", metavar="RANGE",
        help="probability dropped, one or a range of at most 500 (default 1e-6:0.1:6)")  # fmt: skip
    add("--detuning", type=_number, metavar="T", help="tune to chi = 1 + T (default 0; scale-free "
        "activations without bias: t follows from the noise)")  # fmt: skip
    _masks_option(parser, "law")
    _keep_weights_option(parser)
    _depth_options(parser)
    add("--save", type=Path, metavar="PATH",
        help="write the table, or with --depth the pair's path: .csv")  # fmt: skip
    add("--plot", type=Path, metavar="PATH", help="write the curves: .svg, .png or .pdf")


def _simulate_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _activation_option(parser)
    add("--sigma-w", type=_number, required=True, help="weight scale, above 0")
    add("--sigma-b", type=_number, default=0.0, help="bias scale (default 0)")
    add("--drop", type=_rates, default="0", metavar="RATE", help="probability dropped in hidden "
        "layers, or one for each of them, separated by commas (default 0)")  # fmt: skip
    _masks_option(parser, "simulate")
    add("--skip", type=_number, default=0.0, help="residual branch h' = SKIP h + ... (default 0)")
    add("--weights", choices=("gaussian", "orthogonal"), default="gaussian")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--width", type=_positive, default=256, help="units a layer (default 256)")
    size.add_argument("--widths", type=_sizes, metavar="N0,N1,...",
        help="or those of every layer, the inputs first")  # fmt: skip
    add("--depth", type=_positive, help="weight layers, at most 20000 (default 30, or as --widths)")
    add("--eps0", type=_misalignment, default=0.5, help="misalignment of the inputs (default 0.5)")
    add("--q0", type=_length, default=1.0, help="mean square of both inputs (default 1)")
    add("--nets", type=_positive, default=256, help="number of networks (default 256)")
    add("--seed", type=_seed, default=0)
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
    add("--workers", type=_positive, default=1, help="processes (default 1); same results")
    add("--device", default="cpu", help="cpu (default) or cuda")
    add("--memory", type=_memory, metavar="GB", help="GiB of memory that may be used (default: four"
        " fifths of what is free)")  # fmt: skip
    add("--checkpoint", type=Path, metavar="FILE", help="save the run there now and then, and go on"
        " from there")  # fmt: skip
    add("--save", type=Path, metavar="PATH", help="write all statistics: .nc (netCDF) or "
        ".zarr; or those by layer: .csv")  # fmt: skip
    add("--plot", type=Path, metavar="PATH", help="write the curves: .svg, .png or .pdf")


def _schedule_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", nargs="?", help="package.module:callable or file.py[:callable]; none: numbers")
    add("--activation", metavar="NAME", help=f"{ACTIVATIONS} (default relu)")
    add("--sigma-w", type=_number, help="weight scale (default: critical without dropout)")
    add("--sigma-b", type=_number, help="bias scale (default: 0 for scale-free activations, else "
        "0.3162)")  # fmt: skip
    add("--depth", type=_positive, help="sites, at most 1000 (default 6)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--mean", type=_number, help="mean probability dropped (default "
        "0.1, or what the model has)")  # fmt: skip
    budget.add_argument("--total", type=_number, help="or the sum over the sites")
    add("--cap", type=_number, help="largest at one site (default: twice the mean)")
    add("--floor", type=_number, help="least at one site (default 0)")
    add("--weights", type=_rate_list, metavar="W", help="what a site counts in the mean or total: "
        "one number above 0 for each, separated by commas (default 1)")  # fmt: skip
    add("--of", choices=("drop", "field"), help="what the budget counts: rates, or the dropout "
        "fields p (1 - sigma_b^2/q) (default drop)")  # fmt: skip
    add("--objective", type=_objective, metavar="NAME", help=f"what to choose for: "
        f"{', '.join(OBJECTIVES)} (default noise), or a mix NAME:WEIGHT,... of them")  # fmt: skip
    add("--evaluate", type=_rate_list, metavar="RATES", help="instead, tell what these rates are "
        "worth: one for each site, separated by commas")  # fmt: skip
    add("--eps0", type=_misalignment, help="misalignment of the pair of snr, above 0 "
        "and at most 1 (default 0.5)")  # fmt: skip
    add("--seed", type=_seed, default=0, help="of starts and permutations")
    add("--save", type=Path, metavar="PATH", help="write the schedule: .json")
    of_model = parser.add_argument_group("of a model")
    add = of_model.add_argument
    add("--data", help="as for depthscale audit")
    add("--shape", type=_shape, help="shape of one example, such as 3,32,32")
    add("--batch", type=_positive, help="examples, at most (default 128)")
    add("--kinds", type=_words, metavar="A,B,...", help="of sites to schedule: attention, "
        "projection, mlp, path, embedding, other (default: all)")  # fmt: skip
    add("--across-kinds", action="store_true", help="one budget for all kinds of sites together")
    add("--apply-to", type=Path, metavar="PATH", help="write rates with the names of sites: .json")


def _trial_parser(parser: argparse.ArgumentParser) -> None:
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
    add("--mean", type=_number, default=0.1, help="mean probability dropped, below 1/3 "
        "(default 0.1)")  # fmt: skip
    add("--arms", type=_words, metavar="A,B,...", help="of the arms, by name (default: all); "
        "held against uniform, or else the first")  # fmt: skip
    add("--seeds", type=_positive, default=5, help="seeds from 0, at least 3 (default 5); more can "
        "be added to a file later")  # fmt: skip
    for name in ("train", "validation", "test"):
        add(f"--{name}", type=_positive, metavar="N", help=f"{name} examples, drawn for each seed")
    add("--epochs", type=_positive, metavar="N")
    add("--batch", type=_positive, metavar="N", help="examples an update (default 100)")
    add("--optimiser", choices=("adam", "adamw", "sgd"), help="default adamw")
    add(
        "--learning-rate",
        type=_number,
        metavar="RATE",
        help="at first, then cosine (default: by network and size; the paper's MLP 1e-4)",
    )
    add("--workers", type=_positive, default=1, help="processes (default 1); same results")
    add("--device", help="cpu (default) or cuda")
    add("--out", type=Path, required=True, metavar="FILE", help="one line for each run: .jsonl")
    add("--plot", type=Path, metavar="PATH", help="write the arms with intervals: .svg, .png, .pdf")


def _activation_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--activation", required=True, metavar="NAME", help=ACTIVATIONS)


def _place_options(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--sigma-b", type=_number, help="bias scale (default 0)")
    place.add_argument("--q", type=_length, help="or the length that the signal is to keep")


def _keep_weights_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep-weights",
        action="store_true",
        help="keep the weights of drop 0 instead of retuning them at every drop",
    )


def _depth_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--depth", type=_positive, help="also follow a pair through this many layers (at most "
        "20000)")  # fmt: skip
    add("--eps0", type=_misalignment, help="with --depth: its first misalignment (default 1)")


def _masks_option(parser: argparse.ArgumentParser, command: str = "theory") -> None:
    parser.add_argument(
        "--masks",
        type=partial(_masks_of, command),
        default=INDEPENDENT,
        metavar="NOISE",
        help=f"noise of the two inputs of a pair, of one variance: {', '.join(_taken(command))}"
        " (default independent); R from 0 to 1 is the correlation of the two draws",
    )


def _masks_of(command: str, text: str) -> str:
    name = text.split("(")[0].strip()
    why = _NO_MASKS.get(command, {}).get(name)
    if why is None:
        return _masks(text)
    _masks(text)
    taken = ", ".join(spelled.split(" ")[0] for spelled in _taken(command))
    raise argparse.ArgumentTypeError(
        f"masks is {text}: {why}; expected {taken} (depthscale theory takes {name} for one network)"
    )


def _taken(command: str) -> list[str]:
    """The masks that a command takes, as its help spells them."""
    without = _NO_MASKS.get(command, {})
    return [spelled for name, spelled in _MASKS.items() if name not in without]


def _masks(text: str) -> str:
    if text != INDEPENDENT:  # the default needs no numpy
        from depthscale.theory.noise import Noise

        try:
            Noise.of(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def _length(text: str) -> float:
    if _number(text) <= 0:
        raise argparse.ArgumentTypeError(f"expected a length above 0, got {text!r}")
    return _number(text)


def _memory(text: str) -> float:
    if _number(text) <= 0:
        raise argparse.ArgumentTypeError(f"expected GiB of memory, above 0, got {text!r}")
    return _number(text)


def _misalignment(text: str) -> float:
    if not 0 <= _number(text) <= 2:
        raise argparse.ArgumentTypeError(f"expected 1 - correlation, from 0 to 2, got {text!r}")
    return _number(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not _count(text) < 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number below 2**63, got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if _count(text) == 0:
        raise argparse.ArgumentTypeError("expected a whole number of at least 1, got '0'")
    return int(text)


def _rates(text: str) -> float | list[float]:
    rates = [_number(part.strip()) for part in text.split(",")]
    return rates if len(rates) > 1 else rates[0]


def _rate_list(text: str) -> list[float]:
    return [_number(part.strip()) for part in text.split(",")]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _objective(text: str) -> str | dict[str, float]:
    names = [part.split(":")[0].strip() for part in text.split(",")]
    wrong = [name for name in names if name not in OBJECTIVES]
    if wrong:
        raise argparse.ArgumentTypeError(
            f"invalid choice: {wrong[0]!r}; expected {', '.join(OBJECTIVES)}, or a mix such as"
            " noise:1,signal:0.5"
        )
    if text == names[0]:
        return text
    mix = {}
    for name, part in zip(names, text.split(","), strict=True):
        if part.count(":") != 1 or name in mix:
            raise argparse.ArgumentTypeError(
                f"expected each objective once, with its weight, as in noise:1,signal:0.5; got"
                f" {text!r}"
            )
        mix[name] = _number(part.split(":")[1])
    return mix


def _sizes(text: str) -> list[int]:
    sizes = [_positive(part.strip()) for part in text.split(",")]
    if len(sizes) < 2:
        raise argparse.ArgumentTypeError(f"expected at least 2 widths, got {text!r}")
    return sizes


def _shape(text: str) -> tuple[int, ...]:
    return tuple(_positive(part.strip()) for part in text.replace("x", ",").split(","))


def _range(text: str) -> tuple[float, float, int]:
    parts = text.split(":")
    if len(parts) == 1:
        return _number(text), _number(text), 1
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"expected MIN:MAX:N or one number, got {text!r}")
    low, high, size = _number(parts[0]), _number(parts[1]), _positive(parts[2])
    if size == 1 and low != high:
        raise argparse.ArgumentTypeError(
            f"one value does not reach from {low:g} to {high:g}; expected N of at least 2 or one"
            f" number, got {text!r}"
        )
    if size > 1 and low >= high:
        raise argparse.ArgumentTypeError(f"expected MIN below MAX, got {text!r}")
    return low, high, size

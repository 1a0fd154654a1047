"""The ``depthscale`` command: its entry, its errors and exit codes.

Only argparse is imported at start, so that ``--help`` is immediate. The options of a command and
what it does are in its room of ``depthscale.commands``, which is loaded once the command is given.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from depthscale.answers import InputError
from depthscale.commands import ROOMS, command

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141

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
  depthscale band --activation relu --width 256 --depth 50 --plot band.svg
  depthscale shape --depth 100 --width 256 --target .9
  depthscale limit shaped-relu --c-plus 0 --c-minus -1 --rho0 .3 --time .5
  depthscale plan --activation tanh --data digits --depth 60
  depthscale lattice --activation tanh --sigma-w 1.65:1.95:7 --sigma-b .3 --save runs.csv
  depthscale identify --exponent delta=.16+-.01 --exponent z=1.58+-.02
  depthscale collapse data.csv --x T --y m --size L --error e --form "L^-b * F((T - Tc) * L^a)"
  depthscale schedule --activation relu --depth 6 --mean 0.1 --cap 0.2 --objective reach
  depthscale trial --network mlp --data fashion-mnist --seeds 5 --workers 2 --out trial.jsonl

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


class _Commands(argparse._SubParsersAction):  # type: ignore[type-arg]
    """Add the options of a command when it is given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None
    ) -> None:
        name, own = values[0], self.choices[values[0]]
        if own.epilog is None:  # the first time
            found = command(name)
            own.epilog = found.examples + EXIT_CODES
            own.add_argument(
                "--json", action="store_true", help="print one JSON object, full precision"
            )
            found.add_arguments(own)
        super().__call__(parser, namespace, values, option)


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
    try:
        return command(options.command).run(options)
    except SystemExit as error:
        code_of = getattr(options, "activation", None) or getattr(options, "model", None)
        raise InputError(
            f"{code_of} cannot be used: it raised SystemExit({error.code!r}); take the exit() out"
        ) from error


def _open_closed_streams() -> None:
    """Give a process that was started without stdout or stderr a place to write to."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for the rest of the process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _parser() -> _Parser:
    parser = _Parser(
        prog="depthscale",
        description="How far a signal survives in a deep network, and how to change it.",
        epilog=TOP + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", parser_class=_Parser, action=_Commands
    )
    for name, (_, purpose) in ROOMS.items():
        commands.add_parser(
            name,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
    return parser

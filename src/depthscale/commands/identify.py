"""The command that holds measured exponents against universality classes."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any, NamedTuple

from depthscale.answers import InputError
from depthscale.commands import Command
from depthscale.commands.options import count, probability
from depthscale.commands.output import FINDINGS, HEALTHY, print_json, print_text

if TYPE_CHECKING:
    import argparse

    import numpy as np

IDENTIFY = """\
examples:
  depthscale identify --exponent delta=.16+-.01
  depthscale identify --exponent "delta=.1595(4)" --exponent z=1.58+-.02 --dimension 1 --json
  depthscale identify --exponent 1/nu_par=.58+-.02 --exponent delta=.16+-.01 \\
      --correlation 1/nu_par,delta=.6
  depthscale identify --window "10-100: delta=.212+-.005" --window "20-200: delta=.161+-.012" \\
      --window "40-400: delta=.072+-.007"

Ranks universality classes by chi2 of the measured exponents, with the uncertainties of both. The
answer may be that none fits, or that several do; then it tells what to measure, and how well. With
windows, from small scales to large ones, a class has to hold in the last two.

exponents: beta, nu_perp, nu_par, delta, z, theta, survival, field, cutoff, and quotients such as
1/nu_par or beta/nu_perp. delta is the decay in depth, beta/nu_par; field is the response to dropout
at criticality, eps ~ h^field; cutoff says where width ends it, depth ~ width^cutoff.

The JSON holds "verdict", "sentence", "allowed", "ranking" (class, dimension, chi2, dof, p_value,
weight, exponents compared, source), "separating", "derived", "windows" and "warnings". The exit
code is 1 where no class is left.

"""

VERDICT_CODES = {"identified": HEALTHY, "compatible": HEALTHY, "cannot tell apart": HEALTHY}

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_PLUS_MINUS = re.compile(rf"({_NUMBER})\s*(?:\+-|\+/-|±)\s*({_NUMBER})")
_BRACKETS = re.compile(r"([+-]?(?:\d+\.?(\d*)|\.(\d+)))\((\d+\.?\d*|\.\d+)\)(?:[eE]([+-]?\d+))?")


class Given(NamedTuple):
    """An exponent as it was typed."""

    name: str
    value: float
    error: float


class Window(NamedTuple):
    """A window as it was typed."""

    label: str
    exponents: tuple[Given, ...]


class Correlation(NamedTuple):
    """Two exponents and their correlation."""

    one: str
    other: str
    value: float


def _identify_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--exponent", type=exponent, action="append", default=[], metavar="NAME=VALUE+-ERROR",
        help="a measured exponent and its standard error, such as delta=.16+-.01 or delta=.16(1);"
        " once for each")  # fmt: skip
    add("--correlation", type=correlation, action="append", default=[], metavar="NAME,NAME=R",
        help="of the errors of two exponents, inside (-1, 1) (default 0)")  # fmt: skip
    add("--window", type=window, action="append", default=[], metavar='"LABEL: NAME=..., ..."',
        help="exponents of one window; from small scales to large ones, at least two")  # fmt: skip
    add("--dimension", type=count, help="of space, 0 for none (default: all classes)")
    add("--level", type=probability, default=0.01, metavar="P",
        help="probability at which the right class is ruled out (default 0.01)")  # fmt: skip


def exponent(text: str) -> Given:
    """``NAME=VALUE+-ERROR``; also ``±`` and ``VALUE(ERROR)`` in units of the last digit."""
    name, sign, numbers = text.partition("=")
    if not sign or not name.strip():
        raise ArgumentTypeError(f"expected NAME=VALUE+-ERROR, got {text!r}")
    return Given(name.strip(), *value_and_error(numbers.strip(), text))


def value_and_error(text: str, whole: str) -> tuple[float, float]:
    """The two numbers of ``.16+-.01``, ``.16±.01`` or ``.16(1)``."""
    if match := _PLUS_MINUS.fullmatch(text):
        value, error = float(match[1]), float(match[2])
    elif match := _BRACKETS.fullmatch(text):
        scale = 10.0 ** int(match[5] or 0)
        digits = len(match[2] or match[3] or "")
        unit = 1.0 if "." in match[4] else 10.0**-digits
        value, error = float(match[1]) * scale, float(match[4]) * unit * scale
    elif re.fullmatch(_NUMBER, text):
        raise ArgumentTypeError(f"{whole!r} has no error; expected NAME=VALUE+-ERROR")
    else:
        raise ArgumentTypeError(f"expected NAME=VALUE+-ERROR, got {whole!r}")
    if not (math.isfinite(value) and 0 < error < math.inf):
        raise ArgumentTypeError(f"{whole!r} has the error {error:g}; expected one above 0")
    return value, error


def correlation(text: str) -> Correlation:
    """``NAME,NAME=R``."""
    names, sign, number = text.partition("=")
    parts = [name.strip() for name in names.split(",")]
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not sign or len(parts) != 2 or not all(parts) or math.isnan(value):
        raise ArgumentTypeError(f"expected NAME,NAME=R such as delta,z=.3, got {text!r}")
    if not -1 < value < 1:
        raise ArgumentTypeError(f"expected a correlation inside (-1, 1), got {text!r}")
    return Correlation(parts[0], parts[1], value)


def window(text: str) -> Window:
    """``LABEL: NAME=VALUE+-ERROR, ...``."""
    label, sign, rest = text.rpartition(":")
    if not sign or not label.strip():
        raise ArgumentTypeError(f'expected "LABEL: NAME=VALUE+-ERROR, ...", got {text!r}')
    return Window(label.strip(), tuple(exponent(part) for part in rest.split(",")))


def identify(options: argparse.Namespace) -> int:
    """Print the classes that measured exponents leave."""
    if not options.exponent and not options.window:
        raise InputError("give --exponent NAME=VALUE+-ERROR, once for each measured exponent")
    found = _found(options)
    if options.json:
        print_json(found.to_dict())
    else:
        print_text(str(found))
    return VERDICT_CODES.get(found.verdict, FINDINGS)


def _found(options: argparse.Namespace) -> Any:
    from depthscale.scaling.identify import identify as hold_against

    windows = [(w.label, _measured(w.exponents, options.correlation)) for w in options.window]
    own = _measured(options.exponent, options.correlation) if options.exponent else (None, None)
    _check_correlations(options)
    return hold_against(
        *own,
        dimension=options.dimension,
        level=options.level,
        windows=windows or None,
    )


def _measured(
    given: tuple[Given, ...] | list[Given], correlations: list[Correlation]
) -> tuple[dict[str, float], np.ndarray]:
    """Values by name, and the covariance of those whose correlations were given."""
    import numpy as np

    from depthscale.scaling.class_records import quantity_of

    names = [quantity_of(one.name) for one in given]
    twice = next((name for k, name in enumerate(names) if name in names[:k]), None)
    if twice is not None:
        raise InputError(f"the exponent {twice} was given twice; expected it once")
    matrix = np.eye(len(given))
    for one in correlations:
        pair = quantity_of(one.one), quantity_of(one.other)
        if pair[0] in names and pair[1] in names:
            i, j = names.index(pair[0]), names.index(pair[1])
            matrix[i, j] = matrix[j, i] = one.value
    errors = np.array([one.error for one in given])
    values = {name: one.value for name, one in zip(names, given, strict=True)}
    return values, matrix * np.outer(errors, errors)


def _check_correlations(options: argparse.Namespace) -> None:
    """Refuse correlations of what was not given, of one with itself, and repeated ones."""
    from depthscale.scaling.class_records import quantity_of

    sets = [options.exponent, *(w.exponents for w in options.window)]
    known = [{quantity_of(one.name) for one in group} for group in sets if group]
    seen: set[frozenset[str]] = set()
    for one in options.correlation:
        pair = frozenset((quantity_of(one.one), quantity_of(one.other)))
        if len(pair) < 2:
            raise InputError(f"--correlation {one.one},{one.other} is of one exponent with itself")
        if not any(pair <= names for names in known):
            raise InputError(
                f"--correlation {one.one},{one.other}: expected two exponents that were given"
                " together"
            )
        if pair in seen:
            raise InputError(f"--correlation {one.one},{one.other} was given twice")
        seen.add(pair)


COMMANDS = {"identify": Command(IDENTIFY, _identify_arguments, identify)}

"""What the commands' parsers share: kinds of values, and options that several of them take."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from functools import partial

from depthscale.answers import InputError

ACTIVATIONS = 'tanh, relu, gelu, "leaky_relu(0.2)", ...; or module:function, file.py:function'
INDEPENDENT = "independent"
MASKS = {
    "independent": "independent",
    "shared": "shared",
    "overlap": "overlap(R)",
    "gaussian": "gaussian[(R)]",
    "dropconnect": "dropconnect[(R)]",
    "clean": "clean (the second input meets none)",
    "layers": "layers[(R)] (whole layers)",
}
"""Noise by name, as the help spells it."""
NO_BRANCH = "dropping whole layers needs a residual branch, which has no critical point here"
UNEVEN = "it makes two lengths, and this takes noise that meets both inputs alike"

# Options -----------------------------------------------------------------------------------------


def activation_option(parser: ArgumentParser) -> None:
    """``--activation``, which must be given."""
    parser.add_argument("--activation", required=True, metavar="NAME", help=ACTIVATIONS)


def place_options(parser: ArgumentParser) -> None:
    """The place on the critical line: ``--sigma-b`` or ``--q``."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--sigma-b", type=number, help="bias scale (default 0)")
    place.add_argument("--q", type=length, help="or the length that the signal is to keep")


def keep_weights_option(parser: ArgumentParser) -> None:
    """``--keep-weights``."""
    parser.add_argument(
        "--keep-weights",
        action="store_true",
        help="keep the weights of drop 0 instead of retuning them at every drop",
    )


def depth_options(parser: ArgumentParser) -> None:
    """A pair that is followed: ``--depth`` and ``--eps0``."""
    add = parser.add_argument
    add("--depth", type=positive, help="also follow a pair through this many layers (at most "
        "20000)")  # fmt: skip
    add("--eps0", type=misalignment, help="with --depth: its first misalignment (default 1)")


def masks_option(parser: ArgumentParser, **refused: str) -> None:
    """``--masks``, without those that a command refuses, each with the reason."""
    taken = [spelled for name, spelled in MASKS.items() if name not in refused]
    parser.add_argument(
        "--masks",
        type=partial(_masks, refused, taken),
        default=INDEPENDENT,
        metavar="NOISE",
        help=f"noise of the two inputs of a pair, of one variance: {', '.join(taken)}"
        " (default independent); R from 0 to 1 is the correlation of the two draws",
    )


def _masks(refused: Mapping[str, str], taken: list[str], text: str) -> str:
    if text != INDEPENDENT:  # the default needs no numpy
        from depthscale.theory.noise import Noise

        try:
            Noise.of(text)
        except InputError as error:
            raise ArgumentTypeError(str(error)) from None
    name = text.split("(")[0].strip()
    if name in refused:
        names = ", ".join(spelled.split(" ")[0] for spelled in taken)
        raise ArgumentTypeError(
            f"masks is {text}: {refused[name]}; expected {names} (depthscale theory takes {name}"
            " for one network)"
        )
    return text


# Values ------------------------------------------------------------------------------------------


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def length(text: str) -> float:
    """A mean square, above 0."""
    if number(text) <= 0:
        raise ArgumentTypeError(f"expected a length above 0, got {text!r}")
    return number(text)


def misalignment(text: str) -> float:
    """1 - correlation."""
    if not 0 <= number(text) <= 2:
        raise ArgumentTypeError(f"expected 1 - correlation, from 0 to 2, got {text!r}")
    return number(text)


def correlation(text: str) -> float:
    """A correlation of two signals."""
    if not -1 <= number(text) <= 1:
        raise ArgumentTypeError(f"expected a correlation, from -1 to 1, got {text!r}")
    return number(text)


def probability(text: str) -> float:
    """A probability that is neither 0 nor 1."""
    if not 0 < number(text) < 1:
        raise ArgumentTypeError(f"expected a probability above 0 and below 1, got {text!r}")
    return number(text)


def probabilities(text: str) -> list[float]:
    """Probabilities between commas, ascending."""
    return sorted({probability(word) for word in words(text)})


def times(text: str) -> list[float]:
    """Times above 0 between commas, ascending."""
    found = sorted({number(word) for word in words(text)})
    if found[0] <= 0:
        raise ArgumentTypeError(
            f"expected times above 0, got {text!r}: at time 0 the law is the start"
        )
    return found


def matrix(text: str) -> list[list[float]]:
    """Rows between semicolons, numbers between commas."""
    rows = [[number(word) for word in words(row)] for row in text.split(";")]
    if any(len(row) != len(rows) for row in rows):
        raise ArgumentTypeError(
            f'expected a square matrix such as "1,.3;.3,1", got {text!r}: {len(rows)} rows of'
            f" {', '.join(str(len(row)) for row in rows)} numbers"
        )
    return rows


def count(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A whole number that generators take."""
    if not count(text) < 2**63:
        raise ArgumentTypeError(f"expected a whole number below 2**63, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if count(text) == 0:
        raise ArgumentTypeError("expected a whole number of at least 1, got '0'")
    return int(text)


def words(text: str) -> list[str]:
    """Words between commas."""
    return [word.strip() for word in text.split(",")]


def shape(text: str) -> tuple[int, ...]:
    """Whole numbers between commas, or x."""
    return tuple(positive(part.strip()) for part in text.replace("x", ",").split(","))


def number_range(text: str) -> tuple[float, float, int]:
    """``MIN:MAX:N``, or one number."""
    parts = text.split(":")
    if len(parts) == 1:
        return number(text), number(text), 1
    if len(parts) != 3:
        raise ArgumentTypeError(f"expected MIN:MAX:N or one number, got {text!r}")
    low, high, size = number(parts[0]), number(parts[1]), positive(parts[2])
    if size == 1 and low != high:
        raise ArgumentTypeError(
            f"one value does not reach from {low:g} to {high:g}; expected N of at least 2 or one"
            f" number, got {text!r}"
        )
    if size > 1 and low >= high:
        raise ArgumentTypeError(f"expected MIN below MAX, got {text!r}")
    return low, high, size

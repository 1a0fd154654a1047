"""What networks of finite width are given by: widths, a pair at layer 0, and how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from depthscale.answers import InputError
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number

STARTS = ("pinned", "drawn")


class PairState(NamedTuple):
    """Lengths ``q1, q2 > 0`` and misalignment ``eps`` in [0, 2]."""

    q1: float
    q2: float
    eps: float


def checked_widths(layers: Sequence[MeanField], widths: Sequence[int]) -> tuple[int, ...]:
    """The widths as whole numbers.

    Raises
    ------
    InputError
        No layers, not one width more than hops, widths that are no whole numbers of at least 1, or
        that differ on the two sides of a residual hop.
    """
    if not layers:
        raise InputError("no layers were given: expected one MeanField for each hop")
    if len(widths) != len(layers) + 1:
        raise InputError(
            f"{len(widths)} widths for {len(layers)} hops: expected {len(layers) + 1}, one for"
            " each layer of pre-activations, the first one included"
        )
    sizes = []
    for width in widths:
        number = as_number("widths", width)
        if not 1 <= number < math.inf or number != int(number):
            raise InputError(f"widths holds {width!r}; expected whole numbers of at least 1")
        sizes.append(int(number))
    for hop, layer in enumerate(layers):
        below, above = sizes[hop : hop + 2]
        if layer.skip and below != above:
            raise InputError(
                f"hop {hop} has skip = {layer.skip:g}: expected equal widths on its two sides, not"
                f" {below} and {above}; a residual branch adds unit to unit"
            )
    return tuple(sizes)


def checked_pair(q1: float, q2: float, eps: float) -> PairState:
    """The pair as numbers; ``InputError`` where they are none or out of range."""
    pair = PairState(as_number("q1", q1), as_number("q2", q2), as_number("eps", eps))
    for name, q in (("q1", pair.q1), ("q2", pair.q2)):
        if not 0 < q < math.inf:
            raise InputError(f"{name} = {q}: expected a finite mean square q > 0")
    if not 0 <= pair.eps <= 2:
        raise InputError(f"eps = {pair.eps}: expected 1 - cos, between 0 (equal) and 2 (opposite)")
    return pair


def check_start(start: str, pair: PairState, units: int) -> None:
    """``InputError`` unless layer 0 of this many units can be given in this way."""
    if start not in STARTS:
        raise InputError(f"start = {start!r}: expected one of {', '.join(STARTS)}")
    if start == "pinned" and units == 1 and 0 < pair.eps < 2:
        raise InputError(
            f"eps = {pair.eps} of two vectors with one unit: expected 0 or 2, or start='drawn'"
        )

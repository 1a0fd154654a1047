"""Find the amount of nonlinearity at which a statistic of the output meets a target."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

LEAST = 1e-13
"""Below this amount of nonlinearity, a network is linear to float64."""


class Search(NamedTuple):
    """The amount found, or None and the value reached farthest from that of a linear network."""

    amount: float | None
    farthest: float


def search(
    statistic: Callable[[float], float | None],
    target: float,
    linear: float,
    guess: float,
    most: float,
    tolerance: float,
) -> Search:
    """Solve ``statistic(amount) = target`` in ``[LEAST, most]``, going out from a guess.

    Parameters
    ----------
    statistic:
        Monotone and continuous, and ``linear`` as the amount goes to 0; None where an amount has no
        layer, which may be beyond a largest one and below a smallest one.
    target, linear:
        They differ.
    tolerance:
        Relative, of the amount.
    """
    from scipy.optimize import brentq

    @cache
    def ahead(x: float) -> float | None:
        """How far beyond the target, seen from the linear network, the amount ``exp(x)`` leads."""
        value = statistic(math.exp(x))
        return None if value is None else (value - target) * math.copysign(1.0, target - linear)

    ends = (math.log(LEAST), math.log(most) if math.isfinite(most) else math.inf)
    start = min(max(math.log(guess), ends[0]), ends[1])
    while ahead(start) is None:
        start -= 0.5
        if start < ends[0]:
            return Search(None, linear)
    low = high = start
    if (ahead(start) or 0.0) > 0:
        low = _walk(ahead, start, ends[0], lambda value: value <= 0)
    else:
        high = _walk(ahead, start, ends[1], lambda value: value >= 0)
    below, above = ahead(low), ahead(high)
    assert below is not None  # what _walk returns has a value
    assert above is not None
    if below > 0 or above < 0:
        short = below if below > 0 else above
        return Search(None, target + short * math.copysign(1.0, target - linear))
    if low == high:
        return Search(math.exp(low), target)
    root = brentq(ahead, low, high, xtol=tolerance, rtol=1e-15)
    return Search(math.exp(root), target)


def _walk(
    ahead: Callable[[float], float | None],
    start: float,
    end: float,
    there: Callable[[float], bool],
) -> float:
    """Go from ``start`` towards ``end`` in growing steps until there, or the last defined place."""
    here, step = start, math.copysign(0.1, end - start)
    while here != end:
        place = here + step
        if abs(place - start) > abs(end - start):
            place = end
        value = ahead(place)
        if value is None:
            return _edge(ahead, here, place)
        here, step = place, 2 * step
        if there(value):
            break
    return here


def _edge(ahead: Callable[[float], float | None], inside: float, outside: float) -> float:
    """The last place with a value, to a part in a thousand of the amount."""
    while abs(outside - inside) > 1e-3:
        middle = (inside + outside) / 2
        if ahead(middle) is None:
            outside = middle
        else:
            inside = middle
    return inside

"""Numbers of any precision and Gauss-Legendre panels, for the referee in make_gap_truth.py.

mpmath is enough; python-flint, if it can be imported, does the same arithmetic much faster.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import mpmath

try:
    import flint
except ImportError:
    flint = None

ELLIPSE = 5.0  # Gauss-Legendre of order n then errs by about 5^(-2n)

ARITHMETIC = f"python-flint {flint.__version__}" if flint else f"mpmath {mpmath.__version__}"

Number = Any  # mpmath.mpf or flint.arb
Pair = tuple[Number, Number]
Feature = tuple[float, float, float]


def set_precision(bits: int) -> None:
    mpmath.mp.prec = bits
    if flint:
        flint.ctx.prec = bits


def num(value: str | float | Fraction | Number) -> Number:
    if isinstance(value, Fraction):
        return num(value.numerator) / value.denominator
    if isinstance(value, mpmath.mpf):
        value = mpmath.nstr(value, 80)
    return flint.arb(value) if flint else mpmath.mpf(value)


def centre(x: Number) -> Number:
    return x.mid() if flint else x


def exp(x: Number) -> Number:
    return x.exp() if flint else mpmath.exp(x)


def log(x: Number) -> Number:
    return x.log() if flint else mpmath.log(x)


def sqrt(x: Number) -> Number:
    return x.sqrt() if flint else mpmath.sqrt(x)


def tanh(x: Number) -> Number:
    return x.tanh() if flint else mpmath.tanh(x)


def erf(x: Number) -> Number:
    return x.erf() if flint else mpmath.erf(x)


def sin(x: Number) -> Number:
    return x.sin() if flint else mpmath.sin(x)


def cos(x: Number) -> Number:
    return x.cos() if flint else mpmath.cos(x)


def arcsin(x: Number) -> Number:
    return x.asin() if flint else mpmath.asin(x)


def pi() -> Number:
    return flint.arb.pi() if flint else +mpmath.pi


def digits(x: Number, count: int = 20) -> str:
    text = centre(x).str(count, radius=False) if flint else mpmath.nstr(x, count)
    return str(text)


def disagreement(a: Number, b: Number) -> float:
    """|a - b|/|a|, without overflow where both lie below the range of doubles."""
    a, b = centre(a), centre(b)
    if a == b:
        return 0.0
    return float(abs(a - b) / abs(a)) if a != 0 else math.inf


@cache
def legendre(order: int, bits: int) -> tuple[Pair, ...]:
    """Nodes and weights of Gauss-Legendre on (-1, 1)."""
    rule = []
    with mpmath.workprec(bits + 40):
        for i in range(order):
            x = mpmath.cos(mpmath.pi * (i + mpmath.mpf(3) / 4) / (order + mpmath.mpf(1) / 2))
            for _ in range(12):
                p0, p1 = mpmath.mpf(1), x
                for k in range(2, order + 1):
                    p0, p1 = p1, ((2 * k - 1) * x * p1 - (k - 1) * p0) / k
                slope = order * (x * p1 - p0) / (x * x - 1)
                x -= p1 / slope
            rule.append((x, 2 / ((1 - x * x) * slope * slope)))
        return tuple((num(x), num(w)) for x, w in rule)


@dataclass(frozen=True)
class Rule:
    """How finely to integrate: Gauss order, longest panel and cut-off in standard deviations."""

    order: int
    longest: float
    cut: float


FINE = Rule(24, 2.8, 11.0)
COARSE = Rule(18, 2.3, 10.6)


def far_enough(low: float, high: float, feature: Feature) -> bool:
    place, height, reach = feature
    if low - place > reach or place - high > reach:
        return True
    z = complex(place - (low + high) / 2, height) / ((high - low) / 2)
    root = cmath.sqrt(z * z - 1)
    return max(abs(z + root), abs(z - root)) >= ELLIPSE


def split(
    low: float, width: float, features: Sequence[Feature], longest: float
) -> list[tuple[float, float]]:
    """Cut [low, low + width] into panels, given as exact dyadic fractions of the interval."""
    done, todo = [], [(0.0, 1.0)]
    while todo:
        a, b = todo.pop()
        x, y = low + width * a, low + width * b
        if y - x <= longest and (y <= x or all(far_enough(x, y, s) for s in features)):
            done.append((a, b))
        else:
            todo += [(a, (a + b) / 2), ((a + b) / 2, b)]
    return done


def integrate(
    integrand: Callable[[Number], tuple[Number, ...]],
    breaks: Sequence[Number],
    features: Sequence[Feature],
    longest: float,
    order: int,
) -> list[Number]:
    """Componentwise integral from breaks[0] to breaks[-1], exact cuts at the others."""
    rule = legendre(order, mpmath.mp.prec)
    total: list[Number] = []
    for a, b in pairwise(breaks):
        width = b - a
        for low, high in split(float(a), float(width), features, longest):
            half = width * ((high - low) / 2)
            middle = a + width * ((high + low) / 2)
            for node, weight in rule:
                terms = integrand(middle + half * node)
                if not total:
                    total = [num(0)] * len(terms)
                w = weight * half
                total = [t + w * term for t, term in zip(total, terms, strict=True)]
    return total


def ordered_breaks(low: Number, high: Number, inner: Sequence[Number]) -> list[Number]:
    inside = sorted((x for x in inner if low < x < high), key=float)
    return [low, *inside, high]

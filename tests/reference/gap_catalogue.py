"""Every activation of the referee, defined independently of the package."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import mpmath
from gap_methods import Closed, Pieces, Shape
from precise import Feature, Number, Pair, arcsin, cos, erf, exp, log, num, pi, sin, sqrt, tanh


def piecewise(
    definition: str, kinks: str, coefs: Sequence[tuple[str, str, str]], symmetric: bool = False
) -> Pieces:
    exact = tuple((Fraction(a), Fraction(b), Fraction(c)) for a, b, c in coefs)
    return Pieces(definition, tuple(Fraction(k) for k in kinks.split()), exact, symmetric)


def two_slopes(definition: str, left: str, right: str, symmetric: bool = False) -> Pieces:
    return piecewise(definition, "0", [("0", left, "0"), ("0", right, "0")], symmetric)


def sigmoid_both(x: Number) -> Pair:
    s = 1 / (1 + exp(-x))
    return s, s * (1 - s)


def tanh_both(x: Number) -> Pair:
    t = tanh(x)
    return t, 1 - t * t


def tanhshrink_both(x: Number) -> Pair:
    t = tanh(x)
    return x - t, t * t


def silu_both(x: Number) -> Pair:
    s = 1 / (1 + exp(-x))
    return x * s, s * (1 + x * (1 - s))


def softplus_both(x: Number) -> Pair:
    return log(1 + exp(x)), 1 / (1 + exp(-x))


def logsigmoid_both(x: Number) -> Pair:
    return -log(1 + exp(-x)), 1 / (1 + exp(x))


def mish_both(x: Number) -> Pair:
    e = exp(x)
    n = e * (e + 2)  # tanh(log(1 + e)) = n/(n + 2)
    ratio = n / (n + 2)
    return x * ratio, ratio + x * 4 * e * (e + 1) / ((n + 2) * (n + 2))


def gelu_activation() -> Callable[[Number], Pair]:
    root, density, zero, one = sqrt(num(2)), 1 / sqrt(2 * pi()), num(0), num(1)

    def both(x: Number) -> Pair:
        if abs(x) > 20:  # the normal tail, below 1e-87, is beneath the working precision
            return (x, one) if x > 0 else (zero, zero)
        below = (1 + erf(x / root)) / 2
        return x * below, below + x * exp(-x * x / 2) * density

    return both


def gelu_tanh_activation() -> Callable[[Number], Pair]:
    bend, scale = num("0.044715"), sqrt(2 / pi())

    def both(x: Number) -> Pair:
        x2 = bend * x * x
        t = tanh(scale * x * (1 + x2))
        slope = scale * (1 + 3 * x2)
        return x * (1 + t) / 2, (1 + t + x * (1 - t * t) * slope) / 2

    return both


def softsign_both(x: Number) -> Pair:
    r = 1 / (1 + abs(x))
    return x * r, r * r


def elu_family(alpha: str, rate: str, scale: str) -> Callable[[Number], Pair]:
    """scale x for x > 0, scale alpha (exp(x rate) - 1) below."""
    a, r, s = num(alpha), num(rate), num(scale)

    def both(x: Number) -> Pair:
        if x > 0:
            return s * x, s
        e = exp(x * r)
        return s * a * (e - 1), s * a * r * e

    return both


def gelu_tanh_poles() -> tuple[Feature, ...]:
    """Roots of sqrt(2/pi) (x + 0.044715 x^3) = i pi (k + 1/2) within 12 of the origin."""
    found = set()
    for k in range(40):
        target = 1j * math.pi * (k + 0.5) * math.sqrt(math.pi / 2)
        roots = mpmath.polyroots([0.044715, 0, 1, -target], maxsteps=500, extraprec=200)
        for root in map(complex, roots):
            if abs(root) < 12:
                found.add((round(root.real, 6), round(abs(root.imag), 6), 10.0))
    return tuple(sorted(found))


def erf_moments(q: Number, c: Number) -> Pair:
    a, b = 1 + 2 * q, 2 * q * c
    return 2 / pi() * arcsin(b / a), 4 / pi() / sqrt(a * a - b * b)


def sin_moments(q: Number, c: Number) -> Pair:
    plus, minus = exp(-q * (1 - c)), exp(-q * (1 + c))
    return (plus - minus) / 2, (plus + minus) / 2


def cos_moments(q: Number, c: Number) -> Pair:
    return sin_moments(q, c)[::-1]


def cubic_moments(q: Number, c: Number) -> Pair:
    qc = q * c
    return (
        9 * q * q * qc + 6 * qc * qc * qc - 6 * q * qc + qc,
        9 * (q * q + 2 * qc * qc) - 6 * q + 1,
    )


def bell_moments(q: Number, c: Number) -> Pair:
    plus, minus = 1 + 2 * q * (1 + c), 1 + 2 * q * (1 - c)
    root = sqrt(plus * minus)
    return 1 / root, 2 * (q * (1 + c) / plus - q * (1 - c) / minus) / root


def bell_both(x: Number) -> Pair:
    e = exp(-x * x)
    return e, -2 * x * e


def closed_catalogue() -> dict[str, Closed]:
    wave = ((0.0, 3.0, math.inf),)
    bell = ((0.0, 1.4, 12.0),)
    return {
        "erf": Closed(
            "erf(x)",
            erf_moments,
            lambda q: 4 / pi() / ((1 + 2 * q) * sqrt(1 + 4 * q)),
            lambda x: (erf(x), 2 / sqrt(pi()) * exp(-x * x)),
            bell,
        ),
        "sin": Closed(
            "sin(x)", sin_moments, lambda q: exp(-2 * q), lambda x: (sin(x), cos(x)), wave
        ),
        "cos": Closed(
            "cos(x)", cos_moments, lambda q: -exp(-2 * q), lambda x: (cos(x), -sin(x)), wave
        ),
        "identity": Closed(
            "x", lambda q, c: (q * c, num(1)), lambda q: num(1), lambda x: (x, num(1))
        ),
        "x^3 - x": Closed(
            "x^3 - x",
            cubic_moments,
            lambda q: 45 * q * q - 12 * q + 1,
            lambda x: (x * x * x - x, 3 * x * x - 1),
        ),
        "exp(-x^2)": Closed(
            "exp(-x^2)",
            bell_moments,
            lambda q: -2 / ((1 + 4 * q) * sqrt(1 + 4 * q)),
            bell_both,
            bell,
        ),
    }


def piecewise_catalogue() -> dict[str, Pieces]:
    sixth, half = "1/6", "1/2"
    return {
        "relu": two_slopes("max(x, 0)", "0", "1"),
        "hardtanh": piecewise(
            "min(max(x, -1), 1)",
            "-1 1",
            [("-1", "0", "0"), ("0", "1", "0"), ("1", "0", "0")],
            symmetric=True,
        ),
        "hardswish": piecewise(
            "x min(max(x + 3, 0), 6)/6",
            "-3 3",
            [("0", "0", "0"), ("0", half, sixth), ("0", "1", "0")],
        ),
        "leaky_relu(0.2)": two_slopes("x for x > 0, 0.2 x below", "1/5", "1"),
        "abs": two_slopes("|x|", "-1", "1", symmetric=True),
        "hardsigmoid": piecewise(
            "min(max(x/6 + 1/2, 0), 1)",
            "-3 3",
            [("0", "0", "0"), (half, sixth, "0"), ("1", "0", "0")],
            symmetric=True,
        ),
        "relu6": piecewise(
            "min(max(x, 0), 6)", "0 6", [("0", "0", "0"), ("0", "1", "0"), ("6", "0", "0")]
        ),
        "shaped_relu(0.9, 1.1)": two_slopes("1.1 x for x > 0, 0.9 x below", "9/10", "11/10"),
        "relu_squared": piecewise("max(x, 0)^2", "0", [("0", "0", "0"), ("0", "0", "1")]),
    }


def smooth_catalogue() -> dict[str, Shape]:
    quarter, half = math.pi / 2, math.pi
    zero = (Fraction(0),)
    selu = ("1.6732632423543772848170429916717", "1.0507009873554804934193349852946")
    return {
        "gelu": Shape("x (1 + erf(x/sqrt 2))/2", gelu_activation(), features=((0.0, 2.0, 14.0),)),
        "tanh": Shape("tanh(x)", tanh_both, True, (), ((0.0, quarter, 40.0),)),
        "silu": Shape("x/(1 + exp(-x))", silu_both, features=((0.0, half, 80.0),)),
        "softsign": Shape("x/(1 + |x|)", softsign_both, True, zero, ((0.0, 1.0, math.inf),)),
        "elu": Shape(
            "x for x > 0, exp(x) - 1 below (elu(1), celu(1))",
            elu_family("1", "1", "1"),
            kinks=zero,
            features=((0.0, 2.0, 80.0),),
        ),
        "selu": Shape(
            f"{selu[1]} (x for x > 0, {selu[0]} (exp(x) - 1) below)",
            elu_family(selu[0], "1", selu[1]),
            kinks=zero,
            features=((0.0, 2.0, 80.0),),
        ),
        "celu(0.5)": Shape(
            "x for x > 0, (exp(2 x) - 1)/2 below",
            elu_family("0.5", "2", "1"),
            kinks=zero,
            features=((0.0, 1.0, 40.0),),
        ),
        "gelu_tanh": Shape(
            "x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))/2",
            gelu_tanh_activation(),
            features=gelu_tanh_poles(),
        ),
        "mish": Shape(
            "x tanh(log(1 + exp(x)))",
            mish_both,
            features=((math.log(2) / 2, 3 * math.pi / 4, 80.0),),
        ),
        "softplus": Shape("log(1 + exp(x))", softplus_both, features=((0.0, half, 80.0),)),
        "sigmoid": Shape("1/(1 + exp(-x))", sigmoid_both, True, (), ((0.0, half, 80.0),)),
        "tanhshrink": Shape("x - tanh(x)", tanhshrink_both, True, (), ((0.0, quarter, 40.0),)),
        "logsigmoid": Shape("-log(1 + exp(-x))", logsigmoid_both, features=((0.0, half, 80.0),)),
    }

"""The methods of the referee; what each is good for is told in make_gap_truth.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from precise import (
    FINE,
    Feature,
    Number,
    Pair,
    Rule,
    arcsin,
    cos,
    erf,
    exp,
    integrate,
    num,
    ordered_breaks,
    pi,
    sin,
    sqrt,
    tanh,
)


@dataclass(frozen=True)
class Shape:
    """An activation for the plane method.

    both(x) is (f(x), f'(x)); features are (re, im, reach): a singularity at re +- i im, or for an
    entire f the scale on which it varies, that can be forgotten farther than reach away, where f
    is a polynomial to more than 25 digits. symmetric: f is odd or even up to a constant.
    """

    definition: str
    both: Callable[[Number], Pair]
    symmetric: bool = False
    kinks: tuple[Fraction, ...] = ()
    features: tuple[Feature, ...] = ()


def expectations(shape: Shape, q: Number, rule: Rule) -> tuple[Number, ...]:
    """E[f^2], E[f'^2], E[u f f']/q."""
    sigma = sqrt(q)

    def integrand(x: Number) -> tuple[Number, ...]:
        f, slope = shape.both(x)
        weight = exp(-x * x / (2 * q))
        return weight * f * f, weight * slope * slope, weight * x * f * slope

    end = sigma * rule.cut
    breaks = ordered_breaks(-end, end, [num(k) for k in shape.kinks])
    longest = rule.longest * float(sigma)
    f2, df2, uffp = integrate(integrand, breaks, shape.features, longest, 2 * rule.order)
    scale = sqrt(2 * pi()) * sigma
    return f2 / scale, df2 / scale, uffp / (scale * q)


def plane_gap(shape: Shape, q: Number, eps: Number, rule: Rule) -> Pair:
    """Both gaps by the method "plane"."""
    spread_x, spread_d = sqrt(q * (1 - eps / 2)), sqrt(q * eps / 2)
    kinks = [num(k) for k in shape.kinks]
    end = spread_x * rule.cut
    start = num(0) if shape.symmetric else -end
    rate_x, rate_d = -1 / (2 * spread_x * spread_x), -1 / (2 * spread_d * spread_d)
    longest_x = rule.longest * float(spread_x)
    both = shape.both

    def inner(d: Number) -> tuple[Number, ...]:
        def integrand(x: Number) -> tuple[Number, ...]:
            f1, slope1 = both(x + d)
            f2, slope2 = both(x - d)
            weight = exp(x * x * rate_x)
            f1 -= f2
            slope1 -= slope2
            return weight * f1 * f1, weight * slope1 * slope1

        shift = float(d)
        moved = [(re + s, im, reach) for re, im, reach in shape.features for s in (-shift, shift)]
        breaks = ordered_breaks(start, end, [k + s for k in kinks for s in (-d, d)])
        terms = integrate(integrand, breaks, moved, longest_x, rule.order)
        weight = exp(d * d * rate_d)
        return tuple(weight * term for term in terms)

    # g(d), the inner integral, is singular where two singularities of f pinch the line of x from
    # opposite sides, or one meets a kink.
    points = [(float(k), 0.0, math.inf) for k in shape.kinks] + list(shape.features)
    pinches = {
        ((a[0] - b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2)
        for a in points
        for b in points
        if a[1] + b[1] > 0
    }
    breaks = ordered_breaks(
        num(0), spread_d * rule.cut, [(a - b) / 2 for a in kinks for b in kinks]
    )
    # g varies on the scale of spread_x too, where features of f pass through the Gaussian of x.
    longest = rule.longest * float(min(spread_x * 1.3, spread_d))
    gap, derivative_gap = integrate(inner, breaks, sorted(pinches), longest, rule.order)
    scale = (2 if shape.symmetric else 1) / (2 * pi() * spread_x * spread_d)
    return gap * scale, derivative_gap * scale


@dataclass(frozen=True)
class Pieces:
    """A continuous piecewise quadratic: (c0, c1, c2) left of each kink, then right of the last."""

    definition: str
    kinks: tuple[Fraction, ...]
    coefs: tuple[tuple[Fraction, Fraction, Fraction], ...]
    symmetric: bool = False

    def shape(self, derivative: bool = False) -> Shape:
        """f and f', or f' and the regular f''."""
        coefs = self.coefs
        if derivative:
            coefs = tuple((c1, 2 * c2, Fraction(0)) for _, c1, c2 in coefs)
        exact = [tuple(num(c) for c in piece) for piece in coefs]
        kinks = [num(k) for k in self.kinks]

        def both(x: Number) -> Pair:
            piece = 0
            while piece < len(kinks) and x > kinks[piece]:
                piece += 1
            c0, c1, c2 = exact[piece]
            return c0 + x * (c1 + x * c2), c1 + 2 * x * c2

        return Shape(self.definition, both, self.symmetric, self.kinks)


def price_gap(pieces: Pieces, q: Number, eps: Number, rule: Rule) -> Pair:
    """Both gaps by the method "price".

    With jumps D_i of f' and G_i of f'' at x_i, p the bivariate density, R = sum G_i G_j p(x_i, x_j)
    and M = 2 sum_i D_i p(x_i) E[f''(v) | u = x_i] + sum D_i D_j p(x_i, x_j), all at misalignment e:
    E[f'' f''](e) = E[f''^2] - q int_0^e R + M,  derivative gap = q int_0^eps E[f'' f''](e) de,
    gap = q eps E[f'^2] - q^2 int_0^eps (eps - e) E[f'' f''](e) de.
    """
    x = [num(k) for k in pieces.kinks]
    slope_jump = [
        num((b[1] - a[1]) + 2 * k * (b[2] - a[2]))
        for k, (a, b) in zip(pieces.kinks, pairwise(pieces.coefs), strict=True)
    ]
    bend_jump = [num(2 * (b[2] - a[2])) for a, b in pairwise(pieces.coefs)]
    first_bend = num(2 * pieces.coefs[0][2])
    indices = range(len(x))

    def integrand(theta: Number) -> tuple[Number, ...]:
        s, half = sin(theta), sin(theta / 2)
        e = 2 * half * half
        r, m = num(0), num(0)
        for i in indices:
            bend = first_bend
            for j in indices:
                distance = (x[i] - x[j]) * (x[i] - x[j]) + 2 * e * x[i] * x[j]
                density = exp(-distance / (2 * q * s * s)) / (2 * pi() * q)  # times sin(theta)
                r += bend_jump[i] * bend_jump[j] * density
                m += slope_jump[i] * slope_jump[j] * density
                if bend_jump[j] != 0:
                    z = ((1 - e) * x[i] - x[j]) / (sqrt(2 * q) * s)
                    bend += bend_jump[j] * (1 + erf(z)) / 2
            if slope_jump[i] != 0:
                at_kink = exp(-x[i] * x[i] / (2 * q)) / sqrt(2 * pi() * q)
                m += 2 * slope_jump[i] * at_kink * bend * s
        left = eps - e
        return m - q * left * r, left * m - q * left * left / 2 * r

    # Off-diagonal terms vanish like exp(-1/theta^2): panels shrink geometrically towards zero.
    top = 2 * arcsin(sqrt(eps / 2))
    ratio = 0.5 if rule == FINE else 0.6
    breaks = [num(0), *(top * ratio**k for k in range(50, 0, -1)), top]
    first, second = integrate(integrand, breaks, (), math.inf, 2 * rule.order)
    slope2 = expectations(pieces.shape(), q, rule)[1]
    bend2 = expectations(pieces.shape(derivative=True), q, rule)[1]
    return (
        q * eps * slope2 - q * q * (bend2 * eps * eps / 2 + second),
        q * (bend2 * eps + first),
    )


@dataclass(frozen=True)
class Closed:
    """An activation whose correlations have a closed form: moments(q, c) = E[f f], E[f' f'].

    growth(q) = E[u f f']/q, which is the derivative of E[f^2] by q.
    """

    definition: str
    moments: Callable[[Number, Number], Pair]
    growth: Callable[[Number], Number]
    both: Callable[[Number], Pair]
    features: tuple[Feature, ...] = ()

    def shape(self) -> Shape:
        return Shape(self.definition, self.both, True, (), self.features)


def closed_gap(closed: Closed, q: Number, eps: Number) -> Pair:
    """Both gaps by the method "closed"."""
    at_one, at_c = closed.moments(q, num(1)), closed.moments(q, 1 - eps)
    return at_one[0] - at_c[0], at_one[1] - at_c[1]


def trapezoid_gap(shape: Shape, q: Number, eps: Number) -> Pair:
    """Trapezoidal sums over x and d, for f analytic in a strip about the real line."""
    spread_x, spread_d = sqrt(q * (1 - eps / 2)), sqrt(q * eps / 2)
    strip = min((im for _, im, _ in shape.features), default=math.inf)
    steps = [min(0.45, 2 * math.pi * strip / (75 * float(s))) for s in (spread_x, spread_d)]
    nodes_x = [i * num(steps[0]) for i in range(-int(11.5 / steps[0]), int(11.5 / steps[0]) + 1)]
    weighted_x = [(spread_x * s, exp(-s * s / 2)) for s in nodes_x]
    gap, derivative_gap = num(0), num(0)
    for j in range(1, int(11.5 / steps[1]) + 1):
        t = j * num(steps[1])
        d, row, derivative_row = spread_d * t, num(0), num(0)
        for x, weight in weighted_x:
            f1, slope1 = shape.both(x + d)
            f2, slope2 = shape.both(x - d)
            f1 -= f2
            slope1 -= slope2
            row += weight * f1 * f1
            derivative_row += weight * slope1 * slope1
        weight_t = exp(-t * t / 2)
        gap += weight_t * row
        derivative_gap += weight_t * derivative_row
    scale = num(steps[0]) * num(steps[1]) / (2 * pi())
    return gap * scale, derivative_gap * scale


def tanh_sinh(step: float) -> list[Pair]:
    """Nodes and weights on (-1, 1); reaches within 1e-40 of the ends."""
    rule = []
    for k in range(-int(4.1 / step), int(4.1 / step) + 1):
        t = k * num(step)
        up, down = exp(t), exp(-t)
        inner = pi() * (up - down) / 4
        sech = 2 / (exp(inner) + exp(-inner))
        rule.append((tanh(inner), num(step) * pi() * (up + down) / 4 * sech * sech))
    return rule


def polar_gap(shape: Shape, q: Number, eps: Number, step: float = 0.045) -> Pair:
    """f with one kink, at zero: u, v = sqrt(q) r (cos phi, cos(phi - theta)).

    The kinks then lie on four fixed angles, whatever r; tanh-sinh in each sector and in r.
    """
    theta = 2 * arcsin(sqrt(eps / 2))
    quarter, scale, rule = pi() / 2, sqrt(q), tanh_sinh(step)
    edges = [quarter, quarter + theta, 3 * quarter, 3 * quarter + theta, 5 * quarter]
    radii = [(num(11.5) * (1 + x) / 2, num(11.5) * w / 2) for x, w in rule]
    radii = [(r * scale, r * w * exp(-r * r / 2)) for r, w in radii]
    gap, derivative_gap = num(0), num(0)
    for low, high in pairwise(edges):
        half, middle = (high - low) / 2, (high + low) / 2
        for x, w in rule:
            phi = middle + half * x
            toward_u, toward_v = cos(phi), cos(phi - theta)
            weight = w * half
            for r, w_r in radii:
                f1, slope1 = shape.both(r * toward_u)
                f2, slope2 = shape.both(r * toward_v)
                f1 -= f2
                slope1 -= slope2
                gap += weight * w_r * f1 * f1
                derivative_gap += weight * w_r * slope1 * slope1
    return gap / (4 * pi()), derivative_gap / (4 * pi())


def gelu_price_gap(q: Number, eps: Number) -> Pair:
    """GELU: E[f'' f''] in closed form from f'' = (2 - x^2) times the normal density."""

    def bend(e: Number) -> Number:
        plus, minus = q * (2 - e), q * e
        a, b = plus / (1 + plus), minus / (1 + minus)  # eigenvalues under exp(-(u^2 + v^2)/2)
        variance, covariance = (a + b) / 2, (a - b) / 2
        moment = 4 - 4 * variance + variance * variance + 2 * covariance * covariance
        return moment / (2 * pi() * sqrt((1 + plus) * (1 + minus)))

    def moments(top: Number) -> list[Number]:
        breaks = [num(0), *(top * num(2) ** -k for k in range(60, -1, -1))]
        return integrate(lambda e: (bend(e), (top - e) * bend(e)), breaks, (), math.inf, 40)

    slope2 = num("0.25") + q * moments(num(1))[0]  # E[f']^2 = 1/4 at eps = 1
    first, second = moments(eps)
    return q * eps * slope2 - q * q * second, q * first

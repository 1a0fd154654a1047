"""Critical points and dropout fixed points to 20 digits: section "critical" of gap_truth.json.

Critical: sigma_w^2 E[f'^2] = 1 together with q = sigma_w^2 E[f^2]/rho + sigma_b^2, rho = 1 - drop.
Under independent masks the misalignment maps, at fixed q, as
eps' = [q - sigma_w^2 E[f(u) f(v)] - sigma_b^2]/q, with slope sigma_w^2 E[f'(u) f'(v)].
"""

from __future__ import annotations

from collections.abc import Callable

from gap_catalogue import closed_catalogue, piecewise_catalogue, smooth_catalogue
from gap_methods import Closed, Pieces, Shape, closed_gap, expectations, plane_gap, price_gap
from precise import (
    Number,
    Pair,
    Rule,
    arcsin,
    centre,
    exp,
    integrate,
    log,
    num,
    pi,
    sqrt,
    tanh,
)

Record = dict[str, Number]


def secant(function: Callable[[Number], Number], start: str, step: str = "1e-6") -> Number:
    """A simple root near start, to the working precision."""
    x0 = num(start)
    x1 = x0 * (1 + num(step))
    y0 = centre(function(x0))
    for _ in range(60):
        y1 = centre(function(x1))
        if y1 == y0 or abs(centre(x1 - x0)) < abs(x1) * num("1e-40"):
            return x1
        x0, x1, y0 = x1, centre(x1 - y1 * (x1 - x0) / (y1 - y0)), y1
    raise ArithmeticError("the secant iteration did not converge")


def moments(f: Shape | Pieces | Closed, q: Number, rule: Rule) -> Pair:
    """E[f^2], E[f'^2]."""
    if isinstance(f, Closed):
        return f.moments(q, num(1))
    shape = f.shape() if isinstance(f, Pieces) else f
    return expectations(shape, q, rule)[:2]


def gap(f: Shape | Pieces | Closed, q: Number, eps: Number, rule: Rule) -> Pair:
    if isinstance(f, Closed):
        return closed_gap(f, q, eps)
    if isinstance(f, Pieces):
        return price_gap(f, q, eps, rule)
    return plane_gap(f, q, eps, rule)


def retuned(
    f: Shape | Pieces | Closed, sigma_b2: str, drop: str, near: str, rule: Rule
) -> tuple[Number, Number]:
    """(sigma_w^2, q) of the critical point."""

    def mismatch(q: Number) -> Number:
        f2, df2 = moments(f, q, rule)
        return q - num(sigma_b2) - f2 / (df2 * (1 - num(drop)))

    q = secant(mismatch, near)
    return 1 / moments(f, q, rule)[1], q


def normal_mean(f: Callable[[Number], Number], q: Number, rule: Rule) -> Number:
    """E[f(u)] of an f that is analytic in the strip of tanh."""
    end = sqrt(q) * rule.cut
    (total,) = integrate(
        lambda x: (f(x) * exp(-x * x / (2 * q)),),
        [-end, num(0), end],
        ((0.0, 1.5, 40.0),),
        rule.longest * float(sqrt(q)),
        2 * rule.order,
    )
    return total / sqrt(2 * pi() * q)


def tanh_curvatures(sigma_w2: Number, q: Number, rule: Rule) -> Record:
    """g = sigma_w^2 q E[f''^2] and k = sigma_w^2 q^2 E[f'''^2]."""

    def second(x: Number) -> Number:
        t = tanh(x)
        bend = 2 * t * (1 - t * t)
        return bend * bend

    def third(x: Number) -> Number:
        t2 = tanh(x) * tanh(x)
        twist = 2 * (1 - t2) * (1 - 3 * t2)
        return twist * twist

    return {
        "g": sigma_w2 * q * normal_mean(second, q, rule),
        "k": sigma_w2 * q * q * normal_mean(third, q, rule),
    }


def dropout_fixed_point(
    f: Shape | Pieces | Closed,
    sigma_w2: Number,
    q: Number,
    sigma_b2: str,
    drop: str,
    near: str,
    rule: Rule,
) -> Record:
    """h, the fixed point eps, the slope there and the depth scale -1/log(slope)."""
    f2, df2 = moments(f, q, rule)

    def mismatch(eps: Number) -> Number:
        correlated = f2 - gap(f, q, eps, rule)[0]
        return (q - sigma_w2 * correlated - num(sigma_b2)) / q - eps

    eps = secant(mismatch, near)
    slope = sigma_w2 * (df2 - gap(f, q, eps, rule)[1])
    h = num(drop) * (1 - num(sigma_b2) / q)
    return {"h": h, "eps": eps, "lambda": slope, "xi": -1 / log(slope)}


def relu_ratio(drop: str, near: str) -> Record:
    """ReLU without bias: c' = rho f(c), f(c) = (sqrt(1 - c^2) + c (pi - arccos c))/pi."""
    rho = 1 - num(drop)

    def angle(eps: Number) -> Number:  # arccos(1 - eps)
        return 2 * arcsin(sqrt(eps / 2))

    def mismatch(eps: Number) -> Number:
        root = sqrt(eps * (2 - eps))
        return 1 - rho * (root + (1 - eps) * (pi() - angle(eps))) / pi() - eps

    eps = secant(mismatch, near)
    slope = rho * (pi() - angle(eps)) / pi()
    return {"eps": eps, "lambda": slope, "xi": -1 / log(slope)}


def without_dropout(rule: Rule) -> dict[str, Record]:
    f_tanh, f_gelu = smooth_catalogue()["tanh"], smooth_catalogue()["gelu"]
    f_erf, f_hard = closed_catalogue()["erf"], piecewise_catalogue()["hardtanh"]
    points: dict[str, Record] = {}
    for sigma_b2, near in (("0.1", "0.8"), ("0.05", "0.6")):
        sigma_w2, q = retuned(f_tanh, sigma_b2, "0", near, rule)
        curvatures = tanh_curvatures(sigma_w2, q, rule)
        points[f"tanh sigma_b^2={sigma_b2}"] = {"sigma_w^2": sigma_w2, "q": q, **curvatures}

    sigma_w2, q = retuned(f_erf, "0.1", "0", "0.73", rule)
    # f'' = -4 x exp(-x^2)/sqrt(pi), and E[u^2 exp(-2 u^2)] = q (1 + 4 q)^(-3/2)
    bend2 = 16 / pi() * q / ((1 + 4 * q) * sqrt(1 + 4 * q))
    points["erf sigma_b^2=0.1"] = {"sigma_w^2": sigma_w2, "q": q, "a": sigma_w2 * q * bend2 / 2}

    sigma_w2, q = retuned(f_hard, "0.1", "0", "0.63", rule)
    amplitude = sqrt(num(2)) / (3 * pi()) * sigma_w2 * 2 * exp(-1 / (2 * q))
    points["hardtanh sigma_b^2=0.1"] = {"sigma_w^2": sigma_w2, "q": q, "b": amplitude}

    q = num(4)
    f2, df2 = moments(f_gelu, q, rule)
    # f'' = (2 - x^2) exp(-x^2/2)/sqrt(2 pi); under exp(-x^2) the variance q becomes v
    v = q / (1 + 2 * q)
    bend2 = (4 - 4 * v + 3 * v * v) / (2 * pi() * sqrt(1 + 2 * q))
    points["gelu q=4"] = {
        "sigma_w^2": 1 / df2,
        "sigma_b^2": q - f2 / df2,
        "a": q * bend2 / (2 * df2),
    }
    return points


def with_dropout(rule: Rule) -> dict[str, Record]:
    f_tanh, f_hard = smooth_catalogue()["tanh"], piecewise_catalogue()["hardtanh"]
    points: dict[str, Record] = {}
    sigma_w2, q = retuned(f_tanh, "0.1", "1e-4", "0.8", rule)
    points["tanh sigma_b^2=0.1 drop=1e-4 retuned"] = {
        "sigma_w^2": sigma_w2,
        "q": q,
        **dropout_fixed_point(f_tanh, sigma_w2, q, "0.1", "1e-4", "0.019", rule),
    }
    sigma_w2, q = retuned(f_hard, "0.1", "1e-3", "0.63", rule)
    points["hardtanh sigma_b^2=0.1 drop=1e-3 retuned"] = {
        "sigma_w^2": sigma_w2,
        "q": q,
        **dropout_fixed_point(f_hard, sigma_w2, q, "0.1", "1e-3", "0.029", rule),
    }
    sigma_w2, _ = retuned(f_tanh, "0.1", "0", "0.8", rule)
    rho = 1 - num("1e-2")

    def mismatch(q: Number) -> Number:
        return q - sigma_w2 / rho * moments(f_tanh, q, rule)[0] - num("0.1")

    q = secant(mismatch, "0.8")
    points["tanh sigma_b^2=0.1 drop=1e-2 sigma_w^2 critical at drop=0"] = {
        "sigma_w^2": sigma_w2,
        "q": q,
        "t": sigma_w2 * moments(f_tanh, q, rule)[1] - 1,
        **dropout_fixed_point(f_tanh, sigma_w2, q, "0.1", "1e-2", "0.19", rule),
    }
    points["relu sigma_b=0 drop=1e-6"] = relu_ratio("1e-6", "2.2e-4")
    points["relu sigma_b=0 drop=1e-3"] = relu_ratio("1e-3", "0.022")
    return points


def critical_points(rule: Rule) -> dict[str, Record]:
    return {**without_dropout(rule), **with_dropout(rule)}

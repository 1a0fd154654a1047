r"""Affine maps around an activation that give its layer a chosen correlation map.

With weights ``N(0, 1/fan_in)``, no biases and inputs of mean square 1, the layer of ``psi(x) =
output_scale (phi(input_scale x + input_shift) + output_shift)`` maps lengths by ``Q(q) = E
psi(sqrt(q) z)^2`` and correlations by ``C(c) = E psi(u) psi(v)``. Four conditions fix the four
numbers:

    deep kernel shaping  Q(1) = 1, Q'(1) = 1, C(0) = 0,  C'(1) = slope > 1        (2110.01765)
    tailored, smooth     Q(1) = 1, Q'(1) = 1, C'(1) = 1, C''(1) = curvature > 0   (2203.08120)

The outputs' two numbers follow from the inputs' in closed form. Of the remaining pair of equations
all solutions are looked for on a grid of ``input_scale > 0`` and ``input_shift`` and refined. The
one with the least ``input_scale output_scale`` is taken, which amplifies rounding and the errors of
finite width least; of two mirror images, the one with a positive shift.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from depthscale.theory.functions.affine import affine
from depthscale.theory.functions.function import Activation
from depthscale.theory.gaussian import Array, expectation

CONDITIONS = {
    "dks": "Q(1) = 1, Q'(1) = 1, C(0) = 0, C'(1) = {:.6g}",
    "tat": "Q(1) = 1, Q'(1) = 1, C'(1) = 1, C''(1) = {:.6g}",
}
"""What each method asks of the maps of a layer."""

SOLVED = 1e-9
"""Largest error of a condition relative to the nonlinearity asked for."""

_DOUBLINGS = 14
"""Of the nonlinearity, up to which a solution is looked for that is then followed down."""

_SCALES = np.geomspace(1e-3, 4.0, 45)
# closer around 0, where breaks are; no point at 0 itself, where an odd function is singular
_SHIFTS = 4.0 * np.sinh(np.linspace(-3.0, 3.0, 90)) / math.sinh(3.0)


@dataclass(frozen=True)
class Transform:
    """``output_scale (phi(input_scale x + input_shift) + output_shift)``."""

    input_scale: float = 1.0
    input_shift: float = 0.0
    output_scale: float = 1.0
    output_shift: float = 0.0

    def of(self, base: Activation) -> Activation:
        """The transformed activation."""
        return affine(
            base, self.input_scale, self.input_shift, self.output_scale, self.output_shift
        )


def solve(
    base: Activation, method: str, amount: float, near: Transform | None = None
) -> Transform | None:
    """The transform that meets the conditions of a method, None where none is found.

    Parameters
    ----------
    base:
        Has a slope everywhere (dks), without jumps of it (tat).
    method:
        ``"dks"`` or ``"tat"``.
    amount:
        ``C'(1) > 1`` for dks, ``C''(1) > 0`` for tat.
    near:
        A solution for a nearby amount, from which this one is followed.
    """
    if near is not None:
        return _refined(base, method, amount, (math.log(near.input_scale), near.input_shift))
    line = 1.0 if method == "dks" else 0.0
    for doublings in range(_DOUBLINGS):
        found = _best(base, method, line + (amount - line) * 2**doublings)
        if found is not None or not base.breaks:
            break
    # beside a break, where the shift shrinks along with the scale, the grid misses small amounts
    while found is not None and doublings > 0:
        doublings -= 1
        smaller = line + (amount - line) * 2**doublings
        found = _refined(base, method, smaller, (math.log(found.input_scale), found.input_shift))
    return found


def _best(base: Activation, method: str, amount: float) -> Transform | None:
    """The preferred one of all solutions that start on the grid."""
    starts = _starts(base, method, amount)
    found = [t for start in starts if (t := _refined(base, method, amount, start)) is not None]
    return min(found, key=_preference, default=None)


def amount_of(method: str, base: Activation, transform: Transform) -> float:
    """``C'(1)`` (dks) or ``C''(1)`` (tat) of the layer, from its Gaussian moments."""
    psi = transform.of(base)
    derivative = psi.slope if method == "dks" else psi.curvature
    return float(expectation(lambda x: derivative(x) ** 2, 1.0, psi.shape))


class _Moments(NamedTuple):
    """Of ``g(z) = phi(a z + b) - phi(b)`` and its derivatives in ``a z + b``; arrays alike."""

    g: Array
    gg: Array
    dd: Array
    ss: Array
    gdz: Array
    dz: Array


def _conditions(method: str, amount: float, a: Array, of: _Moments) -> tuple[Array, Array, Array]:
    """Errors of the two conditions left, over the nonlinearity asked for, and ``d + phi(b)``."""
    slopes = a * a * of.dd
    if method == "dks":
        variance = of.gg - of.g**2
        ratio, shift = slopes / variance / amount, -of.g
        length = a * (of.gdz + shift * of.dz) / variance
        return (ratio - 1) / (amount - 1), (length - 1) / (amount - 1), shift
    ratio = a * a * of.ss / of.dd / amount
    shift = (a * of.dd - of.gdz) / of.dz
    square = of.gg + 2 * shift * of.g + shift**2
    return ratio - 1, (square / slopes - 1) / amount, shift


@lru_cache(maxsize=32)
def _table(base: Activation) -> tuple[Array, Array, _Moments]:
    """Moments on a grid of input scales and shifts, in units of the function's own length."""
    unit = base.scale / 2 if math.isfinite(base.scale) else 1.0
    a, b = (unit * _SCALES)[:, None], (unit * _SHIFTS)[None, :]
    x, w = np.polynomial.legendre.leggauss(256 if base.breaks else 64)
    z, weight = 8.0 * x, 8.0 * w * np.exp(-32.0 * x * x) / math.sqrt(2 * math.pi)
    u = a[..., None] * z + b[..., None]
    g, d, s = base(u) - base(b)[..., None], base.derivative(u), base.second_derivative(u)
    products = (g, g * g, d * d, s * s, g * d * z, d * z)
    return a, b, _Moments(*(product @ weight for product in products))


def _starts(base: Activation, method: str, amount: float) -> list[tuple[float, float]]:
    """Approximate solutions ``(log input_scale, input_shift)`` off the grid.

    For each shift, the first scale at which the nonlinearity is reached; then the shifts at which
    the other condition changes sign.
    """
    a, b, moments = _table(base)
    with np.errstate(all="ignore"):
        ratio, length, _ = _conditions(method, amount, a, moments)
        crossed = (ratio[:-1] < 0) & (ratio[1:] >= 0)
    columns = np.flatnonzero(crossed.any(axis=0))
    rows = crossed.argmax(axis=0)[columns]
    share = ratio[rows, columns] / (ratio[rows, columns] - ratio[rows + 1, columns])
    log_a = np.log(a[rows, 0]) + share * np.log(a[rows + 1, 0] / a[rows, 0])
    rest = (1 - share) * length[rows, columns] + share * length[rows + 1, columns]
    found = []
    for k in np.flatnonzero(np.sign(rest[:-1]) * np.sign(rest[1:]) < 0):
        if columns[k + 1] == columns[k] + 1:
            at = rest[k] / (rest[k] - rest[k + 1])
            shift = (1 - at) * b[0, columns[k]] + at * b[0, columns[k + 1]]
            found.append((float((1 - at) * log_a[k] + at * log_a[k + 1]), float(shift)))
    return found


def _refined(
    base: Activation, method: str, amount: float, start: tuple[float, float]
) -> Transform | None:
    from scipy.optimize import root

    def moments_at(a: float, b: float) -> _Moments:
        return _moments(base, a, b, curved=method == "tat")

    def errors(point: Array) -> Array:
        a = np.array(math.exp(min(max(point[0], -50.0), 50.0)))
        with np.errstate(all="ignore"):
            first, second, _ = _conditions(method, amount, a, moments_at(float(a), point[1]))
        both = np.array([first, second], dtype=float)
        return np.asarray(np.nan_to_num(both, nan=1e6, posinf=1e6, neginf=-1e6), dtype=float)

    answer = root(errors, np.array(start), method="hybr", options={"xtol": 1e-13})
    if np.abs(errors(answer.x)).max() > SOLVED:
        return None
    a, b = math.exp(answer.x[0]), float(answer.x[1])
    moments = moments_at(a, b)
    shift = float(_conditions(method, amount, np.array(a), moments)[2])
    square = float(moments.gg + 2 * shift * moments.g + shift**2)
    return Transform(a, b, 1 / math.sqrt(square), shift - float(base(b)))


def _moments(base: Activation, a: float, b: float, curved: bool) -> _Moments:
    shape, middle = affine(base, a, b, 1.0, 0.0).shape, float(base(b))
    seen: dict[bytes, tuple[Array, Array, Array]] = {}

    def parts(z: Array) -> tuple[Array, Array, Array]:
        """``phi(a z + b) - phi(b)`` and the derivatives there, once for each set of nodes."""
        key = z.tobytes()
        if key not in seen:
            u = a * z + b
            bend = base.curvature(u) if curved else np.zeros_like(u)
            seen[key] = base.function(u) - middle, base.slope(u), bend
        return seen[key]

    def mean(product: Callable[[Array, Array, Array, Array], Array]) -> Array:
        return expectation(lambda z: product(z, *parts(z)), 1.0, shape)

    return _Moments(
        mean(lambda z, g, d, s: g),
        mean(lambda z, g, d, s: g * g),
        mean(lambda z, g, d, s: d * d),
        mean(lambda z, g, d, s: s * s),
        mean(lambda z, g, d, s: g * d * z),
        mean(lambda z, g, d, s: d * z),
    )


def _preference(transform: Transform) -> tuple[float, bool]:
    gain = transform.input_scale * transform.output_scale
    return float(f"{gain:.6g}"), transform.input_shift < 0

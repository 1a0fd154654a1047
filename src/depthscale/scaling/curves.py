"""Curves of one variable that are fitted: a few nonlinear parameters, the amplitudes eliminated.

At given nonlinear parameters a curve is linear in its amplitudes. They are solved for, and only the
others are searched (variable projection: Golub and Pereyra 1973, SIAM J. Numer. Anal. 10, 413).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from depthscale.answers import InputError
from depthscale.scaling.series import Array, Series, Solution
from depthscale.theory.records import as_number

SLOWEST, FASTEST = 0.05, 5.0
"""Range in which the power of a correction, omega, is looked for."""

STARTS = (0.3, 1.0, 2.5)
"""Of omega."""

STEEPEST = 60.0
"""``|exponent|`` that is looked for."""

_FAR = 30.0
"""``|log|`` of the odds of a parameter between its bounds, where it is at one of them."""

_LARGEST = 200.0
"""``|log|`` of what a correction may change by over the points."""

EDGE = 1e-3
"""Share of its range within which a parameter counts as stuck at the end."""


def checked_omega(omega: float, x: Array) -> float:
    """A power of a correction, above 0, that float64 holds over ``x`` [n], which ascends."""
    omega = as_number("omega", omega)
    most = _LARGEST / max(math.log(x[-1] / x[0]), 1e-9)
    if not 0 < omega <= most:
        raise InputError(f"omega is {omega:g}; expected a power above 0, up to {most:.3g} here")
    return omega


class Curve(NamedTuple):
    """A family of curves over ``u = x/scale``.

    ``design(u, theta)`` is the matrix [n, k] that multiplies the amplitudes; ``slope(u, theta,
    amplitudes)`` [n, len(theta)] is the derivative of the curve by theta. ``starts`` hold one theta
    each; ``low`` and ``high`` bound it.
    """

    name: str
    nonlinear: tuple[str, ...]
    linear: tuple[str, ...]
    design: Callable[[Array, Array], Array]
    slope: Callable[[Array, Array, Array], Array]
    starts: Callable[[Array, Array], Sequence[tuple[float, ...]]]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def parameters(self) -> int:
        """Parameters of both kinds."""
        return len(self.nonlinear) + len(self.linear)


class Fitted(NamedTuple):
    """A curve at its best parameters; ``scale`` is what x was divided by.

    Parameters of ``solution`` are the nonlinear ones, then the amplitudes.
    """

    curve: Curve
    theta: Array
    amplitudes: Array
    scale: float
    solution: Solution
    stuck: tuple[str, ...]

    @property
    def bic(self) -> float:
        """``chi2 + parameters log(points)``."""
        points = self.solution.dof + self.curve.parameters
        return self.solution.chi2 + self.curve.parameters * math.log(points)

    def value(self, name: str) -> float:
        """A parameter."""
        if name in self.curve.nonlinear:
            return float(self.theta[self.curve.nonlinear.index(name)])
        return float(self.amplitudes[self.curve.linear.index(name)])

    def place(self, name: str) -> int:
        """Its place in ``solution``."""
        return (*self.curve.nonlinear, *self.curve.linear).index(name)

    def error(self, name: str) -> float:
        """Half width of its 68.3 % interval."""
        return float(self.solution.errors[self.place(name)])

    def __call__(self, x: Array) -> Array:
        """The curve."""
        return np.asarray(self.curve.design(x / self.scale, self.theta) @ self.amplitudes)


def fit_curve(points: Series, curve: Curve, start: Array | None = None) -> Fitted:
    """The curve of least squares through the points, at least as many as it has parameters.

    ``start`` replaces the starts of the family.
    """
    scale = float(np.exp(np.log(points.x).mean()))
    u = points.x / scale
    whitener = points.whitener(curve.parameters)
    goal = whitener @ points.y

    last: dict[bytes, tuple[Array, Array, Array]] = {}

    def solved(theta: Array) -> tuple[Array, Array, Array]:
        """``solve``, which value and slope ask for at the same place."""
        key = theta.tobytes()
        if key not in last:
            last.clear()
            last[key] = solve(theta)
        return last[key]

    def solve(theta: Array) -> tuple[Array, Array, Array]:
        """Amplitudes, whitened residual, orthonormal basis of the whitened design."""
        matrix = whitener @ curve.design(u, theta)
        size = np.sqrt((matrix**2).sum(axis=0))
        basis, upper = np.linalg.qr(matrix / size)
        part = basis.T @ goal
        found = np.linalg.lstsq(upper, part, rcond=1e-13)[0] / size
        return found, goal - basis @ part, basis

    def slope(theta: Array) -> Array:
        """Derivative of the residual, without the turn of its basis (Kaufman 1975, BIT 15, 49)."""
        found, _, basis = solved(theta)
        matrix = whitener @ curve.slope(u, theta, found)
        return np.asarray(basis @ (basis.T @ matrix) - matrix)

    starts = [tuple(start)] if start is not None else curve.starts(u, points.y)
    theta = _search(curve, starts, lambda theta: solved(theta)[1], slope)
    found = solved(theta)[0]
    design = curve.design(u, theta)
    jacobian = np.column_stack([curve.slope(u, theta, found), design])
    solution = points.solution(jacobian, points.y - design @ found)
    return Fitted(curve, theta, found, scale, solution, _stuck(curve, theta))


def _search(
    curve: Curve,
    starts: Sequence[tuple[float, ...]],
    rest: Callable[[Array], Array],
    slope: Callable[[Array], Array],
) -> Array:
    """The best theta over all starts."""
    if not curve.nonlinear:
        return np.zeros(0)
    from scipy.optimize import least_squares

    low, high = np.array(curve.low), np.array(curve.high)

    def inside(free: Array) -> Array:
        """Theta between its bounds, so that the search needs none and is fast."""
        return np.asarray(low + (high - low) / (1 + np.exp(-np.clip(free, -_FAR, _FAR))))

    def turned(free: Array) -> Array:
        theta = inside(free)
        return np.asarray(slope(theta) * ((theta - low) * (high - theta) / (high - low)))

    best = None
    for first in starts:
        share = np.clip((np.array(first) - low) / (high - low), 1e-6, 1 - 1e-6)
        found = least_squares(
            lambda free: rest(inside(free)),
            np.log(share / (1 - share)),
            turned,
            method="lm",
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-14,
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return inside(best.x)


def _stuck(curve: Curve, theta: Array) -> tuple[str, ...]:
    reach = [EDGE * (high - low) for low, high in zip(curve.low, curve.high, strict=True)]
    return tuple(
        name
        for name, value, low, high, near in zip(
            curve.nonlinear, theta, curve.low, curve.high, reach, strict=True
        )
        if value - low < near or high - value < near
    )


# Power laws: y = A x^-e times a correction -----------------------------------------------------


def _exponent(u: Array, y: Array) -> float:
    """Slope of the middle of the points in the logarithm, of those above 0."""
    above = y > 0
    if above.sum() < 2:
        return 0.0
    return float(-np.polyfit(np.log(u[above]), np.log(y[above]), 1)[0])


PLAIN = Curve(
    "none",
    ("exponent",),
    ("amplitude",),
    lambda u, t: u[:, None] ** -t[0],
    lambda u, t, a: (-np.log(u) * a[0] * u ** -t[0])[:, None],
    lambda u, y: [(_exponent(u, y),)],
    (-STEEPEST,),
    (STEEPEST,),
)


def with_power(omega: float | None = None) -> Curve:
    """``u^-e (A + B u^-omega)``, at a given omega or with one that is searched."""
    if omega is not None:
        fixed = omega
        return PLAIN._replace(
            name="power",
            linear=("amplitude", "correction"),
            design=lambda u, t: np.column_stack([u ** -t[0], u ** -(t[0] + fixed)]),
            slope=lambda u, t, a: (
                -np.log(u) * u ** -t[0] * (a[0] + a[1] * u**-fixed)
            )[:, None],
        )  # fmt: skip
    return Curve(
        "power",
        ("exponent", "omega"),
        ("amplitude", "correction"),
        lambda u, t: np.column_stack([u ** -t[0], u ** -(t[0] + t[1])]),
        lambda u, t, a: np.column_stack([
            -np.log(u) * u ** -t[0] * (a[0] + a[1] * u ** -t[1]),
            -np.log(u) * a[1] * u ** -(t[0] + t[1]),
        ]),
        lambda u, y: [(_exponent(u, y), omega) for omega in STARTS],
        (-STEEPEST, SLOWEST),
        (STEEPEST, FASTEST),
    )  # fmt: skip


def with_logarithm(reference: float) -> Curve:
    """``A u^-e log(u/reference)^b``, reference below all u."""

    def slowly(u: Array) -> Array:
        return np.asarray(np.log(u / reference))

    return Curve(
        "logarithmic",
        ("exponent", "log_power"),
        ("amplitude",),
        lambda u, t: (u ** -t[0] * slowly(u) ** t[1])[:, None],
        lambda u, t, a: np.column_stack([
            -np.log(u) * a[0] * u ** -t[0] * slowly(u) ** t[1],
            np.log(slowly(u)) * a[0] * u ** -t[0] * slowly(u) ** t[1],
        ]),
        lambda u, y: [(_exponent(u, y), 0.0)],
        (-STEEPEST, -STEEPEST),
        (STEEPEST, STEEPEST),
    )  # fmt: skip


# Approaches to a limit: y = limit + what vanishes ----------------------------------------------


def _none(u: Array, t: Array, a: Array) -> Array:
    return np.zeros((u.size, 0))


def polynomial(degree: int) -> Curve:
    """``limit + B/u + C/u^2 + ...`` of this degree."""
    names = ("limit", *(f"inverse{k}" for k in range(1, degree + 1)))
    return Curve(
        ("constant", "1/x", "1/x, 1/x^2", "1/x to 1/x^3")[degree],
        (),
        names,
        lambda u, t: np.column_stack([u ** -float(k) for k in range(degree + 1)]),
        _none,
        lambda u, y: [()],
    )


def power_approach(omega: float | None = None) -> Curve:
    """``limit + B u^-omega``, at a given omega or with one that is searched."""
    if omega is not None:
        fixed = omega
        return polynomial(0)._replace(
            name="power",
            linear=("limit", "correction"),
            design=lambda u, t: np.column_stack([np.ones_like(u), u**-fixed]),
        )
    return Curve(
        "power",
        ("omega",),
        ("limit", "correction"),
        lambda u, t: np.column_stack([np.ones_like(u), u ** -t[0]]),
        lambda u, t, a: (-np.log(u) * a[1] * u ** -t[0])[:, None],
        lambda u, y: [(omega,) for omega in STARTS],
        (SLOWEST,),
        (FASTEST,),
    )


def logarithmic_approach(reference: float) -> Curve:
    """``limit + B/log(u/reference)``, reference below all u."""
    return polynomial(0)._replace(
        name="logarithmic",
        linear=("limit", "correction"),
        design=lambda u, t: np.column_stack([np.ones_like(u), 1 / np.log(u / reference)]),
    )

"""Gaussian integrals of piecewise-smooth functions, and the gap that never cancels.

Everything the infinite-width theory needs is an expectation over one Gaussian ``u`` or over a pair
``(u, v)``. Two facts make plain Gauss-Hermite rules useless here: activations have kinks, and
``eps' = 1 - c'`` computed as a difference loses every digit as ``eps -> 0``. The rule below

- writes the pair as ``u, v = sqrt(q) (sqrt(1 - eps/2) s +- sqrt(eps/2) t)`` with independent
  standard normals ``s, t``, so that the gap ``E[(f(u) - f(v))^2]/2`` is a sum of squares;
- splits the inner integral over ``s`` at every place where ``f`` breaks, for ``u`` and for ``v``,
  and the outer one over ``t`` where two such places cross;
- grades the nodes towards those places on the length ``scale`` over which ``f`` varies, with the
  map ``x = sinh(Y y)``: a pole of ``f`` at distance ``scale`` from the axis stays at distance
  ``pi/2`` in ``y`` however large ``q`` is;
- for nearly equal ``u`` and ``v`` integrates ``f'`` between them instead of subtracting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
PairFunction = Callable[[Array, Array], Array]

REACH = 8.6
"""Standard deviations that the rules cover; the density beyond it is below 1e-16."""

_CHUNK = 1 << 15
"""Integrand evaluations held at once: eight arrays of this length fit a second-level cache."""


@dataclass(frozen=True)
class Shape:
    """Where a function is not analytic, and how fast it varies elsewhere.

    Parameters
    ----------
    breaks:
        Places where the function or one of its derivatives jumps.
    scale:
        Length over which the analytic pieces vary near ``centres`` (distance of the nearest
        complex pole, about); ``inf`` for piecewise polynomials.
    centres:
        Places around which a smooth function varies; away from them it may vary only on
        lengths that grow in proportion to the distance.
    symmetric:
        Whether the function is even or odd.
    density:
        Nodes relative to what a function with poles at distance ``scale`` needs. A function that
        approaches its limits like a Gaussian grows as fast off the real axis and wants more.
    cusped:
        Whether a derivative is infinite at a break: nodes then crowd towards all marks, down to
        ``exp(-200)`` of a cell for one variable and ``exp(-40)`` for pairs. Relative accuracy is
        about 1e-10 for ``f``. What lies nearer than 2e-16 of the place is lost to float64:
        ``E[f'^2]`` of ``|x - x_0|^alpha``, ``x_0 != 0``, misses about ``1e-16^(2 alpha - 1)``
        of itself (``Kernel.slope_moment`` puts it back). A pair takes some milliseconds.
    """

    breaks: tuple[float, ...] = ()
    scale: float = math.inf
    centres: tuple[float, ...] = (0.0,)
    symmetric: bool = False
    density: float = 1.0
    cusped: bool = False

    @property
    def crowd(self) -> float:
        """The density that the rules use: next to cusps alone there are nodes enough."""
        return 1.0 if self.cusped and math.isinf(self.scale) else self.density


def expectation(f: Function, q: ArrayLike, shape: Shape = Shape()) -> Array:
    """``E[f(u)]`` for ``u ~ N(0, q)``.

    Parameters
    ----------
    f:
        Vectorised function of a float64 array.
    q:
        Variances, any shape, ``q >= 0``.
    shape:
        Breaks and scale of ``f``; relative accuracy is about 1e-13 when they are right.

    Returns
    -------
    Array of the shape of ``q``.
    """
    q = np.asarray(q, dtype=float)
    if not np.all(q >= 0):
        raise InputError("a Gaussian expectation needs variances q >= 0")
    flat = q.ravel()
    out = np.empty(flat.size)
    positive = flat > 0
    if not positive.all():
        out[~positive] = f(np.zeros(1))[0]
    sigma = np.sqrt(flat)
    grade = _grade(sigma, shape.scale)
    for level in np.unique(grade[positive]):
        index = np.flatnonzero(positive & (grade == level))
        x, weight = _nodes(sigma[index], level, shape)
        out[index] = np.einsum("ij,ij->i", f(x), weight)
    return out.reshape(q.shape)


def nodes(q: float, shape: Shape = Shape()) -> tuple[Array, Array]:
    """The rule behind ``expectation`` at one ``q > 0``: places ``x`` and weights, both [node].

    ``E[f(u)] = weight @ f(x)`` for ``u ~ N(0, q)``; one rule serves all moments of a function.

    >>> x, weight = nodes(2.0)
    >>> round(float(weight @ x**4), 10)
    12.0
    """
    if not 0 < q < math.inf:
        raise InputError(f"q is {q!r}; a Gaussian rule needs a finite variance q > 0")
    sigma = np.array([math.sqrt(q)])
    x, weight = _nodes(sigma, int(_grade(sigma, shape.scale)[0]), shape)
    return x[0], weight[0]


def _nodes(sigma: Array, grade: int, shape: Shape) -> tuple[Array, Array]:
    """Places and weights, each (deviations, nodes), for deviations of one grade."""
    column = sigma[:, None]
    marks = np.array(shape.breaks + (shape.centres or (0.0,)))
    rule = _graded(_CUSP if shape.cusped else grade, shape.crowd, 8)
    s, weight = _cells(np.sort(marks / column, axis=-1), -REACH, REACH, rule)
    x = s * column
    if shape.cusped:
        _off_the_breaks(x, np.abs(x), shape.breaks)
    return x, _density(s) * weight


def pair_expectation(
    integrand: PairFunction,
    q1: ArrayLike,
    q2: ArrayLike,
    eps: ArrayLike,
    shape: Shape = Shape(),
) -> Array:
    """``E[g(u, v)]``, variances ``q1, q2``, correlation ``1 - eps``, zero means.

    ``g(u, v)`` may break where ``u`` or ``v`` passes a break of ``shape``. Arguments broadcast.
    """
    pairs = _Pairs.of(q1, q2, eps)
    for index, layout in pairs.layouts(shape, swappable=False):
        u, v, weight, _ = pairs.points(index, layout, shape)
        pairs.out[index] = np.einsum("ijk,ijk->i", integrand(u, v), weight)
    return pairs.out.reshape(pairs.shape)


def gap(
    f: Function,
    q1: ArrayLike,
    eps: ArrayLike,
    shape: Shape = Shape(),
    *,
    q2: ArrayLike | None = None,
    derivative: Function | None = None,
) -> Array:
    r"""``E[(f(u) - f(v))^2]/2``, which is ``E[f(u)^2] - E[f(u) f(v)]`` when ``q1 = q2``.

    Relative error at most 1e-10 for ``eps`` from 1 to 1e-12 and ``q`` from 1e-4 to 1e4 (tested
    against forty-digit arithmetic); ``eps`` may go up to 2.

    Parameters
    ----------
    f, shape:
        The function, vectorised over float64 arrays, and where it breaks.
    q1, q2:
        Variances of ``u`` and ``v``; ``q2`` defaults to ``q1``.
    eps:
        One minus the correlation of ``u`` and ``v``, in ``[0, 2]``.
    derivative:
        ``f'`` away from breaks. With it the relative accuracy holds for arbitrarily small
        ``eps``; without it float64 subtraction costs digits below ``eps ~ 1e-8``.

    Returns
    -------
    Array, broadcast over ``q1, q2, eps``.
    """
    pairs = _Pairs.of(q1, q1 if q2 is None else q2, eps)
    for index, layout in pairs.layouts(shape, swappable=True):
        u, v, weight, half = pairs.points(index, layout, shape)
        if derivative is not None and layout.close:
            difference = _close_difference(f, derivative, u, v, half, shape)
        else:
            difference = f(u) - f(v)
        difference *= difference
        pairs.out[index] = 0.5 * np.einsum("ijk,ijk->i", difference, weight)
    return pairs.out.reshape(pairs.shape)


def _close_difference(
    f: Function, derivative: Function, u: Array, v: Array, half: Array, shape: Shape
) -> Array:
    """``f(u) - f(v)`` as the integral of ``f'``; directly where a break lies between the two.

    ``half = (u - v)/2``, which subtraction would give only to the precision of ``u``.
    """
    offset = half * (1 / math.sqrt(3.0))
    middle = v + half
    if shape.cusped:
        # near a cusp f' varies over the distance to it: two nodes err by (half/distance)^4/100
        distance = np.abs(middle[..., None] - np.array(shape.breaks)).min(axis=-1)
        far = 3e-3 * np.minimum(distance, shape.scale) > np.abs(half)
        difference = f(u) - f(v)
        middle, offset = middle[far], np.broadcast_to(offset, far.shape)[far]
        both = derivative(middle - offset) + derivative(middle + offset)
        difference[far] = both * np.broadcast_to(half, far.shape)[far]
        return difference
    difference = derivative(middle - offset)
    difference += derivative(middle + offset)
    difference *= half
    for place in shape.breaks:
        between = (u > place) != (v > place)
        difference[between] = f(u[between]) - f(v[between])
    return difference


@dataclass(frozen=True)
class PairRule:
    """Nodes for one pair, and the two independent normals behind it.

    ``E[g(s, t)] = sum weight g`` for ``u, v = sqrt(q1), sqrt(q2) (sqrt(1 - eps/2) s +- sqrt(eps/2)
    t)``, with the cells of the rule ending where ``u`` or ``v`` passes a break of ``shape``. All
    arrays are [node].

    >>> rule = PairRule.of(1.0, 4.0, 0.3)
    >>> [round(float(rule.weight @ x), 9) for x in (rule.u**2, rule.v**2, rule.u * rule.v)]
    [1.0, 4.0, 1.4]
    """

    shape: Shape
    weight: Array
    s: Array
    t: Array
    u: Array
    v: Array
    half: Array  # (u - v)/2, where the variances are equal
    close: bool  # whether they are, and u - v is small on the scale of the function

    @classmethod
    def of(cls, q1: float, q2: float, eps: float, shape: Shape = Shape()) -> PairRule:
        """The rule of variances ``q1, q2 > 0`` and correlation ``1 - eps``, ``0 < eps < 2``."""
        pairs = _Pairs.of(q1, q2, eps)
        ((index, layout),) = pairs.layouts(shape, swappable=False)
        u, v, weight, half = pairs.points(index, layout, shape)
        half = np.broadcast_to(half, u.shape)
        sigma, alpha, beta = (float(x[0]) for x in (pairs.sigma1, pairs.alpha, pairs.beta))
        along, across = half / (sigma * beta), (u - half) / (sigma * alpha)
        s, t = (across, along) if layout.sign > 0 else (along, across)
        close = q1 == q2 and layout.sign > 0 and bool(_is_close(sigma, sigma * beta, shape))
        weight, s, t, u, v, half = (x.ravel() for x in (weight, s, t, u, v, half))
        return cls(shape, weight, s, t, u, v, half, close)

    def difference(self, f: Function, derivative: Function) -> Array:
        """``f(u) - f(v)``, as the integral of ``f'`` from ``v`` to ``u`` where they are close."""
        if not self.close:
            return f(self.u) - f(self.v)
        return _close_difference(f, derivative, self.u, self.v, self.half, self.shape)


def _off_the_breaks(x: Array, size: Array, breaks: tuple[float, ...]) -> None:
    """Move nodes that rounding put onto a break, where ``f'`` may be infinite, next to it.

    ``size`` is that of the terms whose sum ``x`` is.
    """
    for place in breaks:
        least = 2e-16 * (size + abs(place)) + 1e-300
        distance = x - place
        near = np.abs(distance) < least
        x[near] = place + np.copysign(np.broadcast_to(least, x.shape)[near], distance[near])


def _is_close(sigma: ArrayLike, spread: ArrayLike, shape: Shape) -> NDArray[np.bool_]:
    """Whether ``u - v``, of deviation 2 ``spread``, stays small on the scale of the function."""
    return np.asarray(np.multiply(spread, REACH) < 5e-3 * np.minimum(shape.scale, sigma))


# The pairs of one call ---------------------------------------------------------------------------


class _Layout(NamedTuple):
    """What decides the nodes of a pair; pairs with the same layout are integrated together."""

    sign: int  # v = sign sqrt(q2) (alpha s - beta t): -1 for eps > 1, so that beta <= alpha
    inner: int  # grade of the inner rule
    outer: int  # grade of the outer rule; -n for the half-line Gauss rule of n nodes
    crossings: int  # places where a break of u passes a break of v
    moving: bool  # marks follow the breaks of u and of v; otherwise they stay at the centres
    close: bool  # u - v is small on the scale of the function
    half_t: bool  # t -> -t is a symmetry
    half_s: bool  # s -> -s is a symmetry


class _Pairs:
    """The broadcast pairs of one call, flattened, and the results collected so far."""

    def __init__(self, sigma1: Array, sigma2: Array, eps: Array) -> None:
        self.shape = eps.shape
        self.sigma1, self.sigma2 = sigma1.ravel(), sigma2.ravel()
        self.sign = np.where(eps.ravel() <= 1, 1, -1)
        angle = np.where(self.sign > 0, eps.ravel(), 2 - eps.ravel())
        self.alpha, self.beta = np.sqrt(1 - angle / 2), np.sqrt(angle / 2)
        self.out = np.zeros(eps.size)

    @classmethod
    def of(cls, q1: ArrayLike, q2: ArrayLike, eps: ArrayLike) -> _Pairs:
        a, b, e = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (q1, q2, eps)))
        if not (np.all(a > 0) and np.all(b > 0) and np.all((e >= 0) & (e <= 2))):
            raise InputError("a Gaussian pair needs variances q > 0 and eps in [0, 2]")
        return cls(np.sqrt(a), np.sqrt(b), e)

    def layouts(
        self, shape: Shape, *, swappable: bool
    ) -> Iterator[tuple[NDArray[np.intp], _Layout]]:
        """Yield the pairs by layout, in portions that fit the cache.

        ``swappable`` says that the integrand does not change when ``u`` and ``v`` are swapped.
        """
        sigma = np.maximum(self.sigma1, self.sigma2)
        spread = sigma * self.beta
        equal = (self.sigma1 == self.sigma2) & swappable
        crossings = np.sum(self._crossings(slice(None), shape) < REACH, axis=-1)
        wide = spread * REACH > shape.scale / 2
        # in t the inner integral is even and smooth, or has a |t|^3 where a break lies
        simple = -16 if shape.breaks else -12
        within = _grade(sigma, shape.scale)
        across = np.where(wide | (crossings > 0), _grade(spread, shape.scale), simple)
        if shape.cusped:
            within = across = np.full_like(within, _CUSP_PAIR)
        close = equal & (self.sign > 0) & _is_close(sigma, spread, shape)
        key = np.stack(
            [
                self.sign,
                within,
                across,
                crossings,
                wide | (len(shape.breaks) > 0),
                close,
                equal & ((self.sign > 0) | shape.symmetric),
                equal & shape.symmetric,
            ],
            axis=-1,
        )
        kinds, member = np.unique(key, axis=0, return_inverse=True)
        for number, row in enumerate(kinds):
            sign, inner, outer, crossing, *flags = (int(x) for x in row)
            layout = _Layout(sign, inner, outer, crossing, *map(bool, flags))
            index = np.flatnonzero(member.ravel() == number)
            nodes = self.points(index[:1], layout, shape)[2].size
            portions = min(index.size, math.ceil(index.size * nodes / _CHUNK))
            for portion in np.array_split(index, portions):
                yield portion, layout

    def _crossings(self, index: NDArray[np.intp] | slice, shape: Shape) -> Array:
        """``|t|`` where a break of ``u`` passes a break of ``v``, ascending; ``inf`` for none."""
        place = np.array(shape.breaks)
        ahead = place[:, None] / self.sigma1[index, None, None]
        behind = self.sign[index, None, None] * place / self.sigma2[index, None, None]
        distance: Array = np.abs(ahead - behind).reshape(len(ahead), -1)
        if distance.shape[1] == 0:
            return distance
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(distance > 0, distance / (2 * self.beta[index, None]), np.inf)
        t = np.sort(t, axis=-1)
        t[:, 1:][t[:, 1:] == t[:, :-1]] = np.inf
        return np.sort(t, axis=-1)

    def points(
        self, index: NDArray[np.intp], layout: _Layout, shape: Shape
    ) -> tuple[Array, Array, Array, Array]:
        """``u``, ``v``, weights, each (pairs, outer, inner); for equal variances ``(u - v)/2``."""
        column = (index, None, None)
        t, t_weight = self._outer(index, layout, shape)
        shift = (self.beta[index, None] * t)[..., None]
        if layout.moving:
            place = np.array(shape.breaks + shape.centres)
            ahead = (place / self.sigma1[column] - shift) / self.alpha[column]
            behind = (layout.sign * place / self.sigma2[column] + shift) / self.alpha[column]
            marks = np.concatenate([ahead, behind], axis=-1)
        else:
            marks = np.array(shape.centres) / self.sigma1[column]
        if layout.inner == 0 and not layout.half_s:
            marks = np.concatenate([marks, np.zeros((*marks.shape[:-1], 1))], axis=-1)
        marks.sort(axis=-1)
        if layout.half_s:
            marks = marks[..., marks.shape[-1] // 2 :]
        rule = _graded(layout.inner, shape.crowd)
        s, weight = _cells(marks, 0.0 if layout.half_s else -REACH, REACH, rule)
        weight = weight * _density(s) * (2 * t_weight if layout.half_s else t_weight)[..., None]
        s = s * self.alpha[column]
        u, v = s + shift, s - shift
        u *= self.sigma1[column]
        v *= layout.sign * self.sigma2[column]
        if shape.cusped:
            for x, sigma in ((u, self.sigma1[column]), (v, self.sigma2[column])):
                _off_the_breaks(x, np.abs(shift) * sigma, shape.breaks)
        return u, v, weight, shift * self.sigma1[column]

    def _outer(self, index: NDArray[np.intp], layout: _Layout, shape: Shape) -> tuple[Array, Array]:
        """Nodes ``t`` and weights, each (pairs, outer nodes) or (1, outer nodes)."""
        if layout.outer < 0:
            t, weight = (x[None] for x in _half_normal(-layout.outer))
        else:
            marks = self._crossings(index, shape)[:, : layout.crossings]
            marks = np.concatenate([np.zeros((len(index), 1)), marks], axis=-1)
            t, weight = _cells(marks, 0.0, REACH, _graded(layout.outer, shape.crowd, 4))
            weight = weight * 2 * _density(t)
        if layout.half_t:
            return t, weight
        return np.concatenate([t, -t], axis=-1), np.concatenate([weight, weight], axis=-1) / 2


# Nodes --------------------------------------------------------------------------------------------

# (reach Y of the sinh map, nodes a cell) by grade. Gauss-Legendre in y on [0, Y] with a pole at
# imaginary distance pi/2 converges like rho^(-2n), rho = b + sqrt(b^2 + 1), b = pi/Y.
_GRADES = (
    (0.0, 20), (1.4, 20), (2.4, 24), (3.4, 30), (4.4, 34), (5.6, 40), (6.8, 46), (9.2, 52),
    (12.0, 64), (17.0, 84),
)  # fmt: skip

# Towards a cusp every length matters down to what its power leaves of the integral: exp(-Y) of a
# cell. Nothing but the cusp itself is nearer than pi in log(distance), so half the nodes do.
_CUSP, _CUSP_PAIR = len(_GRADES), len(_GRADES) + 1
_RULES = (*_GRADES, (200.0, 640), (40.0, 100))


class _Rule(NamedTuple):
    """A rule on [0, 1] that crowds towards 0 when it is graded."""

    nodes: Array
    weights: Array
    graded: bool


def _grade(sigma: Array, scale: float) -> NDArray[np.intp]:
    """Index into ``_GRADES`` for integrals that reach ``REACH sigma`` around a centre."""
    if math.isinf(scale):
        return np.zeros(sigma.shape, dtype=np.intp)
    limits = [reach for reach, _ in _GRADES[1:-1]]
    return 1 + np.searchsorted(limits, np.arcsinh(REACH * sigma / scale))


@cache
def _graded(grade: int, density: float, extra: int = 0) -> _Rule:
    reach, n = _RULES[grade]
    y, w = _legendre(round(n * density if reach else n) + extra)
    if reach == 0:
        return _Rule(y, w, graded=False)
    top = math.sinh(reach)
    return _Rule(np.sinh(reach * y) / top, w * np.cosh(reach * y) * (reach / top), graded=True)


@cache
def _legendre(n: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(n)
    return (x + 1) / 2, w / 2


@cache
def _half_normal(n: int) -> tuple[Array, Array]:
    """Gauss rule of the half-line density ``2 exp(-t^2/2)/sqrt(2 pi)``, ``t > 0`` (Lanczos)."""
    y, w = _legendre(40)
    left = np.linspace(0.0, 13.0, 101)[:-1, None]
    x = (left + 0.13 * y).ravel()
    mass = np.tile(0.13 * w, 100) * 2 * _density(x)
    diagonal, off = np.empty(n), np.empty(n)
    before, now = np.zeros_like(x), np.full_like(x, 1 / math.sqrt(mass.sum()))
    for k in range(n):
        diagonal[k] = mass @ (x * now * now)
        rest = (x - diagonal[k]) * now - (off[k - 1] * before if k else 0.0)
        off[k] = math.sqrt(mass @ (rest * rest))
        before, now = now, rest / off[k]
    nodes, vectors = np.linalg.eigh(
        np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1)
    )
    return nodes, mass.sum() * vectors[0] ** 2


def _density(s: Array) -> Array:
    """Standard normal density."""
    return np.exp(-0.5 * s * s) * (1 / math.sqrt(2 * math.pi))


def _cells(marks: Array, low: float, high: float, rule: _Rule) -> tuple[Array, Array]:
    """Nodes and weights on ``[low, high]`` split at ``marks``, crowding towards them.

    ``marks``: (..., m), ascending. Returns two arrays (..., nodes). An ungraded rule has one cell
    between neighbouring marks; a graded one has two, one growing out of each mark.
    """
    marks = np.clip(marks, low, high)
    ends = np.full((*marks.shape[:-1], 1), 1.0)
    if rule.graded:
        between = 0.5 * (marks[..., 1:] + marks[..., :-1])
        start = np.concatenate([marks, marks], axis=-1)
        stop = np.concatenate([between, high * ends, low * ends, between], axis=-1)
        if low == 0 and marks.shape[-1] == 1 and not marks.any():
            start, stop = start[..., :1], stop[..., :1]  # nothing lies below the only mark
    else:
        start = np.concatenate([low * ends, marks], axis=-1)
        stop = np.concatenate([marks, high * ends], axis=-1)
    length = stop - start
    nodes = start[..., None] + length[..., None] * rule.nodes
    weights = np.abs(length)[..., None] * rule.weights
    return nodes.reshape(*marks.shape[:-1], -1), weights.reshape(*marks.shape[:-1], -1)

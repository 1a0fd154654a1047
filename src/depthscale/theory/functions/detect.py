"""Find out what the theory needs to know of a callable: breaks, scale, symmetry, derivatives.

A function is analytic on an interval when its Chebyshev coefficients fall to rounding error, so
bisecting every interval where they do not corners each break: a jump or a kink down to rounding
distance, a jump in a higher derivative until it no longer matters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthscale.answers import InputError
from depthscale.theory.functions.cusps import agree, cusp_part, measured_cusps, stated_cusps
from depthscale.theory.functions.function import Activation, Parity
from depthscale.theory.functions.singularity import Singularity
from depthscale.theory.functions.vetting import refuse_hopeless, vetted
from depthscale.theory.gaussian import Array, Function

_NODES = 16
_TOLERANCE = 4e-14
_REACH = 40.0  # breaks are searched in [-40, 40]
_FAR = 1000.0  # scales are searched up to here
_STEP = 0.012  # of differences, over the scale
_MOST = 24  # more breaks or centres than this is noise or oscillation


def examine(
    f: Function,
    slope: Function | None,
    breaks: tuple[float, ...] | None,
    name: str,
    cusps: Sequence[Any] | None = None,
) -> Activation:
    """An ``Activation`` for the callable ``f``; what is not stated is detected.

    Cusps are looked for at the breaks, up to exponent 3; ``cusps`` states them instead.

    Raises
    ------
    InputError
        Not elementwise, not real and finite, not resolvable in float64, with infinite Gaussian
        moments, or with an infinite slope or curvature that is no power of the distance.
    """
    f = vetted(f, name)
    refuse_hopeless(f, name)
    evidence = {"breaks": "stated" if breaks is not None else "detected on [-40, 40]"}
    places = (
        tuple(sorted(float(b) for b in breaks)) if breaks is not None else _find_breaks(f, name)
    )
    stated = stated_cusps(cusps or (), name)
    places = _with_cusps(places, stated)
    room = dict(zip(places, _room(places), strict=True))
    jumps = tuple(x for x in places if _jumps(f, x, room[x]))
    if cusps is None:
        places, stated, evidence["cusps"] = _find_cusps(f, room, jumps, name)
    else:
        evidence["cusps"] = "stated"
        for cusp in stated:
            agree(cusp, f, room[cusp.place], name)
    scale, centres = _scale(f, places, name, bool(stated))
    if len(centres) > _MOST // 2:
        evidence["quadrature"] = "many features: resolved for |x| <= 40, so q up to about 20"
    evidence["slope"] = "stated or automatic" if slope else "finite differences (about 1e-12)"
    steep = tuple(c.place for c in stated)
    given = slope is not None
    slope = (
        vetted(slope, f"derivative of {name}", avoid=steep)
        if slope is not None
        else difference(f, places, scale, stated)
    )
    error = _rounding(slope if given else f, bool(places), scale, 1 if given else 2)
    # differences of differences are more exact and nine times slower: too slow where cusps need
    # many nodes
    twice = given or not stated
    curvature: Function = _zero
    if not stated and _piecewise_polynomial(f, places, 1):
        error = 0.0
    elif twice:
        curvature = difference(slope, places, scale, stated, 2, 1)
    else:
        curvature = difference(f, places, scale, stated, 2)
    evidence["parity, degree"] = "detected at 40 points"
    return Activation(
        name,
        f,
        slope,
        curvature,
        breaks=tuple(p for p in places if p not in jumps),
        jumps=jumps,
        cusps=stated,
        scale=scale,
        centres=centres,
        density=1.4,  # it may approach its limits like a Gaussian
        curvature_error=error,
        parity=_parity(f),
        degree=_degree(f),
        evidence=evidence,
    )


def _unresolved(f: Function, left: Array, right: Array, overlap: float) -> NDArray[np.bool_]:
    """Which intervals are not resolved by ``_NODES`` Chebyshev nodes."""
    angle = (np.arange(_NODES) + 0.5) * math.pi / _NODES
    x = (left + right)[:, None] / 2 + (0.5 + overlap) * (right - left)[:, None] * np.cos(angle)
    values = f(x)
    transform = np.cos(np.outer(angle, np.arange(_NODES - 3, _NODES))) * (2 / _NODES)
    tail = np.abs(values @ transform).max(axis=1)
    # tails that are tiny against f near 0 don't matter: a few per cent of its usual size count
    usual = 0.1 * np.abs(f(np.linspace(-3, 3, 41))).max()
    size = np.maximum(np.abs(values).max(axis=1), usual)
    # and the rounding of x moves f by its slope
    size += 0.02 * np.abs(x).max(axis=1) * np.ptp(values, axis=1) / (right - left)
    with np.errstate(invalid="ignore"):
        return np.asarray(~(tail <= _TOLERANCE * size + 1e-300))


def _bisect(
    f: Function, edges: Array, smallest: float, overlap: float = 0.0
) -> tuple[Array, Array]:
    """Ends of the intervals left after bisecting the unresolved ones down to ``smallest``."""
    left, right = edges[:-1], edges[1:]
    done: list[tuple[Array, Array]] = []
    while left.size:
        open_ = _unresolved(f, left, right, overlap) & (
            right - left > smallest * np.maximum(1.0, np.abs(left))
        )
        done.append((left[~open_], right[~open_]))
        left, right = left[open_], right[open_]
        middle = (left + right) / 2
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
        if left.size > 20_000:
            break
    done.append((left, right))
    ends = np.concatenate([d[0] for d in done]), np.concatenate([d[1] for d in done])
    order = np.argsort(ends[0])
    return ends[0][order], ends[1][order]


def _find_breaks(f: Function, name: str) -> tuple[float, ...]:
    # the offset keeps round numbers, where kinks like to sit, off the edges
    edges = np.linspace(-_REACH, _REACH, 24) + 0.0137 * math.pi
    # overlap: a kink between an end and the outermost node would go unseen
    left, right = _bisect(f, edges, 2e-13, overlap=0.025)
    found: dict[float, float] = {}
    for cluster in _clusters(right - left):
        for low, high, narrowest in _apart(left[cluster], right[cluster]):
            if high - low >= max(1e-9, 6 * narrowest):
                continue
            place, least = (low + high) / 2, 4 * (high - low)
            short = (round(place, digits) for digits in range(10 if narrowest < 1e-11 else 5))
            near = next((x for x in short if abs(place - x) < least), None)
            sure = near is not None or narrowest < 1e-11
            found[(place if near is None else near) + 0.0] = 0.0 if sure else least
    if len(found) > _MOST or left.size > 20_000:
        raise InputError(
            f"activation {name}: it does not resolve in double precision on [-40, 40] ({left.size}"
            f" intervals, {len(found)} breaks; at most {_MOST} are taken). It may be a staircase,"
            " oscillate without end, or compute in float32: compute it in float64, or state its"
            " breaks"
        )
    places = sorted(found)
    rooms = _room(tuple(places))
    return tuple(_polished(f, x, found[x], room) for x, room in zip(places, rooms, strict=True))


def _polished(f: Function, place: float, doubt: float, room: float) -> float:
    """The place of a jump ``J`` in curvature that is known within ``doubt`` only.

    Polynomials through nine points on either side, extrapolated, differ by ``J (x - x_0)^2/2``:
    their slopes agree at ``x_0``.
    """
    step = room / 12
    if not 0 < doubt < step:
        return place
    offsets = np.arange(9.0) + doubt / step
    ends = [
        np.array([f(place + side * step * offsets) @ _weights(side * offsets, n) for n in (1, 2)])
        for side in (-1.0, 1.0)
    ]
    slope, bend = ends[1] - ends[0]
    with np.errstate(all="ignore"):
        offset = float(-step * slope / bend)
    return place + offset if abs(offset) < doubt else place


def _apart(left: Array, right: Array) -> list[tuple[float, float, float]]:
    """Ends and least width of the short intervals around each place, of neighbouring intervals.

    Two places lie more than a hundred of the least width apart.
    """
    width = right - left
    some = np.flatnonzero(width <= 16 * width.min())
    cuts = np.flatnonzero(left[some[1:]] - right[some[:-1]] > 100 * width.min()) + 1
    groups = []
    for group in np.split(some, cuts):
        least = float(width[group].min())
        tight = group[width[group] <= 2 * least]
        groups.append((float(left[tight[0]]), float(right[tight[-1]]), least))
    return groups


def _clusters(width: Array) -> list[NDArray[np.intp]]:
    """Runs of short intervals, one for each place where bisection went deep.

    Jumps and kinks end in intervals near rounding, so they are told apart however close they are;
    a jump in a higher derivative stops mattering earlier, and its run is found by what is left.
    """

    def runs(limit: float) -> list[NDArray[np.intp]]:
        short = np.flatnonzero(width < limit)
        return np.split(short, np.flatnonzero(np.diff(short) > 1) + 1) if short.size else []

    deep = runs(1e-8)
    taken = np.concatenate(deep) if deep else np.empty(0, dtype=np.intp)
    return deep + [run for run in runs(1e-3) if not np.isin(run, taken).any()]


def _room(places: tuple[float, ...]) -> Array:
    """How far from each break one may look without meeting the next, at most 1."""
    walls = np.array([-math.inf, *places, math.inf])
    return np.minimum(1.0, np.minimum(np.diff(walls)[:-1], np.diff(walls)[1:]) / 4)


def _with_cusps(places: tuple[float, ...], cusps: tuple[Singularity, ...]) -> tuple[float, ...]:
    """The breaks with the stated cusps' places, which replace what was found next to them."""
    stated = {c.place for c in cusps}
    found = (p for p in places if all(abs(p - s) > 1e-6 * max(1.0, abs(s)) for s in stated))
    return tuple(sorted({*found, *stated}))


def _jumps(f: Function, place: float, room: float) -> bool:
    """Whether the value jumps: what is left over ten decimals of distance does not fall.

    A slope changes it by a tenth at most where the jump is above 1e-6 of the size, a power
    ``d^alpha`` by 1000^alpha.
    """
    distance = min(1e-4, room) * np.array([1, 1e-3, 1e-6])
    span = np.abs(f(place + distance) - f(place - distance))
    size = max(1e-3, float(np.abs(f(np.array([place - 1, place + 1]))).max()))
    return bool(span[-1] > 1e-6 * size and span[-1] > 0.85 * span[1])


def _find_cusps(
    f: Function, room: Mapping[float, float], jumps: tuple[float, ...], name: str
) -> tuple[tuple[float, ...], tuple[Singularity, ...], str]:
    """The breaks with refined places, the cusps at those that are no jumps, and the evidence."""
    places: list[float] = []
    found: list[Singularity] = []
    worst = 0.0
    for place, near in room.items():
        cusps, error = ((), 0.0) if place in jumps else measured_cusps(f, place, near, name)
        places.append(cusps[0].place if cusps else place)
        found += cusps
        worst = max(worst, error)
    evidence = f"detected (exponent +- {worst:.1g})" if found else "none detected up to exponent 3"
    return tuple(places), tuple(found), evidence


def _scale(
    f: Function, breaks: tuple[float, ...], name: str, cusped: bool
) -> tuple[float, tuple[float, ...]]:
    """Length over which the pieces vary, and the places around which they do.

    With cusps the nodes crowd towards all breaks; the length is then that of what lies between.
    """
    if _piecewise_polynomial(f, breaks, 12):
        return math.inf, ()
    far = _FAR
    while far > 2 and not np.all(np.isfinite(f(np.array([-far, far])))):
        far /= 2
    decades = np.geomspace(1, far, 7)
    left, right = _bisect(
        f, np.unique([*-decades, *(b for b in breaks if abs(b) < far), *decades]), 1e-6
    )
    middle, width = (left + right) / 2, right - left
    # sixteen nodes resolve an interval of width w when the nearest pole is about 1.75 w away
    reach = 1.75 * width
    nearest = np.abs(middle[:, None] - np.array([*breaks, math.inf])).min(axis=1)
    between = reach[6 * reach < nearest] if cusped else reach
    scale = float(between.min()) if between.size else math.inf
    least = 0.0 if cusped else scale

    def coarse(centres: list[float]) -> NDArray[np.intp]:
        """Intervals much shorter than what grading towards breaks and centres would give."""
        marks = np.array([*breaks, *centres])
        distance = np.abs(middle[:, None] - marks).min(axis=1) if marks.size else 0 * middle
        return np.flatnonzero(6 * reach < least + distance)

    centres: list[float] = [] if breaks else [0.0]
    if not breaks and coarse(centres).size:
        centres = [float(middle[width.argmin()])]
    while (rest := coarse(centres)).size and len(centres) <= _MOST:
        centres.append(float(middle[rest[width[rest].argmin()]]))
    if len(centres) <= _MOST:
        return scale, tuple(sorted(centres))
    if scale < 0.8:
        raise InputError(
            f"activation {name}: it varies on the length {scale:.2g} over more than {_MOST} places"
            " (it oscillates); expected a few features, or a period above about 3"
        )
    return scale, tuple(float(x) for x in np.arange(-_REACH, _REACH + 1, 5.0))


def _piecewise_polynomial(f: Function, breaks: tuple[float, ...], degree: int) -> bool:
    """Whether every piece on [-40, 40] is a polynomial of this degree or less."""
    walls = [-_REACH, *(b for b in breaks if abs(b) < _REACH), _REACH]
    for low, high in itertools.pairwise(walls):
        fit = np.polynomial.Chebyshev.interpolate(f, degree, [low, high])
        near = np.geomspace(min(1e-6, 1e-3 * (high - low)), high - low, 60)
        x = np.concatenate([low + near, high - near, 0.37 * near, -0.37 * near])
        x = x[(x > low) & (x < high)]
        y = f(x)
        if not np.all(
            np.abs(fit(x) - y) <= 1e-12 * (np.abs(y) + np.abs(f(np.array([low, high]))).max())
        ):
            return False
    return True


def difference(
    f: Function,
    breaks: tuple[float, ...],
    scale: float,
    cusps: tuple[Singularity, ...] = (),
    order: int = 1,
    given: int = 0,
) -> Function:
    """Derivative of this ``order`` by nine-point differences that never straddle a break.

    ``f`` is itself the derivative of the order ``given``.

    Step ``0.012 scale``, shorter in short pieces: truncation about ``step^8 f^(9)/630`` is 1e-13
    and rounding 1e-14/scale. Towards a cusp the step shrinks to a fiftieth of the distance, and
    next to it the cusp's own derivative takes over.
    """
    offsets: Array = np.arange(9, dtype=float)
    times = order - given
    stencils = np.stack([_weights(np.asarray(offsets - k, dtype=float), times) for k in range(9)])
    walls = np.array([-math.inf, *breaks, math.inf])
    steps = np.minimum(_STEP * min(scale, 4.0), np.diff(walls) / 9)

    def slope(x: Array) -> Array:
        finite = np.isfinite(x)
        if not finite.all():
            return np.where(finite, slope(np.where(finite, x, 0.0)), np.nan)
        piece = np.searchsorted(walls[1:-1], x, side="right")
        step = steps[piece]
        for cusp in cusps:
            step = np.minimum(step, np.abs(x - cusp.place) / 50)
        room = np.clip((x - walls[piece]) / step, 0, 4)
        back = np.minimum(4, room.astype(int))
        ahead = np.minimum(4, np.clip((walls[piece + 1] - x) / step, 0, 4).astype(int))
        back = np.where(ahead < 4, np.maximum(back, 8 - ahead), back)
        if np.all(back == 4):  # no break near: the symmetric stencil everywhere
            weights = stencils[4]
            total = sum(w * f(x + k * step) for k, w in enumerate(weights, -4) if w)
        else:
            total = sum(f(x + step * (k - back)) * stencils[back, k] for k in range(9))
        return np.asarray(total / step**times)

    if not cusps:
        return slope
    near = {c.place: 1e-7 * max(abs(c.place), min(1.0, scale)) for c in cusps}

    def cusped(x: Array) -> Array:
        anchor = x
        for place, reach in near.items():
            close = np.abs(x - place) < reach
            anchor = np.where(close, place + np.where(x < place, -reach, reach), anchor)
        rest = slope(anchor) - cusp_part(cusps, anchor, order)
        with np.errstate(divide="ignore"):
            return np.asarray(rest + cusp_part(cusps, x, order))

    return cusped


def _zero(x: Array) -> Array:
    """The curvature of lines."""
    return np.zeros(x.shape)


def _rounding(f: Function, broken: bool, scale: float, times: int) -> float:
    """Error that the rounding of ``f`` leaves after differencing it this many times.

    Next to a break, where stencils are one-sided and their weights largest, if there is one.
    """
    size = float(np.abs(f(np.linspace(-3.0, 3.0, 42))).max())
    gain = float(np.abs(_weights(np.arange(9.0) - (0 if broken else 4), 1)).sum())
    return size * 1.2e-16 * (gain / (_STEP * min(scale, 4.0))) ** times


def _weights(offsets: Array, order: int) -> Array:
    """Weights of the derivative of this order at 0 from values at integer ``offsets``."""
    powers = np.vander(offsets, increasing=True).T
    target = np.zeros(offsets.size)
    target[order] = math.factorial(order)
    return np.asarray(np.linalg.solve(powers, target), dtype=float)


def _parity(f: Function) -> Parity | None:
    x = np.geomspace(1e-3, 30, 40)
    ahead, behind = f(x), f(-x)
    size = 1e-13 * (np.abs(ahead) + np.abs(behind)) + 1e-300
    if np.all(np.abs(ahead + behind) <= size):
        return "odd"
    return "even" if np.all(np.abs(ahead - behind) <= size) else None


def _degree(f: Function) -> float | None:
    """The ``k`` of ``f(c x) = c^k f(x)``, ``c > 0``, or None."""
    x = np.concatenate([-np.geomspace(1e-2, 300, 30), np.geomspace(1e-2, 300, 30)])
    base, twice, thrice = f(x), f(2 * x), f(3 * x)
    alive = np.abs(base) > 0
    if not alive.any() or np.any(twice[~alive]) or f(np.zeros(1))[0] != 0:
        return None
    ratio = twice[alive] / base[alive]
    if not np.all(ratio > 0):
        return None
    degree = round(float(np.log2(ratio).mean()), 9)
    same = np.abs(ratio / 2**degree - 1) < 1e-11
    third = np.abs(thrice[alive] / base[alive] / 3**degree - 1) < 1e-11
    return degree if bool(np.all(same & third)) else None

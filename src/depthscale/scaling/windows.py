"""Whether the parameters stay when points are left out: what a collapse has to show to be believed.

A fit of fewer points moves by chance, and less than the two errors suggest, since most points are
the same. Both estimates being linear in the noise, ``theta - theta_0 = R (y - E y)``, the variance
of their difference is that of ``R_part - R_all``, whatever the correlations of the points; for
uncorrelated ones it is ``var_part - var_all`` (Hausman 1978).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthscale.scaling.bases import Array, Basis
from depthscale.scaling.fit import Fit, Problem, solve
from depthscale.scaling.form import Form

LEAST_SIZES = 3
"""Of a window, where there are as many; else two."""

TOGETHER = 3
"""Sizes that an effective exponent is taken over."""

MOST_CUTS = 6
"""Windows of one kind that are fitted, where there are many sizes."""

CLOSE = 1e-6
"""Tolerance of their fits: far below the errors that they are compared by."""

OPEN = 1e3
"""Growth of an error at which a correction is taken for one that the form has already."""

OMEGAS = (0.5, 1.0, 2.0)
"""Powers of the corrections that are tried."""

INNER = 2 / 3
"""Share of the points, by the middle of their scaling variable, that the inner window keeps."""


MISSED = 0.01
"""Chance of chi-square below which the curve of a window misses its points, so that nothing
follows from its parameters."""


@dataclass(frozen=True)
class Window:
    """A fit of a part of the points.

    Attributes
    ----------
    what:
        The points that it keeps, in words.
    points, sizes:
        How many it keeps; its system sizes.
    values, errors:
        By parameter.
    reduced_chi2:
        Of this fit.
    shifts:
        By parameter, the distance to the fit of all points in standard errors of that distance.
    p_value:
        Of the rise of chi-square to the parameters of all points, if the form holds; of its fall by
        the amplitude of an added correction, if there is none. None where it could not be told.
    """

    what: str
    points: int
    sizes: tuple[float, ...]
    values: Mapping[str, float]
    errors: Mapping[str, float]
    reduced_chi2: float
    shifts: Mapping[str, float]
    p_value: float | None


def stability(fit: Fit, scale: float) -> tuple[Window, ...]:
    """Fits without small sizes, without large ones, and without the tails of the curve."""
    return tuple(_windows(fit, scale, _parts(fit)))


def corrected(fit: Fit, scale: float) -> tuple[Window, ...]:
    """Fits of all points with a leading correction ``(1 + a size^-omega)`` added to the form.

    What the points cannot exclude: where an error grows much, it holds only without corrections.
    """
    points, form = fit.problem.points, fit.problem.form
    name = free_name("correction", (*form.parameters, *points.columns))
    found = []
    for omega in OMEGAS:
        longer = Form.parse(
            f"{form.text} * (1 + {name}*({points.size}/{float(points.sizes[0])!r})^-{omega:g})",
            [*points.columns, points.name],
            points.name,
        )
        problem = Problem(points, longer, fit.problem.fixed)
        start = np.array([_start(fit, other) for other in problem.names])
        part = solve(problem, fit.basis, start, tolerance=CLOSE)
        if part is not None and part.dof > 0:
            what = f"with (1 + a*{points.size}^-{omega:g})"
            window = _window(fit, part, np.ones(len(points), dtype=bool), what, scale)
            if _told_apart(fit, window, scale):
                found.append(window)
    return tuple(found)


def _told_apart(fit: Fit, window: Window, scale: float) -> bool:
    """Whether the form has no such correction of its own already, which would leave it open."""
    own = np.sqrt(np.diag(fit.covariance)) * scale / max(fit.error_scale, 1e-300)
    errors = np.array([window.errors[name] for name in fit.problem.names])
    return bool((errors < OPEN * own).all())


def free_name(wanted: str, taken: Sequence[str]) -> str:
    """A name that is not taken."""
    while wanted in taken:
        wanted += "_"
    return wanted


def _start(fit: Fit, name: str) -> float:
    names = fit.problem.names
    return float(fit.free[names.index(name)]) if name in names else 0.0


def effective(fit: Fit, scale: float) -> tuple[Window, ...]:
    """Fits of a few neighbouring sizes each, from small to large; none where there are too few."""
    sizes = fit.problem.points.sizes
    together = max(TOGETHER, -(-len(sizes) // MOST_CUTS))
    if len(sizes) <= together:
        return ()
    column = fit.problem.points.columns[fit.problem.points.size]
    parts = []
    for k in [0, *_spaced(len(sizes) - together, MOST_CUTS - 1)]:
        low, high = sizes[k], sizes[k + together - 1]
        what = f"{fit.problem.points.size} {low:g} to {high:g}"
        parts.append((what, (column >= low) & (column <= high)))
    return tuple(_windows(fit, scale, parts))


def _parts(fit: Fit) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    points = fit.problem.points
    sizes, column, name = points.sizes, points.columns[points.size], points.size
    most = len(sizes) - min(LEAST_SIZES, len(sizes) - 1)
    for k in _spaced(most, MOST_CUTS):
        yield f"{name} >= {sizes[k]:g}", column >= sizes[k]
    for k in _spaced(max(most // 3, min(most, 1)), 2):
        yield f"{name} <= {sizes[-1 - k]:g}", column <= sizes[-1 - k]
    u = fit.trial.warped[0].u
    x = fit.problem.scaled(fit.free).arguments[0]
    if x.min() < 0 < x.max():
        keep = np.abs(x) <= np.quantile(np.abs(x), INNER)
        yield "inner part of the curve", keep
    else:
        low, high = np.quantile(u, [(1 - INNER) / 2, (1 + INNER) / 2])
        yield "inner part of the curve", (u >= low) & (u <= high)


def _spaced(most: int, count: int) -> list[int]:
    """Up to ``count`` of the numbers 1 to ``most``, evenly."""
    if most < 1:
        return []
    return sorted({round(1 + (most - 1) * k / max(count - 1, 1)) for k in range(min(count, most))})


def _windows(
    fit: Fit,
    scale: float,
    parts: Iterable[tuple[str, NDArray[np.bool_]]],
) -> Iterator[Window]:
    for what, mask in parts:
        part = _refitted(fit, mask)
        if part is not None:
            yield _window(fit, part, mask, what, scale)


def _refitted(fit: Fit, mask: NDArray[np.bool_]) -> Fit | None:
    points = fit.problem.points.select(mask)
    if len(points.sizes) < 2:
        return None
    problem = Problem(points, fit.problem.form, fit.problem.fixed)
    basis, count = fit.basis, len(points)
    sizes = fit.basis.sizes
    while np.prod(sizes) > max(count // 3, 4) and max(sizes) > 4:
        sizes = tuple(max(4, size - 1) for size in sizes)
    found = solve(problem, Basis(basis.kind, basis.warps, sizes), fit.free, tolerance=CLOSE)
    return found if found is not None and found.dof > 0 else None


def _window(fit: Fit, part: Fit, mask: NDArray[np.bool_], what: str, scale: float) -> Window:
    names = fit.problem.names
    places = [part.problem.names.index(name) for name in names]
    response = -fit.response
    response[:, mask] += part.response[places]
    difference = fit.problem.points.noise(response) * scale**2
    rise = _rise(fit, part) if len(part.free) == len(fit.free) else fit.chi2 - part.chi2
    moved = part.free[places] - fit.free
    errors = np.sqrt(np.diag(part.covariance))[places] * scale / max(part.error_scale, 1e-300)
    spread = np.sqrt(np.diag(difference))
    return Window(
        what,
        len(part.problem.points),
        tuple(part.problem.points.sizes.tolist()),
        dict(zip(names, part.free[places].tolist(), strict=True)),
        dict(zip(names, errors.tolist(), strict=True)),
        _reduced(fit, part),
        {n: float(m / s) if s > 0 else 0.0 for n, m, s in zip(names, moved, spread, strict=True)},
        _chance(rise, _weights(fit, part, difference, scale), fit) if _holds(part, scale) else None,
    )


def _reduced(fit: Fit, part: Fit) -> float:
    """Chi-square over its mean; of unknown errors in the variance that all points have."""
    mean, _ = part.chi2_expected
    if not (mean > 0 and fit.error_scale > 0):
        return float("nan")
    return part.chi2 / mean / fit.error_scale**2


def _holds(part: Fit, scale: float) -> bool:
    """Whether the curve follows these points: few points have few coefficients."""
    from scipy.stats import chi2

    mean, variance = part.chi2_expected
    if not part.problem.errors_known or not mean > 0:
        return True
    unit = variance / (2 * mean) * scale**2
    return bool(chi2.sf(part.chi2 / unit, 2 * mean * mean / variance) >= MISSED)


def _rise(fit: Fit, part: Fit) -> float:
    """How much more chi-square of a part is with the parameters of all points."""
    there = part.problem.at(fit.free, part.basis)
    if there is None:
        return np.inf
    residual = there.residual[: len(part.problem.y)]
    return float(residual @ residual) - part.chi2


def _weights(fit: Fit, part: Fit, difference: Array, scale: float) -> Array:
    """By what squares of independent normal numbers add up to the rise of chi-square, if all holds.

    To first order the rise is ``d' J'J d`` for a distance ``d`` of the given covariance and the
    Jacobian ``J`` of the part: the eigenvalues of its product with that covariance. Of a parameter
    that the longer form adds, ``c/((J'J)^-1)`` with its variance ``c``, which is 1 if uncorrelated.
    """
    if len(part.free) == len(fit.free):
        order = [part.problem.names.index(name) for name in fit.problem.names]
        jacobian = part.jacobian[:, order]
        spread = np.sqrt(np.maximum(np.diag(difference), 0))
        unit = np.where(spread > 0, spread, 1.0)
        values, vectors = np.linalg.eigh(difference / np.outer(unit, unit))
        root = (jacobian * unit) @ (vectors * np.sqrt(np.maximum(values, 0)))
        return np.asarray(np.linalg.svd(root, compute_uv=False) ** 2)
    (added,) = (k for k, n in enumerate(part.problem.names) if n not in fit.problem.names)
    variance = part.covariance[added, added] / max(part.error_scale, 1e-300) ** 2
    length = np.linalg.norm(part.jacobian, axis=0)
    if not np.isfinite(variance) or not (length > 0).all():
        return np.empty(0)
    plain = np.linalg.pinv(part.jacobian / length)[added] / length[added]
    return np.array([variance / (plain @ plain) * scale**2])


def _chance(rise: float, weights: Array, fit: Fit) -> float | None:
    """Of a rise as large or larger (Satterthwaite's chi-square); None where it has no scale.

    Where errors are unknown and their scale is that of the residuals, of Fisher's ratio.

    By chi-square and not by the distance of the parameters, which says little where they are
    hardly settled and a part of the points takes them far along a valley.
    """
    from scipy.stats import chi2
    from scipy.stats import f as fisher

    total, square = weights.sum(), (weights**2).sum()
    if not (np.isfinite(total) and square > 0):
        return None
    value, dof = max(rise, 0.0) * total / square, total**2 / square
    if fit.problem.errors_known:
        return float(chi2.sf(value, dof))
    return float(fisher.sf(value / dof, dof, fit.dof)) if fit.dof > 0 else None

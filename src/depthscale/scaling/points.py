"""Measurements of a scaling analysis: means, their uncertainty, and the realisations behind them.

Errors come from one source: standard errors, a covariance, or raw realisations. A realisation is
what was drawn at once, such as one random network: its points are correlated, so it is the unit
that is resampled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError, some
from depthscale.scaling.series import check_units
from depthscale.scaling.tables import check_there, columns_of, is_grid, is_missing, numbers
from depthscale.scaling.tables import names_of as names_of

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Group:
    """Realisations that are resampled together: ``values[realisation, k]`` of ``rows[k]``.

    They cover the same points; or, where some realisation shares its set of points with no other,
    all of them are one group, with NaN where a realisation has no value.
    """

    rows: Rows
    values: Array = field(repr=False)

    @cached_property
    def counts(self) -> Array:
        """Realisations of every row, [k]."""
        return np.asarray((~np.isnan(self.values)).sum(axis=0), dtype=float)

    @cached_property
    def apart(self) -> Array:
        """Deviations from the mean, 0 where there is no value, [realisation, k].

        Stretched by ``sqrt(c/(c - 1))`` for c realisations, so that ``apart^T apart`` is an
        unbiased covariance of their sum.
        """
        stretch = np.sqrt(self.counts / np.maximum(self.counts - 1, 1))
        return np.asarray(np.nan_to_num((self.values - np.nanmean(self.values, axis=0)) * stretch))


@dataclass(frozen=True)
class Points:
    """Measured means over the columns that a form names.

    Attributes
    ----------
    columns:
        Every variable, [n] each.
    y, error:
        Means and standard errors, [n].
    covariance:
        Of the means, [n, n], where it was given.
    groups:
        Realisations, where they were given.
    x, size, name:
        Names of the control variable, of what labels the curves, and of what was measured.
    errors_known:
        Whether errors were given in any way; else they are 1, and only their ratios count.
    left_out:
        Cells of a grid that hold no number.
    """

    columns: Mapping[str, Array] = field(repr=False)
    y: Array = field(repr=False)
    error: Array = field(repr=False)
    covariance: Array | None = field(repr=False, default=None)
    groups: tuple[Group, ...] = field(repr=False, default=())
    x: str = "x"
    size: str = "size"
    name: str = "y"
    errors_known: bool = True
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.y)

    @property
    def sizes(self) -> Array:
        """System sizes, ascending."""
        return np.unique(self.columns[self.size])

    @property
    def count(self) -> int:
        """How many points."""
        return len(self.y)

    @cached_property
    def counts(self) -> Array:
        """Realisations of every point."""
        counts = np.zeros(len(self))
        for group in self.groups:
            counts[group.rows] += group.counts
        return counts

    @property
    def realisations(self) -> int:
        """How many there are in all."""
        return sum(len(group.values) for group in self.groups)

    def select(self, mask: NDArray[np.bool_]) -> Points:
        """Those points alone, with what belongs to them of the covariance and the groups."""
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != self.y.shape:
            raise InputError(
                f"a mask of {mask.dtype} and shape {mask.shape}; expected True or False for each of"
                f" {self.count} points"
            )
        place = np.cumsum(mask) - 1
        groups = []
        for group in self.groups:
            kept = mask[group.rows]
            if kept.any():
                groups.append(Group(place[group.rows[kept]], group.values[:, kept]))
        return replace(
            self,
            columns={name: column[mask] for name, column in self.columns.items()},
            y=self.y[mask],
            error=self.error[mask],
            covariance=None if self.covariance is None else self.covariance[np.ix_(mask, mask)],
            groups=tuple(groups),
        )

    def resampled(self, generator: np.random.Generator) -> Array:
        """Means of as many realisations, drawn with replacement within each group, [n].

        Their deviations from ``y`` are stretched by ``sqrt(c/(c - 1))``, as c draws from c values
        vary too little by that; their covariance is then ``sample_covariance()`` on average.
        """
        moved = np.zeros(len(self))
        for group in self.groups:
            number = len(group.values)
            drawn = generator.multinomial(number, np.full(number, 1 / number)).astype(float)
            moved[group.rows] += drawn @ group.apart
        return self.y + moved / np.maximum(self.counts, 1)

    def noise(self, response: Array) -> Array:
        """Covariance of ``response @ y`` for ``response`` [k, n], [k, k].

        Realisations give it directly, by what each of them adds.
        """
        if self.covariance is not None:
            return response @ self.covariance @ response.T
        if not self.groups:
            scaled = response * self.error
            return scaled @ scaled.T
        total = np.zeros((len(response),) * 2)
        for group in self.groups:
            moved = group.apart @ (response[:, group.rows] / self.counts[group.rows]).T
            total += moved.T @ moved
        return total

    def sample_covariance(self) -> Array:
        """Of the means, [n, n]."""
        return self.noise(np.eye(len(self)))


def as_points(
    data: Any,
    *,
    y: str,
    x: str,
    size: str,
    variables: Collection[str] = (),
    error: str | ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    realisation: str | None = None,
) -> Points:
    """Measurements out of a table or a grid.

    Parameters
    ----------
    data:
        Long form, one row a point (or a point and realisation), the grid may be ragged: a pandas
        DataFrame, a mapping of columns, a list of records; or an xarray Dataset, whose cells
        without a number (NaN) are taken as not measured.
    y, x, size:
        Names of the measured column, the control variable and what labels the curves.
    variables:
        Further columns that the form names.
    error, covariance, realisation:
        At most one of them: a column of standard errors, or these [n]; a covariance in the order of
        the rows, [n, n]; a column that tells the realisations apart. An id stands for one
        realisation wherever it occurs: its points are taken as correlated. Ids that are used
        again for independent runs do no harm, since what they share is then nothing but chance:
        the covariance that resampling them together adds is 0 on average.

    Returns
    -------
    Points
        In the order of the rows; with realisations by ascending columns, one point for each place.

    Raises
    ------
    InputError
        Missing or non-numeric columns, NaN, errors that are not above 0, a covariance that is not
        positive definite, a point with less than two realisations, one system size.

    Examples
    --------
    >>> runs = {"seed": [0, 1, 0, 1], "T": [2.0] * 4, "L": [8, 8, 16, 16], "m": [1, 2, 3, 5]}
    >>> points = as_points(runs, y="m", x="T", size="L", realisation="seed")
    >>> points.y.tolist(), points.error.tolist(), points.sample_covariance().round(12).tolist()
    ([1.5, 4.0], [0.5, 1.0], [[0.25, 0.5], [0.5, 1.0]])
    """
    if sum(given is not None for given in (error, covariance, realisation)) > 1:
        raise InputError("expected one of error, covariance and realisation, got several")
    if isinstance(variables, str):
        raise InputError(f"variables are {variables!r}; expected a list of names")
    labels = [] if realisation is None else [realisation]
    for name in (y, x, size, *variables, *labels):
        if not isinstance(name, str):
            raise InputError(f"{name!r} is no name of a column")
    places = list(dict.fromkeys([x, size, *variables]))
    for what, given in (("y", y), ("realisation", realisation), ("error", error)):
        if isinstance(given, str) and given in places:
            raise InputError(
                f"{what} = {given!r} is a variable of the form as well; expected others"
            )
    names = [*places, y, *([error] if isinstance(error, str) else [])]
    table = columns_of(data, names, y, realisation)
    for name in [*names, *labels]:
        check_there(name, table)
    columns = {name: numbers(name, table[name]) for name in names}
    ids = None if realisation is None else _numbered(realisation, table[realisation])
    lengths = {name: len(column) for name, column in columns.items()}
    if ids is not None:
        lengths[str(realisation)] = len(ids)
    if len(set(lengths.values())) > 1:
        raise InputError(f"columns are of different lengths: {lengths}; expected equal ones")
    left_out = 0
    if is_grid(data):
        measured = ~np.isnan(columns[y])
        left_out = int((~measured).sum())
        columns = {name: column[measured] for name, column in columns.items()}
        ids = None if ids is None else ids[measured]
    _check_finite(columns)
    if not len(columns[y]):
        raise InputError("the data hold no point: expected rows of numbers")
    if len(np.unique(columns[size])) < 2:
        raise InputError(
            f"one system size, {size} = {columns[size][0]:g}: nothing to collapse; expected at"
            " least two"
        )
    if not columns[y].any():
        raise InputError(f"{y} is 0 at all points: every form holds; expected other numbers")
    check_units(y, np.abs(columns[y]).max(keepdims=True))
    there = {name: columns[name] for name in places}
    how: dict[str, Any] = {"x": x, "size": size, "name": y, "left_out": left_out}
    if ids is not None:
        return _from_realisations(there, columns[y], ids, table[str(realisation)], how)
    n = len(columns[y])
    if covariance is not None:
        matrix = _covariance(covariance, n)
        return Points(there, columns[y], np.sqrt(np.diag(matrix)), matrix, **how)
    if error is None:
        return Points(there, columns[y], np.ones(n), errors_known=False, **how)
    errors = columns[error] if isinstance(error, str) else numbers("error", error)
    errors = _checked_errors(errors, n)
    check_units("error", errors)
    return Points(there, columns[y], errors, **how)


def _checked_errors(errors: Array, n: int) -> Array:
    if errors.shape != (n,):
        raise InputError(f"{errors.size} errors for {n} points; expected one each")
    _check_finite({"error": errors})
    bad = np.flatnonzero(~(errors > 0))
    if bad.size:
        raise InputError(
            f"{bad.size} errors are not above 0, in rows {_rows(bad)}, the first"
            f" {errors[bad[0]]:g}: a point without error cannot be weighted; leave such rows out,"
            " or give no errors, and all points count alike"
        )
    return errors


def _rows(indices: Rows) -> str:
    return some((str(row + 1) for row in indices[:6]), 5)


def _check_finite(columns: Mapping[str, Array]) -> None:
    for name, column in columns.items():
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            raise InputError(
                f"{bad.size} of {len(column)} values of {name} are no finite numbers, in rows"
                f" {_rows(bad)}: leave these rows out"
            )


def _covariance(given: ArrayLike, n: int) -> Array:
    matrix = np.asarray(given)
    if matrix.dtype.kind not in "iuf" or matrix.shape != (n, n):
        raise InputError(
            f"the covariance is of shape {matrix.shape}; expected numbers of shape ({n}, {n}), in"
            " the order of the rows"
        )
    matrix = matrix.astype(float)
    _check_finite({"the covariance": matrix.ravel()})
    bad = np.flatnonzero(~(np.diag(matrix) > 0))
    if bad.size:
        raise InputError(
            f"the covariance has variances that are not above 0, in rows {_rows(bad)}; expected a"
            " positive definite matrix"
        )
    scale = np.sqrt(np.diag(matrix))
    correlation = matrix / np.outer(scale, scale)
    uneven = np.abs(correlation - correlation.T)
    if uneven.max() > 1e-8:
        row, column = np.unravel_index(int(uneven.argmax()), uneven.shape)
        raise InputError(
            f"the covariance is not symmetric: {matrix[row, column]:g} in row {row + 1}, column"
            f" {column + 1} and {matrix[column, row]:g} opposite"
        )
    lowest = float(np.linalg.eigvalsh((correlation + correlation.T) / 2)[0])
    if not lowest > n * np.finfo(float).eps:  # below it rounding decides
        raise InputError(
            "the covariance is not positive definite: the lowest eigenvalue of its correlations is"
            f" {lowest:.3g}; one estimated from fewer realisations than points never is: give the"
            " realisations"
        )
    return np.asarray((matrix + matrix.T) / 2)


# Realisations -------------------------------------------------------------------------------------


def _numbered(name: str, ids: Any) -> Rows:
    """Whole numbers in place of ids of any kind."""
    array = np.asarray(ids)
    if array.dtype.kind in "iu":
        return np.unique(array, return_inverse=True)[1].reshape(-1)
    listed = list(ids) if isinstance(ids, list | tuple) else array.tolist()
    missing = [row for row, value in enumerate(listed) if is_missing(value) or value != value]
    if missing:
        raise InputError(
            f"column {name} holds no id in rows {_rows(np.array(missing))}; expected one in each"
        )
    known: dict[Any, int] = {}
    try:
        return np.array([known.setdefault(value, len(known)) for value in listed], dtype=np.intp)
    except TypeError:
        raise InputError(f"column {name} holds lists; expected numbers or words") from None


def _placed(columns: Mapping[str, Array]) -> tuple[Array, Rows]:
    """The different places, ascending, and the number of that of every row."""
    number = np.zeros(len(next(iter(columns.values()))), dtype=np.intp)
    for column in columns.values():
        values, which = np.unique(column, return_inverse=True)
        number = np.unique(number * len(values) + which, return_inverse=True)[1]
    _, first = np.unique(number, return_index=True)
    return np.stack([column[first] for column in columns.values()], axis=1), number


def _from_realisations(
    columns: Mapping[str, Array], y: Array, who: Rows, ids: Any, how: Mapping[str, Any]
) -> Points:
    unique, point = _placed(columns)
    order = np.lexsort((point, who))
    point, who, y = point[order], who[order], y[order]
    again = np.flatnonzero((np.diff(who) == 0) & (np.diff(point) == 0))
    if again.size:
        raise InputError(
            f"realisation {np.asarray(ids)[order[again[0]]]} has the point"
            f" {_told(columns, unique[point[again[0]]])} twice; expected one row for each"
        )
    counts = np.bincount(point, minlength=len(unique))
    few = np.flatnonzero(counts < 2)
    if few.size:
        raise InputError(
            f"{few.size} points have one realisation, the first {_told(columns, unique[few[0]])};"
            " expected at least two, which an error needs"
        )
    groups = tuple(_groups(point, who, y))
    if any(len(group.values) < 2 for group in groups):
        groups = (_padded(point, who, y),)
    mean = np.bincount(point, y, len(unique)) / counts
    square = np.bincount(point, (y - mean[point]) ** 2, len(unique))
    error = np.sqrt(square / (counts - 1) / counts)
    low, high = np.full(len(unique), np.inf), np.full(len(unique), -np.inf)
    np.minimum.at(low, point, y)
    np.maximum.at(high, point, y)
    same = np.flatnonzero(~(high > low) | ~(error > 0))
    if same.size:
        raise InputError(
            f"all realisations are equal at {same.size} points, the first"
            f" {_told(columns, unique[same[0]])}: an error of 0 cannot be weighted; leave them out"
        )
    named = {name: unique[:, k] for k, name in enumerate(columns)}
    return Points(named, mean, error, None, groups, **how)


def _told(columns: Mapping[str, Array], place: Array) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in zip(columns, place, strict=True))


def _groups(point: Rows, who: Rows, y: Array) -> Iterator[Group]:
    """Realisations by the set of points that they cover; all sorted by realisation, then point."""
    starts = np.flatnonzero(np.r_[True, np.diff(who) != 0])
    ends = np.r_[starts[1:], len(who)]
    patterns: dict[bytes, list[int]] = {}
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        patterns.setdefault(point[start:end].tobytes(), []).append(k)
    for members in patterns.values():
        rows = point[starts[members[0]] : ends[members[0]]]
        yield Group(rows, np.stack([y[starts[k] : ends[k]] for k in members]))


def _padded(point: Rows, who: Rows, y: Array) -> Group:
    values = np.full((int(who.max()) + 1, int(point.max()) + 1), np.nan)
    values[who, point] = y
    return Group(np.arange(values.shape[1]), values)

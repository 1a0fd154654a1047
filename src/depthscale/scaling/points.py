"""Measurements of a scaling analysis: means, their uncertainty, and the realisations behind them.

Errors come from one source: standard errors, a covariance, or raw realisations. A realisation is
what was drawn at once, such as one random network: its points are correlated, so it is the unit
that is resampled.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError, some

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

    @cached_property
    def counts(self) -> Array:
        """Realisations of every point."""
        counts = np.zeros(len(self))
        for group in self.groups:
            counts[group.rows] += (~np.isnan(group.values)).sum(axis=0)
        return counts

    @property
    def realisations(self) -> int:
        """How many there are in all."""
        return sum(len(group.values) for group in self.groups)

    def select(self, mask: NDArray[np.bool_]) -> Points:
        """Those points alone."""
        place = np.cumsum(mask) - 1
        groups = []
        for group in self.groups:
            kept = mask[group.rows]
            if kept.any():
                groups.append(Group(place[group.rows[kept]], group.values[:, kept]))
        covariance = None if self.covariance is None else self.covariance[np.ix_(mask, mask)]
        return Points(
            {name: column[mask] for name, column in self.columns.items()},
            self.y[mask],
            self.error[mask],
            covariance,
            tuple(groups),
            self.x,
            self.size,
            self.name,
            self.errors_known,
            self.left_out,
        )

    def resampled(self, generator: np.random.Generator) -> Array:
        """Means of as many realisations, drawn with replacement within each group, [n]."""
        total, count = np.zeros((2, len(self)))
        for group in self.groups:
            number = len(group.values)
            drawn = generator.multinomial(number, np.full(number, 1 / number)).astype(float)
            there = ~np.isnan(group.values)
            total[group.rows] += drawn @ (group.values if there.all() else _filled(group.values, 0))
            count[group.rows] += drawn.sum() if there.all() else drawn @ there
        return np.where(count > 0, total / np.maximum(count, 1), self.y)

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
            number = len(group.values)
            if number < 2:
                continue
            mean = np.nanmean(group.values, axis=0)
            apart = _filled(group.values - mean, 0.0)
            moved = apart @ (response[:, group.rows] / self.counts[group.rows]).T
            total += moved.T @ moved * (number / (number - 1))
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
        realisation wherever it occurs. (Ids that are used again for independent runs do no harm:
        what is resampled together then is uncorrelated all the same.)

    Raises
    ------
    InputError
        Missing or non-numeric columns, NaN, errors that are not above 0, a covariance that is not
        positive definite, a point with less than two realisations, one system size.
    """
    if sum(given is not None for given in (error, covariance, realisation)) > 1:
        raise InputError("expected one of error, covariance and realisation, got several")
    table, grid = _table(data)
    names = list(dict.fromkeys([x, size, *variables, y]))
    if isinstance(error, str):
        names.append(error)
    for name in [*names, *([realisation] if realisation is not None else [])]:
        _check_there(name, table)
    columns = {name: _numbers(name, table[name]) for name in dict.fromkeys(names)}
    lengths = {str(name): len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"columns are of different lengths: {lengths}; expected equal ones")
    ids = None if realisation is None else np.asarray(table[realisation])
    left_out = 0
    if grid:
        measured = ~np.isnan(columns[y])
        left_out = int((~measured).sum())
        columns = {name: column[measured] for name, column in columns.items()}
        ids = None if ids is None else ids[measured]
    _check_finite(columns)
    if not len(columns[y]):
        raise InputError("the data hold no point: expected rows of numbers")
    places = {name: columns[name] for name in dict.fromkeys([x, size, *variables])}
    if len(np.unique(columns[size])) < 2:
        raise InputError(
            f"one system size, {size} = {columns[size][0]:g}: nothing to collapse; expected at"
            " least two"
        )
    how: dict[str, Any] = {"x": x, "size": size, "name": y, "left_out": left_out}
    if ids is not None:
        return _from_realisations(places, columns[y], ids, how)
    n = len(columns[y])
    if covariance is not None:
        matrix = _covariance(covariance, n)
        return Points(places, columns[y], np.sqrt(np.diag(matrix)), matrix, **how)
    if error is None:
        return Points(places, columns[y], np.ones(n), errors_known=False, **how)
    errors = columns[error] if isinstance(error, str) else _numbers("error", error)
    if errors.shape != (n,):
        raise InputError(f"{errors.size} errors for {n} points; expected one each")
    _check_finite({"error": errors})
    bad = np.flatnonzero(~(errors > 0))
    if bad.size:
        raise InputError(
            f"{bad.size} errors are not above 0, the first {errors[bad[0]]:g} in row {bad[0] + 1}:"
            " a point without error cannot be weighted; leave such rows out, or give no errors, and"
            " all points count alike"
        )
    return Points(places, columns[y], errors, **how)


def names_of(data: Any) -> list[str]:
    """Names of the columns, or of the variables and dimensions of a grid."""
    return list(_table(data)[0])


def _table(data: Any) -> tuple[Mapping[str, Any], bool]:
    """Columns by name, and whether they come from a grid."""
    if hasattr(data, "to_dataframe") and hasattr(data, "data_vars"):
        return _columns_of(data.to_dataframe().reset_index()), True
    if hasattr(data, "to_dataframe"):  # a DataArray
        if data.name is None:
            raise InputError("the DataArray has no name; expected data.rename('y') or a Dataset")
        return _columns_of(data.to_dataframe().reset_index()), True
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return _columns_of(data), False
    if isinstance(data, Mapping):
        return data, False
    if isinstance(data, Sequence) and data and all(isinstance(row, Mapping) for row in data):
        names = dict.fromkeys(name for row in data for name in row)
        return {str(name): [row.get(name, math.nan) for row in data] for name in names}, False
    raise InputError(
        f"data is {type(data).__name__}; expected a pandas DataFrame, an xarray Dataset, a mapping"
        " of columns or a list of records"
    )


def _columns_of(frame: Any) -> dict[str, Any]:
    names = [str(name) for name in frame.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"the column {twice[0]} occurs twice; expected different names")
    return {name: frame.iloc[:, k].to_numpy() for k, name in enumerate(names)}


def _check_there(name: Any, table: Mapping[str, Any]) -> None:
    if not isinstance(name, str):
        raise InputError(f"{name!r} is no name of a column")
    if name in table:
        return
    from difflib import get_close_matches

    close = get_close_matches(name, list(table), 1, 0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise InputError(f"there is no column {name!r}; there are {some(table, 12)}{hint}")


def _numbers(name: str, values: Any) -> Array:
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"column {name} has {array.ndim} dimensions; expected one")
    if array.dtype.kind in "iuf":
        return array.astype(float)
    result = np.empty(len(array))
    for row, value in enumerate(array.tolist()):
        try:
            if isinstance(value, bool):
                raise TypeError(value)
            result[row] = math.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"column {name} holds {value!r} in row {row + 1}; expected numbers"
            ) from None
    return result


def _check_finite(columns: Mapping[str, Array]) -> None:
    for name, column in columns.items():
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            rows = some((str(row + 1) for row in bad), 5)
            raise InputError(
                f"{bad.size} of {len(column)} values of {name} are no finite numbers, in rows"
                f" {rows}: leave these rows out"
            )


def _covariance(given: ArrayLike, n: int) -> Array:
    matrix = np.asarray(given)
    if matrix.dtype.kind not in "iuf" or matrix.shape != (n, n):
        raise InputError(
            f"the covariance is of shape {matrix.shape}; expected numbers of shape ({n}, {n}), in"
            " the order of the rows"
        )
    matrix = matrix.astype(float)
    if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T, rtol=1e-8, atol=0):
        raise InputError("the covariance is not finite and symmetric")
    lowest = float(np.linalg.eigvalsh(matrix)[0])
    if not lowest > 1e-14 * float(np.trace(matrix)) / n:
        raise InputError(
            f"the covariance is not positive definite: its lowest eigenvalue is {lowest:.3g}; one"
            " estimated from fewer realisations than points never is: give the realisations"
        )
    return np.asarray((matrix + matrix.T) / 2)


# Realisations -------------------------------------------------------------------------------------


def _from_realisations(
    columns: Mapping[str, Array], y: Array, ids: NDArray[Any], how: Mapping[str, Any]
) -> Points:
    if ids.dtype.kind == "f" and np.isnan(ids).any():
        raise InputError("the column of realisations holds NaN; expected an id in every row")
    places = np.stack(list(columns.values()), axis=1)
    unique, point = np.unique(places, axis=0, return_inverse=True)
    point = point.reshape(-1)
    _, who = np.unique(ids, return_inverse=True)
    who = who.reshape(-1)
    order = np.lexsort((point, who))
    point, who, y = point[order], who[order], y[order]
    if np.any((np.diff(who) == 0) & (np.diff(point) == 0)):
        at = int(np.flatnonzero((np.diff(who) == 0) & (np.diff(point) == 0))[0])
        raise InputError(
            f"realisation {ids[order[at]]} has the point {_told(columns, unique[point[at]])} twice"
        )
    groups = tuple(_groups(point, who, y))
    if any(len(group.values) < 2 for group in groups):
        groups = (_padded(point, who, y),)
    counts = np.bincount(point, minlength=len(unique))
    few = np.flatnonzero(counts < 2)
    if few.size:
        raise InputError(
            f"{few.size} points have one realisation, the first {_told(columns, unique[few[0]])};"
            " expected at least two, which an error needs"
        )
    mean = np.bincount(point, y, len(unique)) / counts
    square = np.bincount(point, (y - mean[point]) ** 2, len(unique))
    error = np.sqrt(square / (counts - 1) / counts)
    same = np.flatnonzero(~(error > 0))
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


def _filled(values: Array, by: float) -> Array:
    return np.where(np.isnan(values), by, values)

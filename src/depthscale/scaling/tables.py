"""Columns out of whatever holds measurements: files, frames, grids, mappings and records."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthscale.answers import InputError, some

Array = NDArray[np.float64]

ENDINGS = (".csv", ".tsv", ".json", ".nc")
_SEPARATORS = (",", ";", "\t")
_NOTHING = ("", "na", "nan", "null", "none")


# Files --------------------------------------------------------------------------------------------


def read_table(path: str | Path) -> Mapping[str, Any]:
    """The columns of a file, as ``as_points`` takes them.

    Parameters
    ----------
    path:
        ``.csv`` or ``.tsv``: a line of names, then rows, between commas, semicolons (then also with
        decimal commas) or tabs; lines that begin with # and empty ones do not count. ``.json``: a
        list of records or an object of columns. ``.nc``: a grid in netCDF.

    Returns
    -------
    Mapping
        Arrays by name; a list where some field is no number; of ``.nc`` the xarray Dataset.

    Raises
    ------
    InputError
        A file that is missing, cut off, empty or of another kind, with the line that is at fault.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "runs.csv"
    ...     _ = path.write_text("# two sizes\\nL; m\\n8; 0,5\\n16; 0,25\\n")
    ...     read_table(path)["m"].tolist()
    [0.5, 0.25]
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path}: expected a file that ends in {', '.join(ENDINGS)}")
    if not path.is_file():
        raise InputError(f"{path} is no file")
    if ending == ".nc":
        return _read_grid(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8: byte {error.start} is not") from None
    if not text.strip():
        raise InputError(f"{path} is empty; expected names and rows")
    if ending == ".json":
        return _from_json(path, text)
    return _from_lines(path, text, "\t" if ending == ".tsv" else None)


def _from_json(path: Path, text: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip())
        raise InputError(
            f"{path} is no JSON: {error.msg} in line {error.lineno}, column {error.colno}"
            + ("; the file is cut off" if cut else "")
        ) from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply; expected records or columns") from None
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        return _from_records(content)
    if isinstance(content, dict) and content:
        for name, column in content.items():
            if not isinstance(column, list):
                raise InputError(f"{path}: {name} is {column!r}; expected a list for each column")
        return content
    raise InputError(f"{path}: expected a list of records or an object of columns")


def _from_records(records: Sequence[Mapping[Any, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in records for name in row)
    return {str(name): [row.get(name, math.nan) for row in records] for name in names}


def _from_lines(path: Path, text: str, separator: str | None) -> Mapping[str, Any]:
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if len(lines) < 2:
        raise InputError(f"{path} holds {'names but no' if lines else 'no names and no'} rows")
    first = lines[0][1]
    separator = separator or max(_SEPARATORS, key=first.count)
    rows = _fields(path, [line for _, line in lines], separator)
    names, *body = rows
    _check_header(path, lines[0][0], names)
    for (number, _), row in zip(lines[1:], body, strict=True):
        if len(row) != len(names):
            last = number == lines[-1][0] and len(row) < len(names)
            raise InputError(
                f"{path}, line {number}: {len(row)} fields for {len(names)} names"
                + ("; the file is cut off" if last else "")
            )
    return {
        name: _column([row[k] for row in body], separator == ";") for k, name in enumerate(names)
    }


def _fields(path: Path, lines: Sequence[str], separator: str) -> list[list[str]]:
    try:
        source = io.StringIO("\n".join(lines))
        read = csv.reader(source, delimiter=separator, skipinitialspace=True, strict=True)
        rows = [[field.strip() for field in row] for row in read]
    except csv.Error as error:
        raise InputError(f"{path}: {error}; a quotation mark that is not closed?") from None
    if len(rows) != len(lines):
        raise InputError(f"{path}: a field spans several lines; expected one row a line")
    return rows


def _check_header(path: Path, number: int, names: Sequence[str]) -> None:
    where = f"{path}, line {number}"
    if all(_is_number(name) for name in names):
        raise InputError(f"{where}: only numbers; expected the names of the columns first")
    if "" in names:
        raise InputError(f"{where}: column {list(names).index('') + 1} has no name")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{where}: the column {twice[0]} occurs twice; expected different names")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _column(fields: list[str], commas: bool) -> Any:
    """Numbers where all fields are; else a list in which the others stay as they are."""
    if commas:
        fields = [field.replace(",", ".") if field.count(",") == 1 else field for field in fields]
    try:
        return np.array(fields, dtype=float)
    except ValueError:
        pass
    values: list[float | str] = []
    for field in fields:
        if field.lower() in _NOTHING:
            values.append(math.nan)
        else:
            values.append(float(field) if _is_number(field) else field)
    return values if any(isinstance(value, str) for value in values) else np.array(values)


def _read_grid(path: Path) -> Mapping[str, Any]:
    import xarray

    try:
        with xarray.open_dataset(path) as grid:
            return grid.load()  # type: ignore[return-value]
    except Exception as error:  # whatever bytes of another kind make of the reader
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} cannot be read as netCDF, or is cut off: {reason}; netCDF 4 needs the package"
            " h5netcdf or netCDF4"
        ) from None


# Data in memory -----------------------------------------------------------------------------------


def names_of(data: Any) -> list[str]:
    """Names of the columns, or of the variables and dimensions of a grid."""
    if is_grid(data):
        grid = _as_dataset(data)
        return [str(name) for name in dict.fromkeys([*grid.dims, *grid.coords, *grid.data_vars])]
    return list(columns_of(data, ()))


def columns_of(
    data: Any, needed: Collection[str], y: str = "", label: str | None = None
) -> Mapping[str, Any]:
    """Columns by name; of a grid those that are needed and the label, one row a cell of ``y``.

    A dimension without coordinates can only be the label, for which its numbers do.
    """
    if is_grid(data):
        return _flat(_as_dataset(data), needed, y, label)
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return _of_frame(data)
    if isinstance(data, Mapping):
        return {str(name): column for name, column in data.items()}
    records = isinstance(data, Sequence) and not isinstance(data, str | bytes)
    if records and all(isinstance(row, Mapping) for row in data):
        if not data:
            raise InputError("the data hold no point: expected rows of numbers")
        return _from_records(data)
    raise InputError(
        f"data is {type(data).__name__}; expected a pandas DataFrame, an xarray Dataset, a mapping"
        " of columns or a list of records"
    )


def is_grid(data: Any) -> bool:
    """Whether it is of xarray, where cells without a number count as not measured."""
    return hasattr(data, "to_dataframe") and hasattr(data, "dims")


def _as_dataset(data: Any) -> Any:
    if hasattr(data, "data_vars"):
        return data
    if data.name is None:
        raise InputError("the DataArray has no name; expected data.rename('y') or a Dataset")
    return data.to_dataset()


def _flat(grid: Any, needed: Collection[str], y: str, label: str | None) -> Mapping[str, Any]:
    for name in needed:
        check_there(name, names_of(grid))
        if name in grid.dims and name not in grid.coords:
            raise InputError(
                f"the dimension {name} has no coordinate: expected its values, not their numbers"
            )
    if y not in grid.data_vars:
        raise InputError(f"{y} is no variable of the grid; there are {some(grid.data_vars, 12)}")
    cells = grid[y].dims
    wanted = [*needed, *([label] if label is not None else [])]
    for name in wanted:
        check_there(name, names_of(grid))
        further = [dim for dim in grid[name].dims if dim not in cells]
        if further:
            raise InputError(
                f"{name} depends on {further[0]} and {y} does not; expected the dimensions {cells}"
            )
    return {
        str(name): grid[name].broadcast_like(grid[y]).transpose(*cells).values.ravel()
        for name in wanted
    }


def _of_frame(frame: Any) -> dict[str, Any]:
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    names = [str(name) for name in frame.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"the column {twice[0]} occurs twice; expected different names")
    return {name: frame.iloc[:, k].to_numpy() for k, name in enumerate(names)}


def check_there(name: Any, names: Collection[str]) -> None:
    """``InputError`` for a column that is not there, with those that are and the closest."""
    if not isinstance(name, str):
        raise InputError(f"{name!r} is no name of a column")
    if name in names:
        return
    close = get_close_matches(name, list(names), 1, 0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise InputError(f"there is no column {name!r}; there are {some(names, 12)}{hint}")


def numbers(name: str, values: Any) -> Array:
    """A column as float64, NaN for what is missing; ``InputError`` for text, naming the row."""
    if np.ma.isMaskedArray(values):
        values = np.ma.filled(values.astype(object), None)
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"column {name} holds lists; expected numbers") from None
    if array.ndim != 1:
        raise InputError(f"column {name} has {array.ndim} dimensions; expected one")
    if array.dtype.kind in "mM":
        raise InputError(f"column {name} holds dates or durations; expected numbers")
    listed = isinstance(values, list | tuple)
    if array.dtype.kind in "iuf" and not (listed and any(isinstance(v, bool) for v in values)):
        return array.astype(float)
    result = np.empty(len(array))
    # not the array's values: numpy turns numbers beside text into text
    for row, value in enumerate(values if listed else array.tolist()):
        result[row] = math.nan if is_missing(value) else _number(name, row, value)
    return result


def is_missing(value: Any) -> bool:
    """Whether it stands for nothing, as None and pandas' own marks do."""
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # those of pandas


def _number(name: str, row: int, value: Any) -> float:
    try:
        if isinstance(value, bool | np.bool_ | str | bytes):
            raise TypeError(value)
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"column {name} holds {value!r} in row {row + 1}; expected numbers"
        ) from None

"""Points from every kind of table, their errors, and what resampling makes of them.

Means over random draws are held within 5 of their standard deviations, which a right value leaves
once in two million comparisons; seeds are fixed.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthscale.answers import InputError
from depthscale.scaling.points import Group, Points, as_points
from depthscale.scaling.tables import names_of, read_table

NAMES = {"y": "m", "x": "T", "size": "L"}


def table(n=6):
    x = np.tile(np.linspace(1, 2, n), 2)
    sizes = np.repeat([8.0, 16.0], n)
    return {"T": x, "L": sizes, "m": np.cos(x) / sizes, "e": 0.01 + 0.001 * x}


def same(one: Points, other: Points):
    assert (one.x, one.size, one.name, one.errors_known) == (
        other.x,
        other.size,
        other.name,
        other.errors_known,
    )
    assert one.columns.keys() == other.columns.keys()
    for name in one.columns:
        np.testing.assert_array_equal(one.columns[name], other.columns[name])
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.error, other.error)
    assert len(one.groups) == len(other.groups)
    for a, b in zip(one.groups, other.groups, strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.values, b.values)


# Every container says the same --------------------------------------------------------------------


def containers():
    columns = table()
    frame = pd.DataFrame(columns)
    records = [{name: columns[name][k] for name in columns} for k in range(12)]
    grid = frame.set_index(["L", "T"]).to_xarray()
    return {
        "frame": frame,
        "nullable": frame.convert_dtypes(),
        "indexed": frame.set_index(["L", "T"]),
        "lists": {name: list(column) for name, column in columns.items()},
        "series": {name: pd.Series(column) for name, column in columns.items()},
        "masked": {name: np.ma.array(column) for name, column in columns.items()},
        "records": records,
        "grid": grid,
        "turned": grid.transpose("L", "T"),
    }


@pytest.mark.parametrize("kind", list(containers()))
def test_containers_give_identical_points(kind):
    same(as_points(containers()[kind], error="e", **NAMES), as_points(table(), error="e", **NAMES))


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".columns.json", ".nc", ".eu.csv"])
def test_files_give_identical_points(tmp_path, ending):
    path, frame = tmp_path / f"runs{ending}", pd.DataFrame(table())
    if ending == ".nc":
        frame.set_index(["L", "T"]).to_xarray().to_netcdf(path, engine="scipy")
    elif ending.endswith("json"):
        records = frame.to_dict("list" if "columns" in ending else "records")
        path.write_text(json.dumps(records))
    else:
        how = {".csv": {}, ".tsv": {"sep": "\t"}, ".eu.csv": {"sep": ";", "decimal": ","}}
        path.write_text("# made for a test\n\n" + frame.to_csv(index=False, **how[ending]))
    found = as_points(read_table(path), error="e", **NAMES)
    same(found, as_points(table(), error="e", **NAMES))


def test_a_ragged_table_is_the_grid_with_holes():
    frame = pd.DataFrame(table()).drop(index=[2, 9])
    grid = frame.set_index(["L", "T"]).to_xarray()
    found = as_points(grid, error="e", **NAMES)
    same(found, as_points(frame, error="e", **NAMES))
    assert found.left_out == 2
    assert found.count == len(found) == 10


def realised(ids=7, n=4, holes=()):
    generator = np.random.default_rng(5)
    rows = [
        {"id": f"net {k}", "L": size, "T": x, "m": size * x + generator.normal()}
        for k in range(ids)
        for size in (8, 16)
        for x in np.linspace(1, 2, n)
    ]
    return pd.DataFrame([row for k, row in enumerate(rows) if k not in holes])


@pytest.mark.parametrize("holes", [(), (3, 17), tuple(range(0, 50, 9))])
def test_realisations_in_rows_and_on_a_grid_are_the_same(holes):
    frame = realised(holes=holes)
    grid = frame.set_index(["id", "L", "T"]).to_xarray()
    assert grid["m"].dims == ("id", "L", "T")
    one = as_points(frame, realisation="id", **NAMES)
    same(one, as_points(grid, realisation="id", **NAMES))
    shuffled = frame.sample(frac=1, random_state=1)
    other = as_points(shuffled, realisation="id", **NAMES)
    np.testing.assert_allclose(one.y, other.y, rtol=1e-14)
    np.testing.assert_allclose(one.sample_covariance(), other.sample_covariance(), rtol=1e-10)


def test_a_data_array_with_a_name_is_enough():
    grid = pd.DataFrame(table()).set_index(["L", "T"]).to_xarray()
    found = as_points(grid["m"], **NAMES)
    assert not found.errors_known
    np.testing.assert_array_equal(found.error, 1.0)
    with pytest.raises(InputError, match="has no name"):
        as_points(grid["m"].rename(None), **NAMES)


def test_realisations_of_a_grid_need_no_names():
    grid = realised().set_index(["id", "L", "T"]).to_xarray()
    numbered = as_points(grid.drop_vars("id"), realisation="id", **NAMES)
    same(numbered, as_points(grid, realisation="id", **NAMES))


def test_unneeded_variables_of_a_grid_do_not_count():
    grid = pd.DataFrame(table()).set_index(["L", "T"]).to_xarray()
    wide = grid.assign(other=("seed", np.arange(5.0)), text=("word", ["a", "b"]))
    same(as_points(wide, error="e", **NAMES), as_points(grid, error="e", **NAMES))
    assert set(names_of(wide)) == {"L", "T", "m", "e", "other", "text", "seed", "word"}


def test_names_of_rows_and_grids():
    assert names_of(table()) == ["T", "L", "m", "e"]
    assert names_of(pd.DataFrame(table())) == ["T", "L", "m", "e"]


# Means and errors ---------------------------------------------------------------------------------


def test_means_and_standard_errors_are_those_of_pandas():
    frame = realised(holes=(3, 17))
    found = as_points(frame, realisation="id", **NAMES)
    by = frame.groupby(["T", "L"])["m"]
    np.testing.assert_allclose(found.y, by.mean(), rtol=1e-14)
    np.testing.assert_allclose(found.error, by.sem(), rtol=1e-12)
    np.testing.assert_array_equal(found.counts, by.count())


def test_the_sample_covariance_is_that_of_numpy():
    frame = realised(ids=20)
    found = as_points(frame, realisation="id", **NAMES)
    wide = frame.pivot_table(index="id", columns=["T", "L"], values="m").to_numpy()
    np.testing.assert_allclose(found.sample_covariance(), np.cov(wide.T) / 20, atol=1e-15)
    response = np.random.default_rng(0).normal(size=(3, len(found)))
    exact = response @ np.cov(wide.T) @ response.T / 20
    np.testing.assert_allclose(found.noise(response), exact, rtol=1e-12)


PLACES = [(1.0, 8.0), (1.0, 16.0), (2.0, 8.0), (2.0, 16.0)]  # in the order of Points
IDS = 17
COVERS = {
    "all alike": lambda k, j: True,
    "three sorts": lambda k, j: k >= 8 or (k < 4) == (j % 2 == 0),
    "each its own": lambda k, j: k in (0, 15, 16) or (k >> j) & 1 == 1,
}


def designed(cover):
    """Points of ids that cover what ``cover(id, point)`` says; the value is ``4 id + point``."""
    rows = [(k, j) for k in range(IDS) for j in range(4) if cover(k, j)]
    columns = {
        "id": [k for k, _ in rows],
        "T": [PLACES[j][0] for _, j in rows],
        "L": [PLACES[j][1] for _, j in rows],
        "m": [4 * k + j for k, j in rows],
    }
    return as_points(columns, realisation="id", **NAMES)


def with_values(points, noise):
    """The same design with ``noise[id, point]`` for values."""

    def value(code):
        return np.where(np.isnan(code), np.nan, noise.ravel()[np.nan_to_num(code).astype(int)])

    groups = tuple(Group(group.rows, value(group.values)) for group in points.groups)
    return replace(points, groups=groups)


@pytest.mark.parametrize("cover", list(COVERS))
def test_the_sample_covariance_is_right_on_average(cover):
    """Exactly: it is quadratic in the values, so that its mean is its sum over unit noises.

    Realisations share noise of variance 1 over their points, each of which has 1/4 of its own; the
    means of points i and j, over ``c_i`` and ``c_j`` realisations of which ``c_ij`` are the same,
    then have the covariance ``(1 + [i = j]/4) c_ij/(c_i c_j)``.
    """
    points = designed(COVERS[cover])
    shared = [np.outer(row, np.ones(4)) for row in np.eye(IDS)]
    own = [unit.reshape(IDS, 4) / 2 for unit in np.eye(4 * IDS)]
    mean = sum(with_values(points, noise).sample_covariance() for noise in shared + own)
    there = np.array([[COVERS[cover](k, j) for j in range(4)] for k in range(IDS)], dtype=float)
    together, c = there.T @ there, there.sum(axis=0)
    exact = (1 + np.eye(4) / 4) * together / np.outer(c, c)
    if cover == "each its own":
        # one group with missing values: variances are exact, covariances lose what the means of
        # two different sets take off, sqrt(c_i c_j/((c_i - 1)(c_j - 1))) (1 - 1/c_i - 1/c_j + ..)
        stretch = np.sqrt(c / (c - 1))
        off = np.outer(stretch, stretch) * (1 - 1 / c - 1 / c[:, None] + together / np.outer(c, c))
        assert np.all(np.abs(off - 1) < 1 / c.min())
        exact = np.where(np.eye(4) > 0, exact, exact * off)
    np.testing.assert_allclose(mean, exact, rtol=1e-12)


def test_ids_that_are_used_again_do_no_harm():
    """Independent noise in every row: what one id shares between points is 0 on average."""
    points = designed(COVERS["all alike"])
    own = [unit.reshape(IDS, 4) for unit in np.eye(4 * IDS)]
    mean = sum(with_values(points, noise).sample_covariance() for noise in own)
    np.testing.assert_allclose(mean, np.eye(4) / IDS, atol=1e-15)


@pytest.mark.parametrize("cover", list(COVERS))
def test_resampling_has_the_sample_covariance(cover):
    generator = np.random.default_rng(11)
    points = with_values(designed(COVERS[cover]), generator.exponential(size=(IDS, 4)))
    moved = np.array([points.resampled(generator) for _ in range(15_000)]) - points.y
    products = moved[:, :, None] * moved[:, None, :]
    error = products.std(axis=0) / np.sqrt(15_000)
    assert np.all(np.abs(products.mean(axis=0) - points.sample_covariance()) < 5 * error)
    assert np.all(np.abs(moved.mean(axis=0)) < 5 * moved.std(axis=0) / np.sqrt(15_000))
    assert np.all(error < 0.02 * np.diag(points.sample_covariance()).max())  # so 1/IDS would show


def test_resampling_repeats_with_its_seed():
    points = as_points(realised(), realisation="id", **NAMES)
    one, other = (points.resampled(np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_many_realisations_resample_in_milliseconds():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(8000, 200))
    columns = {"T": np.tile(np.arange(100.0), 2), "L": np.repeat([8.0, 16.0], 100)}
    error = values.std(axis=0, ddof=1) / np.sqrt(8000)
    group = Group(np.arange(200), values)
    points = Points(columns, values.mean(axis=0), error, groups=(group,), x="T", size="L")
    points.resampled(generator)
    began = time.process_time()
    for _ in range(10):
        points.resampled(generator)
    assert (time.process_time() - began) / 10 < 0.05  # some 2 ms; slow machines may be slower


# Selecting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["error", "covariance", "groups", "padded"])
def test_a_selection_keeps_what_belongs_to_it(how):
    if how in ("groups", "padded"):
        holes = (3, 17) if how == "padded" else ()
        points = as_points(realised(holes=holes), realisation="id", **NAMES)
    elif how == "covariance":
        root = np.random.default_rng(1).normal(size=(12, 12))
        points = as_points(table(), covariance=root @ root.T + np.eye(12), **NAMES)
    else:
        points = as_points(table(), error="e", **NAMES)
    mask = np.arange(len(points)) % 3 != 1
    part = points.select(mask)
    np.testing.assert_array_equal(part.y, points.y[mask])
    np.testing.assert_array_equal(part.columns["T"], points.columns["T"][mask])
    np.testing.assert_allclose(
        part.sample_covariance(), points.sample_covariance()[np.ix_(mask, mask)], rtol=1e-12
    )
    same(points.select(np.ones(len(points), bool)), points)
    with pytest.raises(InputError, match="expected True or False for each"):
        points.select(np.arange(3))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_selections_compose(kept):
    points = as_points(table(), error="e", **NAMES)
    mask = np.array(kept)
    same(
        points.select(mask).select(points.columns["T"][mask] > 1.5),
        points.select(mask & (points.columns["T"] > 1.5)),
    )


def test_sizes_ascend():
    columns = table()
    columns["L"] = columns["L"][::-1]
    assert as_points(columns, error="e", **NAMES).sizes.tolist() == [8, 16]


def test_points_may_be_measured_twice():
    columns = {name: np.tile(column, 2) for name, column in table().items()}
    assert len(as_points(columns, error="e", **NAMES)) == 24


# Bad input ----------------------------------------------------------------------------------------


def put(name, row, value):
    columns = {key: list(column) for key, column in table().items()}
    columns[name][row] = value
    return columns


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (put("m", 3, np.nan), "1 of 12 values of m are no finite numbers, in rows 4"),
        (put("T", 0, None), "values of T .* in rows 1"),
        (put("L", 11, np.inf), "values of L .* in rows 12"),
        (put("e", 2, np.nan), "values of e"),
        (put("e", 2, 0.0), "1 errors are not above 0, in rows 3, the first 0: .* leave such rows"),
        (put("e", 2, -1.0), "the first -1"),
        (put("m", 1, "high"), "column m holds 'high' in row 2; expected numbers"),
        (put("m", 1, "0.5"), "column m holds '0.5' in row 2"),
        (put("m", 1, True), "column m holds True in row 2"),
        (put("m", 1, 1j), "column m holds"),
        (put("m", 1, pd.NA), "1 of 12 values of m"),
        ({**table(), "m": np.arange(12).astype("M8[ns]")}, "dates or durations"),
        (put("m", 1, [1.0]), "column m holds lists"),
        (put("m", 1, 10**400), "column m holds"),
        ({**table(), "L": np.full(12, 8.0)}, "one system size, L = 8: nothing to collapse"),
        ({**table(), "m": [1.0, 2.0]}, "different lengths"),
        ({**table(), "m": np.ones((12, 2))}, "2 dimensions"),
        ({name: [] for name in "TLme"}, "hold no point"),
        ([], "hold no point"),
        ({"T": [1.0], "l": [2.0], "m": [1.0], "e": [1.0]}, "no column 'L'; there are T, l, m, e"),
        (7, "data is int; expected a pandas DataFrame"),
        ("runs.csv", "data is str"),
        (None, "data is NoneType"),
    ],
)
def test_bad_data_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        as_points(data, error="e", **NAMES)


def test_the_closest_name_is_suggested():
    with pytest.raises(InputError, match="did you mean magnetisation"):
        as_points({**table(), "magnetisation": table()["m"]}, y="magnetization", x="T", size="L")
    for wrong in (3, None, ["T"]):
        with pytest.raises(InputError, match="no name of a column"):
            as_points(table(), y="m", x=wrong, size="L")
    with pytest.raises(InputError, match="expected a list of names"):
        as_points(table(), variables="TL", **NAMES)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"error": "e", "covariance": np.eye(12)}, "got several"),
        ({"error": "m"}, "errors are not above 0"),
        ({"error": "T"}, "error = 'T' is a variable of the form as well"),
        ({"realisation": "L"}, "realisation = 'L' is a variable"),
        ({"error": [0.1, 0.2]}, "2 errors for 12 points"),
        ({"error": 0.1}, "0 dimensions"),
        ({"covariance": np.eye(3)}, r"shape \(3, 3\); expected numbers of shape \(12, 12\)"),
        ({"covariance": np.full((12, 12), np.nan)}, "no finite numbers"),
        ({"covariance": -np.eye(12)}, "variances that are not above 0, in rows 1, 2"),
        ({"covariance": np.ones((12, 12))}, "lowest eigenvalue"),
        ({"covariance": np.eye(12) + np.eye(12, k=1) / 2}, "not symmetric: 0.5 in row 1, column 2"),
        ({"covariance": "e"}, "the covariance is of shape"),
    ],
)
def test_bad_uncertainties_are_refused(how, message):
    columns = table()
    columns["m"][0] = -1
    with pytest.raises(InputError, match=message):
        as_points(columns, **how, **NAMES)


def test_a_covariance_of_points_on_different_scales_is_accepted():
    scale = 10.0 ** np.linspace(-12, 3, 12)
    matrix = np.outer(scale, scale) * (0.5 + np.eye(12) / 2)
    points = as_points(table(), covariance=matrix, **NAMES)
    np.testing.assert_allclose(points.error, scale, rtol=1e-14)


def test_bad_realisations_are_refused():
    frame = realised(ids=3, n=2)
    with pytest.raises(InputError, match="points have one realisation, the first T = 1, L = 8"):
        as_points(frame[(frame["id"] == "net 0") | (frame["T"] > 1)], realisation="id", **NAMES)
    with pytest.raises(InputError, match="net 0 has the point T = 1, L = 8 twice"):
        as_points(pd.concat([frame, frame[:1]]), realisation="id", **NAMES)
    with pytest.raises(InputError, match="holds no id in rows 1"):
        as_points(frame.assign(id=[None, *frame["id"][1:]]), realisation="id", **NAMES)
    for missing in (pd.NA, np.nan):
        with pytest.raises(InputError, match="holds no id in rows 1"):
            as_points(frame.assign(id=[missing, *frame["id"][1:]]), realisation="id", **NAMES)
    with pytest.raises(InputError, match="holds lists"):
        as_points(frame.assign(id=[[1]] * len(frame)), realisation="id", **NAMES)
    equal = frame.assign(m=np.where(frame["T"] > 1, 0.1, frame["m"]))
    with pytest.raises(InputError, match="equal at 2 points, the first T = 2, L = 8"):
        as_points(equal, realisation="id", **NAMES)
    with pytest.raises(InputError, match="no column 'seed'"):
        as_points(frame, realisation="seed", **NAMES)


def test_grids_that_cannot_be_placed_are_refused():
    grid = pd.DataFrame(table()).set_index(["L", "T"]).to_xarray()
    with pytest.raises(InputError, match="the dimension L has no coordinate"):
        as_points(grid.drop_vars("L"), **NAMES)
    spread = grid.assign(e=grid["e"].expand_dims(seed=3))
    with pytest.raises(InputError, match="e depends on seed and m does not"):
        as_points(spread, error="e", **NAMES)
    with pytest.raises(InputError, match="no column 'M'"):
        as_points(grid, y="M", x="T", size="L")


# Files that are wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "# only a comment\n", "no names and no rows"),
        ("a.csv", "L,m\n", "names but no rows"),
        ("a.csv", "1,2\n3,4\n", "only numbers; expected the names"),
        ("a.csv", "L,m,L\n1,2,3\n", "line 1: the column L occurs twice"),
        ("a.csv", "L,,m\n1,2,3\n", "column 2 has no name"),
        ("a.csv", "# c\nL,m\n1,2\n\n3\n", "line 5: 1 fields for 2 names; the file is cut off"),
        ("a.csv", "L,m\n1,2,3\n4,5\n", "line 2: 3 fields for 2 names$"),
        ("a.csv", 'L,m\n1,"2\n3,4\n', "quotation|spans several lines"),
        ("a.csv", b"L,m\n\xff\xfe,2\n", "no text in UTF-8"),
        ("a.json", '[{"L": 1}, {"L": ', "cut off"),
        ("a.json", "{L: 1}", "no JSON: .* line 1, column 2"),
        ("a.json", "[1, 2]", "expected a list of records"),
        ("a.json", '{"L": 1}', "L is 1; expected a list"),
        ("a.json", "[" * 100000, "no JSON|nested too deeply"),
        ("a.nc", b"CDF\x01\x00\x00", "cannot be read as netCDF"),
        ("a.nc", b"nothing of the kind", "cannot be read as netCDF"),
        ("a.xlsx", b"PK", "expected a file that ends in .csv"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_files_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match="is no file"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(InputError, match="is no file"):
        read_table(tmp_path / "b.csv")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_cut_netcdf_is_refused(tmp_path, share):
    path = tmp_path / "cut.nc"
    pd.DataFrame(table()).set_index(["L", "T"]).to_xarray().to_netcdf(path, engine="scipy")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="cut off"):
        read_table(path)


def test_text_in_a_column_is_told_with_its_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("name,T,L,m\nx,1,8,0.5\ny,1,16,oops\n")
    read = read_table(path)
    assert read["name"] == ["x", "y"]
    with pytest.raises(InputError, match="column m holds 'oops' in row 2"):
        as_points(read, **NAMES)


def test_empty_fields_are_missing_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("T,L,m\n1,8,\n1,16,NA\n")
    assert np.isnan(read_table(path)["m"]).all()

"""The files of a simulation: netCDF, zarr and CSV, whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands.output import check_writable
from depthscale.files import replacing, whole_folder, writing

if TYPE_CHECKING:
    import xarray as xr

    from depthscale.finite.sampled import Sampled

ENDINGS = (".nc", ".zarr", ".csv")
MADE_BY = "depthscale simulate"
LARGEST = 2**31  # whole numbers of netCDF 3


def check_savable(path: Path | None) -> None:
    """Refuse a path that cannot be written before the work is done; folders of our own can be."""
    if path is None or path.suffix != ".zarr":
        check_writable(path, ENDINGS, replaced=True)
        return
    from importlib.util import find_spec

    if find_spec("zarr") is None:
        raise InputError(f"writing {path.name} takes zarr: pip install depthscale[zarr]")
    if path.is_file():
        raise InputError(f"{path} is a file; expected a new name, or a zarr store to replace")
    if not path.is_dir():
        check_writable(path)
    elif not _ours(path):
        raise InputError(
            f"{path} is a folder that {MADE_BY} did not write; give another name, or remove it"
        )
    elif not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path} cannot be written: no permission")


def _ours(folder: Path) -> bool:
    """Whether a folder is empty, or a store that this command made."""
    try:
        made = json.loads((folder / ".zattrs").read_text(encoding="utf-8")).get("made_by")
    except (OSError, ValueError, AttributeError):
        return not any(folder.iterdir())
    return bool(made == MADE_BY)


def save(result: Sampled, payload: dict[str, Any], path: Path) -> None:
    """Write statistics and theory; the file or store appears once it is whole."""
    if path.suffix == ".csv":
        with replacing(path) as beside:
            _write_table(payload, beside)
    elif path.suffix == ".nc":
        with replacing(path) as beside:
            # netCDF 3, which scipy writes without further libraries
            dataset(result, payload).to_netcdf(beside, engine="scipy")
    else:
        with writing(path):
            _write_store(dataset(result, payload), path)


def _write_store(data: xr.Dataset, path: Path) -> None:
    with whole_folder(path) as beside:
        # Format 2, which has texts and consolidated metadata in its specification.
        data.to_zarr(beside, mode="w", zarr_format=2, consolidated=True)


def dataset(result: Sampled, payload: dict[str, Any]) -> xr.Dataset:
    """All statistics of all inputs, and the theory as variables ``theory_...``."""
    import numpy as np

    import depthscale

    data = result.to_xarray()
    sizes = {len(payload["layer"]): "layer", len(payload["hop"]): "hop"}
    for name, values in theory_columns(payload["theory"]).items():
        about = {"long_name": f"theory: {name.replace('_', ' ')}", "units": "1"}
        data[f"theory_{name}"] = (sizes[len(values)], np.array(values, dtype=float), about)
    seed = data.attrs["seed"]
    return data.assign_attrs(
        made_by=MADE_BY,
        version=depthscale.__version__,
        seed=seed if seed < LARGEST else str(seed),
        nets=result.nets if result.nets < LARGEST else str(result.nets),
        engine_reason=payload["engine_reason"],
        settings=json.dumps(payload["settings"]),
        reasons=json.dumps(payload["reasons"]),
    )


def theory_columns(theory: dict[str, Any], above: str = "") -> dict[str, list[Any]]:
    """The theory's lists by their path, such as ``first_order_eps_mean``."""
    columns: dict[str, list[Any]] = {}
    for key, value in theory.items():
        name = f"{above}_{key}" if above else key
        if isinstance(value, dict):
            columns |= theory_columns(value, name)
        elif isinstance(value, list):
            columns[name] = value
    return columns


def _write_table(payload: dict[str, Any], path: Path) -> None:
    """A row a layer; those of hop l, from layer l to l + 1, stand beside layer l."""
    columns: dict[str, list[Any]] = {
        "layer": payload["layer"],
        "width": payload["settings"]["widths"],
        "dead": payload["dead"],
    }
    for name in ("q", "eps", "grad_aa", "grad_ab", "grad_ab_abs"):
        for statistic, values in (payload[name] or {}).items():
            columns[f"{name}_{statistic}"] = values
    columns |= {f"theory_{k}": v for k, v in theory_columns(payload["theory"]).items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for k in range(len(payload["layer"])):
            writer.writerow([v[k] if k < len(v) else None for v in columns.values()])

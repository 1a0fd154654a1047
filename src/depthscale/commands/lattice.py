"""The command that runs random convolutional networks as spatial systems."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands import Command
from depthscale.commands.options import (
    activation_option,
    length,
    misalignment,
    number,
    number_range,
    positive,
    seed,
    shape,
)
from depthscale.commands.output import (
    HEALTHY,
    PLOTS,
    check_writable,
    load_activation,
    others_to_stderr,
    print_json,
    print_text,
    say_written,
)
from depthscale.files import replacing

if TYPE_CHECKING:
    from depthscale.finite.lattice.lattice import Lattice
    from depthscale.finite.lattice.result import LatticeRun

MOST_LAYERS = 1_000_000
SAVED = ("rho", "local", "active")

LATTICE = """\
examples:
  depthscale lattice --activation tanh --sigma-w 1.78 --sigma-b .3 --depth 200
  depthscale lattice --activation tanh --sigma-w 1.65:1.95:7 --sigma-b .3 --save runs.csv
  depthscale lattice --activation tanh --sigma-w 1.8 --sigma-b .3 --start site --plot spread.svg
  depthscale lattice --activation tanh --sigma-w 1.4 --sigma-b .3 --sharing local --size 64x64
  depthscale lattice --activation erf --sigma-w 1.5 --start 1e-99 --checkpoint run.npz    (resumes)

Sends two inputs through random convolutional networks with circular padding, and follows how far
they are apart: rho = 1 - Pearson correlation over channels and sites, however small. Every network
has weights of its own in every layer. A range of --sigma-w runs networks of their own at each.

--save run.csv writes a row for each network and layer (depth, sigma_w, size, realisation, rho, ...)
which depthscale collapse reads; run.nc all that was measured. The JSON holds "runs", one for each
sigma_w, with "depth", "rho", "rho_error", "relative_sd" (standard deviation over mean, between
networks), "active", "effective_exponent" and, from a changed site, "survival", "active_sites" and
"spread"; null where a number does not exist.

"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    activation_option(parser)
    add("--sigma-w", type=number_range, required=True, metavar="S", help="weight scale, above 0, or"
        " a range MIN:MAX:N")  # fmt: skip
    add("--sigma-b", type=number, default=0.0, help="bias scale (default 0)")
    add("--channels", type=positive, default=5, help="default 5")
    add("--kernel", type=positive, default=3, help="sites along every axis (default 3)")
    add("--size", type=shape, default=(256,), metavar="N|NxM", help="sites of a ring, or of a torus"
        " (default 256)")  # fmt: skip
    add("--sharing", type=_sharing, default="shared", metavar="WHO", help="of weights: shared"
        " (default) by all sites, local (none), groups of so many neighbours, or a fraction such as"
        " 0.5 of variance of each site's own")  # fmt: skip
    add("--drop", type=number, default=0.0, help="probability dropped (default 0)")
    add("--masks", choices=("independent", "shared"), default="independent", help="of the two "
        "inputs (default independent)")  # fmt: skip
    add("--depth", type=positive, default=200, help="layers (default 200)")
    add("--realisations", type=positive, default=100, help="networks (default 100)")
    add("--start", type=_start, default="independent", help="independent (default), site or spread "
        "(equal but for one site), or a misalignment such as 1e-200")  # fmt: skip
    add("--q0", type=length, help="mean square of the inputs (default: where wide layers settle)")
    add("--threshold", type=number, default=0.01, help="of |d|^2/(|h1|^2 + |h2|^2), above which a "
        "site is active (default 0.01)")  # fmt: skip
    add("--records", type=positive, default=32, help="about how many layers to measure, evenly in "
        "the logarithm (default 32)")  # fmt: skip
    add("--seed", type=seed, default=0)
    add("--precision", choices=("single", "double"), default="single")
    add("--workers", type=positive, default=1, help="processes (default 1); same results")
    add("--device", default="cpu", help="cpu (default) or cuda")
    add("--checkpoint", type=Path, metavar="FILE", help="save the run there now and then, and go on"
        " from there")  # fmt: skip
    add("--save", type=Path, metavar="PATH", help="write every network's values: .csv or .nc")
    add("--plot", type=Path, metavar="PATH", help="write the curves: .svg, .png or .pdf")


def _sharing(text: str) -> str | int | float:
    if text in ("shared", "local"):
        return text
    if text.isdecimal():
        return int(text)
    try:
        return number(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected shared, local, a number of neighbouring sites, or a fraction, got {text!r}"
        ) from None


def _start(text: str) -> str | float:
    if text in ("independent", "site", "spread"):
        return "independent" if text == "independent" else "site"
    try:
        return misalignment(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected independent, site or a misalignment from 0 to 2, got {text!r}"
        ) from None


def lattice(options: argparse.Namespace) -> int:
    """Run the networks, print what came out, save it and draw it."""
    if options.depth > MOST_LAYERS:
        raise InputError(f"--depth is {options.depth}; expected at most {MOST_LAYERS} layers")
    check_writable(options.save, (".csv", ".nc"), replaced=True)
    check_writable(options.plot, PLOTS, replaced=True)
    check_writable(options.checkpoint, replaced=True)
    started = time.perf_counter()
    with others_to_stderr():
        runs = _runs(options)
        payload = _record(runs, time.perf_counter() - started)
        if options.save is not None:
            with replacing(options.save) as beside:
                _save(runs, beside)
        if options.plot is not None:
            from depthscale.report.lattices import plot_lattices

            with replacing(options.plot) as beside:
                plot_lattices(payload["runs"], beside)
    if options.json:
        print_json(payload, indent=None)
    else:
        from depthscale.report.lattice_summaries import render_lattices

        print_text(render_lattices(payload))
    say_written(options.json, options.save, options.plot)
    return HEALTHY


def _runs(options: argparse.Namespace) -> list[LatticeRun]:
    """One run for each sigma_w, with a seed of its own."""
    import numpy as np

    scales = np.linspace(*options.sigma_w).tolist()
    lattices = [_lattice(options, sigma_w) for sigma_w in scales]
    return [
        made.run(
            options.depth,
            options.realisations,
            options.start,
            options.seed + k,
            record=options.records,
            q0=options.q0,
            precision=options.precision,
            device=options.device,
            workers=options.workers,
            checkpoint=_checkpoint(options.checkpoint, k, len(lattices)),
        )
        for k, made in enumerate(lattices)
    ]


def _lattice(options: argparse.Namespace, sigma_w: float) -> Lattice:
    from depthscale.finite.lattice.lattice import Lattice

    return Lattice(
        load_activation(options.activation),
        sigma_w,
        options.sigma_b,
        channels=options.channels,
        kernel=options.kernel,
        size=options.size,
        sharing=options.sharing,
        drop=options.drop,
        masks=options.masks,
        threshold=options.threshold,
    )


def _checkpoint(path: Path | None, k: int, count: int) -> Path | None:
    """A file for each sigma_w."""
    if path is None or count == 1:
        return path
    return path.with_name(f"{path.stem}-{k}{path.suffix}")


def _record(runs: list[LatticeRun], seconds: float) -> dict[str, Any]:
    from depthscale.report.lattice_summaries import lattice_headline

    records = [run.to_dict() for run in runs]
    return {"headline": lattice_headline(records), "runs": records, "seconds": seconds}


def _save(runs: list[LatticeRun], path: Path) -> None:
    if path.suffix == ".csv":
        import pandas as pd

        tables = [run.table(SAVED) for run in runs]
        for k, table in enumerate(tables):  # networks of different weights are different ones
            table["realisation"] += k * runs[0].realisations
        pd.concat(tables).to_csv(path, index=False)
        return
    import xarray as xr

    data = xr.concat([run.to_xarray() for run in runs], "sigma_w", combine_attrs="drop_conflicts")
    data = data.assign_coords(sigma_w=[run.about["sigma_w"] for run in runs])
    for name in ("depth", "realisation"):  # whole numbers of netCDF 3, which needs no library
        data[name] = data[name].astype("int32")
    data.to_netcdf(path, engine="scipy")


COMMANDS = {"lattice": Command(LATTICE, _arguments, lattice)}

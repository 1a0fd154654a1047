"""The command of scaling analysis: data that fall onto one curve, and whether to believe it."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands import Command
from depthscale.commands.options import count, number, seed
from depthscale.commands.output import (
    FINDINGS,
    HEALTHY,
    PLOTS,
    check_writable,
    print_json,
    print_text,
    say_written,
    working,
)
from depthscale.files import writing

if TYPE_CHECKING:
    import argparse

COLLAPSE = """\
examples:
  depthscale collapse data.csv --x T --y m --size L --error e \\
      --form "L^-c2 * F((T - Tc) * L^c1)" --json
  depthscale collapse runs.csv --x sigma_w --y rho --size depth --realisation realisation \\
      --form "depth^-delta * F((sigma_w - s_c) * depth^nu)" --window depth=20:200 --plot out.svg
  depthscale collapse data.csv --x T --y m --size L --error e \\
      --form "L^-b * F((T - Tc) * L^a) * (1 + c*L^-omega)" --fix omega=0.8

Names of the form that are columns of the data are variables, all others are fitted. F is any smooth
curve of one or two arguments. The answer says how the parameters move when small or large sizes are
left out, or when a correction to scaling is allowed, and warns where the errors do not hold that.

The data: .csv, .tsv, .json or .nc, one row a point, or a point and realisation.

The JSON holds "parameters" (name: "value", "error", "low", "high"), "reduced_chi2", "dof",
"p_value", "stability", "effective" and "corrected" (lists of fits), "warnings" and "seconds".
Exit code 1: the points do not fall onto one curve, or the parameters are not stable.

"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="a table: .csv, .tsv, .json, .nc")
    add("--form", required=True, help='such as "L^-c2 * F((T - Tc) * L^c1)"')
    for name, what in (
        ("y", "what was measured"),
        ("x", "the control variable"),
        ("size", "what labels the curves"),
    ):
        add(f"--{name}", required=True, metavar="COLUMN", help=what)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--error", metavar="COLUMN", help="standard errors")
    source.add_argument(
        "--covariance",
        type=Path,
        metavar="PATH",
        help="or: their covariance, in the order of the rows: .npy, or .csv without a header",
    )
    source.add_argument("--realisation", metavar="COLUMN", help="or: tells realisations apart")
    add("--start", type=_assigned, action="append", default=[], metavar="NAME=VALUE",
        help="where to begin (default: everywhere)")  # fmt: skip
    add("--fix", type=_assigned, action="append", default=[], metavar="NAME=VALUE",
        help="hold a parameter")  # fmt: skip
    add("--bound", type=_range, action="append", default=[], metavar="NAME=LOW:HIGH",
        help="limits of a parameter; where it runs into one, that is told")  # fmt: skip
    add("--window", type=_range, action="append", default=[], metavar="COLUMN=LOW:HIGH",
        help="rows that are used")  # fmt: skip
    add("--criterion", choices=("aic", "bic"), default="aic", help="by which curves are weighed "
        "(default aic)")  # fmt: skip
    add("--resamples", type=count, help="resampled fits for the errors (default 200 for "
        "realisations, else 0: curvature)")  # fmt: skip
    add("--profile", action="store_true", help="68 %% intervals from the profile of chi-square")
    add("--checks", action="store_true", help="also by Houdayer and Hartmann's measure and by a "
        "Gaussian process")  # fmt: skip
    add("--seed", type=seed, default=0)
    add("--save", type=Path, metavar="PATH", help="write points, scaled points and parameters: .nc")
    add("--plot", type=Path, metavar="PATH", help="data, collapse, residuals and stability: .svg, "
        ".png or .pdf")  # fmt: skip


def _assigned(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if not name.strip() or not value:
        raise ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name.strip(), number(value)


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, _, rest = text.partition("=")
    parts = rest.split(":")
    if not name.strip() or len(parts) != 2:
        raise ArgumentTypeError(f"expected NAME=LOW:HIGH, got {text!r}")
    return name.strip(), (number(parts[0]), number(parts[1]))


def _matrix(path: Path) -> Any:
    """A square matrix from a file."""
    import numpy as np

    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} holds no matrix ({error}); expected .npy, or numbers between commas"
        ) from error


def run(options: argparse.Namespace) -> int:
    """Print the collapse, save it and draw it."""
    check_writable(options.save, (".nc",))
    check_writable(options.plot, PLOTS)
    with working("Fitting"):
        from depthscale.scaling.collapse import collapse
        from depthscale.scaling.tables import read_table

        found = collapse(
            read_table(options.data),
            options.form,
            y=options.y,
            x=options.x,
            size=options.size,
            error=options.error,
            covariance=None if options.covariance is None else _matrix(options.covariance),
            realisation=options.realisation,
            start=dict(options.start),
            fixed=dict(options.fix),
            bounds=dict(options.bound),
            window=dict(options.window),
            criterion=options.criterion,
            resamples=options.resamples,
            profile=options.profile,
            checks=options.checks,
            seed=options.seed,
        )
        payload = found.to_dict()
        if options.save is not None:
            with writing(options.save):
                found.to_xarray().to_netcdf(options.save, engine="scipy")
        if options.plot is not None:
            with writing(options.plot):
                found.plot(options.plot)
    if options.json:
        print_json(payload)
    else:
        from depthscale.report.collapse_summaries import render_collapse

        print_text(render_collapse(payload))
    say_written(options.json, options.save, options.plot)
    return HEALTHY if found.stable else FINDINGS


COMMANDS = {"collapse": Command(COLLAPSE, _arguments, run)}

"""The commands of the exact maps: one network, one critical point, a plane of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands import Command
from depthscale.commands.options import (
    NO_BRANCH,
    UNEVEN,
    activation_option,
    depth_options,
    length,
    masks_option,
    number,
    number_range,
    place_options,
    positive,
)
from depthscale.commands.output import (
    FINDINGS,
    HEALTHY,
    MOST_LAYERS,
    PLOTS,
    check_writable,
    load_activation,
    plain,
    print_json,
    print_text,
    put,
    say_written,
    start_of_pair,
    working,
)
from depthscale.files import writing

if TYPE_CHECKING:
    import argparse

    import numpy as np

MOST_NETWORKS = 1_000_000  # of a phase diagram: some minutes and 100 MB
BIAS = "a phase diagram takes noise that meets both inputs alike and spares the bias"

THEORY = """\
examples:
  depthscale theory --activation tanh --sigma-w 1.409 --sigma-b 0.3162 --drop 0.0001 --json
  depthscale theory --activation "leaky_relu(0.2)" --sigma-w 1.39 --depth 40
  depthscale theory --activation activations.py:shifted --sigma-w 1.2     (runs that file)

sigma_w and sigma_b are standard deviations: weights are N(0, sigma_w^2 / fan_in), biases
N(0, sigma_b^2). drop is the probability dropped. With --masks layers the whole branch with its bias
is dropped at once; with --skip 1 this is stochastic depth.

"""

CRITICAL = """\
examples:
  depthscale critical --activation tanh --sigma-b 0.3162
  depthscale critical --activation gelu --q 6 --drop 0.01 --json
  depthscale critical --activation tanh --sigma-b 0.3162 --depth 50     (drop that 50 layers bear)

Exit code 1 where there is no critical point; the reason is printed.

"""

PHASE = """\
examples:
  depthscale phase --activation tanh --plot phase.svg
  depthscale phase --activation erf --sigma-w 1:2:50 --sigma-b 0:0.5:50 --save phase.nc
  depthscale phase --activation relu --drop 0:0.3:4 --sigma-b 0.1:1:10 --json
  depthscale phase --activation tanh --sigma-b 0.3 --drop 0:0.3:31 --plot drop.svg

A range is MIN:MAX:N, evenly spaced with both ends included, or one number. --plot draws the plane
of the two axes with several values; with three, a row for each of up to four drops. In the JSON,
null marks what does not exist or is infinite; the variable "phase" is an index into the names under
attributes.phases. An activation without a slope, such as sign, has no phase diagram: exit code 2.

"""


def _theory_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    activation_option(parser)
    add("--sigma-w", type=number, required=True, help="weight scale, above 0")
    add("--sigma-b", type=number, default=0.0, help="bias scale (default 0)")
    add("--drop", type=number, default=0.0, help="probability dropped, in [0, 1) (default 0)")
    masks_option(parser)
    add("--skip", type=number, default=0.0, help="residual branch h' = SKIP h + ... (default 0)")
    depth_options(parser)
    add("--q0", type=length, help="with --depth: its first length (default: the fixed point)")


def _critical_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    activation_option(parser)
    place_options(parser)
    add("--drop", type=number, default=0.0, help="probability dropped, in [0, 1) (default 0)")
    masks_option(parser, clean=UNEVEN, layers=NO_BRANCH)
    add("--convention", choices=("forward", "gradient"), default="forward",
        help="what is tuned to 1: the slope chi of the correlation map, or the growth of the "
        "squared gradient")  # fmt: skip
    add("--depth", type=positive, help="also the largest drop whose depth scale reaches that far")


def _phase_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    activation_option(parser)
    add(
        "--sigma-w",
        type=number_range,
        default="0.5:3:26",
        metavar="RANGE",
        help="weight scale (default 0.5:3:26)",
    )
    add("--sigma-b", type=number_range, default="0:1:21", metavar="RANGE",
        help="bias scale (default 0:1:21)")  # fmt: skip
    add("--drop", type=number_range, default="0", metavar="RANGE",
        help="probability dropped (default 0)")  # fmt: skip
    masks_option(parser, clean=UNEVEN, layers=BIAS)
    add("--save", type=Path, metavar="PATH", help="write the grid: .nc (netCDF) or .csv")
    add("--plot", type=Path, metavar="PATH", help="write the diagram: .svg, .png or .pdf")


def theory(options: argparse.Namespace) -> int:
    """Print fixed points and depth scales; 1 where nothing settles."""
    from depthscale.theory.meanfield import MeanField

    if (options.depth or 0) > MOST_LAYERS:
        raise InputError(f"--depth is {options.depth}; expected at most {MOST_LAYERS} layers")
    eps0, path = start_of_pair(options), None
    with working("Integrating"):
        field = MeanField(
            load_activation(options.activation),
            sigma_w=options.sigma_w,
            sigma_b=options.sigma_b,
            drop=options.drop,
            masks=options.masks,
            skip=options.skip,
        )
        payload = {**field.to_dict(), "skip": field.skip}
        if options.depth is not None:
            path = field.trajectory(options.depth, q0=options.q0, eps0=eps0)
    if options.json:
        if path is not None:
            payload["trajectory"] = {
                name: plain(curve.tolist()) for name, curve in vars(path).items()
            }
        print_json(payload)
    else:
        from depthscale.report.summaries import render_theory

        print_text(render_theory(payload, path))
    return FINDINGS if payload["eps"] is None else HEALTHY


def critical(options: argparse.Namespace) -> int:
    """Print the critical point; 1 where there is none."""
    from depthscale.theory.criticality import critical_point, max_drop

    sigma_b = 0.0 if options.sigma_b is None and options.q is None else options.sigma_b
    with working("Searching"):
        activation = load_activation(options.activation)
        point = critical_point(
            activation,
            sigma_b=sigma_b,
            q=options.q,
            drop=options.drop,
            convention=options.convention,
            masks=options.masks,
        )
        payload = point.to_dict()
        if options.depth is not None:
            bias = float(point.sigma_b) if point.exists else sigma_b or 0.0
            reach = max_drop(activation, options.depth, bias, options.masks, options.convention)
            put(payload, "max_drop", reach)
    if options.json:
        print_json(payload)
    else:
        from depthscale.report.summaries import render_critical

        print_text(render_critical(payload))
    return HEALTHY if point.exists else FINDINGS


def phase(options: argparse.Namespace) -> int:
    """Print a phase diagram, save it and draw it."""
    from depthscale.theory.phase import phase_diagram

    axes = (options.sigma_w, options.sigma_b, options.drop)
    check_writable(options.save, (".nc", ".csv"))
    check_writable(options.plot, PLOTS)
    if options.plot is not None and sum(size > 1 for _, _, size in axes) < 2:
        raise InputError(
            "--plot draws a plane; give two of --sigma-w, --sigma-b, --drop a range MIN:MAX:N"
        )
    networks = math.prod(size for _, _, size in axes)
    if networks > MOST_NETWORKS:
        raise InputError(
            f"the ranges ask for {networks:,} networks; at most {MOST_NETWORKS:,} in one diagram"
        )
    with working("Computing the phase diagram"):
        grid = phase_diagram(
            load_activation(options.activation),
            sigma_w=_points(options.sigma_w),
            sigma_b=_points(options.sigma_b),
            drop=_points(options.drop) if options.drop[2] > 1 else options.drop[0],
            masks=options.masks,
        )
        if options.save is not None:
            with writing(options.save):
                _save(grid, options.save)
        if options.plot is not None:
            from depthscale.report.plots import plot_phase

            with writing(options.plot):
                plot_phase(grid, options.plot)
    if options.json:
        print_json(_grid_to_dict(grid), indent=None)
    else:
        from depthscale.report.summaries import render_phase

        print_text(render_phase(grid))
    say_written(options.json, options.save, options.plot)
    return HEALTHY


def _points(spec: tuple[float, float, int]) -> np.ndarray:
    import numpy as np

    return np.linspace(*spec)


def _save(grid: Any, path: Path) -> None:
    """Write a grid; both formats name the phases, one in its cells and one in its attributes."""
    if path.suffix == ".csv":
        from depthscale.report.summaries import phase_names

        grid.assign(phase=phase_names(grid)).to_dataframe().to_csv(path)
        return
    # netCDF 3, which scipy writes without further libraries, has no attribute of several texts.
    flat = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in grid.attrs.items()
    }
    grid.assign_attrs(flat).to_netcdf(path, engine="scipy")


def _grid_to_dict(grid: Any) -> dict[str, Any]:
    """Return a Dataset as plain lists, with null where a quantity does not exist."""
    return {
        "dims": {str(name): int(size) for name, size in grid.sizes.items()},
        "coordinates": {str(name): plain(grid[name].values.tolist()) for name in grid.coords},
        "variables": {
            str(name): {
                "dims": [str(dim) for dim in grid[name].dims],
                "units": str(grid[name].attrs.get("units", "")),
                "values": plain(grid[name].values.tolist()),
            }
            for name in grid.data_vars
        },
        "attributes": {str(name): plain(value) for name, value in grid.attrs.items()},
    }


COMMANDS = {
    "theory": Command(THEORY, _theory_arguments, theory),
    "critical": Command(CRITICAL, _critical_arguments, critical),
    "phase": Command(PHASE, _phase_arguments, phase),
}

"""The commands of real width: how correlations are spread by layer, and what shapes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.commands import Command
from depthscale.commands.options import (
    ACTIVATIONS,
    activation_option,
    correlation,
    length,
    masks_option,
    misalignment,
    number,
    positive,
    probabilities,
    probability,
    seed,
)
from depthscale.commands.options import shape as sizes
from depthscale.commands.output import (
    HEALTHY,
    MOST_LAYERS,
    PLOTS,
    check_writable,
    load_activation,
    plain,
    print_json,
    print_text,
    say_written,
    working,
)
from depthscale.files import writing

if TYPE_CHECKING:
    import argparse

    from depthscale.finite.band import CorrelationBand

LEVELS = "0.05,0.25,0.5,0.75,0.95"
MOST_NETWORKS = 10_000_000

BAND = """\
examples:
  depthscale band --activation relu --width 256 --depth 50 --eps0 1 --json
  depthscale band --activation tanh --sigma-b .3 --width 128 --depth 40 --eps0 .5 --plot band.svg
  depthscale band --activation "leaky_relu(.57)" --widths 64,64,128,256 --referee
  depthscale band --activation relu --width 512 --depth 60 --drop .01 --networks 5000

How the correlation of two signals is spread over random networks of this width, layer by layer: at
criticality, or with these weights. The best engine is taken, a chain of the correlation where it is
one, and "why" says why; --referee holds it against exact networks.

The JSON holds "rho" and "eps" by layer and level, with their errors, "layers", "levels", "engine",
"why", and as "quantiles" those of rho at the last layer, level -> value.

"""

SHAPE = """\
examples:
  depthscale shape --depth 100 --width 256 --target .9
  depthscale shape --depth 50 --target .9 --json                            (infinitely wide)
  depthscale shape --depth 50 --width 128 --target .95 --quantile .95       (95 % are below)
  depthscale shape --activation tanh --depth 50 --width 256 --target .9 --method tat

Chooses the one number by which a network of this depth is nonlinear, such that the correlation of
two inputs at its output is the target, in mean over networks of this width or at a quantile: the
slope of a leaky ReLU (slope), the affine maps around a smooth activation (tat, dks), or the scale
of residual branches (residual). Prints the band that it gives, and the code to paste.

"""


def _band_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    activation_option(parser)
    add("--sigma-w", type=number, help="weight scale (default: critical)")
    add("--sigma-b", type=number, help="bias scale (default 0, or as --q0 makes it critical)")
    add("--q0", type=length, help="mean square of both signals (default: where it settles)")
    add("--drop", type=number, default=0.0, help="probability dropped, in [0, 1) (default 0)")
    masks_option(parser)
    add("--skip", type=number, default=0.0, help="residual branch h' = SKIP h + ... (default 0)")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--width", type=positive, help="units a layer")
    size.add_argument("--widths", type=sizes, metavar="N0,N1,...", help="or of every layer")
    add("--depth", type=positive, help="weight layers, at most 20000 (default: as --widths)")
    add("--eps0", type=misalignment, default=1.0, help="misalignment at layer 0 (default 1)")
    _levels(parser)
    add("--engine", help='chain, "chain paths" or ensemble (default: the first that holds)')
    add("--start", choices=("drawn", "pinned", "inputs"), default="drawn", help="layer 0: units of "
        "such a covariance (default), units that measure it, or inputs")  # fmt: skip
    add("--surrogate", action="store_true", help="of the covariance of a layer, in place of the "
        "cosine of its units")  # fmt: skip
    _sampling(parser, 20_000)
    add("--referee", action="store_true", help="compare with exact networks")
    add("--save", type=Path, metavar="PATH", help="write the quantiles: .nc (netCDF) or .csv")
    add("--plot", type=Path, metavar="PATH", help="write the fan: .svg, .png or .pdf")


def _shape_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--activation", default="relu", metavar="NAME", help=f"{ACTIVATIONS} (default relu)")
    add("--depth", type=positive, required=True, help="layers")
    add("--width", type=positive, help="units a layer (default: infinitely many)")
    add("--target", type=correlation, default=0.9, help="correlation at the output (default 0.9)")
    add("--quantile", type=probability, metavar="P", help="with --width: a network is below the "
        "target with this probability (default: the target is the mean)")  # fmt: skip
    add("--method", choices=("slope", "tat", "dks", "residual"), help="default: slope for functions"
        " of two slopes, else tat where correlations rise and dks where they fall")  # fmt: skip
    add("--eps0", type=misalignment, default=1.0, help="misalignment of the inputs (default 1)")
    add("--lowest-slope", type=number, default=0.0, metavar="S", help="of the method slope, from -1"
        " (default 0)")  # fmt: skip
    _sampling(parser, 2000)
    add("--plot", type=Path, metavar="PATH", help="write the band: .svg, .png or .pdf")


def _levels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--level", type=probabilities, default=LEVELS, metavar="P[,P...]",
        help=f"levels of the quantiles (default {LEVELS})")  # fmt: skip


def _sampling(parser: argparse.ArgumentParser, networks: int) -> None:
    parser.add_argument("--networks", type=positive, default=networks, help="where networks or "
        f"paths are sampled (default {networks})")  # fmt: skip
    parser.add_argument("--seed", type=seed, default=0)


def band(options: argparse.Namespace) -> int:
    """Print quantiles of the correlation by layer, save them and draw them."""
    _check(options)
    check_writable(options.save, (".nc", ".csv"))
    check_writable(options.plot, PLOTS)
    with working("Following the correlation"):
        found = _found(options)
        payload = band_record(found)
        if options.save is not None:
            with writing(options.save):
                _save(found, options.save)
        if options.plot is not None:
            from depthscale.report.limits import plot_band

            with writing(options.plot):
                plot_band(payload, options.plot)
    if options.json:
        print_json(payload)
    else:
        from depthscale.report.bands import render_band

        print_text(render_band(payload))
    say_written(options.json, options.save, options.plot)
    return HEALTHY


def shape(options: argparse.Namespace) -> int:
    """Print the shaped activation, the band that it gives and the code that sets it."""
    from depthscale.commands.output import put

    _check(options)
    check_writable(options.plot, PLOTS)
    if options.quantile is not None and options.width is None:
        raise InputError("--quantile is one over networks of a width; give --width with it")
    with working("Shaping"):
        from depthscale.practice.shaping.shape import shape as shaped_for

        found = shaped_for(
            load_activation(options.activation),
            options.depth,
            options.width,
            options.target,
            quantile=options.quantile,
            method=options.method,
            eps0=options.eps0,
            lowest_slope=options.lowest_slope,
            networks=options.networks,
            seed=options.seed,
        )
        payload = plain_record(found.to_dict())
        if found.band is not None:
            payload["band"] = band_record(found.band)
        put(payload, "slope", found.slope)
        payload["code"] = _code(options)
        if options.plot is not None:
            from depthscale.report.limits import plot_shape

            with writing(options.plot):
                plot_shape(payload, options.plot)
    if options.json:
        print_json(payload)
    else:
        from depthscale.report.bands import render_shape

        print_text(render_shape(payload))
    say_written(options.json, options.plot)
    return HEALTHY


def _check(options: argparse.Namespace) -> None:
    """Refuse what the parser cannot see."""
    if options.networks > MOST_NETWORKS:
        raise InputError(f"--networks is {options.networks:,}; expected at most {MOST_NETWORKS:,}")
    widths = getattr(options, "widths", None)
    if options.depth is None:
        if widths is None:
            raise InputError("give --depth, the number of weight layers")
        options.depth = len(widths) - 1
    if options.depth > MOST_LAYERS:
        raise InputError(f"--depth is {options.depth}; expected at most {MOST_LAYERS} layers")


def _found(options: argparse.Namespace) -> CorrelationBand:
    from depthscale.finite.bands import correlation_band

    return correlation_band(
        load_activation(options.activation),
        options.width if options.widths is None else options.widths,
        options.depth,
        options.eps0,
        sigma_w=options.sigma_w,
        sigma_b=options.sigma_b,
        drop=options.drop,
        q0=options.q0,
        levels=options.level,
        engine=options.engine,
        start=options.start,
        masks=options.masks,
        skip=options.skip,
        measured=not options.surrogate,
        networks=options.networks,
        seed=options.seed,
        referee=options.referee,
    )


def band_record(found: CorrelationBand) -> dict[str, Any]:
    """A band as one object, with the quantiles at the last layer by level."""
    record = plain_record(found.to_dict())
    names = [f"{level:g}" for level in record["levels"]]
    last = dict(zip(names, record["rho"][-1], strict=True))
    return {**record, "depth": len(record["layers"]) - 1, "quantiles": last}


def plain_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record with null for what is not finite."""
    return {name: plain(value) for name, value in record.items()}


def _save(found: CorrelationBand, path: Path) -> None:
    dataset = found.to_xarray()
    if path.suffix == ".csv":
        dataset.drop_vars("width").to_dataframe().to_csv(path)
    else:
        dataset.to_netcdf(path, engine="scipy")


def _code(options: argparse.Namespace) -> str:
    """The call that shapes a model, as it was asked for."""
    name = options.activation
    own = ":" in name or name.endswith(".py")
    words = [name.rpartition(":")[2] if own else f'"{name}"', f"depth={options.depth}"]
    for key, default in (
        ("width", None),
        ("target", None),
        ("quantile", None),
        ("method", None),
        ("eps0", 1.0),
        ("lowest_slope", 0.0),
    ):
        value = getattr(options, key)
        if value != default:
            words.append(f"{key}={json.dumps(value)}")
    return (
        "import depthscale as ds\n"
        f"shaped = ds.shape({', '.join(words)})\n"
        "shaped.apply(model, inputs)"
    )


COMMANDS = {
    "band": Command(BAND, _band_arguments, band),
    "shape": Command(SHAPE, _shape_arguments, shape),
}

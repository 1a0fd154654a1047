"""The commands of the scaling laws: the class of an activation, and its laws at a drop rate."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError, Undefined
from depthscale.commands import Command
from depthscale.commands.law_records import (
    absences,
    answer,
    followed,
    followed_path,
    network_row,
    noise_detuned,
    path_rows,
)
from depthscale.commands.options import (
    ACTIVATIONS,
    NO_BRANCH,
    depth_options,
    keep_weights_option,
    masks_option,
    number,
    number_range,
    place_options,
)
from depthscale.commands.output import (
    FINDINGS,
    HEALTHY,
    MOST_LAYERS,
    PLOTS,
    check_writable,
    load_activation,
    print_json,
    print_text,
    say_written,
    start_of_pair,
    working,
)
from depthscale.files import writing

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from depthscale.theory.universal.record import Universality

MOST_DROPS = 500  # of a table: some minutes

UNIVERSALITY = """\
examples:
  depthscale universality tanh --sigma-b 0.3162
  depthscale universality hardtanh --sigma-b 0.3162 --drop 0.001 --json
  depthscale universality gelu --q 4 --fit --plot collapse.svg
  depthscale universality activations.py:shifted --q 1     (runs that file)

Prints how one layer bends near alignment, eps' = h + (1 + t) eps - a eps^kappa: the power kappa and
the amplitude a by two derivations, the exponents that follow, and the metric factors that bring all
networks of the class onto one equation; with --drop also how far its laws are off there.
Exit code 1 where no network obeys them; the class and the reason are printed.

"""

LAW = """\
examples:
  depthscale law tanh --sigma-b 0.3162 --drop 0.0001 --json
  depthscale law tanh --sigma-b 0.3162 --drop 0.01 --keep-weights --depth 40
  depthscale law relu --drop 1e-6:0.3:12 --plot law.svg --save law.csv

The misalignment eps* that pairs of inputs settle at, and the depth scale, from the exact map, by
the leading scaling law of the class, and by the law with its first corrections.
A range of drops is MIN:MAX:N, of at most 500 rates, spaced evenly in the logarithm where MIN > 0,
else evenly. Exit code 1 where no such network or no law exists; the reason is printed.

"""


def _universality_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("activation", metavar="ACTIVATION", help=ACTIVATIONS)
    place_options(parser)
    add("--drop", type=number, default=0.0, help="probability dropped, in [0, 1) (default 0)")
    masks_option(parser, layers=NO_BRANCH)
    keep_weights_option(parser)
    add("--fit", action="store_true", help="also fit the exponents to the exact map (some seconds)")
    add("--plot", type=Path, metavar="PATH", help="write the collapse: .svg, .png or .pdf")


def _law_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("activation", metavar="ACTIVATION", help=ACTIVATIONS)
    place_options(parser)
    add("--drop", type=number_range, default="1e-6:0.1:6", metavar="RANGE",
        help="probability dropped, one or a range of at most 500 (default 1e-6:0.1:6)")  # fmt: skip
    add("--detuning", type=number, metavar="T", help="tune to chi = 1 + T (default 0; scale-free "
        "activations without bias: t follows from the noise)")  # fmt: skip
    masks_option(parser, layers=NO_BRANCH)
    keep_weights_option(parser)
    depth_options(parser)
    add("--save", type=Path, metavar="PATH",
        help="write the table, or with --depth the pair's path: .csv")  # fmt: skip
    add("--plot", type=Path, metavar="PATH", help="write the curves: .svg, .png or .pdf")


def universality(options: argparse.Namespace) -> int:
    """Print the class, its exponents and how far its laws hold; 1 where they hold nowhere."""
    from depthscale.theory.universal.record import universality as universality_of

    check_writable(options.plot, PLOTS)
    no_plot = None
    with working("Looking for the class"):
        record = universality_of(
            load_activation(options.activation),
            sigma_b=options.sigma_b,
            q=options.q,
            drop=options.drop,
            masks=options.masks,
            retuned=not options.keep_weights,
        )
        payload = record.to_dict()
        payload["reasons"] = {**payload.get("reasons", {}), **absences(record, payload)}
        if options.fit:
            payload.update(_exponent_fits(record))
        if options.plot is not None:
            no_plot = _plot_collapse(record, options.plot)
    if options.json:
        print_json(payload)
    else:
        from depthscale.report.law_summaries import render_universality

        print_text(render_universality(payload))
    _say_no_plot(no_plot)
    say_written(options.json, None if no_plot else options.plot)
    return FINDINGS if isinstance(record.law(), Undefined) else HEALTHY


def _exponent_fits(record: Universality) -> dict[str, Any]:
    """Exponents measured on the exact map, by window and name; null with the reason where none."""
    from depthscale.theory.universal.fits import WINDOWS, power_laws

    alignment = record.alignment
    if isinstance(alignment, Undefined):
        return {"exponent_fits": None, "exponent_fits_reason": alignment.reason}
    kept = ("value", "error", "theory", "definition")
    try:
        fits = {
            window: {
                fit.name: {name: getattr(fit, name) for name in kept}
                for fit in power_laws(alignment.activation, alignment.q, window)
            }
            for window in WINDOWS
        }
    except InputError as error:
        return {"exponent_fits": None, "exponent_fits_reason": str(error)}
    return {"exponent_fits": fits}


def _plot_collapse(record: Universality, path: Path) -> str | None:
    """Write the collapse of the activation; or say why there is none."""
    from depthscale.report.laws import plot_collapse
    from depthscale.theory.universal.collapse import collapse_theory

    alignment = record.alignment
    if isinstance(alignment, Undefined):
        return alignment.reason
    with writing(path):
        plot_collapse(collapse_theory([(alignment.activation, alignment.q)]), path)
    return None


def law(options: argparse.Namespace) -> int:
    """Print the equation of state at one drop rate or at several; 1 where no network exists."""
    check_writable(options.plot, PLOTS)
    check_writable(options.save, (".csv",))
    if (options.depth or 0) > MOST_LAYERS:
        raise InputError(f"--depth is {options.depth}; expected at most {MOST_LAYERS} layers")
    if options.drop[2] > MOST_DROPS:
        raise InputError(
            f"--drop asks for {options.drop[2]:,} rates; expected at most {MOST_DROPS}"
        )
    options.eps0 = start_of_pair(options)
    if options.drop[2] > 1 and options.depth is not None:
        raise InputError("--depth follows one network; give one --drop with it")
    with working("Solving"):
        activation = load_activation(options.activation)
        records = [_record(activation, options, float(drop)) for drop in _drops(options.drop)]
        rows = [network_row(record) for record in records]
        path = None if options.depth is None else followed_path(records[0], options)
        if options.save is not None:
            with writing(options.save):
                _save(options.save, rows if path is None else path_rows(path))
        no_plot = None if options.plot is None else _plot_law(records, rows, path, options)
    payload = answer(records, rows)
    if path is not None:
        payload["path"] = path
    if options.json:
        print_json(payload)
    else:
        from depthscale.report.law_summaries import render_law

        print_text(render_law(payload))
    _say_no_plot(no_plot)
    say_written(options.json, options.save, None if no_plot else options.plot)
    lawful = (r.field is not None and not isinstance(r.kappa, Undefined) for r in records)
    return HEALTHY if any(lawful) else FINDINGS


def _drops(spec: tuple[float, float, int]) -> np.ndarray:
    """The rates of a range: even in the logarithm where it does not start at 0."""
    import numpy as np

    return np.geomspace(*spec) if spec[0] > 0 else np.linspace(*spec)


def _record(activation: Any, options: argparse.Namespace, drop: float) -> Universality:
    from depthscale.theory.universal.record import universality as universality_of

    record = universality_of(
        activation,
        sigma_b=options.sigma_b,
        q=options.q,
        drop=drop,
        masks=options.masks,
        retuned=not options.keep_weights,
        detuning=options.detuning or 0.0,
    )
    note = noise_detuned(record)
    if options.detuning == 0 and note is not None:  # asked for, and not to be had
        return replace(record, field=None, reason=note)
    return record


def _save(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV; what does not exist is empty."""
    import csv

    names = [name for name in rows[0] if name not in ("reasons", "transient", "note")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _plot_law(
    records: list[Universality],
    rows: list[dict[str, Any]],
    path: dict[str, Any] | None,
    options: argparse.Namespace,
) -> str | None:
    """Write the curves of one network, or those of a table; or say why there are none.

    Without a path, pairs start where the corrected law, which the plot holds beside, can follow.
    """
    import numpy as np

    from depthscale.report.canvas import save
    from depthscale.report.laws import plot_law
    from depthscale.theory.universal.collapse import law_curves

    usable = [
        (record, row)
        for record, row in zip(records, rows, strict=True)
        if not isinstance(record.law(), Undefined) and row["dropout_field"] > 0
    ]
    if not usable:
        return rows[-1]["reason"] or "there is no dropout field, or no law"
    record, row = usable[len(usable) // 2]
    alignment = record.alignment
    if isinstance(alignment, Undefined):
        return alignment.reason
    single = len(usable) == 1
    law_ = record.law(corrected=True)
    starts = [x for x in (0.1, 1.0) if isinstance(followed(law_, np.arange(2), x), list)]
    curves = law_curves(
        alignment.activation,
        alignment.q,
        row["detuning"],
        _fields(row, float(alignment.deficit(1.0))) if single else [row["dropout_field"]],
        [0.0, *starts],
        row["dropout_field"],
        _depths(row),
    )
    if path is not None:
        curves = _with_path(curves, path, options.eps0)
    curves = curves.assign_attrs(drop=row["drop"])
    figure = plot_law(curves if single else _with_table(curves, [row for _, row in usable]))
    if not single:
        weights = "weights kept" if options.keep_weights else "weights retuned"
        weights = "scale-free" if noise_detuned(record) else weights
        figure.suptitle(
            f"{record.activation.name}, drop {usable[0][1]['drop']:.3g} to"
            f" {usable[-1][1]['drop']:.3g}, {weights}; right: drop {row['drop']:.3g}",
            fontsize="medium",
        )
    with writing(options.plot):
        save(figure, options.plot)
    return None


def _fields(row: dict[str, Any], most: float) -> np.ndarray:
    """Fields around that of the network, as far as the detuned map keeps a fixed point below 1."""
    import numpy as np

    field, detuning = row["dropout_field"], row["detuning"]
    high = min(30 * field, 0.99 * ((1 + detuning) * most - detuning))
    return np.geomspace(field / 1000, max(high, field), 41)


def _depths(row: dict[str, Any]) -> np.ndarray:
    """Some sixty depths up to twenty depth scales."""
    import numpy as np

    last = min(20 * (row["depth_scale"] or 50), MOST_LAYERS)
    return np.unique(np.rint(np.geomspace(1, max(last, 2), 60)).astype(int))


def _with_path(curves: Any, path: dict[str, Any], start: float) -> Any:
    """The curves with the pair that was asked for, its start left out of the logarithmic axis."""
    import numpy as np

    none = [math.nan] * len(path["depth"])
    three = [path[name] or none for name in ("exact", "leading_order", "corrected")]
    kept = curves.drop_vars(["path", "start", "depth"])
    kept = kept.assign_coords(start=[start], depth=path["depth"][1:])
    values = np.array(three)[:, None, 1:]
    return kept.assign({"path": (("reading", "start", "depth"), values)})


def _with_table(curves: Any, rows: list[dict[str, Any]]) -> Any:
    """The curves with the equation of state of the table's own networks."""
    import numpy as np

    laws = ("leading_order", "corrected")
    columns = {
        "eps": ("eps", *laws),
        "depth_scale": ("depth_scale", *(f"depth_scale_{name}" for name in laws)),
    }
    fields = [row["dropout_field"] for row in rows]
    kept = curves[["path"]].drop_attrs().assign_coords(dropout_field=fields)
    return kept.assign(
        {
            name: (
                ("reading", "dropout_field"),
                np.array([[row[c] for row in rows] for c in three], dtype=float),
            )
            for name, three in columns.items()
        }
    )


def _say_no_plot(reason: str | None) -> None:
    if reason is not None:
        print(f"depthscale: no plot: {reason}", file=sys.stderr)


COMMANDS = {
    "universality": Command(UNIVERSALITY, _universality_arguments, universality),
    "law": Command(LAW, _law_arguments, law),
}

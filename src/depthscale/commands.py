"""The four commands: call the theory or the audit, print the answer, return the exit code."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError, Undefined

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from depthscale.practice.audit import Audit

HEALTHY, FINDINGS = 0, 1

MOST_NETWORKS = 1_000_000  # of a phase diagram: some minutes and 100 MB
MOST_LAYERS = 20_000  # of a trajectory, followed one by one: some 20 s


def audit(options: argparse.Namespace) -> int:
    """Audit a model, print the report and write the pages; 1 where it has problems."""
    _check_writable(options.html, (".html", ".htm"))
    fixed_page = options.html and options.html.with_stem(f"{options.html.stem}-fixed")
    _check_writable(fixed_page if options.fix else None, (".html", ".htm"))
    with _working("Auditing"):
        before, after, obstacle = _audits(options)
        pages = [(before, options.html), (after, fixed_page)] if options.html else []
        for result, page in pages:
            if result is not None:
                with _writing(page):
                    result.to_html(page)
    if options.json:
        payload = before.to_dict()
        if options.fix:
            payload["after_fix"] = None if after is None else after.to_dict()
            payload["fix_obstacle"] = obstacle
        _print_json(payload)
    else:
        _print_audit(before)
        if after is not None:
            _print("\n\nAfter depthscale.critical_init_(model):\n")
            _print_audit(after)
        elif obstacle:
            _print(f"\nNot fixed: {obstacle}")
        elif options.fix:
            _print("\nNothing to fix: the model is healthy as it is.")
    return HEALTHY if before.verdict.healthy else FINDINGS


def _audits(options: argparse.Namespace) -> tuple[Audit, Audit | None, str | None]:
    """Audit the model as it is and, where asked for and needed, after critical initialisation.

    The last is the reason why a model that needs it cannot be initialised.
    """
    from dataclasses import replace

    from depthscale.example import chaotic_mlp
    from depthscale.practice.audit import audit as audit_model
    from depthscale.practice.initialisation import critical_init_
    from depthscale.practice.loading import LoadedModel, choose_data, load_model

    if options.model is None:
        loaded = LoadedModel(chaotic_mlp(seed=options.seed), None, "bundled example")
    else:
        loaded = load_model(options.model, seed=options.seed)
    inputs, source = choose_data(loaded, options.data, options.shape, options.batch, options.seed)

    def run(name: str) -> Audit:
        result = audit_model(
            loaded.model,
            inputs,
            mode=options.mode,
            pairs=options.pairs,
            reinit=options.reinit,
            seed=options.seed,
            name=name,
        )
        return replace(result, provenance={**result.provenance, "data": source})

    before = run(loaded.name)
    if not options.fix or before.verdict.healthy:
        return before, None, None
    try:
        critical_init_(loaded.model, inputs, seed=options.seed)
    except InputError as error:
        return before, None, str(error)
    return before, run(f"{loaded.name} after critical_init_"), None


def theory(options: argparse.Namespace) -> int:
    """Print fixed points and depth scales; 1 where nothing settles."""
    from depthscale.theory.meanfield import MeanField

    if (options.depth or 0) > MOST_LAYERS:
        raise InputError(f"--depth is {options.depth}; expected at most {MOST_LAYERS} layers")
    path = None
    with _working("Integrating"):
        field = MeanField(
            _activation(options.activation),
            sigma_w=options.sigma_w,
            sigma_b=options.sigma_b,
            drop=options.drop,
            masks=options.masks,
        )
        payload = field.to_dict()
        if options.depth is not None:
            path = field.trajectory(options.depth, q0=options.q0, eps0=options.eps0)
    if options.json:
        if path is not None:
            payload["trajectory"] = {
                name: _plain(curve.tolist()) for name, curve in vars(path).items()
            }
        _print_json(payload)
    else:
        from depthscale.report.summaries import render_theory

        _print(render_theory(payload, path))
    return FINDINGS if payload["eps"] is None else HEALTHY


def critical(options: argparse.Namespace) -> int:
    """Print the critical point; 1 where there is none."""
    from depthscale.theory.criticality import critical_point, max_drop

    sigma_b = 0.0 if options.sigma_b is None and options.q is None else options.sigma_b
    with _working("Searching"):
        activation = _activation(options.activation)
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
            _put(payload, "max_drop", reach)
    if options.json:
        _print_json(payload)
    else:
        from depthscale.report.summaries import render_critical

        _print(render_critical(payload))
    return HEALTHY if point.exists else FINDINGS


def phase(options: argparse.Namespace) -> int:
    """Print a phase diagram, save it and draw it."""
    from depthscale.theory.phase import phase_diagram

    _check_writable(options.save, (".nc", ".csv"))
    _check_writable(options.plot, (".svg", ".png", ".pdf"))
    networks = options.sigma_w[2] * options.sigma_b[2] * options.drop[2]
    if networks > MOST_NETWORKS:
        raise InputError(
            f"the ranges ask for {networks:,} networks; at most {MOST_NETWORKS:,} in one diagram"
        )
    with _working("Computing the phase diagram"):
        grid = phase_diagram(
            _activation(options.activation),
            sigma_w=_points(options.sigma_w),
            sigma_b=_points(options.sigma_b),
            drop=_points(options.drop) if options.drop[2] > 1 else options.drop[0],
            masks=options.masks,
        )
        if options.save is not None:
            with _writing(options.save):
                _save(grid, options.save)
        if options.plot is not None:
            from depthscale.report.plots import plot_phase

            with _writing(options.plot):
                plot_phase(grid, options.plot)
    if options.json:
        _print_json(_grid_to_dict(grid), indent=None)
    else:
        from depthscale.report.summaries import render_phase

        _print(render_phase(grid))
    return HEALTHY


def _activation(text: str) -> Any:
    """Return the spec of an activation: a name, or a function from a module or a file of code."""
    if ":" not in text and not text.endswith(".py"):
        return text
    from depthscale.practice.loading import load_object

    return load_object(text)


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
        "coordinates": {str(name): _plain(grid[name].values.tolist()) for name in grid.coords},
        "variables": {
            str(name): {
                "dims": [str(dim) for dim in grid[name].dims],
                "units": str(grid[name].attrs.get("units", "")),
                "values": _plain(grid[name].values.tolist()),
            }
            for name in grid.data_vars
        },
        "attributes": {str(name): _plain(value) for name, value in grid.attrs.items()},
    }


def _plain(values: Any) -> Any:
    """Return nested lists with None for what is not finite."""
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _put(payload: dict[str, Any], key: str, quantity: Any) -> None:
    """Add a quantity to a payload: its value, or null and the reason why there is none."""
    payload[key] = None if isinstance(quantity, Undefined) else quantity
    if isinstance(quantity, Undefined):
        payload.setdefault("reasons", {})[key] = quantity.reason


def _check_writable(path: Path | None, endings: tuple[str, ...]) -> None:
    """Refuse a path that cannot be written before the work is done, not after."""
    if path is None:
        return
    if path.suffix not in endings:
        raise InputError(f"{path} ends in {path.suffix!r}; expected {', '.join(endings)}")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} into")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{path} cannot be written: no permission")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _working(what: str) -> Iterator[None]:
    """Show on a terminal that work is going on, and send what the user's code prints to stderr.

    It must not end up among our own output, least of all in the JSON.
    """
    with contextlib.ExitStack() as stack:
        if sys.stderr.isatty():
            from rich.console import Console

            stack.enter_context(Console(stderr=True).status(f"{what} ..."))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.enter_context(_output_to_stderr())
        yield


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Point file descriptor 1 at stderr: compiled code and child processes write there directly."""
    try:
        kept = os.dup(1)
    except OSError:  # closed from the start: nothing to protect
        yield
        return
    sys.stdout.flush()
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _print(text: str) -> None:
    """Print a report, in plain ASCII where the terminal can show no more."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        from depthscale.report.words import ascii_only

        text = ascii_only(text)
    print(text)


def _print_audit(result: Audit) -> None:
    from depthscale.report.terminal import render

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    _print(render(result, width=width, colour=colour))


def _print_json(payload: dict[str, Any], indent: int | None = 2) -> None:
    print(json.dumps(payload, indent=indent, allow_nan=False))

"""High-precision referee of the Gaussian gap integral: writes gap_truth.json beside this file.

    python tests/reference/make_gap_truth.py [--output FILE] [--only NAME ...]

For an activation f, a variance q and a misalignment eps the table holds, with (u, v) centred
Gaussian of variance q and correlation 1 - eps,

    gap            = E[f(u)^2] - E[f(u) f(v)] = E[(f(u) - f(v))^2]/2
    derivative gap = the same with the regular derivative f' (f' may jump at the kinks of f)

and for each q the one-dimensional E[f^2], E[f'^2] and E[u f f']/q. q and eps are the doubles
nearest to the printed decimals, so a double-precision program sees exactly the same input;
constants inside an activation (0.2, 0.9, 1.1, 0.044715) are the decimals.

Methods (the field "method" of each activation names the one that made its rows):

plane     u, v = x +- d with independent x ~ N(0, q (1 - eps/2)), d ~ N(0, q eps/2), so that no
          cancellation grows as eps -> 0. Composite Gauss-Legendre, split exactly where a kink meets
          the line (x = kink +- d, d = half a difference of kinks) and bisected until every
          complex singularity of f lies outside a Bernstein ellipse of parameter 5.
price     piecewise quadratic f: dE[f(u)f(v)]/dc = q E[f'(u)f'(v)] applied until only bivariate
          normal densities at the kinks are left, then one integral over the angle arccos(1 - eps).
          Exact to relative precision even where the derivative gap is 1e-2000.
closed    closed form.

"agreement" of a row is the largest relative difference of its values between two runs, at different
quadrature orders, panel lengths and cut-offs (for closed forms: at 192 and 256 bits).
"second" of an activation holds the worst relative difference over some cells against methods that
share with the first nothing but the definition of f: trapezoidal sums over the plane (analytic f,
where they converge exponentially), polar coordinates with tanh-sinh (one kink, at zero), Price's
theorem with gelu'' in closed form, and the plane method for the piecewise quadratics.

The script needs nothing but mpmath; python-flint, if it can be imported, does the same arithmetic
about ten times faster. The stored table was made with python-flint in a virtual environment of its
own: see "provenance" in the table for versions and CPU time (14 minutes of one core).
The script resumes: what is already in the file is kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
from critical_points import critical_points
from gap_catalogue import closed_catalogue, piecewise_catalogue, smooth_catalogue
from gap_methods import (
    Closed,
    Pieces,
    Shape,
    closed_gap,
    expectations,
    gelu_price_gap,
    plane_gap,
    polar_gap,
    price_gap,
    trapezoid_gap,
)
from precise import ARITHMETIC, COARSE, FINE, Number, Pair, digits, disagreement, num, set_precision

BITS = 192  # about 57 digits: the worst cancellation, of values 1e-16 apart, leaves 40
Q_GRID = (1e-4, 1e-2, 0.25, 1.0, 4.0, 1e2, 1e4)
EPS_GRID = (1e-12, 1e-8, 1e-4, 1e-2, 0.1, 0.5, 1.0, 1.7)
SECOND_CELLS = (
    *((q, eps) for q in (1e-4, 0.25, 4.0) for eps in (1e-12, 1e-4, 0.5, 1.7)),
    (1e4, 1e-12),
    (1e4, 1e-4),
)
FIRST = ("gelu", "tanh", "relu", "hardtanh", "erf", "silu", "softsign", "elu", "hardswish")

Kind = Shape | Pieces | Closed
Table = dict[str, Any]


def catalogue() -> dict[str, Kind]:
    every: dict[str, Kind] = {**smooth_catalogue(), **piecewise_catalogue(), **closed_catalogue()}
    return {name: every[name] for name in (*FIRST, *(n for n in every if n not in FIRST))}


def method_of(f: Kind) -> str:
    return {Shape: "plane", Pieces: "price", Closed: "closed"}[type(f)]


def twice(values: tuple[Number, ...], again: tuple[Number, ...]) -> list[str | float]:
    worst = max(disagreement(a, b) for a, b in zip(values, again, strict=True))
    return [*(digits(v) for v in values), float(f"{worst:.1e}")]


def gap_row(f: Kind, q: float, eps: float) -> list[str | float]:
    if isinstance(f, Closed):
        pair = closed_gap(f, num(q), num(eps))
        set_precision(BITS + 64)
        again = closed_gap(f, num(q), num(eps))
        set_precision(BITS)
    elif isinstance(f, Pieces):
        pair, again = (price_gap(f, num(q), num(eps), rule) for rule in (FINE, COARSE))
    else:
        pair, again = (plane_gap(f, num(q), num(eps), rule) for rule in (FINE, COARSE))
    return [q, eps, *twice(pair, again)]


def expectation_row(f: Kind, q: float) -> list[str | float]:
    if isinstance(f, Closed):
        values = (*f.moments(num(q), num(1)), f.growth(num(q)))
        set_precision(BITS + 64)
        again = (*f.moments(num(q), num(1)), f.growth(num(q)))
        set_precision(BITS)
    else:
        shape = f.shape() if isinstance(f, Pieces) else f
        values, again = (expectations(shape, num(q), rule) for rule in (FINE, COARSE))
    return [q, *twice(values, again)]


def second_opinions(name: str, f: Kind, q: float, eps: float) -> Iterator[tuple[str, Pair]]:
    shape = f if isinstance(f, Shape) else f.shape()
    if isinstance(f, Pieces):
        yield "plane", plane_gap(shape, num(q), num(eps), FINE)
    if shape.kinks == (Fraction(0),):
        yield "polar", polar_gap(shape, num(q), num(eps))
    if not shape.kinks:
        yield "trapezoid", trapezoid_gap(shape, num(q), num(eps))
    if name == "gelu":
        yield "price", gelu_price_gap(num(q), num(eps))


def first_opinion(f: Kind, q: float, eps: float) -> Pair:
    if isinstance(f, Closed):
        return closed_gap(f, num(q), num(eps))
    if isinstance(f, Pieces):
        return price_gap(f, num(q), num(eps), FINE)
    return plane_gap(f, num(q), num(eps), FINE)


def second_entry(name: str, f: Kind) -> Table:
    """Worst disagreement with the other methods over SECOND_CELLS."""
    entry: Table = {}
    for q, eps in SECOND_CELLS:
        gap, derivative_gap = first_opinion(f, q, eps)
        for method, (other, derivative_other) in second_opinions(name, f, q, eps):
            worst = entry.setdefault(method, {"cells": 0, "gap": 0.0, "derivative_gap": 0.0})
            worst["cells"] += 1
            worst["gap"] = max(worst["gap"], disagreement(gap, other))
            # The derivative gap of kinks at many standard deviations lives in the tail, which
            # the plane method cuts off.
            kinks = f.kinks if isinstance(f, Pieces) else ()
            if all(float(k) ** 2 < 16 * q for k in kinks):
                error = disagreement(derivative_gap, derivative_other)
                worst["derivative_gap"] = max(worst["derivative_gap"], error)
    for worst in entry.values():
        worst.update({k: float(f"{worst[k]:.1e}") for k in ("gap", "derivative_gap")})
    return entry


def critical_section() -> Table:
    section: Table = {}
    fine, coarse = critical_points(FINE), critical_points(COARSE)
    for name, record in fine.items():
        worst = max(disagreement(value, coarse[name][key]) for key, value in record.items())
        section[name] = {key: digits(value) for key, value in record.items()}
        section[name]["agreement"] = float(f"{worst:.1e}")
    return section


def to_text(table: Table) -> str:
    """JSON with one row a line."""

    def rows(name: str, values: list[list[Any]]) -> str:
        inside = ",\n".join("   " + json.dumps(row) for row in values)
        return f"  {json.dumps(name)}: [\n{inside}\n  ]"

    def records(section: Table) -> str:
        return ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in section.items())

    parts = [f" {json.dumps(key)}: {{\n{records(table[key])}\n }}" for key in SECTIONS[:3]]
    for key in SECTIONS[3:]:
        inside = ",\n".join(rows(name, values) for name, values in table[key].items())
        parts.append(f" {json.dumps(key)}: {{\n{inside}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


SECTIONS = ("provenance", "activations", "critical", "expectations", "gaps")


class Store:
    """The table on disk, rewritten as a whole so that a reader never sees half of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table: Table = {key: {} for key in SECTIONS}
        if path.exists():
            self.table.update(json.loads(path.read_text()))
        self.spent = float(self.table["provenance"].get("cpu_seconds", 0.0))

    def save(self) -> None:
        self.table["provenance"] = {
            "command": "python tests/reference/make_gap_truth.py",
            "arithmetic": ARITHMETIC,
            "mpmath": mpmath.__version__,
            "python": platform.python_version(),
            "precision_bits": BITS,
            "date": datetime.date.today().isoformat(),
            "cpu_seconds": round(self.spent + time.process_time(), 1),
            "columns": {
                "expectations": ["q", "E[f^2]", "E[f'^2]", "E[u f f']/q", "agreement"],
                "gaps": ["q", "eps", "gap", "derivative gap", "agreement"],
            },
            "grid": {"q": Q_GRID, "eps": EPS_GRID},
        }
        scratch = self.path.with_suffix(".part")
        scratch.write_text(to_text(self.table))
        os.replace(scratch, self.path)


def fill_rows(store: Store, name: str, f: Kind) -> None:
    gaps = store.table["gaps"].setdefault(name, [])
    means = store.table["expectations"].setdefault(name, [])
    known = {(row[0], row[1]) for row in gaps}
    for q in Q_GRID:
        missing = [eps for eps in EPS_GRID if (q, eps) not in known]
        gaps += [gap_row(f, q, eps) for eps in missing]
        if q not in {row[0] for row in means}:
            means.append(expectation_row(f, q))
            missing.append(q)
        if missing:  # a run that adds nothing leaves the provenance alone
            store.save()
    print(f"{name}: {len(gaps)} cells, {time.process_time():.0f} s of CPU so far", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    here = Path(__file__).resolve().parent
    parser.add_argument("--output", type=Path, default=here / "gap_truth.json")
    parser.add_argument("--only", nargs="*", help="names of activations")
    options = parser.parse_args()
    set_precision(BITS)
    store = Store(options.output)
    chosen = {n: f for n, f in catalogue().items() if not options.only or n in options.only}
    if not store.table["critical"] and not options.only:
        store.table["critical"] = critical_section()
    for name, f in chosen.items():
        entry = {"definition": f.definition, "method": method_of(f)}
        store.table["activations"].setdefault(name, entry)
        fill_rows(store, name, f)
    for name, f in chosen.items():
        if "second" not in store.table["activations"][name]:
            store.table["activations"][name]["second"] = second_entry(name, f)
            store.save()
            print(name, store.table["activations"][name]["second"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

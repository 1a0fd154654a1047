"""What ``depthscale limit`` answers: the law of a question, as one object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError, Undefined

if TYPE_CHECKING:
    import argparse

    import xarray

    from depthscale.commands.limit_kinds import Question
    from depthscale.finite.diffusion.covariance import CovarianceLaw
    from depthscale.finite.diffusion.equation import Reading
    from depthscale.finite.diffusion.law import Law

BINS = 60
ROOM = 6  # interquartile ranges that are drawn beside the quartiles, of laws with long tails
FAN = 24
FAN_PATHS = 20_000
FIRST = 0.002
"""Share of each tail that is left out where a density is drawn."""


@dataclass(frozen=True)
class Found:
    """The law that answers a question; Gram matrices beside it where there are several inputs."""

    law: Law
    reading: str
    matrices: CovarianceLaw | None = None

    def rows(self, levels: Sequence[float]) -> list[dict[str, Any]]:
        """Mean, deviation and quantiles at every time, with their errors."""
        mean, sd = self.law.mean(self.reading), self.law.sd(self.reading)
        marks, gone = self.law.quantiles(levels, self.reading), self.law.escaped.value
        names = [f"{level:g}" for level in levels]
        return [
            {
                "time": float(time),
                "mean": _finite(mean.value[k]),
                "sd": _finite(sd.value[k]),
                "quantiles": dict(zip(names, map(_finite, marks.value[k]), strict=True)),
                "errors": {
                    "mean": _finite(mean.error[k]),
                    "sd": _finite(sd.error[k]),
                    "quantiles": dict(zip(names, map(_finite, marks.error[k]), strict=True)),
                },
                "exploded": float(gone[k]),
            }
            for k, time in enumerate(self.law.times)
        ]

    def densities(self) -> dict[str, Any]:
        """Densities of the reading at every time, on the centres of common cells."""
        import numpy as np

        ends = self.law.quantiles([FIRST, 0.25, 0.75, 1 - FIRST], self.reading).value
        low, below, above, high = np.where(np.isfinite(ends), ends, np.nan).T
        if np.all(np.isnan(above)):  # most have exploded
            above = high = below
        room = ROOM * np.nanmax(above - below)
        left = max(np.nanmin(low), np.nanmin(below) - room)
        right = np.nanmax(above) + room
        right = right if np.all(np.isnan(high)) else min(np.nanmax(high), right)
        edges = np.linspace(left, right, BINS + 1)
        shares = np.diff(self.law.cdf(edges, self.reading).value, axis=1)
        fine = np.linspace(left, right, 10 * BINS + 1)
        fine = (fine[1:] + fine[:-1]) / 2
        return {
            "reading": self.reading,
            "edges": edges.tolist(),
            "shares": shares.tolist(),
            "x": fine.tolist(),
            "density": self.law.pdf(fine, self.reading).tolist(),
        }

    def dataset(self, levels: Sequence[float]) -> xarray.Dataset:
        """All readings; with several inputs also the mean matrices."""
        found = self.law.to_xarray(levels)
        if self.matrices is None:
            return found
        dims = ("time", "input", "other")
        mean = self.matrices.mean
        return found.assign(
            covariance_mean=(dims, mean.value), covariance_mean_error=(dims, mean.error)
        )


def solved(question: Question, options: argparse.Namespace, times: Sequence[float]) -> Found:
    """The law at these times, from the solver asked for or the best there is."""
    name = _reading(question, options.reading)
    if question.limit is not None:
        if options.solver == "density":
            raise InputError(
                "--solver density follows one equation; a matrix of inputs is sampled: take paths"
            )
        return _of_matrices(question, options, times, name)
    if question.residual is not None:
        return Found(_residual(question, options, times), name)
    return Found(_of_equation(question, options, times), name)


def _of_equation(question: Question, options: argparse.Namespace, times: Sequence[float]) -> Law:
    from depthscale.finite.diffusion.alignment_paths import Jumps
    from depthscale.finite.diffusion.solve import limit_law

    assert question.equation is not None  # one of the three
    return limit_law(
        question.equation,
        question.u0,
        times,
        jumps=None if question.drops is None else Jumps.of(question.drops),
        engine=options.solver,
        paths=options.paths,
        seed=options.seed,
    )


def _reading(question: Question, asked: str | None) -> str:
    """The reading asked for, or the first there is."""
    known = _readings(question)
    if asked is None:
        return next(iter(known))
    if asked not in known:
        raise InputError(f"--reading {asked} is unknown here; expected one of {', '.join(known)}")
    return asked


def _readings(question: Question) -> Mapping[str, Reading]:
    from depthscale.finite.diffusion.covariance import LENGTH
    from depthscale.finite.diffusion.equation import CORRELATION
    from depthscale.finite.diffusion.normal import DIRECT

    if question.v0 is not None:
        return LENGTH if len(question.v0) == 1 else CORRELATION
    if question.residual is not None:
        return DIRECT
    assert question.equation is not None  # one of the three
    return question.equation.readings


def _of_matrices(
    question: Question, options: argparse.Namespace, times: Sequence[float], name: str
) -> Found:
    from depthscale.finite.diffusion.covariance import sample_covariance

    assert question.limit is not None
    assert question.v0 is not None
    count = len(question.v0)
    pair = getattr(options, "pair", None) or (1, min(2, count))
    if max(pair) > count:
        raise InputError(f"--pair {pair[0]},{pair[1]}: expected inputs from 1 to {count}")
    matrices = sample_covariance(question.limit, question.v0, times, options.paths, options.seed)
    first, second = (number - 1 for number in pair)
    law = matrices.length(0) if count == 1 else matrices.correlation(first, second)
    return Found(law, name, matrices)


def _residual(question: Question, options: argparse.Namespace, times: Sequence[float]) -> Law:
    import numpy as np

    from depthscale.finite.diffusion.normal import DIRECT, NormalLaw

    network = question.residual
    assert network is not None
    rho0, eps0 = (question.start.get(name) for name in ("rho0", "eps0"))
    centre = network.mean_field(list(times), rho0, eps0).rho
    spread, error = np.zeros(len(centre)), np.zeros(len(centre))
    solver = "ordinary differential equation of infinite width"
    if options.width is not None:
        found = [
            network.fluctuation(
                options.depth,
                1 - question.start["eps0"] if rho0 is None else rho0,
                layers=max(1, round(time * options.depth)),
                paths=options.paths,
                seed=options.seed,
            )
            for time in times
        ]
        root = math.sqrt(options.width)
        spread = np.array([float(one.value) for one in found]) / root
        error = np.array([float(one.error) for one in found]) / root
        solver += (
            f"; fluctuations to order 1/sqrt(n) from {options.paths:,} paths of one unit at depth"
            f" {options.depth}"
        )
    return NormalLaw(np.array(times), DIRECT, centre, spread, error, solver)


def _finite(value: float) -> float | Undefined:
    if math.isfinite(value):
        return float(value)
    return Undefined("so many of the networks have exploded by then")


def fan(question: Question, options: argparse.Namespace, sampled: bool) -> list[dict[str, Any]]:
    """Quantiles at times up to the last one, from the start on where it is finite."""
    from argparse import Namespace

    import numpy as np

    quick = Namespace(**{**vars(options), "paths": min(options.paths, FAN_PATHS)})
    # paths take even steps, of which they tabulate one; a density is dense where it spreads
    power, first = (1, 1) if sampled else (2, 3)
    times = [options.time[-1] * (k / FAN) ** power for k in range(first, FAN + 1)]
    found = solved(question, quick, times)
    rows = found.rows(options.level)
    if question.v0 is not None or question.residual is not None:
        return rows
    with np.errstate(divide="ignore", over="ignore"):
        start = float(found.law.reading(found.reading).of(np.array(question.u0), 0.0))
    if not math.isfinite(start):
        return rows
    return [{"time": 0.0, "quantiles": dict.fromkeys(rows[0]["quantiles"], start)}, *rows]


def answer(question: Question, found: Found, options: argparse.Namespace) -> dict[str, Any]:
    """One object; its numbers are those of the last time, and ``times`` holds all."""
    from depthscale.finite.diffusion.law import DensityLaw
    from depthscale.theory.records import with_reasons

    rows: list[dict[str, Any]] = []
    why = question.infinite.get(found.reading)
    none = {} if why is None else {"mean": Undefined(why), "sd": Undefined(why)}
    for row in found.rows(options.level):
        row["errors"] |= none
        exact = dict(question.facts(row["time"]))
        rows.append(with_reasons({**row, **none, "exact": exact, **_matrix_row(found, len(rows))}))
    last = rows[-1]
    shared = with_reasons({"constants": dict(question.constants), "exact": dict(question.exact)})
    return {
        "kind": options.kind,
        "title": question.title,
        "reading": found.reading,
        "meaning": found.law.reading(found.reading).text,
        **{name: value for name, value in last.items() if name not in ("exact", "reasons")},
        "start": dict(question.start),
        "constants": shared["constants"],
        "exact": {**shared["exact"], **last["exact"]},
        "solver": found.law.solver,
        "errors_are": "estimates" if isinstance(found.law, DensityLaw) else "standard errors",
        "notes": list(question.notes),
        "reasons": {**shared["reasons"], **last["reasons"]},
        "times": rows,
    }


def _matrix_row(found: Found, index: int) -> dict[str, Any]:
    """Mean matrices at one time where there are several inputs."""
    if found.matrices is None:
        return {}
    mean = found.matrices.mean
    rho = found.matrices.correlations[index][~found.matrices.exploded[index]]
    return {
        "covariance": mean.value[index].tolist(),
        "covariance_error": mean.error[index].tolist(),
        "correlation": rho.mean(axis=0).tolist(),
    }

"""Convolutional networks as spatial systems: is their transition that of directed percolation?

One-dimensional tanh networks of 5 channels, kernel 3, ``sigma_b = .3`` on a ring of 256 sites. The
paper's channels, kernel and sizes are not at hand; these are ours. In full they take ten minutes of
one processor.

Weights that all sites share are the same for the whole ring and new in every layer: disorder in
time. Directed percolation is unstable to it; the contact process with noise that is common to all
sites decays more slowly than any power (H. Barghathi, J. A. Hoyos and T. Vojta, Phys. Rev. E 94
(2016) 022111). Networks whose sites have weights of their own are the control without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from depthscale.finite.lattice.lattice import Lattice
from depthscale.finite.lattice.result import LatticeRun
from depthscale.papers.absorbing.runs import Runs, seed
from depthscale.papers.claims import Claim
from depthscale.papers.judging import Measured, listed, measured, verdict_if
from depthscale.scaling.collapse import Collapse, collapse
from depthscale.scaling.identify import Identification, identify
from depthscale.theory.gaussian import Array

PAPER = "2307.02284"
WHERE = "convolutional networks"

DELTA, INVERSE_NU = 0.159464, 1 / 1.733847
"""Directed percolation in 1+1: I. Jensen, J. Phys. A 32 (1999) 5233."""
DELTA_2D = 0.4505
THETA, TWO_OVER_Z = 0.313686, 2 / 1.580745

FORM = "depth^-delta * F((sigma_w - s_c) * depth^b)"
FIXED = {"delta": DELTA, "b": INVERSE_NU}

SHARED = (1.65, 1.70, 1.75, 1.80, 1.85, 1.90, 1.95, 2.0, 2.1)
LOCAL = (1.405, 1.41, 1.415, 1.42, 1.425, 1.43, 1.435)
PLANE = (1.40, 1.45, 1.50, 1.55, 1.60)
LOCAL_PLANE = (1.38, 1.39, 1.40, 1.41, 1.42)

WINDOWS = ((10, 100), (20, 200), (40, 400), (80, 800))
LOCAL_WINDOWS = ((20, 200), (50, 500), (100, 1000), (200, 2000))
NEAR = 0.16
"""Of sigma_w about the critical point, that a window takes in."""
NEAR_LOCAL = 0.02

SIZES = (64, 256, 1024)
RESOLUTION = 0.05
"""Of exponents: a third of delta, and less than the windows differ by."""


def convolutional_networks(runs: Runs) -> list[Claim]:
    """Shared weights in windows of depth, what they do instead, and networks that share none."""
    return [
        *_windows(runs),
        _asymptotic(runs),
        _one_class(runs),
        _averaging(runs),
        _broadening(runs),
        *_spreading(runs),
        *_local(runs),
        *_plane(runs),
    ]


# Simulations --------------------------------------------------------------------------------------


def some(runs: Runs, values: tuple[float, ...]) -> tuple[float, ...]:
    """Of ``sigma_w``: all, or every other one of a quick run."""
    return values[::2] if runs.quick else values


def nearest(found: Sequence[LatticeRun], sigma_w: float) -> LatticeRun:
    """The run nearest to this ``sigma_w``."""
    return min(found, key=lambda run: abs(run.about["sigma_w"] - sigma_w))


def _recorded(first: int, last: int, count: int) -> list[int]:
    return [int(x) for x in np.unique(np.geomspace(first, last, count).round())]


def _run(
    runs: Runs, what: str, lattice: Lattice, depth: int, full: int, **how: object
) -> LatticeRun:
    return lattice.run(
        depth,
        runs.count(full, 200 if "start" in how else 32),
        seed=seed("convolution", what, lattice.sigma_w, lattice.grid.sites),
        record=_recorded(5, depth, 12 if runs.quick else 26),
        workers=runs.workers,
        progress=False,
        **how,  # type: ignore[arg-type]
    )


@cache
def shared(runs: Runs) -> tuple[LatticeRun, ...]:
    """Rings of 256 sites with shared weights, by ``sigma_w``."""
    depth = 200 if runs.quick else 1000
    return tuple(
        _run(runs, "shared", Lattice("tanh", s, 0.3), depth, 5000) for s in some(runs, SHARED)
    )


@cache
def by_size(runs: Runs) -> tuple[LatticeRun, ...]:
    """At ``sigma_w = 1.8``, by size."""
    return tuple(
        _run(runs, "size", Lattice("tanh", 1.8, 0.3, size=size), 128, 1000) for size in SIZES
    )


@cache
def local(runs: Runs) -> tuple[LatticeRun, ...]:
    """Rings of 1,024 sites with weights of their own (quick: 128)."""
    size, depth = (128, 200) if runs.quick else (1024, 2000)
    return tuple(
        _run(runs, "local", Lattice("tanh", s, 0.3, size=size, sharing="local"), depth, 48)
        for s in some(runs, LOCAL)
    )


@cache
def plane(runs: Runs, sharing: str) -> tuple[LatticeRun, ...]:
    """Squares of 48 x 48 sites with shared weights, or of 64 x 64 with their own (quick: 12)."""
    edge = 12 if runs.quick else 48 if sharing == "shared" else 64
    return tuple(
        _run(
            runs,
            "plane",
            Lattice("tanh", s, 0.3, size=(edge, edge), sharing=sharing),
            100 if runs.quick else 300,
            240 if sharing == "shared" else 16,
        )
        for s in some(runs, PLANE if sharing == "shared" else LOCAL_PLANE)
    )


@cache
def spread(runs: Runs) -> LatticeRun:
    """From one site of a ring that it does not get around, at the critical point of a window."""
    lattice = Lattice("tanh", 1.80, 0.3, size=128 if runs.quick else 512)
    return _run(runs, "spread", lattice, 60 if runs.quick else 250, 2000, start="site")


def joined(found: Sequence[LatticeRun]) -> dict[str, Array]:
    """Columns of several runs, realisations numbered through."""
    columns: dict[str, list[Array]] = {n: [] for n in ("depth", "sigma_w", "realisation", "rho")}
    first = 0
    for run in found:
        table = run.table()
        for name, column in columns.items():
            values = table[name].to_numpy(dtype=float)
            column.append(values + first if name == "realisation" else values)
        first += run.realisations
    return {name: np.concatenate(column) for name, column in columns.items()}


# Analysis -----------------------------------------------------------------------------------------


@cache
def collapsed(runs: Runs, window: tuple[int, int], kind: str = "shared") -> Collapse:
    """The decays of a window of depth, near the critical point that all of them give."""
    found, near = (shared(runs), NEAR) if kind == "shared" else (local(runs), NEAR_LOCAL)
    if kind == "plane":
        found, near = plane(runs, "shared"), NEAR
    if kind == "local plane":
        found, near = plane(runs, "local"), NEAR_LOCAL
    table = joined(found)
    values = np.unique(table["sigma_w"])
    rough = _collapse(table, window, (float(values[0]), float(values[-1])), resamples=0)
    if runs.quick:  # its few values of sigma_w are all needed
        return rough
    place = float(np.clip(rough["s_c"].value, values[0] + near / 2, values[-1] - near / 2))
    at = (place - near, place + near)
    return _collapse(table, window, at) if _count(values, at) >= 3 else rough


def _count(values: Array, at: tuple[float, float]) -> int:
    return int(((values >= at[0]) & (values <= at[1])).sum())


def _collapse(
    table: dict[str, Array], window: tuple[int, int], at: tuple[float, float], **how: object
) -> Collapse:
    return collapse(
        table,
        FORM,
        y="rho",
        x="sigma_w",
        size="depth",
        realisation="realisation",
        window={"depth": window, "sigma_w": at},
        **how,  # type: ignore[arg-type]
    )


@cache
def with_exponents_of_percolation(runs: Runs) -> Collapse:
    """All depths from 20 on with the exponents of directed percolation held."""
    table = joined(shared(runs))
    return _collapse(table, (20, int(table["depth"].max())), (1.6, 2.0), fixed=FIXED, resamples=0)


def exponents(found: Collapse) -> tuple[dict[str, float], Array]:
    """``delta`` and ``1/nu_par`` with their covariance, for ``identify``."""
    names = ("delta", "b")
    errors = np.array([found[name].error for name in names])
    places = [found.names.index(name) for name in names]
    correlation = found.correlation[np.ix_(places, places)]
    values = {"delta": found["delta"].value, "1/nu_par": found["b"].value}
    return values, correlation * np.outer(errors, errors)


@cache
def identified(runs: Runs, kind: str = "shared") -> Identification:
    """The class by all windows."""
    windows = windows_of(runs, WINDOWS if kind == "shared" else LOCAL_WINDOWS)
    found = [
        (f"{low} to {high}", exponents(collapsed(runs, (low, high), kind))) for low, high in windows
    ]
    return identify(windows=found, dimension=1)


def windows_of(runs: Runs, windows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """All, or the first two in a quick run, whose depth may end before the second does."""
    return list(windows[:2] if runs.quick else windows)


def _of(found: Collapse, name: str) -> Measured:
    return Measured(found[name].value, found[name].error)


def told(runs: Runs, windows: Sequence[tuple[int, int]], kind: str) -> str:
    """Exponents by window, for a note."""
    parts = []
    for window in windows_of(runs, windows):
        found = collapsed(runs, window, kind)
        values = ", ".join(f"{n} {found[n].value:.3f}({found[n].error:.3f})"
                           for n in ("s_c", "b", "delta"))  # fmt: skip
        parts.append(f"{window[0]}-{window[1]}: {values}, chi2 {found.reduced_chi2:.2f}")
    return "; ".join(parts)


# Claims -------------------------------------------------------------------------------------------


def _windows(runs: Runs) -> list[Claim]:
    """The exponents of directed percolation in an early window and in the last one."""
    windows = windows_of(runs, WINDOWS)
    note = f"1/nu_par is b; by window of depth: {told(runs, WINDOWS, 'shared')}"
    claims = []
    early = windows[min(1, len(windows) - 2)]
    for window, agreed in ((early, "confirmed in a window"), (windows[-1], "confirmed")):
        found = collapsed(runs, window)
        for name, stated, words in (
            ("delta", DELTA, "delta"),
            ("b", INVERSE_NU, "1/nu_par"),
        ):
            claims.append(
                measured(
                    PAPER,
                    "v2",
                    WHERE,
                    f"shared weights, depths {window[0]} to {window[1]}: {words} is that of"
                    " directed percolation in 1+1",
                    stated,
                    _of(found, name),
                    RESOLUTION if name == "delta" else 2 * RESOLUTION,
                    "a third of delta, a sixth of 1/nu_par: less than the windows differ by",
                    note,
                    agreed=agreed,  # type: ignore[arg-type]
                )
            )
    return claims


def _asymptotic(runs: Runs) -> Claim:
    found = with_exponents_of_percolation(runs)
    drifts = [w for w in found.stability if w.p_value is not None]
    worst = min(drifts, key=lambda w: w.p_value or 0.0) if drifts else None
    moved = f"; s_c becomes {worst.values['s_c']:.4f} with {worst.what}" if worst else ""
    return Claim(
        PAPER,
        "v2",
        WHERE,
        "shared weights: with the exponents of directed percolation all depths from 20 on fall onto"
        " one curve",
        verdict_if(found.p_value is not None and found.p_value > 0.01),
        note=f"reduced chi-square {found.reduced_chi2:.2f}, chance {found.p_value or 0:.1g}; s_c"
        f" {found['s_c'].value:.4f}{moved}",
    )


def _one_class(runs: Runs) -> Claim:
    found = identified(runs)
    return Claim(
        PAPER,
        "v2",
        WHERE,
        "shared weights are of the class of directed percolation in 1+1, by every window",
        verdict_if(found.allowed == ("directed percolation 1+1",)),
        note=found.sentence,
    )


def _averaging(runs: Runs) -> Claim:
    """What a ring's size does to the scatter between networks."""
    scatter = [float((run.sd() / run.mean())[-1]) for run in by_size(runs)]
    return Claim(
        PAPER,
        "ours",
        WHERE,
        "shared weights do not average out: from 64 to 1,024 sites the scatter of rho between"
        " networks falls by less than half of the factor 4 of independent sites",
        verdict_if(scatter[0] / scatter[-1] < 2),
        ours=scatter[0] / scatter[-1],
        note=f"sd/mean at layer 128, sigma_w 1.8, L = {listed(np.array(SIZES))}:"
        f" {listed(np.array(scatter), 2)}",
    )


def broadening(runs: Runs) -> tuple[Array, Array, Array]:
    """Depths, the standard deviation of ``ln rho`` over networks at 1.9, and its error."""
    run = nearest(shared(runs), 1.90)
    behind = run.depths > 0
    values = run.of("log_rho")[:, behind]
    spread_ = values.std(axis=0)
    square = (values - values.mean(axis=0)) ** 2
    error = square.std(axis=0) / np.sqrt(len(values)) / (2 * spread_)
    return run.depths[behind].astype(float), spread_, error


def _broadening(runs: Runs) -> Claim:
    depths, width, error = broadening(runs)
    first = int(np.argmin(np.abs(depths - 20)))
    rise = width[-1] - width[first]
    allowed = 3 * float(np.hypot(error[-1], error[first]))
    return Claim(
        PAPER,
        "ours",
        WHERE,
        "shared weights act as noise in time whose effect grows with depth: the scatter of ln rho"
        " between networks at sigma_w = 1.9 rises from layer 20 to the last",
        verdict_if(rise > allowed) if abs(rise) > allowed else "undecided",
        ours=float(width[-1]),
        note=f"sd of ln rho {listed(width[[first, len(width) // 2, -1]], 3)} at layers"
        f" {listed(depths[[first, len(width) // 2, -1]])}; the scatter of directed percolation"
        " falls with the number of sites",
    )


def _spreading(runs: Runs) -> list[Claim]:
    """From one site: survival, number and distance in a window."""
    run = spread(runs)
    last = int(run.depths[-1])
    window = (max(5, last // 12), last)
    alive = (run.of("active") > 0).astype(float)
    number = run.active_sites()
    square = np.nan_to_num(run.of("spread")) * number
    falls = _slope(run.depths, alive, window)
    parts = (
        ("survival exponent", DELTA, Measured(-falls.value, falls.error)),
        ("theta, of the number of active sites", THETA, _slope(run.depths, number, window)),
        ("2/z, of their square distance", TWO_OVER_Z, _slope(run.depths, square, window, number)),
    )
    claims = []
    for words, stated, found in parts:
        claims.append(
            measured(
                PAPER,
                "v2",
                WHERE,
                f"shared weights, from one site, depths {window[0]} to {window[1]}: {words} is that"
                " of directed percolation",
                stated,
                found,
                RESOLUTION,
                "a third of delta",
                "sigma_w 1.8; straight line through logarithms",
                agreed="confirmed in a window",
            )
        )
    return claims


def _slope(
    depths: ArrayLike, values: Array, window: tuple[int, int], over: Array | None = None
) -> Measured:
    """Of ``ln mean`` over ``ln depth``, or of a ratio of means; ``values`` [network, depth].

    Whole networks scatter: the error is that of the mean of what each adds to first order.
    """
    layers = np.asarray(depths, dtype=float)
    late = (layers >= window[0]) & (layers <= window[1])
    x = np.log(layers[late])
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    value, pull = 0.0, np.zeros(len(values))
    for part, sign in ((values, 1), (over, -1)):
        if part is not None:
            mean = part[:, late].mean(axis=0)
            value += sign * float(np.log(mean) @ weight)
            pull += sign * (part[:, late] / mean - 1) @ weight
    return Measured(value, float(pull.std(ddof=1) / np.sqrt(len(pull))))


def _local(runs: Runs) -> list[Claim]:
    """Weights of their own: self-averaging, another critical point, another class."""
    found = identified(runs, "local")
    note = told(runs, LOCAL_WINDOWS, "local")
    last = collapsed(runs, windows_of(runs, LOCAL_WINDOWS)[-1], "local")
    critical = nearest(local(runs), 1.425)
    scatter = float(np.median((critical.sd() / critical.mean())[critical.depths > 50]))
    return [
        Claim(
            PAPER,
            "ours",
            WHERE,
            "locally connected networks are of the class of directed percolation in 1+1",
            verdict_if(found.allowed == ("directed percolation 1+1",)),
            note=f"{found.sentence} By window of depth: {note}",
        ),
        measured(
            PAPER,
            "ours",
            WHERE,
            "locally connected networks decay at criticality as multiplicative noise in one"
            " dimension does, rho ~ depth^-1.15 (bounded KPZ, beta/nu_par = 1.7/1.5)",
            1.15,
            _of(last, "delta"),
            0.15,
            "values of that class in the literature are from 1.1 to 1.2",
            f"by window: {note}",
        ),
        Claim(
            PAPER,
            "ours",
            WHERE,
            "locally connected networks average out: rho scatters by less than a fifth between"
            f" networks of {critical.sites:,} sites at the critical point",
            verdict_if(scatter < 0.2),
            ours=scatter,
            note="median over depths beyond 50 at sigma_w = 1.425",
        ),
    ]


def _plane(runs: Runs) -> list[Claim]:
    """Two dimensions, with shared and with own weights."""
    windows = [(10, 100)] if runs.quick else [(10, 100), (30, 300)]
    claims = []
    for window in windows:
        found = collapsed(runs, window, "plane")
        claims.append(
            measured(
                PAPER,
                "v2",
                f"{WHERE}, two dimensions",
                f"shared weights, depths {window[0]} to {window[1]}: delta is that of directed"
                " percolation in 2+1",
                DELTA_2D,
                _of(found, "delta"),
                0.15,
                "a third of it",
                told(runs, windows, "plane"),
                agreed="confirmed in a window",
            )
        )
    found = collapsed(runs, windows[-1], "local plane")
    claims.append(
        measured(
            PAPER,
            "ours",
            f"{WHERE}, two dimensions",
            f"locally connected, depths {windows[-1][0]} to {windows[-1][1]}: delta is that of mean"
            " field",
            1.0,
            _of(found, "delta"),
            0.15,
            "corrections are logarithmic",
            told(runs, windows, "local plane"),
        )
    )
    return claims

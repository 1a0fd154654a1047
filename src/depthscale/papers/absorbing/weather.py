"""Disorder in time as the reason why shared weights leave directed percolation behind.

Weights that all sites of a layer share favour activity in one layer and hinder it in the next,
everywhere at once. Directed percolation whose chance does the same, ``p - w`` or ``p + w`` at every
step, goes through the windows of the convolutional networks here. Its average density is known to
decay more slowly than any power at criticality (H. Barghathi, J. A. Hoyos and T. Vojta, Phys. Rev.
E 94 (2016) 022111). In full it takes four minutes of one processor.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from depthscale.papers.absorbing.runs import Runs, seed
from depthscale.papers.claims import Claim
from depthscale.papers.judging import Measured
from depthscale.scaling.collapse import Collapse, collapse
from depthscale.scaling.percolation import (
    THRESHOLDS,
    Decay,
    decay,
    directed_percolation,
    joined,
    spaced_times,
)

PAPER = "2307.02284"
WHERE = "disorder in time (ours)"

SWING = 0.15
"""``w``: with it the scatter between realisations is like that of the networks."""
CHANCES = (0.64, 0.66, 0.67, 0.68, 0.69, 0.70, 0.72)
CLEAN = tuple(
    THRESHOLDS["bond", "square"].p + x for x in (-0.02, -0.01, -0.005, 0, 0.005, 0.01, 0.02)
)
WINDOWS = ((10, 100), (20, 200), (40, 400), (80, 800))
FORM = "t^-delta * F((p - p_c) * t^b)"
LENGTH = 512


def disorder_in_time(runs: Runs) -> list[Claim]:
    """The drift of the networks in directed percolation with noise, and none without."""
    noisy, clean = (by_window(runs, with_weather) for with_weather in (True, False))
    return [
        _drifts(noisy, "directed percolation with weather", "confirmed"),
        _drifts(clean, "directed percolation without", "refuted"),
    ]


@cache
def decays(runs: Runs, weather: bool) -> tuple[Decay, ...]:
    """Densities from full rings; one realisation is 64 of them under the same weather."""
    times = spaced_times(200 if runs.quick else 800, 6, 10)
    found = []
    for p in CHANCES if weather else CLEAN:
        swing = SWING if weather else 0.0
        run = decay(
            directed_percolation(p - swing),
            LENGTH,
            times,
            64 * runs.count(400 if weather else 60),
            seed("weather", weather, p),
            weather=directed_percolation(p + swing) if weather else None,
            workers=runs.workers,
            progress=False,
        )
        found.append(run.blocks(64))
    return tuple(found)


@cache
def by_window(runs: Runs, weather: bool) -> tuple[tuple[tuple[int, int], Collapse], ...]:
    """A collapse for every window of time."""
    runs_, chances = decays(runs, weather), CHANCES if weather else CLEAN
    table = joined(runs_)
    middle = np.repeat(np.array(chances), [run.density.size for run in runs_])
    table["p"] = middle  # the chance without its swing
    return tuple(
        (
            window,
            collapse(
                table,
                FORM,
                y="rho",
                x="p",
                size="t",
                realisation="realisation",
                window={"t": window},
                resamples=0 if runs.quick else None,
            ),
        )
        for window in (WINDOWS[:2] if runs.quick else WINDOWS)
    )


def _drifts(
    found: tuple[tuple[tuple[int, int], Collapse], ...], model: str, expected: str
) -> Claim:
    """Whether delta falls from the first window to the last, which share no points in full."""
    (_, first), (_, last) = found[0], found[-1]
    early, late = (Measured(c["delta"].value, c["delta"].error) for c in (first, last))
    fall = early.value - late.value
    error = float(np.hypot(early.error, late.error))
    told = "; ".join(
        f"{low}-{high}: delta {c['delta'].value:.3f}({c['delta'].error:.3f}), 1/nu_par"
        f" {c['b'].value:.3f}({c['b'].error:.3f}), p_c {c['p_c'].value:.4f}"
        for (low, high), c in found
    )
    verdict = "undecided"
    if fall > 3 * error:
        verdict = "confirmed"
    elif abs(fall) + 3 * error < 0.05:
        verdict = "refuted"
    return Claim(
        PAPER,
        "ours",
        WHERE,
        f"{model}: delta falls from window to window of time, as in convolutional networks of"
        " shared weights",
        verdict,  # type: ignore[arg-type]
        ours=fall,
        tolerance=0.05,
        why="of a fall that counts as none: a third of delta",
        note=f"we expect it {expected}; by window: {told}",
    )

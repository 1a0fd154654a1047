"""Disorder in time: is it the reason why shared weights leave directed percolation behind?

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

SWING = 0.25
"""``w``: as strong as chances allow; densities scatter by .4 of their mean between realisations at
criticality, those of the networks by .5 to .7."""
CHANCES = (0.68, 0.70, 0.71, 0.72, 0.73, 0.74, 0.745)
CLEAN = tuple(
    THRESHOLDS["bond", "square"].p + x for x in (-0.02, -0.01, -0.005, 0, 0.005, 0.01, 0.02)
)
WINDOWS = ((10, 100), (20, 200), (40, 400), (80, 800))
FORM = "t^-delta * F((p - p_c) * t^b)"
LENGTH = 512
NO_FALL = 0.05
"""Of delta from window to window, a third of it; the networks' falls by more than .1."""


def disorder_in_time(runs: Runs) -> list[Claim]:
    """The drift of the networks in directed percolation with noise, and none without."""
    noisy, clean = (by_window(runs, with_weather) for with_weather in (True, False))
    return [
        _drifts(noisy, "directed percolation with weather"),
        _drifts(clean, "directed percolation without"),
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


def _drifts(found: tuple[tuple[tuple[int, int], Collapse], ...], model: str) -> Claim:
    """Whether delta falls from the first window to the last.

    Their errors are added as if independent: both are of the same histories, most likely positively
    correlated, so that the fall is surer than told.
    """
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
    if fall > max(3 * error, NO_FALL):
        verdict = "confirmed"
    elif fall + 3 * error < NO_FALL:
        verdict = "refuted"
    return Claim(
        PAPER,
        "ours",
        WHERE,
        f"{model}: delta falls from window to window of time, as in convolutional networks of"
        " shared weights",
        verdict,  # type: ignore[arg-type]
        ours=fall,
        tolerance=NO_FALL,
        why="of a fall that counts as none: a third of delta",
        note=f"by window: {told}",
    )

"""What is simulated for the controls of the scaling analysis: models whose class is known."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from depthscale.papers.absorbing.runs import Runs, seed
from depthscale.scaling.percolation import (
    THRESHOLDS,
    Automaton,
    ContactProcess,
    Decay,
    Spread,
    decay,
    directed_percolation,
    domany_kinzel,
    spaced_times,
    spread,
)
from depthscale.theory.gaussian import Array

Z = 1.580745
"""Of directed percolation in 1+1: I. Jensen, J. Phys. A 32 (1999) 5233."""

CRITICAL = THRESHOLDS["bond", "square"].p
OFFSETS = np.array([-4, -2, -1, -0.5, 0, 0.5, 1, 2, 4]) * 1e-3
EARLIEST = 8
EDGES = (32, 64, 128, 256)

SITES = (64, 256, 1024, 4096)
"""Of the contact process; each four times the one before."""


@cache
def decays(runs: Runs) -> tuple[Decay, ...]:
    """Bond directed percolation from full lattices, around its threshold."""
    edge, last = (1024, 512) if runs.quick else (8192, 8192)
    times = spaced_times(last, first=EARLIEST)
    return tuple(
        decay(
            directed_percolation(CRITICAL + offset),
            edge,
            times,
            runs.count(128, 64),
            seed("controls", "decay", offset),
            workers=runs.workers,
            progress=False,
        )
        for offset in OFFSETS.tolist()
    )


@cache
def finite(runs: Runs) -> tuple[Decay, ...]:
    """At the threshold until small lattices are empty."""
    return tuple(
        decay(
            directed_percolation(),
            edge,
            spaced_times(round(4 * edge**Z), first=EARLIEST),
            256 if runs.quick else 1_048_576 // edge,
            seed("controls", "finite", edge),
            workers=runs.workers,
            progress=False,
        )
        for edge in (EDGES[:3] if runs.quick else EDGES)
    )


@cache
def plane(runs: Runs) -> Decay:
    """In 2+1 dimensions at the threshold."""
    edge, last = (64, 64) if runs.quick else (512, 512)
    return decay(
        directed_percolation(lattice="bcc"),
        edge,
        spaced_times(last),
        64,
        seed("controls", "plane"),
        workers=runs.workers,
        progress=False,
    )


@cache
def spreads(runs: Runs, compact: bool = False) -> Spread:
    """From one site, directed percolation at its threshold or compact one at 1/2."""
    model: Automaton = domany_kinzel(0.5, 1.0) if compact else directed_percolation()
    return spread(
        model,
        spaced_times(256 if runs.quick else 2048),
        runs.count(16_384 if not compact else 65_536, 1024),
        seed("controls", "spread", compact),
        workers=runs.workers,
        progress=False,
    )


class Contact(NamedTuple):
    """Exact shares of the contact process at its critical rate, at ``times``."""

    sites: int
    times: Array
    density: Array
    survival: Array


@cache
def contacts(runs: Runs) -> tuple[Contact, ...]:
    """By number of sites, about the time ``N^1/2``."""
    found = []
    for sites in SITES[:-1] if runs.quick else SITES:
        times = np.geomspace(0.5, 4, 33) * math.sqrt(sites)
        law = ContactProcess(1.0, sites).probabilities(times)
        density = law @ np.arange(sites + 1) / sites
        found.append(Contact(sites, times, density, 1 - law[:, 0]))
    return tuple(found)

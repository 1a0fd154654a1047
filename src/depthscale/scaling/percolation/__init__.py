"""Directed percolation and its relatives, simulated: models whose exponents are known."""

from depthscale.scaling.percolation.automata import (
    THRESHOLDS,
    Automaton,
    directed_percolation,
    domany_kinzel,
)
from depthscale.scaling.percolation.blocks import spaced_times
from depthscale.scaling.percolation.contact import ContactProcess, ContactRun, contact
from depthscale.scaling.percolation.decay import Decay, decay, joined
from depthscale.scaling.percolation.spread import Spread, spread

__all__ = [
    "THRESHOLDS",
    "Automaton",
    "ContactProcess",
    "ContactRun",
    "Decay",
    "Spread",
    "contact",
    "decay",
    "directed_percolation",
    "domany_kinzel",
    "joined",
    "spaced_times",
    "spread",
]

"""Absorbing phase transitions in deep networks, 2307.02284: its claims recomputed.

Two signals that have become equal stay equal: an absorbing state, with ``rho = 1 - correlation`` as
order parameter. The paper says that fully connected networks are of the mean-field class and that
convolutional ones are of directed percolation; it was read with its abstract, and its channels,
kernels, sizes and windows of the fits could not be found, so ours stand beside each claim. A claim
that is marked as ours is not stated there: finite width, dropout as the conjugate field, controls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from depthscale.papers.absorbing.controls import known_models
from depthscale.papers.absorbing.convolution import convolutional_networks
from depthscale.papers.absorbing.field import field_response_claims
from depthscale.papers.absorbing.mlp import mlp_transition
from depthscale.papers.absorbing.runs import Runs
from depthscale.papers.absorbing.training import training_window
from depthscale.papers.absorbing.weather import disorder_in_time
from depthscale.papers.claims import Claim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GROUPS", "TITLE", "Runs", "figures"]

TITLE = "Absorbing phase transitions in artificial deep neural networks (2307.02284)"

GROUPS: tuple[tuple[str, Callable[[Runs], list[Claim]]], ...] = (
    ("controls", known_models),
    ("fully connected networks", mlp_transition),
    ("convolutional networks", convolutional_networks),
    ("disorder in time", disorder_in_time),
    ("dropout as field", field_response_claims),
    ("training", training_window),
)
"""What is computed, in order, by name."""


def figures(runs: Runs) -> dict[str, Callable[[Path], Figure]]:
    """Figures by file name."""
    from depthscale.papers.absorbing import (
        plots_controls,
        plots_convolution,
        plots_field,
        plots_mlp,
        plots_training,
    )

    drawings: dict[str, Callable[[Runs, Path], Figure]] = {
        "percolation.svg": plots_controls.percolation,
        "classes.svg": plots_controls.classes,
        "collapse.svg": plots_mlp.collapse,
        "sizes.svg": plots_mlp.sizes,
        "apart.svg": plots_mlp.apart,
        "boundary.svg": plots_mlp.boundary,
        "windows.svg": plots_convolution.windows,
        "decays.svg": plots_convolution.decays,
        "local.svg": plots_convolution.local,
        "plane.svg": plots_convolution.plane,
        "field-collapse.svg": plots_field.field_collapse,
        "response.svg": plots_field.response_exponents,
        "smeared.svg": plots_field.smeared_transition,
        "kernel-window.svg": plots_training.kernel_window,
        "trained.svg": plots_training.trained_networks,
    }
    return {name: partial(draw, runs) for name, draw in drawings.items()}

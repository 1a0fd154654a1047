"""Gradients in deep dropout networks, 1912.09132: its claims recomputed, each with a verdict.

Read with the abstract, and with the notebooks and data that the authors published, whose captions
state the figures' settings. A claim that is marked as ours follows from the same networks and is
not stated there. The authors' numbers, thinned, lie beside this file: ``curves.csv`` (figures 2 and
3), ``spread.csv`` (4 and 5), ``steps.csv`` (6) and ``trainable.csv`` (7), each with its source in
its head.

``l`` counts layers from the input, rho is the probability that a unit is kept (``1 - drop``), and a
gradient metric is a mean over the weights of a layer.
"""

from __future__ import annotations

from collections.abc import Callable

from depthscale.papers.claims import Claim
from depthscale.papers.gradients.linear import figure_two
from depthscale.papers.gradients.mechanisms import three_mechanisms
from depthscale.papers.gradients.metrics import figure_three
from depthscale.papers.gradients.plots import figures
from depthscale.papers.gradients.runs import Runs
from depthscale.papers.gradients.spread import figures_four_and_five
from depthscale.papers.gradients.training import figures_six_and_seven

__all__ = ["GROUPS", "TITLE", "Runs", "figures"]

TITLE = "Mean field theory for deep dropout networks (1912.09132)"

GROUPS: tuple[tuple[str, Callable[[Runs], list[Claim]]], ...] = (
    ("linear networks", figure_two),
    ("gradient metrics", figure_three),
    ("variance and mean", figures_four_and_five),
    ("mechanisms", three_mechanisms),
    ("training", figures_six_and_seven),
)
"""What is computed, in order, by name."""

"""Shaped and unshaped limits, 2310.12079: its claims recomputed, each with a verdict.

With those of the papers that it rests on: 2206.02768, whose covariance equation shaped networks
obey, and the tailored activations of 2203.08120. Read with their abstracts; a claim that is marked
as ours follows from the same networks and is not stated there, or was derived here.

A claim on random networks holds exact finite networks (``Ensemble``) against an equation that was
not fitted to them. Its verdict follows from a rule that is fixed before they are drawn, see
``common``: the whole interval of three standard errors within a stated resolution, or a
Kolmogorov-Smirnov distance below a stated one that the noise of so many networks allows to see.

``t = l/n`` is the depth in widths, rho the correlation of two inputs, ``y = n^(1/beta) (1 - rho)``
with ``beta`` 1/2 for ReLU and 1 for smooth activations.
"""

from __future__ import annotations

from collections.abc import Callable

from depthscale.papers.claims import Claim
from depthscale.papers.limits.dropout import dropped_networks
from depthscale.papers.limits.explosion import smooth_shapes
from depthscale.papers.limits.plots import figures
from depthscale.papers.limits.residual import residual_networks
from depthscale.papers.limits.runs import Runs
from depthscale.papers.limits.shaped import shaped_networks
from depthscale.papers.limits.shaping import shaped_slopes
from depthscale.papers.limits.smooth import other_networks
from depthscale.papers.limits.solvers import our_solvers
from depthscale.papers.limits.unshaped import unshaped_networks

__all__ = ["GROUPS", "TITLE", "Runs", "figures"]

TITLE = "Differential equation limits of shaped and unshaped networks (2310.12079)"

GROUPS: tuple[tuple[str, Callable[[Runs], list[Claim]]], ...] = (
    ("residual networks", residual_networks),
    ("unshaped networks", unshaped_networks),
    ("other unshaped networks", other_networks),
    ("dropout", dropped_networks),
    ("shaped networks", shaped_networks),
    ("smooth shaped networks", smooth_shapes),
    ("tailored slopes", shaped_slopes),
    ("solvers", our_solvers),
)
"""What is computed, in order, by name."""

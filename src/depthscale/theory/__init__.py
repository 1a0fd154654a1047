"""Infinite width: exact maps, fixed points and depth scales. No networks, no randomness."""

from depthscale.theory.activation import Activation, Kink, activation
from depthscale.theory.criticality import CriticalPoint, critical_line, critical_point, max_drop
from depthscale.theory.meanfield import MeanField, Trajectory, propagate
from depthscale.theory.phase import phase_diagram
from depthscale.theory.records import DepthScale

__all__ = [
    "Activation",
    "CriticalPoint",
    "DepthScale",
    "Kink",
    "MeanField",
    "Trajectory",
    "activation",
    "critical_line",
    "critical_point",
    "max_drop",
    "phase_diagram",
    "propagate",
]

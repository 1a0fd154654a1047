"""Exponents from measured points: local ones, fits of power laws, limits.

Everything takes arrays and one kind of error: independent errors, a covariance, or the raw values
of independent realisations, of which whole ones are resampled.
"""

from __future__ import annotations

from depthscale.scaling.effective import EffectiveExponent, effective_exponent
from depthscale.scaling.extrapolation import Approach, Extrapolation, extrapolate
from depthscale.scaling.powers import Cut, PowerLaw, power_law

__all__ = [
    "Approach",
    "Cut",
    "EffectiveExponent",
    "Extrapolation",
    "PowerLaw",
    "effective_exponent",
    "extrapolate",
    "power_law",
]

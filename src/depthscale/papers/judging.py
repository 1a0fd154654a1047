"""How a claim on random networks is judged: by a rule that is fixed before they are drawn."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthscale.papers.claims import Claim, Verdict, Version
from depthscale.theory.gaussian import Array

NOISE = 1.358
"""Of ``NOISE/sqrt N``, which N samples of a law exceed in 5 % of all cases."""

ERRORS = 3
"""Standard errors on both sides of what was measured that a verdict has to hold for."""


class Measured(NamedTuple):
    """What networks gave, and its standard error."""

    value: float
    error: float


def mean_of(samples: Array) -> Measured:
    """Their mean."""
    return Measured(float(samples.mean()), float(samples.std() / math.sqrt(samples.size)))


def sd_of(samples: Array) -> Measured:
    """Their standard deviation; its error by their fourth moment."""
    square = (samples - samples.mean()) ** 2
    sd = math.sqrt(square.mean())
    return Measured(sd, float(square.std() / math.sqrt(samples.size)) / (2 * sd))


def share_of(hits: NDArray[np.bool_]) -> Measured:
    """How many of them are true; the error is never taken below that of one in all."""
    share = float(hits.mean())
    spread = max(share * (1 - share), 1 / hits.size)
    return Measured(share, math.sqrt(spread / hits.size))


def measured(
    paper: str,
    version: Version,
    where: str,
    statement: str,
    stated: float,
    found: Measured,
    resolution: float,
    why: str,
    note: str = "",
    agreed: Verdict = "confirmed",
) -> Claim:
    """A number from random networks; the rule is fixed before they are drawn.

    ``agreed`` where all of ours, three standard errors to both sides, lies within the resolution
    of what is stated; refuted where none of it does; else undecided.
    """
    off, reach = abs(found.value - stated), ERRORS * found.error
    verdict: Verdict = "undecided"
    if off + reach <= resolution:
        verdict = agreed
    elif off - reach > resolution:
        verdict = "refuted"
    told = f"one standard error of ours is {found.error:.2g}"
    return Claim(
        paper,
        version,
        where,
        statement,
        verdict,
        float(stated),
        float(found.value),
        resolution,
        why,
        f"{told}; {note}" if note else told,
    )


def near(
    paper: str,
    version: Version,
    where: str,
    statement: str,
    distance: float,
    samples: int,
    allowed: float,
    why: str,
    note: str = "",
    agreed: Verdict = "confirmed",
) -> Claim:
    """A Kolmogorov-Smirnov distance of samples to a law that is not to exceed ``allowed``.

    ``agreed`` where neither the distance nor the noise of so many samples of the law itself does;
    refuted where the distance does by more than that noise; else undecided.
    """
    noise = NOISE / math.sqrt(samples)
    verdict: Verdict = "undecided"
    if distance <= allowed and noise <= allowed:
        verdict = agreed
    elif distance > allowed + noise:
        verdict = "refuted"
    told = f"{samples} samples of the law itself are within {noise:.2g} of it in 95 % of all cases"
    return Claim(
        paper,
        version,
        where,
        statement,
        verdict,
        0.0,
        float(distance),
        allowed,
        why,
        f"{told}; {note}" if note else told,
    )


def verdict_if(true: bool) -> Verdict:
    """The verdict on a statement that is no number."""
    return "confirmed" if true else "refuted"


def listed(values: Array, digits: int = 4) -> str:
    """Numbers for a note."""
    return ", ".join(f"{x:.{digits}g}" for x in np.ravel(values))

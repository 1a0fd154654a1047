"""Small drawings beside the headline numbers: where a number lies, and how far a signal gets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.report.words import is_number

if TYPE_CHECKING:
    from depthscale.practice.diagnosis.verdict import Headline

WIDTH, LEFT, RIGHT = 260.0, 8.0, 252.0


def gauge(headline: Headline) -> str:
    """Return a scale with the measured interval and the theory on it, as decorative SVG.

    A misalignment lies between 0 (identical) and 1 (unrelated), a growth factor on a log scale
    around 1 (balanced). Empty where there is nothing to show; the card says it all in words.
    """
    band = headline.band
    if band is None or not is_number(band.value):
        return ""
    numbers: tuple[Any, ...] = (band.value, band.low, band.high, headline.predicted)
    values = [float(value) if is_number(value) else None for value in numbers]
    known = [float(value) for value in values if value is not None]
    if headline.key.endswith("growth"):
        if min(known) <= 0.0:
            return ""
        reach = max(max(abs(math.log(value)) for value in known) * 1.15, math.log(1.5))
        position = _between(-reach, reach, log=True)
        names = ("shrinks", "1", "grows")
    else:
        position = _between(0.0, max(1.0, *known), log=False)
        names = ("0 identical", "", "1 unrelated")
    places = [position(value) if value is not None else None for value in values]
    return _scale(names, position(1.0), places)


def _between(low: float, high: float, *, log: bool) -> Callable[[float], float]:
    def position(value: float) -> float:
        place = math.log(value) if log else float(value)
        return LEFT + (RIGHT - LEFT) * (place - low) / (high - low)

    return position


def _scale(names: tuple[str, str, str], one: float, places: list[float | None]) -> str:
    value, low, high, predicted = places
    start, stop = low if low is not None else LEFT, high if high is not None else RIGHT
    parts = [f'<path class="base" d="M{LEFT} 15H{RIGHT}M{one:.1f} 9v12"/>']
    if predicted is not None:
        parts.append(f'<path class="expected" d="M{predicted:.1f} 5v20"/>')
    parts.append(f'<path class="range" d="M{start:.1f} 15H{stop:.1f}"/>')
    parts.append(f'<circle class="value" cx="{value:.1f}" cy="15" r="5"/>')
    for text, x, anchor in zip(names, (LEFT, 130, RIGHT), ("start", "middle", "end"), strict=True):
        parts.append(f'<text x="{x}" y="38" text-anchor="{anchor}">{text}</text>')
    body = "".join(parts)
    return f'<svg class="gauge" viewBox="0 0 260 42" aria-hidden="true">{body}</svg>'


def survival_strip(survival: np.ndarray, scale: float | None) -> str:
    """Return one cell per layer, as dark as the share of the signal that is left there.

    ``survival`` is 1 at the first layer; ``scale``, the depth scale in layers, gets a mark where
    it falls inside the network. The drawing stretches to the width of its place.
    """
    shares = np.clip(np.asarray(survival, dtype=float), 0.0, 1.0)
    depth = shares.size
    cells = "".join(
        f'<rect x="{k + 0.07:.2f}" y="0" width=".86" height="10" fill-opacity="{share:.3f}"/>'
        for k, share in enumerate(shares)
        if share >= 0.0005
    )
    frame = "".join(f"M{k + 0.07:.2f} 9.5h.86" for k in range(depth))
    mark = ""
    if scale is not None and scale < depth:
        mark = f'<path class="mark" d="M{scale:.2f} -3v16"/>'
    return (
        f'<svg class="strip" viewBox="0 -3 {depth} 16" preserveAspectRatio="none" '
        f'aria-hidden="true"><path class="empty" d="{frame}"/>{cells}{mark}</svg>'
    )

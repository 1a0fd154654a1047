"""Activations as the theory sees them: a function, its derivatives, where it is not analytic."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.theory.closed import ClosedForm
from depthscale.theory.gaussian import Array, Function, Shape

Parity = Literal["odd", "even"]


class Kink(NamedTuple):
    """A jump of the slope: ``f'(place + 0) - f'(place - 0)``."""

    place: float
    jump: float


@dataclass(frozen=True, eq=False)
class Activation:
    """A scalar function with what the theory needs to know of it.

    Attributes
    ----------
    name:
        How it prints; built-in names parse back through ``activation(name)``.
    function, slope, curvature:
        ``f``, ``f'``, ``f''``, vectorised over float64; derivatives without their jumps.
    breaks:
        Places where some derivative jumps. ``kinks`` are those where the slope does.
    jumps:
        Places where the value itself jumps; the theory does not hold then (``why_no_theory``).
    scale, centres, density:
        Length over which the smooth pieces vary, around which places, and how many nodes they
        want (see ``Shape``).
    parity, degree:
        ``"odd"``, ``"even"`` or None; ``f(c x) = c^degree f(x)`` for ``c > 0`` or None.
    evidence:
        How each fact is known: ``"known"`` (built in), ``"stated"`` (by the caller) or
        ``"detected"`` (found numerically, with the tolerance).
    """

    name: str
    function: Function = field(repr=False)
    slope: Function = field(repr=False)
    curvature: Function = field(repr=False)
    breaks: tuple[float, ...] = ()
    jumps: tuple[float, ...] = ()
    scale: float = math.inf
    centres: tuple[float, ...] | None = None
    density: float = 1.0
    parity: Parity | None = None
    degree: float | None = None
    closed: ClosedForm | None = field(default=None, repr=False)
    evidence: Mapping[str, str] = field(default_factory=lambda: {"all": "known"}, repr=False)

    def __call__(self, x: ArrayLike) -> Array:
        """``f(x)``, elementwise."""
        return self.function(np.asarray(x, dtype=float))

    def derivative(self, x: ArrayLike) -> Array:
        """``f'(x)``, elementwise; at a kink one of the two one-sided values."""
        return self.slope(np.asarray(x, dtype=float))

    def second_derivative(self, x: ArrayLike) -> Array:
        """``f''(x)``, elementwise, without the delta functions at kinks."""
        return self.curvature(np.asarray(x, dtype=float))

    def __str__(self) -> str:
        return self.name

    @cached_property
    def shape(self) -> Shape:
        """Breaks and scales for the quadrature."""
        centres = self.centres
        if centres is None:
            centres = (0.0,) if math.isfinite(self.scale) and 0.0 not in self.breaks else ()
        places = tuple(sorted({*self.breaks, *self.jumps}))
        return Shape(places, self.scale, centres, self.parity is not None, self.density)

    @cached_property
    def kinks(self) -> tuple[Kink, ...]:
        """Slope jumps, one-sided limits taken at the neighbouring floats."""
        found = []
        for place in self.breaks:
            sides = np.nextafter(place, [-math.inf, math.inf])
            below, above = self.slope(sides)
            if abs(above - below) > 1e-9 * max(1.0, abs(above), abs(below)):
                found.append(Kink(place, float(above - below)))
        return tuple(found)

    @property
    def why_no_theory(self) -> str | None:
        """The reason why maps near alignment do not exist, or None."""
        if not self.jumps:
            return None
        places = ", ".join(f"{x:g}" for x in self.jumps)
        return (
            f"{self.name} jumps in value at x = {places}: its slope moment E[f'^2] is infinite, so"
            " nearby signals separate like eps' ~ eps^(1/2) at any sigma_w (always chaotic) and no"
            " critical point or linear depth scale exists"
        )

    @property
    def scale_free(self) -> bool:
        """Whether ``f(c x) = c f(x)``, so that without bias only length ratios matter."""
        return self.degree == 1.0

    @property
    def description(self) -> str:
        """What is known of the function and how."""
        kinks = ", ".join(f"{k.place:g} (slope jump {k.jump:.6g})" for k in self.kinks) or "none"
        smooth = [b for b in self.breaks if b not in {k.place for k in self.kinks}]
        lines = [
            f"{self.name}: kinks {kinks}",
            f"breaks of higher derivatives {', '.join(f'{b:g}' for b in smooth) or 'none'}",
            f"jumps in value {', '.join(f'{j:g}' for j in self.jumps) or 'none'}",
            f"parity {self.parity or 'none'}",
            f"homogeneity degree {'none' if self.degree is None else format(self.degree, 'g')}",
            "basis: " + "; ".join(f"{k} {v}" for k, v in self.evidence.items()),
        ]
        return "; ".join(lines)

    def renamed(self, name: str) -> Activation:
        """The same function under another name."""
        return dataclasses.replace(self, name=name)

    def with_functions(self, function: Function, slope: Function) -> Activation:
        """The same activation computed by other (faster) functions."""
        return dataclasses.replace(self, function=function, slope=slope)

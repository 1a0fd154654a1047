"""The one-parameter families of layers that ``shape`` chooses from.

Each has an ``amount >= 0`` of nonlinearity, 0 being a linear network: the bend of the slopes, the
squared scale of a branch, or what the maps of a transformed activation exceed those of a line by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from depthscale.practice.shaping.maps import (
    Step,
    bend_of,
    quadratic,
    slope_of,
    step_of,
    two_slopes,
)
from depthscale.practice.shaping.transform import Transform, solve
from depthscale.theory.activation import Activation, activation
from depthscale.theory.functions.closed import TwoSlopes
from depthscale.theory.gaussian import expectation


@dataclass(frozen=True)
class Layer:
    """One layer ``h' = skip h + W psi(h)``, ``W ~ N(0, 1/fan_in)``, without biases.

    ``psi`` is ``gain`` times a leaky ReLU of this ``slope``, or the ``transform`` of the activation
    that was shaped; of a residual layer it includes the scale of the ``branch``.
    """

    psi: Activation = field(repr=False)
    gain: float
    slope: float | None = None
    transform: Transform | None = None
    skip: float = 0.0
    branch: float = 1.0


class Family(Protocol):
    """What the search needs: the amounts there are, a first guess, the layer and its map."""

    @property
    def most(self) -> float:
        """The largest amount."""
        ...

    def layer(self, amount: float) -> Layer | None:
        """The layer of this amount, None where there is none."""
        ...

    def step(self, amount: float) -> Step | None:
        """Its misalignment map at infinite width."""
        ...

    def guess(self, amount: float) -> Step:
        """A cheap map that is close to it."""
        ...


def slopes_of(base: Activation) -> tuple[float, float] | None:
    """Slopes below and above 0 of a function that is made of two lines through 0."""
    closed = base.closed
    return (closed.below, closed.above) if isinstance(closed, TwoSlopes) else None


@dataclass(frozen=True)
class Slopes:
    """Leaky ReLU, amount ``(1 - slope)^2/(1 + slope^2)``: tailored activations (2203.08120)."""

    lowest: float = 0.0

    @property
    def most(self) -> float:
        """The bend of the lowest slope."""
        return bend_of(self.lowest)

    def layer(self, amount: float) -> Layer:
        """Of ``E psi^2 = 1``."""
        slope = slope_of(amount)
        gain = math.sqrt(2 / (1 + slope * slope))
        return Layer(activation(f"shaped_relu({slope * gain!r}, {gain!r})"), gain, slope)

    def step(self, amount: float) -> Step:
        """In closed form, which is its own guess."""
        return two_slopes(amount)

    guess = step


@dataclass
class Transforms:
    """A transformed activation, amount ``C'(1) - 1`` (dks) or ``C''(1)`` (tat).

    Solutions are followed from one amount to the next, so that the search stays on one branch.
    """

    base: Activation
    method: str
    most: float = math.inf
    _near: Transform | None = None

    def _of(self, amount: float) -> float:
        return 1 + amount if self.method == "dks" else amount

    def layer(self, amount: float) -> Layer | None:
        """With the transform that follows from the last one, or the best of all."""
        found = None
        if self._near is not None:
            found = solve(self.base, self.method, self._of(amount), self._near)
        found = found or solve(self.base, self.method, self._of(amount))
        if found is None:
            return None
        self._near = found
        return Layer(found.of(self.base), found.output_scale, transform=found)

    def step(self, amount: float) -> Step | None:
        """The map of the transformed activation."""
        layer = self.layer(amount)
        return None if layer is None else step_of(layer.psi)

    def guess(self, amount: float) -> Step:
        """As if it were quadratic."""
        return quadratic(self.method, self._of(amount))


class Branches:
    """Residual layers, amount ``s^2`` of ``sqrt(1 - s^2) h + s W phi(h)``, in [0, 1].

    For two slopes the branch is not scaled against the skip but put beside an identity, ``h + b W
    phi(h)`` with ``b^2 = s^2/(1 - s^2)``: without biases their correlations are the same.
    """

    most: float = 1.0

    def __init__(self, base: Activation) -> None:
        self.base = base
        self.slopes = slopes_of(base)
        square = float(expectation(lambda x: base(x) ** 2, 1.0, base.shape))
        self.gain = 1 / math.sqrt(square)
        self.whole = Transform(output_scale=self.gain).of(base)

    def layer(self, amount: float) -> Layer | None:
        """None for a branch without a skip where the skip is an identity."""
        s, skip = math.sqrt(amount), math.sqrt(1 - amount)
        if self.slopes is not None:
            if amount == 1:
                return None
            s, skip = s / skip, 1.0
        scaled = Transform(output_scale=self.gain * s)
        return Layer(scaled.of(self.base), scaled.output_scale, None, scaled, skip, s)

    def step(self, amount: float) -> Step:
        """In closed form for two slopes."""
        if self.slopes is not None:
            return two_slopes(amount * bend_of(*self.slopes))
        return step_of(self.whole, math.sqrt(1 - amount))

    guess = step

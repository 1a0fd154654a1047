r"""What the chain follows, layer by layer, and what an ensemble measures of it.

Given all layers below, the n units of a layer are independent Gaussian pairs, whose covariance has
some correlation ``tanh z``. That is the *surrogate* correlation: it is what a layer of very many
units would measure, and it is exactly the cosine of the activations that feed the layer. It is a
Markov chain by itself. What ``Ensemble`` and ``sample_pairs`` *measure* is the cosine of the n
units themselves, which scatters about it by ``artanh`` ``1/sqrt(n)`` more: the step of an identity
at width n, whose law is that of a sample correlation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from depthscale.answers import InputError
from depthscale.theory.activation import activation
from depthscale.theory.arguments import checked_pair
from depthscale.theory.finite_width import finite_width
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.piecewise import FARTHEST, PiecewiseLinear, Step
from depthscale.theory.records import as_number

IDENTITY = PiecewiseLinear(1, 1)
STARTS = ("inputs", "drawn", "pinned")
"""What layer 0 is: inputs behind a linear hop, a drawn layer of units, or a pinned one."""


class Scatter(NamedTuple):
    """Mean, deviation and skewness of the next ``z``, each of the shape of the last."""

    mean: Array
    sd: Array
    skewness: Array


@dataclass(frozen=True)
class Hop:
    """A layer of units seen from the next one, or from its own measured cosine.

    ``order`` 2 takes moments to ``1/n^2``; 1 stops at ``1/n`` and a normal law.
    """

    phi: PiecewiseLinear
    units: int
    order: int = 2

    def scatter(self, z: Array) -> Scatter:
        """The law of the next ``z`` at each ``z``."""
        return self.behind(self.phi.step(z))

    def behind(self, step: Step) -> Scatter:
        """The same from ``phi.step(z)``, which does not depend on the units."""
        n = self.units
        if self.order == 1:
            return Scatter(step.z0 + step.m1 / n, (step.v1 / n) ** 0.5, 0.0 * step.z0)
        return Scatter(step.mean(n), step.variance(n) ** 0.5, step.skewness(n))


@dataclass(frozen=True)
class Route:
    """A network as a chain.

    Attributes
    ----------
    phi:
        Its activation.
    widths:
        Units of the L + 1 layers.
    eps0:
        Misalignment of layer 0, in [0, 2].
    start:
        "inputs": layer 0 are the inputs, exactly so misaligned, and the first hop is linear, as in
        ``Ensemble``; "drawn": layer 0 are units of a covariance so misaligned; "pinned": units
        that measure exactly that, in a random direction. These two are those of ``sample_pairs``
        and ``finite_width``; all L hops have the activation.
    order:
        See ``Hop``.
    """

    phi: PiecewiseLinear
    widths: tuple[int, ...]
    eps0: float
    start: str = "inputs"
    order: int = 2

    @classmethod
    def of(cls, phi: Any, widths: Sequence[int], eps0: float, start: str = "inputs") -> Route:
        """Checked.

        Raises
        ------
        InputError
            Widths that are no whole numbers of at least 2, fewer than two of them, ``eps0`` outside
            [0, 2], an unknown start, an activation that is not made of two slopes.
        """
        if start not in STARTS:
            raise InputError(f"start = {start!r}: expected one of {', '.join(STARTS)}")
        if not isinstance(widths, Sequence | np.ndarray) or len(widths) < 2:
            raise InputError(
                f"widths = {widths!r}: expected those of layer 0 and at least one more"
            )
        sizes = []
        for width in widths:
            number = as_number("widths", width)
            if not 2 <= number < math.inf or number != int(number):
                raise InputError(
                    f"widths holds {width!r}; expected whole numbers of at least 2: a pair in one"
                    " unit has no correlation but 1 and -1"
                )
            sizes.append(int(number))
        return cls(PiecewiseLinear.of(phi), tuple(sizes), checked_pair(1.0, 1.0, eps0).eps, start)

    @property
    def depth(self) -> int:
        """Number L of hops."""
        return len(self.widths) - 1

    @property
    def z0(self) -> float:
        """``artanh(1 - eps0)``, not beyond what a step can take where ``eps0`` is 2."""
        if self.eps0 == 0:
            return math.inf
        if self.eps0 == 2:
            return -FARTHEST
        return (math.log(2 - self.eps0) - math.log(self.eps0)) / 2

    def hop(self, layer: int) -> Hop | None:
        """What leads from ``layer`` to the next, or None where the covariance is handed on."""
        if self.start == "inputs" and layer == 0:
            return None
        return Hop(self.phi, self.widths[layer], self.order)

    def reading(self, layer: int) -> Hop | None:
        """What leads from the surrogate to the measured cosine of a layer; None: they agree."""
        if layer == 0 and self.start != "drawn":
            return None
        return Hop(IDENTITY, self.widths[layer], self.order)

    @property
    def certain(self) -> tuple[float, ...] | None:
        """The ``z`` of every layer where nothing scatters: lines that coincide; else None."""
        z = {0.0: math.inf, 2.0: -math.inf}.get(self.eps0)
        if z is None:
            return None
        path = [z]
        for layer in range(self.depth):
            if self.hop(layer) is not None and z < 0:
                after = self.phi.moments(z)
                if after.eps > 0 and after.coeps > 0:
                    return None
                z = math.inf if after.eps == 0 else -math.inf
            path.append(z)
        return tuple(path)

    def pinned(self) -> Scatter:
        """The law of ``z`` behind a pinned layer 0, whose units cannot scatter in their own Gram.

        To order 1/n in mean and variance, by ``finite_width``; a normal one.
        """
        layer = MeanField(activation(f"shaped_relu({self.phi.minus!r}, {self.phi.plus!r})"), 1.0)
        units = self.widths[0]
        # behind so many units the measured cosine is the surrogate
        law = finite_width([layer], [units, 10**15], eps=self.eps0, start="pinned")
        eps = float(law.eps[1])
        variance = float(np.asarray(law.log_eps_var)[1])
        shift = float(np.asarray(law.log_eps_mean)[1]) - math.log(eps)
        # z = log((2 - eps)/eps)/2, to second order in log eps
        mean = (
            math.log((2 - eps) / eps) / 2 - shift / (2 - eps) - eps * variance / (2 - eps) ** 2 / 2
        )
        return Scatter(
            np.array([mean]), np.array([math.sqrt(max(variance, 0.0)) / (2 - eps)]), np.zeros(1)
        )

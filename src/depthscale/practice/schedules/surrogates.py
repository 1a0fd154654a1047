"""The paper's quantities: functions of the fields alone, that no path has to be followed for.

2605.21648 chooses by the depth scale ``xi`` of its scaling law, layer by layer, and breaks the ties
by rank flow (first version) or reach (second version). Where the layers of a network differ the law
has no single amplitude, and ``xi`` and reach do not exist.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from depthscale.answers import InputError, Undefined
from depthscale.practice.schedules.recursion import Recursion
from depthscale.theory.gaussian import Array
from depthscale.theory.laws import master
from depthscale.theory.universal.reach import reach_weights

INPUTS = 64


class Surrogates:
    """What the paper has of one network and one mean rate ``mean`` (or field) of its sites."""

    def __init__(self, recursion: Recursion, mean: float) -> None:
        self.recursion, self.mean = recursion, mean

    @cached_property
    def share(self) -> Array:
        """Field of a unit of rate at each site, at the lengths without dropout, shape (L,).

        ``1 - sigma_b^2/q`` without a residual branch.
        """
        on = self.recursion
        if on.kind == "field":
            return np.ones(on.depth)
        scales = on.scales(self._clean[0])
        return np.asarray(on.layers.gathered(scales.noisy / scales.clean)[0])

    @cached_property
    def _clean(self) -> tuple[Array, Array]:
        """Lengths before the layers, and misalignments from 1, without dropout."""
        steps = self.recursion.follow(np.zeros((1, self.recursion.depth)), (1.0,))
        return steps.q, steps.eps[:, 0, 0]

    @cached_property
    def law(self) -> tuple[float, float, float] | Undefined:
        """``kappa``, amplitude and detuning without dropout."""
        if not self.recursion.layers.alike:
            return Undefined("the layers differ, and the scaling law is that of equal ones")
        network = self.recursion.network
        if network.skip:
            return Undefined("no scaling law is stated for residual branches")
        found = network.universality
        if isinstance(found.kappa, Undefined):
            return found.kappa
        if isinstance(found.amplitude, Undefined):
            return found.amplitude
        kappa, amplitude = float(found.kappa), float(found.amplitude)
        if not 1 < kappa <= 2 or not amplitude > 0:
            return Undefined("the map has no curvature, so there is no law of the field")
        t = 0.0 if self.recursion.free else float(network.detuning)
        return kappa, amplitude, 0.0 if abs(t) < 1e-10 else t

    def decay(self, h: Array) -> tuple[Array, Array]:
        """``D(h)``, one minus the slope at the fixed point by the leading law, and ``D'(h)``."""
        law = self.law
        if isinstance(law, Undefined):
            raise InputError(f"the surrogate needs a scaling law: {law.reason}")
        kappa, a, t = law
        h = np.maximum(h, 1e-300)
        if t == 0:
            m = (h / a) ** (1 / kappa)
        else:
            rate = a ** (1 / kappa) * h ** ((kappa - 1) / kappa)
            m = (h / a) ** (1 / kappa) * master(kappa, t / rate)
        decay = kappa * a * m ** (kappa - 1) - t
        return decay, kappa * (kappa - 1) * a * m ** (kappa - 2) / decay

    @cached_property
    def depth_scale(self) -> float:
        """Surrogate depth scale of the uniform schedule, which the reach takes for ``xi``."""
        if self.mean == 0:
            t = 0.0 if isinstance(self.law, Undefined) else self.law[2]
            return 1 / abs(t) if t else np.inf
        return 1 / float(self.decay(np.array(self.mean * self.share[-1]))[0])

    @cached_property
    def _silent(self) -> float:
        """Sum of ``D`` over the layers without a site."""
        missing = len(self.recursion.layers) - self.recursion.depth
        return missing * float(self.decay(np.zeros(()))[0]) if missing else 0.0

    def decays(self, x: Array) -> Array:
        """``sum_l D(h_l)`` over the layers, of schedules (N, L)."""
        return np.asarray(self.decay(x * self.share)[0].sum(axis=1) + self._silent)

    @cached_property
    def reach(self) -> Array:
        """Weights ``w_l`` of the sites: second version."""
        weights = reach_weights(len(self.recursion.layers), self.depth_scale)
        return np.asarray(weights[list(self.recursion.layers.sites)])

    @cached_property
    def rank_lost(self) -> Array:
        """Log effective rank lost in the layers of the sites without dropout: first version."""
        lost = np.diff(np.log1p((INPUTS - 1) * (1 - self._clean[1]) ** 2))
        return np.asarray(lost[list(self.recursion.layers.sites)])

    @property
    def lawful(self) -> bool:
        """Whether the network has a scaling law, which ``xi`` and reach need."""
        return not isinstance(self.law, Undefined)

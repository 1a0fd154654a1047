"""What is known of schedules that were followed: states, layer by layer, and derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depthscale.theory.gaussian import Array


@dataclass(frozen=True)
class Steps:
    """What many schedules do to pairs: ``D`` layers, ``N`` schedules, ``K`` starts.

    ``x, h, drop`` and ``q`` have shape (D, N), ``q`` before each layer; ``eps`` has (D + 1, N, K).
    """

    x: Array
    h: Array
    drop: Array
    q: Array
    eps: Array


@dataclass(frozen=True)
class Sensitivity:
    """Derivatives of one layer's map and of its slope, at the states of ``Steps``.

    ``eps_*`` and ``slope*`` have shape (D, N, K): those of ``eps'`` by ``h``, ``eps`` (the slope)
    and ``q``, and of ``log slope`` by ``eps`` and ``q``; the others have (D, N).
    """

    eps_h: Array
    slope: Array
    eps_q: Array
    log_slope_eps: Array
    log_slope_q: Array
    q_h: Array
    q_q: Array
    h_x: Array
    h_q: Array


@dataclass(frozen=True)
class Scales:
    """``clean`` and ``noisy`` of layers at lengths of shape (D, N), and derivatives by them."""

    q: Array
    clean: Array
    noisy: Array
    clean_q: Array
    noisy_q: Array
    slope_moment: Array
    slope_moment_q: Array

    @property
    def rest(self) -> Array:
        """What dropout leaves alone."""
        return self.clean - self.noisy

    def field(self, x: Array) -> Array:
        """``h`` at rates ``x``."""
        return np.asarray(x * self.noisy / (self.noisy + (1 - x) * self.rest))

    def field_slopes(self, x: Array) -> tuple[Array, Array]:
        """Derivatives of ``h`` by the rate and by ``q``."""
        under = self.noisy + (1 - x) * self.rest
        rest_q = self.clean_q - self.noisy_q
        bend = self.noisy_q * self.rest - self.noisy * rest_q
        return self.noisy * self.clean / under**2, x * (1 - x) * bend / under**2

    def rate(self, h: Array) -> Array:
        """The rate ``p`` that makes the field ``h``."""
        return np.asarray(h * self.clean / (self.noisy + h * self.rest))

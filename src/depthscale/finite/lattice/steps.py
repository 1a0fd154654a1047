"""Activations of two inputs, the second one as its difference, with its own relative precision."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from depthscale.finite.columns import Workspace
from depthscale.finite.lattice.programs import Program, call
from depthscale.finite.pointwise import LINEAR_BELOW, Pointwise
from depthscale.theory.activation import Activation

# Difference below which tanh(d) = d - d^3/3 + 2 d^5/15 is closer than a subtraction: it errs by
# 17 d^6/315 of itself, 5e-8 and 4e-17 here, a subtraction by the rounding of a value over d.
NEAR = {torch.float32: 0.1, torch.float64: 3e-3}
# A tanh of pre-activations around LEAST is as good by way of the logistic function, which errs by a
# rounding of 1. Where they have a standard deviation up to LARGEST, none comes to where that of a
# difference overflows: it has 9 of its own to go.
LEAST, LARGEST = 0.05, 2.2


class Steps:
    """``psi(x)`` and ``psi(x + y) - psi(x)`` of whole blocks, ``phi(h) = gain psi(stretch h)``.

    Args:
        activation: phi.
        sigma_w, sigma_b: of the layers, which tell how large pre-activations are.
        space: for work arrays.

    Attributes:
        stretch, gain: by which pre-activations and weights are to be multiplied; 1 but for tanh,
            whose psi is the logistic function less 1/2.
    """

    def __init__(
        self, activation: Activation, sigma_w: float, sigma_b: float, space: Workspace
    ) -> None:
        self._activation, self._space = activation, space
        self._pointwise = Pointwise(activation)
        tanh = activation.name == "tanh"
        self.logistic = tanh and sigma_b >= LEAST and math.hypot(sigma_w, sigma_b) <= LARGEST
        self.stretch = self.gain = 2.0 if self.logistic else 1.0

    @classmethod
    def plain(cls, activation: Activation, space: Workspace) -> Steps:
        """Those of phi itself, for pre-activations of any size."""
        return cls(activation, math.inf, 0.0, space)

    def program(self, h: Tensor, d: Tensor, a: Tensor, e: Tensor) -> Program:
        """What writes ``a = psi(h)`` and ``e = psi(h + d) - psi(h)``; all of one shape."""
        if self.logistic:
            return self._logistic(h, d, a, e)
        rules = {"tanh": self._tanh, "sin": self._sin}
        return [partial(rules.get(self._activation.name, self._any), h, d, a, e)]

    def linear(self, h: Tensor, d: Tensor, a: Tensor, e: Tensor) -> None:
        """Do it for a ``d`` in any unit, where it is too small to bend or to meet a break."""
        h = h.contiguous()
        value, slope = torch.empty_like(h), torch.empty_like(h)
        if self.logistic:
            torch.sigmoid(h, out=value)
            torch.addcmul(value, value, value, value=-1, out=slope)
            value -= 0.5
        else:
            self._pointwise.values(h, value)
            self._pointwise.slopes(h, value, slope)
        a.copy_(value)
        torch.mul(slope, d, out=e)

    def _room(self, name: str, like: Tensor) -> Tensor:
        return self._space.take(("steps", name), like.dtype, *like.shape)

    def _logistic(self, h: Tensor, d: Tensor, a: Tensor, e: Tensor) -> Program:
        """``s(x + y) - s(x) = s(x) s(-x - y) (exp(y) - 1)``: nothing cancels, for any x and y."""
        first, second, growth = (self._room(name, h) for name in ("1", "2", "growth"))
        return [
            call("add", h, d, out=second),
            call("multiply", second, -1.0, out=second),
            partial(torch.sigmoid, second, out=second),
            partial(torch.sigmoid, h, out=first),
            partial(torch.expm1, d, out=growth),
            call("multiply", growth, first, out=growth),
            call("multiply", second, growth, out=e),
            call("subtract", first, 0.5, out=a),
        ]

    def _tanh(self, h: Tensor, d: Tensor, a: Tensor, e: Tensor) -> None:
        """``tanh(h + d) - tanh(h) = tanh(d) (1 - tanh(h) tanh(h + d))``, or subtracted.

        The two run into each other up to ``NEAR``: choosing one of them costs more.
        """
        first, second, far, share = (self._room(name, h) for name in ("1", "2", "far", "share"))
        torch.add(h, d, out=second)
        self._pointwise.values(h.contiguous(), first)
        self._pointwise.values(second, second)
        torch.sub(second, first, out=far)
        a.copy_(first)
        first.mul_(second).neg_().add_(1)
        near = torch.clamp(d, -1, 1, out=second)
        torch.mul(near, near, out=share)
        first.mul_(near)
        torch.mul(share, 2 / 15, out=near).sub_(1 / 3).mul_(share).add_(1).mul_(first)
        share.mul_(NEAR[h.dtype] ** -2).clamp_(max=1)
        e.copy_(torch.lerp(near, far, share))

    def _sin(self, h: Tensor, d: Tensor, a: Tensor, e: Tensor) -> None:
        """``sin(h + d) - sin(h) = 2 cos(h + d/2) sin(d/2)``."""
        half, middle = self._room("half", h), self._room("middle", h)
        torch.mul(d, 0.5, out=half)
        torch.add(h, half, out=middle)
        torch.sin(h, out=a)
        torch.mul(middle.cos_(), half.sin_().mul_(2), out=e)

    def _any(self, h: Tensor, d: Tensor, a: Tensor, e: Tensor) -> None:
        """Subtracted, or ``phi'(h + d/2) d`` where d is small and no break lies between."""
        h = h.contiguous()
        first, second, middle, slope = (
            self._room(name, h) for name in ("1", "2", "middle", "slope")
        )
        self._pointwise.values(h, first)
        torch.add(h, d, out=middle)
        self._pointwise.values(middle, second)
        far = second.sub_(first)
        a.copy_(first)
        limit = LINEAR_BELOW[h.dtype] * min(1.0, self._activation.scale)
        size = d.abs()
        near = size < limit
        if not near.any():
            e.copy_(far)
            return
        torch.add(h, d, alpha=0.5, out=middle)
        self._pointwise.values(middle, first)
        self._pointwise.slopes(middle, first, slope)
        size.mul_(0.5)
        for place in (*self._activation.breaks, *self._activation.jumps):
            near &= (middle - place).abs() > size
        e.copy_(torch.where(near, slope.mul_(d), far))

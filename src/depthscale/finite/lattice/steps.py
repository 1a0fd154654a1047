"""Activations of two inputs, the second one as its difference, with its own relative precision."""

from __future__ import annotations

import torch
from torch import Tensor

from depthscale.finite.columns import Workspace
from depthscale.finite.pointwise import LINEAR_BELOW, Pointwise
from depthscale.theory.activation import Activation

# Difference below which tanh(d) = d - d^3/3 + 2 d^5/15 is closer than a subtraction: it errs by
# 17 d^6/315 of itself, 8e-10 and 1e-16 here, a subtraction by the rounding of a value over d.
CUBIC = {torch.float32: 0.1, torch.float64: 3e-3}
# Pre-activations around which 2 sigmoid(2x) - 1, which errs by a rounding of 1, is as good as tanh.
BRISK = 0.05


class Steps:
    """``phi(h)`` and ``phi(h + d) - phi(h)`` of whole blocks.

    Args:
        activation: phi.
        least: about the smallest pre-activation that matters, such as ``sigma_b``.
        space: for work arrays.
    """

    def __init__(self, activation: Activation, least: float, space: Workspace) -> None:
        self._activation, self._space = activation, space
        self._pointwise = Pointwise(activation)
        self._brisk = least >= BRISK
        self._rule = {"tanh": self._tanh, "sin": self._sin}.get(activation.name, self._any)

    def both(self, h: Tensor, d: Tensor, a: Tensor, e: Tensor) -> None:
        """Write ``a = phi(h)`` and ``e = phi(h + d) - phi(h)``; no views of ``h`` and ``d``."""
        self._rule(h, d, a, e)

    def linear(self, h: Tensor, d: Tensor, a: Tensor, e: Tensor) -> None:
        """The same for a ``d`` of any unit, where it is too small to bend or to meet a break."""
        h = h.contiguous()
        value, slope = torch.empty_like(h), torch.empty_like(h)
        self._pointwise.values(h, value)
        self._pointwise.slopes(h, value, slope)
        a.copy_(value)
        torch.mul(slope, d, out=e)

    def _room(self, name: str, like: Tensor) -> Tensor:
        return self._space.take(("steps", name), like.dtype, *like.shape)

    def _tanh(self, h: Tensor, d: Tensor, a: Tensor, e: Tensor) -> None:
        """``tanh(h + d) - tanh(h) = tanh(d) (1 - tanh(h) tanh(h + d))``, or subtracted.

        The two run into each other from half of ``CUBIC`` to all of it: choosing costs more.
        """
        first, second, far, share = (self._room(name, h) for name in ("1", "2", "far", "share"))
        torch.add(h, d, out=second)
        if self._brisk:
            torch.add(h, h, out=first).sigmoid_().mul_(2).sub_(1)
            second.mul_(2).sigmoid_().mul_(2).sub_(1)
        else:
            self._pointwise.values(h.contiguous(), first)
            self._pointwise.values(second, second)
        torch.sub(second, first, out=far)
        a.copy_(first)
        first.mul_(second).neg_().add_(1)
        torch.mul(d, d, out=share)
        limit = CUBIC[h.dtype] ** 2
        torch.mul(share, 2 / 15, out=second).sub_(1 / 3).mul_(share).add_(1).mul_(d).mul_(first)
        share.sub_(limit / 4).mul_(4 / (3 * limit)).clamp_(0, 1)
        torch.lerp(second, far, share, out=e)

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

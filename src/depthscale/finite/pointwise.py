"""An activation and its derivatives on tensors of any device and precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from depthscale.finite.columns import Array, Chain, on_host
from depthscale.theory.activation import Activation

# Root mean square difference of two pre-activations, in scales of the activation, below which
# phi'(middle) d is closer to the difference of two values than their subtraction is: it errs by
# d^2/24 times phi'''/phi', subtraction by the rounding of a value over d.
LINEAR_BELOW = {torch.float64: 1e-5, torch.float32: 7e-3}

Values = Callable[[Tensor, Tensor], object]
Slopes = Callable[[Tensor, Tensor, Tensor], object]


def _tanh(x: Tensor, out: Tensor) -> None:
    if on_host(x):  # numpy's is three to six times as fast as torch's
        np.tanh(x.numpy(), out=out.numpy())
    else:
        torch.tanh(x, out=out)


def _tanh_slope(x: Tensor, y: Tensor, out: Tensor) -> None:
    if out.dtype == torch.float64:
        _tail(x, out, 2.0)
    else:
        torch.addcmul(_one(y), y, y, value=-1.0, out=out)


def _sigmoid_slope(x: Tensor, y: Tensor, out: Tensor) -> None:
    if out.dtype == torch.float64:
        _tail(x, out, 1.0)
    else:
        torch.addcmul(y, y, y, value=-1.0, out=out)


def _tail(x: Tensor, out: Tensor, rate: float) -> None:
    """``rate^2 e/(1 + e)^2`` with ``e = exp(-rate |x|)``: no cancellation where it is small."""
    torch.abs(x, out=out).mul_(-rate)
    if on_host(out):
        np.exp(out.numpy(), out=out.numpy())
    else:
        out.exp_()
    out.div_(out.add(1).square_()).mul_(rate * rate)


def _one(like: Tensor) -> Tensor:
    return _ones(like.dtype, like.device)


@lru_cache(maxsize=8)
def _ones(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones((), dtype=dtype, device=device)


def _gelu_slope(x: Tensor, _: Tensor, out: Tensor) -> None:
    torch.mul(x, x, out=out)
    out.mul_(-0.5).exp_().mul_(x).mul_(1 / math.sqrt(2 * math.pi)).add_(torch.special.ndtr(x))


# f(x) and f'(x, f(x)) in torch, into a given tensor: where numpy's own is several times slower, and
# what an accelerator runs. Anything else goes through the activation's numpy functions on the host.
_FORMS: dict[str, tuple[Values, Slopes]] = {
    "identity": (lambda x, out: out.copy_(x), lambda x, y, out: out.fill_(1.0)),
    "relu": (
        lambda x, out: torch.clamp(x, min=0.0, out=out),
        lambda x, y, out: torch.clamp(torch.sign(x), min=0.0, out=out),
    ),
    "abs": (
        lambda x, out: torch.abs(x, out=out),
        lambda x, y, out: torch.sign(x, out=out),
    ),
    "hardtanh": (
        lambda x, out: torch.clamp(x, -1.0, 1.0, out=out),
        lambda x, y, out: torch.eq(x, y, out=out),
    ),
    "tanh": (_tanh, _tanh_slope),
    "erf": (
        lambda x, out: torch.erf(x, out=out),
        lambda x, y, out: torch.mul(x, x, out=out).neg_().exp_().mul_(2 / math.sqrt(math.pi)),
    ),
    "sin": (lambda x, out: torch.sin(x, out=out), lambda x, y, out: torch.cos(x, out=out)),
    "sigmoid": (lambda x, out: torch.sigmoid(x, out=out), _sigmoid_slope),
    "gelu": (lambda x, out: torch.mul(x, torch.special.ndtr(x), out=out), _gelu_slope),
}


@dataclass(frozen=True)
class Pointwise:
    """``phi`` and ``phi'`` of vectors that are carried as columns."""

    activation: Activation

    def values(self, x: Tensor, out: Tensor) -> None:
        """``phi(x)``."""
        form = _FORMS.get(self.activation.name)
        if form:
            form[0](x, out)
        else:
            _through_numpy(self.activation.function, x, out)

    def slopes(self, x: Tensor, values: Tensor, out: Tensor) -> None:
        """``phi'(x)``, where ``values`` is ``phi(x)``."""
        form = _FORMS.get(self.activation.name)
        if form:
            form[1](x, values, out)
        else:
            _through_numpy(self.activation.slope, x, out)

    def columns(
        self, chain: Chain, h: Tensor, squares: Array | None, x: Tensor, slopes: Tensor | None
    ) -> None:
        """Write ``phi`` and, where asked for, ``phi'`` of some vectors, as columns.

        The difference ``phi(h + d) - phi(h)`` is taken as ``phi'(h + d/2) d`` in those networks
        where the root mean square of ``d`` is below ``LINEAR_BELOW``, but for units that have a
        break of the activation between ``h`` and ``h + d``.

        Args:
            chain: of the columns.
            h: pre-activations ``[column, net, unit]``; afterwards their own vectors stand in it.
            squares: mean squares of the columns of ``h``, ``[column, net]``; None where no column
                is a difference.
            x: filled with ``phi``; may be ``h`` where no column is a difference and without slopes.
            slopes: filled with ``phi'``.
        """
        kept = []
        if squares is not None and chain.steps:
            limit = LINEAR_BELOW[h.dtype] * min(1.0, self.activation.scale)
            for k in np.flatnonzero((squares < limit**2).any(axis=1)).tolist():
                if chain.parents[k] >= 0:
                    nets = torch.from_numpy(np.flatnonzero(squares[k] < limit**2)).to(h.device)
                    kept.append((k, nets, h[k, nets]))
        chain.absolute_(h)
        self.values(h, x)
        if slopes is not None:
            self.slopes(h, x, slopes)
            chain.differences_(slopes)
        chain.differences_(x)
        for k, nets, step in kept:
            rise, bend = self._tangent(h[chain.parents[k], nets], step, slopes is not None)
            x[k, nets] = torch.where(rise.isnan(), x[k, nets], rise)
            if slopes is not None and bend is not None:
                slopes[k, nets] = torch.where(bend.isnan(), slopes[k, nets], bend)

    def _tangent(self, base: Tensor, step: Tensor, bent: bool) -> tuple[Tensor, Tensor | None]:
        """``phi'`` and, where asked for, ``phi''`` at the middle times ``step``; NaN at breaks."""
        middle = base + step / 2
        value, slope, bend = (torch.empty_like(middle) for _ in range(3))
        self.values(middle, value)
        self.slopes(middle, value, slope)
        broken = torch.zeros_like(step, dtype=torch.bool)
        for place in (*self.activation.breaks, *self.activation.jumps):
            broken |= (middle - place).abs() <= (step / 2).abs()
        slope.mul_(step)[broken] = math.nan
        if not bent:
            return slope, None
        _through_numpy(self.activation.curvature, middle, bend)
        bend.mul_(step)[broken] = math.nan
        return slope, bend


def _through_numpy(function: Callable[[np.ndarray], np.ndarray], x: Tensor, out: Tensor) -> None:
    """A numpy function of float64 on a tensor of any kind."""
    values = function(x.cpu().double().numpy())
    out.copy_(torch.from_numpy(np.ascontiguousarray(values, dtype=float)))

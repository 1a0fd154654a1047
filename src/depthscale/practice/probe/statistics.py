"""Numbers kept of a batch of signals: lengths, misalignments of pairs, dead and saturated units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Signal:
    """Statistics of one layer, still on its device (float64).

    ``square`` is |h|^2 of each example, ``pairs`` the eps of neighbours (i, i + 1), ``masks`` the
    eps of an example and its copy under other masks (None without copies).
    """

    square: torch.Tensor
    pairs: torch.Tensor
    masks: torch.Tensor | None
    features: int


def example_rows(tensor: torch.Tensor, batch: int) -> torch.Tensor | None:
    """A view ``[batch, features]`` of a signal, None when no dimension of it is the batch.

    The batch is looked for in front, then as the outer part of the front dimension (tokens or
    windows merged into it), then in the other dimensions (``[time, batch, features]``).
    """
    if tensor.ndim == 0 or tensor.numel() == 0:
        return None
    if len(tensor) % batch == 0 and (len(tensor) == batch or batch not in tensor.shape[1:-1]):
        return tensor.reshape(batch, -1)
    places = [place for place, size in enumerate(tensor.shape) if size == batch]
    return tensor.movedim(places[0], 0).reshape(batch, -1) if places else None


def misalignment(
    first: torch.Tensor, second: torch.Tensor, norms: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """``eps = |a/|a| - b/|b||^2 / 2`` of matching rows, without the cancellation of 1 - cos.

    Two zero vectors are equal (0); a zero and another vector share no direction (1).
    """
    left, right = norms
    safe = [torch.where(norm > 0, norm, torch.ones_like(norm)) for norm in norms]
    gap = first / safe[0][:, None] - second / safe[1][:, None]
    eps = gap.square().sum(dim=1) / 2
    lonely = (left == 0) != (right == 0)
    return torch.where(lonely, torch.ones_like(eps), eps)


def signal_statistics(rows: torch.Tensor, *, batch: int, pairs: int) -> Signal:
    """Statistics of ``rows`` [n, features]; n is ``batch``, or twice that with a second copy.

    Everything is accumulated in float64, a few rows at a time.
    """
    if rows.device.type == "mps":
        rows = rows.cpu()
    scale = rows.abs().amax(dim=1).double()
    # Rows are scaled before squaring: float64 gradients below 1e-154 would underflow.
    scale = torch.where((scale > 0) & torch.isfinite(scale), scale, torch.ones_like(scale))
    step = max(1, _CHUNK // rows.shape[1])
    chunks = range(0, len(rows), step)
    norms = torch.cat([_norms(rows[i : i + step], scale[i : i + step]) for i in chunks])
    count = min(pairs, batch - 1)
    neighbours = _pairs(rows, scale, norms, count, 1, step)
    copies = None
    if len(rows) == 2 * batch:
        copies = _pairs(rows, scale, norms, min(pairs, batch), batch, step)
    return Signal((norms * scale).square(), neighbours, copies, rows.shape[1])


def _norms(rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(rows.double() / scale[:, None], dim=1)
    return norms


def _pairs(
    rows: torch.Tensor,
    scale: torch.Tensor,
    norms: torch.Tensor,
    count: int,
    shift: int,
    step: int,
) -> torch.Tensor:
    parts = []
    for start in range(0, count, step):
        here = slice(start, min(start + step, count))
        there = slice(here.start + shift, here.stop + shift)
        first = rows[here].double() / scale[here, None]
        second = rows[there].double() / scale[there, None]
        parts.append(misalignment(first, second, (norms[here], norms[there])))
    return torch.cat(parts)


def mean_and_error(values: torch.Tensor, *, neighbours: bool) -> tuple[float, float]:
    """Mean and its standard error; neighbouring pairs share an input, so lag 1 counts too.

    ``var(mean) = (g0 + 2 (1 - 1/n) g1) / n`` with the autocovariances g0, g1 of the values; a
    negative g1 is left out. One value alone has no error: NaN.
    """
    count = len(values)
    if count < 2:
        return float(values.mean()), float("nan")
    centred = values - values.mean()
    variance = centred.square().sum() / (count - 1)
    if neighbours and count > 2:
        lagged = (centred[1:] * centred[:-1]).sum() / (count - 1)
        variance = variance + 2 * lagged.clamp(min=0.0)
    return float(values.mean()), float((variance / count).sqrt())


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def unit_fractions(
    signal: torch.Tensor,
    function: Callable[[torch.Tensor], torch.Tensor],
    *,
    unit_axis: int,
    flat: float = 1e-2,
) -> tuple[float, float]:
    """Fractions of dead and of saturated units under a pointwise function.

    Dead: a unit (feature or channel) whose output is zero on the whole batch. Saturated: among the
    numbers of units that are not dead, those where ``|phi'| < flat`` although the output is not
    zero (a ReLU that is off is not saturated, a tanh near 1 is); as a share of all numbers.
    """
    # The hooks keep this small graph out of a checkpoint that the model may be inside of.
    aside = torch.autograd.graph.saved_tensors_hooks(_same, _same)
    with torch.enable_grad(), aside:
        point = signal.detach().clone().requires_grad_()
        out = function(point)
        slope = torch.autograd.grad(out.sum(), point)[0] if out.requires_grad else None
    out = out.detach()
    others = [axis for axis in range(out.ndim) if axis != unit_axis % out.ndim]
    alive = (out != 0).any(dim=others) if others else out != 0
    dead = 1.0 - float(alive.double().mean())
    if slope is None:
        return dead, 0.0
    shape = [1] * out.ndim
    shape[unit_axis] = -1
    stuck = (slope.abs() < flat) & (out != 0) & alive.reshape(shape)
    return dead, float(stuck.double().mean())

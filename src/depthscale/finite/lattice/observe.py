"""What is measured of a block of lattices at one depth, one number a realisation."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from depthscale.finite.columns import Array
from depthscale.finite.lattice.grid import Grid

OBSERVABLES = {
    "rho": "1 - Pearson correlation of the two pre-activation vectors over channels and positions",
    "log_rho": "its logarithm, also where rho itself leaves float64",
    "local": "mean over positions of z = |d|^2/(|h_1|^2 + |h_2|^2), each over the channels",
    "log_local": "mean of ln z over the positions where the two inputs differ",
    "active": "share of positions where z is above the threshold",
    "log_difference": "ln of |d|^2/(c n), whose growth a layer is twice the Lyapunov exponent",
    "inhomogeneity": "mean square step of h_1 from a position to the next, over 2 Var h_1",
    "spread": "mean square distance of active positions from the middle one, NaN without any",
}
NAMES = tuple(OBSERVABLES)


def observe(state: Tensor, shift: Array, grid: Grid, threshold: float) -> Array:
    """All observables, ``[net, observable]``.

    Args:
        state: ``(h, 2^shift d)``, ``[net, channel, 2, n]``.
        shift: powers of two, ``[net]``.
        grid: the positions.
        threshold: of z, above which a position is active.
    """
    h, d = state.double().unbind(2)
    log_scale = shift * math.log(2.0)
    log_rho = _log_rho(h.flatten(1), d.flatten(1), shift)
    squares = d.square().sum(1)
    true = d * _powers(-shift, d)
    lengths = h.square().sum(1) + (h + true).square().sum(1)
    # the powers come apart: their product may leave float64 where the logarithm does not
    local = torch.where(squares > 0, squares / lengths, 0.0)
    differ = squares > 0
    logs = torch.where(differ, local.log(), 0.0).sum(1) / differ.sum(1)
    small = _powers(-2 * shift, local)
    active = local * small > threshold
    columns = {
        "rho": np.exp(log_rho),
        "log_rho": log_rho,
        "local": (local.mean(1) * small[:, 0]).cpu().numpy(),
        "log_local": logs.cpu().numpy() - 2 * log_scale,
        "active": active.double().mean(1).cpu().numpy(),
        "log_difference": squares.mean(1).div(h.shape[1]).log().cpu().numpy() - 2 * log_scale,
        "inhomogeneity": _inhomogeneity(h, grid),
        "spread": _spread(active, grid),
    }
    return np.stack([columns[name] for name in NAMES], axis=1)


def _log_rho(u: Tensor, w: Tensor, shift: Array) -> Array:
    """``ln[(uu ww - uw^2)/(S (S + uv))]`` with ``v = u + w``, ``S^2 = uu vv``; -inf where w is 0."""
    u, w = u - u.mean(1, keepdim=True), w - w.mean(1, keepdim=True)
    uu, ww, uw = (
        (left * right).sum(1).cpu().numpy() for left, right in ((u, u), (w, w), (u, w))
    )
    true = np.ldexp(1.0, -shift.astype(int))
    uv = uu + uw * true
    vv = uu + 2 * uw * true + ww * true**2
    with np.errstate(divide="ignore", invalid="ignore"):
        sine = np.maximum(ww - uw * (uw / uu), 0.0)  # |w|^2 across u
        root = np.sqrt(uu * vv)
        # opposite inputs: S + uv cancels, and 1 - uv/S does not
        near = np.log(sine) - 2 * shift * math.log(2.0) + np.log(uu) - np.log(root * (root + uv))
        found = np.where(uv > -0.5 * root, near, np.log1p(-uv / root))
    return np.where(ww == 0, -np.inf, found)


def _powers(exponent: Array, like: Tensor) -> Tensor:
    """``2^exponent`` by network, to be multiplied with ``[net, ...]``."""
    values = torch.from_numpy(np.ldexp(1.0, exponent.astype(int))).to(like.device)
    return values.view(-1, *[1] * (like.dim() - 1))


def _inhomogeneity(h: Tensor, grid: Grid) -> Array:
    lattice = h.view(*h.shape[:2], *grid.shape)
    axes = range(-len(grid.shape), 0)
    steps = sum((lattice - lattice.roll(-1, axis)).square().flatten(1).mean(1) for axis in axes)
    variance = h.flatten(1).var(1, correction=0)
    assert isinstance(steps, Tensor)
    return np.asarray((steps / (2 * len(grid.shape) * variance)).cpu().numpy())


def _spread(active: Tensor, grid: Grid) -> Array:
    count = active.sum(1).double()
    squares = torch.from_numpy(grid.distances).to(active.device)
    return np.asarray((active.double() @ squares / count).cpu().numpy())

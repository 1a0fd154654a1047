"""What is measured of a block of lattices at one depth, one number a realisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def observe(state: Tensor, shift: Array, stretch: float, grid: Grid, threshold: float) -> Array:
    """All observables, ``[net, observable]``.

    Args:
        state: ``stretch (h, 2^shift d)``, ``[net, channel, 2, n]``.
        shift: powers of two, ``[net]``.
        stretch: of the state.
        grid: the positions.
        threshold: of z, above which a position is active.
    """
    h, d = state.double().unbind(2)
    halves = -shift.astype(int)  # of what squares are multiplied by, to come to their own scale
    hh, hd, dd = ((left * right).sum(1) for left, right in ((h, h), (h, d), (d, d)))
    means = h.mean((1, 2)).cpu().numpy(), d.mean((1, 2)).cpu().numpy()
    variance = hh.sum(1).cpu().numpy() / h[0].numel() - means[0] ** 2
    products = [_total(part) / h[0].numel() for part in (hh, hd, dd)]
    log_rho = _log_rho(products, means, halves)
    true = _powers(halves, dd)
    differ = dd != 0  # or have left the range of floats, which no later number may hide
    local = torch.where(differ, dd / (2 * hh + 2 * hd * true + dd * true.square()), 0.0)
    # the powers come apart: their product may leave float64 where its logarithm does not
    logs = (torch.where(differ, local.log(), 0.0).sum(1) / differ.sum(1)).cpu().numpy()
    active = local * true.square() > threshold
    share = active.double().masked_fill(local.isnan(), math.nan).mean(1)
    log_scale = 2 * halves * math.log(2.0)
    columns = {
        "rho": np.exp(log_rho),
        "log_rho": log_rho,
        "local": (local.mean(1) * true[:, 0].square()).cpu().numpy(),
        "log_local": logs + log_scale,
        "active": share.cpu().numpy(),
        "log_difference": np.log(_total(dd) / h[0].numel()) + log_scale - 2 * math.log(stretch),
        "inhomogeneity": _steps(h, grid) / (2 * variance),
        "spread": _spread(active, grid),
    }
    return np.stack([columns[name] for name in NAMES], axis=1)


def _total(values: Tensor) -> Array:
    return np.asarray(values.sum(1).cpu().numpy())


def _log_rho(products: Sequence[Array], means: Sequence[Array], power: Array) -> Array:
    """``ln[(uu ww - uw^2)/(S (S + uv))]`` with ``v = u + w``, ``S^2 = uu vv``; -inf where w is 0.

    Args:
        products: means of ``uu, uw, ww``.
        means: of ``u, w``, which are taken off.
        power: of two that ``w`` is to be multiplied by.
    """
    (uu, uw, ww), (u, w) = products, means
    equal = ww == 0
    uu, uw, ww = uu - u * u, uw - u * w, ww - w * w
    true = np.ldexp(1.0, power)
    uv = uu + uw * true
    vv = uu + 2 * uw * true + ww * true**2
    with np.errstate(divide="ignore", invalid="ignore"):
        sine = np.maximum(ww - uw * (uw / uu), 0.0)  # |w|^2 across u
        root = np.sqrt(uu * vv)
        near = np.log(sine) + 2 * power * math.log(2.0) + np.log(uu) - np.log(root * (root + uv))
        # opposite inputs: S + uv cancels, and 1 - uv/S does not
        found = np.where(uv > -0.5 * root, near, np.log1p(-uv / root))
    return np.where(equal, -np.inf, found)


def _powers(exponent: Array, like: Tensor) -> Tensor:
    """``2^exponent`` by network, to be multiplied with ``[net, ...]``."""
    values = torch.from_numpy(np.ldexp(1.0, exponent.astype(int))).to(like.device)
    return values.view(-1, *[1] * (like.dim() - 1))


def _steps(h: Tensor, grid: Grid) -> Array:
    """Mean square difference of neighbours."""
    lattice, total = h.view(*h.shape[:2], *grid.shape), torch.zeros_like(h[:, 0, 0])
    for axis, length in enumerate(grid.shape, 2):
        inside = lattice.narrow(axis, 1, length - 1) - lattice.narrow(axis, 0, length - 1)
        around = lattice.select(axis, 0) - lattice.select(axis, length - 1)
        total += inside.square().flatten(1).sum(1) + around.square().flatten(1).sum(1)
    return np.asarray(total.cpu().numpy() / (h[0].numel() * len(grid.shape)))


def _spread(active: Tensor, grid: Grid) -> Array:
    count = active.sum(1).double()
    squares = torch.from_numpy(grid.distances).to(active.device)
    return np.asarray((active.double() @ squares / count).cpu().numpy())

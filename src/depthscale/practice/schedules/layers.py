r"""One layer's constants, for every layer of a network that is followed layer by layer.

With ``V = E[phi^2]`` and ``M = E[phi'^2]`` at the length ``q``, layers do

    clean = skip^2 q + sigma_w^2 V + sigma_b^2      the length after the layer without dropout
    noisy = sigma_w^2 V                             what dropout of units multiplies,
            sigma_w^2 V + sigma_b^2                 and dropout of the whole branch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from depthscale.answers import InputError, Undefined
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

Kind = Literal["drop", "field"]
Network = MeanField | Sequence[MeanField]
"""One layer that is repeated, or all layers in order, of one activation."""

WIDEST = 100.0  # ratio of the lengths that one table spans
MASKS = ("independent", "layers")


@dataclass(frozen=True)
class Layers:
    """The layers of a network, ``D`` of them, and which have a site.

    ``weight, bias, skip`` are squared, ``path`` is 1 where the whole branch is dropped; all have
    shape (D, 1), to meet schedules in the second axis. ``free``: only ratios of lengths matter.
    """

    networks: tuple[MeanField, ...]
    sites: tuple[int, ...]
    weight: Array
    bias: Array
    skip: Array
    path: Array
    free: bool

    @classmethod
    def of(cls, network: Network, depth: int, sites: Sequence[int] | None = None) -> Layers:
        """Layers of ``depth`` sites; ``sites`` counts those that have one from 0, default all.

        Raises
        ------
        InputError
            Layers of different activations or other masks, a cusp or a jump, or sites that are no
            layers in order.
        """
        one = isinstance(network, MeanField)
        count = depth if sites is None else max((*sites, -1)) + 1
        networks = (network,) * count if isinstance(network, MeanField) else tuple(network)
        places = tuple(range(len(networks)) if sites is None else (int(k) for k in sites))
        ascending = all(a < b for a, b in zip((-1, *places), (*places, len(networks)), strict=True))
        if not networks or len(places) != depth or not ascending:
            raise InputError(
                f"{depth} sites are at {list(places)[:8]} of {len(networks)} layers; expected one"
                " layer for each site, counted from 0 and in order"
            )
        layers = tuple(replace(n, drop=0.0) for n in networks[: 1 if one else None])
        for layer in layers:
            _check(layer, layers[0])
        layers = layers * count if one else layers

        def column(name: str) -> Array:
            return np.array([getattr(n, name) ** 2 for n in layers])[:, None]

        path = np.array([float(n.masks == "layers") for n in layers])[:, None]
        weight, bias, skip = (column(n) for n in ("sigma_w", "sigma_b", "skip"))
        free = all(n.scale_free for n in layers)
        return cls(layers, places, weight, bias, skip, path, free)

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def alike(self) -> bool:
        """Whether all layers are one and the same."""
        return all(n == self.networks[0] for n in self.networks)

    def start(self, q0: float | None) -> float:
        """Length of the inputs: as given, else what the first layer settles at without dropout."""
        if self.free:
            return 1.0
        q = self.networks[0].q if q0 is None else q0
        if isinstance(q, Undefined):
            raise InputError(f"the network without dropout has no length, give q0: {q.reason}")
        if not (q > 0 and np.isfinite(q)):
            raise InputError(f"the length is {q!r}; expected a positive one (change sigma_w)")
        return float(q)

    def range(self, q0: float, cap: float, kind: Kind) -> tuple[float, float]:
        """Lengths between those without dropout and those with ``cap`` at every site."""
        if self.free:
            return 1.0, 1.0
        low = high = least = most = q0
        alike, sites = self.alike, set(self.sites)
        for k, layer in enumerate(self.networks):
            low = float(layer.length_map(low))
            high = _worst(layer, high, cap if k in sites else 0.0, kind)
            if alike and least == min(least, low, high) and most == max(most, low, high):
                break  # settled
            least, most = min(least, low, high), max(most, low, high)
            if not most < WIDEST * least:
                raise InputError(
                    f"lengths would run from {least:.3g} to {most:.3g} within the cap {cap:g};"
                    " expected a network whose length dropout changes less, or a smaller cap"
                )
        return least / 1.05, most * 1.05

    def scattered(self, x: Array) -> Array:
        """Schedules (N, L) as one row for each layer, (D, N), 0 where there is no site."""
        if len(self.sites) == len(self):
            return np.ascontiguousarray(x.T)
        rows = np.zeros((len(self), len(x)))
        rows[list(self.sites)] = x.T
        return rows

    def gathered(self, rows: Array) -> Array:
        """What belongs to sites, (N, L), of one row for each layer, (D, N)."""
        return np.asarray(rows.T if len(self.sites) == len(self) else rows[list(self.sites)].T)


def _check(layer: MeanField, first: MeanField) -> None:
    if layer.masks not in MASKS:
        raise InputError(
            f"masks are {layer.masks!r}; a schedule is followed with independent masks, or with"
            " 'layers' for whole branches"
        )
    if layer.activation.cusps:
        raise InputError(
            f"{layer.activation.name} has a cusp; expected a smooth or kinked activation"
        )
    if layer.activation is not first.activation and layer.activation != first.activation:
        raise InputError(
            f"layers have the activations {first.activation.name} and {layer.activation.name};"
            " expected one for all of them"
        )


def _worst(layer: MeanField, q: float, cap: float, kind: Kind) -> float:
    """Next length with ``cap`` of what is counted."""
    if kind == "field":
        return float(layer.length_map(q) / (1 - cap))
    return float(replace(layer, drop=cap).length_map(q))

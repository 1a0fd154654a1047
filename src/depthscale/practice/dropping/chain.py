"""The exact theory of a model's dropout sites, where it is a plain chain of layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from depthscale.answers import InputError
from depthscale.practice.dropping.apply import apply_schedule
from depthscale.practice.dropping.sites import DropoutSite
from depthscale.practice.probe.measure import measure
from depthscale.practice.probe.sites import Chain, recognise_chain
from depthscale.practice.probe.state import preserved
from depthscale.practice.probe.trace import unwrap
from depthscale.theory.meanfield import MeanField

ALIKE = 1e-9


@dataclass(frozen=True)
class SiteChain:
    """Layers between which a model drops, at infinite width.

    ``fields[k]`` is the map of layer ``k`` (its ``drop`` is 0) and ``site[k]`` the index of the
    site in it, None where it has none; ``q0`` is the measured length before the first of them.
    """

    fields: tuple[MeanField, ...]
    site: tuple[int | None, ...]
    q0: float


def site_chain(
    model: nn.Module, inputs: Any, sites: Sequence[DropoutSite], seed: int = 0
) -> SiteChain | str:
    """The chain that a model's sites are in, or why theory has none.

    Each site is given a rate of its own, by which it is known again in the layers of the traced
    chain. The model is left as it was.
    """
    tags = [0.1 + 0.3 * math.sqrt((k + 1) / (len(sites) + 1)) for k in range(len(sites))]
    with apply_schedule(model, tags, sites):
        found = measure(model, inputs, mode="train", seed=seed)
        assert found.trace is not None  # measure always keeps it
        with preserved(model):
            chain = recognise_chain(found.trace, unwrap(model)[0])
    if isinstance(chain, str):
        return chain
    return _placed(chain, sites, tags, float(found.length[0, chain.layers[0]]))


def _placed(
    chain: Chain, sites: Sequence[DropoutSite], tags: Sequence[float], q0: float
) -> SiteChain | str:
    from depthscale.theory.activation import activation

    places: list[int | None] = []
    for hop in chain.hops:
        near = np.flatnonzero(np.abs(np.array(tags) - hop.drop) < ALIKE)
        if hop.drop > 0 and not near.size:
            return "several places drop between the same two layers"
        places.append(int(near[0]) if near.size else None)
    missing = set(range(len(sites))) - {place for place in places if place is not None}
    if missing:
        name = sites[min(missing)].name
        return f"site {name!r} lies outside of the chain of layers that theory describes"
    if not (math.isfinite(q0) and q0 > 0):
        return f"the length at the first layer is {q0:g}"
    try:
        fields = tuple(
            MeanField(activation(hop.activation), sigma_w=hop.sigma_w, sigma_b=hop.sigma_b)
            for hop in chain.hops
        )
    except InputError as error:
        return str(error)
    return SiteChain(fields, tuple(places), q0)

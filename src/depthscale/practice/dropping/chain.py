"""The exact theory of a model's dropout sites, where it is a plain chain of layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from depthscale.answers import InputError
from depthscale.practice.dropping.apply import applied_quietly
from depthscale.practice.dropping.sites import DropoutSite
from depthscale.practice.probe.measure import measure
from depthscale.practice.probe.sites import (
    Chain,
    places_before_output,
    recognise_chain,
    sites_of,
)
from depthscale.practice.probe.state import preserved
from depthscale.practice.probe.trace import unwrap
from depthscale.theory.activation import Activation, activation
from depthscale.theory.meanfield import MeanField

ALIKE = 1e-9
WEIGHTS = ("sigma_w", "sigma_b")


@dataclass(frozen=True)
class SiteChain:
    """Layers between which a model drops, at infinite width.

    ``fields[k]`` is the map of layer ``k`` (its ``drop`` is 0) and ``site[k]`` the index of the
    site in it, None where it has none, in the order of the sites; ``q0`` and ``eps0`` are the
    measured length of the inputs and misalignment of their pairs before the first of them.
    ``notes`` are what theory leaves out; ``gradient_reason`` why gradients do not follow the chain.
    """

    fields: tuple[MeanField, ...]
    site: tuple[int | None, ...]
    q0: float
    eps0: float
    notes: tuple[str, ...] = ()
    gradient_reason: str | None = None

    @property
    def median(self) -> MeanField:
        """The layer of the median sigma_w and sigma_b."""
        w, b = (float(np.median([getattr(f, n) for f in self.fields])) for n in WEIGHTS)
        return replace(self.fields[0], sigma_w=w, sigma_b=b)


def site_chain(
    model: nn.Module, inputs: Any, sites: Sequence[DropoutSite], seed: int = 0
) -> SiteChain | str:
    """The chain that a model's sites are in, or why theory has none.

    Each site is given a rate of its own, by which it is known again in the layers of the traced
    chain. The model is left as it was.
    """
    # Irrational, so that no rate of a place that is not scheduled is mistaken for one of them.
    tags = [0.1 * math.sqrt(2) + 0.3 * (k + 0.5) / len(sites) for k in range(len(sites))]
    with applied_quietly(model, tags, sites):
        found = measure(model, inputs, mode="train", seed=seed)
        assert found.trace is not None  # measure always keeps it
        with preserved(model):
            bare, _ = unwrap(model)
            chain = recognise_chain(found.trace, bare)
            before = places_before_output(found.trace, sites_of(found.trace, bare))
    if isinstance(chain, str):
        return chain
    if chain.layers[-1] not in before:
        return "its chain of layers leads to another output than the first"
    first = chain.layers[0]
    return _placed(chain, sites, tags, float(found.length[0, first]), float(found.eps[0, first]))


def _alike(one: Activation, other: Activation) -> bool:
    """Whether two activations are the same function, as far as 201 places tell."""
    u = np.linspace(-10.0, 10.0, 201)
    return np.array_equal(one(u), other(u))


def _placed(
    chain: Chain, sites: Sequence[DropoutSite], tags: Sequence[float], q0: float, eps0: float
) -> SiteChain | str:
    places: list[int | None] = []
    for hop in chain.hops:
        near = np.flatnonzero(np.abs(np.array(tags) - hop.drop) < ALIKE)
        if hop.drop > 0 and not near.size:
            return "several places, or one that is not scheduled, drop between the same two layers"
        places.append(int(near[0]) if near.size else None)
    missing = set(range(len(sites))) - {place for place in places if place is not None}
    if missing:
        name = sites[min(missing)].name
        return f"site {name!r} lies outside of the chain of layers that theory describes"
    placed = [place for place in places if place is not None]
    if placed != sorted(set(placed)):
        return "a site drops between several layers, or before another that was found earlier"
    if not (math.isfinite(q0) and q0 > 0 and eps0 > 0):
        return f"at the first layer the length is {q0:g} and the misalignment of inputs {eps0:g}"
    try:
        shapes = [activation(hop.activation) for hop in chain.hops]
    except InputError as error:
        return str(error)
    if not all(_alike(shapes[0], shape) for shape in shapes):
        return "its layers have different activations"
    # One object for all: the same function found out of two modules does not compare as equal.
    fields = tuple(
        MeanField(shapes[0], sigma_w=hop.sigma_w, sigma_b=hop.sigma_b) for hop in chain.hops
    )
    return SiteChain(
        fields, tuple(places), q0, min(eps0, 1.0), tuple(chain.notes), chain.gradient_reason
    )

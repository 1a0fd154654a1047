"""The random networks of the claims: exact in distribution, sampled once each."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.theory.activation import activation as named
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

WORKERS = 2
KEPT = 2_000_000
"""Networks times layers that are held at a time."""

PART = 100
FEWEST = 100


class Networks(NamedTuple):
    """Of every network at the layers asked for, ``[layer, net]``.

    ``eps`` is ``1 - cos`` of the two pre-activations, ``length`` the mean square of the first.
    """

    eps: Array
    length: Array

    @property
    def nets(self) -> int:
        """How many."""
        return int(self.eps.shape[1])


@dataclass(frozen=True)
class Runs:
    """How many networks are sampled.

    Args:
        quick: a hundredth of them, at least 100, by the same path. Its verdicts are not to be
            quoted: most are undecided.
    """

    quick: bool = False

    def count(self, full: int) -> int:
        """Networks in place of ``full``."""
        return max(full // PART, FEWEST) if self.quick else full

    def sampled(self, widths: tuple[int, ...]) -> tuple[int, ...]:
        """The widths that are sampled where each takes long to prepare: the first one if quick."""
        return widths[:1] if self.quick else widths

    def pairs(
        self,
        layer: MeanField,
        width: int,
        layers: tuple[int, ...],
        eps: float,
        nets: int,
        length: float = 1.0,
    ) -> Networks:
        """Networks of equal layers.

        The pair of layer 0 has exactly this misalignment and these lengths, in a random direction.
        """
        return _pairs(layer, width, layers, eps, self.count(nets), length, self._workers)

    def inputs(self, layer: MeanField, width: int, depth: int, gram: ArrayLike, nets: int) -> Array:
        """Correlations of all pairs of inputs at the last layer, ``[pair, net]``.

        Layer 1 has this covariance; pairs are in the order (0, 1), (0, 2), .., (1, 2), ...
        """
        return _inputs(layer, width, depth, _frozen(gram), self.count(nets), self._workers)

    @property
    def _workers(self) -> int:
        return 1 if self.quick else WORKERS

    def provenance(self) -> dict[str, Any]:
        """What it takes to draw the same networks again."""
        return {
            "networks": "a hundredth of the full setting" if self.quick else "as each claim says",
            "seeds": "crc32 of the words of each setting, papers/limits/runs.py",
            "precision": "mixed",
        }


@cache
def _pairs(
    layer: MeanField,
    width: int,
    layers: tuple[int, ...],
    eps: float,
    nets: int,
    length: float,
    workers: int,
) -> Networks:
    depth = max(layers)
    networks = Ensemble.of([layer] * depth, [width] * (depth + 1))
    pair, most = Pair(eps, length, length), max(KEPT // depth, 1)
    parts = []
    for first in range(0, nets, most):
        words = f"pairs {layer!r} {width} {depth} {eps!r} {first}"
        run = networks.forward(
            pair,
            min(most, nets - first),
            zlib.crc32(words.encode()),
            keep=True,
            observe=(),
            workers=workers,
            progress=False,
        )
        asked = list(layers)
        parts.append((run.values("eps")[:, 0, asked].T, run.values("q")[:, 0, asked].T))
    return Networks(*(np.concatenate(both, axis=1) for both in zip(*parts, strict=True)))


@cache
def _inputs(
    layer: MeanField,
    width: int,
    depth: int,
    gram: tuple[tuple[float, ...], ...],
    nets: int,
    workers: int,
) -> Array:
    first = MeanField(named("identity"), 1.0)
    networks = Ensemble.of([first] + [layer] * (depth - 1), [len(gram)] + [width] * depth)
    vectors = np.linalg.cholesky(np.array(gram)) * np.sqrt(len(gram))
    words = f"inputs {layer!r} {width} {depth} {gram}"
    run = networks.forward(
        vectors,
        nets,
        zlib.crc32(words.encode()),
        keep=True,
        observe=(),
        workers=workers,
        progress=False,
    )
    return np.asarray(1 - run.values("eps")[:, :, -1].T)


def _frozen(gram: ArrayLike) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, np.asarray(gram, dtype=float).tolist()))

"""The random networks of the claims, sampled once each.

Three losses are in use. The linear networks of figures 2 and 4 have ``E = |h^L|^2``, twice
``Ensemble``'s quadratic loss. All other networks of figures 3 to 5 have ten outputs above the 200
layers, the last of them masked too, and softmax cross-entropy with two different labels: the paper
does not say so, but only this reproduces what the authors published, see ``metrics``. Where a
mechanism is to be isolated, a readout that is independent of the network takes their place.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.finite.sampled import Sampled
from depthscale.papers.gradients import steps
from depthscale.papers.gradients.common import DEPTH, KEEPS, NAMES, VARIANCES
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

WIDTH = 1000
"""Of figure 3."""

NARROW = 500
"""Of figures 2 and 4."""

WIDTHS = (100, 300, 500, 700, 900)
"""Of figure 5."""

CLASSES = 10
WORKERS = 2

METRICS = {"g_aa": "grad_aa", "g_ab": "grad_ab", "g_ab_abs": "grad_ab_abs"}


@dataclass(frozen=True)
class Moments:
    """A gradient metric over networks, by layer from the input.

    Attributes
    ----------
    mean, deviation:
        Over networks.
    mean_log, var_log:
        Of the logarithm of the absolute value.
    nets:
        Number of networks.
    """

    mean: Array
    deviation: Array
    mean_log: Array
    var_log: Array
    nets: int

    def error(self, nets: int | None = None) -> Array:
        """Relative standard error of a mean over ``nets``, if the metric is log-normal.

        The sample's own is far too small where the mean rests on rare networks.
        """
        return np.asarray(np.sqrt(np.expm1(self.var_log) / (self.nets if nets is None else nets)))


@dataclass(frozen=True)
class Runs:
    """Which networks are sampled, and how many.

    Networks come in blocks whose size goes with the width, so their numbers are multiples of it.

    Args:
        quick: few networks, and only two rho: the same path in a fraction of the time. Its
            verdicts are not to be quoted.
    """

    quick: bool = False

    @property
    def keeps(self) -> tuple[float, ...]:
        """The rho that are sampled."""
        return (0.6, 0.9) if self.quick else KEEPS

    @property
    def settings(self) -> tuple[tuple[str, float], ...]:
        """Activations and rho of figures 3 and 4."""
        return tuple((activation, rho) for activation in NAMES for rho in self.keeps)

    @property
    def dropped(self) -> tuple[tuple[str, float], ...]:
        """Those with dropout."""
        return tuple((activation, rho) for activation, rho in self.settings if rho < 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Those of figure 5."""
        return (300, NARROW) if self.quick else WIDTHS

    def linear(self, rho: float) -> dict[str, Moments]:
        """Figure 2: linear, width 500, ``E = |h^L|^2``."""
        return _linear(rho, self._blocks(2000, NARROW))

    def classifier(self, activation: str, rho: float, width: int = WIDTH) -> dict[str, Moments]:
        """Figures 3 to 5: cross-entropy of ten outputs; the layer of the outputs comes last."""
        return _classifier(activation, rho, width, self._blocks(200, width))

    def pairs(self, network: MeanField, loss: str, width: int, tied: bool, depth: int) -> PairRun:
        """Every network's own gradients, of a pair that starts at its fixed point."""
        return _pairs(network, loss, width, tied, depth, self._blocks(1000, width))

    @property
    def trained_width(self) -> int:
        """Of figure 6."""
        return 48 if self.quick else steps.WIDTH

    def trained_nets(self, rho: float) -> dict[int, int]:
        """How many of each depth."""
        nets = steps.NETS[rho]
        return dict.fromkeys(sorted(nets)[:2], 2) if self.quick else nets

    def trained(self, rho: float) -> list[tuple[int, steps.Trained]]:
        """Figure 6: depth and steps of every network that is trained."""
        return [
            (depth, steps.trained(rho, depth, self.trained_width, index))
            for depth, number in self.trained_nets(rho).items()
            for index in range(number)
        ]

    def _blocks(self, least: int, width: int) -> int:
        """Even, for two processes."""
        return 1 if self.quick else WORKERS * math.ceil(least / (WORKERS * _block(width)))

    def provenance(self) -> dict[str, Any]:
        """What it takes to draw the same networks again."""
        return {
            "networks": {
                name: self._blocks(least, width) * _block(width)
                for name, least, width in (
                    ("figure 2", 2000, NARROW),
                    ("figure 3", 200, WIDTH),
                    ("figures 4 and 5, width 500", 200, NARROW),
                    ("mechanisms", 1000, WIDTH),
                )
            }
            | {
                "figure 6, trained": sum(sum(self.trained_nets(rho).values()) for rho in steps.NETS)
            },
            "seeds": "crc32 of the words of each setting, papers/gradients/runs.py",
            "precision": "mixed; single in training",
        }


@dataclass(frozen=True)
class PairRun:
    """Gradients of every network, ``[net, hop]``, from the hop next to the loss downwards.

    Attributes
    ----------
    aa, ab, ab_abs:
        ``sqrt(G_aa G_bb)``, ``G_ab`` and the sum of ``|g_a g_b|``, relative to the mean of the
        first at the loss.
    cosine:
        Of ``dE_a/dh`` and ``dE_b/dh``.
    """

    aa: Array
    ab: Array
    ab_abs: Array
    cosine: Array


@cache
def _linear(rho: float, blocks: int) -> dict[str, Moments]:
    weight, bias = VARIANCES["identity"]
    networks = Ensemble("identity", weight**0.5, bias**0.5, NARROW, DEPTH, drop=_drop(rho))
    run = _backward(networks, "quadratic", blocks, f"figure 2 {rho}")
    return _moments(run, np.full(DEPTH, NARROW**2 / 4))


@cache
def _classifier(activation: str, rho: float, width: int, blocks: int) -> dict[str, Moments]:
    weight, bias = VARIANCES[activation]
    networks = Ensemble(
        activation,
        weight**0.5,
        bias**0.5,
        [width] * (DEPTH + 1) + [CLASSES],
        DEPTH + 1,
        drop=_drop(rho),
    )
    words = f"classifier {activation} {rho} {width}"
    run = _backward(networks, "cross_entropy", blocks, words, labels=[0, 1])
    sizes = np.full(DEPTH + 1, width**2)
    sizes[-1] = width * CLASSES
    return _moments(run, sizes)


@cache
def _pairs(
    network: MeanField, loss: str, width: int, tied: bool, depth: int, blocks: int
) -> PairRun:
    length, eps = inputs(network)
    networks = Ensemble(
        network.activation,
        network.sigma_w,
        network.sigma_b,
        width,
        depth,
        drop=network.drop,
        tied=tied,
    )
    words = f"pairs {network.activation.name} {loss} {width} {depth}"  # one seed, tied or not
    run = _backward(networks, loss, blocks, words, Pair(eps, length, length), keep=True)
    both = run.values("grad_aa")[:, :, ::-1]
    aa = np.sqrt(both[:, 0] * both[:, 1])
    top = aa[:, 0].mean()
    ab, ab_abs = (run.values(name)[:, 0, ::-1] / top for name in ("grad_ab", "grad_ab_abs"))
    cosine = 1 - run.values("delta_eps")[:, 0, ::-1]
    return PairRun(aa / top, ab, ab_abs, cosine)


def inputs(network: MeanField) -> tuple[float, float]:
    """Length and misalignment of inputs whose first pre-activations are at the fixed point."""
    weight, bias = network.sigma_w**2, network.sigma_b**2
    length = 1.0 if network.scale_free else float(network.q)
    one, other = (x - bias for x in (length, length * (1 - float(network.eps))))
    return one / weight, 1 - other / one


def _backward(
    networks: Ensemble, loss: str, blocks: int, words: str, start: Pair | None = None, **how: Any
) -> Sampled:
    return networks.backward(
        loss,
        Pair(1.0) if start is None else start,
        blocks * _block(networks.widths[0]),
        zlib.crc32(words.encode()),
        workers=WORKERS,
        progress=False,
        precision="mixed",
        **how,
    )


@cache
def _block(width: int) -> int:
    return Ensemble("tanh", 1.0, width=width, depth=DEPTH).plan(Pair(1.0), "quadratic").nets


def _moments(run: Sampled, sizes: Array) -> dict[str, Moments]:
    """Means over weight entries instead of sums."""
    found = {}
    for metric, name in METRICS.items():
        mean, sem, mean_log, var_log = (
            run.statistic(name, which)[0] for which in ("mean", "sem", "mean_log", "var_log")
        )
        found[metric] = Moments(
            mean / sizes,
            sem * math.sqrt(run.nets) / sizes,
            mean_log - np.log(sizes),
            var_log,
            run.nets,
        )
    return found


def _drop(rho: float) -> float:
    return round(1 - rho, 12)

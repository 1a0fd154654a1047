"""Networks with dropout near their critical point, settled: what the claims on the field rest on.

Networks start at the mean that theory gives, run for four relaxation depths and are then read
nine times over another four. Every error comes from the scatter of networks, never of layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.papers.absorbing.runs import Runs, seed
from depthscale.papers.judging import Measured, mean_of
from depthscale.theory.activation import activation as named
from depthscale.theory.criticality import critical_point
from depthscale.theory.diffusion import ScaledLimit, stochastic_limit
from depthscale.theory.field_response import FieldResponse, field_response
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.stationary import StationaryLaw

BIASES = {"tanh": 0.3, "sin": 0.3, "hardtanh": 0.3, "relu": 0.0}
"""Activations and ``sigma_b``: two smooth ones, two kinked ones, one of them scale-free."""

WIDTHS = {64: 1.5, 128: 3.0}
"""Widths, and seconds for each setting at ``theta = 0``."""

QUICK_WIDTH = 32
FIELDS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""``B``, the field in its unit at the width."""

FARTHEST = 0.08
"""Largest median of ``1 - rho`` that is measured: beyond, the map bends by other powers too."""

SETTLING, READINGS = 4, 8
"""Relaxation depths before the first reading, and steps of half a one after it."""

BLOCK = 3_000_000
"""Networks times layers that are held at a time."""


@dataclass(frozen=True)
class Settled:
    """Networks of one setting.

    Attributes
    ----------
    name, width, response, limit:
        The layer, its law, and its equation at this width with its own ``theta`` and ``H``.
    log_y:
        ``log(n^(1/beta) (1 - rho))``, [reading, net].
    """

    name: str
    width: int
    response: FieldResponse
    limit: ScaledLimit
    log_y: Array

    @property
    def law(self) -> StationaryLaw:
        """What theory says of ``log y``."""
        law = self.limit.equation.stationary
        assert isinstance(law, StationaryLaw)
        return law

    @property
    def scaled_field(self) -> float:
        """``B``."""
        return self.limit.equation.field / self.response.field_unit

    @property
    def power(self) -> float:
        """``p``."""
        return self.response.power(self.limit.equation.detuning)

    def moment(self, order: float) -> Measured:
        """``E y^order``."""
        return mean_of(np.exp(order * self.log_y).mean(axis=0))

    def expected(self, order: float) -> float:
        """The same by theory."""
        return float(self.law.moment(order))

    @property
    def below_median(self) -> Array:
        """Share of its readings that each network spends below the median of theory, [net]."""
        return np.asarray((self.log_y < float(self.law.quantile(0.5))).mean(axis=0))

    @property
    def ranks(self) -> Array:
        """Share of the law below each reading, uniform if it holds, [reading, net]."""
        return self.law.cdf(self.log_y)


@cache
def response(name: str) -> FieldResponse:
    """The response of the critical layer."""
    return field_response(_layer(name, 0.0, 0.0, "gaussian"))


def theta_of(name: str, power: float) -> float:
    """``theta`` at which ``p`` has this value."""
    own = response(name)
    return power * own.variance / 2 - own.lam


@cache
def _layer(name: str, detuning: float, drop: float, masks: str) -> MeanField:
    """At ``chi = 1 + detuning`` with the noise; ReLU, which cannot be detuned, as it is."""
    phi, bias = named(name), BIASES[name]
    if name == "relu":
        assert detuning == 0
        return MeanField(phi, math.sqrt(2), drop=drop, masks=masks)
    found = critical_point(phi, bias, drop=drop, masks=masks, detuning=detuning)
    return MeanField(phi, float(found.sigma_w), bias, drop=drop, masks=masks)


@cache
def layer(name: str, width: int, theta: float, field: float, masks: str = "gaussian") -> MeanField:
    """The layer whose ``theta`` and ``H`` at this width are these, ``H`` to first order."""
    tiny = 1e-8
    per_drop = float(_layer(name, 0.0, tiny, masks).dropout_field) / tiny
    drop = field * width ** -(1 + 1 / response(name).beta) / per_drop
    return _layer(name, theta / width, drop, masks)


def in_reach(name: str, width: int, scaled_field: float, theta: float = 0.0) -> bool:
    """Whether networks of this width answer by a misalignment that is near alignment."""
    own = response(name)
    median = own.median(theta, scaled_field * own.field_unit)
    return bool(median < FARTHEST * width ** (1 / own.beta))


@cache
def settled(
    runs: Runs, name: str, width: int, scaled_field: float, theta: float, seconds: float
) -> Settled:
    """Networks with Gaussian noise at ``B`` and ``theta``, as many as a core does in ``seconds``.

    Counted at 0.09 microseconds a unit and layer, so that it is the same number on any machine.
    """
    own = response(name)
    target = scaled_field * own.field_unit
    net = layer(name, width, theta, target)
    limit = stochastic_limit(net).at_width(width)
    at = (limit.equation.detuning, limit.equation.field)
    step = max(round(float(own.relaxation(*at)) * width / 2), 1)
    layers = [step * (2 * SETTLING + k) for k in range(READINGS + 1)]
    start = min(float(own.mean(*at)) / limit.scale, 0.3)
    nets = runs.count(round(seconds / (9e-8 * width * layers[-1])), 8)
    words = (name, width, scaled_field, theta)
    eps = _eps(net, width, layers, start, nets, seed("field", *words), runs.workers)
    return Settled(name, width, own, limit, np.log(limit.scale * eps))


def _eps(
    net: MeanField, width: int, layers: list[int], start: float, nets: int, key: int, workers: int
) -> Array:
    """``1 - rho``, [reading, net]."""
    networks = Ensemble.of([net] * layers[-1], [width] * (layers[-1] + 1))
    settled_at = net.settled
    length = 1.0 if net.scale_free else float(settled_at[0])  # type: ignore[index]
    parts = []
    most = max(BLOCK // layers[-1], 1)
    for first in range(0, nets, most):
        run = networks.forward(
            Pair(start, length, length),
            min(most, nets - first),
            key + first,
            keep=True,
            observe=(),
            workers=workers,
            progress=False,
        )
        parts.append(run.values("eps")[:, 0, layers].T)
    return np.concatenate(parts, axis=1)


# Groups of settings -------------------------------------------------------------------------------

SLOPE_FIELDS = {1e-3: 6.0, 1e-2: 3.0, 1e-1: 1.5}
"""Small fields, and seconds for each."""

SLOPES = (("relu", -0.5), ("hardtanh", -0.5), ("tanh", -0.5), ("tanh", -0.25), ("tanh", -2.0))
"""Activations and ``p`` at which the response is followed to small fields."""

SMEARED = ("tanh", "hardtanh")
SMEARED_FIELDS = (1e-3, 3e-2)
SMEARED_THETAS = (-4.0, -2.0, 0.0, 1.0, 2.0, 3.0, 4.0, 6.0)


def widths(runs: Runs) -> tuple[int, ...]:
    """The widths of networks at ``theta = 0``, the others have the first one."""
    return (QUICK_WIDTH,) if runs.quick else tuple(WIDTHS)


def critical(runs: Runs, name: str, width: int) -> list[Settled]:
    """At ``theta = 0`` and every field in reach."""
    seconds = WIDTHS.get(width, 1.0)
    fields = [b for b in FIELDS if in_reach(name, width, b)]
    return [settled(runs, name, width, b, 0.0, seconds) for b in fields]


def falling(runs: Runs, name: str, power: float) -> list[Settled]:
    """At small fields and this ``p``."""
    theta, width = 0.0 if name == "relu" else theta_of(name, power), widths(runs)[0]
    return [settled(runs, name, width, b, theta, time) for b, time in SLOPE_FIELDS.items()]


def smeared(runs: Runs, name: str, scaled_field: float) -> list[Settled]:
    """Across the transition at this field."""
    width = widths(runs)[0]
    thetas = SMEARED_THETAS[2:3] if runs.quick else SMEARED_THETAS
    reached = [t for t in thetas if in_reach(name, width, scaled_field, t)]
    return [settled(runs, name, width, scaled_field, t, 0.7) for t in reached]


@dataclass(frozen=True)
class Dropped:
    """Networks with rare Bernoulli drops: ``E (1 - rho)`` and what theory says of it.

    ``drift`` is what the same field does as Gaussian noise.
    """

    drop: float
    found: Measured
    expected: float
    drift: float


DROP_NETS = 1000
DROP_RATE = 0.1
"""Drops per unit of ``t``."""


@cache
def dropped(runs: Runs, name: str, width: int, rate: float = DROP_RATE) -> Dropped:
    """The response to single drops, from networks that start aligned.

    Read over the second of two stretches of four units of ``t``.
    """
    drop = rate / (2 * width**2)
    net = _layer(name, 0.0, drop, "independent")
    limit, own = stochastic_limit(net).at_width(width), response(name)
    assert limit.drops is not None
    layers = list(range(4 * width, 8 * width + 1, max(width // 16, 1)))
    nets = runs.count(DROP_NETS, 8)
    key = seed("drops", name, width, rate)
    eps = _eps(net, width, layers, 1e-14, nets, key, runs.workers)
    theta = limit.equation.detuning
    expected = float(own.drop_response(limit.drops, 1.0, theta)) / limit.scale
    drift = float(own.mean(theta, limit.equation.field)) / limit.scale
    return Dropped(drop, mean_of(eps.mean(axis=0)), expected, drift)

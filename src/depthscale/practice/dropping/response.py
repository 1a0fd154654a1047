r"""What dropout at each place of a real model does to its signals, measured one site at a time.

To first order in the rates ``p_s`` the effects of different sites add up. With only site ``s`` on,
at the rate ``r``, and the model run twice on the same inputs (two masks each), let ``n_s`` be the
misalignment of one input with itself at the readout, ``e_s`` the sum of it over all layers, and
``k_s`` the contrast, the misalignment of two inputs less ``n_s``. Then

    noise      1 - prod_s (1 - n_s)^(p_s/r)      misalignment of two passes at the output
    exposure   sum_s (p_s/r) e_s                 that misalignment summed over the layers
    signal     sum_s (p_s/r) log(k_0/k_s)        log contrast lost, with k_0 that without dropout
    snr        k_0 exp(-signal)/noise

which holds for any model that runs, at the weights that it has (correlations multiply from site to
site where the maps between are linear). What it leaves out, that sites act on each other, is
measured afterwards on the schedule that it led to (``Observer``). The readout is the last layer
that the first output of the model comes from; auxiliary heads that run later do not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from depthscale.answers import InputError
from depthscale.practice.dropping.apply import applied_quietly
from depthscale.practice.dropping.budgets import SiteBudgets
from depthscale.practice.dropping.sites import DropoutSite
from depthscale.practice.probe.measure import Signals
from depthscale.theory.gaussian import Array

MEASURED = {"signal": -1, "noise": -1, "exposure": 1, "snr": 1}
"""Objectives that can be measured on any model; 1 where more is better."""
REPEATS, PAIRS = 4, 1024
MOST_ORDERS = 20_000
Progress = Callable[[], None]


@dataclass(frozen=True)
class Observed:
    """Signals of a model at given rates: one number for each repeat with masks of its own.

    ``noise, exposure, contrast`` have shape (repeats,); ``readout`` is the layer at which noise and
    contrast were read.
    """

    noise: Array
    exposure: Array
    contrast: Array
    readout: str = ""

    def objective(self, name: str, contrast_without: float) -> Array:
        """One objective of the mean over all repeats, then over all but each, (1 + repeats,).

        Leaving one out at a time is what the jackknife needs. Infinite or NaN where the objective
        does not exist.
        """
        noise, exposure, contrast = (_means(a) for a in (self.noise, self.exposure, self.contrast))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {
                "noise": noise,
                "exposure": exposure,
                "signal": np.log(contrast_without / contrast),
                "snr": contrast / noise,
            }
        return np.asarray(values[name])


def _means(values: Array) -> Array:
    """The mean, and the means without each of the values."""
    total, count = values.sum(), len(values)
    return np.append(total / count, (total - values) / (count - 1))


@dataclass(frozen=True)
class Response:
    """What each site does alone, at the ``rate`` it had; arrays of shape (sites,).

    ``noise`` is ``-log(1 - n_s)``. ``contrast`` is the misalignment of two inputs at the readout
    without dropout. ``floor`` and ``exposure_floor`` are the noise, likewise, and the exposure that
    remain with all sites off: of places that are not among the sites or cannot be set.
    """

    sites: tuple[DropoutSite, ...]
    rate: Array
    noise: Array
    exposure: Array
    signal: Array
    contrast: float
    floor: float
    exposure_floor: float = 0.0


class Observer:
    """Measures one model in train mode at any rates of its sites; the model is left as it was.

    Raises
    ------
    InputError
        A model or inputs that ``measure`` does not take, fewer than two inputs.
    """

    def __init__(self, model: nn.Module, inputs: Any, sites: Sequence[DropoutSite]) -> None:
        self.model, self.sites = model, tuple(sites)
        self._signals = Signals(model, inputs, pairs=PAIRS)

    def at(self, rates: Sequence[float] | Array, repeats: int = REPEATS, seed: int = 0) -> Observed:
        """Signals at these rates; InputError where one is not finite or none reaches the end."""
        rows, last = [], 0
        with applied_quietly(self.model, [float(rate) for rate in rates], self.sites):
            for repeat in range(repeats):
                pairs, own = self._signals(seed + repeat)
                known = [k for k in self._signals.before_output if np.isfinite(pairs[k] + own[k])]
                if not known:
                    raise InputError("no signal of a batch was seen at any layer of the model")
                last = known[-1]
                rows.append((own[last], float(np.nansum(own)), pairs[last] - own[last]))
        noises, exposure, contrast = np.array(rows).T
        return Observed(noises, exposure, contrast, self._signals.layers[last].name)


def measure_response(
    observer: Observer,
    rate: Array,
    repeats: int = REPEATS,
    seed: int = 0,
    advance: Progress = lambda: None,
) -> Response:
    """Measure what each site does alone, at its ``rate``: best the one that it will have if any.

    ``advance`` is called after each of the ``len(sites) + 1`` measurements.

    Raises
    ------
    InputError
        As ``Observer``; no contrast between inputs at the last layer.
    """
    sites = observer.sites
    base = observer.at(np.zeros(len(sites)), repeats, seed)
    advance()
    floor, contrast = _uncorrelated(base.noise), float(base.contrast.mean())
    if not contrast > 0:
        raise InputError(
            f"two inputs differ by {contrast:.3g} more than one input from itself at "
            f"{base.readout} without dropout; there is no signal that dropout could spare"
        )
    rows = []
    for place in range(len(sites)):
        found = observer.at(rate * (np.arange(len(sites)) == place), repeats, seed)
        kept = max(float(found.contrast.mean()), 1e-12 * contrast)
        rows.append(
            (
                max(_uncorrelated(found.noise) - floor, 0.0),
                max(float((found.exposure - base.exposure).mean()), 0.0),
                math.log(contrast / kept),
            )
        )
        advance()
    noise, exposure, signal = np.array(rows).T
    if not noise.max() > 0:
        raise InputError(
            "with any site on, both passes of the batch agree exactly: they met the same masks, or"
            " the sites do not act; there is nothing to choose by"
        )
    rest = float(base.exposure.mean())
    return Response(sites, rate, noise, exposure, signal, contrast, floor, rest)


def _uncorrelated(noise: Array) -> float:
    """``-log(1 - noise)``, which adds up where correlations multiply."""
    return -math.log(max(1.0 - float(noise.mean()), 1e-12))


def _angles(groups: Sequence[Array]) -> Array:
    """One direction between any two at which sites of a group change order; groups (2, size)."""
    differences = []
    for pair in groups:
        i, j = np.triu_indices(pair.shape[1], 1)
        differences.append(pair[:, i] - pair[:, j])
    difference = np.concatenate(differences, axis=1)
    across = np.arctan2(-difference[0], difference[1])
    turns = np.unique(np.concatenate([across, across + np.pi]) % (2 * np.pi))
    if not turns.size:
        return np.zeros(1)
    following = np.roll(turns, -1)
    following[-1] += 2 * np.pi
    return np.asarray((turns + following) / 2)


class ResponseLandscape:
    """The measured objectives of a model as functions of the rates, to first order."""

    def __init__(self, response: Response) -> None:
        self.response = response

    def linear(self, name: str) -> Array | None:
        """Coefficients of what is linear in the rates, with more being better; else None.

        Of ``noise`` its logarithm ``-log(1 - noise)``, which has the same order.
        """
        rate = self.response.rate
        if name == "noise":
            return -self.response.noise / rate
        if name == "exposure":
            return self.response.exposure / rate
        return -self.response.signal / rate if name == "signal" else None

    def values(self, name: str, x: Array) -> Array:
        """One objective of schedules (N, L); ``snr`` is infinite without noise."""
        if name == "snr":
            with np.errstate(divide="ignore"):
                kept = self.response.contrast * np.exp(-self.values("signal", x))
                return np.asarray(kept / self.values("noise", x))
        linear = self.linear(name)
        assert linear is not None  # all but snr
        total = MEASURED[name] * (x @ linear)
        if name == "noise":
            return np.asarray(-np.expm1(-total - self.response.floor))
        return np.asarray(total + (self.response.exposure_floor if name == "exposure" else 0.0))

    def optimum(self, name: str, budgets: SiteBudgets) -> tuple[Array, bool]:
        """The best rates within budgets, and whether they are the best of all for certain.

        ``noise``, ``exposure`` and ``signal`` are linear programs. The logarithm of ``snr`` is a
        convex function of two linear ones, so that it is largest at an extreme point, which is the
        best for some combination of them: all combinations are tried that order the sites
        differently, up to ``MOST_ORDERS`` of them.
        """
        linear = self.linear(name)
        if linear is not None:
            return budgets.maximise(linear), True
        pair = np.stack([self.response.noise, self.response.signal]) / self.response.rate
        worth = pair / budgets.weights
        angles = _angles([worth[:, list(members)] for members, _ in budgets.groups])
        exact = len(angles) <= MOST_ORDERS
        if not exact:
            angles = angles[np.linspace(0, len(angles) - 1, MOST_ORDERS).astype(int)]
        rows = budgets.maximise(np.stack([np.cos(angles), np.sin(angles)], axis=1) @ pair)
        return rows[int(np.argmax(self.values(name, rows)))], exact

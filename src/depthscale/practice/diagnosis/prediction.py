"""The theory side of an audit: what infinite width predicts for the chain that was measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from depthscale.answers import InputError, Undefined
from depthscale.practice.diagnosis.growth import Band

if TYPE_CHECKING:
    from depthscale.practice.probe.measure import Measurement
    from depthscale.practice.probe.sites import Chain, Hop
    from depthscale.theory.meanfield import MeanField

__all__ = ["Band", "Theory", "predict", "representative"]

# One unit of one layer of one sampled network, forwards and backwards: about 1.5e-7 s on one core.
UNITS_PER_SECOND = 6.0e6
BAND_SECONDS = 0.35
FEWEST_NETS = 8


@dataclass(frozen=True)
class Theory:
    """Predicted curves for the recognised chain of a model, on the layers that were measured.

    ``layers[k]`` is the index into ``Measurement.layers`` of the k-th pre-activation of the chain;
    ``fields[k]`` is the hop from the k-th to the (k+1)-th one, so there is one field fewer than
    layers. Every curve has ``len(layers)`` entries. ``length`` and ``eps`` start at the measured
    first layer; ``gradient`` ends at the measured last layer (None, with a note, where an inner
    layer feeds something else too); ``eps_masks`` is the distance of one input to itself under two
    dropout masks, None when nothing is dropped.

    ``survival`` is the share of the input pairs' misalignment contrast that is left at each layer,
    ``S_l = [F_l(eps_0) - F_l(eps_0/2)] / (eps_0/2)`` with ``F_l`` the map of the first l hops: how
    well a pair can still be told from one that is twice as similar. It is 1 at the first layer and
    falls as ``exp(-l/xi)``, with xi the correlation depth scale, on both sides of the edge of chaos
    and with dropout, because every pair then flows to the same fixed point; no fixed point need be
    known for it. At criticality without dropout it falls as a power of the depth.

    ``slope`` is, per hop, the slope ``d eps'/d eps`` of the misalignment map at aligned inputs and
    the predicted lengths, ``sigma_w^2 E[phi'^2] q_l / q_{l+1}`` (chi at a fixed length; for a
    scale-free activation without bias it is 1 - drop at any sigma_w). ``gradient_factor`` is, per
    hop, the expected ``|dE/dh^l|^2 / |dE/dh^{l+1}|^2``.

    ``bands[name] = (low, high)`` is to hold 90 % of random networks of the real widths at each
    layer of the curve ``name`` ("length", "eps", "eps_masks", "gradient"), 5 % being on either
    side; it is estimated from ``band_nets`` of them (see ``_band`` for how well it does). That of
    "eps" is the law itself, without any sampling, where the correlation of a pair is a Markov chain
    (two slopes without bias or dropout, up to the first layer under 16 units, see
    ``finite.bands``); ``eps_engine`` tells: "chain" or "ensemble", None without a band.
    ``representative`` is the layer of the median sigma_w, sigma_b and drop; the verdict quotes its
    depth scales. ``notes`` lists the approximations.
    """

    layers: tuple[int, ...]
    fields: tuple[MeanField, ...]
    length: np.ndarray
    eps: np.ndarray
    eps_masks: np.ndarray | None
    gradient: np.ndarray | None
    gradient_eps: np.ndarray | None
    survival: np.ndarray
    slope: np.ndarray
    gradient_factor: np.ndarray
    bands: dict[str, tuple[np.ndarray, np.ndarray]]
    band_nets: int
    eps_engine: str | None
    representative: MeanField | None
    notes: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """Number of layers of the chain."""
        return len(self.layers)

    @property
    def drop(self) -> float:
        """Largest probability dropped in the chain."""
        return max(float(field.drop) for field in self.fields)


def predict(
    measurement: Measurement, chain: Chain, *, band_nets: int = 64, seed: int = 0
) -> Theory:
    """Predict length, misalignment and gradient of a chain from its weights and its first layer.

    One ``MeanField`` per hop, from the estimated sigma_w and sigma_b and the drop of the measured
    mode; two inputs of one train-mode batch meet independent masks. The start is what was measured
    at the first pre-activation, so data and first layer need no model.

    The map is concave in eps and the pairs of a data set differ, so the mean over pairs is not the
    map of the mean: the curve averages two starts, one standard deviation of the pairs either side
    of their mean (exact to third order in the spread).

    Args:
        measurement: what was measured; row 0 is used.
        chain: the recognised chain, positions into ``measurement.layers``.
        band_nets: networks for the finite-width bands, none below 2; fewer are drawn for wide and
            deep chains so that the bands cost under about a second.
        seed: of the bands.

    Raises:
        InputError: when theory has no layer for an activation of the chain, or the measured start
            is not usable (zero or infinite length).

    Source: 1912.09132, section 2 (maps); 1611.01232 (depth scales).
    """
    hops, notes = _usable_hops(chain)
    fields = tuple(_field(hop) for hop in hops)
    layers = chain.layers[: len(hops) + 1]
    widths = chain.widths[: len(hops) + 1]
    q, start = _start(measurement, layers[0])
    curves = _follow(measurement, fields, layers[0], q, start)
    factor = curves.gradient_factor
    _check_alive(measurement, layers, curves.length, factor)
    gradient, gradient_eps = _gradients(
        measurement, chain, factor, curves.gradient_pair_factor, layers[-1]
    )
    bands, nets, engine = _bands(
        measurement, fields, widths, (q, start), curves.eps_masks, gradient, band_nets, seed
    )
    notes += (
        "the curves hold at infinite width for independent Gaussian weights" + _drawn(nets, engine),
    )
    keep = 1.0 - np.array([field.drop for field in fields])
    return Theory(
        layers=tuple(layers),
        fields=fields,
        length=curves.length,
        eps=curves.eps,
        eps_masks=curves.eps_masks,
        gradient=gradient,
        gradient_eps=gradient_eps,
        survival=curves.survival,
        slope=factor * keep * curves.length[:-1] / curves.length[1:],
        gradient_factor=factor,
        bands=bands,
        band_nets=nets,
        eps_engine=engine,
        representative=_median_layer(fields),
        notes=notes + tuple(chain.notes),
    )


def _start(measurement: Measurement, first: int) -> tuple[float, float]:
    """Return length and misalignment at the first layer, checked for use as a start."""
    q = float(measurement.length[0, first])
    start = float(measurement.eps[0, first])
    if not (math.isfinite(q) and q > 0 and math.isfinite(start)):
        raise InputError(
            f"layer {measurement.layers[first].name!r} starts the chain with length {q} and "
            f"misalignment {start}: expected a positive length and a finite misalignment"
        )
    return q, start


@dataclass(frozen=True)
class _Curves:
    """The curves that go forwards, and the factors of the one that goes back; see ``Theory``."""

    length: np.ndarray
    eps: np.ndarray
    eps_masks: np.ndarray | None
    survival: np.ndarray
    gradient_factor: np.ndarray
    gradient_pair_factor: np.ndarray


def _follow(
    measurement: Measurement, fields: Sequence[MeanField], first: int, q: float, start: float
) -> _Curves:
    """Follow pairs through the hops from what was measured at the first layer."""
    from depthscale.theory.meanfield import propagate

    spread = _spread(measurement, first, start)
    copies = _copies(measurement, first)
    # One pass for all starts: either side of the mean, the mean, a pair twice as similar, copies.
    starts = np.array([start - spread, start + spread, start, start / 2, copies or 0.0])
    # A predicted signal that overflows or dies out is refused by the caller, by layer.
    with np.errstate(all="ignore"):
        paths = propagate(fields, q, q, starts)
    low, high, middle, near, masks = np.moveaxis(np.asarray(paths.eps), -1, 0)
    return _Curves(
        length=np.asarray(paths.q1, dtype=float)[:, 2],
        eps=(low + high) / 2,
        eps_masks=None if copies is None else masks,
        survival=(middle - near) / (start / 2) if start > 0 else np.full(len(low), math.nan),
        gradient_factor=np.asarray(paths.gradient_factor, dtype=float)[:, 2],
        gradient_pair_factor=np.asarray(paths.gradient_pair_factor, dtype=float)[:, 2],
    )


def _usable_hops(chain: Chain) -> tuple[tuple[Hop, ...], tuple[str, ...]]:
    """Return the hops up to a last layer whose weights are all zero, which carries no signal."""
    hops = list(chain.hops)
    notes: tuple[str, ...] = ()
    while hops and hops[-1].sigma_w == 0.0:
        hops.pop()
        notes = ("the last layer starts with zero weights and is left out of the prediction",)
    if not hops:
        raise InputError("the chain has no hop with weights that are not all zero")
    return tuple(hops), notes


def _check_alive(
    measurement: Measurement, layers: Sequence[int], length: np.ndarray, factor: np.ndarray
) -> None:
    """Raise where the predicted signal or gradient vanishes or overflows within the chain."""
    alive = np.isfinite(length) & (length > 0)
    alive[:-1] &= np.isfinite(factor) & (factor > 0)
    if not alive.all():
        place = layers[int(np.argmin(alive))]
        raise InputError(
            "at infinite width the signal vanishes or overflows from layer "
            f"{measurement.layers[place].name!r} on, so there is no curve to draw"
        )


def _field(hop: Hop) -> MeanField:
    from depthscale.theory.activation import activation
    from depthscale.theory.meanfield import MeanField

    return MeanField(
        activation(hop.activation), sigma_w=hop.sigma_w, sigma_b=hop.sigma_b, drop=hop.drop
    )


def _spread(measurement: Measurement, first: int, start: float) -> float:
    """Return the standard deviation of eps over pairs, kept inside the range that eps has."""
    error = float(measurement.eps_error[0, first])
    deviation = error * math.sqrt(measurement.pairs) if math.isfinite(error) else 0.0
    return min(deviation, 0.9 * start, 2.0 - start)


def _copies(measurement: Measurement, first: int) -> float | None:
    """Return eps of one input under two masks at the first layer, None when nothing is dropped."""
    if measurement.eps_masks is None:
        return None
    value = float(measurement.eps_masks[0, first])
    return value if math.isfinite(value) else 0.0


def _gradients(
    measurement: Measurement, chain: Chain, factor: np.ndarray, pair_factor: np.ndarray, last: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the backward curves, normalised to what was measured at the last layer."""
    end = float(measurement.gradient[0, last])
    if chain.gradient_reason is not None or not (math.isfinite(end) and end > 0):
        return None, None
    with np.errstate(over="ignore"):
        norms = end * np.exp(_sum_from_end(np.log(factor)))
    end_eps = float(measurement.gradient_eps[0, last])
    if not math.isfinite(end_eps):
        return norms, None
    cosine_left = np.concatenate([np.cumprod((pair_factor / factor)[::-1])[::-1], [1.0]])
    return norms, end_eps + (1.0 - end_eps) * (1.0 - cosine_left)


def _sum_from_end(steps: np.ndarray) -> np.ndarray:
    return np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])


def _bands(
    measurement: Measurement,
    fields: Sequence[MeanField],
    widths: Sequence[int],
    start: tuple[float, float],
    masked: np.ndarray | None,
    gradient: np.ndarray | None,
    nets: int,
    seed: int,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int, str | None]:
    """Return the 90 % bands of random networks, pinned to the measured first layer.

    Beside them the number of networks drawn and the engine of the band of eps.
    """
    from depthscale.finite.bands import correlation_chain
    from depthscale.finite.pairs import sample_pairs

    if nets < 2 or min(widths) < 2:
        return {}, 0, None
    runs = 1 if masked is None else 2
    affordable = int(BAND_SECONDS * UNITS_PER_SECOND / (runs * sum(widths)))
    nets = min(nets, max(FEWEST_NETS, affordable))
    q, eps = start
    pairs = sample_pairs(fields, widths, q, q, eps, nets=nets, seed=seed, start="pinned")
    law = correlation_chain(fields, widths, eps)
    engine = "ensemble" if isinstance(law, Undefined) else "chain"
    bands = {"length": _band(pairs.length), "eps": _band(pairs.eps, most=2.0)}
    if not isinstance(law, Undefined):
        for side, exact in zip(
            bands["eps"], law.quantiles([0.05, 0.95], "eps").value.T, strict=True
        ):
            side[: exact.size] = exact
    if gradient is not None:
        low, high = _band(pairs.gradient)
        bands["gradient"] = (low * gradient[-1], high * gradient[-1])
    if masked is not None:
        copies = sample_pairs(
            fields, widths, q, q, float(masked[0]), nets=nets, seed=seed + 1, start="pinned"
        )
        bands["eps_masks"] = _band(copies.eps, most=2.0)
    return bands, nets, engine


def _band(values: np.ndarray, most: float = math.inf) -> tuple[np.ndarray, np.ndarray]:
    """Return the band at each layer that holds another such network with probability 90 %.

    From the mean ``m`` and standard deviation ``s`` of the logarithms of the n networks
    ``values [net, layer]``::

        exp(m -+ t s sqrt(1 + 1/n)),   t the 95 % quantile of Student's law, n - 1 degrees

    which is exact for log-normal values at any n. Lengths, misalignments and gradients are products
    of one random factor a layer, so they are close to that. The empirical 5 and 95 % quantiles of
    few networks are too close together: of new networks they hold 72 % (n = 8), 81 % (16) and 87 %
    (64). This band held 89 to 93 % on average over the layers, and 87 to 92 % at the worst layer,
    at n of 8, 16 and 64 for tanh, erf and ReLU chains of width 16 to 256 and depth 20 to 60 in
    all phases, with and without dropout. Too wide (93 %) where eps saturates near 1, which is then
    a normal and not a log-normal law with rare small values. A band of one layer: that a whole
    curve stays inside is less likely.

    Where a network has died (a zero has no logarithm) it falls back on the empirical quantiles.
    """
    from scipy.special import stdtrit

    low, high = np.full((2, values.shape[1]), math.nan)
    for layer in range(values.shape[1]):
        alive = values[~np.isnan(values[:, layer]), layer]
        if len(alive) < 2:
            continue
        if alive.min() <= 0.0 or not np.isfinite(alive).all():
            with np.errstate(invalid="ignore"):  # between infinities
                low[layer], high[layer] = np.quantile(alive, [0.05, 0.95])
            continue
        logs = np.log(alive)
        n = len(logs)
        half = stdtrit(n - 1, 0.95) * logs.std(ddof=1) * math.sqrt(1 + 1 / n)
        with np.errstate(over="ignore"):
            low[layer], high[layer] = np.exp(logs.mean() + np.array([-half, half]))
    return low, np.minimum(high, most)


def _drawn(nets: int, engine: str | None) -> str:
    if not nets:
        return ""
    exact = "; that of the misalignment is the law of its chain" if engine == "chain" else ""
    return (
        f"; the bands are to hold 90 % of random networks of these widths, layer by layer "
        f"(log-normal, from {nets} of them{exact})"
    )


def representative(chain: Chain) -> MeanField:
    """The layer of the median sigma_w, sigma_b and drop of a chain.

    Raises:
        InputError: when theory has no layer for an activation of the chain.
    """
    return _median_layer([_field(hop) for hop in _usable_hops(chain)[0]])


def _median_layer(fields: Sequence[MeanField]) -> MeanField:
    """Return the hop of the commonest activation with the medians of sigma_w, sigma_b and drop.

    The last hop, into the readout, often has a scale of its own and is left out where there are
    others.
    """
    inner = fields[:-1] or fields
    name = Counter(field.activation.name for field in inner).most_common(1)[0][0]
    alike = [field for field in inner if field.activation.name == name]
    return replace(
        alike[0],
        sigma_w=median(float(field.sigma_w) for field in alike),
        sigma_b=median(float(field.sigma_b) for field in alike),
        drop=median(float(field.drop) for field in alike),
    )

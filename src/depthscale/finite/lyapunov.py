r"""The largest Lyapunov exponent of random networks of finite width, and where it changes sign.

An infinitesimal difference ``delta`` of two signals obeys, given the layer below, the exact law of
Gaussian weights: with ``h = sqrt(q) z_1`` and, for a difference of unit size per unit,
``delta = c z_1 + sqrt(1 - c^2) z_2``, both normal in every unit,

    q' = sigma_w^2 mean phi(h)^2 + sigma_b^2      |delta'|^2 = sigma_w^2 mean (phi'(h) delta)^2
    c' = sigma_w^2 mean[phi(h) phi'(h) delta]/(sqrt(q') |delta'|)

for the variances of the next layer's units: three numbers a network, no weights, no rounding to an
aligned pair. The exponent is the mean of ``log |delta'|^2`` over layers and networks. Most of what
scatters there has a known mean of zero given the layer below, and is taken off without a bias:

    X = |delta'|^2/m - 1,  m = sigma_w^2 E[phi'^2 ((1 - c^2) + c^2 z^2)],    Y = q' - V(q),

the second times ``(d log chi/dq)/(1 - V')``, what a change of length does to all later layers. That
leaves fluctuations of order ``1/n`` where there were ones of order ``n^(-1/2)``. (Derived here.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.progress import progress_bar
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number, as_numbers, whole
from depthscale.theory.transition import absorbing_transition

_BLOCK = 64
"""Networks that share a stream of random numbers, and are followed together."""

_SETTLE = 30.0
"""Memories of the length that are left out at the start: it is at home to ``e^-30``."""

_TABLE = 600
"""Lengths at which the moments are tabulated: splines through them err by some 1e-9."""

_FARTHEST = 5.0
"""Times the critical weights of infinite width: up to there a boundary is looked for."""

_SPACING = 4.0
"""Errors of the first estimate of a boundary between the weights of the second."""


@dataclass(frozen=True)
class LyapunovExponent:
    """Exponents of ``log |delta|^2`` per layer; for settled lengths also those of ``log eps``.

    Attributes
    ----------
    sigma_w:
        The weights, shape (K,).
    value, error:
        Mean over networks and its standard error, shape (K,).
    covariance:
        Of the values, (K, K): all weights are measured with the same random numbers, so that their
        differences are known better than they are.
    gain:
        Variance of the plain mean of ``log |delta'|^2`` over that of this one, shape (K,).
    n, layers, nets:
        Width, layers that were averaged over, networks.
    """

    sigma_w: Array
    value: Array
    error: Array
    covariance: Array = field(repr=False)
    gain: Array = field(repr=False)
    n: int
    layers: int
    nets: int


@dataclass(frozen=True)
class MeasuredBoundary:
    """Where the exponent of networks of width ``n`` changes sign.

    Attributes
    ----------
    sigma_w, error:
        The place and its standard error.
    slope:
        ``d exponent/d sigma_w`` there.
    exponent:
        What it was found from.
    """

    n: int
    sigma_w: float
    error: float
    slope: float
    exponent: LyapunovExponent = field(repr=False)


def lyapunov_exponent(
    layer: MeanField,
    n: int,
    sigma_w: ArrayLike | None = None,
    *,
    layers: int = 1000,
    nets: int = 256,
    seed: int = 0,
    progress: bool | None = False,
) -> LyapunovExponent:
    """Measure the largest exponent of random networks of equal layers.

    Parameters
    ----------
    layer:
        Activation, bias, and weights where no others are given; without dropout and skip, with a
        length that settles.
    n:
        Units of every layer, at least 1.
    sigma_w:
        Other weights, shape (K,); all of them see the same random numbers.
    layers, nets:
        How many are averaged over. Only their product counts for the error, about
        ``3/(n sqrt(layers nets))``; layers before the length has settled come on top.
    seed:
        Network ``i`` of a seed is the same however many there are.
    progress:
        See ``progress_bar``.

    Raises
    ------
    InputError
        Numbers out of range; a layer with dropout or skip, scale-free, or without a length.

    Examples
    --------
    >>> found = lyapunov_exponent(MeanField("tanh", 1.4, 0.3), 64, layers=50, nets=64)
    >>> bool(abs(64 * found.value[0] + 1.5) < 1), bool(found.gain[0] > 5)
    (True, True)
    """
    if not isinstance(layer, MeanField):
        raise InputError(
            f"layer is {layer!r}; expected a MeanField, such as MeanField('tanh', 1.4, 0.3)"
        )
    width, count = whole("n", n, 1, "units"), whole("layers", layers, 1)
    number, start = whole("nets", nets, 2, "networks"), whole("seed", seed, 0)
    weights = as_numbers("sigma_w", layer.sigma_w if sigma_w is None else sigma_w).ravel()
    if not weights.size:
        raise InputError("sigma_w is empty; expected one or more weights")
    chains = [_Tangent.of(replace(layer, sigma_w=float(w))) for w in weights]
    settle = math.ceil(_SETTLE * max(chain.memory for chain in chains))
    blocks = -(-number // _BLOCK)
    parts = []
    with progress_bar("networks", blocks, shown=progress) as advance:
        for block in range(blocks):
            stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([start, block])))
            parts.append(_followed(chains, width, settle, count, stream))
            advance()
    growth, plain = (np.concatenate(both, axis=1)[:, :number] for both in zip(*parts, strict=True))
    covariance = np.atleast_2d(np.cov(growth)) / number
    variance = np.diag(covariance)
    return LyapunovExponent(
        sigma_w=weights,
        value=growth.mean(axis=1),
        error=np.sqrt(variance),
        covariance=covariance,
        gain=plain.var(axis=1, ddof=1) / number / variance,
        n=width,
        layers=count,
        nets=number,
    )


def measured_boundary(
    activation: Any,
    sigma_b: float,
    n: int,
    *,
    layers: int = 1000,
    nets: int = 256,
    seed: int = 0,
) -> MeasuredBoundary | Undefined:
    """Find the weights at which the exponent of networks of width ``n`` is 0.

    With the same random numbers at all weights the exponent is a smooth function of them: a root of
    it from an eighth of the networks, then a parabola through three weights around that from all.

    Parameters
    ----------
    activation, sigma_b:
        As for ``absorbing_transition``.
    n, layers, nets, seed:
        As for ``lyapunov_exponent``.

    Returns
    -------
    MeasuredBoundary
        ``Undefined`` where there is no transition; where no weights up to five times the critical
        ones of infinite width bring the exponent to 0, as in the narrowest layers, which have no
        chaotic phase; where lengths diverge or all slopes vanish before that.

    Raises
    ------
    InputError
        Numbers out of range.

    Examples
    --------
    >>> found = measured_boundary("tanh", 0.3, 64, layers=100, nets=64)
    >>> bool(abs(found.sigma_w - 1.447) < 0.005)
    True
    """
    n, nets = whole("n", n, 1, "units"), whole("nets", nets, 2, "networks")
    layers, seed = whole("layers", layers, 1), whole("seed", seed, 0)
    transition = absorbing_transition(activation, sigma_b=as_number("sigma_b", sigma_b))
    if isinstance(transition.gamma, Undefined):
        return transition.gamma
    layer, gamma = transition.network(), float(transition.gamma)
    how: dict[str, Any] = {"layers": layers, "seed": seed}

    def exponent(weights: ArrayLike, networks: int) -> LyapunovExponent:
        return lyapunov_exponent(layer, n, weights, nets=networks, **how)

    pilot = max(nets // 8, 16)
    critical = float(transition.sigma_w)
    root = _root(
        lambda w: float(exponent(w, pilot).value[0]),
        critical,
        -1.2 * float(transition.lam) / (gamma * n),
    )
    if isinstance(root, Undefined):
        return Undefined(f"at width {n}: {root.reason}")
    place = float(root)
    uncertain = _SPACING * float(exponent(place, pilot).error[0]) / gamma
    step = min(max(uncertain, 0.01 * place), 0.03 * place)
    try:
        found = exponent(place + step * np.array([-1.0, 0.0, 1.0]), nets)
    except InputError as why:
        return Undefined(f"at width {n} the exponent ends next to sigma_w = {place:.4g}: {why}")
    low, middle, high = found.value / gamma  # as shifts of weights
    slope, bend = (high - low) / 2, (high - 2 * middle + low) / 2
    # of middle + slope u + bend u^2
    u = -2 * middle / (slope + math.sqrt(max(slope**2 - 4 * bend * middle, 0.0)))
    share = np.array([u * (u - 1) / 2, 1 - u * u, u * (u + 1) / 2])
    rate = gamma * (slope + 2 * bend * u) / step
    error = math.sqrt(float(share @ found.covariance @ share)) / rate
    return MeasuredBoundary(found.n, float(place + step * u), float(error), float(rate), found)


def _root(exponent: Callable[[float], float], critical: float, shift: float) -> Quantity:
    """Where a smooth function of the weights is 0: beyond ``critical + shift``, or before.

    Weights go up by 10 % a step, or down where the exponent is positive at infinite width's own.
    """
    from scipy.optimize import brentq

    near, value = critical, exponent(critical)
    if value == 0:
        return critical
    tried = [(value, near)]
    far = critical + shift if 0.9 < (critical + shift) / critical < 1.1 else critical
    while True:
        far = far if far != near else near * (1.1 if value < 0 else 1 / 1.1)
        if not critical / _FARTHEST <= far <= critical * _FARTHEST:
            break
        try:
            there = exponent(far)
        except InputError as error:
            return Undefined(f"no change of sign up to sigma_w = {near:.4g}, and beyond: {error}")
        if there * value < 0:
            return float(brentq(exponent, *sorted((near, far)), xtol=1e-4 * critical))
        near = far
        tried.append((there, far))
    largest, place = max(tried) if value < 0 else min(tried)
    return Undefined(
        f"the exponent keeps its sign for all weights from {critical:.4g} to {near:.4g}; it comes"
        f" nearest to 0 at sigma_w = {place:.3g}, {largest:.3g} a layer"
    )


class _Tangent(NamedTuple):
    """One layer's law: the layer, splines in ``log q``, where it starts, how long it remembers."""

    layer: MeanField
    square: Callable[[Array], Array]  # E phi^2
    slope: Callable[[Array], Array]  # E phi'^2
    bend: Callable[[Array], Array]  # d E phi'^2/d log q
    low: float
    high: float
    q: float
    feedback: float
    memory: float

    @classmethod
    def of(cls, layer: MeanField) -> _Tangent:
        from scipy.interpolate import CubicSpline

        if layer.drop or layer.skip or layer.scale_free:
            raise InputError(
                f"a layer with drop = {layer.drop:g}, skip = {layer.skip:g}, scale-free"
                f" {layer.scale_free}: expected none of them; for scale-free networks the exponent"
                " of log eps is lam/n of stochastic_limit"
            )
        if isinstance(layer.q, Undefined):
            raise InputError(f"sigma_w = {layer.sigma_w:g}: {layer.q.reason}")
        q = float(layer.q)
        give = 1 - float(layer.length_slope(q))
        # units that are all at their largest, or all at 0
        low = max(layer.sigma_b**2, 1e-4 * q)
        logs = np.linspace(math.log(low) - 1e-6, math.log(1e3 * q), _TABLE)
        lengths = np.exp(logs)
        square = CubicSpline(logs, layer.kernel.second_moment(lengths))
        slope = CubicSpline(logs, layer.kernel.slope_moment(lengths))
        bend = slope.derivative()
        at = math.log(q)
        feedback = float(bend(at)) / (q * float(slope(at)) * give)
        ends = float(logs[0]), float(logs[-1])
        return cls(layer, square, slope, bend, *ends, q, feedback, 1 / give)


def _followed(
    chains: list[_Tangent], n: int, settle: int, layers: int, stream: np.random.Generator
) -> tuple[Array, Array]:
    """Mean growth a layer, with what has no mean taken off and plain, ``[chain, net]``."""
    growth, plain = np.zeros((2, len(chains), _BLOCK))
    lengths = [np.full(_BLOCK, chain.q) for chain in chains]
    cosines = [np.zeros(_BLOCK) for _ in chains]
    first, second = np.empty((2, _BLOCK, n))
    for step in range(settle + layers):
        stream.standard_normal(out=first)
        stream.standard_normal(out=second)
        for k, chain in enumerate(chains):
            lengths[k], cosines[k], grown, kept = _step(
                chain, lengths[k], cosines[k], first, second
            )
            if step >= settle:
                plain[k] += grown
                growth[k] += kept
    return growth / layers, plain / layers


def _step(
    chain: _Tangent, q: Array, c: Array, first: Array, second: Array
) -> tuple[Array, Array, Array, Array]:
    """Length and cosine one layer on, ``log |delta'|^2``, and that less ``X`` and ``Y``."""
    layer, n = chain.layer, first.shape[1]
    h = np.sqrt(q)[:, None] * first
    signal, slope = layer.activation(h), layer.activation.slope(h)
    gap = slope * (c[:, None] * first + np.sqrt((1 - c) * (1 + c))[:, None] * second)
    share = layer.sigma_w**2 / n
    after = share * np.einsum("ij,ij->i", signal, signal) + layer.sigma_b**2
    grown = share * np.einsum("ij,ij->i", gap, gap)
    if not np.all(grown > 0):
        raise InputError(
            f"a layer of {n} units of {layer.activation.name} had no slope in any of them: the"
            " difference is exactly 0 there and its exponent -inf; expected more units"
        )
    across = share * np.einsum("ij,ij->i", signal, gap) / np.sqrt(after * grown)
    log_q = np.clip(np.log(q), chain.low, chain.high)
    flat = layer.sigma_w**2 * chain.slope(log_q)
    mean = flat + 2 * c * c * layer.sigma_w**2 * chain.bend(log_q)
    length = layer.sigma_w**2 * chain.square(log_q) + layer.sigma_b**2
    log = np.log(grown)
    kept = log - (grown / mean - 1) - chain.feedback * (after - length)
    return after, np.clip(across, -1.0, 1.0), log, kept

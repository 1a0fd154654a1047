r"""What the constants of the alignment equation are made of, layer by layer; see ``diffusion``."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from depthscale.answers import InputError, Undefined
from depthscale.theory.functions.cusps import mean_squared_slopes, squared_slopes
from depthscale.theory.functions.singularity import Singularity
from depthscale.theory.gaussian import nodes
from depthscale.theory.linear import draws
from depthscale.theory.meanfield import CRITICAL, MeanField

NEAR = 0.1
"""Detuning and field up to which a layer counts as near its critical point."""

_SAMPLE = "sample the networks: depthscale.Ensemble"
_BUILD = "build the networks with their weights: depthscale.finite.explicit"


class Constants(NamedTuple):
    """What ``StochasticLimit`` holds, under the same names."""

    q: float
    curvature: float
    beta: float
    variance_parts: dict[str, float]
    lam_parts: dict[str, float]
    length_memory: float
    length_variance: float


def constants(layer: MeanField, near: float = NEAR) -> Constants:
    """The constants of a layer; ``InputError`` where the equation does not hold for it.

    ``near`` is how far from critical it may be: ``s^2`` and ``lam`` hold at any slope, the equation
    only near 1.
    """
    refuse(layer, near)
    settled = layer.settled
    assert not isinstance(settled, Undefined)
    (curvature, beta), kurtosis, q = bend_of(layer), _kurtosis(layer), float(settled[0])
    if layer.scale_free:
        return Constants(q, curvature, beta, *_scale_free_parts(layer, kurtosis), 0.0, 0.0)
    variance, lam, memory, scatter = _stable_parts(layer, kurtosis, q)
    return Constants(q, curvature, beta, variance, lam, memory, scatter)


# What is refused ----------------------------------------------------------------------------------


def refuse(layer: MeanField, near: float = NEAR) -> None:
    """``InputError`` where there is no alignment equation, with the reason and what works."""
    phi = layer.activation
    if layer.skip:
        raise InputError(
            f"skip = {layer.skip:g}: expected 0. Behind a residual branch units keep their identity"
            f" and this equation does not hold; {_SAMPLE}"
        )
    if phi.why_no_theory:
        raise InputError(f"{phi.why_no_theory}; {_SAMPLE}")
    steep = [c for c in phi.cusps if c.exponent <= 0.75]
    if steep:
        raise InputError(
            f"{phi.name} has a cusp |x - x0|^{steep[0].exponent:g}: E phi'^4 is infinite for"
            " exponents of 3/4 and less, so that single units decide about a whole layer and the"
            f" limit is no diffusion; {_SAMPLE}"
        )
    if layer.drop > 0:
        _refuse_noise(layer)
    if phi.scale_free and layer.sigma_b > 0:
        raise InputError(
            f"{phi.name} with sigma_b = {layer.sigma_b:g}: with a bias its length settles as slowly"
            " as its alignment, or never, and the two do not separate; take sigma_b = 0, or"
            f" {_SAMPLE}"
        )
    settled = layer.settled
    if isinstance(settled, Undefined):
        raise InputError(
            f"{phi.name} at sigma_w = {layer.sigma_w:g}, sigma_b = {layer.sigma_b:g}:"
            f" {settled.reason}. The equation needs a length that stays; take a critical_point with"
            f" sigma_b > 0, or {_SAMPLE}"
        )
    if not layer.scale_free and not abs(float(layer.length_slope(settled[0]))) < 1 - 1e-9:
        raise InputError(
            f"{phi.name}: the length map has slope {float(layer.length_slope(settled[0])):.6g} at"
            f" q = {settled[0]:g}, so that lengths do not return to it; {_SAMPLE}"
        )
    detuning, push = distance(layer)
    if abs(detuning) > near or push > near:
        phase = "ordered" if detuning < 0 else "chaotic"
        raise InputError(
            f"{phi.name} is far from critical: detuning t = {detuning:.4g} ({phase}), dropout field"
            f" h = {push:.4g}; expected both within {near:g}. Take sigma_w of critical_point, or"
            f" {_SAMPLE}"
        )


def _refuse_noise(layer: MeanField) -> None:
    noise = layer.noise
    if noise.kind == "layers":
        raise InputError(
            f"masks = {layer.masks!r}: a dropped layer does not average out over its units, and no"
            f" equation is stated; expected noise on units or weights, or {_SAMPLE}"
        )
    if noise.clean:
        raise InputError(
            f"masks = {layer.masks!r}: a masked and a clean input have two lengths, and no equation"
            f" is stated; expected noise on both inputs, or {_SAMPLE}"
        )
    if noise.kind == "weights" and noise.fieldless:
        raise InputError(
            f"masks = {layer.masks!r}: shared dropped weights change the law of every unit at any"
            f" width, and no equation is stated; expected noise on units, or {_BUILD}"
        )


def distance(layer: MeanField) -> tuple[float, float]:
    """Detuning and field; a detuning within rounding is none."""
    detuning = float(layer.chi) - 1
    return (0.0 if abs(detuning) <= CRITICAL else detuning), float(layer.dropout_field)


def bend_of(layer: MeanField) -> tuple[float, float]:
    """``A`` and ``beta``."""
    kind = layer.universality
    if kind.map_singularity == "linear":
        return 0.0, 1.0
    if kind.map_singularity == "logarithmic":
        raise InputError(
            f"{layer.activation.name} bends the map like eps^2 log(1/eps): no power of the width"
            f" takes the logarithm out; {_SAMPLE}"
        )
    return float(kind.amplitude), float(kind.kappa) - 1


# s^2 and lam --------------------------------------------------------------------------------------


def _kurtosis(layer: MeanField) -> float:
    """``E D^4/(E D^2)^2`` of what both inputs meet on a unit."""
    if layer.drop == 0 or layer.noise.kind == "weights":
        return 1.0
    law = draws(layer)
    return float(law.weight @ law.mean**4) / float(law.weight @ law.mean**2) ** 2


class _Moments(NamedTuple):
    """Gaussian moments of the activation and its slope at one length."""

    f2: float  # E phi^2
    f4: float  # E phi^4
    slope2: float  # E phi'^2
    slope4: float  # E phi'^4
    both: float  # E phi^2 phi'^2
    length_bend: float  # d^2 E phi^2/dq^2
    slope_rate: float  # d E phi'^2/dq
    slope_bend: float  # d^2 E phi'^2/dq^2


def _moments(layer: MeanField, q: float) -> _Moments:
    phi = layer.activation
    x, weight = nodes(q, replace(phi.shape, centres=(*phi.shape.centres, 0.0)))
    value, slope = phi.function(x) ** 2, phi.slope(x) ** 2
    z2 = x * x / q
    second, fourth = z2 - 1, (z2 - 6) * z2 + 3
    steep = [
        Singularity(c.place, 2 * c.exponent - 1, _flat(c, c.below), _flat(c, c.above))
        for c in phi.cusps
        if c.exponent < 1 and c.place != 0
    ]
    # float64 has no numbers next to a cusp off 0: the fourth power there is integrated exactly
    beside = float(weight @ (slope**2 - squared_slopes(steep, x)))
    slope4 = beside + float(mean_squared_slopes(steep, np.array(q)))
    return _Moments(
        float(weight @ value),
        float(weight @ value**2),
        float(layer.kernel.slope_moment(q)),
        slope4,
        float(weight @ (value * slope)),
        float(weight @ (value * fourth)) / (4 * q * q),
        float(weight @ (slope * second)) / (2 * q),
        float(weight @ (slope * fourth)) / (4 * q * q),
    )


def _flat(cusp: Singularity, coefficient: float) -> float:
    """Coefficient of the power whose squared slope is the fourth power of this one's slope."""
    return (cusp.exponent * coefficient) ** 2 / (2 * cusp.exponent - 1)


def _scale_free_parts(
    layer: MeanField, kurtosis: float
) -> tuple[dict[str, float], dict[str, float]]:
    """``s^2 = 4M`` and ``lam = -M`` by their terms."""
    below, above = (float(s) for s in np.abs(layer.activation(np.array([-1.0, 1.0]))))
    top = max(below, above)
    down, up = (below / top) ** 2, (above / top) ** 2
    spread = kurtosis * 2 * (up**2 + down**2) / (up + down) ** 2
    alone = 3 * spread - 1
    variance = {"slopes": alone, "slopes and length": 2 - 2 * spread, "length": alone}
    return variance, {"slopes": -alone / 2, "length": alone / 2, "stretch": -spread}


def _stable_parts(
    layer: MeanField, kurtosis: float, q: float
) -> tuple[dict[str, float], dict[str, float], float, float]:
    """The terms of ``s^2`` and ``lam``, the memory of the length and ``n Var q/q^2``."""
    m = _moments(layer, q)
    weight, cross = (layer.sigma_w**2 * d for d in (layer.moments.first, layer.moments.cross))
    chi, chi_q = cross * m.slope2, float(layer.length_slope(q))
    slopes = 3 * kurtosis * m.slope4 / m.slope2**2 - 1
    length = weight**2 * (kurtosis * m.f4 - m.f2**2)
    together = weight * (kurtosis * m.both / m.slope2 - m.f2)
    rate = m.slope_rate / m.slope2
    feedback = rate / (1 - chi_q)
    scatter = length / (1 - chi_q**2)
    variance = {
        "slopes": slopes,
        "slopes and length": 2 * feedback * together,
        "length": feedback**2 * length,
    }
    lam = {
        "slopes": -slopes / 2,
        "length": feedback * weight * m.length_bend * scatter / 2,
        "bend": (m.slope_bend / m.slope2 - rate**2) * scatter / 2,
        "stretch": 2 * rate * cross**2 * kurtosis * m.both / (chi - chi_q**2),
    }
    return variance, lam, 1 / (1 - chi_q), scatter / q**2

r"""A chain for any activation: the covariance of a pair, three numbers, by paths.

The covariance ``C`` of a layer decides the law of the next one (see ``theory/finite_width``, whose
coordinates these are). Its numbers here are the mean log length ``m`` about a stable one ``q``, the
difference ``U = sinh(d) cosh(z)`` of the two, ``d = log(q_1/q_2)/2``, and ``z = artanh rho``. In
units of ``q, q`` and the same ``z`` it is ``[[S, U], [U, T]] e^m``,

    S = 1 + eps U^2 c/2,   T = 1 + (2 - eps) U^2 c/2,   c = 1/cosh(d/2)^2,

all of them near 1 and 0 at any ``z``. One layer takes the three entries through the map's first and
second derivatives ``J, H`` at ``(q, q, z)``, which moments with Hermite polynomials give for kinked
activations too, and adds the mean of n independent units: ``S, T`` as gamma laws of the right
variances and covariance (by the cube of a normal), ``U/sqrt(S T)`` as a normal. From there

    sinh z' = sinh(z_0 + log(S/T)/2)/sqrt(1 - U^2/(S T))

is exact. Means are right to order 1/n, variances and the feedback of lengths to leading order.
``J, H`` and the scatter are tabulated along ``z`` as paths get there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from depthscale.answers import InputError, Undefined
from depthscale.finite.chain.paths import BLOCK, measure
from depthscale.finite.diffusion.equation import CORRELATION
from depthscale.finite.diffusion.law import SampleLaw
from depthscale.theory.arguments import PairState
from depthscale.theory.finite_width import hop_moments
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

_SPACING = 0.2
_FARTHEST = (-17.0, 300.0)
_ROUNDING = 2.0**-53
"""What is known of ``1 + rho`` near opposition."""

_LOOSE = 0.2
"""Relative variance of one layer's average above which its law is not near a gamma."""

_LENGTHS = 0.05
"""Relative variance of the lengths up to which second derivatives follow them."""


def why_not(layer: MeanField, q: float, widths: Sequence[int]) -> str:
    """Why this chain does not hold, in words; "" where it does."""
    if layer.activation.why_no_theory:
        return layer.activation.why_no_theory
    if layer.skip or layer.noise.kind not in ("units", "gaussian") or layer.noise.clean:
        return "units keep their identity or masks treat the two inputs differently"
    units = min(widths)
    if not _free(layer):
        settled = layer.q
        if isinstance(settled, Undefined):
            return f"the length does not settle ({settled.reason})"
        if abs(math.log(q / settled)) > 1e-3:
            return f"the length starts at {q:.6g}, away from {settled:.6g} where it settles"
        slope = float(layer.length_slope(settled))
        scatter = hop_moments(layer, PairState(q, q, 0.0))[0].scatter[0, 0]
        spread = scatter / units / max(1 - slope**2, 1e-9)
        if abs(slope) >= 1 or spread > _LENGTHS:
            return f"lengths are not stable enough (relative variance {spread:.2g} at this width)"
    for eps in (1.0, 1e-3, 0.0):
        if hop_moments(layer, PairState(q, q, eps))[0].scatter.max() > _LOOSE * units:
            return "so few units decide the average of a layer that its law is far from normal"
    return ""


def _free(layer: MeanField) -> bool:
    """Whether lengths have no influence at all."""
    return layer.activation.degree == 1 and layer.sigma_b == 0


class _Coefficients(NamedTuple):
    """``z_0``, log length, derivatives and scatter, each at every path; see ``_row``."""

    z0: Array
    length: Array
    ss: Array
    st: Array
    ts: Array
    tt: Array
    uu: Array
    s_ss: Array
    s_st: Array
    s_tt: Array
    s_uu: Array
    t_ss: Array
    t_st: Array
    t_tt: Array
    t_uu: Array
    u_su: Array
    u_tu: Array
    var_s: Array
    cov: Array
    var_t: Array
    var_u: Array


@dataclass
class _Table:
    """The coefficients of one layer along ``z``, tabulated where they are asked for."""

    layer: MeanField
    q: float
    rows: dict[int, list[float]] = field(default_factory=dict)
    spline: Any = None

    @property
    def free(self) -> bool:
        """Whether lengths, of each input by itself, have no influence at all."""
        return _free(self.layer)

    def __call__(self, z: Array) -> _Coefficients:
        from scipy.interpolate import CubicSpline

        if z.min() == z.max():  # as at the start: no need to fill the way to where it goes next
            return _Coefficients(*np.array(self._row(float(z[0])))[:, None])
        low, high = math.floor(z.min() / _SPACING) - 2, math.floor(z.max() / _SPACING) + 3
        if low not in self.rows or high not in self.rows:
            for k in range(min([low, *self.rows]), max([high, *self.rows]) + 1):
                if k not in self.rows:
                    self.rows[k] = self._row(k * _SPACING)
            places = sorted(self.rows)
            self.spline = CubicSpline(
                np.array(places) * _SPACING, np.array([self.rows[k] for k in places])
            )
        return _Coefficients(*self.spline(z).T)

    def _row(self, z: float) -> list[float]:
        eps = 2 * math.exp(-np.logaddexp(0.0, 2 * z))
        hop, after = hop_moments(self.layer, PairState(self.q, self.q, eps))
        j, h, scatter = hop
        return [
            (math.log(max(2 - after.eps, _ROUNDING)) - math.log(max(after.eps, 1e-300))) / 2,
            0.0 if self.free else math.log(after.q1 / self.q),
            *(j[0, 0], j[0, 2], j[2, 0], j[2, 2], j[1, 1]),
            *(h[0, 0, 0] / 2, h[0, 0, 2], h[0, 2, 2] / 2, h[0, 1, 1] / 2),
            *(h[2, 0, 0] / 2, h[2, 0, 2], h[2, 2, 2] / 2, h[2, 1, 1] / 2),
            *(h[1, 0, 1], h[1, 1, 2]),
            *(scatter[0, 0], scatter[0, 2], scatter[2, 2], scatter[1, 1]),
        ]


class _State(NamedTuple):
    """``m, U, z`` of every path."""

    m: Array
    u: Array
    z: Array


def covariance_paths(
    layer: MeanField,
    widths: Sequence[int],
    eps0: float,
    q0: float,
    *,
    paths: int,
    seed: int = 0,
    measured: bool = True,
) -> SampleLaw:
    """Paths of the covariance of a pair, read as its correlation at every layer.

    Parameters
    ----------
    layer:
        Every one of the L hops; noise on units or none, the same for both inputs.
    widths:
        Units of the L + 1 layers, at least 2.
    eps0, q0:
        Of the covariance of layer 0: misalignment in [0, 2], and both lengths.
    paths, seed, measured:
        As in ``chain_paths``.

    Raises
    ------
    InputError
        A network that this does not hold for, see ``why_not``.

    Source: derived here.
    """
    reason = why_not(layer, q0, widths)
    if reason:
        raise InputError(f"no chain for this network: {reason}; sample it with Ensemble")
    u = np.empty((len(widths), paths))
    line = _line(layer, q0, eps0, len(widths))
    if line is not None:
        u[:] = line[:, None]
    else:
        start = (math.log(2 - eps0) - math.log(eps0)) / 2 if 0 < eps0 < 2 else (1 - eps0) * 1e3
        table = _Table(layer, q0)
        for first in range(0, paths, BLOCK):
            block = _block(table, widths, start, measured, (seed, first // BLOCK))
            u[:, first : first + BLOCK] = block[:, : paths - first]
    return SampleLaw(
        np.arange(len(widths), dtype=float),
        CORRELATION,
        u,
        f"{paths} paths of the covariance of a pair, seed {seed}",
        explodes=False,
    )


def _line(layer: MeanField, q: float, eps0: float, count: int) -> Array | None:
    """``z`` of so many layers where two signals are one line and stay one; else None."""
    found, eps = [], eps0
    for _ in range(count):
        if eps not in (0.0, 2.0):
            return None
        found.append(math.inf if eps == 0 else -math.inf)
        eps = float(hop_moments(layer, PairState(q, q, eps))[1].eps)
    return np.array(found)


def _block(
    table: _Table, widths: Sequence[int], start: float, measured: bool, key: tuple[int, int]
) -> Array:
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, 0))))
    state = _State(np.zeros(BLOCK), np.zeros(BLOCK), np.full(BLOCK, start))
    found = np.empty((len(widths), BLOCK))
    for k, units in enumerate(widths):
        found[k] = measure(state.z, units, (*key, k + 1)) if measured else state.z
        if k + 1 < len(widths):
            state = _next(table, state, units, stream.standard_normal((3, BLOCK)))
    return found


def _next(table: _Table, state: _State, units: int, normal: Array) -> _State:
    """One layer of every path."""
    z = np.clip(state.z, *_FARTHEST)
    c = table(z)
    eps = 2 * np.exp(-np.logaddexp(0.0, 2 * z))
    d = state.u / np.cosh(z)
    bent = state.u**2 / (1 + np.sqrt(1 + d**2))
    scale = np.exp(state.m)
    s, t, u = scale * (1 + eps * bent) - 1, scale * (1 + (2 - eps) * bent) - 1, scale * state.u
    mean_s = 1 + c.ss * s + c.st * t + c.s_ss * s**2 + c.s_st * s * t + c.s_tt * t**2
    mean_t = 1 + c.ts * s + c.tt * t + c.t_ss * s**2 + c.t_st * s * t + c.t_tt * t**2
    mean_s = np.maximum(mean_s + c.s_uu * u**2, 0.05)
    mean_t = np.maximum(mean_t + c.t_uu * u**2, 0.05)
    mean_u = (c.uu + c.u_su * s + c.u_tu * t) * u
    var_s, var_t = np.maximum(c.var_s, 1e-30), np.maximum(c.var_t, 1e-30)
    tied = np.clip(c.cov / np.sqrt(var_s * var_t), -1.0, 1.0)
    other = tied * normal[0] + np.sqrt(1 - tied**2) * normal[1]
    s, t = mean_s * _gamma(var_s / units, normal[0]), mean_t * _gamma(var_t / units, other)
    lean = mean_u / np.sqrt(mean_s * mean_t) + np.sqrt(np.maximum(c.var_u, 0) / units) * normal[2]
    lean = np.clip(lean, -0.999, 0.999)
    after = np.arcsinh(np.sinh(c.z0 + np.log(s / t) / 2) / np.sqrt(1 - lean**2))
    beyond = np.where(c.z0 > _FARTHEST[1] - 50, state.z - z, 0.0)  # all is a shift there
    if table.free:
        return _State(np.zeros_like(z), np.zeros_like(z), after + beyond)
    turned = _log_cosh(after) - _log_cosh(c.z0)
    m = c.length + np.log(s * t) / 2 + np.log1p(-(lean**2)) / 2 + turned
    return _State(m, lean * np.sqrt(s * t) * np.exp(turned + c.length - m), after + beyond)


def _gamma(variance: Array, normal: Array) -> Array:
    """About a gamma law of mean 1 (Wilson and Hilferty, 1931)."""
    root = np.maximum(1 - variance / 9 + np.sqrt(variance) * normal / 3, 1e-3)
    return np.asarray(root**3)


def _log_cosh(z: Array) -> Array:
    return np.asarray(np.abs(z) + np.log1p(np.exp(-2 * np.abs(z))) - math.log(2))

r"""The exact recursion of a network whose layers drop at rates of their own.

One layer with field ``h`` takes the length ``q`` and the misalignment ``eps`` of a pair that meets
independent masks through

    q'   = (A + sigma_b^2)/(1 - h),                        A = sigma_w^2 E[phi(u)^2]
    eps' = h + (1 - h) sigma_w^2 G(q, eps)/(A + sigma_b^2),   G = E[(phi(u) - phi(v))^2]/2

with ``h = p A/(A + (1 - p) sigma_b^2)`` at the rate ``p`` (2605.21648, ``h = p (1 - sigma_b^2/q')``
with ``q'`` the length after the layer). Scale-free networks follow the ratio map: ``h = p`` and no
length. ``G = eps P`` with ``P`` a polynomial in ``log q`` and ``sqrt(eps)``, in which it is
analytic for smooth and for kinked activations, so that all derivatives come from one table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.polynomial import chebyshev

from depthscale.answers import InputError, Undefined
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

Kind = Literal["drop", "field"]

ROOT_NODES, NODES_OFF_ZERO = 26, 56
WIDEST = 100.0  # ratio of the lengths that one table spans
TINY = 1e-5  # root of the misalignment below which a kink's infinite derivative is cut off


@dataclass(frozen=True)
class Steps:
    """What many schedules do to pairs: ``L`` layers, ``N`` schedules, ``K`` starts.

    ``x, h, drop`` and ``q`` have shape (L, N), ``q`` before each layer; ``eps`` has (L + 1, N, K).
    """

    x: Array
    h: Array
    drop: Array
    q: Array
    eps: Array


@dataclass(frozen=True)
class Sensitivity:
    """Derivatives of one layer's map and of its slope, at the states of ``Steps``.

    ``eps_*`` and ``slope*`` have shape (L, N, K): those of ``eps'`` by ``h``, ``eps`` (the slope)
    and ``q``, and of ``log slope`` by ``eps`` and ``q``; the others have (L, N).
    """

    eps_h: Array
    slope: Array
    eps_q: Array
    log_slope_eps: Array
    log_slope_q: Array
    q_h: Array
    q_q: Array
    h_x: Array
    h_q: Array


class Recursion:
    """The map of one network, tabulated once for all schedules of at most ``cap`` a site.

    Parameters
    ----------
    network:
        Independent masks, no residual branch; its own ``drop`` is not used. Smooth or kinked.
    depth:
        Number of sites, from 1.
    cap:
        Largest rate (or field) of a site, in [0, 1).
    kind:
        What the numbers of a schedule are: rates ``"drop"`` or fields ``"field"``.
    q0:
        Length of the inputs; by default what the network without dropout settles at.

    Raises
    ------
    InputError
        Other masks, a cusp or a jump, or lengths that do not settle or vary by more than 100 times.
    """

    def __init__(
        self,
        network: MeanField,
        depth: int,
        cap: float,
        kind: Kind = "drop",
        q0: float | None = None,
    ) -> None:
        if network.masks != "independent" or network.skip:
            raise InputError(
                f"masks are {network.masks!r}, skip is {network.skip:g}; a schedule is followed"
                " with independent masks and without a residual branch"
            )
        if network.activation.cusps:
            raise InputError(
                f"{network.activation.name} has a cusp; expected a smooth or kinked activation"
            )
        self.network, self.depth, self.kind = replace(network, drop=0.0), depth, kind
        self.weight, self.bias = network.sigma_w**2, network.sigma_b**2
        self.free = network.scale_free
        kinked_off_zero = bool(network.activation.kinks) and not network.activation.scale_free
        self.root_nodes = NODES_OFF_ZERO if kinked_off_zero else ROOT_NODES
        self.q0 = 1.0 if self.free else self._start(q0)
        self.low, self.high = self._range(cap)
        span = float(np.log(self.high / self.low))
        self.length_nodes = 1 if self.free else 8 + int(np.ceil(6 * span))

    def _start(self, q0: float | None) -> float:
        q = self.network.q if q0 is None else q0
        if isinstance(q, Undefined):
            raise InputError(f"the network without dropout has no length: {q.reason}")
        if not q > 0:
            raise InputError(f"the length is {q!r}; expected a positive one (change sigma_w)")
        return float(q)

    def _range(self, cap: float) -> tuple[float, float]:
        """Lengths between those without dropout and those with ``cap`` everywhere."""
        low = high = least = most = self.q0
        if not self.free:
            for _ in range(self.depth):
                low, high = float(self.network.length_map(low)), float(self._worst(high, cap))
                if least == min(least, low, high) and most == max(most, low, high):
                    break  # settled
                least, most = min(least, low, high), max(most, low, high)
                if not most < WIDEST * least:
                    raise InputError(
                        f"lengths would run from {least:.3g} to {most:.3g} within the cap {cap:g};"
                        " expected a network whose length dropout changes less, or a smaller cap"
                    )
        return least / 1.05, most * 1.05

    def _worst(self, q: float, cap: float) -> Array:
        """Next length with ``cap`` of what is counted."""
        if self.kind == "field":
            return self.network.length_map(q) / (1 - cap)
        return replace(self.network, drop=cap).length_map(q)

    # Tables --------------------------------------------------------------------------------------

    @cached_property
    def _tables(self) -> tuple[list[Array], list[Array]]:
        """Coefficients of ``P, P_s, P_ss, P_y, P_sy`` and of ``log V, M`` with derivatives by y."""
        s = (chebyshev.chebpts1(self.root_nodes) + 1) / 2
        y = chebyshev.chebpts1(self.length_nodes)
        q = np.exp(self._log_length(y))
        kernel = self.network.kernel
        p = kernel.gap(q[:, None], s**2) / s**2
        to_y = np.linalg.inv(chebyshev.chebvander(y, y.size - 1))
        to_s = np.linalg.inv(chebyshev.chebvander(2 * s - 1, s.size - 1))
        c: Array = np.asarray(to_y @ p @ to_s.T)
        by_s: Array = np.asarray(chebyshev.chebder(c, axis=1, scl=2), dtype=float)
        tables = [c, _pad(by_s, c), _pad(chebyshev.chebder(by_s, axis=1, scl=2), c)]
        tables += [_pad(chebyshev.chebder(t), c) if y.size > 1 else 0 * c for t in tables[:2]]
        moments = [to_y @ kernel.second_moment(q), to_y @ kernel.slope_moment(q)]
        moments += [
            _pad(np.asarray(chebyshev.chebder(m), dtype=float), m) if y.size > 1 else 0 * m
            for m in moments
        ]
        return tables, moments

    def _log_length(self, y: Array) -> Array:
        low, high = np.log(self.low), np.log(self.high)
        return np.asarray((low + high) / 2 + (high - low) / 2 * y)

    def _moments(self, q: Array) -> tuple[Array, list[Array]]:
        """Basis in the length at ``q``, and ``V, M, V_q, M_q``."""
        low, high = np.log(self.low), np.log(self.high)
        if self.free:
            basis, scale = np.ones((*q.shape, 1)), np.zeros(())
        else:
            y = (2 * np.log(q) - low - high) / (high - low)
            if not np.all(abs(y) <= 1):
                raise InputError("a length leaves its range; expected rates within the cap")
            basis, scale = _basis(y, self.length_nodes), 2 / (high - low) / q
        v, m, v_y, m_y = (basis @ t for t in self._tables[1])
        return basis, [v, m, v_y * scale, m_y * scale]

    # Paths ---------------------------------------------------------------------------------------

    def follow(self, x: Array, starts: tuple[float, ...]) -> Steps:
        """Follow pairs of misalignment ``starts`` through schedules ``x`` of shape (N, L)."""
        count, depth = x.shape
        q = np.full(count, self.q0)
        eps = np.broadcast_to(np.array(starts), (count, len(starts)))
        lengths, gaps = np.empty((depth, count)), np.empty((depth + 1, count, len(starts)))
        fields, table = np.empty((depth, count)), self._tables[0][0]
        gaps[0], by_layer = eps, np.ascontiguousarray(x.T)
        if self.free:  # one row of coefficients, relative to V
            row = table[0] / float(self._moments(q)[1][0][0])
        for layer in range(depth):
            h = by_layer[layer]
            lengths[layer] = q
            if self.free:
                p = _series(row, 2 * np.sqrt(eps) - 1)
            else:
                basis, moments = self._moments(q)
                a = self.weight * moments[0]
                if self.kind == "drop":
                    h = h * a / (a + (1 - h) * self.bias)
                total = a + self.bias
                shape = _series((table.T @ basis.T)[..., None], 2 * np.sqrt(eps) - 1)
                p = shape * (self.weight / total)[:, None]
                q = total / (1 - h)
            fields[layer] = h
            eps = np.minimum(h[:, None] + (1 - h)[:, None] * eps * p, 1.0)
            gaps[layer + 1] = eps
        drop = fields
        if not self.free and self.kind == "field":
            a = self.weight * self._moments(lengths)[1][0]
            drop = fields * (a + self.bias) / (a + fields * self.bias)
        elif not self.free:
            drop = by_layer
        return Steps(by_layer, fields, drop, lengths, gaps)

    def factors(self, steps: Steps) -> tuple[Array, Array, Array]:
        """``log(sigma_w^2 E[phi'^2]/rho)`` of each layer and its derivatives by ``h`` and ``q``."""
        v, m, v_q, m_q = (np.empty_like(steps.q) for _ in range(4))
        for part in _parts(steps.q.shape):
            v[part], m[part], v_q[part], m_q[part] = self._moments(steps.q[part])[1]
        h = steps.h
        if self.free:
            return np.log(self.weight * m) - np.log1p(-h), 1 / (1 - h), 0 * h
        a, a_q = self.weight * v, self.weight * v_q
        signal = a + h * self.bias
        log = np.log(self.weight * m) + np.log(signal / a) - np.log1p(-h)
        return log, self.bias / signal + 1 / (1 - h), m_q / m + a_q / signal - a_q / a

    def slopes(self, steps: Steps) -> Array:
        """``d eps'/d eps`` of each layer, shape (L, N, K)."""
        slopes = np.empty(steps.eps[:-1].shape)
        for part in _parts(slopes.shape):
            basis, moments = self._moments(steps.q[part])
            s = np.sqrt(steps.eps[:-1][part])
            p, p_s = self._evaluate(basis, s, (0, 1))
            slopes[part] = self._rate(steps.h[part], moments[0])[..., None] * (p + s * p_s / 2)
        return slopes

    def _rate(self, h: Array, v: Array) -> Array:
        """``(1 - h) sigma_w^2/(A + sigma_b^2)``."""
        total = v if self.free else v + self.bias / self.weight
        return np.asarray((1 - h) / total)

    def _evaluate(self, basis: Array, s: Array, which: tuple[int, ...]) -> list[Array]:
        tables, x = [self._tables[0][k] for k in which], 2 * s - 1
        if self.free:
            return [_series(t[0], x) for t in tables]
        return [_series(np.moveaxis(basis @ t, -1, 0)[..., None], x) for t in tables]

    def sensitivity(self, steps: Steps) -> Sensitivity:
        """Derivatives of every layer's map where the paths went."""
        basis, (v, _, v_q, _) = self._moments(steps.q)
        eps = steps.eps[:-1]
        s, h = np.maximum(np.sqrt(eps), TINY), steps.h[..., None]
        p, p_s, p_ss, p_y, p_sy = self._evaluate(basis, s, (0, 1, 2, 3, 4))
        rate = self._rate(steps.h, v)[..., None]
        tangent = p + s * p_s / 2
        bend = (1.5 * p_s + s * p_ss / 2) / (2 * s)
        u, slope = rate * eps * p / (1 - h), rate * tangent
        if self.free:
            zero, none = 0 * slope, 0 * steps.h
            one = none + 1
            return Sensitivity(1 - u, slope, zero, bend / tangent, zero, none, none, one, none)
        a, a_q = self.weight * v, self.weight * v_q
        total = a + self.bias
        log_q = 2 / (np.log(self.high) - np.log(self.low)) / steps.q
        shrink = (a_q / total)[..., None]
        eps_q = rate * eps * (p_y * log_q[..., None] - p * shrink)
        log_slope_q = (p_y + s * p_sy / 2) * log_q[..., None] / tangent - shrink
        h_x, h_q = np.ones_like(steps.h), np.zeros_like(steps.h)
        if self.kind == "drop":
            under = a + (1 - steps.x) * self.bias
            h_x = a * total / under**2
            h_q = steps.x * (1 - steps.x) * self.bias / under**2 * a_q
        q_h, q_q = total / (1 - steps.h) ** 2, a_q / (1 - steps.h)
        return Sensitivity(1 - u, slope, eps_q, bend / tangent, log_slope_q, q_h, q_q, h_x, h_q)

    def adjoint(self, on: Sensitivity, d_x: Array, d_h: Array, d_q: Array, d_eps: Array) -> Array:
        """Gradient by ``x``, shape (N, L), from the partial derivatives of a function of a path.

        ``d_x, d_h, d_q`` have shape (L, N), ``d_eps`` has (L + 1, N, K).
        """
        gradient = np.empty_like(d_h)
        eps, q = d_eps[-1], np.zeros(d_h.shape[1])
        for layer in range(len(d_h) - 1, -1, -1):
            by_h = d_h[layer] + (eps * on.eps_h[layer]).sum(axis=-1)
            if not self.free:
                by_h = by_h + q * on.q_h[layer]
                q = d_q[layer] + (eps * on.eps_q[layer]).sum(axis=-1) + q * on.q_q[layer]
                q = q + by_h * on.h_q[layer]
            eps = d_eps[layer] + eps * on.slope[layer]
            gradient[layer] = by_h * on.h_x[layer]
        return np.asarray((gradient + d_x).T)


def _pad(c: Any, like: Array) -> Array:
    """Coefficients of a derivative, filled up with zeros to the shape they came from."""
    return np.pad(c, [(0, n - m) for m, n in zip(c.shape, like.shape, strict=True)])


def _parts(shape: tuple[int, ...]) -> list[slice]:
    """Slices of the first axis with some 20,000 numbers each: tables of all would be large."""
    size = max(1, 20_000 * shape[0] // max(int(np.prod(shape)), 1))
    return [slice(k, k + size) for k in range(0, shape[0], size)]


def _basis(x: Array, count: int) -> Array:
    """Chebyshev polynomials 0 to ``count - 1`` in a last axis; the cosine is fast for few x."""
    if x.size < 100:
        angle = np.arccos(np.clip(x, -1.0, 1.0))
        return np.asarray(np.cos(angle[..., None] * np.arange(count)))
    return np.asarray(chebyshev.chebvander(x, count - 1))


def _series(c: Array, x: Array) -> Array:
    """``sum_k c_k T_k(x)`` with ``c`` of shape (K,) or (K, *what broadcasts with x)."""
    if x.size < 100:
        terms = _basis(x, len(c))
        if c.ndim == 1:
            return np.asarray(terms @ c)
        return np.asarray((c * terms.transpose(-1, *range(x.ndim))).sum(0))
    twice, last, before = 2 * x, np.zeros(x.shape), np.zeros(x.shape)
    for k in range(len(c) - 1, 0, -1):  # Clenshaw's recursion
        following = twice * last
        following -= before
        following += c[k]
        before, last = last, following
    last *= x
    last -= before
    last += c[0]
    return last

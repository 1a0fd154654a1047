r"""The exact recursion of a network whose layers drop at rates of their own.

One layer with field ``h`` takes the length ``q`` and the misalignment ``eps`` of a pair that meets
independent masks through

    q'   = clean/(1 - h)
    eps' = h + (1 - h) (skip^2 q eps + sigma_w^2 G(q, eps))/clean,  G = E[(phi(u) - phi(v))^2]/2

with ``h = p noisy/(noisy + (1 - p)(clean - noisy))`` at the rate ``p`` (see ``layers``; without a
residual branch 2605.21648's ``h = p (1 - sigma_b^2/q')`` with ``q'`` the length after the layer).
Scale-free networks follow the ratio map: ``q`` stays 1.

Few schedules of many layers are not followed layer by layer: all layers are solved for at once by
Newton's method, a handful of evaluations of whole arrays with a bidiagonal system after each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from depthscale.practice.schedules.layers import Kind, Layers, Network
from depthscale.practice.schedules.tables import Table, summed
from depthscale.theory.gaussian import Array

__all__ = ["Kind", "Recursion", "Sensitivity", "Steps", "scan"]

Map = Callable[[Array], tuple[Array, Array]]
"""States before layers to those after, and the slopes."""

TINY = 1e-5  # root of the misalignment below which a kink's infinite derivative is cut off
CLOSED = 1e-13  # relative difference of two paths that counts as none
AT_ONCE = 64  # schedules that are solved for all layers at once, from as many layers on
NEWTON, LAST = 60, 1e-9  # iterations, and the relative step whose square is below rounding
ROUGH = 1e-7  # of the terms that an approximate table leaves out


@dataclass(frozen=True)
class Steps:
    """What many schedules do to pairs: ``D`` layers, ``N`` schedules, ``K`` starts.

    ``x, h, drop`` and ``q`` have shape (D, N), ``q`` before each layer; ``eps`` has (D + 1, N, K).
    """

    x: Array
    h: Array
    drop: Array
    q: Array
    eps: Array


@dataclass(frozen=True)
class Sensitivity:
    """Derivatives of one layer's map and of its slope, at the states of ``Steps``.

    ``eps_*`` and ``slope*`` have shape (D, N, K): those of ``eps'`` by ``h``, ``eps`` (the slope)
    and ``q``, and of ``log slope`` by ``eps`` and ``q``; the others have (D, N).
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


@dataclass(frozen=True)
class Scales:
    """``clean`` and ``noisy`` of layers at lengths of shape (D, N), and derivatives by them."""

    q: Array
    clean: Array
    noisy: Array
    clean_q: Array
    noisy_q: Array
    slope_moment: Array
    slope_moment_q: Array

    @property
    def rest(self) -> Array:
        """What dropout leaves alone."""
        return self.clean - self.noisy

    def field(self, x: Array) -> Array:
        """``h`` at rates ``x``."""
        return np.asarray(x * self.noisy / (self.noisy + (1 - x) * self.rest))

    def field_slopes(self, x: Array) -> tuple[Array, Array]:
        """Derivatives of ``h`` by the rate and by ``q``."""
        under = self.noisy + (1 - x) * self.rest
        rest_q = self.clean_q - self.noisy_q
        bend = self.noisy_q * self.rest - self.noisy * rest_q
        return self.noisy * self.clean / under**2, x * (1 - x) * bend / under**2

    def rate(self, h: Array) -> Array:
        """The rate ``p`` that makes the field ``h``."""
        return np.asarray(h * self.clean / (self.noisy + h * self.rest))


class Recursion:
    """The map of a network's layers, tabulated once for all schedules of at most ``cap`` a site.

    Parameters
    ----------
    network:
        One ``MeanField`` for all layers, or one for each, of the same smooth or kinked activation;
        masks ``"independent"``, or ``"layers"`` where whole branches are dropped. Their own
        ``drop`` is not used.
    depth:
        Number of sites, from 1.
    cap:
        Largest rate (or field) of a site, in [0, 1).
    kind:
        What the numbers of a schedule are: rates ``"drop"`` or fields ``"field"``.
    q0:
        Length of the inputs; by default what the first layer settles at without dropout.
    sites:
        Layers that have a site, counted from 0; by default each.

    Raises
    ------
    InputError
        Other masks, a cusp or a jump, or lengths that do not settle or vary by more than 100 times.

    Examples
    --------
    >>> from depthscale.theory.meanfield import MeanField
    >>> layers = [MeanField("tanh", sigma_w=w, sigma_b=0.3) for w in (1.2, 1.5, 1.3)]
    >>> Recursion(layers, 2, 0.5, sites=[0, 2]).follow([[0.1, 0.2]], (0.0,)).eps[:, 0, 0].round(4)
    array([0.    , 0.0811, 0.0846, 0.2363])
    """

    def __init__(
        self,
        network: Network,
        depth: int,
        cap: float,
        kind: Kind = "drop",
        q0: float | None = None,
        sites: Sequence[int] | None = None,
    ) -> None:
        self.layers, self.depth, self.kind = Layers.of(network, depth, sites), depth, kind
        self.network, self.free = self.layers.networks[0], self.layers.free
        self.q0 = self.layers.start(q0)
        self.table = Table.of(self.network.activation, *self.layers.range(self.q0, cap, kind))
        self._uniform: Array | None = None

    def rough(self) -> Recursion:
        """The same with a shorter table, to some seven digits, to compare many schedules."""
        other = copy.copy(self)
        other.table = self.table.cut(ROUGH)
        return other

    # One layer, or all of them at given lengths --------------------------------------------------

    def scales(self, q: Array, layer: int | slice = slice(None)) -> Scales:
        """Lengths that layers turn ``q`` into; shape (D, N), or (N,) for a single layer."""
        on = self.layers
        weight, bias, skip, path = (a[layer] for a in (on.weight, on.bias, on.skip, on.path))
        v, m, v_q, m_q = self.table.moments_at(q)
        noisy, noisy_q = weight * v + path * bias, weight * v_q
        clean, clean_q = skip * q + weight * v + bias, noisy_q + (0 if self.free else skip)
        return Scales(q, clean, noisy, clean_q, noisy_q, weight * m, weight * m_q)

    # Paths ---------------------------------------------------------------------------------------

    def follow(self, x: Sequence[Sequence[float]] | Array, starts: tuple[float, ...]) -> Steps:
        """Follow pairs of misalignment ``starts`` through schedules ``x`` of shape (N, L)."""
        rows = self.layers.scattered(np.asarray(x, dtype=float))
        if len(rows) >= AT_ONCE >= rows.shape[1]:
            steps = self._solve(rows, starts)
            if steps is not None:
                return steps
        return self._march(rows, starts)

    def _march(self, x: Array, starts: tuple[float, ...]) -> Steps:
        """Layer by layer; paths that have met are followed as one."""
        depth, count = x.shape
        on, table = self.layers, self.table
        q, eps = np.full(count, self.q0), np.tile(np.array(starts)[:, None], count)
        lengths, fields = np.empty(x.shape), np.empty(x.shape)
        gaps = np.empty((depth + 1, len(starts), count))
        gaps[0], one_length = eps, len(table.moments) == 1
        c, v = table.series["gap"], table.moments[:, 0]
        polynomials = np.ones((1, count))
        for layer in range(depth):
            lengths[layer] = q
            if not one_length:
                polynomials = table.basis(q)
            a = on.weight[layer] * (v @ polynomials)
            noisy, kept = a + on.path[layer] * on.bias[layer], on.skip[layer] * q
            clean, h = kept + a + on.bias[layer], x[layer]
            if self.kind == "drop":
                h = h * noisy / (noisy + (1 - h) * (clean - noisy))
            shape = summed(c[0] if one_length else c.T @ polynomials, 2 * np.sqrt(eps) - 1)
            shape *= on.weight[layer]
            shape += kept
            eps = np.minimum(h + (1 - h) / clean * eps * shape, 1.0)
            fields[layer], gaps[layer + 1] = h, eps
            if not self.free:
                q = clean / (1 - h)
            if len(eps) > 1 and layer % 8 == 7 and np.all(abs(eps - eps[0]) <= CLOSED * eps[0]):
                eps = eps[:1]
        return self._steps(x, fields, lengths, np.moveaxis(gaps, 1, 2))

    def _steps(self, x: Array, h: Array, q: Array, eps: Array) -> Steps:
        drop = x if self.kind == "drop" else self.scales(q).rate(h)
        return Steps(x, h, drop, q, eps)

    def _solve(self, x: Array, starts: tuple[float, ...]) -> Steps | None:
        """All layers at once; None where Newton's method does not settle."""
        q = self._lengths(x)
        if q is None:
            return None
        on = self.scales(q)
        h = on.field(x) if self.kind == "drop" else x
        weight, kept = self.layers.weight, self.layers.skip * q
        rate = (1 - h) / on.clean

        def layer(eps: Array) -> tuple[Array, Array]:
            p, tangent = (
                weight * a + kept for a in self.table.at(("gap", "tangent"), q, np.sqrt(eps))
            )
            return np.minimum(h + rate * eps * p, 1.0), rate * tangent

        paths: list[Array] = []
        for start in starts:
            begin = paths[0] if paths else self._guess(x, start)
            path = _newton(lambda e: _one(layer, e), start, begin, 0.0, 1.0)
            if path is None:
                return None
            paths.append(path)
        return self._steps(x, h, q, np.stack(paths, axis=-1))

    def _guess(self, x: Array, start: float) -> Array:
        """The misalignments of a uniform schedule, after the first site that drops anything."""
        if self._uniform is None:
            half = np.full((len(self.layers), 1), float(x.max()) / 2)
            self._uniform = self._march(half, (0.0,)).eps[:, 0]
        guess = np.repeat(self._uniform, x.shape[1], axis=1)
        if start == 0:
            guess[1:][np.logical_and.accumulate(x == 0, axis=0)] = 0
        return guess

    def _lengths(self, x: Array) -> Array | None:
        q = np.full((len(x) + 1, x.shape[1]), self.q0)
        if self.free:
            return q[:-1]

        def layer(q: Array) -> tuple[Array, Array]:
            on = self.scales(q)
            h = on.field(x) if self.kind == "drop" else x
            slope = on.clean_q / (1 - h)
            if self.kind == "drop":
                slope += on.clean / (1 - h) ** 2 * on.field_slopes(x)[1]
            return on.clean / (1 - h), slope

        found = _newton(layer, self.q0, q, self.table.low, self.table.high)
        return None if found is None else found[:-1]

    # Slopes and factors --------------------------------------------------------------------------

    def slopes(self, steps: Steps, layers: slice = slice(None)) -> Array:
        """``d eps'/d eps`` of each layer (or of some in a row), shape (D, N, K)."""
        q, eps = steps.q[layers], np.moveaxis(steps.eps[:-1][layers], -1, 0)
        (tangent,) = self.table.at(("tangent",), q, np.sqrt(eps))
        on = self.layers
        kept = tangent * on.weight[layers] + on.skip[layers] * q
        rate = (1 - steps.h[layers]) / self.scales(q, layers).clean
        return np.moveaxis(rate * kept, 0, -1)

    def factors(self, steps: Steps) -> tuple[Array, Array, Array]:
        """``log(skip^2 + sigma_w^2 E[phi'^2]/rho)`` of each layer, derivatives by ``h`` and ``q``.

        ``1/rho = (noisy + h rest)/(noisy (1 - h))``.
        """
        on, h, skip = self.scales(steps.q), steps.h, self.layers.skip
        loud = on.noisy + h * on.rest
        branch = on.slope_moment * loud / (on.noisy * (1 - h))
        rest_q = on.clean_q - on.noisy_q
        by_h = on.rest / loud + 1 / (1 - h)
        by_q = on.slope_moment_q / on.slope_moment
        by_q = by_q + (on.noisy_q + h * rest_q) / loud - on.noisy_q / on.noisy
        share = branch / (skip + branch)
        return np.log(skip + branch), share * by_h, share * by_q

    # Derivatives ---------------------------------------------------------------------------------

    def sensitivity(self, steps: Steps) -> Sensitivity:
        """Derivatives of every layer's map where the paths went."""
        on, table, q = self.scales(steps.q), self.table, steps.q
        weight, skip = self.layers.weight, self.layers.skip
        eps = np.moveaxis(steps.eps[:-1], -1, 0)
        s, h = np.maximum(np.sqrt(eps), TINY), steps.h
        p, t, t_s = table.at(("gap", "tangent", "tangent_s"), q, s)
        p_y, t_y = (0.0, 0.0) if self.free else table.at(("gap_y", "tangent_y"), q, s)
        y_q = table.y_slope(q)
        gap, tangent = weight * p + skip * q, weight * t + skip * q
        gap_q, tangent_q = weight * p_y * y_q + skip, weight * t_y * y_q + skip
        shrink, rate = on.clean_q / on.clean, (1 - h) / on.clean
        flat = 0.0 if self.free else 1.0
        h_x, h_q = np.ones_like(h), np.zeros_like(h)
        if self.kind == "drop":
            h_x, h_q = on.field_slopes(steps.x)
        return Sensitivity(
            np.moveaxis(1 - eps * gap / on.clean, 0, -1),
            np.moveaxis(rate * tangent, 0, -1),
            np.moveaxis(flat * rate * eps * (gap_q - gap * shrink), 0, -1),
            np.moveaxis(weight * t_s / (2 * s) / tangent, 0, -1),
            np.moveaxis(flat * (tangent_q / tangent - shrink), 0, -1),
            flat * on.clean / (1 - h) ** 2,
            flat * on.clean_q / (1 - h),
            h_x,
            flat * h_q,
        )

    def adjoint(self, on: Sensitivity, d_x: Array, d_h: Array, d_q: Array, d_eps: Array) -> Array:
        """Gradient by ``x``, shape (N, L), from the partial derivatives of a function of a path.

        ``d_x, d_h, d_q`` have shape (D, N), ``d_eps`` has (D + 1, N, K).
        """
        after = scan(on.slope[:0:-1], d_eps[:-1][:0:-1], d_eps[-1])[::-1]
        by_h = d_h + (after * on.eps_h).sum(axis=-1)
        if not self.free:
            by_q = d_q + (after * on.eps_q).sum(axis=-1) + by_h * on.h_q
            through = on.q_q + on.q_h * on.h_q
            lengths = scan(through[:0:-1], by_q[:0:-1], np.zeros_like(d_h[0]))[::-1]
            by_h = by_h + lengths * on.q_h
        return self.layers.gathered(by_h * on.h_x + d_x)


def scan(factor: Array, source: Array, start: Array) -> Array:
    """``y_0 = start``, ``y_(k+1) = factor_k y_k + source_k`` along the first axis, (n + 1, ...)."""
    from scipy.linalg.lapack import dtbtrs

    rows = np.concatenate([start[None], source])
    right = np.ascontiguousarray(np.moveaxis(rows, 0, -1))
    band = np.zeros((right.size, 2))
    band[:, 0] = 1
    # the last entry of each run stays 0, so that runs do not meet
    band.reshape(*right.shape, 2)[..., :-1, 1] = -np.moveaxis(factor, 0, -1)
    solved, _ = dtbtrs(band.T, right.reshape(-1, 1), uplo="L", overwrite_b=True)
    return np.moveaxis(solved.reshape(right.shape), -1, 0)


def _one(layer: Map, eps: Array) -> tuple[Array, Array]:
    value, slope = layer(eps[None])
    return value[0], slope[0]


def _newton(
    layer: Callable[[Array], tuple[Array, Array]],
    start: float,
    guess: Array,
    low: float,
    high: float,
) -> Array | None:
    """States (D + 1, N) that ``layer`` maps onto one another, from ``start`` on; or None."""
    state = guess.copy()
    state[0] = start
    for _ in range(NEWTON):
        value, slope = layer(state[:-1])
        step = scan(slope, value - state[1:], np.zeros_like(state[0]))
        moved = np.clip(state + step, low, high)
        if not np.all(np.isfinite(moved)):
            return None
        size = abs(moved - state)
        state = moved
        if np.all(size <= LAST * state + 1e-300):
            return state
    return None

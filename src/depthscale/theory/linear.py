r"""Linear networks with dropout: exact moments of signals and gradients at any finite widths.

With the activation ``identity`` everything that a layer does to second moments of products is
linear, so averages over weights, biases and masks pass through it exactly, without any 1/n
expansion. One hop is ``h' = skip h + W x + b``, ``x = D h``, and the moments that close are

    T_ijkl = E[(h_i . h_j)(h_k . h_l)],    S_ijkl = E[sum_u h_iu h_ju h_ku h_lu]

forwards (inputs ``i, j, k, l`` out of 1, 2; units ``u``), and backwards, with ``J_a`` the Jacobian
of the output and ``P_a = J_a^T J_a``,

    t = E tr(P_a P_b),    u = E[tr P_a tr P_b].

They show what wide networks cannot: the loss ``|h^L|^2/2`` of a wide output sends back a gradient
that is correlated with the weights it passes through, an effect of leading order (1912.09132 takes
gradients as independent of them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depthscale.answers import InputError
from depthscale.theory.arguments import PairState, check_start, checked_pair, checked_widths
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

if TYPE_CHECKING:
    import xarray


class Draws(NamedTuple):
    """A law of the noise of a pair as a few outcomes: ``E[f(D_1, D_2)] = sum_k weight f``.

    Exact for masks; for Gaussian noise (a Gauss-Hermite rule) up to total degree 5. ``half`` is
    ``(D_1 - D_2)/2``, which is exactly 0 where the two inputs share their draw.
    """

    weight: Array
    mean: Array
    half: Array


def draws(layer: MeanField) -> Draws:
    """The noise that one hop puts on its units, outcome by outcome.

    Raises
    ------
    InputError
        For dropped weights or layers, which are no noise on units.

    Examples
    --------
    >>> law = draws(MeanField("tanh", 1.0, drop=0.5, masks="shared"))
    >>> float(law.weight @ law.mean**4)
    8.0
    """
    noise, drop = layer.noise, layer.drop
    if drop == 0:
        return Draws(np.ones(1), np.ones(1), np.zeros(1))
    if noise.kind == "gaussian":
        node, weight = np.array([-math.sqrt(3), 0.0, math.sqrt(3)]), np.array([1, 4, 1]) / 6
        first, other = (x.ravel() for x in np.meshgrid(node, node))
        lag, across = 1 - noise.overlap, math.sqrt(1 - noise.overlap**2)
        half = (lag * first - across * other) / 2
        size = math.sqrt(drop / (1 - drop))
        return Draws(np.outer(weight, weight).ravel(), 1 + size * (first - half), size * half)
    if noise.kind != "units":
        raise InputError(
            f"masks = {layer.masks!r}: expected noise on units (independent, shared, clean,"
            " overlap(R), gaussian[(R)]); dropped weights give every unit a mask of its own, and a"
            " dropped layer does not average out over its units"
        )
    keep = 1 - drop
    if noise.clean:
        kept = drop / keep / 2  # (1/keep - 1)/2
        return Draws(np.array([keep, drop]), np.array([1 + kept, 0.5]), np.array([kept, -0.5]))
    apart = 1 - noise.overlap
    both = keep * (1 - apart * drop)
    neither = drop * (1 - apart * keep)
    one = apart * keep * drop
    up = 1 / keep
    return Draws(
        np.array([both, one, one, neither]),
        np.array([up, up / 2, up / 2, 0.0]),
        np.array([0.0, up / 2, -up / 2, 0.0]),
    )


@dataclass(frozen=True)
class LinearMoments:
    """Exact means of a pair's products in a random linear network, layer by layer.

    Indices ``i, j, k, m`` are the inputs, 0 and 1; ``h^l``, l = 0..L, are pre-activations and
    ``x^l = D h^l``, l = 0..L-1, the masked signals of hop l.

    Attributes
    ----------
    widths:
        Units of ``h^0 .. h^L``.
    kernel:
        ``E[h_i . h_j]/n``, shape (L + 1, 2, 2).
    kernel_products, signal_products:
        ``E[(h_i . h_j)(h_k . h_m)]/n^2``, shape (L + 1, 2, 2, 2, 2), and the same of ``x``, with
        L for L + 1.
    gradient:
        ``E <dE_i/dW^l, dE_j/dW^l>`` for ``E_i = |h_i^L|^2/2``, the sum over all weights of a hop,
        shape (L, 2, 2).
    gradient_untied:
        The same where the gradient travels back through fresh, independent weights, with the masks
        of the forward pass: the independence assumption of 1912.09132, without its second
        assumption of large width.
    """

    widths: tuple[int, ...]
    kernel: Array
    kernel_products: Array
    signal_products: Array
    gradient: Array
    gradient_untied: Array

    @property
    def kernel_covariance(self) -> Array:
        """``Cov(h_i . h_j, h_k . h_m)/n^2``, shape (L + 1, 2, 2, 2, 2)."""
        means = np.einsum("lij,lkm->lijkm", self.kernel, self.kernel)
        return np.asarray(self.kernel_products - means)

    def to_xarray(self) -> xarray.Dataset:
        """The record with dimensions ``layer``, ``hop`` and ``input`` (``input_1`` to 4)."""
        import xarray

        pair, four = ("input_1", "input_2"), ("input_1", "input_2", "input_3", "input_4")
        about = {
            "kernel": (("layer", *pair), "mean of h_1 . h_2 per unit"),
            "kernel_products": (
                ("layer", *four),
                "mean of (h_1 . h_2)(h_3 . h_4) per unit squared",
            ),
            "signal_products": (("hop", *four), "mean of (x_1 . x_2)(x_3 . x_4) per unit squared"),
            "gradient": (("hop", *pair), "mean inner product of weight gradients of |h|^2/2"),
            "gradient_untied": (("hop", *pair), "the same through independent weights backwards"),
        }
        return xarray.Dataset(
            {
                name: (dims, getattr(self, name), {"long_name": text, "units": "1"})
                for name, (dims, text) in about.items()
            },
            coords={
                "layer": np.arange(len(self.widths)),
                "hop": np.arange(len(self.widths) - 1),
                "width": ("layer", list(self.widths)),
            },
        )


def linear_moments(
    layers: Sequence[MeanField],
    widths: Sequence[int],
    *,
    q1: float = 1.0,
    q2: float = 1.0,
    eps: float,
    start: str = "pinned",
) -> LinearMoments:
    r"""Exact second moments of the kernel and mean gradients of a linear network of any widths.

    Hop ``l`` is ``h' = skip h + W x + b``, ``x = D h``, ``W ~ N(0, sigma_w^2/n_l)``. Without skip
    and bias, with ``m_ab = E[D_a D_b]``, ``M = E[D_a^2 D_b^2]``, ``n = n_l``, ``n' = n_(l+1)``,

        E[(x_a . x_b)^2] = m_ab^2 (T - S) + M S            T, S of this pair
        T' = (sigma_w^2/n)^2 [n'(n'+1) E(x_a . x_b)^2 + n' E|x_a|^2 |x_b|^2]
        t = sigma_w^4 [(1 - 1/n) m_ab^2 t' + (M/n)(u' + 2 t')],        t_L = n_L
        u = sigma_w^4 [(1 - 1/n) m_aa m_bb u' + (M/n)(u' + 2 t')],     u_L = n_L^2
        E G_ab^l = (sigma_w^2/n_l) t_(l+1) E[(x_a^l . x_b^l)^2].

    Parameters
    ----------
    layers:
        L hops, all ``MeanField("identity", ...)`` with noise on units, if any: drop, masks,
        ``sigma_b`` and ``skip`` as they are. A network that takes raw inputs has a first hop with
        ``drop=0``.
    widths:
        L + 1 numbers of units; equal on both sides of a hop with a skip.
    q1, q2, eps:
        Lengths ``|h|^2/n > 0`` and ``1 - cos`` in [0, 2] of the pair at layer 0.
    start:
        ``"pinned"``: ``h^0`` has exactly this state, in a random direction (which matters only
        where the first hop has noise or a skip; any fixed vectors serve otherwise). ``"drawn"``:
        its units are Gaussian with this covariance, as behind a random layer.

    Raises
    ------
    InputError
        Another activation, noise on weights or layers, numbers out of range, or moments that leave
        float64.

    Source: 1912.09132, section on linear networks, extended to tied weights, finite and unequal
    widths, all masks, biases and skips (derived here; checked by enumeration).

    Examples
    --------
    >>> hops = [MeanField("identity", 0.9**0.5, drop=0.1 * (l > 0)) for l in range(12)]
    >>> moments = linear_moments(hops, [64] * 13, eps=0.4)
    >>> [f"{g:.8e}" for g in moments.gradient[[0, 6, 11], 0, 1]]
    ['6.99939287e+03', '2.62226443e+03', '4.76673713e+02']
    """
    sizes, pair = checked_widths(layers, widths), checked_pair(q1, q2, eps)
    check_start(start, pair, sizes[0])
    for layer in layers:
        if layer.activation.name != "identity":
            raise InputError(
                f"activation {layer.activation.name}: expected identity, exact moments of finite"
                " networks need linear ones; take finite_width for the first order in 1/n"
            )
    hops = [
        _Hop.of(layer, below, above)
        for layer, below, above in zip(layers, sizes[:-1], sizes[1:], strict=True)
    ]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        found = _moments(hops, _start(pair, sizes[0], start), sizes)
    for moment in (found.kernel_products, found.gradient, found.gradient_untied):
        if not np.all(np.isfinite(moment)):
            raise InputError(
                "the moments leave the range of float64: follow fewer layers, or weights that keep"
                " the length"
            )
    return found


def _moments(hops: Sequence[_Hop], start: _State, sizes: tuple[int, ...]) -> LinearMoments:
    states = [start]
    for hop in hops:
        states.append(hop.forward(states[-1]))
    signals = [hop.signal(state) for hop, state in zip(hops, states[:-1], strict=True)]
    inner = np.array(sizes, dtype=float)
    return LinearMoments(
        sizes,
        np.stack([state.gram for state in states]) / inner[:, None, None],
        np.stack([state.products for state in states]) / inner[:, None, None, None, None] ** 2,
        np.stack(signals) / inner[:-1, None, None, None, None] ** 2,
        _by_pair(_tied, hops, states),
        _by_pair(_untied, hops, states),
    )


class _State(NamedTuple):
    """``E[h_i . h_j]`` and the tensors T and S of the module."""

    gram: Array
    products: Array
    quartic: Array


def _start(pair: PairState, n: int, start: str) -> _State:
    q1, q2, eps = pair
    cross = math.sqrt(q1) * math.sqrt(q2) * (1 - eps)
    gram = n * np.array([[q1, cross], [cross, q2]])
    square = np.einsum("ij,km->ijkm", gram, gram)
    if start == "pinned":  # a unit sees a random direction: E[o_a o_b o_c o_d] ~ 1/(n (n + 2))
        return _State(gram, square, (square + _crossed(square)) / (n + 2))
    return _State(gram, square + _crossed(square) / n, (square + _crossed(square)) / n)


def _crossed(y: Array) -> Array:
    """``y_ik,jm + y_im,jk`` of a tensor ``y_ij,km``."""
    return np.asarray(np.einsum("ikjm->ijkm", y) + np.einsum("imjk->ijkm", y))


class _Hop(NamedTuple):
    """The numbers of one hop: squares of skip and sigmas, widths, moments of the noise."""

    skip: float
    weight: float
    bias: float
    below: int
    above: int
    pair: Array  # E[D_i D_j]
    quartic: Array  # E[D_i D_j D_k D_m]

    @classmethod
    def of(cls, layer: MeanField, below: int, above: int) -> _Hop:
        weight, mean, half = draws(layer)
        d = np.stack([mean + half, mean - half])
        return cls(
            layer.skip**2,
            layer.sigma_w**2,
            layer.sigma_b**2,
            below,
            above,
            np.einsum("z,iz,jz->ij", weight, d, d),
            np.einsum("z,iz,jz,kz,mz->ijkm", weight, d, d, d, d),
        )

    def signal(self, state: _State) -> Array:
        """``E[(x_i . x_j)(x_k . x_m)]``."""
        apart = np.einsum("ij,km->ijkm", self.pair, self.pair)
        return np.asarray(apart * (state.products - state.quartic) + self.quartic * state.quartic)

    def forward(self, state: _State) -> _State:
        """Given ``h`` and ``x`` a new unit is Gaussian with covariance K, mean ``skip h``."""
        n, scale = self.above, self.weight / self.below
        gram = self.pair * state.gram
        kept = np.broadcast_to(state.gram[:, :, None, None], (2, 2, 2, 2))
        noised = np.broadcast_to(gram[:, :, None, None], (2, 2, 2, 2))
        kk = scale**2 * self.signal(state) + self.bias**2
        kk = kk + scale * self.bias * (noised + noised.transpose(2, 3, 0, 1))
        hk = scale * self.pair * state.products + self.bias * kept
        both = hk + hk.transpose(2, 3, 0, 1)
        crossed = _crossed(both)
        return _State(
            self.skip * state.gram + n * (scale * gram + self.bias),
            self.skip**2 * state.products
            + self.skip * (n * both + crossed)
            + n * (n * kk + _crossed(kk)),
            self.skip**2 * state.quartic + self.skip * (both + crossed) + n * (kk + _crossed(kk)),
        )

    def backward(self, t: float, u: float, a: int, b: int) -> tuple[float, float]:
        """``E tr(P_a P_b)`` and ``E[tr P_a tr P_b]`` one layer below."""
        n, skip, weight = self.below, self.skip, self.weight
        single, cross = self.pair[a, a] + self.pair[b, b], self.pair[a, b]
        same = self.quartic[a, a, b, b] * (u + 2 * t) / n
        apart = 1 - 1 / n
        through = cross**2, self.pair[a, a] * self.pair[b, b]
        mixed = (
            single * u / n + 2 * cross * t * (1 + 1 / n),
            single * u + 4 * cross * t / n,
        )
        below_t = (
            skip**2 * t + skip * weight * mixed[0] + weight**2 * (apart * through[0] * t + same)
        )
        below_u = (
            skip**2 * u + skip * weight * mixed[1] + weight**2 * (apart * through[1] * u + same)
        )
        return float(below_t), float(below_u)

    def factor(self, a: int, b: int) -> float:
        """``E[B_a B_b^T]`` for the Jacobian ``B`` of the hop: the chi of the pair."""
        return float(self.skip + self.weight * self.pair[a, b])

    def meeting(self, state: _State, a: int, b: int) -> tuple[float, float]:
        """``E[(x_a . x_b)(h'_a . h'_b)]/n'`` and ``E[x_a . x_b]`` of the hop."""
        overlap = self.pair[a, b] * state.gram[a, b]
        signal = self.signal(state)[a, b, a, b]
        met = self.weight / self.below * signal + self.bias * overlap
        kept = self.skip * self.pair[a, b] * state.products[a, b, a, b] / self.above
        return float(met + kept), float(overlap)


_Gradient = Callable[[Sequence[_Hop], Sequence[_State], int, int], Array]


def _by_pair(mean: _Gradient, hops: Sequence[_Hop], states: Sequence[_State]) -> Array:
    """``mean`` of the four pairs of inputs, (L, 2, 2)."""
    result = np.empty((len(hops), 2, 2))
    for a, b in ((0, 0), (0, 1), (1, 1)):
        result[:, a, b] = result[:, b, a] = mean(hops, states, a, b)
    return result


def _tied(hops: Sequence[_Hop], states: Sequence[_State], a: int, b: int) -> Array:
    """``t E[(x . x)(h' . h')]/n'``, and what the biases above add to the output's gradient."""
    t, u = float(hops[-1].above), float(hops[-1].above) ** 2
    from_biases = 0.0  # sum over the biases above of sigma_b^2 t_m chi...chi, down to this layer
    result = np.empty(len(hops))
    for index in reversed(range(len(hops))):
        hop = hops[index]
        met, overlap = hop.meeting(states[index], a, b)
        result[index] = t * met + from_biases * overlap
        from_biases = (from_biases + hop.bias * t) * hop.factor(a, b)
        t, u = hop.backward(t, u, a, b)
    return result


def _untied(hops: Sequence[_Hop], states: Sequence[_State], a: int, b: int) -> Array:
    """``E[(x^l . x^l)(h^L . h^L) B...B]``, the product over the hops above.

    ``B = skip^2 + sigma_w^2 mean(D_a D_b)`` is what fresh weights leave of a gradient's product; it
    has the masks in common with the signal.
    """
    result = np.empty(len(hops))
    for index, hop in enumerate(hops):
        met, overlap = hop.meeting(states[index], a, b)
        value = hop.above * met
        for upper in hops[index + 1 :]:
            n, m = upper.below, upper.pair[a, b]
            same = (1 - 1 / n) * m**2 + upper.quartic[a, a, b, b] / n
            branch = upper.skip * m + upper.weight * same
            grown = upper.skip * upper.factor(a, b) + upper.weight * branch * upper.above / n
            value = grown * value + upper.above * upper.bias * upper.factor(a, b) * overlap
            overlap *= upper.factor(a, b)
        result[index] = value
    return result

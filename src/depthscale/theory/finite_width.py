r"""Finite width to first order: means and scatter of lengths and misalignment, in 1/n.

Given the signals of one layer, the units of the next are independent Gaussians of covariance

    C' = sigma_w^2 (1/n) sum_u x_u x_u^T + sigma_b^2,        x_u = D_u phi(h_u),  h_u ~ N(0, C),

so ``C -> C'`` is a map of random covariances: an average over n independent units, whose mean
``F(C)`` is the infinite-width map. What is measured in a network, ``|h|^2/n`` and ``1 - cos``, is
the Gram matrix of the n' units drawn from ``C'``. The delta method follows both to order 1/n.

Nothing may cancel where two signals agree to 1e-20. So a covariance near its infinite-width value
is written

    C = R (1 + X) R^T,   R = [[sqrt(q1) A, sqrt(q1) B], [sqrt(q2) A, -sqrt(q2) B]],
    A = sqrt(1 - eps/2), B = sqrt(eps/2),

that is, as the small covariance ``X = (X_ss, X_st, X_tt)`` of the sum ``s`` and the difference
``t`` of the pair, each in its own unit. ``F`` is smooth in ``X`` at any ``eps`` and for kinked
activations too, since its derivatives are moments with Hermite polynomials of the Gaussians
``s, t`` and need none of ``phi``:

    d E g/dX_q = c_q E[g He_q],   d^2 E g/dX_q dX_r = c_q c_r E[g He_q+r],   c = (1/2, 1, 1/2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from depthscale.answers import InputError, Undefined
from depthscale.theory.arguments import PairState, check_start, checked_pair, checked_widths
from depthscale.theory.gaussian import Array, PairRule
from depthscale.theory.linear import draws
from depthscale.theory.meanfield import MeanField

if TYPE_CHECKING:
    import xarray

LARGE = 0.3
"""Relative variance or correction of a mean above which first order is called unreliable."""

_SAMPLED = np.diag([2.0, 1.0, 2.0])
"""Covariance of (X_ss, X_st, X_tt) of the Gram matrix of n Gaussian units, times n (Wishart)."""

_EQUAL = 1e-280
"""Stands for eps = 0 in the coordinates, which need a direction for the difference."""

_OPPOSITE = math.nextafter(2.0, 0.0)


@dataclass(frozen=True)
class FiniteWidth:
    """Lengths and misalignment of a random network, layer by layer, to first order in 1/n.

    Layer 0 is the start. Lengths are ``q[input, layer]`` of ``|h|^2/n``, shape (2, L + 1); the
    misalignment ``eps[layer]`` is ``1 - cos`` of the two vectors of pre-activations.

    Attributes
    ----------
    widths, start:
        Units of every layer, and how layer 0 is given.
    q, eps:
        At infinite width.
    q_mean, q_var, eps_mean, eps_var:
        Mean with its 1/n correction, and variance over networks (``inf`` where a squared length
        leaves float64).
    log_q_mean, log_q_var, log_eps_mean, log_eps_var:
        The same of the natural logarithms, whose expansion is the better one where relative
        fluctuations add up with depth. Where ``eps`` is exactly 0 at some layers its logarithm is
        ``-inf`` with variance 0 there; where it is 0 at all layers they are ``Undefined``. Networks
        of exponentially small chance are outside any expansion in 1/n and are left out: those that
        die (relu: all units of a layer below 0, ``2^-n``), and equal inputs whose masks agree on
        every unit.
    covariance:
        Of ``(log q1, log q2, log eps)``, shape (L + 1, 3, 3).
    reliable:
        For each layer, whether the relative variances and corrections of the means are below 0.3.
    """

    widths: tuple[int, ...]
    start: str
    q: Array
    q_mean: Array
    q_var: Array
    eps: Array
    eps_mean: Array
    eps_var: Array
    log_q_mean: Array
    log_q_var: Array
    log_eps_mean: Array | Undefined
    log_eps_var: Array | Undefined
    covariance: Array
    reliable: np.ndarray[Any, np.dtype[np.bool_]]

    @property
    def note(self) -> str:
        """Where the first order holds, in a sentence."""
        wrong = np.flatnonzero(~self.reliable)
        if not wrong.size:
            return f"corrections and relative variances stay below {LARGE:g} at every layer"
        return (
            f"at layer {wrong[0]} of {len(self.widths) - 1} a relative variance or correction"
            f" passes {LARGE:g}: from there on first order in 1/n is an indication only, and"
            " logarithms hold longest; take wider or fewer layers, or sample the networks"
        )

    def to_xarray(self) -> xarray.Dataset:
        """The record with dimensions ``input`` and ``layer``; what does not exist is left out.

        The reasons for that are under ``undefined`` in the attributes, by name.
        """
        import xarray

        about = {
            "q": "mean square pre-activation at infinite width",
            "q_mean": "its mean at this width, to order 1/n",
            "q_var": "its variance, to order 1/n",
            "eps": "one minus the cosine of the pair at infinite width",
            "eps_mean": "its mean at this width, to order 1/n",
            "eps_var": "its variance, to order 1/n",
            "log_q_mean": "mean of log q, to order 1/n",
            "log_q_var": "variance of log q, to order 1/n",
            "log_eps_mean": "mean of log eps, to order 1/n",
            "log_eps_var": "variance of log eps, to order 1/n",
            "reliable": "whether relative variances and corrections are small",
        }
        variables: dict[str, Any] = {}
        undefined: dict[str, str] = {}
        for name, text in about.items():
            value = getattr(self, name)
            if isinstance(value, Undefined):
                undefined[name] = value.reason
                continue
            dims = ("input", "layer") if value.ndim == 2 else ("layer",)
            variables[name] = (dims, value, {"long_name": text, "units": "1"})
        names = ["log_q1", "log_q2", "log_eps"]
        label = {"long_name": "covariance of the logarithms, to order 1/n", "units": "1"}
        variables["covariance"] = (("layer", "state", "other_state"), self.covariance, label)
        return xarray.Dataset(
            variables,
            coords={
                "input": [1, 2],
                "layer": np.arange(len(self.widths)),
                "width": ("layer", list(self.widths)),
                "state": names,
                "other_state": names,
            },
            attrs={"start": self.start, "note": self.note, "undefined": str(undefined or "")},
        )


def finite_width(
    layers: Sequence[MeanField],
    widths: Sequence[int],
    *,
    q1: float = 1.0,
    q2: float = 1.0,
    eps: float,
    start: str = "pinned",
) -> FiniteWidth:
    r"""Means and variances of lengths and misalignment at finite width, to first order in 1/n.

    With the coordinates ``X`` of the module, mean ``mu`` and covariance ``Gamma`` of order 1/n,

        mu'    = J mu + H : Gamma/2,           J = dF/dX,  H = d^2 F/dX^2
        Gamma' = J Gamma J^T + Cov(x x^T)/n    one unit's scatter, masks included,

    and the measured state adds the scatter of a Gram matrix of n' units to ``Gamma'``. A pinned
    layer 0 takes just that away beforehand, so that its measured state does not scatter.

    Parameters
    ----------
    layers:
        One ``MeanField`` for each of the L hops, ``skip=0``; noise on units of any kind.
    widths:
        L + 1 numbers of units.
    q1, q2, eps:
        Lengths ``> 0`` and misalignment in [0, 2] of the pair at layer 0. ``eps`` may be as small
        as 1e-280 (the lengths must then be equal, or the layers homogeneous without bias).
    start:
        ``"pinned"``: layer 0 has exactly this state, in a random direction. ``"drawn"``: its units
        are Gaussian of this covariance, and its state scatters about it.

    Returns
    -------
    FiniteWidth
        The next order is ``layers/n`` times the corrections and variances. Where ``E phi'^4`` is
        infinite (cusps of exponent 3/4 or less) the variance of ``log eps`` grows without bound as
        ``eps`` falls; ``reliable`` says so.

    Raises
    ------
    InputError
        A residual branch (units then keep their identity from layer to layer, and the scatter is
        that of their whole distribution, not of its covariance), noise on weights or layers, an
        activation without theory, or numbers out of range.

    Source: derived here by the delta method; near alignment it gives the drift and noise of the
    unshaped limit with ``l/n`` fixed (for critical ReLU ``-2/n`` and ``8/n`` a layer for log eps).

    Examples
    --------
    >>> record = finite_width([MeanField("relu", 2**0.5)] * 4, [200] * 5, eps=1e-20)
    >>> change = np.diff(record.log_eps_mean - np.log(record.eps))
    >>> bool(np.allclose(change, -2 / 200))
    True
    >>> record.note
    'corrections and relative variances stay below 0.3 at every layer'
    """
    sizes, pair = checked_widths(layers, widths), checked_pair(q1, q2, eps)
    check_start(start, pair, sizes[0])
    _refuse_skips(layers)
    hops, states = _hops(layers, pair)
    inverse = 1 / np.array(sizes, dtype=float)
    gram = inverse[:, None, None] * _SAMPLED  # of a Gram matrix of so many units, by layer
    mu, gamma = _expansion(hops, inverse, -gram[0] if start == "pinned" else np.zeros((3, 3)))
    return _record(sizes, start, states, mu, gamma + gram)


def _refuse_skips(layers: Sequence[MeanField]) -> None:
    for layer in layers:
        if layer.skip:
            raise InputError(
                f"skip = {layer.skip:g}: expected 0. Behind a residual branch the units are not"
                " drawn afresh at each layer and their covariance alone does not decide the next"
                " one: sample the networks instead"
            )


class HopMoments(NamedTuple):
    """What one hop does to ``X``: J (3, 3), H (3, 3, 3) and the scatter of one unit (3, 3)."""

    slope: Array
    bend: Array
    scatter: Array


_FACTOR = np.array([0.5, 1.0, 0.5])
_POWERS = ((2, 0), (1, 1), (0, 2))  # of s and t in X_ss, X_st, X_tt


def _hops(layers: Sequence[MeanField], pair: PairState) -> tuple[list[HopMoments], Array]:
    """What every hop does to ``X``, and ``q1, q2, eps`` at infinite width, (L + 1, 3)."""
    hops, states = [], [pair]
    for depth, layer in enumerate(layers, start=1):
        hop, after = _hop(layer, states[-1], depth)
        hops.append(hop)
        states.append(after)
    return hops, np.array(states)


def _expansion(hops: Sequence[HopMoments], inverse: Array, gamma_0: Array) -> tuple[Array, Array]:
    """``mu`` (L + 1, 3) and ``Gamma`` (L + 1, 3, 3), where ``inverse`` has 1/n of each layer."""
    mu, gamma = [np.zeros(3)], [gamma_0]
    for hop, share in zip(hops, inverse[:-1], strict=True):
        mu.append(hop.slope @ mu[-1] + np.einsum("pqr,qr->p", hop.bend, gamma[-1]) / 2)
        gamma.append(hop.slope @ gamma[-1] @ hop.slope.T + hop.scatter * share)
    return np.stack(mu), np.stack(gamma)


def hop_moments(layer: MeanField, state: PairState) -> tuple[HopMoments, PairState]:
    """Derivatives and scatter of the map of one layer in the coordinates ``X`` of the module.

    Both are taken at ``state``, whose image at infinite width comes second.
    """
    return _hop(layer, state, 1)


def _hop(layer: MeanField, state: PairState, depth: int) -> tuple[HopMoments, PairState]:
    """Derivatives and scatter of the map of one layer at ``state``, and the state behind it."""
    after = _next(layer, state := _levelled(state))
    if not (all(map(math.isfinite, after)) and after.q1 > 0 and after.q2 > 0):
        raise InputError(
            f"the length leaves the range of float64 at layer {depth}; follow fewer layers, or"
            " weights that keep the length"
        )
    if layer.sigma_b == 0 and layer.activation.degree is not None:
        state = state._replace(q1=1.0, q2=1.0)  # any length will do, and equal ones do not cancel
    state = state._replace(eps=min(max(state.eps, _EQUAL), _OPPOSITE))
    units = _units(layer, state, _next(layer, state))
    return _moments(units), after


def _levelled(state: PairState) -> PairState:
    """Nearly equal signals whose lengths differ by rounding only get equal ones.

    What this leaves out of ``eps`` is ``(q1/q2 - 1)^2/8``: 1e-10 of it at most, or rounding.
    """
    apart = abs(state.q1 / state.q2 - 1)
    if state.eps < 1e-10 and apart < max(1e-5 * math.sqrt(state.eps), 2e-15):
        middle = math.sqrt(state.q1) * math.sqrt(state.q2)
        return state._replace(q1=middle, q2=middle)
    return state


def _next(layer: MeanField, state: PairState) -> PairState:
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        return PairState(*(float(x) for x in layer.pair_map(*state)))


class _Units(NamedTuple):
    """A rule for the mean over one unit: its Gaussians, and what it adds to the next layer."""

    weight: Array  # [node]
    s: Array  # [node]
    t: Array  # [node]
    chance: Array  # [outcome] of the noise
    sum: Array  # [outcome, node]: x in the coordinates s and t of the next layer
    difference: Array


def _units(layer: MeanField, state: PairState, after: PairState) -> _Units:
    phi = layer.activation
    rule = PairRule.of(*state, phi.shape)
    apart = rule.difference(phi.function, phi.slope)
    both = phi.function(rule.u) + phi.function(rule.v)
    one, other = (layer.sigma_w / math.sqrt(q) for q in (after.q1, after.q2))
    mean, lag = (one + other) / 2, (one - other) / 2
    total, gap = (mean * both + lag * apart) / 2, (mean * apart + lag * both) / 2
    noise = draws(layer)
    level, shift = noise.mean[:, None], noise.half[:, None]
    eps = min(max(after.eps, _EQUAL**1.1), _OPPOSITE)
    return _Units(
        rule.weight,
        rule.s,
        rule.t,
        noise.weight,
        (level * total + shift * gap) / math.sqrt(1 - eps / 2),
        (level * gap + shift * total) / math.sqrt(eps / 2),
    )


def _moments(units: _Units) -> HopMoments:
    squares = np.stack([units.sum**i * units.difference**j for i, j in _POWERS])
    given = np.einsum("z,pzn->pn", units.chance, squares)
    mean = given @ units.weight
    weighed = squares * (units.chance[:, None] * units.weight)
    scatter = np.tensordot(weighed, squares, axes=((1, 2), (1, 2)))
    s, t = _hermite(units.s), _hermite(units.t)
    slope, bend = np.empty((3, 3)), np.empty((3, 3, 3))
    for q, (i, j) in enumerate(_POWERS):
        slope[:, q] = _FACTOR[q] * (given @ (units.weight * s[i] * t[j]))
        for r, (k, m) in enumerate(_POWERS):
            both = units.weight * s[i + k] * t[j + m]
            bend[:, q, r] = _FACTOR[q] * _FACTOR[r] * (given @ both)
    return HopMoments(slope, bend, scatter - np.outer(mean, mean))


def _hermite(x: Array) -> tuple[Array, ...]:
    """He_0 to He_4."""
    x2 = x * x
    return np.ones_like(x), x, x2 - 1, x * (x2 - 3), (x2 - 6) * x2 + 3


def _record(
    widths: tuple[int, ...], start: str, states: Array, mu: Array, gamma: Array
) -> FiniteWidth:
    """From ``X`` to what is measured.

    ``q1 -> q1 (1 + A^2 X_ss + 2 A B X_st + B^2 X_tt)``, ``q2`` with ``-2 A B``, and, with
    ``w = A^2 X_ss + B^2 X_tt``, to second order

        log eps -> log eps + X_tt - w - X_tt^2/2 + w^2/2 - A^2 (1 - eps) X_st^2.
    """
    q, eps = states[:, :2].T, states[:, 2]
    b2 = eps / 2
    a2, ab = 1 - b2, np.sqrt(b2 * (1 - b2))
    none = np.zeros_like(b2)
    forms = np.stack([[a2, 2 * ab, b2], [a2, -2 * ab, b2], [-a2, none, a2]])  # [state, X, layer]
    forms[2, :, eps == 0] = 0.0
    shift = np.einsum("ixl,lx->il", forms, mu)
    covariance = np.einsum("ixl,lxy,jyl->lij", forms, gamma, forms)
    variance = np.einsum("lii->il", covariance)
    level = np.stack([a2, none, b2])
    bend = np.einsum("xl,lxy,yl->l", level, gamma, level) - gamma[:, 2, 2]
    bend = np.where(eps > 0, bend / 2 - a2 * (1 - eps) * gamma[:, 1, 1], 0.0)
    drift = shift[2] + bend
    relative = drift + variance[2] / 2
    log_eps: tuple[Array | Undefined, Array | Undefined]
    if np.any(eps > 0):
        with np.errstate(divide="ignore"):
            log_eps = np.log(eps) + drift, variance[2]
    else:
        equal = Undefined("equal inputs stay equal here: eps is 0 at every layer")
        log_eps = equal, equal
    large = np.stack([*variance, *np.abs(shift[:2]), np.abs(relative)]).max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        q_var = np.where(variance[:2] == 0, 0.0, q**2 * variance[:2])
    return FiniteWidth(
        widths,
        start,
        q,
        q * (1 + shift[:2]),
        q_var,
        eps,
        eps * (1 + relative),
        eps**2 * variance[2],
        np.log(q) + shift[:2] - variance[:2] / 2,
        variance[:2],
        *log_eps,
        covariance,
        large < LARGE,
    )

r"""The infinite-width maps of a layer: length, misalignment and gradients, with dropout.

One layer takes the pre-activations ``h`` of two inputs through ``x = D phi(h)`` and
``h' = skip h + W x + b``, ``W ~ N(0, sigma_w^2/fan_in)``, ``b ~ N(0, sigma_b^2)``, with inverted
dropout ``D = mask/rho``, ``rho = 1 - drop``, or any other noise of mean 1 (see ``noise``).
The state is the two lengths ``q = <h^2>`` and the misalignment ``eps = 1 - correlation``:

    q'   = sigma_w^2/rho E[phi(u)^2] + sigma_b^2
    eps' = h + chi eps - a eps^kappa + ...            near alignment

(2605.21648, section 2; 1912.09132, equations for chi_1 and chi_2.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.theory.activation import Activation, activation
from depthscale.theory.expansion import (
    UniversalityClass,
    classify,
    classify_unequal,
    deficit_terms,
    map_singularity,
)
from depthscale.theory.gaussian import Array
from depthscale.theory.kernel import Kernel
from depthscale.theory.laws import Law
from depthscale.theory.lengths import LengthFixedPoint, Lengths
from depthscale.theory.noise import Noise, NoiseMoments
from depthscale.theory.records import (
    DepthScale,
    Trajectory,
    as_number,
    as_numbers,
    with_reasons,
)

__all__ = ["CRITICAL", "MeanField", "Trajectory", "propagate"]

CRITICAL = 1e-11
"""Detuning and field below which a point counts as critical: rounding of the moments is smaller."""


@dataclass(frozen=True)
class MeanField:
    """One layer of an infinitely wide random network, and the network made of such layers.

    Parameters
    ----------
    activation:
        Anything that ``activation()`` accepts.
    sigma_w, sigma_b:
        Standard deviations: weights ``sigma_w^2/fan_in`` (``sigma_w > 0``), biases ``sigma_b^2``.
    drop:
        Probability that a unit is dropped after the activation, in ``[0, 1)``.
    masks:
        ``"independent"``: each of two inputs meets its own mask; ``"shared"``: the same mask;
        ``"clean"``: the first is masked, the second is not; ``"overlap(0.3)"``: masks of that
        correlation; ``"gaussian"``, ``"dropconnect"``, ``"layers"``: noise of other kinds with
        the same variance ``drop/(1 - drop)``, see ``Noise``.
    start:
        Length from which the network starts where several fixed points compete.
    skip:
        Coefficient of the residual branch. With ``masks="layers"`` and ``skip != 0`` this is
        stochastic depth. One draw there serves a whole layer and does not average out within it:
        the map of one layer is that of covariances averaged over the draw, and following it from
        layer to layer is exact only where the maps are linear (some per cent off for tanh).

    Quantities that do not exist are ``Undefined`` with the reason.

    Examples
    --------
    >>> tanh = MeanField("tanh", sigma_w=1.7, sigma_b=0.3, drop=0.1)
    >>> round(tanh.q, 4), round(tanh.depth_scale.correlation, 2)
    (1.6487, 3.94)
    """

    activation: Activation
    sigma_w: float
    sigma_b: float = 0.0
    drop: float = 0.0
    masks: str = "independent"
    start: float = field(default=1.0, repr=False)
    skip: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "activation", activation(self.activation))
        for name, low, closed, high in (
            ("sigma_w", 0.0, False, 1e100),
            ("sigma_b", 0.0, True, 1e100),
            ("drop", 0.0, True, 1.0),
            ("start", 0.0, False, math.inf),
            ("skip", 0.0, True, 1e100),
        ):
            value = getattr(self, name)
            number = as_number(name, value)
            if not (low < number < high or (closed and number == low)):
                bracket = "[" if closed else "("
                raise InputError(
                    f"{name} is {value!r}; expected a number in {bracket}{low:g}, {high:g})"
                )
            object.__setattr__(self, name, number)
        _ = self.noise  # raises where the name is unknown

    # Maps ----------------------------------------------------------------------------------------

    @cached_property
    def kernel(self) -> Kernel:
        """Gaussian moments of the activation."""
        return Kernel(self.activation)

    @cached_property
    def noise(self) -> Noise:
        """How the two inputs of a pair are masked."""
        return Noise.of(self.masks)

    @cached_property
    def moments(self) -> NoiseMoments:
        """Second moments of the noise."""
        return self.noise.moments(self.drop)

    @property
    def _bias_moments(self) -> NoiseMoments:
        """Noise on the bias, which only a dropped layer takes with it."""
        return self.moments if self.noise.kind == "layers" else Noise().moments(0.0)

    def length_map(self, q: ArrayLike) -> Array:
        """``q' = skip^2 q + sigma_w^2 E[D_1^2] E[phi(u)^2] + sigma_b^2`` of the first input."""
        return self._next_length(q, self.moments.first, self._bias_moments.first)

    def _next_length(self, q: ArrayLike, noise: float, bias_noise: float) -> Array:
        kept = self.skip**2 * np.asarray(q, dtype=float)
        branch = self.sigma_w**2 * noise * self.kernel.second_moment(q)
        return np.asarray(kept + branch + bias_noise * self.sigma_b**2)

    def length_slope(self, q: ArrayLike) -> Array:
        """``dq'/dq``, chi_q of 1912.09132."""
        branch = self.sigma_w**2 * self.moments.first * self.kernel.length_slope(q)
        return np.asarray(self.skip**2 + branch)

    def pair_map(self, q1: ArrayLike, q2: ArrayLike, eps: ArrayLike) -> tuple[Array, Array, Array]:
        """``(q1', q2', eps')`` of a pair with lengths ``q1, q2 > 0`` and misalignment ``eps``.

        Computed without subtracting nearly equal numbers when the lengths are equal:
        ``eps' = [sigma_w^2 (x G + sum_i (s_i - x) E phi_i^2/2) - (sqrt q1' - sqrt q2')^2/2]
        / sqrt(q1' q2')`` with the gap ``G`` and the noise moments ``s_1, s_2, x``; a residual
        branch adds ``skip^2 E(u - v)^2/2``, noise on the bias its own excess. Where lengths have
        no influence on ``eps'`` (a scale-free activation without bias) they may differ as they
        like.
        """
        q1, q2, eps = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (q1, q2, eps)))
        return *self._next_lengths(q1, q2), self._next_gap(*self._unscaled(q1, q2), eps)

    def _next_lengths(self, q1: Array, q2: Array) -> tuple[Array, Array]:
        on, bias_on = self.moments, self._bias_moments
        return (
            self._next_length(q1, on.first, bias_on.first),
            self._next_length(q2, on.second, bias_on.second),
        )

    def _next_gap(self, q1: Array, q2: Array, eps: Array) -> Array:
        on, bias_on = self.moments, self._bias_moments
        v1, v2 = self.kernel.second_moment(q1), self.kernel.second_moment(q2)
        apart = on.cross * self.kernel.gap(q1, eps, q2)
        apart += (on.first_excess * v1 + on.second_excess * v2) / 2
        apart *= self.sigma_w**2
        apart += self.sigma_b**2 * (bias_on.first_excess + bias_on.second_excess) / 2
        if self.skip:
            kept = (np.sqrt(q1) - np.sqrt(q2)) ** 2 / 2 + np.sqrt(q1) * np.sqrt(q2) * eps
            apart += self.skip**2 * kept
        root1, root2 = (np.sqrt(q) for q in self._next_lengths(q1, q2))
        eps = (apart - (root1 - root2) ** 2 / 2) / (root1 * root2)
        return np.where(np.isfinite(eps), np.clip(eps, 0.0, 2.0), np.nan)

    def _unscaled(self, q1: Array, q2: Array) -> tuple[Array, Array]:
        """Lengths that give the same ``eps'``: 1 for a homogeneous map, whatever they are.

        There equal ones cancel nothing, and their powers stay within float64.
        """
        degree = self.activation.degree
        if self.sigma_b == 0 and degree is not None and (degree == 1 or not self.skip):
            return np.ones_like(q1), np.ones_like(q2)
        return q1, q2

    def gap_map(self, eps: ArrayLike, q: ArrayLike | None = None) -> Array:
        """``eps'`` of a pair of equal length: at ``q`` if given, else at the network's own length.

        For a scale-free activation without bias any length gives the same (the ratio map).
        """
        if q is not None:
            return self.pair_map(q, q, eps)[2]
        lengths = self.settled
        if isinstance(lengths, Undefined):
            raise InputError(f"gap_map without q needs a settled length: {lengths.reason}")
        return self.pair_map(*lengths, eps)[2]

    def gap_slope(self, q1: ArrayLike, q2: ArrayLike, eps: ArrayLike) -> Array:
        """``d eps'/d eps = (skip^2 + sigma_w^2 x E[phi' phi']) sqrt(q1 q2/(q1' q2'))``."""
        q1, q2 = self._unscaled(np.asarray(q1, dtype=float), np.asarray(q2, dtype=float))
        next1, next2 = self._next_lengths(q1, q2)
        ratio = np.sqrt(q1 / next1) * np.sqrt(q2 / next2)
        return np.asarray(self.gradient_pair_factor_at(q1, eps, q2) * ratio)

    def gradient_factor_at(self, q: ArrayLike) -> Array:
        """``skip^2 + sigma_w^2 E[D_1^2] E[phi'^2]``: squared gradient norm below over above."""
        branch = self.sigma_w**2 * self.moments.first * self.kernel.slope_moment(q)
        return np.asarray(self.skip**2 + branch)

    def gradient_pair_factor_at(
        self, q: ArrayLike, eps: ArrayLike, q2: ArrayLike | None = None
    ) -> Array:
        """``skip^2 + sigma_w^2 x E[phi'(u) phi'(v)]``: for the product of two gradients."""
        branch = self.sigma_w**2 * self.moments.cross * self.kernel.slope_pair_moment(q, eps, q2)
        return np.asarray(self.skip**2 + branch)

    # Where it settles ----------------------------------------------------------------------------

    @property
    def scale_free(self) -> bool:
        """Whether only length ratios matter: ``phi(c x) = c phi(x)`` and no bias."""
        return self.activation.scale_free and self.sigma_b == 0

    @cached_property
    def _lengths(self) -> Lengths:
        zero = None
        if self.sigma_b == 0 and self.activation(0.0) == 0:
            sides = self.activation.derivative(np.nextafter(0.0, [-1.0, 1.0]))
            branch = float(self.sigma_w**2 * self.moments.first * np.mean(sides**2))
            zero = self.skip**2 + branch
        return Lengths(self.length_map, self.length_slope, zero)

    @property
    def fixed_points(self) -> tuple[LengthFixedPoint, ...]:
        """All fixed points of the length map in ``[0, 1e12]``, ascending, with their stability.

        Empty for a scale-free network (its length changes by a constant factor or not at all) and
        for an activation without theory (``Activation.why_no_theory``).
        """
        if self.scale_free or self.activation.why_no_theory:
            return ()
        return self._lengths.fixed_points

    @cached_property
    def _reached(self) -> float | Undefined:
        """The length that masked inputs settle at when they start at ``start``."""
        if self.activation.why_no_theory:
            return Undefined(self.activation.why_no_theory)
        if not self.scale_free:
            return self._lengths.reached(self.start)
        growth = float(self.length_map(self.start)) / self.start
        if abs(growth - 1) < CRITICAL:
            return self.start
        verb = "grows" if growth > 1 else "shrinks"
        return Undefined(
            f"scale-free network: the length {verb} by a factor {growth:.6g} a layer and"
            " has no fixed point; only ratios settle"
        )

    @cached_property
    def settled(self) -> tuple[float, float] | Undefined:
        """Lengths ``(q1*, q2*)`` of the two members of a pair, ``q_i'(q_i*) = q_i*``.

        They differ only where the noise does (``masks="clean"``). ``start`` stands for any length
        of a scale-free network; ``Undefined`` with the reason where there is none.
        """
        first = self._reached
        if isinstance(first, Undefined):
            return (self.start, self.start) if self.scale_free else first
        self.kernel.watch_tails(first)
        if self.noise.alike or self.drop == 0 or self.scale_free:
            return first, first
        second = replace(self, drop=0.0, masks="independent")._reached
        if isinstance(second, Undefined):
            return Undefined(f"of the clean input: {second.reason}")
        return first, second

    @property
    def q(self) -> Quantity:
        """Settled length of a (masked) input."""
        return self._reached

    @cached_property
    def chi(self) -> Quantity:
        """Slope of the misalignment map at alignment, ``sigma_w^2 x E[phi'^2]`` at fixed length.

        For a scale-free network the slope of the ratio map, ``rho`` for independent masks.
        """
        settled = self.settled
        return settled if isinstance(settled, Undefined) else float(self.gap_slope(*settled, 0.0))

    @property
    def detuning(self) -> Quantity:
        """``t = chi - 1``: negative in the ordered phase, positive in the chaotic one."""
        chi = self.chi
        return chi if isinstance(chi, Undefined) else chi - 1

    @cached_property
    def dropout_field(self) -> Quantity:
        """``h = eps'(0)``: how far dropout pushes equal signals apart in one layer.

        ``drop (1 - sigma_b^2/q)`` for independent masks, ``1 - overlap`` of that for others.
        """
        settled = self.settled
        return settled if isinstance(settled, Undefined) else float(self.pair_map(*settled, 0.0)[2])

    @cached_property
    def eps(self) -> Quantity:
        """Stable fixed point ``eps*`` of the misalignment at settled length.

        The map is concave in ``eps`` on [0, 1] at equal lengths (``E[phi(u) phi(v)]`` is a power
        series in the correlation with coefficients >= 0), so there is one, and it is 0 exactly when
        the field vanishes and ``chi <= 1``.
        """
        from scipy.optimize import brentq

        settled = self.settled
        if isinstance(settled, Undefined):
            return settled
        field, detuning = float(self.dropout_field), float(self.chi) - 1
        if field == 0 and detuning <= CRITICAL:
            return 0.0

        def drift(log_eps: Any) -> Any:
            eps = np.exp(log_eps)
            if not self.noise.alike:
                return self.pair_map(*settled, eps)[2] / eps - 1
            bend = self.curvature_weight * self.kernel.deficit(settled[0], eps)
            return (field - bend) / eps + detuning

        # eps = 2 is left out: there an odd activation without bias has a second, unstable point
        low, middle, high = (math.log(x) for x in (1e-200, 1e-16, 1.9))
        grid = np.append(np.linspace(low, middle, 60)[:-1], np.linspace(middle, high, 121))
        falls = np.flatnonzero(np.diff(np.sign(drift(grid))) < 0)
        if not falls.size:
            if float(self.chi) < 1:  # below 1e-200 the map is its linear part
                return float(self.dropout_field) / (1 - float(self.chi))
            return Undefined("the misalignment map has no stable fixed point in [1e-200, 1.9]")
        root = brentq(drift, grid[falls[0]], grid[falls[0] + 1], xtol=1e-15, rtol=1e-15)
        return math.exp(root)

    @cached_property
    def curvature_weight(self) -> float:
        """``sigma_w^2 x/q'``: what a deficit of the gap is multiplied with in the map."""
        q = self.settled
        if isinstance(q, Undefined):
            raise InputError(f"the map near alignment needs a settled length: {q.reason}")
        return self.sigma_w**2 * self.moments.cross / float(self.length_map(q[0]))

    # What follows from it ------------------------------------------------------------------------

    @property
    def gradient_factor(self) -> Quantity:
        """``sigma_w^2 E[phi'^2]/rho`` at the settled length, chi_1 of 1912.09132."""
        q = self.settled
        return q if isinstance(q, Undefined) else float(self.gradient_factor_at(q[0]))

    @cached_property
    def depth_scale(self) -> DepthScale:
        """Depth scales at the fixed point, in layers."""
        settled, eps = self.settled, self.eps
        if isinstance(settled, Undefined) or isinstance(eps, Undefined):
            why = settled if isinstance(settled, Undefined) else eps
            assert isinstance(why, Undefined)
            return DepthScale(why, why, why, why, "undefined")
        gradient = float(self.gradient_factor_at(settled[0]))
        trend: Literal["vanishing", "exploding", "constant"] = "constant"
        if abs(gradient - 1) > CRITICAL:
            trend = "exploding" if gradient > 1 else "vanishing"
        length: Quantity = Undefined(
            "scale-free network: lengths never relax, they keep their ratios"
        )
        if not self.scale_free:
            length = _decay(float(self.length_slope(settled[0])), "length map marginal")
        return DepthScale(
            length,
            _decay(
                float(self.gap_slope(*settled, eps)),
                "critical: the misalignment relaxes as a power of depth, not exponentially",
            ),
            _decay(gradient, "gradient norm is constant with depth"),
            _decay(
                float(self.gradient_pair_factor_at(settled[0], eps, settled[1])),
                "the gradients' inner product is constant with depth",
            ),
            trend,
        )

    @cached_property
    def universality(self) -> UniversalityClass:
        """Singularity, exponent and amplitude of the map near alignment."""
        settled = self.settled
        name, kappa = map_singularity(self.activation)
        if self.activation.why_no_theory:
            why = Undefined(self.activation.why_no_theory)
            return UniversalityClass(name, kappa or why, why, "none")
        if isinstance(settled, Undefined):
            family = "diverging" if float(self.length_map(self.start)) > self.start else "vanishing"
            return UniversalityClass(name, kappa or settled, settled, family)
        if self.scale_free and self.noise.clean:
            clean = float(self.gap_slope(*settled, 0.0))  # sqrt(rho): both lengths enter
            free = replace(self, masks="independent", drop=0.0).universality
            return replace(free, amplitude=clean * float(free.amplitude))
        if settled[0] != settled[1]:
            second = replace(self, drop=0.0, masks="independent").length_map(settled[1])
            lengths = math.sqrt(settled[0]) * math.sqrt(float(second))
            weight = self.sigma_w**2 * self.moments.cross / lengths
            return classify_unequal(self.kernel, *settled, weight)
        family = "scale-free" if self.scale_free else "stable"
        return classify(self.kernel, settled[0], self.curvature_weight, family)

    def law(self, corrected: bool = False) -> Law:
        """The scaling law of this network near alignment.

        Parameters
        ----------
        corrected:
            With the next power of the map and depth in layers, to first order.

        Raises
        ------
        InputError
            Where the lengths do not settle, differ, or the map is linear.
        """
        settled = self.settled
        if isinstance(settled, Undefined):
            raise InputError(f"the scaling law needs a settled length: {settled.reason}")
        if not self.noise.alike and self.drop > 0:
            raise InputError(
                "a masked-against-clean pair has two lengths: no scaling law is stated"
            )
        terms = deficit_terms(self.kernel, settled[0])
        if not terms:
            raise InputError("the map is linear: it has no curvature and no scaling law")
        bends = tuple(
            term._replace(coefficient=term.coefficient * self.curvature_weight) for term in terms
        )
        kept = bends if corrected else bends[:1]
        detuning = float(self.chi) - 1
        if abs(detuning) <= CRITICAL:
            detuning = 0.0
        return Law(detuning, float(self.dropout_field), kept, layered=corrected)

    def trajectory(
        self,
        depth: int,
        q0: float | tuple[float, float] | None = None,
        eps0: float = 1.0,
        drop: float | Sequence[float] | None = None,
    ) -> Trajectory:
        """The state after 0, 1, ..., ``depth`` layers.

        Parameters
        ----------
        depth:
            Number of layers, at least 1.
        q0:
            Starting length, or the two lengths of the pair; default the settled one.
        eps0:
            Starting misalignment, in ``[0, 2]``.
        drop:
            Rate of every layer or a sequence of ``depth`` rates; default the network's own.
        """
        if isinstance(depth, str) or int(depth) != depth or depth < 1:
            raise InputError(f"depth is {depth!r}; expected a whole number of layers, at least 1")
        rates_given = np.atleast_1d(as_numbers("drop", self.drop if drop is None else drop))
        eps0 = as_number("eps0", eps0)
        if not 0 <= eps0 <= 2:
            raise InputError(f"eps0 is {eps0!r}; expected a misalignment in [0, 2]")
        rates = [float(rate) for rate in rates_given]
        rates = rates * int(depth) if len(rates) == 1 else rates
        if len(rates) != depth:
            raise InputError(
                f"drop has {len(rates)} rates; expected one, or {depth} for {depth} layers"
            )
        if q0 is None:
            if isinstance(self.settled, Undefined):
                raise InputError(
                    f"give q0: there is no settled length to start from ({self.settled.reason})"
                )
            q0 = self.settled
        q1, q2 = (as_number("q0", q) for q in (q0 if isinstance(q0, tuple) else (q0, q0)))
        by_rate = {rate: replace(self, drop=float(rate)) for rate in set(rates)}
        return propagate([by_rate[rate] for rate in rates], q1, q2, eps0)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON: undefined numbers are null with an entry in ``reasons``."""
        scale, kind = self.depth_scale, self.universality
        record: dict[str, Any] = {
            "activation": self.activation.name,
            "sigma_w": self.sigma_w,
            "sigma_b": self.sigma_b,
            "drop": self.drop,
            "masks": self.masks,
            "q": self.q,
            "eps": self.eps,
            "chi": self.chi,
            "detuning": self.detuning,
            "dropout_field": self.dropout_field,
            "gradient_factor": self.gradient_factor,
            "universality": dict(vars(kind)),
            "depth_scale": dict(vars(scale)),
            "length_fixed_points": [p._asdict() for p in self.fixed_points],
        }
        return with_reasons(record)


def propagate(
    layers: Sequence[MeanField], q1: ArrayLike, q2: ArrayLike, eps: ArrayLike
) -> Trajectory:
    """Send a pair through a different layer at each depth.

    ``q1, q2, eps`` may be arrays of starts of one shape S; every result has shape (layers + 1, *S),
    the factors (layers, *S).
    """
    state = tuple(np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (q1, q2, eps))))
    if not (np.all(state[0] > 0) and np.all(state[1] > 0) and np.all(abs(state[2] - 1) <= 1)):
        raise InputError("a pair starts from lengths q > 0 and a misalignment eps in [0, 2]")
    states, single, pair = [state], [], []
    for depth, layer in enumerate(layers, start=1):
        a, b, e = state
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            single.append(layer.gradient_factor_at(a))
            pair.append(layer.gradient_pair_factor_at(a, e, b))
            state = layer.pair_map(a, b, e)
        if not all(np.all(np.isfinite(x)) for x in state) or np.any(state[0] <= 0):
            raise InputError(
                f"the length leaves the range of float64 at layer {depth} (it was {a.max():.3g} one"
                " before); follow fewer layers, or weights that keep the length"
            )
        states.append(state)
    first, second, gaps = (np.stack(column) for column in zip(*states, strict=True))
    none = np.empty((0, *first.shape[1:]))
    return Trajectory(
        first, second, gaps, np.stack(single) if single else none, np.stack(pair) if pair else none
    )


def _decay(factor: float, constant: str) -> Quantity:
    """Depth scale ``1/|ln |factor||``; ``Undefined(constant)`` when the factor is 1."""
    if abs(abs(factor) - 1) < CRITICAL:
        return Undefined(constant)
    if factor == 0:
        return 0.0
    return 1 / abs(math.log(abs(factor)))

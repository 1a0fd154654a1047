r"""What a dropout schedule can be chosen for: eight criteria, each of many schedules at once.

2605.21648 chooses by a surrogate, ``xi``, and breaks its ties by ``rank-flow`` (first version) or
``reach`` (second version). These three ignore or linearise what one layer does to the next; the
others are followed through the exact recursion, in which the order of the layers matters and which
contradicts the surrogate on signals. There is no best one: each picks another schedule.

With the misalignments ``eps_l`` of one input met twice, from 0, those ``e_l`` of a pair that starts
at ``eps0``, those ``o_l`` of ``INPUTS`` orthogonal inputs, from 1, and layers ``l = 1 .. L``:

==========  ====  =================================================================================
signal      less  ``-sum log d eps_(l+1)/d eps_l``: loss of a small difference between inputs
noise       less  ``eps_L``: misalignment of two passes of one input at the output
exposure    more  ``sum_l eps_l``: that misalignment summed over the layers that it regularises
snr         more  ``(e_L - eps_L)/eps_L``
xi          more  ``1/mean D(h_l)``, the paper's surrogate depth scale of the dropout fields
rank-flow   more  ``sum_l h_l r_l``, ``r_l`` the log rank lost in layer ``l`` without dropout
reach       more  ``sum_l h_l w_l``, ``w_l = xi (1 - exp(-(L - l)/xi))``
gradient    less  variance over the layers of ``log(sigma_w^2 E[phi'^2]/rho)``, gradient growth
==========  ====  =================================================================================

Effective rank is ``n/(1 + (n - 1)(1 - o_l)^2)``. The surrogate beside ``signal`` is ``sum D(h_l)``,
beside ``exposure`` it is ``reach``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.practice.recursion import Kind, Recursion, Sensitivity, Steps
from depthscale.theory.gaussian import Array
from depthscale.theory.laws import master
from depthscale.theory.meanfield import MeanField
from depthscale.theory.universal.reach import reach_weights

INPUTS = 64
ROUNDING = 1e-28  # variance of equal numbers of order 1
CLOSE = 1e-5  # of a misalignment: smaller differences follow the slope and are not subtracted
SENSE = {
    "signal": -1, "noise": -1, "exposure": 1, "snr": 1,
    "xi": 1, "rank-flow": 1, "reach": 1, "gradient": -1,
}  # fmt: skip
"""The objectives; 1 where more is better."""
LOGARITHMIC = ("noise", "snr", "xi")
"""Those whose logarithm is optimised."""
OF_FIELDS = ("xi", "rank-flow", "reach")
"""Those that need no recursion: functions of the fields of the layers alone."""

Loss = Callable[[Array], Array]
"""A function of the user's: schedules (N, L) to N numbers of which less is better."""
Objective = str | Mapping[str, float] | Loss


@dataclass
class Partials:
    """Partial derivatives of a loss by what a path consists of; see ``Recursion.adjoint``."""

    x: Array
    h: Array
    q: Array
    eps: Array

    @classmethod
    def zero(cls, steps: Steps) -> Partials:
        """No dependence yet."""
        return cls(*(np.zeros_like(a) for a in (steps.x, steps.h, steps.q, steps.eps)))


class Landscape:
    """The objectives of one network, depth and mean rate.

    Parameters
    ----------
    network:
        A ``MeanField`` with independent masks; its ``drop`` is not used.
    depth:
        Number of sites ``L``, from 1 to 20,000.
    mean:
        Mean rate (or field) of the schedules that are compared; it sets the ``xi`` of ``reach``.
    cap:
        Largest rate of a site, below 1.
    eps0:
        Misalignment of the pair of ``snr``, in (0, 1].
    kind:
        Whether schedules are rates (``"drop"``) or dropout fields (``"field"``).

    Raises
    ------
    InputError
        An argument out of range, or a network that ``Recursion`` does not take.

    Examples
    --------
    >>> relu = Landscape(MeanField("relu", sigma_w=2**0.5), 6, mean=0.1, cap=0.2)
    >>> relu.values("noise", [[0.2, 0.2, 0.2, 0, 0, 0], [0.1] * 6]).round(6)
    array([0.233488, 0.334991])
    """

    def __init__(
        self,
        network: MeanField,
        depth: int,
        mean: float,
        cap: float,
        eps0: float = 0.5,
        kind: Kind = "drop",
    ) -> None:
        if not 1 <= depth <= 20_000:
            raise InputError(f"depth is {depth!r}; expected 1 to 20000 sites")
        if not (0 <= mean <= cap < 1 and 0 < eps0 <= 1):
            raise InputError(
                f"mean is {mean!r}, cap {cap!r}, eps0 {eps0!r}; expected 0 <= mean <= cap < 1 and a"
                " misalignment in (0, 1]"
            )
        self.recursion = Recursion(network, depth, cap, kind)
        self.network, self.depth, self.kind = self.recursion.network, depth, kind
        self.mean, self.cap, self.eps0 = mean, cap, eps0
        self.starts = (0.0, eps0, 1.0)

    # The paper's quantities ----------------------------------------------------------------------

    @cached_property
    def share(self) -> float:
        """Field of a unit of rate at the length without dropout, ``1 - sigma_b^2/q``."""
        settled = self.recursion.free or self.kind == "field"
        return 1.0 if settled else 1 - self.recursion.bias / self.recursion.q0

    @cached_property
    def _law(self) -> tuple[float, float, float] | Undefined:
        """``kappa``, amplitude and detuning without dropout."""
        found = self.network.universality
        if isinstance(found.kappa, Undefined):
            return found.kappa
        if isinstance(found.amplitude, Undefined):
            return found.amplitude
        kappa, amplitude = float(found.kappa), float(found.amplitude)
        if not 1 < kappa <= 2 or not amplitude > 0:
            return Undefined("the map has no curvature, so there is no law of the field")
        detuning = self.network.detuning
        t = 0.0 if self.recursion.free else float(detuning)
        return kappa, amplitude, 0.0 if abs(t) < 1e-10 else t

    def decay(self, h: Array) -> tuple[Array, Array]:
        """``D(h)``, one minus the slope at the fixed point by the leading law, and ``D'(h)``."""
        law = self._law
        if isinstance(law, Undefined):
            raise InputError(f"the surrogate needs a scaling law: {law.reason}")
        kappa, a, t = law
        h = np.maximum(h, 1e-300)
        if t == 0:
            m = (h / a) ** (1 / kappa)
        else:
            rate = a ** (1 / kappa) * h ** ((kappa - 1) / kappa)
            m = (h / a) ** (1 / kappa) * master(kappa, t / rate)
        decay = kappa * a * m ** (kappa - 1) - t
        return decay, kappa * (kappa - 1) * a * m ** (kappa - 2) / decay

    @cached_property
    def depth_scale(self) -> float:
        """Surrogate depth scale of the uniform schedule, which the reach takes for ``xi``."""
        if self.mean == 0:
            law = self._law
            t = 0.0 if isinstance(law, Undefined) else law[2]
            return 1 / abs(t) if t else np.inf
        return 1 / float(self.decay(np.array(self.mean * self.share))[0])

    @cached_property
    def reach(self) -> Array:
        """Weights ``w_l`` of the second version."""
        return reach_weights(self.depth, self.depth_scale)

    @cached_property
    def rank_lost(self) -> Array:
        """Log effective rank that each layer loses without dropout: first version."""
        apart = self.recursion.follow(np.zeros((1, self.depth)), (1.0,)).eps[:, 0, 0]
        return np.asarray(np.diff(np.log1p((INPUTS - 1) * (1 - apart) ** 2)))

    def linear(self, name: str) -> Array | None:
        """Coefficients of an objective that is linear in the schedule, else None."""
        if name == "reach":
            return self.share * self.reach
        return self.share * self.rank_lost if name == "rank-flow" else None

    # Values --------------------------------------------------------------------------------------

    def _schedules(self, x: Sequence[Sequence[float]] | Array) -> Array:
        x = np.atleast_2d(np.asarray(x, dtype=float))
        if x.ndim != 2 or x.shape[1] != self.depth:
            raise InputError(f"schedules have shape {x.shape}; expected (N, {self.depth})")
        if not np.all((x >= 0) & (x <= self.cap * (1 + 1e-12))):
            raise InputError(f"a rate lies outside [0, {self.cap:g}], the cap of this landscape")
        return x

    def values(self, name: str, x: Sequence[Sequence[float]] | Array) -> Array:
        """One objective of schedules (N, L); see the module for all of them."""
        return self.table(x, (name,))[name]

    def table(
        self, x: Sequence[Sequence[float]] | Array, names: Sequence[str] = tuple(SENSE)
    ) -> dict[str, Array]:
        """Several objectives of schedules (N, L), which are followed once for all of them.

        Infinite without any noise: ``snr``, ``xi``.
        """
        x = self._schedules(x)
        steps = None
        if not set(names) <= set(OF_FIELDS):
            pair = self.starts[:2] if "snr" in names else self.starts[:1]
            steps = self.recursion.follow(x, pair)
        return {check(name): self._value(name, x, steps) for name in names}

    def _value(self, name: str, x: Array, steps: Steps | None) -> Array:
        value = -SENSE[name] * self._loss(name, x, steps)
        if name not in LOGARITHMIC:
            return np.asarray(value)
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(np.exp(value if SENSE[name] > 0 else self._loss(name, x, steps)))

    def _loss(self, name: str, x: Array, steps: Steps | None) -> Array:
        """The value with the sign that makes less better, or its logarithm."""
        linear = self.linear(name)
        if linear is not None:
            return -(x @ linear)
        with np.errstate(divide="ignore"):
            if name == "xi":
                mean = self.decay(x * self.share)[0].mean(axis=1)
                return np.asarray(np.log(np.where(mean > 1e-99, mean, 0.0)))
            assert steps is not None
            eps = steps.eps[..., 0]
            if name == "noise":
                return np.asarray(np.log(eps[-1]))
            if name == "snr":
                return np.asarray(np.log(eps[-1]) - self._log_gap(steps))
        if name == "signal":
            return np.asarray(-np.log(self.recursion.slopes(_only(steps, eps))[..., 0]).sum(axis=0))
        if name == "exposure":
            return np.asarray(-eps[1:].sum(axis=0))
        spread = self.recursion.factors(steps)[0].var(axis=0)
        return np.where(spread < ROUNDING, 0.0, spread)

    def _log_gap(self, steps: Steps) -> Array:
        """``log(e_L - eps_L)``; by slopes from where the difference would lose its digits."""
        eps, gap, close = _gaps(steps)
        switch = np.where(close.any(axis=0), close.argmax(axis=0), len(gap) - 1)
        start: Array = np.log(np.take_along_axis(gap, switch[None], axis=0)[0])
        if not close[:-1].any():
            return start
        middle = eps + np.maximum(gap, 0.0) / 2
        slopes = np.log(self.recursion.slopes(_only(steps, middle))[..., 0])
        after = np.arange(len(slopes))[:, None] >= switch
        return np.asarray(start + np.where(after, slopes, 0.0).sum(axis=0))

    @property
    def lawful(self) -> bool:
        """Whether the network has a scaling law, which the paper's quantities need."""
        return not isinstance(self._law, Undefined)

    def surrogate(self, name: str, x: Sequence[Sequence[float]] | Array) -> Array | None:
        """What the paper puts in the place of an objective, or None."""
        x = self._schedules(x)
        if name == "signal":
            return np.asarray(self.decay(x * self.share)[0].sum(axis=1))
        return self._value("reach", x, None) if name == "exposure" else None

    # Losses and their gradients ------------------------------------------------------------------

    def losses(self, objective: Objective, x: Array) -> Array:
        """What the optimiser makes small: less is better, for every kind of objective.

        Of the named ones, the logarithm of ``noise``, ``snr`` and ``xi``, and the others
        themselves, with the sign that makes less better. A mix ``{name: weight}`` adds these
        losses, each over its size at the uniform schedule where that is not 0.
        """
        if callable(objective):
            return _finite(np.asarray(objective(x), dtype=float), len(x))
        if isinstance(objective, str):
            return self._named(objective, x)
        total: Array = np.zeros(len(x))
        for name, weight in self._weights(objective).items():
            total += weight * self._named(name, x)
        return total

    def _named(self, name: str, x: Array) -> Array:
        check(name)
        x = self._schedules(x)
        if name in OF_FIELDS:
            return self._loss(name, x, None)
        return self._loss(
            name, x, self.recursion.follow(x, self.starts[: 2 if name == "snr" else 1])
        )

    def _weights(self, mix: Mapping[str, float]) -> dict[str, float]:
        """Weights of a mix, over the size of each loss at the uniform schedule."""
        if not mix or not all(np.isfinite(w) for w in mix.values()):
            raise InputError(f"objective is {mix!r}; expected {{name: finite weight}}")
        uniform = np.full((1, self.depth), self.mean)
        sizes = {name: abs(float(self._named(name, uniform)[0])) for name in mix}
        return {
            name: w / (sizes[name] if 1e-12 < sizes[name] < np.inf else 1.0)
            for name, w in mix.items()
        }

    def gradients(self, objective: Objective, x: Array) -> Array:
        """Derivatives of the losses by the schedules, shape (N, L), by one backward recursion.

        Of a function of the user's by central differences.
        """
        return self.losses_and_gradients(objective, x)[1]

    def losses_and_gradients(self, objective: Objective, x: Array) -> tuple[Array, Array]:
        """Both for the price of one path."""
        if callable(objective):
            slopes = np.stack([_differences(objective, row, self.cap) for row in x])
            return self.losses(objective, x), slopes
        mix = {objective: 1.0} if isinstance(objective, str) else self._weights(objective)
        steps = self.recursion.follow(x, self.starts[: 2 if "snr" in mix else 1])
        on, partials = self.recursion.sensitivity(steps), Partials.zero(steps)
        losses = np.zeros(len(x))
        for name, weight in mix.items():
            losses += weight * self._loss(check(name), x, steps)
            self._add(partials, name, weight, steps, on)
        slopes = self.recursion.adjoint(on, partials.x, partials.h, partials.q, partials.eps)
        return losses, slopes

    def _add(self, to: Partials, name: str, weight: float, steps: Steps, on: Sensitivity) -> None:
        linear = self.linear(name)
        eps = steps.eps[-1]
        if linear is not None:
            to.x -= weight * linear[:, None]
        elif name == "xi":
            decay, slope = self.decay(steps.x * self.share)
            to.x += weight * self.share * slope / decay.sum(axis=0)
        elif name == "signal":
            to.eps[:-1, :, 0] -= weight * on.log_slope_eps[..., 0]
            to.h += weight / (1 - steps.h)
            to.q -= weight * on.log_slope_q[..., 0]
        elif name == "noise":
            to.eps[-1, :, 0] += weight / eps[:, 0]
        elif name == "exposure":
            to.eps[1:, :, 0] -= weight
        elif name == "gradient":
            log, by_h, by_q = self.recursion.factors(steps)
            off = 2 * weight * (log - log.mean(axis=0)) / self.depth
            to.h += off * by_h
            to.q += off * by_q
        else:
            to.eps[-1, :, 0] += weight / eps[:, 0]
            _, gap, close = _gaps(steps)
            switch = np.where(close.any(axis=0), close.argmax(axis=0), len(gap) - 1)
            rows = np.arange(len(switch))
            to.eps[switch, rows, 1] -= weight / gap[switch, rows]
            to.eps[switch, rows, 0] += weight / gap[switch, rows]
            after = weight * (np.arange(len(gap) - 1)[:, None] >= switch)
            to.eps[:-1, :, 0] -= after * on.log_slope_eps[..., 0]
            to.h += after / (1 - steps.h)
            to.q -= after * on.log_slope_q[..., 0]

    def quantity(self, name: str, value: float) -> Quantity:
        """A value for a reader, or why there is none."""
        if np.isfinite(value):
            return float(value)
        if name == "xi":
            return Undefined("no layer drops anything: the surrogate depth scale is infinite")
        return Undefined("no layer drops anything: there is no noise to compare with")


def _only(steps: Steps, eps: Array) -> Steps:
    """The same lengths with one path, ``eps`` of shape (L + 1, N)."""
    return Steps(steps.x, steps.h, steps.drop, steps.q, eps[..., None])


def _gaps(steps: Steps) -> tuple[Array, Array, NDArray[np.bool_]]:
    """``eps_l``, ``e_l - eps_l`` and where the latter is so small that it follows the slopes."""
    eps = steps.eps[..., 0]
    gap = steps.eps[..., 1] - eps
    return eps, gap, gap < CLOSE * eps


def check(name: str) -> str:
    """``name`` if it is that of an objective; ``InputError`` with all of them otherwise."""
    if name not in SENSE:
        raise InputError(f"objective is {name!r}; expected {', '.join(SENSE)}")
    return name


def _finite(losses: Array, count: int) -> Array:
    if losses.shape != (count,) or np.any(np.isnan(losses)):
        raise InputError(
            f"the objective gave shape {losses.shape} for {count} schedules, or NaN; expected one"
            " number for each row"
        )
    return losses


def _differences(function: Loss, x: Array, cap: float, step: float = 1e-6) -> Array:
    """Central differences, one-sided at 0 and at the cap."""
    up = np.minimum(x + step, cap) - x
    down = x - np.maximum(x - step, 0.0)
    ends = np.concatenate([x + np.diag(up), x - np.diag(down)])
    high, low = np.split(_finite(np.asarray(function(ends), dtype=float), len(ends)), 2)
    return np.asarray((high - low) / (up + down))

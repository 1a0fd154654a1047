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

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.practice.schedules.layers import Kind, Network
from depthscale.practice.schedules.paths import Partials, Path
from depthscale.practice.schedules.recursion import Recursion
from depthscale.practice.schedules.surrogates import Surrogates
from depthscale.theory.gaussian import Array

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


class Landscape:
    """The objectives of one network, depth and mean rate.

    Parameters
    ----------
    network, q0, sites:
        What ``Recursion`` takes: one ``MeanField`` or one for each layer, the length of the inputs,
        and which layers have a site.
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
        network: Network,
        depth: int,
        mean: float,
        cap: float,
        eps0: float = 0.5,
        kind: Kind = "drop",
        q0: float | None = None,
        sites: Sequence[int] | None = None,
    ) -> None:
        if not 1 <= depth <= 20_000:
            raise InputError(f"depth is {depth!r}; expected 1 to 20000 sites")
        if not (0 <= mean <= cap < 1 and 0 < eps0 <= 1):
            raise InputError(
                f"mean is {mean!r}, cap {cap!r}, eps0 {eps0!r}; expected 0 <= mean <= cap < 1 and a"
                " misalignment in (0, 1]"
            )
        self.recursion = Recursion(network, depth, cap, kind, q0, sites)
        self.paper = Surrogates(self.recursion, mean)
        self.depth, self.kind = depth, kind
        self.mean, self.cap, self.eps0 = mean, cap, eps0
        self._known_sizes: dict[tuple[str, ...], dict[str, float]] = {}

    def rough(self) -> Landscape:
        """The same to some six digits, to compare many schedules of many layers quickly."""
        other = copy.copy(self)
        other.recursion = self.recursion.rough()
        return other

    def linear(self, name: str) -> Array | None:
        """Coefficients of an objective that is linear in the schedule, else None."""
        if name == "reach":
            return self.paper.share * self.paper.reach
        return self.paper.share * self.paper.rank_lost if name == "rank-flow" else None

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
        path = self._path(x, [check(name) for name in names])
        return {name: value_of(name, self._loss(name, x, path)) for name in names}

    def _path(self, x: Array, names: Iterable[str]) -> Path | None:
        """The schedules followed, if any of the objectives needs it."""
        if set(names) <= set(OF_FIELDS):
            return None
        return Path(self.recursion, x, self.eps0 if "snr" in names else None)

    def _loss(self, name: str, x: Array, path: Path | None) -> Array:
        """The value with the sign that makes less better, or its logarithm."""
        linear = self.linear(name)
        if linear is not None:
            return -(x @ linear)
        if name == "xi":
            mean = self.paper.decays(x) / len(self.recursion.layers)
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(np.where(mean > 1e-99, mean, 0.0)))
        assert path is not None
        return path.loss(name)

    @property
    def names(self) -> list[str]:
        """The objectives that this network has: all, or those that need no scaling law."""
        return [n for n in SENSE if self.paper.lawful or n not in ("xi", "reach")]

    def surrogate(self, name: str, x: Sequence[Sequence[float]] | Array) -> Array | None:
        """What the paper puts in the place of an objective, or None."""
        x = self._schedules(x)
        if not self.paper.lawful:
            return None
        if name == "signal":
            return self.paper.decays(x)
        return self.values("reach", x) if name == "exposure" else None

    # Losses and their gradients ------------------------------------------------------------------

    def losses(self, objective: Objective, x: Array) -> Array:
        """What the optimiser makes small: less is better, for every kind of objective.

        Of the named ones, the logarithm of ``noise``, ``snr`` and ``xi``, and the others
        themselves, with the sign that makes less better. A mix ``{name: weight}`` adds these
        losses, each over its size at the uniform schedule where that is not 0.
        """
        if callable(objective):
            return _finite(np.asarray(objective(x), dtype=float), len(x))
        mix = self._weights(objective)
        return self._mixed(mix, self._schedules(x), self._path(x, mix))

    def _mixed(self, mix: Mapping[str, float], x: Array, path: Path | None) -> Array:
        total: Array = np.zeros(len(x))
        for name, weight in mix.items():
            total += weight * self._loss(name, x, path)
        return total

    def _weights(self, objective: str | Mapping[str, float]) -> Mapping[str, float]:
        """Weights of a mix, over the size of each loss at the uniform schedule."""
        if isinstance(objective, str):
            return {check(objective): 1.0}
        if not objective or not all(np.isfinite(w) for w in objective.values()):
            raise InputError(f"objective is {objective!r}; expected {{name: finite weight}}")
        sizes = self._sizes(tuple(check(name) for name in objective))
        return {name: w / sizes[name] for name, w in objective.items()}

    def _sizes(self, names: tuple[str, ...]) -> dict[str, float]:
        """Size of losses at the uniform schedule; 1 where that is 0 or infinite."""
        if names not in self._known_sizes:
            uniform = np.full((1, self.depth), self.mean)
            path = self._path(uniform, names)
            sizes = {name: abs(float(self._loss(name, uniform, path)[0])) for name in names}
            self._known_sizes[names] = {
                name: size if 1e-12 < size < np.inf else 1.0 for name, size in sizes.items()
            }
        return self._known_sizes[names]

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
        mix = self._weights(objective)
        path = Path(self.recursion, x, self.eps0 if "snr" in mix else None)
        partials = Partials.zero(path.steps)
        for name, weight in mix.items():
            if name in OF_FIELDS:
                partials.x += weight * self._field_slopes(name, path.steps.x)
            else:
                path.add(partials, name, weight)
        slopes = self.recursion.adjoint(
            path.sensitivity, partials.x, partials.h, partials.q, partials.eps
        )
        return self._mixed(mix, x, path), slopes

    def _field_slopes(self, name: str, rows: Array) -> Array:
        """Derivatives of a loss of ``OF_FIELDS`` by the numbers of all layers, (D, N)."""
        linear, scattered = self.linear(name), self.recursion.layers.scattered
        if linear is not None:
            return -scattered(linear[None])
        share = scattered(self.paper.share[None])
        decay, slope = self.paper.decay(rows * share)
        return np.asarray(share * slope / decay.sum(axis=0))


def value_of(name: str, loss: Array) -> Array:
    """The objective of a loss."""
    if name not in LOGARITHMIC:
        return np.asarray(-SENSE[name] * loss)
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.exp(-SENSE[name] * loss))


def quantity(name: str, value: float) -> Quantity:
    """A value for a reader, or why there is none."""
    if np.isfinite(value):
        return float(value)
    if name == "xi":
        return Undefined("no layer drops anything: the surrogate depth scale is infinite")
    return Undefined("no layer drops anything: there is no noise to compare with")


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

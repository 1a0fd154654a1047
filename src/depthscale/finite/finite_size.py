r"""The law of the misalignment at the absorbing transition of networks of finite width.

``theory.transition`` has the mean of ``y = n^(1/beta) eps`` and that of its logarithm in closed
form; here is all of its law, at ``s = l/n``. Mean, median and survivors are three different
things: ``log y`` falls as ``lam s`` in most networks, while the mean soon is that of the few in
which it did not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.finite.diffusion.law import Estimate, Law
from depthscale.finite.diffusion.solve import limit_law
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number, as_numbers
from depthscale.theory.transition import AbsorbingTransition


@dataclass(frozen=True)
class Survivors:
    """Networks whose ``y`` is above a threshold, each of shape (S,).

    Attributes
    ----------
    share:
        Their probability.
    mean:
        Mean of ``y`` among them; ``share * mean`` is what they add to the mean of all.
    """

    share: Estimate
    mean: Estimate


@dataclass(frozen=True)
class FiniteSizeLaw:
    """The law of ``y = n^(1/beta) eps`` at times ``s = l/n`` after ``eps`` of order 1.

    Parameters
    ----------
    transition:
        With an alignment equation.
    s:
        Shape (S,), increasing, positive.
    detuning:
        ``theta = n (chi - 1)``.

    Raises
    ------
    InputError
        Times out of range; a transition without an equation.

    Examples
    --------
    >>> from depthscale.theory.transition import absorbing_transition
    >>> found = FiniteSizeLaw(absorbing_transition("tanh", sigma_b=0.3), (1.0,))
    >>> print(found.mean.value.round(3), found.quantile(0.5).value.round(3))
    [2.494] [1.216]
    """

    transition: AbsorbingTransition
    s: tuple[float, ...]
    detuning: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.transition, AbsorbingTransition):
            raise InputError(
                f"transition is {self.transition!r}; expected one of absorbing_transition"
            )
        object.__setattr__(self, "s", tuple(as_numbers("s", self.s).ravel().tolist()))
        _ = self.law

    @cached_property
    def law(self) -> Law:
        """The law with all of its readings."""
        return limit_law(self.transition.equation(self.detuning), math.inf, self.s)

    @property
    def mean(self) -> Estimate:
        """``E y``; ``AbsorbingTransition.scaling_in_size`` has it in closed form."""
        return self.law.mean("y")

    @property
    def log_mean(self) -> Estimate:
        """``exp E log y``, the typical network."""
        value, error = self.law.mean("log_y")
        return Estimate(np.exp(value), np.exp(value) * error)

    def quantile(self, level: float) -> Estimate:
        """``y`` below which this share of networks lies, shape (S,)."""
        value, error = self.law.quantiles([as_number("level", level)], "y")
        return Estimate(value[:, 0], error[:, 0])

    def survivors(self, above: ArrayLike) -> Survivors:
        r"""Networks with ``y > above``.

        No network reaches ``eps = 0`` at a finite depth: who survives is a matter of resolution,
        ``above = n^(1/beta) eps_min``. With ``eps_min = 6e-8`` of single-precision correlations and
        ``n = 256`` it is ``1.5e-5``.

        Parameters
        ----------
        above:
            One positive number, or one for each time.

        Raises
        ------
        InputError
            No positive threshold.
        """
        given = as_numbers("above", above)
        if given.shape not in ((), (1,), (len(self.s),)):
            raise InputError(
                f"above has shape {given.shape}; expected one threshold or {len(self.s)}"
            )
        cuts = np.broadcast_to(given, (len(self.s),))
        if not np.all((cuts > 0) & (cuts < math.inf)):
            raise InputError(f"above is {above!r}; expected positive thresholds of y, one or each")
        share, excess = np.array([self._beyond(k, float(c)) for k, c in enumerate(cuts)]).T
        value, error = share
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = cuts + excess[0] / value
            wrong = (excess[1] + (mean - cuts) * error) / value
        return Survivors(Estimate(value, error), Estimate(mean, wrong))

    def _beyond(self, index: int, cut: float) -> Array:
        """``P(y > cut)`` and ``E max(y - cut, 0)`` at one time, with errors, ``[2, value]``."""
        below, wrong = self.law.cdf([cut], "y")
        excess = self.law.expectation(lambda u, _: np.maximum(np.exp(u) - cut, 0.0))
        return np.array(
            [
                [1 - below[index, 0], excess.value[index]],
                [wrong[index, 0], excess.error[index]],
            ]
        )

r"""The absorbing transition of random networks: where it is, and its laws without a free parameter.

Two signals that have become equal stay equal: an absorbing state, with ``eps = 1 - correlation`` as
order parameter. In a network of width ``n`` that keeps lengths ``x = eps^-beta`` obeys, per layer,

    dx = [A beta - beta (theta + lam)/n x + beta^2 s^2/(2n) x] dl - beta s/sqrt(n) x dB,

``theta/n = chi - 1 = gamma (sigma_w - sigma_wc)``, ``beta`` 1 for smooth activations and 1/2 for
kinked ones (see ``alignment_equation``). It is linear: all laws in the detuning and in the width
are those of integrals of geometric Brownian motion. With ``z = (beta A l)^(1/beta) eps``, 1 for the
critical network of infinite width,

    z = [beta x/(1 - e^(-beta x))]^(1/beta),  x = gamma (sigma_w - sigma_wc) l      n infinite
    eps = n^(-1/beta) f(l/n)                                                        critical
    z = F(gamma (sigma_w - sigma_wc) l, l/n)                                        both.

The noise multiplies ``eps``. That of directed percolation multiplies ``sqrt(eps)`` and would end
critical decay at ``l ~ n^(1/2)``; here it ends at ``l ~ n``. (2307.02284; constants and closed
forms are derived here.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.theory.alignment_equation import AlignmentEquation
from depthscale.theory.exponential_functional import log_integral, log_integral_growth
from depthscale.theory.gaussian import Array
from depthscale.theory.limit_constants import NEAR, constants
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number, as_numbers, together, whole, with_reasons
from depthscale.theory.universal.record import universality

STATISTICS = ("mean", "log_mean")
"""What has a closed form at finite width: the mean of ``eps``, and ``exp`` of that of its log."""

_FAR = 1 / 6
"""``|lam|/n`` above which a layer is too narrow for an expansion in ``1/n``.

Networks of tanh and 12 units, at its edge, have their boundary 2 % beyond; those of 8 have none.
"""


class Exponents(NamedTuple):
    """``eps* ~ tau^beta``, depth scale ``~ |tau|^-nu_par``, ``eps ~ l^-delta`` at the transition.

    ``nu_n``: finite width ends critical decay at ``l ~ n^nu_n``.
    """

    beta: float
    nu_par: float
    delta: float
    nu_n: float


@dataclass(frozen=True)
class AbsorbingTransition:
    """The transition of one activation at one bias, and its laws.

    Attributes
    ----------
    layer:
        The critical layer of infinite width; None where there is none.
    sigma_w, sigma_b, q:
        Where it is, and its length.
    curvature, map_beta:
        ``A`` and ``beta`` of ``eps' = chi eps - A eps^(1 + beta)``.
    gamma:
        ``d chi/d sigma_w``, the length following.
    lam, variance:
        n times the exponent of ``eps`` at the critical point, and n times the variance rate of
        ``log eps``.
    """

    layer: MeanField | None = field(repr=False)
    sigma_w: Quantity
    sigma_b: Quantity
    q: Quantity
    curvature: Quantity
    map_beta: Quantity
    gamma: Quantity
    lam: Quantity
    variance: Quantity

    @property
    def mu(self) -> Quantity:
        """``E z = 1 - mu l/n + ...``: ``-(lam/2 + (2 - beta) s^2/12)``."""
        for needed in (self.lam, self.map_beta):
            if isinstance(needed, Undefined):
                return needed
        lam, variance = float(self.lam), float(self.variance)
        return -lam / 2 - (2 - float(self.map_beta)) * variance / 12

    @property
    def exponents(self) -> Exponents | Undefined:
        """All mean field, but for ``nu_n``, which would be 1/2 for directed percolation."""
        beta = self.map_beta
        if isinstance(beta, Undefined):
            return beta
        return Exponents(beta=1 / beta, nu_par=1.0, delta=1 / beta, nu_n=1.0)

    # Where it is ---------------------------------------------------------------------------------

    def network(self, sigma_w: float | None = None) -> MeanField:
        """The layer at other weights and the same bias; ``InputError`` where there is none."""
        if self.layer is None:
            raise InputError(f"no critical network: {self.sigma_w}")
        return self.layer if sigma_w is None else replace(self.layer, sigma_w=sigma_w)

    def lyapunov(self, sigma_w: float, n: float) -> float:
        """Growth of ``log eps`` per layer near alignment, ``log chi + lam/n``, to order ``1/n``.

        Parameters
        ----------
        sigma_w:
            Any at which a length is kept.
        n:
            Width, at least 1, or ``inf``.

        Raises
        ------
        InputError
            Numbers out of range; no length is kept.
        """
        width = _width(n)
        layer = self.network(sigma_w)
        found = constants(layer, math.inf)
        lam = sum(found.lam_parts.values())
        return math.log(float(layer.chi)) + lam / width

    def boundary(self, n: float, first_order: bool = False) -> Quantity:
        """``sigma_w`` at which that exponent is 0: the transition at width ``n``.

        Exactly 0, or with ``first_order`` its expansion ``sigma_wc - lam/(gamma n)``. Both leave
        out ``O(1/n^2)``: the first keeps what the finite shift itself does to ``chi`` and ``lam``.
        ``Undefined`` where ``|lam|/n`` is above 1/6, and where there is no boundary.
        """
        from scipy.optimize import brentq

        width = _width(n)
        for needed in (self.gamma, self.lam):
            if isinstance(needed, Undefined):
                return needed
        gamma, lam, here = float(self.gamma), float(self.lam), float(self.sigma_w)
        if abs(lam) / width > _FAR:
            return Undefined(
                f"lam/n = {lam / width:.3g} at n = {width:g}: too narrow for an expansion in 1/n;"
                " measure it, depthscale.finite.lyapunov.measured_boundary"
            )
        shift = -lam / (gamma * width)
        if first_order or shift == 0:
            return here + shift
        for reach in (1.5, 2.25, 3.5, 5.0):
            far = here + reach * shift
            if far > 0 and self.lyapunov(far, n) * lam < 0:
                ends = sorted((here, far))
                return float(brentq(self.lyapunov, *ends, args=(n,), xtol=1e-12, rtol=1e-12))
        return Undefined(f"no weights up to sigma_w = {far:.4g} bring the exponent to 0")

    # Laws ----------------------------------------------------------------------------------------

    def equation(self, detuning: float = 0.0) -> AlignmentEquation:
        """Of ``y = n^(1/beta) eps`` in ``t = l/n``, at ``theta = detuning = n (chi - 1)``."""
        for needed in (self.curvature, self.lam):
            if isinstance(needed, Undefined):
                raise InputError(f"there is no alignment equation: {needed.reason}")
        return AlignmentEquation(
            float(self.curvature),
            float(self.map_beta),
            float(self.variance),
            float(self.lam),
            detuning,
        )

    def scaling_in_detuning(self, x: ArrayLike) -> Array:
        r"""``z = (beta A l)^(1/beta) eps = [beta x/(1 - e^(-beta x))]^(1/beta)`` at infinite width.

        ``d eps/dl = t eps - A eps^(1 + beta)`` from any ``eps_0 >> (A l)^(-1/beta)``. Logarithms
        correct it: ``z = 1 - c log(l)/l`` at the critical point.

        Parameters
        ----------
        x:
            ``gamma (sigma_w - sigma_wc) l``, any shape.

        Examples
        --------
        >>> smooth = absorbing_transition("tanh", sigma_b=0.3)
        >>> smooth.scaling_in_detuning([-1.0, 0.0, 1.0]).round(6)
        array([0.581977, 1.      , 1.581977])
        """
        from scipy.special import exprel

        beta = self._beta()
        scaled = beta * as_numbers("x", x)
        if not np.all(np.isfinite(scaled)):
            raise InputError(f"x is {x!r}; expected finite numbers")
        with np.errstate(over="ignore"):
            # x/(1 - e^-x) = e^x/exprel(x): neither overflows on its own side
            up = exprel(-np.maximum(scaled, 0.0))
            down = np.exp(np.minimum(scaled, 0.0)) / exprel(np.minimum(scaled, 0.0))
        return np.asarray((down / up) ** (1 / beta))

    def scaling_in_size(self, s: ArrayLike, statistic: str = "mean") -> Array:
        r"""``f(s)`` of ``eps = n^(-1/beta) f(l/n)`` in the critical network of infinite width.

        Smooth: ``A f = d/ds E log int_0^s exp(lam u + s W_u) du``, that is ``1/s - mu + ...``.
        See ``scaling`` for the arguments, ``finite.finite_size`` for medians and survivors.

        Examples
        --------
        >>> tanh = absorbing_transition("tanh", sigma_b=0.3)
        >>> (tanh.curvature * tanh.scaling_in_size([0.2, 1.0])).round(4)
        array([4.4663, 0.5823])
        """
        time = as_numbers("s", s)
        beta, curvature = self._beta(), float(self.curvature)
        scale = (beta * curvature * _positive("s", time)) ** (-1 / beta)
        return np.asarray(scale * self.scaling(0.0, time, statistic))

    def scaling(self, x: ArrayLike, s: ArrayLike, statistic: str = "mean") -> Array:
        r"""``z = F(x, s)``: both the detuning and the width.

        With ``m = beta (x/s + lam)``, ``I_s = int_0^s exp(m u + beta s W_u) du`` and its twin ``J``
        of ``-m``: ``E eps^beta = d/ds E log I/(beta A)``; ``E eps`` for ``beta = 1/2`` from that
        and its derivative; ``E log eps = -E log(beta A J)/beta``.

        Parameters
        ----------
        x, s:
            ``gamma (sigma_w - sigma_wc) l`` and ``l/n > 0``, of shapes that broadcast.
        statistic:
            ``"mean"``, or ``"log_mean"``: ``exp E log``.

        Raises
        ------
        InputError
            Numbers out of range; a statistic without a closed form.
        """
        detuning, time = together(x=as_numbers("x", x), s=_positive("s", as_numbers("s", s)))
        if statistic not in STATISTICS:
            raise InputError(
                f"statistic is {statistic!r}; expected {' or '.join(STATISTICS)}: quantiles come"
                " from the density, depthscale.finite.finite_size"
            )
        own = _mean if statistic == "mean" else _log_mean
        cells = zip(detuning.ravel().tolist(), time.ravel().tolist(), strict=True)
        values = [own(self.equation(u / t if u else 0.0), t) for u, t in cells]
        beta, curvature = self._beta(), float(self.curvature)
        scale = (beta * curvature * time) ** (1 / beta)
        return np.asarray(scale * np.array(values).reshape(time.shape))

    def _beta(self) -> float:
        if isinstance(self.map_beta, Undefined):
            raise InputError(f"there is no scaling: {self.map_beta.reason}")
        return float(self.map_beta)

    # Out -----------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: what does not exist is null, with its reason under ``reasons``."""
        names = ("sigma_w", "sigma_b", "q", "curvature", "map_beta", "gamma", "lam", "variance")
        name = "" if self.layer is None else self.layer.activation.name
        record = {"activation": name, **{name: getattr(self, name) for name in names}}
        return with_reasons({**record, "mu": self.mu})

    def __str__(self) -> str:
        """A line for each number."""
        about = {
            "sigma_w": "critical weights at infinite width",
            "sigma_b": "bias",
            "q": "length",
            "map_beta": "the map bends as eps^(1 + beta)",
            "curvature": "A, its coefficient",
            "gamma": "d chi/d sigma_w",
            "lam": "n times the exponent of eps at the critical point",
            "variance": "n times the variance rate of log eps",
            "mu": "z = 1 - mu l/n",
        }
        title = "" if self.layer is None else f", {self.layer.activation.name}"
        lines = [f"absorbing transition{title}"]
        if self.layer is None:
            return f"{lines[0]}: {self.sigma_w}"
        for name, text in about.items():
            value = getattr(self, name)
            shown = f"{value}; " if isinstance(value, Undefined) else f"{value:<12.6g}"
            lines.append(f"  {name:<10}{shown}{text}")
        return "\n".join(lines)


def absorbing_transition(
    activation: Any, sigma_b: float | None = None, q: float | None = None
) -> AbsorbingTransition:
    """The transition between order, where all signals become equal, and chaos.

    Parameters
    ----------
    activation:
        Anything that ``activation()`` accepts.
    sigma_b, q:
        One of the two: standard deviation of the biases, or the length.

    Returns
    -------
    AbsorbingTransition
        With ``Undefined`` for what does not exist: all of it where no critical length is stable
        (tanh at ``sigma_b = 0``); ``gamma`` and the boundary for scale-free activations without
        bias, whose misalignment map is critical at any weights; ``lam`` where the scatter of a
        layer has no such constants.

    Raises
    ------
    InputError
        Neither or both of ``sigma_b`` and ``q``, or values out of range.

    Examples
    --------
    >>> tanh = absorbing_transition("tanh", sigma_b=0.3)
    >>> round(tanh.sigma_w, 6), round(tanh.gamma, 4), round(tanh.lam, 3), round(tanh.mu, 3)
    (1.395584, 0.6044, -1.854, 0.573)
    >>> round(tanh.boundary(100), 4), round(tanh.boundary(100, first_order=True), 4)
    (1.4277, 1.4263)
    """
    if (sigma_b is None) == (q is None):
        raise InputError(f"give exactly one of sigma_b and q, got sigma_b={sigma_b}, q={q}")
    record = universality(activation, sigma_b=sigma_b, q=q)
    layer = record.field
    if layer is None:
        none = Undefined(record.reason)
        return AbsorbingTransition(None, *(none,) * 8)
    tau = record.metric_factors["tau"]
    gamma = tau if isinstance(tau, Undefined) else tau / layer.sigma_w
    kappa = record.kappa
    beta = kappa if isinstance(kappa, Undefined) else kappa - 1
    lam: Quantity
    variance: Quantity
    try:
        found = constants(layer, NEAR)
        lam, variance = sum(found.lam_parts.values()), sum(found.variance_parts.values())
        beta = found.beta
    except InputError as error:
        lam = variance = Undefined(str(error))
    if not isinstance(record.amplitude, Undefined) and not record.amplitude > 0:
        beta = Undefined("the map has no curvature: misalignment is multiplied, nothing bends it")
    return AbsorbingTransition(
        layer, layer.sigma_w, layer.sigma_b, layer.q, record.amplitude, beta, gamma, lam, variance
    )


def _mean(equation: AlignmentEquation, time: float) -> float:
    """``E y`` after a start at infinity, from moments of ``x = y^-beta``."""
    beta, source = equation.beta, equation.curvature * equation.beta
    rate, noise = beta * equation.late_rate, beta**2 * equation.variance
    inverse = float(log_integral_growth(rate, noise, time)) / source
    if beta == 1:
        return inverse
    if beta == 0.5:
        # d E 1/x = -A beta E x^-2 + (beta^2 s^2/2 + rate) E 1/x
        slope = float(log_integral_growth(rate, noise, time, 1)) / source
        return ((noise / 2 + rate) * inverse - slope) / source
    raise InputError(
        f"beta = {beta:g}: the mean of eps has a closed form for 1 and 1/2; take the density,"
        " depthscale.finite.finite_size, or statistic='log_mean'"
    )


def _log_mean(equation: AlignmentEquation, time: float) -> float:
    """``exp E log y`` after a start at infinity."""
    beta = equation.beta
    log = float(log_integral(-beta * equation.late_rate, beta**2 * equation.variance, time))
    return math.exp(-(math.log(equation.curvature * beta) + log) / beta)


def _width(n: float) -> float:
    if as_number("n", n) == math.inf:
        return math.inf
    return float(whole("n", n, 1, "units"))


def _positive(name: str, values: Array) -> Array:
    if not np.all((values > 0) & (values < math.inf)):
        raise InputError(f"{name} is {values!r}; expected finite depths in widths, above 0")
    return values

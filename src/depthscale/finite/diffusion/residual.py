r"""Residual networks with branches of size ``d^(-1/2)``, and the shaped networks that equal them.

    z' = z + (sigma^2/(d n))^(1/2) W phi(z),    W of standard normal entries,  t = l/d,

``phi`` of slopes ``r_+`` and ``r_-``. As the width grows, at any depth, two inputs of equal length
follow ``rho' = nu(rho)`` of a shaped network with ``c_(+-) = sigma r_(+-)`` (2310.12079; the
mapping of constants derived here), since ``E phi phi = m rho + (Dr^2/2 pi)(sin th - th cos th)``
with ``m = (r_+^2 + r_-^2)/2``.

The two differ in what fluctuates. A shaped network follows a stochastic equation once its depth is
a part of its width; a residual one stays deterministic, with normal fluctuations of size
``n^(-1/2)`` at any depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.finite.diffusion.law import Estimate
from depthscale.finite.diffusion.shaped import Alignment, ShapedReLU, bend
from depthscale.theory.activation import activation
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number, whole


@dataclass(frozen=True)
class ResidualReLU:
    """A residual network of bias-free piecewise linear branches.

    Parameters
    ----------
    variance:
        ``sigma^2 > 0`` of the branches: weights of variance ``sigma^2/(d n)``.
    slope_plus, slope_minus:
        Slopes of the activation above and below 0, not both 0.

    Raises
    ------
    InputError
        Numbers out of range.

    Examples
    --------
    >>> residual = ResidualReLU(1.0, 1.0, 0.0)
    >>> residual.mean_field(1.0, rho0=0.3).rho.round(6)
    array([0.382947])
    """

    variance: float
    slope_plus: float = 1.0
    slope_minus: float = 0.0

    def __post_init__(self) -> None:
        for name in ("variance", "slope_plus", "slope_minus"):
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        if not 0 < self.variance < 1e12:
            raise InputError(f"variance is {self.variance}; expected a finite number above 0")
        slopes = abs(self.slope_plus), abs(self.slope_minus)
        if not 0 < max(slopes) <= 1e6:
            raise InputError(
                f"slopes are {self.slope_plus} and {self.slope_minus}; expected finite numbers that"
                " are not both 0"
            )

    @property
    def bending(self) -> float:
        """``Dc^2 = sigma^2 (r_+ - r_-)^2``."""
        return self.equivalent_shaped().bending

    @property
    def growth(self) -> float:
        """``d log q/dt = sigma^2 (r_+^2 + r_-^2)/2`` of the mean square; norms grow at half of it.

        Dividing every layer by ``exp(growth/(2 d))`` keeps the length, as in the shaped network.
        """
        return self.variance * (self.slope_plus**2 + self.slope_minus**2) / 2

    def equivalent_shaped(self) -> ShapedReLU:
        """The shaped network, at depth rate d, of the same correlations: ``c = sigma r``."""
        sigma = math.sqrt(self.variance)
        return ShapedReLU(sigma * self.slope_plus, sigma * self.slope_minus)

    def layer(self, depth: float) -> MeanField:
        """A hop of the network of this depth: a skip and weights of variance ``sigma^2/(d n)``."""
        number = as_number("depth", depth)
        if not 1 <= number < math.inf:
            raise InputError(f"depth = {depth!r}: expected a number of layers, at least 1")
        phi = activation(f"shaped_relu({self.slope_minus!r}, {self.slope_plus!r})")
        return MeanField(phi, math.sqrt(self.variance / number), skip=1.0)

    def mean_field(
        self, times: ArrayLike, rho0: float | None = None, eps0: float | None = None
    ) -> Alignment:
        """The correlation at infinite width; see ``ShapedReLU.mean_field``."""
        return self.equivalent_shaped().mean_field(times, rho0, eps0)

    def fluctuation(
        self,
        depth: int,
        rho0: float,
        *,
        layers: int | None = None,
        start: str = "pinned",
        paths: int = 200_000,
        seed: int = 0,
    ) -> Estimate:
        r"""``sqrt n`` times the standard deviation of the correlation over wide networks.

        Given all correlations, units are independent Gaussian processes, and the fluctuations of
        their averages feed back through the branches. To leading order in 1/n the deviation of
        ``rho_l`` is an average over units of (derived here)

            Y = g_l(z_l)/q_l + (sigma^2/d) sum_(k<l) a_(k+1) g_(k+1)(phi(z_k))/q_(k+1),
            g_k(z) = z_1 z_2 - rho_k (z_1^2 + z_2^2)/2,     a_k = d rho_l/d rho_k,

        with ``z_k`` the two signals of one unit at layer k and ``q_k`` their mean square. ``n Var
        rho = Var Y``, of which inputs of given length and correlation remove what depends linearly
        on the products of ``z_0``. By Monte Carlo over paths of one unit.

        Parameters
        ----------
        depth:
            d, at least 1; it matters by order 1/d only.
        rho0:
            The correlation at the start, inside (-1, 1).
        layers:
            At which layer l, ``depth`` if not given.
        start:
            ``"pinned"``: the inputs have exactly these lengths and correlation; ``"drawn"``: their
            units are Gaussian.
        paths, seed:
            Of the Monte Carlo; at least 100 paths.

        Raises
        ------
        InputError
            Numbers out of range.
        """
        first = as_number("rho0", rho0)
        depth = whole("depth", depth, 1, "layers")
        last = depth if layers is None else whole("layers", layers, 0)
        paths, seed = whole("paths", paths, 100), whole("seed", seed, 0)
        if not -1 < first < 1:
            raise InputError(f"rho0 = {rho0}: expected a correlation inside (-1, 1)")
        if start not in ("pinned", "drawn"):
            raise InputError(f"start = {start!r}: expected one of pinned, drawn")
        draws = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed)))
        begun, y = self._one_unit(depth, last, first, draws, paths)
        y -= y.mean()
        if start == "pinned":
            products = np.stack([begun[0] ** 2, begun[0] * begun[1], begun[1] ** 2])
            products -= products.mean(axis=1, keepdims=True)
            y -= np.linalg.solve(products @ products.T, products @ y) @ products
        square = y * y
        sd = math.sqrt(float(square.mean()))
        error = float(square.std()) / math.sqrt(paths) / (2 * sd) if last else 0.0
        return Estimate(np.array(sd), np.array(error))

    def _one_unit(
        self, depth: int, last: int, first: float, draws: np.random.Generator, paths: int
    ) -> tuple[Array, Array]:
        """The start ``z_0`` of one unit, (2, paths), and its ``Y``, (paths,)."""
        grown, front = self.growth / depth, self.bending / (2 * math.pi * depth)
        rho, slope = [first], []  # layer by layer, with d rho_(k+1)/d rho_k
        for _ in range(last):
            angle = math.acos(min(max(rho[-1], -1.0), 1.0))
            slope.append(1 - front * angle / (1 + grown))
            rho.append(rho[-1] + front * float(bend(np.array(angle))) / (1 + grown))
        lever = np.append(np.cumprod(slope[::-1])[::-1], 1.0)
        z = _gaussian(draws, 1.0, first, paths)
        begun, total, q = z.copy(), np.zeros(paths), 1.0
        for k in range(last):
            phi = np.where(z > 0, self.slope_plus, self.slope_minus) * z
            before, q = q, q * (1 + grown)
            total += self.variance / depth * lever[k + 1] * _tilt(phi, rho[k + 1]) / q
            z += _gaussian(draws, q - before, q * rho[k + 1] - before * rho[k], paths)
        return begun, total + _tilt(z, rho[-1]) / q


def _gaussian(draws: np.random.Generator, own: float, cross: float, paths: int) -> Array:
    """Pairs (2, paths) of variance ``own`` and covariance ``cross``."""
    plus, minus = draws.standard_normal((2, paths))
    plus *= math.sqrt(max(own + cross, 0.0) / 2)
    minus *= math.sqrt(max(own - cross, 0.0) / 2)
    return np.stack([plus + minus, plus - minus])


def _tilt(x: Array, rho: float) -> Array:
    """``x_1 x_2 - rho (x_1^2 + x_2^2)/2``: what one unit does to the correlation."""
    return np.asarray(x[0] * x[1] - rho / 2 * (x[0] ** 2 + x[1] ** 2))


def residual_of(shaped: ShapedReLU, variance: float = 1.0) -> ResidualReLU:
    """The residual network, of branches of this ``sigma^2``, that equals a shaped one.

    ``r_(+-) = c_(+-)/sigma``; ``residual_of(r.equivalent_shaped(), r.variance)`` is ``r``.

    Raises
    ------
    InputError
        Both slopes 0: the shaped network is the identity and has no branches.
    """
    sigma = math.sqrt(max(as_number("variance", variance), 0.0))
    if sigma == 0:
        raise InputError(f"variance is {variance!r}; expected a number above 0")
    if shaped.c_plus == shaped.c_minus == 0:
        raise InputError("c_plus = c_minus = 0 is the identity: expected a slope that is not 0")
    return ResidualReLU(variance, shaped.c_plus / sigma, shaped.c_minus / sigma)


@dataclass(frozen=True)
class Equivalence:
    """A residual and a shaped network of the same deterministic limit, and what differs.

    Attributes
    ----------
    residual, shaped:
        The two, of depth d each; slopes of the shaped one are ``1 + c/sqrt d``.
    bending:
        ``Dc^2``, which decides ``rho' = nu(rho)``.
    differences:
        What is not the same, in sentences.
    """

    residual: ResidualReLU
    shaped: ShapedReLU
    bending: float
    differences: tuple[str, ...]

    def __str__(self) -> str:
        r, s = self.residual, self.shaped
        lines = [
            f"residual network, sigma^2 = {r.variance:g}, slopes {r.slope_plus:g} and"
            f" {r.slope_minus:g}, branches over sqrt d",
            f"= shaped network, slopes 1 + {s.c_plus:g}/sqrt d and 1 + {s.c_minus:g}/sqrt d",
            f"in the correlation at infinite width: rho' = nu(rho) with Dc^2 = {self.bending:g}",
        ]
        return "\n".join([*lines, *(f"- {text}" for text in self.differences)])


def equivalence(network: ResidualReLU | ShapedReLU, variance: float = 1.0) -> Equivalence:
    """Which shaped network a residual one equals, or the other way round.

    Parameters
    ----------
    network:
        Either of the two.
    variance:
        ``sigma^2`` of the branches, where a shaped network is given.

    Raises
    ------
    InputError
        Anything else: with other activations the drift of the correlation depends on the length,
        which grows in one network and not in the other, so that none equals the other.
    """
    if isinstance(network, ResidualReLU):
        residual, shaped = network, network.equivalent_shaped()
    elif isinstance(network, ShapedReLU):
        residual, shaped = residual_of(network, variance), network
    else:
        raise InputError(
            f"equivalence of {network!r}: expected a ResidualReLU or a ShapedReLU; it is exact only"
            " for two slopes that meet at 0, since other activations see the length, which grows in"
            " the residual network: compare the maps of MeanField(..., skip=1) instead"
        )
    differences = (
        f"mean squares grow as exp({residual.growth:g} t) in the residual network and stay in the"
        " shaped one",
        "the correlation scatters by order n^(-1/2) in the residual network whatever its depth, by"
        " order (d/n)^(1/2) in the shaped one, which needs d << n",
        "at finite depth the residual network is off by order 1/d, the shaped one too if"
        " c_plus = -c_minus, else by order d^(-1/2)",
    )
    return Equivalence(residual, shaped, shaped.bending, differences)

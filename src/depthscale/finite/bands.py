"""Quantiles of the correlation of two signals, layer by layer, from the best available engine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from depthscale.answers import InputError, Undefined
from depthscale.finite.band import CorrelationBand, Referee
from depthscale.finite.chain.covariance import covariance_paths, why_not
from depthscale.finite.chain.density import chain_density
from depthscale.finite.chain.paths import chain_paths
from depthscale.finite.chain.plan import STARTS, Route
from depthscale.finite.diffusion.equation import CORRELATION
from depthscale.finite.diffusion.law import LEVELS, Law, SampleLaw
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.theory.activation import activation as as_activation
from depthscale.theory.arguments import checked_pair
from depthscale.theory.criticality import critical_point
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_numbers, whole

ENGINES = ("chain", "chain paths", "ensemble")
LEAST_WIDTH = 16
"""Units from which the expansion of the chain in 1/n is trusted without being asked for."""
NARROW = f"some layer is narrower than {LEAST_WIDTH} units"


def correlation_band(
    activation: Any,
    width: int | Sequence[int],
    depth: int,
    eps0: float,
    *,
    sigma_w: float | None = None,
    sigma_b: float | None = None,
    drop: float = 0.0,
    skip: float = 0.0,
    q0: float | None = None,
    levels: Sequence[float] = LEVELS,
    engine: str | None = None,
    start: str = "drawn",
    masks: str = "independent",
    measured: bool = True,
    networks: int = 20_000,
    seed: int = 0,
    referee: bool = False,
) -> CorrelationBand:
    """How the correlation of two signals is distributed over random networks, at every layer.

    Parameters
    ----------
    activation:
        Anything that ``activation()`` accepts.
    width:
        Units of every layer, at least 2, or of each of the ``depth + 1`` layers.
    depth:
        Number L of hops, at least 1.
    eps0:
        ``1 - correlation`` of the pair at layer 0, in [0, 2].
    sigma_w, sigma_b:
        Standard deviations. ``sigma_w=None``: critical, at this ``sigma_b`` or at the length
        ``q0``; scale-free activations need neither.
    drop, masks, skip:
        As for ``MeanField``. A residual network needs ``sigma_w`` and is sampled.
    q0:
        Mean square of the pre-activations at layer 0, default that at which the network settles, or
        1 where it does not.
    levels:
        Probabilities in (0, 1).
    engine:
        "chain": the correlation alone, by its density; only for two slopes without bias or
        dropout. "chain paths": paths of the correlation, or, for other activations, of both
        lengths and the correlation. "ensemble": exact networks. Default: the first that holds.
    start:
        "drawn": layer 0 are units behind a random layer, whose covariance is so misaligned;
        "pinned": units that measure exactly that; "inputs": inputs, whose first hop is linear, as
        in ``Ensemble``.
    measured:
        Whether the cosine of the n units of a layer is meant, as networks show it, or the
        correlation of their covariance, which is the cosine of the activations that feed them.
    networks, seed:
        Of what is sampled, the referee included.
    referee:
        Compare with exact networks, at layers L/4, L/2 and L; needs ``measured``.

    Raises
    ------
    InputError
        With what was given and what is expected.

    Examples
    --------
    >>> band = correlation_band("leaky_relu(0.57044)", 256, 100, 1.0)
    >>> band.engine, band.rho[-1].round(3).tolist()
    ('chain', [0.719, 0.863, 0.923, 0.959, 0.985])
    """
    case = _case(activation, width, depth, eps0, sigma_w, sigma_b, drop, masks, q0, start, skip)
    asked = as_numbers("levels", levels).ravel()
    if not asked.size or not np.all((asked > 0) & (asked < 1)):
        raise InputError(f"levels are {levels!r}; expected probabilities inside (0, 1)")
    if referee and not measured:
        raise InputError(
            "referee=True with measured=False: exact networks show the cosine of their units, not"
            " the correlation of their covariance; take measured=True"
        )
    networks = whole("networks", networks, 2, "networks")
    seed = whole("seed", seed, 0)
    chosen, why = _choose(case, engine, measured)
    found = _law(case, chosen, measured, networks, seed)
    z, z_error = found.law.quantiles(asked, "z")
    z_error = z_error + found.model_error(asked, z)
    slope = CORRELATION["rho"].slope(z, 0.0)
    error = np.where(slope > 0, slope * np.nan_to_num(z_error), 0.0)
    band = CorrelationBand(
        layers=np.arange(len(case.widths), dtype=np.int64),
        levels=asked,
        rho=np.tanh(z),
        rho_error=error,
        eps=CORRELATION["eps"].of(z, 0.0),
        eps_error=error,
        widths=case.widths,
        activation=case.layer.activation.name,
        sigma_w=case.layer.sigma_w,
        sigma_b=case.layer.sigma_b,
        drop=case.layer.drop,
        q0=case.q0,
        eps0=case.eps0,
        start=start,
        measured=measured,
        engine=chosen,
        why=why + found.note,
        law=found.law,
    )
    return replace(band, referee=_referee(case, found.law, networks, seed)) if referee else band


class _Case(NamedTuple):
    """One request, checked."""

    layer: MeanField
    widths: tuple[int, ...]
    eps0: float
    q0: float
    start: str

    def route(self) -> Route:
        """As a chain of the correlation; ``InputError`` where it is none."""
        return Route.of(self.layer.activation, self.widths, self.eps0, self.start)


def _case(
    activation: Any,
    width: int | Sequence[int],
    depth: int,
    eps0: float,
    sigma_w: float | None,
    sigma_b: float | None,
    drop: float,
    masks: str,
    q0: float | None,
    start: str,
    skip: float,
) -> _Case:
    depth = whole("depth", depth, 1, "hops")
    sizes = list(width) if isinstance(width, Iterable) else [width] * (depth + 1)
    if len(sizes) != depth + 1:
        raise InputError(
            f"{len(sizes)} widths for depth {depth}: expected one number, or {depth + 1} of them"
        )
    widths = tuple(whole("width", size, 2, "units") for size in sizes)
    if start not in STARTS:
        raise InputError(f"start = {start!r}: expected one of {', '.join(STARTS)}")
    phi = as_activation(activation)
    if sigma_w is None and skip:
        raise InputError(f"skip = {skip!r}: a residual network has no critical sigma_w; give one")
    if sigma_w is None:
        sigma_w, sigma_b, q0 = _critical(phi, sigma_b, drop, masks, q0)
    layer = MeanField(phi, sigma_w, sigma_b or 0.0, drop=drop, masks=masks, skip=skip)
    if q0 is None:
        settled = Undefined("without theory") if phi.why_no_theory else layer.q
        q0 = 1.0 if isinstance(settled, Undefined) else settled
    pair = checked_pair(q0, q0, eps0)
    return _Case(layer, widths, pair.eps, pair.q1, start)


def _critical(
    phi: Any, sigma_b: float | None, drop: float, masks: str, q0: float | None
) -> tuple[float, float, float | None]:
    """``sigma_w, sigma_b`` and the length of the critical point that is meant."""
    if phi.scale_free:  # no weight changes the correlation: this one keeps the length
        point = critical_point(phi, sigma_b or 0.0, None, drop, "gradient", masks)
    elif (sigma_b is None) == (q0 is None):
        raise InputError(
            f"a critical {phi.name} is one of a line: give sigma_b or the length q0, one of the"
            " two, or give sigma_w"
        )
    elif sigma_b is not None:
        point = critical_point(phi, sigma_b=sigma_b, drop=drop, masks=masks)
    else:
        point = critical_point(phi, q=q0, drop=drop, masks=masks)
    if not point.exists:
        raise InputError(f"{phi.name} has no critical point here ({point.reason}); give sigma_w")
    length = None if phi.scale_free else float(point.q)
    return float(point.sigma_w), float(point.sigma_b), q0 if q0 is not None else length


def _choose(case: _Case, engine: str | None, measured: bool) -> tuple[str, str]:
    """The engine and the reason for it."""
    if engine is not None and engine not in ENGINES:
        raise InputError(f"engine = {engine!r}: expected one of {', '.join(ENGINES)}")
    one, three = _not_one(case.layer), _not_three(case, measured)
    reasons = {"chain": one, "chain paths": one and three, "ensemble": ""}
    if not measured:
        reasons["ensemble"] = "networks show the cosine of their units, not their covariance"
    if engine is not None:
        if reasons[engine]:
            raise InputError(
                f"engine {engine!r} does not hold here: {reasons[engine]}; leave the engine out"
            )
        return engine, "asked for"
    narrow = min(case.widths) < LEAST_WIDTH
    if not one and not narrow:
        return "chain", (
            "two slopes without bias or dropout, so the correlation is a Markov chain by itself"
        )
    if one and not three and not narrow:
        return "chain paths", (
            "lengths fluctuate little about a stable one, so the covariance of a pair is followed"
            " by its three numbers"
        )
    reason = NARROW if narrow else three
    if reasons["ensemble"]:
        if not one:
            return "chain", f"the only engine that follows the covariance, although {reason}"
        raise InputError(f"no engine: {reason}, and {reasons['ensemble']}; take measured=True")
    return "ensemble", f"exact networks, because {reason}"


def correlation_chain(
    layers: Sequence[MeanField], widths: Sequence[int], eps0: float
) -> Law | Undefined:
    """The law of the measured correlation of a pair that is pinned at layer 0, layer by layer.

    Parameters
    ----------
    layers:
        One for each of the L hops; their weights may differ.
    widths:
        Units of the L + 1 layers.
    eps0:
        ``1 - cos`` at layer 0, in [0, 2].

    Returns
    -------
    Law
        Without sampling noise, of the layers before the first that is narrower than 16 units;
        ``Undefined`` where the correlation alone is no chain.

    Raises
    ------
    InputError
        Widths or a start out of range.
    """
    names = sorted({layer.activation.name for layer in layers})
    if len(names) > 1:
        return Undefined(f"the hops have different activations: {', '.join(names)}")
    if reason := next(filter(None, map(_not_one, layers)), ""):
        return Undefined(reason)
    narrow = [layer for layer, width in enumerate(widths) if width < LEAST_WIDTH]
    sizes = widths[: narrow[0]] if narrow else widths
    if len(sizes) < 2:
        return Undefined(NARROW)
    return chain_density(Route.of(layers[0].activation, sizes, eps0, "pinned"))


def _not_one(layer: MeanField) -> str:
    """Why the correlation alone is no chain, or nothing."""
    if layer.activation.degree != 1:
        return f"{layer.activation.name} is not made of two slopes that meet at 0"
    if layer.skip:
        return "a residual branch keeps the units of the layer before"
    if layer.sigma_b > 0:
        return "with a bias the lengths matter too"
    return "dropout is not in it" if layer.drop > 0 else ""


def _not_three(case: _Case, measured: bool) -> str:
    """Why lengths and correlation are not followed, or nothing."""
    if case.start != "drawn":
        return f"it begins with start='drawn', not {case.start!r}"
    return why_not(case.layer, case.q0, case.widths)


class _Found(NamedTuple):
    """A law, its lower order where there is one, how far to trust the difference, a note."""

    law: Law
    lower: Law | None = None
    ratio: float = 0.0
    note: str = ""

    def model_error(self, levels: Array, z: Array) -> Array:
        """What the expansion in 1/n leaves out: its last order times the ratio of the series."""
        if self.lower is None:
            return np.zeros_like(z)
        other = self.lower.quantiles(levels, "z").value
        return self.ratio * np.abs(np.subtract(z, other, out=np.zeros_like(z), where=z != other))


def _law(case: _Case, engine: str, measured: bool, networks: int, seed: int) -> _Found:
    if engine == "ensemble":
        return _sampled(case, networks, seed)
    if _not_one(case.layer):
        return _Found(
            covariance_paths(
                case.layer,
                case.widths,
                case.eps0,
                case.q0,
                paths=networks,
                seed=seed,
                measured=measured,
            )
        )
    route = case.route()
    if engine == "chain paths":
        return _Found(chain_paths(route, paths=networks, seed=seed, measured=measured))
    law = chain_density(route, measured=measured)
    lower = chain_density(replace(route, order=1), measured=measured, nodes=1.6)
    z = np.linspace(max(min(route.z0, 0.0), -6.0), 6.0, 25)
    ratio = float(route.phi.step(z).ratio(min(case.widths)).max())
    return _Found(law, lower, ratio)


def _sampled(case: _Case, networks: int, seed: int) -> _Found:
    """Exact networks; those that die are left out."""
    layer, widths = case.layer, case.widths
    if case.start == "inputs":
        ensemble = Ensemble(
            layer.activation,
            layer.sigma_w,
            layer.sigma_b,
            width=widths,
            depth=len(widths) - 1,
            drop=layer.drop,
            masks=layer.masks,
        )
        pair = Pair(case.eps0, case.q0, case.q0)
    else:
        ensemble = Ensemble.of([layer] * (len(widths) - 1), widths)
        pair = Pair(case.eps0, case.q0, case.q0, case.start)
    eps = ensemble.forward(pair, networks, seed, keep=True, progress=False).values("eps")[:, 0]
    alive = ~np.isnan(eps).any(axis=1)
    if not alive.any():
        raise InputError("every network died on the way: expected wider or fewer layers")
    z = CORRELATION["eps"].inverse(eps[alive].T, 0.0)
    dead = int((~alive).sum())
    note = f"; {dead} of {networks} networks died and are left out" if dead else ""
    law = SampleLaw(
        np.arange(len(widths), dtype=float),
        CORRELATION,
        z,
        f"{networks} exact networks",
        explodes=False,
    )
    return _Found(law, note=note)


def _referee(case: _Case, law: Law, networks: int, seed: int) -> Referee:
    """Networks of other seeds than the band's own."""
    exact = _sampled(case, networks, seed + 1).law
    assert isinstance(exact, SampleLaw)
    depth = len(case.widths) - 1
    layers = tuple(sorted({max(1, depth // 4), max(1, depth // 2), depth}))
    distance = tuple(law.distance(exact.u[layer], layer, "z") for layer in layers)
    scale = 1.0
    if isinstance(law, SampleLaw):  # two samples, each with its noise
        scale = math.sqrt(1 + exact.u.shape[1] / law.u.shape[1])
    return Referee(layers, distance, 1.358 * scale / math.sqrt(exact.u.shape[1]), exact.u.shape[1])

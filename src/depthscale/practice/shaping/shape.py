"""Choose the nonlinearity of a network so that two inputs arrive at a chosen correlation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from depthscale.answers import InputError
from depthscale.practice.shaping.families import (
    Branches,
    Family,
    Layer,
    Slopes,
    Transforms,
    slopes_of,
)
from depthscale.practice.shaping.maps import path
from depthscale.practice.shaping.record import Shaped
from depthscale.practice.shaping.search import Search, search
from depthscale.theory.activation import Activation
from depthscale.theory.activation import activation as as_activation
from depthscale.theory.records import as_number

if TYPE_CHECKING:
    from depthscale.practice.shaping.width import Networks

METHODS = ("slope", "tat", "dks", "residual")

EXACT, SAMPLED = 1e-13, 1e-5
"""Relative tolerances of the amount of nonlinearity: at infinite width, at a real one."""


class _Task(NamedTuple):
    """What was asked for, checked."""

    base: Activation
    depth: int
    width: int | None
    target: float
    quantile: float | None
    eps0: float

    @property
    def start(self) -> float:
        return 1 - self.eps0


def shape(
    activation: Any,
    depth: int,
    width: int | None = None,
    target: float = 0.9,
    *,
    quantile: float | None = None,
    method: str | None = None,
    eps0: float = 1.0,
    lowest_slope: float = 0.0,
    networks: int = 2000,
    seed: int = 0,
) -> Shaped:
    r"""Choose the nonlinearity at which the output correlation of two inputs is ``target``.

    A network of ``depth`` layers ``h' = skip h + W psi(h)``, ``W ~ N(0, 1/fan_in)``, no biases,
    receives pre-activations of mean square 1 and correlation ``1 - eps0``. One number, the same in
    every layer, is chosen:

    - ``"slope"`` (functions of two slopes): the slope of a leaky ReLU for ``x < 0``. Correlations
      only rise (tailored activation transformation, 2203.08120).
    - ``"tat"`` (functions without kinks): ``C''(1)`` of ``psi = c (phi(a x + b) + d)`` with
      ``Q(1) = Q'(1) = C'(1) = 1``. Correlations rise (the same paper, smooth activations).
    - ``"dks"``: ``C'(1)`` of such a ``psi`` with ``Q(1) = Q'(1) = 1, C(0) = 0``. Correlations move
      towards 0, and those of 0 stay there (deep kernel shaping, 2110.01765).
    - ``"residual"``: the scale of the branch, ``sqrt(1 - s^2) h + s W phi(h)/sqrt(E phi^2)``, or
      ``h + b W phi(h)/sqrt(E phi^2)`` for functions of two slopes.

    Parameters
    ----------
    activation:
        Anything that ``depthscale.activation`` takes.
    depth:
        Number of layers, at least 1.
    width:
        Units of each layer; None for infinitely many.
    target:
        Correlation of the outputs, in (-1, 1).
    quantile:
        None: at infinite width the correlation itself, at finite width its mean over networks, is
        the target. A number in (0, 1): this quantile over networks is, so that a network's output
        correlation is *at least* the target with probability ``1 - quantile`` and at most the
        target with probability ``quantile``. Needs a width.
    method:
        Default "slope" for functions of two slopes; for others "tat" where the correlation is to
        rise, "dks" where it is to fall.
    eps0:
        ``1 - correlation`` of the pair at layer 0, in (0, 2].
    lowest_slope:
        Least slope of the method "slope", in [-1, 1). A slope of -1 is ``|x|``, which reaches
        targets that ReLU is too linear for.
    networks, seed:
        At a finite width, of the networks that are sampled where no cheaper engine holds (smooth
        activations, residual layers). The search uses one sample, ``reached`` and ``band`` another.

    Raises
    ------
    InputError
        Arguments out of range, an activation that the method cannot shape, or a target that it
        does not reach, with what it reaches.

    Examples
    --------
    >>> shaped = shape("relu", depth=100)
    >>> round(float(shaped.slope), 5), round(float(shaped.correlation[-1]), 9)
    (0.57044, 0.9)
    """
    task = _checked(activation, depth, width, target, quantile, eps0)
    chosen = _method(task, method)
    family = _family(task, chosen, lowest_slope)
    wrong = _wrong_direction(task, chosen)
    if task.width is None:
        if wrong:
            raise InputError(wrong)
        amount = _linear(task, chosen) if task.target == task.start else None
        if amount is None:
            found = _mean_field(task, chosen, family)
            if found.amount is None:
                raise InputError(_unreachable(task, chosen, task.start, found.farthest))
            amount = found.amount
        return _shaped(task, chosen, family, amount, activation)
    from depthscale.practice.shaping.width import Networks

    nets = Networks(
        task.width,
        task.depth,
        task.eps0,
        task.quantile,
        _whole("networks", networks, 100),
        _whole("seed", seed, 0),
    )
    guess = None
    if not wrong and task.target != task.start:
        guess = _mean_field(task, chosen, family).amount
    amount = _at_width(task, chosen, family, nets, guess)
    shaped = _shaped(task, chosen, family, amount, activation)
    band = nets.band(shaped.activation, shaped.skip, nets.seed + 1)
    reached, error = nets.read(band.law)
    notes = (*shaped.notes, f"engine {band.engine}: reached {reached:.6g} +- {error:.1g}")
    return replace(shaped, band=band, reached=reached, notes=notes)


def _shaped(task: _Task, method: str, family: Family, amount: float, spec: Any) -> Shaped:
    """The record of the layer of an amount, at infinite width."""
    layer, step = family.layer(amount), family.step(amount)
    assert layer is not None  # the search stays where they exist
    assert step is not None
    eps = path(step, task.depth, task.eps0)
    return Shaped(
        task.base,
        layer.psi,
        method,
        task.depth,
        task.width,
        task.target,
        task.quantile,
        task.eps0,
        amount,
        layer,
        eps,
        1 - float(eps[-1]),
        notes=tuple(_notes(method, layer)),
        spec=spec,
    )


def _at_width(
    task: _Task, method: str, family: Family, nets: Networks, guess: float | None
) -> float:
    """The amount at a real width, from that at infinite width."""
    linear = nets.linear(method == "residual")

    def statistic(amount: float) -> float | None:
        layer = family.layer(amount)
        return None if layer is None else nets.statistic(layer)

    start = guess or min(1.0, family.most) / task.depth
    found = search(statistic, task.target, linear, start, family.most, SAMPLED)
    if found.amount is None:
        raise InputError(_unreachable(task, method, linear, found.farthest))
    return found.amount


def _mean_field(task: _Task, method: str, family: Family) -> Search:
    """The amount at infinite width, from a guess that takes the map for a quadratic one."""

    def correlation(amount: float) -> float | None:
        step = family.step(amount)
        return None if step is None else 1 - float(path(step, task.depth, task.eps0)[-1])

    def rough(amount: float) -> float:
        step, eps = family.guess(amount), task.eps0
        for _ in range(task.depth):
            eps = min(max(step(eps), 0.0), 2.0)
        return 1 - eps

    guess = min(1.0, family.most) / task.depth
    if method in ("tat", "dks"):
        guess = search(rough, task.target, task.start, 1e-2, 1.0, 1e-3).amount or 1.0
    return search(correlation, task.target, task.start, guess, family.most, EXACT)


def _linear(task: _Task, method: str) -> float:
    """The amount that keeps every correlation: none."""
    if method in ("tat", "dks"):
        raise InputError(
            f"target {task.target:.6g} is the correlation of the inputs, which only a linear"
            f" network keeps; no transform of {task.base.name} is linear: give another target"
        )
    return 0.0


def _unreachable(task: _Task, method: str, linear: float, farthest: float) -> str:
    """What is reached, and what to do."""
    if farthest == linear:
        return (
            f"no transform of {task.base.name} meets the conditions of method={method!r}; use a"
            " smooth activation, or method='residual'"
        )
    where, what = f"depth {task.depth}", "correlations"
    if task.width is not None:
        where += f" and width {task.width}"
        what = "mean correlations" if task.quantile is None else f"{task.quantile:g} quantiles"
    if (farthest - linear) * (task.target - linear) < 0:
        advice = "a linear network is beyond the target already: give fewer layers or more units"
    else:
        advice = "give more layers"
        if method == "slope":
            advice += ", or a lower lowest_slope (at least -1)"
    return (
        f"target {task.target!r} is out of reach: {task.base.name} shaped by method={method!r}"
        f" at {where} reaches {what} from {linear:.6g} to {farthest:.6g}; {advice}"
    )


def _notes(method: str, layer: Layer) -> list[str]:
    notes = []
    if method in ("tat", "dks"):
        notes.append("the inputs of layer 0 must have mean square 1: its length map has a slope 1")
    if method == "residual" and layer.skip != 1:
        notes.append("apply() cannot scale the identity branch: multiply it by skip in the model")
    if layer.slope == 1:
        notes.append("slope 1: the network is linear")
    return notes


def _checked(
    spec: Any,
    depth: int,
    width: int | None,
    target: float,
    quantile: float | None,
    eps0: float,
) -> _Task:
    base = as_activation(spec)
    if base.why_no_theory:
        raise InputError(f"no correlation map: {base.why_no_theory}")
    layers = _whole("depth", depth, 1)
    units = None if width is None else _whole("width", width, 2)
    goal, start = as_number("target", target), as_number("eps0", eps0)
    if not 0 <= start <= 2:
        raise InputError(f"eps0 is {eps0!r}; expected 1 - correlation of the inputs, in (0, 2]")
    if start == 0:
        raise InputError(
            "eps0 is 0: two equal inputs stay equal at any depth, whatever the activation; give the"
            " misalignment of two different ones, such as 1"
        )
    if goal == 1:
        raise InputError(
            "target is 1: two different inputs never become equal at a finite depth; give a"
            " correlation below 1, such as 0.9"
        )
    if not -1 < goal < 1:
        raise InputError(f"target is {target!r}; expected a correlation in (-1, 1)")
    if quantile is None:
        return _Task(base, layers, units, goal, None, start)
    level = as_number("quantile", quantile)
    if not 0 < level < 1:
        raise InputError(f"quantile is {quantile!r}; expected a probability in (0, 1)")
    if units is None:
        raise InputError(
            f"quantile is {quantile!r} without a width: at infinite width all networks are alike;"
            " give the width"
        )
    return _Task(base, layers, units, goal, level, start)


def _whole(name: str, value: Any, least: int) -> int:
    number = as_number(name, value)
    if not (math.isfinite(number) and number == int(number) and number >= least):
        raise InputError(f"{name} is {value!r}; expected a whole number, at least {least}")
    return int(number)


def _method(task: _Task, method: str | None) -> str:
    """The method asked for or the natural one; InputError where the activation does not suit it."""
    base = task.base
    slopes = slopes_of(base)
    if slopes is not None and slopes[0] == slopes[1]:
        raise InputError(f"{base.name} is linear: it has no shape to choose; give 'leaky_relu'")
    if method is None:
        if slopes is not None:
            return "slope"
        rises = task.target >= task.start
        method = "tat" if rises and not _kinked(base) else "dks"
        if rises and method == "dks":
            raise InputError(
                f"{base.name} has kinks and is not made of two slopes, so that correlations cannot"
                " be made to rise slowly by a transform; use method='residual', or relu"
            )
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if method == "slope" and slopes is None:
        raise InputError(
            f"method='slope' is for functions of two slopes (relu, leaky_relu), not {base.name};"
            " use 'tat', 'dks' or 'residual'"
        )
    if method in ("tat", "dks") and slopes is not None:
        raise InputError(
            f"method={method!r} needs an activation with a curvature or a second kink;"
            f" {base.name} has two slopes: use method='slope'"
        )
    if method == "tat" and _kinked(base):
        raise InputError(
            f"method='tat' needs a finite C''(1), but the slope of {base.name} jumps; use 'dks',"
            " 'residual', or a smooth activation"
        )
    return method


def _wrong_direction(task: _Task, method: str) -> str | None:
    """Why the mean field of the method moves correlations away from the target, or None."""
    if method in ("slope", "tat") and task.target < task.start:
        return (
            f"target {task.target!r} is out of reach: method={method!r} only lets correlations rise"
            f" from the {task.start:.6g} of the inputs; use method='dks' with a smooth activation"
        )
    between = min(0.0, task.start) < task.target < max(0.0, task.start)
    if method == "dks" and task.target != task.start and not between:
        return (
            f"target {task.target!r} is out of reach: method='dks' moves correlations from the"
            f" {task.start:.6g} of the inputs towards 0, and keeps those of 0; use method='tat', or"
            " another eps0"
        )
    return None


def _kinked(base: Activation) -> bool:
    return bool(base.kinks) or any(cusp.exponent <= 1.5 for cusp in base.cusps)


def _family(task: _Task, method: str, lowest_slope: float) -> Family:
    lowest = as_number("lowest_slope", lowest_slope)
    if not -1 <= lowest < 1:
        raise InputError(f"lowest_slope is {lowest_slope!r}; expected a number in [-1, 1)")
    if method == "slope":
        return Slopes(lowest)
    if method == "residual":
        return Branches(task.base)
    return Transforms(task.base, method)

"""The initialisation that theory recommends for an activation, a dropout and a depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from depthscale.answers import InputError, Quantity, Undefined

if TYPE_CHECKING:
    from depthscale.theory.activation import Activation

Convention = Literal["forward", "gradient"]

# Variances of the bias that are tried in turn. 0.05 is the value of 1912.09132 and 1611.01232.
BIASES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 2.0, 5.0)

# A network trains up to about 6 correlation depth scales (1611.01232); one is left for transients.
TRAINABLE = 5.0


@dataclass(frozen=True)
class Advice:
    """The recommended scales of the hidden layers, or the best there is and why.

    ``exists`` says whether they are a critical point with a stable length; else ``reason`` tells
    why there is none and ``sigma_w`` keeps the norm of the gradient at length ``q``, which then
    drifts over the layers. ``convention`` is "gradient" (``sigma_w^2 E[phi'^2]/(1 - drop) = 1``) or
    "forward" (``sigma_w^2 E[phi'^2] = 1``); they differ only with dropout. ``depth_scale`` is the
    correlation depth scale there, in layers; ``max_drop`` the largest drop at which five of them
    still cover the depth that was asked for. ``obstacle`` is for an audit to fill in: why
    ``critical_init_`` would refuse the audited model, None where it takes it.
    """

    activation: str
    drop: float
    convention: Convention
    exists: bool
    sigma_w: float
    sigma_b: float
    q: float
    scale_free: bool
    depth_scale: Quantity
    max_drop: Quantity
    reason: str = ""
    obstacle: str | None = None


def advise(
    activation: Any,
    *,
    drop: float = 0.0,
    depth: int | None = None,
    sigma_b: float | None = None,
    convention: Convention = "gradient",
) -> Advice:
    """Recommend sigma_w and sigma_b for an activation.

    - Scale-free activations (ReLU, leaky ReLU, abs, identity): ``sigma_b = 0`` and
      ``sigma_w^2 = (1 - drop)/E[phi'^2]``, which keeps both the length and the gradient (He et al.
      at ``drop = 0``). Their misalignment map does not depend on sigma_w.
    - Others: the smallest ``sigma_b^2`` of 0.05, 0.1, 0.2, 0.35, ... 5 at which a critical point
      with a stable length exists. At ``sigma_b = 0`` tanh-like activations are critical only where
      the signal has died out (q = 0). A small bias keeps q, and with it the curvature ``a`` of the
      map, small, so that a pair's misalignment ``1/(1/eps_0 + a l)`` fades slowly; a smaller one
      still would bring nearly linear layers and a length that takes ever longer to settle. GELU and
      SiLU have a stable critical length only above q of about 3.6 and 14.3, hence larger biases.
    - With dropout ``chi = 1`` and a constant gradient exclude each other. The default
      ``convention="gradient"`` keeps the gradient, which costs nothing forwards: it detunes the map
      by ``-drop``, small against the slope ``sqrt(2 g h)`` that dropout brings with it anyway,
      whereas ``"forward"`` lets the gradient grow by ``1/(1 - drop)`` a layer.
    - No critical point (softplus; GELU above 1.9 % dropout in the forward convention): ``exists``
      is False and sigma_w keeps the norm of the gradient at length 1 + sigma_b^2.
    - Sigmoids are critical only where they are steep steps (sigma_w about 10): a last resort.

    Args:
        activation: anything that ``depthscale.theory.activation.activation`` accepts.
        drop: probability dropped after the activation, in [0, 1).
        depth: number of layers, for ``max_drop``.
        sigma_b: standard deviation of the biases, if it is to be this one.
        convention: which of the two slopes is made 1.

    Raises:
        InputError: an unknown activation or convention, or one that jumps in value, for which no
            scale of the weights makes the slope 1.

    Source: 1611.01232, 1912.09132 (critical lines), 2605.21648 (dropout).

    >>> advice = advise("tanh")
    >>> round(advice.sigma_w**2, 6), round(advice.sigma_b**2, 6)
    (1.760955, 0.05)
    """
    from depthscale.theory.activation import activation as find

    if convention not in ("forward", "gradient"):
        raise InputError(f"convention is {convention!r}; expected 'forward' or 'gradient'")
    function = find(activation)
    if function.why_no_theory:
        raise InputError(f"no critical initialisation: {function.why_no_theory}")
    keep = 1.0 - float(drop)
    if function.scale_free and not sigma_b:
        weight = slope_moment(function, 1.0)
        sigma_w = math.sqrt((keep if convention == "gradient" else 1.0) / weight)
        return _complete(function, drop, depth, convention, (sigma_w, 0.0, 1.0), "")
    found = _search(function, drop, sigma_b, convention)
    if not isinstance(found, Undefined):
        return _complete(function, drop, depth, convention, found, "")
    bias = 0.0 if sigma_b is None else float(sigma_b)
    start = 1.0 + bias**2
    sigma_w = critical_weight(function, start, drop, convention)
    return _complete(function, drop, depth, convention, (sigma_w, bias, start), found.reason)


def critical_weight(function: Activation, q: float, drop: float, convention: Convention) -> float:
    """The ``sigma_w`` that makes the slope of the chosen convention 1 at length ``q``."""
    keep = 1.0 - float(drop) if convention == "gradient" else 1.0
    return math.sqrt(keep / slope_moment(function, q))


def slope_moment(function: Activation, q: float) -> float:
    """``E[phi'(u)^2]`` for ``u ~ N(0, q)``."""
    from depthscale.theory.gaussian import expectation

    return float(expectation(lambda x: function.derivative(x) ** 2, q, function.shape))


def second_moment(function: Activation, q: float) -> float:
    """``E[phi(u)^2]`` for ``u ~ N(0, q)``."""
    from depthscale.theory.gaussian import expectation

    return float(expectation(lambda x: function(x) ** 2, q, function.shape))


def _search(
    function: Activation, drop: float, sigma_b: float | None, convention: Convention
) -> tuple[float, float, float] | Undefined:
    """The first critical point with a stable length, or why there is none."""
    from depthscale.theory.criticality import critical_point

    reason = ""
    for bias in [math.sqrt(b) for b in BIASES] if sigma_b is None else [float(sigma_b)]:
        point = critical_point(function, sigma_b=bias, drop=drop, convention=convention)
        if point.exists:
            return float(point.sigma_w), bias, float(point.q)
        reason = reason or point.reason
    return Undefined(reason)


def _complete(
    function: Activation,
    drop: float,
    depth: int | None,
    convention: Convention,
    point: tuple[float, float, float],
    reason: str,
) -> Advice:
    from depthscale.theory.criticality import max_drop
    from depthscale.theory.meanfield import MeanField

    sigma_w, sigma_b, q = point
    state = MeanField(function, sigma_w=sigma_w, sigma_b=sigma_b, drop=drop, start=q)
    limit: Quantity = Undefined("no depth was given")
    if depth is not None and reason:
        limit = Undefined(reason)
    elif depth is not None:
        limit = max_drop(function, depth / TRAINABLE, sigma_b=sigma_b, convention=convention)
    return Advice(
        activation=function.name,
        drop=float(drop),
        convention=convention,
        exists=not reason,
        sigma_w=sigma_w,
        sigma_b=sigma_b,
        q=q,
        scale_free=function.scale_free,
        depth_scale=Undefined(reason) if reason else state.depth_scale.correlation,
        max_drop=limit,
        reason=reason,
    )

"""An activation between two affine maps of one number."""

from __future__ import annotations

import dataclasses

from depthscale.theory.functions.closed import ClosedForm, TwoSlopes
from depthscale.theory.functions.function import Activation
from depthscale.theory.functions.singularity import Singularity
from depthscale.theory.gaussian import Array


def affine(
    base: Activation,
    input_scale: float,
    input_shift: float,
    output_scale: float,
    output_shift: float,
) -> Activation:
    """``output_scale (base(input_scale x + input_shift) + output_shift)``, with its derivatives.

    Parameters
    ----------
    base:
        Any activation; its breaks, cusps and length scale move with the map.
    input_scale:
        Not 0; a negative one mirrors the function.
    input_shift, output_scale, output_shift:
        Any finite numbers, ``output_scale`` not 0.

    Examples
    --------
    >>> from depthscale.theory.activation import activation
    >>> moved = affine(activation("relu"), 2.0, -1.0, 3.0, 0.5)
    >>> float(moved(1.0)), moved.breaks
    (4.5, (0.5,))
    """
    a, b, c, d = input_scale, input_shift, output_scale, output_shift

    def back(x: float) -> float:
        return (x - b) / a

    def function(x: Array) -> Array:
        return c * (base.function(a * x + b) + d)

    def slope(x: Array) -> Array:
        return (c * a) * base.slope(a * x + b)

    def curvature(x: Array) -> Array:
        return (c * a * a) * base.curvature(a * x + b)

    def moved(cusp: Singularity) -> Singularity:
        sides = (cusp.below, cusp.above)[:: 1 if a > 0 else -1]
        weight = c * abs(a) ** cusp.exponent
        return Singularity(back(cusp.place), cusp.exponent, weight * sides[0], weight * sides[1])

    closed: ClosedForm | None = None
    if isinstance(base.closed, TwoSlopes) and b == d == 0:
        sides = (base.closed.below, base.closed.above)[:: 1 if a > 0 else -1]
        closed = TwoSlopes(c * a * sides[0], c * a * sides[1])
    # 0 too: expectations are over Gaussians around 0, wherever the function varies
    centres = {back(x) for x in base.shape.centres} | {0.0}
    return dataclasses.replace(
        base,
        name=f"{c:.6g} ({base.name}({a:.6g} x {b:+.6g}) {d:+.6g})",
        function=function,
        slope=slope,
        curvature=curvature,
        breaks=tuple(sorted(back(x) for x in base.breaks)),
        jumps=tuple(sorted(back(x) for x in base.jumps)),
        cusps=tuple(moved(x) for x in base.cusps),
        scale=base.scale / abs(a),
        centres=tuple(sorted(centres)),
        curvature_error=abs(c) * a * a * base.curvature_error,
        parity=base.parity if b == 0 and (d == 0 or base.parity == "even") else None,
        degree=base.degree if b == 0 and d == 0 else None,
        closed=closed,
    )

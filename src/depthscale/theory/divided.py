r"""Divided differences of the exponential, without a singularity where points meet.

    exp[z_0, .., z_k] = integral of exp(sum_i w_i z_i) over the simplex w_i >= 0, sum w_i = 1,

which is what nested integrals of exponentials come to: ``(e^z - 1)/z = exp[0, z]``, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from depthscale.theory.gaussian import Array

_TERMS = 20
"""Of the series of a matrix of norm 1: the next one is below 1e-19."""


def exponential_integral(rates: Sequence[float], time: Array) -> Array:
    r"""``t^k exp[t r_0, .., t r_k]``: k nested integrals over time of exponentials.

    The convolution of ``e^(r_0 t), .., e^(r_k t)`` on ``[0, t]``. All terms are positive, so that
    the relative error is some roundings times ``1 + |t r|`` at any rates, equal ones too, and at
    any ``t``; ``inf`` beyond the largest float.

    Parameters
    ----------
    rates:
        ``r_0 .. r_k``, real, in any order.
    time:
        ``t >= 0``, any shape.

    Source: A. McCurdy, K. C. Ng and B. N. Parlett, Math. Comp. 43 (1984) 501 (the corner of the
    exponential of a matrix with the points on its diagonal and ones beside it).

    Examples
    --------
    >>> exponential_integral([0.0, 0.0, 0.0], np.array([2.0]))
    array([2.])
    """
    t = np.asarray(time, dtype=float)
    order = len(rates) - 1
    points = t[..., None] * np.asarray(rates, dtype=float)
    top = points.max(axis=-1)
    below = points - top[..., None]
    # halved until its norm is at most 1; the squares of what follows are sums of positive terms
    norm = float(np.max(-below, initial=0.0)) + 1
    halvings = max(0, math.ceil(math.log2(norm))) if norm > 1 else 0
    matrix = np.zeros((*t.shape, order + 1, order + 1))
    diagonal = np.arange(order + 1)
    matrix[..., diagonal, diagonal] = below
    matrix[..., diagonal[:-1], diagonal[1:]] = 1.0
    matrix /= 2.0**halvings
    power = np.broadcast_to(np.eye(order + 1), matrix.shape).copy()
    for term in range(_TERMS, 0, -1):
        power = np.eye(order + 1) + matrix @ power / term
    for _ in range(halvings):
        power = power @ power
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(top) * t**order * power[..., 0, order])

"""The records of the mean-field theory, and how numbers come in and go out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.theory.gaussian import Array


@dataclass(frozen=True)
class DepthScale:
    """Layers over which things relax by a factor e.

    ``length``: ``-1/ln |dq'/dq|``; ``correlation``: ``-1/ln |d eps'/d eps|`` at ``eps*``;
    ``gradient``: ``1/|ln(sigma_w^2 E[phi'^2]/rho)|`` of one input's squared gradient norm, growing
    or shrinking as ``gradient_trend`` says; ``gradient_pair``: of the inner product of a pair's
    gradients under the gradient independence assumption (1912.09132).
    """

    length: Quantity
    correlation: Quantity
    gradient: Quantity
    gradient_pair: Quantity
    gradient_trend: Literal["vanishing", "exploding", "constant", "undefined"]


@dataclass(frozen=True)
class Trajectory:
    """The state layer by layer; index 0 is the start, ``gradient_factor[l]`` belongs to hop l.

    ``gradient_factor[l]`` is the expected ``|dE/dh^l|^2 / |dE/dh^(l+1)|^2`` of the first input and
    ``gradient_pair_factor[l]`` that of the inner product of both inputs' gradients, for a loss
    whose gradient is independent of the weights below.
    """

    q1: Array
    q2: Array
    eps: Array
    gradient_factor: Array
    gradient_pair_factor: Array

    @property
    def gradient(self) -> Array:
        """``|dE/dh^l|^2`` relative to the last layer, one value a layer."""
        last = np.ones((1, *self.gradient_factor.shape[1:]))
        backwards = np.concatenate([last, self.gradient_factor[::-1]])
        return np.asarray(np.cumprod(backwards, axis=0)[::-1])


def as_number(name: str, value: Any) -> float:
    """``value`` as a float; ``InputError`` for text, truth values and what is no number."""
    if isinstance(value, str | bytes | bool | np.bool_):
        raise InputError(f"{name} is {value!r}; expected a number")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} is {value!r}; expected a number") from None


def whole(name: str, value: Any, least: int, what: str = "") -> int:
    """A whole number of at least ``least``; ``InputError`` for anything else."""
    number = as_number(name, value)
    if not math.isfinite(number) or number != math.floor(number) or number < least:
        of = f" of {what}" if what else ""
        raise InputError(f"{name} = {value}: expected a whole number{of}, at least {least}")
    return int(number)


def as_numbers(name: str, values: ArrayLike) -> Array:
    """``values`` as a float64 array; ``InputError`` for what holds no numbers."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf":
            raise TypeError(array.dtype)
        return array.astype(float)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {values!r}; expected numbers") from None


def together(**arrays: Array) -> list[Array]:
    """Arrays of one shape, by name; ``InputError`` where theirs do not broadcast."""
    try:
        return list(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        told = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InputError(f"shapes do not go together: {told}; expected equal ones") from None


def with_reasons(record: dict[str, Any]) -> dict[str, Any]:
    """``record`` with ``Undefined`` as None and its reason under ``reasons``, by dotted key."""
    reasons: dict[str, str] = {}

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {k: plain(v, f"{path}.{k}" if path else k) for k, v in value.items()}
        if isinstance(value, Undefined):
            reasons[path] = value.reason
            return None
        return value

    return {**plain(record, ""), "reasons": reasons}

"""Chains and measurements made up for tests of the verdict: exact curves, or with known noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from depthscale.practice.probe.measure import Measurement
from depthscale.practice.probe.sites import Chain, Hop, Layer
from depthscale.theory.meanfield import MeanField, propagate


def chain(state: MeanField, depth: int, width: int = 256) -> Chain:
    """A chain of ``depth`` equal layers with weights."""
    hops = tuple(
        Hop(
            source=k,
            target=k + 1,
            activation=state.activation,
            activation_name=state.activation.name,
            drop=state.drop,
            sigma_w=state.sigma_w,
            sigma_b=state.sigma_b,
            fan_in=width,
            width=width,
        )
        for k in range(depth - 1)
    )
    return Chain(layers=tuple(range(depth)), widths=(width,) * depth, hops=hops)


def layers(depth: int, width: int = 256, activation: str | None = "tanh") -> tuple[Layer, ...]:
    return tuple(
        Layer(k, f"fc{k}", "linear", width, width, activation, 0.0, 1.3, 0.2) for k in range(depth)
    )


def blank(depth: int, width: int = 256) -> Measurement:
    """A flat, healthy measurement."""
    flat = np.ones((1, depth))
    return Measurement(
        layers=layers(depth, width),
        length=flat.copy(),
        eps=0.3 * flat,
        eps_error=0.01 * flat,
        eps_masks=None,
        gradient=flat.copy(),
        gradient_eps=0.5 * flat,
        dead=0 * flat,
        saturated=0 * flat,
        zero=0 * flat,
        passes=2,
        batch=128,
        pairs=64,
    )


def exact(state: MeanField, depth: int, q: float, eps: float, width: int = 256) -> Measurement:
    """What an infinitely wide network of equal layers measures."""
    fields = [state] * (depth - 1)
    pair = propagate(fields, q, q, eps)
    copies = propagate(fields, q, q, 0.0)
    row = blank(depth, width)
    return replace(
        row,
        length=np.asarray(pair.q1)[None],
        eps=np.asarray(pair.eps)[None],
        eps_error=np.zeros((1, depth)),
        eps_masks=np.asarray(copies.eps)[None] if state.drop else None,
        gradient=np.asarray(pair.gradient)[None],
    )


def change(measurement: Measurement, **rows: np.ndarray) -> Measurement:
    """The measurement with other rows, given as one number per layer."""
    return replace(measurement, **{name: np.asarray(row)[None] for name, row in rows.items()})

"""Before anything is drawn: which engine, how many networks at a time, and whether memory lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from depthscale.answers import InputError
from depthscale.finite.architecture import Architecture
from depthscale.finite.columns import FEW
from depthscale.finite.hops import Explicit, Weightless, Weights
from depthscale.finite.upkeep import Precision

# Numbers in the columns of one layer of one block, by device: small enough for a processor's cache,
# large enough that calls cost less than arithmetic. Part of the seed contract: it decides which
# networks share a stream.
BLOCK = {"cpu": 3 << 17, "cuda": 1 << 23}
# Networks of a block, at most: whoever asks for a few pays for a whole block.
MOST_NETS = {"cpu": 256, "cuda": 1 << 13}

# What the backward pass keeps of the forward pass at a time, in bytes, where inputs are far apart.
KEPT = {"cpu": 3 << 26, "cuda": 1 << 33}

ENGINES = ("auto", "weightless", "explicit")


@dataclass(frozen=True)
class Plan:
    """How a request is carried out.

    Attributes:
        weights: the engine.
        nets: networks in a block.
        stretch: hops of which the backward pass keeps the units at a time.
        bytes: memory that one process needs, about.
        reason: why this engine, in words.
    """

    weights: type[Weights]
    nets: int
    stretch: int
    bytes: int
    reason: str


def break_even(width: int) -> float:
    """Number of inputs from which explicit weights are cheaper at this width.

    Both engines need inner products of all vectors. Beside these a weightless layer is taken to
    cost as much as ``COST_OF_SQUARE m^2 + COST_OF_INPUT m`` products of a weight with an input for
    each unit, an explicit one ``width (m + COST_OF_WEIGHT)``: 6 inputs at width 16, 35 at 64, 330
    at 256. Measured (``benchmarks/ensemble.py``): at widths up to 64 there is no sharp point, the
    costs lie within a factor 1.8 of each other from 8 inputs on; at 256 and 1024 the weightless
    engine was cheaper with all numbers that were tried, up to 256.
    """
    a, b, c = COST_OF_SQUARE, COST_OF_INPUT - width, -COST_OF_WEIGHT * width
    return max(FEW, (math.sqrt(b * b - 4 * a * c) - b) / (2 * a))


COST_OF_SQUARE, COST_OF_INPUT, COST_OF_WEIGHT = 0.5, 120.0, 40.0


def make_plan(
    architecture: Architecture,
    inputs: int,
    copies: int,
    *,
    engine: str,
    backward: bool,
    device: torch.device,
    precision: Precision,
) -> Plan:
    """Choose the engine and the sizes.

    Args:
        architecture: with the weights that were asked for.
        inputs: number of inputs.
        copies: gradients for each input, 0 without a backward pass.
        engine: "auto", "weightless" or "explicit".
        backward: whether gradients are wanted.
        device: where it runs.
        precision: of the units.

    Raises:
        InputError: an engine that cannot do what is asked.
    """
    if engine not in ENGINES:
        raise InputError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    widest = max(architecture.widths)
    kind = architecture.weights
    limit = break_even(widest)
    many = max(inputs, inputs * copies)
    if issubclass(kind, Weightless) and (
        engine == "explicit" or (engine == "auto" and kind is Weightless and many > limit)
    ):
        if kind is not Weightless:
            raise InputError(
                "engine 'explicit' goes back through the weights it went forward; for untied"
                " gradients take engine='weightless'"
            )
        kind = Explicit
        reason = f"{many} vectors, more than the {limit:.0f} from which weights are cheaper"
    else:
        reason = f"{many} vectors, fewer than the {limit:.0f} from which weights are cheaper"
    if engine != "auto":
        reason = "asked for"
    place = device.type if device.type in BLOCK else "cuda"
    columns = inputs * max(1, copies)
    per_net = widest * columns + (widest**2 if kind is Explicit else 0)
    nets = max(1, min(MOST_NETS[place], BLOCK[place] // per_net))
    layer = nets * (4 * inputs * widest + (widest**2 if kind is Explicit else 0))
    usual, most = (torch.finfo(x).bits // 8 for x in (precision.apart, precision.close))
    stretch = max(1, min(architecture.depth, KEPT[place] // (usual * layer))) if backward else 1
    scratch = 12 * nets * columns * widest
    return Plan(kind, nets, stretch, most * (layer * stretch + scratch), reason)


def memory_limit(limit: int | None) -> int:
    """Bytes that a run may use: what is said, or four fifths of what is free."""
    if limit is not None:
        return limit
    import psutil

    return int(0.8 * psutil.virtual_memory().available)

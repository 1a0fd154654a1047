"""The bundled example: a deep tanh network that looks healthy layer by layer and cannot train.

Every layer keeps the length of its signal (the length map has a stable fixed point), the usual
check of an initialisation. But the network is deep in the chaotic phase, chi = 1.31 a layer: two
digits that start similar end as two unrelated vectors long before the last of sixty layers.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

DEPTH = 60
WIDTH = 256
SIGMA_W = math.sqrt(3.58)
PIXELS = 64
CLASSES = 10


def chaotic_mlp(
    depth: int = DEPTH, width: int = WIDTH, sigma_w: float = SIGMA_W, *, seed: int = 0
) -> nn.Sequential:
    """Return ``depth`` layers of Linear and Tanh and a linear readout, for the 8x8 digits.

    Weights are N(0, sigma_w^2 / fan_in) and biases 0, drawn from ``seed`` alone.

    >>> len(chaotic_mlp(depth=2, width=8))
    5
    """
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    sizes = [PIXELS, *[width] * depth, CLASSES]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        # By way of the meta device, which leaves torch's global generator as it was.
        linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            linear.weight.normal_(0.0, sigma_w / math.sqrt(fan_in), generator=generator)
            linear.bias.zero_()
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])

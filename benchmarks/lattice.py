"""Random convolutional networks as spatial systems: nanoseconds a site, channel and layer.

A ring of 256 sites, 5 channels, kernel 3, tanh, two inputs carried, on one core:

* whole: layers without measuring, with 32 of 400 layers measured, other sizes and sharings,
* parts: the calls of one layer by themselves, on the memory that they have in a run,
* limit: the matrix product at the processor's speed for large matrices, and the same layer by
  torch's grouped convolution.

Required: 1e8 sites times channels times layers a second, 10 ns each. CPU seconds, least of turns;
on a machine that others load, caches shared with them cost up to a third. On an accelerator
(``--device cuda``) the whole runs alone, in seconds of the wall.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from _record import save
from depthscale.finite.columns import Workspace
from depthscale.finite.draws import Draws
from depthscale.finite.lattice.block import _views
from depthscale.finite.lattice.lattice import Lattice
from depthscale.finite.lattice.layers import make_layer
from depthscale.finite.lattice.steps import Steps
from depthscale.finite.runner import one_thread

LAYERS, TURNS = 400, 5
CASES: dict[str, dict[str, Any]] = {
    "ring of 256": {},
    "ring of 64": {"size": 64},
    "ring of 1024": {"size": 1024},
    "torus of 64 x 64": {"size": (64, 64)},
    "20 channels": {"channels": 20},
    "local": {"sharing": "local"},
    "groups of 16": {"sharing": 16},
    "mixed by half": {"sharing": 0.5},
    "relu": {"activation": "relu", "sigma_w": 1.4},
}


def least(run: Callable[[], object], clock: Callable[[], float], repeats: int = 1) -> float:
    """Seconds of a call, the least of turns."""
    best = math.inf
    run()
    for _ in range(TURNS):
        start = clock()
        for _ in range(repeats):
            run()
        best = min(best, (clock() - start) / repeats)
    return best


def whole(device: str) -> list[dict[str, Any]]:
    clock = time.process_time if device == "cpu" else time.perf_counter
    rows = []
    for name, settings in CASES.items():
        lattice = Lattice(**({"activation": "tanh", "sigma_w": 1.78, "sigma_b": 0.3} | settings))
        measured = (0, 32) if name == "ring of 256" else (0,)
        for records in measured:
            record = records or [0, LAYERS]
            job = lattice._job(LAYERS, 1, "independent", 1, record, None, "single", device)
            values = job.nets * LAYERS * lattice.channels * lattice.grid.sites
            seconds = least(partial(job.blocks, range(1)), clock)
            rows.append(
                {
                    "part": "whole",
                    "name": f"{name}, {len(job.depths) - 1} layers measured",
                    "ns": seconds / values * 1e9,
                    "million_a_second": values / seconds / 1e6,
                }
            )
    return rows


def parts() -> list[dict[str, Any]]:
    """The calls of one layer, 64 networks."""
    lattice, space, nets = Lattice("tanh", 1.78, 0.3), Workspace(torch.device("cpu")), 64
    grid, c = lattice.grid, lattice.channels
    draws = Draws(np.random.SeedSequence(1), space.device)
    steps = Steps(lattice.activation, 1.78, 0.3, space)
    state = draws.normals(space.take("state", torch.float32, nets, c, 2, grid.sites))
    padded = space.take("padded", torch.float32, nets, c, 2, *grid.padded).zero_()
    layer = make_layer("shared", grid, c, 4 * 1.78, 2 * 0.3)
    moves = layer.program(padded, state, draws, space)
    names = ["h + d", "negative", "logistic 2", "logistic 1", "expm1", "product", "difference",
             "values"]  # fmt: skip
    calls = dict(zip(names, steps.program(*_views(state, padded, grid)), strict=True))
    calls["rim"] = lambda: [call() for call in grid.wrapping(padded)]
    calls |= dict(zip(["normals", "scales", "patches", "matrix product"], moves, strict=True))
    rows, values = [], nets * c * grid.sites
    held = state.clone()
    for name, call in calls.items():
        seconds = least(call, time.process_time, 40)
        state.copy_(held)  # a product of 16,384 values with itself a few times leaves the range
        rows.append({"part": "layer", "name": name, "ns": seconds / values * 1e9})
    total = sum(row["ns"] for row in rows)
    return [*rows, {"part": "layer", "name": "sum", "ns": total}]


def limits() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(512, 512, generator=generator)
    out = torch.empty_like(large)
    rate = 512**3 / least(partial(torch.mm, large, large, out=out), time.process_time, 5)
    nets, c, k, n = 16, 5, 3, 256
    x = torch.randn(2, nets * c, n + k - 1, generator=generator)
    weights = torch.randn(nets * c, c, k, generator=generator)
    convolve = partial(torch.nn.functional.conv1d, x, weights, groups=nets)
    seconds = least(convolve, time.process_time, 10)
    found = {
        "2 (k c + 1) multiply-adds": 2 * (c * k + 1) / rate,
        "grouped conv1d": seconds / (nets * c * n),
    }
    return [{"part": "limit", "name": name, "ns": value * 1e9} for name, value in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    with one_thread(), torch.no_grad(), np.errstate(all="ignore"):
        rows = whole(device)
        if device == "cpu":
            rows += [*parts(), *limits()]
    first = rows[0]["million_a_second"]
    verdict = f"{first:.0f} million a second, required 100"
    save("lattice" if device == "cpu" else f"lattice_{device}", rows, device=device, speed=verdict)


if __name__ == "__main__":
    main()

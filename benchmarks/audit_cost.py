"""What an audit costs in forward-backward passes of the model: the requirement is 4 plus a second.

A pass is measured on the same model and batch: forward, cross-entropy of random targets, backward.
"""

from __future__ import annotations

import time
from statistics import median

import torch

import depthscale
from _record import save
from depthscale.example import chaotic_mlp


def plain(width: int, depth: int) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for _ in range(depth):
        layers += [torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Dropout(0.1)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 10))


def convolutional() -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = [torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.Tanh()]
    for _ in range(12):
        layers += [torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64 * 32 * 32, 10))


def one_pass(model: torch.nn.Module, inputs: torch.Tensor) -> float:
    targets = torch.zeros(len(inputs), dtype=torch.long)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        times.append(time.perf_counter() - start)
        model.zero_grad()
    return median(times[1:])


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cases = {
        "example: 60-layer tanh MLP 256": (chaotic_mlp(), torch.randn(128, 64)),
        "20-layer ReLU MLP 1024, drop 0.1": (plain(1024, 20), torch.randn(128, 1024)),
        "13-layer conv net 64x32x32": (convolutional(), torch.randn(32, 3, 32, 32)),
    }
    rows = []
    for name, (model, inputs) in cases.items():
        single = one_pass(model, inputs)
        depthscale.audit(model, inputs)  # imports and caches
        start = time.perf_counter()
        result = depthscale.audit(model, inputs)
        wall = time.perf_counter() - start
        rows.append(
            {
                "model": name,
                "pass_s": single,
                "audit_s": wall,
                "allowed_s": 4 * single + 1,
                "ratio_to_allowed": wall / (4 * single + 1),
                "passes": result.measurement.passes,
            }
        )
    save("audit_cost", rows)


if __name__ == "__main__":
    main()

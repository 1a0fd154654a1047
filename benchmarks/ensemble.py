"""Random networks without weights, against explicit weights and against the machine's limit.

All in one run, one thread against one thread, CPU seconds, the variants of a row in turns:

* speed: forward plus tied backward, 30 layers, two inputs, drop 0.1, tanh, quadratic loss, with q,
  eps and gradient norms of both inputs and of the pair. Peers: the same network built of torch
  modules, with autograd, plainly and with all that we know of speed; and a hand-written pass over
  explicit weights, which never forms a gradient matrix; each in double precision, as exact as the
  sampler's differences, and in single.
  Required: 700 and 150 times faster at width 1024, 240 and 27 at 256, and 900 times the
  hand-written pass at 4096.
* limit: neuron updates (one unit of one layer, both inputs) per second, against the time that the
  normals and tanhs of such an update take by themselves. Required: 75 % of that bound with the
  library's own primitives, 60 % with the fastest that numpy and torch have here.
* scaling: cost against width, networks and inputs, and the number of inputs from which explicit
  weights are cheaper.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from _record import save
from depthscale.finite.columns import Workspace
from depthscale.finite.draws import Draws
from depthscale.finite.ensemble import Ensemble
from depthscale.finite.plan import break_even
from depthscale.finite.runner import Job, one_thread

DEPTH, DROP, SIGMA_W, SIGMA_B, EPS = 30, 0.1, 1.3, 0.2, 0.4
REQUIRED = {256: (240, 27), 1024: (700, 150), 4096: (None, 900)}


def turns(runs: dict[str, Callable[[], int]], seconds: float, repeats: int = 5) -> dict[str, float]:
    """CPU seconds of one unit of work of each run, the least over turns that alternate.

    Args:
        runs: each returns how many units of work it has done.
        seconds: about what one turn of one run takes, by repetition.
        repeats: turns.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            done, start = 0, time.process_time()
            while done == 0 or (turn and time.process_time() - start < seconds):
                done += run()
            if turn:
                times[name].append((time.process_time() - start) / done)
    return {name: min(values) for name, values in times.items()}


# The sampler -------------------------------------------------------------------------------------


def job(
    width: int,
    loss: str | None,
    precision: str,
    *,
    drop: float = DROP,
    inputs: Any = None,
    depth: int = DEPTH,
    engine: str = "weightless",
) -> Job:
    networks = Ensemble("tanh", SIGMA_W, SIGMA_B, width=width, depth=depth, drop=drop)
    inputs = pair_of_inputs(width).numpy() if inputs is None else inputs
    return networks._job(loss, inputs, 0, precision=precision, observe=(), engine=engine)


def sampler(task: Job) -> Callable[[], int]:
    """One block of networks a call; returns how many."""
    space = Workspace(torch.device("cpu"))
    count = iter(range(10**9))

    def run() -> int:
        task.block(next(count), space)
        return task.plan.nets

    return run


# The peers ---------------------------------------------------------------------------------------


def plain_autograd(width: int, dtype: torch.dtype) -> Callable[[], int]:
    """As one writes it: modules built anew, initialised and differentiated; one network a call."""
    x = pair_of_inputs(width).to(dtype)

    def run() -> int:
        layers: list[nn.Module] = [nn.Linear(width, width, dtype=dtype)]
        for _ in range(DEPTH - 1):
            layers += [nn.Tanh(), nn.Dropout(DROP), nn.Linear(width, width, dtype=dtype)]
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        for layer in linear:
            nn.init.normal_(layer.weight, std=SIGMA_W / math.sqrt(width))
            nn.init.normal_(layer.bias, std=SIGMA_B)
        h = x
        for module in layers:
            h = module(h)
            if isinstance(module, nn.Linear):
                state_of_pair(h.detach())
        losses = h.square().sum(1) / 2
        weights = [layer.weight for layer in linear]
        first = torch.autograd.grad(losses[0], weights, retain_graph=True)
        second = torch.autograd.grad(losses[1], weights)
        for a, b in zip(first, second, strict=True):
            _ = (a * a).sum(), (b * b).sum(), (a * b).sum()
        return 1

    return run


def lean_autograd(width: int, dtype: torch.dtype) -> Callable[[], int]:
    """The same from modules that are initialised again in place, and products by BLAS."""
    layers: list[nn.Module] = [nn.Linear(width, width)]
    for _ in range(DEPTH - 1):
        layers += [nn.Tanh(), nn.Dropout(DROP), nn.Linear(width, width)]
    model = nn.Sequential(*layers).to(dtype)
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    weights = [layer.weight for layer in linear]
    x = pair_of_inputs(width).to(dtype)

    def run() -> int:
        with torch.no_grad():
            for layer in linear:
                nn.init.normal_(layer.weight, std=SIGMA_W / math.sqrt(width))
                nn.init.normal_(layer.bias, std=SIGMA_B)
        seen: list[Tensor] = []
        hooks = [layer.register_forward_hook(lambda *a: seen.append(a[2])) for layer in linear]
        out = model(x)
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            _ = [state_of_pair(h) for h in seen]
        losses = out.square().sum(1) / 2
        first = torch.autograd.grad(losses[0], weights, retain_graph=True)
        second = torch.autograd.grad(losses[1], weights)
        with torch.no_grad():
            for a, b in zip(first, second, strict=True):
                _ = a.flatten() @ a.flatten(), b.flatten() @ b.flatten(), a.flatten() @ b.flatten()
        return 1

    return run


def explicit_by_hand(width: int, dtype: torch.dtype) -> Callable[[], int]:
    """Weights drawn into one buffer a layer, matrix products both ways; one network a call."""
    matrices = torch.empty(DEPTH, width, width, dtype=dtype)
    x0 = pair_of_inputs(width).to(dtype)
    scale = SIGMA_W / math.sqrt(width)

    @torch.no_grad()
    def run() -> int:
        x, signals, slopes = x0, [], []
        for layer in range(DEPTH):
            signals.append(x)
            w = matrices[layer].normal_()
            h = torch.addmm(torch.randn(width, dtype=dtype) * SIGMA_B, x, w.t(), alpha=scale)
            state_of_pair(h)
            if layer < DEPTH - 1:
                value = torch.tanh(h)
                mask = torch.empty_like(h).bernoulli_(1 - DROP).div_(1 - DROP)
                slopes.append((1 - value * value) * mask)
                x = value * mask
        delta = h
        for layer in reversed(range(DEPTH)):
            _ = (delta @ delta.t()) * (signals[layer] @ signals[layer].t())
            if layer:
                delta = (delta @ matrices[layer]).mul_(scale).mul_(slopes[layer - 1])
        return 1

    return run


def pair_of_inputs(width: int) -> Tensor:
    normals = torch.randn(width, 2, generator=torch.Generator().manual_seed(1))
    directions = torch.linalg.qr(normals)[0].T * math.sqrt(width)
    c = 1 - EPS
    return torch.stack([directions[0], c * directions[0] + math.sqrt(1 - c * c) * directions[1]])


def state_of_pair(h: Tensor) -> tuple[Tensor, Tensor]:
    gram = h @ h.t() / h.shape[1]
    return gram.diagonal(), 1 - gram[0, 1] / (gram[0, 0] * gram[1, 1]).sqrt()


def speed() -> list[dict[str, Any]]:
    rows = []
    for width, (autograd, by_hand) in REQUIRED.items():
        runs = {
            precision: sampler(job(width, "quadratic", precision))
            for precision in ("mixed", "double")
        }
        for precision, dtype in (("double", torch.float64), ("single", torch.float32)):
            runs[f"by hand, {precision}"] = explicit_by_hand(width, dtype)
            if autograd is not None:
                runs[f"plain autograd, {precision}"] = plain_autograd(width, dtype)
                runs[f"autograd, {precision}"] = lean_autograd(width, dtype)
        cost = turns(runs, seconds=1.0, repeats=5 if width < 4096 else 2)
        row: dict[str, Any] = {"width": width}
        row["ms"] = {name: 1e3 * seconds for name, seconds in cost.items()}
        row["times the default's"] = {name: c / cost["mixed"] for name, c in cost.items()}
        row["required"] = {"by hand": by_hand} | ({"autograd": autograd} if autograd else {})
        rows.append(row)
    return rows


# The limit ---------------------------------------------------------------------------------------


def primitives() -> dict[str, Callable[[], int]]:
    """Normals and tanhs in chunks as the sampler's, of its own and of torch and numpy."""
    size = 1 << 16
    draws = Draws(np.random.SeedSequence(1), torch.device("cpu"))
    generator = np.random.Generator(np.random.SFC64(1))
    single, double = torch.empty(size), torch.empty(size, dtype=torch.float64)
    points = torch.randn(size)
    wide = points.double()

    def counted(run: Callable[[], object]) -> Callable[[], int]:
        def call() -> int:
            run()
            return size

        return call

    calls: dict[str, Callable[[], object]] = {
        "normals own single": lambda: draws.normals(single),
        "normals own double": lambda: draws.normals(double),
        "normals torch": lambda: single.normal_(),
        "normals numpy": lambda: generator.standard_normal(out=single.numpy(), dtype=np.float32),
        "tanh numpy single": lambda: np.tanh(points.numpy(), out=single.numpy()),
        "tanh numpy double": lambda: np.tanh(wide.numpy(), out=double.numpy()),
        "tanh torch single": lambda: torch.tanh(points, out=single),
        "tanh torch double": lambda: torch.tanh(wide, out=double),
    }
    return {name: counted(call) for name, call in calls.items()}


def limit(width: int = 1024) -> list[dict[str, Any]]:
    runs = primitives()
    cases = {
        ("forward", precision, drop): job(width, None, precision, drop=drop)
        for precision in ("mixed", "double")
        for drop in (0.0, DROP)
    }
    cases |= {
        ("forward and backward", precision, drop): job(width, "quadratic", precision, drop=drop)
        for precision in ("mixed", "double")
        for drop in (0.0, DROP)
    }
    for key, task in cases.items():
        runs[str(key)] = sampler(task)
    cost = turns(runs, seconds=0.4)
    fastest = {
        kind: min((v, name) for name, v in cost.items() if name.startswith(kind))
        for kind in ("normals", "tanh")
    }
    rows: list[dict[str, Any]] = [
        {"primitive": name, "millions_per_cpu_s": 1e-6 / cost[name]} for name in primitives()
    ]
    for (passes, precision, drop), _ in cases.items():
        update = cost[str((passes, precision, drop))] / (width * DEPTH)
        normals = 2 if passes == "forward" else 4
        units = "double" if precision == "double" else "single"  # these inputs are far apart
        own = normals * cost[f"normals own {units}"] + 2 * cost[f"tanh numpy {units}"]
        best = normals * fastest["normals"][0] + 2 * fastest["tanh"][0]
        rows.append(
            {
                "passes": passes,
                "precision": precision,
                "drop": drop,
                "million_updates_per_cpu_s": 1e-6 / update,
                "of_own_bound": own / update,
                "of_fastest_bound": best / update,
            }
        )
    return rows


# Scaling -----------------------------------------------------------------------------------------


def vectors(inputs: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((inputs, width))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def scaling() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    widths = [512, 1024, 2048, 4096, 8192]
    runs = {f"{n}": sampler(job(n, "quadratic", "mixed")) for n in widths}
    cost = list(turns(runs, seconds=0.5, repeats=3).values())
    rows.append({"against": "width", "values": widths, "ms": [1e3 * c for c in cost],
                 "power": slope(widths, cost), "expected": 1})  # fmt: skip
    nets = [256, 512, 1024, 2048]
    task = job(256, "quadratic", "mixed")

    def several(count: int) -> Callable[[], int]:
        run = sampler(task)
        return lambda: sum(run() for _ in range(count // task.plan.nets)) // count

    cost = list(turns({str(k): several(k) for k in nets}, seconds=0.5, repeats=3).values())
    rows.append({"against": "nets", "values": nets, "ms": [1e3 * c for c in cost],
                 "power": slope(nets, cost), "expected": 1})  # fmt: skip
    width, many = 2048, [32, 64, 128, 256]
    runs = {
        str(m): sampler(job(width, "quadratic", "mixed", inputs=vectors(m, width), depth=4))
        for m in many
    }
    cost = list(turns(runs, seconds=0.5, repeats=2).values())
    rows.append({"against": "inputs", "values": many, "ms": [1e3 * c for c in cost],
                 "power": slope(many[-2:], cost[-2:]), "expected": 2})  # fmt: skip
    return rows


def crossings() -> list[dict[str, Any]]:
    """The number of inputs from which explicit weights are cheaper, and what the planner says."""
    rows = []
    for width in (16, 64, 256, 1024):
        ratios = {}
        for m in (2, 4, 8, 16, 32, 64, 128, 256):
            if m > width:
                break
            runs = {
                engine: sampler(
                    job(width, "quadratic", "mixed", inputs=vectors(m, width), depth=6,
                        engine=engine)
                )
                for engine in ("weightless", "explicit")
            }  # fmt: skip
            cost = turns(runs, seconds=0.2, repeats=2)
            ratios[m] = cost["weightless"] / cost["explicit"]
        logs = np.log(list(ratios.values()))
        inputs = np.log(list(ratios))
        above = np.flatnonzero(logs > 0)
        crossing = math.nan
        if above.size and above[0] > 0:
            k = int(above[0])
            crossing = float(np.exp(np.interp(0.0, logs[k - 1 : k + 1], inputs[k - 1 : k + 1])))
        rows.append({"width": width, "weightless/explicit": ratios, "break_even": crossing,
                     "planner": break_even(width)})  # fmt: skip
    return rows


def main() -> None:
    with one_thread(), torch.no_grad():
        rows = limit() + scaling() + crossings()
    with one_thread():
        rows = speed() + rows
    save("ensemble", rows)


if __name__ == "__main__":
    main()

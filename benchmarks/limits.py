"""Paths of the shaped ReLU equation against torchsde and diffrax, its density, and networks.

All in one run, rho from 0.3 at t = 0.5 (slopes 1 and 1 - 1/sqrt n):

* paths: nanoseconds a path at equal weak error. For every method of the peers the error of mean and
  deviation of rho is measured at every number of steps, without sampling noise that matters: on the
  same Brownian paths as its own fine solution. Each peer then takes its cheapest method that is
  within the error asked for, in float32, its fastest batch and, for diffrax, compiled; ours takes
  exact moves with tables for that error, of float64 state. CPU seconds of one thread, the
  least of turns that alternate. Three questions: the end alone, two and eight recorded times. Peers
  that are not installed are named and left out.
* limit: what the normal numbers of such an ensemble take by themselves.
* density: seconds and error of the law itself.
* networks: what the exact ensemble of networks (n = 200) takes for the same quantiles to the same
  error.

Required: paths 50 times torchsde and 3 times diffrax; the density in under 1 s.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import numpy as np
import torch

from _record import save
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.law import LEVELS
from depthscale.finite.diffusion.paths import BLOCK, PathPlan, plan
from depthscale.finite.diffusion.programs import Room
from depthscale.finite.diffusion.shaped import ShapedReLU
from depthscale.finite.draws import Draws
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.finite.runner import one_thread
from depthscale.theory.meanfield import MeanField

EQUATION, RHO0, TIME, WIDTH = ShapedReLU(0.0, -1.0), 0.3, 0.5, 200
START = math.atanh(RHO0)
ERRORS = {1: (1e-2, 1e-3, 1e-4, 1e-5), 2: (1e-3, 1e-4), 8: (1e-3, 1e-4)}
STEPS = (1, 2, 3, 4, 6, 8, 12, 24)
EULER_STEPS = (1, 2, 3, 4, 12, 16, 64, 128)
COUPLED, FINE, OURS, DRAWS = 1 << 17, 64, 1 << 18, 8
SIZES = (1 << 15, 1 << 16)
REQUIRED = {"torchsde": 50, "diffrax": 3}

Solve = Callable[[int], Any]


def least(runs: dict[str, Callable[[], int]], turns: int = 3) -> dict[str, float]:
    """CPU nanoseconds a path of each run, the least over turns that alternate."""
    best = dict.fromkeys(runs, math.inf)
    for turn in range(turns + 1):
        for name, run in runs.items():
            start = time.process_time()
            paths = run()
            if turn:
                best[name] = min(best[name], (time.process_time() - start) / paths * 1e9)
    return best


# torchsde -----------------------------------------------------------------------------------------


class TorchEquation(torch.nn.Module):
    """The equation in z, with the fewest operations, or in rho as it is usually written."""

    noise_type = "diagonal"

    def __init__(self, in_rho: bool, sde_type: str) -> None:
        super().__init__()
        self.in_rho, self.sde_type = in_rho, sde_type

    def f(self, t: Any, y: torch.Tensor) -> torch.Tensor:
        """The drift."""
        if self.in_rho:
            rho = y.clamp(-1, 1)
            rest = 1 - rho * rho
            return (rest.sqrt() - rho * rho.acos()) / (2 * math.pi) - rho * rest / 2
        theta = 2 * torch.atan(torch.exp(-y))
        sine = torch.sin(theta)
        bend = (sine - theta * torch.cos(theta)) / (sine * sine)
        return torch.where(theta < 1e-3, theta / 3, bend) / (2 * math.pi) + torch.tanh(y) / 2

    def g(self, t: Any, y: torch.Tensor) -> torch.Tensor:
        """The noise."""
        return 1 - y.clamp(-1, 1) ** 2 if self.in_rho else torch.ones_like(y)


TORCHSDE = {
    "euler in rho": (True, "ito", "euler"),
    "euler": (False, "ito", "euler"),
    "srk": (False, "ito", "srk"),
    "heun": (False, "stratonovich", "heun"),
}


def torchsde_end(method: str, steps: int, records: int, bm: Any, size: int, dtype: Any) -> Any:
    """rho at the end, of ``size`` paths."""
    import torchsde

    in_rho, kind, name = TORCHSDE[method]
    start = torch.full((size, 1), RHO0 if in_rho else START, dtype=dtype)
    times = torch.linspace(0.0, TIME, records + 1, dtype=dtype)
    with torch.no_grad():
        sde = TorchEquation(in_rho, kind)
        y = torchsde.sdeint(sde, start, times, bm=bm, method=name, dt=TIME / steps)[-1]
    return y.clamp(-1, 1) if in_rho else torch.tanh(y)


def torchsde_noise(seed: int, size: int, dtype: Any) -> Any:
    import torchsde

    return torchsde.BrownianInterval(
        0.0,
        TIME,
        size=(size, 1),
        dtype=dtype,
        entropy=seed,
        levy_area_approximation="space-time",
    )


def torchsde_errors() -> dict[tuple[str, int], float]:
    """The larger of the errors of mean and deviation, for every method and number of steps."""
    sums: dict[tuple[str, int], Any] = {}
    batch = 1 << 15
    for seed in range(COUPLED // batch):
        noise = torchsde_noise(seed, batch, torch.float64)
        fine = torchsde_end("heun", FINE, 1, noise, batch, torch.float64)
        for method in TORCHSDE:
            for steps in EULER_STEPS if method.startswith("euler") else STEPS:
                coarse = torchsde_end(method, steps, 1, noise, batch, torch.float64)
                both = torch.cat([fine, fine**2, coarse, coarse**2], 1).mean(0).numpy()
                sums[method, steps] = sums.get((method, steps), 0) + both / (COUPLED // batch)
    return {key: weak_error(value) for key, value in sums.items()}


def weak_error(moments: Any) -> float:
    """From means of x, x^2 of the fine and of the coarse solution."""
    a, a2, b, b2 = (float(m) for m in moments)
    return max(abs(a - b), abs(math.sqrt(a2 - a * a) - math.sqrt(b2 - b * b)))


def torchsde_runs(chosen: list[tuple[str, int, int]]) -> dict[str, Callable[[], int]]:
    """Timed runs, one a method, number of steps, records and batch size."""
    import torchsde

    def run(method: str, steps: int, records: int, size: int) -> Callable[[], int]:
        def go() -> int:
            for seed in range(max(1, (1 << 16) // size)):
                area = "space-time" if method == "srk" else "none"
                noise = torchsde.BrownianInterval(
                    0.0, TIME, size=(size, 1), entropy=seed, levy_area_approximation=area
                )
                torchsde_end(method, steps, records, noise, size, torch.float32)
            return size * max(1, (1 << 16) // size)

        return go

    return {
        f"{method}|{steps}|{records}|{size}": run(method, steps, records, size)
        for method, steps, records in chosen
        for size in SIZES
    }


# diffrax ------------------------------------------------------------------------------------------

DIFFRAX = ("Euler", "Heun", "SEA", "ShARK", "SRA1")


def diffrax_solver(name: str, steps: int, records: int, size: int, coupled: bool) -> Any:
    """A compiled function of a key: rho at the end, of ``size`` paths as one state."""
    import diffrax
    import jax
    import jax.numpy as jnp
    import lineax

    def drift(t: Any, z: Any, args: Any) -> Any:
        theta = 2 * jnp.arctan(jnp.exp(-z))
        sine = jnp.sin(theta)
        bend = (sine - theta * jnp.cos(theta)) / (sine * sine)
        return jnp.where(theta < 1e-3, theta / 3, bend) / (2 * math.pi) + jnp.tanh(z) / 2

    simple = name in ("Euler", "Heun") and not coupled
    area = diffrax.BrownianIncrement if simple else diffrax.SpaceTimeLevyArea
    saved = diffrax.SaveAt(ts=jnp.linspace(0, TIME, records + 1)[1:])

    @jax.jit
    def solve(key: Any) -> Any:
        if coupled:
            path = diffrax.VirtualBrownianTree(0.0, TIME, TIME / 1024, (size,), key, area)
        else:
            path = diffrax.UnsafeBrownianPath((size,), key, area)
        one = lineax.DiagonalLinearOperator(jnp.ones(size))
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(drift), diffrax.ControlTerm(lambda t, z, args: one, path)
        )
        solution = diffrax.diffeqsolve(
            terms,
            getattr(diffrax, name)(),
            0.0,
            TIME,
            TIME / steps,
            jnp.full(size, START),
            saveat=saved,
            max_steps=steps + 2,
            adjoint=diffrax.ForwardMode(),
            throw=False,
        )
        return jnp.tanh(solution.ys[-1])

    return solve


def diffrax_errors() -> dict[tuple[str, int], float]:
    """The same as ``torchsde_errors``; Euler and Heun are the same schemes and not repeated."""
    import jax

    jax.config.update("jax_enable_x64", True)
    batch, found = 1 << 15, {}
    keys = [jax.random.key(seed) for seed in range(COUPLED // batch)]
    fine = [np.asarray(diffrax_solver("Heun", FINE, 1, batch, True)(key)) for key in keys]
    for name in DIFFRAX[2:]:
        for steps in STEPS:
            solve = diffrax_solver(name, steps, 1, batch, True)
            moments = np.zeros(4)
            for key, a in zip(keys, fine, strict=True):
                b = np.asarray(solve(key))
                moments += np.array([a.mean(), (a**2).mean(), b.mean(), (b**2).mean()]) / len(keys)
            found[name, steps] = weak_error(moments)
    jax.config.update("jax_enable_x64", False)
    return found


def diffrax_runs(chosen: list[tuple[str, int, int]]) -> dict[str, Callable[[], int]]:
    """Timed runs, compiled before."""
    import jax

    def run(name: str, steps: int, records: int, size: int) -> Callable[[], int]:
        solve = diffrax_solver(name, steps, records, size, False)

        def go() -> int:
            for seed in range(max(1, (1 << 16) // size)):
                solve(jax.random.key(seed)).block_until_ready()
            return size * max(1, (1 << 16) // size)

        return go

    return {
        f"{name}|{steps}|{records}|{size}": run(name, steps, records, size)
        for name, steps, records in chosen
        for size in SIZES
    }


PEERS = {
    "torchsde": (torchsde_errors, torchsde_runs),
    "diffrax": (diffrax_errors, diffrax_runs),
}

# Comparison ---------------------------------------------------------------------------------------


def candidates(
    errors: dict[tuple[str, int], float], asked: float, records: int
) -> list[tuple[str, int, int]]:
    """For every method its fewest steps within an error, a multiple of the recorded times."""
    found = []
    for method in {name for name, _ in errors}:
        enough = [s for (name, s), e in errors.items() if name == method and e <= asked]
        if enough:
            found.append((method, records * math.ceil(min(enough) / records), records))
    return found


def ours(records: int, error: float) -> tuple[PathPlan, float]:
    """Tables for so many recorded times and about this weak error, and the seconds they took."""
    start = time.process_time()
    times = np.linspace(0, TIME, records + 1)[1:]
    made = plan(EQUATION, START, times, tolerance=min(error, 3e-4) / math.sqrt(records))
    return made, time.process_time() - start


def our_error(made: PathPlan, records: int) -> float:
    """The same of our tables: their program over all nodes of a quadrature, without noise.

    For more times than a quadrature can follow: against much finer tables on the same normals.
    """
    exact = density(EQUATION, START, TIME)
    mean, sd = exact.mean("rho").value[0], exact.sd("rho").value[0]
    if records > 2:
        finest = plan(EQUATION, START, made.times, tolerance=1e-6)
        rough, fine = (np.tanh(tables.draw(1 << 21).u[-1]) for tables in (made, finest))
        return float(max(abs(rough.mean() - fine.mean()), abs(rough.std() - fine.std())))
    x, rule = np.polynomial.hermite_e.hermegauss(80)
    inside = np.abs(x) < 6.9
    x, rule = x[inside], rule[inside] / rule[inside].sum()
    grids = [g.ravel() for g in np.meshgrid(*records * [x], indexing="ij")]
    weights = np.prod(np.meshgrid(*records * [rule], indexing="ij"), axis=0).ravel()
    numbers, out = iter(grids), torch.empty(records, weights.size, dtype=torch.float64)
    made.program.run(lambda xi: xi.copy_(torch.from_numpy(next(numbers))), Room(weights.size), out)
    rho = np.tanh(out[-1].numpy())
    off = weights @ rho - mean
    return float(max(abs(off), abs(math.sqrt(weights @ (rho - weights @ rho) ** 2) - sd)))


def path_rows(
    errors: dict[str, dict[tuple[str, int], float]], records: int
) -> list[dict[str, Any]]:
    """Every peer's cheapest method at every error, and ours in the same turns."""
    draws, numbers = Draws(np.random.SeedSequence(0), torch.device("cpu")), torch.empty(BLOCK)

    def normals() -> int:
        for _ in range(DRAWS * OURS // BLOCK):
            draws.normals(numbers)
        return DRAWS * OURS

    def run(tables: PathPlan) -> Callable[[], int]:
        return lambda: sum(tables.draw(OURS, seed).u.shape[1] for seed in range(DRAWS))

    made = {error: ours(records, error) for error in ERRORS[records]}
    runs: dict[str, Callable[[], int]] = {"normals": normals}
    for error, (tables, _) in made.items():
        runs[f"ours|{error}"] = run(tables)
    asked = {
        peer: {error: candidates(known, error, records) for error in ERRORS[records]}
        for peer, known in errors.items()
    }
    for peer, by_error in asked.items():
        timed = PEERS[peer][1](sorted({one for some in by_error.values() for one in some}))
        runs |= {f"{peer}|{name}": run for name, run in timed.items()}
    best = least(runs)
    rows = []
    for error, (tables, seconds) in made.items():
        own = {"ours_ns": best[f"ours|{error}"], "our_error": our_error(tables, records)}
        least_possible = records * best["normals"]
        for peer, by_error in asked.items():
            costs = {
                f"{method} in {steps} steps": min(
                    best[f"{peer}|{method}|{steps}|{records}|{size}"] for size in SIZES
                )
                for method, steps, _ in by_error[error]
            }
            name = min(costs, key=lambda option: costs[option])
            rows.append(
                {"what": "paths", "times": records, "weak_error": error, "peer": peer}
                | {"its_best": name, "its_ns": costs[name]}
                | own
                | {"ratio": costs[name] / own["ours_ns"], "required": REQUIRED[peer]}
                | {"ratio_of_normals_alone": costs[name] / least_possible, "plan_s": seconds}
                | {"all_methods_ns": {k: round(v, 1) for k, v in sorted(costs.items())}}
            )
    return rows


def main() -> None:
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"required": REQUIRED, "left_out": {}}
    errors: dict[str, dict[tuple[str, int], float]] = {}
    with one_thread():
        for peer, (measure, _) in PEERS.items():
            try:
                errors[peer] = measure()
            except ImportError as missing:
                facts["left_out"][peer] = f"not installed: {missing}"
        if set(PEERS) <= set(errors):
            same = {"euler": "Euler", "heun": "Heun"}
            for (name, steps), value in errors["torchsde"].items():
                if name in same:
                    errors["diffrax"][same[name], steps] = value
        for records in ERRORS:
            rows += path_rows(errors, records)
        rows += law_rows()
    facts["weak_errors"] = {
        peer: {f"{name} {steps}": value for (name, steps), value in sorted(known.items())}
        for peer, known in errors.items()
    }
    facts["versions_of_peers"] = {peer: version(peer) for peer in errors}
    save("limits", rows, **facts)


def law_rows() -> list[dict[str, Any]]:
    """The density, and the networks that would give the same quantiles to an error of 1e-3."""
    start = time.process_time()
    law = density(EQUATION, START, [TIME / 2, TIME])
    marks = law.quantiles(LEVELS, "rho").value[-1]
    seconds = time.process_time() - start
    finest = density(EQUATION, START, [TIME / 2, TIME], tolerance=1e-8).quantiles(LEVELS, "rho")
    error = float(np.abs(marks - finest.value[-1]).max())
    slope = 1 - 1 / math.sqrt(WIDTH)
    layer = MeanField(f"leaky_relu({slope!r})", math.sqrt(2 / (1 + slope**2)))
    depth, nets = round(TIME * WIDTH), 4096
    networks = Ensemble.of([layer] * depth, [WIDTH] * (depth + 1))
    pair = Pair(1 - RHO0, 1.0, 1.0)
    networks.forward(pair, 64, progress=False)
    start = time.process_time()
    networks.forward(pair, nets, progress=False)
    each = (time.process_time() - start) / nets
    dense = np.abs(law.pdf(marks, "rho")[-1])
    levels = np.array(LEVELS)
    need = float(np.max(levels * (1 - levels) / (dense * 1e-3) ** 2))
    made, planned = ours(1, 1e-3)
    start = time.process_time()
    made.draw(OURS)
    path = (time.process_time() - start) / OURS
    return [
        {"what": "density", "seconds": seconds, "quantile_error": error, "required_s": 1.0},
        {"what": "networks", "width": WIDTH, "layers": depth, "seconds_each": each}
        | {"needed_for_1e-3": need, "seconds_for_1e-3": need * each}
        | {"times_density": need * each / seconds}
        | {"times_paths": need * each / (planned + need * path)},
    ]


if __name__ == "__main__":
    main()

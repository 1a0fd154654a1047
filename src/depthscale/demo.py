"""``make demo``: audit the bundled example on real digits, fix it, audit again, train both.

Every number on the screen is measured in this run. Both versions of the network are trained from
the same seeds by the same optimiser, each at the learning rate of the same grid that served it
best on a seed of its own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from depthscale.example import CLASSES

if TYPE_CHECKING:
    from depthscale.practice.training import TrainingRun

LEARNING_RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
TUNING_SEED = 0
BATCH = 128


class Job(NamedTuple):
    """One training run: the example as given or fixed, at a learning rate, from a seed."""

    fixed: bool
    learning_rate: float
    seed: int
    steps: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m depthscale.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the two reports")
    parser.add_argument("--steps", type=int, default=200, help="training steps of a run")
    parser.add_argument("--seeds", type=int, default=3, help="training runs of each version")
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.seeds < 1:
        parser.error("--steps and --seeds must be at least 1")
    started = time.perf_counter()
    try:
        _audit_and_fix(options.out)
        _train_both(options.steps, options.seeds)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    pages = options.out / "report.html", options.out / "report-fixed.html"
    print(f"\nReports: {pages[0]} (as given), {pages[1]} (fixed).")
    print(f"{time.perf_counter() - started:.0f} s in all.")
    return 0


def _audit_and_fix(out: Path) -> None:
    import torch

    from depthscale.example import DEPTH, SIGMA_W, WIDTH, chaotic_mlp
    from depthscale.practice.audit import audit
    from depthscale.practice.data import digits
    from depthscale.practice.initialisation import critical_init_

    torch.set_num_threads(1)  # as in the training runs; on a busy machine two are slower
    out.mkdir(parents=True, exist_ok=True)
    data = digits().draw(BATCH)
    model = chaotic_mlp()
    print(
        f"A tanh MLP: {DEPTH} layers of width {WIDTH}, sigma_w^2 = {SIGMA_W**2:.2f}, sigma_b = 0."
    )
    print(f"Audited on {BATCH} of the 1,797 {data.name}.\n")
    before = audit(model, data.inputs, name="tanh MLP as given")
    before.to_html(out / "report.html")
    print(before)
    print("\n\nThe fix, depthscale.critical_init_(model, inputs), sets in place:\n")
    print(_shortened(str(critical_init_(model, data.inputs, seed=0))))
    after = audit(model, data.inputs, name="tanh MLP fixed")
    after.to_html(out / "report-fixed.html")
    print(f"\n\nAudited again:\n\n{after}")


def _shortened(table: str, head: int = 4) -> str:
    """Return the first lines and the last one of a long table."""
    lines = table.splitlines()
    if len(lines) <= head + 2:
        return table
    return "\n".join([*lines[:head], f"... {len(lines) - head - 1} more ...", lines[-1]])


def _train_both(steps: int, seeds: int) -> None:
    """Choose a learning rate for each version, train both over several seeds, print the scores."""
    from depthscale.practice.training import best_learning_rate

    print("\n\nIs the fix real? Both trained from the same seeds:\n")
    versions = (False, True)
    short = max(1, steps // 2)
    tuning = [Job(fixed, rate, TUNING_SEED, short) for fixed in versions for rate in LEARNING_RATES]
    with _pool() as pool:
        tuned = _watched(pool, tuning, "Choosing learning rates")
        half = len(LEARNING_RATES)
        rates = {False: best_learning_rate(tuned[:half]), True: best_learning_rate(tuned[half:])}
        jobs = [
            Job(fixed, rates[fixed], TUNING_SEED + 1 + seed, steps)
            for fixed in versions
            for seed in range(seeds)
        ]
        runs = _watched(pool, jobs, "Training both")
    _print_runs(jobs, runs)
    grid = ", ".join(f"{rate:g}" for rate in LEARNING_RATES)
    note = (
        f"Adam, {steps} steps of {BATCH} digits. Loss: cross-entropy over all "
        f"{runs[0].train.accuracy.total} training digits. Accuracy: on the digits held out, with "
        f"its 95 % binomial interval. Learning rate: for each version the best of {grid}, by "
        f"training loss after {short} steps on seed {TUNING_SEED}."
    )
    print(f"\n{textwrap.fill(note, 96)}")


def _print_runs(jobs: list[Job], runs: list[TrainingRun]) -> None:
    print(f"{'':12}{'seed':>4}{'learning rate':>15}{'training loss':>15}   test accuracy")
    for job, run in zip(jobs, runs, strict=True):
        assert run.test is not None
        version = "fixed" if job.fixed else "as given"
        print(
            f"{version:12}{job.seed:>4}{job.learning_rate:>15g}{run.train.loss:>15.4f}"
            f"   {run.test.accuracy}"
        )
    print(f"{'guessing':12}{'':19}{math.log(CLASSES):>15.4f}   {1 / CLASSES:.3f}")


def train_example(job: Job) -> TrainingRun:
    """Train one version of the example on three quarters of the digits, test on the rest."""
    from depthscale.example import chaotic_mlp
    from depthscale.practice.data import digits
    from depthscale.practice.initialisation import critical_init_
    from depthscale.practice.training import train

    train_set, test_set = digits().split(seed=0)
    model = chaotic_mlp(seed=job.seed)
    if job.fixed:
        critical_init_(model, train_set.inputs[:BATCH], seed=job.seed)
    return train(
        model,
        train_set,
        test_set,
        steps=job.steps,
        batch=BATCH,
        optimiser="adam",
        learning_rate=job.learning_rate,
        seed=job.seed,
    )


def _watched(pool: ProcessPoolExecutor, jobs: list[Job], label: str) -> list[TrainingRun]:
    """Run the jobs, with a progress bar where standard error is a terminal."""
    from depthscale.progress import progress_bar

    runs = []
    with progress_bar(label, len(jobs)) as advance:
        for run in pool.map(train_example, jobs):
            runs.append(run)
            advance()
    return runs


@contextmanager
def _pool() -> Iterator[ProcessPoolExecutor]:
    """Yield one worker a core, each with one thread: faster than threads inside an operation."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ProcessPoolExecutor(
        max_workers=min(cores or 1, 8),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    ) as pool:
        yield pool


def _start_worker() -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupted demo ends without tracebacks
    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())

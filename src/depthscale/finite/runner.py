"""Blocks of networks, one after the other or on several processes, into one set of statistics.

Results do not depend on the number of processes: every block has its own seed, and blocks are taken
in by their order. A run that is stopped goes on where it was saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from depthscale.answers import InputError
from depthscale.files import saved_run, whole
from depthscale.finite.architecture import Architecture, Start
from depthscale.finite.columns import Workspace
from depthscale.finite.losses import Loss
from depthscale.finite.observe import Signed, Watch
from depthscale.finite.passes import Block
from depthscale.finite.plan import Plan
from depthscale.finite.streaming import Tally
from depthscale.finite.upkeep import PRECISIONS
from depthscale.processes import shared_out
from depthscale.progress import progress_bar

SAVE_EVERY = 20.0  # seconds
STREAMS = 2  # changes with the networks that a seed draws, so that saved runs do not mix them


@dataclass(frozen=True)
class Job:
    """All that decides what comes out, but for the number of networks."""

    architecture: Architecture
    start: Start
    loss: Loss | None
    watch: Watch
    plan: Plan
    seed: int
    statistics: bool
    to_start: bool
    device: str
    precision: str

    def block(self, number: int, space: Workspace) -> dict[str, Signed]:
        """The observables of one block of networks."""
        seed = np.random.SeedSequence(self.seed, spawn_key=(number,))
        block = Block(
            self.architecture,
            self.start,
            self.plan.nets,
            seed,
            space,
            PRECISIONS[self.precision],
            stretch=self.plan.stretch,
            absolute=self.watch.absolute,
            statistics=self.statistics,
            to_start=self.to_start,
        )
        return self.watch.observables(block.run(self.loss), self.architecture)

    def blocks(self, numbers: range) -> list[dict[str, Signed]]:
        """Several blocks, on one thread."""
        space = Workspace(torch.device(self.device))
        with one_thread(), torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
            return [self.block(number, space) for number in numbers]

    @property
    def fingerprint(self) -> str:
        """Tells whether a saved state belongs to this job."""
        probe = np.linspace(-3.0, 3.0, 25)
        layers = [
            [*layer.activation(probe), layer.activation.name, layer.sigma_w, layer.sigma_b]
            for layer in self.architecture.layers
        ]
        layers += [[layer.drop, layer.masks, layer.skip] for layer in self.architecture.layers]
        loss = None if self.loss is None else self.loss.label
        chain = self.start.chain
        start = [self.start.kind, chain.parents, chain.order, self.start.columns.tolist()]
        rest = [
            self.architecture.output.name,
            self.architecture.widths,
            self.plan.weights.__name__,
            self.plan.nets,
        ]
        rest += [self.seed, self.statistics, self.to_start, self.device, self.precision]
        watch = [self.watch.pairs, self.watch.absolute, self.watch.tangent]
        text = json.dumps([STREAMS, layers, loss, start, rest, watch], default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread: blocks are too small for two, and sums then do not depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _pools().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the state is whole again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


@dataclass(frozen=True)
class Outcome:
    """Statistics of all networks and, where they were asked for, every network's own values."""

    tally: Tally
    trajectories: dict[str, Signed] | None


def run(
    job: Job,
    nets: int,
    *,
    workers: int,
    keep: bool,
    checkpoint: Path | None,
    progress: bool | None,
) -> Outcome:
    """Carry out a job for so many networks.

    Args:
        job: what.
        nets: how many networks.
        workers: processes, one thread each.
        keep: whether every network's own values are returned.
        checkpoint: a file that the state is saved to, and taken from where it exists.
        progress: whether to show it; None: on a terminal.

    Raises:
        InputError: a checkpoint of another job, or one that cannot be read.
    """
    size = job.plan.nets
    full, left = divmod(nets, size)
    tally, done, kept = _restored(checkpoint, job, full, keep)
    saved = time.monotonic()

    def save() -> None:
        if checkpoint is not None:
            _save(checkpoint, job, tally, done, kept if keep else [])

    try:
        with progress_bar("Networks", nets, done * size, progress) as advance:
            for values in _in_order(job, range(done, full), workers):
                with uninterrupted():
                    tally.add(values)
                    done += 1
                    if keep:
                        kept.append(values)
                advance(size)
                if checkpoint is not None and time.monotonic() - saved > SAVE_EVERY:
                    save()
                    saved = time.monotonic()
            save()
            if left:
                (values,) = job.blocks(range(full, full + 1))
                values = {name: (s[:left], v[:left]) for name, (s, v) in values.items()}
                tally.add(values)
                kept.append(values)
                advance(left)
    except KeyboardInterrupt:
        save()
        raise
    return Outcome(tally, _joined(kept) if keep else None)


def _joined(kept: list[dict[str, Signed]]) -> dict[str, Signed]:
    return {
        name: (
            np.concatenate([values[name][0] for values in kept]),
            np.concatenate([values[name][1] for values in kept]),
        )
        for name in kept[0]
    }


def _in_order(job: Job, blocks: range, workers: int) -> Iterator[dict[str, Signed]]:
    """Observables of the blocks, by their order, as soon as they are there."""
    if not blocks:
        return
    if workers == 1 or len(blocks) == 1:
        space = None
        for number in blocks:
            if space is None:
                space = Workspace(torch.device(job.device))
            with one_thread(), torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
                yield job.block(number, space)
        return
    yield from shared_out(job.blocks, blocks, workers)


# Saved states ------------------------------------------------------------------------------------


def _save(path: Path, job: Job, tally: Tally, done: int, kept: list[dict[str, Signed]]) -> None:
    """Write the state; whoever reads the file finds the old one or the new one, whole."""
    arrays: dict[str, Any] = {"fingerprint": np.array(job.fingerprint), "done": np.array(done)}
    if done:
        arrays |= {f"tally.{name}": values for name, values in tally.state().items()}
    if kept:
        for name, (sign, log) in _joined(kept).items():
            arrays |= {f"sign.{name}": sign, f"log.{name}": log}
    with whole(path) as beside, beside.open("wb") as file:
        np.savez(file, **arrays)


def _restored(
    path: Path | None, job: Job, full: int, keep: bool
) -> tuple[Tally, int, list[dict[str, Signed]]]:
    """The statistics so far, the number of blocks in them, and their networks' own values."""
    if path is None or not path.exists():
        return Tally(), 0, []
    with saved_run(path) as file:
        state = dict(file)
        fingerprint, done = str(state["fingerprint"]), int(state["done"])
    if fingerprint != job.fingerprint:
        raise InputError(
            f"{path} was saved by a run of another network, inputs, loss, seed or device; give"
            " another name, or remove it to start anew"
        )
    if done > full:
        raise InputError(
            f"{path} holds {done * job.plan.nets} networks already, more than the nets that are"
            " asked for; ask for at least as many, or give another name"
        )
    if not done:
        return Tally(), 0, []
    prefix = "tally."
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    names = [k.removeprefix("sign.") for k in state if k.startswith("sign.")]
    if keep and not names:
        raise InputError(
            f"{path} was saved without the networks' own values; give another name, or do without"
            " keep"
        )
    kept = [{name: (state[f"sign.{name}"], state[f"log.{name}"]) for name in names}]
    return Tally.from_state(inner), done, kept if keep else []

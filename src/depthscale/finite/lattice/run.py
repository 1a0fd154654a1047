"""Blocks of realisations, one after the other or on several processes, and what comes out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthscale.answers import InputError
from depthscale.files import replacing, saved_run
from depthscale.finite.columns import Array, Workspace
from depthscale.finite.lattice.block import Network, run_block
from depthscale.finite.lattice.observe import NAMES
from depthscale.finite.lattice.starts import Start
from depthscale.finite.runner import one_thread, uninterrupted
from depthscale.finite.upkeep import PRECISIONS
from depthscale.processes import shared_out
from depthscale.progress import progress_bar

SAVE_EVERY = 20.0  # seconds
STREAMS = 1  # changes with the networks that a seed draws, so that saved runs do not mix them


@dataclass(frozen=True)
class Job:
    """All that decides what comes out, but for the number of realisations."""

    network: Network
    start: Start
    depths: tuple[int, ...]
    seed: int
    nets: int
    device: str
    precision: str
    about: dict[str, Any]

    def block(self, number: int, space: Workspace) -> Array:
        """Observables of one block, ``[realisation, depth, observable]``."""
        seed = np.random.SeedSequence(self.seed, spawn_key=(number,))
        dtype = PRECISIONS[self.precision].close
        first = number * self.nets
        return run_block(
            self.network, self.start, self.depths, self.nets, first, seed, space, dtype
        )

    def blocks(self, numbers: range) -> list[Array]:
        """Several blocks, on one thread."""
        space = Workspace(torch.device(self.device))
        with working():
            return [self.block(number, space) for number in numbers]

    @property
    def fingerprint(self) -> str:
        """Tells whether a saved state belongs to this job."""
        probe = self.network.activation(np.linspace(-3.0, 3.0, 25)).tolist()
        rest = [self.depths, self.seed, self.nets, self.device, self.precision, NAMES]
        text = json.dumps([STREAMS, probe, self.about, self.start.settings, rest], default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def working() -> Iterator[None]:
    """One thread, and numbers below 1e-38 as 0, whose arithmetic is many times as slow."""
    with one_thread(), torch.no_grad(), np.errstate(all="ignore"):
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)


def run(
    job: Job, realisations: int, workers: int, checkpoint: Path | None, progress: bool | None
) -> Array:
    """Carry out a job, ``[realisation, depth, observable]``.

    Args:
        job: what.
        realisations: how many.
        workers: processes, one thread each; results do not depend on it.
        checkpoint: a file that the state is saved to, and taken from where it exists.
        progress: whether to show it; None: on a terminal.

    Raises:
        InputError: a checkpoint of another job, or one that cannot be read.
    """
    blocks = -(-realisations // job.nets)
    kept = _restored(checkpoint, job)
    saved = time.monotonic()
    try:
        done = min(len(kept) * job.nets, realisations)
        with progress_bar("Realisations", realisations, done, progress) as advance:
            for values in _in_order(job, range(len(kept), blocks), workers):
                with uninterrupted():
                    kept.append(values)
                advance(job.nets)
                if checkpoint is not None and time.monotonic() - saved > SAVE_EVERY:
                    _save(checkpoint, job, kept)
                    saved = time.monotonic()
    finally:
        if checkpoint is not None and kept:
            _save(checkpoint, job, kept)
    return np.concatenate(kept)[:realisations]


def _in_order(job: Job, blocks: range, workers: int) -> Iterator[Array]:
    """The blocks, by their order, as soon as they are there."""
    if workers == 1 or len(blocks) <= 1:
        space = Workspace(torch.device(job.device))
        for number in blocks:
            with working():
                yield job.block(number, space)
        return
    yield from shared_out(job.blocks, blocks, workers)


def _save(path: Path, job: Job, kept: list[Array]) -> None:
    """Write the state; whoever reads the file finds the old one or the new one, whole."""
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez(file, fingerprint=np.array(job.fingerprint), values=np.stack(kept))


def _restored(path: Path | None, job: Job) -> list[Array]:
    """The blocks of an earlier run."""
    if path is None:
        return []
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to save {path.name} into")
    if not path.exists():
        return []
    with saved_run(path) as file:
        fingerprint, values = str(file["fingerprint"]), file["values"]
        if values.ndim != 4 or values.dtype != float:
            raise ValueError(f"values of shape {values.shape}")
    if fingerprint != job.fingerprint:
        raise InputError(
            f"{path} was saved by a run of another lattice, start, seed, device or other depths;"
            " give another name, or remove it to start anew"
        )
    return list(values)

"""A trial: networks, arms, data and how they are trained; and one run of it."""

from __future__ import annotations

import copy
import json
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from depthscale.answers import InputError
from depthscale.practice import datasets, networks
from depthscale.practice.data import DataSet
from depthscale.practice.dropping.apply import apply_schedule
from depthscale.practice.dropping.blocks import spread
from depthscale.practice.dropping.sites import dropout_sites
from depthscale.practice.training import score, train
from depthscale.practice.trials.arms import Arm
from depthscale.practice.trials.metrics import marks

Build = Callable[..., nn.Module]
"""As ``networks.build``: name, shape of an example, classes, seed and sizes to a model."""
Load = Callable[[str], tuple[DataSet, DataSet]]
"""A name to training and test part."""


@dataclass(frozen=True)
class Cell:
    """One network and the arms that are trained on it.

    ``network`` and ``sizes`` are what the builder takes; ``kinds`` the kinds of sites that drop
    (None: all), where a block has several.
    """

    name: str
    network: str
    arms: tuple[Arm, ...]
    sizes: dict[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] | None = None

    def arm(self, name: str) -> Arm:
        """The arm that goes by a name."""
        for arm in self.arms:
            if name in arm.names:
                return arm
        known = ", ".join(name for arm in self.arms for name in arm.names)
        raise InputError(f"{self.name} has no arm {name!r}; expected one of {known}")


@dataclass(frozen=True)
class Trial:
    """All that decides what comes out, but for the seeds.

    A seed draws ``train`` and ``validation`` examples from the data's training part, ``test`` from
    its test part, the initial weights and the order of batches: the same for every arm of a cell.
    Dropout noise is drawn for each arm by itself. ``decay`` and ``optimiser`` are those of
    ``training.train``; AdamW has torch's weight decay, 0.01.
    """

    data: str
    cells: tuple[Cell, ...]
    train: int = 5000
    validation: int = 1000
    test: int = 5000
    epochs: int = 75
    batch: int = 100
    optimiser: str = "adamw"
    learning_rate: float = 1e-4
    decay: str = "cosine"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test", "epochs", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; expected a whole number, at least 1")
        if not self.cells or not all(cell.arms for cell in self.cells):
            raise InputError("a trial takes at least one cell, and each cell an arm")
        for kind, names in (
            ("cells", [cell.name for cell in self.cells]),
            *((f"arms of {c.name}", [n for arm in c.arms for n in arm.names]) for c in self.cells),
        ):
            if len(set(names)) < len(names):
                raise InputError(f"{kind} share a name: {', '.join(names)}; give each its own")

    def cell(self, name: str) -> Cell:
        """The cell of a name."""
        for cell in self.cells:
            if cell.name == name:
                return cell
        known = ", ".join(cell.name for cell in self.cells)
        raise InputError(f"the trial has no cell {name!r}; expected one of {known}")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, which ``from_dict`` reads back."""
        cells = [asdict(cell) | {"arms": [a.to_dict() for a in cell.arms]} for cell in self.cells]
        record = asdict(self) | {"cells": cells}
        return dict(json.loads(json.dumps(record)))

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Trial:
        """What ``to_dict`` gave."""
        cells = tuple(
            Cell(
                cell["name"],
                cell["network"],
                tuple(Arm.from_dict(arm) for arm in cell["arms"]),
                {name: _tupled(size) for name, size in cell["sizes"].items()},
                None if cell["kinds"] is None else tuple(cell["kinds"]),
            )
            for cell in record["cells"]
        )
        return cls(**{**record, "cells": cells})


def _tupled(size: Any) -> Any:
    """Several numbers as a tuple, which JSON has not."""
    return tuple(size) if isinstance(size, list) else size


@dataclass(frozen=True)
class Parts:
    """The examples of one seed; no part shares one with another."""

    train: DataSet
    validation: DataSet
    test: DataSet
    classes: int


def check_size(trial: Trial, learn: DataSet, test: DataSet) -> None:
    """``InputError`` with sizes that fit where the data have fewer examples than a trial takes.

    Nothing is taken silently from fewer: other sizes are another trial, with other results.
    """
    wanted = trial.train + trial.validation
    validation = trial.validation
    if wanted > len(learn):
        validation = max(1, len(learn) * validation // wanted)
    train, tested = min(trial.train, len(learn) - validation), min(trial.test, len(test))
    for data, count in ((learn, wanted), (test, trial.test)):
        if count > len(data):
            raise InputError(
                f"{data.name} has {len(data)} examples, and the trial takes {count}; sizes that"
                f" fit: --train {train} --validation {validation} --test {tested}"
            )


def parts(trial: Trial, seed: int, load: Load = datasets.load) -> Parts:
    """Draw the examples of a seed; ``InputError`` where the data have too few."""
    learn, test = load(trial.data)
    check_size(trial, learn, test)
    wanted = trial.train + trial.validation
    drawn = learn.draw(wanted, seed)
    assert learn.targets is not None  # of all published sets
    order = torch.arange(wanted)
    return Parts(
        drawn.take(order[: trial.train]),
        drawn.take(order[trial.train :]),
        test.draw(trial.test, seed),
        int(learn.targets.max()) + 1,
    )


def one_run(
    trial: Trial,
    cell: Cell,
    arm: Arm,
    seed: int,
    build: Build = networks.build,
    load: Load = datasets.load,
) -> dict[str, Any]:
    """Train one arm with one seed; returns its record, ready for JSON.

    ``selected`` is the epoch of the least validation cross-entropy, ``final`` the last one. The
    test part is scored after all training, at these two. ``initial`` is a checksum of the weights
    before training, the same for all arms of a seed.
    """
    began = time.perf_counter()
    data = parts(trial, seed, load)
    shape = tuple(data.train.inputs.shape[1:])
    model = build(cell.network, shape, data.classes, seed, **cell.sizes).to(trial.device)
    initial, rates = checksum(model), arm.rates_at(seed)
    sites = dropout_sites(model, data.train.inputs[:2].to(trial.device))
    whole = cell.kinds is None and len(rates) == len(sites)
    each = rates if whole else spread(rates, sites, cell.kinds)
    watch = _Watch(model, data.validation)
    with apply_schedule(model, each, sites):
        run = train(
            model,
            data.train,
            epochs=trial.epochs,
            batch=trial.batch,
            optimiser=trial.optimiser,
            learning_rate=trial.learning_rate,
            decay=trial.decay,
            seed=seed,
            noise_seed=noise_seed(seed, rates),
            after_epoch=watch,
        )
    record = {"cell": cell.name, "arm": arm.name, "seed": seed, "rates": list(rates)}
    record |= {"initial": initial, "diverged": run.diverged, "curve": watch.curve}
    record["final"] = _moment(model, data, len(watch.curve))
    if watch.best_state is not None:
        model.load_state_dict(watch.best_state)
    record["selected"] = _moment(model, data, watch.best_epoch)
    return record | {"seconds": round(time.perf_counter() - began, 2)}


class _Watch:
    """Scores the validation part after each epoch, and keeps the state that did best."""

    def __init__(self, model: nn.Module, validation: DataSet) -> None:
        self.model, self.validation = model, validation
        self.curve: list[float | None] = []
        self.best_epoch = 0
        self.best_state: dict[str, Any] | None = None
        self._least = math.inf

    def __call__(self, epoch: int) -> None:
        loss = score(self.model, self.validation).loss
        self.curve.append(round(loss, 5) if math.isfinite(loss) else None)
        if loss < self._least:
            self._least, self.best_epoch = loss, epoch
            self.best_state = copy.deepcopy(self.model.state_dict())


def _moment(model: nn.Module, data: Parts, epoch: int) -> dict[str, Any]:
    named = (("train", data.train), ("validation", data.validation), ("test", data.test))
    return {"epoch": epoch} | {name: marks(model, part).to_dict() for name, part in named}


def noise_seed(seed: int, rates: tuple[float, ...]) -> int:
    """Seed of the dropout noise: another one for each seed and rates, whatever the other arms."""
    key = zlib.crc32(json.dumps([float(rate) for rate in rates]).encode())
    mixed = np.random.SeedSequence([seed, key]).generate_state(1, np.uint64)[0]
    return int(mixed) >> 1


def checksum(model: nn.Module) -> int:
    """CRC-32 of all parameters."""
    value = 0
    for parameter in model.parameters():
        value = zlib.crc32(parameter.detach().cpu().contiguous().numpy().tobytes(), value)
    return value

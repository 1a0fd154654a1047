"""A small supervised training loop: seeded, measured, and quiet unless someone is watching."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from depthscale.answers import InputError
from depthscale.practice.data import DataSet
from depthscale.practice.probe.state import check_seed, modes_kept
from depthscale.progress import progress_bar

# Fused: one kernel for all parameters, a quarter less time a step for a deep MLP on a CPU.
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),  # weight decay 0.01, torch's default
    "sgd": partial(torch.optim.SGD, momentum=0.9, fused=True),
}
DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
}
"""Factor of the learning rate after a share of all steps."""


@dataclass(frozen=True)
class Accuracy:
    """A share of examples classified correctly, with its 95 % binomial interval.

    The interval is Wilson's: it stays inside [0, 1] and keeps its coverage near the ends. It covers
    the choice of test examples, not of the initialisation; repeat over seeds for that.

    >>> print(Accuracy(45, 50))
    0.900 [0.786, 0.957]
    """

    correct: int
    total: int

    @property
    def value(self) -> float:
        """The share of correct answers."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        z, n, p = 1.959963984540054, self.total, self.value
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # At 0 or all correct one end equals p, but for rounding.
        return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy (nats) and accuracy over a whole data set, in evaluation mode."""

    loss: float
    accuracy: Accuracy


@dataclass(frozen=True)
class TrainingRun:
    """What one training run measured.

    ``losses`` [step] is the cross-entropy of each batch before its update, shorter than ``steps``
    when it stopped being finite (``diverged``). ``train`` and ``test`` are scores after the last
    update (``test`` None without a test set); a diverged run is scored where it stopped, and its
    losses may be infinite.
    """

    losses: np.ndarray
    train: Score
    test: Score | None
    steps: int
    learning_rate: float
    optimiser: str
    batch: int
    seed: int
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether training stopped early because the loss was no longer finite."""
        return len(self.losses) < self.steps or not math.isfinite(self.train.loss)


def train(
    model: nn.Module,
    train_set: DataSet,
    test_set: DataSet | None = None,
    *,
    steps: int = 300,
    epochs: int | None = None,
    batch: int = 128,
    optimiser: str = "adam",
    learning_rate: float = 1e-3,
    decay: str = "constant",
    seed: int = 0,
    noise_seed: int | None = None,
    after_epoch: Callable[[int], None] | None = None,
    progress: str = "",
) -> TrainingRun:
    """Train ``model`` in place on class labels with cross-entropy, and score it.

    Batches run through seeded shuffles of the training set; dropout draws from the same seed, or
    one of its own, and torch's global generators are left as they were, as is the mode of the model
    and of every submodule, also after an exception. While it trains, all of them are in training
    mode.

    Args:
        model: returns logits [example, class].
        train_set: inputs and targets.
        test_set: scored after training, never trained on.
        steps: number of updates, at least 1.
        epochs: passes over the training set, at least 1, instead of ``steps``.
        batch: examples an update; the last batch of a pass over the data may be smaller.
        optimiser: "adam", "adamw" (weight decay 0.01) or "sgd" (momentum 0.9).
        learning_rate: of the first step, positive.
        decay: "constant", or "cosine": ``(1 + cos(pi step/steps))/2`` times it.
        seed: of the order of examples, and of dropout where ``noise_seed`` is None.
        noise_seed: of dropout, so that runs in the same order can draw masks of their own.
        after_epoch: called after each whole pass with the number of passes. It may score the model
            (in evaluation mode that draws no numbers), and must leave its mode as it was.
        progress: label of a progress bar on standard error, drawn only on a terminal; empty: none.

    Raises:
        InputError: no targets, an unknown optimiser, or a number out of its range.

    Example:
        >>> from depthscale.example import chaotic_mlp
        >>> from depthscale.practice.data import digits
        >>> run = train(chaotic_mlp(depth=2, width=32), digits(), steps=3)
        >>> run.losses.shape
        (3,)
    """
    if epochs is not None:
        steps = _steps(epochs, len(train_set), batch)
    _check_sets(train_set, test_set)
    _check(steps, batch, optimiser, learning_rate, decay)
    noise_seed = seed if noise_seed is None else noise_seed
    check_seed(seed)
    check_seed(noise_seed)
    where = next(model.parameters()).device
    losses: list[float] = []
    started = time.perf_counter()
    bar = progress_bar(progress, steps, shown=None if progress else False)
    with _seeded(where, noise_seed), modes_kept(model), bar as advance:
        model.train()
        update = OPTIMISERS[optimiser](model.parameters(), lr=learning_rate)
        rates = (learning_rate * DECAYS[decay](step / steps) for step in range(steps))
        for loss in _updates(model, update, _batches(train_set, batch, steps, seed), rates):
            losses.append(loss)
            advance()
            passes, within = divmod(len(losses), math.ceil(len(train_set) / batch))
            if after_epoch is not None and within == 0:
                after_epoch(passes)
    seconds = time.perf_counter() - started
    return TrainingRun(
        losses=np.array(losses),
        train=score(model, train_set),
        test=None if test_set is None else score(model, test_set),
        steps=steps,
        learning_rate=learning_rate,
        optimiser=optimiser,
        batch=batch,
        seed=seed,
        seconds=seconds,
    )


def score(model: nn.Module, data: DataSet, *, batch: int = 1024) -> Score:
    """Return mean cross-entropy and accuracy of ``model`` on ``data``, in evaluation mode.

    The mode of the model and of every submodule is left as it was, also after an exception.
    """
    total, correct = 0.0, 0
    for logits, targets in answers(model, data, batch=batch):
        total += float(functional.cross_entropy(logits, targets, reduction="sum"))
        correct += int((logits.argmax(dim=1) == targets).sum())
    loss = total / len(data)
    return Score(loss if math.isfinite(loss) else math.inf, Accuracy(correct, len(data)))


def answers(
    model: nn.Module, data: DataSet, *, batch: int = 1024
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield logits [example, class] in evaluation mode, and targets, in parts of the data's order.

    Each part is on the model's device. The mode of the model and of every submodule is put back
    before each part is handed out.
    """
    if data.targets is None:
        raise InputError(f"{data.name} has no targets to score against")
    where = next(model.parameters()).device
    for start in range(0, len(data), batch):
        with modes_kept(model), torch.no_grad():
            model.eval()
            logits = model(data.inputs[start : start + batch].to(where))
        yield logits, data.targets[start : start + batch].to(where)


def best_learning_rate(runs: list[TrainingRun]) -> float:
    """Return the learning rate whose run ended at the lowest training loss; diverged runs lose.

    Where several runs share a learning rate, their mean training loss counts. Where all diverged,
    the smallest learning rate is returned.
    """
    if not runs:
        raise InputError("no training runs to choose a learning rate from")
    losses: dict[float, list[float]] = {}
    for run in runs:
        losses.setdefault(run.learning_rate, []).append(
            math.inf if run.diverged else run.train.loss
        )
    return min(sorted(losses), key=lambda rate: float(np.mean(losses[rate])))


def _updates(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    rates: Iterable[float],
) -> Iterator[float]:
    """Make an update a batch, and yield the loss before each; stop where it is not finite."""
    where = next(model.parameters()).device
    for (inputs, targets), rate in zip(batches, rates, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(inputs.to(where)), targets.to(where))
        value = float(loss.detach())
        if not math.isfinite(value):
            return
        torch.autograd.backward(loss)
        optimiser.step()
        yield value


def _steps(epochs: int, examples: int, batch: int) -> int:
    """Updates of so many passes; a batch below 1 is refused later."""
    if not isinstance(epochs, int) or epochs < 1:
        raise InputError(f"epochs must be a whole number, at least 1, got {epochs!r}")
    return epochs * math.ceil(examples / max(batch, 1))


def _check_sets(*sets: DataSet | None) -> None:
    for data in sets:
        if data is not None and data.targets is None:
            raise InputError(f"{data.name} has no targets to train on")


def _check(steps: int, batch: int, optimiser: str, learning_rate: float, decay: str) -> None:
    if optimiser not in OPTIMISERS:
        raise InputError(
            f"unknown optimiser {optimiser!r}; expected one of {', '.join(OPTIMISERS)}"
        )
    if not all(isinstance(count, int) for count in (steps, batch)):
        raise InputError(f"steps and batch must be whole numbers, got {steps!r} and {batch!r}")
    if steps < 1 or batch < 1:
        raise InputError(f"steps and batch must be at least 1, got {steps} and {batch}")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise InputError(f"the learning rate must be positive, got {learning_rate}")
    if decay not in DECAYS:
        raise InputError(f"unknown decay {decay!r}; expected one of {', '.join(DECAYS)}")


def _batches(
    data: DataSet, batch: int, steps: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield ``steps`` batches from successive shuffles of the data."""
    assert data.targets is not None
    generator = torch.Generator().manual_seed(seed)
    done = 0
    while True:
        order = torch.randperm(len(data), generator=generator)
        for start in range(0, len(data), batch):
            if done == steps:
                return
            index = order[start : start + batch]
            yield data.inputs[index], data.targets[index]
            done += 1


@contextlib.contextmanager
def _seeded(where: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's global generators, which dropout draws from, and put them back afterwards."""
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed would seed all accelerators, which fork_rng then leaves so.
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(where):
                torch.cuda.manual_seed(seed)
        yield

"""What is differentiated: a random readout of the output, cross-entropy, or the caller's loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from depthscale.answers import InputError
from depthscale.practice.probe.feed import describe, tensors_of
from depthscale.practice.probe.statistics import example_rows


@dataclass(frozen=True)
class Goal:
    """The scalar E whose gradients are measured.

    Without targets and loss: ``E = sum_i s_i r . out_i`` with one zero-mean Gaussian vector r of
    unit expected length for all examples, so that the gradient at the output is the same for every
    example and independent of the weights, as theory assumes, but for its random sign s_i: the
    backward pass of a batch normalisation takes out exactly what all examples have in common.
    ``signs`` undoes it where gradients are compared. With targets alone: cross-entropy
    summed over examples. With a loss: ``loss(output)`` or ``loss(output, targets)``, summed if it
    is not a scalar.
    """

    targets: torch.Tensor | None
    loss: Callable[..., Any] | None
    seed: int
    size: int

    def signs(self, batch: int) -> torch.Tensor | None:
        """The sign of each example's readout (both copies of a doubled batch share theirs).

        ``None`` where targets or a loss of the caller are differentiated.
        """
        if self.targets is not None or self.loss is not None:
            return None
        state = np.random.SeedSequence([self.seed, 2]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state) % 2**63)
        # Half of each, in a random order, so that a small batch has both.
        signs = torch.ones(self.size, dtype=torch.float64)
        signs[torch.randperm(self.size, generator=generator)[: self.size // 2]] = -1.0
        return signs.repeat(batch // self.size)

    def __call__(self, output: Any, batch: int) -> torch.Tensor:
        """E of an output for ``batch`` examples (the targets are repeated to fit)."""
        targets = self.targets
        if targets is not None and len(targets) * 2 == batch:
            targets = torch.cat([targets, targets])
        if self.loss is not None:
            try:
                value = self.loss(output) if targets is None else self.loss(output, targets)
            # A foreign loss may raise anything; it is quoted with what it was given.
            except Exception as error:
                given = f"targets of shape {tuple(targets.shape)}" if targets is not None else ""
                raise InputError(
                    f"loss fails with {type(error).__name__}: {error}; it was called with the "
                    f"output ({describe(output)})" + (f" and {given}" if given else "")
                ) from error
            if not isinstance(value, torch.Tensor):
                raise InputError(f"loss returned {type(value).__name__}, expected a scalar tensor")
            return value.sum()
        floats = _output_tensors(output, batch)
        if targets is None:
            return self._readout(floats, batch)
        return _cross_entropy(floats[0], targets.to(floats[0].device))

    def _readout(self, floats: list[torch.Tensor], batch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        signs = self.signs(batch)
        assert signs is not None  # neither targets nor a loss
        total = torch.zeros((), dtype=torch.float32, device=floats[0].device)
        for tensor in floats:
            rows = example_rows(tensor, batch)
            assert rows is not None  # _output_tensors keeps tensors with a batch dimension
            count = rows.shape[1]
            vector = torch.randn(count, generator=generator, dtype=torch.float64) / count**0.5
            exact = torch.promote_types(rows.dtype, torch.float32)
            read = rows.to(exact) @ vector.to(device=rows.device, dtype=exact)
            total = total + read @ signs.to(device=rows.device, dtype=exact)
        return total


def make_goal(targets: Any, loss: Any, *, batch: int, seed: int) -> Goal:
    """Check targets and loss against the batch."""
    if loss is not None and not callable(loss):
        raise InputError(f"loss must be callable, got {type(loss).__name__}")
    if targets is None:
        return Goal(None, loss, seed, batch)
    if not isinstance(targets, torch.Tensor):
        targets = torch.as_tensor(np.asarray(targets))
    if targets.ndim == 0 or len(targets) != batch:
        raise InputError(
            f"targets have shape {tuple(targets.shape)}, expected {batch} along the first "
            "dimension, one for each example of the inputs"
        )
    kept = targets.clone() if targets.is_inference() else targets.detach()
    return Goal(kept, loss, seed, batch)


def _output_tensors(output: Any, batch: int) -> list[torch.Tensor]:
    """Float outputs with a batch dimension; of a mapping, only those that are not nested deeper.

    Hidden states and attention maps that a Hugging Face model returns as tuples are left out:
    reading them out too would send gradients into every layer.
    """
    if isinstance(output, Mapping):
        if isinstance(output.get("logits"), torch.Tensor):
            output = output["logits"]
        else:
            output = [value for value in output.values() if isinstance(value, torch.Tensor)]
    floats = [
        tensor
        for _, tensor in tensors_of(output)
        if tensor.is_floating_point() and example_rows(tensor, batch) is not None
    ]
    if not floats:
        raise InputError(
            f"the output ({describe(output)}) holds no float tensor with a batch of {batch}; "
            "give loss=, a function from the output to a scalar"
        )
    return floats


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if targets.is_floating_point() and targets.shape != logits.shape:
        raise InputError(
            f"float targets of shape {tuple(targets.shape)} do not fit an output of shape "
            f"{tuple(logits.shape)}; give loss= (for example torch.nn.functional.mse_loss)"
        )
    classes = logits.shape[:1] + logits.shape[2:]
    if logits.ndim > 2 and targets.shape != classes and targets.shape == logits.shape[:-1]:
        logits, targets = logits.flatten(0, -2), targets.flatten()
    if not targets.is_floating_point():
        targets = targets.long()
    try:
        return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"cross-entropy of an output of shape {tuple(logits.shape)} with targets of shape "
            f"{tuple(targets.shape)} fails ({error}); give loss= instead"
        ) from error

"""What a trained classifier is measured by."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from depthscale.practice.data import DataSet
from depthscale.practice.training import answers

BINS = 15


@dataclass(frozen=True)
class Marks:
    """Cross-entropy in nats, accuracy, and expected calibration error, of one data set.

    A cross-entropy that is not finite is infinite here, and null in JSON.
    """

    cross_entropy: float
    accuracy: float
    calibration_error: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            name: round(value, 7) if math.isfinite(value) else None
            for name, value in asdict(self).items()
        }


def marks(model: nn.Module, data: DataSet) -> Marks:
    """Measure ``model`` on all of ``data`` in evaluation mode; its mode is left as it was."""
    parts = list(answers(model, data))
    logits = torch.cat([logits for logits, _ in parts]).double()
    targets = torch.cat([targets for _, targets in parts])
    loss = float(functional.cross_entropy(logits, targets))
    right = logits.argmax(dim=1) == targets
    confidence = logits.softmax(dim=1).amax(dim=1)
    if not math.isfinite(loss):
        return Marks(math.inf, float(right.double().mean()), math.nan)
    return Marks(loss, float(right.double().mean()), calibration_error(confidence, right))


def calibration_error(confidence: torch.Tensor, right: torch.Tensor, bins: int = BINS) -> float:
    """Expected calibration error: ``sum_b (n_b/n) |share right in b - mean confidence in b|``.

    Bins are equally wide, ``((b - 1)/bins, b/bins]``. It grows with the number of bins and falls
    with that of examples even for a calibrated model, so compare only like with like.

    Args:
        confidence: probability of the class that was chosen, [example], in [0, 1].
        right: whether it was the right one, [example].
        bins: at least 1.

    Example:
        >>> sure, right = torch.tensor([0.9, 0.9, 0.6]), torch.tensor([True, False, True])
        >>> round(calibration_error(sure, right), 6)
        0.4
    """
    places = (confidence * bins).ceil().long().clamp(1, bins) - 1
    excess = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    excess.index_add_(0, places, right.double() - confidence.double())
    return float(excess.abs().sum()) / len(confidence)

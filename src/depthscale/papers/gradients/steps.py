"""Figure 6 trained anew: how many steps deep tanh networks take to learn a little of real digits.

The network is that of the authors' published code (``experiments/include/model.py`` beside their
data): ``L`` layers of weights, the first from the pixels, the last to ten outputs, orthogonal and
scaled to ``sigma_w^2``; biases from N(0, sigma_b^2), trained too; tanh on every layer, also on the
outputs, whose bias is added after it; dropout after every hidden layer, its masks also drawn where
accuracy is measured; cross-entropy, and gradient descent without momentum. Accuracy is that of
images held out: the authors' notebook says so, and their values are multiples of 1/10,000.

Not theirs: the 8x8 digits of scikit-learn for MNIST, a smaller width, and batches of 32 for 1000.

Nor is the bias variance, 0.05 in that code, which sweeps ``sigma_w^2``: here the two are 1.05 and
2e-5, critical without dropout and nearly isometric, at every rho. See ``speed`` for why.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from depthscale.papers.gradients.published import training_steps
from depthscale.practice.data import DataSet, digits
from depthscale.theory.gaussian import Array

WEIGHT_VARIANCE = 1.05
BIAS_VARIANCE = 2e-5
WIDTH = 200

NETS = {
    1.0: {50: 6, 100: 4, 200: 3, 400: 3},
    0.99: {20: 6, 40: 4, 80: 3},
    0.98: {20: 6, 40: 4, 80: 3},
}
"""Networks by rho and depth: about the same time for each depth."""
ACCURACY = 0.25
LUCKY = 0.175
"""Accuracy half-way from chance to that: a network that starts there says little about speed."""

BATCH = 32
HELD_OUT = 256
PIXELS = 64
CLASSES = 10

EVERY = 8
"""Steps between two measurements of accuracy; in between it is interpolated."""

PATIENCE = 300
"""Steps after which a learning rate counts as failed."""

MANY = 30
"""Steps above which the first ones, and the interpolation, matter little."""


class Trained(NamedTuple):
    """Learning rates, ascending, and the steps that one network took at each; infinite: failed."""

    rates: Array
    steps: Array


@dataclass(frozen=True)
class Network:
    """One network that is trained in place.

    Attributes
    ----------
    weights, biases:
        By layer: ``[below, above]`` and ``[above]``.
    rho:
        Probability that a hidden unit is kept.
    generator:
        Draws the masks.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    rho: float
    generator: Generator

    @classmethod
    def drawn(cls, sizes: list[int], rho: float, seed: int) -> Network:
        """Orthogonal weights and normal biases, from the seed alone."""
        generator = Generator().manual_seed(seed)
        weights, biases = [], []
        for below, above in pairwise(sizes):
            turn = orthogonal(below, above, generator)
            weights.append(turn * math.sqrt(WEIGHT_VARIANCE))
            biases.append(torch.randn(above, generator=generator) * math.sqrt(BIAS_VARIANCE))
        return cls(weights, biases, rho, generator)

    def copy(self, seed: int) -> Network:
        """The same network, to be trained apart, with masks from a seed of its own."""
        weights, biases = ([x.clone() for x in old] for old in (self.weights, self.biases))
        return Network(weights, biases, self.rho, Generator().manual_seed(seed))

    def outputs(self, inputs: Tensor) -> Tensor:
        """Logits ``[image, class]``, under fresh masks."""
        signal = inputs
        for layer in range(len(self.weights) - 1):
            signal, _ = self._hidden(layer, signal)
        return torch.tanh(signal @ self.weights[-1]) + self.biases[-1]

    def accuracy(self, images: DataSet) -> float:
        """Share of the images that are named correctly, under fresh masks."""
        assert images.targets is not None
        right = torch.eq(self.outputs(images.inputs).argmax(1), images.targets)
        return float(right.double().mean())

    def descend(self, inputs: Tensor, labels: Tensor, rate: float) -> None:
        """One step down the cross-entropy of a batch of images.

        The chain rule by hand, each layer updated as soon as its gradient is known: a third of the
        time that autograd takes.
        """
        entering, keeps = [inputs], [torch.ones(1)]
        for layer in range(len(self.weights) - 1):
            signal, keep = self._hidden(layer, entering[-1])
            entering.append(signal)
            keeps.append(keep)
        top = torch.tanh(entering[-1] @ self.weights[-1])
        guess = torch.softmax(top + self.biases[-1], 1)
        delta = (guess - functional.one_hot(labels, CLASSES)) / len(inputs)
        self.biases[-1].sub_(delta.sum(0), alpha=rate)
        delta *= 1 - top * top
        for layer in reversed(range(len(self.weights))):
            weight, signal = self.weights[layer], entering[layer]
            below = delta @ weight.T if layer else delta
            weight.addmm_(signal.T, delta, alpha=-rate)
            if layer:
                # (1 - t^2) mask/rho of the signal x = t mask/rho
                delta = below.mul_(torch.addcmul(keeps[layer], signal, signal, value=-self.rho))
                self.biases[layer - 1].sub_(delta.sum(0), alpha=rate)

    def _hidden(self, layer: int, signal: Tensor) -> tuple[Tensor, Tensor]:
        """The signal above a hidden layer, and its mask over rho."""
        above = torch.addmm(self.biases[layer], signal, self.weights[layer]).tanh_()
        if self.rho == 1:
            return above, torch.ones(1)
        keep = torch.empty_like(above).bernoulli_(self.rho, generator=self.generator)
        keep /= self.rho
        return above.mul_(keep), keep


def orthogonal(below: int, above: int, generator: Generator) -> Tensor:
    """A random matrix ``[below, above]`` with orthonormal rows or columns, whichever fit.

    Scaled so that a unit above receives the mean square of those below.
    """
    tall = torch.randn(max(below, above), min(below, above), generator=generator)
    q, r = torch.linalg.qr(tall)
    q *= r.diagonal().sign()  # uniform over all rotations
    turn: Tensor = q if below >= above else q.T
    scaled: Tensor = turn.contiguous() * math.sqrt(max(1.0, above / below))
    return scaled


def steps_taken(network: Network, rate: float, seed: int) -> float:
    """Steps until the network reaches the accuracy on images that it is not trained on."""
    train, test = _images()
    assert train.targets is not None
    order = Generator().manual_seed(seed)
    before = 0.0
    for step in range(PATIENCE + 1):
        if step % EVERY == 0:
            now = network.accuracy(test)
            if now >= ACCURACY:
                share = (ACCURACY - before) / (now - before)
                return max(step - EVERY * (1 - share), 0.0)
            before = now
        batch = torch.randint(len(train), (BATCH,), generator=order)
        network.descend(train.inputs[batch], train.targets[batch], rate)
    return math.inf


@cache
def trained(rho: float, depth: int, width: int, index: int) -> Trained:
    """One network's steps at the authors' learning rates for this rho and depth.

    From a quarter of their fastest downwards until it has needed many steps at two below its own
    fastest; from the same weights each time. A network that names many digits before it is trained
    is left alone: no rates, no steps.
    """
    published, theirs = training_steps()[rho, depth]
    seed = zlib.crc32(f"training {rho} {depth} {width} {index}".encode())
    sizes = [PIXELS, *[width] * (depth - 1), CLASSES]
    start = Network.drawn(sizes, rho, seed)
    rates: list[float] = []
    steps: list[float] = []
    if start.accuracy(_images()[1]) < LUCKY:
        for rate in published[published < 0.3 * published[theirs.argmin()]][::-1]:
            rates.append(float(rate))
            steps.append(steps_taken(start.copy(seed + 1), rates[-1], seed + 2))
            slower = steps[int(np.argmin(steps)) + 1 :]
            if sum(MANY < taken < math.inf for taken in slower) == 2:
                break
    return Trained(np.array(rates[::-1]), np.array(steps[::-1]))


@cache
def _images() -> tuple[DataSet, DataSet]:
    train, test = digits().split(seed=0)
    return train, test.take(torch.arange(HELD_OUT))

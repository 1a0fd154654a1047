"""What is trained for the claims: kernels and finite networks on the digits, computed once each."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from depthscale.papers.absorbing.runs import Runs, seed
from depthscale.practice.data import DataSet
from depthscale.practice.data_window import DataWindow, data_window, distances
from depthscale.practice.kernel_regression import (
    KernelRegression,
    cosine_gaps,
    network_regression,
)
from depthscale.practice.networks import build
from depthscale.practice.training import TrainingRun, best_learning_rate, train
from depthscale.theory.criticality import critical_point
from depthscale.theory.gaussian import Array
from depthscale.theory.kernel_window import reach
from depthscale.theory.meanfield import MeanField
from depthscale.theory.tangent_kernel import KernelTable

SIZE, SMALL = 400, 100
"""Examples that are learned from, and as many others that are scored; in the quick setting."""

STEPS = 1000.0
BRIGHTER = (0.0, 20.0, 70.0)
"""Added to all pixels, which are 0 to 16: brighter images lie closer together."""

BIASES = (0.05, 0.3, 1.0)
DEPTHS = (8, 32, 128, 512, 2048)
REACHES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""``X = beta a L`` that activations are compared at."""

WIDTHS, FEW = (64, 128, 256), 300
"""Of the finite networks that kernel regression is compared with, and their steps."""

RATES = (1e-4, 3e-4, 1e-3)
"""Learning rates of Adam: the one with the lowest training loss counts."""

DETUNINGS = (-0.3, -0.1, 0.0, 0.1, 0.3)
HOPS = (4, 16, 48)
LINE = (0.01, 0.05, 0.3, 1.0, 3.0, 9.0)
"""Of sigma_b, along the critical line at ``HOPS[-1]``."""


@cache
def pixels(brighter: float = 0.0) -> DataSet:
    """The 1,797 digits as they are, 0 to 16, ``brighter`` by a constant."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy((values + brighter).astype(np.float32))
    return DataSet(inputs, torch.from_numpy(labels.astype(np.int64)), "digits of scikit-learn")


@cache
def centred(by_pixel: bool) -> DataSet:
    """The digits less their mean: one mean for all, or that of each pixel."""
    data = pixels()
    mean = data.inputs.mean(dim=0 if by_pixel else None)
    return DataSet(data.inputs - mean, data.targets, data.name)


def halves(runs: Runs, data: DataSet, draw: int = 0) -> tuple[DataSet, DataSet]:
    """400 examples to learn from and 400 others, in the ``draw``-th random order."""
    size = SMALL if runs.quick else SIZE
    drawn = data.draw(2 * size, seed("halves", draw))
    return drawn.take(torch.arange(size)), drawn.take(torch.arange(size, 2 * size))


def draws(runs: Runs) -> int:
    """Random halves over which accuracies are averaged."""
    return 2 if runs.quick else 8


@cache
def table(activation: str, sigma_b: float, detuning: float = 0.0) -> KernelTable:
    """Of the critical layer, its ``sigma_w`` moved by ``detuning``."""
    return KernelTable(layer(activation, sigma_b, detuning))


@cache
def layer(activation: str, sigma_b: float, detuning: float = 0.0) -> MeanField:
    """The critical layer, its ``sigma_w`` moved by ``detuning``."""
    point = critical_point(activation, sigma_b=sigma_b)
    sigma_w = float(point.sigma_w) + detuning
    return MeanField(point.activation, sigma_w, sigma_b, start=float(point.q))  # type: ignore[arg-type]


def stretch(activation: str, sigma_b: float) -> float:
    """``beta a``, kappa of the paper for smooth activations."""
    found = reach(layer(activation, sigma_b))
    assert isinstance(found, tuple)
    return found[0]


class Scan(NamedTuple):
    """Regressions at several places, on several draws of the data, [place][draw]."""

    reach: Array
    runs: tuple[tuple[KernelRegression, ...], ...]

    @property
    def accuracy(self) -> Array:
        """[place, draw]."""
        return np.array([[run.accuracy.value for run in place] for place in self.runs])

    @property
    def condition(self) -> Array:
        """Medians over draws, [place]."""
        return np.array([np.median([float(run.condition) for run in place]) for place in self.runs])


@cache
def along_depth(runs: Runs, sigma_b: float, steps: float = math.inf) -> Scan:
    """erf at a bias, by depth; the reach is ``kappa L``."""
    depths = DEPTHS[:3] if runs.quick else DEPTHS
    return _scan(runs, "erf", sigma_b, depths, 0.0, steps, pixels())


@cache
def at_reaches(runs: Runs, activation: str, sigma_b: float) -> Scan:
    """Depths such that ``beta a L`` is nearest to ``REACHES``."""
    unit = stretch(activation, sigma_b)
    depths = tuple(max(1, round(x / unit)) for x in reaches(runs))
    return _scan(runs, activation, sigma_b, depths, 0.0, STEPS, pixels())


def reaches(runs: Runs) -> tuple[float, ...]:
    """Those that are looked at."""
    return tuple(x for x in REACHES if x <= (10.0 if runs.quick else math.inf))


@cache
def off_critical(
    runs: Runs, detuning: float, steps: float = math.inf, brighter: float = 0.0, depth: int = 128
) -> Scan:
    """erf at ``sigma_b = .3``."""
    return _scan(runs, "erf", 0.3, (depth,), detuning, steps, pixels(brighter))


@cache
def shallow(runs: Runs, data: str, steps: float) -> Scan:
    """erf at ``sigma_b = .05`` and 8 hops, on digits that are "raw", or centred by "one" or "each".

    The one mean of all pixels, or each pixel's own, is taken off.
    """
    examples = pixels() if data == "raw" else centred(data == "each")
    return _scan(runs, "erf", 0.05, (8,), 0.0, steps, examples)


@cache
def deepest(runs: Runs, data: str) -> Scan:
    """erf at ``sigma_b = 1`` and 2048 hops, ``kappa L = 2576``, on the same."""
    examples = pixels() if data == "raw" else centred(data == "each")
    return _scan(runs, "erf", 1.0, (64 if runs.quick else 2048,), 0.0, math.inf, examples)


def _scan(
    runs: Runs,
    activation: str,
    sigma_b: float,
    depths: tuple[int, ...],
    detuning: float,
    steps: float,
    data: DataSet,
) -> Scan:
    kernels = table(activation, sigma_b, detuning)
    parts = [halves(runs, data, draw) for draw in range(draws(runs))]
    found = tuple(
        tuple(network_regression(kernels, depth, *part, steps=steps) for part in parts)
        for depth in depths
    )
    return Scan(stretch(activation, sigma_b) * np.array(depths), found)


@cache
def brightened(runs: Runs, brighter: float, kappa: float = 2.0) -> tuple[DataWindow, float]:
    """The window of brighter digits, and the median ``rho_0``."""
    data = pixels(brighter)
    return data_window(data, kappa, repeats=1 if runs.quick else 4), distances(data).median


class Descent(NamedTuple):
    """A finite network and the kernel after as many steps: test accuracies."""

    network: float
    kernel: float


@cache
def descent(
    runs: Runs,
    width: int,
    sigma_b: float = 0.3,
    detuning: float = 0.0,
    brighter: float = 0.0,
    hops: int = HOPS[1],
) -> Descent:
    """Full-batch gradient descent on the squares, ``FEW`` steps at the rate ``1/lambda_1``.

    tanh networks of normal numbers, ``W = sigma_w w/sqrt(fan_in)``, whose last hop has the ten
    outputs; their first outputs are taken off.
    """
    parts = halves(runs, pixels(brighter))
    kernels = table("tanh", sigma_b, detuning)
    steps = 10 if runs.quick else FEW
    expected = network_regression(kernels, hops, *parts, steps=steps).accuracy.value
    gaps = cosine_gaps(parts[0].inputs, parts[0].inputs, same=True)
    kernel = kernels.at(hops, gaps)
    largest = float(
        np.linalg.eigvalsh(1 - kernel.theta_eps)[-1] * math.exp(kernel.log_theta1[0, 0])
    )
    words = seed("descent", width, sigma_b, hops, detuning, brighter)
    found = _descend(kernels, hops, parts, steps, 1 / largest, width, words)
    return Descent(found, expected)


def _descend(
    kernels: KernelTable,
    hops: int,
    parts: tuple[DataSet, DataSet],
    steps: int,
    rate: float,
    width: int,
    words: int,
) -> float:
    inside = kernels.layer
    first, second = (nn.functional.normalize(part.inputs.double(), dim=1) for part in parts)
    targets, wanted = parts[0].targets, parts[1].targets
    assert targets is not None
    assert wanted is not None
    generator = torch.Generator().manual_seed(words)
    sizes = [first.shape[1], *[width] * hops, 10]

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    weights = [drawn(b, a) for a, b in pairwise(sizes)]
    biases = [drawn(b) for b in sizes[2:]]

    def outputs(x: torch.Tensor) -> torch.Tensor:
        h = math.sqrt(kernels.q) * x @ weights[0].T  # |x| = 1: no fan-in
        for w, b in zip(weights[1:], biases, strict=True):
            scale = inside.sigma_w / math.sqrt(w.shape[1])
            h = scale * torch.tanh(h) @ w.T + inside.sigma_b * b
        return h

    x, z = first.float(), second.float()
    with torch.no_grad():
        start, far = outputs(x), outputs(z)
    y = nn.functional.one_hot(targets, 10) - 0.1
    descend = torch.optim.SGD([*weights, *biases], lr=rate)
    for _ in range(steps):
        descend.zero_grad()
        torch.autograd.backward(((outputs(x) - start - y) ** 2).sum() / 2)
        descend.step()
    with torch.no_grad():
        answers = (outputs(z) - far).argmax(dim=1)
    return float((answers == wanted).double().mean())


@cache
def trained(
    runs: Runs, sigma_b: float, hops: int, detuning: float = 0.0, brighter: float = 0.0
) -> TrainingRun:
    """A tanh network as it is usually trained: Adam on cross-entropy, batches of 100, 200 steps.

    The first layer hands the cosines of the inputs on at the length that the others keep. Of three
    learning rates the one with the lowest training loss counts.
    """
    kernels = table("tanh", sigma_b, detuning)
    parts = [
        DataSet(8 * nn.functional.normalize(part.inputs, dim=1), part.targets, part.name)
        for part in halves(runs, pixels(brighter))
    ]
    words = seed("trained", sigma_b, hops, detuning, brighter)
    rates = RATES[1:2] if runs.quick else RATES
    found = [
        train(
            _network(kernels, hops, 32 if runs.quick else 100, words), *parts,
            steps=4 if runs.quick else 200, batch=100, learning_rate=rate,
        )
        for rate in rates
    ]  # fmt: skip
    best = best_learning_rate(found)
    return next(run for run in found if run.learning_rate == best)


def _network(kernels: KernelTable, hops: int, width: int, words: int) -> nn.Module:
    """On inputs of 64 numbers whose mean square is 1."""
    sigma_w, sigma_b = kernels.layer.sigma_w, kernels.layer.sigma_b
    sizes = {"depth": hops, "width": width, "activation": "tanh"}
    model = build("mlp", (64,), 10, words, sigma_w=sigma_w, sigma_b=sigma_b, **sizes)
    with torch.no_grad():
        first = model.get_submodule("1")
        assert isinstance(first, nn.Linear)
        first.weight.mul_(math.sqrt(kernels.q) / sigma_w)
        first.bias.zero_()
    return model

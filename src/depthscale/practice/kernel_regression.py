r"""Regression with the kernel of a network: what training an infinitely wide one ends at.

Deep networks give every pair nearly the same kernel, ``k_ab = k (1 - d_ab)``, and then ``k`` alone
says nothing and ``d`` loses its digits in ``1 - d``. Here ``d`` is what is given, and the constant
part is separated off by an orthogonal rotation whose first axis is the mean over examples, so that
solutions and condition numbers keep their digits far beyond 1e16:

    Q^T K Q = [[A, B^T], [B, C]],    C = -Q_perp^T d Q_perp,    S = C - B B^T/A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.practice.training import Accuracy
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number, as_numbers
from depthscale.theory.tangent_kernel import KernelTable

__all__ = ["KernelRegression", "cosine_gaps", "kernel_regression", "network_regression"]

NEAR = 1e-6
"""``1 - cos`` below which it is computed from the difference of the two, not by subtraction."""


@dataclass(frozen=True)
class KernelRegression:
    """What a regression learned, scored on inputs that it has not seen.

    Attributes
    ----------
    accuracy:
        Of the largest of one-against-the-rest outputs, with its 95 % interval.
    train_accuracy:
        The same on the training part: below 1 where a ridge or the end of training stops it.
    error:
        Mean square of what is missing to the one-hot targets on the test part, over classes summed;
        1 is about what answering nothing gives, ``1 - 1/classes``.
    condition:
        Largest over smallest eigenvalue of the kernel of the training part (with the ridge);
        ``Undefined`` where two examples are the same to the kernel.
    effective:
        ``(sum of eigenvalues)^2 / sum of squares``: how many directions the kernel tells apart.
    steps:
        Steps of gradient descent at the largest eigenvalue's own rate, ``inf`` for the end.
    ridge:
        Added to the diagonal, as a share of it.
    """

    accuracy: Accuracy
    train_accuracy: Accuracy
    error: float
    condition: Quantity
    effective: float
    steps: float
    ridge: float

    def __str__(self) -> str:
        end = "to the end" if math.isinf(self.steps) else f"for {self.steps:g} steps"
        ridge = f", ridge {self.ridge:g}" if self.ridge else ""
        bad = isinstance(self.condition, Undefined)
        condition = "undefined" if bad else f"{float(self.condition):.3g}"
        return (
            f"trained {end}{ridge}: accuracy {self.accuracy}, on the training part"
            f" {self.train_accuracy.value:.3f}, error {self.error:.3g}, condition {condition},"
            f" {self.effective:.3g} directions"
        )


def kernel_regression(
    train_gaps: ArrayLike,
    test_gaps: ArrayLike,
    targets: ArrayLike,
    test_targets: ArrayLike,
    *,
    ridge: float = 0.0,
    steps: float = math.inf,
) -> KernelRegression:
    """Regression on one-hot targets (less their mean share) with a kernel of constant diagonal.

    ``f(t) = K_* K^-1 (1 - (1 - K/lambda_1)^t) y``: gradient descent from 0 on the squares at the
    rate ``1/lambda_1``, half of what diverges; ``steps=inf`` is the end of it, the interpolation.

    Parameters
    ----------
    train_gaps:
        ``1 - k_ab/k_aa`` between training examples, [n, n], such as ``TangentKernel.theta_eps``.
    test_gaps:
        The same between test and training examples, [m, n].
    targets, test_targets:
        Whole numbers, the classes, [n] and [m].
    ridge:
        As a share of the diagonal, at least 0.
    steps:
        Above 0.

    Raises
    ------
    InputError
        Shapes that do not fit, numbers out of range, fewer than two examples or classes.

    Examples
    --------
    >>> apart = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0))) / 4
    >>> found = kernel_regression(apart, apart[[0]] + 0.01, [0, 0, 1, 1], [0])
    >>> found.accuracy.value, found.train_accuracy.value
    (1.0, 1.0)
    """
    gaps, far, classes, test_classes = _checked(train_gaps, test_gaps, targets, test_targets)
    ridge, steps = as_number("ridge", ridge), as_number("steps", steps)
    if not 0 <= ridge < math.inf or not steps > 0:
        raise InputError(
            f"ridge = {ridge:g}, steps = {steps:g}: expected a ridge of at least 0 and more than 0"
            " steps"
        )
    names = np.unique(classes)
    wanted = (classes[:, None] == names) - 1 / names.size
    missed = (test_classes[:, None] == names) - 1 / names.size
    parts = _Parts.of(gaps, ridge)
    weights, constant = parts.learned(wanted, steps)
    fitted, found = constant - gaps @ weights, constant - far @ weights
    return KernelRegression(
        _scored(names, found, test_classes),
        _scored(names, fitted, classes),
        float(np.mean(np.sum((found - missed) ** 2, axis=1))),
        parts.condition,
        parts.effective,
        steps,
        ridge,
    )


def kernel_accuracy(
    train_gaps: Array, test_gaps: Array, targets: Array, test_targets: Array, steps: float
) -> float:
    """The accuracy of ``kernel_regression`` alone, for scans: the rest takes twice the time."""
    names = np.unique(targets)
    wanted = (targets[:, None] == names) - 1 / names.size
    weights, constant = _Parts.of(train_gaps, 0.0).learned(wanted, steps)
    return _scored(names, constant - test_gaps @ weights, test_targets).value


@dataclass(frozen=True, eq=False)
class _Parts:
    """The kernel in a basis whose first axis is the constant, see the module."""

    turn: Array
    first: float
    cross: Array
    rest: Array

    @classmethod
    def of(cls, gaps: Array, ridge: float) -> _Parts:
        n = len(gaps)
        # Householder: the reflection that takes the constant vector to the first axis
        mirror = np.full(n, 1 / math.sqrt(n))
        mirror[0] += 1
        turn = np.eye(n) - np.outer(mirror, mirror) / mirror[0]
        turn[:, 0] *= -1  # which then is the constant itself
        turned = turn.T @ gaps @ turn
        rest = -turned[1:, 1:] + ridge * np.eye(n - 1)
        return cls(turn, n - turned[0, 0] + ridge, -turned[1:, 0], (rest + rest.T) / 2)

    @property
    def _schur(self) -> tuple[Array, Array]:
        """Eigenvalues, ascending, and vectors of S."""
        found = np.linalg.eigh(self.rest - np.outer(self.cross, self.cross) / self.first)
        return found.eigenvalues, found.eigenvectors

    def learned(self, y: Array, steps: float) -> tuple[Array, Array]:
        """The weights of the training examples, [n, output], and their sum.

        The sum cancels where weights are large; in the rotated basis it is one component.
        """
        turned = self.turn.T @ y
        found = self.solve(turned) if math.isinf(steps) else self.descend(turned, steps)
        return np.asarray(self.turn @ found), math.sqrt(len(y)) * found[0]

    def solve(self, turned: Array) -> Array:
        """``K^-1 y`` in the rotated basis; directions that the kernel cannot tell are left at 0."""
        values, vectors = self._schur
        known = values > _rounding(values)
        inverse = np.where(known, 1 / np.where(known, values, 1), 0)
        right = turned[1:] - np.outer(self.cross, turned[0]) / self.first
        rest = vectors @ (inverse[:, None] * (vectors.T @ right))
        first = (turned[0] - self.cross @ rest) / self.first
        return np.vstack([first[None], rest])

    def descend(self, turned: Array, steps: float) -> Array:
        """``K^-1 (1 - (1 - K/lambda_1)^steps) y``, rotated; modes below rounding do not move."""
        values, vectors = np.linalg.eigh(self._turned)
        share = np.clip(values / values[-1], 0.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            learned = -np.expm1(steps * np.log1p(-share))
            rate = np.where(share > 0, learned / (share * values[-1]), steps / values[-1])
        return np.asarray(vectors @ (rate[:, None] * (vectors.T @ turned)))

    @property
    def _turned(self) -> Array:
        head = np.concatenate([[self.first], self.cross])
        return np.vstack([head, np.column_stack([self.cross, self.rest])])

    @property
    def condition(self) -> Quantity:
        """Largest eigenvalue of K times that of its inverse, both in the rotated basis."""
        values, vectors = self._schur
        if values[0] <= _rounding(values):
            return Undefined(
                "some examples are the same to the kernel, to rounding: its smallest eigenvalue is"
                " lost"
            )
        largest = float(np.linalg.eigvalsh(self._turned)[-1])
        # K^-1 = [[1/A, 0], [0, 0]] + G S^-1 G^T, G = [-B^T/A; 1]; in units of S's smallest
        lift = np.vstack([-self.cross @ vectors / self.first, vectors])
        inverse = (lift * (values[0] / values)) @ lift.T
        inverse[0, 0] += values[0] / self.first
        return largest * float(np.linalg.eigvalsh(inverse)[-1]) / float(values[0])

    @property
    def effective(self) -> float:
        trace = self.first + float(np.trace(self.rest))
        return float(trace**2 / np.sum(self._turned**2))


def _rounding(values: Array) -> float:
    """What eigenvalues are uncertain by."""
    return float(np.finfo(float).eps * len(values) * max(abs(values[-1]), abs(values[0])))


def network_regression(
    layer: Any,
    depth: int,
    train: Any,
    test: Any,
    *,
    kernel: str = "ntk",
    ridge: float = 0.0,
    steps: float = math.inf,
) -> KernelRegression:
    """Train an infinitely wide network of ``depth`` hops on data, all of it or its last layer.

    Every input is scaled to the length that the layer keeps; a first linear layer without bias
    hands its cosines on.

    Parameters
    ----------
    layer:
        A ``MeanField``, or a ``KernelTable`` of one, which is then not made anew.
    depth:
        Hops behind the first layer, 0 or more.
    train, test:
        A ``DataSet`` each, with targets.
    kernel:
        ``"ntk"``: all weights are trained; ``"nngp"``: the readout alone.
    ridge, steps:
        As in ``kernel_regression``.

    Raises
    ------
    InputError
        No targets, an input of zeros, or as in ``kernel_regression`` and ``KernelTable``.

    Examples
    --------
    >>> from depthscale.practice.data import digits
    >>> from depthscale.theory.meanfield import MeanField
    >>> train, test = digits().draw(200).split(0.5)
    >>> network_regression(MeanField("erf", 1.2337, 0.3), 5, train, test).accuracy.value > 0.8
    True
    """
    if kernel not in ("ntk", "nngp"):
        raise InputError(f"kernel is {kernel!r}; expected 'ntk' or 'nngp'")
    table = layer if isinstance(layer, KernelTable) else KernelTable(layer)
    if train.targets is None or test.targets is None:
        raise InputError("regression takes targets: give data sets with labels")
    found = [
        table.at(depth, cosine_gaps(a.inputs, train.inputs, same=a is train)) for a in (train, test)
    ]
    gaps = [k.theta_eps if kernel == "ntk" else k.eps for k in found]
    return kernel_regression(
        gaps[0], gaps[1], train.targets.numpy(), test.targets.numpy(), ridge=ridge, steps=steps
    )


def cosine_gaps(a: Any, b: Any, same: bool = False) -> Array:
    """``1 - cos`` of every example of ``a`` with every one of ``b``, [m, n] in [0, 2].

    Those below 1e-6 come from ``|a/|a| - b/|b||^2/2``, without cancellation. ``same``: both are the
    same examples, and the diagonal is 0.

    Raises
    ------
    InputError
        Not [example, ...], other numbers of features, values that are not finite, or an input of
        zeros, which has no direction.
    """
    first, second = (_directions(x) for x in (a, b))
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"inputs of {first.shape[1]} and of {second.shape[1]} numbers have no cosine; expected"
            " as many in both"
        )
    gaps = np.clip(1 - first @ second.T, 0.0, 2.0)
    rows, cols = np.nonzero(gaps < NEAR)
    gaps[rows, cols] = np.sum((first[rows] - second[cols]) ** 2, axis=1) / 2
    if same:
        np.fill_diagonal(gaps, 0.0)
    return gaps


def _directions(inputs: Any) -> Array:
    values = as_numbers("inputs", inputs)
    if values.ndim < 2 or not values.size:
        raise InputError(
            f"inputs have shape {values.shape}; expected [example, feature] with some of each"
        )
    flat = values.reshape(len(values), -1)
    if not np.all(np.isfinite(flat)):
        raise InputError("some inputs are NaN or infinite; remove or replace them")
    largest = np.abs(flat).max(axis=1)
    if not np.all(largest > 0):
        first = int(np.flatnonzero(largest == 0)[0])
        raise InputError(
            f"example {first} is all zeros: it has no direction, and no cosine with others; leave"
            " it out"
        )
    flat = flat / largest[:, None]
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))


def _scored(names: NDArray[Any], outputs: Array, classes: NDArray[Any]) -> Accuracy:
    return Accuracy(int((names[outputs.argmax(axis=1)] == classes).sum()), len(classes))


def _checked(
    train_gaps: ArrayLike, test_gaps: ArrayLike, targets: ArrayLike, test_targets: ArrayLike
) -> tuple[Array, Array, NDArray[Any], NDArray[Any]]:
    gaps, far = as_numbers("train_gaps", train_gaps), as_numbers("test_gaps", test_gaps)
    classes, others = np.asarray(targets), np.asarray(test_targets)
    n = len(gaps) if gaps.ndim else 0
    fits = gaps.shape == (n, n) and far.shape == (len(others), n) and classes.shape == (n,)
    if not (fits and others.ndim == 1):
        raise InputError(
            f"gaps of shapes {gaps.shape} and {far.shape} with targets of {classes.shape} and"
            f" {others.shape}; expected [n, n], [m, n], [n] and [m]"
        )
    if n < 2 or not len(others) or np.unique(classes).size < 2:
        raise InputError(
            f"{n} training and {len(others)} test examples of {np.unique(classes).size} classes:"
            " expected two examples and two classes to learn from, and one to score"
        )
    if not (np.all(np.isfinite(gaps)) and np.all(np.isfinite(far))):
        raise InputError("some gaps are NaN or infinite; expected 1 - k_ab/k_aa of every pair")
    return gaps, far, classes, others

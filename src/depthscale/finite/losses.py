"""Losses on the last layer: what starts the backward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from depthscale.answers import InputError
from depthscale.finite.columns import Chain
from depthscale.finite.draws import Draws
from depthscale.finite.pointwise import Pointwise


class Loss(ABC):
    """A loss ``E_a`` for each input, a function of that input's last pre-activations ``h_a``."""

    #: Gradients of several outputs are kept apart: copies of the inputs' columns.
    copies: int = 1
    #: Whether the gradient is known at any scale of ``h`` when ``phi(c x) = c phi(x)``.
    scaling: bool = True
    #: The power of the scale that the gradient goes with.
    degree: int = 0

    @property
    def label(self) -> str:
        """How it is called."""
        return type(self).__name__.lower()

    @abstractmethod
    def gradient(self, draws: Draws, chain: Chain, h: Tensor, phi: Pointwise) -> Tensor:
        """``dE_a/dh_a`` as columns ``[copy * column, net, unit]``, in double precision or as ``h``.

        Args:
            draws: the backward stream.
            chain: of the inputs.
            h: columns of the last pre-activations.
            phi: the activation of the last layer.
        """


class Quadratic(Loss):
    """``E = |h|^2/2``, the loss of 1912.09132 on an output of the last layer's width."""

    degree = 1

    def gradient(self, draws: Draws, chain: Chain, h: Tensor, phi: Pointwise) -> Tensor:
        """See ``Loss``."""
        return h.clone()


class Linear(Loss):
    """``E = v . h`` with independent standard normal ``v``, one for all inputs of a network."""

    def gradient(self, draws: Draws, chain: Chain, h: Tensor, phi: Pointwise) -> Tensor:
        """See ``Loss``."""
        delta = torch.zeros_like(h)
        delta[chain.roots] = draws.normals(torch.empty_like(h[0]))
        return delta


class Readout(Loss):
    """``E = v . phi(h)`` with independent standard normal ``v``, one for all inputs of a network.

    A readout that is independent of the weights below; it is not masked.
    """

    def gradient(self, draws: Draws, chain: Chain, h: Tensor, phi: Pointwise) -> Tensor:
        """See ``Loss``."""
        slopes, squares = torch.empty_like(h), h.square().mean(-1).double().cpu().numpy()
        phi.columns(chain, h.clone(), squares, torch.empty_like(h), slopes)
        return slopes.mul_(draws.normals(torch.empty_like(h[0])))


class Outputs(Loss):
    """Every output by itself: ``E = h_i`` for all i at once, the rows of the Jacobian.

    Inner products of gradients are summed over outputs, and absolute values of their terms too.
    """

    def __init__(self, outputs: int) -> None:
        self.copies = outputs

    def gradient(self, draws: Draws, chain: Chain, h: Tensor, phi: Pointwise) -> Tensor:
        """See ``Loss``."""
        delta = h.new_zeros(self.copies, *h.shape)
        for output in range(self.copies):
            delta[output, chain.roots, :, output] = 1
        return delta.flatten(0, 1)


@dataclass(frozen=True)
class UserLoss(Loss):
    """A loss in torch: from outputs ``[net, input, unit]`` to one number for each net and input.

    ``E_a`` is to depend on the outputs of input a alone; what the sum of all numbers has for
    gradient is taken.
    """

    function: Callable[[Tensor], Tensor]
    scaling = False

    @property
    def label(self) -> str:
        """See ``Loss``."""
        return str(getattr(self.function, "__qualname__", self.function))

    def gradient(self, draws: Draws, chain: Chain, h: Tensor, phi: Pointwise) -> Tensor:
        """See ``Loss``."""
        whole = chain.absolute_(h.double())[torch.from_numpy(chain.places)]
        outputs = whole.transpose(0, 1).contiguous().requires_grad_()
        with torch.enable_grad():
            values = self.function(outputs)
            if not isinstance(values, Tensor) or values.shape != outputs.shape[:2]:
                found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise InputError(
                    f"the loss returned {found} for outputs of shape {tuple(outputs.shape)};"
                    f" expected {tuple(outputs.shape[:2])}, one number for each net and input"
                )
            if not values.requires_grad:
                raise InputError(
                    "the loss has no gradient: it returned numbers that torch cannot trace back to"
                    " the outputs; expected a function made of torch operations"
                )
            (slope,) = torch.autograd.grad(values.sum(), outputs)
        columns = slope.transpose(0, 1)[list(chain.order)]
        return chain.differences_(columns.contiguous())


@dataclass(frozen=True)
class _CrossEntropy:
    """Softmax cross-entropy of every input with its label."""

    labels: tuple[int, ...]

    def __str__(self) -> str:
        return f"cross_entropy{self.labels}"

    def __call__(self, outputs: Tensor) -> Tensor:
        wanted = torch.tensor(self.labels, device=outputs.device).expand(len(outputs), -1)
        return -torch.log_softmax(outputs, -1).gather(-1, wanted[..., None])[..., 0]


def cross_entropy(labels: Sequence[int], classes: int) -> UserLoss:
    """Softmax cross-entropy of every input with its label.

    Raises:
        InputError: labels that are no classes.
    """
    wanted = tuple(int(label) for label in labels)
    if not all(0 <= label < classes for label in wanted):
        raise InputError(
            f"labels {wanted}: expected whole numbers from 0 to {classes - 1}, since the last layer"
            f" has {classes} units"
        )
    return UserLoss(_CrossEntropy(wanted))


LOSSES: dict[str, Callable[[], Loss]] = {
    "quadratic": Quadratic,
    "readout": Readout,
    "linear": Linear,
}


def make_loss(spec: Any, inputs: int, outputs: int, labels: Sequence[int] | None = None) -> Loss:
    """The loss that a name or a callable stands for.

    Raises:
        InputError: an unknown name, or labels that do not fit.
    """
    if isinstance(spec, Loss):
        return spec
    if spec == "outputs":
        return Outputs(outputs)
    if spec == "cross_entropy":
        if labels is None or len(labels) != inputs:
            count = "none" if labels is None else str(len(labels))
            raise InputError(
                f"loss 'cross_entropy' takes labels, one for each of the {inputs} inputs; {count}"
                " given"
            )
        return cross_entropy(labels, outputs)
    if isinstance(spec, str) and spec in LOSSES:
        return LOSSES[spec]()
    if callable(spec):
        return UserLoss(spec)
    known = ", ".join([*LOSSES, "outputs", "cross_entropy"])
    raise InputError(f"loss is {spec!r}; expected one of {known}, or a function of the outputs")

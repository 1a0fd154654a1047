r"""Gradients of one example and of a pair, layer by layer, through weights that forward saw too.

Backpropagation runs through the weights of the forward pass. With ``x = D phi(h)``,
``h' = skip h + W x + b`` and ``delta = dE/dh``, conditioning ``W`` on the forward pass leaves

    W^T delta_a = A_a x_a + U_a,    A_a = sigma_w^2 (n'/n) R_a,    R_a = <d delta_a/d h_a>,

``n`` units below, ``n'`` above, ``<>`` the mean over units, and ``U`` Gaussian of covariance
``sigma_w^2 (n'/n) S_ab``, ``S_ab = <delta_a delta_b>``, independent of what lies below. Hence, from
the layer above the hop to the one below and to leading order in the width,

    R_a  <- [skip^2 + (n'/n) sigma_w^2 E[D_a^2] dE[phi_a^2]/dq] R_a
    S_ab <- [skip^2 + (n'/n) sigma_w^2 E[D_a D_b] E[phi'_a phi'_b]] S_ab
            + A_a A_b E[D_a^2 D_b^2] E[psi_a psi_b] + skip (A_b C_ab + A_a C_ba)

with ``psi = phi phi'`` and, because a unit keeps its identity on the residual branch,
``C_ab = E[D_b^2] <delta_a psi_b>``, ``delta`` above and ``psi`` below. The gradient independence
assumption (1912.09132, 1611.01232) is ``A = 0``: exact to this order when the loss has no mean
response, ``R = 0`` (an independent zero-mean readout), wrong by factors when it has one (a
quadratic loss on an output as wide as the network). Each example's loss depends on its own output
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from depthscale.answers import InputError
from depthscale.theory.arguments import checked_pair, checked_widths
from depthscale.theory.gaussian import Array
from depthscale.theory.gradient_recursion import (
    Backwards,
    HopMoments,
    Loss,
    Signed,
    fourth_moments,
    run_backwards,
)
from depthscale.theory.meanfield import MeanField, propagate
from depthscale.theory.records import Trajectory

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["GradientTheory", "Loss", "predict_gradients"]


@dataclass(frozen=True, eq=False)
class GradientTheory:
    """Expected inner products of gradients, layer by layer, to leading order in the width.

    Arrays over layers have L + 1 entries, 0 being the start; arrays over hops have L. Rows are the
    squared norm of the first input ``aa``, that of the second ``bb``, their inner product ``ab``.
    Logarithms are natural and do not overflow (``-inf`` for 0); the plain values, which are
    properties, go to 0 or ``inf`` where float64 ends.

    Attributes
    ----------
    loss, tied, widths:
        As given.
    q1, q2, eps:
        Lengths and misalignment of the pre-activations, by layer.
    log_response, response_sign:
        ``ln |R|``, ``R = <d delta/d h>``, of both inputs, [2, layer], and its sign; 0 throughout
        where the loss has no mean response or weights are not tied.
    log_backprop, backprop_sign:
        ``ln |E[delta_a . delta_b]/n|``, [3, layer], and the signs.
    log_grad, grad_sign:
        ``ln |G_ab|``, ``G_ab = E<dE_a/dW, dE_b/dW>`` summed over all weights of the hop, [3, hop],
        and the signs.
    """

    loss: Loss
    tied: bool
    widths: tuple[int, ...]
    q1: Array
    q2: Array
    eps: Array
    log_response: Array
    response_sign: Array
    log_backprop: Array
    backprop_sign: Array
    log_grad: Array
    grad_sign: Array

    @property
    def response(self) -> Array:
        """``R`` of the first input, by layer."""
        return np.asarray(self.response_sign[0] * _exp(self.log_response[0]))

    @property
    def backprop_aa(self) -> Array:
        """``E|delta_a|^2/n``, by layer."""
        return _exp(self.log_backprop[0])

    @property
    def backprop_bb(self) -> Array:
        """``E|delta_b|^2/n``, by layer."""
        return _exp(self.log_backprop[1])

    @property
    def backprop_ab(self) -> Array:
        """``E[delta_a . delta_b]/n``, by layer."""
        return np.asarray(self.backprop_sign[2] * _exp(self.log_backprop[2]))

    @property
    def grad_aa(self) -> Array:
        """``E|dE_a/dW|^2``, by hop, all weights together."""
        return _exp(self.log_grad[0])

    @property
    def grad_bb(self) -> Array:
        """``E|dE_b/dW|^2``, by hop."""
        return _exp(self.log_grad[1])

    @property
    def grad_ab(self) -> Array:
        """``E<dE_a/dW, dE_b/dW>``, by hop."""
        return np.asarray(self.grad_sign[2] * _exp(self.log_grad[2]))

    @property
    def cosine(self) -> Array:
        """``E[delta_a . delta_b]/sqrt(E|delta_a|^2 E|delta_b|^2)``, by layer."""
        log_cosine = self.log_backprop[2] - self.log_backprop[:2].mean(axis=0)
        return np.asarray(self.backprop_sign[2] * _exp(log_cosine))

    @property
    def weights(self) -> NDArray[np.int64]:
        """Weights of each hop; ``grad_aa/weights`` is the mean over entries that papers plot."""
        sizes = np.array(self.widths, dtype=np.int64)
        return np.asarray(sizes[1:] * sizes[:-1])

    def to_xarray(self) -> xr.Dataset:
        """All of it as a Dataset with dimensions ``layer``, ``hop``, ``pair`` and ``input``."""
        import xarray as xr

        variables = {
            name: (along, getattr(self, name), {"long_name": text, "units": "1"})
            for name, (along, text) in _ABOUT.items()
        }
        return xr.Dataset(
            variables,
            coords={
                "layer": np.arange(len(self.widths)),
                "hop": np.arange(len(self.widths) - 1),
                "pair": ["aa", "bb", "ab"],
                "input": [1, 2],
                "width": ("layer", list(self.widths)),
            },
            attrs={
                "loss": self.loss,
                "backward_weights": "tied" if self.tied else "independent of the forward ones",
                "provenance": "infinite-width theory, depthscale.theory.gradients",
            },
        )

    def __str__(self) -> str:
        hops = len(self.widths) - 1
        how = "tied weights" if self.tied else "weights taken as independent"
        least, most = min(self.widths), max(self.widths)
        wide = f"width {least}" if least == most else f"widths {least} to {most}"
        lines = [
            f"Gradients of a pair over {hops} {'hop' if hops == 1 else 'hops'}, {wide},"
            f" {self.loss} loss, {how}",
            f"{'hop':>5} {'eps':>10} {'G_aa':>12} {'G_bb':>12} {'G_ab':>12} {'cos delta':>10}",
        ]
        for hop in sorted({round(x) for x in np.linspace(0, hops - 1, min(hops, 8))}):
            sizes = zip(self.grad_sign[:, hop], self.log_grad[:, hop], strict=True)
            columns = [f"{_decimal(*size):>12}" for size in sizes]
            ends = f"{self.eps[hop]:>10.4g}", f"{self.cosine[hop + 1]:>10.4g}"
            lines.append(" ".join([f"{hop:>5}", ends[0], *columns, ends[1]]))
        return "\n".join(lines)


_ABOUT = {
    "q1": ("layer", "mean square pre-activation of the first input"),
    "q2": ("layer", "mean square pre-activation of the second input"),
    "eps": ("layer", "one minus the correlation of the pre-activations"),
    "log_response": (("input", "layer"), "log of |mean diagonal of d2E/dh2|"),
    "response_sign": (("input", "layer"), "sign of the mean diagonal of d2E/dh2"),
    "log_backprop": (("pair", "layer"), "log of |mean over units of dE_a/dh dE_b/dh|"),
    "backprop_sign": (("pair", "layer"), "sign of the mean over units of dE_a/dh dE_b/dh"),
    "log_grad": (("pair", "hop"), "log of |<dE_a/dW, dE_b/dW>|"),
    "grad_sign": (("pair", "hop"), "sign of <dE_a/dW, dE_b/dW>"),
}


def predict_gradients(
    layers: Sequence[MeanField],
    widths: Sequence[int],
    *,
    q1: float = 1.0,
    q2: float = 1.0,
    eps: float,
    loss: Loss = "quadratic",
    tied: bool = True,
) -> GradientTheory:
    r"""Expected gradients of a pair of inputs with respect to the weights of every hop.

    ``G_ab = E<dE_a/dW, dE_b/dW> = n' S_ab n E[D_a D_b] E[phi_a phi_b]``, ``S`` at the output of the
    hop by the recursion of the module, ``D phi`` at its input.

    Parameters
    ----------
    layers:
        One ``MeanField`` a hop. Raw inputs ``x^0`` enter through a first hop
        ``MeanField("identity", sigma_w, sigma_b)`` without drop, which takes ``h^0 = x^0``.
    widths:
        Units of each of the L + 1 layers; equal on both sides of a residual hop. Corrections are
        of relative order depth/width, for the pair also ``1/(width cosine^2)``; the ``ab`` of a
        single network scatters about its mean by ``noise_floor``.
    q1, q2:
        Lengths ``|h^0|^2/n_0`` of the two inputs, above 0.
    eps:
        One minus their correlation, in [0, 2].
    loss:
        ``"quadratic"``: ``E_a = |h_a^L|^2/2``, response 1 at the top; ``"readout"``:
        ``E_a = v . phi(h_a^L)``, ``v ~ N(0, 1)`` the same for all inputs, ``phi`` that of the last
        hop and without a mask; ``"linear"``: ``E_a = v . h_a^L``.
    tied:
        Whether backpropagation uses the weights of the forward pass, as it does. False is the
        gradient independence assumption: ``S_aa`` scales by chi_1 a layer, ``S_ab`` by chi_2.

    Raises
    ------
    InputError
        Arguments out of range; noise on whole layers (it does not average out within one); lengths
        that leave float64; an activation whose slope has no second moment.

    1912.09132 states chi_1, chi_2 and the assumption; the recursion with a response is derived
    here and tested against networks with explicit weights, for all noise on units and weights and
    for residual branches. Under a quadratic loss these cost ``L^2`` pair integrals of a
    millisecond or so, everything else ``L``.

    Examples
    --------
    In a linear network the response decays no faster than the gradient itself, so that the
    independence assumption is off by a factor that grows with depth.

    >>> linear = [MeanField("identity", sigma_w=1.0)] * 10
    >>> tied = predict_gradients(linear, [100] * 11, eps=0.4)
    >>> free = predict_gradients(linear, [100] * 11, eps=0.4, tied=False)
    >>> (tied.grad_aa / free.grad_aa).round(6).tolist()
    [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    >>> print(predict_gradients([MeanField("tanh", 1.3, 0.2, drop=0.1)] * 3, [300] * 4, eps=0.5))
    Gradients of a pair over 3 hops, width 300, quadratic loss, tied weights
      hop        eps         G_aa         G_bb         G_ab  cos delta
        0        0.5    3.917e+04    3.917e+04    3.727e+03     0.2237
        1     0.5452    3.383e+04    3.383e+04    3.815e+03     0.2889
        2     0.5746    2.173e+04    2.173e+04    3.226e+03      0.405
    """
    sizes, pair = checked_widths(layers, widths), checked_pair(q1, q2, eps)
    _check_loss_and_noise(layers, loss)
    path = propagate(layers, *pair)
    ratios = np.divide(sizes[1:], sizes[:-1])
    responsive = bool(tied) and loss == "quadratic"
    moments = HopMoments.of(layers, path, ratios, responsive)
    backwards = run_backwards(layers, path, moments, ratios, loss, responsive)
    return _record(loss, bool(tied), sizes, path, moments.signal, backwards)


def _record(
    loss: Loss,
    tied: bool,
    sizes: tuple[int, ...],
    path: Trajectory,
    signal: Array,
    backwards: Backwards,
) -> GradientTheory:
    """``G_ab = n' S_ab n E[D_a D_b] E[phi_a phi_b]``, ``signal`` the last factors."""
    log_backprop, backprop_sign = _split(backwards.backprop)
    log_response, response_sign = _split(backwards.response)
    with np.errstate(divide="ignore"):
        log_signal = np.log(np.abs(signal))
    return GradientTheory(
        loss=loss,
        tied=tied,
        widths=sizes,
        q1=path.q1,
        q2=path.q2,
        eps=path.eps,
        log_response=log_response,
        response_sign=response_sign,
        log_backprop=log_backprop,
        backprop_sign=backprop_sign,
        log_grad=log_backprop[:, 1:] + log_signal + np.log(np.multiply(sizes[1:], sizes[:-1])),
        grad_sign=backprop_sign[:, 1:] * np.sign(signal),
    )


def _check_loss_and_noise(layers: Sequence[MeanField], loss: str) -> None:
    if loss not in get_args(Loss):
        raise InputError(f"loss is {loss!r}; expected {', '.join(get_args(Loss))}")
    for layer in layers:
        fourth_moments(layer)  # raises where one draw serves a whole layer


def _split(rows: Sequence[Sequence[Signed]]) -> tuple[Array, Array]:
    """Logarithms and signs, [row, layer], of numbers by layer and row."""
    logs = np.array([[x.log for x in row] for row in rows]).T
    return logs, np.array([[x.sign for x in row] for row in rows]).T


def _exp(log: Array) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.exp(log))


def _decimal(sign: float, log: float) -> str:
    """Four digits of a number that may lie outside float64."""
    if sign == 0:
        return "0"
    power = math.floor(log / math.log(10))
    return f"{sign * math.exp(log - power * math.log(10)):.3f}e{power:+03d}"

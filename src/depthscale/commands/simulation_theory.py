"""The theory beside a simulation: infinite width, first order in 1/n, gradients both ways."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.commands.output import plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from depthscale.finite.ensemble import Ensemble, Pair
    from depthscale.finite.sampled import Sampled
    from depthscale.theory.gradients import GradientTheory
    from depthscale.theory.meanfield import MeanField

    Array = NDArray[np.float64]

LONGEST = 1e300  # of lengths that the pair's map follows; its inverse is the least
FURTHEST = 690.0  # of their logarithm, within float64
_FAR = "beyond the range of float64"
_GAUSSIAN = "it is derived for Gaussian weights, not for orthogonal ones"


def theory_beside(
    networks: Ensemble,
    pair: Pair,
    loss: str | None,
    result: Sampled,
    reasons: dict[str, str],
) -> dict[str, Any]:
    """Everything that theory says about these networks; ``Undefined`` where it says nothing.

    ``infinite_width``: ``q`` and ``eps`` by layer, as far as they stay within float64.
    ``first_order``: ``mean``, ``var``, ``mean_log`` and ``var_log`` of both at this width.
    ``tied`` and ``gia``: ``mean`` and ``log_abs_mean`` of ``grad_aa`` and ``grad_ab`` by hop (and
    of the tangent kernels), to leading order in the width, with the forward weights and under the
    gradient independence assumption. ``log_normal``: ``mean_log`` and ``var_log`` of ``grad_aa`` to
    first order. ``noise_floor``: the root mean square cosine of ``dE_a/dh`` and ``dE_b/dh`` far
    below the loss, how far, and of ``grad_ab`` there its ``log_rms`` by hop. Reasons for gaps
    inside lists are added to ``reasons``.
    """
    import numpy as np

    with_kernel = "ntk_aa" in result.names
    with np.errstate(all="ignore"):
        tied, gia = (_gradients(networks, pair, loss, tied) for tied in (True, False))
        own = tied if networks.tied else gia
        return {
            "infinite_width": _infinite_width(networks, pair, reasons),
            "first_order": _first_order(networks, pair, reasons),
            "tied": _expected(networks, tied, "tied", with_kernel, reasons),
            "gia": _expected(networks, gia, "gia", with_kernel, reasons),
            "log_normal": _log_normal(networks, loss, own),
            "noise_floor": _noise_floor(networks, own, reasons),
        }


def _listed(values: Array, key: str, reasons: dict[str, str], why: str = _FAR) -> list[Any]:
    """An array as a list for JSON, with the reason for its gaps."""
    import numpy as np

    if not np.isfinite(values).all():
        reasons[f"theory.{key}"] = why
    listed: list[Any] = plain(values.tolist())
    return listed


def _infinite_width(networks: Ensemble, pair: Pair, reasons: dict[str, str]) -> Any:
    state: Any = pair.q1, pair.q2, pair.eps
    q, eps = [pair.q1], [pair.eps]
    scale_free, scale = all(layer.scale_free for layer in networks.layers), 0.0
    for layer in networks.layers:
        if scale_free:  # only the ratio of the lengths matters
            scale += math.log(state[0])
            state = 1.0, state[1] / state[0], state[2]
        try:
            state = tuple(float(x) for x in layer.pair_map(*state))
        except InputError as error:
            return Undefined(str(error))
        if not all(1 / LONGEST < length < LONGEST for length in state[:2]):
            break
        within = abs(scale) < FURTHEST
        q.append(state[0] * math.exp(scale) if within else math.inf)
        eps.append(state[2])
    record: dict[str, Any] = {}
    for name, values in (("q", q), ("eps", eps)):
        record[name] = plain(values) + [None] * (networks.depth + 1 - len(values))
        missing = [k for k, value in enumerate(record[name]) if value is None]
        if missing:
            reasons[f"theory.infinite_width.{name}"] = (
                f"layer {missing[0]} to {networks.depth}: the length leaves the range of float64"
            )
    if any(layer.noise.kind == "layers" and layer.drop for layer in networks.layers):
        record["note"] = (
            "averaged over the draws of every layer, which do not average out within a network:"
            " exact only where the maps are linear"
        )
    return record


def _first_order(networks: Ensemble, pair: Pair, reasons: dict[str, str]) -> Any:
    from depthscale.theory.finite_width import finite_width

    if networks.weights != "gaussian":
        return Undefined(_GAUSSIAN)
    try:
        order = finite_width(
            networks.layers, networks.widths, q1=pair.q1, q2=pair.q2, eps=pair.eps, start=pair.start
        )
    except InputError as error:
        return Undefined(str(error))
    curves: dict[str, dict[str, Any]] = {
        "q": {
            "mean": order.q_mean[0],
            "var": order.q_var[0],
            "mean_log": order.log_q_mean[0],
            "var_log": order.log_q_var[0],
        },
        "eps": {
            "mean": order.eps_mean,
            "var": order.eps_var,
            "mean_log": order.log_eps_mean,
            "var_log": order.log_eps_var,
        },
    }
    return {
        **{
            name: {
                key: values
                if isinstance(values, Undefined)
                else _listed(values, f"first_order.{name}.{key}", reasons)
                for key, values in row.items()
            }
            for name, row in curves.items()
        },
        "reliable": order.reliable.tolist(),
        "note": order.note,
    }


def _gradients(networks: Ensemble, pair: Pair, loss: Any, tied: bool) -> GradientTheory | Undefined:
    from depthscale.theory.gradients import predict_gradients

    if loss is None:
        return Undefined("no gradients were sent back; give --backward")
    if tied and networks.weights != "gaussian":
        return Undefined(_GAUSSIAN)
    # Products of all outputs' gradients sum up to the mean of those of a random linear readout.
    loss = "linear" if loss == "outputs" else loss
    try:
        return predict_gradients(
            networks.layers,
            networks.widths,
            q1=pair.q1,
            q2=pair.q2,
            eps=pair.eps,
            loss=loss,
            tied=tied,
        )
    except InputError as error:
        return Undefined(str(error))


def _expected(
    networks: Ensemble,
    theory: GradientTheory | Undefined,
    key: str,
    with_kernel: bool,
    reasons: dict[str, str],
) -> Any:
    """Means of the gradients' products as the measured ones are given."""
    if isinstance(theory, Undefined):
        return theory
    record: dict[str, Any] = {}
    for name, row in (("grad_aa", 0), ("grad_ab", 2)):
        mean, log = getattr(theory, name), theory.log_grad[row]
        at = f"{key}.{name}"
        record[name] = {
            "mean": _listed(mean, f"{at}.mean", reasons, f"{_FAR}; see log_abs_mean"),
            "log_abs_mean": _listed(log, f"{at}.log_abs_mean", reasons, "the mean is 0"),
        }
    if with_kernel:
        for name, row in (("ntk_aa", 0), ("ntk_ab", 2)):
            record[name] = _kernel(networks, theory, row)
    return record


def _kernel(networks: Ensemble, theory: GradientTheory, row: int) -> Quantity:
    """``sum_l sigma_w^2/n_l G^l + sigma_b^2 |delta^(l+1)|^2``: derivatives by standard normals."""
    import numpy as np

    below, above = np.array(networks.widths[:-1]), np.array(networks.widths[1:])
    weights = np.array([layer.sigma_w**2 for layer in networks.layers]) / below
    biases = np.array([layer.sigma_b**2 for layer in networks.layers]) * above
    gradients = theory.grad_sign[row] * np.exp(theory.log_grad[row])
    deltas = theory.backprop_sign[row, 1:] * np.exp(theory.log_backprop[row, 1:])
    total = float(weights @ gradients + biases @ deltas)
    return total if math.isfinite(total) else Undefined(_FAR)


def _one_layer(networks: Ensemble) -> MeanField | Undefined:
    """The layer that all hidden ones are like."""
    if networks.weights != "gaussian":
        return Undefined(_GAUSSIAN)
    hidden = networks.layers[1:]
    if not hidden:
        return Undefined("there is no hidden layer")
    if any(layer != hidden[0] for layer in hidden):
        return Undefined("the law takes layers that are all alike")
    return hidden[0]


def _log_normal(networks: Ensemble, loss: str | None, theory: GradientTheory | Undefined) -> Any:
    """Of the log of ``grad_aa``: ``|delta|^2`` at the hop's output has come down L - 1 - l hops."""
    import numpy as np

    from depthscale.theory.gradient_laws import log_normal_rate

    if isinstance(theory, Undefined):
        return theory
    field = _one_layer(networks)
    if isinstance(field, Undefined):
        return field
    if loss == "quadratic" and networks.tied:
        return Undefined(
            "a quadratic loss has a mean response, whose scatter the law does not follow"
        )
    if field.scale_free:
        return Undefined("lengths keep fluctuating without a scale, which the law leaves out")
    rate = log_normal_rate(field)
    if isinstance(rate, Undefined):
        return rate
    drift = rate.drift
    if not networks.tied and not isinstance(drift, Undefined):
        drift = drift - float(rate.tying)
    passed = 1 / np.array(networks.widths[1:], dtype=float)
    passed = np.append(np.cumsum(passed[:0:-1])[::-1], 0.0)  # hops above hop l, over the width
    mean = drift
    if not isinstance(drift, Undefined):
        mean = plain((theory.log_grad[0] + drift * passed).tolist())
    return {"grad_aa": {"mean_log": mean, "var_log": (rate.rate * passed).tolist()}}


def _noise_floor(
    networks: Ensemble, theory: GradientTheory | Undefined, reasons: dict[str, str]
) -> Any:
    from depthscale.theory.gradient_laws import noise_floor

    if isinstance(theory, Undefined):
        return theory
    field = _one_layer(networks)
    if isinstance(field, Undefined):
        return field
    if len(set(networks.widths[1:])) > 1:
        return Undefined("the law takes layers of one width")
    floor = noise_floor(field, networks.widths[-1])
    if isinstance(floor, Undefined):
        return floor
    names = ("cosine", "crossover", "gradient_factor", "pair_factor")
    # |x_a . x_b|, the other factor of the product of two gradients
    signals = theory.log_grad[2] - theory.log_backprop[2, 1:]
    rms = math.log(floor.cosine) + theory.log_backprop[:2, 1:].mean(axis=0) + signals
    why = "the mean product is 0 there"
    return {
        **{name: getattr(floor, name) for name in names},
        "grad_ab": {"log_rms": _listed(rms, "noise_floor.grad_ab.log_rms", reasons, why)},
    }

"""Put a model at its critical initialisation, in place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.practice.advice import Advice, Convention, advise, critical_weight, second_moment

if TYPE_CHECKING:
    import torch
    from torch import nn

    from depthscale.practice.probe.settable import Node, Settable
    from depthscale.practice.probe.trace import Trace

# Examples in the batch that stands in for inputs which were not given.
STAND_INS = 4


@dataclass(frozen=True)
class InitLayer:
    """What was done to one layer.

    ``role`` is "first" (fed by the inputs), "hidden" or "last" (nothing of the chain follows);
    ``activation`` and ``drop`` act on its input; ``q`` is the expected length of its output;
    ``method`` is "gaussian", "orthogonal" or "delta-orthogonal".
    """

    name: str
    role: str
    kind: str
    activation: str | None
    drop: float
    sigma_w: float
    sigma_b: float
    q: float
    method: str


@dataclass(frozen=True)
class InitReport:
    """What ``critical_init_`` did: layers in order of execution, and what it left alone and why."""

    layers: tuple[InitLayer, ...]
    untouched: tuple[tuple[str, str], ...]
    convention: Convention
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A plain table, one line a layer."""
        wide = max(12, *(len(layer.name) for layer in self.layers))
        head = f"{'layer':{wide}}  role    fed through           drop  sigma_w  sigma_b        q"
        lines = [head]
        for layer in self.layers:
            through = (layer.activation or "-")[:20]
            lines.append(
                f"{layer.name:{wide}}  {layer.role:6}  {through:20} {layer.drop:5.3g} "
                f"{layer.sigma_w:8.4g} {layer.sigma_b:8.4g} {layer.q:8.4g}"
            )
        lines += [f"left alone: {name} ({reason})" for name, reason in self.untouched]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "convention": self.convention,
            "layers": [dict(vars(layer)) for layer in self.layers],
            "untouched": [{"name": name, "reason": reason} for name, reason in self.untouched],
            "notes": list(self.notes),
        }


def critical_init_(
    model: nn.Module,
    inputs: Any = None,
    *,
    drop: float | None = None,
    sigma_b: float | None = None,
    orthogonal: bool = False,
    seed: int | None = None,
    convention: Convention = "gradient",
) -> InitReport:
    """Set the Linear and Conv layers of a chain to the critical point of their activations.

    Layer by layer, with ``q`` the expected length of the pre-activation before it::

        sigma_w^2 = (1 - drop) / E[phi'(u)^2],                u ~ N(0, q)
        sigma_b^2 = q* - sigma_w^2 E[phi(u)^2] / (1 - drop)   (0 where that is negative)

    so that the gradient keeps its norm and the length settles at the critical ``q*`` (``advise``
    says how it is chosen; ``convention="forward"`` leaves the factor ``1 - drop`` out of the first
    line). Any activation that is a function of one number will do, also where
    ``torch.nn.init.calculate_gain`` refuses (GELU, SiLU, ELU, Mish, softplus, your own).

    - The *first* layer gets the sigma_w at which the given inputs arrive at ``q*``, whatever their
      scale; without inputs they are taken to have mean square 1.
    - The *last* layer gets no bias and the sigma_w at which its outputs have the length of the last
      activations, or 1 if those are longer: a softmax then starts near uniform.
    - Layers without a bias cannot hold the length of a tanh-like activation; their sigma_w follows
      the falling length so that the gradient still keeps its norm.
    - ``orthogonal=True`` draws Haar-orthogonal matrices of the same scale: for Linear layers and
      convolutions of even kernels on the flattened fan-in, for odd kernels delta-orthogonal (only
      the middle tap, 1806.05393). The mean field at infinite width is the same; the singular values
      of one layer are all equal. Transposed convolutions stay Gaussian.

    Only the chain that starts at the inputs is touched. A layer behind a residual sum, attention or
    a normalisation is left alone and listed, since its scale is set by something else; so is a
    frozen one.

    Args:
        model: changed in place, without gradients; its device, type and mode stay.
        inputs: a batch as for ``audit``; needed where the shape of an input cannot be told from
            the first layer (a convolution gets 32 pixels a side).
        drop: probability dropped after every activation; default what the model's own dropout does
            in training.
        sigma_b: standard deviation of all hidden biases; default chosen by ``advise``.
        orthogonal: orthogonal instead of Gaussian weights.
        seed: for the draw, in 0..2**63 - 1; default torch's global generator.
        convention: "gradient" or "forward".

    Raises:
        InputError: the model is not a chain (two thirds of its layers with weights must be one;
            the reason is given), drop or sigma_b is out of range, an activation jumps in value.

    Source: 1611.01232 (critical line), 1912.09132 (with dropout), 1502.01852 (ReLU).

    >>> import torch
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Linear(64, 100), torch.nn.GELU(), torch.nn.Linear(100, 10))
    >>> report = critical_init_(model, seed=0)
    >>> [layer.role for layer in report.layers]
    ['first', 'last']
    """
    import torch

    from depthscale.practice.probe.trace import trace_model, unwrap

    _check(drop, sigma_b, seed)
    _check_changeable(model)
    module, _ = unwrap(model)
    notes: list[str] = []
    batch = _stand_in(module, notes) if inputs is None else inputs
    found = _settable(trace_model(module, batch, mode="train"), module, drop)
    notes += found.notes
    squares = {} if inputs is None else _input_squares(module, inputs, found.nodes)
    for node in found.nodes:
        _plan(node, squares.get(node.name, 1.0), sigma_b, convention, notes)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layers = tuple(_apply(node, orthogonal, generator) for node in found.nodes)
    if orthogonal and any(layer.method == "gaussian" for layer in layers):
        notes.append("transposed convolutions were given Gaussian weights")
    untouched = tuple(found.reasons.items()) + tuple(_others(module, found))
    return InitReport(layers, untouched, convention, tuple(dict.fromkeys(notes)))


def init_obstacle(model: nn.Module, trace: Trace) -> str | None:
    """Why ``critical_init_`` would refuse a model, None where it takes it.

    ``trace`` is a trace of the model (``Measurement.trace``): no further pass is made.
    """
    from depthscale.practice.probe.trace import unwrap

    try:
        _check_changeable(model)
        _settable(trace, unwrap(model)[0], None)
    except InputError as error:
        return str(error).partition(_PLAIN)[0]
    return None


_PLAIN = "; critical_init_ is for plain chains of Linear or Conv, activation and dropout"


def _settable(trace: Trace, model: nn.Module, drop: float | None) -> Settable:
    """Return the chain that is to be set, or raise with the reason why there is none."""
    from depthscale.practice.probe.settable import settable_layers

    found = settable_layers(trace, model, drop)
    if found.obstacle is not None:
        raise InputError(found.obstacle + _PLAIN)
    for node in found.nodes:
        if node.function is not None and node.function.why_no_theory:
            raise InputError(f"no critical initialisation: {node.function.why_no_theory}")
    return found


def _check_changeable(model: nn.Module) -> None:
    from torch import nn

    # What is no module at all is for ``unwrap`` to refuse.
    if isinstance(model, nn.Module) and any(p.is_inference() for p in model.parameters()):
        raise InputError("the parameters were made under inference_mode and cannot be changed")


def _check(drop: float | None, sigma_b: float | None, seed: int | None) -> None:
    if drop is not None and not 0.0 <= drop < 1.0:
        raise InputError(f"drop is {drop!r}; expected a probability in [0, 1)")
    if sigma_b is not None and not 0.0 <= sigma_b < math.inf:
        raise InputError(f"sigma_b is {sigma_b!r}; expected a standard deviation of 0 or above")
    if seed is not None:
        from depthscale.practice.probe.state import check_seed

        check_seed(seed)


def _stand_in(model: nn.Module, notes: list[str]) -> torch.Tensor:
    """Random inputs in the shape of the first layer; they serve to find the order of the layers."""
    import torch
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    first = next(
        (m for m in model.modules() if any(True for _ in m.parameters(recurse=False))), None
    )
    if isinstance(first, nn.Linear):
        shape: tuple[int, ...] = (first.in_features,)
    elif isinstance(first, _ConvNd):
        shape = (first.in_channels, *[32] * len(first.kernel_size))
    else:
        kind = "it has no parameters" if first is None else f"a {type(first).__name__} comes first"
        raise InputError(
            f"the shape of an input cannot be told from this model ({kind}); give inputs"
        )
    notes.append("no inputs were given: the first layer expects a mean square of 1")
    generator = torch.Generator().manual_seed(0)
    weight = first.weight
    return torch.randn(STAND_INS, *shape, generator=generator).to(weight.device, weight.dtype)


def _others(model: nn.Module, found: Settable) -> Iterator[tuple[str, str]]:
    """Yield the other modules that hold parameters."""
    done = {id(node.module) for node in found.nodes}
    for name, module in model.named_modules():
        own = any(True for _ in module.parameters(recurse=False))
        if own and id(module) not in done and name not in found.reasons:
            yield name, f"{type(module).__name__} outside the chain"


def _input_squares(model: nn.Module, inputs: Any, nodes: tuple[Node, ...]) -> dict[str, float]:
    """Mean square of what arrives at each first layer, without dropout."""
    import torch

    from depthscale.practice.probe.feed import prepare_feed
    from depthscale.practice.probe.state import preserved
    from depthscale.practice.probe.trace import set_mode

    squares: dict[str, float] = {}

    def watch(node: Node) -> None:
        def record(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            squares.setdefault(node.name, float(args[0].double().square().mean()))

        node.module.register_forward_pre_hook(record)

    with preserved(model), torch.no_grad():
        set_mode(model, "eval")
        for node in nodes:
            if node.source is None:
                watch(node)
        prepare_feed(model, inputs).call(model)
    for name, square in squares.items():
        if not 0.0 < square < math.inf:
            raise InputError(f"the inputs arrive at {name} with mean square {square}; expected > 0")
    return squares


def _plan(
    node: Node, square: float, sigma_b: float | None, convention: Convention, notes: list[str]
) -> None:
    """Set sigma_w, sigma_b and the expected length of a layer from those before it."""
    target = _target(node, sigma_b, convention, notes)
    keep = 1.0 - node.drop
    if node.function is None or node.source is None:
        q = 1.0 if target is None else target.q
        bias = target.sigma_b if target is not None and node.biased else 0.0
        node.sigma_b, node.q = bias, q
        node.sigma_w = math.sqrt((q - bias**2) * keep / square)
        return
    before = node.source.q
    passed = second_moment(node.function, before) / keep
    if target is None:
        weight = min(1.0, 1.0 / math.sqrt(passed))
    else:
        weight = critical_weight(node.function, before, node.drop, convention)
    arriving = weight**2 * passed
    bias = 0.0
    if target is not None and node.biased:
        if sigma_b is not None:
            bias = sigma_b
        elif target.exists and not target.scale_free:
            bias = math.sqrt(max(target.q - arriving, 0.0))
    elif target is not None and not target.scale_free and target.exists:
        notes.append("without biases the length cannot settle: sigma_w follows it down the layers")
    node.sigma_w, node.sigma_b, node.q = weight, bias, arriving + bias**2


def _target(
    node: Node, sigma_b: float | None, convention: Convention, notes: list[str]
) -> Advice | None:
    """Return what is recommended for the activation that follows a layer; None for a last one."""
    if not node.children:
        return None
    following = node.children[0]
    assert following.function is not None
    advice = advise(following.function, drop=following.drop, sigma_b=sigma_b, convention=convention)
    if not advice.exists:
        notes.append(
            f"{advice.reason}; sigma_w keeps the norm of the gradient instead, while the length "
            "drifts from layer to layer"
        )
    return advice


def _apply(node: Node, orthogonal: bool, generator: torch.Generator | None) -> InitLayer:
    import torch

    module = node.module
    weight, bias = module.weight, module.bias
    assert isinstance(weight, torch.Tensor)
    assert node.event.weight is not None
    kind = node.event.weight.kind
    method = "gaussian"
    if orthogonal and kind != "conv_transpose":
        values, method = _orthogonal(weight, getattr(module, "groups", 1), generator)
        values *= node.sigma_w
    else:
        values = torch.randn(weight.shape, generator=generator)
        values *= node.sigma_w / math.sqrt(node.event.weight.fan_in)
    weight.copy_(values)
    if isinstance(bias, torch.Tensor):
        bias.copy_(node.sigma_b * torch.randn(bias.shape, generator=generator))
    return InitLayer(
        name=node.name,
        role=node.role,
        kind=kind,
        activation=None if node.function is None else node.function.name,
        drop=node.drop,
        sigma_w=node.sigma_w,
        sigma_b=node.sigma_b,
        q=node.q,
        method=method,
    )


def _orthogonal(
    weight: torch.Tensor, groups: int, generator: torch.Generator | None
) -> tuple[torch.Tensor, str]:
    """Orthogonal weights of sigma_w = 1, ``sum W^2 = rows`` in each group, and their name."""
    import torch

    delta = weight.ndim > 2 and all(k % 2 for k in weight.shape[2:])
    rows = weight.shape[0] // groups
    columns = weight.shape[1] if delta else weight[0].numel()
    blocks = torch.cat([_haar(rows, columns, generator) for _ in range(groups)])
    if not delta:
        return blocks.reshape(weight.shape), "orthogonal"
    values = torch.zeros(weight.shape)
    middle = sum(k // 2 * math.prod(weight.shape[3 + i :]) for i, k in enumerate(weight.shape[2:]))
    values.flatten(2)[..., middle] = blocks
    return values, "delta-orthogonal" if math.prod(weight.shape[2:]) > 1 else "orthogonal"


def _haar(rows: int, columns: int, generator: torch.Generator | None) -> torch.Tensor:
    """A Haar-distributed matrix with ``sum W^2 = rows``: sigma_w = 1 whichever side is longer."""
    import torch

    tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    basis, triangle = torch.linalg.qr(tall.double())
    # Without the signs of the triangle QR would not draw from the Haar measure.
    basis = (basis * triangle.diagonal().sign()).float()
    matrix: torch.Tensor = basis if rows >= columns else basis.T
    return matrix * math.sqrt(max(1.0, rows / columns))

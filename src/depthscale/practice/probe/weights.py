"""How an operation uses its weights: fan-in, independent rows, and their measured scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from depthscale.practice.probe.operations import argument


@dataclass(frozen=True)
class WeightUse:
    """The weights of one operation.

    ``kind`` is "linear", "conv", "conv_transpose" or "einsum"; ``rows`` counts independent units
    (output features or channels); ``rows_last`` says that rows are columns of the stored tensor.
    ``sigma_w^2 = fan_in mean(W^2)``, ``sigma_b^2 = mean(b^2)``; both None where the weights are
    computed from the input. ``owners`` and ``bias_owners`` name the parameters behind them.
    ``irregularity`` is ``m tr((W W^T)^2) / tr(W W^T)^2`` over its value ``1 + m/n`` for independent
    entries of an m x n matrix: about 1 for any independent draw, below for orthogonal ones, well
    above for trained weights.
    ``tensor`` and ``bias`` are dropped when the description is stored.
    """

    kind: str
    rows: int
    fan_in: int
    rows_last: bool = False
    biased: bool = False
    owners: tuple[str, ...] = ()
    bias_owners: tuple[str, ...] = ()
    sigma_w: float | None = None
    sigma_b: float | None = None
    irregularity: float | None = None
    dynamic: bool = False
    tensor: Any = None
    bias: Any = None

    def described(self, owners: tuple[str, ...], bias_owners: tuple[str, ...]) -> WeightUse:
        """The same with scales measured and tensors let go."""
        if self.dynamic:
            return self.stripped()
        bias = 0.0 if self.bias is None else root_mean_square(self.bias)
        return replace(
            self,
            owners=owners,
            bias_owners=bias_owners,
            sigma_w=math.sqrt(self.fan_in) * root_mean_square(self.tensor),
            sigma_b=bias,
            irregularity=_irregularity(self.tensor, rows_last=self.rows_last),
            tensor=None,
            bias=None,
        )

    def stripped(self) -> WeightUse:
        """The same without tensors and scales, when only the place matters."""
        return replace(self, tensor=None, bias=None)


def root_mean_square(tensor: torch.Tensor) -> float:
    """Root of the mean square of all entries, accumulated in float64."""
    if tensor.numel() == 0:
        return 0.0
    flat = tensor.detach().flatten()
    flat = flat.cpu() if flat.device.type == "mps" else flat
    norms = [torch.linalg.vector_norm(part.double()) for part in torch.split(flat, 1 << 22)]
    return float(torch.linalg.vector_norm(torch.stack(norms))) / math.sqrt(flat.numel())


def _irregularity(weight: torch.Tensor, *, rows_last: bool, limit: int = 256) -> float | None:
    matrix = weight.detach()
    matrix = matrix.transpose(0, -1) if rows_last else matrix
    matrix = matrix.flatten(1)
    step = max(1, len(matrix) // limit)
    matrix = matrix[::step][:limit].float()
    rows, columns = matrix.shape
    gram = matrix @ matrix.T
    total = float(gram.diagonal().sum())
    if total == 0.0 or rows < 8 or columns < 8:
        return None
    return rows * float((gram / total).square().sum()) / (1 + rows / columns)


def weight_use(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    is_signal: Callable[[Any], bool],
    owners: Callable[[Any], tuple[str, ...]],
) -> WeightUse | None:
    """The weights of a call, or None when it multiplies two signals, or constants.

    A plain matrix product only counts when its constant factor comes from parameters (``owners``):
    masks, averaging matrices and rotary tables do not.
    """
    if name == "linear":
        weight, bias = _operands(args, kwargs)
        if weight.ndim < 2:
            return None
        use = WeightUse("linear", weight.shape[0], weight.shape[-1], tensor=weight, bias=bias)
    elif name.startswith("conv_transpose"):
        weight, bias = _operands(args, kwargs)
        stride = argument(args, kwargs, 3, "stride", 1)
        use = _transposed_use(weight, bias, stride, argument(args, kwargs, 6, "groups", 1))
    elif name.startswith("conv"):
        weight, bias = _operands(args, kwargs)
        fan_in = math.prod(weight.shape[1:])
        use = WeightUse("conv", weight.shape[0], fan_in, tensor=weight, bias=bias)
    elif name == "einsum":
        found = _einsum_use(args, is_signal)
        return found if found is not None and owners(found.tensor) else None
    else:
        found = _product_use(name, args, kwargs, is_signal)
        return found if found is not None and owners(found.tensor) else None
    dynamic = is_signal(use.tensor)
    return replace(use, dynamic=dynamic, biased=use.bias is not None)


def _transposed_use(weight: Any, bias: Any, stride: Any, groups: int) -> WeightUse:
    steps = stride if isinstance(stride, tuple | list) else [stride] * (weight.ndim - 2)
    # On average each output meets this many inputs; the true number varies with its place.
    fan_in = weight.shape[0] * math.prod(weight.shape[2:]) / (groups * math.prod(steps))
    return WeightUse(
        "conv_transpose",
        weight.shape[1] * groups,
        max(1, round(fan_in)),
        biased=bias is not None,
        tensor=weight,
        bias=bias,
    )


def _operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return argument(args, kwargs, 1, "weight"), argument(args, kwargs, 2, "bias")


def _product_use(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], is_signal: Callable[[Any], bool]
) -> WeightUse | None:
    """Weights of ``matmul``, ``mm``, ``addmm`` and their relatives: the factor that is constant."""
    bias = None
    factors = (*args, *kwargs.values())
    if len(factors) < (3 if name == "addmm" else 2):
        return None
    if name == "addmm":
        bias, left, right = factors[:3]
    elif name == "rmatmul":
        right, left = factors[:2]
    else:
        left, right = factors[:2]
    if is_signal(left) == is_signal(right):
        return None
    weight, rows_last = (right, True) if is_signal(left) else (left, False)
    if not isinstance(weight, torch.Tensor) or weight.ndim < 2 or not weight.is_floating_point():
        return None
    rows, fan_in = weight.shape[-2:][::-1] if rows_last else weight.shape[-2:]
    return WeightUse(
        "linear",
        rows,
        fan_in,
        rows_last=rows_last,
        biased=bias is not None,
        tensor=weight,
        bias=bias,
    )


def _einsum_use(args: tuple[Any, ...], is_signal: Callable[[Any], bool]) -> WeightUse | None:
    """Weights of a two-factor einsum: summed indices are the fan-in, kept ones the rows."""
    equation, *factors = args
    factors = list(factors[0]) if factors and isinstance(factors[0], list | tuple) else factors
    if not isinstance(equation, str) or len(factors) != 2 or "..." in equation.split(",")[-1]:
        return None
    constant = [place for place, factor in enumerate(factors) if not is_signal(factor)]
    if len(constant) != 1 or factors[constant[0]].ndim < 2:
        return None
    terms, _, result = equation.replace(" ", "").partition("->")
    indices = terms.split(",")[constant[0]]
    weight = factors[constant[0]]
    sizes = dict(zip(indices, weight.shape, strict=False))
    kept = math.prod(size for index, size in sizes.items() if index in result)
    return WeightUse("einsum", kept, max(1, weight.numel() // max(1, kept)), tensor=weight)


def bias_of(use: WeightUse, constant: torch.Tensor, out: torch.Tensor | None) -> float | None:
    """Scale of a parameter that is added to the output of weights like a bias, None if it isn't.

    A bias has one entry per row and is the same at every other position of the output.
    """
    if out is None or constant.numel() != use.rows or not constant.is_floating_point():
        return None
    place = 1 if use.kind.startswith("conv") else out.ndim - 1
    lead = out.ndim - constant.ndim
    if lead < 0 or not 0 <= place - lead < constant.ndim:
        return None
    return root_mean_square(constant) if constant.shape[place - lead] == use.rows else None


def redraw(weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Another draw from the distribution that a weight tensor seems to come from, on the CPU.

    Entries are drawn with replacement from its own, with random signs when they are centred (mean
    within four standard errors of zero): so scale and shape of the distribution (Gaussian,
    uniform, truncated, sparse, all ones) are those of the weight, and any structure between its
    entries is gone. A matrix with orthogonal rows or columns of equal length becomes another such
    matrix.
    """
    values = weight.detach().cpu()
    if values.ndim >= 2 and (scale := _orthogonal_scale(values.flatten(1))) is not None:
        return _orthogonal(values, scale, generator)
    flat = values.flatten()
    if flat.numel() == 0:
        return values.clone()
    chosen = flat[torch.randint(flat.numel(), (flat.numel(),), generator=generator)]
    exact = flat.double()
    if abs(float(exact.mean())) <= 4 * float(exact.std(correction=0)) / math.sqrt(flat.numel()):
        signs = torch.randint(2, (flat.numel(),), generator=generator) * 2 - 1
        chosen = chosen * signs.to(chosen.dtype)
    return chosen.reshape(values.shape)


def _orthogonal_scale(matrix: torch.Tensor, limit: int = 64) -> float | None:
    """Length of the rows (or columns, the fewer) if they are orthogonal and equal, else None."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    rows = short[:limit].double()
    gram = rows @ rows.T
    square = float(gram.diagonal().mean())
    if len(rows) < 2 or square == 0.0:
        return None
    target = square * torch.eye(len(rows), dtype=gram.dtype)
    return math.sqrt(square) if torch.allclose(gram, target, atol=1e-2 * square) else None


def _orthogonal(values: torch.Tensor, scale: float, generator: torch.Generator) -> torch.Tensor:
    matrix = values.flatten(1)
    long, short = max(matrix.shape), min(matrix.shape)
    normal = torch.randn(long, short, generator=generator, dtype=torch.float64)
    basis, upper = torch.linalg.qr(normal)
    basis = scale * basis * upper.diagonal().sign()
    drawn = basis if matrix.shape[0] == long else basis.T
    return torch.as_tensor(drawn).reshape(values.shape).to(values.dtype)

"""The trials that the command knows: a network at one of two sizes, and sweeps around the MLP.

``paper`` is the setting of 2605.21648: for its MLP six hidden layers of 256 units, Gaussian weights
of variance 1.98 and biases of variance 0.02, 5,000 examples to learn from and 5,000 to test on, 75
epochs of AdamW from 1e-4 in batches of 100, mean rate 0.1. It says neither how the weights decay
(here: torch's default, 0.01) nor of a validation part (here: 1,000 examples more).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from depthscale.answers import InputError
from depthscale.practice.dropping.blocks import BRANCHES
from depthscale.practice.networks import NETWORKS
from depthscale.practice.trials.arms import (
    PROFILES,
    Arm,
    all_arms,
    merged,
    optima,
    sliding_arms,
    some_arms,
)
from depthscale.practice.trials.trial import Cell, Trial
from depthscale.theory.criticality import critical_point
from depthscale.theory.meanfield import MeanField

MEAN = 0.1
SIGMA_W, SIGMA_B = math.sqrt(1.98), math.sqrt(0.02)
PAPER_MLP: dict[str, Any] = {"activation": "relu", "sigma_w": SIGMA_W, "sigma_b": SIGMA_B}
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "mlp": {"paper": {"depth": 6, "width": 256}, "small": {"depth": 6, "width": 128}},
    "vit": {
        "paper": {"depth": 10},
        "small": {"depth": 6, "dim": 48, "heads": 4, "patch": 7, "ratio": 2},
    },
    "hf-vit": {
        "paper": {"depth": 10},
        "small": {"depth": 6, "dim": 48, "heads": 4, "patch": 7, "ratio": 2},
    },
    "resnet": {
        "paper": {"blocks": (3, 3, 3), "channels": (16, 32, 64)},
        "small": {"blocks": (3, 3, 3), "channels": (16, 24, 32), "stride": 4},
    },
}
"""Of each network; sites (or blocks of them) are counted from these."""
FITTED: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("digits", "small"): {"vit": {"patch": 2}, "hf-vit": {"patch": 2}, "resnet": {"stride": 1}},
    ("cifar-10", "small"): {"vit": {"patch": 8}, "hf-vit": {"patch": 8}},
    ("cifar-10", "paper"): {"vit": {"depth": 12}, "hf-vit": {"depth": 12}},
    ("cifar-100", "small"): {"vit": {"patch": 8}, "hf-vit": {"patch": 8}},
}
"""Sizes of other networks for some data: small pictures are 28 x 28 elsewhere."""
TRAINING: dict[str, dict[str, dict[str, Any]]] = {
    # Long enough that each overfits without dropout: where it does not, no schedule can help.
    "mlp": {
        "paper": {},
        "small": {"train": 2000, "test": 2000, "epochs": 60, "learning_rate": 1e-3},
    },
    "vit": {
        "paper": {},
        "small": {"train": 4000, "test": 2000, "epochs": 20, "learning_rate": 2e-3},
    },
    "hf-vit": {
        "paper": {},
        "small": {"train": 4000, "test": 2000, "epochs": 20, "learning_rate": 2e-3},
    },
    "resnet": {
        "paper": {"learning_rate": 5e-3},  # it is none of the paper's
        "small": {"test": 2000, "epochs": 40, "learning_rate": 5e-3},
    },
}
"""Fields of the trial of each network: a small run takes 3 to 60 seconds of one processor."""
FEWER = {
    "digits": {"train": 1000, "validation": 300, "test": 400},
    "mnist1d": {"train": 3000, "validation": 1000, "test": 1000},
}
"""Examples where there are less than the trial takes."""
FEW = ("none", "uniform", "uniform 2x", "step", "step-late")
PLACED = ("uniform", "step", "step-late")
MORE = (*FEW, "linear", "linear-late")
"""Arms of the sweeps; of one branch of a transformer; of both its branches."""
SWEEP_EPOCHS = 30
BUDGETS = (0.02, 0.05, 0.1, 0.2)
WIDTHS = (64, 256, 1024)
DEPTHS = (3, 6, 12)


def plan(
    network: str = "mlp",
    data: str = "fashion-mnist",
    size: str = "small",
    sweep: str | None = None,
    mean: float = MEAN,
    arms: Sequence[str] | None = None,
    **settings: Any,
) -> Trial:
    """The trial of a network, or a sweep over one of its settings.

    For the MLP the arms hold the schedules that are best for it by theory, and a block of twice the
    mean on half of the layers at every place.

    Args:
        network: a name of ``networks.NETWORKS``.
        data: a name of ``datasets.NAMES``.
        size: "small" (minutes on two processors) or "paper".
        sweep: None or a name of ``SWEEPS``, which take the MLP and fewer epochs and arms.
        mean: mean rate of all schedules of one dose, above 0 and below 1/3.
        arms: names of arms; None: all there are.
        settings: other fields of ``Trial``, such as ``epochs=10`` or ``device="cuda"``.

    Raises:
        InputError: an unknown name, a sweep of another network, or a number out of its range.

    Example:
        >>> trial = plan(size="paper")
        >>> trial.epochs, len(trial.cells[0].arms)
        (75, 17)
    """
    if network not in NETWORKS or network not in SIZES:
        raise InputError(f"unknown network {network!r}; expected one of {', '.join(SIZES)}")
    if size not in ("small", "paper"):
        raise InputError(f"size is {size!r}; expected 'small' or 'paper'")
    base = TRAINING[network][size] | FEWER.get(data, {})
    sizes = SIZES[network][size] | FITTED.get((data, size), {}).get(network, {})
    if sweep is None:
        cells: tuple[Cell, ...] = (_cell(network, network, sizes, mean, arms),)
    else:
        if sweep not in SWEEPS or SWEPT.get(sweep, "mlp") != network:
            known = ", ".join(f"{name} of {SWEPT.get(name, 'mlp')}" for name in SWEEPS)
            raise InputError(
                f"no sweep {sweep!r} of the network {network!r}; expected one of {known}"
            )
        if sweep == "budget" and mean != MEAN:
            raise InputError(f"the sweep over budgets has its own mean rates, {BUDGETS}")
        cells = SWEEPS[sweep](sizes, mean)
        if arms is not None:
            cells = tuple(replace(c, arms=_chosen(c, arms)) for c in cells)
        if size == "paper" and network == "mlp":
            base["epochs"] = SWEEP_EPOCHS
    return Trial(data, cells, **(base | settings))


def mean_field(sizes: dict[str, Any]) -> MeanField:
    """The theory of an MLP, by the sizes that it is built with."""
    return MeanField(sizes["activation"], sigma_w=sizes["sigma_w"], sigma_b=sizes["sigma_b"])


def _cell(
    name: str, network: str, sizes: dict[str, Any], mean: float, names: Sequence[str] | None
) -> Cell:
    depth = sizes["depth"] if "depth" in sizes else sum(sizes["blocks"])
    if network == "mlp":
        sizes = PAPER_MLP | sizes
    sought = names is None or any(name.startswith("best for") for name in names)
    theory = mean_field(sizes) if network == "mlp" and sought else None
    arms = all_arms(depth, mean, theory)
    if network == "mlp":
        arms = merged([*arms, *sliding_arms(depth, 2 * mean, depth // 2)])
    cell = Cell(name, network, arms, sizes)
    return cell if names is None else replace(cell, arms=_chosen(cell, names))


def _chosen(cell: Cell, names: Sequence[str]) -> tuple[Arm, ...]:
    """Arms of a cell by name, each once."""
    return tuple(dict.fromkeys(cell.arm(name) for name in names))


def _few(name: str, sizes: dict[str, Any], mean: float) -> Cell:
    return Cell(name, "mlp", merged(some_arms(sizes["depth"], mean, FEW)), PAPER_MLP | sizes)


def _budget(sizes: dict[str, Any], _: float) -> tuple[Cell, ...]:
    return tuple(_few(f"mean {mean:g}", sizes, mean) for mean in BUDGETS)


def _width(sizes: dict[str, Any], mean: float) -> tuple[Cell, ...]:
    return tuple(_few(f"width {width}", sizes | {"width": width}, mean) for width in WIDTHS)


def _depth(sizes: dict[str, Any], mean: float) -> tuple[Cell, ...]:
    return tuple(_few(f"depth {depth}", sizes | {"depth": depth}, mean) for depth in DEPTHS)


def _activation(sizes: dict[str, Any], mean: float) -> tuple[Cell, ...]:
    """Each critical without dropout: tanh with the paper's biases, GELU at a stable length."""
    cells = [_few("relu", sizes, mean)]
    points = {
        "tanh": critical_point("tanh", sigma_b=SIGMA_B),
        "gelu": critical_point("gelu", q=4.0),
    }
    for name, point in points.items():
        # to six digits, so that settings are the same on every machine
        drawn = {key: round(float(getattr(point, key)), 6) for key in ("sigma_w", "sigma_b")}
        cells.append(_few(name, sizes | {"activation": name} | drawn, mean))
    return tuple(cells)


def _place(sizes: dict[str, Any], mean: float) -> tuple[Cell, ...]:
    """A block of twice the mean on half of the layers, slid from the input to the output."""
    cell = _few("place", sizes, mean)
    depth = sizes["depth"]
    blocks = sliding_arms(depth, 2 * mean, depth // 2)
    plain = some_arms(depth, mean, ("none", "uniform", "uniform 2x"))
    return (replace(cell, arms=merged([*plain, *blocks])),)


def _component(sizes: dict[str, Any], mean: float) -> tuple[Cell, ...]:
    """Dropout in one branch of the blocks of a transformer, or in both."""
    return tuple(
        Cell(
            name,
            "vit",
            merged(some_arms(sizes["depth"], mean, MORE if name == "both" else PLACED)),
            sizes,
            kinds,
        )
        for name, kinds in BRANCHES.items()
    )


SWEEPS: dict[str, Callable[[dict[str, Any], float], tuple[Cell, ...]]] = {
    "budget": _budget,
    "width": _width,
    "depth": _depth,
    "place": _place,
    "activation": _activation,
    "component": _component,
}
"""Sweeps by name: cells from the sizes of the network and the mean rate."""
SWEPT = {"component": "vit"}
"""The network of a sweep where it is not the MLP."""

__all__ = ["MEAN", "PROFILES", "SIZES", "SWEEPS", "mean_field", "optima", "plan"]

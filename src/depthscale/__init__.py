"""How far a signal survives in a deep network, what sets that distance, and how to change it.

The public names. Each loads its room on first use, so that ``import depthscale`` is immediate.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthscale.answers import InputError, Quantity, Undefined
    from depthscale.finite.ensemble import PairEnsemble, sample_pairs
    from depthscale.practice.audit import Audit, NotTrainable, audit
    from depthscale.practice.initialisation import InitReport, critical_init_
    from depthscale.theory.activation import Activation, Kink, activation
    from depthscale.theory.criticality import (
        CriticalPoint,
        critical_line,
        critical_point,
        max_drop,
    )
    from depthscale.theory.meanfield import MeanField, Trajectory, propagate
    from depthscale.theory.phase import phase_diagram

    __version__: str

__all__ = [
    "Activation",
    "Audit",
    "CriticalPoint",
    "InitReport",
    "InputError",
    "Kink",
    "MeanField",
    "NotTrainable",
    "PairEnsemble",
    "Quantity",
    "Trajectory",
    "Undefined",
    "__version__",
    "activation",
    "audit",
    "critical_init_",
    "critical_line",
    "critical_point",
    "max_drop",
    "phase_diagram",
    "propagate",
    "sample_pairs",
]

_ROOMS = {
    "answers": ("InputError", "Quantity", "Undefined"),
    "finite.ensemble": ("PairEnsemble", "sample_pairs"),
    "practice.audit": ("Audit", "NotTrainable", "audit"),
    "practice.initialisation": ("InitReport", "critical_init_"),
    "theory.activation": ("Activation", "Kink", "activation"),
    "theory.criticality": (
        "CriticalPoint",
        "critical_line",
        "critical_point",
        "max_drop",
    ),
    "theory.meanfield": ("MeanField", "Trajectory", "propagate"),
    "theory.phase": ("phase_diagram",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("depthscale")
    elif name in _HOME:
        value = getattr(import_module(f"depthscale.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'depthscale' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""How far a signal survives in a deep network, what sets that distance, and how to change it.

The public names. Each loads its room on first use, so that ``import depthscale`` is immediate.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthscale.answers import InputError, Quantity, Undefined
    from depthscale.finite.band import CorrelationBand
    from depthscale.finite.bands import correlation_band
    from depthscale.finite.diffusion.covariance import CovarianceLaw, sample_covariance
    from depthscale.finite.diffusion.residual import ResidualReLU
    from depthscale.finite.diffusion.shaped import ShapedReLU
    from depthscale.finite.diffusion.smooth import ShapedSmooth
    from depthscale.finite.diffusion.solve import limit_law
    from depthscale.finite.diffusion.unshaped import Unshaped
    from depthscale.finite.ensemble import Ensemble, Pair
    from depthscale.finite.finite_size import FiniteSizeLaw
    from depthscale.finite.lattice.lattice import Lattice
    from depthscale.finite.lattice.result import LatticeRun
    from depthscale.finite.lyapunov import lyapunov_exponent, measured_boundary
    from depthscale.finite.pairs import PairEnsemble, sample_pairs
    from depthscale.finite.sampled import Sampled
    from depthscale.practice.audit import Audit, NotTrainable, audit
    from depthscale.practice.depth_plan import DepthPlan
    from depthscale.practice.dropping.advise import ModelSchedule
    from depthscale.practice.dropping.apply import AppliedSchedule, apply_schedule
    from depthscale.practice.dropping.callbacks import lightning_callback, trainer_callback
    from depthscale.practice.dropping.insert import InsertedSites, insert_sites
    from depthscale.practice.dropping.over_time import DropoutScheduler, time_profile
    from depthscale.practice.dropping.sites import DropoutSite, dropout_sites
    from depthscale.practice.initialisation import InitReport, critical_init_
    from depthscale.practice.optimise import optimise_schedule
    from depthscale.practice.plan_depth import plan_depth
    from depthscale.practice.schedule import Budget, Schedule
    from depthscale.practice.schedules.optimise import Evaluation, Optimum, evaluate_schedule
    from depthscale.practice.shaping.apply import AppliedShape, apply_shape
    from depthscale.practice.shaping.record import Shaped
    from depthscale.practice.shaping.shape import shape
    from depthscale.scaling.classes import UNIVERSALITY, exponent_class
    from depthscale.scaling.collapse import Collapse, collapse
    from depthscale.scaling.exponents import effective_exponent, extrapolate, power_law
    from depthscale.scaling.identify import identify
    from depthscale.scaling.tables import read_table
    from depthscale.theory.activation import Activation, Kink, activation
    from depthscale.theory.criticality import (
        CriticalPoint,
        critical_line,
        critical_point,
        max_drop,
    )
    from depthscale.theory.diffusion import (
        AlignmentEquation,
        StochasticLimit,
        plateau_variance,
        stochastic_limit,
    )
    from depthscale.theory.field_response import FieldResponse, field_response
    from depthscale.theory.finite_width import FiniteWidth, finite_width
    from depthscale.theory.gradient_laws import log_normal_rate, noise_floor
    from depthscale.theory.gradients import GradientTheory, predict_gradients
    from depthscale.theory.kernel_window import window_ratio
    from depthscale.theory.laws import Law
    from depthscale.theory.linear import LinearMoments, linear_moments
    from depthscale.theory.meanfield import MeanField, Trajectory, propagate
    from depthscale.theory.noise import Noise
    from depthscale.theory.phase import phase_diagram
    from depthscale.theory.tangent_kernel import KernelTable, TangentKernel, tangent_kernel
    from depthscale.theory.transition import AbsorbingTransition, absorbing_transition
    from depthscale.theory.universal.alignment import Alignment
    from depthscale.theory.universal.collapse import collapse_theory
    from depthscale.theory.universal.record import Universality, universality
    from depthscale.theory.universal.spectrum import hermite_tail
    from depthscale.theory.universal.transient import Transient, transient

    __version__: str

__all__ = [
    "UNIVERSALITY",
    "AbsorbingTransition",
    "Activation",
    "Alignment",
    "AlignmentEquation",
    "AppliedSchedule",
    "AppliedShape",
    "Audit",
    "Budget",
    "Collapse",
    "CorrelationBand",
    "CovarianceLaw",
    "CriticalPoint",
    "DepthPlan",
    "DropoutScheduler",
    "DropoutSite",
    "Ensemble",
    "Evaluation",
    "FieldResponse",
    "FiniteSizeLaw",
    "FiniteWidth",
    "GradientTheory",
    "InitReport",
    "InputError",
    "InsertedSites",
    "KernelTable",
    "Kink",
    "Lattice",
    "LatticeRun",
    "Law",
    "LinearMoments",
    "MeanField",
    "ModelSchedule",
    "Noise",
    "NotTrainable",
    "Optimum",
    "Pair",
    "PairEnsemble",
    "Quantity",
    "ResidualReLU",
    "Sampled",
    "Schedule",
    "Shaped",
    "ShapedReLU",
    "ShapedSmooth",
    "StochasticLimit",
    "TangentKernel",
    "Trajectory",
    "Transient",
    "Undefined",
    "Universality",
    "Unshaped",
    "__version__",
    "absorbing_transition",
    "activation",
    "apply_schedule",
    "apply_shape",
    "audit",
    "collapse",
    "collapse_theory",
    "correlation_band",
    "critical_init_",
    "critical_line",
    "critical_point",
    "dropout_sites",
    "effective_exponent",
    "evaluate_schedule",
    "exponent_class",
    "extrapolate",
    "field_response",
    "finite_width",
    "hermite_tail",
    "identify",
    "insert_sites",
    "lightning_callback",
    "limit_law",
    "linear_moments",
    "log_normal_rate",
    "lyapunov_exponent",
    "max_drop",
    "measured_boundary",
    "noise_floor",
    "optimise_schedule",
    "phase_diagram",
    "plan_depth",
    "plateau_variance",
    "power_law",
    "predict_gradients",
    "propagate",
    "read_table",
    "sample_covariance",
    "sample_pairs",
    "shape",
    "stochastic_limit",
    "tangent_kernel",
    "time_profile",
    "trainer_callback",
    "transient",
    "universality",
    "window_ratio",
]

_ROOMS = {
    "finite.finite_size": ("FiniteSizeLaw",),
    "finite.lattice.lattice": ("Lattice",),
    "finite.lattice.result": ("LatticeRun",),
    "finite.lyapunov": (
        "lyapunov_exponent",
        "measured_boundary",
    ),
    "practice.depth_plan": ("DepthPlan",),
    "practice.plan_depth": ("plan_depth",),
    "scaling.classes": (
        "UNIVERSALITY",
        "exponent_class",
    ),
    "scaling.collapse": (
        "Collapse",
        "collapse",
    ),
    "scaling.exponents": (
        "effective_exponent",
        "extrapolate",
        "power_law",
    ),
    "scaling.identify": ("identify",),
    "scaling.tables": ("read_table",),
    "theory.field_response": (
        "FieldResponse",
        "field_response",
    ),
    "theory.kernel_window": ("window_ratio",),
    "theory.tangent_kernel": (
        "KernelTable",
        "TangentKernel",
        "tangent_kernel",
    ),
    "theory.transition": (
        "AbsorbingTransition",
        "absorbing_transition",
    ),
    "answers": ("InputError", "Quantity", "Undefined"),
    "finite.band": ("CorrelationBand",),
    "finite.bands": ("correlation_band",),
    "finite.diffusion.covariance": (
        "CovarianceLaw",
        "sample_covariance",
    ),
    "finite.diffusion.residual": ("ResidualReLU",),
    "finite.diffusion.shaped": ("ShapedReLU",),
    "finite.diffusion.smooth": ("ShapedSmooth",),
    "finite.diffusion.solve": ("limit_law",),
    "finite.diffusion.unshaped": ("Unshaped",),
    "practice.shaping.apply": (
        "AppliedShape",
        "apply_shape",
    ),
    "practice.shaping.record": ("Shaped",),
    "practice.shaping.shape": ("shape",),
    "theory.diffusion": (
        "AlignmentEquation",
        "StochasticLimit",
        "plateau_variance",
        "stochastic_limit",
    ),
    "finite.ensemble": ("Ensemble", "Pair"),
    "finite.pairs": ("PairEnsemble", "sample_pairs"),
    "finite.sampled": ("Sampled",),
    "practice.audit": ("Audit", "NotTrainable", "audit"),
    "practice.dropping.advise": ("ModelSchedule",),
    "practice.dropping.apply": ("AppliedSchedule", "apply_schedule"),
    "practice.dropping.callbacks": ("lightning_callback", "trainer_callback"),
    "practice.dropping.insert": ("InsertedSites", "insert_sites"),
    "practice.dropping.over_time": ("DropoutScheduler", "time_profile"),
    "practice.dropping.sites": ("DropoutSite", "dropout_sites"),
    "practice.initialisation": ("InitReport", "critical_init_"),
    "practice.optimise": ("optimise_schedule",),
    "practice.schedules.optimise": ("Evaluation", "Optimum", "evaluate_schedule"),
    "practice.schedule": ("Budget", "Schedule"),
    "theory.activation": ("Activation", "Kink", "activation"),
    "theory.universal.alignment": ("Alignment",),
    "theory.universal.collapse": ("collapse_theory",),
    "theory.criticality": (
        "CriticalPoint",
        "critical_line",
        "critical_point",
        "max_drop",
    ),
    "theory.universal.spectrum": ("hermite_tail",),
    "theory.finite_width": ("FiniteWidth", "finite_width"),
    "theory.gradient_laws": ("log_normal_rate", "noise_floor"),
    "theory.gradients": ("GradientTheory", "predict_gradients"),
    "theory.laws": ("Law",),
    "theory.linear": ("LinearMoments", "linear_moments"),
    "theory.meanfield": ("MeanField", "Trajectory", "propagate"),
    "theory.noise": ("Noise",),
    "theory.phase": ("phase_diagram",),
    "theory.universal.transient": ("Transient", "transient"),
    "theory.universal.record": ("Universality", "universality"),
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

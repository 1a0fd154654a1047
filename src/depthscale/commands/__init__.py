"""The commands: call the theory or the audit, print the answer, return the exit code."""

from depthscale.commands.laws import law, universality
from depthscale.commands.maps import critical, phase, theory
from depthscale.commands.models import audit
from depthscale.commands.schedules import schedule
from depthscale.commands.simulate import simulate
from depthscale.commands.trials import trial

__all__ = [
    "audit", "critical", "law", "phase", "schedule", "simulate", "theory", "trial", "universality",
]  # fmt: skip

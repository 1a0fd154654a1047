"""Other ways to the same parameters."""

from __future__ import annotations

from typing import Any

from depthscale.scaling.fit import Fit


def cross_checks(fit: Fit) -> dict[str, Any]:
    """Parameters by other methods."""
    return {}

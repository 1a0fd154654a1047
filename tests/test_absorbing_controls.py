"""The controls of the scaling analysis, few realisations by the same path.

What is asked of them holds by far more than their noise: a class that is ruled out with a chance of
1e-20, exact numerics. The rest is of the full setting.
"""

from __future__ import annotations

import pytest

from depthscale.papers.absorbing import controls, plots_controls
from depthscale.papers.absorbing.runs import Runs

QUICK = Runs(quick=True)


def test_classes_are_told_apart():
    claims = {claim.statement: claim for claim in controls.known_models(QUICK)}
    assert len(claims) == 16
    for start in ("negative control", "by delta and cutoff", "contact process on a complete graph"):
        found = [claim for text, claim in claims.items() if text.startswith(start)]
        assert found
        assert all(claim.verdict == "confirmed" for claim in found)


def test_percolation_is_near_its_exponents():
    found = controls.collapsed(QUICK, controls.CORRECTED, 8)
    assert found["delta"].value == pytest.approx(controls.DELTA, abs=4 * found["delta"].error)
    assert found["b"].value == pytest.approx(controls.INVERSE_NU, abs=4 * found["b"].error)


def test_figures_are_drawn(tmp_path):
    plots_controls.classes(QUICK, tmp_path / "classes.png")
    assert (tmp_path / "classes.png").stat().st_size > 1000

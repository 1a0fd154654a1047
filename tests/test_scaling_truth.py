"""The known-truth sets are what they say: means, covariances, and the least errors by another way.

Chi-square statistics are held to five standard deviations of their law, chance below 1e-5.
"""

from __future__ import annotations

import numpy as np
import pytest

from depthscale.scaling.form import Form
from scaling_truth import DP, ISING, LAWS, SMEARED, corrected, draw, least_errors, realisations


def deviation(data) -> float:
    """Chi-square of the data about the truth, in standard deviations of its law."""
    off = data.table[data.law.y] - data.law.exact(data.table)
    chi2 = off @ np.linalg.solve(data.covariance, off)
    return float((chi2 - len(off)) / np.sqrt(2 * len(off)))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("ragged", [False, True])
def test_draws_have_the_stated_covariance(law, ragged):
    for options in ({}, {"correlation": 0.8}, {"correlation": -0.5, "along": law.size}):
        data = draw(law, 3, ragged=ragged, **options)
        assert abs(deviation(data)) < 5
        assert np.allclose(np.diag(data.covariance), data.table["error"] ** 2)
        assert len({len(column) for column in data.table.values()}) == 1


def test_forms_say_what_the_laws_compute():
    """Each form, with its master curve eliminated by hand, gives the law's data."""
    for law in [*LAWS, corrected(DP), corrected(ISING, known=True)]:
        data = draw(law, 0)
        form = Form.parse(law.form, list(law.grid))
        values = [law.truth[name] for name in form.parameters]
        found = form.evaluate(data.table, values)
        ratio = law.exact(data.table) / (found.prefactor * law.master(*found.arguments))
        assert np.allclose(ratio, ratio[0])


def test_runs_average_to_the_table_with_the_stated_covariance():
    data = realisations(DP, 5, runs=400)
    assert data.raw is not None
    raw = data.raw["m"].reshape(400, -1)
    assert np.allclose(raw.mean(axis=0), data.table["m"])
    assert abs(deviation(data)) < 5
    # along one trajectory, and not across: the sample covariance of 25 groups together
    sample = np.cov(raw.T) / 400 / np.sqrt(np.outer(*[np.diag(data.covariance)] * 2))
    stated = data.covariance / np.sqrt(np.outer(*[np.diag(data.covariance)] * 2))
    alike = stated > 0
    # the sd of one entry is 1/sqrt(400), some more for skew runs; those of a group go together
    assert abs((sample - stated)[alike].mean()) < 5 * 1.5 / np.sqrt(400 * 25)
    assert abs((sample - stated)[~alike].mean()) < 5 / np.sqrt(400 * 25)
    names, counts = np.unique(data.raw["realisation"], return_counts=True)
    assert len(names) == 400 * 25
    assert set(counts) == {len(DP.grid["L"])}


def test_starts_are_wrong_by_what_was_asked():
    start = DP.start(1.3, 1.5)
    assert start["Tc"] == pytest.approx(1.8 + 0.1 * 0.12)
    assert start["c1"] == pytest.approx(1.3 * DP.truth["c1"])
    assert start["c2"] == pytest.approx(1.5 * DP.truth["c2"])
    assert SMEARED.start(1.2)["c3"] == pytest.approx(1.2 * 0.9)


def test_least_errors_are_those_of_a_fit_that_does_not_know_the_curve():
    """Against joint least squares in the parameters and the curve's coefficients, over draws.

    Linearised at the truth, with Legendre polynomials of arcsinh x instead of splines: degree 9
    follows the curve to 1e-3, a tenth of the noise. 400 draws give a spread to 3.5 %; 15 % is four
    of them.
    """
    data = draw(DP, 0)
    law, columns = data.law, data.table
    (x,) = law.arguments(columns, law.truth)
    u = np.arcsinh(x)
    modes = np.polynomial.legendre.legvander(u / np.abs(u).max(), 9)
    unknowns = law.scale(columns, law.truth)[:, None] * modes
    slopes = [
        (law.exact(columns, up) - law.exact(columns, down)) / 2e-6
        for up, down in (
            [{**law.truth, name: value + h} for h in (1e-6, -1e-6)]
            for name, value in law.truth.items()
        )
    ]
    design = np.concatenate([np.array(slopes), unknowns.T]) / columns["error"]
    noise = np.random.default_rng(1).standard_normal((len(x), 400))
    spread = np.linalg.lstsq(design.T, noise, rcond=None)[0][:3].std(axis=1)
    least = least_errors(data)
    assert spread == pytest.approx([least[name] for name in law.truth], rel=0.15)
    missed = np.linalg.lstsq(modes, law.master(x), rcond=None)[1]
    assert np.sqrt(missed / len(x)) < 1e-3

"""Convolutional networks and disorder in time: quick claims are whole, analysis finds known truth.

Synthetic decays have a fixed seed; comparisons ask for less than 4 standard errors.
"""

from __future__ import annotations

import numpy as np
import pytest

from depthscale.finite.lattice.lattice import Lattice
from depthscale.papers.absorbing import convolution, plots_convolution, weather
from depthscale.papers.absorbing.runs import Runs
from depthscale.papers.claims import VERDICTS
from depthscale.scaling.identify import identify

QUICK = Runs(quick=True)


@pytest.fixture(scope="module")
def claims():
    return [*convolution.convolutional_networks(QUICK), *weather.disorder_in_time(QUICK)]


def test_claims_are_whole(claims):
    assert len(claims) == 18
    assert len({(c.where, c.statement) for c in claims}) == len(claims)
    for claim in claims:
        assert claim.paper == "2307.02284"
        assert claim.verdict in VERDICTS
        assert claim.version in ("v2", "ours")
        assert claim.note
        assert " nan" not in claim.note
        assert "inf" not in claim.note.replace("infin", "")
    assert {c.where for c in claims if "dimensions" in c.where} == {
        "convolutional networks, two dimensions"
    }


def test_percolation_without_weather_does_not_drift(claims):
    clean = claims[-1]
    assert "without" in clean.statement
    assert clean.verdict == "refuted"
    _, found = weather.by_window(QUICK, False)[0]
    # corrections to scaling of windows from t = 10 are below .01, see the controls
    assert abs(found["delta"].value - convolution.DELTA) < 0.01 + 4 * found["delta"].error


def test_weather_scatters_between_histories_and_a_quiet_one_does_not():
    noisy, clean = (
        {w: run.density.std(axis=0)[-1] / run.mean[-1] for w, run in enumerate(found)}
        for found in (weather.decays(QUICK, True), weather.decays(QUICK, False))
    )
    assert min(noisy.values()) > 3 * max(clean.values())


@pytest.mark.parametrize("draw", ["windows", "decays", "local", "plane"])
def test_figures_are_drawn(draw, claims, tmp_path):
    path = tmp_path / f"{draw}.svg"
    getattr(plots_convolution, draw)(QUICK, path)
    assert path.stat().st_size > 10_000


# Analysis on known truth -------------------------------------------------------------------------


def decaying(decay, seed=3, networks=200, noise=0.1):
    """Decays ``decay(l) F((s - 1.8) l^.6)`` with noise in every network."""
    generator = np.random.default_rng(seed)
    depths = np.unique(np.geomspace(10, 800, 20).round())
    columns = {name: [] for name in ("depth", "sigma_w", "realisation", "rho")}
    for k, sigma in enumerate(np.linspace(1.75, 1.85, 7)):
        mean = decay(depths) * np.exp(8 * (sigma - 1.8) * (depths / 100) ** 0.6)
        factor = 1 + noise * generator.standard_normal((networks, len(depths)))
        columns["rho"].append((mean * factor).ravel())
        columns["depth"].append(np.tile(depths, networks))
        columns["sigma_w"].append(np.full(networks * len(depths), sigma))
        columns["realisation"].append(k * networks + np.repeat(np.arange(networks), len(depths)))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def in_windows(decay, windows=(convolution.WINDOWS[0], convolution.WINDOWS[-1])):
    table = decaying(decay)
    return [convolution._collapse(table, w, (1.7, 1.9), resamples=0) for w in windows]


def test_a_pure_power_is_the_same_in_all_windows():
    for found in in_windows(lambda depth: depth**-0.16):
        for name, truth in (("delta", 0.16), ("b", 0.6), ("s_c", 1.8)):
            assert abs(found[name].value - truth) < 4 * found[name].error
        assert found["delta"].error < 0.01
        values, covariance = convolution.exponents(found)
        assert values == {"delta": found["delta"].value, "1/nu_par": found["b"].value}
        np.testing.assert_allclose(
            np.sqrt(np.diag(covariance)), [found["delta"].error, found["b"].error]
        )
        assert np.linalg.eigvalsh(covariance).min() > 0


def test_windows_find_a_drift():
    """A power that is another one from layer 100 on: each window has its own, and its s_c."""
    early, late = in_windows(
        lambda depth: np.where(depth <= 100, depth**-0.27, 100**-0.18 * depth**-0.09),
        ((10, 100), (100, 800)),
    )
    for found, truth in ((early, 0.27), (late, 0.09)):
        assert abs(found["delta"].value - truth) < 4 * found["delta"].error < 0.05
        assert abs(found["s_c"].value - 1.8) < 4 * found["s_c"].error


def test_classes_that_change_from_window_to_window_are_none():
    pair = (convolution.DELTA, convolution.INVERSE_NU)
    covariance = np.diag([1e-4, 4e-4])

    def answer(last):
        return identify(
            windows=[
                (str(k), (dict(zip(("delta", "1/nu_par"), value, strict=True)), covariance))
                for k, value in enumerate((pair, last))
            ],
            dimension=1,
        ).allowed

    assert answer(pair) == ("directed percolation 1+1",)
    assert "directed percolation 1+1" not in answer((0.07, 0.28))


def test_slopes_of_known_powers():
    depths, generator = np.geomspace(5, 200, 12), np.random.default_rng(4)
    factor = generator.uniform(0.5, 1.5, (900, 1))
    exact = convolution._slope(depths, factor * depths**0.7, (5, 200))
    assert exact.value == pytest.approx(0.7)
    assert exact.error == pytest.approx(0, abs=1e-12)  # networks that differ by a factor only
    ratio = convolution._slope(depths, factor * depths**1.3, (5, 200), factor * depths**0.3)
    assert ratio.value == pytest.approx(1.0)
    broken = np.where(depths < 20, 1.0, depths**-0.5)[None] * np.ones((3, 1))
    assert convolution._slope(depths, broken, (20, 200)).value == pytest.approx(-0.5)


def test_errors_of_slopes_are_those_of_repeats():
    depths, generator = np.geomspace(5, 200, 12), np.random.default_rng(5)
    found = [
        convolution._slope(
            depths, depths**-0.2 * generator.gamma(4, 1 / 4, (200, len(depths))), (5, 200)
        )
        for _ in range(300)
    ]
    spread = np.std([one.value for one in found])
    # the spread of 300 repeats is known to 1/sqrt 600: four of these are a sixth
    assert np.mean([one.error for one in found]) == pytest.approx(spread, rel=1 / 6)


def test_realisations_are_numbered_through():
    runs = [
        Lattice("tanh", s, 0.3, channels=2, size=8).run(6, n, seed=n, progress=False)
        for s, n in ((1.5, 3), (1.7, 2))
    ]
    table = convolution.joined(runs)
    assert len(set(map(len, table.values()))) == 1
    np.testing.assert_array_equal(np.unique(table["realisation"]), np.arange(5))
    second = table["sigma_w"] == 1.7
    np.testing.assert_array_equal(np.unique(table["realisation"][second]), [3, 4])
    np.testing.assert_allclose(
        table["rho"][second].reshape(2, -1), runs[1].of("rho")[:, runs[1].depths > 0]
    )
    assert convolution.nearest(runs, 1.65) is runs[1]


def test_settings_are_those_of_the_full_run_or_a_part():
    full = Runs()
    assert convolution.some(full, convolution.SHARED) == convolution.SHARED
    assert set(convolution.some(QUICK, convolution.LOCAL)) < set(convolution.LOCAL)
    assert 1.425 in convolution.some(QUICK, convolution.LOCAL)
    assert convolution.windows_of(full, convolution.WINDOWS) == list(convolution.WINDOWS)
    assert len(convolution.windows_of(QUICK, convolution.WINDOWS)) == 2
    assert all(0 <= p - weather.SWING <= p + weather.SWING <= 1 for p in weather.CHANCES)

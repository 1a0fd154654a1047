"""Bands: which engine answers, and that the answer is that of exact networks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from depthscale.answers import InputError
from depthscale.finite.bands import correlation_band
from depthscale.finite.pairs import sample_pairs
from depthscale.theory.activation import activation
from depthscale.theory.meanfield import MeanField


def test_quantiles_are_those_of_sampled_pairs():
    """The share of exact networks below each quantile, within four standard errors."""
    nets, levels = 4000, np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    band = correlation_band("leaky_relu(0.3)", 64, 12, 0.9, levels=levels)
    pairs = sample_pairs(
        [MeanField(activation("leaky_relu(0.3)"), 1.0)] * 12,
        [64] * 13,
        1,
        1,
        0.9,
        nets=nets,
        seed=7,
    )
    below = (1 - pairs.eps[:, [1, 6, 12], None] < band.rho[[1, 6, 12]]).mean(axis=0)
    assert np.all(np.abs(below - levels) < 4 * np.sqrt(levels * (1 - levels) / nets) + 0.002)
    assert band.engine == "chain"


def test_referee_holds_it_against_exact_networks():
    band = correlation_band("relu", 64, 8, 1.0, networks=3000, referee=True)
    referee = band.referee
    assert referee is not None
    assert referee.layers == (2, 4, 8)
    assert referee.noise == pytest.approx(1.358 / np.sqrt(3000))
    assert max(referee.distance) < 1.95 / np.sqrt(3000) + 0.002
    assert "3000 exact networks" in str(band)
    other = correlation_band("tanh", 64, 4, 1.0, q0=0.5, networks=3000, referee=True).referee
    assert other is not None
    assert other.noise == pytest.approx(1.358 * np.sqrt(2 / 3000))
    assert max(other.distance) < 1.95 * np.sqrt(2 / 3000) + 0.004


ENGINES = [
    ({"activation": "relu"}, "chain", "two slopes"),
    ({"activation": "relu", "start": "inputs", "measured": False}, "chain", "two slopes"),
    ({"activation": "tanh", "q0": 0.5}, "chain paths", "three numbers"),
    ({"activation": "relu", "drop": 0.2, "width": 128}, "chain paths", "three numbers"),
    ({"activation": "relu", "width": [8, 64, 64]}, "ensemble", "narrower than 16"),
    ({"activation": "relu", "sigma_w": 1.3, "sigma_b": 0.2}, "ensemble", "lengths"),
    ({"activation": "tanh", "q0": 0.5, "start": "pinned"}, "ensemble", "start='drawn'"),
    ({"activation": "tanh", "sigma_w": 1.0, "q0": 1.0}, "ensemble", "settle"),
    ({"activation": "relu", "engine": "ensemble"}, "ensemble", "asked for"),
    ({"activation": "relu", "engine": "chain paths"}, "chain paths", "asked for"),
]


@pytest.mark.parametrize(("request_", "engine", "why"), ENGINES)
def test_the_best_engine_that_holds_is_taken_and_says_why(request_, engine, why):
    band = correlation_band(**{"width": 64, "depth": 2, "eps0": 0.5, "networks": 300} | request_)
    assert band.engine == engine
    assert why in band.why
    assert band.why in str(band)
    assert band.rho.shape == band.eps.shape == band.rho_error.shape == (3, 5)
    assert np.all(np.diff(band.rho) >= 0)
    np.testing.assert_allclose(band.eps, 1 - band.rho, atol=1e-15)
    assert np.all(np.isfinite(band.rho_error))


def test_networks_that_have_become_one_line_count():
    """Behind a ReLU layer of two units of which one is off in both signals they are equal: eps = 0.

    They have not exploded: they belong to every mean, with a correlation of 1.
    """
    law = correlation_band("relu", 2, 3, 1.0, networks=400, seed=3).law
    lines = np.isposinf(law.u[3]).mean()
    assert lines > 0.1
    assert np.all(law.escaped.value == 0)
    assert law.mean("rho").value[3] == pytest.approx(np.tanh(law.u[3]).mean(), rel=1e-12)
    assert law.cdf([0.0], "eps").value[3, 0] == pytest.approx(lines)
    assert law.sd("rho").value[3] == pytest.approx(np.tanh(law.u[3]).std(), rel=1e-12)
    assert law.mean("z").value[3] == np.inf


def test_misalignment_keeps_its_digits():
    band = correlation_band("relu", 100, 6, 1e-40)
    assert np.all((band.eps > 1e-41) & (band.eps < 1e-39))
    assert np.all(band.rho == 1)
    assert np.all(band.eps_error < 0.01 * band.eps)


def test_errors_cover_what_the_expansion_leaves_out():
    """At n = 16, against the same networks sampled: four standard errors and the stated error."""
    nets, levels = 6000, np.array([0.25, 0.5, 0.75])
    band = correlation_band("leaky_relu(0.3)", 16, 8, 1.0, levels=levels)
    exact = correlation_band(
        "leaky_relu(0.3)", 16, 8, 1.0, levels=levels, engine="ensemble", networks=nets
    )
    assert np.all(np.abs(band.rho - exact.rho) < 4 * exact.rho_error + band.rho_error)
    # the error falls with the width as 1/n^2 at least
    wide = correlation_band("leaky_relu(0.3)", 64, 8, 1.0, levels=levels)
    assert wide.rho_error[8].max() < band.rho_error[8].max() / 8


def test_records_are_plain_and_named():
    band = correlation_band("relu", [64, 80, 96], 2, 0.5, networks=500, referee=True)
    record = json.loads(json.dumps(band.to_dict()))
    assert record["engine"] == "chain"
    assert record["widths"] == [64, 80, 96]
    assert len(record["rho"]) == 3
    assert record["referee"]["networks"] == 500
    data = band.to_xarray()
    assert data["rho"].dims == ("layer", "level")
    assert data["width"].values.tolist() == [64, 80, 96]
    assert data.attrs["engine"] == "chain"


BROKEN = [
    ({"eps0": 2.1}, "between 0"),
    ({"eps0": -0.1}, "between 0"),
    ({"eps0": float("nan")}, "between 0"),
    ({"eps0": "half"}, "number"),
    ({"width": 1}, "at least 2"),
    ({"width": float("nan")}, "whole number"),
    ({"width": [64, 64]}, "2 widths for depth 4"),
    ({"depth": 0}, "at least 1"),
    ({"depth": float("inf")}, "whole number"),
    ({"levels": [0.0, 0.5]}, "probabilities"),
    ({"levels": []}, "probabilities"),
    ({"engine": "magic"}, "chain paths"),
    ({"start": "here"}, "pinned"),
    ({"networks": 1}, "networks"),
    ({"seed": -1}, "seed"),
    ({"activation": "tanh"}, "give sigma_b or the length q0"),
    ({"activation": "tanh", "q0": 0.5, "engine": "chain"}, "two slopes"),
    ({"sigma_b": 0.1}, "scale-free"),
    ({"measured": False, "engine": "ensemble"}, "covariance"),
    ({"measured": False, "referee": True}, "measured=True"),
    ({"sigma_w": 1.3, "sigma_b": 0.2, "measured": False}, "measured=True"),
]


@pytest.mark.parametrize(("broken", "message"), BROKEN)
def test_bad_requests_say_what_is_expected(broken, message):
    request = {"activation": "relu", "width": 64, "depth": 4, "eps0": 1.0} | broken
    with pytest.raises(InputError, match=message):
        correlation_band(**request)

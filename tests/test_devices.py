"""The route of accelerators: the same arithmetic in torch alone, here on the processor.

No accelerator is at hand where these tests run; what differs on one, but for its own random
numbers, is that numpy does not work on its memory.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthscale.answers import InputError
from depthscale.finite import columns, pointwise
from depthscale.finite.ensemble import Ensemble, Pair

VECTORS = np.random.default_rng(3).standard_normal((7, 40))
CASES = {
    "pair": (Ensemble("tanh", 1.5, 0.2, width=40, depth=6, drop=0.1), Pair(0.3)),
    "close pair": (Ensemble("gelu", 1.5, 0.2, width=40, depth=6), Pair(1e-20)),
    "three": (Ensemble("relu", 1.5, 0.0, width=40, depth=6, drop=0.1), VECTORS[:3]),
    "seven": (Ensemble("erf", 1.5, 0.2, width=40, depth=6, masks="shared", drop=0.2), VECTORS),
    "equal": (Ensemble("tanh", 1.5, 0.0, width=40, depth=6), VECTORS[[0, 1, 1]]),
    "branch": (Ensemble("tanh", 1.5, 0.2, width=40, depth=6, skip=0.5), Pair(0.3)),
    "orthogonal": (Ensemble("tanh", 1.5, 0.2, width=40, depth=6, weights="orthogonal"), Pair(0.3)),
}


@pytest.mark.parametrize("name", CASES)
def test_torch_alone_gives_the_same_networks(name, monkeypatch):
    networks, inputs = CASES[name]

    def run():
        return networks.backward(
            "readout", inputs, 12, seed=2, keep=True, precision="double", observe=("ntk", "units")
        )

    expected = run()
    asked = []
    for module in (columns, pointwise):
        monkeypatch.setattr(module, "on_host", lambda tensor: bool(asked.append(tensor)))
    found = run()
    assert len(asked) > 20
    for observable in found.names:
        scale = np.abs(expected.values(observable)).max()
        np.testing.assert_allclose(
            found.values(observable),
            expected.values(observable),
            rtol=1e-7,
            atol=1e-30 if "eps" in observable else 1e-12 * scale,
            err_msg=observable,
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(InputError, match="no CUDA device here; expected cpu or cuda"):
        CASES["pair"][0].forward(Pair(0.3), 4, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is there")
def test_an_accelerator_has_the_same_law():
    """Means of 4,000 networks each; five errors of their difference, one in two million a test."""
    networks, inputs = CASES["pair"]
    host, device = (
        networks.backward("readout", inputs, 4000, seed=5, device=name) for name in ("cpu", "cuda")
    )
    for observable in host.names:
        difference = host.statistic(observable, "mean_log") - device.statistic(
            observable, "mean_log"
        )
        errors = (host.statistic(observable, s) for s in ("sem_mean_log",) * 2)
        assert np.nanmax(np.abs(difference) - 5 * np.hypot(*errors)) <= 0, observable

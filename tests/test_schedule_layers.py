"""Schedules in networks whose layers differ, have branches, or have no site of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from depthscale.answers import InputError
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.practice.schedule import Budget, Schedule
from depthscale.practice.schedules.objectives import SENSE, Landscape
from depthscale.practice.schedules.optimise import evaluate_schedule, optimise_network
from depthscale.practice.schedules.recursion import Recursion
from depthscale.theory.meanfield import MeanField, propagate

RNG = np.random.default_rng(0)
DEPTH = 12


def chain(name: str, skip: float = 0.0, masks: str = "independent", **own) -> list[MeanField]:
    """Layers of an activation with weights, biases and, if any, branches of their own."""
    bias = 0.0 if own.get("free") else 0.3
    return [
        MeanField(name, sigma_w=w, sigma_b=bias * b, masks=masks, skip=skip * (0.5 + b), drop=0.05)
        for w, b in zip(RNG.uniform(1.1, 1.5, DEPTH), RNG.uniform(0.5, 1, DEPTH), strict=True)
    ]


CHAINS = {
    "tanh": chain("tanh"),
    "hardtanh": chain("hardtanh"),
    "relu": chain("relu", free=True),
    "relu, bias": chain("relu"),
    "tanh, units of branches": chain("tanh", skip=0.6),
    "tanh, whole branches": chain("tanh", skip=0.6, masks="layers"),
    "relu, branches": chain("relu", skip=0.7, free=True),
    "relu, whole branches": chain("relu", skip=0.7, masks="layers", free=True),
}
SITES = {"every": None, "some": [0, 3, 4, 9], "none at first": [5, 11]}


@pytest.mark.parametrize("sites", SITES)
@pytest.mark.parametrize("name", CHAINS)
def test_layers_that_differ_follow_their_own_maps(name, sites):
    layers, places = CHAINS[name], SITES[sites]
    rates = RNG.uniform(0.05, 0.3, DEPTH if places is None else len(places))
    every = np.zeros(DEPTH)
    every[slice(None) if places is None else places] = rates
    recursion = Recursion(layers, rates.size, 0.3, q0=1.3, sites=places)
    steps = recursion.follow(rates[None], (0.0, 0.5))
    slopes, factors = recursion.slopes(steps)[:, 0], recursion.factors(steps)[0][:, 0]
    with_rates = [replace(n, drop=p) for n, p in zip(layers, every, strict=True)]
    q = 1.0 if recursion.free else 1.3
    path = propagate(with_rates, [q] * 2, [q] * 2, [0.0, 0.5])
    assert steps.eps[:, 0] == pytest.approx(path.eps, rel=1e-9, abs=1e-15)
    assert np.exp(factors) == pytest.approx(path.gradient_factor[:, 0], rel=1e-9)
    if not recursion.free:
        assert steps.q[:, 0] == pytest.approx(path.q1[:-1, 0], rel=1e-10)
    states = zip(with_rates, path.q1, path.eps, strict=False)
    expected = [n.gap_slope(a, a, e) for n, a, e in states]
    assert slopes == pytest.approx(np.array(expected), rel=1e-8)


@pytest.mark.parametrize("of", ["drop", "field"])
@pytest.mark.parametrize("name", CHAINS)
def test_their_gradients_are_finite_differences(name, of):
    places = [0, 3, 4, 9]
    scene = Landscape(CHAINS[name], 4, 0.1, 0.3, kind=of, q0=1.3, sites=places)
    x, along = RNG.uniform(0.05, 0.25, (2, 4)), RNG.normal(size=(2, 4))
    assert scene.names == [n for n in SENSE if n not in ("xi", "reach")]
    for objective in scene.names:
        up, down = (scene.losses(objective, x + s * 1e-5 * along) for s in (1, -1))
        exact = scene.gradients(objective, x)
        size = np.linalg.norm(exact, axis=1) * np.linalg.norm(along, axis=1) + 1
        assert np.all(abs((up - down) / 2e-5 - (exact * along).sum(1)) < 3e-6 * size), objective


@pytest.mark.parametrize("name", ["relu", "tanh", "hardtanh"])
@pytest.mark.parametrize("shape", ["front", "back", "even", "one", "random"])
def test_all_layers_at_once_are_those_one_by_one(name, shape):
    network, depth = MeanField(name, 1.3, 0.0 if name == "relu" else 0.3), 300
    x = np.zeros((3, depth))
    x[:, {"front": slice(150), "back": slice(150, None), "even": slice(None, None, 2),
          "one": slice(77, 78), "random": RNG.random(depth) < 0.5}[shape]] = 0.2  # fmt: skip
    recursion = Recursion(network, depth, 0.2)
    rows = recursion.layers.scattered(x)
    at_once, one_by_one = (f(rows, (0.0, 0.5)) for f in (recursion._solve, recursion._march))
    assert at_once.q == pytest.approx(one_by_one.q, rel=1e-13)
    assert at_once.eps == pytest.approx(one_by_one.eps, rel=1e-10, abs=1e-200)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_a_rough_table_is_good_to_six_digits(name):
    network = MeanField(name, 1.3, 0.0 if name == "relu" else 0.3)
    scene = Landscape(network, 300, 0.1, 0.2)
    x = Budget(mean=0.1, cap=0.2).project(RNG.uniform(0, 0.2, (70, 300)))
    fine, rough = scene.table(x, scene.names), scene.rough().table(x, scene.names)
    for objective in scene.names:
        assert rough[objective] == pytest.approx(fine[objective], rel=3e-5), objective


@pytest.mark.parametrize("name", ["tanh", "relu", "tanh, units of branches"])
def test_wide_networks_do_as_the_recursion_says(name):
    layers, rates = CHAINS[name][:6], [0.2, 0.0, 0.1, 0.3, 0.0, 0.1]
    dropping = [replace(n, drop=p) for n, p in zip(layers, rates, strict=True)]
    eps = Recursion(layers, 6, 0.3, q0=1.0).follow([rates], (0.5,)).eps[:, 0, 0]
    networks = Ensemble.of(dropping, [2048] * 7)
    run = networks.forward(Pair(eps=0.5, start="drawn"), nets=256, seed=1)
    # 1/width is about 5e-4, and corrections are that times a few
    assert run.mean("eps")[0] == pytest.approx(eps, abs=4 * float(run.sem("eps").max()) + 2e-3)


def test_optima_of_layers_that_differ():
    layers, places = CHAINS["tanh"], [1, 2, 5, 8, 10]
    budget = Budget(mean=0.08, cap=0.2)
    grid = np.array(np.meshgrid(*[range(6)] * 5)).reshape(5, -1).T
    grid = grid[grid.sum(axis=1) == 10] * 0.04
    scene = Landscape(layers, 5, 0.08, 0.2, q0=1.3, sites=places)
    for objective in scene.names:
        found = optimise_network(layers, 5, budget, objective, permutations=5, q0=1.3, sites=places)
        losses = scene.losses(objective, np.array([found.schedule.rates, *grid]))
        assert losses[0] <= losses[1:].min() + 1e-12
        assert set(found.objectives) == set(scene.names)
    given = evaluate_schedule(layers, Schedule([0.1] * 5), permutations=3, q0=1.3, sites=places)
    assert given.objectives["noise"].surrogate is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recursion(CHAINS["tanh"], 11, 0.2), "11 sites are at"),
        (lambda: Recursion(CHAINS["tanh"], 2, 0.2, sites=[3, 3]), "in order"),
        (lambda: Recursion(CHAINS["tanh"], 2, 0.2, sites=[3, 12]), "of 12 layers"),
        (lambda: Recursion(CHAINS["tanh"][:1] + CHAINS["relu"][:1], 2, 0.2), "tanh and relu"),
        (lambda: Recursion([], 1, 0.2), "of 0 layers"),
        (lambda: Recursion(CHAINS["tanh"], 12, 0.2, q0=-1.0), "expected a positive one"),
        (lambda: Landscape(CHAINS["tanh"], 12, 0.1, 0.2).values("xi", [[0.1] * 12]), "differ"),
        (
            lambda: optimise_network(CHAINS["tanh"], 12, Budget(mean=0.1, cap=0.2), "reach"),
            "differ",
        ),
    ],
)  # fmt: skip
def test_bad_layers(make, message):
    with pytest.raises(InputError, match=message):
        make()

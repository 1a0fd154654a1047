"""Simulated percolation against exact laws: enumeration, random walks, duality, master equations.

Statistical comparisons have fixed seeds. Those of single numbers ask for less than 4 standard
errors (one in 16,000 of the right law fails), chi-squares for a probability above 1e-4; there are
about 150 and 20 of them, so that a right simulator with other seeds fails somewhere once in 80.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.random import SeedSequence
from scipy.linalg import expm
from scipy.special import comb
from scipy.stats import chisquare

from depthscale.answers import InputError
from depthscale.scaling.percolation import (
    THRESHOLDS,
    Automaton,
    ContactProcess,
    contact,
    decay,
    directed_percolation,
    domany_kinzel,
    joined,
    spaced_times,
    spread,
)
from depthscale.scaling.percolation.coins import BITS, Coins, Stream
from depthscale.scaling.percolation.dense import histories

SIGMAS = 4


def assert_near(found, expected, error):
    off = np.abs(np.asarray(found) - expected)
    assert np.all(off <= SIGMAS * np.asarray(error) + 1e-12), (found, expected, error)


# Random bits -------------------------------------------------------------------------------------

CHANCES = [(0.644700185, 0.873762), (0.01,), (0.5, 1.0, 0.0), (0.999, 1 / 3), (0.9, 0.2, 0.55)]


@pytest.mark.parametrize("chances", CHANCES)
@pytest.mark.parametrize("planes", [None, 0, 5, 24])
def test_coins_fall_with_their_chances(chances, planes):
    words = Coins(chances, planes).toss(Stream.of(SeedSequence(3)), 20_000)
    shares = np.bitwise_count(words).sum(axis=1) / (BITS * words.shape[1])
    errors = [math.sqrt(p * (1 - p) / (BITS * words.shape[1])) for p in chances]
    assert_near(shares, chances, errors)


def test_coins_of_other_places_and_words_are_independent():
    (words,) = Coins((0.7,), planes=3).toss(Stream.of(SeedSequence(5)), 20_000)
    bits = (words[:, None] >> np.arange(BITS, dtype=np.uint64) & np.uint64(1)).astype(float) - 0.7
    scale = 0.7 * 0.3 / math.sqrt(bits.size)
    for shift in ((0, 1), (1, 0), (1, 1), (0, 7), (2, 3)):
        assert abs((bits * np.roll(bits, shift, axis=(0, 1))).mean()) < SIGMAS * scale
    # each place alone: 64 frequencies
    expected = 0.7 * len(words)
    spread = ((bits + 0.7).sum(axis=0) - expected) ** 2 / (0.7 * 0.3 * len(words))
    assert abs(spread.sum() - BITS) < SIGMAS * math.sqrt(2 * BITS)


# Enumeration -------------------------------------------------------------------------------------


def transition(parents, chances):
    """The matrix ``[from, to]`` of all states of a small lattice, from lists of parents."""
    sites = len(parents)
    states = np.array(list(itertools.product([0, 1], repeat=sites)))
    table = np.array([0.0, *chances])
    active = table[states[:, parents].sum(axis=2)]
    matrix = np.ones((len(states), len(states)))
    for site in range(sites):
        up = active[:, site][:, None]
        matrix *= np.where(states[:, site] == 1, up, 1 - up)
    return states, matrix


RING = [[x, (x + 1) % 4] for x in range(4)]
TORUS = list(itertools.product(range(2), repeat=2))
BCC = [list(range(4))] * 4  # on a torus of 2 x 2 every site is a parent of every other
CUBIC = [[2 * x + y, 2 * x + 1 - y, 2 * (1 - x) + y] for x, y in TORUS]

SMALL = [
    (directed_percolation(0.62), 4, RING),
    (directed_percolation(0.71, "site"), 4, RING),
    (domany_kinzel(0.5, 1.0), 4, RING),
    (domany_kinzel(0.8, 0.1), 4, RING),  # more active parents are less: no percolation
    (directed_percolation(0.29, "bond", "bcc"), 2, BCC),
    (directed_percolation(0.6, "site", "bcc"), 2, BCC),
    (directed_percolation(0.4, "bond", "cubic"), 2, CUBIC),
    (Automaton("three of them", "cubic", (0.2, 0.0, 0.9)), 2, CUBIC),
]


@pytest.mark.parametrize(("automaton", "length", "parents"), SMALL)
@pytest.mark.parametrize("start", ["full", "half"])
def test_small_lattices_are_enumerated(automaton, length, parents, start):
    sites = len(parents)
    states, matrix = transition(parents, automaton.chances)
    law = np.zeros(2**sites)
    law[-1] = 1.0
    if start == "half":
        law[:] = 2.0**-sites
    times = [1, 2, 3]
    run = decay(automaton, length, times, 20_000, seed=11, start=start)
    for k in range(3):
        law = law @ matrix
        expected = np.bincount(states.sum(axis=1), weights=law, minlength=sites + 1)
        numbers = (run.density[:, k] * sites).round().astype(int)
        seen = np.bincount(numbers, minlength=sites + 1)
        assert np.all(seen[expected < 1e-12] == 0)
        likely = expected * 20_000 > 5
        if likely.sum() > 1:
            share = expected[likely] / expected[likely].sum()
            assert chisquare(seen[likely], share * seen[likely].sum()).pvalue > 1e-4


@pytest.mark.parametrize("automaton", [directed_percolation(0.62), domany_kinzel(0.4, 0.9)])
def test_spreading_is_enumerated(automaton):
    """Three steps on a ring of 5 do not meet behind it."""
    parents = [[x, (x + 1) % 5] for x in range(5)]
    states, matrix = transition(parents, automaton.chances)
    law = (states.sum(axis=1) == 1) & (states[:, 3] == 1)
    run = spread(automaton, [1, 2, 3], 20_000, seed=2)
    for k in range(3):
        law = law @ matrix
        expected = np.bincount(states.sum(axis=1), weights=law, minlength=6)
        seen = np.bincount(run.number[:, k].astype(int), minlength=6)
        assert np.all(seen[expected == 0] == 0)
        likely = expected * 20_000 > 5
        share = expected[likely] / expected[likely].sum()
        assert chisquare(seen[likely], share * seen[likely].sum()).pvalue > 1e-4


# Weather -----------------------------------------------------------------------------------------

WEATHERS = [
    (directed_percolation(0.45), directed_percolation(0.8), 3, [[0, 1], [1, 2], [2, 0]]),
    (domany_kinzel(0.8, 0.3), domany_kinzel(0.4, 1.0), 3, [[0, 1], [1, 2], [2, 0]]),
    (directed_percolation(0.3, "site", "bcc"), directed_percolation(0.9, "site", "bcc"), 2, BCC),
]


@pytest.mark.parametrize(("automaton", "weather", "length", "parents"), WEATHERS)
def test_one_realisation_under_weather_has_the_mean_of_both_steps(
    automaton, weather, length, parents
):
    """Alone it follows the chain whose matrix is the average; one of each block, for independence.

    A first step from a full lattice has the mean of both models' means.
    """
    sites = len(parents)
    states, first = transition(parents, automaton.chances)
    _, second = transition(parents, weather.chances)
    times, blocks = [1, 2, 3], 512
    run = decay(automaton, length, times, BITS * blocks, seed=31, weather=weather)
    law = np.zeros(2**sites)
    law[-1] = 1.0
    for k in range(3):
        law = law @ (first + second) / 2
        expected = np.bincount(states.sum(axis=1), weights=law, minlength=sites + 1)
        numbers = (run.density[k::BITS, k] * sites).round().astype(int)
        seen = np.bincount(numbers, minlength=sites + 1)
        likely = expected * blocks > 5
        assert np.all(seen[expected < 1e-12] == 0)
        share = expected[likely] / expected[likely].sum()
        assert chisquare(seen[likely], share * seen[likely].sum()).pvalue > 1e-4
    means = run.blocks(BITS)
    both = (automaton.chances[-1] + weather.chances[-1]) / 2
    assert_near(means.mean[0], both, means.error[0])


@pytest.mark.parametrize(("automaton", "weather", "length", "parents"), WEATHERS)
def test_all_realisations_of_a_block_share_the_weather(automaton, weather, length, parents):
    """The pair of two of them follows the average of the products, their mean scatters by it."""
    sites, blocks = len(parents), 512
    states, first = transition(parents, automaton.chances)
    _, second = transition(parents, weather.chances)
    pair = (np.kron(first, first) + np.kron(second, second)) / 2
    number = states.sum(axis=1) / sites
    run = decay(automaton, length, [1, 2, 3], BITS * blocks, seed=32, weather=weather)
    law = np.zeros(4**sites)
    law[-1] = 1.0
    for k in range(3):
        law = law @ pair
        joint = law.reshape(2**sites, 2**sites)
        one = joint.sum(axis=1)
        variance = one @ number**2 - (one @ number) ** 2
        covariance = number @ joint @ number - (one @ number) ** 2
        lanes = run.density[:, k].reshape(blocks, BITS) - one @ number
        # of the sum over pairs of different realisations, by its block
        pairs = (lanes.sum(axis=1) ** 2 - (lanes**2).sum(axis=1)) / (BITS * (BITS - 1))
        assert covariance > 0.1 * variance
        assert_near(pairs.mean(), covariance, pairs.std() / math.sqrt(blocks))
        # and none between blocks
        means = lanes.mean(axis=1)
        apart = means[1:] * means[:-1]
        assert_near(apart.mean(), 0, apart.std() / math.sqrt(blocks - 1))


def test_weather_repeats_and_that_of_the_same_model_is_none():
    model, times = directed_percolation(0.6), [1, 5, 30]
    wet = directed_percolation(0.75)
    many = decay(model, 50, times, 200, seed=33, weather=wet)
    again = decay(model, 50, times, 200, seed=33, weather=wet, workers=2)
    np.testing.assert_array_equal(many.density, again.density)
    np.testing.assert_array_equal(
        many.density[:70], decay(model, 50, times, 70, 33, weather=wet).density
    )
    # by law, not by bits: 2,000 realisations that no weather ties together
    same, none = (
        decay(model, 50, times, 2000, seed=seed, weather=other)
        for seed, other in ((34, model), (35, None))
    )
    assert_near(same.mean, none.mean, np.hypot(same.error, none.error))


@pytest.mark.parametrize(
    ("automaton", "weather"),
    [
        (directed_percolation(), 0.7),
        (directed_percolation(), "rain"),
        (directed_percolation(), directed_percolation(0.7, "site")),
        (directed_percolation(lattice="bcc"), directed_percolation(lattice="cubic")),
        (directed_percolation(), directed_percolation(0.0)),
        (domany_kinzel(0.0, 0.5), domany_kinzel(0.5, 0.0)),
        # as many different chances, for other numbers of active parents
        (Automaton("a", "cubic", (0.2, 0.2, 0.5)), Automaton("b", "cubic", (0.2, 0.5, 0.5))),
        (Automaton("a", "cubic", (0.2, 0.5, 0.2)), Automaton("b", "cubic", (0.2, 0.2, 0.5))),
    ],
)
def test_models_whose_steps_cannot_take_turns_are_refused(automaton, weather):
    with pytest.raises(InputError, match="weather is"):
        decay(automaton, 10, [1], weather=weather)


# Exact laws --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lattice", ["square", "bcc", "cubic"])
@pytest.mark.parametrize("kind", ["bond", "site"])
def test_time_runs_both_ways(kind, lattice):
    """Paths read backwards: who has an ancestor is as likely as who has a descendant.

    ``rho(t) = P(t)`` for bonds, ``rho(t + 1) = p P(t)`` for sites, of which the last one counts
    as well. It holds two simulators against each other, lists of sites and words of bits.
    """
    model = directed_percolation(None, kind, lattice)
    times, later = np.array([1, 2, 5, 16]), int(kind == "site")
    one = spread(model, times, 8192, seed=4)
    all_ = decay(model, 1024 if lattice == "square" else 48, times + later, 64, seed=5)
    factor = model.p if kind == "site" else 1.0
    survival, error = one.survival
    assert_near(factor * survival, all_.mean, np.hypot(factor * error, all_.error))


def walk_survival(times):
    """Of the width of a compact cluster: a walk of 2t steps that starts 2 away from its trap."""
    times = np.asarray(times)
    return comb(2 * times + 1, times) / 4.0**times


def test_compact_clusters_are_random_walks():
    model, times = domany_kinzel(0.5, 1.0), np.array([1, 3, 10, 50, 200])
    one = spread(model, times, 8192, seed=6)
    survival, _ = one.survival
    expected = walk_survival(times)
    assert_near(survival, expected, np.sqrt(expected * (1 - expected) / 8192))
    number, error = one.activity
    assert_near(number, 1.0, error)  # a fair game
    half = decay(model, 1000, times, 64, seed=7, start="half", observed="walls")
    assert_near(half.mean, expected / 2, half.error)
    assert_near(decay(model, 1000, times, 64, 8, start="half").mean, 0.5, 0.5 / math.sqrt(8000))


def test_certain_chances():
    full = decay(directed_percolation(1.0), 65, [0, 7], 3)
    np.testing.assert_array_equal(full.density, 1)
    dead = decay(directed_percolation(0.0), 65, [0, 1, 7], 3)
    np.testing.assert_array_equal(dead.density, [[1, 0, 0]] * 3)
    cone = spread(directed_percolation(1.0, "site", "cubic"), [0, 1, 4], 3)
    np.testing.assert_array_equal(cone.number, [[1, 3, 15]] * 3)
    # three places around their middle, 1/sqrt 3 away each
    np.testing.assert_allclose(cone.distance[0][:2], [0, 1 / 3])
    gone = spread(directed_percolation(0.0), [0, 1], 3)
    assert np.isnan(gone.distance[0][1])
    np.testing.assert_array_equal(gone.survival[0], [1, 0])


def test_distance_of_free_walks():
    """Site percolation with p = 1 fills the cone evenly: R^2 = t (t + 2)/12."""
    run = spread(directed_percolation(1.0), [5, 40], 2)
    np.testing.assert_allclose(run.distance[0], [5 * 7 / 12, 40 * 42 / 12])


def test_critical_decay_is_flat():
    """``rho t^delta`` of bonds in 1+1 from t = 8 to 1024: corrections are 1 % there."""
    times = 2 ** np.arange(3, 11)
    run = decay(directed_percolation(), 4096, times, 64, seed=1)
    flat = run.mean * times**0.159464
    assert np.all(np.abs(flat / flat.mean() - 1) < 0.01 + SIGMAS * run.error / run.mean)


def test_decay_is_exponential_below_the_threshold():
    run = decay(directed_percolation(0.4), 4096, np.arange(1, 25), 256, seed=9)
    assert np.all(run.mean[1:] <= 0.8 * run.mean[:-1])  # two parents, so at most 2p of them
    slopes = np.diff(np.log(run.mean[[11, 15, 19, 23]]))
    # sampling errors at t = 24 are a hundredth, the power before the exponential turns slowly
    assert np.ptp(slopes) < 0.15 * abs(slopes.mean())


def test_known_thresholds_divide_growth_from_death():
    """Ten percent around each threshold, survival to t = 100 differs by a factor above 5."""
    for kind, lattice in THRESHOLDS:
        p = THRESHOLDS[kind, lattice].p
        low, high = (
            spread(directed_percolation(f * p, kind, lattice), [100], 512, 1).survival[0][0]
            for f in (0.9, 1.05)
        )
        assert high > 5 * low + 0.1


# Reproducible ------------------------------------------------------------------------------------


def test_what_is_computed_together_changes_nothing():
    model, times = directed_percolation(), [3, 40]
    many = decay(model, 50, times, 500, seed=12)
    np.testing.assert_array_equal(many.density, decay(model, 50, times, 500, 12, workers=2).density)
    np.testing.assert_array_equal(many.density[:70], decay(model, 50, times, 70, 12).density)
    alone = histories(
        [SeedSequence(12, spawn_key=(3,))], model, 50, np.array(times), "full", "active"
    )
    np.testing.assert_array_equal(many.density[192:256], alone)
    assert not np.array_equal(many.density, decay(model, 50, times, 500, seed=13).density)
    assert not np.array_equal(many.density[:64], many.density[64:128])


def test_spreading_and_contact_repeat():
    one = spread(directed_percolation(), [10, 30], 1100, seed=3)
    two = spread(directed_percolation(), [10, 30], 1100, seed=3, workers=2)
    np.testing.assert_array_equal(one.number, two.number)
    np.testing.assert_array_equal(
        one.number[:9], spread(directed_percolation(), [10, 30], 9, 3).number
    )
    process = ContactProcess(1.0, 30)
    np.testing.assert_array_equal(
        contact(process, [1, 5], 300, 2).density[:10], contact(process, [1, 5], 10, 2).density
    )


# Contact process ---------------------------------------------------------------------------------


def generator(rate, sites):
    n = np.arange(sites + 1)
    up, down = rate * n * (1 - n / sites), n.astype(float)
    return np.diag(-up - down) + np.diag(up[:-1], 1) + np.diag(down[1:], -1)


@pytest.mark.parametrize(("rate", "sites"), [(1.0, 1), (1.0, 2), (0.5, 40), (3.0, 40), (1.0, 300)])
@pytest.mark.parametrize("first", [None, 1])
def test_master_equation_is_that_of_a_matrix_exponential(rate, sites, first):
    times = [0.0, 0.02, 1.0, 15.0, 200.0]
    found = ContactProcess(rate, sites).probabilities(times, first)
    for row, time in zip(found, times, strict=True):
        exact = expm(generator(rate, sites) * time)[sites if first is None else 1]
        # two contours agree to 1e-10, and each of four steps may add that
        np.testing.assert_allclose(row, exact, atol=4e-10)


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.4])
def test_events_follow_the_master_equation(rate):
    process, times = ContactProcess(rate, 100), [0.5, 2.0, 10.0, 30.0]
    run = contact(process, times, 2048, seed=21)
    assert_near(run.mean, process.density(times), run.error)
    alive = process.survival(times)
    assert_near((run.density > 0).mean(axis=0), alive, np.sqrt(alive * (1 - alive) / 2048))
    law = process.probabilities(times)[2]
    seen = np.bincount((run.density[:, 2] * 100).round().astype(int), minlength=101)
    likely = law * 2048 > 5
    share = law[likely] / law[likely].sum()
    assert chisquare(seen[likely], share * seen[likely].sum()).pvalue > 1e-4


def test_finite_size_law_of_mean_field():
    """``rho N^1/2`` is a function of ``t/N^1/2``: differences fall as ``N^-1/2``."""
    scaled = []
    for sites in (256, 1024, 4096):
        root = math.sqrt(sites)
        scaled.append(ContactProcess(1.0, sites).density(np.array([0.5, 1, 2, 4]) * root) * root)
    first, second = np.abs(scaled[0] - scaled[1]), np.abs(scaled[1] - scaled[2])
    np.testing.assert_allclose(first / second, 2, atol=0.25)
    # full lattices follow 1/(1 + t), not 1/t, until t = N^1/2: 1/32 at t = N^1/2/2
    np.testing.assert_allclose(scaled[2], scaled[1], rtol=0.04)


# Records -----------------------------------------------------------------------------------------


def test_records_are_tables_and_data_sets():
    run = decay(directed_percolation(0.6), 20, [1, 2, 4], 8, seed=1)
    table = run.table()
    assert {name: len(column) for name, column in table.items()} == dict.fromkeys(
        ("t", "L", "p", "rho", "realisation"), 24
    )
    np.testing.assert_array_equal(table["rho"].reshape(8, 3), run.density)
    both = joined([run, decay(directed_percolation(0.7), 30, [1], 2)])
    assert len(np.unique(both["realisation"])) == 10
    assert run.blocks(4).density.shape == (2, 3)
    np.testing.assert_allclose(run.blocks(4).mean, run.mean)
    assert run.to_xarray()["density"].sizes == {"realisation": 8, "time": 3}
    one = spread(directed_percolation(), [1, 2], 4)
    assert len(one.table()["alive"]) == 8
    assert one.to_xarray()["number"].sizes == {"realisation": 4, "time": 2}
    some = contact(ContactProcess(1, 9), [1.0], 4)
    assert some.to_xarray()["density"].sizes == {"realisation": 4, "time": 1}
    assert len(some.table()["N"]) == 4
    for text in (str(run), str(one)):
        assert "directed percolation" in text
    assert np.all(np.diff(spaced_times(1000)) > 0)
    assert spaced_times(1000)[-1] == 1000


@pytest.mark.parametrize(
    "call",
    [
        lambda: directed_percolation(1.5),
        lambda: directed_percolation(float("nan")),
        lambda: directed_percolation("much"),
        lambda: directed_percolation(0.5, "edge"),
        lambda: directed_percolation(0.5, "bond", "hexagonal"),
        lambda: domany_kinzel(0.5, -0.1),
        lambda: Automaton("x", "square", (0.5,)),
        lambda: Automaton("x", "square", 0.5),
        lambda: decay("bond", 10, [1]),
        lambda: decay(directed_percolation(), 1, [1]),
        lambda: decay(directed_percolation(), 10.5, [1]),
        lambda: decay(directed_percolation(), 10**9, [1]),
        lambda: decay(directed_percolation(), 10, []),
        lambda: decay(directed_percolation(), 10, [2, 1]),
        lambda: decay(directed_percolation(), 10, [1, 1]),
        lambda: decay(directed_percolation(), 10, [-1]),
        lambda: decay(directed_percolation(), 10, [0.5]),
        lambda: decay(directed_percolation(), 10, [np.nan]),
        lambda: decay(directed_percolation(), 10, [1], 0),
        lambda: decay(directed_percolation(), 10, [1], 10**12),
        lambda: decay(directed_percolation(), 10, [1], 64, -1),
        lambda: decay(directed_percolation(), 10, [1], workers=0),
        lambda: decay(directed_percolation(), 10, [1], start="empty"),
        lambda: decay(directed_percolation(lattice="bcc"), 10, [1], observed="walls"),
        lambda: decay(directed_percolation(), 10, [1], 64).blocks(10),
        lambda: joined([]),
        lambda: spread(None, [1]),
        lambda: spread(directed_percolation(lattice="bcc"), [10**9]),
        lambda: spaced_times(0),
        lambda: ContactProcess(0.0, 10),
        lambda: ContactProcess(1.0, 0),
        lambda: ContactProcess(1.0, 10**9),
        lambda: ContactProcess(1.0, 10).density([2, 1]),
        lambda: ContactProcess(1.0, 10).density([-1]),
        lambda: ContactProcess(1.0, 10).density([1], active=11),
        lambda: contact(ContactProcess(1.0, 10), [np.inf]),
        lambda: contact("process", [1]),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(InputError):
        call()

"""The weightless sampler against ordinary weights, and the laws that both must obey."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from depthscale.answers import InputError
from depthscale.finite import passes
from depthscale.finite.explicit import explicit_pairs
from depthscale.finite.hops import Untied, Weightless
from depthscale.finite.pairs import PairEnsemble, sample_pairs
from depthscale.theory.meanfield import MeanField

# One comparison in a thousand runs of this whole file may fail by chance if seeds were changed
# (Bonferroni over all Kolmogorov-Smirnov tests); the seeds are fixed, so it does not.
FAMILY_ERROR = 1e-3
NETS = 2000


@dataclass(frozen=True)
class Case:
    """An architecture, a start, and the fields to compare."""

    name: str
    layers: list[MeanField]
    widths: list[int]
    start: tuple[float, float, float]
    fields: tuple[str, ...] = ("length_1", "length_2", "eps", "gradient", "gradient_eps", "joint")
    pinned: bool = False


UNEVEN = [40, 25, 60, 15, 30, 35]
FORWARD = ("length_1", "length_2", "eps", "gradient", "joint")
CASES = [
    Case("tanh", [MeanField("tanh", sigma_w=1.5, sigma_b=0.3)] * 5, [30] * 6, (1.0, 1.0, 0.3)),
    Case("relu", [MeanField("relu", sigma_w=1.4, drop=0.2)] * 5, UNEVEN, (1.0, 2.0, 0.8)),
    Case(
        "erf, shared masks",
        [MeanField("erf", sigma_w=1.3, sigma_b=0.2, drop=0.3, masks="shared")] * 5,
        UNEVEN,
        (0.5, 0.5, 0.1),
    ),
    Case(
        "hardtanh, one masked",
        [MeanField("hardtanh", sigma_w=1.3, sigma_b=0.3, drop=0.15, masks="clean")] * 5,
        UNEVEN,
        (1.0, 1.0, 0.05),
    ),
    # A kink makes gradient_eps of nearly equal inputs exactly 0 but for rounding: not compared.
    Case(
        "nearly equal, relu",
        [MeanField("relu", sigma_w=1.5, drop=0.2, masks="shared")] * 5,
        UNEVEN,
        (1.0, 1.0, 1e-20),
        FORWARD,
    ),
    Case(
        "nearly equal, tanh",
        [MeanField("tanh", sigma_w=1.6, sigma_b=0.2)] * 5,
        [30] * 6,
        (1.0, 1.0, 1e-20),
    ),
    # Equal inputs have one length, so only the first is compared.
    Case(
        "one input, two masks",
        [MeanField("tanh", sigma_w=1.5, sigma_b=0.3, drop=0.1)] * 5,
        UNEVEN,
        (1.0, 1.0, 0.0),
    ),
    Case(
        "one input, masked and clean",
        [MeanField("relu", sigma_w=1.4, sigma_b=0.1, drop=0.1, masks="clean")] * 5,
        UNEVEN,
        (1.0, 1.0, 0.0),
    ),
    Case(
        "every layer its own",
        [
            MeanField("relu", sigma_w=1.7, sigma_b=0.5, drop=0.3),
            MeanField("tanh", sigma_w=0.9),
            MeanField("erf", sigma_w=2.0, drop=0.1, masks="clean"),
            MeanField("hardtanh", sigma_w=1.1, sigma_b=1.0, drop=0.5, masks="shared"),
        ],
        [20, 35, 12, 40, 18],
        (0.3, 3.0, 1.7),
        pinned=True,
    ),
    Case(
        "overlapping masks",
        [MeanField("tanh", sigma_w=1.5, sigma_b=0.2, drop=0.3, masks="overlap(0.4)")] * 4,
        [12, 10, 14, 9, 11],
        (1.0, 1.0, 0.0),
    ),
    Case(
        "gaussian noise, residual",
        [MeanField("relu", 1.3, sigma_b=0.2, drop=0.4, masks="gaussian(0.6)", skip=0.5)] * 4,
        [10] * 5,
        (1.0, 2.0, 0.4),
    ),
    # One unlike factor a layer never averages out: the scatter is of order one at any width.
    Case(
        "dropped layers",
        [MeanField("tanh", sigma_w=1.5, sigma_b=0.4, drop=0.3, masks="layers(0.5)", skip=0.8)] * 4,
        [15] * 5,
        (1.0, 1.0, 0.2),
    ),
    Case(
        "dropped layers, no way around",
        [MeanField("relu", sigma_w=1.5, sigma_b=0.4, drop=0.1, masks="layers")] * 3,
        [15, 10, 20, 12],
        (1.0, 1.5, 0.5),
    ),
    # Far below any width at which one would trust a 1/n expansion: the law is exact.
    Case(
        "four units",
        [MeanField("tanh", sigma_w=1.2, sigma_b=0.2)] * 12,
        [4] * 13,
        (1.0, 1.0, 0.5),
        FORWARD,
    ),
    Case(
        "a few units, masks",
        [MeanField("tanh", sigma_w=1.5, sigma_b=0.5, drop=0.2)] * 4,
        [4, 3, 5, 4, 2],
        (1.0, 1.0, 0.5),
        FORWARD,
    ),
]


def run(simulate, case: Case, seed: int) -> PairEnsemble:
    start = "pinned" if case.pinned else "drawn"
    return simulate(case.layers, case.widths, *case.start, nets=NETS, seed=seed, start=start)


@cache
def reference(name: str) -> PairEnsemble:
    return run(explicit_pairs, named(name), seed=2)


def samples(record: PairEnsemble, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Forward fields half-way and at the end, gradients half-way and at the start.

    "joint" is the gradient times the last length: the two are dependent. Where a relu network has
    died there is no eps; it counts as -1, so that the share of dead networks is compared too.
    Twelve digits are kept: gradients with no unit in common have a cosine of 0 but for rounding.
    """
    half = len(record.widths) // 2
    forward = {"length_1": record.lengths[0], "length_2": record.lengths[1], "eps": record.eps}
    backward = {
        "gradient": record.gradient,
        "gradient_eps": record.gradient_eps,
        "joint": record.gradient * record.lengths[0][:, -1:],
    }
    result = {}
    for values, layers in ((forward, (half, -1)), (backward, (half, 0))):
        for name in set(values) & set(fields):
            for layer in layers:
                here = np.nan_to_num(values[name][:, layer], nan=-1.0)
                result[f"{name} at {layer}"] = [float(f"{number:.11e}") for number in here]
    return result


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def p_values(left: PairEnsemble, right: PairEnsemble, fields: tuple[str, ...]) -> dict[str, float]:
    a, b = samples(left, fields), samples(right, fields)
    return {key: stats.ks_2samp(a[key], b[key], method="asymp").pvalue for key in a}


THRESHOLD = FAMILY_ERROR / sum(2 * len(case.fields) for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sampler_has_the_law_of_explicit_weights(case):
    p = p_values(run(sample_pairs, case, 1), reference(case.name), case.fields)
    assert min(p.values()) > THRESHOLD, p


def wrong_width(case: Case) -> Case:
    return replace(case, widths=[2 * n for n in case.widths])


def without_mask(case: Case) -> Case:
    return replace(case, layers=[replace(layer, drop=0.0) for layer in case.layers])


def other_masks(case: Case) -> Case:
    return replace(case, layers=[replace(layer, masks="shared") for layer in case.layers])


def without_skip(case: Case) -> Case:
    return replace(case, layers=[replace(layer, skip=0.0) for layer in case.layers])


def unit_masks(case: Case) -> Case:
    return replace(case, layers=[replace(layer, masks="independent") for layer in case.layers])


@pytest.mark.parametrize(
    ("name", "spoil", "caught_by"),
    [
        ("tanh", wrong_width, "eps at -1"),
        ("relu", wrong_width, "gradient at 0"),
        ("relu", without_mask, "gradient at 0"),
        ("relu", other_masks, "eps at -1"),
        ("overlapping masks", unit_masks, "eps at -1"),
        ("gaussian noise, residual", unit_masks, "eps at -1"),
        ("gaussian noise, residual", without_skip, "length_1 at -1"),
        ("dropped layers", unit_masks, "length_1 at -1"),
        ("dropped layers", without_skip, "gradient_eps at 0"),
    ],
)
def test_a_wrong_sampler_is_caught(name, spoil, caught_by):
    """Negative control: the comparison above has the power to refuse."""
    case = named(name)
    p = p_values(run(sample_pairs, spoil(case), 1), reference(case.name), case.fields)
    assert p[caught_by] < THRESHOLD, p


def test_a_backward_pass_that_forgets_the_forward_one_is_caught(monkeypatch):
    """Negative control: gradients under the independence assumption are not the exact law."""
    case = named("four units")
    monkeypatch.setattr(Weightless, "backward", Untied.backward)
    p = p_values(run(sample_pairs, case, 1), reference(case.name), case.fields)
    assert p["gradient at 0"] < THRESHOLD, p


@pytest.mark.parametrize("lost", [{"skip": 0.0}, {"on_layer": None}])
def test_a_backward_pass_that_forgets_the_branch_is_caught(monkeypatch, lost):
    """Negative control: gradients go through the skip, and through the noise of the layer."""
    case = named("dropped layers")
    hop = passes._Hop
    monkeypatch.setattr(passes, "_Hop", lambda *given: hop(*given)._replace(**lost))
    p = p_values(run(sample_pairs, case, 1), reference(case.name), case.fields)
    assert p["gradient at 0"] < THRESHOLD, p
    assert p["length_1 at -1"] > THRESHOLD


def test_networks_do_not_depend_on_how_many_are_asked_for():
    """Bit for bit: the first k of many networks are those of nets=k."""
    layers = [MeanField("tanh", sigma_w=1.8, sigma_b=0.1, drop=0.05)] * 6
    many = sample_pairs(layers, [37] * 7, 1.0, 1.0, 0.2, nets=23, seed=5)
    few = sample_pairs(layers, [37] * 7, 1.0, 1.0, 0.2, nets=4, seed=5)
    for field in ("lengths", "eps", "gradient", "gradient_eps"):
        np.testing.assert_array_equal(
            getattr(many, field)[..., :4, :], getattr(few, field), err_msg=field
        )
    other = sample_pairs(layers, [37] * 7, 1.0, 1.0, 0.2, nets=4, seed=6)
    assert not np.any(other.eps == few.eps)


@pytest.mark.parametrize("simulate", [sample_pairs, explicit_pairs])
def test_equal_inputs_stay_equal_without_dropout(simulate):
    layers = [MeanField("tanh", sigma_w=2.5)] * 8
    record = simulate(layers, [20] * 9, 1.0, 1.0, 0.0, nets=10)
    np.testing.assert_array_equal(record.eps, 0)
    np.testing.assert_array_equal(record.gradient_eps, 0)


@pytest.mark.parametrize("name", ["tanh", "relu", "gelu", "hardtanh"])
def test_small_misalignments_grow_in_proportion(name):
    """eps_l / eps_0 does not depend on eps_0 once eps_0 is small: no digit is lost down to 1e-280.

    The mean of the two inputs, which decides the slopes, moves by sqrt(eps), relatively: at 1e-24,
    and after growth by less than 1e3 in ten layers, less than 1e-9.
    """
    layers = [MeanField(name, sigma_w=2.0, sigma_b=0.1, drop=0.1, masks="shared")] * 10
    grown = {}
    for eps in (1e-24, 1e-100, 1e-280):
        grown[eps] = sample_pairs(layers, [50] * 11, 1.0, 1.0, eps, nets=6).eps / eps
    for eps in (1e-24, 1e-100):
        np.testing.assert_allclose(grown[eps], grown[1e-280], rtol=1e-9)


def test_relu_is_scale_free():
    """sigma_w -> 2 sigma_w: same seeds, same eps, lengths * 4^l, gradients * 4^(L - l), exactly."""
    one, two = (
        sample_pairs([MeanField("relu", sigma_w=s, drop=0.3)] * 6, [64] * 7, 1.0, 3.0, 0.4, nets=5)
        for s in (1.25, 2.5)
    )
    powers = 4.0 ** np.arange(7)
    np.testing.assert_allclose(two.lengths, one.lengths * powers, rtol=1e-12)
    np.testing.assert_allclose(two.gradient, one.gradient * powers[::-1], rtol=1e-12)
    np.testing.assert_allclose(two.eps, one.eps, rtol=1e-10)


LINEAR = [
    (sample_pairs, "independent", 0.0),
    (sample_pairs, "shared", 0.5),
    (sample_pairs, "clean", 0.5),
    (sample_pairs, "overlap(0.5)", 0.0),
    (sample_pairs, "gaussian(0.5)", 0.5),
    (sample_pairs, "layers(0.5)", 0.5),
    (explicit_pairs, "dropconnect", 0.5),
    (explicit_pairs, "dropconnect(0.5)", 0.0),
]


@pytest.mark.parametrize(("simulate", "masks", "skip"), LINEAR)
def test_means_of_linear_networks_are_exact_at_any_width(simulate, masks, skip):
    """Covariances and squared gradients of a linear network have their maps' means, without 1/n.

    Every one of the maps is linear there, so that averages over all draws pass through them, those
    of dropped layers included. Width 8, three hops, 2,500 networks: means at the first and last hop
    within 4.5 standard errors each, 8 x 8 of them; fails by chance in 1 of 2,000 seeds.
    """
    layer = MeanField("identity", sigma_w=0.9, drop=0.2, masks=masks, skip=skip)
    record = simulate([layer] * 3, [8] * 4, 1.0, 2.0, 0.3, nets=2500, seed=3)
    start = np.array([1.0, 2.0, 0.7 * np.sqrt(2)])
    noise = np.array([layer.moments.first, layer.moments.second, layer.moments.cross])
    powers = (skip**2 + 0.81 * noise) ** np.arange(4)[:, None]
    cross = np.nan_to_num(1 - record.eps) * np.sqrt(record.lengths.prod(axis=0))
    observed = [*record.lengths, cross, record.gradient]
    for values, expected in zip(observed, [*(start * powers).T, powers[::-1, 0]], strict=True):
        error = values.std(axis=0) / np.sqrt(record.nets)
        ends = [0, 2] if values is record.gradient else [1, 3]
        z = (values.mean(axis=0) - expected)[ends] / error[ends]
        assert np.all(np.abs(z) < 4.5), z


@pytest.mark.parametrize("simulate", [sample_pairs, explicit_pairs])
def test_a_pinned_start_has_exactly_the_given_state(simulate):
    layers = [MeanField("tanh", sigma_w=1.5)]
    record = simulate(layers, [9, 9], 0.5, 2.0, 1e-9, nets=3, start="pinned")
    np.testing.assert_allclose(record.lengths[:, :, 0], [[0.5] * 3, [2.0] * 3], rtol=1e-13)
    # Two stored vectors resolve 1 - cos to about 1e-16 / sqrt(eps).
    np.testing.assert_allclose(record.eps[:, 0], 1e-9, rtol=1e-9)


def test_a_dead_network_has_no_misalignment():
    """Two units, relu, no bias: a quarter of the networks die at each layer; bands go without."""
    record = sample_pairs(
        [MeanField("relu", sigma_w=1.0)] * 12, [2] * 13, 1.0, 1.0, 0.5, nets=50, seed=2
    )
    dead = record.lengths.min(axis=0) == 0
    assert dead[:, -1].any()
    np.testing.assert_array_equal(np.isnan(record.eps), dead)
    low, median, high = record.band("eps")
    alive = ~np.isnan(median)
    assert np.all(low[alive] <= median[alive])
    assert np.all(median[alive] <= high[alive])
    np.testing.assert_array_equal(alive, ~dead.all(axis=0))
    np.testing.assert_array_equal(record.band("length")[2] >= 0, True)


@pytest.mark.parametrize("simulate", [sample_pairs, explicit_pairs])
def test_one_input_can_die_alone(simulate):
    """Three relu units without bias all go negative with chance 1/8 a layer, exactly.

    Each input's share of dead networks after four hops is 1 - (7/8)^4, within four binomial
    standard errors: fails by chance in 1 of 4,000 seeds. A length that is only tiny is not dead.
    """
    layers = [MeanField("relu", sigma_w=1.4)] * 4
    record = simulate(layers, [3] * 5, 1.0, 1.0, 1.2, nets=2000, seed=2)
    dead = record.lengths == 0
    expected = 1 - (7 / 8) ** 4
    error = np.sqrt(expected * (1 - expected) / record.nets)
    assert np.all(np.abs(dead[:, :, -1].mean(axis=1) - expected) < 4 * error)
    assert (dead[0] != dead[1]).any()
    np.testing.assert_array_equal(np.isnan(record.eps), dead.any(axis=0))


def test_bands_are_quantiles_and_the_record_becomes_a_dataset():
    record = sample_pairs([MeanField("erf", sigma_w=1.5)] * 3, [20, 30, 40, 10], 1.0, 1.0, 0.5)
    low, median, high = record.band("gradient", 0.25, 0.75)
    np.testing.assert_allclose(low, np.quantile(record.gradient, 0.25, axis=0))
    np.testing.assert_allclose(median, np.median(record.gradient, axis=0))
    np.testing.assert_allclose(high, np.quantile(record.gradient, 0.75, axis=0))
    data = record.to_xarray()
    assert dict(data.sizes) == {"input": 2, "net": 64, "layer": 4}
    assert data.width.values.tolist() == [20, 30, 40, 10]
    np.testing.assert_array_equal(data.length, record.length)
    np.testing.assert_array_equal(data.lengths.mean("input"), record.length)
    assert data.eps.attrs["long_name"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": []}, "no layers"),
        ({"widths": [10, 10]}, "2 widths for 2 hops: expected 3"),
        ({"widths": [10, 0, 10]}, "whole numbers"),
        ({"widths": [10, 9.5, 10]}, "whole numbers"),
        ({"widths": [1, 10, 10], "start": "pinned"}, "in a layer of 1 unit: expected at least 2"),
        ({"q1": 0.0}, "q1 = 0.0: expected a finite mean square q > 0"),
        ({"q2": np.inf}, "q2 = inf"),
        ({"eps": 2.1}, "eps = 2.1"),
        ({"eps": np.nan}, "eps = nan"),
        ({"nets": 0}, "nets = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"start": "fixed"}, "pinned, drawn"),
        (
            {"layers": [MeanField("tanh", sigma_w=1.0, skip=0.5)] * 2, "widths": [10, 9, 9]},
            "skip = 0.5: expected equal widths on its two sides, not 10 and 9",
        ),
    ],
)
@pytest.mark.parametrize("simulate", [sample_pairs, explicit_pairs])
def test_bad_input_is_explained(simulate, changes, message):
    given = {
        "layers": [MeanField("tanh", sigma_w=1.0)] * 2,
        "widths": [10, 10, 10],
        "q1": 1.0,
        "q2": 1.0,
        "eps": 0.5,
    }
    with pytest.raises(InputError, match=message):
        simulate(**(given | changes))


def test_dropped_weights_need_weights():
    layer = MeanField("tanh", sigma_w=1.0, drop=0.1, masks="dropconnect")
    with pytest.raises(InputError, match="explicit_pairs"):
        sample_pairs([layer], [5, 5], 1.0, 1.0, 0.5)
    quiet = replace(layer, drop=0.0)
    np.testing.assert_array_equal(
        sample_pairs([quiet], [5, 5], 1.0, 1.0, 0.5).eps,
        sample_pairs([replace(quiet, masks="independent")], [5, 5], 1.0, 1.0, 0.5).eps,
    )


def test_bad_bands_are_explained():
    record = sample_pairs([MeanField("tanh", sigma_w=1.0)], [5, 5], 1.0, 1.0, 0.5, nets=2)
    with pytest.raises(InputError, match="'chi': there is length, eps"):
        record.band("chi")
    with pytest.raises(InputError, match="lo <= hi"):
        record.band("eps", 0.9, 0.1)

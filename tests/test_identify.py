"""The table of classes against scaling relations, and verdicts on exponents of known origin."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from depthscale.answers import InputError, Undefined
from depthscale.scaling.class_records import EXPONENTS, quantity_of, split_quantity
from depthscale.scaling.classes import UNIVERSALITY, exponent_class
from depthscale.scaling.identify import VERDICTS, identify
from depthscale.scaling.ranking import separation
from depthscale.theory.universal.relations import exponents as map_exponents

LABELS = [member.label for member in UNIVERSALITY]
DP = exponent_class("DP", 1)
CNN = {  # shared-weight convolutional networks, by window of layers
    "10-100": {"1/nu_par": (0.763, 0.019), "delta": (0.212, 0.005)},
    "20-200": {"1/nu_par": (0.548, 0.032), "delta": (0.161, 0.012)},
    "40-400": {"1/nu_par": (0.285, 0.021), "delta": (0.072, 0.007)},
}


def stating(*names: str, **having: bool) -> pytest.MarkDecorator:
    """A test of all classes that state these exponents and have these attributes."""
    members = [
        m
        for m in UNIVERSALITY
        if set(names) <= set(m.exponents)
        and all(bool(getattr(m, key)) == value for key, value in having.items())
    ]
    return pytest.mark.parametrize("member", members, ids=[m.label for m in members])


def spread_of(*parts: tuple[float, float]) -> float:
    """Error of a sum of terms (derivative, uncertainty), never below what six digits round to."""
    return math.sqrt(sum((slope * error) ** 2 for slope, error in parts)) + 2e-6


# The table ---------------------------------------------------------------------------------------


class TestRelations:
    """Independent estimates are within two joint uncertainties of a relation."""

    @stating("delta", "beta", "nu_par")
    def test_decay_is_beta_over_nu_par(self, member):
        delta, beta, nu = (member.exponents[n] for n in ("delta", "beta", "nu_par"))
        error = spread_of(
            (1, delta.uncertainty),
            (1 / nu.value, beta.uncertainty),
            (beta.value / nu.value**2, nu.uncertainty),
        )
        assert abs(delta.value - beta.value / nu.value) <= 2 * error

    @stating("z", "nu_par", "nu_perp")
    def test_z_is_the_ratio_of_the_nus(self, member):
        z, par, perp = (member.exponents[n] for n in ("z", "nu_par", "nu_perp"))
        error = spread_of(
            (1, z.uncertainty),
            (1 / perp.value, par.uncertainty),
            (par.value / perp.value**2, perp.uncertainty),
        )
        assert abs(z.value - par.value / perp.value) <= 2 * error

    @stating("theta", "z", "survival", hyperscaling=True)
    def test_hyperscaling_of_spreading(self, member):
        theta, z, survival = (member.exponents[n] for n in ("theta", "z", "survival"))
        d = member.dimension
        if member.hyperscaling == "absorbing":
            delta = member.exponents["delta"]
            expected = d / z.value - delta.value - survival.value
        else:
            delta = survival
            expected = d / z.value - 2 * survival.value - 1
        error = spread_of(
            (1, theta.uncertainty),
            (d / z.value**2, z.uncertainty),
            (1, delta.uncertainty),
            (1, survival.uncertainty),
        )
        assert abs(theta.value - expected) <= 2 * error

    @stating("field", "nu_perp", dimension=True)
    def test_response_to_a_field(self, member):
        """``1/field = (nu_par + d nu_perp)/beta - 1``; in equilibrium without ``nu_par``."""
        found = member.predict("beta", "nu_perp", "field")
        beta, perp, response = found.values
        par = 0.0 if member.equilibrium else float(member.predict("nu_par").values[0])
        expected = beta / (par + member.dimension * perp - beta)
        error = math.sqrt(found.covariance[2, 2]) + 1e-5
        assert abs(response - expected) <= 2 * error


@pytest.mark.parametrize("member", UNIVERSALITY, ids=LABELS)
class TestTable:
    def test_every_number_has_a_source_and_a_meaning(self, member):
        for name, number in member.exponents.items():
            assert name in EXPONENTS
            assert number.uncertainty >= 0
            assert math.isfinite(number.value)
            assert len(number.source) > 10
        assert any(year in member.source() for year in map(str, range(1944, 2026))) or (
            "derived here" in member.source()
        )

    def test_its_own_exponents_are_never_none_of_these(self, member):
        found = identify(
            {
                name: (number.value, max(number.uncertainty, 0.01))
                for name, number in member.exponents.items()
            }
        )
        assert member.label in found.allowed

    def test_what_is_stated_is_predicted(self, member):
        for name, number in member.exponents.items():
            found = member.predict(name)
            assert found.values[0] == number.value
            assert found.covariance[0, 0] == pytest.approx(number.uncertainty**2)


@pytest.mark.parametrize(("name", "kappa"), [("smooth network", 2.0), ("kinked network", 1.5)])
def test_networks_have_the_exponents_of_their_map(name, kappa):
    theory = map_exponents(kappa)
    found = exponent_class(name).predict("beta", "nu_par", "delta", "field").values
    expected = [theory["beta"], theory["nu_t"], theory["theta"], 1 / theory["delta"]]
    assert found.tolist() == pytest.approx(expected)


def test_multiplicative_noise_without_space_by_simulation():
    """``x' = x e^(noise) / (1 + x)`` at zero drift: the mean decays as ``t^-1/2``.

    Between t = 100 and 1600, of 10,000 walks: the mean is carried by 2-8 % of them, so that the
    slope errs by some .03, and by the approach, which is of relative order ``t^-1/2``.
    """
    g = np.random.default_rng(0)
    log_x, means = np.zeros(10_000), {}
    for t in range(1, 1601):
        log_x = log_x + g.standard_normal(log_x.size)
        log_x = log_x - np.logaddexp(0, log_x)
        if t in (100, 1600):
            means[t] = np.exp(log_x).mean()
    slope = -math.log(means[1600] / means[100]) / math.log(16)
    delta = exponent_class("multiplicative noise without space").exponents["delta"].value
    assert slope == pytest.approx(delta, abs=0.1)


def test_labels_and_aliases_find_their_class():
    assert len(set(LABELS)) == len(LABELS)
    for member in UNIVERSALITY:
        assert exponent_class(member.label) is member
        assert exponent_class(member.name.upper(), member.dimension) is member
    assert exponent_class("cdp").label == "compact directed percolation 1+1"
    with pytest.raises(InputError, match="give the dimension"):
        exponent_class("DP")
    with pytest.raises(InputError, match="not in the table"):
        exponent_class("Potts")


# Predictions -------------------------------------------------------------------------------------


def test_quotients_and_their_covariance_by_sampling():
    """100,000 draws of the stated exponents: variances to .45 %, covariance to .003; 5 sd."""
    member = exponent_class("conserved directed percolation", 1)
    found = member.predict("delta", "1/nu_par", "beta/nu_perp", "cutoff")
    g = np.random.default_rng(0)
    drawn = {n: e.value + e.uncertainty * g.standard_normal(100_000)
             for n, e in member.exponents.items()}  # fmt: skip
    par = drawn["z"] * drawn["nu_perp"]
    sample = np.array([drawn["beta"] / par, 1 / par, drawn["beta"] / drawn["nu_perp"], drawn["z"]])
    np.testing.assert_allclose(found.values, sample.mean(axis=1), rtol=1e-3)
    own, other = (np.sqrt(np.diag(c)) for c in (found.covariance, np.cov(sample)))
    np.testing.assert_allclose(own, other, rtol=0.025)
    np.testing.assert_allclose(
        found.covariance / np.outer(own, own), np.corrcoef(sample), atol=0.02
    )


def test_what_a_class_does_not_say():
    assert isinstance(exponent_class("smooth network").predict("nu_perp"), Undefined)
    assert isinstance(exponent_class("CDP").predict("nu_par/beta"), Undefined)  # beta is 0
    assert isinstance(exponent_class("DyP").predict("delta"), Undefined)  # has no decay
    assert not exponent_class("smooth network").states("z")


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("delta", "delta"),
        (" nu_parallel ", "nu_par"),
        ("1/nu_par", "1/nu_par"),
        ("beta / nu_par", "delta"),
        ("nu_par/nu_perp", "z"),
        ("2/z", "2/z"),
        ("slip", "theta"),
        ("nu", "nu_perp"),
    ],
)
def test_quantities_have_one_spelling(text, quantity):
    assert quantity_of(text) == quantity


@pytest.mark.parametrize("text", ["gamma", "1/2", "beta/beta", "", "beta*z", "1/beta/z", "0/z", 3])
def test_what_is_no_quantity(text):
    with pytest.raises(InputError, match="exponent"):
        split_quantity(text)


# Verdicts ----------------------------------------------------------------------------------------


def test_the_decay_of_directed_percolation():
    found = identify({"delta": (0.16, 0.01)})
    assert found.ranking[0].label == "directed percolation 1+1"
    assert found.verdict == "compatible"
    assert found.allowed == ("directed percolation 1+1",)
    assert "beyond the table" in found.sentence
    # a wider error leaves more, and says what would tell them apart
    wide = identify({"delta": (0.16, 0.03)})
    assert wide.verdict == "cannot tell apart"
    assert wide.ranking[0].label == "directed percolation 1+1"
    assert "conserved directed percolation 1+1" in wide.allowed
    assert all(s.one == "directed percolation 1+1" for s in wide.separating)


def test_two_exponents_identify():
    found = identify({"delta": (0.1595, 0.003), "1/nu_par": (0.577, 0.01)}, dimension=1)
    assert found.verdict == "identified"
    assert found.allowed == ("directed percolation 1+1",)


OTHERS = [member.label for member in UNIVERSALITY if member is not DP]


@pytest.mark.parametrize("label", OTHERS)
def test_no_other_class_is_taken_for_directed_percolation(label):
    """Its exponents with errors of .01, over 8 seeds of noise."""
    member = next(m for m in UNIVERSALITY if m.label == label)
    names = [n for n in ("beta", "delta", "nu_par", "nu_perp", "z") if member.states(n)]
    truth = member.predict(*names).values
    for seed in range(8):
        noisy = truth + 0.01 * np.random.default_rng(seed).standard_normal(len(names))
        found = identify({n: (v, 0.01) for n, v in zip(names, noisy, strict=True)})
        assert DP.label not in found.allowed


@pytest.mark.parametrize(
    "made_up",
    [
        {"delta": (0.16, 0.01), "z": (1.2, 0.02)},
        {"delta": (0.3, 0.005), "beta": (0.276, 0.003)},
        {"beta": (0.276, 0.002), "nu_par": (1.4, 0.02), "nu_perp": (1.097, 0.005)},
        {"delta": (0.1595, 0.001), "1/nu_par": (0.65, 0.01)},
        {"beta": (5.0, 0.1), "z": (0.3, 0.02)},
    ],
)
def test_made_up_exponents_are_none_of_these(made_up):
    found = identify(made_up)
    assert found.verdict == "none of these"
    assert found.allowed == ()


def test_the_right_class_is_ruled_out_as_often_as_the_level_says():
    """800 seeds at level .05: 40 with an error of 6.2, 4 sd; correlated exponents."""
    names = ("delta", "z", "nu_par")
    truth = DP.predict(*names).values
    errors = np.array([0.01, 0.05, 0.08])
    matrix = np.array([[1, 0.6, -0.4], [0.6, 1, -0.2], [-0.4, -0.2, 1]]) * np.outer(errors, errors)
    root = np.linalg.cholesky(matrix)
    p_values = []
    for seed in range(800):
        noisy = truth + root @ np.random.default_rng(seed).standard_normal(3)
        found = identify(dict(zip(names, noisy, strict=True)), matrix, classes=[DP], level=0.05)
        p_values.append(found.ranking[0].p_value)
    assert abs(np.sum(np.array(p_values) < 0.05) - 40) < 25
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_chi2_is_that_of_a_direct_inversion():
    member = exponent_class("conserved directed percolation", 1)
    errors = np.array([0.02, 0.05])
    matrix = np.array([[1.0, 0.5], [0.5, 1.0]]) * np.outer(errors, errors)
    found = identify({"delta": 0.14, "z": 1.5}, matrix, classes=[member]).ranking[0]
    theory = member.predict("delta", "z")
    rest = np.array([0.14, 1.5]) - theory.values
    assert found.chi2 == pytest.approx(
        float(rest @ np.linalg.inv(matrix + theory.covariance) @ rest)
    )
    assert found.p_value == pytest.approx(stats.chi2.sf(found.chi2, 2))


def test_weights_are_posterior_probabilities():
    """Of two classes with the same odds before: the ratio of their densities."""
    one, two = DP, exponent_class("conserved directed percolation", 1)
    found = identify({"delta": (0.145, 0.01)}, classes=[one, two])
    weights = {r.label: r.weight for r in found.ranking}
    heights = {}
    for member in (one, two):
        theory = member.predict("delta")
        scale = math.sqrt(1e-4 + theory.covariance[0, 0])
        heights[member.label] = stats.norm.pdf(0.145, theory.values[0], scale)
    total = sum(heights.values())
    assert weights == pytest.approx({k: v / total for k, v in heights.items()})


def test_only_what_a_class_states_is_compared_and_the_rest_is_told():
    found = identify({"beta": (1, 0.02), "nu_par": (1, 0.02), "z": (2, 0.02)})
    rows = {r.label: r for r in found.ranking}
    assert rows["smooth network"].compared == ("beta", "nu_par")
    assert rows["smooth network"].missing == ("z",)
    assert rows["mean-field directed percolation"].missing == ()
    # a class that says more of what was measured, and is right, weighs more
    best = found.ranking[0]
    assert best.label == "mean-field directed percolation"
    assert best.weight > rows["smooth network"].weight
    # without a decay, one that was measured cannot be it
    assert "dynamical percolation 2+1" in identify({"delta": (0.1, 0.01)}).silent


def test_width_tells_networks_from_mean_field():
    same = {"beta": (1, 0.02), "delta": (1, 0.02)}
    found = identify(same)
    assert found.verdict == "cannot tell apart"
    assert set(found.allowed) == {"mean-field directed percolation", "smooth network"}
    (apart,) = found.separating
    assert apart.exponent == "cutoff"
    assert apart.accuracy == pytest.approx(0.5 / 3)
    decided = identify({**same, "cutoff": (1.05, 0.1)})
    assert decided.verdict == "identified"
    assert decided.allowed == ("smooth network",)


def test_the_accuracy_that_separates_does():
    """At that error the other class is 3 errors away, by the exponent that is named."""
    for one in UNIVERSALITY:
        for other in UNIVERSALITY:
            found = separation(one, other)
            if one is other:
                assert found.exponent is None
                continue
            if found.exponent is None:
                continue
            here, there = (m.predict(found.exponent) for m in (one, other))
            spread = found.accuracy**2 + here.covariance[0, 0] + there.covariance[0, 0]
            gap = abs(here.values[0] - there.values[0])
            assert gap == pytest.approx(3 * math.sqrt(spread))


def test_what_follows_from_measured_exponents():
    """Against 200,000 draws: errors to .8 %, 5 sd, and the curvature of quotients."""
    values, errors = {"z": 1.58, "1/nu_par": 0.577, "delta": 0.16}, np.array([0.02, 0.006, 0.004])
    correlation = np.array([[1, 0.3, 0.1], [0.3, 1, -0.5], [0.1, -0.5, 1]])
    found = identify(values, correlation * np.outer(errors, errors)).derived
    assert set(found) == {"nu_par", "nu_perp", "beta"}
    drawn = np.random.default_rng(0).multivariate_normal(
        list(values.values()), correlation * np.outer(errors, errors), 200_000
    )
    par = 1 / drawn[:, 1]
    for name, sample in (("nu_par", par), ("nu_perp", par / drawn[:, 0]),
                         ("beta", par * drawn[:, 2])):  # fmt: skip
        assert found[name].value == pytest.approx(sample.mean(), rel=1e-3)
        assert found[name].error == pytest.approx(sample.std(), rel=0.01)


def test_exponents_that_are_derived_are_no_evidence():
    found = identify({"z": (1.58, 0.02), "nu_par": (1.73, 0.02)})
    assert found.ranking[0].dof == 2
    assert found.derived["nu_perp"].relation == "nu_par/z"


def test_dimension_keeps_its_classes_and_mean_field():
    found = identify({"beta": (0.3, 0.3)}, dimension=2)
    dimensions = {r.member.dimension for r in found.ranking}
    assert dimensions == {2, None}
    assert identify({"beta": (1, 0.1)}, dimension=5).ranking[0].member.dimension is None
    with pytest.raises(InputError, match="dimension"):
        identify({"beta": (1, 0.1)}, dimension=-1)
    everything = identify({"beta": (0.3, 0.3)})
    assert any("dimension" in note for note in everything.warnings)


# Windows -----------------------------------------------------------------------------------------


def test_a_claim_of_an_intermediate_window_is_not_identified():
    alone = identify(CNN["20-200"])
    assert DP.label in alone.allowed  # what a fit of that window alone would say
    for found in (identify(windows=CNN), identify(CNN["20-200"], windows=CNN)):
        assert found.verdict == "depends on the window"
        assert found.allowed == ()
        assert "not settled" in found.sentence
        assert any(DP.label in note and "passed through" in note for note in found.warnings)
        assert any("delta still drifts" in note for note in found.warnings)
        assert [w.verdict for w in found.windows] == [
            "none of these",
            "cannot tell apart",
            "none of these",
        ]


def test_corrections_to_scaling_in_early_windows_do_not_hide_a_class():
    windows = {
        "4-40": {"delta": (0.19, 0.002), "z": (1.50, 0.01)},
        "16-160": {"delta": (0.162, 0.003), "z": (1.575, 0.01)},
        "64-640": {"delta": (0.159, 0.004), "z": (1.585, 0.02)},
    }
    found = identify(windows=windows)
    assert found.verdict == "identified"
    assert found.allowed == (DP.label,)
    assert any("corrections to scaling" in note for note in found.warnings)


def test_one_window_is_not_enough():
    windows = {
        "16-160": {"delta": (0.21, 0.003), "z": (1.5, 0.01)},
        "64-640": {"delta": (0.159, 0.004), "z": (1.585, 0.02)},
    }
    found = identify(windows=windows)
    assert found.verdict == "depends on the window"
    assert any("has to last" in note for note in found.warnings)
    with pytest.raises(InputError, match="at least two"):
        identify(windows={"all": {"delta": (0.159, 0.004)}})


def test_windows_with_a_covariance():
    covariance = np.diag([0.01, 0.02]) ** 2
    pair = ({"delta": 0.16, "z": 1.58}, covariance)
    found = identify(windows=[("one", pair), ("two", pair)])
    assert found.verdict == "identified"


# Results and bad input ---------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from([*EXPONENTS, "1/nu_par", "beta/nu_perp", "2/z"]),
        st.tuples(st.floats(-10, 10), st.floats(1e-9, 10)),
        min_size=1,
        max_size=5,
    )
)
def test_any_exponents_have_a_verdict(exponents):
    """Of the known ones, it prints in 100 columns and is JSON; weights sum to 1."""
    assume(not {"nu_par", "1/nu_par"} <= set(exponents))
    assume(not {"z", "2/z"} <= set(exponents))
    found = identify(exponents)
    assert found.verdict in VERDICTS
    assert max(map(len, str(found).splitlines())) <= 100
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    if record["ranking"]:
        assert sum(row["weight"] for row in record["ranking"]) == pytest.approx(1)
    assert set(found.allowed) == {r.label for r in found.ranking if r.allowed}


@pytest.mark.parametrize(
    ("exponents", "covariance", "words"),
    [
        (None, None, "no exponents"),
        ({}, None, "expected a mapping"),
        ([("delta", 0.1)], None, "expected a mapping"),
        ({"gamma": (1, 0.1)}, None, "there is no exponent 'gamma'"),
        ({"delta": 0.16}, None, "has no error"),
        ({"delta": (0.16, 0.0)}, None, "above 0"),
        ({"delta": (0.16, -0.1)}, None, "above 0"),
        ({"delta": (0.16, 1e-300)}, None, "at least"),
        ({"delta": (0.16, math.nan)}, None, "above 0"),
        ({"delta": (0.16, math.inf)}, None, "above 0"),
        ({"delta": (math.nan, 0.1)}, None, "finite"),
        ({"delta": (1e300, 0.1)}, None, "finite"),
        ({"delta": (0.1, 0.1, 0.1)}, None, "expected \\(value, error\\)"),
        ({"delta": "0.16"}, None, "expected a number"),
        ({"delta": (True, 0.1)}, None, "expected a number"),
        ({"delta": (0.1, 0.1), "beta/nu_par": (0.1, 0.1)}, None, "says the same"),
        ({"nu_par": (1, 0.1), "1/nu_par": (1, 0.1)}, None, "says the same"),
        ({"delta": (0.1, 0.1)}, [[0.01]], "one of them"),
        ({"delta": 0.1, "z": 1.0}, [[0.01]], "shape"),
        ({"delta": 0.1, "z": 1.0}, [[1, 2], [2, 1]], "positive definite"),
        ({"delta": 0.1, "z": 1.0}, [[1, 0], [0, 0]], "above 0"),
        ({"delta": 0.1}, [[math.nan]], "not finite"),
    ],
)
def test_bad_input(exponents, covariance, words):
    with pytest.raises(InputError, match=words):
        identify(exponents, covariance)


@pytest.mark.parametrize("level", [0, 1, 2.0, math.nan, "low"])
def test_bad_level(level):
    with pytest.raises(InputError, match="level"):
        identify({"delta": (0.16, 0.01)}, level=level)


def test_exponents_that_no_class_in_question_states():
    found = identify({"cutoff": (1, 0.1)}, classes=[exponent_class("percolation 3D")])
    assert found.verdict == "not comparable"
    assert found.best is None
    assert "no class" in str(found)

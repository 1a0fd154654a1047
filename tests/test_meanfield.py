"""Maps, fixed points and depth scales: closed forms, published values, invariances."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthscale.answers import InputError, Undefined
from depthscale.theory.criticality import critical_point
from depthscale.theory.meanfield import MeanField, propagate

FIELD = [
    MeanField("tanh", 1.5, 0.3, 0.1),
    MeanField("tanh", 1.5, 0.3, 0.1, "shared"),
    MeanField("tanh", 1.5, 0.3, 0.1, "clean"),
    MeanField("relu", 1.2, 0.4, 0.2),
    MeanField("gelu", 1.1, 0.5, 0.05),
    MeanField("hardtanh", 2.0, 0.1),
    MeanField("elu", 1.1, 0.2, 0.01),
    MeanField("sigmoid", 3.0, 0.2, 0.3),
]


@pytest.mark.parametrize(
    ("keep", "weight", "q", "c", "chi1", "chi2", "xi1", "xi2", "xi_q"),
    [
        (1, 1.0, 0.19359252, 1, 0.75903165, 0.75903165, 3.62697562, 3.62697562, 1.74762624),
        (
            1,
            2.0,
            0.72176187,
            0.74408242,
            1.04766600,
            0.96111479,
            21.4754343,
            25.2134148,
            1.38797575,
        ),
        (
            0.95,
            2.0,
            0.79139213,
            0.41227884,
            1.06699200,
            0.86188430,
            15.4217530,
            6.72792466,
            1.33660278,
        ),
        (
            0.9,
            1.7,
            0.65002744,
            0.37779487,
            1.02625822,
            0.80639330,
            38.5811547,
            4.64719240,
            1.44708189,
        ),
    ],
)
def test_tanh_with_dropout_at_sigma_b2_005(keep, weight, q, c, chi1, chi2, xi1, xi2, xi_q):
    """Nine digits of an independent trapezoidal calculation (model of 1912.09132)."""
    field = MeanField("tanh", math.sqrt(weight), math.sqrt(0.05), 1 - keep)
    scale = field.depth_scale
    pair = field.gradient_pair_factor_at(field.q, field.eps)
    got = (
        field.q,
        1 - field.eps,
        field.gradient_factor,
        pair,
        scale.gradient,
        scale.correlation,
        scale.length,
    )
    # half a unit of the last printed digit
    assert got == pytest.approx((q, c, chi1, chi2, xi1, xi2, xi_q), rel=6e-9, abs=5e-9)


@pytest.mark.parametrize(
    ("drop", "eps", "xi"), [(1e-6, 2.230573615e-4, 148.214297), (1e-3, 2.197960567e-2, 14.244658)]
)
def test_relu_ratio_map(drop, eps, xi):
    field = MeanField("relu", 1.0, drop=drop)
    assert field.eps == pytest.approx(eps, rel=1e-9)
    assert field.depth_scale.correlation == pytest.approx(xi, rel=1e-8)
    assert isinstance(field.q, Undefined)
    assert "scale-free" in field.q.reason


def test_relu_map_is_the_arc_cosine_kernel():
    """c' = rho f(c), f(c) = (sqrt(1 - c^2) + c (pi - arccos c))/pi, at any length and weight."""
    eps = np.geomspace(1e-6, 2, 50)
    c = 1 - eps
    f = (np.sqrt(np.maximum(0, 1 - c * c)) + c * (np.pi - np.arccos(np.maximum(c, -1)))) / np.pi
    for weight, q in ((0.3, 1e-3), (1.7, 50.0)):
        mapped = MeanField("relu", weight, drop=0.3).gap_map(eps, q)
        assert 1 - mapped == pytest.approx(0.7 * f, abs=1e-10)


@pytest.mark.parametrize("field", FIELD, ids=repr)
def test_fixed_points_are_fixed_and_slopes_are_slopes(field):
    """Central differences of the maps themselves; truncation and rounding stay below 1e-6."""
    q1, q2 = field.settled
    assert field.length_map(q1) == pytest.approx(q1, rel=1e-12)
    after = field.pair_map(q1, q2, field.eps)
    assert after[2] == pytest.approx(field.eps, rel=1e-10, abs=1e-15)
    step = 1e-4 * q1
    assert field.length_slope(q1) == pytest.approx(
        (field.length_map(q1 + step) - field.length_map(q1 - step)) / (2 * step), rel=1e-6
    )
    base = max(field.eps, 1e-3)
    up, down = (field.pair_map(q1, q2, base * (1 + s))[2] for s in (1e-4, -1e-4))
    assert field.gap_slope(q1, q2, base) == pytest.approx((up - down) / (2e-4 * base), rel=1e-5)


@pytest.mark.parametrize("field", FIELD, ids=repr)
def test_field_is_the_map_at_alignment(field):
    """h = drop (1 - sigma_b^2/q) for independent masks, 0 for shared ones."""
    expected = {
        "independent": field.drop * (1 - field.sigma_b**2 / field.q),
        "shared": 0.0,
    }.get(field.masks)
    if expected is not None:
        assert field.dropout_field == pytest.approx(expected, rel=1e-9, abs=1e-16)
    else:
        # masked against clean: cov/sqrt(q1' q2') with the two second moments
        q1, q2 = field.settled
        assert field.dropout_field == pytest.approx(
            1 - _cross(field, q1, q2) / math.sqrt(q1 * q2), rel=1e-9
        )


def _cross(field: MeanField, q1: float, q2: float) -> float:
    """E[phi phi] of aligned inputs of unequal lengths by the trapezoidal rule, tanh only."""
    z = np.linspace(-9, 9, 2001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    moment = density @ (np.tanh(math.sqrt(q1) * z) * np.tanh(math.sqrt(q2) * z))
    return float(field.sigma_w**2 * moment + field.sigma_b**2)


@given(
    weight=st.floats(0.2, 4),
    bias=st.floats(0.01, 1.5),
    drop=st.floats(0, 0.9),
    name=st.sampled_from(["tanh", "hardtanh", "erf", "softsign", "sigmoid", "sin"]),
)
def test_bounded_activations_always_settle(weight, bias, drop, name):
    """With a bounded activation and a bias the length has a fixed point; eps* is in [0, 1], the map
    increases with eps and approaches its fixed point from both sides (it is concave)."""
    field = MeanField(name, weight, bias, drop)
    if isinstance(field.q, Undefined):
        assert name == "sin"  # the only length map here that is not monotone
        assert "does not settle" in field.q.reason
        return
    assert 0 <= field.eps <= 1 + 1e-9
    eps = np.geomspace(1e-8, 1, 25)
    mapped = field.gap_map(eps)
    assert np.all(np.diff(mapped) > 0)
    assert np.all((mapped - eps) * (field.eps - eps) >= -1e-12)


@given(
    scale=st.floats(0.01, 100),
    weight=st.floats(0.3, 3),
    drop=st.floats(0, 0.8),
    eps=st.floats(1e-9, 2),
)
def test_scaling_of_a_homogeneous_activation(scale, weight, drop, eps):
    """Without bias, q -> s q leaves eps' alone and multiplies q' by s."""
    field = MeanField("leaky_relu(0.1)", weight, 0.0, drop)
    one, other = field.pair_map(1.0, 1.0, eps), field.pair_map(scale, scale, eps)
    assert other[2] == pytest.approx(one[2], rel=1e-9, abs=1e-15)
    assert other[0] == pytest.approx(scale * one[0], rel=1e-12)


LENGTHS = np.geomspace(1e-200, 1e200, 9)


@pytest.mark.parametrize("skip", [0.0, 0.7])
@pytest.mark.parametrize("masks", ["independent", "shared", "clean", "weights", "layers"])
@pytest.mark.parametrize("name", ["relu", "identity", "abs", "leaky_relu(0.1)"])
def test_scaling_law_holds_over_four_hundred_decades(name, masks, skip):
    """``q_i -> s_i q_i`` multiplies ``q_i'`` by ``s_i``, whatever the other length is.

    ``q' = [skip^2 + sigma_w^2 E D^2 E phi(z)^2] q``; ``eps'`` and its slope stay as they are.
    """
    masks = {"weights": "dropconnect"}.get(masks, masks)
    field = MeanField(name, 1.3, 0.0, 0.2, masks, skip=skip)
    q1, q2, eps = (x.ravel() for x in np.meshgrid(LENGTHS, LENGTHS, [1e-12, 0.3, 1.7]))
    next1, next2, after = field.pair_map(q1, q2, eps)
    one1, one2, unit = field.pair_map(1.0, 1.0, eps)
    assert next1 == pytest.approx(one1 * q1, rel=1e-14)
    assert next2 == pytest.approx(one2 * q2, rel=1e-14)
    assert np.all(after == unit)
    assert np.all(field.gap_slope(q1, q2, eps) == field.gap_slope(1.0, 1.0, eps))


@pytest.mark.parametrize("sigma_b", [0.0, 0.1])
def test_far_lengths_are_those_of_the_limits_of_an_activation(sigma_b):
    """Without the shortcut for scale-free ones: what bends at 1 is linear, or a jump, afar."""
    eps = np.geomspace(1e-6, 1.0, 5)
    relu = MeanField("relu", 1.0).gap_map(eps)
    for q in (1e120, 1e200, 1e290):
        assert MeanField("gelu", 1.0, sigma_b).gap_map(eps, q) == pytest.approx(relu, rel=1e-12)
        jump = 2 / math.pi * 2 * np.arcsin(np.sqrt(eps / 2))  # 1 - E[sign u sign v]
        if not sigma_b:
            assert MeanField("erf", 1.0).gap_map(eps, q) == pytest.approx(jump, rel=1e-12)
    for q in (1e-120, 1e-200, 1e-290):
        for name in ("tanh", "erf", "sin"):
            assert MeanField(name, 1.0).gap_map(eps, q) == pytest.approx(eps, rel=1e-12)
        assert MeanField("relu", 1.0).kernel.gap(q, eps) / q == pytest.approx(relu / 2, rel=1e-13)


@pytest.mark.parametrize("name", ["relu", "gelu", "identity", "elu", "relu_squared"])
@pytest.mark.parametrize("sigma_b", [0.0, 1.0])
def test_a_pair_is_followed_up_to_the_end_of_float64(name, sigma_b):
    """Up to the last layer that is given all is sound; then the error says which one was next."""
    field, start = MeanField(name, 1.7, sigma_b, 0.1), (1e306, 1e305, 0.5)
    with pytest.raises(InputError, match="at layer") as caught:
        propagate([field] * 100, *start)
    depth = int(re.search(r"at layer (\d+)", str(caught.value))[1]) - 1
    path = propagate([field] * depth, *start)
    assert np.all((path.eps >= 0) & (path.eps < 1))
    assert np.all(np.isfinite(path.gradient_pair_factor))


def test_a_pair_is_followed_through_five_hundred_decades():
    field = MeanField("relu", 1e3, drop=0.1)
    path = propagate([field] * 80, 1e-240, 1e-200, 0.5)
    growth = math.log(1e6 / 2 / 0.9)
    assert np.log(path.q1) == pytest.approx(math.log(1e-240) + growth * np.arange(81), rel=1e-12)
    near = propagate([MeanField("relu", 1.0, drop=0.1)] * 80, 1.0, 1.0, 0.5)
    assert path.eps == pytest.approx(near.eps, rel=1e-13)


@given(
    q=st.floats(0.01, 100),
    eps=st.floats(1e-10, 1.9),
    weight=st.floats(0.1, 3),
    bias=st.floats(0, 1),
)
def test_shared_masks_are_no_dropout_at_larger_weights(q, eps, weight, bias):
    """sigma_w^2/rho replaces sigma_w^2: the whole map is that of another clean network."""
    masked = MeanField("tanh", weight, bias, 0.36, "shared")
    clean = MeanField("tanh", weight / 0.8, bias)
    assert np.array(masked.pair_map(q, q, eps)) == pytest.approx(
        np.array(clean.pair_map(q, q, eps)), rel=1e-9
    )


def test_unequal_lengths_reduce_to_equal_ones_and_stay_symmetric():
    field = MeanField("gelu", 1.3, 0.2, 0.1)
    assert field.pair_map(1.0, 1 + 1e-9, 0.3)[2] == pytest.approx(
        float(field.pair_map(1.0, 1.0, 0.3)[2]), rel=1e-7
    )
    a, b = field.pair_map(0.5, 3.0, 0.3), field.pair_map(3.0, 0.5, 0.3)
    assert a[2] == pytest.approx(float(b[2]), rel=1e-11)


def test_multistable_length_reports_all_fixed_points_and_follows_the_start():
    """x^3 in the middle: 0 is stable, an unstable length separates it from divergence."""
    cubic = MeanField("polynomial(0, 0.5, 0, 0.1)", 1.0)
    zero, upper = cubic.fixed_points
    assert (zero.q, zero.stable, upper.stable) == (0.0, True, False)
    low = MeanField("polynomial(0, 0.5, 0, 0.1)", 1.0, start=0.5 * upper.q)
    high = MeanField("polynomial(0, 0.5, 0, 0.1)", 1.0, start=2 * upper.q)
    assert "vanishes" in low.q.reason
    assert "diverges" in high.q.reason


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (MeanField("relu", 1.6, 0.1), "diverges"),
        (MeanField("relu_squared", 1.5, 0.0, start=3.0), "diverges"),
        (MeanField("tanh", 0.9), "vanishes"),
        (MeanField("relu", 1.0), "no fixed"),
        (MeanField("sign", 1.0), "jumps in value"),
    ],
    ids=lambda x: x if isinstance(x, str) else repr(x),
)
def test_what_does_not_exist_is_answered_with_the_reason(field, words):
    assert words in field.q.reason
    record = field.to_dict()
    assert record["q"] is None
    assert words in record["reasons"]["q"]


def test_critical_relu_keeps_every_length_and_decays_as_a_power():
    """m -> 9 pi^2/(2 l^2) (2605.21648): the log-corrected limit is reached to 15 % at l = 2000."""
    field = MeanField("relu", math.sqrt(2))
    assert field.q == 1.0
    assert "power" in field.depth_scale.correlation.reason
    eps = field.trajectory(2000, eps0=0.5).eps
    assert eps[-1] * 2000**2 == pytest.approx(9 * math.pi**2 / 2, rel=0.15)


def test_trajectory_converges_at_its_depth_scale():
    field = MeanField("tanh", 1.3, 0.3, 0.05)
    path = field.trajectory(120, q0=4.0, eps0=0.9)
    assert path.q1[-1] == pytest.approx(field.q, rel=1e-12)
    rest = np.abs(path.eps[50:60] - field.eps)
    rates = -np.log(rest[1:] / rest[:-1])
    # e^(-50/5.4) = 1e-4 of the start is left, so the quadratic term bends the rate by about that
    assert rates == pytest.approx(1 / field.depth_scale.correlation, rel=1e-4)


def test_per_layer_drop_and_reversal():
    """Rates are applied in their order: eps grows where the drop is, and early drops are damped."""
    field = MeanField("tanh", 1.0, 0.3)
    early = field.trajectory(10, eps0=0.0, drop=[0.2] * 3 + [0.0] * 7)
    late = field.trajectory(10, eps0=0.0, drop=[0.0] * 7 + [0.2] * 3)
    assert early.eps[3] > early.eps[-1] > 0
    assert np.all(late.eps[:8] == 0)
    assert late.eps[-1] > early.eps[-1]


def test_propagate_vectorises_and_gradient_multiplies_factors():
    layers = [MeanField("tanh", 1.5, 0.1), MeanField("relu", 1.4), MeanField("gelu", 1.2, 0.3, 0.2)]
    path = propagate(layers, np.array([0.5, 2.0]), np.array([0.5, 2.0]), np.array([0.1, 0.9]))
    assert path.eps.shape == (4, 2)
    single = propagate(layers, 2.0, 2.0, 0.9)
    assert path.eps[:, 1] == pytest.approx(single.eps, rel=1e-13)
    assert single.gradient[0] == pytest.approx(np.prod(single.gradient_factor))
    assert single.gradient[-1] == 1


def test_universality_amplitudes():
    """b of ReLU and leaky ReLU in closed form; g of tanh and a of erf, GELU from forty digits."""
    b = 2 * math.sqrt(2) / (3 * math.pi)
    relu = MeanField("relu", math.sqrt(2)).universality
    assert (relu.map_singularity, relu.kappa, relu.length_family) == ("kinked", 1.5, "scale-free")
    assert relu.amplitude == pytest.approx(b, rel=1e-12)
    leaky = MeanField("leaky_relu(0.2)", 1.0).universality
    assert leaky.amplitude == pytest.approx(b * 0.8**2 / 1.04, rel=1e-12)
    for name, bias2, amplitude in (
        ("tanh", 0.1, 0.498805489360 / 2),
        ("erf", 0.1, 0.270186277),
        ("hardtanh", 0.1, 0.171915039),
    ):
        point = critical_point(name, sigma_b=math.sqrt(bias2))
        found = MeanField(name, point.sigma_w, point.sigma_b).universality
        assert found.amplitude == pytest.approx(amplitude, rel=3e-9)
    gelu = critical_point("gelu", q=4.0)
    field = MeanField("gelu", gelu.sigma_w, gelu.sigma_b, start=4.0)
    assert field.universality.amplitude == pytest.approx(0.59018717, rel=1e-8)


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu", "hardtanh", "elu"])
def test_amplitude_is_the_curvature_of_the_map(name):
    """(chi eps - eps')/eps^kappa -> amplitude; the next order is a relative sqrt(eps) or eps."""
    field = MeanField(name, 1.2, 0.3)
    kind, q = field.universality, field.q
    eps = np.array([1e-6, 1e-5])
    deficit = field.chi * eps - field.gap_map(eps)
    assert deficit / eps**kind.kappa == pytest.approx(kind.amplitude, rel=2e-2), q


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"sigma_w": 0}, "sigma_w is 0"),
        ({"sigma_w": -1}, "sigma_w"),
        ({"sigma_w": math.nan}, "sigma_w"),
        ({"sigma_w": "x"}, "sigma_w"),
        ({"sigma_w": 1, "sigma_b": -0.1}, "sigma_b"),
        ({"sigma_w": 1, "drop": 1.0}, "drop is 1.0"),
        ({"sigma_w": 1, "drop": -0.01}, "drop"),
        ({"sigma_w": 1, "masks": "other"}, "masks"),
        ({"sigma_w": 1, "start": 0}, "start"),
    ],
)
def test_bad_parameters(arguments, match):
    with pytest.raises(InputError, match=match):
        MeanField("tanh", **arguments)


@pytest.mark.parametrize("depth", [0, -1, 1.5])
def test_bad_depth(depth):
    with pytest.raises(InputError, match="depth"):
        MeanField("tanh", 1.5, 0.1).trajectory(depth)


@pytest.mark.parametrize("drop", [1e-300, 1e-16, 1e-12, 1e-6])
def test_field_keeps_its_digits_for_tiny_drop(drop):
    """h = p (1 - sigma_b^2/q) and, in the ordered phase, eps* -> h/(1 - chi)."""
    field = MeanField("tanh", 1.0, 0.5, drop)
    assert field.dropout_field == pytest.approx(drop * (1 - 0.25 / field.q), rel=1e-10)
    assert field.eps == pytest.approx(field.dropout_field / (1 - field.chi), rel=10 * drop + 1e-9)


def test_scale_free_masked_against_clean_is_a_ratio_map():
    """c' = sqrt(rho) f(c)."""
    field = MeanField("relu", 1.0, 0.0, 0.1, "clean")
    assert field.dropout_field == pytest.approx(1 - math.sqrt(0.9), rel=1e-12)
    assert field.eps == pytest.approx(0.2589674, rel=1e-6)
    assert field.depth_scale.correlation == pytest.approx(3.12800, rel=1e-5)


@pytest.mark.parametrize(("name", "kappa"), [("tanh", 2), ("gelu", 2), ("relu", 1.5)])
def test_amplitude_of_masked_against_clean(name, kappa):
    """From the map itself: (h + chi eps - eps')/eps^kappa at small eps."""
    field = MeanField(name, 1.1, 0.3, 0.1, "clean")
    lengths, eps = field.settled, 1e-5
    bend = field.dropout_field + field.chi * eps - float(field.pair_map(*lengths, eps)[2])
    assert field.universality.kappa == kappa
    assert bend / eps**kappa == pytest.approx(field.universality.amplitude, rel=1e-2)


def test_length_that_jumps_over_its_fixed_point():
    """A falling length map can carry the start past an unstable length; iteration decides."""
    field = MeanField("polynomial(1, 0, -1)", math.sqrt(0.67), start=1e-3)
    assert isinstance(field.q, Undefined)


@pytest.mark.parametrize("bad", [{"q0": 0.0}, {"q0": -1.0}, {"eps0": 5.0}, {"drop": [0.1, 0.2]}])
def test_bad_starts(bad):
    with pytest.raises(InputError):
        MeanField("relu", 1.2, 0.1).trajectory(3, **{"q0": 1.0, **bad})

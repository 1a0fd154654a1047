"""The quadrature against forty-digit arithmetic, closed forms and itself."""

import json
from functools import cache
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthscale.answers import InputError
from depthscale.theory.activation import activation
from depthscale.theory.functions.catalogue import CATALOGUE
from depthscale.theory.gaussian import PairRule, Shape, expectation, gap, pair_expectation
from depthscale.theory.kernel import Kernel

# Values of E[f^2], E[f'^2], E[u f f']/q and of the gaps of f and f', computed by other methods in
# at least forty digits; tests/reference/make_gap_truth.py made them.
TRUTH = json.loads((Path(__file__).parent / "reference" / "gap_truth.json").read_text())
SPELLED = {"x^3 - x": "polynomial(0, -1, 0, 1)", "exp(-x^2)": "gaussian"}
OSCILLATING = {"sin", "cos"}  # closed forms; the quadrature resolves them up to q = 1


def _kernel(name: str, quadrature: bool = False) -> Kernel:
    return Kernel(activation(SPELLED.get(name, name)), quadrature=quadrature)


@cache
def _table(section: str, name: str) -> np.ndarray:
    return np.array([[float(x) for x in row] for row in TRUTH[section][name]]).T


def _error(value: np.ndarray, truth: np.ndarray, floor: np.ndarray | float = 1e-290) -> float:
    """Largest error relative to the truth, or to ``floor`` where the truth is smaller."""
    return float(np.max(np.abs(value - truth) / np.maximum(np.abs(truth), floor)))


def test_every_activation_of_the_catalogue_has_reference_values():
    made_of = {"prelu": "leaky_relu", "quick_gelu": "silu"}  # the same formula, another parameter
    # softshrink: its own test below; power: test_cusps.py
    elsewhere = {"sign", "step", "hardshrink", "softshrink", "power"}
    have = {SPELLED.get(name, name).split("(")[0] for name in TRUTH["gaps"]}
    assert {made_of.get(n, n) for n in CATALOGUE if n not in elsewhere} <= have


@pytest.mark.parametrize("quadrature", [False, True], ids=["default", "quadrature"])
@pytest.mark.parametrize("name", TRUTH["gaps"])
def test_gap_keeps_ten_digits_from_eps_1_to_1e_12(name, quadrature):
    """The requirement: 1e-10 for eps in [1e-12, 1] and q in [1e-4, 1e4].

    The slope gap is subtracted from the slope moment, so it needs digits only down to rounding of
    that; kinks six standard deviations out, where it is 1e-8 of it, leave it eight digits.
    """
    kernel = _kernel(name, quadrature)
    q, eps, value, slope, _ = _table("gaps", name)
    keep = (eps <= 1) & ((q <= 1) | (not (quadrature and name in OSCILLATING)))
    assert _error(kernel.gap(q[keep], eps[keep]), value[keep]) < 1e-10
    floor = 1e-14 * kernel.slope_moment(q[keep])
    assert _error(kernel.slope_gap(q[keep], eps[keep]), slope[keep], floor) < 1e-8


@pytest.mark.parametrize("name", TRUTH["gaps"])
def test_gap_of_anticorrelated_pairs(name):
    """Beyond eps = 1 the pair is reflected; no requirement there, nine digits are kept."""
    kernel = _kernel(name)
    q, eps, value, _, _ = _table("gaps", name)
    keep = eps > 1
    assert _error(kernel.gap(q[keep], eps[keep]), value[keep]) < 1e-9


@pytest.mark.parametrize("quadrature", [False, True], ids=["default", "quadrature"])
@pytest.mark.parametrize("name", TRUTH["expectations"])
def test_moments_keep_eleven_digits(name, quadrature):
    kernel = _kernel(name, quadrature)
    q, second, slope, length_slope, _ = _table("expectations", name)
    keep = (q <= 1) | (not (quadrature and name in OSCILLATING))
    q = q[keep]
    assert _error(kernel.second_moment(q), second[keep]) < 1e-11
    assert _error(kernel.slope_moment(q), slope[keep]) < 1e-11
    assert _error(kernel.length_slope(q), length_slope[keep]) < 1e-11


@given(
    q1=st.floats(1e-3, 1e3),
    ratio=st.floats(0.05, 20.0),
    eps=st.floats(1e-3, 1.9),
    below=st.floats(-1.5, 1),
)
def test_unequal_lengths_match_the_arc_cosine_kernel(q1, ratio, eps, below):
    """Two independent routes for one pair of different variances; 1e-9 covers eps near 2."""
    relu = activation(f"shaped_relu({below!r}, 1)")
    closed = Kernel(relu).gap(q1, eps, q1 * ratio)
    assert Kernel(relu, quadrature=True).gap(q1, eps, q1 * ratio) == pytest.approx(closed, rel=1e-9)


@pytest.mark.parametrize("name", ["erf", "sin", "cos", "leaky_relu(0.3)", "abs", "identity"])
def test_closed_forms_at_unequal_lengths(name):
    """Down to eps = 1e-3 no cancellation hides a wrong closed form."""
    closed, rule = Kernel(activation(name)), Kernel(activation(name), quadrature=True)
    q1, q2, eps = (
        x.ravel() for x in np.meshgrid([0.01, 0.7, 1.1], [0.02, 0.7, 0.9], [1e-3, 0.3, 1.8])
    )
    assert closed.gap(q1, eps, q2) == pytest.approx(rule.gap(q1, eps, q2), rel=1e-9)
    assert closed.slope_gap(q1, eps, q2) == pytest.approx(
        rule.slope_gap(q1, eps, q2), rel=1e-9, abs=1e-15
    )


@given(q=st.floats(1e-4, 1e4), eps=st.floats(0, 2))
def test_polynomial_moments_are_exact(q, eps):
    """E[u^2 v^2] = q^2 (1 + 2 c^2): the gap of x^2 is 2 q^2 (1 - c^2)."""
    square = gap(np.square, q, eps, Shape(symmetric=True), derivative=lambda x: 2 * x)
    assert square == pytest.approx(2 * q * q * eps * (2 - eps), rel=1e-11, abs=1e-300)
    assert expectation(lambda x: x**6, q) == pytest.approx(15 * q**3, rel=1e-11)


@given(q1=st.floats(0.01, 50), q2=st.floats(0.01, 50), eps=st.floats(0.0, 2.0))
def test_pair_expectation_of_a_product_that_is_not_symmetric(q1, q2, eps):
    """E[u v^3] = 3 q2 cov."""
    covariance = np.sqrt(q1 * q2) * (1 - eps)
    value = pair_expectation(lambda u, v: u * v**3, q1, q2, eps)
    assert value == pytest.approx(3 * q2 * covariance, rel=1e-10, abs=1e-10 * np.sqrt(q1 * q2) * q2)


@pytest.mark.parametrize("name", ["tanh", "relu", "gelu", "power(0.75)"])
@pytest.mark.parametrize(("q1", "q2"), [(0.7, 0.7), (1.2, 3.4)])
@pytest.mark.parametrize("eps", [1e-25, 1e-9, 0.3, 1.0, 1.9])
def test_one_pair_rule_has_the_normals_and_the_gap(name, q1, q2, eps):
    """Normal moments (the tails left out are 1e-11 of the fourth), ``u, v``, and the gap."""
    phi = activation(name)
    rule = PairRule.of(q1, q2, eps, phi.shape)
    normal = [1, 0, 1, 0, 3]
    for i in range(5):
        for j in range(5):
            mean = rule.weight @ (rule.s**i * rule.t**j)
            assert mean == pytest.approx(normal[i] * normal[j], rel=1e-10, abs=1e-10)
    a, b = np.sqrt(1 - eps / 2) * rule.s, np.sqrt(eps / 2) * rule.t
    assert rule.u == pytest.approx(np.sqrt(q1) * (a + b), rel=1e-12, abs=1e-13)
    assert rule.v == pytest.approx(np.sqrt(q2) * (a - b), rel=1e-12, abs=1e-13)
    square = rule.weight @ rule.difference(phi.function, phi.slope) ** 2 / 2
    expected = gap(phi.function, q1, eps, phi.shape, q2=q2, derivative=phi.slope)
    assert square == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("name", ["tanh", "erf", "gelu", "sin", "relu", "leaky_relu(0.1)", "abs"])
def test_products_of_a_short_and_a_long_signal(name):
    """``u -> 0``: ``E[f(u) f(v)]`` is that of the slopes at 0, relative to ``sqrt(q1 q2)``.

    With ``u = sqrt(q1) z``, ``E[f(u) f(v)] -> sqrt(q1) E[(a max(z, 0) - b max(-z, 0)) f(v)]``,
    ``a, b`` the slopes above and below 0.
    """
    phi = activation(name)
    below, above = phi.derivative(np.nextafter(0.0, [-1.0, 1.0]))
    eps = np.array([0.1, 0.7, 1.6])
    broken = Shape(tuple({*phi.shape.breaks, 0.0}), phi.shape.scale, phi.shape.centres)

    def linear(u, v):
        return (above * np.maximum(u, 0) - below * np.maximum(-u, 0)) * phi.function(v)

    for q1, q2 in ((1e-24, 1.5), (1e-200, 1.5), (1e-200, 0.01)):
        limit = pair_expectation(linear, 1.0, q2, eps, broken)
        found = Kernel(phi).pair_moment(q1, eps, q2) / np.sqrt(q1)
        assert found == pytest.approx(limit, rel=1e-9)
        assert Kernel(phi).pair_moment(q2, eps, q1) == pytest.approx(found * np.sqrt(q1), rel=1e-9)


@pytest.mark.parametrize("name", ["gelu", "hardtanh", "elu", "softsign"])
def test_gap_stays_relative_far_below_double_precision_of_the_correlation(name):
    """eps = 1e-30 could not even be formed as 1 - c. Leading orders: q eps E[f'^2], and for a kink
    the next order is sqrt(eps) ~ 1e-15 smaller, so the ratio must be 1 to rounding."""
    kernel = Kernel(activation(name))
    q = np.array([0.1, 1.0, 10.0])
    assert kernel.gap(q, 1e-30) / (q * 1e-30) == pytest.approx(kernel.slope_moment(q), rel=1e-12)


def test_broadcasting_and_zero_variance():
    relu = activation("relu")
    assert Kernel(relu, quadrature=True).gap(np.ones((3, 1)), np.full(4, 0.1)).shape == (3, 4)
    assert expectation(np.cos, np.array([0.0, 1.0])) == pytest.approx(
        [1.0, np.exp(-0.5)], rel=1e-12
    )


@pytest.mark.parametrize(("q", "eps"), [(-1.0, 0.1), (1.0, -0.1), (1.0, 2.1), (float("nan"), 0.5)])
def test_impossible_pairs_are_refused(q, eps):
    with pytest.raises(InputError, match="eps in"):
        gap(np.tanh, q, eps, Shape(scale=2.0))


def test_moments_beyond_the_reach_warn():
    """exp(u) at q = 16 has its weight 8 standard deviations out: a quarter of it is cut off."""
    with pytest.warns(RuntimeWarning, match="beyond 8.6 standard deviations"):
        Kernel(activation(np.exp)).watch_tails(16.0)
    Kernel(activation("polynomial(0, 1, 0, 2, 0, 1)")).watch_tails(1e4)


def test_softshrink_against_its_closed_form_and_where_it_gives_out():
    """E f^2 = 2 [(q + t^2) Phi(-t/s) - t s phi(t/s)], s = sqrt(q), cancelling: forty digits.

    All of it lies beyond the threshold, so at small q the reach of 8.6 s cuts it off: ten digits
    hold from q = 0.06 t^2 on, below 0.0135 t^2 nothing is left.
    """
    kernel, t = Kernel(activation("softshrink")), mpmath.mpf("0.5")
    for q, tolerance in ((1e4, 1e-11), (1.0, 1e-11), (0.05, 1e-11), (0.015, 1e-10), (0.01, 1e-8)):
        with mpmath.workdps(40):
            s = mpmath.sqrt(q)
            tail = mpmath.ncdf(-t / s)
            truth = 2 * ((q + t * t) * tail - t * s * mpmath.npdf(t / s))
        assert float(kernel.second_moment(q)) == pytest.approx(float(truth), rel=tolerance)
    assert kernel.second_moment(3e-3) == 0

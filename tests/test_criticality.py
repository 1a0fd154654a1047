"""Critical points, lines and phase diagrams."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from depthscale.answers import InputError, Undefined
from depthscale.theory.criticality import critical_line, critical_point, max_drop
from depthscale.theory.meanfield import MeanField
from depthscale.theory.phase import PHASES, phase_diagram

REFERENCE = json.loads((Path(__file__).parent / "reference" / "gap_truth.json").read_text())[
    "critical"
]


@pytest.mark.parametrize("name", ["tanh", "erf", "hardtanh"])
def test_critical_points_against_forty_digits(name):
    truth = REFERENCE[f"{name} sigma_b^2=0.1"]
    point = critical_point(name, sigma_b=math.sqrt(0.1))
    assert point.sigma_w**2 == pytest.approx(float(truth["sigma_w^2"]), rel=1e-10)
    assert point.q == pytest.approx(float(truth["q"]), rel=1e-10)
    assert point.chi == pytest.approx(1, abs=1e-12)


def test_gelu_critical_at_q_4():
    point = critical_point("gelu", q=4.0)
    assert point.sigma_w**2 == pytest.approx(1.97610977, rel=5e-9)
    assert point.sigma_b**2 == pytest.approx(0.18637490, rel=5e-8)


def test_tanh_sigma_b2_005_and_the_gradient_line():
    """sigma_w^2 = 1.7609546396 (q = .5700478816); dropout multiplies the chi_1 = 1 line by rho."""
    base = critical_point("tanh", sigma_b=math.sqrt(0.05))
    assert (base.sigma_w**2, base.q) == pytest.approx((1.7609546396, 0.5700478816), rel=1e-10)
    for drop, eps, xi in ((0.05, 1 - 0.55018675, 6.68486834), (0.1, 1 - 0.42254592, 4.57105685)):
        line = critical_point("tanh", sigma_b=math.sqrt(0.05), drop=drop, convention="gradient")
        assert line.sigma_w**2 == pytest.approx((1 - drop) * base.sigma_w**2, rel=1e-12)
        assert line.q == pytest.approx(base.q, rel=1e-12)
        field = MeanField("tanh", line.sigma_w, line.sigma_b, drop)
        assert field.eps == pytest.approx(eps, abs=6e-9)
        assert field.depth_scale.correlation == pytest.approx(xi, rel=1e-8)
        assert line.chi == pytest.approx(1 - drop, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "drop", "q", "h", "eps", "xi"),
    [
        ("tanh", 1e-4, 0.806091873, 8.759446617e-5, 1.890733548e-2, 108.400529),
        ("hardtanh", 1e-3, None, 8.422108976e-4, 2.880881755e-2, 22.313331),
    ],
)
def test_retuned_with_dropout(name, drop, q, h, eps, xi):
    point = critical_point(name, sigma_b=math.sqrt(0.1), drop=drop)
    field = MeanField(name, point.sigma_w, point.sigma_b, drop)
    if q:
        assert field.q == pytest.approx(q, rel=1e-9)
    assert field.detuning == pytest.approx(0, abs=1e-12)
    assert field.dropout_field == pytest.approx(h, rel=1e-9)
    assert field.eps == pytest.approx(eps, rel=1e-9)
    assert field.depth_scale.correlation == pytest.approx(xi, rel=3e-8)  # eight printed digits


def test_not_retuned_tanh_drifts_away():
    weight = float(REFERENCE["tanh sigma_b^2=0.1"]["sigma_w^2"])
    field = MeanField("tanh", math.sqrt(weight), math.sqrt(0.1), 1e-2)
    assert field.detuning == pytest.approx(-5.719e-3, abs=5e-7)
    assert field.eps == pytest.approx(0.189726539, rel=1e-8)
    assert field.depth_scale.correlation == pytest.approx(11.89647, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("softplus", {"sigma_b": 0.3}, "sigma_b^2 < 0"),
        ("sigmoid", {"q": 4.0}, "sigma_b^2"),
        ("gelu", {"q": 1.0}, "unstable"),
        ("silu", {"q": 10.0}, "unstable"),
        ("gelu", {"q": 4.0, "drop": 0.1}, "sigma_b^2"),
        ("gelu", {"sigma_b": 0.1}, "unstable"),
        ("tanh", {"sigma_b": 0.0}, "vanishes"),
        ("relu", {"sigma_b": 0.1}, "only at sigma_b = 0"),
        ("relu", {"sigma_b": 0.0, "drop": 0.1}, "scale-free"),
        ("sign", {"sigma_b": 0.1}, "jumps in value"),
    ],
)
def test_where_none_exists_the_reason_is_given(name, given, words):
    point = critical_point(name, **given)
    assert not point.exists
    assert words in point.reason
    assert isinstance(point.sigma_w, Undefined)
    assert point.to_dict()["sigma_w"] is None


def test_stability_bounds_of_gelu_and_silu():
    """The length map on the critical line is stable above q = 3.6 and 14.3 (and unstable below)."""
    for name, below, above in (("gelu", 3.5, 3.7), ("silu", 14.1, 14.8)):
        assert not critical_point(name, q=below).exists
        assert critical_point(name, q=above).exists


def test_sigmoid_is_critical_at_large_weights_only():
    """It has been said to have no critical point. Its bias would indeed be negative for q < 45, but
    E[phi'^2] falls like q^(-1/2) while E[phi^2] saturates at 1/2, so for larger q it is positive.
    Settled by a wide network with explicit weights: see test_brute_force."""
    point = critical_point("sigmoid", sigma_b=0.1)
    assert point.exists
    assert point.sigma_w > 10
    assert point.q > 45
    # independent check of both conditions by the trapezoidal rule
    z = np.linspace(-10, 10, 20001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    s = 1 / (1 + np.exp(-math.sqrt(point.q) * z))
    assert point.sigma_w**2 * density @ (s * (1 - s)) ** 2 == pytest.approx(1, rel=1e-9)
    assert point.sigma_w**2 * density @ s**2 + 0.01 == pytest.approx(point.q, rel=1e-9)


def test_relu_family():
    assert critical_point("relu", sigma_b=0.0).sigma_w == pytest.approx(math.sqrt(2))
    assert critical_point("abs", sigma_b=0.0).sigma_w == pytest.approx(1)
    line = critical_point("leaky_relu(0.2)", sigma_b=0.0, drop=0.3, convention="gradient")
    assert line.sigma_w**2 == pytest.approx(2 * 0.7 / 1.04)


def test_tanh_without_bias_is_critical_under_dropout():
    """q -> sqrt(3 p)/2 as p -> 0 (leading order; the next is of relative order sqrt p)."""
    point = critical_point("tanh", sigma_b=0.0, drop=1e-6)
    assert point.q == pytest.approx(math.sqrt(3e-6) / 2, rel=5e-3)


def test_critical_line_is_a_dataset_of_points():
    line = critical_line("gelu", q=[1.0, 4.0, 9.0])
    assert line.exists.values.tolist() == [False, True, True]
    assert np.isnan(line.sigma_w[0])
    assert "unstable" in str(line.reason[0].values)
    assert float(line.sigma_w[1]) ** 2 == pytest.approx(1.97610977, rel=5e-9)


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_max_drop_gives_the_depth_back(name):
    bias = 0.3 if name == "tanh" else 0.0
    drop = max_drop(name, 25, sigma_b=bias)
    weight = critical_point(name, sigma_b=bias, drop=drop).sigma_w if name == "tanh" else 1.0
    field = MeanField(name, weight, bias, drop)
    assert field.depth_scale.correlation == pytest.approx(25, rel=1e-6)


def test_max_drop_where_criticality_needs_dropout():
    """tanh without bias is critical only under dropout; c' = sqrt(rho) f(c) for a clean partner."""
    assert max_drop("tanh", 25, sigma_b=0.0) == pytest.approx(0.0265645, rel=1e-5)
    assert max_drop("relu", 20, masks="clean") == pytest.approx(7.5312e-4, rel=1e-4)
    assert max_drop("cos", 3, sigma_b=0.1) or isinstance(max_drop("cos", 3, sigma_b=0.1), Undefined)


def test_max_drop_answers_with_a_reason():
    assert "sigma_b^2 < 0" in max_drop("softplus", 25, sigma_b=0.1).reason
    assert "shared" in max_drop("tanh", 25, sigma_b=0.1, masks="shared").reason


class TestPhaseDiagram:
    @pytest.mark.parametrize("name", ["tanh", "relu", "gelu", "hardtanh"])
    @pytest.mark.parametrize("drop", [0.0, 0.05])
    def test_every_cell_is_its_mean_field(self, name, drop):
        """The vectorised solution against the one-network class, which shares only the maps."""
        grid = phase_diagram(name, np.linspace(0.6, 2.6, 7), np.linspace(0, 0.8, 4), drop)
        assert set(grid.dims) == {"sigma_w", "sigma_b"}
        for w in grid.sigma_w.values:
            for b in grid.sigma_b.values:
                cell, field = grid.sel(sigma_w=w, sigma_b=b), MeanField(name, w, b, drop)
                for key in ("eps", "chi", "dropout_field", "gradient_factor", "q"):
                    mine, theirs = getattr(field, key), float(cell[key])
                    if isinstance(mine, Undefined):
                        assert np.isnan(theirs) or key == "q"
                    else:
                        assert theirs == pytest.approx(mine, rel=1e-8, abs=1e-12), (key, w, b)
                scale, other = field.depth_scale.correlation, float(cell.depth_scale_correlation)
                if not isinstance(scale, Undefined):
                    assert other == pytest.approx(scale, rel=1e-7)

    def test_phases_and_third_axis(self):
        grid = phase_diagram("tanh", [0.8, 3.0], [0.3], drop=[0.0, 0.1])
        assert grid.sizes == {"sigma_w": 2, "sigma_b": 1, "drop": 2}
        names = [PHASES[int(i)] for i in grid.phase.isel(sigma_b=0).values.ravel()]
        assert names == ["ordered", "dropout", "chaotic", "dropout"]

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"sigma_w": [0.0, 1.0], "sigma_b": [0.1]}, "sigma_w is 0"),
            ({"sigma_w": [1.0], "sigma_b": [-0.1]}, "sigma_b"),
            ({"sigma_w": [1.0], "sigma_b": [0.1], "drop": [0.2, 1.0]}, "drop is 1.0"),
            ({"sigma_w": [], "sigma_b": [0.1]}, "shape"),
            ({"sigma_w": [1.0], "sigma_b": [0.1], "masks": "clean"}, "masks"),
        ],
    )
    def test_bad_axes(self, arguments, match):
        with pytest.raises(InputError, match=match):
            phase_diagram("tanh", **arguments)


@pytest.mark.parametrize(("sigma_b", "q"), [(None, None), (0.1, 1.0)])
def test_exactly_one_of_bias_and_length(sigma_b, q):
    with pytest.raises(InputError, match="exactly one"):
        critical_point("tanh", sigma_b=sigma_b, q=q)


@pytest.mark.parametrize("name", ["tanh", "erf", "hardtanh", "elu", "gelu"])
@pytest.mark.parametrize("q", [0.1, 1.0, 10.0, 100.0])
def test_bias_and_length_name_the_same_point(name, q):
    """The search over lengths must not lose roots that fall on its own grid."""
    point = critical_point(name, q=q)
    if not point.exists:
        assert name == "gelu"
        return
    again = critical_point(name, sigma_b=point.sigma_b)
    assert any(
        abs(found / q - 1) < 1e-6 for found in [again.q, *(a[2] for a in again.alternatives)]
    )


def test_masked_against_clean_has_no_critical_point_of_its_own():
    with pytest.raises(InputError, match="independent or shared"):
        critical_point("tanh", sigma_b=0.3, drop=0.1, masks="clean")


@pytest.mark.parametrize("detuning", [1e-9, 1e-8, 1e-6])
def test_phase_diagram_next_to_a_kinked_critical_point(detuning):
    """eps* = (t/b)^2 to leading order; the next is a relative eps* (no eps^2 term)."""
    point = critical_point("hardtanh", sigma_b=math.sqrt(0.1))
    weight = point.sigma_w * (1 + detuning)
    cell = phase_diagram("hardtanh", [weight], [point.sigma_b]).isel(sigma_w=0, sigma_b=0)
    b = MeanField("hardtanh", weight, point.sigma_b).universality.amplitude
    # rounding of chi - 1 is 1e-15
    assert float(cell.eps) == pytest.approx((float(cell.detuning) / b) ** 2, rel=1e-14 / detuning)

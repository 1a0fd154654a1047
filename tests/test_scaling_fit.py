"""Bases and the projected fit: derivatives by differences, covariances by Monte Carlo.

Spreads of ``N`` draws have a relative standard error of ``1/sqrt(2N)``; they are held to 4.5 of it,
beyond which one normal number lies in 1 of 150,000 tests. Seeds are fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.interpolate import BSpline

from depthscale.scaling.bases import Basis, Warp
from depthscale.scaling.collapse import collapse
from depthscale.scaling.families import best_fits, coarse, weights
from depthscale.scaling.fit import Problem, overlap, solve
from depthscale.scaling.form import Form
from depthscale.scaling.points import as_points
from depthscale.scaling.uncertainty import profile, resampled
from depthscale.scaling.windows import _refitted, _window
from scaling_truth import DP, ISING, SMEARED, draw, realisations

STANDARD_ERRORS = 4.5


def problem_of(data, uncertainty="error", **fixed) -> Problem:
    how = data.named("" if uncertainty == "covariance" else uncertainty)
    if uncertainty == "covariance":
        how["covariance"] = data.covariance
    table = data.raw if uncertainty == "realisation" else data.table
    points = as_points(table, variables=list(data.law.grid), **how)
    return Problem(points, Form.parse(data.form, list(data.law.grid), data.law.y), fixed)


def truth_of(problem, law) -> np.ndarray:
    return np.array([law.truth[name] for name in problem.names])


def assert_spread(found, stated, draws, more=0.0):
    """Standard deviations over draws, and the stated ones, ``more`` apart at most besides."""
    allowed = STANDARD_ERRORS / math.sqrt(2 * draws) + more
    assert found == pytest.approx(stated, rel=allowed)


class TestBases:
    @pytest.mark.parametrize("kind", ["spline", "polynomial"])
    @pytest.mark.parametrize("size", [4, 5, 9])
    def test_slopes_are_derivatives(self, kind, size):
        basis = Basis(kind, (Warp("linear"),), (size,))
        u = np.linspace(0.003, 0.997, 57)
        h = 1e-6
        up, down = (basis.design([u + s * h])[0] for s in (1, -1))
        _, (slopes,) = basis.design([u])
        assert slopes == pytest.approx((up - down) / (2 * h), abs=1e-7 * size**4)

    @pytest.mark.parametrize("size", [4, 7, 20])
    def test_splines_are_those_of_de_boor_and_sum_to_one(self, size):
        u = np.linspace(0, 1, 101)
        values, (slopes,) = Basis("spline", (Warp("linear"),), (size,)).design([u])
        pieces = size - 3
        knots = np.arange(-3, pieces + 4) / pieces
        inside = np.clip(u, 0, 1 - 1e-15)
        exact = BSpline.design_matrix(inside, knots, 3).toarray()
        assert values == pytest.approx(exact, abs=1e-12)
        assert values.sum(axis=1) == pytest.approx(1, abs=1e-14)
        assert slopes.sum(axis=1) == pytest.approx(0, abs=1e-12)

    def test_two_arguments_multiply(self):
        basis = Basis("spline", (Warp("linear"),) * 2, (5, 4))
        u, v = np.random.default_rng(0).random((2, 30))
        values, slopes = basis.design([u, v])
        assert values.shape == (30, basis.size)
        assert values.sum(axis=1) == pytest.approx(1)
        h = 1e-6
        for k, slope in enumerate(slopes):
            up, down = (basis.design([u + s * h * (k == 0), v + s * h * (k == 1)])[0]
                        for s in (1, -1))  # fmt: skip
            assert slope == pytest.approx((up - down) / (2 * h), abs=1e-6)

    @pytest.mark.parametrize("kind", ["linear", "asinh", "log"])
    def test_warps_follow_their_moving_ends(self, kind):
        """``u`` along a path of points: its derivative has the ends and the scale moving too."""
        generator = np.random.default_rng(1)
        x, dx = generator.uniform(0.5, 20, 40), generator.standard_normal((2, 40))
        if kind != "log":
            x = x - 7.0
        warp = Warp(kind)
        here = warp(x, dx)
        assert here.u.min() == 0
        assert here.u.max() == 1
        for k in range(2):
            h = 1e-6
            up, down = (warp(x + s * h * dx[k], dx).u for s in (1, -1))
            assert here.du[k] == pytest.approx((up - down) / (2 * h), abs=1e-8)
        assert warp.again(x, here) == pytest.approx(here.u)

    def test_warps_that_cannot_be(self):
        one = np.ones((1, 5))
        assert Warp("log")(np.array([0.0, 1, 2, 3, 4]), one) is None
        assert Warp("asinh")(np.zeros(5), one) is None
        assert Warp("linear")(np.full(5, 3.0), one) is None


class TestProjection:
    @pytest.mark.parametrize("law", [ISING, DP, SMEARED], ids=lambda law: law.name)
    def test_jacobian_where_nothing_is_left_over(self, law):
        """Kaufman's is exact there: y is made of the curve that the family holds."""
        data = draw(law, 0)
        problem = problem_of(data)
        free = truth_of(problem, law)
        basis = coarse(problem, free)
        trial = problem.at(free, basis)
        found = problem.scaled(free)
        design, _ = basis.design([w.u for w in trial.warped])
        exact = problem.with_y(found.prefactor * (design @ trial.coefficients))
        jacobian = exact.at(free, basis).jacobian
        for k in range(len(free)):
            step = np.zeros(len(free))
            step[k] = 1e-6
            up, down = (exact.at(free + s * step, basis).residual for s in (1, -1))
            slope = (up - down) / 2e-6
            # the smoothness that settles idle coefficients, 1e-9, is left over: 1e-4 of a slope
            assert jacobian[:, k] == pytest.approx(slope, abs=1e-3 * np.abs(slope).max())

    def test_whitening_is_that_of_the_covariance(self):
        data = draw(DP, 1, correlation=0.8)
        problem = problem_of(data, "covariance")
        n = len(problem.y)
        eye = problem.whiten(np.eye(n))
        assert eye.T @ eye == pytest.approx(np.linalg.inv(data.covariance), rel=1e-6, abs=1e-3)
        assert problem.unwhiten(np.eye(n)) == pytest.approx(eye.T)

    def test_units_do_not_matter(self):
        """Parameters and errors follow a change of units, a correction's amplitude among them."""
        data = draw(ISING, 2)
        table = data.table
        other = {**table, "T": table["T"] * 1e9, "L": table["L"] * 1e-9, "m": table["m"] * 1e-30,
                 "error": table["error"] * 1e-30}  # fmt: skip
        form = f"{data.form} * (1 + a*L^-2)"
        one, two = (collapse(t, form, **data.named()) for t in (table, other))
        factors = {"Tc": 1e9, "c1": 1.0, "c2": 1.0, "a": 1e-18}
        for name, factor in factors.items():
            assert two[name].error == pytest.approx(one[name].error * factor, rel=0.02)
            assert two[name].value == pytest.approx(
                one[name].value * factor, abs=0.05 * two[name].error
            )

    def test_amplitudes_of_large_lattices_are_not_pulled_to_zero(self):
        """``a`` is 1e5 where sizes are hundreds: the size at which it is held grows with them."""
        data = draw(ISING, 3, noise=0.001)
        L = data.table["L"] * 100
        factor = (1 + 1e6 / L**2) * (data.table["L"] / L) ** 0.125
        table = {**data.table, "L": L, "m": data.table["m"] * factor,
                 "error": data.table["error"] * factor}  # fmt: skip
        found = collapse(table, f"{data.form} * (1 + a*L^-2)", **data.named())
        assert abs(found["a"].value - 1e6) < 4 * found["a"].error
        assert found["a"].error < 2e5

    def test_parameters_that_nothing_settles_have_no_error(self):
        data = draw(ISING, 4)
        for form, idle in (
            ("L^-(c2 + q) * F((T - Tc)*L^c1)", ("c2", "q")),
            ("q * L^-c2 * F((T - Tc)*L^c1)", ("q",)),
            ("L^-c2 * F(q*(T - Tc)*L^c1)", ("q",)),
        ):
            found = collapse(data.table, form, **data.named())
            for name in found.names:
                assert math.isinf(found[name].error) == (name in idle), (form, name)
            assert any("do not settle all parameters" in w for w in found.warnings)

    def test_weights_and_order_of_families(self):
        problem = problem_of(draw(DP, 0))
        fits = best_fits(problem, truth_of(problem, DP))
        aic = [fit.criterion for fit in fits]
        assert aic == sorted(aic)
        assert weights(fits).sum() == pytest.approx(1)
        assert weights(fits)[0] == max(weights(fits))

    def test_overlap(self):
        labels = np.repeat([1.0, 2.0], 5)
        x = np.r_[np.linspace(0, 1, 5), np.linspace(0.5, 1.5, 5)]
        assert overlap([x], labels) == pytest.approx(0.6)  # .5 .75 1 of both
        assert overlap([np.r_[x[:5], x[5:] + 9]], labels) == 0


def refits(problem, basis, start, ys):
    return np.array([solve(problem.with_y(y), basis, start).free for y in ys])


class TestCovariance:
    DRAWS = 300

    @pytest.mark.parametrize("uncertainty", ["error", "covariance"])
    def test_is_the_spread_over_draws(self, uncertainty):
        """To 5 % besides, for what is not linear in the noise."""
        correlation = 0.7 if uncertainty == "covariance" else 0.0
        data = draw(DP, 0, correlation=correlation)
        problem = problem_of(data, uncertainty)
        start = truth_of(problem, DP)
        basis = Basis("spline", (Warp("asinh"),), (8,))
        exact = problem.with_y(DP.exact(data.table))
        stated = np.sqrt(np.diag(solve(exact, basis, start).covariance))
        ys = (draw(DP, s, correlation=correlation).table["m"] for s in range(self.DRAWS))
        found = refits(problem, basis, start, ys)
        assert_spread(found.std(axis=0), stated, self.DRAWS, 0.05)
        bias = (found.mean(axis=0) - start) / stated
        assert np.abs(bias).max() < 0.3

    def test_windows_shift_by_the_stated_variance(self):
        """Correlated along curves: shifts in their standard errors have spread 1, and the chances
        are even, held by the mean of uniform numbers, of error .29/sqrt(N)."""
        shifts, chances = [], []
        basis = Basis("spline", (Warp("asinh"),), (8,))
        draws = 150
        for seed in range(draws):
            data = draw(DP, seed, correlation=0.7)
            problem = problem_of(data, "covariance")
            fit = solve(problem, basis, truth_of(problem, DP))
            mask = problem.points.columns["L"] >= 64
            window = _window(fit, _refitted(fit, mask), mask, "", 1.0)
            shifts.append(list(window.shifts.values()))
            if window.p_value is not None:  # a hundredth, where chi-square is bad
                chances.append(window.p_value)
        assert len(chances) > 0.9 * draws
        assert_spread(np.sqrt(np.mean(np.square(shifts), axis=0)), np.ones(3), draws, 0.08)
        assert abs(np.mean(chances) - 0.5) < STANDARD_ERRORS * 0.29 / math.sqrt(draws)

    def test_chi_square_of_realisations_is_the_expected_one(self):
        """Its mean over draws, for many and for few runs whose errors scatter; 3 % besides, since
        the expected ones are estimated from the same runs."""
        basis = Basis("spline", (Warp("asinh"),), (8,))
        for runs in (60, 12):
            found, mean, variance = [], [], []
            for seed in range(60):
                problem = problem_of(realisations(DP, seed, runs=runs, noise=0.003), "realisation")
                fit = solve(problem, basis, truth_of(problem, DP))
                found.append(fit.chi2)
                mean.append(fit.chi2_expected[0])
                variance.append(fit.chi2_expected[1])
            error = np.std(found) / math.sqrt(len(found))
            allowed = STANDARD_ERRORS * error + 0.03 * np.mean(mean)
            assert abs(np.mean(found) - np.mean(mean)) < allowed
            # at most twice too wide or narrow: it sets how often a good collapse is refused
            assert 0.5 < np.std(found) / math.sqrt(np.mean(variance)) < 2

    def test_resamples_of_realisations_have_the_right_spread(self):
        """Against draws of the whole data set: 60 of them are good to 9 %, 60 resamples too."""
        basis = Basis("spline", (Warp("asinh"),), (8,))
        values, spreads = [], []
        for seed in range(60):
            problem = problem_of(realisations(DP, seed, runs=50, noise=0.005), "realisation")
            fit = solve(problem, basis, truth_of(problem, DP))
            values.append(fit.free)
            if seed < 4:
                spreads.append(resampled(fit, 60, seed).std(axis=0))
        assert_spread(np.std(values, axis=0), np.mean(spreads, axis=0), 50, 0.05)

    def test_resamples_are_those_of_the_seed(self):
        problem = problem_of(realisations(DP, 0, runs=20), "realisation")
        fit = solve(problem, Basis("spline", (Warp("asinh"),), (6,)), truth_of(problem, DP))
        assert (resampled(fit, 5, 3) == resampled(fit, 5, 3)).all()
        assert (resampled(fit, 5, 3)[:3] == resampled(fit, 3, 3)).all()
        assert (resampled(fit, 3, 3) != resampled(fit, 3, 4)).all()


class TestProfile:
    def test_limits_are_where_chi_square_has_risen(self):
        data = draw(DP, 0)
        problem = problem_of(data)
        fit = solve(problem, Basis("spline", (Warp("asinh"),), (8,)), truth_of(problem, DP))
        errors = np.sqrt(np.diag(fit.covariance))
        for k, name in enumerate(problem.names):
            ends = profile(fit, k, 1.0, errors[k])
            assert ends[0] < fit.free[k] < ends[1]
            # near a normal likelihood: within a fifth of the errors by curvature
            assert (ends[1] - ends[0]) / 2 == pytest.approx(errors[k], rel=0.2)
            for end in ends:
                held = Problem(problem.points, problem.form, {name: end})
                others = solve(held, fit.basis, np.delete(fit.free, k))
                assert others.chi2 - fit.chi2 == pytest.approx(1, abs=0.02)

    def test_no_limit_where_a_parameter_is_idle(self):
        data = draw(ISING, 0)
        found = collapse(data.table, "q * L^-c2 * F((T - Tc)*L^c1)", **data.named(), profile=True)
        assert not math.isfinite(found["q"].high)
        assert math.isfinite(found["c1"].high)

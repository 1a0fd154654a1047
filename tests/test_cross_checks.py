"""The two other methods: against their definitions written out, known truth, and the fit."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from depthscale.scaling.collapse import collapse
from depthscale.scaling.cross_checks import cross_checks, gaussian_process, houdayer_hartmann
from depthscale.scaling.process import MODES, Evidence, _functions
from depthscale.scaling.quality import Quality, propagated
from scaling_truth import DP, ISING, SMEARED, draw, realisations


@pytest.fixture(scope="module")
def fitted():
    return collapse(draw(DP, 0).table, DP.form, y="m", x="T", size="L", error="error").fit


def by_hand(x, y, error, labels) -> tuple[float, int]:
    """S, point by point and curve by curve as the definition reads."""
    terms = []
    for i in range(len(x)):
        near = []
        for label in np.unique(labels[labels != labels[i]]):
            line = np.flatnonzero(labels == label)
            line = line[np.argsort(x[line])]
            for j, k in pairwise(line):
                if x[j] <= x[i] < x[k]:
                    near += [j, k]
        if near:
            w = 1 / error[near] ** 2
            design = np.stack([np.ones(len(near)), x[near]], axis=1)
            covariance = np.linalg.inv(design.T @ (w[:, None] * design))
            at = np.array([1, x[i]])
            height = at @ covariance @ design.T @ (w * y[near])
            terms.append((y[i] - height) ** 2 / (error[i] ** 2 + at @ covariance @ at))
    return float(np.mean(terms)), len(terms)


def test_quality_is_its_definition(fitted):
    places = [fitted.free, fitted.free + np.array([0.01, 0.002, -0.02])]
    for free in places:
        found = fitted.problem.scaled(free)
        points = fitted.problem.points
        expected, count = by_hand(
            found.arguments[0],
            points.y / found.prefactor,
            points.error / found.prefactor,
            points.columns["L"],
        )
        terms = Quality(fitted).terms(free)
        assert terms.quality == pytest.approx(expected, rel=1e-6)
        assert len(terms.residual) == count


def test_quality_is_at_its_least_and_noise_is_carried_through(fitted):
    """S with its neighbours held is quadratic near its least: rises by 1 where its Hessian says."""
    check, quality = houdayer_hartmann(fitted), Quality(fitted)
    best = np.array([check.values[name] for name in fitted.problem.names])
    assert check.measure <= quality.terms(fitted.free).quality
    unit = np.sqrt(np.diag(fitted.covariance))
    errors, rises = propagated(quality, best, unit)
    pairs = quality.terms(best).pairs
    slopes = []
    for k in range(3):
        step = np.eye(3)[k] * 0.1 * unit[k]
        up, down = (quality.terms(best + s * step, pairs).residual for s in (1, -1))
        slopes.append((up - down) / (2 * step[k]))
    hessian = 2 * np.array(slopes) @ np.array(slopes).T / len(slopes[0])
    assert np.sqrt(2 * np.diag(np.linalg.inv(hessian))) == pytest.approx(rises)
    assert (errors < rises).all()


@pytest.mark.parametrize("length", [0.08, 0.3, 1.5])
def test_functions_are_those_of_the_process(length):
    """Their products against the covariance, of size 1: what the box cuts off is below 1e-3."""
    u = np.linspace(0, 1, 41)
    columns = _functions(u, length, MODES)
    exact = np.exp(-((u[:, None] - u) ** 2) / (2 * length**2))
    assert np.abs(columns @ columns.T - exact).max() < 1e-3


def test_evidence_is_the_density_of_a_normal(fitted):
    """With the covariance of all points written out, and differences of places alone."""
    evidence = Evidence(fitted)
    places = [evidence.start(), evidence.start() + np.array([0.01, 0.001, 0.02, 0.3, -0.2])]
    exact = []
    for place in places:
        columns = evidence._columns(place)
        whole = columns @ columns.T + np.diag(fitted.problem.points.error**2)
        y = fitted.problem.points.y
        exact.append((np.linalg.slogdet(whole)[1] + y @ np.linalg.solve(whole, y)) / 2)
        slope = evidence.pull(place)
        assert slope == pytest.approx(np.linalg.solve(whole, y), rel=1e-5, abs=1e-5)
    assert evidence(places[1]) - evidence(places[0]) == pytest.approx(exact[1] - exact[0], abs=1e-5)


def test_all_methods_agree_on_known_truth():
    """12 draws of two laws, 36 numbers a method.

    Distances between methods are at most the two errors added, whatever their correlation: none of
    72 is above 4 of these. To the truth, the mean square distance in errors over 36 correlated
    numbers is below 2 for the process (the chance is below 1e-3 even if only 12 were independent),
    below 4 for Houdayer and Hartmann's measure, whose straight lines bias it by half an error.
    """
    off = {"houdayer_hartmann": [], "gaussian_process": []}
    for seed in range(6):
        for law in (DP, ISING):
            data = draw(law, seed)
            found = collapse(data.table, data.form, **data.named(), start=law.truth)
            for name, check in cross_checks(found.fit).items():
                for parameter, truth in data.truth.items():
                    value, error = check.values[parameter], check.errors[parameter]
                    apart = abs(value - found[parameter].value)
                    assert apart < 4 * (error + found[parameter].error), (law.name, seed, name)
                    off[name].append((value - truth) / error)
    assert np.mean(np.square(off["gaussian_process"])) < 2
    assert np.mean(np.square(off["houdayer_hartmann"])) < 4


def test_two_arguments(fitted):
    data = draw(SMEARED, 0)
    found = collapse(data.table, data.form, **data.named(), start=SMEARED.truth)
    for check in cross_checks(found.fit).values():
        for name, truth in data.truth.items():
            assert abs(check.values[name] - truth) < 5 * check.errors[name]


def test_realisations_and_unknown_errors():
    """Errors of noise along trajectories are about those of the fit; 100 runs tell 7 %."""
    data = realisations(DP, 1, runs=100, noise=0.01)
    found = collapse(data.raw, data.form, **data.named("realisation"), resamples=0)
    for check in cross_checks(found.fit).values():
        for name in data.truth:
            assert 0.5 < check.errors[name] / found[name].error < 2
    table = draw(DP, 2).table
    known = collapse(table, DP.form, y="m", x="T", size="L", error="error")
    unknown = collapse(table, DP.form, y="m", x="T", size="L")
    for one, other in zip(
        cross_checks(known.fit).values(), cross_checks(unknown.fit).values(), strict=True
    ):
        for name in DP.truth:
            assert other.errors[name] == pytest.approx(one.errors[name], rel=0.5)


def test_nothing_to_tell(fitted):
    """A parameter that nothing depends on has no error, and curves apart no neighbours."""
    T, L = np.tile(np.linspace(1.0, 2.0, 8), 3), np.repeat([1.0, 10.0, 100.0], 8)
    table = {"T": T, "L": L, "m": 1 / (T * L), "e": 0.01 / (T * L)}
    found = collapse(table, "F(T*L^a*(b/b))", y="m", x="T", size="L", error="e",
                     start={"a": 1.0, "b": 1.0})  # fmt: skip
    for check in cross_checks(found.fit).values():
        json.dumps(check.to_dict(), allow_nan=False)
        assert str(check)
    held = collapse(draw(DP, 0).table, DP.form, y="m", x="T", size="L", error="error",
                    fixed=DP.truth)  # fmt: skip
    assert cross_checks(held.fit) == {}


def test_records(fitted):
    for check in (houdayer_hartmann(fitted), gaussian_process(fitted)):
        payload = json.loads(json.dumps(check.to_dict(), allow_nan=False))
        assert set(payload["parameters"]) == {"Tc", "c1", "c2"}
        assert all(row["error"] > 0 for row in payload["parameters"].values())
        assert all(name in str(check) for name in payload["parameters"])
        with pytest.raises(AttributeError):
            check.measure = 0.0


def test_errors_of_the_process_are_those_of_the_hessian(fitted):
    """By Gauss and Newton's curvature of the fit they are near: within a quarter."""
    check = gaussian_process(fitted)
    own = np.sqrt(np.diag(fitted.covariance))
    assert list(check.errors.values()) == pytest.approx(own.tolist(), rel=0.25)

"""Paths: their orders, their laws against densities and closed forms, jumps, seeds, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import kstwobign

from depthscale.answers import InputError
from depthscale.finite.diffusion import alignment_paths
from depthscale.finite.diffusion.alignment_paths import Jumps, sample_unshaped
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.equation import IDENTITY, Equation
from depthscale.finite.diffusion.law import DensityLaw, SampleLaw
from depthscale.finite.diffusion.paths import BLOCK, STRETCH, plan, sample, schedule
from depthscale.finite.diffusion.programs import ExactMoves, Room, Splitting
from depthscale.finite.diffusion.shaped import ShapedReLU
from depthscale.finite.diffusion.smooth import ShapedSmooth
from depthscale.finite.diffusion.solve import limit_law
from depthscale.finite.diffusion.transition import SCORES, WEIGHTS, moves, quantiles
from depthscale.finite.diffusion.unshaped import Unshaped
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.theory.diffusion import AlignmentEquation, stochastic_limit
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField

SHAPED, START = ShapedReLU(0.0, -1.0), math.atanh(0.3)
RELU = AlignmentEquation(2 * math.sqrt(2) / (3 * math.pi), 0.5, 8.0, -2.0)
FIELD = AlignmentEquation(0.14, 1.0, 3.9, -1.6, 0.0, 2.0)
FAR = float(kstwobign.ppf(0.999))
"""Samples of a law are farther from it than ``FAR/sqrt(N)`` once in 1000 times."""


class Restoring(Equation):
    """``du = -2 (u - 1) dt + 0.7 dB``, whose law is normal and known."""

    @property
    def noise(self) -> float:
        return 0.7

    @property
    def readings(self) -> Any:
        return {"u": IDENTITY}

    def drift(self, u: Array) -> Array:
        return -2 * (u - 1)


def tree(steps: int, nodes: int) -> tuple[list[Array], Array]:
    """Every combination of a quadrature rule's normals over the steps, and their weights."""
    x, weight = np.polynomial.hermite_e.hermegauss(nodes)
    grids = np.meshgrid(*steps * [x], indexing="ij")
    weights = np.meshgrid(*steps * [weight / weight.sum()], indexing="ij")
    return [g.ravel() for g in grids], np.prod([w.ravel() for w in weights], axis=0)


def feed(numbers: list[Array]) -> Callable[[torch.Tensor], torch.Tensor]:
    """In place of random normals: these, one array a call."""
    rest = iter(numbers)
    return lambda out: out.copy_(torch.from_numpy(next(rest)))


def order(errors: list[float], steps: list[int]) -> list[float]:
    """Observed orders from one number of steps to the next."""
    pairs = zip(pairwise(errors), pairwise(steps), strict=True)
    return [math.log(e / f) / math.log(n / m) for (e, f), (m, n) in pairs]


# Orders -------------------------------------------------------------------------------------------


def splitting(steps: int, numbers: list[Array]) -> Array:
    """``u`` at t = 0.5 of the shaped equation, from given normals."""
    program = Splitting.of(SHAPED, schedule(SHAPED, START, np.array([0.5]), steps))
    out = torch.empty(1, numbers[0].size, dtype=torch.float64)
    program.run(feed(numbers), Room(numbers[0].size), out)
    return out[0].numpy()


def test_the_splitting_has_weak_order_two() -> None:
    """The program's own steps over all nodes of a quadrature: no sampling noise."""
    exact = density(SHAPED, START, 0.5, tolerance=1e-6)
    truth = [exact.expectation(lambda u, _, k=k: np.tanh(u) ** k).value[0] for k in (1, 2)]  # type: ignore[misc]
    steps = [1, 2, 4]
    errors = []
    for count, nodes in zip(steps, (64, 32, 11), strict=True):
        numbers, weights = tree(count, nodes)
        rho = np.tanh(splitting(count, numbers))
        errors.append([abs(weights @ rho**k - t) for k, t in zip((1, 2), truth, strict=True)])
    for column in np.array(errors).T:
        np.testing.assert_allclose(order(list(column), steps), 2.0, atol=0.2)


def test_the_splitting_has_strong_order_one() -> None:
    """Paths on the same Brownian motion, against 32 times finer steps than the finest."""
    stream, finest = np.random.default_rng(5), 512
    increments = stream.standard_normal((finest, 4000))
    fine = splitting(finest, list(increments))
    errors, steps = [], [2, 4, 8, 16]
    for count in steps:
        group = increments.reshape(count, finest // count, -1).sum(axis=1)
        coarse = splitting(count, list(group / math.sqrt(finest // count)))
        errors.append(math.sqrt(np.mean((coarse - fine) ** 2)))
    np.testing.assert_allclose(order(errors, steps), 1.0, atol=0.15)


@pytest.mark.parametrize("start", [math.inf, math.log(4.0)])
def test_the_positive_splitting_has_weak_order_two(
    start: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from infinity; with a field. Means of log y and of its square, by quadrature."""
    exact = density(Unshaped(FIELD), start, 0.5, tolerance=1e-6)
    truth = [exact.expectation(lambda u, _, k=k: u**k).value[0] for k in (1, 2)]  # type: ignore[misc]
    errors, steps = [], [2, 4]
    for count, nodes in zip(steps, (40, 13), strict=True):
        numbers, weights = tree(count, nodes)
        monkeypatch.setattr(alignment_paths, "BLOCK", weights.size)
        draws = type("Given", (), {"normals": staticmethod(feed(numbers))})()
        block = alignment_paths._Block(FIELD, None, start, draws, np.random.default_rng(0))
        block.advance(0.5 / count, count)
        u = block.log_y
        errors.append([abs(weights @ u**k - t) for k, t in zip((1, 2), truth, strict=True)])
    for column in np.array(errors).T:
        np.testing.assert_allclose(order(list(column), steps), 2.0, atol=0.35)


def test_jumps_keep_the_second_order_in_the_mean() -> None:
    """Without curvature E y of one step is the trapezoidal rule of the closed form."""
    equation = AlignmentEquation(0.0, 1.0, 0.5, -1.0)
    jumps = Jumps(3.0, lambda stream, count: stream.gamma(2.0, 0.25, count))
    pushed, growth, y0 = 3.0 * 0.5, equation.kap, 0.7
    once = (y0 + pushed / 2) * math.exp(growth) + pushed / 2
    exact = y0 * math.exp(growth) + pushed * math.expm1(growth) / growth
    for steps, mean in ((1, once), (64, exact)):
        found = sample_unshaped(equation, math.log(y0), 1.0, jumps=jumps, paths=60_000, steps=steps)
        value, error = found.mean("y")
        assert abs(value[0] - mean) < 3.9 * error[0]  # false alarm: 1e-4
        assert abs(once - exact) > 8 * error[0]


# Exact moves --------------------------------------------------------------------------------------


def test_quantiles_and_moves_of_a_normal_law() -> None:
    """A linear drift: both are known in closed form."""
    equation, times = Restoring(), np.array([0.2, 0.9])
    found = quantiles(equation, 3.0, times, 1e-7)
    fade = np.exp(-2 * times)
    mean, sd = 1 + 2 * fade, np.sqrt(0.49 * (1 - fade**2) / 4)
    middle = np.abs(SCORES) < 6
    expected = mean[:, None] + sd[:, None] * SCORES
    np.testing.assert_allclose(found.u[:, middle], expected[:, middle], atol=2e-6)
    table = moves(equation, 0.7, found.u[:1], found.ends[:1], 1e-6)
    assert table.coefficients.shape[0] == 2
    inner = np.abs(table.u - mean[0]) < 6 * sd[0]
    fade = math.exp(-1.4)
    np.testing.assert_allclose(
        table.coefficients[0, inner], (1 - table.u[inner]) * (1 - fade), atol=2e-5
    )
    np.testing.assert_allclose(
        table.coefficients[1, inner], math.sqrt(0.49 * (1 - fade**2) / 4), rtol=2e-5
    )


@pytest.mark.parametrize(
    ("equation", "start"),
    [(SHAPED, START), (Unshaped(RELU), math.inf), (Unshaped(FIELD), math.log(0.05))],
    ids=["shaped", "from infinity", "field"],
)
def test_moves_carry_one_law_into_the_next(equation: Equation, start: float) -> None:
    """The law at t = 0.25 moved by the polynomials is that of the density solver at t = 0.5."""
    found = quantiles(equation, start, np.array([0.25, 0.5]), 1e-5)
    exact = density(equation, start, [0.25, 0.5], tolerance=1e-6)
    reading = "rho" if equation is SHAPED else "log_y"
    of = equation.reading(reading).of
    for index, t in enumerate((0.25, 0.5)):
        values = of(found.u[index], t)
        mean = WEIGHTS @ values
        assert mean == pytest.approx(exact.mean(reading).value[index], abs=5e-6)
        sd = math.sqrt(WEIGHTS @ (values - mean) ** 2)
        assert sd == pytest.approx(exact.sd(reading).value[index], abs=5e-6)
    table = moves(equation, 0.25, found.u[:1], found.ends[:1], 1e-5)
    xi, rule = np.polynomial.hermite_e.hermegauss(40)
    at = np.array([np.interp(found.u[0], table.u, row) for row in table.coefficients])
    landed = found.u[0][:, None] + np.polynomial.polynomial.polyval(
        xi[None, :], at[:, :, None], tensor=False
    )
    weights = WEIGHTS[:, None] * rule / rule.sum()
    values = of(landed, 0.5)
    mean = (weights * values).sum()
    # linear interpolation between the table's nodes, here only, errs by 1e-4
    assert mean == pytest.approx(exact.mean(reading).value[1], abs=2e-4)
    sd = math.sqrt((weights * (values - mean) ** 2).sum())
    assert sd == pytest.approx(exact.sd(reading).value[1], abs=3e-4)


@pytest.mark.parametrize("steps", [None, 64])
@pytest.mark.parametrize(
    ("equation", "start"),
    [(SHAPED, START), (SHAPED, -6.0), (Unshaped(RELU), math.inf), (Unshaped(FIELD), -3.0)],
    ids=["shaped", "from nearly opposite", "from infinity", "field"],
)
def test_paths_have_the_law_of_the_density(
    equation: Equation, start: float, steps: int | None
) -> None:
    """Kolmogorov-Smirnov at each of two times; 16 tests, a false alarm once in 60 runs of seeds."""
    times = [0.1, 0.6]
    drawn = sample(equation, start, times, paths=30_000, seed=3, steps=steps)
    exact = density(equation, start, times, tolerance=1e-5)
    assert np.isfinite(drawn.u).all()
    for index in range(2):
        name = next(iter(equation.readings))
        of = equation.reading(name).of
        distance = exact.distance(of(drawn.u[index], times[index]), index, name)
        assert distance < FAR / math.sqrt(30_000)


def test_opposite_signals_are_an_entrance() -> None:
    """From ``z = -inf`` the law is that of a start at -9, which is forgotten by 1e-7."""
    times = np.array([0.01, 0.5])
    never = quantiles(SHAPED, -math.inf, times, 1e-5)
    nearly = quantiles(SHAPED, -9.0, times, 1e-5)
    inner = np.abs(SCORES) < 4
    np.testing.assert_allclose(never.u[:, inner], nearly.u[:, inner], atol=2e-4)
    np.testing.assert_allclose(never.u @ WEIGHTS, nearly.u @ WEIGHTS, atol=1e-4)


def test_moves_keep_what_two_times_have_in_common() -> None:
    """``E rho(.25) rho(.5)`` of exact moves and of fine splitting steps, 5 standard errors."""
    means, errors = [], []
    for steps in (None, 32):
        rho = np.tanh(sample(SHAPED, START, [0.25, 0.5], paths=200_000, seed=8, steps=steps).u)
        product = rho[0] * rho[1]
        means.append(product.mean())
        errors.append(product.std() / math.sqrt(product.size))
    assert abs(means[0] - means[1]) < 5 * math.hypot(*errors)
    assert math.hypot(*errors) < 1e-3


def test_a_long_gap_is_crossed_in_several_moves() -> None:
    made = plan(SHAPED, START, [0.5, 2.0])
    assert isinstance(made.program, ExactMoves)
    assert len(made.program.stages[0]) > 1
    exact = density(SHAPED, START, 2.0)
    drawn = made.draw(40_000)
    assert exact.distance(np.tanh(drawn.u[1]), 0, "rho") < FAR / math.sqrt(40_000)


def test_paths_explode_as_often_as_the_closed_law_says() -> None:
    """Default steps; a binomial share, 4 standard errors (6e-5 a time)."""
    equation = ShapedSmooth(0.0, 1.0, 1.0)
    times = [0.5, 1.0, 2.0]
    drawn = limit_law(equation, 0.0, times, engine="paths", paths=60_000)
    share, error = drawn.escaped
    expected = equation.explosion(1.0, times)
    assert np.all(np.abs(share - expected) < 4 * error)
    assert np.all(np.diff(share) > 0)


# Jumps --------------------------------------------------------------------------------------------


def test_bernoulli_dropout_of_networks_is_a_jump_process_and_no_drift() -> None:
    """4000 exact networks, n = 64, one disagreement of masks per unit of t in the mean.

    The KS distance of the jump-diffusion is below the 99.9 % band of 4000 samples; the equation
    with the mean field misses by more than 0.3.
    """
    width, depth, y0 = 64, 32, 0.05
    layer = MeanField("tanh", math.sqrt(1.68798), math.sqrt(0.03804), drop=1.0 / width**2)
    limit = stochastic_limit(layer).at_width(width)
    nets = Ensemble.of([layer] * depth, [width] * (depth + 1)).forward(
        Pair(y0 / width, 0.5, 0.5, "pinned"), 4000, 1, keep=True, observe=(), progress=False
    )
    u = np.log(width * nets.values("eps")[:, 0, -1])
    equation, start = Unshaped(limit.equation, limit.scale), math.log(y0)
    assert limit.drops is not None
    jumped = limit_law(equation, start, 0.5, jumps=Jumps.of(limit.drops), paths=100_000)
    drifted = limit_law(equation, start, 0.5)
    assert "jumps" in jumped.solver
    assert jumped.distance(u, 0, "log_y") < FAR * math.sqrt(1 / 4000 + 1 / 100_000)
    assert drifted.distance(u, 0, "log_y") > 0.3


def test_many_small_jumps_are_the_field() -> None:
    """Jumps of H/rate at a large rate."""
    jumps = Jumps(4000.0, lambda stream, count: np.full(count, FIELD.field / 4000.0))
    drawn = sample_unshaped(FIELD, -1.0, [0.5], jumps=jumps, paths=30_000)
    exact = density(Unshaped(FIELD), -1.0, 0.5)
    assert exact.distance(drawn.u[0], 0, "log_y") < FAR / math.sqrt(30_000)
    none = sample_unshaped(FIELD, -1.0, [0.5], jumps=Jumps(0.0, jumps.draw), paths=30_000)
    free = density(Unshaped(replace(FIELD, field=0.0)), -1.0, 0.5)
    assert free.distance(none.u[0], 0, "log_y") < FAR / math.sqrt(30_000)


# Seeds, choice and input --------------------------------------------------------------------------


def draw_with(jumps: Jumps | None, **how: Any) -> Array:
    return sample_unshaped(FIELD, 0.0, [0.1], jumps=jumps, steps=2, **how).u


@pytest.mark.parametrize(
    "draw",
    [
        lambda **how: sample(SHAPED, START, [0.25, 0.5], **how).u,
        lambda **how: sample(SHAPED, START, [0.5], steps=2, **how).u,
        lambda **how: draw_with(None, **how),
        lambda **how: draw_with(Jumps(2.0, lambda s, n: s.random(n)), **how),
    ],
    ids=["moves", "splitting", "field", "jumps"],
)
def test_the_first_paths_of_many_are_those_of_few_on_any_threads(
    draw: Callable[..., Array],
) -> None:
    many = STRETCH + BLOCK + 17
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        whole = draw(paths=many, seed=4)
        torch.set_num_threads(1)
        np.testing.assert_array_equal(draw(paths=many, seed=4), whole)
    finally:
        torch.set_num_threads(threads)
    few = draw(paths=BLOCK + 5, seed=4)
    np.testing.assert_array_equal(few, whole[:, : BLOCK + 5])
    assert not np.any(draw(paths=100, seed=5) == whole[:, :100])
    assert not np.any(whole[:, :BLOCK] == whole[:, STRETCH : STRETCH + BLOCK])


def test_one_entry_chooses_and_says_why() -> None:
    assert isinstance(limit_law(SHAPED, START, 0.1), DensityLaw)
    assert "without jumps" in limit_law(SHAPED, START, 0.1).solver
    bare, wrapped = limit_law(RELU, math.inf, 0.1), limit_law(Unshaped(RELU), math.inf, 0.1)
    assert bare.mean("log_q").value == wrapped.mean("log_q").value
    drawn = limit_law(SHAPED, START, 0.1, engine="paths", paths=100, seed=2)
    assert isinstance(drawn, SampleLaw)
    np.testing.assert_array_equal(drawn.u, sample(SHAPED, START, 0.1, paths=100, seed=2).u)
    assert drawn.readings.keys() == SHAPED.readings.keys()


NONE = Jumps(1.0, lambda stream, count: stream.random(count))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample(SHAPED, START, 0.0), "increasing positive"),
        (lambda: sample(SHAPED, START, [0.5, 0.5]), "increasing positive"),
        (lambda: sample(SHAPED, START, [0.5, math.nan]), "times"),
        (lambda: sample(SHAPED, START, []), "one or more times"),
        (lambda: sample(SHAPED, START, 1.0, paths=1), "paths is 1"),
        (lambda: sample(SHAPED, START, 1.0, seed=-1), "seed is -1"),
        (lambda: sample(SHAPED, START, 1.0, steps=0), "steps is 0"),
        (lambda: sample(SHAPED, START, 1.0, steps=2.5), "steps is 2.5"),  # type: ignore[arg-type]
        (lambda: sample(SHAPED, math.nan, 1.0), "start"),
        (lambda: sample(SHAPED, math.inf, 1.0), "-inf where that is an entrance"),
        (lambda: sample(ShapedReLU(1.0, 1.0), -math.inf, 1.0), "no entrance at infinity"),
        (lambda: sample(ShapedSmooth(0.0, 1.0, 1.0), 40.0, 1.0), "explodes at once"),
        (lambda: plan(SHAPED, START, 1.0, tolerance=0.0), "tolerance"),
        (lambda: sample_unshaped(replace(RELU, curvature=0.0), math.inf, 1.0), "curvature"),
        (lambda: sample_unshaped(RELU, -math.inf, 1.0), "-inf"),
        (lambda: Jumps(-1.0, NONE.draw), "rate is -1"),
        (lambda: limit_law(SHAPED, START, 1.0, engine="guess"), "density, paths"),
        (lambda: limit_law(SHAPED, START, 1.0, jumps=NONE), "only unshaped"),
        (lambda: limit_law(Unshaped(FIELD), 0.0, 1.0, jumps=NONE, engine="density"), "no jumps"),
    ],
)
def test_bad_input_is_refused_with_what_was_given(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_scores_and_weights_are_a_normal_law() -> None:
    assert WEIGHTS.sum() == pytest.approx(1.0, abs=1e-11)
    assert float(WEIGHTS @ SCORES**4) == pytest.approx(3.0, abs=1e-8)
    assert abs(SCORES[-1]) > -ndtri(2.0**-33)

"""Claims on shaped smooth networks: explosion, stability, and two inputs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gamma

from depthscale.finite.diffusion.covariance import sample_covariance
from depthscale.finite.diffusion.smooth import Gamma, ShapedSmooth
from depthscale.papers.claims import Claim
from depthscale.papers.judging import (
    Measured,
    listed,
    mean_of,
    measured,
    sd_of,
    share_of,
    verdict_if,
)
from depthscale.papers.limits.common import COVARIANCE
from depthscale.papers.limits.runs import Runs
from depthscale.theory.activation import activation as named
from depthscale.theory.gaussian import Array, expectation
from depthscale.theory.meanfield import MeanField

WHERE = "shaped smooth networks: exploding and vanishing norms"
CUBIC = ShapedSmooth(0.0, 1.0, 1.0)
CURVES = (
    ShapedSmooth(0.0, 1.0, 1.0),
    ShapedSmooth(1.0, -0.25, 1.0),
    ShapedSmooth(1.0, -0.75, 1.0),
    ShapedSmooth(0.0, -1.0, 1.0),
)
"""b = 1, 1/2, 0 and -1."""

WIDTH = 200
TIMES = (0.5, 1.0)
NETS = 20_000
LARGE = 1e3
"""The mean square from which what is left to infinity, ``1/(b V)``, is less than a layer."""

STABLE = ShapedSmooth.of("tanh", math.sqrt(0.5))
STABLE_TIME = 2.0
PAIR = ShapedSmooth(1.0, -0.75, 0.7)
PAIR_RHO = 0.2


def smooth_shapes(runs: Runs) -> list[Claim]:
    """Probabilities, the criterion, the stationary law, two inputs."""
    return [*_probabilities(runs), _ever(), _criterion(runs), *_stationary(runs), *_pairs(runs)]


def exploded(runs: Runs, shaped: ShapedSmooth) -> NDArray[np.bool_]:
    """Which networks, from V = 1, are above ``LARGE`` at each of ``TIMES``, ``[time, net]``."""
    layers = tuple(round(t * WIDTH) for t in TIMES)
    nets = NETS if shaped == CUBIC else NETS // 4
    length = runs.pairs(shaped.layer(WIDTH), WIDTH, layers, 1.0, nets).length
    return np.asarray(~(length < LARGE))


def _probabilities(runs: Runs) -> list[Claim]:
    hits = exploded(runs, CUBIC)
    before = np.array(TIMES) - math.log(WIDTH) / WIDTH
    return [
        measured(
            COVARIANCE,
            "ours",
            WHERE,
            f"probability that the norm has exploded by t = {time:g} at b = 1",
            float(stated),
            share_of(hit),
            0.012,
            "1/n, one layer in the time of explosion, and three standard errors of 20,000 networks",
            f"x + x^3/(6 n), V_0 = 1, n = {WIDTH}, {hit.size} networks above V = {LARGE:g}. A layer"
            " is a step and no flow, which delays the last of the way by about log(n)/n: so much"
            f" earlier the law is at {earlier:.4f}",
        )
        for time, stated, earlier, hit in zip(
            TIMES, CUBIC.explosion(1.0, TIMES), CUBIC.explosion(1.0, before), hits, strict=True
        )
    ]


def _ever() -> Claim:
    apart = [
        abs(float(s.explosion(1.0, [60.0])[0]) - s.ever_explodes(1.0)) for s in CURVES if s.b > 0
    ]
    ever = np.array([s.ever_explodes(1.0) for s in CURVES[:2]])
    return Claim.number(
        COVARIANCE,
        "ours",
        WHERE,
        "it ever explodes with probability P(b + 1, b V_0), the incomplete gamma function: largest"
        " difference to the law of the time of explosion at t = 60",
        0.0,
        max(apart),
        1e-8,
        "what is left after t = 60 and the inversion of the transform",
        f"b = 1 and 1/2, V_0 = 1: {listed(ever, 6)}",
    )


def _criterion(runs: Runs) -> Claim:
    time = TIMES[-1]
    shares = {s.b: share_of(exploded(runs, s)[-1]) for s in CURVES}
    stated = {s.b: float(s.explosion(1.0, [time])[0]) for s in CURVES}
    none = all(shares[b].value <= 3 * shares[b].error for b in shares if b <= 0)
    some = all(
        abs(shares[b].value - stated[b]) <= 0.012 + 3 * shares[b].error for b in shares if b > 0
    )
    told = "; ".join(
        f"b = {b:g}: {s.value:.4f}({s.error:.4f}) of networks, law {stated[b]:.4f}"
        for b, s in shares.items()
    )
    return Claim(
        COVARIANCE,
        "both",
        WHERE,
        "the norm explodes, with positive probability, if and only if b = (3/4 phi''^2 +"
        " phi''')/a^2 > 0",
        verdict_if(none and some),
        ours=shares[0.0].value,
        note=f"our number is the share of networks above V = {LARGE:g} at b = 0, t = {time:g}."
        f" {told}; n = {WIDTH}. The rule: none for b <= 0 and as many as the law within 0.012 for"
        " b > 0, each within three standard errors. Exactly cubic networks of finite width can"
        " always explode from a signal as large as s",
    )


def stable(runs: Runs) -> Array:
    """``V`` of tanh networks at ``STABLE_TIME``, when little is left of their start."""
    phi, s2 = named("tanh"), STABLE.a**2 * WIDTH
    # in the variable x/s: c s^2 E tanh(g/s)^2 = 1
    square = float(expectation(lambda u: phi(u) ** 2, 1 / s2, phi.shape))
    layer = MeanField(phi, math.sqrt(1 / (s2 * square)))
    depth = round(STABLE_TIME * WIDTH)
    found = runs.pairs(layer, WIDTH, (depth,), 1.0, NETS // 2, 1 / s2)
    return np.asarray(s2 * found.length[0])


def _stationary(runs: Runs) -> list[Claim]:
    law = STABLE.stationary
    assert isinstance(law, Gamma)
    samples = stable(runs)
    return [
        measured(
            COVARIANCE,
            "ours",
            WHERE,
            f"for b < -1 the norm settles at Gamma(|b| - 1, rate |b|): {name} of V, tanh with b ="
            f" {STABLE.b:g}",
            stated,
            found,
            0.05,
            "1/s^2 = 1 % times factors of a few, and three standard errors",
            f"s tanh(x/s), s^2 = n/2, n = {WIDTH}, t = {STABLE_TIME:g}, {samples.size} networks",
        )
        for name, stated, found in (
            ("mean", law.shape / law.rate, mean_of(samples)),
            ("standard deviation", math.sqrt(law.shape) / law.rate, sd_of(samples)),
        )
    ]


def stationary_pdf(v: Array) -> Array:
    """The gamma law."""
    law = STABLE.stationary
    assert isinstance(law, Gamma)
    return np.asarray(gamma(law.shape, scale=1 / law.rate).pdf(v))


def _pairs(runs: Runs) -> list[Claim]:
    gram = [[1.0, PAIR_RHO], [PAIR_RHO, 1.0]]
    theory = sample_covariance(PAIR, gram, [0.5], runs.count(200_000), seed=5).correlation(0, 1)
    nets = runs.pairs(PAIR.layer(WIDTH), WIDTH, (WIDTH // 2,), 1 - PAIR_RHO, NETS)
    rho = 1 - nets.eps[0]
    rho = rho[np.isfinite(rho)]
    claims = []
    for name, law, found in (
        ("mean", theory.mean("rho"), mean_of(rho)),
        ("standard deviation", theory.sd("rho"), sd_of(rho)),
    ):
        error = math.hypot(found.error, float(law.error[0]))
        claims.append(
            measured(
                COVARIANCE,
                "both",
                WHERE,
                f"two inputs of smooth shaped networks: {name} of their correlation at t = 0.5",
                float(law.value[0]),
                Measured(found.value, error),
                0.03,
                "terms of order 1/s^2 = 1 % and three standard errors of both",
                f"phi'' = 1, phi''' = -3/4, a = 0.7, rho_0 = {PAIR_RHO}, n = {WIDTH}, {rho.size}"
                " networks; the equation by paths of the matrix",
            )
        )
    return claims

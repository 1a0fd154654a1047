"""Claims on fully connected networks: one class, one curve, and what width does to it."""

from __future__ import annotations

import math

import numpy as np

from depthscale.answers import Undefined
from depthscale.papers.absorbing import mlp_data as data
from depthscale.papers.absorbing.mlp_data import transition
from depthscale.papers.absorbing.runs import Runs, seed
from depthscale.papers.claims import Claim, Verdict, Version
from depthscale.papers.judging import Measured, listed, measured, near, share_of
from depthscale.theory.gaussian import Array
from depthscale.theory.universal.record import universality

PAPER = "2307.02284"
COLLAPSE = "fully connected networks: collapse in the detuning"
SIZE = "fully connected networks: finite-size scaling"
BOUNDARY = "fully connected networks: the phase boundary at finite width"

RESAMPLED = 100


def mlp_transition(runs: Runs) -> list[Claim]:
    """Collapse without free parameters, exponents, finite size, boundary, the kind of noise."""
    return [
        *_collapse(runs),
        *_corrections(runs),
        _other_class(),
        *_exponents(),
        _detuned(runs),
        *_sizes(runs),
        *_apart(runs),
        *_cutoffs(runs),
        *_lyapunov(runs),
        *_boundaries(runs),
        *_late(runs),
    ]


# Collapse in the detuning ------------------------------------------------------------------------


def _collapse(runs: Runs) -> list[Claim]:
    claims = []
    depth = data.depths(runs)[-1]
    allowed = 5 * math.log(depth) / depth
    version: Version
    for version, names, words in (
        ("v2", data.ANALYTIC[:3], "tanh, erf and sin"),
        ("ours", data.ANALYTIC[3:], "cos, a Gaussian bump and sigmoid, none of them odd, too,"),
    ):
        worst = {
            layers: max(float(np.abs(data.off_curve(f, layers)).max()) for f in names)
            for layers in data.depths(runs)
        }
        told = ", ".join(f"{100 * off:.2g} % at l = {layers}" for layers, off in worst.items())
        claims.append(
            Claim.number(
                PAPER,
                version,
                COLLAPSE,
                f"the metric factors kappa and gamma of the activation alone bring {words} on one"
                " curve, kappa l rho = x/(1 - e^-x), x = gamma tau l: largest relative distance"
                f" for |x| <= 4 at l = {depth}",
                0.0,
                worst[depth],
                allowed,
                "5 log(l)/l: corrections are -c log(l)/l with c of order one",
                f"exact maps of infinite width at sigma_b = {data.SIGMA_B}, nothing fitted: {told}."
                " The window: within 10 % from l = 150 to 500 on, by activation, and then ever"
                " closer",
                "confirmed in a window",
            )
        )
    return claims


def _corrections(runs: Runs) -> list[Claim]:
    first, last = data.FAR
    claims = []
    for name in ("tanh", "sin"):
        own = transition(name)
        curvature = float(own.curvature)
        following = _second(name, 3.0)
        grown = [
            depth * (curvature * depth * data.exact_path(name, float(own.sigma_w), depth)[-1] - 1)
            for depth in data.FAR
        ]
        claims.append(
            Claim.number(
                PAPER,
                "ours",
                COLLAPSE,
                f"{name} at criticality: corrections are logarithmic, kappa l rho - 1 = -c log(l)/l"
                " with c = 1 + A_3/kappa^2 from the next term of the map, A_3 rho^3",
                1 + following / curvature**2,
                -(grown[1] - grown[0]) / math.log(last / first),
                0.05,
                "terms log(l)^2/l^2 between the two depths",
                f"exact map between l = {first} and {last}",
            )
        )
    for name in data.CURVED:
        own = transition(name)
        curvature = float(own.curvature)
        expected = -2 * _second(name, 2.5) / curvature**1.5
        depth = last
        off = curvature * depth * data.exact_path(name, float(own.sigma_w), depth)[-1] - 1
        slow = 100 * np.abs(data.off_curve(name, data.depths(runs)[-1])).max()
        claims.append(
            Claim.number(
                PAPER,
                "ours",
                COLLAPSE,
                f"{name}, whose curvature jumps, is of the same class but comes to the curve only"
                " as l^(-1/2): sqrt(l) (kappa l rho - 1) = -2 A_(5/2)/kappa^(3/2)",
                expected,
                math.sqrt(depth) * off,
                0.1 * abs(expected),
                "terms of relative order log(l)/sqrt(l)",
                f"exact map at l = {depth}. At l = {data.depths(runs)[-1]} it is still {slow:.2g} %"
                " off for |x| <= 4: a collapse of such activations needs far deeper networks",
            )
        )
    return claims


def _second(name: str, power: float) -> float:
    """Coefficient of this power in the deficit of the critical map."""
    alignment = universality(name, sigma_b=data.SIGMA_B).alignment
    assert not isinstance(alignment, Undefined)
    return float(next(term.coefficient for term in alignment.terms if term.power == power))


def _other_class() -> Claim:
    depth = data.DEPTHS[-1]
    own = {name: np.abs(data.off_curve(name, depth)).max() for name in data.KINKED}
    smooth = transition("tanh").scaling_in_detuning(data.X)
    apart = min(
        float(np.abs(data.scaled_by_detuning(name, depth) / smooth - 1).max())
        for name in data.KINKED
    )
    return Claim(
        PAPER,
        "ours",
        COLLAPSE,
        "activations with kinks, hard tanh and relu6, do not fall on that curve, which is of the"
        " smooth class, but on their own, (A l/2)^2 rho = [(x/2)/(1 - e^(-x/2))]^2",
        "confirmed" if apart > 0.15 > max(own.values()) else "refuted",
        note=(
            f"exact maps at l = {depth}, |x| <= 4: from their own curve at most"
            f" {', '.join(f'{100 * off:.2g} % ({name})' for name, off in own.items())}, from the"
            f" smooth one {100 * apart:.2g} % at least, although already rescaled by l^2 in place"
            " of l"
        ),
    )


def _exponents() -> list[Claim]:
    claims = []
    for name, beta in (("tanh", 1.0), ("hardtanh", 2.0)):
        own = transition(name)
        critical, gamma = float(own.sigma_w), float(own.gamma)
        tuned = [own.network(critical + t / gamma) for t in (1e-3, 1e-5)]
        plateaus = np.log([float(layer.eps) for layer in tuned])
        scales = np.log([float(layer.depth_scale.correlation) for layer in tuned])
        away = math.log(1e2)
        path = data.exact_path(name, float(own.sigma_w), data.FAR[1])
        for symbol, stated, ours, how in (
            ("beta", beta, float(plateaus[0] - plateaus[1]) / away, "fixed points of the map"),
            ("nu_par", 1.0, float(scales[1] - scales[0]) / away, "depth scales of the map"),
            (
                "delta",
                beta,
                -math.log(path[-1] / path[data.FAR[0]]) / math.log(data.FAR[1] / data.FAR[0]),
                f"the critical map between l = {data.FAR[0]} and {data.FAR[1]}",
            ),
        ):
            claims.append(
                Claim.number(
                    PAPER,
                    "v2" if name == "tanh" else "ours",
                    COLLAPSE,
                    f"{name}: {symbol} = {stated:g}",
                    stated,
                    ours,
                    0.01,
                    "terms of relative order tau, or 1/l up to logarithms",
                    how + ("" if name == "tanh" else "; kinked networks are not in the paper"),
                )
            )
    return claims


def _detuned(runs: Runs) -> Claim:
    cells = {name: data.detuned(runs, name) for name in data.detuned_names(runs)}
    ratio = np.array([[c.found / c.law for c in row] for row in cells.values()])
    error = np.array([[c.error / c.law for c in row] for row in cells.values()])
    weight = 1 / error**2
    mean = float((weight * ratio).sum() / weight.sum())
    found = Measured(mean, float(weight.sum() ** -0.5))
    worst = float((np.abs(ratio - mean) / error).max())
    return measured(
        PAPER,
        "ours",
        COLLAPSE,
        "the joint scaling function F(gamma tau l, l/n), from the activation alone, holds for"
        f" networks of {len(cells)} activations, n = {data.DETUNED_WIDTH}, l ="
        f" {data.DETUNED_DEPTH}: mean misalignment over that of infinite width, over F(x, s)/F(x,"
        " 0)",
        1.0,
        found,
        0.1,
        "about 10/n, and noise",
        f"x = {listed(np.array(data.detunings(runs)))}; by activation"
        f" {', '.join(f'{name} {listed(row, 3)}' for name, row in zip(cells, ratio, strict=True))};"
        f" the farthest of {ratio.size} is {worst:.2g} of its standard errors from their mean",
    )


# Finite size -------------------------------------------------------------------------------------


def _sizes(runs: Runs) -> list[Claim]:
    own = transition("tanh")
    claims = []
    for time in data.TIMES:
        reached = float(own.scaling(0.0, time))
        found = {}
        for n in data.widths(runs):
            sample = data.sized(runs, n)
            k = _at(sample, time)
            law = float(own.scaling_in_size(sample.s[k]))
            y = sample.y[k]
            found[n] = Measured(y.mean() / law, y.std() / math.sqrt(y.size) / law)
        told = ", ".join(f"{m.value:.3f}({m.error:.3f}) at n = {n}" for n, m in found.items())
        claims.append(
            measured(
                PAPER,
                "v2",
                SIZE,
                f"rho = f(l/n)/n at criticality, with f in closed form, at l/n = {time:g}: mean of"
                " n rho over f, in the limit of large n",
                1.0,
                _to_infinity(found),
                min(0.15, (1 / reached - 1) / 2),
                "half of what width does to l rho there, and 15 % at most",
                f"tanh at sigma_wc of infinite width: {told}; a straight line in 1/n. f is taken at"
                " the l/n that has its logarithms taken out by the map of infinite width. kappa f"
                f" = {reached / time:.4g}. The mean is ever more that of rare networks: at l/n = 2"
                " one network scatters by 2.8 times the mean, so that a thousand know it to 9 %",
            )
        )
    return claims


def _at(sample: data.Sized, time: float) -> int:
    return int(np.flatnonzero(sample.layers == round(time * sample.n))[0])


def _to_infinity(found: dict[int, Measured]) -> Measured:
    """A line in 1/n through the values, weighted by their errors, at 1/n = 0."""
    inverse = np.array([1 / n for n in found])
    values, errors = np.array(list(found.values())).T
    design = np.column_stack([np.ones_like(inverse), inverse]) / errors[:, None]
    spread = np.linalg.inv(design.T @ design)
    value = (spread @ design.T @ (values / errors))[0]
    return Measured(float(value), math.sqrt(spread[0, 0]))


def _apart(runs: Runs) -> list[Claim]:
    n, time = 256, 2.0
    sample = data.sized(runs, n)
    k = _at(sample, time)
    y = sample.y[k]
    law = data.limit_law((float(sample.s[k]),))
    kappa = float(transition("tanh").curvature)
    above = 1.0
    survivors = law.survivors(above)
    alive = y > above
    mean = float(law.mean.value[0])
    return [
        near(
            PAPER,
            "ours",
            SIZE,
            f"the law of log(n rho) at l/n = {time:g}, n = {n}: Kolmogorov-Smirnov distance of"
            " networks of tanh from the density of the equation",
            law.law.distance(np.log(y), 0, "log_y"),
            y.size,
            0.06,
            "log y moves by some 10/n of itself, a tenth of a standard deviation at most, and"
            " noise",
            "nothing fitted",
        ),
        Claim(
            PAPER,
            "ours",
            SIZE,
            f"mean, median and survivors fall apart: at l/n = {time:g} the median is a fifth of the"
            " mean, which is that of the few networks above",
            "confirmed" if np.median(y) < 0.35 * y.mean() else "refuted",
            note=(
                f"kappa n rho of the law: mean {kappa * mean:.3g}, median"
                f" {kappa * float(law.quantile(0.5).value[0]):.3g}, typical (exp of the mean log)"
                f" {kappa * float(law.log_mean.value[0]):.3g}; networks of n = {n}: mean"
                f" {kappa * y.mean():.3g}({kappa * y.std() / math.sqrt(y.size):.2g}), median"
                f" {kappa * float(np.median(y)):.3g}. Survivors, n rho > {above:g}: share"
                f" {float(survivors.share.value[0]):.3g} of the law and {alive.mean():.3g} of the"
                f" networks, with mean {kappa * float(survivors.mean.value[0]):.3g} and"
                f" {kappa * _mean_or_nothing(y[alive]):.3g}: they carry"
                f" {float(survivors.share.value[0] * survivors.mean.value[0]) / mean:.0%} of the"
                " mean. No network is ever absorbed, so survivors are a matter of the threshold"
            ),
        ),
        measured(
            PAPER,
            "ours",
            SIZE,
            f"share of networks with n rho > {above:g} at l/n = {time:g}, n = {n}",
            float(survivors.share.value[0]),
            share_of(alive),
            0.05,
            "some 10/n of itself, and noise",
        ),
    ]


def _mean_or_nothing(values: Array) -> float:
    return float(values.mean()) if values.size else 0.0


def _cutoffs(runs: Runs) -> list[Claim]:
    sizes = data.widths(runs)
    stream = np.random.default_rng(seed("cutoffs"))
    logs, errors = [], []
    for n in sizes:
        sample = data.sized(runs, n)
        nets = sample.y.shape[1]
        again = [data.cutoff(sample, stream.integers(nets, size=(nets,))) for _ in range(RESAMPLED)]
        logs.append(math.log(data.cutoff(sample, np.arange(nets))))
        errors.append(float(np.std(np.log(again))))
    own = _power(sizes, np.array(logs), np.array(errors))
    told = ", ".join(f"{math.exp(u):.0f} at n = {n}" for n, u in zip(sizes, logs, strict=True))
    contacts = [data.contact(runs, n) for n in data.SITES]
    steps = [np.interp(-0.5, -c.ratio, c.steps) for c in contacts]
    other = np.polyfit(np.log(data.SITES), np.log(steps), 1)[0]
    return [
        measured(
            PAPER,
            "ours",
            SIZE,
            "the noise of finite width is proportional to rho, so that critical decay ends at"
            " l ~ n: power of n",
            1.0,
            own,
            0.25,
            "half of the difference to 1/2, the exponent of directed percolation",
            f"layers at which the median of kappa l rho is half of that of infinite width: {told};"
            " corrections of 10/n in the narrowest ones lower the exponent."
            " An exponent 1/2, that of directed percolation, is"
            f" {abs(own.value - 0.5) / own.error:.0f} standard errors away",
        ),
        Claim.number(
            PAPER,
            "ours",
            SIZE,
            "fully connected networks are not mean-field directed percolation, whose noise"
            " sqrt(rho) ends critical decay at t ~ N^(1/2): the same analysis of a mean-field"
            " contact process",
            0.5,
            float(other),
            0.05,
            "a tenth of the difference to 1",
            f"steps at which the mean of rho is half of its limit, over sqrt(N):"
            f" {listed(np.array(steps) / np.sqrt(data.SITES), 3)} at N ="
            f" {', '.join(map(str, data.SITES))}. At infinite size both have the same map, the same"
            " beta, nu_par and delta",
        ),
    ]


def _power(sizes: tuple[int, ...], logs: Array, errors: Array) -> Measured:
    """Slope of logarithms against ``log n``, weighted."""
    design = np.column_stack([np.ones(len(sizes)), np.log(sizes)]) / errors[:, None]
    spread = np.linalg.inv(design.T @ design)
    return Measured(float((spread @ design.T @ (logs / errors))[1]), float(math.sqrt(spread[1, 1])))


# The boundary ------------------------------------------------------------------------------------


def _lyapunov(runs: Runs) -> list[Claim]:
    claims = []
    for name in ("tanh", "hardtanh"):
        own = transition(name)
        found = {}
        for n in data.EXPONENT_WIDTHS:
            exponent = data.exponent(runs, name, n)
            found[n] = Measured(n * float(exponent.value[0]), n * float(exponent.error[0]))
        told = ", ".join(f"{m.value:.4f}({m.error:.4f}) at n = {n}" for n, m in found.items())
        gain = float(data.exponent(runs, name, data.EXPONENT_WIDTHS[-1]).gain[0])
        claims.append(
            measured(
                PAPER,
                "ours",
                BOUNDARY,
                f"{name}: n times the largest Lyapunov exponent at the critical point of infinite"
                " width comes to L1",
                float(own.lam),
                _to_infinity(found),
                0.05,
                "terms of order 1/n^2, and noise",
                f"{told}; a straight line in 1/n. Tangents of exact networks; what has a known mean"
                f" of 0 is taken off, which is worth {gain:.0f} times the networks at n ="
                f" {data.EXPONENT_WIDTHS[-1]}",
            )
        )
    return claims


def _boundaries(runs: Runs) -> list[Claim]:
    own = transition("tanh")
    critical = float(own.sigma_w)
    found = {n: data.boundary(runs, "tanh", n) for n in data.boundary_widths(runs)}
    told = "; ".join(
        f"n = {n}: {b.sigma_w:.5f}({b.error:.5f}), root {float(own.boundary(n)):.5f},"
        f" expansion {float(own.boundary(n, first_order=True)):.5f}"
        for n, b in found.items()
    )
    claims = []
    for first, words in (
        (False, "where log chi + L1(sigma_w)/n = 0, solved exactly"),
        (True, "at sigma_wc - L1/(gamma n), the expansion of that"),
    ):
        stated = {n: float(own.boundary(n, first_order=first)) for n in found}
        within = [
            n
            for n, b in found.items()
            if abs(b.sigma_w - stated[n]) + 3 * b.error <= _PART * (b.sigma_w - critical)
        ]
        beyond = [
            n
            for n, b in found.items()
            if abs(b.sigma_w - stated[n]) - 3 * b.error > _PART * (b.sigma_w - critical)
        ]
        verdict: Verdict = "undecided"
        if within:
            verdict = "confirmed in a window" if beyond else "confirmed"
        elif beyond:
            verdict = "refuted"
        claims.append(
            Claim(
                PAPER,
                "ours",
                BOUNDARY,
                f"networks of width n have their boundary, where the exponent changes sign, {words}"
                f": within {_PART:.0%} of the shift",
                verdict,
                note=(
                    f"tanh, measured: {told}. With three standard errors it holds at n ="
                    f" {_widths(within)} and fails at {_widths(beyond)}"
                ),
            )
        )
    return [*claims, _no_chaos(runs)]


_PART = 0.05
"""Of the shift of the boundary, as which a formula for it counts as right."""


def _widths(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes)) or "none"


def _no_chaos(runs: Runs) -> Claim:
    found = {n: data.narrow(runs, n) for n in data.NARROW}
    top = {n: int(np.argmax(e.value)) for n, e in found.items()}
    first = data.NARROW[0]
    highest = float((found[first].value + 3 * found[first].error).max())
    told = ", ".join(
        f"{e.value[top[n]]:.3f}({e.error[top[n]]:.3f}) a layer at sigma_w ="
        f" {e.sigma_w[top[n]]:.2f} for n = {n}"
        for n, e in found.items()
    )
    return Claim(
        PAPER,
        "ours",
        BOUNDARY,
        f"the narrowest networks have no chaotic phase: of tanh and {first} units the exponent is"
        " negative at all weights",
        "confirmed" if highest < 0 else "undecided",
        note=(
            f"largest exponents among {len(data.NARROW_WEIGHTS)} weights up to"
            f" {data.NARROW_WEIGHTS[-1]:g} sigma_wc: {told}. Where weights are large few units"
            " have a slope, and the logarithm of a mean over few is far below that of the mean"
        ),
    )


def _late(runs: Runs) -> list[Claim]:
    own, n = transition("tanh"), data.LATE_WIDTH
    times = np.array(data.late_times(runs))
    kappa, shift = float(own.curvature), -float(own.lam)
    law = np.array([float(own.scaling(shift * t, t)) / t for t in times])
    y = kappa * data.late(runs, True)
    mean, error = y.mean(axis=1), y.std(axis=1) / math.sqrt(y.shape[1])
    plain = kappa * data.late(runs, False).mean(axis=1)
    ends = slice(-3, None, 2)
    found = _slope(y[ends], times[ends])
    stated = float(np.log(law[-1] / law[-3]) / np.log(times[-1] / times[-3]))
    asymptote = np.sqrt(float(own.variance) / (2 * np.pi * times))
    where = (
        f"n = {n}, at the boundary measured for this width, l/n = {listed(times)}: kappa n rho"
        f" {listed(mean, 3)} (errors {listed(error, 2)}), closed form {listed(law, 3)}, its"
        f" asymptote sqrt(s^2/(2 pi t)) {listed(asymptote, 3)}; at sigma_wc of infinite width"
        f" instead {listed(plain, 3)}"
    )
    return [
        measured(
            PAPER,
            "ours",
            SIZE,
            "at the critical point of its own width a network decays as l^-1 and then as l^(-1/2):"
            f" local power of the mean between l/n = {times[-3]:g} and {times[-1]:g}",
            stated,
            found,
            0.25,
            "half of the difference between the two powers",
            f"{where}. The power {stated:.3f} is that of the closed form there, on its way from -1"
            " to -1/2",
        ),
        measured(
            PAPER,
            "ours",
            SIZE,
            f"mean of kappa n rho there at l/n = {times[-1]:g}, over the closed form",
            1.0,
            Measured(float(mean[-1] / law[-1]), float(error[-1] / law[-1])),
            0.25,
            "some 15/n, and noise",
            f"n = {n}; a network scatters by {float(y[-1].std() / mean[-1]):.2g} times the mean",
        ),
    ]


def _slope(y: Array, times: Array) -> Measured:
    """Power of the mean between two times; both are of the same networks."""
    means = y.mean(axis=1)
    parts = y / means[:, None]
    span = math.log(times[-1] / times[0])
    spread = float((parts[-1] - parts[0]).std() / math.sqrt(y.shape[1])) / span
    return Measured(float(np.log(means[-1] / means[0])) / span, spread)

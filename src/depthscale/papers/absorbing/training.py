"""Claims on training: the window of the tangent kernel, and what it means for finite networks."""

from __future__ import annotations

import math

import numpy as np

from depthscale.papers.absorbing.runs import Runs
from depthscale.papers.absorbing.training_runs import (
    BIASES,
    BRIGHTER,
    DETUNINGS,
    FEW,
    HOPS,
    LINE,
    STEPS,
    WIDTHS,
    along_depth,
    at_reaches,
    brightened,
    deepest,
    descent,
    off_critical,
    reaches,
    shallow,
    stretch,
    table,
    trained,
)
from depthscale.papers.claims import Claim, Verdict
from depthscale.papers.judging import Measured, listed, measured, verdict_if
from depthscale.theory.gaussian import Array
from depthscale.theory.kernel_window import reach, window_ratio

PAPER = "2307.02284"
KERNEL = "training: kernel regression on the critical line"
OFF = "training: off the critical line"
FINITE = "training: finite networks"

SMOOTH = (("erf", 0.05), ("erf", 1.0), ("tanh", 0.3), ("sin", 0.3))
KINKED = (("relu", 0.0), ("hardtanh", 0.3))

GROUPS = ((0.2, 11.0, 0.973), (32.0, 55.0, 0.9555), (129.0, 162.0, 0.9425), (517.0, 645.0, 0.9035))
"""Ranges of ``kappa L`` and the middle of what one split of the digits gave there before."""

FAILS = 0.1
"""Of accuracy below the best: more is called failing."""


def training_window(runs: Runs) -> list[Claim]:
    """Closed form, accuracy by reach, its collapse, the data's own window, both sides, networks."""
    return [
        *_closed(),
        *_by_reach(runs),
        *_collapses(runs),
        _rank(runs),
        *_own_windows(runs),
        _hidden(runs),
        *_off_critical(runs),
        *_sufficient(runs),
        *_networks(runs),
        *_descents(runs),
    ]


# Kernel regression --------------------------------------------------------------------------------


def closed_error(activation: str, sigma_b: float, own: bool) -> float:
    """Largest relative error of ``window_ratio`` at ``rho_0 <= .1``, 100 to 400 hops."""
    kernels = table(activation, sigma_b)
    found = reach(kernels.layer)
    assert isinstance(found, tuple)
    rho = np.array([0.1, 0.03, 0.01, 1e-3])
    off = []
    for hops in (100, 200, 400):
        X = found[0] * hops * rho ** found[1]
        form = window_ratio(X, 1 + found[1], rho0=rho if own else 0.0)
        off.append(np.abs(kernels.at(hops, rho).ratio / form - 1).max())
    return float(max(off))


def _closed() -> list[Claim]:
    claims = []
    for own, words in (
        (False, "[(1+X)^3 - 1]/(3X(1+X)^2), X = kappa L rho_0"),
        (True, "the same with the part of K, less rho_0 (1 + X/2)/(1+X)^2"),
    ):
        errors = {name: closed_error(name, bias, own) for name, bias in (*SMOOTH[2:], ("erf", 0.3))}
        claims.append(
            Claim.number(
                PAPER,
                "ours",
                KERNEL,
                f"Theta_off/Theta_diag = {words}: relative error for rho_0 <= .1, L >= 100",
                0.0,
                max(errors.values()),
                0.025,
                "what is asked of it, a fortieth",
                f"exact recursion with a trained first layer, sigma_b = .3: {_named(errors)}",
            )
        )
    errors = {name: closed_error(name, bias, True) for name, bias in KINKED}
    claims.append(
        Claim.number(
            PAPER,
            "ours",
            KERNEL,
            "kinked activations have [(1+X)^4 - 1]/(4X(1+X)^3), X = a L sqrt(rho_0)/2, less the"
            " part of K, which ends at 1/4 in place of 1/3: relative error for rho_0 <= .1, L >="
            " 100",
            0.0,
            max(errors.values()),
            0.025,
            "as for smooth ones",
            _named(errors),
        )
    )
    return claims


def _by_reach(runs: Runs) -> list[Claim]:
    scans = [along_depth(runs, bias) for bias in BIASES]
    reached = np.concatenate([scan.reach for scan in scans])
    accuracy = np.concatenate([scan.accuracy for scan in scans])
    claims = []
    for low, high, stated in GROUPS:
        inside = (reached >= low) & (reached <= high)
        if not inside.any():
            continue
        found = _over_draws(accuracy[inside])
        claims.append(
            measured(
                PAPER,
                "ours",
                KERNEL,
                f"erf networks learn the digits, trained to the end, with an accuracy that depends"
                f" on kappa L: from {low:g} to {high:g}",
                stated,
                found,
                0.03,
                "what is stated is of one split: two standard errors of 400 examples, and as much"
                " for the choice of the examples learned",
                f"{_sizes(runs)}; kappa L {listed(reached[inside], 3)}: means"
                f" {listed(accuracy[inside].mean(axis=1), 3)}",
            )
        )
    kinds = {name: deepest(runs, name) for name in ("raw", "one", "each")}
    means = {name: float(scan.accuracy.mean()) for name, scan in kinds.items()}
    claims.append(
        measured(
            PAPER,
            "ours",
            KERNEL,
            f"the same at kappa L = {kinds['raw'].reach[0]:.0f}",
            0.465,
            _over_draws(kinds["raw"].accuracy),
            0.05,
            "two standard errors of 400 examples",
            "beyond the window it depends on how the digits are centred: raw, by one mean, by the"
            f" mean of each pixel {listed(np.array(list(means.values())), 3)}",
        )
    )
    return claims


def _collapses(runs: Runs) -> list[Claim]:
    claims = []
    for networks, letter, words in (
        (SMOOTH, "kappa L", "smooth networks (erf at sigma_b .05 and 1, tanh and sin at .3)"),
        (KINKED, "a L/2", "kinked networks (ReLU, hardtanh at .3)"),
    ):
        apart, at, error = spread(runs, networks)
        inside = at <= 30
        worst = Measured(float(apart[inside].max()), float(error[inside].max()))
        claims.append(
            measured(
                PAPER,
                "ours",
                KERNEL,
                f"the accuracy of {words} after {STEPS:g} steps is a function of {letter} alone:"
                " largest difference of two up to 30",
                0.0,
                worst,
                0.01,
                "one example in a hundred; depths are whole numbers",
                f"at {listed(at, 3)}: {listed(apart, 2)}. Beyond, {_sizes(runs)}",
                agreed="confirmed" if apart.max() <= 0.01 else "confirmed in a window",
            )
        )
    return claims


def spread(runs: Runs, networks: tuple[tuple[str, float], ...]) -> tuple[Array, Array, Array]:
    """Largest difference of mean accuracies, at which ``beta a L``, and its standard error.

    Places where the depth, a whole number, misses the reach by a tenth are left out.
    """
    scans = {network: at_reaches(runs, *network) for network in networks}
    apart, at, error = [], [], []
    for k, wanted in enumerate(reaches(runs)):
        rows = [s.accuracy[k] for s in scans.values() if abs(s.reach[k] / wanted - 1) < 0.1]
        if len(rows) < 2:
            continue
        ordered = sorted(rows, key=np.mean)
        paired = ordered[-1] - ordered[0]
        apart.append(paired.mean())
        at.append(wanted)
        error.append(paired.std() / math.sqrt(paired.size))
    return np.array(apart), np.array(at), np.array(error)


def _rank(runs: Runs) -> Claim:
    first, last = along_depth(runs, BIASES[0]), along_depth(runs, BIASES[-1])
    count = [
        float(np.mean([r.effective for r in scan.runs[k]])) for scan, k in ((first, 0), (last, -1))
    ]
    errors = [
        float(np.mean([r.error for r in scan.runs[k]])) for scan, k in ((first, 0), (last, -1))
    ]
    return Claim(
        PAPER,
        "v2",
        KERNEL,
        "kappa L too small makes the kernel nearly rank one, too large makes it independent of the"
        " input",
        verdict_if(count[0] < 5 and errors[1] > 0.5),
        ours=count[0],
        note=f"our number: directions, (sum of eigenvalues)^2/sum of squares, at kappa L ="
        f" {first.reach[0]:.2g}, of {_sizes(runs)}; condition number {first.condition[0]:.2g}. At"
        f" {last.reach[-1]:.4g} the mean square error is {errors[1]:.2f}, where answering nothing"
        f" gives 0.9; {count[1]:.2g} directions, condition {last.condition[-1]:.3g}",
    )


def _own_windows(runs: Runs) -> list[Claim]:
    found = {b: brightened(runs, b) for b in BRIGHTER}
    ends = np.array([[w.low * rho, w.high * rho] for w, rho in found.values()])
    rho = listed(np.array([r for _, r in found.values()]), 2)
    claims = []
    for column, name in ((1, "upper"), (0, "lower")):
        off = math.log(ends[:, column].max() / max(ends[:, column].min(), 1e-9))
        claims.append(
            Claim.number(
                PAPER,
                "ours",
                KERNEL,
                f"the {name} end of the good window is one value of kappa L times the data's cosine"
                " distance, digits brightened until they lie a hundred times closer: ln of the"
                " largest over the smallest",
                0.0,
                off,
                math.log(10) / 4,
                "a step of the scan",
                f"median rho_0 {rho}: {listed(ends[:, column], 2)}"
                + (
                    ". The closer the data, the more it is one value: far apart, a linear network"
                    " has learned as well in time"
                    if column == 0
                    else ""
                ),
            )
        )
    return claims


def _hidden(runs: Runs) -> Claim:
    lost = {}
    for name in ("raw", "one", "each"):
        end, early = (shallow(runs, name, steps).accuracy for steps in (math.inf, STEPS))
        lost[name] = (end - early)[0]
    paired = lost["raw"] - lost["each"]
    error = float(paired.std() / math.sqrt(paired.size))
    value = float(paired.mean())
    verdict: Verdict = "undecided"
    if abs(value) > 3 * error:
        verdict = verdict_if(value > 0)
    means = np.array([lost[name].mean() for name in lost])
    return Claim(
        PAPER,
        "ours",
        KERNEL,
        "centred digits hide the failure at small kappa L",
        verdict,
        ours=value,
        note=f"our number, one standard error {error:.2g}: how much more accuracy raw digits lack"
        f" after {STEPS:g} steps to what they reach in the end than digits less the mean of each"
        f" pixel, at kappa L = {shallow(runs, 'raw', STEPS).reach[0]:.2g}. Raw, less one mean, less"
        f" each mean: {listed(means, 2)}",
    )


# Off the critical line ----------------------------------------------------------------------------


def _off_critical(runs: Runs) -> list[Claim]:
    chaotic, ordered = (off_critical(runs, d) for d in (0.1, -0.1))
    early = {d: off_critical(runs, d, STEPS).accuracy.mean() for d in (-0.1, 0.0, 0.1)}
    condition = float(np.log10(ordered.condition[0]))
    return [
        measured(
            PAPER, "ours", OFF, "erf, sigma_b = .3, L = 128, sigma_w .1 above: accuracy", 0.087,
            _over_draws(chaotic.accuracy), 0.05, "chance, by the classes that the split has",
            f"condition number {chaotic.condition[0]:.3f}: a multiple of the identity",
        ),
        measured(
            PAPER, "ours", OFF, "the same, sigma_w .1 below, trained to the end: accuracy", 0.975,
            _over_draws(ordered.accuracy), 0.03, "as on the critical line", _sizes(runs),
        ),
        Claim.number(
            PAPER, "ours", OFF, "the same: log10 of the condition number", math.log10(9e6),
            condition, 1.0, "a decade: it takes the two most similar digits",
            "of the raw digits",
        ),
        Claim(
            PAPER, "v2", OFF,
            "being near the boundary is necessary: at L = 128 networks fail on both sides",
            verdict_if(max(early[-0.1], early[0.1]) < early[0.0] - FAILS),
            ours=float(max(early[-0.1], early[0.1])),
            note=f"accuracy after {STEPS:g} steps, .1 below, critical, .1 above:"
            f" {listed(np.array(list(early.values())), 3)}. The ordered side fails by time alone:"
            f" to the end, in exact arithmetic, it has {ordered.accuracy.mean():.3f}",
        ),
    ]  # fmt: skip


def _sufficient(runs: Runs) -> list[Claim]:
    close, _ = brightened(runs, BRIGHTER[-1])
    best, first, last = (float(close.accuracy[k]) for k in (int(close.accuracy.argmax()), 0, -1))
    return [
        Claim(
            PAPER, "v2", KERNEL,
            "being on the boundary is not sufficient: critical networks fail where kappa L rho_0 is"
            f" too {word}",
            verdict_if(value < best - margin),
            ours=value,
            note=f"accuracy after {STEPS:g} steps at kappa L rho_0 = {at}, digits with median rho_0"
            f" = {brightened(runs, BRIGHTER[-1])[1]:.2g}; the best is {best:.3f}; to fail is to be"
            f" {margin:g} below",
        )
        for word, value, at, margin in (
            ("large", last, "1e4", FAILS), ("small", first, ".01", FAILS / 2)
        )
    ]  # fmt: skip


# Finite networks ----------------------------------------------------------------------------------


def phase_scores(runs: Runs) -> Array:
    """Test accuracy of trained tanh networks, sigma_b = .3, [hops, detuning]."""
    hops = HOPS[:2] if runs.quick else HOPS
    return np.array(
        [
            [_score(trained(runs, 0.3, h, d).test) for d in DETUNINGS]
            for h in hops
        ]
    )  # fmt: skip


def line_scores(runs: Runs, brighter: float = 0.0) -> Array:
    """The same along the critical line at 16 hops, [sigma_b]."""
    return np.array([_score(trained(runs, b, HOPS[1], 0.0, brighter).test) for b in LINE])


def line_reach() -> Array:
    """``kappa L`` of ``line_scores``."""
    return np.array([stretch("tanh", b) * HOPS[1] for b in LINE])


def _networks(runs: Runs) -> list[Claim]:
    scores, line = phase_scores(runs), line_scores(runs)
    close, kappa_L = line_scores(runs, BRIGHTER[-1]), line_reach()
    middle = DETUNINGS.index(0.0)
    deep, flat = scores[-1], scores[0]
    failing = [k for k in (0, len(DETUNINGS) - 1) if deep[k] < deep[middle] - FAILS]
    how = "Adam, 200 steps of 100 examples, the best of three rates; width 100, one network each"
    rows = "; ".join(f"{h} hops {listed(row, 3)}" for h, row in zip(HOPS, scores, strict=False))
    return [
        Claim(
            PAPER, "v2", FINITE,
            f"necessary: at {HOPS[len(scores) - 1]} hops trained tanh networks fail .3 off in"
            " sigma_w on both sides",
            verdict_if(len(failing) == 2),
            ours=float(max(deep[0], deep[-1])),
            note=f"test accuracy at sigma_w {listed(np.array(DETUNINGS), 2)} off: {rows}. {how}",
        ),
        Claim(
            PAPER, "ours", FINITE, f"at {HOPS[0]} hops none of them fails",
            verdict_if(bool(flat.min() > flat[middle] - FAILS)), ours=float(flat.min()),
            note="depth is what makes the boundary matter",
        ),
        Claim(
            PAPER, "v2", FINITE,
            f"not sufficient: critical tanh networks of {HOPS[1]} hops fail at large kappa L",
            verdict_if(bool(line[-1] < line.max() - FAILS)), ours=float(line[-1]),
            note=f"kappa L {listed(kappa_L, 3)}: test accuracy {listed(line, 3)}",
        ),
        Claim(
            PAPER, "v2", FINITE,
            "not sufficient: with inputs a hundred times closer they fail at small kappa L too",
            verdict_if(bool(close[0] < close.max() - FAILS)), ours=float(close[0]),
            note=f"brightened digits: test accuracy {listed(close, 3)} at the same kappa L",
        ),
    ]  # fmt: skip


def _descents(runs: Runs) -> list[Claim]:
    by_width = [descent(runs, n) for n in WIDTHS[: 2 if runs.quick else 3]]
    off = np.array([d.kernel - d.network for d in by_width])
    noise = math.sqrt(2 * 0.05 / 400)
    verdict: Verdict = verdict_if(bool(off[-1] < off[0] + 2 * noise and off[-1] < FAILS / 2))
    return [
        Claim(
            PAPER, "ours", FINITE,
            f"gradient descent on networks of {HOPS[1]} hops agrees with kernel regression after as"
            " many steps, the better the wider",
            verdict,
            ours=float(off[-1]),
            note=f"accuracy of the kernel less that of tanh networks of width"
            f" {', '.join(map(str, WIDTHS[: len(off)]))}, on the critical line, after {FEW} steps:"
            f" {listed(off, 2)}; one example set, noise {noise:.2g}",
        )
    ]  # fmt: skip


# Numbers ------------------------------------------------------------------------------------------


def _score(found: object) -> float:
    accuracy = getattr(found, "accuracy", None)
    assert accuracy is not None
    return float(accuracy.value)


def _over_draws(accuracy: Array) -> Measured:
    """The mean over places, with the error over draws, which share their examples."""
    draws = accuracy.mean(axis=0)
    return Measured(float(draws.mean()), float(draws.std(ddof=1) / math.sqrt(draws.size)))


def _sizes(runs: Runs) -> str:
    return "2 draws of 100 and 100 digits" if runs.quick else "8 draws of 400 and 400 digits"


def _named(errors: dict[str, float]) -> str:
    return ", ".join(f"{name} {error:.3f}" for name, error in errors.items())

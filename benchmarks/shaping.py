"""Shaping against the peer dks: the same parameters, to how many digits, and how fast.

Tailored slopes of leaky ReLU for an output correlation of .9, and the affine transforms of smooth
activations at the peer's own defaults (C'(1) = 1.5^(1/L) for deep kernel shaping, C''(1) = .3/L for
tailored activations). A pair of solutions that are mirror images counts as one. The errors of both
sides' conditions are taken with a rule that neither uses (Gauss-Hermite; Gauss-Legendre on the two
sides of the kink of softsign). The peer's searches are timed once, since some take half a minute.
What the peer has no counterpart of, shaping at a real width, is held against exact networks.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from _record import cpu_seconds, save
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.practice.shaping.shape import shape
from depthscale.practice.shaping.transform import Transform, solve
from depthscale.theory.activation import Activation, activation

DEPTH = 50
NAMES = {  # ours: theirs
    "tanh": "tanh",
    "softplus": "softplus",
    "silu": "swish",
    "gelu": "gelu_exact",
    "erf": "erf",
    "sigmoid": "sigmoid",
    "softsign": "softsign",
}
NETWORKS, SEED = 2000, 7


def peer() -> Callable[..., dict[str, Any]] | str:
    """The peer's solver, or why it does not run."""
    try:
        from dks.base.activation_transform import _get_activations_params
    except ImportError as error:
        return f"skipped: {error}; install the group bench"

    def parameters(name: str, method: str, depth: int) -> dict[str, Any]:
        def deep(x: float, layer: Callable[[float], float]) -> float:
            for _ in range(depth):
                x = layer(x)
            return x

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(_get_activations_params([name], method, subnet_max_func=deep)[name])

    return parameters


def error(base: Activation, transform: Transform, method: str, amount: float) -> float:
    """Largest error of the four conditions."""
    psi = transform.of(base)
    if base.breaks:
        x, w = np.polynomial.legendre.leggauss(400)
        middle = -transform.input_shift / transform.input_scale
        ends = ((-10.0, middle), (middle, 10.0))
        z = np.concatenate([(b - a) / 2 * x + (a + b) / 2 for a, b in ends])
        w = np.concatenate([(b - a) / 2 * w for a, b in ends])
        w = w * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    else:
        z, w = np.polynomial.hermite_e.hermegauss(100)
        w = w / w.sum()
    f, d, s = psi(z), psi.derivative(z), psi.second_derivative(z)
    found = [w @ f**2 - 1, w @ (f * d * z) - 1]
    if method == "dks":
        found += [(w @ f) ** 2, w @ d**2 - amount]
    else:
        found += [w @ d**2 - 1, w @ s**2 - amount]
    return float(max(map(abs, found)))


def digits(ours: list[float], theirs: list[float]) -> float:
    worst = max(abs(abs(a) / abs(b) - 1) for a, b in zip(ours, theirs, strict=True))
    return -math.log10(max(worst, 1e-16))


def slopes(theirs: Callable[..., dict[str, Any]] | str) -> list[dict[str, Any]]:
    rows = []
    for depth in (20, 50, 100, 1000):
        found = float(shape("relu", depth).slope)
        row: dict[str, Any] = {"what": f"slope, depth {depth}", "slope": found}
        row["cpu_s"] = cpu_seconds(lambda d=depth: shape("relu", d))
        if not isinstance(theirs, str):
            row["dks_cpu_s"] = cpu_seconds(lambda d=depth: theirs("leaky_relu", "TAT", d))
            row["ratio_dks_over_us"] = row["dks_cpu_s"] / row["cpu_s"]
            row["agreeing_digits"] = digits(
                [found], [theirs("leaky_relu", "TAT", depth)["negative_slope"]]
            )
        rows.append(row)
    return rows


def transforms(theirs: Callable[..., dict[str, Any]] | str) -> list[dict[str, Any]]:
    rows = []
    for ours, name in NAMES.items():
        for method in ("dks", "tat"):
            amount = 1.5 ** (1 / DEPTH) if method == "dks" else 0.3 / DEPTH

            def run(ours: str = ours, method: str = method, amount: float = amount) -> Any:
                return solve(activation(ours), method, amount)

            found = run()
            row: dict[str, Any] = {"what": f"{ours} {method}, depth {DEPTH}"}
            row["cpu_s"] = cpu_seconds(run)
            row["worst_condition"] = error(activation(ours), found, method, amount)
            if not isinstance(theirs, str):
                start = time.process_time()
                other = theirs(name, method.upper(), DEPTH)
                row["dks_cpu_s"] = time.process_time() - start
                row["ratio_dks_over_us"] = row["dks_cpu_s"] / row["cpu_s"]
                given = Transform(**{key: float(value) for key, value in other.items()})
                row["dks_worst_condition"] = error(activation(ours), given, method, amount)
                row["agreeing_digits"] = digits(
                    [found.input_scale, found.input_shift, found.output_scale],
                    [given.input_scale, given.input_shift, given.output_scale],
                )
            rows.append(row)
    return rows


def widths() -> list[dict[str, Any]]:
    """What mean field promises at a real width, and what shaping at that width keeps."""
    rows = []
    for width, depth in ((64, 50), (256, 100)):
        for quantile in (None, 0.05):
            start = time.process_time()
            shaped = shape("relu", depth, width, quantile=quantile)
            seconds = time.process_time() - start
            plain = shape("relu", depth)
            row: dict[str, Any] = {
                "what": f"width {width}, depth {depth}, "
                + ("mean .9" if quantile is None else "at least .9 with 95 %"),
                "slope": float(shaped.slope),
                "mean_field_slope": float(plain.slope),
                "cpu_s": seconds,
            }
            for label, one in (("exact", shaped), ("mean_field_exact", plain)):
                nets = Ensemble.of([one.mean_field] * depth, [width] * (depth + 1))
                result = nets.forward(
                    Pair(1.0, start="drawn"), NETWORKS, SEED, keep=True, progress=False
                )
                rho = 1 - result.values("eps")[:, 0, -1]
                row[label] = float(rho.mean() if quantile is None else (rho < 0.9).mean())
            rows.append(row)
    return rows


def main() -> None:
    theirs = peer()
    rows = slopes(theirs) + transforms(theirs)
    compared = [row for row in rows if "agreeing_digits" in row]
    facts: dict[str, Any] = {"peer": theirs if isinstance(theirs, str) else "dks"}
    if compared:
        facts["least_agreeing_digits"] = min(row["agreeing_digits"] for row in compared)
        facts["ratios_dks_over_us"] = [
            min(row["ratio_dks_over_us"] for row in compared),
            max(row["ratio_dks_over_us"] for row in compared),
        ]
    facts["widths"] = f"exact: {NETWORKS} networks, mean correlation or share below .9"
    save("shaping", rows + widths(), **facts)


if __name__ == "__main__":
    main()

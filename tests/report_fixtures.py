"""Audits made up for the tests of the report: real dataclasses, invented but plausible numbers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from depthscale.answers import Undefined
from depthscale.practice.audit import Audit
from depthscale.practice.diagnosis.prediction import Band, Theory
from depthscale.practice.diagnosis.verdict import Finding, Headline, Verdict
from depthscale.practice.probe.measure import Layer, Measurement

MALICIOUS = (
    "<script>alert(1)</script>",
    "</svg><img src=x onerror=alert(2)>",
    "</style>{{ 7 * 7 }}\"' onmouseover=alert(3)",
    "]]>&lt;b&gt;\x1b[31mred\u202eevil",
)


def recursion(depth: int, chi: float, start: float, *, curvature: float = 0.55, field: float = 0.0):
    """Return eps over layers from the normal form eps' = h + chi eps - a eps^2, held under 1."""
    eps = [start]
    for _ in range(depth - 1):
        eps.append(min(field + chi * eps[-1] - curvature * eps[-1] ** 2, 1.0))
    return np.array(eps)


def measurement(
    depth: int,
    chi: float,
    start: float,
    *,
    repeats: int = 1,
    field: float = 0.0,
    names: tuple[str, ...] = (),
    seed: int = 0,
    recurse=recursion,
) -> Measurement:
    """Return a measurement whose curves follow the normal form with a little noise."""
    rng = np.random.default_rng(seed)

    def noisy(curve: np.ndarray, size: float) -> np.ndarray:
        return curve * np.exp(size * rng.standard_normal((repeats, curve.size)))

    layers = tuple(
        Layer(
            index=k,
            name=names[k] if k < len(names) else f"body.{2 * k}",
            kind="linear",
            width=256 if k < depth - 1 else 10,
            fan_in=64 if k == 0 else 256,
            activation="tanh" if k < depth - 1 else None,
            drop=0.1 if field and k < depth - 1 else 0.0,
            sigma_w=1.892 + 0.004 * float(rng.standard_normal()),
            sigma_b=0.0,
        )
        for k in range(depth)
    )
    eps = recurse(depth, chi, start, field=field)
    growth = np.cumsum(np.r_[0.0, np.full(depth - 1, np.log(chi))])[::-1]
    gradient = noisy(np.exp(growth), 0.1) * 3e-4
    partial = np.full((repeats, depth), 0.11) + 0.02 * rng.standard_normal((repeats, depth))
    return Measurement(
        layers=layers,
        length=noisy(np.r_[0.9, np.full(depth - 1, 2.1)], 0.04),
        eps=noisy(eps, 0.03),
        eps_error=np.broadcast_to(0.02 * eps, (repeats, depth)).copy(),
        eps_masks=noisy(recurse(depth, chi, field, field=field), 0.03) if field else None,
        gradient=gradient,
        gradient_eps=noisy(eps[::-1], 0.05),
        dead=np.zeros((repeats, depth)),
        saturated=np.clip(partial, 0.0, 1.0),
        zero=np.zeros((repeats, depth)),
        passes=3,
        batch=128,
        pairs=64,
    )


def theory(measured: Measurement, chi: float, field: float = 0.0) -> Theory:
    """Return the curves that the measurement was drawn from, with a finite-width band."""
    depth = len(measured.layers)
    eps = recursion(depth, chi, float(measured.eps[0, 0]), field=field)
    masks = recursion(depth, chi, field, field=field) if field else None
    gradient = 3e-4 * np.exp(np.arange(depth)[::-1] * np.log(chi))
    wander = np.sqrt(np.arange(depth) / 256)
    bands = {
        "length": (0.9 * measured.length[0], 1.1 * measured.length[0]),
        "eps": (eps * np.exp(-wander), np.minimum(eps * np.exp(0.4 * wander), 1.1)),
        "gradient": (gradient * np.exp(-2 * wander[::-1]), gradient * np.exp(2 * wander[::-1])),
    }
    growth = abs(np.log(chi))
    representative = SimpleNamespace(  # read like a MeanField, invented like the rest
        q=2.1,
        eps=float(eps[-1]),
        chi=chi,
        depth_scale=SimpleNamespace(
            length=1.8,
            correlation=5.6 if growth else Undefined("critical: a power of depth"),
            gradient=1.0 / growth if growth else Undefined("critical: it keeps its norm"),
            gradient_pair=4.0,
        ),
    )
    return Theory(
        layers=tuple(range(depth)),
        fields=(representative,) * (depth - 1),
        length=np.r_[measured.length[0, 0], np.full(depth - 1, 2.1)],
        eps=eps,
        eps_masks=masks,
        gradient=gradient,
        gradient_eps=None,
        survival=np.exp(-np.arange(depth) / 5.6) if growth else 1.0 / (1.0 + np.arange(depth)),
        slope=np.full(depth - 1, chi),
        gradient_factor=np.full(depth - 1, chi),
        bands=bands,
        band_nets=64,
        eps_engine="ensemble",
        representative=representative,
        notes=("The weights of each layer are taken as independent Gaussians.",),
    )


def provenance(depth: int) -> dict:
    """Return where the numbers come from, in the shape that ``audit`` fills."""
    return {
        "versions": {"depthscale": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "seed": 0,
        "mode": "train",
        "inputs": "128 × 64, float32",
        "model": ["Sequential("] + [f"  ({k}): Linear(256, 256)" for k in range(depth)] + [")"],
        "seconds": 0.83,
        "passes": 3,
    }


def chaotic(depth: int = 60, *, repeats: int = 1, names: tuple[str, ...] = ()) -> Audit:
    """Return the audit of a deep chaotic tanh network: two problems and one warning."""
    chi = 1.31
    measured = measurement(depth, chi, 0.19, repeats=repeats, names=names)
    where = measured.layers[min(8, depth - 1)].name
    findings = (
        Finding(
            code="chaotic",
            severity="problem",
            layer=where,
            summary="The network is chaotic: two inputs lose every resemblance within 9 of 60 "
            "layers, and whatever tells them apart is drowned in amplified rounding of weights.",
            evidence={"chi": 1.3112, "eps at the input": 0.19, "eps at the output": 0.563},
            predicted_depth_scale=5.6,
            depth=depth,
            fix="Initialise at the edge of chaos for tanh: depthscale.critical_init_(model).",
            fix_values={"sigma_w": 1.0127345678901234, "sigma_b": 0.05},
        ),
        Finding(
            code="gradient_exploding",
            severity="problem",
            layer=measured.layers[0].name,
            summary="Gradients grow by a factor 1.31 per layer on the way back, "
            "8.3 million in all.",
            evidence={"growth per layer": 1.31, "ratio": 8.3e6},
            predicted_depth_scale=3.7,
            depth=depth,
            fix="The same change of the weight scale brings the factor to 1.",
            fix_values={"sigma_w": 1.0127345678901234},
        ),
        Finding(
            code="saturated",
            severity="warning",
            layer=measured.layers[min(3, depth - 1)].name,
            summary="11 % of the tanh units are saturated in every layer.",
            evidence={"saturated": 0.11},
            depth=depth,
        ),
    )
    headlines = (
        Headline(
            "misalignment_end",
            "Misalignment at the output",
            "",
            Band(0.563, 0.53, 0.60),
            0.5636,
            basis="over input pairs",
        ),
        Headline(
            "misalignment_growth",
            "Misalignment grows",
            "per layer",
            Band(1.294, 1.26, 1.33),
            1.311,
        ),
        Headline(
            "gradient_growth", "Gradient grows", "per layer", Band(1.308, 1.295, 1.321), 1.311
        ),
    )
    verdict = Verdict(
        sentence="The signal of the input is lost by layer 9 of 60: the network is chaotic "
        "(σ_w² = 3.58, critical 1.03), although the length of its layers looks healthy.",
        findings=findings,
        headlines=headlines,
        healthy=False,
    )
    return Audit(
        name="examples:chaotic_tanh_mlp",
        measurement=measured,
        theory=theory(measured, chi),
        theory_reason=None,
        verdict=verdict,
        provenance=provenance(depth),
    )


def healthy(depth: int = 24) -> Audit:
    """Return a healthy audit with dropout, re-initialisations and both misalignments."""
    measured = measurement(depth, 1.0, 0.19, repeats=8, field=0.004)
    verdict = Verdict(
        sentence=f"Healthy: the signal crosses all {depth} layers and gradients keep their size.",
        findings=(),
        headlines=(
            Headline(
                "misalignment_end", "Misalignment at the output", "", Band(0.08, 0.07, 0.09),
                Undefined("the depth scale is infinite at criticality"),
            ),
            Headline("misalignment_growth", "Misalignment grows", "per layer",
                     Band(0.981, 0.95, 1.01), 0.99),
            Headline("gradient_growth", "Gradient grows", "per layer",
                     Band(1.001, 0.992, 1.010), 1.0),
        ),
        healthy=True,
    )  # fmt: skip
    return Audit(
        name="critical MLP",
        measurement=measured,
        theory=theory(measured, 1.0, field=0.004),
        theory_reason=None,
        verdict=verdict,
        provenance=provenance(depth),
    )


def without_theory(depth: int = 14, names: tuple[str, ...] = MALICIOUS) -> Audit:
    """Return the audit of a model that no theory covers, with hostile names and missing values."""
    measured = measurement(depth, 0.25, 0.19, names=names)
    measured.gradient[0, :4] = 0.0
    measured.eps[0, -2:] = 0.0
    measured.dead[0, min(3, depth - 1)] = np.nan
    finding = Finding(
        code="gradient_vanishing",
        severity="problem",
        layer=names[1] if len(names) > 1 else None,
        summary=f"No gradient reaches {names[0] if names else 'layer 0'}.",
        evidence={"gradient": 0.0, names[2] if len(names) > 2 else "note": "text & <b>"},
        predicted_depth_scale=None,
        depth=depth,
        fix="Add a skip connection around <b>every</b> block.",
    )
    verdict = Verdict(
        sentence="Gradients vanish before they reach the first layers.",
        findings=(finding,),
        headlines=(
            Headline("misalignment_end", "Misalignment at the output", "", None,
                     Undefined("no chain was recognised"), reason="the last layer is constant"),
            Headline("misalignment_growth", "Misalignment grows", "per layer",
                     Band(0.25, 0.2, 0.3), Undefined("no chain was recognised")),
            Headline("gradient_growth", "Gradient grows", "per layer", None,
                     Undefined("no chain was recognised"), reason="no gradient at layer 0"),
        ),
        healthy=False,
    )  # fmt: skip
    facts = provenance(depth)
    facts["model"] = [*names, "  (0): Block(…)"]
    return Audit(
        name=names[0] if names else "residual",
        measurement=measured,
        theory=None,
        theory_reason="this model has residual branches; theory covers plain chains",
        verdict=verdict,
        provenance=facts,
    )

"""Audit a real torch model: measure it, hold it against theory, say what to change."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError
from depthscale.practice.diagnosis.findings import Finding
from depthscale.practice.diagnosis.growth import Band
from depthscale.practice.diagnosis.prediction import Theory, predict, representative
from depthscale.practice.diagnosis.rules import SIGNAL_FADING
from depthscale.practice.diagnosis.verdict import Headline, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import xarray as xr
    from torch import nn

    from depthscale.practice.advice import Advice
    from depthscale.practice.probe.measure import Measurement
    from depthscale.practice.probe.sites import Chain
    from depthscale.practice.probe.trace import Trace

__all__ = ["Audit", "Band", "Finding", "Headline", "NotTrainable", "Theory", "Verdict", "audit"]

FADED = math.exp(-SIGNAL_FADING)

# Lines of the printed model that are kept; the rest is counted.
SUMMARY_LINES = 200


class NotTrainable(AssertionError):  # noqa: N818  (it reads as the answer, not as a fault)
    """An audit found a problem; the message is the verdict with its findings and fixes."""


@dataclass(frozen=True)
class Audit:
    """What was measured on a model, what theory predicts, and the verdict.

    ``theory`` is None where no chain was recognised, and ``theory_reason`` says why. ``advice`` is
    the initialisation that theory recommends for the chain's activation and dropout, None without
    one. ``provenance`` holds "versions" (a dict), "seed", "mode", "inputs" (shape and type as
    text), "model" (summary lines), "parameters", "seconds" and "passes".
    """

    name: str
    measurement: Measurement
    theory: Theory | None
    theory_reason: str | None
    verdict: Verdict
    provenance: dict[str, Any]
    advice: Advice | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """The terminal report: plain text of at most 100 columns."""
        from depthscale.report.terminal import render

        return render(self)

    @property
    def healthy(self) -> bool:
        """Whether no problem was found; warnings do not count."""
        return self.verdict.healthy

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, schema ``depthscale.audit/1`` (see ``record.audit_record``)."""
        from depthscale.practice.diagnosis.record import audit_record

        return audit_record(self)

    def to_json(self) -> str:
        """``to_dict`` as JSON text: full precision, and never NaN or Infinity."""
        import json

        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)

    def to_html(self, path: str | Path) -> None:
        """Write one self-contained page that needs no network."""
        from depthscale.report.page import write_page

        write_page(self, path)

    def to_xarray(self) -> xr.Dataset:
        """Curves over ``layer`` (measured ones over ``repeat`` too), with units and provenance."""
        from depthscale.practice.diagnosis.record import audit_dataset

        return audit_dataset(self)

    def assert_trainable(self) -> None:
        """Raise ``NotTrainable`` when a problem was found, for use in tests.

        >>> audit(model, inputs).assert_trainable()  # doctest: +SKIP
        """
        if self.verdict.healthy:
            return
        lines = [f"{self.name}: {self.verdict.sentence}"]
        for found in self.verdict.findings:
            place = f" at {found.layer}" if found.layer else ""
            lines.append(f"- {found.severity} {found.code}{place}: {found.summary}; {found.fix}")
        raise NotTrainable("\n".join(lines))


def audit(
    model: nn.Module,
    inputs: Any,
    *,
    targets: Any = None,
    loss: Callable[..., Any] | None = None,
    mode: str = "train",
    pairs: int = 64,
    reinit: int = 0,
    seed: int = 0,
    name: str | None = None,
    band_nets: int = 64,
) -> Audit:
    """Measure a model layer by layer, hold it against theory, and say what to change.

    The model runs twice (once forwards only, once with gradients; once more per ``reinit``) and is
    left exactly as it was. Where it is a chain of weights, activation and dropout, the predicted
    curves and the noise bands of random networks of the same widths are computed beside, in about
    a second; elsewhere the audit is the measurement alone and says why.

    Args:
        model: any ``nn.Module``.
        inputs: a real batch, ``(batch, ...)`` tensor or array, a tuple (positional arguments) or a
            mapping (keyword arguments); at least two different examples. A hundred are plenty.
        targets, loss: what to take gradients of; by default a random readout of the output, which
            is what theory speaks of.
        mode: "train" (dropout drops) or "eval".
        pairs: pairs of inputs, at most.
        reinit: how many more times to measure with weights drawn anew from their own distribution,
            so that the headline numbers come with the scatter between initialisations.
        seed: of masks, readout, redrawn weights and bands, in 0..2**63 - 1.
        name: what to call the model in the report; default its class.
        band_nets: networks for the finite-width bands (fewer for wide and deep ones), none below 2.

    Raises:
        InputError: unusable model, inputs or settings; NaN or infinite weights (named); a model
            that cannot run these inputs (its own error is quoted).

    >>> report = audit(model, images)  # doctest: +SKIP
    >>> print(report)  # doctest: +SKIP
    >>> report.assert_trainable()  # doctest: +SKIP
    """
    from time import perf_counter

    from depthscale.practice.probe.measure import measure
    from depthscale.practice.probe.sites import recognise_chain
    from depthscale.practice.probe.state import preserved

    if not isinstance(band_nets, int) or band_nets < 0:
        raise InputError(f"band_nets is {band_nets!r}; expected a whole number of 0 or above")
    begun = perf_counter()
    measurement = measure(
        model,
        inputs,
        targets=targets,
        loss=loss,
        mode=mode,
        pairs=pairs,
        reinit=reinit,
        seed=seed,
    )
    assert measurement.trace is not None  # measure always keeps it
    with preserved(model):  # what tries an activation of the model runs the user's code
        chain = recognise_chain(measurement.trace, _plain(model))
        theory, reason = _theory(measurement, chain, band_nets, seed)
        advice = _advice(chain, theory, model, measurement.trace)
    verdict = judge(measurement, theory, theory_reason=reason, advice=advice)
    facts = _provenance(model, inputs, measurement, seed)
    facts["seconds"] = perf_counter() - begun
    title = name or type(_plain(model)).__name__
    return Audit(title, measurement, theory, reason, verdict, facts, advice)


def _theory(
    measurement: Measurement, chain: Chain | str, band_nets: int, seed: int
) -> tuple[Theory | None, str | None]:
    """Predict the chain of a model, or say why there is nothing to predict."""
    if isinstance(chain, str):
        return None, chain
    if measurement.nonfinite_at is not None:
        return None, f"the signal is not finite at {measurement.nonfinite_at}"
    try:
        return predict(measurement, chain, band_nets=band_nets, seed=seed), None
    except InputError as error:
        return None, str(error)


def _advice(
    chain: Chain | str, theory: Theory | None, model: nn.Module, trace: Trace
) -> Advice | None:
    """The recommended initialisation for the layer that stands for the chain.

    With the obstacle, if any, that keeps ``critical_init_`` from setting it in this model.
    """
    from depthscale.practice.advice import advise
    from depthscale.practice.initialisation import init_obstacle

    if isinstance(chain, str):
        return None
    # The largest drop takes a root search: only where dropout may be what loses the signal.
    searched = theory is not None and theory.drop > 0 and theory.survival[-1] < FADED
    try:
        state = representative(chain)
        depth = len(chain.layers) if searched else None
        advice = advise(state.activation, drop=float(state.drop), depth=depth)
    except InputError:
        # An activation that jumps in value: the report gives that reason where theory would be.
        return None
    return replace(advice, obstacle=init_obstacle(model, trace))


def _plain(model: nn.Module) -> nn.Module:
    from depthscale.practice.probe.trace import unwrap

    return unwrap(model)[0]


def _provenance(
    model: nn.Module, inputs: Any, measurement: Measurement, seed: int
) -> dict[str, Any]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from depthscale.practice.probe.feed import describe_inputs

    versions = {"python": platform.python_version()}
    for package in ("depthscale", "torch", "numpy", "scipy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    lines = str(_plain(model)).splitlines()
    if len(lines) > SUMMARY_LINES:
        lines = [*lines[:SUMMARY_LINES], f"... {len(lines) - SUMMARY_LINES} more lines"]
    return {
        "versions": versions,
        "seed": seed,
        "mode": measurement.mode,
        "inputs": describe_inputs(inputs),
        "pairs": measurement.pairs,
        "model": lines,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "passes": measurement.passes,
        "notes": list(measurement.notes),
    }

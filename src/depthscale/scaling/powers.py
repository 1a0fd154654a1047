"""Power laws with corrections, their errors, and whether they hold in every part of the window."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.scaling.curves import (
    PLAIN,
    Curve,
    Fitted,
    checked_omega,
    fit_curve,
    with_logarithm,
    with_power,
)
from depthscale.scaling.series import Array, Series, series
from depthscale.theory.records import as_number, whole, with_reasons

CORRECTIONS = ("power", "logarithmic")
DRAWS = 20_000
"""Of the joint law of a fit's drifts, from a fixed seed."""

_SMOOTH = 1e-3
"""Probability of so small a chi2 below which errors are not those of independent points."""

_DECIDED = 6.0
"""Difference of two BIC from which another form is preferred, "strong" in Kass and Raftery (1995,
J. Am. Stat. Assoc. 90, 773)."""


class Cut(NamedTuple):
    """A fit without the smallest or largest x.

    ``drift``: difference to the fit of all points; ``drift_error``: its standard error, in which
    the points that both share cancel. Of fits that weigh the points well it is
    ``sqrt(error^2 - error_all^2)`` (Hausman 1978, Econometrica 46, 1251).
    """

    side: str
    dropped: int
    smallest: float
    largest: float
    value: float
    error: float
    drift: float
    drift_error: float

    @property
    def significance(self) -> float:
        """Drift over its standard error."""
        return self.drift / self.drift_error if self.drift_error > 0 else 0.0


@dataclass(frozen=True)
class PowerLaw:
    """A fitted power law ``y = A x^-exponent``, perhaps with a correction.

    ``error``: half width of the 68.3 % interval. ``parameters``: every fitted parameter by name as
    (value, error): ``exponent``, ``amplitude``; with a correction "power" ``correction``, the a of
    ``1 + a x^-omega``, and ``omega`` (error 0 where it was given); with "logarithmic" ``log_power``
    and ``reference``, b and x0 of ``log(x/x0)^b``. ``bic`` of all forms by name, the smallest is
    preferred. ``stability``: fits of a part of the window; ``drift_p``: probability that the
    largest drift among them, over its error, is as large where the form holds. ``warnings`` in
    plain language.
    """

    exponent: float
    error: float
    parameters: Mapping[str, tuple[float, float]]
    correction: str | None
    chi2: float
    dof: int
    p_value: Quantity
    bic: Mapping[str, float]
    window: tuple[float, float]
    points: int
    kind: str
    stability: tuple[Cut, ...]
    drift_p: Quantity
    warnings: tuple[str, ...]
    fitted: Fitted

    def __call__(self, x: ArrayLike) -> Array:
        """The fitted curve at these places, above 0."""
        places = np.asarray(x, dtype=float)
        return self.fitted(places.ravel()).reshape(places.shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; a quantity that does not exist is None, with its reason."""
        record = {
            "exponent": self.exponent,
            "error": self.error,
            "parameters": {
                name: {"value": value, "error": error}
                for name, (value, error) in self.parameters.items()
            },
            "correction": self.correction,
            "chi2": self.chi2,
            "dof": self.dof,
            "p_value": self.p_value,
            "bic": dict(self.bic),
            "window": list(self.window),
            "points": self.points,
            "errors": self.kind,
            "stability": [{**cut._asdict(), "sigmas": cut.significance} for cut in self.stability],
            "drift_p": self.drift_p,
            "warnings": list(self.warnings),
        }
        return with_reasons(record)

    def __str__(self) -> str:
        from depthscale.report.exponent_summaries import render_power_law

        return render_power_law(self.to_dict())


def power_law(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    error: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    realisations: ArrayLike | None = None,
    samples: int | None = None,
    correction: str | None = None,
    omega: float | None = None,
    reference: float | None = None,
    window: tuple[float, float] | None = None,
    cuts: int = 8,
    level: float = 0.01,
) -> PowerLaw:
    """Fit ``y = A x^-e``, ``A x^-e (1 + a x^-omega)`` or ``A x^-e log(x/x0)^b``.

    By least squares in y, with the amplitudes eliminated. Whether the window is one to trust is
    asked twice: by chi2, and by refitting without the smallest or the largest x. The second sees
    far smaller deviations than the first, because all of them point the same way.

    Parameters
    ----------
    x, y, error, covariance, realisations, samples:
        As for ``effective_exponent``.
    correction:
        None, "power" or "logarithmic".
    omega:
        Of the correction "power", above 0; default: fitted, from .05 to 5.
    reference:
        ``x0`` of the correction "logarithmic", between 0 and the smallest x; default: the smallest
        x over e, so that the logarithm starts at 1.
    window:
        Smallest and largest x to fit, default all.
    cuts:
        How many parts of the window to refit on each side; 0 asks for none, nor for other forms.
    level:
        Significance at which a warning is given, in (0, 1).

    Raises
    ------
    InputError
        With what was given and what is expected.

    Examples
    --------
    >>> x = np.geomspace(1, 1000, 13)
    >>> y = 2 * x**-0.25 * (1 + 0.5 / x)
    >>> law = power_law(x, y, error=0.03 * y)
    >>> law.warnings[1][:44]
    'the exponent drifts: 0.2912 with all points,'
    >>> law = power_law(x, y, error=0.001 * y, correction="power")
    >>> round(law.exponent, 6), round(law.parameters["omega"][0], 4)
    (0.25, 1.0)
    """
    points = series(
        x, y, error=error, covariance=covariance, realisations=realisations, samples=samples
    ).within(window)
    curve = _curve(points, correction, omega, reference)
    level = as_number("level", level)
    if not 0 < level < 1:
        raise InputError(f"level is {level:g}; expected a probability inside (0, 1)")
    cuts = whole("cuts", cuts, 0)
    if len(points) < curve.parameters:
        raise InputError(
            f"{len(points)} points for {curve.parameters} parameters; take a wider window or a form"
            " with fewer"
        )
    if not np.any(points.y > 0):
        raise InputError("no y is above 0; a power law with positive amplitude needs some")
    best = fit_curve(points, curve)
    stability, drift_p = _stability(points, best, cuts)
    bic = {curve.name: best.bic}
    if cuts:
        bic |= _others(points, curve, reference)
    law = PowerLaw(
        exponent=best.value("exponent"),
        error=best.error("exponent"),
        parameters=_parameters(points, best, omega, reference),
        correction=correction,
        chi2=best.solution.chi2,
        dof=best.solution.dof,
        p_value=best.solution.p_value,
        bic=bic,
        window=(float(points.x[0]), float(points.x[-1])),
        points=len(points),
        kind=points.kind,
        stability=stability,
        drift_p=drift_p,
        warnings=(),
        fitted=best,
    )
    return replace(law, warnings=tuple(_warnings(law, level)))


def _curve(
    points: Series, correction: str | None, omega: float | None, reference: float | None
) -> Curve:
    if correction is not None and correction not in CORRECTIONS:
        raise InputError(f"correction is {correction!r}; expected None or one of {CORRECTIONS}")
    if omega is not None:
        if correction != "power":
            raise InputError('omega is a power of correction="power"; leave it out')
        omega = checked_omega(omega, points.x)
    if reference is not None and correction != "logarithmic":
        raise InputError('reference is x0 of correction="logarithmic"; leave it out')
    if correction == "power":
        return with_power(omega)
    if correction == "logarithmic":
        return with_logarithm(_reference(points, reference) / _scale(points))
    return PLAIN


def _scale(points: Series) -> float:
    return float(np.exp(np.log(points.x).mean()))


def _reference(points: Series, reference: float | None) -> float:
    smallest = float(points.x[0])
    if reference is None:
        return smallest / math.e
    reference = as_number("reference", reference)
    if not 0 < reference < smallest:
        raise InputError(
            f"reference is {reference:g}; expected a number between 0 and the smallest x,"
            f" {smallest:g}"
        )
    return reference


def _parameters(
    points: Series, best: Fitted, omega: float | None, reference: float | None
) -> dict[str, tuple[float, float]]:
    """Parameters in the units of x, whose scale the fit has taken out."""
    e, scale = best.value("exponent"), best.scale
    found = {"exponent": (e, best.error("exponent"))}
    covariance = best.solution.covariance
    widen = best.error("exponent") / math.sqrt(covariance[0, 0])
    stretch = math.log(scale)

    def named(name: str, value: float, **by: float) -> None:
        """With its derivatives by the fitted parameters."""
        gradient = np.zeros(len(covariance))
        for other, slope in by.items():
            gradient[best.place(other)] = slope
        found[name] = (value, widen * math.sqrt(float(gradient @ covariance @ gradient)))

    size = best.value("amplitude")
    front = size * scale**e
    named("amplitude", front, amplitude=scale**e, exponent=front * stretch)
    if best.curve.name == "power":
        free = omega is None
        power = best.value("omega") if free else float(omega or 0.0)
        a = best.value("correction") / size * scale**power
        by = {"correction": scale**power / size, "amplitude": -a / size}
        named("correction", a, **by, **({"omega": a * stretch} if free else {}))
        found["omega"] = (power, best.error("omega") if free else 0.0)
    if best.curve.name == "logarithmic":
        found["log_power"] = (best.value("log_power"), best.error("log_power"))
        found["reference"] = (_reference(points, reference), 0.0)
    return found


def _others(points: Series, curve: Curve, reference: float | None) -> dict[str, float]:
    """BIC of the forms that were not asked for, where the points suffice for them."""
    rest = (
        PLAIN,
        with_power(),
        with_logarithm(_reference(points, reference) / _scale(points)),
    )
    return {
        other.name: fit_curve(points, other).bic
        for other in rest
        if other.name != curve.name and len(points) > other.parameters
    }


def _stability(points: Series, best: Fitted, cuts: int) -> tuple[tuple[Cut, ...], Quantity]:
    """Fits of parts of the window, and how probable their largest drift is by chance."""
    spare = len(points) - best.curve.parameters - 1
    if cuts == 0 or spare < 1:
        why = "not asked for" if cuts == 0 else "no points to spare"
        return (), Undefined(f"no part of the window was fitted: {why}")
    counts = sorted({int(k) for k in np.linspace(1, spare, min(cuts, spare)).round()})
    place = best.place("exponent")
    found: list[Cut] = []
    makers: list[Array] = []
    for side in ("smallest", "largest"):
        for dropped in counts:
            keep = np.arange(len(points))
            keep = keep[dropped:] if side == "smallest" else keep[: len(points) - dropped]
            cut, maker = _cut(points, best, keep, side, place)
            found.append(cut)
            makers.append(maker)
    return tuple(found), _largest_drift(points, found, np.array(makers))


def _cut(
    points: Series, best: Fitted, keep: np.ndarray, side: str, place: int
) -> tuple[Cut, Array]:
    """A part, and the derivative [n] of its drift by all points."""
    part = points.part(keep)
    curve = best.curve
    if curve.name == "logarithmic":  # whose reference is in units of the scale of the part
        reference = _log_reference(best)
        curve = with_logarithm(reference / _scale(part))
    fit = fit_curve(part, curve, best.theta if best.theta.size else None)
    maker = -best.solution.influence[place].copy()
    maker[keep] += fit.solution.influence[place]
    value = fit.value("exponent")
    drift = value - best.value("exponent")
    error = math.sqrt(max(float(maker @ points.covariance @ maker), 0.0))
    cut = Cut(
        side,
        len(points) - len(part),
        float(part.x[0]),
        float(part.x[-1]),
        value,
        fit.error("exponent"),
        drift,
        error,
    )
    return cut, maker


def _log_reference(best: Fitted) -> float:
    """``x0`` of a logarithmic form, read off its design: ``log(u/x0)`` at u = 1, e = 0, b = 1."""
    one = best.curve.design(np.ones(1), np.array([0.0, 1.0]))
    return best.scale * math.exp(-float(one[0, 0]))


def _largest_drift(points: Series, found: list[Cut], makers: Array) -> Quantity:
    """Probability of a largest ``|drift|/error`` as large as that found, by sampling their law."""
    spread = makers @ points.covariance @ makers.T
    errors = np.sqrt(np.diag(spread))
    if np.any(errors <= 0):
        return Undefined("a part of the window has the same fit as all of it")
    values, vectors = np.linalg.eigh(spread / np.outer(errors, errors))
    root = vectors * np.sqrt(np.clip(values, 0, None))
    generator = np.random.default_rng(0)
    drawn = np.abs(generator.standard_normal((DRAWS, len(found))) @ root.T)
    if math.isfinite(points.degrees):
        drawn /= np.sqrt(generator.chisquare(points.degrees, (DRAWS, 1)) / points.degrees)
    worst = max(abs(cut.significance) for cut in found)
    return float((1 + (drawn.max(axis=1) >= worst).sum()) / (1 + DRAWS))


def _warnings(law: PowerLaw, level: float) -> list[str]:
    """What a reader must know before the exponent is used."""
    notes = []
    if isinstance(law.p_value, float):
        if law.p_value < level:
            notes.append(
                f"this form does not describe the points: chi2 = {law.chi2:.3g} on {law.dof}"
                f" degrees of freedom, probability {law.p_value:.2g}"
            )
        elif law.p_value > 1 - _SMOOTH and law.kind == "errors":
            notes.append(
                f"the points scatter far less than their errors (chi2 = {law.chi2:.3g} on {law.dof}"
                " degrees of freedom): points of one trajectory move together, and the error of the"
                " exponent is then too small; give covariance or realisations"
            )
    if isinstance(law.drift_p, float) and law.drift_p < level:
        worst = max(law.stability, key=lambda cut: abs(cut.significance))
        notes.append(
            f"the exponent drifts: {law.exponent:.4g} with all points,"
            f" {worst.value:.4g} on {worst.smallest:.4g} to {worst.largest:.4g},"
            f" {abs(worst.significance):.1f} standard errors of the difference (probability"
            f" {law.drift_p:.1g}); it depends on the window"
        )
    for name in law.fitted.stuck:
        notes.append(f"{name} = {law.fitted.value(name):.3g} is at the end of what was searched")
    return notes + _preferred(law)


def _preferred(law: PowerLaw) -> list[str]:
    own = law.bic[law.correction or "none"]
    best = min(law.bic, key=lambda name: law.bic[name])
    gain = own - law.bic[best]
    if gain <= _DECIDED:
        plain = law.bic.get("none", -math.inf)
        if law.correction is not None and plain < own:
            return ["the correction is not needed: BIC of the plain power law is no worse"]
        return []
    if best == "none":
        return [f"the correction is not needed: BIC prefers the plain power law, by {gain:.4g}"]
    return [f'BIC prefers the form with the correction "{best}", by {gain:.4g}']

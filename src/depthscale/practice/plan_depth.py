r"""The depth, bias and width that a data set allows: ``plan_depth``.

A network on the critical line learns well while the stretch ``s = beta a L`` lies in the window of
the data (``data_window``): depth and bias, which sets the curvature ``a``, can be traded for one
another. A width n lets the misalignment deviate from that of infinite width by the share
``|mu| L/n``, ``mu = -(lam/2 + (2 - beta) s^2/12)`` (of ``theory.diffusion``; derived here, for
smooth activations the mu of the finite-size law), and by ``s sqrt(L/(3 n))`` from network to
network.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from depthscale.answers import InputError, Quantity, Undefined
from depthscale.practice.data import NAMES, DataSet
from depthscale.practice.data_window import (
    SAME,
    DataWindow,
    Distances,
    data_window,
    distances,
    standard_window,
)
from depthscale.practice.depth_plan import DepthPlan, LinePoint
from depthscale.practice.kernel_regression import KernelRegression, network_regression
from depthscale.theory.activation import activation as as_activation
from depthscale.theory.criticality import critical_point
from depthscale.theory.diffusion import stochastic_limit
from depthscale.theory.kernel_window import reach
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number, whole

__all__ = ["DepthPlan", "LinePoint", "plan_depth"]

DEEPEST = 2000
"""Hops up to which a plan is checked with the kernel of the activation itself."""

LENGTHS = np.geomspace(1e-4, 1e4, 49)
"""Lengths q of the critical line that are looked at: six a decade."""

LEAST_BIAS, MOST_BIAS = 1e-3, 10.0
"""Of ``sigma_b`` that is proposed: below, the length forgets more slowly than any depth in use;
above, the bias is all of the signal."""


def plan_depth(
    data: Any,
    activation: Any,
    *,
    sigma_b: float | None = None,
    depth: int | None = None,
    width: int | None = None,
    window: tuple[float, float] | DataWindow | None = None,
    deviation: float = 0.1,
    steps: float = 1000.0,
    loss: float = 0.02,
    seed: int = 0,
) -> DepthPlan:
    """The depths and biases at which an activation, initialised critically, suits a data set.

    Parameters
    ----------
    data:
        A ``DataSet``, an array or tensor [example, feature, ...], or a name that
        ``practice.data.load`` takes.
    activation:
        Anything that ``activation()`` accepts.
    sigma_b, depth:
        One of them, to get the window of the other; both, to have them judged; none, for the choice
        along the critical line.
    width:
        Units of a layer: depths that it cannot carry are left out of ``depth_window``.
    window:
        ``(low, high)`` of the stretch ``beta a L``, or a ``DataWindow``. Default: measured, see
        ``data_window``; without labels, that of the digits scaled to the data's median distance.
    deviation:
        Share by which a finite width may move the misalignment, in (0, 1).
    steps, loss, seed:
        Of ``data_window``.

    Raises
    ------
    InputError
        Data that are none, numbers out of range.

    Examples
    --------
    >>> plan = plan_depth("digits", "erf", sigma_b=0.3, window=(0.5, 20.0))
    >>> plan.verdict, plan.depth_window
    ('inside', (2.0, 79.0))
    """
    examples, phi = _examples(data), as_activation(activation)
    deviation = as_number("deviation", deviation)
    if not 0 < deviation < 1:
        raise InputError(f"deviation is {deviation:g}; expected a share in (0, 1)")
    hops = None if depth is None else whole("depth", depth, 1, "hops")
    units = None if width is None else whole("width", width, 1, "units")
    if sigma_b is not None and not 0 <= as_number("sigma_b", sigma_b) < math.inf:
        raise InputError(f"sigma_b is {sigma_b!r}; expected a standard deviation, at least 0")
    apart = distances(examples, seed)
    layers = [_at_bias(phi, sigma_b)] if sigma_b is not None else _critical_line(phi)
    usable = [layer for layer in layers if isinstance(layer, MeanField)]
    request = _Request(examples, phi.name, apart, deviation, units, steps, seed)
    if not usable:
        return request.nothing(str(getattr(layers[0], "reason", layers[0])))
    hop = reach(usable[0])
    if isinstance(hop, Undefined):
        return request.nothing(hop.reason)
    if reason := _no_distance(apart):
        return request.nothing(reason, 1 + hop[1])
    found, notes = _window(request, window, 1 + hop[1], steps, loss)
    line = tuple(_line_point(layer, found) for layer in usable)
    return request.plan(found, notes, usable, line, hops, given=sigma_b is not None)


@dataclass(frozen=True)
class _Request:
    """What was asked for, checked."""

    examples: DataSet
    name: str
    apart: Distances
    deviation: float
    units: int | None
    steps: float
    seed: int

    def nothing(self, reason: str, kappa: float | None = None) -> DepthPlan:
        """The answer where there is no window."""
        none = Undefined(reason)
        return DepthPlan(
            self.name, none if kappa is None else kappa, self.apart, none, none, none, none, none,
            none, "no window", none, none, none, none, none, self.deviation, (), none, reason,
        )  # fmt: skip

    def plan(
        self,
        window: DataWindow,
        notes: tuple[str, ...],
        layers: list[MeanField],
        line: tuple[LinePoint, ...],
        hops: int | None,
        given: bool,
    ) -> DepthPlan:
        """The plan, from the window and the critical line (one point where a bias was given)."""
        one = given or len(layers) == 1
        open_ = Undefined("one of a line: give sigma_b or depth")
        empty = DepthPlan(
            self.name, window.kappa, self.apart, window, open_, open_, open_, open_, open_,
            "choose", open_, _biases(line, hops, layers, given, window), open_, open_, open_,
            self.deviation, () if given else line, open_, "", notes,
        )  # fmt: skip
        if not one and hops is None:
            return empty
        place = 0 if one else _best_place(line, window, hops or 1)
        point, layer = line[place], layers[place]
        if not one:  # between the points of the line, at the best stretch itself
            layer = _between(layers, line, window.best / (hops or 1), place)
            point = _line_point(layer, window)
        chosen = hops if hops is not None else max(1, round(window.best / point.stretch))
        depths, more = self._depths(point, _widths(layer, 1, self.deviation)[0])
        if hops is None and isinstance(depths, tuple):
            chosen = int(min(chosen, depths[1]))
        stretch = point.stretch * chosen
        mu, mean, spread = _widths(layer, chosen, self.deviation)
        verdict = _verdict(stretch, window)
        if verdict == "inside" and self.units is not None and not isinstance(mean, Undefined):
            verdict = "inside" if mean <= self.units else "too narrow"
        return replace(
            empty,
            sigma_w=point.sigma_w,
            sigma_b=point.sigma_b,
            depth=chosen,
            stretch=stretch,
            X=stretch * self.apart.median ** (window.kappa - 1),
            verdict=verdict,
            depth_window=depths,
            width=mean,
            width_spread=spread,
            mu=mu,
            check=self._check(layer, chosen),
            notes=(*notes, *more),
        )

    def _depths(
        self, point: LinePoint, mu: Quantity
    ) -> tuple[tuple[float, float] | Undefined, tuple[str, ...]]:
        low, high = max(1.0, math.ceil(point.shallowest)), point.deepest
        notes: tuple[str, ...] = ()
        if math.isfinite(high):
            high = float(math.floor(high))
        if self.units is not None and not isinstance(mu, Undefined) and mu != 0:
            carried = math.floor(self.deviation * self.units / abs(mu))
            if carried < high:
                notes = (
                    f"{self.units} units carry {carried} hops to within {self.deviation:g}, fewer"
                    f" than the data allow ({high:g})",
                )
                high = float(carried)
        if high < low:
            return Undefined(
                f"the shallowest that trains has {low:g} hops, the deepest {high:g}"
            ), notes
        return (float(low), high), notes

    def _check(self, layer: MeanField, hops: int) -> KernelRegression | Undefined:
        if self.examples.targets is None:
            return Undefined("the data have no labels")
        if len(np.unique(self.examples.targets.numpy())) < 2:
            return Undefined("the data have labels of one class")
        if hops > DEEPEST:
            return Undefined(f"deeper than {DEEPEST} hops, which are checked")
        drawn = self.examples.draw(500, self.seed)
        try:
            return network_regression(layer, hops, *drawn.split(0.5), steps=self.steps)
        except InputError as error:
            return Undefined(str(error))


# The data -----------------------------------------------------------------------------------------


def _examples(data: Any) -> DataSet:
    import torch

    from depthscale.practice.data import load

    if isinstance(data, DataSet):
        return data
    if isinstance(data, str):
        return load(data)
    if isinstance(data, tuple) and len(data) == 2:
        inputs, targets = (torch.as_tensor(np.asarray(part)) for part in data)
        return DataSet(inputs.double(), targets.long(), "your data")
    array: torch.Tensor | None = None
    with suppress(TypeError, ValueError, RuntimeError):
        array = torch.as_tensor(np.asarray(data))
    if array is None or array.ndim < 2 or array.is_complex():
        raise InputError(
            f"data is a {type(data).__name__}; expected a DataSet, an array [example, feature], a"
            f" pair (inputs, labels), a file, or one of {', '.join(NAMES)}"
        )
    return DataSet(array.double(), None, "your data")


def _no_distance(apart: Distances) -> str:
    """Why the data have no typical distance, or nothing."""
    if apart.median < SAME:
        return (
            f"half of the pairs of {apart.name} coincide (rho_0 = 0): no depth tells equal inputs"
            " apart; remove duplicates"
        )
    pairs = apart.examples * (apart.examples - 1) // 2
    if apart.opposites == pairs:
        return (
            f"the inputs of {apart.name} point in opposite directions: an odd activation keeps them"
            " so at any depth, and the window is not one of theirs"
        )
    return ""


def _window(
    request: _Request,
    window: tuple[float, float] | DataWindow | None,
    kappa: float,
    steps: float,
    loss: float,
) -> tuple[DataWindow, tuple[str, ...]]:
    if isinstance(window, DataWindow):
        if abs(window.kappa - kappa) > 1e-9:
            raise InputError(
                f"the window is one for kappa = {window.kappa:g}, and {request.name} has {kappa:g}"
            )
        return window, ()
    nothing = np.empty(0)
    if window is not None:
        low, high = (as_number("window", end) for end in window)
        if not 0 <= low < high:
            raise InputError(f"window is {window!r}; expected 0 <= low < high of beta a L")
        best = math.sqrt(max(low, high / 100) * high) if math.isfinite(high) else 2 * max(low, 1.0)
        return (
            DataWindow(kappa, low, high, best, nothing, nothing, 0.0, steps, loss, 0, "as given"),
            (),
        )
    labels = request.examples.targets
    if labels is not None and len(np.unique(labels.numpy())) > 1:
        found = data_window(request.examples, kappa, steps=steps, loss=loss, seed=request.seed)
        return found, _window_notes(found, request.apart)
    low, high, best = (
        x / request.apart.median ** (kappa - 1) for x in standard_window(kappa, steps, loss)
    )
    made = DataWindow(
        kappa, low, high, best, nothing, nothing, 0.0, steps, loss, 0,
        "the digits, scaled to the median distance of these data",
    )  # fmt: skip
    return made, ("without labels the window is not measured on these data",)


def _window_notes(window: DataWindow, apart: Distances) -> tuple[str, ...]:
    notes = []
    if window.low == 0:
        notes.append("even a linear network is as good here: the window has no lower end")
    if 2 * window.error > window.loss:
        notes.append(
            f"accuracy is known to {window.error:.2g} only, the window to no better; more examples"
            " or a larger loss make it sharper"
        )
    if apart.duplicates:
        notes.append(f"{apart.duplicates} pairs of examples coincide")
    return tuple(notes)


# The critical line --------------------------------------------------------------------------------


def _at_bias(phi: Any, sigma_b: float) -> MeanField | Undefined:
    return _layer(phi, critical_point(phi, sigma_b=float(sigma_b)))


def _critical_line(phi: Any) -> list[MeanField | Undefined]:
    """Initialisations along the critical line, by rising length; or one that has the reason."""
    if phi.why_no_theory:
        return [Undefined(phi.why_no_theory)]
    if phi.scale_free:
        return [_at_bias(phi, 0.0)]
    points = [critical_point(phi, q=float(q)) for q in LENGTHS]
    found = [
        _layer(phi, p) for p in points if p.exists and LEAST_BIAS <= float(p.sigma_b) <= MOST_BIAS
    ]
    usable = [layer for layer in found if isinstance(layer, MeanField)]
    if not usable:
        return [
            Undefined(f"{phi.name} has no usable critical point: {points[len(points) // 2].reason}")
        ]
    kinds = {round(float(layer.universality.kappa), 9) for layer in usable}
    if len(kinds) > 1:  # of a length so small that kinks are out of reach
        usual = float(usable[len(usable) // 2].universality.kappa)
        usable = [x for x in usable if abs(float(x.universality.kappa) - usual) < 1e-9]
    return list(usable)


def _layer(phi: Any, point: Any) -> MeanField | Undefined:
    if not point.exists:
        return Undefined(point.reason)
    layer = MeanField(phi, float(point.sigma_w), float(point.sigma_b), start=float(point.q))
    settled, hop = layer.settled, reach(layer)
    if isinstance(settled, Undefined):
        return settled
    if isinstance(hop, Undefined):
        return hop
    if abs(settled[0] / float(point.q) - 1) > 1e-3:
        return Undefined(f"the length leaves the critical one, {float(point.q):.3g}")
    if not hop[0] > 1e-9:
        return Undefined("the map is straight: alignment takes no number of layers")
    return layer


def _line_point(layer: MeanField, window: DataWindow) -> LinePoint:
    hop = reach(layer)
    assert not isinstance(hop, Undefined)
    return LinePoint(
        layer.sigma_w, layer.sigma_b, float(layer.q), hop[0], window.low / hop[0],
        window.high / hop[0],
    )  # fmt: skip


def _best_place(line: tuple[LinePoint, ...], window: DataWindow, hops: int) -> int:
    off = [abs(math.log(point.stretch * hops / window.best)) for point in line]
    return int(np.argmin(off))


def _between(
    layers: list[MeanField], line: tuple[LinePoint, ...], wanted: float, place: int
) -> MeanField:
    """The critical layer with the stretch that is wanted, next to a place of the line."""
    for other in (place - 1, place + 1):
        if 0 <= other < len(line):
            a, b = (math.log(line[k].stretch / wanted) for k in (place, other))
            if a * b < 0:
                share = a / (a - b)
                log_q = (1 - share) * math.log(line[place].q) + share * math.log(line[other].q)
                phi = layers[place].activation
                found = _layer(phi, critical_point(phi, q=math.exp(log_q)))
                if isinstance(found, MeanField):
                    return found
    return layers[place]


def _biases(
    line: tuple[LinePoint, ...],
    hops: int | None,
    layers: list[MeanField],
    given: bool,
    window: DataWindow,
) -> tuple[float, float] | Undefined:
    """Biases whose window has this depth."""
    if hops is None:
        return Undefined("give depth: biases are traded for depth along the line")
    if given:
        return Undefined("sigma_b was given; leave it out to get its window")
    if layers[0].activation.scale_free:
        return Undefined(f"{layers[0].activation.name} is critical at sigma_b = 0 alone")
    log_stretch, log_bias = np.log([[p.stretch, p.sigma_b] for p in line]).T
    if np.all(np.diff(log_stretch) > 0) and np.all(np.diff(log_bias) > 0):
        with np.errstate(divide="ignore"):
            ends = np.log([window.low / hops, window.high / hops])
        if ends[0] <= log_stretch[-1] and ends[1] >= log_stretch[0]:
            low, high = np.exp(np.interp(ends, log_stretch, log_bias))
            return float(low), float(high)
    inside = [p for p in line if p.shallowest <= hops <= p.deepest]
    if not inside:
        low, high = min(p.shallowest for p in line), max(p.deepest for p in line)
        return Undefined(
            f"no bias suits {hops} hops: along the line the data allow {low:.3g} to {high:.3g}"
        )
    return min(p.sigma_b for p in inside), max(p.sigma_b for p in inside)


def _verdict(stretch: float, window: DataWindow) -> str:
    if stretch < window.low:
        return "too shallow"
    return "too deep" if stretch > window.high else "inside"


def _widths(
    layer: MeanField, hops: int, deviation: float
) -> tuple[Quantity, int | Undefined, int | Undefined]:
    """mu, and the widths that the mean and the spread ask for."""
    try:
        limit = stochastic_limit(layer)
    except InputError as error:
        none = Undefined(str(error))
        return none, none, none
    mu = -(limit.lam / 2 + (2 - limit.beta) * limit.variance / 12)
    spread = math.ceil(limit.variance * hops / (3 * deviation**2))
    if abs(mu) < 1e-9:
        why = "to first order the mean is not moved at all; see width_spread"
        return 0.0, Undefined(why), spread
    return mu, math.ceil(abs(mu) * hops / deviation), spread

"""Line figures over the layers of a network, drawn as SVG that follows the colours of its page.

Drawn by hand rather than with matplotlib: the marks carry classes instead of colours, so one
figure is right on light and dark paper and in print, its text is real text, and it weighs a few
kilobytes. Every text is escaped here, because layer names come from the user's model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from importlib.resources import files

import numpy as np

from depthscale.report.words import SUPERSCRIPTS, clean

FLOOR_DECADES = 18  # a log axis never spans more below its top: what is smaller lies on the edge


@dataclass(frozen=True)
class Curve:
    """One quantity over layers: ``tone`` "measured", "masks" or "theory" decides how it looks.

    ``low`` and ``high`` draw an error bar at each point; ``dashed`` is the second theory line.
    """

    name: str
    places: np.ndarray
    values: np.ndarray
    tone: str
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Ribbon:
    """A shaded interval over layers, in the colour of ``tone``."""

    places: np.ndarray
    low: np.ndarray
    high: np.ndarray
    tone: str


@dataclass(frozen=True)
class Figure:
    """A figure of one quantity over the layers 0 .. ``count`` - 1; ``rule`` is a labelled level."""

    key: str
    title: str
    description: str
    axis: str
    log: bool
    count: int
    curves: tuple[Curve, ...]
    ribbons: tuple[Ribbon, ...] = ()
    rule: tuple[float, str] | None = None


@dataclass(frozen=True)
class Frame:
    """Maps data to the pixels of one drawing: the plot area and the limits of the vertical axis."""

    left: float
    right: float
    top: float
    bottom: float
    count: int
    low: float
    high: float
    log: bool

    def x(self, place: float) -> float:
        """Return the pixel column of a layer; half a step of air on both sides."""
        span = max(self.count - 1, 1)
        air = min(14.0, 0.5 * (self.right - self.left) / (span + 1))
        return self.left + air + (self.right - self.left - 2 * air) * place / span

    def y(self, value: float) -> float:
        """Return the pixel row of a value, held inside the plot area."""
        if self.log:
            if value <= 0.0:
                return self.bottom
            low, high = math.log10(self.low), math.log10(self.high)
            share = (math.log10(value) - low) / (high - low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.bottom - (self.bottom - self.top) * min(max(share, 0.0), 1.0)

    def below(self, value: float) -> bool:
        """Return whether a value lies under the lower end of a log axis."""
        return self.log and value < self.low


def limits(figure: Figure) -> tuple[float, float]:
    """Return the ends of the vertical axis: everything that is drawn, with a little air."""
    parts = [curve.values for curve in figure.curves]
    parts += [edge for ribbon in figure.ribbons for edge in (ribbon.low, ribbon.high)]
    for curve in figure.curves:
        # The lower end of an error bar would pull a log axis down without bound.
        bars = (None if figure.log else curve.low, curve.high)
        parts += [edge for edge in bars if edge is not None]
    if figure.rule is not None:
        parts.append(np.array([figure.rule[0]]))
    values = np.concatenate([np.asarray(part, dtype=float).ravel() for part in parts])
    values = values[np.isfinite(values)]
    if figure.log:
        values = values[values > 0.0]
        if values.size == 0:
            return 0.1, 1.0
        high = float(values.max())
        low = max(float(values.min()), high * 10.0**-FLOOR_DECADES)
        air = max((high / low) ** 0.06, 1.15)
        # Away from the ends of double precision, where the air itself would over- or underflow.
        low = min(max(low / air, 1e-300), 1e300)
        return low, min(max(high * air, 10 * low), 1e307)
    if values.size == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    low = 0.0 if 0.0 <= low < 0.6 * high else low
    air = 0.08 * (high - low) or 0.1 * abs(high) or 0.5
    return (0.0 if low == 0.0 else low - air), high + air


def has_lost(figure: Figure) -> bool:
    """Return whether a measured value lies under the lower end of the axis, such as a zero."""
    low, _ = limits(figure)
    points = [np.asarray(c.values, dtype=float) for c in figure.curves if c.tone != "theory"]
    return figure.log and any(bool(np.any(values < low)) for values in points)


def ticks(low: float, high: float, log: bool) -> list[tuple[float, str]]:
    """Return the places and texts of four to seven ticks between ``low`` and ``high``.

    >>> [text for _, text in ticks(1e-7, 2.0, log=True)]
    ['10⁻⁶', '10⁻⁴', '10⁻²', '1']
    >>> [text for _, text in ticks(0.0, 1.0, log=False)]
    ['0', '0.2', '0.4', '0.6', '0.8', '1']
    """
    if not log:
        return _even_ticks(low, high)
    decades = math.log10(high) - math.log10(low)
    if decades < 0.7:
        return [(value, text) for value, text in _even_ticks(low, high) if value > 0.0]
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if decades < 2.6:
        leading = (1, 2, 5) if decades < 1.8 else (1, 3)
        places = [k * 10.0**e for e in range(first - 1, last + 1) for k in leading]
        return [(v, f"{v:.6g}") for v in places if low <= v <= high]
    step = max(1, math.ceil((last - first) / 6))
    exponents = [e for e in range(first, last + 1) if e % step == 0]
    if all(abs(e) <= 3 for e in exponents):
        return [(10.0**e, f"{10.0**e:g}") for e in exponents]
    return [(10.0**e, _power(e)) for e in exponents]


def _even_ticks(low: float, high: float) -> list[tuple[float, str]]:
    rough = (high - low) / 5
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(k * base for k in (1, 2, 2.5, 5, 10) if k * base >= rough * 0.999)
    start, stop = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(k * step, f"{k * step:.6g}") for k in range(start, stop + 1)]


def _power(exponent: int) -> str:
    plain = {-1: "0.1", 0: "1", 1: "10"}
    return plain.get(exponent) or "10" + str(exponent).translate(SUPERSCRIPTS)


def layer_ticks(count: int, room: int) -> list[int]:
    """Return the layers that get a tick: round steps, at most about ``room`` of them."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if count / s <= room)
    return list(range(0, count, step))


def draw(figure: Figure, width: int, height: int, *, uid: str, standalone: bool = False) -> str:
    """Return the figure as one ``<svg>`` element of ``width`` x ``height`` units.

    ``uid`` keeps the ids of several drawings on one page apart. A narrow drawing (under 480)
    carries no labels beside its curves. With ``standalone`` the SVG brings its own light and dark
    colours, for a file outside the page.
    """
    labelled = width >= 480
    low, high = limits(figure)
    scale = ticks(low, high, figure.log)
    gutter = 12 + 7.2 * max((len(text) for _, text in scale), default=1)
    names = max((len(curve.name) for curve in figure.curves), default=0)
    right = width - (16 + 9.0 * names if labelled else 8)
    frame = Frame(gutter, right, 30, height - 40, figure.count, low, high, figure.log)
    body = [*_grid(frame, scale, figure, width), f'<g clip-path="url(#{uid}-clip)">']
    body += [_ribbon(frame, ribbon) for ribbon in figure.ribbons]
    body += _rule(frame, figure)
    ordered = sorted(figure.curves, key=lambda curve: curve.tone == "theory")
    for curve in ordered:
        body += _line(frame, curve) if curve.tone == "theory" else _points(frame, curve)
    body += ["</g>", *(_labels(frame, figure) if labelled else [])]
    body.append(
        f'<line class="cursor" x1="0" x2="0" y1="{frame.top}" y2="{frame.bottom}" '
        'visibility="hidden"/>'
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curves" viewBox="0 0 {width} {height}" '
        f'role="img" aria-labelledby="{uid}-title {uid}-desc" data-first="{frame.x(0):.1f}" '
        f'data-last="{frame.x(figure.count - 1):.1f}" data-count="{figure.count}">'
        f'<title id="{uid}-title">{text_of(figure.title)}</title>'
        f'<desc id="{uid}-desc">{text_of(figure.description)}</desc>'
    )
    clip = (
        f'<clipPath id="{uid}-clip"><rect x="{frame.left:.1f}" y="{frame.top - 6}" '
        f'width="{frame.right - frame.left:.1f}" height="{frame.bottom - frame.top + 12:.1f}"/>'
        "</clipPath>"
    )
    style = f"<style>{standalone_style()}</style>" if standalone else ""
    return head + style + clip + "".join(body) + "</svg>"


def text_of(text: object) -> str:
    """Return text that is safe between SVG tags and inside attributes."""
    return escape(clean(text), quote=True)


def _grid(
    frame: Frame, scale: list[tuple[float, str]], figure: Figure, width: int
) -> Iterable[str]:
    for value, text in scale:
        row = frame.y(value)
        yield f'<path class="grid" d="M{frame.left:.1f} {row:.1f}H{frame.right:.1f}"/>'
        yield (
            f'<text class="tick" x="{frame.left - 7:.1f}" y="{row + 4:.1f}" '
            f'text-anchor="end">{text}</text>'
        )
    note = ", log scale" if figure.log else ""
    yield f'<text class="tick" x="2" y="13">{text_of(figure.axis)}{note}</text>'
    yield f'<path class="axis" d="M{frame.left:.1f} {frame.bottom:.1f}H{frame.right:.1f}"/>'
    for place in layer_ticks(frame.count, 13 if width >= 760 else 7):
        column = frame.x(place)
        yield f'<path class="axis" d="M{column:.1f} {frame.bottom:.1f}v4"/>'
        yield (
            f'<text class="tick" x="{column:.1f}" y="{frame.bottom + 18:.1f}" '
            f'text-anchor="middle">{place}</text>'
        )
    middle = (frame.left + frame.right) / 2
    yield (
        f'<text class="tick" x="{middle:.1f}" y="{frame.bottom + 35:.1f}" '
        'text-anchor="middle">layer, input → output</text>'
    )


def _rule(frame: Frame, figure: Figure) -> list[str]:
    if figure.rule is None:
        return []
    value, text = figure.rule
    row = frame.y(value)
    # The words go to the end from which the measured curve stays further away.
    gaps = [abs(frame.y(float(figure.curves[0].values[k])) - row) for k in (0, -1)]
    left = np.nan_to_num(gaps[0]) > np.nan_to_num(gaps[1])
    column, anchor = (frame.left + 4, "start") if left else (frame.right - 4, "end")
    return [
        f'<path class="rule" d="M{frame.left:.1f} {row:.1f}H{frame.right:.1f}"/>',
        f'<text class="tick" x="{column:.1f}" y="{row - 6:.1f}" '
        f'text-anchor="{anchor}">{text_of(text)}</text>',
    ]


def _runs(keep: np.ndarray) -> Iterable[slice]:
    """Yield the unbroken stretches of True: a curve pauses where there is no number."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], keep.astype(int), [0]))))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        yield slice(int(start), int(stop))


def _path(frame: Frame, places: np.ndarray, values: np.ndarray) -> str:
    pairs = zip(places, values, strict=True)
    return "M" + "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in pairs)


def _ribbon(frame: Frame, ribbon: Ribbon) -> str:
    low, high = np.asarray(ribbon.low, dtype=float), np.asarray(ribbon.high, dtype=float)
    paths = []
    for run in _runs(np.isfinite(low) & np.isfinite(high)):
        there = _path(frame, ribbon.places[run], high[run])
        back = _path(frame, ribbon.places[run][::-1], low[run][::-1])
        paths.append(f"{there}L{back[1:]}Z")
    return f'<path class="band {ribbon.tone}" d="{"".join(paths)}"/>'


def _line(frame: Frame, curve: Curve) -> list[str]:
    values = np.asarray(curve.values, dtype=float)
    path = "".join(_path(frame, curve.places[r], values[r]) for r in _runs(np.isfinite(values)))
    dashed = " dashed" if curve.dashed else ""
    return [f'<path class="line{dashed}" d="{path}"/>']


def _points(frame: Frame, curve: Curve) -> list[str]:
    """Draw error bars and points; a value under the axis becomes a mark that points down."""
    values = np.asarray(curve.values, dtype=float)
    shape = "M{x:.1f} {y:.1f}"
    shape += "h.01" if curve.tone == "measured" else "m-3.4 2.6h6.8l-3.4 -6z"
    crowded = " small" if curve.places.size > 90 else ""
    marks, lost = [], []
    for place, value in zip(curve.places, values, strict=True):
        if not np.isfinite(value):
            continue
        spot = {"x": frame.x(place), "y": frame.y(value)}
        if frame.below(value):
            lost.append(f"M{spot['x'] - 3.5:.1f} {frame.bottom - 9:.1f}h7l-3.5 7z")
        else:
            marks.append(shape.format(**spot))
    drawn = []
    if curve.low is not None and curve.high is not None:
        bars = [
            f"M{frame.x(place):.1f} {frame.y(high):.1f}V{frame.y(low):.1f}"
            for place, low, high in zip(curve.places, curve.low, curve.high, strict=True)
            if np.isfinite(low) and np.isfinite(high)
        ]
        drawn.append(f'<path class="bars {curve.tone}" d="{"".join(bars)}"/>')
    drawn.append(f'<path class="points {curve.tone}{crowded}" d="{"".join(marks)}"/>')
    if lost:
        drawn.append(f'<path class="lost {curve.tone}" d="{"".join(lost)}"/>')
    return drawn


def _labels(frame: Frame, figure: Figure) -> list[str]:
    """Write the name of each curve beside its end, pushed apart where they would collide."""
    ends = []
    for curve in figure.curves:
        known = np.flatnonzero(np.isfinite(np.asarray(curve.values, dtype=float)))
        if known.size:
            last = int(known[-1])
            ends.append((frame.y(float(curve.values[last])), curve))
    ends.sort(key=lambda end: (end[0], end[1].tone == "theory"))
    rows = _apart([float(end[0]) for end in ends], 16.0, frame.bottom)
    return [
        f'<text class="name {curve.tone}" x="{frame.right + 9:.1f}" y="{row + 4:.1f}">'
        f"{text_of(curve.name)}</text>"
        for row, (_, curve) in zip(rows, ends, strict=True)
    ]


def _apart(rows: list[float], gap: float, floor: float) -> list[float]:
    """Push sorted rows down until they are ``gap`` apart, then up again from the ``floor``."""
    for k in range(1, len(rows)):
        rows[k] = max(rows[k], rows[k - 1] + gap)
    for k in range(len(rows) - 1, -1, -1):
        rows[k] = min(rows[k], floor if k == len(rows) - 1 else rows[k + 1] - gap)
    return rows


def standalone_style() -> str:
    """Return the colours and marks of a drawing that stands outside the page."""
    marks = files("depthscale.report").joinpath("curves.css").read_text(encoding="utf-8")
    return f"""
.curves{{--ink:#16191d;--muted:#545b65;--grid:#e4e3de;--paper:#fff;--measured:#0072b2;
--masks:#b84f00;background:var(--paper);font-family:system-ui,sans-serif}}
@media(prefers-color-scheme:dark){{.curves{{--ink:#e8eaed;--muted:#a5aeb9;--grid:#2d333c;
--paper:#1a1e25;--measured:#56b4e9;--masks:#e69f00}}}}
{marks}"""

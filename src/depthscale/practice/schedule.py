"""Dropout schedules over depth: a budget of noise, rates for each site, and named profiles."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.files import replacing
from depthscale.practice.schedules.layers import Kind
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_number, as_numbers

FORMAT, VERSION = "depthscale-schedule", 1
BAR = 40  # characters of the largest rate
MOST_BARS = 40
LONGEST_NAME = 32


@dataclass(frozen=True)
class Schedule:
    """Probability dropped at each site, from the input to the output, each in ``[0, 1)``.

    ``sites`` are the names of the sites, in order, where the rates are those of a model; the views
    move the rates and leave the names in place.

    Raises
    ------
    InputError
        No rates, one outside ``[0, 1)``, or names that aren't one different text for each rate.

    Examples
    --------
    >>> print(Schedule([0.2, 0.1]))
    1  0.2  ########################################
    2  0.1  ####################
    >>> Schedule([0.2, 0.1]).mirrored().rates
    (0.1, 0.2)
    """

    rates: tuple[float, ...]
    sites: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        rates = as_numbers("rates", self.rates)
        if rates.ndim != 1 or not rates.size:
            raise InputError(f"rates have shape {rates.shape}; expected one for each site")
        wrong = np.flatnonzero(~((rates >= 0) & (rates < 1)))
        if wrong.size:
            site = int(wrong[0])
            raise InputError(
                f"the rate of site {site + 1} is {rates[site]:g}; expected a probability in [0, 1)"
            )
        object.__setattr__(self, "rates", tuple(rates.tolist()))
        if self.sites is not None:
            object.__setattr__(self, "sites", _names(self.sites, len(self.rates)))

    def __len__(self) -> int:
        return len(self.rates)

    @property
    def mean(self) -> float:
        """Mean rate."""
        return math.fsum(self.rates) / len(self.rates)

    def mirrored(self) -> Schedule:
        """The same rates from the output to the input."""
        return replace(self, rates=self.rates[::-1])

    def permuted(self, seed: int) -> Schedule:
        """The same rates in an order drawn from ``seed``."""
        order = np.random.default_rng(seed).permutation(len(self.rates))
        return replace(self, rates=tuple(np.array(self.rates)[order].tolist()))

    def scaled(self, factor: float) -> Schedule:
        """Every rate times ``factor``; ``InputError`` where one leaves ``[0, 1)``."""
        rates = tuple(as_number("factor", factor) * rate for rate in self.rates)
        return replace(self, rates=rates)

    def to_json(self) -> str:
        """One JSON object with the rates in full precision, which ``from_json`` reads back."""
        data: dict[str, Any] = {"format": FORMAT, "version": VERSION, "rates": list(self.rates)}
        return json.dumps(data if self.sites is None else data | {"sites": list(self.sites)})

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """Read what ``to_json`` wrote; ``InputError`` for anything else."""
        try:
            data: Any = json.loads(text)
        except ValueError as error:
            raise InputError(f"a schedule must be JSON: {error}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(
                f'this JSON is no schedule; expected an object with "format": {FORMAT!r}'
            )
        if data.get("version") != VERSION:
            raise InputError(f"version is {data.get('version')!r}; this program reads {VERSION}")
        rates = data.get("rates")
        if not isinstance(rates, list) or not all(
            isinstance(rate, int | float) and not isinstance(rate, bool) for rate in rates
        ):
            raise InputError(f"rates are {rates!r}; expected a list of numbers")
        return cls(tuple(rates), data.get("sites"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``to_json`` to a file, which is replaced at once or not at all."""
        with replacing(Path(path)) as beside:
            beside.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Schedule:
        """Read what ``save`` wrote; ``InputError`` for a file that is missing, cut or another."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(
                f"{str(path)!r} cannot be read: {error.strerror or error}; give the path of a "
                "schedule that was saved"
            ) from error
        except ValueError as error:  # InputError is one, and text that is not UTF-8
            raise InputError(
                f"{path} holds no schedule, or one that was cut: {error}; give a file that "
                "Schedule.save or AppliedSchedule.save wrote"
            ) from error

    def __str__(self) -> str:
        most, names = max(self.rates), self._labels()
        count = min(len(self.rates), MOST_BARS)
        lines = []
        for site in np.linspace(0, len(self.rates) - 1, count).round().astype(int).tolist():
            rate = self.rates[site]
            bar = "#" * round(BAR * rate / most) if most else ""
            lines.append(f"{names[site]}  {rate:<{4 if most else 1}.3g} {bar}".rstrip())
        if count < len(self.rates):
            lines.append(f"{count} of {len(self.rates)} sites")
        return "\n".join(lines)

    def _labels(self) -> list[str]:
        """What stands before each bar, all of one length: names to the left, numbers right."""
        if self.sites is None:
            digits = len(str(len(self.rates)))
            return [f"{site + 1:>{digits}}" for site in range(len(self.rates))]
        names = [_shortened(name) for name in self.sites]
        width = max(map(len, names))
        return [f"{name:<{width}}" for name in names]


def _names(sites: Any, count: int) -> tuple[str, ...]:
    """The names of ``count`` sites; ``InputError`` unless each is a text of its own."""
    if not isinstance(sites, Sequence) or isinstance(sites, str):
        raise InputError(f"sites are {sites!r}; expected the names of {count} sites")
    wrong = [name for name in sites if not isinstance(name, str)]
    if wrong:
        raise InputError(f"a site is named {wrong[0]!r}; expected a text")
    if len(sites) != count:
        raise InputError(f"{len(sites)} sites for {count} rates; expected one name for each rate")
    if len(set(sites)) < count:
        twice = next(name for name in sites if sites.count(name) > 1)
        raise InputError(f"site {twice!r} is named more than once; give each site once")
    return tuple(sites)


def _shortened(name: str) -> str:
    """A name on one line and not too wide; the end of a path tells more than its beginning."""
    plain = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)
    return plain if len(plain) <= LONGEST_NAME else "..." + plain[3 - LONGEST_NAME :]


@dataclass(frozen=True)
class Budget:
    r"""What the rates of a schedule have in common: ``floor <= x_l <= cap`` and their mean.

    Parameters
    ----------
    mean, total:
        ``sum w_l x_l/sum w_l``, or ``sum w_l x_l``; one of them.
    cap, floor:
        Bounds of every site, ``0 <= floor <= cap < 1``.
    of:
        What is counted, ``"drop"`` for the rates ``p_l`` or ``"field"`` for the dropout fields
        ``h_l = p_l (1 - sigma_b^2/q_l)``, which differ where there are biases.
    weights:
        Positive, one for each site (units that a rate acts on, say); default all 1.

    Raises
    ------
    InputError
        A budget that no schedule meets, with the nearest one that does.

    Examples
    --------
    >>> Budget(mean=0.1, cap=0.2).project([0.5, 0.3, 0.0, 0.0]).round(3)
    array([0.2, 0.2, 0. , 0. ])
    """

    mean: float | None = None
    total: float | None = None
    cap: float = 0.5
    floor: float = 0.0
    of: Kind = "drop"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) == (self.total is None):
            raise InputError("a budget has a mean or a total; give one of them")
        for name in ("mean", "total", "cap", "floor"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_number(name, getattr(self, name)))
        if not 0 <= self.floor <= self.cap < 1:
            raise InputError(
                f"floor is {self.floor:g}, cap {self.cap:g}; expected 0 <= floor <= cap < 1"
            )
        if self.of not in ("drop", "field"):
            raise InputError(f"of is {self.of!r}; expected 'drop' or 'field'")
        if self.weights is not None:
            w = as_numbers("weights", self.weights)
            if w.ndim != 1 or not w.size or not np.all((w > 0) & np.isfinite(w)):
                raise InputError("weights have one positive number for each site")
            object.__setattr__(self, "weights", tuple(w.tolist()))
            self.mean_at(len(w))
        elif self.mean is not None:
            self.mean_at(1)

    def weights_at(self, depth: int) -> Array:
        """Weights of ``depth`` sites; ``InputError`` where that is no whole number from 1."""
        if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1:
            raise InputError(f"depth is {depth!r}; expected a whole number of sites from 1")
        if self.weights is None:
            return np.ones(depth)
        if len(self.weights) != depth:
            raise InputError(f"the budget weighs {len(self.weights)} sites, not {depth}")
        return np.array(self.weights)

    def mean_at(self, depth: int) -> float:
        """Weighted mean over ``depth`` sites; ``InputError`` where no schedule has it."""
        size = float(self.weights_at(depth).sum())
        mean = self.mean if self.mean is not None else float(self.total or 0.0) / size
        slack = 1e-12 * max(self.cap, 1e-12)
        if not self.floor - slack <= mean <= self.cap + slack:
            nearest = self.cap if mean > self.cap else self.floor
            raise InputError(
                f"no schedule has the mean {mean:g} between floor {self.floor:g} and cap"
                f" {self.cap:g}; the nearest is the mean {nearest:g} (total"
                f" {nearest * size:g}), the same at every site"
            )
        return min(max(mean, self.floor), self.cap)

    def violation(self, x: ArrayLike) -> float:
        """How far the mean of a schedule, or one of its sites, is off this budget."""
        x = np.asarray(x, dtype=float)
        w = self.weights_at(x.size)
        off = abs(math.fsum(w * x) / math.fsum(w) - self.mean_at(x.size))
        return max(off, float(np.max(x - self.cap)), float(np.max(self.floor - x)), 0.0)

    def project(self, x: ArrayLike) -> Array:
        """The nearest schedule that meets the budget, of one schedule (L,) or of many (N, L).

        ``clip(x - w tau, floor, cap)`` with the ``tau`` of the right mean, by bisection.
        """
        x = np.asarray(x, dtype=float)
        w, depth = self.weights_at(x.shape[-1]), x.shape[-1]
        target = self.mean_at(depth) * float(w.sum())
        low = ((x - self.cap) / w).min(axis=-1, keepdims=True)
        high = ((x - self.floor) / w).max(axis=-1, keepdims=True)
        for _ in range(70):
            middle = (low + high) / 2
            over = np.clip(x - w * middle, self.floor, self.cap) @ w > target
            low = np.where(over[..., None], middle, low)
            high = np.where(over[..., None], high, middle)
        shift = np.where(abs(high) < 1e-14 * self.cap, 0.0, high)  # a site that is off stays off
        y = np.clip(x - w * shift, self.floor, self.cap)
        free = (y > self.floor) & (y < self.cap)
        off = (target - y @ w)[..., None]
        share = w / np.maximum((free * w * w).sum(axis=-1, keepdims=True), 1e-300)
        return np.asarray(np.clip(np.where(free, y + off * share, y), self.floor, self.cap))

    def maximise(self, coefficients: ArrayLike) -> Array:
        """The schedule within the budget with the largest ``coefficients @ x``, (..., L) each.

        A linear program over a box and one sum: the sites are filled up to the cap in the order of
        ``coefficients/weights``, the first of equal ones first, and one site gets the rest.
        """
        c = np.asarray(coefficients, dtype=float)
        w, depth = self.weights_at(c.shape[-1]), c.shape[-1]
        order = np.argsort(-c / w, axis=-1, kind="stable")
        room = (self.cap - self.floor) * w[order]
        spent = np.cumsum(room, axis=-1) - room
        left = (self.mean_at(depth) - self.floor) * float(w.sum())
        x = np.empty(c.shape)
        share = np.clip((left - spent) / w[order], 0.0, self.cap - self.floor)
        near = 1e-12 * self.cap  # rounding, which is no site between the bounds
        share = np.where(share < near, 0.0, share)
        full = share > self.cap - self.floor - near
        np.put_along_axis(x, order, np.where(full, self.cap, self.floor + share), axis=-1)
        return x


PROFILES = (
    "uniform", "step", "step-late", "big-step", "big-step-late", "linear", "linear-late",
    "cosine", "cosine-late", "random", "timm",
)  # fmt: skip
"""Names that ``profile`` knows; "late" ones are mirrored."""


def profile(
    name: str, depth: int, mean: float, cap: float | None = None, seed: int = 0
) -> Schedule:
    r"""A named schedule of ``depth`` sites with the given mean rate.

    ``step``: twice the mean on the first half; ``big-step``: three times on the first third;
    ``linear``: from twice the mean to 0; ``cosine``: ``mean (1 + cos(pi l/(L - 1)))``; ``-late``:
    mirrored; ``random``: a permutation of ``step``; ``timm``: ``linspace(0, rate, L)``, the rule of
    timm's stochastic depth, with the rate ``2 mean``. What does not divide is made up by a partial
    site, and what exceeds ``cap`` (default: just below 1) goes to the other sites.

    Raises
    ------
    InputError
        Another name, no sites, or a mean above the cap.

    Examples
    --------
    >>> profile("big-step", 6, mean=0.125).rates
    (0.375, 0.375, 0.0, 0.0, 0.0, 0.0)
    """
    if name not in PROFILES:
        raise InputError(f"profile is {name!r}; expected {', '.join(PROFILES)}")
    budget = Budget(mean=mean, cap=1 - 1e-9 if cap is None else cap)
    mean = budget.mean_at(depth)
    base, ramp = name.removesuffix("-late"), np.linspace(0.0, 1.0, depth)
    if base in ("step", "big-step", "random"):
        x = filled(
            depth, budget.mean_at(depth), min((3 if base == "big-step" else 2) * mean, budget.cap)
        )
    else:
        shapes: dict[str, Any] = {
            "uniform": np.ones(depth), "linear": 2 * (1 - ramp),
            "cosine": 1 + np.cos(np.pi * ramp), "timm": 2 * ramp,
        }  # fmt: skip
        x = budget.project(mean * shapes[base])
    schedule = Schedule(tuple(x[::-1] if name.endswith("-late") else x))
    return schedule.permuted(seed) if name == "random" else schedule


def filled(depth: int, mean: float, level: float, order: ArrayLike | None = None) -> Array:
    """``level`` site by site in the given order (front to back) until the mean is spent."""
    x = np.zeros(depth)
    if level > 0:
        spent = depth * mean / level
        whole = min(int(spent + 1e-9), depth)
        places = np.arange(depth) if order is None else np.asarray(order)
        x[places[:whole]] = level
        if whole < depth and spent - whole > 1e-9:
            x[places[whole]] = (spent - whole) * level
    return x

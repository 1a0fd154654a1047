"""Dropout schedules over training time, on top of those over depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from types import TracebackType
from typing import Any

from torch import nn

from depthscale.answers import InputError, some
from depthscale.practice.dropping.apply import AppliedSchedule, applied_quietly, warn_in_eval
from depthscale.practice.dropping.sites import DropoutSite
from depthscale.theory.records import as_number

TIMES = ("constant", "early", "late", "linear", "linear-late")
"""Names of profiles over time that ``time_profile`` knows."""

Profile = Callable[[float], float]


def time_profile(time: str | Profile = "constant", cutoff: float | None = None) -> Profile:
    """The factor of all rates as a function of progress, the share of the steps that are done.

    With c = ``cutoff``: ``constant``: 1; ``early``: 1 up to c, then 0; ``late``: 0 up to c, then 1;
    ``linear``: from 1 down to 0 at c, then 0; ``linear-late``: from 0 up to 1 at c, then 1. c is in
    (0, 1], by default 1/2 for ``early`` and ``late`` and 1 for the linear ones. A function of one's
    own maps [0, 1] to [0, 1].

    Raises
    ------
    InputError
        Another name, a cutoff out of range, or one for ``constant`` or a function.

    Examples
    --------
    >>> [time_profile("early", cutoff=0.25)(step / 4) for step in range(4)]
    [1.0, 0.0, 0.0, 0.0]
    """
    if cutoff is not None and (callable(time) or time == "constant"):
        raise InputError("cutoff is for the profiles early, late, linear and linear-late")
    if callable(time):
        return time
    if time not in TIMES:
        raise InputError(f"time is {time!r}; expected {', '.join(TIMES)}, or a function")
    end = as_number("cutoff", cutoff if cutoff is not None else 1.0 if "linear" in time else 0.5)
    if not 0 < end <= 1:
        raise InputError(f"cutoff is {end:g}; expected a share of the training in (0, 1]")
    profiles: dict[str, Profile] = {
        "constant": lambda progress: 1.0,
        "early": lambda progress: float(progress < end),
        "late": lambda progress: float(progress >= end),
        "linear": lambda progress: max(0.0, 1 - progress / end),
        "linear-late": lambda progress: min(1.0, progress / end),
    }
    return profiles[time]


class DropoutScheduler:
    """Changes the dropout rates of a model as training goes on, like torch's learning rates.

    ``schedule`` holds the rates over depth, as ``apply_schedule`` takes them: the scheduler puts
    them on ``model`` (InputError as there) and owns them; for an ``AppliedSchedule`` in place of a
    model it may be None, for the rates that are in force. In step k = 0, 1, ... of
    ``total_steps``, each is multiplied by the factor of ``time_profile(time, cutoff)`` at
    k/total_steps. Call ``step()`` after each optimiser step. Later steps keep the last factor.

    ``levels`` rounds the factor to that many values from 0 to 1. A compiled model compiles once for
    each set of rates that it meets, and torch gives up after eight of them by default: choose
    ``levels`` up to 8, or a profile that switches. ``keep_mean`` divides the factor by its mean
    over all steps, so that each site's mean rate over the training is that of the schedule;
    InputError where a rate would reach 1 by that.

    ``remove()``, or the end of a ``with`` block, gives the model its own rates back, and an
    ``AppliedSchedule`` those it came with. ``warn=False`` leaves out the warning of
    ``apply_schedule`` about models in eval mode.

        scheduler = DropoutScheduler(model, [0.0, 0.1, 0.2], total_steps=1000, time="early")
        for batch in batches:
            train_on(batch)
            scheduler.step()
    """

    def __init__(
        self,
        model: nn.Module | AppliedSchedule,
        schedule: Any,
        total_steps: int,
        time: str | Profile = "constant",
        *,
        cutoff: float | None = None,
        keep_mean: bool = False,
        levels: int | None = None,
        sites: Iterable[DropoutSite | str] | None = None,
        warn: bool = True,
    ) -> None:
        self.total_steps = _count("total_steps", total_steps, 1)
        self.levels = None if levels is None else _count("levels", levels, 2)
        self.time = time
        self.cutoff = cutoff
        self.keep_mean = keep_mean
        self.step_count = 0
        self._profile = time_profile(time, cutoff)
        self._scale = 1.0
        factors = [self._factor(step) for step in range(self.total_steps + 1)]
        if keep_mean:
            mean = math.fsum(factors[:-1]) / self.total_steps
            if not mean:
                raise InputError("the profile is 0 at every step, which has no mean to keep")
            self._scale = 1 / mean
        self._owned = not isinstance(model, AppliedSchedule)
        self._removed = False
        self._applied = _applied(model, schedule, sites)
        self._before = self._applied.rates
        try:
            if not self._owned and schedule is not None:
                self._applied.set(schedule)
            self.base = self._applied.rates
            for factor in (max(factors), min(factors)):
                self._applied.set(self._rates(factor * self._scale))
            self._update()
        except BaseException:
            self.remove()
            raise
        if not isinstance(model, AppliedSchedule) and warn:
            warn_in_eval(model, self.sites, stacklevel=3)

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates in force, site by site."""
        return self._applied.rates

    @property
    def sites(self) -> tuple[DropoutSite, ...]:
        """Their sites."""
        return self._applied.sites

    @property
    def progress(self) -> float:
        """Share of the steps that are done, at most 1."""
        return min(1.0, self.step_count / self.total_steps)

    @property
    def factor(self) -> float:
        """What the rates of the schedule are multiplied by now."""
        return self._factor(self.step_count) * self._scale

    def step(self) -> None:
        """Go on by one step."""
        self.go_to(self.step_count + 1)

    def go_to(self, step: int) -> None:
        """Go to the moment when so many steps are done, for a loop that counts by itself."""
        count = _count("step", step, 0)
        self._check_not_removed()
        self.step_count = count
        self._update()

    def state_dict(self) -> dict[str, Any]:
        """Steps done, rates over depth, names of sites and settings, all as plain values."""
        return {
            "step": self.step_count,
            "rates": list(self.base),
            "sites": [site.name for site in self.sites],
            **self._settings(),
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Go on where a ``state_dict`` was taken, with its rates over depth.

        Raises InputError for what is no such state, other sites, and settings that differ from
        those of this scheduler; the latter not where ``strict`` is False, which keeps its own.
        """
        self._check_not_removed()
        state = checked_state(state)
        for key in ("step", "rates", "sites"):
            if key not in state:
                raise InputError(f"this is no state of a DropoutScheduler: it has no {key!r}")
            if key != "step" and not isinstance(state[key], list | tuple):
                raise InputError(f"{key} of the state is {state[key]!r}; expected a list")
        names = [site.name for site in self.sites]
        if list(state["sites"]) != names:
            raise InputError(
                f"the state is that of the sites {some(map(repr, state['sites']))}, this scheduler"
                f" has {some(map(repr, names))}; build it with the same model and sites"
            )
        other = {key: own for key, own in self._settings().items() if state.get(key) != own}
        if other and strict:
            raise InputError(
                "the state was saved with other settings: "
                + ", ".join(f"{key} {state.get(key)!r}, now {own!r}" for key, own in other.items())
                + "; build the scheduler with those, or load with strict=False to keep the new ones"
            )
        step = _count("step", state["step"], 0)
        before, self.base = self.base, self._checked_base(state["rates"])
        try:
            self._applied.set(self._rates(self._factor(step) * self._scale))
        except InputError:
            self.base = before
            raise
        self.step_count = step

    def remove(self) -> None:
        """Take the rates off again; may be called twice."""
        if self._owned:
            self._applied.remove()
        elif not (self._removed or self._applied.removed):
            self._applied.set(self._before)
        self._removed = True

    def __enter__(self) -> DropoutScheduler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def _settings(self) -> dict[str, Any]:
        return {
            "total_steps": self.total_steps,
            "time": self.time if isinstance(self.time, str) else "function",
            "cutoff": self.cutoff,
            "keep_mean": self.keep_mean,
            "levels": self.levels,
        }

    def _checked_base(self, rates: Any) -> tuple[float, ...]:
        return tuple(as_number("rate", rate) for rate in rates)

    def _factor(self, step: int) -> float:
        progress = min(1.0, step / self.total_steps)
        factor = as_number("the factor of the profile", self._profile(progress))
        if not 0 <= factor <= 1:
            raise InputError(
                f"the profile over time is {factor:g} at progress {progress:g}; expected [0, 1]"
            )
        if self.levels is None:
            return factor
        return round(factor * (self.levels - 1)) / (self.levels - 1)

    def _rates(self, factor: float) -> tuple[float, ...]:
        rates = tuple(rate * factor for rate in self.base)
        if max(rates, default=0.0) >= 1:
            raise InputError(
                f"to keep the mean over time, the rate {max(self.base):g} would become "
                f"{max(rates):g}, which is no probability below 1; lower it to less than "
                f"{1 / factor:.3g}, or give keep_mean=False"
            )
        return rates

    def _update(self) -> None:
        rates = self._rates(self.factor)
        if rates != self._applied.rates:
            self._applied.set(rates)

    def _check_not_removed(self) -> None:
        if self._removed or self._applied.removed:
            raise InputError("the rates of this scheduler were removed; make a new scheduler")


def _applied(
    model: nn.Module | AppliedSchedule,
    schedule: Any,
    sites: Iterable[DropoutSite | str] | None,
) -> AppliedSchedule:
    if not isinstance(model, AppliedSchedule):
        return applied_quietly(model, schedule, sites)
    if sites is not None:
        raise InputError("the sites are those of the AppliedSchedule; leave them out")
    return model


def checked_state(state: Any) -> dict[str, Any]:
    """A state as a dictionary of its own; InputError for what is no mapping."""
    if not isinstance(state, Mapping):
        raise InputError(
            f"this is no state of a DropoutScheduler: {state!r}; expected the dictionary that "
            "state_dict() returned"
        )
    return dict(state)


def _count(name: str, value: Any, least: int) -> int:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least:
        raise InputError(f"{name} is {value!r}; expected a whole number from {least}")
    return int(value)

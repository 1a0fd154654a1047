"""Put a rate of its own on each place at which a model drops, and take them off again."""

from __future__ import annotations

import difflib
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from torch import nn

from depthscale.answers import InputError
from depthscale.practice.dropping.adapters import clean_modules
from depthscale.practice.dropping.sites import DropoutSite, key_of, known_sites

_SCHEDULED: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class AppliedSchedule:
    """Rates in force on a model, until ``remove()`` or the end of a ``with`` block.

    ``sites`` and ``rates`` belong together, in order. ``remove()`` may be called again.
    """

    def __init__(
        self, model: nn.Module, sites: tuple[DropoutSite, ...], rates: tuple[float, ...]
    ) -> None:
        self.sites = sites
        self.rates = rates
        modules = clean_modules(key_of(model))
        self._held = [key_of(model), *(modules[site.module] for site in sites)]
        self._undo: list[Callable[[], None]] = []
        calls: dict[str, dict[tuple[str, int], float]] = {}
        _SCHEDULED.update(self._held)
        try:
            for site, rate in zip(sites, rates, strict=True):
                if site.how == "attribute":
                    assert site.attribute is not None  # what "attribute" means
                    self._set(modules[site.module], site.attribute, rate)
                elif site.how == "interception":
                    assert site.operation is not None  # what "interception" means
                    calls.setdefault(site.module, {})[site.operation, site.ordinal] = rate
            if calls:
                from depthscale.practice.dropping.interception import hook
            for path, own in calls.items():
                self._undo += hook(modules[path], own)
        except BaseException:
            self.remove()
            raise

    def _set(self, module: nn.Module, attribute: str, rate: float) -> None:
        before = getattr(module, attribute)
        setattr(module, attribute, rate)
        self._undo.append(lambda: setattr(module, attribute, before))

    def remove(self) -> None:
        """Give every site the rate it had before."""
        while self._undo:
            self._undo.pop()()
        for module in self._held:
            _SCHEDULED.discard(module)
        self._held = []

    def __enter__(self) -> AppliedSchedule:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


def apply_schedule(
    model: nn.Module, rates: Any, sites: Iterable[DropoutSite | str] | None = None
) -> AppliedSchedule:
    """Put one drop rate on each site of a model, for good or for the length of a ``with`` block.

    ``rates`` is a sequence of n numbers in [0, 1), or an object with such an attribute ``rates``;
    ``sites`` are n sites of ``dropout_sites``, or their names; by default all of those that
    ``dropout_sites`` found last for this model, in their order. A site that cannot be set accepts
    the rate that it has.

    The rates take effect where the model drops: in train mode. The model may be in either mode
    now. Rates are set as attributes of the modules that hold them; a functional dropout is
    intercepted by forward hooks on its own module, which change no other module and nothing in
    ``state_dict``. Compiled models compile once more for each rate; a module that is intercepted
    runs in plain Python there, and cannot be compiled with ``fullgraph=True``.

    A forward pass that drops more often than the one that found the sites keeps the model's own
    rates in the calls beyond. With activation checkpointing, run the backward pass before the rates
    are removed: it drops again. A deep or pickled copy keeps the rates, for good.

    Raises InputError for rates that are no numbers or out of range, more or fewer rates than sites,
    unknown or repeated sites, a site that cannot be set, sites never looked for, and a model (or
    one of its modules) that is already scheduled.

        dropout_sites(model, x)
        with apply_schedule(model, [0.0, 0.1, 0.2]):
            train(model)
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a torch.nn.Module to schedule, got {type(model).__name__}")
    chosen = _chosen(model, sites)
    values = _checked(rates, chosen)
    modules = clean_modules(key_of(model))
    _check_sites(model, modules, chosen, values)
    busy = key_of(model) in _SCHEDULED
    if busy or any(modules[site.module] in _SCHEDULED for site in chosen):
        raise InputError(
            f"{type(model).__name__} {'is' if busy else 'shares modules that are'} already "
            "scheduled; call remove() on what apply_schedule returned before"
        )
    return AppliedSchedule(model, chosen, values)


def _chosen(model: nn.Module, sites: Iterable[DropoutSite | str] | None) -> tuple[DropoutSite, ...]:
    known = known_sites(model)
    wanted: Sequence[DropoutSite | str] | None
    wanted = (
        [sites] if isinstance(sites, DropoutSite | str) else None if sites is None else [*sites]
    )
    if known is None and (wanted is None or any(isinstance(site, str) for site in wanted)):
        raise InputError(
            f"the sites of this {type(model).__name__} are not known; call dropout_sites(model, "
            "*example_inputs) first, or give the sites that it returned"
        )
    if wanted is None:
        return known or ()
    by_name = {site.name: site for site in known or ()}
    chosen = [_named(by_name, site) if isinstance(site, str) else site for site in wanted]
    for name, times in Counter(site.name for site in chosen).items():
        if times > 1:
            raise InputError(f"site {name!r} is given {times} times; give each site once")
    return tuple(chosen)


def _named(by_name: dict[str, DropoutSite], name: str) -> DropoutSite:
    if name in by_name:
        return by_name[name]
    close = difflib.get_close_matches(name, by_name, n=3) or list(by_name)[:3]
    raise InputError(
        f"unknown site {name!r}; expected one of the {len(by_name)} names of dropout_sites"
        + (f", such as {', '.join(map(repr, close))}" if close else "")
    )


def _checked(rates: Any, sites: tuple[DropoutSite, ...]) -> tuple[float, ...]:
    given = getattr(rates, "rates", rates)
    try:
        values = tuple(float(rate) for rate in given)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"rates must be a sequence of numbers, one for each of {len(sites)} sites, got "
            f"{given!r}"
        ) from error
    for place, rate in enumerate(values):
        if not (math.isfinite(rate) and 0.0 <= rate < 1.0):
            raise InputError(
                f"rate {rate:g} at position {place} is not a probability in [0, 1); give the share "
                "dropped, 0 for none"
            )
    if len(values) != len(sites):
        raise InputError(
            f"{len(values)} rates for {len(sites)} sites; give one rate for each of "
            f"{', '.join(site.name for site in sites[:3])}{', ...' if len(sites) > 3 else ''}, or "
            "choose the sites"
        )
    return values


def _check_sites(
    model: nn.Module,
    modules: dict[str, nn.Module],
    sites: tuple[DropoutSite, ...],
    rates: tuple[float, ...],
) -> None:
    for site, rate in zip(sites, rates, strict=True):
        held = modules.get(site.module)
        if held is None or (site.attribute and not hasattr(held, site.attribute)):
            raise InputError(
                f"site {site.name!r} is not one of this {type(model).__name__}; give sites that "
                "dropout_sites found for it"
            )
        if site.how == "none" and rate != site.rate:
            raise InputError(
                f"site {site.name!r} cannot be set to {rate:g}: {site.reason}; or leave it out of "
                "the sites"
            )

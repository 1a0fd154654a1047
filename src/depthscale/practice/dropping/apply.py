"""Put a rate of its own on each place at which a model drops, and take them off again."""

from __future__ import annotations

import difflib
import math
import os
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from depthscale.answers import InputError, some
from depthscale.practice.dropping.adapters import clean_modules
from depthscale.practice.dropping.inserted import PREFIX
from depthscale.practice.dropping.names import other_names, site_named
from depthscale.practice.dropping.sites import DropoutSite, key_of, known_sites
from depthscale.practice.reversible import Reversible
from depthscale.practice.schedule import Schedule

_SCHEDULED: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class AppliedSchedule(Reversible):
    """Rates in force on a model, until ``remove()`` or the end of a ``with`` block.

    ``sites`` and ``rates`` belong together, in order; ``set`` changes the rates. ``remove()`` may
    be called again.
    """

    def __init__(
        self, model: nn.Module, sites: tuple[DropoutSite, ...], rates: tuple[float, ...]
    ) -> None:
        self.sites = sites
        self.rates = rates
        self.removed = False
        modules = clean_modules(key_of(model))
        self._held = [key_of(model), *(modules[site.module] for site in sites)]
        self._undo: list[Callable[[], None]] = []
        self._put: list[Callable[[float], None]] = []
        calls: dict[str, dict[tuple[str, int], float]] = {}
        _SCHEDULED.update(self._held)
        try:
            for site in sites:
                self._put.append(self._way(modules[site.module], site, calls))
            self._put_all(rates)
            if calls:
                from depthscale.practice.dropping.interception import hook
            for path, own in calls.items():
                self._undo += hook(modules[path], own)
        except BaseException:
            self.remove()
            raise

    def _way(
        self, module: nn.Module, site: DropoutSite, calls: dict[str, dict[tuple[str, int], float]]
    ) -> Callable[[float], None]:
        """How the rate of a site is changed from now on."""
        if site.how == "attribute":
            assert site.attribute is not None  # what "attribute" means
            name, before = site.attribute, getattr(module, site.attribute)
            self._undo.append(lambda: setattr(module, name, before))
            return lambda rate: setattr(module, name, rate)
        if site.how == "interception":
            assert site.operation is not None  # what "interception" means
            own, key = calls.setdefault(site.module, {}), (site.operation, site.ordinal)
            return lambda rate: own.__setitem__(key, rate)
        return lambda rate: None

    def _put_all(self, rates: tuple[float, ...]) -> None:
        for put, rate in zip(self._put, rates, strict=True):
            put(rate)

    def set(self, rates: Any) -> None:
        """Other rates on the same sites, from the next forward pass on.

        Takes what ``apply_schedule`` takes and raises the same errors, then leaving all rates as
        they are. It only writes numbers; a compiled model compiles once for each rate it meets.
        """
        if self.removed:
            raise InputError("this schedule was removed; call apply_schedule again")
        values = _checked(_read(rates), self.sites)
        for site, rate in zip(self.sites, values, strict=True):
            _check_rate(site, rate)
        self._put_all(values)
        self.rates = values

    @property
    def schedule(self) -> Schedule:
        """The rates in force, with the names of their sites; InputError where there are none."""
        if not self.sites:
            raise InputError(
                "no site is scheduled, so there is no schedule; the model drops nowhere"
            )
        return Schedule(self.rates, tuple(site.name for site in self.sites))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the names of the sites and the rates in force now as JSON, whole or not at all.

        ``apply_schedule(model, path)`` puts them on a model of the same build. Under a
        ``DropoutScheduler``, whose factor is in these rates, save its ``state_dict`` to resume.
        """
        self.schedule.save(path)

    def remove(self) -> None:
        """Give every site the rate it had before."""
        self.removed = True
        while self._undo:
            self._undo.pop()()
        for module in self._held:
            _SCHEDULED.discard(module)
        self._held = []


def apply_schedule(
    model: nn.Module, rates: Any, sites: Iterable[DropoutSite | str] | None = None
) -> AppliedSchedule:
    """Put one drop rate on each site of a model, for good or for the length of a ``with`` block.

    ``rates`` is a sequence of n numbers in [0, 1), an object with such an attribute ``rates``, a
    dictionary of rates by the names of sites, or the path of a file that ``AppliedSchedule.save``
    or ``Schedule.save`` wrote; ``sites`` are n sites of ``dropout_sites``, or their names; by
    default all of those that ``dropout_sites`` found last for this model, in their order. A site
    that cannot be set accepts the rate that it has.

    The names of a ``Schedule`` that has them (every saved one does that was applied) decide: each
    rate goes to the site of its name, whatever the order, and ``sites`` then choose some of them.
    A freshly built model takes such a schedule without ``dropout_sites``: sites are then told from
    their names, and every dropout module must be among them.

    The rates take effect where the model drops: in train mode. A model in eval mode takes them
    with a ``UserWarning``. Rates are set as attributes of the modules that hold them; a functional
    dropout is intercepted by forward hooks on its own module, which change no other module and
    nothing in ``state_dict``. Compiled models compile once more for each rate; a module that is
    intercepted runs in plain Python there, and cannot be compiled with ``fullgraph=True``; so that
    they notice, ``torch._dynamo.config.skip_nnmodule_hook_guards`` is then set to False for good.

    A forward pass that drops more often than the one that found the sites keeps the model's own
    rates in the calls beyond. With activation checkpointing, run the backward pass before the rates
    are removed: it drops again. A deep or pickled copy keeps the rates, for good.

    Raises InputError for rates that are no numbers or out of range, more or fewer rates than sites,
    unknown or repeated sites, named ones that are not those of the model, a site that cannot be
    set, sites never looked for, a file that holds no schedule, and a model (or one of its modules)
    that is already scheduled.

        dropout_sites(model, x)
        with apply_schedule(model, [0.0, 0.1, 0.2]) as applied:
            train(model)
            applied.save("checkpoint.dropout.json")
        apply_schedule(build(), "checkpoint.dropout.json")
    """
    applied = applied_quietly(model, rates, sites)
    warn_in_eval(model, applied.sites, stacklevel=3)
    return applied


def warn_in_eval(model: nn.Module, sites: Iterable[DropoutSite], stacklevel: int) -> None:
    """Warn when none of the sites is in train mode, where alone its rate acts."""
    modules = clean_modules(key_of(model))
    held = [modules[site.module] for site in sites]
    if held and not any(module.training for module in held):
        warnings.warn(
            f"{type(model).__name__} is in eval mode, in which it drops nothing; the rates act "
            "only after model.train()",
            UserWarning,
            stacklevel=stacklevel,
        )


def applied_quietly(
    model: nn.Module, rates: Any, sites: Iterable[DropoutSite | str] | None = None
) -> AppliedSchedule:
    """``apply_schedule`` for a caller that puts the model into train mode itself."""
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a torch.nn.Module to schedule, got {type(model).__name__}")
    given = _read(rates)
    named = given.sites if isinstance(given, Schedule) else None
    modules = clean_modules(key_of(model))
    chosen = (
        _chosen(model, modules, sites)
        if named is None or sites is not None
        else _of_names(model, modules, named)
    )
    values = _checked(given, chosen)
    _check_sites(model, modules, chosen, values)
    busy = key_of(model) in _SCHEDULED
    if busy or any(modules[site.module] in _SCHEDULED for site in chosen):
        raise InputError(
            f"{type(model).__name__} {'is' if busy else 'shares modules that are'} already "
            "scheduled; call remove() on what apply_schedule returned before"
        )
    return AppliedSchedule(model, chosen, values)


def is_scheduled(model: nn.Module) -> bool:
    """Whether a schedule is in force on a model or one of its modules."""
    return any(module in _SCHEDULED for module in key_of(model).modules())


def _read(rates: Any) -> Any:
    """The schedule in a file or a dictionary; anything else as it is."""
    if isinstance(rates, Mapping):
        return Schedule(tuple(rates.values()), tuple(rates))
    return Schedule.load(rates) if isinstance(rates, str | os.PathLike) else rates


def _of_names(
    model: nn.Module, modules: dict[str, nn.Module], names: tuple[str, ...]
) -> tuple[DropoutSite, ...]:
    """The sites of a model that a schedule names; InputError with the difference."""
    known = known_sites(model)
    if known is None:
        by_name = {name: site for name in names if (site := site_named(modules, name))}
        others = other_names(modules, names)
        hint = (
            "call dropout_sites(model, *example_inputs) first, which tells by running the model "
            "what drops, or give sites= to schedule these alone"
        )
    else:
        by_name = {site.name: site for site in known}
        # What cannot be set needs no rate.
        others = [s.name for s in known if s.how != "none" and s.name not in names]
        hint = "give a schedule for these sites, or sites= to schedule some of them"
    missing = [name for name in names if name not in by_name]
    if any(PREFIX in name for name in missing):
        hint = "call insert_sites(model, *example_inputs) first, as before the schedule was saved"
    if missing or others:
        raise InputError(
            f"the schedule is for other sites than this {type(model).__name__} has: "
            + "; ".join(
                f"{len(group)} {where} ({some(map(repr, group))})"
                for group, where in (
                    (missing, "only in the schedule"),
                    (others, "only in the model"),
                )
                if group
            )
            + f"; {hint}"
        )
    return tuple(by_name[name] for name in names)


def _chosen(
    model: nn.Module,
    modules: dict[str, nn.Module],
    sites: Iterable[DropoutSite | str] | None,
) -> tuple[DropoutSite, ...]:
    known = known_sites(model)
    wanted: Sequence[DropoutSite | str] | None
    wanted = (
        [sites] if isinstance(sites, DropoutSite | str) else None if sites is None else [*sites]
    )
    if known is None and wanted is None:
        raise InputError(
            f"the sites of this {type(model).__name__} are not known; call dropout_sites(model, "
            "*example_inputs) first, or give the sites that it returned"
        )
    if wanted is None:
        return known or ()
    if known is None:
        names = [site for site in wanted if isinstance(site, str)]
        by_name = {name: site for name in names if (site := site_named(modules, name))}
    else:
        by_name = {site.name: site for site in known}
    chosen = [_named(by_name, site, known) if isinstance(site, str) else site for site in wanted]
    for name, times in Counter(site.name for site in chosen).items():
        if times > 1:
            raise InputError(f"site {name!r} is given {times} times; give each site once")
    return tuple(chosen)


def _named(by_name: dict[str, DropoutSite], name: str, known: Any) -> DropoutSite:
    if name in by_name:
        return by_name[name]
    if known is None:
        raise InputError(
            f"unknown site {name!r}: the model has no module and attribute of that name; call "
            "dropout_sites(model, *example_inputs) for the names"
        )
    close = difflib.get_close_matches(name, by_name, n=3) or list(by_name)[:3]
    raise InputError(
        f"unknown site {name!r}; expected one of the {len(by_name)} names of dropout_sites"
        + (f", such as {', '.join(map(repr, close))}" if close else "")
    )


def _checked(rates: Any, sites: tuple[DropoutSite, ...]) -> tuple[float, ...]:
    given = getattr(rates, "rates", rates)
    if isinstance(rates, Schedule) and rates.sites is not None:
        given = _by_name(rates, sites)
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
            f"{some(repr(site.name) for site in sites)}, or choose the sites"
        )
    return values


def _by_name(schedule: Schedule, sites: tuple[DropoutSite, ...]) -> list[float]:
    """The rates of a schedule with names, in the order of the sites."""
    held = dict(zip(schedule.sites or (), schedule.rates, strict=True))
    missing = [site.name for site in sites if site.name not in held]
    if missing:
        raise InputError(
            f"the schedule has no rate for {some(map(repr, missing))}; it names"
            f" {some(map(repr, held))}; give one for every site, or sites= with those that it names"
        )
    return [held[site.name] for site in sites]


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
        _check_rate(site, rate)


def _check_rate(site: DropoutSite, rate: float) -> None:
    if site.how == "none" and rate != site.rate:
        raise InputError(
            f"site {site.name!r} cannot be set to {rate:g}: {site.reason}; or leave it out of "
            "the sites"
        )

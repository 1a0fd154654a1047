"""Dropout schedules over depth and time in the training loops of Lightning and Hugging Face.

The classes are made when the first of their callbacks is: nothing here imports either library
before, and the names of the classes can be looked up in this module, as unpickling does.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import MappingProxyType
from typing import Any

from torch import nn

from depthscale.answers import InputError
from depthscale.practice.dropping.over_time import (
    DropoutScheduler,
    Profile,
    checked_state,
    time_profile,
)
from depthscale.practice.dropping.sites import key_of
from depthscale.practice.schedule import Schedule


def lightning_callback(
    schedule: Any,
    time: str | Profile = "constant",
    *,
    cutoff: float | None = None,
    keep_mean: bool = False,
    levels: int | None = None,
    sites: Iterable[str] | None = None,
    part: str = "",
    total_steps: int | None = None,
    strict: bool = True,
) -> Any:
    """A Lightning ``Callback`` that runs a ``DropoutScheduler`` while a model is fitted.

    ``schedule`` to ``levels`` are as for ``DropoutScheduler``, ``sites`` names only; they are those
    of the ``LightningModule``, or of the module at the path ``part`` in it ("net" for
    ``self.net``). ``total_steps`` is ``trainer.estimated_stepping_batches`` by default.

    It steps after each batch in which an optimiser stepped, saves its state with each checkpoint,
    goes on from there when the trainer resumes, and takes the rates off at the end or after an
    exception. ``callback.scheduler`` is the scheduler while it lasts. A resumed training with other
    settings (a longer one, say) is an InputError unless ``strict`` is False.

    Raises InputError when neither ``lightning`` nor ``pytorch_lightning`` is installed (of both,
    the one that is imported already is used), at once for what is wrong with the profile, and when
    training starts for what ``DropoutScheduler`` refuses.

        dropout_sites(module.net, x)
        callback = lightning_callback([0.0, 0.1, 0.2], time="early", part="net")
        Trainer(callbacks=[callback]).fit(module, data)
    """
    return _lightning_class()(**locals())


def trainer_callback(
    schedule: Any,
    time: str | Profile = "constant",
    *,
    cutoff: float | None = None,
    keep_mean: bool = False,
    levels: int | None = None,
    sites: Iterable[str] | None = None,
    part: str = "",
    total_steps: int | None = None,
    strict: bool = True,
) -> Any:
    """A ``TrainerCallback`` for Hugging Face's ``Trainer`` that runs a ``DropoutScheduler``.

    The arguments are those of ``lightning_callback``; ``total_steps`` is ``state.max_steps`` by
    default. It follows ``state.global_step``, so a resumed training goes on where it was, with the
    rates and settings that are saved in ``trainer_state.json``. The rates are taken off when
    training ends; after an exception, call ``callback.remove()``.

        dropout_sites(model, input_ids=words)
        callback = trainer_callback([0.0, 0.1, 0.2], time="early")
        Trainer(model, args, train_dataset=data, callbacks=[callback]).train()
    """
    return _trainer_class()(**locals())


@dataclass(eq=False, repr=False)
class _Run:
    """What both callbacks hold: the arguments of a scheduler, and the scheduler while it lasts."""

    schedule: Any
    time: str | Profile = "constant"
    cutoff: float | None = None
    keep_mean: bool = False
    levels: int | None = None
    sites: Iterable[str] | None = None
    part: str = ""
    total_steps: int | None = None
    strict: bool = True
    scheduler: DropoutScheduler | None = field(default=None, init=False)
    saved: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.time is None:  # what ``state`` of a ``TrainerDropout`` saves of a function
            raise InputError(
                "a profile over time that is a function cannot be restored from a checkpoint; "
                "resume with restore_callback_states_from_checkpoint=False"
            )
        time_profile(self.time, self.cutoff)  # refused before the training starts
        self.sites = None if self.sites is None else tuple(self.sites)

    def arguments(self) -> dict[str, Any]:
        """What the callback was made with, by name."""
        return {one.name: getattr(self, one.name) for one in fields(_Run) if one.init}

    def begin(
        self, model: nn.Module, steps: float, done: int, saved: Mapping[str, Any]
    ) -> DropoutScheduler:
        """Put the rates on the model, or on its part, as they are after ``done`` steps.

        ``steps`` are those that the trainer expects in all, ``saved`` is the state in the
        checkpoint that it resumes from, or empty.
        """
        self.remove()
        total = steps if self.total_steps is None else self.total_steps
        if not 0 < total < float("inf"):
            raise InputError(
                "the trainer does not know how many steps there will be; give total_steps="
            )
        self.scheduler = DropoutScheduler(
            self._part(model),
            self.schedule,
            int(total),
            self.time,
            cutoff=self.cutoff,
            keep_mean=self.keep_mean,
            levels=self.levels,
            sites=self.sites,
            warn=False,  # a trainer puts the model into train mode itself
        )
        try:
            if saved:
                self.scheduler.load_state_dict(saved, self.strict)
            else:
                self.scheduler.go_to(done)
        except InputError:
            self.remove()
            raise
        return self.scheduler

    def _part(self, model: nn.Module) -> nn.Module:
        try:
            return key_of(model).get_submodule(self.part) if self.part else model
        except AttributeError as error:
            raise InputError(f"part is {self.part!r}: {error}; give the path of a module") from None

    def current(self) -> dict[str, Any]:
        """The state of the scheduler, also after it is gone."""
        return self.saved if self.scheduler is None else self.scheduler.state_dict()

    def remove(self) -> None:
        """Take the rates off; may be called at any time."""
        if self.scheduler is not None:
            self.saved = self.scheduler.state_dict()
            self.scheduler.remove()
            self.scheduler = None


@cache
def _lightning_class() -> Any:
    names = ("lightning.pytorch", "pytorch_lightning")
    base = _first(sorted(names, key=lambda name: name not in sys.modules)).Callback

    class LightningDropout(_Run, base):  # type: ignore[misc, valid-type]
        """Runs a ``DropoutScheduler`` while a model is fitted."""

        _steps = 0
        _resumed: Mapping[str, Any] = MappingProxyType({})  # what a checkpoint says, until then

        @property
        def state_key(self) -> str:
            """Tells callbacks for several parts of a model apart."""
            return f"LightningDropout{{'part': {self.part!r}}}"

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            steps, done = trainer.estimated_stepping_batches, trainer.global_step
            resumed, self._resumed = self._resumed, {}
            self.begin(pl_module, steps, done, resumed)
            self._steps = done

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            # A batch may end without a step (accumulation) or with several (several optimisers).
            if self.scheduler is not None and trainer.global_step > self._steps:
                self.scheduler.step()
            self._steps = trainer.global_step

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self.remove()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            self.remove()

        def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
            self.remove()

        def state_dict(self) -> dict[str, Any]:
            return self.current()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self._resumed = checked_state(state_dict)

    return _named(LightningDropout)


@cache
def _trainer_class() -> Any:
    try:
        from transformers.trainer_callback import ExportableState, TrainerCallback
    except ImportError as error:
        raise _missing("transformers", "transformers") from error

    class TrainerDropout(_Run, TrainerCallback, ExportableState):
        """Runs a ``DropoutScheduler`` while a ``Trainer`` trains."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            saved = _saved_state(state) if state.global_step else {}
            self.begin(kwargs["model"], state.max_steps, state.global_step, saved)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.scheduler is not None:
                self.scheduler.go_to(state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.remove()

        def state(self) -> dict[str, Any]:
            given = self.schedule
            if isinstance(given, Schedule) and given.sites is not None and self.sites is None:
                sites: Any = list(given.sites)
            else:
                sites = None if self.sites is None else list(self.sites)
            scheduler = self.current()
            args = {
                **self.arguments(),
                "schedule": scheduler.get("rates"),
                "time": self.time if isinstance(self.time, str) else None,
                "sites": scheduler.get("sites", sites),
            }
            return {"args": args, "attributes": {"saved": scheduler}}

    return _named(TrainerDropout)


def _saved_state(state: Any) -> dict[str, Any]:
    """What a checkpoint says about the one callback of this kind, {} where it says nothing."""
    held = (state.stateful_callbacks or {}).get("TrainerDropout", {})
    return checked_state(held["attributes"]["saved"]) if isinstance(held, dict) and held else {}


def _first(names: Iterable[str]) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise _missing("lightning", "lightning")


def _missing(package: str, extra: str) -> InputError:
    return InputError(
        f"this callback needs {package}, which is not installed; pip install 'depthscale[{extra}]'"
    )


def _named(made: type) -> type:
    """Say that a class stands in this module, where ``__getattr__`` finds it."""
    made.__module__, made.__qualname__ = __name__, made.__name__
    return made


_CLASSES: dict[str, Callable[[], Any]] = {
    "LightningDropout": _lightning_class,
    "TrainerDropout": _trainer_class,
}


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return _CLASSES[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The dropout schedule that is best for a model, what it should do, and what it was seen to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from depthscale.answers import InputError, Undefined
from depthscale.practice.dropping.budgets import MEAN, SiteBudgets, site_budgets
from depthscale.practice.dropping.chain import SiteChain, site_chain
from depthscale.practice.dropping.response import (
    MEASURED,
    Observed,
    Observer,
    ResponseLandscape,
    measure_response,
)
from depthscale.practice.dropping.sites import KINDS, DropoutSite, dropout_sites
from depthscale.practice.probe.feed import Feed, prepare_feed
from depthscale.practice.probe.state import check_seed
from depthscale.practice.probe.trace import unwrap
from depthscale.practice.schedule import Budget, Schedule
from depthscale.practice.schedules.objectives import SENSE
from depthscale.practice.schedules.optimise import (
    Optimum,
    evaluate_schedule,
    optimise_network,
)
from depthscale.theory.gaussian import Array

CHECKS, STUDENT = 8, 2.3646
"""Pairs of masks with which a schedule is measured, and Student's 97.5 % quantile for them."""
PERMUTATIONS = 1000
OF_EQUAL_LAYERS = ("xi", "reach")
ARMS = ("schedule", "uniform", "mirrored")
SLOPES = "small difference lost, -log slopes"
CONTRAST = "difference of the inputs lost, log"
"""What ``signal`` is: by the recursion of a chain, and wherever it is measured."""

Predicted = Mapping[str, Mapping[str, float | None]]
Progress = Callable[[int], Callable[[], None]]


@dataclass(frozen=True)
class Effect:
    """A measured number and its standard error; NaN where it does not exist."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Array) -> Effect:
        """By the jackknife: the value of all, then those of all but one."""
        left, count = values[1:], len(values) - 1
        with np.errstate(invalid="ignore"):
            spread = math.sqrt((count - 1) * float(np.mean((left - left.mean()) ** 2)))
        return cls(float(values[0]), spread)

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.error:.1g}"

    def to_dict(self) -> dict[str, float | None]:
        """Both numbers, None where they do not exist."""
        return {"value": _finite(self.value), "error": _finite(self.error)}


@dataclass(frozen=True)
class Choice:
    """Rates chosen by one engine.

    ``predicted[objective][arm]`` has the arms ``schedule``, ``uniform``, ``mirrored`` and
    ``best_random`` (of 1,000 permutations, in each objective). ``basis`` says what the engine is,
    ``certificate`` how good the rates are by it, ``notes`` what it leaves out; ``signal`` is the
    loss that it predicts by that name, ``SLOPES`` or ``CONTRAST``.
    """

    rates: Array
    basis: str
    predicted: Predicted
    certificate: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    signal: str = CONTRAST


@dataclass(frozen=True)
class ModelSchedule:
    """A schedule for a model's sites, beside other arms: what is predicted and what was seen.

    ``observed[arm][objective]`` was measured on the model afterwards, with masks that played no
    part in the choice, for the arms ``schedule``, ``uniform``, ``mirrored`` and ``present`` (the
    rates that the model has). ``gain`` is the observed advantage over uniform in ``objective``,
    from the same seeds, positive where the schedule is better; None for an objective that cannot be
    observed. ``readout`` is the layer at which noise and contrast were observed, the last one that
    the first output comes from. ``left`` are sites that keep their rates.
    """

    sites: tuple[DropoutSite, ...]
    left: tuple[DropoutSite, ...]
    schedule: Schedule
    objective: str
    budgets: SiteBudgets
    choice: Choice
    observed: Mapping[str, Mapping[str, Effect]]
    gain: Effect | None
    readout: str

    @property
    def helps(self) -> bool | None:
        """Whether the schedule was seen to be better than uniform, beyond chance.

        By 2.365 standard errors: 95 % confidence, two-sided, with the pairs of ``CHECKS``. None
        where the objective cannot be observed.
        """
        return None if self.gain is None else self.verdict == "better"

    @property
    def verdict(self) -> str | None:
        """``"better"`` or ``"worse"`` than uniform beyond chance, else ``"not told apart"``.

        None where the objective cannot be observed or does not exist.
        """
        if self.gain is None or not math.isfinite(self.gain.value):
            return None
        if abs(self.gain.value) <= STUDENT * self.gain.error:
            return "not told apart"
        return "better" if self.gain.value > 0 else "worse"

    @property
    def whole(self) -> Schedule:
        """The schedule with the present rates of the sites that keep them, to apply as it is."""
        kept = [s for s in self.left if s.how != "none" and s.rate is not None and s.rate < 1]
        names = (*(self.schedule.sites or ()), *(site.name for site in kept))
        return Schedule((*self.schedule.rates, *(float(s.rate or 0.0) for s in kept)), names)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data; None for what does not exist."""
        return {
            "objective": self.objective,
            "basis": self.choice.basis,
            "rates": list(self.schedule.rates),
            "sites": [
                {"name": s.name, "kind": s.kind, "now": s.rate, "rate": rate, "calls": s.calls}
                for s, rate in zip(self.sites, self.schedule.rates, strict=True)
            ],
            "left": [{"name": s.name, "kind": s.kind, "reason": s.reason} for s in self.left],
            "budgets": [
                {
                    "sites": [self.sites[k].name for k in members],
                    "mean": budget.mean_at(len(members)),
                    "cap": budget.cap,
                    "floor": budget.floor,
                }
                for members, budget in self.budgets.groups
            ],
            "objectives": {
                name: {**arms, "more_is_better": SENSE[name] > 0}
                for name, arms in self.choice.predicted.items()
            },
            "observed": {
                arm: {name: one.to_dict() for name, one in table.items()}
                for arm, table in self.observed.items()
            },
            "readout": self.readout,
            "signal": {"predicted": self.choice.signal, "observed": CONTRAST},
            "gain": None if self.gain is None else self.gain.to_dict(),
            "helps": self.helps,
            "verdict": self.verdict,
            "notes": list(self.choice.notes),
            "apply": dict(zip(self.whole.sites or (), self.whole.rates, strict=True)),
            "certificate": dict(self.choice.certificate),
        }


def schedule_model(
    model: nn.Module,
    inputs: Any,
    budget: Budget | None = None,
    objective: str = "noise",
    kinds: Sequence[str] | None = None,
    across_kinds: bool = False,
    seed: int = 0,
    progress: Progress = lambda total: lambda: None,
) -> ModelSchedule:
    """Choose the rates of a model's dropout sites for one objective, and measure what they do.

    Where the sites lie in one plain chain of layers, the rates are the optimum of its exact
    recursion at infinite width, for every objective of ``optimise_network``. Elsewhere they are
    that of the measured response of the single sites, for those of ``MEASURED``. The model runs in
    train mode, at the weights that it has, and is left as it was.

    Parameters
    ----------
    inputs:
        A batch of tensors or arrays that the model takes: one, a tuple (positional arguments) or a
        mapping (keyword arguments), of two different examples at least; a hundred are plenty. Moved
        to the model's device and cast to its float type.
    budget:
        Of the rates of each kind of site by itself (``across_kinds``: of all sites together).
        Default: each keeps the mean rate that it has now (0.1 if nothing drops), with a cap of
        twice that.
    objective:
        A name of ``SENSE``.
    kinds:
        Kinds of sites to schedule, such as ``("mlp", "projection")``; default all.
    progress:
        Called once, with the number of measurements; returns what is called after each.

    Raises
    ------
    InputError
        A model without sites to schedule, an objective that neither engine has, unknown kinds, a
        budget in fields or of another number of sites, and what ``measure`` refuses.
    """
    if not isinstance(objective, str) or objective not in SENSE:
        raise InputError(f"objective of a model is {objective!r}; expected {', '.join(SENSE)}")
    if not callable(progress):
        raise InputError(f"progress is {progress!r}; expected a function of a number of steps")
    check_seed(seed)
    feed = prepare_feed(unwrap(model)[0], inputs)
    found, sites = _sites(model, feed, kinds)
    budgets = site_budgets(sites, budget, across_kinds)
    observer = Observer(model, feed.inputs, sites)
    choice = _in_theory(model, feed.inputs, sites, budgets, objective, seed)
    if isinstance(choice, str) and objective not in MEASURED:
        raise InputError(
            f"{objective} needs a plain chain of layers ({choice}); choose among"
            f" {', '.join(MEASURED)}, which are measured on any model"
        )
    present = _present(sites)
    alone = len(sites) + 1 if isinstance(choice, str) else 0
    advance = progress(alone + 1 + len((*ARMS, *present)))
    if isinstance(choice, str):
        choice = _by_response(observer, budgets, objective, seed, advance, choice)
    rates = choice.rates
    three = (rates, budgets.uniform, budgets.mirrored(rates))
    arms = {**dict(zip(ARMS, three, strict=True)), **present}
    values, readout = _seen(observer, arms, seed, advance)
    gain = None
    if objective in MEASURED:
        better = values["schedule"][objective] - values["uniform"][objective]
        gain = Effect.of(MEASURED[objective] * better)
    return ModelSchedule(
        sites=sites,
        left=tuple(site for site in found if site not in sites),
        schedule=Schedule(tuple(rates.tolist()), tuple(site.name for site in sites)),
        objective=objective,
        budgets=budgets,
        choice=choice,
        observed={
            arm: {name: Effect.of(v) for name, v in table.items()} for arm, table in values.items()
        },
        gain=gain,
        readout=readout,
    )


def _sites(
    model: nn.Module, feed: Feed, kinds: Sequence[str] | None
) -> tuple[tuple[DropoutSite, ...], tuple[DropoutSite, ...]]:
    """All sites of a model, and those that a schedule can be put on."""
    found: tuple[DropoutSite, ...] = feed.call(partial(dropout_sites, model))
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    known = isinstance(kinds, Collection) and all(kind in KINDS for kind in kinds)
    if kinds is not None and not known:
        raise InputError(f"kinds are {kinds!r}; expected some of {', '.join(KINDS)}")
    chosen = tuple(s for s in found if s.how != "none" and (kinds is None or s.kind in kinds))
    if not chosen:
        have = ", ".join(sorted({f"{s.kind} ({s.name}) {s.reason}".strip() for s in found})[:4])
        raise InputError(
            f"{type(model).__name__} has no dropout site to schedule"
            + (f" among {have}" if have else "; give it some with insert_sites")
        )
    return found, chosen


def _in_theory(
    model: nn.Module,
    inputs: Any,
    sites: Sequence[DropoutSite],
    budgets: SiteBudgets,
    objective: str,
    seed: int,
) -> Choice | str:
    """The optimum by theory, or why there is none."""
    if len(budgets.groups) > 1:
        return "each kind of site has a budget of its own"
    try:
        chain = site_chain(model, inputs, sites, seed)
        if isinstance(chain, str):
            return chain
        if objective == "gradient" and chain.gradient_reason is not None:
            return chain.gradient_reason
        return _by_recursion(chain, budgets.groups[0][1], objective, seed)
    except InputError as error:
        return str(error)


def _by_recursion(chain: SiteChain, budget: Budget, objective: str, seed: int) -> Choice:
    """The optimum of the exact recursion of the chain that a model is.

    The paper's surrogates speak of equal layers: for them every layer is the median one.
    """
    layers = [k for k, site in enumerate(chain.site) if site is not None]
    best: Optimum
    if objective in OF_EQUAL_LAYERS:
        best = optimise_network(chain.median, len(layers), budget, objective, chain.eps0, seed)
        found = evaluate_schedule(
            chain.fields, best.schedule, chain.eps0, seed=seed, q0=chain.q0, sites=layers
        ).objectives
        found = {name: found.get(name, one) for name, one in best.objectives.items()}
        basis = "the paper's surrogate for equal layers, of the median one of its chain"
    else:
        best = optimise_network(
            *(chain.fields, len(layers), budget, objective, chain.eps0, seed),
            q0=chain.q0,
            sites=layers,
        )
        found = best.objectives
        basis = "exact recursion of its chain of layers, at infinite width"
    arms = ("schedule", "uniform", "mirrored", "best_random")
    predicted = {
        name: {
            arm: None if isinstance(value := getattr(one, arm), Undefined) else float(value)
            for arm in arms
        }
        for name, one in found.items()
    }
    rates = np.array(best.schedule.rates)
    return Choice(rates, basis, predicted, best.certificate.to_dict(), chain.notes, SLOPES)


def _by_response(
    observer: Observer,
    budgets: SiteBudgets,
    objective: str,
    seed: int,
    advance: Callable[[], None],
    reason: str,
) -> Choice:
    """The optimum of the response of each site alone; ``reason`` why there is no theory."""
    probe = np.where(budgets.cap > 0, budgets.cap, MEAN)  # a kind that is off responds too
    response = measure_response(observer, probe, seed=seed, advance=advance)
    scene = ResponseLandscape(response)
    rates, exact = scene.optimum(objective, budgets)
    rows = np.stack([rates, budgets.uniform, budgets.mirrored(rates)])
    shuffled = budgets.permuted(rates, PERMUTATIONS, seed)
    predicted = {}
    for name, sense in MEASURED.items():
        best = float(sense * np.max(sense * scene.values(name, shuffled)))
        own = [*scene.values(name, rows).tolist(), best]
        arms = ("schedule", "uniform", "mirrored", "best_random")
        predicted[name] = {arm: _finite(v) for arm, v in zip(arms, own, strict=True)}
    return Choice(
        rates,
        "measured response of each site alone, to first order",
        predicted,
        {
            "exact": exact,
            "proof": "the best for the response that was measured" if exact else "",
            "budget_violation": budgets.violation(rates),
        },
        (f"no exact theory: {reason}",),
    )


def _present(sites: Sequence[DropoutSite]) -> dict[str, Array]:
    """The arm of the rates that the model has; none where one is not known or drops everything."""
    rates = [site.rate for site in sites]
    known = all(rate is not None and rate < 1 for rate in rates)
    return {"present": np.array(rates)} if known else {}


def _seen(
    observer: Observer, arms: Mapping[str, Array], seed: int, advance: Callable[[], None]
) -> tuple[dict[str, dict[str, Array]], str]:
    """Every objective of every arm, measured, for ``Effect.of``, and the layer of the readout."""

    def at(rates: Array, repeats: int) -> Observed:
        # Other masks than those that the choice was made with, or it would flatter itself.
        found = observer.at(rates, repeats, seed + 1_000_003)
        advance()
        return found

    off = at(np.zeros(len(observer.sites)), 2)
    contrast = float(off.contrast.mean())
    seen = {arm: at(rates, CHECKS) for arm, rates in arms.items()}
    table = {
        arm: {name: one.objective(name, contrast) for name in MEASURED} for arm, one in seen.items()
    }
    return table, off.readout


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

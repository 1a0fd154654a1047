"""Statistics of signals and gradients of a real model, layer by layer, in one or two passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from depthscale.answers import InputError
from depthscale.practice.probe.feed import Feed, prepare_feed
from depthscale.practice.probe.goal import Goal, make_goal
from depthscale.practice.probe.sites import (
    Chain,
    Hop,
    Layer,
    Site,
    places_before_output,
    sites_of,
)
from depthscale.practice.probe.state import check_seed, preserved, seed_everything
from depthscale.practice.probe.statistics import (
    Signal,
    example_rows,
    mean_and_error,
    signal_statistics,
    unit_fractions,
)
from depthscale.practice.probe.trace import (
    Trace,
    Tracer,
    check_weights,
    run_trace,
    set_mode,
    unwrap,
)
from depthscale.practice.probe.weights import redraw

if TYPE_CHECKING:
    import xarray as xr

Watcher = Callable[[torch.Tensor], None]

__all__ = ["Chain", "Hop", "Layer", "Measurement", "Signals", "measure"]


@dataclass(frozen=True)
class Measurement:
    """What was measured: every array is float64 ``[repeat, layer]``, row 0 the model as given.

    ``length`` mean over the inputs of the mean-square pre-activation q; ``eps`` mean over pairs of
    real inputs of 1 - cos, ``eps_error`` its standard error over the pairs (NaN for one pair);
    ``eps_masks`` the same for one input under two independent dropout masks (``None`` when nothing
    is dropped); ``gradient`` mean over the inputs of ``|dE/dh|^2`` (total, not per unit);
    ``gradient_eps`` 1 - cos of the gradients of a pair; ``dead`` and ``saturated`` as in
    ``statistics.unit_fractions``, NaN at layers that no activation follows; ``zero`` the fraction
    of inputs whose vector is exactly zero. A layer that a run skipped, or from which no gradient
    can be taken, has NaN there and ``notes`` names it. ``nonfinite_at`` names the first layer with
    a NaN or infinity in row 0; numbers from there on are NaN or infinite. ``passes`` counts runs of
    the model (one of them forward only). ``trace`` is what ``recognise_chain`` takes.
    """

    layers: tuple[Layer, ...]
    length: np.ndarray
    eps: np.ndarray
    eps_error: np.ndarray
    eps_masks: np.ndarray | None
    gradient: np.ndarray
    gradient_eps: np.ndarray
    dead: np.ndarray
    saturated: np.ndarray
    zero: np.ndarray
    passes: int
    mode: str = "train"
    batch: int = 0
    pairs: int = 0
    nonfinite_at: str | None = None
    notes: tuple[str, ...] = ()
    trace: Trace | None = field(default=None, repr=False, compare=False)

    def to_xarray(self) -> xr.Dataset:
        """The arrays with dimensions ``repeat`` and ``layer``, labelled by layer name."""
        import xarray as xr

        arrays = {
            name: (("repeat", "layer"), getattr(self, name))
            for name in _FIELDS
            if getattr(self, name) is not None
        }
        labels = {
            "layer": [layer.name for layer in self.layers],
            "kind": ("layer", [layer.kind for layer in self.layers]),
            "width": ("layer", [layer.width for layer in self.layers]),
            "repeat": np.arange(len(self.length)),
        }
        facts = {
            "run_mode": self.mode,  # SciPy's netCDF writer trips over an attribute called "mode"
            "batch": self.batch,
            "pairs": self.pairs,
            "passes": self.passes,
            "nonfinite_at": self.nonfinite_at or "",
            "notes": "; ".join(self.notes),
        }
        return xr.Dataset(arrays, coords=labels, attrs=facts)


_FIELDS = (
    "length",
    "eps",
    "eps_error",
    "eps_masks",
    "gradient",
    "gradient_eps",
    "dead",
    "saturated",
    "zero",
)


def measure(
    model: nn.Module,
    inputs: Any,
    *,
    targets: Any = None,
    loss: Callable[..., Any] | None = None,
    mode: str = "train",
    pairs: int = 64,
    reinit: int = 0,
    seed: int = 0,
) -> Measurement:
    """Measure how signals and gradients travel through a model, layer by layer.

    Looks at the output of every weight operation (the pre-activation h) and of every repeated
    block. One traced forward pass finds them; one forward-backward pass per repeat measures. Pairs
    are neighbours (i, i + 1) of the batch, at most ``pairs`` of them. When the model draws random
    numbers (dropout), the batch is stacked twice, so each input also meets itself under a second,
    independent mask. The model is left exactly as it was.

    Arguments:
        inputs: tensor or array ``(batch, ...)``, a tuple of them (positional arguments) or a
            mapping (keyword arguments); moved to the model's device and cast to its float type.
        targets, loss: see ``Goal``; by default gradients are those of a random readout. With a loss
            of the caller, gradients have its scale (a mean over the batch divides them by it).
        mode: "train" or "eval".
        reinit: how many more times to measure with weights drawn anew from their own empirical
            distribution (``weights.redraw``). This repeats *the initialisation that the
            model has*, also where it is not that of ``reset_parameters``.
        seed: of dropout masks, readout and redrawn weights, in 0..2**63 - 1.

    Raises InputError for unusable models, inputs and settings, and a model that cannot run.

        measurement = measure(nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 4)), x)
        measurement.eps[0]      # misalignment of input pairs at both layers
    """
    if not isinstance(pairs, int) or pairs < 1:
        raise InputError(f"pairs must be a positive whole number, got {pairs!r}")
    check_seed(seed)
    if not isinstance(reinit, int) or reinit < 0:
        raise InputError(f"reinit must be a whole number >= 0, got {reinit!r}")
    with torch.inference_mode(False), torch.enable_grad():
        model, notes = unwrap(model)
        check_weights(model)
        feed = prepare_feed(model, inputs)
        make_goal(targets, loss, batch=feed.batch, seed=seed)
        with preserved(model):
            trace = run_trace(model, feed, mode=mode, seed=seed, notes=notes)
            sites = _some_sites(trace, model)
            plan = _Plan(sites, trace, feed, pairs, targets, loss)
            runs = [plan.run(model, seed, 0)]
            if reinit:
                draw = _Redraw(model, trace)
                for repeat in range(1, reinit + 1):
                    draw(seed, repeat)
                    runs.append(plan.run(model, seed, repeat))
    return _assemble(plan, runs)


class Signals:
    """Signals of one model in train mode, measured again and again: traced once, no gradients.

    ``layers`` as in ``Measurement``; ``before_output`` are the places of those that the first
    output of the model comes from, not those of auxiliary heads. Each call takes the seed of the
    masks and returns ``eps`` and ``eps_masks`` [layer] at the dropout rates that the model has
    then; it is left as it was.

    Raises InputError as ``measure`` does, and for inputs that cannot be stacked twice; a call does
    for a signal that is not finite.
    """

    def __init__(self, model: nn.Module, inputs: Any, *, pairs: int = 64, seed: int = 0) -> None:
        with torch.inference_mode(False):
            self._model, notes = unwrap(model)
            check_weights(self._model)
            feed = prepare_feed(self._model, inputs)
            if not feed.may_double:
                raise InputError(
                    "an input holds whole numbers but no batch (as the edges of a graph do), so no "
                    "input can meet two dropout masks; give a model that takes a batch"
                )
            with preserved(self._model):
                trace = run_trace(self._model, feed, mode="train", seed=seed, notes=notes)
            sites = _some_sites(trace, self._model)
        self._plan = _Plan(sites, trace, feed, pairs, None, None)
        self._plan.feed = feed.doubled()
        self.layers = tuple(site.layer for site in sites)
        self.before_output = places_before_output(trace, sites)

    def __call__(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """``eps`` and ``eps_masks`` of each layer, NaN where a layer did not run."""
        with torch.inference_mode(False), torch.no_grad(), preserved(self._model):
            rows = _rows(self._plan.forward(self._model, seed), len(self.layers))
        broken = np.isinf(rows["length"]) | (np.isnan(rows["length"]) & ~np.isnan(rows["zero"]))
        if broken.any():
            name = self.layers[int(np.argmax(broken))].name
            raise InputError(f"the signal is not finite at {name}; lower the scale of the weights")
        return rows["eps"], rows["eps_masks"]


def _some_sites(trace: Trace, model: nn.Module) -> tuple[Site, ...]:
    sites = sites_of(trace, model)
    if any(site.layer.kind != "block" for site in sites):
        return sites
    hidden = f" (what cannot be seen: {', '.join(trace.unresolved)})" if trace.unresolved else ""
    raise InputError(
        f"no weight layer ran in {trace.model_name}{hidden}; an audit needs at least one linear or "
        "convolutional operation whose weights are parameters"
    )


@dataclass
class _Run:
    """What one forward-backward pass left behind, by position of the site."""

    signals: dict[int, Signal] = field(default_factory=dict)
    gradients: dict[int, Signal] = field(default_factory=dict)
    units: dict[int, tuple[float, float]] = field(default_factory=dict)
    unshaped: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


class _Plan:
    """How to measure one architecture: which signals to watch and what to feed."""

    def __init__(
        self,
        sites: tuple[Site, ...],
        trace: Trace,
        feed: Feed,
        pairs: int,
        targets: Any,
        loss: Callable[..., Any] | None,
    ) -> None:
        self.sites = sites
        self.trace = trace
        self.feed = feed.doubled() if trace.stochastic and feed.may_double else feed
        self.single = feed
        self.pairs = pairs
        self.targets = targets
        self.loss = loss
        self.passes = 1

    def run(self, model: nn.Module, seed: int, repeat: int) -> _Run:
        """Measure one set of weights; without mask pairs if the model refuses a doubled batch."""
        mixed = int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])
        goal = make_goal(self.targets, self.loss, batch=self.single.batch, seed=mixed)
        try:
            return self._pass(model, self.feed, goal, mixed)
        except InputError:
            if self.feed.batch == self.single.batch:
                raise
        self.feed = self.single
        run = self._pass(model, self.feed, goal, mixed)
        run.notes.append(
            "the model only takes batches of this size, so one input could not be measured under "
            "two dropout masks"
        )
        return run

    def _pass(self, model: nn.Module, feed: Feed, goal: Goal, seed: int) -> _Run:
        self.passes += 1
        run = _Run()
        set_mode(model, self.trace.mode)
        seed_everything(model, seed)
        tracer = Tracer(model, watch=self._watchers(run, feed.batch, goal), gradients=True)
        output = tracer.run(model, feed.fresh())
        self._backward(goal, output, feed.batch, tracer.roots, run)
        return run

    def forward(self, model: nn.Module, seed: int) -> _Run:
        """Signals alone, of the batch as it is planned."""
        run = _Run()
        set_mode(model, self.trace.mode)
        seed_everything(model, seed)
        wanted: dict[str, list[Watcher]] = {}
        for place, site in enumerate(self.sites):
            look = partial(self._look, run, place, self.feed.batch, None)
            wanted.setdefault(site.key, []).append(look)
        Tracer(model, watch=_merged(wanted)).run(model, self.feed.fresh())
        return run

    def _watchers(self, run: _Run, batch: int, goal: Goal) -> dict[str, Watcher]:
        signs = goal.signs(batch)
        wanted: dict[str, list[Watcher]] = {}
        for place, site in enumerate(self.sites):
            wanted.setdefault(site.key, []).append(partial(self._look, run, place, batch, signs))
            if site.activation is not None and site.activation_key is not None:
                wanted.setdefault(site.activation_key, []).append(partial(_units, run, place, site))
        return _merged(wanted)

    def _look(
        self,
        run: _Run,
        place: int,
        batch: int,
        signs: torch.Tensor | None,
        tensor: torch.Tensor,
    ) -> None:
        signal = self._statistics(tensor, batch)
        if signal is None:
            run.unshaped.add(place)
            return
        run.signals[place] = signal
        if tensor.requires_grad:

            def take(gradient: torch.Tensor) -> None:
                found = self._statistics(gradient, batch, signs)
                if found is not None:
                    run.gradients[place] = found

            tensor.register_hook(take)  # type: ignore[no-untyped-call]

    def _statistics(
        self, tensor: torch.Tensor, batch: int, signs: torch.Tensor | None = None
    ) -> Signal | None:
        with torch.no_grad():
            rows = example_rows(tensor.detach(), batch)
            if rows is None:
                return None
            if signs is not None:
                rows = rows * signs.to(device=rows.device, dtype=rows.dtype)[:, None]
            return signal_statistics(rows, batch=self.single.batch, pairs=self.pairs)

    def _backward(self, goal: Goal, output: Any, batch: int, roots: list[Any], run: _Run) -> None:
        energy = goal(output, batch)
        if not energy.requires_grad or not roots:
            run.notes.append("the loss does not depend on any layer in a differentiable way")
            return
        try:
            # Hooks on the watched signals see their gradients on the way to the roots, where the
            # graph of signals begins; nothing is accumulated into parameters.
            torch.autograd.grad(energy, roots, allow_unused=True)
        # A foreign backward may raise anything. What the forward pass gave is still worth having.
        except Exception as error:
            run.gradients.clear()
            first = str(error).strip().split("\n")[0]
            run.notes.append(f"the backward pass fails with {type(error).__name__}: {first}")


def _merged(wanted: dict[str, list[Watcher]]) -> dict[str, Watcher]:
    """One watcher for each key."""

    def all_of(watchers: list[Watcher], tensor: torch.Tensor) -> None:
        for watcher in watchers:
            watcher(tensor)

    return {key: partial(all_of, watchers) for key, watchers in wanted.items()}


def _units(run: _Run, place: int, site: Site, tensor: torch.Tensor) -> None:
    run.units[place] = unit_fractions(tensor, site.activation, unit_axis=site.unit_axis)


class _Redraw:
    """Draws the parameters of the weight operations anew; the caller restores the model."""

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        owners = [name for event in trace.events for name in event.owners]
        for event in trace.weights:
            if event.weight is not None:
                owners += [*event.weight.owners, *event.weight.bias_owners]
        parameters = {_plain(name): parameter for name, parameter in model.named_parameters()}
        self.chosen = [parameters[name] for name in dict.fromkeys(owners)]
        self.originals = [parameter.detach().clone() for parameter in self.chosen]

    def __call__(self, seed: int, repeat: int) -> None:
        state = np.random.SeedSequence([seed, repeat, 1]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state) % 2**63)
        for parameter, original in zip(self.chosen, self.originals, strict=True):
            # Through .data, so that autograd graphs that the caller holds stay valid.
            parameter.data.copy_(redraw(original, generator))


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _assemble(plan: _Plan, runs: list[_Run]) -> Measurement:
    rows = [_rows(run, len(plan.sites)) for run in runs]
    arrays = {name: np.array([row[name] for row in rows]) for name in _FIELDS}
    layers = tuple(site.layer for site in plan.sites)
    broken = np.flatnonzero(~np.isfinite(arrays["length"][0]) & _seen(runs[0], len(layers)))
    doubled = plan.feed.batch != plan.single.batch
    return Measurement(
        layers=layers,
        length=arrays["length"],
        eps=arrays["eps"],
        eps_error=arrays["eps_error"],
        eps_masks=arrays["eps_masks"] if doubled else None,
        gradient=arrays["gradient"],
        gradient_eps=arrays["gradient_eps"],
        dead=arrays["dead"],
        saturated=arrays["saturated"],
        zero=arrays["zero"],
        passes=plan.passes,
        mode=plan.trace.mode,
        batch=plan.single.batch,
        pairs=min(plan.pairs, plan.single.batch - 1),
        nonfinite_at=layers[broken[0]].name if len(broken) else None,
        notes=_notes(plan, runs),
        trace=plan.trace,
    )


def _seen(run: _Run, count: int) -> np.ndarray:
    return np.array([place in run.signals for place in range(count)])


def _rows(run: _Run, count: int) -> dict[str, np.ndarray]:
    row = {name: np.full(count, np.nan) for name in _FIELDS}
    for place, signal in run.signals.items():
        row["length"][place] = float(signal.square.mean()) / signal.features
        row["zero"][place] = float((signal.square == 0).double().mean())
        row["eps"][place], row["eps_error"][place] = mean_and_error(signal.pairs, neighbours=True)
        if signal.masks is not None:
            row["eps_masks"][place] = float(signal.masks.mean())
    for place, gradient in run.gradients.items():
        row["gradient"][place] = float(gradient.square.mean())
        row["gradient_eps"][place] = float(gradient.pairs.mean())
    for place, (dead, saturated) in run.units.items():
        row["dead"][place], row["saturated"][place] = dead, saturated
    return row


def _notes(plan: _Plan, runs: list[_Run]) -> tuple[str, ...]:
    names = [site.layer.name for site in plan.sites]
    first = runs[0]
    notes = [*plan.trace.notes, *(note for run in runs for note in run.notes)]
    if plan.trace.stochastic and not plan.single.may_double:
        notes.append(
            "an input holds whole numbers but no batch (as the edges of a graph do), so the batch "
            "was not doubled and no input was measured under two dropout masks"
        )
    if plan.trace.unresolved:
        notes.append(f"the inside cannot be seen of {', '.join(plan.trace.unresolved)}")
    if first.unshaped:
        which = _listed(names, first.unshaped)
        notes.append(f"no dimension of the output is the batch, so not measured: {which}")
    missed = set(range(len(names))) - first.unshaped - set(first.signals)
    if missed:
        notes.append(f"skipped in the measured run: {_listed(names, missed)}")
    without = set(first.signals) - set(first.gradients)
    if without and first.gradients:
        notes.append(f"the loss sends no gradient to: {_listed(names, without)}")
    if not first.gradients:
        notes.append("no gradient reaches any layer")
    halves = {torch.float16, torch.bfloat16} & {p.dtype for _, p in _tensors(plan.single)}
    for dtype in sorted(halves, key=str):
        floor = torch.finfo(dtype).eps ** 2 / 12
        kind = str(dtype).removeprefix("torch.")
        notes.append(f"{kind} rounds the signals: eps below about {floor:.0e} is rounding")
    return tuple(dict.fromkeys(notes))


def _tensors(feed: Feed) -> list[tuple[str, torch.Tensor]]:
    from depthscale.practice.probe.feed import tensors_of

    return list(tensors_of(feed.inputs))


def _listed(names: list[str], places: set[int]) -> str:
    chosen = [f"`{names[place]}`" for place in sorted(places)]
    return ", ".join(chosen[:4]) + (f" and {len(chosen) - 4} more" if len(chosen) > 4 else "")

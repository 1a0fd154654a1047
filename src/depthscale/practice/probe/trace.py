"""Run a model once and write down what it computes: every operation, in order, with its origin."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from depthscale.answers import InputError
from depthscale.practice.probe.events import Call, Event, ModuleCall, Ref, Slot, Trace
from depthscale.practice.probe.feed import Feed, prepare_feed, tensors_of
from depthscale.practice.probe.state import preserved, same_state, seed_everything, streams
from depthscale.practice.probe.tracer import Tracer

__all__ = [
    "Call",
    "Event",
    "ModuleCall",
    "Ref",
    "Slot",
    "Trace",
    "Tracer",
    "check_weights",
    "run_trace",
    "set_mode",
    "trace_model",
    "unwrap",
]


def trace_model(model: nn.Module, inputs: Any, *, mode: str = "train", seed: int = 0) -> Trace:
    """Run the model once and record its operations; the model is left exactly as it was.

    ``inputs`` as in ``measure``; ``mode`` is "train" or "eval". Raises InputError for what is not a
    module, NaN or infinite weights (named), unusable inputs, and a model that cannot run them.

        trace = trace_model(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), torch.randn(2, 4))
        [event.name for event in trace.events]      # ["input", "linear", "tanh"]
    """
    with torch.inference_mode(False), torch.enable_grad():
        model, notes = unwrap(model)
        check_weights(model)
        feed = prepare_feed(model, inputs)
        with preserved(model):
            return run_trace(model, feed, mode=mode, seed=seed, notes=notes)


def run_trace(
    model: nn.Module, feed: Feed, *, mode: str, seed: int, notes: tuple[str, ...] = ()
) -> Trace:
    """Trace an unwrapped, checked model; the caller restores its state."""
    set_mode(model, mode)
    seed_everything(model, seed)
    before = [(stream, stream.read()) for stream in streams(model)]
    tracer = Tracer(model)
    output = tracer.run(model, feed.fresh())
    stochastic = any(not same_state(old, stream.read()) for stream, old in before)
    refs = [tracer.signal(tensor) for _, tensor in tensors_of(output)]
    return Trace(
        events=tuple(tracer.events),
        calls=tuple(tracer.calls),
        outputs=tuple(ref for ref in refs if ref is not None),
        batch=feed.batch,
        mode=mode,
        stochastic=stochastic,
        unresolved=tuple(tracer.unresolved),
        notes=(*notes, *feed.notes),
        model_name=type(model).__name__,
    )


def set_mode(model: nn.Module, mode: str) -> None:
    """Put the model into "train" or "eval" mode (its own ``train`` method decides the rest)."""
    if mode not in ("train", "eval"):
        raise InputError(f'mode is "train" or "eval", not {mode!r}')
    model.train(mode == "train")


def unwrap(model: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """The plain eager module inside compiled and data-parallel wrappers, with notes on both.

    Raises InputError for what is not a module, what is scripted as a whole, and lazy modules.
    """
    notes: list[str] = []
    if not isinstance(model, nn.Module):
        raise InputError(
            f"expected a torch.nn.Module to audit, got {type(model).__name__}"
            + ("; give an instance, not the class" if isinstance(model, type) else "")
        )
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
            notes.append("the model is compiled; its eager module was measured")
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
            notes.append("the module inside the data-parallel wrapper was measured")
        else:
            break
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "a ScriptModule hides its operations, so no layer can be measured; audit the module "
            "that was scripted or traced"
        )
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise InputError("the model has lazy parameters; run it once on an input to create them")
    if any(p.is_inference() for p in [*model.parameters(), *model.buffers()]):
        model = deepcopy(model)
        notes.append("the parameters were made under inference_mode; a copy was measured")
    return model, tuple(notes)


def check_weights(model: nn.Module) -> None:
    """Raise InputError that names the parameters with NaN or infinite entries."""
    bad = []
    for name, tensor in model.named_parameters():
        if tensor.is_meta:
            raise InputError(f"{name} is on the meta device and has no values; initialise it first")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad.append(f"{name} ({int((~torch.isfinite(tensor)).sum())} of {tensor.numel()})")
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise InputError(
            f"the weights have NaN or infinite entries: {', '.join(bad[:5])}{more}; "
            "initialise the model again or load a sound checkpoint"
        )

"""The places at which a model drops, in order of execution, and how the rate of each is set."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from depthscale.answers import InputError
from depthscale.practice.dropping.adapters import (
    attribute_name,
    candidates,
    clean_modules,
    is_path,
    is_scripted,
    whole_rate,
)
from depthscale.practice.dropping.watch import Drop, Watch
from depthscale.practice.probe.feed import map_tensors
from depthscale.practice.probe.state import preserved
from depthscale.practice.probe.trace import unwrap

KINDS = ("attention", "projection", "mlp", "path", "embedding", "other")
"""Of sites; see ``DropoutSite``."""

_FOUND: weakref.WeakKeyDictionary[nn.Module, tuple[DropoutSite, ...]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class DropoutSite:
    """One place at which a model drops.

    ``kind`` is "attention" (on attention weights), "projection" (after attention), "mlp", "path"
    (whole branches), "embedding" or "other"; it is told from what ran before the first call, so it
    is a description and nothing depends on it. ``rate`` is the probability dropped in train mode,
    None where it cannot be told; ``calls`` counts how often one forward pass drops at that rate.

    ``how`` says how the rate is set: "attribute" (``attribute`` of the module ``module``),
    "interception" (of call number ``ordinal`` of the torch function ``operation`` in each forward
    of ``module``), or "none", for which ``reason`` says why.
    """

    name: str
    kind: str
    rate: float | None
    calls: int
    how: str
    module: str
    attribute: str | None = None
    operation: str | None = None
    ordinal: int = 1
    reason: str = ""

    def __str__(self) -> str:
        rate = "rate unknown" if self.rate is None else f"drop {self.rate:g}"
        calls = f", {self.calls} calls" if self.calls > 1 else ""
        way = f"cannot be set: {self.reason}" if self.how == "none" else f"by {self.how}"
        return f"{self.name}: {self.kind}, {rate}{calls}, {way}"


def dropout_sites(
    model: nn.Module, /, *example_inputs: Any, **example_kwargs: Any
) -> tuple[DropoutSite, ...]:
    """Every place at which a model drops, in order of execution; the model is left as it was.

    The model runs twice on the example inputs in train mode (every submodule, also those that are
    now in eval mode): once as it is, and once with a different rate in every attribute that may be
    one, which tells the attribute behind each rate. What holds the rate is one site: a module
    that is called twice is one site with ``calls`` 2, and so are two modules that read one rate;
    each functional dropout is a site by itself. Sites that depend on data or chance (a branch
    not taken) are not seen.

    Found: dropout and alpha-dropout modules, functional dropout, the ``dropout_p`` of
    ``scaled_dot_product_attention``, ``nn.MultiheadAttention``, recurrent modules of several
    layers, attributes named ``*drop*`` (and ``p`` of classes named so) that the model passes on or
    draws zeros at, and DropPath or StochasticDepth modules (known by the name of their class, with
    a rate ``drop_prob``, ``p`` or ``drop_rate``), and what ``insert_sites`` put in.
    Listed without a way to set them, with the reason: an ``nn.Identity`` in place of a drop, other
    random numbers that may be a mask (``bernoulli``, ``rand``), scripted modules, and functional
    dropout in a function that its own module checkpoints.

    The result is remembered, for ``apply_schedule`` to use. Raises InputError for what is not a
    module, scripted models, and inputs that the model cannot run.

        dropout_sites(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1)), torch.randn(2, 4))
        # (DropoutSite(name="1", kind="mlp", rate=0.1, calls=1, how="attribute", ...),)
    """
    bare, _ = unwrap(model)
    modules = clean_modules(bare)
    held = {key: _rate(modules, *key) for key in candidates(modules)}
    plain = _watched(bare, modules, {}, example_inputs, example_kwargs)
    # No rate that a model has by itself is likely to be one of these.
    step = math.sqrt(0.08) / (len(held) + 1)
    tags = {key: 0.2 + step * (place + 1) for place, key in enumerate(held)}
    try:
        tagged = _watched(bare, modules, tags, example_inputs, example_kwargs)
    except InputError:  # a model that insists on its own rates
        tagged, tags = plain, {}
    sites = _Sites(modules, held, tags, plain)
    found = sites.collect(tagged)
    remember(model, found)
    return found


def known_sites(model: nn.Module) -> tuple[DropoutSite, ...] | None:
    """What ``dropout_sites`` found last for this model, None if it has not been asked."""
    return _FOUND.get(key_of(model))


def remember(model: nn.Module, sites: tuple[DropoutSite, ...] | None) -> None:
    """Make ``known_sites`` answer with these, or with None."""
    if sites is None:
        _FOUND.pop(key_of(model), None)
    else:
        _FOUND[key_of(model)] = sites


def key_of(model: nn.Module) -> nn.Module:
    """The module inside compiled and data-parallel wrappers, which stands for all of them."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def _rate(modules: dict[str, nn.Module], path: str, attribute: str) -> float:
    return float(getattr(modules[path], attribute) or 0.0)


def _watched(
    model: nn.Module,
    modules: dict[str, nn.Module],
    rates: dict[tuple[str, str], float],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Watch:
    watch = Watch(modules)
    with preserved(model):
        model.train()
        for (path, attribute), rate in rates.items():
            setattr(modules[path], attribute, rate)
        fresh = map_tensors((args, kwargs), lambda tensor: tensor.detach().clone())
        watch.run(model, *fresh)
    return watch


@dataclass
class _Sites:
    modules: dict[str, nn.Module]
    held: dict[tuple[str, str], float]
    tags: dict[tuple[str, str], float]
    plain: Watch
    found: dict[str, DropoutSite] = field(default_factory=dict)

    def collect(self, watch: Watch) -> tuple[DropoutSite, ...]:
        owners = {tag: key for key, tag in self.tags.items()}
        before = {_key(drop): drop for drop in self.plain.drops}
        for drop in watch.drops:
            site = self._site(drop, owners, before.get(_key(drop)), watch)
            if site is None:
                continue
            old = self.found.get(site.name)
            self.found[site.name] = replace(old, calls=old.calls + site.calls) if old else site
        for path, module in self.modules.items():
            above = self.modules.get(path.rpartition(".")[0])
            if is_scripted(module) and (above is None or not is_scripted(above)):
                reason = "a scripted module hides whether and where it drops"
                self.found[path] = DropoutSite(path, "other", None, 0, "none", path, reason=reason)
        return tuple(self.found.values())

    def _site(
        self,
        drop: Drop,
        owners: dict[float, tuple[str, str]],
        before: Drop | None,
        watch: Watch,
    ) -> DropoutSite | None:
        """The site of one drop, None for a function that does not drop."""
        if drop.attribute is not None:
            return self._attribute(drop, drop.module, drop.attribute)
        if drop.operation == "":
            whole = whole_rate(self.modules[drop.module])
            if whole is not None and whole[0]:
                return self._attribute(drop, drop.module, whole[0])
            reason = "its class is that of a DropPath, but it has none of the known rates"
            return _unset(drop, drop.module or "model", None, reason)
        if drop.operation == "identity":
            reason = (
                "an nn.Identity stands where the model would drop, because its rate was 0 when "
                "it was built; build the model with a rate above 0"
            )
            return _unset(drop, drop.module, 0.0, reason)
        name = _functional_name(drop)
        if drop.call is None:
            near = [key for tag, key in owners.items() if _is_near(tag, drop.drawn)]
            if near:
                return self._attribute(drop, *near[0])
            reason = (
                f"random numbers are drawn by `{drop.operation}`; whether and at which rate they "
                "drop cannot be told"
            )
            return _unset(drop, name, None, reason)
        if drop.call.acts and drop.call.rate in owners:
            return self._attribute(drop, *owners[drop.call.rate])
        call = before.call if before is not None and before.call is not None else drop.call
        attends = "attention" in drop.operation
        if not (call.acts or drop.call.acts) or (attends and call.rate == drop.call.rate == 0.0):
            return None
        reason = self._obstacle(drop, watch)
        if reason:
            return _unset(drop, name, call.rate, reason)
        return DropoutSite(
            name=name,
            kind=drop.kind,
            rate=call.rate,
            calls=1,
            how="interception",
            module=drop.module,
            operation=drop.operation,
            ordinal=drop.ordinal,
        )

    def _attribute(self, drop: Drop, path: str, attribute: str) -> DropoutSite:
        name = attribute_name(self.modules[path], path, attribute)
        rate = self.held[path, attribute]
        own = drop.attribute is None and is_path(self.modules[path])
        kind = "path" if own else drop.kind
        return DropoutSite(name, kind, rate, 1, "attribute", path, attribute)

    def _obstacle(self, drop: Drop, watch: Watch) -> str:
        """Why a functional dropout cannot be intercepted, "" where it can."""
        if drop.checkpointed:
            return (
                "it runs in a function that its module checkpoints, whose second run, in the "
                "backward pass, would be out of reach; make a module of what is checkpointed"
            )
        key = (drop.module, drop.number, drop.operation)
        if self.plain.counts[key] != watch.counts[key]:
            return "how often its module drops depends on other rates"
        return ""


def _is_near(tag: float, drawn: float | None) -> bool:
    """Whether a mask has zeros at the rate of a tag; where it has ones, the tag may be of keeps."""
    return drawn is not None and abs(drawn - tag) < 1e-9


def _key(drop: Drop) -> tuple[str, int, str, int]:
    return drop.module, drop.number, drop.operation, drop.ordinal


def _functional_name(drop: Drop) -> str:
    call = f"{drop.operation}()" if drop.ordinal == 1 else f"{drop.operation}()#{drop.ordinal}"
    return f"{drop.module}.{call}" if drop.module else call


def _unset(drop: Drop, name: str, rate: float | None, reason: str) -> DropoutSite:
    return DropoutSite(name, drop.kind, rate, 1, "none", drop.module, reason=reason)

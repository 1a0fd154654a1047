"""The sites of a model by their names alone, where no example input is at hand to run it."""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import nn

from depthscale.practice.dropping.adapters import attribute_name, candidates, whole_rate
from depthscale.practice.dropping.inserted import PREFIX
from depthscale.practice.dropping.sites import DropoutSite

_CALL = re.compile(r"(?:(?P<module>.+)\.)?(?P<operation>\w+)\(\)(?:#(?P<ordinal>\d+))?")


def site_named(modules: dict[str, nn.Module], name: str) -> DropoutSite | None:
    """The site that ``dropout_sites`` would give this name, None where there can be none.

    ``modules`` are those of the model, by path. The name tells what holds the rate; whether the
    place drops when the model runs, and of which kind it is, it does not tell.
    """
    if name in modules:
        return _of_module(modules[name], name)
    path, _, attribute = name.rpartition(".")
    if path in modules and (path, attribute) in candidates({path: modules[path]}):
        rate = float(getattr(modules[path], attribute) or 0.0)
        return DropoutSite(name, "other", rate, 1, "attribute", path, attribute)
    call = _CALL.fullmatch(name)
    if call is None or (call["module"] or "") not in modules:
        return None
    return DropoutSite(
        name=name,
        kind="other",
        rate=None,
        calls=1,
        how="interception",
        module=call["module"] or "",
        operation=call["operation"],
        ordinal=int(call["ordinal"] or 1),
    )


def _of_module(module: nn.Module, path: str) -> DropoutSite | None:
    whole = whole_rate(module)
    if whole is not None and whole[0]:
        rate = float(getattr(module, whole[0]) or 0.0)
        return DropoutSite(path, whole[1], rate, 1, "attribute", path, whole[0])
    if isinstance(module, nn.Identity):
        reason = "an nn.Identity stands where the model would drop; build it with a rate above 0"
        return DropoutSite(path, "other", 0.0, 1, "none", path, reason=reason)
    return None


def other_names(modules: dict[str, nn.Module], names: Collection[str]) -> list[str]:
    """Names of the modules that drop as a whole, and of inserted sites, that are not in names."""
    others = []
    for path, attribute in candidates(modules):
        whole = whole_rate(modules[path])
        name = attribute_name(modules[path], path, attribute)
        sure = attribute.startswith(PREFIX) or (whole is not None and whole[0] == attribute)
        if sure and name not in names:
            others.append(name)
    return others

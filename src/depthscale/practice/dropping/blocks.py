"""Sites by kind and by block, and schedules over blocks spread over the sites of each block."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from depthscale.answers import InputError, some
from depthscale.practice.dropping.sites import DropoutSite
from depthscale.practice.schedule import Schedule

BRANCHES: dict[str, tuple[str, ...]] = {
    "attention": ("attention", "projection"),
    "mlp": ("mlp",),
    "both": ("attention", "projection", "mlp"),
}
"""Kinds of the sites in each branch of a transformer block, for ``spread``.

A site that drops in both, as the shared dropout of Hugging Face's ViT, has the kind of its first
call, "projection": such a model has no branches to tell apart, but for its attention weights.
"""

# "3", or a name that ends so, as in torchvision's encoder_layer_3; not "dropout1".
_NUMBER = re.compile(r"(?:(.*)_)?(\d+)")
_LISTED = 6

_Key = tuple[str, ...]


def by_kind(sites: Iterable[DropoutSite]) -> dict[str, tuple[DropoutSite, ...]]:
    """Sites of each kind, kinds in the order in which they first drop."""
    found: dict[str, list[DropoutSite]] = {}
    for site in sites:
        found.setdefault(site.kind, []).append(site)
    return {kind: tuple(members) for kind, members in found.items()}


def by_block(sites: Iterable[DropoutSite]) -> tuple[tuple[DropoutSite, ...], ...]:
    """Sites of each block [block][site], blocks in order of execution; others are left out."""
    given = tuple(sites)
    blocks = block_numbers(given)
    count = 1 + max(block for block in blocks if block is not None)
    return tuple(
        tuple(site for site, block in zip(given, blocks, strict=True) if block == number)
        for number in range(count)
    )


def block_numbers(sites: Iterable[DropoutSite]) -> tuple[int | None, ...]:
    """The block of each site, from 0 in order of execution; None for a site outside of blocks.

    A block is told from the path of the site's module: up to the first number that differs between
    sites with the same path before it (``encoder.layer.3`` in ``encoder.layer.3.output.dropout``,
    ``encoder_layer_3``). Embeddings and heads have none. Where no number differs, sites that share
    their first number are one block. Stages that hold blocks (``layers.0.blocks.1``) count as
    blocks, as the first number is theirs: give ``spread`` the blocks of such a model.

    Raises:
        InputError: no sites, no numbers in any path, or numbers that do not say which is the block.

    Example:
        >>> names = ("embed.drop", "blocks.0.attn", "blocks.0.mlp.2", "blocks.1.attn")
        >>> sites = [DropoutSite(name, "mlp", 0.1, 1, "attribute", name, "p") for name in names]
        >>> block_numbers(sites)
        (None, 0, 0, 1)
    """
    paths = [tuple(site.module.split(".")) for site in sites]
    if not paths:
        raise InputError("no sites, so no blocks; give sites that dropout_sites found")
    values: dict[_Key, set[str]] = defaultdict(set)
    for path in paths:
        for stem, number in _numbers(path):
            values[stem].add(number)
    varying = {stem for stem, numbers in values.items() if len(numbers) > 1}
    if not varying:
        varying = _only_block(paths)
    keys = [_key(path, varying) for path in paths]
    order = {key: place for place, key in enumerate(dict.fromkeys(key for key in keys if key))}
    return tuple(order[key] if key else None for key in keys)


def spread(
    schedule: Any,
    sites: Iterable[DropoutSite],
    kinds: str | Iterable[str] | None = None,
    *,
    others: float | None = 0.0,
    blocks: Sequence[int | None] | None = None,
) -> list[float]:
    """Rates, one a site: that of its block for sites of the chosen kinds, ``others`` for the rest.

    Args:
        schedule: one rate in [0, 1) a block, or an object with such an attribute ``rates``.
        sites: of ``dropout_sites``, in order of execution.
        kinds: kinds that follow the schedule, such as ``BRANCHES["attention"]``; None: all.
        others: rate of sites of other kinds and outside of blocks; None: each keeps its own.
        blocks: the block of each site, None for outside; by default ``block_numbers(sites)``.

    Raises:
        InputError: rates out of range, more or fewer than blocks, a kind that no site in a block
            has, blocks that cannot be told, or a site whose own rate is unknown and should be kept.

    Example:
        >>> names = ("embed.drop", "blocks.0.attn", "blocks.0.mlp.2", "blocks.1.attn")
        >>> sites = [DropoutSite(name, "mlp", 0.1, 1, "attribute", name, "p") for name in names]
        >>> spread([0.2, 0.3], sites)
        [0.0, 0.2, 0.2, 0.3]
    """
    given = tuple(sites)
    numbers = block_numbers(given) if blocks is None else _checked_blocks(blocks, given)
    rates = Schedule(getattr(schedule, "rates", schedule)).rates
    _check_length(rates, given, numbers)
    chosen = _chosen_kinds(kinds, given, numbers)
    if others is not None:
        (others,) = Schedule((others,)).rates
    return [
        _other(site, others)
        if block is None or (chosen is not None and site.kind not in chosen)
        else rates[block]
        for site, block in zip(given, numbers, strict=True)
    ]


def _numbers(path: _Key) -> Iterable[tuple[_Key, str]]:
    """Every number in a path, after what stands before it."""
    for place, part in enumerate(path):
        found = _NUMBER.fullmatch(part)
        if found:
            yield (*path[:place], found[1] or ""), found[2]


def _key(path: _Key, varying: set[_Key]) -> _Key:
    """The path of the block that a path lies in, () for none."""
    return next(((*stem, number) for stem, number in _numbers(path) if stem in varying), ())


def _only_block(paths: Sequence[_Key]) -> set[_Key]:
    """Where the number of the one block stands, if there is one block."""
    first = {found[0] for path in paths if (found := next(iter(_numbers(path)), None))}
    if len(first) == 1:
        return first
    listed = some((repr(".".join(path)) for path in paths), _LISTED)
    why = (
        "no number differs between them, and they start with different ones"
        if first
        else "their modules have no number in their paths"
    )
    raise InputError(
        f"the blocks of the sites in {listed} cannot be "
        f"told: {why}; give the block of each site, as spread(..., blocks=[...]) takes it"
    )


def _checked_blocks(
    blocks: Sequence[int | None], sites: tuple[DropoutSite, ...]
) -> tuple[int | None, ...]:
    numbers = tuple(blocks)
    if len(numbers) != len(sites):
        raise InputError(f"{len(numbers)} blocks for {len(sites)} sites; give the block of each")
    used = {number for number in numbers if number is not None}
    if not used or used != set(range(len(used))):
        raise InputError(
            f"blocks are {list(numbers)!r}; expected numbers from 0 on that leave none out, or None"
        )
    return numbers


def _check_length(
    rates: Sequence[float], sites: tuple[DropoutSite, ...], blocks: tuple[int | None, ...]
) -> None:
    first = {
        block: site.name
        for site, block in reversed([*zip(sites, blocks, strict=True)])
        if block is not None
    }
    if len(rates) != len(first):
        names = [first[block] for block in sorted(first)]
        raise InputError(
            f"{len(rates)} rates for {len(names)} blocks, which start at "
            f"{some(names, _LISTED)}; give one rate for each block"
        )


def _chosen_kinds(
    kinds: str | Iterable[str] | None,
    sites: tuple[DropoutSite, ...],
    blocks: tuple[int | None, ...],
) -> tuple[str, ...] | None:
    if kinds is None:
        return None
    chosen = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    inside = [site for site, block in zip(sites, blocks, strict=True) if block is not None]
    there = [*by_kind(inside)]
    if not chosen:
        raise InputError(f"no kinds were chosen; expected some of {', '.join(there)}")
    for kind in chosen:
        if kind not in there:
            close = difflib.get_close_matches(kind, there, n=1)
            raise InputError(
                f"no site in a block is of kind {kind!r}; expected one of {', '.join(there)}"
                + (f" (did you mean {close[0]!r}?)" if close else "")
            )
    return chosen


def _other(site: DropoutSite, rate: float | None) -> float:
    if rate is not None:
        return rate
    if site.rate is None:
        raise InputError(
            f"site {site.name!r} cannot keep its rate, which is unknown: {site.reason}; leave it "
            "out of the sites"
        )
    return site.rate

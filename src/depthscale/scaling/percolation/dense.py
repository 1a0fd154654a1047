"""64 realisations in the bits of a word, a word for each site: lattices that are full of activity.

A step sorts the bits of the parents, so that the first tells whether one is active at all and the
last whether all are, and asks of each number of active parents its own coins. Random bits take
nine tenths of the time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from depthscale.scaling.percolation.automata import Automaton
from depthscale.scaling.percolation.blocks import Times
from depthscale.scaling.percolation.coins import BITS, SEGMENT, Coins, Stream, Words
from depthscale.theory.gaussian import Array

Start = Literal["full", "half"]

Observed = Literal["active", "walls"]

AT_ONCE = 4096
"""Words of state that numpy is given at a time, about: below it calls cost more than work."""

MOST_BLOCKS = 32
"""Side by side: each keeps random bits for many steps, and those of more leave the cache."""

_COUNTED = 255
"""Bits that a byte can count."""


class _Term(NamedTuple):
    """At least ``fewest`` and fewer than ``limit`` active parents (None: any) ask these coins."""

    fewest: int
    limit: int | None
    coin: int


class Lattices:
    """Some blocks of 64 realisations on periodic lattices, side by side.

    Args:
        automaton: the model.
        length: sites along an edge.
        seeds: one for each block.
        start: ``"full"``, all sites active, or ``"half"``, each with probability 1/2.
        weather: another model on the same lattice that a step follows instead with probability
            1/2, all sites and realisations of a block at once.
    """

    def __init__(
        self,
        automaton: Automaton,
        length: int,
        seeds: Sequence[SeedSequence],
        start: Start,
        weather: Automaton | None = None,
    ) -> None:
        self._streams = [Stream.of(seed) for seed in seeds]
        self._axes = tuple(range(1, automaton.dimension + 1))
        self._sites = automaton.sites(length)
        self._terms, chances = _terms(automaton.chances)
        self._coins = Coins(chances)
        self._other = None if weather is None else Coins(_terms(weather.chances)[1])
        self._tossed = max(1, SEGMENT // self._sites)  # steps
        self._step = 0
        # the first slice of every axis once more behind the last: parents are views then
        self._words = np.empty((len(seeds), *[length + 1] * automaton.dimension), dtype=np.uint64)
        inside = [slice(None), *[slice(0, length)] * automaton.dimension]
        self._inside = self._words[tuple(inside)]
        self._parents = [
            self._words[(slice(None), *(slice(o, o + length) for o in offset))]
            for offset in automaton.geometry.offsets
        ]
        self._inside[...] = ~np.uint64(0)
        if start == "half":
            for words, stream in zip(self._inside, self._streams, strict=True):
                words[...] = stream.words.random_raw(self._sites).reshape(words.shape)
        self._close()

    def step(self) -> None:
        """One step of all of them."""
        place = self._step % self._tossed
        if place == 0:
            self._bits = np.stack([self._coming(stream) for stream in self._streams])
        self._step += 1
        bits = self._bits[:, :, place]
        ranked = _ranked(self._parents) if self._terms != [(1, None, 0)] else [_any(self._parents)]
        active: Words | None = None
        for term in self._terms:
            chosen = ranked[term.fewest - 1] & bits[:, term.coin]
            if term.limit is not None:
                chosen &= ~ranked[term.limit - 1]
            active = chosen if active is None else np.bitwise_or(active, chosen, out=active)
        self._inside[...] = 0 if active is None else active
        self._close()

    def _coming(self, stream: Stream) -> Words:
        """Coins of one block for the next steps, ``[coin, step, *site]``."""
        count = self._tossed * self._sites
        shape = (-1, self._tossed, *self._inside.shape[1:])
        bits = self._coins.toss(stream, count).reshape(shape)
        if self._other is not None:
            turned = stream.words.random_raw(self._tossed) >> np.uint64(63) == 1
            bits[:, turned] = self._other.toss(stream, count).reshape(shape)[:, turned]
        return bits

    def _close(self) -> None:
        """Make the lattice periodic again."""
        for axis in self._axes:
            ends = np.moveaxis(self._words, axis, 0)
            ends[-1] = ends[0]

    def count(self, observed: Observed) -> NDArray[np.int64]:
        """Active sites, or pairs of neighbours of which one is, for each realisation."""
        words = self._inside
        if observed == "walls":
            words = self._parents[0] ^ self._parents[1]
        return _counted(words.reshape(len(words), -1)).ravel()

    @property
    def dead(self) -> bool:
        """No site is active in any realisation."""
        return not self._inside.any()


def histories(
    seeds: Sequence[SeedSequence],
    automaton: Automaton,
    length: int,
    times: Times,
    start: Start,
    observed: Observed,
    weather: Automaton | None = None,
) -> Array:
    """Densities at ``times``, ``[realisation, time]``, 64 realisations for each seed."""
    lattices = Lattices(automaton, length, seeds, start, weather)
    density = np.zeros((len(seeds) * BITS, len(times)))
    for k, (before, now) in enumerate(itertools.pairwise([0, *times.tolist()])):
        for _ in range(now - before):
            lattices.step()
        density[:, k] = lattices.count(observed) / automaton.sites(length)
        if lattices.dead:
            break
    return density


def same_steps(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether models of these chances differ in their coins alone."""
    return _terms(one)[0] == _terms(other)[0]


def _terms(chances: tuple[float, ...]) -> tuple[list[_Term], list[float]]:
    """Which numbers of active parents share a chance, and the chances that are not 0."""
    runs = [(p, len(list(equal))) for p, equal in itertools.groupby(chances)]
    terms: list[_Term] = []
    positive: list[float] = []
    fewest = 1
    for p, members in runs:
        limit = fewest + members
        if p > 0:
            terms.append(_Term(fewest, limit if limit <= len(chances) else None, len(positive)))
            positive.append(p)
        fewest = limit
    return terms, positive


def _ranked(parents: Sequence[Words]) -> list[Words]:
    """The bits of the parents in falling order, by neighbours that change places."""
    bits = list(parents)
    for last in range(len(bits) - 1, 0, -1):
        for k in range(last):
            bits[k], bits[k + 1] = bits[k] | bits[k + 1], bits[k] & bits[k + 1]
    return bits


def _any(parents: Sequence[Words]) -> Words:
    found = parents[0] | parents[1]
    for more in parents[2:]:
        np.bitwise_or(found, more, out=found)
    return found


def _counted(words: Words) -> NDArray[np.int64]:
    """How often each bit is on, from ``[block, word]`` to ``[block, bit]``."""
    total = np.zeros((len(words), BITS), dtype=np.int64)
    for k in range(0, words.shape[1], _COUNTED):
        # little-endian bytes, so that bit k of a word is the k-th that is unpacked anywhere
        some = np.ascontiguousarray(words[:, k : k + _COUNTED]).astype("<u8").view(np.uint8)
        bits = np.unpackbits(some, bitorder="little").reshape(len(words), -1, BITS)
        total += bits.sum(axis=1, dtype=np.uint8)
    return total

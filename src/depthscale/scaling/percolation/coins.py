"""Random bits of given probabilities, 64 to a word, exact to the last bit of the probability.

A uniform number is compared with the first ``planes`` binary digits of a probability digit by
digit, for 64 numbers at once: one logical operation on a word of fair bits for each digit. What is
left of the probability, below ``2^-planes``, concerns so few bits that they are drawn one by one,
as the places of a Poisson process: places that are independent, the same one possibly twice, switch
on every bit with probability ``1 - e^-rate``, each for itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import SFC64, Generator, SeedSequence
from numpy.typing import NDArray

Words = NDArray[np.uint64]

BITS = 64
"""In a word."""

SEGMENT = 16_384
"""Words that are drawn at a time: 128 kB, which stay in the cache. A part of what a seed means."""

_FAIR, _LOGIC, _PLACE, _SET = 2.1, 0.4, 8.0, 12.0
"""Nanoseconds for a word of fair bits, a logical operation on it, a place, and to set its bit.

As measured with numpy 2.4; they decide how many planes there are, nothing else.
"""

_MOST_PLANES = 16


class Stream(NamedTuple):
    """The randomness of one block: fair bits by the word, and places."""

    words: SFC64
    places: Generator

    @classmethod
    def of(cls, seed: SeedSequence) -> Stream:
        """The stream that a seed begins."""
        words, places = seed.spawn(2)
        return cls(SFC64(words), Generator(SFC64(places)))


class Coins:
    """Words of independent bits that are on with given probabilities.

    Bits of different words and at different places are independent. Those of two probabilities at
    the same place are not, they compare the same uniform number.

    Args:
        chances: the probabilities, in [0, 1].
        planes: binary digits that are compared, 0 to 30; None: as many as take the least time.
    """

    def __init__(self, chances: Sequence[float], planes: int | None = None) -> None:
        if planes is None:
            planes = min(range(_MOST_PLANES + 1), key=lambda k: _cost(chances, k))
        self.planes = planes
        self._digits = [_digits(p, planes) for p in chances]
        self._compared = _compared(chances, planes)
        self._rates = _rates(chances, planes)

    def toss(self, stream: Stream, count: int) -> Words:
        """``count`` words for each probability, ``[probability, word]``."""
        out = np.empty((len(self._digits), count), dtype=np.uint64)
        for start in range(0, count, SEGMENT):
            segment = out[:, start : start + SEGMENT]
            self._compare(stream, segment)
            self._add_places(stream, segment)
        return out

    def _compare(self, stream: Stream, out: Words) -> None:
        """From the last digit to the first, which has the last word."""
        for words, digits in zip(out, self._digits, strict=True):
            words[...] = ~np.uint64(0) if digits >> self.planes else 0
        for plane in self._compared:
            fair = stream.words.random_raw(out.shape[1])
            for words, digits in zip(out, self._digits, strict=True):
                if digits >> plane & 1:
                    np.bitwise_or(words, fair, out=words)
                elif digits & ((1 << plane) - 1):
                    np.bitwise_and(words, fair, out=words)

    def _add_places(self, stream: Stream, out: Words) -> None:
        bits = BITS * out.shape[1]
        for rate, members in self._rates:
            place = stream.places.integers(
                0, bits, stream.places.poisson(rate * bits), dtype=np.uint32
            )
            bit = np.uint64(1) << (place % BITS).astype(np.uint64)
            for k in members:
                np.bitwise_or.at(out[k], place // BITS, bit)


def _digits(chance: float, planes: int) -> int:
    """The first binary digits of a probability, as a whole number."""
    return math.floor(math.ldexp(chance, planes))


def _compared(chances: Sequence[float], planes: int) -> range:
    """The planes from the last digit that is a one, of any probability inside (0, 1)."""
    inside = [d for d in (_digits(p, planes) for p in chances) if 0 < d < 1 << planes]
    return range(min(((d & -d).bit_length() - 1 for d in inside), default=planes), planes)


def _rates(chances: Sequence[float], planes: int) -> list[tuple[float, list[int]]]:
    """Rates of places, and whose they are: common ones first, then what larger rates lack."""
    rates = np.array([_rate(p, planes) for p in chances])
    order = np.argsort(rates)
    steps = np.diff(rates[order], prepend=0.0)
    return [(float(step), order[k:].tolist()) for k, step in enumerate(steps) if step > 0]


def _rate(chance: float, planes: int) -> float:
    """Of the places that turn what the digits give into the probability."""
    given = math.ldexp(_digits(chance, planes), -planes)
    return 0.0 if given >= chance else -math.log1p(-(chance - given) / (1 - given))


def _cost(chances: Sequence[float], planes: int) -> float:
    """Nanoseconds a word, about."""
    compared = len(_compared(chances, planes)) * (_FAIR + _LOGIC * len(chances))
    placed = sum(rate * (_PLACE + _SET * len(members)) for rate, members in _rates(chances, planes))
    return compared + BITS * placed

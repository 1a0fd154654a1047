"""What a site update of directed percolation costs: bits of words against bytes, with its floor.

Nanoseconds of one core for a site and step: 64 realisations in a word; the random bits of it alone,
which set the floor; and plain numpy, one byte a site and one 32-bit random number a bond or site.
Spreading from one site is by lists of active sites, its unit an active site and step.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.random import SFC64, Generator, SeedSequence

from _record import cpu_seconds, save
from depthscale.scaling.percolation import (
    Automaton,
    decay,
    directed_percolation,
    domany_kinzel,
    spaced_times,
    spread,
)
from depthscale.scaling.percolation.coins import BITS, Coins, Stream

CASES = [
    (directed_percolation(), 4096, 512),
    (directed_percolation(), 256, 512),
    (directed_percolation(), 65_536, 64),
    (directed_percolation(kind="site"), 4096, 512),
    (domany_kinzel(0.5, 1.0), 4096, 512),
    (directed_percolation(lattice="bcc"), 256, 64),
    (directed_percolation(lattice="cubic"), 256, 64),
    (directed_percolation(kind="site", lattice="bcc"), 256, 64),
]


def plain(model: Automaton, length: int, steps: int, realisations: int, seed: int = 0) -> float:
    """One byte a site, in rows of one realisation."""
    generator = Generator(SFC64(seed))
    axes = tuple(range(1, model.dimension + 1))
    state = np.ones((realisations, *[length] * model.dimension), dtype=np.uint8)
    chances = np.array([0.0, *model.chances], dtype=np.float32)
    for _ in range(steps):
        parents = [np.roll(state, [-k for k in offset], axes) for offset in model.geometry.offsets]
        if model.name.startswith("bond"):
            p = np.float32(model.p)
            state = parents[0] & (generator.random(state.shape, dtype=np.float32) < p)
            for parent in parents[1:]:
                state |= parent & (generator.random(state.shape, dtype=np.float32) < p)
        else:
            number = sum(parents[1:], parents[0])
            state = (generator.random(state.shape, dtype=np.float32) < chances[number]).view(
                np.uint8
            )
    return float(state.mean())


def floor(model: Automaton, words: int) -> float:
    """Seconds for the random bits of so many words."""
    coins = Coins([p for k, p in enumerate(model.chances) if p not in model.chances[:k]])
    stream = Stream.of(SeedSequence(1))
    piece = 1 << 14
    pieces = max(words // piece, 1)
    seconds = cpu_seconds(lambda: [coins.toss(stream, piece) for _ in range(pieces)])
    return seconds * words / (pieces * piece)


def main() -> None:
    rows = []
    for model, length, steps in CASES:
        sites = model.sites(length)
        times = spaced_times(steps, 1)
        realisations = BITS * max(1, 4096 // sites)
        updates = sites * steps * realisations
        ours = cpu_seconds(partial(decay, model, length, times, realisations))
        few = max(1, 65_536 // sites)  # where numpy is fastest
        bytewise = cpu_seconds(partial(plain, model, length, 16, few)) / (sites * 16 * few)
        bits = floor(model, updates // BITS) / updates
        rows.append(
            {
                "model": model.name,
                "length": length,
                "ns_per_site": 1e9 * ours / updates,
                "ns_random_bits": 1e9 * bits,
                "random_share": bits * updates / ours,
                "ns_plain_numpy": 1e9 * bytewise,
                "ratio": bytewise * updates / ours,
            }
        )
    for lattice in ("square", "bcc"):
        model = directed_percolation(lattice=lattice)
        times = np.arange(257)
        active = spread(model, times, 2048).number.sum()
        seconds = cpu_seconds(partial(spread, model, [256], 2048))
        rows.append(
            {"model": f"{model.name}, from one site", "ns_per_active_site": 1e9 * seconds / active}
        )
    save("percolation", rows)


if __name__ == "__main__":
    main()

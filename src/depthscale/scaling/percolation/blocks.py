"""Blocks of realisations, each from a seed of its own, on one process or several.

What comes out depends on the seed and the number of realisations alone: a block is the same
whichever others are computed beside it, and a run of fewer realisations is the start of a longer
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import ArrayLike, NDArray

from depthscale.answers import InputError
from depthscale.progress import progress_bar
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_numbers, whole

Times = NDArray[np.int64]

_MOST = 10**8
"""Realisations of a run."""

Work = Callable[[Sequence[SeedSequence]], Array]
"""From the seeds of some blocks to ``[realisation, ...]``."""


def realised(
    work: Work,
    block: int,
    realisations: int,
    seed: int,
    *,
    together: int,
    workers: int,
    progress: bool | None,
    label: str,
) -> Array:
    """So many realisations, ``[realisation, ...]``.

    Args:
        work: computes some blocks.
        block: realisations of each.
        realisations: how many are asked for.
        seed: a whole number; block ``k`` has the seed sequence of spawn key ``(k,)``.
        together: blocks that ``work`` is given at a time, at most.
        workers: processes.
        progress: whether to show it; None: on a terminal.
        label: for the progress bar.
    """
    seeds = [SeedSequence(seed, spawn_key=(k,)) for k in range(-(-realisations // block))]
    together = min(together, -(-len(seeds) // workers))
    tasks = [seeds[k : k + together] for k in range(0, len(seeds), together)]
    found = []
    with progress_bar(label, realisations, shown=progress) as advance:
        for values in _in_order(work, tasks, workers):
            found.append(values)
            advance(len(values))
    return np.concatenate(found)[:realisations]


def _in_order(work: Work, tasks: list[list[SeedSequence]], workers: int) -> Iterator[Array]:
    """What comes of the tasks, by their order, as soon as it is there."""
    if workers == 1 or len(tasks) == 1:
        yield from map(work, tasks)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(workers, backend="loky", return_as="generator", inner_max_num_threads=1)
    yield from parallel(delayed(work)(task) for task in tasks)


def whole_times(times: ArrayLike) -> Times:
    """Whole times in ascending order, from 0 on.

    Raises
    ------
    InputError
        None at all, times that are negative, fractional, repeated or out of order.
    """
    values = np.atleast_1d(as_numbers("times", times))
    good = values.ndim == 1 and values.size and np.all(np.isfinite(values))
    if not (good and np.all(values == np.floor(values)) and values[0] >= 0):
        raise InputError(f"times is {times!r}; expected whole numbers of steps, from 0 on")
    if np.any(np.diff(values) <= 0):
        raise InputError(f"times is {times!r}; expected them in ascending order, each once")
    if values[-1] > 1e9:
        raise InputError(f"the last of times is {values[-1]:g}; expected at most 1e9 steps")
    return values.astype(np.int64)


def counts(realisations: object, seed: object, workers: object) -> tuple[int, int, int]:
    """The three as whole numbers; ``InputError`` for others, or for more than 1e8 realisations."""
    number = whole("realisations", realisations, 1)
    if number > _MOST:
        raise InputError(f"realisations = {number}: expected at most {_MOST}, which are kept")
    return number, whole("seed", seed, 0), whole("workers", workers, 1, "processes")


def spaced_times(last: int, per_octave: int = 4, first: int = 1) -> Times:
    """Whole times from ``first`` to ``last``, about evenly spaced in their logarithm.

    Raises
    ------
    InputError
        ``last`` before ``first``, or a number that is none.

    Examples
    --------
    >>> spaced_times(16, per_octave=1)
    array([ 1,  2,  4,  8, 16])
    """
    first = whole("first", first, 1, "steps")
    last = whole("last", last, first, "steps")
    per_octave = whole("per_octave", per_octave, 1)
    number = max(round(per_octave * np.log2(last / first)), 1)
    return np.unique(np.round(np.geomspace(first, last, number + 1)).astype(np.int64))

"""Numbered blocks of work on several processes, results by their order."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")

TASK = 0.25
"""Seconds of work, about, that a process is given at a time."""


def shared_out(
    work: Callable[[range], list[Result]], blocks: range, workers: int
) -> Iterator[Result]:
    """What ``work`` returns for some blocks, one by one, as soon as it is there.

    The first block is done here, which tells how many make a task.
    """
    from joblib import Parallel, delayed

    start = time.monotonic()
    yield from work(blocks[:1])
    each = max(1, min(int(TASK / (time.monotonic() - start)), len(blocks) // (4 * workers)))
    tasks = (blocks[k : k + each] for k in range(1, len(blocks), each))
    parallel = Parallel(workers, backend="loky", return_as="generator", inner_max_num_threads=1)
    with warnings.catch_warnings():
        # a process whose memory has grown by 300 MB, as for a wide layer, is replaced between tasks
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        for results in parallel(delayed(work)(task) for task in tasks):
            yield from results

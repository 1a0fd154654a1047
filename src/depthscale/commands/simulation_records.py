"""What ``depthscale simulate`` answers: statistics by layer, and why some do not exist."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from depthscale.commands.output import plain
from depthscale.commands.simulation_theory import theory_beside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from depthscale.finite.ensemble import Ensemble, Pair
    from depthscale.finite.sampled import Sampled
    from depthscale.finite.streaming import Moments

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

SCHEMA = "depthscale.simulation/1"
FORWARD = ("q", "eps")
GRADIENTS = ("grad_aa", "grad_ab", "grad_ab_abs")
KERNELS = ("ntk_aa", "ntk_ab")
QUANTILES = {"q05": 0.05, "median": 0.5, "q95": 0.95}
VALUES = ("mean", "sem")
LOGS = ("log_abs_mean", "log_sem", "mean_log", "sem_mean_log", "var_log", "sem_var_log")
_OF_LOG = {
    "log_abs_mean": "mean",
    "log_sem": "standard error",
    "log_q05": "5 % quantile",
    "log_median": "median",
    "log_q95": "95 % quantile",
}
MOST_STRETCHES = 6  # of layers, in a reason
SCATTER = ("sem", "log_sem", "sem_mean_log", "var_log", "sem_var_log")


def simulation_record(
    networks: Ensemble,
    pair: Pair,
    result: Sampled,
    settings: dict[str, Any],
    run: dict[str, Any],
) -> dict[str, Any]:
    """Everything about a simulation, ready for JSON.

    Keys: ``layer`` and ``hop``; for each observable an object of statistics, arrays over layers
    (``q`` of the first input, ``eps``) or hops (``grad_aa``, ``grad_ab``, ``grad_ab_abs``), single
    numbers for ``ntk_aa`` and ``ntk_ab``, logarithms being those of absolute values; ``dead``, by
    layer the networks in which a signal has become 0; ``theory``, see ``theory_beside``;
    ``settings``; the engine and its reason; and ``reasons`` for whatever is null, by the dotted key
    of the number or of its list.
    """
    from depthscale.theory.records import with_reasons

    reasons: dict[str, str] = {}
    names = [*FORWARD, *GRADIENTS, *(name for name in KERNELS if name in result.names)]
    observed: dict[str, Any] = dict.fromkeys(names)
    for name in names:
        if name in result.names:
            observed[name] = _statistics(result, name, reasons)
        else:
            reasons[name] = "no gradients were sent back; give --backward"
    depth = result.depth
    payload = with_reasons(
        {
            "schema": SCHEMA,
            "settings": settings,
            "layer": list(range(depth + 1)),
            "hop": list(range(depth)),
            **observed,
            "dead": _dead(result).tolist(),
            "theory": theory_beside(networks, pair, settings["loss"], result, reasons),
            **run,
        }
    )
    payload["reasons"] = {**reasons, **payload["reasons"]}
    return payload


def _statistics(result: Sampled, name: str, reasons: dict[str, str]) -> dict[str, Any]:
    """All statistics of one observable, of the first input or pair."""
    import numpy as np

    from depthscale.finite.signed import plain as as_plain

    moments = result.tally.moments(name)
    found = {key: getattr(moments, key)[0] for key in (*VALUES, *LOGS)}
    signs, logs = result.tally.sketch(name).signed_quantile(list(QUANTILES.values()))
    for key, sign, log in zip(QUANTILES, signs[:, 0], logs[:, 0], strict=True):
        found |= {key: as_plain(sign, log), f"log_{key}": log}
    single = name in KERNELS
    along = "" if single else "hop" if name in GRADIENTS else "layer"
    absent = _absences(result, name, moments)
    record: dict[str, Any] = {}
    for key, values in found.items():
        reason = _gaps(key, np.asarray(values), moments, absent, along)
        if reason:
            reasons[f"{name}.{key}"] = reason
        numbers = plain(values.tolist())
        record[key] = numbers[0] if single else numbers
    for key, counts in (("count", moments.count[0]), ("zeros", moments.zeros[0])):
        record[key] = int(counts[0]) if single else counts.tolist()
    return record


def _absences(result: Sampled, name: str, moments: Moments) -> list[tuple[Mask, str]]:
    """Where an observable exists in no network, and why."""
    import numpy as np

    nowhere = moments.count[0] == 0
    far = [(nowhere, "it leaves the range of float64 in every network")]
    if name != "eps":
        return far
    lengths = result.tally.moments("q").count
    zero = np.asarray(nowhere & (lengths == result.nets).all(axis=0))
    return [(zero, "a signal is exactly 0 in every network"), *far]


def _gaps(
    key: str, values: Array, moments: Moments, absent: list[tuple[Mask, str]], along: str
) -> str:
    """Why some of these values do not exist, by stretches of layers."""
    import numpy as np

    missing = ~np.isfinite(values)
    if not missing.any():
        return ""
    count, zeros = moments.count[0], moments.zeros[0]
    nonzero = count - zeros
    takes_log = key in ("mean_log", "sem_mean_log", "var_log", "sem_var_log")
    causes = [*absent]
    if takes_log:
        causes.append((nonzero == 0, "it is 0 in every network, which has no logarithm"))
    if key in SCATTER:
        one = "one network alone has no scatter"
        causes.append(((nonzero if takes_log else count) == 1, one))
    if key.startswith("log_"):
        causes.append((values == -np.inf, f"the {_OF_LOG[key]} is 0, which has no logarithm"))
    causes.append((missing, f"beyond the range of float64{_instead(key)}"))
    texts = []
    for where, text in causes:
        here = missing & where
        missing = missing & ~where
        if here.any():
            at = f"{_stretches(np.flatnonzero(here).tolist(), along)}: " if along else ""
            texts.append(at + text)
    return "; ".join(texts)


def _instead(key: str) -> str:
    return {
        "mean": "; log_abs_mean has its logarithm",
        "sem": "; log_sem has its logarithm",
    }.get(key, f"; log_{key} has its logarithm" if key in QUANTILES else "")


def _stretches(places: list[int], along: str) -> str:
    """Places as words, the first ones where there are many.

    >>> _stretches([0, 3, 4, 5], "layer")
    'layer 0, 3 to 5'
    """
    breaks = [k for k, (a, b) in enumerate(pairwise(places), start=1) if b != a + 1]
    runs = [places[a:b] for a, b in pairwise([0, *breaks, len(places)])]
    words = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    if len(words) > MOST_STRETCHES:
        words[MOST_STRETCHES:] = [f"... ({len(places)} in all)"]
    return f"{along} {', '.join(words)}"


def _dead(result: Sampled) -> NDArray[np.int64]:
    """By layer, in how many networks one of the two signals is exactly 0: eps exists in none."""
    import numpy as np

    lengths = result.tally.moments("q").count.min(axis=0)
    return np.asarray(lengths - result.tally.moments("eps").count[0])

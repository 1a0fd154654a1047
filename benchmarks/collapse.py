"""Data collapse against fssa, jaxfss and BSA: time, accuracy and stated errors, all in one run.

    python benchmarks/collapse.py --peers PYTHON --bsa PROGRAM

``--peers`` (or the variable COLLAPSE_PEERS) is an interpreter that has fssa and jaxfss, default
this one; ``--bsa`` (COLLAPSE_BSA) is the program ``new_bfss`` of K. Harada's toolkit BSA, folder
CC2, built as its documentation says. Tools that are not there are named and left out.

Everyone gets the same data with 1 % noise and the same start, 10 % of the range off with exponents
times 1.3 and 1.5. Bias and root mean square error are in units of the least error that any fit
without knowledge of the curve can have. ``rms_ours`` is that of depthscale on the seeds of the
row. An answer more than 10 such units off in any parameter counts as astray, and stays in. Times
are processor seconds of one thread, medians. Every tool runs as its documentation has it, and in
settings that we found to serve it better:

* fssa: ``autoscale``; and its measure of quality, minimised to 1e-5 in two rounds (no errors);
* jaxfss: 10,000 steps of Adam at 1e-3 and the loss and network of its example (mean square,
  rational activations); the likelihood, which weighs points by their errors; and that with the
  plain network, which is faster;
* BSA: the most probable parameters with all defaults; with the extra noise theta0 held at 0, since
  errors are known here; and with the Monte Carlo that alone tells errors (``-c``), up to a limit.

Required of depthscale: a fit 5, 50 and 100 times faster than fssa, jaxfss and BSA, and more
accurate on the DP-like set; 200 resamples within 3 s. ``fit alone`` is what the others do, a search
from the given start, for every family of curves; ``collapse`` is the whole answer with its global
search, stability windows, effective exponents and warnings.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
os.environ.update(THREADS)  # before numpy starts its threads

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import numpy as np  # noqa: E402

from _record import save  # noqa: E402
from depthscale.scaling.collapse import collapse  # noqa: E402
from depthscale.scaling.families import best_fits, coarse, weights  # noqa: E402
from depthscale.scaling.fit import Problem, solve  # noqa: E402
from depthscale.scaling.form import Form  # noqa: E402
from depthscale.scaling.points import as_points  # noqa: E402
from scaling_truth import DP, ISING, Law, Synthetic, draw, least_errors  # noqa: E402

FACTORS = (1.3, 1.5)
NAMES = ("Tc", "c1", "c2")
LAWS = (DP, ISING)
ASTRAY = 10.0
REQUIRED = {"fssa": 5, "jaxfss": 50, "BSA": 100}


@dataclass(frozen=True)
class Answer:
    """What a tool said: parameters and errors in the order of ``NAMES``, NaN where it said none."""

    values: np.ndarray
    errors: np.ndarray
    seconds: float
    failure: str = ""

    @classmethod
    def none(cls, seconds: float, failure: str) -> Answer:
        return cls(np.full(3, np.nan), np.full(3, np.nan), seconds, failure)


Fitter = Callable[[Synthetic, int], Answer]


@dataclass(frozen=True)
class Entry:
    """A tool in one setting, and on how many seeds of which sets it runs."""

    tool: str
    setting: str
    fit: Fitter
    seeds: int
    laws: tuple[Law, ...] = LAWS


# depthscale --------------------------------------------------------------------------------------


def whole(**options: Any) -> Fitter:
    def fit(data: Synthetic, seed: int) -> Answer:
        start = time.process_time()
        found = collapse(
            data.table,
            data.form,
            **data.named(),
            start=data.law.start(*FACTORS),
            **options,
        )
        seconds = time.process_time() - start
        estimates = [found[name] for name in NAMES]
        return Answer(
            np.array([e.value for e in estimates]), np.array([e.error for e in estimates]), seconds
        )

    return fit


def alone(data: Synthetic, seed: int) -> Answer:
    """From the start given, without any other: average and errors over all curves."""
    begin, start = data.law.start(*FACTORS), time.process_time()
    form = Form.parse(data.form, list(data.law.grid))
    problem = Problem(as_points(data.table, **data.named(), variables=form.variables), form)
    place = np.array([begin[name] for name in problem.names])
    first = solve(problem, coarse(problem, place), place)
    if first is None:
        return Answer.none(time.process_time() - start, "no value at the start")
    fits = best_fits(problem, first.free)
    share = weights(fits)
    middle = share @ np.array([fit.free for fit in fits])
    apart = share @ np.array([(fit.free - middle) ** 2 for fit in fits])
    noise = share @ np.array([np.diag(fit.covariance) for fit in fits])
    order = [problem.names.index(name) for name in NAMES]
    seconds = time.process_time() - start
    return Answer(middle[order], np.sqrt(apart + noise)[order], seconds)


# The peers ---------------------------------------------------------------------------------------


class Peers:
    """fssa and jaxfss, behind an interpreter that has them."""

    def __init__(self, python: str):
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("_collapse_peers.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.versions: dict[str, str] = json.loads(self._line())

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the interpreter of the peers ended with {self.process.wait()}")
        return line

    def has(self, peer: str) -> bool:
        return not self.versions[peer].startswith("missing")

    def fitter(self, peer: str, setting: str) -> Fitter:
        def fit(data: Synthetic, seed: int) -> Answer:
            start = data.law.start(*FACTORS)
            task = {
                **{name: data.table[name].tolist() for name in ("L", "T", "m", "error")},
                "peer": peer,
                "setting": setting,
                "start": [start[name] for name in NAMES],
                "seed": seed,
            }
            assert self.process.stdin is not None
            print(json.dumps(task), file=self.process.stdin, flush=True)
            found = json.loads(self._line())
            if "failure" in found:
                return Answer.none(found["seconds"], found["failure"])
            errors = np.array(found.get("errors", [math.nan] * 3), dtype=float)
            return Answer(np.array(found["values"], dtype=float), errors, found["seconds"])

        return fit


LINE = re.compile(r"^# p\[(\d)\] = (\S+)(?: (\S+))?", re.MULTILINE)


def bsa(program: str, *options: str, theta: tuple[str, ...] = (), limit: int = 200) -> Fitter:
    """BSA writes ``A = L^c2 F[(T - Tc) L^c1]``; a parameter is given as a mask and a start.

    ``limit`` is in processor seconds.
    """

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))

    def fit(data: Synthetic, seed: int) -> Answer:
        start = data.law.start(*FACTORS)
        places = [start["Tc"], start["c1"], -start["c2"]]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "data"
            columns = [data.table[name] for name in ("L", "T", "m", "error")]
            np.savetxt(file, np.stack(columns, axis=1), fmt="%.16e")
            given = [word for place in places for word in ("1", f"{place:.12g}")]
            began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            ran = subprocess.run(
                [program, *options, str(file), *given, *theta],
                capture_output=True,
                text=True,
                preexec_fn=limited,
            )
        seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began
        if ran.returncode < 0:
            return Answer.none(seconds, f"no answer after {limit} s")
        rows = {int(k): (float(v), float(e or "nan")) for k, v, e in LINE.findall(ran.stdout)}
        if ran.returncode or len(rows) < 3:
            return Answer.none(seconds, f"ended with {ran.returncode}, without an answer")
        values, errors = (np.array([rows[k][j] for k in range(3)]) for j in range(2))
        return Answer(values * [1, 1, -1], errors, seconds)

    return fit


def commit(program: str) -> str | None:
    """Of the checkout that the program lies in."""
    words = ["git", "-C", str(Path(program).resolve().parent), "rev-parse", "HEAD"]
    ran = subprocess.run(words, capture_output=True, text=True)
    return ran.stdout.strip() or None


# The table ---------------------------------------------------------------------------------------


def entries(peers: Peers, program: str | None, few: int) -> Iterator[Entry]:
    """Everyone who takes part; with a few seeds only if ``few`` is not 0."""

    def count(seeds: int) -> int:
        return min(seeds, few) if few else seeds

    yield Entry("depthscale", "collapse", whole(), count(100))
    yield Entry("depthscale", "fit alone", alone, count(100))
    yield Entry("depthscale", "200 resamples", whole(resamples=200), count(12))
    if peers.has("fssa"):
        yield Entry("fssa", "autoscale", peers.fitter("fssa", "autoscale"), count(24))
        yield Entry("fssa", "quality to 1e-5", peers.fitter("fssa", "quality"), count(8))
    if peers.has("jaxfss"):
        settings = {"MSELoss RationalMLP": 4, "NLLLoss RationalMLP": 10, "NLLLoss MLP": 10}
        for setting, seeds in settings.items():
            yield Entry("jaxfss", setting, peers.fitter("jaxfss", setting), count(seeds))
    if program:
        known = ("0", "0")
        yield Entry("BSA", "defaults", bsa(program), count(1))
        yield Entry("BSA", "theta0 = 0", bsa(program, theta=known), count(4))
        if not few:
            sampled = bsa(program, "-c", theta=known, limit=40)
            yield Entry("BSA", "theta0 = 0, -c", sampled, 1, (DP,))


def rounded(values: Any) -> list[float | None]:
    return [float(f"{v:.3g}") if math.isfinite(v) else None for v in np.asarray(values).tolist()]


def row(law: Law, entry: Entry, answers: list[Answer], ours: list[Answer]) -> dict[str, Any]:
    """Of one tool on one set; ``ours`` are those of depthscale, on more seeds."""
    truth = np.array([law.truth[name] for name in NAMES])
    errors = least_errors(draw(law, 0))
    least = np.array([errors[name] for name in NAMES])
    off = np.array([answer.values - truth for answer in answers]) / least
    stated = np.array([answer.errors for answer in answers]) / least
    there = np.isfinite(off).all(axis=1)
    seconds = [a.seconds for a, found in zip(answers, there, strict=True) if found]
    result: dict[str, Any] = {
        "set": law.name,
        "tool": entry.tool,
        "setting": entry.setting,
        "fits": len(answers),
        "failed": int((~there).sum()),
        "cpu_s": median(seconds or [a.seconds for a in answers]),
    }
    if there.any():
        known = there & np.isfinite(stated).all(axis=1)
        kept = off[there]
        result |= {
            "astray": int((np.abs(kept) > ASTRAY).any(axis=1).sum()),
            "bias": rounded(kept.mean(axis=0)),
            "rms": rounded(np.sqrt((kept**2).mean(axis=0))),
        }
        if entry.tool != "depthscale":
            same = [a for a, found in zip(ours, there, strict=False) if found]
            miss = (np.array([answer.values for answer in same]) - truth) / least
            result["rms_ours"] = rounded(np.sqrt((miss**2).mean(axis=0)))
        result["with_errors"] = int(known.sum())
        if known.any():
            inside = np.abs(off[known]) < stated[known]
            result["coverage"] = rounded(inside.mean(axis=0))
            result["stated_error"] = rounded(stated[known].mean(axis=0))
    reasons = sorted({answer.failure for answer in answers if answer.failure})
    return result | ({"failures": reasons} if reasons else {})


def ratios(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Times of each peer's fastest setting without a failure over ours, by set."""
    found: dict[str, Any] = {}
    for law in LAWS:
        of_set = [r for r in rows if r["set"] == law.name]
        if not of_set:
            continue
        ours = {r["setting"]: r["cpu_s"] for r in of_set if r["tool"] == "depthscale"}
        found[law.name] = {"s_200_resamples": round(ours["200 resamples"], 3)}
        for tool, required in REQUIRED.items():
            sound = [r for r in of_set if r["tool"] == tool and not r["failed"]]
            if sound:
                best = min(sound, key=lambda r: r["cpu_s"])
                found[law.name][tool] = {
                    "setting": best["setting"],
                    "fit_alone": round(best["cpu_s"] / ours["fit alone"], 1),
                    "collapse": round(best["cpu_s"] / ours["collapse"], 1),
                    "required": required,
                }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peers", default=os.environ.get("COLLAPSE_PEERS", sys.executable))
    parser.add_argument("--bsa", default=os.environ.get("COLLAPSE_BSA"))
    parser.add_argument("--few", type=int, default=0, help="seeds at most, DP-like only; not saved")
    given = parser.parse_args()
    rows = []
    began = time.process_time()
    with Peers(given.peers) as peers:
        for law in LAWS[:1] if given.few else LAWS:
            ours: list[Answer] = []
            for entry in entries(peers, given.bsa, given.few):
                if law not in entry.laws:
                    continue
                answers = [entry.fit(draw(law, seed), seed) for seed in range(entry.seeds)]
                ours = ours or answers
                rows.append(row(law, entry, answers, ours))
                print(json.dumps(rows[-1]), flush=True)
        versions = {**peers.versions, "BSA": commit(given.bsa) if given.bsa else "missing"}
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts = {
        "least_errors": {law.name: least_errors(draw(law, 0)) for law in LAWS},
        "starts": {law.name: law.start(*FACTORS) for law in LAWS},
        "jaxfss_steps": 10_000,
        "peer_versions": versions,
        "ratios": ratios(rows),
        "total_cpu_s": round(time.process_time() - began + children.ru_utime),
    }
    if given.few:
        print(json.dumps(facts, indent=1))
    else:
        save("collapse", rows, **facts)


if __name__ == "__main__":
    main()

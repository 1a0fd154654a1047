"""Print a benchmark's rows and keep them as data with what made them."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


def cpu_seconds(run: Callable[[], Any], repeats: int = 3) -> float:
    """Median CPU seconds of a call after one warm-up; the machine may be shared."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return median(times)


def save(name: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    """Write ``results/name.json`` atomically and print the rows."""
    record = {
        "command": f"python benchmarks/{Path(sys.argv[0]).name}",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": {p: _version(p) for p in ("depthscale", "numpy", "scipy", "torch", "dks")},
        **facts,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)
    for row in rows:
        print(
            "  ".join(
                f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            )
        )
    for key, value in facts.items():
        print(f"{key}: {value}")
    print(f"-> {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

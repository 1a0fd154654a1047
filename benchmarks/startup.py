"""What a command line costs before it works: wall seconds of fresh processes, medians of 7.

The requirement is `depthscale --help` under 0.5 s. The empty interpreter is the measured limit;
`import torch` is what eager imports would have cost.
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from _record import save

THEORY = "--activation tanh --sigma-w 1.409 --sigma-b 0.3162 --drop 0.0001 --json"
COMMANDS = {
    "empty interpreter": ["-c", "pass"],
    "depthscale --help": ["-m", "depthscale", "--help"],
    "import depthscale": ["-c", "import depthscale"],
    "depthscale theory --json": ["-m", "depthscale", "theory", *THEORY.split()],
    "import torch": ["-c", "import torch"],
}


def seconds(arguments: list[str]) -> float:
    times = []
    for _ in range(8):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return median(times[1:])


def main() -> None:
    rows = [{"command": name, "wall_s": seconds(args)} for name, args in COMMANDS.items()]
    floor = rows[0]["wall_s"]
    for row in rows:
        row["over_empty"] = row["wall_s"] / floor  # type: ignore[operator]
    save("startup", rows)


if __name__ == "__main__":
    main()

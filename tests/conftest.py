"""One thread per test process, the same examples in every run, and commands as tests run them."""

from __future__ import annotations

import json
import os
import sys

# Before numpy or torch is imported anywhere: two intra-op threads on a loaded machine are far
# slower than one, and a sum over threads isn't reproducible to the last digit.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# A test's time varies with the load of the machine, its verdict must not: no deadline.
settings.register_profile("depthscale", deadline=None, derandomize=True)
settings.load_profile("depthscale")


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command in an empty folder; return code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    from depthscale import cli

    def command(line: str) -> tuple[int, str, str]:
        code = cli.main(line.split())
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


@pytest.fixture
def answer(run):
    """Run the command with --json; return the exit code and the object."""

    def command(line: str) -> tuple[int, dict]:
        def refuse(constant: str):
            raise AssertionError(f"{constant} is not JSON")

        code, out, _ = run(f"{line} --json")
        return code, json.loads(out, parse_constant=refuse)

    return command

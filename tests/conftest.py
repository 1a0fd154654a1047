"""One thread per test process, and property tests that draw the same examples in every run."""

from __future__ import annotations

import os

# Before numpy or torch is imported anywhere: two intra-op threads on a loaded machine are far
# slower than one, and a sum over threads isn't reproducible to the last digit.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

from hypothesis import settings  # noqa: E402

# A test's time varies with the load of the machine, its verdict must not: no deadline.
settings.register_profile("depthscale", deadline=None, derandomize=True)
settings.load_profile("depthscale")

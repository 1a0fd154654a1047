"""Other tools for data collapse, in the interpreter that has them; ``collapse.py`` starts this.

Reads one task a line from standard input and answers with one line: the parameters, their errors
where the tool states any, and processor time. The first line tells versions. So the tools may have
an environment of their own, with ``pip install fssa jaxfss`` (which brings jax, flax, optax and
softclip along).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

LIMIT = 60  # processor seconds for one fit
STEPS, RATE, LAYERS = 10_000, 1e-3, [20, 20, 1]  # those of the documentation of jaxfss


# fssa --------------------------------------------------------------------------------------------


def shim() -> None:
    """Names that fssa 0.7.6 takes from libraries which have dropped them since.

    * ``numpy.asfarray`` and ``numpy.int``, gone from numpy 2.0 and 1.24: arrays of floats, ``int``;
    * the module ``scipy.optimize.optimize``, private since scipy 1.8: ``OptimizeResult``, the texts
      ``_status_message`` of how a search ended, and ``wrap_function(f, args)``, which counts calls;
    * ``pkg_resources``, gone from setuptools 82: asked for the version of fssa only.
    """
    import scipy.optimize

    vars(np).update(asfarray=lambda values: np.asarray(values, dtype=float), int=int)

    def counted(function: Callable[..., float], args: tuple[Any, ...]) -> Any:
        calls = [0]

        def call(x: Any) -> float:
            calls[0] += 1
            return function(x, *args)

        return calls, call

    texts = dict.fromkeys(("success", "maxfev", "maxiter"), "")
    old = types.ModuleType("scipy.optimize.optimize")
    old.__dict__.update(
        OptimizeResult=scipy.optimize.OptimizeResult, _status_message=texts, wrap_function=counted
    )
    sys.modules["scipy.optimize.optimize"] = old
    if "pkg_resources" not in sys.modules:
        packages = types.ModuleType("pkg_resources")
        packages.__dict__["get_distribution"] = lambda _: types.SimpleNamespace(
            version=version("fssa")
        )
        sys.modules["pkg_resources"] = packages


def fssa_fit(task: dict[str, Any]) -> dict[str, Any]:
    """``L^(zeta/nu) f(L^(1/nu) (rho - rho_c))``: its search, or its measure alone."""
    import fssa
    from scipy.optimize import minimize

    sizes, x = np.unique(task["L"]), np.unique(task["T"])
    shape = len(sizes), len(x)
    y, error = (np.reshape(task[name], shape) for name in ("m", "error"))
    tc, c1, c2 = task["start"]
    first = tc, 1 / c1, -c2 / c1
    if task["setting"] == "autoscale":
        found = fssa.autoscale(sizes, x, y, error, *first)
        place, covariance = found["x"], found["varco"]
    else:

        def quality(p: Any) -> float:
            return float(fssa.quality(*fssa.scaledata(sizes, x, y, error, *p)))

        place, covariance = np.asarray(first), np.full((3, 3), np.nan)
        for _ in range(2):  # a fresh simplex gets past a collapsed one
            place = minimize(
                quality,
                place,
                method="Nelder-Mead",
                options={"xatol": 1e-5, "fatol": 1e-5, "maxfev": 1000},
            ).x
    _, nu, zeta = place
    slopes = np.array([[1, 0, 0], [0, -1 / nu**2, 0], [0, zeta / nu**2, -1 / nu]])
    spread = np.diag(slopes @ covariance @ slopes.T)
    return {
        "values": [place[0], 1 / nu, -zeta / nu],
        "errors": np.sqrt(np.where(spread > 0, spread, np.nan)).tolist(),
    }


# jaxfss ------------------------------------------------------------------------------------------


def jaxfss_fit(task: dict[str, Any]) -> dict[str, Any]:
    """As its examples have it: a small network and Adam; its errors it does not tell.

    ``fit`` compiles anew at every call, which is part of what it costs.
    """
    import jax
    import jax.numpy as jnp
    import jaxfss
    import optax
    from softclip import SoftClip

    loss_name, network_name = task["setting"].split()
    columns = (jnp.asarray(task[name], dtype=jnp.float32) for name in ("L", "T", "m", "error"))
    data = jaxfss.CriticalData(*columns)
    rows = data.train_data
    network = {"MLP": jaxfss.MLP, "RationalMLP": jaxfss.RationalMLP}[network_name](features=LAYERS)
    positive, inside = SoftClip(low=0.0), SoftClip(low=-1.0, high=1.0)
    tc, c1, c2 = (jnp.float32(value) for value in task["start"])

    def loss(parameters: Any) -> Any:
        a, b, c = parameters["fss"]
        c1, c2, tc = positive.forward(a), positive.forward(b), inside.forward(c)
        scale = rows["system_size"] ** c2
        curve = network.apply(
            parameters["mlp"], (rows["temperature"] - tc) * rows["system_size"] ** c1
        )
        if loss_name == "MSELoss":
            return jaxfss.MSELoss(rows["observable"] * scale, curve)
        return jaxfss.NLLLoss(rows["observable"] * scale, curve, rows["observable_var"] * scale**2)

    places = (
        positive.inverse(c1),
        positive.inverse(c2),
        inside.inverse(data.bij_temperature.forward(tc)),
    )
    start = {
        "mlp": network.init(jax.random.PRNGKey(task["seed"]), jnp.ones((1, 1))),
        "fss": jnp.stack(places),
    }
    found, _, _ = jaxfss.fit(loss, optax.adam(RATE), start, STEPS)
    a, b, c = found["fss"]
    tc = data.bij_temperature.inverse(jnp.asarray(inside.forward(c)))
    return {"values": [float(tc), float(positive.forward(a)), float(positive.forward(b))]}


# The loop ----------------------------------------------------------------------------------------

FITS = {"fssa": fssa_fit, "jaxfss": jaxfss_fit}


def versions() -> dict[str, str]:
    """Of the tools that can be imported, and what the others fail with."""
    found = {}
    for name in ("numpy", "scipy", "jax"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    for name in FITS:
        try:
            __import__(name)
            found[name] = version(name)
        except Exception as error:
            found[name] = f"missing: {error}"
    return found


def late(*_: Any) -> None:
    raise TimeoutError(f"no answer after {LIMIT} s")


def answer(line: str) -> dict[str, Any]:
    task = json.loads(line)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    start = time.process_time()
    try:
        found = FITS[task["peer"]](task)
    except Exception as error:  # whatever another tool breaks with is a result here
        found = {"failure": f"{type(error).__name__}: {error}"}
    signal.setitimer(signal.ITIMER_PROF, 0)
    return {**found, "seconds": time.process_time() - start}


def main() -> None:
    warnings.simplefilter("ignore")
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the tools print is not an answer
    signal.signal(signal.SIGPROF, late)
    shim()
    print(json.dumps(versions()), file=channel, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(line)), file=channel, flush=True)


if __name__ == "__main__":
    main()

"""The law of a stochastic limit, by the solver that suits the question."""

from __future__ import annotations

from dataclasses import replace

from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.finite.diffusion.alignment_paths import Jumps, sample_unshaped
from depthscale.finite.diffusion.density import density
from depthscale.finite.diffusion.equation import Equation
from depthscale.finite.diffusion.law import DensityLaw, Law, SampleLaw
from depthscale.finite.diffusion.paths import sample
from depthscale.finite.diffusion.unshaped import Unshaped
from depthscale.theory.alignment_equation import AlignmentEquation

ENGINES = ("density", "paths")
"""The solvers; None chooses."""


def limit_law(
    equation: Equation | AlignmentEquation,
    start: float,
    times: ArrayLike,
    *,
    jumps: Jumps | None = None,
    engine: str | None = None,
    paths: int = 100_000,
    seed: int = 0,
) -> Law:
    """The law of ``du = drift(u) dt + s dB`` at given times.

    One equation without jumps has a density, which is computed without noise and in less than a
    second; jumps are sampled. ``Law.solver`` says which, how and why.

    Parameters
    ----------
    equation:
        A stochastic limit; an ``AlignmentEquation`` is taken as ``Unshaped``.
    start:
        ``u`` at time 0, or the infinity at which the equation has an entrance: ``inf`` for unshaped
        networks, where ``u = log y``.
    times:
        Shape (T,), increasing, positive.
    jumps:
        Of ``y``, in place of the field of an unshaped network (``Jumps.of(limit.drops)``).
    engine:
        "density", "paths", or None for the one that suits.
    paths, seed:
        For paths.

    Raises
    ------
    InputError
        An engine that does not exist or cannot answer, jumps of an equation that has none, and what
        the solvers refuse.

    Examples
    --------
    >>> import numpy as np
    >>> from depthscale.finite.diffusion.shaped import ShapedReLU
    >>> found = limit_law(ShapedReLU(0.0, -1.0), np.arctanh(0.3), 0.5)
    >>> print(found.mean("rho").value.round(4), found.sd("rho").value.round(4))
    [0.3084] [0.5003]
    """
    if isinstance(equation, AlignmentEquation):
        equation = Unshaped(equation)
    if engine is not None and engine not in ENGINES:
        raise InputError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}, or None")
    if jumps is not None:
        if not isinstance(equation, Unshaped):
            raise InputError(
                f"jumps of {type(equation).__name__}: only unshaped networks have jumps, of y;"
                " leave them out"
            )
        if engine == "density":
            raise InputError("engine is 'density', which has no jumps; expected 'paths' or None")
        jumped = sample_unshaped(equation, start, times, jumps=jumps, paths=paths, seed=seed)
        return _because(jumped, "jumps are sampled")
    if engine == "paths":
        return _because(sample(equation, start, times, paths=paths, seed=seed), "asked for")
    why = "asked for" if engine else "one dimension without jumps"
    return _because(density(equation, start, times), why)


def _because(found: DensityLaw | SampleLaw, why: str) -> Law:
    """The law with the reason for its solver."""
    return replace(found, solver=f"{found.solver}; chosen: {why}")

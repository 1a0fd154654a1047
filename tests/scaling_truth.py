"""Scaling data whose truth is known: laws, draws from them, and the least errors that they allow.

A :class:`Law` is a scaling form with its true exponents and master curve. ``draw`` measures it with
independent or correlated errors, on full or ragged grids, with or without a correction to scaling;
``realisations`` gives the raw runs instead. ``least_errors`` is the bound that no unbiased fit can
beat without knowing the master curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

Array = NDArray[np.float64]
Columns = Mapping[str, Array]
Numbers = Mapping[str, float]


def softplus(x: Array) -> Array:
    """``ln(1 + e^x)/ln 2``, which is 1 at 0."""
    return np.asarray(np.logaddexp(0.0, x) / np.log(2.0))


# Laws --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """``y = amplitude prefactor F(arguments)``, the form's text, the truth and the grid to measure.

    ``grid`` holds the values of each variable, the size last; ``scale(columns, numbers)`` is the
    prefactor, ``arguments(columns, numbers)`` the arguments of ``master``. ``exponents`` are the
    parameters that are not the critical point.
    """

    name: str
    form: str
    truth: Numbers
    grid: Columns
    scale: Callable[[Columns, Numbers], Array]
    arguments: Callable[[Columns, Numbers], tuple[Array, ...]]
    master: Callable[..., Array]
    y: str = "m"
    x: str = "T"
    size: str = "L"
    critical: str = "Tc"

    @property
    def exponents(self) -> tuple[str, ...]:
        return tuple(name for name in self.truth if name != self.critical)

    def columns(self) -> dict[str, Array]:
        """The full grid as long columns, the size slowest."""
        names = list(self.grid)
        mesh = np.meshgrid(*(self.grid[name] for name in reversed(names)), indexing="ij")
        return {name: values.ravel() for name, values in zip(reversed(names), mesh, strict=True)}

    def exact(self, columns: Columns, numbers: Numbers | None = None) -> Array:
        """``y`` without noise, at the truth or at other parameters."""
        numbers = self.truth if numbers is None else numbers
        return self.scale(columns, numbers) * self.master(*self.arguments(columns, numbers))

    def start(self, *factors: float, off: float = 0.1) -> dict[str, float]:
        """A wrong start: the critical point ``off`` of the range away, exponents times ``factors``.

        One factor serves all exponents, otherwise there is one for each.
        """
        factors = factors * len(self.exponents) if len(factors) == 1 else factors
        start = dict(self.truth)
        start[self.critical] += off * float(np.ptp(self.grid[self.x]))
        for name, factor in zip(self.exponents, factors, strict=True):
            start[name] *= factor
        return start


def _shifted(columns: Columns, p: Numbers) -> Array:
    return (columns["T"] - p["Tc"]) * columns["L"] ** p["c1"]


ISING = Law(  # magnetisation of the square lattice: beta = 1/8, nu = 1
    name="Ising-like",
    form="m = L^-c2 * F((T - Tc)*L^c1)",
    truth=MappingProxyType({"Tc": 1.0, "c1": 1.0, "c2": 0.125}),
    grid={"T": np.linspace(0.96, 1.04, 31), "L": 2.0 ** np.arange(4, 9)},
    scale=lambda c, p: c["L"] ** -p["c2"],
    arguments=lambda c, p: (_shifted(c, p),),
    master=lambda x: (1 + np.exp(1.5 * x)) ** -0.25,
)

DELTA, NU_PARALLEL, BETA = 0.159464, 1.733847, 0.276486  # directed percolation in 1+1 dimensions

DP = Law(
    name="DP-like",
    form="m = L^-c2 * F((T - Tc)*L^c1)",
    truth=MappingProxyType({"Tc": 1.8, "c1": 1 / NU_PARALLEL, "c2": DELTA}),
    grid={"T": np.linspace(1.74, 1.86, 25), "L": 2.0 ** np.arange(5, 11)},
    scale=lambda c, p: 0.9 * c["L"] ** -p["c2"],
    arguments=lambda c, p: (_shifted(c, p),),
    master=lambda x: softplus(1.2 * x) ** BETA,
)

PEAK = Law(  # susceptibility: gamma/nu = 7/4, a lopsided peak off the critical point
    name="peak",
    form="chi = L^g * F((T - Tc)*L^c1)",
    truth=MappingProxyType({"Tc": 0.44, "c1": 1.0, "g": 1.75}),
    grid={"T": np.linspace(0.40, 0.48, 33), "L": np.array([12.0, 20.0, 32.0, 52.0, 84.0])},
    scale=lambda c, p: 0.1 * c["L"] ** p["g"],
    arguments=lambda c, p: (_shifted(c, p),),
    master=lambda x: (1 + np.tanh(x / 4) / 4) * (1 + (x - 0.4) ** 2 / 1.6) ** -0.875,
    y="chi",
)

CUMULANT = Law(  # a ratio without prefactor: curves cross at the critical point
    name="cumulant",
    form="U = F((T - Tc)*L^c1)",
    truth=MappingProxyType({"Tc": 2.269, "c1": 1.0}),
    grid={"T": np.linspace(2.2, 2.34, 29), "L": np.array([8.0, 16.0, 32.0, 64.0])},
    scale=lambda c, p: np.ones_like(c["L"]),
    arguments=lambda c, p: (_shifted(c, p),),
    master=lambda x: 0.61 - 0.5 * np.arctan(x) / np.pi,
    y="U",
)

SMEARED = Law(  # two variables: the detuning and a conjugate field
    name="smeared",
    form="m = L^-c2 * F((T - Tc)*L^c1, h*L^c3)",
    truth=MappingProxyType({"Tc": 1.8, "c1": 0.6, "c2": 0.25, "c3": 0.9}),
    grid={
        "T": np.linspace(1.74, 1.86, 13),
        "h": np.array([3e-4, 1e-3, 3e-3, 1e-2, 3e-2]),
        "L": 2.0 ** np.arange(4, 9),
    },
    scale=lambda c, p: c["L"] ** -p["c2"],
    arguments=lambda c, p: (_shifted(c, p), c["h"] * c["L"] ** p["c3"]),
    master=lambda x, u: (softplus(1.2 * x) ** 2 + u) ** 0.2,
)

LAWS = (ISING, DP, PEAK, CUMULANT, SMEARED)


def corrected(law: Law, a: float = 0.3, omega: float = 0.8, *, known: bool = False) -> Law:
    """The law times ``1 + a L^-omega``; ``omega`` is a parameter of the form unless ``known``."""
    power = f"{omega:g}" if known else "omega"
    return replace(
        law,
        name=f"{law.name}, corrected",
        form=f"{law.form} * (1 + a*L^-{power})",
        truth=MappingProxyType({**law.truth, "a": a} | ({} if known else {"omega": omega})),
        scale=lambda c, p: law.scale(c, p) * (1 + p["a"] * c[law.size] ** -p.get("omega", omega)),
    )


# Draws -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Synthetic:
    """One measurement of a law.

    Attributes
    ----------
    law:
        What was measured.
    table:
        Long columns: the law's variables, its ``y`` and ``error``, the standard errors.
    covariance:
        ``[point, point]`` of ``y``, diagonal unless errors were correlated.
    raw:
        Long columns of single runs, ``realisation`` among them, one number for a whole trajectory
        and never used twice; ``None`` where only means are known.
    """

    law: Law
    table: Columns
    covariance: Array
    raw: Columns | None = None

    @property
    def form(self) -> str:
        return self.law.form

    @property
    def truth(self) -> Numbers:
        return self.law.truth

    def named(self, uncertainty: str = "error") -> dict[str, Any]:
        """The keywords that say which column is which; ``uncertainty`` may be "realisation"."""
        return {
            "y": self.law.y,
            "x": self.law.x,
            "size": self.law.size,
            **({uncertainty: uncertainty} if uncertainty else {}),
        }


def draw(
    law: Law,
    seed: int,
    *,
    noise: float = 0.01,
    correlation: float = 0.0,
    along: str = "",
    ragged: bool = False,
) -> Synthetic:
    """Measure a law once.

    Args:
        law: the law.
        seed: of the noise and, where ragged, of the grid.
        noise: relative standard error.
        correlation: between neighbours along ``along``, in (-1, 1): of order 1 in the steps there
            (AR(1)), independent otherwise.
        along: the variable; the law's ``x`` if empty: errors are correlated along each curve.
        ragged: every curve has its own points of ``x``, and their number varies by a factor 2.
    """
    generator = np.random.default_rng(seed)
    columns = _ragged(law, generator) if ragged else law.columns()
    exact = law.exact(columns)
    error = noise * np.abs(exact)
    shape = _correlated(columns, along or law.x, correlation)
    y = exact + error * (np.linalg.cholesky(shape) @ generator.standard_normal(len(exact)))
    table = {**columns, law.y: y, "error": error}
    return Synthetic(law, table, shape * np.outer(error, error))


def realisations(
    law: Law, seed: int, *, runs: int = 200, noise: float = 0.01, correlation: float = 0.9
) -> Synthetic:
    """Raw runs: each is one trajectory through all sizes at fixed other variables.

    So a decay is measured, where the size is the time: points of one trajectory are correlated,
    ``correlation`` from one size to the next, and trajectories at other ``x`` are independent. The
    runs' noise is log-normal, hence skew, with mean 1. Their mean has the relative error ``noise``;
    ``error`` in the table is estimated from the runs, ``covariance`` is exact.

    Args:
        law: the law.
        seed: of the noise.
        runs: trajectories at each setting.
        noise: relative standard error of the mean of the runs.
        correlation: of the logarithms of neighbours along a trajectory, in [0, 1).
    """
    generator = np.random.default_rng(seed)
    columns = law.columns()
    exact = law.exact(columns)
    group = _group(columns, law.size)
    variance = np.log1p(runs * noise**2)
    logs = variance * _correlated(columns, law.size, correlation)
    values = np.empty((runs, len(exact)))
    for number in range(group.max() + 1):
        rows = np.flatnonzero(group == number)
        root = np.linalg.cholesky(logs[np.ix_(rows, rows)])
        normals = generator.standard_normal((runs, len(rows))) @ root.T
        values[:, rows] = exact[rows] * np.exp(normals - variance / 2)
    table = {
        **columns,
        law.y: values.mean(0),
        "error": values.std(0, ddof=1) / np.sqrt(runs),
    }
    raw = {name: np.tile(column, runs) for name, column in columns.items()}
    raw["realisation"] = (np.arange(runs)[:, None] * (group.max() + 1) + group).ravel()
    raw[law.y] = values.ravel()
    return Synthetic(law, table, np.expm1(logs) * np.outer(exact, exact) / runs, raw)


def _group(columns: Columns, along: str) -> NDArray[np.intp]:
    """Which points share everything but ``along``: the number of their line."""
    others = [values for name, values in columns.items() if name != along]
    return np.unique(np.stack(others), axis=1, return_inverse=True)[1].ravel()


def _correlated(columns: Columns, along: str, correlation: float) -> Array:
    """Correlation matrix of AR(1) noise in steps along one variable."""
    group = _group(columns, along)
    step = np.empty(len(group))
    for number in range(group.max() + 1):
        rows = np.flatnonzero(group == number)
        step[rows[np.argsort(columns[along][rows])]] = np.arange(len(rows))
    same = group[:, None] == group
    return np.where(same, correlation ** np.abs(step[:, None] - step), 0.0)


def _ragged(law: Law, generator: np.random.Generator) -> dict[str, Array]:
    """Every size has between half and all as many points, anywhere in the range of ``x``."""
    whole = law.columns()
    low, high = law.grid[law.x].min(), law.grid[law.x].max()
    kept = []
    for size in law.grid[law.size]:
        rows = np.flatnonzero(whole[law.size] == size)
        count = generator.integers(len(rows) // 2, len(rows) + 1)
        rows = np.sort(generator.choice(rows, count, replace=False))
        line = {name: values[rows] for name, values in whole.items()}
        line[law.x] = np.sort(generator.uniform(low, high, count))
        kept.append(line)
    return {name: np.concatenate([line[name] for line in kept]) for name in whole}


# The least errors --------------------------------------------------------------------------------


def least_errors(data: Synthetic) -> dict[str, float]:
    """Standard errors of the best unbiased fit that does not know the master curve.

    The Cramer-Rao bound ``((J' M J)^-1)_ii`` with the derivatives J of ``y`` in the parameters at
    the truth, and ``M = V^-1 - V^-1 A (A' V^-1 A)^-1 A' V^-1`` which takes out whatever a change of
    the master curve, in the span A of B-splines of the true arguments, would do as well: the fewest
    splines that follow the true curve, since every further one costs precision. Centred
    differences; derived here.
    """
    law, columns = data.law, data.table
    root = np.linalg.cholesky(np.linalg.inv(data.covariance)).T
    jacobian = []
    for name, value in law.truth.items():
        step = 1e-5 * max(abs(value), 0.1)
        up = law.exact(columns, {**law.truth, name: value + step})
        down = law.exact(columns, {**law.truth, name: value - step})
        jacobian.append((up - down) / (2 * step))
    span = _span(data, root)
    clean = root @ np.stack(jacobian, axis=1)
    clean -= span @ (span.T @ clean)
    errors = np.sqrt(np.diag(np.linalg.inv(clean.T @ clean)))
    return dict(zip(law.truth, errors.tolist(), strict=True))


def _span(data: Synthetic, root: Array) -> Array:
    """Orthonormal columns: what the fewest splines span that miss the exact data by chi^2 < 1."""
    law, columns = data.law, data.table
    scale = law.scale(columns, law.truth)[:, None]
    arguments = law.arguments(columns, law.truth)
    exact = root @ law.exact(columns)
    for coefficients in range(4, 40):
        basis = root @ (scale * _splines(arguments, coefficients))
        left, strength, _ = np.linalg.svd(basis, full_matrices=False)
        left = left[:, strength > 1e-9 * strength[0]]  # two-variable tiles may hold no data
        missed = exact - left @ (left.T @ exact)
        if missed @ missed < 1:
            return left
    raise ValueError(f"{law.name}: 40 splines do not follow the master curve")


def _splines(arguments: tuple[Array, ...], coefficients: int) -> Array:
    """Cubic B-splines of each argument, multiplied; their knots are dense near 0, as curves are."""
    product = np.ones((len(arguments[0]), 1))
    for values in arguments:
        near = np.arcsinh(values / np.median(np.abs(values)))
        inner = np.linspace(near.min(), near.max(), coefficients - 2)
        knots = np.concatenate([[inner[0]] * 3, inner, [inner[-1]] * 3])
        basis = BSpline.design_matrix(np.clip(near, inner[0], inner[-1]), knots, 3).toarray()
        product = (product[:, :, None] * basis[:, None, :]).reshape(len(values), -1)
    return product

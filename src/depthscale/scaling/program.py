"""Trees of formulas as straight programs whose values come with their exact derivatives.

A tree is written out once as a list of steps, equal parts only once. ``bind`` runs the steps that
hold no parameter; a call then runs the others, each with the derivatives by those parameters that
it depends on (forward mode).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from depthscale.answers import InputError
from depthscale.scaling.formula import Node
from depthscale.theory.gaussian import Array

Slopes = dict[int, Any]
"""Derivatives by the parameters of these numbers; those that are missing vanish."""


class Evaluated(NamedTuple):
    """A form at n points, with m arguments and p parameters.

    ``prefactor`` [n], ``arguments`` [m, n], ``d_prefactor`` [p, n], ``d_arguments`` [m, p, n];
    NaN where a value does not exist or is too large for float64, and in derivatives where they do
    not exist.
    """

    prefactor: Array
    arguments: Array
    d_prefactor: Array
    d_arguments: Array


class Step(NamedTuple):
    """``kind`` of the operation, the steps it works on, and its name or number."""

    kind: str
    on: tuple[int, ...]
    payload: str | float | int


class Program:
    """The steps of several trees, in an order in which each finds its operands done."""

    def __init__(self, trees: Sequence[Node], parameters: Sequence[str]) -> None:
        self.count = len(parameters)
        self.steps: list[Step] = []
        self.fixed: list[bool] = []  # whether a step depends on no parameter
        self._parameters = {name: k for k, name in enumerate(parameters)}
        self._known: dict[Step, int] = {}
        self.results = tuple(self._write(tree) for tree in trees)

    def _write(self, node: Node) -> int:
        """The step that holds the node's value."""
        if node.kind == "number":
            return self._step(Step("number", (), node.value))
        if node.kind == "name":
            if node.name in self._parameters:
                return self._step(Step("parameter", (), self._parameters[node.name]))
            return self._step(Step("column", (), node.name))
        on = tuple(self._write(part) for part in node.parts)
        kind = node.name if node.kind == "call" else node.kind
        if kind != "^" or self.fixed[on[1]]:
            return self._step(Step(kind, on, 0))
        # isolated whole numbers are no range to fit in: a fitted exponent needs a base >= 0
        base = self._step(Step("nonnegative", on[:1], 0))
        logarithm = self._step(Step("log or 0", (base,), 0))
        return self._step(Step("fitted ^", (base, on[1], logarithm), 0))

    def _step(self, step: Step) -> int:
        if step not in self._known:
            self._known[step] = len(self.steps)
            self.steps.append(step)
            self.fixed.append(step.kind != "parameter" and all(self.fixed[k] for k in step.on))
        return self._known[step]

    def bind(self, columns: Mapping[str, Array], count: int) -> Bound:
        """The program at ``count`` points, of which the columns hold one value each."""
        values: list[Any] = [None] * len(self.steps)
        with np.errstate(all="ignore"):
            for k, step in enumerate(self.steps):
                if step.kind == "column":
                    values[k] = columns[str(step.payload)]
                elif step.kind == "number":
                    values[k] = np.float64(step.payload)
                elif self.fixed[k]:
                    operands = [(values[j], _NONE) for j in step.on]
                    values[k] = _OPERATIONS[step.kind](*operands)[0]
        return Bound(self, values, count)


class Bound:
    """A program at given points: ``bound(parameter values)`` is ``Evaluated``."""

    def __init__(self, program: Program, values: list[Any], count: int) -> None:
        self._start = [(value, _NONE) for value in values]
        self._count, self._parameters = count, program.count
        self._results = program.results
        self._inputs = [
            (k, int(step.payload), {int(step.payload): np.float64(1)})
            for k, step in enumerate(program.steps)
            if step.kind == "parameter"
        ]
        self._steps = [
            (k, _OPERATIONS[step.kind], step.on)
            for k, step in enumerate(program.steps)
            if not program.fixed[k] and step.kind != "parameter"
        ]

    def __call__(self, values: Sequence[float] | Array) -> Evaluated:
        """Prefactor, arguments and their derivatives at these values of the parameters."""
        given = np.asarray(values, dtype=float)
        if given.shape != (self._parameters,):
            raise InputError(
                f"{given.size} values for the parameters; expected {self._parameters}, in order"
            )
        done = self._start.copy()
        for k, parameter, slopes in self._inputs:
            done[k] = (given[parameter], slopes)
        with np.errstate(all="ignore"):
            for k, operation, on in self._steps:
                done[k] = operation(*[done[j] for j in on])
        return self._collected([done[k] for k in self._results])

    def _collected(self, results: list[tuple[Any, Slopes]]) -> Evaluated:
        values = np.empty((len(results), self._count))
        slopes = np.zeros((len(results), self._parameters, self._count))
        for k, (value, by) in enumerate(results):
            values[k] = value
            for parameter, slope in by.items():
                slopes[k, parameter] = slope
        values[np.isinf(values)] = np.nan
        slopes[np.isinf(slopes)] = np.nan
        return Evaluated(values[0], values[1:], slopes[0], slopes[1:])


_NONE: Slopes = {}
_Pair = tuple[Any, Slopes]


def _scaled(slopes: Slopes, factor: Any) -> Slopes:
    return {k: slope * factor for k, slope in slopes.items()} if slopes else _NONE


def _sum(left: Slopes, right: Slopes) -> Slopes:
    if not (left and right):
        return left or right
    total = dict(left)
    for k, slope in right.items():
        total[k] = total[k] + slope if k in total else slope
    return total


def _add(a: _Pair, b: _Pair) -> _Pair:
    return a[0] + b[0], _sum(a[1], b[1])


def _subtract(a: _Pair, b: _Pair) -> _Pair:
    return a[0] - b[0], _sum(a[1], _scaled(b[1], -1.0))


def _negative(a: _Pair) -> _Pair:
    return -a[0], _scaled(a[1], -1.0)


def _multiply(a: _Pair, b: _Pair) -> _Pair:
    return a[0] * b[0], _sum(_scaled(a[1], b[0]), _scaled(b[1], a[0]))


def _divide(a: _Pair, b: _Pair) -> _Pair:
    value = a[0] / b[0]
    return value, _sum(_scaled(a[1], 1 / b[0]), _scaled(b[1], -value / b[0]))


def _power(a: _Pair, b: _Pair) -> _Pair:
    """With an exponent that depends on no parameter."""
    value = np.power(a[0], b[0])
    return value, _scaled(a[1], b[0] * np.power(a[0], b[0] - 1)) if a[1] else _NONE


def _fitted_power(a: _Pair, b: _Pair, logarithm: _Pair) -> _Pair:
    value, by_base = _power(a, b)
    return value, _sum(by_base, _scaled(b[1], value * logarithm[0]))


def _nonnegative(a: _Pair) -> _Pair:
    return np.where(a[0] >= 0, a[0], np.nan), a[1]


def _log_or_zero(a: _Pair) -> _Pair:
    """0 in place of log 0, whose product with ``0^b``, b > 0, it is; no slopes are asked for."""
    return np.where(a[0] == 0, 0.0, np.log(a[0])), _NONE


def _exp(a: _Pair) -> _Pair:
    value = np.exp(a[0])
    return value, _scaled(a[1], value)


def _log(a: _Pair) -> _Pair:
    return np.log(a[0]), _scaled(a[1], 1 / a[0])


def _sqrt(a: _Pair) -> _Pair:
    value = np.sqrt(a[0])
    return value, _scaled(a[1], 0.5 / value)


def _abs(a: _Pair) -> _Pair:
    return np.abs(a[0]), _scaled(a[1], np.sign(a[0]))


def _tanh(a: _Pair) -> _Pair:
    value = np.tanh(a[0])
    return value, _scaled(a[1], 1 - value**2)


_OPERATIONS: dict[str, Callable[..., _Pair]] = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "negative": _negative,
    "^": _power,
    "nonnegative": _nonnegative,
    "log or 0": _log_or_zero,
    "fitted ^": _fitted_power,
    "exp": _exp,
    "log": _log,
    "sqrt": _sqrt,
    "abs": _abs,
    "tanh": _tanh,
}

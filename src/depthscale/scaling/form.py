"""Scaling forms: a known prefactor times an unknown master function of known arguments."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, NoReturn

from depthscale.answers import InputError, some
from depthscale.scaling.formula import FUNCTIONS, Formula, Node, parse, plain_name
from depthscale.scaling.program import Bound, Evaluated, Program
from depthscale.theory.gaussian import Array
from depthscale.theory.records import as_numbers

_FOREIGN = {
    *("ln", "log2", "log10", "log1p", "expm1", "pow", "power", "max", "min", "fabs", "sign", "erf"),
    *("sin", "cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "arcsin", "arccos", "arctan"),
    *("asinh", "acosh", "atanh", "gamma"),
}
"""Functions of other languages, which nobody means as the name of a master function."""

_MOST_ARGUMENTS = 2


@dataclass(frozen=True)
class Role:
    """Where a parameter stands: an ``exponent``, a ``shift`` of a variable, or an ``amplitude``."""

    kind: str
    variable: str = ""


@dataclass(frozen=True)
class Form:
    """``y = prefactor * F(argument[, argument])`` with an unknown function F; see ``Form.parse``.

    Attributes
    ----------
    text:
        What was typed.
    measured:
        The name on the left-hand side, "" where there was none.
    function:
        The name of the master function.
    parameters, variables:
        In order of appearance; of the variables those that the form uses.
    prefactor, arguments:
        As trees. A scaled left-hand side has been moved to the right.
    """

    text: str
    measured: str
    function: str
    parameters: tuple[str, ...]
    variables: tuple[str, ...]
    prefactor: Node
    arguments: tuple[Node, ...]

    @classmethod
    def parse(cls, text: str, variables: Collection[str], measured: str | None = None) -> Form:
        """The form that a formula describes.

        Parameters
        ----------
        text:
            ``[left =] factor * F(argument[, argument]) * factor ...`` with ``+ - * /``, powers as
            ``^`` or ``**``, brackets, numbers and exp, log, sqrt, abs, tanh. F is the one called
            name that is none of these. The left side is a name, or a name times factors.
        variables:
            Names of the columns; all other names are parameters.
        measured:
            The column that the form is for; it must not occur on the right, and resolves which
            name of a scaled left-hand side is meant.

        Raises
        ------
        InputError
            What was expected, with a caret under the place.

        Examples
        --------
        >>> form = Form.parse("m = L^-c2 * F((T - Tc) * L^c1)", ["T", "L", "m"])
        >>> form.parameters, form.variables, form.function
        (('c2', 'Tc', 'c1'), ('L', 'T'), 'F')
        >>> form.prefactor_text, form.arguments_text
        ('L^-c2', ('(T - Tc) * L^c1',))
        >>> Form.parse("L^-c2 * G(T * L^c1", ["T", "L"])
        Traceback (most recent call last):
        ...
        depthscale.answers.InputError: this bracket is never closed
          L^-c2 * G(T * L^c1
                   ^
        """
        if isinstance(variables, str):
            raise InputError(f"variables are {variables!r}; expected a list of names")
        return _Reading(parse(text), variables, measured).form()

    @cached_property
    def program(self) -> Program:
        """The steps that evaluate the prefactor and the arguments."""
        return Program((self.prefactor, *self.arguments), self.parameters)

    def bind(self, columns: Mapping[str, Any]) -> Bound:
        """The form at these points: what needs no parameter is computed once.

        Parameters
        ----------
        columns:
            At least the ``variables``, one value a point.

        Returns
        -------
        Bound
            ``bound(values)`` is ``form.evaluate(columns, values)``.
        """
        missing = [name for name in self.variables if name not in columns]
        if missing:
            raise InputError(f"no column {missing[0]!r}; given are {', '.join(columns)}")
        used = {name: as_numbers(name, columns[name]) for name in self.variables}
        shapes = {name: column.shape for name, column in used.items()}
        if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
            raise InputError(f"columns of shapes {shapes}; expected equal lengths")
        return self.program.bind(used, len(used[self.variables[0]]))

    def evaluate(self, columns: Mapping[str, Any], values: Sequence[float] | Array) -> Evaluated:
        """Prefactor and arguments at these points and parameters, with exact derivatives.

        A power with a fitted exponent exists for bases >= 0 only. Elsewhere, and wherever a value
        does not exist or is too large for float64, it is NaN: an impossible place for a fit. At
        isolated places, such as ``abs(T - Tc)^b`` at ``T = Tc``, only derivatives may be NaN.

        Parameters
        ----------
        columns:
            At least the ``variables``, n values each.
        values:
            One for each of the ``parameters``, in order.

        Examples
        --------
        >>> form = Form.parse("L^-c * F((T - Tc)*L)", ["T", "L"])
        >>> found = form.evaluate({"T": [1.0, 3.0], "L": [2.0, 4.0]}, [0.5, 1.0])
        >>> found.arguments.tolist(), found.d_arguments[0].tolist()
        ([[0.0, 8.0]], [[0.0, 0.0], [-2.0, -4.0]])
        """
        return self.bind(columns)(values)

    @cached_property
    def roles(self) -> Mapping[str, Role]:
        """Where each parameter stands, the innermost place of several.

        >>> Form.parse("L^-c * F((T - Tc)*L)", ["T", "L"]).roles["Tc"]
        Role(kind='shift', variable='T')
        """
        roles = dict.fromkeys(self.parameters, Role("amplitude"))
        for tree in (self.prefactor, *self.arguments):
            for node in tree.walk():
                roles.update(self._roles_at(node))
        return roles

    def _roles_at(self, node: Node) -> Iterator[tuple[str, Role]]:
        if node.kind == "^":
            for name in node.parts[1].names() & set(self.parameters):
                yield name, Role("exponent")
        elif node.kind in ("+", "-"):
            one, other = (part.name if part.kind == "name" else "" for part in node.parts)
            for name, variable in ((one, other), (other, one)):
                if name in self.parameters and variable in self.variables:
                    yield name, Role("shift", variable)

    @cached_property
    def linear_parameters(self) -> tuple[str, ...]:
        """Parameters in which the prefactor is affine and on which no argument depends.

        >>> Form.parse("L^-c * F(x*L^b) * (1 + a*L^-w)", ["x", "L"]).linear_parameters
        ('a',)
        """
        inside = set().union(*(argument.names() for argument in self.arguments))
        return tuple(
            name
            for name in self.parameters
            if name not in inside and _affine_in(self.prefactor, name)
        )

    @property
    def prefactor_text(self) -> str:
        """What the master function is multiplied with, "1" for nothing."""
        return _written(self.prefactor)

    @property
    def arguments_text(self) -> tuple[str, ...]:
        """The arguments of the master function."""
        return tuple(_written(argument) for argument in self.arguments)

    def __str__(self) -> str:
        left = f"{self.measured} = " if self.measured else ""
        factor = "" if self.prefactor == _ONE else f"{_written(self.prefactor, 2)} * "
        return f"{left}{factor}{self.function}({', '.join(self.arguments_text)})"


_ONE = Node("number", value=1.0)
_BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "negative": 3, "^": 4}


def _written(node: Node, around: int = 0) -> str:
    """The node as text, in brackets where what is around it binds more strongly."""
    if node.kind == "number":
        return f"{node.value:.15g}"
    if node.kind == "name":
        return node.name
    if node.kind == "call":
        return f"{node.name}({', '.join(_written(part) for part in node.parts)})"
    own = _BINDING[node.kind]
    if node.kind == "negative":
        text = f"-{_written(node.parts[0], own)}"
    elif node.kind == "^":
        exponent = node.parts[1]
        raised = f"-{_written(exponent.parts[0], own + 1)}" if exponent.kind == "negative" else ""
        text = f"{_written(node.parts[0], own + 1)}^{raised or _written(exponent, own + 1)}"
    else:
        gap = "/" if node.kind == "/" else f" {node.kind} "
        text = f"{_written(node.parts[0], own)}{gap}{_written(node.parts[1], own + 1)}"
    return f"({text})" if own < around else text


def _affine_in(node: Node, name: str) -> bool:
    """Whether the node is ``u + v*name`` by its looks."""
    if name not in node.names() or node.kind == "name":
        return True
    if node.kind in ("+", "-", "negative"):
        return all(_affine_in(part, name) for part in node.parts)
    if node.kind == "*":
        holding = [part for part in node.parts if name in part.names()]
        return len(holding) == 1 and _affine_in(holding[0], name)
    if node.kind == "/":
        return name not in node.parts[1].names() and _affine_in(node.parts[0], name)
    return False


class _Reading:
    """One formula on its way to a form."""

    def __init__(self, formula: Formula, variables: Collection[str], measured: str | None) -> None:
        self.formula = formula
        self.columns = {plain_name(name): name for name in variables}
        self.given = None if measured is None else plain_name(measured)
        self.sides = [side for side in (formula.left, formula.right) if side is not None]
        self.nodes = [node for side in self.sides for node in side.walk()]

    def form(self) -> Form:
        call = self.master()
        factors = _Factors(self.formula, call)
        factors.collect(self.formula.right, False)
        measured = self.measured()
        if measured is not None and self.formula.left is not measured:
            factors.move_left(measured)
        appeared = self.names(call, measured)
        parameters = tuple(name for name in appeared if name not in self.columns)
        if not parameters:
            self.formula.fail(self.formula.right, "no parameter to fit: every name is a column")
        name = measured.name if measured is not None else ""
        return Form(
            text=self.formula.text.strip(),
            measured=self.columns.get(name, name),
            function=call.name,
            parameters=parameters,
            variables=tuple(self.columns[name] for name in appeared if name in self.columns),
            prefactor=self.renamed(factors.product()),
            arguments=tuple(self.renamed(part) for part in call.parts),
        )

    def master(self) -> Node:
        """The one call of an unknown function."""
        unknown = [node for node in self.nodes if node.kind == "call" and not self.is_known(node)]
        if not unknown:
            self.formula.fail(
                self.formula.right.end, "no master function: expected a factor such as F(...)"
            )
        if len(unknown) > 1:
            self.refuse_several(unknown)
        call = unknown[0]
        if self.formula.left is not None and call in self.formula.left.walk():
            self.formula.fail(call, f"expected the master function {call.name} on the right side")
        if len(call.parts) > _MOST_ARGUMENTS:
            self.formula.fail(
                call.parts[_MOST_ARGUMENTS], f"{call.name} has more than two arguments"
            )
        for part in call.parts:
            if not part.names() & self.columns.keys():
                self.formula.fail(
                    part,
                    f"this argument of {call.name} is the same at all points: expected a column"
                    f" in it, of {some(self.columns)}",
                )
        return call

    def is_known(self, call: Node) -> bool:
        """Whether it is one of the functions, which take one argument; else it may be F."""
        name = call.name
        if name in FUNCTIONS:
            if len(call.parts) != 1:
                self.formula.fail(call.parts[1], f"{name} takes one argument")
            return True
        if name in _FOREIGN:
            hint = "; log is the natural logarithm" if name in ("ln", "log2", "log10") else ""
            self.formula.fail(
                call, f"unknown function {name}; known are {', '.join(FUNCTIONS)}{hint}"
            )
        if name in self.columns:
            self.formula.fail(
                call,
                f"{name} is a column, not a function: write {name} * (...) for a product, or give"
                " the master function another name",
            )
        return False

    def refuse_several(self, calls: list[Node]) -> NoReturn:
        first, second = calls[:2]
        if any(second is node for part in first.parts for node in part.walk()):
            self.formula.fail(second, f"{second.name} inside an argument of {first.name}")
        if first.name == second.name:
            self.formula.fail(second, f"{first.name} occurs twice; expected one master function")
        odd = first if second.name == "F" else second
        self.formula.fail(
            odd,
            f"two unknown functions, {first.name} and {second.name}; expected one master function."
            f" Known are {', '.join(FUNCTIONS)}; for a product write {odd.name} * (...)",
        )

    def measured(self) -> Node | None:
        """The name on the left side that stands for what was measured."""
        left = self.formula.left
        if left is None:
            return None
        found = [
            node for node, inverted in _of_product(left) if node.kind == "name" and not inverted
        ]
        chosen = [node for node in found if node.name == self.given]
        if not chosen:
            again = [node.name for node in self.nodes if node.kind == "name"]
            chosen = [node for node in found if again.count(node.name) == 1] or found
        if len(chosen) > 1:
            chosen = [node for node in chosen if node.name in self.columns]
        if len(chosen) != 1:
            self.formula.fail(left, "expected the measured quantity, or it times known factors")
        node = chosen[0]
        if self.given is not None and node.name != self.given and node.name in self.columns:
            self.formula.fail(node, f"{node.name} is another column than {self.given}")
        return node

    def names(self, call: Node, measured: Node | None) -> dict[str, Node]:
        """What is a column or a parameter, in order of appearance."""
        appeared: dict[str, Node] = {}
        for node in self.nodes:
            if node.kind != "name" or node is measured:
                continue
            if node.name in FUNCTIONS:
                self.formula.fail(node, f"{node.name} is a function: expected {node.name}(...)")
            if node.name == call.name:
                self.formula.fail(node, f"{call.name} is the master function: expected a call")
            taken = self.given if measured is None else measured.name
            if node.name == taken:
                self.formula.fail(
                    node, f"{node.name} is what was measured; expected it on the left side only"
                )
            appeared.setdefault(node.name, node)
        return appeared

    def renamed(self, node: Node) -> Node:
        """With the names of columns as the caller spells them."""
        name = self.columns.get(node.name, node.name)
        return replace(node, name=name, parts=tuple(self.renamed(part) for part in node.parts))


class _Factors:
    """What the master function is multiplied with and divided by."""

    def __init__(self, formula: Formula, call: Node) -> None:
        self.formula, self.call = formula, call
        self.above: list[Node] = []
        self.below: list[Node] = []
        self.negative = False

    def collect(self, node: Node, inverted: bool) -> None:
        """Take a product apart; the call may stand nowhere but among its numerators."""
        if node is self.call:
            if inverted:
                self.formula.fail(node, f"{node.name} in a denominator; expected it as a factor")
        elif all(part is not self.call for part in node.walk()):
            (self.below if inverted else self.above).append(node)
        elif node.kind == "negative":
            self.negative = not self.negative
            self.collect(node.parts[0], inverted)
        elif node.kind in ("*", "/"):
            self.collect(node.parts[0], inverted)
            self.collect(node.parts[1], inverted != (node.kind == "/"))
        else:
            where = {"+": "in a sum", "-": "in a difference", "^": "in a power"}
            self.formula.fail(
                self.call,
                f"{self.call.name} {where.get(node.kind, f'inside {node.name}')};"
                " expected it as a factor of the whole right side",
            )

    def move_left(self, measured: Node) -> None:
        """Bring the factors of the left side over."""
        assert self.formula.left is not None
        for node, inverted in _of_product(self.formula.left):
            if node is not measured:
                (self.above if inverted else self.below).append(node)

    def product(self) -> Node:
        """All factors as one tree."""
        tree = reduce(lambda left, right: Node("*", (left, right)), self.above or [_ONE])
        tree = reduce(lambda left, right: Node("/", (left, right)), self.below, tree)
        return Node("negative", (tree,)) if self.negative else tree


def _of_product(node: Node, inverted: bool = False) -> Iterator[tuple[Node, bool]]:
    """The factors of a product, and whether they divide."""
    if node.kind == "negative":
        yield Node("negative", (_ONE,)), False
        yield from _of_product(node.parts[0], inverted)
    elif node.kind in ("*", "/"):
        yield from _of_product(node.parts[0], inverted)
        yield from _of_product(node.parts[1], inverted != (node.kind == "/"))
    else:
        yield node, inverted

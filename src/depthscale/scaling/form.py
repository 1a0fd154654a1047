"""Scaling forms as physicists write them: ``y = L^-c2 * F((T - Tc) * L^c1)``.

One product, in which one factor is the unknown master function of one or two arguments. Names that
are columns of the data are variables, all others parameters. A form evaluates to the factor before
the master function and its arguments, with their derivatives in the parameters (forward mode).
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from depthscale.answers import InputError

Array = NDArray[np.float64]

FUNCTIONS = ("exp", "log", "sqrt", "abs", "tanh")
LANGUAGE = (
    "expected a product with one master function, such as L^-c2 * F((T - Tc) * L^c1); there are"
    f" + - * / ^, parentheses, numbers and {', '.join(FUNCTIONS)}"
)


class Dual(NamedTuple):
    """A value and its derivatives by parameter number; those that are missing are 0."""

    value: Any
    slopes: dict[int, Any]


class Evaluated(NamedTuple):
    """A form at a place.

    Attributes
    ----------
    prefactor, arguments:
        [n] and [argument, n]; NaN or infinite where the form has no value, as a fractional power
        of a negative number.
    d_prefactor, d_arguments:
        Their derivatives, [parameter, n] and [argument, parameter, n].
    """

    prefactor: Array
    arguments: Array
    d_prefactor: Array
    d_arguments: Array


@dataclass(frozen=True)
class Role:
    """Where a parameter stands: an ``exponent``, a ``shift`` of a variable, or an ``amplitude``."""

    kind: str
    variable: str = ""


@dataclass(frozen=True)
class Form:
    """A scaling form; see ``Form.parse``.

    Attributes
    ----------
    text:
        As it was written.
    function:
        Name of the master function.
    variables, parameters:
        Names, in order of appearance.
    """

    text: str
    function: str
    variables: tuple[str, ...]
    parameters: tuple[str, ...]
    _prefactor: ast.expr = field(repr=False, compare=False)
    _arguments: tuple[ast.expr, ...] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, variables: Collection[str]) -> Form:
        """Read a form.

        Parameters
        ----------
        text:
            ``[name =] product``, with ``^`` or ``**`` for powers. A factor on the left, as in
            ``m * L^c2 = F(..)``, is brought to the right; the measured
            column is the name there that does not occur on the right.
        variables:
            Names of the columns.

        Raises
        ------
        InputError
            With the formula and a caret under the place.

        Examples
        --------
        >>> form = Form.parse("L^-c2 * F((T - Tc) * L^c1)", ["T", "L", "m"])
        >>> form.parameters, form.variables
        (('c2', 'Tc', 'c1'), ('L', 'T'))
        """
        return _Reader(text, variables).form()

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> Any:
        return Form.parse, (self.text, self.variables)

    @property
    def arguments_text(self) -> tuple[str, ...]:
        """The arguments of the master function, as text."""
        return tuple(_written(argument) for argument in self._arguments)

    @property
    def prefactor_text(self) -> str:
        """What the master function is multiplied with, as text."""
        return _written(self._prefactor)

    @cached_property
    def roles(self) -> Mapping[str, Role]:
        """Where each parameter stands, which says where to look for it."""
        roles = dict.fromkeys(self.parameters, Role("amplitude"))
        for tree in (self._prefactor, *self._arguments):
            for node in ast.walk(tree):
                roles.update(self._roles_at(node))
        return roles

    def _roles_at(self, node: ast.AST) -> Iterator[tuple[str, Role]]:
        if not isinstance(node, ast.BinOp):
            return
        if isinstance(node.op, ast.Pow):
            for name in _names(node.right):
                if name in self.parameters:
                    yield name, Role("exponent")
        if isinstance(node.op, ast.Add | ast.Sub):
            sides = (node.left, node.right), (node.right, node.left)
            for one, other in sides:
                names = isinstance(one, ast.Name) and isinstance(other, ast.Name)
                if names and one.id in self.parameters and other.id in self.variables:
                    yield one.id, Role("shift", other.id)

    def evaluate(self, columns: Mapping[str, Array], values: Sequence[float] | Array) -> Evaluated:
        """The prefactor and the arguments at parameter ``values``, in the order of ``parameters``.

        ``columns`` holds every variable, all of one shape [n].
        """
        known: dict[str, Dual] = {name: Dual(columns[name], {}) for name in self.variables}
        for k, name in enumerate(self.parameters):
            known[name] = Dual(values[k], {k: 1.0})
        n = len(columns[self.variables[0]])
        prefactor, *arguments = (run(known) for run in self._programs)
        return Evaluated(
            _full(prefactor.value, n),
            np.stack([_full(a.value, n) for a in arguments]),
            self._slopes(prefactor, n),
            np.stack([self._slopes(a, n) for a in arguments]),
        )

    def _slopes(self, dual: Dual, n: int) -> Array:
        slopes = np.zeros((len(self.parameters), n))
        for k, slope in dual.slopes.items():
            slopes[k] = slope
        return slopes

    @cached_property
    def _programs(self) -> tuple[Callable[[dict[str, Dual]], Dual], ...]:
        return tuple(_compiled(tree) for tree in (self._prefactor, *self._arguments))


def _full(value: Any, n: int) -> Array:
    return np.broadcast_to(np.asarray(value, dtype=float), (n,))


def _called(node: ast.AST) -> str:
    """Name of the function that a call names, or nothing."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _names(tree: ast.AST) -> Iterator[str]:
    return (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _written(tree: ast.expr) -> str:
    return ast.unparse(tree).replace(" ** ", "^").replace("**", "^")


# Reading ------------------------------------------------------------------------------------------


class _Reader:
    """One text on its way to a form; keeps where every character came from."""

    def __init__(self, text: str, variables: Collection[str]):
        if not isinstance(text, str):
            raise InputError(f"a scaling form is a text, got {type(text).__name__}: {LANGUAGE}")
        self.original, self.columns = text, tuple(variables)
        translated, self.places = [], []
        for place, character in enumerate(text):
            for letter in "**" if character == "^" else character:
                translated.append(letter)
                self.places.append(place)
        self.text = "".join(translated)
        self.places.append(len(text))

    def form(self) -> Form:
        if "\n" in self.original.strip():
            self.fail("expected one line", self.original.strip().index("\n"))
        left, right, offset = self._sides()
        tree = self._tree(right, offset)
        factors = list(_factors(tree, 1))
        calls = [f for f in factors if self._is_master(f[0])]
        self._check_masters(tree, calls)
        (master, power) = calls[0]
        if power != 1:
            self.fail(f"{master.func.id} is divided by; expected it as a factor", master)
        rest = [f for f in factors if f[0] is not master]
        if left.strip():
            rest += self._moved(left, set(_names(tree)))
        prefactor = _product(rest)
        for piece in (prefactor, *master.args):
            self._check(piece)
        names = list(dict.fromkeys([*self._in_order(prefactor), *self._in_order(*master.args)]))
        form = Form(
            self.original.strip(),
            master.func.id,
            tuple(n for n in names if n in self.columns),
            tuple(n for n in names if n not in self.columns),
            prefactor,
            tuple(master.args),
        )
        self._check_content(form, master)
        return form

    def _sides(self) -> tuple[str, str, int]:
        """Left and right of the equals sign, and where the right begins."""
        parts = self.text.split("=")
        if len(parts) > 2:
            self.fail("a second =; expected one at most", self._nth("=", 2))
        if len(parts) == 1:
            return "", self.text, 0
        if not parts[0].strip():
            self.fail("nothing on the left of =", self._nth("=", 1))
        return parts[0], parts[1], len(parts[0]) + 1

    def _nth(self, letter: str, n: int) -> int:
        at = -1
        for _ in range(n):
            at = self.text.index(letter, at + 1)
        return self.places[at]

    def _tree(self, text: str, offset: int) -> ast.expr:
        if not text.strip():
            self.fail("nothing there", len(self.original))
        inner = len(text) - len(text.lstrip())
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except SyntaxError as error:
            column = (error.offset or 1) - 1
            encoded = min(max(column, 0), len(text.strip()))
            self.fail(
                f"{_reason(error)}", self.places[min(offset + inner + encoded, len(self.text))]
            )
        except (ValueError, RecursionError, MemoryError) as error:
            raise InputError(f"the formula cannot be read ({error}): {LANGUAGE}") from None
        source = text.strip()
        for node in ast.walk(tree):
            if hasattr(node, "col_offset"):  # from bytes of one line to places of the original
                ahead = len(source.encode()[: node.col_offset].decode(errors="ignore"))
                node.col_offset = self.places[min(offset + inner + ahead, len(self.text))]
        return tree

    def _is_master(self, node: ast.AST) -> bool:
        return _called(node) not in ("", *FUNCTIONS)

    def _check_masters(self, tree: ast.expr, calls: list[tuple[Any, int]]) -> None:
        everywhere = [node for node in ast.walk(tree) if self._is_master(node)]
        if not everywhere:
            self.fail(
                "no master function; one factor has to be an unknown function such as F(..)",
                len(self.original.rstrip()),
            )
        for node in everywhere if len(everywhere) > 1 else ():
            name = _called(node)
            if close := difflib.get_close_matches(name, FUNCTIONS, 1, 0.6):
                self.fail(f"{name} is no function here; did you mean {close[0]}?", node)
        if len(everywhere) > 1:
            second = everywhere[1]
            self.fail("a second master function; expected one", second)
        if not calls:
            self.fail(
                "the master function stands in a sum, a power or another function; expected it as"
                " a factor",
                everywhere[0],
            )
        (master, _) = calls[0]
        if master.keywords or any(isinstance(a, ast.Starred) for a in master.args):
            self.fail("expected plain arguments", master)
        if not 1 <= len(master.args) <= 2:
            self.fail(
                f"{master.func.id} has {len(master.args)} arguments; expected one or two", master
            )

    def _moved(self, left: str, elsewhere: set[str]) -> list[tuple[ast.expr, int]]:
        """The factors on the left but for the measured column, to be divided by."""
        tree = self._tree(left, 0)
        factors = list(_factors(tree, 1))
        plain = [
            node
            for node, power in factors
            if isinstance(node, ast.Name) and power == 1 and node.id not in elsewhere
        ]
        if not plain:
            self.fail("expected the measured column on the left", tree)
        measured = next((node for node in plain if node.id in self.columns), plain[0])
        return [(node, -power) for node, power in factors if node is not measured]

    def _in_order(self, *trees: ast.AST) -> list[str]:
        """Names by their place in the text."""
        nodes = [
            node
            for tree in trees
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and node.id not in FUNCTIONS
        ]
        return [node.id for node in sorted(nodes, key=lambda node: node.col_offset)]

    def _check(self, tree: ast.expr) -> None:
        """Refuse all but arithmetic and the functions."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                self._check_call(node)
            elif isinstance(node, ast.Constant):
                if isinstance(node.value, bool) or not isinstance(node.value, int | float):
                    self.fail(f"{node.value!r} is no number", node)
            elif isinstance(node, ast.BinOp):
                if type(node.op) not in _BINARY:
                    self.fail("unknown operator", node)
            elif isinstance(node, ast.UnaryOp):
                if not isinstance(node.op, ast.USub | ast.UAdd):
                    self.fail("unknown operator", node)
            elif not isinstance(node, ast.Name | ast.operator | ast.unaryop | ast.expr_context):
                self.fail("this is no arithmetic", node)

    def _check_call(self, node: ast.Call) -> None:
        name = _called(node)
        if name not in FUNCTIONS:
            self.fail("unknown function", node)
        if len(node.args) != 1 or node.keywords:
            self.fail(f"{name} takes one argument", node)

    def _check_content(self, form: Form, master: ast.Call) -> None:
        if form.function in self.columns:
            self.fail(
                f"{form.function} is a column of the data; name the function otherwise", master
            )
        if form.function in form.parameters:
            self.fail(f"{form.function} is both a function and a parameter", master)
        for name in form.parameters + form.variables:
            if name in FUNCTIONS:
                self.fail(f"{name} is a function", master)
        for argument in form._arguments:
            if not any(name in form.variables for name in _names(argument)):
                self.fail(
                    f"this argument holds no column of the data ({', '.join(self.columns)})",
                    argument,
                )
        if not form.parameters:
            self.fail("no parameters: nothing to fit; write exponents as names", master)

    def fail(self, what: str, where: ast.AST | int) -> NoReturn:
        """Raise with a caret under the place."""
        place = where if isinstance(where, int) else getattr(where, "col_offset", 0)
        shown = re.sub(r"\s", " ", self.original)
        raise InputError(f"{what}\n  {shown}\n  {' ' * place}^\n{LANGUAGE}")


def _reason(error: SyntaxError) -> str:
    text = (error.msg or "invalid syntax").split(".")[0]
    return "this does not parse" if text.startswith("invalid syntax") else text


def _factors(tree: ast.expr, power: int) -> Iterator[tuple[Any, int]]:
    """The factors of a product, with 1 or -1 for those that are divided by."""
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Mult | ast.Div):
        yield from _factors(tree.left, power)
        yield from _factors(tree.right, power if isinstance(tree.op, ast.Mult) else -power)
    elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        yield ast.Constant(-1.0, col_offset=tree.col_offset), 1
        yield from _factors(tree.operand, power)
    else:
        yield tree, power


def _product(factors: Sequence[tuple[ast.expr, int]]) -> ast.expr:
    result: ast.expr | None = None
    for node, power in factors:
        if result is None and power == 1:
            result = node
            continue
        base = result if result is not None else ast.Constant(1.0, col_offset=0)
        operator: ast.operator = ast.Mult() if power == 1 else ast.Div()
        result = ast.BinOp(base, operator, node, col_offset=getattr(node, "col_offset", 0))
    return ast.Constant(1.0, col_offset=0) if result is None else result


# Evaluating ---------------------------------------------------------------------------------------

Program = Callable[[dict[str, Dual]], Dual]


def _compiled(tree: ast.expr) -> Program:
    if isinstance(tree, ast.Constant):
        constant = Dual(float(tree.value), {})  # type: ignore[arg-type]
        return lambda known: constant
    if isinstance(tree, ast.Name):
        name = tree.id
        return lambda known: known[name]
    if isinstance(tree, ast.UnaryOp):
        inner = _compiled(tree.operand)
        if isinstance(tree.op, ast.UAdd):
            return inner
        return lambda known: _scaled(inner(known), -1.0)
    if isinstance(tree, ast.BinOp):
        left, right = _compiled(tree.left), _compiled(tree.right)
        combine = _BINARY[type(tree.op)]
        return lambda known: combine(left(known), right(known))
    assert isinstance(tree, ast.Call)
    inner, outer = _compiled(tree.args[0]), _UNARY[_called(tree)]

    def run(known: dict[str, Dual]) -> Dual:
        x = inner(known)
        value, slope = outer(x.value)
        return Dual(value, {k: slope * d for k, d in x.slopes.items()})

    return run


def _scaled(x: Dual, by: Any) -> Dual:
    return Dual(x.value * by, {k: d * by for k, d in x.slopes.items()})


def _added(a: Dual, b: Dual, sign: float = 1.0) -> Dual:
    slopes = dict(a.slopes)
    for k, d in b.slopes.items():
        slopes[k] = slopes.get(k, 0.0) + sign * d
    return Dual(a.value + sign * b.value, slopes)


def _multiplied(a: Dual, b: Dual) -> Dual:
    slopes = {k: d * b.value for k, d in a.slopes.items()}
    for k, d in b.slopes.items():
        slopes[k] = slopes.get(k, 0.0) + d * a.value
    return Dual(a.value * b.value, slopes)


def _divided(a: Dual, b: Dual) -> Dual:
    value = a.value / b.value
    slopes = {k: d / b.value for k, d in a.slopes.items()}
    for k, d in b.slopes.items():
        slopes[k] = slopes.get(k, 0.0) - d * value / b.value
    return Dual(value, slopes)


def _powered(a: Dual, b: Dual) -> Dual:
    value = np.float_power(a.value, b.value)
    slopes = {k: d * b.value * np.float_power(a.value, b.value - 1) for k, d in a.slopes.items()}
    if b.slopes:
        grown = value * np.log(a.value)
        for k, d in b.slopes.items():
            slopes[k] = slopes.get(k, 0.0) + d * grown
    return Dual(value, slopes)


_BINARY: dict[type[ast.operator], Callable[[Dual, Dual], Dual]] = {
    ast.Add: _added,
    ast.Sub: lambda a, b: _added(a, b, -1.0),
    ast.Mult: _multiplied,
    ast.Div: _divided,
    ast.Pow: _powered,
}


def _exp(x: Any) -> tuple[Any, Any]:
    value = np.exp(x)
    return value, value


def _sqrt(x: Any) -> tuple[Any, Any]:
    value = np.sqrt(x)
    return value, 0.5 / value


def _tanh(x: Any) -> tuple[Any, Any]:
    value = np.tanh(x)
    return value, 1 - value * value


_UNARY: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "exp": _exp,
    "log": lambda x: (np.log(x), 1 / np.asarray(x, dtype=float)),
    "sqrt": _sqrt,
    "abs": lambda x: (np.abs(x), np.sign(x)),
    "tanh": _tanh,
}

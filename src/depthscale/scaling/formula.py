"""Formulas as people write them, turned into trees; every complaint points at its place.

A parser of its own rather than Python's: ``lambda`` is a name here, ``^`` a power and ``2 L`` a
product, places are those of the text that was typed, and nothing can be run that is not listed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, NoReturn

from depthscale.answers import InputError

FUNCTIONS = ("exp", "log", "sqrt", "abs", "tanh")

_MOST_TOKENS = 250
_DEEPEST = 40
"""Brackets within brackets; with the number of tokens it bounds every recursion over a tree."""

_TOKENS = re.compile(
    r"(?P<number>([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)|(?P<name>[^\W\d]\w*)"
    r"|(?P<symbol>\*\*|[-+*/^(),=−·×])"
)
_SAME = {"**": "^", "−": "-", "·": "*", "×": "*"}
_RAISED = frozenset("⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Node:
    """A part of a formula: a ``kind``, what it is made of, and where it stands in the text.

    ``kind``: "number", "name", "call", "negative" or one of ``+ - * / ^``; ``start`` and ``end``
    include the brackets around it and do not count when nodes are compared.
    """

    kind: str
    parts: tuple[Node, ...] = ()
    name: str = ""
    value: float = 0.0
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)

    def walk(self) -> Iterator[Node]:
        """This node and all below it, from left to right."""
        yield self
        for part in self.parts:
            yield from part.walk()

    def names(self) -> set[str]:
        """The names of what stands for a number, those of functions left out."""
        return {node.name for node in self.walk() if node.kind == "name"}


@dataclass(frozen=True)
class Formula:
    """A text and the trees of its sides; ``left`` is None where there is no ``=``."""

    text: str
    left: Node | None
    right: Node

    def fail(self, at: Node | int, message: str) -> NoReturn:
        """Refuse the formula with a caret under the place."""
        complain(self.text, at.start if isinstance(at, Node) else at, message)

    def source(self, node: Node) -> str:
        """What was typed for this node."""
        return self.text[node.start : node.end]


def complain(text: str, place: int, message: str) -> NoReturn:
    """``InputError`` with the message, the text and a caret under ``text[place]``."""
    raise InputError(f"{message}\n  {text}\n  {' ' * place}^")


def plain_name(name: str) -> str:
    """One spelling for names that look alike, such as the Greek mu and the sign for micro.

    >>> plain_name("\N{MICRO SIGN}") == "\N{GREEK SMALL LETTER MU}"
    True
    """
    return unicodedata.normalize("NFKC", name)


def parse(text: str) -> Formula:
    """The trees of ``[left =] right``.

    Sums, products, quotients, powers (``^`` or ``**``, right to left, above the minus sign) and
    calls; a product may leave its ``*`` out before a name or a bracket, except behind a division.

    Raises
    ------
    InputError
        What was expected, with a caret under the place.

    Examples
    --------
    >>> parse("2 x^-c").right == parse("(2 * (x ** (-c)))").right
    True
    """
    if not isinstance(text, str):
        raise InputError(f"the form is {text!r}; expected a formula such as 'L^-a * F(x*L^b)'")
    text = re.sub(r"\s", " ", text)
    if not text.strip():
        raise InputError("the form is empty; expected a formula such as 'L^-a * F(x*L^b)'")
    return _Parser(text).formula()


class _Token(NamedTuple):
    kind: str  # "number", "name", "end" or the symbol itself
    text: str
    start: int
    end: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while place < len(text):
        if text[place] == " ":
            place += 1
            continue
        match = _TOKENS.match(text, place)
        if match is None:
            complain(text, place, f"{text[place]!r} has no meaning in a form")
        kind, found = str(match.lastgroup), match.group()
        for offset, letter in enumerate(found):
            if letter in _RAISED:
                complain(text, place + offset, f"{letter!r}: write powers as ^{plain_name(letter)}")
        if kind == "symbol":
            kind = _SAME.get(found, found)
        yield _Token(kind, found, place, match.end())
        place = match.end()
    yield _Token("end", "", len(text.rstrip()), len(text))


class _Parser:
    """Recursive descent: a sum of products of signed powers of atoms."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        if len(self.tokens) > _MOST_TOKENS:
            raise InputError(
                f"the form has {len(self.tokens)} parts; expected at most {_MOST_TOKENS}"
            )
        self.place = self.depth = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.place]

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        complain(self.text, self.token.start if at is None else at, message)

    def take(self) -> _Token:
        self.place += 1
        return self.tokens[self.place - 1]

    def formula(self) -> Formula:
        left, right = None, self.sum()
        if self.token.kind == "=":
            self.take()
            left, right = right, self.sum()
        if self.token.kind == ")":
            self.fail("this bracket was never opened")
        if self.token.kind != "end":
            self.fail(f"expected an operator or the end, not {self.token}")
        return Formula(self.text, left, right)

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            self.fail(f"more than {_DEEPEST} brackets within brackets")
        node = self.product()
        while self.token.kind in ("+", "-"):
            node = _pair(self.take().kind, node, self.product())
        self.depth -= 1
        return node

    def product(self) -> Node:
        node, kind = self.signed(), ""
        while True:
            if self.token.kind in ("*", "/"):
                kind = self.take().kind
                node = _pair(kind, node, self.signed())
            elif self.token.kind in ("name", "("):
                if kind == "/":
                    self.fail("product or divisor? Write * here, or brackets around the divisor")
                node = _pair("*", node, self.power())
            elif self.token.kind == "number":
                self.fail(f"expected an operator before {self.token}")
            else:
                return node

    def signed(self) -> Node:
        signs = []
        while self.token.kind in ("+", "-"):
            signs.append(self.take())
        node = self.power()
        for sign in reversed(signs):
            if sign.kind == "-":
                node = Node("negative", (node,), start=sign.start, end=node.end)
        return node

    def power(self) -> Node:
        base = self.atom()
        if self.token.kind != "^":
            return base
        self.take()
        exponent = self.signed()
        if self.token.kind == "/" and self.text[exponent.start : exponent.end].strip("+- ") == "1":
            self.fail(
                "an exponent of 1, then a division: write ^(1/...) or leave the 1 out",
                exponent.start,
            )
        return _pair("^", base, exponent)

    def atom(self) -> Node:
        token = self.token
        if token.kind == "(":
            (inside,), end = self.bracket("")
            return replace(inside, start=token.start, end=end)
        if token.kind not in ("number", "name"):
            self.fail(f"expected a number, a name or '(', not {token}")
        self.take()
        if token.kind == "number":
            value = float(token.text)
            if math.isinf(value):
                self.fail("too large for float64", token.start)
            return Node("number", value=value, start=token.start, end=token.end)
        name = plain_name(token.text)
        if self.token.kind == "(":
            arguments, end = self.bracket(name)
            return Node("call", arguments, name, start=token.start, end=end)
        return Node("name", name=name, start=token.start, end=token.end)

    def bracket(self, function: str) -> tuple[tuple[Node, ...], int]:
        """What stands between brackets, several with commas only for a function."""
        opened = self.take()
        if self.token.kind == ")":
            self.fail(f"expected an argument of {function}" if function else "empty brackets")
        parts = [self.sum()]
        while function and self.token.kind == ",":
            self.take()
            parts.append(self.sum())
        if self.token.kind == "end":
            self.fail("this bracket is never closed", opened.start)
        if self.token.kind != ")":
            self.fail(f"expected an operator or ')', not {self.token}")
        return tuple(parts), self.take().end


def _pair(kind: str, left: Node, right: Node) -> Node:
    return Node(kind, (left, right), start=left.start, end=right.end)

"""What depthscale says when it has no number: bad input, or a quantity that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn


class InputError(ValueError):
    """The caller gave something unusable; the message says what, what was expected, what to do."""


@dataclass(frozen=True)
class Undefined:
    """A quantity that does not exist, with the reason.

    It is falsy, prints its reason, and refuses arithmetic: ``float(Undefined("..."))`` raises
    ``InputError`` with that reason instead of passing a silent NaN on.
    """

    reason: str

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"undefined ({self.reason})"

    def __float__(self) -> NoReturn:
        raise InputError(f"this quantity does not exist: {self.reason}")


Quantity = float | Undefined
"""A number, or the reason why there is none."""


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of the names for a message, with dots where there are more.

    >>> some(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")

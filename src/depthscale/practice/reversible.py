"""What is put on a model and comes off again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Reversible(ABC):
    """A change of a model; as a context manager it is taken back at the end of the block."""

    @abstractmethod
    def remove(self) -> None:
        """Leave the model as it was before; nothing happens the second time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

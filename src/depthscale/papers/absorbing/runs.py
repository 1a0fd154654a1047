"""How much is simulated for the claims: in full, or a hundredth by the same path."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

PART = 100


@dataclass(frozen=True)
class Runs:
    """The size of every simulation.

    Args:
        quick: a hundredth of the realisations, by the same path. Its verdicts are not to be quoted.
    """

    quick: bool = False

    def count(self, full: int, fewest: int = 16) -> int:
        """Realisations in place of ``full``."""
        return max(full // PART, fewest) if self.quick else full

    @property
    def workers(self) -> int:
        """Processes that share a simulation."""
        return 1 if self.quick else 2

    def provenance(self) -> dict[str, Any]:
        """What it takes to draw the same networks again."""
        return {
            "realisations": "a hundredth of the full setting" if self.quick else "as told",
            "seeds": "crc32 of the words of each setting, papers/absorbing/runs.py",
        }


def seed(*words: object) -> int:
    """The seed of a simulation, from the words of its setting."""
    return zlib.crc32(" ".join(map(repr, words)).encode())

"""A claim of a paper beside our value, with a tolerance that is argued and a verdict."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from depthscale.answers import InputError

Verdict = Literal["confirmed", "confirmed in a window", "refuted", "undecided", "not tested"]
Version = Literal["v1", "v2", "both", "ours"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
VERSIONS: tuple[Version, ...] = get_args(Version)


@dataclass(frozen=True)
class Claim:
    """One statement and what became of it.

    Attributes
    ----------
    paper:
        Identifier, as ``2605.21648``.
    version:
        ``"v1"``, ``"v2"`` or ``"both"``: which versions state it; ``"ours"``: it follows from the
        paper's maps and is stated in neither.
    where:
        Figure, section or equation.
    statement:
        In our words.
    stated, ours:
        The paper's number and ours; None where the statement is no number.
    tolerance, why:
        Largest absolute difference that counts as agreement, and the reason for it.
    verdict:
        ``"confirmed"``; ``"confirmed in a window"``: true in the range tested and not beyond it;
        ``"refuted"``; ``"undecided"``: the interval leaves both open; ``"not tested"``.
    note:
        What else there is to know, above all where the statement ends to be true.
    """

    paper: str
    version: Version
    where: str
    statement: str
    verdict: Verdict
    stated: float | None = None
    ours: float | None = None
    tolerance: float | None = None
    why: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS or self.version not in VERSIONS:
            raise InputError(
                f"a claim got verdict {self.verdict!r} and version {self.version!r}; expected one"
                f" of {', '.join(VERDICTS)} and one of {', '.join(VERSIONS)}"
            )
        for name in ("stated", "ours", "tolerance"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"{name} is {value!r}: a claim holds finite numbers or None")
        if self.tolerance is not None and not self.why:
            raise InputError(f"the tolerance {self.tolerance:g} comes without a reason")

    @classmethod
    def number(
        cls,
        paper: str,
        version: Version,
        where: str,
        statement: str,
        stated: float,
        ours: float,
        tolerance: float,
        why: str,
        note: str = "",
        agreed: Verdict = "confirmed",
    ) -> Claim:
        """A claim that is a number: ``agreed`` if ours is within the tolerance, else refuted."""
        ours = float(ours)
        verdict: Verdict = agreed if abs(ours - stated) <= tolerance else "refuted"
        return cls(
            paper, version, where, statement, verdict, float(stated), ours, tolerance, why, note
        )

    def __str__(self) -> str:
        """Two lines or more: the verdict and statement, then numbers and note."""
        numbers = []
        if self.stated is not None:
            numbers.append(f"stated {_short(self.stated)}")
        if self.ours is not None:
            numbers.append(f"ours {_short(self.ours)}")
        if self.tolerance is not None:
            numbers.append(f"tolerance {self.tolerance:.2g} ({self.why})")
        details = ". ".join(filter(None, [", ".join(numbers), self.note]))
        head = f"{self.verdict.upper():<22}{self.version:<5}"
        lines = textwrap.wrap(
            self.statement, 100, initial_indent=head, subsequent_indent=" " * len(head)
        )
        if details:
            pad = " " * len(head)
            lines += textwrap.wrap(details, 100, initial_indent=pad, subsequent_indent=pad)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Verdicts:
    """All claims of a paper; prints as a table, refuted ones counted before the rest."""

    title: str
    claims: tuple[Claim, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many claims have each verdict."""
        found = Counter(claim.verdict for claim in self.claims)
        return {verdict: found[verdict] for verdict in VERDICTS}

    def __str__(self) -> str:
        """The claims by place in the paper, and the counts."""
        lines = [self.title, "=" * len(self.title)]
        place = None
        for claim in self.claims:
            if claim.where != place:
                place = claim.where
                lines += ["", place, "-" * len(place)]
            lines.append(str(claim))
        counts = ", ".join(f"{n} {verdict}" for verdict, n in self.counts.items())
        return "\n".join([*lines, "", f"{len(self.claims)} claims: {counts}."])

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "title": self.title,
            "counts": self.counts,
            "claims": [claim.to_dict() for claim in self.claims],
        }


def joined(title: str, groups: Sequence[Sequence[Claim]]) -> Verdicts:
    """The claims of several groups as one table."""
    return Verdicts(title, tuple(claim for group in groups for claim in group))


def _short(value: float) -> str:
    return f"{value:.7g}"

"""Probabilistic cellular automata whose sites look at how many of their parents are active.

A site of time ``t + 1`` has a few parents of time ``t``; with ``n`` of them active it becomes
active with probability ``chances[n - 1]``, with none it stays inactive: the absorbing state.
Bond directed percolation has ``1 - (1 - p)^n``, site directed percolation ``p``, and the model of
Domany and Kinzel any two numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from depthscale.answers import InputError
from depthscale.theory.records import as_number, whole

Kind = Literal["bond", "site"]

Lattice = Literal["square", "bcc", "cubic"]


class Geometry(NamedTuple):
    """Where parents and children are: site ``x`` and parent ``x + offset``, as they are stored.

    ``metric`` gives the squared distance of a storage displacement, in lattice spacings.
    """

    offsets: tuple[tuple[int, ...], ...]
    metric: tuple[tuple[float, ...], ...]

    @property
    def dimension(self) -> int:
        """Of space."""
        return len(self.metric)


GEOMETRIES: dict[Lattice, Geometry] = {
    "square": Geometry(((0,), (1,)), ((1.0,),)),
    "bcc": Geometry(((0, 0), (0, 1), (1, 0), (1, 1)), ((1.0, 0.0), (0.0, 1.0))),
    # three parents at the corners of a triangle, seen along the diagonal of a cube
    "cubic": Geometry(((0, 0), (0, 1), (1, 0)), ((1.0, 0.5), (0.5, 1.0))),
}


class Threshold(NamedTuple):
    """A critical probability, its standard error and who measured it."""

    p: float
    error: float
    source: str


_JENSEN = "I. Jensen, J. Phys. A 32 (1999) 5233, low-density series"
_WANG = "J. Wang et al., Phys. Rev. E 88 (2013) 042102, Monte Carlo"

THRESHOLDS: dict[tuple[Kind, Lattice], Threshold] = {
    ("bond", "square"): Threshold(0.644700185, 5e-9, _JENSEN),
    ("site", "square"): Threshold(0.70548522, 4e-8, _JENSEN),
    ("bond", "bcc"): Threshold(0.2873383, 1e-7, _WANG),
    ("site", "bcc"): Threshold(0.344574, 1e-6, _WANG),
    ("bond", "cubic"): Threshold(0.382224, 1e-6, _WANG),
    ("site", "cubic"): Threshold(0.435316, 2e-6, _WANG),
}
"""Of directed percolation in 1+1 (square) and 2+1 dimensions (bcc, cubic)."""


@dataclass(frozen=True)
class Automaton:
    """A model: its lattice, the chances by the number of active parents, and a name for people.

    Parameters
    ----------
    name:
        For tables and figures.
    lattice:
        ``"square"`` (1+1 dimensions, two parents), ``"bcc"`` (2+1, four) or ``"cubic"`` (2+1,
        three); the names are those of the lattice in space and time.
    chances:
        Probability to become active with 1, 2, .. active parents.

    Raises
    ------
    InputError
        An unknown lattice, a number of chances that is not that of its parents, a chance outside
        [0, 1].
    """

    name: str
    lattice: Lattice
    chances: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.lattice not in GEOMETRIES:
            raise InputError(
                f"lattice is {self.lattice!r}; expected one of {', '.join(GEOMETRIES)}"
            )
        try:
            chances = tuple(_chance("a chance", p) for p in self.chances)
        except TypeError:
            raise InputError(f"chances is {self.chances!r}; expected a tuple of numbers") from None
        if len(chances) != len(self.geometry.offsets):
            raise InputError(
                f"{len(chances)} chances for the lattice {self.lattice!r}; expected"
                f" {len(self.geometry.offsets)}, one for each number of active parents"
            )
        object.__setattr__(self, "chances", chances)

    @property
    def geometry(self) -> Geometry:
        """Of the lattice."""
        return GEOMETRIES[self.lattice]

    @property
    def dimension(self) -> int:
        """Of space."""
        return self.geometry.dimension

    @property
    def p(self) -> float:
        """The control variable: the chance with one active parent."""
        return self.chances[0]

    def sites(self, length: int) -> int:
        """Of a periodic lattice of this edge."""
        return int(length**self.dimension)


def directed_percolation(
    p: float | None = None, kind: Kind = "bond", lattice: Lattice = "square"
) -> Automaton:
    """Directed percolation through bonds or sites that are open with probability ``p``.

    Parameters
    ----------
    p:
        In [0, 1]; None: the critical one, from ``THRESHOLDS``.
    kind, lattice:
        ``"bond"`` or ``"site"``; ``"square"`` (1+1 dimensions), ``"bcc"`` or ``"cubic"`` (2+1).

    Raises
    ------
    InputError
        ``p`` outside [0, 1], an unknown kind or lattice.

    Examples
    --------
    >>> directed_percolation().p
    0.644700185
    >>> directed_percolation(0.5).chances
    (0.5, 0.75)
    """
    if kind not in get_args(Kind) or lattice not in GEOMETRIES:
        raise InputError(
            f"kind = {kind!r}, lattice = {lattice!r}: expected one of {', '.join(get_args(Kind))}"
            f" and one of {', '.join(GEOMETRIES)}"
        )
    chance = THRESHOLDS[kind, lattice].p if p is None else _chance("p", p)
    numbers = range(1, len(GEOMETRIES[lattice].offsets) + 1)
    chances = [1 - (1 - chance) ** n if kind == "bond" and n > 1 else chance for n in numbers]
    return Automaton(f"{kind} directed percolation, {lattice}", lattice, tuple(chances))


def domany_kinzel(p1: float, p2: float) -> Automaton:
    """The model of Domany and Kinzel (1984) in 1+1 dimensions.

    ``p1`` and ``p2`` are the chances with one and with both parents active. ``p2 = p1 (2 - p1)`` is
    bond, ``p2 = p1`` site directed percolation; ``p2 = 1`` is compact directed percolation, whose
    transition at ``p1 = 1/2`` (the voter model) is of another class.

    Raises
    ------
    InputError
        A chance outside [0, 1].

    Examples
    --------
    >>> domany_kinzel(0.5, 1.0).name
    'compact directed percolation'
    """
    p1, p2 = _chance("p1", p1), _chance("p2", p2)
    name = "compact directed percolation" if p2 == 1 else f"Domany-Kinzel model, p2 = {p2:g}"
    return Automaton(name, "square", (p1, p2))


def edge(length: object) -> int:
    """A number of sites along one edge of a periodic lattice.

    Raises
    ------
    InputError
        Less than 2, or no whole number.
    """
    return whole("length", length, 2, "sites along an edge")


def _chance(name: str, value: object) -> float:
    chance = as_number(name, value)
    if not 0 <= chance <= 1:
        raise InputError(f"{name} is {value!r}; expected a probability in [0, 1]")
    return chance

"""The commands: each room parses the options of its own, calls theory or audit, and prints.

A room is loaded once one of its commands is given. It holds ``COMMANDS``, a ``Command`` for each.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

ROOMS = {
    "audit": ("models", "hold a torch model against theory, say what to change"),
    "theory": ("maps", "fixed points and depth scales of one initialisation"),
    "critical": ("maps", "the initialisation at the edge of chaos"),
    "phase": ("maps", "phases and depth scales over sigma_w, sigma_b and drop"),
    "universality": ("laws", "universality class and exponents of an activation"),
    "law": ("laws", "scaling laws with dropout, held against the exact map"),
    "simulate": ("simulate", "random networks of finite width, held against theory"),
    "limit": ("limits", "the law of two signals where depth is a part of width"),
    "band": ("bands", "the spread of a correlation over networks of a width, by layer"),
    "shape": ("bands", "the slope or transform that keeps two inputs apart at a depth"),
    "lattice": ("lattice", "random convolutional networks as spatial systems"),
    "plan": ("plan", "the depth, bias and width that a data set allows"),
    "collapse": ("collapses", "scaling parameters of data that fall onto one curve"),
    "schedule": ("schedules", "dropout rates over depth: the best for a purpose"),
    "identify": ("identify", "universality classes that measured exponents leave"),
    "trial": ("trials", "train dropout schedules against each other, by seed"),
}
"""Room and purpose of every command, in the order of ``depthscale --help``."""


class Command(NamedTuple):
    """What a room holds of a command: examples and notes, its options, and what carries it out."""

    examples: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


def command(name: str) -> Command:
    """A command out of its room."""
    found: Command = import_module(f"depthscale.commands.{ROOMS[name][0]}").COMMANDS[name]
    return found

"""The authors' own numbers, thinned; where they come from stands in the head of each file."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from depthscale.theory.gaussian import Array


class Curve(NamedTuple):
    """A gradient metric, mean over networks, at some layers."""

    layers: Array
    values: Array


class Spread(NamedTuple):
    """Mean and variance over networks at some layers, and how many networks there were."""

    layers: Array
    mean: Array
    variance: Array
    nets: int


class Panel(NamedTuple):
    """Training accuracies ``[depth, weight]`` of one panel of figure 7; NaN: no file."""

    name: str
    dataset: str
    rho: float
    weights: str
    steps: int
    depths: Array
    variances: Array
    accuracy: Array


@cache
def curves() -> dict[tuple[str, str, float, str], Curve]:
    """By figure, activation, rho and metric (``g_aa``, ``g_ab``, ``g_ab_abs``)."""
    head, *rows = _rows("curves.csv")
    layers = np.array(head[4:], dtype=int)
    found = {}
    for figure, activation, rho, metric, *cells in rows:
        there = np.array([cell != "" for cell in cells])
        values = np.array([float(cell) for cell in cells if cell])
        found[figure, activation, float(rho), metric] = Curve(layers[there], values)
    return found


@cache
def spreads() -> dict[tuple[str, int, float, str], Spread]:
    """By activation, width, rho and metric."""
    head, *rows = _rows("spread.csv")
    layers = np.array(head[6:], dtype=int)
    found = {}
    for means, variances in zip(rows[::2], rows[1::2], strict=True):
        activation, width, rho, metric, nets, _ = means[:6]
        mean, variance = (np.array(row[6:], dtype=float) for row in (means, variances))
        key = activation, int(width), float(rho), metric
        found[key] = Spread(layers, mean, variance, int(nets))
    return found


@cache
def panels() -> tuple[Panel, ...]:
    """Figure 7."""
    head, *rows = _rows("trainable.csv")
    variances = np.array(head[6:], dtype=float)
    found = []
    for name in dict.fromkeys(row[0] for row in rows):
        mine = [row for row in rows if row[0] == name]
        _, dataset, rho, weights, steps, _ = mine[0][:6]
        accuracy = np.array([[float(cell or "nan") for cell in row[6:]] for row in mine])
        depths = np.array([float(row[5]) for row in mine])
        found.append(
            Panel(name, dataset, float(rho), weights, int(steps), depths, variances, accuracy)
        )
    return tuple(found)


@cache
def training_steps() -> dict[tuple[float, int], Array]:
    """Figure 6, by rho and depth: learning rates and steps, ``[2, run]``."""
    _, *rows = _rows("steps.csv")
    found: dict[tuple[float, int], list[tuple[float, float]]] = {}
    for rho, depth, rate, steps in rows:
        found.setdefault((float(rho), int(depth)), []).append((float(rate), float(steps)))
    return {key: np.array(sorted(found[key])).T for key in sorted(found)}


def _rows(name: str) -> list[list[str]]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))

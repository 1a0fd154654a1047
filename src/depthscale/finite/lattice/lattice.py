"""Random convolutional networks as spatial systems: ``Lattice``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from depthscale.answers import InputError, Undefined
from depthscale.finite.lattice.block import Network
from depthscale.finite.lattice.grid import Grid
from depthscale.finite.lattice.result import LatticeRun
from depthscale.finite.lattice.run import Job, run
from depthscale.finite.lattice.starts import as_start
from depthscale.theory.activation import Activation
from depthscale.theory.activation import activation as as_activation
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number, as_numbers, whole

# Values of a block, which a call must be worth and a cache hold, and most realisations of one: the
# last block is carried out whole, however few of it are asked for.
BLOCK = {"cpu": 81_920, "cuda": 1 << 23}
MOST = {"cpu": 128, "cuda": 4096}
RECORDS = 32
MASKS = ("independent", "shared")
PRECISIONS = ("single", "double")


@dataclass(frozen=True, init=False)
class Lattice:
    r"""Random convolutional networks with circular padding, in one or two dimensions.

    ``h'[i, x] = sum_{j, r} W[i, j, r] phi(h[j, x + r]) + b[i]``, ``W ~ N(0, sigma_w^2/(c k^d))``,
    ``b ~ N(0, sigma_b^2)``, drawn anew in every layer and the same for the two inputs, which are
    carried as ``h_1`` and their difference: what tells them apart keeps its own relative precision.

    Args:
        activation: anything that ``activation()`` accepts.
        sigma_w, sigma_b: standard deviations, ``sigma_w > 0``.
        channels: c, at least 1.
        kernel: k sites along every axis, at most the size; an even one reaches one site further
            to the right than to the left.
        size: positions of a ring, or ``(height, width)`` of a torus.
        sharing: who shares weights and biases. "shared": all positions; "local": none, every one
            has its own; a whole number m: groups of m neighbouring sites along every axis, m
            dividing the size; a fraction s in [0, 1], not whole: all share
            ``sqrt(1 - s) (W, b)``, to which each adds ``sqrt(s)`` times its own.
        drop: probability dropped, of every activation, from the first layer on.
        masks: of the two inputs, "independent" or "shared".
        threshold: of ``|d|^2/(|h_1|^2 + |h_2|^2)``, above which a position is active.

    Raises:
        InputError: with what was given and what is expected.

    Example:
        >>> lattice = Lattice("tanh", sigma_w=1.78, sigma_b=0.3, size=64)
        >>> result = lattice.run(depth=50, realisations=20, seed=1)
        >>> result.mean("rho").shape == result.depths.shape
        True
    """

    activation: Activation
    sigma_w: float
    sigma_b: float
    channels: int
    grid: Grid
    sharing: str | int | float
    drop: float
    masks: str
    threshold: float

    def __init__(
        self,
        activation: Any,
        sigma_w: float,
        sigma_b: float = 0.0,
        channels: int = 5,
        kernel: int = 3,
        size: int | Sequence[int] = 256,
        sharing: str | float = "shared",
        drop: float = 0.0,
        masks: str = "independent",
        threshold: float = 1e-2,
    ) -> None:
        phi = as_activation(activation)
        sigma_w, sigma_b = as_number("sigma_w", sigma_w), as_number("sigma_b", sigma_b)
        if not 0 < sigma_w < math.inf:
            raise InputError(f"sigma_w = {sigma_w}: expected a finite number above 0")
        if not 0 <= sigma_b < math.inf:
            raise InputError(f"sigma_b = {sigma_b}: expected a finite number, 0 or above")
        drop, threshold = as_number("drop", drop), as_number("threshold", threshold)
        if not 0 <= drop < 1:
            raise InputError(f"drop = {drop}: expected a probability in [0, 1)")
        if masks not in MASKS:
            raise InputError(f"masks = {masks!r}: expected one of {', '.join(MASKS)}")
        if not 0 < threshold < 2:
            raise InputError(f"threshold = {threshold}: expected a number between 0 and 2")
        grid = _grid(size, kernel)
        for name, value in (
            ("activation", phi),
            ("sigma_w", sigma_w),
            ("sigma_b", sigma_b),
            ("channels", whole("channels", channels, 1, "channels")),
            ("grid", grid),
            ("sharing", _sharing(sharing, grid)),
            ("drop", drop),
            ("masks", masks),
            ("threshold", threshold),
        ):
            object.__setattr__(self, name, value)

    @property
    def q(self) -> float:
        """Mean square at which wide layers settle, or 1 where there is none: the default start."""
        if self.activation.why_no_theory:
            return 1.0
        settled = MeanField(self.activation, self.sigma_w, self.sigma_b, drop=self.drop).q
        return 1.0 if isinstance(settled, Undefined) or not 0 < settled < math.inf else settled

    def run(
        self,
        depth: int,
        realisations: int,
        start: str | float | tuple[ArrayLike, ArrayLike] = "independent",
        seed: int = 0,
        *,
        record: int | Sequence[int] = RECORDS,
        q0: float | None = None,
        precision: str = "single",
        device: str = "cpu",
        workers: int = 1,
        checkpoint: str | Path | None = None,
        progress: bool | None = None,
    ) -> LatticeRun:
        """Send two inputs through random networks, each with weights of its own.

        Args:
            depth: layers, at least 1.
            realisations: how many networks.
            start: of the two inputs at layer 0, Gaussian of mean square ``q0`` at every position.
                "independent"; a number: of this misalignment, as small as 1e-300; "site": equal but
                for the channels of the middle position; or a pair of arrays ``(h_1, h_2)``,
                ``[channels, *size]`` or ``[realisations, channels, *size]``.
            seed: at least 0; a realisation of a seed is the same however many are asked for and on
                any number of processes.
            record: the layers to measure, or about how many, evenly in the logarithm.
            q0: default ``self.q``.
            precision: "single" or "double", of the pre-activations.
            device: "cpu" or "cuda"; another device draws other networks.
            workers: processes, one thread each.
            checkpoint: a file; a run that was stopped goes on from there, bit for bit.
            progress: show a bar; default: on a terminal.

        The difference is followed however small it is; the first input is not: where it shrinks
        below 1e-38 or grows above 1e38 (1e-308 and 1e308 in double precision), rho is NaN. Of two
        inputs that come to differ in length alone, as behind ReLU without bias, rho is resolved to
        the square of the rounding. Blocks of up to 128 realisations are carried out whole.

        Raises:
            InputError: with what was given and what is expected.
        """
        realisations = whole("realisations", realisations, 1, "networks")
        workers = whole("workers", workers, 1, "processes")
        job = self._job(depth, realisations, start, seed, record, q0, precision, device)
        path = _path(checkpoint)
        values = run(job, realisations, workers, path, progress)
        depths = np.array(job.depths, dtype=np.int64)
        return LatticeRun(values, depths, self.grid.sites, job.about)

    def _job(
        self,
        depth: int,
        realisations: int,
        start: Any,
        seed: int,
        record: int | Sequence[int],
        q0: float | None,
        precision: str,
        device: str,
    ) -> Job:
        if precision not in PRECISIONS:
            raise InputError(f"precision = {precision!r}: expected one of {', '.join(PRECISIONS)}")
        length = self.q if q0 is None else as_number("q0", q0)
        if not 0 < length < math.inf:
            raise InputError(f"q0 = {length}: expected a finite number above 0")
        kind = _device(device)
        values = self.channels * self.grid.sites
        begun = as_start(start, length, self.channels, self.grid)
        begun.check(realisations)
        about: dict[str, Any] = {
            "activation": self.activation.name,
            "sigma_w": self.sigma_w,
            "sigma_b": self.sigma_b,
            "channels": self.channels,
            "kernel": self.grid.kernel,
            "size": self.grid.shape,
            "sharing": self.sharing,
            "drop": self.drop,
            "masks": self.masks,
            "threshold": self.threshold,
            "start": start if isinstance(start, str | int | float) else "given",
            "q0": length,
            "seed": whole("seed", seed, 0),
            "precision": precision,
            "device": device,
        }
        return Job(
            network=self._network(),
            start=begun,
            depths=_depths(depth, record),
            seed=about["seed"],
            nets=max(1, min(BLOCK[kind] // values, MOST[kind])),
            device=device,
            precision=precision,
            about=about,
        )

    def _network(self) -> Network:
        return Network(
            activation=self.activation,
            sigma_w=self.sigma_w,
            sigma_b=self.sigma_b,
            sharing=self.sharing,
            grid=self.grid,
            channels=self.channels,
            drop=self.drop,
            independent=self.masks == "independent",
            threshold=self.threshold,
        )


def _path(checkpoint: Any) -> Path | None:
    if checkpoint is not None and not isinstance(checkpoint, str | Path):
        raise InputError(f"checkpoint is {checkpoint!r}; expected the name of a file")
    return None if checkpoint is None else Path(checkpoint)


def _grid(size: Any, kernel: Any) -> Grid:
    kernel = whole("kernel", kernel, 1, "sites")
    lengths = list(size) if isinstance(size, Iterable) and not isinstance(size, str) else [size]
    if len(lengths) not in (1, 2):
        raise InputError(f"size = {size!r}: expected positions of a ring, or (height, width)")
    shape = tuple(whole("size", length, 1, "positions") for length in lengths)
    if kernel > min(shape):
        raise InputError(
            f"kernel = {kernel} on {min(shape)} positions: expected at most as many, since it would"
            " see one of them twice"
        )
    return Grid(shape, kernel)


def _sharing(sharing: Any, grid: Grid) -> str | int | float:
    expected = (
        "expected 'shared', 'local', a whole number of neighbouring sites, or a fraction in [0, 1]"
    )
    if sharing in ("shared", "local") if isinstance(sharing, str) else False:
        return str(sharing)
    if isinstance(sharing, str | bool):
        raise InputError(f"sharing = {sharing!r}: {expected}")
    number = as_number("sharing", sharing)
    if isinstance(sharing, float | np.floating) and 0 <= number <= 1:
        return {0.0: "shared", 1.0: "local"}.get(number, number)
    if not 1 <= number < math.inf or number != int(number):
        raise InputError(f"sharing = {sharing!r}: {expected}")
    if any(length % int(number) for length in grid.shape):
        raise InputError(
            f"sharing = {sharing!r}: groups of {int(number)} sites do not fill"
            f" {' x '.join(map(str, grid.shape))} positions; expected a divisor"
        )
    if number == 1:
        return "local"
    return "shared" if all(length == number for length in grid.shape) else int(number)


def _depths(depth: Any, record: Any) -> tuple[int, ...]:
    """Layers to measure: those given, or 0 and about so many from 1 to the depth."""
    depth = whole("depth", depth, 1, "layers")
    if isinstance(record, np.ndarray) and not record.ndim:
        record = record.item()
    if isinstance(record, Iterable) and not isinstance(record, str):
        given = as_numbers("record", list(record)).ravel().tolist()
        layers = sorted({whole("record", layer, 0) for layer in given})
        if not layers or layers[-1] > depth:
            raise InputError(f"record is {record!r}: expected layers from 0 to {depth}")
        return tuple(layers)
    count = whole("record", record, 1, "layers")
    spaced = np.rint(np.geomspace(1, depth, count)).astype(int).tolist()
    return tuple(sorted({0, *spaced, depth}))


def _device(device: Any) -> str:
    import torch

    kind = str(device).split(":")[0]
    if kind not in BLOCK:
        raise InputError(f"device = {device!r}: expected cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device = {device!r}: this torch sees no such device; take cpu")
    return kind

"""Random networks of finite width, exactly in distribution, without building their weights.

See ``hops`` for the law and ``passes`` for the two passes. An ``Ensemble`` is an architecture; its
``forward`` and ``backward`` draw networks and answer with statistics over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from depthscale.answers import InputError
from depthscale.finite.architecture import Architecture, Start
from depthscale.finite.columns import Array, Chain
from depthscale.finite.hops import Orthogonal, Untied, Weightless, Weights
from depthscale.finite.losses import Loss, make_loss
from depthscale.finite.observe import Watch
from depthscale.finite.plan import Plan, make_plan, memory_limit
from depthscale.finite.runner import Job, run
from depthscale.finite.sampled import Sampled
from depthscale.finite.upkeep import PRECISIONS
from depthscale.theory.activation import Activation, activation
from depthscale.theory.arguments import STARTS, checked_pair, checked_widths
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import as_number, as_numbers, whole

# Up to so many inputs all pairs are followed, beyond that each with the first.
ALL_PAIRS = 8
EXTRAS = ("absolute", "units", "ntk")
# Two inputs closer than this are carried as their difference, whichever the others are.
CLOSE = 1e-6


@dataclass(frozen=True)
class Pair:
    """Two inputs of given lengths and misalignment.

    Args:
        eps: ``1 - cos``, in 0..2.
        q1, q2: mean squares ``|x|^2/n``, above 0.
        start: "pinned": exactly so, in a random direction in every network; "drawn": Gaussian in
            every unit, as behind a random layer, so that they scatter about these values.

    Raises:
        InputError: with what was given and what is expected.
    """

    eps: float
    q1: float = 1.0
    q2: float = 1.0
    start: str = "pinned"

    def __post_init__(self) -> None:
        checked_pair(self.q1, self.q2, self.eps)
        if self.start not in STARTS:
            raise InputError(f"start = {self.start!r}: expected one of {', '.join(STARTS)}")

    def check_units(self, units: int) -> None:
        """``InputError`` where a layer has too few units for the pair to lie in."""
        if self.start == "pinned" and units < 2:
            raise InputError(
                f"a pinned pair in a layer of {units} unit: expected at least 2, or start='drawn'"
            )

    @property
    def coordinates(self) -> Array:
        """Of the first vector and of its difference to the second: ``[direction, column]``.

        ``h_1 = a z_1`` and ``h_2 - h_1 = (b - a - b eps) z_1 + b sqrt(eps (2 - eps)) z_2``.
        """
        a, b = math.sqrt(self.q1), math.sqrt(self.q2)
        across = b * math.sqrt(self.eps * (2 - self.eps))
        return np.array([[a, (b - a) - b * self.eps], [0.0, across]])


@dataclass(frozen=True, init=False)
class Ensemble:
    """All random networks of one architecture.

    ``h^1 = W^0 x^0 + b^0`` and ``h^{l+1} = skip h^l + W^l x^l + b^l`` with ``x^l = D^l phi(h^l)``,
    ``W^l ~ N(0, sigma_w^2/n_l)``, ``b^l ~ N(0, sigma_b^2)`` and noise ``D`` of mean 1. Layer 0 are
    the inputs ``x^0``, unmasked; losses act on ``h^L``.

    Args:
        activation: anything that ``activation()`` accepts.
        sigma_w, sigma_b: standard deviations, ``sigma_w > 0``.
        width: units of every layer, or of each of the ``depth + 1`` layers, the inputs' first.
        depth: number L of weight layers, at least 1.
        drop: probability dropped: one number, or one for each of the ``depth - 1`` hidden layers
            (with ``depth`` numbers the first one is for the inputs).
        masks: as for ``MeanField``, but for dropped weights, which have no exact law without
            weights. With more than two inputs, ``overlap(r)`` holds for every pair.
        skip: coefficient of the residual branch of the hops behind the first.
        weights: "gaussian", or "orthogonal" (Haar, scaled to the same mean length).
        tied: False sends gradients back through other weights than the signals went forward: the
            gradient independence assumption.

    Attributes:
        layers: one ``MeanField`` for each of the L hops; the first is linear.
        widths: units of the L + 1 layers.

    Raises:
        InputError: with what was given and what is expected.

    Example:
        >>> networks = Ensemble("tanh", sigma_w=1.3, sigma_b=0.3, width=64, depth=5, drop=0.1)
        >>> result = networks.backward("quadratic", Pair(eps=0.4), nets=200, seed=1)
        >>> result.mean("eps").shape, result.mean("grad_aa").shape
        ((1, 6), (2, 5))
    """

    layers: tuple[MeanField, ...]
    widths: tuple[int, ...]
    output: Activation
    weights: str
    tied: bool

    def __init__(
        self,
        activation: Any,
        sigma_w: float,
        sigma_b: float = 0.0,
        width: int | Sequence[int] = 256,
        depth: int = 10,
        drop: float | Sequence[float] = 0.0,
        masks: str = "independent",
        skip: float = 0.0,
        weights: str = "gaussian",
        tied: bool = True,
    ) -> None:
        phi = _as_activation(activation)
        depth = whole("depth", depth, 1, "weight layers")
        widths = list(width) if isinstance(width, Iterable) else [width] * (depth + 1)
        if isinstance(drop, Iterable):
            rates = as_numbers("drop", drop).tolist()
            if len(rates) == depth - 1:
                rates = [0.0, *rates]
        else:
            rates = [0.0] + [as_number("drop", drop)] * (depth - 1)
        if len(rates) != depth:
            raise InputError(
                f"{len(rates)} drop rates for depth {depth}: expected one number, or one for each"
                f" of the {depth - 1} hidden layers"
            )
        layers = [
            MeanField(
                phi if hop else _as_activation("identity"),
                sigma_w=sigma_w,
                sigma_b=sigma_b,
                drop=rate,
                masks=masks,
                skip=skip if hop else 0.0,
            )
            for hop, rate in enumerate(rates)
        ]
        self._set(layers, widths, phi, weights, tied)

    @classmethod
    def of(
        cls,
        layers: Sequence[MeanField],
        widths: Sequence[int],
        *,
        weights: str = "gaussian",
        tied: bool = True,
    ) -> Self:
        """An ensemble from one ``MeanField`` a hop: layer 0 are pre-activations, masked as others.

        Args:
            layers: activation, sigma_w, sigma_b, drop, masks and skip of each of the L hops.
            widths: units of the L + 1 layers.
            weights, tied: see the class.

        Example:
            >>> from depthscale.theory.meanfield import MeanField
            >>> Ensemble.of([MeanField("relu", sigma_w=2**0.5)] * 3, [8, 16, 16, 2]).widths
            (8, 16, 16, 2)
        """
        if not layers:
            raise InputError("no layers were given: expected one MeanField for each hop")
        result = object.__new__(cls)
        result._set(list(layers), list(widths), layers[-1].activation, weights, tied)
        return result

    def _set(
        self,
        layers: list[MeanField],
        widths: list[Any],
        output: Activation,
        weights: str,
        tied: bool,
    ) -> None:
        sizes = checked_widths(layers, widths)
        for layer in layers:
            if layer.noise.kind == "weights" and layer.drop > 0:
                raise InputError(
                    f"masks = {layer.masks!r}: with dropped weights every unit has masked inputs of"
                    " its own, which this sampler does not follow; expected noise on units or"
                    " layers: take explicit_networks or explicit_pairs of"
                    " depthscale.finite.explicit, or masks='independent' for the same limit of"
                    " large width"
                )
        if weights not in ("gaussian", "orthogonal"):
            raise InputError(f"weights is {weights!r}; expected gaussian or orthogonal")
        if weights == "orthogonal" and not tied:
            raise InputError("tied=False is there for Gaussian weights; expected 'gaussian'")
        for name, value in (
            ("layers", tuple(layers)),
            ("widths", sizes),
            ("output", output),
            ("weights", weights),
            ("tied", bool(tied)),
        ):
            object.__setattr__(self, name, value)

    @property
    def depth(self) -> int:
        """Number L of weight layers."""
        return len(self.layers)

    def forward(self, inputs: Pair | ArrayLike, nets: int, seed: int = 0, **how: Any) -> Sampled:
        """Send inputs through ``nets`` random networks.

        Args:
            inputs: a ``Pair``, or vectors ``[input, unit]``, at least one.
            nets: number of networks, at least 1.
            seed: a whole number, at least 0; net ``i`` of a seed is the same network however many
                are asked for, on any number of processes.
            how: see ``backward``.

        Returns:
            Statistics over the networks of ``q``, ``eps``, ``separation`` and what is asked for.
        """
        return self._run(None, inputs, nets, seed, **how)

    def backward(
        self,
        loss: str | Loss | Callable[[torch.Tensor], torch.Tensor],
        inputs: Pair | ArrayLike,
        nets: int,
        seed: int = 0,
        **how: Any,
    ) -> Sampled:
        """Send inputs through ``nets`` random networks, and the gradient of a loss back.

        Args:
            loss: "quadratic" ``|h|^2/2``, "readout" ``v . phi(h)``, "linear" ``v . h``, "outputs"
                (every output by itself, inner products summed over them), "cross_entropy" (give
                ``labels``), or a function from outputs ``[net, input, unit]`` to one number for
                each net and input.
            inputs, nets, seed: see ``forward``.
            how:
                ``labels``: for "cross_entropy", one a input.
                ``observe``: any of "absolute" (``grad_ab_abs``), "units" (averages over units),
                "ntk"; default "absolute" where there are gradients.
                ``pairs``: pairs of inputs to follow, from 0; default all of up to 8 inputs, else
                every input with the first.
                ``keep``: also return every network's own values.
                ``precision``: of the units: "double", "single", or "mixed" (default): single in
                layers of 32 units or more where no input is close to the span of others, nor
                activations nearly constant, linear or saturated, else double. Normals have 24 bits
                in any case.
                ``engine``: "auto", "weightless" or "explicit".
                ``device``: "cpu" or "cuda"; another device draws other networks.
                ``workers``: processes, one thread each.
                ``checkpoint``: a file; a run that was stopped goes on from there.
                ``memory``: bytes that may be used, default four fifths of what is free.
                ``progress``: show a bar; default: on a terminal.

        Raises:
            InputError: with what was given and what is expected; of requests for more memory than
                there is, with a setting that fits.

        Source: 1912.09132 for the gradients; the sampler's law is derived in ``hops``.
        """
        if loss is None:
            raise InputError("loss is None; expected a name or a function, or call forward")
        return self._run(loss, inputs, nets, seed, **how)

    def plan(self, inputs: Pair | ArrayLike, loss: Any = None, **how: Any) -> Plan:
        """How such a run would be carried out: engine, block size, memory."""
        return self._job(loss, inputs, 0, **how).plan

    def _run(
        self,
        loss: Any,
        inputs: Pair | ArrayLike,
        nets: int,
        seed: int,
        *,
        keep: bool = False,
        workers: int = 1,
        checkpoint: str | Path | None = None,
        progress: bool | None = None,
        memory: int | None = None,
        **how: Any,
    ) -> Sampled:
        nets = whole("nets", nets, 1, "networks")
        workers = whole("workers", workers, 1, "processes")
        job = self._job(loss, inputs, seed, **how)
        self._check_memory(job, nets, keep, workers, memory)
        path = None if checkpoint is None else Path(checkpoint)
        outcome = run(job, nets, workers=workers, keep=keep, checkpoint=path, progress=progress)
        return Sampled(
            outcome.tally,
            outcome.trajectories,
            widths=self.widths,
            inputs=len(job.start.chain),
            pairs=job.watch.pairs,
            to_start=job.to_start,
            about={
                "activation": self.output.name,
                "loss": "" if job.loss is None else job.loss.label,
                "seed": seed,
                "engine": job.plan.weights.__name__.lower(),
                "engine_reason": job.plan.reason,
                "precision": job.precision,
                "device": job.device,
            },
        )

    def _job(
        self,
        loss: Any,
        inputs: Pair | ArrayLike,
        seed: int,
        *,
        labels: Sequence[int] | None = None,
        observe: Sequence[str] | None = None,
        pairs: Sequence[tuple[int, int]] | None = None,
        precision: str = "mixed",
        engine: str = "auto",
        device: str = "cpu",
        to_start: bool = False,
    ) -> Job:
        seed = whole("seed", seed, 0)
        if precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise InputError(f"precision is {precision!r}; expected one of {known}")
        if observe is None:
            observe = () if loss is None else ("absolute",)
        unknown = set(observe) - set(EXTRAS)
        if unknown or isinstance(observe, str):
            raise InputError(f"observe is {observe!r}; expected some of {', '.join(EXTRAS)}")
        place = _device(device)
        start = self._start(inputs)
        count = len(start.chain)
        made = None if loss is None else make_loss(loss, count, self.widths[-1], labels)
        kind: type[Weights] = Weightless if self.tied else Untied
        if self.weights == "orthogonal":
            kind = Orthogonal
        architecture = Architecture(self.layers, self.widths, kind, self.output)
        plan = make_plan(
            architecture,
            count,
            made.copies if made else 0,
            engine=engine,
            backward=made is not None,
            device=place,
            precision=PRECISIONS[precision],
        )
        return Job(
            Architecture(self.layers, self.widths, plan.weights, self.output),
            start,
            made,
            Watch(
                _pairs(pairs, count),
                absolute="absolute" in observe and made is not None,
                tangent="ntk" in observe and made is not None,
            ),
            plan,
            seed,
            statistics="units" in observe,
            to_start=to_start,
            device=str(place),
            precision=precision,
        )

    def _start(self, inputs: Pair | ArrayLike) -> Start:
        """The inputs as columns."""
        width = self.widths[0]
        if isinstance(inputs, Pair):
            inputs.check_units(self.widths[0])
            return Start(Chain.star(2), inputs.coordinates, inputs.start)
        vectors = as_numbers("inputs", inputs)
        if vectors.ndim != 2 or vectors.shape[1] != width or not len(vectors):
            raise InputError(
                f"inputs have shape {vectors.shape}: expected a Pair, or vectors [input, unit] of"
                f" {width} units"
            )
        if not np.isfinite(vectors).all():
            raise InputError("inputs hold NaN or infinite numbers: expected finite ones")
        sizes = np.sqrt(np.square(vectors).sum(1))
        unit = vectors / np.where(sizes > 0, sizes, 1)[:, None]
        squares = np.maximum(0, 2 - 2 * unit @ unit.T)
        np.fill_diagonal(squares, np.inf)
        if len(vectors) > 2 and squares.min() < CLOSE:
            chain = Chain.nearest(squares)
        else:
            chain = Chain.star(len(vectors))
        ordered = vectors[list(chain.order)]
        parents = np.array(chain.parents)
        columns = ordered - np.where(parents[:, None] >= 0, ordered[parents], 0)
        return Start(chain, columns, "given")

    def _check_memory(
        self, job: Job, nets: int, keep: bool, workers: int, memory: int | None
    ) -> None:
        """Refuse what does not fit, with what would."""
        cells = (self.depth + 1) * (4 * len(job.start.chain) + 7 * len(job.watch.pairs))
        kept = 32 * cells * keep  # a network: twice a sign and a logarithm, while they are joined
        fixed = min(40_000 * cells, 1 << 28) + job.plan.bytes
        need = fixed + (workers - 1) * job.plan.bytes + nets * kept
        limit = memory_limit(memory)
        if need <= limit:
            return
        if fixed > limit:
            width = int(max(self.widths) * limit / (2 * fixed))
            remedy = f"layers of {max(width, 1):,} units fit, or fewer inputs"
        elif fixed + nets * kept <= limit:
            remedy = f"workers={int(1 + (limit - fixed - nets * kept) // job.plan.bytes)} fits"
        else:
            remedy = f"nets={int((limit - fixed) // kept)} fits, or any number without keep=True"
        raise InputError(
            f"this needs about {need / 2**30:.3g} GiB of memory and {limit / 2**30:.3g} GiB may be"
            f" used; {remedy}"
        )


_as_activation = activation  # by another name, where an argument has this one


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("torch finds no CUDA device here")
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device is {name!r}: {error}; expected cpu or cuda") from error
    return device


def _pairs(pairs: Sequence[tuple[int, int]] | None, inputs: int) -> tuple[tuple[int, int], ...]:
    if pairs is None:
        if inputs <= ALL_PAIRS:
            return tuple(combinations(range(inputs), 2))
        return tuple((0, k) for k in range(1, inputs))
    chosen = tuple((int(a), int(b)) for a, b in pairs)
    if any(not (0 <= a < inputs and 0 <= b < inputs) or a == b for a, b in chosen):
        raise InputError(f"pairs {chosen}: expected two different inputs, from 0 to {inputs - 1}")
    return chosen

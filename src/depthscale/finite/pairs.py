"""Every network's own path of a pair: lengths, misalignment and gradients, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from depthscale.answers import InputError
from depthscale.finite.columns import Array
from depthscale.finite.ensemble import Ensemble, Pair
from depthscale.finite.signed import plain

if TYPE_CHECKING:
    import xarray

    from depthscale.theory.meanfield import MeanField


@dataclass(frozen=True)
class PairEnsemble:
    """What many random networks of one architecture do to one pair of inputs.

    All arrays are ``[net, layer]`` (``lengths``: ``[input, net, layer]``), layer 0 being the start.

    Attributes:
        lengths: mean squares ``|h_a|^2 / n`` of the pre-activations of each input.
        eps: ``1 - cos(h_1, h_2)``, in 0..2; NaN where one of the two vectors is exactly zero, that
            is, where the network has died.
        gradient: ``|dE/dh_1^l|^2 / |dE/dh_1^L|^2`` of the first input, total squares over units,
            for ``E = v . h^L`` with a random ``v`` that is independent of the network.
        gradient_eps: ``1 - cos(dE/dh_1^l, dE/dh_2^l)`` for that same ``v``; NaN as in ``eps``.
        widths: number of units of each layer.
        seed: the seed; net ``i`` of a seed is the same network however many are asked for.
        method: "sampled" without weights or "explicit" ones.
    """

    lengths: Array
    eps: Array
    gradient: Array
    gradient_eps: Array
    widths: tuple[int, ...]
    seed: int
    method: str

    @property
    def length(self) -> Array:
        """Mean of the two lengths, ``[net, layer]``."""
        return np.asarray(self.lengths.mean(axis=0))

    @property
    def nets(self) -> int:
        """Number of networks."""
        return len(self.eps)

    def band(self, field: str, lo: float = 0.05, hi: float = 0.95) -> tuple[Array, Array, Array]:
        """Quantiles over the networks, layer by layer: ``(low, median, high)``, each ``[layer]``.

        Networks in which the quantity does not exist (a dead one has no ``eps``) are left out; a
        layer at which no network has it is NaN.

        Args:
            field: "length", "eps", "gradient" or "gradient_eps".
            lo: lower quantile, in 0..1.
            hi: upper quantile, in lo..1.

        Raises:
            InputError: an unknown field, or quantiles out of order.

        Example:
            >>> from depthscale.theory.meanfield import MeanField
            >>> layers = [MeanField("tanh", sigma_w=1.3, sigma_b=0.3)] * 5
            >>> low, median, high = sample_pairs(layers, [64] * 6, 1.0, 1.0, 0.5).band("eps")
            >>> bool(low[5] < median[5] < high[5])
            True
        """
        fields = ("length", "eps", "gradient", "gradient_eps")
        if field not in fields:
            raise InputError(f"band of {field!r}: there is {', '.join(fields)}")
        if not 0 <= lo <= hi <= 1:
            raise InputError(f"band from {lo} to {hi}: expected 0 <= lo <= hi <= 1")
        values = getattr(self, field)
        result = np.full((3, values.shape[1]), np.nan)
        alive = ~np.isnan(values)
        for layer in np.flatnonzero(alive.any(axis=0)):
            here = values[alive[:, layer], layer]
            result[:, layer] = np.quantile(here, [lo, 0.5, hi])
        return result[0], result[1], result[2]

    def to_xarray(self) -> xarray.Dataset:
        """The record as a Dataset with dimensions ``input``, ``net`` and ``layer``."""
        import xarray

        about = {
            "length": "mean square pre-activation, mean of the two inputs",
            "eps": "one minus the cosine of the two pre-activations",
            "gradient": "squared gradient norm of the first input over that of the last layer",
            "gradient_eps": "one minus the cosine of the gradients of the two inputs",
        }
        variables: dict[str, Any] = {
            name: (("net", "layer"), getattr(self, name), {"long_name": text, "units": "1"})
            for name, text in about.items()
        }
        text = {"long_name": "mean square pre-activation of each input", "units": "1"}
        variables["lengths"] = (("input", "net", "layer"), self.lengths, text)
        return xarray.Dataset(
            variables,
            coords={
                "input": [1, 2],
                "net": np.arange(self.nets),
                "layer": np.arange(len(self.widths)),
                "width": ("layer", list(self.widths)),
            },
            attrs={"seed": self.seed, "method": self.method},
        )


def sample_pairs(
    layers: Sequence[MeanField],
    widths: Sequence[int],
    q1: float,
    q2: float,
    eps: float,
    *,
    nets: int = 64,
    seed: int = 0,
    start: str = "drawn",
) -> PairEnsemble:
    """Sample what random networks of finite width do to a pair, forwards and backwards.

    ``h^{l+1} = skip h^l + W D phi(h^l) + b`` with ``W ~ N(0, sigma_w^2/n_l)``,
    ``b ~ N(0, sigma_b^2)`` and noise ``D`` on the units, or ``skip h^l + D (W phi(h^l) + b)`` with
    one number ``D`` for the whole layer and input (``masks="layers"``), both in their exact law at
    any width (see the module).
    The first k of many networks are the networks of ``nets=k``. For statistics of more networks
    than are to be kept, other losses and more inputs see ``Ensemble``.

    Precision: mixed (see ``Ensemble``): ``eps`` is within 3e-4 of it (30 layers) where it is above
    .01, and has about 10 digits below that while ``q eps`` is above 1e-300 (a difference of two
    stored vectors would lose half its digits at eps = 1e-16 and all at 1e-32); ``gradient_eps``
    rests on a difference of slopes.

    Args:
        layers: one ``MeanField`` for each of the L hops: activation, sigma_w, sigma_b, drop, masks
            and skip.
        widths: units of each of the L + 1 pre-activations; equal on both sides of a residual hop.
        q1: length ``|h|^2/n`` of the first input's pre-activation at layer 0, > 0.
        q2: the same of the second input.
        eps: ``1 - cos`` of the two pre-activations at layer 0, in 0..2.
        nets: number of networks, at least 1.
        seed: a whole number, at least 0.
        start: "drawn": layer 0 too is Gaussian in every unit, as behind a random first layer, so it
            scatters about q1, q2 and eps; "pinned": conditioned on exactly these values, as when
            they have been measured (needs 2 units).

    Raises:
        InputError: with what was given and what is expected; of dropped weights (DropConnect), for
            which this law is not exact.

    Source: exact finite-width law, conditioning a Gaussian matrix on its products.

    Example:
        >>> from depthscale.theory.meanfield import MeanField
        >>> layers = [MeanField("relu", sigma_w=2**0.5)] * 10
        >>> sample_pairs(layers, [100] * 11, 1.0, 1.0, 0.5, nets=8).eps.shape
        (8, 11)
    """
    ensemble = Ensemble.of(layers, widths)
    pair = Pair(eps, q1, q2, start)
    run = ensemble.backward(
        "linear",
        pair,
        nets,
        seed,
        keep=True,
        to_start=True,
        observe=(),
        engine="weightless",
        progress=False,
    )
    assert run.trajectories is not None
    sign, log = (values[:, 0] for values in run.trajectories["delta_aa"])
    return PairEnsemble(
        lengths=np.moveaxis(run.values("q"), 1, 0),
        eps=run.values("eps")[:, 0],
        gradient=plain(sign, log - log[:, -1:]),
        gradient_eps=run.values("delta_eps")[:, 0],
        widths=ensemble.widths,
        seed=seed,
        method="sampled",
    )

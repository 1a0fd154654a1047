"""The answer of ``shape``: an activation, the network it belongs to, and what that does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from depthscale.answers import Quantity, Undefined
from depthscale.practice.shaping.families import Layer
from depthscale.practice.shaping.transform import CONDITIONS
from depthscale.theory.functions.function import Activation
from depthscale.theory.gaussian import Array
from depthscale.theory.meanfield import MeanField
from depthscale.theory.records import with_reasons

if TYPE_CHECKING:
    from torch import nn

    from depthscale.finite.band import CorrelationBand
    from depthscale.practice.shaping.apply import AppliedShape


@dataclass(frozen=True)
class Shaped:
    """A shaped network: layers ``h' = skip h + W psi(h)``, ``W ~ N(0, 1/fan_in)``, no biases.

    ``h`` at layer 0 are pre-activations of mean square 1, whose correlation is ``1 - eps0``.

    Attributes
    ----------
    base:
        The activation that was shaped, ``phi``.
    activation:
        The shaped one, ``psi``, with everything that multiplies it: ``E psi^2 = 1`` at length 1, or
        the squared scale of a branch.
    method:
        "slope", "tat", "dks" or "residual".
    depth, width:
        Layers and units, width None in mean field.
    target, quantile, eps0:
        As asked for.
    amount:
        Of nonlinearity: ``(1 - slope)^2/(1 + slope^2)`` (slope), ``C''(1)`` (tat), ``C'(1) - 1``
        (dks), ``s^2`` of the branch (residual), a layer each.
    layer:
        The parameters of ``psi`` and of the skip.
    eps:
        ``1 - correlation`` at infinite width, layer 0 to ``depth``.
    band:
        Its quantiles over networks of this width, None in mean field.
    reached:
        The statistic of the output that was asked for: correlation, its mean or its quantile.
    notes:
        What to know before using it.
    """

    base: Activation
    activation: Activation
    method: str
    depth: int
    width: int | None
    target: float
    quantile: float | None
    eps0: float
    amount: float
    layer: Layer
    eps: Array = field(repr=False)
    reached: float
    band: CorrelationBand | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    spec: Any = field(default=None, repr=False)
    """What was given as the activation, from which ``module`` is built."""

    @property
    def slope(self) -> Quantity:
        """Slope of the leaky ReLU for negative numbers."""
        if self.layer.slope is None:
            return Undefined(f"method {self.method!r} does not change slopes; see transform")
        return self.layer.slope

    @property
    def gain(self) -> float:
        """What the (moved) activation is multiplied with inside ``psi``.

        For the weights of a plain activation: ``nn.LeakyReLU(slope)`` behind weights ``N(0,
        gain^2/fan_in)`` is the same network as ``module()`` behind ``N(0, 1/fan_in)``.
        """
        return self.layer.gain

    @property
    def sigma_w(self) -> float:
        """Of the weights that ``module()`` expects: ``W ~ N(0, sigma_w^2/fan_in)``."""
        return 1.0

    @property
    def skip(self) -> float:
        """What the identity branch is multiplied with; 0 without one."""
        return self.layer.skip

    @property
    def correlation(self) -> Array:
        """At infinite width, layer 0 to ``depth``."""
        return 1 - self.eps

    @property
    def parameters(self) -> dict[str, float]:
        """The numbers of ``psi`` and of the branch, by name."""
        layer = self.layer
        if layer.slope is not None:
            found = {"slope": layer.slope, "gain": layer.gain}
        else:
            assert layer.transform is not None  # a layer has a slope or a transform
            found = dict(vars(layer.transform))
        if self.method == "residual":
            found = {
                "skip": layer.skip,
                "branch": layer.branch,
                "output_scale": found["output_scale"],
            }
        return found

    @property
    def mean_field(self) -> MeanField:
        """The layer as the theory of infinite width takes it, starting at length 1."""
        return MeanField(self.activation, sigma_w=self.sigma_w, skip=self.skip)

    def module(self, sigma_w: float = 1.0) -> nn.Module:
        """The shaped activation as a module without parameters, for weights of this ``sigma_w``.

        The output is divided by ``sigma_w``: give ``sqrt(2)`` for weights that stay at the He
        initialisation. It can be scripted, copied and pickled, and adds nothing to ``state_dict``.

        Raises
        ------
        InputError
            ``sigma_w`` is not positive, or the activation is a function of numpy arrays.

        Examples
        --------
        >>> from depthscale.practice.shaping.shape import shape
        >>> shape("relu", depth=50).module()
        LeakySlope(slope=0.430523, gain=1.29895)
        """
        from depthscale.practice.shaping.modules import build

        return build(self.spec, self.base, self.layer, sigma_w)

    def apply(
        self,
        model: nn.Module,
        *example_inputs: Any,
        of: Iterable[str | type[nn.Module]] | str | type[nn.Module] | None = None,
        leave: Iterable[str] = (),
        sigma_w: float = 1.0,
    ) -> AppliedShape:
        """Put the shaped activation in place of those of a model; see ``apply_shape``."""
        from depthscale.practice.shaping.apply import apply_shape

        return apply_shape(self, model, *example_inputs, of=of, leave=leave, sigma_w=sigma_w)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON: undefined numbers are null with an entry in ``reasons``."""
        record: dict[str, Any] = {
            "activation": self.base.name,
            "method": self.method,
            "depth": self.depth,
            "width": self.width,
            "target": self.target,
            "quantile": self.quantile,
            "eps0": self.eps0,
            "reached": self.reached,
            "slope": self.slope,
            "gain": self.gain,
            "sigma_w": self.sigma_w,
            "skip": self.skip,
            "amount": self.amount,
            "parameters": self.parameters,
            "correlation": self.correlation.tolist(),
            "eps": self.eps.tolist(),
            "band": None if self.band is None else self.band.to_dict(),
            "notes": list(self.notes),
        }
        return with_reasons(record)

    def __str__(self) -> str:
        """A few lines: the layer, its parameters, the correlation by depth, what to set."""
        lines = [
            f"{self.base.name} shaped for depth {self.depth}"
            + (", infinite width" if self.width is None else f", width {self.width}")
            + f": {self.method}",
            f"layer        {self._equation}",
            "parameters   " + ", ".join(f"{k} {v:.6g}" for k, v in self.parameters.items()),
            f"target       {self._statistic} = {self.target:.6g} (reached {self.reached:.6g})"
            f" from {1 - self.eps0:.6g}",
        ]
        if self.method in CONDITIONS:
            amount = 1 + self.amount if self.method == "dks" else self.amount
            lines.insert(2, "conditions   " + CONDITIONS[self.method].format(amount))
        marks = sorted({round(self.depth * k / 4) for k in range(5)})
        lines.append("mean field   " + _table(marks, [self.correlation[k] for k in marks]))
        if self.band is not None:
            for level, row in zip(self.band.levels, self.band.rho.T, strict=True):
                lines.append(f"  {level:6.1%}     " + _table(marks, [row[k] for k in marks]))
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    @property
    def _equation(self) -> str:
        skip = "" if not self.skip else "h + " if self.skip == 1 else f"{self.skip:.6g} h + "
        return f"h' = {skip}W psi(h), W ~ N(0, 1/fan_in), no biases"

    @property
    def _statistic(self) -> str:
        if self.width is None:
            return "correlation of the outputs"
        if self.quantile is None:
            return "mean correlation of the outputs"
        return f"{self.quantile:.3g} quantile of the correlation of the outputs"


def _table(marks: Iterable[int], values: Iterable[float]) -> str:
    return "  ".join(f"{mark}: {value:.4f}" for mark, value in zip(marks, values, strict=True))

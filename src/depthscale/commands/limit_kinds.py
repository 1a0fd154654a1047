"""The kinds of limits that ``depthscale limit`` answers: their options, equations and facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from depthscale.answers import InputError, Undefined
from depthscale.commands.options import (
    ACTIVATIONS,
    NO_BRANCH,
    UNEVEN,
    activation_option,
    correlation,
    length,
    masks_option,
    matrix,
    misalignment,
    number,
    place_options,
    positive,
)
from depthscale.commands.output import load_activation

if TYPE_CHECKING:
    import argparse

    from depthscale.finite.diffusion.covariance import CovarianceLimit
    from depthscale.finite.diffusion.equation import Equation
    from depthscale.finite.diffusion.residual import ResidualReLU
    from depthscale.theory.diffusion import AlignmentEquation, Drops
    from depthscale.theory.gaussian import Array
    from depthscale.theory.meanfield import MeanField

MOST_JUMPS = 1e9  # of all paths: a minute

Facts = Callable[[float], Mapping[str, Any]]
"""What is known exactly at one time, by name; ``Undefined`` where it does not exist."""


@dataclass(frozen=True)
class Question:
    """A limit and where it starts.

    Attributes
    ----------
    title:
        What it is, in a line.
    start:
        The start, by name, for the answer.
    constants:
        Of the equation, by name.
    facts, exact:
        What is known exactly at a time, and whatever the time.
    equation, u0:
        A one-dimensional equation and its start, or None.
    drops:
        Jumps in place of the equation's field, or None.
    limit, v0:
        A limit of Gram matrices and its start, or None.
    residual:
        A residual network, whose limit is deterministic, or None.
    notes:
        What to know before using the answer.
    infinite:
        Readings without mean and deviation, with the reason.
    """

    title: str
    start: Mapping[str, Any]
    constants: Mapping[str, Any]
    facts: Facts
    exact: Mapping[str, Any] = field(default_factory=dict)
    equation: Equation | None = None
    u0: float = 0.0
    drops: Drops | None = None
    limit: CovarianceLimit | None = None
    v0: Array | None = None
    residual: ResidualReLU | None = None
    notes: tuple[str, ...] = ()
    infinite: Mapping[str, str] = field(default_factory=dict)


class Kind(NamedTuple):
    """A kind of limit: its purpose, examples and notes, options, and what is asked by them."""

    purpose: str
    examples: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    question: Callable[[argparse.Namespace], Question]


# Shaped ReLU --------------------------------------------------------------------------------------

SHAPED_RELU = """\
examples:
  depthscale limit shaped-relu --c-plus 0 --c-minus -1 --rho0 .3 --time .5 --json
  depthscale limit shaped-relu --c-plus 0 --c-minus -1 --eps0 1e-6 --time .25,.5,1 --reading log_eps
  depthscale limit shaped-relu --covariance "1,.3,0;.3,1,.3;0,.3,1" --time .5 --pair 1,3

Slopes 1 + C+/sqrt(n) above 0 and 1 + C-/sqrt(n) below, width n, time t = depth/n. Readings of two
inputs: rho (default), eps, log_eps, z = artanh rho.

"""


def _shaped_relu_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--c-plus", type=number, default=0.0, metavar="C+", help="slope above 0 (default 0)")
    add("--c-minus", type=number, default=-1.0, metavar="C-", help="slope below 0 (default -1)")
    _two_inputs(parser)
    _several_inputs(parser)


def _shaped_relu(options: argparse.Namespace) -> Question:
    from depthscale.finite.diffusion.shaped import ShapedReLU

    limit = ShapedReLU(options.c_plus, options.c_minus)
    constants = {"c_plus": limit.c_plus, "c_minus": limit.c_minus, "bending": limit.bending}
    title = f"Shaped ReLU, slopes {_slope(limit.c_plus)} and {_slope(limit.c_minus)}"

    def of_lengths(time: float) -> dict[str, Any]:
        normal = limit.log_length(time)
        return {"log_length_mean": normal.mean, "log_length_variance": normal.variance}

    if options.covariance is not None:
        return _of_matrix(title, limit, constants, of_lengths, options.covariance)
    start = _start_of(options)
    u0 = limit.start(options.rho0, options.eps0)

    def facts(time: float) -> dict[str, Any]:
        wide = limit.mean_field(time, options.rho0, options.eps0)
        wide_by_depth = {"rho_infinite_width": float(wide.rho[0])}
        return {**wide_by_depth, **of_lengths(time)}

    rho0 = 1 - options.eps0 if options.rho0 is None else options.rho0
    late = limit.late
    exact = {
        "aligns": limit.aligns(rho0),
        "late_log_eps_drift": late.mean,
        "late_log_eps_variance": late.variance,
    }
    return Question(title, start, constants, facts, exact, limit, u0)


# Shaped smooth ------------------------------------------------------------------------------------

SHAPED_SMOOTH = """\
examples:
  depthscale limit shaped-smooth --activation tanh --a 1 --time .5,1 --json
  depthscale limit shaped-smooth --second 1 --third .25 --v0 1 --time .5      (may explode)
  depthscale limit shaped-smooth --second 1 --third -.75 --a .7 --rho0 .2 --time .5

phi(x) = s f(x/s) with s = A sqrt(n), width n, time t = depth/n. One input (default): readings V,
its mean square, and log_V. It explodes with some probability where b = (3/4 f''^2 + f''')/A^2 is
above 0; means are then those of the networks that have not, and quantiles count them as infinite.
Two inputs, with --rho0 or --eps0: rho (default), eps, log_eps, z = artanh rho.

"""


def _shaped_smooth_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--activation", metavar="NAME", help=ACTIVATIONS)
    add("--second", type=number, metavar="F2", help="or its second derivative at 0, with --third")
    add("--third", type=number, metavar="F3", help="its third derivative at 0")
    add("--a", type=number, default=1.0, metavar="A", help="scale, above 0 (default 1)")
    add("--v0", type=length, help="mean square of the input, or of both (default 1)")
    _two_inputs(parser)
    _several_inputs(parser)


def _shaped_smooth(options: argparse.Namespace) -> Question:
    from depthscale.finite.diffusion.smooth import ShapedSmooth

    derivatives = options.second, options.third
    if (options.activation is None) == (derivatives == (None, None)):
        raise InputError("give --activation, or its derivatives at 0 as --second and --third")
    if options.activation is not None:
        limit = ShapedSmooth.of(load_activation(options.activation), options.a)
    elif None in derivatives:
        raise InputError("--second and --third go together; give both (0 where it vanishes)")
    else:
        limit = ShapedSmooth(*derivatives, options.a)
    constants = {"second": limit.second + 0.0, "third": limit.third, "a": limit.a, "b": limit.b}
    shaped = options.activation or f"f'' = {limit.second:g}, f''' = {limit.third:g}"
    title = f"Shaped smooth activation, {shaped}, at scale {limit.a:g} sqrt(n)"
    if options.covariance is not None:
        if options.v0 is not None:
            raise InputError("--covariance holds the mean squares; leave --v0 out")
        return _of_matrix(title, limit, constants, lambda time: {}, options.covariance)
    v0 = 1.0 if options.v0 is None else options.v0

    def facts(time: float) -> dict[str, Any]:
        return {
            "explosion_probability": _explosion(limit, v0, time),
            "mean_inverse_length": limit.mean_inverse(v0, time),
        }

    settled = limit.stationary
    exact = {
        "ever_explodes": limit.ever_explodes(v0),
        "stationary": settled if isinstance(settled, Undefined) else settled._asdict(),
    }
    if options.rho0 is None and options.eps0 is None:
        tail = f"b = {limit.b:g} > 0: the density of V falls as 1/V^2, so that it has no mean"
        return Question(
            title,
            {"v0": v0},
            constants,
            facts,
            exact,
            equation=limit,
            u0=limit.start(v0),
            infinite={"V": f"{tail}; take its quantiles, or log_V"} if limit.b > 0 else {},
        )
    rho0 = 1 - options.eps0 if options.rho0 is None else options.rho0
    pair = [[v0, rho0 * v0], [rho0 * v0, v0]]
    return _of_matrix(title, limit, constants, facts, pair, exact)


def _explosion(limit: Any, v0: float, time: float) -> float | Undefined:
    try:
        return float(limit.explosion(v0, time)[0])
    except InputError as error:
        return Undefined(str(error))


# Residual -----------------------------------------------------------------------------------------

RESIDUAL = """\
examples:
  depthscale limit residual --rho0 .3 --time 1
  depthscale limit residual --variance 2 --slope-minus 0.2 --rho0 0 --time .5,1 --width 256 --json

Branches of weights N(0, VARIANCE/(d n)) and an activation of two slopes, depth d, width n, time
t = layer/d. The correlation is deterministic at infinite width, whatever the depth, and its law
normal with a standard deviation of order 1/sqrt(n), which --width gives.

"""


def _residual_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--variance", type=number, default=1.0, help="sigma^2 of the branches (default 1)")
    add("--slope-plus", type=number, default=1.0, metavar="R", help="slope above 0 (default 1)")
    add("--slope-minus", type=number, default=0.0, metavar="R", help="slope below 0 (default 0)")
    add("--width", type=positive, metavar="N", help="units a layer (default: infinitely many)")
    add("--depth", type=positive, default=64, metavar="D", help="with --width: its layers, which "
        "matter by order 1/D (default 64)")  # fmt: skip
    _two_inputs(parser)


def _residual(options: argparse.Namespace) -> Question:
    from depthscale.finite.diffusion.residual import ResidualReLU, equivalence

    network = ResidualReLU(options.variance, options.slope_plus, options.slope_minus)
    same = equivalence(network)
    constants = {
        "variance": network.variance,
        "slope_plus": network.slope_plus,
        "slope_minus": network.slope_minus,
        "bending": network.bending,
        "c_plus": same.shaped.c_plus,
        "c_minus": same.shaped.c_minus,
        "growth": network.growth,
        "width": options.width,
    }
    start = _start_of(options)
    same.shaped.start(options.rho0, options.eps0)  # refuses what stays as it is
    title = (
        f"Residual network, sigma^2 = {network.variance:g}, slopes {network.slope_plus:g} and"
        f" {network.slope_minus:g}"
    )
    slopes = " and ".join(_slope(c, "d") for c in (same.shaped.c_plus, same.shaped.c_minus))
    equal = f"equals a shaped network of slopes {slopes} at infinite width"
    return Question(
        title,
        start,
        constants,
        lambda time: {"log_length": network.growth * time},
        residual=network,
        notes=(equal, *same.differences),
    )


# Unshaped -----------------------------------------------------------------------------------------

UNSHAPED = """\
examples:
  depthscale limit unshaped --activation relu --time .5 --json
  depthscale limit unshaped --activation tanh --q .5 --y0 20 --time .125,.25,.5 --reading log_y
  depthscale limit unshaped --activation tanh --sigma-b .3 --width 256 --drop 1e-5 --time 1
  depthscale limit unshaped --activation tanh --sigma-b .3 --field 2 --theta -.5 --time 4

At criticality, width n, time t = depth/n: y = n^(1/beta) (1 - rho) obeys
d log y = [theta + lam - A y^beta + H/y] dt + s dB, beta = 1 (smooth) or 1/2 (kinked).
Readings: log_q (default), q = t^(1/beta) y, log_y, y, x = y^-beta; with --width log_eps, eps, rho.

"""


def _unshaped_arguments(parser: argparse.ArgumentParser) -> None:
    activation_option(parser)
    place_options(parser)
    add = parser.add_argument
    add("--theta", type=number, help="detuning n (chi - 1) (default 0)")
    add("--field", type=number, metavar="H", help="dropout field n^(1 + 1/beta) h (default 0)")
    add("--width", type=positive, metavar="N", help="units a layer of a real network")
    add("--drop", type=number, help="with --width: probability dropped, which gives theta and H, "
        "or jumps in place of H where single drops count")  # fmt: skip
    masks_option(parser, clean=UNEVEN, layers=NO_BRANCH)
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--y0", type=length, help="start at y (default: at infinity)")
    start.add_argument("--x0", type=length, help="or at x = y^-beta")
    start.add_argument("--eps0", type=misalignment, help="or, with --width, at this misalignment")


def _unshaped(options: argparse.Namespace) -> Question:
    from depthscale.finite.diffusion.unshaped import Unshaped
    from depthscale.theory.diffusion import stochastic_limit

    _check_unshaped(options)
    layer = _critical_layer(options)
    limit = stochastic_limit(layer)
    notes: tuple[str, ...] = ()
    scale, drops = None, None
    equation = limit.equation(options.theta or 0.0, options.field or 0.0)
    if options.width is not None:
        scaled = limit.at_width(options.width)
        scale, notes = scaled.scale, scaled.notes
        if options.theta is None and options.field is None:
            equation, drops = scaled.equation, scaled.drops
    why = None if drops is None else _field_instead(drops, options)
    if why is not None:
        drops, notes = None, (*notes, why)
    constants = {
        "A": equation.curvature,
        "beta": equation.beta,
        "s2": equation.variance,
        "lam": equation.lam,
        "kap": equation.kap,
        "theta": equation.detuning,
        "H": equation.field,
        "entrance": equation.entrance,
        "s2_parts": dict(limit.variance_parts),
        "lam_parts": dict(limit.lam_parts),
        "q": limit.q,
        "sigma_w": layer.sigma_w,
        "sigma_b": layer.sigma_b,
        "drop": layer.drop,
        "width": options.width,
        "scale": scale,
        "jump_rate": None if drops is None else drops.rate,
    }
    start, log_y = _start_of_unshaped(options, equation.beta, scale)
    x0 = 0.0 if log_y == float("inf") else _exp(-equation.beta * log_y)
    place = f", sigma_b = {layer.sigma_b:.4g}" if layer.sigma_b else ""
    title = f"Unshaped {layer.activation.name} at criticality, sigma_w = {layer.sigma_w:.6g}{place}"
    return Question(
        title,
        start,
        constants,
        lambda time: _closed_moments(equation, time, x0),
        {"stationary": _stationary(equation, drops), "late_log_y_drift": equation.late_rate},
        Unshaped(equation, scale),
        log_y,
        drops=drops,
        notes=notes,
    )


def _check_unshaped(options: argparse.Namespace) -> None:
    for name in ("drop", "eps0"):
        if getattr(options, name) is not None and options.width is None:
            raise InputError(f"--{name} is that of a real network; give its --width with it")
    own = [name for name in ("theta", "field") if getattr(options, name) is not None]
    if own and options.drop is not None:
        raise InputError(f"--drop gives theta and H at the --width; leave --{own[0]} out")
    if options.eps0 == 0:
        raise InputError("--eps0 is 0: two equal signals stay equal; give a start above 0")


def _critical_layer(options: argparse.Namespace) -> MeanField:
    """The layer at its critical point; where there is none, a message on what still works."""
    from depthscale.theory.universal.record import universality

    record = universality(
        load_activation(options.activation),
        sigma_b=options.sigma_b,
        q=options.q,
        drop=options.drop or 0.0,
        masks=options.masks,
    )
    if record.field is None:
        raise InputError(
            f"{record.reason}: no limit of this kind; depthscale simulate samples such networks"
        )
    return record.field


def _start_of_unshaped(
    options: argparse.Namespace, beta: float, scale: float | None
) -> tuple[dict[str, Any], float]:
    """The start by name, and ``log y``."""
    import math

    if options.y0 is not None:
        return {"y0": options.y0}, math.log(options.y0)
    if options.x0 is not None:
        return {"x0": options.x0}, -math.log(options.x0) / beta
    if options.eps0 is not None:
        assert scale is not None  # checked
        return {"eps0": options.eps0}, math.log(scale * options.eps0)
    return {"x0": 0.0}, math.inf


def _closed_moments(equation: AlignmentEquation, time: float, x0: float) -> dict[str, Any]:
    if equation.field:
        why = Undefined("with a field y^-beta has no closed moments")
        return {"x_mean": why, "x_variance": why}
    moments = equation.inverse_moments(time, x0)
    return {"x_mean": float(moments.mean), "x_variance": float(moments.variance)}


def _field_instead(drops: Drops, options: argparse.Namespace) -> str | None:
    """Why the field stands in place of the jumps of single drops, or None."""
    if options.solver == "density":
        return "--solver density: the field H in place of the jumps of single drops"
    count = drops.rate * options.time[-1] * options.paths
    if count > MOST_JUMPS:
        return (
            f"the field H in place of the jumps of single drops, which would be {count:.1e} in"
            f" {options.paths:,} paths: give fewer --paths to have them"
        )
    return None


def _stationary(equation: AlignmentEquation, drops: Drops | None) -> dict[str, Any] | Undefined:
    if drops is not None:
        return Undefined("with jumps in place of the field no closed form is known")
    law = equation.stationary
    if isinstance(law, Undefined):
        return law
    return {"log_y_mean": law.mean, "log_y_variance": law.variance, "y_mean": law.moment(1)}


def _exp(value: float) -> float:
    import math

    return math.exp(min(value, 700.0))


# Shared -------------------------------------------------------------------------------------------


def _slope(c: float, rate: str = "n") -> str:
    """``1 + c/sqrt(n)`` for a reader."""
    return f"1 {'-' if c < 0 else '+'} {abs(c):g}/sqrt({rate})" if c else "1"


def _two_inputs(parser: argparse.ArgumentParser) -> None:
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--rho0", type=correlation, help="correlation of two inputs at the start")
    start.add_argument("--eps0", type=misalignment, help="or 1 - correlation, where that is small")


def _several_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--covariance", type=matrix, metavar="MATRIX", help="or mean products of several inputs, "
        'such as "1,.3;.3,1"')  # fmt: skip
    add("--pair", type=_pair, metavar="A,B", help="with --covariance: the two inputs that are told "
        "about, by number from 1 (default 1,2)")  # fmt: skip


def _pair(text: str) -> tuple[int, int]:
    from argparse import ArgumentTypeError

    numbers = [positive(word.strip()) for word in text.split(",")]
    if len(numbers) != 2 or numbers[0] == numbers[1]:
        raise ArgumentTypeError(f"expected two different inputs such as 1,2, got {text!r}")
    return numbers[0], numbers[1]


def _start_of(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in ("rho0", "eps0")}
    found = {name: value for name, value in given.items() if value is not None}
    if not found:
        raise InputError("give the start: --rho0, or --eps0 where 1 - rho is small")
    return found


def _of_matrix(
    title: str,
    limit: CovarianceLimit,
    constants: Mapping[str, Any],
    facts: Facts,
    rows: Sequence[Sequence[float]],
    exact: Mapping[str, Any] | None = None,
) -> Question:
    from depthscale.finite.diffusion.covariance import checked_matrix

    try:
        v0 = checked_matrix(rows)
    except InputError as error:
        raise InputError(f"--covariance: {error}") from None
    start = {"covariance": v0.tolist()}
    return Question(title, start, constants, facts, exact or {}, limit=limit, v0=v0)


KINDS = {
    "shaped-relu": Kind(
        "two slopes, 1 + c/sqrt(width)", SHAPED_RELU, _shaped_relu_arguments, _shaped_relu
    ),
    "shaped-smooth": Kind(
        "a smooth activation at a scale sqrt(width)",
        SHAPED_SMOOTH,
        _shaped_smooth_arguments,
        _shaped_smooth,
    ),
    "residual": Kind("branches of size 1/sqrt(depth)", RESIDUAL, _residual_arguments, _residual),
    "unshaped": Kind("any critical activation, as it is", UNSHAPED, _unshaped_arguments, _unshaped),
}

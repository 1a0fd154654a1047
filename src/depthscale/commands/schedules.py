"""The command of dropout schedules: the best one for an objective, or what a given one is worth."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError, Undefined
from depthscale.commands import Command
from depthscale.commands.options import (
    ACTIVATIONS,
    misalignment,
    number,
    positive,
    seed,
    shape,
    words,
)
from depthscale.commands.output import (
    HEALTHY,
    check_writable,
    load_activation,
    print_json,
    print_text,
    say_written,
    working,
)
from depthscale.files import writing

if TYPE_CHECKING:
    from depthscale.practice.schedule import Budget
    from depthscale.practice.schedules.compare import Comparison, Evaluation
    from depthscale.practice.schedules.optimise import Optimum
    from depthscale.theory.meanfield import MeanField

MOST_SITES = 1000  # followed a thousand times over: some seconds
BIAS = math.sqrt(0.1)  # of the paper's smooth networks
DEPTH, MEAN, EPS0 = 6, 0.1, 0.5
OF_NUMBERS = ("activation", "sigma_w", "sigma_b", "depth", "total", "of", "evaluate", "save")
OF_MODELS = ("data", "shape", "batch", "kinds", "across_kinds", "apply_to")
OF_A_SEARCH = ("depth", "mean", "total", "cap", "floor", "weights", "of", "objective")
OBJECTIVES = ("signal", "noise", "exposure", "snr", "xi", "rank-flow", "reach", "gradient")

SCHEDULE = """\
examples:
  depthscale schedule --activation relu --depth 6 --mean 0.1 --cap 0.2 --objective signal
  depthscale schedule --activation tanh --depth 100 --objective snr --save schedule.json
  depthscale schedule --evaluate 0.2,0.2,0.2,0,0,0 --json
  depthscale schedule --objective noise:1,signal:0.5 --weights 1,1,2,2 --total 0.6 --cap 0.3
  depthscale schedule --activation tanh --of field --mean 0.1 --floor 0.02
  depthscale schedule model.py:build --data digits --objective noise --apply-to schedule.json

One dropout rate for each site, of a given mean, that is best for one objective; and what it is
worth in all of them, beside the uniform, the mirrored and 1,000 permuted schedules.
xi, rank-flow and reach are surrogates of 2605.21648 (rank-flow: version 1, reach: version 2); the
others follow the exact map from layer to layer, and contradict them on what keeps signals.
  signal     less  loss of a small difference between inputs, -log of the product of slopes
  noise      less  misalignment of two passes of one input at the output
  exposure   more  that misalignment, summed over all layers
  snr        more  what a pair at EPS0 keeps over the noise, relative to the noise
  xi         more  depth scale from the mean of 1 - slope
  rank-flow  more  dropout where rank is lost without it
  reach      more  dropout whose effect reaches far
  gradient   less  variance over the layers of the log of the gradient's growth

Of a MODEL (its code is run: only files that you trust) every kind of site keeps the mean rate that
it has, or gets --mean. A plain chain of layers is optimised by the exact recursion of its weights;
any other model by what each site was measured to do alone, for signal, noise, exposure or snr. The
advice is then measured on the data. --apply-to writes what depthscale.apply_schedule(model, PATH)
puts on a model of the same build; the model on disk is not touched.

"""


def _schedule_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", nargs="?", help="package.module:callable or file.py[:callable]; none: numbers")
    add("--activation", metavar="NAME", help=f"{ACTIVATIONS} (default relu)")
    add("--sigma-w", type=number, help="weight scale (default: critical without dropout)")
    add("--sigma-b", type=number, help="bias scale (default: 0 for scale-free activations, else "
        "0.3162)")  # fmt: skip
    add("--depth", type=positive, help="sites, at most 1000 (default 6)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--mean", type=number, help="mean probability dropped (default "
        "0.1, or what the model has)")  # fmt: skip
    budget.add_argument("--total", type=number, help="or the sum over the sites")
    add("--cap", type=number, help="largest at one site (default: twice the mean)")
    add("--floor", type=number, help="least at one site (default 0)")
    add("--weights", type=_rate_list, metavar="W", help="what a site counts in the mean or total: "
        "one number above 0 for each, separated by commas (default 1)")  # fmt: skip
    add("--of", choices=("drop", "field"), help="what the budget counts: rates, or the dropout "
        "fields p (1 - sigma_b^2/q) (default drop)")  # fmt: skip
    add("--objective", type=_objective, metavar="NAME", help=f"what to choose for: "
        f"{', '.join(OBJECTIVES)} (default noise), or a mix NAME:WEIGHT,... of them")  # fmt: skip
    add("--evaluate", type=_rate_list, metavar="RATES", help="instead, tell what these rates are "
        "worth: one for each site, separated by commas")  # fmt: skip
    add("--eps0", type=misalignment, help="misalignment of the pair of snr, above 0 "
        "and at most 1 (default 0.5)")  # fmt: skip
    add("--seed", type=seed, default=0, help="of starts and permutations")
    add("--save", type=Path, metavar="PATH", help="write the schedule: .json")
    of_model = parser.add_argument_group("of a model")
    add = of_model.add_argument
    add("--data", help="as for depthscale audit")
    add("--shape", type=shape, help="shape of one example, such as 3,32,32")
    add("--batch", type=positive, help="examples, at most (default 128)")
    add("--kinds", type=words, metavar="A,B,...", help="of sites to schedule: attention, "
        "projection, mlp, path, embedding, other (default: all)")  # fmt: skip
    add("--across-kinds", action="store_true", help="one budget for all kinds of sites together")
    add("--apply-to", type=Path, metavar="PATH", help="write rates with the names of sites: .json")


def _objective(text: str) -> str | dict[str, float]:
    names = [part.split(":")[0].strip() for part in text.split(",")]
    wrong = [name for name in names if name not in OBJECTIVES]
    if wrong:
        raise argparse.ArgumentTypeError(
            f"invalid choice: {wrong[0]!r}; expected {', '.join(OBJECTIVES)}, or a mix such as"
            " noise:1,signal:0.5"
        )
    if text == names[0]:
        return text
    mix = {}
    for name, part in zip(names, text.split(","), strict=True):
        if part.count(":") != 1 or name in mix:
            raise argparse.ArgumentTypeError(
                f"expected each objective once, with its weight, as in noise:1,signal:0.5; got"
                f" {text!r}"
            )
        mix[name] = number(part.split(":")[1])
    return mix


def _rate_list(text: str) -> list[float]:
    return [number(part.strip()) for part in text.split(",")]


def schedule(options: argparse.Namespace) -> int:
    """Print a schedule, every objective's value of it, and how good it is."""
    from depthscale.practice.schedules.optimise import Optimum

    if options.model is not None:
        from depthscale.commands.model_schedules import schedule_of_model

        _refuse(options, OF_NUMBERS, "is for a network on paper, and a model was given")
        _refuse(
            options, ("eps0",), "is for a network on paper; the pairs of a model are its data's"
        )
        return schedule_of_model(options, _budget_of_model(options))
    _refuse(options, OF_MODELS, "needs a model: give package.module:callable or file.py")
    check_writable(options.save, (".json",))
    eps0 = EPS0 if options.eps0 is None else options.eps0
    with working("Searching"):
        found = _given(options, eps0) if options.evaluate is not None else _best(options, eps0)
    payload = _payload(_network(options), found, eps0)
    if isinstance(found, Optimum):
        payload |= {
            "objective": found.objective,
            "mix": options.objective if isinstance(options.objective, dict) else None,
            **_budget_row(found.budget),
            "gain": found.gain,
            "helps": found.helps,
            "certificate": found.certificate.to_dict(),
        }
    if options.save is not None:
        with writing(options.save):
            options.save.write_text(found.schedule.to_json() + "\n", encoding="utf-8")
    if options.json:
        print_json(payload)
    else:
        from depthscale.report.schedules import render_schedule

        print_text(render_schedule(payload))
    say_written(options.json, options.save)
    return HEALTHY


def _refuse(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and value is not False:
            raise InputError(f"--{name.replace('_', '-')} {why}")


def _budget_of_model(options: argparse.Namespace) -> Budget | None:
    """The budget of the options; None where every kind of site keeps its own mean."""
    if options.mean is not None:
        return budget_of(options)
    why = "of a model goes with --mean; without, each kind of site keeps the mean that it has"
    _refuse(options, ("cap", "floor", "weights"), why)
    return None


def _given(options: argparse.Namespace, eps0: float) -> Evaluation:
    """What the rates that were given are worth."""
    from depthscale.practice.schedule import Schedule
    from depthscale.practice.schedules.optimise import evaluate_schedule

    for name in OF_A_SEARCH:
        if getattr(options, name) is not None:
            raise InputError(f"--evaluate takes a schedule as it is; leave --{name} out")
    _few(len(options.evaluate))
    rates = Schedule(tuple(options.evaluate))
    return evaluate_schedule(_network(options), rates, eps0, seed=options.seed)


def _best(options: argparse.Namespace, eps0: float) -> Optimum:
    """The best schedule for the objective and the budget of the options."""
    from depthscale.practice.schedules.optimise import optimise_network

    budget = budget_of(options)
    weights = budget.weights
    depth = options.depth or (len(weights) if weights else DEPTH)
    _few(depth)
    objective = options.objective or "noise"
    return optimise_network(_network(options), depth, budget, objective, eps0, options.seed)


def _few(depth: int) -> None:
    if depth > MOST_SITES:
        raise InputError(f"the schedule has {depth} sites; expected at most {MOST_SITES}")


def budget_of(options: argparse.Namespace) -> Budget:
    """The budget of ``--mean`` or ``--total``, ``--cap``, ``--floor``, ``--weights``, ``--of``.

    The cap is twice the mean where it is left out.
    """
    from depthscale.practice.schedule import Budget

    weights = None if options.weights is None else tuple(options.weights)
    mean = MEAN if options.mean is None and options.total is None else options.mean
    share = mean
    if mean is None:
        if weights and not sum(weights) > 0:
            raise InputError(f"weights are {list(weights)}; expected positive numbers")
        size = len(weights) if weights else options.depth or DEPTH
        share = options.total / (sum(weights) if weights else size)
    cap = min(2 * share, 0.99) if options.cap is None else options.cap
    floor = 0.0 if options.floor is None else options.floor
    return Budget(mean, options.total, cap, floor, options.of or "drop", weights)


def _budget_row(budget: Budget) -> dict[str, Any]:
    """The budget as it was given; a mean or a total, the other is None."""
    weights = None if budget.weights is None else list(budget.weights)
    row = {name: getattr(budget, name) for name in ("mean", "total", "cap", "floor", "of")}
    return {**row, "weights": weights}


def _network(options: argparse.Namespace) -> MeanField:
    """The network that the options tell, critical without dropout where they leave sigma_w out."""
    from depthscale.theory.activation import activation
    from depthscale.theory.criticality import critical_point
    from depthscale.theory.meanfield import MeanField

    phi = activation(load_activation(options.activation or "relu"))
    sigma_b = options.sigma_b
    if sigma_b is None:
        sigma_b = 0.0 if phi.scale_free else BIAS
    sigma_w = options.sigma_w
    if sigma_w is None:
        point = critical_point(phi, sigma_b=sigma_b)
        if not point.exists or isinstance(point.sigma_w, Undefined):
            raise InputError(
                f"{phi.name} with sigma_b = {sigma_b:.4g} has no critical point to start from; give"
                " --sigma-w, or another --sigma-b"
            )
        sigma_w = float(point.sigma_w)
    return MeanField(phi, sigma_w=sigma_w, sigma_b=sigma_b)


def _payload(network: MeanField, found: Evaluation, eps0: float) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "activation": network.activation.name,
        "sigma_w": network.sigma_w,
        "sigma_b": network.sigma_b,
        "eps0": eps0,
        "depth": len(found.schedule),
        "rates": list(found.schedule.rates),
        "mean_rate": found.schedule.mean,
        "objectives": {},
        "reasons": {},
    }
    for name, one in found.objectives.items():
        payload["objectives"][name] = _row(one)
        why = [v.reason for v in _values(one).values() if isinstance(v, Undefined)]
        payload["reasons"] |= {f"objectives.{name}": reason for reason in why[:1]}
    return payload


def _values(one: Comparison) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("schedule", "uniform", "mirrored", "best_random")}


def _row(one: Comparison) -> dict[str, Any]:
    row = {k: None if isinstance(v, Undefined) else v for k, v in _values(one).items()}
    row["more_is_better"] = one.more_is_better
    if one.surrogate is not None:
        row["surrogate"] = dict(zip(("schedule", "uniform"), one.surrogate, strict=True))
    return row


COMMANDS = {"schedule": Command(SCHEDULE, _schedule_arguments, schedule)}

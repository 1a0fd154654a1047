"""The command of dropout schedules: the best one for an objective, or what a given one is worth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from depthscale.answers import InputError, Undefined
from depthscale.commands.output import (
    HEALTHY,
    check_writable,
    load_activation,
    print_json,
    print_text,
    say_written,
    working,
    writing,
)

if TYPE_CHECKING:
    import argparse

    from depthscale.practice.schedules.compare import Comparison, Evaluation
    from depthscale.theory.meanfield import MeanField

MOST_SITES = 1000  # followed a thousand times over: some seconds
BIAS = math.sqrt(0.1)  # of the paper's smooth networks
DEPTH, MEAN = 6, 0.1


def schedule(options: argparse.Namespace) -> int:
    """Print a schedule, every objective's value of it, and how good it is."""
    from depthscale.practice.schedule import Budget, Schedule
    from depthscale.practice.schedules.optimise import Optimum, evaluate_schedule, optimise_schedule

    check_writable(options.save, (".json",))
    depth = DEPTH if options.depth is None else options.depth
    if options.evaluate is not None:
        for name in ("depth", "mean", "cap", "objective"):
            if getattr(options, name) is not None:
                raise InputError(f"--evaluate takes a schedule as it is; leave --{name} out")
        depth = len(options.evaluate)
    if depth > MOST_SITES:
        raise InputError(f"the schedule has {depth} sites; expected at most {MOST_SITES}")
    with working("Searching"):
        found: Evaluation
        if options.evaluate is not None:
            given = Schedule(tuple(options.evaluate))
            network = _network(options)
            found = evaluate_schedule(network, given, options.eps0, seed=options.seed)
        else:
            mean = MEAN if options.mean is None else options.mean
            cap = min(2 * mean, 0.99) if options.cap is None else options.cap
            budget, name = Budget(mean=mean, cap=cap), options.objective or "noise"
            network = _network(options)
            found = optimise_schedule(network, depth, budget, name, options.eps0, options.seed)
    payload = _payload(network, found, options.eps0)
    if isinstance(found, Optimum):
        payload |= {
            "objective": found.objective,
            "mean": found.budget.mean,
            "cap": found.budget.cap,
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


def _network(options: argparse.Namespace) -> MeanField:
    """The network that the options tell, critical without dropout where they leave sigma_w out."""
    from depthscale.theory.activation import activation
    from depthscale.theory.criticality import critical_point
    from depthscale.theory.meanfield import MeanField

    phi = activation(load_activation(options.activation))
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

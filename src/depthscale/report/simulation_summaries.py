"""What a simulation of random networks found, beside the theory, in plain text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.terminal import sparkline
from depthscale.report.words import clean, is_number, percent, plain_number, plural

FEW_LAYERS = 16  # up to this many layers the table shows every one
ROWS = 11
SUNK = -600.0  # logarithm of a length from which the next one may be too small for float64
CONSPICUOUS = 3.0  # standard errors from which a difference is told


class Column(NamedTuple):
    """One column of the table of layers."""

    title: str
    texts: list[str]
    expendable: bool = False

    @property
    def width(self) -> int:
        """Characters of its widest text."""
        return max(map(len, [self.title, *self.texts]))


def render_simulation(payload: Mapping[str, Any]) -> str:
    """Return the answer of ``depthscale simulate`` for a reader.

    ``payload`` is what the command prints as JSON.
    """
    lines = wrap("", _title(payload["settings"]))
    lines += ["─" * WIDTH, *wrap("", headline(payload)), ""]
    lines += [*_curves(payload), "", *_table(payload), *_kernel(payload), *_footnotes(payload), ""]
    return "\n".join([*lines, *_run(payload)])


def headline(payload: Mapping[str, Any]) -> str:
    """What finite width does here, in one sentence."""
    parts = [_deaths(payload), _misalignment(payload), _spread(payload), _floor(payload)]
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}."


def _title(settings: Mapping[str, Any]) -> str:
    facts = [f"{name} = {settings[name]:g}" for name in ("sigma_w", "sigma_b")]
    drop = settings["drop"]
    if isinstance(drop, list):
        facts.append(f"drop {min(drop):g} to {max(drop):g} by layer")
    elif drop:
        facts.append(f"drop = {drop:g}")
    if np.any(drop):
        facts.append(f"{clean(settings['masks'])} masks")
    if settings["skip"]:
        facts.append(f"skip = {settings['skip']:g}")
    if settings["weights"] != "gaussian":
        facts.append(f"{settings['weights']} weights")
    facts.append(f"width {_width(settings)}, depth {settings['depth']}")
    if settings["loss"]:
        untied = "" if settings["tied"] else " sent back through other weights"
        facts.append(f"{settings['loss']} loss{untied}")
    nets = plural(settings["nets"], "random network")
    return f"{nets}: {clean(settings['activation'])}, {', '.join(facts)}"


def _width(settings: Mapping[str, Any]) -> str:
    least, most = min(settings["widths"]), max(settings["widths"])
    return f"{least}" if least == most else f"{least} to {most}"


# The sentence -------------------------------------------------------------------------------------


def _deaths(payload: Mapping[str, Any]) -> str:
    dead, nets = payload["dead"], payload["settings"]["nets"]
    if not dead[-1]:
        return ""
    first = next(k for k, count in enumerate(dead) if count)
    before = payload["q"]["mean_log"][first - 1]
    if before is not None and before < SUNK:
        return f"from layer {first} on signals are below the smallest number of float64"
    if dead[-1] == nets:
        one = "the network is dead" if nets == 1 else f"all {nets} networks are dead"
        return f"{one} from layer {dead.index(nets)} on: a signal has become exactly 0 there"
    return (
        f"{dead[-1]} of {nets} networks ({percent(dead[-1] / nets)}) die: a signal becomes exactly"
        " 0 on the way"
    )


def _misalignment(payload: Mapping[str, Any]) -> str:
    eps, last = payload["eps"], payload["settings"]["depth"]
    mean, error = eps["mean"][-1], eps["sem"][-1]
    if not is_number(mean):
        return "" if payload["dead"][-1] else "the signals leave the range of float64 on the way"
    text = f"at layer {last} eps is {_with_error(mean, error)} in the mean"
    theory = payload["theory"]["infinite_width"]
    wide = theory["eps"][-1] if theory else None
    if wide is not None and error is not None:
        text += _apart(mean, error, wide, payload["theory"]["first_order"])
    if payload["settings"]["nets"] > 1:
        median, *ends = (plain_number(eps[name][-1]) for name in ("median", "q05", "q95"))
        text += f", and {median} in a typical network (5 to 95 %: {' to '.join(ends)})"
    return text


def _apart(mean: float, error: float, wide: float, order: Mapping[str, Any] | None) -> str:
    """How far a mean is from infinite width, where its error lets one see that."""
    if wide <= 0 or abs(mean - wide) < CONSPICUOUS * error:
        return f", that of infinite width ({plain_number(wide)}) within its error"
    ratio = mean / wide
    text = f", {_off(ratio)} infinite width ({plain_number(wide)}"
    if order and order["reliable"][-1]:
        text += f"; first order in 1/width {plain_number(order['eps']['mean'][-1])}"
    return f"{text})"


def _off(ratio: float) -> str:
    if 0.5 <= ratio <= 2:
        side = "above" if ratio > 1 else "below"
        return f"{plain_number(100 * abs(ratio - 1), 2)} % {side}"
    return f"{plain_number(ratio, 2)} times that of"


def _spread(payload: Mapping[str, Any]) -> str:
    gradient = payload["grad_aa"]
    if not gradient or not is_number(gradient["var_log"][0]):
        return ""
    text = (
        "the squared gradient of the first weights scatters by a factor"
        f" {_factor(gradient['var_log'][0])} from network to network"
    )
    law = payload["theory"]["log_normal"]
    if law and law["grad_aa"]["var_log"][0] > 0:
        text += f" (theory {_factor(law['grad_aa']['var_log'][0])})"
    return text


def _factor(variance: float) -> str:
    """One standard deviation of a logarithm, as a factor."""
    return from_log(math.sqrt(variance), 2)


def _floor(payload: Mapping[str, Any]) -> str:
    floor, products = payload["theory"]["noise_floor"], payload["grad_ab"]
    if not floor or not is_number(products["mean_log"][0]):
        return ""
    below = floor["crossover"]
    if below >= payload["settings"]["depth"]:
        return "the product of both inputs' gradients stays above its noise floor"
    return (
        f"the product of both inputs' gradients is noise from about {plural(round(below), 'layer')}"
        f" below the loss on (cosine {plain_number(floor['cosine'], 2)} rms)"
    )


# Curves and table ---------------------------------------------------------------------------------


def _curves(payload: Mapping[str, Any]) -> list[str]:
    """Measurement and theory as rows of bars on one logarithmic scale."""
    depth, theory = payload["settings"]["depth"], payload["theory"]
    wide = theory["infinite_width"]
    groups = [
        (
            f"misalignment eps, layer 0 to {depth}, log scale",
            [
                ("sampled", _log_median(payload["eps"])),
                ("infinite width", _log(wide["eps"] if wide else [])),
            ],
        )
    ]
    for name, what in (("grad_aa", "gradient, squared"), ("grad_ab", "gradient product, size")):
        if payload[name]:
            rows = [("sampled", _array(payload[name]["mean_log"]))]
            rows += [
                (title, _array(means[name]["log_abs_mean"]))
                for title, means in _expected(theory).items()
            ]
            groups.append((f"{what}, hop 0 to {depth - 1}, log scale", rows))
    return [line for title, rows in groups for line in _group(title, rows)]


def _group(title: str, rows: Sequence[tuple[str, np.ndarray]]) -> list[str]:
    known = np.concatenate([values[np.isfinite(values)] for _, values in rows])
    if known.size == 0:
        return []
    # Less than a factor 2 is drawn as the small change that it is.
    middle, reach = (known.max() + known.min()) / 2, max(np.ptp(known), math.log(2.0)) / 2
    lines = [title]
    for who, values in rows:
        there = values[np.isfinite(values)]
        if there.size:
            bars = sparkline(values, middle - reach, middle + reach, WIDTH - 40)
            ends = from_log(float(there[0]), 2), from_log(float(there[-1]), 2)
            lines.append(f"  {who:<14}{ends[0]:>10} {bars} {ends[1]}")
    return lines


def _table(payload: Mapping[str, Any]) -> list[str]:
    """Every layer of a shallow network, even steps through a deep one."""
    count = payload["settings"]["depth"] + 1
    picked = list(range(count))
    if count > FEW_LAYERS:
        picked = sorted({round(x) for x in np.linspace(0, count - 1, ROWS)})
    columns = _columns(payload, picked)
    while sum(column.width + 2 for column in columns) - 2 > WIDTH:
        spare = [k for k, column in enumerate(columns) if column.expendable]
        if not spare:
            break
        del columns[spare[0]]
    rows = [[column.title for column in columns]]
    rows += [list(texts) for texts in zip(*(column.texts for column in columns), strict=True)]
    lines = [
        "  ".join(f"{text:>{c.width}}" for text, c in zip(row, columns, strict=True))
        for row in rows
    ]
    if len(picked) < count:
        lines.append(
            f"{len(picked)} of {count} layers, --json and --save have all; quantiles to 0.5 %"
        )
    return [line.rstrip() for line in lines]


def _columns(payload: Mapping[str, Any], picked: Sequence[int]) -> list[Column]:
    q, eps, theory = payload["q"], payload["eps"], payload["theory"]
    wide, order = theory["infinite_width"], theory["first_order"]

    def numbers(title: str, values: Sequence[Any] | None, digits: int = 4, **how: Any) -> Column:
        texts = [plain_number(values[k], digits) if values else "–" for k in picked]
        return Column(title, texts, **how)

    columns = [
        Column("layer", [f"{k}" for k in picked]),
        Column("q", [_mean(q, k) for k in picked]),
        Column("±", [_error(q, k) for k in picked], expendable=True),
        numbers("theory", wide and wide["q"]),
    ]
    if any(payload["dead"]):
        columns.append(Column("dead", [f"{payload['dead'][k]}" for k in picked]))
    backward = payload["grad_aa"] is not None
    if not backward:
        columns += [
            Column("eps", [_mean(eps, k) for k in picked]),
            Column("±", [_error(eps, k) for k in picked], expendable=True),
        ]
    band = [f"{plain_number(eps['q05'][k])} – {plain_number(eps['q95'][k])}" for k in picked]
    columns += [
        numbers("eps" if backward else "median", eps["median"], 3),
        Column("5 – 95 %", ["–" if "–" in (text[0], text[-1]) else text for text in band]),
    ]
    if not backward and order:
        columns.append(numbers("1st order", order["eps"]["mean"]))
    columns.append(numbers("theory", wide and wide["eps"]))
    return columns + (_gradient_columns(payload, picked) if backward else [])


def _gradient_columns(payload: Mapping[str, Any], picked: Sequence[int]) -> list[Column]:
    gradient, theory = payload["grad_aa"], payload["theory"]
    depth = payload["settings"]["depth"]

    def logs(title: str, values: Sequence[Any] | None, decimals: int = 2) -> Column:
        known = [values[k] if values and k < depth else None for k in picked]
        texts = [f"{x:.{decimals}f}" if is_number(x) else "–" for x in known]
        return Column(title, ["" if k == depth else t for k, t in zip(picked, texts, strict=True)])

    columns = [
        logs("ln grad²", gradient["mean_log"]),
        logs("±", gradient["sem_mean_log"])._replace(expendable=True),
    ]
    expected = _expected(theory)
    columns += [logs(title, means["grad_aa"]["log_abs_mean"]) for title, means in expected.items()]
    law = theory["log_normal"]
    if law and law["grad_aa"]["mean_log"]:
        columns.append(logs("1st order", law["grad_aa"]["mean_log"])._replace(expendable=True))
    return columns


def _expected(theory: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The gradients of theory by the name of their column, once where both agree."""
    found = {"tied": theory["tied"], "GIA": theory["gia"]}
    found = {title: means for title, means in found.items() if means}
    if len(found) == 2 and found["tied"] == found["GIA"]:
        return {"theory": found["tied"]}
    return found


def _kernel(payload: Mapping[str, Any]) -> list[str]:
    """The neural tangent kernel, where it was asked for."""
    if "ntk_aa" not in payload:
        return []
    theory = payload["theory"]["tied" if payload["settings"]["tied"] else "gia"]
    texts = []
    for key, name in (("ntk_aa", "of the first input"), ("ntk_ab", "of the pair")):
        record = payload[key]
        if not is_number(record["mean"]):
            texts.append(f"{name} undefined ({payload['reasons'][f'{key}.mean']})")
            continue
        text = f"{name} {_with_error(record['mean'], record['sem'])}"
        if theory and is_number(theory[key]):
            text += f" (theory {plain_number(theory[key], 4)})"
        texts.append(text)
    return wrap("tangent kernel: ", ", ".join(texts))


def _footnotes(payload: Mapping[str, Any]) -> list[str]:
    """What the columns mean, and why theory is missing."""
    lines = []
    if payload["grad_aa"]:
        text = (
            "ln grad²: mean of the logarithm of the first input's squared gradient, summed over the"
            " weights from this layer to the next"
        )
        explained = {
            "theory": "theory: logarithm of its mean at large width",
            "tied": "tied: logarithm of its mean at large width",
            "GIA": "GIA: the same if weights were independent of the forward pass",
        }
        lines += wrap("", "; ".join([text, *(explained[k] for k in _expected(payload["theory"]))]))
    names = {
        "infinite_width": "infinite width",
        "first_order": "first order in 1/width",
        "tied": "tied gradients",
        "gia": "gradients with independent weights",
    }
    reasons: dict[str, list[str]] = {}
    for key, name in names.items():
        reason = payload["reasons"].get(f"theory.{key}")
        if reason and (payload["grad_aa"] or key in ("infinite_width", "first_order")):
            reasons.setdefault(reason, []).append(name)
    for reason, missing in reasons.items():
        lines += wrap("–: ", f"no theory of {', '.join(missing)}: {clean(reason)}")
    partly = payload["reasons"].get("theory.infinite_width.q")
    if partly:
        both = "q and eps" if "theory.infinite_width.eps" in payload["reasons"] else "q"
        lines += wrap("–: ", f"{both} of infinite width, {clean(partly)}")
    order = payload["theory"]["first_order"]
    if order and not all(order["reliable"]):
        lines += wrap("▲ ", clean(order["note"]))
    return lines


def _run(payload: Mapping[str, Any]) -> list[str]:
    nets, seconds = payload["settings"]["nets"], payload["seconds"]
    speed = f"{plural(nets, 'network')} in {plain_number(seconds, 2)} s"
    if payload["resumed"]:
        speed += ", some of them before"
    elif nets > 1 and seconds > 0:
        speed += f", {plain_number(nets / seconds, 2)} a second"
    return [
        *wrap("", f"{payload['engine']} engine: {clean(payload['engine_reason'])}"),
        f"{speed} · seed {payload['settings']['seed']}",
    ]


# Numbers ------------------------------------------------------------------------------------------


def from_log(log: float, digits: int = 3) -> str:
    """A number from its natural logarithm, also beyond the range of floats.

    >>> from_log(0.0), from_log(7500.0)
    ('1', '1.62e3257')
    """
    if abs(log) < 600:
        return plain_number(math.exp(log), digits)
    power = math.floor(log / math.log(10))
    text = f"{math.exp(log - power * math.log(10)):.{digits - 1}f}"
    if text.startswith("10"):
        text, power = f"{1:.{digits - 1}f}", power + 1
    return f"{text}e{power}"


def _mean(record: Mapping[str, Any], k: int) -> str:
    if is_number(record["mean"][k]):
        return plain_number(record["mean"][k], 4)
    log = record["log_abs_mean"][k]
    return from_log(log) if is_number(log) else "–"


def _error(record: Mapping[str, Any], k: int) -> str:
    if is_number(record["sem"][k]):
        small = record["sem"][k] < 1e-12 * abs(record["mean"][k] or 0.0)
        return "0" if small else plain_number(record["sem"][k], 2)
    log = record["log_sem"][k]
    return from_log(log, 2) if is_number(log) else "–"


def _with_error(mean: float, error: float | None) -> str:
    """A mean to the last digit that its error leaves it.

    >>> _with_error(0.58571, 0.0064)
    '0.5857 ± 0.0064'
    """
    if error is None or not error > 0 or not mean:
        return plain_number(mean)
    digits = 2 + math.floor(math.log10(abs(mean))) - math.floor(math.log10(error))
    return f"{plain_number(mean, min(max(digits, 2), 9))} ± {plain_number(error, 2)}"


def _array(values: Sequence[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _log(values: Sequence[Any]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(_array(values)))


def _log_median(record: Mapping[str, Any]) -> np.ndarray:
    return _log(record["median"])

"""What runs of random convolutional networks say, in plain text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from depthscale.report.summaries import WIDTH, wrap
from depthscale.report.words import clean, is_number, plain_number, plural

NAME = 12
MOST_ROWS = 14
START = {"independent": "two independent inputs", "site": "equal inputs but for one site"}


def render_lattices(payload: Mapping[str, Any]) -> str:
    """Return the answer of ``depthscale lattice`` for a reader."""
    runs = payload["runs"]
    if len(runs) == 1:
        return render_lattice(runs[0], payload["headline"])
    q0 = {run["settings"]["q0"] for run in runs}
    lines = [
        *_head(runs[0], one=len(q0) == 1),
        "",
        *_several(runs),
        "",
        *wrap("", payload["headline"]),
    ]
    return "\n".join(lines)


def render_lattice(record: Mapping[str, Any], headline: str = "") -> str:
    """Return one run by depth, from its ``to_dict()``."""
    body = _spreading(record) if "survival" in record else _pair(record)
    lines = [*_head(record), "", *body, "", *wrap("", headline or lattice_headline([record]))]
    return "\n".join(lines)


def lattice_headline(runs: Sequence[Mapping[str, Any]]) -> str:
    """One sentence on what came out."""
    if len(runs) > 1:
        return _over_weights(runs)
    record = runs[0]
    where = f"At sigma_w = {record['settings']['sigma_w']:g}"
    last = record["depth"][-1]
    if "survival" in record:
        alive = record["survival"][-1]
        size = with_error(record["active_sites"][-1], record["active_sites_error"][-1])
        return (
            f"{where}, a change of one site is still active at layer {last} in"
            f" {100 * alive:.3g} % of {plural(record['realisations'], 'network')}, on {size} sites"
            " in mean over all of them."
        )
    text = f"{where}, rho is {_log_text(record, -1)} at layer {last}"
    found = record["effective_exponent"]
    if found["value"] and is_number(found["value"][-1]):
        text += f", where it falls as depth^-{with_error(found['value'][-1], found['error'][-1])}"
        text = text.replace("depth^--", "depth^+")
    scatter = record["relative_sd"][-1]
    if is_number(scatter):
        text += f"; single networks scatter by {100 * scatter:.2g} % about their mean"
    return f"{text}."


def with_error(value: Any, error: Any) -> str:
    """A number with its error in the last digits, such as 0.482(37).

    >>> with_error(0.4823, 0.0371), with_error(12.3, 4.0), with_error(0.5, None)
    ('0.482(37)', '12.3(4.0)', '0.500')
    """
    if not is_number(value):
        return "–"
    if not is_number(error) or error <= 0:
        return plain_number(value, 3)
    if not 1e-4 <= abs(value) < 1e6:
        power = math.floor(math.log10(abs(value))) if value else math.floor(math.log10(error))
        scale = 10.0**power
        return f"{_plain_error(value / scale, error / scale)}e{power:+03d}"
    return _plain_error(value, error)


def _plain_error(value: float, error: float) -> str:
    digits = 1 - math.floor(math.log10(error))
    if digits > 8:
        return f"{value:.8g}"
    if digits <= 1:
        digits = max(digits, 0)
        return f"{value:.{digits}f}({error:.{digits}f})"
    return f"{value:.{digits}f}({error * 10**digits:.0f})"


def _over_weights(runs: Sequence[Mapping[str, Any]]) -> str:
    last = runs[0]["depth"][-1]
    if "survival" in runs[0]:
        shares = [(run["settings"]["sigma_w"], run["survival"][-1]) for run in runs]
        parts = (f"{100 * share:.3g} % at {sigma:g}" for sigma, share in (shares[0], shares[-1]))
        return f"A change of one site is active at layer {last} in {' and '.join(parts)}."
    ends = [(runs[k]["settings"]["sigma_w"], _log_text(runs[k], -1)) for k in (0, -1)]
    return (
        f"At layer {last}, rho is " + " and ".join(f"{x} at sigma_w = {s:g}" for s, x in ends) + "."
    )


def _head(record: Mapping[str, Any], one: bool = True) -> list[str]:
    about = record["settings"]
    size = " x ".join(map(str, about["size"]))
    parts = [
        f"{size} sites", plural(about["channels"], "channel"), f"kernel {about['kernel']}",
        f"sigma_b = {about['sigma_b']:g}",
    ]  # fmt: skip
    if about["drop"]:
        parts.append(f"drop = {about['drop']:g}, {about['masks']} masks")
    start = about["start"]
    begun = START.get(start, f"misalignment {start}" if is_number(start) else "given inputs")
    if one:
        begun += f", mean square {about['q0']:.4g}"
    networks = plural(record["realisations"], "network") + ("" if one else " of each sigma_w")
    return [
        f"{clean(about['activation'])} lattice: {', '.join(parts)}",
        "─" * WIDTH,
        *wrap(f"{'weights':<{NAME}}", _sharing(about["sharing"])),
        *wrap(f"{'start':<{NAME}}", begun),
        *wrap(f"{'sample':<{NAME}}", f"{networks}, seed {about['seed']}"),
    ]


def _sharing(sharing: Any) -> str:
    known = {"local": "of its own at every site", "shared": "shared by all sites"}
    if isinstance(sharing, str):
        return known[sharing]
    if isinstance(sharing, int):
        return f"shared by groups of {sharing} sites along every axis"
    return f"shared by all sites but for {sharing:g} of their variance, each site's own"


def _rows(depths: Sequence[int]) -> list[int]:
    """Which depths are listed."""
    if len(depths) <= MOST_ROWS:
        return list(range(len(depths)))
    step = (len(depths) - 1) / (MOST_ROWS - 1)
    return sorted({round(k * step) for k in range(MOST_ROWS)})


def _pair(record: Mapping[str, Any]) -> list[str]:
    found = record["effective_exponent"]
    lines = [
        f"{'layer':>7}{'rho':>18}{'median':>12}{'sd/mean':>10}{'exponent':>14}{'active':>14}"
        f"{'roughness':>12}"
    ]
    for k in _rows(record["depth"]):
        depth = record["depth"][k]
        near = [j for j, x in enumerate(found["depth"]) if x and abs(math.log(x / max(depth, 0.1)))
                < 0.2]  # fmt: skip
        exponent = with_error(found["value"][near[0]], found["error"][near[0]]) if near else ""
        cells = (
            f"{depth:>7}{_log_text(record, k):>18}{plain_number(record['rho_median'][k], 3):>12}"
            f"{plain_number(record['relative_sd'][k], 2):>10}{exponent:>14}"
            f"{with_error(record['active'][k], record['active_error'][k]):>14}"
            f"{plain_number(record['inhomogeneity'][k], 3):>12}"
        )
        lines.append(cells.rstrip())
    lines += ["", *wrap("", NOTES)]
    return lines


NOTES = (
    "rho is 1 - Pearson correlation over channels and sites, mean over networks with its standard"
    " error; exponent is -d ln rho/d ln layer over a factor 2 in depth; active is the share of"
    " sites that differ; roughness is the mean square step between neighbours over twice the"
    " variance."
)


def _spreading(record: Mapping[str, Any]) -> list[str]:
    lines = [f"{'layer':>7}{'surviving':>12}{'active sites':>18}{'mean square distance':>24}"]
    for k in _rows(record["depth"]):
        lines.append(
            f"{record['depth'][k]:>7}{plain_number(record['survival'][k], 3):>12}"
            f"{with_error(record['active_sites'][k], record['active_sites_error'][k]):>18}"
            f"{with_error(record['spread'][k], record['spread_error'][k]):>24}"
        )
    note = (
        "Active sites are a mean over all networks, the distance from the changed site over those"
        " in which some are left."
    )
    return [*lines, "", *wrap("", note)]


def _several(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    spreading = "survival" in runs[0]
    depths = runs[0]["depth"]
    first = 1 if len(depths) > 1 else 0
    chosen = sorted({round(first + k * (len(depths) - 1 - first) / 3) for k in range(4)})
    heads = [f"layer {depths[k]}" for k in chosen]
    title = "surviving" if spreading else "rho"
    last = "active sites" if spreading else "exponent"
    lines = [f"{'sigma_w':>9}" + "".join(f"{head:>16}" for head in heads) + f"{last:>16}"
             + ("" if spreading else f"{'sd/mean':>10}")]  # fmt: skip
    for run in runs:
        if spreading:
            cells = [plain_number(run["survival"][k], 3) for k in chosen]
            cells.append(with_error(run["active_sites"][-1], run["active_sites_error"][-1]))
        else:
            found = run["effective_exponent"]
            cells = [_log_text(run, k) for k in chosen]
            known = bool(found["value"])
            cells.append(with_error(found["value"][-1], found["error"][-1]) if known else "–")
        scatter = "" if spreading else f"{plain_number(run['relative_sd'][-1], 2):>10}"
        lines.append(f"{run['settings']['sigma_w']:>9.5g}" + "".join(f"{c:>16}" for c in cells)
                     + scatter)  # fmt: skip
    return [f"{title} by layer", *lines]


def _log_text(record: Mapping[str, Any], k: int) -> str:
    """rho with its error; where it leaves float64, from its mean logarithm."""
    value, logs = record["rho"][k], record["log_rho"][k]
    if value == 0 and is_number(logs):
        return f"10^{logs / math.log(10):.4g}"
    return with_error(value, record["rho_error"][k])

"""Numbers, names and intervals put into words, the same on the page and in the terminal."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from depthscale.answers import Undefined

if TYPE_CHECKING:
    from depthscale.practice.audit import Audit, Finding

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NORMALS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")

# How the keys of findings, headlines and JSON summaries read in a sentence.
LABELS = {
    "sigma_w": "weight scale σ_w",
    "sigma_b": "bias scale σ_b",
    "drop": "drop probability",
    "q": "length q",
    "eps": "misalignment ε",
    "chi": "slope χ",
    "chi1": "slope χ",
    "detuning": "detuning t",
    "dropout_field": "dropout field h",
    "gradient_factor": "gradient factor",
    "eps_first": "ε at the first layer",
    "eps_last": "ε at the last layer",
    "eps_masks_last": "ε of two masks at the last layer",
    "total_log": "log of the total factor",
    "predicted_total_log": "predicted log of the total factor",
}


def is_number(value: object) -> bool:
    """Return whether ``value`` is a finite real number (Undefined, None, NaN and text are not)."""
    if value is None or isinstance(value, (str, bytes, Undefined)):
        return False
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except TypeError:
        return False


def number(value: Any, digits: int = 3) -> str:
    """Write a number for a reader: ``digits`` significant ones, powers of ten where they help.

    >>> number(0.86341), number(60), number(3.2e-9), number(1234567.0)
    ('0.863', '60', '3.20×10⁻⁹', '1.23×10⁶')
    """
    if isinstance(value, Undefined):
        return "undefined"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    value = float(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    sign = "−" if value < 0 else ""
    size = abs(value)
    if size == 0.0:
        return "0"
    if size == round(size) and size < 1e5:
        return f"{sign}{size:.0f}"
    if 1e-3 <= size < 1e5:
        whole = len(str(int(size))) if size >= 1 else 1 + math.floor(math.log10(size))
        text = f"{size:.{max(digits - whole, 0)}f}"
        return sign + text
    mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
    return f"{sign}{mantissa}×10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def plain_number(value: Any, digits: int = 3) -> str:
    """Write a number for a terminal, as programs read it.

    >>> plain_number(-3.2e-9)
    '-3.20e-9'
    """
    return plain_powers(number(value, digits)).replace("−", "-")


def percent(value: Any) -> str:
    """Write a fraction as a percentage, "–" where it is missing.

    >>> percent(0.3412), percent(0.0), percent(0.0004)
    ('34 %', '0 %', '<1 %')
    """
    if not is_number(value):
        return "–"
    value = float(value)
    if 0.0 < value < 0.005:
        return "<1 %"
    return f"{100 * value:.0f} %"


def interval(low: Any, high: Any, digits: int = 3) -> str:
    """Write an interval as "low to high", with open ends in words.

    >>> interval(1.2, 3.4), interval(1.2, float("inf"))
    ('1.20 to 3.40', 'above 1.20')
    """
    if is_number(low) and is_number(high):
        return f"{number(low, digits)} to {number(high, digits)}"
    if is_number(low):
        return f"above {number(low, digits)}"
    if is_number(high):
        return f"below {number(high, digits)}"
    return "not known"


def clean(text: object) -> str:
    """Return text from a user's model on one line, without control or direction characters.

    Escaping for HTML is the template's work; this only removes what no reader can see, such as
    terminal escapes and right-to-left overrides.
    """
    flat = " ".join(str(text).split())
    return "".join(mark for mark in flat if unicodedata.category(mark)[0] != "C")


def clean_lines(text: object) -> list[str]:
    """Return the lines of a text from a user's model, indentation kept, each without controls."""
    return [
        "".join(mark for mark in line.expandtabs(4) if unicodedata.category(mark)[0] != "C")
        for line in str(text).splitlines()
    ]


def label(key: str) -> str:
    """Return a key such as ``predicted_depth_scale`` as words."""
    return LABELS.get(key) or clean(key).replace("_", " ").replace(".", " ")


def evidence_facts(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return evidence as names and values; a number swallows its own ``_low`` and ``_high``.

    >>> evidence_facts({"rate": 1.3, "rate_low": 1.2, "rate_high": 1.4})
    [('rate', '1.30 (1.20 to 1.40)')]
    """
    facts = []
    for key, value in evidence.items():
        base = key.removesuffix("_low").removesuffix("_high")
        if base != key and base in evidence:
            continue
        text = number(value)
        ends = evidence.get(f"{key}_low"), evidence.get(f"{key}_high")
        if ends != (None, None):
            text += f" ({interval(*ends)})"
        facts.append((label(key), text))
    return facts


def plural(count: int, noun: str) -> str:
    """Return "1 layer", "2 layers"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shorten(text: str, width: int) -> str:
    """Cut the middle out of a text that is longer than ``width`` characters.

    >>> shorten("encoder.layer.11.output.dense", 16)
    'encoder…ut.dense'
    """
    if len(text) <= width:
        return text
    tail = width // 2
    return f"{text[: width - tail - 1]}…{text[len(text) - tail :]}"


def audit_state(audit: Audit) -> str:
    """Return the state of an audit in two or three words: "Healthy", "2 problems, 1 warning"."""
    findings = audit.verdict.findings
    problems = sum(finding.severity == "problem" for finding in findings)
    parts = [plural(problems, "problem")] if problems else []
    parts += [plural(len(findings) - problems, "warning")] if len(findings) > problems else []
    if audit.verdict.healthy:
        return ", ".join(["Healthy", *parts])
    return ", ".join(parts) or "Not healthy"


def audit_facts(audit: Audit) -> list[str]:
    """Return what was audited in a few short phrases: layers, mode, inputs."""
    measured = audit.measurement
    repeats = measured.length.shape[0]
    facts = [plural(len(measured.layers), "layer")]
    if audit.provenance.get("mode"):
        facts.append(f"{clean(audit.provenance['mode'])} mode")
    if audit.provenance.get("inputs"):
        facts.append(clean(audit.provenance["inputs"]))
    if repeats > 1:
        facts.append(f"{repeats} initialisations")
    return facts


def findings_with_fixes(audit: Audit) -> list[tuple[Finding, Finding | None]]:
    """Return each finding with the earlier one that has the same fix, None where there is none."""
    earlier: list[Finding] = []
    pairs: list[tuple[Finding, Finding | None]] = []
    for finding in audit.verdict.findings:
        fix = (finding.fix, finding.fix_values)
        twin = next((other for other in earlier if (other.fix, other.fix_values) == fix), None)
        pairs.append((finding, twin if finding.fix else None))
        earlier.append(finding)
    return pairs


PLAIN_MARKS = str.maketrans(
    {
        "▁": "_", "▂": ".", "▃": ":", "▄": "-", "▅": "=", "▆": "+", "▇": "*", "█": "#",
        "·": ".", "…": "~", "–": "-", "−": "-", "×": "x", "±": "+-", "│": "|", "─": "-",
        "┼": "+", "→": "->", "∞": "inf", "ε": "eps", "χ": "chi", "σ": "sigma", "²": "^2",
        "✓": "+", "✗": "x", "▲": "!", "▌": "|", "▏": "|", "≤": "<=", "≥": ">=", "≈": "~",
        "░": "o", "▓": "%", "└": "+",
    }
)  # fmt: skip


def plain_powers(text: str) -> str:
    """Write powers of ten as programs do, so that numbers can be copied out of a terminal.

    >>> plain_powers("3.20×10⁻⁹")
    '3.20e-9'
    """
    return re.sub("×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda power: "e" + power[1].translate(NORMALS), text)


def ascii_only(text: str) -> str:
    """Return a report for a terminal that cannot show Unicode, such as a C locale.

    >>> ascii_only("3.20×10⁻⁹")
    '3.20e-9'
    """
    return plain_powers(text).translate(PLAIN_MARKS).encode("ascii", "replace").decode("ascii")

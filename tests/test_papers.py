"""Claims and their verdicts: the rules of the record, and our numbers by other routes."""

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from depthscale.answers import InputError
from depthscale.papers import __main__ as papers
from depthscale.papers import dropout
from depthscale.papers.claims import VERDICTS, Claim, joined
from depthscale.papers.dropout import laws
from depthscale.papers.dropout.quadrature import TanhRule
from depthscale.papers.dropout.schedules import _exact
from depthscale.theory.activation import activation
from depthscale.theory.criticality import critical_point
from depthscale.theory.meanfield import MeanField
from depthscale.theory.universal.fits import power_laws


@pytest.fixture(scope="module")
def verdicts():
    return joined(dropout.TITLE, [group() for _, group in dropout.GROUPS])


def found(verdicts, text):
    (claim,) = [c for c in verdicts.claims if text in c.statement]
    return claim


# The record --------------------------------------------------------------------------------------


def number(ours, tolerance=0.1, **kwargs):
    return Claim.number(
        "0000.00000", "v1", "eq. 1", "x is 1", 1.0, ours, tolerance, "why", **kwargs
    )


def test_the_verdict_follows_from_the_tolerance():
    assert number(1.05).verdict == "confirmed"
    assert number(1.05, agreed="confirmed in a window").verdict == "confirmed in a window"
    assert number(1.2, agreed="confirmed in a window").verdict == "refuted"
    assert number(math.nextafter(1.0, 2), 0.0).verdict == "refuted"


@pytest.mark.parametrize(
    "fields",
    [
        {"verdict": "true"},
        {"verdict": "confirmed", "version": "v3"},
        {"verdict": "confirmed", "ours": math.nan},
        {"verdict": "confirmed", "ours": 1.0, "tolerance": 0.1},
    ],
)
def test_a_claim_needs_a_verdict_and_reasons(fields):
    with pytest.raises(InputError):
        Claim("0000.00000", **{"version": "v1", "where": "", "statement": "", **fields})


def test_a_table_shows_every_claim_and_counts_them():
    table = joined("A paper", [[number(1.0), number(2.0)], [number(1.0)]])
    assert table.counts == dict(zip(VERDICTS, (2, 0, 1, 0, 0), strict=True))
    text = str(table)
    assert text.count("CONFIRMED") == 2
    assert text.count("REFUTED") == 1
    assert "tolerance 0.1 (why)" in text
    assert json.loads(json.dumps(table.to_dict()))["claims"][1]["ours"] == 2.0


# The claims of 2605.21648 ------------------------------------------------------------------------


def test_every_claim_is_whole(verdicts):
    for claim in verdicts.claims:
        assert claim.paper == "2605.21648"
        assert claim.statement
        assert claim.where
        # a refutation or a window says why; what was not tested says what it needs
        assert claim.verdict == "confirmed" or claim.note, claim.statement
    statements = [claim.statement for claim in verdicts.claims]
    assert len(set(statements)) == len(statements)
    assert all(len(line) <= 101 for line in str(verdicts).splitlines())


def test_exact_integrals_miss_two_printed_exponents_and_sixty_nodes_do_not(verdicts):
    nine = [c for c in verdicts.claims if c.statement.endswith("in the paper's window")]
    missed = {c.statement.split(" is ")[0] for c in nine if c.verdict == "refuted"}
    assert len(nine) == 9
    assert missed == {"beta of tanh", "theta of tanh"}
    assert found(verdicts, "60-node").verdict == "confirmed"


def test_the_rule_converges_to_the_exact_integrals():
    """Poles at +- i pi/2 make the rule's error fall like exp(-c sqrt(nodes)): 1e-9 at 120 nodes."""
    exact = {fit.name: fit.value for fit in power_laws("tanh", dropout.tanh_map().q, "paper")}
    by_nodes = [TanhRule(nodes).exponents() for nodes in (40, 60, 120)]
    errors = np.abs([[r.beta - exact["beta"], r.theta - exact["theta"]] for r in by_nodes])
    assert np.all(errors[1:] < errors[:-1] / 20)
    # a detuning of 1e-9 shifts theta by 2e3 times as much; beta has a tenth of that
    assert np.all(errors[-1] < 4e-6)


def test_the_recursion_of_schedules_is_that_of_networks():
    """ReLU layer by layer through the general maps: the same schedules, no shared code path."""
    for schedule in ([0.2] * 3 + [0.0] * 3, [0.1] * 6, [0.0, 0.15, 0.05, 0.2, 0.0, 0.2]):
        layers = [MeanField(activation("relu"), 1.3, 0.0, p) for p in schedule]
        eps, loss, exposure = 0.0, 0.0, 0.0
        for layer in layers:
            loss -= math.log(float(layer.gap_slope(1.0, 1.0, eps)))
            eps = float(layer.gap_map(eps, q=1.0))
            exposure += eps
        # the map behind _exact is tabulated to 1e-10
        assert _exact(np.array([schedule]))[:3, 0] == pytest.approx([eps, loss, exposure], rel=1e-9)


def test_signal_preservation_is_best_for_late_dropout_in_the_exact_recursion(verdicts):
    """All schedules with these rates in any order, against the surrogate's tie."""
    orders = np.array(sorted(set(itertools.permutations([0.2, 0.2, 0.1, 0.1, 0.0, 0.0]))))
    losses = _exact(orders)[1]
    assert np.ptp(losses) > 0.1 * losses.mean()
    assert np.array_equal(orders[losses.argmin()], np.sort(orders[0]))
    assert np.array_equal(orders[losses.argmax()], np.sort(orders[0])[::-1])
    assert found(verdicts, "every permutation").verdict == "refuted"
    assert found(verdicts, "uniform schedule preserves signals worst").verdict == "refuted"


def test_sigmoid_is_critical_where_the_claims_say():
    """The point of the refutation, held against the maps at that weight."""
    field = MeanField(activation("sigmoid"), 10.1504565, 0.1, start=40.0)
    assert float(field.chi) == pytest.approx(1, abs=1e-7)  # eight digits of the weight
    assert abs(float(field.length_slope(float(field.q)))) < 1


def test_collapse_errors_are_those_of_an_independent_computation(verdicts):
    """Per cent, to the digits given: retuned tanh networks at p = 1e-6, 1e-4, 1e-2; formal ReLU
    maps at h = 1e-4, 1e-2. The claims say for which range of u each is."""
    smooth, kinked = (found(verdicts, f"the {kind} equation") for kind in ("smooth", "kinked"))
    _, networks = smooth.note.split(", by p: ")
    at = [f"{{:.{digits}f}} %".format for digits in (4, 3, 2)]
    for reach, values in ((2, (0.3751, 3.774, 40.43)), (4, (0.7307, 7.376, 79.48))):
        (part,) = [x for x in networks.split("; ") if x.endswith(f"for |u| <= {reach}")]
        assert [x.split(" at ")[0] for x in part.split(", ")] == [
            show(value) for show, value in zip(at, values, strict=True)
        ]
    narrow = kinked.note.split("; ")[-2]
    assert narrow.endswith("for |u| <= 2")
    assert narrow.split(", ")[-2:] == ["0.1917 % at 0.0001", "3.726 % at 0.01 for |u| <= 2"]


def test_networks_collapse_like_maps_of_their_field(verdicts):
    """Frozen length or fixed bias: the two residuals at t = 2 rates differ at second order, t."""
    alignment = dropout.tanh_map()
    for drop in (1e-6, 1e-5):
        point = critical_point("tanh", sigma_b=math.sqrt(0.1), drop=drop)
        field = MeanField("tanh", float(point.sigma_w), math.sqrt(0.1), drop)
        (by_network,) = laws._network_errors([drop], 2.0)
        (by_map,) = laws._collapse_errors(alignment, [float(field.dropout_field)], 2.0)
        # relative differences of a few t = 2 rate
        assert by_network == pytest.approx(by_map, rel=5 * 2 * field.law().rate)


# The command -------------------------------------------------------------------------------------


def test_claims_and_figures_are_written(tmp_path, capsys, verdicts):
    out = tmp_path / "made" / "dropout"
    assert papers.main(["dropout", "--out", str(out)]) == 0
    screen = capsys.readouterr()
    assert screen.err == ""
    assert screen.out == f"{verdicts}\n"
    # nothing but finished files: drafts are renamed or removed
    assert {p.name for p in out.iterdir()} == {"claims.json", *dropout.figures()}
    record = json.loads((out / "claims.json").read_text())
    assert record["counts"] == verdicts.counts
    assert [c["verdict"] for c in record["claims"]] == [c.verdict for c in verdicts.claims]
    assert set(record["versions"]) >= {"python", "numpy", "scipy", "depthscale"}
    assert str(tmp_path) not in (out / "claims.json").read_text()


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert papers.main(["dropout", "--out", str(tmp_path / "file")]) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_a_failed_write_leaves_no_trace(tmp_path):
    target = tmp_path / "figure.svg"
    target.write_text("old")

    def broken(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(InputError, match="cannot be written"):
        papers._written(target, broken)
    assert [p.name for p in tmp_path.iterdir()] == ["figure.svg"]
    assert target.read_text() == "old"


def test_an_unknown_paper_is_an_error_of_usage():
    command = [sys.executable, "-m", "depthscale.papers", "alchemy"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "invalid choice" in run.stderr

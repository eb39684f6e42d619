"""Tests how measured values are held to expected ones."""

from typing import Any

import pytest

from fxcache.gate.compare import advisory_findings, exact_findings, ratio_findings
from fxcache.gate.findings import Finding, Status
from fxcache.gate.ratios import Ratio
from fxcache.gate.tree import MISSING, differences, leaves


def only(expected: Any, measured: Any, causes: dict[str, list[str]] | None = None) -> Finding:
    (finding,) = exact_findings(expected, measured, causes or {})
    return finding


def test_equal_trees_have_no_finding():
    tree = {"a": {"flops": 3, "refreshes": [0, 1]}, "b": [{"nodes": 4}]}
    assert list(exact_findings(tree, tree, {})) == []


@pytest.mark.parametrize(
    ("name", "before", "now", "text"),
    [
        ("flops", 100, 110, "100 → 110 (+10.0%)"),
        ("flops", 1000, 900, "1,000 → 900 (-10.0%), an improvement"),
        ("psnr_db", 30.0, 29.0, "30.0 → 29.0 (-3.3%)"),
        ("psnr_db", 30.0, 31.0, "an improvement"),
        ("steps", 9, 8, "9 → 8 (-11.1%)"),
        ("guards", 0, 3, "0 → 3"),
        ("cut", "mid_block", "up_blocks.0", "mid_block → up_blocks.0"),
        ("refreshes", [0, 3], [0, 2, 3], "[0, 3] → [0, 2, 3] (new: [2])"),
        ("refreshes", [0, 2, 3], [0, 3], "(gone: [2])"),
    ],
)
def test_a_change_is_described(name, before, now, text):
    finding = only({name: before}, {name: now})
    assert finding.status is Status.FAILED
    assert text in finding.message
    assert ("improvement" in finding.message) == ("improvement" in text)


@pytest.mark.parametrize(
    ("name", "near", "far"), [("psnr_db", 30.09, 29.8), ("ssim", 30.0009, 29.9)]
)
def test_the_quality_has_a_tolerance(name, near, far):
    assert list(exact_findings({name: 30.0}, {name: near}, {})) == []
    assert only({name: 30.0}, {name: far}).status is Status.FAILED


def test_a_missing_part_is_one_finding():
    measured = {"a": {"flops": 3}, "b": {"flops": 4, "nodes": 5}}
    finding = only({"a": {"flops": 3}}, measured)
    assert finding.entry == "b"
    assert "there is no expected value" in finding.message
    assert (
        "nothing was measured; expected: flops, nodes"
        in only(measured, {"a": {"flops": 3}}).message
    )
    assert only(MISSING, measured).entry == ""


def test_another_policy_is_one_finding():
    before = {"a": {"policy": {"policy": "Uniform", "interval": 3}, "steps": 4}}
    now = {"a": {"policy": {"policy": "TeaCache", "threshold": 0.2}, "steps": 4}}
    (finding,) = exact_findings(before, now, {})
    assert finding.text == "a/policy: Uniform(interval=3) → TeaCache(threshold=0.2)"
    slower = {"a": {"policy": {"policy": "Uniform", "interval": 4}, "steps": 4}}
    (finding,) = exact_findings(before, slower, {})
    assert finding.entry == "a/policy/interval"


def test_names_that_are_not_counted_are_zero():
    finding = only({"operators": {}}, {"operators": {"aten.add.Tensor": 2}})
    assert finding.entry == "operators/aten.add.Tensor"
    assert finding.message == "0 → 2"


def test_the_guard_that_failed_is_the_cause():
    expected, measured = ({"compilation": {"graphs": n}} for n in (2, 3))
    finding = only(expected, measured, {"compilation": ["tensor 'timestep' size mismatch"]})
    assert finding.text == "compilation/graphs: 2 → 3 (+50.0%): tensor 'timestep' size mismatch"


def test_lists_of_runs_are_compared_by_number():
    expected, measured = [{"steps": 5}], [{"steps": 5}, {"steps": 6}]
    assert list(differences(expected, measured)) == [(("1",), MISSING, {"steps": 6})]
    assert list(leaves(measured)) == [(("0", "steps"), 5), (("1", "steps"), 6)]


EXPECTED = {"reuse/full": {"time": 0.30, "low": 0.28, "high": 0.32, "flops": 0.25, "rounds": 7}}


def ratio_status(ratio: Ratio, margin: float = 0.1) -> Status | None:
    findings = list(ratio_findings(EXPECTED, {"reuse/full": ratio}, margin))
    assert len(findings) <= 1
    return findings[0].status if findings else None


@pytest.mark.parametrize(
    ("low", "high", "flops", "status"),
    [
        (0.29, 0.33, 0.25, None),
        (0.29, 0.36, 0.25, Status.INCONCLUSIVE),  # the limit, 0.352, is inside
        (0.34, 0.40, 0.25, Status.INCONCLUSIVE),  # even if the median is above it
        (0.36, 0.40, 0.25, Status.FAILED),
        (0.36, 0.40, 0.30, None),  # FLOPs rose by as much
        (0.29, 0.33, 0.20, Status.FAILED),  # FLOPs fell, and the time did not
        (0.20, 0.22, 0.25, Status.NOTE),  # faster
    ],
)
def test_a_ratio_may_move_only_as_flops_do(low, high, flops, status):
    if status is Status.FAILED and flops < 0.25:
        low = 0.30
    assert ratio_status(Ratio((low + high) / 2, low, high, flops, 7)) is status


def test_reuse_steps_may_have_no_flops():
    ratio = Ratio(0.1, 0.09, 0.11, 0.0, 7)
    expected = {"reuse/full": ratio.to_dict()}
    assert list(ratio_findings(expected, {"reuse/full": ratio}, 0.1)) == []


def test_small_ratios_keep_their_digits():
    assert Ratio(0.1, 0.1, 0.1, 0.000149, 7).to_dict()["flops"] == 0.000149


def test_a_ratio_without_an_expected_value_fails():
    ratio = Ratio(0.3, 0.3, 0.3, 0.25, 7)
    (finding,) = ratio_findings(None, {"reuse/full": ratio}, 0.1)
    assert finding.status is Status.FAILED
    (gone,) = ratio_findings(EXPECTED, {}, 0.1)
    assert gone.status is Status.FAILED


@pytest.mark.parametrize(
    ("expected", "now", "noted"),
    [
        (None, 5.0, True),
        ({"reuse": {"p50_ms": 5.0}}, 5.9, False),
        ({"reuse": {"p50_ms": 5.0}}, 9.0, True),
    ],
)
def test_times_never_fail(expected, now, noted):
    findings = list(advisory_findings(expected, {"reuse": {"p50_ms": now}}, "a CPU"))
    assert bool(findings) == noted
    assert all(finding.status is Status.NOTE for finding in findings)

"""Tests what a gate shows: text, annotations, JUnit XML and the page."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from fxcache.gate.expected import Update
from fxcache.gate.findings import Finding, Status
from fxcache.gate.gate import Measured, Outcome
from fxcache.gate.output.annotations import annotations
from fxcache.gate.output.junit import as_junit
from fxcache.gate.output.page import as_html
from fxcache.gate.output.text import as_text
from fxcache.gate.output.trends import trends_of, update_lines
from fxcache.gate.ratios import Ratio

GRAPH = {"flops": 1_000_000, "bytes": 2000, "nodes": 30, "operators": {"aten.add.Tensor": 3}}
RUN = {"steps": 6, "refreshes": [0, 3]}
EXACT = {
    "denoisers": {
        "unet": {
            "later_run": [RUN],
            "captures": [
                {"graphs": {"full": GRAPH}, "inductor": {"full": {"launches": 12, "bytes": 900}}}
            ],
        }
    },
    "compilation": {"graphs": 3},
}
RATIOS = {"reuse/full": Ratio(0.31, 0.30, 0.33, 0.25, 7)}
GRAPHS = Finding(
    "exact", "compilation/graphs", Status.FAILED, "2 → 3 (+50.0%)", "100%: a <guard>\nfailed"
)
UNSURE = Finding("ratios", "reuse/full", Status.INCONCLUSIVE, "0.310; at most 0.320")
SLOW = Finding("advisory", "a CPU/reuse/p50_ms", Status.NOTE, "5 → 9")
UPDATES = (
    Update("2026-01-01", "model", "first values", {}),
    Update("2026-02-01", "model", "a new operator", {"compilation/graphs": (1, 2)}),
    Update("2026-03-01", "model", "one more <graph>", {"compilation/graphs": (2, 3)}),
)


MISSING = Finding("exact", "", Status.FAILED, "there is no expected value")


def outcome(*findings: Finding) -> Outcome:
    times = {"reuse": {"p50_ms": 9.0, "p90_ms": 10.0, "p99_ms": 11.0}}
    measured = Measured(EXACT, {}, RATIOS, times, "a CPU")
    return Outcome("model", Path("expected.json"), "2.13", measured, findings, UPDATES)


def test_text_names_the_cause():
    lines = as_text(outcome(GRAPHS, UNSURE, SLOW), "--update").splitlines()
    assert "If this is intended, write the new values: --update" in lines
    assert lines[0].startswith("model: FAILED: 1 of its values, 1 inconclusive (")
    assert " ".join(lines[1].split()) == (
        "FAILED compilation/graphs: 2 → 3 (+50.0%): 100%: a <guard> failed"
    )
    assert any(line.split()[:3] == ["reuse/full", "0.310", "0.300"] for line in lines)


def test_inconclusive_ratios_do_not_block():
    assert outcome(UNSURE, SLOW).passed
    assert not outcome(GRAPHS).passed
    assert as_text(outcome(UNSURE), "--update").startswith("model: passed, 1 inconclusive")


def test_long_lists_are_cut():
    text = as_text(outcome(*[MISSING] * 50), "--update")
    assert text.count("ratios") == 0
    assert text.count("there is no expected value") == 40
    assert "and 10 more; --json shows all" in text
    text = as_text(outcome(*[GRAPHS] * 50), "--update")
    assert text.count("compilation/graphs") == 15
    assert "and 35 more; --json shows all" in text


def test_annotations_are_commands_of_github():
    error, warning, notice = annotations(outcome(GRAPHS, UNSURE, SLOW))
    assert error == (
        "::error file=expected.json,title=fxcache gate%2C model::"
        "compilation/graphs: 2 → 3 (+50.0%25): 100%25: a <guard> failed"
    )
    assert warning.startswith("::warning file=expected.json")
    assert notice.startswith("::notice file=expected.json")
    assert len(annotations(outcome(*[MISSING] * 30))) == 10


def test_the_values_of_one_cause_are_told_together():
    guards = replace(GRAPHS, entry="compilation/guards", message="9 → 12 (+33.3%)")
    found = outcome(GRAPHS, guards, UNSURE)
    lines = as_text(found, "--update").splitlines()
    assert lines[0].startswith("model: FAILED: 2 of its values, by 1 cause, 1 inconclusive")
    assert [" ".join(line.split()) for line in lines[1:4]] == [
        "FAILED 100%: a <guard> failed",
        "compilation/graphs: 2 → 3 (+50.0%)",
        "compilation/guards: 9 → 12 (+33.3%)",
    ]
    error, _ = annotations(found)
    assert error.endswith(
        "::100%25: a <guard> failed%0Acompilation/graphs: 2 → 3 (+50.0%25)"
        "%0Acompilation/guards: 9 → 12 (+33.3%25)"
    )
    failure = ET.fromstring(as_junit(found).encode()).find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "100%: a <guard> failed"
    assert str(failure.text).splitlines()[2] == "  compilation/guards: 9 → 12 (+33.3%)"
    page = as_html(found)
    assert page.count("a &lt;guard&gt; failed") == 1
    assert "compilation/<wbr>guards" in page
    described = found.to_dict()
    assert [len(cause["entries"]) for cause in described["causes"]] == [2, 1]
    assert [finding["cause"] for finding in described["findings"][:2]] == [GRAPHS.cause] * 2


def test_junit_has_a_test_for_each_part():
    suite = ET.fromstring(as_junit(outcome(GRAPHS, UNSURE, SLOW)).encode())
    tests = {test.get("name"): test for test in suite}
    assert list(tests) == [
        "exact/denoisers",
        "exact/compilation",
        "ratios/reuse/full",
        "advisory/a CPU",
    ]
    counts = [suite.get(name) for name in ("tests", "failures", "skipped")]
    assert counts == ["4", "1", "1"]
    failure = tests["exact/compilation"].find("failure")
    assert failure is not None
    assert failure.text is not None
    assert "2 → 3" in failure.text
    assert tests["ratios/reuse/full"].find("skipped") is not None
    assert len(tests["exact/denoisers"]) == 0


def test_a_missing_case_is_a_failing_test():
    suite = ET.fromstring(as_junit(outcome(MISSING)).encode())
    assert [t.get("name") for t in suite if t.find("failure") is not None] == ["exact"]


def test_the_page_stands_alone():
    page = as_html(outcome(GRAPHS, UNSURE, SLOW))
    for outside in ("http://", "https://", "<script", "src=", "<link"):
        assert outside not in page
    assert "<guard>" not in page
    assert "a &lt;guard&gt;" in page
    assert "one more &lt;graph&gt;" in page


def test_the_page_shows_everything():
    page = as_html(outcome(GRAPHS, UNSURE, SLOW))
    assert page.count('class="computed"') == 2
    assert page.count('class="reused"') == 4
    assert "2 of 6 steps refresh" in page
    for text in ("1,000,000", ">12<", "0.310, 95 % 0.300 to 0.330", "p99_ms", "11.0"):
        assert text in page
    assert "1 → 2 → 3" in page


def test_the_page_shows_expected_counts_and_schedules_that_differ():
    changed = json.loads(json.dumps(EXACT))
    denoiser = changed["denoisers"]["unet"]
    denoiser["later_run"][0]["refreshes"] = [0, 2, 4]
    denoiser["captures"][0]["graphs"]["full"]["nodes"] = 29
    denoiser["captures"][0]["graphs"]["cached_skip"] = GRAPH
    page = as_html(replace(outcome(GRAPHS), expected=changed))
    assert "29 → 30" in page
    assert "1,000,000 → –" in page  # a graph that is gone
    assert ">12<" in page
    assert page.index("unet, expected: 3 of 6") < page.index("unet: 2 of 6")
    same = as_html(replace(outcome(GRAPHS), expected=EXACT))
    assert same == as_html(outcome(GRAPHS))


def test_each_finding_of_a_group_has_its_cause():
    refreshes = Finding("exact", "denoisers/a/later_run/0/refreshes", Status.FAILED, "[0] → [1]")
    reasons = Finding("exact", "denoisers/a/later_run/0/reasons/first", Status.FAILED, "1 → 0")
    described = outcome(refreshes, reasons).to_dict()["findings"]
    assert [finding["cause"] for finding in described] == [refreshes.text] * 2


def test_a_gate_of_times_alone_has_a_page():
    measured = Measured(None, {}, RATIOS, None, "a CPU")
    page = as_html(Outcome("model", Path("expected.json"), "2.13", measured, ()))
    assert "Every value is as expected" in page
    assert "There is none yet" in page


def test_trends_go_through_all_values():
    (trend,) = trends_of(UPDATES, 100, 300)
    assert trend["points"] == "100.0,58.0 200.0,39.0 300.0,20.0"


@pytest.mark.parametrize(("count", "last"), [(3, "c2: 1 → 2"), (11, "and 3 more")])
def test_updates_list_some_changes(count, last):
    changed = {f"c{i}": (1, 2) for i in range(count)}
    assert update_lines(Update("2026-01-01", "model", "why", changed))[-1] == last

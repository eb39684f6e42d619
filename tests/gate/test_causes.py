"""Tests which findings are told together."""

from fxcache.gate.causes import causes_of
from fxcache.gate.findings import Finding, Status

CAPTURE = "denoisers/DiT/captures/0"
RELU, LINEAR = "aten.relu.default 0 → 1", "aten.linear.default 21 → 24"


def failed(entry: str, message: str = "1 → 2", cause: str = "") -> Finding:
    return Finding("exact", entry, Status.FAILED, message, cause)


NODES = failed(f"{CAPTURE}/graphs/cached_skip/nodes", cause=RELU)
OPERATOR = failed(f"{CAPTURE}/graphs/cached_skip/operators/aten.relu.default", "0 → 1")
LAUNCHES = failed(f"{CAPTURE}/inductor/cached_skip/launches", cause=RELU)
FULL = failed(f"{CAPTURE}/graphs/full/nodes", cause=LINEAR)
HOISTED = failed(f"{CAPTURE}/hoisted", "per_run → nothing")
WEIGHTS = failed(f"{CAPTURE}/hoisted_weight_bytes", "9 → 0")
REFRESHES = failed("denoisers/DiT/later_run/0/refreshes", "[0] → [0, 2] (new: [2])")
REASON = failed("denoisers/DiT/later_run/0/reasons/planted", "0 → 1")
QUALITY = failed("quality/later_run/psnr_db", "57.6 → 34.7")
IMPORTS = failed("imports/PIL", "0 → 9"), failed("imports/numpy", "0 → 90")


def told(*findings: Finding) -> dict[str, list[str]]:
    """Return the entries of the values below each cause."""
    causes = causes_of(findings)
    every = [f for cause in causes for f in cause.findings]
    assert sorted(map(findings.index, every)) == list(range(len(findings))), "each has one cause"
    return {c.what: [m.finding.entry.rpartition("/")[2] for m in c.moved] for c in causes}


def test_the_operators_of_a_graph_explain_its_counts_and_what_follows():
    found = told(NODES, OPERATOR, LAUNCHES, QUALITY)
    assert found == {f"{CAPTURE}/cached_skip: {RELU}": ["nodes", "launches", "psnr_db"]}


def test_a_finding_alone_is_its_own_cause():
    assert told(QUALITY) == {QUALITY.text: []}


def test_two_graphs_that_changed_are_two_causes_and_what_follows_stands_alone():
    found = told(NODES, LAUNCHES, FULL, QUALITY)
    assert list(found) == [f"{CAPTURE}/cached_skip: {RELU}", FULL.text, QUALITY.text]


def test_operators_without_an_explanation_are_the_cause():
    other = failed(f"{CAPTURE}/graphs/cached_skip/operators/aten.tanh.default", "3 → 2")
    assert told(OPERATOR, other) == {f"{OPERATOR.text}; {other.text}": []}


def test_a_decision_explains_every_count_of_its_denoiser():
    found = told(HOISTED, WEIGHTS, FULL, NODES, OPERATOR, REFRESHES, QUALITY)
    assert list(found) == [HOISTED.text]
    assert found[HOISTED.text][0] == "hoisted_weight_bytes"
    assert len(found[HOISTED.text]) == 5, "the operator is told beside the nodes"


def test_a_schedule_explains_its_runs_and_not_the_graphs():
    found = told(REFRESHES, REASON, NODES)
    assert found == {REFRESHES.text: ["planted"], NODES.text: []}


def test_what_is_no_count_of_a_run_stands_apart():
    first, second = IMPORTS
    note = Finding("advisory", "a CPU/reuse", Status.NOTE, "5 → 9")
    found = told(HOISTED, QUALITY, first, second, note)
    assert found == {
        HOISTED.text: ["psnr_db"],
        f"{first.text}; {second.text}": [],
        note.text: [],
    }


def test_other_settings_explain_everything():
    steps = failed("settings/steps", "20 → 10")
    assert told(steps, HOISTED, REFRESHES, QUALITY) == {
        steps.text: ["hoisted", "refreshes", "psnr_db"]
    }

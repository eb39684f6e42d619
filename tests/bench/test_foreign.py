"""Tests the page about models of other packages, without the packages."""

from bench import compatibility
from bench.foreign import packages_section
from bench.foreign.causes import CAUSES
from bench.foreign.check import SESSION
from bench.foreign.packages import recipes
from bench.pipelines.check import MODULE, Checked, Row

GOOD = Checked(exact=True, repeats=True, reuses=True, refreshes={"net": 3})


def test_each_recipe_has_a_row_and_each_row_a_recipe():
    assert compatibility.stored("foreign")["rows"].keys() == recipes().keys()


def test_causes_are_given_for_what_does_not_pass_only():
    rows = packages_section.rows_of(compatibility.stored("foreign"))
    assert CAUSES.keys() == {row.kind for row in rows if row.faults()}


def test_the_section_tells_what_passes_alone_in_a_session_and_not():
    inexact = Checked(repeats=True, reuses=True, refreshes={"net": 3})
    ways = {
        "p: good": {MODULE: GOOD, SESSION: GOOD},
        "p: in a session": {MODULE: inexact, SESSION: GOOD},
        "p: bad": {MODULE: inexact, SESSION: inexact},
    }
    rows = {kind: Row(kind, {"net": 7}, {"net": 4}, checked) for kind, checked in ways.items()}
    stored = {kind: row.to_dict() | {"package": "p"} for kind, row in rows.items()}
    text = packages_section.text({"versions": {"torch": "2", "p": "1"}, "rows": stored})
    assert "3 models and loops of 1 packages" in text
    assert "Pass: 1. Another 1 pass inside" in text
    alone, _, rest = text.partition("### Only in a session")
    only, _, failing = rest.partition("### Not passing")
    assert "| p         | good" in alone
    assert "- **p: in a session**: refreshing at every step changes the result." in only
    assert "- **p: bad**: optimize(module): refreshing at every step changes the result;" in failing

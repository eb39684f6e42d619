"""What a gate found, as JUnit XML: one test for each part of the values."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from fxcache.gate.causes import Cause
from fxcache.gate.findings import Finding, Status
from fxcache.gate.gate import Outcome
from fxcache.gate.tree import leaves


def as_junit(outcome: Outcome) -> str:
    """Return the XML. Each tier and first name of a path is a test; ratios are tests of their own.

    A failure lists its causes, and below each the values of this test that it moved. Inconclusive
    ratios are skipped tests.
    """
    parts = dict.fromkeys(part_of(path) for path, _ in leaves(outcome.measured.to_dict()))
    failing = [f for f in outcome.findings if f.status is not Status.NOTE]
    tests = {part: [f for f in failing if part_of_finding(f) == part] for part in parts}
    known = {id(f) for found in tests.values() for f in found}
    tests |= {part_of_finding(f): [f] for f in failing if id(f) not in known}
    case = "".join(filter(str.isprintable, outcome.case))  # XML has no control characters
    suite = ET.Element("testsuite", name=f"fxcache gate: {case}")
    causes = outcome.causes
    for part, found in tests.items():
        add_test(suite, case, part, found, causes)
    suite.set("tests", str(len(tests)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode")


def add_test(
    suite: ET.Element, case: str, part: str, findings: Sequence[Finding], causes: Sequence[Cause]
) -> None:
    """Add one test with the findings of its part."""
    test = ET.SubElement(suite, "testcase", classname=f"fxcache.gate.{case}", name=part)
    failed = {id(f) for f in findings if f.status is Status.FAILED}
    moved_by = [(c, [f for f in c.findings if id(f) in failed]) for c in causes]
    lines = [line for c, found in moved_by if found for line in (c.what, *moved(c, found))]
    if failed:
        ET.SubElement(test, "failure", message=lines[0]).text = "\n".join(lines)
    elif findings:
        ET.SubElement(test, "skipped", message=findings[0].text)


def moved(cause: Cause, findings: Sequence[Finding]) -> list[str]:
    """Return a line for each finding that ``cause`` does not tell itself."""
    here = {id(finding) for finding in findings}
    return [f"  {line.text}" for line in cause.moved if id(line.finding) in here]


def part_of(path: Sequence[str]) -> str:
    """Return the test to which a value belongs: the tier and the first name below it."""
    return "/".join(path[:2])


def part_of_finding(finding: Finding) -> str:
    """Return the test to which a finding belongs. The names of ratios have a slash."""
    first = finding.entry if finding.tier == "ratios" else finding.entry.split("/")[0]
    return "/".join(filter(None, (finding.tier, first)))

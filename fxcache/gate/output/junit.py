"""What a gate found, as JUnit XML: one test for each part of the values."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from fxcache.gate.findings import Finding, Status
from fxcache.gate.gate import Outcome
from fxcache.gate.tree import leaves


def as_junit(outcome: Outcome) -> str:
    """Return the XML. Each tier and first name of a path is a test; ratios are tests of their own.

    Inconclusive ratios are skipped tests.
    """
    parts = dict.fromkeys(part_of(path) for path, _ in leaves(outcome.measured.to_dict()))
    failing = [f for f in outcome.findings if f.status is not Status.NOTE]
    tests = {part: [f for f in failing if part_of_finding(f) == part] for part in parts}
    known = {id(f) for found in tests.values() for f in found}
    tests |= {part_of_finding(f): [f] for f in failing if id(f) not in known}
    case = "".join(filter(str.isprintable, outcome.case))  # XML has no control characters
    suite = ET.Element("testsuite", name=f"fxcache gate: {case}")
    for part, found in tests.items():
        add_test(suite, case, part, found)
    suite.set("tests", str(len(tests)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode")


def add_test(suite: ET.Element, case: str, part: str, findings: Sequence[Finding]) -> None:
    """Add one test with the findings of its part."""
    test = ET.SubElement(suite, "testcase", classname=f"fxcache.gate.{case}", name=part)
    failed = [f.text for f in findings if f.status is Status.FAILED]
    if failed:
        ET.SubElement(test, "failure", message=failed[0]).text = "\n".join(failed)
    elif findings:
        ET.SubElement(test, "skipped", message=findings[0].text)


def part_of(path: Sequence[str]) -> str:
    """Return the test to which a value belongs: the tier and the first name below it."""
    return "/".join(path[:2])


def part_of_finding(finding: Finding) -> str:
    """Return the test to which a finding belongs. The names of ratios have a slash."""
    first = finding.entry if finding.tier == "ratios" else finding.entry.split("/")[0]
    return "/".join(filter(None, (finding.tier, first)))

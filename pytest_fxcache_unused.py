"""Finds the cases of expected files that no test measures any more.

A case counts as unused only if every test that may measure it has passed. So a run of a part of the
tests tells nothing: with ``-k``, ``-m``, ``--lf`` or ``::``, of some files of a folder alone, with
a test that fails or is skipped, or one that ends early.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Self

import pytest

FIXTURE = "fxcache_gate"


@dataclass
class Seen:
    """What one process, or several together, saw of a test run. Paths are texts.

    Attributes:
        modules: The test files that were collected.
        unknown: The folders of test files of which some tests will not tell what they measure.
        gates: The tests that take the fixture, with their folders.
        passed: The tests that passed.
        used: The cases that were measured, by the file of expected values.
    """

    modules: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    gates: dict[str, str] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)
    used: dict[str, set[str]] = field(default_factory=dict)

    def use(self, file: Path, case: str) -> bool:
        """Remember that a case was measured. Return False if it was before."""
        cases = self.used.setdefault(str(file), set())
        new = case not in cases
        cases.add(case)
        return new

    def add(self, other: Self) -> None:
        """Add what another process saw."""
        self.modules |= other.modules
        self.unknown |= other.unknown
        self.gates |= other.gates
        self.passed |= other.passed
        for file, cases in other.used.items():
            self.used.setdefault(file, set()).update(cases)

    def to_dict(self) -> dict[str, Any]:
        """Describe it as pytest-xdist can send it."""
        lists = {name: sorted(getattr(self, name)) for name in ("modules", "unknown", "passed")}
        used = {file: sorted(cases) for file, cases in self.used.items()}
        return {**lists, "gates": self.gates, "used": used}

    @classmethod
    def from_dict(cls, sent: dict[str, Any]) -> Self:
        """Read what another process sent."""
        sets = {name: set(sent[name]) for name in ("modules", "unknown", "passed")}
        used = {file: set(cases) for file, cases in sent["used"].items()}
        return cls(gates=sent["gates"], used=used, **sets)


class Observer:
    """Hooks that follow a test run. ``seen`` is what they saw."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.seen = Seen()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember a test file that was collected whole."""
        if report.outcome == "passed" and report.nodeid.endswith(".py"):
            self.seen.modules.add(str(self.config.rootpath / report.nodeid))

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        """Remember the folders of gates that do not run."""
        self.seen.unknown |= {str(item.path.parent) for item in items if may_gate(item)}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember the gates that will run."""
        gates = [item for item in session.items if may_gate(item)]
        self.seen.gates |= {item.nodeid: str(item.path.parent) for item in gates}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a test that passed."""
        if report.when == "call" and report.passed:
            self.seen.passed.add(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add what a process of pytest-xdist saw."""
        if sent := getattr(node, "workeroutput", {}).get(FIXTURE):
            self.seen.add(Seen.from_dict(sent))

    def unused(self) -> dict[Path, list[str]]:
        """Return the unused cases by file; nothing unless all tests of the folder passed."""
        if any("::" in arg for arg in self.config.args) or self.config.getoption("lf", False):
            return {}
        patterns = self.config.getini("python_files")
        files = [Path(file) for file in self.seen.used]
        found = {file: list(unused_in(file, self.seen)) for file in files if file.exists()}
        return {
            f: cases for f, cases in found.items() if cases and is_whole(f, self.seen, patterns)
        }


def may_gate(item: pytest.Item) -> bool:
    """Return whether a test takes the fixture, or asks for it by its name."""
    code = getattr(getattr(item, "function", None), "__code__", None)
    return FIXTURE in getattr(item, "fixturenames", ()) or FIXTURE in getattr(code, "co_consts", ())


def is_whole(file: Path, seen: Seen, patterns: Iterable[str]) -> bool:
    """Return whether every test that may measure cases of ``file`` has passed."""
    folder, names = str(file.parent), [Path(pattern).name for pattern in patterns]
    tests = [f for f in file.parent.glob("*.py") if any(fnmatch(f.name, p) for p in names)]
    collected = all(str(test) in seen.modules for test in tests)
    passed = all(test in seen.passed for test, at in seen.gates.items() if at == folder)
    return collected and passed and folder not in seen.unknown


def unused_in(file: Path, seen: Seen) -> Iterator[str]:
    """Yield the cases of a file that no test measured.

    Cases of ``fxcache gate`` are left out, and those of a test file that exists and was not
    collected.
    """
    cases = json.loads(file.read_text(encoding="utf-8")).get("cases", {})
    for case, values in cases.items():
        module = file.parent / case.partition("::")[0]
        elsewhere = "::" in case and module.exists() and str(module) not in seen.modules
        of_tests = "prompts" not in values.get("exact", {}).get("settings", {"prompts": ()})
        if case not in seen.used[str(file)] and of_tests and not elsewhere:
            yield case

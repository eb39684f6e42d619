"""Measures a subject, and holds the values to a file of expected ones."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fxcache.errors import ConfigError
from fxcache.gate.advisory import device_name, milliseconds
from fxcache.gate.causes import Cause, causes_of
from fxcache.gate.compare import advisory_findings, exact_findings, ratio_findings
from fxcache.gate.config import GateConfig
from fxcache.gate.exact.measure import measure
from fxcache.gate.expected import Expected, Update, minor_version
from fxcache.gate.findings import Finding, Status
from fxcache.gate.ratios import Ratio, ratios_of
from fxcache.gate.subject import Subject
from fxcache.gate.timing import measure_rounds
from fxcache.gate.tree import MISSING, leaves


@dataclass(frozen=True)
class Measured:
    """The values of one case.

    Attributes:
        exact: The tree of exact counts; None if they were not measured.
        causes: Explanations of exact counts.
        ratios: Ratios of times by name; None if they were not measured.
        times: Percentiles of milliseconds by kind of step; None if they were not measured.
        device: The name of the device of the times.
    """

    exact: dict[str, Any] | None = None
    causes: Mapping[str, list[str]] = field(default_factory=dict)
    ratios: Mapping[str, Ratio] | None = None
    times: Mapping[str, Any] | None = None
    device: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the values by tier, as a file of expected values holds them."""
        found: dict[str, Any] = {} if self.exact is None else {"exact": self.exact}
        if self.ratios is not None:
            found["ratios"] = {name: r.to_dict() for name, r in sorted(self.ratios.items())}
        if self.times is not None:
            found["advisory"] = {self.device: dict(self.times)}
        return found


@dataclass(frozen=True)
class Outcome:
    """What a gate found about one case.

    Attributes:
        case: The name of the case.
        file: The file of expected values.
        torch: The minor version of torch.
        measured: The values.
        findings: What is not as expected, failures first.
        updates: The earlier changes of the case's expected values.
        expected: The tree of expected counts; empty if there is none.
    """

    case: str
    file: Path
    torch: str
    measured: Measured
    findings: tuple[Finding, ...]
    updates: tuple[Update, ...] = ()
    expected: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The path of the file, relative to the current folder if it is inside."""
        here, file = Path.cwd(), self.file.resolve()
        return str(file.relative_to(here) if file.is_relative_to(here) else self.file)

    @property
    def passed(self) -> bool:
        """Whether no value fails. Inconclusive ratios and times do not block."""
        return not self.with_status(Status.FAILED)

    def with_status(self, status: Status) -> list[Finding]:
        """Return the findings of one status."""
        return [finding for finding in self.findings if finding.status is status]

    @property
    def causes(self) -> list[Cause]:
        """The findings by what moved them, failures first."""
        return causes_of(self.findings)

    @property
    def counted(self) -> int:
        """The number of exact counts and ratios."""
        return sum(1 for _ in leaves(self.measured.exact or {})) + len(self.measured.ratios or {})

    def to_dict(self) -> dict[str, Any]:
        """Describe the outcome as JSON can hold it."""
        return {
            "case": self.case,
            "passed": self.passed,
            "expected_file": self.place,
            "torch": self.torch,
            "causes": [cause.to_dict() for cause in self.causes],
            "findings": [
                {**finding.to_dict(), "cause": finding.cause or cause.what}
                for cause in self.causes
                for finding in cause.findings
            ],
            "measured": self.measured.to_dict(),
        }


def check(subject: Subject, case: str, file: Path, config: GateConfig) -> Outcome:
    """Measure a subject, and compare the values with those of a file.

    Args:
        subject: What to measure.
        case: The name of its values in the file.
        file: The file of expected values.
        config: What to measure, and how.

    Raises:
        ModelFileError: The file cannot be read.
        ConfigError: The file is for another version of torch or another type of device.
    """
    expected = Expected.load(file, subject.device.type)
    values = expected.cases.get(case, {})
    measured = measured_of(subject, config)
    findings = findings_of(values, measured, config)
    if any(is_doubtful(f) for f in findings):  # other load may have interfered
        again = measured_of(subject, config.for_retry())
        measured = replace(measured, ratios=again.ratios, times=again.times)
        findings = findings_of(values, measured, config)
    order = list(Status)
    ordered = sorted(findings, key=lambda f: order.index(f.status))
    updates = tuple(update for update in expected.updates if update.case == case)
    exact = values.get("exact", {})
    return Outcome(case, file, minor_version(), measured, tuple(ordered), updates, exact)


def nothing(_: logging.LogRecord) -> bool:
    """Let no record through a logger."""
    return False


@contextmanager
def quiet_thread() -> Iterator[None]:
    """Let operators run in one thread inside the block, and torch.compile log no trace.

    The time of the thread is then all of the work, and sums have one order on every machine. The
    trace, hundreds of lines, would be shown below each failure of a test.
    """
    threads, trace = torch.get_num_threads(), logging.getLogger("torch.__trace")
    torch.set_num_threads(1)
    trace.addFilter(nothing)  # torch ignores logging.disable here, and sets ``propagate`` itself
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        trace.removeFilter(nothing)


@quiet_thread()
def measured_of(subject: Subject, config: GateConfig) -> Measured:
    """Measure the tiers that ``config`` names, in one thread and in eager mode."""
    with subject.uncompiled():
        exact, causes = measure(subject) if "exact" in config.tiers else (None, {})
        if "ratios" not in config.tiers and "advisory" not in config.tiers:
            return Measured(exact, causes)
        rounds = measure_rounds(subject, config.rounds)
    ratios = ratios_of(rounds) if "ratios" in config.tiers else None
    times = milliseconds(rounds) if "advisory" in config.tiers else None
    return Measured(exact, causes, ratios, times, device_name(subject.device))


def findings_of(values: Mapping[str, Any], measured: Measured, config: GateConfig) -> list[Finding]:
    """Compare measured values with those of one case."""
    found: list[Finding] = []
    if measured.exact is not None:
        expected = values.get("exact", MISSING)
        found += exact_findings(expected, measured.exact, measured.causes)
    if measured.ratios is not None:
        found += ratio_findings(values.get("ratios"), measured.ratios, config.margin)
    if measured.times is not None:
        times = values.get("advisory", {}).get(measured.device)
        found += advisory_findings(times, measured.times, measured.device)
    return found


def is_doubtful(finding: Finding) -> bool:
    """Return whether a second measurement may show another result: a ratio was compared."""
    return finding.tier == "ratios" and finding.status is not Status.NOTE and bool(finding.cause)


def update(subject: Subject, case: str, file: Path, config: GateConfig, reason: str) -> Update:
    """Measure a subject, and write the values to a file as those to expect.

    Args:
        subject: What to measure.
        case: The name of its values in the file.
        file: The file of expected values.
        config: What to measure. Tiers that are not measured keep their values.
        reason: Why the values change. The file keeps it.

    Returns:
        What changed.

    Raises:
        ConfigError: The reason is empty.
    """
    require_reason(reason)
    expected = Expected.load(file, subject.device.type)
    measured = measured_of(subject, config)
    expected.update(case, measured.to_dict(), reason)
    expected.save(file)
    return expected.updates[-1]


def require_reason(reason: str) -> None:
    """Raise ConfigError for an empty reason."""
    if not reason.strip():
        raise ConfigError(
            "an update needs a reason",
            where="fxcache gate",
            remedy="say why the values change",
        )

"""The section of ``docs/compatibility.md`` about public reports."""

from collections.abc import Iterable, Mapping
from typing import Any

from tabulate import tabulate

from bench.reports.report import PublicReport
from bench.reports.situations import reports

INTRODUCTION = """\
Users of other caches reported trouble in public. {count} such reports, of {projects} projects, \
were tried with fxcache: the same kind of pipeline, small and with random weights, and the same \
calls in the same order, on the CPU (torch {torch}, diffusers {diffusers}). The reports describe \
other software, and versions of it that may be old. Again: `python -m bench.reports`.

*As in a new pipeline* means: if every step refreshes, a request has the bits of the plain \
pipeline. If every third step does, it reuses, and has the bits and the refreshes that it has \
alone, in a new optimised pipeline. Of the {count}, {passing} hold."""

LIMITS = "Where fxcache does not do well"


def text(data: Mapping[str, Any]) -> str:
    """Return the text of the section, from the content of ``bench/results/reports.json``."""
    known = reports()
    listed = [known[name] for name in data["faults"]]
    failing = {name: faults for name, faults in data["faults"].items() if faults}
    introduction = INTRODUCTION.format(
        count=len(listed),
        projects=len({report.repository for report in listed}),
        passing=len(listed) - len(failing),
        **data["versions"],
    )
    parts = [introduction, table(report for report in listed if report.name not in failing)]
    for heading, field in (("Reports that failed at first", "mended"), (LIMITS, "limit")):
        lines = [f"- {linked(r)}: {getattr(r, field)}" for r in listed if getattr(r, field)]
        parts += [f"### {heading}", "\n".join(lines)] if lines else []
    if failing:
        parts += ["### Reports that fail here", described(listed, failing)]
    return "\n\n".join(parts)


def table(listed: Iterable[PublicReport]) -> str:
    lines = [
        {"report": linked(report), "situation": report.situation, "with fxcache": report.here}
        for report in listed
    ]
    return tabulate(lines, headers="keys", tablefmt="github")


def linked(report: PublicReport) -> str:
    return f"[{report.name}]({report.address})"


def described(listed: Iterable[PublicReport], failing: Mapping[str, list[str]]) -> str:
    return "\n".join(
        f"- {linked(report)}: {report.situation} Here: {'; '.join(failing[report.name])}."
        for report in listed
        if report.name in failing
    )

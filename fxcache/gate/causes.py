"""Groups findings by what moved them: one changed decision or graph moves many counts."""

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fxcache.gate.findings import Finding, Status

# What the engine decided: the policy of a denoiser, and the plan of a capture, or a whole capture.
DECISION = re.compile(
    r"denoisers/([^/]+)/(?:policy|captures/\d+/(?:inputs|cut|hoisted|signal)|captures/\d+$)(?:/|$)"
)
SCHEDULE = re.compile(r"denoisers/([^/]+)/(?:first_run|later_run)/\d+/refreshes$")
RUN = re.compile(r"denoisers/([^/]+)/(?:first_run|later_run)/")
GRAPH = re.compile(r"(denoisers/[^/]+/captures/\d+)/(?:graphs|inductor)/([^/]+)")
OPERATOR = re.compile(r".*/graphs/[^/]+/operators/")
SETTINGS, DECIDED, SCHEDULED, OPERATORS = "settings", "decided", "scheduled", "operators"
GUARD, IMPORTS, KERNEL, ALONE = "guard", "imports", "kernel_resources", "alone"
MOVERS = (SETTINGS, DECIDED, SCHEDULED, OPERATORS)


class Moved(NamedTuple):
    """A value that moved, and the line that tells it below its cause."""

    finding: Finding
    text: str


@dataclass(frozen=True)
class Cause:
    """One change, and all values that moved with it.

    Attributes:
        what: The change in one line.
        findings: The values, in order. All have one status.
        moved: The values that ``what`` does not tell.
    """

    what: str
    findings: tuple[Finding, ...]
    moved: tuple[Moved, ...]

    @property
    def status(self) -> Status:
        """Whether the values block."""
        return self.findings[0].status

    def to_dict(self) -> dict[str, Any]:
        """Describe the cause as JSON can hold it. The findings have their own list."""
        entries = [finding.entry for finding in self.findings]
        return {"cause": self.what, "status": self.status.value, "entries": entries}


Key = tuple[Hashable, ...]


def causes_of(findings: Sequence[Finding]) -> list[Cause]:
    """Return the causes, in the order of their first findings. Each finding has one cause.

    Exact counts that fail are grouped: below changed settings, below what was decided otherwise for
    a denoiser, below its changed schedule, by the operators of a graph that changed, and by the
    guard that failed. If there is only one such cause, counts without one of their own join it.
    """
    keys = keys_of(findings)
    movers = {key for key in keys if key[0] in MOVERS}
    only = movers.pop() if len(movers) == 1 else None
    groups: dict[Key, list[Finding]] = {}
    for index, (finding, key) in enumerate(zip(findings, keys, strict=True)):
        joins = key == (ALONE,) and is_exact_failure(finding) and only
        groups.setdefault(joins or (key if key != (ALONE,) else (index,)), []).append(finding)
    return [cause_of(key, found) for key, found in groups.items()]


def is_exact_failure(finding: Finding) -> bool:
    """Return whether a finding is a count that fails."""
    return finding.tier == "exact" and finding.status is Status.FAILED


def keys_of(findings: Sequence[Finding]) -> list[Key]:
    """Return the group of each finding."""
    failing = [f for f in findings if is_exact_failure(f)]
    decided = {m[1] for f in failing if (m := DECISION.match(f.entry))}
    scheduled = {m[1] for f in failing if (m := SCHEDULE.match(f.entry))}
    operators = {m.groups(): f.cause for f in failing if f.cause and (m := GRAPH.match(f.entry))}
    settings = any(f.entry.startswith("settings/") for f in failing)

    def key_of(finding: Finding) -> Key:
        first, _, rest = finding.entry.partition("/")
        if not is_exact_failure(finding):
            return (ALONE,)
        if first == IMPORTS:
            return (IMPORTS,)
        if first == KERNEL:
            return (KERNEL, rest.partition("/")[0])
        if first == "compilation" and finding.cause:
            return (GUARD, finding.cause)
        if settings:
            return (SETTINGS,)
        name = rest.partition("/")[0]
        if name in decided:
            return (DECIDED, name)
        if name in scheduled and RUN.match(finding.entry):
            return (SCHEDULED, name)
        if graph := GRAPH.match(finding.entry):
            return (OPERATORS, operators.get(graph.groups(), graph.groups()))
        return (ALONE,)

    return [key_of(finding) for finding in findings]


def cause_of(key: Key, findings: Sequence[Finding]) -> Cause:
    """Return the cause of one group."""
    if len(findings) == 1:
        return Cause(findings[0].text, tuple(findings), ())
    heads = heads_of(key, findings)
    what = "; ".join(f.text for f in heads)
    if key[0] in (GUARD, KERNEL):
        what = " ".join(map(str, key[1:] if key[0] == GUARD else key))
        what = " ".join(what.split())
    if key[0] == OPERATORS and isinstance(key[1], str):
        places = (GRAPH.match(f.entry) for f in findings)
        graphs = dict.fromkeys("/".join(m.groups()) for m in places if m)
        what = f"{', '.join(graphs)}: {key[1]}"
    told = [what, *(f.cause for f in findings)]
    others = [f for f in findings if f not in heads and not is_told(f, told)]
    return Cause(what, tuple(findings), tuple(moved_by(what, others)))


def heads_of(key: Key, findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that are the change itself. The others moved with it."""
    if key[0] == SETTINGS:
        return [f for f in findings if f.entry.startswith("settings/")]
    if key[0] == DECIDED:
        return [f for f in findings if DECISION.match(f.entry)]
    if key[0] == SCHEDULED:
        return [f for f in findings if SCHEDULE.match(f.entry)][:1]
    if key[0] == OPERATORS:
        return [] if isinstance(key[1], str) else [f for f in findings if OPERATOR.match(f.entry)]
    return list(findings) if key[0] == IMPORTS else []


def is_told(finding: Finding, texts: Sequence[str]) -> bool:
    """Return whether a changed operator is named in one of ``texts``."""
    if not OPERATOR.match(finding.entry):
        return False
    name = OPERATOR.sub("", finding.entry)
    return any(f"{name} {finding.message.partition(' (')[0]}" in text for text in texts)


def moved_by(what: str, findings: Sequence[Finding]) -> Iterator[Moved]:
    """Yield the findings below a cause. An explanation is told once."""
    for finding in findings:
        cause = "" if " ".join(finding.cause.split()) in what else finding.cause
        yield Moved(finding, replace(finding, cause=cause).text)
        what += cause

"""Findings as workflow commands of GitHub Actions, which it shows at the file."""

from collections.abc import Mapping

from fxcache.gate.findings import Status
from fxcache.gate.gate import Outcome

LEVELS = {Status.FAILED: "error", Status.INCONCLUSIVE: "warning", Status.NOTE: "notice"}
MAX_ANNOTATIONS = 10  # GitHub shows at most ten of each level for a step
# Characters that have a meaning in a command, and in one of its properties.
ESCAPES = {"%": "%25", "\r": "%0D", "\n": "%0A"}
PROPERTY_ESCAPES = {**ESCAPES, ":": "%3A", ",": "%2C"}


def annotations(outcome: Outcome) -> list[str]:
    """Return one command for each finding, at most ten of each level."""
    lines = []
    for status, level in LEVELS.items():
        for finding in outcome.with_status(status)[:MAX_ANNOTATIONS]:
            file = escaped(outcome.place, PROPERTY_ESCAPES)
            title = escaped(f"fxcache gate, {outcome.case}", PROPERTY_ESCAPES)
            text = escaped(finding.text, ESCAPES)
            lines.append(f"::{level} file={file},title={title}::{text}")
    return lines


def escaped(text: str, escapes: Mapping[str, str]) -> str:
    """Replace characters that have a meaning in a command. The percent sign comes first."""
    for character, replacement in escapes.items():
        text = text.replace(character, replacement)
    return text

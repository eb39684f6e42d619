"""Causes as workflow commands of GitHub Actions, which it shows at the file."""

from collections.abc import Mapping

from fxcache.gate.causes import Cause
from fxcache.gate.findings import Status
from fxcache.gate.gate import Outcome

LEVELS = {Status.FAILED: "error", Status.INCONCLUSIVE: "warning", Status.NOTE: "notice"}
MAX_ANNOTATIONS = 10  # GitHub shows at most ten of each level for a step
MAX_MOVED = 10  # values that one of them lists
# Characters that have a meaning in a command, and in one of its properties.
ESCAPES = {"%": "%25", "\r": "%0D", "\n": "%0A"}
PROPERTY_ESCAPES = {**ESCAPES, ":": "%3A", ",": "%2C"}


def annotations(outcome: Outcome) -> list[str]:
    """Return one command for each cause, at most ten of each level."""
    lines, causes = [], outcome.causes
    for status, level in LEVELS.items():
        for cause in [c for c in causes if c.status is status][:MAX_ANNOTATIONS]:
            file = escaped(outcome.place, PROPERTY_ESCAPES)
            title = escaped(f"fxcache gate, {outcome.case}", PROPERTY_ESCAPES)
            text = escaped("\n".join((cause.what, *moved_by(cause))), ESCAPES)
            lines.append(f"::{level} file={file},title={title}::{text}")
    return lines


def moved_by(cause: Cause) -> list[str]:
    """Return a line for each value that a cause moved, up to a limit."""
    left = len(cause.moved) - MAX_MOVED
    shown = [line.text for line in cause.moved[:MAX_MOVED]]
    return [*shown, *([f"and {left} more"] if left > 0 else [])]


def escaped(text: str, escapes: Mapping[str, str]) -> str:
    """Replace characters that have a meaning in a command. The percent sign comes first."""
    for character, replacement in escapes.items():
        text = text.replace(character, replacement)
    return text

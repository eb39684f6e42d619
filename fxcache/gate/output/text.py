"""What a gate found, as text for a terminal."""

from collections.abc import Sequence

from tabulate import tabulate

from fxcache.gate.causes import Cause
from fxcache.gate.findings import Status
from fxcache.gate.gate import Outcome

INDENT = 17 * " "
MARKS = {Status.FAILED: "FAILED", Status.INCONCLUSIVE: "INCONCLUSIVE", Status.NOTE: "note"}
LINES_SHOWN = 40
MOVED_SHOWN = 15  # values below one cause


def as_text(outcome: Outcome, update: str) -> str:
    """Return a summary, the causes with the values that they moved, and the ratios.

    Args:
        outcome: What the gate found.
        update: The option that writes the measured values, which a failure names.
    """
    parts = [summary(outcome), *cause_lines(outcome.causes)]
    if not outcome.passed:
        parts += ["", f"If this is intended, write the new values: {update}"]
    if outcome.measured.ratios:
        parts += ["", ratio_table(outcome)]
    return "\n".join(parts)


def summary(outcome: Outcome) -> str:
    """Return one line: the case, whether it passed, and how many values were compared."""
    failed = len(outcome.with_status(Status.FAILED))
    causes = sum(cause.status is Status.FAILED for cause in outcome.causes)
    by = f", by {causes} cause{'s' if causes > 1 else ''}" if causes < failed else ""
    result = "passed" if outcome.passed else f"FAILED: {failed} of its values{by}"
    unsure = len(outcome.with_status(Status.INCONCLUSIVE))
    inconclusive = f", {unsure} inconclusive" if unsure else ""
    return f"{outcome.case}: {result}{inconclusive} ({outcome.counted} values, {outcome.place})"


def cause_lines(causes: Sequence[Cause]) -> list[str]:
    """Return one line for each cause, and below it one for each value that it moved.

    There is a limit for each cause, and one for all lines.
    """
    lines = [line for cause in causes for line in lines_of(cause)]
    left = len(lines) - LINES_SHOWN
    return lines[:LINES_SHOWN] + ([f"  and {left} more; --json shows all"] if left > 0 else [])


def lines_of(cause: Cause) -> list[str]:
    """Return the lines of one cause."""
    shown, left = cause.moved[:MOVED_SHOWN], len(cause.moved) - MOVED_SHOWN
    more = [f"{INDENT}and {left} more; --json shows all"] if left > 0 else []
    first = f"  {MARKS[cause.status]:<12} {cause.what}"
    return [first, *(f"{INDENT}{line.text}" for line in shown), *more]


def ratio_table(outcome: Outcome) -> str:
    """Return the table of ratios."""
    rows = [
        (name, f"{r.time:.3f}", f"{r.low:.3f} to {r.high:.3f}", f"{r.flops:.3f}", r.rounds)
        for name, r in sorted((outcome.measured.ratios or {}).items())
    ]
    headers = ("ratio", "time", "95 %", "FLOPs", "rounds")
    return tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True)

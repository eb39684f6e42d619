"""What a gate found, as text for a terminal."""

from collections.abc import Sequence

from tabulate import tabulate

from fxcache.gate.findings import Finding, Status
from fxcache.gate.gate import Outcome

MARKS = {Status.FAILED: "FAILED", Status.INCONCLUSIVE: "INCONCLUSIVE", Status.NOTE: "note"}
FAILURES_SHOWN = 40


def as_text(outcome: Outcome, update: str) -> str:
    """Return a summary, the findings and the ratios.

    Args:
        outcome: What the gate found.
        update: The option that writes the measured values, which a failure names.
    """
    parts = [summary(outcome), *finding_lines(outcome.findings)]
    if not outcome.passed:
        parts += ["", f"If this is intended, write the new values: {update}"]
    if outcome.measured.ratios:
        parts += ["", ratio_table(outcome)]
    return "\n".join(parts)


def summary(outcome: Outcome) -> str:
    """Return one line: the case, whether it passed, and how many values were compared."""
    failed = len(outcome.with_status(Status.FAILED))
    result = "passed" if outcome.passed else f"FAILED: {failed} of its values"
    unsure = len(outcome.with_status(Status.INCONCLUSIVE))
    inconclusive = f", {unsure} inconclusive" if unsure else ""
    return f"{outcome.case}: {result}{inconclusive} ({outcome.counted} values, {outcome.place})"


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Return one line for each finding, up to a limit."""
    lines = [f"  {MARKS[f.status]:<12} {f.text}" for f in findings[:FAILURES_SHOWN]]
    left = len(findings) - len(lines)
    return lines + ([f"  and {left} more; --json shows all"] if left else [])


def ratio_table(outcome: Outcome) -> str:
    """Return the table of ratios."""
    rows = [
        (name, f"{r.time:.3f}", f"{r.low:.3f} to {r.high:.3f}", f"{r.flops:.3f}", r.rounds)
        for name, r in sorted((outcome.measured.ratios or {}).items())
    ]
    headers = ("ratio", "time", "95 %", "FLOPs", "rounds")
    return tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True)

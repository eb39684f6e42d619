"""The section of ``docs/compatibility.md`` about models of other packages."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from bench.foreign.causes import CAUSES
from bench.pipelines.check import MODULE, Checked, Row, faults
from bench.pipelines.document import refreshes

INTRODUCTION = """\
A small model with random weights on the CPU (torch {torch}), sampled by the package's own loop: \
{models} models and loops of {packages} packages. The recipes are in `bench/foreign/packages`. A \
row passes if all of this holds, with `fxcache.optimize(model)` alone:

- If every step refreshes, the result equals that of the plain loop bit for bit.
- If every third step refreshes, the result differs, and no trajectory of `n` calls refreshes more \
than ⌈n/3⌉ + 1 times.
- A second run gives the bits of the first.

Pass: {passing}. Another {in_session} pass inside `fxcache.session(model)`, which tells fxcache \
which calls are one run. Each call of a loop without a session is [attributed by \
evidence](guide.md#what-can-go-wrong). Models with random weights move their latents further from \
step to step than trained ones, so more calls are unclear here. An unclear call refreshes."""


def rows_of(data: Mapping[str, Any]) -> list[Row]:
    """Return the rows in the content of ``bench/results/foreign.json``."""
    rows = []
    for stored in data["rows"].values():
        fields = {name: value for name, value in stored.items() if name != "package"}
        ways = {way: Checked(**checked) for way, checked in stored["ways"].items()}
        rows.append(Row(**{**fields, "ways": ways}))
    return rows


def needs_session(row: Row) -> bool:
    """Return whether all that falls short is gone inside a session."""
    others = [checked for way, checked in row.ways.items() if way != MODULE]
    return bool(others and row.faults()) and not any(faults(c, row.limits) for c in others)


def text(data: Mapping[str, Any]) -> str:
    """Return the text of the section."""
    rows = rows_of(data)
    passing = [row for row in rows if not row.faults()]
    in_session = [row for row in rows if needs_session(row)]
    failing = [row for row in rows if row.faults() and row not in in_session]
    versions = dict(data["versions"])
    torch = versions.pop("torch")
    counts = {"models": len(rows), "packages": len(versions), "passing": len(passing)}
    introduction = INTRODUCTION.format(torch=torch, in_session=len(in_session), **counts)
    listed = ", ".join(f"{package} {version}" for package, version in versions.items())
    parts = [introduction, f"Versions: {listed}.", table(passing)]
    if in_session:
        parts += ["### Only in a session", described(in_session, MODULE)]
    if failing:
        parts += ["### Not passing", described(failing)]
    return "\n\n".join(parts)


def table(rows: list[Row]) -> str:
    """Return the table of rows that pass. The refreshes are those at interval 3, in each way."""
    lines = []
    for row in rows:
        package, _, model = row.kind.partition(": ")
        counts = "; ".join(
            f"{row.calls[name]} → {' or '.join(map(str, refreshes(row, name)))}"
            for name in row.limits
        )
        lines.append({"package": package, "model, loop": model, "calls → refreshes": counts})
    return tabulate(lines, headers="keys", tablefmt="github")


def described(rows: list[Row], way: str = "") -> str:
    """Return what falls short in each row, in one way or in all, and the cause."""
    lines = []
    for row in rows:
        short = faults(row.ways[way], row.limits) if way else row.faults()
        lines.append(
            f"- **{row.kind}**: {'; '.join(short)}. Cause: {CAUSES.get(row.kind, 'not known')}."
        )
    return "\n".join(lines)

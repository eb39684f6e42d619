"""Writes ``docs/pipelines.md`` from the results of ``python -m bench.pipelines``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.pipelines.causes import CAUSES
from bench.pipelines.check import Checked, Row
from bench.pipelines.left_out import LEFT_OUT

PAGE = Path(__file__).parents[2] / "docs" / "pipelines.md"
INTRODUCTION = """\
Every pipeline class of diffusers {diffusers} that calls a denoiser four times or more, built \
small with random weights on the CPU (torch {torch}). Classes: {classes}. Pass: {passing}. Made by \
`make pipelines`; the recipes are in `bench/pipelines/families`. What works inside these pipelines \
(LoRA, adapters, offloading and so on) is on the page [Features of pipelines](features.md).

A class passes if all of this holds, with `fxcache.optimize(pipe)` and with \
`fxcache.optimize(...)` of each denoiser alone:

- If every step refreshes, the result equals that of the plain pipeline bit for bit.
- If every third step refreshes, the result differs, and no trajectory of `n` calls refreshes more \
than ⌈n/3⌉ + 1 times. A call that only fills a cache of keys and values is no step, and refreshes.
- A second run gives the bits of the first."""


def rows_of(data: Mapping[str, Any]) -> list[Row]:
    """Return the rows in the content of ``bench/results/pipelines.json``."""
    rows = []
    for stored in data["classes"].values():
        ways = {way: Checked(**checked) for way, checked in stored["ways"].items()}
        rows.append(Row(**{**stored, "ways": ways}))
    return rows


def document(data: Mapping[str, Any]) -> str:
    """Return the text of ``docs/pipelines.md``."""
    rows = rows_of(data)
    passing = [row for row in rows if not row.faults()]
    introduction = INTRODUCTION.format(
        diffusers=data["diffusers"],
        torch=data["torch"],
        classes=len(rows),
        passing=len(passing),
    )
    table = tabulate([line(row) for row in passing], headers="keys", tablefmt="github")
    parts = ["# Pipelines", introduction, table]
    failing = [failure(row) for row in rows if row.faults()]
    if failing:
        parts += ["## Not passing", "\n".join(failing)]
    left_out = [f"- **{kind}**: {reason}." for kind, reason in sorted(LEFT_OUT.items())]
    parts += ["## Left out", "\n".join(left_out)]
    return "\n\n".join(parts) + "\n"


def failure(row: Row) -> str:
    """Return what falls short in one class, and the cause."""
    cause = CAUSES.get(row.kind)
    because = f" Cause: {cause}." if cause else ""
    return f"- **{row.kind}**: {'; '.join(row.faults())}.{because}"


def line(row: Row) -> dict[str, str]:
    """Return one row of the table. The refreshes are those at interval 3, in each way."""
    counts = [
        f"`{name}`: {row.calls[name]} → {' or '.join(map(str, refreshes(row, name)))}"
        for name in row.limits
    ]
    return {"pipeline": row.kind, "denoiser: calls → refreshes": "; ".join(counts)}


def refreshes(row: Row, name: str) -> Iterator[int]:
    """Yield the distinct numbers of refreshes of a denoiser."""
    yield from dict.fromkeys(checked.refreshes[name] for checked in row.ways.values())


def write(data: Mapping[str, Any]) -> None:
    """Write the page."""
    PAGE.write_text(document(data), encoding="utf-8")

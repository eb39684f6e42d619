"""What a gate found, as one static page of HTML that needs no server and no network."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from fxcache.gate.causes import Cause
from fxcache.gate.compare import shown
from fxcache.gate.gate import Outcome
from fxcache.gate.output.trends import trends_of, update_lines
from fxcache.gate.ratios import Ratio
from fxcache.integrations.diffusers import installed

GRAPH_COLUMNS = ("flops", "bytes", "nodes", "launches")
BLANK: list[int | None] = [None] * len(GRAPH_COLUMNS)
LEFT, RIGHT, WIDTH = 120, 620, 640  # where plots begin and end, in units of the picture


def as_html(outcome: Outcome) -> str:
    """Return the page.

    Raises:
        ModelFileError: jinja2 is not installed.
    """
    engine = installed("jinja2", "gate").Environment(autoescape=True)
    source = files("fxcache.gate.output").joinpath("page.html").read_text(encoding="utf-8")
    exact, times = outcome.measured.exact or {}, outcome.measured.times or {}
    expected = outcome.expected if exact and outcome.expected else exact
    rendered: str = engine.from_string(source).render(
        case=outcome.case,
        passed=outcome.passed,
        counted=f"{outcome.counted:,}",
        torch=outcome.torch,
        device=outcome.measured.device,
        file=outcome.place,
        causes=[cause_row(cause) for cause in outcome.causes],
        ratios=list(ratio_rows(outcome.measured.ratios or {})),
        strips=strips(expected, exact),
        graphs=graph_rows(expected, exact),
        graph_columns=GRAPH_COLUMNS,
        times=[{"name": name, "numbers": list(row.values())} for name, row in times.items()],
        time_columns=list(next(iter(times.values()), {})),
        updates=[
            {"date": u.date, "reason": u.reason, "lines": update_lines(u)} for u in outcome.updates
        ],
        trends=trends_of(outcome.updates, LEFT, RIGHT),
    )
    return rendered


def cause_row(cause: Cause) -> dict[str, Any]:
    """Return a cause, and the values that it moved."""
    moved = [{"entry": m.finding.entry, "text": m.text} for m in cause.moved]
    for row in moved:
        row["text"] = row["text"].removeprefix(f"{row['entry']}: ")
    return {"status": cause.status.value, "what": cause.what, "moved": moved}


def ratio_rows(ratios: Mapping[str, Ratio]) -> Iterator[dict[str, Any]]:
    """Yield the place of each part of the plot of one ratio."""
    largest = max((max(r.high, r.flops) for r in ratios.values()), default=1)

    def x(value: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * value / largest, 1)

    for name, r in sorted(ratios.items()):
        text = f"{r.time:.3f}, 95 % {r.low:.3f} to {r.high:.3f}; FLOPs {r.flops:.3f}"
        places = {f"{part}_x": x(getattr(r, part)) for part in ("low", "high", "time", "flops")}
        yield {"name": name, "text": text, **places}


def strips(expected: Mapping[str, Any], measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a strip for each later run of each denoiser, below an expected one that differs."""
    before, found = later_runs(expected), []
    for name, run in later_runs(measured).items():
        if before.get(name, run) != run:
            found.append(strip(f"{name}, expected", before[name]))
        found.append(strip(name, run))
    return found


def later_runs(exact: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the number of steps and the refreshes of each later run, by the denoiser's name."""
    found = {}
    for name, denoiser in exact.get("denoisers", {}).items():
        runs = denoiser.get("later_run", [])
        for number, run in enumerate(runs):
            title = name if len(runs) == 1 else f"{name}, run {number}"
            found[title] = {part: run[part] for part in ("steps", "refreshes")}
    return found


def strip(name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the strip of one run."""
    text = f"{len(run['refreshes'])} of {run['steps']} steps refresh"
    return {"name": name, "text": text, "cells": cells(run["refreshes"], run["steps"])}


def cells(refreshes: Sequence[int], steps: int) -> list[dict[str, Any]]:
    """Return the place and the kind of each step of a strip."""
    width = WIDTH / steps
    return [
        {
            "kind": "computed" if step in refreshes else "reused",
            "title": f"step {step}",
            "x": round(step * width, 2),
            "width": round(width * 0.9, 2),
        }
        for step in range(steps)
    ]


def graph_rows(expected: Mapping[str, Any], measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the counts of each graph, with the expected ones where they differ."""
    before, now = graph_counts(expected), graph_counts(measured)
    found = []
    for name in dict.fromkeys((*now, *before)):
        pairs = zip(before.get(name, BLANK), now.get(name, BLANK), strict=True)
        numbers = [{"text": moved(*pair), "differs": pair[0] != pair[1]} for pair in pairs]
        found.append({"name": name, "numbers": numbers})
    return found


def graph_counts(exact: Mapping[str, Any]) -> dict[str, list[int | None]]:
    """Return the counts of each graph, by its denoiser and name."""
    found: dict[str, list[int | None]] = {}
    for denoiser, values in exact.get("denoisers", {}).items():
        captures = values.get("captures", [])
        for number, capture in enumerate(captures):
            where = denoiser if len(captures) == 1 else f"{denoiser}, capture {number}"
            compiled = capture.get("inductor", {})
            for name, graph in capture.get("graphs", {}).items():
                counts = {**graph, "launches": compiled.get(name, {}).get("launches")}
                found[f"{where}: {name}"] = [counts.get(column) for column in GRAPH_COLUMNS]
    return found


def moved(before: int | None, now: int | None) -> str:
    """Return a count as text, with the expected one if it differs."""
    return shown(now) if before == now else f"{shown(before)} → {shown(now)}"

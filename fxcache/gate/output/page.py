"""What a gate found, as one static page of HTML that needs no server and no network."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from fxcache.gate.causes import Cause
from fxcache.gate.gate import Outcome
from fxcache.gate.output.trends import trends_of, update_lines
from fxcache.gate.ratios import Ratio
from fxcache.integrations.diffusers import installed

GRAPH_COLUMNS = ("flops", "bytes", "nodes", "launches")
LEFT, RIGHT, WIDTH = 120, 620, 640  # where plots begin and end, in units of the picture


def as_html(outcome: Outcome) -> str:
    """Return the page.

    Raises:
        ModelFileError: jinja2 is not installed.
    """
    engine = installed("jinja2", "gate").Environment(autoescape=True)
    source = files("fxcache.gate.output").joinpath("page.html").read_text(encoding="utf-8")
    exact, times = outcome.measured.exact or {}, outcome.measured.times or {}
    rendered: str = engine.from_string(source).render(
        case=outcome.case,
        passed=outcome.passed,
        counted=f"{outcome.counted:,}",
        torch=outcome.torch,
        device=outcome.measured.device,
        file=outcome.place,
        causes=[cause_row(cause) for cause in outcome.causes],
        ratios=list(ratio_rows(outcome.measured.ratios or {})),
        strips=list(strips(exact)),
        graphs=list(graph_rows(exact)),
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


def strips(exact: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a strip for each later run of each denoiser."""
    for name, denoiser in exact.get("denoisers", {}).items():
        for number, run in enumerate(denoiser["later_run"]):
            text = f"{len(run['refreshes'])} of {run['steps']} steps refresh"
            title = name if len(denoiser["later_run"]) == 1 else f"{name}, run {number}"
            yield {"name": title, "text": text, "cells": cells(run["refreshes"], run["steps"])}


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


def graph_rows(exact: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the counts of each graph."""
    for denoiser, found in exact.get("denoisers", {}).items():
        for capture in found["captures"]:
            for name, graph in capture["graphs"].items():
                counts = {**graph, "launches": capture["inductor"].get(name, {}).get("launches")}
                numbers = [shown(counts[column]) for column in GRAPH_COLUMNS]
                yield {"name": f"{denoiser}: {name}", "numbers": numbers}


def shown(count: int | None) -> str:
    """Return a count as text."""
    return "–" if count is None else f"{count:,}"

"""The pictures of ``docs/peers.md``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.gallery.drawing import CACHED, COMPUTED, INK, drawing_style, save
from bench.peers.tables import Row, curves_of, without_errors
from bench.peers.timing import PLAIN
from fxcache.report.pareto import draw_pareto

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
LINE = 0.2  # inches


def speed_picture() -> Path:
    return PICTURES / "peers-speed.svg"


def quality_picture(name: str) -> Path:
    return PICTURES / f"peers-{name}.png"


def draw_quality(name: str, rows: Mapping[str, Sequence[Row]]) -> None:
    """Plot PSNR against the ideal speed-up, with a curve for each contender."""
    draw_pareto(curves_of(rows), quality_picture(name), name)


def draw_speed(subjects: Mapping[str, Any]) -> None:
    """Draw a bar for each contender of each subject, and a mark at its ideal speed-up."""
    shown = {name: bars_of(found["eager"]) for name, found in subjects.items()}
    heights = [len(rows) + 2 for rows in shown.values()]
    with drawing_style():
        page = Figure(figsize=(9, LINE * sum(heights)), layout="constrained")
        panels: Any = page.subplots(
            len(shown), 1, sharex=True, height_ratios=heights, squeeze=False
        )
        for (name, rows), axes in zip(shown.items(), panels[:, 0], strict=True):
            draw_bars(axes, name, rows)
        panels[-1, 0].set_xlabel("speed-up in eager mode; the mark is the ideal, from FLOPs")
        save(page, speed_picture())


def bars_of(rows: Mapping[str, Row]) -> dict[str, Row]:
    return {name: row for name, row in without_errors(rows).items() if name != PLAIN}


def draw_bars(axes: Any, name: str, rows: Mapping[str, Row]) -> None:
    places = range(len(rows))
    colors = [COMPUTED if label.startswith("fxcache") else CACHED for label in rows]
    axes.barh(places, [row["speedup"] for row in rows.values()], color=colors, height=0.7)
    ideal = [row["ideal_speedup"] for row in rows.values()]
    axes.plot(ideal, places, "|", color=INK, markersize=9, markeredgewidth=1.5)
    axes.set_yticks(places, list(rows), fontsize=8)
    axes.invert_yaxis()
    axes.set_title(name, fontsize=10, loc="left")
    axes.axvline(1, color=INK, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)

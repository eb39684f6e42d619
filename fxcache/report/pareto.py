"""A picture: quality against speed, each policy a curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fxcache.report.drawing import figure, save

COLORS = 10  # that matplotlib gives curves, in turn
LINES = ("-", "--", ":")  # one after the other where curves have the same colour


class Point(NamedTuple):
    """One setting of a policy: its speed-up, and its likeness to the uncached run in dB."""

    speedup: float
    psnr_db: float


def draw_pareto(
    curves: Mapping[str, Sequence[Point]],
    out: Path,
    title: str,
    chosen: Point | None = None,
    speed: str = "speed-up, from FLOPs",
) -> None:
    """Write the curves to ``out``, by what its name ends in (``.png``, ``.svg``, ``.pdf``).

    ``chosen`` is marked by a star. Raises ModelFileError where matplotlib is missing, or the file
    cannot be written.
    """
    page = figure(8, 5)
    axes: Any = page.add_subplot()
    for index, (name, points) in enumerate(curves.items()):
        ordered = sorted(points)
        x, y = [p.speedup for p in ordered], [p.psnr_db for p in ordered]
        line = LINES[index // COLORS % len(LINES)]
        axes.plot(x, y, line, marker="o", markersize=3.5, linewidth=1.2, label=name)
    if chosen:
        axes.plot(*chosen, marker="*", markersize=15, color="black", linestyle="", label="chosen")
    axes.set_xlabel(speed)
    axes.set_ylabel("PSNR against the uncached run, dB")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(page, out)

"""A plot of quality against speed, with one curve for each policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fxcache.report.drawing import figure, save

COLORS = 10  # matplotlib repeats the colours of curves after this many
LINES = ("-", "--", ":")  # distinguish curves of the same colour


class Point(NamedTuple):
    """One trial: its speed-up, and its PSNR against the uncached run in dB."""

    speedup: float
    psnr_db: float


def draw_pareto(
    curves: Mapping[str, Sequence[Point]],
    out: Path,
    title: str,
    chosen: Point | None = None,
    speed: str = "speed-up, from FLOPs",
) -> None:
    """Plot the curves, and write the plot to a file.

    Args:
        curves: The points of each curve, by the name of the policy.
        out: The file. Its suffix selects the format: ``.png``, ``.svg`` or ``.pdf``.
        title: The title of the plot.
        chosen: A point to mark with a star.
        speed: The label of the axis for speed.

    Raises:
        ModelFileError: matplotlib is not installed, or the file cannot be written.
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

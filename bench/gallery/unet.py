"""Draws the cut of a U-Net: its layers as a U, and the place of the cached value."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from bench.gallery.cuts import CutModel, Part
from bench.gallery.drawing import CACHED, COMPUTED, INK, LEFT_OUT, legend

LEFT, RIGHT, WIDTH, HEIGHT = 0.0, 5.4, 3.8, 0.66
ARROW = {"arrowstyle": "-|>", "color": "#6B7680", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}


def draw_unet(model: CutModel) -> Figure:
    """Draw the layers of each skip connection in one row, the outermost on top."""
    down = [p for p in model.parts if p.name.startswith("down") or p.name == "conv_in"]
    up = [p for p in model.parts if p.name.startswith("up")][::-1]
    (middle,) = (p for p in model.parts if p.name == "middle")
    (head,) = (p for p in model.parts if p.name == "conv_out")
    rows = len(down)
    assert rows == len(up)
    page = Figure(figsize=(8.5, 8.6), layout="constrained")
    axes: Any = page.subplots()
    draw_side(axes, down, LEFT)
    draw_side(axes, up, RIGHT)
    draw_part(axes, head, RIGHT, -1)
    draw_part(axes, middle, (LEFT + RIGHT) / 2, rows)
    draw_arrows(axes, rows)
    axes.set_title(f"{model.name}: cut={model.cut.skip_index}\n{model.summary}", fontsize=11)
    axes.set_xlim(LEFT - 0.2, RIGHT + WIDTH + 0.2)
    axes.set_ylim(rows + 0.7, -1.7)
    axes.set_axis_off()
    texts = {COMPUTED: "both variants compute it", LEFT_OUT: "full alone computes it"}
    legend(page, {**texts, CACHED: "cached value"})
    return page


def draw_side(axes: Any, parts: Sequence[Part], x: float) -> None:
    for row, part in enumerate(parts):
        draw_part(axes, part, x, row)


def draw_part(axes: Any, part: Part, x: float, row: float) -> None:
    """Draw a box with the part's name and its share of the FLOPs."""
    computed = part.reused > 0
    color, ink = (COMPUTED, "white") if computed else (LEFT_OUT, INK)
    box = FancyBboxPatch((x, row - HEIGHT / 2), WIDTH, HEIGHT, "round,pad=0,rounding_size=0.08")
    box.set(facecolor=color, edgecolor="#8A949E")
    axes.add_patch(box)
    axes.text(x + 0.15, row, part.name, va="center", color=ink)
    share = f"{part.share:.1%}" if part.share >= 0.0005 else "< 0.1%"
    axes.text(x + WIDTH - 0.15, row, share, va="center", ha="right", color=ink)


def draw_arrows(axes: Any, rows: int) -> None:
    """Draw the skip connections, the way down and up, and the cached value."""
    middle = (LEFT + RIGHT + WIDTH) / 2
    left, right = LEFT + WIDTH / 2, RIGHT + WIDTH / 2
    for row in range(rows):
        axes.annotate("", (RIGHT, row), (LEFT + WIDTH, row), arrowprops=ARROW)
        axes.text(middle, row - 0.09, f"skip {row}", ha="center", va="bottom", fontsize=9)
    for row in range(rows - 1):
        axes.annotate("", (left, row + 1 - HEIGHT / 2), (left, row + HEIGHT / 2), arrowprops=ARROW)
    for row in range(1, rows):
        axes.annotate(
            "", (right, row - HEIGHT / 2 - 0.34), (right, row - HEIGHT / 2), arrowprops=ARROW
        )
    axes.annotate("", (right, -1 + HEIGHT / 2), (right, -HEIGHT / 2), arrowprops=ARROW)
    bottom = rows - 1 + HEIGHT / 2
    bend = {**ARROW, "connectionstyle": "angle,angleA=90,angleB=0"}
    axes.annotate("", ((LEFT + RIGHT) / 2, rows), (left, bottom), arrowprops=bend)
    bend = {**ARROW, "connectionstyle": "angle,angleA=0,angleB=90"}
    axes.annotate("", (right, bottom), ((LEFT + RIGHT) / 2 + WIDTH, rows), arrowprops=bend)
    cached = {**ARROW, "color": CACHED, "linewidth": 4, "mutation_scale": 20}
    axes.annotate("", (right, HEIGHT / 2 - 0.02), (right, 1 - HEIGHT / 2), arrowprops=cached)
    axes.text(right + 0.3, 0.5, "read from the cache", va="center", fontsize=9)

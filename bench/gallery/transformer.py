"""Draws the cut of a transformer: its blocks in a row, for each variant."""

from typing import Any

from matplotlib.figure import Figure

from bench.gallery.cuts import CutModel
from bench.gallery.drawing import CACHED, COMPUTED, LEFT_OUT, legend


def draw_transformer(model: CutModel) -> Figure:
    """Draw a bar for each block with its share of the FLOPs: full above, cached-skip below."""
    page = Figure(figsize=(9.5, 5.4), layout="constrained")
    both: Any = page.subplots(2, sharex=True, sharey=True)
    places = range(len(model.parts))
    for axes, variant in zip(both, ("full", "cached-skip"), strict=True):
        shares = [100 * (p.share if variant == "full" else p.reused) for p in model.parts]
        skipped = [100 * (p.share - p.reused) if variant != "full" else 0 for p in model.parts]
        axes.bar(places, shares, color=COMPUTED, width=0.8)
        axes.bar(places, skipped, color=LEFT_OUT, edgecolor="#8A949E", linewidth=0.5, width=0.8)
        axes.set_ylabel(f"{variant}\nshare of FLOPs, %")
        axes.spines[["top", "right"]].set_visible(False)
    mark_stacks(both[1], model)
    mark_cut(both[1], model)
    both[0].set_title(f"{model.name}: cut={model.cut.name!r}\n{model.summary}", fontsize=11)
    texts = {COMPUTED: "computed", LEFT_OUT: "left out"}
    legend(page, {**texts, CACHED: "cached: what these blocks add to the stream"})
    return page


def stacks(model: CutModel) -> dict[str, list[int]]:
    """Return the places of each stack's blocks, and of the parts before and after them."""
    found: dict[str, list[int]] = {}
    previous = ""
    for place, part in enumerate(model.parts):
        stack = part.name.rpartition(".")[0]
        if not stack:
            stack = "embed" if not previous else "head" if previous != "embed" else "embed"
        found.setdefault(stack, []).append(place)
        previous = stack
    return found


def mark_stacks(axes: Any, model: CutModel) -> None:
    """Name the stacks below the bars."""
    names = stacks(model)
    middles = [sum(places) / len(places) for places in names.values()]
    labels = [f"{n}\n0 … {len(p) - 1}" if "blocks" in n else n for n, p in names.items()]
    axes.set_xticks(middles, labels)
    axes.tick_params(axis="x", length=0)


def mark_cut(axes: Any, model: CutModel) -> None:
    """Draw an arrow over the skipped blocks."""
    skipped = [i for i, part in enumerate(model.parts) if "blocks" in part.name and not part.reused]
    highest = 100 * max(part.share for part in model.parts)
    start, end = skipped[0] - 0.5, skipped[-1] + 0.9
    arrow = {"arrowstyle": "-|>", "color": CACHED, "linewidth": 4, "mutation_scale": 22}
    axes.annotate("", (end, 0.5 * highest), (start, 0.5 * highest), arrowprops=arrow)
    style = {"facecolor": "white", "edgecolor": "none", "pad": 3}
    axes.text((start + end) / 2, 0.6 * highest, "added from the cache", ha="center", bbox=style)

"""Plots quality against speed for selected policies, from ``bench/results/quality.json``."""

from typing import Any, NamedTuple

from matplotlib.figure import Figure

from bench.figures import result
from bench.gallery.drawing import CACHED, COMPUTED, INK
from bench.quality.claims import DEFAULT, curves_of
from bench.quality.settings import FEWER, TUNED

MODELS = ("emoji-sd", "emoji-dit")


class Look(NamedTuple):
    """The style of a curve. Each curve has its own marker."""

    label: str
    color: str
    marker: str


LOOKS = {
    FEWER: Look("fewer steps, no caching", INK, "o"),
    DEFAULT: Look("ProtectedEnds", "#7F3C8D", "p"),
    "Uniform": Look("Uniform", COMPUTED, "s"),
    "Taylor, order 1": Look("TaylorSeer, order 1", "#D55E00", "^"),
    "TeaCache": Look("TeaCache", "#009E73", "D"),
    "FirstBlock": Look("FirstBlock", "#56B4E9", "v"),
    "MagCache": Look("MagCache", "#CC79A7", "P"),
    "BlockCaching": Look("BlockCaching", "#8C6D31", "X"),
    TUNED: Look("fxcache tune", CACHED, "*"),
}


def pareto() -> Figure:
    """Draw one panel for each bundled model."""
    page = Figure(figsize=(9.5, 5.6), layout="constrained")
    panels: Any = page.subplots(1, len(MODELS), sharex=True, sharey=True)
    for axes, model in zip(panels, MODELS, strict=True):
        curves = curves_of(result("quality")[model]["rows"])
        for name, look in LOOKS.items():
            axes.plot(
                [point.speedup for point in curves[name]],
                [point.psnr_db for point in curves[name]],
                color=look.color,
                marker=look.marker,
                markersize=10 if look.marker == "*" else 6,
                label=look.label,
            )
        axes.set_title(model)
        axes.set_xlabel("speed-up of the denoiser, from FLOPs")
        axes.set_xlim(left=1)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("PSNR against the uncached run, dB")
    page.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return page

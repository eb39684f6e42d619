"""The style of the gallery: colours, text, strips of steps, and files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

# Colours of Okabe and Ito, which colour-blind readers can distinguish, and a light grey.
COMPUTED, CACHED, LEFT_OUT, INK = "#0072B2", "#E69F00", "#E4E8EC", "#222222"
STYLE: Any = {
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 11,
    "svg.fonttype": "path",  # looks the same wherever it is shown
    "svg.hashsalt": "fxcache",  # makes the names of elements reproducible
    "text.color": INK,
}
MONOSPACE = "DejaVu Sans Mono"


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw in the gallery's style inside the block."""
    with matplotlib.rc_context(STYLE):
        yield


@dataclass(frozen=True)
class Strip:
    """A row of cells: the steps of a run at one cache point.

    Attributes:
        label: The policy, or the cache point.
        computed: For each step, whether it computes the value.
        extrapolated: Whether the other steps extrapolate the value.
        note: The text at the right end. By default the number of steps that compute.
    """

    label: str
    computed: Sequence[bool]
    extrapolated: bool = False
    note: str = ""

    @property
    def cells(self) -> list[int]:
        """The colour of each step, as an index."""
        return [0 if now else 1 + self.extrapolated for now in self.computed]


def draw_strips(axes: Any, strips: Sequence[Strip], monospace: bool = True) -> None:
    """Draw one row of cells for each strip."""
    steps = len(strips[0].computed)
    colors = ListedColormap([COMPUTED, LEFT_OUT, CACHED])
    cells = [strip.cells for strip in strips]
    height = len(strips)
    # One pixel for each cell, which keeps files small.
    picture = {"cmap": colors, "vmin": 0, "vmax": 2, "interpolation": "none", "aspect": "auto"}
    axes.imshow(cells, extent=(0, steps, height, 0), **picture)
    axes.vlines(range(1, steps), 0, height, color="white", linewidth=1.2)
    axes.hlines(range(1, height), 0, steps, color="white", linewidth=1.2)
    font = {"fontfamily": MONOSPACE, "fontsize": 10} if monospace else {}
    axes.set_yticks([i + 0.5 for i in range(len(strips))], [s.label for s in strips], **font)
    axes.set_xticks([s + 0.5 for s in range(0, steps, 5)], [str(s) for s in range(0, steps, 5)])
    for row, strip in enumerate(strips):
        note = strip.note or f"{sum(strip.computed)} of {steps}"
        axes.text(steps + 0.7, row + 0.5, note, va="center", fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def legend(page: Any, labels: Mapping[str, str]) -> None:
    """Draw the legend at the top. ``labels`` holds the texts by colour."""
    patches = [
        Patch(facecolor=color, edgecolor="#8A949E", linewidth=0.6, label=text)
        for color, text in labels.items()
    ]
    page.legend(handles=patches, loc="outside upper center", ncols=len(patches), frameon=False)


def save(page: Any, file: Path) -> None:
    """Write the figure without the date and the version of matplotlib."""
    metadata = {"Date": None, "Creator": None} if file.suffix == ".svg" else {"Software": None}
    page.savefig(file, dpi=100, metadata=metadata)

"""A plot of the schedule: the cache points that each step computes and reuses."""

import importlib
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from fxcache.errors import ConfigError
from fxcache.partition.request import AUTO, CutRequest
from fxcache.policies import Policy
from fxcache.report.drawing import figure, save
from fxcache.step import Step

Rows = Sequence[Set[str]]  # the cache points that each step computes
THE_CUT = "the cut"
COMPUTED, REUSED = "#0072B2", "#E4E8EC"  # distinguishable for colour-blind readers


def planned(policy: Policy, steps: int, cut: CutRequest = AUTO) -> tuple[Rows, Sequence[str]]:
    """Return the cache points that each step computes under a policy.

    Args:
        policy: The policy.
        steps: The number of steps.
        cut: The cut, whose name stands for the only cache point of most policies.

    Returns:
        The cache points for each step, and the names of all cache points.

    Raises:
        ConfigError: The policy observes a signal, so that its schedule depends on data.
    """
    if policy.observes is not None:
        raise ConfigError(
            f"{type(policy).__name__} observes a signal: its schedule is not known before the run",
            where="schedule strip",
            remedy="pass the report of a run instead: fxcache run --plan … --report FILE",
        )
    only = cut if isinstance(cut, str) and cut != AUTO else THE_CUT
    names = sorted(policy.points or {only})
    rows: list[Set[str]] = []
    last = 0
    for index in range(steps):
        decision = policy.decide(Step(index, steps, last))
        if decision.refresh:
            last = index
        rows.append(frozenset(names) if decision.refresh else decision.recompute)
    return rows, names


def draw_strip(rows: Rows, names: Sequence[str], out: Path, title: str) -> None:
    """Plot a strip of ``len(rows)`` × ``len(names)`` cells, with a legend of their colours.

    Args:
        rows: The cache points that each step computes.
        names: The names of all cache points.
        out: The file to write.
        title: The title of the plot.

    Raises:
        ModelFileError: matplotlib is not installed, or the file cannot be written.
    """
    page = figure(max(5, 2.5 + 0.16 * len(rows)), 1.5 + 0.22 * len(names))
    axes: Any = page.add_subplot()
    cells = [[name in row for row in rows] for name in names]
    colors = importlib.import_module("matplotlib.colors").ListedColormap([REUSED, COMPUTED])
    axes.imshow(cells, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="none")
    patch = importlib.import_module("matplotlib.patches").Patch
    meanings = {"computed": COMPUTED, "reused from the cache": REUSED}
    patches = [patch(color=color, label=label) for label, color in meanings.items()]
    page.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    axes.set_yticks(range(len(names)), labels=names, fontsize=7)
    axes.set_xlabel("step")
    axes.set_xticks(range(0, len(rows), max(1, len(rows) // 10)))
    axes.set_xticks([i - 0.5 for i in range(1, len(rows))], minor=True)
    axes.set_yticks([i - 0.5 for i in range(1, len(names))], minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    axes.set_title(title, fontsize=9)
    save(page, out)


def shown(schedule: Mapping[str, Sequence[int]], steps: int) -> tuple[Rows, Sequence[str]]:
    """Return the rows and names from ``RunReport.schedule``."""
    rows = [frozenset(name for name, at in schedule.items() if s in at) for s in range(steps)]
    return rows, list(schedule)

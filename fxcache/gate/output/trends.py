"""The history of expected values: what each update changed, and plots of the numbers."""

from collections.abc import Sequence
from typing import Any

from fxcache.gate.compare import is_number, shown
from fxcache.gate.expected import Update

LINES = 8  # changed values to list for an update
TOP, BOTTOM = 20, 58  # of a plot, in units of the picture
MAX_TRENDS = 12


def update_lines(update: Update) -> list[str]:
    """Return one line for each value that an update changed, up to a limit."""
    lines = [f"{entry}: {shown(b)} → {shown(n)}" for entry, (b, n) in update.changed.items()]
    left = len(lines) - LINES
    return lines[:LINES] + ([f"and {left} more"] if left > 0 else [])


def trends_of(updates: Sequence[Update], left: float, right: float) -> list[dict[str, str]]:
    """Return a line for each number that updates changed, the most often changed first.

    Args:
        updates: The updates, the oldest first.
        left: Where plots begin.
        right: Where plots end.
    """
    series: dict[str, list[float]] = {}
    for update in updates:
        for entry, (before, now) in update.changed.items():
            if is_number(before) and is_number(now):
                series.setdefault(entry, [before]).append(now)
    longest = sorted(series.items(), key=lambda item: -len(item[1]))[:MAX_TRENDS]
    return [
        {
            "name": entry,
            "text": " → ".join(shown(value) for value in values),
            "points": points(values, left, right),
        }
        for entry, values in longest
    ]


def points(values: Sequence[float], left: float, right: float) -> str:
    """Return the points of a line through ``values``, as SVG writes them."""
    low, high = min(values), max(values)
    across = (right - left) / max(1, len(values) - 1)

    def place(index: int, value: Any) -> str:
        share = (value - low) / (high - low) if high > low else 0.5
        return f"{left + index * across:.1f},{BOTTOM - share * (BOTTOM - TOP):.1f}"

    return " ".join(place(i, v) for i, v in enumerate(values))

"""The data that the policies in the gallery need.

``CHANGES`` is invented: no model was measured. The two plans were calibrated and trained on the
bundled models.
"""

import json
import math
from pathlib import Path

from fxcache.policies import Policy

STEPS = 50
PLANS = Path(__file__).parents[1] / "plans"

# The relative change of the signal at each step: large at the start, small in the middle.
CHANGES = tuple(
    0.02 + 0.13 * math.exp(-s / 6) + 0.05 * math.exp((s - 49) / 6) for s in range(STEPS)
)


def magnitude_ratios() -> tuple[float, ...]:
    """Return ratios for MagCache: the magnitude falls by a third of the change at each step."""
    return tuple(1 - change / 3 for change in CHANGES)


def layer_errors(scale: float) -> tuple[tuple[float, ...], ...]:
    """Return SmoothCache's errors of one kind of layer: sums of changes over 1 to 6 steps."""
    return tuple(
        tuple(scale * sum(CHANGES[s - gap + 1 : s + 1]) for gap in range(1, min(s, 6) + 1))
        for s in range(STEPS)
    )


def bundled(name: str) -> Policy:
    """Return the policy of a plan in ``bench/plans``."""
    return Policy.from_dict(json.loads((PLANS / f"{name}.json").read_text("utf-8"))["policy"])

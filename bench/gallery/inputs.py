"""What the drawn policies decide by, where they need data.

``CHANGES`` is made up: no model was measured. The two plans were calibrated and trained on the
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
    """MagCache's ratios: the magnitude falls by a third of the change at each step."""
    return tuple(1 - change / 3 for change in CHANGES)


def layer_errors(scale: float) -> tuple[tuple[float, ...], ...]:
    """SmoothCache's errors of one kind of layer: the changes over the last 1 to 6 steps, summed."""
    return tuple(
        tuple(scale * sum(CHANGES[s - gap + 1 : s + 1]) for gap in range(1, min(s, 6) + 1))
        for s in range(STEPS)
    )


def bundled(name: str) -> Policy:
    """The policy of a plan in ``bench/plans``."""
    return Policy.from_dict(json.loads((PLANS / f"{name}.json").read_text("utf-8"))["policy"])

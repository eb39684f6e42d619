"""Block Caching: a schedule for each attention block."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from fxcache.checks import require_calibrated, require_number
from fxcache.policies.policy import Caches
from fxcache.policies.table import Row, Table, require_series


@dataclass(frozen=True)
class BlockCaching(Table):
    """Refresh each attention block separately, when the sum of its calibrated changes is large.

    Block Caching (arXiv 2312.03209, equations 2 to 4). What a block computed at step a is reused at
    step s if

        Σ_{t=a+1…s} ‖C(x_t) − C(x_{t−1})‖₁ / ‖C(x_t)‖₁ ≤ threshold

    where C is the block's residual branch. The terms are averages over calibration runs without
    caching, so the schedule is known before the run.

    Args:
        threshold: The largest sum at which a block is reused, 0 or more.
        changes: For each block, by its module path, the term of each step. From
            ``fxcache.calibrate``. The policy serves runs of this length only.
        max_variants: The number of different sets of blocks that steps may reuse. Each set needs
            one graph. If the schedule has more sets, the most similar ones are merged.

    Raises:
        ConfigError: An option has a value that it cannot have, or blocks have unequal numbers of
            steps.
    """

    caches: ClassVar[Caches] = Caches.BLOCKS
    measured: ClassVar[str] = "changes"

    threshold: float = 0.5
    changes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self, "threshold", least=0)
        require_calibrated(self, "changes")
        require_series(self, "changes")

    @property
    def points(self) -> Row:
        """The module paths of the calibrated blocks."""
        return frozenset(self.changes)

    def computed(self) -> list[Row]:
        """Return the blocks that each step computes."""
        steps = {block: set(self.refreshes(series)) for block, series in self.changes.items()}
        length = len(next(iter(self.changes.values())))
        return [frozenset(b for b, at in steps.items() if s in at) for s in range(length)]

    def refreshes(self, changes: tuple[float, ...]) -> list[int]:
        """Find the steps that compute one block.

        Args:
            changes: The block's change at each step.

        Returns:
            The steps, from 0.
        """
        found, total = [0], 0.0
        for step, change in enumerate(changes[1:], start=1):
            total += change
            if total > self.threshold:
                found.append(step)
                total = 0.0
        return found

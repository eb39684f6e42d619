"""Block Caching: each attention block by its own schedule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from fxcache.checks import require_number
from fxcache.policies.policy import Caches
from fxcache.policies.table import Row, Table, require_series


@dataclass(frozen=True)
class BlockCaching(Table):
    """A block's residual branch is reused until its change would add up to more than ``threshold``.

    Block Caching (2312.03209, equations 2 to 4): ``changes[block][s]`` is
    ‖C(x_s) − C(x_{s−1})‖₁ / ‖C(x_s)‖₁, averaged over calibration runs without caching; what was
    computed at step a is reused at s as long as the sum over a+1 … s is at most ``threshold``.

    Raises ConfigError for a threshold that is no number from 0, or changes of unequal lengths.
    """

    caches: ClassVar[Caches] = Caches.BLOCKS

    threshold: float = 0.5
    changes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self, "threshold", least=0)
        require_series(self, "changes")

    @property
    def points(self) -> Row:
        return frozenset(self.changes)

    def computed(self) -> list[Row]:
        steps = {block: set(self.refreshes(series)) for block, series in self.changes.items()}
        length = len(next(iter(self.changes.values())))
        return [frozenset(b for b, at in steps.items() if s in at) for s in range(length)]

    def refreshes(self, changes: tuple[float, ...]) -> list[int]:
        """The steps that compute a block that changes so much from step to step."""
        found, total = [0], 0.0
        for step, change in enumerate(changes[1:], start=1):
            total += change
            if total > self.threshold:
                found.append(step)
                total = 0.0
        return found

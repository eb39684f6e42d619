"""Learning-to-Cache: which layers each step computes is learned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from fxcache.checks import require_number
from fxcache.errors import ConfigError
from fxcache.policies.policy import Caches
from fxcache.policies.table import Row, Table, require_series


@dataclass(frozen=True)
class LearnedRouter(Table):
    """A step computes the layers whose learned score exceeds ``threshold``, and reuses the rest.

    Learning-to-Cache (2406.01733, equations 4 and 5): ``scores[layer][s]``, β, from 0 (reuse) to 1
    (compute), is the router trained with everything else frozen; 1 at the steps that compute all.

    Raises ConfigError for a threshold that is not from 0 to below 1, or scores of unequal lengths.
    """

    caches: ClassVar[Caches] = Caches.LAYERS

    threshold: float = 0.1
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self, "threshold", least=0)
        if self.threshold >= 1:
            raise ConfigError(
                f"threshold={self.threshold!r} leaves no step that computes everything",
                where=type(self).__name__,
                remedy="pass threshold as a number below 1, the score of what is always computed",
            )
        require_series(self, "scores")

    @property
    def points(self) -> Row:
        return frozenset(self.scores)

    def computed(self) -> list[Row]:
        length = len(next(iter(self.scores.values())))
        return [
            frozenset(layer for layer, score in self.scores.items() if score[s] > self.threshold)
            for s in range(length)
        ]

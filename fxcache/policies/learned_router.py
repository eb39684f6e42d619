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
    """Compute the layers whose learned score is high, and reuse the others.

    Learning-to-Cache (arXiv 2406.01733, equations 4 and 5). Step s computes a layer if its score
    β_s exceeds the threshold. The scores are a router that was trained with the model frozen; see
    the guide, under Trained parts.

    Args:
        threshold: A layer is computed if its score exceeds this number, from 0 to below 1.
        scores: For each layer, by its module path, the score β of each step, from 0 (reuse) to 1
            (compute). It is 1 at the steps that compute everything. The policy serves runs of this
            length only.
        max_variants: The number of different sets of layers that steps may reuse. Each set needs
            one graph. If the schedule has more sets, the most similar ones are merged.

    Raises:
        ConfigError: An option has a value that it cannot have, or layers have unequal numbers of
            steps.
    """

    caches: ClassVar[Caches] = Caches.LAYERS
    measured: ClassVar[str] = "scores"

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
        """The module paths of the layers that have scores."""
        return frozenset(self.scores)

    def computed(self) -> list[Row]:
        """Return the layers that each step computes."""
        length = len(next(iter(self.scores.values())))
        return [
            frozenset(layer for layer, score in self.scores.items() if score[s] > self.threshold)
            for s in range(length)
        ]

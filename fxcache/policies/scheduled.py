"""A schedule found beforehand, step by step and cache point by cache point."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fxcache.errors import ConfigError
from fxcache.policies.table import Row, Table


@dataclass(frozen=True)
class Scheduled(Table):
    """Reuse, at each step, the cache points that a table lists for it.

    ``fxcache tune`` writes such policies. The policy serves runs of the table's length only.

    Args:
        names: The names of all cache points.
        reused: For each step, the cache points that it reuses. A step with an empty list refreshes.
        max_variants: The number of different sets of cache points that steps may reuse. Each set
            needs one graph. If the table has more sets, the most similar ones are merged.

    Raises:
        ConfigError: The table is empty, or a step reuses a cache point that is not in the names.
    """

    measured: ClassVar[str] = "reused"

    names: tuple[str, ...] = ()
    reused: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "names", strings(self.names))
        object.__setattr__(self, "reused", tuple(strings(step) for step in self.reused))
        if not self.reused or not all(set(step) <= set(self.names) for step in self.reused):
            raise ConfigError(
                "reused must list, for each step, cache points that are in names",
                where="Scheduled",
                remedy="take it from `fxcache tune`",
            )

    @property
    def points(self) -> Row:
        """The names of all cache points."""
        return frozenset(self.names)

    def computed(self) -> list[Row]:
        """Return the cache points that each step computes: those that it does not reuse."""
        return [self.points - frozenset(step) for step in self.reused]


def strings(value: object) -> tuple[str, ...]:
    """``value`` as a tuple of strings; ConfigError where it is no list of them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        found = tuple(value)
        if all(isinstance(item, str) for item in found):
            return found
    raise ConfigError(
        f"{value!r} is not a list of cache points", where="Scheduled", remedy="pass their names"
    )

"""A schedule found beforehand, step by step and cache point by cache point."""

from collections.abc import Sequence
from dataclasses import dataclass

from fxcache.errors import ConfigError
from fxcache.policies.table import Row, Table


@dataclass(frozen=True)
class Scheduled(Table):
    """Each step reuses the cache points that ``reused`` lists for it, and computes the others.

    ``names``: all cache points. An empty list refreshes. What ``fxcache tune`` writes.

    Raises ConfigError where a step reuses what is not among the names.
    """

    names: tuple[str, ...] = ()
    reused: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "names", strings(self.names))
        object.__setattr__(self, "reused", tuple(strings(step) for step in self.reused))
        if not self.reused or not all(set(step) <= set(self.names) for step in self.reused):
            raise ConfigError(
                "reused does not list, for each step, cache points that names has",
                where="Scheduled",
                remedy="take it from `fxcache tune`",
            )

    @property
    def points(self) -> Row:
        return frozenset(self.names)

    def computed(self) -> list[Row]:
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

"""What calibrated policies share: a table of which cache points each step computes."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fxcache.checks import is_number, require_integer
from fxcache.errors import ConfigError
from fxcache.policies.policy import Policy
from fxcache.step import Decision, Step, require_length

Row = frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Table(Policy, abstract=True):
    """A schedule for each cache point, known before the run from a calibration of its length.

    ``max_variants``: how many different sets of points the steps may reuse, each of which is a
    graph of its own; where the schedule has more, the most alike are merged, towards refreshing.
    """

    max_variants: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self, "max_variants", 1)

    @property
    @abstractmethod
    def points(self) -> Row:
        """The cache points that were calibrated."""

    @abstractmethod
    def computed(self) -> list[Row]:
        """By the policy's own rule, the points that each step computes."""

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """For each step, the points that it computes."""
        return tuple(merged(self.computed(), self.max_variants))

    def scheduled(self, step: Step) -> Decision:
        require_length(type(self).__name__, len(self.rows), step)
        row = self.rows[step.index]
        return Decision(row >= self.points, "calibrated schedule", row)


def merged(rows: list[Row], limit: int) -> list[Row]:
    """``rows`` with at most ``limit`` different ones, each a superset of the original.

    Greedy: the two whose union adds the fewest computed points, counted over all steps.
    """
    counts = {row: rows.count(row) for row in dict.fromkeys(rows)}
    into = {row: row for row in counts}
    while len(counts) > limit:
        kept = list(counts)
        pairs = ((a, b) for i, a in enumerate(kept) for b in kept[i + 1 :])
        first, second = min(pairs, key=lambda pair: added(pair, counts))
        union = first | second
        total = counts.pop(first) + counts.pop(second)
        counts[union] = counts.get(union, 0) + total
        into = {row: union if to in (first, second) else to for row, to in into.items()}
    return [into[row] for row in rows]


def added(pair: tuple[Row, Row], counts: Mapping[Row, int]) -> int:
    """How many points more are computed when both of ``pair`` compute all of either."""
    first, second = pair
    return counts[first] * len(second - first) + counts[second] * len(first - second)


def require_series(policy: Policy, name: str) -> None:
    """Make the option ``name`` a dict of equally long tuples of floats, or raise ConfigError."""
    value = getattr(policy, name)
    valid = isinstance(value, Mapping) and all(
        isinstance(point, str) and isinstance(series, list | tuple) and all(map(is_number, series))
        for point, series in value.items()
    )
    if not valid or not value or len({len(series) for series in value.values()}) != 1:
        raise ConfigError(
            f"{name} does not hold one list of numbers, as long as the run, for each cache point",
            where=type(policy).__name__,
            remedy="take it from what calibrates or trains the policy: see the guide, under Plans",
        )
    series = {point: tuple(map(float, numbers)) for point, numbers in value.items()}
    object.__setattr__(policy, name, series)

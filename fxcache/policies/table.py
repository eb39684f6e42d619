"""The base class of calibrated policies: a table of the cache points that each step computes."""

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
    """Base of policies that know before the run which cache points each step computes.

    Args:
        max_variants: The number of different sets of cache points that steps may reuse. Each set
            needs one graph. If the schedule has more sets, the most similar ones are merged. Merged
            steps compute all cache points that one of them computed.

    Raises:
        ConfigError: ``max_variants`` is not a whole number of at least 1.
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
        """Return the cache points that each step computes, by the policy's own rule."""

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The cache points that each step computes, after merging."""
        return tuple(merged(self.computed(), self.max_variants))

    def scheduled(self, step: Step) -> Decision:
        """Refresh at steps that compute all cache points; else compute those of the table.

        Raises:
            UnknownLengthError: The run's length is unknown.
            ScheduleError: The run has another length than the table.
        """
        require_length(type(self).__name__, len(self.rows), step)
        row = self.rows[step.index]
        return Decision(row >= self.points, "calibrated schedule", row)


def merged(rows: list[Row], limit: int) -> list[Row]:
    """Merge rows until at most ``limit`` different ones are left.

    Each step replaces two different rows by their union. It takes those two whose union adds the
    fewest computed points, counted over all steps.

    Args:
        rows: For each step, the points that it computes.
        limit: How many different rows are allowed, 1 or more.

    Returns:
        The merged rows, each a superset of the original.
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
    """Count the points that are computed besides if both rows of ``pair`` become their union."""
    first, second = pair
    return counts[first] * len(second - first) + counts[second] * len(first - second)


def require_series(policy: Policy, name: str) -> None:
    """Make the option ``name`` a dict of equally long tuples of floats.

    Raises:
        ConfigError: It is something else, or empty.
    """
    value = getattr(policy, name)
    valid = isinstance(value, Mapping) and all(
        isinstance(point, str) and isinstance(series, list | tuple) and all(map(is_number, series))
        for point, series in value.items()
    )
    if not valid or not value or len({len(series) for series in value.values()}) != 1:
        raise ConfigError(
            f"{name} does not hold one list of numbers, as long as the run, for each cache point",
            where=type(policy).__name__,
            remedy="calibrate or train the policy: see the guide, under Plans",
        )
    series = {point: tuple(map(float, numbers)) for point, numbers in value.items()}
    object.__setattr__(policy, name, series)

"""The options of a gate."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from fxcache.checks import place, require_integer, require_number
from fxcache.errors import ConfigError

Tier = Literal["exact", "ratios", "advisory"]
TIERS: tuple[Tier, ...] = get_args(Tier)


@dataclass(frozen=True)
class GateConfig:
    """The options of a gate.

    Args:
        tiers: What to measure: ``"exact"`` counts, ``"ratios"`` of times, ``"advisory"`` times.
        rounds: How many pairs of runs the ratios and times come from. A retry makes twice as many.
        margin: By which share a ratio of times may be above its expected value, such as 0.1.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    tiers: tuple[Tier, ...] = TIERS
    rounds: int = 7
    margin: float = 0.1

    def __post_init__(self) -> None:
        require_integer(self, "rounds", 6)
        require_number(self, "margin", 0)
        unknown = [tier for tier in self.tiers if tier not in TIERS]
        if unknown or not self.tiers:
            raise ConfigError(
                f"tiers={self.tiers!r} are not some of {TIERS}",
                where=place(self, "tiers"),
                remedy=f"pass one or more of: {', '.join(TIERS)}",
            )

    def for_retry(self) -> "GateConfig":
        """Return the options of a second measurement of times, with twice as many rounds."""
        tiers = tuple(tier for tier in self.tiers if tier != "exact")
        return replace(self, tiers=tiers, rounds=2 * self.rounds)

"""Options of the tuner: how thoroughly it searches."""

from dataclasses import dataclass

from fxcache.checks import require_integer
from fxcache.forecasts.forecast import MAX_ORDER


@dataclass(frozen=True)
class Options:
    """Options of the search.

    Args:
        cuts: The number of cuts to try.
        mixed: The number of cuts that one plan may combine.
        gaps: The number of steps over which a value may be reused.
        order: The highest order of forecasts, at most 4; 0 for no forecasts.
        probes: The number of steps at which to measure how much an error in the prediction changes
            the sampled result.
        verified: The number of plans to verify by real runs.

    Raises:
        ConfigError: An option is not an integer, or it is too small or too large.
    """

    cuts: int = 4
    mixed: int = 2
    gaps: int = 8
    order: int = 2
    probes: int = 10
    verified: int = 3

    def __post_init__(self) -> None:
        for name in ("cuts", "mixed", "gaps", "probes", "verified"):
            require_integer(self, name, 1)
        require_integer(self, "order", 0, MAX_ORDER)

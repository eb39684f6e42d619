"""How thoroughly the tuner searches."""

from dataclasses import dataclass, fields

from fxcache.checks import require_integer


@dataclass(frozen=True)
class Options:
    """How thoroughly to search.

    Args:
        cuts: How many cuts to try.
        mixed: How many of them one plan may use.
        gaps: Steps over which a value may be reused.
        order: The highest order of forecasts, 0 for none.
        probes: Steps at which it is measured how an error in a prediction shows in the end.
        verified: Plans that are tried by real runs.

    Raises:
        ConfigError: An option is no whole number that is large enough.
    """

    cuts: int = 4
    mixed: int = 2
    gaps: int = 8
    order: int = 2
    probes: int = 10
    verified: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            require_integer(self, field.name, 0 if field.name == "order" else 1)

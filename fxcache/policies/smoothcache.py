"""SmoothCache: attentions and MLPs, by kind, as long as the calibrated error stays small."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from fxcache.checks import is_number, require_number
from fxcache.errors import ConfigError
from fxcache.policies.policy import Caches
from fxcache.policies.table import Row, Table


@dataclass(frozen=True)
class SmoothCache(Table):
    """What a kind of layer adds is reused while its calibrated error is below ``alpha``.

    SmoothCache (2411.10510, equation 4): ``errors[kind][s][g − 1]`` is
    ‖L(x_s) − L(x_{s−g})‖₁ / ‖L(x_s)‖₁, averaged over the layers of that kind and over calibration
    runs without caching. At step s, what was computed g steps before is reused if that is below
    ``alpha``; gaps that were not calibrated are not reused.

    Raises ConfigError for an ``alpha`` that is no number from 0, or errors of unequal lengths.
    """

    caches: ClassVar[Caches] = Caches.COMPONENTS

    alpha: float = 0.1
    errors: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self, "alpha", least=0)
        if not valid(self.errors):
            raise ConfigError(
                "errors do not hold, for each kind of layer, one list of numbers for each step",
                where="SmoothCache",
                remedy="take them from `fxcache calibrate`",
            )
        errors = {kind: tuple(tuple(map(float, r)) for r in v) for kind, v in self.errors.items()}
        object.__setattr__(self, "errors", errors)

    @property
    def points(self) -> Row:
        return frozenset(self.errors)

    def computed(self) -> list[Row]:
        steps = {kind: set(self.refreshes(rows)) for kind, rows in self.errors.items()}
        length = len(next(iter(self.errors.values())))
        return [frozenset(k for k, at in steps.items() if s in at) for s in range(length)]

    def refreshes(self, errors: tuple[tuple[float, ...], ...]) -> list[int]:
        """The steps that compute a kind of layer with such errors."""
        found = [0]
        for step, by_gap in enumerate(errors[1:], start=1):
            gap = step - found[-1]
            if gap > len(by_gap) or not by_gap[gap - 1] < self.alpha:
                found.append(step)
        return found


def valid(errors: object) -> bool:
    """Whether each kind of layer has one list of numbers for each step."""
    if not isinstance(errors, Mapping) or not errors:
        return False
    tables = list(errors.values())
    listed = all(isinstance(rows, list | tuple) and rows for rows in tables)
    return (
        listed
        and len({len(rows) for rows in tables}) == 1
        and all(isinstance(row, list | tuple) for rows in tables for row in rows)
        and all(is_number(error) for rows in tables for row in rows for error in row)
    )

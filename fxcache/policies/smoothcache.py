"""SmoothCache: attentions and MLPs, by kind, as long as the calibrated error stays small."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from fxcache.checks import is_number, require_calibrated, require_number
from fxcache.errors import ConfigError
from fxcache.policies.policy import Caches
from fxcache.policies.table import Row, Table


@dataclass(frozen=True)
class SmoothCache(Table):
    """Reuse all layers of one kind together, while their calibrated error is small.

    SmoothCache (arXiv 2411.10510, equation 4). At step s a kind of layer, such as all attentions,
    reuses what it computed g steps before if

        ‖L(x_s) − L(x_{s−g})‖₁ / ‖L(x_s)‖₁ < alpha

    where L is what a layer adds. The left side is an average over the layers of that kind and over
    calibration runs without caching, so the schedule is known before the run.

    Args:
        alpha: The bound on the error, 0 or more.
        errors: For each kind of layer and each step, the left side for g = 1, 2 and so on. From
            ``fxcache.calibrate``. The policy serves runs of this length only, and reuses nothing
            for longer than was calibrated.
        max_variants: The number of different sets of kinds that steps may reuse. Each set needs one
            graph. If the schedule has more sets, the most similar ones are merged.

    Raises:
        ConfigError: An option has a value that it cannot have, or kinds have unequal numbers of
            steps.
    """

    caches: ClassVar[Caches] = Caches.COMPONENTS
    measured: ClassVar[str] = "errors"

    alpha: float = 0.1
    errors: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self, "alpha", least=0)
        require_calibrated(self, "errors")
        if not valid(self.errors):
            raise ConfigError(
                "errors must hold, for each kind of layer, one list of numbers for each step",
                where="SmoothCache",
                remedy="take them from `fxcache calibrate`",
            )
        errors = {kind: tuple(tuple(map(float, r)) for r in v) for kind, v in self.errors.items()}
        object.__setattr__(self, "errors", errors)

    @property
    def points(self) -> Row:
        """The calibrated kinds of layers."""
        return frozenset(self.errors)

    def computed(self) -> list[Row]:
        """Return the kinds of layers that each step computes."""
        steps = {kind: set(self.refreshes(rows)) for kind, rows in self.errors.items()}
        length = len(next(iter(self.errors.values())))
        return [frozenset(k for k, at in steps.items() if s in at) for s in range(length)]

    def refreshes(self, errors: tuple[tuple[float, ...], ...]) -> list[int]:
        """Find the steps that compute one kind of layer.

        Args:
            errors: The errors of this kind, for each step by gap.

        Returns:
            The steps, from 0.
        """
        found = [0]
        for step, by_gap in enumerate(errors[1:], start=1):
            gap = step - found[-1]
            if gap > len(by_gap) or not by_gap[gap - 1] < self.alpha:
                found.append(step)
        return found


def valid(errors: object) -> bool:
    """Return whether each kind of layer has one list of numbers for each step."""
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

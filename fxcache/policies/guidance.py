"""Which steps compute both halves of classifier-free guidance."""

import math
from dataclasses import dataclass

from fxcache.checks import require_integer, require_number
from fxcache.errors import ConfigError
from fxcache.step import Step, known_length

HALVES = ("first", "second")
WATCHED = 2  # steps at the start whose halves must be seen to have equal latents


@dataclass(frozen=True, kw_only=True)
class GuidanceCache:
    """The unconditional half is rebuilt from the conditional one, between steps that compute both.

    FasterCache's CFG-Cache (2410.19355, equations 9 to 11). Every ``interval`` steps, from
    ``start`` of the run on, both halves are computed, and their difference is kept, parted into
    low and high frequencies; in between the batch is halved, and u ≈ c + w₁ Δ_low + w₂ Δ_high,
    with w₁ = 1 + ``low`` before ``turn`` of the run and 1 after it, w₂ = 1 before it and
    1 + ``high`` after it. With both at 0 the difference is added as it is. ``conditional``: the
    half of the batch that is, "first" (DiTPipeline) or "second" (most other pipelines).

    For calls whose batch holds the same latents twice; combines with every policy. Needs the run's
    length. Raises ConfigError for an interval below 1, weights below 0, parts that are not from 0
    to 1, or another half.
    """

    interval: int = 5
    start: float = 0.36
    low: float = 0.2
    high: float = 0.2
    turn: float = 0.5
    conditional: str = "second"

    def __post_init__(self) -> None:
        require_integer(self, "interval", 1)
        for name in ("low", "high", "start", "turn"):
            require_number(self, name, least=0)
        for name in ("start", "turn"):
            if getattr(self, name) > 1:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is more than the whole run",
                    where=type(self).__name__,
                    remedy=f"pass {name} as a part of the run, from 0 to 1",
                )
        if self.conditional not in HALVES:
            raise ConfigError(
                f"conditional={self.conditional!r} is no half of a batch",
                where=type(self).__name__,
                remedy=f"pass one of: {', '.join(HALVES)}",
            )

    def begins(self, step: Step) -> int:
        """The first step whose difference is kept."""
        return max(WATCHED, math.ceil(self.start * known_length(type(self).__name__, step)))

    def computes_both(self, step: Step) -> bool:
        after = step.index - self.begins(step)
        return after < 0 or after % self.interval == 0

    def keeps(self, step: Step) -> bool:
        """Whether the step computes both halves for those after it."""
        return step.index >= self.begins(step) and self.computes_both(step)

    def weights(self, step: Step) -> tuple[float, float]:
        """Of the difference's low and high frequencies."""
        early = step.index < self.turn * known_length(type(self).__name__, step)
        return (1 + self.low, 1.0) if early else (1.0, 1 + self.high)

    @property
    def parts_frequencies(self) -> bool:
        return self.low > 0 or self.high > 0

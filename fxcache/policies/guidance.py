"""Decides which steps compute both halves of classifier-free guidance."""

import math
from dataclasses import dataclass

from fxcache.checks import require_integer, require_number
from fxcache.errors import ConfigError
from fxcache.step import Step, known_length

HALVES = ("first", "second")
WATCHED = 2  # steps at the start at which the latents of both halves are compared


@dataclass(frozen=True, kw_only=True)
class GuidanceCache:
    """Compute the unconditional half of classifier-free guidance at some steps only.

    FasterCache's CFG-Cache (arXiv 2410.19355, equations 9 to 11). Steps that compute both halves
    keep their difference Δ = u − c, split into low and high frequencies. Other steps compute half
    the batch, and rebuild the unconditional prediction u from the conditional one c by

        u ≈ c + w₁ Δ_low + w₂ Δ_high

    with w₁ = 1 + low and w₂ = 1 early in the run, and w₁ = 1 and w₂ = 1 + high late in it. This
    works for calls whose batch holds the same latents twice, with every policy. The number of steps
    of the run must be known.

    Args:
        interval: The number of steps from one that computes both halves to the next, 1 or more.
        start: The share of the run before which every step computes both halves, 0 to 1.
        low: The additional weight of low frequencies early in the run, 0 or more. If ``low`` and
            ``high`` are 0, the difference is added without splitting it.
        high: The additional weight of high frequencies late in the run, 0 or more.
        turn: The share of the run at which the late part begins, 0 to 1.
        conditional: The conditional half of the batch: ``"second"`` in most pipelines, ``"first"``
            in diffusers' ``DiTPipeline``.

    Raises:
        ConfigError: An option has a value that it cannot have.
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
                    f"{name}={getattr(self, name)} is more than 1, the whole run",
                    where=type(self).__name__,
                    remedy=f"pass {name} as a part of the run, from 0 to 1",
                )
        if self.conditional not in HALVES:
            raise ConfigError(
                f"conditional={self.conditional!r} does not name a half of a batch",
                where=type(self).__name__,
                remedy=f"pass one of: {', '.join(HALVES)}",
            )

    def begins(self, step: Step) -> int:
        """Find the first step whose difference is kept.

        Raises:
            UnknownLengthError: The run's length is unknown.
        """
        return max(WATCHED, math.ceil(self.start * known_length(type(self).__name__, step)))

    def computes_both(self, step: Step) -> bool:
        """Return whether the step computes both halves.

        Raises:
            UnknownLengthError: The run's length is unknown.
        """
        after = step.index - self.begins(step)
        return after < 0 or after % self.interval == 0

    def keeps(self, step: Step) -> bool:
        """Return whether the step keeps the difference of both halves for later steps."""
        return step.index >= self.begins(step) and self.computes_both(step)

    def weights(self, step: Step) -> tuple[float, float]:
        """Return the weights w₁ and w₂ of the low and the high frequencies at a step."""
        early = step.index < self.turn * known_length(type(self).__name__, step)
        return (1 + self.low, 1.0) if early else (1.0, 1 + self.high)

    @property
    def parts_frequencies(self) -> bool:
        """Whether the difference is split into low and high frequencies."""
        return self.low > 0 or self.high > 0

"""MagCache: refresh once the residual's calibrated magnitude has drifted."""

from dataclasses import dataclass
from typing import ClassVar

from fxcache.checks import require_calibrated, require_integer, require_number, require_numbers
from fxcache.policies.policy import FIRST_STEPS, Policy
from fxcache.step import Decision, Step, known_length


@dataclass(frozen=True)
class MagCache(Policy):
    """Reuse while the calibrated magnitude of the blocks' residual has drifted little.

    MagCache (arXiv 2506.09045, equations 4 to 6). With a the last step that refreshed, step s
    reuses if

        Σ_{t=a+1…s} |1 − Π_{u=a+1…t} γ_u| ≤ threshold

    where γ_u is the calibrated ratio ‖r_u‖ / ‖r_{u−1}‖, and r_u is the sum that all blocks add at
    step u. The policy needs the number of steps of the run.

    Args:
        ratios: γ of each step, from ``fxcache.calibrate``. In a run of another length each step
            uses the nearest ratio.
        threshold: The largest drift at which a step reuses, 0 or more.
        max_reuses: The number of consecutive steps that may reuse, 0 or more.
        retention: The share of the run at its start that always refreshes, 0 to 1.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    measured: ClassVar[str] = "ratios"

    ratios: tuple[float, ...] = ()
    threshold: float = 0.06
    max_reuses: int = 3
    retention: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_calibrated(self, "ratios")
        require_numbers(self, "ratios", least=1)
        require_number(self, "threshold", least=0)
        require_integer(self, "max_reuses", 0)
        require_number(self, "retention", least=0, most=1)

    def scheduled(self, step: Step) -> Decision:
        """Refresh if the drift exceeds the threshold, early, or after enough reuses in a row."""
        length = known_length(type(self).__name__, step)
        if step.index < int(self.retention * length + 0.5):
            return Decision(True, FIRST_STEPS)
        if step.index - step.last_refresh > self.max_reuses:
            return Decision(True, "reused often enough")
        product, drift = 1.0, 0.0
        for index in range(step.last_refresh + 1, step.index + 1):
            product *= self.ratio(index, length)
            drift += abs(1 - product)
        return Decision(not drift <= self.threshold, "magnitude's drift")

    def ratio(self, index: int, length: int) -> float:
        """Look up the ratio γ of one step.

        Args:
            index: The step, from 0.
            length: How many steps the run has.

        Returns:
            The nearest calibrated ratio; 1 past the end of the run.
        """
        if index >= length:
            return 1.0
        scale = (len(self.ratios) - 1) / (length - 1) if length > 1 else 0
        return self.ratios[round(index * scale)]

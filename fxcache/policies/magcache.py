"""MagCache: refresh once the residual's calibrated magnitude has drifted."""

from dataclasses import dataclass

from fxcache.checks import require_integer, require_number, require_numbers
from fxcache.policies.policy import Policy
from fxcache.step import Decision, Step, known_length


@dataclass(frozen=True)
class MagCache(Policy):
    """Reuse while Σ |1 − Π γ| since the last refresh ≤ ``threshold``.

    MagCache (2506.09045, equations 4 to 6): γ_s, ``ratios[s]``, is the mean of ‖r_s‖ / ‖r_{s−1}‖
    over the tokens of what all blocks add, from a calibration run; the product runs over the steps
    since the last refresh, the sum over its values at each of them. At most ``max_reuses`` times in
    a row, and not in the first share ``retention`` of the run. For a run of another length, each
    step takes the nearest ratio.

    Raises ConfigError for ratios that are no list of numbers, a threshold or share below 0.
    """

    ratios: tuple[float, ...] = ()
    threshold: float = 0.06
    max_reuses: int = 3
    retention: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, "ratios", least=1)
        require_number(self, "threshold", least=0)
        require_integer(self, "max_reuses", 0)
        require_number(self, "retention", least=0)

    def scheduled(self, step: Step) -> Decision:
        length = known_length(type(self).__name__, step)
        if step.index < int(self.retention * length + 0.5):
            return Decision(True, "first steps")
        if step.index - step.last_refresh > self.max_reuses:
            return Decision(True, "reused often enough")
        product, drift = 1.0, 0.0
        for index in range(step.last_refresh + 1, step.index + 1):
            product *= self.ratio(index, length)
            drift += abs(1 - product)
        return Decision(not drift <= self.threshold, "magnitude's drift")

    def ratio(self, index: int, length: int) -> float:
        """γ at step ``index`` of a run of ``length`` steps; 1 past its end."""
        if index >= length:
            return 1.0
        scale = (len(self.ratios) - 1) / (length - 1) if length > 1 else 0
        return self.ratios[round(index * scale)]

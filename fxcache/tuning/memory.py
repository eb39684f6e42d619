"""What a tuner has measured, so that a later one with the same settings need not measure it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fxcache.calibration.plan_parts import cut_to_json
from fxcache.forecasts import Forecast
from fxcache.partition.request import CutRequest
from fxcache.policies import Policy


@dataclass
class Memory:
    """The measurements of a tuner.

    Attributes:
        profile: The state of the error profile; None before it was measured.
        run_lengths: The lengths of the runs, as a plan has them.
        trials: The speed-up and the PSNR of each run under a schedule, by the key of its settings.
        save: Called after each measurement.
    """

    profile: dict[str, Any] | None = None
    run_lengths: tuple[tuple[int, int, int], ...] = ()
    trials: dict[str, tuple[float, float]] = field(default_factory=dict)
    save: Callable[[dict[str, Any]], None] = lambda _: None

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what ``to_dict`` described."""
        self.profile = state["profile"]
        lengths = ((int(a), int(b), int(c)) for a, b, c in state["run_lengths"])
        self.run_lengths = tuple(lengths)
        self.trials = {key: (speedup, psnr) for key, (speedup, psnr) in state["trials"].items()}

    def to_dict(self) -> dict[str, Any]:
        """Describe the measurements as JSON can hold them."""
        lengths = [list(length) for length in self.run_lengths]
        return {"profile": self.profile, "run_lengths": lengths, "trials": self.trials}

    def keep_profile(self, profile: dict[str, Any], lengths: tuple[Any, ...]) -> None:
        """Keep the error profile."""
        self.profile, self.run_lengths = profile, lengths
        self.save(self.to_dict())

    def keep_trial(self, key: str, speedup: float, psnr_db: float) -> None:
        """Keep the result of a run."""
        self.trials[key] = (speedup, psnr_db)
        self.save(self.to_dict())


def trial_key(policy: Policy, cut: CutRequest, forecast: Forecast | None) -> str:
    """Return the key of a run under these settings."""
    data = [policy.to_dict(), cut_to_json(cut), forecast.to_dict() if forecast else None]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:24]

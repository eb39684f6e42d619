"""The interface of calibrations: a measurement observes runs without caching."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fxcache.policies import Caches, Observation, Policy
from fxcache.runtime.features.recording import RecordedStep
from fxcache.step import Decision, Step


class Measurement(ABC):
    """Measures the options of one kind of policy, from runs without caching.

    A policy that needs a calibration has one subclass, in its own file.

    Attributes:
        policy: The kind of policy.
        observes: The signal to observe; None for none.
    """

    policy: ClassVar[type[Policy]]
    observes: ClassVar[Observation | None] = None

    @abstractmethod
    def observe(self, record: RecordedStep) -> None:
        """Observe one step. The steps of each run come in order."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return the measured options of the policy."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The state of the measurement between two runs, as a dict that can be written as JSON."""

    @abstractmethod
    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from the result of ``to_dict``."""


@dataclass(frozen=True, kw_only=True)
class Recording(Policy, abstract=True):
    """Refreshes at every step, but has the cache points of another policy.

    Args:
        like: The kind of policy whose cache points to use.
        observation: The signal to observe; None for none.
    """

    like: type[Policy]
    observation: Observation | None = None

    @property
    def caches(self) -> Caches:  # type: ignore[override]
        return self.like.caches

    @property
    def observes(self) -> Observation | None:
        return self.observation

    def scheduled(self, step: Step) -> Decision:
        del step
        return Decision(True, "calibration")


class Means:
    """Running means of numbers, by key and step."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[int, tuple[float, int]]] = {}

    def add(self, key: str, step: int, number: float) -> None:
        by_step = self._sums.setdefault(key, {})
        total, count = by_step.get(step, (0.0, 0))
        by_step[step] = (total + number, count + 1)

    def series(self, key: str, length: int) -> tuple[float, ...]:
        """The means under ``key`` at steps 0 … ``length`` − 1; 0 for a step without numbers."""
        by_step = self._sums.get(key, {})
        pairs = (by_step.get(step, (0.0, 1)) for step in range(length))
        return tuple(total / count for total, count in pairs)

    @property
    def keys(self) -> list[str]:
        return list(self._sums)

    @property
    def length(self) -> int:
        """The number of steps of the longest run."""
        return 1 + max((max(steps) for steps in self._sums.values()), default=-1)

    def to_dict(self) -> dict[str, Any]:
        return {
            key: [[step, *sums] for step, sums in by_step.items()]
            for key, by_step in self._sums.items()
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self._sums = {
            key: {step: (total, count) for step, total, count in rows}
            for key, rows in state.items()
        }


def relative_l1(now: tuple[Tensor, ...], then: tuple[Tensor, ...]) -> float:
    """‖now − then‖₁ / ‖now‖₁ over all tensors together, in double precision; 0 for 0 / 0."""
    pairs = [(a.double(), b.double()) for a, b in zip(now, then, strict=True)]
    change = sum(float((a - b).abs().sum()) for a, b in pairs)
    size = sum(float(a.abs().sum()) for a, _ in pairs)
    return change / size if change else 0.0

"""What a step policy is: a pure function of the step, told what to do and why."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple

from fxcache.errors import ConfigError, ScheduleError


class Decision(NamedTuple):
    """Refresh (run ``full`` and store) or reuse (run ``cached_skip``), and the reason."""

    refresh: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the denoiser within a run.

    ``index`` counts the calls from 0, duplicated timesteps included; ``num_steps`` is how many
    calls the run will make, or None where nobody said.
    """

    index: int
    num_steps: int | None


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """Base of all policies: frozen, validated when made, free of state.

    ``first`` and ``last`` steps of a run are refreshed whatever the schedule says. The first call
    of a run always is. ``last`` needs the run's length, from the noise scheduler's timesteps or
    from ``fxcache.session(num_steps=...)``.
    """

    first: int = 1
    last: int = 0

    kinds: ClassVar[dict[str, type["Policy"]]] = {}

    def __init_subclass__(cls) -> None:
        Policy.kinds[cls.__name__] = cls

    def __post_init__(self) -> None:
        require_integer(self, "first", 0)
        require_integer(self, "last", 0)

    def decide(self, step: Step) -> Decision:
        """Refresh or reuse at ``step``; raises ScheduleError where the run's length is missing."""
        if step.index < max(self.first, 1):
            return Decision(True, "first steps")
        if self.last and step.index >= known_length(self, step) - self.last:
            return Decision(True, "last steps")
        return self.scheduled(step)

    @abstractmethod
    def scheduled(self, step: Step) -> Decision:
        """The policy's own rule, for the steps between ``first`` and ``last``."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``from_dict`` reads it back."""
        return {"policy": type(self).__name__, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Policy":
        """The policy that ``to_dict`` described; ConfigError for unknown names."""
        options = dict(data)
        name = options.pop("policy", None)
        kind = Policy.kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            raise ConfigError(
                f"there is no policy named {name!r}",
                remedy=f"use one of: {', '.join(sorted(Policy.kinds))}",
            )
        known = {field.name for field in fields(kind)}
        if unknown := sorted(options.keys() - known):
            raise ConfigError(
                f"{name} has no option {', '.join(unknown)}",
                remedy=f"its options are: {', '.join(sorted(known))}",
            )
        return kind(**options)


def require_integer(policy: Policy, name: str, least: int) -> None:
    """ConfigError unless the policy's option ``name`` is an int of at least ``least``."""
    value = getattr(policy, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(
            f"{name}={value!r} is not a whole number of at least {least}",
            where=type(policy).__name__,
            remedy=f"pass {name}={least} or more, as an int",
        )


def known_length(policy: Policy, step: Step) -> int:
    """The run's number of calls; ScheduleError where it is unknown."""
    if step.num_steps is None:
        raise ScheduleError(
            f"{type(policy).__name__} needs to know how many steps the run has",
            where=f"step {step.index}",
            remedy="iterate over the noise scheduler's timesteps tensor, or open the loop with "
            "`with fxcache.session(model, num_steps=...):`",
        )
    return step.num_steps

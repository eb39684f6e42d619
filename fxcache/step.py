"""One step of a run, as policies and forecasts see it, and the decision of a policy."""

from dataclasses import dataclass
from typing import NamedTuple

from fxcache.errors import ScheduleError, UnknownLengthError


class Decision(NamedTuple):
    """The decision of a policy about one step.

    Attributes:
        refresh: Whether the step runs the full variant and stores every cached value.
        reason: Why, in a few words. The report shows it.
        recompute: The names of cache points that the step computes and stores although it reuses
            the others.
    """

    refresh: bool
    reason: str
    recompute: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the denoiser within a run.

    Attributes:
        index: The number of the call in its run, from 0. Solvers that call the model twice for one
            timestep have each call counted.
        num_steps: The expected number of calls of the run. None if it is unknown.
        last_refresh: The index of the last call that refreshed everything.
        changes: The changes of the signal that the policy observes, one for each call since the
            last refresh. The last entry is that of this call. Each is a relative L1 norm.
        schedule_steps: How many timesteps the noise schedule has. A model that serves only a part
            of the schedule, as an expert of Wan 2.2 does, has fewer steps. None if it is unknown.
    """

    index: int
    num_steps: int | None
    last_refresh: int = 0
    changes: tuple[float, ...] = ()
    schedule_steps: int | None = None


def require_length(what: str, length: int, step: Step) -> None:
    """Check that the run has the length for which ``what`` was calibrated.

    Raises:
        UnknownLengthError: The run's length is unknown.
        ScheduleError: The run has another length.
    """
    num_steps = known_length(what, step)
    if length not in (num_steps, step.schedule_steps):
        raise ScheduleError(
            f"{what} was calibrated for runs of {length} steps; this run has {num_steps} steps",
            where=f"step {step.index}",
            remedy=f"sample with {length} steps, or calibrate or tune again for this number",
        )


def known_length(what: str, step: Step) -> int:
    """Return the number of calls that the run makes.

    Raises:
        UnknownLengthError: It is unknown.
    """
    if step.num_steps is None:
        raise UnknownLengthError(
            f"{what} needs to know how many steps the run has",
            where=f"step {step.index}",
            remedy="optimize the pipeline instead of the model, iterate over the noise "
            "scheduler's timesteps tensor, or open the loop with "
            "`with fxcache.session(model, num_steps=...):`",
        )
    return step.num_steps

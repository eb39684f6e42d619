"""The timesteps that a run is expected to have, and the steps at which it will refresh."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fxcache.call import Call
from fxcache.policies import Policy
from fxcache.runtime.features.precomputed_signals import timesteps_of
from fxcache.runtime.trajectory.position import Element, Number, Position
from fxcache.runtime.trajectory.tensor_ref import Match, TensorRef
from fxcache.step import Step

MAX_ROWS = 250  # of a table: the greatest number of steps in the papers
MAX_AGE = 4  # a timestep is dropped after this many runs without it


@dataclass(frozen=True)
class Elements:
    """Finds rows by place. The first row is for the element ``first`` of ``schedule``."""

    schedule: TensorRef
    first: int

    def row(self, position: Position) -> int | None:
        """Return the row of ``position``; None if the schedule is another or was written."""
        if not isinstance(position, Element):
            return None
        schedule, index = position.schedule(), position.offset - self.first
        if schedule is None or self.schedule.compare(schedule) is not Match.SAME:
            return None
        return index if index >= 0 else None


@dataclass(frozen=True)
class Numbers:
    """Finds rows by the value of the timestep."""

    rows: Mapping[str, int]  # by ``float.hex``: -0.0 is not 0.0, and NaN equals itself

    def row(self, position: Position) -> int | None:
        """Return the row of ``position``; None if no row has its value."""
        if not isinstance(position, Number) or not position.uniform:
            return None
        return self.rows.get(position.value.hex())


@dataclass(frozen=True)
class Timesteps:
    """The expected timesteps of a run, ``[T]``, and the index that finds their rows."""

    tensor: Tensor
    index: Elements | Numbers


class TimestepHistory:
    """The values of the timesteps of recent runs, for one kind of call.

    Some pipelines, such as FLUX's, make a new tensor for each timestep, so that the next timestep
    is unknown. Most runs use the timesteps of the run before.
    """

    def __init__(self) -> None:
        self._runs = 0
        self._last: dict[str, int] = {}  # the number of the last run with a value, by ``float.hex``
        self._lock = threading.Lock()

    def begin(self) -> tuple[float, ...]:
        """Begin a run. Return the timesteps of recent runs."""
        with self._lock:
            self._runs += 1
            self._last = {v: run for v, run in self._last.items() if self._runs - run <= MAX_AGE}
            return tuple(map(float.fromhex, self._last))

    def add(self, position: Position) -> None:
        """Record the timestep of a step."""
        if not isinstance(position, Number) or not position.uniform:
            return
        value = position.value.hex()
        with self._lock:
            if value in self._last or len(self._last) < MAX_ROWS:
                self._last[value] = self._runs


def expected_timesteps(
    call: Call, position: Position, history: TimestepHistory
) -> Timesteps | None:
    """Return the timesteps of the run that begins with ``call``; None if they are unknown.

    They are unknown if the model computes with them in Python, or if they are neither numbers nor
    elements of one tensor with at most ``MAX_ROWS`` elements, or if that tensor was made in
    inference mode, because it then does not count its writes.
    """
    values = history.begin()
    if call.timestep_name not in call.paths:
        return None
    if isinstance(position, Number) and position.uniform:
        like = call.tensors[call.timestep_index]
        tensor = torch.tensor(values, dtype=like.dtype, device=like.device)
        return Timesteps(tensor, Numbers({value.hex(): row for row, value in enumerate(values)}))
    schedule = position.schedule() if isinstance(position, Element) else None
    if not isinstance(position, Element) or schedule is None or schedule.is_inference():
        return None
    if position.length - position.offset > MAX_ROWS:
        return None
    tensor = timesteps_of(call, position)[position.offset :]
    return Timesteps(tensor, Elements(TensorRef(schedule), position.offset))


def planned_refreshes(policy: Policy, now: Step, timesteps: Timesteps) -> list[int]:
    """Return the rows of ``timesteps`` at which a refresh is planned.

    These are all rows if the policy decides by what it observes. A wrong row costs time only.

    Args:
        policy: The policy.
        now: The first step of the run, or the first with these timesteps.
        timesteps: The timesteps of the run, one for each call.
    """
    rows = range(len(timesteps.tensor))
    if policy.observes is not None:
        return list(rows)
    first = now.index if isinstance(timesteps.index, Elements) else 0
    planned: list[int] = []
    for row in rows[: None if now.num_steps is None else max(0, now.num_steps - first)]:
        last = first + planned[-1] if planned else now.last_refresh
        step = replace(now, index=first + row, last_refresh=last, changes=())
        if row == 0 or policy.plans_refresh(step):
            planned.append(row)
    return planned

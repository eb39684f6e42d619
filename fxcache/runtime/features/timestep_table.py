"""A table of hoisted values, computed in one batch for all timesteps of a run."""

import logging
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fxcache._torch import hint_of
from fxcache.call import Call
from fxcache.program import value_of
from fxcache.rewrite.variants import Variants
from fxcache.runtime.features.precomputed_signals import timesteps_of
from fxcache.runtime.offload import Offload
from fxcache.runtime.trajectory.position import Element, Number, Position
from fxcache.runtime.trajectory.tensor_ref import Match, TensorRef

logger = logging.getLogger("fxcache.runtime")

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


@dataclass(frozen=True)
class TimestepTable:
    """The hoisted values for all timesteps of a run.

    Attributes:
        index: Finds the row of a call's timestep.
        shape: The shape of a call's timestep.
        values: ``[T, …]`` each.
    """

    index: Elements | Numbers
    shape: torch.Size
    values: tuple[Tensor, ...]

    def row(self, call: Call, position: Position) -> tuple[Tensor, ...] | None:
        """Return the values for the timestep of ``call``; None if the table has no such row."""
        row = self.index.row(position)
        if row is None or call.tensors[call.timestep_index].shape != self.shape:
            return None
        return tuple(value[row] for value in self.values)


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


@torch.no_grad()
def make_table(
    call: Call,
    timesteps: Timesteps,
    variants: Variants,
    per_run: tuple[Tensor, ...],
    offload: Offload,
) -> TimestepTable | None:
    """Return the values at all ``timesteps``; None if the model does not support a batch of them.

    The result is None too if the dtype differs in a batch: some ops promote a batch of numbers to
    a wider dtype than a single number.
    """
    index = call.timestep_index
    like = call.tensors[index]
    rows = timesteps.tensor.reshape(-1, *[1] * like.dim()).expand(-1, *like.shape)
    user = (*call.tensors[:index], rows, *call.tensors[index + 1 :])
    inputs = variants.timestep_part.signature.bind(user, per_run)
    dims = tuple(0 if i == index else None for i in range(len(inputs)))
    part = partial(offload.run, variants.timestep_part.module)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            values = torch.vmap(part, in_dims=dims)(*inputs)
    except (RuntimeError, IndexError) as error:
        logger.warning("no table of timesteps for %s: %s", variants.program.model, error)
        return None
    likes = [value_of(node) for node in variants.hoisted.per_step]
    pairs = list(zip(values, likes, strict=True))
    if any(value.dtype != one.dtype for value, one in pairs):
        logger.warning("no table of timesteps for %s: dtypes differ", variants.program.model)
        return None
    return TimestepTable(timesteps.index, like.shape, tuple(match_layout(*pair) for pair in pairs))


def match_layout(rows: Tensor, like: Tensor) -> Tensor:
    """Return ``rows`` with the memory order of ``like`` in each row, because graphs take views."""
    strides = [hint_of(stride) or 0 for stride in like.stride()]
    order = [0, *(1 + dim for dim in sorted(range(like.dim()), key=lambda d: -strides[d]))]
    back = [order.index(dim) for dim in range(rows.dim())]
    return rows.permute(order).contiguous().permute(back)

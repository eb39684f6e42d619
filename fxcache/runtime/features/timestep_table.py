"""A table of hoisted values: one batched pass computes them for all timesteps of a run."""

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

MAX_ROWS = 250  # of a table: as many steps as papers take
MEMORY = 4  # a timestep is forgotten after this many runs without it


@dataclass(frozen=True)
class Elements:
    """Finds rows by place: the table begins at element ``first`` of a noise schedule."""

    schedule: TensorRef
    first: int

    def row(self, position: Position) -> int | None:
        """The row of ``position``; None for another schedule, or one that was written since."""
        if not isinstance(position, Element):
            return None
        schedule, index = position.schedule(), position.offset - self.first
        if schedule is None or self.schedule.compare(schedule) is not Match.SAME:
            return None
        return index if index >= 0 else None


@dataclass(frozen=True)
class Numbers:
    """Finds rows by the value of the timestep."""

    rows: Mapping[str, int]  # by the digits in hexadecimal: -0.0 is not 0.0, NaN equals itself

    def row(self, position: Position) -> int | None:
        """The row of ``position``; None if there is none for its value."""
        if not isinstance(position, Number) or not position.uniform:
            return None
        return self.rows.get(position.value.hex())


@dataclass(frozen=True)
class Timesteps:
    """The expected timesteps of a run, ``[T]``, and how the row of each is found."""

    tensor: Tensor
    index: Elements | Numbers


class TimestepHistory:
    """The values of the timesteps of recent runs, for one kind of call.

    Some pipelines, such as FLUX's, make a new tensor of each timestep, so that the next timestep is
    not known. But every run goes through the same ones.
    """

    def __init__(self) -> None:
        self._runs = 0
        self._last: dict[str, int] = {}  # by value, in hexadecimal, the number of the run
        self._lock = threading.Lock()

    def begin(self) -> tuple[float, ...]:
        """Begin a run; the timesteps that it may go through."""
        with self._lock:
            self._runs += 1
            self._last = {v: run for v, run in self._last.items() if self._runs - run <= MEMORY}
            return tuple(map(float.fromhex, self._last))

    def note(self, position: Position) -> None:
        """Note the timestep of a step."""
        if not isinstance(position, Number) or not position.uniform:
            return
        value = position.value.hex()
        with self._lock:
            if value in self._last or len(self._last) < MAX_ROWS:
                self._last[value] = self._runs


@dataclass(frozen=True)
class TimestepTable:
    """Hoisted values for all timesteps of a run.

    Attributes:
        index: How the row of a call's timestep is found.
        shape: The shape of a call's timestep.
        values: ``[T, …]`` each.
    """

    index: Elements | Numbers
    shape: torch.Size
    values: tuple[Tensor, ...]

    def row(self, call: Call, position: Position) -> tuple[Tensor, ...] | None:
        """The values for the timestep of ``call``; None if the table has none."""
        row = self.index.row(position)
        if row is None or call.tensors[call.timestep_index].shape != self.shape:
            return None
        return tuple(value[row] for value in self.values)


def expected(call: Call, position: Position, history: TimestepHistory) -> Timesteps | None:
    """The timesteps of the run that begins with ``call``; None where they cannot be known.

    That is where the model computes with them in Python; where they are neither elements of one
    tensor, of at most ``MAX_ROWS``, nor numbers; and where that tensor was made in inference mode,
    which does not tell whether it was written.
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
def tabulated(
    call: Call,
    timesteps: Timesteps,
    variants: Variants,
    per_run: tuple[Tensor, ...],
    offload: Offload,
) -> TimestepTable | None:
    """The values at all ``timesteps``; None where the model takes only one timestep at a time.

    Or where it takes several for something else: some ops promote a batch of numbers to a wider
    dtype than a number by itself.
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
    return TimestepTable(timesteps.index, like.shape, tuple(laid_out(*pair) for pair in pairs))


def laid_out(rows: Tensor, like: Tensor) -> Tensor:
    """``rows``, each with its dimensions in the order of ``like``'s: the graph takes views."""
    strides = [hint_of(stride) or 0 for stride in like.stride()]
    order = [0, *(1 + dim for dim in sorted(range(like.dim()), key=lambda d: -strides[d]))]
    back = [order.index(dim) for dim in range(rows.dim())]
    return rows.permute(order).contiguous().permute(back)

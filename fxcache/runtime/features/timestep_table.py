"""A table of hoisted values, computed in one batch for the timesteps of a run."""

import logging
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fxcache._torch import hint_of
from fxcache.analysis.hoisting import HoistLevel
from fxcache.call import Call
from fxcache.program import value_of
from fxcache.rewrite.variant import TimestepPart
from fxcache.rewrite.variants import Variants
from fxcache.runtime.features.timesteps import Elements, Numbers, Timesteps
from fxcache.runtime.offload import Offload
from fxcache.runtime.trajectory.position import Position

logger = logging.getLogger("fxcache.runtime")


class PartRows(NamedTuple):
    """The hoisted values of one part for some rows of a table.

    Attributes:
        places: The place of each row in ``values``.
        values: ``[R, …]`` each, by number.
    """

    places: Mapping[int, int]
    values: Mapping[int, Tensor]


@dataclass(frozen=True)
class TimestepTable:
    """The hoisted values for the timesteps of a run.

    Attributes:
        index: Finds the row of a call's timestep.
        shape: The shape of a call's timestep.
        parts: The values that every step reads, for all rows, and those that only refreshes read,
            for the planned ones.
        flops: The FLOPs that they took.
    """

    index: Elements | Numbers
    shape: torch.Size
    parts: tuple[PartRows, ...]
    flops: int

    def row(self, call: Call, position: Position) -> int | None:
        """Return the row of the timestep of ``call``; None if there is none."""
        row = self.index.row(position)
        if row is None or call.tensors[call.timestep_index].shape != self.shape:
            return None
        return row if row in self.parts[0].places else None

    def find(self, row: int, number: int) -> Tensor | None:
        """Return a hoisted value by its number; None if the table does not have it."""
        for part in self.parts:
            if number in part.values and row in part.places:
                return part.values[number][part.places[row]]
        return None

    @property
    def nbytes(self) -> int:
        """The bytes of the values."""
        values = (value for part in self.parts for value in part.values.values())
        return sum(value.untyped_storage().nbytes() for value in values)


class StepValues:
    """The hoisted values of one step, by number.

    Args:
        per_run: The values that depend on the conditioning alone, which come first.
        table: The values that depend on the timestep.
        row: The row of the step's timestep.
        missing: Computes the values that only refreshes read, for a refresh that was not planned.
    """

    def __init__(
        self,
        per_run: tuple[Tensor, ...],
        table: TimestepTable,
        row: int,
        missing: Callable[[], Mapping[int, Tensor]],
    ) -> None:
        self._per_run, self._table, self._row, self._missing = per_run, table, row, missing
        self._computed: Mapping[int, Tensor] = {}

    def __getitem__(self, number: int) -> Tensor:
        """Return the value with this number, and compute it if the table does not have it."""
        if number < len(self._per_run):
            return self._per_run[number]
        if (value := self._table.find(self._row, number)) is not None:
            return value
        self._computed = self._computed or self._missing()
        return self._computed[number]


@torch.no_grad()
def make_table(
    call: Call,
    timesteps: Timesteps,
    variants: Variants,
    per_run: tuple[Tensor, ...],
    planned: Collection[int],
    offload: Offload,
) -> TimestepTable | None:
    """Return the values at all ``timesteps``; None if the model does not support a batch of them.

    The result is None too if the dtype differs in a batch: some ops promote a batch of numbers to
    a wider dtype than a single number.

    Args:
        call: The first call of the run.
        timesteps: The timesteps.
        variants: The graphs.
        per_run: The hoisted values that depend on the conditioning alone.
        planned: The rows at which a refresh is planned.
        offload: The offloaded weights.
    """
    found, flops = [], 0
    every = range(len(timesteps.tensor))
    for part, rows in ((variants.timestep_part, every), (variants.refresh_part, planned)):
        values = values_at(timesteps.tensor[[*rows]], call, part, variants, per_run, offload)
        if values is None:
            return None
        found.append(PartRows({row: place for place, row in enumerate(rows)}, values))
        flops += len(rows) * part.variant.flops
    shape = call.tensors[call.timestep_index].shape
    return TimestepTable(timesteps.index, shape, tuple(found), flops)


def values_at(
    timesteps: Tensor,
    call: Call,
    part: TimestepPart,
    variants: Variants,
    per_run: tuple[Tensor, ...],
    offload: Offload,
) -> dict[int, Tensor] | None:
    """Return the values of one part at these timesteps, by number; None if no batch is supported.

    The other arguments are those of ``make_table``.
    """
    if not len(timesteps) or not part.numbers:
        return {}
    index = call.timestep_index
    like = call.tensors[index]
    rows = timesteps.reshape(-1, *[1] * like.dim()).expand(-1, *like.shape)
    user = (*call.tensors[:index], rows, *call.tensors[index + 1 :])
    inputs = part.variant.signature.bind(user, per_run)
    dims = tuple(0 if i == index else None for i in range(len(inputs)))
    run = partial(offload.run, part.variant.module)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            values = torch.vmap(run, in_dims=dims)(*inputs)
    except (RuntimeError, IndexError) as error:
        logger.warning("no table of timesteps for %s: %s", variants.program.model, error)
        return None
    nodes = variants.hoisted.at(HoistLevel.PER_STEP)
    likes = [value_of(nodes[number]) for number in part.numbers]
    pairs = list(zip(values, likes, strict=True))
    if any(value.dtype != one.dtype for value, one in pairs):
        logger.warning("no table of timesteps for %s: dtypes differ", variants.program.model)
        return None
    return dict(zip(part.numbers, (match_layout(*pair) for pair in pairs), strict=True))


def match_layout(rows: Tensor, like: Tensor) -> Tensor:
    """Return ``rows`` with the memory order of ``like`` in each row, because graphs take views."""
    strides = [hint_of(stride) or 0 for stride in like.stride()]
    order = [0, *(1 + dim for dim in sorted(range(like.dim()), key=lambda d: -strides[d]))]
    back = [order.index(dim) for dim in range(rows.dim())]
    return rows.permute(order).contiguous().permute(back)

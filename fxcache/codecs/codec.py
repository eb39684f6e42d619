"""What a codec is: what is stored for a value, and how a reuse step reads it back."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, fx

from fxcache.graph_inputs import InputKind, Source, add_input
from fxcache.partition.cut import CachePoint
from fxcache.program import value_of
from fxcache.step import Step

CACHED = "cached_"  # begins the names of placeholders for what is stored


class Slot(NamedTuple):
    """One tensor that is stored for a value.

    Attributes:
        like: A tensor, perhaps a fake one, of its shape and dtype.
        prefix: Begins the name of its placeholder, as in ``scale_cached_3``.
        suffix: Ends the name of its placeholder, as in ``cached_3_1``.
    """

    like: Tensor
    prefix: str = ""
    suffix: str = ""


@dataclass(slots=True, eq=False)
class CacheEntry:
    """What is stored for one cache point.

    Attributes:
        buffers: The tensors that are stored, as the codec's ``slots`` describe them.
        steps: The step that wrote it, and the steps before it whose values are still stored.
        adopted: Whether the buffer is a variant's own result, and not written to.
        statistics: Of the value as it is now, by what they are; for kernels.
    """

    buffers: tuple[Tensor, ...]
    steps: tuple[int, ...]
    adopted: bool = False
    statistics: dict[Any, Tensor] = field(default_factory=dict)

    def age(self, step: int) -> int:
        """How many steps ago it was written."""
        return step - self.steps[0]


class ReadContext(NamedTuple):
    """What coefficients of a step are computed from.

    Attributes:
        entries: What is stored, by the number of the cache point.
        reads: The numbers of the points that the step reads.
        step: The step, as its policy sees it.
        phase: The half of a guided batch that the step computes, 0 or 1; None for all of it.
    """

    entries: Mapping[int, CacheEntry]
    reads: tuple[int, ...]
    step: Step
    phase: int | None = None


class Coefficients(ABC):
    """Computes the coefficients of a codec at each step; keeps those that were on a device."""

    def require(self, step: Step) -> None:  # noqa: B027, most need nothing
        """Check that they can be computed at ``step``.

        Raises:
            UnknownLengthError: They need the run's length, which nothing tells.
            ScheduleError: The run is not as long as those of the calibration.
        """

    @abstractmethod
    def at(self, context: ReadContext) -> dict[Hashable, Tensor]:
        """The value of each COEFFICIENT input, by the key of its source."""


@dataclass(frozen=True)
class Codec(ABC):
    """How a value is stored and read back. Frozen and free of state.

    Attributes:
        stores_as_is: Whether what is stored is the value itself.
    """

    stores_as_is: ClassVar[bool] = False

    def require_points(self, points: Iterable[CachePoint]) -> None:  # noqa: B027, most take any
        """Check that the values of ``points`` can be stored.

        Raises:
            CutError: One cannot.
        """

    @abstractmethod
    def slots(self, value: Tensor) -> tuple[Slot, ...]:
        """What is stored for ``value``, which may be a fake tensor."""

    def inputs(self, graph: fx.Graph, number: int, like: fx.Node) -> list[fx.Node]:
        """New inputs of ``graph`` for what is stored for cache point ``number``."""
        made = []
        for index, slot in enumerate(self.slots(value_of(like))):
            name = f"{slot.prefix}{CACHED}{number}{slot.suffix}"
            node = add_input(graph, name, Source(InputKind.CACHED, (number, index)), like)
            node.meta["val"] = slot.like
            made.append(node)
        return made

    def coefficient_inputs(self, graph: fx.Graph, numbers: Sequence[int]) -> dict[int, fx.Node]:
        """New inputs of ``graph`` for coefficients: what each of these points is read by."""
        del graph, numbers
        return {}

    @abstractmethod
    def decode(
        self, graph: fx.Graph, stored: list[fx.Node], like: fx.Node, coefficient: fx.Node | None
    ) -> fx.Node:
        """Compute the value of what is ``stored``, in ``graph``, at its insertion point.

        Args:
            graph: Changed in place.
            stored: The inputs that ``inputs`` made.
            like: The node whose value was stored, in the program's graph.
            coefficient: What ``coefficient_inputs`` made for this point.
        """

    def coefficients(self) -> Coefficients | None:
        """What computes the coefficients; None for a codec without any."""
        return None

    def allocate(self, value: Tensor, step: int) -> CacheEntry:
        """An entry that can hold values like ``value``."""
        with torch.inference_mode(False), torch.no_grad():
            buffers = tuple(torch.empty_like(slot.like) for slot in self.slots(value))
        return CacheEntry(buffers, (step,))

    @abstractmethod
    def write(
        self, entries: Sequence[CacheEntry], values: list[Tensor], step: int, fresh: bool
    ) -> None:
        """Store ``values`` in ``entries``, all in one batched call.

        Args:
            entries: What ``allocate`` made, for values of the same shapes.
            values: As the variant returned them.
            step: The step that computed them.
            fresh: Whether what was stored before is of another run, and gives no differences.
        """


def entries_of(values: Mapping[int, Tensor]) -> dict[int, CacheEntry]:
    """Entries that hold ``values`` as they are, by the number of the cache point."""
    return {number: CacheEntry((value,), (0,)) for number, value in values.items()}

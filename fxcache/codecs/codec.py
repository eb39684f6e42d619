"""The base class of codecs, which store cached values and read them back."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, fx

from fxcache.codecs.layout import Layout
from fxcache.graph_inputs import InputKind, Source, add_input
from fxcache.partition.cut import CachePoint
from fxcache.program import value_of
from fxcache.step import Step


class Slot(NamedTuple):
    """A description of one tensor that is stored for a value.

    Attributes:
        like: A tensor with the shape and dtype of the stored tensor; it may be fake.
        prefix: The prefix of the name of its placeholder, as in ``scale_cached_3``.
        suffix: The suffix of the name of its placeholder, as in ``cached_3_1``.
    """

    like: Tensor
    prefix: str = ""
    suffix: str = ""


@dataclass(slots=True, eq=False)
class CacheEntry:
    """The stored tensors of one cache point.

    Attributes:
        buffers: The stored tensors, as the codec's ``slots`` describe them.
        steps: The steps whose values are stored, the newest first.
        adopted: Whether the buffer is the result of a variant, kept without a copy.
        statistics: Statistics of the current value for kernels, by their ``Moments``.
    """

    buffers: tuple[Tensor, ...]
    steps: tuple[int, ...]
    adopted: bool = False
    statistics: dict[Any, Tensor] = field(default_factory=dict)

    def age(self, step: int) -> int:
        """Return how many steps before ``step`` the entry was written."""
        return step - self.steps[0]


class ReadContext(NamedTuple):
    """The data from which the coefficients of a step are computed.

    Attributes:
        entries: The entries by the number of the cache point.
        reads: The numbers of the points that the step reads.
        step: The step, as the policy sees it.
        phase: The half of a guided batch that the step computes, 0 or 1; None for the whole batch.
    """

    entries: Mapping[int, CacheEntry]
    reads: tuple[int, ...]
    step: Step
    phase: int | None = None


class Coefficients(ABC):
    """Computes the coefficients of a codec at each step, and caches them on their device."""

    def require(self, step: Step) -> None:  # noqa: B027, most codecs need no check
        """Check that the coefficients can be computed at ``step``.

        Raises:
            UnknownLengthError: They need the run's length, which is unknown.
            ScheduleError: The run has another length than the runs of the calibration.
        """

    @abstractmethod
    def at(self, context: ReadContext) -> dict[Hashable, Tensor]:
        """Return the value of each COEFFICIENT input, by the key of its source."""


@dataclass(frozen=True)
class Codec(ABC):
    """Stores values and reads them back. A codec has no state.

    Attributes:
        stores_as_is: Whether the stored tensor is the value itself.
    """

    stores_as_is: ClassVar[bool] = False

    def require_points(self, points: Iterable[CachePoint]) -> None:  # noqa: B027, most store any
        """Check that the values of ``points`` can be stored.

        Raises:
            CutError: A value cannot be stored.
        """

    @abstractmethod
    def slots(self, value: Tensor) -> tuple[Slot, ...]:
        """Return a description of each tensor to store for ``value``, which may be fake."""

    def inputs(
        self,
        graph: fx.Graph,
        number: int,
        like: fx.Node,
        kind: InputKind = InputKind.CACHED,
    ) -> list[fx.Node]:
        """Add inputs to ``graph`` for the stored tensors of cache point ``number``.

        Args:
            graph: The graph, changed in place.
            number: The number of the cache point.
            like: A node with a value like those of the cache point.
            kind: CACHED if the graph reads the tensors, BUFFER if it writes them.
        """
        made = []
        for index, slot in enumerate(self.slots(value_of(like))):
            name = f"{slot.prefix}{kind.value}_{number}{slot.suffix}"
            node = add_input(graph, name, Source(kind, (number, index)), like)
            node.meta["val"] = slot.like
            made.append(node)
        return made

    def coefficient_inputs(self, graph: fx.Graph, numbers: Sequence[int]) -> dict[int, fx.Node]:
        """Add inputs to ``graph`` for coefficients. Return the coefficient of each point."""
        del graph, numbers
        return {}

    @abstractmethod
    def encode(self, graph: fx.Graph, value: fx.Node, stored: list[fx.Node]) -> list[fx.Node]:
        """Insert the computation of the tensors to store for ``value`` into ``graph``.

        Args:
            graph: The graph, changed in place at its insertion point.
            value: The node of the value.
            stored: The inputs with the tensors that are stored so far.

        Returns:
            The node of each new tensor. A graph that writes them to ``stored`` writes the last one
            first.
        """

    @abstractmethod
    def decode(
        self, graph: fx.Graph, stored: list[fx.Node], like: fx.Node, coefficient: fx.Node | None
    ) -> fx.Node:
        """Insert the computation of the value from the stored tensors into ``graph``.

        Args:
            graph: The graph, changed in place at its insertion point.
            stored: The inputs that ``inputs`` added.
            like: The node of the program whose value was stored.
            coefficient: The coefficient that ``coefficient_inputs`` returned for this point.
        """

    def coefficients(self) -> Coefficients | None:
        """Return an object that computes the coefficients; None for a codec without any."""
        return None

    def layouts(self, value: Tensor) -> tuple[Layout, ...]:
        """Return the layout of each buffer for ``value``."""
        return tuple(Layout.of(slot.like) for slot in self.slots(value))

    @abstractmethod
    def write(self, entries: Sequence[CacheEntry], values: list[Tensor]) -> None:
        """Store ``values`` in the buffers of ``entries``, as ``encode`` does in a graph.

        Args:
            entries: Entries for values of the same shapes.
            values: The values that a variant returned.
        """

    def complete(self, entries: Sequence[CacheEntry], step: int, fresh: bool) -> None:
        """Complete ``entries`` after their buffers were written by ``write`` or by a graph.

        Args:
            entries: The entries.
            step: The step that computed the values.
            fresh: Whether earlier values belong to another run, so that histories begin anew.
        """
        del fresh
        steps = (step,)
        for entry in entries:
            entry.steps = steps
            if entry.statistics:
                entry.statistics.clear()


def entries_of(values: Mapping[int, Tensor]) -> dict[int, CacheEntry]:
    """Return entries that hold ``values`` without a copy, by the number of the cache point."""
    return {number: CacheEntry((value,), (0,)) for number, value in values.items()}

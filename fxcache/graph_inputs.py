"""The inputs and outputs of a graph that the program does not have, in notes on its nodes."""

from collections.abc import Hashable
from enum import Enum
from typing import NamedTuple, Protocol

from torch import Tensor, fx

from fxcache.program import output_node

SOURCE = "fxcache_source"  # the note on a placeholder
RESULTS = "fxcache_results"  # the note on the output node


class InputKind(Enum):
    """The kind of an input of a variant. Inputs are ordered by kind, in this order."""

    USER = "user"  # an argument of the call
    HOISTED = "hoisted"  # computed before the steps
    SHARED = "shared"  # computed by the prefix
    CACHED = "cached"  # stored by an earlier step
    BUFFER = "buffer"  # memory of the cache that the graph writes
    COEFFICIENT = "coefficient"  # with which this step reads cached values
    MOMENT = "moment"  # statistics of a cached value, for a kernel


ORDER = tuple(InputKind)


class OutputKind(Enum):
    """The kind of an output of a graph."""

    RESULT = "result"  # a result of the module
    CACHED = "cached"  # a value to store
    SIGNAL = "signal"  # the signal that the policy observes
    SHARED = "shared"  # for the variant that continues from the prefix
    HOISTED = "hoisted"  # for the steps of a run


class ByNumber(Protocol):
    """Tensors by number, such as a tuple of them."""

    def __getitem__(self, number: int, /) -> Tensor:
        """Return the tensor with this number."""


class Source(NamedTuple):
    """The source of an input.

    Attributes:
        kind: The kind of the input.
        key: For USER, the number of the program's input. For HOISTED and SHARED, the number of the
            value. For CACHED and BUFFER, the number of the cache point and the index of the stored
            tensor. For COEFFICIENT, its name. For MOMENT, the ``Moments``.
    """

    kind: InputKind
    key: Hashable


class Sink(NamedTuple):
    """The purpose of an output. ``key`` is as in ``Source``; it is 0 for a SIGNAL."""

    kind: OutputKind
    key: Hashable


def add_input(graph: fx.Graph, name: str, source: Source, like: fx.Node | None = None) -> fx.Node:
    """Add a placeholder to ``graph``, after all placeholders of its kind.

    It gets another name if the model has an input of that name.

    Args:
        graph: The graph, changed in place.
        name: The name, if no other node has it.
        source: The source of its value.
        like: A node whose value has the shape and dtype of its value.
    """
    rank = ORDER.index(source.kind)
    placed = [n for n in graph.find_nodes(op="placeholder") if ORDER.index(kind_of(n)) <= rank]
    with graph.inserting_after(placed[-1]):
        made = graph.placeholder(name)
    made.target = made.name  # unique; the target becomes the name of the parameter
    made.meta = {} if like is None else dict(like.meta)
    made.meta[SOURCE] = (made, source)
    return made


def source_of(node: fx.Node) -> Source | None:
    """Return the source of a placeholder's value; None for an input of the program."""
    owner, source = node.meta.get(SOURCE, (None, None))
    return source if owner is node else None  # nodes that copied the metadata have the note too


def kind_of(node: fx.Node) -> InputKind:
    """Return the kind of a placeholder."""
    source = source_of(node)
    return source.kind if source else InputKind.USER


def inputs_of(graph: fx.Graph, kind: InputKind) -> dict[fx.Node, Source]:
    """Return the placeholders of one kind other than USER, in order."""
    found = {n: source_of(n) for n in graph.find_nodes(op="placeholder")}
    return {node: source for node, source in found.items() if source and source.kind is kind}


def note_outputs(graph: fx.Graph, sinks: tuple[Sink, ...]) -> None:
    """Note the purpose of each output of ``graph``, in order."""
    output_node(graph).meta[RESULTS] = sinks


def sinks_of(graph: fx.Graph) -> tuple[Sink, ...]:
    """Return the purpose of each output of ``graph``. Without a note, all are results."""
    output = output_node(graph)
    (values,) = output.args
    sinks: tuple[Sink, ...] = output.meta.get(RESULTS, ())
    return sinks or tuple(Sink(OutputKind.RESULT, i) for i in range(len(values)))  # type: ignore[arg-type]

"""What a graph takes and returns besides what the program does, noted on its nodes."""

from collections.abc import Hashable
from enum import Enum
from typing import NamedTuple

from torch import fx

from fxcache.program import output_node

SOURCE = "fxcache_source"  # the note on a placeholder
RESULTS = "fxcache_results"  # the note on the output node


class InputKind(Enum):
    """Where an input of a variant comes from. Inputs are ordered by kind, in this order."""

    USER = "user"  # an argument of the call
    HOISTED = "hoisted"  # computed before the steps
    SHARED = "shared"  # computed by the prefix
    CACHED = "cached"  # stored by an earlier step
    COEFFICIENT = "coefficient"  # by which this step reads what is cached
    MOMENT = "moment"  # statistics of a cached value, for a kernel


ORDER = tuple(InputKind)


class OutputKind(Enum):
    """What an output of a graph is for."""

    RESULT = "result"  # what the module returns
    CACHED = "cached"  # to be stored
    SIGNAL = "signal"  # what the policy observes
    SHARED = "shared"  # for the variant that continues from the prefix
    HOISTED = "hoisted"  # for the steps of a run


class Source(NamedTuple):
    """Where an input comes from.

    ``key`` by kind: USER, the number of the program's input; HOISTED and SHARED, the number of the
    value; CACHED, the number of the cache point and of the tensor that is stored for it;
    COEFFICIENT, its name; MOMENT, the statistics.
    """

    kind: InputKind
    key: Hashable


class Sink(NamedTuple):
    """What an output is for. ``key``: as in ``Source``; of a SIGNAL, 0."""

    kind: OutputKind
    key: Hashable


def add_input(graph: fx.Graph, name: str, source: Source, like: fx.Node | None = None) -> fx.Node:
    """A placeholder of ``graph`` after all those of its kind.

    It is called otherwise where the model has an input of that name.

    Args:
        graph: Changed in place.
        name: What it is called if nothing else is.
        source: Where its value comes from.
        like: A node whose value looks as its value will.
    """
    rank = ORDER.index(source.kind)
    placed = [n for n in graph.find_nodes(op="placeholder") if ORDER.index(kind_of(n)) <= rank]
    with graph.inserting_after(placed[-1]):
        made = graph.placeholder(name)
    made.target = made.name  # which is unique; the target becomes the parameter's name
    made.meta = {} if like is None else dict(like.meta)
    made.meta[SOURCE] = (made, source)
    return made


def source_of(node: fx.Node) -> Source | None:
    """Where a placeholder's value comes from; None for one of the program's own."""
    owner, source = node.meta.get(SOURCE, (None, None))
    return source if owner is node else None  # other nodes copy the note with the rest


def kind_of(node: fx.Node) -> InputKind:
    """The kind of a placeholder."""
    source = source_of(node)
    return source.kind if source else InputKind.USER


def inputs_of(graph: fx.Graph, kind: InputKind) -> dict[fx.Node, Source]:
    """The placeholders of one kind, other than USER, in order."""
    found = {n: source_of(n) for n in graph.find_nodes(op="placeholder")}
    return {node: source for node, source in found.items() if source and source.kind is kind}


def note_outputs(graph: fx.Graph, sinks: tuple[Sink, ...]) -> None:
    """Note what the outputs of ``graph`` are for, all of them in order."""
    output_node(graph).meta[RESULTS] = sinks


def sinks_of(graph: fx.Graph) -> tuple[Sink, ...]:
    """What the outputs of ``graph`` are for; results, where nothing is noted."""
    output = output_node(graph)
    (values,) = output.args
    noted: tuple[Sink, ...] = output.meta.get(RESULTS, ())
    return noted or tuple(Sink(OutputKind.RESULT, i) for i in range(len(values)))  # type: ignore[arg-type]

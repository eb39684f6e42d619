"""Storing in place: a graph writes values to the buffers of the cache and does not return them."""

import torch
from torch import fx

from fxcache.codecs.codec import Codec
from fxcache.graph_inputs import InputKind, OutputKind, inputs_of, note_outputs, sinks_of
from fxcache.program import output_node
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.pass_manager import Pass

aten = torch.ops.aten


def store_in_place(codec: Codec) -> Pass:
    """Return a pass that makes the graph write its values to store to buffers, which are inputs.

    Before: ``return (prediction, up_blocks_3)``. After: ``buffer_0.copy_(up_blocks_3);
    return (prediction,)``.
    """

    def run(draft: Draft) -> None:
        graph, output, sinks = draft.graph, output_node(draft.graph), sinks_of(draft.graph)
        (values,) = output.args
        pairs = list(zip(values, sinks, strict=True))  # type: ignore[arg-type]
        for value, sink in pairs:
            if sink.kind is OutputKind.CACHED:
                insert_writes(graph, codec, sink.key, value)  # type: ignore[arg-type]
        kept = [(v, s) for v, s in pairs if s.kind is not OutputKind.CACHED]
        output.args = (tuple(v for v, _ in kept),)
        note_outputs(graph, tuple(s for _, s in kept))

    return Pass(
        "store in place",
        run,
        requires=frozenset({Property.OUTPUTS_OWNED, Property.NO_DEAD_NODES}),
        breaks=frozenset({Property.FUNCTIONAL}),
    )


def insert_writes(graph: fx.Graph, codec: Codec, number: int, value: fx.Node) -> None:
    """Write ``value``, encoded, to buffers for cache point ``number``."""
    buffers = codec.inputs(graph, number, value, InputKind.BUFFER)
    with graph.inserting_before(output_node(graph)):
        encoded = codec.encode(graph, value, buffers)
        for buffer, tensor in reversed(list(zip(buffers, encoded, strict=True))):
            graph.call_function(aten.copy_.default, (buffer, tensor))


def buffers_of(graph: fx.Graph) -> dict[int, tuple[torch.Tensor, ...]]:
    """Return fake tensors like the buffers that ``graph`` writes, by the number of their point."""
    found: dict[int, tuple[torch.Tensor, ...]] = {}
    for node, source in inputs_of(graph, InputKind.BUFFER).items():
        number: int = source.key[0]  # type: ignore[index]
        found[number] = (*found.get(number, ()), node.meta["val"])
    return found

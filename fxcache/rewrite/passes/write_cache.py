"""Cache writes: adds the values to store to the outputs of a variant."""

from collections.abc import Mapping

from fxcache.codecs import residual
from fxcache.graph_inputs import OutputKind, Sink, note_outputs, sinks_of
from fxcache.partition.cut import CachePoint
from fxcache.program import output_node
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.pass_manager import Pass


def write_cache(points: Mapping[int, CachePoint]) -> Pass:
    """Return a pass that adds the values at ``points``, by number, to the outputs.

    Before: ``return (prediction,)``. After: ``return (prediction, up_blocks_3_attentions_1)``, or
    ``return (prediction, last_block - first_input)`` at a residual cut. The prediction is not
    computed from the difference, because in floating point x + (y - x) is not y.
    """

    def run(draft: Draft) -> None:
        written = [residual.encode(draft.graph, p, draft.nodes) for p in points.values()]
        output = output_node(draft.graph)
        (results,) = output.args
        sinks = (*sinks_of(draft.graph), *(Sink(OutputKind.CACHED, n) for n in points))
        output.args = ((*results, *written),)  # type: ignore[misc]
        note_outputs(draft.graph, sinks)

    return Pass(
        "write cache",
        run,
        requires=frozenset({Property.ALL_NODES, Property.CACHE_READ}),
        ensures=frozenset({Property.OUTPUTS_FINAL}),
    )

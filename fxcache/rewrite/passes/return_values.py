"""Makes a graph of a part of the program, which returns inner values instead of results."""

from collections.abc import Sequence

from torch import fx

from fxcache.codecs import residual
from fxcache.graph_inputs import OutputKind, Sink, note_outputs
from fxcache.partition.cut import SignalPoint
from fxcache.program import output_node
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.pass_manager import Pass


def return_values(
    kind: OutputKind, values: Sequence[fx.Node], signal: SignalPoint | None = None
) -> Pass:
    """Return a pass that makes ``signal``, if any, and nodes of the program the outputs."""

    def run(draft: Draft) -> None:
        returned = [draft.nodes[value] for value in values]
        sinks = [Sink(kind, number) for number in range(len(values))]
        if signal:
            returned.insert(0, residual.encode(draft.graph, signal, draft.nodes))
            sinks.insert(0, Sink(OutputKind.SIGNAL, 0))
        output_node(draft.graph).args = (tuple(returned),)
        note_outputs(draft.graph, tuple(sinks))

    return Pass(
        f"return {kind.value} values",
        run,
        requires=frozenset({Property.ALL_NODES}),
        ensures=frozenset({Property.OUTPUTS_FINAL}),
    )

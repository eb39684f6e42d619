"""A part of the program: the graph returns other values than the program's results."""

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
    """The pass that returns ``signal``, if there is one, and ``values``, nodes of the program."""

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

"""A part of the program: the graph returns other values than the program's results."""

from collections.abc import Sequence

import torch
from torch import fx

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
            returned.insert(0, insert_signal(draft, signal))
            sinks.insert(0, Sink(OutputKind.SIGNAL, 0))
        output_node(draft.graph).args = (tuple(returned),)
        note_outputs(draft.graph, tuple(sinks))

    return Pass(
        f"return {kind.value} values",
        run,
        requires=frozenset({Property.ALL_NODES}),
        ensures=frozenset({Property.OUTPUTS_FINAL}),
    )


def insert_signal(draft: Draft, signal: SignalPoint) -> fx.Node:
    """What the policy observes: a value, or its difference from a shortcut."""
    value = draft.nodes[signal.value]
    if signal.shortcut is None:
        return value
    with draft.graph.inserting_before(value.next):
        shortcut = signal.shortcut.insert(draft.graph, draft.nodes)
        difference = draft.graph.call_function(torch.ops.aten.sub.Tensor, (value, shortcut))
    difference.meta = dict(value.meta)
    return difference

"""What every graph ends with: dead nodes go, and outputs share no memory with the cache."""

import operator

import torch
from torch import fx

from fxcache._torch import returns_view
from fxcache.graph_inputs import InputKind, kind_of
from fxcache.program import output_node, remove_dead
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.pass_manager import Pass

# Inputs that other steps read too.
KEPT = frozenset({InputKind.HOISTED, InputKind.SHARED, InputKind.CACHED})


def remove_dead_nodes() -> Pass:
    """The pass that erases every node that no output needs. Inputs stay."""
    return Pass(
        "remove dead nodes",
        lambda draft: remove_dead(draft.graph),
        requires=frozenset({Property.OUTPUTS_FINAL}),
        ensures=frozenset({Property.NO_DEAD_NODES}),
        breaks=frozenset({Property.ALL_NODES}),
    )


def own_outputs() -> Pass:
    """The pass that copies outputs which are kept values, or views of them.

    Callers may write to what they get. Before: ``return (cached_0.view(…),)``. After:
    ``return (clone(cached_0.view(…)),)``.
    """

    def run(draft: Draft) -> None:
        output = output_node(draft.graph)
        (values,) = output.args
        nodes = dict.fromkeys(v for v in values if isinstance(v, fx.Node))  # type: ignore[union-attr]
        for node in filter(is_view_of_kept, nodes):
            with draft.graph.inserting_before(output):
                copied = draft.graph.call_function(torch.ops.aten.clone.default, (node,))
            copied.meta = dict(node.meta)
            output.replace_input_with(node, copied)

    return Pass(
        "own outputs",
        run,
        requires=frozenset({Property.OUTPUTS_FINAL}),
        ensures=frozenset({Property.OUTPUTS_OWNED}),
    )


def is_view_of_kept(node: fx.Node) -> bool:
    """Whether ``node`` may share memory with a value that is kept for later steps.

    What the prefix shares may be a view of a hoisted value.
    """
    while node.op == "call_function":
        if not returns_view(node.target) and node.target is not operator.getitem:
            return False
        node = node.all_input_nodes[0]
    return node.op == "placeholder" and kind_of(node) in KEPT

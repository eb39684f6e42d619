"""Removes dead nodes, and copies outputs that share memory with values for later steps."""

import operator

import torch
from torch import fx

from fxcache._torch import returns_view
from fxcache.graph_inputs import InputKind, kind_of
from fxcache.program import output_node, remove_dead
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.pass_manager import Pass

# The kinds of inputs that later steps may read too.
KEPT = frozenset({InputKind.HOISTED, InputKind.SHARED, InputKind.CACHED})


def remove_dead_nodes() -> Pass:
    """Return a pass that erases each node on which no output depends. Inputs stay."""
    return Pass(
        "remove dead nodes",
        lambda draft: remove_dead(draft.graph),
        requires=frozenset({Property.OUTPUTS_FINAL, Property.FUNCTIONAL}),
        ensures=frozenset({Property.NO_DEAD_NODES}),
        breaks=frozenset({Property.ALL_NODES}),
    )


def own_outputs() -> Pass:
    """Return a pass that copies outputs which are cached values or views of them.

    Callers may write to their results. Before: ``return (cached_0.view(…),)``. After:
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
    """Return whether ``node`` may share memory with a value that later steps read.

    A value that the prefix shares may be a view of a hoisted value.
    """
    while node.op == "call_function":
        if not returns_view(node.target) and node.target is not operator.getitem:
            return False
        node = node.all_input_nodes[0]
    return node.op == "placeholder" and kind_of(node) in KEPT

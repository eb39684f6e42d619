"""Verifies the graph after each pass. A failure is a defect of fxcache."""

from itertools import pairwise

import torch
from torch import fx

from fxcache._torch import writes
from fxcache.errors import RewriteError
from fxcache.graph_inputs import ORDER, InputKind, kind_of, sinks_of
from fxcache.program import output_node
from fxcache.rewrite.draft import Draft, Property


def verify(draft: Draft, name: str, after: str) -> None:
    """Check that the graph of ``draft`` is well formed and complete.

    It must be functional, or write only to buffers of the cache.

    Args:
        draft: The draft that a pass has changed.
        name: The name of the graph, for errors.
        after: The name of the pass.

    Raises:
        RewriteError: The graph is malformed.
    """
    graph, program = draft.graph, draft.program
    graph.lint()
    read = [n.target for n in graph.find_nodes(op="get_attr")]
    missing = [w for w in read if w not in program.weights and w not in draft.weights]
    problem = f"reads weights that the program lacks: {missing[:3]}" if missing else ""
    ranks = [ORDER.index(kind_of(node)) for node in graph.find_nodes(op="placeholder")]
    if any(first > second for first, second in pairwise(ranks)):
        problem = "has inputs that are not ordered by kind"
    writing = [node for node in graph.nodes if writes(node.target)]
    if Property.FUNCTIONAL not in draft.properties:
        writing = [node for node in writing if not writes_cache(node)]
    if writing:
        problem = f"writes to arguments: {[node.name for node in writing[:3]]}"
    (outputs,) = output_node(graph).args
    if len(sinks_of(graph)) != len(outputs):  # type: ignore[arg-type]
        problem = "has a wrong number of notes on its outputs"
    if Property.NO_DEAD_NODES in draft.properties:
        nodes = (n for n in graph.nodes if n.op in ("call_function", "get_attr"))
        if dead := [n.name for n in nodes if not n.users and not writes_cache(n)]:
            problem = f"has nodes that no node reads: {dead[:3]}"
    if problem:
        raise RewriteError(
            f"the graph {problem}",
            where=f"{name} of {program.model}, after the pass {after!r}",
            remedy="report this as a bug in fxcache, with the model's configuration",
        )


def writes_cache(node: fx.Node) -> bool:
    """Return whether ``node`` writes to a buffer of the cache."""
    target = node.args[0] if node.target is torch.ops.aten.copy_.default else None
    return isinstance(target, fx.Node) and kind_of(target) is InputKind.BUFFER

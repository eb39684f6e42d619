"""What must hold of a graph after each pass. A failure is a defect of fxcache."""

from itertools import pairwise

from fxcache._torch import writes
from fxcache.errors import RewriteError
from fxcache.graph_inputs import ORDER, kind_of, sinks_of
from fxcache.program import output_node
from fxcache.rewrite.draft import Draft, Property


def verify(draft: Draft, name: str, after: str) -> None:
    """Check that the graph of ``draft`` is well formed, functional and complete.

    Args:
        draft: What a pass has changed.
        name: Of the graph, for errors.
        after: The name of the pass.

    Raises:
        RewriteError: It is not.
    """
    graph, program = draft.graph, draft.program
    graph.lint()
    read = [n.target for n in graph.find_nodes(op="get_attr")]
    missing = [w for w in read if w not in program.weights and w not in draft.weights]
    problem = f"reads weights the program does not have: {missing[:3]}" if missing else ""
    ranks = [ORDER.index(kind_of(node)) for node in graph.find_nodes(op="placeholder")]
    if any(first > second for first, second in pairwise(ranks)):
        problem = "takes inputs in another order than that of their kinds"
    writing = [n.name for n in graph.nodes if writes(n.target)]
    if writing:
        problem = f"writes to arguments: {writing[:3]}"
    (outputs,) = output_node(graph).args
    if len(sinks_of(graph)) != len(outputs):  # type: ignore[arg-type]
        problem = "returns other values than it says"
    if Property.NO_DEAD_NODES in draft.properties:
        nodes = (n for n in graph.nodes if n.op in ("call_function", "get_attr"))
        if dead := [n.name for n in nodes if not n.users]:
            problem = f"keeps values that nothing reads: {dead[:3]}"
    if problem:
        raise RewriteError(
            f"the graph {problem}",
            where=f"{name} of {program.model}, after the pass {after!r}",
            remedy="report this as a bug in fxcache, with the model's configuration",
        )

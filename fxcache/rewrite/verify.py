"""What must hold of every rewritten graph. A failure is a defect of fxcache."""

from collections.abc import Collection

from torch import fx

from fxcache._torch import writes
from fxcache.errors import RewriteError
from fxcache.program import Program, output_node


def verify(
    graph: fx.Graph, program: Program, name: str, num_outputs: int, added: Collection[str] = ()
) -> None:
    """RewriteError unless ``graph`` is well formed, functional, free of dead code and complete.

    ``num_outputs``: how many values it returns at least. ``added``: the weights that it may read
    besides the program's.
    """
    graph.lint()
    read = [n.target for n in graph.nodes if n.op == "get_attr"]
    missing = [w for w in read if w not in program.weights and w not in added]
    if missing:
        fail(name, f"reads weights the program does not have: {missing[:3]}")
    dead = [n.name for n in graph.nodes if not n.users and n.op in ("call_function", "get_attr")]
    if dead:
        fail(name, f"keeps values that nothing reads: {dead[:3]}")
    writing = [n.name for n in graph.nodes if writes(n.target)]
    if writing:
        fail(name, f"writes to arguments: {writing[:3]}")
    (outputs,) = output_node(graph).args
    if len(outputs) < num_outputs:  # type: ignore[arg-type]
        fail(name, "returns fewer values than the program")


def fail(name: str, what: str) -> None:
    raise RewriteError(
        f"the {name} variant {what}",
        where=f"rewrite of {name}",
        remedy="report this as a bug in fxcache, with the model's configuration",
    )

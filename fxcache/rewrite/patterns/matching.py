"""Helpers of patterns: they examine the nodes around a node, and replace it."""

import operator
from typing import Any

from torch import fx

from fxcache.analysis.cost import op_name
from fxcache.codecs.history import FORECAST
from fxcache.codecs.quantized_rows import RESTORED
from fxcache.graph_inputs import InputKind, source_of
from fxcache.operators import DTYPES
from fxcache.program import dtype_name, note_of, value_of
from fxcache.rewrite.patterns.pattern import UnfitError


def first_input(node: fx.Node) -> fx.Node:
    """Return the first input of ``node``; ``node`` itself if it has none."""
    return node.all_input_nodes[0] if node.all_input_nodes else node


def is_read(node: fx.Node) -> bool:
    """Return whether ``node`` is a cached value, or is forecast or restored from one."""
    if cached_point(node) is not None:
        return True
    return any(note_of(node, what) is not None for what in (FORECAST, RESTORED))


def cached_point(node: fx.Node) -> int | None:
    """Return the number of the cache point whose stored value ``node`` is; None for others."""
    source = source_of(node)
    if source is None or source.kind is not InputKind.CACHED:
        return None
    key: tuple[int, int] = source.key  # type: ignore[assignment] # a CACHED one's
    number, index = key
    return number if index == 0 and value_of(node).is_floating_point() else None


def only_user(node: fx.Node, name: str) -> fx.Node | None:
    """Return the only reader of ``node`` if it is this op without options; None otherwise."""
    user, *others = [*node.users] or [node]
    return None if others or op_name(user) != name or user.kwargs else user


def other_of(node: fx.Node, one: fx.Node) -> fx.Node | None:
    """Return the other operand of a binary op; None if it is not a tensor."""
    others = [arg for arg in node.args if arg is not one]
    return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """Return all arguments of an ATen op by name, including defaults."""
    declared: Any = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((a.name for a in declared), node.args, strict=False))
    return {a.name: a.default_value for a in declared} | given | node.kwargs


def require_one_dtype(*nodes: fx.Node | None) -> None:
    """Raise UnfitError unless all given nodes have one dtype, which kernels support."""
    found = {value_of(node).dtype for node in nodes if node is not None}
    if len(found) > 1 or not found <= set(DTYPES):
        names = ", ".join(sorted(map(dtype_name, found)))
        raise UnfitError(
            f"the dtypes are {names}; kernels need one of {', '.join(map(dtype_name, DTYPES))}"
        )


def read_again(graph: fx.Graph, value: fx.Node, norm: fx.Node, last: fx.Node) -> bool:
    """Return whether nodes other than ``norm`` read ``value``, all of them after ``last``."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    others = [user for user in value.users if user is not norm]
    return bool(others) and all(order[user] > order[last] for user in others)


def replace_with_piece(graph: fx.Graph, node: fx.Node, call: fx.Node, index: int) -> None:
    """Replace ``node`` by tensor ``index`` of the result of ``call``."""
    with graph.inserting_after(call):
        taken = graph.call_function(operator.getitem, (call, index))
    taken.meta = dict(node.meta)
    for user in [user for user in node.users if user is not call]:
        user.replace_input_with(node, taken)

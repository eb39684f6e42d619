"""Finds the tensors of the model that a graph writes to, and lets it use copies of them."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from fxcache._torch import Extent, is_vmapped, returns_new_memory, same_memory, written_arguments
from fxcache.call import Call
from fxcache.capture.holders import holders
from fxcache.capture.source import source_of
from fxcache.effect import Effect, Place
from fxcache.errors import CaptureError
from fxcache.program import is_tensor, value_of

LIFTS = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)


def copy_written(
    exported: ExportedProgram, module: nn.Module, names: Mapping[str, str]
) -> tuple[Effect, ...]:
    """Let the graph use copies of the weights and attributes of the module that it writes to.

    torch cannot make writes to memory functional that several of them share.

    Args:
        exported: The exported program.
        module: The module.
        names: The names of some weights, by their names in ``exported``.

    Returns:
        An effect for each of these weights and attributes.

    Raises:
        CaptureError: The graph writes to a tensor that outlives the call and is in no attribute.
    """
    places: list[Place] = []
    writes = Writes(exported)
    for _, tensor, placeholder in constants(exported):
        if not lifts(placeholder) and any(writes.to(placeholder)):
            found = list(holders(module, [tensor]))
            if not found:
                require_unwritten(writes.to(placeholder), "a tensor that other calls read")
            copy_first(placeholder)
            places += found
    for name, placeholder in weights(exported):
        if any(writes.to(placeholder)):
            copy_first(placeholder)
            places.append(Place.named(names.get(name, name)))
    return tuple(Effect(place, "", stores=True) for place in places)


def require_apart(call: Call, written: Collection[int]) -> None:
    """Raise CaptureError if an input that the model writes to shares its memory with another.

    Args:
        call: The call.
        written: The indices of the inputs that the model writes to.
    """
    extents = list(map(Extent.of, call.tensors)) if written else []
    used = Counter(extent.storage for extent in extents)
    for i in written:
        if used[extents[i].storage] == 1:
            continue
        others = (j for j, extent in enumerate(extents) if j != i and extents[i].meets(extent))
        if (other := next(others, None)) is not None:
            raise CaptureError(
                f"the model writes to {call.paths[i]}, which shares its memory with "
                f"{call.paths[other]}",
                where=call.paths[i],
                remedy="pass tensors that share no memory",
            )


class Writes:
    """The nodes of a graph, and of its inner graphs, that write to tensors in place."""

    def __init__(self, exported: ExportedProgram) -> None:
        """Find them."""
        self._written = [
            (node, tensor)
            for module in exported.graph_module.modules()
            if isinstance(module, fx.GraphModule)
            for node in module.graph.nodes
            for tensor in written_arguments(node)
            if is_tensor(tensor)
        ]

    def to(self, tensor: fx.Node) -> Iterator[fx.Node]:
        """Yield those that write to the memory of ``tensor``, a node of the outer graph."""
        for node, written in self._written:
            if same_memory(value_of(written), value_of(tensor)) and may_be_view(written, tensor):
                yield node


def may_be_view(node: fx.Node, tensor: fx.Node) -> bool:
    """Return whether ``node``, whose value seems to share memory with ``tensor``, may do so.

    Values inside vmap all seem to share memory. There, only the graph tells.
    """
    outer = node.graph is tensor.graph
    if not outer and is_vmapped(value_of(node)):
        return False
    seen, level = set[fx.Node](), [node]
    while level:
        one = level.pop()
        if one is tensor or (one.op == "placeholder" and not outer):
            return True
        if one not in seen and not returns_new_memory(one.target):
            level += one.all_input_nodes
        seen.add(one)
    return False


def copy_first(placeholder: fx.Node) -> None:
    """Let the graph use a copy of an input."""
    users, graph = list(placeholder.users), placeholder.graph
    following = next(node for node in graph.nodes if node.op != "placeholder")
    with graph.inserting_before(following):
        copied = graph.call_function(torch.ops.aten.clone.default, (placeholder,))
    copied.meta = dict(placeholder.meta)
    for user in users:
        user.replace_input_with(placeholder, copied)


def lifts(placeholder: fx.Node) -> list[fx.Node]:
    """Return the nodes that make a constant of the call from an input; none for an attribute."""
    return [user for user in placeholder.users if user.target in LIFTS]


def constants(exported: ExportedProgram) -> Iterator[tuple[str, Tensor, fx.Node]]:
    """The name, the value and the placeholder of each constant tensor."""
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.CONSTANT_TENSOR and spec.target in exported.constants:
            yield spec.target, exported.constants[spec.target], nodes[spec.arg.name]


def weights(exported: ExportedProgram) -> Iterator[tuple[str, fx.Node]]:
    """The name and the placeholder of each parameter and buffer."""
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    for spec in exported.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            yield str(spec.target), nodes[spec.arg.name]


def require_unwritten(nodes: Iterable[fx.Node], what: str) -> None:
    """Raise CaptureError if there is a node that writes to the memory that ``what`` names."""
    for node in nodes:
        raise CaptureError(
            f"forward writes to {what}",
            where=source_of(node),
            remedy="make a copy of the tensor first, with torch.tensor(array) or clone()",
        )

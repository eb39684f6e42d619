"""Tensors that share memory with NumPy arrays. A graph holds them as constants."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from fxcache._torch import (
    is_vmapped,
    returns_new_memory,
    same_memory,
    traced_constants,
    untraced,
    writes,
    written_arguments,
)
from fxcache.capture.holders import holders
from fxcache.capture.source import innermost, source_of
from fxcache.effect import Effect, Place
from fxcache.errors import CaptureError
from fxcache.program import is_tensor, value_of

LIFTS = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)
REMEDY = "make the tensor with torch.tensor(array), which copies it"


class FirstUse(NamedTuple):
    """The first use of a constant in a trace.

    Attributes:
        tensor: The constant.
        value: A copy of its value at the first use.
        line: The source line of the first use.
    """

    tensor: Tensor
    value: Tensor
    line: str


class ForeignMemory:
    """Watches the constants of a trace that share memory with other libraries.

    ``torch.from_numpy`` shares memory with its array. The graph holds the tensor as a constant and
    misses later writes by NumPy.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._first_uses: dict[str, FirstUse] = {}

    def observe(self) -> None:
        """Copy the constants that were added to the trace since the last call."""
        constants = traced_constants()
        if len(constants) == self._seen:
            return
        self._seen = len(constants)
        with untraced():
            for name, tensor in constants.items():
                if name not in self._first_uses and is_foreign(tensor):
                    line = innermost(traceback.extract_stack())
                    self._first_uses[name] = FirstUse(tensor, tensor.clone(), line)

    def require_unchanged(self) -> None:
        """Raise CaptureError if a constant has changed since its first use."""
        self.observe()
        with untraced():
            for use in self._first_uses.values():
                if not same_bits(use.tensor, use.value):
                    raise CaptureError(
                        "forward writes to a NumPy array after it has made a tensor from it",
                        where=use.line,
                        remedy=REMEDY,
                    )


def own_constants(
    exported: ExportedProgram, module: nn.Module, names: Mapping[str, str]
) -> tuple[Effect, ...]:
    """Replace the constants that ``forward`` makes from NumPy arrays by copies.

    The next call of ``forward`` may write other values to the array. Weights and attributes of the
    module that the graph writes to are replaced by copies too: torch cannot make writes to memory
    functional that several of them share.

    Returns:
        An effect for each of these weights and attributes.

    Raises:
        CaptureError: The graph writes to memory that outlives the call or that NumPy can read.
    """
    effects: list[Effect] = []
    for name, tensor, placeholder in constants(exported):
        lifted = [user for user in placeholder.users if user.target in LIFTS]
        if not lifted and any(writing_nodes(exported, [placeholder])):
            places = list(holders(module, [tensor]))
            if not places:
                require_unwritten(exported, [placeholder], "a tensor that other calls read")
            copy_first(placeholder)
            effects += [Effect(place, "", stores=True) for place in places]
        elif lifted and is_foreign(tensor):
            require_unwritten(exported, lifted, "memory that a tensor shares with a NumPy array")
            exported.constants[name] = tensor.clone()
    for name, placeholder in weights(exported):
        if any(writing_nodes(exported, [placeholder])):
            copy_first(placeholder)
            effects.append(Effect(Place.named(names.get(name, name)), "", stores=True))
    return tuple(effects)


def copy_first(placeholder: fx.Node) -> None:
    """Let the graph use a copy of an input."""
    users, graph = list(placeholder.users), placeholder.graph
    following = next(node for node in graph.nodes if node.op != "placeholder")
    with graph.inserting_before(following):
        copied = graph.call_function(torch.ops.aten.clone.default, (placeholder,))
    copied.meta = dict(placeholder.meta)
    for user in users:
        user.replace_input_with(placeholder, copied)


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


def require_unwritten(exported: ExportedProgram, tensors: Sequence[fx.Node], what: str) -> None:
    """Raise CaptureError if the graph writes to the memory of one of ``tensors``."""
    for node in writing_nodes(exported, tensors):
        raise CaptureError(
            f"forward writes to {what}",
            where=source_of(node),
            remedy="make a copy of the tensor first, with torch.tensor(array) or clone()",
        )


def writing_nodes(exported: ExportedProgram, tensors: Sequence[fx.Node]) -> Iterator[fx.Node]:
    """Yield the nodes that write to the memory of one of ``tensors``, also in inner graphs."""
    for module in exported.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            if writes(node.target) and any(writes_to(node, tensor) for tensor in tensors):
                yield node


def writes_to(node: fx.Node, tensor: fx.Node) -> bool:
    """Return whether the in-place operator ``node`` writes to the memory of ``tensor``."""
    return any(
        is_tensor(target)
        and same_memory(value_of(target), value_of(tensor))
        and (is_view_of(target, tensor) if target.graph is tensor.graph else not_vmapped(target))
        for target in written_arguments(node)
    )


def not_vmapped(node: fx.Node) -> bool:
    """Return whether the value of ``node`` has memory of its own, unlike values inside vmap."""
    return not is_vmapped(value_of(node))


def is_view_of(node: fx.Node, tensor: fx.Node) -> bool:
    """Return whether ``node`` comes from ``tensor`` through operators that may return views.

    Inside vmap, only the graph tells which values share memory.
    """
    seen, level = set[fx.Node](), [node]
    while level:
        one = level.pop()
        if one is tensor:
            return True
        if one not in seen and not returns_new_memory(one.target):
            level += one.all_input_nodes
        seen.add(one)
    return False


def is_foreign(tensor: Tensor) -> bool:
    """Whether another library owns the memory of ``tensor``, which torch then cannot resize."""
    return not tensor.is_meta and not tensor.untyped_storage().resizable()


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors of equal shape and dtype hold the same bits, including NaN."""
    pair = (t.contiguous().reshape(-1).view(torch.uint8) for t in (first, second))
    return torch.equal(*pair)

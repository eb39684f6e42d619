"""Tensors over the memory of NumPy arrays: in a graph they are constants, so nothing may change."""

import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from fxcache._torch import same_memory, traced_constants, untraced, writes
from fxcache.capture.source import innermost, source_of
from fxcache.errors import CaptureError
from fxcache.program import is_tensor, value_of

LIFTS = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)
REMEDY = "make the tensor with torch.tensor(array), which copies it"


class FirstUse(NamedTuple):
    """A constant of the graph, its value when the trace met it, and the source line of that."""

    tensor: Tensor
    value: Tensor
    line: str


class ForeignMemory:
    """The values of the constants that live in memory of other libraries, at their first use.

    ``torch.from_numpy`` shares memory with its array. The graph holds the tensor as a constant, and
    does not see what NumPy writes to it later.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._first_uses: dict[str, FirstUse] = {}

    def observe(self) -> None:
        """Copy the constants that the trace has met since the last time."""
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
        """CaptureError if one of the constants has another value than at its first use."""
        self.observe()
        with untraced():
            for use in self._first_uses.values():
                if not same_bits(use.tensor, use.value):
                    raise CaptureError(
                        "forward writes to a NumPy array after it has made a tensor from it",
                        where=use.line,
                        remedy=REMEDY,
                    )


def own_constants(exported: ExportedProgram) -> None:
    """Give the graph copies of the constants that ``forward`` made from NumPy arrays.

    The next call of ``forward`` may use the array for something else. Raises CaptureError if the
    graph writes to memory that outlives the call or that NumPy can read.
    """
    for name, tensor, placeholder in constants(exported):
        lifted = [user for user in placeholder.users if user.target in LIFTS]
        if not lifted:
            require_unwritten(exported, [placeholder], "a tensor that other calls read")
        elif is_foreign(tensor):
            require_unwritten(exported, lifted, "memory that a tensor shares with a NumPy array")
            exported.constants[name] = tensor.clone()


def constants(exported: ExportedProgram) -> Iterator[tuple[str, Tensor, fx.Node]]:
    """The name, the value and the placeholder of each constant tensor."""
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.CONSTANT_TENSOR and spec.target in exported.constants:
            yield spec.target, exported.constants[spec.target], nodes[spec.arg.name]


def require_unwritten(exported: ExportedProgram, tensors: Sequence[fx.Node], what: str) -> None:
    """CaptureError if the graph writes to the memory of one of ``tensors``."""
    for node in exported.graph.nodes:
        if writes(node.target) and any(writes_to(node, tensor) for tensor in tensors):
            raise CaptureError(
                f"forward writes to {what}",
                where=source_of(node),
                remedy="make a copy of the tensor first, with torch.tensor(array) or clone()",
            )


def writes_to(node: fx.Node, tensor: fx.Node) -> bool:
    """Whether ``node``, which writes, writes to the memory of ``tensor``."""
    written = [node.kwargs.get("out"), *node.args[:1]]
    return any(
        isinstance(target, fx.Node)
        and is_tensor(target)
        and same_memory(value_of(target), value_of(tensor))
        for target in written
    )


def is_foreign(tensor: Tensor) -> bool:
    """Whether another library owns the memory of ``tensor``: torch cannot resize it."""
    return not tensor.is_meta and not tensor.untyped_storage().resizable()


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one shape and dtype hold the same bits, NaN included."""
    pair = (t.contiguous().reshape(-1).view(torch.uint8) for t in (first, second))
    return torch.equal(*pair)

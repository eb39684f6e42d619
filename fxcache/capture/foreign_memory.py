"""Tensors that share memory with NumPy arrays. A graph holds them as constants."""

import traceback
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from fxcache._torch import traced_constants, untraced
from fxcache.capture.holders import holders
from fxcache.capture.source import innermost, source_of
from fxcache.capture.written import Writes, copy_first
from fxcache.effect import Effect, Place
from fxcache.errors import CaptureError

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
    places: list[Place] = []
    writes = Writes(exported)
    for name, tensor, placeholder in constants(exported):
        lifted = [user for user in placeholder.users if user.target in LIFTS]
        if not lifted and any(writes.to(placeholder)):
            found = list(holders(module, [tensor]))
            if not found:
                require_unwritten(writes.to(placeholder), "a tensor that other calls read")
            copy_first(placeholder)
            places += found
        elif lifted and is_foreign(tensor):
            written = chain.from_iterable(map(writes.to, lifted))
            require_unwritten(written, "memory that a tensor shares with a NumPy array")
            exported.constants[name] = tensor.clone()
    for name, placeholder in weights(exported):
        if any(writes.to(placeholder)):
            copy_first(placeholder)
            places.append(Place.named(names.get(name, name)))
    return tuple(Effect(place, "", stores=True) for place in places)


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


def is_foreign(tensor: Tensor) -> bool:
    """Whether another library owns the memory of ``tensor``, which torch then cannot resize."""
    return not tensor.is_meta and not tensor.untyped_storage().resizable()


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors of equal shape and dtype hold the same bits, including NaN."""
    pair = (t.contiguous().reshape(-1).view(torch.uint8) for t in (first, second))
    return torch.equal(*pair)

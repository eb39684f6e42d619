"""The function that torch.export traces: it wraps ``forward`` and takes and returns tensors only.

torch.export accepts tensors in dicts and lists. This function turns them back into the arguments of
``forward``: it restores ``*args`` and builds state objects from their tensors. It returns the
tensors in the state objects after the call, and in objects that the call returns, as further
outputs.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxcache._torch import TreeSpec, same_memory, tree_flatten
from fxcache.call import NUMBER, STATE, Call, Rebuilt, require_no_dtensors
from fxcache.capture.effects import Effects
from fxcache.capture.numbers import NumberTrace
from fxcache.capture.substitute import Substitute
from fxcache.contents import PLAIN
from fxcache.errors import CaptureError
from fxcache.leaves import named_leaves
from fxcache.objects import Container, Part, TensorAt, Walk
from fxcache.program import StateChange, output_node

VALUES = (Tensor, *PLAIN)  # leaves of a result that are no objects


class Boundary:
    """One traced call of ``module``.

    The graph returns the leaves of the module's result, then the last value of each state tensor,
    then each tensor that the call adds to the state objects or returns inside an object, then each
    that it stores in Python objects of the module.

    Attributes:
        out_spec: The structure of the module's result; None before the trace.
        objects: The structure of each state object after the call; empty before the trace.
        returned: The structure of each object in the result, by its index among the leaves.
        effects: What the call changes in Python objects of the module; nothing before the trace.
    """

    def __init__(self, module: nn.Module, call: Call):
        self._call = call
        self._forward = module.forward
        self.out_spec: TreeSpec | None = None
        self.objects: tuple[Part, ...] = ()
        self.returned: dict[int, Part] = {}
        self.effects = Effects()

    def run(self, exported: dict[str, Any]) -> list[Any]:
        """Return the flat outputs of the call for arguments in the form of ``Call.exported``."""
        call, numbers = self._call, exported.pop(NUMBER, [])
        # The model may write to a copy in place; torch.export refuses writes to an input.
        state = [tensor.clone() for tensor in exported.pop(STATE, [])]
        tensors = [t for _, t in named_leaves(exported) if isinstance(t, Tensor)] + state
        recorded = isinstance(call.trace, NumberTrace)
        number = numbers[0] if numbers and not recorded else call.number
        rebuilt = call.rebuilt(tensors, number)
        with Substitute(call.trace, numbers) if recorded else nullcontext():
            result = self._forward(*rebuilt.args, **rebuilt.kwargs)
        leaves, self.out_spec = tree_flatten(result)
        require_no_dtensors({f"result {i}": leaf for i, leaf in enumerate(leaves)})
        results = {i: leaf for i, leaf in enumerate(leaves) if not isinstance(leaf, VALUES)}
        added = self._added_tensors(rebuilt, tensors, results)
        leaves = [None if i in results else leaf for i, leaf in enumerate(leaves)]
        return [*leaves, *state, *added, *self.effects.find()]

    def _added_tensors(
        self, rebuilt: Rebuilt, tensors: list[Tensor], results: dict[int, Any]
    ) -> list[Tensor]:
        """Return the tensors that the call added to the state objects, or returns in objects."""
        origins = {id(value): number for number, value in enumerate(rebuilt.containers)}
        after = Walk(list(tensors), origins)
        self.objects = tuple(after.part(value, path) for path, value in rebuilt.objects.items())
        self.returned = {i: after.part(value, f"result {i}") for i, value in results.items()}
        added = after.tensors[len(tensors) :]
        first_state = len(tensors) - len(self._call.state.tensors)
        parts = (*self.objects, *self.returned.values())
        indices = {i for part in parts for i in tensor_indices(part) if i >= first_state}
        in_state = [after.tensors[i] for i in indices]
        for path, tensor in zip(after.paths, added, strict=True):
            if any(other is not tensor and same_memory(other, tensor) for other in in_state):
                raise CaptureError(
                    f"{path} shares its memory with another tensor of the state objects",
                    where=path,
                    remedy="change the model so that it stores a copy there: .clone()",
                )
        return added


def state_change(
    boundary: Boundary, graph: fx.Graph, call: Call, written: Mapping[int, fx.Node]
) -> StateChange | None:
    """Return what the traced call writes: to its arguments and state objects, and new objects.

    Removes the outputs of ``graph`` that are state tensors which the call does not write.

    Args:
        boundary: The traced call.
        graph: Its graph, which returns what the boundary returns.
        call: The call.
        written: The last value of each argument that the call writes in place, by the index of the
            input.
    """
    if not call.state and not boundary.returned and not written:
        return None
    assert boundary.out_spec is not None
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    count = len(call.state.tensors)
    first = next((i for i, p in enumerate(call.paths) if p in call.state.paths), 0)
    results: list[Any] = list(output_node(graph).args[0])  # type: ignore[arg-type]
    start = boundary.out_spec.num_leaves
    state = enumerate(results[start : start + count], first)
    changed = {i: value for i, value in state if value is not inputs[i]} | dict(written)
    new_results = [*results[:start], *changed.values(), *results[start + count :]]
    output_node(graph).args = (tuple(new_results),)
    return StateChange(boundary.objects, tuple(changed), boundary.returned)


def remove_copies(graph: fx.Graph, call: Call) -> None:
    """Replace the copies of state tensors by the tensors: the graph is functional by now."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    pairs = zip(inputs, call.paths, strict=True)
    for node in (node for node, path in pairs if path in call.state.paths):
        for user in list(node.users):
            if user.target is torch.ops.aten.clone.default and not user.kwargs:
                user.replace_all_uses_with(node)
                graph.erase_node(user)


def tensor_indices(part: Part) -> Iterator[int]:
    """The indices of the tensors in ``part``."""
    if isinstance(part, TensorAt):
        yield part.index
    elif isinstance(part, Container):
        for item in part.items:
            yield from tensor_indices(item)

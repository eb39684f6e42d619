"""The function that torch.export traces: it wraps ``forward`` and takes and returns tensors only.

torch.export accepts tensors in dicts and lists. This function turns them back into the arguments of
``forward``: it restores ``*args`` and builds state objects from their tensors. It returns the
tensors in the state objects after the call, and in objects that the call returns, as further
outputs.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxcache._torch import TreeSpec, same_memory, tree_flatten, unnoticed_buffers
from fxcache.call import NUMBER, STATE, Call, require_no_dtensors
from fxcache.capture.effects import Effects
from fxcache.capture.numbers import NumberTrace
from fxcache.capture.substitute import Substitute
from fxcache.contents import PLAIN
from fxcache.effect import Place
from fxcache.errors import CaptureError
from fxcache.kept import Access, access, part_at
from fxcache.leaves import named_leaves
from fxcache.objects import Part, Walk, tensor_indices
from fxcache.program import StateChange, output_node

VALUES = (Tensor, *PLAIN)  # leaves of a result that are no objects


class Boundary:
    """One traced call of ``module``.

    The graph returns the leaves of the module's result, then the last value of each state tensor,
    then each tensor that the call adds to the state objects or returns inside an object, then each
    that it stores in Python objects of the module.

    Attributes:
        module: The module.
        out_spec: The structure of the module's result; None before the trace.
        objects: The structure of each state object after the call; empty before the trace.
        returned: The structure of each object in the result, by its index among the leaves.
        kept: The structure of each attribute of the model in which the call replaces tensors.
        effects: What the call changes in Python objects of the module; nothing before the trace.
    """

    def __init__(self, module: nn.Module, call: Call):
        self._call = call
        self.module, self._forward = module, module.forward
        self.out_spec: TreeSpec | None = None
        self.objects: tuple[Part, ...] = ()
        self.returned: dict[int, Part] = {}
        self.kept: dict[Place, Part] = {}
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
        self.effects.begin(self.module)
        with Substitute(call.trace, numbers) if recorded else nullcontext(), unnoticed_buffers():
            result = rebuilt.run(self.module, self._forward)
        leaves, self.out_spec = tree_flatten(result)
        require_no_dtensors({f"result {i}": leaf for i, leaf in enumerate(leaves)})
        results = {i: leaf for i, leaf in enumerate(leaves) if not isinstance(leaf, VALUES)}
        origins = {id(value): number for number, value in enumerate(rebuilt.containers)}
        after = Walk(list(tensors), origins)
        self.objects = tuple(after.part(value, path) for path, value in rebuilt.objects.items())
        self.returned = {i: after.part(value, f"result {i}") for i, value in results.items()}
        self._require_own_memory(after, tensors)
        accesses = self._accesses(after)
        self.kept = self._replaced(accesses, after, origins, rebuilt.objects, results)
        added = after.tensors[len(tensors) :]
        leaves = [None if i in results else leaf for i, leaf in enumerate(leaves)]
        return [*leaves, *state, *added, *self.effects.find(accesses)]

    def _require_own_memory(self, after: Walk, tensors: list[Tensor]) -> None:
        """Raise CaptureError if a tensor that the call added shares its memory with another."""
        first_state = len(tensors) - len(self._call.state.tensors)
        parts = (*self.objects, *self.returned.values())
        indices = {i for part in parts for i in tensor_indices(part) if i >= first_state}
        in_state = [after.tensors[i] for i in indices]
        for path, tensor in zip(after.paths, after.tensors[len(tensors) :], strict=True):
            if any(other is not tensor and same_memory(other, tensor) for other in in_state):
                raise CaptureError(
                    f"{path} shares its memory with another tensor of the state objects",
                    where=path,
                    remedy="change the model so that it stores a copy there: .clone()",
                )

    def _accesses(self, after: Walk) -> dict[Place, Access]:
        """Return what the call did to the attributes that count as state objects."""
        found, before = {}, self._call.tensors
        for place, part in self._call.state.kept:
            now = self._part_now(place, after)
            found[place] = access(part, now, before, after.tensors)
        return found

    def _replaced(
        self, accesses: Mapping[Place, Access], after: Walk, origins: dict[int, int], *first: Any
    ) -> dict[Place, Part]:
        """Return the structures of the attributes in which the call replaced tensors.

        They count the containers as the ``Build`` does, which visits no others.
        """
        walk = Walk(list(after.tensors), origins)
        for objects in first:
            for path, value in objects.items():
                walk.part(value, str(path))
        found = {}
        for place, kind in accesses.items():
            if kind is Access.REPLACED and (now := self._part_now(place, walk)) is not None:
                found[place] = now
        return found

    def _part_now(self, place: Place, after: Walk) -> Part | None:
        """Return the structure of an attribute; None if it is no state object any more."""
        try:
            return part_at(self.module, place, after)
        except CaptureError:
            return None


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
    if not any((call.state.objects, boundary.returned, boundary.kept, changed)):
        return None  # it only reads what the model keeps
    return StateChange(boundary.objects, tuple(changed), boundary.returned, boundary.kept)


def remove_copies(graph: fx.Graph, call: Call) -> None:
    """Replace the copies of state tensors by the tensors: the graph is functional by now."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    pairs = zip(inputs, call.paths, strict=True)
    for node in (node for node, path in pairs if path in call.state.paths):
        for user in list(node.users):
            if user.target is torch.ops.aten.clone.default and not user.kwargs:
                user.replace_all_uses_with(node)
                graph.erase_node(user)

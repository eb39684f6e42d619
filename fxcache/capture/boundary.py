"""The function that torch.export traces: around the model's forward, tensors in, tensors out.

torch.export takes tensors in dicts and lists. Here arguments find their way back to ``*args``,
state objects are built from their tensors, and what the call leaves in them becomes outputs.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxcache._torch import TreeSpec, same_memory, tree_flatten
from fxcache.call import NUMBER, STATE, Call, named_leaves
from fxcache.capture.numbers import NumberTrace
from fxcache.capture.substitute import Substitute
from fxcache.errors import CaptureError
from fxcache.objects import Container, Part, TensorAt, Walk
from fxcache.program import StateChange


class Boundary:
    """One traced call of ``module``.

    After the trace, ``out_spec`` describes what the module returned, and ``objects`` what it left
    in the state objects. The graph returns the leaves of the former, the last value of each state
    tensor, and the tensors that the objects hold besides.
    """

    def __init__(self, module: nn.Module, call: Call):
        self._call = call
        self._forward = module.forward
        self.out_spec: TreeSpec | None = None
        self.objects: tuple[Part, ...] = ()

    def run(self, taken: dict[str, Any]) -> list[Any]:
        """The flat outputs of the call, for what ``Call.exported`` describes."""
        call, numbers = self._call, taken.pop(NUMBER, [])
        # Written in place, a copy becomes an output; an input would be refused.
        state = [tensor.clone() for tensor in taken.pop(STATE, [])]
        tensors = [t for _, t in named_leaves(taken) if isinstance(t, Tensor)] + state
        recorded = isinstance(call.trace, NumberTrace)
        number = numbers[0] if numbers and not recorded else call.number
        given = call.rebuilt(tensors, number)
        with Substitute(call.trace, numbers) if recorded else nullcontext():
            result = self._forward(*given.args, **given.kwargs)
        leaves, self.out_spec = tree_flatten(result)
        return [*leaves, *state, *self._left(given.objects, tensors, given.containers)]

    def _left(
        self, objects: dict[str, Any], tensors: list[Tensor], containers: list[Any]
    ) -> list[Tensor]:
        """The tensors that the objects hold now, besides those that came in."""
        origins = {id(value): number for number, value in enumerate(containers)}
        after = Walk(list(tensors), origins)
        self.objects = tuple(after.part(value, path) for path, value in objects.items())
        made = after.tensors[len(tensors) :]
        first_state = len(tensors) - len(self._call.state.tensors)
        indices = {i for part in self.objects for i in held_by(part) if i >= first_state}
        held = [after.tensors[i] for i in indices]
        for path, tensor in zip(after.paths, made, strict=True):
            if any(other is not tensor and same_memory(other, tensor) for other in held):
                raise CaptureError(
                    f"{path} shares its memory with another tensor of the state objects",
                    where=path,
                    remedy="make the model keep a copy there: .clone()",
                )
        return made


def state_change(boundary: Boundary, graph: fx.Graph, call: Call) -> StateChange | None:
    """What the traced call leaves in its objects; ``graph`` returns no tensor that it only read."""
    if not call.state:
        return None
    assert boundary.out_spec is not None
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    count = len(call.state.tensors)
    first = next((i for i, p in enumerate(call.paths) if p in call.state.paths), 0)
    (output,) = (node for node in graph.nodes if node.op == "output")
    results: list[Any] = list(output.args[0])
    start = boundary.out_spec.num_leaves
    last = results[start : start + count]
    written = [i for i, value in enumerate(last) if value is not inputs[first + i]]
    kept = results[:start] + [last[i] for i in written] + results[start + count :]
    output.args = (tuple(kept),)
    return StateChange(boundary.objects, tuple(first + i for i in written))


def remove_copies(graph: fx.Graph, call: Call) -> None:
    """Read state tensors themselves, in place of the copies that the model might have written."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    pairs = zip(inputs, call.paths, strict=True)
    for node in (node for node, path in pairs if path in call.state.paths):
        for user in list(node.users):
            if user.target is torch.ops.aten.clone.default and not user.kwargs:
                user.replace_all_uses_with(node)
                graph.erase_node(user)


def held_by(part: Part) -> Iterator[int]:
    """The numbers of the tensors in ``part``."""
    if isinstance(part, TensorAt):
        yield part.index
    elif isinstance(part, Container):
        for item in part.items:
            yield from held_by(item)

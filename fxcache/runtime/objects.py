"""Makes the module's result from the outputs of a graph, and updates state objects."""

from typing import Any

import torch

from fxcache._torch import tree_unflatten
from fxcache.call import Call
from fxcache.capture.written import require_apart
from fxcache.objects import Build
from fxcache.program import Program


def returned(call: Call, outputs: list[Any], program: Program) -> Any:
    """Return the module's result from the graph's ``outputs``, and update state objects.

    Objects, lists and dicts of the caller keep their identity. So do the tensors that the call did
    not replace. Tensors that the call wrote in place are written in place.
    """
    if program.state is None and program.returns_tuple:  # pipelines pass return_dict=False
        return tuple(outputs)
    count = program.out_spec.num_leaves
    leaves = outputs[:count]
    if program.state is None:
        return tree_unflatten(leaves, program.out_spec)
    change, values = program.state, outputs[count:]
    number = len(change.written)
    # State objects may share tensors, which the walk through them has noticed.
    require_apart(call, [i for i in change.written if call.paths[i] not in call.state.paths])
    with torch.no_grad():
        for index, value in zip(change.written, values[:number], strict=True):
            call.tensors[index].copy_(value)
    inputs = call.tensors[: len(call.tensors) - call.num_numbers]
    build = Build((*inputs, *values[number:]), call.state.containers)
    for part in change.objects:
        build.value(part)
    for index, part in change.returned.items():
        leaves[index] = build.value(part)
    for place, part in change.kept.items():
        call.state.owners[place][place.name] = build.value(part)
    return tree_unflatten(leaves, program.out_spec)

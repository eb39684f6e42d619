"""Translates graphs to ONNX with torch.onnx."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)

# Why: torch.export flattens inputs and outputs with this pytree, which has no public name.
from torch.utils._pytree import tree_flatten

__all__ = ["exported_program", "onnx_model"]


def exported_program(graph: fx.Graph, weights: Mapping[str, Tensor]) -> ExportedProgram:
    """Return ``graph`` as torch.export would have returned it.

    Why: tracing the graph again takes longer, and needs sizes that are names or multiples of one
    name. A cached value may have a size such as ``2*((height - 1)//2) + 2``. The constructor of
    ``ExportedProgram`` is public; what its arguments must contain is not documented.

    Args:
        graph: A functional graph, whose ``meta["val"]`` are fake tensors. Its ``get_attr`` nodes
            name ``weights``, and it returns a tuple of nodes.
        weights: The weights by name.
    """
    lifted, nodes, read = fx.Graph(), dict[fx.Node, fx.Node](), dict[str, fx.Node]()
    inputs: list[InputSpec] = []
    for node in graph.find_nodes(op="get_attr"):
        name = str(node.target)
        if name not in read:
            read[name] = placeholder = lifted.placeholder(node.name)
            placeholder.meta = dict(node.meta)
            argument = TensorArgument(placeholder.name)
            inputs.append(InputSpec(InputKind.BUFFER, argument, name, persistent=True))
        nodes[node] = read[name]
    for node in graph.nodes:
        if node not in nodes:
            nodes[node] = lifted.node_copy(node, nodes.__getitem__)
    users = [TensorArgument(nodes[n].name) for n in graph.find_nodes(op="placeholder")]
    inputs += [InputSpec(InputKind.USER_INPUT, argument, None) for argument in users]
    (returned,) = next(iter(lifted.find_nodes(op="output"))).args
    results = [TensorArgument(node.name) for node in returned]
    outputs = [OutputSpec(OutputKind.USER_OUTPUT, argument, None) for argument in results]
    arguments, structure = tree_flatten((tuple(users), {}))[1], tree_flatten(tuple(results))[1]
    called = ModuleCallSignature([*users], [*results], arguments, structure)
    return ExportedProgram(
        root=nn.Module(),
        graph=lifted,
        graph_signature=ExportGraphSignature(inputs, outputs),
        state_dict={name: weights[name].detach() for name in read},
        range_constraints={},
        module_call_graph=[ModuleCallEntry("", called)],
    )


def onnx_model(program: ExportedProgram) -> Any:
    """Return ``program`` as an ``onnx_ir.Model``.

    Raises:
        torch.onnx.OnnxExporterError: An operator has no translation.
    """
    with quiet():
        made = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)
    assert made is not None
    return made.model


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what torch.onnx reports about itself.

    Why: it logs a warning for each operator of torchvision if that is not installed, and torch 2.13
    copies its own deprecated ``LeafSpec``. Neither is about the model.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)

"""Graphs in the form that torch.onnx translates."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fxcache._torch import exported_program, onnx_model
from fxcache.deploy.weights import require_plain
from fxcache.errors import ArtifactError
from fxcache.program import copy_graph, output_node, value_of

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
CLONE = torch.ops.aten.clone.default
UNSQUEEZE, SQUEEZE = torch.ops.aten.unsqueeze.default, torch.ops.aten.squeeze.dim
OPERATOR = re.compile(r"target=torch\.ops\.([\w.]+)")
COLOUR = re.compile("\x1b\\[[0-9;]*m")


def translated(module: fx.GraphModule, model: str) -> Any:
    """Return a variant as an ``onnx_ir.Model``, without results that are None.

    Args:
        module: The variant.
        model: The class name of the model, for errors.

    Raises:
        ArtifactError: ONNX has no counterpart for an operator or a weight. The error names it.
    """
    graph, _ = copy_graph(module.graph)
    own_results(graph, model)
    drop_no_op_squeezes(graph)
    add_heads(graph)
    read = (str(node.target) for node in graph.find_nodes(op="get_attr"))
    weights = {name: getattr(module, name) for name in read}
    for name, weight in weights.items():
        require_tensor(name, weight, model)
    try:
        return onnx_model(exported_program(graph, weights))
    except torch.onnx.OnnxExporterError as error:
        raise untranslatable(error, model) from error


def own_results(graph: fx.Graph, model: str) -> None:
    """Let the graph return computed tensors only: without None, and copies of weights."""
    output = output_node(graph)
    (values,) = output.args
    assert isinstance(values, Sequence)
    numbers = [value for value in values if not isinstance(value, fx.Node) and value is not None]
    if numbers:
        raise ArtifactError(
            f"{model} returns {numbers[0]!r}, which is no tensor",
            where="fxcache.export_onnx",
            remedy="let the model return tensors only",
        )
    with graph.inserting_before(output):
        tensors = [copied(graph, value) for value in values if value is not None]
    output.args = (tuple(tensors),)


def copied(graph: fx.Graph, node: Any) -> Any:
    """Return a copy of ``node`` if it is a weight, which torch.export cannot return."""
    if node.op != "get_attr":
        return node
    copy = graph.call_function(CLONE, (node,))
    copy.meta = dict(node.meta)
    return copy


def drop_no_op_squeezes(graph: fx.Graph) -> None:
    """Remove squeezes of dimensions whose size is not 1, which ONNX refuses."""
    for node in graph.find_nodes(op="call_function", target=SQUEEZE):
        source = node.args[0]
        assert isinstance(source, fx.Node)
        if value_of(node).dim() == value_of(source).dim():
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def add_heads(graph: fx.Graph) -> None:
    """Let attention have four dimensions, which torch.onnx requires.

    Before: ``attention(q, k, v)`` of ``[B, L, E]``. After: the same of ``[B, 1, L, E]``, squeezed.
    """
    for node in graph.find_nodes(op="call_function", target=ATTENTION):
        if value_of(node).dim() != 3:
            continue
        with graph.inserting_before(node):
            tensors = [with_head_dim(graph, value) for value in node.args[:4]]
        node.args = (*tensors, *node.args[4:])
        if "attn_mask" in node.kwargs:  # else it is the fourth argument, or there is none
            mask = with_head_dim(graph, node.kwargs["attn_mask"])
            node.kwargs = {**node.kwargs, "attn_mask": mask}
        wide = value_of(node).unsqueeze(1)
        with graph.inserting_after(node):
            narrow = graph.call_function(SQUEEZE, (node, 1))
        narrow.meta = dict(node.meta)
        node.replace_all_uses_with(narrow, delete_user_cb=lambda user, own=narrow: user is not own)
        node.meta = {**node.meta, "val": wide}


def with_head_dim(graph: fx.Graph, value: Any) -> Any:
    """Return ``value`` with a dimension for one head, if it is a tensor of three dimensions."""
    if not isinstance(value, fx.Node) or value_of(value).dim() != 3:
        return value
    wide = graph.call_function(UNSQUEEZE, (value, 1))
    wide.meta = {**value.meta, "val": value_of(value).unsqueeze(1)}
    return wide


def require_tensor(name: str, weight: Any, model: str) -> None:
    """Raise ArtifactError unless ``weight`` is a dense tensor of values."""
    if not isinstance(weight, Tensor):
        raise ArtifactError(
            f"the graph of {model} has a region of its own ({name}), which ONNX export lacks",
            where="fxcache.export_onnx",
            remedy="use plain attention and no autocast inside the model, or use fxcache.export",
        )
    require_plain(name, weight, stored=True)


def untranslatable(error: BaseException, model: str) -> ArtifactError:
    """Return the error for a graph that torch.onnx refused. It names the operator."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    found = (OPERATOR.search(str(cause)) for cause in causes)
    operator = next((match[1] for match in found if match), "an operator")
    reason = (COLOUR.sub("", str(causes[-1])).strip().splitlines() or [""])[0]
    return ArtifactError(
        f"torch.onnx cannot translate {operator} of {model}: {reason[:200]}",
        where="fxcache.export_onnx",
        remedy="compute it with other operators, or use fxcache.export",
    )

"""Exact counts of the kernels that Inductor would launch on a GPU. No GPU is needed."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fxcache._torch import hint_of
from fxcache.forecasts.forecast import MAX_ORDER
from fxcache.graph_inputs import InputKind
from fxcache.integrations.diffusers import installed
from fxcache.program import value_of
from fxcache.rewrite.variant import Variant
from fxcache.rewrite.variants import Variants

META = torch.device("meta")
NEEDED = "triton"


def launches_of(variants: Variants) -> dict[str, Any]:
    """Return the kernels that Inductor would launch for each graph on an NVIDIA GPU.

    Graphs that write to their inputs are left out: torch's build for the CPU cannot trace them for
    a GPU.

    Raises:
        ModelFileError: Triton is not installed.
    """
    installed(NEEDED, "gate")
    graphs = sorted(variants.named_graphs().items())
    with warnings.catch_warnings(action="ignore"):  # of Inductor's own imports
        return {name: decided(variants, v) for name, v in graphs if not v.buffers}


def decided(variants: Variants, variant: Variant) -> dict[str, int]:
    """Return how many kernels Inductor would launch for one graph, and the bytes that they move."""
    from fxcache._torch.fake_gpu import compiled, on_fake_gpu

    kernels = []
    if computes(variant.module.graph):
        called = on_fake_gpu(on_meta(variant.module), inputs_of(variants, variant))
        kernels = compiled(called).kernels
    return {"launches": len(kernels), "bytes": sum(kernel.nbytes for kernel in kernels)}


def computes(graph: fx.Graph) -> bool:
    """Return whether a graph calls any operator. A prologue may have nothing to compute."""
    return any(node.op == "call_function" for node in graph.nodes)


def inputs_of(variants: Variants, variant: Variant) -> list[Any]:
    """Return the inputs of a graph on meta. Coefficients and moments have no recorded value."""
    points = variants.plan.points
    nodes = variant.module.graph.find_nodes(op="placeholder")
    values = [like(value_of(node)) for node in nodes]
    for index, spec in enumerate(variant.signature.inputs):
        if spec.source.kind is InputKind.COEFFICIENT:
            values[index] = torch.empty(len(points), MAX_ORDER, device=META)
    count = len(variant.signature.moments)
    moments = [m.of(like(value_of(points[m.point].value))) for m in variant.signature.moments]
    return values[: len(values) - count] + moments


def on_meta(module: fx.GraphModule) -> fx.GraphModule:
    """Copy a graph to the meta device, with the strides of its weights."""
    graph = copy.deepcopy(module.graph)
    for node in graph.nodes:
        if node.kwargs.get("device") is not None:
            node.update_kwarg("device", META)
    names = {str(node.target) for node in graph.find_nodes(op="get_attr")}
    return fx.GraphModule({name: like(getattr(module, name)) for name in names}, graph)


def like(value: Any) -> Any:
    """Return a tensor on meta with the sizes and strides of ``value``; other values unchanged."""
    if not isinstance(value, Tensor):
        return value
    shape, stride = sizes_of(value.shape), sizes_of(value.stride())
    return torch.empty_strided(shape, stride, dtype=value.dtype, device=META)


def sizes_of(sizes: Sequence[Any]) -> list[int]:
    """Return sizes as ints. Sizes that vary are those at capture."""
    return [int(hint_of(size) or 0) for size in sizes]

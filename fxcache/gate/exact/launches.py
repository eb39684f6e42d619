"""Exact counts of the kernels that Inductor would launch on a GPU. No GPU is needed."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fxcache._torch import hint_of
from fxcache.integrations.diffusers import installed
from fxcache.program import value_of
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
    from fxcache._torch.fake_gpu import compiled, on_fake_gpu

    found = {}
    for name, variant in sorted(variants.named_graphs().items()):
        if variant.buffers:
            continue
        inputs = [like(value_of(n)) for n in variant.module.graph.find_nodes(op="placeholder")]
        kernels = compiled(on_fake_gpu(on_meta(variant.module), inputs)).kernels
        found[name] = {"launches": len(kernels), "bytes": sum(k.nbytes for k in kernels)}
    return found


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

"""Exact counts of the graphs of an optimised model: FLOPs, bytes, nodes, operators and kernels."""

from collections import Counter
from importlib import import_module
from typing import Any

from torch import fx

from fxcache.analysis.traffic import bytes_moved
from fxcache.rewrite.variants import Variants


def graphs_of(variants: Variants) -> dict[str, Any]:
    """Return the counts of each graph by its name.

    FLOPs are those of the whole step, two per multiply-add. A part of a step has no FLOPs of its
    own here.
    """
    return {
        name: {
            "flops": variant.flops,
            "bytes": bytes_moved(variant.module.graph),
            "nodes": len(variant.module.graph.nodes),
            "operators": operators_of(variant.module.graph),
        }
        for name, variant in sorted(variants.named_graphs().items())
    }


def operators_of(graph: fx.Graph) -> dict[str, int]:
    """Return how often the graph calls each operator, by name."""
    calls = Counter(name_of(node.target) for node in graph.nodes if node.op == "call_function")
    return dict(sorted(calls.items()))


def name_of(target: Any) -> str:
    """Return the name of an operator, such as ``aten.add.Tensor``, or of a function."""
    name = str(target)
    return getattr(target, "__name__", name) if name.startswith("<") else name


def fusions_of(variants: Variants) -> dict[str, int]:
    """Count the places where a Triton kernel runs, or could run, by kernel and reason."""
    found = Counter(
        f"{fusion.kernel}: {fusion.why_not or 'runs'}"
        for fusions in variants.fusions.values()
        for fusion in fusions
    )
    return dict(sorted(found.items()))


def kernel_resources(variants: Variants) -> dict[str, Any]:
    """Return the registers, spills and shared memory of the Triton kernels that run.

    They are those of the GPUs and the examples of ``fxcache.kernels.binaries``: as recorded there,
    or compiled if the record is of other sources or of another Triton.
    """
    running = {f.kernel for fusions in variants.fusions.values() for f in fusions if not f.why_not}
    if not running:
        return {}
    return {kernel: resources_of(kernel) for kernel in sorted(running)}


def resources_of(kernel: str) -> Any:
    """Return the resources of one kernel. Its modules import Triton."""
    found = import_module("fxcache.kernels.recorded").recorded(kernel)
    if found.current and found.is_of_this_triton:
        return found.resources
    return import_module("fxcache.kernels.binaries").found(kernel)

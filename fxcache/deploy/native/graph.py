"""Describes a compiled graph: its inputs, outputs and weights, and what identifies it."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from fxcache._torch import hint_of
from fxcache.deploy.weights import order_of
from fxcache.errors import ArtifactError
from fxcache.graph_inputs import InputKind
from fxcache.program import Program, dtype_name, value_of
from fxcache.rewrite.graph_module import weight_names
from fxcache.rewrite.variant import Variant
from fxcache.rewrite.variant_signature import TensorSpec


def digest_of(module: fx.GraphModule) -> str:
    """Return a SHA-256 that is equal for two graphs exactly if they compute the same.

    It covers the operators, their arguments, the names of the weights, and the inputs' shapes,
    dtypes, strides and types of device. The same graph on another GPU has the same digest.
    """
    return hashlib.sha256("\n".join(lines_of(module)).encode()).hexdigest()


def lines_of(module: fx.GraphModule) -> Iterator[str]:
    """Yield a line for each node, and the lines of regions."""
    names = module.meta.get("weight_names", {})
    for node in module.graph.nodes:
        target = str(names.get(node.target, node.target))
        if callable(node.target) and " at 0x" in target:
            target = f"{node.target.__module__}.{node.target.__qualname__}"
        args, kwargs = map_aggregate((node.args, node.kwargs), without_index)
        yield f"{node.op} {node.name} {target} {args!r} {kwargs!r}"
        if node.op == "placeholder" and isinstance(value := value_of(node), Tensor):
            shape = *value.shape, *value.stride()
            yield f"{', '.join(map(str, shape))} {value.dtype} {value.device.type}"
    for name, region in module.named_children():
        if isinstance(region, fx.GraphModule):
            yield str(names.get(name, name))
            yield from lines_of(region)


def without_index(argument: Any) -> Any:
    """Return the type of a device in place of the device; other arguments unchanged."""
    return torch.device(argument.type) if isinstance(argument, torch.device) else argument


def describe_graph(variant: Variant, program: Program, number: int) -> dict[str, Any]:
    """Return the description of a graph as JSON.

    Args:
        variant: The graph.
        program: Its program.
        number: The number of the program in the artifact.

    Raises:
        ArtifactError: The graph cannot be compiled. The error says why.
    """
    pairs = zip(variant.signature.inputs, example_inputs(variant), strict=True)
    return {
        "program": number,
        "digest": digest_of(variant.module),
        "inputs": [
            {
                "name": spec.name,
                **place_of(spec.source, program),
                **tensor_to_json(spec.name, spec.tensor, value),
            }
            for spec, value in pairs
        ],
        "outputs": [
            {"kind": output.sink.kind.value, "number": output.sink.key}
            for output in variant.signature.outputs
            if output.tensor is not None
        ],
        "weights": dict(weights_of(variant.module)),
    }


def example_inputs(variant: Variant) -> list[Tensor]:
    """Return a fake tensor like each input. Cached values come from buffers, which have no gaps."""
    values = [value_of(node) for node in variant.module.graph.find_nodes(op="placeholder")]
    return [
        torch.empty_like(value) if spec.source.kind is InputKind.CACHED else value
        for spec, value in zip(variant.signature.inputs, values, strict=True)
    ]


def place_of(source: Any, program: Program) -> dict[str, Any]:
    """Return the kind, the number and the role of an input."""
    if source.kind is InputKind.USER:
        role = program.inputs[source.key].role
        return {"kind": "user", "number": source.key, "role": role.name.lower()}
    if source.kind is not InputKind.CACHED or source.key[1] != 0:
        raise not_compilable(f"a graph takes a {source.kind.value}", program.model)
    return {"kind": "cached", "number": source.key[0], "role": ""}


def tensor_to_json(name: str, spec: TensorSpec | None, value: Any) -> dict[str, Any]:
    """Return the dtype, the shape, the order of dimensions and the device of an input."""
    assert spec is not None
    for size in spec.shape:
        if isinstance(size, str) and not size.isidentifier():
            raise not_compilable(f"the size {size} depends on another one", name)
    strides, step = [hint_of(stride) for stride in value.stride()], 1
    order = sorted(range(value.dim()), key=lambda d: (-(strides[d] or 0), d))
    for dim in reversed(order):
        if strides[dim] != step and hint_of(value.shape[dim]) != 1:
            raise not_compilable("an input has gaps in its memory", name)
        step *= hint_of(value.shape[dim]) or 1
    return {
        "dtype": dtype_name(spec.dtype),
        "shape": list(spec.shape),
        "order": order,
        "device": value.device.type,
    }


def weights_of(module: fx.GraphModule) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each weight that the graph reads, by its name in the machine code."""
    names: Mapping[str, str] = weight_names(module)
    for node in module.graph.find_nodes(op="get_attr"):
        weight = getattr(module, str(node.target))
        if isinstance(weight, fx.GraphModule):
            continue
        if node.target not in names:
            raise not_compilable("a plan with trained weights", module._get_name())
        yield str(node.target), weight_to_json(names[str(node.target)], weight)


def weight_to_json(name: str, weight: Tensor) -> dict[str, Any]:
    """Return the description of a weight."""
    return {
        "name": name,
        "dtype": dtype_name(weight.dtype),
        "shape": list(weight.shape),
        "order": order_of(weight),
    }


def not_compilable(what: str, where: str) -> ArtifactError:
    """Return the error for a graph that cannot be compiled."""
    return ArtifactError(
        f"this cannot be compiled to native code: {what}",
        where=where,
        remedy="load the artifact without native=True, and call torch.compile(model)",
    )

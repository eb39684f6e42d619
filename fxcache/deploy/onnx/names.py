"""The names of inputs, outputs and sizes of ONNX graphs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fxcache.deploy.results import spec_to_json
from fxcache.graph_inputs import InputKind, OutputKind
from fxcache.program import Program
from fxcache.rewrite.variant_signature import InputSpec, OutputSpec, VariantSignature

SYMBOL = re.compile(r"[A-Za-z_]\w*")
BATCH = "batch"


def size_names(program: Program) -> dict[str, str]:
    """Return a name for each size that may vary, by its symbol: ``batch``, or ``sample_2``."""
    latent = program.placeholders.index(program.latents[0])
    found: dict[str, str] = {}
    for (index, dim), expression in program.sizes.expressions.items():
        path = program.inputs[index].path.replace(".", "_")
        name = BATCH if (index, dim) == (latent, 0) else f"{path}_{dim}"
        for symbol in SYMBOL.findall(str(expression)):
            if name == BATCH or symbol not in found:
                found[symbol] = name
    return found


def renamed(text: Any, names: Mapping[str, str]) -> str:
    """Return an expression with the names of sizes in place of their symbols."""
    return SYMBOL.sub(lambda match: names.get(match[0], match[0]), str(text))


def shape_of(shape: Sequence[int | str], names: Mapping[str, str]) -> list[int | str]:
    """Return a shape. A size that may vary is an expression of names."""
    return [size if isinstance(size, int) else renamed(size, names) for size in shape]


def result_names(program: Program) -> list[str]:
    """Return the names of the results: ``output``, or ``output_0`` and so on, or their fields."""
    count = len(program.outputs)
    paths = list(leaf_paths(spec_to_json(program.out_spec)))
    tensors = [value for value in program.outputs if value is not None]
    if len(tensors) == 1:
        return ["output"] * count
    return ["_".join(("output", *path)) for path in paths]


def leaf_paths(spec: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each value in the structure of a result."""
    if not isinstance(spec, dict):
        yield path
        return
    fields = spec["fields"] or range(len(spec["items"]))
    for field, item in zip(fields, spec["items"], strict=True):
        yield from leaf_paths(item, (*path, str(field)))


def input_name(spec: InputSpec) -> str:
    """Return the name of an input: the path of an argument, or ``cached_0`` and so on."""
    if spec.source.kind is InputKind.USER:
        return spec.name
    return cached_name(spec.source.key[0])  # type: ignore[index]


def output_names(
    signature: VariantSignature, results: Sequence[str]
) -> list[tuple[str, OutputSpec]]:
    """Return the name of each output that is a tensor."""
    found = []
    for index, spec in enumerate(signature.outputs):
        result = spec.sink.kind is OutputKind.RESULT
        if spec.tensor is not None:
            found.append((results[index] if result else cached_name(spec.sink.key), spec))
    return found


def cached_name(number: Any) -> str:
    """Return the name of a cached value."""
    return f"cached_{number}"
